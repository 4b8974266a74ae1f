/* Forward, y = x W^T + b, and backward, dx = dy W, of a frozen weight or of some of its rows: by packed copies where
 * the model has them, else by the BLAS. This is W h + b of equation (1) for all rows of a batch.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/weight.h"

#include <string.h>

#include "base/assert.h"

static void blas_forward(const struct dli_weight *weight, size_t first, const float *bias, struct dli_const_matrix x,
                         bool accumulate, struct dli_matrix y) {
  if (bias) {
    const float *b = bias + first;
    for (size_t i = 0; i < y.rows; i++) {
      float *row = y.x + i * y.ld;
      if (accumulate) {
        for (size_t j = 0; j < y.cols; j++) row[j] += b[j];
      } else {
        memcpy(row, b, y.cols * sizeof *row);
      }
    }
  }
  const float beta = bias || accumulate ? 1.0f : 0.0f;
  dli_gemm_nt(y.rows, y.cols, weight->cols, 1.0f, x.x, x.ld, weight->data + first * weight->cols, weight->cols, beta,
              y.x, y.ld);
}

void dli_weight_forward(const struct dli_weight *weight, struct dli_products *products, size_t first, const float *bias,
                        struct dli_const_matrix x, bool accumulate, struct dli_matrix y) {
  DLI_ASSERT(x.rows == y.rows && x.cols == weight->cols && first + y.cols <= weight->rows);
  if (products && weight->forward && dli_products_run(products, weight->forward, first, bias, x, accumulate, y)) return;
  blas_forward(weight, first, bias, x, accumulate, y);
}

/* With what was packed for the rows from `first` on that dy has columns for, which lie in one part. */
static bool packed_backward(const struct dli_weight *weight, struct dli_products *products, size_t first,
                            struct dli_const_matrix dy, bool accumulate, struct dli_matrix dx) {
  DLI_ASSERT(!weight->backward[1] || first >= weight->split || first + dy.cols <= weight->split);
  const struct dli_packed *part = weight->backward[first > 0 ? 1 : 0];
  if (!products || !part || part->inner != dy.cols || first != (first > 0 ? weight->split : 0)) return false;
  return dli_products_run(products, part, 0, NULL, dy, accumulate, dx);
}

/* Rows on both sides of the split, where each side has a packed copy of its own, are two products: the second adds to
 * the first. */
void dli_weight_backward(const struct dli_weight *weight, struct dli_products *products, size_t first,
                         struct dli_const_matrix dy, bool accumulate, struct dli_matrix dx) {
  const size_t split = weight->split;
  DLI_ASSERT(dy.rows == dx.rows && dx.cols == weight->cols && first + dy.cols <= weight->rows);
  if (weight->backward[1] && first < split && split < first + dy.cols) {
    const size_t before = split - first;
    dli_weight_backward(weight, products, first, dli_const_view(dy.x, dy.rows, before, dy.ld), accumulate, dx);
    dli_weight_backward(weight, products, split, dli_const_view(dy.x + before, dy.rows, dy.cols - before, dy.ld), true,
                        dx);
    return;
  }
  if (packed_backward(weight, products, first, dy, accumulate, dx)) return;
  dli_gemm_nn(dx.rows, dx.cols, dy.cols, 1.0f, dy.x, dy.ld, weight->data + first * weight->cols, weight->cols,
              accumulate ? 1.0f : 0.0f, dx.x, dx.ld);
}
