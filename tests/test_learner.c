/* The learner: it learns, remembers, tells tasks and unknown images apart, and measures itself rightly.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

static const int64_t six[] = {-7, 3, 1000000007, 40, 5, 60};
static dlora_model *model;

/* Three tasks of two of the six classes. */
static dlora_learner *learn_three_tasks(const dlora_learner_options *options) {
  dlora_learner *learner = test_learner(model, options);
  for (size_t t = 0; t < 3; t++) test_learn(learner, six + 2 * t, 2, 30, (uint32_t)t + 1, NULL);
  return learner;
}

/* ---- learning ---- */

static void training_beats_the_frozen_readout(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.first_block = 0;
  options.epochs = 16;
  options.learning_rate = 5e-3f;
  options.untouched_weight = 0.0f;
  options.crop_scale = 1.0f; /* training sees what is measured */
  options.jitter = 0.0f;
  dlora_learner *learner = test_learner(model, &options);
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  test_learn(learner, six, 6, 60, 1, &report);
  assert_true(report.first_loss > 0.3 && report.last_loss < 0.5 * report.first_loss);
  assert_int_equal(report.task, 0);
  assert_int_equal(report.num_classes, 6);
  assert_int_equal(report.num_images, 360);
  assert_int_equal(report.num_steps, 16 * ((324 + 15) / 16)); /* a tenth is held out */
  assert_true(report.used_directions_min > 0 && report.used_directions_min <= report.used_directions_max &&
              report.used_directions_max <= VIT_DIM);
  assert_int_equal(report.rank_orthogonal_min, 4);
  assert_int_equal(report.rank_orthogonal_max, 4);
  assert_true(report.seconds_observe > 0.0 && report.seconds_train > 0.0 && report.seconds_statistics > 0.0);

  struct test_pictures unseen = test_pictures(six, 6, 40, 77);
  const dlora_image_source source = test_source_of(&unseen);
  dlora_evaluation e = DLORA_EVALUATION_INIT;
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
  assert_true(e.untouched_accuracy > 0.3 && e.untouched_accuracy < 0.95);
  assert_true(e.accuracy > e.untouched_accuracy + 0.03);
  assert_true(e.ece < 0.15);
  test_pictures_free(&unseen);
  dlora_learner_destroy(learner);
}

/* Tasks of few images get more epochs unless their number is given; files keep that it was not. */
static void epochs_follow_the_number_of_images(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.epochs = DLORA_AUTO;
  dlora_learner *learner = test_learner(model, &options), *loaded = NULL;
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  test_learn(learner, six, 2, 100, 1, &report);
  assert_int_equal(report.num_steps, 4 * ((180 + 15) / 16)); /* a tenth is held out */
  const char *path = test_temporary("auto.safetensors");
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
  test_learn(loaded, six + 2, 2, 20, 2, &report);
  assert_int_equal(report.num_steps, 12 * ((36 + 15) / 16));
  test_learn(loaded, six + 4, 1, 2, 3, &report);
  assert_int_equal(report.num_steps, 36);
  assert_status(DLORA_OK, dlora_learner_get_options(loaded, &options));
  assert_true(options.epochs == DLORA_AUTO);
  options.epochs = 1;
  assert_status(DLORA_OK, dlora_learner_configure(loaded, &options));
  test_learn(loaded, six + 5, 1, 2, 4, &report);
  assert_int_equal(report.num_steps, 1);
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(learner);
}

static void later_tasks_are_learnt_and_earlier_ones_kept(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.epochs = 4;
  dlora_learner *learner = learn_three_tasks(&options);
  int64_t classes[6];
  assert_int_equal(dlora_learner_num_tasks(learner), 3);
  assert_int_equal(dlora_learner_num_classes(learner), 6);
  assert_status(DLORA_OK, dlora_learner_get_classes(learner, classes));
  assert_memory_equal(classes, six, sizeof six);
  for (size_t t = 0; t < 3; t++) { /* each task by itself, among all six classes */
    struct test_pictures unseen = test_pictures(six + 2 * t, 2, 30, 78);
    assert_true(test_accuracy(learner, &unseen) > 0.5);
    test_pictures_free(&unseen);
  }
  dlora_learner_destroy(learner);
}

static void a_class_that_recurs_adds_up_over_its_tasks(void **state) {
  (void)state;
  /* Class 1 looks like 101 in the first task and like 202 in the second. */
  const int64_t first[] = {101, 3}, second[] = {202, 4}, both[] = {1, 3, 4};
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t t = 0; t < 2; t++) {
    struct test_pictures p = test_pictures(t ? second : first, 2, 40, (uint32_t)t + 1);
    for (size_t i = 0; i < p.images.count; i++) p.labels[i] = p.labels[i] > 100 ? 1 : p.labels[i];
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    test_pictures_free(&p);
  }
  const dlora_predictor *predictor = dlora_learner_get_predictor(learner);
  int64_t classes[3], tasks[4], component_classes[4];
  assert_int_equal(dlora_learner_num_classes(learner), 3);
  assert_status(DLORA_OK, dlora_learner_get_classes(learner, classes));
  assert_memory_equal(classes, both, sizeof both);
  assert_int_equal(dlora_predictor_num_components(predictor), 4);
  assert_status(DLORA_OK, dlora_predictor_get_components(predictor, tasks, component_classes, NULL, NULL));
  const int64_t expected_tasks[] = {0, 0, 1, 1}, expected_classes[] = {1, 3, 1, 4};
  assert_memory_equal(tasks, expected_tasks, sizeof tasks);
  assert_memory_equal(component_classes, expected_classes, sizeof component_classes);

  int64_t truth[60];
  dlora_evaluation e = DLORA_EVALUATION_INIT;
  double matrix[4];
  for (size_t t = 0; t < 2; t++) { /* both looks are class 1 now, each known to its own task */
    const int64_t look[] = {t ? 202 : 101};
    struct test_pictures p = test_pictures(look, 1, 60, 79);
    for (size_t i = 0; i < 60; i++) {
      p.labels[i] = 1;
      truth[i] = (int64_t)t;
    }
    assert_true(test_accuracy(learner, &p) > 0.6);
    dlora_image_source source = test_source_of(&p);
    source.tasks = truth;
    assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
    assert_status(DLORA_OK, dlora_learner_get_accuracy_matrix(learner, matrix));
    assert_true(matrix[2 + t] == e.accuracy && (t || isnan(matrix[3]))); /* tasks without images keep what was known */
    assert_true(e.task_accuracy > 0.6);
    test_pictures_free(&p);
  }
  dlora_learner_destroy(learner);
}

/* ---- predictions ---- */

