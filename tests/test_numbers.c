/* Numbers and amounts at the edge: poisoned batches, denormals, data without any variation, one of everything, very
 * many of everything, and no room left.
 * SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { BATCHES = 4, PER_BATCH = 10, IMAGES = BATCHES * PER_BATCH, ONE = 3 * VIT_SIZE * VIT_SIZE };
static const int64_t four[] = {1, 2, 3, 4};
static dlora_model *model;

/* Probabilities are numbers that sum to 1, and what is saved decides bitwise the same. */
static void check_usable(const dlora_learner *learner, const dlora_images *images) {
  const size_t count = images->count, classes = dlora_learner_num_classes(learner);
  const char *path = test_temporary("numbers.safetensors");
  dlora_prediction *found = calloc(2 * count, sizeof *found);
  float *log_probs = calloc(count * classes, sizeof *log_probs);
  dlora_learner_options options = {.struct_size = sizeof options};
  dlora_learner *loaded = NULL;
  assert_non_null(found);
  assert_non_null(log_probs);
  assert_status(DLORA_OK, dlora_learner_predict(learner, images, found, log_probs));
  for (size_t i = 0; i < count; i++) {
    double sum = 0.0;
    for (size_t c = 0; c < classes; c++) {
      assert_true(log_probs[i * classes + c] <= 0.0f);
      sum += exp((double)log_probs[i * classes + c]);
    }
    assert_true(fabs(sum - 1.0) < 1e-6);
    assert_true(found[i].class_probability >= 0.0f && found[i].class_probability <= 1.0f);
    assert_true(found[i].task_probability >= 0.0f && found[i].task_probability <= 1.0f);
    assert_true(isfinite(found[i].unknown_score));
  }
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &options));
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &options));
  assert_status(DLORA_OK, dlora_learner_predict(loaded, images, found + count, NULL));
  assert_memory_equal(found + count, found, count * sizeof *found);
  dlora_learner_destroy(loaded);
  free(log_probs);
  free(found);
}

/* ---- poisoned batches ---- */

/* Pictures as ready floats [count, 3, size, size]. */
static float *floats_of(const struct test_pictures *p) {
  float *values = malloc(p->images.count * ONE * sizeof *values);
  assert_non_null(values);
  for (size_t i = 0; i < p->images.count; i++) {
    for (size_t j = 0; j < ONE; j++) {
      const size_t pixel = j % (ONE / 3), channel = j / (ONE / 3);
      values[i * ONE + j] = (float)p->pixels[i * ONE + pixel * 3 + channel] / 127.5f - 1.0f;
    }
  }
  return values;
}

static dlora_images batch_of(const float *values, size_t batch) {
  return (dlora_images){NULL, values + batch * PER_BATCH * ONE, PER_BATCH, VIT_SIZE, VIT_SIZE, 3};
}

enum call { OBSERVE_BEFORE, STEP, OBSERVE_AFTER, CALLS };

static dlora_status give(dlora_learner *learner, enum call call, const dlora_images *images, const int64_t *labels) {
  return call == STEP             ? dlora_learner_step(learner, images, labels, NULL)
         : call == OBSERVE_BEFORE ? dlora_learner_observe(learner, images, labels)
                                  : dlora_learner_observe_trained(learner, images, labels);
}

/* A task in an own loop. Before each call in `poisoned_call` (CALLS: none) comes a poisoned batch, which is refused. */
static void learn_task(dlora_learner *learner, float *values, const int64_t *labels, enum call poisoned_call,
                       float poison) {
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 2 * BATCHES));
  for (enum call call = OBSERVE_BEFORE; call < CALLS; call++) {
    if (call == STEP) assert_status(DLORA_OK, dlora_learner_begin_training(learner));
    for (size_t round = 0; round < (call == STEP ? 2u : 1u); round++) {
      for (size_t b = 0; b < BATCHES; b++) {
        const dlora_images images = batch_of(values, b);
        if (call == poisoned_call) { /* the last pixel of the last image of this batch */
          float *pixel = values + ((b + 1) * PER_BATCH) * ONE - 1, kept = *pixel;
          *pixel = poison;
          assert_status(DLORA_ERR_NOT_FINITE, give(learner, call, &images, labels + b * PER_BATCH));
          assert_error_names("image 9");
          *pixel = kept;
          if (call != OBSERVE_BEFORE) { /* and a label that is none */
            int64_t wrong[PER_BATCH];
            memcpy(wrong, labels + b * PER_BATCH, sizeof wrong);
            wrong[7] = INT64_MIN;
            assert_status(DLORA_ERR_ARGUMENT, give(learner, call, &images, wrong));
            assert_error_names("image 7");
          }
        }
        assert_status(DLORA_OK, give(learner, call, &images, labels + b * PER_BATCH));
      }
    }
  }
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL));
}

