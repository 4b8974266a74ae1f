/* One axis of a separable bicubic resampling: the input positions and weights of each output position.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_RESAMPLE_H
#define DLI_IO_RESAMPLE_H

#include <stddef.h>

#include "duallora/duallora.h"

struct dli_axis {
  size_t in;
  size_t out;
  size_t taps;    /* weights kept per output position */
  size_t *first;  /* [out] first input position */
  size_t *count;  /* [out] positions from there, at most taps */
  float *weights; /* [out, taps] */
};

/* in and out are at least 1. Errors: NO_MEMORY. */
dlora_status dli_axis_create(struct dli_axis *axis, const dlora_allocator *allocator, size_t in, size_t out);
void dli_axis_free(struct dli_axis *axis, const dlora_allocator *allocator);
/* in [axis->in, width] -> out [axis->out, width] */
void dli_axis_resample_rows(const struct dli_axis *axis, size_t width, const float *in, float *out);
/* in [rows, axis->in, channels] -> out [rows, axis->out, channels] */
void dli_axis_resample_columns(const struct dli_axis *axis, size_t rows, size_t channels, const float *in, float *out);

#endif
