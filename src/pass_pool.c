/* Passes that calls on a const handle leave behind for the next one. A call takes one out, works alone with it and puts
 * it back: threads never wait for each other, and find it missing at worst, and then make their own. */
#include "src/pass_pool.h"

#include <stdatomic.h>

#include "base/memory.h"
#include "base/status.h"

/* Threads that call at once beyond this many plan a workspace for every call. */
enum { SLOTS = 16 };

struct dli_pass_pool {
  dlora_allocator allocator;
  _Atomic(dlora_pass *) slots[SLOTS];
};

dlora_status dli_pass_pool_create(struct dli_pass_pool **out, const dlora_allocator *allocator) {
  struct dli_pass_pool *pool;
  DLI_TRY(DLI_NEW(allocator, pool, 1));
  pool->allocator = *allocator;
  for (size_t i = 0; i < SLOTS; i++) atomic_init(&pool->slots[i], NULL);
  *out = pool;
  return DLORA_OK;
}

void dli_pass_pool_destroy(struct dli_pass_pool *pool) {
  if (!pool) return;
  const dlora_allocator allocator = pool->allocator;
  dli_pass_pool_clear(pool);
  dli_free(&allocator, pool);
}

void dli_pass_pool_clear(struct dli_pass_pool *pool) {
  for (size_t i = 0; i < SLOTS; i++) dlora_pass_destroy(atomic_exchange(&pool->slots[i], NULL));
}

dlora_status dli_pass_take(dlora_pass **out, struct dli_pass_pool *pool, const dlora_model *model,
                           struct dli_deployed *deployed, size_t first_block, size_t max_batch, size_t threads) {
  dlora_pass *pass = NULL;
  for (size_t i = 0; !pass && i < SLOTS; i++) pass = atomic_exchange(&pool->slots[i], NULL);
  if (pass && (pass->max_batch < max_batch || pass->allowed != threads)) {
    dlora_pass_destroy(pass); /* before its successor is made, so that memory does not add up */
    pass = NULL;
  }
  if (!pass) return dli_pass_create(out, model, deployed, first_block, max_batch, threads, 0, &pool->allocator);
  const dlora_status status = dli_pass_reserve(pass); /* the bank may have grown since */
  if (status == DLORA_OK) {
    *out = pass;
  } else {
    dlora_pass_destroy(pass);
  }
  return status;
}

void dli_pass_give(struct dli_pass_pool *pool, dlora_pass *pass) {
  if (!pass) return;
  for (size_t i = 0; i < SLOTS; i++) {
    dlora_pass *empty = NULL;
    if (atomic_compare_exchange_strong(&pool->slots[i], &empty, pass)) return;
  }
  dlora_pass_destroy(pass);
}
