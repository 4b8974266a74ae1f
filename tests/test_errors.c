/* Statuses, the sentence of the last error, structs of other versions, and the caller's allocator.
 * SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* ---- statuses ---- */

static void every_status_has_its_name(void **state) {
  (void)state;
#define CHECK_NAME(name, code, when, action) assert_string_equal(dlora_status_name(code), "DLORA_" #name);
  DLORA_STATUS_LIST(CHECK_NAME)
#undef CHECK_NAME
  assert_string_equal(dlora_status_name(-1), "DLORA_ERR_?");
  assert_string_equal(dlora_status_name(DLORA_STATUS_COUNT_), "DLORA_ERR_?");
  assert_string_equal(dlora_status_name(INT32_MAX), "DLORA_ERR_?");
  assert_string_equal(dlora_status_name(INT32_MIN), "DLORA_ERR_?");
}

/* Bindings in other languages have these numbers written down. */
static void codes_never_change(void **state) {
  (void)state;
  const dlora_status codes[] = {DLORA_OK,
                                DLORA_ERR_ARGUMENT,
                                DLORA_ERR_NO_MEMORY,
                                DLORA_ERR_STRUCT_SIZE,
                                DLORA_ERR_STATE,
                                DLORA_ERR_IO,
                                DLORA_ERR_FORMAT,
                                DLORA_ERR_MISMATCH,
                                DLORA_ERR_NOT_FINITE,
                                DLORA_ERR_CANCELLED,
                                DLORA_ERR_UNSUPPORTED,
                                DLORA_ERR_NUMERIC};
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) assert_int_equal(codes[i], i);
}

static void version_is_the_headers(void **state) {
  (void)state;
  char expected[32];
  snprintf(expected, sizeof expected, "%d.%d.%d", DLORA_VERSION_MAJOR, DLORA_VERSION_MINOR, DLORA_VERSION_PATCH);
  assert_string_equal(dlora_version(), expected);
}

/* ---- the last error ---- */

static int32_t go_on(const dlora_tensor_info *info, void *user) {
  (void)info;
  (void)user;
  return 0;
}

struct meeting {
  pthread_barrier_t barrier;
  int failures;
};

/* cmocka's assertions belong to the main thread. */
static void expect(struct meeting *meeting, int condition) {
  if (!condition) meeting->failures++;
}

static void *fail_in_another_thread(void *user) {
  struct meeting *meeting = user;
  expect(meeting, strcmp(dlora_last_error(), "") == 0);
  pthread_barrier_wait(&meeting->barrier); /* the main thread fails here */
  pthread_barrier_wait(&meeting->barrier);
  expect(meeting, strcmp(dlora_last_error(), "") == 0);
  expect(meeting, dlora_inspect("/nonexistent/theirs", go_on, NULL) == DLORA_ERR_IO);
  expect(meeting, strstr(dlora_last_error(), "/nonexistent/theirs") != NULL);
  pthread_barrier_wait(&meeting->barrier);
  return NULL;
}

static void last_error_belongs_to_its_thread(void **state) {
  (void)state;
  struct meeting meeting = {.failures = 0};
  pthread_t thread;
  assert_int_equal(pthread_barrier_init(&meeting.barrier, NULL, 2), 0);
  assert_int_equal(pthread_create(&thread, NULL, fail_in_another_thread, &meeting), 0);
  pthread_barrier_wait(&meeting.barrier);
  assert_status(DLORA_ERR_IO, dlora_inspect("/nonexistent/ours", go_on, NULL));
  pthread_barrier_wait(&meeting.barrier);
  pthread_barrier_wait(&meeting.barrier);
  assert_error_names("/nonexistent/ours");
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(meeting.failures, 0);
  pthread_barrier_destroy(&meeting.barrier);
}

static void last_error_outlives_later_successes(void **state) {
  (void)state;
  dlora_projector *projector = NULL;
  assert_status(DLORA_ERR_IO, dlora_inspect("/nonexistent/file", go_on, NULL));
  assert_status(DLORA_OK, dlora_projector_create(&projector, 4, NULL));
  dlora_projector_destroy(projector);
  assert_error_names("/nonexistent/file");
}

