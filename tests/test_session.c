/* Forward and backward of a model with a bank: sizes, order of calls, independence of images, no allocation.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "support_model.h"

enum { COUNT = 6, RANK = 3 };
enum { OPEN_TERMS = DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL };
static const int64_t classes[] = {1, 2, 3};

/* A tiny model, a bank on all six projections of its upper two blocks, a pass, and pictures. */
struct setup {
  struct test_memory memory; /* of bank and pass */
  dlora_model *model;
  dlora_bank *bank;
  dlora_session *session;
  struct test_pictures pictures;
  dlora_images images; /* the first COUNT */
};

static dlora_session *make_pass(struct setup *s, int32_t training, size_t max_batch, size_t threads) {
  dlora_session *session = NULL;
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.allocator = &s->memory.allocator;
  options.training = training;
  options.max_batch = max_batch;
  options.threads = (int32_t)threads;
  assert_status(DLORA_OK, dlora_session_create(&session, s->model, s->bank, &options));
  return session;
}

/* Opens a task with random pairs everywhere, B not zero. */
static void open_task(dlora_bank *bank, size_t rank, uint32_t *random) {
  float a[VIT_MLP * VIT_MLP], *parameters = NULL;
  size_t count = 0;
  assert_status(DLORA_OK, dlora_bank_begin_task(bank));
  for (size_t i = 0; i < dlora_bank_num_sites(bank); i++) {
    dlora_site site;
    assert_status(DLORA_OK, dlora_bank_get_site(bank, i, &site));
    for (size_t j = 0; j < 2 * rank * site.input_dim; j++) a[j] = 0.2f * test_normal(random);
    assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, i, a, rank, NULL));
    assert_status(DLORA_OK, dlora_bank_set_residual(bank, i, a + rank * site.input_dim, rank, 0));
  }
  assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, NULL, &count));
  for (size_t i = 0; i < count; i++) parameters[i] = 0.2f * test_normal(random);
}

static int set_up(void **state) {
  struct setup *s = calloc(1, sizeof *s);
  assert_non_null(s);
  uint32_t random = 5;
  dlora_site sites[12];
  for (size_t i = 0; i < 12; i++) {
    const int32_t projection = 1 << (i % 6);
    sites[i] = (dlora_site){projection == DLORA_SITE_FC2 ? VIT_MLP : VIT_DIM,
                            projection == DLORA_SITE_FC1 ? VIT_MLP : VIT_DIM, 1 + (int32_t)i / 6, projection};
  }
  test_memory_start(&s->memory);
  s->model = test_load_vit(1, NULL);
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  options.allocator = &s->memory.allocator;
  assert_status(DLORA_OK, dlora_bank_create(&s->bank, sites, 12, &options));
  open_task(s->bank, RANK, &random);
  assert_status(DLORA_OK, dlora_bank_commit_task(s->bank));
  open_task(s->bank, RANK, &random);
  s->session = make_pass(s, 1, 8, 1);
  s->pictures = test_pictures(classes, 3, 4, 1);
  s->images = test_part(&s->pictures.images, 0, COUNT);
  *state = s;
  return 0;
}

static int tear_down(void **state) {
  struct setup *s = *state;
  dlora_session_destroy(s->session);
  dlora_bank_destroy(s->bank);
  dlora_model_destroy(s->model);
  test_pictures_free(&s->pictures);
  assert_int_equal(s->memory.live, 0);
  free(s);
  return 0;
}

static void forward(struct setup *s, dlora_session *session, int32_t terms, const float *routing, float *features) {
  assert_status(DLORA_OK, dlora_session_forward(session, &s->images, terms, routing, features));
}

/* ---- forward ---- */

static void without_adapters_a_pass_is_the_model(void **state) {
  struct setup *s = *state;
  float expected[COUNT * VIT_DIM], found[COUNT * VIT_DIM];
  assert_status(DLORA_OK, dlora_model_embed(s->model, &s->images, expected));
  forward(s, s->session, 0, NULL, found); /* no term of the bank at all */
  assert_close(found, expected, COUNT * VIT_DIM, 1e-5);
  dlora_session *bare = NULL;
  assert_status(DLORA_OK, dlora_session_create(&bare, s->model, NULL, NULL));
  forward(s, bare, 0, NULL, found);
  assert_close(found, expected, COUNT * VIT_DIM, 1e-5);
  forward(s, bare, DLORA_TERM_MERGED, NULL, found); /* nothing was merged */
  assert_close(found, expected, COUNT * VIT_DIM, 1e-5);
  dlora_session_destroy(bare);
}

