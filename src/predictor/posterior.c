/* Posteriors and decisions from scores. METHOD.md 7.1.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For each row of features:
 *
 *   1. score_c of every component, and the unknown score (readout.c).
 *   2. p(c | z) = (1 - beta) softmax(score / T)_c + beta softmax(score / (kappa T))_c.
 *   3. Class posteriors sum it over tasks, task posteriors over classes.
 *   4. A decision takes the most probable class and task, and compares the unknown score with the threshold.
 *
 * Rows are processed DLI_SCORE_ROWS at a time, in float64, in scratch that stays with the predictor for the next call.
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "src/predictor/predictor.h"
#include "src/predictor/state.h"

/* A score this far below the row's largest has probability 0 at any temperature. The bound keeps quotients finite. */
#define HOPELESS (-1e300)

/* Scratch for DLI_SCORE_ROWS rows: one block, which the predictor keeps for the next call. */
struct posterior {
  double *memory;
  double *scratch;
  double *components; /* [rows, num] log-probabilities */
  double *classes;    /* [rows, num_classes] log-probabilities */
  double *tasks;      /* [rows, num_tasks] probabilities */
  double *unknown;    /* [rows] */
  double *largest;    /* [num_classes] */
};

static void posterior_free(const dlora_predictor *predictor, struct posterior *posterior) {
  dli_pool_give_scratch(predictor->scratch, posterior->memory);
}

static dlora_status posterior_new(const dlora_predictor *predictor, struct posterior *posterior, size_t n) {
  const size_t rows = n < DLI_SCORE_ROWS ? n : DLI_SCORE_ROWS, num_classes = predictor->readout_state.num_classes;
  const size_t scratch = dli_readout_scratch(predictor, &predictor->finished, rows);
  void *memory = NULL;
  DLI_TRY(dli_pool_take_scratch(
      predictor->scratch,
      scratch + rows * (predictor->finished.num + num_classes + predictor->num_tasks + 1) + num_classes, sizeof(double),
      &memory));
  posterior->memory = posterior->scratch = memory;
  posterior->components = posterior->scratch + scratch;
  posterior->classes = posterior->components + rows * predictor->finished.num;
  posterior->tasks = posterior->classes + rows * num_classes;
  posterior->unknown = posterior->tasks + rows * predictor->num_tasks;
  posterior->largest = posterior->unknown + rows;
  return DLORA_OK;
}

/*   1. Scores minus the largest, over T. Only differences enter, whatever the scores' size.
 *   2. Log-sums of both softmaxes, and log p(c | z) of their mixture. */
void dli_normalise_components(double *components, size_t num, double temperature, double broad_weight) {
  double best = components[0], sum = 0.0, broad = 0.0;
  for (size_t i = 1; i < num; i++) best = components[i] > best ? components[i] : best;
  for (size_t i = 0; i < num; i++) {
    components[i] = components[i] < best ? fmax(components[i] - best, HOPELESS) / temperature : 0.0;
    sum += exp(components[i]);
    broad += exp(components[i] / DLI_BROAD);
  }
  const double log_sum = log(sum / (1.0 - broad_weight)), log_broad = log(broad / broad_weight);
  for (size_t i = 0; i < num; i++) components[i] = dli_log_posterior(components[i], log_sum, log_broad);
}

/* Turns the scores [num] of one row, in place, into log-probabilities of components, and sums these by class and task.
 * Tasks: sums of p. Classes: log-sums relative to each class's own largest term, so that the logarithm of an improbable
 * class is as exact as that of a probable one.
 *
 * Probabilities sum to 1 within 1e-15 in float64, and within 1e-6 after rounding to float32: a log-probability l is
 * then off by at most 2^-24 |l|, which sums to 2^-24 times the entropy, 14 for a million equal classes. */
static void normalise_row(const dlora_predictor *predictor, double *components, double *classes, double *tasks,
                          double *largest) {
  const struct dli_statistics *finished = &predictor->finished;
  const struct dli_readout *readout = &predictor->readout_state;
  dli_normalise_components(components, finished->num, predictor->temperature, predictor->broad_weight);
  for (size_t i = 0; i < predictor->num_tasks; i++) tasks[i] = 0.0;
  for (size_t i = 0; i < readout->num_classes; i++) classes[i] = 0.0, largest[i] = -HUGE_VAL;
  for (size_t i = 0; i < finished->num; i++) {
    tasks[finished->tasks[i]] += exp(components[i]);
    size_t column = readout->columns[i];
    if (components[i] > largest[column]) largest[column] = components[i];
  }
  for (size_t i = 0; i < finished->num; i++) {
    size_t column = readout->columns[i];
    classes[column] += exp(components[i] - largest[column]);
  }
  for (size_t i = 0; i < readout->num_classes; i++) classes[i] = largest[i] + log(classes[i]);
}

static void posterior_compute(const dlora_predictor *predictor, struct posterior *posterior, const float *features,
                              size_t rows, bool probabilities, bool unknown) {
  const struct dli_statistics *finished = &predictor->finished;
  dli_readout_score(predictor, finished, &predictor->readout_state, features, rows, posterior->scratch,
                    probabilities ? posterior->components : NULL, unknown ? posterior->unknown : NULL);
  for (size_t i = 0; probabilities && i < rows; i++) {
    normalise_row(predictor, posterior->components + i * finished->num,
                  posterior->classes + i * predictor->readout_state.num_classes,
                  posterior->tasks + i * predictor->num_tasks, posterior->largest);
  }
}

