/* A predictor's life: saving, loading, cloning, discarding, bad input, damaged files and failed allocations.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_predictor.h"

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
                 {"predictor.shrinkage", &tiny},
                 {"predictor.shrinkage", &negative},
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
      cmocka_unit_test(saved_and_loaded_predictor_is_bitwise_the_same),
      cmocka_unit_test(clone_copies_the_open_task_too),
      cmocka_unit_test(discard_forgets_the_open_task),
      cmocka_unit_test(held_out_features_alone_make_a_task),
      cmocka_unit_test(bad_input_is_refused_and_changes_nothing),
      cmocka_unit_test(damaged_files_are_refused),
      cmocka_unit_test(every_failed_allocation_leaves_the_predictor_as_it_was),
  };
  return cmocka_run_group_tests_name("predictor_life", tests, NULL, NULL);
}
