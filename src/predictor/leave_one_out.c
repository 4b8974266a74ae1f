/* Scores of features as if each had never been observed, in closed form. METHOD.md 7.2.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An image of component c, which has n features, is part of the statistics with half of either view: the mean of its
 * views enters mu_c, half their difference d the scatter. Let r be the mean of the views minus mu_c. Without the image
 *
 *   mu_c      becomes mu_c - r / (n - 1)
 *   scatter   loses n / (n - 1) r r^T and d d^T
 *   C^-1 = V  becomes V + a u u^T + b v v^T  by Sherman and Morrison, with
 *               u = V r,               h = r^T u,   k = n / (n - 1) / (N - K),   a = k / (1 - k h)
 *               v = (V + a u u^T) d,   g = d^T v,   l = 1 / (N - K),             b = l / (1 - l g)
 *
 * and d = 0 for a single view. The score is that of the first view z. The unknown score compares d_C with d_E, where
 * E = C + U U^T and N U U^T is the scatter of the means around mu. With g the mean of the views minus mu, without the
 * image
 *
 *   mu        becomes mu - g / (N - 1)
 *   N U U^T   becomes N U U^T - N / (N - 1) g g^T + n / (n - 1) r r^T
 *   E         becomes E - (k - n / (n - 1) / N) r r^T - l d d^T - 1 / (N - 1) g g^T
 *
 * Degrees of freedom, the a_i of the shrinkage and the divisor N stay unchanged. For a block of images:
 *
 *   1. x = z - mu, r and d, and three solves for V x, V r and V d.
 *   2. Products with the readout's weights: z, r and d against C^-1 (mu_c - mu) of all components.
 *   3. For each image the scalars above, and its Gaussian scores without it (leave_out_gaussian).
 *   4. The unknown score, from the inner products of x, r and d by E^-1 (add_distances).
 *   5. With a random projection, the ridge outputs without it (leave_out_ridge).
 *
 * Afterwards every row gets the offsets of the readout, and the score of c the noise of its smaller mean. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "linalg/symmetric.h"
#include "src/predictor/state.h"

/* Least 1 - k h, the fraction of a variance that stays without one feature: below it there is rounding. */
#define LEAST_REMAINDER 1e-12

void dli_left_out_free(const dlora_predictor *predictor, struct dli_left_out *out) {
  dli_free(&predictor->allocator, out->expected);
  dli_free(&predictor->allocator, out->unknown);
  dli_free(&predictor->allocator, out->scores);
  *out = (struct dli_left_out){0};
}

/* x, r and d of one image. */
enum { X, R, D, NUM_DIRECTIONS };

/* The scalars of one image, as above; uz = u^T x, vz = v^T x, vr = v^T r. */
struct terms {
  double n, k, h, a, uz;
  double l, b, vz, vr;
  double step;                                     /* v = V d + step u */
  double products[NUM_DIRECTIONS][NUM_DIRECTIONS]; /* inner products by V */
};

/* Scratch for DLI_SCORE_ROWS images; every array is [rows, ...]. */
struct block {
  double *memory;
  struct terms *terms;
  double *z, *y;         /* [dim] x, and V x */
  double *r, *d;         /* [dim] mean of the views minus mu_c, half their difference */
  double *u, *v;         /* [dim] */
  double *scores;        /* [num] (z - mu)^T weight + bias */
  double *along, *aside; /* [num] u^T and v^T times (mu_c - mu) */
  double *spread;        /* [num] U^T V x */
  double *other;         /* [num] ridge outputs of the second view, with a random projection */
  double *projected;     /* [2, random_features] relu(z R) of both views */
  double *solved;        /* [2, random_features] the same, solved by the ridge regression's factor */
};

