/* Loads a Vision Transformer: finds its tensors under the names of its family, checks the geometry, and reads settings
 * that shapes do not tell from options, metadata and the family.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "vit/loader.h"

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

static dlora_status metadata_numbers(const struct dli_vit_loader *l, const char *key, size_t count, double *out,
                                     bool *found) {
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

dlora_status dli_vit_metadata_size(const struct dli_vit_loader *l, const char *key, size_t *out) {
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

static dlora_status read_heads(struct dli_vit_loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  DLI_TRY(dli_vit_metadata_size(l, "num_attention_heads", &vit->heads));
  DLI_TRY(dli_vit_metadata_size(l, "num_heads", &vit->heads));
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

static dlora_status read_normalisation(struct dli_vit_loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  double eps = (double)l->names.family->layer_norm_eps, mean[3] = {0.5, 0.5, 0.5}, std[3] = {0.5, 0.5, 0.5};
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

static const struct {
  const char *name;
  int32_t activation;
} activations[] = {
    {"gelu", DLORA_ACTIVATION_GELU},
    {"gelu_python", DLORA_ACTIVATION_GELU},
    {"gelu_tanh", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_new", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_fast", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_pytorch_tanh", DLORA_ACTIVATION_GELU_TANH},
    {"quick_gelu", DLORA_ACTIVATION_QUICK_GELU},
    {"quickgelu", DLORA_ACTIVATION_QUICK_GELU},
    {"silu", DLORA_ACTIVATION_SWIGLU},
    {"swish", DLORA_ACTIVATION_SWIGLU},
};

/* Of a gated MLP it is told by the tensors. Of others the option, else the metadata, else the family. */
static dlora_status read_activation(struct dli_vit_loader *l, const dlora_model_options *options, bool gated) {
  static const char *const keys[] = {"hidden_act", "activation"};
  const char *label = dli_tensors_label(l->tensors), *text = NULL, *key = NULL;
  int32_t told = options->activation;
  for (size_t i = 0; told == DLORA_AUTO && !text && i < 2; i++) text = dli_tensors_metadata(l->tensors, key = keys[i]);
  for (size_t i = 0; text && i < sizeof activations / sizeof *activations; i++) {
    if (strcmp(text, activations[i].name) == 0) told = activations[i].activation;
  }
  if (text && told == DLORA_AUTO) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: metadata %s is \"%.60s\", expected gelu, gelu_tanh, quick_gelu or silu; set the option "
                     "activation if it is another name of one of these",
                     label, key, text);
  }
  if (told == DLORA_AUTO) told = gated ? DLORA_ACTIVATION_SWIGLU : l->names.family->activation;
  /* transformers writes the gelu of its other models into the configuration of DINOv2, whose gate is always silu. */
  if (gated && text && told == DLORA_ACTIVATION_GELU && l->names.family->id == DLORA_NAMING_HF_DINOV2) {
    told = DLORA_ACTIVATION_SWIGLU;
  }
  if (gated != (told == DLORA_ACTIVATION_SWIGLU)) {
    return dli_raise(text ? DLORA_ERR_UNSUPPORTED : DLORA_ERR_ARGUMENT, "%s: %s asks for %s, but its MLP is %s", label,
                     text ? "metadata" : "the option activation",
                     gated ? "an activation without a gate" : "silu, which is supported with a gate alone",
                     gated ? "gated" : "not gated");
  }
  l->vit->activation = told;
  return DLORA_OK;
}

/* Of EVA-02 some have the tensors of EVA, but rotate queries and keys (tiny, small) or norm behind layers (enormous).
 */
static dlora_status refuse_eva02(const struct dli_vit_loader *l, bool gated) {
  char name[DLI_NAME_SIZE];
  const size_t enormous = 1792;
  if (!dli_vit_has(l, l->names.naming->query_bias, 0, "") || l->names.family->positions == DLI_POSITIONS_ROTARY) {
    return DLORA_OK;
  }
  if (!gated && l->vit->dim != enormous) return DLORA_OK;
  dli_vit_name_of(l, name, l->names.naming->query_bias, 0, "");
  return dli_raise(DLORA_ERR_UNSUPPORTED,
                   "%s: tensor %s beside %s: a Vision Transformer with %s (EVA-02) is not supported",
                   dli_tensors_label(l->tensors), name, gated ? "a gated MLP" : "embed_dim 1792",
                   gated ? "rotary positions" : "norms behind its layers");
}

