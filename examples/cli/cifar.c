/* The binary files of CIFAR-10 and CIFAR-100. A record is
 *
 *     CIFAR-10      label                     red 32x32   green 32x32   blue 32x32      3073 bytes
 *     CIFAR-100     coarse label, fine label  red 32x32   green 32x32   blue 32x32      3074 bytes
 *
 * and images are read from the file when they are asked for.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataset.h"

#define SIDE 32
#define PLANE ((size_t)SIDE * SIDE)
#define PICTURE (3 * PLANE)
#define MAX_FILES 64

typedef struct part_file {
  char *path;
  int descriptor;
  size_t count; /* records */
} part_file;

typedef struct cifar_state {
  part_file files[MAX_FILES]; /* all of one record size */
  size_t num_files;
  size_t label_size; /* 1 or 2 bytes before the picture */
  size_t *kept;      /* [data->count] position over all files */
  uint8_t planes[PICTURE];
  uint8_t rgb[PICTURE];
} cifar_state;

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text);
  size_t size = strlen(end);
  return length >= size && strcmp(text + length - size, end) == 0;
}

static bool is_train_batch(const char *name) {
  return strncmp(name, "data_batch_", 11) == 0 && ends_with(name, ".bin");
}

static bool is_part(const char *name, dataset_part part) {
  if (part == DATASET_TRAIN) return strcmp(name, "train.bin") == 0 || is_train_batch(name);
  return strcmp(name, "test.bin") == 0 || strcmp(name, "test_batch.bin") == 0;
}

bool cifar_recognises(const char *path, bool is_folder) {
  if (!is_folder) return ends_with(path, ".bin");
  DIR *stream = opendir(path);
  if (stream == NULL) return false;
  bool found = false;
  struct dirent *entry = NULL;
  while (!found && (entry = readdir(stream)) != NULL)
    found = is_part(entry->d_name, DATASET_TRAIN) || is_part(entry->d_name, DATASET_TEST);
  closedir(stream);
  return found;
}

/* Takes the path over. */
static bool add_file(cifar_state *state, char *path, problem *why) {
  if (path == NULL) return problem_set(why, "no memory for a file name");
  if (state->num_files == MAX_FILES) {
    free(path);
    return problem_set(why, "more than %d data_batch_*.bin files", MAX_FILES);
  }
  state->files[state->num_files++] = (part_file){path, -1, 0};
  return true;
}

static int compare_files(const void *left, const void *right) {
  return strcmp(((const part_file *)left)->path, ((const part_file *)right)->path);
}

static bool find_files(cifar_state *state, const dataset_request *request, bool is_folder, problem *why) {
  if (!is_folder) return add_file(state, strdup(request->path), why);
  DIR *stream = opendir(request->path);
  if (stream == NULL) return problem_set(why, "cannot open the folder %s: %s", request->path, strerror(errno));
  bool done = true;
  struct dirent *entry = NULL;
  while (done && (entry = readdir(stream)) != NULL)
    if (is_part(entry->d_name, request->part)) done = add_file(state, dataset_join(request->path, entry->d_name), why);
  closedir(stream);
  if (done && state->num_files == 0)
    done = problem_set(why, "the folder %s holds no %s", request->path,
                       request->part == DATASET_TRAIN ? "train.bin or data_batch_*.bin" : "test.bin or test_batch.bin");
  qsort(state->files, state->num_files, sizeof *state->files, compare_files);
  return done;
}

/* Sizes divisible by both record sizes are rare, and then the first two bytes of CIFAR-100 are below 20 and 100. */
static bool looks_like_pairs(const part_file *file, size_t count) {
  uint8_t label[2];
  for (size_t i = 0; i < count; i++)
    if (pread(file->descriptor, label, 2, (off_t)(i * (PICTURE + 2))) != 2 || label[0] >= 20 || label[1] >= 100)
      return false;
  return true;
}

