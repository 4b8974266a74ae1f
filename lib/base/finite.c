/* Finds the first value that is NaN, infinite or out of range in an array of floats. The comparison is of bit patterns
 * as integers, so that it works under -ffast-math too, and in blocks that compilers vectorise.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/finite.h"

#include <float.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"

/* The magnitude of a float as an integer: in the same order, with infinity and then NaN above all others. On bits,
 * because compilers may assume finite values under -ffast-math. */
static uint32_t magnitude(const float *value) {
  uint32_t bits;
  memcpy(&bits, value, sizeof bits);
  return bits & 0x7FFFFFFFu;
}

size_t dli_first_beyond(const float *values, size_t count, float limit) {
  /* A block without early exit becomes vector instructions; the place is looked for only in a block that has one. */
  enum { BLOCK = 512 };
  const uint32_t most = magnitude(&limit);
  DLI_ASSERT(limit >= 0.0f && limit <= FLT_MAX);
  for (size_t begin = 0; begin < count; begin += BLOCK) {
    const size_t end = count - begin < BLOCK ? count : begin + BLOCK;
    int all_within = 1;
    for (size_t i = begin; i < end; i++) all_within &= magnitude(values + i) <= most;
    if (all_within) continue;
    for (size_t i = begin; i < end; i++) {
      if (magnitude(values + i) > most) return i;
    }
  }
  return count;
}

size_t dli_first_not_finite(const float *values, size_t count) {
  return dli_first_beyond(values, count, FLT_MAX);
}
