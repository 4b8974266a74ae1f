/* Running out of memory: the i-th allocation fails, for every i, in every flow that a program would have. The status
 * says so, nothing leaks, and what was there before still works. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { LIMIT = 2000 }; /* allocations of a flow that are failed one by one; more of them in strides */
static const int64_t four[] = {1, 2, 3, 4};
static struct test_pictures pictures; /* of classes 1 and 2 */
static dlora_model *model;            /* with the C library's memory */

static int make_pictures(void **state) {
  (void)state;
  pictures = test_pictures(four, 2, 6, 1);
  model = test_load_vit(1, NULL);
  return 0;
}

static int free_pictures(void **state) {
  (void)state;
  dlora_model_destroy(model);
  test_pictures_free(&pictures);
  return 0;
}

/* A flow runs with the allocator and cleans up. It returns its first failure; what it finds changed by a failed call is
 * an assertion of its own. */
typedef dlora_status flow_fn(struct test_memory *memory);

#define TRY(call) \
  do { \
    status = (call); \
    if (status != DLORA_OK) goto done; \
  } while (0)

static void fail_every_allocation(flow_fn *flow) {
  struct test_memory memory;
  test_memory_start(&memory);
  assert_status(DLORA_OK, flow(&memory));
  assert_int_equal(memory.live, 0);
  const size_t total = memory.total, stride = total > LIMIT ? total / LIMIT + 1 : 1;
  size_t failed = 0, tried = 0;
  assert_true(total > 0);
  for (int from_there_on = 0; from_there_on < 2; from_there_on++) {
    for (size_t i = 0; i < total; i += from_there_on ? 7 * stride : stride) {
      test_memory_start(&memory);
      memory.fail_at = i;
      memory.fail_on = from_there_on;
      const dlora_status status = flow(&memory);
      if (memory.live) fail_msg("allocation %zu of %zu failed: %zu blocks leaked", i, total, (size_t)memory.live);
      if (status != DLORA_OK && status != DLORA_ERR_NO_MEMORY) {
        fail_msg("allocation %zu of %zu failed: %s: %s", i, total, dlora_status_name(status), dlora_last_error());
      }
      if (status == DLORA_ERR_NO_MEMORY) {
        assert_error_names("memory");
        failed++;
      }
      tried++;
    }
  }
  assert_true(failed > tried * 9 / 10); /* an allocation that may fail in silence is a rare thing */
}

/* ---- the parts ---- */

static dlora_status load_and_embed(struct test_memory *memory) {
  dlora_model *loaded = NULL;
  dlora_status status = DLORA_OK;
  float features[12 * VIT_DIM];
  size_t size = 0;
  unsigned char *bytes = test_read_file(test_temporary("vit-1.safetensors"), &size);
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.allocator = &memory->allocator;
  options.threads = 2;
  TRY(dlora_model_load(&loaded, test_temporary("vit-1.safetensors"), &options));
  TRY(dlora_model_embed(loaded, &pictures.images, features));
  dlora_model_destroy(loaded);
  loaded = NULL;
  options.image_size = 24; /* positions are resampled */
  TRY(dlora_model_load_memory(&loaded, bytes, size, &options));
  TRY(dlora_model_embed(loaded, &pictures.images, features));
done:
  free(bytes);
  dlora_model_destroy(loaded);
  return status;
}

static void loading_and_embedding_survive(void **state) {
  (void)state;
  fail_every_allocation(load_and_embed);
}

