/* Forward and backward of a model with a bank on one micro-batch. METHOD.md 2 and 9.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   load       images to tokens, then the trunk: the blocks below the first adapted one. Nothing there depends on
 *              adapters, so that several upper passes may follow.
 *   upper      from the first adapted block to the features z. Weights are W + M (merged_weights.c); at each
 *              site a hook (hooks.c) adds the open task's pairs and the residual adapters of finished tasks.
 *   backward   from dL/dz through the same blocks down to the lowest site, with gradients of the open pairs alone.
 *
 * Each thread has a part of the images and a workspace of its own; nothing is shared but weights. Where the BLAS uses
 * threads itself, there is a single part. */
#include "src/session/session.h"

#include <string.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/bank/bank.h"
#include "src/session/state.h"

size_t dli_session_micro_batch(const struct dli_vit *vit, size_t threads, size_t count) {
  /* About 1000 rows a product: enough for full speed of the BLAS, small enough to stay near the caches. */
  size_t images = (1000 + vit->tokens - 1) / vit->tokens * threads;
  if (count > 0 && images > count) images = count;
  return images;
}

dlora_status dlora_session_options_init(dlora_session_options *options, size_t size) {
  const dlora_session_options defaults = DLORA_SESSION_OPTIONS_INIT;
  return dli_struct_write("dlora_session_options", options, size, &defaults, sizeof defaults);
}

dlora_status dli_session_create(dlora_session **out, const dlora_model *model,
                                struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                                size_t threads, bool training, const dlora_allocator *allocator) {
  const struct dli_vit *vit = &model->vit;
  const struct dli_image_format format = dli_vit_image_format(vit);
  dlora_status status = DLORA_OK;
  dlora_session *session;
  if (max_batch == 0) max_batch = 1;
  const size_t allowed = threads;
  /* If the BLAS has threads of its own, products from several threads would compete for them. */
  if (!dli_blas_runs_inside_threads()) threads = 1;
  if (threads > max_batch) threads = max_batch;
  DLI_TRY(DLI_NEW(allocator, session, 1));
  session->allocator = *allocator;
  session->model = model;
  session->merged_weights = merged_weights;
  session->bank = merged_weights ? merged_weights->bank : NULL;
  session->first_block = first_block;
  session->lowest_input = DLORA_INPUT_FC2;
  session->max_batch = max_batch;
  session->allowed = allowed;
  session->training = training;
  DLI_TRY_DONE(DLI_NEW(allocator, session->site_of, dli_num_projections(model)));
  unsigned inputs = session->bank ? 0 : ~0u; /* inputs kept for get_input; without sites, all */
  for (size_t i = 0; session->bank && i < session->bank->num_sites; i++) {
    const dlora_site *site = &session->bank->sites[i];
    session->site_of[dli_projection_index((size_t)site->block, site->projection)] = i + 1;
    const int32_t input = dli_input_of(site->projection);
    if ((size_t)site->block == first_block && input < session->lowest_input) session->lowest_input = input;
    inputs |= 1u << input;
  }
  DLI_TRY_DONE(DLI_NEW(allocator, session->features, max_batch * vit->dim));
  DLI_TRY_DONE(DLI_NEW(allocator, session->parts, threads));
  for (session->threads = 0; session->threads < threads; session->threads++) {
    struct dli_session_part *part = &session->parts[session->threads];
    part->session = session;
    status = dli_vit_workspace_create(&part->workspace, vit, (max_batch + threads - 1) / threads, first_block, training,
                                      inputs, allocator);
    if (status == DLORA_OK) status = dli_image_plan_create(&part->plan, allocator, &format);
    if (status != DLORA_OK) {
      session->threads++; /* the half-made part is released with the others */
      goto done;
    }
  }
  DLI_TRY_DONE(dli_session_reserve(session));
  *out = session;
done:
  if (status != DLORA_OK) dlora_session_destroy(session);
  return status;
}

