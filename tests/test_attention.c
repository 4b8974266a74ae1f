/* Attention in every shape of head and number of tokens, with every kernel table: what leaves it against a plain loop,
 * and its gradients against finite differences; in bfloat16 against those in float32.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { DEPTH = 2, RANK = 2, COUNT = 2 };

/* Tokens in whole rows and registers and not; heads whose rows are whole registers and not; the shape of real ones. */
static const struct test_shape shapes[] = {
    {5, DEPTH, 1, 8, 1, 1},    /* 2 tokens, head_dim 5 */
    {32, DEPTH, 2, 8, 1, 3},   /* 10 tokens, head_dim 16 */
    {39, DEPTH, 3, 8, 1, 4},   /* 17 tokens, head_dim 13 */
    {64, DEPTH, 1, 8, 1, 6},   /* 37 tokens, head_dim 64 */
    {48, DEPTH, 2, 8, 1, 7},   /* 50 tokens, head_dim 24 */
    {192, DEPTH, 3, 8, 1, 8},  /* 65 tokens, head_dim 64 */
    {128, DEPTH, 2, 8, 1, 14}, /* 197 tokens, head_dim 64 */
    {40, DEPTH, 1, 8, 1, 16},  /* 257 tokens, head_dim 40 */
};
static const char *const tables[] = {"generic", "avx2", "fastest"};
#define NUM_SHAPES (sizeof shapes / sizeof *shapes)
#define NUM_TABLES (sizeof tables / sizeof *tables)

/* A model of one shape with pairs at the queries, keys and values of both blocks, and a training session. */
struct setup {
  const struct test_shape *shape;
  size_t tokens;
  double tolerance;
  unsigned char *file;
  dlora_model *model;
  dlora_bank *bank;
  dlora_session *session;
  float *pixels;
  dlora_images images;
};

/* Kinds of sites: query, key, value, and of four the output projection, without an adapter, so that its input is kept.
 * trained: of the residual pair, A too. */
struct adapters {
  size_t kinds, rank;
  int trained;
};
static const struct adapters usual = {4, 2, 0};

static struct setup set_up(const struct test_shape *shape, const char *table, int32_t products,
                           const struct adapters *adapters) {
  const size_t kinds = adapters->kinds, rank = adapters->rank;
  struct setup s = {.shape = shape, .tokens = shape->grid * shape->grid + 1};
  s.tolerance = products == DLORA_PRODUCTS_BFLOAT16 ? 2e-2 : 1e-5;
  uint32_t random = 3;
  size_t size, count;
  assert_int_equal(setenv("DUALLORA_ISA", table, 1), 0);
  const char *path = test_write_vit_of("attention.safetensors", 9, shape);
  s.file = test_read_file(path, &size);
  dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
  model_options.products = products;
  assert_status(DLORA_OK, dlora_model_load(&s.model, path, &model_options));
  dlora_site sites[4 * DEPTH];
  for (size_t i = 0; i < kinds * DEPTH; i++)
    sites[i] = (dlora_site){shape->dim, shape->dim, (int32_t)(i / kinds), 1 << (i % kinds)};
  assert_status(DLORA_OK, dlora_bank_create(&s.bank, sites, kinds * DEPTH, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(s.bank));
  float *a = malloc(rank * shape->dim * sizeof *a), *parameters;
  assert_non_null(a);
  for (size_t i = 0; i < kinds * DEPTH; i++) {
    if (sites[i].projection == DLORA_SITE_OUTPUT) continue;
    for (size_t j = 0; j < rank * shape->dim; j++) a[j] = test_normal(&random) / sqrtf((float)shape->dim);
    assert_status(DLORA_OK, dlora_bank_set_residual(s.bank, i, a, rank, adapters->trained));
  }
  free(a);
  assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, &parameters, NULL, &count));
  for (size_t i = 0; i < count; i++) parameters[i] = (adapters->trained ? 0.1f : 0.3f) * test_normal(&random);
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.max_batch = COUNT;
  options.threads = 1;
  options.training = 1;
  assert_status(DLORA_OK, dlora_session_create(&s.session, s.model, s.bank, &options));
  const size_t pixels = COUNT * 3 * shape->grid * shape->grid;
  s.pixels = malloc(pixels * sizeof *s.pixels);
  assert_non_null(s.pixels);
  for (size_t i = 0; i < pixels; i++) s.pixels[i] = test_normal(&random);
  s.images = (dlora_images){NULL, s.pixels, COUNT, shape->grid, shape->grid, 3};
  return s;
}

