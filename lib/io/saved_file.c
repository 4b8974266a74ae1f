/* Files of one handle: saving, loading, tensor names, and a check of the kind of file; integers from metadata.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/saved_file.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"

dlora_status dli_saved_open(struct dli_tensors **out, const char *path, const char *format,
                            const dlora_allocator *allocator) {
  struct dli_tensors *tensors;
  *out = NULL;
  DLI_TRY(dli_tensors_open(&tensors, path, allocator));
  const char *found = dli_tensors_metadata(tensors, "format");
  if (!found || strcmp(found, format) != 0) {
    const dlora_status status =
        dli_raise(DLORA_ERR_FORMAT, "%s: format is %.60s, expected %s", path, found ? found : "missing", format);
    dli_tensors_close(tensors);
    return status;
  }
  *out = tensors;
  return DLORA_OK;
}

dlora_status dli_saved_integers(const struct dli_tensors *tensors, const char *name, size_t count, int64_t *out) {
  const char *text = dli_tensors_metadata(tensors, name), *at = text;
  bool fits = text != NULL;
  if (!text) return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is missing", dli_tensors_label(tensors), name);
  for (size_t i = 0; fits && i < count; i++) {
    int64_t value = 0;
    if (i > 0 && *at++ != ' ') fits = false;
    const bool negative = fits && *at == '-';
    if (negative) at++;
    const char *start = at;
    while (fits && *at >= '0' && *at <= '9' && value <= INT32_MAX) value = 10 * value + (*at++ - '0');
    if (at == start || value > INT32_MAX) fits = false;
    out[i] = negative ? -value : value;
  }
  if (fits && !*at) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is \"%.60s\", expected %zu integer%s", dli_tensors_label(tensors),
                   name, text, count, count == 1 ? "" : "s");
}

dlora_status dli_saved_name(char name[DLI_SAVED_NAME_SIZE], const char *prefix, const char *suffix) {
  const int length = snprintf(name, DLI_SAVED_NAME_SIZE, "%s.%s", prefix, suffix);
  if (length > 0 && length < DLI_SAVED_NAME_SIZE) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "tensor name of prefix %.64s is longer than %d", prefix,
                   DLI_SAVED_NAME_SIZE - 1);
}

dlora_status dli_saved_save(const void *handle, const char *path, const char *format, dli_saved_write_fn write,
                            const dlora_allocator *allocator) {
  struct dli_writer *writer = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(dli_writer_create(&writer, allocator));
  DLI_TRY_DONE(dli_writer_set_metadata(writer, "format", format));
  DLI_TRY_DONE(write(handle, writer));
  DLI_TRY_DONE(dli_writer_save(writer, path));
done:
  dli_writer_destroy(writer);
  return status;
}

dlora_status dli_saved_load(void *out, const char *path, const char *format, dli_saved_read_fn read,
                            const dlora_allocator *allocator, const void *options) {
  struct dli_tensors *tensors;
  dlora_allocator known;
  DLI_TRY(dli_allocator_read(&known, allocator));
  DLI_TRY(dli_saved_open(&tensors, path, format, &known));
  const dlora_status status = read(out, tensors, options);
  dli_tensors_close(tensors);
  return status;
}
