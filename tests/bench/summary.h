/* Means over seeds: summary.json and table.md.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_SUMMARY_H
#define DUALLORA_BENCH_SUMMARY_H

#include <cJSON.h>

#include "arguments.h"

/** The runs of one sequence: files [method][seed], NULL where a method was not asked for. */
typedef struct sequence_results {
  sequence_kind kind;
  cJSON *files[NUM_METHODS][MAX_SEEDS];
} sequence_results;

typedef struct statistic {
  double mean;
  double deviation; /* of a sample; NaN for one value */
  size_t count;     /* of seeds for which the figure is defined */
} statistic;

/** Of a member of "results". */
statistic summary_result(const sequence_results *of, size_t method, const char *figure);
/** Of the accuracy after so many tasks; count 0 where it was not measured. */
statistic summary_stage(const sequence_results *of, size_t method, size_t num_tasks);
/** Runs of a method that failed. */
size_t summary_num_failed(const sequence_results *of, size_t method);

bool summary_write(const sequence_results *all, size_t count, const arguments *from, problem *why);
/** Compares mean last accuracies with --at-least and names what is below it. */
bool summary_check_floors(const sequence_results *all, size_t count, const arguments *from, problem *why);

#endif
