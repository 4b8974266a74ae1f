/* Opens files that this library wrote: checks which kind of file it is, and reads integers from metadata.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/saved_file.h"

#include <stdbool.h>
#include <string.h>

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