static void a_given_task_limits_the_classes_to_its_own(void **state) {
  (void)state;
  const int32_t within[] = {DLORA_CLASS_SCORES_HEAD, DLORA_CLASS_SCORES_STATISTICS, DLORA_CLASS_SCORES_BOTH};
  for (size_t w = 0; w < 3; w++) {
    dlora_learner_options options = test_quick_options();
    options.routing = DLORA_ROUTING_GIVEN;
    options.class_scores = within[w];
    dlora_learner *learner = learn_three_tasks(&options);
    struct test_pictures p = test_pictures(six, 6, 10, 80);
    dlora_prediction predictions[60];
    float log_probs[60 * 6];
    int64_t tasks[60];
    size_t right = 0;
    for (size_t i = 0; i < 60; i++) tasks[i] = (int64_t)(i % 6) / 2;
    assert_status(DLORA_OK, dlora_learner_predict_with_tasks(learner, &p.images, tasks, predictions, log_probs));
    for (size_t i = 0; i < 60; i++) {
      assert_int_equal(predictions[i].task, tasks[i]);
      assert_true(predictions[i].task_probability == 1.0f);
      assert_true(predictions[i].class_id == six[2 * tasks[i]] || predictions[i].class_id == six[2 * tasks[i] + 1]);
      const double sum = exp((double)log_probs[i * 6 + 2 * (size_t)tasks[i]]) +
                         exp((double)log_probs[i * 6 + 2 * (size_t)tasks[i] + 1]);
      assert_true(fabs(sum - 1.0) < 1e-6);
      right += predictions[i].class_id == p.labels[i];
    }
    assert_true(right > 45); /* half of 60 is chance */
    assert_status(DLORA_ERR_STATE, dlora_learner_predict(learner, &p.images, predictions, NULL));
    assert_error_names("dlora_learner_predict_with_tasks");
    tasks[7] = 3;
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_predict_with_tasks(learner, &p.images, tasks, predictions, NULL));
    assert_error_names("task 3 of image 7");
    tasks[7] = -1;
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_predict_with_tasks(learner, &p.images, tasks, predictions, NULL));
    tasks[7] = -2;
    float *features = calloc(60 * VIT_DIM, sizeof *features);
    assert_non_null(features);
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_embed(learner, &p.images, tasks, features));
    assert_error_names("task -2 of image 7");
    /* Where the caller alone knows the task, evaluation tells it. */
    const dlora_image_source source = test_source_of(&p);
    dlora_evaluation e = DLORA_EVALUATION_INIT;
    assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
    assert_true(e.accuracy == (double)right / 60.0 && e.task_accuracy == 1.0);
    assert_true(e.accuracy_given_task == e.accuracy);
    free(features);
    test_pictures_free(&p);
    dlora_learner_destroy(learner);
  }
}

/* p(class | task) of images whose classes are two a task, from log p(class): shares [count, 6]. */
static void shares_within_tasks(dlora_learner *learner, const dlora_learner_options *options,
                                const struct test_pictures *p, double *shares, float *tasks) {
  dlora_prediction predictions[60];
  float log_probs[60 * 6];
  assert_status(DLORA_OK, dlora_learner_configure(learner, options));
  assert_status(DLORA_OK, dlora_learner_predict(learner, &p->images, predictions, log_probs));
  for (size_t i = 0; i < 60 * 6; i++) {
    const double a = exp((double)log_probs[i]), b = exp((double)log_probs[i ^ 1]);
    shares[i] = a / (a + b);
    tasks[i / 2] = (float)(a + b);
  }
}

