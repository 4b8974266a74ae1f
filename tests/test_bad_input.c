/* What users get wrong, on every public function: the right status, the culprit's name, and a handle that is as it was.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

static const int64_t four[] = {1, 2, 3, 4};

/* One of everything, each with something learnt. */
static struct {
  dlora_model *model;
  dlora_bank *bank; /* on block 1's values; a task is open */
  dlora_projector *projector;
  dlora_predictor *predictor; /* a task is open */
  dlora_session *session;     /* of model and bank, in training, after a forward pass */
  dlora_learner *learner;     /* one task */
  struct test_pictures pictures;
  unsigned char *saved[4]; /* bank, projector, predictor, learner */
  size_t sizes[4];
} all;

enum { DIM = VIT_DIM, COUNT = 20 };
static float floats[COUNT * 3 * DIM];

static unsigned char *save_part(int part, size_t *size) {
  const char *path = test_temporary("part.safetensors");
  assert_status(DLORA_OK, part == 0   ? dlora_bank_save(all.bank, path)
                          : part == 1 ? dlora_projector_save(all.projector, path)
                          : part == 2 ? dlora_predictor_save(all.predictor, path)
                                      : dlora_learner_save(all.learner, path));
  return test_read_file(path, size);
}

static int make_everything(void **state) {
  (void)state;
  uint32_t random = 3;
  const dlora_site site = {DIM, DIM, 1, DLORA_SITE_VALUE};
  int64_t labels[COUNT];
  for (size_t i = 0; i < COUNT; i++) labels[i] = (int64_t)(i % 2);
  for (size_t i = 0; i < COUNT * 3 * DIM; i++) floats[i] = test_normal(&random);
  all.model = test_load_vit(1, NULL);
  assert_status(DLORA_OK, dlora_bank_create(&all.bank, &site, 1, NULL));
  assert_status(DLORA_OK, dlora_bank_begin_task(all.bank));
  assert_status(DLORA_OK, dlora_bank_set_residual(all.bank, 0, floats, 2, 0));
  assert_status(DLORA_OK, dlora_bank_commit_task(all.bank));
  assert_status(DLORA_OK, dlora_bank_begin_task(all.bank));
  assert_status(DLORA_OK, dlora_bank_set_residual(all.bank, 0, floats, 2, 0));
  assert_status(DLORA_OK, dlora_projector_create(&all.projector, DIM, NULL));
  assert_status(DLORA_OK, dlora_projector_observe(all.projector, floats, 3));
  assert_status(DLORA_OK, dlora_projector_commit_task(all.projector, 0.9f, NULL));
  assert_status(DLORA_OK, dlora_projector_observe(all.projector, floats, COUNT));
  assert_status(DLORA_OK, dlora_predictor_create(&all.predictor, DIM, NULL));
  assert_status(DLORA_OK, dlora_predictor_observe(all.predictor, floats, labels, COUNT));
  assert_status(DLORA_OK, dlora_predictor_commit_task(all.predictor));
  assert_status(DLORA_OK, dlora_predictor_observe(all.predictor, floats, labels, COUNT));
  all.pictures = test_pictures(four, 2, COUNT / 2, 1);
  dlora_session_options session = DLORA_SESSION_OPTIONS_INIT;
  session.training = 1;
  session.max_batch = COUNT;
  assert_status(DLORA_OK, dlora_session_create(&all.session, all.model, all.bank, &session));
  assert_status(DLORA_OK, dlora_session_forward(all.session, &all.pictures.images, 0, NULL, NULL));
  const dlora_learner_options options = test_quick_options();
  all.learner = test_learner(all.model, &options);
  test_learn(all.learner, four, 2, COUNT / 2, 1, NULL);
  for (int i = 0; i < 4; i++) all.saved[i] = save_part(i, &all.sizes[i]);
  return 0;
}

static int free_everything(void **state) {
  (void)state;
  for (int i = 0; i < 4; i++) free(all.saved[i]);
  test_pictures_free(&all.pictures);
  dlora_learner_destroy(all.learner);
  dlora_session_destroy(all.session);
  dlora_predictor_destroy(all.predictor);
  dlora_projector_destroy(all.projector);
  dlora_bank_destroy(all.bank);
  dlora_model_destroy(all.model);
  return 0;
}

/* After every test: no handle has changed. */
static int nothing_changed(void **state) {
  (void)state;
  for (int i = 0; i < 4; i++) {
    size_t size = 0;
    unsigned char *now = save_part(i, &size);
    assert_int_equal(size, all.sizes[i]);
    assert_memory_equal(now, all.saved[i], size);
    free(now);
  }
  return 0;
}

/* ---- NULL, for every pointer of every function ---- */

#define REFUSES(name, call) \
  do { \
    assert_status(DLORA_ERR_ARGUMENT, call); \
    assert_error_names(name); \
  } while (0)

