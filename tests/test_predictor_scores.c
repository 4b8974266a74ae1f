/* Scores and posteriors of the predictor: against plain loops, over recurring and unequal classes, and by batches.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "support_predictor.h"

/* mu^T C^-1, and -1/2 mu^T C^-1 mu + 0.35 trace(C^-1 covariance) / count where counts differ, from data, for classes
 * first ... on columns [from, from + columns). */
static void plain_lda(struct data data, int64_t first, size_t classes, size_t from, size_t columns, double shrinkage,
                      double *weight, double *bias) {
  double *mean = calloc(classes * columns, sizeof *mean), *covariance = calloc(columns * columns, sizeof *mean);
  double *work = calloc(columns * columns, sizeof *work), *column = calloc(columns, sizeof *column),
         *raised = calloc(columns, sizeof *raised);
  double count[64] = {0}, noise = 0.0;
  bool differ = false;
  assert_true(mean && covariance && work && column && raised);
  for (size_t i = 0; i < data.n; i++) {
    size_t c = (size_t)(data.y[i] - first);
    count[c] += 1.0;
    for (size_t j = 0; j < columns; j++) mean[c * columns + j] += (double)data.x[i * data.dim + from + j];
  }
  for (size_t i = 0; i < classes * columns; i++) mean[i] /= count[i / columns];
  for (size_t i = 0; i < data.n; i++) {
    const float *x = data.x + i * data.dim + from;
    const double *m = mean + (size_t)(data.y[i] - first) * columns;
    for (size_t j = 0; j < columns * columns; j++) {
      covariance[j] += ((double)x[j / columns] - m[j / columns]) * ((double)x[j % columns] - m[j % columns]) /
                       (double)(data.n - classes);
    }
  }
  plain_raise(covariance, columns, shrinkage, raised);
  for (size_t j = 0; j < columns; j++) {
    for (size_t k = 0; k < columns; k++) column[k] = covariance[k * columns + j];
    memcpy(work, covariance, columns * columns * sizeof *work);
    for (size_t k = 0; k < columns; k++) work[k * columns + k] += raised[k];
    eliminate(work, column, columns);
    noise += 0.35 * column[j];
  }
  for (size_t j = 0; j < columns; j++) covariance[j * columns + j] += raised[j];
  for (size_t c = 0; c < classes; c++) differ = differ || count[c] != count[0];
  for (size_t c = 0; c < classes; c++) {
    memcpy(work, covariance, columns * columns * sizeof *work);
    memcpy(weight + c * columns, mean + c * columns, columns * sizeof *weight);
    eliminate(work, weight + c * columns, columns);
    bias[c] = differ ? noise / count[c] : 0.0;
    for (size_t j = 0; j < columns; j++) bias[c] -= 0.5 * weight[c * columns + j] * mean[c * columns + j];
  }
  free(raised);
  free(column);
  free(work);
  free(covariance);
  free(mean);
}

static void shrinkage_follows_the_number_of_features(void **state) {
  (void)state;
  static const struct {
    size_t n;
    double shrinkage; /* 0.3 dim / (n - classes), in [0.001, 1] */
  } cases[] = {{400, 0.3 * DIM / (400 - CLASSES)}, {CLASSES + 1, 0.3 * DIM < 1.0 ? 0.3 * DIM : 1.0}, {20000, 1e-3}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct data data = make_data(cases[i].n, DIM, 0, CLASSES, 0.6f, 1);
    double weight[CLASSES * DIM], bias[CLASSES];
    plain_lda(data, 0, CLASSES, 0, DIM, cases[i].shrinkage, weight, bias);
    dlora_predictor *predictor = new_predictor(DIM, NULL);
    learn(predictor, data);
    float found[CLASSES * DIM], found_bias[CLASSES];
    assert_status(DLORA_OK, dlora_predictor_linear_weights(predictor, 0, DIM, 0, found, found_bias));
    for (size_t j = 0; j < CLASSES * DIM; j++)
      assert_true(fabs((double)found[j] - weight[j]) < 1e-4 * (1.0 + fabs(weight[j])));
    dlora_predictor_destroy(predictor);
    free_data(data);
  }
}