static void null_arguments_are_named(void **state) {
  (void)state;
  assert_status(DLORA_ERR_ARGUMENT, dlora_inspect(NULL, go_on, NULL));
  assert_error_names("path");
  assert_status(DLORA_ERR_ARGUMENT, dlora_inspect("file", NULL, NULL));
  assert_error_names("visit");
}

static void long_sentences_are_cut_between_characters(void **state) {
  (void)state;
  char path[4 + 2 * 1500 + 1];
  /* Whatever the offset, a two-byte character lies across the place of the cut for one of these. */
  for (size_t shift = 0; shift < 2; shift++) {
    size_t used = 0;
    while (used < 1 + shift) path[used++] = '/';
    for (int i = 0; i < 1500; i++) {
      path[used++] = '\xC3';
      path[used++] = '\xBC';
    }
    path[used] = '\0';
    assert_status(DLORA_ERR_IO, dlora_inspect(path, go_on, NULL));
    const char *sentence = dlora_last_error();
    const size_t length = strlen(sentence);
    assert_true(length > 500 && length < 1100);
    assert_string_equal(sentence + length - 3, "...");
    assert_int_equal((unsigned char)sentence[length - 4], 0xBC);
  }
}

/* ---- structs of other versions ---- */

enum { BEYOND = 24, FILL = 0xA5 };

typedef dlora_status init_fn(void *options, size_t size);

#define INIT_ADAPTER(name) \
  static dlora_status init_##name(void *members, size_t size) { \
    return dlora_##name##_init(members, size); \
  }
INIT_ADAPTER(model_options)
INIT_ADAPTER(bank_options)
INIT_ADAPTER(projector_options)
INIT_ADAPTER(predictor_options)
INIT_ADAPTER(session_options)
INIT_ADAPTER(learner_options)
INIT_ADAPTER(image_source)
INIT_ADAPTER(profile)
INIT_ADAPTER(model_info)
INIT_ADAPTER(option_info)
INIT_ADAPTER(task_report)
INIT_ADAPTER(evaluation)
INIT_ADAPTER(open_task)

static void check_init(init_fn *init, const void *expected, size_t size) {
  unsigned char *buffer = malloc(size + 2 * BEYOND);
  assert_non_null(buffer);

  memset(buffer, FILL, size + 2 * BEYOND);
  assert_status(DLORA_OK, init(buffer, size));
  assert_memory_equal(buffer, expected, size);
  for (size_t i = size; i < size + 2 * BEYOND; i++) assert_int_equal(buffer[i], FILL);

  /* A program built against an earlier header: only its members are touched. */
  const size_t shorter = sizeof(size_t) + sizeof(void *);
  size_t told = 0;
  memset(buffer, FILL, size + 2 * BEYOND);
  assert_status(DLORA_OK, init(buffer, shorter));
  memcpy(&told, buffer, sizeof told);
  assert_int_equal(told, shorter);
  assert_memory_equal(buffer + sizeof told, (const unsigned char *)expected + sizeof told, shorter - sizeof told);
  for (size_t i = shorter; i < size; i++) assert_int_equal(buffer[i], FILL);

  /* A program built against a later header: what this library does not know is zero. */
  memset(buffer, FILL, size + 2 * BEYOND);
  assert_status(DLORA_OK, init(buffer, size + BEYOND));
  memcpy(&told, buffer, sizeof told);
  assert_int_equal(told, size + BEYOND);
  assert_memory_equal(buffer + sizeof told, (const unsigned char *)expected + sizeof told, size - sizeof told);
  for (size_t i = size; i < size + BEYOND; i++) assert_int_equal(buffer[i], 0);
  for (size_t i = size + BEYOND; i < size + 2 * BEYOND; i++) assert_int_equal(buffer[i], FILL);

  memset(buffer, FILL, size + 2 * BEYOND);
  assert_status(DLORA_ERR_STRUCT_SIZE, init(buffer, 0));
  assert_status(DLORA_ERR_STRUCT_SIZE, init(buffer, sizeof(size_t) - 1));
  assert_status(DLORA_ERR_STRUCT_SIZE, init(buffer, SIZE_MAX));
  assert_status(DLORA_ERR_ARGUMENT, init(NULL, size));
  for (size_t i = 0; i < size + 2 * BEYOND; i++) assert_int_equal(buffer[i], FILL);
  free(buffer);
}

