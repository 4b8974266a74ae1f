/* SPDX-License-Identifier: Apache-2.0 */
#include "arena.h"

#include <stdint.h>

#include "fuzz.h"

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER
#endif
#endif
#ifdef ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
/* The heads of blocks are forbidden to everyone but the functions below. */
#define UNCHECKED __attribute__((no_sanitize("address")))
#else
#define ASAN_POISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#define UNCHECKED
#endif

/* Several times what reading a file of 32 KiB takes; a larger one uses malloc for the rest. */
enum { ROOM = 8 << 20, ALIGNMENT = 16, OUT = 0x5ca1ab1e, AWAY = 0x0ff };

/* Right before the caller's bytes; that of the next block keeps those behind them out of bounds. */
struct head {
  size_t size;
  size_t state;
};

static _Alignas(ALIGNMENT) unsigned char room[ROOM];
static size_t used, num_out;
static int is_guarded;

UNCHECKED void *arena_take(size_t size) {
  if (!is_guarded) ASAN_POISON_MEMORY_REGION(room, ROOM);
  is_guarded = 1;
  if (size > ROOM || used + sizeof(struct head) + (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT > ROOM - ALIGNMENT) {
    return NULL;
  }
  struct head *head = (struct head *)(void *)(room + used);
  head->size = size;
  head->state = OUT;
  used += sizeof *head + (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  num_out++;
  ASAN_UNPOISON_MEMORY_REGION(head + 1, size);
  return head + 1;
}

UNCHECKED static struct head *head_of(const void *pointer) {
  const uintptr_t at = (uintptr_t)pointer, begin = (uintptr_t)room;
  if (at < begin || at >= begin + ROOM) return NULL;
  struct head *head = (struct head *)(void *)(room + (at - begin)) - 1;
  if (at % ALIGNMENT || head->state != OUT) fuzz_fail("%p is given back twice, or was never taken", pointer);
  return head;
}

UNCHECKED int arena_give_back(void *pointer) {
  struct head *head = head_of(pointer);
  if (!head) return 0;
  head->state = AWAY;
  num_out--;
  ASAN_POISON_MEMORY_REGION(pointer, head->size);
  return 1;
}

UNCHECKED size_t arena_size_of(const void *pointer) {
  const struct head *head = head_of(pointer);
  return head ? head->size : SIZE_MAX;
}

void arena_reset(void) {
  if (num_out == 0) used = 0;
}