/* Columns in units of their own, and one that never changes. */
static void columns_may_have_any_scale(void **state) {
  (void)state;
  static const float scales[DIM] = {1000.0f, 0.0f, 0.01f};
  struct data data = make_data(400, DIM, 0, CLASSES, 0.6f, 1), probe = make_data(300, DIM, 0, CLASSES, 0.6f, 2);
  for (size_t i = 0; i < data.n * DIM; i++) data.x[i] *= i % DIM < 3 ? scales[i % DIM] : 1.0f;
  for (size_t i = 0; i < probe.n * DIM; i++) probe.x[i] *= i % DIM < 3 ? scales[i % DIM] : 1.0f;
  double weight[CLASSES * DIM], bias[CLASSES];
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.shrinkage = 0.1f;
  plain_lda(data, 0, CLASSES, 0, DIM, (double)options.shrinkage, weight, bias);
  dlora_predictor *predictor = new_predictor(DIM, &options);
  learn(predictor, data);
  float found[CLASSES * DIM], found_bias[CLASSES];
  assert_status(DLORA_OK, dlora_predictor_linear_weights(predictor, 0, DIM, 0, found, found_bias));
  for (size_t j = 0; j < CLASSES * DIM; j++) {
    assert_true(fabs((double)found[j] - weight[j]) < 1e-4 * fabs(weight[j]) + 1e-9);
  }
  for (size_t i = 0; i < probe.n; i++) {
    dlora_prediction prediction;
    double scores[CLASSES];
    size_t best = 0;
    assert_status(DLORA_OK, dlora_predictor_predict(predictor, probe.x + i * DIM, 1, &prediction));
    for (size_t c = 0; c < CLASSES; c++) {
      scores[c] = bias[c];
      for (size_t j = 0; j < DIM; j++) scores[c] += weight[c * DIM + j] * (double)probe.x[i * DIM + j];
      best = scores[c] > scores[best] ? c : best;
    }
    assert_true(scores[(size_t)prediction.class_id] > scores[best] - 1e-3);
    assert_true(isfinite(prediction.unknown_score));
  }
  dlora_predictor_destroy(predictor);
  free_data(probe);
  free_data(data);
}

/* log posterior [CLASSES] at T = 1.5 of one feature; weight [CLASSES, DIM], bias [CLASSES] */
static void mixed_posterior(const double *weight, const double *bias, double share, const float *x, double *expected) {
  double score[CLASSES], best = -HUGE_VAL, sum = 0.0, broad = 0.0;
  for (size_t c = 0; c < CLASSES; c++) {
    score[c] = bias[c];
    for (size_t j = 0; j < DIM; j++) score[c] += weight[c * DIM + j] * (double)x[j];
    score[c] /= 1.5;
    best = fmax(best, score[c]);
  }
  for (size_t c = 0; c < CLASSES; c++) sum += exp(score[c] - best);
  for (size_t c = 0; c < CLASSES; c++) broad += exp((score[c] - best) / 4.0);
  for (size_t c = 0; c < CLASSES; c++) {
    expected[c] = log((1.0 - share) * exp(score[c] - best) / sum + share * exp((score[c] - best) / 4.0) / broad);
  }
}

static void assert_mixed_posterior(const dlora_predictor *predictor, const double *weight, const double *bias,
                                   double share, struct data probe) {
  struct answer answer = ask(predictor, probe.x, probe.n);
  double expected[CLASSES];
  for (size_t i = 0; i < probe.n; i++) {
    mixed_posterior(weight, bias, share, probe.x + i * DIM, expected);
    for (size_t c = 0; c < CLASSES; c++) { /* classes appear in order in the data: component c is class c */
      assert_true(fabs((double)answer.components[i * CLASSES + c] - expected[c]) < 1e-4 * (1.0 + fabs(expected[c])));
    }
  }
  free_answer(answer);
}

