/* A 128-bit fingerprint of a backbone. It tells backbones apart; it does not authenticate them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "vit/vit.h"

struct hash {
  uint64_t a, b;
};

/* splitmix64's finaliser, a bijection that changes half of the bits for any change of one */
static uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  x *= UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static void add_word(struct hash *h, uint64_t word) {
  h->a = mix(h->a ^ word);
  h->b = (h->b ^ word) * UINT64_C(0x9e3779b97f4a7c15);
  h->b ^= h->b >> 29;
}

/* Bit patterns, so that equal weights from F16 and F32 files agree. */
static void add_floats(struct hash *h, const float *values, size_t count) {
  add_word(h, count);
  for (size_t i = 0; i < count; i += 2) {
    uint32_t pair[2] = {0, 0};
    memcpy(pair, values + i, (count - i < 2 ? count - i : 2) * sizeof *pair);
    add_word(h, (uint64_t)pair[1] << 32 | pair[0]);
  }
}

static void add_attention_pool(struct hash *h, const struct dli_vit *vit) {
  const struct dli_vit_attention_pool *pool = &vit->attention_pool;
  const size_t dim = vit->dim, mlp = pool->mlp_dim;
  add_floats(h, pool->scores, vit->heads * dim);
  add_floats(h, pool->value.data, dim * dim);
  add_floats(h, pool->value_bias, dim);
  add_floats(h, pool->output.data, dim * dim);
  add_floats(h, pool->output_bias, dim);
  add_floats(h, pool->norm_gain, dim);
  add_floats(h, pool->norm_bias, dim);
  add_floats(h, pool->fc1.data, mlp * dim);
  add_floats(h, pool->fc1_bias, mlp);
  add_floats(h, pool->fc2.data, dim * mlp);
  add_floats(h, pool->fc2_bias, dim);
}

/* How bytes are resized, where it is not to image_size on both sides by the cubic. Which middle is cut out matters only
 * where an odd number of pixels may be left over. Positions need no word: those that are hashed are resampled. */
static void add_preprocessing(struct hash *h, const struct dli_vit *vit) {
  const struct dli_image_format format = dli_vit_image_format(vit);
  const size_t surplus = format.resized - format.image_size;
  if (format.squash && surplus == 0 && format.filter == DLI_FILTER_CUBIC) return;
  const bool even = format.even_centre && (!format.squash || surplus % 4 == 3);
  const uint64_t words[] = {UINT64_C(0x726573697a696e67), (uint64_t)vit->resize, (uint64_t)vit->interpolation,
                            format.resized, even};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) add_word(h, words[i]);
}

void dli_vit_fingerprint(struct dli_vit *vit) {
  struct hash h = {UINT64_C(0x6475616c6c6f7261), UINT64_C(0x76697420626f6479)};
  const size_t dim = vit->dim, mlp = vit->mlp_dim;
  const uint64_t geometry[] = {dim, vit->depth, vit->heads, mlp, vit->patch_size, vit->image_size};
  for (size_t i = 0; i < sizeof geometry / sizeof *geometry; i++) add_word(&h, geometry[i]);
  add_floats(&h, &vit->eps, 1);
  add_floats(&h, vit->mean, 3);
  add_floats(&h, vit->std, 3);
  add_preprocessing(&h, vit);
  add_floats(&h, vit->patch.data, vit->patch.rows * vit->patch.cols);
  add_floats(&h, vit->prefix, vit->num_prefix_tokens * dim);
  add_floats(&h, vit->positions, vit->grid * vit->grid * dim);
  add_floats(&h, vit->norm_gain, vit->norm_gain ? dim : 0);
  add_floats(&h, vit->norm_bias, vit->norm_bias ? dim : 0);
  for (size_t i = 0; i < vit->depth; i++) {
    const struct dli_vit_block *b = &vit->blocks[i];
    add_floats(&h, b->norm1_gain, dim);
    add_floats(&h, b->norm1_bias, dim);
    add_floats(&h, b->qkv.data, 3 * dim * dim);
    add_floats(&h, b->qkv_bias, 3 * dim);
    add_floats(&h, b->output.data, dim * dim);
    add_floats(&h, b->output_bias, dim);
    add_floats(&h, b->norm2_gain, dim);
    add_floats(&h, b->norm2_bias, dim);
    add_floats(&h, b->fc1.data, vit->fc1_dim * dim);
    add_floats(&h, b->fc1_bias, vit->fc1_dim);
    add_floats(&h, b->fc2.data, dim * mlp);
    add_floats(&h, b->fc2_bias, dim);
    if (vit->inner_norm1) {
      add_floats(&h, b->inner1_gain, dim);
      add_floats(&h, b->inner1_bias, dim);
    }
    if (vit->inner_norm2) {
      add_floats(&h, b->inner2_gain, mlp);
      add_floats(&h, b->inner2_bias, mlp);
    }
  }
  /* What all backbones once had in common enters where it differs, so that their fingerprints stay. */
  if (vit->activation != DLORA_ACTIVATION_GELU) {
    add_word(&h, UINT64_C(0x616374));
    add_word(&h, (uint64_t)vit->activation);
  }
  if (vit->rms_norm) add_word(&h, UINT64_C(0x726d73));
  if (vit->patch_norm_gain) {
    add_floats(&h, vit->patch_bias, dim);
    add_floats(&h, vit->patch_norm_gain, dim);
    add_floats(&h, vit->patch_norm_bias, dim);
  }
  if (vit->pre_norm_gain) {
    add_floats(&h, vit->pre_norm_gain, dim);
    add_floats(&h, vit->pre_norm_bias, dim);
  }
  if (vit->interleaved) add_word(&h, UINT64_C(0x70616972));
  if (vit->rotation) add_floats(&h, vit->rotation, vit->grid * vit->grid * (dim / vit->heads));
  if (vit->pool != DLORA_POOL_CLASS) {
    /* Where there are patches alone, both means are the same. */
    const bool patches = vit->pool == DLORA_POOL_MEAN_TOKENS && vit->num_prefix_tokens == 0;
    add_word(&h, UINT64_C(0x706f6f6c));
    add_word(&h, (uint64_t)(patches ? DLORA_POOL_MEAN_PATCHES : vit->pool));
  }
  if (vit->pooled_gain) {
    add_floats(&h, vit->pooled_gain, dim);
    add_floats(&h, vit->pooled_bias, dim);
  }
  if (vit->pool == DLORA_POOL_ATTENTION) add_attention_pool(&h, vit);
  snprintf(vit->fingerprint, sizeof vit->fingerprint, "%016" PRIx64 "%016" PRIx64, h.a, h.b);
}
