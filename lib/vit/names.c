/* Finds the Vision Transformer in a file by the tensor names of timm and Hugging Face, and refuses tensors that would
 * change its features if they were ignored.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/names.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"
#include "io/file_kind.h"

static const struct dli_vit_naming namings[] = {
    [DLORA_NAMING_TIMM] = {"patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed", "norm",
                           "blocks.%zu.norm1", "blocks.%zu.norm2", "blocks.%zu.attn.qkv", NULL, NULL, NULL,
                           "blocks.%zu.attn.proj", "blocks.%zu.mlp.fc1", "blocks.%zu.mlp.fc2", "blocks.%zu.ls1.gamma",
                           "blocks.%zu.ls2.gamma"},
    [DLORA_NAMING_HF_VIT] = {"embeddings.patch_embeddings.projection.weight",
                             "embeddings.patch_embeddings.projection.bias", "embeddings.cls_token",
                             "embeddings.position_embeddings", "layernorm", "encoder.layer.%zu.layernorm_before",
                             "encoder.layer.%zu.layernorm_after", NULL, "encoder.layer.%zu.attention.attention.query",
                             "encoder.layer.%zu.attention.attention.key", "encoder.layer.%zu.attention.attention.value",
                             "encoder.layer.%zu.attention.output.dense", "encoder.layer.%zu.intermediate.dense",
                             "encoder.layer.%zu.output.dense", NULL, NULL},
    [DLORA_NAMING_HF_DINOV2] = {"embeddings.patch_embeddings.projection.weight",
                                "embeddings.patch_embeddings.projection.bias", "embeddings.cls_token",
                                "embeddings.position_embeddings", "layernorm", "encoder.layer.%zu.norm1",
                                "encoder.layer.%zu.norm2", NULL, "encoder.layer.%zu.attention.attention.query",
                                "encoder.layer.%zu.attention.attention.key",
                                "encoder.layer.%zu.attention.attention.value",
                                "encoder.layer.%zu.attention.output.dense", "encoder.layer.%zu.mlp.fc1",
                                "encoder.layer.%zu.mlp.fc2", "encoder.layer.%zu.layer_scale1.lambda1",
                                "encoder.layer.%zu.layer_scale2.lambda1"},
};

/* ---- what else a file holds ----
 *
 * A pattern of the lists below that ends in '.' or '_' is how a name begins, any other is a whole name. */

/* Under the prefix, and read by nothing that leads to the class token after the final norm: what masked training puts
 * in for patches, what reads the features, another tower. norm_pre, fc_norm, attn_pool and pooler.layernorm are no such
 * things, however they sound, and what is harmless in one naming need not exist in the other. */
static const char *const harmless_timm[] = {
    "mask_token",       "head.", "fc.",         "pre_logits.",   "classifier.", "decoder.",         "decoder_",
    "logit_scale",      "text.", "text_model.", "text_encoder.", "logit_bias",  "projection_head.", "text_projection",
    "text_projection.",
};
static const char *const harmless_hugging_face[] = {
    "embeddings.mask_token", "embeddings.position_ids", "pooler.dense.", "classifier.", "head.", "decoder.",
};

/* Beside the prefix: these read the features of a backbone, whatever it is. */
static const char *const harmless_outside[] = {
    "classifier.",
    "cls_classifier.",
    "head.",
    "heads.",
    "fc.",
    "pre_logits.",
    "pooler.",
    "decoder.",
    "decoder_",
    "neck.",
    "decode_head.",
    "auxiliary_head.",
    "cls_head.",
    "lm_head.",
    "projection_head.",
    "prediction_head.",
    "projector.",
    "predictor.",
    "mask_token",
    "text.",
    "text_model.",
    "text_encoder.",
    "text_decoder.",
    "language_model.",
    "text_projection",
    "text_projection.",
    "visual_projection.",
    "logit_scale",
    "logit_bias",
};

/* Parts of names, each one component or several, of kinds that would load and then compute something else. */
static const struct {
  const char *part; /* a component that ends in '*' stands for all that begin so */
  const char *what;
} foreign[] = {
    {"reg_token", "register tokens"},
    {"register_tokens", "register tokens"},
    {"dist_token", "a second token, for distillation"},
    {"distillation_token", "a second token, for distillation"},
    {"detection_tokens", "tokens for detection (YOLOS)"},
    {"token_type_embeddings", "an offset of image tokens beside text tokens (ViLT)"},
    {"norm_pre", "a norm in front of the blocks (CLIP)"},
    {"fc_norm", "a norm behind the mean of all patches, whose result is its feature,"},
    {"pooler.layernorm", "a norm behind the mean of all patches, whose result is its feature,"},
    {"attn_pool", "attention that pools the patches, whose result is its feature,"},
    {"q_norm", "a norm of queries"},
    {"k_norm", "a norm of keys"},
    {"attn.norm", "a norm inside attention (EVA-02)"},
    {"mlp.norm", "a norm inside the MLP (EVA-02)"},
    {"q_bias", "a bias of queries apart from their weights (BEiT, EVA)"},
    {"k_bias", "a bias of keys apart from their weights (BEiT, EVA)"},
    {"v_bias", "a bias of values apart from their weights (BEiT, EVA)"},
    {"gamma_1", "a layer scale (BEiT, CaiT, EVA)"},
    {"gamma_2", "a layer scale (BEiT, CaiT, EVA)"},
    {"lambda_1", "a layer scale (BEiT)"},
    {"lambda_2", "a layer scale (BEiT)"},
    {"rel_pos*", "relative positions"},
    {"relative_position*", "relative positions"},
    {"rope*", "rotary positions"},
    {"w12", "a gated MLP (SwiGLU)"},
    {"fc1_g", "a gated MLP (SwiGLU)"},
    {"weights_in", "a gated MLP (SwiGLU)"},
    {"gate_proj", "a gated MLP (SwiGLU)"},
    {"running_mean", "batch normalisation"},
    {"running_var", "batch normalisation"},
    {"num_batches_tracked", "batch normalisation"},
};

