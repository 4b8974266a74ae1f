/* The memory of used directions: against constructed data with known eigenvectors and plain loops, and with bad input.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define DIM 96

static double dot(const float *a, const float *b, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

/* Largest |v_i . w_j - (i == j and v == w)| over rows of v [k, dim] and w [m, dim]. */
static double off_orthonormal(const float *v, size_t k, const float *w, size_t m, size_t dim) {
  double worst = 0.0;
  for (size_t i = 0; i < k; i++) {
    for (size_t j = 0; j < m; j++) {
      double expected = v == w && i == j ? 1.0 : 0.0;
      worst = fmax(worst, fabs(dot(v + i * dim, w + j * dim, dim) - expected));
    }
  }
  return worst;
}

/* |v|^2 of v [dim] inside the orthonormal rows [m, dim]. */
static double energy_inside(const float *v, const float *rows, size_t m, size_t dim) {
  double sum = 0.0;
  for (size_t i = 0; i < m; i++) sum += pow(dot(v, rows + i * dim, dim), 2.0);
  return sum;
}

/* An orthonormal matrix [dim, dim] from random rows, by plain Gram-Schmidt. */
static float *random_rotation(size_t dim, uint32_t seed) {
  double *q = calloc(dim * dim, sizeof *q);
  float *out = calloc(dim * dim, sizeof *out);
  assert_non_null(q);
  assert_non_null(out);
  for (size_t i = 0; i < dim; i++) {
    for (size_t j = 0; j < dim; j++) q[i * dim + j] = (double)test_normal(&seed);
    for (int session = 0; session < 2; session++) {
      for (size_t r = 0; r < i; r++) {
        double sum = 0.0;
        for (size_t j = 0; j < dim; j++) sum += q[i * dim + j] * q[r * dim + j];
        for (size_t j = 0; j < dim; j++) q[i * dim + j] -= sum * q[r * dim + j];
      }
    }
    double norm = 0.0;
    for (size_t j = 0; j < dim; j++) norm += q[i * dim + j] * q[i * dim + j];
    for (size_t j = 0; j < dim; j++) q[i * dim + j] /= sqrt(norm);
  }
  for (size_t i = 0; i < dim * dim; i++) out[i] = (float)q[i];
  free(q);
  return out;
}

static dlora_projector *new_projector(size_t dim) {
  dlora_projector *projector = NULL;
  assert_status(DLORA_OK, dlora_projector_create(&projector, dim, NULL));
  return projector;
}

/* Observes +-scale[i] times direction i, so that S has these rows as eigenvectors with eigenvalues scale^2 / (2 count).
 */
static void observe_scaled(dlora_projector *projector, const float *directions, const float *scale, size_t count) {
  size_t dim = dlora_projector_dim(projector);
  float *x = calloc(2 * count * dim, sizeof *x);
  assert_non_null(x);
  for (size_t i = 0; i < count; i++) {
    for (size_t j = 0; j < dim; j++) {
      x[2 * i * dim + j] = scale[i] * directions[i * dim + j];
      x[(2 * i + 1) * dim + j] = -x[2 * i * dim + j];
    }
  }
  assert_status(DLORA_OK, dlora_projector_observe(projector, x, 2 * count));
  free(x);
}

/* Random rows [rows, dim] of `rank` random directions. */
static float *random_rows(size_t rows, size_t dim, size_t rank, uint32_t *seed) {
  float *x = calloc(rows * dim, sizeof *x), *factor = calloc(rank * dim, sizeof *factor);
  assert_non_null(x);
  assert_non_null(factor);
  for (size_t i = 0; i < rank * dim; i++) factor[i] = test_normal(seed);
  for (size_t i = 0; i < rows; i++) {
    for (size_t r = 0; r < rank; r++) {
      float weight = test_normal(seed) / (float)(1 + r);
      for (size_t j = 0; j < dim; j++) x[i * dim + j] += weight * factor[r * dim + j];
    }
  }
  free(factor);
  return x;
}

/* All bases [size, dim], to be freed. */
static float *all_bases(const dlora_projector *projector) {
  size_t dim = dlora_projector_dim(projector), size = dlora_projector_size(projector), filled = 0;
  float *out = calloc((size + 1) * dim, sizeof *out);
  assert_non_null(out);
  for (int64_t task = 0; task < (int64_t)dlora_projector_num_tasks(projector); task++) {
    const float *bases = NULL;
    size_t count = 0;
    assert_status(DLORA_OK, dlora_projector_get_bases(projector, task, &bases, &count));
    memcpy(out + filled * dim, bases, count * dim * sizeof *out);
    filled += count;
  }
  assert_int_equal(filled, size);
  return out;
}