static void init_functions_set_what_the_macros_set(void **state) {
  (void)state;
  const dlora_model_options model = DLORA_MODEL_OPTIONS_INIT;
  const dlora_bank_options bank = DLORA_BANK_OPTIONS_INIT;
  const dlora_projector_options projector = DLORA_PROJECTOR_OPTIONS_INIT;
  const dlora_predictor_options predictor = DLORA_PREDICTOR_OPTIONS_INIT;
  const dlora_session_options session = DLORA_SESSION_OPTIONS_INIT;
  const dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  const dlora_profile profile = DLORA_PROFILE_INIT;
  const dlora_task_report report = DLORA_TASK_REPORT_INIT;
  const dlora_evaluation evaluation = DLORA_EVALUATION_INIT;
  const dlora_open_task task = DLORA_OPEN_TASK_INIT;
  check_init(init_model_options, &model, sizeof model);
  check_init(init_bank_options, &bank, sizeof bank);
  check_init(init_projector_options, &projector, sizeof projector);
  check_init(init_predictor_options, &predictor, sizeof predictor);
  check_init(init_session_options, &session, sizeof session);
  check_init(init_image_source, &source, sizeof source);
  check_init(init_profile, &profile, sizeof profile);
  check_init(init_task_report, &report, sizeof report);
  check_init(init_evaluation, &evaluation, sizeof evaluation);
  check_init(init_open_task, &task, sizeof task);
}

static void init_functions_without_a_macro_set_every_member(void **state) {
  (void)state;
  dlora_learner_options learner;
  memset(&learner, 0, sizeof learner);
  assert_status(DLORA_OK, dlora_learner_options_init(&learner, sizeof learner));
  assert_int_equal(learner.struct_size, sizeof learner);
  check_init(init_learner_options, &learner, sizeof learner);
  const dlora_model_info model = {.struct_size = sizeof model};
  const dlora_option_info option = {.struct_size = sizeof option};
  check_init(init_model_info, &model, sizeof model);
  check_init(init_option_info, &option, sizeof option);
}

static void options_of_a_later_version_are_refused_only_if_set(void **state) {
  (void)state;
  struct {
    dlora_projector_options known;
    unsigned char beyond[BEYOND];
  } later = {DLORA_PROJECTOR_OPTIONS_INIT, {0}};
  dlora_projector *projector = NULL;
  later.known.struct_size = sizeof later;
  assert_status(DLORA_OK, dlora_projector_create(&projector, 4, &later.known));
  dlora_projector_destroy(projector);
  for (size_t i = 0; i < BEYOND; i++) {
    memset(later.beyond, 0, sizeof later.beyond);
    later.beyond[i] = 1;
    projector = (dlora_projector *)(void *)&later;
    assert_status(DLORA_ERR_STRUCT_SIZE, dlora_projector_create(&projector, 4, &later.known));
    assert_null(projector);
  }
}

static void options_of_an_earlier_version_get_defaults(void **state) {
  (void)state;
  dlora_projector *projector = NULL;
  dlora_projector_options earlier;
  /* Not among the members that its size covers. */
  memset(&earlier, FILL, sizeof earlier);
  earlier.struct_size = sizeof(size_t);
  assert_status(DLORA_OK, dlora_projector_create(&projector, 4, &earlier));
  dlora_projector_destroy(projector);
}

static void options_without_their_size_are_refused(void **state) {
  (void)state;
  const size_t impossible[] = {0, 1, sizeof(size_t) - 1, (size_t)1 << 40, SIZE_MAX};
  for (size_t i = 0; i < sizeof impossible / sizeof impossible[0]; i++) {
    dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
    dlora_projector *projector = (dlora_projector *)(void *)&options;
    options.struct_size = impossible[i];
    assert_status(DLORA_ERR_STRUCT_SIZE, dlora_projector_create(&projector, 4, &options));
    assert_error_names("struct_size");
    assert_null(projector);
  }
}

/* ---- the caller's allocator ---- */

struct pool {
  size_t calls;
  size_t alive;
  size_t fail_at; /* this call gives NULL */
  size_t largest;
};

