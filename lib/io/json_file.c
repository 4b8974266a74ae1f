/* Reads a small JSON file as untrusted input: its size, its text and its nesting are bounded before and while it is
 * parsed, and a name that is given twice is refused where it is looked up.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/json_file.h"

#include <cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/file_kind.h"
#include "io/json_text.h"

/* An index of a thousand parts and the names of twenty thousand classes take a few MB. */
enum { LARGEST_FILE = 16 << 20 };

static dlora_status read_all(int descriptor, const char *path, char *out, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = read(descriptor, out + done, size - done);
    if (got > 0) {
      done += (size_t)got;
    } else if (got == 0 || errno != EINTR) {
      return dli_raise(DLORA_ERR_IO, "%s: could not be read: %s", path,
                       got == 0 ? "it became shorter meanwhile" : strerror(errno));
    }
  }
  return DLORA_OK;
}

static dlora_status parse(cJSON **out, const char *path, const char *text, size_t size) {
  const char *end = text;
  if (!dli_is_json_text(text, size)) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: is not JSON: it has bytes that no JSON text has; fetch it again", path);
  }
  cJSON *root = cJSON_ParseWithLengthOpts(text, size, &end, 0);
  if (!root) {
    return dli_raise(DLORA_ERR_FORMAT,
                     "%s: its JSON is cut off, damaged or nested too deeply near byte %zu; fetch it again", path,
                     (size_t)(end - text));
  }
  while (end < text + size && (*end == ' ' || *end == '\t' || *end == '\n' || *end == '\r')) end++;
  if (end < text + size || !cJSON_IsObject(root)) {
    cJSON_Delete(root);
    return end < text + size
               ? dli_raise(DLORA_ERR_FORMAT, "%s: text follows its JSON at byte %zu", path, (size_t)(end - text))
               : dli_raise(DLORA_ERR_FORMAT, "%s: is JSON, but not an object in braces", path);
  }
  *out = root;
  return DLORA_OK;
}

dlora_status dli_json_read(cJSON **out, const char *path, const dlora_allocator *allocator) {
  dlora_status status = DLORA_OK;
  struct stat info;
  char *text = NULL;
  *out = NULL;
  /* Not to wait for a writer where path is a pipe. */
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return dli_raise_open(path, errno);
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = dli_raise(DLORA_ERR_IO, "%s: is a folder, device, pipe or socket, expected a JSON file", path);
    goto done;
  }
  if (info.st_size == 0 || info.st_size > LARGEST_FILE) {
    status = dli_raise(DLORA_ERR_FORMAT, "%s: has %lld bytes, expected a JSON file of 1 to %d bytes", path,
                       (long long)info.st_size, (int)LARGEST_FILE);
    goto done;
  }
  const size_t size = (size_t)info.st_size;
  DLI_TRY_DONE(DLI_NEW(allocator, text, size));
  DLI_TRY_DONE(read_all(descriptor, path, text, size));
  DLI_TRY_DONE(parse(out, path, text, size));
done:
  dli_free(allocator, text);
  (void)close(descriptor);
  return status;
}

dlora_status dli_json_member(const cJSON *object, const char *name, const char *label, const cJSON **out) {
  *out = NULL;
  if (!cJSON_IsObject(object)) return DLORA_OK;
  for (const cJSON *item = object->child; item; item = item->next) {
    if (strcmp(item->string, name) != 0) continue;
    if (*out) return dli_raise(DLORA_ERR_FORMAT, "%s: %s is given twice", label, name);
    *out = item;
  }
  if (cJSON_IsNull(*out)) *out = NULL;
  return DLORA_OK;
}
