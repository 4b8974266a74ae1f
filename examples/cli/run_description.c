/* What a run of 'duallora learn' is about.
 * SPDX-License-Identifier: Apache-2.0 */
#include "run_description.h"

#include <cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- digests: FNV-1a over bytes, with lengths where texts follow each other ---- */

static uint64_t mix(uint64_t hash, const void *bytes, size_t count) {
  const unsigned char *from = bytes;
  for (size_t i = 0; i < count; i++) hash = (hash ^ from[i]) * UINT64_C(0x100000001b3);
  return hash;
}

static uint64_t mix_number(uint64_t hash, uint64_t number) {
  return mix(hash, &number, sizeof number);
}

#define EMPTY UINT64_C(0xcbf29ce484222325)

/* An image by the name of its file below the data's folder, and by the file's size. */
static bool mix_file(uint64_t *hash, const char *path, const char *root, problem *why) {
  struct stat status;
  size_t length = strlen(root);
  if (stat(path, &status) != 0) return problem_set(why, "cannot read %s: %s", path, strerror(errno));
  const char *name = strncmp(path, root, length) == 0 ? path + length : path;
  while (*name == '/') name++;
  *hash = mix(mix_number(*hash, strlen(name)), name, strlen(name));
  *hash = mix_number(*hash, (uint64_t)status.st_size);
  return true;
}

static bool mix_pixels(uint64_t *hash, dataset *data, size_t index, problem *why) {
  dlora_images image;
  if (!dataset_read(data, index, &image, why)) return false;
  size_t channels = image.channels == 0 ? 3 : image.channels;
  *hash = mix_number(mix_number(mix_number(*hash, image.height), image.width), channels);
  *hash = mix(*hash, image.u8, image.height * image.width * channels);
  return true;
}

static bool digest_images(dataset *data, const char *root, char text[40], problem *why) {
  uint64_t hash = EMPTY;
  for (size_t i = 0; i < data->count; i++) {
    if (interrupt_requested()) return problem_set(why, "interrupted");
    const char *name = data->class_names[data->labels[i]];
    const char *path = data->file_of == NULL ? NULL : data->file_of(data, i);
    hash = mix(mix_number(hash, strlen(name)), name, strlen(name));
    if (path != NULL ? !mix_file(&hash, path, root, why) : !mix_pixels(&hash, data, i, why)) return false;
  }
  snprintf(text, 40, "%016" PRIx64, hash);
  return true;
}

/* By its content: where a checkpoint lies does not matter. */
static bool digest_file(const char *path, char text[40], problem *why) {
  unsigned char buffer[65536];
  uint64_t hash = EMPTY;
  size_t count = 0;
  FILE *file = fopen(path, "rb");
  if (file == NULL) return problem_set(why, "cannot open %s: %s", path, strerror(errno));
  while ((count = fread(buffer, 1, sizeof buffer, file)) > 0) hash = mix(hash, buffer, count);
  bool done = !ferror(file) || problem_set(why, "cannot read %s: %s", path, strerror(errno));
  fclose(file);
  snprintf(text, 40, "%016" PRIx64, hash);
  return done;
}

/* ---- the description ---- */

static bool add_settings(cJSON *root, const run_facts *facts) {
  const char *names[SETTINGS_MAX];
  char values[SETTINGS_MAX][64];
  size_t count = learner_settings_texts(facts->options, names, values);
  cJSON *settings = cJSON_AddObjectToObject(root, "settings");
  bool done = settings != NULL && cJSON_AddNumberToObject(settings, "preset", facts->preset) != NULL &&
              cJSON_AddNumberToObject(settings, "products", facts->products) != NULL &&
              cJSON_AddNumberToObject(settings, "tasks", (double)facts->num_tasks) != NULL;
  for (size_t i = 0; done && i < count; i++) done = cJSON_AddStringToObject(settings, names[i], values[i]) != NULL;
  return done;
}

static bool add_classes(cJSON *root, const run_facts *facts) {
  cJSON *classes = cJSON_AddArrayToObject(root, "classes");
  bool done = classes != NULL;
  for (size_t i = 0; done && i < facts->train->num_classes; i++) {
    cJSON *name = cJSON_CreateString(facts->train->class_names[facts->order[i]]);
    done = name != NULL && cJSON_AddItemToArray(classes, name);
    if (!done) cJSON_Delete(name);
  }
  return done;
}

