/* Class, task and confidence from features: against plain loops, known drifts and known distributions, and with bad
 * input. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define DIM 12
#define CLASSES 5

/* ---- data: Gaussian classes whose means come from the class id ---- */

struct data {
  float *x;   /* [n, dim] */
  int64_t *y; /* [n] */
  size_t n;
  size_t dim;
};

static struct data new_data(size_t n, size_t dim) {
  struct data data = {calloc(n * dim, sizeof(float)), calloc(n, sizeof(int64_t)), n, dim};
  assert_non_null(data.x);
  assert_non_null(data.y);
  return data;
}

static void free_data(struct data data) {
  free(data.x);
  free(data.y);
}

/* n rows of classes first ... first + classes - 1 in random order. spread: distance of means in noise deviations; the
 * noise has a mixed covariance and the same far-off centre for all. */
static struct data make_data(size_t n, size_t dim, int64_t first, size_t classes, float spread, uint32_t seed) {
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

static dlora_predictor *new_predictor(size_t dim, const dlora_predictor_options *options) {
  dlora_predictor *predictor = NULL;
  assert_status(DLORA_OK, dlora_predictor_create(&predictor, dim, options));
  return predictor;
}

static void observe(dlora_predictor *predictor, struct data data) {
  assert_status(DLORA_OK, dlora_predictor_observe(predictor, data.x, data.y, data.n));
}

static void learn(dlora_predictor *predictor, struct data data) {
  observe(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
}

/* Learns tasks of CLASSES classes each from one call to the next. */
static dlora_predictor *learnt(size_t tasks, const dlora_predictor_options *options) {
  dlora_predictor *predictor = new_predictor(DIM, options);
  for (size_t task = 0; task < tasks; task++) {
    struct data data = make_data(150, DIM, (int64_t)(task * CLASSES), CLASSES, 1.0f, 100 + (uint32_t)task);
    learn(predictor, data);
    free_data(data);
  }
  return predictor;
}

/* What a predictor answers to one set of features. */
struct answer {
  size_t n, num, classes, tasks;
  float *components; /* log-probabilities */
  float *class_logs;
  float *task_probs;
  float *unknown;
  dlora_prediction *predictions;
};

static struct answer ask(const dlora_predictor *predictor, const float *x, size_t n) {
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

static void free_answer(struct answer a) {
  free(a.components);
  free(a.class_logs);
  free(a.task_probs);
  free(a.unknown);
  free(a.predictions);
}

static void assert_same_answer(struct answer a, struct answer b) {
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

/* Bitwise the same predictor, as far as answers tell. */
static void assert_same(const dlora_predictor *a, const dlora_predictor *b) {
  struct data probe = make_data(40, dlora_predictor_dim(a), 0, 8, 1.0f, 9);
  struct answer x = ask(a, probe.x, probe.n), y = ask(b, probe.x, probe.n);
  assert_same_answer(x, y);
  free_answer(x);
  free_answer(y);
  free_data(probe);
}

/* Statistics of two predictors agree to 1e-6 relative to their largest value. */
static void assert_same_statistics(const dlora_predictor *a, const dlora_predictor *b) {
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

static double accuracy(const dlora_predictor *predictor, struct data data) {
  dlora_prediction *predictions = calloc(data.n, sizeof *predictions);
  assert_non_null(predictions);
  assert_status(DLORA_OK, dlora_predictor_predict(predictor, data.x, data.n, predictions));
  double right = 0.0;
  for (size_t i = 0; i < data.n; i++) right += predictions[i].class_id == data.y[i] ? 1.0 : 0.0;
  free(predictions);
  return right / (double)data.n;
}

/* Mean of -log p(true class). */
static double surprise(const dlora_predictor *predictor, struct data data) {
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

/* ---- plain loops ---- */

/* Solves a [n, n] x = b by Gaussian elimination with pivoting; both are destroyed, x is in b. */
static void eliminate(double *a, double *b, size_t n) {
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

/* What shrinkage adds to the diagonal of a covariance [n, n]: of each column the geometric mean of its own variance and
 * all columns' mean. METHOD.md 7 */
static void plain_raise(const double *covariance, size_t n, double shrinkage, double *raised) {
  double mean = 0.0;
  for (size_t j = 0; j < n; j++) mean += covariance[j * n + j] / (double)n;
  for (size_t j = 0; j < n; j++) raised[j] = shrinkage * sqrt(mean * fmax(covariance[j * n + j], 1e-4 * mean));
}

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

static void batches_orders_and_halves_give_the_same_statistics(void **state) {
  (void)state;
  enum { N = 700 };
  struct data tasks[] = {make_data(N, DIM, 0, CLASSES, 1.0f, 11), make_data(N, DIM, 3, CLASSES, 1.0f, 12)};
  dlora_predictor *whole = new_predictor(DIM, NULL), *singles = new_predictor(DIM, NULL),
                  *backwards = new_predictor(DIM, NULL);
  dlora_predictor *left = new_predictor(DIM, NULL), *right = new_predictor(DIM, NULL);
  for (size_t t = 0; t < 2; t++) {
    /* A far-off common offset: sums of squares would cancel. */
    for (size_t i = 0; i < N * DIM; i++) tasks[t].x[i] += 1000.0f;
    learn(whole, tasks[t]);
    for (size_t i = 0; i < N; i++) {
      size_t j = N - 1 - i;
      assert_status(DLORA_OK, dlora_predictor_observe(singles, tasks[t].x + i * DIM, tasks[t].y + i, 1));
      if (j % 7 == 0) {
        size_t count = N - j < 7 ? N - j : 7;
        assert_status(DLORA_OK, dlora_predictor_observe(backwards, tasks[t].x + j * DIM, tasks[t].y + j, count));
      }
    }
    assert_status(DLORA_OK, dlora_predictor_observe(left, tasks[t].x, tasks[t].y, 300));
    assert_status(DLORA_OK, dlora_predictor_observe(right, tasks[t].x + 300 * DIM, tasks[t].y + 300, N - 300));
    dlora_predictor *parts[] = {singles, backwards, left, right};
    for (size_t i = 0; i < 4; i++) assert_status(DLORA_OK, dlora_predictor_commit_task(parts[i]));
  }
  assert_same_statistics(whole, singles);
  assert_same_statistics(whole, backwards);
  dlora_predictor *other = NULL;
  assert_status(DLORA_OK, dlora_predictor_clone(&other, right));
  assert_status(DLORA_OK, dlora_predictor_merge(other, left));
  assert_status(DLORA_OK, dlora_predictor_merge(left, right));
  assert_same_statistics(whole, left);
  assert_same_statistics(whole, other);
  dlora_predictor *all[] = {whole, singles, backwards, left, right, other};
  for (size_t i = 0; i < 6; i++) dlora_predictor_destroy(all[i]);
  free_data(tasks[0]);
  free_data(tasks[1]);
}

static void open_tasks_merge_as_if_observed_together(void **state) {
  (void)state;
  struct data first = make_data(100, DIM, 0, 3, 1.0f, 21), a = make_data(120, DIM, 10, 4, 1.0f, 22);
  struct data b = make_data(90, DIM, 12, 4, 1.0f, 23), held = make_data(40, DIM, 10, 6, 1.0f, 24);
  dlora_predictor *main = new_predictor(DIM, NULL), *worker = new_predictor(DIM, NULL),
                  *whole = new_predictor(DIM, NULL);
  learn(main, first);
  learn(whole, first);
  observe(main, a);
  observe(worker, b);
  assert_status(DLORA_OK, dlora_predictor_observe_held_out(worker, held.x, held.y, held.n));
  observe(whole, a);
  observe(whole, b);
  assert_status(DLORA_OK, dlora_predictor_observe_held_out(whole, held.x, held.y, held.n));
  assert_status(DLORA_OK, dlora_predictor_merge(main, worker));
  assert_int_equal(dlora_predictor_num_tasks(main), 1);
  assert_status(DLORA_OK, dlora_predictor_commit_task(main));
  assert_status(DLORA_OK, dlora_predictor_commit_task(whole));
  assert_same_statistics(whole, main);
  assert_true(fabsf(dlora_predictor_temperature(main) - dlora_predictor_temperature(whole)) < 1e-3f);
  dlora_predictor *behind = learnt(2, NULL), *ahead = learnt(3, NULL);
  observe(behind, a);
  assert_status(DLORA_ERR_MISMATCH, dlora_predictor_merge(ahead, behind));
  dlora_predictor *all[] = {main, worker, whole, behind, ahead};
  for (size_t i = 0; i < 5; i++) dlora_predictor_destroy(all[i]);
  free_data(held);
  free_data(b);
  free_data(a);
  free_data(first);
}

static void appended_tasks_are_as_if_learnt_in_turn(void **state) {
  (void)state;
  struct data first = make_data(100, DIM, 0, 4, 1.0f, 31), second = make_data(120, DIM, 2, 4, 1.0f, 32);
  dlora_predictor *a = new_predictor(DIM, NULL), *b = new_predictor(DIM, NULL), *both = new_predictor(DIM, NULL);
  learn(a, first);
  learn(b, second);
  learn(both, first);
  learn(both, second);
  assert_status(DLORA_OK, dlora_predictor_append(a, b));
  /* But for the temperature of the second, which was fitted without the first. */
  assert_true(fabsf(logf(dlora_predictor_temperature(a) / dlora_predictor_temperature(both))) < 0.5f);
  assert_status(DLORA_OK, dlora_predictor_set_temperature(a, 2.0f));
  assert_status(DLORA_OK, dlora_predictor_set_temperature(both, 2.0f));
  assert_int_equal(dlora_predictor_num_tasks(a), 2);
  assert_int_equal(dlora_predictor_num_components(a), 8);
  assert_int_equal(dlora_predictor_num_classes(a), 6);
  assert_same_statistics(both, a);
  struct answer x = ask(a, first.x, 40), y = ask(both, first.x, 40);
  assert_memory_equal(x.components, y.components, 40 * x.num * sizeof(float));
  assert_memory_equal(x.unknown, y.unknown, 40 * sizeof(float));
  free_answer(y);
  free_answer(x);
  dlora_predictor_destroy(both);
  dlora_predictor_destroy(b);
  dlora_predictor_destroy(a);
  free_data(second);
  free_data(first);
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

static void drift_compensation_recovers_a_known_linear_drift(void **state) {
  (void)state;
  enum { FIRST = 4, COLUMNS = DIM - FIRST, N = 3000 };
  dlora_predictor *predictor = learnt(2, NULL), *uncompensated = NULL;
  struct data old = make_data(600, DIM, 0, 2 * CLASSES, 1.0f, 81), now = make_data(N, DIM, 40, CLASSES, 1.0f, 82);
  float *before = calloc(N * COLUMNS, sizeof *before), *after = calloc(N * COLUMNS, sizeof *after);
  assert_true(before && after);
  double map[COLUMNS * COLUMNS], shift[COLUMNS], mean[COLUMNS] = {0}, means[2][2 * CLASSES * DIM],
                                                 scatter[2][DIM * DIM];
  uint32_t seed = 83;
  for (size_t i = 0; i < COLUMNS * COLUMNS; i++) map[i] = 0.15 * (double)test_normal(&seed);
  for (size_t j = 0; j < COLUMNS; j++) shift[j] = (double)test_normal(&seed);
  for (size_t i = 0; i < N; i++) {
    for (size_t j = 0; j < COLUMNS; j++) {
      before[i * COLUMNS + j] = now.x[i * DIM + FIRST + j];
      mean[j] += (double)before[i * COLUMNS + j] / N;
    }
    for (size_t j = 0; j < COLUMNS; j++) {
      double moved = (double)before[i * COLUMNS + j] + shift[j];
      for (size_t k = 0; k < COLUMNS; k++) moved += (double)before[i * COLUMNS + k] * map[k * COLUMNS + j];
      after[i * COLUMNS + j] = (float)moved;
    }
  }

  /* The same ridge map by loops: (cov + trace / columns I) R = cov map, and d the mean of after - before. */
  double covariance[COLUMNS * COLUMNS] = {0}, ridge[COLUMNS * COLUMNS], move[COLUMNS] = {0}, level = 0.0;
  for (size_t i = 0; i < N; i++) {
    const float *x = before + i * COLUMNS;
    for (size_t j = 0; j < COLUMNS * COLUMNS; j++) {
      covariance[j] += ((double)x[j / COLUMNS] - mean[j / COLUMNS]) * ((double)x[j % COLUMNS] - mean[j % COLUMNS]) / N;
    }
    for (size_t j = 0; j < COLUMNS; j++) move[j] += ((double)after[i * COLUMNS + j] - (double)x[j]) / N;
  }
  for (size_t j = 0; j < COLUMNS; j++) level += covariance[j * COLUMNS + j] / COLUMNS;
  for (size_t c = 0; c < COLUMNS; c++) {
    double matrix[COLUMNS * COLUMNS], column[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++) {
      column[i] = 0.0;
      for (size_t k = 0; k < COLUMNS; k++) column[i] += covariance[i * COLUMNS + k] * map[k * COLUMNS + c];
    }
    memcpy(matrix, covariance, sizeof matrix);
    for (size_t i = 0; i < COLUMNS; i++) matrix[i * COLUMNS + i] += level;
    eliminate(matrix, column, COLUMNS);
    for (size_t i = 0; i < COLUMNS; i++) ridge[i * COLUMNS + c] = column[i];
  }
  assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, NULL, means[0]));
  assert_status(DLORA_OK, dlora_predictor_get_scatter(predictor, scatter[0]));
  assert_status(DLORA_OK, dlora_predictor_clone(&uncompensated, predictor));
  assert_status(DLORA_OK, dlora_predictor_compensate_drift(predictor, before, after, N, FIRST, COLUMNS));
  assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, NULL, means[1]));
  assert_status(DLORA_OK, dlora_predictor_get_scatter(predictor, scatter[1]));
  double jacobian[DIM * DIM] = {0}, largest = 0.0;
  for (size_t i = 0; i < DIM; i++) {
    jacobian[i * DIM + i] = 1.0;
    for (size_t j = 0; i >= FIRST && j < COLUMNS; j++)
      jacobian[i * DIM + FIRST + j] += ridge[(i - FIRST) * COLUMNS + j];
  }
  for (size_t i = 0; i < 2 * CLASSES; i++) {
    for (size_t j = 0; j < DIM; j++) {
      double expected = means[0][i * DIM + j] + (j >= FIRST ? move[j - FIRST] : 0.0);
      for (size_t k = 0; j >= FIRST && k < COLUMNS; k++) {
        expected += (means[0][i * DIM + FIRST + k] - mean[k]) * ridge[k * COLUMNS + j - FIRST];
      }
      assert_true(fabs(means[1][i * DIM + j] - expected) < 1e-5);
    }
  }
  for (size_t i = 0; i < DIM * DIM; i++) largest = fmax(largest, fabs(scatter[0][i]));
  for (size_t i = 0; i < DIM * DIM; i++) {
    double expected = 0.0;
    for (size_t k = 0; k < DIM * DIM; k++) {
      expected += jacobian[k / DIM * DIM + i / DIM] * scatter[0][k] * jacobian[k % DIM * DIM + i % DIM];
    }
    assert_true(fabs(scatter[1][i] - expected) < 1e-5 * largest);
  }

  /* And what it is for: old classes are recognised on features that moved. */
  for (size_t i = 0; i < old.n; i++) {
    double moved[COLUMNS];
    for (size_t j = 0; j < COLUMNS; j++) {
      moved[j] = (double)old.x[i * DIM + FIRST + j] + shift[j];
      for (size_t k = 0; k < COLUMNS; k++) moved[j] += (double)old.x[i * DIM + FIRST + k] * map[k * COLUMNS + j];
    }
    for (size_t j = 0; j < COLUMNS; j++) old.x[i * DIM + FIRST + j] = (float)moved[j];
  }
  assert_true(accuracy(predictor, old) > accuracy(uncompensated, old) + 0.1);
  dlora_predictor_destroy(uncompensated);
  dlora_predictor_destroy(predictor);
  free(after);
  free(before);
  free_data(now);
  free_data(old);
}

static void drift_compensation_leaves_the_open_task_alone(void **state) {
  (void)state;
  dlora_predictor *moved = learnt(1, NULL), *apart = new_predictor(DIM, NULL);
  struct data data = make_data(100, DIM, 20, 3, 1.0f, 91);
  float after[100 * DIM];
  double means[8 * DIM], alone[3 * DIM];
  for (size_t i = 0; i < 100 * DIM; i++) after[i] = data.x[i] + 5.0f;
  observe(moved, data);
  learn(apart, data);
  assert_status(DLORA_OK, dlora_predictor_compensate_drift(moved, data.x, after, 100, 0, DIM));
  assert_status(DLORA_OK, dlora_predictor_commit_task(moved));
  assert_status(DLORA_OK, dlora_predictor_get_components(moved, NULL, NULL, NULL, means));
  assert_status(DLORA_OK, dlora_predictor_get_components(apart, NULL, NULL, NULL, alone));
  assert_memory_equal(means + CLASSES * DIM, alone, sizeof alone);
  dlora_predictor *empty = new_predictor(DIM, NULL); /* nothing old: nothing to do */
  assert_status(DLORA_OK, dlora_predictor_compensate_drift(empty, data.x, after, 100, 0, DIM));
  dlora_predictor_destroy(empty);
  dlora_predictor_destroy(apart);
  dlora_predictor_destroy(moved);
  free_data(data);
}

static void learning_leaves_earlier_means_bitwise_unchanged(void **state) {
  (void)state;
  dlora_predictor *predictor = learnt(2, NULL);
  double before[2 * CLASSES * DIM], after[3 * CLASSES * DIM];
  uint64_t counts[2 * CLASSES], counts_after[3 * CLASSES];
  assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, counts, before));
  struct data data = make_data(100, DIM, 0, CLASSES, 1.0f, 95);
  learn(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, counts_after, after));
  assert_memory_equal(before, after, sizeof before);
  assert_memory_equal(counts, counts_after, sizeof counts);
  free_data(data);
  dlora_predictor_destroy(predictor);
}

/* ---- calibration ---- */

/* Scores of all features of data, one task of classes 0 ..., each as if it had been left out together with its second
 * view, and unknown scores, by loops over matrices made anew: METHOD.md 7. scores: [n, classes] */
static void plain_left_out(struct data data, const float *mirrored, size_t classes, double shrinkage, double *scores,
                           double *unknown) {
  enum { MOST = 8 };
  const size_t dim = data.dim;
  double centre[MOST] = {0}, mean[MOST * MOST] = {0}, count[MOST] = {0}, within[MOST * MOST] = {0},
         between[MOST * MOST] = {0}, raised[MOST], spread = 0.0, noise = 0.0;
  const double n = (double)data.n, degrees = n - (double)classes;
  double *middle = calloc(data.n * dim, sizeof *middle), *half = calloc(data.n * dim, sizeof *half); /* of two views */
  double *own = calloc(data.n, sizeof *own);
  assert_true(middle && half && own);
  for (size_t i = 0; i < data.n * dim; i++) {
    middle[i] = 0.5 * ((double)data.x[i] + (double)mirrored[i]);
    half[i] = 0.5 * ((double)data.x[i] - (double)mirrored[i]);
  }
  for (size_t i = 0; i < data.n; i++) {
    count[data.y[i]] += 1.0;
    for (size_t j = 0; j < dim; j++) centre[j] += middle[i * dim + j] / n;
    for (size_t j = 0; j < dim; j++) mean[(size_t)data.y[i] * dim + j] += middle[i * dim + j];
  }
  for (size_t c = 0; c < classes * dim; c++) mean[c] /= count[c / dim];
  for (size_t i = 0; i < data.n * dim * dim; i++) {
    const size_t row = i / dim / dim, j = i / dim % dim, k = i % dim;
    const double xj = middle[row * dim + j], xk = middle[row * dim + k];
    const double *m = mean + (size_t)data.y[row] * dim;
    within[j * dim + k] += ((xj - m[j]) * (xk - m[k]) + half[row * dim + j] * half[row * dim + k]) / degrees;
    between[j * dim + k] += (m[j] - centre[j]) * (m[k] - centre[k]) / n;
  }
  plain_raise(within, dim, shrinkage, raised);
  /* trace(C^-1 covariance) of all features */
  for (size_t j = 0; j < dim; j++) {
    double matrix[MOST * MOST], column[MOST];
    for (size_t k = 0; k < dim * dim; k++) matrix[k] = within[k] + (k % (dim + 1) ? 0.0 : raised[k % dim]);
    for (size_t k = 0; k < dim; k++) column[k] = within[k * dim + j];
    eliminate(matrix, column, dim);
    noise += 0.35 * column[j];
  }
  for (size_t i = 0; i < data.n; i++) {
    const size_t c = (size_t)data.y[i];
    double less[MOST * MOST], covariance[MOST * MOST] = {0}, nearest = HUGE_VAL;
    memcpy(less, mean, sizeof less);
    for (size_t j = 0; j < dim; j++) {
      less[c * dim + j] = (count[c] * mean[c * dim + j] - middle[i * dim + j]) / (count[c] - 1.0);
    }
    /* From the other features alone, in units of the same degrees of freedom. */
    for (size_t r = 0; r < data.n; r++) {
      if (r == i) continue;
      const double *x = middle + r * dim, *d = half + r * dim, *m = less + (size_t)data.y[r] * dim;
      for (size_t k = 0; k < dim * dim; k++) {
        covariance[k] += ((x[k / dim] - m[k / dim]) * (x[k % dim] - m[k % dim]) + d[k / dim] * d[k % dim]) / degrees;
      }
    }
    for (size_t j = 0; j < dim; j++) covariance[j * dim + j] += raised[j];
    for (size_t t = 0; t <= classes; t++) { /* the last one is everything: its mean, and what the means scatter too */
      double matrix[MOST * MOST], difference[MOST], solved[MOST], square = 0.0;
      for (size_t k = 0; k < dim * dim; k++) matrix[k] = covariance[k] + (t < classes ? 0.0 : between[k]);
      for (size_t j = 0; j < dim; j++) {
        difference[j] = (double)data.x[i * dim + j] - (t < classes ? less[t * dim + j] : centre[j]);
        solved[j] = difference[j];
      }
      eliminate(matrix, solved, dim);
      for (size_t j = 0; j < dim; j++) square += solved[j] * difference[j];
      if (t == classes) {
        unknown[i] = nearest - square;
      } else {
        scores[i * classes + t] = -0.5 * square + noise / count[t];
        nearest = fmin(nearest, square);
      }
    }
    double solved[MOST]; /* of both views' mean, from the own one */
    for (size_t j = 0; j < dim; j++) solved[j] = middle[i * dim + j] - less[c * dim + j];
    eliminate(covariance, solved, dim);
    for (size_t j = 0; j < dim; j++) own[i] += solved[j] * (middle[i * dim + j] - less[c * dim + j]);
    spread += own[i] * (count[c] - 1.0) / count[c] / n;
  }
  for (size_t i = 0; i < data.n; i++) {
    const double k = count[data.y[i]];
    scores[i * classes + (size_t)data.y[i]] += 0.5 * spread * (1.0 / (k - 1.0) - 1.0 / k);
  }
  free(own);
  free(half);
  free(middle);
}

/* Where the posterior of scores [n, classes] finds the labels most likely, each class with the same weight. */
static double plain_temperature(const double *scores, struct data data, size_t classes, double initial) {
  double best = 0.0, lowest = HUGE_VAL, count[64] = {0};
  for (size_t i = 0; i < data.n; i++) count[data.y[i]] += 1.0;
  for (double log_t = log(0.05); log_t < log(100.0); log_t += 1e-3) {
    const double off = (log_t - log(initial)) / 2.0, t = exp(log_t);
    double cost = 0.5 * off * off;
    for (size_t i = 0; i < data.n; i++) {
      const double *row = scores + i * classes, right = row[data.y[i]];
      double sharp = 0.0, broad = 0.0;
      for (size_t c = 0; c < classes; c++)
        sharp += exp((row[c] - right) / t), broad += exp((row[c] - right) / (4.0 * t));
      cost -= (double)data.n / (double)classes / count[data.y[i]] * log(0.8 / sharp + 0.2 / broad);
    }
    if (cost < lowest) lowest = cost, best = t;
  }
  return best;
}

static int compare_doubles(const void *a, const void *b) {
  const double *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

/* A second view [n, dim] of data, not far from the first. */
static float *second_view(struct data data, uint32_t seed) {
  float *mirrored = malloc(data.n * data.dim * sizeof *mirrored);
  assert_non_null(mirrored);
  for (size_t i = 0; i < data.n * data.dim; i++) mirrored[i] = data.x[i] + 0.4f * test_normal(&seed);
  return mirrored;
}

static void features_left_out_one_by_one_calibrate(void **state) {
  (void)state;
  enum { NUM = 5 };
  /* Fewer and more classes than columns; in one of them a class has two features. */
  static const size_t sizes[][2] = {{60, 6}, {23, 8}, {11, 6}, {60, 5}, {40, 3}};
  for (size_t k = 0; k < 2 * sizeof sizes / sizeof *sizes; k++) {
    const size_t n = sizes[k / 2][0], dim = sizes[k / 2][1];
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.shrinkage = 0.2f;
    struct data data = make_data(n, dim, 0, NUM, 0.5f, 400 + (uint32_t)k);
    for (size_t i = NUM; i < 2 * NUM; i++) data.y[i] = (int64_t)(i - NUM);
    float *mirrored = second_view(data, 450 + (uint32_t)k);
    double *scores = calloc(n * NUM, sizeof *scores), *unknown = calloc(n, sizeof *unknown);
    assert_true(scores && unknown);
    plain_left_out(data, k % 2 ? mirrored : data.x, NUM, (double)options.shrinkage, scores, unknown);
    dlora_predictor *predictor = new_predictor(dim, &options);
    if (k % 2) {
      assert_status(DLORA_OK, dlora_predictor_observe_pair(predictor, data.x, mirrored, data.y, n, 0));
      assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    } else {
      learn(predictor, data);
    }
    const double expected = plain_temperature(scores, data, NUM, (double)options.temperature);
    assert_true(fabs((double)dlora_predictor_temperature(predictor) / expected - 1.0) < 2e-3);
    qsort(unknown, n, sizeof *unknown, compare_doubles);
    for (size_t i = 0; i < n; i++) {
      float threshold = 0.0f;
      assert_status(DLORA_OK, dlora_predictor_unknown_threshold(predictor, ((float)i + 0.5f) / (float)n, &threshold));
      assert_true(fabs((double)threshold - unknown[i]) < 1e-4 * (1.0 + fabs(unknown[i])));
    }
    dlora_predictor_destroy(predictor);
    free(unknown);
    free(scores);
    free(mirrored);
    free_data(data);
  }
}

/* Where the class posteriors that predictors give the feature which each has not seen find the labels most likely. */
static double temperature_without_each(dlora_predictor **without, struct data data, double initial) {
  double best = 0.0, lowest = HUGE_VAL;
  for (double log_t = log(0.05); log_t < log(20.0); log_t += 0.02) {
    const double off = (log_t - log(initial)) / 2.0;
    double cost = 0.5 * off * off;
    for (size_t i = 0; i < data.n; i++) {
      float log_probabilities[CLASSES];
      int64_t classes[CLASSES];
      size_t column = 0;
      assert_status(DLORA_OK, dlora_predictor_set_temperature(without[i], (float)exp(log_t)));
      assert_status(DLORA_OK, dlora_predictor_get_classes(without[i], classes));
      while (classes[column] != data.y[i]) column++;
      assert_status(DLORA_OK, dlora_predictor_posterior(without[i], data.x + i * data.dim, 1, NULL, log_probabilities,
                                                        NULL, NULL));
      cost -= (double)log_probabilities[column];
    }
    if (cost < lowest) lowest = cost, best = exp(log_t);
  }
  return best;
}

/* The closed form for the random projection against predictors that never saw the image: but for the level of the
 * ridge, which hardly depends on it. */
static void images_left_out_calibrate_a_random_projection(void **state) {
  (void)state;
  enum { N = 4 * CLASSES };
  struct data data = make_data(N, DIM, 0, CLASSES, 0.4f, 470);
  for (size_t i = 0; i < N; i++) data.y[i] = (int64_t)(i % CLASSES); /* labels tell little: T is far from 2 */
  float *mirrored = second_view(data, 471);
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.readout = DLORA_READOUT_RANDOM_PROJECTION;
  options.random_features = 40;
  options.ridge = 0.05f;
  for (int views = 1; views <= 2; views++) {
    const float *second = views == 2 ? mirrored : data.x;
    dlora_predictor *without[N], *whole = new_predictor(DIM, &options), *same[N];
    assert_status(DLORA_OK, dlora_predictor_observe_pair(whole, data.x, second, data.y, N, 0));
    assert_status(DLORA_OK, dlora_predictor_commit_task(whole));
    const double found = (double)dlora_predictor_temperature(whole);
    for (size_t i = 0; i < N; i++) {
      same[i] = whole;
      without[i] = new_predictor(DIM, &options);
      for (size_t j = 0; j < N; j++) {
        if (j == i) continue;
        assert_status(DLORA_OK,
                      dlora_predictor_observe_pair(without[i], data.x + j * DIM, second + j * DIM, data.y + j, 1, 0));
      }
      assert_status(DLORA_OK, dlora_predictor_commit_task(without[i]));
    }
    const double expected = temperature_without_each(without, data, (double)options.temperature);
    assert_true(fabs(found / expected - 1.0) < 0.06);
    assert_true(temperature_without_each(same, data, (double)options.temperature) < 0.8 * expected);
    for (size_t i = 0; i < N; i++) dlora_predictor_destroy(without[i]);
    dlora_predictor_destroy(whole);
  }
  free(mirrored);
  free_data(data);
}

static void two_views_enter_by_half(void **state) {
  (void)state;
  enum { N = 90, HELD = 20 };
  for (int readout = DLORA_READOUT_GAUSSIAN; readout <= DLORA_READOUT_RANDOM_PROJECTION; readout++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.readout = readout;
    options.random_features = 50;
    options.shrinkage = 0.1f;
    struct data data = make_data(N, DIM, 0, CLASSES, 1.0f, 480), probe = make_data(50, DIM, 0, CLASSES, 1.0f, 482);
    float *mirrored = second_view(data, 481);
    dlora_predictor *predictor = new_predictor(DIM, &options), *half = new_predictor(DIM, &options),
                    *doubled = new_predictor(DIM, &options), *loaded = NULL;
    assert_status(DLORA_OK, dlora_predictor_observe_pair(predictor, data.x, mirrored, data.y, N - HELD, 0));
    assert_status(DLORA_OK, dlora_predictor_observe_pair(predictor, data.x + (N - HELD) * DIM,
                                                         mirrored + (N - HELD) * DIM, data.y + N - HELD, HELD, 1));
    /* In two parts, merged; and of a copy. */
    assert_status(DLORA_OK, dlora_predictor_observe_pair(half, data.x, mirrored, data.y, 30, 0));
    dlora_predictor *other = new_predictor(DIM, &options);
    assert_status(DLORA_OK, dlora_predictor_observe_pair(other, data.x + 30 * DIM, mirrored + 30 * DIM, data.y + 30,
                                                         N - HELD - 30, 0));
    assert_status(DLORA_OK, dlora_predictor_observe_pair(other, data.x + (N - HELD) * DIM, mirrored + (N - HELD) * DIM,
                                                         data.y + N - HELD, HELD, 1));
    assert_status(DLORA_OK, dlora_predictor_merge(half, other));
    assert_status(DLORA_OK, dlora_predictor_clone(&loaded, half));
    dlora_predictor *const all[] = {predictor, half, loaded};
    for (size_t i = 0; i < 3; i++) assert_status(DLORA_OK, dlora_predictor_commit_task(all[i]));
    for (size_t i = 1; i < 3; i++) {
      assert_same_statistics(predictor, all[i]);
      assert_true(fabsf(dlora_predictor_temperature(all[i]) / dlora_predictor_temperature(predictor) - 1.0f) < 1e-4f);
    }
    /* Both views as images of their own: the same means, and twice the scatter and the counts. */
    observe(doubled, data);
    struct data second = {mirrored, data.y, N, DIM};
    learn(doubled, second);
    double means[CLASSES * DIM], expected[CLASSES * DIM], scatter[DIM * DIM], twice[DIM * DIM];
    uint64_t counts[CLASSES], twice_counts[CLASSES];
    assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, counts, means));
    assert_status(DLORA_OK, dlora_predictor_get_components(doubled, NULL, NULL, twice_counts, expected));
    assert_status(DLORA_OK, dlora_predictor_get_scatter(predictor, scatter));
    assert_status(DLORA_OK, dlora_predictor_get_scatter(doubled, twice));
    for (size_t c = 0; c < CLASSES; c++) assert_int_equal(2 * counts[c], twice_counts[c]);
    for (size_t i = 0; i < CLASSES * DIM; i++) assert_true(fabs(means[i] - expected[i]) < 1e-9);
    for (size_t i = 0; i < DIM * DIM; i++) assert_true(fabs(2.0 * scatter[i] - twice[i]) < 1e-9 * (double)N);
    if (readout == DLORA_READOUT_RANDOM_PROJECTION) { /* both sums are halved, and the ridge follows them */
      float a[50 * CLASSES], b[50 * CLASSES];
      dlora_predictor *const both[] = {predictor, doubled};
      for (size_t i = 0; i < 2; i++) {
        assert_status(DLORA_OK, dlora_predictor_set_temperature(both[i], 1.0f));
        assert_status(DLORA_OK, dlora_predictor_posterior(both[i], probe.x, 50, NULL, i ? b : a, NULL, NULL));
      }
      assert_close(a, b, 50 * CLASSES, 1e-4);
    }
    assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe_pair(predictor, data.x, NULL, data.y, 1, 0));
    mirrored[3] = NAN;
    assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_observe_pair(predictor, data.x, mirrored, data.y, 1, 0));
    assert_error_names("mirrored");
    dlora_predictor *made[] = {predictor, half, other, loaded, doubled};
    for (size_t i = 0; i < 5; i++) dlora_predictor_destroy(made[i]);
    free(mirrored);
    free_data(probe);
    free_data(data);
  }
}

