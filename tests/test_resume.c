/* A task that is cut short goes on from its snapshot, and ends bitwise as if nothing had happened.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support_model.h"

static const int64_t four[] = {1, 2, 3, 4};
static dlora_model *model;

/* A scratch file's path that lives until the end, unlike test_temporary's. */
static const char *scratch(const char *name) {
  static char paths[32][512];
  static const char *names[32];
  size_t i = 0;
  while (i < 32 && names[i] && strcmp(names[i], name) != 0) i++;
  assert_true(i < 32);
  if (!names[i]) snprintf(paths[i], sizeof paths[i], "%s", test_temporary(name));
  names[i] = name;
  return paths[i];
}

/* ---- ways to learn ---- */

static void plain_defaults(dlora_learner_options *o) {
  o->crop_padding = 2;
  o->first_block = 0; /* what statistics read is adapted too */
}

static void random_projection(dlora_learner_options *o) {
  o->readout = DLORA_READOUT_RANDOM_PROJECTION;
  o->random_features = 60;
}

static void trained_a(dlora_learner_options *o) {
  o->train_orthogonal_a = 1;
  o->untouched_baseline = 1;
}

static void momentum(dlora_learner_options *o) {
  o->optimizer = DLORA_OPTIMIZER_SGD;
  o->learning_rate = 0.02f;
  o->weight_decay = 0.01f;
  o->residual_basis = DLORA_RESIDUAL_RANDOM;
}

static void paper(dlora_learner_options *o) {
  const dlora_learner_options quick = *o;
  assert_status(DLORA_OK, dlora_learner_options_paper(o, sizeof *o));
  o->seed = quick.seed;
  o->threads = quick.threads;
  o->micro_batch = quick.micro_batch;
  o->rank_orthogonal = o->rank_residual = 4;
  o->epochs = 2;
  o->batch_size = 16;
  o->held_out = 0.1f;
  o->sites = DLORA_SITE_QUERY | DLORA_SITE_FC2;
}

static void fixed_head(dlora_learner_options *o) {
  o->train_head = 0;
  o->rank_residual = 0;
  o->held_out = 0.0f;
  o->schedule = DLORA_SCHEDULE_CONSTANT;
}

static void sampled(dlora_learner_options *o) {
  o->max_observed_images = 20;
  o->observed_tokens = DLORA_TOKENS_CLASS;
  o->residual_basis = DLORA_RESIDUAL_IN_USED;
  o->threads = 2;
  o->micro_batch = 5;
  o->first_block = 0;
}

/* 36 steps of four images, more than two epochs have. */
static void automatic_epochs(dlora_learner_options *o) {
  o->epochs = DLORA_AUTO;
  o->batch_size = 4;
  o->first_block = VIT_DEPTH - 1;
}

static void no_training(dlora_learner_options *o) {
  o->rank_orthogonal = o->rank_residual = 0;
}

static void (*const ways[])(dlora_learner_options *) = {
    plain_defaults, random_projection, trained_a, momentum, paper, fixed_head, sampled, automatic_epochs, no_training};
enum { NUM_WAYS = sizeof ways / sizeof ways[0] };

/* Task 1 knows a class of task 0 again. */
static struct test_pictures pictures_of(size_t task) {
  return test_pictures(four + (task ? 1 : 0), 2, 20, (uint32_t)task + 1);
}

/* Asks to stop after a number of calls. */
struct stopper {
  size_t calls, stop_at;
  char warning[512];
};

static int32_t stop_after(const dlora_progress *progress, void *user) {
  struct stopper *stopper = user;
  (void)progress;
  return ++stopper->calls == stopper->stop_at;
}

static void keep_warning(int32_t level, const char *message, void *user) {
  struct stopper *stopper = user;
  if (level == DLORA_LOG_WARNING) snprintf(stopper->warning, sizeof stopper->warning, "%s", message);
}

static struct stopper *watching; /* of the running test */

static dlora_learner_options options_of(size_t way, struct stopper *stopper) {
  dlora_learner_options options = test_quick_options();
  ways[way](&options);
  *stopper = (struct stopper){.stop_at = SIZE_MAX};
  watching = stopper;
  return options;
}

static void watch(dlora_learner *learner) {
  assert_status(DLORA_OK, dlora_learner_set_progress(learner, stop_after, watching));
  assert_status(DLORA_OK, dlora_learner_set_log(learner, keep_warning, watching));
}

static dlora_learner *create(const dlora_learner_options *options) {
  dlora_learner *learner = test_learner(model, options);
  watch(learner);
  return learner;
}

static dlora_open_task open_task(const dlora_learner *learner) {
  dlora_open_task task = DLORA_OPEN_TASK_INIT;
  assert_status(DLORA_OK, dlora_learner_get_open_task(learner, &task));
  return task;
}

static dlora_learner *load(const char *path, const dlora_learner_options *options) {
  dlora_learner *learner = NULL;
  assert_status(DLORA_OK, dlora_learner_load(&learner, model, path, options));
  watch(learner);
  return learner;
}

static void expect_saved(const dlora_learner *learner, const unsigned char *expected, size_t expected_size) {
  size_t size = 0;
  unsigned char *bytes = test_saved(learner, &size);
  assert_int_equal(size, expected_size);
  assert_memory_equal(bytes, expected, size);
  free(bytes);
}

/* ---- the built-in loop ---- */

