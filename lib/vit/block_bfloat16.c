/* A block of the Vision Transformer with as much as possible between products in bfloat16, forward and backward. The
 * operand of a product is converted into slabs as soon as its source is computed. The MLP runs slab by slab through
 * both products, so that its middle layer never leaves the caches.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/assert.h"
#include "vit/vit.h"

bool dli_vit_in_bfloat16(const struct dli_vit *vit) {
  return vit->bfloat16 && vit->activation != DLORA_ACTIVATION_SWIGLU && !vit->inner_norm1 && !vit->inner_norm2;
}

bool dli_vit_upper_in_bfloat16(const struct dli_vit *vit, const struct dli_vit_block *blocks,
                               const struct dli_vit_workspace *ws, const struct dli_vit_hooks *hooks) {
  if (!dli_vit_in_bfloat16(vit)) return false;
  if (!ws->training && !hooks) return true;
  const bool at_attention = !(ws->inputs & ~(1u << DLORA_INPUT_ATTENTION));
  return at_attention && (!ws->training || blocks[vit->depth - 1].fc2.backward[0]);
}

/* Converts x into columns from `first` on of the rows of a matrix [.., total] in slabs. One slab holds DLI_SLAB columns
 * of all rows, so that the columns of x may lie in several. */
static void to_slabs(const struct dli_vit *vit, struct dli_const_matrix x, const struct dli_slab_rows *out,
                     size_t first, size_t total) {
  DLI_ASSERT(first + x.cols <= total && out->row + x.rows <= out->rows);
  for (size_t j = 0, n; j < x.cols; j += n) {
    const size_t slab = (first + j) / DLI_SLAB * DLI_SLAB, wide = total - slab < DLI_SLAB ? total - slab : DLI_SLAB;
    n = slab + wide - (first + j) < x.cols - j ? slab + wide - (first + j) : x.cols - j;
    uint16_t *to = out->values + slab * out->rows + out->row * wide + (first + j - slab);
    vit->bfloat16->copy(x.x + j, x.rows, n, x.ld, to, n, wide);
  }
}

/* Converts a whole matrix. */
static const uint16_t *convert(const struct dli_block_call *call, struct dli_const_matrix x) {
  const struct dli_slab_rows out = {call->workspace->half.rows, x.rows, 0};
  to_slabs(call->vit, x, &out, 0, x.cols);
  return out.values;
}

/* Layer norm of x [rows, dim] in slabs, and in float32 too unless y is NULL. A few rows at a time are normed in float32
 * and converted while they are in the first cache. */
static const uint16_t *norm(const struct dli_block_call *call, const float *x, size_t rows, const float *gain,
                            const float *bias, float *y, float *mean, float *rstd) {
  const struct dli_vit *vit = call->vit;
  const size_t dim = vit->dim;
  struct dli_slab_rows out = {call->workspace->half.rows, rows, 0};
  for (size_t n; out.row < rows; out.row += n) {
    const size_t i = out.row;
    float *normed = y ? y + i * dim : call->workspace->half.norms;
    n = rows - i < DLI_NORM_ROWS ? rows - i : DLI_NORM_ROWS;
    call->kernels->layer_norm(dli_const_view(x + i * dim, n, dim, dim), gain, bias, vit->eps,
                              dli_view(normed, n, dim, dim), mean ? mean + i : NULL, rstd ? rstd + i : NULL);
    to_slabs(vit, dli_const_view(normed, n, dim, dim), &out, 0, dim);
  }
  dli_profile_lap(&call->workspace->profile, DLI_NORMS);
  return out.values;
}

/* The class token's row of each image, [images, dim] in slabs, from x [R, dim] in slabs. */
static const uint16_t *class_rows(const struct dli_block_call *call, const uint16_t *x) {
  const size_t dim = call->vit->dim, images = call->workspace->now, rows = images * call->vit->tokens;
  uint16_t *out = call->workspace->half.slab;
  for (size_t slab = 0; slab < dim; slab += DLI_SLAB) {
    const size_t wide = dim - slab < DLI_SLAB ? dim - slab : DLI_SLAB;
    for (size_t i = 0; i < images; i++) {
      memcpy(out + slab * images + i * wide, x + slab * rows + i * call->vit->tokens * wide, wide * sizeof *out);
    }
  }
  return out;
}

/* ---- adapters ---- */

/* Adapters of query, key and value: out += hook(h1). Image by image, so that h1, which is read
 * again for each projection and each pair of factors, is still in a cache. */
