/* Drift compensation (METHOD.md 7.1): the map (4) of features moves the means and the scatter of finished tasks.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For each part of the columns that moves:
 *
 *   1. zbar and d, means of the features before and of the differences (fit_drift).
 *   2. C_b and C_bx, scatter of the features before, and with the differences, a block of images at a time.
 *   3. R = (C_b + trace(C_b) / D I)^-1 C_bx by Cholesky. With one image, or equal ones, R = 0 and only d is known.
 *   4. Old means: mu_c += d + (mu_c - zbar) R. Old scatter: J^T scatter J with J = I + R (apply_drift).
 *
 * Then the readout is built from the moved statistics. Sums of a random projection cannot be moved and stay. */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "linalg/symmetric.h"
#include "src/predictor/predictor.h"
#include "src/predictor/state.h"

#define BLOCK_ROWS 256

/* The map z -> z + d + (z - zbar) R of `columns` columns. */
struct drift {
  double *mean;  /* zbar [columns] */
  double *shift; /* d [columns] */
  double *map;   /* R [columns, columns] */
};

static void drift_free(const dlora_predictor *predictor, struct drift *drift) {
  dli_free(&predictor->allocator, drift->map);
  dli_free(&predictor->allocator, drift->shift);
  dli_free(&predictor->allocator, drift->mean);
}

/* Steps 1 to 3. before, after: [n, columns], rows `stride` floats apart. The caller frees *drift in any case. */
static dlora_status fit_drift(const dlora_predictor *predictor, struct drift *drift, const float *before,
                              const float *after, size_t n, size_t stride, size_t columns) {
  const dlora_allocator *allocator = &predictor->allocator;
  double *covariance = NULL, *cross = NULL, *rows = NULL, level = 0.0;
  dlora_status status = DLORA_OK;
  *drift = (struct drift){0};
  DLI_TRY_DONE(DLI_NEW(allocator, drift->mean, columns));
  DLI_TRY_DONE(DLI_NEW(allocator, drift->shift, columns));
  DLI_TRY_DONE(DLI_NEW(allocator, drift->map, columns * columns));
  DLI_TRY_DONE(DLI_NEW(allocator, covariance, columns * columns));
  DLI_TRY_DONE(DLI_NEW(allocator, cross, columns * columns));
  DLI_TRY_DONE(DLI_NEW(allocator, rows, 2 * BLOCK_ROWS * columns));
  for (size_t i = 0; i < n * columns; i++) {
    const size_t at = i / columns * stride + i % columns;
    drift->mean[i % columns] += (double)before[at] / (double)n;
    drift->shift[i % columns] += ((double)after[at] - (double)before[at]) / (double)n;
  }
  for (size_t begin = 0; begin < n; begin += BLOCK_ROWS) {
    size_t count = n - begin < BLOCK_ROWS ? n - begin : BLOCK_ROWS;
    double *centred = rows, *moved = rows + BLOCK_ROWS * columns; /* [count, columns] each */
    for (size_t i = 0; i < count * columns; i++) {
      const size_t at = (begin + i / columns) * stride + i % columns;
      double x = (double)before[at], y = (double)after[at];
      centred[i] = x - drift->mean[i % columns];
      moved[i] = y - x - drift->shift[i % columns];
    }
    dli_add_gram_lower(centred, count, columns, covariance);
    dli_dgemm_tn(columns, columns, count, 1.0, moved, columns, centred, columns, 1.0, cross, columns); /* C_bx^T */
  }
  for (size_t i = 0; i < columns; i++) level += covariance[i * columns + i] / (double)columns;
  if (level > 0.0) {
    for (size_t i = 0; i < columns; i++) covariance[i * columns + i] += level;
    DLI_TRY_DONE(dli_cholesky(columns, covariance));
    dli_cholesky_solve(columns, covariance, cross, columns); /* rows of C_bx^T become those of R^T */
    for (size_t i = 0; i < columns; i++) {
      for (size_t j = 0; j < columns; j++) drift->map[i * columns + j] = cross[j * columns + i];
    }
  }
done:
  dli_free(allocator, rows);
  dli_free(allocator, cross);
  dli_free(allocator, covariance);
  return status;
}

