/* A word more into a hash: for keys that are compared within one process or one file's life, not against an enemy. */
#ifndef DLI_BASE_HASH_H
#define DLI_BASE_HASH_H

#include <stdint.h>

static inline uint64_t dli_mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
  return hash ^ hash >> 29;
}

#endif
