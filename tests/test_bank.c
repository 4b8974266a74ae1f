/* The adapter bank on plain arrays: forward, backward, optimizer, merging, files.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

enum { SITES = 2, ROWS = 12, PER_ITEM = 3, ITEMS = ROWS / PER_ITEM, WIDEST = 9 };
enum { ALL_TERMS = DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL };
static const dlora_site sites[SITES] = {{7, 5, 0, DLORA_SITE_KEY}, {6, WIDEST, 1, DLORA_SITE_FC1}};

static void fill(float *values, size_t count, uint32_t *random) {
  for (size_t i = 0; i < count; i++) values[i] = test_normal(random);
}

static dlora_bank *make_bank(const dlora_bank_options *options) {
  dlora_bank *bank = NULL;
  assert_status(DLORA_OK, dlora_bank_create(&bank, sites, SITES, options));
  assert_int_equal(dlora_bank_num_sites(bank), SITES);
  assert_int_equal(dlora_bank_num_tasks(bank), 0);
  return bank;
}

/* Opens a task with pairs of these ranks at both sites, A and the trained parameters random. */
static void open_task(dlora_bank *bank, size_t orthogonal, size_t residual, int train_residual_a, uint32_t *random) {
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  for (size_t s = 0; s < SITES; s++) {
    float a[WIDEST * WIDEST], r[WIDEST * WIDEST];
    fill(a, orthogonal * sites[s].input_dim, random);
    fill(r, residual * sites[s].input_dim, random);
    assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, s, a, orthogonal, NULL));
    assert_status(DLORA_OK, dlora_bank_set_residual(bank, s, r, residual, train_residual_a));
  }
  float *parameters = NULL;
  size_t count = 0;
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, NULL, &count));
  if (!train_residual_a) fill(parameters, count, random);
}

static void learn_task(dlora_bank *bank, size_t orthogonal, size_t residual, uint32_t *random) {
  open_task(bank, orthogonal, residual, 0, random);
  assert_status(DLORA_OK, dlora_bank_commit_task(bank));
}

/* y [rows, out] += weight * x A^T B^T in plain loops. */
static void add_low_rank(const dlora_site *site, const float *a, const float *b, size_t rank, const float *x,
                         size_t rows, const float *weights, size_t per_item, double *y) {
  for (size_t i = 0; i < rows; i++) {
    for (size_t k = 0; k < rank; k++) {
      double inner = 0.0;
      for (size_t j = 0; j < site->input_dim; j++)
        inner += (double)a[k * site->input_dim + j] * (double)x[i * site->input_dim + j];
      for (size_t o = 0; o < site->output_dim; o++)
        y[i * site->output_dim + o] +=
            (weights ? (double)weights[i / per_item] : 1.0) * (double)b[o * rank + k] * inner;
    }
  }
}

/* ---- forward ---- */

static void forward_adds_each_chosen_term(void **state) {
  (void)state;
  uint32_t random = 1;
  dlora_bank *bank = make_bank(NULL);
  learn_task(bank, 2, 3, &random);
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  for (size_t s = 0; s < SITES; s++) {
    const dlora_site *site = &sites[s];
    const size_t in = site->input_dim, out = site->output_dim;
    float a[2 * WIDEST], r[3 * WIDEST], x[ROWS * WIDEST], start[ROWS * WIDEST];
    fill(a, 2 * in, &random);
    fill(r, 3 * in, &random);
    fill(x, ROWS * in, &random);
    fill(start, ROWS * out, &random);
    assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, s, a, 2, NULL));
    assert_status(DLORA_OK, dlora_bank_set_residual(bank, s, r, 3, 0));
    float *parameters = NULL;
    size_t count = 0;
    assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, NULL, &count));
    fill(parameters, count, &random);
    const float *b_orthogonal = parameters + count - 5 * out, *b_residual = b_orthogonal + 2 * out;
    const float *merged = NULL;
    assert_status(DLORA_OK, dlora_bank_get_merged(bank, s, &merged));
    assert_non_null(merged);
    for (int32_t terms = 0; terms <= ALL_TERMS; terms++) {
      double exact[ROWS * WIDEST];
      float expected[ROWS * WIDEST], y[ROWS * WIDEST];
      for (size_t i = 0; i < ROWS * out; i++) exact[i] = (double)start[i];
      for (size_t i = 0; (terms & DLORA_TERM_MERGED) && i < ROWS * out; i++) {
        for (size_t j = 0; j < in; j++) exact[i] += (double)merged[(i % out) * in + j] * (double)x[(i / out) * in + j];
      }
      if (terms & DLORA_TERM_ORTHOGONAL) add_low_rank(site, a, b_orthogonal, 2, x, ROWS, NULL, 1, exact);
      if (terms & DLORA_TERM_RESIDUAL) add_low_rank(site, r, b_residual, 3, x, ROWS, NULL, 1, exact);
      for (size_t i = 0; i < ROWS * out; i++) expected[i] = (float)exact[i];
      memcpy(y, start, sizeof y);
      assert_status(DLORA_OK, dlora_bank_forward(bank, s, x, ROWS, terms, NULL, 1, y));
      assert_close(y, expected, ROWS * out, 1e-5);
    }
  }
  dlora_bank_destroy(bank);
}

