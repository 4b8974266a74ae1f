/* Data whose classes hardly vary within themselves, or not at all: copies, solid colours, constant columns, features
 * of any size. It is learnt like any other, by the predictor alone and by the learner.
 * SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

/* ---- the predictor alone ---- */

enum { WIDE = 48, NUM = 4, PER_CLASS = 6, ROWS = NUM * PER_CLASS };

enum kind {
  COPIES,           /* bitwise the same features in a class */
  ROUNDING,         /* apart by a rounding or two of few columns */
  ONE_BIT,          /* a thousandth of what classes differ by, in few columns */
  ONE_CONSTANT,     /* one class of copies among varying ones */
  ALL_BUT_ONE,      /* one varying class among copies */
  ONE_EACH,         /* one feature a class */
  CONSTANT_COLUMNS, /* which never change, over ordinary ones */
  IDENTICAL_MEANS,  /* two classes that cannot be told apart, and two that can */
  ZEROS,            /* every value of every feature */
  ORDINARY,         /* to compare with */
  KINDS
};

struct features {
  float x[ROWS * WIDE];
  int64_t labels[ROWS];
  size_t n;
};

static void fill(struct features *f, enum kind kind, float scale, uint32_t seed) {
  float means[NUM][WIDE];
  uint32_t fixed = 77; /* the same means from call to call */
  for (size_t i = 0; i < NUM * WIDE; i++) means[i / WIDE][i % WIDE] = 1.0f + test_normal(&fixed);
  f->n = kind == ONE_EACH ? NUM : ROWS;
  for (size_t i = 0; i < f->n; i++) {
    const size_t c = i % NUM;
    f->labels[i] = (int64_t)c;
    for (size_t j = 0; j < WIDE; j++) {
      const float noise = test_normal(&seed);
      float value = means[c][j];
      const bool varies = kind == ORDINARY || kind == IDENTICAL_MEANS || kind == CONSTANT_COLUMNS ||
                          (kind == ONE_CONSTANT && c > 0) || (kind == ALL_BUT_ONE && c == 0);
      if (kind == ROUNDING && j % 12 == 0) value *= 1.0f + FLT_EPSILON * (float)((int)(noise * 2.0f));
      if (kind == ONE_BIT && j % 8 == 0) value += noise > 0.0f ? 1e-3f : 0.0f;
      if (kind == IDENTICAL_MEANS && c == 1) value = means[0][j];
      if (varies) value += 0.3f * noise;
      if (kind == CONSTANT_COLUMNS && j % 3 == 0) value = 5.0f;
      f->x[i * WIDE + j] = kind == ZEROS ? 0.0f : scale * value;
    }
  }
}

/* Answers are numbers that sum to 1; every class that can be told apart is. */
static void check_answers(const dlora_predictor *predictor, const struct features *f, enum kind kind) {
  const size_t classes = dlora_predictor_num_classes(predictor);
  float *logs = calloc(f->n * classes, sizeof *logs);
  dlora_prediction p[ROWS];
  assert_non_null(logs);
  assert_status(DLORA_OK, dlora_predictor_posterior(predictor, f->x, f->n, NULL, logs, NULL, NULL));
  assert_status(DLORA_OK, dlora_predictor_predict(predictor, f->x, f->n, p));
  for (size_t i = 0; i < f->n; i++) {
    double sum = 0.0;
    for (size_t c = 0; c < classes; c++) sum += exp((double)logs[i * classes + c]);
    assert_true(fabs(sum - 1.0) < 1e-6);
    assert_true(isfinite(p[i].unknown_score));
    if (kind == ZEROS || (kind == IDENTICAL_MEANS && f->labels[i] < 2)) continue;
    if (p[i].class_id != f->labels[i]) {
      fail_msg("kind %d: feature %zu of class %d is taken for class %d", (int)kind, i, (int)f->labels[i],
               (int)p[i].class_id);
    }
    /* classes that cannot be told apart make the temperature doubt all of them */
    assert_true(p[i].class_probability > (kind == IDENTICAL_MEANS ? 0.6f : 0.9f));
  }
  free(logs);
}

