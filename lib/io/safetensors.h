/* Safetensors files: eight bytes of header length, a JSON header, tensor data. The reader trusts nothing: lengths,
 * offsets, overlaps, holes, counts, shapes, dtypes and duplicate names are checked before any access.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_SAFETENSORS_H
#define DLI_IO_SAFETENSORS_H

#include "duallora/duallora.h"

enum dli_dtype { DLI_F64, DLI_F32, DLI_F16, DLI_BF16, DLI_I64, DLI_U64, DLI_I32, DLI_U8, DLI_OTHER };
#define DLI_MAX_DIMS 8

struct dli_tensor {
  const char *name;
  const char *dtype_name;
  enum dli_dtype dtype;
  size_t num_dims;
  size_t shape[DLI_MAX_DIMS];
  size_t count; /* elements */
  size_t num_bytes;
  const void *data; /* little-endian, maybe unaligned, inside the mapping */
};

/* ---- reader ---- */
struct dli_tensors;

/* Maps a file. Errors: IO, FORMAT, NO_MEMORY. */
dlora_status dli_tensors_open(struct dli_tensors **out, const char *path, const dlora_allocator *allocator);
/* Reads a file image that outlives *out; `label` names it in errors. */
dlora_status dli_tensors_open_memory(struct dli_tensors **out, const void *bytes, size_t size, const char *label,
                                     const dlora_allocator *allocator);
/* Maps the parts of a model that an index in a folder names. `index` is the parsed file index_path: its weight_map says
 * for each tensor in which file of the folder it lies. Errors: IO, FORMAT, NO_MEMORY. */
struct cJSON;
dlora_status dli_tensors_open_parts(struct dli_tensors **out, const char *folder, const char *index_path,
                                    const struct cJSON *index, const dlora_allocator *allocator);
void dli_tensors_close(struct dli_tensors *tensors);
/* Path or label, for error sentences; and that of the part with this tensor. */
const char *dli_tensors_label(const struct dli_tensors *tensors);
const char *dli_tensor_label(const struct dli_tensors *tensors, const struct dli_tensor *tensor);
size_t dli_tensors_count(const struct dli_tensors *tensors);
/* In one array: part by part, by ascending offset. */
const struct dli_tensor *dli_tensors_at(const struct dli_tensors *tensors, size_t index);
const struct dli_tensor *dli_tensors_find(const struct dli_tensors *tensors, const char *name); /* NULL: absent */
const char *dli_tensors_metadata(const struct dli_tensors *tensors, const char *key);           /* NULL: absent */
size_t dli_tensors_metadata_count(const struct dli_tensors *tensors);
void dli_tensors_metadata_at(const struct dli_tensors *tensors, size_t index, const char **key, const char **value);

/* The tensor of that name, dtype and shape, or FORMAT naming what differs. A shape entry SIZE_MAX accepts any size. */
dlora_status dli_tensors_require(const struct dli_tensors *tensors, const char *name, enum dli_dtype dtype,
                                 size_t num_dims, const size_t *shape, const struct dli_tensor **out);
/* The same with a copy of the bytes into an array of `count` elements of the dtype (aligned for it). */
dlora_status dli_tensors_copy(const struct dli_tensors *tensors, const char *name, enum dli_dtype dtype,
                              size_t num_dims, const size_t *shape, void *out);
/* Converts F32, F16 or BF16 to float [count]. UNSUPPORTED for others; NOT_FINITE values are FORMAT errors naming the
 * tensor. */
dlora_status dli_tensor_to_float(const struct dli_tensors *tensors, const struct dli_tensor *tensor, float *out);

/* ---- writer ---- */
struct dli_writer;

dlora_status dli_writer_create(struct dli_writer **out, const dlora_allocator *allocator);
void dli_writer_destroy(struct dli_writer *writer);
/* Adds a tensor; data is borrowed until save, name is copied. */
dlora_status dli_writer_add(struct dli_writer *writer, const char *name, enum dli_dtype dtype, size_t num_dims,
                            const size_t *shape, const void *data);
/* Adds or replaces a metadata entry; both are copied. */
dlora_status dli_writer_set_metadata(struct dli_writer *writer, const char *key, const char *value);
/* Writes all to path atomically: temporary file in the same folder, fsync, rename, fsync of the folder. On failure the
 * temporary file is removed and the old file untouched. Error: IO. */
dlora_status dli_writer_save(struct dli_writer *writer, const char *path);

#endif