static void head_and_statistics_have_the_same_say(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.untouched_weight = 0.0f;
  dlora_learner *learner = learn_three_tasks(&options);
  struct test_pictures p = test_pictures(six, 6, 10, 80);
  double statistics[60 * 6], head[60 * 6], both[60 * 6], differ = 0.0;
  float tasks[3][60 * 3];
  options.routing = DLORA_ROUTING_NONE;
  shares_within_tasks(learner, &options, &p, statistics, tasks[0]);
  options.routing = DLORA_ROUTING_TWO_PASS;
  options.class_scores = DLORA_CLASS_SCORES_HEAD;
  shares_within_tasks(learner, &options, &p, head, tasks[1]);
  options.class_scores = DLORA_CLASS_SCORES_BOTH;
  shares_within_tasks(learner, &options, &p, both, tasks[2]);
  assert_close(tasks[1], tasks[0], 60 * 3, 1e-4);
  assert_close(tasks[2], tasks[0], 60 * 3, 1e-4);
  for (size_t i = 0; i < 60 * 6; i++) {
    const double a = sqrt(statistics[i] * head[i]), b = sqrt(statistics[i ^ 1] * head[i ^ 1]);
    assert_true(fabs(both[i] - a / (a + b)) < 1e-3);
    differ = fmax(differ, fabs(head[i] - statistics[i]));
  }
  assert_true(differ > 0.05); /* else this would show nothing */
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* T of the first task's head and of the statistics `base`, from the learner's file. */
static void temperatures_of(const dlora_learner *learner, double *head, double *statistics) {
  size_t size, length;
  float value;
  unsigned char *bytes = test_saved(learner, &size);
  memcpy(&value, test_tensor(bytes, "head.0.temperature", &length), sizeof value);
  assert_int_equal(length, sizeof value);
  memcpy(statistics, test_tensor(bytes, "base.temperature", &length), sizeof *statistics);
  assert_int_equal(length, sizeof *statistics);
  *head = (double)value;
  free(bytes);
}

/* Without held-out images a head has the T of Gaussian statistics of the same feature, or 0.7 times that of three; a
 * few images take it not far from there. Ridge regression has other scores, which do not count. */
static void a_head_is_as_sure_as_the_statistics_until_images_tell(void **state) {
  (void)state;
  const int32_t layers[] = {DLORA_FEATURE_LAYERS_AT_MIDDLE, DLORA_FEATURE_LAYERS_FINAL};
  for (size_t k = 0; k < 4; k++) {
    dlora_learner_options options = test_quick_options();
    options.feature_layers = layers[k / 2];
    options.held_out = k % 2 ? 0.05f : 0.0f;
    dlora_learner *learner = test_learner(model, &options);
    dlora_task_report report = DLORA_TASK_REPORT_INIT;
    test_learn(learner, six, 6, 10, 1, &report);
    assert_true(report.num_steps > 0);
    double head, statistics;
    temperatures_of(learner, &head, &statistics);
    const double off = log(head / ((k < 2 ? 0.7 : 1.0) * statistics));
    assert_true(fabs(log(statistics)) > 0.7); /* else a fixed T of 1 would do */
    if (k % 2) {
      assert_true(fabs(off) > 1e-3 && fabs(off) < 0.5);
    } else {
      assert_true(fabs(off) < 1e-6);
    }
    dlora_learner_destroy(learner);
  }
  /* Extremes that were never fitted end in a file that loads: one class, and a ridge regression. */
  for (int random = 0; random < 2; random++) {
    dlora_learner_options options = test_quick_options();
    options.held_out = 0.0f;
    options.temperature = 1e-30f;
    options.readout = random ? DLORA_READOUT_RANDOM_PROJECTION : DLORA_READOUT_GAUSSIAN;
    dlora_learner *learner = test_learner(model, &options), *loaded = NULL;
    test_learn(learner, six, 1, 10, 1, NULL);
    double head, statistics;
    temperatures_of(learner, &head, &statistics);
    assert_true(statistics < 1e-20);
    assert_true(fabs(head - (random ? 1.0 : 0.05)) < 1e-6);
    const char *path = test_temporary("extreme.safetensors");
    assert_status(DLORA_OK, dlora_learner_save(learner, path));
    assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
    dlora_learner_destroy(loaded);
    dlora_learner_destroy(learner);
  }
}

static void images_unlike_anything_learnt_are_told(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.held_out = 0.2f;
  options.unknown_quantile = 0.9f;
  options.epochs = 0; /* training moves so small a network as rounding has it */
  dlora_learner *learner = test_learner(model, &options);
  test_learn(learner, six, 6, 60, 1, NULL);
  struct test_pictures known = test_pictures(six, 6, 20, 81), noise = test_pictures(six, 6, 20, 82);
  uint32_t random = 9;
  for (size_t i = 0; i < noise.images.count * 3 * VIT_SIZE * VIT_SIZE; i++) {
    noise.pixels[i] = (uint8_t)(127.5f + 127.0f * test_uniform(&random));
  }
  dlora_prediction predictions[120];
  double score[2];
  size_t unknown[2];
  for (size_t k = 0; k < 2; k++) {
    score[k] = 0.0;
    unknown[k] = 0;
    assert_status(DLORA_OK, dlora_learner_predict(learner, k ? &noise.images : &known.images, predictions, NULL));
    for (size_t i = 0; i < 120; i++) {
      score[k] += (double)predictions[i].unknown_score / 120.0;
      unknown[k] += (size_t)predictions[i].unknown;
    }
  }
  assert_true(score[1] > score[0]);
  assert_true(unknown[0] < 40); /* 12 of 120 asked for */
  assert_true(unknown[1] > 80);

  /* The threshold follows the quantile; nothing is unknown where no image can be left out, one a class. */
  options.unknown_quantile = 0.3f;
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  assert_status(DLORA_OK, dlora_learner_predict(learner, &known.images, predictions, NULL));
  size_t more = 0;
  for (size_t i = 0; i < 120; i++) more += (size_t)predictions[i].unknown;
  assert_true(more > unknown[0] + 20);
  dlora_learner_destroy(learner);
  options.held_out = 0.0f;
  learner = test_learner(model, &options);
  test_learn(learner, six, 2, 1, 1, NULL);
  assert_status(DLORA_OK, dlora_learner_predict(learner, &noise.images, predictions, NULL));
  for (size_t i = 0; i < 120; i++) assert_int_equal(predictions[i].unknown, 0);
  dlora_learner_destroy(learner);
  test_pictures_free(&known);
  test_pictures_free(&noise);
}

/* ---- evaluation against hand-made numbers ---- */

struct expected {
  double accuracy, task_accuracy, given, ece, task_ece;
  double by_task[3];
};

static double calibration_error(const double *probability, const int *right, size_t count) {
  double error = 0.0;
  for (size_t bin = 0; bin < 15; bin++) {
    double confidence = 0.0, hits = 0.0;
    size_t members = 0;
    for (size_t i = 0; i < count; i++) {
      const size_t its_bin = probability[i] >= 1.0 ? 14 : (size_t)(probability[i] * 15.0);
      if (its_bin != bin) continue;
      confidence += probability[i];
      hits += right[i];
      members++;
    }
    if (members) error += (double)members / (double)count * fabs(hits / (double)members - confidence / (double)members);
  }
  return error;
}

/* From predictions of pictures whose class six[k] belongs to task k / 2. */
static struct expected measure(const dlora_learner *learner, const struct test_pictures *p) {
  const size_t count = p->images.count, classes = dlora_learner_num_classes(learner);
  dlora_prediction *predictions = calloc(count, sizeof *predictions);
  float *log_probs = calloc(count * classes, sizeof *log_probs);
  double *probability = calloc(2 * count, sizeof *probability);
  int *right = calloc(2 * count, sizeof *right);
  assert_true(predictions && log_probs && probability && right);
  struct expected e = {.accuracy = 0.0};
  double of_task[3] = {0.0};
  assert_status(DLORA_OK, dlora_learner_predict(learner, &p->images, predictions, log_probs));
  for (size_t i = 0; i < count; i++) {
    size_t k = 0;
    while (six[k] != p->labels[i]) k++;
    const size_t task = k / 2;
    const float *own = log_probs + i * classes + 2 * task;
    probability[i] = (double)predictions[i].class_probability;
    probability[count + i] = (double)predictions[i].task_probability;
    right[i] = predictions[i].class_id == p->labels[i];
    right[count + i] = predictions[i].task == (int64_t)task;
    e.accuracy += right[i] / (double)count;
    e.task_accuracy += right[count + i] / (double)count;
    e.given += (own[k % 2] > own[1 - k % 2]) / (double)count;
    e.by_task[task] += right[i];
    of_task[task] += 1.0;
  }
  for (size_t t = 0; t < 3; t++) e.by_task[t] = of_task[t] > 0.0 ? e.by_task[t] / of_task[t] : (double)NAN;
  e.ece = calibration_error(probability, right, count);
  e.task_ece = calibration_error(probability + count, right + count, count);
  free(right);
  free(probability);
  free(log_probs);
  free(predictions);
  return e;
}

static void assert_near(double found, double expected) {
  if (isnan(expected) ? isnan(found) : fabs(found - expected) <= 1e-6) return;
  fail_msg("%.9g, expected %.9g", found, expected);
}

static void evaluation_is_what_predictions_come_to(void **state) {
  (void)state;
  const int64_t more[] = {-7, 3, 1000000007, 40, 5, 60, 777}; /* 777 is never learnt */
  const struct {
    int32_t routing, untouched_baseline;
    float untouched_weight;
  } ways[] = {{DLORA_ROUTING_EARLY, 1, 0.0f},
              {DLORA_ROUTING_TWO_PASS, 1, 0.5f},
              {DLORA_ROUTING_NONE, 1, DLORA_AUTO},
              {DLORA_ROUTING_NONE, 0, DLORA_AUTO}};
  for (size_t r = 0; r < sizeof ways / sizeof *ways; r++) {
    dlora_learner_options options = test_quick_options();
    options.routing = ways[r].routing;
    options.untouched_baseline = ways[r].untouched_baseline;
    options.untouched_weight = ways[r].untouched_weight;
    options.micro_batch = 7;
    dlora_learner *learner = test_learner(model, &options);
    struct expected stages[3];
    double matrix[9];
    dlora_evaluation e = DLORA_EVALUATION_INIT;
    struct test_pictures all = test_pictures(more, 7, 10, 83);
    const dlora_image_source source = test_source_of(&all);
    for (size_t t = 0; t < 3; t++) {
      test_learn(learner, six + 2 * t, 2, 12, (uint32_t)t + 1, NULL); /* few images: imperfect on purpose */
      struct test_pictures learnt = test_pictures(six, 2 * t + 2, 10, 83);
      /* The same pictures as `all` has of these classes: draw order differs, so take them from there. */
      const size_t one = 3 * VIT_SIZE * VIT_SIZE;
      for (size_t i = 0; i < 10; i++) {
        for (size_t k = 0; k < 2 * t + 2; k++) {
          memcpy(learnt.pixels + (i * (2 * t + 2) + k) * one, all.pixels + (i * 7 + k) * one, one);
        }
      }
      stages[t] = measure(learner, &learnt);
      /* The accuracy of the untouched backbone is that of predictions by it alone. */
      const float weight = options.untouched_weight;
      options.untouched_weight = 1.0f;
      assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
      const double untouched = options.untouched_baseline ? measure(learner, &learnt).accuracy : (double)NAN;
      options.untouched_weight = weight;
      assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
      test_pictures_free(&learnt);
      assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
      assert_int_equal(e.num_images, 10 * (2 * t + 2));
      assert_int_equal(e.num_skipped, 70 - e.num_images);
      assert_near(e.accuracy, stages[t].accuracy);
      assert_near(e.task_accuracy, stages[t].task_accuracy);
      assert_near(e.accuracy_given_task, stages[t].given);
      assert_near(e.ece, stages[t].ece);
      assert_near(e.task_ece, stages[t].task_ece);
      assert_near(e.untouched_accuracy, untouched);
      double average = 0.0, forgetting = 0.0, transfer = 0.0;
      for (size_t i = 0; i <= t; i++) average += stages[i].accuracy / (double)(t + 1);
      for (size_t j = 0; j < t; j++) {
        double best = 0.0;
        for (size_t i = j; i < t; i++) best = fmax(best, stages[i].by_task[j]);
        forgetting += (best - stages[t].by_task[j]) / (double)t;
        transfer += (stages[t].by_task[j] - stages[j].by_task[j]) / (double)t;
      }
      assert_near(e.average_accuracy, average);
      assert_near(e.forgetting, t ? forgetting : (double)NAN);
      assert_near(e.backward_transfer, t ? transfer : (double)NAN);
    }
    assert_status(DLORA_OK, dlora_learner_get_accuracy_matrix(learner, matrix));
    for (size_t i = 0; i < 3; i++) {
      for (size_t j = 0; j < 3; j++) assert_near(matrix[3 * i + j], stages[i].by_task[j]);
    }
    assert_true(stages[2].accuracy < 1.0); /* or every number above would be a trivial one */
    test_pictures_free(&all);
    dlora_learner_destroy(learner);
  }
}

static void evaluation_refuses_what_it_cannot_measure(void **state) {
  (void)state;
  const int64_t never[] = {777};
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  struct test_pictures p = test_pictures(six, 2, 10, 84), unknown = test_pictures(never, 1, 3, 84);
  dlora_image_source source = test_source_of(&p);
  const dlora_image_source hopeless = test_source_of(&unknown);
  dlora_evaluation e = DLORA_EVALUATION_INIT;
  int64_t tasks[20] = {0};
  assert_status(DLORA_ERR_STATE, dlora_learner_evaluate(learner, &source, &e));
  test_learn(learner, six, 2, 12, 1, NULL);
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_evaluate(learner, &hopeless, &e));
  assert_error_names("none of the 3 images");
  tasks[4] = 1;
  source.tasks = tasks;
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_evaluate(learner, &source, &e));
  assert_error_names("task 1 of image 4");
  e.struct_size = 3;
  source.tasks = NULL;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_evaluate(learner, &source, &e));
  e.struct_size = SIZE_MAX;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_evaluate(learner, &source, &e));
  double accuracy = 0.0;
  assert_status(DLORA_OK, dlora_learner_get_accuracy_matrix(learner, &accuracy));
  assert_true(isnan(accuracy));                                            /* nothing refused was recorded */
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, NULL)); /* recording alone is fine */
  assert_status(DLORA_OK, dlora_learner_get_accuracy_matrix(learner, &accuracy));
  assert_true(accuracy > 0.5);
  test_pictures_free(&p);
  test_pictures_free(&unknown);
  dlora_learner_destroy(learner);
}