static dlora_status require_task(const char *function, const dlora_predictor *predictor) {
  if (predictor->num_tasks > 0) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE, "%s: no task is finished; call dlora_predictor_commit_task first", function);
}

/* A sum of probabilities may exceed 1 by rounding. */
static float to_probability(double value) {
  return value < 1.0 ? (float)value : 1.0f;
}

float dli_to_log_probability(double value) {
  return value < 0.0 ? dli_to_float(value) : 0.0f;
}

/* Destinations of a posterior; any may be NULL. */
struct outputs {
  double *exact_components;
  float *components, *classes, *tasks, *unknown;
};

static dlora_status write_posterior(const dlora_predictor *predictor, const char *function, const float *features,
                                    size_t n, const struct outputs *out) {
  DLI_TRY(require_task(function, predictor));
  DLI_TRY(dli_check_features(function, "features", features, n, predictor->dim));
  size_t num = predictor->finished.num, num_classes = predictor->readout_state.num_classes,
         tasks = predictor->num_tasks;
  bool probabilities = out->exact_components || out->components || out->classes || out->tasks;
  struct posterior posterior;
  DLI_TRY(posterior_new(predictor, &posterior, n));
  for (size_t begin = 0; begin < n; begin += DLI_SCORE_ROWS) {
    size_t rows = n - begin < DLI_SCORE_ROWS ? n - begin : DLI_SCORE_ROWS;
    posterior_compute(predictor, &posterior, features + begin * predictor->dim, rows, probabilities,
                      out->unknown != NULL);
    if (out->exact_components) {
      memcpy(out->exact_components + begin * num, posterior.components, rows * num * sizeof *posterior.components);
    }
    for (size_t i = 0; out->components && i < rows * num; i++) {
      out->components[begin * num + i] = dli_to_log_probability(posterior.components[i]);
    }
    for (size_t i = 0; out->classes && i < rows * num_classes; i++) {
      out->classes[begin * num_classes + i] = dli_to_log_probability(posterior.classes[i]);
    }
    for (size_t i = 0; out->tasks && i < rows * tasks; i++) {
      out->tasks[begin * tasks + i] = to_probability(posterior.tasks[i]);
    }
    for (size_t i = 0; out->unknown && i < rows; i++) out->unknown[begin + i] = dli_to_float(posterior.unknown[i]);
  }
  posterior_free(predictor, &posterior);
  return DLORA_OK;
}

dlora_status dlora_predictor_posterior(const dlora_predictor *predictor, const float *features, size_t n,
                                       float *component_log_probs, float *class_log_probs, float *task_probs,
                                       float *unknown_scores) {
  DLI_REQUIRE(predictor);
  const struct outputs out = {NULL, component_log_probs, class_log_probs, task_probs, unknown_scores};
  return write_posterior(predictor, __func__, features, n, &out);
}

dlora_status dli_predictor_posterior(const dlora_predictor *predictor, const char *function, const float *features,
                                     size_t n, double *component_log_probs, float *class_log_probs, float *task_probs,
                                     float *unknown_scores) {
  const struct outputs out = {component_log_probs, NULL, class_log_probs, task_probs, unknown_scores};
  return write_posterior(predictor, function, features, n, &out);
}

static size_t largest_of(const double *values, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; i++) best = values[i] > values[best] ? i : best;
  return best;
}

dlora_status dlora_predictor_predict(const dlora_predictor *predictor, const float *features, size_t n,
                                     dlora_prediction *predictions) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(predictions);
  DLI_TRY(require_task(__func__, predictor));
  DLI_TRY(dli_check_features(__func__, "features", features, n, predictor->dim));
  const struct dli_readout *readout = &predictor->readout_state;
  struct posterior posterior;
  DLI_TRY(posterior_new(predictor, &posterior, n));
  for (size_t begin = 0; begin < n; begin += DLI_SCORE_ROWS) {
    size_t rows = n - begin < DLI_SCORE_ROWS ? n - begin : DLI_SCORE_ROWS;
    posterior_compute(predictor, &posterior, features + begin * predictor->dim, rows, true, true);
    for (size_t i = 0; i < rows; i++) {
      const double *classes = posterior.classes + i * readout->num_classes,
                   *tasks = posterior.tasks + i * predictor->num_tasks;
      size_t class_best = largest_of(classes, readout->num_classes),
             task_best = largest_of(tasks, predictor->num_tasks);
      predictions[begin + i] =
          (dlora_prediction){.class_id = readout->classes[class_best],
                             .task = (int64_t)task_best,
                             .class_probability = to_probability(exp(classes[class_best])),
                             .task_probability = to_probability(tasks[task_best]),
                             .unknown_score = dli_to_float(posterior.unknown[i]),
                             .unknown = (double)dli_to_float(posterior.unknown[i]) > predictor->threshold};
    }
  }
  posterior_free(predictor, &posterior);
  return DLORA_OK;
}
