/* Each family of Vision Transformers under each of its names: features, and gradients at every projection, against
 * torch (tests/backbones/make_references.py) and against finite differences.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

#define FEATURE_TOLERANCE 1e-5 /* relative to the largest */
#define GRADIENT_TOLERANCE 1e-3
enum { SITES = 12, IMAGES = 3, DIM = 32, MOST_PARAMETERS = 8192 };

struct family {
  const char *file, *fixture; /* of tests/data/backbones */
  int32_t naming;
  size_t prefix_tokens, mlp_dim;
  int32_t option; /* activation, or DLORA_AUTO */
  int32_t activation;
};

#define GELU DLORA_ACTIVATION_GELU
#define QUICK DLORA_ACTIVATION_QUICK_GELU
#define SWIGLU DLORA_ACTIVATION_SWIGLU
#define AUTO DLORA_AUTO
#define TIMM DLORA_NAMING_TIMM
#define VIT DLORA_NAMING_HF_VIT
#define DINOV2 DLORA_NAMING_HF_DINOV2
#define DINOV3 DLORA_NAMING_HF_DINOV3
#define CLIP DLORA_NAMING_HF_CLIP

static const struct family families[] = {
    {"timm_dinov2_reg4", "timm_dinov2_reg4", TIMM, 5, 64, AUTO, GELU},
    {"timm_deit3", "timm_deit3", TIMM, 1, 64, AUTO, GELU},
    {"timm_deit_distilled", "timm_deit_distilled", TIMM, 2, 64, AUTO, GELU},
    {"timm_deit_distilled_mean", "timm_deit_distilled_mean", TIMM, 2, 64, AUTO, GELU},
    {"timm_siglip", "timm_siglip", TIMM, 0, 64, AUTO, GELU},
    {"timm_siglip_gap", "timm_siglip_gap", TIMM, 0, 64, AUTO, GELU},
    {"timm_reg4_map", "timm_reg4_map", TIMM, 4, 64, AUTO, GELU},
    {"timm_reg4_gap", "timm_reg4_gap", TIMM, 4, 64, AUTO, GELU},
    {"timm_radio", "timm_radio", TIMM, 8, 64, AUTO, GELU},
    {"timm_clip", "timm_clip", TIMM, 1, 64, AUTO, GELU},
    {"timm_clip_quickgelu", "timm_clip_quickgelu", TIMM, 1, 64, QUICK, QUICK},
    {"timm_dinov2_giant", "timm_dinov2_giant", TIMM, 1, 64, AUTO, SWIGLU},
    {"dinov2_giant_original", "timm_dinov2_giant", TIMM, 1, 64, SWIGLU, SWIGLU},
    {"timm_dinov3", "timm_dinov3", TIMM, 5, 64, AUTO, GELU},
    {"timm_dinov3_qkvb", "timm_dinov3_qkvb", TIMM, 5, 64, AUTO, GELU},
    {"timm_dinov3_plus", "timm_dinov3_plus", TIMM, 5, 64, AUTO, SWIGLU},
    {"timm_aimv2", "timm_aimv2", TIMM, 0, 64, AUTO, SWIGLU},
    {"timm_eva02", "timm_eva02", TIMM, 1, 64, AUTO, SWIGLU},
    {"timm_eva02_clip", "timm_eva02_clip", TIMM, 1, 64, AUTO, SWIGLU},
    {"timm_beit3", "timm_beit3", TIMM, 1, 64, AUTO, GELU},
    {"timm_eva_giant_clip", "timm_eva_giant_clip", TIMM, 1, 64, AUTO, GELU},
    {"hf_vit", "hf_vit", VIT, 1, 64, AUTO, GELU},
    {"hf_vit_5", "hf_vit", VIT, 1, 64, AUTO, GELU},
    {"hf_deit", "hf_deit", VIT, 2, 64, AUTO, GELU},
    {"hf_deit_5", "hf_deit", VIT, 2, 64, AUTO, GELU},
    {"hf_dinov2_registers", "hf_dinov2_registers", DINOV2, 5, 64, AUTO, GELU},
    {"hf_dinov2_registers_5", "hf_dinov2_registers", DINOV2, 5, 64, AUTO, GELU},
    {"hf_dinov2_giant", "hf_dinov2_giant", DINOV2, 1, 48, AUTO, SWIGLU},
    {"hf_dinov2_giant_5", "hf_dinov2_giant", DINOV2, 1, 48, AUTO, SWIGLU},
    {"hf_clip", "hf_clip", CLIP, 1, 64, AUTO, QUICK},
    {"hf_clip_gelu", "hf_clip_gelu", CLIP, 1, 64, AUTO, GELU},
    {"hf_siglip", "hf_siglip", DLORA_NAMING_HF_SIGLIP, 0, 64, AUTO, DLORA_ACTIVATION_GELU_TANH},
    {"hf_ijepa", "hf_ijepa", VIT, 0, 64, AUTO, GELU},
    {"hf_aimv2", "hf_aimv2", DLORA_NAMING_HF_AIMV2, 0, 64, AUTO, SWIGLU},
    {"hf_dinov3", "hf_dinov3", DINOV3, 5, 64, AUTO, GELU},
    {"hf_dinov3_5", "hf_dinov3", DINOV3, 5, 64, AUTO, GELU},
    {"hf_dinov3_plus", "hf_dinov3_plus", DINOV3, 5, 64, AUTO, SWIGLU},
    {"hf_dinov3_plus_5", "hf_dinov3_plus", DINOV3, 5, 64, AUTO, SWIGLU},
};
enum { FAMILIES = sizeof families / sizeof *families };