/* Mean square of the distance of a component's mean to the centre, where all have as many features. */
static double separation_of(const dlora_predictor *predictor) {
  enum { MOST = 2 * CLASSES };
  const size_t num = dlora_predictor_num_components(predictor);
  double means[MOST * DIM], centre[DIM] = {0}, solved[DIM] = {0}, sum = 0.0;
  float weight[MOST * DIM], bias[MOST];
  assert_in_range(num, 1, MOST);
  assert_status(DLORA_OK, dlora_predictor_get_components(predictor, NULL, NULL, NULL, means));
  assert_status(DLORA_OK, dlora_predictor_linear_weights(predictor, 0, DIM, 0, weight, bias));
  for (size_t i = 0; i < num * DIM; i++) {
    centre[i % DIM] += means[i] / (double)num;
    solved[i % DIM] += (double)weight[i] / (double)num;
  }
  for (size_t i = 0; i < num * DIM; i++) {
    sum += (means[i] - centre[i % DIM]) * ((double)weight[i] - solved[i % DIM]);
  }
  return sum / (double)num;
}

/* T is kept in relation to how far apart the components are: what makes all scores larger is divided by more. */
static void the_temperature_follows_the_separation(void **state) {
  (void)state;
  enum { N = 20 * CLASSES };
  struct data first = make_data(N, DIM, 0, CLASSES, 0.6f, 490), second = make_data(N, DIM, 50, CLASSES, 0.6f, 491);
  for (size_t i = 0; i < N; i++) { /* as many of each class, and the second task's further apart */
    first.y[i] = (int64_t)(i % CLASSES);
    second.y[i] = 50 + first.y[i];
    first.x[i * DIM + i % CLASSES % DIM] += 2.0f;
    second.x[i * DIM + i % CLASSES % DIM] += 9.0f;
  }
  dlora_predictor *predictor = new_predictor(DIM, NULL), *alone = new_predictor(DIM, NULL), *loaded = NULL;
  learn(predictor, first);
  learn(alone, second);
  const double ratios[] = {log((double)dlora_predictor_temperature(predictor) / separation_of(predictor)),
                           log((double)dlora_predictor_temperature(alone) / separation_of(alone))};
  const double weights[] = {CLASSES - 1, 2 * CLASSES - 1}; /* components that each was told apart from */
  assert_status(DLORA_OK, dlora_predictor_append(predictor, alone));
  const double mean = (weights[0] * ratios[0] + weights[1] * ratios[1]) / (weights[0] + weights[1]);
  const double expected = exp(mean) * separation_of(predictor);
  assert_true(fabs((double)dlora_predictor_temperature(predictor) / expected - 1.0) < 1e-3);
  /* A file of before separations were kept has the temperature that it had. */
  const char *path = test_temporary("separations.safetensors"), *old = test_temporary("no_separations.safetensors");
  assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
  size_t size;
  unsigned char *bytes = test_read_file(path, &size), *name = bytes;
  while (memcmp(name, "log_separations", 15)) name++;
  memcpy(name, "not_separations", 15);
  test_write_file(old, bytes, size);
  assert_status(DLORA_OK, dlora_predictor_load(&loaded, old, NULL));
  assert_same(predictor, loaded);
  free(bytes);
  dlora_predictor *made[] = {predictor, alone, loaded};
  for (size_t i = 0; i < 3; i++) dlora_predictor_destroy(made[i]);
  free_data(second);
  free_data(first);
}

