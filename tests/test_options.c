/* The learner's options: every one has its effect, presets and defaults are the documented ones, bad ones are named.
 * SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

static const int64_t four[] = {1, 2, 3, 4};
static dlora_model *model;

/* ---- every option learns two tasks, predicts sensibly, and matters ---- */

enum type { WORD, SIZE, REAL };
struct variant {
  const char *name;
  size_t offset;
  enum type type;
  double value;
};
#define SET(type, member, value) \
  { #member " = " #value, offsetof(dlora_learner_options, member), (type), (double)(value) }

static void apply(const struct variant *v, dlora_learner_options *options) {
  unsigned char *at = (unsigned char *)options + v->offset;
  const int32_t word = (int32_t)v->value;
  const size_t size = v->value < 0.0 ? 0 : (size_t)v->value;
  const float real = (float)v->value;
  if (v->type == WORD) memcpy(at, &word, sizeof word);
  if (v->type == SIZE) memcpy(at, &size, sizeof size);
  if (v->type == REAL) memcpy(at, &real, sizeof real);
}

/* Two tasks of two classes; log probabilities [80, 4] of unseen pictures, to be freed. */
static float *learn_and_ask(const dlora_learner_options *options, double *accuracy) {
  struct test_memory memory;
  dlora_learner_options counted = *options;
  test_memory_start(&memory);
  counted.allocator = &memory.allocator;
  dlora_learner *learner = test_learner(model, &counted);
  for (size_t t = 0; t < 2; t++) test_learn(learner, four + 2 * t, 2, 40, (uint32_t)t + 1, NULL);
  struct test_pictures p = test_pictures(four, 4, 20, 50);
  dlora_prediction predictions[80];
  float *log_probs = calloc(80 * 4, sizeof *log_probs);
  assert_non_null(log_probs);
  if (options->routing == DLORA_ROUTING_GIVEN) {
    int64_t tasks[80];
    size_t right = 0;
    for (size_t i = 0; i < 80; i++) tasks[i] = (int64_t)(i % 4) / 2;
    assert_status(DLORA_OK, dlora_learner_predict_with_tasks(learner, &p.images, tasks, predictions, log_probs));
    for (size_t i = 0; i < 80; i++) right += predictions[i].class_id == p.labels[i];
    *accuracy = (double)right / 80.0;
  } else {
    *accuracy = test_accuracy(learner, &p);
    assert_status(DLORA_OK, dlora_learner_predict(learner, &p.images, predictions, log_probs));
  }
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
  assert_int_equal(memory.live, 0);
  return log_probs;
}

static void every_option_learns_and_matters(void **state) {
  (void)state;
  enum { ALL_SITES = 63 };
  static const struct variant variants[] = {
      SET(WORD, routing, DLORA_ROUTING_EARLY),
      SET(WORD, routing, DLORA_ROUTING_TWO_PASS),
      SET(WORD, routing, DLORA_ROUTING_ENERGY),
      SET(WORD, routing, DLORA_ROUTING_GIVEN),
      SET(WORD, routing, DLORA_ROUTING_NONE),
      SET(WORD, residual_basis, DLORA_RESIDUAL_IN_NEW),
      SET(WORD, residual_basis, DLORA_RESIDUAL_IN_USED),
      SET(WORD, residual_basis, DLORA_RESIDUAL_RANDOM),
      SET(WORD, loss_classes, DLORA_LOSS_CLASSES_TASK),
      SET(WORD, feature_layers, DLORA_FEATURE_LAYERS_FINAL),
      SET(WORD, readout, DLORA_READOUT_RANDOM_PROJECTION),
      SET(WORD, observed_tokens, DLORA_TOKENS_CLASS),
      SET(WORD, optimizer, DLORA_OPTIMIZER_SGD),
      SET(WORD, schedule, DLORA_SCHEDULE_CONSTANT),
      SET(WORD, train_orthogonal_a, 1),
      SET(WORD, train_head, 0),
      SET(WORD, drift_compensation, 0),
      SET(WORD, flip, DLORA_FLIP_NONE),
      SET(WORD, flip, DLORA_FLIP_TRAINING),
      SET(WORD, crop_padding, 3),
      SET(REAL, loss_temperature, 1.0),
      SET(REAL, crop_scale, 1.0),
      SET(REAL, crop_scale, 0.2),
      SET(REAL, jitter, 0.0),
      SET(REAL, later_task_lr_scale, 0.2),
      SET(REAL, later_task_lr_scale, 0.0),
      SET(REAL, residual_merge_fraction, 0.0),
      SET(REAL, residual_merge_fraction, 0.5),
      SET(REAL, merge_decay, 0.0),
      SET(REAL, merge_decay, 2.0),
      SET(WORD, use_prior, 1),
      SET(WORD, sites, DLORA_SITE_QUERY),
      SET(WORD, sites, DLORA_SITE_OUTPUT),
      SET(WORD, sites, DLORA_SITE_FC1),
      SET(WORD, sites, DLORA_SITE_FC2),
      SET(WORD, sites, ALL_SITES),
      SET(WORD, first_block, 0),
      SET(WORD, first_block, VIT_DEPTH - 1),
      SET(WORD, num_blocks, 1),
      SET(SIZE, rank_orthogonal, 0),
      SET(SIZE, rank_residual, 0),
      SET(SIZE, rank_orthogonal, 8),
      SET(SIZE, rank_residual, VIT_DIM),
      SET(WORD, epochs, 0),
      SET(SIZE, batch_size, 5),
      SET(SIZE, max_observed_images, 10),
      SET(SIZE, seed, 12345),
      SET(REAL, energy_threshold, 0.5),
      SET(REAL, learning_rate, 1e-2),
      SET(REAL, beta1, 0.5),
      SET(REAL, beta2, 0.9),
      SET(REAL, epsilon, 1e-3),
      SET(REAL, weight_decay, 0.5),
      SET(REAL, shrinkage, 0.5),
      SET(REAL, held_out, 0.25),
      SET(REAL, untouched_weight, 0.5),
      SET(REAL, untouched_weight, 1.0),
  };
  double accuracy;
  size_t defaults = 0;
  dlora_learner_options base = test_quick_options();
  base.random_features = 200;
  base.untouched_weight = 0.0f; /* the untouched backbone alone does not depend on what trains */
  float *usual = learn_and_ask(&base, &accuracy);
  assert_true(accuracy > 0.6);
  for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
    dlora_learner_options options = base;
    apply(&variants[i], &options);
    if (memcmp(&options, &base, sizeof options) == 0) { /* the default */
      defaults++;
      continue;
    }
    float *found = learn_and_ask(&options, &accuracy);
    if (accuracy < 0.5) fail_msg("%s: accuracy %g, a quarter is chance", variants[i].name, accuracy);
    const int same = memcmp(found, usual, 80 * 4 * sizeof *found) == 0;
    if (same) fail_msg("%s: makes no difference", variants[i].name);
    free(found);
  }
  free(usual);
  assert_int_equal(defaults, 2); /* of routing and residual_basis, which are listed in full */
}