static void *pool_allocate(size_t size, void *user) {
  struct pool *pool = user;
  if (pool->calls++ == pool->fail_at) return NULL;
  if (size > pool->largest) pool->largest = size;
  void *memory = malloc(size);
  if (memory) {
    pool->alive++;
    /* Fresh memory is not zero in a long-running program. */
    memset(memory, FILL, size);
  }
  return memory;
}

static void pool_release(void *pointer, void *user) {
  struct pool *pool = user;
  assert_non_null(pointer);
  pool->alive--;
  free(pointer);
}

static void half_an_allocator_is_refused(void **state) {
  (void)state;
  dlora_projector *projector = NULL;
  dlora_allocator allocator = {pool_allocate, NULL, NULL};
  dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
  options.allocator = &allocator;
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_create(&projector, 4, &options));
  assert_error_names("release");
  allocator = (dlora_allocator){NULL, pool_release, NULL};
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_create(&projector, 4, &options));
  assert_error_names("allocate");
}

static void every_failed_allocation_is_reported_and_leaks_nothing(void **state) {
  (void)state;
  struct pool pool = {.fail_at = SIZE_MAX};
  dlora_allocator allocator = {pool_allocate, pool_release, &pool};
  dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
  dlora_projector *projector = NULL;
  options.allocator = &allocator;
  assert_status(DLORA_OK, dlora_projector_create(&projector, 100, &options));
  assert_true(pool.alive > 0);
  dlora_projector_destroy(projector);
  assert_int_equal(pool.alive, 0);
  const size_t calls = pool.calls;
  for (size_t i = 0; i < calls; i++) {
    pool = (struct pool){.fail_at = i};
    projector = (dlora_projector *)(void *)&pool;
    assert_status(DLORA_ERR_NO_MEMORY, dlora_projector_create(&projector, 100, &options));
    assert_error_names("bytes");
    assert_null(projector);
    assert_int_equal(pool.alive, 0);
  }
}

static void sizes_beyond_the_address_space_are_no_memory_or_refused(void **state) {
  (void)state;
  struct pool pool = {.fail_at = SIZE_MAX};
  dlora_allocator allocator = {pool_allocate, pool_release, &pool};
  dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
  options.allocator = &allocator;
  const size_t dims[] = {SIZE_MAX, SIZE_MAX / 8, (size_t)1 << 61, (size_t)1 << 60};
  for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
    dlora_projector *projector = (dlora_projector *)(void *)&pool;
    const dlora_status status = dlora_projector_create(&projector, dims[i], &options);
    assert_true(status == DLORA_ERR_NO_MEMORY || status == DLORA_ERR_ARGUMENT);
    assert_null(projector);
    assert_int_equal(pool.alive, 0);
  }
  /* No product of sizes wrapped around to something small that could be had. */
  assert_true(pool.largest < (size_t)1 << 20);
}

static void destroying_nothing_is_fine(void **state) {
  (void)state;
  dlora_model_destroy(NULL);
  dlora_bank_destroy(NULL);
  dlora_projector_destroy(NULL);
  dlora_predictor_destroy(NULL);
  dlora_session_destroy(NULL);
  dlora_learner_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_status_has_its_name),
      cmocka_unit_test(codes_never_change),
      cmocka_unit_test(version_is_the_headers),
      cmocka_unit_test(last_error_belongs_to_its_thread),
      cmocka_unit_test(last_error_outlives_later_successes),
      cmocka_unit_test(null_arguments_are_named),
      cmocka_unit_test(long_sentences_are_cut_between_characters),
      cmocka_unit_test(init_functions_set_what_the_macros_set),
      cmocka_unit_test(init_functions_without_a_macro_set_every_member),
      cmocka_unit_test(options_of_a_later_version_are_refused_only_if_set),
      cmocka_unit_test(options_of_an_earlier_version_get_defaults),
      cmocka_unit_test(options_without_their_size_are_refused),
      cmocka_unit_test(half_an_allocator_is_refused),
      cmocka_unit_test(every_failed_allocation_is_reported_and_leaks_nothing),
      cmocka_unit_test(sizes_beyond_the_address_space_are_no_memory_or_refused),
      cmocka_unit_test(destroying_nothing_is_fine),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
