/* What config.json and preprocessor_config.json say of a Vision Transformer, in the forms of transformers and of timm:
 * settings that neither options nor metadata gave, and claims that the tensors must bear out. What would change the
 * features and cannot be computed is refused by its name.
 * SPDX-License-Identifier: Apache-2.0 */
#include <cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "io/json_file.h"
#include "vit/settings.h"

#define CONFIG "config.json"
#define PREPROCESSOR "preprocessor_config.json"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* An object of one of the two files. */
struct source {
  struct dli_settings *settings;
  const char *label; /* of the weights, for sentences */
  const char *file;
  const char *path; /* of the object in the file, as "vision_config." */
  const cJSON *object;
};

static dlora_status member(const struct source *s, const char *key, const cJSON **out) {
  char label[512];
  snprintf(label, sizeof label, "%.400s: %s", s->label, s->file);
  return dli_json_member(s->object, key, label, out);
}

static void place_of(const struct source *s, const char *key, char out[DLI_PLACE_SIZE]) {
  snprintf(out, DLI_PLACE_SIZE, "%s: %s%s", s->file, s->path, key);
}

/* The value as JSON, cut. */
static void show(const cJSON *value, char out[64]) {
  char text[256];
  cJSON_bool done = false;
  if (cJSON_IsString(value)) {
    snprintf(out, 64, "\"%.56s\"", value->valuestring);
    return;
  }
  if (!cJSON_IsArray(value) && !cJSON_IsObject(value))
    done = cJSON_PrintPreallocated((cJSON *)(uintptr_t)value, text, sizeof text, false);
  snprintf(out, 64, "%.60s", done ? text : cJSON_IsArray(value) ? "a list" : "an object");
}

static dlora_status refuse(const struct source *s, const char *key, const cJSON *value, const char *expected) {
  char shown[64];
  show(value, shown);
  return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: %s: %s%s is %s, %s", s->label, s->file, s->path, key, shown, expected);
}

/* ---- values of an expected kind ---- */

static bool is_whole(const cJSON *value, double least) {
  const double number = cJSON_IsNumber(value) ? value->valuedouble : -1.0;
  return number >= least && number <= 1e6 && number == floor(number);
}

/* A whole number from least on; *found: there is one. */
static dlora_status read_whole(const struct source *s, const char *key, double least, size_t *out, bool *found) {
  const cJSON *value;
  DLI_TRY(member(s, key, &value));
  *found = value != NULL;
  if (!value) return DLORA_OK;
  if (!is_whole(value, least)) {
    char shown[64];
    show(value, shown);
    return dli_raise(DLORA_ERR_FORMAT, "%s: %s: %s%s is %s, expected a whole number from %g to 1000000", s->label,
                     s->file, s->path, key, shown, least);
  }
  *out = (size_t)value->valuedouble;
  return DLORA_OK;
}

static dlora_status read_flag(const struct source *s, const char *key, bool *out, bool *found) {
  const cJSON *value;
  DLI_TRY(member(s, key, &value));
  *found = value != NULL;
  if (value && !cJSON_IsBool(value)) return refuse(s, key, value, "expected true or false");
  if (value) *out = cJSON_IsTrue(value);
  return DLORA_OK;
}

/* A text; *out is NULL where there is none. */
static dlora_status read_text(const struct source *s, const char *key, const char **out) {
  const cJSON *value;
  *out = NULL;
  DLI_TRY(member(s, key, &value));
  if (value && !cJSON_IsString(value)) return refuse(s, key, value, "expected a text");
  if (value) *out = value->valuestring;
  return DLORA_OK;
}

static dlora_status fill_whole(const struct source *s, const char *key, enum dli_setting_id id) {
  char place[DLI_PLACE_SIZE];
  size_t value = 0;
  bool found;
  if (s->settings->of[id].set) return DLORA_OK;
  DLI_TRY(read_whole(s, key, 1.0, &value, &found));
  place_of(s, key, place);
  if (found) dli_settings_fill(s->settings, id, DLORA_ORIGIN_JSON, place, (double[]){(double)value});
  return DLORA_OK;
}