static void a_poisoned_batch_is_refused_and_leaves_no_trace(void **state) {
  (void)state;
  const float poisons[] = {NAN, INFINITY, -INFINITY};
  struct test_pictures p[2] = {test_pictures(four, 2, IMAGES / 2, 1), test_pictures(four + 2, 2, IMAGES / 2, 2)};
  float *values[2] = {floats_of(&p[0]), floats_of(&p[1])};
  dlora_learner_options options = test_quick_options();
  options.micro_batch = 4; /* the poison is in the last of three */
  options.crop_padding = 2;
  dlora_learner *clean = test_learner(model, &options);
  for (size_t t = 0; t < 2; t++) learn_task(clean, values[t], p[t].labels, CALLS, 0.0f);
  for (size_t i = 0; i < 3; i++) {
    dlora_learner *poisoned = test_learner(model, &options);
    for (size_t t = 0; t < 2; t++)
      learn_task(poisoned, values[t], p[t].labels, (enum call)((i + t) % CALLS), poisons[i]);
    test_assert_same_learner(poisoned, clean);
    dlora_learner_destroy(poisoned);
  }
  dlora_learner_destroy(clean);
  for (size_t t = 0; t < 2; t++) {
    free(values[t]);
    test_pictures_free(&p[t]);
  }
}

/* In one call for a whole task the batch cannot be left out: the task is discarded, and the next one is as if first. */
static void a_poisoned_task_is_discarded_and_leaves_no_trace(void **state) {
  (void)state;
  struct test_pictures p[2] = {test_pictures(four, 2, IMAGES / 2, 1), test_pictures(four + 2, 2, IMAGES / 2, 2)};
  const dlora_learner_options options = test_quick_options();
  dlora_learner *clean = test_learner(model, &options), *poisoned = test_learner(model, &options);
  for (size_t t = 0; t < 2; t++) {
    float *values = floats_of(&p[t]);
    const dlora_images images = {NULL, values, IMAGES, VIT_SIZE, VIT_SIZE, 3};
    assert_status(DLORA_OK, dlora_learner_learn_task(clean, &images, p[t].labels, NULL));
    for (size_t at = 0; at < IMAGES; at += 13) {
      const float kept = values[at * ONE + 100];
      values[at * ONE + 100] = INFINITY;
      assert_status(DLORA_ERR_NOT_FINITE, dlora_learner_learn_task(poisoned, &images, p[t].labels, NULL));
      assert_error_names("image");
      assert_int_equal(dlora_learner_num_tasks(poisoned), t);
      values[at * ONE + 100] = kept;
    }
    assert_status(DLORA_OK, dlora_learner_learn_task(poisoned, &images, p[t].labels, NULL));
    free(values);
    test_assert_same_learner(poisoned, clean);
    test_pictures_free(&p[t]);
  }
  dlora_learner_destroy(poisoned);
  dlora_learner_destroy(clean);
}

