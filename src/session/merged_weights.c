/* W + M of equation (1): copies of frozen weights with the merged matrices added. METHOD.md 2.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A copy exists only for weights with a site whose M is not zero. Query, key and value are one weight [3 D, D] in a
 * block, of which a site covers D rows. After a task, W is copied again and all M of the sites are added: rounding does
 * not build up over tasks. With packed products each copy is packed once more, for the forward and the backward pass.
 */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/packed.h"
#include "src/bank/bank.h"
#include "src/session/session.h"

enum { QKV = 0, OUTPUT = 1, FC1 = 2, FC2 = 3, NUM_SLOTS = 4 };
enum { FORWARD = 0, BACKWARD = 1, NUM_COPIES = 3 }; /* two for the backward pass */

static struct dli_weight *weight_of(struct dli_vit_block *block, size_t slot) {
  struct dli_weight *weights[] = {&block->qkv, &block->output, &block->fc1, &block->fc2};
  return weights[slot];
}

/* The weight that contains a projection, and the projection's first row in it. */
static size_t slot_of(int32_t projection, size_t dim, size_t *first_row) {
  *first_row = projection == DLORA_SITE_KEY ? dim : projection == DLORA_SITE_VALUE ? 2 * dim : 0;
  switch (projection) {
    case DLORA_SITE_OUTPUT:
      return OUTPUT;
    case DLORA_SITE_FC1:
      return FC1;
    case DLORA_SITE_FC2:
      return FC2;
    default:
      return QKV;
  }
}

/* The packed copies of a weight, [3]. */
static struct dli_packed **copies_of(const struct dli_merged_weights *merged_weights, size_t block, size_t slot) {
  return merged_weights->packed + NUM_COPIES * (NUM_SLOTS * block + slot);
}

/* Rows of part i of a backward product: query, then key and value; of other weights all rows, then none. */
static size_t backward_rows(const struct dli_vit *vit, const struct dli_weight *weight, size_t slot, size_t i) {
  const size_t split = slot == QKV ? vit->dim : weight->rows;
  return i ? weight->rows - split : split;
}

static dlora_status reserve_backward(struct dli_merged_weights *merged_weights) {
  const struct dli_vit *vit = &merged_weights->model->vit;
  for (size_t b = merged_weights->first_backward; b < vit->depth; b++) {
    for (size_t slot = 0; slot < NUM_SLOTS; slot++) {
      struct dli_weight *weight = weight_of(&merged_weights->blocks[b], slot);
      struct dli_packed **copies = copies_of(merged_weights, b, slot);
      weight->split = backward_rows(vit, weight, slot, 0);
      for (size_t i = 0; i < 2; i++) {
        const size_t rows = backward_rows(vit, weight, slot, i);
        if (rows == 0) continue;
        DLI_TRY(dli_packed_create(&copies[BACKWARD + i], vit->onednn, rows, weight->cols, &merged_weights->allocator));
        weight->backward[i] = copies[BACKWARD + i];
      }
    }
  }
  return DLORA_OK;
}

/* Packs a block's weight anew. */
static void repack(struct dli_merged_weights *merged_weights, size_t block, size_t slot) {
  const struct dli_weight *weight = weight_of(&merged_weights->blocks[block], slot);
  struct dli_packed **copies = copies_of(merged_weights, block, slot);
  if (copies[FORWARD]) dli_packed_fill(copies[FORWARD], weight->data, weight->cols, true);
  for (size_t i = 0; i < 2; i++) {
    const float *rows = weight->data + i * weight->split * weight->cols;
    if (copies[BACKWARD + i]) dli_packed_fill(copies[BACKWARD + i], rows, weight->cols, false);
  }
}

dlora_status dli_merged_weights_create(struct dli_merged_weights **out, const dlora_model *model,
                                       const dlora_bank *bank, bool training, const dlora_allocator *allocator) {
  const struct dli_vit *vit = &model->vit;
  dlora_status status = DLORA_OK;
  struct dli_merged_weights *merged_weights;
  DLI_TRY(DLI_NEW(allocator, merged_weights, 1));
  merged_weights->allocator = *allocator;
  merged_weights->model = model;
  merged_weights->bank = bank;
  DLI_TRY_DONE(DLI_NEW(allocator, merged_weights->blocks, vit->depth));
  DLI_TRY_DONE(DLI_NEW(allocator, merged_weights->arrays, NUM_SLOTS * vit->depth));
  DLI_TRY_DONE(DLI_NEW(allocator, merged_weights->packed, NUM_COPIES * NUM_SLOTS * vit->depth));
  memcpy(merged_weights->blocks, vit->blocks, vit->depth * sizeof *vit->blocks);
  merged_weights->first_backward = vit->depth;
  for (size_t i = 0; i < bank->num_sites; i++) {
    const dlora_site *site = &bank->sites[i];
    if (site->block < 0 || (size_t)site->block >= vit->depth) {
      status =
          dli_raise(DLORA_ERR_MISMATCH, "site %zu names block %d, the model has %zu", i, (int)site->block, vit->depth);
      goto done;
    }
    const int32_t p = site->projection;
    const size_t in = p == DLORA_SITE_FC2 ? vit->mlp_dim : vit->dim,
                 rows = p == DLORA_SITE_FC1 ? vit->fc1_dim : vit->dim;
    if (p != DLORA_SITE_QUERY && p != DLORA_SITE_KEY && p != DLORA_SITE_VALUE && p != DLORA_SITE_OUTPUT &&
        p != DLORA_SITE_FC1 && p != DLORA_SITE_FC2) {
      status = dli_raise(DLORA_ERR_ARGUMENT, "site %zu names projection %d, expected one DLORA_SITE_...", i, (int)p);
      goto done;
    }
    for (size_t j = 0; j < i; j++) {
      if (bank->sites[j].block != site->block || bank->sites[j].projection != p) continue;
      status = dli_raise(DLORA_ERR_MISMATCH, "sites %zu and %zu are the same projection %d of block %d", j, i, (int)p,
                         (int)site->block);
      goto done;
    }
    if (site->input_dim != in || site->output_dim != rows) {
      status = dli_raise(DLORA_ERR_MISMATCH, "site %zu is [%zu, %zu], the model's projection is [%zu, %zu]", i,
                         site->output_dim, site->input_dim, rows, in);
      goto done;
    }
    if (training && (size_t)site->block < merged_weights->first_backward)
      merged_weights->first_backward = (size_t)site->block;
  }
  if (vit->onednn) {
    DLI_TRY_DONE(reserve_backward(merged_weights));
    for (size_t b = merged_weights->first_backward; b < vit->depth; b++) {
      for (size_t slot = 0; slot < NUM_SLOTS; slot++) repack(merged_weights, b, slot);
    }
  }
  DLI_TRY_DONE(dli_merged_weights_reserve(merged_weights, bank->merged));
  dli_merged_weights_update(merged_weights);
  *out = merged_weights;
done:
  if (status != DLORA_OK) dli_merged_weights_destroy(merged_weights);
  return status;
}