static void null_is_refused_by_models_and_passes(void **state) {
  (void)state;
  dlora_model *model = all.model;
  dlora_session *session = all.session;
  dlora_model_info info = {.struct_size = sizeof info};
  const dlora_images *images = &all.pictures.images;
  size_t rows = 0, dim = 0;
  float *out = calloc(COUNT * 3 * DIM, sizeof *out);
  assert_non_null(out);
  REFUSES("NULL", dlora_model_options_init(NULL, sizeof(dlora_model_options)));
  REFUSES("out", dlora_model_load(NULL, "file", NULL));
  REFUSES("path", dlora_model_load(&model, NULL, NULL));
  assert_null(model);
  REFUSES("out", dlora_model_load_memory(NULL, floats, 100, NULL));
  model = all.model;
  REFUSES("bytes", dlora_model_load_memory(&model, NULL, 100, NULL));
  assert_null(model);
  REFUSES("model", dlora_model_get_info(NULL, &info));
  REFUSES("info", dlora_model_get_info(all.model, NULL));
  REFUSES("model", dlora_model_embed(NULL, images, out));
  REFUSES("images", dlora_model_embed(all.model, NULL, out));
  REFUSES("features", dlora_model_embed(all.model, images, NULL));
  REFUSES("NULL", dlora_session_options_init(NULL, sizeof(dlora_session_options)));
  REFUSES("out", dlora_session_create(NULL, all.model, all.bank, NULL));
  REFUSES("model", dlora_session_create(&session, NULL, all.bank, NULL));
  assert_null(session);
  assert_int_equal(dlora_session_workspace_size(NULL), 0);
  REFUSES("session", dlora_session_forward(NULL, images, 0, NULL, out));
  REFUSES("images", dlora_session_forward(all.session, NULL, 0, NULL, out));
  REFUSES("session", dlora_session_backward(NULL, all.bank, out));
  REFUSES("bank", dlora_session_backward(all.session, NULL, out));
  REFUSES("feature_gradients", dlora_session_backward(all.session, all.bank, NULL));
  REFUSES("session", dlora_session_get_input(NULL, 1, 0, out, &rows, &dim));
  REFUSES("rows", dlora_session_get_input(all.session, 1, 0, out, NULL, &dim));
  REFUSES("dim", dlora_session_get_input(all.session, 1, 0, out, &rows, NULL));
  REFUSES("session", dlora_session_get_early_features(NULL, out));
  REFUSES("features", dlora_session_get_early_features(all.session, NULL));
  free(out);
}

static void null_is_refused_by_banks(void **state) {
  (void)state;
  const dlora_site site = {DIM, DIM, 1, DLORA_SITE_VALUE};
  dlora_bank *bank = all.bank;
  dlora_site got;
  dlora_adapter adapter;
  const float *merged = NULL;
  float *parameters = NULL, *out = calloc(COUNT * DIM, sizeof *out);
  assert_non_null(out);
  REFUSES("NULL", dlora_bank_options_init(NULL, sizeof(dlora_bank_options)));
  REFUSES("out", dlora_bank_create(NULL, &site, 1, NULL));
  REFUSES("sites", dlora_bank_create(&bank, NULL, 1, NULL));
  assert_null(bank);
  assert_int_equal(dlora_bank_num_sites(NULL), 0);
  assert_int_equal(dlora_bank_num_tasks(NULL), 0);
  REFUSES("bank", dlora_bank_get_site(NULL, 0, &got));
  REFUSES("out", dlora_bank_get_site(all.bank, 0, NULL));
  REFUSES("bank", dlora_bank_begin_task(NULL));
  REFUSES("bank", dlora_bank_set_orthogonal(NULL, 0, floats, 1, NULL));
  REFUSES("a is NULL", dlora_bank_set_orthogonal(all.bank, 0, NULL, 1, NULL));
  REFUSES("bank", dlora_bank_set_residual(NULL, 0, floats, 1, 0));
  REFUSES("a is NULL", dlora_bank_set_residual(all.bank, 0, NULL, 1, 0));
  REFUSES("bank", dlora_bank_get_parameters(NULL, &parameters, NULL, NULL));
  REFUSES("bank", dlora_bank_forward(NULL, 0, floats, 1, 0, NULL, 1, out));
  REFUSES("x is NULL", dlora_bank_forward(all.bank, 0, NULL, 1, 0, NULL, 1, out));
  REFUSES("y", dlora_bank_forward(all.bank, 0, floats, 1, 0, NULL, 1, NULL));
  REFUSES("bank", dlora_bank_backward(NULL, 0, floats, floats, 1, 0, out));
  REFUSES("x is NULL", dlora_bank_backward(all.bank, 0, NULL, floats, 1, 0, out));
  REFUSES("dy", dlora_bank_backward(all.bank, 0, floats, NULL, 1, 0, out));
  REFUSES("bank", dlora_bank_step(NULL, 0.1f));
  REFUSES("bank", dlora_bank_commit_task(NULL));
  REFUSES("bank", dlora_bank_discard_task(NULL));
  REFUSES("bank", dlora_bank_get_merged(NULL, 0, &merged));
  REFUSES("merged", dlora_bank_get_merged(all.bank, 0, NULL));
  REFUSES("bank", dlora_bank_get_residual(NULL, 0, 0, &adapter));
  REFUSES("out", dlora_bank_get_residual(all.bank, 0, 0, NULL));
  REFUSES("bank", dlora_bank_save(NULL, "file"));
  REFUSES("path", dlora_bank_save(all.bank, NULL));
  REFUSES("out", dlora_bank_load(NULL, "file", NULL));
  bank = all.bank;
  REFUSES("path", dlora_bank_load(&bank, NULL, NULL));
  assert_null(bank);
  free(out);
}