static void options_that_need_company_matter_in_it(void **state) {
  (void)state;
  const struct {
    struct variant with, changed;
  } pairs[] = {
      {SET(WORD, optimizer, DLORA_OPTIMIZER_SGD), SET(REAL, momentum, 0.0)},
      {SET(WORD, readout, DLORA_READOUT_RANDOM_PROJECTION), SET(SIZE, random_features, 100)},
      {SET(WORD, readout, DLORA_READOUT_RANDOM_PROJECTION), SET(REAL, ridge, 1.0)},
      {SET(REAL, held_out, 0.0), SET(REAL, temperature, 5.0)},
      {SET(WORD, first_block, 0), SET(WORD, feature_layers, DLORA_FEATURE_LAYERS_AT_ADAPTER)},
      {SET(WORD, routing, DLORA_ROUTING_TWO_PASS), SET(WORD, class_scores, DLORA_CLASS_SCORES_HEAD)},
      {SET(WORD, routing, DLORA_ROUTING_TWO_PASS), SET(WORD, class_scores, DLORA_CLASS_SCORES_STATISTICS)},
      {SET(REAL, untouched_weight, 0.5), SET(WORD, untouched_baseline, 0)},
  };
  double accuracy;
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    dlora_learner_options options = test_quick_options();
    options.random_features = 200;
    options.untouched_weight = 0.0f;
    apply(&pairs[i].with, &options);
    float *usual = learn_and_ask(&options, &accuracy);
    assert_true(accuracy > 0.5);
    apply(&pairs[i].changed, &options);
    float *changed = learn_and_ask(&options, &accuracy);
    assert_true(accuracy > 0.5);
    if (memcmp(usual, changed, 80 * 4 * sizeof *usual) == 0) fail_msg("%s: no difference", pairs[i].changed.name);
    free(usual);
    free(changed);
  }
}