static void relevance_weighs_each_items_adapters(void **state) {
  (void)state;
  enum { TASKS = 3 };
  uint32_t random = 2;
  dlora_bank *bank = make_bank(NULL);
  learn_task(bank, 0, 2, &random);
  learn_task(bank, 1, 0, &random); /* a task without residual adapters counts as one */
  learn_task(bank, 1, 3, &random);
  const float routing[ITEMS * TASKS] = {1.0f, 0.0f, 0.0f, /**/ 0.25f, 0.5f, 0.75f,
                                        0.0f, 1.0f, 0.0f, /**/ 0.25f, 0.5f, 0.75f};
  for (size_t s = 0; s < SITES; s++) {
    const size_t in = sites[s].input_dim, out = sites[s].output_dim;
    float x[ROWS * WIDEST], y[ROWS * WIDEST] = {0}, expected[ROWS * WIDEST];
    double exact[ROWS * WIDEST] = {0};
    fill(x, ROWS * in, &random);
    for (size_t t = 0; t < TASKS; t++) {
      dlora_adapter adapter;
      float weights[ITEMS];
      for (size_t i = 0; i < ITEMS; i++) weights[i] = routing[i * TASKS + t];
      assert_status(DLORA_OK, dlora_bank_get_residual(bank, s, (int64_t)t, &adapter));
      assert_int_equal(adapter.rank, t == 0 ? 2 : t == 1 ? 0 : 3);
      add_low_rank(&sites[s], adapter.a, adapter.b, adapter.rank, x, ROWS, weights, PER_ITEM, exact);
    }
    for (size_t i = 0; i < ROWS * out; i++) expected[i] = (float)exact[i];
    assert_status(DLORA_OK, dlora_bank_forward(bank, s, x, ROWS, 0, routing, PER_ITEM, y));
    assert_close(y, expected, ROWS * out, 1e-5);
    for (size_t i = 2 * PER_ITEM * out; i < 3 * PER_ITEM * out; i++) assert_true(y[i] == 0.0f);

    /* No routing, no residual adapter. */
    memset(y, 0, sizeof y);
    assert_status(DLORA_OK, dlora_bank_forward(bank, s, x, ROWS, 0, NULL, 1, y));
    for (size_t i = 0; i < ROWS * out; i++) assert_true(y[i] == 0.0f);
  }
  dlora_bank_destroy(bank);
}

/* ---- backward ---- */

/* sum of dy * forward(x) at one site */
static double loss_of(const dlora_bank *bank, size_t s, const float *x, const float *dy) {
  float y[ROWS * WIDEST] = {0};
  double loss = 0.0;
  assert_status(DLORA_OK, dlora_bank_forward(bank, s, x, ROWS, ALL_TERMS, NULL, 1, y));
  for (size_t i = 0; i < ROWS * sites[s].output_dim; i++) loss += (double)y[i] * (double)dy[i];
  return loss;
}

/* The loss is linear in every single value, so that a central difference is exact but for rounding. */
static float slope(const dlora_bank *bank, size_t s, const float *x, const float *dy, float *value) {
  const float kept = *value;
  *value = kept + 0.5f;
  const double above = loss_of(bank, s, x, dy);
  *value = kept - 0.5f;
  const double below = loss_of(bank, s, x, dy);
  *value = kept;
  return (float)(above - below);
}

static void backward_matches_finite_differences(void **state) {
  (void)state;
  uint32_t random = 3;
  dlora_bank *bank = make_bank(NULL);
  dlora_projector *memories[SITES] = {NULL};
  learn_task(bank, 2, 2, &random);
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  for (size_t s = 0; s < SITES; s++) {
    float a[4 * WIDEST];
    fill(a, 4 * sites[s].input_dim, &random);
    assert_status(DLORA_OK, dlora_projector_create(&memories[s], sites[s].input_dim, NULL));
    assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, s, a, 2, memories[s]));
    assert_status(DLORA_OK, dlora_bank_set_residual(bank, s, a, 3, 1));
  }
  float *parameters = NULL, *gradients = NULL;
  size_t count = 0, at = 0;
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, &gradients, &count));
  fill(parameters, count, &random);
  for (size_t s = 0; s < SITES; s++) {
    const size_t in = sites[s].input_dim, out = sites[s].output_dim, own = 5 * (in + out);
    float x[ROWS * WIDEST], dy[ROWS * WIDEST], dx[ROWS * WIDEST], expected[16 * WIDEST * WIDEST];
    fill(x, ROWS * in, &random);
    fill(dy, ROWS * out, &random);
    fill(dx, ROWS * in, &random);
    float before[ROWS * WIDEST];
    memcpy(before, dx, sizeof before);
    memset(gradients, 0, count * sizeof *gradients);
    assert_status(DLORA_OK, dlora_bank_backward(bank, s, x, dy, ROWS, ALL_TERMS, dx));

    /* The parameters of this site and no others have a gradient. */
    for (size_t i = 0; i < own; i++) expected[i] = slope(bank, s, x, dy, &parameters[at + i]);
    assert_close(gradients + at, expected, own, 1e-4);
    for (size_t i = 0; i < count; i++) {
      if (i < at || i >= at + own) assert_true(gradients[i] == 0.0f);
    }
    for (size_t i = 0; i < ROWS * in; i++) expected[i] = before[i] + slope(bank, s, x, dy, &x[i]);
    assert_close(dx, expected, ROWS * in, 1e-4);

    /* Gradients add up; without dx they are the same. */
    float once[16 * WIDEST * WIDEST];
    memcpy(once, gradients + at, own * sizeof *once);
    assert_status(DLORA_OK, dlora_bank_backward(bank, s, x, dy, ROWS, ALL_TERMS, NULL));
    for (size_t i = 0; i < own; i++) once[i] *= 2.0f;
    assert_close(gradients + at, once, own, 1e-6);

    /* What was not in the forward pass gets none. */
    memset(gradients, 0, count * sizeof *gradients);
    assert_status(DLORA_OK, dlora_bank_backward(bank, s, x, dy, ROWS, DLORA_TERM_RESIDUAL, NULL));
    for (size_t i = at; i < at + 2 * (in + out); i++) assert_true(gradients[i] == 0.0f);
    assert_true(gradients[at + own - 1] != 0.0f);
    at += own;
  }
  assert_int_equal(at, count);
  dlora_bank_destroy(bank);
  for (size_t s = 0; s < SITES; s++) dlora_projector_destroy(memories[s]);
}

