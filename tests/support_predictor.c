/* SPDX-License-Identifier: Apache-2.0 */
#include "support_predictor.h"

#include <math.h>
#include <stdlib.h>

struct data new_data(size_t n, size_t dim) {
  struct data data = {calloc(n * dim, sizeof(float)), calloc(n, sizeof(int64_t)), n, dim};
  assert_non_null(data.x);
  assert_non_null(data.y);
  return data;
}

void free_data(struct data data) {
  free(data.x);
  free(data.y);
}

struct data make_data(size_t n, size_t dim, int64_t first, size_t classes, float spread, uint32_t seed) {
  struct data data = new_data(n, dim);
  for (size_t i = 0; i < n; i++) {
    data.y[i] =
        i < classes ? first + (int64_t)i : first + (int64_t)((test_uniform(&seed) + 1.0f) * 0.5f * (float)classes);
    uint32_t mean = 1000u + 77u * (uint32_t)(data.y[i] + 5);
    float shared = test_normal(&seed);
    for (size_t j = 0; j < dim; j++) {
      data.x[i * dim + j] =
          3.0f + spread * test_normal(&mean) + test_normal(&seed) * (0.5f + 0.1f * (float)(j % 4)) + 0.7f * shared;
    }
  }
  return data;
}

dlora_predictor *new_predictor(size_t dim, const dlora_predictor_options *options) {
  dlora_predictor *predictor = NULL;
  assert_status(DLORA_OK, dlora_predictor_create(&predictor, dim, options));
  return predictor;
}

void observe(dlora_predictor *predictor, struct data data) {
  assert_status(DLORA_OK, dlora_predictor_observe(predictor, data.x, data.y, data.n));
}

