/* Instant learning: both ranks 0, or no epochs. Nothing is trained; a task costs one pass over its images.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { MANY = 30 };
static dlora_model *model;

static dlora_learner_options instant_options(void) {
  dlora_learner_options options = test_quick_options();
  options.rank_orthogonal = options.rank_residual = 0;
  return options;
}

static double accuracy_on(const dlora_learner *learner, const int64_t *classes, size_t num_classes) {
  struct test_pictures p = test_pictures(classes, num_classes, 20, 70);
  const double accuracy = test_accuracy(learner, &p);
  test_pictures_free(&p);
  return accuracy;
}

static void nothing_is_trained_and_classes_are_known(void **state) {
  (void)state;
  const int64_t classes[] = {1, 2, 3, 4};
  for (int no_epochs = 0; no_epochs < 2; no_epochs++) {
    dlora_learner_options options = no_epochs ? test_quick_options() : instant_options();
    if (no_epochs) options.epochs = 0;
    dlora_learner *learner = test_learner(model, &options);
    for (size_t t = 0; t < 2; t++) {
      dlora_task_report report = DLORA_TASK_REPORT_INIT;
      test_learn(learner, classes + 2 * t, 2, 20, (uint32_t)t + 1, &report);
      assert_int_equal(report.num_steps, 0);
      assert_int_equal(report.num_images, 40);
      assert_true(isnan(report.first_loss) && isnan(report.last_loss));
      assert_int_equal(report.rank_orthogonal_max, 0);
      assert_true(report.seconds_train == 0.0);
    }
    assert_int_equal(dlora_learner_num_tasks(learner), 2);
    assert_true(accuracy_on(learner, classes, 4) > 0.6);
    struct test_pictures p = test_pictures(classes, 4, 5, 71);
    float frozen[20 * VIT_DIM], adapted[20 * VIT_DIM];
    assert_status(DLORA_OK, dlora_model_embed(model, &p.images, frozen));
    assert_status(DLORA_OK, dlora_learner_embed(learner, &p.images, NULL, adapted));
    assert_close(adapted, frozen, (size_t)20 * VIT_DIM, 1e-5);
    for (size_t s = 0; s < dlora_bank_num_sites(dlora_learner_get_bank(learner)); s++) {
      const float *merged = frozen;
      dlora_adapter adapter;
      assert_status(DLORA_OK, dlora_bank_get_merged(dlora_learner_get_bank(learner), s, &merged));
      assert_null(merged);
      assert_status(DLORA_OK, dlora_bank_get_residual(dlora_learner_get_bank(learner), s, 1, &adapter));
      assert_int_equal(adapter.rank, 0);
    }
    assert_status(DLORA_OK, dlora_learner_begin_task(learner, 0));
    assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
    if (!no_epochs) {
      assert_status(DLORA_ERR_STATE, dlora_learner_begin_training(learner));
      assert_error_names("nothing to train");
      assert_status(DLORA_ERR_STATE, dlora_learner_step(learner, &p.images, p.labels, NULL));
      assert_error_names("nothing to train");
      assert_status(DLORA_ERR_STATE, dlora_learner_observe_trained(learner, &p.images, p.labels));
      assert_error_names("call dlora_learner_commit_task");
    }
    assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL)); /* without a step no second round */
    assert_int_equal(dlora_learner_num_tasks(learner), 3);
    test_pictures_free(&p);
    dlora_learner_destroy(learner);
  }
}

static void one_image_a_class_is_enough(void **state) {
  (void)state;
  const int64_t classes[] = {1, 2, 3, 4, 5};
  const int32_t readouts[] = {DLORA_READOUT_GAUSSIAN, DLORA_READOUT_RANDOM_PROJECTION};
  for (size_t r = 0; r < 2; r++) {
    dlora_learner_options options = instant_options();
    options.readout = readouts[r];
    options.random_features = 200;
    dlora_learner *learner = test_learner(model, &options);
    test_learn(learner, classes, 5, 1, 1, NULL);
    assert_int_equal(dlora_learner_num_classes(learner), 5);
    assert_true(accuracy_on(learner, classes, 5) > 0.3); /* a fifth is chance */
    dlora_learner_destroy(learner);
  }
}

