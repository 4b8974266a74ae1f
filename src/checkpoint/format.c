/* The format's name and the options of a learner's file.
 *
 * In duallora.learner.1 options are two arrays, I64 and F32, whose order is that of the tables below, the oldest file
 * having the fewest; numbers stood for "chosen by the library" that are now DLORA_AUTO.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/checkpoint/format.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "src/options/option_table.h"
#include "src/options/options.h"

const struct dli_checkpoint_names dli_names_now = {.used = "used"};
static const struct dli_checkpoint_names names_1 = {.statistics = {[DLI_BASE] = "plain", [DLI_UNTOUCHED] = "frozen"},
                                                    .used = "memory"};
static const char format_1[] = "duallora.learner.1", format_2[] = "duallora.learner.2";
static const char prefix[] = "option.";

static bool is_format(const struct dli_tensors *tensors, const char *format) {
  const char *found = dli_tensors_metadata(tensors, "format");
  return found && strcmp(found, format) == 0;
}

const char *dli_checkpoint_statistics_name(const struct dli_checkpoint_names *names, enum dli_statistics_kind kind) {
  return names->statistics[kind] ? names->statistics[kind] : dli_statistics_info[kind].name;
}

dlora_status dli_checkpoint_names(const struct dli_tensors *tensors, const struct dli_checkpoint_names **out) {
  *out = is_format(tensors, format_2) ? &dli_names_now : is_format(tensors, format_1) ? &names_1 : NULL;
  if (*out) return DLORA_OK;
  const char *found = dli_tensors_metadata(tensors, "format");
  return dli_raise(DLORA_ERR_FORMAT, "%s: format is %.60s, expected %s or %s", dli_tensors_label(tensors),
                   found ? found : "missing", format_2, format_1);
}

/* ---- duallora.learner.2 ---- */

dlora_status dli_options_write(const dlora_learner_options *options, struct dli_writer *writer) {
  char key[sizeof prefix + DLI_OPTION_TEXT], text[DLI_OPTION_TEXT];
  DLI_TRY(dli_writer_set_metadata(writer, "format", format_2));
  for (size_t i = 0; i < dli_num_options(); i++) {
    if (dli_options[i].flags & DLI_OPTION_UNSAVED) continue;
    snprintf(key, sizeof key, "%s%s", prefix, dli_options[i].name);
    dli_option_format(&dli_options[i], options, text);
    DLI_TRY(dli_writer_set_metadata(writer, key, text));
  }
  return DLORA_OK;
}

static dlora_status load_by_name(const struct dli_tensors *tensors, dlora_learner_options *out) {
  const char *label = dli_tensors_label(tensors);
  for (size_t i = 0; i < dli_tensors_metadata_count(tensors); i++) {
    const char *key, *value;
    dli_tensors_metadata_at(tensors, i, &key, &value);
    if (strncmp(key, prefix, sizeof prefix - 1) != 0) continue;
    const struct dli_option *option = dli_option_find(key + sizeof prefix - 1);
    if (!option) {
      return dli_raise(DLORA_ERR_UNSUPPORTED,
                       "%s: this library does not know the option %.60s: the file was saved by a newer one", label,
                       key + sizeof prefix - 1);
    }
    if (dli_option_parse(option, value, out) != DLORA_OK) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %.60s is \"%.60s\", which is no value of that option", label,
                       key, value);
    }
  }
  return DLORA_OK;
}

/* ---- duallora.learner.1 ---- */

static const char *const integers_1[] = {"seed",
                                         "micro_batch",
                                         "rank_orthogonal",
                                         "rank_residual",
                                         "epochs",
                                         "batch_size",
                                         "max_observed_images",
                                         "random_features",
                                         "sites",
                                         "first_block",
                                         "num_blocks",
                                         "feature_layers",
                                         "readout",
                                         "untouched_baseline",
                                         "residual_basis",
                                         "routing",
                                         "loss_classes",
                                         "class_scores",
                                         "train_head",
                                         "drift_compensation",
                                         "train_orthogonal_a",
                                         "observed_tokens",
                                         "optimizer",
                                         "schedule",
                                         "flip",
                                         "crop_padding",
                                         "use_prior"};
static const char *const floats_1[] = {"energy_threshold",
                                       "learning_rate",
                                       "beta1",
                                       "beta2",
                                       "epsilon",
                                       "momentum",
                                       "weight_decay",
                                       "shrinkage",
                                       "temperature",
                                       "held_out",
                                       "ridge",
                                       "unknown_quantile",
                                       "loss_temperature",
                                       "crop_scale",
                                       "jitter",
                                       "later_task_lr_scale",
                                       "residual_merge_fraction",
                                       "merge_decay"};