static void poisoned_features_leave_no_trace_in_the_parts(void **state) {
  (void)state;
  enum { DIM = 7, ROWS = 30 };
  float x[ROWS * DIM], bad[ROWS * DIM];
  int64_t labels[ROWS];
  uint32_t random = 2;
  unsigned char *bytes[2][2];
  size_t sizes[2][2];
  for (size_t i = 0; i < ROWS * DIM; i++) x[i] = test_normal(&random);
  for (size_t i = 0; i < ROWS; i++) labels[i] = (int64_t)(i % 3);
  for (int poisoned = 0; poisoned < 2; poisoned++) {
    dlora_predictor *predictor = NULL;
    dlora_projector *projector = NULL;
    assert_status(DLORA_OK, dlora_predictor_create(&predictor, DIM, NULL));
    assert_status(DLORA_OK, dlora_projector_create(&projector, DIM, NULL));
    for (size_t row = 0; row < ROWS; row += 10) {
      for (size_t i = 0; poisoned && i < 2; i++) {
        memcpy(bad, x, sizeof bad);
        bad[(row + 9) * DIM + DIM - 1] = i ? -INFINITY : NAN;
        assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_observe(predictor, bad + row * DIM, labels + row, 10));
        assert_error_names("9");
        assert_status(DLORA_ERR_NOT_FINITE,
                      dlora_predictor_observe_held_out(predictor, bad + row * DIM, labels + row, 10));
        assert_status(DLORA_ERR_NOT_FINITE, dlora_projector_observe(projector, bad + row * DIM, 10));
        assert_error_names("9");
      }
      assert_status(DLORA_OK, dlora_predictor_observe(predictor, x + row * DIM, labels + row, 10));
      assert_status(DLORA_OK, dlora_projector_observe(projector, x + row * DIM, 10));
    }
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.8f, NULL));
    const char *path = test_temporary("part.safetensors");
    assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
    bytes[poisoned][0] = test_read_file(path, &sizes[poisoned][0]);
    assert_status(DLORA_OK, dlora_projector_save(projector, path));
    bytes[poisoned][1] = test_read_file(path, &sizes[poisoned][1]);
    dlora_projector_destroy(projector);
    dlora_predictor_destroy(predictor);
  }
  for (size_t part = 0; part < 2; part++) {
    assert_int_equal(sizes[0][part], sizes[1][part]);
    assert_memory_equal(bytes[0][part], bytes[1][part], sizes[0][part]);
    free(bytes[0][part]);
    free(bytes[1][part]);
  }
}

/* ---- values ---- */

static void denormal_pixels_are_learnt_as_zeros_nearly(void **state) {
  (void)state;
  const dlora_learner_options options = test_quick_options();
  struct test_pictures p = test_pictures(four, 2, 10, 1);
  float *values = floats_of(&p), features[2][VIT_DIM];
  for (size_t i = 0; i < 20 * ONE; i++) values[i] *= FLT_MIN / 16.0f;
  const dlora_images images = {NULL, values, 20, VIT_SIZE, VIT_SIZE, 3};
  dlora_images one = images;
  one.count = 1;
  assert_true(fpclassify(values[0]) == FP_SUBNORMAL);
  assert_status(DLORA_OK, dlora_model_embed(model, &one, features[0]));
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &images, p.labels, NULL));
  check_usable(learner, &images);
  test_learn(learner, four + 2, 2, 10, 2, NULL); /* ordinary ones follow */
  check_usable(learner, &images);
  memset(values, 0, ONE * sizeof *values);
  assert_status(DLORA_OK, dlora_model_embed(model, &one, features[1]));
  assert_close(features[0], features[1], VIT_DIM, 1e-6);
  dlora_learner_destroy(learner);
  free(values);
  test_pictures_free(&p);
}

static void features_of_any_size_are_told_apart(void **state) {
  (void)state;
  enum { DIM = 5, ROWS = 40 };
  const float scales[] = {1e-41f, 1e-30f, 1e-10f, 1.0f, 1e10f, 1e17f};
  uint32_t random = 3;
  float x[ROWS * DIM];
  int64_t labels[ROWS];
  for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
    dlora_predictor *predictor = NULL;
    dlora_prediction predictions[ROWS];
    size_t right = 0;
    for (size_t i = 0; i < ROWS; i++) {
      labels[i] = (int64_t)(i % 2);
      for (size_t j = 0; j < DIM; j++) {
        x[i * DIM + j] = (test_normal(&random) + (labels[i] && j < 2 ? 4.0f : 0.0f)) * scales[s];
      }
    }
    assert_status(DLORA_OK, dlora_predictor_create(&predictor, DIM, NULL));
    assert_status(DLORA_OK, dlora_predictor_observe(predictor, x, labels, ROWS));
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    assert_status(DLORA_OK, dlora_predictor_predict(predictor, x, ROWS, predictions));
    for (size_t i = 0; i < ROWS; i++) {
      right += predictions[i].class_id == labels[i];
      assert_true(predictions[i].class_probability >= 0.5f && predictions[i].class_probability <= 1.0f);
    }
    if (right < 38) fail_msg("features of size %g: %zu of 40 right", (double)scales[s], right);
    dlora_predictor_destroy(predictor);
  }
}

/* All pixels of one value, or copies of one picture, under two labels: nothing varies, and nothing can be told apart.
 */
