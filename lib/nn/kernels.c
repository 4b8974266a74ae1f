/* Layer norm, the MLP's activations, rotations and additions, forward and backward. Compiled once per instruction set
 * with DLI_ISA as the suffix of its table; plain loops that the compiler vectorises. Reductions are `omp simd` sums
 * over one row: 8 or 16 partial sums of at most a few hundred terms each.
 * SPDX-License-Identifier: Apache-2.0 */
#include "nn/kernels.h"

#include <math.h>

#include "base/assert.h"
#include "nn/isa.h"

/* Row by row, as in Ba, Kiros and Hinton (2016):
 *
 *     1   m = mean of the row
 *     2   variance = mean of (x - m)^2, in a pass of its own: E[x^2] - m^2 cancels where |m| is large
 *     3   r = 1 / sqrt(variance + eps)
 *     4   y = (x - m) r gain + bias
 *
 * m and r are all that the backward pass needs besides x. */
static void layer_norm(struct dli_const_matrix x, const float *gain, const float *bias, float eps, struct dli_matrix y,
                       float *mean, float *rstd) {
  const size_t dim = x.cols;
  DLI_ASSERT(dim > 0 && y.cols == dim && y.rows == x.rows && x.ld >= dim && y.ld >= dim && !gain == !bias);
  for (size_t i = 0; i < x.rows; i++) {
    const float *restrict a = x.x + i * x.ld;
    float *restrict b = y.x + i * y.ld;
    float sum = 0.0f, square = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < dim; j++) sum += a[j];
    const float m = sum / (float)dim;
#pragma omp simd reduction(+ : square)
    for (size_t j = 0; j < dim; j++) square += (a[j] - m) * (a[j] - m);
    const float r = 1.0f / sqrtf(square / (float)dim + eps);
    if (gain) {
      for (size_t j = 0; j < dim; j++) b[j] = (a[j] - m) * r * gain[j] + bias[j];
    } else {
      for (size_t j = 0; j < dim; j++) b[j] = (a[j] - m) * r;
    }
    if (mean) mean[i] = m;
    if (rstd) rstd[i] = r;
  }
}

/* With g = dy gain and n = (x - m) r, the normalised row of length `dim`, both m and r depend on every x:
 *
 *     dx = r (g - mean(g) - n mean(g n))
 *
 *     1   mean(g) and mean(g (x - m)), in one pass
 *     2   c0 = mean(g) and c1 = r^2 mean(g (x - m)), so that n mean(g n) = (x - m) c1
 *     3   dx is added to, since the residual stream carries a gradient past the norm */
static void layer_norm_backward(struct dli_const_matrix dy, struct dli_const_matrix x, const float *gain,
                                const float *mean, const float *rstd, struct dli_matrix dx) {
  const size_t dim = x.cols;
  DLI_ASSERT(dim > 0 && dy.cols == dim && dx.cols == dim && dy.rows == x.rows && dx.rows == x.rows);
  DLI_ASSERT(dy.ld >= dim && x.ld >= dim && dx.ld >= dim);
  for (size_t i = 0; i < x.rows; i++) {
    const float *restrict a = x.x + i * x.ld, *restrict d = dy.x + i * dy.ld;
    float *restrict out = dx.x + i * dx.ld;
    const float m = mean[i], r = rstd[i];
    float sum = 0.0f, dot = 0.0f;
#pragma omp simd reduction(+ : sum, dot)
    for (size_t j = 0; j < dim; j++) {
      const float g = d[j] * gain[j];
      sum += g;
      dot += g * (a[j] - m);
    }
    const float c0 = sum / (float)dim, c1 = dot * r * r / (float)dim;
    for (size_t j = 0; j < dim; j++) out[j] += r * (d[j] * gain[j] - c0 - (a[j] - m) * c1);
  }
}

/* Zhang and Sennrich (2019): y = x r gain with r = 1 / sqrt(mean of x^2 + eps). */
static void rms_norm(struct dli_const_matrix x, const float *gain, const float *bias, float eps, struct dli_matrix y,
                     float *mean, float *rstd) {
  const size_t dim = x.cols;
  (void)bias;
  DLI_ASSERT(dim > 0 && y.cols == dim && y.rows == x.rows && x.ld >= dim && y.ld >= dim);
  for (size_t i = 0; i < x.rows; i++) {
    const float *restrict a = x.x + i * x.ld;
    float *restrict b = y.x + i * y.ld;
    float square = 0.0f;
#pragma omp simd reduction(+ : square)
    for (size_t j = 0; j < dim; j++) square += a[j] * a[j];
    const float r = 1.0f / sqrtf(square / (float)dim + eps);
    if (gain) {
      for (size_t j = 0; j < dim; j++) b[j] = a[j] * r * gain[j];
    } else {
      for (size_t j = 0; j < dim; j++) b[j] = a[j] * r;
    }
    if (mean) mean[i] = 0.0f;
    if (rstd) rstd[i] = r;
  }
}

