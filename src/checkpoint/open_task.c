/* The open task in a learner's file, so that learning goes on bitwise as if it had not been interrupted:
 *
 *   training.counts           U64 [NUM_COUNTS], by COUNT_...
 *   training.random           U64 [2, 6]  augmentation, reservoirs: counter, words used, block of four words
 *   training.losses           F64 [12]    sum of the first losses, last losses as a ring, running mean
 *   training.classes          I64 [classes]
 *   training.seen             U64 [classes] images of each in the present round
 *   training.images           U64 [source images] digest of each that was read, else 0; absent: not known
 *   training.used.<block>.<input>.observed, .moment   projector/file.c
 *   training.used.<block>.<input>.sample              F32 [rows, input_dim] class tokens; routing by energy
 *   training.{base,routed,gate,untouched}.*            predictor/open_task.c
 *   training.evidence.*       as evidence.* of checkpoint/checkpoint.c; may be absent
 *   training.bank.*           bank/file.c; from here on once training has begun
 *   training.head.weight      F32 [classes, dim]
 *   training.head.bias        F32 [classes]
 *   training.old.weight       F32 [components, dim]  earlier rows of the loss
 *   training.old.bias         F32 [components]
 *   training.held_out.features F32 [rows, dim], .labels I64 [rows]   only if images are held out
 *   training.drift.before, .after  F32 [rows, moving columns]  only if drift is compensated for, after training
 *
 * Not written is what follows from the options and the finished tasks, the workspace, and how long things took: the
 * same task at the same place gives the same bytes. `routed` without finished tasks of its own is a copy of `base`.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/checkpoint/open_task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"
#include "src/predictor/predictor.h"
#include "src/projector/projector.h"

enum {
  COUNT_PHASE = 0,
  COUNT_PLANNED_STEPS = 1,
  COUNT_STEPS = 2,
  COUNT_IMAGES = 3,   /* two: before, after */
  COUNT_OBSERVED = 5, /* two: in the second moments */
  COUNT_DRIFT = 7,    /* offered to the samples */
  COUNT_HELD_OUT = 8,
  COUNT_ENERGY = 9,
  COUNT_SOURCE_IMAGES = 10,
  COUNT_SOURCE_LABELS = 11,
  NUM_COUNTS = 12,
  NUM_LOSSES = DLI_LOSS_WINDOW + 2,
  NAME_SIZE = 96
};

/* What is written but lies in no array that outlives the call. */
struct dli_task_record {
  uint64_t counts[NUM_COUNTS];
  uint64_t random[2][6];
  double losses[NUM_LOSSES];
  uint64_t *num_shown;
};

static size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}

/* ---- writing ---- */

static void fill_record(const struct dli_task *task, struct dli_task_record *record) {
  const uint64_t counts[NUM_COUNTS] = {(uint64_t)task->phase,    task->planned_steps,     task->num_steps,
                                       task->num_images[0],      task->num_images[1],     task->observed_images[0],
                                       task->observed_images[1], task->drift.offered,     task->held_out.offered,
                                       task->energy.offered,     task->source.num_images, task->source.labels};
  const struct dli_random *const randoms[] = {&task->random, &task->sampling};
  memcpy(record->counts, counts, sizeof counts);
  for (size_t i = 0; i < 2; i++) {
    record->random[i][0] = randoms[i]->counter;
    record->random[i][1] = randoms[i]->used;
    for (size_t k = 0; k < 4; k++) record->random[i][2 + k] = randoms[i]->block[k];
  }
  record->losses[0] = task->losses.first;
  memcpy(record->losses + 1, task->losses.last, sizeof task->losses.last);
  record->losses[NUM_LOSSES - 1] = task->losses.running;
  for (size_t i = 0; i < task->classes.count; i++) record->num_shown[i] = task->classes.num_shown[i];
}

static dlora_status write_record(const struct dli_task *task, struct dli_writer *writer,
                                 const struct dli_task_record *record) {
  const size_t counts = NUM_COUNTS, losses = NUM_LOSSES, random[] = {2, 6};
  DLI_TRY(dli_writer_add(writer, "training.counts", DLI_U64, 1, &counts, record->counts));
  DLI_TRY(dli_writer_add(writer, "training.random", DLI_U64, 2, random, record->random));
  DLI_TRY(dli_writer_add(writer, "training.losses", DLI_F64, 1, &losses, record->losses));
  if (task->source.digests) {
    DLI_TRY(dli_writer_add(writer, "training.images", DLI_U64, 1, &task->source.num_images, task->source.digests));
  }
  DLI_TRY(dli_writer_add(writer, "training.classes", DLI_I64, 1, &task->classes.count, task->classes.ids));
  return dli_writer_add(writer, "training.seen", DLI_U64, 1, &task->classes.count, record->num_shown);
}

