/* What a file says of the tokens that enter the first block: those before the patches, position embeddings on the grid
 * in use, and the angles of rotary positions. Constants are added in advance.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "vit/loader.h"

enum { MAX_UPSAMPLING = 4, MAX_IMAGE_SIZE = 16384 };

/* ---- tokens before the patches ---- */

/* One or several tokens of a kind, [count, dim]: none where the family or the file has none. */
static dlora_status load_tokens(struct dli_vit_loader *l, const char *pattern, bool several, size_t *count,
                                const float **out) {
  const struct dli_tensor *tensor;
  char name[DLI_NAME_SIZE];
  const size_t dim = l->vit->dim, flat[] = {dim}, most[] = {1, several ? SIZE_MAX : 1, dim};
  const bool is_flat = l->names.family->flat_tokens;
  *count = 0;
  if (!dli_vit_has(l, pattern, 0, "")) return DLORA_OK;
  dli_vit_name_of(l, name, pattern, 0, "");
  DLI_TRY(dli_vit_require(l, name, is_flat ? 1 : 3, is_flat ? flat : most, &tensor));
  *count = is_flat ? 1 : tensor->shape[1];
  return dli_vit_load_tensor(l, name, tensor->num_dims, tensor->shape, out);
}

struct tokens {
  size_t count[3]; /* class, distillation, register */
  const float *values[3];
};

static dlora_status load_prefix(struct dli_vit_loader *l, struct tokens *tokens) {
  struct dli_vit *vit = l->vit;
  const struct dli_vit_naming *n = l->names.naming;
  const char *const patterns[] = {n->class_token, n->distillation_token, n->registers};
  vit->num_prefix_tokens = 0;
  for (size_t i = 0; i < 3; i++) {
    DLI_TRY(load_tokens(l, patterns[i], i == 2, &tokens->count[i], &tokens->values[i]));
    vit->num_prefix_tokens += tokens->count[i];
  }
  vit->has_class_token = tokens->count[0] > 0;
  vit->has_distillation_token = tokens->count[1] > 0;
  return DLORA_OK;
}

/* The tokens in a row, with their positions where they have any. */
static dlora_status join_prefix(struct dli_vit_loader *l, const struct tokens *tokens, const float *positions,
                                size_t num_positions) {
  const size_t dim = l->vit->dim;
  float *rows;
  size_t at = 0;
  DLI_TRY(dli_vit_keep(l, l->vit->num_prefix_tokens * dim, &rows));
  for (size_t i = 0; i < 3; i++) {
    for (size_t t = 0; t < tokens->count[i]; t++, at++) {
      const float *token = tokens->values[i] + t * dim, *position = at < num_positions ? positions + at * dim : NULL;
      for (size_t j = 0; j < dim; j++) rows[at * dim + j] = position ? token[j] + position[j] : token[j];
    }
  }
  l->vit->prefix = rows;
  return DLORA_OK;
}

/* ---- the grid ---- */

/* The image size that is wanted, side being the patches a side of what the file is for, by the tensor `name` or the
 * family's default where that is NULL. */
static dlora_status choose_grid(struct dli_vit_loader *l, size_t side, const char *name) {
  struct dli_vit *vit = l->vit;
  struct dli_settings *settings = l->settings;
  const enum dli_setting_id id = DLI_SET_IMAGE_SIZE;
  const char *label = dli_tensors_label(l->tensors);
  const size_t p = vit->patch_size;
  char who[DLI_WHO_SIZE];
  dli_settings_fill(settings, id, name ? DLORA_ORIGIN_TENSORS : DLORA_ORIGIN_DEFAULT, name ? name : "",
                    (double[]){(double)(side * p)});
  vit->image_size = settings->options.image_size;
  /* Memory goes with the square of it, and a file must not take much more than it has bytes. */
  if (settings->of[id].origin != DLORA_ORIGIN_OPTION && vit->image_size > side * p &&
      vit->image_size / p > MAX_UPSAMPLING * side) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: %s asks for image_size %zu, more than %d times the %zu that %s%s is for; set the option "
                     "image_size",
                     label, dli_settings_who(settings, id, who), vit->image_size, MAX_UPSAMPLING, side * p,
                     name ? "tensor " : "such a model", name ? name : "");
  }
  vit->grid = vit->image_size / p;
  if (vit->grid == 0 || vit->image_size % p != 0 || vit->image_size > MAX_IMAGE_SIZE) {
    return dli_raise(dli_settings_blame(settings, id),
                     "%s: %s is %zu, expected a multiple of the patch size %zu up to %d", label,
                     dli_settings_who(settings, id, who), vit->image_size, p, MAX_IMAGE_SIZE);
  }
  vit->tokens = vit->num_prefix_tokens + vit->grid * vit->grid;
  return DLORA_OK;
}

/* s with s^2 = count, or 0. */
static size_t side_of(size_t count) {
  const size_t side = (size_t)(sqrt((double)count) + 0.5);
  return side * side == count ? side : 0;
}

/* Patches a side of `count` positions, of which *first belong to tokens before the patches: to class and distillation
 * token, to none, or to all. */
static size_t divide_positions(const struct tokens *tokens, size_t count, size_t *first) {
  const size_t ahead = tokens->count[0] + tokens->count[1], ways[] = {ahead, 0, ahead + tokens->count[2]};
  for (size_t i = 0; i < 3; i++) {
    *first = ways[i];
    const size_t side = count > ways[i] ? side_of(count - ways[i]) : 0;
    /* One position beside a class token is the class token's, and there is no grid. */
    if (side > 1 || (side == 1 && ways[i] >= ahead)) return side;
  }
  return 0;
}

