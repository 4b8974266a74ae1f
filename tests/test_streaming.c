/* A task in the caller's own loop, and the callbacks around the built-in one: progress, cancelling, reading.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

static const int64_t four[] = {1, 2, 3, 4};
static dlora_model *model;

/* A source that writes down which images it was asked for. */
struct recorder {
  const dlora_images *images;
  size_t order[4096], count;
  size_t fail_at; /* call that fails; SIZE_MAX: none */
};

static int32_t read_and_record(size_t index, dlora_images *image, void *user) {
  struct recorder *r = user;
  if (r->count == r->fail_at) return 1;
  assert_true(r->count < 4096);
  r->order[r->count++] = index;
  *image = test_part(r->images, index, 1);
  return 0;
}

static dlora_image_source recorded(struct recorder *r, const struct test_pictures *p) {
  *r = (struct recorder){.images = &p->images, .fail_at = SIZE_MAX};
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = read_and_record;
  source.user = r;
  source.count = p->images.count;
  source.labels = p->labels;
  return source;
}

/* Images in the given order, as one batch. */
static struct test_pictures gather(const struct test_pictures *p, const size_t *order, size_t count) {
  const size_t one = p->images.height * p->images.width * p->images.channels;
  struct test_pictures g = {.pixels = malloc(count * one), .labels = malloc(count * sizeof *g.labels)};
  assert_true(g.pixels && g.labels);
  for (size_t i = 0; i < count; i++) {
    memcpy(g.pixels + i * one, p->pixels + order[i] * one, one);
    g.labels[i] = p->labels[order[i]];
  }
  g.images = p->images;
  g.images.u8 = g.pixels;
  g.images.count = count;
  return g;
}

/* ---- the caller's own loop ---- */

/* Fed the same images in the same order and batches, it is the built-in loop bit by bit, in two tasks, with random
 * flips and shifts, and with images that are resized. */
static void an_own_loop_learns_bitwise_the_same(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.crop_padding = 2;
  dlora_learner *built_in = test_learner(model, &options), *own = test_learner(model, &options);
  for (size_t t = 0; t < 2; t++) {
    struct test_pictures p = test_pictures_sized(four + 2 * t, 2, 20, (uint32_t)t + 1, 20, 23, 3);
    struct recorder recorder;
    const dlora_image_source source = recorded(&recorder, &p);
    dlora_task_report reports[2] = {DLORA_TASK_REPORT_INIT, DLORA_TASK_REPORT_INIT};
    assert_status(DLORA_OK, dlora_learner_learn_source(built_in, &source, &reports[0]));
    /* Read once before, once per epoch (a tenth held out), once after. */
    const size_t count = p.images.count, steps = reports[0].num_steps;
    const size_t epochs = (size_t)options.epochs, trained = (recorder.count - 2 * count) / epochs;
    assert_int_equal(recorder.count, 2 * count + epochs * trained);
    assert_true(trained >= count - 5 && trained <= count - 3);
    assert_int_equal(steps, epochs * ((trained + 15) / 16));

    struct test_pictures before = gather(&p, recorder.order, count);
    assert_status(DLORA_OK, dlora_learner_begin_task(own, steps));
    assert_status(DLORA_OK, dlora_learner_observe(own, &before.images, before.labels));
    assert_status(DLORA_OK, dlora_learner_begin_training(own));
    size_t at = count;
    for (size_t e = 0; e < epochs; e++) {
      for (size_t first = 0, size; first < trained; first += size) {
        size = trained - first < 16 ? trained - first : 16;
        struct test_pictures batch = gather(&p, recorder.order + at, size);
        float loss = NAN;
        assert_status(DLORA_OK, dlora_learner_step(own, &batch.images, batch.labels, &loss));
        assert_true(isfinite(loss) && loss >= 0.0f);
        test_pictures_free(&batch);
        at += size;
      }
    }
    assert_status(DLORA_OK, dlora_learner_observe_trained(own, &before.images, before.labels));
    assert_int_equal(dlora_learner_num_tasks(own), t); /* not before the end */
    assert_status(DLORA_OK, dlora_learner_commit_task(own, &reports[1]));
    assert_int_equal(dlora_learner_num_tasks(own), t + 1);
    test_assert_same_learner(built_in, own);
    assert_true(reports[0].first_loss == reports[1].first_loss && reports[0].last_loss == reports[1].last_loss);
    test_pictures_free(&before);
    test_pictures_free(&p);
  }
  dlora_learner_destroy(built_in);
  dlora_learner_destroy(own);
}

