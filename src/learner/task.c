/* The open task: its beginning, its place, its classes, and how it is discarded. What it is made of comes from
 * learner/observe.c and learner/train.c; learner/commit_task.c commits it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"

int dli_is_held_out(const dlora_learner_options *options, size_t class_index, size_t number) {
  const double fraction = (double)options->held_out;
  if (fraction < 1e-9 || number == 0) return 0;
  const size_t period = (size_t)(1.0 / fraction + 0.5);
  return (number + 7 * class_index) % period == period - 1;
}

size_t dli_task_find_class(const struct dli_task *task, int64_t class_id) {
  size_t index = 0;
  while (index < task->classes.count && task->classes.ids[index] != class_id) index++;
  return index;
}

dlora_status dli_task_refuse(const dlora_learner *learner, const char *caller) {
  const struct dli_task *task = learner->task;
  if (!task) return dli_raise(DLORA_ERR_STATE, "%s: no task is open; call dlora_learner_begin_task first", caller);
  if (!task->num_images[0]) {
    return dli_raise(DLORA_ERR_STATE, "%s: the task has no images; call dlora_learner_observe first", caller);
  }
  if (task->phase == DLI_TRAIN) {
    return dli_raise(DLORA_ERR_STATE,
                     "%s: training has begun; call dlora_learner_step, or dlora_learner_observe_trained after the "
                     "last step",
                     caller);
  }
  if (task->phase == DLI_OBSERVE_AFTER) {
    return dli_raise(DLORA_ERR_STATE,
                     "%s: training has ended; call dlora_learner_observe_trained for the rest of the images, or "
                     "dlora_learner_commit_task",
                     caller);
  }
  if (!dli_learner_trains(learner)) {
    return dli_raise(DLORA_ERR_STATE,
                     "%s: both ranks are 0, so there is nothing to train; call dlora_learner_commit_task", caller);
  }
  return dli_raise(DLORA_ERR_STATE, "%s: training has not begun; call dlora_learner_begin_training first", caller);
}

dlora_status dli_task_check_batch(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                  const char *caller) {
  const struct dli_task *task = learner->task;
  dlora_images part;
  DLI_TRY(dli_images_part(images, 0, images->count, &part, caller));
  for (size_t i = 0; task->phase != DLI_OBSERVE_BEFORE && i < images->count; i++) {
    if (dli_task_find_class(task, labels[i]) == task->classes.count) {
      return dli_raise(DLORA_ERR_ARGUMENT, "%s: label %lld of image %zu was not observed before training", caller,
                       (long long)labels[i], i);
    }
  }
  const dlora_status status = dli_image_plan_prepare(task->session->parts[0].plan, images, caller);
  if (status == DLORA_ERR_NO_MEMORY) dli_task_release(learner); /* as where memory runs out later on */
  return status;
}

void dli_task_release(dlora_learner *learner) {
  struct dli_task *task = learner->task;
  const dlora_allocator *allocator = &learner->allocator;
  if (!task) return;
  void *const arrays[] = {
      task->classes.ids,        task->classes.num_shown, task->rows.old_weight, task->rows.old_bias,
      task->rows.fixed,         task->work.features,     task->work.early,      task->work.middle,
      task->work.kept_labels,   task->work.keys,         task->work.kept_keys,  task->work.is_held_out,
      task->work.logits,        task->work.d_features,   task->work.targets,    task->work.augment,
      task->work.gather,        task->drift.before,      task->drift.after,     task->held_out.features,
      task->held_out.labels,    task->energy.rows,       task->energy.slots,    task->source.digests,
      task->drift.without_pairs};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) dli_free(allocator, arrays[i]);
  for (size_t i = 0; i < 2; i++) {
    for (size_t kind = 0; kind < DLI_NUM_STATISTICS; kind++) dli_free(allocator, task->work.views[i][kind]);
    dli_free(allocator, task->work.kept[i]);
  }
  dli_trunk_cache_free(learner, task);
  if (task->session) dli_session_add_profile(task->session, &learner->profile);
  dlora_session_destroy(task->session);
  dli_learner_discard_statistics(learner, task->made);
  dli_free(allocator, task);
  learner->task = NULL;
  /* Of what is left these only fail on a NULL handle or when nothing is open. */
  if (learner->bank && learner->bank->open) (void)dlora_bank_discard_task(learner->bank);
  for (size_t i = 0; learner->projectors && i < dli_num_inputs(learner->model); i++) {
    if (learner->projectors[i]) (void)dlora_projector_discard_task(learner->projectors[i]);
  }
}

/* ---- begin ---- */

