/* The learner's life: creation from options, small questions, class names. */
#include "src/learner/learner.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "io/json_text.h"
#include "src/bank/bank.h"
#include "src/predictor/predictor.h"
#include "src/projector/projector.h"

void dli_learner_log(const dlora_learner *learner, int32_t level, const char *format, ...) {
  if (!learner->options.log) return;
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  learner->options.log(level, line, learner->options.log_user);
}

size_t dli_learner_max_batch(const dlora_learner *learner, int training, size_t count) {
  const dlora_learner_options *o = &learner->options;
  const struct dli_vit *vit = &learner->model->vit;
  /* Where the BLAS has threads of its own, one thread of ours runs all images. */
  const size_t threads = dli_blas_runs_inside_threads() ? o->threads : 1;
  size_t images = o->micro_batch ? o->micro_batch * threads : dli_session_micro_batch(vit, threads, 0);
  if (!o->micro_batch && training) {
    /* What a training pass keeps of an image (lib/vit/workspace.c), held to about 256 MiB over all threads: more rows
     * than that make products hardly faster. Products that need not arrange the weights first are fast with few rows,
     * and then the rest gains from activations that are still in a cache. In bfloat16 they are so fast that fetching
     * weights takes longer unless two or three images share them. */
    size_t width = 5 * vit->dim + vit->mlp_dim;
    if (o->sites & (DLORA_SITE_QUERY | DLORA_SITE_KEY | DLORA_SITE_VALUE)) width += vit->dim;
    if (o->sites & DLORA_SITE_OUTPUT) width += vit->dim;
    if (o->sites & DLORA_SITE_FC1) width += vit->dim;
    if (o->sites & DLORA_SITE_FC2) width += vit->mlp_dim;
    const size_t floats = vit->tokens * width + dli_vit_kept_of_attention(vit, vit->tokens);
    const size_t mine = (size_t)(vit->bfloat16 ? 96 : 32) << 20; /* of one thread */
    const size_t bytes = vit->onednn ? threads * mine : (size_t)256 << 20;
    const size_t room = bytes / ((vit->depth - learner->first_block) * floats * sizeof(float) + 1);
    if (images > room) images = room > threads ? room / threads * threads : threads; /* as many for each thread */
  }
  if (count && images > count) images = count;
  return images;
}

int dli_learner_has_residuals(const dlora_learner *learner) {
  return learner->bank->num_residuals > 0;
}

void dli_learner_combine(const dlora_learner *learner, const float *early, const float *z, size_t count, float *out) {
  const size_t dim = learner->model->vit.dim, width = learner->width;
  for (size_t i = 0; i < count; i++) {
    if (width > dim) memcpy(out + i * width, early + i * 2 * dim, 2 * dim * sizeof *out);
    memcpy(out + i * width + width - dim, z + i * dim, dim * sizeof *out);
  }
}

int dli_learner_reads_early(const dlora_learner *learner) {
  return learner->width > learner->model->vit.dim && learner->middle_block == learner->first_block;
}

size_t dli_learner_num_drifting_columns(const dlora_learner *learner) {
  return learner->middle_block > learner->first_block ? learner->width : learner->model->vit.dim;
}

