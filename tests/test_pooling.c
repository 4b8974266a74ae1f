/* What becomes of the tokens behind the last block: features and gradients of every pooling, whether the last block
 * runs one query or all, and what a file and its caller may ask for.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { IMAGES = 3, RANK = 2, FEATURES = IMAGES * VIT_DIM };
#define ALL_TERMS DLORA_TERM_RESIDUAL

static const int32_t projections[] = {DLORA_SITE_QUERY,  DLORA_SITE_KEY, DLORA_SITE_VALUE,
                                      DLORA_SITE_OUTPUT, DLORA_SITE_FC1, DLORA_SITE_FC2};

static dlora_model *load(const char *path, int32_t pool) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  dlora_model *model = NULL;
  options.pool = pool;
  options.threads = 1;
  assert_status(DLORA_OK, dlora_model_load(&model, path, &options));
  return model;
}

static dlora_model_info info_of(const dlora_model *model) {
  dlora_model_info info = {.struct_size = sizeof info};
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  return info;
}

/* Floats [IMAGES, 3, VIT_SIZE, VIT_SIZE] within the model's range. */
static const float *pixels(void) {
  static float values[IMAGES * 3 * VIT_SIZE * VIT_SIZE];
  uint32_t random = 99;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) values[i] = test_uniform(&random);
  return values;
}

static dlora_images images(void) {
  return (dlora_images){.f32 = pixels(), .count = IMAGES, .height = VIT_SIZE, .width = VIT_SIZE};
}

/* ---- a model with trained adapters ---- */

struct setup {
  const dlora_model *model;
  dlora_bank *bank;
  dlora_session *session;
  float *parameters, *gradients;
  size_t num_parameters;
};

/* Adapters with trained factors at the projections of blocks [first, end) whose bits are in `chosen`. */
static struct setup set_up(const dlora_model *model, size_t first, size_t end, int32_t chosen, int32_t threads) {
  struct setup s = {.model = model};
  dlora_site sites[6 * VIT_DEPTH] = {{.block = 0}};
  size_t num_sites = 0;
  uint32_t random = 7;
  for (size_t block = first; block < end; block++) {
    for (size_t i = 0; i < 6; i++) {
      if (!(chosen & projections[i])) continue;
      sites[num_sites++] = (dlora_site){.input_dim = projections[i] == DLORA_SITE_FC2 ? VIT_MLP : VIT_DIM,
                                        .output_dim = projections[i] == DLORA_SITE_FC1 ? VIT_MLP : VIT_DIM,
                                        .block = (int32_t)block,
                                        .projection = projections[i]};
    }
  }
  assert_status(DLORA_OK, dlora_bank_create(&s.bank, sites, num_sites, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(s.bank));
  for (size_t i = 0; i < num_sites; i++) {
    float a[RANK * VIT_MLP];
    for (size_t j = 0; j < RANK * sites[i].input_dim; j++) a[j] = 0.3f * test_normal(&random);
    assert_status(DLORA_OK, dlora_bank_set_residual(s.bank, i, a, RANK, 1));
  }
  assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, &s.parameters, &s.gradients, &s.num_parameters));
  for (size_t i = 0; i < s.num_parameters; i++) s.parameters[i] = 0.2f * test_normal(&random);
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.max_batch = IMAGES;
  options.threads = threads;
  options.training = 1;
  assert_status(DLORA_OK, dlora_session_create(&s.session, model, s.bank, &options));
  return s;
}

static void tear_down(struct setup *s) {
  dlora_session_destroy(s->session);
  dlora_bank_destroy(s->bank);
}

static void forward(const struct setup *s, float features[FEATURES]) {
  const dlora_images all = images();
  assert_status(DLORA_OK, dlora_session_forward(s->session, &all, ALL_TERMS, NULL, features));
}

