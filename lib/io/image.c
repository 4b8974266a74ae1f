/* Turns an image into the model's input: 8-bit pixels are scaled to [0, 1], resampled, cut to the model's size and
 * normalised, (pixel - mean) / std, as planes [3, image_size, image_size]. A training image may be changed at random on
 * the way (METHOD.md 8).
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/image.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/resample.h"

/* How many times as large as the largest value that the model's own normalisation gives, or as 1, a pixel of a float
 * image may be. Normalisations by other statistics (deviations of 0.05 and more) and augmentations stay within it;
 * pixels in 0 ... 255 do not. */
#define MOST_NORMALISED 20.0

/* What one image size needs; without axes when it is the model's size already. The axes know only the rows and columns
 * that the model's input is made of, from `top` and `left` on. */
struct scratch {
  size_t height; /* 0: nothing prepared */
  size_t width;
  size_t channels;
  size_t top, left;
  struct dli_axis horizontal;
  struct dli_axis vertical;
  float *row;        /* [horizontal.in, channels] */
  float *middle;     /* [vertical.in, image_size, channels] */
  float *pixels;     /* [image_size, image_size, channels], in [0, 1] */
  float *normalised; /* [3, image_size, image_size] */
};

struct dli_image_plan {
  dlora_allocator allocator;
  struct dli_image_format format;
  float limit; /* of the magnitude of float pixels */
  struct scratch scratch;
};

static void scratch_free(struct scratch *scratch, const dlora_allocator *allocator) {
  dli_axis_free(&scratch->horizontal, allocator);
  dli_axis_free(&scratch->vertical, allocator);
  dli_free(allocator, scratch->row);
  dli_free(allocator, scratch->middle);
  dli_free(allocator, scratch->pixels);
  dli_free(allocator, scratch->normalised);
  *scratch = (struct scratch){0};
}

dlora_status dli_image_plan_create(struct dli_image_plan **out, const dlora_allocator *allocator,
                                   const struct dli_image_format *format) {
  const size_t image_size = format->image_size;
  const float *mean = format->mean, *std = format->std;
  DLI_ASSERT(format->resized >= image_size && format->filter != DLI_FILTER_FOUR_TAPS);
  *out = NULL;
  dlora_allocator used;
  struct dli_image_plan *plan = NULL;
  size_t pixels = 0;
  DLI_TRY(dli_allocator_read(&used, allocator));
  if (image_size == 0 || !dli_multiply(&pixels, image_size, image_size) || !dli_multiply(&pixels, pixels, 3)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "image_size is %zu, expected the pixels a side of the model's images",
                     image_size);
  }
  for (int c = 0; c < 3; c++) {
    if (!isfinite(mean[c]) || !isfinite(std[c]) || std[c] <= 0.0f) {
      return dli_raise(DLORA_ERR_ARGUMENT, "mean[%d] is %g and std[%d] is %g, expected finite values and std above 0",
                       c, (double)mean[c], c, (double)std[c]);
    }
  }
  DLI_TRY(DLI_NEW(&used, plan, 1));
  double largest = 1.0;
  for (int c = 0; c < 3; c++) {
    largest = fmax(largest, fmax(fabs((double)mean[c]), fabs(1.0 - (double)mean[c])) / (double)std[c]);
  }
  plan->limit = (float)fmin(MOST_NORMALISED * largest, (double)FLT_MAX);
  plan->allocator = used;
  plan->format = *format;
  *out = plan;
  return DLORA_OK;
}

void dli_image_plan_destroy(struct dli_image_plan *plan) {
  if (!plan) return;
  const dlora_allocator allocator = plan->allocator;
  scratch_free(&plan->scratch, &allocator);
  dli_free(&allocator, plan);
}

/* Where the model's input lies on an axis that is resized to `full` pixels: in the middle. */
static struct dli_window centre_of(const struct dli_image_format *format, size_t full) {
  const size_t surplus = full - format->image_size;
  const size_t up = format->even_centre && surplus % 4 == 3 ? 1 : 0;
  return (struct dli_window){full, surplus / 2 + up, format->image_size};
}