/* Stopped after every single batch of every phase, in the second task, and with the defaults in the first one too. */
static void a_stopped_task_ends_bitwise_as_an_unstopped_one(void **state) {
  (void)state;
  for (size_t way = 0; way < NUM_WAYS; way++) {
    struct stopper stopper;
    dlora_learner_options options = options_of(way, &stopper);
    const char *path = scratch("stopped.safetensors"), *start = scratch("start.safetensors");
    dlora_learner *straight = create(&options);
    if (way) test_learn(straight, four, 2, 20, 1, NULL);
    for (size_t t = way ? 1 : 0; t < 2; t++) {
      struct test_pictures p = pictures_of(t);
      dlora_task_report reports[2] = {DLORA_TASK_REPORT_INIT, DLORA_TASK_REPORT_INIT};
      assert_status(DLORA_OK, dlora_learner_save(straight, start));
      stopper.calls = 0;
      assert_status(DLORA_OK, dlora_learner_learn_task(straight, &p.images, p.labels, &reports[0]));
      const size_t calls = stopper.calls;
      size_t size = 0, before_size = 0;
      unsigned char *expected = test_saved(straight, &size);
      unsigned char *before = test_read_file(start, &before_size);
      assert_true(calls >= (way == NUM_WAYS - 1 ? 3 : 12));
      for (size_t stop_at = 1; stop_at <= calls; stop_at++) {
        stopper = (struct stopper){.stop_at = stop_at};
        dlora_learner *first = load(start, &options);
        assert_status(DLORA_OK, dlora_learner_set_snapshot(first, path, 0));
        assert_status(DLORA_ERR_CANCELLED, dlora_learner_learn_task(first, &p.images, p.labels, NULL));
        assert_int_equal(open_task(first).is_open, 0);
        expect_saved(first, before, before_size); /* as it was before the task */
        dlora_learner_destroy(first);

        stopper = (struct stopper){.stop_at = SIZE_MAX};
        dlora_learner *second = load(path, &options);
        const dlora_open_task open = open_task(second);
        assert_int_equal(dlora_learner_num_tasks(second), t);
        assert_int_equal(open.is_open, 1);
        assert_int_equal(open.num_source_images, 40);
        assert_int_equal(open.num_classes, 2);
        assert_int_equal(open.planned_steps, reports[0].num_steps);
        assert_status(DLORA_OK, dlora_learner_learn_task(second, &p.images, p.labels, &reports[1]));
        assert_int_equal(stopper.calls, calls - stop_at); /* nothing is done twice */
        assert_int_equal(reports[1].num_steps, reports[0].num_steps);
        assert_int_equal(reports[1].num_images, 40);
        assert_memory_equal(&reports[0].first_loss, &reports[1].first_loss, sizeof(double));
        assert_memory_equal(&reports[0].last_loss, &reports[1].last_loss, sizeof(double));
        expect_saved(second, expected, size);
        dlora_learner_destroy(second);
      }
      free(before);
      free(expected);
      test_pictures_free(&p);
    }
    dlora_learner_destroy(straight);
  }
}

/* A source that keeps each snapshot it finds: what a process killed at this read would leave. */
struct collector {
  const dlora_images *images;
  const char *path;
  unsigned char *bytes[64];
  size_t sizes[64], count;
  size_t fail_after; /* reads; SIZE_MAX: none */
};

static int32_t read_and_collect(size_t index, dlora_images *image, void *user) {
  struct collector *c = user;
  *image = test_part(c->images, index, 1);
  if (c->fail_after == 0) return 1;
  c->fail_after--;
  if (access(c->path, R_OK) != 0) return 0;
  size_t size = 0;
  unsigned char *bytes = test_read_file(c->path, &size);
  if (c->count && size == c->sizes[c->count - 1] && memcmp(bytes, c->bytes[c->count - 1], size) == 0) {
    free(bytes);
    return 0;
  }
  assert_true(c->count < 64);
  c->bytes[c->count] = bytes;
  c->sizes[c->count++] = size;
  return 0;
}

static dlora_image_source collecting(struct collector *c, const struct test_pictures *p, const char *path) {
  *c = (struct collector){.images = &p->images, .path = path, .fail_after = SIZE_MAX};
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = read_and_collect;
  source.user = c;
  source.count = p->images.count;
  source.labels = p->labels;
  return source;
}