enum { NUM_INTEGERS_1 = sizeof integers_1 / sizeof *integers_1, NUM_FLOATS_1 = sizeof floats_1 / sizeof *floats_1 };

/* What a number of format 1 is called now, where its meaning was another one; or NULL. */
static const char *word_1(const char *name, double value) {
  const bool zero_was_auto = strcmp(name, "micro_batch") == 0 || strcmp(name, "shrinkage") == 0;
  if (zero_was_auto && value == 0.0) return "auto";
  if (strcmp(name, "epochs") == 0 && value == -1.0) return "auto";
  if (strcmp(name, "first_block") == 0 && value == -1.0) return "middle";
  if (strcmp(name, "first_block") == 0 && value == -2.0) return "auto";
  return NULL;
}

static dlora_status find_array(const struct dli_tensors *tensors, const char *name, enum dli_dtype dtype, size_t known,
                               const struct dli_tensor **out) {
  DLI_TRY(dli_tensors_require(tensors, name, dtype, 1, (size_t[]){SIZE_MAX}, out));
  if ((*out)->count <= known) return DLORA_OK;
  return dli_raise(DLORA_ERR_UNSUPPORTED,
                   "%s: tensor %s has %zu options, this library knows %zu: it was saved by a newer one",
                   dli_tensors_label(tensors), name, (*out)->count, known);
}

/* digits: the value exactly. */
static dlora_status load_number_1(const struct dli_tensors *tensors, const char *name, double value, const char *digits,
                                  dlora_learner_options *out) {
  const struct dli_option *option = dli_option_find(name);
  const bool counts =
      option->type == DLORA_OPTION_INTEGER || option->type == DLORA_OPTION_SIZE || option->type == DLORA_OPTION_SEED;
  const bool number = counts || option->type == DLORA_OPTION_FLOAT;
  const char *word = word_1(name, value);
  /* What has a name today was no value of format 1, and neither was a word beyond 32 bits. */
  const bool usable = word || (number ? value >= 0.0 : value >= INT32_MIN && value <= INT32_MAX);
  if (usable && (word || counts) && dli_option_parse(option, word ? word : digits, out) == DLORA_OK) return DLORA_OK;
  if (!usable || word || counts) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: option %s is %s", dli_tensors_label(tensors), name, digits);
  }
  dli_option_set_value(option, value, out);
  return DLORA_OK;
}

static dlora_status load_arrays(const struct dli_tensors *tensors, dlora_learner_options *out) {
  const struct dli_tensor *integers, *floats;
  int64_t i[NUM_INTEGERS_1];
  float f[NUM_FLOATS_1];
  char digits[64];
  DLI_TRY(find_array(tensors, "learner.options.integers", DLI_I64, NUM_INTEGERS_1, &integers));
  DLI_TRY(find_array(tensors, "learner.options.floats", DLI_F32, NUM_FLOATS_1, &floats));
  memcpy(i, integers->data, integers->count * sizeof *i);
  memcpy(f, floats->data, floats->count * sizeof *f);
  for (size_t k = 0; k < integers->count; k++) {
    const bool seed = strcmp(integers_1[k], "seed") == 0; /* the bits of a uint64_t */
    if (seed) snprintf(digits, sizeof digits, "%llu", (unsigned long long)i[k]);
    if (!seed) snprintf(digits, sizeof digits, "%lld", (long long)i[k]);
    DLI_TRY(load_number_1(tensors, integers_1[k], seed ? (double)(uint64_t)i[k] : (double)i[k], digits, out));
  }
  for (size_t k = 0; k < floats->count; k++) {
    snprintf(digits, sizeof digits, "%g", (double)f[k]);
    DLI_TRY(load_number_1(tensors, floats_1[k], (double)f[k], digits, out));
  }
  return DLORA_OK;
}

dlora_status dli_options_load(const struct dli_tensors *tensors, dlora_learner_options *out) {
  dli_learner_options_default(out);
  /* Options that the first files lack had these values then. */
  out->untouched_weight = 0.0f;
  out->routing = DLORA_ROUTING_TWO_PASS;
  return is_format(tensors, format_1) ? load_arrays(tensors, out) : load_by_name(tensors, out);
}
