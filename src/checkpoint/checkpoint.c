/* A learner as one safetensors file:
 *
 *   metadata  format "duallora.learner.2", num_tasks, option.<name>, class_name.<id>, note.<key>, and those of
 *             checkpoint/backbone.c
 *   bank.*                    bank/file.c
 *   used.<block>.<input>.*    projector/file.c
 *   base.* routed.* gate.* untouched.*   predictor/file.c; routed and untouched may be absent
 *   head.<task>.weight        F32 [num_classes, dim]
 *   head.<task>.bias          F32 [num_classes]
 *   head.<task>.temperature   F32 [1]
 *   evidence.num_images       U64 [1]
 *   evidence.log_likelihood   F64 [11]                    both may be absent, not one alone
 *   metrics.accuracy          F64 [num_tasks, num_tasks]
 *   metrics.overall           F64 [num_tasks]
 *   metrics.images            U64 [num_tasks, num_tasks]  digests of what was measured on; may be absent
 *   metrics.overall_images    U64 [num_tasks]             likewise
 *
 *   training.*                checkpoint/open_task.c, if a task is open
 *
 * Files of format duallora.learner.1 are read too (checkpoint/format.c).
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "src/bank/bank.h"
#include "src/checkpoint/backbone.h"
#include "src/checkpoint/format.h"
#include "src/checkpoint/open_task.h"
#include "src/learner/learner.h"
#include "src/options/options.h"
#include "src/predictor/predictor.h"
#include "src/projector/projector.h"

enum { NAME_SIZE = 96 };

/* ---- evidence ---- */

dlora_status dli_evidence_write(const struct dli_blend_evidence *evidence, struct dli_writer *writer,
                                const char *prefix) {
  char name[NAME_SIZE];
  snprintf(name, sizeof name, "%s.num_images", prefix);
  DLI_TRY(dli_writer_add(writer, name, DLI_U64, 1, (size_t[]){1}, &evidence->num_images));
  snprintf(name, sizeof name, "%s.log_likelihood", prefix);
  return dli_writer_add(writer, name, DLI_F64, 1, (size_t[]){DLI_BLEND_WEIGHTS}, evidence->log_likelihood);
}

dlora_status dli_evidence_read(struct dli_blend_evidence *evidence, const struct dli_tensors *tensors,
                               const char *prefix) {
  char images[NAME_SIZE], sums[NAME_SIZE];
  const char *impossible = NULL;
  snprintf(images, sizeof images, "%s.num_images", prefix);
  snprintf(sums, sizeof sums, "%s.log_likelihood", prefix);
  if (!dli_tensors_find(tensors, images) && !dli_tensors_find(tensors, sums)) return DLORA_OK;
  DLI_TRY(dli_tensors_copy(tensors, images, DLI_U64, 1, (size_t[]){1}, &evidence->num_images));
  DLI_TRY(dli_tensors_copy(tensors, sums, DLI_F64, 1, (size_t[]){DLI_BLEND_WEIGHTS}, evidence->log_likelihood));
  if (evidence->num_images > (uint64_t)1 << 53) impossible = images;
  for (size_t k = 0; k < DLI_BLEND_WEIGHTS && !impossible; k++) {
    const double most = DLI_MOST_EVIDENCE * (double)evidence->num_images; /* NaN and infinity are beyond it too */
    if (!(fabs(evidence->log_likelihood[k]) <= most)) impossible = sums;
  }
  if (!impossible) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has an impossible value", dli_tensors_label(tensors), impossible);
}

/* ---- writing ---- */

