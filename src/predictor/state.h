/* What a predictor is made of, for predictor*.c.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PREDICTOR_STATE_H
#define DLI_SRC_PREDICTOR_STATE_H

#include <limits.h>
#include <stdbool.h>

#include "base/pool.h"
#include "duallora/duallora.h"

/* Widest feature or random projection: a LAPACK block of it must be counted by an int. */
#define DLI_PREDICTOR_MAX_DIM ((size_t)INT_MAX / 64)
/* Scores of held-out features kept a task, for the unknown threshold. */
#define DLI_UNKNOWN_SCORES 256
/* Share of known features that dlora_predictor_predict accepts. */
#define DLI_UNKNOWN_QUANTILE 0.95

/* Features of the open task kept to be scored as if each had been left out. */
#define DLI_SAMPLE 256
/* Where the temperature comes from. One set by hand stays until a task has held-out features. */
#define DLI_TEMPERATURE_INITIAL 0
#define DLI_TEMPERATURE_FITTED 1
#define DLI_TEMPERATURE_BY_HAND 2

/* The posterior is mostly softmax(scores / T), and for a share softmax(scores / (BROAD T)): what a single temperature
 * makes too sure when it is right about the doubtful ones. docs/METHOD.md 7. */
#define DLI_BROAD 4.0
#define DLI_BROAD_WEIGHT 0.2
#define DLI_BROAD_WEIGHT_BEFORE 0.15 /* where a file does not say */

/* Sums over features, one entry per (task, class) component, by ascending task. In the open task's, tasks are 0 and
 * only the lower triangles of scatter and gram are kept up. */
struct dli_statistics {
  size_t num; /* components */
  size_t capacity;
  int64_t *tasks;   /* [num] */
  int64_t *classes; /* [num] */
  uint64_t *counts; /* [num], each at least 1 */
  double *means;    /* [num, dim] */
  double *scatter;  /* [dim, dim] pooled, around the components' means; NULL: zero (not in the finished tasks') */
  double *cross;    /* [num, random_features] sums of the projected features; NULL without random projection */
  double *gram;     /* [random_features, random_features] of the projected features; NULL likewise */
};

/* What is computed from finished statistics, so that predictions only read. Scores are those of features and means less
 * `centre`, which changes all components' scores by the same amount and loses no digits where features are far from 0.
 */
struct dli_readout {
  size_t num_classes;
  double separation; /* mean square of the distance of a component's mean to the centre; 1 with random projection */
  int64_t *classes;  /* [num_classes] in order of first appearance */
  size_t *columns;   /* [num] class of each component */
  double *centre;    /* [dim] mean of all features */
  double *factor;    /* [dim, dim] Cholesky factor of the shrunk within-class covariance */
  double *share;     /* [num] root of each component's share of all features */
  double *between;   /* num < dim: [num, num] Cholesky factor of I + U^T C^-1 U, U the columns share (mean - centre) */
  double *global_factor; /* else: [dim, dim] of C + U U^T, the covariance of all features. The other one is NULL */
  double *weight;        /* [num, dim] C^-1 (mean - centre) */
  double *bias;          /* [num] minus half its squared length */
  double *offset;        /* [num] of the scores: log frequencies with use_prior, and what few images take from a mean */
  double *ridge;         /* [num, random_features], or NULL */
};

/* Features that are kept while their task is open. */
struct dli_rows {
  size_t count;
  size_t capacity;
  float *features; /* [count, dim] */
  float *mirrored; /* [count, dim] of the second view; equal to features where there was one view */
  int64_t *labels; /* [count] */
};

/* What features left out have shown, one entry per finished task. */
struct dli_calibration {
  uint64_t *held_out;       /* [num_tasks] features that took part */
  double *log_temperatures; /* [num_tasks] fitted on them */
  double *log_separations;  /* [num_tasks] what the readout had then */
  uint64_t *num_scores;     /* [num_tasks] at most DLI_UNKNOWN_SCORES */
  float *scores;            /* [num_tasks, DLI_UNKNOWN_SCORES] unknown scores */
};

