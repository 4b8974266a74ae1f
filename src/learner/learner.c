/* The learner's life: creation from options, small questions.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/learner/learner.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/bank/bank.h"
#include "src/predictor/predictor.h"
#include "src/projector/projector.h"

void dli_learner_log(const dlora_learner *learner, int32_t level, const char *format, ...) {
  if (!learner->log) return;
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  learner->log(level, line, learner->log_user);
}

/* One site per adapted projection, block by block; one projector per input that they read. */
static dlora_status create_parts(dlora_learner *learner) {
  const struct dli_vit *vit = &learner->model->vit;
  const dlora_learner_options *o = &learner->options;
  const dlora_allocator *allocator = &learner->allocator;
  const dlora_projector_options projector_options = {sizeof projector_options, allocator};
  dlora_site *sites;
  size_t num_sites = 0;
  DLI_TRY(DLI_NEW(allocator, sites, dli_num_projections(learner->model)));
  dlora_status status = DLI_NEW(allocator, learner->projectors, dli_num_inputs(learner->model));
  for (size_t b = learner->first_block; status == DLORA_OK && b < learner->end_block; b++) {
    for (int32_t p = DLORA_SITE_QUERY; status == DLORA_OK && p <= DLORA_SITE_FC2; p <<= 1) {
      if (!(o->sites & p)) continue;
      const size_t in = p == DLORA_SITE_FC2 ? vit->mlp_dim : vit->dim,
                   out = p == DLORA_SITE_FC1 ? vit->fc1_dim : vit->dim;
      sites[num_sites++] = (dlora_site){in, out, (int32_t)b, p};
      dlora_projector **projector = &learner->projectors[dli_input_index(b, dli_input_of(p))];
      if (!*projector) status = dlora_projector_create(projector, in, &projector_options);
    }
  }
  const dlora_bank_options bank = dli_bank_options_of(o, allocator);
  if (status == DLORA_OK) status = dlora_bank_create(&learner->bank, sites, num_sites, &bank);
  dli_free(allocator, sites);
  if (status != DLORA_OK) return status;
  return dli_learner_create_statistics(learner);
}

dlora_status dli_learner_new(dlora_learner **out, const dlora_model *model, const dlora_learner_options *options,
                             const dlora_allocator *allocator) {
  const struct dli_vit *vit = &model->vit;
  dlora_learner *learner;
  DLI_TRY(DLI_NEW(allocator, learner, 1));
  learner->allocator = *allocator;
  learner->model = model;
  learner->options = *options;
  learner->options.allocator = NULL;
  learner->threads = dli_threads_chosen(options->threads);
  learner->first_block = options->first_block == DLORA_FIRST_BLOCK_MIDDLE ? vit->depth / 2
                         : options->first_block == DLORA_AUTO             ? vit->depth / 4
                                                                          : (size_t)options->first_block;
  learner->end_block = vit->depth;
  if (options->num_blocks && learner->first_block + (size_t)options->num_blocks < vit->depth) {
    learner->end_block = learner->first_block + (size_t)options->num_blocks;
  }
  learner->width = options->feature_layers == DLORA_FEATURE_LAYERS_FINAL ? vit->dim : 3 * vit->dim;
  learner->middle_block = learner->first_block;
  if (options->feature_layers == DLORA_FEATURE_LAYERS_AT_MIDDLE && learner->first_block < vit->depth / 2) {
    learner->middle_block = vit->depth / 2;
  }
  const dlora_status status = dli_pool_create(&learner->sessions, allocator);
  if (status != DLORA_OK) {
    dli_free(allocator, learner);
    return status;
  }
  *out = learner;
  return DLORA_OK;
}

dlora_status dlora_learner_options_check(const dlora_learner_options *options, const dlora_model *model) {
  dlora_learner_options known;
  DLI_TRY(dli_learner_options_read(options, NULL, &known));
  return dli_learner_options_check(&known, model ? &model->vit : NULL);
}

dlora_status dlora_learner_create(dlora_learner **out, const dlora_model *model, const dlora_learner_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(model);
  dlora_learner_options known;
  dlora_allocator allocator;
  DLI_TRY(dli_learner_options_read(options, NULL, &known));
  DLI_TRY(dli_allocator_read(&allocator, known.allocator));
  DLI_TRY(dli_learner_options_check(&known, &model->vit));
  dlora_learner *learner = NULL;
  dlora_status status = dli_learner_new(&learner, model, &known, &allocator);
  if (status == DLORA_OK) status = create_parts(learner);
  if (status == DLORA_OK)
    status = dli_merged_weights_create(&learner->merged_weights, model, learner->bank, 1, &allocator);
  if (status != DLORA_OK) {
    dlora_learner_destroy(learner);
    return status;
  }
  *out = learner;
  return DLORA_OK;
}

