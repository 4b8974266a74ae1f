/* Class names and the ids they have in a checkpoint.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_CLASS_TABLE_H
#define DUALLORA_CLI_CLASS_TABLE_H

#include "duallora/duallora.h"
#include "problem.h"

typedef struct class_entry {
  char *name;
  int64_t id;
} class_entry;

typedef struct class_table {
  class_entry *entries; /* [count] sorted by name */
  size_t count;
  int64_t next_id; /* one more than the largest id */
} class_table;

/** The classes that a learner knows; one without a name has its id as name. */
bool class_table_from_learner(class_table *table, const dlora_learner *learner, problem *why);
void class_table_free(class_table *table);
/** The id of a name; false if there is none. */
bool class_table_find(const class_table *table, const char *name, int64_t *id);
/** The ids of names [count]; names not in the table yet get the ids that follow, in order, and are added. ids: [count]
 */
bool class_table_add(class_table *table, char *const *names, size_t count, int64_t *ids, problem *why);
/** The learner's name for a class, or the id written into buffer. */
const char *class_name(const dlora_learner *learner, int64_t id, char buffer[24]);

#endif
