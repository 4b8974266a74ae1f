/* Probabilities of classes and of tasks sum to 1 within 1e-6, and none exceeds 1, whatever the size of the scores that
 * they are made of.
 * SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

#define TOLERANCE 1e-6

static const int64_t six[] = {1, 2, 3, 4, 5, 6};
static dlora_model *model;

/* Rows [n, count] of log-probabilities, or of probabilities. */
static void check_sums(const float *values, size_t n, size_t count, int logarithms, const char *what) {
  for (size_t i = 0; i < n; i++) {
    double sum = 0.0;
    for (size_t j = 0; j < count; j++) {
      const float value = values[i * count + j];
      const double p = logarithms ? exp((double)value) : (double)value;
      if (!isfinite(value) || !(p >= 0.0 && p <= 1.0)) {
        fail_msg("%s: row %zu has %.9g at %zu", what, i, (double)value, j);
      }
      sum += p;
    }
    if (!(fabs(sum - 1.0) <= TOLERANCE)) fail_msg("%s: row %zu sums to %.9g", what, i, sum);
  }
}

static void check_predictor(const dlora_predictor *predictor, const float *x, size_t n, const char *what) {
  const size_t num = dlora_predictor_num_components(predictor), classes = dlora_predictor_num_classes(predictor),
               tasks = dlora_predictor_num_tasks(predictor);
  float *components = calloc(n * num, sizeof *components), *logs = calloc(n * classes, sizeof *logs),
        *by_task = calloc(n * tasks, sizeof *by_task);
  dlora_prediction *found = calloc(n, sizeof *found);
  assert_true(components && logs && by_task && found);
  assert_status(DLORA_OK, dlora_predictor_posterior(predictor, x, n, components, logs, by_task, NULL));
  assert_status(DLORA_OK, dlora_predictor_predict(predictor, x, n, found));
  check_sums(components, n, num, 1, what);
  check_sums(logs, n, classes, 1, what);
  check_sums(by_task, n, tasks, 0, what);
  for (size_t i = 0; i < n; i++) {
    assert_true(found[i].class_probability > 0.0f && found[i].class_probability <= 1.0f);
    assert_true(found[i].task_probability > 0.0f && found[i].task_probability <= 1.0f);
  }
  free(found);
  free(by_task);
  free(logs);
  free(components);
}

/* ---- the predictor ---- */

enum { DIM = 8 };

/* `each` features of each of `classes` classes of `task`; the means of classes are `apart` noise deviations apart. */
static void fill(float *x, int64_t *labels, size_t classes, size_t each, size_t task, float apart, uint32_t *random) {
  for (size_t c = 0; c < classes; c++) {
    float mean[DIM];
    for (size_t j = 0; j < DIM; j++) mean[j] = apart * test_normal(random);
    for (size_t i = 0; i < each; i++) {
      labels[c * each + i] = (int64_t)(task * classes + c);
      for (size_t j = 0; j < DIM; j++) x[(c * each + i) * DIM + j] = mean[j] + test_normal(random);
    }
  }
}