static dlora_status write_parts(const dlora_learner *learner, struct dli_writer *writer) {
  char name[NAME_SIZE], text[32];
  DLI_TRY(dli_options_write(&learner->options, writer));
  DLI_TRY(dli_backbone_write(learner->model, writer));
  snprintf(text, sizeof text, "%zu", learner->num_task_heads);
  DLI_TRY(dli_writer_set_metadata(writer, "num_tasks", text));
  for (size_t i = 0; i < learner->num_names; i++) {
    snprintf(name, sizeof name, "class_name.%lld", (long long)learner->names[i].class_id);
    DLI_TRY(dli_writer_set_metadata(writer, name, learner->names[i].name));
  }
  DLI_TRY(dli_notes_write(learner, writer));
  DLI_TRY(dli_bank_write(learner->bank, writer, "bank"));
  for (size_t i = 0; i < dli_num_inputs(learner->model); i++) {
    if (!learner->projectors[i]) continue;
    snprintf(name, sizeof name, "%s.%zu.%d", dli_names_now.used, dli_input_block(i), (int)dli_input_in_block(i));
    DLI_TRY(dli_projector_write(learner->projectors[i], writer, name));
  }
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    const dlora_predictor *predictor = dli_learner_finished_statistics(learner, kind);
    if (predictor)
      DLI_TRY(dli_predictor_write(predictor, writer, dli_checkpoint_statistics_name(&dli_names_now, kind)));
  }
  for (size_t t = 0; t < learner->num_task_heads; t++) {
    const struct dli_head *head = &learner->heads[t];
    const size_t shape[] = {head->num_classes, learner->model->vit.dim};
    snprintf(name, sizeof name, "head.%zu.weight", t);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, shape, head->weight));
    snprintf(name, sizeof name, "head.%zu.bias", t);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 1, shape, head->bias));
    snprintf(name, sizeof name, "head.%zu.temperature", t);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 1, (size_t[]){1}, &head->temperature));
  }
  DLI_TRY(dli_evidence_write(&learner->evidence, writer, "evidence"));
  const size_t tasks[] = {learner->metrics.num_tasks, learner->metrics.num_tasks};
  DLI_TRY(dli_writer_add(writer, "metrics.accuracy", DLI_F64, 2, tasks, learner->metrics.accuracy));
  DLI_TRY(dli_writer_add(writer, "metrics.overall", DLI_F64, 1, tasks, learner->metrics.overall));
  DLI_TRY(dli_writer_add(writer, "metrics.images", DLI_U64, 2, tasks, learner->metrics.images));
  return dli_writer_add(writer, "metrics.overall_images", DLI_U64, 1, tasks, learner->metrics.overall_images);
}

dlora_status dlora_learner_save(const dlora_learner *learner, const char *path) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(path);
  struct dli_writer *writer;
  struct dli_task_record *record = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY(dli_writer_create(&writer, &learner->allocator));
  DLI_TRY_DONE(write_parts(learner, writer));
  if (learner->task) DLI_TRY_DONE(dli_task_write(learner, writer, &record));
  DLI_TRY_DONE(dli_writer_save(writer, path));
done:
  dli_writer_destroy(writer);
  dli_task_record_free(learner, record);
  return status;
}

dlora_status dlora_learner_set_snapshot(dlora_learner *learner, const char *path, size_t steps) {
  DLI_REQUIRE(learner);
  char *copy = NULL;
  if (path && !path[0]) return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_set_snapshot: path is empty");
  if (path && !(copy = dli_strdup(&learner->allocator, path))) return DLORA_ERR_NO_MEMORY;
  dli_free(&learner->allocator, learner->snapshot_path);
  learner->snapshot_path = copy;
  learner->snapshot_steps = steps;
  learner->save_snapshot = dlora_learner_save;
  return DLORA_OK;
}

/* ---- reading ---- */

static int compare_names(const void *left, const void *right) {
  const struct dli_class_name *a = left, *b = right;
  return (a->class_id > b->class_id) - (a->class_id < b->class_id);
}

/* All at once and then sorted: a header may hold millions. */
static dlora_status read_names(dlora_learner *learner, const struct dli_tensors *tensors) {
  static const char prefix[] = "class_name.";
  const size_t count = dli_tensors_metadata_count(tensors);
  DLI_TRY(DLI_NEW(&learner->allocator, learner->names, count));
  learner->max_names = count;
  for (size_t i = 0; i < count; i++) {
    const char *key, *value;
    char written[32];
    dli_tensors_metadata_at(tensors, i, &key, &value);
    if (strncmp(key, prefix, sizeof prefix - 1) != 0) continue;
    const long long id = strtoll(key + sizeof prefix - 1, NULL, 10);
    /* Only as it is written: no blanks, no plus sign, nothing too large, so that no two keys are one class. */
    snprintf(written, sizeof written, "%lld", id);
    if (strcmp(written, key + sizeof prefix - 1) != 0) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %.60s names no class id", dli_tensors_label(tensors), key);
    }
    char *name = dli_strdup(&learner->allocator, value);
    if (!name) return DLORA_ERR_NO_MEMORY;
    learner->names[learner->num_names++] = (struct dli_class_name){(int64_t)id, name};
  }
  qsort(learner->names, learner->num_names, sizeof *learner->names, compare_names);
  return DLORA_OK;
}