static void the_sample_does_not_depend_on_the_order(void **state) {
  (void)state;
  struct data data = make_data(900, DIM, 0, CLASSES, 0.5f, 410); /* more than are kept */
  dlora_predictor *whole = new_predictor(DIM, NULL), *backwards = new_predictor(DIM, NULL),
                  *half = new_predictor(DIM, NULL), *other = new_predictor(DIM, NULL);
  learn(whole, data);
  for (size_t i = data.n; i > 0; i--) {
    assert_status(DLORA_OK, dlora_predictor_observe(backwards, data.x + (i - 1) * DIM, data.y + i - 1, 1));
  }
  assert_status(DLORA_OK, dlora_predictor_commit_task(backwards));
  assert_status(DLORA_OK, dlora_predictor_observe(half, data.x, data.y, 450));
  assert_status(DLORA_OK, dlora_predictor_observe(other, data.x + 450 * DIM, data.y + 450, 450));
  assert_status(DLORA_OK, dlora_predictor_merge(half, other));
  assert_status(DLORA_OK, dlora_predictor_commit_task(half));
  const dlora_predictor *const same[] = {backwards, half};
  for (size_t i = 0; i < 2; i++) {
    float thresholds[2];
    assert_true(fabsf(dlora_predictor_temperature(same[i]) / dlora_predictor_temperature(whole) - 1.0f) < 1e-5f);
    for (size_t k = 0; k < 10; k++) {
      const float quantile = 0.05f + 0.1f * (float)k;
      assert_status(DLORA_OK, dlora_predictor_unknown_threshold(whole, quantile, &thresholds[0]));
      assert_status(DLORA_OK, dlora_predictor_unknown_threshold(same[i], quantile, &thresholds[1]));
      assert_true(fabsf(thresholds[0] - thresholds[1]) < 1e-3f);
    }
  }
  dlora_predictor *all[] = {whole, backwards, half, other};
  for (size_t i = 0; i < 4; i++) dlora_predictor_destroy(all[i]);
  free_data(data);
}

