/* Tensors of a file as the weights of blocks: projections side by side or by themselves, biases that may be absent,
 * layer scales, gated MLPs, all brought into the one form that the passes use.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/file_kind.h"
#include "vit/loader.h"

void dli_vit_name_of(const struct dli_vit_loader *l, char out[DLI_NAME_SIZE], const char *pattern, size_t block,
                     const char *suffix) {
  dli_vit_name(&l->names, out, pattern, block, suffix);
}

bool dli_vit_has(const struct dli_vit_loader *l, const char *pattern, size_t block, const char *suffix) {
  char name[DLI_NAME_SIZE];
  if (!pattern) return false;
  dli_vit_name_of(l, name, pattern, block, suffix);
  return dli_tensors_find(l->tensors, name) != NULL;
}

/* ---- one tensor ---- */

dlora_status dli_vit_keep(struct dli_vit_loader *l, size_t count, float **out) {
  float *array;
  DLI_ASSERT(l->vit->num_owned < l->vit->max_owned);
  DLI_TRY(DLI_NEW(l->allocator, array, count));
  l->vit->owned[l->vit->num_owned++] = array;
  *out = array;
  return DLORA_OK;
}

dlora_status dli_vit_require(const struct dli_vit_loader *l, const char *name, size_t num_dims, const size_t *shape,
                             const struct dli_tensor **out) {
  const struct dli_tensor *tensor = dli_tensors_find(l->tensors, name);
  const char *label = dli_tensors_label(l->tensors);
  if (!tensor) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is missing%s", label, name, dli_file_part_hint(label));
  }
  l->used[tensor - dli_tensors_at(l->tensors, 0)] = true;
  /* The dtype is checked where the values are converted; here any of the three floats will do. */
  return dli_tensors_require(l->tensors, name, tensor->dtype, num_dims, shape, out);
}

dlora_status dli_vit_load_tensor(struct dli_vit_loader *l, const char *name, size_t num_dims, const size_t *shape,
                                 const float **out) {
  const struct dli_tensor *tensor;
  float *array;
  DLI_TRY(dli_vit_require(l, name, num_dims, shape, &tensor));
  l->vit->num_parameters += tensor->count;
  const uint16_t one = 1;
  const bool little_endian = *(const unsigned char *)&one == 1;
  if (tensor->dtype == DLI_F32 && little_endian && (uintptr_t)tensor->data % _Alignof(float) == 0) {
    const float *values = tensor->data;
    const size_t bad = dli_first_not_finite(values, tensor->count);
    if (bad < tensor->count) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s: value %zu is not finite", dli_tensors_label(l->tensors), name,
                       bad);
    }
    *out = values;
    return DLORA_OK;
  }
  DLI_TRY(dli_vit_keep(l, tensor->count, &array));
  DLI_TRY(dli_tensor_to_float(l->tensors, tensor, array));
  *out = array;
  return DLORA_OK;
}

dlora_status dli_vit_load_vector(struct dli_vit_loader *l, const char *pattern, size_t block, const char *suffix,
                                 size_t count, const float **out) {
  char name[DLI_NAME_SIZE];
  dli_vit_name_of(l, name, pattern, block, suffix);
  return dli_vit_load_tensor(l, name, 1, (size_t[]){count}, out);
}

static dlora_status load_norm(struct dli_vit_loader *l, const char *pattern, size_t block, size_t dim,
                              const float **gain, const float **bias) {
  DLI_TRY(dli_vit_load_vector(l, pattern, block, ".weight", dim, gain));
  if (l->names.family->rms_norm) {
    float *zero;
    DLI_TRY(dli_vit_keep(l, dim, &zero));
    *bias = zero;
    return DLORA_OK;
  }
  return dli_vit_load_vector(l, pattern, block, ".bias", dim, bias);
}

dlora_status dli_vit_load_norm(struct dli_vit_loader *l, const char *pattern, size_t block, const float **gain,
                               const float **bias) {
  return load_norm(l, pattern, block, l->vit->dim, gain, bias);
}

/* ---- projections ---- */

/* A bias may be absent (timm: qkv_bias=False); it is then zero. */
dlora_status dli_vit_load_linear(struct dli_vit_loader *l, const char *pattern, size_t block, size_t rows, size_t cols,
                                 struct dli_weight *weight, const float **bias) {
  char name[DLI_NAME_SIZE];
  dli_vit_name_of(l, name, pattern, block, ".weight");
  *weight = (struct dli_weight){.rows = rows, .cols = cols};
  DLI_TRY(dli_vit_load_tensor(l, name, 2, (size_t[]){rows, cols}, &weight->data));
  if (dli_vit_has(l, pattern, block, ".bias")) return dli_vit_load_vector(l, pattern, block, ".bias", rows, bias);
  float *zero;
  DLI_TRY(dli_vit_keep(l, rows, &zero));
  *bias = zero;
  return DLORA_OK;
}

/* Copies a tensor [count] or [rows, cols] behind an array's first values. */
static dlora_status copy(struct dli_vit_loader *l, const char *name, size_t num_dims, const size_t *shape, float *out) {
  const struct dli_tensor *tensor;
  DLI_TRY(dli_vit_require(l, name, num_dims, shape, &tensor));
  DLI_TRY(dli_tensor_to_float(l->tensors, tensor, out));
  l->vit->num_parameters += tensor->count;
  return DLORA_OK;
}