static void tear_down(struct setup *s) {
  dlora_session_destroy(s->session);
  dlora_bank_destroy(s->bank);
  dlora_model_destroy(s->model);
  free(s->pixels);
  free(s->file);
  unsetenv("DUALLORA_ISA");
}

static float *input_of(const struct setup *s, size_t block, int32_t input, size_t *rows) {
  size_t dim;
  assert_status(DLORA_OK, dlora_session_get_input(s->session, block, input, NULL, rows, &dim));
  float *values = malloc(*rows * dim * sizeof *values);
  assert_non_null(values);
  assert_status(DLORA_OK, dlora_session_get_input(s->session, block, input, values, rows, &dim));
  return values;
}

/* qkv [tokens, 3 * dim] = h [tokens, dim] W^T + b, in double. */
static double *project(const struct setup *s, size_t block, const float *h) {
  const size_t dim = s->shape->dim;
  size_t size;
  char name[64];
  double *qkv = malloc(s->tokens * 3 * dim * sizeof *qkv);
  float *weight = malloc(3 * dim * dim * sizeof *weight), *bias = malloc(3 * dim * sizeof *bias);
  assert_true(qkv && weight && bias);
  snprintf(name, sizeof name, "blocks.%zu.attn.qkv.weight", block);
  memcpy(weight, test_tensor(s->file, name, &size), 3 * dim * dim * sizeof *weight);
  snprintf(name, sizeof name, "blocks.%zu.attn.qkv.bias", block);
  memcpy(bias, test_tensor(s->file, name, &size), 3 * dim * sizeof *bias);
  for (size_t t = 0; t < s->tokens; t++) {
    for (size_t o = 0; o < 3 * dim; o++) {
      double sum = (double)bias[o];
      for (size_t j = 0; j < dim; j++) sum += (double)h[t * dim + j] * (double)weight[o * dim + j];
      qkv[t * 3 * dim + o] = sum;
    }
  }
  free(weight);
  free(bias);
  return qkv;
}

/* out [dim] of one query by the definition of attention. */
static void attend(const struct setup *s, const double *qkv, size_t query, float *out) {
  const size_t dim = s->shape->dim, width = dim / s->shape->heads, ld = 3 * dim;
  double *p = malloc(s->tokens * sizeof *p);
  assert_non_null(p);
  for (size_t h = 0; h < s->shape->heads; h++) {
    const double *q = qkv + query * ld + h * width, *k = qkv + dim + h * width, *v = qkv + 2 * dim + h * width;
    double top = -INFINITY, sum = 0.0;
    for (size_t t = 0; t < s->tokens; t++) {
      p[t] = 0.0;
      for (size_t j = 0; j < width; j++) p[t] += q[j] * k[t * ld + j] / sqrt((double)width);
      top = fmax(top, p[t]);
    }
    for (size_t t = 0; t < s->tokens; t++) sum += p[t] = exp(p[t] - top);
    for (size_t j = 0; j < width; j++) {
      double value = 0.0;
      for (size_t t = 0; t < s->tokens; t++) value += p[t] / sum * v[t * ld + j];
      out[h * width + j] = (float)value;
    }
  }
  free(p);
}

/* |found - expected| / |expected| */
static double distance(const float *found, const float *expected, size_t count) {
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < count; i++) {
    error += ((double)found[i] - (double)expected[i]) * ((double)found[i] - (double)expected[i]);
    norm += (double)expected[i] * (double)expected[i];
  }
  return sqrt(error / norm);
}

/* bfloat16 has 8 bits: each of weights, inputs, queries, keys, values, exponentials is off by up to 2^-9. Row by row,
 * so that a single wrong one shows. */
static void assert_rows(const struct setup *s, const float *found, const float *expected, size_t rows) {
  const size_t dim = s->shape->dim;
  if (s->tolerance < 1e-3) {
    assert_close(found, expected, rows * dim, s->tolerance);
    return;
  }
  for (size_t i = 0; i < rows; i++) {
    const double d = distance(found + i * dim, expected + i * dim, dim);
    if (!(d <= s->tolerance)) fail_msg("%zu tokens, row %zu of %zu: distance %g", s->tokens, i, rows, d);
  }
}

