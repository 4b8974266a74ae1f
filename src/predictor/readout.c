/* The readout: scores of components by equation (3) or ridge regression, and the unknown score. METHOD.md 7.1.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Building, once for each change of the statistics:
 *
 *   1. Classes are numbered in order of first appearance.
 *   2. C = L L^T by Cholesky, with mu, from the shrunk scatter (statistics.c).
 *   3. weight_c = C^-1 (mu_c - mu), bias_c = -1/2 (mu_c - mu)^T weight_c, and q, the mean of -2 bias_c.
 *   4. For the unknown score, with U of columns sqrt(n_c / N) (mu_c - mu): the factor of I + U^T C^-1 U; with at least
 *      as many components as columns, that of E = C + U U^T instead.
 *   5. offset_c: log(n_c / N) with use_prior, and the correction by eta for components of different n_c.
 *   6. With a random projection: the ridge regression of one-hot components on relu(z R).
 *
 * Scoring is then a product of rows with weight, and one triangular solve for the unknown score. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "linalg/symmetric.h"
#include "src/predictor/state.h"

/* eta: part of the noise of a mean of n_c features that its score gets back. 1 would be right for two classes; among
 * many noisy classes the largest score would win too often. METHOD.md 7.3. */
#define MEAN_NOISE 0.7
/* Least ridge: keeps a Gram matrix of thousands of columns and few rows invertible in double. */
#define LEAST_RIDGE 1e-9

void dli_readout_free(const dlora_predictor *predictor, struct dli_readout *readout) {
  const dlora_allocator *allocator = &predictor->allocator;
  dli_free(allocator, readout->ridge);
  dli_free(allocator, readout->offset);
  dli_free(allocator, readout->bias);
  dli_free(allocator, readout->weight);
  dli_free(allocator, readout->global_factor);
  dli_free(allocator, readout->between);
  dli_free(allocator, readout->root_fraction);
  dli_free(allocator, readout->factor);
  dli_free(allocator, readout->centre);
  dli_free(allocator, readout->columns);
  dli_free(allocator, readout->classes);
  *readout = (struct dli_readout){0};
}

struct class_key {
  int64_t class_id;
  size_t component;
};

static int compare_keys(const void *a, const void *b) {
  const struct class_key *x = a, *y = b;
  if (x->class_id != y->class_id) return x->class_id < y->class_id ? -1 : 1;
  return (x->component > y->component) - (x->component < y->component);
}

/* Numbers the classes in order of first appearance. Sorting keeps many classes cheap. */
static dlora_status number_classes(const dlora_predictor *predictor, struct dli_readout *out,
                                   const struct dli_statistics *statistics) {
  size_t num = statistics->num;
  struct class_key *keys = NULL;
  DLI_TRY(DLI_NEW(&predictor->allocator, keys, num));
  for (size_t i = 0; i < num; i++) keys[i] = (struct class_key){statistics->classes[i], i};
  qsort(keys, num, sizeof *keys, compare_keys);
  /* First the first component of each class, then the numbers of these. */
  for (size_t i = 0, first = 0; i < num; i++) {
    if (i == 0 || keys[i].class_id != keys[i - 1].class_id) first = keys[i].component;
    out->columns[keys[i].component] = first;
  }
  for (size_t i = 0; i < num; i++) {
    if (out->columns[i] == i) {
      out->classes[out->num_classes] = statistics->classes[i];
      out->columns[i] = out->num_classes++;
    } else {
      out->columns[i] = out->columns[out->columns[i]];
    }
  }
  dli_free(&predictor->allocator, keys);
  return DLORA_OK;
}

dlora_status dli_ridge_factor(const dlora_predictor *predictor, const struct dli_statistics *statistics, double **out) {
  size_t random = predictor->random_features;
  double *gram = NULL, level = 0.0;
  dlora_status status = DLORA_OK;
  *out = NULL;
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, gram, random * random));
  memcpy(gram, statistics->gram, random * random * sizeof *gram);
  for (size_t i = 0; i < random; i++) level += gram[i * random + i] / (double)random;
  /* Without any active feature all scores are 0, whatever the ridge. */
  level = level > 0.0 ? level * fmax(predictor->ridge, LEAST_RIDGE) : 1.0;
  for (size_t i = 0; i < random; i++) gram[i * random + i] += level;
  DLI_TRY_DONE(dli_cholesky(random, gram));
  *out = gram;
  gram = NULL;
