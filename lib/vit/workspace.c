/* All memory of one thread's passes, planned and allocated at once, and the part of it that belongs to a group of
 * images.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "nn/attention.h"
#include "vit/vit.h"

/* Two passes over the same list: the first adds sizes up, the second hands out addresses. */
struct arena {
  char *base;
  size_t used;
  bool overflow;
};

static void take(struct arena *arena, float **out, size_t rows, size_t cols) {
  size_t count, bytes;
  if (!dli_multiply(&count, rows, cols) || !dli_multiply(&bytes, count, sizeof(float)) || bytes > SIZE_MAX / 2 ||
      arena->used > SIZE_MAX / 2 - bytes - 64) {
    arena->overflow = true;
    return;
  }
  if (arena->base) *out = (float *)(void *)(arena->base + arena->used);
  arena->used += (bytes + 63) / 64 * 64;
}

static void take_half(struct arena *arena, uint16_t **out, size_t rows, size_t cols) {
  float *at = NULL;
  take(arena, &at, rows, (cols + 1) / 2);
  if (at) *out = (uint16_t *)(void *)at;
}

/* A group has about so many rows: enough for weights, which come from far away, to be worth the way, and few enough for
 * what passes between products to stay near. */
enum { GROUP_ROWS = 760 };

/* Where nothing is kept: what a block needs while it runs. */
static void plan_shared(struct arena *arena, struct dli_block_buffers *b, const struct dli_vit *vit, size_t rows) {
  take(arena, &b->h1, rows, vit->dim);
  take(arena, &b->qkv, rows, 3 * vit->dim);
  take(arena, &b->o, rows, vit->dim);
  take(arena, &b->h2, rows, vit->dim);
  take(arena, &b->f, rows, vit->fc1_dim);
  b->g = b->f;
  if (vit->inner_norm1) take(arena, &b->raw_o, rows, vit->dim);
  if (vit->inner_norm2) take(arena, &b->raw_g, rows, vit->mlp_dim);
}

/* What the backward pass of a block reads. An input that no adapter reads it does without: the shared array serves. */
static void plan_kept(struct arena *arena, struct dli_block_buffers *b, const struct dli_vit_workspace *w,
                      const struct dli_vit *vit, size_t queries) {
  const size_t rows = w->max_images * vit->tokens, tail = w->max_images * queries;
  const struct dli_block_buffers *shared = &w->shared;
  const struct {
    float **array, *otherwise;
    size_t rows, cols;
  } inputs[] = {
      [DLORA_INPUT_ATTENTION] = {&b->h1, shared->h1, rows, vit->dim},
      [DLORA_INPUT_OUTPUT] = {&b->o, shared->o, tail, vit->dim},
      [DLORA_INPUT_FC1] = {&b->h2, shared->h2, tail, vit->dim},
      [DLORA_INPUT_FC2] = {&b->g, shared->f, tail, vit->mlp_dim},
  };
  for (int32_t i = DLORA_INPUT_ATTENTION; i <= DLORA_INPUT_FC2; i++) {
    if (w->inputs & 1u << i) {
      take(arena, inputs[i].array, inputs[i].rows, inputs[i].cols);
    } else {
      *inputs[i].array = inputs[i].otherwise;
    }
  }
  take(arena, &b->x_in, rows, vit->dim);
  take(arena, &b->mean1, rows, 1);
  take(arena, &b->rstd1, rows, 1);
  take(arena, &b->qkv, rows, 3 * vit->dim);
  take(arena, &b->probabilities, w->max_images, dli_vit_kept_of_attention(vit, queries));
  take(arena, &b->x_mid, tail, vit->dim);
  take(arena, &b->mean2, tail, 1);
  take(arena, &b->rstd2, tail, 1);
  take(arena, &b->f, tail, vit->fc1_dim);
  if (vit->inner_norm1) {
    take(arena, &b->raw_o, tail, vit->dim);
    take(arena, &b->mean3, tail, 1);
    take(arena, &b->rstd3, tail, 1);
  }
  if (vit->inner_norm2) {
    b->raw_g = shared->raw_g;
    take(arena, &b->mean4, tail, 1);
    take(arena, &b->rstd4, tail, 1);
  }
}

