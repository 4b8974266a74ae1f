/* Unknown scores: against plain loops over matrices, from files of earlier libraries, and of classes that differ where
 * the known ones do not.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support_predictor.h"

enum { MOST = 8 };

/* (x - from)^T matrix^-1 (x - from) */
static double plain_distance(const double *matrix, const float *x, const double *from, size_t dim) {
  double copy[MOST * MOST], difference[MOST], solved[MOST], square = 0.0;
  memcpy(copy, matrix, dim * dim * sizeof *copy);
  for (size_t j = 0; j < dim; j++) difference[j] = solved[j] = (double)x[j] - from[j];
  eliminate(copy, solved, dim);
  for (size_t j = 0; j < dim; j++) square += solved[j] * difference[j];
  return square;
}

/* Unknown scores of probe by the statistics of data, METHOD.md 7.1, for these rho and gamma. */
static void assert_plain_scores(const dlora_predictor *predictor, struct data data, size_t classes, double shrinkage,
                                double rho, double gamma, struct data probe) {
  const size_t dim = data.dim;
  const double n = (double)data.n;
  double mean[MOST * MOST] = {0}, count[MOST] = {0}, centre[MOST] = {0}, within[MOST * MOST] = {0}, raised[MOST],
                     wide[MOST * MOST], widest[MOST * MOST];
  for (size_t i = 0; i < data.n; i++) count[data.y[i]] += 1.0;
  for (size_t i = 0; i < data.n * dim; i++) {
    const size_t c = (size_t)data.y[i / dim];
    mean[c * dim + i % dim] += (double)data.x[i] / count[c];
    centre[i % dim] += (double)data.x[i] / n;
  }
  for (size_t i = 0; i < data.n * dim * dim; i++) {
    const float *x = data.x + i / dim / dim * dim;
    const double *m = mean + (size_t)data.y[i / dim / dim] * dim;
    const size_t j = i / dim % dim, k = i % dim;
    within[j * dim + k] += ((double)x[j] - m[j]) * ((double)x[k] - m[k]) / (n - (double)classes);
  }
  plain_raise(within, dim, shrinkage, raised);
  for (size_t j = 0; j < dim; j++) within[j * dim + j] += raised[j];
  for (size_t i = 0; i < dim * dim; i++) {
    wide[i] = widest[i] = (1.0 + rho) * within[i];
    for (size_t c = 0; c < classes; c++) {
      const double *m = mean + c * dim;
      widest[i] += count[c] / n * (m[i / dim] - centre[i / dim]) * (m[i % dim] - centre[i % dim]);
    }
  }
  struct answer answer = ask(predictor, probe.x, probe.n);
  for (size_t i = 0; i < probe.n; i++) {
    const float *x = probe.x + i * dim;
    double nearest = HUGE_VAL;
    for (size_t c = 0; c < classes; c++) nearest = fmin(nearest, plain_distance(within, x, mean + c * dim, dim));
    const double expected =
        nearest - gamma * plain_distance(widest, x, centre, dim) - (1.0 - gamma) * plain_distance(wide, x, centre, dim);
    assert_true(fabs((double)answer.unknown[i] - expected) < 1e-4 * (1.0 + nearest));
  }
  free_answer(answer);
}

static void the_score_is_that_of_plain_loops(void **state) {
  (void)state;
  enum { NUM = 5 };
  static const size_t widths[] = {8, 6, 5, 3}; /* more and fewer columns than classes */
  for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    options.shrinkage = 0.2f;
    struct data data = make_data(60, widths[k], 0, NUM, 0.8f, 700 + (uint32_t)k);
    struct data probe = make_data(200, widths[k], 3, NUM, 0.8f, 720 + (uint32_t)k);
    dlora_predictor *predictor = new_predictor(widths[k], &options);
    learn(predictor, data);
    assert_plain_scores(predictor, data, NUM, (double)options.shrinkage, 0.1, 0.75, probe);
    dlora_predictor_destroy(predictor);
    free_data(probe);
    free_data(data);
  }
}

/* Renames what an earlier library does not write. */
static void hide(const char *path, const char *name) {
  size_t size, at = 0;
  unsigned char *bytes = test_read_file(path, &size);
  const size_t length = strlen(name);
  while (at + length < size && memcmp(bytes + at, name, length)) at++;
  assert_true(at + length < size);
  bytes[at] = 'x';
  test_write_file(path, bytes, size);
  free(bytes);
}