/* ---- parameters and steps ---- */

static void parameters_lie_site_by_site_as_documented(void **state) {
  (void)state;
  dlora_bank *bank = make_bank(NULL);
  dlora_projector *memory = NULL;
  float a[3 * WIDEST], r[2 * WIDEST], *parameters = NULL;
  size_t count = 0;
  uint32_t random = 4;
  fill(a, 3 * WIDEST, &random);
  fill(r, 2 * WIDEST, &random);
  assert_status(DLORA_OK, dlora_projector_create(&memory, sites[1].input_dim, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, NULL, NULL, &count));
  assert_int_equal(count, 0);
  assert_status(DLORA_OK, dlora_bank_set_residual(bank, 1, r, 2, 1));
  assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, 0, a, 3, NULL));
  assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, 1, a, 1, memory));
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, NULL, &count));
  /* B' of site 0 | B', A', B_t, A_t of site 1 */
  const size_t first = 3 * 5, b = first, a_at = b + WIDEST, b_t = a_at + 6, a_t = b_t + 2 * WIDEST;
  assert_int_equal(count, a_t + 2 * 6);
  for (size_t i = 0; i < a_at; i++) assert_true(parameters[i] == 0.0f);
  assert_memory_equal(parameters + a_at, a, 6 * sizeof *a);
  for (size_t i = b_t; i < a_t; i++) assert_true(parameters[i] == 0.0f);
  assert_memory_equal(parameters + a_t, r, 2 * 6 * sizeof *r);

  /* Another pair at one site leaves the others' values alone; rank 0 takes a pair away. */
  parameters[a_t] = 42.0f;
  parameters[0] = 7.0f;
  assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, 1, NULL, 0, NULL));
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, NULL, &count));
  assert_int_equal(count, first + 2 * WIDEST + 2 * 6);
  assert_true(parameters[0] == 7.0f && parameters[first + 2 * WIDEST] == 42.0f);
  dlora_bank_destroy(bank);
  dlora_projector_destroy(memory);
}

/* Five steps with random gradients; `next` computes what one value becomes. */
static void check_steps(const dlora_bank_options *options,
                        void (*next)(const dlora_bank_options *o, size_t step, double rate, double gradient,
                                     double state[2], double *value)) {
  dlora_bank *bank = make_bank(options);
  uint32_t random = 5;
  float *parameters = NULL, *gradients = NULL;
  size_t count = 0;
  double moments[200][2] = {{0.0}}, values[200];
  open_task(bank, 2, 3, 0, &random);
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, &gradients, &count));
  assert_true(count <= 200);
  for (size_t i = 0; i < count; i++) values[i] = (double)parameters[i];
  for (size_t step = 1; step <= 5; step++) {
    const float rate = 0.1f / (float)step;
    float expected[200];
    fill(gradients, count, &random);
    for (size_t i = 0; i < count; i++) {
      next(options, step, (double)rate, (double)gradients[i], moments[i], &values[i]);
      expected[i] = (float)values[i];
    }
    assert_status(DLORA_OK, dlora_bank_step(bank, rate));
    assert_close(parameters, expected, count, 1e-5);
    for (size_t i = 0; i < count; i++) assert_true(gradients[i] == 0.0f);
  }
  dlora_bank_destroy(bank);
}

static void adam(const dlora_bank_options *o, size_t step, double rate, double gradient, double state[2],
                 double *value) {
  const double b1 = (double)o->beta1, b2 = (double)o->beta2;
  state[0] = b1 * state[0] + (1.0 - b1) * gradient;
  state[1] = b2 * state[1] + (1.0 - b2) * gradient * gradient;
  const double mean = state[0] / (1.0 - pow(b1, (double)step)), square = state[1] / (1.0 - pow(b2, (double)step));
  *value -= rate * (mean / (sqrt(square) + (double)o->epsilon) + (double)o->weight_decay * *value);
}

static void sgd(const dlora_bank_options *o, size_t step, double rate, double gradient, double state[2],
                double *value) {
  (void)step;
  state[0] = (double)o->momentum * state[0] + gradient;
  *value -= rate * (state[0] + (double)o->weight_decay * *value);
}

