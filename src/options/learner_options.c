/* The learner's options: defaults, the paper's preset, names, checks, comparison; all of them from the table.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "src/options/option_table.h"
#include "src/options/options.h"

static dlora_learner_options defaults(void) {
  dlora_learner_options options;
  memset(&options, 0, sizeof options); /* no member is left out, nor a byte between members */
  options.struct_size = sizeof options;
  for (size_t i = 0; i < dli_num_options(); i++) {
    dli_option_set_value(&dli_options[i], dli_options[i].default_value, &options);
  }
  return options;
}

dlora_status dlora_learner_options_init(dlora_learner_options *options, size_t size) {
  const dlora_learner_options full = defaults();
  return dli_struct_write("dlora_learner_options", options, size, &full, sizeof full);
}

dlora_status dlora_learner_options_paper(dlora_learner_options *options, size_t size) {
  dlora_learner_options full = defaults();
  for (size_t i = 0; i < dli_num_options(); i++) {
    dli_option_set_value(&dli_options[i], dli_options[i].paper_value, &full);
  }
  return dli_struct_write("dlora_learner_options", options, size, &full, sizeof full);
}

void dli_learner_options_default(dlora_learner_options *out) {
  *out = defaults();
}

dlora_status dli_learner_options_read(const dlora_learner_options *given, const dlora_learner_options *base,
                                      dlora_learner_options *out) {
  *out = base ? *base : defaults();
  return dli_options_read("dlora_learner_options", out, sizeof *out, given);
}

/* ---- by name ---- */

size_t dlora_option_count(void) {
  return dli_num_options();
}

dlora_status dlora_option_info_init(dlora_option_info *info, size_t size) {
  const dlora_option_info full = {.struct_size = sizeof full};
  return dli_struct_write("dlora_option_info", info, size, &full, sizeof full);
}

dlora_status dlora_option_get_info(size_t index, dlora_option_info *info) {
  DLI_REQUIRE(info);
  if (index >= dli_num_options()) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_option_get_info: index is %zu, there are %zu options", index,
                     dli_num_options());
  }
  const struct dli_option *o = &dli_options[index];
  const dlora_option_info full = {.struct_size = sizeof full,
                                  .name = o->name,
                                  .choices = o->choices,
                                  .help = o->help,
                                  .default_value = o->default_value,
                                  .paper_value = o->paper_value,
                                  .least = o->least,
                                  .greatest = o->greatest,
                                  .type = (int32_t)o->type,
                                  .scope = (int32_t)o->scope,
                                  .above_least = o->flags & DLI_OPTION_ABOVE_LEAST ? 1 : 0};
  return dli_struct_write("dlora_option_info", info, info->struct_size, &full, sizeof full);
}

static dlora_status find(const char *function, const char *name, const struct dli_option **out) {
  *out = dli_option_find(name);
  if (*out) return DLORA_OK;
  const char *nearest = dli_option_nearest(name);
  return dli_raise(DLORA_ERR_ARGUMENT, "%s: there is no option \"%.60s\"%s%s%s", function, name,
                   nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

dlora_status dlora_learner_options_set(dlora_learner_options *options, const char *name, const char *value) {
  DLI_REQUIRE(options);
  DLI_REQUIRE(name);
  DLI_REQUIRE(value);
  const struct dli_option *option;
  dlora_learner_options next;
  DLI_TRY(dli_learner_options_read(options, NULL, &next));
  DLI_TRY(find(__func__, name, &option));
  if (option->offset >= options->struct_size) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options_set: struct_size is %zu, which ends before %s",
                     options->struct_size, name);
  }
  DLI_TRY(dli_option_parse(option, value, &next));
  DLI_TRY(dli_option_check(option, &next));
  return dli_struct_write("dlora_learner_options", options, options->struct_size, &next, sizeof next);
}

