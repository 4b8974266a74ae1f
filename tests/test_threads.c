/* Threads, fork, and the process around the library: shared const handles, a sentence for each thread, children that go
 * on predicting, and nothing process-wide that is changed.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <dlfcn.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support_model.h"

enum { WORKERS = 6, COUNT = 24, CLASSES = 4 };
static const int64_t four[] = {1, 2, 3, 4};
static struct test_pictures pictures; /* [COUNT] of four classes */
static dlora_model *model;
static dlora_learner *learner; /* two tasks; with residual adapters that a gate chooses */

static dlora_learner_options options_of(uint64_t seed) {
  dlora_learner_options options = test_quick_options();
  options.seed = seed;
  options.epochs = 1;
  return options;
}

static void learn_two_tasks(dlora_learner *own) {
  for (size_t t = 0; t < 2; t++) test_learn(own, four + 2 * t, 2, 12, (uint32_t)t + 1, NULL);
}

static int make_learner(void **state) {
  (void)state;
  const dlora_learner_options options = options_of(3);
  pictures = test_pictures(four, CLASSES, COUNT / CLASSES, 9);
  model = test_load_vit(1, NULL);
  learner = test_learner(model, &options);
  learn_two_tasks(learner);
  return 0;
}

static int free_learner(void **state) {
  (void)state;
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
  test_pictures_free(&pictures);
  return 0;
}

/* ---- one const learner, one const model, and handles of one's own ---- */

/* All that one thread finds; bitwise the same in every thread. */
struct found {
  dlora_prediction predictions[COUNT], given[COUNT], by_own_predictor[COUNT];
  float log_probs[COUNT * CLASSES], features[COUNT * VIT_DIM], adapted[COUNT * VIT_DIM], projected[COUNT * VIT_DIM];
  double scatter[VIT_DIM * VIT_DIM];
};

struct worker {
  size_t index;
  size_t rounds;
  struct found found;
  size_t failures; /* cmocka's assertions belong to the main thread */
  char first_failure[256];
};

static void expect(struct worker *worker, int condition, const char *what) {
  if (condition) return;
  if (!worker->failures++)
    snprintf(worker->first_failure, sizeof worker->first_failure, "%s (%s)", what, dlora_last_error());
}
#define EXPECT(condition) expect(worker, (condition), #condition)
#define EXPECT_OK(call) EXPECT((call) == DLORA_OK)

static void use_shared_and_own(struct worker *worker, struct found *found) {
  int64_t tasks[COUNT];
  for (size_t i = 0; i < COUNT; i++) tasks[i] = (int64_t)(i % 2);
  EXPECT_OK(dlora_learner_predict(learner, &pictures.images, found->predictions, found->log_probs));
  EXPECT_OK(dlora_learner_predict_with_tasks(learner, &pictures.images, tasks, found->given, NULL));
  EXPECT_OK(dlora_learner_embed(learner, &pictures.images, tasks, found->adapted));
  EXPECT_OK(dlora_model_embed(model, &pictures.images, found->features));

  dlora_predictor *predictor = NULL;
  dlora_projector *projector = NULL;
  EXPECT_OK(dlora_predictor_create(&predictor, VIT_DIM, NULL));
  EXPECT_OK(dlora_predictor_observe(predictor, found->features, pictures.labels, COUNT));
  EXPECT_OK(dlora_predictor_commit_task(predictor));
  EXPECT_OK(dlora_predictor_get_scatter(predictor, found->scatter));
  EXPECT_OK(dlora_predictor_predict(predictor, found->features, COUNT, found->by_own_predictor));
  EXPECT_OK(dlora_projector_create(&projector, VIT_DIM, NULL));
  EXPECT_OK(dlora_projector_observe(projector, found->features, COUNT));
  EXPECT_OK(dlora_projector_commit_task(projector, 0.7f, NULL));
  memcpy(found->projected, found->adapted, sizeof found->projected);
  EXPECT_OK(dlora_projector_project(projector, found->projected, COUNT));
  dlora_projector_destroy(projector);
  dlora_predictor_destroy(predictor);
}

static void *work(void *user) {
  struct worker *worker = user;
  for (size_t i = 0; i < worker->rounds && !worker->failures; i++) use_shared_and_own(worker, &worker->found);
  return NULL;
}