static void batches_may_come_in_any_portions(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four, 2, 20, 1), unseen = test_pictures(four, 2, 20, 60);
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 0)); /* constant learning rate */
  for (int round = 0; round < 2; round++) {
    for (size_t first = 0, size = 1; first < 40; first += size, size = size < 40 - first - size ? size + 1 : 0) {
      if (!size) break;
      const dlora_images part = test_part(&p.images, first, size);
      assert_status(DLORA_OK, round ? dlora_learner_observe_trained(learner, &part, p.labels + first)
                                    : dlora_learner_observe(learner, &part, p.labels + first));
    }
    if (!round) assert_status(DLORA_OK, dlora_learner_begin_training(learner));
    for (size_t i = 0; !round && i < 30; i++) {
      const size_t first = (7 * i) % 33, size = 1 + i % 7; /* a batch larger than a micro-batch comes last */
      const dlora_images part = test_part(&p.images, i == 29 ? 0 : first, i == 29 ? 40 : size);
      assert_status(DLORA_OK, dlora_learner_step(learner, &part, p.labels + (i == 29 ? 0 : first), NULL));
    }
  }
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, &report));
  assert_int_equal(report.num_steps, 30);
  assert_int_equal(report.num_classes, 2);
  assert_true(test_accuracy(learner, &unseen) > 0.7);
  test_pictures_free(&p);
  test_pictures_free(&unseen);
  dlora_learner_destroy(learner);
}

static void images_may_come_in_another_order_after_training(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four, 4, 10, 1);
  const char *path = test_temporary("other-order.safetensors");
  dlora_learner_options options = test_quick_options();
  options.untouched_baseline = 1;
  dlora_learner *learner = test_learner(model, &options), *loaded = NULL;
  const dlora_image_source source = test_source_of(&p);
  dlora_evaluation evaluations[2] = {DLORA_EVALUATION_INIT, DLORA_EVALUATION_INIT};
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 1));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(learner));
  assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, NULL));
  for (size_t i = 40; i-- > 0;) {
    const dlora_images one = test_part(&p.images, i, 1);
    assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &one, p.labels + i));
  }
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL));
  assert_true(test_accuracy(learner, &p) > 0.8);
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &options));
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, &evaluations[0]));
  assert_status(DLORA_OK, dlora_learner_evaluate(loaded, &source, &evaluations[1]));
  assert_true(evaluations[0].untouched_accuracy > 0.7);
  assert_memory_equal(&evaluations[0].untouched_accuracy, &evaluations[1].untouched_accuracy, sizeof(double));
  test_pictures_free(&p);
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(learner);
}

/* Calls of an own loop, by the images p. */
enum call { BEGIN, OBSERVE, BEGIN_TRAINING, STEP, OBSERVE_TRAINED, COMMIT, DISCARD, CALLS };
static const char *const names_of_calls[CALLS] = {
    "dlora_learner_begin_task",      "dlora_learner_observe",     "dlora_learner_begin_training", "dlora_learner_step",
    "dlora_learner_observe_trained", "dlora_learner_commit_task", "dlora_learner_discard_task"};

static dlora_status make(dlora_learner *learner, enum call call, const struct test_pictures *p) {
  switch (call) {
    case BEGIN:
      return dlora_learner_begin_task(learner, 3);
    case OBSERVE:
      return dlora_learner_observe(learner, &p->images, p->labels);
    case BEGIN_TRAINING:
      return dlora_learner_begin_training(learner);
    case STEP:
      return dlora_learner_step(learner, &p->images, p->labels, NULL);
    case OBSERVE_TRAINED:
      return dlora_learner_observe_trained(learner, &p->images, p->labels);
    case COMMIT:
      return dlora_learner_commit_task(learner, NULL);
    default:
      return dlora_learner_discard_task(learner);
  }
}

