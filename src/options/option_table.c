/* The table of options (docs/METHOD.md 10), and what follows from a row of it: value, check, text.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/options/option_table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"

/* Rows keep the order of dlora_learner_options. Here a member's type is told once more, beside its offset; a test sets
 * every option by name and compares with the struct. */
#define ROW(name, type, scope) #name, DLORA_OPTION_##type, DLORA_SCOPE_##scope, offsetof(dlora_learner_options, name)
#define SAME(value) value, value /* the paper's value is the default, or the paper has none */
#define CHOSEN(count) 0, (count)-1
#define TRUTH 0, 1, NULL
#define LONGEST_NAME 48 /* with room to mistype */

/* The longest line of help fits the command's --help and a table of docs/METHOD.md. */
const struct dli_option dli_options[] = {
    /* ---- fixed at creation ---- */
    {ROW(random_features, SIZE, FIXED), SAME(2000), 1, 1 << 16, NULL, DLI_OPTION_WITH_PROJECTION,
     "width of the random projection"},
    {ROW(sites, SET, FIXED), SAME(DLORA_SITE_KEY | DLORA_SITE_VALUE), 1, 63, "query|key|value|output|fc1|fc2", 0,
     "adapted projections"},
    {ROW(first_block, INTEGER, FIXED), DLORA_AUTO, 0, 0, INT32_MAX, "auto|middle", 0,
     "first adapted block; auto: depth / 4, middle: depth / 2"},
    {ROW(num_blocks, INTEGER, FIXED), SAME(0), 0, INT32_MAX, NULL, 0, "adapted blocks from there; 0: up to the last"},
    {ROW(feature_layers, CHOICE, FIXED), DLORA_FEATURE_LAYERS_AT_MIDDLE, DLORA_FEATURE_LAYERS_FINAL, CHOSEN(3),
     "at-adapter|final|at-middle", 0, "features that statistics are kept on"},
    {ROW(readout, CHOICE, FIXED), SAME(DLORA_READOUT_GAUSSIAN), CHOSEN(2), "gaussian|random-projection", 0,
     "how statistics become class scores"},
    {ROW(untouched_baseline, FLAG, TRAINING), 1, 0, TRUTH, 0,
     "keep statistics of the untouched backbone too, from the first task that trains"},
    {ROW(use_prior, FLAG, FIXED), SAME(0), TRUTH, 0, "class frequencies enter the posterior"},
    {ROW(shrinkage, FLOAT, FIXED), SAME(DLORA_AUTO), 0, 1e6, "auto", DLI_OPTION_ABOVE_LEAST,
     "shrinkage of the covariance; auto: from the number of images"},
    {ROW(temperature, FLOAT, FIXED), SAME(2), 0, 1e6, NULL, DLI_OPTION_ABOVE_LEAST,
     "temperature of the posterior until one is fitted"},
    {ROW(ridge, FLOAT, FIXED), SAME(0.01), 0, 1e6, NULL, DLI_OPTION_ABOVE_LEAST | DLI_OPTION_WITH_PROJECTION,
     "ridge of the random projection, relative to its Gram matrix's mean diagonal"},

    /* ---- training ---- */
    {ROW(seed, SEED, TRAINING), SAME(0), 0, 18446744073709551615.0, NULL, DLI_OPTION_WITH_PROJECTION,
     "seed of all random numbers"},
    {ROW(rank_orthogonal, SIZE, TRAINING), SAME(8), 0, INT32_MAX, NULL, 0, "rank of the orthogonal adapters; 0: none"},
    {ROW(rank_residual, SIZE, TRAINING), SAME(8), 0, INT32_MAX, NULL, 0, "rank of the residual adapters; 0: none"},
    {ROW(batch_size, SIZE, TRAINING), 16, 32, 1, 1 << 20, NULL, 0, "images of one optimizer step"},
    {ROW(max_observed_images, SIZE, TRAINING), SAME(0), 0, INT32_MAX, NULL, 0,
     "images whose tokens enter a task's second moments; 0: all"},
    {ROW(epochs, INTEGER, TRAINING), DLORA_AUTO, 4, 0, 1 << 20, "auto", 0,
     "passes over a task's images; 0: statistics alone; auto: 4, or as many as make 36 steps"},
    {ROW(residual_basis, CHOICE, TRAINING), DLORA_RESIDUAL_IN_USED, DLORA_RESIDUAL_IN_NEW, CHOSEN(3),
     "in-new|in-used|random", 0, "directions of the residual adapters"},
    {ROW(loss_classes, CHOICE, TRAINING), DLORA_LOSS_CLASSES_ALL, DLORA_LOSS_CLASSES_TASK, CHOSEN(2), "all|task", 0,
     "classes in the training softmax: all so far, or the task's"},
    {ROW(train_head, FLAG, TRAINING), SAME(1), TRUTH, 0, "train the new classes' rows together with the adapters"},
    {ROW(drift_compensation, FLAG, TRAINING), 1, 0, TRUTH, 0,
     "move the statistics of earlier tasks along with their features"},
    {ROW(train_orthogonal_a, FLAG, TRAINING), SAME(0), TRUTH, 0,
     "train A' too, from random rows, and project its updates"},
    {ROW(observed_tokens, CHOICE, TRAINING), DLORA_TOKENS_ALL, DLORA_TOKENS_CLASS, CHOSEN(2), "all|class", 0,
     "tokens that enter the second moments"},
    {ROW(optimizer, CHOICE, TRAINING), SAME(DLORA_OPTIMIZER_ADAM), CHOSEN(2), "adam|sgd", 0,
     "update rule of training; sgd has momentum"},
    {ROW(schedule, CHOICE, TRAINING), SAME(DLORA_SCHEDULE_COSINE), CHOSEN(2), "cosine|constant", 0,
     "learning rate over a task"},
    {ROW(flip, CHOICE, TRAINING), DLORA_FLIP_EVERYWHERE, DLORA_FLIP_TRAINING, CHOSEN(3), "none|training|everywhere", 0,
     "mirrored images: none, at random in training, or in the statistics as well"},
    {ROW(crop_padding, INTEGER, TRAINING), SAME(0), 0, INT32_MAX, NULL, 0, "random shifts by up to this many pixels"},
    {ROW(energy_threshold, FLOAT, TRAINING), SAME(0.95), 0, 1, NULL, DLI_OPTION_ABOVE_LEAST,
     "fraction of the input energy inside the used directions after a task"},
    {ROW(learning_rate, FLOAT, TRAINING), 5e-4, 1e-3, 0, 1e6, NULL, 0, "learning rate at the start of a task"},
    {ROW(beta1, FLOAT, TRAINING), SAME(0.9), 0, 0.9999999, NULL, 0, "Adam's decay of the mean gradient"},
    {ROW(beta2, FLOAT, TRAINING), SAME(0.999), 0, 0.9999999, NULL, 0, "Adam's decay of the mean square"},
    {ROW(epsilon, FLOAT, TRAINING), SAME(1e-8), 0, 1, NULL, DLI_OPTION_ABOVE_LEAST, "Adam's epsilon"},
    {ROW(momentum, FLOAT, TRAINING), SAME(0.9), 0, 0.9999999, NULL, 0, "momentum of sgd"},
    {ROW(weight_decay, FLOAT, TRAINING), SAME(0), 0, 1e6, NULL, 0, "decoupled weight decay of what is trained"},
    {ROW(held_out, FLOAT, TRAINING), SAME(0.05), 0, 0.5, NULL, 0,
     "fraction of a task's images excluded from training, which calibrate; 0: none"},
    {ROW(loss_temperature, FLOAT, TRAINING), 3, 1, 0, 1e6, NULL, DLI_OPTION_ABOVE_LEAST,
     "divides the logits in the training loss"},
    {ROW(crop_scale, FLOAT, TRAINING), 0.85, 1, 0, 1, NULL, DLI_OPTION_ABOVE_LEAST,
     "least fraction of an image's area in a random crop; 1: no crops"},
    {ROW(jitter, FLOAT, TRAINING), 0.3, 0, 0, 1, NULL, 0,
     "random changes of brightness and contrast by up to this part"},
    {ROW(later_task_lr_scale, FLOAT, TRAINING), SAME(1), 0, 1e6, NULL, 0,
     "factor of the learning rate in tasks after the first"},
    {ROW(residual_merge_fraction, FLOAT, TRAINING), 1, 0, 0, 1, NULL, 0,
     "fraction of the residual update merged into M, which every image sees"},
    {ROW(merge_decay, FLOAT, TRAINING), 1.5, 0, 0, 1e3, NULL, 0, "M gets t^-merge_decay of the t-th task's update"},

    /* ---- prediction ---- */
    {ROW(routing, CHOICE, PREDICTION), DLORA_ROUTING_NONE, DLORA_ROUTING_ENERGY, CHOSEN(5),
     "early|two-pass|energy|given|none", 0, "how the residual adapters that run are chosen"},
    {ROW(class_scores, CHOICE, PREDICTION), DLORA_CLASS_SCORES_BOTH, DLORA_CLASS_SCORES_HEAD, CHOSEN(3),
     "head|statistics|both", 0, "source of p(class | task) where residual adapters run"},
    {ROW(unknown_quantile, FLOAT, PREDICTION), SAME(0.95), 0, 0.999999, NULL, DLI_OPTION_ABOVE_LEAST,
     "fraction of known images that are not called unknown"},

    /* ---- run time ---- */
    {ROW(threads, INTEGER, RUN_TIME), SAME(DLORA_AUTO), 1, 1 << 12, "auto", DLI_OPTION_UNSAVED | DLI_OPTION_MACHINE,
     "threads that a call may use; auto: all processors"},
    {ROW(micro_batch, INTEGER, RUN_TIME), SAME(DLORA_AUTO), 1, 1 << 16, "auto", DLI_OPTION_MACHINE,
     "images that a thread runs at once: bounds memory, not results"},

    /* ---- added ---- */
    {ROW(untouched_weight, FLOAT, PREDICTION), DLORA_AUTO, 0, 0, 1, "auto", 0,
     "weight of the untouched backbone in predictions; auto: by evidence"},
};

