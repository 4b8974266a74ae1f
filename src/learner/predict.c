/* Predictions: routing (METHOD.md 6) and the combination of posteriors (5) (METHOD.md 8).
 * SPDX-License-Identifier: Apache-2.0
 *
 * For a micro-batch whose trunk is loaded (dli_learner_decide):
 *
 *   1. Without residual adapters: one upper pass, and the posterior of `base`.
 *   2. Routing: w_s is 1 for one task, by `gate`, by a first upper pass and `base`, or given; it is 0 for the others.
 *      Routing by energy takes place inside the upper pass, at each site.
 *   3. The upper pass with residual adapters.
 *   4. p(s | x): of the first pass, given, or the task posterior of `routed` on the features of 3.
 *   5. p(c | s, x) by `class_scores`: the posterior of `routed` or of the first pass, the heads, or both.
 *   6. log p(s, c | x) = log p(s | x) + log p(c | s, x) of every component, and (5): its log-sum over tasks.
 *   7. The blend with the posterior of the untouched backbone, from an upper pass without adapters (6). At a weight of
 * 1 it is the only pass.
 *   8. Decisions: most probable class and task, and the unknown score against its threshold.
 *
 * Workspace and buffers stay with the session in the learner's pool for the next call. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "linalg/matrix.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"
#include "src/predictor/predictor.h"

struct dli_predict_buffers {
  dlora_allocator allocator;
  size_t max_batch, num_components, num_classes, num_tasks; /* that the arrays have room for */
  float *early;                                             /* [max_batch, 2 * dim] */
  float *middle;                                            /* [max_batch, 2 * dim] where it is not early, or NULL */
  float *z;                                                 /* [max_batch, dim] */
  float *combined;                                          /* [max_batch, width] */
  double *component;    /* [max_batch, num_components] log p(c | z), then log p(s, c | x) */
  double *untouched;    /* [max_batch, num_components] log p(c | z) of the untouched backbone, in its own order */
  double *sums;         /* [num_classes] */
  float *class_log;     /* [max_batch, num_classes] */
  float *task;          /* [max_batch, num_tasks] p(s | x) */
  float *unknown;       /* [max_batch] */
  float *other_unknown; /* [max_batch] of the untouched backbone */
  float *routing;       /* [max_batch, num_tasks] w_s(x) */
  float *logits;        /* [max_batch, num_components] of the heads */
};

dlora_status dli_predict_buffers_create(struct dli_predict_buffers **out, const dlora_learner *learner,
                                        size_t max_batch) {
  const dlora_allocator *allocator = &learner->allocator;
  const size_t dim = learner->model->vit.dim, components = learner->class_index.num_components;
  const size_t tasks = dlora_learner_num_tasks(learner);
  dlora_status status = DLORA_OK;
  struct dli_predict_buffers *b;
  DLI_TRY(DLI_NEW(allocator, b, 1));
  b->allocator = *allocator;
  b->max_batch = max_batch;
  b->num_components = components;
  b->num_classes = learner->class_index.num_classes;
  b->num_tasks = tasks;
  DLI_TRY_DONE(DLI_NEW(allocator, b->early, max_batch * 2 * dim));
  if (dli_learner_num_drifting_columns(learner) > dim) DLI_TRY_DONE(DLI_NEW(allocator, b->middle, max_batch * 2 * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, b->z, max_batch * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, b->combined, max_batch * learner->width));
  DLI_TRY_DONE(DLI_NEW(allocator, b->component, max_batch * components));
  DLI_TRY_DONE(DLI_NEW(allocator, b->untouched, max_batch * components));
  DLI_TRY_DONE(DLI_NEW(allocator, b->sums, learner->class_index.num_classes));
  DLI_TRY_DONE(DLI_NEW(allocator, b->class_log, max_batch * learner->class_index.num_classes));
  DLI_TRY_DONE(DLI_NEW(allocator, b->task, max_batch * tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, b->unknown, max_batch));
  DLI_TRY_DONE(DLI_NEW(allocator, b->other_unknown, max_batch));
  DLI_TRY_DONE(DLI_NEW(allocator, b->routing, max_batch * tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, b->logits, max_batch * components));
  *out = b;
done:
  if (status != DLORA_OK) dli_predict_buffers_destroy(b);
  return status;
}