/* Where a task stands, the calls that may not come there, and the call that their sentence must name. */
struct place {
  enum call last; /* made last; BEGIN on is a task */
  const char *named;
  enum call refused[5];
  size_t num_refused;
};
static const struct place places[] = {
    {DISCARD, "call dlora_learner_begin_task", {OBSERVE, BEGIN_TRAINING, STEP, OBSERVE_TRAINED, COMMIT}, 5},
    {BEGIN, "call dlora_learner_observe first", {BEGIN_TRAINING, STEP, OBSERVE_TRAINED, COMMIT}, 4},
    {OBSERVE, "call dlora_learner_begin_training", {STEP, OBSERVE_TRAINED}, 2},
    {BEGIN_TRAINING, "call dlora_learner_step", {OBSERVE, BEGIN_TRAINING, COMMIT}, 3},
    {STEP, "call dlora_learner_step", {OBSERVE, BEGIN_TRAINING, COMMIT}, 3},
    {OBSERVE_TRAINED, "call dlora_learner_observe_trained", {OBSERVE, BEGIN_TRAINING, STEP}, 3},
};

static void calls_in_the_wrong_order_are_refused_and_the_task_goes_on(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four, 2, 10, 1);
  dlora_learner_options options = test_quick_options();
  const dlora_image_source source = test_source_of(&p);
  dlora_learner *straight = test_learner(model, &options), *astray = test_learner(model, &options);
  for (size_t t = 0; t < 2; t++) {
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
      const struct place *place = &places[i];
      if (place->last != DISCARD) {
        assert_status(DLORA_OK, make(straight, place->last, &p));
        assert_status(DLORA_OK, make(astray, place->last, &p));
      }
      for (size_t k = 0; k < place->num_refused; k++) {
        const enum call call = place->refused[k];
        if (make(astray, call, &p) != DLORA_ERR_STATE) fail_msg("%s at place %zu", names_of_calls[call], i);
        assert_error_names(names_of_calls[call]);
        assert_error_names(place->named);
      }
      if (place->last == DISCARD) {
        assert_status(DLORA_ERR_STATE, make(astray, DISCARD, &p));
        assert_error_names(place->named);
      } else {
        assert_status(DLORA_ERR_STATE, make(astray, BEGIN, &p));
        assert_error_names("call dlora_learner_commit_task or dlora_learner_discard_task");
        assert_status(DLORA_ERR_STATE, dlora_learner_learn_task(astray, &p.images, p.labels, NULL));
        assert_status(DLORA_ERR_STATE, dlora_learner_learn_source(astray, &source, NULL));
        assert_error_names("call dlora_learner_commit_task or dlora_learner_discard_task");
      }
      test_assert_same_learner(straight, astray); /* the open task is part of what is saved */
    }
    assert_status(DLORA_OK, make(straight, COMMIT, &p));
    assert_status(DLORA_OK, make(astray, COMMIT, &p));
    test_assert_same_learner(straight, astray);
  }
  assert_int_equal(dlora_learner_num_tasks(astray), 2);
  test_pictures_free(&p);
  dlora_learner_destroy(astray);
  dlora_learner_destroy(straight);
}

static void a_learner_without_tasks_predicts_nothing(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four, 2, 10, 1);
  dlora_learner_options options = test_quick_options();
  dlora_prediction prediction[20];
  float features[20 * VIT_DIM];
  dlora_learner *learner = test_learner(model, &options);
  const dlora_image_source source = test_source_of(&p);
  for (int open = 0; open < 2; open++) {
    assert_status(DLORA_ERR_STATE, dlora_learner_predict(learner, &p.images, prediction, NULL));
    assert_error_names("learn a task first");
    assert_status(DLORA_ERR_STATE, dlora_learner_evaluate(learner, &source, NULL));
    assert_status(DLORA_OK, dlora_learner_embed(learner, &p.images, NULL, features));
    if (!open) assert_status(DLORA_OK, dlora_learner_begin_task(learner, 3));
  }
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

