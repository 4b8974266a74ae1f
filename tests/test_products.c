/* Packed and bfloat16 products against those of the BLAS. What oneDNN or the processor has not got is left out, by
 * name; that it is refused then is tested everywhere.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

static const int64_t first_classes[] = {1, 2}, second_classes[] = {3, 4};

static const char *backbone(void) {
  return test_source("examples/backbones/vit_192x6_patch4_32.safetensors");
}

static dlora_model *load(const char *path, int32_t products, const dlora_allocator *allocator) {
  dlora_model *model = NULL;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.products = products;
  options.allocator = allocator;
  options.threads = 1;
  assert_status(DLORA_OK, dlora_model_load(&model, path, &options));
  return model;
}

/* |found - expected| / |expected| */
static double distance(const float *found, const float *expected, size_t count) {
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < count; i++) {
    const double d = (double)found[i] - (double)expected[i];
    error += d * d;
    norm += (double)expected[i] * (double)expected[i];
  }
  assert_true(norm > 0.0);
  return sqrt(error / norm);
}

/* How far features and gradients may be from those of the BLAS, and, so that a product that was silently left to the
 * BLAS is noticed, how far they must be. */
struct range {
  int32_t products;
  double least, most;
};
static const struct range ranges[] = {{DLORA_PRODUCTS_PACKED, 0.0, 1e-5}, {DLORA_PRODUCTS_BFLOAT16, 1e-4, 1e-2}};
/* As many of them as this machine has: a processor with bfloat16 has the other kind too. */
static size_t num_ranges;

static int find_products(void **state) {
  (void)state;
  for (num_ranges = 0; num_ranges < 2; num_ranges++) {
    dlora_model *model = NULL;
    dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
    options.products = ranges[num_ranges].products;
    const dlora_status status = dlora_model_load(&model, backbone(), &options);
    dlora_model_destroy(model);
    if (status == DLORA_OK) continue;
    print_message("products %d are left out: %s\n", (int)options.products, dlora_last_error());
    return status == DLORA_ERR_UNSUPPORTED ? 0 : -1;
  }
  return 0;
}

/* At a test's beginning, because it does not come back. */
static void skip_without_products(void) {
  if (num_ranges == 0) skip();
}

static void assert_distance(const struct range *range, double found, double factor) {
  if (found >= range->least && found <= factor * range->most) return;
  fail_msg("products %d: the relative distance is %g, expected %g to %g", (int)range->products, found, range->least,
           factor * range->most);
}

/* ---- refusal ---- */

static void what_cannot_be_had_is_refused(void **state) {
  (void)state;
  dlora_model *model = (dlora_model *)&model;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.products = 3;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, backbone(), &options));
  assert_error_names("products is 3");
  assert_null(model);
  char *before = getenv("DUALLORA_ISA") ? strdup(getenv("DUALLORA_ISA")) : NULL;
  for (options.products = DLORA_PRODUCTS_PACKED; options.products <= DLORA_PRODUCTS_BFLOAT16; options.products++) {
    assert_int_equal(0, setenv("DUALLORA_ISA", "avx2", 1));
    assert_status(DLORA_ERR_UNSUPPORTED, dlora_model_load(&model, backbone(), &options));
    assert_null(model);
  }
  assert_int_equal(0, before ? setenv("DUALLORA_ISA", before, 1) : unsetenv("DUALLORA_ISA"));
  free(before);
}

/* ---- features ---- */

