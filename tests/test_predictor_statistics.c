/* What the predictor observes: batches, parts, two views, further tasks, and old statistics that follow a drift.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support_predictor.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(batches_orders_and_halves_give_the_same_statistics),
      cmocka_unit_test(open_tasks_merge_as_if_observed_together),
      cmocka_unit_test(appended_tasks_are_as_if_learnt_in_turn),
      cmocka_unit_test(drift_compensation_recovers_a_known_linear_drift),
      cmocka_unit_test(drift_compensation_leaves_the_open_task_alone),
      cmocka_unit_test(learning_leaves_earlier_means_bitwise_unchanged),
      cmocka_unit_test(two_views_enter_by_half),
      cmocka_unit_test(one_image_a_class_is_learnt_at_once),
      cmocka_unit_test(a_thousand_classes_in_ten_tasks),
  };
  return cmocka_run_group_tests_name("predictor_statistics", tests, NULL, NULL);
}