/* The caller frees the memory and the terms, also after a failure. */
static dlora_status block_new(const dlora_predictor *predictor, size_t rows, size_t num, struct block *block) {
  const size_t dim = predictor->dim, random = predictor->random_features;
  size_t values = 0;
  if (!dli_multiply(&values, rows, 6 * dim + (random > 0 ? 5 : 4) * num + 4 * random)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for scores of %zu features", rows);
  }
  DLI_TRY(DLI_NEW(&predictor->allocator, block->terms, rows));
  DLI_TRY(DLI_NEW(&predictor->allocator, block->memory, values));
  block->z = block->memory;
  block->y = block->z + rows * dim;
  block->r = block->y + rows * dim;
  block->d = block->r + rows * dim;
  block->u = block->d + rows * dim;
  block->v = block->u + rows * dim;
  block->scores = block->v + rows * dim;
  block->along = block->scores + rows * num;
  block->aside = block->along + rows * num;
  block->spread = block->aside + rows * num;
  block->other = block->spread + rows * num;
  block->projected = block->other + (random > 0 ? rows * num : 0);
  block->solved = block->projected + 2 * rows * random;
  return DLORA_OK;
}

static double dot(const double *a, const double *b, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* The component of a label in the task, or num. */
static size_t find_component(const struct dli_statistics *statistics, size_t task, int64_t label) {
  size_t i = 0;
  while (i < statistics->num && (statistics->tasks[i] != (int64_t)task || statistics->classes[i] != label)) i++;
  return i;
}

/* scores [num] of one image of component c become those without it. */
static void leave_out_gaussian(const struct dli_readout *readout, size_t num, size_t c, const struct terms *t,
                               const double *along, const double *aside, double *scores) {
  const double of_c = scores[c] - readout->bias[c], rest = t->n - 1.0;
  for (size_t j = 0; j < num; j++) {
    scores[j] += t->a * along[j] * (t->uz - 0.5 * along[j]) + t->b * aside[j] * (t->vz - 0.5 * aside[j]);
  }
  /* mu - r / (n - 1) in place of mu */
  const double along_c = along[c] - t->h / rest, aside_c = aside[c] - t->vr / rest;
  const double square = -2.0 * readout->bias[c] - (2.0 * along[c] - t->h / rest) / rest;
  scores[c] = of_c - t->uz / rest - 0.5 * square + t->a * along_c * (t->uz - 0.5 * along_c) +
              t->b * aside_c * (t->vz - 0.5 * aside_c);
}

/* The square of x' by the inverse of E without the image (see above). products: inner products of x, r and d by E^-1.
 * With x' = x + g / (N - 1) and g = x - d the four vectors x', r, d and g span all of it. Each of the last three adds a
 * weight times its outer product to E, which changes all inner products by Sherman and Morrison. */
static double distance_without(const double products[NUM_DIRECTIONS][NUM_DIRECTIONS], const struct terms *t,
                               double total) {
  const double rest = total - 1.0;
  const double made_of[4][NUM_DIRECTIONS] = {
      {1.0 + 1.0 / rest, 0.0, -1.0 / rest}, {0.0, 1.0, 0.0}, {0.0, 0.0, 1.0}, {1.0, 0.0, -1.0}};
  const double weights[4] = {0.0, t->n / (t->n - 1.0) / total - t->k, -t->l, -1.0 / rest};
  double gram[4][4] = {{0.0}};
  for (size_t i = 0; i < 4; i++) {
    for (size_t j = 0; j < 4; j++) {
      for (size_t k = 0; k < NUM_DIRECTIONS * NUM_DIRECTIONS; k++) {
        const size_t a = k / NUM_DIRECTIONS, b = k % NUM_DIRECTIONS;
        gram[i][j] += made_of[i][a] * made_of[j][b] * products[a][b];
      }
    }
  }
  for (size_t k = 1; k < 4; k++) {
    const double factor = weights[k] / fmax(1.0 + weights[k] * gram[k][k], LEAST_REMAINDER);
    double row[4];
    memcpy(row, gram[k], sizeof row);
    for (size_t i = 0; i < 4; i++) {
      for (size_t j = 0; j < 4; j++) gram[i][j] -= factor * row[i] * row[j];
    }
  }
  return gram[0][0];
}

/* unknown [rows] += square of x by V without the image, less the distance d_E without it. By E^-1 the inner product of
 * p and q is p^T V q - (U^T V p)^T (I + U^T V U)^-1 U^T V q. Destroys z, r, d, along, aside and spread. */
static void add_distances(const dlora_predictor *predictor, const struct dli_readout *readout, size_t num, size_t rows,
                          double total, const struct terms *terms, struct block *b, double *unknown) {
  const size_t width = readout->between ? num : predictor->dim;
  double *const roots[NUM_DIRECTIONS] = {readout->between ? b->spread : b->z, readout->between ? b->along : b->r,
                                         readout->between ? b->aside : b->d};
  if (readout->between) {
    for (size_t i = 0; i < rows * num; i++) {
      b->aside[i] -= terms[i / num].step * b->along[i]; /* of d again, not of v */
      b->aside[i] *= readout->root_fraction[i % num];
    }
    for (size_t i = 0; i < rows * num; i++) b->along[i] *= readout->root_fraction[i % num];
  }
  for (size_t a = 0; a < NUM_DIRECTIONS; a++) {
    dli_cholesky_forward(width, readout->between ? readout->between : readout->global_factor, roots[a], rows);
  }
  for (size_t i = 0; i < rows; i++) {
    const struct terms *t = &terms[i];
    double products[NUM_DIRECTIONS][NUM_DIRECTIONS];
    for (size_t k = 0; k < NUM_DIRECTIONS * NUM_DIRECTIONS; k++) {
      const size_t p = k / NUM_DIRECTIONS, q = k % NUM_DIRECTIONS;
      const double by_roots = dot(roots[p] + i * width, roots[q] + i * width, width);
      products[p][q] = readout->between ? t->products[p][q] - by_roots : by_roots;
    }
    unknown[i] += t->products[X][X] + t->a * t->uz * t->uz + t->b * t->vz * t->vz;
    unknown[i] -= distance_without((const double(*)[NUM_DIRECTIONS])products, t, total);
  }
}

/* One block of images: components, and features of both views. */
struct batch {
  size_t count;
  size_t components[DLI_SCORE_ROWS];
  const float *features[DLI_SCORE_ROWS];
  const float *mirrored[DLI_SCORE_ROWS];
};

/* Ridge outputs without the image. Let p and q be relu(z R) of its views, y and y' their outputs, e the one-hot
 * component and H [2, 2] half the inner products of p and q by the inverse of the regression's matrix. With (c, c') =
 * (H_pp, H_pq) (I - H)^-1 the output of p becomes y - c (e - y) - c' (e - y'). For equal views this is (y - h e) / (1 -
 * h), h = 2 H_pp. */
static void leave_out_ridge(const dlora_predictor *predictor, const struct dli_readout *readout,
                            const double *ridge_factor, const struct batch *batch, size_t num, struct block *b,
                            double *scores) {
  const size_t dim = predictor->dim, random = predictor->random_features, rows = batch->count;
  for (size_t i = 0; i < rows * dim; i++) {
    b->z[i] = (double)batch->features[i / dim][i % dim];
    b->r[i] = (double)batch->mirrored[i / dim][i % dim];
  }
  dli_random_project(predictor, b->z, rows, b->projected);
  dli_random_project(predictor, b->r, rows, b->projected + rows * random);
  memcpy(b->solved, b->projected, 2 * rows * random * sizeof *b->solved);
  dli_cholesky_forward(random, ridge_factor, b->solved, 2 * rows);
  dli_dgemm_nt(rows, num, random, DLI_RIDGE_SCALE, b->projected, random, readout->ridge, random, 0.0, scores, num);
  dli_dgemm_nt(rows, num, random, DLI_RIDGE_SCALE, b->projected + rows * random, random, readout->ridge, random, 0.0,
               b->other, num);
  for (size_t i = 0; i < rows; i++) {
    const double *p = b->solved + i * random, *q = p + rows * random;
    const double pp = 0.5 * dot(p, p, random), pq = 0.5 * dot(p, q, random), qq = 0.5 * dot(q, q, random);
    const double determinant = fmax((1.0 - pp) * (1.0 - qq) - pq * pq, LEAST_REMAINDER);
    const double first = (pp * (1.0 - qq) + pq * pq) / determinant, second = pq / determinant;
    const double *y_other = b->other + i * num;
    double *y = scores + i * num;
    for (size_t j = 0; j < num; j++) y[j] += first * y[j] + second * y_other[j];
    y[batch->components[i]] -= DLI_RIDGE_SCALE * (first + second);
  }
}

/* Inner products by V; h and uz are set. */
static void set_products(struct terms *t, double xx, double rd, double xd, double dd) {
  const double products[NUM_DIRECTIONS][NUM_DIRECTIONS] = {{xx, t->uz, xd}, {t->uz, t->h, rd}, {xd, rd, dd}};
  memcpy(t->products, products, sizeof products);
}

/* Steps 1 to 5 above for one batch. scores [count, num]; unknown [count]; own [count]: square of the distance from the
 * mean of the views to mu_c, both without the image. */
static void leave_out(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                      const struct dli_readout *readout, const double *ridge_factor, const struct batch *batch,
                      struct block *b, double *scores, double *unknown, double *own) {
  const size_t dim = predictor->dim, num = statistics->num, rows = batch->count;
  const double degrees = dli_statistics_degrees(statistics), total = (double)dli_statistics_total(statistics);
  struct terms *terms = b->terms;
  for (size_t i = 0; i < rows; i++) {
    const double *mean = statistics->means + batch->components[i] * dim;
    for (size_t j = 0; j < dim; j++) {
      const double first = (double)batch->features[i][j], second = (double)batch->mirrored[i][j];
      b->z[i * dim + j] = b->y[i * dim + j] = first - readout->centre[j];
      b->r[i * dim + j] = b->u[i * dim + j] = 0.5 * (first + second) - mean[j];
      b->d[i * dim + j] = b->v[i * dim + j] = 0.5 * (first - second);
    }
  }
  dli_cholesky_solve(dim, readout->factor, b->y, rows);
  dli_cholesky_solve(dim, readout->factor, b->u, rows);
  dli_cholesky_solve(dim, readout->factor, b->v, rows);
  for (size_t i = 0; i < rows * num; i++) b->scores[i] = readout->bias[i % num];
  dli_dgemm_nt(rows, num, dim, 1.0, b->z, dim, readout->weight, dim, 1.0, b->scores, num);
  dli_dgemm_nt(rows, num, dim, 1.0, b->r, dim, readout->weight, dim, 0.0, b->along, num);
  dli_dgemm_nt(rows, num, dim, 1.0, b->d, dim, readout->weight, dim, 0.0, b->aside, num);
  for (size_t i = 0; i < rows; i++) {
    const size_t c = batch->components[i];
    const double *x = b->z + i * dim, *r = b->r + i * dim, *d = b->d + i * dim, *u = b->u + i * dim;
    double *v = b->v + i * dim, *along = b->along + i * num, *aside = b->aside + i * num;
    double *row = b->scores + i * num, *spread = b->spread + i * num;
    struct terms *t = &terms[i];
    t->n = (double)statistics->counts[c];
    t->h = dot(r, u, dim);
    t->uz = dot(x, u, dim);
    set_products(t, dot(x, b->y + i * dim, dim), dot(r, v, dim), dot(x, v, dim), dot(d, v, dim));
    t->k = t->n / (t->n - 1.0) / degrees;
    t->a = t->k / fmax(1.0 - t->k * t->h, LEAST_REMAINDER);
    t->l = 1.0 / degrees;
    t->step = t->a * t->products[R][D];
    for (size_t j = 0; j < dim; j++) v[j] += t->step * u[j];
    for (size_t j = 0; j < num; j++) aside[j] += t->step * along[j];
    t->b = t->l / fmax(1.0 - t->l * dot(d, v, dim), LEAST_REMAINDER);
    t->vz = dot(x, v, dim);
    t->vr = dot(r, v, dim);
    own[i] = t->n / (t->n - 1.0) * (t->n / (t->n - 1.0)) * (t->h + t->a * t->h * t->h + t->b * t->vr * t->vr);
    for (size_t j = 0; j < num; j++) spread[j] = readout->root_fraction[j] * (row[j] - readout->bias[j]);
    leave_out_gaussian(readout, num, c, t, along, aside, row);
    double best = row[0];
    for (size_t j = 1; j < num; j++) best = row[j] > best ? row[j] : best;
    unknown[i] = -2.0 * best;
  }
  add_distances(predictor, readout, num, rows, total, terms, b, unknown);
  if (ridge_factor) {
    leave_out_ridge(predictor, readout, ridge_factor, batch, num, b, scores);
  } else {
    memcpy(scores, b->scores, rows * num * sizeof *scores);
  }
}

dlora_status dli_leave_one_out(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                               const struct dli_readout *readout, size_t task, const struct dli_rows *rows,
                               struct dli_left_out *out) {
  const dlora_allocator *allocator = &predictor->allocator;
  const size_t num = statistics->num, dim = predictor->dim;
  struct dli_left_out left_out = {0};
  struct block block = {0};
  struct batch batch = {0};
  size_t *components = NULL, values = 0;
  double *ridge_factor = NULL, *own = NULL, noise = 0.0;
  dlora_status status = DLORA_OK;
  *out = left_out;
  if (rows->count == 0) return DLORA_OK;
  if (!dli_multiply(&values, rows->count, num)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for scores of %zu features", rows->count);
  }
  DLI_TRY_DONE(DLI_NEW(allocator, left_out.scores, values));
  DLI_TRY_DONE(DLI_NEW(allocator, left_out.unknown, rows->count));
  DLI_TRY_DONE(DLI_NEW(allocator, left_out.expected, rows->count));
  DLI_TRY_DONE(DLI_NEW(allocator, components, rows->count));
  DLI_TRY_DONE(DLI_NEW(allocator, own, rows->count));
  DLI_TRY_DONE(block_new(predictor, rows->count < DLI_SCORE_ROWS ? rows->count : DLI_SCORE_ROWS, num, &block));
  if (predictor->random_features > 0) DLI_TRY_DONE(dli_ridge_factor(predictor, statistics, &ridge_factor));
  for (size_t i = 0; i < rows->count; i++) {
    const size_t c = find_component(statistics, task, rows->labels[i]);
    if (c < num && statistics->counts[c] > 1) {
      components[left_out.count] = batch.components[batch.count] = c;
      batch.features[batch.count] = rows->features + i * dim;
      batch.mirrored[batch.count++] = rows->mirrored + i * dim;
      left_out.expected[left_out.count++] = readout->columns[c];
    }
    if (batch.count == DLI_SCORE_ROWS || (batch.count > 0 && i + 1 == rows->count)) {
      const size_t first = left_out.count - batch.count;
      leave_out(predictor, statistics, readout, ridge_factor, &batch, &block, left_out.scores + first * num,
                left_out.unknown + first, own + first);
      batch.count = 0;
    }
  }
  /* nu: mean over the features of e (1 - 1 / n_c), e being `own`. The mean of c has one feature less here than in the
   * scores to be calibrated; its additional noise, nu (1 / (n_c - 1) - 1 / n_c), is given back to its score. */
  for (size_t i = 0; i < left_out.count; i++) {
    const double n = (double)statistics->counts[components[i]];
    noise += own[i] * (n - 1.0) / n / (double)left_out.count;
  }
  for (size_t i = 0; i < left_out.count; i++) {
    const double n = (double)statistics->counts[components[i]];
    double *row = left_out.scores + i * num;
    for (size_t j = 0; j < num; j++) row[j] += readout->offset[j];
    if (!ridge_factor) row[components[i]] += 0.5 * noise / (n * (n - 1.0));
  }
  *out = left_out;
  left_out = (struct dli_left_out){0};
done:
  dli_free(allocator, ridge_factor);
  dli_free(allocator, block.memory);
  dli_free(allocator, block.terms);
  dli_free(allocator, own);
  dli_free(allocator, components);
  dli_left_out_free(predictor, &left_out);
  return status;
}