/* ---- a model with a residual pair at one site of the fixture, or at all ---- */

struct setup {
  struct test_fixture *fixture;
  dlora_model *model;
  dlora_bank *bank;
  dlora_images images;
  size_t first, count; /* sites of the fixture */
};

static dlora_model_options options_of(const struct family *family) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 16;
  if (strcmp(family->fixture, "timm_deit_distilled") == 0) options.pool = DLORA_POOL_CLASS;
  options.activation = family->option;
  return options;
}

static const char *path_of(const char *name, const char *ending) {
  char file[96];
  snprintf(file, sizeof file, "backbones/%s.%s", name, ending);
  return test_data(file);
}

static const float *factor(const struct setup *s, const char *prefix, size_t site, char letter, size_t *count) {
  char name[64];
  snprintf(name, sizeof name, "%s%zu.residual.%c", prefix, site, letter);
  return test_fixture_floats(s->fixture, name, count);
}

static size_t factor_dim(const struct setup *s, size_t site, char letter, size_t dim) {
  char name[64];
  snprintf(name, sizeof name, "%zu.residual.%c", site, letter);
  return test_fixture_dim(s->fixture, name, dim);
}

static struct setup set_up_with(const struct family *family, size_t first, size_t count, int32_t products) {
  struct setup s = {.fixture = test_fixture_open(path_of(family->fixture, "bin")), .first = first, .count = count};
  dlora_model_options options = options_of(family);
  const int32_t *places = test_fixture_ints(s.fixture, "sites", NULL);
  dlora_site sites[SITES];
  float *parameters = NULL;
  size_t at = 0, total = 0;
  options.products = products;
  assert_status(DLORA_OK, dlora_model_load(&s.model, path_of(family->file, "safetensors"), &options));
  assert_int_equal(test_fixture_dim(s.fixture, "sites", 0), SITES);
  for (size_t i = 0; i < count; i++) {
    sites[i] = (dlora_site){factor_dim(&s, first + i, 'a', 1), factor_dim(&s, first + i, 'b', 0),
                            places[2 * (first + i)], places[2 * (first + i) + 1]};
  }
  assert_status(DLORA_OK, dlora_bank_create(&s.bank, sites, count, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(s.bank));
  for (size_t i = 0; i < count; i++) {
    assert_status(DLORA_OK, dlora_bank_set_residual(s.bank, i, factor(&s, "", first + i, 'a', NULL),
                                                    factor_dim(&s, first + i, 'a', 0), 1));
  }
  assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, &parameters, NULL, &total));
  for (size_t i = 0; i < count; i++) {
    for (size_t k = 0; k < 2; k++) {
      size_t length = 0;
      const float *values = factor(&s, "", first + i, "ba"[k], &length);
      assert_true(at + length <= total);
      memcpy(parameters + at, values, length * sizeof *values);
      at += length;
    }
  }
  assert_int_equal(at, total);
  s.images = (dlora_images){.f32 = test_fixture_floats(s.fixture, "images", NULL),
                            .count = test_fixture_dim(s.fixture, "images", 0),
                            .height = test_fixture_dim(s.fixture, "images", 2),
                            .width = test_fixture_dim(s.fixture, "images", 3)};
  assert_int_equal(s.images.count, IMAGES);
  assert_int_equal(test_fixture_dim(s.fixture, "features", 1), DIM);
  return s;
}

