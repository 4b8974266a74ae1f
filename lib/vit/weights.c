/* Loads a Vision Transformer: finds its tensors under the names of timm or Hugging Face, checks the geometry, and
 * brings weights, biases, layer scales and positions into the one form that the passes use.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/file_kind.h"
#include "io/image.h"
#include "vit/names.h"
#include "vit/vit.h"

struct loader {
  struct dli_vit *vit;
  const struct dli_tensors *tensors;
  const dlora_allocator *allocator;
  struct dli_vit_names names;
  bool *used; /* [number of tensors], by their order in the file */
};

enum { MAX_UPSAMPLING = 4 };

static void name_of(const struct loader *l, char *out, const char *pattern, size_t block, const char *suffix) {
  dli_vit_name(&l->names, out, pattern, block, suffix);
}

static bool exists(const struct loader *l, const char *pattern, size_t block, const char *suffix) {
  char name[DLI_NAME_SIZE];
  name_of(l, name, pattern, block, suffix);
  return dli_tensors_find(l->tensors, name) != NULL;
}

/* ---- one tensor ---- */

static dlora_status keep(struct loader *l, size_t count, float **out) {
  float *array;
  DLI_ASSERT(l->vit->num_owned < l->vit->max_owned);
  DLI_TRY(DLI_NEW(l->allocator, array, count));
  l->vit->owned[l->vit->num_owned++] = array;
  *out = array;
  return DLORA_OK;
}