/* ---- images ---- */

/* The k-th image in one of three sizes, in colour or gray. */
struct mixed {
  struct test_pictures sizes[3];
};

static int32_t read_mixed(size_t index, dlora_images *image, void *user) {
  const struct mixed *mixed = user;
  *image = test_part(&mixed->sizes[index % 3].images, index, 1);
  return 0;
}

static void sources_may_mix_sizes_and_colours(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  struct mixed mixed;
  mixed.sizes[0] = test_pictures_sized(six, 2, 30, 1, VIT_SIZE, VIT_SIZE, 3);
  mixed.sizes[1] = test_pictures_sized(six, 2, 30, 1, 33, 20, 3);
  mixed.sizes[2] = test_pictures_sized(six, 2, 30, 1, 24, 40, 1);
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = read_mixed;
  source.user = &mixed;
  source.count = 60;
  source.labels = mixed.sizes[0].labels;
  assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
  dlora_evaluation e = DLORA_EVALUATION_INIT;
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &e));
  assert_true(e.accuracy > 0.7);
  for (size_t i = 0; i < 3; i++) { /* and predictions take any of them */
    dlora_prediction predictions[60];
    assert_status(DLORA_OK, dlora_learner_predict(learner, &mixed.sizes[i].images, predictions, NULL));
    test_pictures_free(&mixed.sizes[i]);
  }
  dlora_learner_destroy(learner);
}

static void gray_images_are_colour_images_of_equal_channels(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = learn_three_tasks(&options);
  struct test_pictures gray = test_pictures_sized(six, 6, 2, 4, 21, 19, 1);
  struct test_pictures colour = test_pictures_sized(six, 6, 2, 4, 21, 19, 3);
  for (size_t i = 0; i < 12 * 21 * 19 * 3; i++) colour.pixels[i] = gray.pixels[i / 3];
  dlora_prediction a[12], b[12];
  assert_status(DLORA_OK, dlora_learner_predict(learner, &gray.images, a, NULL));
  assert_status(DLORA_OK, dlora_learner_predict(learner, &colour.images, b, NULL));
  assert_memory_equal(a, b, sizeof a);
  colour.images.channels = 0; /* the same as 3 */
  assert_status(DLORA_OK, dlora_learner_predict(learner, &colour.images, a, NULL));
  assert_memory_equal(a, b, sizeof a);
  test_pictures_free(&gray);
  test_pictures_free(&colour);
  dlora_learner_destroy(learner);
}

static void class_names_are_kept_and_replaced(void **state) {
  (void)state;
  dlora_learner *learner = test_learner(model, NULL);
  char name[] = "caf\xc3\xa9 \"quoted\" \\ \n";
  assert_null(dlora_learner_get_class_name(learner, -7));
  assert_status(DLORA_OK, dlora_learner_set_class_name(learner, -7, name));
  assert_status(DLORA_OK, dlora_learner_set_class_name(learner, INT64_MIN, "smallest"));
  assert_status(DLORA_OK, dlora_learner_set_class_name(learner, INT64_MAX, ""));
  name[0] = 'x'; /* it was copied */
  assert_string_equal(dlora_learner_get_class_name(learner, -7), "caf\xc3\xa9 \"quoted\" \\ \n");
  const char *path = test_temporary("names.safetensors");
  dlora_learner *loaded = NULL;
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
  assert_string_equal(dlora_learner_get_class_name(loaded, -7), "caf\xc3\xa9 \"quoted\" \\ \n");
  assert_string_equal(dlora_learner_get_class_name(loaded, INT64_MIN), "smallest");
  assert_string_equal(dlora_learner_get_class_name(loaded, INT64_MAX), "");
  assert_null(dlora_learner_get_class_name(loaded, 0));
  assert_status(DLORA_OK, dlora_learner_set_class_name(loaded, -7, "coffee"));
  assert_string_equal(dlora_learner_get_class_name(loaded, -7), "coffee");
  assert_null(dlora_learner_get_class_name(NULL, -7));
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(learner);
  dlora_learner_destroy(NULL);
}