/* An overconfident readout: few images a class in many dimensions, hardly shrunk. */
static void calibration_needs_no_held_out_features(void **state) {
  (void)state;
  enum { WIDE = 60 };
  for (int readout = DLORA_READOUT_GAUSSIAN; readout <= DLORA_READOUT_RANDOM_PROJECTION; readout++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.readout = readout;
    options.random_features = 200;
    options.shrinkage = 0.01f;
    options.temperature = 0.3f;
    dlora_predictor *fitted = new_predictor(WIDE, &options), *raw = new_predictor(WIDE, &options), *whole = NULL;
    for (size_t task = 0; task < 2; task++) {
      int64_t first = (int64_t)task * 8;
      struct data train = make_data(160, WIDE, first, 8, 0.25f, 200 + (uint32_t)task);
      struct data held = make_data(40, WIDE, first, 8, 0.25f, 210 + (uint32_t)task);
      observe(fitted, train);
      assert_status(DLORA_OK, dlora_predictor_observe_held_out(fitted, held.x, held.y, held.n));
      assert_status(DLORA_OK, dlora_predictor_commit_task(fitted));
      observe(raw, train);
      learn(raw, held); /* in the end the same statistics */
      free_data(held);
      free_data(train);
    }
    assert_same_statistics(raw, fitted);
    /* Neither is far from the best that new images could tell. */
    struct data test = make_data(600, WIDE, 0, 16, 0.25f, 220);
    const float found[] = {dlora_predictor_temperature(fitted), dlora_predictor_temperature(raw)};
    double least = HUGE_VAL;
    for (float t = 0.3f; t < 30.0f; t *= 1.1f) {
      assert_status(DLORA_OK, dlora_predictor_set_temperature(raw, t));
      least = fmin(least, surprise(raw, test));
    }
    for (size_t i = 0; i < 2; i++) {
      assert_true(found[i] > 1.3f * options.temperature && found[i] < 100.0f);
      assert_status(DLORA_OK, dlora_predictor_set_temperature(raw, found[i]));
      assert_true(surprise(raw, test) < least + 0.05);
    }
    assert_status(DLORA_OK, dlora_predictor_set_temperature(raw, options.temperature));
    assert_true(surprise(fitted, test) < surprise(raw, test) - 0.05);
    /* Set by hand, it stays until a task with held-out features, also in a file. */
    const char *path = test_temporary("by_hand.safetensors");
    assert_status(DLORA_OK, dlora_predictor_set_temperature(fitted, 7.0f));
    assert_status(DLORA_OK, dlora_predictor_save(fitted, path));
    dlora_predictor_destroy(fitted);
    assert_status(DLORA_OK, dlora_predictor_load(&fitted, path, NULL));
    struct data more = make_data(80, WIDE, 30, 8, 0.25f, 230);
    learn(fitted, more);
    assert_float_equal(dlora_predictor_temperature(fitted), 7.0f, 0.0);
    assert_status(DLORA_OK, dlora_predictor_clone(&whole, fitted));
    observe(whole, more);
    assert_status(DLORA_OK, dlora_predictor_observe_held_out(whole, more.x, more.y, 20));
    assert_status(DLORA_OK, dlora_predictor_commit_task(whole));
    assert_true(fabsf(dlora_predictor_temperature(whole) - 7.0f) > 0.01f);
    free_data(more);
    free_data(test);
    dlora_predictor_destroy(whole);
    dlora_predictor_destroy(raw);
    dlora_predictor_destroy(fitted);
  }
}