/* Runs a function in many threads and reports what the first unhappy one found. */
static void run_workers(struct worker *workers, void *(*run)(void *worker)) {
  pthread_t threads[WORKERS];
  for (size_t i = 0; i < WORKERS; i++) {
    workers[i].index = i;
    assert_int_equal(pthread_create(&threads[i], NULL, run, &workers[i]), 0);
  }
  for (size_t i = 0; i < WORKERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (size_t i = 0; i < WORKERS; i++) {
    if (workers[i].failures) fail_msg("thread %zu: %s", i, workers[i].first_failure);
  }
}

static void const_handles_are_shared_and_own_ones_are_independent(void **state) {
  (void)state;
  struct worker alone = {.rounds = 1}, *workers = calloc(WORKERS, sizeof *workers);
  assert_non_null(workers);
  for (size_t i = 0; i < WORKERS; i++) workers[i].rounds = 5;
  size_t before = 0, after = 0;
  unsigned char *saved = test_saved(learner, &before);
  work(&alone);
  assert_int_equal(alone.failures, 0);
  run_workers(workers, work);
  for (size_t i = 0; i < WORKERS; i++) assert_memory_equal(&workers[i].found, &alone.found, sizeof alone.found);
  unsigned char *now = test_saved(learner, &after); /* const is const */
  assert_int_equal(before, after);
  assert_memory_equal(now, saved, before);
  free(now);
  free(saved);
  free(workers);
}

/* ---- learners side by side on one model ---- */

static dlora_learner *side_by_side[WORKERS];

static void *learn(void *user) {
  struct worker *worker = user;
  dlora_learner *own = side_by_side[worker->index];
  dlora_prediction predictions[COUNT];
  struct test_pictures p[2];
  for (size_t t = 0; t < 2; t++) {
    p[t] = test_pictures(four + 2 * t, 2, 12, (uint32_t)t + 1);
    EXPECT_OK(dlora_learner_learn_task(own, &p[t].images, p[t].labels, NULL));
    EXPECT_OK(dlora_learner_predict(own, &pictures.images, predictions, NULL));
    EXPECT_OK(dlora_learner_predict(learner, &pictures.images, predictions, NULL));
    test_pictures_free(&p[t]);
  }
  return NULL;
}

static void learners_that_share_a_model_learn_as_if_alone(void **state) {
  (void)state;
  struct worker *workers = calloc(WORKERS, sizeof *workers);
  assert_non_null(workers);
  for (size_t i = 0; i < WORKERS; i++) {
    const dlora_learner_options options = options_of(i);
    side_by_side[i] = test_learner(model, &options);
  }
  run_workers(workers, learn);
  for (size_t i = 0; i < WORKERS; i++) {
    const dlora_learner_options options = options_of(i);
    dlora_learner *alone = test_learner(model, &options);
    learn_two_tasks(alone);
    test_assert_same_learner(side_by_side[i], alone);
    dlora_learner_destroy(alone);
    dlora_learner_destroy(side_by_side[i]);
  }
  free(workers);
}

/* ---- errors ---- */

static void *fail_repeatedly(void *user) {
  struct worker *worker = user;
  char path[64];
  dlora_model *loaded = NULL;
  dlora_prediction prediction;
  dlora_images none = pictures.images;
  none.count = 0;
  EXPECT(strcmp(dlora_last_error(), "") == 0);
  for (size_t i = 0; i < 200; i++) {
    snprintf(path, sizeof path, "/nonexistent/%zu-%zu", worker->index, i);
    EXPECT(dlora_model_load(&loaded, path, NULL) == DLORA_ERR_IO);
    EXPECT(strstr(dlora_last_error(), path) != NULL);
    sched_yield();
    EXPECT(strstr(dlora_last_error(), path) != NULL);
    EXPECT(dlora_learner_predict(learner, &none, &prediction, NULL) == DLORA_ERR_ARGUMENT);
    EXPECT(strstr(dlora_last_error(), "dlora_learner_predict") != NULL);
    EXPECT(strstr(dlora_build_info(), "kernels") != NULL);
  }
  return NULL;
}

static void every_thread_reads_its_own_errors(void **state) {
  (void)state;
  struct worker *workers = calloc(WORKERS, sizeof *workers);
  assert_non_null(workers);
  dlora_model *loaded = NULL;
  assert_status(DLORA_ERR_IO, dlora_model_load(&loaded, "/nonexistent/main", NULL));
  run_workers(workers, fail_repeatedly);
  assert_error_names("/nonexistent/main");
  free(workers);
}

/* ---- fork ---- */

/* What a child does; returns its exit code. */
typedef int child_fn(void *user);

/* A child that hangs is killed and fails the test. */
static void run_child(child_fn *run, void *user) {
  fflush(NULL);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) _exit(run(user));
  int result = 0;
  for (size_t waited = 0; waitpid(child, &result, WNOHANG) == 0; waited++) {
    if (waited == 6000) {
      kill(child, SIGKILL);
      waitpid(child, &result, 0);
      fail_msg("the child hangs");
    }
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
  if (!WIFEXITED(result) || WEXITSTATUS(result)) fail_msg("the child ended with %#x", (unsigned)result);
}

struct family {
  dlora_learner *learner;
  dlora_predictor *predictor;
  dlora_prediction expected[COUNT], expected_of_predictor[COUNT];
  const char *path;
};

enum { WIDE = 300, ROWS = COUNT };
static float wide[ROWS * WIDE];

static int differs(const dlora_prediction *a, const dlora_prediction *b) {
  for (size_t i = 0; i < COUNT; i++) { /* the BLAS has fewer threads in the child, which may round otherwise */
    const float difference = a[i].class_probability - b[i].class_probability;
    if (a[i].class_id != b[i].class_id || a[i].task != b[i].task || !(difference < 1e-4f && difference > -1e-4f))
      return 1;
  }
  return 0;
}

static int use_in_child(void *user) {
  struct family *family = user;
  dlora_prediction predictions[COUNT];
  if (dlora_learner_predict(family->learner, &pictures.images, predictions, NULL)) return 2;
  if (differs(predictions, family->expected)) return 3;
  if (dlora_predictor_predict(family->predictor, wide, ROWS, predictions)) return 4;
  if (differs(predictions, family->expected_of_predictor)) return 5;
  /* A handle made here, and learning on. */
  dlora_learner *own = NULL;
  dlora_learner_options options = {.struct_size = sizeof options};
  if (dlora_learner_get_options(family->learner, &options)) return 6;
  if (dlora_learner_load(&own, model, family->path, &options)) return 7;
  if (dlora_learner_predict(own, &pictures.images, predictions, NULL)) return 8;
  if (differs(predictions, family->expected)) return 9;
  if (dlora_learner_learn_task(own, &pictures.images, pictures.labels, NULL)) return 10;
  if (dlora_predictor_observe(family->predictor, wide, pictures.labels, ROWS)) return 11;
  if (dlora_predictor_commit_task(family->predictor)) return 12;
  dlora_learner_destroy(own);
  return 0;
}

static int use_in_grandchild(void *user) {
  const pid_t child = fork();
  if (child == 0) _exit(use_in_child(user));
  int result = 1;
  if (child < 0 || waitpid(child, &result, 0) != child) return 20;
  return WIFEXITED(result) ? WEXITSTATUS(result) : 21;
}

static void children_of_fork_predict_and_learn(void **state) {
  (void)state;
  struct family family = {.path = test_temporary("fork.safetensors")};
  dlora_learner_options options = options_of(5);
  uint32_t random = 6;
  options.threads = 2;
  options.micro_batch = 8;
  family.learner = test_learner(model, &options);
  for (size_t i = 0; i < ROWS * WIDE; i++) wide[i] = test_normal(&random);
  assert_status(DLORA_OK, dlora_predictor_create(&family.predictor, WIDE, NULL));
  assert_status(DLORA_OK, dlora_predictor_observe(family.predictor, wide, pictures.labels, ROWS));
  assert_status(DLORA_OK, dlora_predictor_commit_task(family.predictor));
  learn_two_tasks(family.learner); /* by now OpenMP and the BLAS have threads */
  assert_status(DLORA_OK, dlora_learner_save(family.learner, family.path));
  assert_status(DLORA_OK, dlora_learner_predict(family.learner, &pictures.images, family.expected, NULL));
  assert_status(DLORA_OK, dlora_predictor_predict(family.predictor, wide, ROWS, family.expected_of_predictor));
  run_child(use_in_child, &family);
  run_child(use_in_grandchild, &family);
  /* The parent goes on. */
  dlora_prediction predictions[COUNT];
  assert_status(DLORA_OK, dlora_learner_predict(family.learner, &pictures.images, predictions, NULL));
  assert_memory_equal(predictions, family.expected, sizeof predictions);
  dlora_predictor_destroy(family.predictor);
  dlora_learner_destroy(family.learner);
}

/* ---- the process ---- */

struct process {
  char locale[512], folder[512];
  struct sigaction handlers[64];
  sigset_t blocked;
  int rounding, traps, files, counts[5];
  unsigned vector_control; /* of the processor: flushing of denormals, traps, rounding */
  mode_t mask;
  cpu_set_t processors;
  size_t environment;
};

/* A function of a library that may be there. */
static int call_int(const char *name) {
  union {
    void *object;
    int (*function)(void);
  } found = {.object = dlsym(RTLD_DEFAULT, name)};
  return found.object ? found.function() : -1;
}

static int count_files(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = 0;
  if (!folder) return -1;
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

extern char **environ;

static struct process look_around(void) {
  struct process p;
  memset(&p, 0, sizeof p);
  snprintf(p.locale, sizeof p.locale, "%s", setlocale(LC_ALL, NULL));
  assert_non_null(getcwd(p.folder, sizeof p.folder));
  for (int i = 1; i < 64; i++) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    if (sigaction(i, NULL, &action) == 0) {
      p.handlers[i].sa_handler = action.sa_handler;
      p.handlers[i].sa_flags = action.sa_flags;
    }
  }
  assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &p.blocked), 0);
  p.rounding = fegetround();
  p.traps = fegetexcept();