/* The same of files that were written in a way that is not read. */
static const struct {
  const char *part, *what;
} unmerged[] = {
    {"lora_*", "an adapter beside the weights: merge it into them first (peft: merge_and_unload) and save that"},
    {"base_layer", "of a layer with an adapter: merge it first (peft: merge_and_unload) and save that"},
    {"attention.q_proj", "named as in the memory of transformers 5: write the file with save_pretrained"},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool begins_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

static bool is_listed(const char *name, const char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const char last = list[i][strlen(list[i]) - 1];
    if (last == '.' || last == '_' ? begins_with(name, list[i]) : strcmp(name, list[i]) == 0) return true;
  }
  return false;
}

/* Whether one or several whole components of a name are this part. */
static bool has_part(const char *name, const char *part) {
  const size_t length = strlen(part);
  const bool open = part[length - 1] == '*';
  const size_t compared = open ? length - 1 : length;
  for (const char *at = name; at; at = strchr(at, '.')) {
    if (*at == '.') at++;
    if (strncmp(at, part, compared) == 0 && (open || at[compared] == '.' || at[compared] == '\0')) return true;
  }
  return false;
}

static const char *prefix_of(const struct dli_vit_names *names) {
  return names->prefixes[names->prefix];
}

/* Of another Vision Transformer in the file, or of anything beside the one that the caller chose. */
static bool is_of_another(const struct dli_vit_names *names, const char *name) {
  if (!names->chosen) return false;
  const char *ours = prefix_of(names);
  if (!begins_with(name, ours)) return true;
  for (size_t i = 0; i < names->num_prefixes; i++) {
    const char *other = names->prefixes[i];
    if (strlen(other) > strlen(ours) && begins_with(name, other)) return true;
  }
  return false;
}

/* What follows the components that a name and the prefix share. */
static const char *beside(const char *name, const char *prefix) {
  const char *rest = name;
  for (size_t i = 0; prefix[i] && name[i] == prefix[i]; i++) {
    if (name[i] == '.') rest = name + i + 1;
  }
  return rest;
}

static dlora_status refuse_foreign(const struct dli_vit_names *names, const char *name, const char *rest) {
  const char *label = dli_tensors_label(names->tensors);
  for (size_t i = 0; i < COUNT(unmerged); i++) {
    if (!has_part(rest, unmerged[i].part)) continue;
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor %s is %s", label, name, unmerged[i].what);
  }
  for (size_t i = 0; i < COUNT(foreign); i++) {
    if (!has_part(rest, foreign[i].part)) continue;
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor %s: a Vision Transformer with %s is not supported", label, name,
                     foreign[i].what);
  }
  return DLORA_OK;
}

dlora_status dli_vit_names_check(const struct dli_vit_names *names, const bool *used) {
  const char *label = dli_tensors_label(names->tensors), *prefix = prefix_of(names);
  const bool timm = names->id == DLORA_NAMING_TIMM;
  for (size_t i = 0; i < dli_tensors_count(names->tensors); i++) {
    const char *name = dli_tensors_at(names->tensors, i)->name;
    if ((used && used[i]) || is_of_another(names, name)) continue;
    if (!begins_with(name, prefix)) {
      if (!used || is_listed(beside(name, prefix), harmless_outside, COUNT(harmless_outside))) continue;
      return dli_raise(
          DLORA_ERR_UNSUPPORTED,
          "%s: tensor %s lies outside the Vision Transformer with the prefix '%s' and is not known to leave "
          "its features as they are; if it does, choose the prefix by the option prefix",
          label, name, prefix);
    }
    const char *rest = name + strlen(prefix);
    if (timm ? is_listed(rest, harmless_timm, COUNT(harmless_timm))
             : is_listed(rest, harmless_hugging_face, COUNT(harmless_hugging_face))) {
      continue;
    }
    DLI_TRY(refuse_foreign(names, name, rest));
    if (!used) continue;
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: tensor %s is not known: without it the features may be others than the model's; write a file "
                     "without it if they do not depend on it",
                     label, name);
  }
  return DLORA_OK;
}

/* ---- finding it ---- */