static void the_micro_batch_changes_no_more_than_rounding(void **state) {
  (void)state;
  double accuracy;
  dlora_learner_options options = test_quick_options();
  options.residual_basis = DLORA_RESIDUAL_RANDOM;
  float *usual = learn_and_ask(&options, &accuracy);
  options.micro_batch = 3;
  float *changed = learn_and_ask(&options, &accuracy);
  for (size_t i = 0; i < 80 * 4; i++) assert_true(fabsf(expf(usual[i]) - expf(changed[i])) < 5e-3f);
  free(usual);
  free(changed);
}

/* ---- defaults and presets ---- */

static void a_learner_without_options_has_the_defaults(void **state) {
  (void)state;
  const dlora_learner_options defaults = test_default_options();
  dlora_learner_options found = {.struct_size = sizeof found};
  dlora_learner *learner = test_learner(model, NULL);
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &found));
  assert_memory_equal(&found, &defaults, sizeof found);
  dlora_learner_destroy(learner);
}

static void the_papers_preset_is_the_documented_one(void **state) {
  (void)state;
  dlora_learner_options expected = test_default_options(), paper;
  memset(&paper, 0xA5, sizeof paper);
  assert_status(DLORA_OK, dlora_learner_options_paper(&paper, sizeof paper));
  expected.first_block = 0;
  expected.epochs = 4;
  expected.batch_size = 32;
  expected.flip = DLORA_FLIP_TRAINING;
  expected.residual_basis = DLORA_RESIDUAL_IN_NEW;
  expected.routing = DLORA_ROUTING_ENERGY;
  expected.loss_classes = DLORA_LOSS_CLASSES_TASK;
  expected.class_scores = DLORA_CLASS_SCORES_HEAD;
  expected.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  expected.observed_tokens = DLORA_TOKENS_CLASS;
  expected.untouched_baseline = 0;
  expected.untouched_weight = 0.0f;
  expected.drift_compensation = 0;
  expected.loss_temperature = 1.0f;
  expected.crop_scale = 1.0f;
  expected.jitter = 0.0f;
  expected.later_task_lr_scale = 1.0f;
  expected.learning_rate = 1e-3f;
  expected.residual_merge_fraction = 0.0f;
  expected.merge_decay = 0.0f;
  assert_memory_equal(&paper, &expected, sizeof paper);

  double accuracy;
  const dlora_learner_options quick = test_quick_options();
  paper.threads = quick.threads;
  paper.rank_orthogonal = quick.rank_orthogonal;
  paper.rank_residual = quick.rank_residual;
  free(learn_and_ask(&paper, &accuracy));
  assert_true(accuracy > 0.4);
}

/* ---- changing options ---- */