static dlora_status write_samples(const dlora_learner *learner, struct dli_writer *writer) {
  const struct dli_task *task = learner->task;
  const size_t dim = learner->model->vit.dim;
  if (task->held_out.features) {
    const size_t shape[] = {task->held_out.count, dim};
    DLI_TRY(dli_writer_add(writer, "training.held_out.features", DLI_F32, 2, shape, task->held_out.features));
    DLI_TRY(dli_writer_add(writer, "training.held_out.labels", DLI_I64, 1, shape, task->held_out.labels));
  }
  if (!task->drift.room) return DLORA_OK;
  const size_t shape[] = {task->drift.count, dli_learner_num_drifting_columns(learner)};
  DLI_TRY(dli_writer_add(writer, "training.drift.before", DLI_F32, 2, shape, task->drift.before));
  return dli_writer_add(writer, "training.drift.after", DLI_F32, 2, shape, task->drift.after);
}

static dlora_status write_projectors(const dlora_learner *learner, struct dli_writer *writer) {
  const struct dli_task *task = learner->task;
  char name[NAME_SIZE];
  for (size_t i = 0; i < dli_num_inputs(learner->model); i++) {
    const dlora_projector *projector = learner->projectors[i];
    if (!projector) continue;
    snprintf(name, sizeof name, "training.%s.%zu.%d", dli_names_now.used, dli_input_block(i),
             (int)dli_input_in_block(i));
    DLI_TRY(dli_projector_write_open(projector, writer, name));
    if (!task->energy.rows) continue;
    const size_t shape[] = {task->energy.count, dlora_projector_dim(projector)};
    snprintf(name, sizeof name, "training.%s.%zu.%d.sample", dli_names_now.used, dli_input_block(i),
             (int)dli_input_in_block(i));
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, shape,
                           task->energy.rows + i * DLI_ENERGY_SAMPLE * dli_widest_input(learner)));
  }
  return DLORA_OK;
}

static dlora_status write_training(const dlora_learner *learner, struct dli_writer *writer) {
  const struct dli_task *task = learner->task;
  const size_t own[] = {task->classes.count, learner->model->vit.dim},
               old[] = {task->rows.num_old, learner->model->vit.dim};
  DLI_TRY(dli_bank_write_open(learner->bank, writer, "training.bank"));
  DLI_TRY(dli_writer_add(writer, "training.head.weight", DLI_F32, 2, own, task->rows.weight));
  DLI_TRY(dli_writer_add(writer, "training.head.bias", DLI_F32, 1, own, task->rows.bias));
  DLI_TRY(dli_writer_add(writer, "training.old.weight", DLI_F32, 2, old, task->rows.old_weight));
  return dli_writer_add(writer, "training.old.bias", DLI_F32, 1, old, task->rows.old_bias);
}

dlora_status dli_task_write(const dlora_learner *learner, struct dli_writer *writer, struct dli_task_record **out) {
  const struct dli_task *task = learner->task;
  struct dli_task_record *record;
  char name[NAME_SIZE];
  DLI_TRY(DLI_NEW(&learner->allocator, record, 1));
  *out = record; /* also after a failure: the writer may borrow from it */
  DLI_TRY(DLI_NEW(&learner->allocator, record->num_shown, task->classes.count));
  fill_record(task, record);
  DLI_TRY(write_record(task, writer, record));
  DLI_TRY(write_samples(learner, writer));
  DLI_TRY(write_projectors(learner, writer));
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    if (!learner->statistics[kind]) continue;
    snprintf(name, sizeof name, "training.%s", dli_checkpoint_statistics_name(&dli_names_now, kind));
    DLI_TRY(dli_predictor_write_open(learner->statistics[kind], writer, name));
  }
  DLI_TRY(dli_evidence_write(&task->evidence, writer, "training.evidence"));
  return task->phase == DLI_OBSERVE_BEFORE ? DLORA_OK : write_training(learner, writer);
}

void dli_task_record_free(const dlora_learner *learner, struct dli_task_record *record) {
  if (record) dli_free(&learner->allocator, record->num_shown);
  dli_free(&learner->allocator, record);
}

