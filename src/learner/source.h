/* Batches of model inputs from a caller's image source.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_LEARNER_SOURCE_H
#define DLI_SRC_LEARNER_SOURCE_H

#include "src/model/model.h"

/* Checks a source of any struct version. */
dlora_status dli_source_read(dlora_image_source *out, const dlora_image_source *given, const char *caller);

/* Turns images of any size into one batch of [count, 3, image_size, image_size] floats. */
struct dli_reader;
dlora_status dli_reader_create(struct dli_reader **out, const dlora_model *model, const dlora_image_source *source,
                               size_t max_batch, const dlora_allocator *allocator);
void dli_reader_destroy(struct dli_reader *reader);
/* The images with these indices; *images and *labels [count] are borrowed until the next call. */
dlora_status dli_reader_read(struct dli_reader *reader, const size_t *indices, size_t count, dlora_images *images,
                             const int64_t **labels);
/* Of each of these images as the source gave it [count]; borrowed likewise. Equal only for images that are the same bit
 * by bit, as far as 64 bits tell, and never 0. */
const uint64_t *dli_reader_digests(const struct dli_reader *reader);
/* The same of images, all together. */
uint64_t dli_images_digest(const dlora_images *images);

/* Calls the progress callback, if there is one; DLORA_ERR_CANCELLED if it says so. num_tasks: finished ones. */
dlora_status dli_report_progress(const dlora_learner *learner, size_t num_tasks, int32_t phase, size_t done,
                                 size_t total, double loss, size_t images, double started);

#endif