static void structure_cannot_change_after_creation(void **state) {
  (void)state;
  static const struct variant structure[] = {
      SET(WORD, sites, DLORA_SITE_QUERY),
      SET(WORD, first_block, 0),
      SET(WORD, num_blocks, 1),
      SET(WORD, feature_layers, DLORA_FEATURE_LAYERS_FINAL),
      SET(WORD, readout, DLORA_READOUT_RANDOM_PROJECTION),
      SET(WORD, use_prior, 1),
      SET(REAL, shrinkage, 0.3),
      SET(REAL, temperature, 3.0),
  };
  static const struct variant random_projection[] = {SET(SIZE, random_features, 77), SET(SIZE, seed, 77),
                                                     SET(REAL, ridge, 0.5)};
  dlora_learner_options options = test_quick_options(), kept = options;
  const char *path = test_temporary("structure.safetensors");
  for (int projection = 0; projection < 2; projection++) {
    if (projection) options.readout = DLORA_READOUT_RANDOM_PROJECTION;
    options.random_features = 100;
    dlora_learner *learner = test_learner(model, &options), *loaded = learner;
    test_learn(learner, four, 2, 10, 1, NULL);
    assert_status(DLORA_OK, dlora_learner_save(learner, path));
    assert_status(DLORA_OK, dlora_learner_get_options(learner, &kept));
    const struct variant *list = projection ? random_projection : structure;
    const size_t count = projection ? 3 : sizeof structure / sizeof structure[0];
    for (size_t i = 0; i < count; i++) {
      dlora_learner_options changed = options, now = options;
      apply(&list[i], &changed);
      char member[32] = {0};
      memcpy(member, list[i].name, strcspn(list[i].name, " "));
      assert_status(DLORA_ERR_MISMATCH, dlora_learner_configure(learner, &changed));
      assert_error_names(member);
      assert_status(DLORA_OK, dlora_learner_get_options(learner, &now));
      assert_memory_equal(&now, &kept, sizeof now);
      assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&loaded, model, path, &changed));
      assert_error_names(member);
      assert_null(loaded);
    }
    dlora_learner_destroy(learner);
  }
}

static void options_may_change_between_tasks(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options(), now;
  options.rank_residual = 0;
  dlora_learner *learner = test_learner(model, &options);
  test_learn(learner, four, 2, 20, 1, NULL);
  options.rank_orthogonal = 2;
  options.rank_residual = 3; /* the first residual adapters come in the second task */
  options.optimizer = DLORA_OPTIMIZER_SGD;
  options.threads = DLORA_AUTO;
  options.seed = 99;
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  memset(&now, 0, sizeof now);
  now.struct_size = sizeof now;
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &now));
  assert_true(now.threads == DLORA_AUTO && now.seed == 99 && now.rank_residual == 3);
  test_learn(learner, four + 2, 2, 20, 2, NULL);
  dlora_adapter adapter;
  const dlora_bank *bank = dlora_learner_get_bank(learner);
  assert_status(DLORA_OK, dlora_bank_get_residual(bank, 0, 0, &adapter));
  assert_int_equal(adapter.rank, 0);
  assert_status(DLORA_OK, dlora_bank_get_residual(bank, 0, 1, &adapter));
  assert_true(adapter.rank > 0 && adapter.rank <= 3);
  struct test_pictures p = test_pictures(four, 4, 20, 51);
  for (int32_t routing = DLORA_ROUTING_EARLY; routing <= DLORA_ROUTING_NONE; routing++) {
    options.routing = routing;
    assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
    if (routing != DLORA_ROUTING_GIVEN) assert_true(test_accuracy(learner, &p) > 0.5);
  }
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 0));
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options)); /* nothing changes */
  options.unknown_quantile = 0.9f;
  assert_status(DLORA_ERR_STATE, dlora_learner_configure(learner, &options));
  assert_error_names("a task is open, and unknown_quantile differs");
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

