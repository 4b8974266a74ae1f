/* What was measured or begun on some images is neither gone on with nor compared on others. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support_model.h"

static const int64_t four[] = {1, 2, 3, 4};
static dlora_model *model;

static int load_model(void **state) {
  (void)state;
  model = test_load_vit(1, NULL);
  return 0;
}

static int free_model(void **state) {
  (void)state;
  dlora_model_destroy(model);
  return 0;
}

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
  options.progress = stop_after;
  options.progress_user = stopper;
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
  assert_status(DLORA_OK, dlora_learner_set_snapshot(learner, path, 0));
  assert_status(DLORA_ERR_CANCELLED, dlora_learner_learn_task(learner, &p->images, p->labels, NULL));
  dlora_learner_destroy(learner);
  *stopper = (struct stopper){.stop_at = SIZE_MAX};
  assert_status(DLORA_OK, dlora_learner_load(&learner, model, path, options));
  assert_int_equal(open_task(learner).is_open, 1);
  return learner;
}

static void other_images_with_the_same_labels_are_refused_before_anything_is_done(void **state) {
  (void)state;
  struct stopper stopper;
  const dlora_learner_options options = stoppable(&stopper);
  struct test_pictures p = test_pictures(four, 2, 20, 1), others = test_pictures(four, 2, 20, 2);
  dlora_learner *straight = test_learner(model, &options);
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(other_images_with_the_same_labels_are_refused_before_anything_is_done),
      cmocka_unit_test(a_single_other_image_is_refused_when_it_is_read),
      cmocka_unit_test(snapshots_without_digests_are_taken_on_trust),
      cmocka_unit_test(digests_that_do_not_fit_are_refused_by_name),
      cmocka_unit_test(a_source_may_vary_its_images_within_a_process),
  };
  return cmocka_run_group_tests(tests, load_model, free_model);
}
