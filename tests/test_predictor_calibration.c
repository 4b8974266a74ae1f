/* Temperature and unknown scores: against features left out one by one, held-out ones, and known distributions.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support_predictor.h"

/* Scores of all features of data, one task of classes 0 ..., each as if it had been left out together with its second
 * view, and unknown scores, by loops over matrices made anew: METHOD.md 7. scores: [n, classes] */
static void plain_left_out(struct data data, const float *mirrored, size_t classes, double shrinkage, double *scores,
                           double *unknown) {
  enum { MOST = 8 };
  const size_t dim = data.dim;
  double centre[MOST] = {0}, mean[MOST * MOST] = {0}, count[MOST] = {0}, within[MOST * MOST] = {0}, raised[MOST],
         spread = 0.0, noise = 0.0;
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
    double less[MOST * MOST], covariance[MOST * MOST] = {0}, between[MOST * MOST] = {0}, nearest = HUGE_VAL;
    double other[MOST]; /* the centre of the other features */
    memcpy(less, mean, sizeof less);
    for (size_t j = 0; j < dim; j++) {
      less[c * dim + j] = (count[c] * mean[c * dim + j] - middle[i * dim + j]) / (count[c] - 1.0);
    }
    for (size_t j = 0; j < dim; j++) other[j] = (n * centre[j] - middle[i * dim + j]) / (n - 1.0);
    /* From the other features alone, in units of the same degrees of freedom and number of features. */
    for (size_t r = 0; r < data.n; r++) {
      if (r == i) continue;
      const double *x = middle + r * dim, *d = half + r * dim, *m = less + (size_t)data.y[r] * dim;
      for (size_t k = 0; k < dim * dim; k++) {
        between[k] += (m[k / dim] - other[k / dim]) * (m[k % dim] - other[k % dim]) / n;
      }
      for (size_t k = 0; k < dim * dim; k++) {
        covariance[k] += ((x[k / dim] - m[k / dim]) * (x[k % dim] - m[k % dim]) + d[k / dim] * d[k % dim]) / degrees;
      }
    }
    for (size_t j = 0; j < dim; j++) covariance[j * dim + j] += raised[j];
    for (size_t t = 0; t <= classes; t++) { /* the last one is everything: its mean, and what the means scatter too */
      double matrix[MOST * MOST], difference[MOST], solved[MOST], square = 0.0;
      for (size_t k = 0; k < dim * dim; k++) matrix[k] = covariance[k] + (t < classes ? 0.0 : between[k]);
      for (size_t j = 0; j < dim; j++) {
        difference[j] = (double)data.x[i * dim + j] - (t < classes ? less[t * dim + j] : other[j]);
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

/* Two classes of 30 images each, ever further apart: new images of them stay known. The bound leaves room for the
 * chance of a threshold that is set by 60 images. */
static void new_images_of_classes_far_apart_are_known(void **state) {
  (void)state;
  enum { WIDTH = 48, LEARNT = 60, NEW = 400 };
  static const float distances[] = {3.0f, 30.0f, 100.0f, 1000.0f};
  static float features[NEW * WIDTH];
  static int64_t labels[NEW];
  static dlora_prediction predictions[NEW];
  uint32_t random = 5;
  for (size_t d = 0; d < sizeof distances / sizeof *distances; d++) {
    dlora_predictor *predictor = NULL;
    size_t unknown = 0;
    assert_status(DLORA_OK, dlora_predictor_create(&predictor, WIDTH, NULL));
    for (size_t part = 0; part < 2; part++) {
      const size_t count = part == 0 ? LEARNT : NEW;
      for (size_t i = 0; i < count; i++) {
        labels[i] = (int64_t)(i % 2);
        for (size_t j = 0; j < WIDTH; j++) features[i * WIDTH + j] = test_normal(&random);
        features[i * WIDTH] += labels[i] ? distances[d] : 0.0f;
      }
      if (part == 0) {
        assert_status(DLORA_OK, dlora_predictor_observe(predictor, features, labels, LEARNT));
        assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
      }
    }
    assert_status(DLORA_OK, dlora_predictor_predict(predictor, features, NEW, predictions));
    for (size_t i = 0; i < NEW; i++) unknown += predictions[i].unknown != 0;
    if (unknown > NEW / 5) fail_msg("%g apart: %zu of %d new images are unknown", (double)distances[d], unknown, NEW);
    dlora_predictor_destroy(predictor);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(features_left_out_one_by_one_calibrate),
      cmocka_unit_test(images_left_out_calibrate_a_random_projection),
      cmocka_unit_test(the_temperature_follows_the_separation),
      cmocka_unit_test(the_sample_does_not_depend_on_the_order),
      cmocka_unit_test(calibration_needs_no_held_out_features),
      cmocka_unit_test(held_out_features_correct_a_fit_to_trained_ones),
      cmocka_unit_test(a_few_easy_held_out_features_do_not_make_it_reckless),
      cmocka_unit_test(unknown_scores_separate_and_the_threshold_keeps_its_quantile),
      cmocka_unit_test(new_images_of_classes_far_apart_are_known),
  };
  return cmocka_run_group_tests_name("predictor_calibration", tests, NULL, NULL);
}
