/* Products y = x b with a constant matrix b in oneDNN's order, b in float32 or bfloat16, sums in float32. With bfloat16
 * the result of a row does not depend on the other rows of x: sums have a fixed depth, and products too small for the
 * usual kernel get additional rows of zeros.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/packed.h"

#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

/* Rows of b that one bfloat16 kernel sums up. With up to 896, the kernels of oneDNN 2.6 for AMX and for AVX512_BF16
 * give a row of y the same value for any number of rows of x from 2 on, provided that y has more than 256 numbers; with
 * fewer it does not use AMX. */
enum { BFLOAT16_DEPTH = DLI_SLAB, LEAST_ROWS = 2, LEAST_NUMBERS = 256 };
_Static_assert(BFLOAT16_DEPTH % (2 * DLI_ONEDNN_TILE) == 0, "a full part ends with a whole tile");

static size_t round_up(size_t a, size_t multiple) {
  return (a + multiple - 1) / multiple * multiple;
}

static size_t value_size(bool bfloat16) {
  return bfloat16 ? sizeof(uint16_t) : sizeof(float);
}

/* Rows of b in the part that begins with row k. */
static size_t part_depth(const struct dli_packed *packed, size_t k) {
  DLI_ASSERT(k < packed->inner && k % packed->depth == 0);
  return packed->inner - k < packed->depth ? packed->inner - k : packed->depth;
}

/* Values of one panel of columns of a part. */
static size_t panel_size(const struct dli_packed *packed, size_t depth) {
  return round_up(depth, packed->bfloat16 ? 2 * DLI_ONEDNN_TILE : DLI_ONEDNN_TILE) * DLI_ONEDNN_PANEL;
}

static size_t num_panels(const struct dli_packed *packed) {
  return round_up(packed->outer, DLI_ONEDNN_PANEL) / DLI_ONEDNN_PANEL;
}

/* Values before the part that begins with row k: those before it are full and end with a whole tile. */
static size_t part_offset(const struct dli_packed *packed, size_t k) {
  DLI_ASSERT(k % packed->depth == 0);
  return k * num_panels(packed) * DLI_ONEDNN_PANEL;
}

dlora_status dli_packed_create(struct dli_packed **out, const struct dli_onednn *onednn, size_t inner, size_t outer,
                               const dlora_allocator *allocator) {
  struct dli_packed *packed;
  DLI_TRY(DLI_NEW(allocator, packed, 1));
  const bool bfloat16 = dli_onednn_bfloat16(onednn);
  *packed = (struct dli_packed){
      .inner = inner, .outer = outer, .depth = bfloat16 ? BFLOAT16_DEPTH : inner, .bfloat16 = bfloat16};
  DLI_ASSERT(inner > 0 && outer > 0);
  const size_t last = (inner - 1) / packed->depth * packed->depth;
  const size_t count = part_offset(packed, last) + num_panels(packed) * panel_size(packed, inner - last);
  packed->values = dli_alloc(allocator, count, value_size(bfloat16));
  if (!packed->values) {
    dli_packed_destroy(packed, allocator);
    return DLORA_ERR_NO_MEMORY;
  }
  *out = packed;
  return DLORA_OK;
}

void dli_packed_destroy(struct dli_packed *packed, const dlora_allocator *allocator) {
  if (!packed) return;
  dli_free(allocator, packed->values);
  dli_free(allocator, packed);
}

/* Ties to even; NaN stays NaN. */
static inline uint16_t to_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const uint32_t nan = bits >> 16 | 0x40u;
  return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : nearest);
}

