/* Images of the open task, before its training and after it: features for the predictors, inputs of sites for the
 * projectors (S of METHOD.md 3 and 4), and samples for the head's temperature, routing by energy and the drift (4).
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"
#include "src/learner/source.h"

static dlora_status add_class(const dlora_learner *learner, struct dli_task *task, int64_t class_id) {
  DLI_TRY(dli_task_reserve_classes(learner, task, 1));
  task->classes.ids[task->classes.count++] = class_id;
  return DLORA_OK;
}

/* Which of the loaded images are held out from training. */
static void hold_out(const dlora_learner *learner, struct dli_task *task, const int64_t *labels) {
  for (size_t i = 0; i < task->session->count; i++) {
    const size_t index = dli_task_find_class(task, labels[i]);
    task->work.is_held_out[i] = (char)dli_is_held_out(&learner->options, index, task->classes.num_shown[index]++);
  }
}

/* Place of the next image of a uniform sample of `room` of a stream: an index below room, or room if it is passed over.
 */
static size_t reservoir(struct dli_random *random, size_t *kept, size_t *offered, size_t room) {
  const size_t index = (*offered)++;
  if (*kept < room) return (*kept)++;
  const size_t place = dli_random_below(random, index + 1);
  return place < room ? place : room;
}

/* What a thread's part of the images holds of one input. */
static const float *input_of_part(const struct dli_task *task, size_t part, size_t input, size_t *rows, size_t *dim,
                                  size_t *per_image) {
  return dli_session_input(task->session, part, dli_input_block(input), dli_input_in_block(input), rows, dim,
                           per_image);
}

