/* Attention of one head, compiled once per instruction set. All products are of one form:
 *
 *     c [rows, columns] = a [rows, depth] b [depth, columns]
 *
 * b is read in whole registers, a one number at a time with two strides, so that it may be transposed. The sums of a
 * few rows of a with a few registers of b stay in registers over the whole depth. Scores, softmax and weighted values
 * of these rows follow one another while they are in the first cache.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stddef.h>

#include "base/assert.h"
#include "nn/isa.h"
#include "nn/kernels.h"

/* A register; one whose memory is aligned like any float; its bits. */
typedef float vector __attribute__((vector_size(DLI_LANES * sizeof(float))));
typedef float loose_vector __attribute__((vector_size(DLI_LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef uint32_t bits __attribute__((vector_size(DLI_LANES * sizeof(float))));

/* ROWS * VECTORS sums, VECTORS operands and one number fit the registers: 32 with AVX-512, 16 otherwise. */
#if DLI_LANES == 16
enum { LANES = DLI_LANES, ROWS = 6, VECTORS = 4 };
#else
enum { LANES = DLI_LANES, ROWS = 4, VECTORS = 3 };
#endif
_Static_assert((int)ROWS <= (int)DLI_ATTENTION_ROWS && DLI_ATTENTION_LANES % LANES == 0, "scratch is too small");

static size_t padded(size_t count) {
  return (count + LANES - 1) / LANES * LANES;
}

/* ---- the product ---- */

/* The operand a, by two strides: number (i, k) is values[i * row + k * step]. */
struct strided {
  const float *values;
  size_t row, step;
};

/* The operand b: registers of LANES columns. */
struct columns {
  const float *values;
  size_t step;  /* from one of `depth` to the next */
  size_t block; /* from one register to the next */
  size_t count; /* registers */
};

/* c [rows, vectors * LANES] of the product above: rows * vectors sums stay in registers while depth runs, and each
 * number of a is used `vectors` times, each register of b `rows` times. Inlined with both counts known, so that the
 * loops over them unroll. */
static inline __attribute__((always_inline)) void tile(size_t rows, size_t vectors, size_t depth,
                                                       const struct strided *first, const struct columns *second,
                                                       float *c, size_t ldc) {
  const float *a = first->values, *b = second->values;
  const size_t a_row = first->row, a_step = first->step, b_step = second->step, b_block = second->block;
  vector sum[ROWS][VECTORS];
#pragma GCC unroll 8
  for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
    for (size_t j = 0; j < vectors; j++) sum[i][j] = (vector){0.0f};
  }
  for (size_t k = 0; k < depth; k++, a += a_step, b += b_step) {
    vector v[VECTORS];
#pragma GCC unroll 8
    for (size_t j = 0; j < vectors; j++) v[j] = *(const loose_vector *)(b + j * b_block);
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t j = 0; j < vectors; j++) sum[i][j] += a[i * a_row] * v[j];
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
    for (size_t j = 0; j < vectors; j++) *(loose_vector *)(c + i * ldc + j * LANES) = sum[i][j];
  }
}

#define DEFINE_TILE(rows, vectors) \
  static void tile_##rows##_##vectors(size_t depth, const struct strided *a, const struct columns *b, float *c, \
                                      size_t ldc) { \
    tile(rows, vectors, depth, a, b, c, ldc); \
  }
#if DLI_LANES == 16
#define FOR_VECTORS(X, rows) X(rows, 1) X(rows, 2) X(rows, 3) X(rows, 4)
#define FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else
#define FOR_VECTORS(X, rows) X(rows, 1) X(rows, 2) X(rows, 3)
#define FOR_ROWS(X) X(1) X(2) X(3) X(4)
#endif
#define DEFINE_TILES(rows) FOR_VECTORS(DEFINE_TILE, rows)
FOR_ROWS(DEFINE_TILES)

typedef void tile_function(size_t depth, const struct strided *a, const struct columns *b, float *c, size_t ldc);
#define NAME_OF_TILE(rows, vectors) tile_##rows##_##vectors,
#define NAMES_OF_TILES(rows) {FOR_VECTORS(NAME_OF_TILE, rows)},
static tile_function *const tiles[ROWS][VECTORS] = {FOR_ROWS(NAMES_OF_TILES)};

/* c [rows, b->count * LANES] = a [rows, depth] b [depth, ...], at most ROWS rows. The registers of b are divided into
 * as few tiles as possible, of nearly equal width: in a narrow tile each multiplication waits for the one before it. */
static void product(size_t rows, size_t depth, const struct strided *a, const struct columns *b, float *c, size_t ldc) {
  DLI_ASSERT(rows >= 1 && rows <= ROWS && ldc >= b->count * LANES);
  struct columns part = *b; /* from column j * LANES on */
  size_t parts = (b->count + VECTORS - 1) / VECTORS;
  for (size_t j = 0, vectors; j < b->count; j += vectors, parts--) {
    vectors = (b->count - j + parts - 1) / parts;
    part.values = b->values + j * b->block;
    tiles[rows - 1][vectors - 1](depth, a, &part, c + j * LANES, ldc);
  }
}

