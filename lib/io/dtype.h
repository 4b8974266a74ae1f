/* Element types of safetensors files, and their values as float.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_DTYPE_H
#define DLI_IO_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "io/safetensors.h"

struct dli_dtype_info {
  const char *name;
  enum dli_dtype dtype;
  size_t bits; /* of one element; the smallest formats pack several into a byte */
};

/* What a file calls `name`; NULL if no version of the format knows it. */
const struct dli_dtype_info *dli_dtype_find(const char *name);
/* The entry of a dtype that this library reads and writes; NULL for DLI_OTHER. */
const struct dli_dtype_info *dli_dtype_get(enum dli_dtype dtype);

/* Exact, subnormal numbers included. */
float dli_half_to_float(uint16_t half);
float dli_bfloat16_to_float(uint16_t bits);

#endif