static const float *feature_gradients(void) {
  static float values[FEATURES];
  uint32_t random = 31;
  for (size_t i = 0; i < FEATURES; i++) values[i] = test_normal(&random);
  return values;
}

/* Features, and the gradients of sum(features * feature_gradients), which start at 0. */
static void forward_backward(const struct setup *s, float features[FEATURES]) {
  assert_status(DLORA_OK, dlora_bank_step(s->bank, 0.0f));
  forward(s, features);
  assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank, feature_gradients()));
}

/* ---- finite differences ---- */

static double loss_at(const struct setup *s, const float *centre, const double *direction, double step) {
  float features[FEATURES];
  double sum = 0.0;
  for (size_t i = 0; i < s->num_parameters; i++) {
    s->parameters[i] = (float)((double)centre[i] + step * direction[i]);
  }
  forward(s, features);
  memcpy(s->parameters, centre, s->num_parameters * sizeof *centre);
  for (size_t i = 0; i < FEATURES; i++) sum += (double)features[i] * (double)feature_gradients()[i];
  return sum;
}

/* The derivative along a direction of length 1 by central differences of fourth order. */
static void check_slope(const struct setup *s, const float *centre, const double *direction, const float *gradient,
                        double norm) {
  const double h = 0.01;
  double expected = 0.0;
  for (size_t i = 0; i < s->num_parameters; i++) expected += direction[i] * (double)gradient[i];
  const double near = loss_at(s, centre, direction, h) - loss_at(s, centre, direction, -h);
  const double far = loss_at(s, centre, direction, 2 * h) - loss_at(s, centre, direction, -2 * h);
  const double found = (8.0 * near - far) / (12.0 * h);
  if (fabs(found - expected) > 5e-3 * norm + 2e-3) {
    fail_msg("slope by differences %.6g, by the gradient %.6g, length of the gradient %.6g", found, expected, norm);
  }
}

/* Along the gradient, whose length it tells, and along another direction. */
static void check_differences(const struct setup *s) {
  float features[FEATURES];
  double norm = 0.0, length = 0.0;
  uint32_t random = 5;
  float *centre = malloc(s->num_parameters * sizeof *centre), *gradient = malloc(s->num_parameters * sizeof *gradient);
  double *direction = malloc(s->num_parameters * sizeof *direction);
  assert_true(centre && gradient && direction);
  forward_backward(s, features);
  memcpy(centre, s->parameters, s->num_parameters * sizeof *centre);
  memcpy(gradient, s->gradients, s->num_parameters * sizeof *gradient);
  for (size_t i = 0; i < s->num_parameters; i++) norm += (double)gradient[i] * (double)gradient[i];
  norm = sqrt(norm);
  assert_true(norm > 1e-2); /* or there would be nothing to see */
  for (size_t i = 0; i < s->num_parameters; i++) direction[i] = (double)gradient[i] / norm;
  check_slope(s, centre, direction, gradient, norm);
  for (size_t i = 0; i < s->num_parameters; i++) {
    direction[i] = (double)test_normal(&random);
    length += direction[i] * direction[i];
  }
  for (size_t i = 0; i < s->num_parameters; i++) direction[i] /= sqrt(length);
  check_slope(s, centre, direction, gradient, norm);
  free(direction);
  free(gradient);
  free(centre);
}

/* All blocks adapted; the last alone; and there each projection by itself, below which nothing is computed. */
static void check_gradients(const dlora_model *model) {
  int32_t all = 0;
  for (size_t i = 0; i < 6; i++) all |= projections[i];
  for (size_t first = 0; first < VIT_DEPTH; first += VIT_DEPTH - 1) {
    struct setup s = set_up(model, first, VIT_DEPTH, all, 1);
    check_differences(&s);
    tear_down(&s);
  }
  for (size_t i = 0; i < 6; i++) {
    struct setup s = set_up(model, VIT_DEPTH - 1, VIT_DEPTH, projections[i], 1);
    check_differences(&s);
    tear_down(&s);
  }
}

