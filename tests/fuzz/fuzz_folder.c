/* A folder of a hub: config.json, preprocessor_config.json and the index of parts beside the weights of a small model.
 * An input is
 *
 *     kind (1 byte)   length of the first text (2 bytes, little-endian)   first text   second text
 *
 * kind modulo 2: 0 config.json and preprocessor_config.json, 1 config.json and the index. The files are in memory; two
 * folders of links to them are made once.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "tiny.h"

enum { HEAD = 3, WEIGHTS = 0, CONFIG = 1, PREPROCESSOR = 2, INDEX = 3 };

static char root[64];
static size_t weights_size;

/* What is made below the root; slot -1: a folder. */
static const struct {
  const char *name;
  int slot;
} entries[] = {
    {"whole", -1},
    {"whole/model.safetensors", WEIGHTS},
    {"whole/config.json", CONFIG},
    {"whole/preprocessor_config.json", PREPROCESSOR},
    {"parts", -1},
    {"parts/a.safetensors", WEIGHTS},
    {"parts/config.json", CONFIG},
    {"parts/model.safetensors.index.json", INDEX},
};
enum { NUM_ENTRIES = sizeof entries / sizeof entries[0] };

static void remove_links(void) {
  char path[160];
  for (size_t i = NUM_ENTRIES; i-- > 0;) {
    snprintf(path, sizeof path, "%s/%s", root, entries[i].name);
    (void)remove(path);
  }
  (void)rmdir(root);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  const struct tiny_kind kind = {DLORA_NAMING_HF_VIT, "F32", 1, 0, 0};
  uint8_t *bytes = tiny_model(&kind, &weights_size);
  fuzz_file(WEIGHTS, bytes, weights_size);
  free(bytes);
  const char *temporary = getenv("TMPDIR");
  snprintf(root, sizeof root, "%.40s/fuzz-XXXXXX", temporary ? temporary : "/tmp");
  if (!mkdtemp(root)) fuzz_fail("%s: %s", root, strerror(errno));
  atexit(remove_links);
  for (size_t i = 0; i < NUM_ENTRIES; i++) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", root, entries[i].name);
    if (entries[i].slot < 0 ? mkdir(path, 0700) : symlink(fuzz_path((size_t)entries[i].slot), path)) {
      fuzz_fail("%s: %s", path, strerror(errno));
    }
  }
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < HEAD) return 0;
  char path[160];
  dlora_model *model = NULL;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  const size_t kind = data[0] % 2, rest = size - HEAD;
  size_t first = (size_t)data[1] | (size_t)data[2] << 8;
  if (first > rest) first = rest;
  fuzz_file(CONFIG, data + HEAD, first);
  fuzz_file(kind == 0 ? PREPROCESSOR : INDEX, data + HEAD + first, rest - first);
  options.allocator = &fuzz_allocator;
  options.threads = 1;
  snprintf(path, sizeof path, "%s/%s", root, kind == 0 ? "whole" : "parts");
  fuzz_watch(size + 2 * weights_size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
  const dlora_status status = dlora_model_load(&model, path, &options);
  fuzz_unwatch();
  /* A part that is not there, and a number of heads that nobody tells. */
  if (status == DLORA_ERR_IO || status == DLORA_ERR_ARGUMENT) {
    if (model || !*dlora_last_error()) fuzz_fail("refused with a handle or without a sentence");
  } else if (fuzz_check(status, model, "dlora_model_load")) {
    for (size_t i = 0; i < dlora_model_num_settings(model); i++) {
      dlora_model_setting setting = DLORA_MODEL_SETTING_INIT;
      if (dlora_model_get_setting(model, i, &setting) != DLORA_OK || !*setting.value || !setting.place) {
        fuzz_fail("setting %zu", i);
      }
    }
  }
  dlora_model_destroy(model);
  fuzz_released();
  return 0;
}