/* Temperatures at their ends, classes near together and worlds apart, features among them and far away. */
static void probabilities_of_features_sum_to_1(void **state) {
  (void)state;
  enum { CLASSES = 5, EACH = 8, ROWS = CLASSES * EACH };
  static const float aparts[] = {0.0f, 1.0f, 1e3f, 1e6f, 1e12f}, temperatures[] = {0.05f, 1.0f, 100.0f};
  static const float scales[] = {0.0f, 1.0f, 1e3f, 1e9f, 1e15f};
  for (size_t a = 0; a < sizeof aparts / sizeof *aparts; a++) {
    for (size_t random_features = 0; random_features <= 20; random_features += 20) {
      dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
      dlora_predictor *predictor = NULL;
      float x[ROWS * DIM], probe[ROWS * DIM];
      int64_t labels[ROWS];
      uint32_t random = 7;
      if (random_features) options.readout = DLORA_READOUT_RANDOM_PROJECTION;
      options.random_features = random_features ? random_features : options.random_features;
      assert_status(DLORA_OK, dlora_predictor_create(&predictor, DIM, &options));
      for (size_t task = 0; task < 3; task++) {
        fill(x, labels, CLASSES, EACH, task, aparts[a], &random);
        assert_status(DLORA_OK, dlora_predictor_observe(predictor, x, labels, ROWS));
        assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
      }
      for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
        assert_status(DLORA_OK, dlora_predictor_set_temperature(predictor, temperatures[t]));
        for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
          char what[100];
          snprintf(what, sizeof what, "%s, means %g apart, temperature %g, features times %g",
                   random_features ? "random projection" : "Gaussians", (double)aparts[a], (double)temperatures[t],
                   (double)scales[s]);
          for (size_t i = 0; i < ROWS * DIM; i++) probe[i] = x[i] * scales[s];
          check_predictor(predictor, probe, ROWS, what);
        }
      }
      dlora_predictor_destroy(predictor);
    }
  }
}

/* Alike, the hardest to round: every one of a thousand logarithms is off to the same side. */
static void probabilities_of_a_thousand_classes_sum_to_1(void **state) {
  (void)state;
  enum { CLASSES = 1000, TASKS = 2 };
  for (int alike = 0; alike < 2; alike++) {
    dlora_predictor *predictor = NULL;
    float *x = calloc((size_t)CLASSES * 2 * DIM, sizeof *x);
    int64_t *labels = calloc((size_t)CLASSES * 2, sizeof *labels);
    uint32_t random = 5;
    assert_true(x && labels);
    assert_status(DLORA_OK, dlora_predictor_create(&predictor, DIM, NULL));
    for (size_t task = 0; task < TASKS; task++) {
      fill(x, labels, CLASSES, 2, task, 0.5f, &random);
      for (size_t c = 0; alike && c < CLASSES; c++) memcpy(x + c * 2 * DIM, x, (size_t)2 * DIM * sizeof *x);
      assert_status(DLORA_OK, dlora_predictor_observe(predictor, x, labels, (size_t)CLASSES * 2));
      assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    }
    assert_status(DLORA_OK, dlora_predictor_set_temperature(predictor, 1.0f));
    check_predictor(predictor, x, 100, alike ? "a thousand classes alike" : "a thousand classes");
    dlora_predictor_destroy(predictor);
    free(labels);
    free(x);
  }
}

/* ---- the learner, which puts heads and statistics together ---- */

/* The learner with the rows of its heads times `scale`, at most `most` in size. */
static dlora_learner *with_heads(const dlora_learner *learner, float scale, float most) {
  const char *path = test_temporary("heads.safetensors");
  dlora_learner_options options = {.struct_size = sizeof options};
  dlora_learner *changed = NULL;
  size_t size, length;
  unsigned char *bytes = test_saved(learner, &size);
  for (size_t t = 0; t < dlora_learner_num_tasks(learner); t++) {
    char name[48];
    snprintf(name, sizeof name, "head.%zu.weight", t);
    unsigned char *part = test_tensor(bytes, name, &length);
    for (size_t i = 0; i < length; i += sizeof(float)) {
      float value;
      memcpy(&value, part + i, sizeof value);
      value = fmaxf(-most, fminf(most, value * scale));
      memcpy(part + i, &value, sizeof value);
    }
  }
  test_write_file(path, bytes, size);
  free(bytes);
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &options));
  assert_status(DLORA_OK, dlora_learner_load(&changed, model, path, &options));
  return changed;
}