/* The longer side of an image whose shorter one is resized; false where it exceeds a size_t. */
static bool longer_side(size_t resized, size_t longer, size_t shorter, size_t *out) {
  /* resized * longer / shorter, rounded down, in parts that stay small */
  size_t whole = 0, rest = 0;
  if (!dli_multiply(&whole, longer / shorter, resized) || !dli_multiply(&rest, longer % shorter, resized)) return false;
  rest /= shorter;
  if (whole > SIZE_MAX - rest) return false;
  *out = whole + rest;
  return true;
}

static dlora_status scratch_create(struct scratch *scratch, const struct dli_image_plan *plan, size_t height,
                                   size_t width, size_t channels) {
  dlora_status status = DLORA_OK;
  const dlora_allocator *allocator = &plan->allocator;
  const struct dli_image_format *format = &plan->format;
  const size_t size = format->image_size;
  size_t rows = format->resized, columns = format->resized;
  *scratch = (struct scratch){.height = height, .width = width, .channels = channels};
  const bool fits = format->squash || (height > width ? longer_side(format->resized, height, width, &rows)
                                                      : longer_side(format->resized, width, height, &columns));
  if (!fits) {
    return dli_raise(DLORA_ERR_ARGUMENT,
                     "images of %zu x %zu pixels are too long to be resized to %zu on the other side", width, height,
                     format->resized);
  }
  DLI_TRY_DONE(DLI_NEW(allocator, scratch->pixels, size * size * channels));
  DLI_TRY_DONE(DLI_NEW(allocator, scratch->normalised, 3 * size * size));
  if (height != size || width != size || rows != size || columns != size) {
    size_t middle_size = 0;
    DLI_TRY_DONE(dli_axis_create(&scratch->horizontal, allocator, format->filter, width, centre_of(format, columns)));
    DLI_TRY_DONE(dli_axis_create(&scratch->vertical, allocator, format->filter, height, centre_of(format, rows)));
    scratch->left = dli_axis_trim(&scratch->horizontal);
    scratch->top = dli_axis_trim(&scratch->vertical);
    if (!dli_multiply(&middle_size, scratch->vertical.in, size * channels)) {
      status = dli_raise(DLORA_ERR_NO_MEMORY, "out of memory: images of %zu x %zu pixels", width, height);
      goto done;
    }
    DLI_TRY_DONE(DLI_NEW(allocator, scratch->row, scratch->horizontal.in * channels));
    DLI_TRY_DONE(DLI_NEW(allocator, scratch->middle, middle_size));
  }
done:
  if (status != DLORA_OK) scratch_free(scratch, allocator);
  return status;
}

static dlora_status prepare_u8(struct dli_image_plan *plan, const dlora_images *images, const char *caller) {
  const size_t channels = images->channels > 0 ? images->channels : 3;
  size_t total = 0;
  if (channels != 1 && channels != 3) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: images->channels is %zu, expected 3 (RGB) or 1 (gray)", caller,
                     images->channels);
  }
  if (!dli_multiply(&total, images->height, images->width) || !dli_multiply(&total, total, channels) ||
      !dli_multiply(&total, total, images->count)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: %zu images of %zu x %zu pixels do not fit the address space", caller,
                     images->count, images->width, images->height);
  }
  struct scratch *present = &plan->scratch;
  if (present->height == images->height && present->width == images->width && present->channels == channels) {
    return DLORA_OK;
  }
  struct scratch fresh;
  DLI_TRY(scratch_create(&fresh, plan, images->height, images->width, channels));
  scratch_free(present, &plan->allocator);
  *present = fresh;
  return DLORA_OK;
}