static dlora_status require(const struct loader *l, const char *name, size_t num_dims, const size_t *shape,
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

/* Converted, or in place where the file has aligned little-endian floats. */
static dlora_status load(struct loader *l, const char *name, size_t num_dims, const size_t *shape, const float **out) {
  const struct dli_tensor *tensor;
  float *array;
  DLI_TRY(require(l, name, num_dims, shape, &tensor));
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
  DLI_TRY(keep(l, tensor->count, &array));
  DLI_TRY(dli_tensor_to_float(l->tensors, tensor, array));
  *out = array;
  return DLORA_OK;
}

static dlora_status load_vector(struct loader *l, const char *pattern, size_t block, const char *suffix, size_t count,
                                const float **out) {
  char name[DLI_NAME_SIZE];
  name_of(l, name, pattern, block, suffix);
  return load(l, name, 1, (size_t[]){count}, out);
}

/* A bias may be absent (timm: qkv_bias=False); it is then zero. */
static dlora_status load_linear(struct loader *l, const char *pattern, size_t block, size_t rows, size_t cols,
                                struct dli_weight *weight, const float **bias) {
  char name[DLI_NAME_SIZE];
  name_of(l, name, pattern, block, ".weight");
  *weight = (struct dli_weight){.rows = rows, .cols = cols};
  DLI_TRY(load(l, name, 2, (size_t[]){rows, cols}, &weight->data));
  if (exists(l, pattern, block, ".bias")) return load_vector(l, pattern, block, ".bias", rows, bias);
  float *zero;
  DLI_TRY(keep(l, rows, &zero));
  *bias = zero;
  return DLORA_OK;
}

/* Query, key and value below each other, as timm has them. */
static dlora_status load_qkv(struct loader *l, size_t block, size_t dim, struct dli_weight *weight,
                             const float **bias) {
  if (l->names.naming->qkv) return load_linear(l, l->names.naming->qkv, block, 3 * dim, dim, weight, bias);
  const char *patterns[] = {l->names.naming->query, l->names.naming->key, l->names.naming->value};
  float *w, *b;
  for (size_t p = 0; p < 3; p++) { /* all must be there before memory is taken for them */
    const struct dli_tensor *tensor;
    char name[DLI_NAME_SIZE];
    name_of(l, name, patterns[p], block, ".weight");
    DLI_TRY(require(l, name, 2, (size_t[]){dim, dim}, &tensor));
  }
  DLI_TRY(keep(l, 3 * dim * dim, &w));
  DLI_TRY(keep(l, 3 * dim, &b));
  for (size_t p = 0; p < 3; p++) {
    const struct dli_tensor *tensor;
    char name[DLI_NAME_SIZE];
    name_of(l, name, patterns[p], block, ".weight");
    DLI_TRY(require(l, name, 2, (size_t[]){dim, dim}, &tensor));
    DLI_TRY(dli_tensor_to_float(l->tensors, tensor, w + p * dim * dim));
    l->vit->num_parameters += tensor->count;
    if (!exists(l, patterns[p], block, ".bias")) continue;
    name_of(l, name, patterns[p], block, ".bias");
    DLI_TRY(require(l, name, 1, (size_t[]){dim}, &tensor));
    DLI_TRY(dli_tensor_to_float(l->tensors, tensor, b + p * dim));
    l->vit->num_parameters += tensor->count;
  }
  *weight = (struct dli_weight){.rows = 3 * dim, .cols = dim, .data = w};
  *bias = b;
  return DLORA_OK;
}

/* Multiplies a projection by the layer scale that follows it: diag(s) (W x + b). */
static dlora_status fold_scale(struct loader *l, const char *pattern, size_t block, struct dli_weight *weight,
                               const float **bias) {
  if (!pattern || !exists(l, pattern, block, "")) return DLORA_OK;
  const float *scale;
  float *w, *b;
  DLI_TRY(load_vector(l, pattern, block, "", weight->rows, &scale));
  DLI_TRY(keep(l, weight->rows * weight->cols, &w));
  DLI_TRY(keep(l, weight->rows, &b));
  for (size_t i = 0; i < weight->rows; i++) {
    for (size_t j = 0; j < weight->cols; j++) w[i * weight->cols + j] = scale[i] * weight->data[i * weight->cols + j];
    b[i] = scale[i] * (*bias)[i];
  }
  weight->data = w;
  *bias = b;
  return DLORA_OK;
}

static dlora_status load_block(struct loader *l, size_t index) {
  const struct dli_vit_naming *n = l->names.naming;
  struct dli_vit_block *b = &l->vit->blocks[index];
  const size_t dim = l->vit->dim, mlp = l->vit->mlp_dim;
  DLI_TRY(load_vector(l, n->norm1, index, ".weight", dim, &b->norm1_gain));
  DLI_TRY(load_vector(l, n->norm1, index, ".bias", dim, &b->norm1_bias));
  DLI_TRY(load_qkv(l, index, dim, &b->qkv, &b->qkv_bias));
  DLI_TRY(load_linear(l, n->output, index, dim, dim, &b->output, &b->output_bias));
  DLI_TRY(fold_scale(l, n->scale1, index, &b->output, &b->output_bias));
  DLI_TRY(load_vector(l, n->norm2, index, ".weight", dim, &b->norm2_gain));
  DLI_TRY(load_vector(l, n->norm2, index, ".bias", dim, &b->norm2_bias));
  DLI_TRY(load_linear(l, n->fc1, index, mlp, dim, &b->fc1, &b->fc1_bias));
  DLI_TRY(load_linear(l, n->fc2, index, dim, mlp, &b->fc2, &b->fc2_bias));
  return fold_scale(l, n->scale2, index, &b->fc2, &b->fc2_bias);
}

/* ---- geometry ---- */

/* A decimal number; strtod would follow the locale's decimal comma. Returns the end, or NULL. */
static const char *parse_number(const char *text, double *out) {
  double value = 0.0, scale = 1.0;
  int digits = 0, exponent = 0;
  bool negative = false;
  while (*text == ' ' || *text == ',' || *text == '[') text++;
  const bool minus = *text == '-';
  if (minus) text++;
  for (; *text >= '0' && *text <= '9'; text++, digits++) value = value * 10.0 + (*text - '0');
  if (*text == '.') {
    for (text++; *text >= '0' && *text <= '9'; text++, digits++) value += (*text - '0') * (scale /= 10.0);
  }
  if (digits == 0) return NULL;
  if (*text == 'e' || *text == 'E') {
    text++;
    negative = *text == '-';
    if (*text == '-' || *text == '+') text++;
    if (*text < '0' || *text > '9') return NULL;
    for (; *text >= '0' && *text <= '9' && exponent < 1000; text++) exponent = exponent * 10 + (*text - '0');
    value *= pow(10.0, negative ? -exponent : exponent);
  }
  *out = minus ? -value : value;
  return text;
}

static dlora_status metadata_numbers(const struct loader *l, const char *key, size_t count, double *out, bool *found) {
  const char *text = dli_tensors_metadata(l->tensors, key), *at = text;
  *found = text != NULL;
  for (size_t i = 0; at && i < count; i++) {
    at = parse_number(at, &out[i]);
    if (at && !isfinite(out[i])) at = NULL;
  }
  while (at && (*at == ' ' || *at == ']')) at++;
  if (!text || (at && !*at)) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is \"%.60s\", expected %zu number%s",
                   dli_tensors_label(l->tensors), key, text, count, count == 1 ? "" : "s");
}

