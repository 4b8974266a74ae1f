/* Result files: one per run, with the settings it was made with.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_RESULTS_H
#define DUALLORA_BENCH_RESULTS_H

#include "run.h"

/** DIR/<sequence>-<method>-seed<k>.json, to be freed. */
char *results_path(const run_request *request);
/** Everything that the outcome of a run depends on. NULL and a sentence on failure. */
cJSON *results_settings(const run_request *request, problem *why);
/** The finished run in a file if it has these settings; otherwise NULL, and *reason says why not ("" if there is no
 *  file). */
cJSON *results_load(const char *path, const cJSON *settings, problem *reason);
/** What else stands in the file: names, and what it was computed with. */
bool results_describe(const run_request *request, cJSON *into, problem *why);

#endif
