/* Images to tokens: patch embedding, the blocks of the trunk and of the adapted part. With x [R, dim] the residual
 * stream of R = images * tokens rows, a block computes x + O(attention(norm1(x))) and then x + MLP(norm2(x)). The last
 * one needs the class tokens alone where the features are theirs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/assert.h"
#include "vit/vit.h"

/* Cuts the image [3, size, size] into rows of patches [grid^2, 3 p^2], each in the order of the patch projection's
 * weight [dim, 3, p, p]: the convolution with stride p becomes a product of matrices. */
void dli_vit_embed_image(const struct dli_vit *vit, struct dli_vit_workspace *workspace, size_t image) {
  DLI_ASSERT(image < workspace->max_images);
  const size_t p = vit->patch_size, size = vit->image_size, grid = vit->grid;
  float *out = workspace->patches + image * grid * grid * 3 * p * p;
  for (size_t gy = 0; gy < grid; gy++) {
    for (size_t gx = 0; gx < grid; gx++) {
      for (size_t c = 0; c < 3; c++) {
        for (size_t y = 0; y < p; y++, out += p) {
          memcpy(out, workspace->input + (c * size + gy * p + y) * size + gx * p, p * sizeof *out);
        }
      }
    }
  }
}

/* One block on a group of images, R = images * tokens rows:
 *
 *     1   h1 = norm1(x_in)                                     [R, dim]
 *     2   q, k, v = h1 W_qkv^T + b + hooks                     [Q, dim], [R, dim], [R, dim]
 *     3   o = softmax(q k^T / sqrt(head_dim)) v, by head       [Q, dim]; with rotary positions of rotated q and k
 *     4   x_mid = x_in + o W_output^T + b + hook               [Q, dim]
 *     5   h2 = norm2(x_mid)                                    [Q, dim]
 *     6   f = h2 W_fc1^T + b + hook                            [Q, fc1_dim]
 *     7   g = act(f), or silu(gate) up of f = [gate; up]       [Q, mlp_dim]
 *     8   x_out = x_mid + g W_fc2^T + b + hook                 [Q, dim]
 *
 * o and g are normed once more where the block has inner norms.
 * Q = R, except in the last block where the features are its class tokens: these alone have queries there, and steps 4
 * to 8 run on Q = images rows. keep: the backward pass follows and needs the probabilities of step 3. */