static void null_is_refused_by_projectors(void **state) {
  (void)state;
  dlora_projector *projector = all.projector;
  const float *bases = NULL;
  size_t found = 0;
  float out[DIM] = {0.0f};
  REFUSES("NULL", dlora_projector_options_init(NULL, sizeof(dlora_projector_options)));
  REFUSES("out", dlora_projector_create(NULL, 3, NULL));
  REFUSES("out", dlora_projector_clone(NULL, all.projector));
  REFUSES("projector", dlora_projector_clone(&projector, NULL));
  assert_null(projector);
  assert_int_equal(dlora_projector_dim(NULL), 0);
  assert_int_equal(dlora_projector_size(NULL), 0);
  assert_int_equal(dlora_projector_num_tasks(NULL), 0);
  assert_int_equal(dlora_projector_num_observed(NULL), 0);
  REFUSES("projector", dlora_projector_observe(NULL, floats, 1));
  REFUSES("x", dlora_projector_observe(all.projector, NULL, 1));
  REFUSES("projector", dlora_projector_merge_observed(NULL, all.projector));
  REFUSES("other", dlora_projector_merge_observed(all.projector, NULL));
  REFUSES("projector", dlora_projector_discard_task(NULL));
  REFUSES("projector", dlora_projector_unused_directions(NULL, 1, out, &found));
  REFUSES("directions", dlora_projector_unused_directions(all.projector, 1, NULL, &found));
  REFUSES("found", dlora_projector_unused_directions(all.projector, 1, out, NULL));
  REFUSES("projector", dlora_projector_task_directions(NULL, 0.9f, 1, out, &found));
  REFUSES("directions", dlora_projector_task_directions(all.projector, 0.9f, 1, NULL, &found));
  REFUSES("found", dlora_projector_task_directions(all.projector, 0.9f, 1, out, NULL));
  REFUSES("projector", dlora_projector_used_directions(NULL, 1, out, &found));
  REFUSES("directions", dlora_projector_used_directions(all.projector, 1, NULL, &found));
  REFUSES("found", dlora_projector_used_directions(all.projector, 1, out, NULL));
  REFUSES("projector", dlora_projector_commit_task(NULL, 0.9f, &found));
  REFUSES("projector", dlora_projector_get_bases(NULL, 0, &bases, &found));
  REFUSES("bases", dlora_projector_get_bases(all.projector, 0, NULL, &found));
  REFUSES("count", dlora_projector_get_bases(all.projector, 0, &bases, NULL));
  REFUSES("projector", dlora_projector_project(NULL, out, 1));
  REFUSES("x", dlora_projector_project(all.projector, NULL, 1));
  REFUSES("projector", dlora_projector_calibrate(NULL, 0, floats, 1));
  REFUSES("x", dlora_projector_calibrate(all.projector, 0, NULL, 1));
  REFUSES("projector", dlora_projector_route(NULL, floats, 1, out));
  REFUSES("x", dlora_projector_route(all.projector, NULL, 1, out));
  REFUSES("routing", dlora_projector_route(all.projector, floats, 1, NULL));
  REFUSES("projector", dlora_projector_save(NULL, "file"));
  REFUSES("path", dlora_projector_save(all.projector, NULL));
  REFUSES("out", dlora_projector_load(NULL, "file", NULL));
  projector = all.projector;
  REFUSES("path", dlora_projector_load(&projector, NULL, NULL));
  assert_null(projector);
}

static void null_is_refused_by_predictors(void **state) {
  (void)state;
  dlora_predictor *predictor = all.predictor;
  dlora_prediction prediction;
  int64_t ids[COUNT] = {0};
  double wide[DIM * DIM];
  float out[4 * DIM], threshold = 0.0f;
  REFUSES("NULL", dlora_predictor_options_init(NULL, sizeof(dlora_predictor_options)));
  REFUSES("out", dlora_predictor_create(NULL, 3, NULL));
  REFUSES("out", dlora_predictor_clone(NULL, all.predictor));
  REFUSES("predictor", dlora_predictor_clone(&predictor, NULL));
  assert_null(predictor);
  assert_int_equal(dlora_predictor_dim(NULL), 0);
  assert_int_equal(dlora_predictor_num_tasks(NULL), 0);
  assert_int_equal(dlora_predictor_num_classes(NULL), 0);
  assert_int_equal(dlora_predictor_num_components(NULL), 0);
  REFUSES("predictor", dlora_predictor_get_classes(NULL, ids));
  REFUSES("classes", dlora_predictor_get_classes(all.predictor, NULL));
  REFUSES("predictor", dlora_predictor_get_components(NULL, ids, ids, NULL, NULL));
  REFUSES("predictor", dlora_predictor_get_scatter(NULL, wide));
  REFUSES("scatter", dlora_predictor_get_scatter(all.predictor, NULL));
  REFUSES("predictor", dlora_predictor_get_projection(NULL, NULL, wide));
  REFUSES("predictor", dlora_predictor_observe(NULL, floats, ids, 1));
  REFUSES("features", dlora_predictor_observe(all.predictor, NULL, ids, 1));
  REFUSES("labels", dlora_predictor_observe(all.predictor, floats, NULL, 1));
  REFUSES("predictor", dlora_predictor_observe_held_out(NULL, floats, ids, 1));
  REFUSES("features", dlora_predictor_observe_held_out(all.predictor, NULL, ids, 1));
  REFUSES("labels", dlora_predictor_observe_held_out(all.predictor, floats, NULL, 1));
  REFUSES("predictor", dlora_predictor_discard_task(NULL));
  REFUSES("predictor", dlora_predictor_compensate_drift(NULL, floats, floats, 2, 0, DIM));
  REFUSES("before", dlora_predictor_compensate_drift(all.predictor, NULL, floats, 2, 0, DIM));
  REFUSES("after", dlora_predictor_compensate_drift(all.predictor, floats, NULL, 2, 0, DIM));
  REFUSES("predictor", dlora_predictor_commit_task(NULL));
  REFUSES("predictor", dlora_predictor_append(NULL, all.predictor));
  REFUSES("other", dlora_predictor_append(all.predictor, NULL));
  REFUSES("predictor", dlora_predictor_merge(NULL, all.predictor));
  REFUSES("other", dlora_predictor_merge(all.predictor, NULL));
  REFUSES("predictor", dlora_predictor_posterior(NULL, floats, 1, out, NULL, NULL, NULL));
  REFUSES("features", dlora_predictor_posterior(all.predictor, NULL, 1, out, NULL, NULL, NULL));
  REFUSES("predictor", dlora_predictor_predict(NULL, floats, 1, &prediction));
  REFUSES("features", dlora_predictor_predict(all.predictor, NULL, 1, &prediction));
  REFUSES("predictions", dlora_predictor_predict(all.predictor, floats, 1, NULL));
  REFUSES("predictor", dlora_predictor_linear_weights(NULL, 0, DIM, 0, out, out));
  REFUSES("weight", dlora_predictor_linear_weights(all.predictor, 0, DIM, 0, NULL, out));
  REFUSES("bias", dlora_predictor_linear_weights(all.predictor, 0, DIM, 0, out, NULL));
  assert_true(dlora_predictor_temperature(NULL) == 0.0f);
  REFUSES("predictor", dlora_predictor_set_temperature(NULL, 1.0f));
  REFUSES("predictor", dlora_predictor_unknown_threshold(NULL, 0.5f, &threshold));
  REFUSES("threshold", dlora_predictor_unknown_threshold(all.predictor, 0.5f, NULL));
  REFUSES("predictor", dlora_predictor_save(NULL, "file"));
  REFUSES("path", dlora_predictor_save(all.predictor, NULL));
  REFUSES("out", dlora_predictor_load(NULL, "file", NULL));
  predictor = all.predictor;
  REFUSES("path", dlora_predictor_load(&predictor, NULL, NULL));
  assert_null(predictor);
}