static void check_learner(const dlora_learner *learner, const struct test_pictures *p, const int64_t *given,
                          const char *what) {
  enum { CLASSES = sizeof six / sizeof *six };
  const size_t count = p->images.count;
  dlora_prediction *found = calloc(count, sizeof *found);
  float *logs = calloc(count * CLASSES, sizeof *logs);
  assert_true(found && logs);
  assert_int_equal(dlora_learner_num_classes(learner), CLASSES);
  assert_status(DLORA_OK, given ? dlora_learner_predict_with_tasks(learner, &p->images, given, found, logs)
                                : dlora_learner_predict(learner, &p->images, found, logs));
  check_sums(logs, count, CLASSES, 1, what);
  for (size_t i = 0; i < count; i++) {
    assert_true(found[i].class_probability > 0.0f && found[i].class_probability <= 1.0f);
    assert_true(found[i].task_probability >= 0.0f && found[i].task_probability <= 1.0f);
  }
  free(logs);
  free(found);
}

/* Logits of ordinary size, of millions, where a float cannot tell neighbours apart, and beyond what a float holds. */
static void probabilities_of_images_sum_to_1_whatever_the_heads(void **state) {
  (void)state;
  static const float scales[] = {1.0f, 1e6f, 1e12f, 1e30f, 3e38f};
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < 3; t++) test_learn(learner, six + 2 * t, 2, 10, (uint32_t)t + 1, NULL);
  struct test_pictures p = test_pictures(six, 6, 3, 9);
  int64_t given[18];
  for (size_t i = 0; i < 18; i++) given[i] = (int64_t)(i % 3); /* most of them wrong */
  for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
    dlora_learner *changed = with_heads(learner, scales[s], FLT_MAX);
    for (int32_t routing = DLORA_ROUTING_EARLY; routing <= DLORA_ROUTING_NONE; routing++) {
      for (int32_t within = DLORA_CLASS_SCORES_HEAD; within <= DLORA_CLASS_SCORES_BOTH; within++) {
        char what[100];
        snprintf(what, sizeof what, "heads times %g, routing %d, within %d", (double)scales[s], (int)routing,
                 (int)within);
        options.routing = routing;
        options.class_scores = within;
        assert_status(DLORA_OK, dlora_learner_configure(changed, &options));
        if (routing != DLORA_ROUTING_GIVEN) check_learner(changed, &p, NULL, what);
        check_learner(changed, &p, given, what);
      }
    }
    dlora_learner_destroy(changed);
  }
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* Images far from all that was learnt: floats beyond any photo's, within what the library takes. */
static void probabilities_of_strange_images_sum_to_1(void **state) {
  (void)state;
  enum { COUNT = 6, ONE = 3 * VIT_SIZE * VIT_SIZE };
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < 3; t++) test_learn(learner, six + 2 * t, 2, 10, (uint32_t)t + 1, NULL);
  float *values = calloc((size_t)COUNT * ONE, sizeof *values);
  assert_non_null(values);
  uint32_t random = 11;
  for (size_t i = 0; i < (size_t)COUNT * ONE; i++) {
    const size_t image = i / ONE;
    values[i] = image == 0 ? 0.0f : image < 3 ? (image == 1 ? 3.0f : -3.0f) : (float)image * test_uniform(&random);
  }
  const struct test_pictures p = {.images = {NULL, values, COUNT, VIT_SIZE, VIT_SIZE, 3}};
  for (int32_t routing = DLORA_ROUTING_EARLY; routing <= DLORA_ROUTING_NONE; routing++) {
    if (routing == DLORA_ROUTING_GIVEN) continue;
    options.routing = routing;
    assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
    check_learner(learner, &p, NULL, "strange images");
  }
  free(values);
  dlora_learner_destroy(learner);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(probabilities_of_features_sum_to_1),
      cmocka_unit_test(probabilities_of_a_thousand_classes_sum_to_1),
      cmocka_unit_test(probabilities_of_images_sum_to_1_whatever_the_heads),
      cmocka_unit_test(probabilities_of_strange_images_sum_to_1),
  };
  return test_run_with_vit(tests, &model);
}