static void a_killed_process_goes_on_from_any_of_its_snapshots(void **state) {
  (void)state;
  for (size_t way = 0; way < NUM_WAYS; way++) {
    struct stopper stopper;
    struct collector straight, resumed;
    struct test_pictures p = pictures_of(1), unseen = test_pictures(four, 3, 10, 77);
    dlora_prediction predictions[2][30];
    float log_probs[2][30 * 3];
    dlora_learner_options options = options_of(way, &stopper);
    const char *path = scratch("snapshot.safetensors"), *copy = scratch("snapshot-copy.safetensors");
    dlora_learner *learner = create(&options);
    test_learn(learner, four, 2, 20, 1, NULL);
    dlora_image_source source = collecting(&straight, &p, path);
    assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 2));
    assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
    /* 32 of 40 images, steps 2, 4, 6 and 32 of 40 images again; without training the first alone. The way with
     * micro-batches of 2 * 5 passes 32 at 40; that with batches of 4 has 18 of its 36 steps, and more of the images. */
    assert_int_equal(straight.count, way == NUM_WAYS - 1 ? 1 : way == NUM_WAYS - 2 ? 23 : way == NUM_WAYS - 3 ? 4 : 5);
    size_t size = 0;
    unsigned char *expected = test_saved(learner, &size);
    assert_status(DLORA_OK, dlora_learner_predict(learner, &unseen.images, predictions[0], log_probs[0]));
    dlora_learner_destroy(learner);
    for (size_t i = 0; i < straight.count; i++) {
      test_write_file(copy, straight.bytes[i], straight.sizes[i]);
      learner = load(copy, &options);
      assert_int_equal(open_task(learner).is_open, 1);
      assert_status(DLORA_OK, dlora_learner_predict(learner, &unseen.images, predictions[1], NULL)); /* what is done */
      assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, copy, 2));
      source = collecting(&resumed, &p, copy);
      assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
      expect_saved(learner, expected, size);
      assert_status(DLORA_OK, dlora_learner_predict(learner, &unseen.images, predictions[1], log_probs[1]));
      assert_memory_equal(predictions[0], predictions[1], sizeof predictions[0]);
      assert_memory_equal(log_probs[0], log_probs[1], sizeof log_probs[0]);
      /* Its own snapshots are those that the uninterrupted run took. */
      assert_int_equal(resumed.count, straight.count - i);
      for (size_t k = 0; k < resumed.count; k++) {
        assert_int_equal(resumed.sizes[k], straight.sizes[i + k]);
        assert_memory_equal(resumed.bytes[k], straight.bytes[i + k], resumed.sizes[k]);
        free(resumed.bytes[k]);
      }
      dlora_learner_destroy(learner);
    }
    for (size_t i = 0; i < straight.count; i++) free(straight.bytes[i]);
    assert_int_equal(remove(path), 0);
    free(expected);
    test_pictures_free(&unseen);
    test_pictures_free(&p);
  }
}

static void a_source_that_vanishes_leaves_the_last_place(void **state) {
  (void)state;
  struct stopper stopper;
  struct collector collector;
  struct test_pictures p = pictures_of(0);
  dlora_learner_options options = options_of(0, &stopper);
  const char *path = scratch("vanished.safetensors");
  dlora_learner *straight = create(&options);
  test_learn(straight, four, 2, 20, 1, NULL);
  size_t begun = 0; /* stopped between the beginning of training and the first step */
  for (size_t fail_after = 0; fail_after < 2 * 40 + 2 * 36; fail_after += 8) {
    dlora_learner *learner = create(&options);
    dlora_image_source source = collecting(&collector, &p, "");
    collector.fail_after = fail_after;
    assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 1000));
    assert_status(DLORA_ERR_IO, dlora_learner_learn_source(learner, &source, NULL));
    assert_error_names("of the source could not be read");
    assert_int_equal(open_task(learner).is_open, 0);
    dlora_learner_destroy(learner);
    learner = load(path, &options);
    const dlora_open_task open = open_task(learner);
    begun += open.phase == DLORA_PHASE_TRAIN && !open.num_steps;
    source = test_source_of(&p);
    assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
    test_assert_same_learner(learner, straight);
    dlora_learner_destroy(learner);
  }
  assert_true(begun > 0);
  dlora_learner_destroy(straight);
  test_pictures_free(&p);
}

/* ---- the caller's own loop ---- */

/* Calls of a task: two observations, the beginning of training, six steps, two observations. */
enum { FIRST_STEP = 3, LAST_STEP = 8, OWN_CALLS = 11 };

static dlora_status try_call(dlora_learner *learner, const struct test_pictures *p, size_t call) {
  if (call == FIRST_STEP - 1) return dlora_learner_begin_training(learner);
  if (call >= FIRST_STEP && call <= LAST_STEP) {
    const size_t first = 7 * call % 20;
    const dlora_images part = test_part(&p->images, first, 12 + call);
    return dlora_learner_step(learner, &part, p->labels + first, NULL);
  }
  const size_t second = call == 1 || call == OWN_CALLS - 1, first = second ? 17 : 0, count = second ? 23 : 17;
  const dlora_images part = test_part(&p->images, first, count);
  return call < FIRST_STEP ? dlora_learner_observe(learner, &part, p->labels + first)
                           : dlora_learner_observe_trained(learner, &part, p->labels + first);
}

static void make_call(dlora_learner *learner, const struct test_pictures *p, size_t call) {
  assert_status(DLORA_OK, try_call(learner, p, call));
}

