/* Files of version 0.1 still load, predict as they did, and go on: tests/data/version_0_1, which that version wrote on
 * tests/data/tiny_timm_f32.safetensors. The figures are its own predictions.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

enum { SIDE = 16, LEARNT = 24, SHOWN = 6, CLASSES = 6 };

struct old_file {
  const char *name;
  int64_t classes[SHOWN], tasks[SHOWN];
  float unknown[SHOWN];
  float log_probs[SHOWN * CLASSES];
};
static const struct old_file files[] = {
    {"version_0_1/default.safetensors",
     {10, 1, 12, 0, 11, 2},
     {1, 0, 1, 0, 1, 0},
     {-0.749409f, 0.588157f, -3.352419f, -2.877630f, 9.340572f, -2.170826f},
     {-17.41401f,  -327.20969f, -464.22369f, 0.00000f,    -249.07986f, -327.66956f, -320.53156f, 0.00000f,
      -117.24541f, -212.15202f, -98.21033f,  -52.59165f,  -516.01740f, -179.00615f, -14.29765f,  -303.88150f,
      -36.68255f,  -0.00000f,   0.00000f,    -334.92175f, -531.05994f, -19.51838f,  -233.92824f, -299.15225f,
      -334.32581f, -150.44505f, -45.80083f,  -253.63614f, 0.00000f,    -39.48280f,  -519.06549f, -100.46497f,
      -0.00001f,   -312.26871f, -77.36787f,  -11.87077f}},
    {"version_0_1/paper.safetensors",
     {10, 1, 12, 0, 11, 2},
     {1, 0, 1, 0, 1, 0},
     {10.420642f, 2.784418f, -3.569577f, 6.228051f, 7.808472f, -2.992725f},
     {-13.74627f,  -361.39755f, -542.22845f, -0.00000f,   -355.31189f, -469.64917f, -355.20770f, 0.00000f,
      -144.15428f, -184.94875f, -113.53719f, -68.96478f,  -616.22455f, -213.91199f, -10.29997f,  -426.73679f,
      -46.24721f,  -0.00003f,   -0.00000f,   -374.89456f, -629.07233f, -15.09960f,  -350.64526f, -444.10605f,
      -368.88004f, -154.00078f, -25.95055f,  -350.47440f, 0.00000f,    -33.59065f,  -616.12524f, -125.50757f,
      -0.00008f,   -411.56018f, -87.26564f,  -9.49083f}},
    {"version_0_1/projection.safetensors",
     {10, 1, 12, 0, 11, 2},
     {1, 0, 1, 0, 1, 0},
     {4.287516f, 1.655722f, -3.527267f, -0.750003f, 6.206306f, -2.883871f},
     {-2.77954f,   -351.22720f, -531.57568f, -0.06408f,   -255.13948f, -335.36096f, -357.19263f, -0.00896f,
      -146.15471f, -154.01260f, -52.55440f,  -4.71932f,   -608.33167f, -206.12256f, -3.55785f,   -311.02341f,
      -40.05660f,  -0.02891f,   -0.03713f,   -376.90628f, -631.54877f, -3.31185f,   -207.63147f, -274.08853f,
      -347.09061f, -130.01292f, -2.78024f,   -262.00018f, -0.06403f,   -36.53900f,  -617.62823f, -127.05298f,
      -0.02082f,   -304.55280f, -72.69300f,  -3.88233f}},
    {"version_0_1/snapshot.safetensors",
     {10, 1, 12, 0, 11, 2},
     {1, 0, 1, 0, 1, 0},
     {-0.749407f, 0.588152f, -3.352423f, -2.877628f, 9.340575f, -2.170827f},
     {-17.41401f,  -327.20969f, -464.22369f, 0.00000f,    -249.07991f, -327.66962f, -320.53149f, 0.00000f,
      -117.24541f, -212.15199f, -98.21035f,  -52.59164f,  -516.01740f, -179.00616f, -14.29765f,  -303.88147f,
      -36.68253f,  -0.00000f,   0.00000f,    -334.92172f, -531.05994f, -19.51838f,  -233.92827f, -299.15228f,
      -334.32578f, -150.44505f, -45.80083f,  -253.63617f, 0.00000f,    -39.48280f,  -519.06543f, -100.46491f,
      -0.00001f,   -312.26874f, -77.36789f,  -11.87077f}},
};

/* The pictures that the files were made with: noise on a level and stripes of the class. */
static uint32_t state;
static uint8_t pixels[LEARNT][SIDE][SIDE][3];

