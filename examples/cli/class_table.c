/* Class names and the ids they have in a checkpoint.
 * SPDX-License-Identifier: Apache-2.0 */
#include "class_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *class_name(const dlora_learner *learner, int64_t id, char buffer[24]) {
  const char *name = dlora_learner_get_class_name(learner, id);
  if (name != NULL) return name;
  snprintf(buffer, 24, "%" PRId64, id);
  return buffer;
}

static int compare(const void *left, const void *right) {
  return strcmp(((const class_entry *)left)->name, ((const class_entry *)right)->name);
}

/* Makes room for more entries; those that exist stay. */
static bool reserve(class_table *table, size_t more, problem *why) {
  class_entry *entries = realloc(table->entries, (table->count + more) * sizeof *entries);
  if (entries == NULL) return problem_set(why, "no memory for %zu class names", table->count + more);
  table->entries = entries;
  return true;
}

bool class_table_from_learner(class_table *table, const dlora_learner *learner, problem *why) {
  size_t count = dlora_learner_num_classes(learner);
  memset(table, 0, sizeof *table);
  if (count == 0) return true;
  int64_t *ids = malloc(count * sizeof *ids);
  bool done = reserve(table, count, why);
  if (ids == NULL) done = problem_set(why, "no memory for %zu classes", count);
  if (done && dlora_learner_get_classes(learner, ids) != DLORA_OK) done = problem_set_library(why, "classes");
  for (size_t i = 0; done && i < count; i++) {
    char buffer[24];
    char *name = strdup(class_name(learner, ids[i], buffer));
    if (name == NULL) {
      done = problem_set(why, "no memory for %zu class names", count);
    } else if (ids[i] == INT64_MAX) {
      free(name);
      done =
          problem_set(why, "the checkpoint has a class id of %" PRId64 ", which leaves no id for new classes", ids[i]);
    } else {
      table->entries[table->count++] = (class_entry){name, ids[i]};
      if (ids[i] >= table->next_id) table->next_id = ids[i] + 1;
    }
  }
  if (done) qsort(table->entries, table->count, sizeof *table->entries, compare);
  free(ids);
  if (!done) class_table_free(table);
  return done;
}

void class_table_free(class_table *table) {
  for (size_t i = 0; i < table->count; i++) free(table->entries[i].name);
  free(table->entries);
  memset(table, 0, sizeof *table);
}

bool class_table_find(const class_table *table, const char *name, int64_t *id) {
  size_t low = 0;
  size_t high = table->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(table->entries[middle].name, name);
    if (order == 0) {
      *id = table->entries[middle].id;
      return true;
    }
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return false;
}

bool class_table_add(class_table *table, char *const *names, size_t count, int64_t *ids, problem *why) {
  size_t known = table->count;
  if (!reserve(table, count, why)) return false;
  /* New entries go behind the sorted ones and are sorted in at the end: the names given are all different. */
  for (size_t i = 0; i < count; i++) {
    class_table sorted = {table->entries, known, 0};
    if (class_table_find(&sorted, names[i], &ids[i])) continue;
    char *name = strdup(names[i]);
    if (name == NULL) return problem_set(why, "no memory for %zu class names", count);
    ids[i] = table->next_id++;
    table->entries[table->count++] = (class_entry){name, ids[i]};
  }
  qsort(table->entries, table->count, sizeof *table->entries, compare);
  return true;
}