static inline float of_bfloat16(uint16_t value) {
  const uint32_t bits = (uint32_t)value << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

/* Number (k, n) of a part lies in panel n / 64, there in row k / group and column n % 64; `group` consecutive rows
 * alternate number by number: 2 in bfloat16, whose instructions multiply pairs, else 1. */
static void fill_part(struct dli_packed *packed, size_t first, const float *w, size_t ld, bool transposed) {
  const size_t depth = part_depth(packed, first), size = panel_size(packed, depth), group = packed->bfloat16 ? 2 : 1;
  const size_t offset = part_offset(packed, first);
  for (size_t n = 0; n < packed->outer; n++) {
    const size_t column = offset + n / DLI_ONEDNN_PANEL * size + n % DLI_ONEDNN_PANEL * group;
    for (size_t k = 0; k < depth; k++) {
      const float value = transposed ? w[n * ld + first + k] : w[(first + k) * ld + n];
      const size_t at = column + k / group * group * DLI_ONEDNN_PANEL + k % group;
      if (packed->bfloat16) {
        ((uint16_t *)packed->values)[at] = to_bfloat16(value);
      } else {
        ((float *)packed->values)[at] = value;
      }
    }
  }
}

void dli_packed_fill(struct dli_packed *packed, const float *w, size_t ld, bool transposed) {
  DLI_ASSERT(ld >= (transposed ? packed->inner : packed->outer));
  for (size_t first = 0; first < packed->inner; first += packed->depth) fill_part(packed, first, w, ld, transposed);
}

/* ---- one thread's products ---- */

/* Forward and backward have about 30 shapes in bfloat16, and most of them again for each size of a last, smaller group
 * of images. */
enum { MAX_KERNELS = 128 };
/* Bytes that kernels work in; most need a few hundred for each thread. */
enum { SCRATCH = 1 << 16 };

struct dli_products {
  const struct dli_onednn *onednn;
  dlora_allocator allocator;
  struct dli_onednn_kernel kernels[MAX_KERNELS];
  size_t next; /* kernel that the next new shape replaces */
  size_t rows, inner, outer;
  void *input;   /* input_count numbers: a slab with additional rows, or rows in float32 without gaps */
  float *output; /* output_count numbers: results with additional rows or columns, or whose rows have gaps */
  void *scratch;
  size_t scratch_size;
};

/* Columns of one product in bfloat16: a slab, and the rest of the panels in which it begins and ends. */
enum { MOST_COLUMNS = DLI_SLAB + 2 * DLI_ONEDNN_PANEL };

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

static size_t input_count(const struct dli_products *p) {
  if (!dli_onednn_bfloat16(p->onednn)) return p->rows * p->inner;
  return larger(p->rows, LEAST_NUMBERS + 1) * (p->inner < BFLOAT16_DEPTH ? p->inner : BFLOAT16_DEPTH);
}

static size_t output_count(const struct dli_products *p) {
  if (!dli_onednn_bfloat16(p->onednn)) return p->rows * p->outer;
  return larger(p->rows, LEAST_ROWS) * MOST_COLUMNS;
}

dlora_status dli_products_create(struct dli_products **out, const struct dli_onednn *onednn, size_t rows, size_t inner,
                                 size_t outer, const dlora_allocator *allocator) {
  dlora_status status;
  struct dli_products *p;
  DLI_TRY(DLI_NEW(allocator, p, 1));
  p->onednn = onednn;
  p->allocator = *allocator;
  p->rows = rows;
  p->inner = inner;
  p->outer = outer;
  p->input = dli_alloc(allocator, input_count(p), value_size(dli_onednn_bfloat16(onednn)));
  p->scratch = dli_alloc(allocator, SCRATCH, 1);
  p->scratch_size = SCRATCH;
  status = p->input && p->scratch ? DLI_NEW(allocator, p->output, output_count(p)) : DLORA_ERR_NO_MEMORY;
  if (status != DLORA_OK) {
    dli_products_destroy(p);
    return status;
  }
  *out = p;
  return DLORA_OK;
}

void dli_products_destroy(struct dli_products *p) {
  if (!p) return;
  const dlora_allocator allocator = p->allocator;
  for (size_t i = 0; i < MAX_KERNELS; i++) dli_onednn_kernel_destroy(&p->kernels[i], p->onednn);
  dli_free(&allocator, p->input);
  dli_free(&allocator, p->output);
  dli_free(&allocator, p->scratch);
  dli_free(&allocator, p);
}

size_t dli_products_bytes(const struct dli_products *p) {
  const size_t input = input_count(p) * value_size(dli_onednn_bfloat16(p->onednn));
  return sizeof *p + input + output_count(p) * sizeof *p->output + p->scratch_size;
}

static bool same_shape(const struct dli_onednn_shape *a, const struct dli_onednn_shape *b) {
  return a->m == b->m && a->inner == b->inner && a->outer == b->outer && a->bias == b->bias &&
         a->accumulate == b->accumulate && a->threads == b->threads;
}

/* The kernel for a shape: one that exists, or a new one in the place of the oldest. NULL without memory. */
static const struct dli_onednn_kernel *find_kernel(struct dli_products *p, const struct dli_onednn_shape *shape) {
  for (size_t i = 0; i < MAX_KERNELS; i++) {
    if (same_shape(&p->kernels[i].shape, shape)) return &p->kernels[i];
  }
  struct dli_onednn_kernel *kernel = &p->kernels[p->next];
  dli_onednn_kernel_destroy(kernel, p->onednn);
  /* Inside a parallel loop too, where oneDNN would plan for all processors. */
  const int entered = dli_threads_enter(shape->threads);
  const bool made = dli_onednn_kernel_create(kernel, p->onednn, shape);
  dli_threads_leave(entered);
  if (!made) return NULL;
  if (kernel->scratch_size > p->scratch_size) {
    void *scratch = dli_alloc(&p->allocator, kernel->scratch_size, 1);
    if (!scratch) {
      dli_onednn_kernel_destroy(kernel, p->onednn);
      return NULL;
    }
    dli_free(&p->allocator, p->scratch);
    p->scratch = scratch;
    p->scratch_size = kernel->scratch_size;
  }
  p->next = (p->next + 1) % MAX_KERNELS;
  return kernel;
}

#if defined(__x86_64__) && defined(__GNUC__)
/* No model has these products where the instructions are missing. Denormals become zeros, as in the products. */
__attribute__((target("avx512f,avx512bf16"))) static void convert(const float *restrict x, size_t count,
                                                                  uint16_t *restrict y) {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
    memcpy(y + i, &rounded, sizeof rounded);
  }
  for (; i < count; i++) y[i] = to_bfloat16(x[i]);
}
#else
static void convert(const float *restrict x, size_t count, uint16_t *restrict y) {
  for (size_t i = 0; i < count; i++) y[i] = to_bfloat16(x[i]);
}
#endif