static bool add_data(cJSON *root, const char *name, dataset *data, const char *digest) {
  cJSON *object = cJSON_AddObjectToObject(root, name);
  return object != NULL &&
         cJSON_AddNumberToObject(object, "images", data == NULL ? 0.0 : (double)data->count) != NULL &&
         cJSON_AddStringToObject(object, "digest", digest) != NULL;
}

char *run_describe(const run_facts *facts, problem *why) {
  char train[40] = "";
  char test[40] = "";
  char origin[40] = "";
  char *text = NULL;
  if (!digest_images(facts->train, facts->train_path, train, why) ||
      (facts->test != NULL && !digest_images(facts->test, facts->test_path, test, why)) ||
      (facts->resume != NULL && !digest_file(facts->resume, origin, why)))
    return NULL;
  cJSON *root = cJSON_CreateObject();
  if (root != NULL && add_settings(root, facts) && cJSON_AddStringToObject(root, "resume", origin) != NULL &&
      add_classes(root, facts) && add_data(root, "train", facts->train, train) &&
      add_data(root, "test", facts->test, test))
    text = cJSON_PrintUnformatted(root);
  cJSON_Delete(root);
  if (text == NULL) problem_set(why, "no memory for the description of the run");
  return text;
}

/* ---- comparing ---- */

static double number_of(const cJSON *object, const char *name) {
  return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static const char *text_of(const cJSON *object, const char *name) {
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
  return text == NULL ? "" : text;
}

static bool same_settings(const cJSON *now, const cJSON *then, problem *why) {
  const cJSON *entry = NULL;
  cJSON_ArrayForEach(entry, now) {
    const cJSON *was = cJSON_GetObjectItemCaseSensitive(then, entry->string);
    if (was == NULL || !cJSON_Compare(entry, was, true))
      return problem_set(why, "--%s is not what it was", entry->string);
  }
  return true;
}

static bool same_classes(const cJSON *now, const cJSON *then, problem *why) {
  const cJSON *was = then == NULL ? NULL : then->child;
  const cJSON *entry = NULL;
  cJSON_ArrayForEach(entry, now) {
    const char *name = cJSON_GetStringValue(entry);
    const char *before = was == NULL ? NULL : cJSON_GetStringValue(was);
    if (before == NULL) return problem_set(why, "class '%s' was not among its classes", name);
    if (strcmp(name, before) != 0) return problem_set(why, "class '%s' has the place of its class '%s'", name, before);
    was = was->next;
  }
  return was == NULL || problem_set(why, "its class '%s' is missing", cJSON_GetStringValue(was));
}

static bool same_data(const cJSON *now, const cJSON *then, const char *name, problem *why) {
  double is = number_of(now, "images");
  double was = number_of(then, "images");
  if (is != was) return problem_set(why, "--%s has %.0f images, and had %.0f", name, is, was);
  if (strcmp(text_of(now, "digest"), text_of(then, "digest")) == 0) return true;
  return problem_set(why, "--%s has other images, by the names and sizes of files or by their pixels", name);
}

static bool same_origin(const char *now, const char *then, problem *why) {
  if (strcmp(now, then) == 0) return true;
  if (then[0] == '\0') return problem_set(why, "it did not --resume from a checkpoint");
  if (now[0] == '\0') return problem_set(why, "it went on from a checkpoint, and --resume is not given");
  return problem_set(why, "--resume is another checkpoint than it went on from");
}

static bool same(const cJSON *now, const cJSON *then, problem *why) {
#define MEMBER(of, name) cJSON_GetObjectItemCaseSensitive(of, name)
  return same_settings(MEMBER(now, "settings"), MEMBER(then, "settings"), why) &&
         same_origin(text_of(now, "resume"), text_of(then, "resume"), why) &&
         same_classes(MEMBER(now, "classes"), MEMBER(then, "classes"), why) &&
         same_data(MEMBER(now, "train"), MEMBER(then, "train"), "train", why) &&
         same_data(MEMBER(now, "test"), MEMBER(then, "test"), "test", why);
#undef MEMBER
}

bool run_check_same(const char *present, const char *snapshot, problem *why) {
  if (strcmp(present, snapshot) == 0) return true;
  cJSON *now = cJSON_Parse(present);
  cJSON *then = cJSON_Parse(snapshot);
  bool done = (now != NULL || problem_set(why, "no memory for the description of the run")) &&
              (then != NULL || problem_set(why, "what it says of its run is not readable")) && same(now, then, why);
  cJSON_Delete(now);
  cJSON_Delete(then);
  return done;
}