void dli_predict_buffers_destroy(struct dli_predict_buffers *b) {
  if (!b) return;
  const dlora_allocator allocator = b->allocator;
  void *const arrays[] = {b->early,     b->middle, b->z,       b->combined, b->component, b->untouched,    b->sums,
                          b->class_log, b->task,   b->unknown, b->routing,  b->logits,    b->other_unknown};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) dli_free(&allocator, arrays[i]);
  dli_free(&allocator, b);
}

static void detach(void *attached) {
  dli_predict_buffers_destroy(attached);
}

/* A session of the pool, with the buffers that stay with it between calls. The end of a task makes them anew. */
static dlora_status take(const dlora_learner *learner, size_t batch, dlora_session **out,
                         struct dli_predict_buffers **buffers) {
  DLI_TRY(dli_session_take(out, learner->sessions, learner->model, learner->merged_weights, learner->first_block, batch,
                           learner->threads));
  dlora_session *session = *out;
  struct dli_predict_buffers *b = session->attached;
  if (!b || b->max_batch < session->max_batch || b->num_components != learner->class_index.num_components ||
      b->num_classes != learner->class_index.num_classes || b->num_tasks != dlora_learner_num_tasks(learner)) {
    dli_predict_buffers_destroy(b);
    session->attached = b = NULL;
    DLI_TRY(dli_predict_buffers_create(&b, learner, session->max_batch));
    session->attached = b;
    session->detach = detach;
  }
  *buffers = b;
  return DLORA_OK;
}

/* Least p(s | x) in (5): keeps the logarithm finite. */
#define LEAST_TASK_PROBABILITY 1e-30

static size_t largest(const float *values, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; i++) {
    if (values[i] > values[best]) best = i;
  }
  return best;
}

/* routing [count, tasks] = 1 at the most probable task, 0 elsewhere */
static void choose_top_task(const float *task_probs, size_t count, size_t tasks, float *routing) {
  memset(routing, 0, count * tasks * sizeof *routing);
  for (size_t i = 0; i < count; i++) routing[i * tasks + largest(task_probs + i * tasks, tasks)] = 1.0f;
}

static void give_tasks(const int64_t *tasks, size_t count, size_t num_tasks, float *task_probs) {
  memset(task_probs, 0, count * num_tasks * sizeof *task_probs);
  for (size_t i = 0; i < count; i++) task_probs[i * num_tasks + (size_t)tasks[i]] = 1.0f;
}

/* Logit of head row c on z [dim], over the head's temperature. A product beyond float32 is formed again in float64. */
static double head_logit(const struct dli_head *head, size_t c, const float *z, size_t dim, float product) {
  double logit = (double)product;
  if (!isfinite(product)) {
    logit = 0.0;
    for (size_t j = 0; j < dim; j++) logit += (double)head->weight[c * dim + j] * (double)z[j];
  }
  return (logit + (double)head->bias[c]) / (double)head->temperature;
}

/* values [count] <- log-softmax of values, plus log_total. The largest is subtracted first: nothing overflows. */
static void normalise(double *values, size_t count, double log_total) {
  double top = values[0], sum = 0.0;
  for (size_t i = 1; i < count; i++) top = values[i] > top ? values[i] : top;
  for (size_t i = 0; i < count; i++) {
    values[i] -= top;
    sum += exp(values[i]);
  }
  for (size_t i = 0; i < count; i++) values[i] += log_total - log(sum);
}

/* Step 6: component [count, components] <- log p(s | x) + log p(c | s, x). Of each task s, which has the components
 * first ... last - 1:
 *
 *   1. log p(c | s, x) up to a constant: `component` itself (statistics), the head's logits over its temperature, or
 *      the mean of both, which is the logarithm of a geometric mean.
 *   2. Normalised over the task's components, plus log p(s | x). */