/* Whether a name is that of a patch projection; *length: of the prefix. */
static bool is_anchor(const char *name, const char *anchor, size_t *length) {
  const size_t all = strlen(name), end = strlen(anchor);
  if (all < end || strcmp(name + all - end, anchor) != 0) return false;
  *length = all - end;
  return *length == 0 || name[*length - 1] == '.';
}

static dlora_status find_prefixes(struct dli_vit_names *names, int32_t ids[DLI_MAX_PREFIXES]) {
  const char *label = dli_tensors_label(names->tensors);
  for (size_t i = 0; i < dli_tensors_count(names->tensors); i++) {
    const char *name = dli_tensors_at(names->tensors, i)->name;
    for (int32_t id = DLORA_NAMING_TIMM; id <= DLORA_NAMING_HF_VIT; id++) {
      size_t length;
      if (!is_anchor(name, namings[id].anchor, &length)) continue;
      if (length >= DLI_PREFIX_SIZE) {
        return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor names have a prefix of %zu bytes, at most %d are supported",
                         label, length, DLI_PREFIX_SIZE - 1);
      }
      if (names->num_prefixes == DLI_MAX_PREFIXES) {
        return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: holds more than %d Vision Transformers", label, DLI_MAX_PREFIXES);
      }
      memcpy(names->prefixes[names->num_prefixes], name, length);
      ids[names->num_prefixes++] = id;
    }
  }
  if (names->num_prefixes > 0) return DLORA_OK;
  const char *format = dli_tensors_metadata(names->tensors, "format");
  if (format && begins_with(format, "duallora")) {
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: is a file of this library (%.40s), expected a backbone", label,
                     format);
  }
  return dli_raise(DLORA_ERR_UNSUPPORTED,
                   "%s: no Vision Transformer: neither patch_embed.proj.weight (timm) nor "
                   "embeddings.patch_embeddings.projection.weight (Hugging Face) is among its tensors%s",
                   label, dli_file_part_hint(label));
}

/* "'student.', 'teacher.'" */
static void list_prefixes(const struct dli_vit_names *names, char out[DLI_MAX_PREFIXES * (DLI_PREFIX_SIZE + 4)]) {
  size_t used = 0;
  for (size_t i = 0; i < names->num_prefixes; i++) {
    used += (size_t)sprintf(out + used, "%s'%s'", i > 0 ? ", " : "", names->prefixes[i]);
  }
}

/* With or without the full stop at its end. */
static bool is_prefix(const char *found, const char *wanted) {
  const size_t length = strlen(wanted);
  return strncmp(found, wanted, length) == 0 && (found[length] == '\0' || strcmp(found + length, ".") == 0);
}

dlora_status dli_vit_names_find(struct dli_vit_names *out, const struct dli_tensors *tensors, const char *prefix) {
  struct dli_vit_names names = {.tensors = tensors, .chosen = prefix != NULL};
  const char *label = dli_tensors_label(tensors);
  char list[DLI_MAX_PREFIXES * (DLI_PREFIX_SIZE + 4)], name[DLI_NAME_SIZE];
  int32_t ids[DLI_MAX_PREFIXES];
  DLI_TRY(find_prefixes(&names, ids));
  if (prefix) {
    while (names.prefix < names.num_prefixes && !is_prefix(names.prefixes[names.prefix], prefix)) names.prefix++;
    if (names.prefix == names.num_prefixes) {
      list_prefixes(&names, list);
      return dli_raise(DLORA_ERR_ARGUMENT, "%s: no Vision Transformer has the prefix '%.100s'; there %s %s", label,
                       prefix, names.num_prefixes == 1 ? "is" : "are", list);
    }
  } else if (names.num_prefixes > 1) {
    list_prefixes(&names, list);
    return dli_raise(DLORA_ERR_ARGUMENT,
                     "%s: holds %zu Vision Transformers, with the prefixes %s; choose one by the option prefix", label,
                     names.num_prefixes, list);
  }
  names.id = ids[names.prefix];
  if (names.id == DLORA_NAMING_HF_VIT) {
    names.naming = &namings[DLORA_NAMING_HF_DINOV2];
    dli_vit_name(&names, name, names.naming->norm1, 0, ".weight");
    if (dli_tensors_find(tensors, name)) names.id = DLORA_NAMING_HF_DINOV2;
  }
  names.naming = &namings[names.id];
  *out = names;
  return DLORA_OK;
}

void dli_vit_name(const struct dli_vit_names *names, char out[DLI_NAME_SIZE], const char *pattern, size_t block,
                  const char *suffix) {
  const char *mark = strstr(pattern, "%zu");
  int length;
  if (mark) {
    length = snprintf(out, DLI_NAME_SIZE, "%s%.*s%zu%s%s", prefix_of(names), (int)(mark - pattern), pattern, block,
                      mark + 3, suffix);
  } else {
    length = snprintf(out, DLI_NAME_SIZE, "%s%s%s", prefix_of(names), pattern, suffix);
  }
  DLI_ASSERT(length > 0 && length < DLI_NAME_SIZE);
}
