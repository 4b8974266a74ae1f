/* Files that appear as a whole or not at all: a complete temporary file takes the place of the old one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_ATOMIC_FILE_H
#define DLI_IO_ATOMIC_FILE_H

#include <stddef.h>

#include "duallora/duallora.h"

struct dli_atomic_file;

/* Creates the temporary file. A symbolic link at path is followed; what is not a regular file is never replaced. */
dlora_status dli_atomic_file_create(struct dli_atomic_file **out, const char *path, const dlora_allocator *allocator);
dlora_status dli_atomic_file_write(struct dli_atomic_file *file, const void *bytes, size_t size);
/* fsync, rename, fsync of the folder. The old file is there until the rename. */
dlora_status dli_atomic_file_commit(struct dli_atomic_file *file);
/* Removes the temporary file unless it was committed. */
void dli_atomic_file_destroy(struct dli_atomic_file *file);

#endif