static struct setup set_up(const struct family *family, size_t first, size_t count) {
  return set_up_with(family, first, count, DLORA_PRODUCTS_BLAS);
}

static void tear_down(struct setup *s) {
  dlora_bank_destroy(s->bank);
  dlora_model_destroy(s->model);
  test_fixture_close(s->fixture);
}

static dlora_session *session_of(const struct setup *s, int training, int32_t threads) {
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  dlora_session *session = NULL;
  options.max_batch = IMAGES;
  options.threads = threads;
  options.training = training;
  assert_status(DLORA_OK, dlora_session_create(&session, s->model, s->bank, &options));
  return session;
}

/* ---- against torch ---- */

static void check_features(const struct setup *s, dlora_session *session, int32_t terms, const char *expected) {
  float features[IMAGES * DIM];
  assert_status(DLORA_OK, dlora_session_forward(session, &s->images, terms, NULL, features));
  assert_close(features, test_fixture_floats(s->fixture, expected, NULL), IMAGES * DIM, FEATURE_TOLERANCE);
}

static void check_gradients(const struct setup *s) {
  float *gradients = NULL;
  size_t at = 0;
  assert_status(DLORA_OK, dlora_bank_get_parameters(s->bank, NULL, &gradients, NULL));
  for (size_t i = 0; i < s->count; i++) {
    for (size_t k = 0; k < 2; k++) {
      size_t count = 0;
      char what[64];
      const float *expected = factor(s, "grad.", s->first + i, "ba"[k], &count);
      snprintf(what, sizeof what, "gradient of %c at site %zu", "BA"[k], s -> first + i);
      test_assert_close(gradients + at, expected, count, GRADIENT_TOLERANCE, what, __FILE__, __LINE__);
      at += count;
    }
  }
}

static void features_and_gradients_match_torch(void **state) {
  (void)state;
  for (size_t f = 0; f < FAMILIES; f++) {
    for (int32_t threads = 1; threads <= 2; threads++) {
      print_message("%s, %d threads\n", families[f].file, (int)threads);
      struct setup s = set_up(&families[f], 0, SITES);
      dlora_session *session = session_of(&s, 1, threads), *inference = session_of(&s, 0, threads);
      check_features(&s, session, 0, "plain");
      check_features(&s, session, DLORA_TERM_RESIDUAL, "features");
      check_features(&s, inference, DLORA_TERM_RESIDUAL, "features");
      assert_status(DLORA_OK,
                    dlora_session_backward(session, s.bank, test_fixture_floats(s.fixture, "feature_gradients", NULL)));
      check_gradients(&s);
      dlora_session_destroy(inference);
      dlora_session_destroy(session);
      tear_down(&s);
    }
  }
}

static void what_tensors_tell_is_told(void **state) {
  (void)state;
  for (size_t f = 0; f < FAMILIES; f++) {
    const struct family *family = &families[f];
    const dlora_model_options options = options_of(family);
    dlora_model_info info = {.struct_size = sizeof info};
    dlora_model *model = NULL;
    assert_status(DLORA_OK, dlora_model_load(&model, path_of(family->file, "safetensors"), &options));
    assert_status(DLORA_OK, dlora_model_get_info(model, &info));
    assert_int_equal(info.naming, family->naming);
    assert_int_equal(info.num_prefix_tokens, family->prefix_tokens);
    assert_int_equal(info.num_tokens, family->prefix_tokens + 16);
    assert_int_equal(info.mlp_dim, family->mlp_dim);
    assert_int_equal(info.activation, family->activation);
    const int five = strstr(family->file, "timm_clip") || strstr(family->file, "hf_clip") ||
                     strstr(family->file, "dinov3") || strstr(family->file, "aimv2") || strstr(family->file, "beit3");
    assert_true(fabsf(info.layer_norm_eps - (five ? 1e-5f : 1e-6f)) < 1e-9f);
    dlora_model_destroy(model);
  }
}

