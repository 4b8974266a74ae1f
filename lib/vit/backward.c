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
 *     7   d_f = d_g gelu'(f)                                   [Q, mlp_dim]
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

  /* 8 */
  float *d_g = ws->d_f;
  if (lowest < DLORA_INPUT_FC2) dli_weight_backward(&w->fc2, ws->products, 0, dim, d_y, tail, dim, 0, d_g, mlp);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_FC2, b->g, tail, mlp, d_y, dim, lowest < DLORA_INPUT_FC2 ? d_g : NULL, mlp);
  if (lowest == DLORA_INPUT_FC2) return;
  /* 7: in place, d_g becomes d_f */
  k->gelu_backward(b->f, tail * mlp, d_g);
  dli_profile_lap(profile, DLI_ACTIVATION);

  /* 6 */
  float *d_h = ws->d_h;
  if (lowest < DLORA_INPUT_FC1) dli_weight_backward(&w->fc1, ws->products, 0, mlp, d_g, tail, mlp, 0, d_h, dim);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_FC1, b->h2, tail, dim, d_g, mlp, lowest < DLORA_INPUT_FC1 ? d_h : NULL, dim);
  if (lowest == DLORA_INPUT_FC1) return;
  /* 5: added to the gradient that came along the residual stream */
  k->layer_norm_backward(d_h, dim, b->x_mid, dim, tail, dim, w->norm2_gain, b->mean2, b->rstd2, d_y, dim);
  dli_profile_lap(profile, DLI_NORMS);

  /* 4 */
  float *d_o = ws->d_h;
  if (lowest < DLORA_INPUT_OUTPUT) dli_weight_backward(&w->output, ws->products, 0, dim, d_y, tail, dim, 0, d_o, dim);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_OUTPUT, b->o, tail, dim, d_y, dim, lowest < DLORA_INPUT_OUTPUT ? d_o : NULL,
                          dim);
  if (lowest == DLORA_INPUT_OUTPUT) return;

  /* 3 */
  for (size_t i = 0; i < images; i++) {
    const struct dli_qkv in = dli_vit_qkv(vit, ws, b->qkv, false, i), d_in = dli_vit_qkv(vit, ws, ws->d_qkv, false, i);
    dli_vit_attention_backward(vit, k, ws, &in, queries, b->probabilities + i * dli_vit_kept_of_attention(vit, queries),
                               d_o + i * queries * dim, &d_in);
  }
  dli_profile_lap(profile, DLI_ATTENTION);

  /* 2: in the last block keys and values of all rows first, and the queries of the class tokens added to their rows */
  const int go_on = lowest < DLORA_INPUT_ATTENTION;
  if (go_on) {
    if (queries == tokens) {
      dli_weight_backward(&w->qkv, ws->products, 0, 3 * dim, ws->d_qkv, rows, 3 * dim, 0, d_h, dim);
    } else {
      dli_weight_backward(&w->qkv, ws->products, dim, 2 * dim, ws->d_qkv + dim, rows, 3 * dim, 0, d_h, dim);
      dli_weight_backward(&w->qkv, ws->products, 0, dim, ws->d_qkv, tail, 3 * stride, 1, d_h, stride);
    }
  }
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook_backward(call, DLORA_SITE_QUERY, b->h1, tail, stride, ws->d_qkv, 3 * stride, go_on ? d_h : NULL,
                          stride);
  dli_block_hook_backward(call, DLORA_SITE_KEY, b->h1, rows, dim, ws->d_qkv + dim, 3 * dim, go_on ? d_h : NULL, dim);
  dli_block_hook_backward(call, DLORA_SITE_VALUE, b->h1, rows, dim, ws->d_qkv + 2 * dim, 3 * dim, go_on ? d_h : NULL,
                          dim);
  if (!go_on) return;

  /* 1: in the last block only the class tokens receive a gradient along the residual stream */
  if (d_x != d_y) {
    memset(d_x, 0, rows * dim * sizeof *d_x);
    for (size_t i = 0; i < tail; i++) memcpy(d_x + i * stride, d_y + i * dim, dim * sizeof *d_x);
  }
  dli_profile_lap(profile, DLI_COPIES);
  k->layer_norm_backward(d_h, dim, b->x_in, dim, rows, dim, w->norm1_gain, b->mean1, b->rstd1, d_x, dim);
  dli_profile_lap(profile, DLI_NORMS);
}

/* Group by group: back through the final norm, which read the class tokens, and through the blocks from the last one to
 * the first adapted one. */
void dli_vit_backward_upper(const struct dli_vit *vit, const struct dli_vit_block *blocks,
                            const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                            const struct dli_vit_hooks *hooks, int32_t lowest, const float *d_features) {
  const size_t dim = vit->dim;
  DLI_ASSERT(workspace->training && lowest >= -1 && lowest <= DLORA_INPUT_FC2);
  const bool bfloat16 = dli_vit_upper_in_bfloat16(vit, blocks, workspace, hooks);
  dli_profile_start(&workspace->profile);
  for (bool more = dli_vit_next_group(workspace, true); more; more = dli_vit_next_group(workspace, false)) {
    const size_t at = workspace->at, now = workspace->now;
    memset(workspace->d_tail, 0, now * dim * sizeof *workspace->d_tail);
    kernels->layer_norm_backward(d_features + at * dim, dim, workspace->last + at * dim, dim, now, dim, vit->norm_gain,
                                 workspace->last_mean + at, workspace->last_rstd + at, workspace->d_tail, dim);
    dli_profile_lap(&workspace->profile, DLI_NORMS);
    for (size_t l = vit->depth; l-- > workspace->first;) {
      float *d_y = l + 1 == vit->depth ? workspace->d_tail : workspace->d_x;
      const struct dli_block_call call = {
          vit, &blocks[l], kernels, workspace, hooks, l, dli_vit_buffers(vit, workspace, l)};
      (bfloat16 ? dli_block_bfloat16_backward : block_backward)(&call, l == workspace->first ? lowest : -1, d_y,
                                                                workspace->d_x);
    }
  }
}
