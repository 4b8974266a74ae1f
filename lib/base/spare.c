#include "base/spare.h"

#include <stdatomic.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

/* Threads that call at once beyond SLOTS take and release memory in every call. A block's size stands before its
 * memory, with as much room as keeps that aligned. */
enum { SLOTS = 16, HEAD = 64 };

struct dli_spares {
  dlora_allocator allocator;
  _Atomic(size_t *) slots[SLOTS]; /* bytes of the memory that follows */
};

dlora_status dli_spares_create(struct dli_spares **out, const dlora_allocator *allocator) {
  struct dli_spares *spares;
  DLI_TRY(DLI_NEW(allocator, spares, 1));
  spares->allocator = *allocator;
  for (size_t i = 0; i < SLOTS; i++) atomic_init(&spares->slots[i], NULL);
  *out = spares;
  return DLORA_OK;
}

void dli_spares_destroy(struct dli_spares *spares) {
  if (!spares) return;
  const dlora_allocator allocator = spares->allocator;
  dli_spares_clear(spares);
  dli_free(&allocator, spares);
}

void dli_spares_clear(struct dli_spares *spares) {
  for (size_t i = 0; i < SLOTS; i++) dli_free(&spares->allocator, atomic_exchange(&spares->slots[i], NULL));
}

dlora_status dli_spares_take(struct dli_spares *spares, size_t count, size_t size, void **out) {
  size_t *block = NULL, bytes = 0;
  *out = NULL;
  if (!dli_multiply(&bytes, count, size) || bytes > SIZE_MAX - HEAD) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for %zu values of %zu bytes", count, size);
  }
  for (size_t i = 0; !block && i < SLOTS; i++) block = atomic_exchange(&spares->slots[i], NULL);
  if (block && *block < bytes) {
    dli_free(&spares->allocator, block);
    block = NULL;
  }
  if (!block) {
    block = dli_alloc(&spares->allocator, HEAD + bytes, 1);
    if (!block) return DLORA_ERR_NO_MEMORY;
    *block = bytes;
  }
  *out = (char *)block + HEAD;
  return DLORA_OK;
}

void dli_spares_give(struct dli_spares *spares, void *memory) {
  if (!memory) return;
  size_t *block = (void *)((char *)memory - HEAD);
  for (size_t i = 0; i < SLOTS; i++) {
    size_t *empty = NULL;
    if (atomic_compare_exchange_strong(&spares->slots[i], &empty, block)) return;
  }
  dli_free(&spares->allocator, block);
}