static void an_own_loop_may_be_saved_between_any_two_calls(void **state) {
  (void)state;
  const char *path = scratch("own.safetensors");
  for (size_t way = 0; way < NUM_WAYS - 1; way++) {
    struct stopper stopper;
    struct test_pictures p = pictures_of(1);
    dlora_learner_options options = options_of(way, &stopper);
    dlora_learner *straight = create(&options), *moving = create(&options);
    test_learn(straight, four, 2, 20, 1, NULL);
    test_learn(moving, four, 2, 20, 1, NULL);
    assert_status(DLORA_OK, dlora_learner_begin_task(straight, 6));
    assert_status(DLORA_OK, dlora_learner_begin_task(moving, 6));
    for (size_t call = 0; call <= OWN_CALLS; call++) {
      /* Whoever saves goes on too; the other one goes on as loaded. */
      assert_status(DLORA_OK, dlora_learner_save(moving, path));
      dlora_learner_destroy(moving);
      moving = load(path, &options);
      const dlora_open_task open = open_task(moving);
      assert_int_equal(open.is_open, 1);
      assert_int_equal(open.num_source_images, 0);
      assert_int_equal(open.planned_steps, 6);
      assert_int_equal(open.num_observed, call == 0 ? 0 : call == 1 ? 17 : 40);
      assert_int_equal(open.num_steps, call <= FIRST_STEP  ? 0
                                       : call <= LAST_STEP ? call - FIRST_STEP
                                                           : LAST_STEP + 1 - FIRST_STEP);
      assert_int_equal(open.num_observed_trained, call <= LAST_STEP + 1 ? 0 : call == OWN_CALLS ? 40 : 17);
      assert_int_equal(open.phase, call < FIRST_STEP       ? DLORA_PHASE_OBSERVE
                                   : call <= LAST_STEP + 1 ? DLORA_PHASE_TRAIN
                                                           : DLORA_PHASE_STATISTICS);
      if (call == OWN_CALLS) break;
      make_call(straight, &p, call);
      make_call(moving, &p, call);
      test_assert_same_learner(straight, moving); /* and saving one in between has not changed it */
    }
    assert_status(DLORA_OK, dlora_learner_commit_task(straight, NULL));
    assert_status(DLORA_OK, dlora_learner_commit_task(moving, NULL));
    test_assert_same_learner(straight, moving);
    assert_int_equal(open_task(moving).is_open, 0);
    assert_int_equal(open_task(moving).num_steps, 0);
    dlora_learner_destroy(moving);
    dlora_learner_destroy(straight);
    test_pictures_free(&p);
  }
}

/* A learner keeps what it computed before training for the second round; one that was loaded has to compute it anew.
 * Images that come in another order, in other portions, changed by one pixel or not at all must not be mistaken. */
static void what_the_first_round_keeps_is_never_mistaken(void **state) {
  (void)state;
  static const size_t rounds[][3][2] = {
      {{17, 23}, {0, 17}, {0, 0}}, {{0, 17}, {17, 11}, {28, 12}}, {{5, 17}, {22, 18}, {0, 5}}, {{17, 23}, {17, 23}}};
  const char *path = scratch("kept.safetensors");
  for (size_t r = 0; r < 2 * sizeof rounds / sizeof *rounds; r++) {
    struct stopper stopper;
    struct test_pictures p = pictures_of(1);
    dlora_learner_options options = options_of(0, &stopper);
    dlora_learner *keeping = create(&options);
    test_learn(keeping, four, 2, 20, 1, NULL);
    assert_status(DLORA_OK, dlora_learner_begin_task(keeping, 6));
    for (size_t call = 0; call <= LAST_STEP; call++) make_call(keeping, &p, call);
    assert_status(DLORA_OK, dlora_learner_save(keeping, path));
    dlora_learner *loaded = load(path, &options);
    unsigned char *pixels = (unsigned char *)(uintptr_t)p.images.u8;
    if (r % 2) pixels[20 * p.images.height * p.images.width * 3 - 1] ^= 0x80;
    for (size_t i = 0; i < 3; i++) {
      const size_t first = rounds[r / 2][i][0], count = rounds[r / 2][i][1];
      if (!count) continue;
      const dlora_images part = test_part(&p.images, first, count);
      assert_status(DLORA_OK, dlora_learner_observe_trained(keeping, &part, p.labels + first));
      assert_status(DLORA_OK, dlora_learner_observe_trained(loaded, &part, p.labels + first));
    }
    test_assert_same_learner(keeping, loaded);
    assert_status(DLORA_OK, dlora_learner_commit_task(keeping, NULL));
    assert_status(DLORA_OK, dlora_learner_commit_task(loaded, NULL));
    test_assert_same_learner(keeping, loaded);
    dlora_learner_destroy(loaded);
    dlora_learner_destroy(keeping);
    test_pictures_free(&p);
  }
}

static void a_loaded_task_can_be_discarded(void **state) {
  (void)state;
  struct stopper stopper;
  struct test_pictures p = pictures_of(1);
  const char *path = scratch("to-discard.safetensors");
  dlora_learner_options options = options_of(0, &stopper);
  dlora_learner *learner = create(&options);
  test_learn(learner, four, 2, 20, 1, NULL);
  size_t size = 0;
  unsigned char *before = test_saved(learner, &size);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 6));
  for (size_t call = 0; call <= OWN_CALLS; call++) {
    assert_status(DLORA_OK, dlora_learner_save(learner, path));
    dlora_learner *loaded = load(path, &options);
    assert_status(DLORA_ERR_STATE, dlora_learner_learn_task(loaded, &p.images, p.labels, NULL));
    assert_status(DLORA_OK, dlora_learner_discard_task(loaded));
    expect_saved(loaded, before, size);
    dlora_learner_destroy(loaded);
    if (call < OWN_CALLS) make_call(learner, &p, call);
  }
  free(before);
  dlora_learner_destroy(learner);
  test_pictures_free(&p);
}

/* ---- what does not belong together ---- */

/* Stops a task after so many calls, of which three observe, and leaves its snapshot at path. */
static void leave_snapshot(const char *path, const dlora_learner_options *options, struct stopper *stopper,
                           size_t calls) {
  struct test_pictures p = pictures_of(0);
  dlora_learner *learner = create(options);
  *stopper = (struct stopper){.stop_at = calls};
  assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 0));
  assert_status(DLORA_ERR_CANCELLED, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  *stopper = (struct stopper){.stop_at = SIZE_MAX};
  dlora_learner_destroy(learner);
  test_pictures_free(&p);
}

