/* The predictor's random projection: what no line separates, and its scores from the documented matrix.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "support_predictor.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_projection_separates_what_no_line_can),
      cmocka_unit_test(the_projection_is_standard_normal_and_gives_the_scores),
  };
  return cmocka_run_group_tests_name("predictor_projection", tests, NULL, NULL);
}
