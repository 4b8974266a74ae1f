/* The structs of a predictor: statistics, readout, calibration; and functions that its files share. METHOD.md 7.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PREDICTOR_STATE_H
#define DLI_SRC_PREDICTOR_STATE_H

#include <limits.h>
#include <stdbool.h>

#include "base/pool.h"
#include "duallora/duallora.h"

/* Widest feature or random projection: a LAPACK block of it must be counted by an int. */
#define DLI_PREDICTOR_MAX_DIM ((size_t)INT_MAX / 64)
/* Unknown scores of leave-one-out features that a task keeps for the threshold. */
#define DLI_UNKNOWN_SCORES 256
/* Fraction of known features that dlora_predictor_predict accepts. */
#define DLI_UNKNOWN_QUANTILE 0.95

/* Features of the open task kept for leave-one-out scores. */
#define DLI_SAMPLE 256
/* Origin of the temperature. One set by hand stays until a task has held-out features. */
#define DLI_TEMPERATURE_INITIAL 0
#define DLI_TEMPERATURE_FITTED 1
#define DLI_TEMPERATURE_BY_HAND 2

/* kappa and beta: the posterior is (1 - beta) softmax(score / T) + beta softmax(score / (kappa T)). A single
 * temperature is overconfident at the top and underconfident elsewhere. METHOD.md 7.1. */
#define DLI_BROAD 4.0
#define DLI_BROAD_WEIGHT 0.2
#define DLI_BROAD_WEIGHT_BEFORE 0.15 /* of files that do not store it */

/* Sums over features: n_c and mu_c of each component c = (task, class), by ascending task, and the pooled scatter. In
 * the statistics of the open task, tasks are 0, and only the lower triangles of scatter and gram are valid. */
struct dli_statistics {
  size_t num; /* components */
  size_t capacity;
  int64_t *tasks;   /* [num] */
  int64_t *classes; /* [num] */
  uint64_t *counts; /* [num], each at least 1 */
  double *means;    /* [num, dim] */
  double *scatter;  /* [dim, dim] pooled, around the components' means; NULL: zero (only in the open task's) */
  double *cross;    /* [num, random_features] sums of the projected features; NULL without random projection */
  double *gram;     /* [random_features, random_features] of the projected features; NULL likewise */
};

/* Factors and weights computed from the finished tasks' statistics; predictions only read them. Scores are those of
 * features and means minus mu, `centre`. This changes all scores by the same amount, and keeps digits where features
 * lie far from 0. */
struct dli_readout {
  size_t num_classes;
  double separation;     /* q: mean of (mu_c - mu)^T C^-1 (mu_c - mu); 1 with random projection */
  int64_t *classes;      /* [num_classes] in order of first appearance */
  size_t *columns;       /* [num] class of each component */
  double *centre;        /* [dim] mu, mean of all features */
  double *factor;        /* [dim, dim] Cholesky factor of C */
  double *root_fraction; /* [num] sqrt(n_c / N) */
  double *between; /* num < dim: [num, num] Cholesky factor of I + U^T C^-1 U, U of columns sqrt(n_c / N) (mu_c - mu) */
  double *global_factor; /* else: [dim, dim] that of E = C + U U^T. One of the two is NULL */
  double *weight;        /* [num, dim] C^-1 (mean - centre) */
  double *bias;          /* [num] minus half its squared length */
  double *offset;        /* [num] of the scores: correction by eta, and log(n_c / N) with use_prior */
  double *ridge;         /* [num, random_features], or NULL */
};

/* Features kept while their task is open. */
struct dli_rows {
  size_t count;
  size_t capacity;
  float *features; /* [count, dim] */
  float *mirrored; /* [count, dim] of the second view; equal to `features` where there is one view */
  int64_t *labels; /* [count] */
  uint64_t *keys;  /* [count] of the images: the caller's, or hashes of label and features */
};

