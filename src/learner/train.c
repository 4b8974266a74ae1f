/* Training of the open task: its beginning, from what was observed to directions and head rows, and one optimizer step.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "linalg/matrix.h"
#include "nn/cross_entropy.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"

/* ---- directions ---- */

/* Rows that are trained start at random. */
static void draw_rows(struct dli_random *random, size_t rank, size_t dim, float *rows) {
  const double scale = 1.0 / sqrt((double)dim);
  for (size_t i = 0; i < rank * dim; i++) rows[i] = (float)(scale * dli_random_normal(random));
}

/* A' and A_t of one input. a, r: [rank, dim]. METHOD.md 4 and 5. */
static dlora_status choose_directions(const dlora_learner *learner, struct dli_random *random,
                                      const dlora_projector *memory, float *a, size_t *a_rank, float *r,
                                      size_t *r_rank) {
  const dlora_learner_options *o = &learner->options;
  const size_t dim = dlora_projector_dim(memory);
  const size_t want_a = o->rank_orthogonal < dim ? o->rank_orthogonal : dim;
  const size_t want_r = o->rank_residual < dim ? o->rank_residual : dim;
  *a_rank = *r_rank = 0;
  if (want_a && o->train_orthogonal_a) {
    const size_t room = dim - dlora_projector_size(memory);
    *a_rank = want_a < room ? want_a : room;
    draw_rows(random, *a_rank, dim, a);
    if (*a_rank) DLI_TRY(dlora_projector_project(memory, a, *a_rank));
  } else if (want_a) {
    DLI_TRY(dlora_projector_unused_directions(memory, want_a, a, a_rank));
  }
  if (!want_r) return DLORA_OK;
  if (o->residual_basis == DLORA_RESIDUAL_RANDOM) {
    draw_rows(random, want_r, dim, r);
    *r_rank = want_r;
    return DLORA_OK;
  }
  if (o->residual_basis == DLORA_RESIDUAL_IN_NEW || !dlora_projector_size(memory)) {
    DLI_TRY(dlora_projector_task_directions(memory, o->energy_threshold, want_r, r, r_rank));
  }
  /* `old`, and `own` where the memory already holds the task's whole energy */
  if (!*r_rank && dlora_projector_size(memory)) DLI_TRY(dlora_projector_used_directions(memory, want_r, r, r_rank));
  return DLORA_OK;
}

static dlora_status set_input(dlora_learner *learner, struct dli_random *random, size_t input, float *a, float *r) {
  dlora_projector *memory = learner->projectors[input];
  const dlora_learner_options *o = &learner->options;
  size_t a_rank, r_rank;
  DLI_TRY(choose_directions(learner, random, memory, a, &a_rank, r, &r_rank));
  if (a_rank < o->rank_orthogonal) {
    dli_learner_log(learner, DLORA_LOG_WARNING,
                    "block %zu: the orthogonal branch has rank %zu of %zu: %zu of %zu directions are in use",
                    dli_input_block(input), a_rank, o->rank_orthogonal, dlora_projector_size(memory),
                    dlora_projector_dim(memory));
  }
  for (size_t s = 0; s < learner->bank->num_sites; s++) {
    const dlora_site *site = &learner->bank->sites[s];
    if (dli_input_of_site(site) != input) continue;
    DLI_TRY(dlora_bank_set_orthogonal(learner->bank, s, a, a_rank, o->train_orthogonal_a ? memory : NULL));
    DLI_TRY(dlora_bank_set_residual(learner->bank, s, r, r_rank, o->residual_basis == DLORA_RESIDUAL_RANDOM));
  }
  return DLORA_OK;
}

