/* The loop around a task: reads a source, observes, trains for some epochs, observes again.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/status.h"
#include "src/learner/learner.h"
#include "src/learner/source.h"

/* epochs DLORA_AUTO: so many epochs, and more where they have fewer steps than this. */
enum { DLI_EPOCHS = 4, DLI_LEAST_STEPS = 36 };

struct loop {
  dlora_learner *learner;
  const dlora_image_source *source;
  struct dli_reader *reader;
  size_t *order;   /* [count] images in the order of the passes without training */
  size_t *trained; /* [num_trained] images that train, shuffled every epoch */
  size_t num_trained;
  int unsaved;      /* a snapshot could not be written */
  int other_images; /* the source is not the one that the open task was begun with */
};

/* Non-zero when the callback cancels. */
static dlora_status report(const struct loop *loop, int32_t phase, size_t done, size_t total, double loss,
                           size_t images, double started) {
  return dli_report_progress(loop->learner, dlora_learner_num_tasks(loop->learner), phase, done, total, loss, images,
                             started);
}

/* ---- snapshots ---- */

static dlora_status write_snapshot(struct loop *loop) {
  const dlora_learner *learner = loop->learner;
  const dlora_status status = learner->save_snapshot(learner, learner->snapshot_path);
  loop->unsaved = status != DLORA_OK;
  if (loop->unsaved) return status;
  dli_learner_log(learner, DLORA_LOG_INFO, "task %zu after %zu steps: snapshot written to %s",
                  dlora_learner_num_tasks(learner), learner->task->num_steps, learner->snapshot_path);
  return DLORA_OK;
}

/* After a step, or a batch of observations, that took `done` of something from `before` to `after`: a snapshot where a
 * multiple of `every` was reached, so that an interrupted run takes them at the same places as any other. */
static dlora_status snapshot_if_due(struct loop *loop, size_t before, size_t after, size_t every) {
  if (!loop->learner->snapshot_path || !every || before / every == after / every) return DLORA_OK;
  return write_snapshot(loop);
}

/* Learning stops early, and the task is still whole: its last place is kept. The sentence of what stopped it is kept
 * too. */
static dlora_status stop(struct loop *loop, dlora_status status) {
  dlora_learner *learner = loop->learner;
  if (!learner->task || !learner->snapshot_path || loop->unsaved || loop->other_images) return status;
  char sentence[512];
  snprintf(sentence, sizeof sentence, "%s", dlora_last_error());
  if (write_snapshot(loop) != DLORA_OK) {
    dli_learner_log(learner, DLORA_LOG_WARNING, "the last snapshot could not be written: %s", dlora_last_error());
  }
  return dli_raise(status, "%s", sentence);
}

/* ---- what the source gives ---- */

/* Remembers images as they are first read. A task that was begun elsewhere must get the same ones: what differs is told
 * before anything is learnt from it. In the process that began the task a source may vary its images as it likes; then
 * there is nothing to compare with later. */
static dlora_status check_images(struct loop *loop, const size_t *indices, size_t count) {
  struct dli_task *task = loop->learner->task;
  const uint64_t *digests = dli_reader_digests(loop->reader);
  for (size_t i = 0; task->source.digests && i < count; i++) {
    uint64_t *known = &task->source.digests[indices[i]];
    if (!*known) *known = digests[i];
    if (*known == digests[i]) continue;
    if (task->loaded) {
      loop->other_images = 1;
      return dli_raise(
          DLORA_ERR_MISMATCH,
          "dlora_learner_learn_source: image %zu of the source is not the one that the open task was begun "
          "with",
          indices[i]);
    }
    dli_free(&loop->learner->allocator, task->source.digests);
    task->source.digests = NULL;
  }
  return DLORA_OK;
}

static dlora_status read_images(struct loop *loop, const size_t *indices, size_t count, dlora_images *images,
                                const int64_t **labels) {
  DLI_TRY(dli_reader_read(loop->reader, indices, count, images, labels));
  return check_images(loop, indices, count);
}

/* Reads some of the images that are known again, spread over the source: a whole other set of images is told before the
 * task goes on, and not only when training comes back to those that were observed. */
static dlora_status probe_images(struct loop *loop) {
  enum { PROBES = 16 };
  const struct dli_task *task = loop->learner->task;
  size_t num_known = 0, passed = 0;
  if (!task->source.digests) return DLORA_OK;
  for (size_t i = 0; i < task->source.num_images; i++) num_known += task->source.digests[i] != 0;
  for (size_t i = 0, taken = 0; i < task->source.num_images && taken < PROBES; i++) {
    dlora_images images;
    const int64_t *labels;
    if (!task->source.digests[i] || passed++ < taken * (num_known - 1) / (PROBES - 1)) continue;
    taken++;
    DLI_TRY(read_images(loop, &i, 1, &images, &labels));
  }
  return DLORA_OK;
}

/* ---- the loop ---- */

