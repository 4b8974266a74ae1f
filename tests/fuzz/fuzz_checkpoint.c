/* The checkpoint loader: a learner on the tiny model, and a prediction of what was accepted.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "fuzz.h"
#include "tiny.h"

static dlora_model *model;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  const struct tiny_kind kind = {DLORA_NAMING_TIMM, "F32", 1, 0, 0};
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  size_t size;
  (void)argc;
  (void)argv;
  options.threads = 1;
  const uint8_t *bytes = tiny_model(&kind, &size); /* lives as long as the process */
  if (dlora_model_load_memory(&model, bytes, size, &options) != DLORA_OK) fuzz_fail("%s", dlora_last_error());
  return 0;
}

static void use(const dlora_learner *learner) {
  static const uint8_t pixels[3 * TINY_IMAGE * TINY_IMAGE] = {1, 2, 3, 200, 100};
  const dlora_images image = {pixels, NULL, 1, TINY_IMAGE, TINY_IMAGE, 3};
  dlora_prediction prediction;
  const dlora_status status = dlora_learner_predict(learner, &image, &prediction, NULL);
  /* STATE: no task yet, or the task must be given. */
  if (status != DLORA_OK && status != DLORA_ERR_STATE && status != DLORA_ERR_NOT_FINITE) {
    fuzz_fail("dlora_learner_predict: %s: %s", dlora_status_name(status), dlora_last_error());
  }
  if (status == DLORA_OK && (prediction.task < 0 || (size_t)prediction.task >= dlora_learner_num_tasks(learner))) {
    fuzz_fail("task %lld of %zu was predicted", (long long)prediction.task, dlora_learner_num_tasks(learner));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dlora_learner *learner = NULL;
  dlora_learner_options options;
  (void)dlora_learner_options_init(&options, sizeof options);
  const char *path = fuzz_file(0, data, size);

  /* As saved: only what malloc gives is counted. */
  fuzz_watch(size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
  dlora_status status = dlora_learner_load(&learner, model, path, NULL);
  fuzz_unwatch();
  if (fuzz_check(status, learner, "dlora_learner_load")) use(learner);
  /* Now and then once more, with its own options and an allocator. */
  if (learner && (data[0] >> 3 & 7) == 0) {
    options.struct_size = sizeof options;
    if (dlora_learner_get_options(learner, &options) != DLORA_OK) fuzz_fail("%s", dlora_last_error());
    dlora_learner_destroy(learner);
    options.allocator = &fuzz_allocator;
    fuzz_watch(size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
    status = dlora_learner_load(&learner, model, path, &options);
    fuzz_unwatch();
    if (status != DLORA_OK) fuzz_fail("not loaded with the options it has: %s", dlora_last_error());
  }
  dlora_learner_destroy(learner);
  fuzz_released();
  return 0;
}