static dlora_status set_directions(dlora_learner *learner) {
  const dlora_learner_options *o = &learner->options;
  const dlora_allocator *allocator = &learner->allocator;
  struct dli_random random;
  dlora_status status = DLORA_OK;
  float *a = NULL, *r = NULL;
  dli_random_seed(&random, o->seed, 8 * dlora_learner_num_tasks(learner) + 2);
  for (size_t i = 0; i < dli_num_inputs(learner->model); i++) {
    if (!learner->projectors[i]) continue;
    const size_t dim = dlora_projector_dim(learner->projectors[i]);
    DLI_TRY_DONE(DLI_NEW(allocator, a, o->rank_orthogonal * dim));
    DLI_TRY_DONE(DLI_NEW(allocator, r, o->rank_residual * dim));
    DLI_TRY_DONE(set_input(learner, &random, i, a, r));
    DLI_TRY_DONE(dlora_projector_discard_task(learner->projectors[i]));
    dli_free(allocator, a);
    dli_free(allocator, r);
    a = r = NULL;
  }
done:
  dli_free(allocator, a);
  dli_free(allocator, r);
  return status;
}

/* ---- head rows ---- */

dlora_status dli_task_alloc_rows(dlora_learner *learner, struct dli_task *task) {
  const dlora_allocator *allocator = &learner->allocator;
  const size_t dim = learner->model->vit.dim, own = task->classes.count;
  if (learner->options.train_head) {
    DLI_TRY(dli_bank_set_extra(learner->bank, own * (dim + 1)));
    task->rows.weight = learner->bank->parameters + learner->bank->count;
  } else {
    DLI_TRY(DLI_NEW(allocator, task->rows.fixed, own * (dim + 1)));
    task->rows.weight = task->rows.fixed;
  }
  task->rows.bias = task->rows.weight + own * dim;
  return DLI_NEW(allocator, task->work.logits, task->session->max_batch * (task->rows.num_old + own));
}

/* Rows of equation (3) on the final feature: earlier components and then the task's own [components, dim],
 * [components]. Earlier components of classes that come again now are left out of the loss: they are not to be
 * pushed away. */
static dlora_status set_rows(dlora_learner *learner, struct dli_task *task, float *weight, float *bias) {
  const dlora_allocator *allocator = &learner->allocator;
  const dlora_learner_options *o = &learner->options;
  const size_t dim = learner->model->vit.dim, known = learner->class_index.num_components, own = task->classes.count;
  DLI_TRY(dlora_predictor_linear_weights(learner->statistics[DLI_BASE], learner->width - dim, dim, 1, weight, bias));
  if (o->loss_classes == DLORA_LOSS_CLASSES_ALL) {
    DLI_TRY(DLI_NEW(allocator, task->rows.old_weight, known * dim));
    DLI_TRY(DLI_NEW(allocator, task->rows.old_bias, known));
    for (size_t i = 0; i < known; i++) {
      if (dli_task_find_class(task, learner->class_index.component_classes[i]) < own) continue;
      memcpy(task->rows.old_weight + task->rows.num_old * dim, weight + i * dim, dim * sizeof *weight);
      task->rows.old_bias[task->rows.num_old++] = bias[i];
    }
  }
  DLI_TRY(dli_task_alloc_rows(learner, task));
  memcpy(task->rows.weight, weight + known * dim, own * dim * sizeof *weight);
  memcpy(task->rows.bias, bias + known, own * sizeof *bias);
  return DLORA_OK;
}

static dlora_status begin_training(dlora_learner *learner, struct dli_task *task) {
  const dlora_allocator *allocator = &learner->allocator;
  const size_t dim = learner->model->vit.dim, rows = learner->class_index.num_components + task->classes.count;
  const double started = dli_seconds();
  dlora_status status = DLORA_OK;
  float *weight = NULL, *bias = NULL;
  dli_profile_start(&learner->profile);
  DLI_TRY_DONE(set_directions(learner));
  DLI_TRY_DONE(DLI_NEW(allocator, weight, rows * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, bias, rows));
  DLI_TRY_DONE(set_rows(learner, task, weight, bias));
  if (dli_bank_has_updates(learner->bank)) {
    DLI_TRY_DONE(dli_learner_add_evidence(learner, learner->statistics[DLI_BASE], false, &task->evidence));
    DLI_TRY_DONE(dli_learner_add_evidence(learner, learner->statistics[DLI_BASE], true, &task->evidence));
  }
  for (size_t kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    dlora_predictor *predictor = learner->statistics[kind];
    if (predictor && dli_statistics_info[kind].is_trained) DLI_TRY_DONE(dlora_predictor_discard_task(predictor));
  }
  DLI_TRY_DONE(dli_session_reserve(task->session));
  task->phase = DLI_TRAIN;
  task->seconds[DLI_TRAIN] += dli_seconds() - started;
  dli_profile_lap(&learner->profile, DLI_DIRECTIONS);
done:
  dli_free(allocator, weight);
  dli_free(allocator, bias);
  if (status != DLORA_OK) dli_task_release(learner);
  return status;
}

