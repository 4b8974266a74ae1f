/* What was measured or begun on some images is neither gone on with nor compared on others.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support_model.h"

static const int64_t four[] = {1, 2, 3, 4};
static dlora_model *model;

/* ---- a task that is gone on with ---- */

/* Stops after a number of calls. */
struct stopper {
  size_t calls, stop_at;
};

static int32_t stop_after(const dlora_progress *progress, void *user) {
  struct stopper *stopper = user;
  (void)progress;
  return ++stopper->calls == stopper->stop_at;
}

/* Pictures of classes 1 and 2, 20 each: batches of 16 are observed three times, trained on six times, observed again.
 */
enum { COUNT = 40, CALLS = 12 };

static dlora_learner_options stoppable(struct stopper *stopper) {
  dlora_learner_options options = test_quick_options();
  *stopper = (struct stopper){.stop_at = SIZE_MAX};
  return options;
}

static dlora_open_task open_task(const dlora_learner *learner) {
  dlora_open_task task = DLORA_OPEN_TASK_INIT;
  assert_status(DLORA_OK, dlora_learner_get_open_task(learner, &task));
  return task;
}

/* A learner loaded from the snapshot that the task leaves when it is stopped at this call. */
static dlora_learner *interrupted(const struct test_pictures *p, size_t stop_at, const char *path,
                                  const dlora_learner_options *options, struct stopper *stopper) {
  dlora_learner *learner = test_learner(model, options);
  *stopper = (struct stopper){.stop_at = stop_at};
  assert_status(DLORA_OK, dlora_learner_set_progress(learner, stop_after, stopper));
  assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 0));
  assert_status(DLORA_ERR_CANCELLED, dlora_learner_learn_task(learner, &p->images, p->labels, NULL));
  dlora_learner_destroy(learner);
  *stopper = (struct stopper){.stop_at = SIZE_MAX};
  assert_status(DLORA_OK, dlora_learner_load(&learner, model, path, options));
  assert_status(DLORA_OK, dlora_learner_set_progress(learner, stop_after, stopper));
  assert_int_equal(open_task(learner).is_open, 1);
  return learner;
}

static void other_images_with_the_same_labels_are_refused_before_anything_is_done(void **state) {
  (void)state;
  struct stopper stopper;
  const dlora_learner_options options = stoppable(&stopper);
  struct test_pictures p = test_pictures(four, 2, 20, 1), others = test_pictures(four, 2, 20, 2);
  dlora_learner *straight = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_set_progress(straight, stop_after, &stopper));
  assert_status(DLORA_OK, dlora_learner_learn_task(straight, &p.images, p.labels, NULL));
  assert_int_equal(stopper.calls, CALLS);
  for (size_t stop_at = 1; stop_at <= CALLS; stop_at++) {
    const char *path = test_temporary("interrupted.safetensors");
    dlora_learner *learner = interrupted(&p, stop_at, path, &options, &stopper);
    size_t sizes[2];
    unsigned char *snapshot = test_read_file(path, &sizes[0]);
    assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 1));
    assert_status(DLORA_ERR_MISMATCH, dlora_learner_learn_task(learner, &others.images, others.labels, NULL));
    assert_error_names("image 0 of the source is not the one");
    assert_int_equal(stopper.calls, 0);
    assert_int_equal(open_task(learner).is_open, 1);
    unsigned char *kept = test_read_file(path, &sizes[1]);
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(snapshot, kept, sizes[0]);
    free(kept);
    free(snapshot);
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    assert_int_equal(stopper.calls, CALLS - stop_at);
    test_assert_same_learner(learner, straight);
    dlora_learner_destroy(learner);
    assert_int_equal(remove(path), 0);
  }
  dlora_learner_destroy(straight);
  test_pictures_free(&others);
  test_pictures_free(&p);
}

