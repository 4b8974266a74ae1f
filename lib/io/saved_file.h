/* What loaders of the library's own files share.
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

#endif