dlora_status dlora_learner_begin_training(dlora_learner *learner) {
  DLI_REQUIRE(learner);
  struct dli_task *task = learner->task;
  if (!task || task->phase != DLI_OBSERVE_BEFORE || !task->num_images[0] || !dli_learner_trains(learner)) {
    return dli_task_refuse(learner, __func__);
  }
  const int before = dli_threads_enter(learner->threads);
  const dlora_status status = begin_training(learner, task);
  dli_threads_leave(before);
  return status;
}

/* ---- one step ---- */

static float learning_rate_now(const dlora_learner *learner) {
  const dlora_learner_options *o = &learner->options;
  const struct dli_task *task = learner->task;
  const float start = dlora_learner_num_tasks(learner) ? o->later_task_lr_scale * o->learning_rate : o->learning_rate;
  if (o->schedule == DLORA_SCHEDULE_CONSTANT || !task->planned_steps) return start;
  const double done = task->num_steps < task->planned_steps ? (double)task->num_steps : (double)task->planned_steps;
  return start * (float)(0.5 * (1.0 + cos(3.14159265358979323846 * done / (double)task->planned_steps)));
}

/* In [low, high). */
static double draw_between(struct dli_random *random, double low, double high) {
  return low + (high - low) * (double)dli_random_u32(random) / 4294967296.0;
}

/* Part of an image with a fraction of its area in [scale, 1] and sides in a relation of 3 : 4 to 4 : 3, as far as it
 * fits.
 */
static void draw_part(struct dli_random *random, double scale, struct dli_augment *a) {
  const double area = draw_between(random, scale, 1.0), aspect = exp(draw_between(random, -1.0, 1.0) * log(4.0 / 3.0));
  const double width = fmin(1.0, sqrt(area * aspect)), height = fmin(1.0, sqrt(area / aspect));
  a->width = (float)width;
  a->height = (float)height;
  a->left = (float)draw_between(random, 0.0, 1.0 - width);
  a->top = (float)draw_between(random, 0.0, 1.0 - height);
}

static void draw_augmentation(const dlora_learner_options *o, struct dli_task *task, size_t count) {
  const uint32_t span = 2 * (uint32_t)o->crop_padding + 1;
  const double jitter = (double)o->jitter;
  for (size_t i = 0; i < count; i++) {
    struct dli_augment *a = &task->work.augment[i];
    *a = DLI_AUGMENT_NONE;
    if (o->flip) a->flip = (int)(dli_random_u32(&task->random) & 1u);
    if (o->crop_scale < 1.0f) draw_part(&task->random, (double)o->crop_scale, a);
    if (jitter > 0.0) {
      a->brightness = (float)draw_between(&task->random, 1.0 - jitter, 1.0 + jitter);
      a->contrast = (float)draw_between(&task->random, 1.0 - jitter, 1.0 + jitter);
    }
    if (!o->crop_padding) continue;
    a->dx = (int)dli_random_below(&task->random, span) - o->crop_padding;
    a->dy = (int)dli_random_below(&task->random, span) - o->crop_padding;
  }
}