static void every_term_changes_the_features(void **state) {
  struct setup *s = *state;
  const int32_t terms[] = {0, DLORA_TERM_MERGED, DLORA_TERM_ORTHOGONAL, DLORA_TERM_RESIDUAL};
  const float routing[COUNT] = {0.0f, 1.0f, 0.0f, 1.0f, 0.5f, 0.0f};
  float features[5][COUNT * VIT_DIM];
  for (size_t i = 0; i < 4; i++) forward(s, s->session, terms[i], NULL, features[i]);
  forward(s, s->session, 0, routing, features[4]);
  for (size_t i = 1; i < 5; i++) {
    for (size_t n = 0; n < COUNT; n++) {
      float change = 0.0f;
      for (size_t j = n * VIT_DIM; j < (n + 1) * VIT_DIM; j++) change += fabsf(features[i][j] - features[0][j]);
      if (i == 4 && routing[n] == 0.0f) {
        assert_true(change < 1e-4f);
      } else {
        assert_true(change > 0.1f);
      }
    }
  }
}

static void features_do_not_depend_on_the_batch_or_the_threads(void **state) {
  struct setup *s = *state;
  const int32_t terms = DLORA_TERM_MERGED | OPEN_TERMS;
  const float routing[COUNT] = {1.0f, 0.0f, 0.5f, 1.0f, 1.0f, 0.25f};
  float all[COUNT * VIT_DIM], other[COUNT * VIT_DIM];
  forward(s, s->session, terms, routing, all);
  for (size_t i = 0; i < COUNT; i++) {
    const dlora_images one = test_part(&s->images, i, 1);
    assert_status(DLORA_OK, dlora_session_forward(s->session, &one, terms, routing + i, other + i * VIT_DIM));
  }
  assert_close(other, all, COUNT * VIT_DIM, 1e-5);
  for (int32_t training = 0; training < 2; training++) {
    dlora_session *session = make_pass(s, training, COUNT, 3);
    forward(s, session, terms, routing, other);
    assert_close(other, all, COUNT * VIT_DIM, 1e-5);
    dlora_session_destroy(session);
  }
}

/* METHOD.md 11.3 for the whole network. */
static void merging_a_task_keeps_the_features(void **state) {
  struct setup *s = *state;
  const float none[2 * COUNT] = {0.0f};
  float before[COUNT * VIT_DIM], after[COUNT * VIT_DIM], off[COUNT * VIT_DIM];
  forward(s, s->session, DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL, NULL, before);
  assert_status(DLORA_OK, dlora_bank_commit_task(s->bank));
  forward(s, s->session, DLORA_TERM_MERGED, NULL, after);
  assert_close(after, before, COUNT * VIT_DIM, 1e-4);
  forward(s, s->session, DLORA_TERM_MERGED, none, off); /* routing 0 is the merged network exactly */
  assert_memory_equal(off, after, sizeof after);
}

static void a_finished_residual_adapter_with_relevance_one_is_the_open_one(void **state) {
  struct setup *s = *state;
  float routing[2 * COUNT], before[COUNT * VIT_DIM], after[COUNT * VIT_DIM];
  for (size_t i = 0; i < 2 * COUNT; i++) routing[i] = (float)(i % 2);
  forward(s, s->session, OPEN_TERMS | DLORA_TERM_MERGED, NULL, before);
  assert_status(DLORA_OK, dlora_bank_commit_task(s->bank));
  forward(s, s->session, DLORA_TERM_MERGED, routing, after);
  assert_close(after, before, COUNT * VIT_DIM, 1e-4);
}

/* ---- what a pass shows ---- */