size_t dli_num_options(void) {
  return sizeof dli_options / sizeof *dli_options;
}

const struct dli_option *dli_option_find(const char *name) {
  for (size_t i = 0; i < dli_num_options(); i++) {
    if (strcmp(dli_options[i].name, name) == 0) return &dli_options[i];
  }
  return NULL;
}

/* Levenshtein's distance: insertions, deletions and substitutions that turn a into b. '-' counts as '_', which it
 * stands for in the command's switches. Both are at most LONGEST_NAME long. */
static size_t edits_between(const char *a, const char *b) {
  size_t row[LONGEST_NAME + 1];
  const size_t columns = strlen(b);
  for (size_t j = 0; j <= columns; j++) row[j] = j;
  for (size_t i = 0; a[i]; i++) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < columns; j++) {
      const bool same = a[i] == b[j] || (a[i] == '-' && b[j] == '_');
      const size_t replaced = diagonal + (same ? 0 : 1), shorter = row[j] < row[j + 1] ? row[j] : row[j + 1];
      diagonal = row[j + 1];
      row[j + 1] = replaced <= shorter ? replaced : shorter + 1;
    }
  }
  return row[columns];
}

const char *dli_option_nearest(const char *name) {
  const char *nearest = NULL;
  const size_t length = strlen(name);
  if (length > LONGEST_NAME) return NULL;
  size_t least = length / 3 + 1; /* further off it would be a guess */
  for (size_t i = 0; i < dli_num_options(); i++) {
    const size_t edits = edits_between(name, dli_options[i].name);
    if (edits < least) {
      least = edits;
      nearest = dli_options[i].name;
    }
  }
  return nearest;
}