static dlora_status observe_all(struct loop *loop, int32_t phase) {
  dlora_learner *learner = loop->learner;
  const dlora_learner_options *o = &learner->options;
  const size_t count = loop->source->count, batch = dli_learner_max_batch(learner, 1, count);
  const size_t begin = learner->task->num_images[phase == DLORA_PHASE_STATISTICS];
  const size_t every = learner->snapshot_steps < SIZE_MAX / o->batch_size ? learner->snapshot_steps * o->batch_size : 0;
  const double started = dli_seconds();
  for (size_t first = begin; first < count; first += batch) {
    dlora_images images;
    const int64_t *labels;
    const size_t part = count - first < batch ? count - first : batch;
    DLI_TRY(read_images(loop, loop->order + first, part, &images, &labels));
    DLI_TRY(
        dli_learner_observe(learner, &images, labels, dli_reader_digests(loop->reader), "dlora_learner_learn_source"));
    DLI_TRY(report(loop, phase, first + part, count, (double)NAN, first + part - begin, started));
    DLI_TRY(snapshot_if_due(loop, first, first + part, every));
  }
  return DLORA_OK;
}

static size_t steps_per_epoch(const struct loop *loop) {
  const size_t batch = loop->learner->options.batch_size;
  return (loop->num_trained + batch - 1) / batch;
}

static size_t training_steps(const struct loop *loop) {
  const dlora_learner_options *o = &loop->learner->options;
  const size_t per_epoch = steps_per_epoch(loop);
  if (!dli_learner_trains(loop->learner) || !per_epoch) return 0;
  if (o->epochs != DLORA_AUTO) return per_epoch * (size_t)o->epochs;
  if (loop->learner->task) return loop->learner->task->planned_steps; /* as it was begun */
  const size_t enough = (DLI_LEAST_STEPS + per_epoch - 1) / per_epoch;
  return per_epoch * (enough > DLI_EPOCHS ? enough : DLI_EPOCHS);
}

static dlora_status train(struct loop *loop) {
  dlora_learner *learner = loop->learner;
  const dlora_learner_options *o = &learner->options;
  const size_t per_epoch = steps_per_epoch(loop), total = learner->task->planned_steps,
               begin = learner->task->num_steps;
  const double started = dli_seconds();
  struct dli_random shuffle;
  size_t images_done = 0;
  if (learner->task->phase == DLI_OBSERVE_BEFORE) DLI_TRY(dlora_learner_begin_training(learner));
  dli_random_seed(&shuffle, o->seed, 8 * dlora_learner_num_tasks(learner) + 3);
  for (size_t step = 0; step < total; step++) {
    const size_t first = step % per_epoch * o->batch_size, left = loop->num_trained - first;
    const size_t part = left < o->batch_size ? left : o->batch_size;
    dlora_images images;
    const int64_t *labels;
    float loss;
    if (!first) dli_random_shuffle(&shuffle, loop->trained, loop->num_trained);
    if (step < begin) continue; /* done before an interruption */
    DLI_TRY(read_images(loop, loop->trained + first, part, &images, &labels));
    DLI_TRY(dlora_learner_step(learner, &images, labels, &loss));
    double *mean = &learner->task->losses.running;
    images_done += part;
    *mean += ((double)loss - *mean) / (double)(step + 1 < 20 ? step + 1 : 20);
    DLI_TRY(report(loop, DLORA_PHASE_TRAIN, step + 1, total, *mean, images_done, started));
    DLI_TRY(snapshot_if_due(loop, step, step + 1, learner->snapshot_steps));
  }
  return DLORA_OK;
}

/* Every period-th image of a class is held out from training, as dlora_learner_observe holds it out from the
 * statistics. */
static dlora_status choose_images(struct loop *loop) {
  const dlora_learner *learner = loop->learner;
  const dlora_learner_options *o = &learner->options;
  const dlora_allocator *allocator = &learner->allocator;
  const size_t count = loop->source->count;
  dlora_status status = DLORA_OK;
  int64_t *classes = NULL;
  size_t *num_shown = NULL, num_classes = 0;
  DLI_TRY_DONE(DLI_NEW(allocator, loop->order, count));
  DLI_TRY_DONE(DLI_NEW(allocator, loop->trained, count));
  DLI_TRY_DONE(DLI_NEW(allocator, classes, count));
  DLI_TRY_DONE(DLI_NEW(allocator, num_shown, count));
  if (o->max_observed_images) { /* so that the observed ones are a sample of all classes */
    struct dli_random random;
    dli_random_seed(&random, o->seed, 8 * dlora_learner_num_tasks(learner) + 4);
    dli_random_permutation(&random, loop->order, count);
  } else {
    for (size_t i = 0; i < count; i++) loop->order[i] = i;
  }
  for (size_t i = 0; i < count; i++) {
    const int64_t label = loop->source->labels[loop->order[i]];
    size_t c = 0;
    while (c < num_classes && classes[c] != label) c++;
    if (c == num_classes) classes[num_classes++] = label;
    if (!dli_is_held_out(o, c, num_shown[c]++)) loop->trained[loop->num_trained++] = loop->order[i];
  }
done:
  dli_free(allocator, classes);
  dli_free(allocator, num_shown);
  return status;
}

