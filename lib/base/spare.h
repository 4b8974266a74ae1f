/* Scratch memory that calls on a const handle leave behind for the next one. A call takes a block out, has it for
 * itself and puts it back: threads never wait for each other, and find none at worst, and then take a new one. */
#ifndef DLI_BASE_SPARE_H
#define DLI_BASE_SPARE_H

#include <stddef.h>

#include "duallora/duallora.h"

struct dli_spares;

dlora_status dli_spares_create(struct dli_spares **out, const dlora_allocator *allocator);
/* With all blocks in it; none may be out. NULL is fine. */
void dli_spares_destroy(struct dli_spares *spares);
/* Releases the blocks in it. */
void dli_spares_clear(struct dli_spares *spares);
/* *out: count values of `size` bytes, 64-byte aligned, of any content. Error: NO_MEMORY. */
dlora_status dli_spares_take(struct dli_spares *spares, size_t count, size_t size, void **out);
/* Puts it back; NULL is fine. */
void dli_spares_give(struct dli_spares *spares, void *memory);

#endif
