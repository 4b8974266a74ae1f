/* Learners for the bench: one that is being trained, one with many tasks behind it, and the parts of a task timed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "speed.h"

enum { CLASSES = 2, PER_CLASS = 2, OBSERVED = 10, OBSERVED_CLASSES = 5 };

dlora_learner_options speed_learner_options(const struct speed_setup *setup) {
  dlora_learner_options options;
  (void)dlora_learner_options_init(&options, sizeof options);
  options.seed = 1;
  options.threads = (int32_t)setup->threads;
  options.flip = DLORA_FLIP_NONE;
  options.first_block = DLORA_FIRST_BLOCK_MIDDLE;
  options.crop_scale = 1.0f;
  options.jitter = 0.0f;
  options.held_out = 0.0f;
  options.schedule = DLORA_SCHEDULE_CONSTANT;
  return options;
}

int speed_start_task(const struct speed_setup *setup, dlora_learner *learner, const float *images) {
  const size_t size = setup->info.image_size;
  int64_t labels[OBSERVED];
  const dlora_images observed = {.f32 = images, .count = OBSERVED, .height = size, .width = size};
  for (size_t i = 0; i < OBSERVED; i++) labels[i] = (int64_t)(i % OBSERVED_CLASSES);
  SPEED_TRY(dlora_learner_begin_task(learner, 0));
  SPEED_TRY(dlora_learner_observe(learner, &observed, labels));
  SPEED_TRY(dlora_learner_begin_training(learner));
  return 0;
}

/* ---- many tasks ---- */

static int learn_one(const struct speed_setup *setup, dlora_learner *learner, size_t task) {
  const size_t count = CLASSES * PER_CLASS, size = setup->info.image_size;
  float *pixels = speed_images(&setup->info, count, (uint32_t)task + 100);
  int64_t labels[CLASSES * PER_CLASS];
  if (!pixels) return 1;
  for (size_t i = 0; i < count; i++) labels[i] = (int64_t)(CLASSES * task + i % CLASSES);
  const dlora_images images = {.f32 = pixels, .count = count, .height = size, .width = size};
  const dlora_status status = dlora_learner_learn_task(learner, &images, labels, NULL);
  free(pixels);
  SPEED_TRY(status);
  return 0;
}

static int learn_all(const struct speed_setup *setup, size_t tasks, dlora_learner *learner) {
  for (size_t t = 0; t < tasks; t++) {
    if (learn_one(setup, learner, t)) return 1;
  }
  return 0;
}

int speed_learnt(const struct speed_setup *setup, size_t tasks, dlora_learner **out) {
  char path[1024];
  snprintf(path, sizeof path, "%s-%zu-tasks.safetensors", setup->learnt, tasks);
  *out = NULL;
  if (dlora_learner_load(out, setup->model, path, NULL) == DLORA_OK) {
    if (dlora_learner_num_tasks(*out) == tasks) return 0;
    dlora_learner_destroy(*out);
    *out = NULL;
  }
  dlora_learner_options options = speed_learner_options(setup);
  options.epochs = 1;
  options.batch_size = CLASSES * PER_CLASS;
  /* Few images of a random network: other bases would have less than the full rank. */
  options.residual_basis = DLORA_RESIDUAL_RANDOM;
  SPEED_TRY(dlora_learner_create(out, setup->model, &options));
  int failed = learn_all(setup, tasks, *out);
  if (!failed && dlora_learner_save(*out, path) != DLORA_OK) failed = speed_fail("%s", dlora_last_error());
  if (failed) {
    dlora_learner_destroy(*out);
    *out = NULL;
  }
  return failed;
}

/* ---- one task in parts ---- */

struct parts {
  double before, first, steps, after, end;
};

static int learn_in_parts(dlora_learner *learner, const dlora_images *images, const int64_t *labels, size_t batch,
                          size_t steps, struct parts *out) {
  double start = speed_seconds(), now;
  dlora_images part = *images;
  part.count = batch < images->count ? batch : images->count;
  SPEED_TRY(dlora_learner_begin_task(learner, 0));
  SPEED_TRY(dlora_learner_observe(learner, images, labels));
  out->before = (now = speed_seconds()) - start;
  start = now;
  SPEED_TRY(dlora_learner_begin_training(learner));
  SPEED_TRY(dlora_learner_step(learner, &part, labels, NULL));
  out->first = (now = speed_seconds()) - start;
  start = now;
  for (size_t i = 0; i < steps; i++) SPEED_TRY(dlora_learner_step(learner, &part, labels, NULL));
  out->steps = (now = speed_seconds()) - start;
  start = now;
  SPEED_TRY(dlora_learner_observe_trained(learner, images, labels));
  out->after = (now = speed_seconds()) - start;
  start = now;
  SPEED_TRY(dlora_learner_commit_task(learner, NULL));
  out->end = speed_seconds() - start;
  return 0;
}

int speed_time_task(const struct speed_setup *setup, size_t tasks, size_t count, size_t batch, size_t steps) {
  const size_t size = setup->info.image_size;
  dlora_learner *learner = NULL;
  struct parts parts = {0};
  if (!count || !batch || !steps) return speed_fail("task: images, batch and steps are at least 1");
  float *pixels = speed_images(&setup->info, count, 7);
  int64_t *labels = calloc(count, sizeof *labels);
  int failed = !pixels || !labels || speed_learnt(setup, tasks, &learner);
  if (!failed) {
    const dlora_images images = {.f32 = pixels, .count = count, .height = size, .width = size};
    /* New classes, each with at least two images. */
    for (size_t i = 0; i < count; i++) labels[i] = (int64_t)(1000000 + i % (count < 20 ? 1 : 10));
    dlora_learner_options options = speed_learner_options(setup);
    failed = dlora_learner_get_options(learner, &options) != DLORA_OK;
    options.threads = (int32_t)setup->threads;
    options.batch_size = batch;
    options.held_out = 0.05f; /* the default: what is fitted on these images is part of the end */
    failed = failed || dlora_learner_configure(learner, &options) != DLORA_OK;
    if (failed) {
      speed_fail("%s", dlora_last_error());
    } else {
      failed = learn_in_parts(learner, &images, labels, batch, steps, &parts);
    }
  }
  if (!failed) {
    printf("task before %.6f first %.6f steps %.6f after %.6f end %.6f\n", parts.before, parts.first, parts.steps,
           parts.after, parts.end);
  }
  dlora_learner_destroy(learner);
  free(labels);
  free(pixels);
  return failed;
}