/* Finite numbers, count of them in a list, or one alone. */
static dlora_status fill_numbers(const struct source *s, const char *key, enum dli_setting_id id, size_t count) {
  char place[DLI_PLACE_SIZE];
  const cJSON *value;
  double numbers[3];
  size_t given = 0;
  if (s->settings->of[id].set) return DLORA_OK;
  DLI_TRY(member(s, key, &value));
  if (!value) return DLORA_OK;
  const cJSON *item = count > 1 && cJSON_IsArray(value) ? value->child : count > 1 ? NULL : value;
  for (; item && given < count && cJSON_IsNumber(item) && isfinite(item->valuedouble); item = item->next) {
    numbers[given++] = item->valuedouble;
    if (count == 1) break;
  }
  if (given < count || (count > 1 && item)) {
    return refuse(s, key, value, count > 1 ? "expected a list of 3 finite numbers" : "expected a finite number");
  }
  place_of(s, key, place);
  dli_settings_fill(s->settings, id, DLORA_ORIGIN_JSON, place, numbers);
  return DLORA_OK;
}

/* A word of the setting, of these where values are not NULL. */
static dlora_status fill_word(const struct source *s, const char *key, enum dli_setting_id id, const char *const *words,
                              size_t count) {
  char place[DLI_PLACE_SIZE], expected[96];
  const char *text;
  int32_t value;
  bool known = words == NULL;
  if (s->settings->of[id].set) return DLORA_OK;
  DLI_TRY(read_text(s, key, &text));
  if (!text) return DLORA_OK;
  for (size_t i = 0; !known && i < count; i++) known = strcmp(text, words[i]) == 0;
  if (known && dli_setting_parse(id, text, &value)) {
    place_of(s, key, place);
    s->settings->pool_is_token |= id == DLI_SET_POOL && strcmp(text, "token") == 0;
    dli_settings_fill(s->settings, id, DLORA_ORIGIN_JSON, place, (double[]){(double)value});
    return DLORA_OK;
  }
  const cJSON *item;
  DLI_TRY(member(s, key, &item));
  snprintf(expected, sizeof expected, "which is not supported; the option %s sets another one", dli_setting_name(id));
  return refuse(s, key, item, expected);
}

static dlora_status claim(const struct source *s, const char *key, enum dli_claim_id id, double least) {
  struct dli_claim *to = &s->settings->claims[id];
  const cJSON *item;
  size_t value = 0;
  bool found;
  DLI_TRY(member(s, key, &item));
  if (cJSON_IsArray(item)) return DLORA_OK; /* patches of two sides, which the tensors tell to be equal */
  DLI_TRY(read_whole(s, key, least, &value, &found));
  if (!found) return DLORA_OK;
  to->made = true;
  to->value = value;
  place_of(s, key, to->place);
  return DLORA_OK;
}

static void claim_default(const struct source *s, const char *key, const struct dli_known_type *type,
                          enum dli_claim_id id, size_t value) {
  struct dli_claim *to = &s->settings->claims[id];
  if (to->made) return;
  to->made = true;
  to->value = value;
  snprintf(to->place, sizeof to->place, "%s: %s%.24s, by default of %.24s,", s->file, s->path, key, type->name);
}

/* ---- what changes features ---- */

/* Attributes that must have this value where they are given: others are other networks. */
static dlora_status refuse_attributes(const struct source *s) {
  static const struct {
    const char *key;
    double value; /* true is 1 */
  } fixed[] = {
      {"num_channels", 3.0}, {"qk_norm", 0.0},         {"use_qk_norm", 0.0}, {"rope_theta", 100.0},
      {"in_chans", 3.0},     {"parallel_blocks", 0.0}, {"use_rope", 0.0},    {"use_post_norm", 0.0},
      {"norm_first", 1.0},   {"scale_attn_norm", 0.0}, {"attn_gate", 0.0},   {"vision_use_head", 1.0},
  };
  for (size_t i = 0; i < COUNT(fixed); i++) {
    const cJSON *value;
    char expected[64];
    DLI_TRY(member(s, fixed[i].key, &value));
    if (!value) continue;
    const double is = cJSON_IsNumber(value) ? value->valuedouble
                      : cJSON_IsBool(value) ? (double)cJSON_IsTrue(value)
                                            : -1.0;
    if (is == fixed[i].value) continue;
    snprintf(expected, sizeof expected, "and only %g is supported", fixed[i].value);
    return refuse(s, fixed[i].key, value, expected);
  }
  return DLORA_OK;
}