static void commit_adds_known_eigenvectors_until_the_threshold(void **state) {
  (void)state;
  /* Energies 64, 16, 4, 4, 1, 1, 0.5, 0.5 of 91: after two directions 80 / 91 = 0.879, after three 84 / 91 = 0.923. */
  const float scale[] = {8.0f, 4.0f, 2.0f, 2.0f, 1.0f, 1.0f, 0.70710678f, 0.70710678f};
  const struct {
    float threshold;
    size_t expected;
  } cases[] = {{0.5f, 1}, {0.70f, 1}, {0.71f, 2}, {0.87f, 2}, {0.89f, 3}, {0.93f, 4}, {0.999f, 8}, {1.0f, 8}};
  float *rotation = random_rotation(24, 5);
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    dlora_projector *projector = new_projector(24);
    size_t added = 99;
    observe_scaled(projector, rotation, scale, 8);
    assert_int_equal(dlora_projector_num_observed(projector), 16);
    assert_status(DLORA_OK, dlora_projector_commit_task(projector, cases[c].threshold, &added));
    assert_int_equal(added, cases[c].expected);
    assert_int_equal(dlora_projector_size(projector), added);
    assert_int_equal(dlora_projector_num_tasks(projector), 1);
    assert_int_equal(dlora_projector_num_observed(projector), 0);
    float *bases = all_bases(projector);
    for (size_t i = 0; i < added && i < 2; i++) {
      assert_true(fabs(fabs(dot(bases + i * 24, rotation + i * 24, 24)) - 1.0) < 1e-5);
    }
    /* The two of energy 4 are one eigenspace: both lie in it, in any position. */
    for (size_t i = 2; i < added && i < 4; i++) {
      assert_true(energy_inside(bases + i * 24, rotation + 2 * 24, 2, 24) > 1.0 - 1e-5);
    }
    free(bases);
    dlora_projector_destroy(projector);
  }
  free(rotation);
}

static void directions_agree_with_power_iteration(void **state) {
  (void)state;
  enum { N = 20, ROWS = 300 };
  uint32_t seed = 17;
  dlora_projector *projector = new_projector(N);
  float *first = random_rows(50, N, 4, &seed), *x = random_rows(ROWS, N, N, &seed), free_rows[3 * N];
  size_t found = 0, size = 0;
  assert_status(DLORA_OK, dlora_projector_observe(projector, first, 50));
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.9f, &size));
  assert_in_range(size, 1, 4);
  assert_status(DLORA_OK, dlora_projector_observe(projector, x, ROWS));
  assert_status(DLORA_OK, dlora_projector_unused_directions(projector, 3, free_rows, &found));
  assert_int_equal(found, 3);
  float *bases = all_bases(projector);

  /* P S P by loops, then its leading eigenvector by power iteration, deflated three times. */
  double s[N * N] = {0}, p[N * N], half[N * N], psp[N * N];
  for (size_t r = 0; r < ROWS; r++) {
    for (size_t i = 0; i < N * N; i++) s[i] += (double)x[r * N + i / N] * (double)x[r * N + i % N];
  }
  for (size_t i = 0; i < N * N; i++) {
    p[i] = i / N == i % N ? 1.0 : 0.0;
    for (size_t r = 0; r < size; r++) p[i] -= (double)bases[r * N + i / N] * (double)bases[r * N + i % N];
  }
  for (size_t i = 0; i < N * N; i++) {
    half[i] = 0.0;
    for (size_t k = 0; k < N; k++) half[i] += p[i / N * N + k] * s[k * N + i % N];
  }
  for (size_t i = 0; i < N * N; i++) {
    psp[i] = 0.0;
    for (size_t k = 0; k < N; k++) psp[i] += half[i / N * N + k] * p[k * N + i % N];
  }
  for (size_t c = 0; c < 3; c++) {
    double v[N], next[N], value = 0.0, agreement = 0.0;
    for (size_t i = 0; i < N; i++) v[i] = (double)test_normal(&seed);
    for (int step = 0; step < 20000; step++) {
      value = 0.0;
      for (size_t i = 0; i < N; i++) {
        next[i] = 0.0;
        for (size_t k = 0; k < N; k++) next[i] += psp[i * N + k] * v[k];
        value += next[i] * next[i];
      }
      value = sqrt(value);
      for (size_t i = 0; i < N; i++) v[i] = next[i] / value;
    }
    for (size_t i = 0; i < N; i++) agreement += v[i] * (double)free_rows[c * N + i];
    assert_true(fabs(fabs(agreement) - 1.0) < 1e-4);
    for (size_t i = 0; i < N * N; i++) psp[i] -= value * v[i / N] * v[i % N];
  }
  free(bases);
  free(x);
  free(first);
  dlora_projector_destroy(projector);
}

