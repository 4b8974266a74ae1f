/* Passes that calls on a const handle leave behind for the next one. A call takes one out, works alone with it and puts
 * it back: threads never wait for each other, and find it missing at worst, and then make their own. */
#include "src/session/pool.h"

#include <stdatomic.h>

#include "base/memory.h"
#include "base/status.h"

/* Threads that call at once beyond this many plan a workspace for every call. */
enum { SLOTS = 16 };

struct dli_session_pool {
  dlora_allocator allocator;
  _Atomic(dlora_session *) slots[SLOTS];
};

dlora_status dli_session_pool_create(struct dli_session_pool **out, const dlora_allocator *allocator) {
  struct dli_session_pool *pool;
  DLI_TRY(DLI_NEW(allocator, pool, 1));
  pool->allocator = *allocator;
  for (size_t i = 0; i < SLOTS; i++) atomic_init(&pool->slots[i], NULL);
  *out = pool;
  return DLORA_OK;
}

void dli_session_pool_destroy(struct dli_session_pool *pool) {
  if (!pool) return;
  const dlora_allocator allocator = pool->allocator;
  dli_session_pool_clear(pool);
  dli_free(&allocator, pool);
}

void dli_session_pool_clear(struct dli_session_pool *pool) {
  for (size_t i = 0; i < SLOTS; i++) dlora_session_destroy(atomic_exchange(&pool->slots[i], NULL));
}

dlora_status dli_session_take(dlora_session **out, struct dli_session_pool *pool, const dlora_model *model,
                              struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                              size_t threads) {
  dlora_session *session = NULL;
  for (size_t i = 0; !session && i < SLOTS; i++) session = atomic_exchange(&pool->slots[i], NULL);
  if (session && (session->max_batch < max_batch || session->allowed != threads)) {
    dlora_session_destroy(session); /* before its successor is made, so that memory does not add up */
    session = NULL;
  }
  if (!session)
    return dli_session_create(out, model, merged_weights, first_block, max_batch, threads, 0, &pool->allocator);
  const dlora_status status = dli_session_reserve(session); /* the bank may have grown since */
  if (status == DLORA_OK) {
    *out = session;
  } else {
    dlora_session_destroy(session);
  }
  return status;
}

void dli_session_give(struct dli_session_pool *pool, dlora_session *session) {
  if (!session) return;
  for (size_t i = 0; i < SLOTS; i++) {
    dlora_session *empty = NULL;
    if (atomic_compare_exchange_strong(&pool->slots[i], &empty, session)) return;
  }
  dlora_session_destroy(session);
}
