/* Writes and reads the tensors of a list of fields, each named "<prefix>.<suffix>".
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/predictor/fields.h"

#include <math.h>

#include "base/status.h"
#include "io/saved_file.h"

dlora_status dli_fields_write(struct dli_writer *writer, const char *prefix, const struct dli_field *fields,
                              size_t count) {
  char name[DLI_SAVED_NAME_SIZE];
  for (size_t i = 0; i < count; i++) {
    DLI_TRY(dli_saved_name(name, prefix, fields[i].suffix));
    DLI_TRY(dli_writer_add(writer, name, fields[i].dtype, fields[i].num_dims, fields[i].shape, fields[i].data));
  }
  return DLORA_OK;
}

dlora_status dli_fields_require(const struct dli_tensors *tensors, const char *prefix, const struct dli_field *fields,
                                size_t count) {
  char name[DLI_SAVED_NAME_SIZE];
  const struct dli_tensor *tensor = NULL;
  for (size_t i = 0; i < count; i++) {
    DLI_TRY(dli_saved_name(name, prefix, fields[i].suffix));
    DLI_TRY(dli_tensors_require(tensors, name, fields[i].dtype, fields[i].num_dims, fields[i].shape, &tensor));
  }
  return DLORA_OK;
}

dlora_status dli_fields_copy(const struct dli_tensors *tensors, const char *prefix, const struct dli_field *fields,
                             size_t count) {
  char name[DLI_SAVED_NAME_SIZE];
  for (size_t i = 0; i < count; i++) {
    DLI_TRY(dli_saved_name(name, prefix, fields[i].suffix));
    DLI_TRY(
        dli_tensors_copy(tensors, name, fields[i].dtype, fields[i].num_dims, fields[i].shape, (void *)fields[i].data));
  }
  return DLORA_OK;
}

bool dli_all_finite(const double *values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(values[i])) return false;
  }
  return true;
}