static void adam_steps_are_those_of_the_paper(void **state) {
  (void)state;
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  check_steps(&options, adam);
  options.weight_decay = 0.5f;
  options.beta1 = 0.6f;
  options.beta2 = 0.8f;
  options.epsilon = 1e-2f;
  check_steps(&options, adam);
}

static void sgd_steps_carry_momentum_and_decay(void **state) {
  (void)state;
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  options.optimizer = DLORA_OPTIMIZER_SGD;
  check_steps(&options, sgd);
  options.momentum = 0.0f;
  options.weight_decay = 0.5f;
  check_steps(&options, sgd);
}

static void a_new_pair_starts_the_optimizer_anew(void **state) {
  (void)state;
  uint32_t random = 6;
  float *parameters = NULL, *gradients = NULL;
  size_t count = 0;
  dlora_bank *bank = make_bank(NULL);
  open_task(bank, 1, 1, 0, &random);
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, &gradients, &count));
  fill(gradients, count, &random);
  assert_status(DLORA_OK, dlora_bank_step(bank, 0.1f));
  assert_status(DLORA_OK, dlora_bank_set_residual(bank, 0, NULL, 0, 0));
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, &gradients, &count));
  /* Adam's first step is learning_rate * sign(gradient), whatever came before. */
  const float before = parameters[0];
  for (size_t i = 0; i < count; i++) gradients[i] = 3.0f;
  assert_status(DLORA_OK, dlora_bank_step(bank, 0.1f));
  assert_float_equal(parameters[0], before - 0.1f, 1e-5);
  dlora_bank_destroy(bank);
}

static void a_trained_a_stays_free_of_the_memory(void **state) {
  (void)state;
  enum { DIM = 12, RANK = 3 };
  const dlora_site site = {DIM, 4, 0, DLORA_SITE_KEY};
  uint32_t random = 7;
  dlora_bank *bank = NULL;
  dlora_projector *memory = NULL;
  float x[64 * DIM], a[RANK * DIM], *parameters = NULL, *gradients = NULL;
  size_t count = 0, found = 0, used = 0;
  assert_status(DLORA_OK, dlora_projector_create(&memory, DIM, NULL));
  for (size_t task = 0; task < 2; task++) { /* each in 3 of the 12 dimensions, turned */
    for (size_t i = 0; i < 64; i++) {
      float z[3];
      fill(z, 3, &random);
      for (size_t j = 0; j < DIM; j++)
        x[i * DIM + j] =
            z[0] * sinf((float)(j + task)) + z[1] * cosf((float)(2 * j)) + z[2] * (j == 3 + task ? 1.0f : 0.1f);
    }
    assert_status(DLORA_OK, dlora_projector_observe(memory, x, 64));
    assert_status(DLORA_OK, dlora_projector_commit_task(memory, 0.999f, NULL));
  }
  used = dlora_projector_size(memory);
  assert_true(used >= 3 && used <= 8);
  fill(x, 64 * DIM, &random);
  assert_status(DLORA_OK, dlora_projector_observe(memory, x, 64));
  assert_status(DLORA_OK, dlora_projector_unused_directions(memory, RANK, a, &found));
  assert_int_equal(found, RANK);

  assert_status(DLORA_OK, dlora_bank_create(&bank, &site, 1, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, 0, a, RANK, memory));
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, &gradients, &count));
  assert_int_equal(count, RANK * (4 + DIM));
  const float *trained = parameters + 4 * RANK;
  for (size_t step = 0; step < 50; step++) {
    fill(gradients, count, &random);
    assert_status(DLORA_OK, dlora_bank_step(bank, 0.05f));
    for (size_t task = 0; task < 2; task++) {
      const float *bases = NULL;
      size_t size = 0;
      assert_status(DLORA_OK, dlora_projector_get_bases(memory, (int64_t)task, &bases, &size));
      for (size_t i = 0; i < RANK * size; i++) {
        double dot = 0.0;
        for (size_t j = 0; j < DIM; j++)
          dot += (double)trained[(i % RANK) * DIM + j] * (double)bases[(i / RANK) * DIM + j];
        assert_float_equal(dot, 0.0, 1e-5);
      }
    }
  }
  double moved = 0.0;
  for (size_t i = 0; i < RANK * DIM; i++) moved += fabs((double)(trained[i] - a[i]));
  assert_true(moved > 1.0);
  dlora_bank_destroy(bank);
  dlora_projector_destroy(memory);
}

static void a_step_with_a_bad_gradient_changes_nothing(void **state) {
  (void)state;
  uint32_t random = 8;
  float *parameters = NULL, *gradients = NULL, kept[400], kept_gradients[400];
  size_t count = 0;
  dlora_bank *bank = make_bank(NULL);
  open_task(bank, 2, 2, 0, &random);
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, &gradients, &count));
  assert_true(count <= 400);
  fill(gradients, count, &random);
  memcpy(kept, parameters, count * sizeof *kept);
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < 3; i++) {
    gradients[count - 1] = bad[i];
    memcpy(kept_gradients, gradients, count * sizeof *kept);
    assert_status(DLORA_ERR_NOT_FINITE, dlora_bank_step(bank, 0.1f));
    assert_error_names("gradient");
    assert_memory_equal(parameters, kept, count * sizeof *kept);
    assert_memory_equal(gradients, kept_gradients, count * sizeof *kept);
  }
  gradients[count - 1] = 0.0f;
  const float bad_rates[] = {NAN, INFINITY, -0.1f};
  for (size_t i = 0; i < 3; i++) {
    assert_status(DLORA_ERR_ARGUMENT, dlora_bank_step(bank, bad_rates[i]));
    assert_error_names("learning_rate");
    assert_memory_equal(parameters, kept, count * sizeof *kept);
  }
  assert_status(DLORA_OK, dlora_bank_step(bank, 0.1f));
  dlora_bank_destroy(bank);
}