static void labels_that_were_not_observed_are_refused(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four, 2, 10, 1);
  dlora_learner_options options = test_quick_options();
  int64_t strange[20];
  for (size_t i = 0; i < 20; i++) strange[i] = i == 7 ? 999 : p.labels[i];
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 3));
  assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
  assert_status(DLORA_OK, dlora_learner_begin_training(learner));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_step(learner, &p.images, strange, NULL));
  assert_error_names("label 999 of image 7");
  assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_observe_trained(learner, &p.images, strange));
  assert_error_names("label 999 of image 7");
  assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, NULL)); /* the steps have not ended */
  const dlora_images one = test_part(&p.images, 0, 1);
  assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &one, p.labels));
  assert_status(DLORA_ERR_STATE, dlora_learner_commit_task(learner, NULL));
  assert_error_names("1 of the task's 2 classes");
  assert_error_names("call dlora_learner_observe_trained");
  assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &p.images, p.labels)); /* the task went on */
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL));
  assert_int_equal(dlora_learner_num_tasks(learner), 1);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* Factors B start at 0: without a step the adapters change nothing, and the task is one of statistics alone. */
static void training_without_a_step_leaves_the_features(void **state) {
  (void)state;
  enum { SHOWN = 40 };
  struct test_pictures p = test_pictures(four, 2, 20, 1), unseen = test_pictures(four, 2, SHOWN / 2, 60);
  dlora_learner_options options = test_quick_options();
  dlora_learner *learners[2];
  float log_probs[2][SHOWN * 2], features[2][SHOWN * VIT_DIM];
  dlora_prediction predictions[SHOWN];
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  for (int trained = 0; trained < 2; trained++) {
    dlora_learner *learner = learners[trained] = test_learner(model, &options);
    assert_status(DLORA_OK, dlora_learner_begin_task(learner, 0));
    assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
    if (trained) {
      assert_status(DLORA_OK, dlora_learner_begin_training(learner));
      assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &p.images, p.labels));
    }
    assert_status(DLORA_OK, dlora_learner_commit_task(learner, &report));
    assert_int_equal(report.num_steps, 0);
    assert_true(isnan(report.first_loss) && isnan(report.last_loss));
    assert_int_equal(report.rank_orthogonal_min, trained ? options.rank_orthogonal : 0);
    assert_status(DLORA_OK, dlora_learner_predict(learner, &unseen.images, predictions, log_probs[trained]));
    assert_status(DLORA_OK, dlora_learner_embed(learner, &unseen.images, NULL, features[trained]));
  }
  assert_close(features[1], features[0], (size_t)SHOWN * VIT_DIM, 1e-5);
  assert_close(log_probs[1], log_probs[0], (size_t)SHOWN * 2, 1e-3);
  dlora_learner_destroy(learners[0]);
  dlora_learner_destroy(learners[1]);
  test_pictures_free(&unseen);
  test_pictures_free(&p);
}

static void a_discarded_task_leaves_no_trace(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four + 2, 2, 10, 2);
  dlora_learner_options options = test_quick_options();
  options.untouched_baseline = 1;
  for (int earlier = 0; earlier < 2; earlier++) {
    dlora_learner *learner = test_learner(model, &options);
    if (earlier) test_learn(learner, four, 2, 10, 1, NULL);
    for (int stage = 0; stage < 5; stage++) {
      size_t sizes[2];
      unsigned char *before = test_saved(learner, &sizes[0]);
      assert_status(DLORA_OK, dlora_learner_begin_task(learner, 3));
      if (stage > 0) assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
      if (stage > 1) assert_status(DLORA_OK, dlora_learner_begin_training(learner));
      if (stage > 2) assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, NULL));
      if (stage > 3) assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &p.images, p.labels));
      assert_status(DLORA_OK, dlora_learner_discard_task(learner));
      unsigned char *after = test_saved(learner, &sizes[1]);
      assert_int_equal(sizes[0], sizes[1]);
      assert_memory_equal(before, after, sizes[0]);
      free(before);
      free(after);
    }
    dlora_learner_destroy(learner);
  }
  test_pictures_free(&p);
}

/* ---- progress ---- */

struct watch {
  dlora_progress calls[512];
  size_t count;
  int32_t cancel_phase; /* -1: none */
  size_t cancel_done;
};

