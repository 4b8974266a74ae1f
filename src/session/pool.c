/* Sessions that calls on a const handle keep for the next call. METHOD.md 9.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/session/pool.h"

static void release_session(void *session, const dlora_allocator *allocator) {
  (void)allocator; /* the session has its own copy */
  dlora_session_destroy(session);
}

dlora_status dli_session_take(dlora_session **out, struct dli_pool *pool, const dlora_model *model,
                              struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                              size_t threads) {
  dlora_session *session = dli_pool_take(pool);
  if (session && (session->max_batch < max_batch || session->allowed != threads)) {
    dlora_session_destroy(session); /* before its successor is made: at no time there are two */
    session = NULL;
  }
  if (!session)
    return dli_session_create(out, model, merged_weights, first_block, max_batch, threads, false,
                              dli_pool_allocator(pool));
  const dlora_status status = dli_session_reserve(session); /* the bank may have grown */
  if (status == DLORA_OK) {
    *out = session;
  } else {
    dlora_session_destroy(session);
  }
  return status;
}

void dli_session_give(struct dli_pool *pool, dlora_session *session) {
  dli_pool_give(pool, session, release_session);
}
