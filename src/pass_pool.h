/* Planned passes kept between calls on a const handle, which many threads may make at once. */
#ifndef DLI_SRC_PASS_POOL_H
#define DLI_SRC_PASS_POOL_H

#include "src/pass.h"

struct dli_pass_pool;

dlora_status dli_pass_pool_create(struct dli_pass_pool **out, const dlora_allocator *allocator);
/* With all passes in it; none may be out. */
void dli_pass_pool_destroy(struct dli_pass_pool *pool);
/* Gives the memory of the passes in it back. */
void dli_pass_pool_clear(struct dli_pass_pool *pool);
/* An inference pass as from dli_pass_create with the same arguments, or for more images; always with the same model,
 * deployed and first_block for one pool. */
dlora_status dli_pass_take(dlora_pass **out, struct dli_pass_pool *pool, const dlora_model *model,
                           struct dli_deployed *deployed, size_t first_block, size_t max_batch, size_t threads);
/* Puts it back; NULL is fine. */
void dli_pass_give(struct dli_pass_pool *pool, dlora_pass *pass);

#endif