static void inputs_have_the_rows_that_their_sites_read(void **state) {
  struct setup *s = *state;
  const size_t dims[] = {VIT_DIM, VIT_DIM, VIT_DIM, VIT_MLP};
  float values[COUNT * VIT_TOKENS * VIT_MLP], one[VIT_TOKENS * VIT_MLP];
  size_t rows = 0, dim = 0;
  for (size_t block = 1; block < VIT_DEPTH; block++) {
    for (int32_t input = DLORA_INPUT_ATTENTION; input <= DLORA_INPUT_FC2; input++) {
      /* In the last block only the class token is needed after attention. */
      const size_t per_image = block + 1 == VIT_DEPTH && input != DLORA_INPUT_ATTENTION ? 1 : VIT_TOKENS;
      forward(s, s->session, DLORA_TERM_MERGED, NULL, NULL);
      assert_status(DLORA_OK, dlora_session_get_input(s->session, block, input, NULL, &rows, &dim));
      assert_int_equal(rows, COUNT * per_image);
      assert_int_equal(dim, dims[input]);
      assert_status(DLORA_OK, dlora_session_get_input(s->session, block, input, values, &rows, &dim));
      for (size_t i = 0; i < COUNT; i++) {
        const dlora_images image = test_part(&s->images, i, 1);
        assert_status(DLORA_OK, dlora_session_forward(s->session, &image, DLORA_TERM_MERGED, NULL, NULL));
        assert_status(DLORA_OK, dlora_session_get_input(s->session, block, input, one, &rows, &dim));
        assert_close(values + i * per_image * dim, one, per_image * dim, 1e-5);
      }
    }
  }
}

static void inputs_that_no_site_reads_are_not_kept(void **state) {
  struct setup *s = *state;
  const dlora_site site = {VIT_DIM, VIT_DIM, 1, DLORA_SITE_OUTPUT};
  float values[COUNT * VIT_TOKENS * VIT_MLP];
  size_t rows, dim;
  dlora_bank *bank = NULL;
  dlora_session *session = NULL;
  assert_status(DLORA_OK, dlora_bank_create(&bank, &site, 1, NULL));
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.max_batch = 8; /* as that of s->pass, whose bank has all sites in the same blocks */
  options.threads = 1;
  options.training = 1;
  assert_status(DLORA_OK, dlora_session_create(&session, s->model, bank, &options));
  assert_true(dlora_session_workspace_size(session) < dlora_session_workspace_size(s->session));
  forward(s, session, 0, NULL, NULL);
  for (int32_t input = DLORA_INPUT_ATTENTION; input <= DLORA_INPUT_FC2; input++) {
    const dlora_status status = dlora_session_get_input(session, 1, input, values, &rows, &dim);
    assert_int_equal(status, input == DLORA_INPUT_OUTPUT ? DLORA_OK : DLORA_ERR_ARGUMENT);
  }
  assert_error_names("no site of the session's bank reads input 3");
  dlora_session_destroy(session);
  dlora_bank_destroy(bank);
}

/* The gradient of a site's B is dy^T (x A^T): with the shown x as the only source of rows it has their span. */
static void shown_inputs_are_those_that_adapters_saw(void **state) {
  struct setup *s = *state;
  float x[COUNT * VIT_TOKENS * VIT_DIM], y[COUNT * VIT_TOKENS * VIT_DIM] = {0};
  size_t rows = 0, dim = 0;
  forward(s, s->session, DLORA_TERM_MERGED | OPEN_TERMS, NULL, NULL);
  assert_status(DLORA_OK, dlora_session_get_input(s->session, 1, DLORA_INPUT_ATTENTION, x, &rows, &dim));
  /* LayerNorm1 with gain about 1: rows are about normalised. */
  for (size_t i = 0; i < rows; i++) {
    double square = 0.0;
    for (size_t j = 0; j < dim; j++) square += (double)x[i * dim + j] * (double)x[i * dim + j];
    assert_true(square > 0.5 * (double)dim && square < 2.0 * (double)dim);
  }
  assert_status(DLORA_OK, dlora_bank_forward(s->bank, 1, x, rows, OPEN_TERMS, NULL, 1, y));
  float size = 0.0f;
  for (size_t i = 0; i < rows * dim; i++) size += fabsf(y[i]);
  assert_true(size > 1.0f);
}

