/* A learner as one safetensors file:
 *
 *   metadata  format "duallora.learner.1", fingerprint, image_size, num_tasks, class_name.<id>, note.<key>
 *   learner.options.integers  I64 [n]   in the order of dlora_learner_options, append only
 *   learner.options.floats    F32 [m]
 *   bank.*                    bank/file.c
 *   memory.<block>.<input>.*  projector/file.c
 *   plain.* routed.* gate.* frozen.*   predictor/file.c; routed and frozen may be absent
 *   head.<task>.weight        F32 [num_classes, dim]
 *   head.<task>.bias          F32 [num_classes]
 *   head.<task>.temperature   F32 [1]
 *   metrics.accuracy          F64 [num_tasks, num_tasks]
 *   metrics.overall           F64 [num_tasks]
 *   metrics.images            U64 [num_tasks, num_tasks]  digests of what was measured on; may be absent
 *   metrics.overall_images    U64 [num_tasks]             likewise
 *
 *   training.*                checkpoint/open_task.c, if a task is open
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"
#include "src/predictor/predictor.h"
#include "src/projector/projector.h"

enum { NAME_SIZE = 96, NUM_INTEGERS = 27, NUM_FLOATS = 18 };
static const char format[] = "duallora.learner.1";

/* ---- options ---- */

static void options_to_arrays(const dlora_learner_options *o, int64_t *integers, float *floats) {
  const int64_t i[NUM_INTEGERS] = {
      (int64_t)o->seed,
      (int64_t)o->micro_batch,
      (int64_t)o->rank_orthogonal,
      (int64_t)o->rank_residual,
      o->epochs == DLORA_EPOCHS_AUTO ? -1 : (int64_t)o->epochs,
      (int64_t)o->batch_size,
      (int64_t)o->max_observed_images,
      (int64_t)o->random_features,
      o->sites,
      o->first_block,
      o->num_blocks,
      o->feature_layers,
      o->readout,
      o->untouched_baseline,
      o->residual_basis,
      o->routing,
      o->loss_classes,
      o->class_scores,
      o->train_head,
      o->drift_compensation,
      o->train_orthogonal_a,
      o->observed_tokens,
      o->optimizer,
      o->schedule,
      o->flip,
      o->crop_padding,
      o->use_prior,
  };
  const float f[NUM_FLOATS] = {o->energy_threshold,
                               o->learning_rate,
                               o->beta1,
                               o->beta2,
                               o->epsilon,
                               o->momentum,
                               o->weight_decay,
                               o->shrinkage,
                               o->temperature,
                               o->held_out,
                               o->ridge,
                               o->unknown_quantile,
                               o->loss_temperature,
                               o->crop_scale,
                               o->jitter,
                               o->later_task_lr_scale,
                               o->residual_merge_fraction,
                               o->merge_decay};
  memcpy(integers, i, sizeof i);
  memcpy(floats, f, sizeof f);
}

static void options_from_arrays(const int64_t *i, const float *f, dlora_learner_options *o) {
  *o = (dlora_learner_options)DLORA_LEARNER_OPTIONS_INIT;
  o->seed = (uint64_t)i[0];
  size_t *const sizes[] = {&o->micro_batch, &o->rank_orthogonal,     &o->rank_residual,  &o->epochs,
                           &o->batch_size,  &o->max_observed_images, &o->random_features};
  for (size_t k = 0; k < 7; k++) *sizes[k] = i[1 + k] < 0 ? SIZE_MAX - 1 : (size_t)i[1 + k]; /* too many of anything */
  if (i[4] == -1) o->epochs = DLORA_EPOCHS_AUTO;
  int32_t *const words[] = {&o->sites,
                            &o->first_block,
                            &o->num_blocks,
                            &o->feature_layers,
                            &o->readout,
                            &o->untouched_baseline,
                            &o->residual_basis,
                            &o->routing,
                            &o->loss_classes,
                            &o->class_scores,
                            &o->train_head,
                            &o->drift_compensation,
                            &o->train_orthogonal_a,
                            &o->observed_tokens,
                            &o->optimizer,
                            &o->schedule,
                            &o->flip,
                            &o->crop_padding,
                            &o->use_prior};
  for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
    *words[k] = i[8 + k] < INT32_MIN || i[8 + k] > INT32_MAX ? INT32_MIN : (int32_t)i[8 + k];
  }
  float *const floats[] = {&o->energy_threshold,
                           &o->learning_rate,
                           &o->beta1,
                           &o->beta2,
                           &o->epsilon,
                           &o->momentum,
                           &o->weight_decay,
                           &o->shrinkage,
                           &o->temperature,
                           &o->held_out,
                           &o->ridge,
                           &o->unknown_quantile,
                           &o->loss_temperature,
                           &o->crop_scale,
                           &o->jitter,
                           &o->later_task_lr_scale,
                           &o->residual_merge_fraction,
                           &o->merge_decay};
  for (size_t k = 0; k < NUM_FLOATS; k++) *floats[k] = f[k];
}

