/* Loops between products with bfloat16 factors: conversion to bfloat16 in the orders that oneDNN reads, softmax and
 * GELU, forward and backward. Compiled for AVX512_BF16 alone. Loads and stores at the end of a row are masked, so that
 * no number beyond it is touched.
 * SPDX-License-Identifier: Apache-2.0 */
#include "nn/kernels_bfloat16.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "base/assert.h"

enum { LANES = 16, PANEL = 64, GROUP = DLI_BFLOAT16_GROUP };

static size_t round_up(size_t a, size_t multiple) {
  return (a + multiple - 1) / multiple * multiple;
}

/* ---- registers ---- */

/* Of the LANES numbers from number `first` on, those before number `count`. */
static inline __mmask16 mask_of(size_t first, size_t count) {
  const size_t left = first < count ? count - first : 0;
  return (__mmask16)(left < LANES ? (1u << left) - 1u : 0xffffu);
}

static inline __m512 load(const float *row, size_t first, size_t count) {
  return _mm512_maskz_loadu_ps(mask_of(first, count), row + first);
}

/* To bfloat16. */
static inline __m256i round_one(__m512 x) {
  const __m256bh rounded = _mm512_cvtneps_pbh(x);
  __m256i y;
  memcpy(&y, &rounded, sizeof y);
  return y;
}

static inline __m512i round_two(__m512 low, __m512 high) {
  const __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
  __m512i y;
  memcpy(&y, &rounded, sizeof y);
  return y;
}

static inline __m512 widen(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

/* Two rows as they lie in a panel: a number of the upper and one of the lower by turns. */
static inline __m512i pair(__m256i upper, __m256i lower) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(upper), _mm512_slli_epi32(_mm512_cvtepu16_epi32(lower), 16));
}

/* 16 rows of 16 numbers of 32 bits: in every round the two off-diagonal quarters of each square change places. */
static inline __attribute__((always_inline)) void transpose_square(__m512i r[LANES]) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
#pragma GCC unroll 4
  for (int half = LANES / 2; half; half /= 2) {
    const __mmask16 second = _mm512_test_epi32_mask(lanes, _mm512_set1_epi32(half));
    const __m512i from = _mm512_set1_epi32(LANES);
    /* Lane l of the upper: its own, or lane l - half of the lower; of the lower: lane l + half of the upper, or its
     * own.
     */
    const __m512i upper = _mm512_mask_add_epi32(lanes, second, lanes, _mm512_sub_epi32(from, _mm512_set1_epi32(half)));
    const __m512i lower = _mm512_mask_add_epi32(_mm512_add_epi32(lanes, _mm512_set1_epi32(half)), second, lanes, from);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) {
      if (i & half) continue;
      const __m512i a = r[i], b = r[i + half];
      r[i] = _mm512_permutex2var_epi32(a, upper, b);
      r[i + half] = _mm512_permutex2var_epi32(a, lower, b);
    }
  }
}

/* ---- orders ---- */

static void copy(const float *x, size_t rows, size_t cols, size_t ldx, uint16_t *y, size_t wide, size_t ldy) {
  DLI_ASSERT(ldx >= cols && wide >= cols && ldy >= wide);
  const size_t whole = cols / (2 * LANES) * (2 * LANES);
  for (size_t i = 0; i < rows; i++, x += ldx, y += ldy) {
    for (size_t j = 0; j < whole; j += 2 * LANES) {
      _mm512_storeu_si512(y + j, round_two(_mm512_loadu_ps(x + j), _mm512_loadu_ps(x + j + LANES)));
    }
    for (size_t j = whole; j < wide; j += 2 * LANES) {
      const __mmask32 mask = wide - j < 2 * LANES ? (1u << (wide - j)) - 1u : ~0u;
      _mm512_mask_storeu_epi16(y + j, mask, round_two(load(x, j, cols), load(x, j + LANES, cols)));
    }
  }
}

