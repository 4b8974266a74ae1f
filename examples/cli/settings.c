/* Options of the command line that become options of the library.
 * SPDX-License-Identifier: Apache-2.0 */
#include "settings.h"

#include <stdio.h>
#include <string.h>

#define COUNT_MAX 1e9

void backbone_settings_init(backbone_settings *settings) {
  settings->path = NULL;
  settings->options = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
}

size_t backbone_settings_options(backbone_settings *settings, option *table) {
  dlora_model_options *to = &settings->options;
  const option entries[] = {
      {OPTION_HEADING, NULL, NULL, "Backbone:", 0, 0, NULL, false, NULL, NULL},
      {OPTION_TEXT, "backbone", "FILE", "pre-trained ViT as safetensors with timm or Hugging Face names", 0, 0, NULL,
       true, &settings->path, NULL},
      {OPTION_EMPTY, "prefix", "TEXT",
       "what precedes the backbone's tensor names, as 'teacher.'; needed where the file holds several (default: found)",
       0, 0, NULL, false, &to->prefix, NULL},
      {OPTION_SIZE, "image-size", "S",
       "pixels a side that images are resized to; a multiple of the patch size (default: what the checkpoint or the "
       "backbone says)",
       1, 8192, NULL, false, &to->image_size, NULL},
      {OPTION_SIZE, "num-heads", "H", "attention heads, where the backbone's metadata does not tell", 1, 1024, NULL,
       false, &to->num_heads, NULL},
      {OPTION_TRIPLE, "mean", "R,G,B", "of pixels in [0, 1], where the metadata is silent (default: 0.5 each)", -1e3,
       1e3, NULL, false, to->mean, NULL},
      {OPTION_TRIPLE, "std", "R,G,B", "standard deviation of pixels; needed together with --mean", 1e-6, 1e3, NULL,
       false, to->std, NULL},
      {OPTION_CHOICE, "products", "HOW",
       "products with the backbone's weights: blas (default), packed (float32, needs AVX-512) or bfloat16 (needs "
       "AVX512_BF16); the last two by oneDNN",
       0, 0, "blas|packed|bfloat16", false, &to->products, NULL},
  };
  memcpy(table, entries, sizeof entries);
  return sizeof entries / sizeof entries[0];
}

void learner_settings_init(learner_settings *settings) {
  memset(settings, 0, sizeof *settings);
  settings->values = (dlora_learner_options)DLORA_LEARNER_OPTIONS_INIT;
}

/* One row per member of dlora_learner_options that a user may set. */
typedef struct row {
  option_kind kind;
  const char *name;
  const char *argument;
  const char *help;
  double minimum;
  double maximum;
  const char *choices;
  const char *member;
  size_t offset;
  bool predicting; /* matters after learning too */
} row;

