/* Files of one handle: saving, loading, tensor names, the check of the kind of file, integers in metadata.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_SAVED_FILE_H
#define DLI_SRC_SAVED_FILE_H

#include "io/safetensors.h"

/* Opens a file and checks that its metadata `format` is exactly this one. Errors: IO, FORMAT, NO_MEMORY. */
dlora_status dli_saved_open(struct dli_tensors **out, const char *path, const char *format,
                            const dlora_allocator *allocator);
/* Metadata `name` as `count` decimal integers apart by one space, each from -INT32_MAX to INT32_MAX, and nothing else.
 */
dlora_status dli_saved_integers(const struct dli_tensors *tensors, const char *name, size_t count, int64_t *out);

/* The tensor name "<prefix>.<suffix>". Error: ARGUMENT, if it is longer. */
#define DLI_SAVED_NAME_SIZE 256
dlora_status dli_saved_name(char name[DLI_SAVED_NAME_SIZE], const char *prefix, const char *suffix);

/* Saves a handle as a file of its own: metadata `format`, then all that `write` adds. Errors: IO, NO_MEMORY. */
typedef dlora_status (*dli_saved_write_fn)(const void *handle, struct dli_writer *writer);
dlora_status dli_saved_save(const void *handle, const char *path, const char *format, dli_saved_write_fn write,
                            const dlora_allocator *allocator);
/* Opens such a file and has `read` make the handle, as *out. allocator: of the file's tensors, NULL for malloc.
 * options: passed to read. Errors: those of dli_saved_open and of read. */
typedef dlora_status (*dli_saved_read_fn)(void *out, const struct dli_tensors *tensors, const void *options);
dlora_status dli_saved_load(void *out, const char *path, const char *format, dli_saved_read_fn read,
                            const dlora_allocator *allocator, const void *options);

#endif