static void combine_class_scores(const dlora_learner *learner, struct dli_predict_buffers *b, size_t count) {
  const struct dli_class_index *d = &learner->class_index;
  const size_t dim = learner->model->vit.dim, tasks = dlora_learner_num_tasks(learner), components = d->num_components;
  const bool heads = learner->options.class_scores != DLORA_CLASS_SCORES_STATISTICS;
  const double head_weight =
      learner->options.class_scores == DLORA_CLASS_SCORES_BOTH ? 0.5 : 1.0; /* against the statistics */
  size_t first = 0;
  for (size_t t = 0; t < tasks; t++) {
    size_t last = first;
    while (last < components && d->component_tasks[last] == (int64_t)t) last++;
    const struct dli_head *head = &learner->heads[t];
    if (heads) {
      dli_gemm_nt(count, last - first, dim, 1.0f, b->z, dim, head->weight, dim, 0.0f, b->logits + first, components);
    }
    for (size_t i = 0; i < count; i++) {
      double *row = b->component + i * components;
      for (size_t c = first; heads && c < last; c++) {
        const double statistics = head_weight < 1.0 ? (1.0 - head_weight) * row[c] : 0.0;
        const float product = b->logits[i * components + c];
        row[c] = statistics + head_weight * head_logit(head, c - first, b->z + i * dim, dim, product);
      }
      normalise(row + first, last - first, log((double)b->task[i * tasks + t] + LEAST_TASK_PROBABILITY));
    }
    first = last;
  }
}

/* (5): class_log [count, classes] is the log-sum of the components of each class, one log1p for each component. */
static void sum_classes(const struct dli_class_index *d, struct dli_predict_buffers *b, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const double *row = b->component + i * d->num_components;
    for (size_t c = 0; c < d->num_classes; c++) b->sums[c] = -INFINITY;
    for (size_t k = 0; k < d->num_components; k++) {
      double *sum = &b->sums[d->component_columns[k]];
      *sum = dli_add_logs(*sum, row[k]);
    }
    for (size_t c = 0; c < d->num_classes; c++) {
      b->class_log[i * d->num_classes + c] = dli_to_log_probability(b->sums[c]);
    }
  }
}

/* Posterior of the features of the last upper pass: component and unknown; class_log and task unless NULL. */
static dlora_status posterior(const dlora_learner *learner, enum dli_statistics_kind kind,
                              struct dli_predict_buffers *b, size_t count, float *class_log, float *task) {
  const dlora_predictor *predictor = learner->statistics[kind];
  dli_learner_combine(learner, b->middle ? b->middle : b->early, b->z, count, b->combined);
  return dli_predictor_posterior(predictor, "dlora_predictor_posterior", b->combined, count, b->component, class_log,
                                 task, b->unknown);
}

/* Step 8. threshold: of the unknown scores. */
static void write_decision(const dlora_learner *learner, const struct dli_predict_buffers *b, size_t count,
                           float threshold, const struct dli_decision *out) {
  const struct dli_class_index *d = &learner->class_index;
  const size_t tasks = dlora_learner_num_tasks(learner);
  for (size_t i = 0; i < count; i++) {
    const float *classes = b->class_log + i * d->num_classes, *task_probs = b->task + i * tasks;
    const size_t c = largest(classes, d->num_classes), t = largest(task_probs, tasks);
    out->predictions[i] = (dlora_prediction){
        .class_id = d->classes[c],
        .task = (int64_t)t,
        .class_probability = (float)exp((double)classes[c]),
        .task_probability = task_probs[t],
        .unknown_score = b->unknown[i],
        .unknown = b->unknown[i] > threshold,
    };
  }
  if (out->class_log_probs) {
    memcpy(out->class_log_probs, b->class_log, count * d->num_classes * sizeof *b->class_log);
  }
  for (size_t i = 0; out->joint && i < count * d->num_components; i++) {
    out->joint[i] = dli_to_log_probability(b->component[i]);
  }
}