static bool open_file(cifar_state *state, part_file *file, problem *why) {
  struct stat status;
  file->descriptor = open(file->path, O_RDONLY | O_CLOEXEC);
  if (file->descriptor < 0 || fstat(file->descriptor, &status) != 0)
    return problem_set(why, "cannot open %s: %s", file->path, strerror(errno));
  if (!S_ISREG(status.st_mode) || status.st_size <= 0) return problem_set(why, "%s is empty or no file", file->path);
  size_t size = (size_t)status.st_size;
  size_t label_size = size % (PICTURE + 1) == 0 ? 1 : 0;
  if (size % (PICTURE + 2) == 0 && (label_size == 0 || looks_like_pairs(file, size / (PICTURE + 2)))) label_size = 2;
  if (label_size == 0)
    return problem_set(why,
                       "%s has %zu bytes, which is no multiple of a CIFAR-10 record (3073) or a CIFAR-100 record "
                       "(3074): truncated, or another format",
                       file->path, size);
  if (state->label_size != 0 && state->label_size != label_size)
    return problem_set(why, "%s has records of %zu bytes and %s of %zu", file->path, PICTURE + label_size,
                       state->files[0].path, PICTURE + state->label_size);
  state->label_size = label_size;
  file->count = size / (PICTURE + label_size);
  return true;
}

static bool read_at(const part_file *file, uint8_t *to, size_t size, size_t offset, problem *why) {
  ssize_t got = pread(file->descriptor, to, size, (off_t)offset);
  if (got < 0) return problem_set(why, "cannot read %s: %s", file->path, strerror(errno));
  if ((size_t)got != size) return problem_set(why, "%s has become shorter while it was read", file->path);
  return true;
}

static bool read_labels(cifar_state *state, uint8_t *labels, problem *why) {
  size_t record = PICTURE + state->label_size;
  for (size_t f = 0; f < state->num_files; f++)
    for (size_t i = 0; i < state->files[f].count; i++)
      if (!read_at(&state->files[f], labels++, 1, i * record + state->label_size - 1, why)) return false;
  return true;
}

/* The names stand beside the files under the data sets' own file names; without them the numbers are the names. */
static bool read_class_names(const cifar_state *state, char *names[256], problem *why) {
  const char *first = state->files[0].path;
  const char *slash = strrchr(first, '/');
  char *folder = slash == NULL ? strdup(".") : strndup(first, (size_t)(slash - first) + 1);
  char *path = folder == NULL
                   ? NULL
                   : dataset_join(folder, state->label_size == 1 ? "batches.meta.txt" : "fine_label_names.txt");
  bool done = path != NULL ? dataset_read_names(path, names, why) : problem_set(why, "no memory for class names");
  free(path);
  free(folder);
  return done;
}

static bool cifar_read(dataset *data, size_t index, dlora_images *image, problem *why) {
  cifar_state *state = data->state;
  size_t position = state->kept[index];
  const part_file *file = state->files;
  while (position >= file->count) position -= (file++)->count;
  size_t offset = position * (PICTURE + state->label_size) + state->label_size;
  if (!read_at(file, state->planes, PICTURE, offset, why)) return false;
  for (size_t i = 0; i < PLANE; i++)
    for (size_t c = 0; c < 3; c++) state->rgb[3 * i + c] = state->planes[c * PLANE + i];
  *image = (dlora_images){state->rgb, NULL, 1, SIDE, SIDE, 3};
  return true;
}

static void cifar_close(void *opaque) {
  cifar_state *state = opaque;
  for (size_t i = 0; i < state->num_files; i++) {
    if (state->files[i].descriptor >= 0) close(state->files[i].descriptor);
    free(state->files[i].path);
  }
  free(state->kept);
  free(state);
}

bool cifar_open(dataset *data, const dataset_request *request, problem *why) {
  struct stat status;
  char *names[256] = {NULL};
  uint8_t *labels = NULL;
  size_t count = 0;
  cifar_state *state = calloc(1, sizeof *state);
  if (state == NULL) return problem_set(why, "no memory to open %s", request->path);
  data->state = state;
  data->read = cifar_read;
  data->close = cifar_close;
  bool is_folder = stat(request->path, &status) == 0 && S_ISDIR(status.st_mode);
  bool done = find_files(state, request, is_folder, why);
  for (size_t i = 0; done && i < state->num_files; i++) {
    done = open_file(state, &state->files[i], why);
    count += state->files[i].count;
  }
  if (done && (labels = malloc(count)) == NULL) done = problem_set(why, "no memory for %zu labels", count);
  if (done) done = read_labels(state, labels, why) && read_class_names(state, names, why);
  if (done) done = dataset_set_byte_labels(data, labels, count, request->images_per_class, names, &state->kept, why);
  for (size_t i = 0; i < 256; i++) free(names[i]);
  free(labels);
  return done;
}