dlora_status dlora_session_create(dlora_session **out, const dlora_model *model, const dlora_bank *bank,
                                  const dlora_session_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(model);
  dlora_session_options known = DLORA_SESSION_OPTIONS_INIT;
  dlora_allocator allocator;
  DLI_TRY(dli_options_read("dlora_session_options", &known, sizeof known, options));
  DLI_TRY(dli_allocator_read(&allocator, known.allocator));
  if (known.max_batch == 0 || known.max_batch > INT32_MAX / model->vit.tokens) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_session_create: max_batch is %zu, expected 1 to %zu", known.max_batch,
                     INT32_MAX / model->vit.tokens);
  }
  if (known.threads != DLORA_AUTO && (known.threads < 1 || known.threads > 1 << 12)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_session_create: threads is %d, expected 1 to 4096 or DLORA_AUTO",
                     (int)known.threads);
  }
  struct dli_merged_weights *merged_weights = NULL;
  size_t first = model->vit.depth / 2;
  if (bank) {
    DLI_TRY(dli_merged_weights_create(&merged_weights, model, bank, known.training != 0, &allocator));
    first = model->vit.depth;
    for (size_t i = 0; i < bank->num_sites; i++) {
      if ((size_t)bank->sites[i].block < first) first = (size_t)bank->sites[i].block;
    }
  }
  const size_t threads = dli_threads_chosen(known.threads);
  const dlora_status status =
      dli_session_create(out, model, merged_weights, first, known.max_batch, threads, known.training != 0, &allocator);
  if (status != DLORA_OK) {
    dli_merged_weights_destroy(merged_weights);
  } else {
    (*out)->owns_merged_weights = true;
  }
  return status;
}

void dlora_session_destroy(dlora_session *session) {
  if (!session) return;
  const dlora_allocator allocator = session->allocator;
  if (session->attached) session->detach(session->attached);
  for (size_t i = 0; i < session->threads; i++) {
    struct dli_session_part *part = &session->parts[i];
    dli_vit_workspace_release(&part->workspace, &allocator);
    dli_image_plan_destroy(part->plan);
    dli_free(&allocator, part->scratch);
    dli_free(&allocator, part->gradients);
    dli_free(&allocator, part->routing);
    dli_free(&allocator, part->route_scratch);
  }
  if (session->owns_merged_weights) dli_merged_weights_destroy(session->merged_weights);
  dli_free(&allocator, session->parts);
  dli_free(&allocator, session->site_of);
  dli_free(&allocator, session->features);
  dli_free(&allocator, session);
}

size_t dlora_session_workspace_size(const dlora_session *session) {
  size_t bytes = 0;
  for (size_t i = 0; session && i < session->threads; i++)
    bytes += dli_vit_workspace_bytes(&session->parts[i].workspace);
  return bytes;
}

/* ---- input ---- */

dlora_status dli_images_part(const dlora_images *images, size_t first, size_t count, dlora_images *out,
                             const char *caller) {
  size_t image;
  const size_t channels = images->u8 ? (images->channels > 0 ? images->channels : 3) : 3;
  if (images->count == 0 || images->height == 0 || images->width == 0 ||
      !dli_multiply(&image, images->height, images->width) || !dli_multiply(&image, image, channels * sizeof(float)) ||
      !dli_multiply(&image, image, images->count)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: images has count %zu, height %zu, width %zu", caller, images->count,
                     images->height, images->width);
  }
  const size_t values = images->height * images->width * channels;
  *out = *images;
  if (out->u8) out->u8 += first * values;
  if (out->f32) out->f32 += first * values;
  out->count = images->count - first < count ? images->count - first : count;
  return DLORA_OK;
}

dlora_status dli_features_finite(const float *features, size_t count, size_t dim, const char *caller) {
  const size_t bad = dli_first_not_finite(features, count * dim);
  if (bad == count * dim) return DLORA_OK;
  return dli_raise(DLORA_ERR_NOT_FINITE,
                   "%s: the features of an image of the batch (number %zu of its part) are not finite", caller,
                   bad / dim);
}

/* Runs the parts in parallel. Many threads of a program may use sessions at once: products must not start more threads
 * than this session may use. */
static void run_parts(const dlora_session *session, void (*run)(size_t begin, size_t end, size_t index, void *user),
                      void *user) {
  const int before = dli_threads_enter(session->allowed);
  dli_parallel_for(session->threads, session->count, run, user);
  dli_threads_leave(before);
}