static int32_t count_notes(const dlora_tensor_info *info, void *user) {
  if (info->value && strncmp(info->name, "note.", 5) == 0) ++*(size_t *)user;
  return 0;
}

/* Also in the file of an open task, and whatever the order they come in. */
static void notes_are_kept_replaced_and_removed(void **state) {
  (void)state;
  static const char *const keys[] = {"m", "a run", "z.z", "b", "caf\xc3\xa9 \"quoted\"\n", "aa", "0", "n", "y"};
  enum { KEYS = sizeof keys / sizeof keys[0] };
  dlora_learner *learner = test_learner(model, NULL), *loaded = NULL;
  const char *path = test_temporary("notes.safetensors");
  size_t count = 0, plain_size = 0, size = 0;
  unsigned char *plain = test_saved(learner, &plain_size);
  assert_null(dlora_learner_get_note(learner, "m"));
  for (size_t i = 0; i < KEYS; i++) assert_status(DLORA_OK, dlora_learner_set_note(learner, keys[i], "first"));
  for (size_t i = 0; i < KEYS; i++)
    assert_status(DLORA_OK, dlora_learner_set_note(learner, keys[i], keys[KEYS - 1 - i]));
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 0));
  assert_status(DLORA_OK, dlora_learner_set_note(learner, "empty", ""));
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_inspect(path, count_notes, &count));
  assert_int_equal(count, KEYS + 1);
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
  test_assert_same_learner(learner, loaded);
  for (size_t i = 0; i < KEYS; i++) {
    assert_string_equal(dlora_learner_get_note(loaded, keys[i]), keys[KEYS - 1 - i]);
    assert_status(DLORA_OK, dlora_learner_set_note(loaded, keys[i], NULL));
    assert_null(dlora_learner_get_note(loaded, keys[i]));
    if (i + 1 < KEYS) assert_string_equal(dlora_learner_get_note(loaded, keys[i + 1]), keys[KEYS - 2 - i]);
  }
  assert_string_equal(dlora_learner_get_note(loaded, "empty"), "");
  assert_status(DLORA_OK, dlora_learner_set_note(loaded, "empty", NULL));
  assert_status(DLORA_OK, dlora_learner_set_note(loaded, "never set", NULL));
  assert_status(DLORA_OK, dlora_learner_discard_task(loaded));
  unsigned char *bytes = test_saved(loaded, &size); /* nothing is left of them */
  assert_int_equal(size, plain_size);
  assert_memory_equal(bytes, plain, size);
  free(bytes);
  free(plain);
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(learner);
}

/* One step of plain gradient descent on one batch, whose head can be worked out from the features alone: the loss is
 * cross-entropy of equation (3) divided by the objective's temperature, and the rows follow its gradient. */
static void a_step_follows_the_gradient_of_the_loss(void **state) {
  (void)state;
  enum { CLASSES = 3, COUNT = 24 };
  const float temperature = 2.5f, rate = 0.5f;
  dlora_learner_options options = test_quick_options();
  options.loss_temperature = temperature;
  options.learning_rate = rate;
  options.optimizer = DLORA_OPTIMIZER_SGD;
  options.momentum = 0.0f;
  options.schedule = DLORA_SCHEDULE_CONSTANT;
  options.flip = DLORA_FLIP_NONE;
  options.crop_scale = 1.0f;
  options.jitter = options.held_out = 0.0f;
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  dlora_learner *learner = test_learner(model, &options);
  struct test_pictures p = test_pictures(six, CLASSES, COUNT / CLASSES, 5);

  dlora_predictor_options readout = DLORA_PREDICTOR_OPTIONS_INIT;
  dlora_predictor *predictor = NULL;
  dlora_session_options wide = DLORA_SESSION_OPTIONS_INIT;
  dlora_session *session = NULL;
  float z[COUNT * VIT_DIM], w[CLASSES * VIT_DIM], b[CLASSES];
  readout.shrinkage = options.shrinkage;
  wide.max_batch = COUNT;
  assert_status(DLORA_OK, dlora_session_create(&session, model, dlora_learner_get_bank(learner), &wide));
  assert_status(DLORA_OK, dlora_session_forward(session, &p.images, 0, NULL, z));
  assert_status(DLORA_OK, dlora_predictor_create(&predictor, VIT_DIM, &readout));
  assert_status(DLORA_OK, dlora_predictor_observe(predictor, z, p.labels, COUNT));
  assert_status(DLORA_OK, dlora_predictor_linear_weights(predictor, 0, VIT_DIM, 1, w, b));
  double expected = 0.0;
  float after[CLASSES * VIT_DIM];
  memcpy(after, w, sizeof w);
  for (size_t i = 0; i < COUNT; i++) {
    double logits[CLASSES], sum = 0.0;
    for (size_t c = 0; c < CLASSES; c++) {
      logits[c] = (double)b[c];
      for (size_t j = 0; j < VIT_DIM; j++) logits[c] += (double)w[c * VIT_DIM + j] * (double)z[i * VIT_DIM + j];
      sum += exp(logits[c] / (double)temperature);
    }
    for (size_t c = 0; c < CLASSES; c++) {
      const double probability = exp(logits[c] / (double)temperature) / sum, right = p.labels[i] == six[c];
      if (right > 0.0) expected -= log(probability) / COUNT;
      const double slope = (double)rate * (probability - right) / (double)temperature / COUNT;
      for (size_t j = 0; j < VIT_DIM; j++) after[c * VIT_DIM + j] -= (float)(slope * (double)z[i * VIT_DIM + j]);
    }
  }

  float loss = 0.0f;
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 1));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(learner));
  assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, &loss));
  assert_true(expected > 0.01 && fabs((double)loss - expected) < 1e-4 * expected);
  assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &p.images, p.labels));
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL));
  size_t size, length;
  unsigned char *bytes = test_saved(learner, &size), *head = test_tensor(bytes, "head.0.weight", &length);
  float saved[CLASSES * VIT_DIM];
  assert_int_equal(length, sizeof saved);
  memcpy(saved, head, sizeof saved);
  assert_close(saved, after, CLASSES * VIT_DIM, 1e-4);
  assert_true(test_largest_change(after, w, CLASSES * VIT_DIM) > 1e-3);
  free(bytes);
  test_pictures_free(&p);
  dlora_predictor_destroy(predictor);
  dlora_session_destroy(session);
  dlora_learner_destroy(learner);
}

/* Features by the learner's own bank: z [count, VIT_DIM]. */
static void features_of(const dlora_learner *learner, const dlora_images *images, float *z) {
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  dlora_session *session = NULL;
  options.max_batch = images->count;
  assert_status(DLORA_OK, dlora_session_create(&session, model, dlora_learner_get_bank(learner), &options));
  assert_status(DLORA_OK, dlora_session_forward(session, images, DLORA_TERM_MERGED, NULL, z));
  dlora_session_destroy(session);
}

/* The class means of the final feature that a learner has in the end are those of the images, or of the images and
 * their mirror images, by the network as it is then. */