static const char *const integer_names[] = {"seed",
                                            "micro_batch",
                                            "rank_orthogonal",
                                            "rank_residual",
                                            "epochs",
                                            "batch_size",
                                            "max_observed_images",
                                            "random_features",
                                            "sites",
                                            "first_block",
                                            "num_blocks",
                                            "feature_layers",
                                            "readout",
                                            "untouched_baseline",
                                            "residual_basis",
                                            "routing",
                                            "loss_classes",
                                            "class_scores",
                                            "train_head",
                                            "drift_compensation",
                                            "train_orthogonal_a",
                                            "observed_tokens",
                                            "optimizer",
                                            "schedule",
                                            "flip",
                                            "crop_padding",
                                            "use_prior"};
static const char *const float_names[] = {"energy_threshold",
                                          "learning_rate",
                                          "beta1",
                                          "beta2",
                                          "epsilon",
                                          "momentum",
                                          "weight_decay",
                                          "shrinkage",
                                          "temperature",
                                          "held_out",
                                          "ridge",
                                          "unknown_quantile",
                                          "loss_temperature",
                                          "crop_scale",
                                          "jitter",
                                          "later_task_lr_scale",
                                          "residual_merge_fraction",
                                          "merge_decay"};
_Static_assert(sizeof integer_names / sizeof *integer_names == NUM_INTEGERS, "a name for each integer");
_Static_assert(sizeof float_names / sizeof *float_names == NUM_FLOATS, "a name for each float");

/* Name of the first option that differs and is kept in a checkpoint, micro_batch apart, or NULL. */
static const char *find_difference(const dlora_learner_options *a, const dlora_learner_options *b) {
  int64_t integers[2][NUM_INTEGERS];
  float floats[2][NUM_FLOATS];
  options_to_arrays(a, integers[0], floats[0]);
  options_to_arrays(b, integers[1], floats[1]);
  for (size_t i = 0; i < NUM_INTEGERS; i++) {
    if (integers[0][i] != integers[1][i] && strcmp(integer_names[i], "micro_batch") != 0) return integer_names[i];
  }
  for (size_t i = 0; i < NUM_FLOATS; i++) {
    if (floats[0][i] != floats[1][i]) return float_names[i];
  }
  return NULL;
}

/* ---- writing ---- */

static dlora_status write_parts(const dlora_learner *learner, struct dli_writer *writer) {
  char name[NAME_SIZE], text[32];
  DLI_TRY(dli_writer_set_metadata(writer, "format", format));
  DLI_TRY(dli_writer_set_metadata(writer, "fingerprint", learner->model->vit.fingerprint));
  snprintf(text, sizeof text, "%zu", learner->model->vit.image_size);
  DLI_TRY(dli_writer_set_metadata(writer, "image_size", text));
  snprintf(text, sizeof text, "%zu", learner->num_task_heads);
  DLI_TRY(dli_writer_set_metadata(writer, "num_tasks", text));
  for (size_t i = 0; i < learner->num_names; i++) {
    snprintf(name, sizeof name, "class_name.%lld", (long long)learner->names[i].class_id);
    DLI_TRY(dli_writer_set_metadata(writer, name, learner->names[i].name));
  }
  DLI_TRY(dli_notes_write(learner, writer));
  DLI_TRY(dli_bank_write(learner->bank, writer, "bank"));
  for (size_t i = 0; i < 4 * learner->model->vit.depth; i++) {
    if (!learner->projectors[i]) continue;
    snprintf(name, sizeof name, "memory.%zu.%zu", i / 4, i % 4);
    DLI_TRY(dli_projector_write(learner->projectors[i], writer, name));
  }
  DLI_TRY(dli_predictor_write(learner->base, writer, "plain"));
  DLI_TRY(dli_predictor_write(learner->gate, writer, "gate"));
  const int has_routed = learner->routed && !(learner->task && learner->task->made_routed);
  if (has_routed) DLI_TRY(dli_predictor_write(learner->routed, writer, "routed"));
  if (learner->untouched) DLI_TRY(dli_predictor_write(learner->untouched, writer, "frozen"));
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
  const size_t tasks[] = {learner->metrics.num_tasks, learner->metrics.num_tasks};
  DLI_TRY(dli_writer_add(writer, "metrics.accuracy", DLI_F64, 2, tasks, learner->metrics.accuracy));
  DLI_TRY(dli_writer_add(writer, "metrics.overall", DLI_F64, 1, tasks, learner->metrics.overall));
  DLI_TRY(dli_writer_add(writer, "metrics.images", DLI_U64, 2, tasks, learner->metrics.images));
  return dli_writer_add(writer, "metrics.overall_images", DLI_U64, 1, tasks, learner->metrics.overall_images);
}

