/* A matrix of low rank as a product of two thin ones.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_LINALG_LOW_RANK_H
#define DLI_LINALG_LOW_RANK_H

#include "duallora/duallora.h"

/* m [rows, cols] = b [rows, rank] a [rank, cols], of the rank that m has in float32: what is left out is below 1e-6 of
 * its largest singular value. a and b have room for min(rows, cols) ranks, and *rank tells how many came out; 0 where m
 * is zero. Errors: NO_MEMORY, NUMERIC. */
dlora_status dli_low_rank(const dlora_allocator *allocator, size_t rows, size_t cols, const float *m, size_t *rank,
                          float *a, float *b);

#endif