/* ---- what holds whatever is pooled ---- */

static void embed(const dlora_model *model, const dlora_images *some, float *features) {
  assert_status(DLORA_OK, dlora_model_embed(model, some, features));
}

/* An image's feature depends neither on the batch nor on what is adapted above which block. */
static void check_features(const dlora_model *model) {
  const dlora_images all = images();
  float together[FEATURES], alone[FEATURES];
  embed(model, &all, together);
  for (size_t i = 0; i < IMAGES; i++) {
    const dlora_images one = test_part(&all, i, 1);
    embed(model, &one, alone + i * VIT_DIM);
  }
  assert_close(alone, together, FEATURES, 1e-5);
  assert_true(test_largest_change(together, together + VIT_DIM, VIT_DIM) > 0.05); /* and it depends on the image */
  for (size_t first = 0; first < VIT_DEPTH; first++) {
    struct setup s = set_up(model, first, VIT_DEPTH, DLORA_SITE_KEY, 1);
    assert_status(DLORA_OK, dlora_session_forward(s.session, &all, 0, NULL, alone));
    assert_close(alone, together, FEATURES, 1e-5);
    tear_down(&s);
  }
}

static void check_threads(const dlora_model *model) {
  float features[2][FEATURES], *gradients = NULL;
  int32_t all = 0;
  for (size_t i = 0; i < 6; i++) all |= projections[i];
  for (int32_t threads = 1; threads <= 2; threads++) {
    struct setup s = set_up(model, 1, VIT_DEPTH, all, threads);
    forward_backward(&s, features[threads - 1]);
    if (threads == 1) {
      gradients = malloc(s.num_parameters * sizeof *gradients);
      assert_non_null(gradients);
      memcpy(gradients, s.gradients, s.num_parameters * sizeof *gradients);
    } else {
      assert_close(s.gradients, gradients, s.num_parameters, 1e-4);
    }
    tear_down(&s);
  }
  assert_close(features[1], features[0], FEATURES, 1e-5);
  free(gradients);
}

static void check(const char *path, int32_t pool, int32_t expected) {
  dlora_model *model = load(path, pool);
  assert_int_equal(info_of(model).pool, expected);
  check_features(model);
  check_gradients(model);
  check_threads(model);
  dlora_model_destroy(model);
}

static const char *write(const struct test_ends *ends) {
  static const struct test_shape shape = {VIT_DIM, VIT_DEPTH, VIT_HEADS, VIT_MLP, VIT_PATCH, VIT_SIZE / VIT_PATCH};
  return test_write_vit_with("pool.safetensors", 3, &shape, ends);
}

static void class_token(void **state) {
  (void)state;
  check(write(&(struct test_ends){0}), DLORA_AUTO, DLORA_POOL_CLASS);
}

static void mean_of_patches(void **state) {
  (void)state;
  check(write(&(struct test_ends){0}), DLORA_POOL_MEAN_PATCHES, DLORA_POOL_MEAN_PATCHES);
  check(write(&(struct test_ends){.without_class_token = 1}), DLORA_AUTO, DLORA_POOL_MEAN_PATCHES);
}

static void mean_of_patches_and_a_norm_behind_it(void **state) {
  (void)state;
  check(write(&(struct test_ends){.registers = 2, .without_class_token = 1, .without_norm = 1, .norm_behind = 1}),
        DLORA_AUTO, DLORA_POOL_MEAN_PATCHES);
  check(write(&(struct test_ends){.norm_behind = 1}), DLORA_AUTO, DLORA_POOL_MEAN_PATCHES);
}

static void class_token_with_a_norm_behind_it_or_none(void **state) {
  (void)state;
  check(write(&(struct test_ends){.without_norm = 1, .norm_behind = 1}), DLORA_POOL_CLASS, DLORA_POOL_CLASS);
  check(write(&(struct test_ends){.without_norm = 1}), DLORA_AUTO, DLORA_POOL_CLASS);
}

