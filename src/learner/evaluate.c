/* dlora_learner_evaluate: accuracies, calibration errors, and a row of the accuracy matrix. METHOD.md 8.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   1. Images of known classes are chosen, each with its true task: the given one, or the last task with its class.
 *   2. A micro-batch at a time, predictions are made as dlora_learner_predict makes them, and compared.
 *   3. Accuracies become row num_tasks - 1 of the matrix, with digests of their images. Later only accuracies on the
 *      same images are compared (metrics.c). */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/learner/learner.h"
#include "src/learner/source.h"

struct tally {
  size_t images, skipped, right, task_right, given_right, untouched_right;
  size_t *task_images, *task_images_right; /* [num_tasks] */
  uint64_t *task_digests;                  /* [num_tasks] of their images */
  uint64_t *stage_digests;                 /* [num_tasks] of images that could be evaluated after each task */
  struct dli_reliability class_reliability, task_reliability;
};

/* The last task that has the class, or -1. */
static int64_t task_of_class(const struct dli_class_index *d, int64_t class_id) {
  for (size_t k = d->num_components; k-- > 0;) {
    if (d->component_classes[k] == class_id) return d->component_tasks[k];
  }
  return -1;
}

/* The first task that has the class. */
static size_t first_task_of_class(const struct dli_class_index *d, int64_t class_id) {
  size_t k = 0;
  while (d->component_classes[k] != class_id) k++;
  return (size_t)d->component_tasks[k];
}

/* Digests are sums over images, so that their order does not matter. */
static void count_images(struct tally *tally, const struct dli_class_index *d, const uint64_t *digests,
                         const int64_t *labels, const int64_t *tasks, bool tasks_given, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint64_t digest = dli_mix(digests[i], (uint64_t)labels[i]);
    tally->task_digests[tasks[i]] += digest;
    tally->stage_digests[tasks_given ? (size_t)tasks[i] : first_task_of_class(d, labels[i])] += digest;
  }
}

/* The most probable class among those of one task. */
static int64_t best_in_task(const struct dli_class_index *d, const float *joint, int64_t task) {
  size_t best = SIZE_MAX;
  for (size_t k = 0; k < d->num_components; k++) {
    if (d->component_tasks[k] == task && (best == SIZE_MAX || joint[k] > joint[best])) best = k;
  }
  return d->component_classes[best];
}

static void count_decisions(const dlora_learner *learner, struct tally *tally, const int64_t *labels,
                            const int64_t *tasks, const dlora_prediction *p, const float *joint,
                            const dlora_prediction *untouched, size_t count) {
  const struct dli_class_index *d = &learner->class_index;
  for (size_t i = 0; i < count; i++) {
    const bool right = p[i].class_id == labels[i], task_right = p[i].task == tasks[i];
    tally->right += (size_t)right;
    tally->task_right += (size_t)task_right;
    tally->given_right += best_in_task(d, joint + i * d->num_components, tasks[i]) == labels[i];
    if (untouched) tally->untouched_right += untouched[i].class_id == labels[i];
    tally->task_images[tasks[i]]++;
    tally->task_images_right[tasks[i]] += (size_t)right;
    dli_reliability_add(&tally->class_reliability, (double)p[i].class_probability, right);
    dli_reliability_add(&tally->task_reliability, (double)p[i].task_probability, task_right);
  }
  tally->images += count;
}

struct evaluation {
  const dlora_learner *learner;
  const dlora_image_source *source;
  struct dli_reader *reader;
  dlora_session *session;
  struct dli_predict_buffers *buffers;
  size_t batch;
  size_t *chosen;                            /* [count] indices of images of known classes */
  int64_t *tasks;                            /* [count] their true tasks */
  dlora_prediction *predictions, *untouched; /* [batch] */
  float *joint;                              /* [batch, num_components] */
  struct tally tally;
};

