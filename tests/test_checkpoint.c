/* A learner's file: complete, bitwise, bound to its backbone, written whole or not at all, and trusted in nothing.
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
static dlora_learner *learner; /* two tasks, evaluated, with names */
static unsigned char *sound;   /* what it saves */
static size_t sound_size;

static int learn_once(void **state) {
  (void)state;
  model = test_load_vit(1, NULL);
  dlora_learner_options options = test_quick_options();
  options.untouched_baseline = 1;
  learner = test_learner(model, &options);
  struct test_pictures p = test_pictures(four, 4, 10, 90);
  const dlora_image_source source = test_source_of(&p);
  for (size_t t = 0; t < 2; t++) {
    test_learn(learner, four + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
    assert_status(DLORA_OK, dlora_learner_evaluate(learner, &source, NULL));
  }
  assert_status(DLORA_OK, dlora_learner_set_class_name(learner, 2, "two"));
  test_pictures_free(&p);
  sound = test_saved(learner, &sound_size);
  return 0;
}

static int forget(void **state) {
  (void)state;
  free(sound);
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
  return 0;
}

static const char *write_checkpoint(const void *bytes, size_t size) {
  const char *path = test_temporary("checkpoint.safetensors");
  test_write_file(path, bytes, size);
  return path;
}

static dlora_learner *load(const dlora_model *backbone) {
  dlora_learner *loaded = NULL;
  assert_status(DLORA_OK, dlora_learner_load(&loaded, backbone, write_checkpoint(sound, sound_size), NULL));
  return loaded;
}

/* ---- complete ---- */

static void everything_learnt_comes_back(void **state) {
  (void)state;
  dlora_learner *loaded = load(model);
  double was[4], is[4];
  int64_t classes[2][4];
  dlora_learner_options options[2];
  for (size_t i = 0; i < 2; i++) {
    const dlora_learner *l = i ? loaded : learner;
    options[i].struct_size = sizeof options[i];
    assert_status(DLORA_OK, dlora_learner_get_options(l, &options[i]));
    options[i].threads = DLORA_AUTO; /* never saved */
    assert_int_equal(dlora_learner_num_tasks(l), 2);
    assert_int_equal(dlora_learner_num_classes(l), 4);
    assert_status(DLORA_OK, dlora_learner_get_classes(l, classes[i]));
    assert_status(DLORA_OK, dlora_learner_get_accuracy_matrix(l, i ? is : was));
    assert_string_equal(dlora_learner_get_class_name(l, 2), "two");
  }
  assert_memory_equal(&options[0], &options[1], sizeof options[0]);
  assert_memory_equal(classes[0], classes[1], sizeof classes[0]);
  assert_memory_equal(was, is, sizeof was); /* NaN included */
  test_assert_same_learner(learner, loaded);
  dlora_learner_destroy(loaded);
}

static void a_loaded_learner_learns_on_as_the_saved_one_would(void **state) {
  (void)state;
  const int64_t more[] = {5, 6};
  dlora_learner_options options = test_quick_options(); /* one thread, as it was */
  options.untouched_baseline = 1;
  dlora_learner *loaded[2];
  for (size_t i = 0; i < 2; i++) {
    assert_status(DLORA_OK, dlora_learner_load(&loaded[i], model, write_checkpoint(sound, sound_size), &options));
    test_learn(loaded[i], more, 2, 20, 3, NULL);
  }
  dlora_learner *straight = test_learner(model, &options);
  struct test_pictures p = test_pictures(four, 4, 10, 90);
  const dlora_image_source source = test_source_of(&p);
  for (size_t t = 0; t < 2; t++) {
    test_learn(straight, four + 2 * t, 2, 20, (uint32_t)t + 1, NULL);
    assert_status(DLORA_OK, dlora_learner_evaluate(straight, &source, NULL));
  }
  assert_status(DLORA_OK, dlora_learner_set_class_name(straight, 2, "two"));
  test_learn(straight, more, 2, 20, 3, NULL);
  test_assert_same_learner(loaded[0], loaded[1]);
  test_assert_same_learner(loaded[0], straight);
  test_pictures_free(&p);
  dlora_learner_destroy(straight);
  for (size_t i = 0; i < 2; i++) dlora_learner_destroy(loaded[i]);
}

static void an_empty_learner_can_be_saved_and_loaded(void **state) {
  (void)state;
  const char *path = test_temporary("empty.safetensors");
  dlora_learner *empty = test_learner(model, NULL), *loaded = NULL;
  assert_status(DLORA_OK, dlora_learner_save(empty, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
  assert_int_equal(dlora_learner_num_tasks(loaded), 0);
  test_learn(loaded, four, 2, 20, 1, NULL);
  assert_int_equal(dlora_learner_num_tasks(loaded), 1);
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(empty);
}

static void class_names_come_back_whatever_their_ids_and_order(void **state) {
  (void)state;
  static const int64_t ids[] = {5, -3, INT64_MAX, 10, INT64_MIN, 2, 100, 5};
  static const char *const names[] = {"old", "b", "", "d", "e", "\xC3\xA9", "g", "five"};
  const char *path = test_temporary("names.safetensors");
  dlora_learner *named = test_learner(model, NULL), *loaded = NULL;
  for (size_t i = 0; i < 8; i++) assert_status(DLORA_OK, dlora_learner_set_class_name(named, ids[i], names[i]));
  assert_status(DLORA_OK, dlora_learner_save(named, path));
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, path, NULL));
  test_assert_same_learner(named, loaded);
  assert_status(DLORA_OK, dlora_learner_set_class_name(loaded, 7, "seven"));
  for (size_t i = 1; i < 8; i++) {
    assert_string_equal(dlora_learner_get_class_name(named, ids[i]), names[i]);
    assert_string_equal(dlora_learner_get_class_name(loaded, ids[i]), names[i]);
  }
  assert_string_equal(dlora_learner_get_class_name(loaded, 7), "seven");
  assert_null(dlora_learner_get_class_name(loaded, 6));
  assert_null(dlora_learner_get_class_name(loaded, 101));
  dlora_learner_destroy(loaded);
  dlora_learner_destroy(named);
}

static int32_t never(const dlora_progress *progress, void *user) {
  (void)progress;
  ++*(size_t *)user;
  return 0;
}

static void callbacks_are_not_saved_and_options_may_be_given(void **state) {
  (void)state;
  size_t calls = 0;
  dlora_learner_options options = test_quick_options();
  options.untouched_baseline = 1;
  options.routing = DLORA_ROUTING_NONE;
  dlora_learner *with = NULL, *without = load(model);
  assert_status(DLORA_OK, dlora_learner_load(&with, model, write_checkpoint(sound, sound_size), &options));
  assert_status(DLORA_OK, dlora_learner_set_progress(with, never, &calls));
  struct test_pictures p = test_pictures(four, 4, 5, 91);
  const dlora_image_source source = test_source_of(&p);
  assert_status(DLORA_OK, dlora_learner_evaluate(with, &source, NULL));
  assert_true(calls > 0);
  calls = 0;
  assert_status(DLORA_OK, dlora_learner_evaluate(without, &source, NULL));
  assert_int_equal(calls, 0);
  dlora_learner_options now = {.struct_size = sizeof now};
  assert_status(DLORA_OK, dlora_learner_get_options(with, &now));
  assert_int_equal(now.routing, DLORA_ROUTING_NONE);
  test_pictures_free(&p);
  dlora_learner_destroy(with);
  dlora_learner_destroy(without);
}

/* ---- bound to its backbone ---- */

static void another_backbone_is_refused_with_both_fingerprints(void **state) {
  (void)state;
  dlora_model *other = test_load_vit(2, NULL);
  dlora_model_info infos[2] = {{.struct_size = sizeof infos[0]}, {.struct_size = sizeof infos[1]}};
  dlora_learner *loaded = learner;
  const char *path = write_checkpoint(sound, sound_size);
  assert_status(DLORA_OK, dlora_model_get_info(model, &infos[0]));
  assert_status(DLORA_OK, dlora_model_get_info(other, &infos[1]));
  assert_string_not_equal(infos[0].fingerprint, infos[1].fingerprint);
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&loaded, other, path, NULL));
  assert_null(loaded);
  assert_error_names(infos[0].fingerprint);
  assert_error_names(infos[1].fingerprint);
  assert_error_names(path);
  dlora_model_destroy(other);

  /* The same weights at another image size are another backbone. */
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 2 * VIT_SIZE;
  assert_status(DLORA_OK, dlora_model_load(&other, test_write_vit("larger.safetensors", 1), &options));
  assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&loaded, other, path, NULL));
  assert_error_names("image size 16");
  dlora_model_destroy(other);
}

