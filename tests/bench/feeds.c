/* Items of a sequence as the library reads them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "sequences.h"

static bool reserve(feed *to, sequence *from, size_t count, problem *why) {
  memset(to, 0, sizeof *to);
  to->from = from;
  to->items = malloc((count + 1) * sizeof *to->items);
  to->labels = malloc((count + 1) * sizeof *to->labels);
  to->tasks = malloc((count + 1) * sizeof *to->tasks);
  if (to->items != NULL && to->labels != NULL && to->tasks != NULL) return true;
  feed_close(to);
  return problem_set(why, "no memory for %zu images", count);
}

static void append(feed *to, const item *one, size_t task) {
  to->items[to->count] = one;
  to->labels[to->count] = (int64_t)one->class_id;
  to->tasks[to->count++] = (int64_t)task;
}

bool feed_open(feed *to, sequence *from, const item_list *list, size_t first, size_t end, bool merged, problem *why) {
  if (!reserve(to, from, list->count, why)) return false;
  for (size_t i = 0; i < list->count; i++) {
    const item *one = &list->items[i];
    if (one->task >= first && one->task < end) append(to, one, merged ? 0 : one->task);
  }
  return true;
}

static bool belongs(const sequence *from, const item *one, size_t num_learnt, bool learnt) {
  return learnt ? one->task < num_learnt : from->first_task[one->class_id] >= num_learnt;
}

bool feed_open_sample(feed *to, sequence *from, size_t num_learnt, bool learnt, size_t limit, problem *why) {
  const item_list *list = &from->test;
  size_t all = 0;
  size_t seen = 0;
  for (size_t i = 0; i < list->count; i++) all += belongs(from, &list->items[i], num_learnt, learnt);
  if (limit > all) limit = all;
  if (!reserve(to, from, limit, why)) return false;
  for (size_t i = 0; i < list->count; i++) {
    const item *one = &list->items[i];
    if (!belongs(from, one, num_learnt, learnt)) continue;
    /* the seen-th of all is taken when the rounded share of the limit goes up */
    if ((seen + 1) * limit / all > seen * limit / all) append(to, one, one->task);
    seen++;
  }
  return true;
}

void feed_close(feed *of) {
  free(of->items);
  free(of->labels);
  free(of->tasks);
  free(of->buffer.bytes);
  memset(of, 0, sizeof *of);
}

int32_t feed_read(size_t index, dlora_images *image, void *user) {
  feed *from = user;
  const item *one = from->items[index];
  if (interrupt_requested()) {
    problem_set(&from->why, "interrupted");
    return 1;
  }
  if (!dataset_read(&from->from->sets[one->set], one->index, image, &from->why)) return 1;
  if (picture_change(one->picture, image, &from->buffer)) return 0;
  problem_set(&from->why, "no memory for a picture");
  return 1;
}