/* ---- reading ---- */

static dlora_status refuse(const struct dli_tensors *tensors, const char *name, const char *what) {
  return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s %s", dli_tensors_label(tensors), name, what);
}

static dlora_status read_floats(const struct dli_tensors *tensors, const char *name, size_t rows, size_t columns,
                                float *out) {
  const struct dli_tensor *tensor;
  const size_t shape[] = {rows, columns};
  DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, columns ? 2 : 1, shape, &tensor));
  return dli_tensor_to_float(tensors, tensor, out);
}

/* Whether the counts fit together and with the options. */
static dlora_status check_counts(const dlora_learner *learner, const struct dli_tensors *tensors,
                                 const uint64_t *counts) {
  const dlora_learner_options *o = &learner->options;
  const uint64_t phase = counts[COUNT_PHASE], steps = counts[COUNT_STEPS], *images = counts + COUNT_IMAGES;
  const uint64_t present = images[phase == DLI_OBSERVE_AFTER]; /* images of the present round */
  const int moves = phase == DLI_OBSERVE_AFTER && o->drift_compensation && dlora_learner_num_tasks(learner);
  const int samples = dli_learner_trains(learner) && o->routing == DLORA_ROUTING_ENERGY;
  for (size_t i = 0; i < COUNT_SOURCE_LABELS; i++) {
    if (counts[i] > (uint64_t)1 << 53 || counts[i] > SIZE_MAX) {
      return refuse(tensors, "training.counts", "has a count beyond reason");
    }
  }
  const int trains = phase > DLI_OBSERVE_BEFORE; /* its first step may be still to come */
  if (phase > DLI_OBSERVE_AFTER || (steps && !trains) || (trains && (!dli_learner_trains(learner) || !images[0])) ||
      (images[1] > 0) != (phase == DLI_OBSERVE_AFTER)) {
    return refuse(tensors, "training.counts", "has a phase, steps and images that cannot come together");
  }
  if (counts[COUNT_OBSERVED] > images[0] || counts[COUNT_OBSERVED + 1] > images[1] ||
      counts[COUNT_DRIFT] != (moves ? images[1] : 0) || counts[COUNT_HELD_OUT] > (o->held_out > 0.0f ? present : 0) ||
      counts[COUNT_ENERGY] > (samples ? present : 0)) {
    return refuse(tensors, "training.counts", "counts more images than were observed");
  }
  return DLORA_OK;
}

static void set_counts(struct dli_task *task, const uint64_t *counts) {
  task->phase = (int)counts[COUNT_PHASE];
  task->num_steps = (size_t)counts[COUNT_STEPS];
  for (size_t i = 0; i < 2; i++) {
    task->num_images[i] = (size_t)counts[COUNT_IMAGES + i];
    task->observed_images[i] = (size_t)counts[COUNT_OBSERVED + i];
  }
  task->drift.offered = (size_t)counts[COUNT_DRIFT];
  task->held_out.offered = (size_t)counts[COUNT_HELD_OUT];
  task->energy.offered = (size_t)counts[COUNT_ENERGY];
  task->drift.count = smaller(task->drift.offered, task->drift.room);
  task->held_out.count = smaller(task->held_out.offered, DLI_HEAD_SAMPLE);
  task->energy.count = smaller(task->energy.offered, DLI_ENERGY_SAMPLE);
  task->source.num_images = (size_t)counts[COUNT_SOURCE_IMAGES];
  task->source.labels = counts[COUNT_SOURCE_LABELS];
}

static dlora_status read_random(struct dli_task *task, const struct dli_tensors *tensors) {
  struct dli_random *const randoms[] = {&task->random, &task->sampling};
  uint64_t values[2][6];
  DLI_TRY(dli_tensors_copy(tensors, "training.random", DLI_U64, 2, (size_t[]){2, 6}, values));
  for (size_t i = 0; i < 2; i++) {
    for (size_t k = 1; k < 6; k++) {
      if (values[i][k] > (k == 1 ? 4 : UINT32_MAX)) return refuse(tensors, "training.random", "is no random state");
    }
    randoms[i]->counter = values[i][0];
    randoms[i]->used = (uint32_t)values[i][1];
    for (size_t k = 0; k < 4; k++) randoms[i]->block[k] = (uint32_t)values[i][2 + k];
  }
  return DLORA_OK;
}