/* Squares of LANES rows by LANES columns: loaded, transposed in registers, rounded and stored. */
static void copy_transposed(const float *x, size_t rows, size_t cols, size_t ldx, const float *factors, uint16_t *y,
                            size_t wide) {
  DLI_ASSERT(ldx >= cols && wide >= rows && wide % LANES == 0);
  for (size_t i = 0; i < wide; i += LANES) {
    for (size_t j = 0; j < cols; j += LANES) {
      __m512i r[LANES];
      for (size_t l = 0; l < LANES; l++) {
        r[l] = _mm512_setzero_si512();
        if (i + l >= rows) continue;
        const __m512 v = load(x + (i + l) * ldx, j, cols);
        r[l] = _mm512_castps_si512(factors ? _mm512_mul_ps(v, _mm512_set1_ps(factors[i + l])) : v);
      }
      transpose_square(r);
      for (size_t l = 0; l < LANES && j + l < cols; l++) {
        _mm256_storeu_si256((__m256i *)(void *)(y + (j + l) * wide + i), round_one(_mm512_castsi512_ps(r[l])));
      }
    }
  }
}

/* Where an even row i and column j of [rows, ...] lie in panels. */
static inline size_t panel_at(size_t rows, size_t i, size_t j) {
  DLI_ASSERT(i % 2 == 0);
  return j / PANEL * PANEL * round_up(rows, GROUP) + i * PANEL + j % PANEL * 2;
}

/* A panel holds PANEL columns; two rows alternate in it number by number, because one instruction multiplies and adds
 * pairs of bfloat16. Rows and columns that fill it up are 0. */
static void panels(const float *x, size_t rows, size_t cols, size_t ldx, uint16_t *y) {
  for (size_t i = 0; i < round_up(rows, GROUP); i += 2) {
    const size_t in_upper = i < rows ? cols : 0, in_lower = i + 1 < rows ? cols : 0;
    for (size_t j = 0; j < round_up(cols, PANEL); j += LANES) {
      const __m512 upper = load(x + (in_upper ? i : 0) * ldx, j, in_upper);
      const __m512 lower = load(x + (in_lower ? i + 1 : 0) * ldx, j, in_lower);
      _mm512_storeu_si512(y + panel_at(rows, i, j), pair(round_one(upper), round_one(lower)));
    }
  }
}

/* Panels of x^T: pairs of columns of x become pairs of rows. A pair is one word of 32 bits, so that transposing squares
 * of words does it. */
static void panels_transposed(const float *x, size_t rows, size_t cols, size_t ldx, uint16_t *y) {
  for (size_t i = 0; i < round_up(rows, PANEL); i += LANES) {
    for (size_t j = 0; j < round_up(cols, GROUP); j += 2 * LANES) {
      __m512i r[LANES];
      for (size_t l = 0; l < LANES; l++) {
        const float *row = x + (i + l) * ldx;
        r[l] = i + l < rows ? round_two(load(row, j, cols), load(row, j + LANES, cols)) : _mm512_setzero_si512();
      }
      transpose_square(r);
      for (size_t l = 0; l < LANES; l++) _mm512_storeu_si512(y + panel_at(cols, j + 2 * l, i), r[l]);
    }
  }
}

static void transpose(const float *x, size_t rows, size_t cols, size_t ldx, float *y, size_t ldy) {
  DLI_ASSERT(ldx >= rows && ldx % GROUP == 0 && ldy >= cols);
  for (size_t i = 0; i < rows; i += LANES) {
    for (size_t j = 0; j < cols; j += LANES) {
      __m512i r[LANES];
      for (size_t l = 0; l < LANES; l++) {
        r[l] = j + l < cols ? _mm512_loadu_si512(x + (j + l) * ldx + i) : _mm512_setzero_si512();
      }
      transpose_square(r);
      const __mmask16 mask = mask_of(j, cols);
      for (size_t l = 0; l < LANES && i + l < rows; l++) _mm512_mask_storeu_epi32(y + (i + l) * ldy + j, mask, r[l]);
    }
  }
}

/* ---- softmax ---- */

/* 2^x for x <= 0: 2^n and a polynomial of degree 4 on [-1/2, 1/2] (least largest error), relative error below 3e-6,
 * a thousandth of what rounding to bfloat16 loses. Below 2^-125 it is that. NaN stays. */