static void early_features_never_change_with_learning(void **state) {
  struct setup *s = *state;
  float before[COUNT * 2 * VIT_DIM], after[COUNT * 2 * VIT_DIM];
  uint32_t random = 77;
  forward(s, s->session, 0, NULL, NULL);
  assert_status(DLORA_OK, dlora_session_get_early_features(s->session, before));
  for (size_t i = 0; i < COUNT; i++) { /* layer-normed without gain: the class token's half has mean 0, variance 1 */
    double sum = 0.0, square = 0.0;
    for (size_t j = 0; j < VIT_DIM; j++) {
      const double v = (double)before[i * 2 * VIT_DIM + j];
      sum += v;
      square += v * v;
    }
    assert_float_equal(sum / VIT_DIM, 0.0, 1e-4);
    assert_float_equal(square / VIT_DIM, 1.0, 1e-3);
  }
  for (size_t task = 0; task < 2; task++) {
    assert_status(DLORA_OK, dlora_bank_commit_task(s->bank));
    open_task(s->bank, RANK, &random);
  }
  forward(s, s->session, DLORA_TERM_MERGED | OPEN_TERMS, NULL, NULL);
  assert_status(DLORA_OK, dlora_session_get_early_features(s->session, after));
  assert_memory_equal(before, after, sizeof before);
}

/* ---- backward ---- */

/* loss = sum of features * direction */
static double loss_of(struct setup *s, const float *direction) {
  float features[COUNT * VIT_DIM];
  double loss = 0.0;
  forward(s, s->session, DLORA_TERM_MERGED | OPEN_TERMS, NULL, features);
  for (size_t i = 0; i < COUNT * VIT_DIM; i++) loss += (double)features[i] * (double)direction[i];
  return loss;
}

/* On top of a finished task, of which M is in the forward pass. */
static void backward_matches_finite_differences(void **state) {
  struct setup *s = *state;
  uint32_t random = 6;
  float direction[COUNT * VIT_DIM], *parameters = NULL, *gradients = NULL;
  size_t count = 0;
  for (size_t i = 0; i < COUNT * VIT_DIM; i++) direction[i] = test_normal(&random);
  assert_status(DLORA_OK, dlora_bank_get_parameters(s->bank, &parameters, &gradients, &count));
  (void)loss_of(s, direction);
  assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank, direction));
  for (size_t k = 0; k < 12; k++) { /* along random lines: rounding of one value's difference would hide it */
    float *line = calloc(count, sizeof *line), *kept = calloc(count, sizeof *kept);
    assert_non_null(line);
    assert_non_null(kept);
    memcpy(kept, parameters, count * sizeof *kept);
    double along = 0.0;
    for (size_t i = 0; i < count; i++) {
      if (i * 12 / count == k) line[i] = test_normal(&random); /* one twelfth: about one site */
      along += (double)line[i] * (double)gradients[i];
    }
    const float step = 2e-3f;
    for (size_t i = 0; i < count; i++) parameters[i] = kept[i] + step * line[i];
    const double above = loss_of(s, direction);
    for (size_t i = 0; i < count; i++) parameters[i] = kept[i] - step * line[i];
    const double below = loss_of(s, direction);
    memcpy(parameters, kept, count * sizeof *kept);
    assert_true(fabs(along) > 1e-2);
    const double slope = (above - below) / (2.0 * (double)step), allowed = 2e-2 * fabs(along) + 2e-2;
    assert_true(fabs(slope - along) <= allowed);
    free(line);
    free(kept);
  }
}

static void gradients_do_not_depend_on_the_threads(void **state) {
  struct setup *s = *state;
  uint32_t random = 8;
  float direction[COUNT * VIT_DIM], *gradients = NULL;
  size_t count = 0;
  for (size_t i = 0; i < COUNT * VIT_DIM; i++) direction[i] = test_normal(&random);
  assert_status(DLORA_OK, dlora_bank_get_parameters(s->bank, NULL, &gradients, &count));
  forward(s, s->session, OPEN_TERMS, NULL, NULL);
  assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank, direction));
  float *expected = malloc(count * sizeof *expected);
  assert_non_null(expected);
  memcpy(expected, gradients, count * sizeof *expected);
  memset(gradients, 0, count * sizeof *gradients);
  dlora_session *session = make_pass(s, 1, COUNT, 4);
  forward(s, session, OPEN_TERMS, NULL, NULL);
  assert_status(DLORA_OK, dlora_session_backward(session, s->bank, direction));
  assert_close(gradients, expected, count, 1e-4);
  dlora_session_destroy(session);
  free(expected);
}