/* Whether the MLP is gated, which is in the tensors as well. DINOv2's does not read the activation then. */
static dlora_status read_activation(const struct source *s, bool *gated) {
  static const char *const flags[] = {"use_gated_mlp", "use_swiglu_ffn"};
  struct dli_claim *to = &s->settings->claims[DLI_CLAIM_GATED];
  bool is[2] = {false, false}, found;
  for (size_t i = 0; i < COUNT(flags); i++) {
    DLI_TRY(read_flag(s, flags[i], &is[i], &found));
    if (!found) continue;
    to->made = true;
    to->value = is[i];
    place_of(s, flags[i], to->place);
  }
  *gated = is[0] || is[1];
  return is[1] ? DLORA_OK : fill_word(s, "hidden_act", DLI_SET_ACTIVATION, NULL, 0);
}

/* ---- config.json of transformers ---- */

static const struct dli_known_type *find_type(const char *name) {
  for (size_t i = 0; i < dli_num_known_types; i++) {
    if (strcmp(dli_known_types[i].name, name) == 0) return &dli_known_types[i];
  }
  return NULL;
}

/* image_size: one number, or two equal ones. */
static dlora_status read_config_size(const struct source *s) {
  const cJSON *value;
  char place[DLI_PLACE_SIZE];
  if (s->settings->of[DLI_SET_IMAGE_SIZE].set) return DLORA_OK;
  DLI_TRY(member(s, "image_size", &value));
  const cJSON *side = cJSON_IsArray(value) ? value->child : value;
  if (!side) return DLORA_OK;
  if (!is_whole(side, 1.0) ||
      (cJSON_IsArray(value) && (!side->next || !cJSON_Compare(side, side->next, true) || side->next->next))) {
    return refuse(s, "image_size", value,
                  "expected one number of pixels for both sides; the option image_size sets it");
  }
  place_of(s, "image_size", place);
  dli_settings_fill(s->settings, DLI_SET_IMAGE_SIZE, DLORA_ORIGIN_JSON, place, &side->valuedouble);
  return DLORA_OK;
}

/* What a type's configuration has where the file leaves it out. */
static void fill_type(const struct source *s, const struct dli_known_type *type, bool gated) {
  struct dli_settings *to = s->settings;
  char place[DLI_PLACE_SIZE];
  snprintf(place, sizeof place, "%s: %smodel_type %.40s", s->file, s->path, type->name);
  /* Its number of heads is that of its own width. */
  if (!to->of[DLI_SET_NUM_HEADS].set) claim_default(s, "hidden_size", type, DLI_CLAIM_DIM, type->hidden_size);
  dli_settings_fill(to, DLI_SET_NUM_HEADS, DLORA_ORIGIN_TABLE, place, (double[]){(double)type->num_heads});
  dli_settings_fill(to, DLI_SET_LAYER_NORM_EPS, DLORA_ORIGIN_TABLE, place, (double[]){(double)type->layer_norm_eps});
  if (!gated)
    dli_settings_fill(to, DLI_SET_ACTIVATION, DLORA_ORIGIN_TABLE, place, (double[]){(double)type->activation});
  dli_settings_fill(to, DLI_SET_POOL, DLORA_ORIGIN_TABLE, place, (double[]){(double)type->pool});
  dli_settings_fill(to, DLI_SET_MEAN, DLORA_ORIGIN_TABLE, place,
                    (double[]){(double)type->mean[0], (double)type->mean[1], (double)type->mean[2]});
  dli_settings_fill(to, DLI_SET_STD, DLORA_ORIGIN_TABLE, place,
                    (double[]){(double)type->std[0], (double)type->std[1], (double)type->std[2]});
  dli_settings_fill(to, DLI_SET_POSITION_RESAMPLING, DLORA_ORIGIN_TABLE, place,
                    (double[]){(double)DLORA_POSITIONS_HUGGING_FACE});
}

