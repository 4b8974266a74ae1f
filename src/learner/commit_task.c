/* The end of a task: dlora_learner_commit_task. METHOD.md 8, "Learning a task", step 5.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything that can fail is done on copies, in `prepare`:
 *
 *   1. A copy of the statistics of each kind. Old means and scatter follow the drift (4) if training moves them. The
 *      kinds run in parallel.
 *   2. Evidence for the weight of the untouched backbone, by `base` and `untouched` (learner/evidence.c).
 *   3. The open task of each kind is committed (METHOD.md 7.2), in parallel.
 *   4. The class index: components and classes of the new `base`.
 *   5. A copy of each projector, with the new directions (2) and, for routing by energy, mean energies; in parallel.
 *   6. The head: the trained rows, or (3) without training, and its temperature.
 *   7. The accuracy matrix, one task larger; memory for M, residual adapters (2a) and W + M.
 *
 * `commit` then swaps all copies in, which cannot fail. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/minimise.h"
#include "base/status.h"
#include "base/threads.h"
#include "linalg/matrix.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"
#include "src/predictor/predictor.h"

struct outcome {
  dlora_predictor *statistics[DLI_NUM_STATISTICS];
  dlora_projector **projectors; /* [depth, 4] */
  struct dli_bank_commit bank;
  struct dli_head head;
  struct dli_head *heads; /* [num_heads + 1], the last one is `head` */
  struct dli_metrics metrics;
  struct dli_class_index class_index;
  struct dli_blend_evidence evidence;
};

static void release(dlora_learner *learner, struct outcome *o) {
  const dlora_allocator *allocator = &learner->allocator;
  dli_learner_destroy_statistics(o->statistics);
  for (size_t i = 0; o->projectors && i < dli_num_inputs(learner->model); i++)
    dlora_projector_destroy(o->projectors[i]);
  dli_free(allocator, o->projectors);
  dli_bank_abandon_commit(learner->bank, &o->bank);
  dli_free(allocator, o->head.weight);
  dli_free(allocator, o->head.bias);
  dli_free(allocator, o->heads);
  dli_metrics_release(&o->metrics, allocator);
  dli_class_index_release(&o->class_index, allocator);
}

/* Independent jobs run in parallel, each with a BLAS of one thread: eigenproblems of a few hundred rows are too small
 * to be split further. A worker's error sentence is raised again in the calling thread. */
struct jobs {
  const dlora_learner *learner;
  struct outcome *outcome;
  dlora_status (*run)(const dlora_learner *learner, struct outcome *outcome, size_t job);
  struct failure {
    dlora_status status;
    char sentence[512];
  } * failures; /* [count] */
};

static void run_jobs(size_t begin, size_t end, size_t index, void *user) {
  const struct jobs *jobs = user;
  (void)index;
  for (size_t job = begin; job < end; job++) {
    struct failure *failure = &jobs->failures[job];
    failure->status = jobs->run(jobs->learner, jobs->outcome, job);
    if (failure->status != DLORA_OK) snprintf(failure->sentence, sizeof failure->sentence, "%s", dlora_last_error());
  }
}

static dlora_status in_parallel(const dlora_learner *learner, struct outcome *outcome, size_t count,
                                dlora_status (*run)(const dlora_learner *, struct outcome *, size_t)) {
  struct jobs jobs = {learner, outcome, run, NULL};
  dlora_status status = DLORA_OK;
  DLI_TRY(DLI_NEW(&learner->allocator, jobs.failures, count));
  dli_parallel_for(dli_blas_runs_inside_threads() ? learner->threads : 1, count, run_jobs, &jobs);
  for (size_t i = 0; status == DLORA_OK && i < count; i++) {
    if (jobs.failures[i].status != DLORA_OK)
      status = dli_raise(jobs.failures[i].status, "%s", jobs.failures[i].sentence);
  }
  dli_free(&learner->allocator, jobs.failures);
  return status;
}

/* Step 1 for one kind of statistics: the copy, which has followed the drift. */
static dlora_status move_statistics(const dlora_learner *learner, struct outcome *o, size_t kind) {
  const struct dli_task *task = learner->task;
  if (!learner->statistics[kind]) return DLORA_OK;
  DLI_TRY(dlora_predictor_clone(&o->statistics[kind], learner->statistics[kind]));
  if (dli_statistics_info[kind].is_trained && task->drift.count > 0) {
    const size_t columns = dli_learner_num_drifting_columns(learner);
    DLI_TRY(dli_predictor_compensate(o->statistics[kind], "dlora_learner_commit_task", task->drift.before,
                                     task->drift.after, task->drift.count, learner->width - columns, columns,
                                     learner->model->vit.dim));
  }
  return DLORA_OK;
}