/* Step 4 on means [num, dim] and scatter [dim, dim], for columns first ... first + columns - 1. scratch: [max(num,
 * dim), columns]. The scatter is multiplied by J from the right, then by J^T from the left, as rows. */
static void apply_drift(const struct drift *drift, size_t dim, size_t first, size_t columns, double *means, size_t num,
                        double *scatter, double *scratch) {
  for (size_t i = 0; i < num; i++) {
    for (size_t j = 0; j < columns; j++) {
      double *value = means + i * dim + first + j;
      scratch[i * columns + j] = *value - drift->mean[j];
      *value += drift->shift[j];
    }
  }
  dli_dgemm_nn(num, columns, columns, 1.0, scratch, columns, drift->map, columns, 1.0, means + first, dim);
  for (size_t i = 0; i < dim; i++) {
    memcpy(scratch + i * columns, scatter + i * dim + first, columns * sizeof *scratch);
  }
  dli_dgemm_nn(dim, columns, columns, 1.0, scratch, columns, drift->map, columns, 1.0, scatter + first, dim);
  /* (J^T A)[columns, :] = A[columns, :] + R^T A[columns, :] */
  for (size_t j = 0; j < columns; j++) {
    for (size_t i = 0; i < dim; i++) scratch[j * dim + i] = scatter[(first + j) * dim + i];
  }
  dli_dgemm_tn(columns, dim, columns, 1.0, drift->map, columns, scratch, dim, 1.0, scatter + first * dim, dim);
  dli_mirror_lower(dim, scatter);
}

dlora_status dli_predictor_compensate(dlora_predictor *predictor, const char *function, const float *before,
                                      const float *after, size_t n, size_t first_column, size_t columns, size_t part) {
  const dlora_allocator *allocator = &predictor->allocator;
  size_t dim = predictor->dim, num = predictor->finished.num;
  DLI_TRY(dli_check_features(function, "before", before, n, columns));
  DLI_TRY(dli_check_features(function, "after", after, n, columns));
  if (num == 0) return DLORA_OK; /* nothing old to move */

  struct drift drift = {0};
  struct dli_statistics moved = predictor->finished; /* borrows all but means and scatter */
  struct dli_readout readout = {0};
  double *scratch = NULL;
  moved.means = NULL;
  moved.scatter = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, moved.means, moved.capacity * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, moved.scatter, dim * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, scratch, (num > dim ? num : dim) * part));
  memcpy(moved.means, predictor->finished.means, num * dim * sizeof *moved.means);
  memcpy(moved.scatter, predictor->finished.scatter, dim * dim * sizeof *moved.scatter);
  for (size_t first = 0; first < columns; first += part) {
    drift_free(predictor, &drift);
    DLI_TRY_DONE(fit_drift(predictor, &drift, before + first, after + first, n, columns, part));
    apply_drift(&drift, dim, first_column + first, part, moved.means, num, moved.scatter, scratch);
  }
  /* The sums of randomly projected features cannot be moved by a map of features: their weights stay. */
  DLI_TRY_DONE(dli_readout_build(predictor, &readout, &moved, false));

  double *old = predictor->finished.means;
  predictor->finished.means = moved.means, moved.means = old;
  old = predictor->finished.scatter;
  predictor->finished.scatter = moved.scatter, moved.scatter = old;
  readout.ridge = predictor->readout_state.ridge;
  predictor->readout_state.ridge = NULL;
  struct dli_readout replaced = predictor->readout_state;
  predictor->readout_state = readout, readout = replaced;
done:
  dli_readout_free(predictor, &readout);
  dli_free(allocator, scratch);
  dli_free(allocator, moved.scatter);
  dli_free(allocator, moved.means);
  drift_free(predictor, &drift);
  return status;
}

dlora_status dlora_predictor_compensate_drift(dlora_predictor *predictor, const float *before, const float *after,
                                              size_t n, size_t first_column, size_t columns) {
  DLI_REQUIRE(predictor);
  const size_t dim = predictor->dim;
  if (columns == 0 || first_column >= dim || columns > dim - first_column) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: columns %zu ... + %zu are not among the predictor's %zu", __func__,
                     first_column, columns, dim);
  }
  return dli_predictor_compensate(predictor, __func__, before, after, n, first_column, columns, columns);
}
