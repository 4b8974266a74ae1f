/* From the tokens behind the last block to the feature of an image, and back. Families differ in which tokens are
 * pooled, by a mean or by attention, and in whether a norm runs over each token before pooling, over the pooled token,
 * over both, or over none.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "vit/vit.h"

/* Tokens [begin, end) of those that leave the last block, which are pooled. */
struct range {
  size_t begin, end;
};

static struct range pooled_tokens(const struct dli_vit *vit) {
  switch (vit->pool) {
    case DLORA_POOL_CLASS:
      return (struct range){0, 1};
    case DLORA_POOL_DISTILLED:
      return (struct range){0, 2};
    case DLORA_POOL_MEAN_TOKENS:
      return (struct range){0, vit->tokens};
    default:
      return (struct range){vit->num_prefix_tokens, vit->tokens};
  }
}

static void mean_of(const struct dli_kernels *kernels, const float *x, size_t rows, size_t dim, float *out) {
  memcpy(out, x, dim * sizeof *out);
  for (size_t i = 1; i < rows; i++) kernels->add(x + i * dim, dim, out);
  if (rows == 1) return;
  const float share = 1.0f / (float)rows;
  for (size_t j = 0; j < dim; j++) out[j] *= share;
}

/* The pooled tokens of an image of the group, normed into `scratch` where the family has a norm of each token. */
static const float *normed_tokens(const struct dli_vit *vit, const struct dli_kernels *kernels,
                                  struct dli_vit_workspace *ws, size_t image, float *scratch) {
  const struct range range = pooled_tokens(vit);
  const size_t dim = vit->dim, count = range.end - range.begin;
  const size_t row = (ws->at + image) * dli_vit_tail(vit) + range.begin;
  const float *x = ws->last + row * dim;
  if (!vit->norm_gain) return x;
  kernels->layer_norm(dli_const_view(x, count, dim, dim), vit->norm_gain, vit->norm_bias, vit->eps,
                      dli_view(scratch, count, dim, dim), ws->last_mean + row, ws->last_rstd + row);
  return scratch;
}

/* For each image of the running group:
 *
 *     1   h = norm(x) of the tokens x [count, dim] that are pooled, where the family has this norm, else x
 *     2   z = mean of h, or what attention makes of it
 *     3   feature = norm(z), where the family has that norm, else z */
void dli_vit_pool_forward(const struct dli_vit *vit, const struct dli_kernels *kernels, struct dli_vit_workspace *ws,
                          float *features) {
  const size_t dim = vit->dim, at = ws->at, now = ws->now;
  const struct range range = pooled_tokens(vit);
  const size_t count = range.end - range.begin;
  const bool attention = vit->pool == DLORA_POOL_ATTENTION;
  float *pooled = vit->pooled_gain ? ws->pooled + at * dim : features;
  for (size_t i = 0; i < now; i++) {
    /* 1 */
    const float *h = normed_tokens(vit, kernels, ws, i, ws->shared.h1);
    /* 2 */
    if (attention) {
      dli_vit_attend(vit, ws, i, h, count);
    } else {
      mean_of(kernels, h, count, dim, pooled + i * dim);
    }
  }
  if (attention) dli_vit_attended(vit, kernels, ws, pooled);
  /* 3 */
  if (vit->pooled_gain) {
    kernels->layer_norm(dli_const_view(pooled, now, dim, dim), vit->pooled_gain, vit->pooled_bias, vit->eps,
                        dli_view(features, now, dim, dim), ws->pooled_mean + at, ws->pooled_rstd + at);
  }
  dli_profile_lap(&ws->profile, DLI_NORMS);
}

/* Step 1 in reverse for one image: to d_x [count, dim], which is 0, from d_h. */
static void norm_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                          const struct dli_vit_workspace *ws, size_t row, size_t count, const float *d_h, float *d_x) {
  const size_t dim = vit->dim;
  if (!vit->norm_gain) {
    memcpy(d_x, d_h, count * dim * sizeof *d_x);
    return;
  }
  kernels->layer_norm_backward(dli_const_view(d_h, count, dim, dim),
                               dli_const_view(ws->last + row * dim, count, dim, dim), vit->norm_gain,
                               ws->last_mean + row, ws->last_rstd + row, dli_view(d_x, count, dim, dim));
}

/* The steps of dli_vit_pool_forward in reverse. Tokens that are not pooled have no gradient. */
void dli_vit_pool_backward(const struct dli_vit *vit, const struct dli_kernels *kernels, struct dli_vit_workspace *ws,
                           const float *d_features) {
  const size_t dim = vit->dim, at = ws->at, now = ws->now, tail = dli_vit_tail(vit);
  const struct range range = pooled_tokens(vit);
  const size_t count = range.end - range.begin;
  const bool attention = vit->pool == DLORA_POOL_ATTENTION;
  const float *d_z = d_features;
  /* [G, dim] and [G, 3 dim] are room for the pooled tokens of all images and three times that of one. */
  float *h = ws->d_qkv, *d_h = h + vit->tokens * dim, *scratch = d_h + vit->tokens * dim;
  /* 3 */
  if (vit->pooled_gain) {
    memset(ws->d_h, 0, now * dim * sizeof *ws->d_h);
    kernels->layer_norm_backward(dli_const_view(d_features, now, dim, dim),
                                 dli_const_view(ws->pooled + at * dim, now, dim, dim), vit->pooled_gain,
                                 ws->pooled_mean + at, ws->pooled_rstd + at, dli_view(ws->d_h, now, dim, dim));
    d_z = ws->d_h;
  }
  /* 2 and 1 */
  if (attention) dli_vit_attended_backward(vit, kernels, ws, d_z);
  memset(ws->d_tail, 0, now * tail * dim * sizeof *ws->d_tail);
  for (size_t i = 0; i < now; i++) {
    if (attention) {
      dli_vit_attend_backward(vit, ws, i, normed_tokens(vit, kernels, ws, i, h), count, scratch, d_h);
    } else {
      const float share = 1.0f / (float)count;
      for (size_t j = 0; j < dim; j++) d_h[j] = share * d_z[i * dim + j];
      for (size_t t = 1; t < count; t++) memcpy(d_h + t * dim, d_h, dim * sizeof *d_h);
    }
    norm_backward(vit, kernels, ws, (at + i) * tail + range.begin, count, d_h,
                  ws->d_tail + (i * tail + range.begin) * dim);
  }
  dli_profile_lap(&ws->profile, DLI_NORMS);
}
