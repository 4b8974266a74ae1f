/* The image files of a folder, and what else is in it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "file_list.h"

#include <ctype.h>
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
/* What is longer is no extension but a name with a dot in it. */
#define MAX_EXTENSION 12

bool path_list_add(path_list *list, char *path, problem *why) {
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

void path_list_clear(path_list *list) {
  for (size_t i = 0; i < list->count; i++) free(list->paths[i]);
  free(list->paths);
  memset(list, 0, sizeof *list);
}

static int compare_paths(const void *left, const void *right) {
  return strcmp(*(char *const *)left, *(char *const *)right);
}

void path_list_sort(path_list *list) {
  if (list->count > 1) qsort(list->paths, list->count, sizeof *list->paths, compare_paths);
}

/* ---- what is passed over ---- */

void passed_over_add(passed_over *counts, const char *kind, size_t count) {
  size_t i = 0;
  if (count == 0) return;
  counts->total += count;
  while (i < counts->num_kinds && strcmp(counts->kinds[i].name, kind) != 0) i++;
  if (i == PASSED_OVER_KINDS) {
    counts->num_others += count;
    return;
  }
  if (i == counts->num_kinds) {
    snprintf(counts->kinds[i].name, sizeof counts->kinds[i].name, "%s", kind);
    counts->kinds[i].count = 0;
    counts->num_kinds++;
  }
  counts->kinds[i].count += count;
}

void passed_over_merge(passed_over *counts, const passed_over *more) {
  for (size_t i = 0; i < more->num_kinds; i++) passed_over_add(counts, more->kinds[i].name, more->kinds[i].count);
  counts->num_others += more->num_others;
  counts->total += more->num_others;
}

void passed_over_text(const passed_over *counts, char text[PASSED_OVER_TEXT]) {
  size_t length = 0;
  bool printed[PASSED_OVER_KINDS] = {false};
  text[0] = '\0';
  for (size_t n = 0; n < counts->num_kinds; n++) { /* the most frequent kind first */
    size_t most = counts->num_kinds;
    for (size_t i = 0; i < counts->num_kinds; i++)
      if (!printed[i] && (most == counts->num_kinds || counts->kinds[i].count > counts->kinds[most].count)) most = i;
    printed[most] = true;
    length += (size_t)snprintf(text + length, PASSED_OVER_TEXT - length, "%s%zu %s", n > 0 ? ", " : "",
                               counts->kinds[most].count, counts->kinds[most].name);
    if (length >= PASSED_OVER_TEXT) return;
  }
  if (counts->num_others > 0)
    snprintf(text + length, PASSED_OVER_TEXT - length, ", %zu of other kinds", counts->num_others);
}

void passed_over_print(const passed_over *counts, const char *folder, FILE *out) {
  char text[PASSED_OVER_TEXT];
  if (counts->total == 0) return;
  passed_over_text(counts, text);
  utf8_print(out, folder);
  fprintf(out, ": %zu %s passed over: ", counts->total, counts->total == 1 ? "file is" : "files are");
  utf8_print(out, text);
  fprintf(out, "; what is read ends in " IMAGE_NAMES "\n");
}

/* By the extension, in lower case, since JPG and jpg are one kind. */
static void count_file(passed_over *counts, const char *name) {
  char kind[MAX_EXTENSION + 1] = "";
  const char *dot = strrchr(name, '.');
  size_t length = dot == NULL ? 0 : strlen(dot);
  if (length < 2 || length > MAX_EXTENSION) {
    passed_over_add(counts, "without an extension", 1);
    return;
  }
  for (size_t i = 0; i < length; i++) kind[i] = (char)tolower((unsigned char)dot[i]);
  passed_over_add(counts, kind, 1);
}

/* ---- folders ---- */

static bool add_entry(const char *folder, const char *name, path_list *folders, path_list *images, passed_over *others,
                      problem *why) {
  struct stat status;
  char *path = dataset_join(folder, name);
  if (path == NULL) return problem_set(why, "no memory to list %s", folder);
  bool exists = stat(path, &status) == 0;
  bool is_image = image_file_has_known_name(name);
  if (exists && S_ISDIR(status.st_mode)) return path_list_add(folders, path, why);
  if (is_image && (!exists || S_ISREG(status.st_mode))) return path_list_add(images, path, why);
  if (!exists)
    passed_over_add(others, "linked to nothing", 1);
  else if (!S_ISREG(status.st_mode))
    passed_over_add(others, "not regular", 1);
  else
    count_file(others, name);
  free(path);
  return true;
}

bool file_list_folder(const char *folder, path_list *folders, path_list *images, passed_over *others, problem *why) {
  DIR *stream = opendir(folder);
  if (stream == NULL) return problem_set(why, "cannot open the folder %s: %s", folder, strerror(errno));
  bool done = true;
  struct dirent *entry = NULL;
  while (done && (entry = readdir(stream)) != NULL)
    done = entry->d_name[0] == '.' || add_entry(folder, entry->d_name, folders, images, others, why);
  closedir(stream);
  return done;
}

static bool list_images(const char *folder, int depth, path_list *images, passed_over *others, problem *why) {
  path_list deeper = {NULL, 0, 0};
  bool done = file_list_folder(folder, &deeper, images, others, why);
  if (done && deeper.count > 0 && depth >= MAX_DEPTH)
    done = problem_set(why, "%s: folders more than %d levels deep", folder, MAX_DEPTH);
  for (size_t i = 0; done && i < deeper.count; i++) done = list_images(deeper.paths[i], depth + 1, images, others, why);
  path_list_clear(&deeper);
  return done;
}

bool file_list_images(const char *folder, path_list *images, passed_over *others, problem *why) {
  path_list found = {NULL, 0, 0};
  bool done = list_images(folder, 0, &found, others, why);
  if (done) path_list_sort(&found);
  for (size_t i = 0; done && i < found.count; i++) {
    done = path_list_add(images, found.paths[i], why);
    found.paths[i] = NULL;
  }
  path_list_clear(&found);
  return done;
}