/* ---- order and arguments ---- */

static void wrong_calls_are_refused_and_named(void **state) {
  struct setup *s = *state;
  float features[8 * VIT_DIM] = {0.0f}, values[4] = {0.0f};
  size_t rows = 0, dim = 0;
  dlora_bank *other = NULL;
  dlora_site site;
  dlora_session *inference = make_pass(s, 0, 4, 1);

  /* Before a forward pass there is nothing to show or to go back from. */
  assert_status(DLORA_ERR_STATE, dlora_session_backward(s->session, s->bank, features));
  assert_error_names("dlora_session_forward");
  assert_status(DLORA_ERR_STATE, dlora_session_get_input(s->session, 1, 0, values, &rows, &dim));
  assert_status(DLORA_ERR_STATE, dlora_session_get_early_features(s->session, features));

  assert_status(DLORA_ERR_ARGUMENT, dlora_session_forward(inference, &s->images, 0, NULL, features));
  assert_error_names("max_batch 4");
  const dlora_images some = test_part(&s->images, 0, 4);
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_forward(inference, &some, 0, NULL, NULL));
  assert_error_names("features");
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_forward(s->session, &some, 16, NULL, features));
  assert_error_names("terms is 16");
  assert_status(DLORA_OK, dlora_session_forward(inference, &some, 0, NULL, features));
  assert_status(DLORA_ERR_STATE, dlora_session_backward(inference, s->bank, features));
  assert_error_names("training");
  assert_status(DLORA_ERR_STATE, dlora_session_get_input(inference, 1, 0, values, &rows, &dim));
  dlora_session_destroy(inference);

  /* There is no backward pass through residual adapters of finished tasks. */
  assert_status(DLORA_OK, dlora_session_forward(s->session, &some, OPEN_TERMS, values, NULL));
  assert_status(DLORA_ERR_STATE, dlora_session_backward(s->session, s->bank, features));
  assert_error_names("routing");
  assert_status(DLORA_OK, dlora_session_forward(s->session, &some, OPEN_TERMS, NULL, NULL));
  assert_status(DLORA_OK, dlora_bank_get_site(s->bank, 0, &site));
  assert_status(DLORA_OK, dlora_bank_create(&other, &site, 1, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(other));
  assert_status(DLORA_ERR_MISMATCH, dlora_session_backward(s->session, other, features));
  dlora_bank_destroy(other);
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_get_input(s->session, 0, 0, values, &rows, &dim));
  assert_error_names("block 0");
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_get_input(s->session, VIT_DEPTH, 0, values, &rows, &dim));
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_get_input(s->session, 1, 4, values, &rows, &dim));
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_get_input(s->session, 1, -1, values, &rows, &dim));
  assert_status(DLORA_OK, dlora_bank_set_merge_fractions(s->bank, 1.0f, 0.5f));
  assert_status(DLORA_ERR_STATE, dlora_session_backward(s->session, s->bank, features));
  assert_error_names("merge fractions are set");
  assert_status(DLORA_OK, dlora_bank_commit_task(s->bank));
  assert_status(DLORA_ERR_STATE, dlora_session_backward(s->session, s->bank, features));
  assert_status(DLORA_ERR_STATE, dlora_session_forward(s->session, &some, DLORA_TERM_ORTHOGONAL, NULL, features));
  assert_error_names("no task is open");
  assert_status(DLORA_OK, dlora_session_forward(s->session, &some, DLORA_TERM_MERGED, NULL, features));
}

/* Ranks that grew between forward and backward must not be written behind the end of what was planned. */
static void pairs_may_change_between_forward_and_backward(void **state) {
  struct setup *s = *state;
  float a[VIT_DIM * VIT_DIM], direction[COUNT * VIT_DIM], *gradients = NULL;
  size_t count = 0;
  uint32_t random = 9;
  for (size_t i = 0; i < VIT_DIM * VIT_DIM; i++) a[i] = test_normal(&random);
  for (size_t i = 0; i < COUNT * VIT_DIM; i++) direction[i] = test_normal(&random);
  forward(s, s->session, OPEN_TERMS, NULL, NULL);
  for (size_t i = 0; i < 6; i++) {
    if (i < 5) assert_status(DLORA_OK, dlora_bank_set_orthogonal(s->bank, i, a, VIT_DIM, NULL));
  }
  assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank, direction));
  assert_status(DLORA_OK, dlora_bank_get_parameters(s->bank, NULL, &gradients, &count));
  for (size_t i = 0; i < count; i++) assert_true(isfinite(gradients[i]));
}