/* Results of the leave-one-out features of each finished task. */
struct dli_calibration {
  uint64_t *held_out;       /* [num_tasks] f_t, leave-one-out features of the fit */
  double *log_temperatures; /* [num_tasks] log T_t, fitted to them */
  double *log_separations;  /* [num_tasks] log q_t, of the readout at that time */
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
  double shrinkage; /* 0: from the number of images */
  double initial_temperature, ridge;
  double temperature;       /* in force */
  double broad_weight;      /* beta: DLI_BROAD_WEIGHT, or that of the file */
  uint64_t temperature_set; /* one of DLI_TEMPERATURE_... */
  double threshold;         /* of the unknown score for DLI_UNKNOWN_QUANTILE; +infinity without scores */
  struct dli_statistics finished, open;
  struct dli_readout readout_state; /* of `finished`; all NULL before the first task */
  struct dli_rows held_out;         /* of the open task; they enter the statistics when it ends */
  struct dli_rows sample;           /* of the open task's other features, which are in the statistics */
  struct dli_calibration calibration;
  struct dli_pool *scratch; /* of posteriors, kept between calls on a const handle */
};

/* ---- predictor/rows.c ---- */

void dli_rows_free(const dlora_predictor *predictor, struct dli_rows *rows);
/* Room for n more. */
dlora_status dli_rows_reserve(const dlora_predictor *predictor, struct dli_rows *rows, size_t n);
/* Appends n, after dli_rows_reserve. keys: [n], or NULL for hashes. */
void dli_rows_append(const dlora_predictor *predictor, struct dli_rows *rows, const float *features,
                     const float *mirrored, const int64_t *labels, const uint64_t *keys, size_t n);
/* Sets all keys to hashes of label and features. */
void dli_rows_hash(const dlora_predictor *predictor, struct dli_rows *rows);
/* Room for as many of n features as dli_sample_add may keep. */
dlora_status dli_sample_reserve(dlora_predictor *predictor, size_t n);
/* Offers n features to the sample. It keeps the DLI_SAMPLE features with the lowest keys [n], or NULL for hashes of all
 * their bits: the same features in any order and any batches. */
void dli_sample_add(dlora_predictor *predictor, const float *features, const float *mirrored, const int64_t *labels,
                    const uint64_t *keys, size_t n);

/* ---- predictor/statistics.c ---- */

/* Zero matrices, and memory for num components; out->num stays 0. */
dlora_status dli_statistics_new(const dlora_predictor *predictor, struct dli_statistics *out, size_t num);
void dli_statistics_free(const dlora_predictor *predictor, struct dli_statistics *statistics);
/* *out: a copy, with symmetric matrices. */
dlora_status dli_statistics_copy(const dlora_predictor *predictor, struct dli_statistics *out,
                                 const struct dli_statistics *statistics);
/* Adds checked features [n, dim] to task `task`, which must be the last one. mirrored: the same array, or the second
 * views [n, dim]; each image then enters with half of either view. Only lower triangles are valid afterwards. */
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
/* C of a range of columns, as the lower triangle of covariance [columns, columns], and the a_i added to its diagonal,
 * raised [columns]. */
void dli_statistics_covariance(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                               const double *centre, size_t first, size_t columns, double *covariance, double *raised);
/* N - K, degrees of freedom of the scatter, at least 1. */
double dli_statistics_degrees(const struct dli_statistics *statistics);

/* ---- predictor/readout.c ---- */

void dli_readout_free(const dlora_predictor *predictor, struct dli_readout *readout);
/* Computes *out from statistics with symmetric matrices. with_ridge false: without the random projection's weights. */
dlora_status dli_readout_build(const dlora_predictor *predictor, struct dli_readout *out,
                               const struct dli_statistics *statistics, bool with_ridge);
/* Most rows of one call of dli_readout_score. */
#define DLI_SCORE_ROWS 128
/* Doubles of scratch for `rows` rows, at most DLI_SCORE_ROWS. */
size_t dli_readout_scratch(const dlora_predictor *predictor, const struct dli_statistics *statistics, size_t rows);
/* Scores [rows, num] and unknown scores [rows] (either may be NULL) of features [rows, dim]. */
void dli_readout_score(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                       const struct dli_readout *readout, const float *features, size_t rows, double *scratch,
                       double *scores, double *unknown);