struct load_call {
  dlora_session *session;
  const dlora_images *images;
  const struct dli_augment *augment;
};

static void load_part(size_t begin, size_t end, size_t index, void *user) {
  const struct load_call *c = user;
  struct dli_session_part *part = &c->session->parts[index];
  const struct dli_vit *vit = &c->session->model->vit;
  part->first = begin;
  dli_profile_start(&part->workspace.profile);
  for (size_t i = begin; i < end; i++) {
    dli_image_plan_run(part->plan, c->images, i, c->augment ? &c->augment[i] : NULL, part->workspace.input);
    dli_vit_embed_image(vit, &part->workspace, i - begin);
  }
  dli_profile_lap(&part->workspace.profile, DLI_PREPROCESSING);
  dli_vit_forward_trunk(vit, c->session->model->kernels, &part->workspace, end - begin);
}

dlora_status dli_session_load(dlora_session *session, const dlora_images *images, const struct dli_augment *augment,
                              const char *caller) {
  for (size_t i = 0; i < session->threads; i++) {
    /* Each part plans resizing for bytes. Floats are only checked, and once is enough. */
    if (i == 0 || images->u8) DLI_TRY(dli_image_plan_prepare(session->parts[i].plan, images, caller));
  }
  session->count = images->count;
  session->ran = false;
  struct load_call call = {session, images, augment};
  run_parts(session, load_part, &call);
  return DLORA_OK;
}

/* ---- passes ---- */

dlora_status dli_session_reserve(dlora_session *session) {
  const dlora_bank *bank = session->bank;
  if (!bank) return DLORA_OK;
  const size_t rank = dli_bank_max_rank(bank), gradients = bank->count + bank->extra;
  const struct dli_vit *vit = &session->model->vit;
  const size_t thin = !vit->bfloat16 ? 0 : vit->fc1_dim > vit->dim ? vit->fc1_dim : vit->dim;
  const dlora_allocator *allocator = &session->allocator;
  const bool more_scratch = rank > session->scratch_rank, more_tasks = bank->num_tasks > session->routing_tasks;
  const bool more_gradients = session->training && gradients > session->gradient_capacity;
  /* Capacities are 0 until every part has the new size, so that the next call repairs a failure half-way. */
  if (more_scratch) session->scratch_rank = 0;
  if (more_tasks) session->routing_tasks = 0;
  if (more_gradients) session->gradient_capacity = 0;
  for (size_t i = 0; i < session->threads; i++) {
    struct dli_session_part *part = &session->parts[i];
    const size_t images = part->workspace.max_images;
    if (more_scratch) {
      dli_free(allocator, part->scratch);
      DLI_TRY(DLI_NEW(allocator, part->scratch, 2 * rank * (images * vit->tokens + thin)));
    }
    if (more_tasks) {
      dli_free(allocator, part->routing);
      DLI_TRY(DLI_NEW(allocator, part->routing, images * bank->num_tasks));
    }
    if (more_gradients) {
      dli_free(allocator, part->gradients);
      DLI_TRY(DLI_NEW(allocator, part->gradients, gradients));
    }
  }
  if (more_scratch) session->scratch_rank = rank;
  if (more_tasks) session->routing_tasks = bank->num_tasks;
  if (more_gradients) session->gradient_capacity = gradients;
  return DLORA_OK;
}

struct upper_call {
  dlora_session *session;
  float *out; /* features */
  const float *d_features;
};

static const struct dli_vit_block *blocks_of(const dlora_session *session) {
  return session->bank && (session->last.terms & DLORA_TERM_MERGED) ? session->merged_weights->blocks
                                                                    : session->model->vit.blocks;
}

static void upper_part(size_t begin, size_t end, size_t index, void *user) {
  const struct upper_call *c = user;
  const dlora_session *session = c->session;
  struct dli_session_part *part = &c->session->parts[index];
  const struct dli_vit *vit = &session->model->vit;
  part->status = DLORA_OK;
  if (begin == end) return;
  part->mode = &session->last;
  const struct dli_vit_hooks hooks = {part, dli_session_hook_forward, dli_session_hook_backward};
  part->workspace.middle = session->last.middle ? session->last.middle + begin * 2 * vit->dim : NULL;
  part->workspace.middle_block = session->last.middle_block;
  dli_vit_forward_upper(vit, blocks_of(session), session->model->kernels, &part->workspace,
                        session->bank ? &hooks : NULL, c->out + begin * vit->dim);
}

