/* Options of the command line that become options of the library.
 * SPDX-License-Identifier: Apache-2.0 */
#include "settings.h"

#include <stdio.h>
#include <string.h>

void backbone_settings_init(backbone_settings *settings) {
  settings->path = NULL;
  settings->options = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
}

size_t backbone_settings_options(backbone_settings *settings, option *table) {
  dlora_model_options *to = &settings->options;
  const option entries[] = {
      {OPTION_HEADING, NULL, NULL, "Backbone:", 0, 0, NULL, false, NULL, NULL},
      {OPTION_TEXT, "backbone", "FILE",
       "pre-trained ViT with timm or Hugging Face names: a safetensors file, or a folder as hubs ship them, whose "
       "config.json and preprocessor_config.json set what follows",
       0, 0, NULL, true, &settings->path, NULL},
      {OPTION_EMPTY, "prefix", "TEXT",
       "what precedes the backbone's tensor names, as 'teacher.'; needed where the file holds several (default: found)",
       0, 0, NULL, false, &to->prefix, NULL},
      {OPTION_SIZE, "image-size", "S",
       "pixels a side that images are resized to; a multiple of the patch size (default: what the checkpoint or the "
       "backbone says)",
       1, 8192, NULL, false, &to->image_size, NULL},
      {OPTION_SIZE, "num-heads", "H", "attention heads, where the backbone's files do not tell", 1, 1024, NULL, false,
       &to->num_heads, NULL},
      {OPTION_REAL, "eps", "X", "epsilon of the layer norms (default: as the backbone says, or its family's)", 1e-30,
       0.999, NULL, false, &to->layer_norm_eps, NULL},
      {OPTION_TRIPLE, "mean", "R,G,B", "of pixels in [0, 1]; needs --std (default: as the backbone says, or 0.5 each)",
       -1e3, 1e3, NULL, false, to->mean, NULL},
      {OPTION_TRIPLE, "std", "R,G,B", "standard deviation of pixels; needed together with --mean", 1e-6, 1e3, NULL,
       false, to->std, NULL},
      {OPTION_CHOICE, "pool", "P",
       "what of the tokens is the feature: class, mean-patches, mean-tokens, distilled, attention (default: as the "
       "backbone says)",
       0, 0, "class|mean-patches|mean-tokens|distilled|attention", false, &to->pool, NULL},
      {OPTION_CHOICE, "activation", "A",
       "of the MLPs: gelu, gelu-tanh, quick-gelu, swiglu (default: as the backbone says)", 0, 0,
       "gelu|gelu-tanh|quick-gelu|swiglu", false, &to->activation, NULL},
      {OPTION_CHOICE, "position-resampling", "RULE",
       "how positions come to another image size: timm, hugging-face (default: as the names of the tensors)", 0, 0,
       "timm|hugging-face", false, &to->position_resampling, NULL},
      {OPTION_CHOICE, "resize", "HOW",
       "squash: both sides of an image to S; crop: the shorter one, and the centre is cut out (default: as the "
       "backbone says)",
       0, 0, "squash|crop", false, &to->resize, NULL},
      {OPTION_CHOICE, "interpolation", "K", "of resizing: bicubic, bilinear (default: as the backbone says)", 0, 0,
       "bicubic|bilinear", false, &to->interpolation, NULL},
      {OPTION_REAL, "crop-fraction", "X", "share of the resized side that is kept (default: as the backbone says)",
       0.01, 1.0, NULL, false, &to->crop_fraction, NULL},
      {OPTION_TEXT, "adapter", "FOLDER", "a LoRA that PEFT has saved, merged into the backbone's weights", 0, 0, NULL,
       false, &to->adapter, NULL},
      {OPTION_CHOICE, "products", "HOW",
       "products with the backbone's weights: blas (default), packed (float32, needs AVX-512) or bfloat16 (needs "
       "AVX512_BF16); the last two by oneDNN",
       0, 0, "blas|packed|bfloat16", false, &to->products, NULL},
  };
  memcpy(table, entries, sizeof entries);
  return sizeof entries / sizeof entries[0];
}

/* ---- the library's table of options ---- */

static dlora_option_info info_at(size_t index) {
  dlora_option_info info;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  (void)dlora_option_get_info(index, &info); /* fails for no index below dlora_option_count */
  return info;
}

