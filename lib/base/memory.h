/* All memory of the library: from a handle's allocator, aligned to 64 bytes, zeroed.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_MEMORY_H
#define DLI_BASE_MEMORY_H

#include <stdbool.h>

#include "duallora/duallora.h"

/* The caller's allocator, or malloc and free for NULL. Refuses half-filled structs. */
dlora_status dli_allocator_read(dlora_allocator *out, const dlora_allocator *given);

/* count * size bytes, zeroed, 64-byte aligned; never NULL for a zero count. NULL raises DLORA_ERR_NO_MEMORY. */
void *dli_alloc(const dlora_allocator *allocator, size_t count, size_t size);
void dli_free(const dlora_allocator *allocator, const void *pointer);
char *dli_strdup(const dlora_allocator *allocator, const char *text);

/* DLI_TRY(DLI_NEW(allocator, pointer, count)) */
#define DLI_NEW(allocator, pointer, count) \
  (((pointer) = dli_alloc((allocator), (count), sizeof *(pointer))) ? DLORA_OK : DLORA_ERR_NO_MEMORY)

/* *out = a * b, or false on overflow. */
bool dli_multiply(size_t *out, size_t a, size_t b);

#endif
