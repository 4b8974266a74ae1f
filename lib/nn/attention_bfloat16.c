/* Multi-head self-attention whose products have bfloat16 factors, head by head, forward and backward. T tokens and W
 * columns of a head are padded with zeros to whole groups, so that oneDNN has a kernel for every product.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "nn/attention.h"

static size_t grouped(size_t count) {
  return (count + DLI_BFLOAT16_GROUP - 1) / DLI_BFLOAT16_GROUP * DLI_BFLOAT16_GROUP;
}

/* Numbers of [rows, cols] in panels. */
static size_t panels_size(size_t rows, size_t cols) {
  return grouped(rows) * ((cols + DLI_ONEDNN_PANEL - 1) / DLI_ONEDNN_PANEL * DLI_ONEDNN_PANEL);
}

/* ---- memory ---- */

struct operands {
  float *scores;         /* [tokens, T] and their gradients */
  float *out;            /* [tokens, width] or [width, T] */
  uint16_t *rows;        /* [tokens, W] */
  uint16_t *columns;     /* [width, T] */
  uint16_t *keys;        /* panels of [W, tokens] or [T, width] */
  uint16_t *values;      /* as keys */
  uint16_t *exponential; /* [tokens, T]: exponentials that are not kept, gradients of scores */
  uint16_t *squares[2];  /* panels of [T, tokens]: gradients of scores, exponentials */
  float *inverse;        /* [tokens] */
};

static void *take(char *base, size_t *used, size_t count, size_t size) {
  void *at = base ? base + *used : NULL;
  *used += (count * size + 63) / 64 * 64;
  return at;
}

/* Addresses from base on; returns the bytes of all. */
static size_t plan(struct operands *s, void *base, size_t tokens, size_t width, bool backward) {
  const size_t t = grouped(tokens), w = grouped(width), tall = panels_size(w, tokens), wide = panels_size(t, width);
  size_t used = 0;
  s->scores = take(base, &used, tokens * t, sizeof *s->scores);
  s->out = take(base, &used, t * w, sizeof *s->out);
  s->rows = take(base, &used, tokens * w, sizeof *s->rows);
  s->keys = take(base, &used, tall > wide ? tall : wide, sizeof *s->keys);
  s->values = take(base, &used, tall > wide ? tall : wide, sizeof *s->values);
  s->exponential = take(base, &used, tokens * t, sizeof *s->exponential);
  s->inverse = take(base, &used, tokens, sizeof *s->inverse);
  if (!backward) return used;
  s->columns = take(base, &used, width * t, sizeof *s->columns);
  for (size_t i = 0; i < 2; i++) s->squares[i] = take(base, &used, panels_size(t, t), sizeof *s->squares[i]);
  return used;
}

size_t dli_attention_bfloat16_scratch(size_t tokens, size_t dim, size_t heads, bool backward) {
  struct operands s;
  return plan(&s, NULL, tokens, dim / heads, backward) / sizeof(float);
}

/* Floats of one head: exponentials [tokens, T] in bfloat16, and 1 / their sums [T]. */
static size_t kept_of_head(size_t tokens) {
  return tokens * grouped(tokens) / 2 + grouped(tokens);
}

size_t dli_attention_bfloat16_kept(size_t tokens, size_t heads) {
  return heads * kept_of_head(tokens);
}

/* ---- passes ---- */

/* Writes factors x, one head's output, into columns [first, first + cols) of the rows. A head may begin in one slab and
 * end in the next. */
static void scale_to_slabs(const struct dli_kernels_bfloat16 *k, const float *x, size_t tokens, size_t cols,
                           const float *factors, const struct dli_slab_rows *slabs, size_t first, size_t dim) {
  for (size_t j = 0, n; j < cols; j += n) {
    const size_t slab = (first + j) / DLI_SLAB * DLI_SLAB, end = slab + DLI_SLAB < dim ? slab + DLI_SLAB : dim;
    n = end - (first + j) < cols - j ? end - (first + j) : cols - j;
    k->scale_rows(x + j, tokens, n, cols, factors, NULL,
                  slabs->values + slab * slabs->rows + slabs->row * (end - slab) + (first + j - slab), end - slab);
  }
}

/* Head by head:
 *
 *     1   q in rows [tokens, W], k^T and v in panels, as the products read them
 *     2   scores = q k^T                                       [tokens, T] float32
 *     3   e = exp(scale (scores - their row's maximum)) in bfloat16, and 1 / sum of e in float32
 *     4   o = e v                                              [tokens, width] float32
 *     5   out = o / sum, row by row: dividing after the product keeps the sum's precision
 *
 * e and 1 / sum are what the backward pass keeps. */