static void impossible_options_are_named(void **state) {
  (void)state;
  static const struct variant bad[] = {
      SET(WORD, sites, 0),
      SET(WORD, sites, 64),
      SET(WORD, first_block, VIT_DEPTH),
      SET(WORD, first_block, -3),
      SET(WORD, flip, 3),
      SET(WORD, flip, -1),
      SET(WORD, num_blocks, -1),
      SET(WORD, num_blocks, VIT_DEPTH + 1),
      SET(WORD, feature_layers, 3),
      SET(WORD, readout, 2),
      SET(WORD, residual_basis, 3),
      SET(WORD, routing, 5),
      SET(WORD, routing, -1),
      SET(WORD, loss_classes, 2),
      SET(WORD, class_scores, 3),
      SET(WORD, observed_tokens, 2),
      SET(WORD, optimizer, 2),
      SET(WORD, schedule, 2),
      SET(WORD, crop_padding, -1),
      SET(WORD, crop_padding, VIT_SIZE),
      SET(REAL, loss_temperature, 0.0),
      SET(REAL, loss_temperature, (double)NAN),
      SET(REAL, crop_scale, 0.0),
      SET(REAL, crop_scale, 1.5),
      SET(REAL, jitter, -0.1),
      SET(REAL, later_task_lr_scale, -0.1),
      SET(REAL, residual_merge_fraction, -0.1),
      SET(REAL, residual_merge_fraction, 1.1),
      SET(REAL, merge_decay, -1.0),
      SET(REAL, merge_decay, (double)NAN),
      SET(REAL, jitter, 1.5),
      SET(SIZE, batch_size, 0),
      SET(SIZE, batch_size, 1e18),
      SET(WORD, epochs, -2),
      SET(WORD, epochs, 1 << 21),
      SET(WORD, micro_batch, 0),
      SET(WORD, micro_batch, 1 << 17),
      SET(WORD, threads, 0),
      SET(WORD, threads, 1 << 13),
      SET(SIZE, random_features, 0),
      SET(SIZE, random_features, 1e18),
      SET(REAL, energy_threshold, 0.0),
      SET(REAL, energy_threshold, 1.5),
      SET(REAL, energy_threshold, (double)NAN),
      SET(REAL, learning_rate, -1.0),
      SET(REAL, learning_rate, (double)INFINITY),
      SET(REAL, beta1, 1.0),
      SET(REAL, beta2, -0.5),
      SET(REAL, epsilon, 0.0),
      SET(REAL, momentum, 1.0),
      SET(REAL, weight_decay, -1.0),
      SET(REAL, shrinkage, -0.1),
      SET(REAL, shrinkage, 0.0),
      SET(REAL, shrinkage, -2.0),
      SET(REAL, temperature, 0.0),
      SET(REAL, held_out, 0.9),
      SET(REAL, ridge, -1.0),
      SET(REAL, unknown_quantile, 1.0),
      SET(REAL, untouched_weight, -0.1),
      SET(REAL, untouched_weight, 1.1),
      SET(REAL, untouched_weight, -2.0),
      SET(REAL, untouched_weight, (double)NAN),
  };
  dlora_learner *working = test_learner(model, NULL);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    dlora_learner_options options = test_default_options();
    dlora_learner *learner = working;
    char member[32] = {0};
    apply(&bad[i], &options);
    memcpy(member, bad[i].name, strcspn(bad[i].name, " "));
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_create(&learner, model, &options));
    assert_null(learner);
    assert_error_names(member);
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_check(&options, model));
    assert_error_names(member);
    /* Without a model, what its geometry decides is not known. */
    const dlora_status alone = dlora_learner_options_check(&options, NULL);
    const int of_geometry =
        options.first_block == VIT_DEPTH || options.num_blocks == VIT_DEPTH + 1 || options.crop_padding == VIT_SIZE;
    assert_status(of_geometry ? DLORA_OK : DLORA_ERR_ARGUMENT, alone);
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_configure(working, &options));
    assert_error_names(member);
  }
  dlora_learner_options options = test_default_options();
  dlora_learner *learner = working;
  options.rank_orthogonal = VIT_DIM + 1;
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_create(&learner, model, &options));
  assert_null(learner);
  assert_error_names("rank_orthogonal is 33, expected at most embed_dim 32");
  dlora_learner_destroy(working);
  dlora_learner_options sound = test_default_options();
  assert_status(DLORA_OK, dlora_learner_options_check(&sound, model));
  assert_status(DLORA_OK, dlora_learner_options_check(NULL, NULL)); /* the defaults */
  sound.struct_size = 3;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_options_check(&sound, NULL));
}

/* ---- options by name ---- */

static dlora_option_info info_at(size_t index) {
  dlora_option_info info = {.struct_size = sizeof info};
  assert_status(DLORA_OK, dlora_option_get_info(index, &info));
  return info;
}