/* Forward, loss and backward of one micro-batch; gradients add up in the bank. Returns the sum of losses. */
static double micro_step(dlora_learner *learner, struct dli_task *task, const int64_t *labels, float weight) {
  const struct dli_session_mode mode = {.terms = DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL};
  const struct dli_task_rows *r = &task->rows;
  const size_t n = task->session->count, dim = learner->model->vit.dim, old = r->num_old, own = task->classes.count;
  const size_t rows = old + own;
  float *z = task->work.features, *d_z = task->work.d_features, *logits = task->work.logits;
  size_t *targets = task->work.targets;
  dlora_bank *bank = learner->bank;
  dli_session_upper(task->session, &mode, z);
  dli_profile_start(&learner->profile);
  for (size_t i = 0; i < n; i++) {
    if (old) memcpy(logits + i * rows, r->old_bias, old * sizeof *logits);
    memcpy(logits + i * rows + old, r->bias, own * sizeof *logits);
    targets[i] = old + dli_task_find_class(task, labels[i]);
  }
  dli_gemm_nt(n, old, dim, 1.0f, z, dim, r->old_weight, dim, 1.0f, logits, rows);
  dli_gemm_nt(n, own, dim, 1.0f, z, dim, r->weight, dim, 1.0f, logits + old, rows);
  const double loss = dli_cross_entropy(logits, n, rows, targets, learner->options.loss_temperature, weight);
  dli_gemm_nn(n, dim, own, 1.0f, logits + old, rows, r->weight, dim, 0.0f, d_z, dim);
  dli_gemm_nn(n, dim, old, 1.0f, logits, rows, r->old_weight, dim, 1.0f, d_z, dim);
  if (!r->fixed) {
    float *d_weight = bank->gradients + bank->count, *d_bias = d_weight + own * dim;
    dli_gemm_tn(own, dim, n, 1.0f, logits + old, rows, z, dim, 1.0f, d_weight, dim);
    for (size_t i = 0; i < n; i++) {
      for (size_t j = 0; j < own; j++) d_bias[j] += logits[i * rows + old + j];
    }
  }
  dli_profile_lap(&learner->profile, DLI_LOSS);
  dli_session_backward(task->session, d_z, bank->gradients);
  return loss;
}

static dlora_status step(dlora_learner *learner, const dlora_images *images, const int64_t *labels, float *loss) {
  const double started = dli_seconds();
  DLI_TRY(dli_task_check_batch(learner, images, labels, "dlora_learner_step"));
  struct dli_task *task = learner->task;
  dlora_status status = DLORA_OK;
  dlora_images part;
  double sum = 0.0;
  for (size_t first = 0; first < images->count; first += part.count) {
    DLI_TRY_DONE(dli_images_part(images, first, task->session->max_batch, &part, "dlora_learner_step"));
    draw_augmentation(&learner->options, task, part.count);
    DLI_TRY_DONE(dli_session_load(task->session, &part, task->work.augment, "dlora_learner_step"));
    sum += micro_step(learner, task, labels + first, 1.0f / (float)images->count);
  }
  const double mean = sum / (double)images->count;
  if (!isfinite(mean)) {
    status =
        dli_raise(DLORA_ERR_NOT_FINITE, "dlora_learner_step: the loss became %g in step %zu; the task was discarded",
                  mean, task->num_steps);
    goto done;
  }
  dli_profile_start(&learner->profile);
  DLI_TRY_DONE(dlora_bank_step(learner->bank, learning_rate_now(learner)));
  dli_profile_lap(&learner->profile, DLI_OPTIMIZER);
  if (task->num_steps < DLI_LOSS_WINDOW) task->losses.first += mean;
  task->losses.last[task->num_steps % DLI_LOSS_WINDOW] = mean;
  task->num_steps++;
  task->seconds[DLI_TRAIN] += dli_seconds() - started;
  if (loss) *loss = (float)mean;
done:
  if (status != DLORA_OK) dli_task_release(learner);
  return status;
}

dlora_status dlora_learner_step(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                float *loss) {
  DLI_REQUIRE(learner);
  if (!learner->task || learner->task->phase != DLI_TRAIN) return dli_task_refuse(learner, __func__);
  DLI_REQUIRE(images);
  DLI_REQUIRE(labels);
  const int before = dli_threads_enter(learner->threads);
  const dlora_status status = step(learner, images, labels, loss);
  dli_threads_leave(before);
  return status;
}