static size_t attention_scratch(const struct dli_vit *vit, bool training) {
  const size_t needed = dli_attention_scratch(vit->tokens, vit->dim, vit->heads, training);
  const size_t other = dli_attention_bfloat16_scratch(vit->tokens, vit->dim, vit->heads, training);
  return vit->bfloat16 && other > needed ? other : needed;
}

/* With all tokens the last block works in place: x is no longer needed by then, even where blocks keep their input. */
static void plan_pooling(struct arena *arena, struct dli_vit_workspace *w, const struct dli_vit *vit) {
  const size_t images = w->max_images, tail = images * dli_vit_tail(vit);
  if (dli_vit_tail(vit) < vit->tokens) {
    take(arena, &w->last, tail, vit->dim);
  } else {
    w->last = w->x;
  }
  take(arena, &w->last_mean, tail, 1);
  take(arena, &w->last_rstd, tail, 1);
  if (vit->pooled_gain) {
    take(arena, &w->pooled, images, vit->dim);
    take(arena, &w->pooled_mean, images, 1);
    take(arena, &w->pooled_rstd, images, 1);
  }
  if (vit->pool != DLORA_POOL_ATTENTION) return;
  take(arena, &w->pool.probabilities, images, vit->heads * vit->tokens);
  take(arena, &w->pool.mixed, w->group, vit->heads * vit->dim);
  take(arena, &w->pool.z, w->group, vit->dim);
  take(arena, &w->pool.sum, images, vit->dim);
  take(arena, &w->pool.mean, images, 1);
  take(arena, &w->pool.rstd, images, 1);
  take(arena, &w->pool.normed, w->group, vit->dim);
  take(arena, &w->pool.f, images, vit->attention_pool.mlp_dim);
  take(arena, &w->pool.g, w->group, vit->attention_pool.mlp_dim);
  if (w->training) take(arena, &w->pool.d_sum, w->group, vit->dim);
}

static void plan(struct arena *arena, struct dli_vit_workspace *w, const struct dli_vit *vit) {
  const size_t images = w->max_images, rows = images * vit->tokens, pixels = vit->patch_size * vit->patch_size;
  const size_t together = w->group * vit->tokens;
  take(arena, &w->input, 3, vit->image_size * vit->image_size);
  take(arena, &w->patches, images * vit->grid * vit->grid, 3 * pixels);
  take(arena, &w->x, rows, vit->dim);
  take(arena, &w->trunk, rows, vit->dim);
  plan_pooling(arena, w, vit);
  take(arena, &w->attention, attention_scratch(vit, w->training), 1);
  plan_shared(arena, &w->shared, vit, together);
  if (vit->bfloat16) {
    take_half(arena, &w->half.rows, together, 2 * vit->dim);
    take_half(arena, &w->half.slab, together, DLI_SLAB);
    take(arena, &w->half.sums, together, DLI_SLAB);
    take(arena, &w->half.norms, DLI_NORM_ROWS, vit->dim);
  }
  if (!w->training) return;
  for (size_t i = w->first; i < vit->depth; i++) plan_kept(arena, &w->kept[i], w, vit, dli_vit_queries(vit, i));
  take(arena, &w->d_x, together, vit->dim);
  if (dli_vit_tail(vit) < vit->tokens) {
    take(arena, &w->d_tail, w->group * dli_vit_tail(vit), vit->dim);
  } else {
    w->d_tail = w->d_x;
  }
  take(arena, &w->d_h, together, vit->dim);
  take(arena, &w->d_qkv, together, 3 * vit->dim);
  take(arena, &w->d_f, together, vit->fc1_dim);
  if (vit->inner_norm1 || vit->inner_norm2) {
    take(arena, &w->d_raw, together, vit->mlp_dim > vit->dim ? vit->mlp_dim : vit->dim);
  }
}