static void posterior_is_the_softmax_of_plain_lda_scores(void **state) {
  (void)state;
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.shrinkage = 0.3f;
  struct data data = make_data(400, DIM, 0, CLASSES, 0.6f, 1), probe = make_data(300, DIM, 0, CLASSES, 0.6f, 2);
  double weight[CLASSES * DIM], bias[CLASSES];
  plain_lda(data, 0, CLASSES, 0, DIM, (double)options.shrinkage, weight, bias);
  dlora_predictor *predictor = new_predictor(DIM, &options);
  learn(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_set_temperature(predictor, 1.5f));
  assert_mixed_posterior(predictor, weight, bias, 0.2, probe);
  dlora_predictor *copy = NULL, *old = NULL;
  assert_status(DLORA_OK, dlora_predictor_clone(&copy, predictor));
  assert_mixed_posterior(copy, weight, bias, 0.2, probe);
  dlora_predictor_destroy(copy);

  /* A file that does not tell the share is of the time when it was 0.15, and stays so when it is written again. */
  const char *path = test_temporary("share.safetensors");
  assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
  size_t size;
  unsigned char *bytes = test_read_file(path, &size);
  size_t name = 0;
  while (name < size - 11 && memcmp(bytes + name, "broad_share", 11)) name++;
  assert_true(name < size - 11);
  memcpy(bytes + name, "other_share", 11);
  test_write_file(path, bytes, size);
  free(bytes);
  for (size_t i = 0; i < 2; i++) {
    assert_status(DLORA_OK, dlora_predictor_load(&old, path, NULL));
    assert_mixed_posterior(old, weight, bias, 0.15, probe);
    assert_status(DLORA_OK, dlora_predictor_save(old, path));
    if (i == 0) dlora_predictor_destroy(old);
  }
  /* A predictor that knows nothing takes it over with the tasks; others keep their own. */
  dlora_predictor *empty[2] = {new_predictor(DIM, &options), new_predictor(DIM, &options)};
  assert_status(DLORA_OK, dlora_predictor_append(empty[0], old));
  assert_status(DLORA_OK, dlora_predictor_merge(empty[1], old));
  for (size_t i = 0; i < 2; i++) {
    assert_status(DLORA_OK, dlora_predictor_set_temperature(empty[i], 1.5f));
    assert_mixed_posterior(empty[i], weight, bias, 0.15, probe);
    dlora_predictor_destroy(empty[i]);
  }
  dlora_predictor_destroy(old);

  /* Equation (3) on a range of columns, and with an open task. */
  float found[CLASSES * DIM], found_bias[CLASSES], again[CLASSES * DIM], again_bias[CLASSES];
  assert_status(DLORA_OK, dlora_predictor_linear_weights(predictor, 0, DIM, 0, found, found_bias));
  for (size_t i = 0; i < CLASSES * DIM; i++)
    assert_true(fabs((double)found[i] - weight[i]) < 1e-4 * (1.0 + fabs(weight[i])));
  for (size_t i = 0; i < CLASSES; i++)
    assert_true(fabs((double)found_bias[i] - bias[i]) < 1e-4 * (1.0 + fabs(bias[i])));
  plain_lda(data, 0, CLASSES, 3, 5, (double)options.shrinkage, weight, bias);
  assert_status(DLORA_OK, dlora_predictor_linear_weights(predictor, 3, 5, 1, found, found_bias));
  for (size_t i = 0; i < CLASSES * 5; i++)
    assert_true(fabs((double)found[i] - weight[i]) < 1e-4 * (1.0 + fabs(weight[i])));
  for (size_t i = 0; i < CLASSES; i++)
    assert_true(fabs((double)found_bias[i] - bias[i]) < 1e-4 * (1.0 + fabs(bias[i])));
  dlora_predictor *open = new_predictor(DIM, &options);
  observe(open, data);
  assert_status(DLORA_ERR_STATE, dlora_predictor_linear_weights(open, 3, 5, 0, again, again_bias));
  assert_status(DLORA_OK, dlora_predictor_linear_weights(open, 3, 5, 1, again, again_bias));
  for (size_t i = 0; i < CLASSES * 5; i++) assert_true(fabsf(found[i] - again[i]) < 1e-5f * (1.0f + fabsf(found[i])));
  dlora_predictor_destroy(open);
  dlora_predictor_destroy(predictor);
  free_data(probe);
  free_data(data);
}

