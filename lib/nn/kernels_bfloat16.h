/* Loops between products with bfloat16 factors, for processors with AVX512_BF16. oneDNN does the products: these loops
 * bring factors into the orders that it reads, and work in float32 on what it sums up.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_NN_KERNELS_BFLOAT16_H
#define DLI_NN_KERNELS_BFLOAT16_H

#include <stddef.h>
#include <stdint.h>

#include "linalg/matrix.h"
#include "nn/kernels.h"

/* Columns of rows are filled up to a multiple of this, and so are rows of panels. */
enum { DLI_BFLOAT16_GROUP = 32 };

struct dli_kernels_bfloat16 {
  /* y [rows, wide] = x [rows, cols] and zeros */
  void (*copy)(const float *x, size_t rows, size_t cols, size_t ldx, uint16_t *y, size_t wide, size_t ldy);
  /* y [cols, wide] = (factors x)^T and zeros, of x [rows, cols]; row i times factors[i] unless that is NULL */
  void (*copy_transposed)(const float *x, size_t rows, size_t cols, size_t ldx, const float *factors, uint16_t *y,
                          size_t wide);
  /* panels, as in dli_packed, with zeros behind, of x [rows, cols] and of x^T */
  void (*panels)(const float *x, size_t rows, size_t cols, size_t ldx, uint16_t *y);
  void (*panels_transposed)(const float *x, size_t rows, size_t cols, size_t ldx, uint16_t *y);
  /* y [rows, cols] = x^T of x [cols, ldx]; ldx is a multiple of DLI_BFLOAT16_GROUP and at least rows */
  void (*transpose)(const float *x, size_t rows, size_t cols, size_t ldx, float *y, size_t ldy);
  /* e [rows, wide] = exp(scale * (s - its row's largest)) of s [rows, wide], whose first `count` columns count;
   * inverse [rows] = 1 / sum of e before it was rounded */
  void (*softmax)(const float *s, size_t rows, size_t count, size_t wide, float scale, uint16_t *e, float *inverse);
  /* y or, where that is NULL, half [rows, cols] = factors x, row by row */
  void (*scale_rows)(const float *x, size_t rows, size_t cols, size_t ldx, const float *factors, float *y,
                     uint16_t *half, size_t ldy);
  /* d [rows, wide] = scale p (g - sum(p g)) with p = inverse e, from the gradient g [rows, wide] of probabilities to
   * that of scores before they are scaled; also panels of d and of e. */
  void (*softmax_backward)(const uint16_t *e, const float *inverse, const float *g, size_t rows, size_t wide,
                           float scale, uint16_t *d, uint16_t *d_panels, uint16_t *e_panels);
  /* y = act(x), to 1e-5 |x|; x is kept in bfloat16 unless that is NULL. By DLORA_ACTIVATION_...; none is gated. */
  void (*activation[DLI_NUM_ACTIVATIONS])(const float *x, size_t count, uint16_t *y, uint16_t *kept);
  /* dx = dy act'(x), the derivative to 2e-4 */
  void (*activation_backward[DLI_NUM_ACTIVATIONS])(const uint16_t *x, const float *dy, size_t count, uint16_t *dx);
  /* Thin products, in float32. y [rows, count] = x [rows, depth] b [count, depth]^T, y and b without gaps */
  void (*thin_dot)(const float *x, size_t rows, size_t depth, size_t ldx, const float *b, size_t count, float *y);
  /* y [rows, cols] += a [rows, depth] b [depth, cols]; number (i, k) of a is a[i * a_row + k * a_step] */
  void (*thin_add)(const float *a, size_t a_row, size_t a_step, struct dli_const_matrix b, struct dli_matrix y);
};
/* kernels_thin.c */
void dli_thin_dot(const float *x, size_t rows, size_t depth, size_t ldx, const float *b, size_t count, float *y);
void dli_thin_add(const float *a, size_t a_row, size_t a_step, struct dli_const_matrix b, struct dli_matrix y);

/* Of the build for x86-64; needs AVX512_BF16. */
extern const struct dli_kernels_bfloat16 dli_kernels_bfloat16;
/* NULL where the processor lacks the instructions. */
const struct dli_kernels_bfloat16 *dli_kernels_bfloat16_select(void);

#endif