static dlora_status metadata_size(const struct loader *l, const char *key, size_t *out) {
  double value = 0.0;
  bool found;
  DLI_TRY(metadata_numbers(l, key, 1, &value, &found));
  if (!found) return DLORA_OK;
  if (value < 1.0 || value > 1e6 || value != floor(value)) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is %g, expected an integer from 1 to 1000000",
                     dli_tensors_label(l->tensors), key, value);
  }
  *out = (size_t)value;
  return DLORA_OK;
}

/* Whose mistake a value is: the caller's, or the file's. */
static dlora_status blame(bool given) {
  return given ? DLORA_ERR_ARGUMENT : DLORA_ERR_FORMAT;
}

static const char *source_of(bool given) {
  return given ? "the option" : "metadata";
}

/* What to suggest, as shapes do not tell it: nearly all have 64 channels a head, the huge and giant ones 16 heads. */
static const char *usual_heads(size_t dim, char *out, size_t size) {
  out[0] = '\0';
  if (dim == 1152 || dim == 1280 || dim == 1408 || dim == 1664) {
    snprintf(out, size, " (usually 16 at embed_dim %zu)", dim);
  } else if (dim % 64 == 0) {
    snprintf(out, size, " (usually embed_dim / 64 = %zu)", dim / 64);
  }
  return out;
}

static dlora_status read_heads(struct loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  DLI_TRY(metadata_size(l, "num_attention_heads", &vit->heads));
  DLI_TRY(metadata_size(l, "num_heads", &vit->heads));
  const bool given = options->num_heads != 0;
  if (given) vit->heads = options->num_heads;
  if (vit->heads == 0) {
    char usual[64];
    return dli_raise(
        DLORA_ERR_ARGUMENT,
        "%s: the file's metadata has neither num_heads nor num_attention_heads; set the option num_heads%s",
        dli_tensors_label(l->tensors), usual_heads(vit->dim, usual, sizeof usual));
  }
  if (vit->dim % vit->heads != 0) {
    return dli_raise(blame(given), "%s: %s num_heads is %zu, which does not divide embed_dim %zu",
                     dli_tensors_label(l->tensors), source_of(given), vit->heads, vit->dim);
  }
  return DLORA_OK;
}

static dlora_status read_normalisation(struct loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  double eps = 1e-6, mean[3] = {0.5, 0.5, 0.5}, std[3] = {0.5, 0.5, 0.5};
  bool found;
  DLI_TRY(metadata_numbers(l, "layer_norm_eps", 1, &eps, &found));
  if (options->layer_norm_eps != 0.0f) eps = (double)options->layer_norm_eps;
  /* As a float: one that it rounds to 0 would divide by 0 in a constant row. */
  if (!((float)eps > 0.0f && (float)eps < 1.0f)) {
    return dli_raise(blame(options->layer_norm_eps != 0.0f), "%s: %s layer_norm_eps is %g, expected it between 0 and 1",
                     dli_tensors_label(l->tensors), source_of(options->layer_norm_eps != 0.0f), eps);
  }
  vit->eps = (float)eps;
  DLI_TRY(metadata_numbers(l, "mean", 3, mean, &found));
  DLI_TRY(metadata_numbers(l, "std", 3, std, &found));
  const bool given = options->std[0] != 0.0f || options->std[1] != 0.0f || options->std[2] != 0.0f;
  for (size_t c = 0; c < 3; c++) {
    vit->mean[c] = given ? options->mean[c] : (float)mean[c];
    vit->std[c] = given ? options->std[c] : (float)std[c];
    if (!(vit->std[c] > 0.0f) || !isfinite(vit->std[c])) {
      return dli_raise(blame(given), "%s: %s std is %g in channel %zu, expected a standard deviation above 0",
                       dli_tensors_label(l->tensors), source_of(given), (double)vit->std[c], c);
    }
    if (!isfinite(vit->mean[c])) {
      return dli_raise(blame(given), "%s: %s mean is %g in channel %zu, expected a finite one",
                       dli_tensors_label(l->tensors), source_of(given), (double)vit->mean[c], c);
    }
  }
  return DLORA_OK;
}

