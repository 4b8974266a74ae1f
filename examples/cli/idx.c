/* The idx files of MNIST and its kin, gzipped or not: gray images in one file, byte labels in another.
 *
 *     images   00 00 08 03   count   height   width   (big-endian, 4 bytes each)   pixels
 *     labels   00 00 08 01   count                                                 labels
 *
 * Only the images that are wanted are kept in memory: a gzip stream cannot be read out of order.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <zlib.h>

#include "dataset.h"

#define IMAGES "images-idx3"
#define LABELS "labels-idx1"
#define MAX_SIDE 16384u
/* Deflate shrinks by 1032 to 1 at most, so that a larger claim in a header is false whatever follows. */
#define MAX_DEFLATE 1032u

typedef struct idx_state {
  uint8_t *pixels; /* [data->count, height, width] */
  size_t height;
  size_t width;
} idx_state;

typedef struct idx_file {
  const char *path;
  gzFile stream;
  uint64_t most_bytes; /* that can come out of it */
} idx_file;

static char *folder_file(const char *folder, dataset_part part, const char *kind, bool zipped) {
  char name[64];
  snprintf(name, sizeof name, "%s-%s-ubyte%s", part == DATASET_TRAIN ? "train" : "t10k", kind, zipped ? ".gz" : "");
  return dataset_join(folder, name);
}

/* The images file of a part of a folder, to be freed; NULL if there is none. */
static char *find_images(const char *folder, dataset_part part) {
  for (int zipped = 0; zipped < 2; zipped++) {
    char *path = folder_file(folder, part, IMAGES, zipped != 0);
    if (path != NULL && dataset_file_exists(path)) return path;
    free(path);
  }
  return NULL;
}

bool idx_recognises(const char *path, bool is_folder) {
  if (!is_folder) {
    const char *slash = strrchr(path, '/');
    return strstr(slash == NULL ? path : slash, IMAGES) != NULL;
  }
  char *train = find_images(path, DATASET_TRAIN);
  char *test = find_images(path, DATASET_TEST);
  bool found = train != NULL || test != NULL;
  free(train);
  free(test);
  return found;
}

/* The labels file beside an images file, gzipped or not whatever the images are; to be freed. */
static char *find_labels(const char *images, problem *why) {
  size_t length = strlen(images);
  char *path = malloc(length + 4);
  if (path == NULL) {
    problem_set(why, "no memory for a file name");
    return NULL;
  }
  memcpy(path, images, length + 1);
  char *at = NULL;
  for (char *next = path; (next = strstr(next, IMAGES)) != NULL; next++) at = next;
  if (at != NULL) memcpy(at, LABELS, sizeof LABELS - 1);
  if (at != NULL && dataset_file_exists(path)) return path;
  bool zipped = length > 3 && strcmp(path + length - 3, ".gz") == 0;
  if (zipped)
    path[length - 3] = '\0';
  else
    memcpy(path + length, ".gz", 4);
  if (at != NULL && dataset_file_exists(path)) return path;
  problem_set(why, "%s has no labels file beside it: expected the same name with '%s' for '%s'", images, LABELS,
              IMAGES);
  free(path);
  return NULL;
}

static bool open_stream(idx_file *file, problem *why) {
  struct stat status;
  errno = 0;
  if (stat(file->path, &status) != 0) return problem_set(why, "cannot open %s: %s", file->path, strerror(errno));
  file->stream = gzopen(file->path, "rb");
  if (file->stream == NULL)
    return problem_set(why, "cannot open %s: %s", file->path, errno != 0 ? strerror(errno) : "no memory");
  file->most_bytes = (uint64_t)status.st_size * (gzdirect(file->stream) ? 1u : MAX_DEFLATE);
  return true;
}

static bool read_bytes(const idx_file *file, uint8_t *to, size_t size, problem *why) {
  int got = gzread(file->stream, to, (unsigned)size);
  if (got == (int)size) return true;
  int number = Z_OK;
  const char *message = gzerror(file->stream, &number);
  if (number == Z_ERRNO) return problem_set(why, "cannot read %s: %s", file->path, strerror(errno));
  if (number != Z_OK && number != Z_BUF_ERROR) return problem_set(why, "%s is damaged: %s", file->path, message);
  return problem_set(why, "%s is truncated: it ends before all that its header announces", file->path);
}

/* Reading past the end also makes zlib compare the check sum of a gzip file. */
static bool expect_end(const idx_file *file, problem *why) {
  uint8_t byte = 0;
  int number = Z_OK;
  int got = gzread(file->stream, &byte, 1);
  const char *message = gzerror(file->stream, &number);
  if (got > 0) return problem_set(why, "%s holds more than its header announces", file->path);
  if (got < 0 || number != Z_OK) return problem_set(why, "%s is damaged: %s", file->path, message);
  return true;
}