/* Training fits its own features too well: they lie nearer to their means than new ones do. Held-out ones correct what
 * they say, the more of them there are. */
static void held_out_features_correct_a_fit_to_trained_ones(void **state) {
  (void)state;
  struct data train = make_data(1000, DIM, 0, CLASSES, 0.6f, 420), held = make_data(60, DIM, 0, CLASSES, 0.6f, 421);
  float mean[CLASSES * DIM] = {0}, count[CLASSES] = {0}, temperatures[3];
  for (size_t i = 0; i < train.n; i++) count[train.y[i]] += 1.0f;
  for (size_t i = 0; i < train.n * DIM; i++) {
    const size_t c = (size_t)train.y[i / DIM];
    mean[c * DIM + i % DIM] += train.x[i] / count[c];
  }
  for (size_t i = 0; i < train.n * DIM; i++) {
    const float *m = mean + (size_t)train.y[i / DIM] * DIM;
    train.x[i] = m[i % DIM] + 0.4f * (train.x[i] - m[i % DIM]);
  }
  for (size_t i = 0; i < 3; i++) {
    const size_t n[] = {0, 10, 60};
    dlora_predictor *predictor = new_predictor(DIM, NULL);
    observe(predictor, train);
    if (n[i] > 0) assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, held.x, held.y, n[i]));
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    temperatures[i] = dlora_predictor_temperature(predictor);
    dlora_predictor_destroy(predictor);
  }
  assert_true(temperatures[0] < temperatures[1] && temperatures[1] < temperatures[2]);
  assert_true(temperatures[2] > 1.3f * temperatures[0]);
  /* Easy ones do not lower it: training makes nothing less sure. */
  for (size_t i = 0; i < held.n * DIM; i++) held.x[i] = mean[(size_t)held.y[i / DIM] * DIM + i % DIM];
  struct data untrained = make_data(1000, DIM, 0, CLASSES, 0.6f, 420);
  for (size_t i = 0; i < 2; i++) {
    dlora_predictor *easy = new_predictor(DIM, NULL);
    observe(easy, untrained);
    if (i > 0) assert_status(DLORA_OK, dlora_predictor_observe_held_out(easy, held.x, held.y, held.n));
    assert_status(DLORA_OK, dlora_predictor_commit_task(easy));
    temperatures[i] = dlora_predictor_temperature(easy);
    dlora_predictor_destroy(easy);
  }
  assert_true(temperatures[1] > 0.97f * temperatures[0]);
  free_data(untrained);
  free_data(held);
  free_data(train);
}

static void a_few_easy_held_out_features_do_not_make_it_reckless(void **state) {
  (void)state;
  dlora_predictor *predictor = new_predictor(DIM, NULL);
  struct data train = make_data(100, DIM, 0, 3, 8.0f, 241), held = make_data(4, DIM, 0, 3, 8.0f, 242);
  observe(predictor, train);
  assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, held.x, held.y, held.n));
  assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
  float temperature = dlora_predictor_temperature(predictor);
  assert_true(temperature > 0.9f && temperature < 2.1f); /* they say nothing against the initial 2 */
  free_data(held);
  free_data(train);
  dlora_predictor_destroy(predictor);
}

static void unknown_scores_separate_and_the_threshold_keeps_its_quantile(void **state) {
  (void)state;
  dlora_predictor *predictor = new_predictor(DIM, NULL);
  float threshold = 0.0f, unknown[1000], strict = 0.0f;
  assert_status(DLORA_ERR_STATE, dlora_predictor_unknown_threshold(predictor, 0.95f, &threshold));
  assert_error_names("two features");
  for (size_t task = 0; task < 2; task++) {
    struct data train = make_data(400, DIM, (int64_t)task * 4, 4, 3.0f, 250 + (uint32_t)task);
    struct data held = make_data(300, DIM, (int64_t)task * 4, 4, 3.0f, 260 + (uint32_t)task);
    observe(predictor, train);
    assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, held.x, held.y, held.n));
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    free_data(held);
    free_data(train);
  }
  struct data known = make_data(1000, DIM, 0, 8, 3.0f, 270), strange = make_data(1000, DIM, 100, 8, 3.0f, 271);
  size_t accepted = 0, rejected = 0;
  assert_status(DLORA_OK, dlora_predictor_unknown_threshold(predictor, 0.95f, &threshold));
  assert_status(DLORA_OK, dlora_predictor_unknown_threshold(predictor, 0.5f, &strict));
  assert_true(strict < threshold);
  assert_status(DLORA_OK, dlora_predictor_posterior(predictor, known.x, 1000, NULL, NULL, NULL, unknown));
  for (size_t i = 0; i < 1000; i++) accepted += unknown[i] <= threshold;
  assert_in_range(accepted, 900, 990);
  assert_status(DLORA_OK, dlora_predictor_posterior(predictor, strange.x, 1000, NULL, NULL, NULL, unknown));
  for (size_t i = 0; i < 1000; i++) rejected += unknown[i] > threshold;
  assert_in_range(rejected, 900, 1000);
  struct answer answer = ask(predictor, strange.x, 1000);
  for (size_t i = 0; i < 1000; i++) assert_int_equal(answer.predictions[i].unknown, unknown[i] > threshold);
  free_answer(answer);
  const float bad[] = {0.0f, 1.0f, NAN, -1.0f};
  for (size_t i = 0; i < 4; i++) {
    assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_unknown_threshold(predictor, bad[i], &threshold));
  }
  free_data(strange);
  free_data(known);
  dlora_predictor_destroy(predictor);
}