/* Position embeddings [count, dim]: those of the patches are to be resampled to the grid in use. */
static dlora_status load_learnt(struct dli_vit_loader *l, const struct tokens *tokens) {
  struct dli_vit *vit = l->vit;
  const size_t dim = vit->dim;
  const bool flat = l->names.family->flat_tokens;
  const size_t shape[] = {1, SIZE_MAX, dim};
  const struct dli_tensor *tensor;
  const float *positions;
  size_t first;
  char name[DLI_NAME_SIZE];
  dli_vit_name_of(l, name, l->names.naming->positions, 0, "");
  DLI_TRY(dli_vit_require(l, name, flat ? 2 : 3, flat ? shape + 1 : shape, &tensor));
  const size_t count = tensor->shape[flat ? 0 : 1], side = divide_positions(tokens, count, &first);
  if (side == 0) {
    if (!vit->has_class_token && l->names.naming->class_token && count > 1 && side_of(count - 1)) {
      const struct dli_tensor *missing;
      dli_vit_name_of(l, name, l->names.naming->class_token, 0, "");
      DLI_TRY(dli_vit_require(l, name, 3, (size_t[]){1, 1, dim}, &missing));
    }
    return dli_raise(
        DLORA_ERR_UNSUPPORTED,
        "%s: tensor %s has %zu positions, expected a square grid and, if they have any, those of %zu tokens "
        "before the patches",
        dli_tensors_label(l->tensors), name, count, vit->num_prefix_tokens);
  }
  DLI_TRY(dli_vit_load_tensor(l, name, tensor->num_dims, tensor->shape, &positions));
  DLI_TRY(choose_grid(l, side, name));
  vit->in_file = (struct dli_vit_learnt_positions){side, positions + first * dim, NULL};
  return join_prefix(l, tokens, positions, first);
}

/* ---- rotary positions ---- */

/* Angles a f_k of the row and then of the column, with frequencies f_k = theta^(-4 k / width), k < width / 4:
 *
 *     DINOv3   a = 2 pi (2 (i + 1/2) / grid - 1), theta = 100, of pairs (j, j + width / 2) of a head
 *     EVA-02   a = 16 i / grid, theta = 10000, of pairs (2 j, 2 j + 1)
 *
 * Cosines [grid^2, width / 2], then sines. */
static dlora_status make_rotation(struct dli_vit_loader *l) {
  struct dli_vit *vit = l->vit;
  const size_t width = vit->dim / vit->heads, half = width / 2, quarter = width / 4, grid = vit->grid;
  const bool eva = l->names.family->rotary == DLI_ROTARY_EVA;
  float *table;
  if (width % 4 != 0) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: heads of %zu channels have no rotary positions, which take a multiple of 4; num_heads is %zu",
                     dli_tensors_label(l->tensors), width, vit->heads);
  }
  DLI_TRY(dli_vit_keep(l, 2 * grid * grid * half, &table));
  for (size_t i = 0; i < grid * grid; i++) {
    for (size_t k = 0; k < half; k++) {
      const size_t at = k < quarter ? i / grid : i % grid;
      const double a = eva ? 16.0 * (double)at / (double)grid
                           : 6.28318530717958648 * (2.0 * ((double)at + 0.5) / (double)grid - 1.0);
      const double angle = a * pow(eva ? 10000.0 : 100.0, -4.0 * (double)(k % quarter) / (double)width);
      table[i * half + k] = (float)cos(angle);
      table[(grid * grid + i) * half + k] = (float)sin(angle);
    }
  }
  vit->rotation = table;
  vit->interleaved = eva;
  return DLORA_OK;
}

dlora_status dli_vit_load_embedding(struct dli_vit_loader *l) {
  struct dli_vit *vit = l->vit;
  const struct dli_vit_family *family = l->names.family;
  const size_t dim = vit->dim;
  struct tokens tokens = {{0}, {NULL}};
  const float *patch_bias = NULL;
  float *grid = NULL;
  DLI_TRY(load_prefix(l, &tokens));
  if (!family->names.positions) {
    const size_t side = family->image_size / vit->patch_size;
    DLI_TRY(choose_grid(l, side ? side : 1, NULL));
    DLI_TRY(join_prefix(l, &tokens, NULL, 0));
  } else {
    DLI_TRY(load_learnt(l, &tokens));
  }
  if (family->rotary) DLI_TRY(make_rotation(l));
  const struct dli_vit_naming *n = l->names.naming;
  if (n->pre_norm) DLI_TRY(dli_vit_load_norm(l, n->pre_norm, 0, &vit->pre_norm_gain, &vit->pre_norm_bias));
  /* Only in front of such a norm the patch projection does without a bias. */
  if (!n->pre_norm || dli_vit_has(l, n->patch_bias, 0, "")) {
    DLI_TRY(dli_vit_load_vector(l, n->patch_bias, 0, "", dim, &patch_bias));
  }
  if (n->patch_norm) {
    DLI_TRY(dli_vit_load_norm(l, n->patch_norm, 0, &vit->patch_norm_gain, &vit->patch_norm_bias));
    vit->patch_bias = patch_bias;
    patch_bias = NULL;
  }
  vit->in_file.bias = patch_bias;
  DLI_TRY(dli_vit_keep(l, vit->grid * vit->grid * dim, &grid));
  DLI_TRY(dli_vit_resample_positions(vit, vit->position_resampling, l->allocator, grid));
  vit->positions = grid;
  return DLORA_OK;
}