static void images_without_any_variation_can_be_learnt(void **state) {
  (void)state;
  for (int copies = 0; copies < 3; copies++) {
    for (int instant = 0; instant < 2; instant++) {
      dlora_learner_options options = test_quick_options();
      if (instant) options.rank_orthogonal = options.rank_residual = 0;
      struct test_pictures p = test_pictures(four, 2, 10, 1);
      for (size_t i = 0; i < 20; i++) {
        if (copies == 2) memcpy(p.pixels + i * ONE, p.pixels, ONE);
        if (copies < 2) memset(p.pixels + i * ONE, copies ? 255 : 0, ONE);
      }
      dlora_learner *learner = test_learner(model, &options);
      assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
      check_usable(learner, &p.images);
      test_learn(learner, four + 2, 2, 20, 2, NULL); /* what can be told apart is, afterwards */
      check_usable(learner, &p.images);
      struct test_pictures later = test_pictures(four + 2, 2, 20, 3);
      assert_true(test_accuracy(learner, &later) > 0.6);
      test_pictures_free(&later);
      dlora_learner_destroy(learner);
      test_pictures_free(&p);
    }
  }
}

/* ---- amounts ---- */

static void a_class_of_one_image_among_large_ones_is_learnt(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  struct test_pictures p = test_pictures(four, 2, 20, 1), single = test_pictures(four + 2, 1, 1, 2);
  uint8_t *pixels = malloc(41 * ONE);
  int64_t labels[41];
  assert_non_null(pixels);
  memcpy(pixels, p.pixels, 40 * ONE);
  memcpy(pixels + 40 * ONE, single.pixels, ONE);
  memcpy(labels, p.labels, sizeof p.labels[0] * 40);
  labels[40] = four[2];
  const dlora_images images = {pixels, NULL, 41, VIT_SIZE, VIT_SIZE, 3};
  for (int held_out = 0; held_out < 2; held_out++) {
    options.held_out = held_out ? 0.5f : 0.0f;
    dlora_learner *learner = test_learner(model, &options);
    dlora_prediction prediction;
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &images, labels, NULL));
    check_usable(learner, &images);
    assert_status(DLORA_OK, dlora_learner_predict(learner, &single.images, &prediction, NULL));
    assert_int_equal(prediction.class_id, four[2]);
    dlora_learner_destroy(learner);
  }
  free(pixels);
  test_pictures_free(&single);
  test_pictures_free(&p);
}

static void a_thousand_classes_fit_in_one_task(void **state) {
  (void)state;
  enum { MANY = 1000 };
  int64_t *classes = malloc(MANY * sizeof *classes);
  assert_non_null(classes);
  for (size_t i = 0; i < MANY; i++) classes[i] = (int64_t)i * 7919 - 3000000;
  for (int instant = 0; instant < 2; instant++) {
    dlora_learner_options options = test_quick_options();
    options.epochs = 1;
    options.batch_size = 250;
    if (instant) options.rank_orthogonal = options.rank_residual = 0;
    dlora_learner *learner = test_learner(model, &options);
    struct test_pictures p = test_pictures(classes, MANY, 2, 1);
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    assert_int_equal(dlora_learner_num_classes(learner), MANY);
    const dlora_images some = test_part(&p.images, 300, 100);
    check_usable(learner, &some);
    dlora_prediction predictions[100];
    size_t right = 0;
    assert_status(DLORA_OK, dlora_learner_predict(learner, &some, predictions, NULL));
    for (size_t i = 0; i < 100; i++) right += predictions[i].class_id == p.labels[300 + i];
    assert_true(right > 10); /* chance is a tenth of one */
    test_pictures_free(&p);
    dlora_learner_destroy(learner);
  }
  free(classes);
}

static void a_hundred_trained_tasks_fit(void **state) {
  (void)state;
  enum { MANY = 100 };
  int64_t classes[MANY];
  dlora_learner_options options = test_quick_options();
  options.epochs = 1;
  options.rank_orthogonal = options.rank_residual = 2;
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < MANY; t++) {
    classes[t] = (int64_t)t + 1;
    test_learn(learner, classes + t, 1, 6, (uint32_t)t + 1, NULL);
  }
  assert_int_equal(dlora_learner_num_tasks(learner), MANY);
  assert_int_equal(dlora_learner_num_classes(learner), MANY);
  struct test_pictures p = test_pictures(classes, MANY, 1, 5);
  check_usable(learner, &p.images);
  assert_true(test_accuracy(learner, &p) > 0.08); /* a hundredth is chance */
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* ---- no room ---- */

struct warnings {
  size_t count;
  char last[256];
};

static void keep_warning(int32_t level, const char *message, void *user) {
  struct warnings *warnings = user;
  if (level != DLORA_LOG_WARNING) return;
  warnings->count++;
  snprintf(warnings->last, sizeof warnings->last, "%s", message);
}

