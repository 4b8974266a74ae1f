/* Lists of a predictor's tensors, which writing and reading walk through alike. For the files of src/predictor.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PREDICTOR_FIELDS_H
#define DLI_SRC_PREDICTOR_FIELDS_H

#include <stdbool.h>

#include "io/safetensors.h"

#define DLI_MAX_FIELDS 24

/* One tensor "<prefix>.<suffix>" and its address. */
struct dli_field {
  const char *suffix;
  enum dli_dtype dtype;
  size_t num_dims;
  size_t shape[2];
  const void *data;
};

dlora_status dli_fields_write(struct dli_writer *writer, const char *prefix, const struct dli_field *fields,
                              size_t count);
/* Whether the file has them all, with these types and shapes: before memory for them is allocated. */
dlora_status dli_fields_require(const struct dli_tensors *tensors, const char *prefix, const struct dli_field *fields,
                                size_t count);
/* Copies tensors to the fields' addresses, which must be memory of the predictor that is read. */
dlora_status dli_fields_copy(const struct dli_tensors *tensors, const char *prefix, const struct dli_field *fields,
                             size_t count);
bool dli_all_finite(const double *values, size_t count);

#endif