static dlora_status read_transformers(struct source s, const char **type_name) {
  static const char *const towers[] = {"vision_config", "backbone_config", "encoder"};
  const struct dli_known_type *type = NULL;
  const cJSON *tower = NULL;
  const char *name;
  bool gated;
  DLI_TRY(read_text(&s, "model_type", type_name));
  for (size_t i = 0; !tower && i < COUNT(towers); i++) {
    DLI_TRY(member(&s, towers[i], &tower));
    if (!cJSON_IsObject(tower)) {
      tower = NULL;
      continue;
    }
    s.object = tower;
    s.path = i == 0 ? "vision_config." : i == 1 ? "backbone_config." : "encoder.";
    DLI_TRY(read_text(&s, "model_type", &name));
    if (name) *type_name = name;
  }
  if (*type_name) {
    type = find_type(*type_name);
    if (!type) {
      return dli_raise(DLORA_ERR_UNSUPPORTED,
                       "%s: %s: model_type %.60s is not one of those that are known (%.200s); to read the tensors for "
                       "what they are, give the file with the weights itself and set what it does not tell",
                       s.label, s.file, *type_name, dli_known_versions);
    }
  }
  DLI_TRY(refuse_attributes(&s));
  DLI_TRY(claim(&s, "hidden_size", DLI_CLAIM_DIM, 1.0));
  DLI_TRY(claim(&s, "num_hidden_layers", DLI_CLAIM_DEPTH, 1.0));
  DLI_TRY(claim(&s, "patch_size", DLI_CLAIM_PATCH_SIZE, 1.0));
  DLI_TRY(claim(&s, "num_register_tokens", DLI_CLAIM_REGISTERS, 0.0));
  DLI_TRY(claim(&s, "intermediate_size", DLI_CLAIM_MLP_DIM, 1.0));
  DLI_TRY(fill_whole(&s, "num_attention_heads", DLI_SET_NUM_HEADS));
  DLI_TRY(fill_numbers(&s, "layer_norm_eps", DLI_SET_LAYER_NORM_EPS, 1));
  DLI_TRY(fill_numbers(&s, "rms_norm_eps", DLI_SET_LAYER_NORM_EPS, 1));
  DLI_TRY(read_config_size(&s));
  DLI_TRY(read_activation(&s, &gated));
  if (type) fill_type(&s, type, gated);
  return DLORA_OK;
}

/* ---- preprocessor_config.json ---- */

/* Both sides of a size, or the shorter one: {"height": h, "width": w}, {"shortest_edge": e}, or a number, which is the
 * one or the other. 0: there is none. */
static dlora_status read_size(const struct source *s, const char *key, bool number_is_shorter, size_t *out,
                              bool *is_shorter) {
  const cJSON *value;
  bool found;
  size_t other = 0;
  *out = 0;
  DLI_TRY(member(s, key, &value));
  if (!value) return DLORA_OK;
  *is_shorter = number_is_shorter;
  if (!cJSON_IsObject(value)) return read_whole(s, key, 1.0, out, &found);
  char path[DLI_PLACE_SIZE];
  snprintf(path, sizeof path, "%s%s.", s->path, key);
  struct source in = *s;
  in.object = value;
  in.path = path;
  DLI_TRY(read_whole(&in, "shortest_edge", 1.0, out, &found));
  *is_shorter = found;
  if (found) return DLORA_OK;
  DLI_TRY(read_whole(&in, "height", 1.0, out, &found));
  DLI_TRY(read_whole(&in, "width", 1.0, &other, &found));
  if (*out == 0 || *out != other)
    return refuse(s, key, value, "expected the same height and width; the options image_size and resize set them");
  return DLORA_OK;
}