dlora_status dlora_learner_save(const dlora_learner *learner, const char *path) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(path);
  int64_t integers[NUM_INTEGERS];
  float floats[NUM_FLOATS];
  const size_t num_integers = NUM_INTEGERS, num_floats = NUM_FLOATS;
  struct dli_writer *writer;
  struct dli_task_record *record = NULL;
  dlora_status status = DLORA_OK;
  options_to_arrays(&learner->options, integers, floats);
  DLI_TRY(dli_writer_create(&writer, &learner->allocator));
  DLI_TRY_DONE(dli_writer_add(writer, "learner.options.integers", DLI_I64, 1, &num_integers, integers));
  DLI_TRY_DONE(dli_writer_add(writer, "learner.options.floats", DLI_F32, 1, &num_floats, floats));
  DLI_TRY_DONE(write_parts(learner, writer));
  if (learner->task) DLI_TRY_DONE(dli_task_write(learner, writer, &record));
  DLI_TRY_DONE(dli_writer_save(writer, path));
done:
  dli_writer_destroy(writer);
  dli_task_record_free(learner, record);
  return status;
}

/* ---- reading ---- */

static dlora_status check_header(const struct dli_tensors *tensors, const dlora_model *model) {
  const char *label = dli_tensors_label(tensors), *found = dli_tensors_metadata(tensors, "format");
  if (!found || strcmp(found, format) != 0) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: format is %.60s, expected %s", label, found ? found : "missing", format);
  }
  found = dli_tensors_metadata(tensors, "fingerprint");
  if (!found) return dli_raise(DLORA_ERR_FORMAT, "%s: metadata fingerprint is missing", label);
  if (strcmp(found, model->vit.fingerprint) != 0) {
    const char *size = dli_tensors_metadata(tensors, "image_size");
    return dli_raise(DLORA_ERR_MISMATCH,
                     "%s: was learnt on the backbone with fingerprint %.40s at image size %.8s; this one has %s at %zu",
                     label, found, size ? size : "?", model->vit.fingerprint, model->vit.image_size);
  }
  return DLORA_OK;
}

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

static dlora_status read_memories(dlora_learner *learner, const struct dli_tensors *tensors) {
  const struct dli_vit *vit = &learner->model->vit;
  const dlora_projector_options options = {sizeof options, &learner->allocator};
  const size_t tasks = dlora_predictor_num_tasks(learner->base);
  DLI_TRY(DLI_NEW(&learner->allocator, learner->projectors, 4 * vit->depth));
  for (size_t s = 0; s < learner->bank->num_sites; s++) {
    const dlora_site *site = &learner->bank->sites[s];
    const size_t input = 4 * (size_t)site->block + (size_t)dli_input_of(site->projection);
    if (learner->projectors[input]) continue;
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "memory.%zu.%zu", input / 4, input % 4);
    DLI_TRY(dli_projector_read(&learner->projectors[input], tensors, name, &options));
    const dlora_projector *memory = learner->projectors[input];
    if (dlora_projector_dim(memory) != site->input_dim || dlora_projector_num_tasks(memory) != tasks) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: %s is %zu wide with %zu tasks, expected %zu and %zu",
                       dli_tensors_label(tensors), name, dlora_projector_dim(memory), dlora_projector_num_tasks(memory),
                       site->input_dim, tasks);
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
  if (at == bank->num_sites && bank->num_tasks == dlora_predictor_num_tasks(learner->base)) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: the bank has %zu sites and %zu tasks, expected %zu and %zu",
                   dli_tensors_label(tensors), bank->num_sites, bank->num_tasks, at,
                   dlora_predictor_num_tasks(learner->base));
}