/* ---- written whole or not at all ---- */

static void a_full_disk_leaves_the_old_file(void **state) {
  (void)state;
  dlora_learner *empty = test_learner(model, NULL);
  const char *path = test_temporary("full-disk.safetensors");
  struct rlimit unlimited;
  size_t old_size = 0, size = 0;
  assert_status(DLORA_OK, dlora_learner_save(empty, path));
  unsigned char *old = test_read_file(path, &old_size);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  void (*previous)(int) = signal(SIGXFSZ, SIG_IGN);
  const rlim_t limits[] = {0, 5, 1000, (rlim_t)sound_size / 2, (rlim_t)sound_size - 1};
  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    const struct rlimit limited = {limits[i], unlimited.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
    const dlora_status status = dlora_learner_save(learner, path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_status(DLORA_ERR_IO, status);
    assert_error_names(path);
    assert_error_names(strerror(EFBIG));
    unsigned char *now = test_read_file(path, &size);
    assert_int_equal(size, old_size);
    assert_memory_equal(now, old, size);
    free(now);
  }
  signal(SIGXFSZ, previous);
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  unsigned char *now = test_read_file(path, &size);
  assert_int_equal(size, sound_size);
  assert_memory_equal(now, sound, size);
  free(now);
  free(old);
  dlora_learner_destroy(empty);
}

static void places_that_cannot_be_written_or_read_are_named(void **state) {
  (void)state;
  dlora_learner *loaded = learner;
  const char *nowhere = test_temporary("no-such-folder/file");
  assert_status(DLORA_ERR_IO, dlora_learner_save(learner, nowhere));
  assert_error_names(nowhere);
  assert_status(DLORA_ERR_IO, dlora_learner_save(learner, ""));
  assert_status(DLORA_ERR_IO, dlora_learner_save(learner, "/tmp"));
  assert_status(DLORA_ERR_IO, dlora_learner_load(&loaded, model, nowhere, NULL));
  assert_null(loaded);
  assert_error_names(nowhere);
  assert_status(DLORA_ERR_IO, dlora_learner_load(&loaded, model, "/tmp", NULL));
  if (geteuid() == 0) return; /* root may write anywhere */
  const char *folder = test_temporary("read-only");
  char path[512];
  snprintf(path, sizeof path, "%s/file", folder);
  assert_int_equal(mkdir(folder, 0500), 0);
  assert_status(DLORA_ERR_IO, dlora_learner_save(learner, path));
  assert_error_names(path);
  assert_int_equal(rmdir(folder), 0);
}

/* ---- trusted in nothing ---- */

/* The file with these bytes: refused as FORMAT, and the sentence names what is wrong. */
static void refuse(const void *bytes, size_t size, const char *names) {
  dlora_learner *loaded = learner;
  const char *path = write_checkpoint(bytes, size);
  assert_status(DLORA_ERR_FORMAT, dlora_learner_load(&loaded, model, path, NULL));
  assert_null(loaded);
  assert_error_names(names);
}

static void a_file_cut_short_or_lengthened_is_refused(void **state) {
  (void)state;
  for (size_t cut = 0; cut < sound_size; cut += 1 + sound_size / 53) refuse(sound, cut, "checkpoint");
  unsigned char *longer = calloc(sound_size + 64, 1);
  assert_non_null(longer);
  memcpy(longer, sound, sound_size);
  refuse(longer, sound_size + 64, "checkpoint");
  free(longer);
}

/* The copy with the only `from` replaced by `to` of the same length; freed by the caller. */
static unsigned char *with_text(const char *from, const char *to) {
  const size_t length = strlen(from);
  unsigned char *bytes = malloc(sound_size);
  size_t found = 0;
  assert_non_null(bytes);
  memcpy(bytes, sound, sound_size);
  if (length != strlen(to)) fail_msg("%s and %s differ in length", from, to);
  for (size_t i = 8; i + length <= sound_size; i++) {
    if (memcmp(bytes + i, from, length) != 0) continue;
    memcpy(bytes + i, to, length);
    found++;
  }
  if (found != 1) fail_msg("%s occurs %zu times", from, found);
  return bytes;
}

static void misnamed_tensors_and_metadata_are_refused_by_name(void **state) {
  (void)state;
  static const struct {
    const char *from, *to, *names;
  } damages[] = {
      {"\"duallora.learner.2\"", "\"duallora.learner.7\"", "duallora.learner.7"},
      {"\"fingerprint\"", "\"fingerprunt\"", "fingerprint is missing"},
      {"\"option.batch_size\":\"16\"", "\"option.batch_size\":\"no\"", "option.batch_size"},
      {"\"option.batch_size\":\"16\"", "\"option.batch_size\":\"-1\"", "option.batch_size"},
      {"\"option.batch_size\":\"16\"", "\"option.batch_size\":\"00\"", "options are not usable"},
      {"\"option.num_blocks\":\"0\"", "\"option.num_blocks\":\"9\"", "options are not usable"},
      {"\"option.sites\":\"key,value\"", "\"option.sites\":\"key,nalue\"", "option.sites"},
      {"\"bank.num_sites\":\"4\"", "\"bank.num_sites\":\"3\"", "bank"},
      {"\"bank.num_tasks\":\"2\"", "\"bank.num_tasks\":\"9\"", "bank"},
      {"\"bank.num_tasks\":\"2\"", "\"bank.num_tasks\":\"1\"", "bank"},
      {"\"bank.site.2\"", "\"bank.site.x\"", "bank.site.2"},
      {"\"bank.site.0\":\"32 32 1 2\"", "\"bank.site.0\":\"32 32 2 2\"", "site 0"},
      {"\"bank.site.0\":\"32 32 1 2\"", "\"bank.site.0\":\"32 31 1 2\"", "bank.merged.0"},
      {"\"bank.task.1.1.b\"", "\"bank.task.1.1.x\"", "bank.task.1.1.b"},
      {"\"head.1.weight\"", "\"head.9.weight\"", "head.1.weight"},
      {"\"head.0.bias\"", "\"head.0.bios\"", "head.0.bias"},
      {"\"metrics.accuracy\"", "\"metrics.accurate\"", "metrics.accuracy"},
      {"\"metrics.overall\"", "\"metrics.overull\"", "metrics.overall"},
      {"\"base.means\"", "\"base.meanz\"", "base"},
      {"\"gate.means\"", "\"gate.meanz\"", "gate"},
      {"\"routed.means\"", "\"routed.meanz\"", "routed.means"},
      {"\"untouched.means\"", "\"untouched.meanz\"", "untouched.means"},
      {"\"untouched.scatter\"", "\"untouched.scattur\"", "untouched.scatter"},
      {"\"evidence.num_images\"", "\"evidence.num_imagez\"", "evidence.num_images"},
      {"\"evidence.log_likelihood\"", "\"evidence.log_likelyhood\"", "evidence.log_likelihood"},
      {"\"class_name.2\"", "\"class_name.x\"", "class_name.x"},
  };
  for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
    unsigned char *bytes = with_text(damages[i].from, damages[i].to);
    refuse(bytes, sound_size, damages[i].names);
    free(bytes);
  }
}