static void bases_stay_orthonormal_over_100_tasks_and_a_full_memory(void **state) {
  (void)state;
  uint32_t seed = 3;
  dlora_projector *projector = new_projector(DIM);
  size_t sum = 0;
  float directions[4 * DIM];
  for (size_t task = 0; task < 100; task++) {
    float *x = random_rows(40, DIM, 6, &seed);
    size_t added = 0, found = 0;
    assert_status(DLORA_OK, dlora_projector_observe(projector, x, 40));
    assert_status(DLORA_OK, dlora_projector_unused_directions(projector, 4, directions, &found));
    float *bases = all_bases(projector);
    assert_true(off_orthonormal(directions, found, directions, found, DIM) < 1e-5);
    assert_true(off_orthonormal(directions, found, bases, sum, DIM) < 1e-5); /* A' Phi = 0 */
    assert_true(found == 4 || sum + found == DIM);
    free(bases);
    /* At 0.95 one direction may stay free for ever; the last task takes all. */
    assert_status(DLORA_OK, dlora_projector_commit_task(projector, task < 99 ? 0.95f : 1.0f, &added));
    sum += added;
    assert_int_equal(dlora_projector_size(projector), sum);
    assert_true(sum <= DIM);
    free(x);
  }
  assert_int_equal(dlora_projector_num_tasks(projector), 100);
  assert_int_equal(sum, DIM);
  float *bases = all_bases(projector);
  assert_true(off_orthonormal(bases, sum, bases, sum, DIM) < 1e-5);
  /* Nothing is free any more, and projecting leaves nothing. */
  float *x = random_rows(8, DIM, 6, &seed);
  size_t found = 7;
  double before = dot(x, x, 8 * DIM);
  assert_status(DLORA_OK, dlora_projector_observe(projector, x, 8));
  assert_status(DLORA_OK, dlora_projector_unused_directions(projector, 4, directions, &found));
  assert_int_equal(found, 0);
  assert_status(DLORA_OK, dlora_projector_task_directions(projector, 1.0f, 4, directions, &found));
  assert_int_equal(found, 0);
  assert_status(DLORA_OK, dlora_projector_project(projector, x, 8));
  assert_true(dot(x, x, 8 * DIM) < 1e-10 * before);
  free(x);
  free(bases);
  dlora_projector_destroy(projector);
}

static void projecting_removes_span_and_keeps_the_rest(void **state) {
  (void)state;
  uint32_t seed = 11;
  dlora_projector *projector = new_projector(DIM);
  float *x = random_rows(30, DIM, 5, &seed), *bases = NULL;
  enum { ROWS = 1500 }; /* more than one block of the library */
  float *inside = calloc(ROWS * DIM, sizeof *inside), *any = calloc(ROWS * DIM, sizeof *any);
  assert_non_null(inside);
  assert_non_null(any);
  for (size_t i = 0; i < ROWS * DIM; i++) any[i] = test_normal(&seed);

  memcpy(inside, any, ROWS * DIM * sizeof *any);
  assert_status(DLORA_OK, dlora_projector_project(projector, inside, ROWS)); /* P = I */
  assert_memory_equal(inside, any, ROWS * DIM * sizeof *any);

  assert_status(DLORA_OK, dlora_projector_observe(projector, x, 30));
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 1.0f, NULL));
  assert_int_equal(dlora_projector_size(projector), 5);
  bases = all_bases(projector);
  for (size_t i = 0; i < ROWS; i++) {
    memset(inside + i * DIM, 0, DIM * sizeof *inside);
    for (size_t r = 0; r < 5; r++) {
      float weight = 10.0f * test_normal(&seed);
      for (size_t j = 0; j < DIM; j++) inside[i * DIM + j] += weight * bases[r * DIM + j];
    }
  }
  assert_status(DLORA_OK, dlora_projector_project(projector, inside, ROWS));
  for (size_t i = 0; i < ROWS * DIM; i++) assert_true(fabsf(inside[i]) < 1e-4f);
  float *projected = calloc(ROWS * DIM, sizeof *projected);
  assert_non_null(projected);
  memcpy(projected, any, ROWS * DIM * sizeof *any);
  assert_status(DLORA_OK, dlora_projector_project(projector, projected, ROWS));
  for (size_t i = 0; i < ROWS; i++) {
    double expected = dot(any + i * DIM, any + i * DIM, DIM) - energy_inside(any + i * DIM, bases, 5, DIM);
    assert_true(fabs(dot(projected + i * DIM, projected + i * DIM, DIM) - expected) < 1e-3);
    assert_true(energy_inside(projected + i * DIM, bases, 5, DIM) < 1e-9);
    assert_true(fabs(dot(projected + i * DIM, any + i * DIM, DIM) - expected) < 1e-3);
  }
  free(projected);
  free(bases);
  free(any);
  free(inside);
  free(x);
  dlora_projector_destroy(projector);
}

