/* Running out of memory: the i-th allocation fails, for every i, in every flow that a program would have. The call that
 * met it says so and leaves its handle as it was; made again with memory it works, and in the end everything is bitwise
 * as if nothing had failed. Nothing leaks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support_model.h"

#if defined(__SANITIZE_ADDRESS__)
enum { STRIDE = 5 }; /* it is several times slower; every allocation is failed in the other builds */
#else
enum { STRIDE = 1 };
#endif
enum { STEPS = 64, COUNT = 8 };
static const int64_t four[] = {1, 2, 3, 4};
static struct test_pictures pictures; /* of classes 1 and 2 */
static dlora_model *model;            /* with the C library's memory */
static size_t all_failed;

static int make_pictures(void **state) {
  (void)state;
  pictures = test_pictures(four, 2, COUNT / 2, 1);
  model = test_load_vit(1, NULL);
  return 0;
}

static int free_pictures(void **state) {
  (void)state;
  print_message("%zu failed allocations in all\n", all_failed);
  dlora_model_destroy(model);
  test_pictures_free(&pictures);
  return 0;
}

/* ---- one run of a flow ---- */

enum kind { NOTHING, BANK, PROJECTOR, PREDICTOR, LEARNER };

struct run {
  struct test_memory memory;
  int clean;              /* no allocation fails */
  size_t failures;        /* calls that have failed: 0 or 1 */
  size_t step;            /* calls so far */
  uint64_t before[STEPS]; /* digest of the handle before each call, as the clean run saw it */
  uint64_t result;        /* digest of all that the flow came to */
};

typedef void flow_fn(struct run *run);

/* FNV-1a */
static void digest(uint64_t *sum, const void *data, size_t size) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < size; i++) *sum = (*sum ^ bytes[i]) * 1099511628211u;
}

static dlora_status save(enum kind kind, const void *handle, const char *path) {
  return kind == BANK        ? dlora_bank_save(handle, path)
         : kind == PROJECTOR ? dlora_projector_save(handle, path)
         : kind == PREDICTOR ? dlora_predictor_save(handle, path)
                             : dlora_learner_save(handle, path);
}

/* Of all that a handle has learnt. Leaves the count of allocations as it is. */
static uint64_t state_of(struct run *run, enum kind kind, const void *handle) {
  const char *path = test_temporary("memory-state.safetensors");
  const size_t total = run->memory.total, fail_at = run->memory.fail_at;
  uint64_t sum = 14695981039346656037u;
  size_t size = 0;
  run->memory.fail_at = SIZE_MAX;
  assert_status(DLORA_OK, save(kind, handle, path));
  unsigned char *bytes = test_read_file(path, &size);
  digest(&sum, bytes, size);
  free(bytes);
  run->memory.total = total;
  run->memory.fail_at = fail_at;
  return sum;
}

static void note_state(struct run *run, enum kind kind, const void *handle) {
  assert_true(run->step < STEPS);
  if (run->clean && kind != NOTHING) run->before[run->step] = state_of(run, kind, handle);
}

/* Of the flow below that discards its task after a failure, which is the last one then. It looks at the sentence
 * itself.
 */
#define OWN_LOOP "learn_until_the_end(learner)"

/* Whether the call failed. From then on there is memory again. */
static int has_failed(struct run *run, dlora_status status, const char *call) {
  if (status == DLORA_OK) return 0;
  const int names_memory = strstr(dlora_last_error(), "memory") != NULL || strcmp(call, OWN_LOOP) == 0;
  if (!names_memory || status != DLORA_ERR_NO_MEMORY || run->clean || run->memory.fail_at == SIZE_MAX) {
    fail_msg("allocation %zu: %s: %s: %s", run->memory.fail_at, call, dlora_status_name(status), dlora_last_error());
  }
  run->memory.fail_at = SIZE_MAX;
  run->failures++;
  return 1;
}

static void check_state(struct run *run, enum kind kind, const void *handle, const char *call) {
  if (kind != NOTHING && state_of(run, kind, handle) != run->before[run->step]) {
    fail_msg("%s has failed and changed its handle", call);
  }
}