static void statistics_are_of_mirrored_images_too(void **state) {
  (void)state;
  enum { NUM = 3, EACH = 12, COUNT = NUM * EACH, WIDTH = 3 * VIT_DIM };
  struct test_pictures p = test_pictures(six, NUM, EACH, 8), q = test_pictures(six, NUM, EACH, 8);
  for (size_t i = 0; i < COUNT * 3 * VIT_SIZE * VIT_SIZE; i++) {
    const size_t channel = i % 3, x = i / 3 % VIT_SIZE, row = i / 3 / VIT_SIZE;
    q.pixels[i] = p.pixels[(row * VIT_SIZE + VIT_SIZE - 1 - x) * 3 + channel];
  }
  float *z[2] = {calloc(COUNT * VIT_DIM, sizeof **z), calloc(COUNT * VIT_DIM, sizeof **z)};
  assert_true(z[0] && z[1]);
  double differ = 0.0;
  for (int trains = 0; trains < 2; trains++) {
    for (int32_t flip = DLORA_FLIP_NONE; flip <= DLORA_FLIP_EVERYWHERE; flip++) {
      dlora_learner_options options = test_quick_options();
      options.flip = flip;
      options.untouched_baseline = 1;
      if (!trains) options.epochs = 0;
      dlora_learner *learner = test_learner(model, &options);
      assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
      features_of(learner, &p.images, z[0]);
      features_of(learner, &q.images, z[1]);
      double means[NUM * WIDTH];
      assert_status(DLORA_OK,
                    dlora_predictor_get_components(dlora_learner_get_predictor(learner), NULL, NULL, NULL, means));
      for (size_t c = 0; c < NUM; c++) {
        for (size_t j = 0; j < VIT_DIM; j++) {
          double own = 0.0, both = 0.0;
          for (size_t i = 0; i < COUNT; i++) {
            if (p.labels[i] != six[c]) continue;
            const double first = (double)z[0][i * VIT_DIM + j], second = (double)z[1][i * VIT_DIM + j];
            own += first / EACH;
            both += 0.5 * (first + second) / EACH;
          }
          const double found = means[c * WIDTH + 2 * VIT_DIM + j];
          assert_true(fabs(found - (flip == DLORA_FLIP_EVERYWHERE ? both : own)) < 1e-4 * (1.0 + fabs(found)));
          differ = fmax(differ, fabs(own - both));
        }
      }
      dlora_learner_destroy(learner);
    }
  }
  assert_true(differ > 0.01);
  free(z[0]);
  free(z[1]);
  test_pictures_free(&p);
  test_pictures_free(&q);
}

/* Means over a class's images of the attention input of block 1, of class tokens and of patch tokens [2, VIT_DIM]: what
 * enters the block, normed, times a gain plus a bias that are always the same. */
static void inputs_of_block_1(const dlora_learner *learner, const struct test_pictures *p, int64_t label,
                              double *means) {
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  dlora_session *session = NULL;
  size_t rows, dim, count = 0;
  options.max_batch = p->images.count;
  options.training = 1;
  assert_status(DLORA_OK, dlora_session_create(&session, model, dlora_learner_get_bank(learner), &options));
  assert_status(DLORA_OK, dlora_session_forward(session, &p->images, DLORA_TERM_MERGED, NULL, NULL));
  assert_status(DLORA_OK, dlora_session_get_input(session, 1, DLORA_INPUT_ATTENTION, NULL, &rows, &dim));
  float *values = calloc(rows * dim, sizeof *values);
  assert_non_null(values);
  assert_status(DLORA_OK, dlora_session_get_input(session, 1, DLORA_INPUT_ATTENTION, values, &rows, &dim));
  for (size_t i = 0; i < p->images.count; i++) count += p->labels[i] == label;
  memset(means, 0, 2 * VIT_DIM * sizeof *means);
  for (size_t i = 0; i < rows * dim; i++) {
    const size_t token = i / dim % VIT_TOKENS, patches = VIT_TOKENS - 1;
    if (p->labels[i / dim / VIT_TOKENS] != label) continue;
    means[(token ? VIT_DIM : 0) + i % dim] += (double)values[i] / (double)(count * (token ? patches : 1));
  }
  free(values);
  dlora_session_destroy(session);
}

/* Statistics on the middle of a network that is adapted below it: of the untouched network they are those of the same
 * block as the first adapted one; of an adapted one they are of what enters the block now, and old ones follow it. */
static void features_of_the_middle_follow_the_network(void **state) {
  (void)state;
  enum { EACH = 30, WIDTH = 3 * VIT_DIM, MIDDLE = 2 * VIT_DIM };
  struct test_pictures p = test_pictures(six, 2, EACH, 31), q = test_pictures(six + 2, 2, EACH, 32);
  double means[4 * WIDTH], expected[2 * WIDTH], before[2 * WIDTH], in[2][MIDDLE], gain[MIDDLE], bias[MIDDLE];
  dlora_learner_options options = test_quick_options();
  options.flip = DLORA_FLIP_NONE;
  options.learning_rate = 1e-2f;
  options.merge_decay = 0.0f;
  options.feature_layers = DLORA_FEATURE_LAYERS_AT_ADAPTER;
  options.epochs = 0;
  dlora_learner *upper = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_learn_task(upper, &p.images, p.labels, NULL));
  assert_status(DLORA_OK,
                dlora_predictor_get_components(dlora_learner_get_predictor(upper), NULL, NULL, NULL, expected));
  options.first_block = 0;
  options.feature_layers = DLORA_FEATURE_LAYERS_AT_MIDDLE;
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  assert_status(DLORA_OK,
                dlora_predictor_get_components(dlora_learner_get_predictor(learner), NULL, NULL, NULL, means));
  for (size_t i = 0; i < 2 * WIDTH; i++) assert_true(fabs(means[i] - expected[i]) < 1e-5);
  for (size_t c = 0; c < 2; c++) inputs_of_block_1(learner, &p, six[c], in[c]);
  for (size_t j = 0; j < MIDDLE; j++) {
    gain[j] = (in[0][j] - in[1][j]) / (means[j] - means[WIDTH + j]);
    bias[j] = in[0][j] - gain[j] * means[j];
  }
  dlora_learner_destroy(upper);
  dlora_learner_destroy(learner);

  options.epochs = 4;
  learner = test_learner(model, &options);
  double moved = 0.0, missed = 0.0, ignored = 0.0;
  for (size_t t = 0; t < 2; t++) {
    const struct test_pictures *pictures = t ? &q : &p;
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &pictures->images, pictures->labels, NULL));
    const dlora_predictor *predictor = dlora_learner_get_predictor(learner);
    assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, NULL, means));
    for (size_t c = 0; c < 2 * (t + 1); c++) {
      inputs_of_block_1(learner, c < 2 ? &p : &q, six[c], in[0]);
      for (size_t j = 0; j < MIDDLE; j++) {
        if (fabs(expected[j] - expected[WIDTH + j]) < 0.05) continue; /* from which the gain is not known well */
        const double now = (in[0][j] - bias[j]) / gain[j], found = means[c * WIDTH + j];
        if (c >= 2 * t) assert_true(fabs(found - now) < 2e-3);
        if (c < 2 && !t) moved = fmax(moved, fabs(now - expected[c * WIDTH + j]));
        if (c < 2 && t) missed += (found - now) * (found - now);
        if (c < 2 && t) ignored += (before[c * WIDTH + j] - now) * (before[c * WIDTH + j] - now);
      }
    }
    memcpy(before, means, sizeof before);
  }
  assert_true(moved > 0.02); /* by the first task */
  assert_true(ignored > 1e-4 && missed < 0.7 * ignored);
  dlora_learner_destroy(learner);
  test_pictures_free(&q);
  test_pictures_free(&p);
}

