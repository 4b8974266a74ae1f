/* What the readout would say of a feature had it not been observed: closed forms, so that nothing is factorised again
 * and no feature need be kept from the statistics. docs/METHOD.md 7.
 *
 * Without z of component c, which has n features and the mean mu, r = z - mu: the mean becomes mu - r / (n - 1), and
 * the scatter loses n / (n - 1) r r^T. So C^-1 = P becomes P + a u u^T with u = P r, k = n / (n - 1) / degrees, h = r.u
 * and a = k / (1 - k h). The degrees of freedom, the shrinkage's level, the centre and the covariance of the means
 * around it stay what they are. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "linalg/symmetric.h"
#include "src/predictor_state.h"

/* Least share of itself that a variance keeps without one feature: below it there is rounding. */
#define LEAST_SHARE 1e-12

void dli_left_out_free(const dlora_predictor *predictor, struct dli_left_out *out) {
  dli_free(&predictor->allocator, out->expected);
  dli_free(&predictor->allocator, out->unknown);
  dli_free(&predictor->allocator, out->scores);
  *out = (struct dli_left_out){0};
}

/* Scratch for DLI_SCORE_ROWS features; the fields are [rows, ...]. */
struct block {
  double *memory;
  double *z;         /* [dim] less the centre */
  double *r;         /* [dim] less the component's mean */
  double *u;         /* [dim] P r */
  double *scores;    /* [num] weight.z + bias */
  double *along;     /* [num] weight.r */
  double *spread;    /* [num] what readout->between is of, of z without the feature */
  double *projected; /* [random_features]; and solved by the ridge regression's factor */
  double *solved;
};

