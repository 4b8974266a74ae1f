#include "linalg/weight.h"

#include <string.h>

#include "linalg/matrix.h"

void dli_weight_forward(const struct dli_weight *weight, size_t first, size_t count, const float *bias, const float *x,
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

void dli_weight_backward(const struct dli_weight *weight, size_t first, size_t count, const float *dy, size_t n,
                         size_t lddy, int accumulate, float *dx, size_t lddx) {
  dli_gemm_nn(n, weight->cols, count, 1.0f, dy, lddy, weight->data + first * weight->cols, weight->cols,
              accumulate ? 1.0f : 0.0f, dx, lddx);
}