static dlora_status read_geometry(struct loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  const char *label = dli_tensors_label(l->tensors);
  const struct dli_tensor *patch, *fc1;
  char name[DLI_NAME_SIZE];
  name_of(l, name, l->names.naming->anchor, 0, "");
  DLI_TRY(require(l, name, 4, (size_t[]){SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX}, &patch));
  vit->dim = patch->shape[0];
  vit->patch_size = patch->shape[2];
  if (vit->dim == 0 || patch->shape[1] != 3 || vit->patch_size == 0 || patch->shape[3] != vit->patch_size) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: tensor %s has shape [%zu, %zu, %zu, %zu], expected [embed_dim, 3, p, p]", label, name,
                     patch->shape[0], patch->shape[1], patch->shape[2], patch->shape[3]);
  }
  while (exists(l, l->names.naming->norm1, vit->depth, ".weight")) vit->depth++;
  if (vit->depth == 0) {
    name_of(l, name, l->names.naming->norm1, 0, ".weight");
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is missing: a ViT needs at least one block", label, name);
  }
  name_of(l, name, l->names.naming->fc1, 0, ".weight");
  DLI_TRY(require(l, name, 2, (size_t[]){SIZE_MAX, vit->dim}, &fc1));
  vit->mlp_dim = fc1->shape[0];
  if (vit->mlp_dim == 0) return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is empty", label, name);
  DLI_TRY(read_heads(l, options));
  return read_normalisation(l, options);
}

/* Position embeddings [1, 1 + side^2, dim], resampled to the grid in use. Constants are added in advance: the class
 * token gets its position, the positions of the patches get the bias of the patch projection. */
static dlora_status load_positions(struct loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  const char *label = dli_tensors_label(l->tensors);
  const size_t dim = vit->dim, p = vit->patch_size;
  const struct dli_tensor *tensor;
  const float *positions, *class_token, *patch_bias;
  float *row, *grid;
  char name[DLI_NAME_SIZE];
  name_of(l, name, l->names.naming->positions, 0, "");
  DLI_TRY(require(l, name, 3, (size_t[]){1, SIZE_MAX, dim}, &tensor));
  size_t side = (size_t)(sqrt((double)tensor->shape[1]) + 0.5);
  if (side == 0 || side * side + 1 != tensor->shape[1]) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: tensor %s has %zu positions, expected a square grid and one class token", label, name,
                     tensor->shape[1]);
  }
  DLI_TRY(load(l, name, 3, tensor->shape, &positions));
  vit->image_size = side * p;
  DLI_TRY(metadata_size(l, "image_size", &vit->image_size));
  /* Memory goes with the square of it, and a file must not take much more than it has bytes. */
  if (options->image_size == 0 && vit->image_size > side * p && vit->image_size / p > MAX_UPSAMPLING * side) {
    return dli_raise(
        DLORA_ERR_UNSUPPORTED,
        "%s: metadata asks for image_size %zu, more than %d times the %zu that tensor %s is for; set the option "
        "image_size",
        label, vit->image_size, MAX_UPSAMPLING, side * p, name);
  }
  if (options->image_size > 0) vit->image_size = options->image_size;
  vit->grid = vit->image_size / p;
  if (vit->grid == 0 || vit->image_size % p != 0 || vit->image_size > 16384) {
    return dli_raise(blame(options->image_size != 0),
                     "%s: %simage_size is %zu, expected a multiple of the patch size %zu up to 16384", label,
                     options->image_size > 0 ? "the option " : "", vit->image_size, p);
  }
  vit->num_prefix_tokens = 1;
  vit->tokens = vit->num_prefix_tokens + vit->grid * vit->grid;
  name_of(l, name, l->names.naming->class_token, 0, "");
  DLI_TRY(load(l, name, 3, (size_t[]){1, 1, dim}, &class_token));
  DLI_TRY(load_vector(l, l->names.naming->patch_bias, 0, "", dim, &patch_bias));
  DLI_TRY(keep(l, dim, &row));
  DLI_TRY(keep(l, vit->grid * vit->grid * dim, &grid));
  for (size_t j = 0; j < dim; j++) row[j] = class_token[j] + positions[j];
  if (side == vit->grid) {
    memcpy(grid, positions + dim, side * side * dim * sizeof *grid);
  } else {
    DLI_TRY(dli_resample(l->allocator, positions + dim, side, side, dim, vit->grid, vit->grid, grid));
  }
  for (size_t i = 0; i < vit->grid * vit->grid; i++) {
    for (size_t j = 0; j < dim; j++) grid[i * dim + j] += patch_bias[j];
  }
  vit->class_token = row;
  vit->positions = grid;
  return DLORA_OK;
}