/*   1. Scratch for routing by energy.
 *   2. In each part: blocks of W + M, or of W without DLORA_TERM_MERGED, with dli_session_hook_forward at every site.
 *   3. Pointers of the caller are dropped; a failure inside a part becomes the call's. */
dlora_status dli_session_upper(dlora_session *session, const struct dli_session_mode *mode, float *features) {
  if (mode->energy) DLI_TRY(dli_session_reserve_routing(session, mode->energy));
  session->last = *mode;
  session->ran = true;
  session->routed = mode->routing || mode->energy;
  struct upper_call call = {session, features ? features : session->features, NULL};
  run_parts(session, upper_part, &call);
  session->last.routing = NULL; /* the backward pass does not need the caller's arrays, which may be gone by then */
  session->last.middle = NULL;
  for (size_t i = 0; mode->energy && i < session->threads; i++) {
    const dlora_status status = session->parts[i].status;
    /* The sentence was set in the part's own thread. */
    if (status != DLORA_OK) return dli_raise(status, "routing by energy could not be computed");
  }
  return DLORA_OK;
}

void dli_session_early(dlora_session *session, float *features) {
  const struct dli_vit *vit = &session->model->vit;
  for (size_t s = 0; s < session->threads; s++) {
    struct dli_session_part *part = &session->parts[s];
    dli_profile_start(&part->workspace.profile);
    dli_vit_early(vit, session->model->kernels, &part->workspace, part->workspace.trunk, part->workspace.images,
                  features + part->first * 2 * vit->dim);
  }
}

static void backward_part(size_t begin, size_t end, size_t index, void *user) {
  const struct upper_call *c = user;
  const dlora_session *session = c->session;
  struct dli_session_part *part = &c->session->parts[index];
  memset(part->gradients, 0, session->bank->count * sizeof *part->gradients);
  if (begin == end) return;
  const struct dli_vit_hooks hooks = {part, dli_session_hook_forward, dli_session_hook_backward};
  part->mode = &session->last;
  dli_vit_backward_upper(&session->model->vit, blocks_of(session), session->model->kernels, &part->workspace, &hooks,
                         session->lowest_input, c->d_features + begin * session->model->vit.dim);
}

/* Each part sums gradients of its images in an array of its own. The arrays are added in the order of the threads, so
 * that the same number of threads gives bitwise the same sum. */
void dli_session_backward(dlora_session *session, const float *d_features, float *gradients) {
  struct upper_call call = {session, NULL, d_features};
  run_parts(session, backward_part, &call);

  dli_profile_start(&session->parts[0].workspace.profile);
  for (size_t i = 0; i < session->threads; i++) {
    session->model->kernels->add(session->parts[i].gradients, session->bank->count, gradients);
  }
  dli_profile_lap(&session->parts[0].workspace.profile, DLI_HOOKS);
}

const float *dli_session_input(const dlora_session *session, size_t index, size_t block, int32_t input, size_t *rows,
                               size_t *dim, size_t *rows_per_image) {
  const struct dli_vit *vit = &session->model->vit;
  const struct dli_vit_workspace *w = &session->parts[index].workspace;
  const struct dli_block_buffers *b = &w->kept[block];
  const float *const inputs[] = {b->h1, b->o, b->h2, b->g};
  *rows_per_image = input == DLORA_INPUT_ATTENTION ? vit->tokens : dli_vit_queries(vit, block);
  *rows = w->images * *rows_per_image;
  *dim = input == DLORA_INPUT_FC2 ? vit->mlp_dim : vit->dim;
  return inputs[input];
}

/* ---- the public calls ---- */