static void block_forward(const struct dli_block_call *call, bool keep, float *x_mid, float *x_out) {
  const struct dli_vit *vit = call->vit;
  const struct dli_vit_block *w = call->weights;
  const struct dli_kernels *k = call->kernels;
  struct dli_vit_workspace *ws = call->workspace;
  const struct dli_block_buffers *b = &call->buffers;
  const size_t dim = vit->dim, tokens = vit->tokens, images = ws->now, rows = images * tokens, mlp = vit->mlp_dim;
  const size_t queries = dli_vit_queries(vit, call->index), tail = images * queries;
  const size_t stride = queries == 1 ? tokens * dim : dim; /* from query to query in arrays of all tokens */
  struct dli_profile *profile = &ws->profile;
  const struct dli_const_matrix h1 = dli_const_view(b->h1, rows, dim, dim), o = dli_const_view(b->o, tail, dim, dim);
  const struct dli_const_matrix h2 = dli_const_view(b->h2, tail, dim, dim), g = dli_const_view(b->g, tail, mlp, mlp);
  const struct dli_matrix f = dli_view(b->f, tail, vit->fc1_dim, vit->fc1_dim),
                          middle = dli_view(x_mid, tail, dim, dim);
  const struct dli_matrix out = dli_view(x_out, tail, dim, dim);

  /* 1 */
  k->layer_norm(dli_const_view(b->x_in, rows, dim, dim), w->norm1_gain, w->norm1_bias, vit->eps,
                dli_view(b->h1, rows, dim, dim), b->mean1, b->rstd1);
  dli_profile_lap(profile, DLI_NORMS);
  /* 2: query, key and value side by side, in one product where all rows have queries */
  const struct dli_const_matrix h1_of_queries = dli_const_view(b->h1, tail, dim, stride);
  const struct dli_matrix q = dli_view(b->qkv, tail, dim, 3 * stride);
  if (queries == tokens) {
    dli_weight_forward(&w->qkv, ws->products, 0, w->qkv_bias, h1, false, dli_view(b->qkv, rows, 3 * dim, 3 * dim));
  } else {
    dli_weight_forward(&w->qkv, ws->products, 0, w->qkv_bias, h1_of_queries, false, q);
    dli_weight_forward(&w->qkv, ws->products, dim, w->qkv_bias, h1, false,
                       dli_view(b->qkv + dim, rows, 2 * dim, 3 * dim));
  }
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook(call, DLORA_SITE_QUERY, 0, h1_of_queries, queries, q);
  dli_block_hook(call, DLORA_SITE_KEY, 0, h1, tokens, dli_view(b->qkv + dim, rows, dim, 3 * dim));
  dli_block_hook(call, DLORA_SITE_VALUE, 0, h1, tokens, dli_view(b->qkv + 2 * dim, rows, dim, 3 * dim));

  /* 3: image by image, since a token attends to tokens of its own image only */
  for (size_t i = 0; i < images; i++) {
    float *kept = keep ? b->probabilities + i * dli_vit_kept_of_attention(vit, queries) : NULL;
    const struct dli_qkv in = dli_vit_qkv(vit, ws, b->qkv, false, i);
    dli_vit_attention(vit, k, ws, &in, queries, kept, (w->inner1_gain ? b->raw_o : b->o) + i * queries * dim, NULL);
  }
  dli_profile_lap(profile, DLI_ATTENTION);
  if (w->inner1_gain) {
    k->layer_norm(dli_const_view(b->raw_o, tail, dim, dim), w->inner1_gain, w->inner1_bias, vit->eps,
                  dli_view(b->o, tail, dim, dim), b->mean3, b->rstd3);
    dli_profile_lap(profile, DLI_NORMS);
  }

  /* 4: the product is added to a copy of x_in, which in inference is the same array */
  for (size_t i = 0; i < tail; i++) {
    if (x_mid + i * dim != b->x_in + i * stride) memmove(x_mid + i * dim, b->x_in + i * stride, dim * sizeof *x_mid);
  }
  dli_profile_lap(profile, DLI_COPIES);
  dli_weight_forward(&w->output, ws->products, 0, w->output_bias, o, true, middle);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook(call, DLORA_SITE_OUTPUT, 0, o, queries, middle);

  /* 5 and 6 */
  k->layer_norm(dli_const_view(x_mid, tail, dim, dim), w->norm2_gain, w->norm2_bias, vit->eps,
                dli_view(b->h2, tail, dim, dim), b->mean2, b->rstd2);
  dli_profile_lap(profile, DLI_NORMS);
  dli_weight_forward(&w->fc1, ws->products, 0, w->fc1_bias, h2, false, f);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook(call, DLORA_SITE_FC1, 0, h2, queries, f);
  /* 7: f stays where the backward pass needs it; in inference g takes its place */
  k->activation[vit->activation](b->f, tail, mlp, w->inner2_gain ? b->raw_g : b->g);
  dli_profile_lap(profile, DLI_ACTIVATION);
  if (w->inner2_gain) {
    k->layer_norm(dli_const_view(b->raw_g, tail, mlp, mlp), w->inner2_gain, w->inner2_bias, vit->eps,
                  dli_view(b->g, tail, mlp, mlp), b->mean4, b->rstd4);
    dli_profile_lap(profile, DLI_NORMS);
  }
  /* 8: the product is added to a copy of x_mid */
  if (x_out != x_mid) memcpy(x_out, x_mid, tail * dim * sizeof *x_out);
  dli_profile_lap(profile, DLI_COPIES);
  dli_weight_forward(&w->fc2, ws->products, 0, w->fc2_bias, g, true, out);
  dli_profile_lap(profile, DLI_PRODUCTS);
  dli_block_hook(call, DLORA_SITE_FC2, 0, g, queries, out);
}

/* x [tokens, dim] of one image: the tokens before the patches and, below them, positions + patches W_patch^T; the bias
 * of the projection and the positions of the tokens are part of these constants. Some families norm the patches before
 * their positions are added, others all tokens at the end. */
static void enter(const struct dli_vit *vit, const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                  size_t image) {
  const size_t dim = vit->dim, patches = vit->grid * vit->grid, pixels = vit->patch.cols;
  const size_t prefix = vit->num_prefix_tokens * dim;
  const struct dli_const_matrix cut =
      dli_const_view(workspace->patches + image * patches * pixels, patches, pixels, pixels);
  float *out = workspace->x + image * vit->tokens * dim, *other = workspace->shared.h1;
  float *x = vit->pre_norm_gain ? other : out;
  DLI_ASSERT(!vit->pre_norm_gain || !vit->patch_norm_gain);
  memcpy(x, vit->prefix, prefix * sizeof *x);
  if (vit->patch_norm_gain) {
    dli_weight_forward(&vit->patch, workspace->products, 0, vit->patch_bias, cut, false,
                       dli_view(other, patches, dim, dim));
    kernels->layer_norm(dli_const_view(other, patches, dim, dim), vit->patch_norm_gain, vit->patch_norm_bias, vit->eps,
                        dli_view(x + prefix, patches, dim, dim), NULL, NULL);
    kernels->add(vit->positions, patches * dim, x + prefix);
  } else {
    memcpy(x + prefix, vit->positions, patches * dim * sizeof *x);
    dli_weight_forward(&vit->patch, workspace->products, 0, NULL, cut, true, dli_view(x + prefix, patches, dim, dim));
  }
  if (vit->pre_norm_gain) {
    kernels->layer_norm(dli_const_view(x, vit->tokens, dim, dim), vit->pre_norm_gain, vit->pre_norm_bias, vit->eps,
                        dli_view(out, vit->tokens, dim, dim), NULL, NULL);
  }
}