static dlora_status read_projectors(dlora_learner *learner, const struct dli_tensors *tensors,
                                    const struct dli_checkpoint_names *names) {
  const dlora_projector_options options = {sizeof options, &learner->allocator};
  const size_t tasks = dlora_learner_num_tasks(learner);
  DLI_TRY(DLI_NEW(&learner->allocator, learner->projectors, dli_num_inputs(learner->model)));
  for (size_t s = 0; s < learner->bank->num_sites; s++) {
    const dlora_site *site = &learner->bank->sites[s];
    const size_t input = dli_input_of_site(site);
    if (learner->projectors[input]) continue;
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s.%zu.%d", names->used, dli_input_block(input), (int)dli_input_in_block(input));
    DLI_TRY(dli_projector_read(&learner->projectors[input], tensors, name, &options));
    const dlora_projector *projector = learner->projectors[input];
    if (dlora_projector_dim(projector) != site->input_dim || dlora_projector_num_tasks(projector) != tasks) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: %s is %zu wide with %zu tasks, expected %zu and %zu",
                       dli_tensors_label(tensors), name, dlora_projector_dim(projector),
                       dlora_projector_num_tasks(projector), site->input_dim, tasks);
    }
  }
  return DLORA_OK;
}

/* Every site that the options ask for, in the order that create_parts gives them. */
static dlora_status check_bank(const dlora_learner *learner, const struct dli_tensors *tensors) {
  const dlora_bank *bank = learner->bank;
  size_t at = 0;
  for (size_t b = learner->first_block; b < learner->end_block; b++) {
    for (int32_t p = DLORA_SITE_QUERY; p <= DLORA_SITE_FC2; p <<= 1) {
      if (!(learner->options.sites & p)) continue;
      if (at >= bank->num_sites || bank->sites[at].block != (int32_t)b || bank->sites[at].projection != p) {
        return dli_raise(DLORA_ERR_FORMAT, "%s: bank site %zu is not projection %d of block %zu",
                         dli_tensors_label(tensors), at, (int)p, b);
      }
      at++;
    }
  }
  if (at == bank->num_sites && bank->num_tasks == dlora_learner_num_tasks(learner)) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: the bank has %zu sites and %zu tasks, expected %zu and %zu",
                   dli_tensors_label(tensors), bank->num_sites, bank->num_tasks, at, dlora_learner_num_tasks(learner));
}

/* Predictions lay the scores of one predictor beside the components of `base`, so all must have the same ones. The
 * gate tells tasks only, and the untouched backbone's statistics speak for themselves; both are taken before training,
 * when the images may have come in another order: that of their classes within a task is their own. */
static dlora_status check_components(const dlora_learner *learner, enum dli_statistics_kind kind, const char *name,
                                     const struct dli_tensors *tensors) {
  const struct dli_class_index *d = &learner->class_index;
  const dlora_predictor *predictor = learner->statistics[kind];
  const bool own_order = !dli_statistics_info[kind].is_trained;
  const size_t count = dlora_predictor_num_components(predictor);
  int64_t *tasks = NULL, *classes = NULL;
  dlora_status status = DLORA_OK;
  if (kind == DLI_BASE || !count) return DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(&learner->allocator, tasks, count));
  DLI_TRY_DONE(DLI_NEW(&learner->allocator, classes, count));
  DLI_TRY_DONE(dlora_predictor_get_components(predictor, tasks, classes, NULL, NULL));
  const bool same_tasks = memcmp(tasks, d->component_tasks, count * sizeof *tasks) == 0;
  const bool same_classes = own_order || memcmp(classes, d->component_classes, count * sizeof *classes) == 0;
  if (!same_tasks || !same_classes) {
    status = dli_raise(DLORA_ERR_FORMAT, "%s: predictor %s has other tasks or classes than the base predictor",
                       dli_tensors_label(tensors), name);
  }
done:
  dli_free(&learner->allocator, classes);
  dli_free(&learner->allocator, tasks);
  return status;
}

static dlora_status read_predictor(dlora_learner *learner, const struct dli_tensors *tensors,
                                   enum dli_statistics_kind kind, const char *name) {
  const dlora_predictor_options options = dli_learner_statistics_options(learner, kind);
  DLI_TRY(dli_predictor_read(&learner->statistics[kind], tensors, name, &options));
  const dlora_predictor *predictor = learner->statistics[kind], *base = learner->statistics[DLI_BASE];
  const size_t width = dli_learner_statistics_width(learner, kind), tasks = dlora_predictor_num_tasks(base),
               components = dlora_predictor_num_components(base);
  if (dlora_predictor_dim(predictor) == width && dlora_predictor_num_tasks(predictor) == tasks &&
      dlora_predictor_num_components(predictor) == components) {
    return DLORA_OK;
  }
  return dli_raise(
      DLORA_ERR_FORMAT, "%s: predictor %s is %zu wide with %zu tasks and %zu components; %zu, %zu and %zu expected",
      dli_tensors_label(tensors), name, dlora_predictor_dim(predictor), dlora_predictor_num_tasks(predictor),
      dlora_predictor_num_components(predictor), width, tasks, components);
}

