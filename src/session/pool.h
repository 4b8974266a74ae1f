/* Planned inference sessions in a pool of nothing else.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_SESSION_POOL_H
#define DLI_SRC_SESSION_POOL_H

#include "base/pool.h"
#include "src/session/session.h"

/* An inference session as from dli_session_create with the same arguments, or for more images; always with the same
 * model, merged_weights and first_block for one pool. */
dlora_status dli_session_take(dlora_session **out, struct dli_pool *pool, const dlora_model *model,
                              struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                              size_t threads);
/* Puts it back; NULL is fine. */
void dli_session_give(struct dli_pool *pool, dlora_session *session);

#endif