static void class_and_distillation_token(void **state) {
  (void)state;
  check(write(&(struct test_ends){.distillation_token = 1}), DLORA_AUTO, DLORA_POOL_DISTILLED);
}

static void attention_of_a_query(void **state) {
  (void)state;
  check(write(&(struct test_ends){.without_class_token = 1, .attention = 1}), DLORA_AUTO, DLORA_POOL_ATTENTION);
}

static void attention_of_a_query_to_patches_alone(void **state) {
  (void)state;
  check(write(&(struct test_ends){.registers = 3, .without_class_token = 1, .attention = 1}), DLORA_AUTO,
        DLORA_POOL_ATTENTION);
  check(write(&(struct test_ends){.attention = 1, .without_norm = 1, .norm_behind = 1}), DLORA_AUTO,
        DLORA_POOL_ATTENTION);
}

static void mean_of_tokens(void **state) {
  (void)state;
  check(write(&(struct test_ends){.registers = 2}), DLORA_POOL_MEAN_TOKENS, DLORA_POOL_MEAN_TOKENS);
}

/* ---- one query in the last block, and all of them ---- */

/* class = tokens * mean of tokens - patches * mean of patches: the one comes from a single query in the last block, the
 * others from all; so do the gradients, which are linear in them. */
static void one_query_gives_what_all_give(void **state) {
  (void)state;
  static const int32_t pools[] = {DLORA_POOL_CLASS, DLORA_POOL_MEAN_TOKENS, DLORA_POOL_MEAN_PATCHES};
  const char *path = test_write_vit("pool.safetensors", 4);
  float features[3][FEATURES], *gradients[3];
  size_t count = 0;
  for (size_t i = 0; i < 3; i++) {
    dlora_model *model = load(path, pools[i]);
    struct setup s = set_up(model, 0, VIT_DEPTH, DLORA_SITE_KEY | DLORA_SITE_QUERY | DLORA_SITE_FC2, 1);
    forward_backward(&s, features[i]);
    count = s.num_parameters;
    gradients[i] = malloc(count * sizeof *gradients[i]);
    assert_non_null(gradients[i]);
    memcpy(gradients[i], s.gradients, count * sizeof *gradients[i]);
    tear_down(&s);
    dlora_model_destroy(model);
  }
  const float all = VIT_TOKENS, patches = VIT_TOKENS - 1;
  for (size_t i = 0; i < FEATURES; i++) features[1][i] = all * features[1][i] - patches * features[2][i];
  for (size_t i = 0; i < count; i++) gradients[1][i] = all * gradients[1][i] - patches * gradients[2][i];
  assert_close(features[1], features[0], FEATURES, 1e-4);
  assert_close(gradients[1], gradients[0], count, 1e-4);
  for (size_t i = 0; i < 3; i++) free(gradients[i]);
}

/* ---- what is asked for ---- */

static void refuse(const char *path, int32_t pool, dlora_status expected, const char *what) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  dlora_model *model = NULL;
  options.pool = pool;
  assert_status(expected, dlora_model_load(&model, path, &options));
  assert_null(model);
  assert_error_names(what);
}

static void a_pool_that_the_file_cannot_give_is_refused(void **state) {
  (void)state;
  const char *path = write(&(struct test_ends){0});
  refuse(path, DLORA_POOL_DISTILLED, DLORA_ERR_ARGUMENT, "the option pool is distilled");
  assert_error_names("a class and a distillation token");
  refuse(path, DLORA_POOL_ATTENTION, DLORA_ERR_ARGUMENT, "the option pool is attention");
  path = write(&(struct test_ends){.registers = 1, .without_class_token = 1});
  refuse(path, DLORA_POOL_CLASS, DLORA_ERR_ARGUMENT,
         "the option pool is class, but the file does not have a class token");
  refuse(path, DLORA_POOL_DISTILLED, DLORA_ERR_ARGUMENT, "the option pool is distilled");
}

