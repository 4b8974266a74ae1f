/* A lock-free pool: a fixed number of slots, each an atomic pointer that a thread exchanges with NULL to take the item
 * and with the item to give it back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <stdatomic.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"

/* Threads beyond these that call at once take and release memory in every call. */
enum { SLOTS = 16 };

struct dli_pool {
  dlora_allocator allocator;
  _Atomic(void *) slots[SLOTS];
  _Atomic(dli_pool_release_fn *) release; /* of what is in it; set by the first item */
};

dlora_status dli_pool_create(struct dli_pool **out, const dlora_allocator *allocator) {
  struct dli_pool *pool;
  DLI_TRY(DLI_NEW(allocator, pool, 1));
  pool->allocator = *allocator;
  for (size_t i = 0; i < SLOTS; i++) atomic_init(&pool->slots[i], NULL);
  atomic_init(&pool->release, NULL);
  *out = pool;
  return DLORA_OK;
}

void dli_pool_destroy(struct dli_pool *pool) {
  if (!pool) return;
  const dlora_allocator allocator = pool->allocator;
  dli_pool_clear(pool);
  dli_free(&allocator, pool);
}

void dli_pool_clear(struct dli_pool *pool) {
  for (size_t i = 0; i < SLOTS; i++) {
    void *item = atomic_exchange(&pool->slots[i], NULL);
    if (item) atomic_load (&pool->release)(item, &pool->allocator);
  }
}

void *dli_pool_take(struct dli_pool *pool) {
  void *item = NULL;
  for (size_t i = 0; !item && i < SLOTS; i++) item = atomic_exchange(&pool->slots[i], NULL);
  return item;
}

void dli_pool_give(struct dli_pool *pool, void *item, dli_pool_release_fn *release) {
  if (!item) return;
  DLI_ASSERT(!atomic_load(&pool->release) || atomic_load(&pool->release) == release);
  atomic_store(&pool->release, release);
  for (size_t i = 0; i < SLOTS; i++) {
    void *empty = NULL;
    if (atomic_compare_exchange_strong(&pool->slots[i], &empty, item)) return;
  }
  release(item, &pool->allocator);
}

/* A block's size stands before its memory, with as much room as keeps that aligned. */
enum { HEAD = 64 };
_Static_assert(HEAD >= sizeof(size_t), "the size fits before the memory");

static void release_block(void *block, const dlora_allocator *allocator) {
  dli_free(allocator, block);
}

dlora_status dli_pool_take_scratch(struct dli_pool *pool, size_t count, size_t size, void **out) {
  size_t bytes = 0;
  *out = NULL;
  if (!dli_multiply(&bytes, count, size) || bytes > SIZE_MAX - HEAD) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for %zu values of %zu bytes", count, size);
  }
  size_t *block = dli_pool_take(pool);
  if (block && *block < bytes) {
    dli_free(&pool->allocator, block);
    block = NULL;
  }
  if (!block) {
    block = dli_alloc(&pool->allocator, HEAD + bytes, 1);
    if (!block) return DLORA_ERR_NO_MEMORY;
    *block = bytes;
  }
  *out = (char *)block + HEAD;
  return DLORA_OK;
}

void dli_pool_give_scratch(struct dli_pool *pool, void *memory) {
  if (memory) dli_pool_give(pool, (char *)memory - HEAD, release_block);
}

const dlora_allocator *dli_pool_allocator(const struct dli_pool *pool) {
  return &pool->allocator;
}