static dlora_status read_losses(struct dli_task *task, const struct dli_tensors *tensors) {
  double losses[NUM_LOSSES];
  const size_t count = NUM_LOSSES;
  DLI_TRY(dli_tensors_copy(tensors, "training.losses", DLI_F64, 1, &count, losses));
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(losses[i])) return refuse(tensors, "training.losses", "has a value that is not finite");
  }
  task->losses.first = losses[0];
  memcpy(task->losses.last, losses + 1, sizeof task->losses.last);
  task->losses.running = losses[count - 1];
  return DLORA_OK;
}

/* Without it the images are taken on trust. */
static dlora_status read_digests(const dlora_learner *learner, struct dli_task *task,
                                 const struct dli_tensors *tensors) {
  if (!dli_tensors_find(tensors, "training.images")) return DLORA_OK;
  const struct dli_tensor *tensor;
  DLI_TRY(dli_tensors_require(tensors, "training.images", DLI_U64, 1, &task->source.num_images, &tensor));
  if (!task->source.num_images) return refuse(tensors, "training.images", "belongs to no source");
  DLI_TRY(DLI_NEW(&learner->allocator, task->source.digests, task->source.num_images));
  memcpy(task->source.digests, tensor->data, tensor->num_bytes);
  return DLORA_OK;
}

static int compare_ids(const void *left, const void *right) {
  const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
  return (a > b) - (a < b);
}

static dlora_status check_different(const dlora_learner *learner, const struct dli_tensors *tensors,
                                    const int64_t *classes, size_t count) {
  int64_t *sorted;
  dlora_status status = DLORA_OK;
  DLI_TRY(DLI_NEW(&learner->allocator, sorted, count));
  if (count) memcpy(sorted, classes, count * sizeof *classes);
  qsort(sorted, count, sizeof *sorted, compare_ids);
  for (size_t i = 1; i < count && status == DLORA_OK; i++) {
    if (sorted[i] == sorted[i - 1]) status = refuse(tensors, "training.classes", "has a class twice");
  }
  dli_free(&learner->allocator, sorted);
  return status;
}

static dlora_status read_classes(const dlora_learner *learner, struct dli_task *task, uint64_t images, int second_round,
                                 const struct dli_tensors *tensors) {
  const struct dli_tensor *classes, *num_shown;
  uint64_t total = 0, one;
  DLI_TRY(dli_tensors_require(tensors, "training.classes", DLI_I64, 1, (size_t[]){SIZE_MAX}, &classes));
  DLI_TRY(dli_tensors_require(tensors, "training.seen", DLI_U64, 1, &classes->count, &num_shown));
  DLI_TRY(dli_task_reserve_classes(learner, task, classes->count));
  task->classes.count = classes->count;
  if (classes->count) memcpy(task->classes.ids, classes->data, classes->num_bytes);
  DLI_TRY(check_different(learner, tensors, task->classes.ids, task->classes.count));
  for (size_t i = 0; i < task->classes.count; i++) {
    memcpy(&one, (const char *)num_shown->data + i * sizeof one, sizeof one);
    if (one > images - total || (!one && !second_round)) {
      return refuse(tensors, "training.seen", "does not add up to the images observed");
    }
    total += one;
    task->classes.num_shown[i] = (size_t)one;
  }
  return total == images ? DLORA_OK : refuse(tensors, "training.seen", "does not add up to the images observed");
}

/* Whether every label is a class of the task. */
static dlora_status check_labels(const struct dli_task *task, const struct dli_tensors *tensors, const char *name,
                                 const int64_t *labels, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (dli_task_find_class(task, labels[i]) == task->classes.count) {
      return refuse(tensors, name, "names a class that the task has not");
    }
  }
  return DLORA_OK;
}

static dlora_status read_samples(const dlora_learner *learner, struct dli_task *task,
                                 const struct dli_tensors *tensors) {
  const size_t dim = learner->model->vit.dim;
  if (task->held_out.features) {
    DLI_TRY(read_floats(tensors, "training.held_out.features", task->held_out.count, dim, task->held_out.features));
    DLI_TRY(dli_tensors_copy(tensors, "training.held_out.labels", DLI_I64, 1, &task->held_out.count,
                             task->held_out.labels));
    DLI_TRY(check_labels(task, tensors, "training.held_out.labels", task->held_out.labels, task->held_out.count));
  }
  if (!task->drift.room) return DLORA_OK;
  const size_t columns = dli_learner_num_drifting_columns(learner);
  DLI_TRY(read_floats(tensors, "training.drift.before", task->drift.count, columns, task->drift.before));
  return read_floats(tensors, "training.drift.after", task->drift.count, columns, task->drift.after);
}