static void assert_same_answers(const dlora_predictor *a, const dlora_predictor *b, const struct features *f) {
  dlora_prediction p[ROWS], q[ROWS];
  memset(p, 0, sizeof p);
  memset(q, 0, sizeof q);
  assert_status(DLORA_OK, dlora_predictor_predict(a, f->x, f->n, p));
  assert_status(DLORA_OK, dlora_predictor_predict(b, f->x, f->n, q));
  assert_memory_equal(p, q, f->n * sizeof *p);
}

static dlora_predictor *new_predictor(int32_t readout) {
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  dlora_predictor *predictor = NULL;
  options.readout = readout;
  options.random_features = 300;
  assert_status(DLORA_OK, dlora_predictor_create(&predictor, WIDE, &options));
  return predictor;
}

static void check_kind(enum kind kind, float scale, int32_t readout) {
  struct features f, later;
  float weight[NUM * WIDE], bias[NUM], threshold = 0.0f;
  fill(&f, kind, scale, 11);
  dlora_predictor *predictor = new_predictor(readout), *copy = NULL;
  const char *path = test_temporary("degenerate.safetensors");
  const size_t held_out = kind == ONE_EACH ? 0 : NUM;
  assert_status(DLORA_OK,
                dlora_predictor_observe(predictor, f.x + held_out * WIDE, f.labels + held_out, f.n - held_out));
  if (held_out > 0) {
    assert_status(DLORA_OK, dlora_predictor_observe_held_out(predictor, f.x, f.labels, held_out));
  }
  assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
  check_answers(predictor, &f, kind);
  assert_true(isfinite(dlora_predictor_temperature(predictor)));
  if (kind != ONE_EACH) {
    assert_status(DLORA_OK, dlora_predictor_unknown_threshold(predictor, 0.95f, &threshold));
    assert_true(isfinite(threshold));
  }
  assert_status(DLORA_OK, dlora_predictor_linear_weights(predictor, 0, WIDE, 0, weight, bias));
  for (size_t i = 0; i < NUM * WIDE; i++) assert_true(isfinite(weight[i]));
  for (size_t i = 0; i < NUM; i++) assert_true(isfinite(bias[i]));

  /* A file and a clone answer the same; a half of another machine adds up. */
  assert_status(DLORA_OK, dlora_predictor_save(predictor, path));
  assert_status(DLORA_OK, dlora_predictor_load(&copy, path, NULL));
  assert_same_answers(predictor, copy, &f);
  assert_status(DLORA_OK, dlora_predictor_merge(copy, predictor));
  check_answers(copy, &f, kind);
  dlora_predictor_destroy(copy);
  assert_status(DLORA_OK, dlora_predictor_clone(&copy, predictor));
  assert_same_answers(predictor, copy, &f);
  dlora_predictor_destroy(copy);

  /* Features that drift by a shift common to all are followed: those of the random projection cannot be. */
  if (readout == DLORA_READOUT_GAUSSIAN && kind != ZEROS) {
    for (size_t i = 0; i < f.n * WIDE; i++) f.x[i] += scale;
    float *before = malloc(sizeof f.x);
    assert_non_null(before);
    for (size_t i = 0; i < f.n * WIDE; i++) before[i] = f.x[i] - scale;
    assert_status(DLORA_OK, dlora_predictor_compensate_drift(predictor, before, f.x, f.n, 0, WIDE));
    check_answers(predictor, &f, kind);
    free(before);
    for (size_t i = 0; i < f.n * WIDE; i++) f.x[i] -= scale;
    assert_status(DLORA_OK, dlora_predictor_compensate_drift(predictor, f.x, f.x, f.n, 0, WIDE));
  }

  /* The next task is an ordinary one, and keeps its own probabilities. */
  fill(&later, ORDINARY, kind == ZEROS ? 1.0f : scale, 12);
  for (size_t i = 0; i < later.n; i++) {
    later.labels[i] += 100;
    for (size_t j = 0; j < WIDE; j++) later.x[i * WIDE + j] *= j % 2 ? 1.0f : -1.0f;
  }
  assert_status(DLORA_OK, dlora_predictor_observe(predictor, later.x, later.labels, later.n));
  assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
  check_answers(predictor, &later, ORDINARY);
  dlora_predictor_destroy(predictor);
}

