/* Features and gradients of adapted Vision Transformers, against torch autograd and against finite differences.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

#define TORCH_TOLERANCE 1e-3 /* of gradients, relative to the largest of a factor */
#define FEATURE_TOLERANCE 1e-4
#define BOTH_PAIRS (DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL)
#define VIT "examples/backbones/vit_192x6_patch4_32.safetensors"

enum factor { ORTHOGONAL_B, ORTHOGONAL_A, RESIDUAL_B, RESIDUAL_A, FACTORS };
static const char *const factor_names[FACTORS] = {"orthogonal.b", "orthogonal.a", "residual.b", "residual.a"};

/* A model with a bank whose open task has both pairs at every site, ready to run. */
struct setup {
  struct test_fixture *fixture;
  dlora_model *model;
  dlora_bank *bank;
  dlora_session *session;
  dlora_projector **memories; /* one a site; empty, so that P = I and A' is simply trained */
  size_t num_sites;
  dlora_images images;
  size_t embed_dim;
  int train_a;
};

/* The array of a factor of the fixture's site, and its gradient's with grad = "grad.". */
static const float *factor_of(const struct setup *s, size_t site, enum factor factor, const char *grad, size_t *count) {
  char name[64];
  snprintf(name, sizeof name, "%s%zu.%s", grad, site, factor_names[factor]);
  return test_fixture_floats(s->fixture, name, count);
}

static size_t factor_dim(const struct setup *s, size_t site, enum factor factor, size_t dim) {
  char name[64];
  snprintf(name, sizeof name, "%zu.%s", site, factor_names[factor]);
  return test_fixture_dim(s->fixture, name, dim);
}

static int is_trained(const struct setup *s, enum factor factor) {
  return s->train_a || factor == ORTHOGONAL_B || factor == RESIDUAL_B;
}

/* only: index of the one site to adapt, or SIZE_MAX for all of the fixture's. */
static struct setup set_up(const char *model_path, const dlora_model_options *options, const char *fixture, size_t only,
                           int train_a, int32_t threads) {
  struct setup s = {.fixture = test_fixture_open(test_data(fixture)), .train_a = train_a};
  assert_status(DLORA_OK, dlora_model_load(&s.model, model_path, options));
  const size_t all = test_fixture_dim(s.fixture, "sites", 0);
  const int32_t *places = test_fixture_ints(s.fixture, "sites", NULL);
  s.num_sites = only == SIZE_MAX ? all : 1;
  dlora_site *sites = calloc(s.num_sites, sizeof *sites);
  s.memories = calloc(s.num_sites, sizeof *s.memories);
  assert_non_null(sites);
  assert_non_null(s.memories);
  for (size_t i = 0; i < s.num_sites; i++) {
    const size_t from = only == SIZE_MAX ? i : only;
    sites[i] = (dlora_site){.input_dim = factor_dim(&s, from, ORTHOGONAL_A, 1),
                            .output_dim = factor_dim(&s, from, ORTHOGONAL_B, 0),
                            .block = places[2 * from],
                            .projection = places[2 * from + 1]};
  }
  assert_status(DLORA_OK, dlora_bank_create(&s.bank, sites, s.num_sites, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(s.bank));
  for (size_t i = 0; i < s.num_sites; i++) {
    const size_t from = only == SIZE_MAX ? i : only;
    const size_t rank = factor_dim(&s, from, ORTHOGONAL_A, 0);
    if (train_a) assert_status(DLORA_OK, dlora_projector_create(&s.memories[i], sites[i].input_dim, NULL));
    assert_status(DLORA_OK, dlora_bank_set_orthogonal(s.bank, i, factor_of(&s, from, ORTHOGONAL_A, "", NULL), rank,
                                                      s.memories[i]));
    assert_status(DLORA_OK,
                  dlora_bank_set_residual(s.bank, i, factor_of(&s, from, RESIDUAL_A, "", NULL), rank, train_a));
  }
  free(sites);

  float *parameters = NULL;
  size_t count = 0, at = 0;
  assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, &parameters, NULL, &count));
  for (size_t i = 0; i < s.num_sites; i++) {
    for (enum factor f = 0; f < FACTORS; f++) {
      size_t length = 0;
      const float *values = factor_of(&s, only == SIZE_MAX ? i : only, f, "", &length);
      if (!is_trained(&s, f)) continue;
      assert_true(at + length <= count);
      memcpy(parameters + at, values, length * sizeof *values);
      at += length;
    }
  }
  assert_int_equal(at, count);

  s.images = (dlora_images){.f32 = test_fixture_floats(s.fixture, "images", NULL),
                            .count = test_fixture_dim(s.fixture, "images", 0),
                            .height = test_fixture_dim(s.fixture, "images", 2),
                            .width = test_fixture_dim(s.fixture, "images", 3)};
  s.embed_dim = test_fixture_dim(s.fixture, "features", 1);
  dlora_session_options pass_options = DLORA_SESSION_OPTIONS_INIT;
  pass_options.max_batch = s.images.count;
  pass_options.threads = threads;
  pass_options.training = 1;
  assert_status(DLORA_OK, dlora_session_create(&s.session, s.model, s.bank, &pass_options));
  return s;
}