/* With g = dy gain: dx = r (g - x r^2 mean(g x)), added to. */
static void rms_norm_backward(struct dli_const_matrix dy, struct dli_const_matrix x, const float *gain,
                              const float *mean, const float *rstd, struct dli_matrix dx) {
  const size_t dim = x.cols;
  (void)mean;
  DLI_ASSERT(dim > 0 && dy.cols == dim && dx.cols == dim && dy.rows == x.rows && dx.rows == x.rows);
  DLI_ASSERT(dy.ld >= dim && x.ld >= dim && dx.ld >= dim);
  for (size_t i = 0; i < x.rows; i++) {
    const float *restrict a = x.x + i * x.ld, *restrict d = dy.x + i * dy.ld;
    float *restrict out = dx.x + i * dx.ld;
    const float r = rstd[i];
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (size_t j = 0; j < dim; j++) dot += d[j] * gain[j] * a[j];
    const float c = dot * r * r / (float)dim;
    for (size_t j = 0; j < dim; j++) out[j] += r * (d[j] * gain[j] - a[j] * c);
  }
}

/* erf by a rational minimax approximation on [-4, 4] (the coefficients are those of Eigen and XLA), error below 3e-7.
 */
static inline float erf_approximate(float x) {
  x = x > 4.0f ? 4.0f : x;
  x = x < -4.0f ? -4.0f : x;
  const float t = x * x;
  float p = -2.72614225801306e-10f;
  p = p * t + 2.77068142495902e-08f;
  p = p * t - 2.10102402082508e-06f;
  p = p * t - 5.69250639462346e-05f;
  p = p * t - 7.34990630326855e-04f;
  p = p * t - 2.95459980854025e-03f;
  p = p * t - 1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * t - 2.13374055278905e-04f;
  q = q * t - 1.68282697438203e-03f;
  q = q * t - 7.37332916720468e-03f;
  q = q * t - 1.42647390514189e-02f;
  return x * p / q;
}

/* ---- activations ----
 *
 * y may be x: `omp simd` says that each element depends on itself alone. */

static void gelu(const float *x, size_t rows, size_t width, float *y) {
  const size_t count = rows * width;
#pragma omp simd
  for (size_t i = 0; i < count; i++) y[i] = 0.5f * x[i] * (1.0f + erf_approximate(x[i] * 0.707106781186547524f));
}

/* gelu'(x) = Phi(x) + x phi(x), with the distribution function Phi and the density phi of the normal distribution. */
static void gelu_backward(const float *restrict x, size_t rows, size_t width, float *restrict dx) {
  const size_t count = rows * width;
  for (size_t i = 0; i < count; i++) {
    const float cdf = 0.5f * (1.0f + erf_approximate(x[i] * 0.707106781186547524f));
    const float pdf = 0.398942280401432678f * dli_exp_approximate(-0.5f * x[i] * x[i]);
    dx[i] *= cdf + x[i] * pdf;
  }
}

/* The other activations are x s(u(x)) with s(u) = 1 / (1 + e^-u), and derivative s + x u'(x) s (1 - s). With e = e^-u,
 * s (1 - s) = e s^2 does not cancel. */

static inline float logistic(float u) {
  return 1.0f / (1.0f + dli_exp_approximate(-u));
}

static inline float slope(float x, float u, float du) {
  u = u < -80.0f ? -80.0f : u; /* e s^2 in the range of floats */
  const float e = dli_exp_approximate(-u), s = 1.0f / (1.0f + e);
  return s + x * du * e * s * s;
}