static int32_t watch_progress(const dlora_progress *progress, void *user) {
  struct watch *w = user;
  assert_true(w->count < 512);
  assert_int_equal(progress->struct_size, sizeof *progress);
  w->calls[w->count++] = *progress;
  return progress->phase == w->cancel_phase && progress->done >= w->cancel_done ? 7 : 0;
}

static void progress_tells_phases_and_amounts(void **state) {
  (void)state;
  struct watch watch = {.cancel_phase = -1};
  struct test_pictures p = test_pictures(four, 2, 20, 1);
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_set_progress(learner, watch_progress, &watch));
  for (size_t t = 0; t < 2; t++) {
    watch.count = 0;
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    const size_t totals[] = {40, 2 * 3, 40}; /* 36 trained images in batches of 16 */
    int32_t phase = DLORA_PHASE_OBSERVE;
    size_t done = 0;
    for (size_t i = 0; i < watch.count; i++) {
      const dlora_progress *c = &watch.calls[i];
      if (c->phase != phase) { /* one after the other, each to its end */
        assert_int_equal(done, totals[phase]);
        assert_int_equal(c->phase, phase + 1);
        phase = c->phase;
        done = 0;
      }
      assert_int_equal(c->task, t);
      assert_int_equal(c->total, totals[phase]);
      assert_true(c->done > done && c->done <= c->total);
      assert_true(phase == DLORA_PHASE_TRAIN ? isfinite(c->loss) : isnan(c->loss));
      assert_true(isfinite(c->images_per_second) && c->images_per_second >= 0.0);
      done = c->done;
    }
    assert_int_equal(phase, DLORA_PHASE_STATISTICS);
    assert_int_equal(done, 40);
  }
  watch.count = 0;
  const dlora_image_source source = test_source_of(&p);
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, NULL));
  assert_true(watch.count > 0);
  assert_int_equal(watch.calls[watch.count - 1].phase, DLORA_PHASE_EVALUATE);
  assert_int_equal(watch.calls[watch.count - 1].done, 40);
  assert_int_equal(watch.calls[watch.count - 1].total, 40);
  assert_int_equal(watch.calls[0].task, 2);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

static void cancelling_in_any_phase_leaves_the_learner_as_it_was(void **state) {
  (void)state;
  struct watch watch = {.cancel_phase = -1};
  struct test_pictures p = test_pictures(four + 2, 2, 20, 2);
  dlora_learner_options options = test_quick_options();
  const dlora_image_source source = test_source_of(&p);
  dlora_learner *learner = test_learner(model, &options), *straight = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_set_progress(learner, watch_progress, &watch));
  for (int earlier = 0; earlier < 2; earlier++) {
    size_t sizes[2];
    unsigned char *before = test_saved(learner, &sizes[0]);
    for (int32_t phase = DLORA_PHASE_OBSERVE; phase <= DLORA_PHASE_EVALUATE; phase++) {
      if (phase == DLORA_PHASE_EVALUATE && !earlier) continue;
      for (size_t done = 1; done <= 40; done += 39) {
        watch = (struct watch){.cancel_phase = phase, .cancel_done = phase == DLORA_PHASE_TRAIN && done > 1 ? 6 : done};
        assert_status(DLORA_ERR_CANCELLED, phase == DLORA_PHASE_EVALUATE
                                               ? dlora_learner_evaluate(learner, &source, NULL)
                                               : dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
        assert_error_names("cancelled");
        unsigned char *after = test_saved(learner, &sizes[1]);
        assert_int_equal(sizes[0], sizes[1]);
        assert_memory_equal(before, after, sizes[0]);
        free(after);
      }
    }
    free(before);
    /* And what is learnt then is what would have been learnt anyway. */
    watch = (struct watch){.cancel_phase = -1};
    test_learn(learner, earlier ? four : four + 2, 2, 20, 1, NULL);
    watch = (struct watch){.cancel_phase = -1};
    test_learn(straight, earlier ? four : four + 2, 2, 20, 1, NULL);
    test_assert_same_learner(learner, straight);
  }
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
  dlora_learner_destroy(straight);
}

/* ---- sources ---- */

