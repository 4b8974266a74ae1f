/* A non-cryptographic 64-bit hash, fed word by word: for keys that are compared within one process or in one file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_HASH_H
#define DLI_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t dli_mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
  return hash ^ hash >> 29;
}

static inline uint64_t dli_mix_bytes(uint64_t hash, const void *bytes, size_t count) {
  const char *from = bytes;
  for (; count > 0; from += sizeof hash) {
    uint64_t word = 0;
    const size_t part = count < sizeof word ? count : sizeof word;
    memcpy(&word, from, part);
    hash = dli_mix(hash, word);
    count -= part;
  }
  return hash;
}

#endif
