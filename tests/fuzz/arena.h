/* Memory that costs little and forgives nothing: blocks one behind the other, of which AddressSanitizer lets no byte be
 * touched but the caller's, and which are not used again before the end of the input.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_FUZZ_ARENA_H
#define DUALLORA_TESTS_FUZZ_ARENA_H

#include <stddef.h>

/* Aligned to 16 bytes; NULL: the arena is full. */
void *arena_take(size_t size);
/* Whether pointer is a block of the arena, which is then away. A block that is away already is a finding. */
int arena_give_back(void *pointer);
/* The size that was asked for, of a block of the arena; else SIZE_MAX. */
size_t arena_size_of(const void *pointer);
/* All room is free again, once no block is out. */
void arena_reset(void);

#endif
