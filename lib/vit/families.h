/* Families of Vision Transformers: how their tensors are named and what shapes do not tell.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_VIT_FAMILIES_H
#define DLI_VIT_FAMILIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What follows the last block, beside the norm of each token. */
struct dli_vit_pool_naming {
  const char *norm_behind; /* of the pooled token */
  /* Attention of a learnt query, the probe: query by itself and keys and values side by side, or whole names of weight
   * and bias of all three. */
  const char *probe, *query, *kv, *qkv_weight, *qkv_bias;
  const char *output, *norm, *fc1, *fc2;
};

/* Tensor names; %zu is the block. Several names between '|' are what different writers call the same tensor. NULL: does
 * not exist there. */
struct dli_vit_naming {
  const char *anchor; /* the patch projection's weight; what precedes it in the file is the prefix of all names */
  const char *patch_bias, *patch_norm, *class_token, *distillation_token, *registers, *positions, *pre_norm, *norm;
  const char *norm1, *norm2, *qkv, *query_bias, *value_bias; /* side by side, or ... */
  const char *query, *key, *value;                           /* ... each by itself */
  const char *inner_norm1, *output, *scale1;                 /* norm of what output reads */
  const char *inner_norm2;                                   /* norm of what fc2 reads */
  const char *fc1, *gate, *up, *fc2, *scale2;                /* fc1, or its halves gate and up */
  struct dli_vit_pool_naming pool;
};

/* Rotary positions: queries and keys of patches are rotated in each block, by angles and in pairs that differ. */
enum dli_vit_rotary { DLI_ROTARY_NONE, DLI_ROTARY_DINOV3, DLI_ROTARY_EVA };

/* One row of the table. The first row of an anchor whose conditions hold is the family of a file. */
struct dli_vit_family {
  int32_t id;           /* DLORA_NAMING_... */
  const char *has[3];   /* in the naming's form: tensors that must be there, or NULL */
  const char *lacks;    /* and one that must not, or NULL */
  bool flat_tokens;     /* class token [dim] and positions [count, dim]; else with a 1 in front: [1, .., dim] */
  bool rms_norm;        /* all norms are RMS norms, without biases */
  int32_t activation;   /* DLORA_ACTIVATION_..., where neither options nor the file say it */
  float layer_norm_eps; /* the same */
  int32_t rotary;       /* enum dli_vit_rotary */
  size_t image_size;    /* where no position embedding tells it */
  struct dli_vit_naming names;
};

extern const struct dli_vit_family dli_vit_families[];
extern const size_t dli_vit_num_families;

#endif