/* The file with more metadata, "key":"value", behind the number of heads; padded, as the tensors behind are aligned. */
static const char *with_metadata(const char *path, const char *member) {
  static const char heads[] = "\"num_heads\":\"2\"";
  char text[64];
  size_t size = 0, header = 0;
  unsigned char *bytes = test_read_file(path, &size);
  for (size_t i = 0; i < 8; i++) header |= (size_t)bytes[i] << (8 * i);
  size_t more = (size_t)snprintf(text, sizeof text, ",%s", member);
  while (more % 8) text[more++] = ' ';
  unsigned char *result = malloc(size + more);
  assert_non_null(result);
  const char *begin = strstr((const char *)bytes + 8, heads);
  assert_non_null(begin);
  const size_t before = (size_t)(begin - (const char *)bytes) + sizeof heads - 1;
  memcpy(result, bytes, before);
  memcpy(result + before, text, more);
  memcpy(result + before + more, bytes + before, size - before);
  for (size_t i = 0; i < 8; i++) result[i] = (unsigned char)((uint64_t)(header + more) >> (8 * i));
  const char *out = test_temporary("metadata.safetensors");
  test_write_file(out, result, size + more);
  free(result);
  free(bytes);
  return out;
}

static void assert_pool(const char *path, int32_t option, int32_t expected) {
  dlora_model *model = load(path, option);
  assert_int_equal(info_of(model).pool, expected);
  dlora_model_destroy(model);
}

static void options_win_over_metadata_and_metadata_over_tensors(void **state) {
  (void)state;
  static const struct {
    const char *member;
    int32_t plain, distilled;
  } told[] = {
      {"\"pool\":\"mean-patches\"", DLORA_POOL_MEAN_PATCHES, DLORA_POOL_MEAN_PATCHES},
      {"\"pool\":\"mean-tokens\"", DLORA_POOL_MEAN_TOKENS, DLORA_POOL_MEAN_TOKENS},
      {"\"pool\":\"class\"", DLORA_POOL_CLASS, DLORA_POOL_CLASS},
      {"\"global_pool\":\"avg\"", DLORA_POOL_MEAN_PATCHES, DLORA_POOL_MEAN_PATCHES},
      {"\"global_pool\":\"token\"", DLORA_POOL_CLASS, DLORA_POOL_DISTILLED},
  };
  for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
    const char *path = with_metadata(write(&(struct test_ends){0}), told[i].member);
    assert_pool(path, DLORA_AUTO, told[i].plain);
    assert_pool(path, DLORA_POOL_MEAN_TOKENS, DLORA_POOL_MEAN_TOKENS);
    path = with_metadata(write(&(struct test_ends){.distillation_token = 1}), told[i].member);
    assert_pool(path, DLORA_AUTO, told[i].distilled);
  }
  const char *path = write(&(struct test_ends){0});
  refuse(with_metadata(path, "\"global_pool\":\"avgmax\""), DLORA_AUTO, DLORA_ERR_UNSUPPORTED, "avgmax");
  refuse(with_metadata(path, "\"global_pool\":\"map\""), DLORA_AUTO, DLORA_ERR_FORMAT, "attention that pools");
  path = write(&(struct test_ends){.without_class_token = 1});
  refuse(with_metadata(path, "\"global_pool\":\"token\""), DLORA_AUTO, DLORA_ERR_FORMAT, "a class token");
}

/* Tensors of attention are no reason to refuse another pool, and enter neither its features nor the fingerprint. */
static void attention_that_is_not_asked_for_is_passed_over(void **state) {
  (void)state;
  const dlora_images all = images();
  float features[2][FEATURES];
  char found[2][40];
  for (int attention = 0; attention < 2; attention++) {
    dlora_model *model =
        load(write(&(struct test_ends){.without_class_token = 1, .attention = attention}), DLORA_POOL_MEAN_PATCHES);
    memcpy(found[attention], info_of(model).fingerprint, sizeof found[attention]);
    embed(model, &all, features[attention]);
    dlora_model_destroy(model);
  }
  assert_string_equal(found[0], found[1]);
  assert_memory_equal(features[0], features[1], sizeof features[0]);
}