static size_t width_of(const dlora_option_info *info) {
  return info->type == DLORA_OPTION_SIZE ? sizeof(size_t) : info->type == DLORA_OPTION_SEED ? 8 : 4;
}

/* Each option of the table changes one member of its type and no other, and together they change all but the three that
 * are none: no byte is padding, which a member added later would take over. */
static void the_table_and_the_struct_are_one(void **state) {
  (void)state;
  unsigned char touched[sizeof(dlora_learner_options)] = {0};
  const dlora_learner_options defaults = test_default_options();
  dlora_learner_options paper;
  assert_status(DLORA_OK, dlora_learner_options_paper(&paper, sizeof paper));
  for (size_t i = 0; i < dlora_option_count(); i++) {
    const dlora_option_info info = info_at(i);
    dlora_learner_options low = defaults, high = defaults;
    char text[64];
    const int words = info.type == DLORA_OPTION_CHOICE || info.type == DLORA_OPTION_SET;
    assert_int_equal(info.struct_size, sizeof info);
    assert_true(strlen(info.help) > 5 && strlen(info.help) < 100 && !strchr(info.help, '\n'));
    assert_true(info.scope >= DLORA_SCOPE_FIXED && info.scope <= DLORA_SCOPE_RUN_TIME);
    assert_true(info.least < info.greatest && !words == (info.choices == NULL || strstr(info.choices, "auto")));
    if (info.type == DLORA_OPTION_FLAG) {
      assert_status(DLORA_OK, dlora_learner_options_set(&low, info.name, "false"));
      assert_status(DLORA_OK, dlora_learner_options_set(&high, info.name, "true"));
    } else if (words) {
      char first[32] = {0};
      memcpy(first, info.choices, strcspn(info.choices, "|"));
      assert_status(DLORA_OK, dlora_learner_options_set(&low, info.name, first));
      assert_status(DLORA_OK, dlora_learner_options_set(&high, info.name, strrchr(info.choices, '|') + 1));
    } else {
      assert_status(DLORA_OK,
                    dlora_learner_options_set(&low, info.name, info.type == DLORA_OPTION_FLOAT ? "0.25" : "1"));
      /* A value whose bytes all differ from those of the first. */
      assert_status(DLORA_OK,
                    dlora_learner_options_set(&high, info.name, info.type == DLORA_OPTION_FLOAT ? "0.4" : "2"));
    }
    size_t first = SIZE_MAX, last = 0;
    for (size_t at = 0; at < sizeof defaults; at++) {
      if (((unsigned char *)&low)[at] == ((unsigned char *)&high)[at]) continue;
      if (first == SIZE_MAX) first = at;
      last = at;
    }
    assert_true(first != SIZE_MAX && last / 4 - first / 4 < width_of(&info) / 4);
    const size_t start = first / width_of(&info) * width_of(&info);
    for (size_t at = start; at < start + width_of(&info); at++) assert_int_equal(touched[at]++, 0);

    /* The text of every value reads as that value again. */
    const dlora_learner_options *const all[] = {&defaults, &paper, &low, &high};
    for (size_t k = 0; k < 4; k++) {
      dlora_learner_options back = *all[k];
      assert_status(DLORA_OK, dlora_learner_options_get(all[k], info.name, text, sizeof text));
      assert_true(text[0] != '\0');
      assert_status(DLORA_OK, dlora_learner_options_set(&back, info.name, text));
      assert_memory_equal(&back, all[k], sizeof back);
    }
  }
  size_t left = 0;
  for (size_t at = 0; at < sizeof touched; at++) left += !touched[at];
  assert_int_equal(left, sizeof defaults.struct_size + sizeof defaults.allocator + sizeof defaults.reserved);
  assert_true(defaults.reserved == 0.0f && paper.reserved == 0.0f);
  dlora_option_info info = {.struct_size = sizeof info};
  assert_status(DLORA_ERR_ARGUMENT, dlora_option_get_info(dlora_option_count(), &info));
}