static dlora_status take_buffers(dlora_learner *learner, struct dli_task *task) {
  const dlora_allocator *allocator = &learner->allocator;
  const size_t batch = task->session->max_batch, dim = learner->model->vit.dim;
  DLI_TRY(DLI_NEW(allocator, task->work.features, batch * dim));
  DLI_TRY(DLI_NEW(allocator, task->work.early, batch * 2 * dim));
  if (dli_learner_num_drifting_columns(learner) > dim) DLI_TRY(DLI_NEW(allocator, task->work.middle, batch * 2 * dim));
  for (size_t i = 0; i < 2; i++) {
    for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
      const bool kept = learner->statistics[kind] || dli_learner_wants_statistics(&learner->options, kind);
      if (dli_statistics_info[kind].is_early || !kept) continue;
      DLI_TRY(DLI_NEW(allocator, task->work.views[i][kind], batch * learner->width));
    }
    DLI_TRY(DLI_NEW(allocator, task->work.kept[i], batch * (learner->width > 2 * dim ? learner->width : 2 * dim)));
  }
  DLI_TRY(DLI_NEW(allocator, task->work.kept_labels, batch));
  DLI_TRY(DLI_NEW(allocator, task->work.keys, batch));
  DLI_TRY(DLI_NEW(allocator, task->work.kept_keys, batch));
  DLI_TRY(DLI_NEW(allocator, task->work.augment, batch));
  DLI_TRY(DLI_NEW(allocator, task->work.is_held_out, batch));
  if (learner->options.held_out > 0.0f) {
    DLI_TRY(DLI_NEW(allocator, task->held_out.features, DLI_HEAD_SAMPLE * dim));
    DLI_TRY(DLI_NEW(allocator, task->held_out.labels, DLI_HEAD_SAMPLE));
  }
  if (!dli_learner_trains(learner)) return DLORA_OK;
  DLI_TRY(DLI_NEW(allocator, task->work.d_features, batch * dim));
  DLI_TRY(DLI_NEW(allocator, task->work.targets, batch));
  DLI_TRY(DLI_NEW(allocator, task->work.gather, batch * dli_widest_input(learner)));
  if (learner->options.routing != DLORA_ROUTING_ENERGY) return DLORA_OK;
  const size_t inputs = dli_num_inputs(learner->model);
  DLI_TRY(DLI_NEW(allocator, task->energy.slots, batch));
  return DLI_NEW(allocator, task->energy.rows, inputs * DLI_ENERGY_SAMPLE * dli_widest_input(learner));
}

dlora_status dlora_learner_begin_task(dlora_learner *learner, size_t planned_steps) {
  DLI_REQUIRE(learner);
  const dlora_allocator *allocator = &learner->allocator;
  if (learner->task) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_learner_begin_task: a task is open; call dlora_learner_commit_task or "
                     "dlora_learner_discard_task first");
  }
  const size_t index = dlora_learner_num_tasks(learner);
  dlora_status status = DLORA_OK;
  struct dli_task *task;
  dli_learner_release_workspaces(learner); /* training has its own session, and wants the memory */
  DLI_TRY(DLI_NEW(allocator, task, 1));
  learner->task = task;
  task->planned_steps = planned_steps;
  dli_random_seed(&task->random, learner->options.seed, 8 * index);
  dli_random_seed(&task->sampling, learner->options.seed, 8 * index + 1);
  DLI_TRY_DONE(dli_session_create(&task->session, learner->model, learner->merged_weights, learner->first_block,
                                  dli_learner_max_batch(learner, 1, 0), learner->threads, dli_learner_trains(learner),
                                  allocator));
  DLI_TRY_DONE(take_buffers(learner, task));
  DLI_TRY_DONE(dli_learner_begin_statistics(learner));
  DLI_TRY_DONE(dlora_bank_begin_task(learner->bank));
done:
  if (status != DLORA_OK) dli_task_release(learner);
  return status;
}

/* ---- classes ---- */

dlora_status dli_task_reserve_classes(const dlora_learner *learner, struct dli_task *task, size_t count) {
  const dlora_allocator *allocator = &learner->allocator;
  if (count <= task->classes.room - task->classes.count) return DLORA_OK;
  const size_t grown = 2 * task->classes.room + 16;
  const size_t room = task->classes.count + count > grown ? task->classes.count + count : grown;
  int64_t *classes;
  size_t *num_shown;
  DLI_TRY(DLI_NEW(allocator, classes, room));
  const dlora_status status = DLI_NEW(allocator, num_shown, room);
  if (status != DLORA_OK) {
    dli_free(allocator, classes);
    return status;
  }
  if (task->classes.count) {
    memcpy(classes, task->classes.ids, task->classes.count * sizeof *classes);
    memcpy(num_shown, task->classes.num_shown, task->classes.count * sizeof *num_shown);
  }
  dli_free(allocator, task->classes.ids);
  dli_free(allocator, task->classes.num_shown);
  task->classes.ids = classes;
  task->classes.num_shown = num_shown;
  task->classes.room = room;
  return DLORA_OK;
}

/* ---- where it stands ---- */

dlora_status dlora_open_task_init(dlora_open_task *task, size_t size) {
  const dlora_open_task full = DLORA_OPEN_TASK_INIT;
  return dli_struct_write("dlora_open_task", task, size, &full, sizeof full);
}

dlora_status dlora_learner_get_open_task(const dlora_learner *learner, dlora_open_task *task) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(task);
  const struct dli_task *t = learner->task;
  dlora_open_task full = DLORA_OPEN_TASK_INIT;
  if (t) {
    full.num_classes = t->classes.count;
    full.num_observed = t->num_images[0];
    full.planned_steps = t->planned_steps;
    full.num_steps = t->num_steps;
    full.num_observed_trained = t->num_images[1];
    full.num_source_images = t->source.num_images;
    full.is_open = 1;
    full.phase = t->phase == DLI_OBSERVE_BEFORE ? DLORA_PHASE_OBSERVE
                 : t->phase == DLI_TRAIN        ? DLORA_PHASE_TRAIN
                                                : DLORA_PHASE_STATISTICS;
  }
  return dli_struct_write("dlora_open_task", task, task->struct_size, &full, sizeof full);
}

dlora_status dlora_learner_discard_task(dlora_learner *learner) {
  DLI_REQUIRE(learner);
  if (!learner->task) return dli_task_refuse(learner, __func__);
  dli_task_release(learner);
  return DLORA_OK;
}