/* ---- values ---- */

/* The member, of whichever type. */
union member {
  int32_t integer;
  size_t size;
  uint64_t seed;
  float real;
};

static size_t width_of(const struct dli_option *option) {
  switch (option->type) {
    case DLORA_OPTION_SIZE:
      return sizeof(size_t);
    case DLORA_OPTION_SEED:
      return sizeof(uint64_t);
    case DLORA_OPTION_FLOAT:
      return sizeof(float);
    default:
      return sizeof(int32_t);
  }
}

static union member get(const struct dli_option *option, const dlora_learner_options *options) {
  union member member = {0};
  memcpy(&member, (const char *)options + option->offset, width_of(option));
  return member;
}

static void put(const struct dli_option *option, dlora_learner_options *options, union member member) {
  memcpy((char *)options + option->offset, &member, width_of(option));
}

double dli_option_value(const struct dli_option *option, const dlora_learner_options *options) {
  const union member member = get(option, options);
  switch (option->type) {
    case DLORA_OPTION_SIZE:
      return (double)member.size;
    case DLORA_OPTION_SEED:
      return (double)member.seed;
    case DLORA_OPTION_FLOAT:
      return (double)member.real;
    case DLORA_OPTION_FLAG:
      return member.integer != 0;
    default:
      return (double)member.integer;
  }
}