static void other_images_are_refused_and_the_task_stays_open(void **state) {
  (void)state;
  struct stopper stopper;
  const char *path = scratch("of-other-images.safetensors");
  dlora_learner_options options = options_of(0, &stopper);
  leave_snapshot(path, &options, &stopper, 3 + 5);
  dlora_learner *learner = load(path, &options), *straight = create(&options);
  test_learn(straight, four, 2, 20, 1, NULL);
  stopper.calls = 0;
  struct test_pictures p = pictures_of(0), fewer = test_pictures(four, 2, 19, 1), others = pictures_of(1);
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_learn_task(learner, &fewer.images, fewer.labels, NULL));
  assert_error_names("begun with 40 images, and the source has 38");
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_learn_task(learner, &others.images, others.labels, NULL));
  assert_error_names("other labels");
  int64_t swapped[40];
  memcpy(swapped, p.labels, sizeof swapped);
  swapped[38] = p.labels[39], swapped[39] = p.labels[38];
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_learn_task(learner, &p.images, swapped, NULL));
  assert_int_equal(open_task(learner).num_steps, 5);
  assert_int_equal(stopper.calls, 0);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  test_assert_same_learner(learner, straight);
  test_pictures_free(&others);
  test_pictures_free(&fewer);
  test_pictures_free(&p);
  dlora_learner_destroy(straight);
  dlora_learner_destroy(learner);
}

static void a_task_led_astray_is_refused(void **state) {
  (void)state;
  struct stopper stopper;
  const char *path = scratch("astray.safetensors");
  dlora_learner_options options = options_of(0, &stopper);
  struct test_pictures p = pictures_of(0);
  leave_snapshot(path, &options, &stopper, 3 + 5);
  dlora_learner *learner = load(path, &options);
  assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &p.images, p.labels)); /* before the last step */
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  assert_error_names("5 of 6 steps");
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL)); /* in an own loop it may end like this */
  dlora_learner_destroy(learner);

  /* Training that begins before every image was observed, and where none is planned. */
  for (int untrained = 0; untrained < 2; untrained++) {
    if (untrained) options.epochs = 0;
    leave_snapshot(path, &options, &stopper, untrained ? 3 : 2);
    learner = load(path, &options);
    assert_status(DLORA_OK, dlora_learner_begin_training(learner));
    assert_status(DLORA_ERR_MISMATCH, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    assert_error_names(untrained ? "40 and 0 images and taken 0 of 0 steps" : "32 and 0 images and taken 0 of 6 steps");
    assert_int_equal(open_task(learner).is_open, 1);
    dlora_learner_destroy(learner);
  }
  test_pictures_free(&p);
}

static void other_options_are_refused_by_name(void **state) {
  (void)state;
  struct stopper stopper;
  const char *path = scratch("of-other-options.safetensors");
  dlora_learner_options options = options_of(0, &stopper);
  leave_snapshot(path, &options, &stopper, 3 + 5);
  dlora_learner *learner = NULL;
  dlora_learner_options other = options;
  other.rank_orthogonal = 5;
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&learner, model, path, &other));
  assert_null(learner);
  assert_error_names("rank_orthogonal");
  other = options;
  other.momentum = 0.5f;
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&learner, model, path, &other));
  assert_error_names("momentum");
  other = options;
  other.routing = DLORA_ROUTING_EARLY;
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&learner, model, path, &other));
  assert_error_names("routing");
  other = options;
  other.threads = 2;
  other.micro_batch = 7;
  dlora_learner_destroy(load(path, &other));

  /* Loaded without options it takes them from the file; callbacks may be set, and no option. */
  learner = load(path, NULL);
  other.struct_size = sizeof other;
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &other));
  assert_status(DLORA_OK, dlora_learner_configure(learner, &other));
  other.epochs++;
  assert_status(DLORA_ERR_STATE, dlora_learner_configure(learner, &other));
  assert_error_names("a task is open, and epochs differs");
  struct test_pictures p = pictures_of(0);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  assert_true(stopper.calls >= 1 + 1);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

static void another_backbone_is_refused(void **state) {
  (void)state;
  struct stopper stopper;
  const char *path = scratch("of-other-backbone.safetensors");
  dlora_learner_options options = options_of(0, &stopper);
  leave_snapshot(path, &options, &stopper, 3 + 5);
  dlora_model *other = test_load_vit(2, NULL);
  dlora_learner *learner = NULL;
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&learner, other, path, &options));
  assert_null(learner);
  assert_error_names("fingerprint");
  dlora_model_destroy(other);
}

/* ---- files that cannot be written ---- */