static inline __m512 exp2_of(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-125.0f), x);    /* of a NaN and a number the second operand is taken */
  const __m512 magic = _mm512_set1_ps(12582912.0f); /* 1.5 * 2^23: rounds to an integer, then in the low bits */
  const __m512 shifted = _mm512_add_ps(x, magic);
  const __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(9.570101276e-3f), _mm512_set1_ps(5.591785908e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402474433e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931217909e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.999992847e-1f));
  /* n is added to the exponent; p is between 0.7 and 1.5, so that none leaves its range. */
  const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n));
}

/* Row by row: the largest score; exponentials of the scaled differences from it, in bfloat16; 1 / their sum before they
 * were rounded. Multiplying the maximum by the scale first leaves one fused operation for each score. Numbers from
 * `count` on become 0. */
static void softmax(const float *s, size_t rows, size_t count, size_t wide, float scale, uint16_t *e, float *inverse) {
  DLI_ASSERT(count > 0 && wide == round_up(count, GROUP));
  const __m512 factor = _mm512_set1_ps(scale * 1.44269504088896341f);
  const size_t whole = count / (2 * LANES) * (2 * LANES);
  const __mmask16 low_mask = mask_of(whole, count), high_mask = mask_of(whole + LANES, count);
  for (size_t i = 0; i < rows; i++, s += wide, e += wide) {
    __m512 top = _mm512_set1_ps(s[0]), other = top, sum = _mm512_setzero_ps();
    for (size_t j = 0; j < whole; j += 2 * LANES) {
      top = _mm512_max_ps(top, _mm512_loadu_ps(s + j));
      other = _mm512_max_ps(other, _mm512_loadu_ps(s + j + LANES));
    }
    top = _mm512_mask_max_ps(top, low_mask, top, _mm512_maskz_loadu_ps(low_mask, s + whole));
    other = _mm512_mask_max_ps(other, high_mask, other, _mm512_maskz_loadu_ps(high_mask, s + whole + LANES));
    const float highest = _mm512_reduce_max_ps(_mm512_max_ps(top, other));
    const __m512 shift = _mm512_mul_ps(_mm512_set1_ps(highest), factor);
    for (size_t j = 0; j < whole; j += 2 * LANES) {
      const __m512 low = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + j), factor, shift));
      const __m512 high = exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(s + j + LANES), factor, shift));
      sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
      _mm512_storeu_si512(e + j, round_two(low, high));
    }
    if (whole < wide) {
      const __m512 low = _mm512_fmsub_ps(_mm512_maskz_loadu_ps(low_mask, s + whole), factor, shift);
      const __m512 high = _mm512_fmsub_ps(_mm512_maskz_loadu_ps(high_mask, s + whole + LANES), factor, shift);
      const __m512 e_low = _mm512_maskz_mov_ps(low_mask, exp2_of(low));
      const __m512 e_high = _mm512_maskz_mov_ps(high_mask, exp2_of(high));
      sum = _mm512_add_ps(sum, _mm512_add_ps(e_low, e_high));
      _mm512_storeu_si512(e + whole, round_two(e_low, e_high));
    }
    inverse[i] = 1.0f / _mm512_reduce_add_ps(sum);
  }
}

static void scale_rows(const float *x, size_t rows, size_t cols, size_t ldx, const float *factors, float *y,
                       uint16_t *half, size_t ldy) {
  DLI_ASSERT(!y != !half && ldx >= cols && ldy >= cols);
  for (size_t i = 0; i < rows; i++) {
    const __m512 factor = _mm512_set1_ps(factors[i]);
    for (size_t j = 0; j < cols; j += LANES) {
      const __m512 v = _mm512_mul_ps(factor, load(x + i * ldx, j, cols));
      if (y) {
        _mm512_mask_storeu_ps(y + i * ldy + j, mask_of(j, cols), v);
      } else {
        _mm256_mask_storeu_epi16(half + i * ldy + j, mask_of(j, cols), round_one(v));
      }
    }
  }
}