static void a_source_that_cannot_be_read_is_named_and_rolled_back(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four, 2, 20, 1);
  struct recorder recorder;
  dlora_image_source source = recorded(&recorder, &p);
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  const size_t all = 2 * 40 + 2 * 36;
  size_t size = 0, same = 0;
  unsigned char *before = test_saved(learner, &size);
  for (size_t fail = 0; fail < all; fail += 13) {
    recorder.count = 0;
    recorder.fail_at = fail;
    assert_status(DLORA_ERR_IO, dlora_learner_learn_source(learner, &source, NULL));
    assert_error_names("of the source could not be read");
    if (fail < 40) {
      char name[32];
      snprintf(name, sizeof name, "image %zu of", fail);
      assert_error_names(name);
    }
    unsigned char *after = test_saved(learner, &same);
    assert_int_equal(size, same);
    assert_memory_equal(before, after, size);
    free(after);
  }
  free(before);
  recorder.count = 0;
  recorder.fail_at = SIZE_MAX;
  assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
  recorder.count = 0;
  recorder.fail_at = 3;
  assert_status(DLORA_ERR_IO, dlora_learner_evaluate(learner, &source, NULL));
  assert_error_names("image 3 of");
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

static void observed_images_are_limited_to_a_sample(void **state) {
  (void)state;
  struct test_pictures p = test_pictures(four, 2, 40, 1);
  dlora_learner_options options = test_quick_options();
  options.max_observed_images = 10;
  dlora_learner *learner = test_learner(model, &options);
  struct recorder recorder;
  const dlora_image_source source = recorded(&recorder, &p);
  assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
  /* A permutation, so that the first ten are of all classes. */
  size_t seen[80] = {0}, moved = 0;
  for (size_t i = 0; i < 80; i++) {
    seen[recorder.order[i]]++;
    moved += recorder.order[i] != i;
  }
  for (size_t i = 0; i < 80; i++) assert_int_equal(seen[i], 1);
  assert_true(moved > 40);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* ---- memory ---- */

static void a_step_allocates_nothing(void **state) {
  (void)state;
  struct test_memory memory;
  struct test_pictures p = test_pictures(four, 2, 20, 1);
  for (size_t threads = 1; threads <= 2; threads++) {
    for (int32_t train_a = 0; train_a < 2; train_a++) {
      test_memory_start(&memory);
      dlora_learner_options options = test_quick_options();
      options.allocator = &memory.allocator;
      options.threads = (int32_t)threads;
      options.train_orthogonal_a = train_a;
      dlora_learner *learner = test_learner(model, &options);
      test_learn(learner, four + 2, 2, 10, 2, NULL);
      assert_status(DLORA_OK, dlora_learner_begin_task(learner, 10));
      assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
      assert_status(DLORA_OK, dlora_learner_begin_training(learner));
      const size_t total = memory.total;
      for (size_t i = 0; i < 4; i++) {
        const dlora_images part = test_part(&p.images, 5 * i, 1 + 7 * i);
        assert_status(DLORA_OK, dlora_learner_step(learner, &part, p.labels + 5 * i, NULL));
      }
      assert_int_equal(memory.total, total);
      dlora_learner_destroy(learner); /* with the task open */
      assert_int_equal(memory.live, 0);
    }
  }
  test_pictures_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_own_loop_learns_bitwise_the_same),
      cmocka_unit_test(batches_may_come_in_any_portions),
      cmocka_unit_test(images_may_come_in_another_order_after_training),
      cmocka_unit_test(calls_in_the_wrong_order_are_refused_and_the_task_goes_on),
      cmocka_unit_test(a_learner_without_tasks_predicts_nothing),
      cmocka_unit_test(labels_that_were_not_observed_are_refused),
      cmocka_unit_test(training_without_a_step_leaves_the_features),
      cmocka_unit_test(a_discarded_task_leaves_no_trace),
      cmocka_unit_test(progress_tells_phases_and_amounts),
      cmocka_unit_test(cancelling_in_any_phase_leaves_the_learner_as_it_was),
      cmocka_unit_test(a_source_that_cannot_be_read_is_named_and_rolled_back),
      cmocka_unit_test(observed_images_are_limited_to_a_sample),
      cmocka_unit_test(a_step_allocates_nothing),
  };
  return test_run_with_vit(tests, &model);
}
