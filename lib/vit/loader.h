/* What loading a Vision Transformer is done with: the file, its family's names, and the model as far as it is there.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_VIT_LOADER_H
#define DLI_VIT_LOADER_H

#include "vit/names.h"
#include "vit/settings.h"
#include "vit/vit.h"

struct dli_vit_loader {
  struct dli_vit *vit;
  const struct dli_tensors *tensors;
  const dlora_allocator *allocator;
  struct dli_vit_names names;
  struct dli_settings *settings;
  bool *used;      /* [number of tensors], by their order in the file */
  bool split_gate; /* fc1 is two tensors, gate and up */
};

/* The name of a tensor in the file: pattern, block and suffix as in dli_vit_name. */
void dli_vit_name_of(const struct dli_vit_loader *loader, char out[DLI_NAME_SIZE], const char *pattern, size_t block,
                     const char *suffix);
/* Whether the file has it; false for a pattern that is NULL. */
bool dli_vit_has(const struct dli_vit_loader *loader, const char *pattern, size_t block, const char *suffix);
/* An array of zeros that the model owns. */
dlora_status dli_vit_keep(struct dli_vit_loader *loader, size_t count, float **out);
/* The tensor of this name and shape, marked as used, whose type is any. FORMAT, with the name, where there is none. */
dlora_status dli_vit_require(const struct dli_vit_loader *loader, const char *name, size_t num_dims,
                             const size_t *shape, const struct dli_tensor **out);
/* The same in float32: converted, or in place where the file has aligned little-endian floats. */
dlora_status dli_vit_load_tensor(struct dli_vit_loader *loader, const char *name, size_t num_dims, const size_t *shape,
                                 const float **out);
dlora_status dli_vit_load_vector(struct dli_vit_loader *loader, const char *pattern, size_t block, const char *suffix,
                                 size_t count, const float **out);
/* Gain and bias [dim] of a norm; RMS norms have zeros. */
dlora_status dli_vit_load_norm(struct dli_vit_loader *loader, const char *pattern, size_t block, const float **gain,
                               const float **bias);
/* A projection [rows, cols]; a bias may be absent (timm: qkv_bias=False) and is then zero. */
dlora_status dli_vit_load_linear(struct dli_vit_loader *loader, const char *pattern, size_t block, size_t rows,
                                 size_t cols, struct dli_weight *weight, const float **bias);
/* Block `index`, with layer scales folded into the projections that they follow. */
dlora_status dli_vit_load_block(struct dli_vit_loader *loader, size_t index);
/* What enters the first block: the tokens before the patches, and positions, for the image size that is set or else
 * that of the tensors. */
dlora_status dli_vit_load_embedding(struct dli_vit_loader *loader);
/* What follows the last block: chooses what is pooled, by the setting or else by what the tensors imply; and loads
 * norms and the weights of attention that pools. The embedding is known. Errors: ARGUMENT or FORMAT where the file
 * lacks what the pool needs. */
dlora_status dli_vit_load_pool(struct dli_vit_loader *loader);

/* Adds the LoRA of a PEFT folder to the weights of the blocks, which are there. Errors: IO, FORMAT, UNSUPPORTED. */
dlora_status dli_vit_merge_lora(struct dli_vit_loader *loader, const char *folder);

/* vit/preprocessing.c: how images are resized and positions resampled, by the settings or, where they leave it to the
 * family, by the naming. FORMAT or ARGUMENT for an impossible crop_fraction. */
dlora_status dli_vit_settle_preprocessing(struct dli_vit_loader *loader);

#endif