static dlora_status choose_images(struct evaluation *e) {
  const size_t num_tasks = dlora_learner_num_tasks(e->learner);
  size_t chosen = 0;
  for (size_t i = 0; i < e->source->count; i++) {
    int64_t task = task_of_class(&e->learner->class_index, e->source->labels[i]);
    if (task < 0) continue;
    if (e->source->tasks) {
      task = e->source->tasks[i];
      if (task < 0 || (size_t)task >= num_tasks) {
        return dli_raise(DLORA_ERR_ARGUMENT,
                         "dlora_learner_evaluate: task %lld of image %zu is not one of the %zu learned",
                         (long long)task, i, num_tasks);
      }
    }
    e->chosen[chosen] = i;
    e->tasks[chosen++] = task;
  }
  e->tally.skipped = e->source->count - chosen;
  if (chosen > 0) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_evaluate: none of the %zu images is of a class that was learned",
                   e->source->count);
}

static dlora_status run(struct evaluation *e) {
  const dlora_learner *learner = e->learner;
  const size_t total = e->source->count - e->tally.skipped;
  const double started = dli_seconds();
  const struct dli_decision out = {.predictions = e->predictions, .joint = e->joint};
  /* With routing `given` the true task is given, and accuracy is accuracy given the task. */
  const bool given = learner->options.routing == DLORA_ROUTING_GIVEN;
  const bool untouched = dli_learner_knows_untouched(learner);
  for (size_t first = 0; first < total; first += e->batch) {
    const size_t part = total - first < e->batch ? total - first : e->batch;
    dlora_images images;
    const int64_t *labels;
    DLI_TRY(dli_reader_read(e->reader, e->chosen + first, part, &images, &labels));
    count_images(&e->tally, &learner->class_index, dli_reader_digests(e->reader), labels, e->tasks + first,
                 e->source->tasks != NULL, part);
    DLI_TRY(dli_session_load(e->session, &images, NULL, "dlora_learner_evaluate"));
    DLI_TRY(dli_learner_decide(learner, e->session, given ? e->tasks + first : NULL, e->buffers, &out));
    if (untouched) DLI_TRY(dli_learner_decide_untouched(learner, e->session, e->buffers, e->untouched));
    count_decisions(learner, &e->tally, labels, e->tasks + first, e->predictions, e->joint,
                    untouched ? e->untouched : NULL, part);
    DLI_TRY(dli_report_progress(learner, dlora_learner_num_tasks(learner), DLORA_PHASE_EVALUATE, first + part, total,
                                (double)NAN, first + part, started));
  }
  return DLORA_OK;
}

/* 0 stands for unknown images. */
static uint64_t known_digest(uint64_t sum) {
  return sum != 0 ? sum : 1;
}

static void record(dlora_learner *learner, struct tally *tally) {
  const size_t tasks = learner->metrics.num_tasks;
  for (size_t t = 1; t < tasks; t++) tally->stage_digests[t] += tally->stage_digests[t - 1];
  for (size_t t = 0; t < tasks; t++) tally->stage_digests[t] = known_digest(tally->stage_digests[t]);
  learner->metrics.overall_images[tasks - 1] = tally->stage_digests[tasks - 1];
  learner->metrics.overall[tasks - 1] = (double)tally->right / (double)tally->images;
  for (size_t t = 0; t < tasks; t++) {
    if (tally->task_images[t] == 0) continue;
    learner->metrics.images[(tasks - 1) * tasks + t] = known_digest(tally->task_digests[t]);
    learner->metrics.accuracy[(tasks - 1) * tasks + t] =
        (double)tally->task_images_right[t] / (double)tally->task_images[t];
  }
}

static void fill(const dlora_learner *learner, const struct tally *tally, dlora_evaluation *out) {
  const double images = (double)tally->images;
  *out = (dlora_evaluation)DLORA_EVALUATION_INIT;
  out->num_images = tally->images;
  out->num_skipped = tally->skipped;
  out->accuracy = (double)tally->right / images;
  out->task_accuracy = (double)tally->task_right / images;
  out->accuracy_given_task = (double)tally->given_right / images;
  out->ece = dli_reliability_error(&tally->class_reliability);
  out->task_ece = dli_reliability_error(&tally->task_reliability);
  out->untouched_accuracy =
      dli_learner_knows_untouched(learner) ? (double)tally->untouched_right / images : (double)NAN;
  dli_metrics_summary(&learner->metrics, tally->stage_digests, out);
}