void dli_attention_bfloat16(const struct dli_kernels_bfloat16 *k, struct dli_products *products,
                            const struct dli_attention_shape *shape, const struct dli_qkv *in, float *kept, float *out,
                            const struct dli_slab_rows *slabs, float *scratch) {
  struct operands s;
  const size_t tokens = shape->tokens, dim = shape->dim, heads = shape->heads;
  DLI_ASSERT(shape->queries == tokens && dim % heads == 0 && in->ld >= dim && !out != !slabs);
  DLI_ASSERT(!slabs || slabs->row + tokens <= slabs->rows);
  const size_t width = dim / heads, t = grouped(tokens), w = grouped(width);
  plan(&s, scratch, tokens, width, false);
  for (size_t h = 0; h < heads; h++) {
    const size_t first = h * width;
    if (kept) {
      s.exponential = (uint16_t *)(kept + h * kept_of_head(tokens));
      s.inverse = kept + h * kept_of_head(tokens) + tokens * t / 2;
    }
    k->copy(in->q + first, tokens, width, in->ld, s.rows, w, w);
    k->panels_transposed(in->k + first, tokens, width, in->ld, s.keys);
    k->panels(in->v + first, tokens, width, in->ld, s.values);
    dli_products_multiply(products, tokens, w, t, s.rows, s.keys, s.scores);
    k->softmax(s.scores, tokens, tokens, t, 1.0f / sqrtf((float)width), s.exponential, s.inverse);
    dli_products_multiply(products, tokens, t, width, s.exponential, s.values, s.out);
    if (out) {
      k->scale_rows(s.out, tokens, width, width, s.inverse, out + first, NULL, dim);
    } else {
      scale_to_slabs(k, s.out, tokens, width, s.inverse, slabs, first, dim);
    }
  }
}

/* Head by head, with p = e / sum, s the scaled scores and d_<array> the gradient with respect to the array:
 *
 *     1   d_p = d_out v^T                                      [tokens, T] float32
 *     2   d_s = scale p (d_p - sum over tokens of d_p p), in rows and in panels; e in panels too
 *     3   dq = d_s k                                           [tokens, width]
 *     4   dk^T = q^T d_s                                       [width, T]
 *     5   dv^T = (d_out / sum)^T e                             [width, T]: the sum goes to the smaller factor
 *
 * Steps 4 and 5 compute transposed results: for dk and dv themselves the large d_s and e would have to be transposed.
 */
void dli_attention_bfloat16_backward(const struct dli_kernels_bfloat16 *k, struct dli_products *products,
                                     const struct dli_attention_shape *shape, const struct dli_qkv *in,
                                     const float *kept, const float *d_out, const struct dli_qkv *d_in,
                                     float *scratch) {
  struct operands s;
  const size_t tokens = shape->tokens, dim = shape->dim, heads = shape->heads;
  DLI_ASSERT(shape->queries == tokens && dim % heads == 0 && in->ld >= dim && d_in->ld == in->ld);
  const size_t width = dim / heads, t = grouped(tokens), w = grouped(width), ld = in->ld;
  plan(&s, scratch, tokens, width, true);
  for (size_t h = 0; h < heads; h++) {
    const size_t first = h * width;
    const uint16_t *exponential = (const uint16_t *)(kept + h * kept_of_head(tokens));
    const float *inverse = kept + h * kept_of_head(tokens) + tokens * t / 2;
    /* 1 and 2 */
    k->copy(d_out + first, tokens, width, dim, s.rows, w, w);
    k->panels_transposed(in->v + first, tokens, width, ld, s.values);
    dli_products_multiply(products, tokens, w, t, s.rows, s.values, s.scores);
    k->softmax_backward(exponential, inverse, s.scores, tokens, t, 1.0f / sqrtf((float)width), s.exponential,
                        s.squares[0], s.squares[1]);
    /* 3 */
    k->panels(in->k + first, tokens, width, ld, s.keys);
    dli_products_multiply(products, tokens, t, width, s.exponential, s.keys, s.out);
    for (size_t i = 0; i < tokens; i++) {
      memcpy(d_in->q + i * ld + first, s.out + i * width, width * sizeof *s.out);
    }
    /* 4 and 5 */
    k->copy_transposed(in->q + first, tokens, width, ld, NULL, s.columns, t);
    dli_products_multiply(products, width, t, t, s.columns, s.squares[0], s.out);
    k->transpose(s.out, tokens, width, t, d_in->k + first, ld);
    k->copy_transposed(d_out + first, tokens, width, dim, inverse, s.columns, t);
    dli_products_multiply(products, width, t, t, s.columns, s.squares[1], s.out);
    k->transpose(s.out, tokens, width, t, d_in->v + first, ld);
  }
}
