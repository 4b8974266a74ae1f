/* Random numbers by Philox4x32-10: ten rounds of multiplication and key addition turn a counter into four words. Normal
 * numbers, unbiased integers and permutations are made from these words.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <math.h>

/* Constants of Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", table 2 and section 4). */
static const uint32_t multiplier_0 = 0xD2511F53u;
static const uint32_t multiplier_1 = 0xCD9E8D57u;
static const uint32_t weyl_0 = 0x9E3779B9u;
static const uint32_t weyl_1 = 0xBB67AE85u;

/* The block of four words at (seed, stream, counter). */
static void philox(struct dli_random *random) {
  uint32_t c0 = (uint32_t)random->counter;
  uint32_t c1 = (uint32_t)(random->counter >> 32);
  uint32_t c2 = (uint32_t)random->stream;
  uint32_t c3 = (uint32_t)(random->stream >> 32);
  uint32_t key_0 = (uint32_t)random->seed;
  uint32_t key_1 = (uint32_t)(random->seed >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t product_0 = (uint64_t)multiplier_0 * c0;
    const uint64_t product_1 = (uint64_t)multiplier_1 * c2;
    c0 = (uint32_t)(product_1 >> 32) ^ c1 ^ key_0;
    c1 = (uint32_t)product_1;
    c2 = (uint32_t)(product_0 >> 32) ^ c3 ^ key_1;
    c3 = (uint32_t)product_0;
    key_0 += weyl_0;
    key_1 += weyl_1;
  }
  random->block[0] = c0;
  random->block[1] = c1;
  random->block[2] = c2;
  random->block[3] = c3;
}

void dli_random_seed(struct dli_random *random, uint64_t seed, uint64_t stream) {
  *random = (struct dli_random){.seed = seed, .stream = stream, .used = 4};
}

uint32_t dli_random_u32(struct dli_random *random) {
  /* Not ==, so that a state read from a damaged file cannot lead outside the block. */
  if (random->used >= 4) {
    philox(random);
    random->counter++;
    random->used = 0;
  }
  return random->block[random->used++];
}

static uint64_t random_u64(struct dli_random *random) {
  const uint64_t high = dli_random_u32(random);
  return high << 32 | dli_random_u32(random);
}

double dli_random_normal(struct dli_random *random) {
  /* Box-Muller; the half keeps the logarithm's argument above 0. */
  const double radius = ((double)(random_u64(random) >> 12) + 0.5) * 0x1p-52;
  const double angle = (double)dli_random_u32(random) * 0x1p-32;
  return sqrt(-2.0 * log(radius)) * cos(6.283185307179586 * angle);
}

size_t dli_random_below(struct dli_random *random, size_t bound) {
  if (bound <= 1) return 0;
  /* Draws of the last, incomplete run of `bound` values are rejected, or small results would come more often. */
  if ((uint64_t)bound <= UINT32_MAX) {
    const uint32_t range = (uint32_t)bound;
    const uint32_t rejected = (0u - range) % range;
    uint32_t draw = dli_random_u32(random);
    while (draw < rejected) draw = dli_random_u32(random);
    return (size_t)(draw % range);
  }
  const uint64_t range = (uint64_t)bound;
  const uint64_t rejected = ((uint64_t)0 - range) % range;
  uint64_t draw = random_u64(random);
  while (draw < rejected) draw = random_u64(random);
  return (size_t)(draw % range);
}

void dli_random_shuffle(struct dli_random *random, size_t *order, size_t count) {
  for (size_t i = count; i > 1; i--) {
    const size_t j = dli_random_below(random, i);
    const size_t swapped = order[i - 1];
    order[i - 1] = order[j];
    order[j] = swapped;
  }
}

void dli_random_permutation(struct dli_random *random, size_t *order, size_t count) {
  for (size_t i = 0; i < count; i++) order[i] = i;
  dli_random_shuffle(random, order, count);
}