static void one_image_a_class_is_learnt_at_once(void **state) {
  (void)state;
  enum { WIDE = 200, NUM = 10 };
  uint32_t seed = 281;
  struct data shots = new_data(NUM, WIDE), test = new_data(NUM, WIDE);
  for (size_t i = 0; i < NUM; i++) {
    shots.y[i] = test.y[i] = (int64_t)i * 1000 - 3;
    for (size_t j = 0; j < WIDE; j++) {
      shots.x[i * WIDE + j] = 5.0f + test_normal(&seed);
      test.x[i * WIDE + j] = shots.x[i * WIDE + j] + 0.5f * test_normal(&seed);
    }
  }
  dlora_predictor *predictor = new_predictor(WIDE, NULL);
  learn(predictor, shots);
  assert_true(accuracy(predictor, test) > 0.999);
  assert_true(surprise(predictor, test) < 0.1);
  /* A second image of each, of much the same look, and then a task of a single image. */
  learn(predictor, test);
  assert_true(accuracy(predictor, shots) > 0.999);
  struct data single = {shots.x, shots.y, 1, WIDE};
  learn(predictor, single);
  dlora_predictor_destroy(predictor);

  predictor = new_predictor(WIDE, NULL); /* nothing but one image, or the same one again */
  learn(predictor, single);
  assert_true(accuracy(predictor, single) > 0.999);
  learn(predictor, single);
  dlora_prediction prediction;
  assert_status(DLORA_OK, dlora_predictor_predict(predictor, test.x, 1, &prediction));
  assert_true(fabsf(prediction.class_probability - 1.0f) < 1e-6f);
  assert_true(isfinite(prediction.unknown_score));
  dlora_predictor_destroy(predictor);
  free_data(test);
  free_data(shots);
}

static void random_projection_separates_what_no_line_can(void **state) {
  (void)state;
  /* Class by the sign of x y: the class means coincide. */
  struct data train = new_data(1500, 2), test = new_data(500, 2);
  uint32_t seed = 291;
  for (size_t i = 0; i < 2000; i++) {
    float x = test_uniform(&seed), y = test_uniform(&seed);
    struct data *part = i < 1500 ? &train : &test;
    size_t row = i < 1500 ? i : i - 1500;
    part->x[2 * row] = x;
    part->x[2 * row + 1] = y;
    part->y[row] = x * y > 0.0f;
  }
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  dlora_predictor *gaussian = new_predictor(2, &options);
  options.readout = DLORA_READOUT_RANDOM_PROJECTION;
  options.random_features = 100;
  options.seed = 5;
  options.ridge = 1e-4f;
  dlora_predictor *projected = new_predictor(2, &options), *halves = new_predictor(2, &options), *other = NULL;
  struct data first = {train.x, train.y, 700, 2}, second = {train.x + 1400, train.y + 700, 800, 2};
  learn(gaussian, train);
  learn(projected, train);
  assert_true(accuracy(gaussian, test) < 0.65);
  assert_true(accuracy(projected, test) > 0.9);
  assert_true(surprise(projected, test) < surprise(gaussian, test) - 0.2); /* and the posterior says so */
  /* Its sums add like the others. */
  assert_status(DLORA_OK, dlora_predictor_clone(&other, halves));
  learn(halves, first);
  learn(other, second);
  assert_status(DLORA_OK, dlora_predictor_merge(halves, other));
  assert_status(DLORA_OK, dlora_predictor_set_temperature(projected, 2.0f)); /* each half has had its own */
  assert_status(DLORA_OK, dlora_predictor_set_temperature(halves, 2.0f));
  struct answer a = ask(projected, test.x, test.n), b = ask(halves, test.x, test.n);
  for (size_t i = 0; i < 2 * test.n; i++) assert_true(fabsf(expf(a.components[i]) - expf(b.components[i])) < 1e-5f);
  free_answer(a);
  free_answer(b);
  /* Another seed is another projection. */
  options.seed = 6;
  dlora_predictor *foreign = new_predictor(2, &options);
  assert_status(DLORA_ERR_MISMATCH, dlora_predictor_merge(halves, foreign));
  assert_error_names("seed");
  assert_status(DLORA_ERR_MISMATCH, dlora_predictor_append(halves, gaussian));
  dlora_predictor *all[] = {gaussian, projected, halves, other, foreign};
  for (size_t i = 0; i < 5; i++) dlora_predictor_destroy(all[i]);
  free_data(test);
  free_data(train);
}

/* What the documentation says of R is enough to compute the scores without the library. */
static void the_projection_is_standard_normal_and_gives_the_scores(void **state) {
  (void)state;
  enum { WIDTH = 3, RANDOM = 40, ROWS = 60, KINDS = 2 };
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  dlora_predictor *predictor = new_predictor(WIDTH, &options);
  static double many[50 * 4000];
  double projection[WIDTH * RANDOM], gram[RANDOM * RANDOM] = {0}, z[ROWS * RANDOM], level = 0.0;
  size_t width = 0;
  assert_status(DLORA_ERR_STATE, dlora_predictor_get_projection(predictor, &width, NULL));
  assert_error_names("Gaussian");
  dlora_predictor_destroy(predictor);

  options.readout = DLORA_READOUT_RANDOM_PROJECTION;
  options.random_features = 4000;
  options.seed = 8;
  predictor = new_predictor(50, &options);
  assert_status(DLORA_OK, dlora_predictor_get_projection(predictor, &width, many));
  assert_int_equal(width, 4000);
  double moments[4] = {0};
  for (size_t i = 0; i < 50 * 4000; i++) {
    for (int k = 0; k < 4; k++) moments[k] += pow(many[i], k + 1) / (50.0 * 4000.0);
  }
  /* 0, 1, 0, 3, each within five deviations of its estimate */
  assert_true(fabs(moments[0]) < 0.012 && fabs(moments[1] - 1.0) < 0.016);
  assert_true(fabs(moments[2]) < 0.045 && fabs(moments[3] - 3.0) < 0.11);
  dlora_predictor_destroy(predictor);

  options.random_features = RANDOM;
  options.ridge = 0.05f;
  predictor = new_predictor(WIDTH, &options);
  struct data data = make_data(ROWS, WIDTH, 0, KINDS, 1.0f, 7);
  learn(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_get_projection(predictor, NULL, projection));
  for (size_t i = 0; i < ROWS * RANDOM; i++) {
    double sum = 0.0;
    for (size_t j = 0; j < WIDTH; j++) {
      sum += (double)data.x[i / RANDOM * WIDTH + j] * projection[j * RANDOM + i % RANDOM];
    }
    z[i] = fmax(0.0, sum);
  }
  for (size_t i = 0; i < RANDOM * RANDOM; i++) {
    for (size_t r = 0; r < ROWS; r++) gram[i] += z[r * RANDOM + i / RANDOM] * z[r * RANDOM + i % RANDOM];
  }
  for (size_t i = 0; i < RANDOM; i++) level += gram[i * RANDOM + i] / RANDOM;
  for (size_t i = 0; i < RANDOM; i++) gram[i * RANDOM + i] += (double)options.ridge * level;
  double weight[KINDS * RANDOM] = {0};
  for (size_t c = 0; c < KINDS; c++) {
    double work[RANDOM * RANDOM];
    memcpy(work, gram, sizeof work);
    for (size_t r = 0; r < ROWS; r++) {
      for (size_t j = 0; data.y[r] == (int64_t)c && j < RANDOM; j++) weight[c * RANDOM + j] += z[r * RANDOM + j];
    }
    eliminate(work, weight + c * RANDOM, RANDOM);
  }
  struct answer a = ask(predictor, data.x, data.n);
  const double temperature = (double)dlora_predictor_temperature(predictor);
  for (size_t r = 0; r < ROWS; r++) {
    double score[KINDS];
    for (size_t c = 0; c < KINDS; c++) {
      score[c] = 0.0;
      for (size_t j = 0; j < RANDOM; j++) score[c] += 20.0 * weight[c * RANDOM + j] * z[r * RANDOM + j];
    }
    const double apart = (score[1] - score[0]) / temperature;
    const double first = 0.8 / (1.0 + exp(apart)) + 0.2 / (1.0 + exp(apart / 4.0));
    assert_true(fabs(exp((double)a.class_logs[r * KINDS]) - first) < 1e-5);
  }
  free_answer(a);
  free_data(data);
  dlora_predictor_destroy(predictor);
}

static void a_thousand_classes_in_ten_tasks(void **state) {
  (void)state;
  enum { NUM = 1000, WIDE = 16 };
  dlora_predictor *predictor = new_predictor(WIDE, NULL);
  int64_t ids[NUM];
  for (size_t task = 0; task < 10; task++) {
    struct data data = new_data(300, WIDE);
    uint32_t seed = 300 + (uint32_t)task;
    for (size_t i = 0; i < 300; i++) {
      data.y[i] = (int64_t)(task * 100 + i % 100) - INT64_MAX / 2;
      uint32_t mean = 7u + (uint32_t)(task * 100 + i % 100) * 2654435761u;
      for (size_t j = 0; j < WIDE; j++) data.x[i * WIDE + j] = 10.0f * test_normal(&mean) + 0.3f * test_normal(&seed);
    }
    learn(predictor, data);
    assert_true(accuracy(predictor, data) > 0.99);
    free_data(data);
  }
  assert_int_equal(dlora_predictor_num_classes(predictor), NUM);
  assert_status(DLORA_OK, dlora_predictor_get_classes(predictor, ids));
  for (size_t i = 0; i < NUM; i++) assert_true(ids[i] == (int64_t)i - INT64_MAX / 2);
  dlora_predictor_destroy(predictor);
}

