/* Temperature T of the posterior and threshold of the unknown score, from leave-one-out features. METHOD.md 7.
 * SPDX-License-Identifier: Apache-2.0
 *
 * At the end of task t:
 *
 *   1. The sample and the held-out features are scored as if never observed (leave_one_out.c).
 *   2. T_t maximises the likelihood of the class posterior over the sample, times a Gaussian prior on log T around the
 *      initial temperature.
 *   3. A second fit, to the held-out features, with a prior around the first one, may raise T_t but not lower it.
 *      Training makes features look more certain, never less.
 *   4. log T_t, log q_t, f_t and up to DLI_UNKNOWN_SCORES unknown scores become entry t.
 *
 * T of all tasks is q times the weighted geometric mean of T_t / q_t. The threshold is a quantile of the unknown scores
 * of all tasks, each weighted by the number of features it was chosen from. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/minimise.h"
#include "base/status.h"
#include "src/predictor/predictor.h"
#include "src/predictor/state.h"

/* Least q: below it components lie in one place. */
#define LEAST_SEPARATION 1e-3
/* A task with a larger q has no weight in T. Its components lie hundreds of deviations apart, as with identical images
 * in a class, and every temperature suits their scores. */
#define MOST_SEPARATION 1e5

/* Standard deviation of the prior on log T, worth a fraction of one image. Without it a few features that are all right
 * would drive T to its lower bound. */
#define PRIOR_DEVIATION 2.0
/* That of the second fit: how far training may have lowered log T of the features it saw. */
#define TRAINING_DEVIATION 0.25

void dli_calibration_free(const dlora_predictor *predictor, struct dli_calibration *calibration) {
  const dlora_allocator *allocator = &predictor->allocator;
  dli_free(allocator, calibration->scores);
  dli_free(allocator, calibration->num_scores);
  dli_free(allocator, calibration->log_separations);
  dli_free(allocator, calibration->log_temperatures);
  dli_free(allocator, calibration->held_out);
  *calibration = (struct dli_calibration){0};
}

dlora_status dli_calibration_copy(const dlora_predictor *predictor, struct dli_calibration *out,
                                  const struct dli_calibration *calibration, size_t copied, size_t num_tasks) {
  const dlora_allocator *allocator = &predictor->allocator;
  struct dli_calibration copy = {0};
  size_t num_scores = 0;
  dlora_status status = DLORA_OK;
  *out = copy;
  if (!dli_multiply(&num_scores, num_tasks, DLI_UNKNOWN_SCORES)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for %zu tasks", num_tasks);
  }
  DLI_TRY_DONE(DLI_NEW(allocator, copy.held_out, num_tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, copy.log_temperatures, num_tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, copy.log_separations, num_tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, copy.num_scores, num_tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, copy.scores, num_scores));
  for (size_t i = 0; i < copied; i++) dli_calibration_add(&copy, i, calibration, i);
  *out = copy;
  copy = (struct dli_calibration){0};
done:
  dli_calibration_free(predictor, &copy);
  return status;
}

void dli_calibration_add(struct dli_calibration *a, size_t to, const struct dli_calibration *b, size_t from) {
  if (b->held_out[from] == 0) return;
  double na = (double)a->held_out[to], nb = (double)b->held_out[from];
  const double fraction = nb / (na + nb);
  float both[2 * DLI_UNKNOWN_SCORES];
  size_t count = (size_t)a->num_scores[to], added = (size_t)b->num_scores[from];
  memcpy(both, a->scores + to * DLI_UNKNOWN_SCORES, count * sizeof *both);
  memcpy(both + count, b->scores + from * DLI_UNKNOWN_SCORES, added * sizeof *both);
  count += added;
  size_t kept = count < DLI_UNKNOWN_SCORES ? count : DLI_UNKNOWN_SCORES;
  for (size_t i = 0; i < kept; i++) a->scores[to * DLI_UNKNOWN_SCORES + i] = both[i * count / kept];
  a->num_scores[to] = kept;
  a->log_temperatures[to] += fraction * (b->log_temperatures[from] - a->log_temperatures[to]);
  a->log_separations[to] += fraction * (b->log_separations[from] - a->log_separations[to]);
  a->held_out[to] += b->held_out[from];
}

double dli_calibration_log_separation(const struct dli_readout *readout) {
  return log(fmax(LEAST_SEPARATION, readout->separation));
}