static void values_are_read_as_text_in_every_locale(void **state) {
  (void)state;
  static const char *const locales[] = {"C", "de_DE.UTF-8", "fr_FR.UTF-8"};
  for (size_t i = 0; i < sizeof locales / sizeof *locales; i++) {
    dlora_learner_options o = test_default_options();
    char text[64];
    if (!setlocale(LC_ALL, locales[i])) continue; /* not on this machine */
    assert_status(DLORA_OK, dlora_learner_options_set(&o, "learning_rate", "0.00125"));
    assert_status(DLORA_OK, dlora_learner_options_set(&o, "epsilon", "2.5e-7"));
    assert_status(DLORA_OK, dlora_learner_options_set(&o, "sites", "query,fc2"));
    assert_status(DLORA_OK, dlora_learner_options_set(&o, "seed", "18446744073709551615"));
    assert_status(DLORA_OK, dlora_learner_options_set(&o, "first_block", "middle"));
    assert_status(DLORA_OK, dlora_learner_options_set(&o, "shrinkage", "auto"));
    assert_status(DLORA_OK, dlora_learner_options_set(&o, "routing", "two-pass"));
    assert_true(o.learning_rate == 0.00125f && o.epsilon == 2.5e-7f && o.seed == UINT64_MAX);
    assert_int_equal(o.sites, DLORA_SITE_QUERY | DLORA_SITE_FC2);
    assert_int_equal(o.first_block, DLORA_FIRST_BLOCK_MIDDLE);
    assert_true(o.shrinkage == (float)DLORA_AUTO && o.routing == DLORA_ROUTING_TWO_PASS);
    static const char *const expected[][2] = {
        {"learning_rate", "0.00125"}, {"epsilon", "2.5e-07"}, {"sites", "query,fc2"}, {"seed", "18446744073709551615"},
        {"first_block", "middle"},    {"shrinkage", "auto"},  {"epochs", "auto"},     {"train_head", "true"}};
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++) {
      assert_status(DLORA_OK, dlora_learner_options_get(&o, expected[k][0], text, sizeof text));
      assert_string_equal(text, expected[k][1]);
    }
  }
  setlocale(LC_ALL, "C");
}

static void what_is_no_value_is_refused_and_changes_nothing(void **state) {
  (void)state;
  static const char *const bad[][2] = {{"learning_rate", "fast"},
                                       {"learning_rate", ""},
                                       {"learning_rate", "0,5"},
                                       {"learning_rate", "1e400"},
                                       {"learning_rate", "nan"},
                                       {"learning_rate", "0x1p3"},
                                       {"learning_rate", " 1"},
                                       {"learning_rate", "-1"},
                                       {"learning_rate", "auto"},
                                       {"epochs", "1.5"},
                                       {"epochs", "-1"},
                                       {"epochs", "-3"},
                                       {"batch_size", "0"},
                                       {"batch_size", "-1"},
                                       {"batch_size", "16 "},
                                       {"batch_size", "1e2"},
                                       {"seed", "-1"},
                                       {"seed", "18446744073709551616"},
                                       {"routing", "two_pass"},
                                       {"routing", "1"},
                                       {"routing", ""},
                                       {"sites", ""},
                                       {"sites", "key,"},
                                       {"sites", "key|value"},
                                       {"train_head", "yes"},
                                       {"train_head", "2"},
                                       {"shrinkage", "0"},
                                       {"first_block", "upper"},
                                       {"threads", "99999"},
                                       {"untouched_weight", "1.5"},
                                       {"untouched_weight", "-0.5"},
                                       {"energy_threshold", "0"}};
  const dlora_learner_options before = test_default_options();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    dlora_learner_options o = before;
    /* -1 is the value behind "auto", which is what to write. */
    const dlora_status status = dlora_learner_options_set(&o, bad[i][0], bad[i][1]);
    if (strcmp(bad[i][0], "epochs") == 0 && strcmp(bad[i][1], "-1") == 0) {
      assert_status(DLORA_OK, status);
      continue;
    }
    if (status != DLORA_ERR_ARGUMENT) fail_msg("%s = \"%s\" is taken", bad[i][0], bad[i][1]);
    assert_error_names(bad[i][0]);
    assert_memory_equal(&o, &before, sizeof o);
  }
  dlora_learner_options o = before;
  char text[64];
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_set(&o, "rate", "1"));
  assert_error_names("rate");
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_get(&o, "rate", text, sizeof text));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_get(&o, "sites", text, 9)); /* "key,value" and its NUL */
  assert_status(DLORA_OK, dlora_learner_options_get(&o, "sites", text, 10));
  /* A struct of an earlier version that lacks the member: what was asked for must not be lost without a word. */
  o.struct_size = offsetof(dlora_learner_options, threads);
  assert_status(DLORA_OK, dlora_learner_options_set(&o, "sites", "key"));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_set(&o, "threads", "1"));
  assert_error_names("ends before threads");
  o.struct_size = 3;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_options_set(&o, "sites", "key"));
}

