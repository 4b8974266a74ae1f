/* Attention of one learnt query to the tokens of an image, and the MLP behind it, forward and backward (SigLIP's
 * pooling by a multi-head attention probe). The query is a constant, so that neither keys nor values of the tokens are
 * computed: a head's scores are products of the tokens with one vector, and its output is W_v times the average token.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "vit/vit.h"

/* In place, [heads, count]. */
static void softmax(float *scores, size_t heads, size_t count) {
  for (size_t h = 0; h < heads; h++) {
    float *row = scores + h * count, largest = row[0], sum = 0.0f;
    for (size_t t = 1; t < count; t++) largest = row[t] > largest ? row[t] : largest;
    for (size_t t = 0; t < count; t++) sum += row[t] = expf(row[t] - largest);
    for (size_t t = 0; t < count; t++) row[t] /= sum;
  }
}

static float *probabilities_of(const struct dli_vit *vit, const struct dli_vit_workspace *ws, size_t image) {
  return ws->pool.probabilities + (ws->at + image) * vit->heads * vit->tokens;
}

/* Of one image:
 *
 *     1   p = softmax(scores h^T)                              [heads, count]
 *     2   mixed = p h                                          [heads, dim] */
void dli_vit_attend(const struct dli_vit *vit, struct dli_vit_workspace *ws, size_t image, const float *h,
                    size_t count) {
  const size_t dim = vit->dim, heads = vit->heads;
  float *p = probabilities_of(vit, ws, image);
  dli_gemm_nt(heads, count, dim, 1.0f, vit->attention_pool.scores, dim, h, dim, 0.0f, p, count);
  softmax(p, heads, count);
  dli_gemm_nn(heads, dim, count, 1.0f, p, count, h, dim, 0.0f, ws->pool.mixed + image * heads * dim, dim);
}

/* Rows of products below: those of the group, or one at a time in bfloat16, where the order of sums must not depend on
 * the batch. */
static size_t rows_at_once(const struct dli_vit *vit, const struct dli_vit_workspace *ws) {
  return vit->bfloat16 ? 1 : ws->now;
}

static int32_t activation_of(const struct dli_vit *vit) {
  return vit->activation == DLORA_ACTIVATION_SWIGLU ? DLORA_ACTIVATION_GELU : vit->activation;
}

/* Of all images of the group:
 *
 *     3   z = mixed W_v^T + b, by head, as probabilities sum to 1   [now, dim]
 *     4   sum = z W_output^T + b                                    [now, dim]
 *     5   f = norm(sum) W_fc1^T + b                                 [now, mlp_dim]
 *     6   out = sum + act(f) W_fc2^T + b                            [now, dim] */
void dli_vit_attended(const struct dli_vit *vit, const struct dli_kernels *kernels, struct dli_vit_workspace *ws,
                      float *out) {
  const struct dli_vit_attention_pool *pool = &vit->attention_pool;
  const struct dli_pool_buffers *b = &ws->pool;
  const size_t dim = vit->dim, heads = vit->heads, width = dim / heads, mlp = pool->mlp_dim;
  const size_t n = rows_at_once(vit, ws);
  dli_profile_lap(&ws->profile, DLI_ATTENTION);
  for (size_t i = 0; i < ws->now; i += n) {
    const size_t image = ws->at + i;
    const float *mixed = b->mixed + i * heads * dim;
    float *z = b->z + i * dim, *sum = b->sum + image * dim, *normed = b->normed + i * dim;
    float *f = b->f + image * mlp, *g = b->g + i * mlp;
    for (size_t h = 0; h < heads; h++) {
      dli_weight_forward(&pool->value, NULL, h * width, pool->value_bias,
                         dli_const_view(mixed + h * dim, n, dim, heads * dim), false,
                         dli_view(z + h * width, n, width, dim));
    }
    dli_weight_forward(&pool->output, NULL, 0, pool->output_bias, dli_const_view(z, n, dim, dim), false,
                       dli_view(sum, n, dim, dim));
    kernels->layer_norm(dli_const_view(sum, n, dim, dim), pool->norm_gain, pool->norm_bias, vit->eps,
                        dli_view(normed, n, dim, dim), b->mean + image, b->rstd + image);
    dli_weight_forward(&pool->fc1, NULL, 0, pool->fc1_bias, dli_const_view(normed, n, dim, dim), false,
                       dli_view(f, n, mlp, mlp));
    kernels->activation[activation_of(vit)](f, n, mlp, g);
    memcpy(out + i * dim, sum, n * dim * sizeof *out);
    dli_weight_forward(&pool->fc2, NULL, 0, pool->fc2_bias, dli_const_view(g, n, mlp, mlp), true,
                       dli_view(out + i * dim, n, dim, dim));
  }
  dli_profile_lap(&ws->profile, DLI_PRODUCTS);
}