double dli_calibration_temperature(const struct dli_calibration *calibration, const struct dli_statistics *statistics,
                                   const struct dli_readout *readout, size_t num_tasks) {
  double sum = 0.0, total = 0.0;
  size_t known = 0; /* components when the task was fitted */
  for (size_t i = 0; i < num_tasks; i++) {
    while (known < statistics->num && statistics->tasks[known] <= (int64_t)i) known++;
    if (known < 2) continue; /* a single component: K_t - 1 = 0 */
    if (calibration->log_separations[i] > log(MOST_SEPARATION)) continue;
    const double weight = (double)calibration->held_out[i] * (double)(known - 1);
    sum += weight * (calibration->log_temperatures[i] - calibration->log_separations[i]);
    total += weight;
  }
  if (total == 0.0) return 0.0;
  return fmin(DLI_HIGHEST_TEMPERATURE,
              fmax(DLI_LOWEST_TEMPERATURE, exp(sum / total + dli_calibration_log_separation(readout))));
}

/* Leave-one-out features under one prior. */
struct fit {
  double broad_weight;
  size_t num;            /* components */
  const size_t *columns; /* [num] */
  const struct dli_left_out *left_out;
  const double *weights;    /* [left_out->count] */
  double centre, deviation; /* of the prior on log T */
};

double dli_log_posterior(double scaled, double log_sum, double log_broad_sum) {
  const double sharp = scaled - log_sum, broad = scaled / DLI_BROAD - log_broad_sum;
  return sharp > broad ? sharp + log1p(exp(broad - sharp)) : broad + log1p(exp(sharp - broad));
}

/* Negative log-likelihood of the class posterior at log T, with the prior. */
static double cost(const void *context, double log_temperature) {
  const struct fit *fit = context;
  double sharpness = exp(-log_temperature), sum = 0.0;
  for (size_t i = 0; i < fit->left_out->count; i++) {
    const double *score = fit->left_out->scores + i * fit->num;
    double all = 0.0, broad = 0.0, right = 0.0, best = -HUGE_VAL;
    for (size_t j = 0; j < fit->num; j++) {
      all += exp(score[j] * sharpness);
      broad += exp(score[j] * sharpness / DLI_BROAD);
      if (fit->columns[j] == fit->left_out->expected[i] && score[j] > best) best = score[j];
    }
    /* A recurring class has several components. Relative to the best of them nothing overflows. */
    const double log_all = log(all / (1.0 - fit->broad_weight)), log_broad = log(broad / fit->broad_weight);
    const double log_best = dli_log_posterior(best * sharpness, log_all, log_broad);
    for (size_t j = 0; j < fit->num; j++) {
      if (fit->columns[j] != fit->left_out->expected[i]) continue;
      right += exp(dli_log_posterior(score[j] * sharpness, log_all, log_broad) - log_best);
    }
    sum -= fit->weights[i] * (log_best + log(right));
  }
  double off = (log_temperature - fit->centre) / fit->deviation;
  return sum + 0.5 * off * off;
}

/* Weights [count] of the features. Every class that occurs has the same sum, because the posterior assumes equal
 * frequencies; with use_prior every feature has weight 1. */
static dlora_status weigh(const dlora_predictor *predictor, const struct dli_readout *readout,
                          const struct dli_left_out *left_out, double *weights) {
  size_t *counts = NULL, present = 0;
  DLI_TRY(DLI_NEW(&predictor->allocator, counts, readout->num_classes));
  for (size_t i = 0; i < left_out->count; i++) present += counts[left_out->expected[i]]++ == 0;
  const double fraction = (double)left_out->count / (double)present;
  for (size_t i = 0; i < left_out->count; i++) {
    weights[i] = predictor->use_prior ? 1.0 : fraction / (double)counts[left_out->expected[i]];
  }
  dli_free(&predictor->allocator, counts);
  return DLORA_OK;
}