/* The numbers of x without gaps. */
static const float *without_gaps(struct dli_products *p, struct dli_const_matrix x) {
  if (x.ld == x.cols) return x.x;
  DLI_ASSERT(x.ld > x.cols && x.rows * x.cols <= input_count(p));
  for (size_t i = 0; i < x.rows; i++) memcpy((float *)p->input + i * x.cols, x.x + i * x.ld, x.cols * sizeof *x.x);
  return p->input;
}

/* The numbers of x in bfloat16. */
static const uint16_t *convert_slab(struct dli_products *p, struct dli_const_matrix x) {
  uint16_t *to = p->input;
  DLI_ASSERT(x.ld >= x.cols && x.rows * x.cols <= input_count(p));
  if (x.ld == x.cols) {
    convert(x.x, x.rows * x.cols, to);
  } else {
    for (size_t i = 0; i < x.rows; i++) convert(x.x + i * x.ld, x.cols, to + i * x.cols);
  }
  return to;
}

/* y [m, outer] = x [m, inner] b, plus bias, plus y if accumulate: for the case that no kernel can be made for want of
 * memory. In bfloat16 the caller has no other way left, since x and b exist in this form only. */
static void multiply_plainly(const struct dli_onednn_shape *shape, const float *bias, const uint16_t *x,
                             const uint16_t *b, float *y) {
  const size_t panel = round_up(shape->inner, 2 * DLI_ONEDNN_TILE) * DLI_ONEDNN_PANEL;
  for (size_t i = 0; i < shape->m; i++) {
    for (size_t n = 0; n < shape->outer; n++) {
      const uint16_t *column = b + n / DLI_ONEDNN_PANEL * panel + n % DLI_ONEDNN_PANEL * 2;
      float *to = y + i * shape->outer + n, sum = (bias ? bias[n] : 0.0f) + (shape->accumulate ? *to : 0.0f);
      for (size_t k = 0; k < shape->inner; k++) {
        sum += of_bfloat16(x[i * shape->inner + k]) * of_bfloat16(column[k / 2 * 2 * DLI_ONEDNN_PANEL + k % 2]);
      }
      *to = sum;
    }
  }
}