/* ---- tasks ---- */

static void finished_orthogonal_pairs_add_up_in_the_merged_matrix(void **state) {
  (void)state;
  uint32_t random = 9;
  dlora_bank *bank = make_bank(NULL);
  double expected[SITES][WIDEST * WIDEST] = {{0.0}};
  float x[ROWS * WIDEST], unmerged[ROWS * WIDEST], merged[ROWS * WIDEST];
  fill(x, ROWS * WIDEST, &random);
  for (size_t s = 0; s < SITES; s++) {
    const float *none = x;
    assert_status(DLORA_OK, dlora_bank_get_merged(bank, s, &none));
    assert_null(none);
  }
  for (size_t task = 0; task < 3; task++) {
    float a[2 * WIDEST], *parameters = NULL;
    size_t at = 0;
    assert_status(DLORA_OK, dlora_bank_begin_task(bank));
    for (size_t s = 0; s < SITES; s++) {
      fill(a, 2 * sites[s].input_dim, &random);
      assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, s, a, 2, NULL));
      assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, NULL, NULL));
      fill(parameters + at, 2 * sites[s].output_dim, &random);
      for (size_t o = 0; o < sites[s].output_dim; o++) {
        for (size_t j = 0; j < sites[s].input_dim; j++) {
          for (size_t k = 0; k < 2; k++)
            expected[s][o * sites[s].input_dim + j] +=
                (double)parameters[at + o * 2 + k] * (double)a[k * sites[s].input_dim + j];
        }
      }
      at += 2 * sites[s].output_dim;
    }
    memset(unmerged, 0, sizeof unmerged);
    memset(merged, 0, sizeof merged);
    assert_status(DLORA_OK,
                  dlora_bank_forward(bank, 1, x, ROWS, DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL, NULL, 1, unmerged));
    assert_status(DLORA_OK, dlora_bank_commit_task(bank));
    assert_status(DLORA_OK, dlora_bank_forward(bank, 1, x, ROWS, DLORA_TERM_MERGED, NULL, 1, merged));
    assert_close(merged, unmerged, ROWS * WIDEST, 1e-5);
    assert_int_equal(dlora_bank_num_tasks(bank), task + 1);
  }
  for (size_t s = 0; s < SITES; s++) {
    const size_t size = sites[s].input_dim * sites[s].output_dim;
    const float *found = NULL;
    float sum[WIDEST * WIDEST];
    for (size_t i = 0; i < size; i++) sum[i] = (float)expected[s][i];
    assert_status(DLORA_OK, dlora_bank_get_merged(bank, s, &found));
    assert_close(found, sum, size, 1e-5);
  }
  dlora_bank_destroy(bank);
}

/* What terms and routing add at site 1: y [ROWS, WIDEST]. */
static void added(const dlora_bank *bank, const float *x, int32_t terms, const float *routing, float *y) {
  memset(y, 0, ROWS * WIDEST * sizeof *y);
  assert_status(DLORA_OK, dlora_bank_forward(bank, 1, x, ROWS, terms, routing, ROWS, y));
}

static void shares_say_what_of_a_task_every_image_sees(void **state) {
  (void)state;
  enum { VALUES = ROWS * WIDEST };
  uint32_t random = 21;
  dlora_bank *bank = make_bank(NULL);
  float x[VALUES], orthogonal[VALUES], residual[VALUES], merged[VALUES], kept[VALUES], y[VALUES];
  fill(x, VALUES, &random);
  open_task(bank, 2, 3, 0, &random);
  added(bank, x, DLORA_TERM_ORTHOGONAL, NULL, orthogonal);
  added(bank, x, DLORA_TERM_RESIDUAL, NULL, residual);
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_set_merge_fractions(bank, 1.5f, 0.0f));
  assert_error_names("1.5 and 0");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_set_merge_fractions(bank, 0.5f, NAN));
  assert_status(DLORA_OK, dlora_bank_set_merge_fractions(bank, 1.0f, 1.0f));
  assert_status(DLORA_OK, dlora_bank_set_merge_fractions(bank, 0.5f, 0.25f)); /* the last one counts */
  for (size_t i = 0; i < VALUES; i++) {
    merged[i] = 0.5f * orthogonal[i] + 0.25f * residual[i];
    kept[i] = 0.75f * residual[i];
  }
  added(bank, x, DLORA_TERM_ORTHOGONAL, NULL, y);
  assert_close(y, merged, VALUES, 1e-5);
  added(bank, x, DLORA_TERM_RESIDUAL, NULL, y);
  assert_close(y, kept, VALUES, 1e-5);
  assert_status(DLORA_ERR_STATE, dlora_bank_backward(bank, 1, x, y, 1, ALL_TERMS, NULL));
  assert_error_names("merge fractions are set");
  assert_status(DLORA_OK, dlora_bank_commit_task(bank));
  added(bank, x, DLORA_TERM_MERGED, NULL, y);
  assert_close(y, merged, VALUES, 1e-5);
  added(bank, x, 0, (const float[]){1.0f}, y);
  assert_close(y, kept, VALUES, 1e-5);

  /* The next task is trained again, and all of its residual update may be every image's: then nothing is kept. */
  open_task(bank, 0, 2, 0, &random);
  assert_status(DLORA_OK, dlora_bank_backward(bank, 1, x, y, 1, ALL_TERMS, NULL));
  added(bank, x, DLORA_TERM_MERGED | DLORA_TERM_RESIDUAL, NULL, merged);
  assert_status(DLORA_OK, dlora_bank_set_merge_fractions(bank, 1.0f, 1.0f));
  assert_status(DLORA_OK, dlora_bank_commit_task(bank));
  added(bank, x, DLORA_TERM_MERGED, NULL, y);
  assert_close(y, merged, VALUES, 1e-5);
  dlora_adapter adapter;
  for (size_t task = 0; task < 2; task++) {
    assert_status(DLORA_OK, dlora_bank_get_residual(bank, 1, (int64_t)task, &adapter));
    assert_int_equal(adapter.rank, task == 0 ? 3 : 0);
  }
  dlora_bank_destroy(bank);
}