static void ranks_beyond_the_room_left_become_the_room_left(void **state) {
  (void)state;
  struct warnings warnings = {0};
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  dlora_learner_options options = test_quick_options();
  options.rank_orthogonal = options.rank_residual = VIT_DIM; /* as much as there is */
  options.epochs = 1;
  options.energy_threshold = 0.9f;
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_set_log(learner, keep_warning, &warnings));
  size_t used_min = 0, used_max = 0;
  for (size_t t = 0; t < 3; t++) {
    test_learn(learner, four + t % 2 * 2, 2, 10, (uint32_t)t + 1, &report);
    assert_true(report.rank_orthogonal_max <= VIT_DIM - used_min);
    assert_true(report.rank_orthogonal_min <= VIT_DIM - used_max);
    assert_true(report.used_directions_min >= used_min && report.used_directions_max <= VIT_DIM);
    used_min = report.used_directions_min;
    used_max = report.used_directions_max;
  }
  assert_true(used_min > 0);
  assert_true(warnings.count >= 2);
  assert_non_null(strstr(warnings.last, "directions are in use"));
  struct test_pictures p = test_pictures(four, 4, 10, 9);
  check_usable(learner, &p.images);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* m = D: the orthogonal branch has rank 0, the merged matrices stay as they are, and learning goes on. */
static void a_full_memory_ends_the_orthogonal_branch_only(void **state) {
  (void)state;
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  dlora_learner_options options = test_quick_options();
  options.energy_threshold = 1.0f;
  options.residual_merge_fraction = 0.0f;
  dlora_learner *learner = test_learner(model, &options);
  size_t tasks = 0;
  for (; tasks < 6 && report.used_directions_min < VIT_DIM; tasks++) {
    test_learn(learner, four + tasks % 2 * 2, 2, 20, (uint32_t)tasks + 1, &report);
  }
  assert_int_equal(report.used_directions_min, VIT_DIM);
  const dlora_bank *bank = dlora_learner_get_bank(learner);
  const float *merged = NULL;
  assert_status(DLORA_OK, dlora_bank_get_merged(bank, 0, &merged));
  assert_non_null(merged);
  float *before = malloc(VIT_DIM * VIT_DIM * sizeof *before);
  assert_non_null(before);
  memcpy(before, merged, VIT_DIM * VIT_DIM * sizeof *before);
  const int64_t later[] = {50, 51};
  for (int i = 0; i < 2; i++) {
    test_learn(learner, later, 2, 20, 40 + (uint32_t)i, &report);
    assert_int_equal(report.rank_orthogonal_max, 0);
    assert_int_equal(report.used_directions_max, VIT_DIM);
    assert_true(report.num_steps > 0 && isfinite(report.last_loss));
  }
  assert_status(DLORA_OK, dlora_bank_get_merged(bank, 0, &merged));
  assert_memory_equal(merged, before, VIT_DIM * VIT_DIM * sizeof *before);
  struct test_pictures p = test_pictures(later, 2, 20, 9);
  check_usable(learner, &p.images);
  assert_true(test_accuracy(learner, &p) > 0.5);
  test_pictures_free(&p);
  free(before);
  /* Without a residual branch there is then nothing to train, and statistics are still learnt. */
  options.rank_residual = 0;
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  test_learn(learner, four, 2, 20, 60, &report);
  assert_int_equal(report.rank_orthogonal_max, 0);
  dlora_learner_destroy(learner);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_poisoned_batch_is_refused_and_leaves_no_trace),
      cmocka_unit_test(a_poisoned_task_is_discarded_and_leaves_no_trace),
      cmocka_unit_test(poisoned_features_leave_no_trace_in_the_parts),
      cmocka_unit_test(denormal_pixels_are_learnt_as_zeros_nearly),
      cmocka_unit_test(features_of_any_size_are_told_apart),
      cmocka_unit_test(images_without_any_variation_can_be_learnt),
      cmocka_unit_test(a_class_of_one_image_among_large_ones_is_learnt),
      cmocka_unit_test(a_thousand_classes_fit_in_one_task),
      cmocka_unit_test(a_hundred_trained_tasks_fit),
      cmocka_unit_test(ranks_beyond_the_room_left_become_the_room_left),
      cmocka_unit_test(a_full_memory_ends_the_orthogonal_branch_only),
  };
  return test_run_with_vit(tests, &model);
}