/* Size and resizing belong together: they are read unless both are set. A crop of another size than the images are
 * resized to is what crop_fraction is the ratio of. */
static dlora_status read_resizing(const struct source *s, const char *type_name) {
  struct dli_settings *to = s->settings;
  size_t resized = 0, cropped = 0;
  bool is_shorter = false, unused, crops = false, resizes = true, found;
  const char *kind;
  char size_place[DLI_PLACE_SIZE], crop_place[DLI_PLACE_SIZE];
  if (to->of[DLI_SET_IMAGE_SIZE].set && to->of[DLI_SET_RESIZE].set) return DLORA_OK;
  DLI_TRY(read_flag(s, "do_resize", &resizes, &found));
  DLI_TRY(read_flag(s, "do_center_crop", &crops, &found));
  DLI_TRY(read_text(s, "image_processor_type", &kind));
  if (!kind) DLI_TRY(read_text(s, "feature_extractor_type", &kind));
  /* Of CLIP alone a plain number is the shorter side. */
  const bool clip =
      (kind && strncmp(kind, "CLIP", 4) == 0) || (!kind && type_name && strncmp(type_name, "clip", 4) == 0);
  DLI_TRY(read_size(s, "size", clip, &resized, &is_shorter));
  if (crops) DLI_TRY(read_size(s, "crop_size", false, &cropped, &unused));
  if (!resizes || resized == 0) return DLORA_OK;
  place_of(s, "size", size_place);
  place_of(s, "crop_size", crop_place);
  if (cropped > resized) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: %s: crop_size is %zu, more than the size %zu that images are resized to; "
                     "the options image_size and resize set others",
                     s->label, s->file, cropped, resized);
  }
  const size_t side = cropped > 0 ? cropped : resized;
  const int32_t resize = is_shorter ? DLORA_RESIZE_CROP : DLORA_RESIZE_SQUASH;
  const bool fits = !to->of[DLI_SET_RESIZE].set || to->options.resize == resize;
  dli_settings_fill(to, DLI_SET_IMAGE_SIZE, DLORA_ORIGIN_JSON, cropped > 0 ? crop_place : size_place,
                    (double[]){(double)side});
  dli_settings_fill(to, DLI_SET_RESIZE, DLORA_ORIGIN_JSON, size_place, (double[]){(double)resize});
  /* A fraction of another way of resizing would be another one. */
  if (fits) {
    dli_settings_fill(to, DLI_SET_CROP_FRACTION, DLORA_ORIGIN_JSON, cropped > 0 ? crop_place : size_place,
                      (double[]){(double)side / (double)resized});
  }
  return DLORA_OK;
}

/* PIL's numbers of kernels. */
static dlora_status read_resample(const struct source *s) {
  const cJSON *value;
  char place[DLI_PLACE_SIZE];
  if (s->settings->of[DLI_SET_INTERPOLATION].set) return DLORA_OK;
  DLI_TRY(member(s, "resample", &value));
  if (!value) return DLORA_OK;
  const double kernel = cJSON_IsNumber(value) ? value->valuedouble : -1.0;
  if (kernel != 2.0 && kernel != 3.0) {
    return refuse(s, "resample", value,
                  "expected 2 (bilinear) or 3 (bicubic); the option interpolation sets another one");
  }
  place_of(s, "resample", place);
  dli_settings_fill(s->settings, DLI_SET_INTERPOLATION, DLORA_ORIGIN_JSON, place,
                    (double[]){kernel == 2.0 ? DLORA_INTERPOLATION_BILINEAR : DLORA_INTERPOLATION_BICUBIC});
  return DLORA_OK;
}

