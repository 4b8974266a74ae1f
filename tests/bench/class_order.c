/* NumPy's legacy generator (MT19937) and shuffle.
 * SPDX-License-Identifier: Apache-2.0 */
#include "class_order.h"

#define LENGTH 624u
#define MIDDLE 397u

typedef struct mt19937 {
  uint32_t words[LENGTH];
  size_t used;
} mt19937;

/* RandomState(int) seeds as the generator's authors did in 2002. */
static void seed_generator(mt19937 *from, uint32_t seed) {
  for (uint32_t i = 0; i < LENGTH; i++) {
    from->words[i] = seed;
    seed = 1812433253u * (seed ^ (seed >> 30)) + i + 1;
  }
  from->used = LENGTH;
}

static uint32_t next_word(mt19937 *from) {
  if (from->used == LENGTH) {
    for (size_t i = 0; i < LENGTH; i++) {
      uint32_t y = (from->words[i] & 0x80000000u) | (from->words[(i + 1) % LENGTH] & 0x7fffffffu);
      from->words[i] = from->words[(i + MIDDLE) % LENGTH] ^ (y >> 1) ^ ((y & 1u) != 0 ? 0x9908b0dfu : 0u);
    }
    from->used = 0;
  }
  uint32_t y = from->words[from->used++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

/* Uniform in 0 ... largest: words are masked to the next power of two, and what is too large is thrown away. */
static uint32_t next_interval(mt19937 *from, uint32_t largest) {
  uint32_t mask = largest;
  uint32_t value = 0;
  for (unsigned shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
  do value = next_word(from) & mask;
  while (value > largest);
  return value;
}

void class_order_numpy(size_t *order, size_t count, uint32_t seed) {
  mt19937 from;
  seed_generator(&from, seed);
  for (size_t i = 0; i < count; i++) order[i] = i;
  for (size_t i = count; i-- > 1;) {
    size_t j = next_interval(&from, (uint32_t)i);
    size_t held = order[i];
    order[i] = order[j];
    order[j] = held;
  }
}
