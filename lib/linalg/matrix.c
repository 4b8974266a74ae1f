/* Products of row-major matrices by CBLAS, in float and double, and the second moment S = sum of h h^T (METHOD.md 3) in
 * double. Dimensions that exceed a BLAS int are split; small products run on one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/matrix.h"

#include <cblas.h>
#include <limits.h>
#include <stdbool.h>

#include "base/assert.h"
#include "base/threads.h"

/* Largest part of a dimension given to one BLAS call: fits a 32-bit int with room for the library's own arithmetic. */
#define PART ((size_t)1 << 30)
#define MOMENT_ROWS 256
/* Multiplications of a product that takes one processor some 50 microseconds: not worth waking another one for, which a
 * BLAS does much sooner. The adapters of single images are such products. */
#define WORTH_THREADS 4.0e6

static size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}

/* Defines plain_<name>, the loop that takes what BLAS cannot (no inner dimension, rows further apart than an int), and
 * <name>, which calls BLAS part by part: c [m, n] = alpha * op(a) [m, k] * op(b) [k, n] + beta * c. */
#define DEFINE_GEMM(name, type, blas) \
  static void plain_##name(bool ta, bool tb, size_t m, size_t n, size_t k, type alpha, const type *a, size_t lda, \
                           const type *b, size_t ldb, type beta, type *c, size_t ldc) { \
    for (size_t i = 0; i < m; i++) { \
      for (size_t j = 0; j < n; j++) { \
        double sum = 0.0; \
        for (size_t l = 0; l < k; l++) { \
          sum += (double)a[ta ? l * lda + i : i * lda + l] * (double)b[tb ? j * ldb + l : l * ldb + j]; \
        } \
        type old = beta == (type)0 ? (type)0 : beta * c[i * ldc + j]; \
        c[i * ldc + j] = (type)((double)alpha * sum) + old; \
      } \
    } \
  } \
  static void name(bool ta, bool tb, size_t m, size_t n, size_t k, type alpha, const type *a, size_t lda, \
                   const type *b, size_t ldb, type beta, type *c, size_t ldc) { \
    if (m == 0 || n == 0) return; \
    DLI_ASSERT(lda >= (ta ? m : k) && ldb >= (tb ? k : n) && ldc >= n); \
    if (k == 0 || lda > INT_MAX || ldb > INT_MAX || ldc > INT_MAX) { \
      plain_##name(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); \
      return; \
    } \
    const bool small = (double)m * (double)n * (double)k < WORTH_THREADS; \
    const int entered = small ? dli_threads_enter(1) : dli_blas_enter(); \
    for (size_t i = 0; i < m; i += PART) { \
      for (size_t j = 0; j < n; j += PART) { \
        for (size_t l = 0; l < k; l += PART) { \
          blas(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, \
               (int)smaller(m - i, PART), (int)smaller(n - j, PART), (int)smaller(k - l, PART), alpha, \
               a + (ta ? l * lda + i : i * lda + l), (int)lda, b + (tb ? j * ldb + l : l * ldb + j), (int)ldb, \
               l == 0 ? beta : (type)1, c + i * ldc + j, (int)ldc); \
        } \
      } \
    } \
    dli_blas_leave(entered); \
  }

DEFINE_GEMM(gemm, float, cblas_sgemm)
DEFINE_GEMM(dgemm, double, cblas_dgemm)

void dli_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc) {
  gemm(false, true, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void dli_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc) {
  gemm(false, false, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void dli_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc) {
  gemm(true, false, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void dli_dgemm_nt(size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                  double beta, double *c, size_t ldc) {
  dgemm(false, true, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void dli_dgemm_nn(size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                  double beta, double *c, size_t ldc) {
  dgemm(false, false, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void dli_dgemm_tn(size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                  double beta, double *c, size_t ldc) {
  dgemm(true, false, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* By tiles, since one of the two matrices is read or written against its order in memory. */
void dli_mirror_lower(size_t n, double *s) {
  enum { TILE = 32 };
  for (size_t i = 0; i < n; i += TILE) {
    for (size_t j = 0; j <= i; j += TILE) {
      size_t end = smaller(i + TILE, n);
      for (size_t r = i; r < end; r++) {
        for (size_t c = j; c < smaller(j + TILE, r); c++) s[c * n + r] = s[r * n + c];
      }
    }
  }
}

void dli_add_gram_lower(const double *x, size_t rows, size_t n, double *s) {
  if (n == 0) return;
  DLI_ASSERT(n <= INT_MAX); /* n * n doubles exist */
  const int entered = dli_blas_enter();
  for (size_t i = 0; i < rows; i += PART) {
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (int)n, (int)smaller(rows - i, PART), 1.0, x + i * n, (int)n,
                1.0, s, (int)n);
  }
  dli_blas_leave(entered);
}

/* MOMENT_ROWS rows at a time are converted to double and added to the lower triangle; the upper one is copied at the
 * end.
 */
void dli_add_second_moment(const float *x, size_t rows, size_t n, double *s, double *scratch) {
  if (rows == 0) return;
  for (size_t begin = 0; begin < rows; begin += MOMENT_ROWS) {
    size_t count = smaller(rows - begin, MOMENT_ROWS);
    const float *part = x + begin * n; /* [count, n] */
    for (size_t i = 0; i < count * n; i++) scratch[i] = (double)part[i];
    dli_add_gram_lower(scratch, count, n, s);
  }
  dli_mirror_lower(n, s);
}