/* Whether there is any tensor of the predictor: where only some are missing, the file is damaged. */
static bool has_predictor(const struct dli_tensors *tensors, const char *name) {
  const size_t length = strlen(name);
  for (size_t i = 0; i < dli_tensors_count(tensors); i++) {
    const char *found = dli_tensors_at(tensors, i)->name;
    if (strncmp(found, name, length) == 0 && found[length] == '.') return true;
  }
  return false;
}

/* The statistics of every kind, and the class index that follows from them. */
static dlora_status read_statistics(dlora_learner *learner, const struct dli_tensors *tensors,
                                    const struct dli_checkpoint_names *names) {
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    const char *name = dli_checkpoint_statistics_name(names, kind);
    const bool expected = dli_statistics_info[kind].is_late ? has_predictor(tensors, name)
                                                            : dli_learner_wants_statistics(&learner->options, kind);
    if (expected) DLI_TRY(read_predictor(learner, tensors, kind, name));
  }
  DLI_TRY(dli_class_index_create(&learner->class_index, learner->statistics, learner->options.unknown_quantile,
                                 &learner->allocator));
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    if (!learner->statistics[kind]) continue;
    DLI_TRY(check_components(learner, kind, dli_checkpoint_statistics_name(names, kind), tensors));
  }
  return DLORA_OK;
}

static dlora_status read_heads(dlora_learner *learner, const struct dli_tensors *tensors) {
  const size_t tasks = dlora_learner_num_tasks(learner), dim = learner->model->vit.dim;
  size_t component = 0;
  DLI_TRY(DLI_NEW(&learner->allocator, learner->heads, tasks));
  for (size_t t = 0; t < tasks; t++) {
    struct dli_head *head = &learner->heads[t];
    const struct dli_tensor *tensor;
    char name[NAME_SIZE];
    learner->num_task_heads = t + 1;
    while (component < learner->class_index.num_components &&
           learner->class_index.component_tasks[component] == (int64_t)t) {
      head->num_classes++;
      component++;
    }
    const size_t shape[] = {head->num_classes, dim};
    DLI_TRY(DLI_NEW(&learner->allocator, head->weight, head->num_classes * dim));
    DLI_TRY(DLI_NEW(&learner->allocator, head->bias, head->num_classes));
    snprintf(name, sizeof name, "head.%zu.weight", t);
    DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, 2, shape, &tensor));
    DLI_TRY(dli_tensor_to_float(tensors, tensor, head->weight));
    snprintf(name, sizeof name, "head.%zu.bias", t);
    DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, 1, shape, &tensor));
    DLI_TRY(dli_tensor_to_float(tensors, tensor, head->bias));
    snprintf(name, sizeof name, "head.%zu.temperature", t);
    DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, 1, (size_t[]){1}, &tensor));
    DLI_TRY(dli_tensor_to_float(tensors, tensor, &head->temperature));
    if (!(head->temperature >= 1e-3f && head->temperature <= 1e6f)) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is not between 0.001 and 1000000", dli_tensors_label(tensors),
                       name);
    }
  }
  return DLORA_OK;
}

/* Without the digests the accuracies stand for themselves, and are compared with no other. */
static dlora_status read_digests(const struct dli_tensors *tensors, const char *name, size_t num_dims,
                                 const size_t *shape, uint64_t *out) {
  return dli_tensors_find(tensors, name) ? dli_tensors_copy(tensors, name, DLI_U64, num_dims, shape, out) : DLORA_OK;
}