/* The file with this tensor as part of a head that nothing reads. */
static const char *without(const char *path, const char *name) {
  size_t size = 0;
  char quoted[64];
  unsigned char *bytes = test_read_file(path, &size);
  snprintf(quoted, sizeof quoted, "\"%s\"", name);
  char *at = strstr((char *)bytes + 8, quoted);
  assert_non_null(at);
  memcpy(at + 1, "fc.", 3);
  const char *out = test_temporary("without.safetensors");
  test_write_file(out, bytes, size);
  free(bytes);
  return out;
}

static void each_tensor_of_a_pool_is_needed(void **state) {
  (void)state;
  static const char *const names[] = {"attn_pool.q.weight",
                                      "attn_pool.kv.weight",
                                      "attn_pool.proj.weight",
                                      "attn_pool.norm.weight",
                                      "attn_pool.norm.bias",
                                      "attn_pool.mlp.fc1.weight",
                                      "attn_pool.mlp.fc2.weight",
                                      "fc_norm.bias",
                                      "norm.weight",
                                      "norm.bias"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    refuse(without(write(&(struct test_ends){.attention = 1, .norm_behind = 1}), names[i]), DLORA_AUTO,
           DLORA_ERR_FORMAT, names[i]);
  }
}

static void fingerprints_tell_pools_apart(void **state) {
  (void)state;
  const char *path = test_write_vit("pool.safetensors", 3);
  char found[3][40];
  for (int32_t pool = DLORA_POOL_CLASS; pool <= DLORA_POOL_MEAN_TOKENS; pool++) {
    dlora_model *model = load(path, pool);
    memcpy(found[pool], info_of(model).fingerprint, sizeof found[pool]);
    dlora_model_destroy(model);
  }
  assert_string_not_equal(found[0], found[1]);
  assert_string_not_equal(found[0], found[2]);
  assert_string_not_equal(found[1], found[2]);
  dlora_model *model = load(path, DLORA_AUTO);
  assert_string_equal(info_of(model).fingerprint, found[0]);
  dlora_model_destroy(model);
}

/* ---- learning ---- */

static void learn_with(const char *path, int32_t observed_tokens, int32_t routing) {
  static const int64_t first[] = {1, 2, 3}, second[] = {4, 5}, both[] = {1, 2, 3, 4, 5};
  dlora_model *model = load(path, DLORA_AUTO);
  dlora_learner_options options = test_quick_options();
  options.observed_tokens = observed_tokens;
  options.routing = routing;
  dlora_learner *learner = test_learner(model, &options);
  test_learn(learner, first, 3, 20, 1, NULL);
  test_learn(learner, second, 2, 20, 2, NULL);
  struct test_pictures seen = test_pictures(both, 5, 10, 9);
  assert_true(test_accuracy(learner, &seen) > 0.6);
  test_pictures_free(&seen);
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
}

static void a_learner_takes_every_pool(void **state) {
  (void)state;
  const struct test_ends ends[] = {
      {.without_class_token = 1, .attention = 1},
      {.registers = 2, .without_class_token = 1, .without_norm = 1, .norm_behind = 1},
      {.distillation_token = 1},
      {.registers = 2},
  };
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    learn_with(write(&ends[i]), DLORA_TOKENS_ALL, DLORA_ROUTING_EARLY);
  }
  learn_with(write(&ends[2]), DLORA_TOKENS_CLASS, DLORA_ROUTING_ENERGY);
}

