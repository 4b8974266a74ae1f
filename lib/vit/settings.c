/* Settles what shapes do not tell of a Vision Transformer: for each setting the caller's option counts, then the file's
 * metadata, then the JSON files beside it, then the table of models that these name; what is left to the family is
 * settled where its tensors are read. Remembers who said what.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/settings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"

static const char *const names[DLI_NUM_SETTINGS] = {
    [DLI_SET_NUM_HEADS] = "num_heads",
    [DLI_SET_LAYER_NORM_EPS] = "layer_norm_eps",
    [DLI_SET_IMAGE_SIZE] = "image_size",
    [DLI_SET_MEAN] = "mean",
    [DLI_SET_STD] = "std",
    [DLI_SET_POOL] = "pool",
    [DLI_SET_ACTIVATION] = "activation",
    [DLI_SET_POSITION_RESAMPLING] = "position_resampling",
    [DLI_SET_RESIZE] = "resize",
    [DLI_SET_INTERPOLATION] = "interpolation",
    [DLI_SET_CROP_FRACTION] = "crop_fraction",
};

struct word {
  const char *text;
  int32_t value;
};

/* Of each value the first word is its name; others are what timm and transformers call it. */
static const struct word pools[] = {
    {"class", DLORA_POOL_CLASS},         {"token", DLORA_POOL_CLASS},
    {"cls", DLORA_POOL_CLASS},           {"mean-patches", DLORA_POOL_MEAN_PATCHES},
    {"avg", DLORA_POOL_MEAN_PATCHES},    {"mean-tokens", DLORA_POOL_MEAN_TOKENS},
    {"distilled", DLORA_POOL_DISTILLED}, {"attention", DLORA_POOL_ATTENTION},
    {"map", DLORA_POOL_ATTENTION},       {NULL, 0},
};
static const struct word activations[] = {
    {"gelu", DLORA_ACTIVATION_GELU},
    {"gelu_python", DLORA_ACTIVATION_GELU},
    {"gelu-tanh", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_tanh", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_new", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_fast", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_accurate", DLORA_ACTIVATION_GELU_TANH},
    {"gelu_pytorch_tanh", DLORA_ACTIVATION_GELU_TANH},
    {"quick-gelu", DLORA_ACTIVATION_QUICK_GELU},
    {"quick_gelu", DLORA_ACTIVATION_QUICK_GELU},
    {"quickgelu", DLORA_ACTIVATION_QUICK_GELU},
    {"swiglu", DLORA_ACTIVATION_SWIGLU},
    {"silu", DLORA_ACTIVATION_SWIGLU},
    {"swish", DLORA_ACTIVATION_SWIGLU},
    {NULL, 0},
};
static const struct word resamplings[] = {
    {"timm", DLORA_POSITIONS_TIMM}, {"hugging-face", DLORA_POSITIONS_HUGGING_FACE}, {NULL, 0}};
static const struct word resizes[] = {
    {"squash", DLORA_RESIZE_SQUASH}, {"crop", DLORA_RESIZE_CROP}, {"center", DLORA_RESIZE_CROP}, {NULL, 0}};
static const struct word interpolations[] = {
    {"bicubic", DLORA_INTERPOLATION_BICUBIC}, {"bilinear", DLORA_INTERPOLATION_BILINEAR}, {NULL, 0}};

static const struct word *words_of(enum dli_setting_id id) {
  switch (id) {
    case DLI_SET_POOL:
      return pools;
    case DLI_SET_ACTIVATION:
      return activations;
    case DLI_SET_POSITION_RESAMPLING:
      return resamplings;
    case DLI_SET_RESIZE:
      return resizes;
    default:
      DLI_ASSERT(id == DLI_SET_INTERPOLATION);
      return interpolations;
  }
}

/* The member of the options that a setting with words is. */
static int32_t *choice_of(dlora_model_options *options, enum dli_setting_id id) {
  switch (id) {
    case DLI_SET_POOL:
      return &options->pool;
    case DLI_SET_ACTIVATION:
      return &options->activation;
    case DLI_SET_POSITION_RESAMPLING:
      return &options->position_resampling;
    case DLI_SET_RESIZE:
      return &options->resize;
    default:
      DLI_ASSERT(id == DLI_SET_INTERPOLATION);
      return &options->interpolation;
  }
}

const char *dli_setting_name(enum dli_setting_id id) {
  return names[id];
}

const char *dli_setting_word(enum dli_setting_id id, int32_t value) {
  const struct word *word = words_of(id);
  while (word->text && word->value != value) word++;
  return word->text;
}

bool dli_setting_parse(enum dli_setting_id id, const char *text, int32_t *value) {
  for (const struct word *word = words_of(id); word->text; word++) {
    if (strcmp(word->text, text) != 0) continue;
    *value = word->value;
    return true;
  }
  return false;
}