static void every_kind_is_learnt_at_every_scale(void **state) {
  (void)state;
  const float scales[] = {1.0f, 1e-20f, 1e18f};
  for (enum kind kind = COPIES; kind < KINDS; kind++) {
    for (size_t s = 0; s < 3; s++) {
      check_kind(kind, scales[s], DLORA_READOUT_GAUSSIAN);
      check_kind(kind, scales[s], DLORA_READOUT_RANDOM_PROJECTION);
    }
  }
}

/* Two images a class are the least that varies; with as many components as columns the other form of the unknown
 * score is used. */
static void few_columns_and_many_classes_of_copies_are_learnt(void **state) {
  (void)state;
  for (size_t dim = 1; dim < 8; dim++) {
    enum { CLASSES = 6, COUNT = 2 * CLASSES };
    float x[COUNT * 8];
    int64_t labels[COUNT];
    dlora_prediction p[COUNT];
    dlora_predictor *predictor = NULL;
    for (size_t i = 0; i < COUNT; i++) {
      const size_t c = i % CLASSES;
      labels[i] = (int64_t)c;
      for (size_t j = 0; j < dim; j++) {
        x[i * dim + j] = (float)(c + 1 + (c * j) % 3) * (1.0f + (i < CLASSES ? FLT_EPSILON : 0.0f));
      }
    }
    assert_status(DLORA_OK, dlora_predictor_create(&predictor, dim, NULL));
    assert_status(DLORA_OK, dlora_predictor_observe(predictor, x, labels, COUNT));
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    assert_status(DLORA_OK, dlora_predictor_predict(predictor, x, COUNT, p));
    for (size_t i = 0; i < COUNT; i++) {
      assert_int_equal(p[i].class_id, labels[i]);
      assert_true(isfinite(p[i].unknown_score));
    }
    dlora_predictor_destroy(predictor);
  }
}

/* However little shrinkage and ridge the caller asks for, what is singular without them is learnt. */
static void the_least_shrinkage_and_ridge_keep_matrices_invertible(void **state) {
  (void)state;
  struct features f;
  fill(&f, ORDINARY, 1.0f, 13);
  for (int32_t readout = DLORA_READOUT_GAUSSIAN; readout <= DLORA_READOUT_RANDOM_PROJECTION; readout++) {
    dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
    dlora_predictor *predictor = NULL;
    options.readout = readout;
    options.random_features = 300;
    options.shrinkage = FLT_MIN;
    options.ridge = FLT_MIN;
    assert_status(DLORA_OK, dlora_predictor_create(&predictor, WIDE, &options));
    assert_status(DLORA_OK, dlora_predictor_observe(predictor, f.x, f.labels, f.n));
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    check_answers(predictor, &f, ORDINARY);
    dlora_predictor_destroy(predictor);
  }
}

/* A task of copies says nothing of how sure to be about others: what an ordinary task would have alone stays in force.
 */
static void copies_leave_the_temperature_to_other_tasks(void **state) {
  (void)state;
  float found[2];
  for (int after_copies = 0; after_copies < 2; after_copies++) {
    struct features f, noisy;
    dlora_predictor *predictor = new_predictor(DLORA_READOUT_GAUSSIAN);
    fill(&f, ROUNDING, 1.0f, 14);
    fill(&noisy, ORDINARY, 1.0f, 15);
    uint32_t seed = 16;
    for (size_t i = 0; i < ROWS * WIDE; i++) { /* classes that overlap, in places of their own */
      noisy.x[i] = (i % 2 ? 1.0f : -1.0f) * noisy.x[i] + 1.5f * test_normal(&seed);
    }
    if (after_copies) {
      assert_status(DLORA_OK, dlora_predictor_observe(predictor, f.x, f.labels, f.n));
      assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
      assert_float_equal(dlora_predictor_temperature(predictor), 2.0f, 1e-6f);
    }
    for (size_t i = 0; i < ROWS; i++) noisy.labels[i] += 50;
    assert_status(DLORA_OK, dlora_predictor_observe(predictor, noisy.x, noisy.labels, noisy.n));
    assert_status(DLORA_OK, dlora_predictor_commit_task(predictor));
    found[after_copies] = dlora_predictor_temperature(predictor);
    dlora_predictor_destroy(predictor);
  }
  assert_true(found[1] > 0.3f * found[0] && found[1] < 3.0f * found[0]);
}