done:
  dli_free(&predictor->allocator, gram);
  return status;
}

/* Ridge regression of one-hot components on projected features: (G + ridge mean(diag G) I) W^T = C^T. */
static dlora_status build_ridge(const dlora_predictor *predictor, struct dli_readout *out,
                                const struct dli_statistics *statistics) {
  size_t random = predictor->random_features;
  double *factor = NULL;
  DLI_TRY(DLI_NEW(&predictor->allocator, out->ridge, statistics->num * random));
  DLI_TRY(dli_ridge_factor(predictor, statistics, &factor));
  memcpy(out->ridge, statistics->cross, statistics->num * random * sizeof *out->ridge);
  dli_cholesky_solve(random, factor, out->ridge, statistics->num);
  dli_free(&predictor->allocator, factor);
  return DLORA_OK;
}

/* offsets [num] of the scores: log(n_c / N) with use_prior, plus (eta / 2) trace(C^-1 scatter / (N - K)) / n_c if the
 * n_c differ. The trace is n - trace(C^-1 diag(a_i)), for C of n columns with this Cholesky factor and raised [n] =
 * a_i. factor NULL: without the second term. */
static dlora_status fill_offsets(const dlora_predictor *predictor, const struct dli_statistics *statistics, size_t n,
                                 const double *factor, const double *raised, double *offsets) {
  double total = (double)dli_statistics_total(statistics), noise = 0.0;
  bool differ = false;
  for (size_t i = 0; factor && i < statistics->num; i++)
    differ = differ || statistics->counts[i] != statistics->counts[0];
  if (differ) {
    double trace = 0.0; /* of C^-1 diag(a_i) */
    DLI_TRY(dli_cholesky_inverse_trace(&predictor->allocator, n, factor, raised, &trace));
    noise = 0.5 * MEAN_NOISE * fmax(0.0, (double)n - trace); /* trace(C^-1 scatter / degrees) */
  }
  for (size_t i = 0; i < statistics->num; i++) {
    const double count = (double)statistics->counts[i];
    offsets[i] = noise / count + (predictor->use_prior ? log(count / total) : 0.0);
  }
  return DLORA_OK;
}

/* The factor of I + U^T C^-1 U [num, num], or of E = C + U U^T [dim, dim] where num >= dim. *covariance is C; in the
 * second case it becomes the factor. out has root_fraction, centre and weight. */
static dlora_status build_between(const dlora_predictor *predictor, struct dli_readout *out,
                                  const struct dli_statistics *statistics, double **covariance) {
  const size_t num = statistics->num, dim = predictor->dim;
  double *spread = NULL; /* [num, dim] the columns of U */
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, spread, num * dim));
  for (size_t i = 0; i < num * dim; i++) {
    spread[i] = out->root_fraction[i / dim] * (statistics->means[i] - out->centre[i % dim]);
  }
  if (num < dim) {
    DLI_TRY_DONE(DLI_NEW(&predictor->allocator, out->between, num * num));
    dli_dgemm_nt(num, num, dim, 1.0, out->weight, dim, spread, dim, 0.0, out->between, num);
    for (size_t i = 0; i < num * num; i++) {
      out->between[i] = out->root_fraction[i / num] * out->between[i] + (i % (num + 1) ? 0.0 : 1.0);
    }
    DLI_TRY_DONE(dli_cholesky(num, out->between));
  } else {
    dli_add_gram_lower(spread, num, dim, *covariance);
    DLI_TRY_DONE(dli_cholesky(dim, *covariance));
    out->global_factor = *covariance;
    *covariance = NULL;
  }
done:
  dli_free(&predictor->allocator, spread);
  return status;
}