static void features_are_those_of_the_blas(void **state) {
  (void)state;
  skip_without_products();
  const int64_t classes[] = {1, 2, 3};
  struct test_pictures pictures = test_pictures(classes, 3, 5, 1);
  /* Widths that fill whole panels of packed columns, widths that do not, rows that are summed up in three parts, and
   * rows of two parts of which a head has a piece of each. */
  const struct test_shape deep = {64, 2, 2, 1600, 8, 4}, wide = {800, 2, 5, 1000, 8, 4};
  const char *paths[] = {backbone(), test_write_vit("products.safetensors", 3),
                         test_write_vit_of("products-deep.safetensors", 3, &deep),
                         test_write_vit_of("products-wide.safetensors", 3, &wide)};
  for (size_t p = 0; p < 4; p++) {
    dlora_model *reference = load(paths[p], DLORA_PRODUCTS_BLAS, NULL);
    dlora_model_info info = {.struct_size = sizeof info};
    assert_status(DLORA_OK, dlora_model_get_info(reference, &info));
    assert_int_equal(info.products, DLORA_PRODUCTS_BLAS);
    const size_t count = 15 * info.embed_dim;
    float *expected = calloc(count, sizeof *expected), *found = calloc(2 * count, sizeof *found);
    assert_true(expected && found);
    assert_status(DLORA_OK, dlora_model_embed(reference, &pictures.images, expected));
    for (size_t r = 0; r < num_ranges; r++) {
      dlora_model *model = load(paths[p], ranges[r].products, NULL);
      assert_status(DLORA_OK, dlora_model_get_info(model, &info));
      assert_int_equal(info.products, ranges[r].products);
      assert_status(DLORA_OK, dlora_model_embed(model, &pictures.images, found));
      assert_distance(&ranges[r], distance(found, expected, count), 1.0);
      for (size_t i = 0; i < 15; i++) { /* one by one */
        const dlora_images one = test_part(&pictures.images, i, 1);
        assert_status(DLORA_OK, dlora_model_embed(model, &one, found + count + i * info.embed_dim));
      }
      assert_close(found + count, found, count, 1e-5);
      if (ranges[r].products == DLORA_PRODUCTS_BFLOAT16)
        assert_memory_equal(found + count, found, count * sizeof *found);
      dlora_model_destroy(model);
    }
    free(expected);
    free(found);
    dlora_model_destroy(reference);
  }
  test_pictures_free(&pictures);
}

/* ---- gradients ---- */

/* Features and gradients of a bank on every projection of the upper half, in its second task. */
static void run_task(const dlora_model *model, const struct test_pictures *pictures, float **features,
                     float **gradients, size_t *num_features, size_t *num_gradients) {
  enum { RANK = 2, NUM_SITES = 18 };
  dlora_model_info info = {.struct_size = sizeof info};
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  dlora_site sites[NUM_SITES];
  for (size_t i = 0; i < NUM_SITES; i++) {
    const int32_t projection = 1 << (i % 6);
    sites[i] =
        (dlora_site){projection == DLORA_SITE_FC2 ? info.mlp_dim : info.embed_dim,
                     projection == DLORA_SITE_FC1 ? info.mlp_dim : info.embed_dim, 3 + (int32_t)i / 6, projection};
  }
  dlora_bank *bank = NULL;
  assert_status(DLORA_OK, dlora_bank_create(&bank, sites, NUM_SITES, NULL));
  uint32_t random = 7;
  float *a = calloc(2 * RANK * info.mlp_dim, sizeof *a), *parameters = NULL, *current = NULL;
  assert_non_null(a);
  for (size_t task = 0; task < 2; task++) {
    assert_status(DLORA_OK, dlora_bank_begin_task(bank));
    for (size_t i = 0; i < NUM_SITES; i++) {
      for (size_t j = 0; j < 2 * RANK * sites[i].input_dim; j++) a[j] = 0.05f * test_normal(&random);
      assert_status(DLORA_OK, dlora_bank_set_orthogonal(bank, i, a, RANK, NULL));
      assert_status(DLORA_OK, dlora_bank_set_residual(bank, i, a + RANK * sites[i].input_dim, RANK, 0));
    }
    assert_status(DLORA_OK, dlora_bank_get_parameters(bank, &parameters, &current, num_gradients));
    for (size_t i = 0; i < *num_gradients; i++) parameters[i] = 0.05f * test_normal(&random);
    if (task == 0) assert_status(DLORA_OK, dlora_bank_commit_task(bank));
  }
  dlora_session *session = NULL;
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.training = 1;
  options.max_batch = pictures->images.count;
  options.threads = 2;
  assert_status(DLORA_OK, dlora_session_create(&session, model, bank, &options));
  *num_features = pictures->images.count * info.embed_dim;
  *features = calloc(*num_features, sizeof **features);
  *gradients = calloc(*num_gradients, sizeof **gradients);
  float *weights = calloc(*num_features, sizeof *weights); /* d loss / d features */
  assert_true(*features && *gradients && weights);
  for (size_t i = 0; i < *num_features; i++) weights[i] = test_normal(&random);
  assert_status(DLORA_OK, dlora_session_forward(session, &pictures->images,
                                                DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL, NULL,
                                                *features));
  assert_status(DLORA_OK, dlora_session_backward(session, bank, weights));
  memcpy(*gradients, current, *num_gradients * sizeof **gradients);
  dlora_session_destroy(session);
  dlora_bank_destroy(bank);
  free(weights);
  free(a);
}