static void check_forward(struct setup *s) {
  const size_t dim = s->shape->dim;
  float *found = malloc(COUNT * dim * sizeof *found), *expected = malloc(s->tokens * dim * sizeof *expected);
  assert_true(found && expected);
  assert_status(DLORA_OK, dlora_session_forward(s->session, &s->images, 0, NULL, found));
  for (size_t block = 0; block < DEPTH; block++) {
    size_t rows, asked;
    float *in = input_of(s, block, DLORA_INPUT_ATTENTION, &rows), *out = input_of(s, block, DLORA_INPUT_OUTPUT, &asked);
    assert_int_equal(rows, COUNT * s->tokens);
    const size_t queries = asked / COUNT;
    assert_int_equal(queries, block + 1 == DEPTH ? 1 : s->tokens);
    for (size_t i = 0; i < COUNT; i++) {
      double *qkv = project(s, block, in + i * s->tokens * dim);
      for (size_t t = 0; t < queries; t++) attend(s, qkv, t, expected + t * dim);
      assert_rows(s, out + i * queries * dim, expected, queries);
      free(qkv);
    }
    free(in);
    free(out);
  }
  /* An inference pass keeps no probabilities. */
  dlora_session *bare = NULL;
  float *features = malloc(COUNT * dim * sizeof *features);
  assert_non_null(features);
  assert_status(DLORA_OK, dlora_session_create(&bare, s->model, NULL, NULL));
  assert_status(DLORA_OK, dlora_session_forward(bare, &s->images, 0, NULL, features));
  assert_rows(s, features, found, COUNT);
  dlora_session_destroy(bare);
  free(features);
  free(expected);
  free(found);
}

static void every_shape_is_the_plain_loop(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_SHAPES; i++) {
    for (size_t table = 0; table < NUM_TABLES; table++) {
      struct setup s = set_up(&shapes[i], tables[table], DLORA_PRODUCTS_BLAS, &usual);
      check_forward(&s);
      tear_down(&s);
    }
  }
}

static double loss(struct setup *s, const float *weights, float *features) {
  double sum = 0.0;
  assert_status(DLORA_OK, dlora_session_forward(s->session, &s->images, DLORA_TERM_RESIDUAL, NULL, features));
  for (size_t i = 0; i < COUNT * s->shape->dim; i++) sum += (double)weights[i] * (double)features[i];
  return sum;
}

/* The slope of the loss along the gradient of one site's B is that gradient's length. Of order four in the step: what
 * remains of it and the rounding of features, some 1e-6 over the step, are small beside 1 %. */
static void check_backward(struct setup *s) {
  const size_t dim = s->shape->dim, length = RANK * dim;
  float *weights = malloc(COUNT * dim * sizeof *weights), *features = malloc(COUNT * dim * sizeof *features);
  float *centre = malloc(length * sizeof *centre), *parameters, *gradients;
  size_t count;
  uint32_t random = 8;
  assert_true(weights && features && centre);
  for (size_t i = 0; i < COUNT * dim; i++) weights[i] = test_normal(&random) / sqrtf((float)dim);
  (void)loss(s, weights, features);
  assert_status(DLORA_OK, dlora_session_backward(s->session, s->bank, weights));
  assert_status(DLORA_OK, dlora_bank_get_parameters(s->bank, &parameters, &gradients, &count));
  assert_int_equal(count, 3 * DEPTH * length);
  for (size_t site = 0; site < 3 * DEPTH; site++) {
    float *b = parameters + site * length;
    const float *gradient = gradients + site * length;
    double norm = 0.0, at[4];
    for (size_t i = 0; i < length; i++) norm += (double)gradient[i] * (double)gradient[i];
    norm = sqrt(norm);
    assert_true(norm > 1e-5);
    memcpy(centre, b, length * sizeof *b);
    const double steps[] = {-2.0, -1.0, 1.0, 2.0}, h = 0.05;
    for (size_t k = 0; k < 4; k++) {
      for (size_t i = 0; i < length; i++) b[i] = (float)((double)centre[i] + steps[k] * h * (double)gradient[i] / norm);
      at[k] = loss(s, weights, features);
    }
    memcpy(b, centre, length * sizeof *b);
    const double slope = (8.0 * (at[2] - at[1]) - (at[3] - at[0])) / (12.0 * h);
    if (fabs(slope - norm) > 1e-2 * norm + 1e-4) {
      fail_msg("%zu tokens, head_dim %zu, site %zu: slope %.6g, length of the gradient %.6g", s->tokens,
               dim / s->shape->heads, site, slope, norm);
    }
  }
  free(centre);
  free(features);
  free(weights);
}

static void every_shape_has_the_gradient_of_finite_differences(void **state) {
  (void)state;
  for (size_t i = 0; i < NUM_SHAPES; i++) {
    for (size_t table = 0; table < NUM_TABLES; table++) {
      struct setup s = set_up(&shapes[i], tables[table], DLORA_PRODUCTS_BLAS, &usual);
      check_backward(&s);
      tear_down(&s);
    }
  }
}

