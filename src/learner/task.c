/* One task: begin, observe, step, cancel. How it ends is in learner/commit_task.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"
#include "src/learner/source.h"

int dli_is_held_out(const dlora_learner_options *options, size_t class_index, size_t seen) {
  const double share = (double)options->held_out;
  if (share < 1e-9 || !seen) return 0;
  const size_t period = (size_t)(1.0 / share + 0.5);
  return (seen + 7 * class_index) % period == period - 1;
}

size_t dli_task_find_class(const struct dli_task *task, int64_t class_id) {
  size_t index = 0;
  while (index < task->num_classes && task->classes[index] != class_id) index++;
  return index;
}

void dli_task_release(dlora_learner *learner) {
  struct dli_task *task = learner->task;
  const dlora_allocator *allocator = &learner->allocator;
  if (!task) return;
  void *const arrays[] = {task->classes,      task->num_shown,     task->old_weight,  task->old_bias,
                          task->fixed_head,   task->features,      task->early,       task->middle,
                          task->kept_labels,  task->held_out,      task->logits,      task->d_features,
                          task->targets,      task->augment,       task->gather,      task->drift_before,
                          task->drift_after,  task->held_features, task->held_labels, task->energy_rows,
                          task->energy_slots, task->source_digests};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) dli_free(allocator, arrays[i]);
  for (size_t i = 0; i < 2; i++) {
    dli_free(allocator, task->views[i].base);
    dli_free(allocator, task->views[i].routed);
    dli_free(allocator, task->views[i].untouched);
    dli_free(allocator, task->kept[i]);
  }
  dli_trunk_cache_free(learner, task);
  if (task->session) dli_session_add_profile(task->session, &learner->profile);
  dlora_session_destroy(task->session);
  if (task->made_routed) {
    dlora_predictor_destroy(learner->routed);
    learner->routed = NULL;
  }
  dli_free(allocator, task);
  learner->task = NULL;
  /* Of what is left these only fail on a NULL handle or when nothing is open. */
  if (learner->bank && learner->bank->open) (void)dlora_bank_discard_task(learner->bank);
  dlora_predictor *const predictors[] = {learner->base, learner->routed, learner->gate, learner->untouched};
  for (size_t i = 0; i < sizeof predictors / sizeof *predictors; i++) {
    if (predictors[i]) (void)dlora_predictor_discard_task(predictors[i]);
  }
  for (size_t i = 0; learner->projectors && i < 4 * learner->model->vit.depth; i++) {
    if (learner->projectors[i]) (void)dlora_projector_discard_task(learner->projectors[i]);
  }
}

/* ---- begin ---- */

static dlora_status take_buffers(dlora_learner *learner, struct dli_task *task) {
  const dlora_allocator *allocator = &learner->allocator;
  const size_t batch = task->session->max_batch, dim = learner->model->vit.dim;
  DLI_TRY(DLI_NEW(allocator, task->features, batch * dim));
  DLI_TRY(DLI_NEW(allocator, task->early, batch * 2 * dim));
  if (dli_learner_num_drifting_columns(learner) > dim) DLI_TRY(DLI_NEW(allocator, task->middle, batch * 2 * dim));
  for (size_t i = 0; i < 2; i++) {
    struct dli_view *view = &task->views[i];
    DLI_TRY(DLI_NEW(allocator, view->base, batch * learner->width));
    if (learner->options.rank_residual) DLI_TRY(DLI_NEW(allocator, view->routed, batch * learner->width));
    if (learner->untouched) DLI_TRY(DLI_NEW(allocator, view->untouched, batch * learner->width));
    DLI_TRY(DLI_NEW(allocator, task->kept[i], batch * (learner->width > 2 * dim ? learner->width : 2 * dim)));
  }
  DLI_TRY(DLI_NEW(allocator, task->kept_labels, batch));
  DLI_TRY(DLI_NEW(allocator, task->augment, batch));
  DLI_TRY(DLI_NEW(allocator, task->held_out, batch));
  if (learner->options.held_out > 0.0f) {
    DLI_TRY(DLI_NEW(allocator, task->held_features, DLI_HEAD_SAMPLE * dim));
    DLI_TRY(DLI_NEW(allocator, task->held_labels, DLI_HEAD_SAMPLE));
  }
  if (!dli_learner_trains(learner)) return DLORA_OK;
  DLI_TRY(DLI_NEW(allocator, task->d_features, batch * dim));
  DLI_TRY(DLI_NEW(allocator, task->targets, batch));
  DLI_TRY(DLI_NEW(allocator, task->gather, batch * dli_widest_input(learner)));
  if (learner->options.routing != DLORA_ROUTING_ENERGY) return DLORA_OK;
  const size_t inputs = 4 * learner->model->vit.depth;
  DLI_TRY(DLI_NEW(allocator, task->energy_slots, batch));
  return DLI_NEW(allocator, task->energy_rows, inputs * DLI_ENERGY_SAMPLE * dli_widest_input(learner));
}