/* A file that may not grow further fails as a full disk does. */
static struct rlimit limit_files(rlim_t bytes) {
  struct rlimit unlimited;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  const struct rlimit limited = {bytes, unlimited.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
  return unlimited;
}

static void a_failed_save_leaves_the_open_task_as_it_was(void **state) {
  (void)state;
  struct stopper stopper;
  struct test_pictures p = pictures_of(1);
  const char *path = scratch("full.safetensors");
  dlora_learner_options options = options_of(0, &stopper);
  dlora_learner *learner = create(&options), *straight = create(&options);
  void (*previous)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 6));
  assert_status(DLORA_OK, dlora_learner_begin_task(straight, 6));
  for (size_t call = 0; call < OWN_CALLS; call++) {
    const struct rlimit unlimited = limit_files(5000);
    const dlora_status status = dlora_learner_save(learner, path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_status(DLORA_ERR_IO, status);
    assert_error_names(path);
    assert_error_names(strerror(EFBIG));
    assert_int_not_equal(access(path, F_OK), 0);
    make_call(learner, &p, call);
    make_call(straight, &p, call);
  }
  signal(SIGXFSZ, previous);
  assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL));
  assert_status(DLORA_OK, dlora_learner_commit_task(straight, NULL));
  test_assert_same_learner(learner, straight);
  dlora_learner_destroy(straight);
  dlora_learner_destroy(learner);
  test_pictures_free(&p);
}

static struct rlimit before_limit;

/* Lets one snapshot through. */
static int32_t fill_disk(const dlora_progress *progress, void *user) {
  if (progress->phase == DLORA_PHASE_TRAIN && progress->done == 3) before_limit = limit_files(5000);
  return stop_after(progress, user);
}

static void a_snapshot_that_cannot_be_written_is_named_and_the_last_one_stays(void **state) {
  (void)state;
  struct stopper stopper;
  struct test_pictures p = pictures_of(0);
  const char *path = scratch("full-disk.safetensors"), *copy = scratch("unlimited.safetensors");
  dlora_learner_options options = options_of(0, &stopper);
  dlora_learner *straight = create(&options);
  test_learn(straight, four, 2, 20, 1, NULL);
  void (*previous)(int) = signal(SIGXFSZ, SIG_IGN);
  for (int cancels = 0; cancels < 2; cancels++) {
    dlora_learner *learner = create(&options);
    assert_status(DLORA_OK, dlora_learner_set_progress(learner, fill_disk, &stopper));
    /* Three calls of observing, then steps: a snapshot after step 2, and one that fails after step 4. */
    stopper = (struct stopper){.stop_at = cancels ? 3 + 3 : SIZE_MAX};
    assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 2));
    const dlora_status status = dlora_learner_learn_task(learner, &p.images, p.labels, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before_limit), 0);
    assert_status(cancels ? DLORA_ERR_CANCELLED : DLORA_ERR_IO, status);
    if (cancels) {
      assert_error_names("cancelled by the progress callback");
      assert_non_null(strstr(stopper.warning, path));
    } else {
      assert_error_names(path);
      assert_error_names(strerror(EFBIG));
      assert_string_equal(stopper.warning, "");
    }
    assert_int_equal(open_task(learner).is_open, 0);
    dlora_learner_destroy(learner);
    stopper = (struct stopper){.stop_at = SIZE_MAX};
    learner = load(path, &options);
    assert_int_equal(open_task(learner).num_steps, 2);
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    assert_status(DLORA_OK, dlora_learner_save(learner, copy));
    test_assert_same_learner(learner, straight);
    dlora_learner_destroy(learner);
  }
  signal(SIGXFSZ, previous);
  dlora_learner_destroy(straight);
  test_pictures_free(&p);
}

static void the_path_of_snapshots_is_checked_and_copied(void **state) {
  (void)state;
  struct stopper stopper;
  struct test_pictures p = pictures_of(0);
  dlora_learner_options options = options_of(0, &stopper);
  dlora_learner *learner = create(&options);
  char path[512];
  snprintf(path, sizeof path, "%s", scratch("copied.safetensors"));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_set_snapshot(NULL, path, 1));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_set_snapshot(learner, "", 1));
  assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 4));
  path[0] = '\0';
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  /* It stays after the end, at its last place, until the learner is saved there. */
  const char *same = scratch("copied.safetensors");
  dlora_learner *loaded = load(same, &options);
  assert_int_equal(open_task(loaded).num_steps, 4);
  assert_int_equal(dlora_learner_num_tasks(loaded), 0);
  dlora_learner_destroy(loaded);
  assert_status(DLORA_OK, dlora_learner_save(learner, same));
  loaded = load(same, &options);
  assert_int_equal(open_task(loaded).is_open, 0);
  assert_int_equal(dlora_learner_num_tasks(loaded), 1);
  dlora_learner_destroy(loaded);
  assert_int_equal(remove(same), 0);
  assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, NULL, 1));
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
  assert_int_not_equal(access(same, F_OK), 0);
  dlora_open_task short_struct = {.struct_size = 4};
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_learner_get_open_task(learner, &short_struct));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_get_open_task(learner, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_get_open_task(NULL, &short_struct));
  dlora_learner_destroy(learner);
  test_pictures_free(&p);
}

/* ---- hostile files ---- */

struct names {
  char tensors[256][64];
  size_t count;
};

static int32_t keep_training(const dlora_tensor_info *info, void *user) {
  struct names *names = user;
  if (info->value || strncmp(info->name, "training.", 9) != 0) return 0;
  assert_true(names->count < 256 && strlen(info->name) < 64);
  memcpy(names->tensors[names->count++], info->name, strlen(info->name) + 1);
  return 0;
}