static void tear_down(struct setup *s) {
  dlora_session_destroy(s->session);
  dlora_bank_destroy(s->bank);
  for (size_t i = 0; i < s->num_sites; i++) dlora_projector_destroy(s->memories[i]);
  free(s->memories);
  dlora_model_destroy(s->model);
  test_fixture_close(s->fixture);
}

static void check_features(struct setup *s, int32_t terms, const char *expected) {
  size_t count = 0;
  const float *wanted = test_fixture_floats(s->fixture, expected, &count);
  float *features = calloc(count, sizeof *features);
  assert_non_null(features);
  assert_status(DLORA_OK, dlora_session_forward(s->session, &s->images, terms, NULL, features));
  assert_close(features, wanted, count, FEATURE_TOLERANCE);
  free(features);
}

static void backward(struct setup *s) {
  assert_status(DLORA_OK, dlora_session_forward(s->session, &s->images, BOTH_PAIRS, NULL, NULL));
  assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank,
                                                 test_fixture_floats(s->fixture, "feature_gradients", NULL)));
}

/* The bank's gradients are `times` those of torch. */
static void check_gradients(const struct setup *s, float times) {
  float *gradients = NULL;
  size_t at = 0, total = 0;
  assert_status(DLORA_OK, dlora_bank_get_parameters(s->bank, NULL, &gradients, &total));
  for (size_t i = 0; i < s->num_sites; i++) {
    for (enum factor f = 0; f < FACTORS; f++) {
      size_t count = 0;
      const float *torch = factor_of(s, i, f, "grad.", &count);
      if (!is_trained(s, f)) continue;
      float *wanted = malloc(count * sizeof *wanted);
      assert_non_null(wanted);
      for (size_t j = 0; j < count; j++) wanted[j] = times * torch[j];
      char what[64];
      snprintf(what, sizeof what, "gradient of site %zu %s", i, factor_names[f]);
      test_assert_close(gradients + at, wanted, count, TORCH_TOLERANCE, what, __FILE__, __LINE__);
      free(wanted);
      at += count;
    }
  }
  assert_int_equal(at, total);
}

static void check_all(const char *model, const dlora_model_options *options, const char *fixture, int32_t threads) {
  struct setup s = set_up(model, options, fixture, SIZE_MAX, 1, threads);
  check_features(&s, 0, "plain");
  check_features(&s, DLORA_TERM_MERGED, "plain");
  check_features(&s, BOTH_PAIRS, "features");
  backward(&s);
  check_gradients(&s, 1.0f);
  tear_down(&s);
}

static void keys_and_values_of_upper_blocks_match_torch(void **state) {
  (void)state;
  check_all(test_source(VIT), NULL, "vit_192x6_gradients.bin", 1);
}

static void all_projections_of_all_blocks_match_torch(void **state) {
  (void)state;
  check_all(test_source(VIT), NULL, "vit_192x6_gradients_all.bin", 1);
}

static void tiny_model_matches_torch_at_every_site(void **state) {
  (void)state;
  check_all(test_data("tiny_timm_f32.safetensors"), NULL, "tiny_timm_gradients.bin", DLORA_AUTO);
}

static void layer_scale_matches_torch_at_every_site(void **state) {
  (void)state;
  check_all(test_data("tiny_timm_layer_scale_f32.safetensors"), NULL, "tiny_layer_scale_gradients.bin", DLORA_AUTO);
}

static void dinov2_matches_torch(void **state) {
  (void)state;
  const char *weights = test_source("../shared/weights/dinov2_small_focus.safetensors");
  if (access(weights, R_OK) != 0) {
    print_message("%s is not there: not compared with it\n", weights);
    skip();
  }
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 84;
  options.position_resampling = DLORA_POSITIONS_TIMM;
  check_all(weights, &options, "dinov2_small_84_gradients.bin", DLORA_AUTO);
}

static void several_threads_give_the_same_gradients(void **state) {
  (void)state;
  check_all(test_source(VIT), NULL, "vit_192x6_gradients.bin", 3);
}

static void fixed_down_projections_have_no_gradient(void **state) {
  (void)state;
  struct setup s = set_up(test_source(VIT), NULL, "vit_192x6_gradients.bin", SIZE_MAX, 0, DLORA_AUTO);
  check_features(&s, BOTH_PAIRS, "features");
  backward(&s);
  check_gradients(&s, 1.0f);
  tear_down(&s);
}

static void gradients_add_up_until_a_step(void **state) {
  (void)state;
  struct setup s = set_up(test_data("tiny_timm_f32.safetensors"), NULL, "tiny_timm_gradients.bin", SIZE_MAX, 1, 1);
  backward(&s);
  backward(&s);
  check_gradients(&s, 2.0f);
  assert_status(DLORA_OK, dlora_bank_step(s.bank, 0.0f));
  check_gradients(&s, 0.0f);
  tear_down(&s);
}