static void gradients_are_those_of_the_blas(void **state) {
  (void)state;
  skip_without_products();
  const int64_t classes[] = {1, 2, 3};
  struct test_pictures pictures = test_pictures(classes, 3, 3, 1);
  size_t num_features, num_gradients;
  float *features[3], *gradients[3];
  for (size_t i = 0; i <= num_ranges; i++) {
    dlora_model *model = load(backbone(), i == 0 ? DLORA_PRODUCTS_BLAS : ranges[i - 1].products, NULL);
    run_task(model, &pictures, &features[i], &gradients[i], &num_features, &num_gradients);
    dlora_model_destroy(model);
  }
  for (size_t r = 0; r < num_ranges; r++) {
    assert_distance(&ranges[r], distance(features[r + 1], features[0], num_features), 1.0);
    assert_distance(&ranges[r], distance(gradients[r + 1], gradients[0], num_gradients), 3.0);
  }
  for (size_t i = 0; i <= num_ranges; i++) {
    free(features[i]);
    free(gradients[i]);
  }
  test_pictures_free(&pictures);
}

/* ---- learners ---- */

static dlora_learner *learn_two_tasks(const dlora_model *model) {
  dlora_learner_options options = test_quick_options();
  options.threads = 2;
  dlora_learner *learner = test_learner(model, &options);
  test_learn(learner, first_classes, 2, 12, 1, NULL);
  test_learn(learner, second_classes, 2, 12, 2, NULL);
  return learner;
}

static void learning_is_repeatable_and_saved_as_it_is(void **state) {
  (void)state;
  skip_without_products();
  struct test_pictures pictures = test_pictures(second_classes, 2, 6, 9);
  dlora_model *reference = load(backbone(), DLORA_PRODUCTS_BLAS, NULL);
  dlora_learner *expected = learn_two_tasks(reference);
  for (size_t r = 0; r < num_ranges; r++) {
    dlora_model *model = load(backbone(), ranges[r].products, NULL);
    dlora_learner *learner = learn_two_tasks(model), *again = learn_two_tasks(model), *loaded = NULL;
    test_assert_same_learner(learner, again);
    assert_true(test_accuracy(learner, &pictures) > 0.8);
    const char *path = test_temporary("products.checkpoint");
    assert_status(DLORA_OK, dlora_learner_save(learner, path));
    assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
    dlora_prediction saw[12], sees[12];
    assert_status(DLORA_OK, dlora_learner_predict(learner, &pictures.images, saw, NULL));
    assert_status(DLORA_OK, dlora_learner_predict(loaded, &pictures.images, sees, NULL));
    assert_memory_equal(saw, sees, sizeof saw);
    dlora_learner_destroy(loaded);
    /* Checkpoints belong to the weights and not to how their products are done. */
    assert_status(DLORA_OK, dlora_learner_load(&loaded, reference, path, NULL));
    assert_true(test_accuracy(loaded, &pictures) > 0.8);
    assert_status(DLORA_OK, dlora_learner_predict(expected, &pictures.images, sees, NULL));
    for (size_t i = 0; i < 12; i++) assert_int_equal(saw[i].class_id, sees[i].class_id);
    dlora_learner_destroy(loaded);
    dlora_learner_destroy(again);
    dlora_learner_destroy(learner);
    dlora_model_destroy(model);
  }
  dlora_learner_destroy(expected);
  dlora_model_destroy(reference);
  test_pictures_free(&pictures);
}

