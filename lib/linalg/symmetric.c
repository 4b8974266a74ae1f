/* Symmetric matrices in double, by LAPACK: leading eigenvectors of a second moment (METHOD.md 3 and 4), Cholesky
 * factors of covariances and their solves (METHOD.md 7), and Gram-Schmidt, which orthonormalises new directions Psi
 * against Phi.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/symmetric.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "linalg/matrix.h"

/* LAPACK by its Fortran symbols, which every implementation has; the sizes at the end are the lengths of the character
 * arguments, as gfortran passes them. A symmetric matrix is the same in both storage orders; a row-major lower triangle
 * is LAPACK's upper one. */
void dsytrd_(const char *uplo, const int *n, double *a, const int *lda, double *d, double *e, double *tau, double *work,
             const int *lwork, int *info, size_t uplo_length);
void dstemr_(const char *jobz, const char *range, const int *n, double *d, double *e, const double *vl,
             const double *vu, const int *il, const int *iu, int *m, double *w, double *z, const int *ldz,
             const int *nzc, int *isuppz, int *tryrac, double *work, const int *lwork, int *iwork, const int *liwork,
             int *info, size_t jobz_length, size_t range_length);
void dormtr_(const char *side, const char *uplo, const char *trans, const int *m, const int *n, const double *a,
             const int *lda, const double *tau, double *c, const int *ldc, double *work, const int *lwork, int *info,
             size_t side_length, size_t uplo_length, size_t trans_length);
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_length);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info, size_t uplo_length,
             size_t diag_length);

#define LAPACK_BLOCK 64 /* columns that a blocked LAPACK routine works on at most: workspace of 64 * n */
#define ROW_PART ((size_t)1 << 30)
#define GRAM_BLOCK 32

/* The steps of dsyevr for the k largest eigenvalues:
 *
 *     1   dsytrd reduces s to a tridiagonal T with the same eigenvalues, s = Q T Q^T
 *     2   dstemr finds eigenpairs n - k + 1 ... n of T by relatively robust representations
 *     3   dormtr multiplies the eigenvectors by Q
 *     4   the order is reversed: LAPACK's eigenvalues ascend
 *
 * dsyevr itself would find a part of the spectrum by inverse iteration, which orthogonalises clusters vector by vector;
 * one large eigenvalue, as inputs of attention have, makes all the others one cluster. */
dlora_status dli_eigen_top(const dlora_allocator *allocator, size_t n, double *s, size_t k, double *values,
                           double *vectors) {
  if (k > n) k = n;
  if (k == 0) return DLORA_OK;
  if (n > INT_MAX / LAPACK_BLOCK) {
    return dli_raise(DLORA_ERR_ARGUMENT, "eigenvectors of a matrix of width %zu: at most %d is possible", n,
                     INT_MAX / LAPACK_BLOCK);
  }
  dlora_status status = DLORA_OK;
  const int entered = dli_blas_enter();
  double *real = NULL; /* d, e, tau, w: [n] each; work [64 * n] */
  int *integer = NULL; /* isuppz [2 * n], iwork [10 * n] */
  DLI_TRY_DONE(DLI_NEW(allocator, real, (4 + LAPACK_BLOCK) * n));
  DLI_TRY_DONE(DLI_NEW(allocator, integer, 12 * n));

  double *d = real, *e = d + n, *tau = e + n, *w = tau + n, *work = w + n;
  int order = (int)n, wanted = (int)k, first = order - wanted + 1, found = 0, robust = 1, info = 0;
  int work_size = LAPACK_BLOCK * order, integer_size = 10 * order;
  double unused = 0.0;
  dsytrd_("U", &order, s, &order, d, e, tau, work, &work_size, &info, 1);
  if (info == 0) {
    dstemr_("V", "I", &order, d, e, &unused, &unused, &first, &order, &found, w, vectors, &order, &wanted, integer,
            &robust, work, &work_size, integer + 2 * n, &integer_size, &info, 1, 1);
  }
  if (info == 0 && found == wanted) {
    /* LAPACK's columns [n, k] are the rows of vectors [k, n]. */
    dormtr_("L", "U", "N", &order, &wanted, s, &order, tau, vectors, &order, work, &work_size, &info, 1, 1, 1);
  }
  if (info != 0 || found != wanted) {
    status = dli_raise(DLORA_ERR_NUMERIC, "eigenvectors of a symmetric [%zu, %zu] matrix did not converge", n, n);
    goto done;
  }
  for (size_t i = 0; i < k; i++) values[i] = w[k - 1 - i];
  for (size_t i = 0; i < k / 2; i++) {
    cblas_dswap((int)n, vectors + i * n, 1, vectors + (k - 1 - i) * n, 1);
  }
done:
  dli_blas_leave(entered);
  dli_free(allocator, integer);
  dli_free(allocator, real);
  return status;
}

dlora_status dli_cholesky(size_t n, double *s) {
  if (n == 0) return DLORA_OK;
  DLI_ASSERT(n <= INT_MAX); /* n * n doubles exist */
  int order = (int)n, info = 0;
  const int entered = dli_blas_enter();
  dpotrf_("U", &order, s, &order, &info, 1);
  dli_blas_leave(entered);
  for (size_t i = 0; info == 0 && i < n; i++) {
    /* A NaN passes some implementations' own test. */
    if (!(s[i * n + i] > 0.0) || !isfinite(s[i * n + i])) info = (int)i + 1;
  }
  if (info != 0) {
    return dli_raise(DLORA_ERR_NUMERIC, "a symmetric [%zu, %zu] matrix is not positive definite (pivot %d)", n, n,
                     info - 1);
  }
  for (size_t i = 0; i < n; i++) memset(s + i * n + i + 1, 0, (n - i - 1) * sizeof *s);
  return DLORA_OK;
}

