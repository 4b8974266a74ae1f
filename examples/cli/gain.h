/* What learning gained over the untouched backbone, and what predictions rely on, in words.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_GAIN_H
#define DUALLORA_CLI_GAIN_H

#include <stdbool.h>
#include <stddef.h>

#include "duallora/duallora.h"

/** True if a finished task left adapters. Without any, the network is the untouched backbone. */
bool gain_has_adapters(const dlora_learner *learner);
/** Accuracy learnt less that of the untouched backbone, in points; NaN where one of them was not measured. */
double gain_points(const dlora_evaluation *evaluation);
/** One sentence without a full stop: the gain where it was measured, what predictions rely on, and the report's
 * evidence. Without adapters it says that nothing is trained. */
void gain_describe(const dlora_learner *learner, const dlora_evaluation *evaluation, const dlora_task_report *report,
                   char *text, size_t size);

#endif
