#include "base/finite.h"

#include <stdint.h>
#include <string.h>

/* NaN and infinities have all exponent bits set; on bits, because compilers may assume finite values under -ffast-math.
 */
static const uint32_t exponent_mask = 0x7F800000u;

static int is_finite(const float *value) {
  uint32_t bits;
  memcpy(&bits, value, sizeof bits);
  return (bits & exponent_mask) != exponent_mask;
}

size_t dli_first_not_finite(const float *values, size_t count) {
  /* A block without early exit becomes vector instructions; the place is looked for only in a block that has one. */
  enum { BLOCK = 512 };
  for (size_t begin = 0; begin < count; begin += BLOCK) {
    const size_t end = count - begin < BLOCK ? count : begin + BLOCK;
    int all_finite = 1;
    for (size_t i = begin; i < end; i++) all_finite &= is_finite(values + i);
    if (all_finite) continue;
    for (size_t i = begin; i < end; i++) {
      if (!is_finite(values + i)) return i;
    }
  }
  return count;
}