/* ---- operands ---- */

/* x [rows, cols] as it is, or, where a row is no whole number of registers, a copy with zeros behind; moves *scratch
 * on.
 */
static struct columns columns_of(const float *x, size_t rows, size_t cols, size_t ldx, float **scratch) {
  DLI_ASSERT(ldx >= cols);
  const size_t wide = padded(cols);
  float *copy = *scratch;
  if (cols == wide) return (struct columns){x, ldx, LANES, cols / LANES};
  for (size_t i = 0; i < rows; i++) {
    memcpy(copy + i * wide, x + i * ldx, cols * sizeof *copy);
    memset(copy + i * wide + cols, 0, (wide - cols) * sizeof *copy);
  }
  *scratch += rows * wide;
  return (struct columns){copy, wide, LANES, wide / LANES};
}

/* x [rows, cols]^T as registers of LANES columns: LANES rows of x are interleaved at a time. Columns beyond the last
 * one are copies of it; the caller ignores them. */
static struct columns columns_of_transposed(const float *x, size_t rows, size_t cols, size_t ldx, float **scratch) {
  DLI_ASSERT(rows > 0 && ldx >= cols);
  const size_t count = padded(rows) / LANES;
  float *copy = *scratch;
  for (size_t i = 0; i < count; i++) {
    const float *from[LANES];
    float *restrict out = copy + i * cols * LANES;
    for (size_t l = 0; l < LANES; l++) from[l] = x + (i * LANES + l < rows ? i * LANES + l : rows - 1) * ldx;
#pragma omp simd
    for (size_t j = 0; j < cols; j++) {
#pragma GCC unroll 16
      for (size_t l = 0; l < LANES; l++) out[j * LANES + l] = from[l][j];
    }
  }
  *scratch += cols * count * LANES;
  return (struct columns){copy, LANES, cols * LANES, count};
}

/* ---- softmax ---- */

static inline vector choose(bits mask, vector a, vector b) {
  return (vector)((mask & (bits)a) | (~mask & (bits)b));
}

