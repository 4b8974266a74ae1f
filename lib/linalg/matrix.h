/* Products of row-major matrices through CBLAS. ld: distance between rows. Sizes that a BLAS int cannot hold are split
 * by rows; a zero size is a no-op (beta is still applied).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_LINALG_MATRIX_H
#define DLI_LINALG_MATRIX_H

#include <stddef.h>

/* Rows [rows, cols] that begin ld numbers apart, in memory of someone else. */
struct dli_matrix {
  float *x;
  size_t rows, cols, ld;
};
struct dli_const_matrix {
  const float *x;
  size_t rows, cols, ld;
};

static inline struct dli_matrix dli_view(float *x, size_t rows, size_t cols, size_t ld) {
  return (struct dli_matrix){x, rows, cols, ld};
}

static inline struct dli_const_matrix dli_const_view(const float *x, size_t rows, size_t cols, size_t ld) {
  return (struct dli_const_matrix){x, rows, cols, ld};
}

/* c [m, n] = alpha * a [m, k] * b [n, k]^T + beta * c */
void dli_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc);
/* c [m, n] = alpha * a [m, k] * b [k, n] + beta * c */
void dli_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc);
/* c [m, n] = alpha * a [k, m]^T * b [k, n] + beta * c */
void dli_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc);
/* The same three in double. */
void dli_dgemm_nt(size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                  double beta, double *c, size_t ldc);
void dli_dgemm_nn(size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                  double beta, double *c, size_t ldc);
void dli_dgemm_tn(size_t m, size_t n, size_t k, double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                  double beta, double *c, size_t ldc);

/* s [n, n] += x [rows, n]^T x, both triangles, accumulated in double. scratch: [256 * n] doubles. */
void dli_add_second_moment(const float *x, size_t rows, size_t n, double *s, double *scratch);
/* The lower triangle of s [n, n] += x [rows, n]^T x; the strict upper one is left alone. */
void dli_add_gram_lower(const double *x, size_t rows, size_t n, double *s);
/* Copies the lower triangle of s [n, n] to the upper one. */
void dli_mirror_lower(size_t n, double *s);

#endif