static void later_tasks_learn_at_their_own_rate(void **state) {
  (void)state;
  enum { COUNT = 12, VALUES = COUNT * VIT_DIM };
  struct test_pictures p = test_pictures(six, 6, COUNT / 6, 9);
  float z[3][VALUES];
  double moved[2];
  for (int slow = 0; slow < 2; slow++) {
    dlora_learner_options options = test_quick_options();
    options.learning_rate = 1e-2f;
    options.later_task_lr_scale = slow ? 0.0f : 1.0f;
    dlora_learner *learner = test_learner(model, &options);
    features_of(learner, &p.images, z[0]);
    for (size_t t = 0; t < 2; t++) {
      test_learn(learner, six + 2 * t, 2, 30, (uint32_t)t + 1, NULL);
      features_of(learner, &p.images, z[t + 1]);
      moved[t] = test_largest_change(z[t + 1], z[t], VALUES);
    }
    assert_true(moved[0] > 1e-3);
    assert_true(slow ? moved[1] == 0.0 : moved[1] > 1e-3);
    dlora_learner_destroy(learner);
  }
  test_pictures_free(&p);
}

/* Of the t-th task's residual update B_t A_t, share / t is in M and the rest of it is kept. */
static void residual_updates_are_shared_less_and_less(void **state) {
  (void)state;
  enum { TASKS = 3, VALUE_SITE = 1, VALUES = VIT_DIM * VIT_DIM };
  dlora_learner_options options = test_quick_options();
  options.rank_orthogonal = 0;
  options.residual_merge_fraction = 0.5f;
  options.merge_decay = 1.0f;
  options.learning_rate = 1e-2f;
  options.loss_temperature = 1000.0f; /* so that there is something to learn for an untrained network */
  dlora_learner *learner = test_learner(model, &options);
  const dlora_bank *bank = dlora_learner_get_bank(learner);
  float expected[VALUES] = {0.0f};
  for (size_t t = 0; t < TASKS; t++) {
    test_learn(learner, six + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
    const float *merged = NULL;
    const float share = 0.5f / (float)(t + 1);
    float largest = 0.0f;
    dlora_adapter kept;
    assert_status(DLORA_OK, dlora_bank_get_residual(bank, VALUE_SITE, (int64_t)t, &kept));
    assert_int_equal(kept.rank, options.rank_residual);
    for (size_t i = 0; i < VALUES; i++) {
      double product = 0.0;
      for (size_t k = 0; k < kept.rank; k++) {
        product += (double)kept.b[(i / VIT_DIM) * kept.rank + k] * (double)kept.a[k * VIT_DIM + i % VIT_DIM];
      }
      expected[i] += share / (1.0f - share) * (float)product;
      largest = fmaxf(largest, fabsf((float)product));
    }
    assert_true(largest > 1e-3f);
    assert_status(DLORA_OK, dlora_bank_get_merged(bank, VALUE_SITE, &merged));
    assert_close(merged, expected, VALUES, 1e-5);
  }
  dlora_learner_destroy(learner);
}

static void parts_are_lent_for_inspection(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.sites = DLORA_SITE_VALUE | DLORA_SITE_FC2;
  options.first_block = 1;
  options.num_blocks = 1;
  dlora_learner *learner = test_learner(model, &options);
  test_learn(learner, six, 2, 12, 1, NULL);
  const dlora_bank *bank = dlora_learner_get_bank(learner);
  assert_int_equal(dlora_bank_num_sites(bank), 2);
  assert_int_equal(dlora_bank_num_tasks(bank), 1);
  assert_int_equal(dlora_predictor_num_tasks(dlora_learner_get_predictor(learner)), 1);
  for (size_t block = 0; block <= VIT_DEPTH; block++) {
    for (int32_t input = -1; input <= 4; input++) {
      const dlora_projector *projector = dlora_learner_get_projector(learner, block, input);
      const int adapted = block == 1 && (input == DLORA_INPUT_ATTENTION || input == DLORA_INPUT_FC2);
      assert_int_equal(projector != NULL, adapted);
      if (adapted) assert_int_equal(dlora_projector_dim(projector), input == DLORA_INPUT_FC2 ? VIT_MLP : VIT_DIM);
    }
  }
  dlora_learner_destroy(learner);
}

static dlora_profile profile_of(const dlora_learner *learner) {
  dlora_profile profile = DLORA_PROFILE_INIT;
  assert_status(DLORA_OK, dlora_learner_get_profile(learner, &profile));
  return profile;
}

static void profile_counts_learning_but_not_predictions(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  struct test_pictures p = test_pictures(six, 2, 20, 1);
  const dlora_profile nothing = DLORA_PROFILE_INIT, before = profile_of(learner);
  assert_memory_equal(&before, &nothing, sizeof before);

  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 1));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
  const dlora_profile observed = profile_of(learner);
  assert_true(observed.observation > 0.0 && observed.products > 0.0 && observed.loss == 0.0);
  assert_status(DLORA_OK, dlora_learner_begin_training(learner));
  const dlora_profile begun = profile_of(learner);
  assert_true(begun.directions > 0.0 && begun.products == observed.products && begun.loss == 0.0);
  assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, NULL));
  const dlora_profile trained = profile_of(learner);
  assert_true(trained.loss > 0.0 && trained.optimizer > 0.0 && trained.adapters > 0.0);
  assert_true(trained.directions == begun.directions);
  assert_true(trained.products > observed.products && trained.observation == observed.observation);
  assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &p.images, p.labels));
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL));
  const dlora_profile ended = profile_of(learner); /* the task's pass is gone, its times are not */
  assert_true(ended.task_end > 0.0 && ended.products > trained.products && ended.observation > trained.observation);

  dlora_prediction prediction;
  const dlora_images one = test_part(&p.images, 0, 1);
  assert_status(DLORA_OK, dlora_learner_predict(learner, &one, &prediction, NULL));
  const dlora_profile predicted = profile_of(learner);
  assert_memory_equal(&predicted, &ended, sizeof ended);
  const dlora_image_source source = test_source_of(&p);
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, NULL));
  const dlora_profile evaluated = profile_of(learner);
  assert_true(evaluated.products > ended.products && evaluated.task_end == ended.task_end);

  dlora_profile wrong = {.struct_size = 4};
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_get_profile(learner, &wrong));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_get_profile(learner, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_get_profile(NULL, &wrong));
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* However large a micro-batch is, every image is offered to the sample that routing by energy is calibrated on. */
static void energy_is_sampled_from_the_whole_batch(void **state) {
  (void)state;
  enum { MANY = 4500 };
  const struct test_shape shape = {8, 1, 1, 8, VIT_SIZE, 1};
  dlora_model *small = NULL;
  assert_status(DLORA_OK, dlora_model_load(&small, test_write_vit_of("small.safetensors", 1, &shape), NULL));
  dlora_learner_options options = test_quick_options();
  options.routing = DLORA_ROUTING_ENERGY;
  options.first_block = 0;
  options.micro_batch = MANY;
  dlora_learner *learner = test_learner(small, &options);
  struct test_pictures p = test_pictures(six, 2, MANY / 2, 1);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 1));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
  size_t size = 0, length = 0;
  unsigned char *bytes = test_saved(learner, &size);
  uint64_t counts[12];
  const unsigned char *saved = test_tensor(bytes, "training.counts", &length);
  assert_int_equal(length, sizeof counts);
  memcpy(counts, saved, sizeof counts);
  assert_int_equal(counts[3], MANY); /* images observed */
  assert_int_equal(counts[9], MANY); /* offered: docs/FILES.md */
  free(bytes);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
  dlora_model_destroy(small);
}