static dlora_status block_new(const dlora_predictor *predictor, size_t rows, size_t num, struct block *block) {
  const size_t dim = predictor->dim, random = predictor->random_features;
  size_t values = 0;
  if (!dli_multiply(&values, rows, 3 * dim + 3 * num + 2 * random)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for scores of %zu features", rows);
  }
  DLI_TRY(DLI_NEW(&predictor->allocator, block->memory, values));
  block->z = block->memory;
  block->r = block->z + rows * dim;
  block->u = block->r + rows * dim;
  block->scores = block->u + rows * dim;
  block->along = block->scores + rows * num;
  block->spread = block->along + rows * num;
  block->projected = block->spread + rows * num;
  block->solved = block->projected + rows * random;
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

/* One feature of component c with n features, Gaussian readout. scores: weight.z + bias -> as without it. */
static void leave_out_gaussian(const struct dli_readout *readout, size_t num, size_t c, double n, double a, double h,
                               double uz, const double *along, double *scores) {
  const double of_c = scores[c] - readout->bias[c];
  for (size_t j = 0; j < num; j++) scores[j] += a * along[j] * (uz - 0.5 * along[j]);
  /* mu - r / (n - 1) in place of mu */
  const double along_c = along[c] - h / (n - 1.0);
  const double square = -2.0 * readout->bias[c] - (2.0 * along[c] - h / (n - 1.0)) / (n - 1.0);
  scores[c] = of_c - uz / (n - 1.0) - 0.5 * square + a * along_c * (uz - 0.5 * along_c);
}

/* Adds to unknown [rows] the difference of the squares of the distances to the centre by C and by the covariance of
 * everything. a, uz: [rows] as above, k: [rows]. Destroys z, r, along and spread. */
static void add_distances(const dlora_predictor *predictor, const struct dli_readout *readout, size_t num, size_t rows,
                          const double *a, const double *k, const double *uz, struct block *b, double *unknown) {
  const size_t dim = predictor->dim;
  if (readout->between) {
    for (size_t i = 0; i < rows * num; i++) b->along[i] *= readout->share[i % num];
    dli_cholesky_forward(num, readout->between, b->spread, rows);
    dli_cholesky_forward(num, readout->between, b->along, rows);
    for (size_t i = 0; i < rows; i++) {
      const double *s = b->spread + i * num, *v = b->along + i * num, across = dot(s, v, num);
      unknown[i] += dot(s, s, num) - a[i] * across * across / (1.0 + a[i] * dot(v, v, num));
    }
    return;
  }
  memcpy(b->u, b->z, rows * dim * sizeof *b->u);
  dli_cholesky_forward(dim, readout->factor, b->u, rows);
  dli_cholesky_forward(dim, readout->global_factor, b->z, rows);
  dli_cholesky_forward(dim, readout->global_factor, b->r, rows);
  for (size_t i = 0; i < rows; i++) {
    const double *z = b->z + i * dim, *r = b->r + i * dim, *y = b->u + i * dim, across = dot(z, r, dim);
    const double whole = k[i] / fmax(1.0 - k[i] * dot(r, r, dim), LEAST_SHARE);
    unknown[i] += dot(y, y, dim) + a[i] * uz[i] * uz[i] - dot(z, z, dim) - whole * across * across;
  }
}

/* Rows of one block: those to be left out, their components and features. */
struct batch {
  size_t count;
  size_t components[DLI_SCORE_ROWS];
  const float *features[DLI_SCORE_ROWS];
};

/* scores [count, num], unknown [count], own [count]: the square of the distance to the feature's own mean. */
static void leave_out(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                      const struct dli_readout *readout, const double *ridge_factor, const struct batch *batch,
                      struct block *b, double *scores, double *unknown, double *own) {
  const size_t dim = predictor->dim, num = statistics->num, random = predictor->random_features, rows = batch->count;
  const double degrees = dli_statistics_degrees(statistics);
  double a[DLI_SCORE_ROWS], k[DLI_SCORE_ROWS], uz[DLI_SCORE_ROWS];
  for (size_t i = 0; i < rows; i++) {
    const double *mean = statistics->means + batch->components[i] * dim;
    for (size_t j = 0; j < dim; j++) {
      b->z[i * dim + j] = (double)batch->features[i][j] - readout->centre[j];
      b->r[i * dim + j] = b->u[i * dim + j] = (double)batch->features[i][j] - mean[j];
    }
  }
  dli_cholesky_solve(dim, readout->factor, b->u, rows);
  for (size_t i = 0; i < rows * num; i++) b->scores[i] = readout->bias[i % num];
  dli_dgemm_nt(rows, num, dim, 1.0, b->z, dim, readout->weight, dim, 1.0, b->scores, num);
  dli_dgemm_nt(rows, num, dim, 1.0, b->r, dim, readout->weight, dim, 0.0, b->along, num);
  for (size_t i = 0; i < rows; i++) {
    const size_t c = batch->components[i];
    const double n = (double)statistics->counts[c], *u = b->u + i * dim, *along = b->along + i * num;
    const double h = dot(b->r + i * dim, u, dim);
    double *row = b->scores + i * num, *spread = b->spread + i * num;
    uz[i] = dot(b->z + i * dim, u, dim);
    k[i] = n / (n - 1.0) / degrees;
    a[i] = k[i] / fmax(1.0 - k[i] * h, LEAST_SHARE);
    own[i] = n / (n - 1.0) * (n / (n - 1.0)) * (h + a[i] * h * h);
    for (size_t j = 0; j < num; j++) {
      spread[j] = readout->share[j] * (row[j] - readout->bias[j] + a[i] * along[j] * uz[i]);
    }
    leave_out_gaussian(readout, num, c, n, a[i], h, uz[i], along, row);
    double best = row[0];
    for (size_t j = 1; j < num; j++) best = row[j] > best ? row[j] : best;
    unknown[i] = -2.0 * best;
  }
  add_distances(predictor, readout, num, rows, a, k, uz, b, unknown);
  memcpy(scores, b->scores, rows * num * sizeof *scores);
  if (!ridge_factor) return;

  /* Ridge regression: outputs y become (y - h e) / (1 - h), e the one-hot component. */
  for (size_t i = 0; i < rows; i++) {
    for (size_t j = 0; j < dim; j++) b->z[i * dim + j] = (double)batch->features[i][j];
  }
  dli_random_project(predictor, b->z, rows, b->projected);
  memcpy(b->solved, b->projected, rows * random * sizeof *b->solved);
  dli_cholesky_forward(random, ridge_factor, b->solved, rows);
  dli_dgemm_nt(rows, num, random, DLI_RIDGE_SCALE, b->projected, random, readout->ridge, random, 0.0, scores, num);
  for (size_t i = 0; i < rows; i++) {
    const double *y = b->solved + i * random, h = dot(y, y, random), rest = fmax(1.0 - h, LEAST_SHARE);
    scores[i * num + batch->components[i]] -= DLI_RIDGE_SCALE * h;
    for (size_t j = 0; j < num; j++) scores[i * num + j] /= rest;
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
      batch.features[batch.count++] = rows->features + i * dim;
      left_out.expected[left_out.count++] = readout->columns[c];
    }
    if (batch.count == DLI_SCORE_ROWS || (batch.count > 0 && i + 1 == rows->count)) {
      const size_t first = left_out.count - batch.count;
      leave_out(predictor, statistics, readout, ridge_factor, &batch, &block, left_out.scores + first * num,
                left_out.unknown + first, own + first);
      batch.count = 0;
    }
  }
  /* A component's mean is noisier without one of few features, which lowers its scores by what the features' own
   * scatter tells; those to be calibrated are of the whole mean. */
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
  dli_free(allocator, own);
  dli_free(allocator, components);
  dli_left_out_free(predictor, &left_out);
  return status;
}
