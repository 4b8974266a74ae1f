/* Workspaces and scratch memory kept between calls on a const handle, which many threads may use at once. A call takes
 * an item, works alone with it and gives it back. Threads never wait for each other; one that finds the pool empty
 * makes its own item.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_POOL_H
#define DLI_BASE_POOL_H

#include <stddef.h>

#include "duallora/duallora.h"

struct dli_pool;
/* Releases one thing; the allocator is the pool's. */
typedef void dli_pool_release_fn(void *item, const dlora_allocator *allocator);

dlora_status dli_pool_create(struct dli_pool **out, const dlora_allocator *allocator);
/* With all that is in it; nothing may be out. */
void dli_pool_destroy(struct dli_pool *pool);
/* Releases what is in it. */
void dli_pool_clear(struct dli_pool *pool);
/* NULL where it is empty. */
void *dli_pool_take(struct dli_pool *pool);
/* Puts an item back, or releases it where the pool is full. One pool, one kind of item, one function. NULL is fine. */
void dli_pool_give(struct dli_pool *pool, void *item, dli_pool_release_fn *release);
/* Scratch memory in a pool of nothing else. *out: count values of `size` bytes, 64-byte aligned, of any content. Error:
 * NO_MEMORY. */
dlora_status dli_pool_take_scratch(struct dli_pool *pool, size_t count, size_t size, void **out);
void dli_pool_give_scratch(struct dli_pool *pool, void *memory);
const dlora_allocator *dli_pool_allocator(const struct dli_pool *pool);

#endif