/* In this order, so that every size is known and checked before memory is taken by it:
 *
 *     1   which Vision Transformer of the file, under which family's names; what cannot be computed is refused
 *     2   the geometry, from the shapes of a few tensors and from metadata or options
 *     3   position embeddings, resampled to the grid in use, and with them the constants of the patch embedding
 *     4   the patch projection, the final norm and the blocks
 *     5   no tensor is left that would have changed the features
 *     6   the fingerprint, of the weights as they are computed with */
static dlora_status load_all(struct loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  char name[DLI_NAME_SIZE];
  /* 1: before a tensor is found missing, because this sentence tells more */
  DLI_TRY(dli_vit_names_find(&l->names, l->tensors, options->prefix));
  DLI_TRY(dli_vit_names_check(&l->names, NULL));
  vit->naming = l->names.id;
  /* 2 */
  DLI_TRY(read_geometry(l, options));
  /* A block keeps at most 18 arrays (each of 12 tensors, 2 of qkv, 4 of folding), the rest of the model at most 9. */
  vit->max_owned = 18 * vit->depth + 9;
  DLI_TRY(DLI_NEW(l->allocator, vit->owned, vit->max_owned));
  DLI_TRY(DLI_NEW(l->allocator, vit->blocks, vit->depth));
  /* 3 */
  DLI_TRY(load_positions(l, options));
  /* 4 */
  name_of(l, name, l->names.naming->anchor, 0, "");
  vit->patch = (struct dli_weight){.rows = vit->dim, .cols = 3 * vit->patch_size * vit->patch_size};
  DLI_TRY(load(l, name, 4, (size_t[]){vit->dim, 3, vit->patch_size, vit->patch_size}, &vit->patch.data));
  DLI_TRY(load_vector(l, l->names.naming->norm, 0, ".weight", vit->dim, &vit->norm_gain));
  DLI_TRY(load_vector(l, l->names.naming->norm, 0, ".bias", vit->dim, &vit->norm_bias));
  for (size_t i = 0; i < vit->depth; i++) DLI_TRY(load_block(l, i));
  /* 5 and 6 */
  DLI_TRY(dli_vit_names_check(&l->names, l->used));
  dli_vit_fingerprint(vit);
  return DLORA_OK;
}

dlora_status dli_vit_load(struct dli_vit *out, const struct dli_tensors *tensors, const dlora_model_options *options,
                          const dlora_allocator *allocator) {
  struct dli_vit vit = {0};
  struct loader loader = {.vit = &vit, .tensors = tensors, .allocator = allocator};
  dlora_status status = DLORA_OK;
  DLI_TRY(DLI_NEW(allocator, loader.used, dli_tensors_count(tensors)));
  DLI_TRY_DONE(load_all(&loader, options));
  *out = vit;
  vit = (struct dli_vit){0};
done:
  dli_free(allocator, loader.used);
  dli_vit_release(&vit, allocator);
  return status;
}

void dli_vit_release(struct dli_vit *vit, const dlora_allocator *allocator) {
  for (size_t i = 0; vit->packed && i < 4 * vit->depth + 1; i++) dli_packed_destroy(vit->packed[i], allocator);
  dli_free(allocator, vit->packed);
  for (size_t i = 0; i < vit->num_owned; i++) dli_free(allocator, vit->owned[i]);
  dli_free(allocator, vit->owned);
  dli_free(allocator, vit->blocks);
  *vit = (struct dli_vit){0};
}