static uint64_t fingerprint(const int64_t *labels, size_t count) {
  uint64_t hash = count;
  for (size_t i = 0; i < count; i++) {
    hash = dli_mix(hash, (uint64_t)labels[i]);
  }
  return hash;
}

/* Whether the open task is one that this loop has begun, on this source, and stands where the loop can have come to. */
static dlora_status check_place(const struct loop *loop, size_t steps) {
  const struct dli_task *task = loop->learner->task;
  const size_t count = loop->source->count;
  if (!task->source.num_images) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_learner_learn_source: a task is open; call dlora_learner_commit_task or "
                     "dlora_learner_discard_task first");
  }
  if (task->source.num_images != count) {
    return dli_raise(DLORA_ERR_MISMATCH,
                     "dlora_learner_learn_source: the open task was begun with %zu images, and the source has %zu",
                     task->source.num_images, count);
  }
  if (task->source.labels != fingerprint(loop->source->labels, count)) {
    return dli_raise(DLORA_ERR_MISMATCH, "dlora_learner_learn_source: the open task was begun with other labels");
  }
  const int begun =
      task->phase == DLI_OBSERVE_BEFORE ? task->num_images[0] <= count : task->num_images[0] == count && steps;
  const int ending = task->phase != DLI_OBSERVE_AFTER || (task->num_steps == steps && task->num_images[1] <= count);
  if (task->planned_steps == steps && begun && task->num_steps <= steps && ending) return DLORA_OK;
  return dli_raise(
      DLORA_ERR_MISMATCH,
      "dlora_learner_learn_source: the open task has observed %zu and %zu images and taken %zu of %zu steps, where "
      "learning from this source cannot have left it",
      task->num_images[0], task->num_images[1], task->num_steps, task->planned_steps);
}

static dlora_status run(struct loop *loop, int trains, dlora_task_report *task_report) {
  DLI_TRY(observe_all(loop, DLORA_PHASE_OBSERVE));
  if (trains) {
    DLI_TRY(train(loop));
    DLI_TRY(observe_all(loop, DLORA_PHASE_STATISTICS));
  }
  return dlora_learner_commit_task(loop->learner, task_report);
}

dlora_status dlora_learner_learn_source(dlora_learner *learner, const dlora_image_source *source,
                                        dlora_task_report *task_report) {
  DLI_REQUIRE(learner);
  struct loop loop = {.learner = learner};
  dlora_image_source known;
  DLI_TRY(dli_source_read(&known, source, __func__));
  const dlora_task_report empty = DLORA_TASK_REPORT_INIT; /* a wrong struct is told now, not after the training */
  if (task_report) {
    DLI_TRY(dli_struct_write("dlora_task_report", task_report, task_report->struct_size, &empty, sizeof empty));
  }
  const dlora_learner_options *o = &learner->options;
  const size_t largest =
      dli_learner_max_batch(learner, 1, 0) > o->batch_size ? dli_learner_max_batch(learner, 1, 0) : o->batch_size;
  const int trains = dli_learner_trains(learner) && o->epochs;
  const dlora_allocator *allocator = &learner->allocator;
  dlora_status status = DLORA_OK;
  loop.source = &known;
  DLI_TRY_DONE(dli_reader_create(&loop.reader, learner->model, &known, largest < known.count ? largest : known.count,
                                 allocator));
  DLI_TRY_DONE(choose_images(&loop));
  const size_t steps = training_steps(&loop);
  if (learner->task) {
    DLI_TRY_DONE(check_place(&loop, steps));
    status = probe_images(&loop);
  } else {
    DLI_TRY_DONE(dlora_learner_begin_task(learner, steps));
    learner->task->source.num_images = known.count;
    learner->task->source.labels = fingerprint(known.labels, known.count);
    status = DLI_NEW(allocator, learner->task->source.digests, known.count);
  }
  if (status == DLORA_OK) status = run(&loop, trains, task_report);
  if (status != DLORA_OK) status = stop(&loop, status);
  if (!loop.other_images) dli_task_release(learner);
done:
  dli_reader_destroy(loop.reader);
  dli_free(allocator, loop.order);
  dli_free(allocator, loop.trained);
  return status;
}

/* ---- images in memory as a source ---- */

static int32_t read_from_memory(size_t index, dlora_images *image, void *user) {
  return dli_images_part(user, index, 1, image, "dlora_learner_learn_task") == DLORA_OK ? 0 : 1;
}

dlora_status dlora_learner_learn_task(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                      dlora_task_report *task_report) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(images);
  DLI_REQUIRE(labels);
  dlora_images copy;
  DLI_TRY(dli_images_part(images, 0, images->count, &copy, __func__));
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = read_from_memory;
  source.user = &copy;
  source.count = images->count;
  source.labels = labels;
  return dlora_learner_learn_source(learner, &source, task_report);
}