/* Sum over a row of p g with p = inverse e. */
static inline float weighted_mean(const uint16_t *e, const float *g, size_t wide, float inverse) {
  __m512 sum = _mm512_setzero_ps();
  for (size_t j = 0; j < wide; j += LANES) {
    const __m512 p = widen(_mm256_loadu_si256((const __m256i *)(const void *)(e + j)));
    sum = _mm512_fmadd_ps(p, _mm512_loadu_ps(g + j), sum);
  }
  return inverse * _mm512_reduce_add_ps(sum);
}

/* Two rows at a time, as panels hold them. For each row the sum of p g, then d = scale p (g - sum). Rows and columns
 * that fill up panels become 0. */
static void softmax_backward(const uint16_t *e, const float *inverse, const float *g, size_t rows, size_t wide,
                             float scale, uint16_t *d, uint16_t *d_panels, uint16_t *e_panels) {
  DLI_ASSERT(wide % GROUP == 0);
  for (size_t i = 0; i < round_up(rows, GROUP); i += 2) {
    float mean[2] = {0.0f}, factor[2] = {0.0f};
    for (size_t l = 0; l < 2 && i + l < rows; l++) {
      mean[l] = weighted_mean(e + (i + l) * wide, g + (i + l) * wide, wide, inverse[i + l]);
      factor[l] = scale * inverse[i + l];
    }
    for (size_t j = 0; j < round_up(wide, PANEL); j += LANES) {
      __m256i p[2], q[2];
      for (size_t l = 0; l < 2; l++) {
        p[l] = q[l] = _mm256_setzero_si256();
        if (i + l >= rows || j >= wide) continue;
        const size_t at = (i + l) * wide + j;
        p[l] = _mm256_loadu_si256((const __m256i *)(const void *)(e + at));
        const __m512 change = _mm512_sub_ps(_mm512_loadu_ps(g + at), _mm512_set1_ps(mean[l]));
        q[l] = round_one(_mm512_mul_ps(_mm512_mul_ps(widen(p[l]), _mm512_set1_ps(factor[l])), change));
        _mm256_storeu_si256((__m256i *)(void *)(d + at), q[l]);
      }
      _mm512_storeu_si512(e_panels + panel_at(rows, i, j), pair(p[0], p[1]));
      _mm512_storeu_si512(d_panels + panel_at(rows, i, j), pair(q[0], q[1]));
    }
  }
}

/* ---- activations ---- */

/* An odd polynomial in x held to [-4.2, 4.2], c its coefficients (least largest error); the ends stand for all beyond.
 * NaN stays. */
static inline __attribute__((always_inline)) __m512 odd_polynomial(__m512 x, const float *c, size_t count) {
  x = _mm512_min_ps(_mm512_set1_ps(4.2f), _mm512_max_ps(_mm512_set1_ps(-4.2f), x));
  const __m512 t = _mm512_mul_ps(x, x);
  __m512 p = _mm512_set1_ps(c[count - 1]);
#pragma GCC unroll 16
  for (size_t i = count - 1; i-- > 0;) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(c[i]));
  return _mm512_mul_ps(p, x);
}

static inline __m512 gelu_of(__m512 x) {
  /* of Phi - 1/2 */
  static const float c[] = {3.989074528e-1f,  -6.636036932e-2f, 9.830130264e-3f,  -1.114148065e-3f, 9.457440319e-5f,
                            -5.760769454e-6f, 2.343674339e-7f,  -5.633318256e-9f, 5.998068708e-11f};
  const __m512 p = odd_polynomial(x, c, sizeof c / sizeof *c);
  return _mm512_mul_ps(x, _mm512_add_ps(p, _mm512_set1_ps(0.5f)));
}

static inline __m512 gelu_slope(__m512 x) {
  /* of Phi + x phi - 1/2 */
  static const float c[] = {7.977742553e-1f,  -2.654612362e-1f, 5.916876718e-2f,  -9.078462608e-3f, 1.006708364e-3f,
                            -8.094508667e-5f, 4.580550467e-6f,  -1.716560405e-7f, 3.797720360e-9f,  -3.735572615e-11f};
  return _mm512_add_ps(odd_polynomial(x, c, sizeof c / sizeof *c), _mm512_set1_ps(0.5f));
}

