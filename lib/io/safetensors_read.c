/* Reads safetensors files as untrusted input: maps a file, checks its length and the JSON text of its header, has the
 * header indexed (safetensors_index.c), and gives out tensors of an expected type and shape.
 * SPDX-License-Identifier: Apache-2.0 */
#include <cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/dtype.h"
#include "io/file_kind.h"
#include "io/json_text.h"
#include "io/safetensors.h"
#include "io/safetensors_index.h"

/* The largest header that the format's own reader takes. */
enum { LARGEST_HEADER = 100 * 1000 * 1000, LENGTH_SIZE = 8 };

/* ---- parsing ---- */

/* Says why the first bytes are not those of a safetensors file with a header of this length; rest: bytes after them. */
static dlora_status refuse_start(const struct dli_tensors *tensors, uint64_t length, size_t rest) {
  char kind[DLI_KIND_SIZE];
  if (dli_file_kind(kind, tensors->bytes, tensors->size)) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: %s", tensors->label, kind);
  }
  if (rest > 0 && length > rest && length <= LARGEST_HEADER && tensors->bytes[LENGTH_SIZE] == '{') {
    return dli_raise(DLORA_ERR_FORMAT,
                     "%s: is cut off: of the %llu bytes of its header %zu are there; fetch or copy it again",
                     tensors->label, (unsigned long long)length, rest);
  }
  if (length > rest || length > LARGEST_HEADER) {
    return dli_raise(DLORA_ERR_FORMAT,
                     "%s: is not a safetensors file: by its first 8 bytes its header would have %llu bytes, but %zu "
                     "follow and at most %d are allowed",
                     tensors->label, (unsigned long long)length, rest, LARGEST_HEADER);
  }
  return dli_raise(DLORA_ERR_FORMAT, "%s: is not a safetensors file: its header is not JSON text", tensors->label);
}

/* Checks everything of bytes [size] and fills the index:
 *
 *     1   the header's length, 8 bytes little-endian, fits the file and the format's limit
 *     2   the header is UTF-8 text that begins an object and has no NUL: a JSON parser may see it
 *     3   it is JSON, and nothing but white space follows
 *     4   members are counted, then read one by one, then sorted and compared (dli_tensors_index)
 *
 * Steps 1 and 2 fail for files of other kinds, which refuse_start names. */
static dlora_status parse(struct dli_tensors *tensors) {
  dlora_status status = DLORA_OK;
  cJSON *root = NULL;
  if (tensors->size < LENGTH_SIZE) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: has %zu bytes, too few for a safetensors file", tensors->label,
                     tensors->size);
  }
  /* 1 */
  uint64_t length = 0;
  for (size_t i = 0; i < LENGTH_SIZE; i++) length |= (uint64_t)tensors->bytes[i] << 8 * i;
  const size_t rest = tensors->size - LENGTH_SIZE;
  if (length > LARGEST_HEADER || length > rest) return refuse_start(tensors, length, rest);
  const char *header = (const char *)tensors->bytes + LENGTH_SIZE;
  const size_t header_size = (size_t)length;
  tensors->data = tensors->bytes + LENGTH_SIZE + header_size;
  tensors->data_size = rest - header_size;
  /* 2 */
  if (header_size == 0 || header[0] != '{' || !dli_is_json_text(header, header_size)) {
    return refuse_start(tensors, length, rest);
  }
  /* 3 */
  const char *end = header;
  root = cJSON_ParseWithLengthOpts(header, header_size, &end, 0);
  if (!root) {
    status = dli_raise(DLORA_ERR_FORMAT, "%s: the JSON of its header is damaged or nested too deeply near byte %zu",
                       tensors->label, (size_t)(end - header));
    goto done;
  }
  for (; end < header + header_size; end++) {
    if (*end == ' ' || *end == '\t' || *end == '\n' || *end == '\r') continue;
    status = dli_raise(DLORA_ERR_FORMAT, "%s: text follows the JSON of its header at byte %zu", tensors->label,
                       (size_t)(end - header));
    goto done;
  }
  /* 4 */
  status = dli_tensors_index(tensors, root);
done:
  cJSON_Delete(root);
  return status;
}

/* ---- opening ---- */

dlora_status dli_tensors_create(struct dli_tensors **out, const char *label, const dlora_allocator *allocator) {
  dlora_allocator used;
  struct dli_tensors *tensors = NULL;
  DLI_TRY(dli_allocator_read(&used, allocator));
  DLI_TRY(DLI_NEW(&used, tensors, 1));
  tensors->allocator = used;
  tensors->label = dli_strdup(&used, label);
  if (!tensors->label) {
    dli_tensors_close(tensors);
    return DLORA_ERR_NO_MEMORY;
  }
  *out = tensors;
  return DLORA_OK;
}