/* In two steps:
 *
 *     1   x [R, dim]: the tokens of each image
 *     2   the blocks below the first adapted one, group by group: a group passes through all of them before the next
 *         one starts, so that its activations stay in the caches */
void dli_vit_forward_trunk(const struct dli_vit *vit, const struct dli_kernels *kernels,
                           struct dli_vit_workspace *workspace, size_t images) {
  const size_t dim = vit->dim;
  DLI_ASSERT(images <= workspace->max_images && workspace->first <= vit->depth);
  workspace->images = images;
  dli_profile_start(&workspace->profile);
  /* 1 */
  for (size_t i = 0; i < images; i++) enter(vit, kernels, workspace, i);
  dli_profile_lap(&workspace->profile, DLI_PRODUCTS);
  /* 2 */
  for (bool more = dli_vit_next_group(workspace, true); more; more = dli_vit_next_group(workspace, false)) {
    const size_t row = workspace->at * vit->tokens;
    for (size_t l = 0; l < workspace->first; l++) {
      const struct dli_block_call call = {
          vit, &vit->blocks[l], kernels, workspace, NULL, l, dli_vit_buffers(vit, workspace, l)};
      (dli_vit_in_bfloat16(vit) ? dli_block_bfloat16_forward : block_forward)(&call, false, workspace->x + row * dim,
                                                                              workspace->x + row * dim);
    }
    /* If no block is adapted, the last one belongs to the trunk and has left what is pooled. */
    const size_t left = workspace->first == vit->depth ? dli_vit_tail(vit) : vit->tokens;
    memcpy(workspace->trunk + workspace->at * left * dim, workspace->x + row * dim,
           workspace->now * left * dim * sizeof *workspace->x);
    dli_profile_lap(&workspace->profile, DLI_COPIES);
  }
}

/* Group by group: copies what the trunk left, since the blocks change their input in place and a second pass may start
 * from the same trunk; runs the adapted blocks, each of which writes the input of the next; and pools what the last one
 * leaves. */
void dli_vit_forward_upper(const struct dli_vit *vit, const struct dli_vit_block *blocks,
                           const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                           const struct dli_vit_hooks *hooks, float *features) {
  DLI_ASSERT(!workspace->middle || workspace->middle_block >= workspace->first);
  const size_t dim = vit->dim, tail = dli_vit_tail(vit);
  const bool bfloat16 = dli_vit_upper_in_bfloat16(vit, blocks, workspace, hooks);
  dli_profile_start(&workspace->profile);
  for (bool more = dli_vit_next_group(workspace, true); more; more = dli_vit_next_group(workspace, false)) {
    float *last = workspace->last + workspace->at * tail * dim;
    if (workspace->first == vit->depth) {
      memcpy(last, workspace->trunk + workspace->at * tail * dim, workspace->now * tail * dim * sizeof *last);
    } else {
      const struct dli_block_buffers b = dli_vit_buffers(vit, workspace, workspace->first);
      memcpy(b.x_in, workspace->trunk + workspace->at * vit->tokens * dim,
             workspace->now * vit->tokens * dim * sizeof *b.x_in);
    }
    dli_profile_lap(&workspace->profile, DLI_COPIES);
    for (size_t l = workspace->first; l < vit->depth; l++) {
      const struct dli_block_call call = {
          vit, &blocks[l], kernels, workspace, hooks, l, dli_vit_buffers(vit, workspace, l)};
      if (workspace->middle && l == workspace->middle_block) {
        dli_vit_early(vit, kernels, workspace, call.buffers.x_in, workspace->now,
                      workspace->middle + workspace->at * 2 * dim);
      }
      float *x_out = l + 1 == vit->depth ? last : dli_vit_buffers(vit, workspace, l + 1).x_in;
      (bfloat16 ? dli_block_bfloat16_forward : block_forward)(&call, workspace->training, call.buffers.x_mid, x_out);
    }
    dli_vit_pool_forward(vit, kernels, workspace, features + workspace->at * dim);
  }
}