static void null_is_refused_by_learners(void **state) {
  (void)state;
  const dlora_images *images = &all.pictures.images;
  const int64_t *labels = all.pictures.labels;
  const dlora_image_source source = test_source_of(&all.pictures);
  dlora_image_source incomplete = source;
  dlora_learner *learner = all.learner;
  dlora_learner_options options = {.struct_size = sizeof options};
  dlora_prediction predictions[COUNT];
  int64_t ids[COUNT] = {0};
  float out[COUNT * DIM];
  double matrix = 0.0;
  REFUSES("NULL", dlora_learner_options_init(NULL, sizeof options));
  REFUSES("NULL", dlora_learner_options_paper(NULL, sizeof options));
  REFUSES("out", dlora_learner_create(NULL, all.model, NULL));
  REFUSES("model", dlora_learner_create(&learner, NULL, NULL));
  assert_null(learner);
  REFUSES("learner", dlora_learner_configure(NULL, NULL));
  REFUSES("learner", dlora_learner_get_options(NULL, &options));
  REFUSES("options", dlora_learner_get_options(all.learner, NULL));
  REFUSES("learner", dlora_learner_learn_task(NULL, images, labels, NULL));
  REFUSES("images", dlora_learner_learn_task(all.learner, NULL, labels, NULL));
  REFUSES("labels", dlora_learner_learn_task(all.learner, images, NULL, NULL));
  REFUSES("learner", dlora_learner_learn_source(NULL, &source, NULL));
  REFUSES("source", dlora_learner_learn_source(all.learner, NULL, NULL));
  incomplete.read = NULL;
  REFUSES("read", dlora_learner_learn_source(all.learner, &incomplete, NULL));
  REFUSES("read", dlora_learner_evaluate(all.learner, &incomplete, NULL));
  incomplete = source;
  incomplete.labels = NULL;
  REFUSES("labels", dlora_learner_learn_source(all.learner, &incomplete, NULL));
  REFUSES("labels", dlora_learner_evaluate(all.learner, &incomplete, NULL));
  incomplete = source;
  incomplete.count = 0;
  REFUSES("no images", dlora_learner_learn_source(all.learner, &incomplete, NULL));
  REFUSES("no images", dlora_learner_evaluate(all.learner, &incomplete, NULL));
  REFUSES("learner", dlora_learner_begin_task(NULL, 0));
  REFUSES("learner", dlora_learner_observe(NULL, images, labels));
  REFUSES("learner", dlora_learner_begin_training(NULL));
  REFUSES("learner", dlora_learner_step(NULL, images, labels, NULL));
  REFUSES("learner", dlora_learner_observe_trained(NULL, images, labels));
  assert_status(DLORA_OK, dlora_learner_begin_task(all.learner, 0));
  REFUSES("images", dlora_learner_observe(all.learner, NULL, labels));
  REFUSES("labels", dlora_learner_observe(all.learner, images, NULL));
  assert_status(DLORA_OK, dlora_learner_observe(all.learner, &all.pictures.images, all.pictures.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(all.learner));
  REFUSES("images", dlora_learner_step(all.learner, NULL, labels, NULL));
  REFUSES("labels", dlora_learner_step(all.learner, images, NULL, NULL));
  REFUSES("images", dlora_learner_observe_trained(all.learner, NULL, labels));
  REFUSES("labels", dlora_learner_observe_trained(all.learner, images, NULL));
  assert_status(DLORA_OK, dlora_learner_discard_task(all.learner)); /* it was still open */
  REFUSES("learner", dlora_learner_commit_task(NULL, NULL));
  REFUSES("learner", dlora_learner_discard_task(NULL));
  assert_int_equal(dlora_learner_num_tasks(NULL), 0);
  assert_int_equal(dlora_learner_num_classes(NULL), 0);
  REFUSES("learner", dlora_learner_get_classes(NULL, ids));
  REFUSES("classes", dlora_learner_get_classes(all.learner, NULL));
  REFUSES("learner", dlora_learner_set_class_name(NULL, 1, "name"));
  REFUSES("name", dlora_learner_set_class_name(all.learner, 1, NULL));
  assert_null(dlora_learner_get_class_name(NULL, 1));
  REFUSES("learner", dlora_learner_set_note(NULL, "key", "value"));
  REFUSES("key", dlora_learner_set_note(all.learner, NULL, "value"));
  REFUSES("key is empty", dlora_learner_set_note(all.learner, "", "value"));
  REFUSES("UTF-8", dlora_learner_set_note(all.learner, "k\xff", "value"));
  REFUSES("UTF-8", dlora_learner_set_note(all.learner, "key", "\xc3"));
  assert_null(dlora_learner_get_note(NULL, "key"));
  assert_null(dlora_learner_get_note(all.learner, NULL));
  REFUSES("learner", dlora_learner_predict(NULL, images, predictions, NULL));
  REFUSES("images", dlora_learner_predict(all.learner, NULL, predictions, NULL));
  REFUSES("predictions", dlora_learner_predict(all.learner, images, NULL, out));
  REFUSES("learner", dlora_learner_predict_with_tasks(NULL, images, ids, predictions, NULL));
  REFUSES("images", dlora_learner_predict_with_tasks(all.learner, NULL, ids, predictions, NULL));
  REFUSES("tasks", dlora_learner_predict_with_tasks(all.learner, images, NULL, predictions, NULL));
  REFUSES("predictions", dlora_learner_predict_with_tasks(all.learner, images, ids, NULL, NULL));
  REFUSES("learner", dlora_learner_embed(NULL, images, NULL, out));
  REFUSES("images", dlora_learner_embed(all.learner, NULL, NULL, out));
  REFUSES("features", dlora_learner_embed(all.learner, images, NULL, NULL));
  REFUSES("learner", dlora_learner_evaluate(NULL, &source, NULL));
  REFUSES("source", dlora_learner_evaluate(all.learner, NULL, NULL));
  REFUSES("learner", dlora_learner_get_accuracy_matrix(NULL, &matrix));
  REFUSES("matrix", dlora_learner_get_accuracy_matrix(all.learner, NULL));
  REFUSES("learner", dlora_learner_save(NULL, "file"));
  REFUSES("path", dlora_learner_save(all.learner, NULL));
  REFUSES("out", dlora_learner_load(NULL, all.model, "file", NULL));
  learner = all.learner;
  REFUSES("model", dlora_learner_load(&learner, NULL, "file", NULL));
  assert_null(learner);
  learner = all.learner;
  REFUSES("path", dlora_learner_load(&learner, all.model, NULL, NULL));
  assert_null(learner);
  assert_null(dlora_learner_get_bank(NULL));
  assert_null(dlora_learner_get_predictor(NULL));
  assert_null(dlora_learner_get_projector(NULL, 0, 0));
}

/* ---- images ---- */

typedef dlora_status use_fn(const dlora_images *images);

static dlora_status use_embed(const dlora_images *images) {
  float features[COUNT * DIM];
  return dlora_model_embed(all.model, images, features);
}

static dlora_status use_pass(const dlora_images *images) {
  float features[COUNT * DIM];
  return dlora_session_forward(all.session, images, 0, NULL, features);
}

static dlora_status use_predict(const dlora_images *images) {
  dlora_prediction predictions[COUNT];
  return dlora_learner_predict(all.learner, images, predictions, NULL);
}

static dlora_status use_predict_given(const dlora_images *images) {
  dlora_prediction predictions[COUNT];
  const int64_t tasks[COUNT] = {0};
  return dlora_learner_predict_with_tasks(all.learner, images, images->count > COUNT ? NULL : tasks, predictions, NULL);
}

static dlora_status use_adapted_embed(const dlora_images *images) {
  float features[COUNT * DIM];
  return dlora_learner_embed(all.learner, images, NULL, features);
}

static dlora_status use_learn(const dlora_images *images) {
  return dlora_learner_learn_task(all.learner, images, all.pictures.labels, NULL);
}

/* A refused batch leaves the task open and as it was. */
static dlora_status use_observe(const dlora_images *images) {
  assert_status(DLORA_OK, dlora_learner_begin_task(all.learner, 1));
  const dlora_status status = dlora_learner_observe(all.learner, images, all.pictures.labels);
  char sentence[512];
  snprintf(sentence, sizeof sentence, "%s", dlora_last_error());
  assert_status(DLORA_ERR_STATE, dlora_learner_commit_task(all.learner, NULL)); /* nothing was observed */
  assert_status(DLORA_OK, dlora_learner_discard_task(all.learner));
  assert_string_not_equal(sentence, "");
  return status;
}

static dlora_status use_step(const dlora_images *images) {
  assert_status(DLORA_OK, dlora_learner_begin_task(all.learner, 1));
  assert_status(DLORA_OK, dlora_learner_observe(all.learner, &all.pictures.images, all.pictures.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(all.learner));
  assert_status(DLORA_OK, dlora_learner_step(all.learner, &all.pictures.images, all.pictures.labels, NULL));
  const dlora_status status = dlora_learner_step(all.learner, images, all.pictures.labels, NULL);
  assert_status(DLORA_OK, dlora_learner_step(all.learner, &all.pictures.images, all.pictures.labels, NULL));
  assert_status(DLORA_OK, dlora_learner_discard_task(all.learner));
  return status;
}

static use_fn *const uses[] = {use_embed,         use_pass,  use_predict, use_predict_given,
                               use_adapted_embed, use_learn, use_observe, use_step};

static void bad_images_are_refused_wherever_they_go(void **state) {
  (void)state;
  const dlora_images good = all.pictures.images;
  float pixels[2 * 3 * VIT_SIZE * VIT_SIZE] = {0.0f};
  const dlora_images ready = {NULL, pixels, 2, VIT_SIZE, VIT_SIZE, 3};
  const size_t huge = (size_t)1 << 62;
  dlora_images bad[16];
  size_t count = 0;
  for (size_t i = 0; i < 6; i++) bad[count++] = good;
  bad[0].u8 = NULL;
  bad[1].f32 = pixels;
  bad[2].count = 0;
  bad[3].height = 0;
  bad[4].width = 0;
  bad[5].channels = 2;
  bad[count] = good;
  bad[count++].count = huge;
  bad[count] = good;
  bad[count++].height = huge;
  bad[count] = good;
  bad[count].height = bad[count].width = (size_t)1 << 33;
  bad[count++].channels = 1;
  bad[count] = ready;
  bad[count++].height = VIT_SIZE / 2;
  bad[count] = ready;
  bad[count++].width = 2 * VIT_SIZE;
  bad[count] = ready;
  bad[count++].channels = 1;
  for (size_t u = 0; u < sizeof uses / sizeof *uses; u++) {
    for (size_t i = 0; i < count; i++) {
      const dlora_status status = uses[u](&bad[i]);
      if (status != DLORA_ERR_ARGUMENT) {
        fail_msg("use %zu of bad images %zu: %s: %s", u, i, dlora_status_name(status), dlora_last_error());
      }
    }
  }
}

static void pixels_that_are_no_numbers_are_refused(void **state) {
  (void)state;
  const float bad[] = {NAN, INFINITY, -INFINITY};
  float pixels[2 * 3 * VIT_SIZE * VIT_SIZE];
  const size_t one = 3 * VIT_SIZE * VIT_SIZE, places[] = {0, 2 * one - 1};
  const dlora_images images = {NULL, pixels, 2, VIT_SIZE, VIT_SIZE, 3};
  for (size_t u = 0; u < sizeof uses / sizeof *uses; u++) {
    for (size_t i = 0; i < 6; i++) {
      for (size_t k = 0; k < 2 * one; k++) pixels[k] = 0.5f;
      pixels[places[i % 2]] = bad[i / 2];
      const dlora_status status = uses[u](&images);
      if (status != DLORA_ERR_NOT_FINITE) {
        fail_msg("use %zu, value %g: %s: %s", u, (double)bad[i / 2], dlora_status_name(status), dlora_last_error());
      }
    }
  }
}

static int32_t read_one(size_t index, dlora_images *image, void *user) {
  *image = test_part(user, index, 1);
  return 0;
}

/* Pixels in 0 ... 255 as floats are taken for a mistake by every call; what augmentations and other normalisations can
 * make of pixels is not. */
static void floats_that_no_normalisation_gives_are_refused(void **state) {
  (void)state;
  const float values[] = {255.0f, -255.0f, 20.1f, 3e38f};
  float pixels[2 * 3 * VIT_SIZE * VIT_SIZE];
  const size_t one = 3 * VIT_SIZE * VIT_SIZE;
  const dlora_images images = {NULL, pixels, 2, VIT_SIZE, VIT_SIZE, 3};
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  dlora_images readable = images;
  float features[2 * VIT_DIM];
  source.read = read_one, source.user = &readable, source.count = 2, source.labels = all.pictures.labels;
  for (size_t i = 0; i < 4; i++) {
    for (size_t k = 0; k < 2 * one; k++) pixels[k] = 0.5f;
    pixels[one + 7] = values[i];
    for (size_t u = 0; u < sizeof uses / sizeof *uses; u++) {
      const dlora_status status = uses[u](&images);
      if (status != DLORA_ERR_ARGUMENT) {
        fail_msg("use %zu, value %g: %s: %s", u, (double)values[i], dlora_status_name(status), dlora_last_error());
      }
    }
    assert_status(DLORA_ERR_ARGUMENT, use_embed(&images));
    assert_error_names("value 7 of image 1");
    assert_error_names("images->u8");
    assert_status(DLORA_ERR_ARGUMENT, dlora_learner_learn_source(all.learner, &source, NULL));
    assert_error_names("image 1 of the source");
  }
  for (size_t k = 0; k < 2 * one; k++) pixels[k] = k % 2 ? 20.0f : -20.0f;
  assert_status(DLORA_OK, use_embed(&images));
  assert_status(DLORA_OK, use_predict(&images));

  /* The bound is that of the model's own mean and std. */
  const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
  const float bounds[] = {20.0f * (1.0f - 0.406f) / 0.225f, 20.0f, 20.0f * 255.0f};
  for (size_t m = 0; m < 3; m++) {
    dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
    dlora_model *model = NULL;
    options.num_heads = VIT_HEADS;
    for (size_t c = 0; c < 3; c++) {
      options.mean[c] = m == 0 ? mean[c] : 0.0f;
      options.std[c] = m == 0 ? std[c] : m == 1 ? 4.0f : 1.0f / 255.0f;
    }
    assert_status(DLORA_OK, dlora_model_load(&model, test_write_vit("normalised.safetensors", 1), &options));
    for (size_t k = 0; k < 2 * one; k++) pixels[k] = (k % 2 ? 0.999f : -0.999f) * bounds[m];
    assert_status(DLORA_OK, dlora_model_embed(model, &images, features));
    pixels[2 * one - 1] = 1.001f * bounds[m];
    assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, &images, features));
    dlora_model_destroy(model);
  }
}

