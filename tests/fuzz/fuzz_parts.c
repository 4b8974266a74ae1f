/* The files of a bank, a projector and a predictor, and a first use of what was accepted.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

/* Widest and most that is used: results must be quick. */
enum { WIDE = 256, MANY = 64 };

static void succeed(dlora_status status, const char *call) {
  if (status != DLORA_OK && status != DLORA_ERR_NOT_FINITE) {
    fuzz_fail("%s: %s: %s", call, dlora_status_name(status), dlora_last_error());
  }
}

static void fuzz_bank(const char *path, size_t size) {
  dlora_bank *bank = NULL;
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  options.allocator = &fuzz_allocator;
  fuzz_watch(size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
  dlora_status status = dlora_bank_load(&bank, path, &options);
  fuzz_unwatch();
  if (fuzz_check(status, bank, "dlora_bank_load")) {
    float x[WIDE], y[WIDE], routing[MANY];
    const size_t tasks = dlora_bank_num_tasks(bank);
    for (size_t i = 0; i < WIDE; i++) x[i] = (float)i / WIDE;
    for (size_t i = 0; i < MANY; i++) routing[i] = 0.5f;
    for (size_t i = 0; i < dlora_bank_num_sites(bank) && i < MANY; i++) {
      dlora_site site;
      succeed(dlora_bank_get_site(bank, i, &site), "dlora_bank_get_site");
      if (site.input_dim > WIDE || site.output_dim > WIDE || tasks > MANY) continue;
      memset(y, 0, sizeof y);
      succeed(dlora_bank_forward(bank, i, x, 1, DLORA_TERM_MERGED, tasks ? routing : NULL, 1, y), "dlora_bank_forward");
    }
  }
  dlora_bank_destroy(bank);
}

static void fuzz_projector(const char *path, size_t size) {
  dlora_projector *projector = NULL;
  dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
  options.allocator = &fuzz_allocator;
  fuzz_watch(size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
  dlora_status status = dlora_projector_load(&projector, path, &options);
  fuzz_unwatch();
  if (fuzz_check(status, projector, "dlora_projector_load") && dlora_projector_dim(projector) <= WIDE) {
    float x[WIDE], routing[MANY];
    for (size_t i = 0; i < WIDE; i++) x[i] = (float)i / WIDE;
    if (dlora_projector_num_tasks(projector) <= MANY) {
      succeed(dlora_projector_route(projector, x, 1, routing), "dlora_projector_route");
    }
    succeed(dlora_projector_project(projector, x, 1), "dlora_projector_project");
  }
  dlora_projector_destroy(projector);
}

static void use_predictor(const dlora_predictor *predictor) {
  float x[WIDE];
  dlora_prediction prediction;
  if (dlora_predictor_dim(predictor) > WIDE || !dlora_predictor_num_tasks(predictor)) return;
  for (size_t i = 0; i < WIDE; i++) x[i] = (float)i / WIDE;
  succeed(dlora_predictor_predict(predictor, x, 1, &prediction), "dlora_predictor_predict");
}

static void fuzz_predictor(const char *path, size_t size) {
  /* As saved, and with options, which must agree with the file; those of the seeds do. */
  for (int kind = 0; kind < 3; kind++) {
    dlora_predictor *predictor = NULL;
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.allocator = &fuzz_allocator;
    if (kind == 2) {
      options.readout = DLORA_READOUT_RANDOM_PROJECTION;
      options.random_features = 6;
    }
    fuzz_watch(size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
    const dlora_status status = dlora_predictor_load(&predictor, path, kind ? &options : NULL);
    fuzz_unwatch();
    if (fuzz_check(status, predictor, "dlora_predictor_load")) use_predictor(predictor);
    dlora_predictor_destroy(predictor);
    if (status == DLORA_ERR_FORMAT) return;
    if (kind == 1 && status == DLORA_OK) return;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *path = fuzz_file(0, data, size);
  /* Whichever format is named; a file that names none goes through the one that is refused latest. */
  if (memmem(data, size, "duallora.bank", 13)) {
    fuzz_bank(path, size);
  } else if (memmem(data, size, "duallora.projector", 18)) {
    fuzz_projector(path, size);
  } else {
    fuzz_predictor(path, size);
  }
  fuzz_released();
  return 0;
}
