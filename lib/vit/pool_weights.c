/* Which tokens of a backbone become its feature, as the settings say or the tensors imply; and the weights
 * of what follows the last block.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "vit/loader.h"

/* ---- which pool ---- */

static bool has_attention(const struct dli_vit_loader *l) {
  return dli_vit_has(l, l->names.naming->pool.probe, 0, "");
}

static bool has_pooled_norm(const struct dli_vit_loader *l) {
  return dli_vit_has(l, l->names.naming->pool.norm_behind, 0, ".weight");
}

/* What a pool needs and this backbone lacks, or NULL. */
static const char *lacking(const struct dli_vit_loader *l, int32_t pool) {
  if (pool == DLORA_POOL_CLASS && !l->vit->has_class_token) return "a class token";
  if (pool == DLORA_POOL_DISTILLED && !(l->vit->has_class_token && l->vit->has_distillation_token)) {
    return "a class and a distillation token";
  }
  if (pool == DLORA_POOL_ATTENTION && !has_attention(l)) return "the tensors of attention that pools tokens";
  return NULL;
}

/* timm's feature of a distilled DeiT is the mean of both tokens, that of Hugging Face the class token. */
static int32_t without_patches(const struct dli_vit_loader *l) {
  const bool both = l->vit->naming == DLORA_NAMING_TIMM && l->vit->has_distillation_token;
  return both ? DLORA_POOL_DISTILLED : DLORA_POOL_CLASS;
}

static int32_t implied(const struct dli_vit_loader *l) {
  if (has_attention(l)) return DLORA_POOL_ATTENTION;
  return has_pooled_norm(l) || !l->vit->has_class_token ? DLORA_POOL_MEAN_PATCHES : without_patches(l);
}

static dlora_status choose(struct dli_vit_loader *l) {
  struct dli_vit *vit = l->vit;
  struct dli_settings *settings = l->settings;
  char who[DLI_WHO_SIZE];
  dli_settings_fill(settings, DLI_SET_POOL, DLORA_ORIGIN_TENSORS, "", (double[]){(double)implied(l)});
  /* timm's word for the class token, and for what the head of a distilled DeiT reads. */
  if (settings->pool_is_token) settings->options.pool = without_patches(l);
  vit->pool = settings->options.pool;
  const char *lacks = lacking(l, vit->pool);
  if (!lacks) return DLORA_OK;
  return dli_raise(dli_settings_blame(settings, DLI_SET_POOL), "%s: %s is %s, but the file does not have %s",
                   dli_tensors_label(l->tensors), dli_settings_who(settings, DLI_SET_POOL, who),
                   dli_setting_word(DLI_SET_POOL, vit->pool), lacks);
}

/* ---- attention of a learnt query ---- */

/* Query, key and value of the pool's attention: one matrix [3 dim, dim] as torch's MultiheadAttention has it, or the
 * query's [dim, dim] and one of keys and values [2 dim, dim]. */
struct projections {
  const float *query, *key, *value; /* [dim, dim] */
  const float *query_bias;          /* [dim] */
  const float *value_bias;
};

static dlora_status load_projections(struct dli_vit_loader *l, struct projections *out) {
  const struct dli_vit_pool_naming *n = &l->names.naming->pool;
  const size_t dim = l->vit->dim;
  const float *bias;
  char name[DLI_NAME_SIZE];
  if (n->qkv_weight) {
    dli_vit_name_of(l, name, n->qkv_weight, 0, "");
    DLI_TRY(dli_vit_load_tensor(l, name, 2, (size_t[]){3 * dim, dim}, &out->query));
    DLI_TRY(dli_vit_load_vector(l, n->qkv_bias, 0, "", 3 * dim, &out->query_bias));
    out->key = out->query + dim * dim;
    out->value_bias = out->query_bias + 2 * dim;
  } else {
    struct dli_weight query, both;
    DLI_TRY(dli_vit_load_linear(l, n->query, 0, dim, dim, &query, &out->query_bias));
    DLI_TRY(dli_vit_load_linear(l, n->kv, 0, 2 * dim, dim, &both, &bias));
    out->query = query.data;
    out->key = both.data;
    out->value_bias = bias + dim;
  }
  out->value = out->key + dim * dim;
  return DLORA_OK;
}

/* The query q = W_q probe + b_q is a constant, and so is what each head compares tokens with: of its rows of W_k, the
 * score of a token x is (q W_k / sqrt(width)) x, up to a constant of all tokens that softmax removes. */