/* The dimensions after the magic number: [1] for labels, [3] for images. */
static bool read_header(const idx_file *file, size_t num_dims, size_t *dims, problem *why) {
  uint8_t bytes[16];
  if (!read_bytes(file, bytes, 4 + 4 * num_dims, why)) return false;
  if (bytes[0] != 0 || bytes[1] != 0 || bytes[2] != 8 || bytes[3] != num_dims)
    return problem_set(
        why, "%s is no idx file of bytes in %zu dimension%s: it begins with %02x%02x%02x%02x, not 000008%02zx",
        file->path, num_dims, num_dims == 1 ? "" : "s", bytes[0], bytes[1], bytes[2], bytes[3], num_dims);
  for (size_t i = 0; i < num_dims; i++) {
    const uint8_t *at = bytes + 4 + 4 * i;
    dims[i] = (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
  }
  return true;
}

/* labels [*count], to be freed */
static bool read_labels(const char *path, uint8_t **labels, size_t *count, problem *why) {
  idx_file file = {path, NULL, 0};
  bool done = open_stream(&file, why) && read_header(&file, 1, count, why);
  if (done && (*count == 0 || *count > file.most_bytes || *count > INT32_MAX))
    done = problem_set(why, "%s announces %zu labels, which do not fit in the file", path, *count);
  if (done && (*labels = malloc(*count)) == NULL) done = problem_set(why, "no memory for %zu labels", *count);
  if (done) done = read_bytes(&file, *labels, *count, why) && expect_end(&file, why);
  if (file.stream != NULL) gzclose(file.stream);
  return done;
}

static bool check_images(const idx_file *file, const size_t dims[3], const char *labels_path, size_t num_labels,
                         problem *why) {
  if (dims[0] != num_labels)
    return problem_set(why, "%s announces %zu images and %s %zu labels", file->path, dims[0], labels_path, num_labels);
  if (dims[1] == 0 || dims[1] > MAX_SIDE || dims[2] == 0 || dims[2] > MAX_SIDE)
    return problem_set(why, "%s announces images of %zu x %zu pixels; a side may be 1 to %u", file->path, dims[2],
                       dims[1], MAX_SIDE);
  if ((uint64_t)dims[1] * dims[2] > file->most_bytes / dims[0])
    return problem_set(why, "%s announces %zu images of %zu x %zu pixels, which do not fit in the file", file->path,
                       dims[0], dims[2], dims[1]);
  return true;
}

/* Streams through the file and keeps the images at positions kept [count], which increase. */
static bool read_kept(const idx_file *file, idx_state *state, const size_t *kept, size_t count, size_t total,
                      problem *why) {
  size_t size = state->height * state->width;
  uint8_t *unwanted = malloc(size);
  state->pixels = calloc(count, size);
  bool done = unwanted != NULL && state->pixels != NULL;
  if (!done) problem_set(why, "no memory for %zu images of %s", count, file->path);
  size_t next = 0;
  for (size_t i = 0; done && i < total; i++) {
    bool keep = next < count && kept[next] == i;
    done = read_bytes(file, keep ? state->pixels + size * next : unwanted, size, why);
    if (keep) next++;
    if (done && interrupt_requested()) done = problem_set(why, "interrupted");
  }
  if (done) done = expect_end(file, why);
  free(unwanted);
  return done;
}

static bool idx_read(dataset *data, size_t index, dlora_images *image, problem *why) {
  const idx_state *state = data->state;
  (void)why;
  *image =
      (dlora_images){state->pixels + index * state->height * state->width, NULL, 1, state->height, state->width, 1};
  return true;
}

static void idx_close(void *opaque) {
  idx_state *state = opaque;
  free(state->pixels);
  free(state);
}

/* Fashion-MNIST comes without a file of names; its folder tells it apart from MNIST. */
static bool folder_says_fashion(const char *images) {
  const char *slash = strrchr(images, '/');
  char *folder = slash == NULL ? strdup(".") : strndup(images, (size_t)(slash - images) + 1);
  char *full = folder == NULL ? NULL : realpath(folder, NULL);
  const char *name = full == NULL ? NULL : strrchr(full, '/');
  bool found = name != NULL && strcasestr(name, "fashion") != NULL;
  free(full);
  free(folder);
  return found;
}

bool idx_open(dataset *data, const dataset_request *request, problem *why) {
  static char *const fashion[10] = {"t-shirt", "trouser", "pullover", "dress", "coat",
                                    "sandal",  "shirt",   "sneaker",  "bag",   "ankle boot"};
  char *names[256] = {NULL};
  struct stat status;
  uint8_t *labels = NULL;
  size_t *kept = NULL;
  size_t num_labels = 0;
  size_t dims[3] = {0};
  bool is_folder = stat(request->path, &status) == 0 && S_ISDIR(status.st_mode);
  char *images = is_folder ? find_images(request->path, request->part) : strdup(request->path);
  if (images == NULL)
    return problem_set(why, "the folder %s holds no %s-%s-ubyte[.gz]", request->path,
                       request->part == DATASET_TRAIN ? "train" : "t10k", IMAGES);
  idx_file file = {images, NULL, 0};
  idx_state *state = calloc(1, sizeof *state);
  bool done = state != NULL || problem_set(why, "no memory to open %s", images);
  data->state = state;
  data->read = idx_read;
  data->close = state == NULL ? NULL : idx_close;

  char *labels_path = done ? find_labels(images, why) : NULL;
  done = labels_path != NULL && read_labels(labels_path, &labels, &num_labels, why) && open_stream(&file, why) &&
         read_header(&file, 3, dims, why) && check_images(&file, dims, labels_path, num_labels, why);
  if (done) {
    uint8_t largest = 0;
    for (size_t i = 0; i < num_labels; i++) largest = labels[i] > largest ? labels[i] : largest;
    if (largest < 10 && folder_says_fashion(images)) memcpy(names, fashion, sizeof fashion);
    state->height = dims[1];
    state->width = dims[2];
    done = dataset_set_byte_labels(data, labels, num_labels, request->images_per_class, names, &kept, why) &&
           read_kept(&file, state, kept, data->count, num_labels, why);
  }
  if (file.stream != NULL) gzclose(file.stream);
  free(kept);
  free(labels);
  free(labels_path);
  free(images);
  return done;
}