static dlora_status use_bank(struct test_memory *memory) {
  const dlora_site sites[] = {{8, 5, 0, DLORA_SITE_KEY}, {6, 7, 0, DLORA_SITE_FC1}};
  const char *path = test_temporary("memory-bank.safetensors");
  float a[64], x[64], y[64] = {0.0f}, dx[64] = {0.0f}, *gradients = NULL;
  uint32_t random = 2;
  dlora_bank *bank = NULL, *loaded = NULL;
  dlora_projector *projector = NULL;
  dlora_status status = DLORA_OK;
  dlora_bank_options options = DLORA_BANK_OPTIONS_INIT;
  const dlora_projector_options projector_options = {sizeof projector_options, &memory->allocator};
  options.allocator = &memory->allocator;
  for (size_t i = 0; i < 64; i++) a[i] = x[i] = test_normal(&random);
  TRY(dlora_bank_create(&bank, sites, 2, &options));
  TRY(dlora_projector_create(&projector, 6, &projector_options));
  for (size_t task = 0; task < 2; task++) {
    TRY(dlora_bank_begin_task(bank));
    for (size_t s = 0; s < 2; s++) {
      TRY(dlora_bank_set_orthogonal(bank, s, a, 2, s ? projector : NULL));
      TRY(dlora_bank_set_residual(bank, s, a, 3, s == 1));
    }
    TRY(dlora_bank_forward(bank, 1, x, 4, DLORA_TERM_ORTHOGONAL, NULL, 1, y));
    TRY(dlora_bank_get_parameters(bank, NULL, &gradients, NULL));
    TRY(dlora_bank_backward(bank, 1, x, y, 4, DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL, dx));
    TRY(dlora_bank_step(bank, 0.1f));
    status = dlora_bank_end_task(bank);
    assert_int_equal(dlora_bank_num_tasks(bank), task + (status == DLORA_OK));
    if (status != DLORA_OK) { /* the task is still open, and can be closed when there is memory again */
      const size_t fail_at = memory->fail_at;
      memory->fail_at = SIZE_MAX;
      assert_status(DLORA_OK, dlora_bank_end_task(bank));
      assert_int_equal(dlora_bank_num_tasks(bank), task + 1);
      memory->fail_at = fail_at;
      goto done;
    }
  }
  TRY(dlora_bank_save(bank, path));
  TRY(dlora_bank_load(&loaded, path, &options));
done:
  dlora_bank_destroy(loaded);
  dlora_bank_destroy(bank);
  dlora_projector_destroy(projector);
  return status;
}

static void banks_survive(void **state) {
  (void)state;
  fail_every_allocation(use_bank);
}

static dlora_status use_projector(struct test_memory *memory) {
  enum { DIM = 10, ROWS = 20 };
  const char *path = test_temporary("memory-projector.safetensors");
  float x[ROWS * DIM], out[ROWS * DIM];
  size_t found = 0;
  uint32_t random = 3;
  dlora_projector *projector = NULL, *copy = NULL, *loaded = NULL;
  dlora_status status = DLORA_OK;
  dlora_projector_options options = {sizeof options, &memory->allocator};
  for (size_t i = 0; i < ROWS * DIM; i++) x[i] = test_normal(&random) * (float)(1 + i % 3);
  TRY(dlora_projector_create(&projector, DIM, &options));
  for (size_t task = 0; task < 3; task++) {
    TRY(dlora_projector_observe(projector, x + 20 * task, 5));
    TRY(dlora_projector_free_directions(projector, 3, out, &found));
    TRY(dlora_projector_own_directions(projector, 0.8f, 3, out, &found));
    TRY(dlora_projector_used_directions(projector, 3, out, &found));
    const size_t size = dlora_projector_size(projector);
    status = dlora_projector_commit_task(projector, 0.6f, NULL);
    assert_int_equal(dlora_projector_num_tasks(projector), task + (status == DLORA_OK));
    if (status != DLORA_OK) assert_int_equal(dlora_projector_size(projector), size);
    TRY(status);
    TRY(dlora_projector_calibrate(projector, task, x, ROWS));
  }
  TRY(dlora_projector_relevance(projector, x, ROWS, out));
  TRY(dlora_projector_project(projector, x, ROWS));
  TRY(dlora_projector_observe(projector, x, ROWS));
  TRY(dlora_projector_clone(&copy, projector));
  TRY(dlora_projector_merge_observed(copy, projector));
  TRY(dlora_projector_save(projector, path));
  TRY(dlora_projector_load(&loaded, path, &options));
done:
  dlora_projector_destroy(loaded);
  dlora_projector_destroy(copy);
  dlora_projector_destroy(projector);
  return status;
}

static void projectors_survive(void **state) {
  (void)state;
  fail_every_allocation(use_projector);
}

