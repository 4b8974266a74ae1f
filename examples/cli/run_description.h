/* What a run of 'duallora learn' is about, so that its snapshot is not mistaken for that of another one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_RUN_DESCRIPTION_H
#define DUALLORA_CLI_RUN_DESCRIPTION_H

#include "dataset.h"
#include "settings.h"

/** The note of a snapshot that holds the description. */
#define RUN_NOTE "duallora.run"

typedef struct run_facts {
  dataset *train;
  dataset *test; /* NULL: none */
  const char *train_path;
  const char *test_path;
  const char *resume;  /* checkpoint that the run goes on from; NULL: none */
  const size_t *order; /* [train->num_classes] classes in the order in which they are learnt */
  size_t num_tasks;
  int32_t products;
  int32_t preset;                       /* -1: none */
  const dlora_learner_options *options; /* in force */
} run_facts;

/** The description as text, to be freed with cJSON_free: the same for the same classes, split, order, images (by the
 *  names and sizes of their files, or their pixels where many share a file), origin and options. Threads, micro-batch
 *  and where files lie have no part in it. NULL and a sentence on failure. */
char *run_describe(const run_facts *facts, problem *why);
/** Compares the description of the present run with that in a snapshot. False and a sentence that names the first
 *  difference, and --restart, if they are not the same. */
bool run_check_same(const char *present, const char *snapshot, problem *why);

#endif