/* One pixel of one image, whichever it is: what is learnt until it is read is from the right images. */
static void a_single_other_image_is_refused_when_it_is_read(void **state) {
  (void)state;
  struct stopper stopper;
  const dlora_learner_options options = stoppable(&stopper);
  struct test_pictures p = test_pictures(four, 2, 20, 1);
  const size_t size = p.images.height * p.images.width * 3;
  dlora_learner *straight = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_learn_task(straight, &p.images, p.labels, NULL));
  for (size_t image = 0; image < COUNT; image += 3) {
    const char *path = test_temporary("interrupted.safetensors");
    char named[40];
    dlora_learner *learner = interrupted(&p, 3 + image % 5, path, &options, &stopper);
    uint8_t *pixel = p.pixels + image * size + size - 1 - image;
    *pixel ^= 1;
    snprintf(named, sizeof named, "image %zu of the source", image);
    assert_status(DLORA_ERR_MISMATCH, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    assert_error_names(named);
    assert_true(stopper.calls < CALLS);
    *pixel ^= 1;
    assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
    test_assert_same_learner(learner, straight);
    dlora_learner_destroy(learner);
    assert_int_equal(remove(path), 0);
  }
  dlora_learner_destroy(straight);
  test_pictures_free(&p);
}

/* Changes a tensor's name in its first letter. */
static void rename_tensor(unsigned char *bytes, const char *name) {
  char quoted[80];
  const int length = snprintf(quoted, sizeof quoted, "\"%s\":{", name);
  size_t at = 8;
  while (memcmp(bytes + at, quoted, (size_t)length) != 0) at++;
  bytes[at + 1] = 'T';
}

/* Replaces the first occurrence of a text in the header. */
static void replace(unsigned char *bytes, const char *from, const char *to) {
  size_t at = 8;
  assert_int_equal(strlen(from), strlen(to));
  while (memcmp(bytes + at, from, strlen(from)) != 0) at++;
  memcpy(bytes + at, to, strlen(to));
}

static void snapshots_without_digests_are_taken_on_trust(void **state) {
  (void)state;
  struct stopper stopper;
  const dlora_learner_options options = stoppable(&stopper);
  struct test_pictures p = test_pictures(four, 2, 20, 1), others = test_pictures(four, 2, 20, 2);
  const char *path = test_temporary("interrupted.safetensors");
  size_t size = 0;
  dlora_learner_destroy(interrupted(&p, 5, path, &options, &stopper));
  unsigned char *bytes = test_read_file(path, &size);
  rename_tensor(bytes, "training.images");
  test_write_file(path, bytes, size);
  dlora_learner *learner = NULL;
  assert_status(DLORA_OK, dlora_learner_load(&learner, model, path, &options));
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &others.images, others.labels, NULL));
  dlora_learner_destroy(learner);
  free(bytes);
  assert_int_equal(remove(path), 0);
  test_pictures_free(&others);
  test_pictures_free(&p);
}

static void digests_that_do_not_fit_are_refused_by_name(void **state) {
  (void)state;
  static const char *const changes[][2] = {
      {"\"training.images\":{\"dtype\":\"U64\",\"shape\":[40]",
       "\"training.images\":{\"dtype\":\"F64\",\"shape\":[40]"},
      {"\"training.images\":{\"dtype\":\"U64\",\"shape\":[40]",
       "\"training.images\":{\"dtype\":\"U64\",\"shape\":[39]"},
  };
  struct stopper stopper;
  const dlora_learner_options options = stoppable(&stopper);
  struct test_pictures p = test_pictures(four, 2, 20, 1);
  const char *path = test_temporary("interrupted.safetensors");
  size_t size = 0, length = 0;
  dlora_learner *learner = NULL;
  dlora_learner_destroy(interrupted(&p, 5, path, &options, &stopper));
  unsigned char *sound = test_read_file(path, &size), *bytes = malloc(size);
  assert_non_null(bytes);
  for (size_t i = 0; i <= sizeof changes / sizeof changes[0]; i++) {
    memcpy(bytes, sound, size);
    if (i < sizeof changes / sizeof changes[0]) {
      replace(bytes, changes[i][0], changes[i][1]);
    } else { /* a task of an own loop, which has no source */
      memset(test_tensor(bytes, "training.counts", &length) + 8 * 10, 0, 8);
    }
    test_write_file(path, bytes, size);
    assert_status(DLORA_ERR_FORMAT, dlora_learner_load(&learner, model, path, &options));
    assert_null(learner);
    assert_error_names("training.images");
  }
  free(bytes);
  free(sound);
  assert_int_equal(remove(path), 0);
  test_pictures_free(&p);
}