/* Predictions lay the scores of one predictor beside the components of `base`, so all must have the same ones. The
 * gate tells tasks only, and the untouched backbone's statistics speak for themselves; both are taken before training,
 * when the images may have come in another order: that of their classes within a task is their own. */
static dlora_status check_components(const dlora_learner *learner, const dlora_predictor *predictor, const char *name,
                                     const struct dli_tensors *tensors) {
  const struct dli_class_index *d = &learner->class_index;
  const size_t count = dlora_predictor_num_components(predictor);
  int64_t *tasks = NULL, *classes = NULL;
  dlora_status status = DLORA_OK;
  if (predictor == learner->base || !count) return DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(&learner->allocator, tasks, count));
  DLI_TRY_DONE(DLI_NEW(&learner->allocator, classes, count));
  DLI_TRY_DONE(dlora_predictor_get_components(predictor, tasks, classes, NULL, NULL));
  const int same_tasks = memcmp(tasks, d->component_tasks, count * sizeof *tasks) == 0;
  const int own_order = strcmp(name, "gate") == 0 || strcmp(name, "frozen") == 0;
  const int same_classes = own_order || memcmp(classes, d->component_classes, count * sizeof *classes) == 0;
  if (!same_tasks || !same_classes) {
    status = dli_raise(DLORA_ERR_FORMAT, "%s: predictor %s has other tasks or classes than predictor plain",
                       dli_tensors_label(tensors), name);
  }
done:
  dli_free(&learner->allocator, classes);
  dli_free(&learner->allocator, tasks);
  return status;
}

static dlora_status read_predictor(const dlora_learner *learner, const struct dli_tensors *tensors, const char *name,
                                   size_t width, dlora_predictor **out) {
  const int32_t readout = strcmp(name, "gate") == 0 ? DLORA_READOUT_GAUSSIAN : learner->options.readout;
  const dlora_predictor_options options = dli_predictor_options_of(&learner->options, &learner->allocator, readout);
  DLI_TRY(dli_predictor_read(out, tensors, name, &options));
  const dlora_predictor *reference = learner->base ? learner->base : *out;
  if (dlora_predictor_dim(*out) == width && dlora_predictor_num_tasks(*out) == dlora_predictor_num_tasks(reference) &&
      dlora_predictor_num_components(*out) == dlora_predictor_num_components(reference)) {
    return check_components(learner, *out, name, tensors);
  }
  return dli_raise(DLORA_ERR_FORMAT,
                   "%s: predictor %s is %zu wide with %zu tasks and %zu components; %zu, %zu and %zu expected",
                   dli_tensors_label(tensors), name, dlora_predictor_dim(*out), dlora_predictor_num_tasks(*out),
                   dlora_predictor_num_components(*out), width, dlora_predictor_num_tasks(reference),
                   dlora_predictor_num_components(reference));
}

static dlora_status read_heads(dlora_learner *learner, const struct dli_tensors *tensors) {
  const size_t tasks = dlora_predictor_num_tasks(learner->base), dim = learner->model->vit.dim;
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
  const size_t tasks = dlora_predictor_num_tasks(learner->base), shape[] = {tasks, tasks};
  struct dli_metrics *metrics = &learner->metrics;
  const struct dli_tensor *tensor; /* before memory for as many tasks as they have is taken */
  DLI_TRY(dli_tensors_require(tensors, "metrics.accuracy", DLI_F64, 2, shape, &tensor));
  DLI_TRY(dli_metrics_create(metrics, tasks, &learner->allocator));
  DLI_TRY(dli_tensors_copy(tensors, "metrics.accuracy", DLI_F64, 2, shape, metrics->accuracy));
  DLI_TRY(dli_tensors_copy(tensors, "metrics.overall", DLI_F64, 1, shape, metrics->overall));
  DLI_TRY(read_digests(tensors, "metrics.images", 2, shape, metrics->images));
  return read_digests(tensors, "metrics.overall_images", 1, shape, metrics->overall_images);
}