dlora_status dli_readout_build(const dlora_predictor *predictor, struct dli_readout *out,
                               const struct dli_statistics *statistics, bool with_ridge) {
  const dlora_allocator *allocator = &predictor->allocator;
  size_t num = statistics->num, dim = predictor->dim;
  struct dli_readout readout = {0};
  double *covariance = NULL, *raised = NULL;
  dlora_status status = DLORA_OK;
  *out = (struct dli_readout){0};
  if (num == 0) return DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, readout.classes, num));
  DLI_TRY_DONE(DLI_NEW(allocator, readout.columns, num));
  DLI_TRY_DONE(DLI_NEW(allocator, readout.centre, dim));
  DLI_TRY_DONE(DLI_NEW(allocator, readout.factor, dim * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, covariance, dim * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, raised, dim));
  DLI_TRY_DONE(DLI_NEW(allocator, readout.root_fraction, num));
  DLI_TRY_DONE(DLI_NEW(allocator, readout.weight, num * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, readout.bias, num));
  DLI_TRY_DONE(DLI_NEW(allocator, readout.offset, num));
  DLI_TRY_DONE(number_classes(predictor, &readout, statistics));
  dli_statistics_centre(predictor, statistics, readout.centre);
  dli_statistics_covariance(predictor, statistics, readout.centre, 0, dim, covariance, raised);
  memcpy(readout.factor, covariance, dim * dim * sizeof *covariance);
  DLI_TRY_DONE(dli_cholesky(dim, readout.factor));

  const double total = (double)dli_statistics_total(statistics);
  for (size_t i = 0; i < num * dim; i++) readout.weight[i] = statistics->means[i] - readout.centre[i % dim];
  dli_cholesky_solve(dim, readout.factor, readout.weight, num);
  for (size_t i = 0; i < num; i++) {
    double square = 0.0;
    for (size_t j = 0; j < dim; j++) {
      square += readout.weight[i * dim + j] * (statistics->means[i * dim + j] - readout.centre[j]);
    }
    readout.bias[i] = -0.5 * square;
    readout.root_fraction[i] = sqrt((double)statistics->counts[i] / total);
    readout.separation += square / (double)num;
  }
  if (predictor->random_features > 0) readout.separation = 1.0; /* ridge outputs have one scale */
  DLI_TRY_DONE(build_between(predictor, &readout, statistics, &covariance));
  DLI_TRY_DONE(fill_offsets(predictor, statistics, dim, predictor->random_features > 0 ? NULL : readout.factor, raised,
                            readout.offset));
  if (with_ridge && predictor->random_features > 0) DLI_TRY_DONE(build_ridge(predictor, &readout, statistics));
  *out = readout;
  readout = (struct dli_readout){0};
done:
  dli_free(allocator, raised);
  dli_free(allocator, covariance);
  dli_readout_free(predictor, &readout);
  return status;
}

size_t dli_readout_scratch(const dlora_predictor *predictor, const struct dli_statistics *statistics, size_t rows) {
  if (rows > DLI_SCORE_ROWS) rows = DLI_SCORE_ROWS;
  return rows * (2 * predictor->dim + predictor->random_features + statistics->num + 2);
}

/* distances [rows] = |L^-1 x|^2 of each row of x [rows, n], which becomes L^-1 x. */
static void mahalanobis(const double *factor, double *x, size_t rows, size_t n, double *distances) {
  dli_cholesky_forward(n, factor, x, rows);
  for (size_t i = 0; i < rows; i++) {
    double sum = 0.0;
    for (size_t j = 0; j < n; j++) sum += x[i * n + j] * x[i * n + j];
    distances[i] = sum;
  }
}

/*   1. With a random projection, scores are 20 relu(z R) W^T.
 *   2. x = z - mu, and x weight^T + bias: the Gaussian readout's scores, and the basis of the unknown score.
 *   3. Scores get their offsets.
 *   4. unknown = s^T (I + U^T C^-1 U)^-1 s - 2 max score, with s = U^T C^-1 x read from the Gaussian scores; with the
 *      factor of E, |L^-1 x|^2 - x^T E^-1 x - 2 max score. */