/* s(u) = 1 / (1 + e^-u): of |u|, since exp2_of takes no positive numbers. Beyond 86 e^-|u| stays at 2^-125. */
static inline __m512 logistic(__m512 u) {
  const __m512 one = _mm512_set1_ps(1.0f), size = _mm512_abs_ps(u);
  const __m512 e = exp2_of(_mm512_mul_ps(size, _mm512_set1_ps(-1.44269504088896341f)));
  const __m512 s = _mm512_div_ps(one, _mm512_add_ps(one, e));
  const __mmask16 negative = _mm512_cmp_ps_mask(u, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mask_mul_ps(s, negative, s, e);
}

/* Derivative of x s(u(x)): s + x u' s (1 - s). */
static inline __m512 slope(__m512 x, __m512 u, __m512 du) {
  const __m512 s = logistic(u), other = logistic(_mm512_sub_ps(_mm512_setzero_ps(), u));
  return _mm512_fmadd_ps(_mm512_mul_ps(x, du), _mm512_mul_ps(s, other), s);
}

/* u and u' of GELU by tanh and of quick GELU, as in nn/kernels.c */
static inline __m512 tanh_argument(__m512 x) {
  const __m512 t = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), _mm512_set1_ps(1.0f));
  return _mm512_mul_ps(_mm512_mul_ps(x, t), _mm512_set1_ps(1.59576912160573071f));
}

static inline __m512 gelu_tanh_of(__m512 x) {
  return _mm512_mul_ps(x, logistic(tanh_argument(x)));
}

static inline __m512 gelu_tanh_slope(__m512 x) {
  const __m512 t = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.134145f), _mm512_set1_ps(1.0f));
  return slope(x, tanh_argument(x), _mm512_mul_ps(t, _mm512_set1_ps(1.59576912160573071f)));
}

static inline __m512 quick_gelu_of(__m512 x) {
  return _mm512_mul_ps(x, logistic(_mm512_mul_ps(x, _mm512_set1_ps(1.702f))));
}

static inline __m512 quick_gelu_slope(__m512 x) {
  return slope(x, _mm512_mul_ps(x, _mm512_set1_ps(1.702f)), _mm512_set1_ps(1.702f));
}

#define DEFINE_ACTIVATION(name) \
  static void name(const float *x, size_t count, uint16_t *y, uint16_t *kept) { \
    for (size_t i = 0; i < count; i += 2 * LANES) { \
      const __m512 low = load(x, i, count), high = load(x, i + LANES, count); \
      const __mmask32 mask = count - i < 2 * LANES ? (1u << (count - i)) - 1u : ~0u; \
      _mm512_mask_storeu_epi16(y + i, mask, round_two(name##_of(low), name##_of(high))); \
      if (kept) _mm512_mask_storeu_epi16(kept + i, mask, round_two(low, high)); \
    } \
  } \
  static void name##_backward(const uint16_t *x, const float *dy, size_t count, uint16_t *dx) { \
    for (size_t i = 0; i < count; i += LANES) { \
      const __mmask16 mask = mask_of(i, count); \
      const __m512 rate = name##_slope(widen(_mm256_maskz_loadu_epi16(mask, x + i))); \
      _mm256_mask_storeu_epi16(dx + i, mask, round_one(_mm512_mul_ps(load(dy, i, count), rate))); \
    } \
  }
DEFINE_ACTIVATION(gelu)
DEFINE_ACTIVATION(gelu_tanh)
DEFINE_ACTIVATION(quick_gelu)

const struct dli_kernels_bfloat16 dli_kernels_bfloat16 = {
    copy,
    copy_transposed,
    panels,
    panels_transposed,
    transpose,
    softmax,
    scale_rows,
    softmax_backward,
    {gelu, gelu_tanh, quick_gelu, NULL},
    {gelu_backward, gelu_tanh_backward, quick_gelu_backward, NULL},
    dli_thin_dot,
    dli_thin_add,
};