/* Equation (1)'s whole protection: an update B' A' with A' free of Phi does not change what an old input gives. */
static void projector_keeps_old_features_invariant(void **state) {
  (void)state;
  uint32_t seed = 23;
  dlora_projector *projector = new_projector(DIM);
  float *old = random_rows(60, DIM, 10, &seed), *new_task = random_rows(60, DIM, 10, &seed), a[8 * DIM];
  size_t found = 0;
  assert_status(DLORA_OK, dlora_projector_observe(projector, old, 60));
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 1.0f, NULL));
  assert_status(DLORA_OK, dlora_projector_observe(projector, new_task, 60));
  assert_status(DLORA_OK, dlora_projector_unused_directions(projector, 8, a, &found));
  assert_int_equal(found, 8);
  for (size_t i = 0; i < 60; i++) {
    double size = sqrt(dot(old + i * DIM, old + i * DIM, DIM));
    for (size_t r = 0; r < 8; r++) assert_true(fabs(dot(old + i * DIM, a + r * DIM, DIM)) < 1e-5 * size);
  }
  free(new_task);
  free(old);
  dlora_projector_destroy(projector);
}

static void own_directions_are_the_first_that_commit_adds(void **state) {
  (void)state;
  uint32_t seed = 31;
  dlora_projector *projector = new_projector(DIM);
  float own[DIM * DIM];
  for (size_t task = 0; task < 3; task++) {
    float *x = random_rows(80, DIM, 12, &seed);
    size_t added = 0, all = 0, some = 0;
    assert_status(DLORA_OK, dlora_projector_observe(projector, x, 80));
    assert_status(DLORA_OK, dlora_projector_task_directions(projector, 0.97f, DIM, own, &all));
    assert_status(DLORA_OK, dlora_projector_task_directions(projector, 0.97f, 3, own, &some));
    assert_int_equal(some, all < 3 ? all : 3);
    assert_true(off_orthonormal(own, some, own, some, DIM) < 1e-5);
    assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.97f, &added));
    assert_int_equal(added, all);
    const float *bases = NULL;
    size_t count = 0;
    assert_status(DLORA_OK, dlora_projector_get_bases(projector, (int64_t)task, &bases, &count));
    assert_int_equal(count, added);
    for (size_t i = 0; i < some; i++) {
      assert_true(fabs(fabs(dot(own + i * DIM, bases + i * DIM, DIM)) - 1.0) < 1e-5);
    }
    free(x);
  }
  dlora_projector_destroy(projector);
}

static void used_directions_lie_inside_the_memory_by_energy(void **state) {
  (void)state;
  float *rotation = random_rotation(24, 41);
  const float equal[] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
  const float now[] = {0.5f, 3.0f, 0.0f, 2.0f, 0.0f, 1.0f};
  dlora_projector *projector = new_projector(24);
  float used[8 * 24];
  size_t found = 9;
  observe_scaled(projector, rotation, equal, 6);
  assert_status(DLORA_OK, dlora_projector_used_directions(projector, 8, used, &found));
  assert_int_equal(found, 0); /* nothing in use yet */
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 1.0f, NULL));
  observe_scaled(projector, rotation, now, 6);
  float outside = 100.0f;
  observe_scaled(projector, rotation + 10 * 24, &outside, 1);
  assert_status(DLORA_OK, dlora_projector_used_directions(projector, 2, used, &found));
  assert_int_equal(found, 2);
  assert_true(fabs(fabs(dot(used, rotation + 24, 24)) - 1.0) < 1e-5);
  assert_true(fabs(fabs(dot(used + 24, rotation + 3 * 24, 24)) - 1.0) < 1e-5);
  assert_status(DLORA_OK, dlora_projector_used_directions(projector, 8, used, &found));
  assert_int_equal(found, 4); /* two of the six have no energy now */
  assert_true(off_orthonormal(used, found, used, found, 24) < 1e-5);
  for (size_t i = 0; i < found; i++) assert_true(energy_inside(used + i * 24, rotation, 6, 24) > 1.0 - 1e-5);
  dlora_projector_destroy(projector);
  free(rotation);
}

static void inputs_inside_the_memory_add_nothing(void **state) {
  (void)state;
  uint32_t seed = 43;
  dlora_projector *projector = new_projector(DIM);
  float *x = random_rows(50, DIM, 7, &seed), directions[2 * DIM];
  size_t added = 0, found = 5;
  assert_status(DLORA_OK, dlora_projector_observe(projector, x, 50));
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 1.0f, &added));
  assert_int_equal(added, 7); /* not more: what is left is rounding */
  assert_status(DLORA_OK, dlora_projector_observe(projector, x, 50));
  assert_status(DLORA_OK, dlora_projector_unused_directions(projector, 2, directions, &found));
  assert_int_equal(found, 0);
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 1.0f, &added));
  assert_int_equal(added, 0);
  const float *bases = NULL;
  size_t count = 9;
  assert_status(DLORA_OK, dlora_projector_get_bases(projector, 1, &bases, &count));
  assert_int_equal(count, 0);
  memset(x, 0, 50 * DIM * sizeof *x);
  assert_status(DLORA_OK, dlora_projector_observe(projector, x, 50)); /* no energy at all */
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.95f, &added));
  assert_int_equal(added, 0);
  assert_int_equal(dlora_projector_num_tasks(projector), 3);
  free(x);
  dlora_projector_destroy(projector);
}