static dlora_status make_scores(struct dli_vit_loader *l, const struct projections *p, const float *probe,
                                const float **out) {
  const size_t dim = l->vit->dim, heads = l->vit->heads, width = dim / heads;
  float *scores;
  double *q, *sum;
  DLI_TRY(dli_vit_keep(l, heads * dim, &scores));
  DLI_TRY(DLI_NEW(l->allocator, q, 2 * dim));
  sum = q + dim;
  for (size_t i = 0; i < dim; i++) {
    q[i] = (double)p->query_bias[i];
    for (size_t j = 0; j < dim; j++) q[i] += (double)p->query[i * dim + j] * (double)probe[j];
    q[i] /= sqrt((double)width);
  }
  for (size_t h = 0; h < heads; h++) {
    memset(sum, 0, dim * sizeof *sum);
    for (size_t i = h * width; i < (h + 1) * width; i++) {
      for (size_t j = 0; j < dim; j++) sum[j] += q[i] * (double)p->key[i * dim + j];
    }
    for (size_t j = 0; j < dim; j++) scores[h * dim + j] = (float)sum[j];
  }
  dli_free(l->allocator, q);
  *out = scores;
  return DLORA_OK;
}

static dlora_status load_attention(struct dli_vit_loader *l) {
  const struct dli_vit_pool_naming *n = &l->names.naming->pool;
  struct dli_vit_attention_pool *pool = &l->vit->attention_pool;
  const size_t dim = l->vit->dim;
  struct projections projections;
  const struct dli_tensor *fc1;
  const float *probe;
  char name[DLI_NAME_SIZE];
  dli_vit_name_of(l, name, n->fc1, 0, ".weight");
  DLI_TRY(dli_vit_require(l, name, 2, (size_t[]){SIZE_MAX, dim}, &fc1));
  if (fc1->shape[0] == 0) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is empty", dli_tensors_label(l->tensors), name);
  }
  pool->mlp_dim = fc1->shape[0];
  dli_vit_name_of(l, name, n->probe, 0, "");
  DLI_TRY(dli_vit_load_tensor(l, name, 3, (size_t[]){1, 1, dim}, &probe));
  DLI_TRY(load_projections(l, &projections));
  DLI_TRY(make_scores(l, &projections, probe, &pool->scores));
  pool->value = (struct dli_weight){.rows = dim, .cols = dim, .data = projections.value};
  pool->value_bias = projections.value_bias;
  DLI_TRY(dli_vit_load_linear(l, n->output, 0, dim, dim, &pool->output, &pool->output_bias));
  DLI_TRY(dli_vit_load_norm(l, n->norm, 0, &pool->norm_gain, &pool->norm_bias));
  DLI_TRY(dli_vit_load_linear(l, n->fc1, 0, pool->mlp_dim, dim, &pool->fc1, &pool->fc1_bias));
  return dli_vit_load_linear(l, n->fc2, 0, dim, pool->mlp_dim, &pool->fc2, &pool->fc2_bias);
}

/* With another pool the attention's tensors are there for nothing. */
static void pass_over_attention(struct dli_vit_loader *l) {
  static const char *const endings[] = {"", ".weight", ".bias"};
  const struct dli_vit_pool_naming *n = &l->names.naming->pool;
  const char *const patterns[] = {n->probe,  n->qkv_weight, n->qkv_bias, n->query, n->kv,
                                  n->output, n->norm,       n->fc1,      n->fc2};
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
    for (size_t e = 0; patterns[i] && e < sizeof endings / sizeof *endings; e++) {
      char name[DLI_NAME_SIZE];
      dli_vit_name_of(l, name, patterns[i], 0, endings[e]);
      const struct dli_tensor *tensor = dli_tensors_find(l->tensors, name);
      if (tensor) l->used[tensor - dli_tensors_at(l->tensors, 0)] = true;
    }
  }
}

/* ---- all of it ---- */

/* The norm of each token, or that of the pooled one, or both. A network of timm may have neither (RADIO, InternViT); of
 * others a file without is damaged. */
static dlora_status load_norms(struct dli_vit_loader *l) {
  struct dli_vit *vit = l->vit;
  const struct dli_vit_naming *n = l->names.naming;
  const bool behind = has_pooled_norm(l);
  const bool each = dli_vit_has(l, n->norm, 0, ".weight") || dli_vit_has(l, n->norm, 0, ".bias");
  if (behind) DLI_TRY(dli_vit_load_norm(l, n->pool.norm_behind, 0, &vit->pooled_gain, &vit->pooled_bias));
  if (!each && (behind || vit->naming == DLORA_NAMING_TIMM)) return DLORA_OK;
  return dli_vit_load_norm(l, n->norm, 0, &vit->norm_gain, &vit->norm_bias);
}

dlora_status dli_vit_load_pool(struct dli_vit_loader *l) {
  DLI_TRY(choose(l));
  DLI_TRY(load_norms(l));
  if (l->vit->pool == DLORA_POOL_ATTENTION) return load_attention(l);
  if (has_attention(l)) pass_over_attention(l);
  return DLORA_OK;
}