/* ---- threads ---- */

enum { NUM_THREADS = 4, EACH = 3 };
struct worker {
  const dlora_model *model;
  const dlora_images *images;
  float *features;
  dlora_status status;
};

static void *embed_often(void *user) {
  struct worker *w = user;
  for (size_t i = 0; i < EACH && w->status == DLORA_OK; i++)
    w->status = dlora_model_embed(w->model, w->images, w->features);
  return NULL;
}

static void many_threads_use_one_model(void **state) {
  (void)state;
  skip_without_products();
  struct test_pictures pictures = test_pictures(first_classes, 2, 3, 4);
  const size_t count = 6 * 192;
  float *features = calloc((NUM_THREADS + 1) * count, sizeof *features);
  assert_non_null(features);
  for (size_t r = 0; r < num_ranges; r++) {
    dlora_model *model = load(backbone(), ranges[r].products, NULL);
    assert_status(DLORA_OK, dlora_model_embed(model, &pictures.images, features));
    struct worker workers[NUM_THREADS];
    pthread_t threads[NUM_THREADS];
    for (size_t i = 0; i < NUM_THREADS; i++) {
      workers[i] = (struct worker){model, &pictures.images, features + (i + 1) * count, DLORA_OK};
      assert_int_equal(0, pthread_create(&threads[i], NULL, embed_often, &workers[i]));
    }
    for (size_t i = 0; i < NUM_THREADS; i++) {
      assert_int_equal(0, pthread_join(threads[i], NULL));
      assert_int_equal(DLORA_OK, workers[i].status);
      assert_memory_equal(features, workers[i].features, count * sizeof *features);
    }
    dlora_model_destroy(model);
  }
  free(features);
  test_pictures_free(&pictures);
}

/* ---- failing memory ---- */

static void memory_that_fails_leaves_nothing_behind(void **state) {
  (void)state;
  skip_without_products();
  struct test_pictures pictures = test_pictures(first_classes, 2, 1, 4);
  const char *path = test_write_vit("products.safetensors", 3);
  float expected[2 * VIT_DIM], found[2 * VIT_DIM];
  for (size_t r = 0; r < num_ranges; r++) {
    dlora_model *model = load(path, ranges[r].products, NULL);
    assert_status(DLORA_OK, dlora_model_embed(model, &pictures.images, expected));
    dlora_model_destroy(model);
    size_t failures = 0;
    for (size_t i = 0; failures == i; i++) {
      struct test_memory memory;
      test_memory_start(&memory);
      memory.fail_at = i;
      dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
      options.allocator = &memory.allocator;
      options.products = ranges[r].products;
      options.threads = 1;
      dlora_status status = dlora_model_load(&model, path, &options);
      if (status == DLORA_OK) {
        status = dlora_model_embed(model, &pictures.images, found);
        if (status == DLORA_OK) assert_memory_equal(found, expected, sizeof found);
      }
      if (status != DLORA_OK) assert_status(DLORA_ERR_NO_MEMORY, status);
      failures += status != DLORA_OK;
      dlora_model_destroy(model);
      assert_int_equal(memory.live, 0);
    }
    assert_true(failures > 10);
  }
  test_pictures_free(&pictures);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_cannot_be_had_is_refused),   cmocka_unit_test(features_are_those_of_the_blas),
      cmocka_unit_test(gradients_are_those_of_the_blas), cmocka_unit_test(learning_is_repeatable_and_saved_as_it_is),
      cmocka_unit_test(many_threads_use_one_model),      cmocka_unit_test(memory_that_fails_leaves_nothing_behind),
  };
  return cmocka_run_group_tests(tests, find_products, NULL);
}
