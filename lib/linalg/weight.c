/* Forward, y = x W^T + b, and backward, dx = dy W, of a frozen weight or of some of its rows: by packed copies where
 * the model has them, else by the BLAS. This is W h + b of equation (1) for all rows of a batch.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/weight.h"

#include <string.h>

#include "base/assert.h"
#include "linalg/matrix.h"

static void blas_forward(const struct dli_weight *weight, size_t first, size_t count, const float *bias, const float *x,
                         size_t n, size_t ldx, int accumulate, float *y, size_t ldy) {
  if (bias) {
    const float *b = bias + first;
    for (size_t i = 0; i < n; i++) {
      float *row = y + i * ldy;
      if (accumulate) {
        for (size_t j = 0; j < count; j++) row[j] += b[j];
      } else {
        memcpy(row, b, count * sizeof *row);
      }
    }
  }
  const float beta = bias || accumulate ? 1.0f : 0.0f;
  dli_gemm_nt(n, count, weight->cols, 1.0f, x, ldx, weight->data + first * weight->cols, weight->cols, beta, y, ldy);
}

void dli_weight_forward(const struct dli_weight *weight, struct dli_products *products, size_t first, size_t count,
                        const float *bias, const float *x, size_t n, size_t ldx, int accumulate, float *y, size_t ldy) {
  DLI_ASSERT(first + count <= weight->rows && ldx >= weight->cols && ldy >= count);
  if (products && weight->forward &&
      dli_products_run(products, weight->forward, first, count, bias, x, n, ldx, accumulate, y, ldy)) {
    return;
  }
  blas_forward(weight, first, count, bias, x, n, ldx, accumulate, y, ldy);
}

/* With what was packed for rows [first, first + count), which lie in one part. */
static bool packed_backward(const struct dli_weight *weight, struct dli_products *products, size_t first, size_t count,
                            const float *dy, size_t n, size_t lddy, int accumulate, float *dx, size_t lddx) {
  DLI_ASSERT(!weight->backward[1] || first >= weight->split || first + count <= weight->split);
  const struct dli_packed *part = weight->backward[first ? 1 : 0];
  if (!products || !part || part->inner != count || first != (first ? weight->split : 0)) return false;
  return dli_products_run(products, part, 0, weight->cols, NULL, dy, n, lddy, accumulate, dx, lddx);
}

/* Rows on both sides of the split, where each side has a packed copy of its own, are two products: the second adds to
 * the first. */
void dli_weight_backward(const struct dli_weight *weight, struct dli_products *products, size_t first, size_t count,
                         const float *dy, size_t n, size_t lddy, int accumulate, float *dx, size_t lddx) {
  const size_t split = weight->split;
  DLI_ASSERT(first + count <= weight->rows && lddy >= count && lddx >= weight->cols);
  if (weight->backward[1] && first < split && split < first + count) {
    dli_weight_backward(weight, products, first, split - first, dy, n, lddy, accumulate, dx, lddx);
    dli_weight_backward(weight, products, split, first + count - split, dy + (split - first), n, lddy, 1, dx, lddx);
    return;
  }
  if (packed_backward(weight, products, first, count, dy, n, lddy, accumulate, dx, lddx)) return;
  dli_gemm_nn(n, weight->cols, count, 1.0f, dy, lddy, weight->data + first * weight->cols, weight->cols,
              accumulate ? 1.0f : 0.0f, dx, lddx);
}