static dlora_status check_f32(const struct dli_image_plan *plan, const dlora_images *images, const char *caller) {
  const size_t size = plan->format.image_size;
  const size_t per_image = 3 * size * size;
  size_t total = 0;
  if (images->channels != 0 && images->channels != 3) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: images->channels is %zu, expected 3 for f32 images", caller,
                     images->channels);
  }
  if (images->height != size || images->width != size) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: f32 images are %zu x %zu pixels, expected the model's %zu x %zu", caller,
                     images->width, images->height, size, size);
  }
  if (!dli_multiply(&total, per_image, images->count)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: images->count is %zu: that many do not fit the address space", caller,
                     images->count);
  }
  const size_t bad = dli_first_beyond(images->f32, total, plan->limit);
  if (bad == total) return DLORA_OK;
  if (dli_first_not_finite(images->f32 + bad, 1) == 0) {
    return dli_raise(DLORA_ERR_NOT_FINITE, "%s: images->f32: value %zu of image %zu is NaN or infinite", caller,
                     bad % per_image, bad / per_image);
  }
  return dli_raise(DLORA_ERR_ARGUMENT,
                   "%s: images->f32: value %zu of image %zu is %g, expected normalised pixels within %g; pixels in 0 "
                   "... 255 go into images->u8, or are to be made (pixel / 255 - mean) / std first, with the model's "
                   "mean and std",
                   caller, bad % per_image, bad / per_image, (double)images->f32[bad], (double)plan->limit);
}

dlora_status dli_image_plan_prepare(struct dli_image_plan *plan, const dlora_images *images, const char *caller) {
  if (!images) return dli_raise(DLORA_ERR_ARGUMENT, "%s: images is NULL", caller);
  if (!images->u8 == !images->f32) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: images->u8 and images->f32 are %s, expected exactly one", caller,
                     images->u8 ? "both set" : "both NULL");
  }
  if (images->count == 0 || images->height == 0 || images->width == 0) {
    return dli_raise(DLORA_ERR_ARGUMENT,
                     "%s: images->count, height and width are %zu, %zu and %zu, expected at least 1", caller,
                     images->count, images->height, images->width);
  }
  return images->u8 ? prepare_u8(plan, images, caller) : check_f32(plan, images, caller);
}

static void to_unit(const uint8_t *from, size_t count, float *to) {
  for (size_t i = 0; i < count; i++) to[i] = (float)from[i] / 255.0f;
}

/* Fills scratch->pixels from one image [height, width, channels] of bytes:
 *
 *     1   each row in [0, 1], resampled to the model's width      middle [vertical.in, size, channels]
 *     2   the columns, resampled to the model's height            pixels [size, size, channels]
 *     3   clipped, because the cubic overshoots at edges: no pixel is darker than black or brighter than white
 *
 * Row by row, so that the image never exists as floats. PIL, and torchvision on bytes, round to bytes after either
 * step; here nothing is rounded, as where torchvision resizes floats. An image of the model's size is converted only.
 */
static void resize(struct scratch *scratch, size_t size, const uint8_t *image) {
  const size_t channels = scratch->channels;
  const size_t count = size * size * channels;
  if (!scratch->row) {
    to_unit(image, count, scratch->pixels);
    return;
  }
  /* 1 */
  const size_t in_row = scratch->width * channels;
  const size_t out_row = size * channels;
  const uint8_t *corner = image + scratch->top * in_row + scratch->left * channels;
  for (size_t y = 0; y < scratch->vertical.in; y++) {
    to_unit(corner + y * in_row, scratch->horizontal.in * channels, scratch->row);
    dli_axis_resample_columns(&scratch->horizontal, 1, channels, scratch->row, scratch->middle + y * out_row);
  }
  /* 2 */
  dli_axis_resample_rows(&scratch->vertical, out_row, scratch->middle, scratch->pixels);
  /* 3 */
  for (size_t i = 0; i < count; i++) {
    const float value = scratch->pixels[i];
    scratch->pixels[i] = value < 0.0f ? 0.0f : (value > 1.0f ? 1.0f : value);
  }
}

/* out [3, size, size] = (scratch->pixels - mean) / std; a gray image gives all three planes. */
static void normalise(const struct dli_image_plan *plan, float *out) {
  const size_t size = plan->format.image_size, channels = plan->scratch.channels;
  for (size_t c = 0; c < 3; c++) {
    const float *from = plan->scratch.pixels + (channels == 3 ? c : 0);
    for (size_t i = 0; i < size * size; i++) *out++ = (from[i * channels] - plan->format.mean[c]) / plan->format.std[c];
  }
}

/* The pixels around a position, and the weight of the second one in bilinear interpolation. */
struct between {
  size_t low;
  size_t high;
  float weight;
};

