/* Resampling, one axis after the other. Each output position is a weighted sum of a run of input
 * positions; the weights depend on the two sizes alone and are computed once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/resample.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/image.h"

/* Keys' cubic: zero from distance 2 on. With a = -0.5 it reproduces quadratics. */
static double cubic(double distance, double a) {
  const double x = fabs(distance);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
  return 0.0;
}

static double filter_at(enum dli_filter filter, double distance) {
  if (filter == DLI_FILTER_CUBIC) return cubic(distance, -0.5);
  return fabs(distance) < 1.0 ? 1.0 - fabs(distance) : 0.0;
}

/* Half the width of what is not zero. */
static double reach_of(enum dli_filter filter) {
  return filter == DLI_FILTER_LINEAR ? 1.0 : 2.0;
}

/* Output position i of the window, of width `scale` in input pixels, has its centre at (begin + i + 1/2) scale. Its
 * weights are the filter at the distances of the input pixels' centres:
 *
 *     1   where the image shrinks, scale > 1, the filter is stretched by it: each output pixel averages all input
 *         pixels that it covers, which is the antialias
 *     2   the pixels within the filter's support, 2 or 1 stretched units on either side, as far as the image reaches
 *     3   their weights, divided by the sum: a constant image stays constant at its edges too */
static void weigh_area(struct dli_axis *axis, enum dli_filter filter, double stretch, double centre, size_t i) {
  /* 2 */
  const double support = reach_of(filter) * stretch;
  const double lowest = floor(centre - support + 0.5);
  const double beyond = floor(centre + support + 0.5);
  const size_t begin = lowest > 0.0 ? (size_t)lowest : 0;
  const size_t end = beyond < (double)axis->in ? (size_t)beyond : axis->in;
  DLI_ASSERT(begin < end);
  const size_t count = end - begin < axis->taps ? end - begin : axis->taps;
  /* 3 */
  double sum = 0.0;
  for (size_t k = 0; k < count; k++) sum += filter_at(filter, ((double)(begin + k) + 0.5 - centre) / stretch);
  for (size_t k = 0; k < count; k++) {
    axis->weights[i * axis->taps + k] =
        (float)(filter_at(filter, ((double)(begin + k) + 0.5 - centre) / stretch) / sum);
  }
  axis->first[i] = begin;
  axis->count[i] = count;
}

/* The two pixels on either side of the centre; one beyond an edge adds its weight to that of the edge's pixel. */
static void weigh_four(struct dli_axis *axis, double centre, size_t i) {
  double weights[4] = {0.0, 0.0, 0.0, 0.0};
  const double last = (double)(axis->in - 1), left = floor(centre - 0.5) - 1.0;
  const double begin = left < 0.0 ? 0.0 : left > last ? last : left;
  size_t count = 0;
  for (size_t k = 0; k < 4; k++) {
    const double at = left + (double)k, inside = at < 0.0 ? 0.0 : at > last ? last : at;
    const size_t tap = (size_t)(inside - begin);
    weights[tap] += cubic(at + 0.5 - centre, -0.75);
    count = tap + 1;
  }
  DLI_ASSERT(count <= axis->taps);
  for (size_t k = 0; k < count; k++) axis->weights[i * axis->taps + k] = (float)weights[k];
  axis->first[i] = (size_t)begin;
  axis->count[i] = count;
}

dlora_status dli_axis_create(struct dli_axis *axis, const dlora_allocator *allocator, enum dli_filter filter, size_t in,
                             struct dli_window out) {
  DLI_ASSERT(in > 0 && out.count > 0 && out.begin < out.full && out.count <= out.full - out.begin);
  dlora_status status = DLORA_OK;
  const double scale = (double)in / (double)out.full;
  /* 1 */
  const double stretch = scale > 1.0 ? scale : 1.0;
  const size_t widest = filter == DLI_FILTER_FOUR_TAPS ? 4 : 2 * (size_t)ceil(reach_of(filter) * stretch) + 1;
  *axis = (struct dli_axis){.in = in, .out = out.count, .taps = widest < in ? widest : in};
  size_t num_weights = 0;
  if (!dli_multiply(&num_weights, out.count, axis->taps)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "out of memory: resampling %zu pixels to %zu", in, out.full);
  }
  DLI_TRY_DONE(DLI_NEW(allocator, axis->first, out.count));
  DLI_TRY_DONE(DLI_NEW(allocator, axis->count, out.count));
  DLI_TRY_DONE(DLI_NEW(allocator, axis->weights, num_weights));
  for (size_t i = 0; i < out.count; i++) {
    const double centre = ((double)(out.begin + i) + 0.5) * scale;
    if (filter == DLI_FILTER_FOUR_TAPS) {
      weigh_four(axis, centre, i);
    } else {
      weigh_area(axis, filter, stretch, centre, i);
    }
  }
