/* How well unknown scores tell classes that were not learnt from those that were.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_UNKNOWN_H
#define DUALLORA_BENCH_UNKNOWN_H

#include "sequences.h"

/** Area under the ROC curve of unknown_score: the probability that an image of a class still to come scores higher than
 *  one of the first num_learnt tasks. At most `limit` images of either kind. NaN where no class is still to come. */
bool unknown_auroc(const dlora_learner *learner, sequence *tasks, size_t num_learnt, size_t limit, double *auroc,
                   problem *why);

#endif