void dli_readout_score(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                       const struct dli_readout *readout, const float *features, size_t rows, double *scratch,
                       double *scores, double *unknown) {
  size_t dim = predictor->dim, num = statistics->num, random = predictor->random_features;
  double *x = scratch, *solved = x + rows * dim, *projected = solved + rows * dim,
         *gaussian = projected + rows * random, *best = gaussian + rows * num, *whole = best + rows;
  if (scores && random > 0) {
    for (size_t i = 0; i < rows * dim; i++) x[i] = (double)features[i];
    dli_random_project(predictor, x, rows, projected);
    dli_dgemm_nt(rows, num, random, DLI_RIDGE_SCALE, projected, random, readout->ridge, random, 0.0, scores, num);
  }
  for (size_t i = 0; i < rows * dim; i++) x[i] = (double)features[i] - readout->centre[i % dim];
  if (unknown || random == 0) {
    for (size_t i = 0; i < rows * num; i++) gaussian[i] = readout->bias[i % num];
    dli_dgemm_nt(rows, num, dim, 1.0, x, dim, readout->weight, dim, 1.0, gaussian, num);
  }
  if (scores && random == 0) memcpy(scores, gaussian, rows * num * sizeof *scores);
  if (scores) {
    for (size_t i = 0; i < rows * num; i++) scores[i] += readout->offset[i % num];
  }
  if (!unknown) return;
  /* d_C(z, mu_c) = |L^-1 x|^2 - 2 score_c, and by Woodbury d_E(z, mu) = |L^-1 x|^2 - s^T (I + U^T C^-1 U)^-1 s. */
  for (size_t i = 0; i < rows; i++) {
    double *row = gaussian + i * num;
    best[i] = row[0];
    for (size_t j = 1; j < num; j++) best[i] = row[j] > best[i] ? row[j] : best[i];
    for (size_t j = 0; j < num; j++) row[j] = readout->root_fraction[j] * (row[j] - readout->bias[j]);
  }
  if (readout->between) {
    mahalanobis(readout->between, gaussian, rows, num, unknown);
    for (size_t i = 0; i < rows; i++) unknown[i] -= 2.0 * best[i];
    return;
  }
  memcpy(solved, x, rows * dim * sizeof *solved);
  mahalanobis(readout->factor, solved, rows, dim, unknown);
  mahalanobis(readout->global_factor, x, rows, dim, whole);
  for (size_t i = 0; i < rows; i++) unknown[i] -= 2.0 * best[i] + whole[i];
}

/* Equation (3) on a range of columns, without the shift by mu: weight_c = C^-1 mu_c, bias_c = offset_c - 1/2 mu_c^T
 * C^-1 mu_c, from statistics that may include the open task. */
dlora_status dlora_predictor_linear_weights(const dlora_predictor *predictor, size_t first_column, size_t columns,
                                            int32_t include_open, float *weight, float *bias) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(weight);
  DLI_REQUIRE(bias);
  if (columns == 0 || first_column >= predictor->dim || columns > predictor->dim - first_column) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: columns %zu ... + %zu are not among the predictor's %zu", __func__,
                     first_column, columns, predictor->dim);
  }
  const struct dli_statistics nothing = {0};
  size_t dim = predictor->dim;
  struct dli_statistics statistics;
  double *centre = NULL, *covariance = NULL, *raised = NULL, *solved = NULL, *offsets = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY(dli_statistics_join(predictor, &statistics, &predictor->finished, include_open ? &predictor->open : &nothing,
                              (int64_t)predictor->num_tasks, false));
  if (statistics.num == 0) {
    status = dli_raise(DLORA_ERR_STATE, "%s: nothing was learned yet; call dlora_predictor_observe first", __func__);
    goto done;
  }
  size_t num = statistics.num;
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, centre, dim));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, covariance, columns * columns));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, raised, columns));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, solved, num * columns));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, offsets, num));
  dli_statistics_centre(predictor, &statistics, centre);
  dli_statistics_covariance(predictor, &statistics, centre, first_column, columns, covariance, raised);
  DLI_TRY_DONE(dli_cholesky(columns, covariance));
  for (size_t i = 0; i < num; i++) {
    memcpy(solved + i * columns, statistics.means + i * dim + first_column, columns * sizeof *solved);
  }
  dli_cholesky_solve(columns, covariance, solved, num);
  DLI_TRY_DONE(fill_offsets(predictor, &statistics, columns, covariance, raised, offsets));
  for (size_t i = 0; i < num; i++) {
    double square = 0.0;
    for (size_t j = 0; j < columns; j++) {
      square += solved[i * columns + j] * statistics.means[i * dim + first_column + j];
      weight[i * columns + j] = dli_to_float(solved[i * columns + j]);
    }
    bias[i] = dli_to_float(offsets[i] - 0.5 * square);
  }
done:
  dli_free(&predictor->allocator, offsets);
  dli_free(&predictor->allocator, solved);
  dli_free(&predictor->allocator, raised);
  dli_free(&predictor->allocator, covariance);
  dli_free(&predictor->allocator, centre);
  dli_statistics_free(predictor, &statistics);
  return status;
}
