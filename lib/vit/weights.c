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

static dlora_status read_heads(struct dli_vit_loader *l) {
  struct dli_vit *vit = l->vit;
  struct dli_settings *settings = l->settings;
  const char *label = dli_tensors_label(l->tensors);
  char who[DLI_WHO_SIZE];
  if (!settings->of[DLI_SET_NUM_HEADS].set && settings->head_dim > 0 && vit->dim % settings->head_dim == 0) {
    dli_settings_fill(settings, DLI_SET_NUM_HEADS, DLORA_ORIGIN_TABLE, settings->head_place,
                      (double[]){(double)(vit->dim / settings->head_dim)});
  }
  vit->heads = settings->options.num_heads;
  if (vit->heads == 0) {
    char usual[64];
    return dli_raise(DLORA_ERR_ARGUMENT,
                     "%s: its metadata has neither num_heads nor num_attention_heads; give the folder with its "
                     "config.json, or set the option num_heads%s",
                     label, usual_heads(vit->dim, usual, sizeof usual));
  }
  if (vit->dim % vit->heads != 0) {
    return dli_raise(dli_settings_blame(settings, DLI_SET_NUM_HEADS),
                     "%s: %s is %zu, which does not divide embed_dim %zu", label,
                     dli_settings_who(settings, DLI_SET_NUM_HEADS, who), vit->heads, vit->dim);
  }
  return DLORA_OK;
}

static dlora_status read_normalisation(struct dli_vit_loader *l) {
  struct dli_vit *vit = l->vit;
  struct dli_settings *settings = l->settings;
  const char *label = dli_tensors_label(l->tensors);
  static const double half[] = {0.5, 0.5, 0.5};
  char who[DLI_WHO_SIZE];
  dli_settings_fill(settings, DLI_SET_LAYER_NORM_EPS, DLORA_ORIGIN_DEFAULT, "",
                    (double[]){(double)l->names.family->layer_norm_eps});
  dli_settings_fill(settings, DLI_SET_MEAN, DLORA_ORIGIN_DEFAULT, "", half);
  dli_settings_fill(settings, DLI_SET_STD, DLORA_ORIGIN_DEFAULT, "", half);
  vit->eps = settings->options.layer_norm_eps;
  /* As a float: one that it rounds to 0 would divide by 0 in a constant row. */
  if (!(vit->eps > 0.0f && vit->eps < 1.0f)) {
    return dli_raise(dli_settings_blame(settings, DLI_SET_LAYER_NORM_EPS), "%s: %s is %g, expected it between 0 and 1",
                     label, dli_settings_who(settings, DLI_SET_LAYER_NORM_EPS, who), (double)vit->eps);
  }
  for (size_t c = 0; c < 3; c++) {
    vit->mean[c] = settings->options.mean[c];
    vit->std[c] = settings->options.std[c];
    if (!(vit->std[c] > 0.0f) || !isfinite(vit->std[c])) {
      return dli_raise(dli_settings_blame(settings, DLI_SET_STD),
                       "%s: %s is %g in channel %zu, expected a standard deviation above 0", label,
                       dli_settings_who(settings, DLI_SET_STD, who), (double)vit->std[c], c);
    }
    if (!isfinite(vit->mean[c])) {
      return dli_raise(dli_settings_blame(settings, DLI_SET_MEAN), "%s: %s is %g in channel %zu, expected a finite one",
                       label, dli_settings_who(settings, DLI_SET_MEAN, who), (double)vit->mean[c], c);
    }
  }
  return DLORA_OK;
}

/* Of a gated MLP it is told by the tensors. */
static dlora_status read_activation(struct dli_vit_loader *l, bool gated) {
  struct dli_settings *settings = l->settings;
  const enum dli_setting_id id = DLI_SET_ACTIVATION;
  int32_t *told = &settings->options.activation;
  char who[DLI_WHO_SIZE];
  if (gated) {
    dli_settings_fill(settings, id, DLORA_ORIGIN_TENSORS, "", (double[]){(double)DLORA_ACTIVATION_SWIGLU});
  } else {
    dli_settings_fill(settings, id, DLORA_ORIGIN_DEFAULT, "", (double[]){(double)l->names.family->activation});
  }
  /* transformers writes the gelu of its other models into the configuration of DINOv2, whose gate is always silu. */
  if (gated && settings->of[id].origin != DLORA_ORIGIN_OPTION && *told == DLORA_ACTIVATION_GELU &&
      l->names.family->id == DLORA_NAMING_HF_DINOV2) {
    *told = DLORA_ACTIVATION_SWIGLU;
  }
  if (gated != (*told == DLORA_ACTIVATION_SWIGLU)) {
    return dli_raise(settings->of[id].origin == DLORA_ORIGIN_OPTION ? DLORA_ERR_ARGUMENT : DLORA_ERR_UNSUPPORTED,
                     "%s: %s asks for %s, but its MLP is %s", dli_tensors_label(l->tensors),
                     dli_settings_who(settings, id, who),
                     gated ? "an activation without a gate" : "silu, which is supported with a gate alone",
                     gated ? "gated" : "not gated");
  }
  l->vit->activation = *told;
  return DLORA_OK;
}