/* Steps 1 to 6: component, task and unknown scores with adapters. *threshold: of the unknown scores. */
static dlora_status decide_adapted(const dlora_learner *learner, dlora_session *session, const int64_t *tasks,
                                   struct dli_predict_buffers *b, float *threshold) {
  const size_t count = session->count, num_tasks = dlora_learner_num_tasks(learner);
  const bool routed = dli_learner_finished_statistics(learner, DLI_ROUTED) != NULL;
  int32_t routing = tasks ? DLORA_ROUTING_GIVEN : learner->options.routing;
  if (routing != DLORA_ROUTING_GIVEN && !dli_learner_has_residuals(learner)) routing = DLORA_ROUTING_NONE;
  struct dli_session_mode mode = {
      .terms = DLORA_TERM_MERGED, .middle = b->middle, .middle_block = learner->middle_block};
  if (routing == DLORA_ROUTING_EARLY) dli_session_early(session, b->early);

  *threshold = learner->class_index.thresholds[DLI_BASE];
  if (routing == DLORA_ROUTING_NONE) {
    dli_session_upper(session, &mode, b->z);
    return posterior(learner, DLI_BASE, b, count, b->class_log, b->task);
  }

  /* Step 2: p(s | x) that decides which residual adapters run. */
  if (routing == DLORA_ROUTING_EARLY) {
    DLI_TRY(dlora_predictor_posterior(learner->statistics[DLI_GATE], b->early, count, NULL, NULL, b->task, NULL));
  } else if (routing == DLORA_ROUTING_TWO_PASS) {
    dli_session_upper(session, &mode, b->z);
    DLI_TRY(posterior(learner, DLI_BASE, b, count, NULL, b->task));
  } else if (routing == DLORA_ROUTING_GIVEN) {
    give_tasks(tasks, count, num_tasks, b->task);
  }
  if (routing == DLORA_ROUTING_ENERGY) {
    mode.energy = (const dlora_projector *const *)learner->projectors;
  } else {
    choose_top_task(b->task, count, num_tasks, b->routing);
    mode.routing = b->routing;
  }
  DLI_TRY(dli_session_upper(session, &mode, b->z));

  /* Steps 4 and 5. With two passes or a given task, p(s | x) is known and stays. With two passes, `routed` counts only
   * if p(c | s, x) is to be its own: it is too tight on features of its own images. */
  const bool knows_task = routing == DLORA_ROUTING_TWO_PASS || routing == DLORA_ROUTING_GIVEN;
  const bool first_pass =
      routing == DLORA_ROUTING_TWO_PASS && learner->options.class_scores != DLORA_CLASS_SCORES_STATISTICS;
  if (!first_pass) {
    DLI_TRY(posterior(learner, routed ? DLI_ROUTED : DLI_BASE, b, count, NULL, knows_task ? NULL : b->task));
    if (routed) *threshold = learner->class_index.thresholds[DLI_ROUTED];
  }
  combine_class_scores(learner, b, count);
  sum_classes(&learner->class_index, b, count);
  return DLORA_OK;
}

/* An upper pass of the untouched backbone, and features for its statistics: in b->combined. */
static void run_untouched(const dlora_learner *learner, dlora_session *session, struct dli_predict_buffers *b) {
  const struct dli_session_mode untouched = {.middle = b->middle, .middle_block = learner->middle_block};
  dli_session_upper(session, &untouched, b->z);
  dli_learner_combine(learner, b->middle ? b->middle : b->early, b->z, session->count, b->combined);
}

/* Equation (6) for one image: component [components] <- (1 - weight) component + weight log p_U, normalised. Where the
 * task is given, p_U is normalised within each task first, as p(c | s, x) is in (5): an image unlike all classes of the
 * given task must not leave it. */
static void blend_row(const struct dli_class_index *d, double weight, const double *untouched, const float *given,
                      double *component) {
  double log_total = 0.0;
  for (size_t k = 0; k < d->num_components; k++) {
    double other = untouched[d->untouched_places[k]];
    if (given && (k == 0 || d->component_tasks[k] != d->component_tasks[k - 1])) {
      double sum = -HUGE_VAL;
      for (size_t j = k; j < d->num_components && d->component_tasks[j] == d->component_tasks[k]; j++) {
        sum = dli_add_logs(sum, untouched[d->untouched_places[j]]);
      }
      log_total = log((double)given[d->component_tasks[k]] + LEAST_TASK_PROBABILITY) - sum;
    }
    other += log_total;
    component[k] = weight < 1.0 ? (1.0 - weight) * component[k] + weight * other : other;
  }
  normalise(component, d->num_components, 0.0);
}