static void committing_leaves_earlier_groups_bitwise_unchanged(void **state) {
  (void)state;
  uint32_t seed = 47;
  dlora_projector *projector = new_projector(DIM);
  float *kept = NULL;
  size_t size = 0;
  for (size_t task = 0; task < 5; task++) {
    float *x = random_rows(60, DIM, 9, &seed);
    assert_status(DLORA_OK, dlora_projector_observe(projector, x, 60));
    assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.95f, NULL));
    float *now = all_bases(projector);
    if (kept) assert_memory_equal(kept, now, size * DIM * sizeof *now);
    free(kept);
    kept = now;
    size = dlora_projector_size(projector);
    free(x);
  }
  free(kept);
  dlora_projector_destroy(projector);
}

static void parts_observed_apart_merge_to_the_whole(void **state) {
  (void)state;
  uint32_t seed = 53;
  float *x = random_rows(700, DIM, 20, &seed), *whole_rows = NULL, *part_rows = NULL;
  dlora_projector *whole = new_projector(DIM), *a = new_projector(DIM), *b = new_projector(DIM);
  assert_status(DLORA_OK, dlora_projector_observe(whole, x, 700));
  for (size_t i = 700; i > 0; i -= 50) {
    assert_status(DLORA_OK, dlora_projector_observe(i % 100 ? a : b, x + (i - 50) * DIM, 50));
  }
  assert_status(DLORA_OK, dlora_projector_merge_observed(a, b));
  assert_int_equal(dlora_projector_num_observed(a), 700);
  assert_int_equal(dlora_projector_num_observed(b), 350);
  assert_status(DLORA_OK, dlora_projector_commit_task(whole, 0.95f, NULL));
  assert_status(DLORA_OK, dlora_projector_commit_task(a, 0.95f, NULL));
  assert_int_equal(dlora_projector_size(a), dlora_projector_size(whole));
  whole_rows = all_bases(whole);
  part_rows = all_bases(a);
  for (size_t i = 0; i < dlora_projector_size(a); i++) {
    assert_true(fabs(fabs(dot(whole_rows + i * DIM, part_rows + i * DIM, DIM)) - 1.0) < 1e-5);
  }
  free(whole_rows);
  free(part_rows);

  dlora_projector *other = new_projector(DIM + 1);
  assert_status(DLORA_ERR_MISMATCH, dlora_projector_merge_observed(a, other));
  assert_error_names("97");
  assert_status(DLORA_OK, dlora_projector_merge_observed(other, other));
  dlora_projector_destroy(other);
  dlora_projector_destroy(b);
  dlora_projector_destroy(a);
  dlora_projector_destroy(whole);
  free(x);
}

static void relevance_is_relative_energy_over_its_mean(void **state) {
  (void)state;
  const float scale[] = {2.0f, 1.0f};
  float *rotation = random_rotation(16, 59);
  dlora_projector *projector = new_projector(16);
  float x[4 * 16] = {0}, routing[4 * 2];
  assert_status(DLORA_OK, dlora_projector_route(projector, x, 4, routing)); /* no task: nothing to write */
  for (size_t task = 0; task < 2; task++) {
    observe_scaled(projector, rotation + 2 * task * 16, scale, 2);
    assert_status(DLORA_OK, dlora_projector_commit_task(projector, 1.0f, NULL));
  }
  for (size_t j = 0; j < 16; j++) {
    x[j] = 3.0f * rotation[j];                                       /* all in task 0 */
    x[16 + j] = rotation[2 * 16 + j] - rotation[9 * 16 + j];         /* half in task 1, half in none */
    x[32 + j] = 1e18f * (rotation[j] + 2.0f * rotation[3 * 16 + j]); /* a fifth and four fifths */
  }                                                                  /* the last row is zero */
  assert_status(DLORA_OK, dlora_projector_route(projector, x, 4, routing));
  const float raw[] = {1.0f, 0.0f, 0.0f, 0.5f, 0.2f, 0.8f, 0.0f, 0.0f};
  for (size_t i = 0; i < 8; i++) assert_true(fabsf(routing[i] - raw[i]) < 1e-5f);
  /* Task 1's own rows have 0.5 of their energy in its bases on average. */
  assert_status(DLORA_OK, dlora_projector_calibrate(projector, 1, x + 16, 1));
  float mixed[3 * 16];
  for (size_t i = 0; i < 16; i++) {
    mixed[i] = rotation[2 * 16 + i];
    mixed[16 + i] = rotation[12 * 16 + i];
    mixed[32 + i] = rotation[2 * 16 + i] + rotation[13 * 16 + i];
  }
  assert_status(DLORA_OK, dlora_projector_calibrate(projector, 1, mixed, 3));
  assert_status(DLORA_OK, dlora_projector_route(projector, x, 4, routing));
  const float calibrated[] = {1.0f, 0.0f, 0.0f, 1.0f, 0.2f, 1.0f, 0.0f, 0.0f};
  for (size_t i = 0; i < 8; i++) {
    assert_true(fabsf(routing[i] - calibrated[i]) < 1e-5f);
    assert_true(routing[i] >= 0.0f && routing[i] <= 1.0f);
  }
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_calibrate(projector, 2, x, 1));
  assert_error_names("task is 2");
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_calibrate(projector, -1, x, 1));
  assert_error_names("task is -1");
  dlora_projector_destroy(projector);
  free(rotation);
}

