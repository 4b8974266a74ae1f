/* A program that uses every sized struct of the public header, as one built against another version of it would. Prints
 * what it gets, which must not depend on the version: tests/abi/versions.sh compiles it against headers whose structs
 * are shorter and longer. With LATER the structs end in a member `later` that this library does not know.
 *
 *     versions BACKBONE SCRATCH_FILE            prints results
 *     versions BACKBONE SCRATCH_FILE refused    sets `later` everywhere: fails unless every call refuses it
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "duallora/duallora.h"

enum { SIZE = 12, COUNT = 16, DIM = 8, GUARD = 64, FILL = 0xA5 };

static void check(int condition, const char *what, int line) {
  if (condition) return;
  fprintf(stderr, "versions.c:%d: %s\n  %s\n", line, what, dlora_last_error());
  exit(1);
}
#define CHECK(condition) check((condition), #condition, __LINE__)
#define OK(call) CHECK((call) == DLORA_OK)

/* A struct with room behind it that nobody may write to. */
#define GUARDED(type) \
  struct { \
    type value; \
    unsigned char guard[GUARD]; \
  }
static void check_guard(const unsigned char *guard, int line) {
  for (size_t i = 0; i < GUARD; i++) check(guard[i] == FILL, "written beyond the struct", line);
}
#define FILLED(s) memset(&(s), FILL, sizeof(s))
#define CHECK_GUARD(s) check_guard((s).guard, __LINE__)

#ifdef LATER
#define SET_LATER(s) ((s).value.later = refused)
#define CHECK_CLEARED(s) CHECK((s).value.later == 0)
#else
#define SET_LATER(s) (void)refused
#define CHECK_CLEARED(s) (void)(s)
#endif
static uint64_t refused; /* what `later` is set to */

