/* Gradients with respect to activations, from the features back to the lowest adapted projection: the chain rule
 * through each block in reverse order. Frozen weights need no gradient of their own; hooks collect those of adapters.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/assert.h"
#include "vit/vit.h"

/* The steps of block_forward in reverse, R = images * tokens rows and Q rows with queries. d_<array> is the gradient of
 * the loss with respect to the array:
 *
 *     8   d_g = d_x_out W_fc2                                  [Q, mlp_dim]
 *     7   d_f = d_g act'(f)                                    [Q, fc1_dim]
 *     6   d_h2 = d_f W_fc1                                     [Q, dim]
 *     5   d_x_mid = d_x_out + norm2'(d_h2)                     [Q, dim]
 *     4   d_o = d_x_mid W_output                               [Q, dim]
 *     3   d_q, d_k, d_v through softmax, by head               [Q, dim], [R, dim], [R, dim]
 *     2   d_h1 = d_q W_q + d_k W_k + d_v W_v                   [R, dim]
 *     1   d_x_in = d_x_mid + norm1'(d_h1)                      [R, dim]
 *
 * At each projection the hook takes its own gradients from the input and the gradient of the output, and adds its part
 * to the gradient of the input. d_y holds d_x_out and then d_x_mid, d_x receives d_x_in and may be d_y where Q = R.
 * Nothing is computed below the lowest adapted projection: with lowest DLORA_INPUT_FC2 the hook of step 8 is the last
 * action, with DLORA_INPUT_FC1 that of step 6, and so on; with -1 a block below needs d_x_in. */