/* A source that makes its images brighter each time they are read. */
struct varying {
  const struct test_pictures *pictures;
  uint8_t *pixels;
  size_t reads;
};

static int32_t read_varying(size_t index, dlora_images *image, void *user) {
  struct varying *v = user;
  const size_t size = v->pictures->images.height * v->pictures->images.width * 3;
  memcpy(v->pixels, v->pictures->pixels + index * size, size);
  v->pixels[0] = (uint8_t)++v->reads;
  *image = v->pictures->images;
  image->count = 1;
  image->u8 = v->pixels;
  return 0;
}

static int32_t find_digests(const dlora_tensor_info *info, void *user) {
  if (!info->value && strcmp(info->name, "training.images") == 0) *(int *)user = 1;
  return 0;
}

static void a_source_may_vary_its_images_within_a_process(void **state) {
  (void)state;
  struct stopper stopper;
  const dlora_learner_options options = stoppable(&stopper);
  struct test_pictures p = test_pictures(four, 2, 20, 1);
  struct varying varying = {&p, malloc(p.images.height * p.images.width * 3), 0};
  const char *path = test_temporary("varying.safetensors");
  dlora_image_source source = test_source_of(&p);
  int found = 0;
  assert_non_null(varying.pixels);
  source.read = read_varying;
  source.user = &varying;
  dlora_learner *learner = test_learner(model, &options);
  assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 2));
  assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
  dlora_learner_destroy(learner);
  assert_status(DLORA_OK, dlora_inspect(path, find_digests, &found));
  assert_int_equal(found, 0);
  assert_status(DLORA_OK, dlora_learner_load(&learner, model, path, &options));
  assert_status(DLORA_OK, dlora_learner_learn_source(learner, &source, NULL));
  dlora_learner_destroy(learner);
  free(varying.pixels);
  assert_int_equal(remove(path), 0);
  test_pictures_free(&p);
}

/* ---- accuracies ---- */

static dlora_evaluation evaluate(dlora_learner *learner, const dlora_image_source *source) {
  dlora_evaluation e = DLORA_EVALUATION_INIT;
  assert_status(DLORA_OK, dlora_learner_evaluate(learner, source, &e));
  return e;
}

/* Every image still counts for the accuracy; what would compare it with other images is undefined. */
static void assert_compares_nothing(const dlora_evaluation *e) {
  assert_true(e->accuracy >= 0.0 && e->accuracy <= 1.0);
  assert_true(isnan(e->average_accuracy));
  assert_true(isnan(e->forgetting));
  assert_true(isnan(e->backward_transfer));
}

static void assert_same_figures(const dlora_evaluation *a, const dlora_evaluation *b) {
  assert_true(a->average_accuracy == b->average_accuracy);
  assert_true(a->forgetting == b->forgetting);
  assert_true(a->backward_transfer == b->backward_transfer);
}

/* The images from the last to the first. */
static int32_t read_backwards(size_t index, dlora_images *image, void *user) {
  const struct test_pictures *p = user;
  *image = test_part(&p->images, p->images.count - 1 - index, 1);
  return 0;
}