static void multiply(struct dli_products *p, const struct dli_onednn_shape *shape, const float *bias, const uint16_t *x,
                     const uint16_t *b, float *y) {
  const struct dli_onednn_kernel *kernel = find_kernel(p, shape);
  if (kernel && dli_onednn_kernel_run(kernel, p->onednn, x, b, bias, y, p->scratch)) return;
  multiply_plainly(shape, bias, x, b, y);
}

/* x [m, depth] followed by rows of zeros, [rows, depth] */
static const uint16_t *with_more_rows(struct dli_products *p, const uint16_t *x, size_t m, size_t rows, size_t depth) {
  uint16_t *to = p->input;
  DLI_ASSERT(rows >= m && rows * depth <= input_count(p));
  if (x != to) memcpy(to, x, m * depth * sizeof *to);
  memset(to + m * depth, 0, (rows - m) * depth * sizeof *to);
  return to;
}

/* The product of one slab x with part `number` of b, at most DLI_SLAB columns of it: this block of b stays in the
 * second cache while all rows of x use it.
 *
 *     1   columns [first, first + count) are extended to whole panels [low, end), rows to the least number for which
 * the kernel does not depend on it (LEAST_ROWS, LEAST_NUMBERS) 2   if this or a gap between rows of y makes it
 * necessary, the product goes aside, into p->output 3   when accumulating, y is copied there first and the kernel adds
 * to it: sums have the same order as in place 4   the product 5   columns and rows that were wanted are copied to y */
static void multiply_columns(struct dli_products *p, const struct dli_packed *packed, size_t number, size_t first,
                             const float *bias, const uint16_t *x, bool accumulate, struct dli_matrix y) {
  /* 1 */
  const size_t m = y.rows, count = y.cols;
  const size_t low = first / DLI_ONEDNN_PANEL * DLI_ONEDNN_PANEL, end = round_up(first + count, DLI_ONEDNN_PANEL);
  const size_t outer = (end < packed->outer ? end : packed->outer) - low;
  const struct dli_onednn_shape shape = {.m = larger(m, larger(LEAST_ROWS, LEAST_NUMBERS / outer + 1)),
                                         .inner = part_depth(packed, number * packed->depth),
                                         .outer = outer,
                                         .bias = bias != NULL,
                                         .accumulate = accumulate,
                                         .threads = dli_threads_current()};
  /* 2 */
  const bool aside = y.ld != count || shape.outer != count || shape.m != m;
  DLI_ASSERT(packed->bfloat16 && count <= DLI_SLAB && first + count <= packed->outer && y.ld >= count);
  DLI_ASSERT(!aside || shape.m * outer <= output_count(p));
  float *out = aside ? p->output : y.x, *from = out + (first - low);
  const uint16_t *b = packed->values;
  b += part_offset(packed, number * packed->depth) + low / DLI_ONEDNN_PANEL * panel_size(packed, shape.inner);
  /* 3 */
  for (size_t i = 0; aside && accumulate && i < m; i++) {
    memcpy(from + i * shape.outer, y.x + i * y.ld, count * sizeof *y.x);
  }
  /* 4 */
  if (shape.m != m) x = with_more_rows(p, x, m, shape.m, shape.inner);
  multiply(p, &shape, bias ? bias + low : NULL, x, b, out);
  /* 5 */
  for (size_t i = 0; aside && i < m; i++) memcpy(y.x + i * y.ld, from + i * shape.outer, count * sizeof *y.x);
}

