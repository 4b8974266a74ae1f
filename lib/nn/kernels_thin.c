/* Products in float32 with a matrix of a few rows, an adapter's A or B: the BLAS rearranges both factors first, which
 * takes longer than such a product. Compiled as kernels_bfloat16.c is. Where fewer than ROWS rows are left, a tile
 * computes the last one several times and stores it once.
 * SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "base/assert.h"
#include "nn/kernels_bfloat16.h"

enum { LANES = 16, ROWS = 4, VECTORS = 4 };

static inline __mmask16 mask_of(size_t first, size_t count) {
  const size_t left = first < count ? count - first : 0;
  return (__mmask16)(left < LANES ? (1u << left) - 1u : 0xffffu);
}

static inline size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}

/* ROWS rows of x with ROWS rows of b at a time: 16 sums of products, each in a register of its own, over the depth.
 * First the masked rest of the depth, which also initialises the sums; then whole registers; then the sum of each
 * register. */
void dli_thin_dot(const float *x, size_t rows, size_t depth, size_t ldx, const float *b, size_t count, float *y) {
  DLI_ASSERT(ldx >= depth);
  const size_t whole = depth / LANES * LANES;
  const __mmask16 rest = mask_of(whole, depth);
  for (size_t i = 0; i < rows; i += ROWS) {
    const float *xs[ROWS];
    for (size_t l = 0; l < ROWS; l++) xs[l] = x + smaller(i + l, rows - 1) * ldx;
    for (size_t j = 0; j < count; j += ROWS) {
      const float *bs[ROWS];
      __m512 sum[ROWS][ROWS];
#pragma GCC unroll 4
      for (size_t l = 0; l < ROWS; l++) {
        const __m512 v = _mm512_maskz_loadu_ps(rest, xs[l] + whole);
#pragma GCC unroll 4
        for (size_t m = 0; m < ROWS; m++) {
          bs[m] = b + smaller(j + m, count - 1) * depth;
          sum[l][m] = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(rest, bs[m] + whole));
        }
      }
      for (size_t k = 0; k < whole; k += LANES) {
        __m512 w[ROWS];
#pragma GCC unroll 4
        for (size_t m = 0; m < ROWS; m++) w[m] = _mm512_loadu_ps(bs[m] + k);
#pragma GCC unroll 4
        for (size_t l = 0; l < ROWS; l++) {
          const __m512 v = _mm512_loadu_ps(xs[l] + k);
#pragma GCC unroll 4
          for (size_t m = 0; m < ROWS; m++) sum[l][m] = _mm512_fmadd_ps(v, w[m], sum[l][m]);
        }
      }
#pragma GCC unroll 4
      for (size_t l = 0; l < ROWS; l++) {
#pragma GCC unroll 4
        for (size_t m = 0; m < ROWS; m++) {
          const float s = _mm512_reduce_add_ps(sum[l][m]);
          if (i + l < rows && j + m < count) y[(i + l) * count + j + m] = s;
        }
      }
    }
  }
}

/* ROWS rows by VECTORS registers of y at a time stay in registers while the depth runs: y is read and written once. */
void dli_thin_add(const float *a, size_t a_row, size_t a_step, struct dli_const_matrix b, struct dli_matrix y) {
  DLI_ASSERT(b.cols == y.cols && b.ld >= b.cols && y.ld >= y.cols);
  const size_t rows = y.rows, depth = b.rows, cols = y.cols;
  for (size_t j = 0; j < cols; j += VECTORS * LANES) {
    __mmask16 mask[VECTORS];
    for (size_t v = 0; v < VECTORS; v++) mask[v] = mask_of(j + v * LANES, cols);
    for (size_t i = 0; i < rows; i += ROWS) {
      const float *as[ROWS];
      __m512 sum[ROWS][VECTORS];
#pragma GCC unroll 4
      for (size_t l = 0; l < ROWS; l++) {
        const size_t row = smaller(i + l, rows - 1);
        as[l] = a + row * a_row;
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++) {
          sum[l][v] = _mm512_maskz_loadu_ps(mask[v], y.x + row * y.ld + j + v * LANES);
        }
      }
      for (size_t k = 0; k < depth; k++) {
        __m512 w[VECTORS];
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++) w[v] = _mm512_maskz_loadu_ps(mask[v], b.x + k * b.ld + j + v * LANES);
#pragma GCC unroll 4
        for (size_t l = 0; l < ROWS; l++) {
          const __m512 factor = _mm512_set1_ps(as[l][k * a_step]);
#pragma GCC unroll 4
          for (size_t v = 0; v < VECTORS; v++) sum[l][v] = _mm512_fmadd_ps(factor, w[v], sum[l][v]);
        }
      }
#pragma GCC unroll 4
      for (size_t l = 0; l < ROWS; l++) {
        if (i + l >= rows) break;
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++) {
          _mm512_mask_storeu_ps(y.x + (i + l) * y.ld + j + v * LANES, mask[v], sum[l][v]);
        }
      }
    }
  }
}