/* A call on a handle of which the saved bytes must not change when it fails; it then works. */
#define STEP_ON(kind, handle, call) \
  do { \
    note_state(run, kind, handle); \
    if (has_failed(run, (call), #call)) { \
      check_state(run, kind, handle, #call); \
      assert_status(DLORA_OK, call); \
    } \
    run->step++; \
  } while (0)
#define STEP(call) STEP_ON(NOTHING, NULL, call)
/* A call that creates a handle. */
#define CREATE(handle, call) \
  do { \
    (handle) = (void *)run; \
    if (has_failed(run, (call), #call)) { \
      assert_null(handle); \
      assert_status(DLORA_OK, call); \
    } \
    run->step++; \
  } while (0)
#define RESULT(values, size) digest(&run->result, (values), (size))

/* Saving that fails leaves the old file; what is saved is a result. */
static void save_step(struct run *run, enum kind kind, const void *handle, const char *path) {
  size_t size = 0;
  test_write_file(path, "old", 3);
  if (has_failed(run, save(kind, handle, path), "save")) {
    unsigned char *old = test_read_file(path, &size);
    assert_int_equal(size, 3);
    assert_memory_equal(old, "old", 3);
    free(old);
    assert_status(DLORA_OK, save(kind, handle, path));
  }
  unsigned char *bytes = test_read_file(path, &size);
  RESULT(bytes, size);
  free(bytes);
  run->step++;
}

static void fail_every_allocation(const char *name, flow_fn *flow) {
  struct run *clean = calloc(1, sizeof *clean), *run = calloc(1, sizeof *run);
  size_t tried[2] = {0, 0}, failed = 0;
  assert_non_null(clean);
  assert_non_null(run);
  test_memory_start(&clean->memory);
  clean->clean = 1;
  flow(clean);
  assert_int_equal(clean->memory.live, 0);
  const size_t total = clean->memory.total;
  assert_true(total > 0);
  for (int from_there_on = 0; from_there_on < 2; from_there_on++) { /* alone, or with all that follow in that call */
    for (size_t i = 0; i < total; i += from_there_on ? 7 * STRIDE : STRIDE) {
      memset(run, 0, sizeof *run);
      memcpy(run->before, clean->before, sizeof run->before);
      test_memory_start(&run->memory);
      run->memory.fail_at = i;
      run->memory.fail_on = from_there_on;
      flow(run);
      if (run->memory.live) fail_msg("allocation %zu of %zu: %zu blocks leaked", i, total, (size_t)run->memory.live);
      if (run->result != clean->result) fail_msg("allocation %zu of %zu: other results in the end", i, total);
      assert_int_equal(run->step, clean->step);
      failed += run->failures;
      tried[from_there_on]++;
    }
  }
  print_message("%s: %zu calls, %zu allocations: %zu failed alone, %zu with all that follow\n", name, clean->step,
                total, tried[0], tried[1]);
  all_failed += tried[0] + tried[1];
  assert_int_equal(failed, tried[0] + tried[1]); /* none is passed over in silence */
  free(clean);
  free(run);
}

/* ---- models ---- */

static void embed(struct run *run, const char *path, const dlora_model_options *options) {
  dlora_model *loaded, *in_memory;
  float features[COUNT * VIT_DIM];
  size_t size = 0;
  unsigned char *bytes = test_read_file(path, &size);
  CREATE(loaded, dlora_model_load(&loaded, path, options));
  CREATE(in_memory, dlora_model_load_memory(&in_memory, bytes, size, options));
  dlora_model_info info = {.struct_size = sizeof info};
  assert_status(DLORA_OK, dlora_model_get_info(loaded, &info));
  assert_int_equal(info.embed_dim, VIT_DIM);
  STEP(dlora_model_embed(loaded, &pictures.images, features));
  RESULT(features, sizeof features);
  STEP(dlora_model_embed(in_memory, &pictures.images, features));
  RESULT(features, sizeof features);
  free(bytes);
  dlora_model_destroy(in_memory);
  dlora_model_destroy(loaded);
}

static void load_and_embed(struct run *run) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.allocator = &run->memory.allocator;
  options.threads = 2;
  embed(run, test_temporary("vit-1.safetensors"), &options);
  options.threads = 1;
  embed(run, test_data("tiny_timm_bf16.safetensors"), &options);     /* widened */
  embed(run, test_data("tiny_hf_dinov2_f32.safetensors"), &options); /* put together, layer scale folded in */
  options.image_size = 24;                                           /* positions and pictures resampled */
  embed(run, test_temporary("vit-1.safetensors"), &options);
}

static void models_survive(void **state) {
  (void)state;
  fail_every_allocation("models", load_and_embed);
}

/* ---- parts alone ---- */

static void use_bank(struct run *run) {
  const dlora_site sites[] = {{8, 5, 0, DLORA_SITE_KEY}, {6, 7, 0, DLORA_SITE_FC1}};
  const char *path = test_temporary("memory-bank.safetensors");
  float a[64], x[64], y[64] = {0.0f}, dx[64] = {0.0f}, *gradients = NULL;
  uint32_t random = 2;
  dlora_bank *bank, *loaded;
  dlora_projector *projector;
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  const dlora_projector_options projector_options = {sizeof projector_options, &run->memory.allocator};
  options.allocator = &run->memory.allocator;
  for (size_t i = 0; i < 64; i++) a[i] = x[i] = test_normal(&random);
  CREATE(bank, dlora_bank_create(&bank, sites, 2, &options));
  CREATE(projector, dlora_projector_create(&projector, 6, &projector_options));
  for (size_t task = 0; task < 2; task++) {
    STEP_ON(BANK, bank, dlora_bank_begin_task(bank));
    for (size_t s = 0; s < 2; s++) {
      STEP_ON(BANK, bank, dlora_bank_set_orthogonal(bank, s, a, 2, s ? projector : NULL));
      STEP_ON(BANK, bank, dlora_bank_set_residual(bank, s, a, 3, s == 1));
    }
    STEP(dlora_bank_forward(bank, 1, x, 4, DLORA_TERM_ORTHOGONAL, NULL, 1, y));
    STEP(dlora_bank_get_parameters(bank, NULL, &gradients, NULL));
    STEP(dlora_bank_backward(bank, 1, x, y, 4, DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL, dx));
    RESULT(dx, sizeof dx);
    STEP_ON(BANK, bank, dlora_bank_step(bank, 0.1f));
    STEP_ON(BANK, bank, dlora_bank_commit_task(bank));
    assert_int_equal(dlora_bank_num_tasks(bank), task + 1);
  }
  save_step(run, BANK, bank, path);
  CREATE(loaded, dlora_bank_load(&loaded, path, &options));
  save_step(run, BANK, loaded, path);
  dlora_bank_destroy(loaded);
  dlora_bank_destroy(bank);
  dlora_projector_destroy(projector);
}

static void banks_survive(void **state) {
  (void)state;
  fail_every_allocation("bank", use_bank);
}

static void use_projector(struct run *run) {
  enum { DIM = 10, ROWS = 20 };
  const char *path = test_temporary("memory-projector.safetensors");
  float x[ROWS * DIM], out[ROWS * DIM] = {0.0f};
  size_t found = 0;
  uint32_t random = 3;
  dlora_projector *projector, *copy, *loaded;
  const dlora_projector_options options = {sizeof options, &run->memory.allocator};
  for (size_t i = 0; i < ROWS * DIM; i++) x[i] = test_normal(&random) * (float)(1 + i % 3);
  CREATE(projector, dlora_projector_create(&projector, DIM, &options));
  for (size_t task = 0; task < 3; task++) {
    STEP_ON(PROJECTOR, projector, dlora_projector_observe(projector, x + 20 * task, 5));
    STEP(dlora_projector_unused_directions(projector, 3, out, &found));
    STEP(dlora_projector_task_directions(projector, 0.8f, 3, out, &found));
    STEP(dlora_projector_used_directions(projector, 3, out, &found));
    RESULT(out, sizeof out);
    STEP_ON(PROJECTOR, projector, dlora_projector_commit_task(projector, 0.6f, NULL));
    STEP_ON(PROJECTOR, projector, dlora_projector_calibrate(projector, (int64_t)task, x, ROWS));
  }
  STEP(dlora_projector_route(projector, x, ROWS, out));
  RESULT(out, sizeof out);
  STEP_ON(PROJECTOR, projector, dlora_projector_observe(projector, x, ROWS));
  STEP(dlora_projector_project(projector, x, ROWS));
  RESULT(x, sizeof x);
  CREATE(copy, dlora_projector_clone(&copy, projector));
  STEP_ON(PROJECTOR, copy, dlora_projector_merge_observed(copy, projector));
  STEP_ON(PROJECTOR, copy, dlora_projector_commit_task(copy, 0.9f, NULL));
  save_step(run, PROJECTOR, copy, path);
  CREATE(loaded, dlora_projector_load(&loaded, path, &options));
  save_step(run, PROJECTOR, loaded, path);
  dlora_projector_destroy(loaded);
  dlora_projector_destroy(copy);
  dlora_projector_destroy(projector);
}

static void projectors_survive(void **state) {
  (void)state;
  fail_every_allocation("projector", use_projector);
}

static void use_predictor_with(struct run *run, int32_t readout) {
  enum { DIM = 6, ROWS = 24 };
  const char *path = test_temporary("memory-predictor.safetensors");
  float x[ROWS * DIM], after[ROWS * DIM], out[ROWS * 8] = {0.0f}, weight[8 * DIM] = {0.0f}, bias[8] = {0.0f};
  int64_t labels[ROWS];
  dlora_prediction predictions[ROWS];
  uint32_t random = 4;
  dlora_predictor *predictor, *copy, *loaded;
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.allocator = &run->memory.allocator;
  options.readout = readout;
  options.random_features = 16;
  for (size_t i = 0; i < ROWS * DIM; i++) {
    x[i] = test_normal(&random);
    after[i] = x[i] + 0.1f * test_normal(&random);
  }
  CREATE(predictor, dlora_predictor_create(&predictor, DIM, &options));
  for (int64_t task = 0; task < 2; task++) {
    for (size_t i = 0; i < ROWS; i++) labels[i] = (int64_t)(i % 2) + task;
    STEP_ON(PREDICTOR, predictor, dlora_predictor_observe(predictor, x, labels, ROWS - 6));
    STEP_ON(PREDICTOR, predictor,
            dlora_predictor_observe_held_out(predictor, x + (ROWS - 6) * DIM, labels + ROWS - 6, 6));
    if (task && readout == DLORA_READOUT_GAUSSIAN) {
      STEP_ON(PREDICTOR, predictor, dlora_predictor_compensate_drift(predictor, x, after, ROWS, 0, DIM));
    }
    STEP(dlora_predictor_linear_weights(predictor, 0, DIM, 1, weight, bias));
    STEP_ON(PREDICTOR, predictor, dlora_predictor_commit_task(predictor));
    RESULT(weight, sizeof weight);
  }
  CREATE(copy, dlora_predictor_clone(&copy, predictor));
  STEP_ON(PREDICTOR, copy, dlora_predictor_merge(copy, predictor));
  STEP_ON(PREDICTOR, copy, dlora_predictor_append(copy, predictor));
  STEP(dlora_predictor_posterior(predictor, x, ROWS, out, NULL, NULL, NULL));
  RESULT(out, sizeof out);
  STEP(dlora_predictor_predict(copy, x, ROWS, predictions));
  RESULT(predictions, sizeof predictions);
  save_step(run, PREDICTOR, copy, path);
  CREATE(loaded, dlora_predictor_load(&loaded, path, &options));
  save_step(run, PREDICTOR, loaded, path);
  dlora_predictor_destroy(loaded);
  dlora_predictor_destroy(copy);
  dlora_predictor_destroy(predictor);
}

static void use_gaussians(struct run *run) {
  use_predictor_with(run, DLORA_READOUT_GAUSSIAN);
}

static void use_random_projection(struct run *run) {
  use_predictor_with(run, DLORA_READOUT_RANDOM_PROJECTION);
}

static void predictors_survive(void **state) {
  (void)state;
  fail_every_allocation("predictor, Gaussians", use_gaussians);
  fail_every_allocation("predictor, random projection", use_random_projection);
}

static void use_session(struct run *run) {
  const dlora_site site = {VIT_DIM, VIT_DIM, 1, DLORA_SITE_VALUE};
  const char *path = test_temporary("memory-session.safetensors");
  float a[8 * VIT_DIM], features[COUNT * VIT_DIM], early[COUNT * 2 * VIT_DIM];
  uint32_t random = 5;
  dlora_bank *bank;
  dlora_session *session;
  dlora_bank_options bank_options = DLORA_BANK_OPTIONS_INIT;
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  bank_options.allocator = options.allocator = &run->memory.allocator;
  options.training = 1;
  options.threads = 2;
  for (size_t i = 0; i < 8 * VIT_DIM; i++) a[i] = test_normal(&random);
  CREATE(bank, dlora_bank_create(&bank, &site, 1, &bank_options));
  CREATE(session, dlora_session_create(&session, model, bank, &options));
  for (size_t task = 0; task < 2; task++) {
    STEP_ON(BANK, bank, dlora_bank_begin_task(bank));
    STEP_ON(BANK, bank, dlora_bank_set_orthogonal(bank, 0, a, 4 * (task + 1), NULL));
    STEP_ON(BANK, bank, dlora_bank_set_residual(bank, 0, a, 2, 0));
    STEP(dlora_session_forward(session, &pictures.images, DLORA_TERM_ORTHOGONAL | DLORA_TERM_MERGED, NULL, features));
    STEP(dlora_session_get_early_features(session, early));
    RESULT(early, sizeof early);
    STEP(dlora_session_backward(session, bank, features));
    STEP_ON(BANK, bank, dlora_bank_step(bank, 0.1f));
    STEP_ON(BANK, bank, dlora_bank_commit_task(bank));
    STEP(dlora_session_forward(session, &pictures.images, DLORA_TERM_MERGED, NULL, features));
    RESULT(features, sizeof features);
  }
  save_step(run, BANK, bank, path);
  dlora_session_destroy(session);
  dlora_bank_destroy(bank);
}

static void sessions_survive(void **state) {
  (void)state;
  fail_every_allocation("session", use_session);
}

/* ---- the learner ---- */

static dlora_learner_options small_options(const struct test_memory *memory) {
  dlora_learner_options options = test_quick_options();
  options.allocator = &memory->allocator;
  options.rank_orthogonal = options.rank_residual = 2;
  options.epochs = 1;
  options.batch_size = 8;
  options.micro_batch = 8;
  options.held_out = 0.3f;
  return options;
}

static void predict(struct run *run, const dlora_learner *learner) {
  dlora_prediction predictions[COUNT];
  STEP(dlora_learner_predict(learner, &pictures.images, predictions, NULL));
  RESULT(predictions, sizeof predictions);
}

static void learn_with(struct run *run, const dlora_learner_options *options) {
  dlora_learner *learner;
  CREATE(learner, dlora_learner_create(&learner, model, options));
  for (size_t task = 0; task < 2; task++) {
    STEP_ON(LEARNER, learner, dlora_learner_learn_task(learner, &pictures.images, pictures.labels, NULL));
    assert_int_equal(dlora_learner_num_tasks(learner), task + 1);
  }
  predict(run, learner);
  save_step(run, LEARNER, learner, test_temporary("memory-learnt.safetensors"));
  dlora_learner_destroy(learner);
}

static void learn_two_tasks(struct run *run) {
  dlora_learner_options options = small_options(&run->memory);
  options.untouched_baseline = 1;
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL; /* quick; the other flows have several */
  learn_with(run, &options);
}

static void learning_survives(void **state) {
  (void)state;
  fail_every_allocation("learning two tasks", learn_two_tasks);
}

static void learn_by_energy_with_random_projection(struct run *run) {
  dlora_learner_options options = small_options(&run->memory);
  options.routing = DLORA_ROUTING_ENERGY;
  options.readout = DLORA_READOUT_RANDOM_PROJECTION;
  options.random_features = 20;
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  options.train_orthogonal_a = 1;
  options.train_head = 0;
  options.residual_basis = DLORA_RESIDUAL_RANDOM;
  options.max_observed_images = 5;
  options.threads = 2;
  learn_with(run, &options);
}

static void learning_with_other_options_survives(void **state) {
  (void)state;
  fail_every_allocation("learning with other options", learn_by_energy_with_random_projection);
}

/* A failure before the end discards the task, and the caller begins it again. */
static dlora_status learn_until_the_end(dlora_learner *learner) {
  dlora_status status = dlora_learner_begin_task(learner, 2);
  if (!status) status = dlora_learner_observe(learner, &pictures.images, pictures.labels);
  if (!status) status = dlora_learner_begin_training(learner);
  if (!status) status = dlora_learner_step(learner, &pictures.images, pictures.labels, NULL);
  if (!status) status = dlora_learner_observe_trained(learner, &pictures.images, pictures.labels);
  if (status) {
    assert_error_names("memory");
    assert_status(DLORA_ERR_STATE, dlora_learner_discard_task(learner));
    assert_int_equal(dlora_learner_num_tasks(learner), 0);
  }
  return status;
}

static void learn_step_by_step(struct run *run) {
  dlora_learner *learner;
  const dlora_learner_options options = small_options(&run->memory);
  CREATE(learner, dlora_learner_create(&learner, model, &options));
  STEP_ON(LEARNER, learner, learn_until_the_end(learner));
  STEP(dlora_learner_commit_task(learner, NULL)); /* nothing is lost: it can be called again */
  assert_int_equal(dlora_learner_num_tasks(learner), 1);
  save_step(run, LEARNER, learner, test_temporary("memory-learnt.safetensors"));
  dlora_learner_destroy(learner);
}

static void an_own_loop_survives(void **state) {
  (void)state;
  fail_every_allocation("an own loop", learn_step_by_step);
}

/* Pictures of two sizes in turn. */
static int32_t read_mixed(size_t index, dlora_images *image, void *user) {
  const struct test_pictures *both = user;
  *image = test_part(&both[index % 2].images, index, 1);
  return 0;
}

/* What comes after learning, on a learner that the file below holds. */
static void load_and_use(struct run *run) {
  const char *path = test_temporary("memory-learner.safetensors"), *copy = test_temporary("memory-copy.safetensors");
  dlora_learner *learner;
  dlora_learner_options options = small_options(&run->memory);
  struct test_pictures both[2] = {pictures, test_pictures_sized(four, 2, COUNT / 2, 2, 21, 13, 1)};
  dlora_image_source source = test_source_of(&pictures);
  dlora_evaluation evaluation = DLORA_EVALUATION_INIT;
  dlora_prediction predictions[COUNT];
  int64_t tasks[COUNT] = {0};
  float features[COUNT * VIT_DIM], log_probs[COUNT * 2];
  source.read = read_mixed;
  source.user = both;
  CREATE(learner, dlora_learner_load(&learner, model, path, &options));
  STEP_ON(LEARNER, learner, dlora_learner_predict(learner, &pictures.images, predictions, log_probs));
  RESULT(log_probs, sizeof log_probs);
  STEP_ON(LEARNER, learner, dlora_learner_predict_with_tasks(learner, &pictures.images, tasks, predictions, NULL));
  STEP_ON(LEARNER, learner, dlora_learner_embed(learner, &pictures.images, tasks, features));
  RESULT(features, sizeof features);
  STEP_ON(LEARNER, learner, dlora_learner_evaluate(learner, &source, &evaluation));
  RESULT(&evaluation, sizeof evaluation);
  options.routing = DLORA_ROUTING_EARLY;
  STEP_ON(LEARNER, learner, dlora_learner_configure(learner, &options));
  predict(run, learner);
  STEP_ON(LEARNER, learner, dlora_learner_set_class_name(learner, 1, "one"));
  STEP_ON(LEARNER, learner, dlora_learner_set_class_name(learner, 1, "uno"));
  STEP_ON(LEARNER, learner, dlora_learner_set_class_name(learner, 2, "two"));
  STEP_ON(LEARNER, learner, dlora_learner_set_note(learner, "b", "one"));
  STEP_ON(LEARNER, learner, dlora_learner_set_note(learner, "a", "two"));
  STEP_ON(LEARNER, learner, dlora_learner_set_note(learner, "b", "three"));
  save_step(run, LEARNER, learner, copy);
  STEP_ON(LEARNER, learner, dlora_learner_learn_source(learner, &source, NULL));
  save_step(run, LEARNER, learner, copy);
  dlora_learner_destroy(learner);
  test_pictures_free(&both[1]);
}

static void loading_predicting_evaluating_and_saving_survive(void **state) {
  (void)state;
  struct test_memory memory;
  test_memory_start(&memory);
  const dlora_learner_options options = small_options(&memory);
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &pictures.images, pictures.labels, NULL));
  assert_status(DLORA_OK, dlora_learner_save(learner, test_temporary("memory-learner.safetensors")));
  dlora_learner_destroy(learner);
  assert_int_equal(memory.live, 0);
  fail_every_allocation("load, predict, evaluate, configure, name, save, learn", load_and_use);
}