/* A later version adds an option, which this one must not pass over. */
static void options_of_a_later_version_are_named(void **state) {
  (void)state;
  dlora_learner *refused = NULL;
  unsigned char *bytes = with_text("\"option.jitter\"", "\"option.zitter\"");
  assert_status(DLORA_ERR_UNSUPPORTED, dlora_learner_load(&refused, model, write_checkpoint(bytes, sound_size), NULL));
  assert_error_names("zitter");
  assert_null(refused);
  free(bytes);
}

/* Every option but the threads stands in the file under its name. */
static int32_t count_options(const dlora_tensor_info *info, void *user) {
  if (info->value && strncmp(info->name, "option.", 7) == 0) {
    dlora_learner_options options = test_default_options();
    char text[64];
    assert_status(DLORA_OK, dlora_learner_options_set(&options, info->name + 7, info->value));
    assert_status(DLORA_OK, dlora_learner_options_get(&options, info->name + 7, text, sizeof text));
    assert_string_equal(text, info->value);
    ++*(size_t *)user;
  }
  return 0;
}

static void options_stand_in_the_file_by_name(void **state) {
  (void)state;
  size_t count = 0;
  assert_status(DLORA_OK, dlora_inspect(write_checkpoint(sound, sound_size), count_options, &count));
  assert_int_equal(count, dlora_option_count() - 1);
}

