/* Inference sessions in a pool of their own, one for each call in progress.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_SESSION_POOL_H
#define DLI_SRC_SESSION_POOL_H

#include "base/pool.h"
#include "src/session/session.h"

/* A session as dli_session_create makes it, for inference and at least max_batch images. All calls on one pool pass the
 * same model, merged_weights and first_block. */
dlora_status dli_session_take(dlora_session **out, struct dli_pool *pool, const dlora_model *model,
                              struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                              size_t threads);
/* Returns it to the pool. NULL is allowed. */
void dli_session_give(struct dli_pool *pool, dlora_session *session);

#endif