/* Finite pixels that overflow inside the network, which a model of a very small std lets in: the result is refused, not
 * learnt from. */
static void pixels_that_overflow_are_not_learnt_from(void **state) {
  (void)state;
  float *pixels = malloc(COUNT * 3 * VIT_SIZE * VIT_SIZE * sizeof *pixels);
  dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
  dlora_model *model = NULL;
  dlora_prediction predictions[COUNT];
  const int64_t tasks[COUNT] = {0};
  assert_non_null(pixels);
  model_options.num_heads = VIT_HEADS;
  for (size_t c = 0; c < 3; c++) model_options.std[c] = 1e-38f;
  assert_status(DLORA_OK, dlora_model_load(&model, test_write_vit("tiny_std.safetensors", 1), &model_options));
  const dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  for (size_t k = 0; k < (size_t)COUNT * 3 * VIT_SIZE * VIT_SIZE; k++) pixels[k] = k % 3 ? 1.0f : -1.0f;
  const dlora_images images = {NULL, pixels, COUNT, VIT_SIZE, VIT_SIZE, 3};
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &images, all.pictures.labels, NULL));
  for (size_t k = 0; k < (size_t)COUNT * 3 * VIT_SIZE * VIT_SIZE; k++) pixels[k] *= 3e38f;
  assert_status(DLORA_ERR_NOT_FINITE, dlora_learner_learn_task(learner, &images, all.pictures.labels, NULL));
  assert_status(DLORA_ERR_NOT_FINITE, dlora_learner_predict(learner, &images, predictions, NULL));
  assert_status(DLORA_ERR_NOT_FINITE, dlora_learner_predict_with_tasks(learner, &images, tasks, predictions, NULL));
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 1));
  assert_status(DLORA_ERR_NOT_FINITE, dlora_learner_observe(learner, &images, all.pictures.labels));
  assert_status(DLORA_ERR_STATE, dlora_learner_discard_task(learner)); /* found too late to refuse the batch alone */
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
  free(pixels);
}