static dlora_status read_normalisation(const struct source *s) {
  static const double none[] = {0.0, 0.0, 0.0}, one[] = {1.0, 1.0, 1.0};
  const cJSON *factor;
  bool rescales = true, normalises = true, found;
  char place[DLI_PLACE_SIZE];
  if (s->settings->of[DLI_SET_MEAN].set && s->settings->of[DLI_SET_STD].set) return DLORA_OK;
  DLI_TRY(read_flag(s, "do_rescale", &rescales, &found));
  DLI_TRY(read_flag(s, "do_normalize", &normalises, &found));
  DLI_TRY(member(s, "rescale_factor", &factor));
  if (!rescales)
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: %s: do_rescale is false, expected pixels in [0, 1]; the options mean and std set other ones",
                     s->label, s->file);
  if (factor && !(cJSON_IsNumber(factor) && fabs(factor->valuedouble * 255.0 - 1.0) < 1e-4)) {
    return refuse(s, "rescale_factor", factor, "expected 1/255; the options mean and std set another one");
  }
  if (normalises) {
    DLI_TRY(fill_numbers(s, "image_mean", DLI_SET_MEAN, 3));
    return fill_numbers(s, "image_std", DLI_SET_STD, 3);
  }
  place_of(s, "do_normalize", place);
  dli_settings_fill(s->settings, DLI_SET_MEAN, DLORA_ORIGIN_JSON, place, none);
  dli_settings_fill(s->settings, DLI_SET_STD, DLORA_ORIGIN_JSON, place, one);
  return DLORA_OK;
}

static dlora_status read_preprocessor(struct source s, const char *type_name) {
  const cJSON *nested;
  DLI_TRY(member(&s, "image_processor", &nested)); /* of processors for images and text */
  if (cJSON_IsObject(nested)) {
    s.object = nested;
    s.path = "image_processor.";
  }
  DLI_TRY(read_normalisation(&s));
  DLI_TRY(read_resample(&s));
  return read_resizing(&s, type_name);
}

/* ---- config.json of timm ---- */

static const struct dli_known_architecture *find_architecture(const char *name) {
  const size_t length = strlen(name);
  for (size_t i = 0; length > 0 && !strchr(name, ' ') && i < dli_num_known_architectures; i++) {
    for (const char *at = dli_known_architectures[i].names; *at; at = strchr(at, ' ') + 1) {
      if (strncmp(at, name, length) == 0 && at[length] == ' ') return &dli_known_architectures[i];
    }
  }
  return NULL;
}

/* Arguments of timm's model that it is made with beyond those of its architecture. Others than these may change the
 * features in ways that tensors do not show. */
static dlora_status read_arguments(const struct source *s, bool *has_heads, bool *has_width) {
  static const char *const harmless[] = {
      "img_size",        "patch_size",      "in_chans",
      "num_classes",     "class_token",     "reg_tokens",
      "no_embed_class",  "init_values",     "dynamic_img_size",
      "dynamic_img_pad", "global_pool",     "act_layer",
      "embed_dim",       "depth",           "num_heads",
      "mlp_ratio",       "qkv_bias",        "proj_bias",
      "fc_norm",         "pre_norm",        "final_norm",
      "drop_rate",       "pos_drop_rate",   "patch_drop_rate",
      "proj_drop_rate",  "attn_drop_rate",  "drop_path_rate",
      "weight_init",     "strict_img_size", "pretrained_strict",
      "features_only",   "use_abs_pos_emb", "dynamic_mask",
      "num_reg_tokens",  "head_init_scale",
  };
  *has_heads = *has_width = false;
  if (!s->object) return DLORA_OK;
  for (const cJSON *item = s->object->child; item; item = item->next) {
    bool known = false;
    for (size_t i = 0; !known && i < COUNT(harmless); i++) known = strcmp(item->string, harmless[i]) == 0;
    if (!known && !cJSON_IsNull(item))
      return refuse(s, item->string, item, "an argument that may change the features and is not supported");
    if (strcmp(item->string, "num_heads") == 0) *has_heads = true;
    if (strcmp(item->string, "embed_dim") == 0) *has_width = true;
  }
  DLI_TRY(claim(s, "embed_dim", DLI_CLAIM_DIM, 1.0));
  DLI_TRY(claim(s, "depth", DLI_CLAIM_DEPTH, 1.0));
  DLI_TRY(claim(s, "patch_size", DLI_CLAIM_PATCH_SIZE, 1.0));
  DLI_TRY(claim(s, "reg_tokens", DLI_CLAIM_REGISTERS, 0.0));
  DLI_TRY(fill_whole(s, "num_heads", DLI_SET_NUM_HEADS));
  return fill_word(s, "act_layer", DLI_SET_ACTIVATION, NULL, 0);
}

