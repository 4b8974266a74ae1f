/* Compiled once per instruction set with DLI_ISA as the suffix of its table; plain loops that the compiler vectorises.
 * Reductions are `omp simd` sums over one row: 8 or 16 partial sums of at most a few hundred terms each. */
#include "nn/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define DLI_PASTE_(a, b) a##b
#define DLI_PASTE(a, b) DLI_PASTE_(a, b)
#define DLI_TEXT_(a) #a
#define DLI_TEXT(a) DLI_TEXT_(a)

static void layer_norm(const float *x, size_t rows, size_t ldx, size_t dim, const float *gain, const float *bias,
                       float eps, float *y, size_t ldy, float *mean, float *rstd) {
  for (size_t i = 0; i < rows; i++) {
    const float *restrict a = x + i * ldx;
    float *restrict b = y + i * ldy;
    float sum = 0.0f, square = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < dim; j++) sum += a[j];
    const float m = sum / (float)dim;
    /* A second pass for the variance: E[x^2] - m^2 cancels where |m| is large. */
#pragma omp simd reduction(+ : square)
    for (size_t j = 0; j < dim; j++) square += (a[j] - m) * (a[j] - m);
    const float r = 1.0f / sqrtf(square / (float)dim + eps);
    if (gain && bias) {
      for (size_t j = 0; j < dim; j++) b[j] = (a[j] - m) * r * gain[j] + bias[j];
    } else {
      for (size_t j = 0; j < dim; j++) b[j] = (a[j] - m) * r;
    }
    if (mean) mean[i] = m;
    if (rstd) rstd[i] = r;
  }
}

static void layer_norm_backward(const float *dy, size_t lddy, const float *x, size_t ldx, size_t rows, size_t dim,
                                const float *gain, const float *mean, const float *rstd, float *dx, size_t lddx) {
  for (size_t i = 0; i < rows; i++) {
    const float *restrict a = x + i * ldx, *restrict d = dy + i * lddy;
    float *restrict out = dx + i * lddx;
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

/* exp by 2^n and a degree 6 polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes), relative error below 2e-7; 0 below -87. */
static inline float exp_approximate(float x) {
  const float low = x;
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  /* The integer sits in the low bits of `shifted`; unsigned arithmetic keeps NaN well defined (it stays NaN through p).
   */
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return low < -87.0f ? 0.0f : p * power;
}

/* y may be x: `omp simd` says that each element depends on itself alone. */
static void gelu(const float *x, size_t count, float *y) {
#pragma omp simd
  for (size_t i = 0; i < count; i++) y[i] = 0.5f * x[i] * (1.0f + erf_approximate(x[i] * 0.707106781186547524f));
}

static void gelu_backward(const float *restrict x, size_t count, float *restrict dy) {
  for (size_t i = 0; i < count; i++) {
    const float cdf = 0.5f * (1.0f + erf_approximate(x[i] * 0.707106781186547524f));
    const float pdf = 0.398942280401432678f * exp_approximate(-0.5f * x[i] * x[i]);
    dy[i] *= cdf + x[i] * pdf;
  }
}

/* In 16 lanes by hand: not every compiler vectorises a maximum that must respect NaN. */
static inline float row_maximum(const float *a, size_t count) {
  float lanes[16];
  for (size_t l = 0; l < 16; l++) lanes[l] = a[0];
  size_t j = 0;
  for (; j + 16 <= count; j += 16) {
    for (size_t l = 0; l < 16; l++) lanes[l] = a[j + l] > lanes[l] ? a[j + l] : lanes[l];
  }
  float top = lanes[0];
  for (size_t l = 1; l < 16; l++) top = lanes[l] > top ? lanes[l] : top;
  for (; j < count; j++) top = a[j] > top ? a[j] : top;
  return top;
}

static void softmax(float *s, size_t rows, size_t cols, float scale) {
  for (size_t i = 0; i < rows; i++) {
    float *restrict a = s + i * cols;
    const float top = row_maximum(a, cols);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < cols; j++) {
      const float e = exp_approximate(scale * (a[j] - top));
      a[j] = e;
      sum += e;
    }
    const float inverse = 1.0f / sum;
    for (size_t j = 0; j < cols; j++) a[j] *= inverse;
  }
}

static void softmax_backward(const float *p, size_t rows, size_t cols, float scale, float *dp) {
  for (size_t i = 0; i < rows; i++) {
    const float *restrict a = p + i * cols;
    float *restrict d = dp + i * cols;
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (size_t j = 0; j < cols; j++) dot += a[j] * d[j];
    for (size_t j = 0; j < cols; j++) d[j] = scale * a[j] * (d[j] - dot);
  }
}

static void add(const float *restrict x, size_t count, float *restrict y) {
  for (size_t i = 0; i < count; i++) y[i] += x[i];
}

extern const struct dli_kernels DLI_PASTE(dli_kernels_, DLI_ISA);
const struct dli_kernels DLI_PASTE(dli_kernels_, DLI_ISA) = {
    DLI_TEXT(DLI_ISA), layer_norm, layer_norm_backward, gelu, gelu_backward, softmax, softmax_backward, add,
};