static uint32_t next(void) {
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

static void fill(const int64_t *labels) {
  for (int i = 0; i < LEARNT; i++) {
    for (int y = 0; y < SIDE; y++) {
      for (int x = 0; x < SIDE; x++) {
        for (int c = 0; c < 3; c++) {
          const int64_t level = (labels[i] * 37 + 20 + 13 * c * labels[i]) % 160;
          const int stripe = (labels[i] % 2 ? x : y) & 4 ? 30 : 0;
          pixels[i][y][x][c] = (uint8_t)(level + next() % 64 + stripe);
        }
      }
    }
  }
}

static dlora_model *load_tiny_model(void) {
  dlora_model *model = NULL;
  assert_status(DLORA_OK, dlora_model_load(&model, test_data("tiny_timm_f32.safetensors"), NULL));
  return model;
}

/* tolerance: of log-probabilities, relative to the largest one. */
static void assert_predicts(const dlora_learner *learner, const struct old_file *file, double tolerance) {
  int64_t labels[LEARNT];
  dlora_prediction found[SHOWN];
  float log_probs[SHOWN * CLASSES], unknown[SHOWN];
  const dlora_images images = {pixels[0][0][0], NULL, SHOWN, SIDE, SIDE, 3};
  for (int i = 0; i < LEARNT; i++) labels[i] = i % 2 ? i % 3 : 10 + i % 3;
  state = 99;
  fill(labels);
  assert_int_equal(dlora_learner_num_classes(learner), CLASSES);
  assert_status(DLORA_OK, dlora_learner_predict(learner, &images, found, log_probs));
  for (int i = 0; i < SHOWN; i++) {
    assert_int_equal(found[i].class_id, file->classes[i]);
    assert_int_equal(found[i].task, file->tasks[i]);
    unknown[i] = found[i].unknown_score;
  }
  assert_close(log_probs, file->log_probs, (size_t)SHOWN * CLASSES, tolerance);
  assert_close(unknown, file->unknown, SHOWN, 10.0 * tolerance);
}

static void checkpoints_of_version_0_1_predict_as_they_did(void **context) {
  (void)context;
  dlora_model *model = load_tiny_model();
  for (size_t f = 0; f < 3; f++) {
    dlora_learner *learner = NULL;
    assert_status(DLORA_OK, dlora_learner_load(&learner, model, test_data(files[f].name), NULL));
    assert_int_equal(dlora_learner_num_tasks(learner), 2);
    assert_string_equal(dlora_learner_get_class_name(learner, 0), "zero");
    assert_true(dlora_learner_get_untouched_weight(learner) == 0.0); /* that version had no blend */
    assert_predicts(learner, &files[f], 1e-4);
    /* And as this version saves them. */
    assert_status(DLORA_OK, dlora_learner_save(learner, test_temporary("again.safetensors")));
    dlora_learner_destroy(learner);
    assert_status(DLORA_OK, dlora_learner_load(&learner, model, test_temporary("again.safetensors"), NULL));
    assert_true(dlora_learner_get_untouched_weight(learner) == 0.0);
    assert_predicts(learner, &files[f], 1e-4);
    dlora_learner_destroy(learner);
  }
  dlora_model_destroy(model);
}

static void a_snapshot_of_version_0_1_goes_on(void **context) {
  (void)context;
  int64_t labels[2][LEARNT];
  const dlora_images images = {pixels[0][0][0], NULL, LEARNT, SIDE, SIDE, 3};
  dlora_open_task open = DLORA_OPEN_TASK_INIT;
  dlora_model *model = load_tiny_model();
  dlora_learner *learner = NULL;
  assert_status(DLORA_OK, dlora_learner_load(&learner, model, test_data(files[3].name), NULL));
  assert_status(DLORA_OK, dlora_learner_get_open_task(learner, &open));
  assert_int_equal(open.is_open, 1);
  assert_int_equal(open.num_steps, 3);
  state = 1;
  for (int task = 0; task < 2; task++) { /* the pictures of the second task follow those of the first */
    for (int i = 0; i < LEARNT; i++) labels[task][i] = 10 * task + i % 3;
    fill(labels[task]);
  }
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &images, labels[1], NULL));
  /* Three more steps on another machine round differently, which training amplifies. */
  assert_predicts(learner, &files[3], 1e-3);
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
}