dlora_status dlora_learner_begin_task(dlora_learner *learner, size_t planned_steps) {
  DLI_REQUIRE(learner);
  const dlora_allocator *allocator = &learner->allocator;
  if (learner->task) {
    return dli_raise(DLORA_ERR_STATE, "dlora_learner_begin_task: a task is open; end or cancel it first");
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
                                  dli_learner_max_batch(learner, 1, 0), learner->options.threads,
                                  dli_learner_trains(learner), allocator));
  DLI_TRY_DONE(take_buffers(learner, task));
  if (learner->options.rank_residual && !learner->routed) {
    DLI_TRY_DONE(dlora_predictor_clone(&learner->routed, learner->base));
    task->made_routed = 1;
  }
  DLI_TRY_DONE(dlora_bank_begin_task(learner->bank));
done:
  if (status != DLORA_OK) dli_task_release(learner);
  return status;
}

/* ---- observe ---- */

dlora_status dli_task_reserve_classes(const dlora_learner *learner, struct dli_task *task, size_t count) {
  const dlora_allocator *allocator = &learner->allocator;
  if (count <= task->max_classes - task->num_classes) return DLORA_OK;
  const size_t grown = 2 * task->max_classes + 16;
  const size_t room = task->num_classes + count > grown ? task->num_classes + count : grown;
  int64_t *classes;
  size_t *seen;
  DLI_TRY(DLI_NEW(allocator, classes, room));
  const dlora_status status = DLI_NEW(allocator, seen, room);
  if (status != DLORA_OK) {
    dli_free(allocator, classes);
    return status;
  }
  if (task->num_classes) {
    memcpy(classes, task->classes, task->num_classes * sizeof *classes);
    memcpy(seen, task->num_shown, task->num_classes * sizeof *seen);
  }
  dli_free(allocator, task->classes);
  dli_free(allocator, task->num_shown);
  task->classes = classes;
  task->num_shown = seen;
  task->max_classes = room;
  return DLORA_OK;
}

static dlora_status add_class(const dlora_learner *learner, struct dli_task *task, int64_t class_id) {
  DLI_TRY(dli_task_reserve_classes(learner, task, 1));
  task->classes[task->num_classes++] = class_id;
  return DLORA_OK;
}

/* Place of the next image of a uniform sample of `room` of a stream: an index below room, or room if it is passed over.
 */
static size_t reservoir(struct dli_random *random, size_t *kept, size_t *seen, size_t room) {
  const size_t index = (*seen)++;
  if (*kept < room) return (*kept)++;
  const size_t place = dli_random_below(random, index + 1);
  return place < room ? place : room;
}