static void sites_that_the_model_lacks_are_refused(void **state) {
  struct setup *s = *state;
  const struct {
    dlora_site site;
    dlora_status status;
    const char *names;
  } cases[] = {
      {{VIT_DIM, VIT_DIM, VIT_DEPTH, DLORA_SITE_KEY}, DLORA_ERR_MISMATCH, "block 3"},
      {{VIT_DIM, VIT_DIM, -1, DLORA_SITE_KEY}, DLORA_ERR_MISMATCH, "block -1"},
      {{VIT_DIM, VIT_DIM, 0, 3}, DLORA_ERR_ARGUMENT, "projection 3"},
      {{VIT_DIM, VIT_DIM, 0, DLORA_SITE_FC1}, DLORA_ERR_MISMATCH, "[48, 32]"},
      {{VIT_DIM + 1, VIT_DIM, 0, DLORA_SITE_VALUE}, DLORA_ERR_MISMATCH, "[32, 33]"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    dlora_bank *bank = NULL;
    dlora_session *session = s->session;
    assert_status(DLORA_OK, dlora_bank_create(&bank, &cases[i].site, 1, NULL));
    assert_status(cases[i].status, dlora_session_create(&session, s->model, bank, NULL));
    assert_null(session);
    assert_error_names(cases[i].names);
    dlora_bank_destroy(bank);
  }
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  dlora_session *session = s->session;
  options.max_batch = 0;
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_create(&session, s->model, s->bank, &options));
  assert_null(session);
  assert_error_names("max_batch");
  options.max_batch = SIZE_MAX / 2;
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_create(&session, s->model, s->bank, &options));
  assert_null(session);
  dlora_session_destroy(NULL);
}

/* ---- memory ---- */

static void nothing_is_allocated_after_the_first_call(void **state) {
  struct setup *s = *state;
  uint32_t random = 10;
  float direction[COUNT * VIT_DIM], features[COUNT * VIT_DIM], routing[COUNT] = {1.0f, 0.5f};
  for (size_t i = 0; i < COUNT * VIT_DIM; i++) direction[i] = test_normal(&random);
  assert_true(dlora_session_workspace_size(s->session) > COUNT * VIT_TOKENS * VIT_DIM * sizeof(float));
  forward(s, s->session, OPEN_TERMS, NULL, features);
  assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank, direction));
  assert_status(DLORA_OK, dlora_bank_step(s->bank, 1e-3f));
  const size_t total = s->memory.total, workspace = dlora_session_workspace_size(s->session);
  for (int i = 0; i < 3; i++) {
    forward(s, s->session, OPEN_TERMS | DLORA_TERM_MERGED, routing, features);
    forward(s, s->session, OPEN_TERMS | DLORA_TERM_MERGED, NULL, NULL);
    assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank, direction));
    assert_status(DLORA_OK, dlora_bank_step(s->bank, 1e-3f));
    const dlora_images fewer = test_part(&s->images, 1, 2);
    assert_status(DLORA_OK, dlora_session_forward(s->session, &fewer, 0, NULL, features));
  }
  assert_int_equal(s->memory.total, total);
  assert_int_equal(dlora_session_workspace_size(s->session), workspace);
}

static void embedding_again_allocates_nothing(void **state) {
  struct setup *s = *state;
  struct test_memory memory;
  float first[COUNT * VIT_DIM], again[COUNT * VIT_DIM];
  test_memory_start(&memory);
  dlora_model *model = test_load_vit(1, &memory.allocator);
  const dlora_images fewer = test_part(&s->images, 2, 1);
  assert_status(DLORA_OK, dlora_model_embed(model, &s->images, first));
  const size_t total = memory.total;
  assert_status(DLORA_OK, dlora_model_embed(model, &fewer, again));
  assert_close(again, first + 2 * VIT_DIM, VIT_DIM, 1e-5);
  assert_status(DLORA_OK, dlora_model_embed(model, &s->images, again));
  assert_memory_equal(again, first, sizeof first);
  assert_int_equal(memory.total, total);
  dlora_model_destroy(model);
  assert_int_equal(memory.live, 0);
}

