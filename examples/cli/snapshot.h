/* The unfinished run of a command, kept in a file beside the checkpoint that it is going to write.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_SNAPSHOT_H
#define DUALLORA_CLI_SNAPSHOT_H

#include "context.h"

/** OUT.snapshot, to be freed; NULL without memory. */
char *snapshot_path(const char *out);
bool snapshot_exists(const char *path);
/** Puts the learner of a snapshot in the place of work->learner, which has the options of the run and the tasks before
 *  it. run: description of the present run, which must be that of the snapshot. *done: tasks of the run that are
 *  finished, at most num_tasks. */
bool snapshot_load(context *work, const char *path, const char *run, size_t num_tasks, size_t *done, problem *why);
/** Writes the learner as it is. */
bool snapshot_save(context *work, const char *path, problem *why);
/** Whether the last task was never measured. */
bool snapshot_lacks_evaluation(const dlora_learner *learner, bool *lacks, problem *why);

#endif