/* Overwrites one number of an options array in the bytes of a file of format duallora.learner.1. */
static void overwrite(unsigned char *bytes, const char *tensor, size_t index, const void *value, size_t size) {
  size_t length = 0;
  unsigned char *at = test_tensor(bytes, tensor, &length);
  assert_true((index + 1) * size <= length);
  memcpy(at + index * size, value, size);
}

/* What stood for "chosen by the library" in format 1 is DLORA_AUTO; what DLORA_AUTO is today was no value there. */
static void numbers_of_format_1_become_those_of_today(void **context) {
  (void)context;
  static const struct {
    const char *name; /* of the option */
    size_t index;     /* in its array */
    double value;
    const char *now; /* as dlora_learner_options_get tells it; NULL: refused */
  } cases[] = {
      {"epochs", 4, -1, "auto"},
      {"epochs", 4, -2, NULL},
      {"epochs", 4, 7, "7"},
      {"micro_batch", 1, 0, "auto"},
      {"micro_batch", 1, -1, NULL},
      {"micro_batch", 1, 12, "12"},
      {"batch_size", 5, -1, NULL},
      {"first_block", 9, 0, "0"},
      {"routing", 15, 4, "none"},
      {"routing", 15, 5, NULL},
      {"seed", 0, -1, "18446744073709551615"},
      {"flip", 24, -1, NULL},
      {"learning_rate", 1, 0.25, "0.25"},
      {"learning_rate", 1, -1, NULL},
      {"held_out", 9, 0.125, "0.125"},
      {"shrinkage", 7, -1, NULL},
  };
  dlora_model *model = load_tiny_model();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *path = test_temporary("numbers.safetensors");
    const int64_t integer = (int64_t)cases[i].value;
    const float real = (float)cases[i].value;
    const int is_float = strcmp(cases[i].name, "learning_rate") == 0 || strcmp(cases[i].name, "held_out") == 0 ||
                         strcmp(cases[i].name, "shrinkage") == 0;
    dlora_learner *learner = NULL;
    size_t size = 0;
    unsigned char *bytes = test_read_file(test_data("version_0_1/default.safetensors"), &size);
    if (is_float) overwrite(bytes, "learner.options.floats", cases[i].index, &real, sizeof real);
    if (!is_float) overwrite(bytes, "learner.options.integers", cases[i].index, &integer, sizeof integer);
    test_write_file(path, bytes, size);
    free(bytes);
    const dlora_status status = dlora_learner_load(&learner, model, path, NULL);
    if (!cases[i].now) {
      assert_status(DLORA_ERR_FORMAT, status);
      assert_null(learner);
      continue;
    }
    assert_status(DLORA_OK, status);
    dlora_learner_options options = {.struct_size = sizeof options};
    char text[64];
    assert_status(DLORA_OK, dlora_learner_get_options(learner, &options));
    assert_status(DLORA_OK, dlora_learner_options_get(&options, cases[i].name, text, sizeof text));
    assert_string_equal(text, cases[i].now);
    dlora_learner_destroy(learner);
  }
  dlora_model_destroy(model);
}

static void parts_of_version_0_1_load(void **context) {
  (void)context;
  dlora_bank *bank = NULL;
  dlora_predictor *predictor = NULL;
  dlora_projector *projector = NULL;
  assert_status(DLORA_OK, dlora_bank_load(&bank, test_data("version_0_1/bank.safetensors"), NULL));
  assert_int_equal(dlora_bank_num_tasks(bank), 2);
  assert_status(DLORA_OK, dlora_predictor_load(&predictor, test_data("version_0_1/predictor.safetensors"), NULL));
  assert_int_equal(dlora_predictor_num_classes(predictor), CLASSES);
  assert_status(DLORA_OK, dlora_projector_load(&projector, test_data("version_0_1/projector.safetensors"), NULL));
  assert_int_equal(dlora_projector_num_tasks(projector), 2);
  dlora_projector_destroy(projector);
  dlora_predictor_destroy(predictor);
  dlora_bank_destroy(bank);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(checkpoints_of_version_0_1_predict_as_they_did),
      cmocka_unit_test(a_snapshot_of_version_0_1_goes_on),
      cmocka_unit_test(numbers_of_format_1_become_those_of_today),
      cmocka_unit_test(parts_of_version_0_1_load),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