/* 0.5 (1 + tanh(v)) = s(2 v) with v = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline float tanh_argument(float x) {
  return 1.59576912160573071f * x * (1.0f + 0.044715f * x * x);
}

static void gelu_tanh(const float *x, size_t rows, size_t width, float *y) {
  const size_t count = rows * width;
#pragma omp simd
  for (size_t i = 0; i < count; i++) y[i] = x[i] * logistic(tanh_argument(x[i]));
}

static void gelu_tanh_backward(const float *restrict x, size_t rows, size_t width, float *restrict dx) {
  const size_t count = rows * width;
  for (size_t i = 0; i < count; i++) {
    dx[i] *= slope(x[i], tanh_argument(x[i]), 1.59576912160573071f * (1.0f + 0.134145f * x[i] * x[i]));
  }
}

static void quick_gelu(const float *x, size_t rows, size_t width, float *y) {
  const size_t count = rows * width;
#pragma omp simd
  for (size_t i = 0; i < count; i++) y[i] = x[i] * logistic(1.702f * x[i]);
}

static void quick_gelu_backward(const float *restrict x, size_t rows, size_t width, float *restrict dx) {
  const size_t count = rows * width;
  for (size_t i = 0; i < count; i++) dx[i] *= slope(x[i], 1.702f * x[i], 1.702f);
}

/* Row by row from the first: y may be x, whose rows are twice as long and so are read before they are written. */
static void swiglu(const float *x, size_t rows, size_t width, float *y) {
  for (size_t i = 0; i < rows; i++) {
    const float *gate = x + 2 * i * width, *up = gate + width;
    float *out = y + i * width;
#pragma omp simd
    for (size_t j = 0; j < width; j++) out[j] = gate[j] * logistic(gate[j]) * up[j];
  }
}

static void swiglu_backward(const float *restrict x, size_t rows, size_t width, float *restrict dx) {
  for (size_t i = 0; i < rows; i++) {
    const float *restrict gate = x + 2 * i * width, *restrict up = gate + width;
    float *restrict d_gate = dx + 2 * i * width, *restrict d_up = d_gate + width;
    for (size_t j = 0; j < width; j++) {
      const float d = d_up[j];
      d_gate[j] = d * up[j] * slope(gate[j], gate[j], 1.0f);
      d_up[j] = d * gate[j] * logistic(gate[j]);
    }
  }
}

/* ---- rotary positions ---- */

/* One head of a row, x [2 half], whose pairs (u, w) are `step` apart and `gap` wide. */
static inline __attribute__((always_inline)) void rotate_head(float *x, size_t half, size_t step, size_t gap,
                                                              const float *restrict c, const float *restrict s,
                                                              float sign) {
#pragma omp simd
  for (size_t j = 0; j < half; j++) {
    const float u = x[j * step], w = x[j * step + gap], sine = sign * s[j];
    x[j * step] = u * c[j] - w * sine;
    x[j * step + gap] = w * c[j] + u * sine;
  }
}

static void rotate(const struct dli_rotation *rotation, struct dli_matrix x) {
  const size_t half = rotation->width / 2;
  const float sign = rotation->back ? -1.0f : 1.0f;
  DLI_ASSERT(x.cols == rotation->heads * rotation->width && rotation->width % 2 == 0 && x.ld >= x.cols);
  for (size_t i = 0; i < x.rows; i++) {
    const float *c = rotation->cosines + i * half, *s = rotation->sines + i * half;
    for (size_t h = 0; h < rotation->heads; h++) {
      float *head = x.x + i * x.ld + h * rotation->width;
      if (rotation->interleaved) {
        rotate_head(head, half, 2, 1, c, s, sign);
      } else {
        rotate_head(head, half, 1, half, c, s, sign);
      }
    }
  }
}

static void add(const float *restrict x, size_t count, float *restrict y) {
  for (size_t i = 0; i < count; i++) y[i] += x[i];
}

void DLI_FOR_ISA(dli_attention_head_)(const struct dli_attention_head *, float *, float *, size_t, float *);
void DLI_FOR_ISA(dli_attention_head_backward_)(const struct dli_attention_head *, const float *, const float *, size_t,
                                               float *, float *, float *, float *);

#define KERNELS(norm, norm_backward) \
  { \
    DLI_TEXT(DLI_ISA), norm, norm_backward, {gelu, gelu_tanh, quick_gelu, swiglu}, \
        {gelu_backward, gelu_tanh_backward, quick_gelu_backward, swiglu_backward}, DLI_FOR_ISA(dli_attention_head_), \
        DLI_FOR_ISA(dli_attention_head_backward_), rotate, add, \
  }

extern const struct dli_kernels DLI_FOR_ISA(dli_kernels_)[2];
const struct dli_kernels DLI_FOR_ISA(dli_kernels_)[2] = {
    KERNELS(layer_norm, layer_norm_backward),
    KERNELS(rms_norm, rms_norm_backward),
};