/* Task posterior of one image: task [num_tasks], summed in float64 over the components, which stand in order of task.
 */
static void sum_tasks(const struct dli_class_index *d, const double *component, size_t num_tasks, float *task) {
  size_t k = 0;
  for (size_t t = 0; t < num_tasks; t++) {
    double sum = 0.0;
    for (; k < d->num_components && d->component_tasks[k] == (int64_t)t; k++) sum += exp(component[k]);
    task[t] = (float)fmin(sum, 1.0);
  }
}

/* Step 7. Unknown scores and threshold are blended with the same weight. */
static dlora_status blend(const dlora_learner *learner, dlora_session *session, double weight, bool task_given,
                          struct dli_predict_buffers *b, float *threshold) {
  const struct dli_class_index *d = &learner->class_index;
  const size_t count = session->count, num_tasks = dlora_learner_num_tasks(learner);
  const float other_threshold = d->thresholds[DLI_UNTOUCHED];
  run_untouched(learner, session, b);
  DLI_TRY(dli_predictor_posterior(learner->statistics[DLI_UNTOUCHED], "dlora_predictor_posterior", b->combined, count,
                                  b->untouched, NULL, NULL, b->other_unknown));
  for (size_t i = 0; i < count; i++) {
    double *component = b->component + i * d->num_components;
    float *task = b->task + i * num_tasks;
    blend_row(d, weight, b->untouched + i * d->num_components, task_given ? task : NULL, component);
    if (!task_given) sum_tasks(d, component, num_tasks, task);
    b->unknown[i] = (float)((1.0 - weight) * (double)b->unknown[i] + weight * (double)b->other_unknown[i]);
  }
  sum_classes(d, b, count);
  *threshold =
      weight < 1.0 ? (float)((1.0 - weight) * (double)*threshold + weight * (double)other_threshold) : other_threshold;
  return DLORA_OK;
}

dlora_status dli_learner_decide(const dlora_learner *learner, dlora_session *session, const int64_t *tasks,
                                struct dli_predict_buffers *b, const struct dli_decision *out) {
  const double weight = dlora_learner_get_untouched_weight(learner);
  float threshold = 0.0f;
  if (dli_learner_reads_early(learner)) dli_session_early(session, b->early);
  if (weight < 1.0) {
    DLI_TRY(decide_adapted(learner, session, tasks, b, &threshold));
  } else {
    memset(b->unknown, 0, session->count * sizeof *b->unknown);
    if (tasks) give_tasks(tasks, session->count, dlora_learner_num_tasks(learner), b->task);
  }
  if (weight > 0.0) DLI_TRY(blend(learner, session, weight, tasks != NULL, b, &threshold));
  write_decision(learner, b, session->count, threshold, out);
  return DLORA_OK;
}

dlora_status dli_learner_decide_untouched(const dlora_learner *learner, dlora_session *session,
                                          struct dli_predict_buffers *b, dlora_prediction *out) {
  const dlora_predictor *untouched = dli_learner_finished_statistics(learner, DLI_UNTOUCHED);
  if (dli_learner_reads_early(learner)) dli_session_early(session, b->early);
  run_untouched(learner, session, b);
  return dlora_predictor_predict(untouched ? untouched : learner->statistics[DLI_BASE], b->combined, session->count,
                                 out);
}

bool dli_learner_knows_untouched(const dlora_learner *learner) {
  if (dli_learner_finished_statistics(learner, DLI_UNTOUCHED)) return true;
  return learner->options.untouched_baseline && !dli_bank_has_updates(learner->bank);
}

/* ---- the public calls ---- */