/* Ridge outputs lie around [0, 1]. Times this they are as sharp as logits: with the default temperature 2 the posterior
 * is softmax(10 output), and temperatures in [0.05, 100] cover every useful sharpness. */
#define DLI_RIDGE_SCALE 20.0
/* *out: Cholesky factor [random_features, random_features] of the ridge regression's matrix. */
dlora_status dli_ridge_factor(const dlora_predictor *predictor, const struct dli_statistics *statistics, double **out);
/* x [rows, dim] -> relu(x R) [rows, random_features]. */
void dli_random_project(const dlora_predictor *predictor, const double *x, size_t rows, double *projected);

/* ---- predictor/leave_one_out.c ---- */

/* Scores of leave-one-out features: each by the statistics without it. */
struct dli_left_out {
  size_t count;     /* features whose component has others */
  double *scores;   /* [count, num] */
  double *unknown;  /* [count] */
  size_t *expected; /* [count] column of the true class */
};
void dli_left_out_free(const dlora_predictor *predictor, struct dli_left_out *out);
/* rows: features of task `task` that are part of the statistics, from which readout was made. Features without another
 * one of their component are skipped, and so are classes that the task does not have. */
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
/* log p(c | z) of the mixture of two softmaxes. scaled: (score - largest score of the row) / T. log_sum: log of the sum
 * of exp(scaled) over the row, divided by 1 - beta. log_broad_sum: that of exp(scaled / kappa), divided by beta. */
double dli_log_posterior(double scaled, double log_sum, double log_broad_sum);
/* Fills entry `task`: T_t, q_t and unknown scores from the held-out and sampled features of the open task, which are
 * part of the statistics. readout was made from these. METHOD.md 7.2. */
dlora_status dli_calibration_fit(const dlora_predictor *predictor, struct dli_calibration *calibration, size_t task,
                                 const struct dli_statistics *statistics, const struct dli_readout *readout);
/* T of a readout of these statistics: log T = log q + weighted mean over tasks t of log T_t - log q_t, with weights
 * omega_t = f_t (K_t - 1). 0 without any weight. METHOD.md 7.1. */
double dli_calibration_temperature(const struct dli_calibration *calibration, const struct dli_statistics *statistics,
                                   const struct dli_readout *readout, size_t num_tasks);
/* log q of the readout, bounded from below. */
double dli_calibration_log_separation(const struct dli_readout *readout);
/* Threshold of the unknown score, +infinity without scores. Error: NO_MEMORY. */
dlora_status dli_calibration_threshold(const dlora_predictor *predictor, const struct dli_calibration *calibration,
                                       size_t num_tasks, double quantile, double *threshold);

/* ---- predictor/posterior.c ---- */

/* Scores [num] of one image become log p(c | z) of the components, in place. METHOD.md 7.1. */
void dli_normalise_components(double *components, size_t num, double temperature, double broad_weight);

/* ---- predictor/blend.c ---- */

/* What a predictor would say of features of its open task if the task were finished without them. */
struct dli_judgement {
  struct dli_left_out left_out; /* scores: log p(c | z) */
  size_t num;
  int64_t *tasks, *classes; /* [num] of the components */
  int64_t *expected;        /* [left_out.count] true classes */
};
void dli_judgement_free(const dlora_predictor *predictor, struct dli_judgement *judgement);

/* ---- predictor/predictor.c ---- */

/* rows: features that the open task has observed. */
dlora_status dli_predictor_judge(const dlora_predictor *predictor, const struct dli_rows *rows,
                                 struct dli_judgement *out);

/* Refuses features [n, dim] that are NULL, empty, too many or not finite. */
dlora_status dli_check_features(const char *function, const char *name, const float *features, size_t n, size_t dim);
/* To float32; values beyond its range become the largest float. */
float dli_to_float(double value);
/* An empty predictor with the random projection of its seed. options: as dli_options_read gives them. */
dlora_status dli_predictor_new(dlora_predictor **out, const char *function, size_t dim,
                               const dlora_predictor_options *options);

#endif