struct dlora_predictor {
  dlora_allocator allocator;
  size_t dim;
  size_t num_tasks;
  size_t random_features; /* 0: Gaussian readout */
  double *projection;     /* [dim, random_features], or NULL */
  /* Options, in types that a file holds. */
  uint64_t readout, use_prior, saved_random_features, seed;
  double shrinkage, initial_temperature, ridge;
  double temperature;       /* in force */
  double broad_weight;      /* of the posterior: DLI_BROAD_WEIGHT, or what a file was saved with */
  uint64_t temperature_set; /* one of DLI_TEMPERATURE_... */
  double threshold;         /* of the unknown score for DLI_UNKNOWN_QUANTILE; +infinity without scores */
  struct dli_statistics finished, open;
  struct dli_readout readout_state; /* of `finished`; all NULL before the first task */
  struct dli_rows held_out;         /* of the open task; not in its statistics yet */
  struct dli_rows sample;           /* of the open task's other features, which are in them */
  uint64_t sample_keys[DLI_SAMPLE]; /* [sample.count] */
  struct dli_calibration calibration;
  struct dli_pool *scratch; /* scratch of posteriors, for calls on a const handle */
};

/* ---- predictor/rows.c ---- */

void dli_rows_free(const dlora_predictor *predictor, struct dli_rows *rows);
/* Room for n more. */
dlora_status dli_rows_reserve(const dlora_predictor *predictor, struct dli_rows *rows, size_t n);
/* Appends n; there is room. */
void dli_rows_append(const dlora_predictor *predictor, struct dli_rows *rows, const float *features,
                     const float *mirrored, const int64_t *labels, size_t n);
/* Room for what dli_sample_add may keep of n more. */
dlora_status dli_sample_reserve(dlora_predictor *predictor, size_t n);
/* Shows n features to the sample, which keeps the DLI_SAMPLE ones whose keys, hashes of all their bits, are lowest: the
 * same ones whatever the order and the batches they come in. */
void dli_sample_add(dlora_predictor *predictor, const float *features, const float *mirrored, const int64_t *labels,
                    size_t n);

/* ---- predictor/statistics.c ---- */

/* Zero matrices and memory for num components, which are not counted yet. */
dlora_status dli_statistics_new(const dlora_predictor *predictor, struct dli_statistics *out, size_t num);
void dli_statistics_free(const dlora_predictor *predictor, struct dli_statistics *statistics);
/* *out: a copy, with symmetric matrices. */
dlora_status dli_statistics_copy(const dlora_predictor *predictor, struct dli_statistics *out,
                                 const struct dli_statistics *statistics);
/* Adds features [n, dim] as task `task`, which must be the last one; they were checked. With mirrored [n, dim] that is
 * not the same array, each image enters with half of either view. Lower triangles only. */
dlora_status dli_statistics_observe(const dlora_predictor *predictor, struct dli_statistics *statistics, int64_t task,
                                    const float *features, const float *mirrored, const int64_t *labels, size_t n);
/* Makes the matrices symmetric from their lower triangles. */
void dli_statistics_symmetrize(const dlora_predictor *predictor, struct dli_statistics *statistics);
/* *out = a + b, with offset added to b's tasks: components of the same task and class are combined. with_random false
 * leaves gram and cross out. */
dlora_status dli_statistics_join(const dlora_predictor *predictor, struct dli_statistics *out,
                                 const struct dli_statistics *a, const struct dli_statistics *b, int64_t offset,
                                 bool with_random);
uint64_t dli_statistics_total(const struct dli_statistics *statistics);
/* Mean of all features [dim]. */
void dli_statistics_centre(const dlora_predictor *predictor, const struct dli_statistics *statistics, double *centre);
/* The shrunk within-class covariance of a range of columns, lower triangle of covariance [columns, columns], and what
 * its diagonal was raised by, raised [columns]. */
void dli_statistics_covariance(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                               const double *centre, size_t first, size_t columns, double *covariance, double *raised);
/* Degrees of freedom of the scatter, at least 1. */
double dli_statistics_degrees(const struct dli_statistics *statistics);

/* ---- predictor/readout.c ---- */

void dli_readout_free(const dlora_predictor *predictor, struct dli_readout *readout);
/* Computes *out from statistics with symmetric matrices. with_ridge false leaves the random projection's weights out.
 */
dlora_status dli_readout_build(const dlora_predictor *predictor, struct dli_readout *out,
                               const struct dli_statistics *statistics, bool with_ridge);