static dlora_status use_predictor_with(struct test_memory *memory, int32_t readout) {
  enum { DIM = 6, ROWS = 24 };
  const char *path = test_temporary("memory-predictor.safetensors");
  float x[ROWS * DIM], after[ROWS * DIM], out[ROWS * 8], weight[8 * DIM], bias[8];
  int64_t labels[ROWS];
  dlora_prediction predictions[ROWS];
  uint32_t random = 4;
  dlora_predictor *predictor = NULL, *copy = NULL, *loaded = NULL;
  dlora_status status = DLORA_OK;
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.allocator = &memory->allocator;
  options.readout = readout;
  options.random_features = 16;
  for (size_t i = 0; i < ROWS * DIM; i++) {
    x[i] = test_normal(&random);
    after[i] = x[i] + 0.1f * test_normal(&random);
  }
  TRY(dlora_predictor_create(&predictor, DIM, &options));
  for (int64_t task = 0; task < 2; task++) {
    for (size_t i = 0; i < ROWS; i++) labels[i] = (int64_t)(i % 2) + task;
    TRY(dlora_predictor_observe(predictor, x, labels, ROWS - 6));
    TRY(dlora_predictor_observe_held_out(predictor, x + (ROWS - 6) * DIM, labels + ROWS - 6, 6));
    if (task) TRY(dlora_predictor_compensate_drift(predictor, x, after, ROWS, 0, DIM));
    status = dlora_predictor_commit_task(predictor);
    assert_int_equal(dlora_predictor_num_tasks(predictor), task + (status == DLORA_OK));
    TRY(status);
  }
  TRY(dlora_predictor_clone(&copy, predictor));
  TRY(dlora_predictor_append(copy, predictor));
  TRY(dlora_predictor_merge(copy, copy) == DLORA_ERR_NO_MEMORY ? DLORA_ERR_NO_MEMORY : DLORA_OK);
  TRY(dlora_predictor_posterior(predictor, x, ROWS, out, NULL, NULL, NULL));
  TRY(dlora_predictor_predict(predictor, x, ROWS, predictions));
  TRY(dlora_predictor_linear_weights(predictor, 0, DIM, 0, weight, bias));
  TRY(dlora_predictor_save(predictor, path));
  TRY(dlora_predictor_load(&loaded, path, &options));
done:
  dlora_predictor_destroy(loaded);
  dlora_predictor_destroy(copy);
  dlora_predictor_destroy(predictor);
  return status;
}

static dlora_status use_gaussians(struct test_memory *memory) {
  return use_predictor_with(memory, DLORA_READOUT_GAUSSIAN);
}

static dlora_status use_random_projection(struct test_memory *memory) {
  return use_predictor_with(memory, DLORA_READOUT_RANDOM_PROJECTION);
}

static void predictors_survive(void **state) {
  (void)state;
  fail_every_allocation(use_gaussians);
  fail_every_allocation(use_random_projection);
}

static dlora_status use_pass(struct test_memory *memory) {
  const dlora_site site = {VIT_DIM, VIT_DIM, 1, DLORA_SITE_VALUE};
  float a[8 * VIT_DIM], features[12 * VIT_DIM];
  uint32_t random = 5;
  dlora_bank *bank = NULL;
  dlora_pass *pass = NULL;
  dlora_status status = DLORA_OK;
  dlora_bank_options bank_options = DLORA_BANK_OPTIONS_INIT;
  dlora_pass_options options = DLORA_PASS_OPTIONS_INIT;
  bank_options.allocator = options.allocator = &memory->allocator;
  options.training = 1;
  options.threads = 2;
  for (size_t i = 0; i < 8 * VIT_DIM; i++) a[i] = test_normal(&random);
  TRY(dlora_bank_create(&bank, &site, 1, &bank_options));
  TRY(dlora_pass_create(&pass, model, bank, &options));
  for (size_t task = 0; task < 2; task++) {
    TRY(dlora_bank_begin_task(bank));
    TRY(dlora_bank_set_orthogonal(bank, 0, a, 4 * (task + 1), NULL));
    TRY(dlora_bank_set_residual(bank, 0, a, 2, 0));
    TRY(dlora_pass_forward(pass, &pictures.images, DLORA_TERM_ORTHOGONAL | DLORA_TERM_MERGED, NULL, features));
    TRY(dlora_pass_backward(pass, bank, features));
    TRY(dlora_bank_step(bank, 0.1f));
    TRY(dlora_bank_end_task(bank));
    status = dlora_pass_forward(pass, &pictures.images, DLORA_TERM_MERGED, NULL, features);
    if (status != DLORA_OK) { /* the pass is mended by the next call */
      const size_t fail_at = memory->fail_at;
      float again[12 * VIT_DIM];
      memory->fail_at = SIZE_MAX;
      assert_status(DLORA_OK, dlora_pass_forward(pass, &pictures.images, DLORA_TERM_MERGED, NULL, features));
      assert_status(DLORA_OK, dlora_pass_forward(pass, &pictures.images, DLORA_TERM_MERGED, NULL, again));
      assert_memory_equal(again, features, sizeof again);
      memory->fail_at = fail_at;
      goto done;
    }
  }
done:
  dlora_pass_destroy(pass);
  dlora_bank_destroy(bank);
  return status;
}