static void accuracies_on_other_images_are_not_compared(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options), *loaded = NULL;
  struct test_pictures p = test_pictures(four, 4, 10, 90), others = test_pictures(four, 4, 10, 91);
  const dlora_image_source source = test_source_of(&p), other_source = test_source_of(&others);
  const char *path = test_temporary("measured.safetensors");
  double sum = 0.0;
  dlora_evaluation straight = {0};
  for (size_t t = 0; t < 2; t++) {
    test_learn(learner, four + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
    straight = evaluate(learner, &source);
    sum += straight.accuracy;
  }
  assert_true(fabs(straight.average_accuracy - sum / 2.0) < 1e-12);
  assert_true(isfinite(straight.forgetting) && isfinite(straight.backward_transfer));

  dlora_evaluation e = evaluate(learner, &other_source);
  assert_compares_nothing(&e);
  dlora_image_source fewer = source;
  fewer.count = 36;
  e = evaluate(learner, &fewer);
  assert_compares_nothing(&e);
  e = evaluate(learner, &source); /* the last evaluation of a stage is its row */
  assert_same_figures(&e, &straight);

  dlora_image_source backwards = source;
  int64_t labels[40];
  for (size_t i = 0; i < 40; i++) labels[i] = p.labels[39 - i];
  backwards.read = read_backwards;
  backwards.user = &p;
  backwards.labels = labels;
  e = evaluate(learner, &backwards);
  assert_same_figures(&e, &straight);
  for (size_t i = 0; i < 40; i++) labels[i] = p.labels[i] == 1 ? 2 : p.labels[i] == 2 ? 1 : p.labels[i];
  dlora_image_source mislabelled = source;
  mislabelled.labels = labels;
  e = evaluate(learner, &mislabelled);
  assert_compares_nothing(&e);

  /* Images of the second task alone have nothing to do with the first one's, which are compared as before. */
  fewer = source;
  int64_t second[40];
  for (size_t i = 0; i < 40; i++) second[i] = p.labels[i] > 2 ? p.labels[i] : 99;
  e = evaluate(learner, &source);
  fewer.labels = second;
  e = evaluate(learner, &fewer);
  assert_int_equal(e.num_skipped, 20);
  assert_true(isnan(e.average_accuracy));
  assert_true(e.forgetting == straight.forgetting);

  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &options));
  e = evaluate(loaded, &source);
  assert_same_figures(&e, &straight);
  e = evaluate(loaded, &other_source);
  assert_compares_nothing(&e);
  dlora_learner_destroy(loaded);

  /* A file of before there were digests: it loads, and what it says is compared with nothing. */
  size_t size = 0;
  unsigned char *bytes = test_read_file(path, &size);
  replace(bytes, "\"metrics.images\"", "\"metrics.imagez\"");
  replace(bytes, "\"metrics.overall_images\"", "\"metrics.overall_imagez\"");
  test_write_file(path, bytes, size);
  free(bytes);
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &options));
  e = evaluate(loaded, &source);
  assert_compares_nothing(&e);
  dlora_learner_destroy(loaded);
  assert_int_equal(remove(path), 0);
  test_pictures_free(&others);
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* A class that comes again takes its images to its new task: what is left of the old task is measured on other images
 * than before. All images together are the same ones, so that the average stands. */
static void a_class_that_comes_again_is_followed(void **state) {
  (void)state;
  const int64_t again[] = {2, 3};
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(model, &options);
  struct test_pictures p = test_pictures(four, 3, 10, 90);
  const dlora_image_source source = test_source_of(&p);
  test_learn(learner, four, 2, 20, 1, NULL);
  const dlora_evaluation first = evaluate(learner, &source);
  test_learn(learner, again, 2, 20, 2, NULL);
  const dlora_evaluation second = evaluate(learner, &source);
  assert_int_equal(second.num_images, 30);
  assert_true(fabs(second.average_accuracy - (first.accuracy + second.accuracy) / 2.0) < 1e-12);
  assert_true(isnan(second.forgetting));
  assert_true(isnan(second.backward_transfer));
  test_pictures_free(&p);
  dlora_learner_destroy(learner);
}

/* ---- while a task is open ---- */

enum { TESTED = 30 };

