/* From the caller's pixels to the model's input.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_IMAGE_H
#define DLI_IO_IMAGE_H

#include <stdbool.h>

#include "duallora/duallora.h"
#include "io/resample.h"

/* in: [in_height, in_width, channels], out: [out_height, out_width, channels]. Error: NO_MEMORY. */
dlora_status dli_resample(const dlora_allocator *allocator, enum dli_filter filter, const float *in, size_t in_height,
                          size_t in_width, size_t channels, size_t out_height, size_t out_width, float *out);

/* What the model's input is: how bytes become pixels, and their normalisation. */
struct dli_image_format {
  size_t image_size; /* pixels a side */
  size_t resized;    /* pixels of the shorter side, or of both, before the centre is cut out: >= image_size */
  bool squash;       /* of both, whatever the aspect ratio */
  bool even_centre;  /* where an odd number of pixels is to be cut off, torchvision begins at the even one of the two
                        middle positions; false: at the lower one, as transformers do */
  enum dli_filter filter; /* cubic or linear */
  float mean[3], std[3];
};

/* A plan to turn images of one size into model inputs; reused while the size stays the same. */
struct dli_image_plan;
dlora_status dli_image_plan_create(struct dli_image_plan **out, const dlora_allocator *allocator,
                                   const struct dli_image_format *format);
void dli_image_plan_destroy(struct dli_image_plan *plan);
/* Checks the batch (exactly one of u8 and f32, sizes, channels, finite values, floats within what normalised pixels can
 * be) and readies the plan for its image size; memory is taken only when a size is new. `caller` names the function in
 * errors. */
dlora_status dli_image_plan_prepare(struct dli_image_plan *plan, const dlora_images *images, const char *caller);
/* Random changes of one training image, in this order: its brightness and contrast, the part of it that becomes the
 * whole (bilinear, at the model's image size), mirrored left to right, moved with black coming in. */
struct dli_augment {
  float brightness, contrast;     /* factors: of the image's mean, and of each pixel's distance from it */
  float left, top, width, height; /* the part, in fractions of the sides */
  bool flip;
  int dx, dy; /* pixels of the model's image size */
};
#define DLI_AUGMENT_NONE ((struct dli_augment){1.0f, 1.0f, 0.0f, 0.0f, 1.0f, 1.0f, false, 0, 0})
/* Image `index` of the prepared batch, changed unless augment is NULL, as normalised CHW floats: out [3, image_size,
 * image_size]. f32 batches are changed just so. Not to be called from two threads at once. */
void dli_image_plan_run(struct dli_image_plan *plan, const dlora_images *images, size_t index,
                        const struct dli_augment *augment, float *out);

#endif