static void features_that_are_no_numbers_are_refused(void **state) {
  (void)state;
  const float bad[] = {NAN, INFINITY, -INFINITY};
  int64_t labels[2] = {0, 1};
  float x[2 * DIM], out[4 * DIM];
  dlora_prediction predictions[2];
  for (size_t i = 0; i < 3; i++) {
    memcpy(x, floats, sizeof x);
    x[DIM + 5] = bad[i];
    assert_status(DLORA_ERR_NOT_FINITE, dlora_projector_observe(all.projector, x, 2));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_projector_calibrate(all.projector, 0, x, 2));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_observe(all.predictor, x, labels, 2));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_observe_held_out(all.predictor, x, labels, 2));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_compensate_drift(all.predictor, x, floats, 2, 0, DIM));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_compensate_drift(all.predictor, floats, x, 2, 0, DIM));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_posterior(all.predictor, x, 2, out, NULL, NULL, NULL));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_predictor_predict(all.predictor, x, 2, predictions));
    assert_status(DLORA_ERR_NOT_FINITE, dlora_bank_set_orthogonal(all.bank, 0, x, 2, NULL));
  }
}

/* ---- a loss that runs away ---- */

static void a_loss_that_runs_away_rolls_the_task_back(void **state) {
  (void)state;
  dlora_learner_options kept = {.struct_size = sizeof kept}, options;
  assert_status(DLORA_OK, dlora_learner_get_options(all.learner, &kept));
  options = kept;
  options.optimizer = DLORA_OPTIMIZER_SGD;
  options.learning_rate = 1e6f;
  options.weight_decay = 1e6f; /* layer norms bound the features, so that the parameters themselves must run away */
  options.schedule = DLORA_SCHEDULE_CONSTANT;
  options.epochs = 100;
  assert_status(DLORA_OK, dlora_learner_configure(all.learner, &options));
  struct test_pictures p = test_pictures(four, 4, 20, 5);
  for (size_t i = 0; i < p.images.count; i += 3)
    p.labels[i] = four[i / 3 % 4]; /* wrong ones, so that there is a loss */
  assert_status(DLORA_ERR_NOT_FINITE, dlora_learner_learn_task(all.learner, &p.images, p.labels, NULL));
  assert_int_equal(dlora_learner_num_tasks(all.learner), 1);

  assert_status(DLORA_OK, dlora_learner_begin_task(all.learner, 0));
  assert_status(DLORA_OK, dlora_learner_observe(all.learner, &p.images, p.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(all.learner));
  dlora_status status = DLORA_OK;
  for (size_t i = 0; i < 1000 && status == DLORA_OK; i++) {
    status = dlora_learner_step(all.learner, &p.images, p.labels, NULL);
  }
  assert_status(DLORA_ERR_NOT_FINITE, status);
  assert_status(DLORA_ERR_STATE, dlora_learner_step(all.learner, &p.images, p.labels, NULL)); /* it was discarded */
  assert_status(DLORA_OK, dlora_learner_configure(all.learner, &kept));
  test_pictures_free(&p);
}

/* ---- structs ---- */

/* call(struct) with sizes of every kind; the struct starts as the defaults in a larger buffer. */
static void check_struct(const void *defaults, size_t size, dlora_status (*call)(void *options)) {
  unsigned char *buffer = calloc(size + 64, 1);
  assert_non_null(buffer);
  memcpy(buffer, defaults, size);
  const size_t good[] = {size, size + 64, sizeof(size_t), sizeof(size_t) + sizeof(void *)};
  const size_t bad[] = {0, 1, sizeof(size_t) - 1, SIZE_MAX, SIZE_MAX / 2};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    memcpy(buffer, &good[i], sizeof good[i]);
    assert_status(DLORA_OK, call(buffer));
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    memcpy(buffer, &bad[i], sizeof bad[i]);
    assert_status(DLORA_ERR_STRUCT_SIZE, call(buffer));
    assert_error_names("dlora_");
  }
  memcpy(buffer, &good[1], sizeof good[1]);
  buffer[size + 63] = 1; /* a member of the future that is set */
  assert_status(DLORA_ERR_STRUCT_SIZE, call(buffer));
  assert_error_names("byte");
  free(buffer);
}

