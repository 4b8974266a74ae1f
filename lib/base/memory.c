/* Zeroed memory, aligned to 64 bytes, from the caller's allocator or calloc. A header before each block keeps the
 * address that the allocator returned; under AddressSanitizer the padding behind the caller's bytes is out of bounds.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/status.h"

/* Padding is out of bounds too; AddressSanitizer has to be told. */
#if defined(__SANITIZE_ADDRESS__)
#define DLI_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DLI_ADDRESS_SANITIZER
#endif
#endif
#ifdef DLI_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(begin, size) ((void)(begin), (void)(size))
#endif

/* A cache line, and the width of an AVX-512 register. */
enum { ALIGNMENT = 64 };

/* What dli_free must know; it stands right before the caller's bytes. */
struct block {
  void *start;
  size_t size; /* of the caller's bytes with their padding */
};

/* calloc, because large memory comes as zeros from the system and takes no room until it is written to: dli_alloc need
 * not touch it. */
static void *allocate_by_calloc(size_t size, void *user) {
  (void)user;
  return calloc(1, size);
}

static void release_by_free(void *pointer, void *user) {
  (void)user;
  free(pointer);
}

static const dlora_allocator default_allocator = {allocate_by_calloc, release_by_free, NULL};

dlora_status dli_allocator_read(dlora_allocator *out, const dlora_allocator *given) {
  if (!given) {
    *out = default_allocator;
    return DLORA_OK;
  }
  if (!given->allocate || !given->release) {
    return dli_raise(DLORA_ERR_ARGUMENT, "allocator: %s is NULL; set both allocate and release, or pass no allocator",
                     given->allocate ? "release" : "allocate");
  }
  *out = *given;
  return DLORA_OK;
}

bool dli_multiply(size_t *out, size_t a, size_t b) {
  if (b > 0 && a > SIZE_MAX / b) return false;
  *out = a * b;
  return true;
}

/* start            aligned
 * | unused | block | the caller's bytes, zeroed | padding to 64 ... | */
void *dli_alloc(const dlora_allocator *allocator, size_t count, size_t size) {
  const size_t extra = sizeof(struct block) + 2 * ALIGNMENT;
  size_t wanted = 0;
  if (!dli_multiply(&wanted, count, size) || wanted > SIZE_MAX - extra) {
    dli_raise(DLORA_ERR_NO_MEMORY, "out of memory: %zu elements of %zu bytes do not fit the address space", count,
              size);
    return NULL;
  }
  if (!allocator) allocator = &default_allocator;
  const size_t rounded = wanted > 0 ? (wanted + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
  void *start = allocator->allocate(rounded + sizeof(struct block) + ALIGNMENT - 1, allocator->user);
  if (!start) {
    dli_raise(DLORA_ERR_NO_MEMORY, "out of memory: the allocator refused %zu bytes", wanted);
    return NULL;
  }
  const size_t skipped = (size_t)((uintptr_t)start % ALIGNMENT);
  size_t offset = (ALIGNMENT - skipped) % ALIGNMENT;
  if (offset < sizeof(struct block)) offset += ALIGNMENT;
  unsigned char *aligned = (unsigned char *)start + offset;
  DLI_ASSERT((uintptr_t)aligned % ALIGNMENT == 0 && offset <= sizeof(struct block) + ALIGNMENT - 1);
  const struct block block = {start, rounded};
  memcpy(aligned - sizeof block, &block, sizeof block);
  if (allocator->allocate != allocate_by_calloc) memset(aligned, 0, rounded);
  ASAN_POISON_MEMORY_REGION(aligned + wanted, rounded - wanted);
  return aligned;
}

void dli_free(const dlora_allocator *allocator, const void *pointer) {
  if (!pointer) return;
  if (!allocator) allocator = &default_allocator;
  struct block block;
  memcpy(&block, (const unsigned char *)pointer - sizeof block, sizeof block);
  ASAN_UNPOISON_MEMORY_REGION(pointer, block.size); /* the allocator may use it again */
  allocator->release(block.start, allocator->user);
}

char *dli_strdup(const dlora_allocator *allocator, const char *text) {
  const size_t size = strlen(text) + 1;
  char *copy = dli_alloc(allocator, size, 1);
  if (copy) memcpy(copy, text, size);
  return copy;
}