/* Step 2: evidence of the held-out images, and without training that of all images. */
static dlora_status gather_evidence(const dlora_learner *learner, struct outcome *o) {
  const struct dli_task *task = learner->task;
  o->evidence = learner->evidence;
  o->evidence.num_images += task->evidence.num_images;
  for (size_t k = 0; k < DLI_BLEND_WEIGHTS; k++) o->evidence.log_likelihood[k] += task->evidence.log_likelihood[k];
  if (task->num_steps == 0) {
    if (!dli_bank_has_updates(learner->bank)) return DLORA_OK;
    DLI_TRY(dli_learner_add_evidence(learner, o->statistics[DLI_BASE], false, &o->evidence));
  }
  return dli_learner_add_evidence(learner, o->statistics[DLI_BASE], true, &o->evidence);
}

/* Step 3 for one kind of statistics. */
static dlora_status commit_statistics(const dlora_learner *learner, struct outcome *o, size_t kind) {
  (void)learner;
  return o->statistics[kind] ? dlora_predictor_commit_task(o->statistics[kind]) : DLORA_OK;
}

/* Step 5 for one adapted input. */
static dlora_status commit_projector(const dlora_learner *learner, struct outcome *o, size_t job) {
  const struct dli_task *task = learner->task;
  const size_t first = dli_inputs_in(learner->first_block), i = first + job;
  if (!learner->projectors[i]) return DLORA_OK;
  DLI_TRY(dlora_projector_clone(&o->projectors[i], learner->projectors[i]));
  dlora_projector *projector = o->projectors[i];
  if (dlora_projector_num_observed(projector) == 0) { /* instant mode: the task takes an empty group */
    float *zero;
    DLI_TRY(DLI_NEW(&learner->allocator, zero, dlora_projector_dim(projector)));
    const dlora_status status = dlora_projector_observe(projector, zero, 1);
    dli_free(&learner->allocator, zero);
    DLI_TRY(status);
  }
  DLI_TRY(dlora_projector_commit_task(projector, learner->options.energy_threshold, NULL));
  if (!task->energy.rows || task->energy.count == 0) return DLORA_OK;
  const float *rows = task->energy.rows + i * DLI_ENERGY_SAMPLE * dli_widest_input(learner);
  return dlora_projector_calibrate(projector, (int64_t)dlora_learner_num_tasks(learner), rows, task->energy.count);
}

/* The prior on log T of a head. Rows start as (3), so that with the Gaussian readout its centre is T of the statistics,
 * times HEAD_PART if these read more columns than the head. A ridge regression has scores of another size: the centre
 * is then 1 and the prior wide. METHOD.md 7.2. */
#define HEAD_PART 0.7
#define HEAD_DEVIATION 0.5
#define HEAD_WIDE_DEVIATION 2.0

/* Held-out features under the task's head. */
struct head_fit {
  double centre, deviation; /* of the prior on log T */
  size_t rows, classes;
  const float *logits;   /* [rows, classes] */
  const size_t *targets; /* [rows] */
};

/* Negative log-likelihood at log T, plus the prior, which keeps a few easy images from driving T to an extreme. */
static double head_cost(const void *context, double log_temperature) {
  const struct head_fit *fit = context;
  const double sharpness = exp(-log_temperature);
  const double off = (log_temperature - fit->centre) / fit->deviation;
  double loss = 0.5 * off * off;
  for (size_t i = 0; i < fit->rows; i++) {
    const float *row = fit->logits + i * fit->classes;
    double top = (double)row[0], sum = 0.0;
    for (size_t j = 1; j < fit->classes; j++) top = (double)row[j] > top ? (double)row[j] : top;
    for (size_t j = 0; j < fit->classes; j++) sum += exp(sharpness * ((double)row[j] - top));
    loss += log(sum) - sharpness * ((double)row[fit->targets[i]] - top);
  }
  return loss;
}