/* Projections [rows, cols] that read the same input, below each other. */
static dlora_status load_stacked(struct dli_vit_loader *l, const char *const *patterns, size_t count, size_t block,
                                 size_t rows, size_t cols, struct dli_weight *weight, const float **bias) {
  float *w, *b;
  char name[DLI_NAME_SIZE];
  for (size_t p = 0; p < count; p++) { /* all must be there before memory is taken for them */
    const struct dli_tensor *tensor;
    dli_vit_name_of(l, name, patterns[p], block, ".weight");
    DLI_TRY(dli_vit_require(l, name, 2, (size_t[]){rows, cols}, &tensor));
  }
  DLI_TRY(dli_vit_keep(l, count * rows * cols, &w));
  DLI_TRY(dli_vit_keep(l, count * rows, &b));
  for (size_t p = 0; p < count; p++) {
    dli_vit_name_of(l, name, patterns[p], block, ".weight");
    DLI_TRY(copy(l, name, 2, (size_t[]){rows, cols}, w + p * rows * cols));
    if (!dli_vit_has(l, patterns[p], block, ".bias")) continue;
    dli_vit_name_of(l, name, patterns[p], block, ".bias");
    DLI_TRY(copy(l, name, 1, (size_t[]){rows}, b + p * rows));
  }
  *weight = (struct dli_weight){.rows = count * rows, .cols = cols, .data = w};
  *bias = b;
  return DLORA_OK;
}

/* Query, key and value below each other, as timm has them. Biases may be arrays beside the weights; there is none of
 * keys then, as it would cancel in the softmax. */
static dlora_status load_qkv(struct dli_vit_loader *l, size_t block, size_t dim, struct dli_weight *weight,
                             const float **bias) {
  const struct dli_vit_naming *n = l->names.naming;
  if (n->query) {
    return load_stacked(l, (const char *const[]){n->query, n->key, n->value}, 3, block, dim, dim, weight, bias);
  }
  const bool apart = dli_vit_has(l, n->query_bias, block, "") && !dli_vit_has(l, n->qkv, block, ".bias");
  DLI_TRY(dli_vit_load_linear(l, n->qkv, block, 3 * dim, dim, weight, bias));
  if (!apart) return DLORA_OK;
  const char *const patterns[] = {n->query_bias, n->value_bias};
  float *b;
  DLI_TRY(dli_vit_keep(l, 3 * dim, &b));
  for (size_t p = 0; p < 2; p++) {
    char name[DLI_NAME_SIZE];
    dli_vit_name_of(l, name, patterns[p], block, "");
    DLI_TRY(copy(l, name, 1, (size_t[]){dim}, b + 2 * p * dim));
  }
  *bias = b;
  return DLORA_OK;
}

/* The first product of the MLP, of a gated one as [gate; up]. */
static dlora_status load_fc1(struct dli_vit_loader *l, size_t block, struct dli_weight *weight, const float **bias) {
  const struct dli_vit_naming *n = l->names.naming;
  const size_t dim = l->vit->dim, rows = l->vit->fc1_dim;
  if (!l->split_gate) return dli_vit_load_linear(l, n->fc1, block, rows, dim, weight, bias);
  return load_stacked(l, (const char *const[]){n->gate, n->up}, 2, block, rows / 2, dim, weight, bias);
}

/* Multiplies a projection by the layer scale that follows it: diag(s) (W x + b). */
static dlora_status fold_scale(struct dli_vit_loader *l, const char *pattern, size_t block, struct dli_weight *weight,
                               const float **bias) {
  if (!dli_vit_has(l, pattern, block, "")) return DLORA_OK;
  const float *scale;
  float *w, *b;
  DLI_TRY(dli_vit_load_vector(l, pattern, block, "", weight->rows, &scale));
  DLI_TRY(dli_vit_keep(l, weight->rows * weight->cols, &w));
  DLI_TRY(dli_vit_keep(l, weight->rows, &b));
  for (size_t i = 0; i < weight->rows; i++) {
    for (size_t j = 0; j < weight->cols; j++) w[i * weight->cols + j] = scale[i] * weight->data[i * weight->cols + j];
    b[i] = scale[i] * (*bias)[i];
  }
  weight->data = w;
  *bias = b;
  return DLORA_OK;
}

dlora_status dli_vit_load_block(struct dli_vit_loader *l, size_t index) {
  const struct dli_vit_naming *n = l->names.naming;
  struct dli_vit_block *b = &l->vit->blocks[index];
  const size_t dim = l->vit->dim, mlp = l->vit->mlp_dim;
  DLI_TRY(dli_vit_load_norm(l, n->norm1, index, &b->norm1_gain, &b->norm1_bias));
  DLI_TRY(load_qkv(l, index, dim, &b->qkv, &b->qkv_bias));
  DLI_TRY(dli_vit_load_linear(l, n->output, index, dim, dim, &b->output, &b->output_bias));
  DLI_TRY(fold_scale(l, n->scale1, index, &b->output, &b->output_bias));
  if (l->vit->inner_norm1) DLI_TRY(load_norm(l, n->inner_norm1, index, dim, &b->inner1_gain, &b->inner1_bias));
  if (l->vit->inner_norm2) DLI_TRY(load_norm(l, n->inner_norm2, index, mlp, &b->inner2_gain, &b->inner2_bias));
  DLI_TRY(dli_vit_load_norm(l, n->norm2, index, &b->norm2_gain, &b->norm2_bias));
  DLI_TRY(load_fc1(l, index, &b->fc1, &b->fc1_bias));
  DLI_TRY(dli_vit_load_linear(l, n->fc2, index, dim, mlp, &b->fc2, &b->fc2_bias));
  return fold_scale(l, n->scale2, index, &b->fc2, &b->fc2_bias);
}
