#include "io/image.h"

#include <math.h>
#include <string.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/resample.h"

/* What one image size needs; without axes when it is the model's size already. */
struct scratch {
  size_t height; /* 0: nothing prepared */
  size_t width;
  size_t channels;
  struct dli_axis horizontal;
  struct dli_axis vertical;
  float *row;    /* [width, channels] */
  float *middle; /* [height, image_size, channels] */
  float *pixels; /* [image_size, image_size, channels], in [0, 1] */
};

struct dli_image_plan {
  dlora_allocator allocator;
  size_t image_size;
  float mean[3];
  float std[3];
  struct scratch scratch;
};

static void scratch_free(struct scratch *scratch, const dlora_allocator *allocator) {
  dli_axis_free(&scratch->horizontal, allocator);
  dli_axis_free(&scratch->vertical, allocator);
  dli_free(allocator, scratch->row);
  dli_free(allocator, scratch->middle);
  dli_free(allocator, scratch->pixels);
  *scratch = (struct scratch){0};
}

dlora_status dli_image_plan_create(struct dli_image_plan **out, const dlora_allocator *allocator, size_t image_size,
                                   const float mean[3], const float std[3]) {
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
  plan->allocator = used;
  plan->image_size = image_size;
  memcpy(plan->mean, mean, sizeof plan->mean);
  memcpy(plan->std, std, sizeof plan->std);
  *out = plan;
  return DLORA_OK;
}

void dli_image_plan_destroy(struct dli_image_plan *plan) {
  if (!plan) return;
  const dlora_allocator allocator = plan->allocator;
  scratch_free(&plan->scratch, &allocator);
  dli_free(&allocator, plan);
}

static dlora_status scratch_create(struct scratch *scratch, const struct dli_image_plan *plan, size_t height,
                                   size_t width, size_t channels) {
  dlora_status status = DLORA_OK;
  const dlora_allocator *allocator = &plan->allocator;
  const size_t size = plan->image_size;
  *scratch = (struct scratch){.height = height, .width = width, .channels = channels};
  DLI_TRY_DONE(DLI_NEW(allocator, scratch->pixels, size * size * channels));
  if (height != size || width != size) {
    size_t middle_size = 0;
    if (!dli_multiply(&middle_size, height, size * channels)) {
      status = dli_raise(DLORA_ERR_NO_MEMORY, "out of memory: images of %zu x %zu pixels", width, height);
      goto done;
    }
    DLI_TRY_DONE(dli_axis_create(&scratch->horizontal, allocator, width, size));
    DLI_TRY_DONE(dli_axis_create(&scratch->vertical, allocator, height, size));
    DLI_TRY_DONE(DLI_NEW(allocator, scratch->row, width * channels));
    DLI_TRY_DONE(DLI_NEW(allocator, scratch->middle, middle_size));
  }
done:
  if (status != DLORA_OK) scratch_free(scratch, allocator);
  return status;
}

static dlora_status prepare_u8(struct dli_image_plan *plan, const dlora_images *images, const char *caller) {
  const size_t channels = images->channels ? images->channels : 3;
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
  const size_t size = plan->image_size;
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
  const size_t bad = dli_first_not_finite(images->f32, total);
  if (bad < total) {
    return dli_raise(DLORA_ERR_NOT_FINITE, "%s: images->f32: value %zu of image %zu is NaN or infinite", caller,
                     bad % per_image, bad / per_image);
  }
  return DLORA_OK;
}

dlora_status dli_image_plan_prepare(struct dli_image_plan *plan, const dlora_images *images, const char *caller) {
  if (!images) return dli_raise(DLORA_ERR_ARGUMENT, "%s: images is NULL", caller);
  if (!images->u8 == !images->f32) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: images->u8 and images->f32 are %s, expected exactly one", caller,
                     images->u8 ? "both set" : "both NULL");
  }
  if (!images->count || !images->height || !images->width) {
    return dli_raise(DLORA_ERR_ARGUMENT,
                     "%s: images->count, height and width are %zu, %zu and %zu, expected at least 1", caller,
                     images->count, images->height, images->width);
  }
  return images->u8 ? prepare_u8(plan, images, caller) : check_f32(plan, images, caller);
}

static void to_unit(const uint8_t *from, size_t count, float *to) {
  for (size_t i = 0; i < count; i++) to[i] = (float)from[i] / 255.0f;
}

/* Fills scratch->pixels from one image [height, width, channels]. */
static void resize(struct scratch *scratch, size_t size, const uint8_t *image) {
  const size_t channels = scratch->channels;
  const size_t count = size * size * channels;
  if (!scratch->row) {
    to_unit(image, count, scratch->pixels);
    return;
  }
  const size_t in_row = scratch->width * channels;
  const size_t out_row = size * channels;
  for (size_t y = 0; y < scratch->height; y++) {
    to_unit(image + y * in_row, in_row, scratch->row);
    dli_axis_resample_columns(&scratch->horizontal, 1, channels, scratch->row, scratch->middle + y * out_row);
  }
  dli_axis_resample_rows(&scratch->vertical, out_row, scratch->middle, scratch->pixels);
  /* The cubic overshoots at edges; no pixel is darker than black or brighter than white. */
  for (size_t i = 0; i < count; i++) {
    const float value = scratch->pixels[i];
    scratch->pixels[i] = value < 0.0f ? 0.0f : (value > 1.0f ? 1.0f : value);
  }
}

/* One channel: from [size, size] at distance `stride`, out [size, size]. */
struct plane {
  const float *from;
  size_t stride;
  size_t size;
  float mean;
  float std;
  float black; /* what comes in from outside, normalised */
};

static void move_plane(const struct plane *plane, int flip, int dx, int dy, float *out) {
  const long long size = (long long)plane->size;
  for (long long y = 0; y < size; y++) {
    const long long from_y = y - dy;
    for (long long x = 0; x < size; x++) {
      const long long moved = x - dx;
      const long long from_x = flip ? size - 1 - moved : moved;
      const int inside = from_y >= 0 && from_y < size && from_x >= 0 && from_x < size;
      *out++ = inside ? (plane->from[(size_t)(from_y * size + from_x) * plane->stride] - plane->mean) / plane->std
                      : plane->black;
    }
  }
}

static void copy_plane(const struct plane *plane, float *out) {
  for (size_t i = 0; i < plane->size * plane->size; i++)
    out[i] = (plane->from[i * plane->stride] - plane->mean) / plane->std;
}

void dli_image_plan_run(struct dli_image_plan *plan, const dlora_images *images, size_t index, int flip, int dx, int dy,
                        float *out) {
  struct scratch *scratch = &plan->scratch;
  const size_t size = plan->image_size;
  if (images->u8) resize(scratch, size, images->u8 + index * scratch->height * scratch->width * scratch->channels);
  for (size_t c = 0; c < 3; c++) {
    struct plane plane = {.size = size, .black = (0.0f - plan->mean[c]) / plan->std[c]};
    if (images->u8) {
      plane.from = scratch->pixels + (scratch->channels == 3 ? c : 0);
      plane.stride = scratch->channels;
      plane.mean = plan->mean[c];
      plane.std = plan->std[c];
    } else {
      /* Already normalised. */
      plane.from = images->f32 + (index * 3 + c) * size * size;
      plane.stride = 1;
      plane.std = 1.0f;
    }
    float *to = out + c * size * size;
    if (flip || dx || dy) {
      move_plane(&plane, flip, dx, dy, to);
    } else {
      copy_plane(&plane, to);
    }
  }
}
