/* Labelled images of a folder or file: what all readers share.
 * SPDX-License-Identifier: Apache-2.0 */
#include "dataset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "utf8.h"

char *dataset_join(const char *folder, const char *name) {
  size_t length = strlen(folder);
  size_t size = length + strlen(name) + 2;
  bool ends_in_slash = length > 0 && folder[length - 1] == '/';
  char *path = malloc(size);
  if (path != NULL) snprintf(path, size, "%s%s%s", folder, ends_in_slash ? "" : "/", name);
  return path;
}

bool dataset_file_exists(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

bool dataset_read_names(const char *path, char *names[256], problem *why) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return errno == ENOENT ? true : problem_set(why, "cannot open %s: %s", path, strerror(errno));
  char line[256];
  size_t count = 0;
  bool done = true;
  while (done && fgets(line, sizeof line, file) != NULL) {
    size_t length = strcspn(line, "\r\n");
    if (length == sizeof line - 1) done = problem_set(why, "%s: a line is longer than a class name may be", path);
    if (!done || length == 0) continue;
    line[length] = '\0';
    if (!utf8_is_valid(line)) { /* it goes into JSON files */
      done = problem_set(why, "%s: the name of class %zu is not valid UTF-8", path, count);
    } else if (count == 256) {
      done = problem_set(why, "%s: more than 256 names", path);
    } else if ((names[count++] = strdup(line)) == NULL) {
      done = problem_set(why, "%s: no memory for its names", path);
    }
  }
  fclose(file);
  return done;
}

bool dataset_set_byte_labels(dataset *data, const uint8_t *labels, size_t count, size_t per_class,
                             char *const names[256], size_t **kept, problem *why) {
  size_t seen[256] = {0};
  size_t index_of[256] = {0};
  char number[8];
  data->labels = malloc(count * sizeof *data->labels);
  data->class_names = calloc(256, sizeof *data->class_names);
  *kept = malloc(count * sizeof **kept);
  if (data->labels == NULL || data->class_names == NULL || *kept == NULL)
    return problem_set(why, "no memory for %zu labels", count);
  for (size_t i = 0; i < count; i++) seen[labels[i]]++;
  for (size_t label = 0; label < 256; label++) {
    if (seen[label] == 0) continue;
    snprintf(number, sizeof number, "%zu", label);
    index_of[label] = data->num_classes;
    char *name = strdup(names[label] != NULL ? names[label] : number);
    if (name == NULL) return problem_set(why, "no memory for class names");
    data->class_names[data->num_classes++] = name;
    seen[label] = 0;
  }
  for (size_t i = 0; i < count; i++) {
    if (per_class > 0 && seen[labels[i]] >= per_class) continue;
    seen[labels[i]]++;
    (*kept)[data->count] = i;
    data->labels[data->count++] = index_of[labels[i]];
  }
  return true;
}

static int compare_names(const void *left, const void *right) {
  return strcmp(*(char *const *)left, *(char *const *)right);
}

/* Classes are matched by name between files and checkpoints, so that two of one name would become one. */
static bool check_names(const dataset *data, const char *path, problem *why) {
  char **sorted = malloc(data->num_classes * sizeof *sorted);
  if (sorted == NULL) return problem_set(why, "no memory for %zu class names", data->num_classes);
  memcpy(sorted, data->class_names, data->num_classes * sizeof *sorted);
  qsort(sorted, data->num_classes, sizeof *sorted, compare_names);
  bool done = true;
  for (size_t i = 0; done && i + 1 < data->num_classes; i++)
    if (strcmp(sorted[i], sorted[i + 1]) == 0)
      done = problem_set(why, "%s: two classes have the name '%s'", path, sorted[i]);
  free(sorted);
  return done;
}

bool dataset_open(dataset *data, const dataset_request *request, problem *why) {
  struct stat status;
  bool done = false;
  memset(data, 0, sizeof *data);
  if (stat(request->path, &status) != 0) return problem_set(why, "cannot open %s: %s", request->path, strerror(errno));
  bool is_folder = S_ISDIR(status.st_mode);
  if (!is_folder && !S_ISREG(status.st_mode))
    return problem_set(why, "%s is neither a file nor a folder", request->path);
  if (cifar_recognises(request->path, is_folder))
    done = cifar_open(data, request, why);
  else if (idx_recognises(request->path, is_folder))
    done = idx_open(data, request, why);
  else if (is_folder)
    done = folder_open(data, request, why);
  else
    problem_set(why,
                "%s is no data set: expected a folder with one sub-folder of images per class, a CIFAR .bin file or an "
                "idx file named ...images-idx3-ubyte[.gz]",
                request->path);
  if (done && data->count == 0) done = problem_set(why, "%s holds no image", request->path);
  if (done) done = check_names(data, request->path, why);
  if (!done) dataset_close(data);
  return done;
}

void dataset_print_notes(const dataset *data, const char *path, FILE *out) {
  if (data->note[0] != '\0') {
    utf8_print(out, data->note);
    fputc('\n', out);
  }
  passed_over_print(&data->others, path, out);
}

void dataset_close(dataset *data) {
  if (data->close != NULL) data->close(data->state);
  for (size_t i = 0; i < data->num_classes; i++) free(data->class_names[i]);
  free(data->class_names);
  free(data->labels);
  memset(data, 0, sizeof *data);
}

bool dataset_read(dataset *data, size_t index, dlora_images *image, problem *why) {
  if (index >= data->count) return problem_set(why, "image %zu was asked for; there are %zu", index, data->count);
  return data->read(data, index, image, why);
}