/* ---- the learner ---- */

enum { ONE = 3 * VIT_SIZE * VIT_SIZE };
enum pictures { SOLID, COPIED, ONE_SOLID, ONE_BIT_NOISE, ONE_IMAGE, PICTURES };
static const int64_t three[] = {5, 6, 7}, later[] = {8, 9};

static struct test_pictures draw(enum pictures kind, uint32_t seed) {
  static const uint8_t colours[3][3] = {{200, 30, 30}, {30, 200, 30}, {30, 30, 200}};
  struct test_pictures p = test_pictures(three, 3, kind == ONE_IMAGE ? 1 : 4, seed);
  for (size_t i = 0; i < p.images.count; i++) {
    uint8_t *image = p.pixels + i * ONE;
    for (size_t j = 0; j < ONE; j++) {
      const uint8_t colour = colours[i % 3][j % 3];
      if (kind == SOLID || (kind == ONE_SOLID && i % 3 == 0)) image[j] = colour;
      if (kind == ONE_BIT_NOISE) image[j] = (uint8_t)(colour | (test_uniform(&seed) > 0.0f ? 1 : 0));
    }
    if (kind == COPIED && i >= 3) memcpy(image, p.pixels + i % 3 * ONE, ONE);
  }
  return p;
}

static void check_learner(dlora_model *model, const dlora_learner_options *options, enum pictures kind) {
  struct test_pictures p = draw(kind, 3);
  const char *path = test_temporary("degenerate_learner.safetensors");
  dlora_learner *learner = test_learner(model, options), *loaded = NULL;
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  assert_true(test_accuracy(learner, &p) > 0.999);
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
  assert_true(test_accuracy(loaded, &p) > 0.999);
  dlora_learner_destroy(loaded);
  test_learn(learner, later, 2, 12, 4, NULL); /* an ordinary task follows */
  struct test_pictures ordinary = test_pictures(later, 2, 12, 5);
  assert_true(test_accuracy(learner, &ordinary) > 0.65); /* a random network, 12 images a class */
  test_pictures_free(&ordinary);
  dlora_learner_destroy(learner);
  test_pictures_free(&p);
}

static void every_kind_is_learnt_by_every_preset(void **state) {
  (void)state;
  dlora_model *model = test_load_vit(1, NULL);
  for (enum pictures kind = SOLID; kind < PICTURES; kind++) {
    /* where nothing varies and where hardly anything does: all; else the two presets */
    for (int preset = 0; preset < (kind == SOLID || kind == ONE_BIT_NOISE ? 6 : 2); preset++) {
      dlora_learner_options options = test_quick_options();
      if (preset == 0) options = test_default_options();
      if (preset == 1) assert_status(DLORA_OK, dlora_learner_options_paper(&options, sizeof options));
      if (preset == 2) options.routing = DLORA_ROUTING_EARLY;
      if (preset == 3) options.rank_orthogonal = options.rank_residual = 0;
      if (preset == 4) options.readout = DLORA_READOUT_RANDOM_PROJECTION, options.random_features = 200;
      if (preset == 5) options.flip = DLORA_FLIP_NONE, options.class_scores = DLORA_CLASS_SCORES_STATISTICS;
      options.threads = 1;
      check_learner(model, &options, kind);
    }
  }
  dlora_model_destroy(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_kind_is_learnt_at_every_scale),
      cmocka_unit_test(few_columns_and_many_classes_of_copies_are_learnt),
      cmocka_unit_test(the_least_shrinkage_and_ridge_keep_matrices_invertible),
      cmocka_unit_test(copies_leave_the_temperature_to_other_tasks),
      cmocka_unit_test(every_kind_is_learnt_by_every_preset),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