static void saved_and_loaded_predictor_is_bitwise_the_same(void **state) {
  (void)state;
  const char *path = test_temporary("predictor.safetensors");
  for (int readout = DLORA_READOUT_GAUSSIAN; readout <= DLORA_READOUT_RANDOM_PROJECTION; readout++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.readout = readout;
    options.random_features = 64;
    options.seed = UINT64_MAX - 3;
    options.shrinkage = 0.123f;
    options.use_prior = 1;
    dlora_predictor *predictor = learnt(2, &options), *loaded = NULL;
    struct data data = make_data(150, DIM, 0, 8, 1.0f, 311), held = make_data(400, DIM, 0, 8, 1.0f, 312);
    observe(predictor, data);
    assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, held.x, held.y, held.n));
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    observe(predictor, data); /* an open task is not written */
    assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
    assert_status(DLORA_OK, dlora_predictor_load(&loaded, path, NULL));
    assert_same(predictor, loaded);
    float threshold[2];
    assert_status(DLORA_OK, dlora_predictor_unknown_threshold(predictor, 0.9f, &threshold[0]));
    assert_status(DLORA_OK, dlora_predictor_unknown_threshold(loaded, 0.9f, &threshold[1]));
    assert_memory_equal(&threshold[0], &threshold[1], sizeof *threshold);
    assert_status(DLORA_ERR_STATE, dlora_predictor_commit_task(loaded));
    /* It goes on learning as the original does. */
    assert_status(DLORA_OK, dlora_predictor_discard_task(predictor));
    learn(predictor, held);
    learn(loaded, held);
    assert_same(predictor, loaded);
    dlora_predictor_destroy(loaded);
    /* Options of the caller's are taken where the sums allow it. */
    options.shrinkage = 0.5f;
    assert_status(DLORA_OK, dlora_predictor_load(&loaded, path, &options));
    dlora_predictor_destroy(loaded);
    options.readout = 1 - readout;
    assert_status(DLORA_ERR_MISMATCH, dlora_predictor_load(&loaded, path, &options));
    assert_null(loaded);
    free_data(held);
    free_data(data);
    dlora_predictor_destroy(predictor);
    options.readout = readout;
    predictor = new_predictor(5, &options);
    assert_status(DLORA_OK, dlora_predictor_set_temperature(predictor, 3.25f));
    assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
    assert_status(DLORA_OK, dlora_predictor_load(&loaded, path, NULL));
    assert_int_equal(dlora_predictor_dim(loaded), 5);
    assert_int_equal(dlora_predictor_num_tasks(loaded), 0);
    assert_float_equal(dlora_predictor_temperature(loaded), 3.25f, 0.0);
    dlora_predictor_destroy(loaded);
    dlora_predictor_destroy(predictor);
  }
}

static void clone_copies_the_open_task_too(void **state) {
  (void)state;
  dlora_predictor *predictor = learnt(2, NULL), *copy = NULL;
  struct data data = make_data(100, DIM, 30, 4, 1.0f, 321), held = make_data(30, DIM, 30, 4, 1.0f, 322);
  observe(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, held.x, held.y, held.n));
  assert_status(DLORA_OK, dlora_predictor_clone(&copy, predictor));
  assert_same(predictor, copy);
  assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
  assert_int_equal(dlora_predictor_num_tasks(copy), 2);
  assert_status(DLORA_OK, dlora_predictor_commit_task(copy));
  assert_same(predictor, copy);
  dlora_predictor_destroy(predictor);
  assert_int_equal(dlora_predictor_num_tasks(copy), 3);
  dlora_predictor_destroy(copy);
  free_data(held);
  free_data(data);
}

static void discard_forgets_the_open_task(void **state) {
  (void)state;
  dlora_predictor *predictor = learnt(1, NULL), *before = NULL;
  struct data data = make_data(100, DIM, 30, 4, 1.0f, 331);
  assert_status(DLORA_OK, dlora_predictor_clone(&before, predictor));
  observe(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, data.x, data.y, 10));
  assert_status(DLORA_OK, dlora_predictor_discard_task(predictor));
  assert_status(DLORA_ERR_STATE, dlora_predictor_commit_task(predictor));
  assert_error_names("dlora_predictor_observe");
  assert_same(before, predictor);
  dlora_predictor_destroy(before);
  dlora_predictor_destroy(predictor);
  free_data(data);
}

static void held_out_features_alone_make_a_task(void **state) {
  (void)state;
  dlora_predictor *predictor = new_predictor(DIM, NULL), *plain = new_predictor(DIM, NULL);
  struct data data = make_data(60, DIM, 0, 4, 2.0f, 341);
  assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, data.x, data.y, data.n));
  assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
  learn(plain, data);
  assert_same_statistics(plain, predictor);
  assert_true(fabsf(dlora_predictor_temperature(plain) / dlora_predictor_temperature(predictor) - 1.0f) < 1e-5f);
  dlora_predictor_destroy(plain);
  dlora_predictor_destroy(predictor);
  free_data(data);
}

static void bad_input_is_refused_and_changes_nothing(void **state) {
  (void)state;
  dlora_predictor *predictor = NULL, *before = NULL;
  const size_t impossible[] = {0, SIZE_MAX, SIZE_MAX / 4, (size_t)1 << 40};
  for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
    predictor = (dlora_predictor *)&before;
    assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_create(&predictor, impossible[i], NULL));
    assert_null(predictor);
    assert_error_names("dim");
  }
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_create(NULL, 4, NULL));
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  const struct {
    float shrinkage, temperature, ridge;
    int32_t readout;
    size_t random_features;
    const char *culprit;
  } wrong[] = {{-0.1f, 2.0f, 0.01f, 0, 10, "shrinkage"},     {NAN, 2.0f, 0.01f, 0, 10, "shrinkage"},
               {0.1f, 0.0f, 0.01f, 0, 10, "temperature"},    {0.1f, INFINITY, 0.01f, 0, 10, "temperature"},
               {0.1f, 2.0f, 0.0f, 1, 10, "ridge"},           {0.1f, 2.0f, 0.01f, 7, 10, "readout"},
               {0.1f, 2.0f, 0.01f, 1, 0, "random_features"}, {0.1f, 2.0f, 0.01f, 1, SIZE_MAX, "random_features"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    options.shrinkage = wrong[i].shrinkage;
    options.temperature = wrong[i].temperature;
    options.ridge = wrong[i].ridge;
    options.readout = wrong[i].readout;
    options.random_features = wrong[i].random_features;
    assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_create(&predictor, 4, &options));
    assert_error_names(wrong[i].culprit);
  }
  options.struct_size = 3;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_predictor_create(&predictor, 4, &options));

  float x[2 * DIM] = {0}, weight[64], bias[16];
  int64_t y[2] = {1, 2};
  dlora_prediction prediction[2];
  predictor = new_predictor(DIM, NULL);
  assert_status(DLORA_ERR_STATE, dlora_predictor_posterior(predictor, x, 1, NULL, NULL, NULL, NULL));
  assert_error_names("dlora_predictor_commit_task");
  assert_status(DLORA_ERR_STATE, dlora_predictor_predict(predictor, x, 1, prediction));
  assert_status(DLORA_ERR_STATE, dlora_predictor_commit_task(predictor));
  assert_status(DLORA_ERR_STATE, dlora_predictor_linear_weights(predictor, 0, 2, 1, weight, bias));
  dlora_predictor_destroy(predictor);

  predictor = learnt(2, NULL);
  assert_status(DLORA_OK, dlora_predictor_clone(&before, predictor));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe(NULL, x, y, 1));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe(predictor, NULL, y, 1));
  assert_error_names("features");
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe(predictor, x, NULL, 1));
  assert_error_names("labels");
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe(predictor, x, y, 0));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe(predictor, x, y, SIZE_MAX / 8));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe_held_out(predictor, x, y, SIZE_MAX / 8));
  x[DIM + 3] = NAN;
  assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_observe(predictor, x, y, 2));
  assert_error_names("features[1, 3]");
  assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_observe_held_out(predictor, x, y, 2));
  assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_predict(predictor, x, 2, prediction));
  assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_posterior(predictor, x, 2, NULL, NULL, NULL, NULL));
  assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_compensate_drift(predictor, x, x, 2, 0, DIM));
  assert_error_names("before");
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_compensate_drift(predictor, x, x, 1, DIM, 1));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_compensate_drift(predictor, x, x, 1, 3, SIZE_MAX));
  assert_error_names("columns");
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_linear_weights(predictor, 1, DIM, 0, weight, bias));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_linear_weights(predictor, 0, 0, 0, weight, bias));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_set_temperature(predictor, 0.0f));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_set_temperature(predictor, NAN));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_save(predictor, NULL));
  dlora_predictor *narrow = new_predictor(DIM - 1, NULL);
  assert_status(DLORA_ERR_MISMATCH, dlora_predictor_merge(predictor, narrow));
  assert_error_names("dim");
  assert_status(DLORA_ERR_MISMATCH, dlora_predictor_append(predictor, narrow));
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_merge(predictor, NULL));
  dlora_predictor_destroy(narrow);
  assert_status(DLORA_ERR_STATE, dlora_predictor_commit_task(predictor)); /* nothing was taken in */
  assert_same(predictor, before);
  dlora_predictor_destroy(before);
  dlora_predictor_destroy(predictor);
  dlora_predictor_destroy(NULL);
}