static dlora_status read_projectors(const dlora_learner *learner, struct dli_task *task,
                                    const struct dli_tensors *tensors, const struct dli_checkpoint_names *names) {
  const int observes =
      dli_learner_trains(learner) && task->num_images[task->phase == DLI_OBSERVE_AFTER] && task->phase != DLI_TRAIN;
  char name[NAME_SIZE];
  for (size_t i = 0; i < dli_num_inputs(learner->model); i++) {
    dlora_projector *projector = learner->projectors[i];
    if (!projector) continue;
    snprintf(name, sizeof name, "training.%s.%zu.%d", names->used, dli_input_block(i), (int)dli_input_in_block(i));
    if (observes) DLI_TRY(dli_projector_read_open(projector, tensors, name));
    if (!task->energy.rows) continue;
    snprintf(name, sizeof name, "training.%s.%zu.%d.sample", names->used, dli_input_block(i),
             (int)dli_input_in_block(i));
    DLI_TRY(read_floats(tensors, name, task->energy.count, dlora_projector_dim(projector),
                        task->energy.rows + i * DLI_ENERGY_SAMPLE * dli_widest_input(learner)));
  }
  return DLORA_OK;
}

/* Whether two predictors have observed the same images, in the same order. */
static int same_ids(const int64_t *(*get)(const dlora_predictor *, size_t *), const dlora_predictor *a,
                    const dlora_predictor *b) {
  size_t counts[2];
  const int64_t *const ids[] = {get(a, &counts[0]), get(b, &counts[1])};
  return counts[0] == counts[1] && (!counts[0] || memcmp(ids[0], ids[1], counts[0] * sizeof *ids[0]) == 0);
}

/* What the statistics of a kind must have observed by now; later steps lay their components beside the task's classes.
 */
static dlora_status check_predictor(const dlora_learner *learner, const struct dli_task *task,
                                    enum dli_statistics_kind kind, const char *name,
                                    const struct dli_tensors *tensors) {
  const dlora_predictor *predictor = learner->statistics[kind], *base = learner->statistics[DLI_BASE];
  const bool trained = dli_statistics_info[kind].is_trained;
  const bool second_round = trained && task->phase == DLI_OBSERVE_AFTER;
  const size_t expected = trained && task->phase == DLI_TRAIN ? 0 : task->num_images[second_round];
  char full[NAME_SIZE + 24];
  size_t num_classes, num_labels;
  const int64_t *classes = dli_predictor_open_classes(predictor, &num_classes);
  const int64_t *labels = dli_predictor_open_labels(predictor, &num_labels);
  snprintf(full, sizeof full, "%s.classes", name);
  DLI_TRY(check_labels(task, tensors, full, classes, num_classes));
  /* The first image of a class is never held out. */
  if (expected && !second_round && num_classes != task->classes.count) {
    return refuse(tensors, full, "lacks a class of the task");
  }
  if (trained && !same_ids(dli_predictor_open_classes, predictor, base)) {
    return refuse(tensors, full, "differs from that of the base predictor");
  }
  snprintf(full, sizeof full, "%s.held_out_labels", name);
  DLI_TRY(check_labels(task, tensors, full, labels, num_labels));
  if (trained && !same_ids(dli_predictor_open_labels, predictor, base)) {
    return refuse(tensors, full, "differs from that of the base predictor");
  }
  snprintf(full, sizeof full, "%s.counts", name);
  if (dli_predictor_open_total(predictor) == expected) return DLORA_OK;
  return refuse(tensors, full, "does not add up to the images observed");
}

static dlora_status read_predictors(const dlora_learner *learner, const struct dli_task *task,
                                    const struct dli_tensors *tensors, const struct dli_checkpoint_names *names) {
  char name[NAME_SIZE];
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    if (!learner->statistics[kind]) continue;
    snprintf(name, sizeof name, "training.%s", dli_checkpoint_statistics_name(names, kind));
    DLI_TRY(dli_predictor_read_open(learner->statistics[kind], tensors, name));
    DLI_TRY(check_predictor(learner, task, kind, name, tensors));
  }
  return DLORA_OK;
}