/* Weights with the update merged into them, fc1's of both halves: the features of the update. */
static void merged_updates_give_the_same_features(void **state) {
  (void)state;
  for (size_t f = 0; f < FAMILIES; f++) {
    struct setup s = set_up(&families[f], 0, SITES);
    assert_status(DLORA_OK, dlora_bank_set_merge_fractions(s.bank, 0.0f, 1.0f));
    assert_status(DLORA_OK, dlora_bank_commit_task(s.bank));
    dlora_session *session = session_of(&s, 0, 1);
    check_features(&s, session, DLORA_TERM_MERGED, "features");
    dlora_session_destroy(session);
    tear_down(&s);
  }
}

static void an_image_does_not_depend_on_the_others(void **state) {
  (void)state;
  for (size_t f = 0; f < FAMILIES; f++) {
    struct setup s = set_up(&families[f], 0, SITES);
    float together[IMAGES * DIM], alone[IMAGES * DIM];
    assert_status(DLORA_OK, dlora_model_embed(s.model, &s.images, together));
    for (size_t i = 0; i < IMAGES; i++) {
      dlora_images one = s.images;
      one.f32 += i * 3 * one.height * one.width;
      one.count = 1;
      assert_status(DLORA_OK, dlora_model_embed(s.model, &one, alone + i * DIM));
    }
    assert_close(alone, together, IMAGES * DIM, 2e-6);
    assert_close(together, test_fixture_floats(s.fixture, "plain", NULL), IMAGES * DIM, FEATURE_TOLERANCE);
    tear_down(&s);
  }
}

/* Names of different writers give the same model, its activation another one. */
static void fingerprints_are_those_of_what_is_computed(void **state) {
  (void)state;
  for (size_t f = 0; f < FAMILIES; f++) {
    for (int changed = 0; changed < 2; changed++) {
      const struct family *family = &families[f];
      char prints[2][40];
      for (size_t i = 0; i < 2; i++) {
        dlora_model_options options = options_of(family);
        dlora_model_info info = {.struct_size = sizeof info};
        dlora_model *model = NULL;
        if (i == 1 && changed && family->activation == SWIGLU) continue;
        if (i == 1 && changed) options.activation = family->activation == GELU ? DLORA_ACTIVATION_GELU_TANH : GELU;
        const char *file = i == 1 && !changed ? family->fixture : family->file;
        assert_status(DLORA_OK, dlora_model_load(&model, path_of(file, "safetensors"), &options));
        assert_status(DLORA_OK, dlora_model_get_info(model, &info));
        memcpy(prints[i], info.fingerprint, sizeof prints[i]);
        dlora_model_destroy(model);
      }
      if (!changed) assert_string_equal(prints[0], prints[1]);
      if (changed && family->activation != SWIGLU) assert_string_not_equal(prints[0], prints[1]);
    }
  }
}

/* ---- packed and bfloat16 products, where this machine has them ---- */

static int has_products(int32_t products) {
  dlora_model_options options = options_of(&families[0]);
  dlora_model *model = NULL;
  options.products = products;
  const dlora_status status = dlora_model_load(&model, path_of(families[0].file, "safetensors"), &options);
  dlora_model_destroy(model);
  assert_true(status == DLORA_OK || status == DLORA_ERR_UNSUPPORTED);
  return status == DLORA_OK;
}

/* |found - expected| / |expected| */
static double distance(const float *found, const float *expected, size_t count) {
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < count; i++) {
    const double d = (double)found[i] - (double)expected[i];
    error += d * d;
    norm += (double)expected[i] * (double)expected[i];
  }
  return sqrt(error / norm);
}

/* Features and gradients with these products, each [rows] of a batch at a time. */
static void run_with(const struct family *family, int32_t products, size_t rows, float *features, float *gradients) {
  struct setup s = set_up_with(family, 0, SITES, products);
  dlora_session *session = session_of(&s, 1, 1);
  const float *feature_gradients = test_fixture_floats(s.fixture, "feature_gradients", NULL);
  float *sums = NULL;
  size_t total = 0;
  for (size_t i = 0; i < IMAGES; i += rows) {
    dlora_images part = s.images;
    part.f32 += i * 3 * part.height * part.width;
    part.count = rows;
    assert_status(DLORA_OK, dlora_session_forward(session, &part, DLORA_TERM_RESIDUAL, NULL, features + i * DIM));
    assert_status(DLORA_OK, dlora_session_backward(session, s.bank, feature_gradients + i * DIM));
  }
  assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, NULL, &sums, &total));
  assert_true(total <= MOST_PARAMETERS);
  memcpy(gradients, sums, total * sizeof *sums);
  memset(gradients + total, 0, (MOST_PARAMETERS - total) * sizeof *sums);
  dlora_session_destroy(session);
  tear_down(&s);
}