static float sum_of(vector v) {
  float lanes[LANES];
  memcpy(lanes, &v, sizeof v);
  for (size_t half = LANES / 2; half; half /= 2) {
    for (size_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

/* Not NaN unless the first number of one of the lanes is, and then the sum of exponentials shows it. */
static float maximum_of(vector v) {
  float lanes[LANES];
  memcpy(lanes, &v, sizeof v);
  for (size_t half = LANES / 2; half; half /= 2) {
    for (size_t l = 0; l < half; l++) lanes[l] = lanes[l + half] > lanes[l] ? lanes[l + half] : lanes[l];
  }
  return lanes[0];
}

/* 2^x for x <= 0: 2^n and a polynomial of degree 6 on [-1/2, 1/2] (Cephes), relative error below 2e-7. Below 2^-100 it
 * is that: added to a sum of at least 1, nothing, and a number whose products with others do not become denormal. NaN
 * stays. */
static inline vector exp2_of(vector x) {
  const vector low = {0.0f};
  x = choose((bits)(x < low - 100.0f), low - 100.0f, x);
  const vector shifted = x + 12582912.0f; /* 1.5 * 2^23: rounds to an integer, which is then in the low bits */
  const vector f = x - (shifted - 12582912.0f);
  vector p = f * 1.535336188319500e-4f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.0f;
  return p * (vector)(((bits)shifted + 127u) << 23);
}

/* s [count] becomes exp(scale * (s - its maximum)); returns the sum. */
static float exponentials(float *s, size_t count, float scale) {
  DLI_ASSERT(count > 0 && count % LANES == 0);
  vector top = *(const loose_vector *)s, sum = {0.0f};
  for (size_t j = LANES; j < count; j += LANES) {
    const vector v = *(const loose_vector *)(s + j);
    top = choose((bits)(v > top), v, top);
  }
  const float highest = maximum_of(top), factor = scale * 1.44269504088896341f;
  for (size_t j = 0; j < count; j += LANES) {
    const vector e = exp2_of((*(const loose_vector *)(s + j) - highest) * factor);
    *(loose_vector *)(s + j) = e;
    sum += e;
  }
  return sum_of(sum);
}

/* ---- forward ----
 *
 * For a few queries at a time, at most ROWS:
 *
 *     1   scores = q k^T                                       [rows, columns]: tokens padded to whole registers
 *     2   padding columns become -inf, so that their exponentials are next to nothing
 *     3   e = exp(scale (scores - their maximum)), and its sum
 *     4   if a backward pass follows, the probabilities e / sum are kept
 *     5   weighted = e v                                       [rows, wide]: width padded to whole registers
 *     6   out = weighted / sum: scales `width` numbers a query, where e / sum would scale all scores
 *
 * Steps 1 to 6 of these queries follow one another while the scores are in the first cache; no array of all scores
 * exists. */

void DLI_FOR_ISA(dli_attention_head_)(const struct dli_attention_head *head, float *probabilities, float *out,
                                      size_t ldout, float *scratch) {
  const size_t tokens = head->tokens, width = head->width, columns = padded(tokens), wide = padded(width);
  const struct columns keys = columns_of_transposed(head->k, tokens, width, head->ld, &scratch);
  const struct columns values = columns_of(head->v, tokens, width, head->ld, &scratch);
  float *scores = scratch;                   /* [ROWS, columns] */
  float *weighted = scores + ROWS * columns; /* [ROWS, wide] */
  for (size_t first = 0; first < head->queries; first += ROWS) {
    const size_t rows = head->queries - first < ROWS ? head->queries - first : ROWS;
    float inverse[ROWS];
    const struct strided q = {head->q + first * head->ld, head->ld, 1}, weights = {scores, columns, 1};
    product(rows, width, &q, &keys, scores, columns);
    for (size_t i = 0; i < rows; i++) {
      float *row = scores + i * columns;
      for (size_t j = tokens; j < columns; j++) row[j] = -INFINITY;
      inverse[i] = 1.0f / exponentials(row, columns, head->scale);
      if (!probabilities) continue;
      float *kept = probabilities + (first + i) * tokens;
      for (size_t j = 0; j < tokens; j++) kept[j] = row[j] * inverse[i];
    }
    product(rows, tokens, &weights, &values, weighted, wide);
    for (size_t i = 0; i < rows; i++) {
      for (size_t j = 0; j < width; j++) out[(first + i) * ldout + j] = weighted[i * wide + j] * inverse[i];
    }
  }
}

/* ---- backward ----
 *
 * With p the probabilities, s the scaled scores and d_<array> the gradient with respect to the array:
 *
 *     1   d_p = d_out v^T                                      [queries, tokens]
 *     2   d_s = p (d_p - sum over tokens of d_p p)             through softmax
 *     3   dq = scale d_s k                                     [queries, width]
 *     4   dv = p^T d_out                                       [tokens, width]
 *     5   dk = scale d_s^T q                                   [tokens, width]
 *
 * Steps 1 to 3 work on a few queries at a time, as forward does. Steps 4 and 5 sum over queries and read p and d_s by
 * columns, for which the product's two strides are there. The scale is part of step 2. */

/* d [count] = scale * p * (d - sum(d * p)): from the gradient of probabilities to that of the unscaled scores. */
static void softmax_backward(const float *restrict p, size_t count, float scale, float *restrict d) {
  vector sums = {0.0f};
  size_t j = 0;
  for (; j + LANES <= count; j += LANES) sums += *(const loose_vector *)(p + j) * *(const loose_vector *)(d + j);
  float dot = sum_of(sums);
  for (; j < count; j++) dot += p[j] * d[j];
  for (j = 0; j < count; j++) d[j] = scale * p[j] * (d[j] - dot);
}

/* out [rows, width] = a [rows, depth] b [depth, width], ROWS rows at a time; through `block` where a row of b was
 * padded.
 */
static void product_to(size_t rows, size_t depth, struct strided a, const struct columns *b, size_t width, float *out,
                       size_t ldout, float *block) {
  const size_t wide = b->count * LANES;
  for (size_t first = 0; first < rows; first += ROWS) {
    const size_t count = rows - first < ROWS ? rows - first : ROWS;
    const struct strided part = {a.values + first * a.row, a.row, a.step};
    float *to = out + first * ldout;
    if (width == wide) {
      product(count, depth, &part, b, to, ldout);
      continue;
    }
    product(count, depth, &part, b, block, wide);
    for (size_t i = 0; i < count; i++) memcpy(to + i * ldout, block + i * wide, width * sizeof *out);
  }
}

void DLI_FOR_ISA(dli_attention_head_backward_)(const struct dli_attention_head *head, const float *probabilities,
                                               const float *d_out, size_t ld_d_out, float *dq, float *dk, float *dv,
                                               float *scratch) {
  const size_t tokens = head->tokens, queries = head->queries, width = head->width, ld = head->ld;
  const size_t columns = padded(tokens);
  const struct columns values = columns_of_transposed(head->v, tokens, width, ld, &scratch);
  const struct columns keys = columns_of(head->k, tokens, width, ld, &scratch);
  const struct columns asking = columns_of(head->q, queries, width, ld, &scratch);
  const struct columns d = columns_of(d_out, queries, width, ld_d_out, &scratch);
  float *d_scores = scratch;                   /* [queries, columns] */
  float *block = d_scores + queries * columns; /* [ROWS, wide] */
  for (size_t first = 0; first < queries; first += ROWS) {
    const size_t rows = queries - first < ROWS ? queries - first : ROWS;
    float *s = d_scores + first * columns;
    const struct strided d_rows = {d_out + first * ld_d_out, ld_d_out, 1};
    product(rows, width, &d_rows, &values, s, columns);
    for (size_t i = 0; i < rows; i++) {
      softmax_backward(probabilities + (first + i) * tokens, tokens, head->scale, s + i * columns);
    }
    product_to(rows, tokens, (struct strided){s, columns, 1}, &keys, width, dq + first * ld, ld, block);
  }
  product_to(tokens, queries, (struct strided){probabilities, 1, tokens}, &d, width, dv, ld, block);
  product_to(tokens, queries, (struct strided){d_scores, 1, columns}, &asking, width, dk, ld, block);
}