#define AT(member) #member, offsetof(dlora_learner_options, member)
static const row rows[] = {
    {OPTION_SIZE, "threads", "T", "0: all processors (default)", 0, 1024, NULL, AT(threads), true},
    {OPTION_SIZE, "micro-batch", "N", "images a thread runs at once; fewer need less memory (0: chosen)", 0, 4096, NULL,
     AT(micro_batch), true},
    {OPTION_CHOICE, "routing", "HOW",
     "how residual adapters are chosen: early, two-pass (default), energy, given or none", 0, 0,
     "early|two-pass|energy|given|none", AT(routing), true},
    {OPTION_CHOICE, "class-scores", "HOW", "class given the task from: head, statistics or both (default)", 0, 0,
     "head|statistics|both", AT(class_scores), true},
    {OPTION_REAL, "unknown-quantile", "Q", "share of known images that are not called unknown (default 0.95)", 1e-6,
     0.999999, NULL, AT(unknown_quantile), true},
    {OPTION_SEED, "seed", "R", "of the class order and everything else random (default 0)", 0, 9007199254740992.0, NULL,
     AT(seed), false},
    {OPTION_SIZE, "epochs", "E", "passes over each task's images (default: 4, or as many as make 36 steps)", 0, 1e6,
     NULL, AT(epochs), false},
    {OPTION_SIZE, "batch-size", "N", "images of one training step (default 16)", 1, 1e6, NULL, AT(batch_size), false},
    {OPTION_REAL, "learning-rate", "X", "default 0.0005", 0, 1e3, NULL, AT(learning_rate), false},
    {OPTION_CHOICE, "schedule", "S", "of the learning rate: cosine (default) or constant", 0, 0, "cosine|constant",
     AT(schedule), false},
    {OPTION_CHOICE, "optimizer", "O", "adam (default) or sgd", 0, 0, "adam|sgd", AT(optimizer), false},
    {OPTION_REAL, "momentum", "X", "of sgd (default 0.9)", 0, 1, NULL, AT(momentum), false},
    {OPTION_REAL, "weight-decay", "X", "default 0", 0, 1e3, NULL, AT(weight_decay), false},
    {OPTION_CHOICE, "flip", "HOW",
     "mirrored images: none, in training, or everywhere, in the statistics as well (default)", 0, 0,
     "none|training|everywhere", AT(flip), false},
    {OPTION_INT, "crop-padding", "N", "random shifts by up to N pixels (default 0)", 0, 4096, NULL, AT(crop_padding),
     false},
    {OPTION_REAL, "crop-scale", "X",
     "random parts of this share of an image's area to all of it; 1: none (default 0.85)", 1e-3, 1, NULL,
     AT(crop_scale), false},
    {OPTION_REAL, "jitter", "X", "brightness and contrast change by up to this share (default 0.3)", 0, 1, NULL,
     AT(jitter), false},
    {OPTION_REAL, "later-task-lr-scale", "X", "learning rate of tasks after the first, as a factor (default 1)", 0, 1e3,
     NULL, AT(later_task_lr_scale), false},
    {OPTION_REAL, "merge-decay", "X", "the t-th task's update counts t to the power of -X (default 1.5)", 0, 1e3, NULL,
     AT(merge_decay), false},
    {OPTION_REAL, "residual-merge-fraction", "X", "of the residual update, what every image sees (default 1)", 0, 1,
     NULL, AT(residual_merge_fraction), false},
    {OPTION_REAL, "loss-temperature", "X", "logits are divided by it in the training loss (default 3)", 1e-3, 1e3, NULL,
     AT(loss_temperature), false},
    {OPTION_SIZE, "rank-orthogonal", "R", "of the orthogonal adapters; 0: none (default 8)", 0, COUNT_MAX, NULL,
     AT(rank_orthogonal), false},
    {OPTION_SIZE, "rank-residual", "R", "of the residual adapters; 0: none (default 8)", 0, COUNT_MAX, NULL,
     AT(rank_residual), false},
    {OPTION_CHOICE, "residual-basis", "B", "in-new, in-used (default) or random", 0, 0, "in-new|in-used|random",
     AT(residual_basis), false},
    {OPTION_CHOICE, "loss-classes", "O",
     "cross-entropy over all classes so far (all, default) or over the task's (task)", 0, 0, "all|task",
     AT(loss_classes), false},
    {OPTION_SET, "sites", "LIST", "adapted projections: query,key,value,output,fc1,fc2 (default key,value)", 0, 0,
     "query|key|value|output|fc1|fc2", AT(sites), false},
    {OPTION_INT, "first-block", "B",
     "first adapted block; -2: the upper three quarters (default), -1: the upper half, 0: all", -2, 1e6, NULL,
     AT(first_block), false},
    {OPTION_INT, "num-blocks", "N", "adapted blocks from there; 0: up to the last (default)", 0, 1e6, NULL,
     AT(num_blocks), false},
    {OPTION_CHOICE, "feature-layers", "L",
     "features that statistics are kept on: at-middle (default), at-adapter or final", 0, 0,
     "at-adapter|final|at-middle", AT(feature_layers), false},
    {OPTION_CHOICE, "readout", "R", "gaussian (default) or random-projection", 0, 0, "gaussian|random-projection",
     AT(readout), false},
    {OPTION_SIZE, "random-features", "N", "width of the random projection (default 2000)", 1, 1e6, NULL,
     AT(random_features), false},
    {OPTION_REAL, "energy-threshold", "X", "share of input energy that a task keeps for itself (default 0.95)", 1e-6, 1,
     NULL, AT(energy_threshold), false},
    {OPTION_SIZE, "max-observed-images", "N", "images whose tokens enter the memory; 0: all (default)", 0, COUNT_MAX,
     NULL, AT(max_observed_images), false},
    {OPTION_CHOICE, "observed-tokens", "W", "all (default) or class", 0, 0, "all|class", AT(observed_tokens), false},
    {OPTION_ON, "train-orthogonal-a", NULL, "train A' too, its update projected", 0, 0, NULL, AT(train_orthogonal_a),
     false},
    {OPTION_OFF, "no-train-head", NULL, "keep the new classes' rows as the statistics give them", 0, 0, NULL,
     AT(train_head), false},
    {OPTION_OFF, "no-drift-compensation", NULL, "leave old statistics where they are", 0, 0, NULL,
     AT(drift_compensation), false},
    {OPTION_ON, "use-prior", NULL, "class frequencies count", 0, 0, NULL, AT(use_prior), false},
    {OPTION_REAL, "shrinkage", "X", "of the covariance; 0: from the number of images (default)", 0, 1e6, NULL,
     AT(shrinkage), false},
    {OPTION_REAL, "temperature", "X", "of the posterior until it is fitted (default 2)", 1e-6, 1e6, NULL,
     AT(temperature), false},
    {OPTION_REAL, "held-out", "X", "share of each task's images that calibrate (default 0.05)", 0, 0.5, NULL,
     AT(held_out), false},
    {OPTION_OFF, "no-untouched-baseline", NULL, "do not measure the untouched backbone beside it", 0, 0, NULL,
     AT(untouched_baseline), false},
};
#define NUM_ROWS (sizeof rows / sizeof rows[0])