/* The MLP is gated where fc1 has halves of their own, or twice as many outputs as fc2 has inputs. */
static dlora_status read_mlp(struct dli_vit_loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  const struct dli_vit_naming *n = l->names.naming;
  const struct dli_tensor *fc1, *fc2;
  char name[DLI_NAME_SIZE];
  l->split_gate = dli_vit_has(l, n->gate, 0, ".weight") && dli_vit_has(l, n->up, 0, ".weight");
  dli_vit_name_of(l, name, l->split_gate ? n->gate : n->fc1, 0, ".weight");
  DLI_TRY(dli_vit_require(l, name, 2, (size_t[]){SIZE_MAX, vit->dim}, &fc1));
  if (fc1->shape[0] == 0) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is empty", dli_tensors_label(l->tensors), name);
  }
  dli_vit_name_of(l, name, n->fc2, 0, ".weight");
  fc2 = dli_tensors_find(l->tensors, name);
  const bool packed = !l->split_gate && fc2 && fc2->num_dims == 2 && fc1->shape[0] == 2 * fc2->shape[1];
  vit->mlp_dim = packed ? fc1->shape[0] / 2 : fc1->shape[0];
  vit->fc1_dim = l->split_gate ? 2 * vit->mlp_dim : fc1->shape[0];
  DLI_TRY(refuse_eva02(l, l->split_gate || packed));
  return read_activation(l, options, l->split_gate || packed);
}

static dlora_status read_geometry(struct dli_vit_loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  const char *label = dli_tensors_label(l->tensors);
  const struct dli_tensor *patch;
  char name[DLI_NAME_SIZE];
  dli_vit_name_of(l, name, l->names.naming->anchor, 0, "");
  DLI_TRY(dli_vit_require(l, name, 4, (size_t[]){SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX}, &patch));
  vit->dim = patch->shape[0];
  vit->patch_size = patch->shape[2];
  if (vit->dim == 0 || patch->shape[1] != 3 || vit->patch_size == 0 || patch->shape[3] != vit->patch_size) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: tensor %s has shape [%zu, %zu, %zu, %zu], expected [embed_dim, 3, p, p]", label, name,
                     patch->shape[0], patch->shape[1], patch->shape[2], patch->shape[3]);
  }
  while (dli_vit_has(l, l->names.naming->norm1, vit->depth, ".weight")) vit->depth++;
  if (vit->depth == 0) {
    dli_vit_name_of(l, name, l->names.naming->norm1, 0, ".weight");
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is missing: a ViT needs at least one block", label, name);
  }
  DLI_TRY(read_mlp(l, options));
  DLI_TRY(read_heads(l, options));
  return read_normalisation(l, options);
}

/* In this order, so that every size is known and checked before memory is taken by it:
 *
 *     1   which Vision Transformer of the file, under which family's names; what cannot be computed is refused
 *     2   the geometry, from the shapes of a few tensors and from metadata or options
 *     3   what enters the first block: tokens before the patches, positions, constants of the patch embedding
 *     4   the patch projection, the blocks, and what follows them
 *     5   no tensor is left that would have changed the features
 *     6   the fingerprint, of the weights as they are computed with */
static dlora_status load_all(struct dli_vit_loader *l, const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  char name[DLI_NAME_SIZE];
  /* 1: before a tensor is found missing, because this sentence tells more */
  DLI_TRY(dli_vit_names_find(&l->names, l->tensors, options->prefix));
  DLI_TRY(dli_vit_names_check(&l->names, NULL));
  vit->naming = l->names.family->id;
  vit->rms_norm = l->names.family->rms_norm;
  memcpy(vit->name_prefix, l->names.prefixes[l->names.prefix], sizeof vit->name_prefix);
  /* 2 */
  DLI_TRY(read_geometry(l, options));
  /* A block keeps at most 19 arrays (each of 12 tensors, 3 of qkv, 4 of folding), the rest of the model at most 34. */
  vit->max_owned = 19 * vit->depth + 34;
  DLI_TRY(DLI_NEW(l->allocator, vit->owned, vit->max_owned));
  DLI_TRY(DLI_NEW(l->allocator, vit->blocks, vit->depth));
  /* 3 */
  DLI_TRY(dli_vit_load_embedding(l, options));
  /* 4 */
  dli_vit_name_of(l, name, l->names.naming->anchor, 0, "");
  vit->patch = (struct dli_weight){.rows = vit->dim, .cols = 3 * vit->patch_size * vit->patch_size};
  DLI_TRY(dli_vit_load_tensor(l, name, 4, (size_t[]){vit->dim, 3, vit->patch_size, vit->patch_size}, &vit->patch.data));
  for (size_t i = 0; i < vit->depth; i++) DLI_TRY(dli_vit_load_block(l, i));
  DLI_TRY(dli_vit_load_pool(l, options));
  /* 5 and 6 */
  DLI_TRY(dli_vit_names_check(&l->names, l->used));
  dli_vit_fingerprint(vit);
  return DLORA_OK;
}

dlora_status dli_vit_load(struct dli_vit *out, const struct dli_tensors *tensors, const dlora_model_options *options,
                          const dlora_allocator *allocator) {
  struct dli_vit vit = {0};
  struct dli_vit_loader loader = {.vit = &vit, .tensors = tensors, .allocator = allocator};
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
