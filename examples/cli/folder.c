/* A folder with one sub-folder of images per class; the sub-folders' names are the classes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "dataset.h"
#include "file_list.h"
#include "image_file.h"
#include "utf8.h"

typedef struct folder_state {
  path_list files; /* as many as data->count */
  pixels buffer;
} folder_state;

static bool check_image(const char *path, const dataset_request *request, pixels *buffer, problem *why) {
  return request->check_headers ? image_file_check_header(path, why) : image_file_decode(path, buffer, why);
}

/* ---- a folder of two data sets ---- */

static const char *name_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

/* The first sub-folder that has one of these names; num_folders if there is none. */
static size_t find_folder(const path_list *folders, const char *const *names, size_t num_names) {
  for (size_t n = 0; n < num_names; n++)
    for (size_t i = 0; i < folders->count; i++)
      if (strcasecmp(name_of(folders->paths[i]), names[n]) == 0) return i;
  return folders->count;
}

/* Sub-folders and no image among them: a folder of classes rather than a class. */
static bool holds_classes(const char *folder, bool *holds, problem *why) {
  path_list folders = {NULL, 0, 0};
  path_list images = {NULL, 0, 0};
  passed_over others = {0};
  bool done = file_list_folder(folder, &folders, &images, &others, why);
  *holds = folders.count > 0 && images.count == 0;
  path_list_clear(&folders);
  path_list_clear(&images);
  return done;
}

/* Where the sub-folders are the training and the test images, each with the classes below, the wanted one of them is
 * the data set, or two classes "train" and "test" would be learnt. *chosen: its index, or folders->count. */
static bool choose_part(const path_list *folders, const dataset_request *request, size_t *chosen, problem *why) {
  static const char *const train_names[] = {"train"};
  static const char *const test_names[] = {"test", "val", "valid", "validation"};
  size_t train = find_folder(folders, train_names, sizeof train_names / sizeof train_names[0]);
  size_t test = find_folder(folders, test_names, sizeof test_names / sizeof test_names[0]);
  bool both = train < folders->count && test < folders->count;
  *chosen = folders->count;
  if (both && !holds_classes(folders->paths[train], &both, why)) return false;
  if (both && !holds_classes(folders->paths[test], &both, why)) return false;
  if (both) *chosen = request->part == DATASET_TRAIN ? train : test;
  return true;
}

/* Says which part is read, and names the other folders, which are not. */
static void note_part(dataset *data, const path_list *folders, size_t chosen, const dataset_request *request) {
  int length = snprintf(data->note, sizeof data->note, "%s: the %s images are read from %s", request->path,
                        request->part == DATASET_TRAIN ? "training" : "test", folders->paths[chosen]);
  for (size_t i = 0, others = 0; i < folders->count; i++) {
    if (i == chosen || length < 0 || (size_t)length >= sizeof data->note) continue;
    length += snprintf(data->note + length, sizeof data->note - (size_t)length, "%s%s",
                       others++ == 0 ? "; not read: " : ", ", name_of(folders->paths[i]));
  }
}

/* ---- the classes ---- */

/* The failure of a class without an image, with what its folder holds instead. */
static bool no_image(const char *folder, const passed_over *others, problem *why) {
  char text[PASSED_OVER_TEXT];
  passed_over_text(others, text);
  return problem_set(why, "the class folder %s holds no file that ends in " IMAGE_NAMES "%s%s%s", folder,
                     others->total > 0 ? " (but " : "", text, others->total > 0 ? ")" : "");
}

static bool take_class(dataset *data, const char *name, problem *why) {
  folder_state *state = data->state;
  size_t *labels = realloc(data->labels, state->files.count * sizeof *labels);
  if (labels != NULL) data->labels = labels;
  char *copy = strdup(name);
  if (labels == NULL || copy == NULL) {
    free(copy);
    return problem_set(why, "no memory for %zu labels", state->files.count);
  }
  while (data->count < state->files.count) labels[data->count++] = data->num_classes;
  data->class_names[data->num_classes++] = copy;
  return true;
}