/* The ordinary, trained kind as well. */
static void a_task_may_be_one_class_or_one_image(void **state) {
  (void)state;
  const int64_t classes[] = {1, 2, 3};
  for (int trained = 0; trained < 2; trained++) {
    for (size_t images = 1; images <= 20; images += 19) {
      dlora_learner_options options = trained ? test_quick_options() : instant_options();
      dlora_learner *learner = test_learner(model, &options);
      test_learn(learner, classes, 1, images, 1, NULL);
      struct test_pictures p = test_pictures(classes, 3, 10, 72);
      dlora_prediction predictions[30];
      assert_status(DLORA_OK, dlora_learner_predict(learner, &p.images, predictions, NULL));
      for (size_t i = 0; i < 30; i++) {
        assert_int_equal(predictions[i].class_id, 1);
        assert_true(fabsf(predictions[i].class_probability - 1.0f) < 1e-5f);
      }
      for (size_t t = 1; t < 3; t++) test_learn(learner, classes + t, 1, images, (uint32_t)t + 1, NULL);
      assert_int_equal(dlora_learner_num_tasks(learner), 3);
      const double accuracy = test_accuracy(learner, &p);
      assert_true(accuracy > (images == 1 ? 0.4 : 0.6));
      test_pictures_free(&p);
      dlora_learner_destroy(learner);
    }
  }
}

static void instant_tasks_survive_their_file_and_a_trained_one_follows(void **state) {
  (void)state;
  const int64_t classes[] = {1, 2, 3, 4, 5, 6};
  const char *path = test_temporary("instant.safetensors");
  dlora_learner_options options = instant_options();
  dlora_learner *learner = test_learner(model, &options), *loaded = NULL;
  test_learn(learner, classes, 2, 20, 1, NULL);
  test_learn(learner, classes + 2, 2, 20, 2, NULL);
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  const dlora_learner_options training = test_quick_options();
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &training));
  assert_true(accuracy_on(loaded, classes, 4) == accuracy_on(learner, classes, 4));
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  test_learn(loaded, classes + 4, 2, 20, 3, &report);
  assert_true(report.num_steps > 0);
  assert_int_equal(report.task, 2);
  assert_int_equal(report.rank_orthogonal_max, 4);
  assert_true(accuracy_on(loaded, classes, 6) > 0.5);
  /* And an instant one again. */
  assert_status(DLORA_OK, dlora_learner_configure(loaded, &options));
  const int64_t late[] = {7};
  test_learn(loaded, late, 1, 20, 4, NULL);
  assert_int_equal(dlora_learner_num_tasks(loaded), 4);
  assert_true(accuracy_on(loaded, late, 1) > 0.3);
  assert_true(accuracy_on(loaded, classes, 6) > 0.45);
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(learner);
}

static void thirty_tasks_keep_their_classes(void **state) {
  (void)state;
  int64_t classes[MANY];
  struct test_memory memory;
  test_memory_start(&memory);
  dlora_learner_options options = instant_options();
  options.allocator = &memory.allocator;
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < MANY; t++) {
    classes[t] = 1000 + 3 * (int64_t)t;
    test_learn(learner, &classes[t], 1, 20, (uint32_t)t + 1, NULL);
  }
  assert_int_equal(dlora_learner_num_tasks(learner), MANY);
  assert_int_equal(dlora_learner_num_classes(learner), MANY);
  assert_true(accuracy_on(learner, classes, MANY) > 8.0 / MANY);
  dlora_learner_destroy(learner);
  assert_int_equal(memory.live, 0);
}

static void thirty_trained_tasks_fill_the_memory_and_go_on(void **state) {
  (void)state;
  int64_t classes[MANY];
  dlora_learner_options options = test_quick_options();
  options.epochs = 1;
  dlora_learner *learner = test_learner(model, &options);
  size_t used = 0;
  for (size_t t = 0; t < MANY; t++) {
    dlora_task_report report = DLORA_TASK_REPORT_INIT;
    classes[t] = 1000 + 3 * (int64_t)t;
    test_learn(learner, &classes[t], 1, 20, (uint32_t)t + 1, &report);
    assert_true(report.used_directions_max >= used && report.used_directions_max <= VIT_DIM);
    used = report.used_directions_max;
  }
  assert_true(accuracy_on(learner, classes, MANY) > 8.0 / MANY);
  for (size_t block = 1; block < VIT_DEPTH; block++) { /* METHOD.md 11.1 */
    const dlora_projector *memory = dlora_learner_get_projector(learner, block, DLORA_INPUT_ATTENTION);
    size_t sum = 0;
    for (size_t t = 0; t < MANY; t++) {
      const float *bases = NULL;
      size_t count = 0;
      assert_status(DLORA_OK, dlora_projector_get_bases(memory, (int64_t)t, &bases, &count));
      sum += count;
    }
    assert_int_equal(sum, dlora_projector_size(memory));
  }
  dlora_learner_destroy(learner);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_trained_and_classes_are_known),
      cmocka_unit_test(one_image_a_class_is_enough),
      cmocka_unit_test(a_task_may_be_one_class_or_one_image),
      cmocka_unit_test(instant_tasks_survive_their_file_and_a_trained_one_follows),
      cmocka_unit_test(thirty_tasks_keep_their_classes),
      cmocka_unit_test(thirty_trained_tasks_fill_the_memory_and_go_on),
  };
  return test_run_with_vit(tests, &model);
}