#if defined(__SSE__)
  p.vector_control = __builtin_ia32_stmxcsr() & ~0x3Fu; /* without the flags of what has happened */
#endif
  p.mask = umask(0);
  umask(p.mask);
  assert_int_equal(sched_getaffinity(0, sizeof p.processors, &p.processors), 0);
  for (char **variable = environ; *variable; variable++) {
    for (const char *c = *variable; *c; c++) p.environment = p.environment * 31 + (unsigned char)*c;
  }
  static const char *const names[] = {"openblas_get_num_threads", "omp_get_max_threads", "omp_get_dynamic",
                                      "omp_get_max_active_levels", "bli_thread_get_num_threads"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) p.counts[i] = call_int(names[i]);
  p.files = count_files();
  return p;
}

static void use_everything(void) {
  const char *path = test_temporary("process.safetensors");
  dlora_learner_options options = options_of(8);
  options.threads = 2;
  options.micro_batch = 8;
  dlora_model *own_model = test_load_vit(2, NULL);
  dlora_learner *own = test_learner(own_model, &options), *loaded = NULL;
  learn_two_tasks(own);
  assert_status(DLORA_OK, dlora_learner_save(own, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, own_model, path, &options));
  (void)test_accuracy(loaded, &pictures);
  const dlora_image_source source = test_source_of(&pictures);
  dlora_evaluation evaluation = DLORA_EVALUATION_INIT;
  assert_status(DLORA_OK, dlora_learner_evaluate(loaded, &source, &evaluation));
  test_write_file(path, "damaged", 7); /* errors must not change the process either */
  dlora_learner *none = NULL;
  assert_status(DLORA_ERR_FORMAT, dlora_learner_load(&none, own_model, path, NULL));
  assert_status(DLORA_ERR_IO, dlora_learner_save(own, "/nonexistent/folder/file"));
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(own);
  dlora_model_destroy(own_model);
}