/* Adds the images of one class that are wanted and sound to state->files. */
static bool add_class(dataset *data, const dataset_request *request, const char *folder, problem *why) {
  folder_state *state = data->state;
  path_list files = {NULL, 0, 0};
  passed_over others = {0};
  size_t taken = 0;
  const char *name = name_of(folder);
  /* It goes into JSON files. */
  if (!utf8_is_valid(name)) return problem_set(why, "the name of the class folder %s is not valid UTF-8", folder);
  bool done = file_list_images(folder, &files, &others, why);
  if (done && files.count == 0) done = no_image(folder, &others, why);
  passed_over_merge(&data->others, &others);
  for (size_t i = 0; done && i < files.count; i++) {
    if (request->images_per_class > 0 && taken == request->images_per_class) break;
    if (interrupt_requested()) done = problem_set(why, "interrupted");
    if (done && !check_image(files.paths[i], request, &state->buffer, why)) {
      data->num_skipped++;
      done = request->skip_corrupt;
      continue;
    }
    if (!done) continue;
    done = path_list_add(&state->files, files.paths[i], why);
    files.paths[i] = NULL;
    taken++;
  }
  if (done && taken == 0) done = problem_set(why, "the class folder %s holds no readable image", folder);
  if (done) done = take_class(data, name, why);
  path_list_clear(&files);
  return done;
}

static bool folder_read(dataset *data, size_t index, dlora_images *image, problem *why) {
  folder_state *state = data->state;
  if (!image_file_decode(state->files.paths[index], &state->buffer, why)) return false;
  *image = (dlora_images){state->buffer.bytes, NULL, 1, state->buffer.height, state->buffer.width, 3};
  return true;
}

static const char *folder_file_of(const dataset *data, size_t index) {
  const folder_state *state = data->state;
  return state->files.paths[index];
}

static void folder_close(void *opaque) {
  folder_state *state = opaque;
  path_list_clear(&state->files);
  free(state->buffer.bytes);
  free(state);
}

/* Reads the classes of a folder whose sub-folders are these. */
static bool open_classes(dataset *data, const dataset_request *request, const char *folder, path_list *folders,
                         const path_list *images, problem *why) {
  if (folders->count == 0)
    return problem_set(why, "the folder %s has no sub-folder: expected one per class with its images, %s", folder,
                       "or CIFAR or idx files under their usual names");
  passed_over_add(&data->others, "outside the class folders", images->count);
  path_list_sort(folders);
  folder_state *state = calloc(1, sizeof *state);
  data->class_names = calloc(folders->count, sizeof *data->class_names);
  if (state == NULL || data->class_names == NULL) {
    free(state);
    return problem_set(why, "no memory for %zu classes", folders->count);
  }
  data->state = state;
  data->read = folder_read;
  data->close = folder_close;
  data->file_of = folder_file_of;
  bool done = true;
  for (size_t i = 0; done && i < folders->count; i++) done = add_class(data, request, folders->paths[i], why);
  return done;
}

bool folder_open(dataset *data, const dataset_request *request, problem *why) {
  path_list folders = {NULL, 0, 0};
  path_list images = {NULL, 0, 0};
  path_list part_folders = {NULL, 0, 0};
  size_t chosen = 0;
  bool done = file_list_folder(request->path, &folders, &images, &data->others, why);
  path_list_sort(&folders);
  done = done && choose_part(&folders, request, &chosen, why);
  if (done && chosen < folders.count) {
    note_part(data, &folders, chosen, request);
    done = file_list_folder(folders.paths[chosen], &part_folders, &images, &data->others, why) &&
           open_classes(data, request, folders.paths[chosen], &part_folders, &images, why);
  } else if (done) {
    done = open_classes(data, request, request->path, &folders, &images, why);
  }
  path_list_clear(&folders);
  path_list_clear(&images);
  path_list_clear(&part_folders);
  return done;
}
