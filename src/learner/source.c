/* Reads the images of a source one by one, checks them, and remembers them by digests of their pixels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/learner/source.h"

#include <stdio.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/image.h"
#include "src/learner/learner.h"

struct dli_reader {
  dlora_allocator allocator;
  const dlora_model *model;
  const dlora_image_source *source;
  struct dli_image_plan *plan;
  size_t max_batch;
  float *pixels;     /* [max_batch, 3, image_size, image_size] */
  int64_t *labels;   /* [max_batch] */
  uint64_t *digests; /* [max_batch] */
};

dlora_status dli_source_read(dlora_image_source *out, const dlora_image_source *given, const char *caller) {
  *out = (dlora_image_source)DLORA_IMAGE_SOURCE_INIT;
  if (!given) return dli_raise(DLORA_ERR_ARGUMENT, "%s: source is NULL", caller);
  DLI_TRY(dli_options_read("dlora_image_source", out, sizeof *out, given));
  if (!out->read || !out->labels) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: the source's %s is NULL", caller, !out->read ? "read" : "labels");
  }
  if (!out->count) return dli_raise(DLORA_ERR_ARGUMENT, "%s: the source has no images", caller);
  return DLORA_OK;
}

dlora_status dli_reader_create(struct dli_reader **out, const dlora_model *model, const dlora_image_source *source,
                               size_t max_batch, const dlora_allocator *allocator) {
  const struct dli_vit *vit = &model->vit;
  const struct dli_image_format format = dli_vit_image_format(vit);
  dlora_status status = DLORA_OK;
  struct dli_reader *reader;
  DLI_TRY(DLI_NEW(allocator, reader, 1));
  reader->allocator = *allocator;
  reader->model = model;
  reader->source = source;
  reader->max_batch = max_batch;
  DLI_TRY_DONE(dli_image_plan_create(&reader->plan, allocator, &format));
  DLI_TRY_DONE(DLI_NEW(allocator, reader->pixels, max_batch * 3 * vit->image_size * vit->image_size));
  DLI_TRY_DONE(DLI_NEW(allocator, reader->labels, max_batch));
  DLI_TRY_DONE(DLI_NEW(allocator, reader->digests, max_batch));
  *out = reader;
done:
  if (status != DLORA_OK) dli_reader_destroy(reader);
  return status;
}

void dli_reader_destroy(struct dli_reader *reader) {
  if (!reader) return;
  const dlora_allocator allocator = reader->allocator;
  dli_image_plan_destroy(reader->plan);
  dli_free(&allocator, reader->pixels);
  dli_free(&allocator, reader->labels);
  dli_free(&allocator, reader->digests);
  dli_free(&allocator, reader);
}

dlora_status dli_reader_read(struct dli_reader *reader, const size_t *indices, size_t count, dlora_images *images,
                             const int64_t **labels) {
  const size_t size = reader->model->vit.image_size;
  for (size_t i = 0; i < count; i++) {
    dlora_images one = {NULL, NULL, 0, 0, 0, 0};
    char name[48];
    if (reader->source->read(indices[i], &one, reader->source->user) != 0) {
      return dli_raise(DLORA_ERR_IO, "image %zu of the source could not be read", indices[i]);
    }
    snprintf(name, sizeof name, "image %zu of the source", indices[i]);
    if (one.count != 1) return dli_raise(DLORA_ERR_ARGUMENT, "%s: count is %zu, expected 1", name, one.count);
    DLI_TRY(dli_image_plan_prepare(reader->plan, &one, name));
    dli_image_plan_run(reader->plan, &one, 0, NULL, reader->pixels + i * 3 * size * size);
    reader->labels[i] = reader->source->labels[indices[i]];
    reader->digests[i] = dli_images_digest(&one);
  }
  *images = (dlora_images){NULL, reader->pixels, count, size, size, 3};
  *labels = reader->labels;
  return DLORA_OK;
}

const uint64_t *dli_reader_digests(const struct dli_reader *reader) {
  return reader->digests;
}

dlora_status dlora_image_source_init(dlora_image_source *source, size_t size) {
  const dlora_image_source full = DLORA_IMAGE_SOURCE_INIT;
  return dli_struct_write("dlora_image_source", source, size, &full, sizeof full);
}

uint64_t dli_images_digest(const dlora_images *images) {
  const size_t pixels = images->count * images->height * images->width;
  const size_t channels = images->channels ? images->channels : 3;
  const uint64_t shape =
      dli_mix(dli_mix(dli_mix(images->u8 ? channels : 0, images->count), images->height), images->width);
  const uint64_t digest = images->u8 ? dli_mix_bytes(shape, images->u8, pixels * channels)
                                     : dli_mix_bytes(shape, images->f32, pixels * 3 * sizeof *images->f32);
  return digest ? digest : 1;
}

dlora_status dli_report_progress(const dlora_learner *learner, size_t num_tasks, int32_t phase, size_t done,
                                 size_t total, double loss, size_t images, double started) {
  if (!learner->progress) return DLORA_OK;
  const double seconds = dli_seconds() - started;
  const dlora_progress progress = {
      sizeof progress, (int64_t)num_tasks, done, total, loss, seconds > 0.0 ? (double)images / seconds : 0.0, phase, 0};
  if (learner->progress(&progress, learner->progress_user) == 0) return DLORA_OK;
  return dli_raise(DLORA_ERR_CANCELLED, "cancelled by the progress callback");
}