static void linear_weights_of_an_open_task_follow_the_finished_ones(void **state) {
  (void)state;
  dlora_predictor *open = learnt(1, NULL), *closed = NULL;
  struct data data = make_data(80, DIM, 50, 3, 1.0f, 5);
  float weight[2][8 * 6], bias[2][8];
  observe(open, data);
  assert_status(DLORA_OK, dlora_predictor_clone(&closed, open));
  assert_status(DLORA_OK, dlora_predictor_commit_task(closed));
  assert_status(DLORA_OK, dlora_predictor_linear_weights(open, 2, 6, 1, weight[0], bias[0]));
  assert_status(DLORA_OK, dlora_predictor_linear_weights(closed, 2, 6, 0, weight[1], bias[1]));
  assert_close(weight[0], weight[1], 8 * 6, 1e-5);
  assert_close(bias[0], bias[1], 8, 1e-5);
  assert_int_equal(dlora_predictor_num_components(open), CLASSES); /* still open */
  free_data(data);
  dlora_predictor_destroy(closed);
  dlora_predictor_destroy(open);
}

static void posteriors_sum_to_one_and_tasks_sum_their_classes(void **state) {
  (void)state;
  for (int readout = DLORA_READOUT_GAUSSIAN; readout <= DLORA_READOUT_RANDOM_PROJECTION; readout++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.readout = readout;
    options.random_features = 100;
    options.use_prior = 1;
    dlora_predictor *predictor = new_predictor(DIM, &options);
    for (size_t task = 0; task < 4; task++) { /* classes 0-4, 3-7, 6-10, 9-13: some recur */
      struct data data = make_data(100, DIM, (int64_t)(3 * task), CLASSES, 1.0f, 40 + (uint32_t)task);
      learn(predictor, data);
      free_data(data);
    }
    struct data probe = make_data(200, DIM, 0, 14, 1.0f, 45);
    for (size_t j = 0; j < DIM; j++) probe.x[j] *= 1e4f; /* far from everything */
    struct answer answer = ask(predictor, probe.x, probe.n);
    assert_int_equal(answer.num, 20);
    assert_int_equal(answer.classes, 14);
    int64_t tasks[20], classes[20], ids[14];
    assert_status(DLORA_OK, dlora_predictor_get_components(predictor, tasks, classes, NULL, NULL));
    assert_status(DLORA_OK, dlora_predictor_get_classes(predictor, ids));
    for (size_t i = 0; i < 14; i++) assert_int_equal(ids[i], (int64_t)i);
    for (size_t i = 0; i < probe.n; i++) {
      double all = 0.0, by_task[4] = {0}, by_class[14] = {0}, class_sum = 0.0, task_sum = 0.0, best = -1.0;
      size_t best_class = 0;
      for (size_t c = 0; c < 20; c++) {
        double p = exp((double)answer.components[i * 20 + c]);
        assert_true(isfinite(answer.components[i * 20 + c]));
        all += p;
        by_task[tasks[c]] += p;
        by_class[classes[c]] += p;
      }
      assert_true(fabs(all - 1.0) < 1e-5);
      for (size_t t = 0; t < 4; t++) {
        assert_true(fabs((double)answer.task_probs[i * 4 + t] - by_task[t]) < 1e-5);
        task_sum += (double)answer.task_probs[i * 4 + t];
      }
      for (size_t c = 0; c < 14; c++) {
        double p = exp((double)answer.class_logs[i * 14 + c]);
        assert_true(fabs(p - by_class[c]) < 1e-5);
        class_sum += p;
        if (p > best) best = p, best_class = c;
      }
      assert_true(fabs(class_sum - 1.0) < 1e-6 && fabs(task_sum - 1.0) < 1e-6);
      assert_int_equal(answer.predictions[i].class_id, ids[best_class]);
      assert_true(fabs((double)answer.predictions[i].class_probability - best) < 1e-5);
      assert_float_equal(answer.predictions[i].unknown_score, answer.unknown[i], 0.0);
      size_t task = (size_t)answer.predictions[i].task;
      for (size_t t = 0; t < 4; t++) assert_true(answer.task_probs[i * 4 + t] <= answer.task_probs[i * 4 + task]);
    }
    free_answer(answer);
    free_data(probe);
    dlora_predictor_destroy(predictor);
  }
}