/* Class tokens of one input for the batch that the session holds: gather [images, dim]. */
static void gather_class_tokens(struct dli_task *task, size_t block, int32_t input, size_t *dim) {
  for (size_t s = 0; s < task->session->threads; s++) {
    size_t rows, per_image;
    const float *values = dli_session_input(task->session, s, block, input, &rows, dim, &per_image);
    for (size_t i = 0; i < rows / per_image; i++) {
      memcpy(task->gather + (task->session->parts[s].first + i) * *dim, values + i * per_image * *dim,
             *dim * sizeof *values);
    }
  }
}

/* Second moments of the adapted inputs, from what the last upper pass left. */
static dlora_status observe_inputs(dlora_learner *learner, struct dli_task *task, size_t round) {
  const dlora_learner_options *o = &learner->options;
  const size_t count = task->session->count, done = task->observed_images[round];
  size_t wanted = count;
  if (o->max_observed_images) {
    const size_t left = o->max_observed_images > done ? o->max_observed_images - done : 0;
    if (wanted > left) wanted = left;
  }
  task->observed_images[round] += wanted;
  for (size_t i = 0; task->energy_rows && i < count; i++) {
    task->energy_slots[i] = reservoir(&task->sampling, &task->num_energy, &task->offered_energy, DLI_ENERGY_SAMPLE);
  }
  for (size_t p = 0; p < 4 * learner->model->vit.depth; p++) {
    dlora_projector *projector = learner->projectors[p];
    if (!projector) continue;
    size_t dim, rows, per_image;
    if (task->energy_rows || o->observed_tokens == DLORA_TOKENS_CLASS)
      gather_class_tokens(task, p / 4, (int32_t)(p % 4), &dim);
    if (task->energy_rows) {
      float *sample = task->energy_rows + p * DLI_ENERGY_SAMPLE * dli_widest_input(learner);
      for (size_t i = 0; i < count; i++) {
        const size_t slot = task->energy_slots[i];
        if (slot < DLI_ENERGY_SAMPLE) memcpy(sample + slot * dim, task->gather + i * dim, dim * sizeof *sample);
      }
    }
    if (o->observed_tokens == DLORA_TOKENS_CLASS) {
      if (wanted) DLI_TRY(dlora_projector_observe(projector, task->gather, wanted));
      continue;
    }
    for (size_t s = 0; s < task->session->threads; s++) {
      const float *values = dli_session_input(task->session, s, p / 4, (int32_t)(p % 4), &rows, &dim, &per_image);
      const size_t first = task->session->parts[s].first, images = rows / per_image;
      const size_t part = first >= wanted ? 0 : wanted - first < images ? wanted - first : images;
      if (part) DLI_TRY(dlora_projector_observe(projector, values, part * per_image));
    }
  }
  return DLORA_OK;
}

/* Gives features [count, width], and those of the mirrored images or NULL, to a predictor, those held out apart. */
static dlora_status observe_features(const struct dli_task *task, dlora_predictor *predictor, const float *features,
                                     const float *mirrored, const int64_t *labels, size_t width) {
  for (int held_out = 0; held_out < 2; held_out++) {
    size_t kept = 0;
    for (size_t i = 0; i < task->session->count; i++) {
      if (task->held_out[i] != held_out) continue;
      memcpy(task->kept[0] + kept * width, features + i * width, width * sizeof *features);
      if (mirrored) memcpy(task->kept[1] + kept * width, mirrored + i * width, width * sizeof *mirrored);
      task->kept_labels[kept++] = labels[i];
    }
    if (!kept) continue;
    DLI_TRY(dlora_predictor_observe_pair(predictor, task->kept[0], task->kept[mirrored ? 1 : 0], task->kept_labels,
                                         kept, held_out));
  }
  return DLORA_OK;
}

/* Final features of held-out images, as the task's head will see them. */
static void sample_held_out(struct dli_task *task, const float *features, const int64_t *labels, size_t count,
                            size_t dim) {
  for (size_t i = 0; i < count; i++) {
    if (!task->held_out[i]) continue;
    const size_t place = reservoir(&task->sampling, &task->num_held, &task->offered_held, DLI_HEAD_SAMPLE);
    if (place == DLI_HEAD_SAMPLE) continue;
    memcpy(task->held_features + place * dim, features + i * dim, dim * sizeof *features);
    task->held_labels[place] = labels[i];
  }
}