static dlora_status read_parts(dlora_learner *learner, const struct dli_tensors *tensors) {
  const dlora_allocator *allocator = &learner->allocator;
  const size_t dim = learner->model->vit.dim;
  DLI_TRY(read_predictor(learner, tensors, "plain", learner->width, &learner->base));
  DLI_TRY(
      dli_class_index_create(&learner->class_index, learner->base, NULL, learner->options.unknown_quantile, allocator));
  DLI_TRY(read_predictor(learner, tensors, "gate", 2 * dim, &learner->gate));
  if (dli_tensors_find(tensors, "routed.means")) {
    DLI_TRY(read_predictor(learner, tensors, "routed", learner->width, &learner->routed));
  }
  if (learner->options.untouched_baseline) {
    DLI_TRY(read_predictor(learner, tensors, "frozen", learner->width, &learner->untouched));
  }
  dli_class_index_release(&learner->class_index, allocator);
  DLI_TRY(dli_class_index_create(&learner->class_index, learner->base, learner->routed,
                                 learner->options.unknown_quantile, allocator));
  const dlora_bank_options bank = dli_bank_options_of(&learner->options, allocator);
  DLI_TRY(dli_bank_read(&learner->bank, tensors, "bank", &bank));
  DLI_TRY(check_bank(learner, tensors));
  DLI_TRY(dli_merged_weights_create(&learner->merged_weights, learner->model, learner->bank, 1, allocator));
  DLI_TRY(read_memories(learner, tensors));
  DLI_TRY(read_heads(learner, tensors));
  DLI_TRY(read_metrics(learner, tensors));
  DLI_TRY(read_names(learner, tensors));
  return dli_notes_read(learner, tensors);
}

/* Reads an options array that a library of another version may have written: what it did not know yet keeps `defaults`.
 */
static dlora_status read_array(const struct dli_tensors *tensors, const char *name, enum dli_dtype dtype, size_t known,
                               size_t size, void *values) {
  const struct dli_tensor *tensor;
  DLI_TRY(dli_tensors_require(tensors, name, dtype, 1, (size_t[]){SIZE_MAX}, &tensor));
  if (tensor->count > known) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "%s: tensor %s has %zu options, this library knows %zu: it was saved by a newer one",
                     dli_tensors_label(tensors), name, tensor->count, known);
  }
  memcpy(values, tensor->data, tensor->count * size);
  return DLORA_OK;
}

/* The saved options, those of the caller laid over them where they may differ. */
static dlora_status read_options(const struct dli_tensors *tensors, const dlora_model *model,
                                 const dlora_learner_options *given, dlora_learner_options *out) {
  int64_t integers[NUM_INTEGERS];
  float floats[NUM_FLOATS];
  dlora_learner_options saved = DLORA_LEARNER_OPTIONS_INIT;
  options_to_arrays(&saved, integers, floats);
  DLI_TRY(read_array(tensors, "learner.options.integers", DLI_I64, NUM_INTEGERS, sizeof *integers, integers));
  DLI_TRY(read_array(tensors, "learner.options.floats", DLI_F32, NUM_FLOATS, sizeof *floats, floats));
  options_from_arrays(integers, floats, &saved);
  dlora_status status = dli_learner_options_check(&saved, &model->vit);
  if (status != DLORA_OK) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: learner.options are not usable", dli_tensors_label(tensors));
  }
  *out = saved;
  if (!given) return DLORA_OK;
  DLI_TRY(dli_learner_options_read(given, &saved, out));
  DLI_TRY(dli_learner_options_check(out, &model->vit));
  const char *different = dli_learner_options_difference(out, &saved);
  if (!different && dli_task_is_open(tensors)) {
    different = find_difference(out, &saved);
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
  const dlora_learner_options defaults = DLORA_LEARNER_OPTIONS_INIT;
  dlora_learner_options known;
  dlora_allocator allocator;
  DLI_TRY(dli_learner_options_read(options, &defaults, &known));
  DLI_TRY(dli_allocator_read(&allocator, known.allocator));
  struct dli_tensors *tensors = NULL;
  dlora_learner *learner = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(dli_tensors_open(&tensors, path, &allocator));
  DLI_TRY_DONE(check_header(tensors, model));
  DLI_TRY_DONE(read_options(tensors, model, options, &known));
  DLI_TRY_DONE(dli_learner_new(&learner, model, &known, &allocator));
  DLI_TRY_DONE(read_parts(learner, tensors));
  if (dli_task_is_open(tensors)) DLI_TRY_DONE(dli_task_read(learner, tensors));
  *out = learner;
  learner = NULL;
done:
  dlora_learner_destroy(learner);
  dli_tensors_close(tensors);
  return status;
}