static void training_pass_and_inference_pass_agree(void **state) {
  (void)state;
  struct setup s = set_up(test_data("tiny_timm_f32.safetensors"), NULL, "tiny_timm_gradients.bin", SIZE_MAX, 1, 1);
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.max_batch = s.images.count;
  dlora_session_destroy(s.session);
  s.session = NULL;
  assert_status(DLORA_OK, dlora_session_create(&s.session, s.model, s.bank, &options));
  check_features(&s, BOTH_PAIRS, "features");
  check_features(&s, 0, "plain");
  assert_status(DLORA_ERR_STATE,
                dlora_session_backward(s.session, s.bank, test_fixture_floats(s.fixture, "feature_gradients", NULL)));
  tear_down(&s);
}

/* sum of features * feature gradients: the loss whose gradient backward computes. */
static double loss(struct setup *s) {
  size_t count = 0;
  const float *weights = test_fixture_floats(s->fixture, "feature_gradients", &count);
  float *features = calloc(count, sizeof *features);
  assert_non_null(features);
  assert_status(DLORA_OK, dlora_session_forward(s->session, &s->images, BOTH_PAIRS, NULL, features));
  double sum = 0.0;
  for (size_t i = 0; i < count; i++) sum += (double)weights[i] * (double)features[i];
  free(features);
  return sum;
}

static double loss_at(struct setup *s, float *values, const float *centre, const double *direction, size_t count,
                      double step) {
  for (size_t i = 0; i < count; i++) values[i] = (float)((double)centre[i] + step * direction[i]);
  return loss(s);
}

/* The derivative along `direction` (of length 1) by central differences of fourth order, held against the gradient's.
 */
static void check_slope(struct setup *s, float *values, const float *centre, const double *direction,
                        const float *gradient, size_t count, double norm) {
  /* The features' rounding, some 1e-6, is divided by the step, the error of the formula grows with its fourth power. */
  const double h = 0.02;
  double expected = 0.0;
  for (size_t i = 0; i < count; i++) expected += direction[i] * (double)gradient[i];
  const double near =
      loss_at(s, values, centre, direction, count, h) - loss_at(s, values, centre, direction, count, -h);
  const double far =
      loss_at(s, values, centre, direction, count, 2 * h) - loss_at(s, values, centre, direction, count, -2 * h);
  memcpy(values, centre, count * sizeof *values);
  const double found = (8.0 * near - far) / (12.0 * h);
  if (fabs(found - expected) > 5e-3 * norm + 2e-3) {
    fail_msg("slope by differences %.6g, by the gradient %.6g, length of the gradient %.6g", found, expected, norm);
  }
}

static void check_factor(struct setup *s, float *values, const float *gradient, size_t count, uint32_t *random) {
  float *centre = malloc(count * sizeof *centre);
  double *direction = malloc(count * sizeof *direction);
  assert_non_null(centre);
  assert_non_null(direction);
  memcpy(centre, values, count * sizeof *centre);
  double norm = 0.0, length = 0.0;
  for (size_t i = 0; i < count; i++) norm += (double)gradient[i] * (double)gradient[i];
  norm = sqrt(norm);
  assert_true(norm > 1e-2); /* or there would be nothing to see */
  for (size_t i = 0; i < count; i++) direction[i] = (double)gradient[i] / norm;
  check_slope(s, values, centre, direction, gradient, count, norm);
  for (size_t i = 0; i < count; i++) {
    direction[i] = (double)test_normal(random);
    length += direction[i] * direction[i];
  }
  for (size_t i = 0; i < count; i++) direction[i] /= sqrt(length);
  check_slope(s, values, centre, direction, gradient, count, norm);
  free(centre);
  free(direction);
}

/* One site at a time, so that each is once the lowest: nothing below it may be needed. */
static void gradients_match_finite_differences_at_every_kind_of_site(void **state) {
  (void)state;
  uint32_t random = 5;
  for (size_t site = 0; site < 12; site++) {
    struct setup s = set_up(test_data("tiny_timm_f32.safetensors"), NULL, "tiny_timm_gradients.bin", site, 1, 1);
    float *parameters = NULL, *gradients = NULL;
    size_t total = 0, at = 0;
    backward(&s);
    assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, &parameters, &gradients, &total));
    for (enum factor f = 0; f < FACTORS; f++) {
      size_t count = 0;
      factor_of(&s, site, f, "", &count);
      check_factor(&s, parameters + at, gradients + at, count, &random);
      at += count;
    }
    assert_int_equal(at, total);
    tear_down(&s);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tiny_model_matches_torch_at_every_site),
      cmocka_unit_test(layer_scale_matches_torch_at_every_site),
      cmocka_unit_test(keys_and_values_of_upper_blocks_match_torch),
      cmocka_unit_test(all_projections_of_all_blocks_match_torch),
      cmocka_unit_test(dinov2_matches_torch),
      cmocka_unit_test(several_threads_give_the_same_gradients),
      cmocka_unit_test(fixed_down_projections_have_no_gradient),
      cmocka_unit_test(gradients_add_up_until_a_step),
      cmocka_unit_test(training_pass_and_inference_pass_agree),
      cmocka_unit_test(gradients_match_finite_differences_at_every_kind_of_site),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