static void a_recurring_class_adds_up_over_its_tasks(void **state) {
  (void)state;
  /* Class 7 looks one way in task 0 and another in task 1; each look is as near to class 8 as to itself elsewhere. */
  enum { N = 120 };
  dlora_predictor *predictor = new_predictor(2, NULL);
  uint32_t seed = 51;
  for (int task = 0; task < 2; task++) {
    struct data data = new_data(N, 2);
    for (size_t i = 0; i < N; i++) {
      data.y[i] = i % 2 ? 7 : 8 + task;
      data.x[2 * i] = (task ? 4.0f : -4.0f) + test_normal(&seed) * 0.5f;
      data.x[2 * i + 1] = (data.y[i] == 7 ? 2.0f : -2.0f) + test_normal(&seed) * 0.5f;
    }
    learn(predictor, data);
    free_data(data);
  }
  assert_int_equal(dlora_predictor_num_components(predictor), 4);
  assert_int_equal(dlora_predictor_num_classes(predictor), 3);
  /* Between the two looks the tasks are even, and the class is certain. */
  float between[] = {0.0f, 3.0f}, tasks[2], logs[3];
  int64_t ids[3];
  assert_status(DLORA_OK, dlora_predictor_posterior(predictor, between, 1, NULL, logs, tasks, NULL));
  assert_status(DLORA_OK, dlora_predictor_get_classes(predictor, ids));
  assert_true(tasks[0] > 0.05f && tasks[1] > 0.05f);
  for (size_t i = 0; i < 3; i++) {
    if (ids[i] == 7) assert_true(logs[i] > -0.01f);
  }
  dlora_predictor_destroy(predictor);
}

static void predictions_do_not_depend_on_the_batch(void **state) {
  (void)state;
  for (int readout = DLORA_READOUT_GAUSSIAN; readout <= DLORA_READOUT_RANDOM_PROJECTION; readout++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.readout = readout;
    options.random_features = 150;
    dlora_predictor *predictor = learnt(3, &options);
    struct data probe = make_data(333, DIM, 0, 15, 1.0f, 61);
    struct answer all = ask(predictor, probe.x, probe.n);
    for (size_t i = 0; i < probe.n; i++) {
      struct answer one = ask(predictor, probe.x + i * DIM, 1);
      for (size_t c = 0; c < 15; c++) {
        assert_true(fabs(exp((double)one.components[c]) - exp((double)all.components[i * 15 + c])) < 1e-6);
      }
      assert_int_equal(one.predictions[0].class_id, all.predictions[i].class_id);
      assert_true(fabsf(one.unknown[0] - all.unknown[i]) <= 1e-5f * (1.0f + fabsf(one.unknown[0])));
      free_answer(one);
    }
    free_answer(all);
    free_data(probe);
    dlora_predictor_destroy(predictor);
  }
}

