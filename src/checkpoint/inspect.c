/* Lists what a safetensors file, or a folder with the weights of a model, holds: each tensor with its shape, and the
 * metadata.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"
#include "io/model_folder.h"

static dlora_status show(const dlora_tensor_info *info, int32_t (*visit)(const dlora_tensor_info *info, void *user),
                         void *user) {
  if (visit(info, user) == 0) return DLORA_OK;
  return dli_raise(DLORA_ERR_CANCELLED, "dlora_inspect: visit stopped at '%s'", info->name);
}

dlora_status dlora_inspect(const char *path, int32_t (*visit)(const dlora_tensor_info *info, void *user), void *user) {
  dlora_status status = DLORA_OK;
  struct dli_tensors *tensors = NULL;
  DLI_REQUIRE(path);
  DLI_REQUIRE(visit);
  DLI_TRY(dli_model_weights_open(&tensors, path, NULL));
  for (size_t i = 0; i < dli_tensors_metadata_count(tensors); i++) {
    dlora_tensor_info info = {.struct_size = sizeof info};
    dli_tensors_metadata_at(tensors, i, &info.name, &info.value);
    DLI_TRY_DONE(show(&info, visit, user));
  }
  for (size_t i = 0; i < dli_tensors_count(tensors); i++) {
    const struct dli_tensor *tensor = dli_tensors_at(tensors, i);
    const dlora_tensor_info info = {.struct_size = sizeof info,
                                    .name = tensor->name,
                                    .dtype = tensor->dtype_name,
                                    .shape = tensor->shape,
                                    .num_dims = tensor->num_dims,
                                    .num_bytes = tensor->num_bytes};
    DLI_TRY_DONE(show(&info, visit, user));
  }
done:
  dli_tensors_close(tensors);
  return status;
}