static void other_products_agree_with_those_of_the_blas(void **state) {
  (void)state;
  static const struct {
    int32_t products;
    double features, gradients;
  } kinds[] = {{DLORA_PRODUCTS_PACKED, 1e-5, 1e-3}, {DLORA_PRODUCTS_BFLOAT16, 5e-2, 1e-1}};
  if (!has_products(DLORA_PRODUCTS_PACKED)) skip();
  float *gradients[2];
  for (size_t i = 0; i < 2; i++) assert_non_null(gradients[i] = malloc(MOST_PARAMETERS * sizeof **gradients));
  for (size_t k = 0; k < 2; k++) {
    if (!has_products(kinds[k].products)) continue;
    for (size_t f = 0; f < FAMILIES; f++) {
      float wanted[IMAGES * DIM], together[IMAGES * DIM], alone[IMAGES * DIM];
      print_message("%s, products %d\n", families[f].file, (int)kinds[k].products);
      run_with(&families[f], DLORA_PRODUCTS_BLAS, IMAGES, wanted, gradients[0]);
      run_with(&families[f], kinds[k].products, IMAGES, together, gradients[1]);
      assert_true(distance(together, wanted, IMAGES * DIM) < kinds[k].features);
      assert_true(distance(gradients[1], gradients[0], MOST_PARAMETERS) < kinds[k].gradients);
      run_with(&families[f], kinds[k].products, 1, alone, gradients[1]);
      /* In bfloat16 bit by bit, as rounding would make more of any difference. */
      if (kinds[k].products == DLORA_PRODUCTS_BFLOAT16) assert_memory_equal(alone, together, sizeof alone);
      assert_true(distance(alone, together, IMAGES * DIM) < 1e-5);
      assert_true(distance(gradients[1], gradients[0], MOST_PARAMETERS) < kinds[k].gradients);
    }
  }
  for (size_t i = 0; i < 2; i++) free(gradients[i]);
}

/* ---- against finite differences ---- */

static double loss(const struct setup *s, dlora_session *session) {
  const float *weights = test_fixture_floats(s->fixture, "feature_gradients", NULL);
  float features[IMAGES * DIM];
  double sum = 0.0;
  assert_status(DLORA_OK, dlora_session_forward(session, &s->images, DLORA_TERM_RESIDUAL, NULL, features));
  for (size_t i = 0; i < IMAGES * DIM; i++) sum += (double)weights[i] * (double)features[i];
  return sum;
}

/* The derivative along the gradient by central differences of fourth order is the gradient's length. */
static void check_slope(const struct setup *s, dlora_session *session, float *values, const float *gradient,
                        size_t count) {
  static const struct { double step, weight; } points[] = {{0.02, 8.0}, {-0.02, -8.0}, {0.04, -1.0}, {-0.04, 1.0}};
  float *centre = malloc(count * sizeof *centre);
  double norm = 0.0, found = 0.0;
  assert_non_null(centre);
  memcpy(centre, values, count * sizeof *centre);
  for (size_t i = 0; i < count; i++) norm += (double)gradient[i] * (double)gradient[i];
  norm = sqrt(norm);
  assert_true(norm > 1e-2); /* or there would be nothing to see */
  for (size_t p = 0; p < 4; p++) {
    for (size_t i = 0; i < count; i++) {
      values[i] = (float)((double)centre[i] + points[p].step * (double)gradient[i] / norm);
    }
    found += points[p].weight * loss(s, session) / (12.0 * 0.02);
  }
  memcpy(values, centre, count * sizeof *values);
  free(centre);
  if (fabs(found - norm) > 5e-3 * norm + 2e-3) fail_msg("slope by differences %.6g, by the gradient %.6g", found, norm);
}

