/* The order in which classes are learnt.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_CLASS_ORDER_H
#define DUALLORA_BENCH_CLASS_ORDER_H

#include <stddef.h>
#include <stdint.h>

/** numpy.random.RandomState(seed).permutation(count), exactly: with seed 1993 it is the class order of nearly all
 *  published class-incremental results. order: [count] */
void class_order_numpy(size_t *order, size_t count, uint32_t seed);

#endif
