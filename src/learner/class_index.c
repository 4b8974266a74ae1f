/* Which class and task each component is of, and the thresholds of the unknown score: made anew after each task.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/memory.h"
#include "base/status.h"
#include "src/learner/learner.h"

void dli_class_index_release(struct dli_class_index *class_index, const dlora_allocator *allocator) {
  dli_free(allocator, class_index->component_tasks);
  dli_free(allocator, class_index->component_classes);
  dli_free(allocator, class_index->component_columns);
  dli_free(allocator, class_index->classes);
  dli_free(allocator, class_index->untouched_places);
  *class_index = (struct dli_class_index){0};
}

/* The untouched backbone's statistics are taken before training, when the images may have come in another order than
 * after it: the order of classes within a task is their own. */
static dlora_status find_untouched(struct dli_class_index *d, const dlora_predictor *untouched,
                                   const dlora_allocator *allocator) {
  const size_t count = dlora_predictor_num_components(untouched);
  int64_t *tasks = NULL, *classes = NULL;
  dlora_status status = DLORA_OK;
  if (count != d->num_components) return DLORA_OK; /* made for the open task, which it has no part of yet */
  DLI_TRY_DONE(DLI_NEW(allocator, tasks, count));
  DLI_TRY_DONE(DLI_NEW(allocator, classes, count));
  DLI_TRY_DONE(DLI_NEW(allocator, d->untouched_places, count));
  if (count) DLI_TRY_DONE(dlora_predictor_get_components(untouched, tasks, classes, NULL, NULL));
  for (size_t i = 0; i < count; i++) {
    size_t *place = &d->untouched_places[i];
    while (*place < count && (tasks[*place] != d->component_tasks[i] || classes[*place] != d->component_classes[i])) {
      ++*place;
    }
    if (*place == count) {
      status = dli_raise(DLORA_ERR_FORMAT, "predictor untouched lacks class %lld of task %lld",
                         (long long)d->component_classes[i], (long long)d->component_tasks[i]);
      goto done;
    }
  }
done:
  dli_free(allocator, classes);
  dli_free(allocator, tasks);
  return status;
}

dlora_status dli_class_index_create(struct dli_class_index *out, dlora_predictor *const *statistics,
                                    float unknown_quantile, const dlora_allocator *allocator) {
  const dlora_predictor *base = statistics[DLI_BASE];
  struct dli_class_index d = {.num_components = dlora_predictor_num_components(base),
                              .num_classes = dlora_predictor_num_classes(base)};
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, d.component_tasks, d.num_components));
  DLI_TRY_DONE(DLI_NEW(allocator, d.component_classes, d.num_components));
  DLI_TRY_DONE(DLI_NEW(allocator, d.component_columns, d.num_components));
  DLI_TRY_DONE(DLI_NEW(allocator, d.classes, d.num_classes));
  if (d.num_components) {
    DLI_TRY_DONE(dlora_predictor_get_components(base, d.component_tasks, d.component_classes, NULL, NULL));
    DLI_TRY_DONE(dlora_predictor_get_classes(base, d.classes));
  }
  for (size_t i = 0; i < d.num_components; i++) {
    while (d.classes[d.component_columns[i]] != d.component_classes[i]) d.component_columns[i]++;
  }
  if (statistics[DLI_UNTOUCHED]) DLI_TRY_DONE(find_untouched(&d, statistics[DLI_UNTOUCHED], allocator));
  for (size_t kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    d.thresholds[kind] = INFINITY;
    if (!statistics[kind] || dli_statistics_info[kind].is_early) continue; /* the gate judges no image */
    const dlora_status found =
        dlora_predictor_unknown_threshold(statistics[kind], unknown_quantile, &d.thresholds[kind]);
    if (found != DLORA_OK && found != DLORA_ERR_STATE) {
      status = found;
      goto done;
    }
  }
  *out = d;
  return DLORA_OK;
done:
  dli_class_index_release(&d, allocator);
  return status;
}