/* Rows of moving columns before and after training, a stride of values apart. */
static void sample_drift(struct dli_task *task, const float *before, size_t before_stride, const float *after,
                         size_t after_stride, size_t columns) {
  for (size_t i = 0; i < task->session->count; i++) {
    const size_t place = reservoir(&task->sampling, &task->num_drift, &task->offered_drift, task->max_drift);
    if (place == task->max_drift) continue;
    memcpy(task->drift_before + place * columns, before + i * before_stride, columns * sizeof *before);
    memcpy(task->drift_after + place * columns, after + i * after_stride, columns * sizeof *after);
  }
}

/* What predictors see of the images that the session has loaded, with these terms: out [images, width]. */
static void run_view(const dlora_learner *learner, struct dli_task *task, int32_t terms, float *out) {
  const struct dli_session_mode mode = {.terms = terms, .middle = task->middle, .middle_block = learner->middle_block};
  dli_session_upper(task->session, &mode, task->features);
  dli_learner_combine(learner, task->middle ? task->middle : task->early, task->features, task->session->count, out);
}

/* Whether `base` and `routed` are shown mirrored images too: where it is the last time that they see the task's. */
static int mirrors(const dlora_learner *learner, const struct dli_task *task) {
  if (learner->options.flip != DLORA_FLIP_EVERYWHERE) return 0;
  return task->phase == DLI_OBSERVE_AFTER || !dli_learner_trains(learner) || !task->planned_steps;
}

static dlora_status load_mirrored(const dlora_learner *learner, struct dli_task *task, const dlora_images *part) {
  for (size_t i = 0; i < part->count; i++) {
    task->augment[i] = DLI_AUGMENT_NONE;
    task->augment[i].flip = 1;
  }
  DLI_TRY(dli_session_load(task->session, part, task->augment, "dlora_learner_observe"));
  if (dli_learner_reads_early(learner)) dli_session_early(task->session, task->early);
  return DLORA_OK;
}

/* One micro-batch that the session has loaded, and what the first round has kept of it, or NULL. Before training the
 * network is as it was; afterwards the new pairs are active, and the same images are run again without them (drift),
 * unless that is known, and with the residual one (routed statistics). At last the same of the images mirrored. */