static void refuse_learner(const dlora_model *model, const char *name, const char *value) {
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = NULL;
  assert_status(DLORA_OK, dlora_learner_options_set(&options, name, value));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_create(&learner, model, &options));
  assert_null(learner);
  assert_error_names(name);
  assert_error_names("class tokens");
}

static void what_reads_class_tokens_is_refused_without_them(void **state) {
  (void)state;
  dlora_model *model = load(write(&(struct test_ends){.without_class_token = 1}), DLORA_AUTO);
  refuse_learner(model, "observed_tokens", "class");
  refuse_learner(model, "routing", "energy");
  dlora_model_destroy(model);
}

static void early_features_of(const char *path, float early[2 * FEATURES]) {
  dlora_model *model = load(path, DLORA_AUTO);
  struct setup s = set_up(model, 0, VIT_DEPTH, DLORA_SITE_KEY, 1);
  const dlora_images all = images();
  assert_status(DLORA_OK, dlora_session_forward(s.session, &all, 0, NULL, NULL));
  assert_status(DLORA_OK, dlora_session_get_early_features(s.session, early));
  tear_down(&s);
  dlora_model_destroy(model);
}

/* Of what enters the first block, where registers of other values change nothing else. */
static void early_features_leave_registers_out(void **state) {
  (void)state;
  for (int without_class_token = 0; without_class_token < 2; without_class_token++) {
    float early[2][2 * FEATURES];
    const char *path = write(&(struct test_ends){.registers = 2, .without_class_token = without_class_token});
    early_features_of(path, early[0]);
    size_t size = 0, length = 0;
    unsigned char *bytes = test_read_file(path, &size), *registers = test_tensor(bytes, "reg_token", &length);
    for (size_t i = 0; i < length; i += 4) registers[i + 2] ^= 0x40;
    test_write_file(path, bytes, size);
    free(bytes);
    early_features_of(path, early[1]);
    assert_memory_equal(early[0], early[1], sizeof early[0]);
  }
}

/* The numbers of a normed token have mean square 1, so that squares of mean and deviation of tokens do, too. */
static void without_a_class_token_early_features_have_the_deviation(void **state) {
  (void)state;
  float early[2 * FEATURES];
  early_features_of(write(&(struct test_ends){.registers = 2, .without_class_token = 1}), early);
  for (size_t i = 0; i < IMAGES; i++) {
    double sum = 0.0;
    for (size_t j = 0; j < VIT_DIM; j++) {
      const double deviation = (double)early[2 * i * VIT_DIM + j], mean = (double)early[(2 * i + 1) * VIT_DIM + j];
      assert_true(deviation > 0.0);
      sum += deviation * deviation + mean * mean;
    }
    assert_float_equal(sum / VIT_DIM, 1.0, 1e-3);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(class_token),
      cmocka_unit_test(mean_of_patches),
      cmocka_unit_test(mean_of_patches_and_a_norm_behind_it),
      cmocka_unit_test(class_token_with_a_norm_behind_it_or_none),
      cmocka_unit_test(mean_of_tokens),
      cmocka_unit_test(class_and_distillation_token),
      cmocka_unit_test(attention_of_a_query),
      cmocka_unit_test(attention_of_a_query_to_patches_alone),
      cmocka_unit_test(one_query_gives_what_all_give),
      cmocka_unit_test(a_pool_that_the_file_cannot_give_is_refused),
      cmocka_unit_test(options_win_over_metadata_and_metadata_over_tensors),
      cmocka_unit_test(attention_that_is_not_asked_for_is_passed_over),
      cmocka_unit_test(each_tensor_of_a_pool_is_needed),
      cmocka_unit_test(fingerprints_tell_pools_apart),
      cmocka_unit_test(a_learner_takes_every_pool),
      cmocka_unit_test(what_reads_class_tokens_is_refused_without_them),
      cmocka_unit_test(early_features_leave_registers_out),
      cmocka_unit_test(without_a_class_token_early_features_have_the_deviation),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