void dli_learner_release_workspaces(dlora_learner *learner) {
  dli_pool_clear(learner->sessions);
  for (size_t kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    if (learner->statistics[kind]) dli_predictor_release(learner->statistics[kind]);
  }
  for (size_t i = 0; i < dli_num_inputs(learner->model); i++) {
    if (learner->projectors[i]) dli_projector_release(learner->projectors[i]);
  }
}

void dlora_learner_destroy(dlora_learner *learner) {
  if (!learner) return;
  const dlora_allocator allocator = learner->allocator;
  dli_task_release(learner);
  dli_pool_destroy(learner->sessions);
  dli_merged_weights_destroy(learner->merged_weights);
  dlora_bank_destroy(learner->bank);
  for (size_t i = 0; learner->projectors && i < dli_num_inputs(learner->model); i++) {
    dlora_projector_destroy(learner->projectors[i]);
  }
  dli_learner_destroy_statistics(learner->statistics);
  dli_free(&allocator, learner->snapshot_path);
  for (size_t i = 0; i < learner->num_task_heads; i++) {
    dli_free(&allocator, learner->heads[i].weight);
    dli_free(&allocator, learner->heads[i].bias);
  }
  for (size_t i = 0; i < learner->num_names; i++) dli_free(&allocator, learner->names[i].name);
  dli_free(&allocator, learner->names);
  dli_notes_release(learner);
  dli_free(&allocator, learner->heads);
  dli_free(&allocator, learner->projectors);
  dli_metrics_release(&learner->metrics, &allocator);
  dli_class_index_release(&learner->class_index, &allocator);
  dli_model_free_copy(learner->own_model);
  dli_free(&allocator, learner);
}

dlora_status dlora_learner_configure(dlora_learner *learner, const dlora_learner_options *options) {
  DLI_REQUIRE(learner);
  dlora_learner_options known;
  DLI_TRY(dli_learner_options_read(options, NULL, &known));
  DLI_TRY(dli_learner_options_check(&known, &learner->model->vit));
  known.allocator = NULL;
  const char *different = learner->task ? dli_learner_options_task_difference(&known, &learner->options, true) : NULL;
  if (different) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_learner_configure: a task is open, and %s differs; call dlora_learner_commit_task or "
                     "dlora_learner_discard_task first",
                     different);
  }
  if (learner->task) return DLORA_OK;
  different = dli_learner_options_difference(&known, &learner->options);
  if (different) {
    return dli_raise(DLORA_ERR_MISMATCH, "dlora_learner_configure: %s cannot change after creation", different);
  }
  struct dli_class_index class_index;
  DLI_TRY(dli_class_index_create(&class_index, learner->statistics, known.unknown_quantile, &learner->allocator));
  dli_class_index_release(&learner->class_index, &learner->allocator);
  learner->class_index = class_index;
  learner->bank->options = dli_bank_options_of(&known, NULL);
  learner->options = known;
  learner->threads = dli_threads_chosen(known.threads);
  dli_learner_release_workspaces(learner); /* they are of the old threads and micro_batch */
  return DLORA_OK;
}

dlora_status dlora_learner_set_progress(dlora_learner *learner, dlora_progress_fn progress, void *user) {
  DLI_REQUIRE(learner);
  learner->progress = progress;
  learner->progress_user = user;
  return DLORA_OK;
}

dlora_status dlora_learner_set_log(dlora_learner *learner, dlora_log_fn log, void *user) {
  DLI_REQUIRE(learner);
  learner->log = log;
  learner->log_user = user;
  return DLORA_OK;
}

dlora_status dlora_learner_get_options(const dlora_learner *learner, dlora_learner_options *options) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(options);
  return dli_struct_write("dlora_learner_options", options, options->struct_size, &learner->options,
                          sizeof learner->options);
}

size_t dlora_learner_num_tasks(const dlora_learner *learner) {
  return learner ? dlora_predictor_num_tasks(learner->statistics[DLI_BASE]) : 0;
}

size_t dlora_learner_num_classes(const dlora_learner *learner) {
  return learner ? learner->class_index.num_classes : 0;
}

dlora_status dlora_learner_get_classes(const dlora_learner *learner, int64_t *classes) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(classes);
  if (learner->class_index.num_classes)
    memcpy(classes, learner->class_index.classes, learner->class_index.num_classes * sizeof *classes);
  return DLORA_OK;
}

const dlora_bank *dlora_learner_get_bank(const dlora_learner *learner) {
  return learner ? learner->bank : NULL;
}

const dlora_predictor *dlora_learner_get_predictor(const dlora_learner *learner) {
  return learner ? learner->statistics[DLI_BASE] : NULL;
}

const dlora_projector *dlora_learner_get_projector(const dlora_learner *learner, size_t block, int32_t input) {
  if (!learner || block >= learner->model->vit.depth || input < 0 || input > DLORA_INPUT_FC2) return NULL;
  return learner->projectors[dli_input_index(block, input)];
}