void dli_option_set_value(const struct dli_option *option, double value, dlora_learner_options *options) {
  union member member = {0};
  switch (option->type) {
    case DLORA_OPTION_SIZE:
      member.size = (size_t)value;
      break;
    case DLORA_OPTION_SEED:
      member.seed = (uint64_t)value;
      break;
    case DLORA_OPTION_FLOAT:
      member.real = (float)value;
      break;
    default:
      member.integer = (int32_t)value;
  }
  put(option, options, member);
}

bool dli_option_equal(const struct dli_option *option, const dlora_learner_options *a, const dlora_learner_options *b) {
  if (option->type == DLORA_OPTION_SEED) return get(option, a).seed == get(option, b).seed;
  return dli_option_value(option, a) == dli_option_value(option, b);
}

/* ---- words ---- */

/* The index-th of "first|second|third": *length, or NULL beyond the last. */
static const char *word_at(const char *words, size_t index, size_t *length) {
  const char *at = words;
  while (at && index--) {
    at = strchr(at, '|');
    if (at) at++;
  }
  *length = at ? strcspn(at, "|") : 0;
  return at;
}

static bool find_word(const char *words, const char *word, size_t word_length, size_t *index) {
  const char *at = NULL;
  size_t length = 0;
  for (*index = 0; (at = word_at(words, *index, &length)) != NULL; ++*index) {
    if (length == word_length && strncmp(at, word, length) == 0) return true;
  }
  return false;
}

static size_t count_words(const char *words) {
  size_t count = 0, length = 0;
  while (word_at(words, count, &length)) count++;
  return count;
}

static bool has_names(const struct dli_option *option) { /* of -1, -2 ... */
  return option->choices && (option->type == DLORA_OPTION_INTEGER || option->type == DLORA_OPTION_FLOAT);
}

static bool is_named(const struct dli_option *option, double value) {
  return has_names(option) && value < 0.0 && value == floor(value) && -value <= (double)count_words(option->choices);
}

/* ---- checks ---- */

static dlora_status refuse_range(const struct dli_option *option, const char *value) {
  char limits[96];
  if (option->type == DLORA_OPTION_FLOAT) {
    snprintf(limits, sizeof limits, "%s %g and at most %.7g",
             option->flags & DLI_OPTION_ABOVE_LEAST ? "above" : "at least", option->least, option->greatest);
  } else {
    snprintf(limits, sizeof limits, "%.0f to %.0f", option->least, option->greatest);
  }
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is %s, expected %s%s%s", option->name, value, limits,
                   has_names(option) ? " or " : "", has_names(option) ? option->choices : "");
}

dlora_status dli_option_check(const struct dli_option *option, const dlora_learner_options *options) {
  const double value = dli_option_value(option, options);
  char text[DLI_OPTION_TEXT];
  if (option->type == DLORA_OPTION_CHOICE || option->type == DLORA_OPTION_SET) {
    if (value >= option->least && value <= option->greatest) return DLORA_OK;
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is %.0f, expected %.0f to %.0f (%s)", option->name,
                     value, option->least, option->greatest, option->choices);
  }
  if (is_named(option, value) || option->type == DLORA_OPTION_FLAG) return DLORA_OK;
  /* Beside doubles the float nearest to a limit may lie beyond it: limits are those of the member's type. */
  const bool real = option->type == DLORA_OPTION_FLOAT;
  const double least = real ? (double)(float)option->least : option->least,
               greatest = real ? (double)(float)option->greatest : option->greatest;
  const bool high_enough = option->flags & DLI_OPTION_ABOVE_LEAST ? value > least : value >= least;
  if (high_enough && value <= greatest) return DLORA_OK; /* neither holds of NaN */
  dli_option_format(option, options, text);
  return refuse_range(option, text);
}

/* ---- text ---- */

static void format_set(const struct dli_option *option, int32_t bits, char *out) {
  size_t used = 0;
  for (size_t i = 0, length = 0; i < count_words(option->choices); i++) {
    const char *word = word_at(option->choices, i, &length);
    if (bits & (int32_t)1 << i) {
      used += (size_t)snprintf(out + used, DLI_OPTION_TEXT - used, "%s%.*s", used ? "," : "", (int)length, word);
    }
  }
}

