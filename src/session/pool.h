/* Planned sessions kept between calls on a const handle, which many threads may make at once. */
#ifndef DLI_SRC_SESSION_POOL_H
#define DLI_SRC_SESSION_POOL_H

#include "src/session/session.h"

struct dli_session_pool;

dlora_status dli_session_pool_create(struct dli_session_pool **out, const dlora_allocator *allocator);
/* With all sessions in it; none may be out. */
void dli_session_pool_destroy(struct dli_session_pool *pool);
/* Gives the memory of the sessions in it back. */
void dli_session_pool_clear(struct dli_session_pool *pool);
/* An inference session as from dli_session_create with the same arguments, or for more images; always with the same
 * model, merged_weights and first_block for one pool. */
dlora_status dli_session_take(dlora_session **out, struct dli_session_pool *pool, const dlora_model *model,
                              struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                              size_t threads);
/* Puts it back; NULL is fine. */
void dli_session_give(struct dli_session_pool *pool, dlora_session *session);

#endif