/* A file with a task open after so many calls. */
static unsigned char *open_file(size_t way, size_t calls, size_t *size, dlora_learner_options *options,
                                struct stopper *stopper, struct names *names) {
  struct test_pictures p = pictures_of(1);
  const char *path = scratch("hostile.safetensors");
  *options = options_of(way, stopper);
  dlora_learner *learner = create(options);
  test_learn(learner, four, 2, 20, 1, NULL);
  assert_status(DLORA_OK, dlora_learner_begin_task(learner, 6));
  for (size_t call = 0; call < calls; call++) make_call(learner, &p, call);
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  dlora_learner_destroy(learner);
  test_pictures_free(&p);
  names->count = 0;
  assert_status(DLORA_OK, dlora_inspect(path, keep_training, names));
  assert_true(names->count > 15);
  return test_read_file(path, size);
}

/* While observing, in training, while observing again, and before the first step. */
enum { NUM_STAGES = 4 };
static const size_t stages[NUM_STAGES] = {1, FIRST_STEP + 3, OWN_CALLS - 1, FIRST_STEP};

/* Changes the first `from` after the name in one tensor's description. */
static int edit_description(unsigned char *bytes, const char *tensor, const char *from, const char *to) {
  char quoted[80];
  const int length = snprintf(quoted, sizeof quoted, "\"%s\":{", tensor);
  size_t at = 8;
  while (memcmp(bytes + at, quoted, (size_t)length) != 0) at++;
  for (; bytes[at] != '}'; at++) {
    if (memcmp(bytes + at, from, strlen(from)) != 0) continue;
    memcpy(bytes + at, to, strlen(to));
    return 1;
  }
  return 0;
}

static void open_tasks_with_missing_or_misshaped_tensors_are_refused_by_name(void **state) {
  (void)state;
  static const char *const changes[][2] = {{"\"F32\"", "\"I32\""}, {"\"F64\"", "\"I64\""}, {"\"I64\"", "\"F64\""},
                                           {"\"U64\"", "\"F64\""}, {"[32,", "[31,"},       {"[4,32]", "[32,4]"},
                                           {"[2,", "[3,"},         {"[2]", "[3]"}};
  for (size_t way = 0; way < 5; way += 4) { /* the fourth keeps class tokens too */
    for (size_t stage = 0; stage < NUM_STAGES; stage++) {
      struct names names;
      struct stopper stopper;
      dlora_learner_options options;
      size_t size = 0, missing = 0;
      unsigned char *sound = open_file(way, stages[stage], &size, &options, &stopper, &names), *bytes = malloc(size);
      const char *path = scratch("hostile.safetensors");
      assert_non_null(bytes);
      for (size_t i = 0; i < names.count; i++) {
        const char *name = names.tensors[i];
        if (strcmp(name, "training.counts") == 0) continue; /* without it there is no task in the file */
        dlora_learner *learner = NULL;
        char quoted[80];
        for (size_t k = 0; k <= sizeof changes / sizeof changes[0]; k++) {
          memcpy(bytes, sound, size);
          if (k == 0) { /* gone: it has another name */
            const int length = snprintf(quoted, sizeof quoted, "\"%s\":{", name);
            size_t at = 8;
            while (memcmp(bytes + at, quoted, (size_t)length) != 0) at++;
            bytes[at + 1] = 'T';
          } else if (!edit_description(bytes, name, changes[k - 1][0], changes[k - 1][1])) {
            continue;
          }
          test_write_file(path, bytes, size);
          const dlora_status status = dlora_learner_load(&learner, model, path, &options);
          /* Without it an image has one view, or its key is a hash of its features. */
          if (k == 0 && (strstr(name, "_mirrored") || strstr(name, "_keys"))) {
            assert_status(DLORA_OK, status);
            dlora_learner_destroy(learner);
            missing++;
            continue;
          }
          /* A pair without its A has rank 0, and is then missed in the optimizer's state. */
          if (status != DLORA_ERR_FORMAT) fail_msg("%s, change %zu: %s", name, k, dlora_status_name(status));
          assert_null(learner);
          assert_error_names("training.");
          missing += k == 0;
        }
      }
      assert_int_equal(missing, names.count - 1);
      free(bytes);
      free(sound);
    }
  }
}

/* Whatever the values are, they are refused, or the task can be gone on with: to an error or to its end. */
static void wild_values_of_open_tasks_are_refused_or_harmless(void **state) {
  (void)state;
  size_t refused = 0, tried = 0, not_finite = 0, all = 0;
  uint32_t random = 5;
  for (size_t way = 1; way < 5; way += 3) {
    for (size_t stage = 0; stage < NUM_STAGES; stage++) {
      struct names names;
      struct stopper stopper;
      dlora_learner_options options;
      size_t size = 0;
      unsigned char *sound = open_file(way, stages[stage], &size, &options, &stopper, &names), *bytes = malloc(size);
      const char *path = scratch("hostile.safetensors");
      struct test_pictures p = pictures_of(1);
      assert_non_null(bytes);
      for (size_t i = 0; i < names.count; i++) {
        for (int kind = 0; kind < 5; kind++) {
          size_t length = 0;
          memcpy(bytes, sound, size);
          unsigned char *part = test_tensor(bytes, names.tensors[i], &length);
          if (!length) continue;
          if (kind == 0) memset(part, 0xff, length); /* NaN, -1, huge */
          if (kind == 1) memset(part, 0, length);
          if (kind == 2) memset(part + length - 4, 0x7f, 4);
          if (kind == 3) part[random % length] ^= 1;
          for (size_t k = 0; kind == 4 && k < length; k++)
            part[k] = (unsigned char)(128.0f + 127.0f * test_uniform(&random));
          random = random * 1664525u + 1013904223u;
          dlora_learner *learner = NULL;
          test_write_file(path, bytes, size);
          const dlora_status status = dlora_learner_load(&learner, model, path, &options);
          tried++;
          all += kind == 0 && !strstr(names.tensors[i], "_keys"); /* any bits are a key */
          if (status != DLORA_OK) {
            assert_null(learner);
            assert_status(DLORA_ERR_FORMAT, status);
            refused++;
            not_finite += kind == 0;
            continue;
          }
          for (size_t call = stages[stage]; call < OWN_CALLS && open_task(learner).is_open; call++) {
            (void)try_call(learner, &p, call);
          }
          if (open_task(learner).is_open) (void)dlora_learner_commit_task(learner, NULL);
          dlora_learner_destroy(learner);
        }
      }
      test_pictures_free(&p);
      free(bytes);
      free(sound);
    }
  }
  assert_true(not_finite == all);
  assert_true(refused > tried / 3);
}