static void a_mistyped_option_is_told_the_name_that_was_meant(void **state) {
  (void)state;
  static const struct {
    const char *mistyped, *meant;
  } names[] = {{"learning_rat", "did you mean learning_rate?"},
               {"epoch", "did you mean epochs?"},
               {"rank-residual", "did you mean rank_residual?"},
               {"untouchedweight", "did you mean untouched_weight?"},
               {"beta3", "did you mean beta1?"}};
  dlora_learner_options o = test_default_options();
  char text[64];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_set(&o, names[i].mistyped, "1"));
    assert_error_names(names[i].mistyped);
    assert_error_names(names[i].meant);
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_get(&o, names[i].mistyped, text, sizeof text));
    assert_error_names(names[i].meant);
  }
  static const char *const strange[] = {"", "x", "colour",
                                        "a_name_that_is_longer_than_any_option_could_be_and_then_some_more"};
  for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_options_set(&o, strange[i], "1"));
    if (strstr(dlora_last_error(), "did you mean")) fail_msg("\"%s\": %s", strange[i], dlora_last_error());
  }
}

/* ---- log ---- */

struct log {
  size_t lines, warnings;
  char last[256];
};

static void keep_line(int32_t level, const char *message, void *user) {
  struct log *log = user;
  assert_true(level == DLORA_LOG_INFO || level == DLORA_LOG_WARNING);
  assert_null(strchr(message, '\n'));
  log->lines++;
  log->warnings += level == DLORA_LOG_WARNING;
  strncpy(log->last, message, sizeof log->last - 1);
}

static void a_full_memory_is_told_and_harmless(void **state) {
  (void)state;
  struct log log = {0};
  dlora_learner_options options = test_quick_options();
  options.energy_threshold = 1.0f; /* every direction is taken at once */
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_set_log(learner, keep_line, &log));
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  test_learn(learner, four, 2, 20, 1, &report);
  assert_int_equal(log.warnings, 0);
  assert_int_equal(report.rank_orthogonal_min, 4);
  assert_true(report.used_directions_max > VIT_DIM - 4);
  test_learn(learner, four + 2, 2, 20, 2, &report);
  assert_true(report.rank_orthogonal_min < 4);
  assert_true(log.warnings > 0);
  assert_non_null(strstr(log.last, "orthogonal branch has rank"));
  struct test_pictures p = test_pictures(four, 4, 20, 52);
  assert_true(test_accuracy(learner, &p) > 0.5);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_option_learns_and_matters),
      cmocka_unit_test(options_that_need_company_matter_in_it),
      cmocka_unit_test(the_micro_batch_changes_no_more_than_rounding),
      cmocka_unit_test(a_learner_without_options_has_the_defaults),
      cmocka_unit_test(the_papers_preset_is_the_documented_one),
      cmocka_unit_test(structure_cannot_change_after_creation),
      cmocka_unit_test(options_may_change_between_tasks),
      cmocka_unit_test(impossible_options_are_named),
      cmocka_unit_test(the_table_and_the_struct_are_one),
      cmocka_unit_test(values_are_read_as_text_in_every_locale),
      cmocka_unit_test(what_is_no_value_is_refused_and_changes_nothing),
      cmocka_unit_test(a_mistyped_option_is_told_the_name_that_was_meant),
      cmocka_unit_test(a_full_memory_is_told_and_harmless),
  };
  return test_run_with_vit(tests, &model);
}