void dli_merged_weights_destroy(struct dli_merged_weights *merged_weights) {
  if (!merged_weights) return;
  const dlora_allocator allocator = merged_weights->allocator;
  const size_t slots = NUM_SLOTS * merged_weights->model->vit.depth;
  for (size_t i = 0; merged_weights->arrays && i < slots; i++) dli_free(&allocator, merged_weights->arrays[i]);
  for (size_t i = 0; merged_weights->packed && i < NUM_COPIES * slots; i++) {
    dli_packed_destroy(merged_weights->packed[i], &allocator);
  }
  dli_free(&allocator, merged_weights->arrays);
  dli_free(&allocator, merged_weights->packed);
  dli_free(&allocator, merged_weights->blocks);
  dli_free(&allocator, merged_weights);
}

dlora_status dli_merged_weights_reserve(struct dli_merged_weights *merged_weights, float *const *merged) {
  const dlora_bank *bank = merged_weights->bank;
  for (size_t i = 0; i < bank->num_sites; i++) {
    if (!merged[i]) continue;
    size_t row;
    const size_t block = (size_t)bank->sites[i].block;
    const size_t slot = slot_of(bank->sites[i].projection, merged_weights->model->vit.dim, &row);
    float **array = &merged_weights->arrays[NUM_SLOTS * block + slot];
    struct dli_packed **copy = &copies_of(merged_weights, block, slot)[FORWARD];
    const struct dli_vit *vit = &merged_weights->model->vit;
    const struct dli_weight *original = weight_of(&vit->blocks[block], slot);
    if (!*array) DLI_TRY(DLI_NEW(&merged_weights->allocator, *array, original->rows * original->cols));
    if (vit->onednn && !*copy) {
      DLI_TRY(dli_packed_create(copy, vit->onednn, original->cols, original->rows, &merged_weights->allocator));
    }
  }
  return DLORA_OK;
}

void dli_merged_weights_update(struct dli_merged_weights *merged_weights) {
  const dlora_bank *bank = merged_weights->bank;
  const struct dli_vit *vit = &merged_weights->model->vit;
  /* Versions count from 0, so that 0 here can mean that nothing was copied yet. */
  if (merged_weights->version == bank->version + 1) return;
  for (size_t b = 0; b < vit->depth; b++) {
    for (size_t slot = 0; slot < NUM_SLOTS; slot++) {
      float *array = merged_weights->arrays[NUM_SLOTS * b + slot];
      if (!array) continue;
      const struct dli_weight *original = weight_of(&merged_weights->model->vit.blocks[b], slot);
      struct dli_weight *weight = weight_of(&merged_weights->blocks[b], slot);
      memcpy(array, original->data, original->rows * original->cols * sizeof *array);
      weight->data = array;
      if (vit->onednn) weight->forward = copies_of(merged_weights, b, slot)[FORWARD];
    }
  }
  for (size_t i = 0; i < bank->num_sites; i++) {
    if (!bank->merged[i]) continue;
    const dlora_site *site = &bank->sites[i];
    size_t row;
    const size_t slot = slot_of(site->projection, vit->dim, &row), count = site->output_dim * site->input_dim;
    float *array = merged_weights->arrays[NUM_SLOTS * (size_t)site->block + slot] + row * site->input_dim;
    merged_weights->model->kernels->add(bank->merged[i], count, array);
  }
  for (size_t b = 0; vit->onednn && b < vit->depth; b++) {
    for (size_t slot = 0; slot < NUM_SLOTS; slot++) {
      if (merged_weights->arrays[NUM_SLOTS * b + slot]) repack(merged_weights, b, slot);
    }
  }
  merged_weights->version = bank->version + 1;
}