struct names {
  char tensors[128][64];
  size_t count;
};

static int32_t keep_name(const dlora_tensor_info *info, void *user) {
  struct names *names = user;
  if (info->value) return 0;
  assert_true(names->count < 128 && strlen(info->name) < 64);
  memcpy(names->tensors[names->count++], info->name, strlen(info->name) + 1);
  return 0;
}

static struct names tensors_of_the_file(void) {
  struct names names = {.count = 0};
  assert_status(DLORA_OK, dlora_inspect(write_checkpoint(sound, sound_size), keep_name, &names));
  assert_true(names.count > 20);
  return names;
}

/* In the description of one tensor, after its name. */
static void edit_description(unsigned char *bytes, const char *tensor, const char *from, const char *to) {
  char quoted[80];
  snprintf(quoted, sizeof quoted, "\"%s\":{", tensor);
  size_t at = 8;
  while (memcmp(bytes + at, quoted, strlen(quoted)) != 0) at++;
  const size_t length = strlen(from);
  while (bytes[at] != '}' && memcmp(bytes + at, from, length) != 0) at++;
  if (bytes[at] == '}') return;
  memcpy(bytes + at, to, length);
}

/* Every single tensor: no other type, no other shape. A checkpoint that says so is no checkpoint. */
static void mistyped_and_misshaped_tensors_are_refused(void **state) {
  (void)state;
  static const char *const types[][2] = {
      {"\"F32\"", "\"I32\""}, {"\"F64\"", "\"I64\""}, {"\"I64\"", "\"F64\""}, {"\"U64\"", "\"F64\""}};
  const struct names names = tensors_of_the_file();
  unsigned char *bytes = malloc(sound_size);
  size_t retyped = 0, reshaped = 0;
  assert_non_null(bytes);
  for (size_t i = 0; i < names.count; i++) {
    for (size_t k = 0; k < 4; k++) {
      memcpy(bytes, sound, sound_size);
      edit_description(bytes, names.tensors[i], types[k][0], types[k][1]);
      if (memcmp(bytes, sound, sound_size) == 0) continue;
      refuse(bytes, sound_size, names.tensors[i]);
      retyped++;
    }
    memcpy(bytes, sound, sound_size);
    edit_description(bytes, names.tensors[i], "\"shape\"", "\"shope\"");
    refuse(bytes, sound_size, names.tensors[i]);
    memcpy(bytes, sound, sound_size);
    edit_description(bytes, names.tensors[i], "[32,", "[31,");
    const int shorter = memcmp(bytes, sound, sound_size) != 0;
    if (shorter) refuse(bytes, sound_size, names.tensors[i]);
    memcpy(bytes, sound, sound_size);
    edit_description(bytes, names.tensors[i], "[4,32]", "[32,4]"); /* fits the data, and is another matrix */
    const int turned = memcmp(bytes, sound, sound_size) != 0;
    if (turned) refuse(bytes, sound_size, names.tensors[i]);
    reshaped += (size_t)(shorter || turned);
  }
  assert_int_equal(retyped, names.count);
  assert_true(reshaped > 8);
  free(bytes);
}