/* One site at a time, so that each is once the lowest: nothing below it may be needed. */
static void gradients_match_finite_differences_at_every_site(void **state) {
  (void)state;
  for (size_t f = 0; f < FAMILIES; f++) {
    if (strcmp(families[f].file, families[f].fixture) != 0) continue;
    print_message("%s\n", families[f].file);
    for (size_t site = 0; site < SITES; site++) {
      struct setup s = set_up(&families[f], site, 1);
      dlora_session *session = session_of(&s, 1, 1);
      float *parameters = NULL, *gradients = NULL;
      size_t total = 0, first = 0;
      loss(&s, session);
      assert_status(DLORA_OK,
                    dlora_session_backward(session, s.bank, test_fixture_floats(s.fixture, "feature_gradients", NULL)));
      assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, &parameters, &gradients, &total));
      factor(&s, "", site, 'b', &first);
      check_slope(&s, session, parameters, gradients, first);
      check_slope(&s, session, parameters + first, gradients + first, total - first);
      dlora_session_destroy(session);
      tear_down(&s);
    }
  }
}

/* ---- a learner ---- */

/* Widths of adapters, projectors and statistics follow the family. */
static void learners_adapt_every_projection(void **state) {
  (void)state;
  static const char *const chosen[] = {"timm_dinov2_reg4", "timm_dinov2_giant", "timm_dinov3_plus",
                                       "timm_aimv2",       "timm_eva02",        "hf_clip"};
  const int64_t classes[] = {3, 4};
  for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++) {
    size_t f = 0;
    while (strcmp(families[f].file, chosen[i]) != 0) f++;
    const dlora_model_options model_options = options_of(&families[f]);
    dlora_learner_options options = test_quick_options();
    dlora_model *model = NULL;
    print_message("%s\n", chosen[i]);
    assert_status(DLORA_OK, dlora_model_load(&model, path_of(chosen[i], "safetensors"), &model_options));
    options.sites = 63;
    options.first_block = 0;
    dlora_learner *learner = test_learner(model, &options);
    dlora_task_report report = {.struct_size = sizeof report};
    test_learn(learner, classes, 2, 40, 7, &report);
    struct test_pictures pictures = test_pictures(classes, 2, 50, 8);
    assert_true(test_accuracy(learner, &pictures) > 0.9);
    test_pictures_free(&pictures);
    dlora_learner_destroy(learner);
    dlora_model_destroy(model);
  }
}

/* ---- what contradicts the tensors ---- */

static void refuse(const char *file, const dlora_model_options *options, dlora_status expected, const char *named) {
  dlora_model *model = NULL;
  assert_status(expected, dlora_model_load(&model, path_of(file, "safetensors"), options));
  assert_null(model);
  assert_error_names(named);
}

static void activations_that_contradict_the_gate_are_refused(void **state) {
  (void)state;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 16;
  options.activation = SWIGLU;
  refuse("timm_clip", &options, DLORA_ERR_ARGUMENT, "not gated");
  options.activation = GELU;
  refuse("timm_dinov3_plus", &options, DLORA_ERR_ARGUMENT, "is gated");
}

static void heads_that_cannot_rotate_are_refused(void **state) {
  (void)state;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 16;
  options.num_heads = 16; /* of 2 channels */
  refuse("hf_dinov3", &options, DLORA_ERR_UNSUPPORTED, "num_heads");
}

/* DINOv3 has no tensor that tells its image size. */
static void rotary_models_take_any_image_size(void **state) {
  (void)state;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  dlora_model_info info = {.struct_size = sizeof info};
  dlora_model *model = NULL;
  assert_status(DLORA_OK, dlora_model_load(&model, path_of("hf_dinov3", "safetensors"), &options));
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  assert_int_equal(info.image_size, 224);
  dlora_model_destroy(model);
  options.image_size = 18;
  refuse("hf_dinov3", &options, DLORA_ERR_ARGUMENT, "image_size");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_tensors_tell_is_told),
      cmocka_unit_test(features_and_gradients_match_torch),
      cmocka_unit_test(merged_updates_give_the_same_features),
      cmocka_unit_test(an_image_does_not_depend_on_the_others),
      cmocka_unit_test(fingerprints_are_those_of_what_is_computed),
      cmocka_unit_test(other_products_agree_with_those_of_the_blas),
      cmocka_unit_test(gradients_match_finite_differences_at_every_site),
      cmocka_unit_test(learners_adapt_every_projection),
      cmocka_unit_test(activations_that_contradict_the_gate_are_refused),
      cmocka_unit_test(heads_that_cannot_rotate_are_refused),
      cmocka_unit_test(rotary_models_take_any_image_size),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