/* Where a tensor's bytes are in a safetensors image, by its name in the header. */
static size_t find_tensor(const unsigned char *bytes, const char *name) {
  uint64_t header = 0;
  size_t begin = 0;
  for (size_t i = 0; i < 8; i++) header |= (uint64_t)bytes[i] << (8 * i);
  char *text = calloc((size_t)header + 1, 1);
  assert_non_null(text);
  memcpy(text, bytes + 8, (size_t)header);
  const char *entry = strstr(text, name), *offsets = entry ? strstr(entry, "data_offsets") : NULL;
  assert_non_null(offsets);
  assert_int_equal(sscanf(strchr(offsets, '['), "[%zu", &begin), 1);
  free(text);
  return 8 + (size_t)header + begin;
}

static void damaged_files_are_refused(void **state) {
  (void)state;
  const char *path = test_temporary("predictor_whole.safetensors"),
             *damaged = test_temporary("predictor_damaged.safetensors");
  dlora_predictor *predictor = learnt(2, NULL), *loaded = NULL;
  size_t size = 0;
  assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
  unsigned char *bytes = test_read_file(path, &size), *copy = malloc(size);
  assert_non_null(copy);
  for (size_t cut = 0; cut < size; cut += size / 16) {
    loaded = (dlora_predictor *)&size;
    test_write_file(damaged, bytes, cut);
    assert_status(DLORA_ERR_FORMAT, dlora_predictor_load(&loaded, damaged, NULL));
    assert_null(loaded);
  }
  const double bad = (double)NAN, negative = -1.0, huge = 1e300, tiny = 1e-300, one = 1.0;
  const int64_t zero = 0, far = 9, many = 1000, minus = -1;
  const struct {
    const char *tensor;
    const void *value;
  } changes[] = {{"predictor.means", &bad},
                 {"predictor.scatter", &bad},
                 {"predictor.scatter", &negative},
                 {"predictor.counts", &zero},
                 {"predictor.counts", &minus},
                 {"predictor.tasks", &far},
                 {"predictor.tasks", &minus},
                 {"predictor.readout", &far},
                 {"predictor.temperature", &negative},
                 {"predictor.shrinkage", &bad},
                 {"predictor.shrinkage", &huge},
                 {"predictor.initial_temperature", &tiny},
                 {"predictor.held_out", &far},
                 {"predictor.num_unknown_scores", &many},
                 {"predictor.log_temperatures", &huge},
                 {"predictor.log_separations", &huge},
                 {"predictor.broad_share", &negative},
                 {"predictor.broad_share", &zero},
                 {"predictor.broad_share", &one},
                 {"predictor.broad_share", &bad}};
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    memcpy(copy, bytes, size);
    memcpy(copy + find_tensor(copy, changes[i].tensor), changes[i].value, 8);
    test_write_file(damaged, copy, size);
    assert_status(DLORA_ERR_FORMAT, dlora_predictor_load(&loaded, damaged, NULL));
    assert_null(loaded);
    assert_error_names("predictor");
  }
  /* The same class twice in a task. */
  memcpy(copy, bytes, size);
  size_t classes = find_tensor(copy, "predictor.classes");
  memcpy(copy + classes, copy + classes + 8, 8);
  test_write_file(damaged, copy, size);
  assert_status(DLORA_ERR_FORMAT, dlora_predictor_load(&loaded, damaged, NULL));
  assert_error_names("twice");
  dlora_projector *projector = NULL;
  assert_status(DLORA_OK, dlora_projector_create(&projector, 4, NULL));
  assert_status(DLORA_OK, dlora_projector_save(projector, damaged));
  assert_status(DLORA_ERR_FORMAT, dlora_predictor_load(&loaded, damaged, NULL));
  assert_error_names("duallora.projector");
  dlora_projector_destroy(projector);
  free(copy);
  free(bytes);
  dlora_predictor_destroy(predictor);
}

/* An allocator that fails from its `left`-th call on. */
static void *limited_allocate(size_t size, void *user) {
  size_t *left = user;
  if (*left == 0) return NULL;
  --*left;
  return malloc(size);
}

static void limited_release(void *pointer, void *user) {
  (void)user;
  free(pointer);
}

static void every_failed_allocation_leaves_the_predictor_as_it_was(void **state) {
  (void)state;
  enum { CALLS = 9 };
  size_t left = SIZE_MAX;
  const dlora_allocator allocator = {limited_allocate, limited_release, &left};
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.allocator = &allocator;
  options.readout = DLORA_READOUT_RANDOM_PROJECTION;
  options.random_features = 16;
  const char *path = test_temporary("predictor_limited.safetensors");
  struct data data = make_data(60, DIM, 3, CLASSES, 1.0f, 401), held = make_data(20, DIM, 3, CLASSES + 1, 1.0f, 402);
  dlora_predictor *other = learnt(2, &options);
  observe(other, held);
  assert_status(DLORA_OK, dlora_predictor_observe_held_out(other, data.x, data.y, 30));
  float probs[20 * 2], weight[20 * DIM], bias[20];
  for (int call = 0; call < CALLS; call++) {
    size_t failures = 0;
    for (size_t allowed = 0;; allowed++) {
      left = SIZE_MAX;
      dlora_predictor *predictor = learnt(2, &options), *made = NULL, *before = NULL;
      if (call != 0) observe(predictor, data);
      assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, held.x, held.y, held.n));
      assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
      assert_status(DLORA_OK, dlora_predictor_clone(&before, predictor));
      left = allowed;
      dlora_status status = call == 0   ? dlora_predictor_observe(predictor, data.x, data.y, data.n)
                            : call == 1 ? dlora_predictor_commit_task(predictor)
                            : call == 2 ? dlora_predictor_merge(predictor, other)
                            : call == 3 ? dlora_predictor_append(predictor, other)
                            : call == 4 ? dlora_predictor_compensate_drift(predictor, data.x, data.x + DIM, 20, 2, 6)
                            : call == 5 ? dlora_predictor_clone(&made, predictor)
                            : call == 6 ? dlora_predictor_load(&made, path, &options)
                            : call == 7 ? dlora_predictor_posterior(predictor, held.x, held.n, NULL, NULL, probs, NULL)
                                        : dlora_predictor_linear_weights(predictor, 0, DIM, 1, weight, bias);
      left = SIZE_MAX;
      if (status != DLORA_OK) {
        assert_status(DLORA_ERR_NO_MEMORY, status);
        assert_null(made);
        assert_same(before, predictor);
        assert_status(DLORA_OK, dlora_predictor_commit_task(before)); /* and the open task */
        assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
        assert_same(before, predictor);
        failures++;
      }
      dlora_predictor_destroy(made);
      dlora_predictor_destroy(before);
      dlora_predictor_destroy(predictor);
      if (status == DLORA_OK) break;
    }
    assert_true(failures > 0);
  }
  left = SIZE_MAX;
  dlora_predictor_destroy(other);
  free_data(held);
  free_data(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(shrinkage_follows_the_number_of_features),
      cmocka_unit_test(columns_may_have_any_scale),
      cmocka_unit_test(posterior_is_the_softmax_of_plain_lda_scores),
      cmocka_unit_test(linear_weights_of_an_open_task_follow_the_finished_ones),
      cmocka_unit_test(batches_orders_and_halves_give_the_same_statistics),
      cmocka_unit_test(open_tasks_merge_as_if_observed_together),
      cmocka_unit_test(appended_tasks_are_as_if_learnt_in_turn),
      cmocka_unit_test(posteriors_sum_to_one_and_tasks_sum_their_classes),
      cmocka_unit_test(a_recurring_class_adds_up_over_its_tasks),
      cmocka_unit_test(predictions_do_not_depend_on_the_batch),
      cmocka_unit_test(prior_is_the_log_share_of_images),
      cmocka_unit_test(a_class_of_few_features_keeps_its_share),
      cmocka_unit_test(drift_compensation_recovers_a_known_linear_drift),
      cmocka_unit_test(drift_compensation_leaves_the_open_task_alone),
      cmocka_unit_test(learning_leaves_earlier_means_bitwise_unchanged),
      cmocka_unit_test(features_left_out_one_by_one_calibrate),
      cmocka_unit_test(images_left_out_calibrate_a_random_projection),
      cmocka_unit_test(two_views_enter_by_half),
      cmocka_unit_test(the_temperature_follows_the_separation),
      cmocka_unit_test(the_sample_does_not_depend_on_the_order),
      cmocka_unit_test(calibration_needs_no_held_out_features),
      cmocka_unit_test(held_out_features_correct_a_fit_to_trained_ones),
      cmocka_unit_test(a_few_easy_held_out_features_do_not_make_it_reckless),
      cmocka_unit_test(unknown_scores_separate_and_the_threshold_keeps_its_quantile),
      cmocka_unit_test(one_image_a_class_is_learnt_at_once),
      cmocka_unit_test(random_projection_separates_what_no_line_can),
      cmocka_unit_test(the_projection_is_standard_normal_and_gives_the_scores),
      cmocka_unit_test(a_thousand_classes_in_ten_tasks),
      cmocka_unit_test(saved_and_loaded_predictor_is_bitwise_the_same),
      cmocka_unit_test(clone_copies_the_open_task_too),
      cmocka_unit_test(discard_forgets_the_open_task),
      cmocka_unit_test(held_out_features_alone_make_a_task),
      cmocka_unit_test(bad_input_is_refused_and_changes_nothing),
      cmocka_unit_test(damaged_files_are_refused),
      cmocka_unit_test(every_failed_allocation_leaves_the_predictor_as_it_was),
  };
  return cmocka_run_group_tests_name("predictor", tests, NULL, NULL);
}