/* Whatever the values are, loading is safe: it is refused, or what was loaded can be used. */
static void wild_values_are_refused_or_harmless(void **state) {
  (void)state;
  const struct names names = tensors_of_the_file();
  unsigned char *bytes = malloc(sound_size);
  struct test_pictures p = test_pictures(four, 4, 2, 92);
  dlora_prediction predictions[8];
  size_t refused = 0, not_finite = 0;
  uint32_t random = 17;
  assert_non_null(bytes);
  for (size_t i = 0; i < names.count; i++) {
    for (int kind = 0; kind < 4; kind++) {
      size_t length = 0;
      memcpy(bytes, sound, sound_size);
      unsigned char *part = test_tensor(bytes, names.tensors[i], &length);
      if (!length) continue;
      if (kind == 0) memset(part, 0xff, length); /* NaN, -1, huge */
      if (kind == 1) memset(part, 0, length);
      if (kind == 2) memset(part + (length > 8 ? length - 8 : 0), 0x7f, length > 8 ? 8 : length);
      for (size_t k = 0; kind == 3 && k < length; k++)
        part[k] = (unsigned char)(128.0f + 127.0f * test_uniform(&random));
      dlora_learner *loaded = NULL;
      const dlora_status status = dlora_learner_load(&loaded, model, write_checkpoint(bytes, sound_size), NULL);
      if (status != DLORA_OK) {
        assert_null(loaded);
        assert_true(status == DLORA_ERR_FORMAT || status == DLORA_ERR_NUMERIC);
        refused++;
        not_finite += kind == 0;
        continue;
      }
      (void)dlora_learner_predict(loaded, &p.images, predictions, NULL);
      dlora_learner_destroy(loaded);
    }
  }
  assert_true(refused > names.count / 2);
  assert_true(not_finite > names.count * 3 / 4);
  test_pictures_free(&p);
  free(bytes);
}