static void on_signal(int number) {
  (void)number;
}

static void nothing_process_wide_changes(void **state) {
  (void)state;
  /* Settings that are not the usual ones, so that a reset to those is seen too. */
  struct sigaction own = {.sa_handler = on_signal}, old_action;
  const mode_t old_mask = umask(0137);
  assert_int_equal(sigaction(SIGPIPE, &own, &old_action), 0);
  assert_int_equal(fesetround(FE_UPWARD), 0);
  srand(77);
  const int first_random = rand();
  srand(77);
  /* Nothing is printed: both streams go to a file meanwhile. */
  const char *printed = test_temporary("printed.txt");
  fflush(NULL);
  const int streams[] = {dup(1), dup(2)};
  FILE *file = fopen(printed, "w");
  assert_non_null(file);
  (void)look_around(); /* the first one opens what stays open */
  const struct process before = look_around();
  dup2(fileno(file), 1);
  dup2(fileno(file), 2);
  use_everything();
  fflush(NULL);
  dup2(streams[0], 1);
  dup2(streams[1], 2);
  const struct process after = look_around();
  fclose(file);
  close(streams[0]);
  close(streams[1]);
  const int next_random = rand();
  fesetround(FE_TONEAREST);
  umask(old_mask);
  sigaction(SIGPIPE, &old_action, NULL);

  assert_int_equal(next_random, first_random);
  size_t size = 1;
  free(test_read_file(printed, &size));
  assert_int_equal(size, 0);
  assert_string_equal(after.locale, before.locale);
  assert_string_equal(after.folder, before.folder);
  assert_memory_equal(after.handlers, before.handlers, sizeof before.handlers);
  assert_memory_equal(&after.blocked, &before.blocked, sizeof before.blocked);
  assert_int_equal(after.rounding, before.rounding);
  assert_int_equal(after.traps, before.traps);
  assert_int_equal(after.vector_control, before.vector_control);
  assert_int_equal(after.mask, before.mask);
  assert_memory_equal(&after.processors, &before.processors, sizeof before.processors);
  assert_int_equal(after.environment, before.environment);
  assert_memory_equal(after.counts, before.counts, sizeof before.counts);
  assert_int_equal(after.files, before.files);
}