/* "batch_size" -> "batch-size" */
static void hyphenate(const char *name, char *out, size_t size) {
  size_t i = 0;
  for (; name[i] != '\0' && i + 1 < size; i++) out[i] = name[i] == '_' ? '-' : name[i];
  out[i] = '\0';
}

/* "a|b|c" -> "a, b, c" */
static void list_words(const char *words, char *out, size_t size) {
  size_t used = 0;
  for (size_t i = 0; words[i] != '\0' && used + 3 < size; i++) {
    if (words[i] == '|') {
      out[used++] = ',';
      out[used++] = ' ';
    } else {
      out[used++] = words[i];
    }
  }
  out[used] = '\0';
}

/* What the table of the command line points to; the same for every command. */
static struct {
  char name[48];
  char help[256];
} texts[SETTINGS_MAX];

static void describe(const dlora_option_info *info, bool flag, const dlora_learner_options *defaults, char *help,
                     size_t size) {
  char value[64] = "";
  char words[128] = "";
  (void)dlora_learner_options_get(defaults, info->name, value, sizeof value);
  if (flag) {
    snprintf(help, size, "%s%s", strcmp(value, "true") == 0 ? "do not " : "", info->help);
    return;
  }
  bool chosen = info->type == DLORA_OPTION_CHOICE || info->type == DLORA_OPTION_SET;
  if (chosen) list_words(info->choices, words, sizeof words);
  snprintf(help, size, "%s%s%s (default %s)", info->help, chosen ? ": " : "", words, value);
}

size_t library_options(dlora_learner_options *target, bool learning, bool *given, option *table) {
  static const char *const arguments[] = {"N", "N", "N", "X", NULL, "WORD", "LIST"};
  size_t count = 0;
  for (size_t i = 0; i < dlora_option_count() && i < SETTINGS_MAX; i++) {
    dlora_option_info info = info_at(i);
    if (!learning && info.scope != DLORA_SCOPE_PREDICTION && info.scope != DLORA_SCOPE_RUN_TIME) continue;
    char value[64] = "";
    (void)dlora_learner_options_get(target, info.name, value, sizeof value);
    bool flag = info.type == DLORA_OPTION_FLAG;
    bool on = strcmp(value, "true") == 0;
    size_t lead = (size_t)snprintf(texts[i].name, sizeof texts[i].name, "%s", flag && on ? "no-" : "");
    hyphenate(info.name, texts[i].name + lead, sizeof texts[i].name - lead);
    describe(&info, flag, target, texts[i].help, sizeof texts[i].help);
    table[count++] = (option){.kind = !flag ? OPTION_LIBRARY
                                      : on  ? OPTION_OFF
                                            : OPTION_ON,
                              .name = texts[i].name,
                              .argument = arguments[info.type],
                              .help = texts[i].help,
                              .choices = info.name,
                              .target = target,
                              .given = given == NULL ? NULL : &given[i]};
  }
  return count;
}

/* ---- settings of a learner ---- */

void learner_settings_init(learner_settings *settings) {
  memset(settings, 0, sizeof *settings);
  (void)dlora_learner_options_init(&settings->values, sizeof settings->values); /* fails for impossible sizes only */
}

size_t learner_settings_options(learner_settings *settings, bool learning, option *table) {
  size_t count = 0;
  table[count++] = (option){.kind = OPTION_HEADING, .help = "Method:"};
  if (learning) {
    table[count++] = (option){.kind = OPTION_CHOICE,
                              .name = "preset",
                              .argument = "P",
                              .help = "default, or paper: as the paper reads; other options change it",
                              .choices = "default|paper",
                              .target = &settings->preset,
                              .given = &settings->preset_given};
    table[count++] = (option){.kind = OPTION_FLAG,
                              .name = "instant",
                              .help = "train nothing: one pass learns the statistics (ranks 0)",
                              .target = &settings->instant};
  }
  return count + library_options(&settings->values, learning, settings->given, table + count);
}