/* A projector with three tasks, calibrated, and rows observed for a fourth. */
static dlora_projector *used_projector(uint32_t seed) {
  dlora_projector *projector = new_projector(DIM);
  for (size_t task = 0; task < 4; task++) {
    float *x = random_rows(60, DIM, 9, &seed);
    assert_status(DLORA_OK, dlora_projector_observe(projector, x, 60));
    if (task < 3) {
      assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.9f, NULL));
      assert_status(DLORA_OK, dlora_projector_calibrate(projector, (int64_t)task, x, 60));
    }
    free(x);
  }
  return projector;
}

static void assert_same_memory(const dlora_projector *a, const dlora_projector *b) {
  uint32_t seed = 61;
  size_t tasks = dlora_projector_num_tasks(a), size = dlora_projector_size(a);
  assert_int_equal(dlora_projector_dim(a), dlora_projector_dim(b));
  assert_int_equal(tasks, dlora_projector_num_tasks(b));
  assert_int_equal(size, dlora_projector_size(b));
  float *x = random_rows(20, DIM, 20, &seed), *y = calloc(20 * DIM, sizeof *y);
  float *ra = calloc(20 * tasks + 1, sizeof *ra), *rb = calloc(20 * tasks + 1, sizeof *rb);
  float *bases_a = all_bases(a), *bases_b = all_bases(b);
  assert_non_null(y);
  assert_non_null(ra);
  assert_non_null(rb);
  memcpy(y, x, 20 * DIM * sizeof *x);
  assert_memory_equal(bases_a, bases_b, size * DIM * sizeof *bases_a);
  assert_status(DLORA_OK, dlora_projector_route(a, x, 20, ra));
  assert_status(DLORA_OK, dlora_projector_route(b, x, 20, rb));
  assert_memory_equal(ra, rb, 20 * tasks * sizeof *ra);
  assert_status(DLORA_OK, dlora_projector_project(a, x, 20));
  assert_status(DLORA_OK, dlora_projector_project(b, y, 20));
  assert_memory_equal(x, y, 20 * DIM * sizeof *x);
  free(bases_b);
  free(bases_a);
  free(rb);
  free(ra);
  free(y);
  free(x);
}

static void saved_and_loaded_memory_is_bitwise_the_same(void **state) {
  (void)state;
  dlora_projector *projector = used_projector(67), *loaded = NULL, *empty = new_projector(7);
  const char *path = test_temporary("memory.safetensors");
  assert_status(DLORA_OK, dlora_projector_save(projector, path));
  assert_status(DLORA_OK, dlora_projector_load(&loaded, path, NULL));
  assert_same_memory(projector, loaded);
  assert_int_equal(dlora_projector_num_observed(loaded), 0); /* the open task is not part of the memory */
  dlora_projector_destroy(loaded);

  assert_status(DLORA_OK, dlora_projector_save(empty, path));
  assert_status(DLORA_OK, dlora_projector_load(&loaded, path, NULL));
  assert_int_equal(dlora_projector_dim(loaded), 7);
  assert_int_equal(dlora_projector_num_tasks(loaded), 0);
  dlora_projector_destroy(loaded);
  dlora_projector_destroy(empty);
  dlora_projector_destroy(projector);
}

static void clone_copies_the_open_task_too(void **state) {
  (void)state;
  dlora_projector *projector = used_projector(71), *copy = NULL;
  size_t added = 0, added_copy = 0;
  assert_status(DLORA_OK, dlora_projector_clone(&copy, projector));
  assert_same_memory(projector, copy);
  assert_int_equal(dlora_projector_num_observed(copy), 60);
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.95f, &added));
  assert_int_equal(dlora_projector_num_tasks(copy), 3); /* on its own */
  assert_status(DLORA_OK, dlora_projector_commit_task(copy, 0.95f, &added_copy));
  assert_int_equal(added, added_copy);
  assert_same_memory(projector, copy);
  dlora_projector_destroy(projector);
  assert_int_equal(dlora_projector_num_tasks(copy), 4);
  dlora_projector_destroy(copy);
}