/* ---- who said it ---- */

void dli_settings_take(struct dli_settings *settings, enum dli_setting_id id, int32_t origin, const char *place) {
  struct dli_setting *setting = &settings->of[id];
  if (setting->set) return;
  setting->set = true;
  setting->origin = origin;
  snprintf(setting->place, sizeof setting->place, "%s", place);
}

dlora_status dli_settings_blame(const struct dli_settings *settings, enum dli_setting_id id) {
  const struct dli_setting *setting = &settings->of[id];
  return setting->set && setting->origin == DLORA_ORIGIN_OPTION ? DLORA_ERR_ARGUMENT : DLORA_ERR_FORMAT;
}

const char *dli_settings_who(const struct dli_settings *settings, enum dli_setting_id id, char out[DLI_WHO_SIZE]) {
  const struct dli_setting *setting = &settings->of[id];
  if (setting->set && setting->origin == DLORA_ORIGIN_OPTION) {
    snprintf(out, DLI_WHO_SIZE, "the option %s", names[id]);
  } else if (setting->place[0]) {
    snprintf(out, DLI_WHO_SIZE, "%s", setting->place);
  } else {
    snprintf(out, DLI_WHO_SIZE, "%s", names[id]);
  }
  return out;
}

dlora_status dli_settings_check_claim(const struct dli_settings *settings, enum dli_claim_id id, const char *label,
                                      const char *what, size_t value) {
  const struct dli_claim *claim = &settings->claims[id];
  if (!claim->made || claim->value == value) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT,
                   "%s: %s is %zu, but its tensors have %s %zu: the two files are not of the same model", label,
                   claim->place, claim->value, what, value);
}

void dli_settings_fill(struct dli_settings *settings, enum dli_setting_id id, int32_t origin, const char *place,
                       const double *value) {
  dlora_model_options *options = &settings->options;
  if (settings->of[id].set) return;
  dli_settings_take(settings, id, origin, place);
  switch (id) {
    case DLI_SET_NUM_HEADS:
      options->num_heads = (size_t)value[0];
      return;
    case DLI_SET_IMAGE_SIZE:
      options->image_size = (size_t)value[0];
      return;
    case DLI_SET_LAYER_NORM_EPS:
      options->layer_norm_eps = (float)value[0];
      return;
    case DLI_SET_CROP_FRACTION:
      options->crop_fraction = (float)value[0];
      return;
    case DLI_SET_MEAN:
    case DLI_SET_STD:
      for (size_t c = 0; c < 3; c++) (id == DLI_SET_MEAN ? options->mean : options->std)[c] = (float)value[c];
      return;
    default:
      *choice_of(options, id) = (int32_t)value[0];
  }
}

/* ---- options ---- */

static void read_options(struct dli_settings *settings) {
  const dlora_model_options *o = &settings->options;
  const bool has_std = o->std[0] != 0.0f || o->std[1] != 0.0f || o->std[2] != 0.0f;
  const bool given[DLI_NUM_SETTINGS] = {
      [DLI_SET_NUM_HEADS] = o->num_heads != 0,
      [DLI_SET_LAYER_NORM_EPS] = o->layer_norm_eps != 0.0f,
      [DLI_SET_IMAGE_SIZE] = o->image_size != 0,
      [DLI_SET_MEAN] = has_std,
      [DLI_SET_STD] = has_std,
      [DLI_SET_POOL] = o->pool != DLORA_AUTO,
      [DLI_SET_ACTIVATION] = o->activation != DLORA_AUTO,
      [DLI_SET_POSITION_RESAMPLING] = o->position_resampling != DLORA_AUTO,
      [DLI_SET_RESIZE] = o->resize != DLORA_AUTO,
      [DLI_SET_INTERPOLATION] = o->interpolation != DLORA_AUTO,
      [DLI_SET_CROP_FRACTION] = o->crop_fraction != 0.0f,
  };
  for (int id = 0; id < DLI_NUM_SETTINGS; id++) {
    if (given[id]) dli_settings_take(settings, (enum dli_setting_id)id, DLORA_ORIGIN_OPTION, "");
  }
}

/* ---- metadata ---- */

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