dlora_status dli_vit_workspace_create(struct dli_vit_workspace *out, const struct dli_vit *vit, size_t max_images,
                                      size_t first, bool training, unsigned inputs, const dlora_allocator *allocator) {
  struct dli_vit_workspace w = {.max_images = max_images, .first = first, .training = training, .inputs = inputs};
  w.group = vit->bfloat16 ? (GROUP_ROWS + vit->tokens - 1) / vit->tokens : max_images;
  if (w.group > max_images) w.group = max_images;
  size_t rows;
  if (!dli_multiply(&rows, max_images, vit->tokens) || rows > INT32_MAX) {
    return dli_raise(DLORA_ERR_ARGUMENT, "a batch of %zu images of %zu tokens is too large; at most %d rows",
                     max_images, vit->tokens, INT32_MAX);
  }
  if (training) DLI_TRY(DLI_NEW(allocator, w.kept, vit->depth));
  struct arena arena = {0};
  plan(&arena, &w, vit);
  if (arena.overflow) {
    dli_free(allocator, w.kept);
    return dli_raise(DLORA_ERR_ARGUMENT, "the workspace for %zu images is larger than the address space", max_images);
  }
  w.num_bytes = arena.used;
  w.memory = dli_alloc(allocator, arena.used, 1);
  if (!w.memory) {
    dli_free(allocator, w.kept);
    return DLORA_ERR_NO_MEMORY;
  }
  arena = (struct arena){.base = w.memory};
  plan(&arena, &w, vit);
  DLI_ASSERT(arena.used == w.num_bytes && !arena.overflow);
  w.shared.x_in = w.shared.x_mid = w.x;
  if (vit->onednn) {
    size_t inner = vit->fc1_dim > 3 * vit->dim ? vit->fc1_dim : 3 * vit->dim, outer = 2 * vit->dim;
    if (vit->patch.cols > inner) inner = vit->patch.cols;
    if (vit->fc1_dim > vit->mlp_dim && vit->mlp_dim > outer) outer = vit->mlp_dim; /* d_g among the columns of d_f */
    const dlora_status status =
        dli_products_create(&w.products, vit->onednn, w.group * vit->tokens, inner, outer, allocator);
    if (status != DLORA_OK) {
      dli_vit_workspace_release(&w, allocator);
      return status;
    }
  }
  *out = w;
  return DLORA_OK;
}

struct dli_block_buffers dli_vit_buffers(const struct dli_vit *vit, const struct dli_vit_workspace *w, size_t block) {
  DLI_ASSERT(block < vit->depth && w->at + w->now <= w->images);
  const bool kept = w->training && block >= w->first;
  struct dli_block_buffers b = kept ? w->kept[block] : w->shared;
  const size_t row = w->at * vit->tokens, queries = dli_vit_queries(vit, block), query = w->at * queries;
  b.x_in += row * vit->dim;
  b.x_mid += (kept ? query : row) * vit->dim;
  if (!kept) return b;
  b.mean1 += row;
  b.rstd1 += row;
  b.qkv += row * 3 * vit->dim;
  b.probabilities += w->at * dli_vit_kept_of_attention(vit, queries);
  b.mean2 += query;
  b.rstd2 += query;
  b.f += query * vit->fc1_dim;
  b.f_half = (uint16_t *)b.f;
  if (vit->inner_norm1) {
    b.raw_o += query * vit->dim;
    b.mean3 += query;
    b.rstd3 += query;
  }
  if (vit->inner_norm2) {
    b.mean4 += query;
    b.rstd4 += query;
  }
  if (w->inputs & 1u << DLORA_INPUT_ATTENTION) b.h1 += row * vit->dim;
  if (w->inputs & 1u << DLORA_INPUT_OUTPUT) b.o += query * vit->dim;
  if (w->inputs & 1u << DLORA_INPUT_FC1) b.h2 += query * vit->dim;
  if (w->inputs & 1u << DLORA_INPUT_FC2) b.g += query * vit->mlp_dim;
  return b;
}

bool dli_vit_next_group(struct dli_vit_workspace *w, bool first) {
  w->at = first ? 0 : w->at + w->now;
  w->now = w->images - w->at < w->group ? w->images - w->at : w->group;
  return w->now > 0;
}

size_t dli_vit_workspace_bytes(const struct dli_vit_workspace *workspace) {
  return workspace->num_bytes + (workspace->products ? dli_products_bytes(workspace->products) : 0);
}

void dli_vit_workspace_release(struct dli_vit_workspace *workspace, const dlora_allocator *allocator) {
  dli_products_destroy(workspace->products);
  dli_free(allocator, workspace->kept);
  dli_free(allocator, workspace->memory);
  *workspace = (struct dli_vit_workspace){0};
}