static void adapt(const struct dli_block_call *call, const float *h1, const struct dli_qkv *out) {
  const struct dli_vit *vit = call->vit;
  const size_t dim = vit->dim, tokens = vit->tokens, queries = dli_vit_queries(vit, call->index);
  for (size_t i = 0; i < call->workspace->now; i++) {
    const size_t row = i * tokens * dim;
    const struct dli_const_matrix in = dli_const_view(h1 + row, tokens, dim, dim);
    dli_block_hook(call, DLORA_SITE_QUERY, i, dli_const_view(in.x, queries, dim, dim), queries,
                   dli_view(out->q + i * queries * dim, queries, dim, dim));
    dli_block_hook(call, DLORA_SITE_KEY, i, in, tokens, dli_view(out->k + row, tokens, dim, dim));
    dli_block_hook(call, DLORA_SITE_VALUE, i, in, tokens, dli_view(out->v + row, tokens, dim, dim));
  }
}

/* The gradients of these adapters, and unless d_h1 is NULL their part of it. */
static void adapt_backward(const struct dli_block_call *call, const float *h1, const struct dli_qkv *d_out,
                           float *d_h1) {
  const struct dli_vit *vit = call->vit;
  const size_t dim = vit->dim, tokens = vit->tokens, queries = dli_vit_queries(vit, call->index);
  for (size_t i = 0; i < call->workspace->now; i++) {
    const size_t row = i * tokens * dim;
    const struct dli_const_matrix in = dli_const_view(h1 + row, tokens, dim, dim);
    const struct dli_matrix d_in = dli_view(d_h1 ? d_h1 + row : NULL, tokens, dim, dim);
    dli_block_hook_backward(call, DLORA_SITE_QUERY, dli_const_view(in.x, queries, dim, dim),
                            dli_const_view(d_out->q + i * queries * dim, queries, dim, dim),
                            dli_view(d_in.x, queries, dim, dim));
    dli_block_hook_backward(call, DLORA_SITE_KEY, in, dli_const_view(d_out->k + row, tokens, dim, dim), d_in);
    dli_block_hook_backward(call, DLORA_SITE_VALUE, in, dli_const_view(d_out->v + row, tokens, dim, dim), d_in);
  }
}

/* ---- forward ---- */

/* Attention of each image: o [Q, dim] in slabs. The full attention writes slabs itself; that of the class token alone
 * runs in float32 and is converted. */
static const uint16_t *attention(const struct dli_block_call *call, bool keep) {
  const struct dli_vit *vit = call->vit;
  struct dli_vit_workspace *ws = call->workspace;
  const struct dli_block_buffers *b = &call->buffers;
  const size_t dim = vit->dim, queries = dli_vit_queries(vit, call->index), tail = ws->now * queries;
  struct dli_slab_rows out = {ws->half.rows, tail, 0};
  for (size_t i = 0; i < ws->now; i++, out.row += queries) {
    float *kept = keep ? b->probabilities + i * dli_vit_kept_of_attention(vit, queries) : NULL;
    struct dli_qkv in = dli_vit_qkv(vit, ws, b->qkv, true, i);
    if (queries == vit->tokens) {
      dli_vit_attention(vit, call->kernels, ws, &in, queries, kept, NULL, &out);
    } else {
      in.q = b->qkv + i * dim;
      dli_vit_attention(vit, call->kernels, ws, &in, queries, kept, b->o + i * queries * dim, NULL);
      to_slabs(vit, dli_const_view(b->o + i * queries * dim, queries, dim, dim), &out, 0, dim);
    }
  }
  dli_profile_lap(&ws->profile, DLI_ATTENTION);
  return out.values;
}

/* x [tail, dim] += act(h W_fc1^T + b) W_fc2^T + b of h [tail, dim], for one slab of the middle layer after another:
 *
 *     1   DLI_SLAB columns of f = h W_fc1^T + b                [tail, DLI_SLAB] float32
 *     2   g = act(f) in bfloat16; f itself is kept in bfloat16 if a backward pass follows
 *     3   x += g times the rows of W_fc2^T that belong to these columns; the first slab brings the bias */
static void mlp_forward(const struct dli_block_call *call, const uint16_t *h, size_t tail, bool keep, float *x) {
  const struct dli_vit_block *w = call->weights;
  struct dli_vit_workspace *ws = call->workspace;
  const struct dli_half_buffers *half = &ws->half;
  const size_t dim = call->vit->dim, mlp = call->vit->mlp_dim;
  for (size_t first = 0; first < mlp; first += DLI_SLAB) {
    const size_t wide = mlp - first < DLI_SLAB ? mlp - first : DLI_SLAB;
    dli_products_slabs(ws->products, w->fc1.forward, first, w->fc1_bias, h, false,
                       dli_view(half->sums, tail, wide, wide));
    dli_profile_lap(&ws->profile, DLI_PRODUCTS);
    call->vit->bfloat16->activation[call->vit->activation](half->sums, tail * wide, half->slab,
                                                           keep ? call->buffers.f_half + first * tail : NULL);
    dli_profile_lap(&ws->profile, DLI_ACTIVATION);
    dli_products_slab(ws->products, w->fc2.forward, first / DLI_SLAB, 0, first > 0 ? NULL : w->fc2_bias, half->slab,
                      true, dli_view(x, tail, dim, dim));
    dli_profile_lap(&ws->profile, DLI_PRODUCTS);
  }
}