static void files_of_earlier_libraries_keep_their_score(void **state) {
  (void)state;
  enum { NUM = 4, WIDTH = 7 };
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.shrinkage = 0.2f;
  struct data data = make_data(80, WIDTH, 0, NUM, 0.8f, 740), probe = make_data(100, WIDTH, 2, NUM, 0.8f, 741);
  dlora_predictor *predictor = new_predictor(WIDTH, &options), *old = NULL, *copy = NULL;
  const char *path = test_temporary("unknown.safetensors");
  learn(predictor, data);
  assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
  hide(path, "unknown_spread");
  hide(path, "unknown_along");
  for (size_t i = 0; i < 2; i++) { /* also when it is written again */
    assert_status(DLORA_OK, dlora_predictor_load(&old, path, NULL));
    assert_plain_scores(old, data, NUM, (double)options.shrinkage, 0.0, 1.0, probe);
    assert_status(DLORA_OK, dlora_predictor_save(old, path));
    if (i == 0) dlora_predictor_destroy(old);
  }
  assert_status(DLORA_OK, dlora_predictor_clone(&copy, old));
  assert_plain_scores(copy, data, NUM, (double)options.shrinkage, 0.0, 1.0, probe);
  dlora_predictor_destroy(copy);

  /* A predictor that knows nothing takes the score over with the tasks. */
  dlora_predictor *empty[2] = {new_predictor(WIDTH, &options), new_predictor(WIDTH, &options)};
  assert_status(DLORA_OK, dlora_predictor_append(empty[0], old));
  assert_status(DLORA_OK, dlora_predictor_merge(empty[1], old));
  for (size_t i = 0; i < 2; i++) {
    assert_plain_scores(empty[i], data, NUM, (double)options.shrinkage, 0.0, 1.0, probe);
    dlora_predictor_destroy(empty[i]);
  }

  /* Another keeps its own, and the threshold that its own tasks gave. */
  float before = 0.0f, after = 0.0f;
  assert_status(DLORA_OK, dlora_predictor_unknown_threshold(predictor, 0.9f, &before));
  assert_status(DLORA_OK, dlora_predictor_append(predictor, old));
  assert_status(DLORA_OK, dlora_predictor_unknown_threshold(predictor, 0.9f, &after));
  assert_float_equal(before, after, 0.0);
  assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
  dlora_predictor_destroy(old);
  assert_status(DLORA_OK, dlora_predictor_load(&old, path, NULL));
  assert_same(predictor, old);
  dlora_predictor_destroy(old);
  dlora_predictor_destroy(predictor);
  free_data(probe);
  free_data(data);
}

/* Known classes differ in the first column alone. A class that lies among them there and apart in another column has no
 * larger score than a known one by the directions of the means alone. */
static void a_class_that_differs_elsewhere_is_unknown(void **state) {
  (void)state;
  enum { NUM = 4, WIDTH = 8, KNOWN = 400, PROBES = 400 };
  struct data train = new_data(KNOWN, WIDTH), known = new_data(PROBES, WIDTH), strange = new_data(PROBES, WIDTH);
  const struct data sets[] = {train, known, strange};
  uint32_t seed = 760;
  for (size_t s = 0; s < 3; s++) {
    for (size_t i = 0; i < sets[s].n; i++) {
      sets[s].y[i] = (int64_t)(i % NUM);
      for (size_t j = 0; j < WIDTH; j++) sets[s].x[i * WIDTH + j] = test_normal(&seed);
      sets[s].x[i * WIDTH] += 6.0f * (float)(i % NUM);
      if (s == 2) sets[s].x[i * WIDTH + 5] += 15.0f;
    }
  }
  dlora_predictor *predictor = new_predictor(WIDTH, NULL);
  learn(predictor, train);
  struct answer of_known = ask(predictor, known.x, PROBES), of_strange = ask(predictor, strange.x, PROBES);
  size_t false_alarms = 0, found = 0;
  for (size_t i = 0; i < PROBES; i++) {
    false_alarms += of_known.predictions[i].unknown != 0;
    found += of_strange.predictions[i].unknown != 0;
  }
  assert_in_range(false_alarms, PROBES / 100, PROBES / 10);
  assert_true(found > PROBES / 2);
  free_answer(of_strange);
  free_answer(of_known);
  dlora_predictor_destroy(predictor);
  free_data(strange);
  free_data(known);
  free_data(train);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_score_is_that_of_plain_loops),
      cmocka_unit_test(files_of_earlier_libraries_keep_their_score),
      cmocka_unit_test(a_class_that_differs_elsewhere_is_unknown),
  };
  return cmocka_run_group_tests_name("predictor_unknown", tests, NULL, NULL);
}