size_t learner_settings_options(learner_settings *settings, bool learning, option *table) {
  size_t count = 0;
  table[count++] = (option){OPTION_HEADING, NULL, NULL, "Method:", 0, 0, NULL, false, NULL, NULL};
  if (learning) {
    table[count++] = (option){OPTION_CHOICE,
                              "preset",
                              "P",
                              "default, or paper: as the paper reads; other options change it",
                              0,
                              0,
                              "default|paper",
                              false,
                              &settings->preset,
                              &settings->preset_given};
    table[count++] = (option){
        OPTION_FLAG, "instant",          NULL, "train nothing: one pass learns the statistics (ranks 0)", 0, 0, NULL,
        false,       &settings->instant, NULL};
  }
  for (size_t i = 0; i < NUM_ROWS; i++) {
    const row *from = &rows[i];
    if (!learning && !from->predicting) continue;
    table[count++] = (option){from->kind,         from->name,    from->argument,
                              from->help,         from->minimum, from->maximum,
                              from->choices,      false,         (char *)&settings->values + from->offset,
                              &settings->given[i]};
  }
  return count;
}

static size_t kind_size(option_kind kind) {
  return kind == OPTION_SIZE ? sizeof(size_t) : kind == OPTION_SEED ? sizeof(uint64_t) : sizeof(int32_t);
}

bool learner_settings_apply(const learner_settings *settings, dlora_learner_options *options, problem *why) {
  _Static_assert(sizeof(float) == sizeof(int32_t), "kind_size counts on it");
  _Static_assert(NUM_ROWS <= SETTINGS_MAX, "SETTINGS_MAX is too small");
  if (settings->preset_given) {
    int32_t untouched_baseline = options->untouched_baseline;
    dlora_status status = settings->preset == 1 ? dlora_learner_options_paper(options, sizeof *options)
                                                : dlora_learner_options_init(options, sizeof *options);
    if (status != DLORA_OK) return settings_problem(why, "--preset");
    options->untouched_baseline = untouched_baseline;
  }
  if (settings->instant) options->rank_orthogonal = options->rank_residual = 0;
  for (size_t i = 0; i < NUM_ROWS; i++)
    if (settings->given[i])
      memcpy((char *)options + rows[i].offset, (const char *)&settings->values + rows[i].offset,
             kind_size(rows[i].kind));
  return true;
}

/* The switch for a member of the library's options, or NULL. */
static const char *switch_of(const char *member, size_t length) {
  static const char *const of_model[][2] = {{"num_heads", "num-heads"}, {"image_size", "image-size"},
                                            {"mean", "mean"},           {"std", "std"},
                                            {"products", "products"},   {"prefix", "prefix"}};
  for (size_t i = 0; i < sizeof of_model / sizeof of_model[0]; i++)
    if (strlen(of_model[i][0]) == length && strncmp(of_model[i][0], member, length) == 0) return of_model[i][1];
  for (size_t i = 0; i < NUM_ROWS; i++)
    if (strlen(rows[i].member) == length && strncmp(rows[i].member, member, length) == 0) return rows[i].name;
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

static double value_of(const row *from, const dlora_learner_options *options) {
  const char *at = (const char *)options + from->offset;
  size_t size = 0;
  uint64_t seed = 0;
  int32_t word = 0;
  float real = 0.0f;
  switch (from->kind) {
    case OPTION_SIZE:
      memcpy(&size, at, sizeof size);
      return (double)size;
    case OPTION_SEED:
      memcpy(&seed, at, sizeof seed);
      return (double)seed;
    case OPTION_REAL:
      memcpy(&real, at, sizeof real);
      return (double)real;
    default:
      memcpy(&word, at, sizeof word);
      return (double)word;
  }
}

size_t learner_settings_values(const dlora_learner_options *options, const char *names[SETTINGS_MAX],
                               double values[SETTINGS_MAX]) {
  size_t count = 0;
  for (size_t i = 0; i < NUM_ROWS; i++) {
    if (rows[i].offset == offsetof(dlora_learner_options, threads) ||
        rows[i].offset == offsetof(dlora_learner_options, micro_batch))
      continue;
    names[count] = rows[i].name;
    values[count++] = value_of(&rows[i], options);
  }
  return count;
}

bool learner_settings_check(const learner_settings *settings, const dlora_model *model, problem *why) {
  dlora_learner_options options = DLORA_LEARNER_OPTIONS_INIT;
  if (!learner_settings_apply(settings, &options, why)) return false;
  return dlora_learner_options_check(&options, model) == DLORA_OK || settings_problem(why, "options");
}