/* A call that creates `handle` from a struct: it works, or refuses a struct whose `later` is set. */
#define TRY(call, handle) \
  do { \
    const dlora_status status_ = (call); \
    check(status_ == (refused ? DLORA_ERR_STRUCT_SIZE : DLORA_OK), #call, __LINE__); \
    CHECK((handle == NULL) == (refused != 0)); \
  } while (0)

static uint8_t pixels[COUNT * SIZE * SIZE * 3];
static int64_t labels[COUNT];
static float values[COUNT * DIM];

static int32_t read_image(size_t index, dlora_images *image, void *user) {
  const dlora_images one = {pixels + index * SIZE * SIZE * 3, NULL, 1, SIZE, SIZE, 3};
  (void)user;
  *image = one;
  return 0;
}

static int32_t count_progress(const dlora_progress *progress, void *user) {
  CHECK(progress->struct_size >= sizeof(size_t) && progress->done <= progress->total);
  ++*(size_t *)user;
  return 0;
}

static int32_t count_bytes(const dlora_tensor_info *info, void *user) {
  CHECK(info->struct_size >= sizeof(size_t) && info->name);
  *(size_t *)user += 1;
  return 0;
}

static void use_parts(void) {
  GUARDED(dlora_bank_options) bank_options;
  GUARDED(dlora_projector_options) projector_options;
  GUARDED(dlora_predictor_options) predictor_options;
  const dlora_site site = {DIM, DIM, 0, DLORA_SITE_KEY};
  dlora_bank *bank = NULL;
  dlora_projector *projector = NULL;
  dlora_predictor *predictor = NULL;
  dlora_prediction predictions[COUNT];
  size_t found = 0;
  FILLED(bank_options);
  FILLED(projector_options);
  FILLED(predictor_options);
  OK(dlora_bank_options_init(&bank_options.value, sizeof bank_options.value));
  OK(dlora_projector_options_init(&projector_options.value, sizeof projector_options.value));
  OK(dlora_predictor_options_init(&predictor_options.value, sizeof predictor_options.value));
  CHECK_GUARD(bank_options);
  CHECK_GUARD(projector_options);
  CHECK_GUARD(predictor_options);
  CHECK_CLEARED(bank_options);
  CHECK_CLEARED(projector_options);
  CHECK_CLEARED(predictor_options);
  SET_LATER(bank_options);
  SET_LATER(projector_options);
  SET_LATER(predictor_options);
  TRY(dlora_bank_create(&bank, &site, 1, &bank_options.value), bank);
  TRY(dlora_projector_create(&projector, DIM, &projector_options.value), projector);
  TRY(dlora_predictor_create(&predictor, DIM, &predictor_options.value), predictor);
  if (!refused) {
    OK(dlora_bank_begin_task(bank));
    OK(dlora_bank_set_residual(bank, 0, values, 2, 1));
    OK(dlora_bank_forward(bank, 0, values, COUNT, DLORA_TERM_RESIDUAL, NULL, 1, values));
    OK(dlora_bank_step(bank, 0.1f)); /* momentum and decay have their defaults */
    OK(dlora_bank_commit_task(bank));
    OK(dlora_projector_observe(projector, values, COUNT));
    OK(dlora_projector_commit_task(projector, 0.9f, &found));
    OK(dlora_predictor_observe(predictor, values, labels, COUNT));
    OK(dlora_predictor_commit_task(predictor));
    OK(dlora_predictor_predict(predictor, values, COUNT, predictions));
    printf("parts %zu", found);
    for (size_t i = 0; i < COUNT; i++) {
      printf(" %d:%.9g", (int)predictions[i].class_id, (double)predictions[i].class_probability);
    }
    printf("\n");
  }
  dlora_predictor_destroy(predictor);
  dlora_projector_destroy(projector);
  dlora_bank_destroy(bank);
}

static dlora_model *load_model(const char *path) {
  GUARDED(dlora_model_options) options;
  GUARDED(dlora_model_info) info;
  GUARDED(dlora_model_setting) setting;
  dlora_model *model = NULL;
  FILLED(options);
  FILLED(info);
  FILLED(setting);
  OK(dlora_model_options_init(&options.value, sizeof options.value));
  CHECK_GUARD(options);
  CHECK_CLEARED(options);
  SET_LATER(options);
  TRY(dlora_model_load(&model, path, &options.value), model);
  if (refused) OK(dlora_model_load(&model, path, NULL));
  info.value.struct_size = sizeof info.value;
  OK(dlora_model_get_info(model, &info.value));
  CHECK_GUARD(info);
  CHECK_CLEARED(info);
  printf("model %zu %zu %zu %.9g\n", info.value.embed_dim, info.value.depth, info.value.num_parameters,
         (double)info.value.layer_norm_eps);
  OK(dlora_model_setting_init(&setting.value, sizeof setting.value));
  CHECK_GUARD(setting);
  CHECK_CLEARED(setting);
  OK(dlora_model_get_setting(model, 0, &setting.value));
  CHECK_GUARD(setting);
  CHECK_CLEARED(setting);
  printf("%s %s %s\n", setting.value.name, setting.value.value, setting.value.place);
  return model;
}

static void run_pass(const dlora_model *model) {
  GUARDED(dlora_session_options) options;
  dlora_session *session = NULL;
  FILLED(options);
  OK(dlora_session_options_init(&options.value, sizeof options.value));
  CHECK_GUARD(options);
  CHECK_CLEARED(options);
  SET_LATER(options);
  TRY(dlora_session_create(&session, model, NULL, &options.value), session);
  if (session) {
    GUARDED(dlora_profile) profile;
    FILLED(profile);
    profile.value.struct_size = sizeof profile.value;
    OK(dlora_session_get_profile(session, &profile.value));
    CHECK_GUARD(profile);
    CHECK_CLEARED(profile);
    CHECK(profile.value.preprocessing == 0.0 && profile.value.directions == 0.0);
    printf("pass %zu\n", dlora_session_workspace_size(session));
  }
  dlora_session_destroy(session);
}

static void learn(const dlora_model *model, const char *path) {
  GUARDED(dlora_learner_options) options;
  GUARDED(dlora_learner_options) kept;
  GUARDED(dlora_option_info) info;
  GUARDED(dlora_image_source) source;
  GUARDED(dlora_task_report) report;
  GUARDED(dlora_evaluation) evaluation;
  GUARDED(dlora_open_task) open_task;
  const dlora_images images = {pixels, NULL, COUNT, SIZE, SIZE, 3};
  dlora_learner *learner = NULL, *loaded = NULL;
  dlora_prediction predictions[COUNT];
  size_t calls = 0, tensors = 0;
  FILLED(info);
  OK(dlora_option_info_init(&info.value, sizeof info.value));
  CHECK_GUARD(info);
  CHECK_CLEARED(info);
  OK(dlora_option_get_info(0, &info.value));
  CHECK_GUARD(info);
  CHECK(info.value.name != NULL && info.value.greatest > info.value.least);
  FILLED(options);
  OK(dlora_learner_options_paper(&options.value, sizeof options.value));
  CHECK_GUARD(options);
  CHECK_CLEARED(options);
  FILLED(options);
  OK(dlora_learner_options_init(&options.value, sizeof options.value));
  CHECK_GUARD(options);
  CHECK_CLEARED(options);
  options.value.epochs = 1;
  SET_LATER(options);
  TRY(dlora_learner_create(&learner, model, &options.value), learner);
  if (refused) OK(dlora_learner_create(&learner, model, NULL));
  if (learner) OK(dlora_learner_set_progress(learner, count_progress, &calls));
  CHECK(dlora_learner_configure(learner, &options.value) == (refused ? DLORA_ERR_STRUCT_SIZE : DLORA_OK));
  FILLED(kept);
  kept.value.struct_size = sizeof kept.value;
  OK(dlora_learner_get_options(learner, &kept.value));
  CHECK_GUARD(kept);
  CHECK_CLEARED(kept);
  OK(dlora_learner_begin_task(learner, 5));
  FILLED(open_task);
  open_task.value.struct_size = sizeof open_task.value;
  OK(dlora_learner_get_open_task(learner, &open_task.value));
  CHECK_GUARD(open_task);
  CHECK_CLEARED(open_task);
  CHECK(open_task.value.num_classes == 0 && open_task.value.planned_steps == 5);
  OK(dlora_learner_discard_task(learner));

  FILLED(source);
  memset(&source.value, 0, sizeof source.value);
  source.value.struct_size = sizeof source.value;
  source.value.read = read_image;
  source.value.count = COUNT;
  source.value.labels = labels;
  SET_LATER(source);
  FILLED(report);
  report.value.struct_size = sizeof report.value;
  if (refused) {
    CHECK(dlora_learner_learn_source(learner, &source.value, NULL) == DLORA_ERR_STRUCT_SIZE);
    CHECK(dlora_learner_evaluate(learner, &source.value, NULL) == DLORA_ERR_STRUCT_SIZE);
    OK(dlora_learner_learn_task(learner, &images, labels, NULL));
  } else {
    OK(dlora_learner_learn_source(learner, &source.value, NULL));
    OK(dlora_learner_learn_task(learner, &images, labels, &report.value));
    CHECK_GUARD(report);
    CHECK_CLEARED(report);
    FILLED(evaluation);
    evaluation.value.struct_size = sizeof evaluation.value;
    OK(dlora_learner_evaluate(learner, &source.value, &evaluation.value));
    CHECK_GUARD(evaluation);
    CHECK_CLEARED(evaluation);
    printf("learnt %lld %zu %.17g accuracy %.17g progress %d\n", (long long)report.value.task, report.value.num_images,
           report.value.last_loss, evaluation.value.accuracy, calls > 0);
  }
  OK(dlora_learner_save(learner, path));
  TRY(dlora_learner_load(&loaded, model, path, &options.value), loaded);
  if (loaded) {
    OK(dlora_learner_predict(loaded, &images, predictions, NULL));
    for (size_t i = 0; i < COUNT; i++) {
      printf("%d %d %.9g %.9g %d\n", (int)predictions[i].class_id, (int)predictions[i].task,
             (double)predictions[i].class_probability, (double)predictions[i].unknown_score, predictions[i].unknown);
    }
  }
  OK(dlora_inspect(path, count_bytes, &tensors));
  printf("tensors %d\n", tensors > 10);
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(learner);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  refused = argc > 3;
#ifndef LATER
  CHECK(!refused);
#endif
  uint32_t random = 1;
  for (size_t i = 0; i < sizeof pixels; i++) {
    random = random * 1664525u + 1013904223u;
    pixels[i] = (uint8_t)((random >> 26) + 90 * (i / (SIZE * SIZE * 3) % 2));
  }
  for (size_t i = 0; i < COUNT; i++) labels[i] = (int64_t)(i % 2);
  for (size_t i = 0; i < COUNT * DIM; i++) values[i] = (float)pixels[7 * i] / 100.0f - 0.5f;
  use_parts();
  dlora_model *model = load_model(argv[1]);
  run_pass(model);
  learn(model, argv[2]);
  dlora_model_destroy(model);
  return 0;
}
