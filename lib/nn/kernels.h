/* Loops over activations, compiled once per instruction set; the table to use is chosen at run time. */
#ifndef DLI_NN_KERNELS_H
#define DLI_NN_KERNELS_H

#include <stddef.h>

struct dli_kernels {
  const char *name;
  /* y [rows, dim] = (x - mean) * rstd * gain + bias, row by row; gain and bias may be NULL (1 and 0). mean and rstd
   * [rows] are kept for the backward pass unless NULL. */
  void (*layer_norm)(const float *x, size_t rows, size_t ldx, size_t dim, const float *gain, const float *bias,
                     float eps, float *y, size_t ldy, float *mean, float *rstd);
  /* dx [rows, dim] += gradient of layer_norm at x. */
  void (*layer_norm_backward)(const float *dy, size_t lddy, const float *x, size_t ldx, size_t rows, size_t dim,
                              const float *gain, const float *mean, const float *rstd, float *dx, size_t lddx);
  /* y = x Phi(x), the exact GELU by erf; y may be x. */
  void (*gelu)(const float *x, size_t count, float *y);
  /* dy *= gelu'(x) */
  void (*gelu_backward)(const float *x, size_t count, float *dy);
  /* s [rows, cols] = softmax of scale * s, row by row. */
  void (*softmax)(float *s, size_t rows, size_t cols, float scale);
  /* dp [rows, cols] = scale * p * (dp - sum(dp * p)): from the gradient of the probabilities to that of the unscaled
   * scores. */
  void (*softmax_backward)(const float *p, size_t rows, size_t cols, float scale, float *dp);
  /* y += x */
  void (*add)(const float *x, size_t count, float *y);
};

/* The fastest table for this processor. */
const struct dli_kernels *dli_kernels_select(void);

#endif