static void a_later_task_leaves_residual_adapters_bitwise_unchanged(void **state) {
  (void)state;
  uint32_t random = 10;
  dlora_bank *bank = make_bank(NULL);
  float a[SITES][3 * WIDEST], b[SITES][3 * WIDEST];
  learn_task(bank, 2, 3, &random);
  for (size_t s = 0; s < SITES; s++) {
    dlora_adapter adapter;
    assert_status(DLORA_OK, dlora_bank_get_residual(bank, s, 0, &adapter));
    assert_int_equal(adapter.rank, 3);
    memcpy(a[s], adapter.a, 3 * sites[s].input_dim * sizeof **a);
    memcpy(b[s], adapter.b, 3 * sites[s].output_dim * sizeof **b);
  }
  for (size_t task = 0; task < 4; task++) learn_task(bank, 1, task, &random);
  for (size_t s = 0; s < SITES; s++) {
    dlora_adapter adapter;
    assert_status(DLORA_OK, dlora_bank_get_residual(bank, s, 0, &adapter));
    assert_memory_equal(a[s], adapter.a, 3 * sites[s].input_dim * sizeof **a);
    assert_memory_equal(b[s], adapter.b, 3 * sites[s].output_dim * sizeof **b);
  }
  dlora_bank_destroy(bank);
}

static void save(const dlora_bank *bank, const char *path) {
  assert_status(DLORA_OK, dlora_bank_save(bank, path));
}

static void a_discarded_task_is_as_if_it_had_not_begun(void **state) {
  (void)state;
  uint32_t random = 11;
  size_t sizes[3];
  unsigned char *bytes[3];
  const char *path = test_temporary("discard.safetensors");
  dlora_bank *bank = make_bank(NULL);
  learn_task(bank, 2, 2, &random);
  save(bank, path);
  bytes[0] = test_read_file(path, &sizes[0]);
  open_task(bank, 3, 1, 1, &random);
  save(bank, path); /* an open task is not written */
  bytes[1] = test_read_file(path, &sizes[1]);
  assert_status(DLORA_OK, dlora_bank_discard_task(bank));
  save(bank, path);
  bytes[2] = test_read_file(path, &sizes[2]);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(sizes[i], sizes[0]);
    assert_memory_equal(bytes[i], bytes[0], sizes[0]);
  }
  for (size_t i = 0; i < 3; i++) free(bytes[i]);
  dlora_bank_destroy(bank);
}