/* *log_temperature: centre of the prior on entry, the fit on return. Without features it stays. */
static dlora_status fit_temperature(const dlora_predictor *predictor, const struct dli_readout *readout, size_t num,
                                    struct dli_left_out *left_out, double deviation, double *log_temperature) {
  double *weights = NULL;
  dlora_status status = DLORA_OK;
  if (left_out->count == 0) return DLORA_OK;
  for (size_t i = 0; i < left_out->count; i++) { /* relative to the row's largest nothing overflows */
    double *row = left_out->scores + i * num, best = row[0];
    for (size_t j = 1; j < num; j++) best = row[j] > best ? row[j] : best;
    for (size_t j = 0; j < num; j++) row[j] -= best;
  }
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, weights, left_out->count));
  DLI_TRY_DONE(weigh(predictor, readout, left_out, weights));
  const struct fit fit = {predictor->broad_weight, num,      readout->columns, left_out, weights,
                          *log_temperature,        deviation};
  *log_temperature = dli_minimise(cost, &fit, log(DLI_LOWEST_TEMPERATURE), log(DLI_HIGHEST_TEMPERATURE));
done:
  dli_free(&predictor->allocator, weights);
  return status;
}

dlora_status dli_calibration_fit(const dlora_predictor *predictor, struct dli_calibration *calibration, size_t task,
                                 const struct dli_statistics *statistics, const struct dli_readout *readout) {
  struct dli_left_out sample = {0}, held_out = {0};
  double log_temperature = log(predictor->initial_temperature), corrected;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(dli_leave_one_out(predictor, statistics, readout, task, &predictor->sample, &sample));
  DLI_TRY_DONE(dli_leave_one_out(predictor, statistics, readout, task, &predictor->held_out, &held_out));
  DLI_TRY_DONE(fit_temperature(predictor, readout, statistics->num, &sample, PRIOR_DEVIATION, &log_temperature));
  corrected = log_temperature;
  DLI_TRY_DONE(fit_temperature(predictor, readout, statistics->num, &held_out,
                               sample.count > 0 ? TRAINING_DEVIATION : PRIOR_DEVIATION, &corrected));
  /* Held-out features raise T_t only: a few easy ones are no evidence against many of the sample. */
  if (sample.count == 0 || corrected > log_temperature) log_temperature = corrected;
  const size_t count = sample.count + held_out.count;
  const size_t kept = count < DLI_UNKNOWN_SCORES ? count : DLI_UNKNOWN_SCORES;
  calibration->held_out[task] = count;
  calibration->log_temperatures[task] = count > 0 ? log_temperature : 0.0;
  calibration->log_separations[task] = count > 0 ? dli_calibration_log_separation(readout) : 0.0;
  calibration->num_scores[task] = kept;
  for (size_t i = 0; i < kept; i++) {
    const size_t j = i * count / kept;
    const double score = j < held_out.count ? held_out.unknown[j] : sample.unknown[j - held_out.count];
    calibration->scores[task * DLI_UNKNOWN_SCORES + i] = dli_to_float(score);
  }
done:
  dli_left_out_free(predictor, &held_out);
  dli_left_out_free(predictor, &sample);
  return status;
}

struct weighted {
  double score;
  double weight;
};

static int compare_scores(const void *a, const void *b) {
  const struct weighted *x = a, *y = b;
  return (x->score > y->score) - (x->score < y->score);
}

dlora_status dli_calibration_threshold(const dlora_predictor *predictor, const struct dli_calibration *calibration,
                                       size_t num_tasks, double quantile, double *threshold) {
  size_t count = 0, filled = 0;
  struct weighted *list = NULL;
  double total = 0.0, below = 0.0;
  *threshold = HUGE_VAL;
  for (size_t i = 0; i < num_tasks; i++) count += (size_t)calibration->num_scores[i];
  if (count == 0) return DLORA_OK;
  DLI_TRY(DLI_NEW(&predictor->allocator, list, count));
  for (size_t i = 0; i < num_tasks; i++) {
    /* A kept score stands for all of the task's leave-one-out features that it was chosen from. */
    double weight = (double)calibration->held_out[i] / (double)calibration->num_scores[i];
    for (size_t j = 0; j < (size_t)calibration->num_scores[i]; j++) {
      list[filled++] = (struct weighted){(double)calibration->scores[i * DLI_UNKNOWN_SCORES + j], weight};
      total += weight;
    }
  }
  qsort(list, count, sizeof *list, compare_scores);
  for (size_t i = 0; i < count; i++) {
    below += list[i].weight;
    *threshold = list[i].score;
    if (below >= quantile * total * (1.0 - 1e-12)) break;
  }
  dli_free(&predictor->allocator, list);
  return DLORA_OK;
}
