/* From the tokens behind the last block to the feature of an image, and back. Families differ in which tokens are
 * pooled, and in whether a norm runs over each token before pooling, over the pooled token, or both.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/assert.h"
#include "vit/vit.h"

/* Tokens [begin, end) of those that leave the last block, whose mean is the pooled token. */
struct range {
  size_t begin, end;
};

static struct range pooled_tokens(const struct dli_vit *vit) {
  switch (vit->pool) {
    case DLORA_POOL_CLASS:
      return (struct range){0, 1};
    case DLORA_POOL_DISTILLED:
      return (struct range){0, 2};
    case DLORA_POOL_MEAN_PATCHES:
      return (struct range){vit->num_prefix_tokens, vit->tokens};
    default:
      return (struct range){0, vit->tokens};
  }
}

static void mean_of(const struct dli_kernels *kernels, const float *x, size_t rows, size_t dim, float *out) {
  memcpy(out, x, dim * sizeof *out);
  for (size_t i = 1; i < rows; i++) kernels->add(x + i * dim, dim, out);
  if (rows == 1) return;
  const float share = 1.0f / (float)rows;
  for (size_t j = 0; j < dim; j++) out[j] *= share;
}

/* For each image of the running group:
 *
 *     1   h = norm(x) of the tokens x [tokens, dim] that are pooled, where the family has this norm, else x
 *     2   z = mean of h
 *     3   feature = norm(z), where the family has that norm, else z */
void dli_vit_pool_forward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                          struct dli_vit_workspace *workspace, float *features) {
  const size_t dim = vit->dim, at = workspace->at, now = workspace->now;
  const struct range range = pooled_tokens(vit);
  const size_t count = range.end - range.begin;
  float *pooled = vit->pooled_gain ? workspace->pooled + at * dim : features;
  for (size_t i = 0; i < now; i++) {
    const size_t row = (at + i) * dli_vit_tail(vit) + range.begin;
    const float *x = workspace->last + row * dim;
    /* 1 */
    if (vit->norm_gain) {
      float *h = workspace->shared.h1;
      kernels->layer_norm(dli_const_view(x, count, dim, dim), vit->norm_gain, vit->norm_bias, vit->eps,
                          dli_view(h, count, dim, dim), workspace->last_mean + row, workspace->last_rstd + row);
      x = h;
    }
    /* 2 */
    mean_of(kernels, x, count, dim, pooled + i * dim);
  }
  /* 3 */
  if (vit->pooled_gain) {
    kernels->layer_norm(dli_const_view(pooled, now, dim, dim), vit->pooled_gain, vit->pooled_bias, vit->eps,
                        dli_view(features, now, dim, dim), workspace->pooled_mean + at, workspace->pooled_rstd + at);
  }
  dli_profile_lap(&workspace->profile, DLI_NORMS);
}

/* The steps of dli_vit_pool_forward in reverse. Tokens that are not pooled have no gradient. */
void dli_vit_pool_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                           struct dli_vit_workspace *workspace, const float *d_features) {
  const size_t dim = vit->dim, at = workspace->at, now = workspace->now, tail = dli_vit_tail(vit);
  const struct range range = pooled_tokens(vit);
  const size_t count = range.end - range.begin;
  const float share = 1.0f / (float)count;
  float *d_z = workspace->d_qkv, *d_h = workspace->d_qkv + dim; /* [dim], [count, dim] */
  memset(workspace->d_tail, 0, now * tail * dim * sizeof *workspace->d_tail);
  for (size_t i = 0; i < now; i++) {
    const size_t row = (at + i) * tail + range.begin;
    float *d_x = workspace->d_tail + (i * tail + range.begin) * dim;
    /* 3 */
    memcpy(d_z, d_features + i * dim, dim * sizeof *d_z);
    if (vit->pooled_gain) {
      memset(d_z, 0, dim * sizeof *d_z);
      kernels->layer_norm_backward(dli_const_view(d_features + i * dim, 1, dim, dim),
                                   dli_const_view(workspace->pooled + (at + i) * dim, 1, dim, dim), vit->pooled_gain,
                                   workspace->pooled_mean + at + i, workspace->pooled_rstd + at + i,
                                   dli_view(d_z, 1, dim, dim));
    }
    /* 2 */
    if (count > 1) {
      for (size_t j = 0; j < dim; j++) d_z[j] *= share;
    }
    /* 1 */
    if (!vit->norm_gain) {
      for (size_t t = 0; t < count; t++) memcpy(d_x + t * dim, d_z, dim * sizeof *d_x);
      continue;
    }
    for (size_t t = 0; t < count; t++) memcpy(d_h + t * dim, d_z, dim * sizeof *d_h);
    kernels->layer_norm_backward(
        dli_const_view(d_h, count, dim, dim), dli_const_view(workspace->last + row * dim, count, dim, dim),
        vit->norm_gain, workspace->last_mean + row, workspace->last_rstd + row, dli_view(d_x, count, dim, dim));
  }
  dli_profile_lap(&workspace->profile, DLI_NORMS);
}