/* Numbers that are possible each, and impossible together. */
static void contradictions_in_open_tasks_are_refused(void **state) {
  (void)state;
  static const struct {
    size_t stage; /* index into stages */
    const char *tensor;
    size_t index;
    uint64_t value;
    const char *names;
  } cases[] = {
      {0, "training.counts", 0, 1, "add up"},
      {0, "training.counts", 0, 7, "cannot come together"},
      {0, "training.counts", 2, 1, "cannot come together"},
      {3, "training.counts", 0, 2, "cannot come together"},
      {3, "training.counts", 0, 0, "lacks a class"},
      {3, "training.counts", 3, 0, "cannot come together"},
      {1, "training.counts", 3, 0, "cannot come together"},
      {1, "training.counts", 4, 9, "cannot come together"},
      {2, "training.counts", 0, 1, "cannot come together"},
      {0, "training.counts", 3, 41, "add up"},
      {2, "training.counts", 4, 41, "counts more images"},
      {1, "training.counts", 5, 41, "counts more images"},
      {2, "training.counts", 7, 5, "counts more images"},
      {1, "training.counts", 8, 41, "counts more images"},
      {1, "training.counts", 9, 1, "counts more images"},
      {1, "training.counts", 8, 3, "training.held_out"},
      {1, "training.seen", 0, 19, "add up"},
      {0, "training.seen", 1, 0, "add up"},
      {1, "training.random", 1, 5, "no random state"},
      {1, "training.random", 8, 1ull << 32, "no random state"},
      {1, "training.classes", 0, 3, "has a class twice"},
      {1, "training.classes", 0, 99, "names a class"},
      {0, "training.base.classes", 0, 99, "names a class"},
      {0, "training.gate.classes", 1, 2, "impossible value"},
      {0, "training.base.counts", 0, 0, "impossible"},
      {0, "training.base.counts", 0, 3, "add up"},
      {2, "training.routed.classes", 0, 3, "impossible"},
      {2, "training.held_out.labels", 0, 1, "names a class"},
      {1, "training.gate.held_out_labels", 0, 1, "names a"},
      {0, "training.used.1.0.observed", 0, 0, "impossible"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct names names;
    struct stopper stopper;
    dlora_learner_options options;
    dlora_learner *learner = NULL;
    size_t size = 0, length = 0;
    unsigned char *bytes = open_file(0, stages[cases[i].stage], &size, &options, &stopper, &names);
    unsigned char *part = test_tensor(bytes, cases[i].tensor, &length);
    assert_true(8 * cases[i].index < length);
    memcpy(part + 8 * cases[i].index, &cases[i].value, 8);
    const char *path = scratch("hostile.safetensors");
    test_write_file(path, bytes, size);
    const dlora_status status = dlora_learner_load(&learner, model, path, &options);
    if (status != DLORA_ERR_FORMAT) fail_msg("%s[%zu]: %s", cases[i].tensor, cases[i].index, dlora_status_name(status));
    assert_null(learner);
    assert_error_names(cases[i].names);
    free(bytes);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_stopped_task_ends_bitwise_as_an_unstopped_one),
      cmocka_unit_test(a_killed_process_goes_on_from_any_of_its_snapshots),
      cmocka_unit_test(a_source_that_vanishes_leaves_the_last_place),
      cmocka_unit_test(an_own_loop_may_be_saved_between_any_two_calls),
      cmocka_unit_test(what_the_first_round_keeps_is_never_mistaken),
      cmocka_unit_test(a_loaded_task_can_be_discarded),
      cmocka_unit_test(other_images_are_refused_and_the_task_stays_open),
      cmocka_unit_test(a_task_led_astray_is_refused),
      cmocka_unit_test(other_options_are_refused_by_name),
      cmocka_unit_test(another_backbone_is_refused),
      cmocka_unit_test(a_failed_save_leaves_the_open_task_as_it_was),
      cmocka_unit_test(a_snapshot_that_cannot_be_written_is_named_and_the_last_one_stays),
      cmocka_unit_test(the_path_of_snapshots_is_checked_and_copied),
      cmocka_unit_test(open_tasks_with_missing_or_misshaped_tensors_are_refused_by_name),
      cmocka_unit_test(wild_values_of_open_tasks_are_refused_or_harmless),
      cmocka_unit_test(contradictions_in_open_tasks_are_refused),
  };
  return test_run_with_vit(tests, &model);
}