/* Rows of earlier components in the loss: those of classes that do not come again. */
static size_t count_old(const dlora_learner *learner, const struct dli_task *task) {
  size_t count = 0;
  if (learner->options.loss_classes != DLORA_LOSS_CLASSES_ALL) return 0;
  for (size_t i = 0; i < learner->class_index.num_components; i++) {
    count += dli_task_find_class(task, learner->class_index.component_classes[i]) == task->classes.count;
  }
  return count;
}

static dlora_status read_training(dlora_learner *learner, struct dli_task *task, const struct dli_tensors *tensors) {
  const dlora_allocator *allocator = &learner->allocator;
  const dlora_learner_options *o = &learner->options;
  const size_t dim = learner->model->vit.dim, own = task->classes.count;
  const dlora_projector **projectors;
  DLI_TRY(DLI_NEW(allocator, projectors, learner->bank->num_sites));
  for (size_t s = 0; o->train_orthogonal_a && s < learner->bank->num_sites; s++) {
    const dlora_site *site = &learner->bank->sites[s];
    projectors[s] = learner->projectors[dli_input_of_site(site)];
  }
  const size_t limits[] = {o->rank_orthogonal, o->rank_residual};
  const dlora_status status = dli_bank_read_pairs(learner->bank, tensors, "training.bank", limits, projectors,
                                                  o->residual_basis == DLORA_RESIDUAL_RANDOM);
  dli_free(allocator, projectors);
  if (status != DLORA_OK) return status;
  task->rows.num_old = count_old(learner, task);
  DLI_TRY(DLI_NEW(allocator, task->rows.old_weight, task->rows.num_old * dim));
  DLI_TRY(DLI_NEW(allocator, task->rows.old_bias, task->rows.num_old));
  DLI_TRY(read_floats(tensors, "training.old.weight", task->rows.num_old, dim, task->rows.old_weight));
  DLI_TRY(read_floats(tensors, "training.old.bias", task->rows.num_old, 0, task->rows.old_bias));
  DLI_TRY(dli_task_alloc_rows(learner, task));
  DLI_TRY(dli_bank_read_values(learner->bank, tensors, "training.bank", task->num_steps));
  DLI_TRY(read_floats(tensors, "training.head.weight", own, dim, task->rows.weight));
  DLI_TRY(read_floats(tensors, "training.head.bias", own, 0, task->rows.bias));
  return dli_session_reserve(task->session);
}

bool dli_task_is_open(const struct dli_tensors *tensors) {
  return dli_tensors_find(tensors, "training.counts") != NULL;
}

dlora_status dli_task_read(dlora_learner *learner, const struct dli_tensors *tensors,
                           const struct dli_checkpoint_names *names) {
  const size_t num_counts = NUM_COUNTS;
  uint64_t counts[NUM_COUNTS];
  dlora_status status = DLORA_OK;
  DLI_TRY(dli_tensors_copy(tensors, "training.counts", DLI_U64, 1, &num_counts, counts));
  DLI_TRY(check_counts(learner, tensors, counts));
  DLI_TRY(dlora_learner_begin_task(learner, (size_t)counts[COUNT_PLANNED_STEPS]));
  struct dli_task *task = learner->task;
  const int second_round = counts[COUNT_PHASE] == DLI_OBSERVE_AFTER;
  DLI_TRY_DONE(read_classes(learner, task, counts[COUNT_IMAGES + second_round], second_round, tensors));
  task->num_images[0] = (size_t)counts[COUNT_IMAGES];
  if (second_round) DLI_TRY_DONE(dli_task_alloc_drift(learner, task));
  set_counts(task, counts);
  task->loaded = 1;
  DLI_TRY_DONE(read_random(task, tensors));
  DLI_TRY_DONE(read_losses(task, tensors));
  DLI_TRY_DONE(read_digests(learner, task, tensors));
  DLI_TRY_DONE(read_samples(learner, task, tensors));
  DLI_TRY_DONE(read_predictors(learner, task, tensors, names));
  DLI_TRY_DONE(dli_evidence_read(&task->evidence, tensors, "training.evidence"));
  if (second_round) DLI_TRY_DONE(dli_task_set_merge_fractions(learner));
  DLI_TRY_DONE(read_projectors(learner, task, tensors, names));
  if (task->phase != DLI_OBSERVE_BEFORE) DLI_TRY_DONE(read_training(learner, task, tensors));
done:
  if (status != DLORA_OK) dli_task_release(learner);
  return status;
}