done:
  if (status != DLORA_OK) dli_axis_free(axis, allocator);
  return status;
}

size_t dli_axis_trim(struct dli_axis *axis) {
  const size_t skipped = axis->first[0];
  axis->in = axis->first[axis->out - 1] + axis->count[axis->out - 1] - skipped;
  for (size_t i = 0; i < axis->out; i++) axis->first[i] -= skipped;
  return skipped;
}

void dli_axis_free(struct dli_axis *axis, const dlora_allocator *allocator) {
  dli_free(allocator, axis->first);
  dli_free(allocator, axis->count);
  dli_free(allocator, axis->weights);
  *axis = (struct dli_axis){0};
}

void dli_axis_resample_rows(const struct dli_axis *axis, size_t width, const float *in, float *out) {
  for (size_t i = 0; i < axis->out; i++) {
    const float *weights = axis->weights + i * axis->taps;
    float *to = out + i * width;
    memset(to, 0, width * sizeof *to);
    for (size_t k = 0; k < axis->count[i]; k++) {
      const float *from = in + (axis->first[i] + k) * width;
      const float weight = weights[k];
      for (size_t j = 0; j < width; j++) to[j] += weight * from[j];
    }
  }
}

/* to [3] = weighted sum of from [count, 3]: the usual case, with sums in registers. */
static void weigh_rgb(const float *weights, size_t count, const float *from, float *to) {
  float red = 0.0f;
  float green = 0.0f;
  float blue = 0.0f;
  for (size_t k = 0; k < count; k++) {
    red += weights[k] * from[3 * k];
    green += weights[k] * from[3 * k + 1];
    blue += weights[k] * from[3 * k + 2];
  }
  to[0] = red;
  to[1] = green;
  to[2] = blue;
}

/* to [channels] = weighted sum of from [count, channels] */
static void weigh(const float *weights, size_t count, size_t channels, const float *from, float *to) {
  memset(to, 0, channels * sizeof *to);
  for (size_t k = 0; k < count; k++) {
    for (size_t c = 0; c < channels; c++) to[c] += weights[k] * from[k * channels + c];
  }
}

void dli_axis_resample_columns(const struct dli_axis *axis, size_t rows, size_t channels, const float *in, float *out) {
  for (size_t r = 0; r < rows; r++) {
    const float *row = in + r * axis->in * channels;
    for (size_t i = 0; i < axis->out; i++) {
      const float *weights = axis->weights + i * axis->taps;
      const float *from = row + axis->first[i] * channels;
      float *to = out + (r * axis->out + i) * channels;
      if (channels == 3) {
        weigh_rgb(weights, axis->count[i], from, to);
      } else {
        weigh(weights, axis->count[i], channels, from, to);
      }
    }
  }
}

/* Separable: first along the rows, [in_height, in_width] to [in_height, out_width], then along the columns. */
dlora_status dli_resample(const dlora_allocator *allocator, enum dli_filter filter, const float *in, size_t in_height,
                          size_t in_width, size_t channels, size_t out_height, size_t out_width, float *out) {
  dlora_status status = DLORA_OK;
  struct dli_axis horizontal = {0};
  struct dli_axis vertical = {0};
  float *middle = NULL; /* [in_height, out_width, channels] */
  size_t row_size = 0;
  if (in_height == 0 || in_width == 0 || channels == 0 || out_height == 0 || out_width == 0) {
    return dli_raise(DLORA_ERR_ARGUMENT, "resampling [%zu, %zu, %zu] to %zu x %zu: no size may be 0", in_height,
                     in_width, channels, out_height, out_width);
  }
  if (!dli_multiply(&row_size, out_width, channels) || row_size > SIZE_MAX / sizeof *middle) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "out of memory: rows of %zu pixels with %zu channels", out_width, channels);
  }
  DLI_TRY_DONE(dli_axis_create(&horizontal, allocator, filter, in_width, (struct dli_window){out_width, 0, out_width}));
  DLI_TRY_DONE(
      dli_axis_create(&vertical, allocator, filter, in_height, (struct dli_window){out_height, 0, out_height}));
  middle = dli_alloc(allocator, in_height, row_size * sizeof *middle);
  if (!middle) {
    status = DLORA_ERR_NO_MEMORY;
    goto done;
  }
  dli_axis_resample_columns(&horizontal, in_height, channels, in, middle);
  dli_axis_resample_rows(&vertical, row_size, middle, out);
done:
  dli_free(allocator, middle);
  dli_axis_free(&vertical, allocator);
  dli_axis_free(&horizontal, allocator);
  return status;
}