/* One site per adapted projection, block by block; one memory per input that they read. */
static dlora_status create_parts(dlora_learner *learner) {
  const struct dli_vit *vit = &learner->model->vit;
  const dlora_learner_options *o = &learner->options;
  const dlora_allocator *allocator = &learner->allocator;
  const dlora_projector_options memory = {sizeof memory, allocator};
  dlora_site *sites;
  size_t num_sites = 0;
  DLI_TRY(DLI_NEW(allocator, sites, 6 * vit->depth));
  dlora_status status = DLI_NEW(allocator, learner->projectors, 4 * vit->depth);
  for (size_t b = learner->first_block; status == DLORA_OK && b < learner->end_block; b++) {
    for (int32_t p = DLORA_SITE_QUERY; status == DLORA_OK && p <= DLORA_SITE_FC2; p <<= 1) {
      if (!(o->sites & p)) continue;
      const size_t in = p == DLORA_SITE_FC2 ? vit->mlp_dim : vit->dim,
                   out = p == DLORA_SITE_FC1 ? vit->mlp_dim : vit->dim;
      sites[num_sites++] = (dlora_site){in, out, (int32_t)b, p};
      dlora_projector **projector = &learner->projectors[4 * b + (size_t)dli_input_of(p)];
      if (!*projector) status = dlora_projector_create(projector, in, &memory);
    }
  }
  const dlora_bank_options bank = dli_bank_options_of(o, allocator);
  if (status == DLORA_OK) status = dlora_bank_create(&learner->bank, sites, num_sites, &bank);
  dli_free(allocator, sites);
  if (status != DLORA_OK) return status;
  const dlora_predictor_options readout = dli_predictor_options_of(o, allocator, o->readout);
  const dlora_predictor_options gaussian = dli_predictor_options_of(o, allocator, DLORA_READOUT_GAUSSIAN);
  DLI_TRY(dlora_predictor_create(&learner->base, learner->width, &readout));
  DLI_TRY(dlora_predictor_create(&learner->gate, 2 * vit->dim, &gaussian));
  if (o->untouched_baseline) DLI_TRY(dlora_predictor_create(&learner->untouched, learner->width, &readout));
  return DLORA_OK;
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
  if (!learner->options.threads) learner->options.threads = dli_threads_available();
  learner->first_block = options->first_block == DLORA_BLOCKS_UPPER_HALF             ? vit->depth / 2
                         : options->first_block == DLORA_BLOCKS_UPPER_THREE_QUARTERS ? vit->depth / 4
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
  const dlora_learner_options defaults = DLORA_LEARNER_OPTIONS_INIT;
  dlora_learner_options known;
  DLI_TRY(dli_learner_options_read(options, &defaults, &known));
  return dli_learner_options_check(&known, model ? &model->vit : NULL);
}

