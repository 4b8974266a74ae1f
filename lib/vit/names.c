/* Finds the Vision Transformer in a file by the tensor names of timm and Hugging Face, and refuses tensors that would
 * change its features if they were ignored.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/names.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"
#include "io/file_kind.h"

/* ---- what else a file holds ----
 *
 * A pattern of the lists below that ends in '.' or '_' is how a name begins, any other is a whole name. */

/* Under the prefix, and read by nothing that leads to the class token after the final norm: what masked training puts
 * in for patches, what reads the features, another tower. norm_pre, fc_norm, attn_pool and pooler.layernorm are no such
 * things, however they sound, and what is harmless in one naming need not exist in the other. */
static const char *const harmless_timm[] = {
    "mask_token",      "head.",
    "head_dist.",      "fc.",
    "pre_logits.",     "classifier.",
    "decoder.",        "decoder_",
    "logit_scale",     "text.",
    "text_model.",     "text_encoder.",
    "logit_bias",      "projection_head.",
    "text_projection", "text_projection.",
};
static const char *const harmless_hugging_face[] = {
    "embeddings.mask_token", "embeddings.position_ids", "pooler.dense.", "classifier.", "head.", "decoder.",
};
/* Their heads pool the patches. */
static const char *const harmless_siglip[] = {"embeddings.position_ids"};

/* Beside the prefix: these read the features of a backbone, whatever it is. */
static const char *const harmless_outside[] = {
    "classifier.",
    "cls_classifier.",
    "distillation_classifier.",
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
    {"fc1_x", "a gated MLP (SwiGLU)"},
    {"running_mean", "batch normalisation"},
    {"running_var", "batch normalisation"},
    {"num_batches_tracked", "batch normalisation"},
};

/* Networks that differ from others of the same tensors in what no tensor says: they are told by tensors that the others
 * do not have together. Names as in timm, each below the prefix. */
static const struct {
  const char *has[2], *lacks[2]; /* or NULL */
  const char *what;
} disguised[] = {
    {{"norm_pre.weight", "attn_pool.latent"}, {NULL}, "rotary positions (Perception Encoder)"},
    {{"norm_pre.weight"}, {"norm.weight"}, "rotary positions (Perception Encoder)"},
    {{"blocks.%zu.gamma_1", "reg_token"}, {"cls_token", "pos_embed"}, "rotary positions other than DINOv3's"},
    {{"fc_norm.weight"}, {"cls_token", "reg_token"}, "norms behind its layers (vit_base_patch16_rpn_224)"},
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

/* Whether rest is this name with some block and one of the endings of a projection, a norm or an array. */
static bool is_name(const char *rest, const char *pattern, size_t length) {
  static const char *const endings[] = {"", ".weight", ".bias"};
  const char *end = pattern + length;
  for (; pattern < end && *pattern != '%'; pattern++, rest++) {
    if (*rest != *pattern) return false;
  }
  if (pattern < end) {
    const size_t digits = strspn(rest, "0123456789");
    pattern += strlen("%zu");
    rest += digits;
    if (digits == 0 || strncmp(rest, pattern, (size_t)(end - pattern)) != 0) return false;
    rest += end - pattern;
  }
  for (size_t i = 0; i < COUNT(endings); i++) {
    if (strcmp(rest, endings[i]) == 0) return true;
  }
  return false;
}

/* Length of the first name in a pattern. */
static size_t first_name(const char *pattern) {
  return strcspn(pattern, "|");
}

/* Whether the family reads tensors of this name. */
static bool is_of_family(const struct dli_vit_naming *n, const char *rest) {
  const struct dli_vit_pool_naming *p = &n->pool;
  const char *const patterns[] = {
      n->anchor,      n->patch_bias,  n->patch_norm, n->class_token, n->distillation_token,
      n->registers,   n->positions,   n->pre_norm,   n->norm,        n->norm1,
      n->norm2,       n->qkv,         n->query_bias, n->value_bias,  n->query,
      n->key,         n->value,       n->output,     n->scale1,      n->fc1,
      n->gate,        n->up,          n->fc2,        n->scale2,      n->inner_norm1,
      n->inner_norm2, p->norm_behind, p->probe,      p->query,       p->kv,
      p->qkv_weight,  p->qkv_bias,    p->output,     p->norm,        p->fc1,
      p->fc2,
  };
  for (size_t i = 0; i < COUNT(patterns); i++) {
    for (const char *at = patterns[i]; at && *at; at += strspn(at, "|")) {
      const size_t length = first_name(at);
      if (is_name(rest, at, length)) return true;
      at += length;
    }
  }
  return false;
}

static bool is_harmless(const struct dli_vit_names *names, const char *rest) {
  switch (names->family->id) {
    case DLORA_NAMING_TIMM:
      return is_listed(rest, harmless_timm, COUNT(harmless_timm));
    case DLORA_NAMING_HF_SIGLIP:
    case DLORA_NAMING_HF_AIMV2:
      return is_listed(rest, harmless_siglip, COUNT(harmless_siglip));
    default:
      return is_listed(rest, harmless_hugging_face, COUNT(harmless_hugging_face));
  }
}

static const struct dli_tensor *find_below(const struct dli_vit_names *names, const char *pattern) {
  char name[DLI_NAME_SIZE];
  dli_vit_name(names, name, pattern, 0, "");
  return dli_tensors_find(names->tensors, name);
}

static bool has_all(const struct dli_vit_names *names, const char *const *patterns, size_t count) {
  for (size_t i = 0; i < count && patterns[i]; i++) {
    if (!find_below(names, patterns[i])) return false;
  }
  return true;
}

static dlora_status refuse_disguised(const struct dli_vit_names *names) {
  for (size_t i = 0; names->family->id == DLORA_NAMING_TIMM && i < COUNT(disguised); i++) {
    const char *const *has = disguised[i].has, *const *lacks = disguised[i].lacks;
    if (!has_all(names, has, COUNT(disguised[i].has))) continue;
    if ((lacks[0] && find_below(names, lacks[0])) || (lacks[1] && find_below(names, lacks[1]))) continue;
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor %s %s %s: a Vision Transformer with %s is not supported",
                     dli_tensors_label(names->tensors), find_below(names, has[0])->name, has[1] ? "beside" : "without",
                     has[1] ? has[1] : lacks[0], disguised[i].what);
  }
  return DLORA_OK;
}