void dli_option_format(const struct dli_option *option, const dlora_learner_options *options,
                       char out[DLI_OPTION_TEXT]) {
  const union member member = get(option, options);
  const double value = dli_option_value(option, options);
  size_t length = 0;
  out[0] = '\0';
  if (is_named(option, value)) {
    const char *word = word_at(option->choices, (size_t)-value - 1, &length);
    snprintf(out, DLI_OPTION_TEXT, "%.*s", (int)length, word);
    return;
  }
  switch (option->type) {
    case DLORA_OPTION_SIZE:
      snprintf(out, DLI_OPTION_TEXT, "%zu", member.size);
      break;
    case DLORA_OPTION_SEED:
      snprintf(out, DLI_OPTION_TEXT, "%llu", (unsigned long long)member.seed);
      break;
    case DLORA_OPTION_FLOAT:
      dli_float_format(member.real, out);
      break;
    case DLORA_OPTION_FLAG:
      snprintf(out, DLI_OPTION_TEXT, "%s", member.integer ? "true" : "false");
      break;
    case DLORA_OPTION_SET:
      format_set(option, member.integer, out);
      break;
    case DLORA_OPTION_CHOICE: {
      const char *word = member.integer < 0 ? NULL : word_at(option->choices, (size_t)member.integer, &length);
      if (word) snprintf(out, DLI_OPTION_TEXT, "%.*s", (int)length, word);
      break;
    }
    case DLORA_OPTION_INTEGER:
      snprintf(out, DLI_OPTION_TEXT, "%d", (int)member.integer);
  }
}

static bool parse_set(const struct dli_option *option, const char *text, int32_t *bits) {
  *bits = 0;
  for (const char *word = text;; word++) {
    const size_t length = strcspn(word, ",");
    size_t index = 0;
    if (!find_word(option->choices, word, length, &index)) return false;
    *bits |= (int32_t)1 << index;
    word += length;
    if (!*word) return true;
  }
}

static bool parse_truth(const char *text, int32_t *out) {
  *out = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
  return *out || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static bool parse_integer(const struct dli_option *option, const char *text, union member *out) {
  uint64_t digits = 0;
  bool negative = false;
  if (option->type == DLORA_OPTION_INTEGER) {
    if (!dli_integer_parse(text, &negative, &digits) || digits > INT32_MAX) return false;
    out->integer = negative ? -(int32_t)digits : (int32_t)digits;
    return true;
  }
  if (!dli_integer_parse(text, NULL, &digits) || (option->type == DLORA_OPTION_SIZE && digits > SIZE_MAX)) return false;
  if (option->type == DLORA_OPTION_SIZE) out->size = (size_t)digits;
  if (option->type == DLORA_OPTION_SEED) out->seed = digits;
  return true;
}

static bool parse_real(const char *text, float *out) {
  double value = 0.0;
  if (!dli_number_parse(text, &value) || fabs(value) > 3.4028234e38) return false;
  *out = (float)value;
  return true;
}

static bool parse(const struct dli_option *option, const char *text, union member *out) {
  size_t index = 0;
  if (has_names(option) && find_word(option->choices, text, strlen(text), &index)) {
    if (option->type == DLORA_OPTION_FLOAT) {
      out->real = -1.0f - (float)index;
    } else {
      out->integer = -1 - (int32_t)index;
    }
    return true;
  }
  switch (option->type) {
    case DLORA_OPTION_CHOICE:
      if (!find_word(option->choices, text, strlen(text), &index)) return false;
      out->integer = (int32_t)index;
      return true;
    case DLORA_OPTION_SET:
      return parse_set(option, text, &out->integer);
    case DLORA_OPTION_FLAG:
      return parse_truth(text, &out->integer);
    case DLORA_OPTION_FLOAT:
      return parse_real(text, &out->real);
    default:
      return parse_integer(option, text, out);
  }
}

dlora_status dli_option_parse(const struct dli_option *option, const char *text, dlora_learner_options *options) {
  static const char *const expected[] = {[DLORA_OPTION_INTEGER] = "a whole number",
                                         [DLORA_OPTION_SIZE] = "a whole number",
                                         [DLORA_OPTION_SEED] = "a whole number",
                                         [DLORA_OPTION_FLOAT] = "a number",
                                         [DLORA_OPTION_FLAG] = "true or false",
                                         [DLORA_OPTION_CHOICE] = "one of ",
                                         [DLORA_OPTION_SET] = "one or more, with commas between them, of "};
  union member member = {0};
  if (parse(option, text, &member)) {
    put(option, options, member);
    return DLORA_OK;
  }
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is \"%.60s\", expected %s%s%s", option->name, text,
                   expected[option->type], has_names(option) ? " or " : "", option->choices ? option->choices : "");
}