static dlora_status create_bank(void *options) {
  const dlora_site site = {3, 3, 0, DLORA_SITE_KEY};
  dlora_bank *bank = all.bank;
  const dlora_status status = dlora_bank_create(&bank, &site, 1, options);
  assert_int_equal(bank == NULL, status != DLORA_OK);
  dlora_bank_destroy(bank);
  return status;
}

static dlora_status create_projector(void *options) {
  dlora_projector *projector = all.projector;
  const dlora_status status = dlora_projector_create(&projector, 3, options);
  assert_int_equal(projector == NULL, status != DLORA_OK);
  dlora_projector_destroy(projector);
  return status;
}

static dlora_status create_predictor(void *options) {
  dlora_predictor *predictor = all.predictor;
  const dlora_status status = dlora_predictor_create(&predictor, 3, options);
  assert_int_equal(predictor == NULL, status != DLORA_OK);
  dlora_predictor_destroy(predictor);
  return status;
}

static dlora_status create_pass(void *options) {
  dlora_session *session = all.session;
  const dlora_status status = dlora_session_create(&session, all.model, all.bank, options);
  assert_int_equal(session == NULL, status != DLORA_OK);
  dlora_session_destroy(session);
  return status;
}

static dlora_status create_learner(void *options) {
  dlora_learner *learner = all.learner;
  const dlora_status status = dlora_learner_create(&learner, all.model, options);
  assert_int_equal(learner == NULL, status != DLORA_OK);
  dlora_learner_destroy(learner);
  return status;
}

static dlora_status load_model(void *options) {
  dlora_model *model = all.model;
  const dlora_status status = dlora_model_load(&model, test_temporary("vit-1.safetensors"), options);
  assert_int_equal(model == NULL, status != DLORA_OK);
  dlora_model_destroy(model);
  return status;
}

static void structs_of_impossible_sizes_are_refused(void **state) {
  (void)state;
  const dlora_bank_options bank = DLORA_BANK_OPTIONS_INIT;
  const dlora_projector_options projector = DLORA_PROJECTOR_OPTIONS_INIT;
  const dlora_predictor_options predictor = DLORA_PREDICTOR_OPTIONS_INIT;
  const dlora_session_options session = DLORA_SESSION_OPTIONS_INIT;
  const dlora_learner_options learner = test_default_options();
  const dlora_model_options model = DLORA_MODEL_OPTIONS_INIT;
  check_struct(&bank, sizeof bank, create_bank);
  check_struct(&projector, sizeof projector, create_projector);
  check_struct(&predictor, sizeof predictor, create_predictor);
  check_struct(&session, sizeof session, create_pass);
  check_struct(&learner, sizeof learner, create_learner);
  check_struct(&model, sizeof model, load_model);
}