dlora_status dli_vit_names_check(const struct dli_vit_names *names, const bool *used) {
  const char *label = dli_tensors_label(names->tensors), *prefix = prefix_of(names);
  if (!used) DLI_TRY(refuse_disguised(names));
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
    if (is_harmless(names, rest) || (!used && is_of_family(names->naming, rest))) continue;
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

/* Whether the anchor of this row is that of an earlier one. */
static bool is_repeated(size_t family) {
  for (size_t i = 0; i < family; i++) {
    if (strcmp(dli_vit_families[i].names.anchor, dli_vit_families[family].names.anchor) == 0) return true;
  }
  return false;
}

/* All prefixes, and for each the first row of its anchor. */
static dlora_status find_prefixes(struct dli_vit_names *names, size_t rows[DLI_MAX_PREFIXES]) {
  const char *label = dli_tensors_label(names->tensors);
  for (size_t i = 0; i < dli_tensors_count(names->tensors); i++) {
    const char *name = dli_tensors_at(names->tensors, i)->name;
    for (size_t row = 0; row < dli_vit_num_families; row++) {
      size_t length;
      if (is_repeated(row) || !is_anchor(name, dli_vit_families[row].names.anchor, &length)) continue;
      if (length >= DLI_PREFIX_SIZE) {
        return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor names have a prefix of %zu bytes, at most %d are supported",
                         label, length, DLI_PREFIX_SIZE - 1);
      }
      if (names->num_prefixes == DLI_MAX_PREFIXES) {
        return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: holds more than %d Vision Transformers", label, DLI_MAX_PREFIXES);
      }
      memcpy(names->prefixes[names->num_prefixes], name, length);
      rows[names->num_prefixes++] = row;
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
                   "embeddings.patch_embeddings.projection.weight (Hugging Face) nor "
                   "embeddings.patch_embedding.weight (CLIP, SigLIP) is among its tensors%s",
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

/* The row from `row` on with the same anchor whose conditions hold; the last one of an anchor has none. */
static void choose_family(struct dli_vit_names *names, size_t row) {
  const char *anchor = dli_vit_families[row].names.anchor;
  for (; row < dli_vit_num_families; row++) {
    const struct dli_vit_family *family = &dli_vit_families[row];
    if (strcmp(family->names.anchor, anchor) != 0) continue;
    names->family = family;
    names->naming = &family->names;
    if (has_all(names, family->has, COUNT(family->has)) && !(family->lacks && find_below(names, family->lacks))) return;
  }
}

dlora_status dli_vit_names_find(struct dli_vit_names *out, const struct dli_tensors *tensors, const char *prefix) {
  struct dli_vit_names names = {.tensors = tensors, .chosen = prefix != NULL};
  const char *label = dli_tensors_label(tensors);
  char list[DLI_MAX_PREFIXES * (DLI_PREFIX_SIZE + 4)];
  size_t rows[DLI_MAX_PREFIXES];
  DLI_TRY(find_prefixes(&names, rows));
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
  choose_family(&names, rows[names.prefix]);
  *out = names;
  return DLORA_OK;
}

/* The first `length` bytes of the pattern with the block. */
static void write_name(const struct dli_vit_names *names, char out[DLI_NAME_SIZE], const char *pattern, size_t length,
                       size_t block, const char *suffix) {
  const char *mark = strstr(pattern, "%zu"), *end = pattern + length;
  int written;
  if (mark && mark < end) {
    written = snprintf(out, DLI_NAME_SIZE, "%s%.*s%zu%.*s%s", prefix_of(names), (int)(mark - pattern), pattern, block,
                       (int)(end - mark - 3), mark + 3, suffix);
  } else {
    written = snprintf(out, DLI_NAME_SIZE, "%s%.*s%s", prefix_of(names), (int)length, pattern, suffix);
  }
  DLI_ASSERT(written > 0 && written < DLI_NAME_SIZE);
}

void dli_vit_name(const struct dli_vit_names *names, char out[DLI_NAME_SIZE], const char *pattern, size_t block,
                  const char *suffix) {
  for (const char *at = pattern; *at; at += strspn(at, "|")) {
    const size_t length = first_name(at);
    write_name(names, out, at, length, block, suffix);
    if (dli_tensors_find(names->tensors, out)) return;
    at += length;
  }
  write_name(names, out, pattern, first_name(pattern), block, suffix);
}
