/* A folder with one sub-folder of JPEG and PNG files per class; the sub-folders' names are the classes.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dataset.h"
#include "image_file.h"
#include "utf8.h"

/* Some data sets keep a class's images a level deeper; a loop of links ends here. */
#define MAX_DEPTH 8

typedef struct path_list {
  char **paths;
  size_t count;
  size_t capacity;
} path_list;

typedef struct folder_state {
  path_list files; /* as many as data->count */
  pixels buffer;
} folder_state;

/* Takes the path over, also on failure. */
static bool append(path_list *list, char *path, problem *why) {
  if (path != NULL && list->count == list->capacity) {
    size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
    char **paths = realloc(list->paths, capacity * sizeof *paths);
    if (paths == NULL) {
      free(path);
      path = NULL;
    } else {
      list->paths = paths;
      list->capacity = capacity;
    }
  }
  if (path == NULL) return problem_set(why, "no memory for the names of %zu files", list->count + 1);
  list->paths[list->count++] = path;
  return true;
}

static void clear(path_list *list) {
  for (size_t i = 0; i < list->count; i++) free(list->paths[i]);
  free(list->paths);
  memset(list, 0, sizeof *list);
}

static int compare_paths(const void *left, const void *right) {
  return strcmp(*(char *const *)left, *(char *const *)right);
}

/* Adds the sub-folders of a folder to *folders and its image files to *files; either may be NULL. Hidden ones are
 * passed over. */
static bool list_folder(const char *folder, path_list *folders, path_list *files, problem *why) {
  DIR *stream = opendir(folder);
  if (stream == NULL) return problem_set(why, "cannot open the folder %s: %s", folder, strerror(errno));
  bool done = true;
  struct dirent *entry = NULL;
  while (done && (entry = readdir(stream)) != NULL) {
    struct stat status;
    if (entry->d_name[0] == '.') continue;
    char *path = dataset_join(folder, entry->d_name);
    path_list *into = NULL;
    if (path == NULL) {
      done = problem_set(why, "no memory to list %s", folder);
    } else if (stat(path, &status) != 0) {
      done = problem_set(why, "cannot read %s: %s", path, strerror(errno));
    } else if (S_ISDIR(status.st_mode)) {
      into = folders;
    } else if (S_ISREG(status.st_mode) && image_file_has_known_name(entry->d_name)) {
      into = files;
    }
    if (into != NULL)
      done = append(into, path, why);
    else
      free(path);
  }
  closedir(stream);
  return done;
}

static bool list_images(const char *folder, int depth, path_list *files, problem *why) {
  path_list deeper = {NULL, 0, 0};
  bool done = list_folder(folder, &deeper, files, why);
  if (done && deeper.count > 0 && depth >= MAX_DEPTH)
    done = problem_set(why, "%s: folders more than %d levels deep", folder, MAX_DEPTH);
  for (size_t i = 0; done && i < deeper.count; i++) done = list_images(deeper.paths[i], depth + 1, files, why);
  clear(&deeper);
  return done;
}

static bool check_image(const char *path, const dataset_request *request, pixels *buffer, problem *why) {
  return request->check_headers ? image_file_check_header(path, why) : image_file_decode(path, buffer, why);
}

/* Adds the images of one class that are wanted and sound to state->files. */
static bool add_class(dataset *data, const dataset_request *request, const char *folder, problem *why) {
  folder_state *state = data->state;
  const char *name = strrchr(folder, '/') + 1;
  path_list files = {NULL, 0, 0};
  size_t taken = 0;
  /* It goes into JSON files. */
  if (!utf8_is_valid(name)) return problem_set(why, "the name of the class folder %s is not valid UTF-8", folder);
  bool done = list_images(folder, 0, &files, why);
  if (done && files.count == 0)
    done = problem_set(why, "the class folder %s holds no .jpg, .jpeg or .png file", folder);
  if (done) qsort(files.paths, files.count, sizeof *files.paths, compare_paths);
  for (size_t i = 0; done && i < files.count; i++) {
    if (request->images_per_class > 0 && taken == request->images_per_class) break;
    if (interrupt_requested()) done = problem_set(why, "interrupted");
    if (done && !check_image(files.paths[i], request, &state->buffer, why)) {
      data->num_skipped++;
      done = request->skip_corrupt;
      continue;
    }
    if (!done) continue;
    done = append(&state->files, files.paths[i], why);
    files.paths[i] = NULL;
    taken++;
  }
  if (done && taken == 0) done = problem_set(why, "the class folder %s holds no readable image", folder);
  if (done) {
    size_t *labels = realloc(data->labels, state->files.count * sizeof *labels);
    char *copy = strdup(name);
    if (labels != NULL) data->labels = labels;
    if (labels == NULL || copy == NULL) {
      free(copy);
      done = problem_set(why, "no memory for %zu labels", state->files.count);
    } else {
      while (data->count < state->files.count) labels[data->count++] = data->num_classes;
      data->class_names[data->num_classes++] = copy;
    }
  }
  clear(&files);
  return done;
}

static bool folder_read(dataset *data, size_t index, dlora_images *image, problem *why) {
  folder_state *state = data->state;
  if (!image_file_decode(state->files.paths[index], &state->buffer, why)) return false;
  *image = (dlora_images){state->buffer.bytes, NULL, 1, state->buffer.height, state->buffer.width, 3};
  return true;
}

static void folder_close(void *opaque) {
  folder_state *state = opaque;
  clear(&state->files);
  free(state->buffer.bytes);
  free(state);
}

bool folder_open(dataset *data, const dataset_request *request, problem *why) {
  path_list folders = {NULL, 0, 0};
  bool done = list_folder(request->path, &folders, NULL, why);
  if (done && folders.count == 0)
    done = problem_set(why, "the folder %s has no sub-folder: expected one per class with its images, %s",
                       request->path, "or CIFAR or idx files under their usual names");
  if (done) {
    qsort(folders.paths, folders.count, sizeof *folders.paths, compare_paths);
    data->state = calloc(1, sizeof(folder_state));
    data->class_names = calloc(folders.count, sizeof *data->class_names);
    if (data->state == NULL || data->class_names == NULL) {
      free(data->state);
      data->state = NULL;
      done = problem_set(why, "no memory for %zu classes", folders.count);
    } else {
      data->read = folder_read;
      data->close = folder_close;
    }
  }
  for (size_t i = 0; done && i < folders.count; i++) done = add_class(data, request, folders.paths[i], why);
  clear(&folders);
  return done;
}