static void passes_survive(void **state) {
  (void)state;
  fail_every_allocation(use_pass);
}

/* ---- the learner: a failed task leaves it as it was ---- */

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

/* With memory again, learning and predicting work. */
static void check_still_works(dlora_learner *learner, struct test_memory *memory, size_t num_tasks) {
  const size_t fail_at = memory->fail_at;
  dlora_prediction predictions[12];
  memory->fail_at = SIZE_MAX;
  assert_int_equal(dlora_learner_num_tasks(learner), num_tasks);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &pictures.images, pictures.labels, NULL));
  assert_status(DLORA_OK, dlora_learner_predict(learner, &pictures.images, predictions, NULL));
  assert_int_equal(dlora_learner_num_tasks(learner), num_tasks + 1);
  memory->fail_at = fail_at;
}

static dlora_status learn_two_tasks(struct test_memory *memory) {
  dlora_learner *learner = NULL;
  dlora_status status = DLORA_OK;
  dlora_learner_options options = small_options(memory);
  options.frozen_baseline = 1;
  options.layers = DLORA_LAYERS_FINAL; /* quick; the other flows have several */
  TRY(dlora_learner_create(&learner, model, &options));
  for (size_t task = 0; task < 2; task++) {
    status = dlora_learner_learn_task(learner, &pictures.images, pictures.labels, NULL);
    if (status != DLORA_OK) {
      check_still_works(learner, memory, task);
      goto done;
    }
  }
done:
  dlora_learner_destroy(learner);
  return status;
}

static void learning_survives(void **state) {
  (void)state;
  fail_every_allocation(learn_two_tasks);
}

static dlora_status learn_by_energy_with_random_projection(struct test_memory *memory) {
  dlora_learner *learner = NULL;
  dlora_status status = DLORA_OK;
  dlora_prediction predictions[12];
  dlora_learner_options options = small_options(memory);
  options.relevance = DLORA_RELEVANCE_ENERGY;
  options.readout = DLORA_READOUT_RANDOM_PROJECTION;
  options.random_features = 20;
  options.layers = DLORA_LAYERS_FINAL;
  options.train_orthogonal_a = 1;
  options.train_head = 0;
  options.residual_basis = DLORA_BASIS_FREE;
  options.max_observed_images = 5;
  options.threads = 2;
  TRY(dlora_learner_create(&learner, model, &options));
  for (size_t task = 0; task < 2; task++) {
    TRY(dlora_learner_learn_task(learner, &pictures.images, pictures.labels, NULL));
  }
  TRY(dlora_learner_predict(learner, &pictures.images, predictions, NULL));
done:
  dlora_learner_destroy(learner);
  return status;
}

static void learning_with_other_options_survives(void **state) {
  (void)state;
  fail_every_allocation(learn_by_energy_with_random_projection);
}

static dlora_status learn_step_by_step(struct test_memory *memory) {
  dlora_learner *learner = NULL;
  dlora_status status = DLORA_OK;
  const dlora_learner_options options = small_options(memory);
  TRY(dlora_learner_create(&learner, model, &options));
  TRY(dlora_learner_begin_task(learner, 2));
  TRY(dlora_learner_observe(learner, &pictures.images, pictures.labels));
  TRY(dlora_learner_step(learner, &pictures.images, pictures.labels, NULL));
  TRY(dlora_learner_observe(learner, &pictures.images, pictures.labels));
  status = dlora_learner_end_task(learner, NULL);
  if (status != DLORA_OK) { /* nothing is lost: the task can be ended when there is memory again */
    const size_t fail_at = memory->fail_at;
    memory->fail_at = SIZE_MAX;
    assert_status(DLORA_OK, dlora_learner_end_task(learner, NULL));
    assert_int_equal(dlora_learner_num_tasks(learner), 1);
    memory->fail_at = fail_at;
  }
done:
  dlora_learner_destroy(learner);
  return status;
}

static void an_own_loop_survives(void **state) {
  (void)state;
  fail_every_allocation(learn_step_by_step);
}