/* By how much the first of two scores is the larger one, from the logs of their probabilities at T = 1. */
static double margin_of(double log_first, double log_second) {
  double low = -60.0, high = 60.0;
  for (int i = 0; i < 60; i++) {
    const double middle = 0.5 * (low + high);
    const double first = 0.8 / (1.0 + exp(-middle)) + 0.2 / (1.0 + exp(-middle / 4.0));
    const double second = 0.8 / (1.0 + exp(middle)) + 0.2 / (1.0 + exp(middle / 4.0));
    if (log(first / second) < log_first - log_second) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

static void prior_is_the_log_share_of_images(void **state) {
  (void)state;
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  struct data data = make_data(200, DIM, 0, 2, 0.3f, 71);
  for (size_t i = 2; i < 200; i++) data.y[i] = i % 5 == 0; /* 160 to 40, apart from the first two */
  dlora_predictor *flat = new_predictor(DIM, &options);
  options.use_prior = 1;
  dlora_predictor *weighted = new_predictor(DIM, &options);
  learn(flat, data);
  learn(weighted, data);
  assert_status(DLORA_OK, dlora_predictor_set_temperature(flat, 1.0f));
  assert_status(DLORA_OK, dlora_predictor_set_temperature(weighted, 1.0f));
  struct answer a = ask(flat, data.x, 20), b = ask(weighted, data.x, 20);
  uint64_t counts[2];
  assert_status(DLORA_OK, dlora_predictor_get_components(flat, NULL, NULL, counts, NULL));
  double expected = log((double)counts[0] / (double)counts[1]);
  for (size_t i = 0; i < 20; i++) {
    double before = margin_of((double)a.components[2 * i], (double)a.components[2 * i + 1]);
    double after = margin_of((double)b.components[2 * i], (double)b.components[2 * i + 1]);
    assert_true(fabs(after - before - expected) < 1e-4);
  }
  free_answer(a);
  free_answer(b);
  dlora_predictor_destroy(weighted);
  dlora_predictor_destroy(flat);
  free_data(data);
}

/* A mean of two features is noise for the most part, whose square must not count against its class. */
static void a_class_of_few_features_keeps_its_share(void **state) {
  (void)state;
  enum { WIDE = 100, NUM = 20 };
  for (int readout = DLORA_READOUT_GAUSSIAN; readout <= DLORA_READOUT_RANDOM_PROJECTION; readout++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.readout = readout;
    options.random_features = 300;
    struct data train = make_data(1000, WIDE, 0, NUM, 0.35f, 75), test = make_data(1000, WIDE, 0, NUM, 0.35f, 76);
    /* Of every second class two stay. */
    size_t kept = 0, seen[NUM] = {0};
    for (size_t i = 0; i < train.n; i++) {
      if (train.y[i] % 2 && seen[train.y[i]]++ >= 2) continue;
      memmove(train.x + kept * WIDE, train.x + i * WIDE, WIDE * sizeof(float));
      train.y[kept++] = train.y[i];
    }
    train.n = kept;
    dlora_predictor *predictor = new_predictor(WIDE, &options);
    learn(predictor, train);
    dlora_prediction *predictions = calloc(test.n, sizeof *predictions);
    assert_non_null(predictions);
    assert_status(DLORA_OK, dlora_predictor_predict(predictor, test.x, test.n, predictions));
    double few = 0.0, predicted = 0.0, right = 0.0;
    for (size_t i = 0; i < test.n; i++) {
      few += (double)(test.y[i] % 2);
      predicted += (double)(predictions[i].class_id % 2);
      right += predictions[i].class_id == test.y[i] ? 1.0 : 0.0;
    }
    if (readout == DLORA_READOUT_GAUSSIAN) {
      assert_true(predicted > 0.6 * few && predicted < 1.2 * few); /* without: 0.3 */
      assert_true(right > 800.0);                                  /* 660 */
    } else {
      assert_true(predicted < 1.2 * few); /* a ridge regression has no such square, and nothing to be given back */
    }
    free(predictions);
    dlora_predictor_destroy(predictor);
    free_data(test);
    free_data(train);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shrinkage_follows_the_number_of_features),
      cmocka_unit_test(columns_may_have_any_scale),
      cmocka_unit_test(posterior_is_the_softmax_of_plain_lda_scores),
      cmocka_unit_test(linear_weights_of_an_open_task_follow_the_finished_ones),
      cmocka_unit_test(posteriors_sum_to_one_and_tasks_sum_their_classes),
      cmocka_unit_test(a_recurring_class_adds_up_over_its_tasks),
      cmocka_unit_test(predictions_do_not_depend_on_the_batch),
      cmocka_unit_test(prior_is_the_log_share_of_images),
      cmocka_unit_test(a_class_of_few_features_keeps_its_share),
  };
  return cmocka_run_group_tests_name("predictor_scores", tests, NULL, NULL);
}