static void discard_forgets_the_open_task(void **state) {
  (void)state;
  dlora_projector *projector = used_projector(73);
  size_t size = dlora_projector_size(projector);
  assert_status(DLORA_OK, dlora_projector_discard_task(projector));
  assert_int_equal(dlora_projector_num_observed(projector), 0);
  assert_int_equal(dlora_projector_size(projector), size);
  assert_status(DLORA_ERR_STATE, dlora_projector_commit_task(projector, 0.95f, NULL));
  assert_error_names("dlora_projector_observe");
  dlora_projector_destroy(projector);
}

static void bad_input_is_refused_and_changes_nothing(void **state) {
  (void)state;
  dlora_projector *projector = NULL, *before = NULL;
  float x[2 * DIM] = {0}, directions[DIM], routing[8];
  const float *bases = NULL;
  size_t found = 3;
  const size_t impossible[] = {0, SIZE_MAX, SIZE_MAX / 2, (size_t)1 << 40};
  for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
    projector = (dlora_projector *)&found;
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_create(&projector, impossible[i], NULL));
    assert_null(projector);
    assert_error_names("dim");
  }
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_create(NULL, 4, NULL));
  assert_error_names("out");
  dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
  options.struct_size = 1;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_projector_create(&projector, 4, &options));

  projector = new_projector(DIM);
  assert_status(DLORA_ERR_STATE, dlora_projector_commit_task(projector, 0.95f, NULL));
  assert_status(DLORA_ERR_STATE, dlora_projector_unused_directions(projector, 1, directions, &found));
  assert_int_equal(found, 0);
  assert_status(DLORA_ERR_STATE, dlora_projector_task_directions(projector, 0.5f, 1, directions, &found));
  assert_status(DLORA_ERR_STATE, dlora_projector_used_directions(projector, 1, directions, &found));
  dlora_projector_destroy(projector);

  projector = used_projector(79);
  assert_status(DLORA_OK, dlora_projector_clone(&before, projector));
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_observe(NULL, x, 1));
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_observe(projector, NULL, 1));
  assert_error_names("x");
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_observe(projector, x, 0));
  assert_error_names("rows");
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_observe(projector, x, SIZE_MAX / 8));
  x[DIM + 5] = NAN;
  assert_status(DLORA_ERR_NOT_FINITE, dlora_projector_observe(projector, x, 2));
  assert_error_names("x[1, 5]");
  assert_status(DLORA_ERR_NOT_FINITE, dlora_projector_calibrate(projector, 0, x, 2));
  assert_status(DLORA_ERR_NOT_FINITE, dlora_projector_route(projector, x, 2, routing));
  x[DIM + 5] = INFINITY;
  assert_status(DLORA_ERR_NOT_FINITE, dlora_projector_project(projector, x, 2));
  const float thresholds[] = {0.0f, -1.0f, 1.0001f, NAN, INFINITY};
  for (size_t i = 0; i < sizeof thresholds / sizeof *thresholds; i++) {
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_commit_task(projector, thresholds[i], NULL));
    assert_error_names("energy_threshold");
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_task_directions(projector, thresholds[i], 1, directions, &found));
  }
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_unused_directions(projector, 1, NULL, &found));
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_get_bases(projector, 3, &bases, &found));
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_get_bases(projector, -1, &bases, &found));
  assert_error_names("task is -1");
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_get_bases(projector, INT64_MIN, &bases, &found));
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_merge_observed(projector, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_save(projector, NULL));
  assert_status(DLORA_ERR_IO, dlora_projector_save(projector, test_temporary("no/such/folder/x.safetensors")));
  assert_int_equal(dlora_projector_num_observed(projector), 60);
  assert_same_memory(projector, before);
  dlora_projector_destroy(before);
  dlora_projector_destroy(projector);
  dlora_projector_destroy(NULL);
}