/* What the files beside the weights say of the tensors. */
static dlora_status check_claim(const struct dli_vit_loader *l, enum dli_claim_id id, const char *what, size_t value) {
  return dli_settings_check_claim(l->settings, id, dli_tensors_label(l->tensors), what, value);
}

/* Of EVA-02 some have the tensors of EVA, but rotate queries and keys (tiny, small) or norm behind layers (enormous).
 */
static dlora_status refuse_eva02(const struct dli_vit_loader *l, bool gated) {
  char name[DLI_NAME_SIZE];
  const size_t enormous = 1792;
  if (!dli_vit_has(l, l->names.naming->query_bias, 0, "") || l->names.family->rotary) {
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
static dlora_status read_mlp(struct dli_vit_loader *l) {
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
  vit->inner_norm1 = dli_vit_has(l, n->inner_norm1, 0, ".weight");
  vit->inner_norm2 = dli_vit_has(l, n->inner_norm2, 0, ".weight");
  DLI_TRY(refuse_eva02(l, l->split_gate || packed));
  DLI_TRY(check_claim(l, DLI_CLAIM_MLP_DIM, "mlp_dim", vit->mlp_dim));
  DLI_TRY(check_claim(l, DLI_CLAIM_GATED, "gated MLPs:", l->split_gate || packed));
  return read_activation(l, l->split_gate || packed);
}

static dlora_status read_geometry(struct dli_vit_loader *l) {
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
  DLI_TRY(check_claim(l, DLI_CLAIM_DIM, "embed_dim", vit->dim));
  DLI_TRY(check_claim(l, DLI_CLAIM_DEPTH, "depth", vit->depth));
  DLI_TRY(check_claim(l, DLI_CLAIM_PATCH_SIZE, "patch_size", vit->patch_size));
  DLI_TRY(read_mlp(l));
  DLI_TRY(read_heads(l));
  DLI_TRY(dli_vit_settle_preprocessing(l));
  return read_normalisation(l);
}

/* In this order, so that every size is known and checked before memory is taken by it:
 *
 *     1   which Vision Transformer of the file, under which family's names; what cannot be computed is refused
 *     2   settings, from options, metadata and JSON files; the geometry, from the shapes of a few tensors
 *     3   what enters the first block: tokens before the patches, positions, constants of the patch embedding
 *     4   the patch projection, the blocks, and what follows them
 *     5   no tensor is left that would have changed the features
 *     6   the LoRA of the option adapter, and the fingerprint, of the weights as they are computed with */
static dlora_status load_all(struct dli_vit_loader *l, const struct dli_model_files *files,
                             const dlora_model_options *options) {
  struct dli_vit *vit = l->vit;
  char name[DLI_NAME_SIZE];
  /* 1: before a tensor is found missing, because this sentence tells more */
  DLI_TRY(dli_vit_names_find(&l->names, l->tensors, options->prefix));
  DLI_TRY(dli_vit_names_check(&l->names, NULL));
  vit->naming = l->names.family->id;
  vit->rms_norm = l->names.family->rms_norm;
  memcpy(vit->name_prefix, l->names.prefixes[l->names.prefix], sizeof vit->name_prefix);
  /* 2 */
  DLI_TRY(dli_settings_read(l->settings, files, options));
  DLI_TRY(read_geometry(l));
  /* A block keeps at most 27 arrays (each of 16 tensors, 3 of qkv, 4 of folding, 4 of a LoRA), the rest of the model at
   * most 34. */
  vit->max_owned = 27 * vit->depth + 34;
  DLI_TRY(DLI_NEW(l->allocator, vit->owned, vit->max_owned));
  DLI_TRY(DLI_NEW(l->allocator, vit->blocks, vit->depth));
  /* 3 */
  DLI_TRY(dli_vit_load_embedding(l));
  DLI_TRY(check_claim(l, DLI_CLAIM_REGISTERS,
                      "register tokens:", vit->num_prefix_tokens - vit->has_class_token - vit->has_distillation_token));
  /* 4 */
  dli_vit_name_of(l, name, l->names.naming->anchor, 0, "");
  vit->patch = (struct dli_weight){.rows = vit->dim, .cols = 3 * vit->patch_size * vit->patch_size};
  DLI_TRY(dli_vit_load_tensor(l, name, 4, (size_t[]){vit->dim, 3, vit->patch_size, vit->patch_size}, &vit->patch.data));
  for (size_t i = 0; i < vit->depth; i++) DLI_TRY(dli_vit_load_block(l, i));
  DLI_TRY(dli_vit_load_pool(l));
  /* 5 and 6 */
  DLI_TRY(dli_vit_names_check(&l->names, l->used));
  if (options->adapter) DLI_TRY(dli_vit_merge_lora(l, options->adapter));
  dli_vit_fingerprint(vit);
  return DLORA_OK;
}

dlora_status dli_vit_load(struct dli_vit *out, struct dli_settings *settings, const struct dli_model_files *files,
                          const dlora_model_options *options, const dlora_allocator *allocator) {
  struct dli_vit vit = {0};
  struct dli_vit_loader loader = {.vit = &vit, .tensors = files->tensors, .allocator = allocator, .settings = settings};
  dlora_status status = DLORA_OK;
  DLI_TRY(DLI_NEW(allocator, loader.used, dli_tensors_count(files->tensors)));
  DLI_TRY_DONE(load_all(&loader, files, options));
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