/* b [rows, n] <- b L^-T, or b L^-1 if plain. */
static void solve_triangle(size_t n, const double *l, bool plain, double *b, size_t rows) {
  if (n == 0) return;
  DLI_ASSERT(n <= INT_MAX);
  const int entered = dli_blas_enter();
  for (size_t i = 0; i < rows; i += ROW_PART) {
    size_t part = rows - i < ROW_PART ? rows - i : ROW_PART;
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, plain ? CblasNoTrans : CblasTrans, CblasNonUnit, (int)part,
                (int)n, 1.0, l, (int)n, b + i * n, (int)n);
  }
  dli_blas_leave(entered);
}

void dli_cholesky_forward(size_t n, const double *l, double *b, size_t rows) {
  solve_triangle(n, l, false, b, rows);
}

void dli_cholesky_solve(size_t n, const double *l, double *b, size_t rows) {
  solve_triangle(n, l, false, b, rows);
  solve_triangle(n, l, true, b, rows);
}

dlora_status dli_cholesky_inverse_trace(const dlora_allocator *allocator, size_t n, const double *l,
                                        const double *weights, double *trace) {
  double *inverse = NULL;
  DLI_ASSERT(n <= INT_MAX);
  int order = (int)n, info = 0;
  *trace = 0.0;
  DLI_TRY(DLI_NEW(allocator, inverse, n * n));
  memcpy(inverse, l, n * n * sizeof *inverse);
  const int entered = dli_blas_enter();
  dtrtri_("U", "N", &order, inverse, &order, &info, 1, 1);
  dli_blas_leave(entered);
  /* The diagonal of a factor is positive. */
  DLI_ASSERT(info == 0);
  for (size_t i = 0; i < n; i++) { /* zeros above the diagonal */
    for (size_t j = 0; j <= i; j++) *trace += weights[j] * inverse[i * n + j] * inverse[i * n + j];
  }
  dli_free(allocator, inverse);
  return DLORA_OK;
}

/* Removes the span of the orthonormal rows of basis [m, n] from v [k, n], block after block. */
static void remove_span(double *v, size_t k, const double *basis, size_t m, size_t n) {
  DLI_ASSERT(k <= GRAM_BLOCK);
  double coefficients[GRAM_BLOCK * GRAM_BLOCK];
  for (size_t i = 0; i < m; i += GRAM_BLOCK) {
    size_t count = m - i < GRAM_BLOCK ? m - i : GRAM_BLOCK;
    dli_dgemm_nt(k, count, n, 1.0, v, n, basis + i * n, n, 0.0, coefficients, count);
    dli_dgemm_nn(k, n, count, -1.0, coefficients, count, basis + i * n, n, 1.0, v, n);
  }
}

/* Gram-Schmidt in blocks of GRAM_BLOCK rows, so that most of it is products of matrices. For each block, twice:
 *
 *     1   the norms of its rows as they are
 *     2   the spans of basis and of the rows that are already final are removed
 *     3   row by row, the rows before it in the block are removed and the rest is normalised
 *     4   a row of which less than 1e-8 is left depends on the others and is dropped; later rows move up
 *
 * The first pass can leave a relative error of unit roundoff / 1e-8; the second, on unit vectors, removes it. */
size_t dli_orthonormalise(double *v, size_t k, const double *basis, size_t m, size_t n) {
  if (n == 0) return 0;
  DLI_ASSERT(n <= INT_MAX);
  const int entered = dli_blas_enter();
  int width = (int)n;
  size_t kept = 0; /* rows 0 ... kept - 1 of v are final */
  for (size_t begin = 0; begin < k; begin += GRAM_BLOCK) {
    size_t count = k - begin < GRAM_BLOCK ? k - begin : GRAM_BLOCK;
    double *block = v + kept * n;
    memmove(block, v + begin * n, count * n * sizeof *v);
    for (int pass = 0; pass < 2; pass++) {
      double own[GRAM_BLOCK];
      for (size_t i = 0; i < count; i++) own[i] = cblas_dnrm2(width, block + i * n, 1);
      remove_span(block, count, basis, m, n);
      remove_span(block, count, v, kept, n);
      size_t stay = 0;
      for (size_t i = 0; i < count; i++) {
        double *row = block + stay * n;
        if (stay != i) memcpy(row, block + i * n, n * sizeof *row);
        for (size_t j = 0; j < stay; j++) {
          const double *earlier = block + j * n;
          cblas_daxpy(width, -cblas_ddot(width, row, 1, earlier, 1), earlier, 1, row, 1);
        }
        double norm = cblas_dnrm2(width, row, 1);
        if (!(norm > 1e-8 * own[i])) continue;
        cblas_dscal(width, 1.0 / norm, row, 1);
        stay++;
      }
      count = stay;
    }
    kept += count;
  }
  dli_blas_leave(entered);
  return kept;
}

bool dli_may_be_moment(const double *s, size_t n) {
  /* (3.4e38)^2 times 2^53 rows: beyond it nothing that was added up from floats can lie. */
  const double largest = 1e93;
  for (size_t i = 0; i < n; i++) {
    const double root = sqrt(s[i * n + i]);
    if (!(s[i * n + i] >= 0.0 && s[i * n + i] <= largest)) return false;
    for (size_t j = 0; j < n; j++) {
      const double value = s[i * n + j];
      if (!(fabs(value) <= largest)) return false;
      /* A millionth is far above the rounding of sums in double. */
      if (j < i && fabs(value) > 1.000001 * root * sqrt(s[j * n + j])) return false;
    }
  }
  return true;
}