/* The head's temperature: fitted to logits of held-out final features, or the prior's centre without any. */
static dlora_status calibrate_head(const dlora_learner *learner, struct outcome *o) {
  const dlora_allocator *allocator = &learner->allocator;
  const struct dli_task *task = learner->task;
  const size_t dim = learner->model->vit.dim, own = task->classes.count, n = task->held_out.count;
  const size_t known = learner->class_index.num_components;
  dlora_status status = DLORA_OK;
  float *logits = NULL;
  size_t *targets = NULL;
  const bool gaussian = learner->options.readout == DLORA_READOUT_GAUSSIAN;
  const double part = learner->width > dim ? HEAD_PART : 1.0;
  const double guess = gaussian ? part * (double)dlora_predictor_temperature(o->statistics[DLI_BASE]) : 1.0;
  const double centre = fmin(DLI_HIGHEST_TEMPERATURE, fmax(DLI_LOWEST_TEMPERATURE, guess));
  o->head.temperature = (float)centre;
  if (n == 0) return DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, logits, n * own));
  DLI_TRY_DONE(DLI_NEW(allocator, targets, n));
  for (size_t i = 0; i < n; i++) {
    memcpy(logits + i * own, o->head.bias, own * sizeof *logits);
    while (o->class_index.component_classes[known + targets[i]] != task->held_out.labels[i]) targets[i]++;
  }
  dli_gemm_nt(n, own, dim, 1.0f, task->held_out.features, dim, o->head.weight, dim, 1.0f, logits, own);
  const struct head_fit fit = {log(centre), gaussian ? HEAD_DEVIATION : HEAD_WIDE_DEVIATION, n, own, logits, targets};
  o->head.temperature =
      (float)exp(dli_minimise(head_cost, &fit, log(DLI_LOWEST_TEMPERATURE), log(DLI_HIGHEST_TEMPERATURE)));
done:
  dli_free(allocator, targets);
  dli_free(allocator, logits);
  return status;
}

/* Step 6: the task's head, with rows in the order of the components of `base`; without training, (3) itself. */
static dlora_status make_head(const dlora_learner *learner, struct outcome *o) {
  const dlora_allocator *allocator = &learner->allocator;
  const struct dli_task *task = learner->task;
  const size_t dim = learner->model->vit.dim, known = learner->class_index.num_components, own = task->classes.count;
  dlora_status status = DLORA_OK;
  float *weight = NULL, *bias = NULL;
  o->head.num_classes = own;
  DLI_TRY(DLI_NEW(allocator, o->head.weight, own * dim));
  DLI_TRY(DLI_NEW(allocator, o->head.bias, own));
  if (task->num_steps > 0) {
    for (size_t i = 0; i < own; i++) {
      const size_t row = dli_task_find_class(task, o->class_index.component_classes[known + i]);
      memcpy(o->head.weight + i * dim, task->rows.weight + row * dim, dim * sizeof *weight);
      o->head.bias[i] = task->rows.bias[row];
    }
    return DLORA_OK;
  }
  DLI_TRY_DONE(DLI_NEW(allocator, weight, (known + own) * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, bias, known + own));
  DLI_TRY_DONE(dlora_predictor_linear_weights(o->statistics[DLI_BASE], learner->width - dim, dim, 0, weight, bias));
  memcpy(o->head.weight, weight + known * dim, own * dim * sizeof *weight);
  memcpy(o->head.bias, bias + known, own * sizeof *bias);
done:
  dli_free(allocator, weight);
  dli_free(allocator, bias);
  return status;
}

static dlora_status prepare(dlora_learner *learner, struct outcome *o) {
  const dlora_allocator *allocator = &learner->allocator;
  const struct dli_task *task = learner->task;
  DLI_TRY(in_parallel(learner, o, DLI_NUM_STATISTICS, move_statistics));
  DLI_TRY(gather_evidence(learner, o));
  DLI_TRY(in_parallel(learner, o, DLI_NUM_STATISTICS, commit_statistics));
  DLI_TRY(dli_class_index_create(&o->class_index, o->statistics, learner->options.unknown_quantile, allocator));
  if (o->class_index.num_components - learner->class_index.num_components != task->classes.count) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_learner_commit_task: %zu of the task's %zu classes were observed after training; call "
                     "dlora_learner_observe_trained with images of the others first",
                     o->class_index.num_components - learner->class_index.num_components, task->classes.count);
  }
  DLI_TRY(DLI_NEW(allocator, o->projectors, dli_num_inputs(learner->model)));
  DLI_TRY(in_parallel(learner, o, dli_inputs_in(learner->end_block - learner->first_block), commit_projector));
  DLI_TRY(make_head(learner, o));
  DLI_TRY(calibrate_head(learner, o));
  DLI_TRY(DLI_NEW(allocator, o->heads, learner->num_task_heads + 1));
  if (learner->num_task_heads > 0) memcpy(o->heads, learner->heads, learner->num_task_heads * sizeof *o->heads);
  o->heads[learner->num_task_heads] = o->head;
  DLI_TRY(dli_metrics_grown(&o->metrics, &learner->metrics, allocator));
  DLI_TRY(dli_bank_prepare_commit(learner->bank, &o->bank));
  return dli_merged_weights_reserve(learner->merged_weights, o->bank.merged);
}