void learn(dlora_predictor *predictor, struct data data) {
  observe(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
}

dlora_predictor *learnt(size_t tasks, const dlora_predictor_options *options) {
  dlora_predictor *predictor = new_predictor(DIM, options);
  for (size_t task = 0; task < tasks; task++) {
    struct data data = make_data(150, DIM, (int64_t)(task * CLASSES), CLASSES, 1.0f, 100 + (uint32_t)task);
    learn(predictor, data);
    free_data(data);
  }
  return predictor;
}

struct answer ask(const dlora_predictor *predictor, const float *x, size_t n) {
  struct answer a = {.n = n,
                     .num = dlora_predictor_num_components(predictor),
                     .classes = dlora_predictor_num_classes(predictor),
                     .tasks = dlora_predictor_num_tasks(predictor)};
  a.components = calloc(n * a.num, sizeof(float));
  a.class_logs = calloc(n * a.classes, sizeof(float));
  a.task_probs = calloc(n * a.tasks, sizeof(float));
  a.unknown = calloc(n, sizeof(float));
  a.predictions = calloc(n, sizeof *a.predictions);
  assert_true(a.components && a.class_logs && a.task_probs && a.unknown && a.predictions);
  assert_status(DLORA_OK,
                dlora_predictor_posterior(predictor, x, n, a.components, a.class_logs, a.task_probs, a.unknown));
  assert_status(DLORA_OK, dlora_predictor_predict(predictor, x, n, a.predictions));
  return a;
}

void free_answer(struct answer a) {
  free(a.components);
  free(a.class_logs);
  free(a.task_probs);
  free(a.unknown);
  free(a.predictions);
}

void assert_same_answer(struct answer a, struct answer b) {
  assert_int_equal(a.num, b.num);
  assert_int_equal(a.classes, b.classes);
  assert_int_equal(a.tasks, b.tasks);
  assert_memory_equal(a.components, b.components, a.n * a.num * sizeof(float));
  assert_memory_equal(a.class_logs, b.class_logs, a.n * a.classes * sizeof(float));
  assert_memory_equal(a.task_probs, b.task_probs, a.n * a.tasks * sizeof(float));
  assert_memory_equal(a.unknown, b.unknown, a.n * sizeof(float));
  for (size_t i = 0; i < a.n; i++) {
    assert_int_equal(a.predictions[i].class_id, b.predictions[i].class_id);
    assert_int_equal(a.predictions[i].unknown, b.predictions[i].unknown);
  }
}

void assert_same(const dlora_predictor *a, const dlora_predictor *b) {
  struct data probe = make_data(40, dlora_predictor_dim(a), 0, 8, 1.0f, 9);
  struct answer x = ask(a, probe.x, probe.n), y = ask(b, probe.x, probe.n);
  assert_same_answer(x, y);
  free_answer(x);
  free_answer(y);
  free_data(probe);
}

void assert_same_statistics(const dlora_predictor *a, const dlora_predictor *b) {
  size_t num = dlora_predictor_num_components(a), dim = dlora_predictor_dim(a);
  assert_int_equal(num, dlora_predictor_num_components(b));
  assert_int_equal(dlora_predictor_num_tasks(a), dlora_predictor_num_tasks(b));
  int64_t *tasks = calloc(2 * num, sizeof *tasks), *classes = calloc(2 * num, sizeof *classes);
  uint64_t *counts = calloc(2 * num, sizeof *counts);
  double *means = calloc(2 * num * dim, sizeof *means), *scatter = calloc(2 * dim * dim, sizeof *scatter),
         largest = 0.0;
  assert_true(tasks && classes && counts && means && scatter);
  assert_status(DLORA_OK, dlora_predictor_get_components(a, tasks, classes, counts, means));
  assert_status(DLORA_OK,
                dlora_predictor_get_components(b, tasks + num, classes + num, counts + num, means + num * dim));
  assert_status(DLORA_OK, dlora_predictor_get_scatter(a, scatter));
  assert_status(DLORA_OK, dlora_predictor_get_scatter(b, scatter + dim * dim));
  for (size_t i = 0; i < num; i++) {
    size_t j = 0; /* classes of a task may appear in another order */
    while (j < num && !(tasks[num + j] == tasks[i] && classes[num + j] == classes[i])) j++;
    assert_true(j < num);
    assert_int_equal(counts[i], counts[num + j]);
    for (size_t d = 0; d < dim; d++) {
      assert_true(fabs(means[i * dim + d] - means[(num + j) * dim + d]) <= 1e-6 * (1.0 + fabs(means[i * dim + d])));
    }
  }
  for (size_t i = 0; i < dim * dim; i++) largest = fmax(largest, fabs(scatter[i]));
  for (size_t i = 0; i < dim * dim; i++) {
    assert_true(fabs(scatter[i] - scatter[dim * dim + i]) <= 1e-6 * largest);
    assert_true(fabs(scatter[i] - scatter[i % dim * dim + i / dim]) <= 1e-12 * largest);
  }
  free(scatter);
  free(means);
  free(counts);
  free(classes);
  free(tasks);
}

double accuracy(const dlora_predictor *predictor, struct data data) {
  dlora_prediction *predictions = calloc(data.n, sizeof *predictions);
  assert_non_null(predictions);
  assert_status(DLORA_OK, dlora_predictor_predict(predictor, data.x, data.n, predictions));
  double right = 0.0;
  for (size_t i = 0; i < data.n; i++) right += predictions[i].class_id == data.y[i] ? 1.0 : 0.0;
  free(predictions);
  return right / (double)data.n;
}

double surprise(const dlora_predictor *predictor, struct data data) {
  size_t classes = dlora_predictor_num_classes(predictor);
  int64_t *ids = calloc(classes, sizeof *ids);
  float *logs = calloc(data.n * classes, sizeof *logs);
  double sum = 0.0;
  assert_true(ids && logs);
  assert_status(DLORA_OK, dlora_predictor_get_classes(predictor, ids));
  assert_status(DLORA_OK, dlora_predictor_posterior(predictor, data.x, data.n, NULL, logs, NULL, NULL));
  for (size_t i = 0; i < data.n; i++) {
    size_t column = 0;
    while (ids[column] != data.y[i]) column++;
    sum -= (double)logs[i * classes + column];
  }
  free(logs);
  free(ids);
  return sum / (double)data.n;
}

void eliminate(double *a, double *b, size_t n) {
  for (size_t c = 0; c < n; c++) {
    size_t pivot = c;
    for (size_t r = c + 1; r < n; r++) pivot = fabs(a[r * n + c]) > fabs(a[pivot * n + c]) ? r : pivot;
    for (size_t j = 0; j < n; j++) {
      double swap = a[c * n + j];
      a[c * n + j] = a[pivot * n + j];
      a[pivot * n + j] = swap;
    }
    double swap = b[c];
    b[c] = b[pivot];
    b[pivot] = swap;
    for (size_t r = 0; r < n; r++) {
      if (r == c) continue;
      double factor = a[r * n + c] / a[c * n + c];
      for (size_t j = c; j < n; j++) a[r * n + j] -= factor * a[c * n + j];
      b[r] -= factor * b[c];
    }
  }
  for (size_t c = 0; c < n; c++) b[c] /= a[c * n + c];
}

void plain_raise(const double *covariance, size_t n, double shrinkage, double *raised) {
  double mean = 0.0;
  for (size_t j = 0; j < n; j++) mean += covariance[j * n + j] / (double)n;
  for (size_t j = 0; j < n; j++) raised[j] = shrinkage * sqrt(mean * fmax(covariance[j * n + j], 1e-4 * mean));
}

float *second_view(struct data data, uint32_t seed) {
  float *mirrored = malloc(data.n * data.dim * sizeof *mirrored);
  assert_non_null(mirrored);
  for (size_t i = 0; i < data.n * data.dim; i++) mirrored[i] = data.x[i] + 0.4f * test_normal(&seed);
  return mirrored;
}