static dlora_status read_pool(const struct source *s) {
  static const char *const words[] = {"token", "avg", "map"};
  return fill_word(s, "global_pool", DLI_SET_POOL, words, COUNT(words));
}

/* input_size [channels, height, width] and how images get there. */
static dlora_status read_cfg(const struct source *s) {
  static const char *const kernels[] = {"bicubic", "bilinear"}, *const modes[] = {"center", "squash"};
  struct dli_settings *to = s->settings;
  const cJSON *size, *side = NULL;
  const char *mode;
  char place[DLI_PLACE_SIZE];
  DLI_TRY(fill_numbers(s, "mean", DLI_SET_MEAN, 3));
  DLI_TRY(fill_numbers(s, "std", DLI_SET_STD, 3));
  DLI_TRY(fill_word(s, "interpolation", DLI_SET_INTERPOLATION, kernels, COUNT(kernels)));
  DLI_TRY(member(s, "input_size", &size));
  if (size && !to->of[DLI_SET_IMAGE_SIZE].set) {
    if (cJSON_IsArray(size) && size->child) side = size->child->next;
    if (!side || size->child->valuedouble != 3.0 || !is_whole(side, 1.0) || !side->next || side->next->next ||
        !cJSON_Compare(side, side->next, true)) {
      return refuse(s, "input_size", size,
                    "expected three channels and equal sides; the option image_size sets another one");
    }
    place_of(s, "input_size", place);
    dli_settings_fill(to, DLI_SET_IMAGE_SIZE, DLORA_ORIGIN_JSON, place, &side->valuedouble);
  }
  /* A fraction belongs to its way of resizing, which is the centre's unless the file says another one. */
  const bool is_set = to->of[DLI_SET_RESIZE].set;
  DLI_TRY(fill_word(s, "crop_mode", DLI_SET_RESIZE, modes, COUNT(modes)));
  DLI_TRY(read_text(s, "crop_mode", &mode));
  const int32_t resize = mode && strcmp(mode, "squash") == 0 ? DLORA_RESIZE_SQUASH : DLORA_RESIZE_CROP;
  const cJSON *fraction;
  DLI_TRY(member(s, "crop_pct", &fraction));
  if (!fraction || (is_set && to->options.resize != resize)) return DLORA_OK;
  place_of(s, "crop_pct", place);
  dli_settings_fill(to, DLI_SET_RESIZE, DLORA_ORIGIN_JSON, place, (double[]){(double)resize});
  return fill_numbers(s, "crop_pct", DLI_SET_CROP_FRACTION, 1);
}