dlora_status dlora_session_forward(dlora_session *session, const dlora_images *images, int32_t terms,
                                   const float *routing, float *features) {
  DLI_REQUIRE(session);
  DLI_REQUIRE(images);
  if (!features && !session->training) return dli_raise(DLORA_ERR_ARGUMENT, "dlora_session_forward: features is NULL");
  const int32_t open_terms = DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL;
  if (terms & ~(open_terms | DLORA_TERM_MERGED)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_session_forward: terms is %d, expected DLORA_TERM_... or-ed", terms);
  }
  if ((terms & open_terms) && !(session->bank && session->bank->open)) {
    return dli_raise(DLORA_ERR_STATE, "dlora_session_forward: terms name the open task's pairs, but no task is open");
  }
  dlora_images part;
  DLI_TRY(dli_images_part(images, 0, images->count, &part, __func__));
  if (images->count > session->max_batch) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_session_forward: %zu images, the session was planned for max_batch %zu",
                     images->count, session->max_batch);
  }
  if (session->bank) {
    DLI_TRY(dli_merged_weights_reserve(session->merged_weights, session->bank->merged));
    dli_merged_weights_update(session->merged_weights);
  }
  DLI_TRY(dli_session_reserve(session));
  DLI_TRY(dli_session_load(session, images, NULL, __func__));
  const struct dli_session_mode mode = {.terms = terms, .routing = routing};
  dli_session_upper(session, &mode, features);
  return features ? dli_features_finite(features, images->count, session->model->vit.dim, __func__) : DLORA_OK;
}

static dlora_status require_run(const dlora_session *session, const char *caller) {
  if (!session) return dli_raise(DLORA_ERR_ARGUMENT, "%s: session is NULL", caller);
  if (session->ran) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE, "%s: there is no forward pass; call dlora_session_forward first", caller);
}

dlora_status dlora_session_backward(dlora_session *session, dlora_bank *bank, const float *feature_gradients) {
  DLI_TRY(require_run(session, __func__));
  DLI_REQUIRE(bank);
  DLI_REQUIRE(feature_gradients);
  if (!session->training) {
    return dli_raise(DLORA_ERR_STATE, "dlora_session_backward: the session was created without training");
  }
  if (bank != session->bank)
    return dli_raise(DLORA_ERR_MISMATCH, "dlora_session_backward: this is not the session's own bank");
  DLI_TRY(dli_bank_require_training(bank, __func__));
  if (session->routed) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_session_backward: the forward pass had routing; gradients need it to be NULL");
  }
  DLI_TRY(dli_session_reserve(session)); /* pairs may have been set since the forward pass */
  dli_session_backward(session, feature_gradients, bank->gradients);
  return DLORA_OK;
}

dlora_status dlora_session_get_input(const dlora_session *session, size_t block, int32_t input, float *values,
                                     size_t *rows, size_t *dim) {
  DLI_TRY(require_run(session, __func__));
  DLI_REQUIRE(rows);
  DLI_REQUIRE(dim);
  if (!session->training) {
    return dli_raise(DLORA_ERR_STATE, "dlora_session_get_input: the session was created without training");
  }
  if (block < session->first_block || block >= session->model->vit.depth || input < DLORA_INPUT_ATTENTION ||
      input > DLORA_INPUT_FC2) {
    return dli_raise(DLORA_ERR_ARGUMENT,
                     "dlora_session_get_input: block %zu, input %d; expected a block from %zu to %zu", block,
                     (int)input, session->first_block, session->model->vit.depth - 1);
  }
  if (!(session->parts[0].workspace.inputs & 1u << input)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_session_get_input: no site of the session's bank reads input %d",
                     (int)input);
  }
  size_t total = 0;
  for (size_t i = 0; i < session->threads; i++) {
    size_t part, per_image;
    const float *from = dli_session_input(session, i, block, input, &part, dim, &per_image);
    if (values) memcpy(values + session->parts[i].first * per_image * *dim, from, part * *dim * sizeof *values);
    total += part;
  }
  *rows = total;
  return DLORA_OK;
}

dlora_status dlora_session_get_early_features(dlora_session *session, float *features) {
  DLI_TRY(require_run(session, __func__));
  DLI_REQUIRE(features);
  dli_session_early(session, features);
  return DLORA_OK;
}