static void calls_in_the_wrong_order_are_refused(void **state) {
  (void)state;
  dlora_bank *bank = make_bank(NULL);
  float values[WIDEST * WIDEST] = {1.0f};
  assert_status(DLORA_ERR_STATE, dlora_bank_set_orthogonal(bank, 0, values, 1, NULL));
  assert_error_names("dlora_bank_begin_task");
  assert_status(DLORA_ERR_STATE, dlora_bank_set_residual(bank, 0, values, 1, 0));
  assert_status(DLORA_ERR_STATE, dlora_bank_get_parameters(bank, NULL, NULL, NULL));
  assert_status(DLORA_ERR_STATE, dlora_bank_step(bank, 0.1f));
  assert_status(DLORA_ERR_STATE, dlora_bank_set_merge_fractions(bank, 1.0f, 0.0f));
  assert_status(DLORA_ERR_STATE, dlora_bank_commit_task(bank));
  assert_status(DLORA_ERR_STATE, dlora_bank_discard_task(bank));
  assert_status(DLORA_ERR_STATE, dlora_bank_forward(bank, 0, values, 1, DLORA_TERM_ORTHOGONAL, NULL, 1, values));
  assert_status(DLORA_ERR_STATE, dlora_bank_forward(bank, 0, values, 1, DLORA_TERM_RESIDUAL, NULL, 1, values));
  assert_status(DLORA_ERR_STATE, dlora_bank_backward(bank, 0, values, values, 1, DLORA_TERM_MERGED, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  assert_status(DLORA_ERR_STATE, dlora_bank_begin_task(bank));
  assert_error_names("open");
  assert_status(DLORA_OK, dlora_bank_commit_task(bank));
  assert_int_equal(dlora_bank_num_tasks(bank), 1);
  dlora_bank_destroy(bank);
  dlora_bank_destroy(NULL);
}

static void impossible_arguments_are_named(void **state) {
  (void)state;
  uint32_t random = 12;
  float values[4 * WIDEST * WIDEST];
  dlora_bank *bank = NULL;
  dlora_projector *narrow = NULL;
  dlora_site bad = sites[0];
  fill(values, 4 * WIDEST * WIDEST, &random);
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_create(&bank, sites, 0, NULL));
  assert_error_names("num_sites");
  bad.output_dim = 0;
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_create(&bank, &bad, 1, NULL));
  assert_error_names("output_dim 0");
  bad.output_dim = SIZE_MAX / 4;
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_create(&bank, &bad, 1, NULL));
  assert_null(bank);
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  options.beta1 = 1.0f;
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_create(&bank, sites, SITES, &options));
  assert_error_names("beta1");
  options = (dlora_bank_options)DLORA_BANK_OPTIONS_INIT;
  options.optimizer = 7;
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_create(&bank, sites, SITES, &options));
  assert_error_names("optimizer is 7");

  bank = make_bank(NULL);
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_set_orthogonal(bank, 0, values, 8, NULL));
  assert_error_names("rank is 8, more than the input_dim 7");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_set_residual(bank, 1, values, 7, 0));
  assert_error_names("rank is 7, more than the input_dim 6");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_set_residual(bank, SITES, values, 1, 0));
  assert_error_names("site is 2");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_set_residual(bank, 0, NULL, 1, 0));
  values[3] = NAN;
  assert_status(DLORA_ERR_NOT_FINITE, dlora_bank_set_residual(bank, 0, values, 1, 0));
  values[3] = 0.0f;
  assert_status(DLORA_OK, dlora_projector_create(&narrow, 5, NULL));
  assert_status(DLORA_ERR_MISMATCH, dlora_bank_set_orthogonal(bank, 0, values, 1, narrow));
  assert_error_names("dim 5");
  assert_status(DLORA_OK, dlora_bank_set_residual(bank, 0, values, 7, 0)); /* as many as there are is fine */
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_forward(bank, 0, values, 1, 8, NULL, 1, values));
  assert_error_names("terms is 8");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_forward(bank, 0, values, 0, 0, NULL, 1, values));
  assert_error_names("rows is 0");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_forward(bank, 0, values, SIZE_MAX / 2, 0, NULL, 1, values));
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_forward(bank, 0, values, 4, 0, values, 3, values));
  assert_error_names("rows_per_item 3");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_forward(bank, 0, values, 4, 0, values, 0, values));
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_backward(bank, 2, values, values, 1, 0, NULL));
  dlora_site site;
  dlora_adapter adapter;
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_get_site(bank, 2, &site));
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_get_residual(bank, 0, 0, &adapter));
  assert_error_names("task is 0");
  assert_status(DLORA_ERR_ARGUMENT, dlora_bank_get_residual(bank, 0, -1, &adapter));
  assert_error_names("task is -1");
  assert_status(DLORA_OK, dlora_bank_get_site(bank, 1, &site));
  assert_memory_equal(&site, &sites[1], sizeof site);
  dlora_projector_destroy(narrow);
  dlora_bank_destroy(bank);
}

/* ---- files ---- */

static void a_bank_survives_its_file_bitwise(void **state) {
  (void)state;
  uint32_t random = 13;
  dlora_bank *bank = make_bank(NULL), *loaded = NULL;
  const char *path = test_temporary("bank.safetensors");
  save(bank, path); /* without a task, too */
  assert_status(DLORA_OK, dlora_bank_load(&loaded, path, NULL));
  assert_int_equal(dlora_bank_num_tasks(loaded), 0);
  dlora_bank_destroy(loaded);
  learn_task(bank, 2, 3, &random);
  learn_task(bank, 0, 0, &random);
  learn_task(bank, 1, 1, &random);
  save(bank, path);
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  options.optimizer = DLORA_OPTIMIZER_SGD;
  assert_status(DLORA_OK, dlora_bank_load(&loaded, path, &options));
  assert_int_equal(dlora_bank_num_tasks(loaded), 3);
  assert_int_equal(dlora_bank_num_sites(loaded), SITES);
  for (size_t s = 0; s < SITES; s++) {
    const float *merged[2];
    dlora_site site;
    assert_status(DLORA_OK, dlora_bank_get_site(loaded, s, &site));
    assert_memory_equal(&site, &sites[s], sizeof site);
    assert_status(DLORA_OK, dlora_bank_get_merged(bank, s, &merged[0]));
    assert_status(DLORA_OK, dlora_bank_get_merged(loaded, s, &merged[1]));
    assert_memory_equal(merged[0], merged[1], site.input_dim * site.output_dim * sizeof **merged);
    for (size_t t = 0; t < 3; t++) {
      dlora_adapter was, is;
      assert_status(DLORA_OK, dlora_bank_get_residual(bank, s, (int64_t)t, &was));
      assert_status(DLORA_OK, dlora_bank_get_residual(loaded, s, (int64_t)t, &is));
      assert_int_equal(is.rank, was.rank);
      if (!is.rank) continue;
      assert_memory_equal(is.a, was.a, is.rank * site.input_dim * sizeof *is.a);
      assert_memory_equal(is.b, was.b, is.rank * site.output_dim * sizeof *is.b);
    }
  }
  learn_task(loaded, 2, 2, &random); /* and goes on learning */
  assert_int_equal(dlora_bank_num_tasks(loaded), 4);
  dlora_bank_destroy(loaded);
  dlora_bank_destroy(bank);
}