/* Class tokens of one input for the batch that the session holds: gather [images, dim]. */
static void gather_class_tokens(struct dli_task *task, size_t input, size_t *dim) {
  for (size_t s = 0; s < task->session->threads; s++) {
    size_t rows, per_image;
    const float *values = input_of_part(task, s, input, &rows, dim, &per_image);
    for (size_t i = 0; i < rows / per_image; i++) {
      memcpy(task->work.gather + (task->session->parts[s].first + i) * *dim, values + i * per_image * *dim,
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
  for (size_t i = 0; task->energy.rows && i < count; i++) {
    task->energy.slots[i] = reservoir(&task->sampling, &task->energy.count, &task->energy.offered, DLI_ENERGY_SAMPLE);
  }
  for (size_t p = 0; p < dli_num_inputs(learner->model); p++) {
    dlora_projector *projector = learner->projectors[p];
    if (!projector) continue;
    size_t dim, rows, per_image;
    if (task->energy.rows || o->observed_tokens == DLORA_TOKENS_CLASS) gather_class_tokens(task, p, &dim);
    if (task->energy.rows) {
      float *sample = task->energy.rows + p * DLI_ENERGY_SAMPLE * dli_widest_input(learner);
      for (size_t i = 0; i < count; i++) {
        const size_t slot = task->energy.slots[i];
        if (slot < DLI_ENERGY_SAMPLE) memcpy(sample + slot * dim, task->work.gather + i * dim, dim * sizeof *sample);
      }
    }
    if (o->observed_tokens == DLORA_TOKENS_CLASS) {
      if (wanted) DLI_TRY(dlora_projector_observe(projector, task->work.gather, wanted));
      continue;
    }
    for (size_t s = 0; s < task->session->threads; s++) {
      const float *values = input_of_part(task, s, p, &rows, &dim, &per_image);
      const size_t first = task->session->parts[s].first, images = rows / per_image;
      const size_t part = first >= wanted ? 0 : wanted - first < images ? wanted - first : images;
      if (part) DLI_TRY(dlora_projector_observe(projector, values, part * per_image));
    }
  }
  return DLORA_OK;
}

/* Gives features [count, width], and those of the mirrored images or NULL, to the statistics of a kind, where they are
 * kept; those held out apart. */
static dlora_status observe_features(const dlora_learner *learner, enum dli_statistics_kind kind, const float *features,
                                     const float *mirrored, const int64_t *labels, const char *caller) {
  const struct dli_task *task = learner->task;
  const size_t width = dli_learner_statistics_width(learner, kind);
  if (!learner->statistics[kind]) return DLORA_OK;
  for (int held_out = 0; held_out < 2; held_out++) {
    size_t kept = 0;
    for (size_t i = 0; i < task->session->count; i++) {
      if (task->work.is_held_out[i] != held_out) continue;
      memcpy(task->work.kept[0] + kept * width, features + i * width, width * sizeof *features);
      if (mirrored) memcpy(task->work.kept[1] + kept * width, mirrored + i * width, width * sizeof *mirrored);
      task->work.kept_keys[kept] = task->work.keys[i];
      task->work.kept_labels[kept++] = labels[i];
    }
    if (!kept) continue;
    DLI_TRY(dli_predictor_observe(learner->statistics[kind], caller, task->work.kept[0],
                                  task->work.kept[mirrored ? 1 : 0], task->work.kept_labels, task->work.kept_keys, kept,
                                  held_out != 0));
  }
  return DLORA_OK;
}

/* Final features of held-out images, as the task's head will see them. */
static void sample_held_out(struct dli_task *task, const float *features, const int64_t *labels, size_t count,
                            size_t dim) {
  for (size_t i = 0; i < count; i++) {
    if (!task->work.is_held_out[i]) continue;
    const size_t place = reservoir(&task->sampling, &task->held_out.count, &task->held_out.offered, DLI_HEAD_SAMPLE);
    if (place == DLI_HEAD_SAMPLE) continue;
    memcpy(task->held_out.features + place * dim, features + i * dim, dim * sizeof *features);
    task->held_out.labels[place] = labels[i];
  }
}

/* Rows of moving columns before and after training, a stride of values apart. */
static void sample_drift(struct dli_task *task, const float *before, size_t before_stride, const float *after,
                         size_t after_stride, size_t columns) {
  for (size_t i = 0; i < task->session->count; i++) {
    const size_t place = reservoir(&task->sampling, &task->drift.count, &task->drift.offered, task->drift.room);
    if (place == task->drift.room) continue;
    memcpy(task->drift.before + place * columns, before + i * before_stride, columns * sizeof *before);
    memcpy(task->drift.after + place * columns, after + i * after_stride, columns * sizeof *after);
  }
}

/* What predictors see of the images that the session has loaded, with these terms: out [images, width]. */
static void run_view(const dlora_learner *learner, struct dli_task *task, int32_t terms, float *out) {
  const struct dli_session_mode mode = {
      .terms = terms, .middle = task->work.middle, .middle_block = learner->middle_block};
  dli_session_upper(task->session, &mode, task->work.features);
  dli_learner_combine(learner, task->work.middle ? task->work.middle : task->work.early, task->work.features,
                      task->session->count, out);
}

static dlora_status load_mirrored(const dlora_learner *learner, struct dli_task *task, const dlora_images *part,
                                  const char *caller) {
  for (size_t i = 0; i < part->count; i++) {
    task->work.augment[i] = DLI_AUGMENT_NONE;
    task->work.augment[i].flip = 1;
  }
  DLI_TRY(dli_session_load(task->session, part, task->work.augment, caller));
  if (dli_learner_reads_early(learner)) dli_session_early(task->session, task->work.early);
  return DLORA_OK;
}

/* A micro-batch that the session has loaded. */
struct batch {
  const dlora_images *images;
  const int64_t *labels; /* [count] */
  uint64_t key;          /* its name in the trunk cache */
  const struct dli_trunk_cache *cached;
  const char *caller;
};

/* Keys of the images, so that statistics of all kinds sample the same ones, and that of the portion. They are those of
 * the pixels, by digests [count] or NULL: a feature's bits may change with the portion that its image comes in. */
static dlora_status set_keys(struct dli_task *task, const dlora_images *part, const int64_t *labels,
                             const uint64_t *digests, const char *caller, uint64_t *key) {
  *key = UINT64_C(0x243f6a8885a308d3);
  for (size_t i = 0; i < part->count; i++) {
    dlora_images one;
    DLI_TRY(dli_images_part(part, i, 1, &one, caller));
    const uint64_t digest = digests ? digests[i] : dli_images_digest(&one);
    task->work.keys[i] = dli_mix(digest, (uint64_t)labels[i]);
    *key = dli_mix(*key, digest);
  }
  return DLORA_OK;
}

/* Before training: features of the network as it is, without adapters of the task, for all statistics. Those of the
 * mirrored images enter the trained ones where no second round will replace them, and where they are compared with
 * those of the untouched backbone. The two are one network until a task has trained. */
static dlora_status observe_before(dlora_learner *learner, struct dli_task *task, const struct batch *batch) {
  const int trains = dli_learner_trains(learner), flips = learner->options.flip == DLORA_FLIP_EVERYWHERE;
  const bool untouched = learner->statistics[DLI_UNTOUCHED] != NULL, same = !dli_bank_has_updates(learner->bank);
  const bool flips_base = flips && (untouched || !trains || !task->planned_steps);
  const size_t bytes = task->session->count * learner->width * sizeof(float);
  float *const *view = task->work.views[0], *const *mirrored = task->work.views[1];
  struct dli_profile *profile = &learner->profile;
  dli_session_early(task->session, task->work.early); /* the gate's too */
  run_view(learner, task, DLORA_TERM_MERGED, view[DLI_BASE]);
  dli_profile_start(profile);
  DLI_TRY(dli_trunk_cache_keep(learner, task, batch->key));
  if (trains) DLI_TRY(observe_inputs(learner, task, 0));
  sample_held_out(task, task->work.features, batch->labels, task->session->count, learner->model->vit.dim);
  DLI_TRY(observe_features(learner, DLI_GATE, task->work.early, NULL, batch->labels, batch->caller));
  dli_profile_lap(profile, DLI_OBSERVATION);
  if (untouched && same) memcpy(view[DLI_UNTOUCHED], view[DLI_BASE], bytes);
  if (untouched && !same) run_view(learner, task, 0, view[DLI_UNTOUCHED]);

  if (flips_base) {
    DLI_TRY(load_mirrored(learner, task, batch->images, batch->caller));
    run_view(learner, task, DLORA_TERM_MERGED, mirrored[DLI_BASE]);
    if (untouched && same) memcpy(mirrored[DLI_UNTOUCHED], mirrored[DLI_BASE], bytes);
    if (untouched && !same) run_view(learner, task, 0, mirrored[DLI_UNTOUCHED]);
  }

  dli_profile_start(profile);
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    if (!dli_statistics_info[kind].is_trained) continue;
    DLI_TRY(observe_features(learner, kind, view[DLI_BASE], flips_base ? mirrored[DLI_BASE] : NULL, batch->labels,
                             batch->caller));
  }
  DLI_TRY(observe_features(learner, DLI_UNTOUCHED, view[DLI_UNTOUCHED], flips ? mirrored[DLI_UNTOUCHED] : NULL,
                           batch->labels, batch->caller));
  dli_profile_lap(profile, DLI_OBSERVATION);
  return DLORA_OK;
}

/* After training: the new pairs are active. The same images are run without them too (drift), unless their features are
 * known from the first round, and with the residual pair (`routed`). */
static dlora_status observe_after(dlora_learner *learner, struct dli_task *task, const struct batch *batch) {
  const int32_t base = DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL, routed = base | DLORA_TERM_RESIDUAL;
  /* Where all of the residual update is every image's, the features are those of `base`. */
  const int routes = learner->options.rank_residual && learner->bank->merge_fractions[DLI_RESIDUAL] < 1.0f;
  const enum dli_statistics_kind seen_by_routed = routes ? DLI_ROUTED : DLI_BASE;
  const int flips = learner->options.flip == DLORA_FLIP_EVERYWHERE;
  const size_t width = learner->width, moving = dli_learner_num_drifting_columns(learner);
  float *const *view = task->work.views[0], *const *mirrored = task->work.views[1];
  struct dli_profile *profile = &learner->profile;
  const float *before = dli_trunk_cache_features(batch->cached);
  size_t before_stride = moving;
  if (dli_learner_reads_early(learner)) dli_session_early(task->session, task->work.early);
  if (task->drift.room && !before) {
    run_view(learner, task, DLORA_TERM_MERGED, task->drift.without_pairs);
    before = task->drift.without_pairs + width - moving;
    before_stride = width;
  }
  run_view(learner, task, base, view[DLI_BASE]);
  dli_profile_start(profile);
  DLI_TRY(observe_inputs(learner, task, 1));
  dli_profile_lap(profile, DLI_OBSERVATION);
  if (task->drift.room) sample_drift(task, before, before_stride, view[DLI_BASE] + width - moving, width, moving);
  if (routes) run_view(learner, task, routed, view[DLI_ROUTED]);
  sample_held_out(task, task->work.features, batch->labels, task->session->count, learner->model->vit.dim);

  if (flips) {
    DLI_TRY(load_mirrored(learner, task, batch->images, batch->caller));
    run_view(learner, task, base, mirrored[DLI_BASE]);
    if (routes) run_view(learner, task, routed, mirrored[DLI_ROUTED]);
  }

  dli_profile_start(profile);
  DLI_TRY(observe_features(learner, DLI_BASE, view[DLI_BASE], flips ? mirrored[DLI_BASE] : NULL, batch->labels,
                           batch->caller));
  DLI_TRY(observe_features(learner, DLI_ROUTED, view[seen_by_routed], flips ? mirrored[seen_by_routed] : NULL,
                           batch->labels, batch->caller));
  dli_profile_lap(profile, DLI_OBSERVATION);
  return DLORA_OK;
}

dlora_status dli_task_alloc_drift(const dlora_learner *learner, struct dli_task *task) {
  const size_t columns = dli_learner_num_drifting_columns(learner);
  if (!learner->options.drift_compensation || !dlora_learner_num_tasks(learner)) return DLORA_OK;
  const size_t room = task->num_images[0] < DLI_DRIFT_SAMPLE ? task->num_images[0] : DLI_DRIFT_SAMPLE;
  DLI_TRY(DLI_NEW(&learner->allocator, task->drift.without_pairs, task->session->max_batch * learner->width));
  DLI_TRY(DLI_NEW(&learner->allocator, task->drift.before, room * columns));
  DLI_TRY(DLI_NEW(&learner->allocator, task->drift.after, room * columns));
  task->drift.room = room;
  return DLORA_OK;
}

dlora_status dli_task_set_merge_fractions(const dlora_learner *learner) {
  const dlora_learner_options *o = &learner->options;
  const double t = (double)dlora_learner_num_tasks(learner) + 1.0;
  const float fraction = (float)pow(t, -(double)o->merge_decay);
  return dlora_bank_set_merge_fractions(learner->bank, fraction, fraction * o->residual_merge_fraction);
}

static dlora_status begin_second_round(const dlora_learner *learner, struct dli_task *task) {
  DLI_TRY(dli_task_set_merge_fractions(learner));
  DLI_TRY(dli_task_alloc_drift(learner, task));
  memset(task->classes.num_shown, 0, task->classes.count * sizeof *task->classes.num_shown);
  task->energy.count = task->energy.offered = task->held_out.count = task->held_out.offered = 0;
  task->phase = DLI_OBSERVE_AFTER;
  return DLORA_OK;
}

/* All images of a call, which the task's phase allows. */
static dlora_status observe(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                            const uint64_t *digests, const char *caller) {
  const double started = dli_seconds();
  DLI_TRY(dli_task_check_batch(learner, images, labels, caller));
  struct dli_task *task = learner->task;
  dlora_images part;
  dlora_status status = DLORA_OK;
  if (task->phase == DLI_TRAIN) DLI_TRY_DONE(begin_second_round(learner, task));
  for (size_t i = 0; i < images->count; i++) {
    if (dli_task_find_class(task, labels[i]) == task->classes.count) DLI_TRY_DONE(add_class(learner, task, labels[i]));
  }
  for (size_t first = 0; first < images->count; first += part.count) {
    DLI_TRY_DONE(dli_images_part(images, first, task->session->max_batch, &part, caller));
    uint64_t key;
    DLI_TRY_DONE(set_keys(task, &part, labels + first, digests ? digests + first : NULL, caller, &key));
    const struct dli_trunk_cache *cached = dli_trunk_cache_find(task, key, part.count);
    const struct batch batch = {&part, labels + first, key, cached, caller};
    const int after = task->phase == DLI_OBSERVE_AFTER;
    if (!after || !dli_trunk_cache_restore(cached, task->session)) {
      DLI_TRY_DONE(dli_session_load(task->session, &part, NULL, caller));
    }
    hold_out(learner, task, batch.labels);
    DLI_TRY_DONE(after ? observe_after(learner, task, &batch) : observe_before(learner, task, &batch));
  }
  task->num_images[task->phase == DLI_OBSERVE_AFTER] += images->count;
  task->seconds[task->phase] += dli_seconds() - started;
done:
  if (status != DLORA_OK) dli_task_release(learner);
  return status;
}

dlora_status dli_learner_observe(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                 const uint64_t *digests, const char *caller) {
  const int before = dli_threads_enter(learner->threads);
  const dlora_status status = observe(learner, images, labels, digests, caller);
  dli_threads_leave(before);
  return status;
}

dlora_status dlora_learner_observe(dlora_learner *learner, const dlora_images *images, const int64_t *labels) {
  DLI_REQUIRE(learner);
  if (!learner->task || learner->task->phase != DLI_OBSERVE_BEFORE) return dli_task_refuse(learner, __func__);
  DLI_REQUIRE(images);
  DLI_REQUIRE(labels);
  return dli_learner_observe(learner, images, labels, NULL, __func__);
}

dlora_status dlora_learner_observe_trained(dlora_learner *learner, const dlora_images *images, const int64_t *labels) {
  DLI_REQUIRE(learner);
  if (!learner->task || learner->task->phase == DLI_OBSERVE_BEFORE) return dli_task_refuse(learner, __func__);
  DLI_REQUIRE(images);
  DLI_REQUIRE(labels);
  return dli_learner_observe(learner, images, labels, NULL, __func__);
}