/* The steps of block_forward (vit/forward.c), with three differences. An operand of a product is in slabs in bfloat16,
 * made by the step before. Query, key and value are three matrices one behind the other, so that each is a product of
 * its own and attention reads rows without gaps. Steps 6 to 8 run slab by slab (mlp_forward). */
void dli_block_bfloat16_forward(const struct dli_block_call *call, bool keep, float *x_mid, float *x_out) {
  const struct dli_vit *vit = call->vit;
  const struct dli_vit_block *w = call->weights;
  struct dli_vit_workspace *ws = call->workspace;
  const struct dli_block_buffers *b = &call->buffers;
  const size_t dim = vit->dim, tokens = vit->tokens, images = ws->now, rows = images * tokens;
  const size_t queries = dli_vit_queries(vit, call->index), tail = images * queries;
  const size_t stride = queries == 1 ? tokens * dim : dim; /* from query to query in arrays of all tokens */
  DLI_ASSERT(vit->bfloat16 && ws->products);
  const bool read = call->hooks && (ws->inputs & 1u << DLORA_INPUT_ATTENTION);

  /* 1: in float32 too, where a hook or the backward pass reads it */
  const uint16_t *h1 =
      norm(call, b->x_in, rows, w->norm1_gain, w->norm1_bias, keep || read ? b->h1 : NULL, b->mean1, b->rstd1);
  /* 2 */
  const struct dli_qkv qkv = dli_vit_qkv(vit, ws, b->qkv, true, 0);
  dli_products_slabs(ws->products, w->qkv.forward, 0, w->qkv_bias, queries == tokens ? h1 : class_rows(call, h1), false,
                     dli_view(qkv.q, tail, dim, dim));
  dli_products_slabs(ws->products, w->qkv.forward, dim, w->qkv_bias, h1, false, dli_view(qkv.k, rows, dim, dim));
  dli_products_slabs(ws->products, w->qkv.forward, 2 * dim, w->qkv_bias, h1, false, dli_view(qkv.v, rows, dim, dim));
  dli_profile_lap(&ws->profile, DLI_PRODUCTS);
  adapt(call, b->h1, &qkv);
  /* 3 */
  const uint16_t *o = attention(call, keep);

  /* 4: onto the residual stream, which stays float32 */
  for (size_t i = 0; i < tail; i++) {
    if (x_mid + i * dim != b->x_in + i * stride) memmove(x_mid + i * dim, b->x_in + i * stride, dim * sizeof *x_mid);
  }
  dli_profile_lap(&ws->profile, DLI_COPIES);
  dli_products_slabs(ws->products, w->output.forward, 0, w->output_bias, o, true, dli_view(x_mid, tail, dim, dim));
  dli_profile_lap(&ws->profile, DLI_PRODUCTS);

  /* 5 to 8 */
  const uint16_t *h2 = norm(call, x_mid, tail, w->norm2_gain, w->norm2_bias, NULL, b->mean2, b->rstd2);
  if (x_out != x_mid) memcpy(x_out, x_mid, tail * dim * sizeof *x_out);
  dli_profile_lap(&ws->profile, DLI_COPIES);
  mlp_forward(call, h2, tail, keep, x_out);
}

/* ---- backward ---- */

/* d_h [tail, dim] = d f W_fc1 with d f = (d_y W_fc2) act'(f), from d_y [tail, dim], the gradient of the MLP's output:
 * as in mlp_forward one slab of the middle layer after another, whose contributions to d_h are added up. */
static void mlp_backward(const struct dli_block_call *call, const float *d_y, size_t tail, float *d_h) {
  const struct dli_vit_block *w = call->weights;
  struct dli_vit_workspace *ws = call->workspace;
  const struct dli_half_buffers *half = &ws->half;
  const size_t dim = call->vit->dim, mlp = call->vit->mlp_dim;
  const uint16_t *d = convert(call, dli_const_view(d_y, tail, dim, dim));
  for (size_t first = 0; first < mlp; first += DLI_SLAB) {
    const size_t wide = mlp - first < DLI_SLAB ? mlp - first : DLI_SLAB;
    dli_products_slabs(ws->products, w->fc2.backward[0], first, NULL, d, false, dli_view(half->sums, tail, wide, wide));
    dli_profile_lap(&ws->profile, DLI_PRODUCTS);
    call->vit->bfloat16->activation_backward[call->vit->activation](call->buffers.f_half + first * tail, half->sums,
                                                                    tail * wide, half->slab);
    dli_profile_lap(&ws->profile, DLI_ACTIVATION);
    dli_products_slab(ws->products, w->fc1.backward[0], first / DLI_SLAB, 0, NULL, half->slab, first > 0,
                      dli_view(d_h, tail, dim, dim));
    dli_profile_lap(&ws->profile, DLI_PRODUCTS);
  }
}

