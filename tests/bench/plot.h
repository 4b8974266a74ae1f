/* accuracy.svg: accuracy against the number of tasks learnt, one panel a sequence, one line a method.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_PLOT_H
#define DUALLORA_BENCH_PLOT_H

#include "summary.h"

bool plot_write(const sequence_results *all, size_t count, const arguments *from, problem *why);

#endif