void dli_products_slab(struct dli_products *p, const struct dli_packed *packed, size_t number, size_t first,
                       const float *bias, const uint16_t *x, bool accumulate, struct dli_matrix y) {
  const int entered = dli_blas_enter();
  for (size_t j = 0, n; j < y.cols; j += n) {
    n = y.cols - j < DLI_SLAB ? y.cols - j : DLI_SLAB;
    multiply_columns(p, packed, number, first + j, bias, x, accumulate, dli_view(y.x + j, y.rows, n, y.ld));
  }
  dli_blas_leave(entered);
}

void dli_products_slabs(struct dli_products *p, const struct dli_packed *packed, size_t first, const float *bias,
                        const uint16_t *x, bool accumulate, struct dli_matrix y) {
  for (size_t k = 0; k < packed->inner; k += packed->depth) {
    dli_products_slab(p, packed, k / packed->depth, first, k > 0 ? NULL : bias, x + k * y.rows, accumulate || k > 0, y);
  }
}

void dli_products_multiply(struct dli_products *p, size_t m, size_t inner, size_t outer, const uint16_t *x,
                           const uint16_t *b, float *y) {
  const struct dli_onednn_shape shape = {.m = m, .inner = inner, .outer = outer, .threads = 1};
  const int entered = dli_threads_enter(1);
  multiply(p, &shape, NULL, x, b, y);
  dli_threads_leave(entered);
}

/* x [m, inner] in float32, converted slab by slab. The product with the first slab brings the bias, and the later ones
 * add to it. */
static void run_bfloat16(struct dli_products *p, const struct dli_packed *packed, size_t first, const float *bias,
                         struct dli_const_matrix x, bool accumulate, struct dli_matrix y) {
  for (size_t k = 0; k < packed->inner; k += packed->depth) {
    const uint16_t *slab = convert_slab(p, dli_const_view(x.x + k, x.rows, part_depth(packed, k), x.ld));
    dli_products_slab(p, packed, k / packed->depth, first, k > 0 ? NULL : bias, slab, accumulate || k > 0, y);
  }
}

/* In bfloat16 every case can be computed. In float32 there is one part, and oneDNN reads whole panels in place: columns
 * that begin or end inside a panel are the caller's to compute by the BLAS, and so is what exceeds the buffers. */
bool dli_products_run(struct dli_products *p, const struct dli_packed *packed, size_t first, const float *bias,
                      struct dli_const_matrix x, bool accumulate, struct dli_matrix y) {
  const size_t m = y.rows, count = y.cols;
  if (m == 0 || count == 0) return true;
  DLI_ASSERT(x.rows == m && x.cols == packed->inner && x.ld >= x.cols && first + count <= packed->outer);
  DLI_ASSERT(y.ld >= count);
  if (m > p->rows || packed->inner > p->inner) return false;
  if (packed->bfloat16) {
    run_bfloat16(p, packed, first, bias, x, accumulate, y);
    return true;
  }
  const size_t last = first + count;
  if (first % DLI_ONEDNN_PANEL != 0 || (last % DLI_ONEDNN_PANEL != 0 && last != packed->outer)) return false;
  const bool aside = y.ld != count;
  if (aside && m * count > output_count(p)) return false;
  float *out = aside ? p->output : y.x;
  const struct dli_onednn_shape shape = {.m = m,
                                         .inner = packed->inner,
                                         .outer = count,
                                         .bias = bias != NULL,
                                         .accumulate = accumulate,
                                         .threads = dli_threads_current()};
  const int entered = dli_blas_enter();
  const struct dli_onednn_kernel *kernel = find_kernel(p, &shape);
  bool done = kernel != NULL;
  if (done) {
    for (size_t i = 0; aside && accumulate && i < m; i++) {
      memcpy(out + i * count, y.x + i * y.ld, count * sizeof *y.x);
    }
    const float *b = (const float *)packed->values + first / DLI_ONEDNN_PANEL * panel_size(packed, packed->inner);
    done = dli_onednn_kernel_run(kernel, p->onednn, without_gaps(p, x), b, bias ? bias + first : NULL, out, p->scratch);
  }
  dli_blas_leave(entered);
  for (size_t i = 0; done && aside && i < m; i++) memcpy(y.x + i * y.ld, out + i * count, count * sizeof *y.x);
  return done;
}
