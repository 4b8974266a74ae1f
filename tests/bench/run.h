/* One method on one sequence with one seed.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_RUN_H
#define DUALLORA_BENCH_RUN_H

#include <cJSON.h>

#include "../../examples/cli/progress.h"
#include "arguments.h"

typedef struct run_request {
  const arguments *from;
  const dlora_model *model;
  sequence *tasks; /* arranged for the seed */
  method_kind method;
  uint64_t seed;
  progress_view *view;
} run_request;

/** The learner's options of a run, callbacks aside. */
bool run_options(const run_request *request, dlora_learner_options *options, problem *why);
/** Learns and measures; adds the members "results", "stages", "accuracy_matrix" and "warnings" to *into. */
bool run_method(const run_request *request, cJSON *into, problem *why);

#endif