/* Puts `to` in place of the only `from` of the same length. */
static void swap_text(unsigned char *bytes, size_t size, const char *from, const char *to) {
  const size_t length = strlen(from);
  size_t found = 0;
  assert_int_equal(length, strlen(to));
  for (size_t i = 0; i + length <= size; i++) {
    if (memcmp(bytes + i, from, length) != 0) continue;
    memcpy(bytes + i, to, length);
    found++;
  }
  assert_int_equal(found, 1);
}

static void damaged_files_are_refused_by_name(void **state) {
  (void)state;
  static const struct {
    const char *from, *to, *names;
  } damages[] = {
      {"bank.num_sites", "bank.num_sitez", "bank.num_sites"},
      {"bank.num_tasks", "bank.num_taskz", "bank.num_tasks"},
      {"\"bank.num_tasks\":\"2\"", "\"bank.num_tasks\":\"x\"", "bank.num_tasks"},
      {"\"bank.num_sites\":\"2\"", "\"bank.num_sites\":\"9\"", "9 sites"},
      {"\"7 5 0 2\"", "\"7 0 0 2\"", "bank.site.0"},
      {"\"7 5 0 2\"", "\"7 6 0 2\"", "bank.merged.0"},
      {"bank.task.0.1.b", "bank.task.0.1.c", "bank.task.0.1.b"},
      {"duallora.bank.1", "duallora.bank.9", "duallora.bank.9"},
  };
  uint32_t random = 14;
  dlora_bank *bank = make_bank(NULL), *loaded = NULL;
  const char *path = test_temporary("sound.safetensors"), *damaged = test_temporary("damaged.safetensors");
  size_t size = 0;
  learn_task(bank, 2, 3, &random);
  learn_task(bank, 1, 1, &random);
  save(bank, path);
  unsigned char *sound = test_read_file(path, &size), *bytes = malloc(size + 8);
  assert_non_null(bytes);
  for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
    memcpy(bytes, sound, size);
    swap_text(bytes, size, damages[i].from, damages[i].to);
    test_write_file(damaged, bytes, size);
    assert_status(DLORA_ERR_FORMAT, dlora_bank_load(&loaded, damaged, NULL));
    assert_null(loaded);
    assert_error_names(damages[i].names);
    assert_error_names(damaged);
  }
  for (size_t cut = 0; cut < size; cut += 1 + size / 97) { /* truncated anywhere */
    test_write_file(damaged, sound, cut);
    assert_status(DLORA_ERR_FORMAT, dlora_bank_load(&loaded, damaged, NULL));
    assert_null(loaded);
  }
  memcpy(bytes, sound, size);
  memset(bytes + size - 4, 0xff, 4); /* the last value becomes a NaN */
  test_write_file(damaged, bytes, size);
  assert_status(DLORA_ERR_FORMAT, dlora_bank_load(&loaded, damaged, NULL));
  memcpy(bytes, sound, size);
  memset(bytes + size, 0, 8);
  test_write_file(damaged, bytes, size + 8);
  assert_status(DLORA_ERR_FORMAT, dlora_bank_load(&loaded, damaged, NULL));
  assert_null(loaded);
  assert_status(DLORA_ERR_IO, dlora_bank_load(&loaded, "/nonexistent/bank", NULL));
  assert_error_names("/nonexistent/bank");
  free(bytes);
  free(sound);
  dlora_bank_destroy(bank);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forward_adds_each_chosen_term),
      cmocka_unit_test(relevance_weighs_each_items_adapters),
      cmocka_unit_test(backward_matches_finite_differences),
      cmocka_unit_test(parameters_lie_site_by_site_as_documented),
      cmocka_unit_test(adam_steps_are_those_of_the_paper),
      cmocka_unit_test(sgd_steps_carry_momentum_and_decay),
      cmocka_unit_test(a_new_pair_starts_the_optimizer_anew),
      cmocka_unit_test(a_trained_a_stays_free_of_the_memory),
      cmocka_unit_test(a_step_with_a_bad_gradient_changes_nothing),
      cmocka_unit_test(finished_orthogonal_pairs_add_up_in_the_merged_matrix),
      cmocka_unit_test(shares_say_what_of_a_task_every_image_sees),
      cmocka_unit_test(a_later_task_leaves_residual_adapters_bitwise_unchanged),
      cmocka_unit_test(a_discarded_task_is_as_if_it_had_not_begun),
      cmocka_unit_test(calls_in_the_wrong_order_are_refused),
      cmocka_unit_test(impossible_arguments_are_named),
      cmocka_unit_test(a_bank_survives_its_file_bitwise),
      cmocka_unit_test(damaged_files_are_refused_by_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