/* What a call has taken the next one finds, whichever way features are routed, and images of another size too once they
 * have been seen. */
static void a_second_prediction_takes_no_memory(void **state) {
  (void)state;
  const int32_t relevances[] = {DLORA_ROUTING_NONE, DLORA_ROUTING_EARLY, DLORA_ROUTING_TWO_PASS, DLORA_ROUTING_ENERGY,
                                DLORA_ROUTING_GIVEN};
  const int64_t given[4] = {0, 1, 1, 0};
  struct test_pictures p = test_pictures(six, 2, 2, 5), large = test_pictures_sized(six, 2, 2, 5, 40, 30, 3);
  for (size_t i = 0; i < sizeof relevances / sizeof *relevances; i++) {
    for (int within = DLORA_CLASS_SCORES_HEAD; within <= DLORA_CLASS_SCORES_BOTH; within++) {
      struct test_memory memory;
      test_memory_start(&memory);
      dlora_learner_options options = test_quick_options();
      options.allocator = &memory.allocator;
      options.routing = relevances[i];
      options.class_scores = within;
      options.residual_merge_fraction = 0.5f;
      options.epochs = 1;
      options.threads = 2; /* where these meet is chance, and no count may depend on it */
      dlora_learner *learner = test_learner(model, &options);
      test_learn(learner, six, 2, 12, 1, NULL);
      test_learn(learner, six + 2, 2, 12, 2, NULL);
      dlora_prediction predictions[4];
      float logs[4 * 4], features[4 * VIT_DIM];
      size_t taken[2];
      for (int round = 0; round < 3; round++) {
        const dlora_images *images = round ? &large.images : &p.images;
        if (relevances[i] != DLORA_ROUTING_GIVEN) {
          assert_status(DLORA_OK, dlora_learner_predict(learner, images, predictions, logs));
        }
        assert_status(DLORA_OK, dlora_learner_predict_with_tasks(learner, images, given, predictions, logs));
        assert_status(DLORA_OK, dlora_learner_embed(learner, images, given, features));
        if (round) taken[round - 1] = memory.total;
      }
      assert_int_equal(taken[1], taken[0]);
      /* A part of it, used alone, keeps its scratch as well. */
      const dlora_predictor *predictor = dlora_learner_get_predictor(learner);
      float *x = calloc(dlora_predictor_dim(predictor), sizeof *x);
      assert_non_null(x);
      for (int round = 0; round < 3; round++) {
        assert_status(DLORA_OK, dlora_predictor_predict(predictor, x, 1, predictions));
        assert_status(DLORA_OK, dlora_predictor_posterior(predictor, x, 1, NULL, logs, NULL, NULL));
        if (round == 0) taken[1] = memory.total;
        assert_int_equal(memory.total, taken[1]);
      }
      free(x);
      dlora_learner_destroy(learner);
      assert_int_equal(memory.live, 0);
    }
  }
  test_pictures_free(&large);
  test_pictures_free(&p);
}

static void workspaces_are_kept_between_predictions_but_not_while_learning(void **state) {
  (void)state;
  struct test_memory memory;
  test_memory_start(&memory);
  dlora_learner_options options = test_quick_options();
  options.allocator = &memory.allocator;
  dlora_learner *learner = test_learner(model, &options);
  test_learn(learner, six, 2, 12, 1, NULL);
  struct test_pictures p = test_pictures(six, 2, 2, 5);
  const dlora_images one = test_part(&p.images, 1, 1);
  dlora_prediction all[4], again;
  const size_t before = memory.live;
  assert_status(DLORA_OK, dlora_learner_predict(learner, &p.images, all, NULL));
  const size_t kept = memory.live;
  assert_true(kept > before);
  for (int i = 0; i < 3; i++) assert_status(DLORA_OK, dlora_learner_predict(learner, &one, &again, NULL));
  assert_int_equal(memory.live, kept);
  assert_int_equal(again.class_id, all[1].class_id);
  assert_true(fabsf(again.class_probability - all[1].class_probability) < 1e-5f);
  assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
  assert_int_equal(memory.live, before);
  assert_status(DLORA_OK, dlora_learner_predict(learner, &one, &again, NULL));
  assert_int_equal(memory.live, kept);
  test_learn(learner, six + 2, 2, 12, 2, NULL); /* and what is kept after it knows the new task's adapters */
  assert_status(DLORA_OK, dlora_learner_predict(learner, &p.images, all, NULL));
  dlora_learner *fresh = NULL;
  const char *path = test_temporary("kept.safetensors");
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_learner_load(&fresh, model, path, &options));
  dlora_prediction expected[4];
  assert_status(DLORA_OK, dlora_learner_predict(fresh, &p.images, expected, NULL));
  assert_memory_equal(all, expected, sizeof all);
  dlora_learner_destroy(fresh);
  dlora_learner_destroy(learner);
  assert_int_equal(memory.live, 0);
  test_pictures_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(training_beats_the_frozen_readout),
      cmocka_unit_test(epochs_follow_the_number_of_images),
      cmocka_unit_test(later_tasks_are_learnt_and_earlier_ones_kept),
      cmocka_unit_test(a_class_that_recurs_adds_up_over_its_tasks),
      cmocka_unit_test(a_given_task_limits_the_classes_to_its_own),
      cmocka_unit_test(head_and_statistics_have_the_same_say),
      cmocka_unit_test(a_head_is_as_sure_as_the_statistics_until_images_tell),
      cmocka_unit_test(images_unlike_anything_learnt_are_told),
      cmocka_unit_test(evaluation_is_what_predictions_come_to),
      cmocka_unit_test(evaluation_refuses_what_it_cannot_measure),
      cmocka_unit_test(sources_may_mix_sizes_and_colours),
      cmocka_unit_test(gray_images_are_colour_images_of_equal_channels),
      cmocka_unit_test(class_names_are_kept_and_replaced),
      cmocka_unit_test(notes_are_kept_replaced_and_removed),
      cmocka_unit_test(a_step_follows_the_gradient_of_the_loss),
      cmocka_unit_test(statistics_are_of_mirrored_images_too),
      cmocka_unit_test(features_of_the_middle_follow_the_network),
      cmocka_unit_test(later_tasks_learn_at_their_own_rate),
      cmocka_unit_test(residual_updates_are_shared_less_and_less),
      cmocka_unit_test(parts_are_lent_for_inspection),
      cmocka_unit_test(profile_counts_learning_but_not_predictions),
      cmocka_unit_test(energy_is_sampled_from_the_whole_batch),
      cmocka_unit_test(a_second_prediction_takes_no_memory),
      cmocka_unit_test(workspaces_are_kept_between_predictions_but_not_while_learning),
  };
  return test_run_with_vit(tests, &model);
}