dlora_status dlora_learner_create(dlora_learner **out, const dlora_model *model, const dlora_learner_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(model);
  const dlora_learner_options defaults = DLORA_LEARNER_OPTIONS_INIT;
  dlora_learner_options known;
  dlora_allocator allocator;
  DLI_TRY(dli_learner_options_read(options, &defaults, &known));
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
  const dlora_predictor *const predictors[] = {learner->base, learner->routed, learner->gate, learner->untouched};
  dli_pool_clear(learner->sessions);
  for (size_t i = 0; i < sizeof predictors / sizeof *predictors; i++) {
    if (predictors[i]) dli_predictor_release(predictors[i]);
  }
  for (size_t i = 0; i < 4 * learner->model->vit.depth; i++) {
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
  for (size_t i = 0; learner->projectors && i < 4 * learner->model->vit.depth; i++) {
    dlora_projector_destroy(learner->projectors[i]);
  }
  dlora_predictor_destroy(learner->base);
  dlora_predictor_destroy(learner->routed);
  dlora_predictor_destroy(learner->gate);
  dlora_predictor_destroy(learner->untouched);
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
  dli_free(&allocator, learner);
}

void dli_class_index_release(struct dli_class_index *class_index, const dlora_allocator *allocator) {
  dli_free(allocator, class_index->component_tasks);
  dli_free(allocator, class_index->component_classes);
  dli_free(allocator, class_index->component_columns);
  dli_free(allocator, class_index->classes);
  *class_index = (struct dli_class_index){0};
}

dlora_status dli_class_index_create(struct dli_class_index *out, const dlora_predictor *base,
                                    const dlora_predictor *routed, float unknown_quantile,
                                    const dlora_allocator *allocator) {
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
  const dlora_predictor *const sources[] = {base, routed};
  for (size_t i = 0; i < 2; i++) {
    d.thresholds[i] = INFINITY;
    if (!sources[i]) continue;
    const dlora_status found = dlora_predictor_unknown_threshold(sources[i], unknown_quantile, &d.thresholds[i]);
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

/* Inside a task the options are what it was begun with, but for the callbacks. */
static dlora_status change_callbacks(dlora_learner *learner, const dlora_learner_options *options) {
  dlora_learner_options next = learner->options;
  next.progress = options->progress;
  next.progress_user = options->progress_user;
  next.log = options->log;
  next.log_user = options->log_user;
  if (memcmp(&next, options, sizeof next) != 0) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_learner_configure: a task is open, and only callbacks may change; end or cancel it first");
  }
  learner->options = next;
  return DLORA_OK;
}

dlora_status dlora_learner_configure(dlora_learner *learner, const dlora_learner_options *options) {
  DLI_REQUIRE(learner);
  const dlora_learner_options defaults = DLORA_LEARNER_OPTIONS_INIT;
  dlora_learner_options known;
  DLI_TRY(dli_learner_options_read(options, &defaults, &known));
  DLI_TRY(dli_learner_options_check(&known, &learner->model->vit));
  known.allocator = NULL;
  if (!known.threads) known.threads = dli_threads_available();
  if (learner->task) return change_callbacks(learner, &known);
  const char *different = dli_learner_options_difference(&known, &learner->options);
  if (different) {
    return dli_raise(DLORA_ERR_MISMATCH, "dlora_learner_configure: %s cannot change after creation", different);
  }
  struct dli_class_index class_index;
  DLI_TRY(dli_class_index_create(&class_index, learner->base, learner->routed, known.unknown_quantile,
                                 &learner->allocator));
  dli_class_index_release(&learner->class_index, &learner->allocator);
  learner->class_index = class_index;
  learner->bank->options = dli_bank_options_of(&known, NULL);
  learner->options = known;
  dli_learner_release_workspaces(learner); /* they are of the old threads and micro_batch */
  return DLORA_OK;
}

dlora_status dlora_learner_set_snapshot(dlora_learner *learner, const char *path, size_t steps) {
  DLI_REQUIRE(learner);
  char *copy = NULL;
  if (path && !path[0]) return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_set_snapshot: path is empty");
  if (path && !(copy = dli_strdup(&learner->allocator, path))) return DLORA_ERR_NO_MEMORY;
  dli_free(&learner->allocator, learner->snapshot_path);
  learner->snapshot_path = copy;
  learner->snapshot_steps = steps;
  return DLORA_OK;
}

dlora_status dlora_learner_get_options(const dlora_learner *learner, dlora_learner_options *options) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(options);
  return dli_struct_write("dlora_learner_options", options, options->struct_size, &learner->options,
                          sizeof learner->options);
}

size_t dlora_learner_num_tasks(const dlora_learner *learner) {
  return learner ? dlora_predictor_num_tasks(learner->base) : 0;
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

/* Where the class stands among the names, or would stand: many names must not make each of them slow. */
static size_t find_name(const dlora_learner *learner, int64_t class_id) {
  size_t low = 0, high = learner->num_names;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (learner->names[middle].class_id < class_id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

dlora_status dlora_learner_set_class_name(dlora_learner *learner, int64_t class_id, const char *name) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(name);
  if (!dli_is_utf8(name, strlen(name))) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_set_class_name: the name of class %lld is not UTF-8",
                     (long long)class_id);
  }
  char *copy = dli_strdup(&learner->allocator, name);
  if (!copy) return DLORA_ERR_NO_MEMORY;
  const size_t at = find_name(learner, class_id);
  if (at < learner->num_names && learner->names[at].class_id == class_id) {
    dli_free(&learner->allocator, learner->names[at].name);
    learner->names[at].name = copy;
    return DLORA_OK;
  }
  if (learner->num_names == learner->max_names) {
    const size_t capacity = learner->max_names ? 2 * learner->max_names : 16;
    struct dli_class_name *names = dli_alloc(&learner->allocator, capacity, sizeof *names);
    if (!names) {
      dli_free(&learner->allocator, copy);
      return DLORA_ERR_NO_MEMORY;
    }
    if (learner->num_names) memcpy(names, learner->names, learner->num_names * sizeof *names);
    dli_free(&learner->allocator, learner->names);
    learner->names = names;
    learner->max_names = capacity;
  }
  memmove(learner->names + at + 1, learner->names + at, (learner->num_names - at) * sizeof *learner->names);
  learner->names[at] = (struct dli_class_name){class_id, copy};
  learner->num_names++;
  return DLORA_OK;
}

const char *dlora_learner_get_class_name(const dlora_learner *learner, int64_t class_id) {
  const size_t at = learner ? find_name(learner, class_id) : 0;
  if (!learner || at == learner->num_names || learner->names[at].class_id != class_id) return NULL;
  return learner->names[at].name;
}

const dlora_bank *dlora_learner_get_bank(const dlora_learner *learner) {
  return learner ? learner->bank : NULL;
}

const dlora_predictor *dlora_learner_get_predictor(const dlora_learner *learner) {
  return learner ? learner->base : NULL;
}

const dlora_projector *dlora_learner_get_projector(const dlora_learner *learner, size_t block, int32_t input) {
  if (!learner || block >= learner->model->vit.depth || input < 0 || input > DLORA_INPUT_FC2) return NULL;
  return learner->projectors[4 * block + (size_t)input];
}