bool learner_settings_apply(const learner_settings *settings, dlora_learner_options *options, problem *why) {
  if (settings->preset_given) {
    /* The paper keeps no baseline; what learning gains is told of any preset. */
    int32_t untouched_baseline = options->untouched_baseline;
    dlora_status status = settings->preset == 1 ? dlora_learner_options_paper(options, sizeof *options)
                                                : dlora_learner_options_init(options, sizeof *options);
    if (status != DLORA_OK) return settings_problem(why, "--preset");
    options->untouched_baseline = untouched_baseline;
  }
  if (settings->instant) options->rank_orthogonal = options->rank_residual = 0;
  for (size_t i = 0; i < dlora_option_count() && i < SETTINGS_MAX; i++) {
    char value[64] = "";
    dlora_option_info info = info_at(i);
    if (settings->given[i] &&
        (dlora_learner_options_get(&settings->values, info.name, value, sizeof value) != DLORA_OK ||
         dlora_learner_options_set(options, info.name, value) != DLORA_OK))
      return settings_problem(why, "options");
  }
  return true;
}

/* The switch for a member of the library's options, or NULL. */
static const char *switch_of(const char *member, size_t length) {
  static const char *const of_model[][2] = {{"num_heads", "num-heads"},
                                            {"image_size", "image-size"},
                                            {"layer_norm_eps", "eps"},
                                            {"mean", "mean"},
                                            {"std", "std"},
                                            {"pool", "pool"},
                                            {"activation", "activation"},
                                            {"position_resampling", "position-resampling"},
                                            {"resize", "resize"},
                                            {"interpolation", "interpolation"},
                                            {"crop_fraction", "crop-fraction"},
                                            {"products", "products"},
                                            {"prefix", "prefix"},
                                            {"adapter", "adapter"}};
  for (size_t i = 0; i < sizeof of_model / sizeof of_model[0]; i++)
    if (strlen(of_model[i][0]) == length && strncmp(of_model[i][0], member, length) == 0) return of_model[i][1];
  for (size_t i = 0; i < dlora_option_count() && i < SETTINGS_MAX; i++) {
    const char *name = info_at(i).name;
    if (strlen(name) != length || strncmp(name, member, length) != 0) continue;
    if (texts[i].name[0] == '\0') hyphenate(name, texts[i].name, sizeof texts[i].name);
    return texts[i].name;
  }
  return NULL;
}

void settings_name_switches(problem *why) {
  static const char *const leads[] = {"the option ", "dlora_learner_options: ", "dlora_model_options: "};
  const problem before = *why;
  size_t used = 0;
  for (const char *at = before.text; *at != '\0' && used + 1 < sizeof why->text;) {
    const char *name = NULL;
    size_t lead = 0, length = 0;
    for (size_t i = 0; name == NULL && i < sizeof leads / sizeof leads[0]; i++) {
      lead = strlen(leads[i]);
      if (strncmp(at, leads[i], lead) != 0) continue;
      length = strspn(at + lead, "abcdefghijklmnopqrstuvwxyz0123456789_");
      name = switch_of(at + lead, length);
    }
    if (name == NULL) {
      why->text[used++] = *at++;
      continue;
    }
    int written = snprintf(why->text + used, sizeof why->text - used, "--%s", name);
    used += (size_t)written;
    at += lead + length;
  }
  why->text[used < sizeof why->text ? used : sizeof why->text - 1] = '\0';
}

bool settings_problem(problem *why, const char *doing) {
  problem_set_library(why, doing);
  settings_name_switches(why);
  return false;
}

size_t learner_settings_texts(const dlora_learner_options *options, const char *names[SETTINGS_MAX],
                              char values[SETTINGS_MAX][64]) {
  size_t count = 0;
  for (size_t i = 0; i < dlora_option_count() && i < SETTINGS_MAX; i++) {
    dlora_option_info info = info_at(i);
    if (info.scope == DLORA_SCOPE_RUN_TIME) continue;
    values[count][0] = '\0';
    (void)dlora_learner_options_get(options, info.name, values[count], sizeof values[count]);
    names[count++] = texts[i].name[0] != '\0' ? texts[i].name : info.name;
  }
  return count;
}

bool learner_settings_check(const learner_settings *settings, const dlora_model *model, problem *why) {
  dlora_learner_options options;
  (void)dlora_learner_options_init(&options, sizeof options);
  if (!learner_settings_apply(settings, &options, why)) return false;
  return dlora_learner_options_check(&options, model) == DLORA_OK || settings_problem(why, "options");
}