static dlora_status predict(const dlora_learner *learner, const dlora_images *images, const int64_t *tasks,
                            dlora_prediction *predictions, float *class_log_probs, const char *caller) {
  if (!learner || !images || !predictions) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: %s is NULL", caller,
                     !learner  ? "learner"
                     : !images ? "images"
                               : "predictions");
  }
  const size_t num_tasks = dlora_learner_num_tasks(learner);
  if (num_tasks == 0) return dli_raise(DLORA_ERR_STATE, "%s: nothing was learned yet; learn a task first", caller);
  if (!tasks && learner->options.routing == DLORA_ROUTING_GIVEN) {
    return dli_raise(DLORA_ERR_STATE, "%s: routing is `given`; call dlora_learner_predict_with_tasks", caller);
  }
  dlora_images part;
  DLI_TRY(dli_images_part(images, 0, images->count, &part, caller));
  for (size_t i = 0; tasks && i < images->count; i++) {
    if (tasks[i] < 0 || (size_t)tasks[i] >= num_tasks) {
      return dli_raise(DLORA_ERR_ARGUMENT, "%s: task %lld of image %zu is not one of the %zu learned", caller,
                       (long long)tasks[i], i, num_tasks);
    }
  }
  dlora_status status = DLORA_OK;
  dlora_session *session = NULL;
  struct dli_predict_buffers *buffers = NULL;
  const size_t batch = dli_learner_max_batch(learner, 0, images->count), classes = learner->class_index.num_classes;
  const int before = dli_threads_enter(learner->threads);
  DLI_TRY_DONE(take(learner, batch, &session, &buffers));
  for (size_t first = 0; first < images->count; first += part.count) {
    const struct dli_decision out = {.predictions = predictions + first,
                                     .class_log_probs = class_log_probs ? class_log_probs + first * classes : NULL};
    DLI_TRY_DONE(dli_images_part(images, first, batch, &part, caller));
    DLI_TRY_DONE(dli_session_load(session, &part, NULL, caller));
    DLI_TRY_DONE(dli_learner_decide(learner, session, tasks ? tasks + first : NULL, buffers, &out));
  }
done:
  dli_threads_leave(before);
  dli_session_give(learner->sessions, session);
  return status;
}

dlora_status dlora_learner_predict(const dlora_learner *learner, const dlora_images *images,
                                   dlora_prediction *predictions, float *class_log_probs) {
  return predict(learner, images, NULL, predictions, class_log_probs, __func__);
}

dlora_status dlora_learner_predict_with_tasks(const dlora_learner *learner, const dlora_images *images,
                                              const int64_t *tasks, dlora_prediction *predictions,
                                              float *class_log_probs) {
  DLI_REQUIRE(tasks);
  return predict(learner, images, tasks, predictions, class_log_probs, __func__);
}

dlora_status dlora_learner_embed(const dlora_learner *learner, const dlora_images *images, const int64_t *tasks,
                                 float *features) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(images);
  DLI_REQUIRE(features);
  const size_t num_tasks = dlora_learner_num_tasks(learner), dim = learner->model->vit.dim;
  dlora_images part;
  DLI_TRY(dli_images_part(images, 0, images->count, &part, __func__));
  for (size_t i = 0; tasks && i < images->count; i++) {
    if (tasks[i] < -1 || tasks[i] >= (int64_t)num_tasks) {
      return dli_raise(DLORA_ERR_ARGUMENT,
                       "dlora_learner_embed: task %lld of image %zu is not -1 or one of the %zu learned",
                       (long long)tasks[i], i, num_tasks);
    }
  }
  dlora_status status = DLORA_OK;
  dlora_session *session = NULL;
  struct dli_predict_buffers *buffers = NULL;
  const size_t batch = dli_learner_max_batch(learner, 0, images->count);
  DLI_TRY_DONE(take(learner, batch, &session, &buffers));
  float *routing = buffers->routing;
  for (size_t first = 0; first < images->count; first += part.count) {
    DLI_TRY_DONE(dli_images_part(images, first, batch, &part, __func__));
    DLI_TRY_DONE(dli_session_load(session, &part, NULL, __func__));
    memset(routing, 0, batch * num_tasks * sizeof *routing);
    for (size_t i = 0; tasks && i < part.count; i++) {
      if (tasks[first + i] >= 0) routing[i * num_tasks + (size_t)tasks[first + i]] = 1.0f;
    }
    const struct dli_session_mode mode = {.terms = DLORA_TERM_MERGED,
                                          .routing = tasks && num_tasks > 0 ? routing : NULL};
    dli_session_upper(session, &mode, features + first * dim);
    DLI_TRY_DONE(dli_features_finite(features + first * dim, part.count, dim, __func__));
  }
done:
  dli_session_give(learner->sessions, session);
  return status;
}