static dlora_status observe_part(dlora_learner *learner, struct dli_task *task, const dlora_images *part,
                                 const int64_t *labels, uint64_t key, const struct dli_trunk_cache *seen) {
  const size_t count = task->session->count, dim = learner->model->vit.dim, width = learner->width;
  const int after = task->phase == DLI_OBSERVE_AFTER, mirrored = mirrors(learner, task);
  const int mirrored_untouched = !after && learner->untouched && learner->options.flip == DLORA_FLIP_EVERYWHERE;
  /* Where all of the residual update is every image's, the features are those of `base`. */
  const int routes = after && learner->options.rank_residual && learner->bank->merge_fractions[DLI_RESIDUAL] < 1.0f;
  const int32_t base = DLORA_TERM_MERGED | (after ? DLORA_TERM_ORTHOGONAL : 0), routed = base | DLORA_TERM_RESIDUAL;
  struct dli_profile *profile = &learner->profile;
  struct dli_view *view = task->views;
  for (size_t i = 0; i < count; i++) {
    const size_t index = dli_task_find_class(task, labels[i]);
    task->held_out[i] = (char)dli_is_held_out(&learner->options, index, task->num_shown[index]++);
  }
  if (!after || dli_learner_reads_early(learner)) dli_session_early(task->session, task->early); /* the gate's too */
  const size_t moving = dli_learner_num_drifting_columns(learner);
  const float *before = dli_trunk_cache_features(seen);
  size_t before_stride = moving;
  if (after && task->max_drift && !before) {
    run_view(learner, task, DLORA_TERM_MERGED, task->views[1].base); /* free until images are mirrored */
    before = task->views[1].base + width - moving;
    before_stride = width;
  }
  run_view(learner, task, base, view->base);
  dli_profile_start(profile);
  if (!after) DLI_TRY(dli_trunk_cache_keep(learner, task, key));
  if (dli_learner_trains(learner)) DLI_TRY(observe_inputs(learner, task, after ? 1 : 0));
  dli_profile_lap(profile, DLI_OBSERVATION);
  if (after && task->max_drift) {
    sample_drift(task, before, before_stride, view->base + width - moving, width, moving);
  }
  if (routes) run_view(learner, task, routed, view->routed);
  sample_held_out(task, task->features, labels, count, dim);
  dli_profile_start(profile);
  if (!after) DLI_TRY(observe_features(task, learner->gate, task->early, NULL, labels, 2 * dim));
  dli_profile_lap(profile, DLI_OBSERVATION);
  if (!after && learner->untouched) run_view(learner, task, 0, view->untouched);

  if (mirrored || mirrored_untouched) {
    view = task->views + 1;
    DLI_TRY(load_mirrored(learner, task, part));
    if (mirrored) run_view(learner, task, base, view->base);
    if (mirrored && routes) run_view(learner, task, routed, view->routed);
    if (mirrored_untouched) run_view(learner, task, 0, view->untouched);
  }
  dli_profile_start(profile);
  view = task->views;
  DLI_TRY(observe_features(task, learner->base, view[0].base, mirrored ? view[1].base : NULL, labels, width));
  if (learner->routed) {
    const float *of_images = routes ? view[0].routed : view[0].base;
    const float *of_mirrored = routes ? view[1].routed : view[1].base;
    DLI_TRY(observe_features(task, learner->routed, of_images, mirrored ? of_mirrored : NULL, labels, width));
  }
  if (!after && learner->untouched) {
    DLI_TRY(observe_features(task, learner->untouched, view[0].untouched, mirrored_untouched ? view[1].untouched : NULL,
                             labels, width));
  }
  dli_profile_lap(profile, DLI_OBSERVATION);
  return DLORA_OK;
}

dlora_status dli_task_alloc_drift(const dlora_learner *learner, struct dli_task *task) {
  const size_t columns = dli_learner_num_drifting_columns(learner);
  if (!learner->options.drift_compensation || !dlora_learner_num_tasks(learner)) return DLORA_OK;
  const size_t room = task->num_images[0] < DLI_DRIFT_SAMPLE ? task->num_images[0] : DLI_DRIFT_SAMPLE;
  DLI_TRY(DLI_NEW(&learner->allocator, task->drift_before, room * columns));
  DLI_TRY(DLI_NEW(&learner->allocator, task->drift_after, room * columns));
  task->max_drift = room;
  return DLORA_OK;
}

dlora_status dli_task_set_merge_fractions(const dlora_learner *learner) {
  const dlora_learner_options *o = &learner->options;
  const double t = (double)dlora_learner_num_tasks(learner) + 1.0;
  const float share = (float)pow(t, -(double)o->merge_decay);
  return dlora_bank_set_merge_fractions(learner->bank, share, share * o->residual_merge_fraction);
}

static dlora_status begin_second_round(const dlora_learner *learner, struct dli_task *task) {
  DLI_TRY(dli_task_set_merge_fractions(learner));
  DLI_TRY(dli_task_alloc_drift(learner, task));
  memset(task->num_shown, 0, task->num_classes * sizeof *task->num_shown);
  task->num_energy = task->offered_energy = task->num_held = task->offered_held = 0;
  task->phase = DLI_OBSERVE_AFTER;
  return DLORA_OK;
}

static dlora_status require_task(const dlora_learner *learner, const char *caller) {
  if (!learner) return dli_raise(DLORA_ERR_ARGUMENT, "%s: learner is NULL", caller);
  if (learner->task) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE, "%s: no task is open; call dlora_learner_begin_task first", caller);
}