/* Rows that a caller of dli_readout_score passes at once. */
#define DLI_SCORE_ROWS 128
/* Doubles of scratch for that many rows at most. */
size_t dli_readout_scratch(const dlora_predictor *predictor, const struct dli_statistics *statistics, size_t rows);
/* Scores [rows, num] and unknown scores [rows] (either may be NULL) of features [rows, dim]. */
void dli_readout_score(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                       const struct dli_readout *readout, const float *features, size_t rows, double *scratch,
                       double *scores, double *unknown);
/* The ridge regression's outputs lie about [0, 1]; times this they are as sharp as logits, so that the default
 * temperature of 2 makes the posterior softmax(10 * output), and temperatures in [0.05, 100] cover every sharpness of
 * use. */
#define DLI_RIDGE_SCALE 20.0
/* *out: Cholesky factor [random_features, random_features] of the ridge regression's matrix. */
dlora_status dli_ridge_factor(const dlora_predictor *predictor, const struct dli_statistics *statistics, double **out);
/* x [rows, dim] -> relu(x R) [rows, random_features]. */
void dli_random_project(const dlora_predictor *predictor, const double *x, size_t rows, double *projected);

/* ---- predictor/leave_one_out.c ---- */

/* Scores of features as statistics without each of them would give them. */
struct dli_left_out {
  size_t count;     /* features that could be left out */
  double *scores;   /* [count, num] */
  double *unknown;  /* [count] */
  size_t *expected; /* [count] column of the true class */
};
void dli_left_out_free(const dlora_predictor *predictor, struct dli_left_out *out);
/* rows are features of task `task` that take part in the statistics, of which readout was made. Left alone are those of
 * a class with no other feature in the task, and of a class that the task does not have. */
dlora_status dli_leave_one_out(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                               const struct dli_readout *readout, size_t task, const struct dli_rows *rows,
                               struct dli_left_out *out);

/* ---- predictor/calibration.c ---- */

void dli_calibration_free(const dlora_predictor *predictor, struct dli_calibration *calibration);
/* *out: room for num_tasks, the first `copied` taken from calibration. */
dlora_status dli_calibration_copy(const dlora_predictor *predictor, struct dli_calibration *out,
                                  const struct dli_calibration *calibration, size_t copied, size_t num_tasks);
/* Adds entry `from` of b to entry `to` of a. */
void dli_calibration_add(struct dli_calibration *a, size_t to, const struct dli_calibration *b, size_t from);
/* Log of a component's posterior, from its score less the row's largest, divided by T, and the logs of the sums of
 * exp(that) and exp(that / DLI_BROAD) over the row, each divided by its share of the posterior. */
double dli_log_posterior(double scaled, double log_sum, double log_broad_sum);
/* Fits the temperature to the held-out and the sampled features of the open task and takes their unknown scores, as
 * entry `task`. They take part in the statistics, of which readout was made. */
dlora_status dli_calibration_fit(const dlora_predictor *predictor, struct dli_calibration *calibration, size_t task,
                                 const struct dli_statistics *statistics, const struct dli_readout *readout);
/* The temperature for a readout of these statistics: the mean, over features that took part, of the logs of temperature
 * and separation's ratio, times the present separation; 0 where none tells anything. Each weighs as many times as there
 * were components that it was told apart from. */
double dli_calibration_temperature(const struct dli_calibration *calibration, const struct dli_statistics *statistics,
                                   const struct dli_readout *readout, size_t num_tasks);
/* Log of the readout's separation, as it is kept. */
double dli_calibration_log_separation(const struct dli_readout *readout);
/* Threshold of the unknown score, +infinity without scores. Error: NO_MEMORY. */
dlora_status dli_calibration_threshold(const dlora_predictor *predictor, const struct dli_calibration *calibration,
                                       size_t num_tasks, double quantile, double *threshold);

/* ---- predictor/predictor.c ---- */

/* Whether features [n, dim] are there and finite. */
dlora_status dli_check_features(const char *function, const char *name, const float *features, size_t n, size_t dim);
/* The largest floats instead of infinities. */
float dli_to_float(double value);
/* An empty predictor with the projection of its seed. Options were read by dli_options_read. */
dlora_status dli_predictor_new(dlora_predictor **out, const char *function, size_t dim,
                               const dlora_predictor_options *options);

#endif