static dlora_status read_metrics(dlora_learner *learner, const struct dli_tensors *tensors) {
  const size_t tasks = dlora_learner_num_tasks(learner), shape[] = {tasks, tasks};
  struct dli_metrics *metrics = &learner->metrics;
  const struct dli_tensor *tensor; /* before memory for as many tasks as they have is taken */
  DLI_TRY(dli_tensors_require(tensors, "metrics.accuracy", DLI_F64, 2, shape, &tensor));
  DLI_TRY(dli_metrics_create(metrics, tasks, &learner->allocator));
  DLI_TRY(dli_tensors_copy(tensors, "metrics.accuracy", DLI_F64, 2, shape, metrics->accuracy));
  DLI_TRY(dli_tensors_copy(tensors, "metrics.overall", DLI_F64, 1, shape, metrics->overall));
  DLI_TRY(read_digests(tensors, "metrics.images", 2, shape, metrics->images));
  return read_digests(tensors, "metrics.overall_images", 1, shape, metrics->overall_images);
}

static dlora_status read_parts(dlora_learner *learner, const struct dli_tensors *tensors,
                               const struct dli_checkpoint_names *names) {
  const dlora_allocator *allocator = &learner->allocator;
  DLI_TRY(read_statistics(learner, tensors, names));
  const dlora_bank_options bank = dli_bank_options_of(&learner->options, allocator);
  DLI_TRY(dli_bank_read(&learner->bank, tensors, "bank", &bank));
  DLI_TRY(check_bank(learner, tensors));
  DLI_TRY(dli_merged_weights_create(&learner->merged_weights, learner->model, learner->bank, 1, allocator));
  DLI_TRY(read_projectors(learner, tensors, names));
  DLI_TRY(read_heads(learner, tensors));
  DLI_TRY(dli_evidence_read(&learner->evidence, tensors, "evidence"));
  if (learner->evidence.num_images && !learner->statistics[DLI_UNTOUCHED]) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: predictor %s is missing, and there is evidence about it",
                     dli_tensors_label(tensors), dli_checkpoint_statistics_name(names, DLI_UNTOUCHED));
  }
  DLI_TRY(read_metrics(learner, tensors));
  DLI_TRY(read_names(learner, tensors));
  return dli_notes_read(learner, tensors);
}

/* The saved options, those of the caller laid over them where they may differ. */
static dlora_status read_options(const struct dli_tensors *tensors, const dlora_model *model,
                                 const dlora_learner_options *given, dlora_learner_options *out) {
  dlora_learner_options saved;
  DLI_TRY(dli_options_load(tensors, &saved));
  dlora_status status = dli_learner_options_check(&saved, &model->vit);
  if (status != DLORA_OK) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: its options are not usable", dli_tensors_label(tensors));
  }
  *out = saved;
  if (!given) return DLORA_OK;
  DLI_TRY(dli_learner_options_read(given, &saved, out));
  DLI_TRY(dli_learner_options_check(out, &model->vit));
  const char *different = dli_learner_options_difference(out, &saved);
  if (!different && dli_task_is_open(tensors)) {
    different = dli_learner_options_task_difference(out, &saved, false);
    if (different) {
      return dli_raise(DLORA_ERR_MISMATCH,
                       "%s: holds a task that was begun with another value of the option %s; load with the same, or "
                       "with no options",
                       dli_tensors_label(tensors), different);
    }
  }
  if (!different) return DLORA_OK;
  return dli_raise(DLORA_ERR_MISMATCH, "%s: was saved with another value of the option %s", dli_tensors_label(tensors),
                   different);
}

dlora_status dlora_learner_load(dlora_learner **out, const dlora_model *model, const char *path,
                                const dlora_learner_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(model);
  DLI_REQUIRE(path);
  const struct dli_checkpoint_names *names;
  dlora_learner_options known;
  dlora_allocator allocator;
  DLI_TRY(dli_learner_options_read(options, NULL, &known));
  DLI_TRY(dli_allocator_read(&allocator, known.allocator));
  struct dli_tensors *tensors = NULL;
  dlora_learner *learner = NULL;
  dlora_model *own = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(dli_tensors_open(&tensors, path, &allocator));
  DLI_TRY_DONE(dli_checkpoint_names(tensors, &names));
  DLI_TRY_DONE(dli_backbone_find(&own, tensors, model, &allocator));
  if (own) model = own;
  DLI_TRY_DONE(read_options(tensors, model, options, &known));
  DLI_TRY_DONE(dli_learner_new(&learner, model, &known, &allocator));
  learner->own_model = own;
  own = NULL;
  DLI_TRY_DONE(read_parts(learner, tensors, names));
  if (dli_task_is_open(tensors)) DLI_TRY_DONE(dli_task_read(learner, tensors, names));
  *out = learner;
  learner = NULL;
done:
  dlora_learner_destroy(learner);
  dli_model_free_copy(own);
  dli_tensors_close(tensors);
  return status;
}