/* A task that was open when the learner was saved. */
static void load_and_save_open_task(struct run *run) {
  dlora_learner *learner;
  dlora_learner_options options = small_options(&run->memory);
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  options.routing = DLORA_ROUTING_ENERGY;
  CREATE(learner, dlora_learner_load(&learner, model, test_temporary("memory-open.safetensors"), &options));
  save_step(run, LEARNER, learner, test_temporary("memory-copy.safetensors"));
  dlora_learner_destroy(learner);
}

static void saving_and_loading_open_tasks_survive(void **state) {
  (void)state;
  struct test_memory memory;
  test_memory_start(&memory);
  dlora_learner_options options = small_options(&memory);
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  options.routing = DLORA_ROUTING_ENERGY;
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 3));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &pictures.images, pictures.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(learner));
  assert_status(DLORA_OK, dlora_learner_step(learner, &pictures.images, pictures.labels, NULL));
  assert_status(DLORA_OK, dlora_learner_save(learner, test_temporary("memory-open.safetensors")));
  dlora_learner_destroy(learner);
  assert_int_equal(memory.live, 0);
  fail_every_allocation("load and save an open task", load_and_save_open_task);
}

/* ---- one allocator for each handle ---- */

static void every_handle_uses_its_own_allocator_alone(void **state) {
  (void)state;
  struct test_memory memories[2];
  for (size_t i = 0; i < 2; i++) test_memory_start(&memories[i]);
  dlora_model *own = test_load_vit(1, &memories[0].allocator);
  const size_t of_model = memories[0].total;
  assert_true(of_model > 0);
  const dlora_learner_options options = small_options(&memories[1]);
  dlora_learner *learner = test_learner(own, &options);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &pictures.images, pictures.labels, NULL));
  assert_int_equal(memories[0].total, of_model);
  assert_true(memories[1].total > 100);
  dlora_learner_destroy(learner);
  assert_int_equal(memories[1].live, 0);
  dlora_model_destroy(own);
  assert_int_equal(memories[0].live, 0);
}

int main(void) {
  /* Thousands of files are written and synced, which a disk takes its time for, and as many large blocks come and go.
   */
  if (!getenv("TMPDIR") && access("/dev/shm", W_OK | X_OK) == 0) setenv("TMPDIR", "/dev/shm", 1);
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  assert_true(mallopt(M_MMAP_THRESHOLD, 1 << 25));
  assert_true(mallopt(M_TRIM_THRESHOLD, 1 << 28));
#endif
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(models_survive),
      cmocka_unit_test(banks_survive),
      cmocka_unit_test(projectors_survive),
      cmocka_unit_test(predictors_survive),
      cmocka_unit_test(sessions_survive),
      cmocka_unit_test(learning_survives),
      cmocka_unit_test(learning_with_other_options_survives),
      cmocka_unit_test(an_own_loop_survives),
      cmocka_unit_test(loading_predicting_evaluating_and_saving_survive),
      cmocka_unit_test(saving_and_loading_open_tasks_survive),
      cmocka_unit_test(every_handle_uses_its_own_allocator_alone),
  };
  return cmocka_run_group_tests(tests, make_pictures, free_pictures);
}