static void block_backward(const struct dli_block_call *call, int32_t lowest, float *d_y, float *d_x) {
  const struct dli_vit *vit = call->vit;
  const struct dli_vit_block *w = call->weights;
  const struct dli_kernels *k = call->kernels;
  struct dli_vit_workspace *ws = call->workspace;
  const struct dli_block_buffers *b = &call->buffers;
  const size_t dim = vit->dim, tokens = vit->tokens, images = ws->now, rows = images * tokens, mlp = vit->mlp_dim;
  const size_t queries = dli_vit_queries(vit, call->index), tail = images * queries;
  const size_t stride = queries == 1 ? tokens * dim : dim;
  struct dli_profile *profile = &ws->profile;
  DLI_ASSERT(d_x != d_y || queries == tokens);

  const struct dli_const_matrix d_out = dli_const_view(d_y, tail, dim, dim); /* steps 8 and 4 read it */

  /* 8 */
  const size_t fc1_dim = vit->fc1_dim; /* d_g lies in the last columns of d_f */
  const struct dli_matrix d_g =
      dli_view(lowest < DLORA_INPUT_FC2 ? ws->d_f + (fc1_dim - mlp) : NULL, tail, mlp, fc1_dim);
  if (d_g.x) dli_weight_backward(&w->fc2, ws->products, 0, d_out, false, d_g);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_FC2, dli_const_view(b->g, tail, mlp, mlp), d_out, d_g);
  if (lowest == DLORA_INPUT_FC2) return;
  /* 7: in place, d_g becomes d_f; the activation is computed again where a norm followed it, which needs it */
  if (w->inner2_gain) {
    k->activation[vit->activation](b->f, tail, mlp, b->raw_g);
    memset(ws->d_raw, 0, tail * mlp * sizeof *ws->d_raw);
    k->layer_norm_backward(dli_const_view(d_g.x, tail, mlp, fc1_dim), dli_const_view(b->raw_g, tail, mlp, mlp),
                           w->inner2_gain, b->mean4, b->rstd4, dli_view(ws->d_raw, tail, mlp, mlp));
    for (size_t i = 0; i < tail; i++) memcpy(d_g.x + i * fc1_dim, ws->d_raw + i * mlp, mlp * sizeof *ws->d_raw);
    dli_profile_lap(profile, DLI_NORMS);
  }
  const struct dli_const_matrix d_f = dli_const_view(ws->d_f, tail, fc1_dim, fc1_dim);
  k->activation_backward[vit->activation](b->f, tail, mlp, ws->d_f);
  dli_profile_lap(profile, DLI_ACTIVATION);

  /* 6 */
  const struct dli_matrix d_h2 = dli_view(lowest < DLORA_INPUT_FC1 ? ws->d_h : NULL, tail, dim, dim);
  if (d_h2.x) dli_weight_backward(&w->fc1, ws->products, 0, d_f, false, d_h2);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_FC1, dli_const_view(b->h2, tail, dim, dim), d_f, d_h2);
  if (lowest == DLORA_INPUT_FC1) return;
  /* 5: added to the gradient that came along the residual stream */
  k->layer_norm_backward(dli_const_view(d_h2.x, tail, dim, dim), dli_const_view(b->x_mid, tail, dim, dim),
                         w->norm2_gain, b->mean2, b->rstd2, dli_view(d_y, tail, dim, dim));
  dli_profile_lap(profile, DLI_NORMS);

  /* 4 */
  const struct dli_matrix d_o = dli_view(lowest < DLORA_INPUT_OUTPUT ? ws->d_h : NULL, tail, dim, dim);
  if (d_o.x) dli_weight_backward(&w->output, ws->products, 0, d_out, false, d_o);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_OUTPUT, dli_const_view(b->o, tail, dim, dim), d_out, d_o);
  if (lowest == DLORA_INPUT_OUTPUT) return;
  const float *d_raw_o = d_o.x;
  if (w->inner1_gain) {
    memset(ws->d_raw, 0, tail * dim * sizeof *ws->d_raw);
    k->layer_norm_backward(dli_const_view(d_o.x, tail, dim, dim), dli_const_view(b->raw_o, tail, dim, dim),
                           w->inner1_gain, b->mean3, b->rstd3, dli_view(ws->d_raw, tail, dim, dim));
    d_raw_o = ws->d_raw;
    dli_profile_lap(profile, DLI_NORMS);
  }

  /* 3 */
  for (size_t i = 0; i < images; i++) {
    const struct dli_qkv in = dli_vit_qkv(vit, ws, b->qkv, false, i), d_in = dli_vit_qkv(vit, ws, ws->d_qkv, false, i);
    dli_vit_attention_backward(vit, k, ws, &in, queries, b->probabilities + i * dli_vit_kept_of_attention(vit, queries),
                               d_raw_o + i * queries * dim, &d_in);
  }
  dli_profile_lap(profile, DLI_ATTENTION);

  /* 2: with queries of class tokens alone keys and values of all rows first, and the queries added to their rows */
  const bool go_on = lowest < DLORA_INPUT_ATTENTION;
  const struct dli_const_matrix d_q = dli_const_view(ws->d_qkv, tail, dim, 3 * stride);
  const struct dli_const_matrix d_k = dli_const_view(ws->d_qkv + dim, rows, dim, 3 * dim);
  const struct dli_const_matrix d_v = dli_const_view(ws->d_qkv + 2 * dim, rows, dim, 3 * dim);
  const struct dli_const_matrix h1 = dli_const_view(b->h1, rows, dim, dim);
  const struct dli_matrix d_h1 = dli_view(go_on ? ws->d_h : NULL, rows, dim, dim);
  const struct dli_matrix d_h1_of_queries = dli_view(d_h1.x, tail, dim, stride);
  if (go_on && queries == tokens) {
    dli_weight_backward(&w->qkv, ws->products, 0, dli_const_view(ws->d_qkv, rows, 3 * dim, 3 * dim), false, d_h1);
  } else if (go_on) {
    dli_weight_backward(&w->qkv, ws->products, dim, dli_const_view(d_k.x, rows, 2 * dim, 3 * dim), false, d_h1);
    dli_weight_backward(&w->qkv, ws->products, 0, d_q, true, d_h1_of_queries);
  }
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_QUERY, dli_const_view(b->h1, tail, dim, stride), d_q, d_h1_of_queries);
  dli_block_hook_backward(call, DLORA_SITE_KEY, h1, d_k, d_h1);
  dli_block_hook_backward(call, DLORA_SITE_VALUE, h1, d_v, d_h1);
  if (!go_on) return;

  /* 1: where the last block has class tokens alone, only these receive a gradient along the residual stream */
  if (d_x != d_y) {
    memset(d_x, 0, rows * dim * sizeof *d_x);
    for (size_t i = 0; i < tail; i++) memcpy(d_x + i * stride, d_y + i * dim, dim * sizeof *d_x);
  }
  dli_profile_lap(profile, DLI_COPIES);
  k->layer_norm_backward(dli_const_view(d_h1.x, rows, dim, dim), dli_const_view(b->x_in, rows, dim, dim), w->norm1_gain,
                         b->mean1, b->rstd1, dli_view(d_x, rows, dim, dim));
  dli_profile_lap(profile, DLI_NORMS);
}

/* Group by group: back through pooling and through the blocks from the last one to the first adapted one. */
void dli_vit_backward_upper(const struct dli_vit *vit, const struct dli_vit_block *blocks,
                            const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                            const struct dli_vit_hooks *hooks, int32_t lowest, const float *d_features) {
  DLI_ASSERT(workspace->training && lowest >= -1 && lowest <= DLORA_INPUT_FC2);
  const bool bfloat16 = dli_vit_upper_in_bfloat16(vit, blocks, workspace, hooks);
  dli_profile_start(&workspace->profile);
  for (bool more = dli_vit_next_group(workspace, true); more; more = dli_vit_next_group(workspace, false)) {
    dli_vit_pool_backward(vit, kernels, workspace, d_features + workspace->at * vit->dim);
    for (size_t l = vit->depth; l-- > workspace->first;) {
      float *d_y = l + 1 == vit->depth ? workspace->d_tail : workspace->d_x;
      const struct dli_block_call call = {
          vit, &blocks[l], kernels, workspace, hooks, l, dli_vit_buffers(vit, workspace, l)};
      (bfloat16 ? dli_block_bfloat16_backward : block_backward)(&call, l == workspace->first ? lowest : -1, d_y,
                                                                workspace->d_x);
    }
  }
}