static dlora_status map_file(struct dli_tensors *tensors, const char *path) {
  dlora_status status = DLORA_OK;
  struct stat info;
  /* Not to wait for a writer where path is a pipe. */
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return dli_raise_open(path, errno);
  if (fstat(descriptor, &info) != 0) {
    status = dli_raise(DLORA_ERR_IO, "%s: could not be looked up: %s", path, strerror(errno));
    goto done;
  }
  if (!S_ISREG(info.st_mode)) {
    status = dli_raise(DLORA_ERR_IO, "%s: is %s", path,
                       S_ISDIR(info.st_mode) ? "a directory, expected a file in it, such as model.safetensors"
                                             : "a device, pipe or socket, expected a regular file");
    goto done;
  }
  if (info.st_size == 0) {
    status = dli_raise(DLORA_ERR_FORMAT, "%s: is empty, expected a safetensors file: fetch or write it again", path);
    goto done;
  }
  if ((uintmax_t)info.st_size > SIZE_MAX / 2) {
    status = dli_raise(DLORA_ERR_UNSUPPORTED, "%s: is too large for this machine's address space", path);
    goto done;
  }
  tensors->size = (size_t)info.st_size;
  void *mapping = mmap(NULL, tensors->size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (mapping == MAP_FAILED) {
    status = dli_raise(DLORA_ERR_IO, "%s: could not be mapped into memory: %s", path, strerror(errno));
    goto done;
  }
  tensors->mapping = mapping;
  tensors->bytes = mapping;
done:
  (void)close(descriptor);
  return status;
}

dlora_status dli_tensors_open(struct dli_tensors **out, const char *path, const dlora_allocator *allocator) {
  *out = NULL;
  dlora_status status = DLORA_OK;
  struct dli_tensors *tensors = NULL;
  DLI_TRY(dli_tensors_create(&tensors, path, allocator));
  DLI_TRY_DONE(map_file(tensors, path));
  DLI_TRY_DONE(parse(tensors));
  *out = tensors;
  tensors = NULL;
done:
  dli_tensors_close(tensors);
  return status;
}

dlora_status dli_tensors_open_memory(struct dli_tensors **out, const void *bytes, size_t size, const char *label,
                                     const dlora_allocator *allocator) {
  *out = NULL;
  dlora_status status = DLORA_OK;
  struct dli_tensors *tensors = NULL;
  DLI_TRY(dli_tensors_create(&tensors, label, allocator));
  tensors->bytes = bytes;
  tensors->size = size;
  DLI_TRY_DONE(parse(tensors));
  *out = tensors;
  tensors = NULL;
done:
  dli_tensors_close(tensors);
  return status;
}

void dli_tensors_close(struct dli_tensors *tensors) {
  if (!tensors) return;
  const dlora_allocator allocator = tensors->allocator;
  for (size_t i = 0; i < tensors->num_parts; i++) dli_tensors_close(tensors->parts[i]);
  dli_free(&allocator, tensors->parts);
  if (tensors->mapping) (void)munmap(tensors->mapping, tensors->size);
  dli_free(&allocator, tensors->entries);
  dli_free(&allocator, tensors->by_name);
  dli_free(&allocator, tensors->tensors);
  dli_free(&allocator, tensors->text);
  dli_free(&allocator, tensors->label);
  dli_free(&allocator, tensors);
}

/* ---- tensors of an expected shape ---- */

const char *dli_tensors_label(const struct dli_tensors *tensors) {
  return tensors->label;
}

const char *dli_tensor_label(const struct dli_tensors *tensors, const struct dli_tensor *tensor) {
  for (size_t i = 0; i < tensors->num_parts; i++) {
    const struct dli_tensors *part = tensors->parts[i];
    const uintptr_t begin = (uintptr_t)part->bytes, at = (uintptr_t)tensor->data;
    if (at >= begin && at - begin <= part->size) return part->label;
  }
  return tensors->label;
}

/* As "F32 [3, 4]"; * for any size. 8 dimensions of 20 digits fit. */
static void describe(char out[256], const char *dtype, size_t num_dims, const size_t *shape) {
  size_t used = (size_t)snprintf(out, 256, "%s [", dtype);
  for (size_t i = 0; i < num_dims && i < DLI_MAX_DIMS; i++) {
    const char *comma = i > 0 ? ", " : "";
    const int length = shape[i] == SIZE_MAX ? snprintf(out + used, 256 - used, "%s*", comma)
                                            : snprintf(out + used, 256 - used, "%s%zu", comma, shape[i]);
    used += (size_t)length;
    DLI_ASSERT(used < 256);
  }
  snprintf(out + used, 256 - used, "]");
}

dlora_status dli_tensors_require(const struct dli_tensors *tensors, const char *name, enum dli_dtype dtype,
                                 size_t num_dims, const size_t *shape, const struct dli_tensor **out) {
  const struct dli_dtype_info *info = dli_dtype_get(dtype);
  const struct dli_tensor *tensor = dli_tensors_find(tensors, name);
  char expected[256];
  *out = NULL;
  describe(expected, info ? info->name : "any", num_dims, shape);
  if (!tensor) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s' is missing, expected %s", tensors->label, name, expected);
  }
  bool fits = tensor->dtype == dtype && tensor->num_dims == num_dims;
  for (size_t i = 0; fits && i < num_dims; i++) fits = shape[i] == SIZE_MAX || shape[i] == tensor->shape[i];
  if (!fits) {
    char found[256];
    describe(found, tensor->dtype_name, tensor->num_dims, tensor->shape);
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s' is %s, expected %s", dli_tensor_label(tensors, tensor), name,
                     found, expected);
  }
  *out = tensor;
  return DLORA_OK;
}

dlora_status dli_tensors_copy(const struct dli_tensors *tensors, const char *name, enum dli_dtype dtype,
                              size_t num_dims, const size_t *shape, void *out) {
  const struct dli_tensor *tensor = NULL;
  DLI_TRY(dli_tensors_require(tensors, name, dtype, num_dims, shape, &tensor));
  if (tensor->num_bytes > 0) memcpy(out, tensor->data, tensor->num_bytes);
  return DLORA_OK;
}