/* Steps 6 to 3 in reverse: to the gradients of `mixed`. */
void dli_vit_attended_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                               struct dli_vit_workspace *ws, const float *d_out) {
  const struct dli_vit_attention_pool *pool = &vit->attention_pool;
  const struct dli_pool_buffers *b = &ws->pool;
  const size_t dim = vit->dim, heads = vit->heads, width = dim / heads, mlp = pool->mlp_dim;
  const size_t n = rows_at_once(vit, ws);
  for (size_t i = 0; i < ws->now; i += n) {
    const size_t image = ws->at + i;
    float *d_sum = b->d_sum + i * dim, *d_normed = b->normed + i * dim, *d_z = b->z + i * dim;
    float *d_f = b->g + i * mlp, *d_mixed = b->mixed + i * heads * dim;
    dli_weight_backward(&pool->fc2, NULL, 0, dli_const_view(d_out + i * dim, n, dim, dim), false,
                        dli_view(d_f, n, mlp, mlp));
    kernels->activation_backward[activation_of(vit)](b->f + image * mlp, n, mlp, d_f);
    dli_weight_backward(&pool->fc1, NULL, 0, dli_const_view(d_f, n, mlp, mlp), false, dli_view(d_normed, n, dim, dim));
    memcpy(d_sum, d_out + i * dim, n * dim * sizeof *d_sum);
    kernels->layer_norm_backward(dli_const_view(d_normed, n, dim, dim),
                                 dli_const_view(b->sum + image * dim, n, dim, dim), pool->norm_gain, b->mean + image,
                                 b->rstd + image, dli_view(d_sum, n, dim, dim));
    dli_weight_backward(&pool->output, NULL, 0, dli_const_view(d_sum, n, dim, dim), false, dli_view(d_z, n, dim, dim));
    for (size_t h = 0; h < heads; h++) {
      dli_weight_backward(&pool->value, NULL, h * width, dli_const_view(d_z + h * width, n, width, dim), false,
                          dli_view(d_mixed + h * dim, n, dim, heads * dim));
    }
  }
  dli_profile_lap(&ws->profile, DLI_PRODUCTS);
}

/* Steps 2 and 1 in reverse: d_h = p^T d_mixed + d_scores^T scores, where d_scores = p (d_p - sum of p d_p) and d_p =
 * d_mixed h^T. */
void dli_vit_attend_backward(const struct dli_vit *vit, const struct dli_vit_workspace *ws, size_t image,
                             const float *h, size_t count, float *scratch, float *d_h) {
  const size_t dim = vit->dim, heads = vit->heads;
  const float *p = probabilities_of(vit, ws, image), *d_mixed = ws->pool.mixed + image * heads * dim;
  dli_gemm_nt(heads, count, dim, 1.0f, d_mixed, dim, h, dim, 0.0f, scratch, count);
  for (size_t i = 0; i < heads; i++) {
    const float *row = p + i * count;
    float *d = scratch + i * count, sum = 0.0f;
    for (size_t t = 0; t < count; t++) sum += row[t] * d[t];
    for (size_t t = 0; t < count; t++) d[t] = row[t] * (d[t] - sum);
  }
  dli_gemm_tn(count, dim, heads, 1.0f, p, count, d_mixed, dim, 0.0f, d_h, dim);
  dli_gemm_tn(count, dim, heads, 1.0f, scratch, count, vit->attention_pool.scores, dim, 1.0f, d_h, dim);
}