/* ---- small stacks ---- */

/* OpenBLAS puts 60 KiB of thread-local memory into it and wants some for its products. Sanitizers pad every frame. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_PADDING 16
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define STACK_PADDING 16
#endif
#endif
#ifndef STACK_PADDING
#define STACK_PADDING 1
#endif
enum { SMALL_STACK = STACK_PADDING * 192 * 1024 };

/* Everything that may be called in a task's life, by a thread with little stack. */
static void *use_small_stack(void *user) {
  int *failed = user;
  dlora_learner_options options = options_of(5);
  dlora_learner *own = NULL, *loaded = NULL;
  dlora_evaluation evaluation = DLORA_EVALUATION_INIT;
  dlora_prediction *found = calloc(COUNT, sizeof *found);
  const dlora_image_source source = test_source_of(&pictures);
  const char *path = test_temporary("small_stack.safetensors");
  options.routing = DLORA_ROUTING_ENERGY; /* the way that keeps most while it learns */
  options.readout = DLORA_READOUT_RANDOM_PROJECTION;
  options.random_features = 100;
  options.untouched_baseline = 1;
  dlora_status status = found ? dlora_learner_create(&own, model, &options) : DLORA_ERR_NO_MEMORY;
  for (int task = 0; status == DLORA_OK && task < 2; task++) {
    status = dlora_learner_learn_source(own, &source, NULL);
  }
  if (status == DLORA_OK) status = dlora_learner_evaluate(own, &source, &evaluation);
  if (status == DLORA_OK) status = dlora_learner_predict(own, &pictures.images, found, NULL);
  if (status == DLORA_OK) status = dlora_learner_begin_task(own, 1);
  if (status == DLORA_OK) status = dlora_learner_observe(own, &pictures.images, pictures.labels);
  if (status == DLORA_OK) status = dlora_learner_begin_training(own);
  if (status == DLORA_OK) status = dlora_learner_step(own, &pictures.images, pictures.labels, NULL);
  if (status == DLORA_OK) status = dlora_learner_save(own, path);
  if (status == DLORA_OK) status = dlora_learner_load(&loaded, model, path, NULL);
  if (status == DLORA_OK) status = dlora_learner_predict(loaded, &pictures.images, found, NULL);
  *failed = status != DLORA_OK;
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(own);
  free(found);
  return NULL;
}

static void threads_with_small_stacks_learn_and_predict(void **state) {
  (void)state;
  pthread_t thread;
  pthread_attr_t attributes;
  int failed = 1;
  assert_int_equal(pthread_attr_init(&attributes), 0);
  assert_int_equal(pthread_attr_setstacksize(&attributes, SMALL_STACK), 0);
  assert_int_equal(pthread_create(&thread, &attributes, use_small_stack, &failed), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(pthread_attr_destroy(&attributes), 0);
  assert_int_equal(failed, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(const_handles_are_shared_and_own_ones_are_independent),
      cmocka_unit_test(learners_that_share_a_model_learn_as_if_alone),
      cmocka_unit_test(every_thread_reads_its_own_errors),
      cmocka_unit_test(threads_with_small_stacks_learn_and_predict),
      cmocka_unit_test(nothing_process_wide_changes),
      cmocka_unit_test(children_of_fork_predict_and_learn),
  };
  return cmocka_run_group_tests(tests, make_learner, free_learner);
}