static dlora_status observe(dlora_learner *learner, const dlora_images *images, const int64_t *labels) {
  DLI_TRY(require_task(learner, "dlora_learner_observe"));
  if (!images || !labels) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_observe: %s is NULL", images ? "labels" : "images");
  }
  struct dli_task *task = learner->task;
  dlora_images part;
  const double started = dli_seconds();
  DLI_TRY(dli_images_part(images, 0, images->count, &part, "dlora_learner_observe"));
  dlora_status status = dli_image_plan_prepare(task->session->parts[0].plan, images, "dlora_learner_observe");
  if (status == DLORA_ERR_NO_MEMORY) goto done; /* nothing has changed yet, but callers need to know one case only */
  DLI_TRY(status);
  if (task->phase == DLI_TRAIN || task->phase == DLI_OBSERVE_AFTER) {
    for (size_t i = 0; i < images->count; i++) {
      if (dli_task_find_class(task, labels[i]) == task->num_classes) {
        return dli_raise(DLORA_ERR_ARGUMENT,
                         "dlora_learner_observe: label %lld of image %zu was not observed before training",
                         (long long)labels[i], i);
      }
    }
  }
  if (task->phase == DLI_TRAIN) DLI_TRY_DONE(begin_second_round(learner, task));
  for (size_t i = 0; i < images->count; i++) {
    if (dli_task_find_class(task, labels[i]) == task->num_classes) DLI_TRY_DONE(add_class(learner, task, labels[i]));
  }
  for (size_t first = 0; first < images->count; first += part.count) {
    DLI_TRY_DONE(dli_images_part(images, first, task->session->max_batch, &part, "dlora_learner_observe"));
    const uint64_t key = dli_learner_trains(learner) ? dli_images_digest(&part) : 0;
    const struct dli_trunk_cache *seen = dli_trunk_cache_find(task, key, part.count);
    if (task->phase == DLI_OBSERVE_BEFORE || !dli_trunk_cache_restore(seen, task->session)) {
      DLI_TRY_DONE(dli_session_load(task->session, &part, NULL, "dlora_learner_observe"));
    }
    DLI_TRY_DONE(observe_part(learner, task, &part, labels + first, key, seen));
  }
  task->num_images[task->phase == DLI_OBSERVE_AFTER] += images->count;
  task->seconds[task->phase] += dli_seconds() - started;
done:
  if (status != DLORA_OK) dli_task_release(learner);
  return status;
}

dlora_status dlora_learner_observe(dlora_learner *learner, const dlora_images *images, const int64_t *labels) {
  const int before = dli_threads_enter(learner ? learner->options.threads : 0);
  const dlora_status status = observe(learner, images, labels);
  dli_threads_leave(before);
  return status;
}

dlora_status dlora_learner_get_open_task(const dlora_learner *learner, dlora_open_task *task) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(task);
  const struct dli_task *t = learner->task;
  dlora_open_task full = DLORA_OPEN_TASK_INIT;
  if (t) {
    full.num_classes = t->num_classes;
    full.num_observed = t->num_images[0];
    full.planned_steps = t->planned_steps;
    full.num_steps = t->num_steps;
    full.num_observed_after = t->num_images[1];
    full.num_source_images = t->source_images;
    full.is_open = 1;
    full.phase = t->phase == DLI_OBSERVE_BEFORE ? DLORA_PHASE_OBSERVE
                 : t->phase == DLI_TRAIN        ? DLORA_PHASE_TRAIN
                                                : DLORA_PHASE_STATISTICS;
  }
  return dli_struct_write("dlora_open_task", task, task->struct_size, &full, sizeof full);
}

dlora_status dlora_learner_discard_task(dlora_learner *learner) {
  DLI_TRY(require_task(learner, __func__));
  dli_task_release(learner);
  return DLORA_OK;
}