/* ---- bfloat16 ---- */

static int bfloat16_is_here(void) {
  dlora_model *model = NULL;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.products = DLORA_PRODUCTS_BFLOAT16;
  const char *path = test_write_vit_of("attention.safetensors", 9, &shapes[0]);
  const dlora_status status = dlora_model_load(&model, path, &options);
  dlora_model_destroy(model);
  if (status == DLORA_OK) return 1;
  assert_status(DLORA_ERR_UNSUPPORTED, status);
  print_message("left out: %s\n", dlora_last_error());
  return 0;
}

static void every_shape_is_nearly_the_plain_loop_in_bfloat16(void **state) {
  (void)state;
  if (!bfloat16_is_here()) skip();
  for (size_t i = 0; i < NUM_SHAPES; i++) {
    struct setup s = set_up(&shapes[i], "fastest", DLORA_PRODUCTS_BFLOAT16, &usual);
    check_forward(&s);
    tear_down(&s);
  }
}

/* Gradients of all pairs; the caller frees them. */
static float *gradients_of(const struct test_shape *shape, int32_t products, const struct adapters *adapters,
                           size_t *count) {
  struct setup s = set_up(shape, "fastest", products, adapters);
  float *weights = malloc(COUNT * shape->dim * sizeof *weights),
        *features = malloc(COUNT * shape->dim * sizeof *features);
  float *parameters, *gradients;
  uint32_t random = 8;
  assert_true(weights && features);
  for (size_t i = 0; i < COUNT * shape->dim; i++) weights[i] = test_normal(&random) / sqrtf((float)shape->dim);
  (void)loss(&s, weights, features);
  assert_status(DLORA_OK, dlora_session_backward(s.session, s.bank, weights));
  assert_status(DLORA_OK, dlora_bank_get_parameters(s.bank, &parameters, &gradients, count));
  float *out = malloc(*count * sizeof *out);
  assert_non_null(out);
  memcpy(out, gradients, *count * sizeof *out);
  free(weights);
  free(features);
  tear_down(&s);
  return out;
}

/* Beside the shapes of attention some whose rows are more than one slab of 768, so that a head begins in one slab and
 * ends in the next, and whose queries begin within a panel of 64 columns. */
static const struct test_shape wide_shapes[] = {
    {800, DEPTH, 5, 1000, 1, 3}, {385, DEPTH, 5, 769, 1, 4}, {1536, DEPTH, 2, 2304, 1, 2}, {30, DEPTH, 2, 1537, 1, 5}};

/* Queries' gradients are differences of what goes through the softmax: a few times as far off as features. */
static void check_gradient(const struct test_shape *shape, const struct adapters *adapters) {
  size_t count;
  float *expected = gradients_of(shape, DLORA_PRODUCTS_BLAS, adapters, &count);
  float *found = gradients_of(shape, DLORA_PRODUCTS_BFLOAT16, adapters, &count);
  const size_t length = count / (3 * DEPTH);
  for (size_t site = 0; site < 3 * DEPTH; site++) {
    const double d = distance(found + site * length, expected + site * length, length);
    if (!(d > 1e-5 && d <= 6e-2)) {
      fail_msg("dim %zu, grid %zu, %zu kinds, rank %zu, site %zu: distance %g", shape->dim, shape->grid,
               adapters->kinds, adapters->rank, site, d);
    }
  }
  free(expected);
  free(found);
}

/* Adapters at the output projection, too, make blocks keep and compute more in float32. */
static void every_shape_has_nearly_the_gradient_of_float32_in_bfloat16(void **state) {
  (void)state;
  if (!bfloat16_is_here()) skip();
  const struct adapters adapters[] = {usual, {3, 2, 0}, {3, 5, 0}, {3, 3, 1}, {3, 1, 0}};
  for (size_t k = 0; k < sizeof adapters / sizeof *adapters; k++) {
    for (size_t i = 0; i < NUM_SHAPES; i++) check_gradient(&shapes[i], &adapters[k]);
    for (size_t i = 0; i < sizeof wide_shapes / sizeof *wide_shapes; i++) check_gradient(&wide_shapes[i], &adapters[k]);
  }
  /* More than loops for thin products do. */
  const struct adapters thick = {3, 40, 0};
  check_gradient(&shapes[3], &thick);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_shape_is_the_plain_loop),
      cmocka_unit_test(every_shape_has_the_gradient_of_finite_differences),
      cmocka_unit_test(every_shape_is_nearly_the_plain_loop_in_bfloat16),
      cmocka_unit_test(every_shape_has_nearly_the_gradient_of_float32_in_bfloat16),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