static void damaged_files_are_refused(void **state) {
  (void)state;
  const char *path = test_temporary("whole.safetensors"), *damaged = test_temporary("damaged.safetensors");
  dlora_projector *projector = used_projector(83), *loaded = (dlora_projector *)&path;
  size_t size = 0;
  assert_status(DLORA_OK, dlora_projector_save(projector, path));
  unsigned char *bytes = test_read_file(path, &size);
  for (size_t cut = 0; cut < size; cut += size / 16) {
    test_write_file(damaged, bytes, cut);
    assert_status(DLORA_ERR_FORMAT, dlora_projector_load(&loaded, damaged, NULL));
    assert_null(loaded);
  }
  /* The widest values come first: bases, whose rows are then no longer orthonormal, or not finite. */
  uint64_t header = 0;
  for (size_t i = 0; i < 8; i++) header |= (uint64_t)bytes[i] << (8 * i);
  double changed[] = {0.5, (double)NAN};
  for (size_t i = 0; i < 2; i++) {
    unsigned char *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    memcpy(copy + 8 + header, &changed[i], sizeof *changed);
    test_write_file(damaged, copy, size);
    assert_status(DLORA_ERR_FORMAT, dlora_projector_load(&loaded, damaged, NULL));
    assert_error_names("projector.bases");
    free(copy);
  }
  dlora_predictor *predictor = NULL;
  assert_status(DLORA_OK, dlora_predictor_create(&predictor, 4, NULL));
  assert_status(DLORA_OK, dlora_predictor_save(predictor, damaged));
  assert_status(DLORA_ERR_FORMAT, dlora_projector_load(&loaded, damaged, NULL));
  assert_error_names("duallora.predictor");
  assert_status(DLORA_ERR_IO, dlora_projector_load(&loaded, test_temporary("absent"), NULL));
  dlora_predictor_destroy(predictor);
  free(bytes);
  dlora_projector_destroy(projector);
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

static void every_failed_allocation_leaves_the_memory_as_it_was(void **state) {
  (void)state;
  size_t left = SIZE_MAX;
  const dlora_allocator allocator = {limited_allocate, limited_release, &left};
  dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
  options.allocator = &allocator;
  uint32_t seed = 89;
  float *x = random_rows(60, DIM, 9, &seed), *y = random_rows(60, DIM, 9, &seed);
  const char *path = test_temporary("limited.safetensors");
  for (int call = 0; call < 6; call++) {
    size_t failures = 0;
    for (size_t allowed = 0;; allowed++) {
      dlora_projector *projector = NULL, *made = NULL, *before = NULL;
      size_t found = 0;
      left = SIZE_MAX;
      assert_status(DLORA_OK, dlora_projector_create(&projector, DIM, &options));
      assert_status(DLORA_OK, dlora_projector_observe(projector, x, 60));
      assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.9f, NULL));
      if (call != 2) assert_status(DLORA_OK, dlora_projector_observe(projector, y, 60));
      assert_status(DLORA_OK, dlora_projector_save(projector, path));
      assert_status(DLORA_OK, dlora_projector_clone(&before, projector));
      float directions[8 * DIM];
      left = allowed;
      dlora_status status = call == 0   ? dlora_projector_clone(&made, projector)
                            : call == 1 ? dlora_projector_commit_task(projector, 0.9f, NULL)
                            : call == 2 ? dlora_projector_observe(projector, y, 60)
                            : call == 3 ? dlora_projector_load(&made, path, &options)
                            : call == 4 ? dlora_projector_used_directions(projector, 8, directions, &found)
                                        : dlora_projector_create(&made, DIM, &options);
      left = SIZE_MAX;
      if (status != DLORA_OK) {
        assert_status(DLORA_ERR_NO_MEMORY, status);
        assert_null(made);
        assert_same_memory(projector, before);
        assert_int_equal(dlora_projector_num_observed(projector), call == 2 ? 0 : 60);
        failures++;
      }
      dlora_projector_destroy(made);
      dlora_projector_destroy(before);
      dlora_projector_destroy(projector);
      if (status == DLORA_OK) break;
    }
    assert_true(failures > 0);
  }
  free(y);
  free(x);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(commit_adds_known_eigenvectors_until_the_threshold),
      cmocka_unit_test(directions_agree_with_power_iteration),
      cmocka_unit_test(bases_stay_orthonormal_over_100_tasks_and_a_full_memory),
      cmocka_unit_test(projecting_removes_span_and_keeps_the_rest),
      cmocka_unit_test(projector_keeps_old_features_invariant),
      cmocka_unit_test(own_directions_are_the_first_that_commit_adds),
      cmocka_unit_test(used_directions_lie_inside_the_memory_by_energy),
      cmocka_unit_test(inputs_inside_the_memory_add_nothing),
      cmocka_unit_test(committing_leaves_earlier_groups_bitwise_unchanged),
      cmocka_unit_test(parts_observed_apart_merge_to_the_whole),
      cmocka_unit_test(relevance_is_relative_energy_over_its_mean),
      cmocka_unit_test(saved_and_loaded_memory_is_bitwise_the_same),
      cmocka_unit_test(clone_copies_the_open_task_too),
      cmocka_unit_test(discard_forgets_the_open_task),
      cmocka_unit_test(bad_input_is_refused_and_changes_nothing),
      cmocka_unit_test(damaged_files_are_refused),
      cmocka_unit_test(every_failed_allocation_leaves_the_memory_as_it_was),
  };
  return cmocka_run_group_tests_name("projector", tests, NULL, NULL);
}