static void fill_architecture(const struct source *s, const struct dli_known_architecture *known, const char *name) {
  struct dli_settings *to = s->settings;
  char place[DLI_PLACE_SIZE];
  const double mean[] = {(double)known->mean[0], (double)known->mean[1], (double)known->mean[2]};
  const double std[] = {(double)known->std[0], (double)known->std[1], (double)known->std[2]};
  snprintf(place, sizeof place, "%s: architecture %.64s", s->file, name);
  if (!to->of[DLI_SET_NUM_HEADS].set) {
    to->head_dim = known->head_dim;
    snprintf(to->head_place, sizeof to->head_place, "%s", place);
  }
  const bool is_set = to->of[DLI_SET_RESIZE].set;
  dli_settings_fill(to, DLI_SET_LAYER_NORM_EPS, DLORA_ORIGIN_TABLE, place, (double[]){(double)known->layer_norm_eps});
  dli_settings_fill(to, DLI_SET_MEAN, DLORA_ORIGIN_TABLE, place, mean);
  dli_settings_fill(to, DLI_SET_STD, DLORA_ORIGIN_TABLE, place, std);
  dli_settings_fill(to, DLI_SET_POOL, DLORA_ORIGIN_TABLE, place, (double[]){(double)known->pool});
  if (known->activation != DLORA_AUTO) {
    dli_settings_fill(to, DLI_SET_ACTIVATION, DLORA_ORIGIN_TABLE, place, (double[]){(double)known->activation});
  }
  dli_settings_fill(to, DLI_SET_INTERPOLATION, DLORA_ORIGIN_TABLE, place, (double[]){(double)known->interpolation});
  dli_settings_fill(to, DLI_SET_RESIZE, DLORA_ORIGIN_TABLE, place, (double[]){(double)known->resize});
  if (!is_set || to->options.resize == known->resize) {
    dli_settings_fill(to, DLI_SET_CROP_FRACTION, DLORA_ORIGIN_TABLE, place, (double[]){(double)known->crop_fraction});
  }
  dli_settings_fill(to, DLI_SET_POSITION_RESAMPLING, DLORA_ORIGIN_TABLE, place,
                    (double[]){(double)DLORA_POSITIONS_TIMM});
}

static dlora_status read_timm(const struct source *s, const char *architecture) {
  const struct dli_known_architecture *known = find_architecture(architecture);
  struct source arguments = *s, cfg = *s;
  const struct dli_settings *to = s->settings;
  bool has_heads, has_width;
  DLI_TRY(member(s, "model_args", &arguments.object));
  arguments.path = "model_args.";
  if (arguments.object && !cJSON_IsObject(arguments.object))
    return refuse(s, "model_args", arguments.object, "expected an object");
  DLI_TRY(read_arguments(&arguments, &has_heads, &has_width));
  DLI_TRY(member(s, "pretrained_cfg", &cfg.object));
  cfg.path = "pretrained_cfg.";
  if (!cJSON_IsObject(cfg.object)) cfg = *s; /* as older files have it */
  DLI_TRY(claim(s, "num_features", DLI_CLAIM_DIM, 1.0));
  DLI_TRY(read_pool(s));
  DLI_TRY(read_pool(&arguments));
  DLI_TRY(read_cfg(&cfg));
  if (known) {
    fill_architecture(s, known, architecture);
    /* The table's number of channels a head is that of the architecture's own width. */
    if (has_width && !has_heads) s->settings->head_dim = 0;
    return DLORA_OK;
  }
  const enum dli_setting_id needed[] = {DLI_SET_NUM_HEADS, DLI_SET_LAYER_NORM_EPS, DLI_SET_ACTIVATION, DLI_SET_POOL};
  for (size_t i = 0; i < COUNT(needed); i++) {
    if (to->of[needed[i]].set) continue;
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: %s: architecture %.80s is not one of those that are known (%.200s): set the option %s if its "
                     "tensors tell all the rest",
                     s->label, s->file, architecture, dli_known_versions, dli_setting_name(needed[i]));
  }
  return DLORA_OK;
}

dlora_status dli_settings_read_json(struct dli_settings *settings, const struct dli_model_files *files) {
  const char *label = dli_tensors_label(files->tensors), *architecture = NULL, *type_name = NULL;
  const struct source config = {settings, label, CONFIG, "", files->config};
  const struct source preprocessor = {settings, label, PREPROCESSOR, "", files->preprocessor};
  DLI_TRY(read_text(&config, "architecture", &architecture));
  if (architecture) return read_timm(&config, architecture);
  /* Images are made as the preprocessor says, whatever size the network was trained with. */
  if (files->config) DLI_TRY(read_text(&config, "model_type", &type_name));
  if (files->preprocessor) DLI_TRY(read_preprocessor(preprocessor, type_name));
  return files->config ? read_transformers(config, &type_name) : DLORA_OK;
}