static void what_is_finished_predicts_and_is_measured_while_a_task_is_open(void **state) {
  (void)state;
  static const int32_t relevances[] = {DLORA_ROUTING_TWO_PASS, DLORA_ROUTING_EARLY, DLORA_ROUTING_GIVEN,
                                       DLORA_ROUTING_NONE};
  struct test_pictures p = test_pictures(four + 2, 2, 20, 2), tested = test_pictures(four, 3, 10, 77);
  const dlora_image_source source = test_source_of(&tested);
  const int64_t tasks[TESTED] = {0};
  const char *path = test_temporary("open.safetensors");
  for (size_t way = 0; way < 8; way++) { /* each routing, without and with residual adapters in the first task */
    dlora_learner_options options = test_quick_options();
    dlora_prediction was[2][TESTED], is[2][TESTED];
    float log_probs[2][TESTED * 2];
    options.routing = relevances[way / 2];
    options.rank_residual = way % 2 ? 4 : 0;
    options.residual_merge_fraction = 0.5f;
    options.unknown_quantile = 0.2f; /* so that some of them are unknown */
    dlora_learner *learner = test_learner(model, &options);
    test_learn(learner, four, 2, 20, 1, NULL);
    options.rank_residual = 4; /* those of the open task are its own */
    assert_status(DLORA_OK, dlora_learner_configure(learner, &options));
    const int given = options.routing == DLORA_ROUTING_GIVEN;
    if (!given) assert_status(DLORA_OK, dlora_learner_predict(learner, &tested.images, was[0], log_probs[0]));
    assert_status(DLORA_OK, dlora_learner_predict_with_tasks(learner, &tested.images, tasks, was[1], NULL));
    const dlora_evaluation expected = evaluate(learner, &source);
    assert_int_equal(expected.num_skipped, 10);
    assert_status(DLORA_OK, dlora_learner_begin_task(learner, 2));
    for (size_t call = 0; call <= 5; call++) { /* begun, observed, training begun, two steps, observed */
      assert_status(DLORA_OK, dlora_learner_save(learner, path));
      dlora_learner *loaded = NULL;
      assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, &options));
      for (size_t i = 0; i < 2; i++) {
        dlora_learner *one = i ? loaded : learner;
        if (!given) {
          assert_status(DLORA_OK, dlora_learner_predict(one, &tested.images, is[0], log_probs[1]));
          assert_memory_equal(was[0], is[0], sizeof is[0]);
          assert_memory_equal(log_probs[0], log_probs[1], sizeof log_probs[0]);
        }
        assert_status(DLORA_OK, dlora_learner_predict_with_tasks(one, &tested.images, tasks, is[1], NULL));
        assert_memory_equal(was[1], is[1], sizeof is[1]);
        const dlora_evaluation e = evaluate(one, &source);
        assert_memory_equal(&e, &expected, sizeof e);
        assert_int_equal(open_task(one).is_open, 1);
      }
      test_assert_same_learner(learner, loaded); /* the task has not noticed */
      dlora_learner_destroy(loaded);
      if (call == 0) assert_status(DLORA_OK, dlora_learner_observe(learner, &p.images, p.labels));
      if (call == 1) assert_status(DLORA_OK, dlora_learner_begin_training(learner));
      if (call == 2 || call == 3) assert_status(DLORA_OK, dlora_learner_step(learner, &p.images, p.labels, NULL));
      if (call == 4) assert_status(DLORA_OK, dlora_learner_observe_trained(learner, &p.images, p.labels));
    }
    assert_status(DLORA_OK, dlora_learner_commit_task(learner, NULL));
    dlora_learner_destroy(learner);
  }
  assert_int_equal(remove(path), 0);
  test_pictures_free(&tested);
  test_pictures_free(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(other_images_with_the_same_labels_are_refused_before_anything_is_done),
      cmocka_unit_test(a_single_other_image_is_refused_when_it_is_read),
      cmocka_unit_test(snapshots_without_digests_are_taken_on_trust),
      cmocka_unit_test(digests_that_do_not_fit_are_refused_by_name),
      cmocka_unit_test(a_source_may_vary_its_images_within_a_process),
      cmocka_unit_test(accuracies_on_other_images_are_not_compared),
      cmocka_unit_test(a_class_that_comes_again_is_followed),
      cmocka_unit_test(what_is_finished_predicts_and_is_measured_while_a_task_is_open),
  };
  return test_run_with_vit(tests, &model);
}
