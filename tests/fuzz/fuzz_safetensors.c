/* The safetensors reader, through dlora_inspect. What it shows must be strings, shapes that fill their bytes, and as
 * many bytes in all as the file has behind its header.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "fuzz.h"

static size_t bits_of(const char *dtype) {
  static const struct {
    const char *name;
    size_t bits;
  } known[] = {{"F64", 64},  {"I64", 64}, {"U64", 64}, {"C64", 64}, {"F32", 32},    {"I32", 32},    {"U32", 32},
               {"BF16", 16}, {"F16", 16}, {"I16", 16}, {"U16", 16}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].name, dtype) == 0) return known[i].bits;
  }
  return 8;
}

static int32_t visit(const dlora_tensor_info *info, void *user) {
  size_t *num_bytes = user, count = 1;
  if (info->value) {
    if (strlen(info->name) + strlen(info->value) > (size_t)1 << 24) fuzz_fail("metadata of impossible length");
    return 0;
  }
  for (size_t i = 0; i < info->num_dims; i++) count *= info->shape[i];
  if (count * bits_of(info->dtype) != 8 * info->num_bytes) fuzz_fail("%s does not fill its bytes", info->name);
  *num_bytes += info->num_bytes;
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t num_bytes = 0, header = 0;
  const char *path = fuzz_file(0, data, size);
  fuzz_watch(size, FUZZ_PER_BYTE, FUZZ_CONSTANT);
  const dlora_status status = dlora_inspect(path, visit, &num_bytes);
  fuzz_unwatch();
  if (fuzz_check(status, status == DLORA_OK ? path : NULL, "dlora_inspect")) {
    for (size_t i = 0; i < 8; i++) header |= (size_t)data[i] << (8 * i);
    if (8 + header + num_bytes != size) fuzz_fail("%zu bytes are of no tensor", size - 8 - header - num_bytes);
  }
  fuzz_released();
  return 0;
}