/* One byte of the header changed at a time: refused, or loaded as something that can be destroyed. */
static void any_changed_header_byte_is_survived(void **state) {
  (void)state;
  unsigned char *bytes = malloc(sound_size);
  size_t header = 0, refused = 0, tried = 0;
  assert_non_null(bytes);
  memcpy(bytes, sound, sound_size);
  for (size_t i = 0; i < 8; i++) header |= (size_t)sound[i] << (8 * i);
  for (size_t at = 0; at < 8 + header; at += at < 8 ? 1 : 1 + header / 400) {
    dlora_learner *loaded = NULL;
    bytes[at] ^= (unsigned char)(1 + at % 31);
    refused += dlora_learner_load(&loaded, model, write_checkpoint(bytes, sound_size), NULL) != DLORA_OK;
    dlora_learner_destroy(loaded);
    bytes[at] = sound[at];
    tried++;
  }
  assert_true(tried > 300 && refused > tried / 2);
  free(bytes);
}

static void other_files_are_no_checkpoints(void **state) {
  (void)state;
  dlora_learner *loaded = learner;
  const char *bank = test_temporary("only-bank.safetensors");
  assert_status(DLORA_OK, dlora_bank_save(dlora_learner_get_bank(learner), bank));
  assert_status(DLORA_ERR_FORMAT, dlora_learner_load(&loaded, model, bank, NULL));
  assert_null(loaded);
  assert_error_names("duallora.bank.1");
  assert_status(DLORA_ERR_FORMAT, dlora_learner_load(&loaded, model, test_write_vit("a-model.safetensors", 1), NULL));
  assert_error_names("format is missing");
  refuse("", 0, "checkpoint");
  refuse("hello, world, this is text", 26, "checkpoint");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(everything_learnt_comes_back),
      cmocka_unit_test(a_loaded_learner_learns_on_as_the_saved_one_would),
      cmocka_unit_test(an_empty_learner_can_be_saved_and_loaded),
      cmocka_unit_test(class_names_come_back_whatever_their_ids_and_order),
      cmocka_unit_test(callbacks_are_not_saved_and_options_may_be_given),
      cmocka_unit_test(another_backbone_is_refused_with_both_fingerprints),
      cmocka_unit_test(a_full_disk_leaves_the_old_file),
      cmocka_unit_test(places_that_cannot_be_written_or_read_are_named),
      cmocka_unit_test(a_file_cut_short_or_lengthened_is_refused),
      cmocka_unit_test(misnamed_tensors_and_metadata_are_refused_by_name),
      cmocka_unit_test(options_of_a_later_version_are_named),
      cmocka_unit_test(options_stand_in_the_file_by_name),
      cmocka_unit_test(mistyped_and_misshaped_tensors_are_refused),
      cmocka_unit_test(wild_values_are_refused_or_harmless),
      cmocka_unit_test(any_changed_header_byte_is_survived),
      cmocka_unit_test(other_files_are_no_checkpoints),
  };
  return cmocka_run_group_tests(tests, learn_once, forget);
}
