/* Philox4x32-10, a counter-based generator (Salmon et al., SC 2011): one (seed, stream) pair, one sequence.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_RANDOM_H
#define DLI_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct dli_random {
  uint64_t seed;
  uint64_t stream;
  uint64_t counter;
  uint32_t block[4];
  uint32_t used; /* words of block already given out */
};

void dli_random_seed(struct dli_random *random, uint64_t seed, uint64_t stream);
uint32_t dli_random_u32(struct dli_random *random);
double dli_random_normal(struct dli_random *random);              /* mean 0, variance 1 */
size_t dli_random_below(struct dli_random *random, size_t bound); /* 0 ... bound - 1, unbiased */
void dli_random_shuffle(struct dli_random *random, size_t *order, size_t count);
void dli_random_permutation(struct dli_random *random, size_t *order, size_t count);

#endif