static void fill_report(const dlora_learner *learner, const struct outcome *o, dlora_task_report *report) {
  const struct dli_task *task = learner->task;
  const size_t window = task->num_steps < DLI_LOSS_WINDOW ? task->num_steps : DLI_LOSS_WINDOW;
  double last = 0.0;
  for (size_t i = 0; i < window; i++) last += task->losses.last[i];
  *report = (dlora_task_report)DLORA_TASK_REPORT_INIT;
  report->task = (int64_t)dlora_learner_num_tasks(learner);
  report->num_classes = task->classes.count;
  report->num_images = task->num_images[0];
  report->num_steps = task->num_steps;
  report->first_loss = window > 0 ? task->losses.first / (double)window : NAN;
  report->last_loss = window > 0 ? last / (double)window : NAN;
  report->seconds_observe = task->seconds[DLI_OBSERVE_BEFORE];
  report->seconds_train = task->seconds[DLI_TRAIN];
  report->seconds_statistics = task->seconds[DLI_OBSERVE_AFTER];
  const struct dli_blend_evidence *before = &learner->evidence, *after = &o->evidence;
  const double *sums = after->log_likelihood, *earlier = before->log_likelihood;
  const size_t other = DLI_BLEND_WEIGHTS - 1;
  report->evidence_images = (size_t)(after->num_images - before->num_images);
  report->evidence_gain = ((sums[0] - earlier[0]) - (sums[other] - earlier[other])) / (double)report->evidence_images;
  if (report->evidence_images == 0) report->evidence_gain = NAN;
  if (o->statistics[DLI_UNTOUCHED] && dli_bank_will_have_updates(learner->bank, &o->bank)) {
    report->untouched_weight = dli_learner_untouched_weight(learner, after);
  }
  report->used_directions_min = report->rank_orthogonal_min = SIZE_MAX;
  for (size_t i = 0; i < dli_num_inputs(learner->model); i++) {
    if (!o->projectors[i]) continue;
    const size_t size = dlora_projector_size(o->projectors[i]);
    if (size < report->used_directions_min) report->used_directions_min = size;
    if (size > report->used_directions_max) report->used_directions_max = size;
  }
  for (size_t s = 0; s < learner->bank->num_sites; s++) {
    const size_t rank = learner->bank->pairs[2 * s + DLI_ORTHOGONAL].rank;
    if (rank < report->rank_orthogonal_min) report->rank_orthogonal_min = rank;
    if (rank > report->rank_orthogonal_max) report->rank_orthogonal_max = rank;
  }
}

/* Swaps; cannot fail. *o then has the replaced parts, to be released. */
static void commit(dlora_learner *learner, struct outcome *o) {
  for (size_t kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    dlora_predictor *predictor = learner->statistics[kind];
    learner->statistics[kind] = o->statistics[kind];
    o->statistics[kind] = predictor;
    learner->task->made[kind] = false;
  }
  dlora_projector **projectors = learner->projectors;
  learner->projectors = o->projectors;
  o->projectors = projectors;
  dli_bank_apply_commit(learner->bank, &o->bank);
  dli_merged_weights_update(learner->merged_weights);
  struct dli_head *heads = learner->heads;
  learner->heads = o->heads;
  learner->num_task_heads++;
  o->heads = heads;
  o->head = (struct dli_head){0};
  const struct dli_metrics metrics = learner->metrics;
  learner->metrics = o->metrics;
  o->metrics = metrics;
  const struct dli_class_index class_index = learner->class_index;
  learner->class_index = o->class_index;
  learner->evidence = o->evidence;
  o->class_index = class_index;
}

dlora_status dlora_task_report_init(dlora_task_report *report, size_t size) {
  const dlora_task_report full = DLORA_TASK_REPORT_INIT;
  return dli_struct_write("dlora_task_report", report, size, &full, sizeof full);
}

dlora_status dlora_learner_commit_task(dlora_learner *learner, dlora_task_report *report) {
  DLI_REQUIRE(learner);
  struct dli_task *task = learner->task;
  if (!task || task->num_images[0] == 0 || task->phase == DLI_TRAIN) return dli_task_refuse(learner, __func__);
  struct outcome outcome = {0};
  dlora_task_report full;
  const double started = dli_seconds();
  dli_profile_start(&learner->profile);
  const int before = dli_threads_enter(learner->threads);
  dlora_status status = prepare(learner, &outcome);
  dli_threads_leave(before);
  if (status == DLORA_OK) {
    fill_report(learner, &outcome, &full);
    full.seconds_statistics += dli_seconds() - started;
    if (report) status = dli_struct_write("dlora_task_report", report, report->struct_size, &full, sizeof full);
  }
  if (status == DLORA_OK) commit(learner, &outcome);
  release(learner, &outcome);
  if (status == DLORA_OK) dli_task_release(learner);
  dli_profile_lap(&learner->profile, DLI_TASK_END);
  return status;
}