dlora_status dlora_evaluation_init(dlora_evaluation *evaluation, size_t size) {
  const dlora_evaluation full = DLORA_EVALUATION_INIT;
  return dli_struct_write("dlora_evaluation", evaluation, size, &full, sizeof full);
}

dlora_status dlora_learner_evaluate(dlora_learner *learner, const dlora_image_source *source,
                                    dlora_evaluation *evaluation) {
  DLI_REQUIRE(learner);
  dlora_image_source known;
  DLI_TRY(dli_source_read(&known, source, __func__));
  const dlora_evaluation empty = DLORA_EVALUATION_INIT;
  if (evaluation) {
    DLI_TRY(dli_struct_write("dlora_evaluation", evaluation, evaluation->struct_size, &empty, sizeof empty));
  }
  const size_t tasks = dlora_learner_num_tasks(learner);
  if (tasks == 0)
    return dli_raise(DLORA_ERR_STATE, "dlora_learner_evaluate: nothing was learned yet; learn a task first");
  const dlora_allocator *allocator = &learner->allocator;
  struct evaluation e = {.learner = learner, .source = &known, .batch = dli_learner_max_batch(learner, 0, known.count)};
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(dli_reader_create(&e.reader, learner->model, &known, e.batch, allocator));
  DLI_TRY_DONE(dli_session_create(&e.session, learner->model, learner->merged_weights, learner->first_block, e.batch,
                                  learner->threads, false, allocator));
  DLI_TRY_DONE(dli_predict_buffers_create(&e.buffers, learner, e.batch));
  DLI_TRY_DONE(DLI_NEW(allocator, e.chosen, known.count));
  DLI_TRY_DONE(DLI_NEW(allocator, e.tasks, known.count));
  DLI_TRY_DONE(DLI_NEW(allocator, e.predictions, e.batch));
  DLI_TRY_DONE(DLI_NEW(allocator, e.untouched, e.batch));
  DLI_TRY_DONE(DLI_NEW(allocator, e.joint, e.batch * learner->class_index.num_components));
  DLI_TRY_DONE(DLI_NEW(allocator, e.tally.task_images, tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, e.tally.task_images_right, tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, e.tally.task_digests, tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, e.tally.stage_digests, tasks));
  DLI_TRY_DONE(choose_images(&e));
  const int before = dli_threads_enter(learner->threads);
  status = run(&e);
  dli_threads_leave(before);
  dli_session_add_profile(e.session, &learner->profile);
  if (status != DLORA_OK) goto done;
  record(learner, &e.tally);
  if (evaluation) {
    dlora_evaluation full;
    fill(learner, &e.tally, &full);
    DLI_TRY_DONE(dli_struct_write("dlora_evaluation", evaluation, evaluation->struct_size, &full, sizeof full));
  }
done:
  dli_free(allocator, e.tally.stage_digests);
  dli_free(allocator, e.tally.task_digests);
  dli_free(allocator, e.tally.task_images_right);
  dli_free(allocator, e.tally.task_images);
  dli_free(allocator, e.joint);
  dli_free(allocator, e.untouched);
  dli_free(allocator, e.predictions);
  dli_free(allocator, e.tasks);
  dli_free(allocator, e.chosen);
  dli_predict_buffers_destroy(e.buffers);
  dlora_session_destroy(e.session);
  dli_reader_destroy(e.reader);
  return status;
}

dlora_status dlora_learner_get_accuracy_matrix(const dlora_learner *learner, double *matrix) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(matrix);
  const size_t tasks = learner->metrics.num_tasks;
  if (tasks > 0) memcpy(matrix, learner->metrics.accuracy, tasks * tasks * sizeof *matrix);
  return DLORA_OK;
}