/* ---- time ---- */

static dlora_profile profile_of(const dlora_session *session) {
  dlora_profile profile = DLORA_PROFILE_INIT;
  assert_status(DLORA_OK, dlora_session_get_profile(session, &profile));
  return profile;
}

static double sum_of(const dlora_profile *p) {
  return p->preprocessing + p->products + p->adapters + p->attention + p->norms + p->activation + p->copies + p->loss +
         p->optimizer + p->observation + p->directions + p->task_end;
}

static double now(void) {
  struct timespec time;
  assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &time), 0);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void profile_tells_where_a_pass_spends_its_time(void **state) {
  struct setup *s = *state;
  float direction[COUNT * VIT_DIM] = {1.0f}, features[COUNT * VIT_DIM];
  for (size_t threads = 1; threads <= 2; threads++) {
    dlora_session *session = make_pass(s, 1, 8, threads);
    const dlora_profile none = profile_of(session);
    assert_true(sum_of(&none) == 0.0);
    const double started = now();
    forward(s, session, 0, NULL, features);
    const dlora_profile first = profile_of(session);
    assert_true(first.preprocessing > 0.0 && first.products > 0.0 && first.attention > 0.0 && first.norms > 0.0 &&
                first.activation > 0.0 && first.copies > 0.0);
    double most = 0.0; /* share of a round that the sections cover; others may have the processor in between */
    for (int i = 0; i < 20; i++) {
      const dlora_profile begun = profile_of(session);
      const double round = now();
      forward(s, session, OPEN_TERMS, NULL, features);
      assert_status(DLORA_OK, dlora_session_backward(session, s->bank, direction));
      const dlora_profile ended = profile_of(session);
      const double share = (sum_of(&ended) - sum_of(&begun)) / (now() - round);
      most = share > most ? share : most;
    }
    const double seconds = now() - started;
    const dlora_profile last = profile_of(session);
    assert_true(last.preprocessing > first.preprocessing && last.products > first.products &&
                last.adapters > first.adapters && last.attention > first.attention && last.norms > first.norms &&
                last.activation > first.activation && last.copies > first.copies);
    assert_true(last.loss == 0.0 && last.optimizer == 0.0 && last.observation == 0.0 && last.directions == 0.0 &&
                last.task_end == 0.0); /* a learner's */
    assert_true(sum_of(&last) <= (double)threads * seconds);
    assert_true(most > 0.5);
    dlora_session_destroy(session);
  }
  dlora_profile wrong = {.struct_size = 4};
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_session_get_profile(s->session, &wrong));
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_get_profile(s->session, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_session_get_profile(NULL, &wrong));
}

#define WITH_SETUP(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_SETUP(without_adapters_a_pass_is_the_model),
      WITH_SETUP(every_term_changes_the_features),
      WITH_SETUP(features_do_not_depend_on_the_batch_or_the_threads),
      WITH_SETUP(merging_a_task_keeps_the_features),
      WITH_SETUP(a_finished_residual_adapter_with_relevance_one_is_the_open_one),
      WITH_SETUP(inputs_have_the_rows_that_their_sites_read),
      WITH_SETUP(inputs_that_no_site_reads_are_not_kept),
      WITH_SETUP(shown_inputs_are_those_that_adapters_saw),
      WITH_SETUP(early_features_never_change_with_learning),
      WITH_SETUP(backward_matches_finite_differences),
      WITH_SETUP(gradients_do_not_depend_on_the_threads),
      WITH_SETUP(wrong_calls_are_refused_and_named),
      WITH_SETUP(pairs_may_change_between_forward_and_backward),
      WITH_SETUP(sites_that_the_model_lacks_are_refused),
      WITH_SETUP(nothing_is_allocated_after_the_first_call),
      WITH_SETUP(embedding_again_allocates_nothing),
      WITH_SETUP(profile_tells_where_a_pass_spends_its_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