static dlora_status metadata_numbers(struct dli_settings *settings, const struct dli_tensors *tensors,
                                     enum dli_setting_id id, const char *key, size_t count, bool whole) {
  const char *text = dli_tensors_metadata(tensors, key), *at = text;
  double values[3] = {0.0};
  char place[DLI_PLACE_SIZE];
  if (!text) return DLORA_OK;
  for (size_t i = 0; at && i < count; i++) {
    at = parse_number(at, &values[i]);
    if (at && !isfinite(values[i])) at = NULL;
  }
  while (at && (*at == ' ' || *at == ']')) at++;
  if (!at || *at) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is \"%.60s\", expected %zu number%s",
                     dli_tensors_label(tensors), key, text, count, count == 1 ? "" : "s");
  }
  if (whole && (values[0] < 1.0 || values[0] > 1e6 || values[0] != floor(values[0]))) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is %g, expected an integer from 1 to 1000000",
                     dli_tensors_label(tensors), key, values[0]);
  }
  snprintf(place, sizeof place, "metadata %s", key);
  dli_settings_fill(settings, id, DLORA_ORIGIN_METADATA, place, values);
  return DLORA_OK;
}

/* "a, b, c" of the names of all values. */
static void list_words(enum dli_setting_id id, char out[128]) {
  size_t used = 0;
  int32_t last = DLORA_AUTO;
  out[0] = '\0';
  for (const struct word *word = words_of(id); word->text; word++) {
    if (word->value == last) continue;
    used += (size_t)snprintf(out + used, 128 - used, "%s%s", used > 0 ? ", " : "", word->text);
    DLI_ASSERT(used < 128);
    last = word->value;
  }
}

static dlora_status metadata_word(struct dli_settings *settings, const struct dli_tensors *tensors,
                                  enum dli_setting_id id, const char *key) {
  const char *text = dli_tensors_metadata(tensors, key);
  char place[DLI_PLACE_SIZE], list[128];
  int32_t value;
  if (!text || settings->of[id].set) return DLORA_OK;
  if (dli_setting_parse(id, text, &value)) {
    snprintf(place, sizeof place, "metadata %s", key);
    settings->pool_is_token |= id == DLI_SET_POOL && strcmp(text, "token") == 0;
    dli_settings_fill(settings, id, DLORA_ORIGIN_METADATA, place, (double[]){(double)value});
    return DLORA_OK;
  }
  list_words(id, list);
  return dli_raise(DLORA_ERR_UNSUPPORTED,
                   "%s: metadata %s is \"%.60s\", expected one of %s; the option %s sets another one",
                   dli_tensors_label(tensors), key, text, list, names[id]);
}

static bool resize_is_another(const struct dli_settings *settings, const char *text) {
  int32_t value;
  return dli_setting_parse(DLI_SET_RESIZE, text, &value) && value != settings->options.resize;
}

static dlora_status read_metadata(struct dli_settings *settings, const struct dli_tensors *tensors) {
  static const struct {
    enum dli_setting_id id;
    const char *key; /* NULL: its name */
    size_t count;    /* of numbers; 0: a word */
    bool whole;
  } entries[] = {
      {DLI_SET_NUM_HEADS, NULL, 1, true},
      {DLI_SET_NUM_HEADS, "num_attention_heads", 1, true},
      {DLI_SET_LAYER_NORM_EPS, NULL, 1, false},
      {DLI_SET_IMAGE_SIZE, NULL, 1, true},
      {DLI_SET_MEAN, NULL, 3, false},
      {DLI_SET_STD, NULL, 3, false},
      {DLI_SET_POOL, NULL, 0, false},
      {DLI_SET_POOL, "global_pool", 0, false},
      {DLI_SET_ACTIVATION, "hidden_act", 0, false},
      {DLI_SET_ACTIVATION, NULL, 0, false},
      {DLI_SET_POSITION_RESAMPLING, NULL, 0, false},
      {DLI_SET_RESIZE, NULL, 0, false},
      {DLI_SET_INTERPOLATION, NULL, 0, false},
      {DLI_SET_CROP_FRACTION, NULL, 1, false},
  };
  const char *resize = dli_tensors_metadata(tensors, names[DLI_SET_RESIZE]);
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    const enum dli_setting_id id = entries[i].id;
    /* The file's fraction belongs to the file's way of resizing. */
    if (id == DLI_SET_CROP_FRACTION && resize && resize_is_another(settings, resize)) continue;
    const char *key = entries[i].key ? entries[i].key : names[id];
    DLI_TRY(entries[i].count == 0 ? metadata_word(settings, tensors, id, key)
                                  : metadata_numbers(settings, tensors, id, key, entries[i].count, entries[i].whole));
  }
  return DLORA_OK;
}

dlora_status dli_settings_read(struct dli_settings *out, const struct dli_model_files *files,
                               const dlora_model_options *options) {
  struct dli_settings settings = {.options = *options};
  read_options(&settings);
  DLI_TRY(read_metadata(&settings, files->tensors));
  DLI_TRY(dli_settings_read_json(&settings, files));
  *out = settings;
  return DLORA_OK;
}