/* What comes after learning, on a learner that the file below holds. */
static dlora_status load_and_use(struct test_memory *memory) {
  const char *path = test_temporary("memory-learner.safetensors"), *copy = test_temporary("memory-copy.safetensors");
  dlora_learner *learner = NULL;
  dlora_status status = DLORA_OK;
  dlora_learner_options options = small_options(memory);
  const dlora_image_source source = test_source_of(&pictures);
  dlora_evaluation evaluation = DLORA_EVALUATION_INIT;
  dlora_prediction predictions[12];
  int64_t tasks[12] = {0};
  float features[12 * VIT_DIM], log_probs[12 * 2];
  TRY(dlora_learner_load(&learner, model, path, &options));
  TRY(dlora_learner_predict(learner, &pictures.images, predictions, log_probs));
  TRY(dlora_learner_predict_given(learner, &pictures.images, tasks, predictions, NULL));
  TRY(dlora_learner_embed(learner, &pictures.images, tasks, features));
  TRY(dlora_learner_evaluate(learner, &source, &evaluation));
  options.relevance = DLORA_RELEVANCE_FINAL;
  TRY(dlora_learner_configure(learner, &options));
  TRY(dlora_learner_predict(learner, &pictures.images, predictions, NULL));
  TRY(dlora_learner_set_class_name(learner, 1, "one"));
  TRY(dlora_learner_set_class_name(learner, 1, "uno"));
  TRY(dlora_learner_set_class_name(learner, 2, "two"));
  TRY(dlora_learner_save(learner, copy));
done:
  if (learner && status != DLORA_OK) {
    const char *name = dlora_learner_get_class_name(learner, 1);
    assert_true(!name || strcmp(name, "one") == 0 || strcmp(name, "uno") == 0);
    check_still_works(learner, memory, 1);
  }
  dlora_learner_destroy(learner);
  return status;
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
  fail_every_allocation(load_and_use);
}

/* A task that was open when the learner was saved. */
static dlora_status load_and_go_on(struct test_memory *memory) {
  dlora_learner *learner = NULL;
  dlora_status status = DLORA_OK;
  dlora_learner_options options = small_options(memory);
  options.layers = DLORA_LAYERS_FINAL;
  options.relevance = DLORA_RELEVANCE_ENERGY;
  TRY(dlora_learner_load(&learner, model, test_temporary("memory-open.safetensors"), &options));
  TRY(dlora_learner_step(learner, &pictures.images, pictures.labels, NULL));
done:
  dlora_learner_destroy(learner);
  return status;
}

static void saving_and_loading_open_tasks_survive(void **state) {
  (void)state;
  struct test_memory memory;
  test_memory_start(&memory);
  dlora_learner_options options = small_options(&memory);
  options.layers = DLORA_LAYERS_FINAL;
  options.relevance = DLORA_RELEVANCE_ENERGY;
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 3));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &pictures.images, pictures.labels));
  assert_status(DLORA_OK, dlora_learner_step(learner, &pictures.images, pictures.labels, NULL));
  size_t failed = 0;
  dlora_status status = DLORA_ERR_NO_MEMORY;
  for (; status != DLORA_OK; failed++) {
    const size_t live = memory.live;
    memory.fail_at = memory.total + failed;
    status = dlora_learner_save(learner, test_temporary("memory-open.safetensors"));
    if (status != DLORA_OK) assert_status(DLORA_ERR_NO_MEMORY, status);
    assert_int_equal(memory.live, live);
  }
  assert_true(failed > 50);
  dlora_learner_destroy(learner);
  assert_int_equal(memory.live, 0);
  fail_every_allocation(load_and_go_on);
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
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(loading_and_embedding_survive),
      cmocka_unit_test(banks_survive),
      cmocka_unit_test(projectors_survive),
      cmocka_unit_test(predictors_survive),
      cmocka_unit_test(passes_survive),
      cmocka_unit_test(learning_survives),
      cmocka_unit_test(learning_with_other_options_survives),
      cmocka_unit_test(an_own_loop_survives),
      cmocka_unit_test(loading_predicting_evaluating_and_saving_survive),
      cmocka_unit_test(saving_and_loading_open_tasks_survive),
      cmocka_unit_test(every_handle_uses_its_own_allocator_alone),
  };
  return cmocka_run_group_tests(tests, make_pictures, free_pictures);
}
