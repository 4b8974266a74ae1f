/* The model loader: a Vision Transformer from a file in memory, and images through it where that is quick.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"

static dlora_status load(dlora_model **model, const uint8_t *data, size_t size, size_t heads, const char *prefix,
                         size_t image_size) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.allocator = &fuzz_allocator;
  options.threads = 1;
  options.num_heads = heads;
  options.prefix = prefix;
  options.image_size = image_size;
  return dlora_model_load_memory(model, data, size, &options);
}

static void use(const dlora_model *model, const dlora_model_info *info) {
  uint8_t pixels[2 * 3 * 5];
  float features[2 * 64];
  const dlora_images images = {pixels, NULL, 2, 3, 5, 1};
  if (info->embed_dim > 64 || info->mlp_dim > 256 || info->depth > 4 || info->num_tokens > 64) return;
  if (info->patch_size > 32) return;
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(37 * i);
  const dlora_status status = dlora_model_embed(model, &images, features);
  if (status != DLORA_OK && status != DLORA_ERR_NOT_FINITE) fuzz_fail("dlora_model_embed: %s", dlora_last_error());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dlora_model *model = NULL;
  dlora_model_info info = {.struct_size = sizeof info};
  const char *prefix = NULL;
  size_t heads = 0;
  if (size == 0) data = (const uint8_t *)"";
  fuzz_watch(size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
  dlora_status status = load(&model, data, size, heads, prefix, 0);
  if (status == DLORA_ERR_ARGUMENT && strstr(dlora_last_error(), "choose one by the option prefix")) {
    prefix = "b.";
    status = load(&model, data, size, heads, prefix, 0);
  }
  if (status == DLORA_ERR_ARGUMENT && strstr(dlora_last_error(), "set the option num_heads")) {
    heads = 1;
    status = load(&model, data, size, heads, prefix, 0);
  }
  fuzz_unwatch();
  if (fuzz_check(status, model, "dlora_model_load_memory")) {
    if (dlora_model_get_info(model, &info) != DLORA_OK) fuzz_fail("dlora_model_get_info: %s", dlora_last_error());
    use(model, &info);
    dlora_model_destroy(model);
    model = NULL;
    if (info.patch_size <= 16 && info.embed_dim <= 256) {
      status = load(&model, data, size, heads, prefix, 3 * info.patch_size);
      fuzz_check(status, model, "dlora_model_load_memory at another image size");
    }
  }
  dlora_model_destroy(model);
  fuzz_released();
  return 0;
}
