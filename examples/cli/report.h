/* Results as JSON and as a table.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_REPORT_H
#define DUALLORA_CLI_REPORT_H

#include <cJSON.h>

#include "duallora/duallora.h"
#include "problem.h"

/** An evaluation in which nothing was evaluated: every number is NaN. */
dlora_evaluation report_no_evaluation(void);
/** last_accuracy, average_accuracy, ..., accuracy_matrix and classes; shares in [0, 1], null where undefined. NULL and
 * a sentence on failure. The caller deletes it. */
cJSON *report_json(const dlora_learner *learner, const dlora_evaluation *evaluation, double seconds, problem *why);
/** The accuracy matrix as a table and the figures below it, on standard output. */
bool report_print(const dlora_learner *learner, const dlora_evaluation *evaluation, problem *why);

/** Adds a member; a number that is not finite becomes null, and bytes that are not UTF-8 are replaced. False without
 *  memory. */
bool report_add_number(cJSON *object, const char *name, double value);
bool report_add_text(cJSON *object, const char *name, const char *text);
/** Writes JSON to a file, all of it or nothing; "-" is standard output. */
bool report_write(const cJSON *json, const char *path, problem *why);

#endif