static void reports_of_impossible_sizes_are_refused_before_any_work(void **state) {
  (void)state;
  const size_t bad[] = {0, 3, SIZE_MAX};
  const dlora_image_source source = test_source_of(&all.pictures);
  for (size_t i = 0; i < 3; i++) {
    dlora_task_report report = {.struct_size = bad[i]};
    dlora_evaluation evaluation = {.struct_size = bad[i]};
    dlora_model_info info = {.struct_size = bad[i]};
    dlora_learner_options options = {.struct_size = bad[i]};
    dlora_image_source strange = source;
    strange.struct_size = bad[i];
    assert_status(DLORA_ERR_STRUCT_SIZE,
                  dlora_learner_learn_task(all.learner, &all.pictures.images, all.pictures.labels, &report));
    assert_error_names("dlora_task_report");
    assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_evaluate(all.learner, &source, &evaluation));
    assert_error_names("dlora_evaluation");
    assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_evaluate(all.learner, &strange, NULL));
    assert_error_names("dlora_image_source");
    assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_learn_source(all.learner, &strange, NULL));
    assert_status(DLORA_ERR_STRUCT_SIZE, dlora_model_get_info(all.model, &info));
    assert_error_names("dlora_model_info");
    assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_get_options(all.learner, &options));
  }
}

static void impossible_amounts_are_refused(void **state) {
  (void)state;
  dlora_projector *projector = all.projector;
  dlora_predictor *predictor = all.predictor;
  dlora_model *model = all.model;
  dlora_session *session = all.session;
  int64_t label = 0;
  float out[4];
  const size_t huge[] = {SIZE_MAX, SIZE_MAX / 2, (size_t)1 << 62, ((size_t)1 << 59)};
  const int32_t wild[] = {INT32_MAX, INT32_MIN, 0, -2};
  assert_status(DLORA_ERR_ARGUMENT, dlora_projector_create(&projector, 0, NULL));
  assert_null(projector);
  assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_create(&predictor, 0, NULL));
  assert_null(predictor);
  for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_create(&projector, huge[i], NULL));
    assert_null(projector);
    assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_create(&predictor, huge[i], NULL));
    assert_null(predictor);
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_observe(all.projector, floats, huge[i]));
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_project(all.projector, floats, huge[i]));
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_route(all.projector, floats, huge[i], out));
    assert_status(DLORA_ERR_ARGUMENT, dlora_projector_calibrate(all.projector, 0, floats, huge[i]));
    assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_observe(all.predictor, floats, &label, huge[i]));
    assert_status(DLORA_ERR_ARGUMENT, dlora_predictor_posterior(all.predictor, floats, huge[i], out, NULL, NULL, NULL));
    assert_status(DLORA_ERR_ARGUMENT, dlora_bank_forward(all.bank, 0, floats, huge[i], 0, NULL, 1, floats));
    dlora_session_options pass_options = DLORA_SESSION_OPTIONS_INIT;
    pass_options.max_batch = huge[i];
    assert_status(DLORA_ERR_ARGUMENT, dlora_session_create(&session, all.model, all.bank, &pass_options));
    assert_null(session);
    assert_error_names("max_batch");
    pass_options.max_batch = 4;
    pass_options.threads = wild[i];
    assert_status(DLORA_ERR_ARGUMENT, dlora_session_create(&session, all.model, all.bank, &pass_options));
    assert_error_names("threads");
    dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
    model_options.threads = wild[i];
    assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, test_temporary("vit-1.safetensors"), &model_options));
    assert_null(model);
    assert_error_names("threads");
  }
}

static void allocators_must_be_whole(void **state) {
  (void)state;
  struct test_memory memory;
  test_memory_start(&memory);
  for (int half = 0; half < 2; half++) {
    dlora_allocator allocator = memory.allocator;
    if (half) {
      allocator.release = NULL;
    } else {
      allocator.allocate = NULL;
    }
    dlora_bank_options bank = DLORA_BANK_OPTIONS_INIT;
    dlora_learner_options learner = test_default_options();
    dlora_session_options session = DLORA_SESSION_OPTIONS_INIT;
    dlora_model_options model = DLORA_MODEL_OPTIONS_INIT;
    bank.allocator = learner.allocator = session.allocator = model.allocator = &allocator;
    assert_status(DLORA_ERR_ARGUMENT, create_bank(&bank));
    assert_error_names(half ? "release" : "allocate");
    assert_status(DLORA_ERR_ARGUMENT, create_learner(&learner));
    assert_status(DLORA_ERR_ARGUMENT, create_pass(&session));
    assert_status(DLORA_ERR_ARGUMENT, load_model(&model));
  }
  assert_int_equal(memory.total, 0);
}

#define CHECKED(test) cmocka_unit_test_teardown(test, nothing_changed)

int main(void) {
  const struct CMUnitTest tests[] = {
      CHECKED(null_is_refused_by_models_and_passes),
      CHECKED(null_is_refused_by_banks),
      CHECKED(null_is_refused_by_projectors),
      CHECKED(null_is_refused_by_predictors),
      CHECKED(null_is_refused_by_learners),
      CHECKED(bad_images_are_refused_wherever_they_go),
      CHECKED(pixels_that_are_no_numbers_are_refused),
      CHECKED(floats_that_no_normalisation_gives_are_refused),
      CHECKED(pixels_that_overflow_are_not_learnt_from),
      CHECKED(features_that_are_no_numbers_are_refused),
      CHECKED(a_loss_that_runs_away_rolls_the_task_back),
      CHECKED(structs_of_impossible_sizes_are_refused),
      CHECKED(reports_of_impossible_sizes_are_refused_before_any_work),
      CHECKED(impossible_amounts_are_refused),
      CHECKED(allocators_must_be_whole),
  };
  return cmocka_run_group_tests(tests, make_everything, free_everything);
}
