/* The files that a command reads and writes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "duallora/duallora.h"

/* A file that exists, or the name in a folder that one would get. */
typedef struct identity {
  dev_t device;
  ino_t inode;
  const char *name; /* in the folder; NULL: the file itself */
} identity;

/* The folder of a path, to be freed. */
static char *folder_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
}

/* False where there is neither a file nor a folder for it. */
static bool identify(const char *path, identity *id) {
  struct stat status;
  const char *slash = strrchr(path, '/');
  id->name = NULL;
  bool found = stat(path, &status) == 0;
  if (!found) {
    char *folder = folder_of(path);
    found = folder != NULL && stat(folder, &status) == 0;
    id->name = slash == NULL ? path : slash + 1;
    free(folder);
  }
  id->device = found ? status.st_dev : 0;
  id->inode = found ? status.st_ino : 0;
  return found;
}

bool files_are_same(const char *path, const char *other) {
  identity a;
  identity b;
  if (!identify(path, &a) || !identify(other, &b)) return strcmp(path, other) == 0;
  if (a.device != b.device || a.inode != b.inode) return false;
  return a.name == NULL || b.name == NULL ? a.name == b.name : strcmp(a.name, b.name) == 0;
}

bool files_exist(const char *path) {
  struct stat status;
  return stat(path, &status) == 0;
}

static bool is_written(const file_use *use) {
  return use->path != NULL && use->purpose != FILE_READ && strcmp(use->path, "-") != 0;
}

static bool is_device(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

static bool check_apart(const file_use *uses, size_t count, problem *why) {
  for (size_t i = 0; i < count; i++) {
    if (!is_written(&uses[i])) continue;
    for (size_t j = 0; j < count; j++) {
      if (j == i || uses[j].path == NULL || (j < i && is_written(&uses[j])) || strcmp(uses[j].path, "-") == 0) continue;
      /* Whatever is written to /dev/null. */
      if (is_device(uses[i].path) || !files_are_same(uses[i].path, uses[j].path)) continue;
      return problem_set(why, "%s and %s are the same file, %s: one would overwrite the other", uses[i].name,
                         uses[j].name, uses[i].path);
    }
  }
  return true;
}

/* A dlora_inspect visitor; user: bool. */
static int32_t find_format(const dlora_tensor_info *info, void *user) {
  if (info->value != NULL && strcmp(info->name, "format") == 0 && strncmp(info->value, "duallora.", 9) == 0)
    *(bool *)user = true;
  return 0;
}

static bool is_json(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return false;
  int letter = getc(file);
  while (letter != EOF && isspace(letter)) letter = getc(file);
  fclose(file);
  return letter == '{' || letter == '[' || letter == EOF;
}

/* A name that was given by mistake must not cost an image, a label file or a thesis. */
static bool check_replaced(const file_use *use, problem *why) {
  struct stat status;
  bool is_ours = false;
  if (stat(use->path, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) return true;
  if (use->purpose == FILE_REPORT) {
    if (is_json(use->path)) return true;
    return problem_set(why, "%s: %s exists and is no JSON file; remove it, or name another one", use->name, use->path);
  }
  if (dlora_inspect(use->path, find_format, &is_ours) == DLORA_OK && is_ours) return true;
  return problem_set(why, "%s: %s exists and is no checkpoint of duallora; remove it, or name another one", use->name,
                     use->path);
}

/* Devices that are always full, as /dev/full, say so even to no bytes at all. */
static bool check_device(const char *path, problem *why) {
  int descriptor = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (descriptor < 0) return errno == ENXIO || problem_set(why, "cannot write %s: %s", path, strerror(errno));
  bool done = write(descriptor, "", 0) == 0 || problem_set(why, "cannot write %s: %s", path, strerror(errno));
  close(descriptor);
  return done;
}

static bool check_folder(const char *path, problem *why) {
  char resolved[4096];
  struct stat status;
  /* A link is followed, and the file that it leads to replaced. */
  char *folder = folder_of(realpath(path, resolved) != NULL ? resolved : path);
  bool done = true;
  if (folder == NULL)
    done = problem_set(why, "no memory for a file name");
  else if (stat(folder, &status) != 0 || access(folder, W_OK | X_OK) != 0)
    done = problem_set(why, "cannot write %s: the folder %s: %s", path, folder, strerror(errno));
  else if (!S_ISDIR(status.st_mode))
    done = problem_set(why, "cannot write %s: %s is no folder", path, folder);
  free(folder);
  return done;
}

static bool check_writable(const file_use *use, problem *why) {
  struct stat status;
  const char *path = use->path;
  bool exists = stat(path, &status) == 0;
  if (!exists && errno != ENOENT) return problem_set(why, "cannot write %s: %s", path, strerror(errno));
  if (!exists && path[strlen(path) - 1] == '/')
    return problem_set(why, "cannot write %s: it is the name of a folder", path);
  if (exists && S_ISDIR(status.st_mode)) return problem_set(why, "cannot write %s: it is a folder", path);
  if (exists && !S_ISREG(status.st_mode)) {
    if (use->purpose == FILE_REPORT) return check_device(path, why);
    return problem_set(why, "cannot write %s: it is a device, pipe or socket, and a checkpoint is a file", path);
  }
  if (exists && access(path, W_OK) != 0) return problem_set(why, "cannot write %s: %s", path, strerror(errno));
  return check_folder(path, why);
}

int files_check(const file_use *uses, size_t count, problem *why) {
  if (!check_apart(uses, count, why)) return EXIT_USAGE;
  for (size_t i = 0; i < count; i++)
    if (is_written(&uses[i]) && !check_writable(&uses[i], why)) return EXIT_FAILED;
  for (size_t i = 0; i < count; i++)
    if (is_written(&uses[i]) && !check_replaced(&uses[i], why)) return EXIT_USAGE;
  return EXIT_DONE;
}
