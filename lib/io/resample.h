/* One axis of a separable resampling: the input positions and weights of each output position.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_RESAMPLE_H
#define DLI_IO_RESAMPLE_H

#include <stddef.h>

#include "duallora/duallora.h"

/* What an output position weighs its inputs by. Pixel centres are at half integers. */
enum dli_filter {
  DLI_FILTER_CUBIC,    /* bicubic, a = -0.5, stretched where the axis shrinks (antialias), edges renormalised: PIL,
                          torchvision, and torch's interpolate(mode="bicubic", antialias=True) */
  DLI_FILTER_LINEAR,   /* the same with a triangle: mode="bilinear", antialias=True */
  DLI_FILTER_FOUR_TAPS /* bicubic, a = -0.75, always the four nearest inputs, edges repeated: torch's
                          interpolate(mode="bicubic") without antialias */
};

/* Positions [begin, begin + count) of an axis that is resampled to `full` positions. */
struct dli_window {
  size_t full, begin, count;
};

struct dli_axis {
  size_t in;
  size_t out;
  size_t taps;    /* weights kept per output position */
  size_t *first;  /* [out] first input position */
  size_t *count;  /* [out] positions from there, at most taps */
  float *weights; /* [out, taps] */
};

/* in and out.count are at least 1, the window lies within out.full. Errors: NO_MEMORY. */
dlora_status dli_axis_create(struct dli_axis *axis, const dlora_allocator *allocator, enum dli_filter filter, size_t in,
                             struct dli_window out);
void dli_axis_free(struct dli_axis *axis, const dlora_allocator *allocator);
/* Leaves out the inputs before the first and behind the last one that is read: returns how many the former are. */
size_t dli_axis_trim(struct dli_axis *axis);
/* in [axis->in, width] -> out [axis->out, width] */
void dli_axis_resample_rows(const struct dli_axis *axis, size_t width, const float *in, float *out);
/* in [rows, axis->in, channels] -> out [rows, axis->out, channels] */
void dli_axis_resample_columns(const struct dli_axis *axis, size_t rows, size_t channels, const float *in, float *out);

#endif