static struct between neighbours(double position, size_t size) {
  DLI_ASSERT(size > 0);
  const double last = (double)(size - 1);
  const double inside = position < 0.0 ? 0.0 : (position > last ? last : position);
  const size_t low = (size_t)inside;
  return (struct between){low, low + 1 < size ? low + 1 : low, (float)(inside - (double)low)};
}

/* One channel, from and out [size, size]. For each output pixel, the changes are undone in reverse order:
 *
 *     1   the shift by (dx, dy): a pixel that comes from outside is black
 *     2   the reflection
 *     3   the part [left, left + width) x [top, top + height), in fractions of the sides, which fills the output: the
 *         position of the pixel's centre in the input, between four pixels
 *
 * The value there by bilinear interpolation, times gain, plus add. */
static void change_plane(const float *from, size_t size, const struct dli_augment *a, float gain, float add,
                         float black, float *out) {
  const long long end = (long long)size;
  const double side = (double)size;
  for (long long y = 0; y < end; y++) {
    const long long from_y = y - a->dy;
    const struct between v = neighbours((double)a->top * side + (double)a->height * ((double)from_y + 0.5) - 0.5, size);
    const float *upper = from + v.low * size, *lower = from + v.high * size;
    for (long long x = 0; x < end; x++) {
      const long long moved = x - a->dx;
      const long long from_x = a->flip ? end - 1 - moved : moved;
      if (from_y < 0 || from_y >= end || from_x < 0 || from_x >= end) {
        *out++ = black;
        continue;
      }
      const struct between h =
          neighbours((double)a->left * side + (double)a->width * ((double)from_x + 0.5) - 0.5, size);
      const float above = upper[h.low] + h.weight * (upper[h.high] - upper[h.low]);
      const float below = lower[h.low] + h.weight * (lower[h.high] - lower[h.low]);
      *out++ = gain * (above + v.weight * (below - above)) + add;
    }
  }
}

/* Mean over all pixels and channels of a normalised image, as it was before normalisation. */
static double mean_pixel(const struct dli_image_plan *plan, const float *image) {
  const size_t count = plan->format.image_size * plan->format.image_size;
  double mean = 0.0;
  for (size_t c = 0; c < 3; c++) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) sum += (double)image[c * count + i];
    mean += (sum / (double)count * (double)plan->format.std[c] + (double)plan->format.mean[c]) / 3.0;
  }
  return mean;
}

/* Brightness and contrast are one linear map of pixels p with image mean M, p -> brightness M + contrast (p - M). In
 * normalised pixels q = (p - mean) / std it is q -> contrast q + add,
 *
 *     add = ((brightness - contrast) M + (contrast - 1) mean) / std
 *
 * so that no image has to be normalised twice. */
static void change(const struct dli_image_plan *plan, const float *image, const struct dli_augment *a, float *out) {
  const size_t count = plan->format.image_size * plan->format.image_size;
  const bool adjusts = a->brightness != 1.0f || a->contrast != 1.0f;
  const double level = adjusts ? (double)(a->brightness - a->contrast) * mean_pixel(plan, image) : 0.0;
  for (size_t c = 0; c < 3; c++) {
    const float mean = plan->format.mean[c], std = plan->format.std[c];
    const float add = adjusts ? ((float)level + (a->contrast - 1.0f) * mean) / std : 0.0f;
    change_plane(image + c * count, plan->format.image_size, a, a->contrast, add, (0.0f - mean) / std, out + c * count);
  }
}

void dli_image_plan_run(struct dli_image_plan *plan, const dlora_images *images, size_t index,
                        const struct dli_augment *augment, float *out) {
  struct scratch *scratch = &plan->scratch;
  const size_t size = plan->format.image_size, count = 3 * size * size;
  DLI_ASSERT(index < images->count);
  if (images->u8) {
    DLI_ASSERT(scratch->height == images->height && scratch->width == images->width); /* prepared for this batch */
    resize(scratch, size, images->u8 + index * scratch->height * scratch->width * scratch->channels);
    normalise(plan, augment ? scratch->normalised : out);
    if (augment) change(plan, scratch->normalised, augment, out);
  } else if (augment) {
    change(plan, images->f32 + index * count, augment, out);
  } else {
    memcpy(out, images->f32 + index * count, count * sizeof *out);
  }
}
