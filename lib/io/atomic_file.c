/* Replaces a file as a whole: writes a temporary file in the same folder, syncs it to disk, renames it over the old one
 * and syncs the folder. A crash at any point leaves the old file or the new one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"

/* A write of more than about 2 GiB is cut short by Linux anyway. */
enum { LARGEST_WRITE = 1 << 30, MAX_NAMES = 1000 };

struct dli_atomic_file {
  dlora_allocator allocator;
  char *label;     /* the path as the caller gave it, for sentences */
  char *path;      /* with links resolved */
  char *temporary; /* in the same folder; exists while created */
  int descriptor;  /* -1: closed */
  int folder;      /* -1: closed */
  bool created;
};

static dlora_status raise_system(const struct dli_atomic_file *file, const char *what, int error) {
  return dli_raise(DLORA_ERR_IO, "%s: %s: %s", file->label, what, strerror(error));
}

/* Opens the folder of file->path and makes a new file in it. The name does not contain the target's, which may be as
 * long as the file system allows. Opening with O_EXCL, unlike mkstemp, leaves the permissions to the process's umask.
 */
static dlora_status create_temporary(struct dli_atomic_file *file, mode_t mode) {
  const char *slash = strrchr(file->path, '/');
  const size_t prefix = slash ? (size_t)(slash - file->path) + 1 : 0;
  const size_t size = prefix + 64;
  DLI_TRY(DLI_NEW(&file->allocator, file->temporary, size));
  memcpy(file->temporary, prefix ? file->path : ".", prefix ? prefix : 1);
  file->folder = open(file->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file->folder < 0) return raise_system(file, "the folder to write to could not be opened", errno);
  for (int i = 0; i < MAX_NAMES && file->descriptor < 0; i++) {
    snprintf(file->temporary + prefix, size - prefix, ".duallora-%ld-%d.tmp", (long)getpid(), i);
    file->descriptor = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (file->descriptor < 0 && errno != EEXIST) break;
  }
  if (file->descriptor < 0) return raise_system(file, "a temporary file could not be created beside it", errno);
  file->created = true;
  return DLORA_OK;
}

dlora_status dli_atomic_file_create(struct dli_atomic_file **out, const char *path, const dlora_allocator *allocator) {
  *out = NULL;
  dlora_status status = DLORA_OK;
  struct dli_atomic_file *file = NULL;
  char resolved[PATH_MAX];
  struct stat existing;
  DLI_TRY(DLI_NEW(allocator, file, 1));
  file->allocator = *allocator;
  file->descriptor = -1;
  file->folder = -1;
  file->label = dli_strdup(allocator, path);
  if (!file->label) {
    status = DLORA_ERR_NO_MEMORY;
    goto done;
  }
  if (!path[0]) {
    status = dli_raise(DLORA_ERR_IO, "the path to write to is empty");
    goto done;
  }
  const bool replaces = stat(path, &existing) == 0;
  if (!replaces && errno != ENOENT) {
    status = raise_system(file, "could not be looked up", errno);
    goto done;
  }
  if (replaces && !S_ISREG(existing.st_mode)) {
    status = dli_raise(DLORA_ERR_IO, "%s: is %s, expected a regular file or nothing there", path,
                       S_ISDIR(existing.st_mode) ? "a directory" : "a device, pipe or socket");
    goto done;
  }
  file->path = dli_strdup(allocator, realpath(path, resolved) ? resolved : path);
  if (!file->path) {
    status = DLORA_ERR_NO_MEMORY;
    goto done;
  }
  DLI_TRY_DONE(create_temporary(file, 0666));
  /* The new file is as open to others as the old one; a file system without permissions is no reason to fail. */
  if (replaces) (void)fchmod(file->descriptor, existing.st_mode & 0777);
  *out = file;
  file = NULL;
done:
  dli_atomic_file_destroy(file);
  return status;
}

dlora_status dli_atomic_file_write(struct dli_atomic_file *file, const void *bytes, size_t size) {
  DLI_ASSERT(file->descriptor >= 0);
  const char *at = bytes;
  while (size > 0) {
    const ssize_t written = write(file->descriptor, at, size < LARGEST_WRITE ? size : LARGEST_WRITE);
    if (written < 0) {
      if (errno == EINTR) continue;
      return raise_system(file, "could not be written", errno);
    }
    at += written;
    size -= (size_t)written;
  }
  return DLORA_OK;
}

static int sync_descriptor(int descriptor) {
  int result;
  do {
    result = fsync(descriptor);
  } while (result != 0 && errno == EINTR);
  return result;
}

dlora_status dli_atomic_file_commit(struct dli_atomic_file *file) {
  DLI_ASSERT(file->created && file->descriptor >= 0);
  if (sync_descriptor(file->descriptor) != 0) return raise_system(file, "could not be written to disk (fsync)", errno);
  const int closed = close(file->descriptor);
  file->descriptor = -1;
  /* After EINTR the descriptor is closed on Linux, and fsync has reported the errors there were. */
  if (closed != 0 && errno != EINTR) return raise_system(file, "could not be closed", errno);
  if (rename(file->temporary, file->path) != 0) return raise_system(file, "could not be renamed into place", errno);
  file->created = false;
  /* Some network and FUSE file systems cannot sync a folder and say so by EINVAL or ENOTSUP. */
  if (sync_descriptor(file->folder) != 0 && errno != EINVAL && errno != ENOTSUP) {
    return raise_system(file, "is complete, but its folder could not be written to disk (fsync)", errno);
  }
  return DLORA_OK;
}

void dli_atomic_file_destroy(struct dli_atomic_file *file) {
  if (!file) return;
  if (file->descriptor >= 0) (void)close(file->descriptor);
  if (file->folder >= 0) (void)close(file->folder);
  if (file->created) (void)unlink(file->temporary);
  const dlora_allocator allocator = file->allocator;
  dli_free(&allocator, file->temporary);
  dli_free(&allocator, file->path);
  dli_free(&allocator, file->label);
  dli_free(&allocator, file);
}