dlora_status dlora_learner_options_get(const dlora_learner_options *options, const char *name, char *value,
                                       size_t size) {
  DLI_REQUIRE(options);
  DLI_REQUIRE(name);
  DLI_REQUIRE(value);
  const struct dli_option *option;
  dlora_learner_options known;
  char text[DLI_OPTION_TEXT];
  DLI_TRY(dli_learner_options_read(options, NULL, &known));
  DLI_TRY(find(__func__, name, &option));
  dli_option_format(option, &known, text);
  if (strlen(text) >= size) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options_get: %s takes %zu bytes, size is %zu", name,
                     strlen(text) + 1, size);
  }
  memcpy(value, text, strlen(text) + 1);
  return DLORA_OK;
}

/* ---- checks ---- */

/* bound: what the highest value is called */
static dlora_status at_most(const char *name, size_t value, size_t highest, const char *bound) {
  if (value <= highest) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is %zu, expected at most %s %zu", name, value, bound,
                   highest);
}

/* Some backbones have no class token. */
static dlora_status check_class_token(const dlora_learner_options *o, const struct dli_vit *vit) {
  const char *what = o->observed_tokens == DLORA_TOKENS_CLASS ? "observed_tokens is class"
                     : o->routing == DLORA_ROUTING_ENERGY     ? "routing is energy"
                                                              : NULL;
  if (!what || vit->has_class_token) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s, which reads class tokens, and the model has none",
                   what);
}

/* What depends on the model's geometry. */
static dlora_status check_geometry(const dlora_learner_options *o, const struct dli_vit *vit) {
  if (o->first_block >= (int32_t)vit->depth) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: first_block is %d, the model has %zu blocks",
                     (int)o->first_block, vit->depth);
  }
  if (o->num_blocks > (int32_t)vit->depth) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: num_blocks is %d, the model has %zu blocks",
                     (int)o->num_blocks, vit->depth);
  }
  DLI_TRY(at_most("rank_orthogonal", o->rank_orthogonal, vit->dim, "embed_dim"));
  DLI_TRY(at_most("rank_residual", o->rank_residual, vit->dim, "embed_dim"));
  if ((size_t)o->crop_padding >= vit->image_size) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: crop_padding is %d, the image size is %zu",
                     (int)o->crop_padding, vit->image_size);
  }
  return check_class_token(o, vit);
}

dlora_status dli_learner_options_check(const dlora_learner_options *o, const struct dli_vit *vit) {
  for (size_t i = 0; i < dli_num_options(); i++) DLI_TRY(dli_option_check(&dli_options[i], o));
  return vit ? check_geometry(o, vit) : DLORA_OK;
}

/* ---- comparison ---- */

const char *dli_learner_options_difference(const dlora_learner_options *a, const dlora_learner_options *b) {
  const bool projection = a->readout == DLORA_READOUT_RANDOM_PROJECTION;
  for (size_t i = 0; i < dli_num_options(); i++) {
    const struct dli_option *o = &dli_options[i];
    const bool fixed = o->flags & DLI_OPTION_WITH_PROJECTION ? projection : o->scope == DLORA_SCOPE_FIXED;
    if (fixed && !dli_option_equal(o, a, b)) return o->name;
  }
  return NULL;
}

const char *dli_learner_options_task_difference(const dlora_learner_options *a, const dlora_learner_options *b,
                                                bool same_machine) {
  for (size_t i = 0; i < dli_num_options(); i++) {
    const struct dli_option *o = &dli_options[i];
    if (!same_machine && (o->flags & DLI_OPTION_MACHINE)) continue;
    if (!dli_option_equal(o, a, b)) return o->name;
  }
  return NULL;
}

dlora_bank_options dli_bank_options_of(const dlora_learner_options *o, const dlora_allocator *allocator) {
  const dlora_bank_options options = {sizeof options, allocator,  o->optimizer, o->beta1,
                                      o->beta2,       o->epsilon, o->momentum,  o->weight_decay};
  return options;
}

dlora_predictor_options dli_predictor_options_of(const dlora_learner_options *o, const dlora_allocator *allocator,
                                                 int32_t readout) {
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.allocator = allocator;
  options.seed = o->seed;
  options.random_features = o->random_features;
  options.readout = readout;
  options.use_prior = o->use_prior;
  options.shrinkage = o->shrinkage;
  options.temperature = o->temperature;
  options.ridge = o->ridge;
  return options;
}