/* The steps of block_backward (vit/backward.c) for blocks whose adapters, if any, are at the input of attention: steps
 * 8 to 4 thus always run. W_qkv is packed for the backward pass in two parts, since the gradients of keys and values
 * have R rows and that of the queries Q. */
void dli_block_bfloat16_backward(const struct dli_block_call *call, int32_t lowest, float *d_y, float *d_x) {
  const struct dli_vit *vit = call->vit;
  const struct dli_vit_block *w = call->weights;
  const struct dli_kernels *k = call->kernels;
  struct dli_vit_workspace *ws = call->workspace;
  const struct dli_block_buffers *b = &call->buffers;
  const size_t dim = vit->dim, tokens = vit->tokens, images = ws->now, rows = images * tokens;
  const size_t queries = dli_vit_queries(vit, call->index), tail = images * queries;
  const size_t stride = queries == 1 ? tokens * dim : dim;
  float *d_h = ws->d_h;
  DLI_ASSERT(vit->bfloat16 && ws->products && (d_x != d_y || queries == tokens));

  /* 8 to 5 */
  mlp_backward(call, d_y, tail, d_h);
  k->layer_norm_backward(dli_const_view(d_h, tail, dim, dim), dli_const_view(b->x_mid, tail, dim, dim), w->norm2_gain,
                         b->mean2, b->rstd2, dli_view(d_y, tail, dim, dim));
  dli_profile_lap(&ws->profile, DLI_NORMS);
  /* 4 */
  dli_products_slabs(ws->products, w->output.backward[0], 0, NULL, convert(call, dli_const_view(d_y, tail, dim, dim)),
                     false, dli_view(d_h, tail, dim, dim));
  dli_profile_lap(&ws->profile, DLI_PRODUCTS);
  /* 3 */
  for (size_t i = 0; i < images; i++) {
    struct dli_qkv in = dli_vit_qkv(vit, ws, b->qkv, true, i), d_in = dli_vit_qkv(vit, ws, ws->d_qkv, true, i);
    if (queries == 1) {
      in.q = b->qkv + i * dim;
      d_in.q = ws->d_qkv + i * dim;
    }
    dli_vit_attention_backward(vit, k, ws, &in, queries, b->probabilities + i * dli_vit_kept_of_attention(vit, queries),
                               d_h + i * queries * dim, &d_in);
  }
  dli_profile_lap(&ws->profile, DLI_ATTENTION);

  /* 2: keys and values in one product of depth 2 dim, then the queries */
  const struct dli_qkv d_qkv = dli_vit_qkv(vit, ws, ws->d_qkv, true, 0);
  const bool go_on = lowest < DLORA_INPUT_ATTENTION;
  if (go_on) {
    const struct dli_slab_rows both = {ws->half.rows, rows, 0};
    to_slabs(vit, dli_const_view(d_qkv.k, rows, dim, dim), &both, 0, 2 * dim);
    to_slabs(vit, dli_const_view(d_qkv.v, rows, dim, dim), &both, dim, 2 * dim);
    dli_products_slabs(ws->products, w->qkv.backward[1], 0, NULL, both.values, false, dli_view(d_h, rows, dim, dim));
    dli_products_slabs(ws->products, w->qkv.backward[0], 0, NULL,
                       convert(call, dli_const_view(d_qkv.q, tail, dim, dim)), true, dli_view(d_h, tail, dim, stride));
  }
  dli_profile_lap(&ws->profile, DLI_PRODUCTS);
  adapt_backward(call, b->h1, &d_qkv, go_on ? d_h : NULL);
  if (!go_on) return;

  /* 1: where the last block has class tokens alone, only these receive a gradient along the residual stream */
  if (d_x != d_y) {
    memset(d_x, 0, rows * dim * sizeof *d_x);
    for (size_t i = 0; i < tail; i++) memcpy(d_x + i * stride, d_y + i * dim, dim * sizeof *d_x);
  }
  dli_profile_lap(&ws->profile, DLI_COPIES);
  k->layer_norm_backward(dli_const_view(d_h, rows, dim, dim), dli_const_view(b->x_in, rows, dim, dim), w->norm1_gain,
                         b->mean1, b->rstd1, dli_view(d_x, rows, dim, dim));
  dli_profile_lap(&ws->profile, DLI_NORMS);
}
