/* Forward and backward of a model with a bank on one micro-batch. */
#include "src/pass.h"

#include <string.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/bank.h"

static size_t projection_index(int32_t projection) {
  size_t index = 0;
  while (projection >> (index + 1)) index++;
  return index;
}

int32_t dli_input_of(int32_t projection) {
  switch (projection) {
    case DLORA_SITE_OUTPUT:
      return DLORA_INPUT_OUTPUT;
    case DLORA_SITE_FC1:
      return DLORA_INPUT_FC1;
    case DLORA_SITE_FC2:
      return DLORA_INPUT_FC2;
    default:
      return DLORA_INPUT_ATTENTION;
  }
}

size_t dli_pass_micro_batch(const struct dli_vit *vit, size_t threads, size_t count) {
  /* About 1000 rows a product: enough for the BLAS to run at its rate, small enough to stay near the caches. */
  size_t images = (1000 + vit->tokens - 1) / vit->tokens * threads;
  if (count && images > count) images = count;
  return images;
}

dlora_status dlora_pass_options_init(dlora_pass_options *options, size_t size) {
  const dlora_pass_options defaults = DLORA_PASS_OPTIONS_INIT;
  return dli_struct_write("dlora_pass_options", options, size, &defaults, sizeof defaults);
}

dlora_status dli_pass_create(dlora_pass **out, const dlora_model *model, struct dli_deployed *deployed,
                             size_t first_block, size_t max_batch, size_t threads, int training,
                             const dlora_allocator *allocator) {
  const struct dli_vit *vit = &model->vit;
  dlora_status status = DLORA_OK;
  dlora_pass *pass;
  if (!max_batch) max_batch = 1;
  const size_t allowed = threads;
  /* Where the BLAS has threads of its own, products from several threads would fight for them. */
  if (!dli_blas_runs_inside_threads()) threads = 1;
  if (threads > max_batch) threads = max_batch;
  DLI_TRY(DLI_NEW(allocator, pass, 1));
  pass->allocator = *allocator;
  pass->model = model;
  pass->deployed = deployed;
  pass->bank = deployed ? deployed->bank : NULL;
  pass->first_block = first_block;
  pass->lowest_input = DLORA_INPUT_FC2;
  pass->max_batch = max_batch;
  pass->allowed = allowed;
  pass->training = training;
  DLI_TRY_DONE(DLI_NEW(allocator, pass->site_of, 6 * vit->depth));
  unsigned inputs = pass->bank ? 0 : ~0u; /* that are kept; without sites one cannot know what will be asked for */
  for (size_t i = 0; pass->bank && i < pass->bank->num_sites; i++) {
    const dlora_site *site = &pass->bank->sites[i];
    pass->site_of[6 * (size_t)site->block + projection_index(site->projection)] = i + 1;
    const int32_t input = dli_input_of(site->projection);
    if ((size_t)site->block == first_block && input < pass->lowest_input) pass->lowest_input = input;
    inputs |= 1u << input;
  }
  DLI_TRY_DONE(DLI_NEW(allocator, pass->features, max_batch * vit->dim));
  DLI_TRY_DONE(DLI_NEW(allocator, pass->shares, threads));
  for (pass->threads = 0; pass->threads < threads; pass->threads++) {
    struct dli_pass_share *share = &pass->shares[pass->threads];
    share->pass = pass;
    status = dli_vit_workspace_create(&share->workspace, vit, (max_batch + threads - 1) / threads, first_block,
                                      training, inputs, allocator);
    if (status == DLORA_OK)
      status = dli_image_plan_create(&share->plan, allocator, vit->image_size, vit->mean, vit->std);
    if (status != DLORA_OK) {
      pass->threads++; /* what this one has so far is released with the others */
      goto done;
    }
  }
  DLI_TRY_DONE(dli_pass_reserve(pass));
  *out = pass;
done:
  if (status != DLORA_OK) dlora_pass_destroy(pass);
  return status;
}

dlora_status dlora_pass_create(dlora_pass **out, const dlora_model *model, const dlora_bank *bank,
                               const dlora_pass_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(model);
  dlora_pass_options known = DLORA_PASS_OPTIONS_INIT;
  dlora_allocator allocator;
  DLI_TRY(dli_options_read("dlora_pass_options", &known, sizeof known, options));
  DLI_TRY(dli_allocator_read(&allocator, known.allocator));
  if (!known.max_batch || known.max_batch > INT32_MAX / model->vit.tokens) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_pass_create: max_batch is %zu, expected 1 to %zu", known.max_batch,
                     INT32_MAX / model->vit.tokens);
  }
  if (known.threads > 1 << 12) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_pass_create: threads is %zu, expected at most 4096", known.threads);
  }
  struct dli_deployed *deployed = NULL;
  size_t first = model->vit.depth / 2;
  if (bank) {
    DLI_TRY(dli_deployed_create(&deployed, model, bank, known.training, &allocator));
    first = model->vit.depth;
    for (size_t i = 0; i < bank->num_sites; i++) {
      if ((size_t)bank->sites[i].block < first) first = (size_t)bank->sites[i].block;
    }
  }
  const size_t threads = known.threads ? known.threads : dli_threads_available();
  const dlora_status status =
      dli_pass_create(out, model, deployed, first, known.max_batch, threads, known.training != 0, &allocator);
  if (status != DLORA_OK) {
    dli_deployed_destroy(deployed);
  } else {
    (*out)->owns_deployed = 1;
  }
  return status;
}

void dlora_pass_destroy(dlora_pass *pass) {
  if (!pass) return;
  const dlora_allocator allocator = pass->allocator;
  if (pass->attached) pass->detach(pass->attached);
  for (size_t i = 0; i < pass->threads; i++) {
    struct dli_pass_share *share = &pass->shares[i];
    dli_vit_workspace_release(&share->workspace, &allocator);
    dli_image_plan_destroy(share->plan);
    dli_free(&allocator, share->scratch);
    dli_free(&allocator, share->gradients);
    dli_free(&allocator, share->relevance);
  }
  if (pass->owns_deployed) dli_deployed_destroy(pass->deployed);
  dli_free(&allocator, pass->shares);
  dli_free(&allocator, pass->site_of);
  dli_free(&allocator, pass->features);
  dli_free(&allocator, pass);
}

size_t dlora_pass_workspace_size(const dlora_pass *pass) {
  size_t bytes = 0;
  for (size_t i = 0; pass && i < pass->threads; i++) bytes += dli_vit_workspace_bytes(&pass->shares[i].workspace);
  return bytes;
}

/* ---- input ---- */

dlora_status dli_images_part(const dlora_images *images, size_t first, size_t count, dlora_images *out,
                             const char *caller) {
  size_t image;
  const size_t channels = images->u8 ? (images->channels ? images->channels : 3) : 3;
  if (!images->count || !images->height || !images->width || !dli_multiply(&image, images->height, images->width) ||
      !dli_multiply(&image, image, channels * sizeof(float)) || !dli_multiply(&image, image, images->count)) {
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

/* Runs shares side by side. Many threads of a program may use passes at once: a product must not start more threads
 * than this one was given. */
static void share_out(const dlora_pass *pass, void (*run)(size_t begin, size_t end, size_t index, void *user),
                      void *user) {
  const int before = dli_threads_enter(pass->allowed);
  dli_parallel_for(pass->threads, pass->count, run, user);
  dli_threads_leave(before);
}

struct load_call {
  dlora_pass *pass;
  const dlora_images *images;
  const struct dli_augment *augment;
};

static void load_share(size_t begin, size_t end, size_t index, void *user) {
  const struct load_call *c = user;
  struct dli_pass_share *share = &c->pass->shares[index];
  const struct dli_vit *vit = &c->pass->model->vit;
  share->first = begin;
  dli_profile_start(&share->workspace.profile);
  for (size_t i = begin; i < end; i++) {
    dli_image_plan_run(share->plan, c->images, i, c->augment ? &c->augment[i] : NULL, share->workspace.input);
    dli_vit_embed_image(vit, &share->workspace, i - begin);
  }
  dli_profile_lap(&share->workspace.profile, DLI_PREPROCESSING);
  dli_vit_forward_trunk(vit, c->pass->model->kernels, &share->workspace, end - begin);
}

dlora_status dli_pass_load(dlora_pass *pass, const dlora_images *images, const struct dli_augment *augment,
                           const char *caller) {
  for (size_t i = 0; i < pass->threads; i++) {
    /* Each share plans for the image size of bytes; floats are only checked, and once is enough. */
    if (!i || images->u8) DLI_TRY(dli_image_plan_prepare(pass->shares[i].plan, images, caller));
  }
  pass->count = images->count;
  pass->ran = 0;
  struct load_call call = {pass, images, augment};
  share_out(pass, load_share, &call);
  return DLORA_OK;
}

/* ---- hooks ---- */

static const size_t *site_at(const dlora_pass *pass, size_t block, int32_t projection) {
  const size_t *site = &pass->site_of[6 * block + projection_index(projection)];
  return *site ? site : NULL;
}

/* Relevance by energy of each image's class token, the first of its rows. */
static const float *relevance_of(struct dli_pass_share *share, size_t block, int32_t projection, size_t image,
                                 const float *in, size_t rows, size_t ldin, size_t rows_per_image) {
  const struct dli_pass_mode *mode = share->mode;
  const size_t tasks = share->pass->bank->num_tasks;
  if (mode->relevance) return mode->relevance + (share->first + image) * tasks;
  if (!mode->energy) return NULL;
  const dlora_projector *memory = mode->energy[4 * block + (size_t)dli_input_of(projection)];
  if (!memory) return NULL;
  for (size_t i = 0; i < rows / rows_per_image; i++) {
    float *w = share->relevance + i * tasks;
    const dlora_status status = dlora_projector_relevance(memory, in + i * rows_per_image * ldin, 1, w);
    if (status != DLORA_OK) {
      memset(w, 0, tasks * sizeof *w);
      share->status = status;
    }
  }
  return share->relevance;
}

static void hook_forward(void *user, size_t block, int32_t projection, size_t image, const float *in, size_t rows,
                         size_t ldin, size_t rows_per_image, float *out, size_t ldout) {
  struct dli_pass_share *share = user;
  const size_t *site = site_at(share->pass, block, projection);
  if (!site) return;
  const float *relevance = relevance_of(share, block, projection, image, in, rows, ldin, rows_per_image);
  dli_bank_forward(share->pass->bank, share->pass->model->vit.bfloat16, *site - 1, in, rows, ldin,
                   share->mode->terms & ~DLORA_TERM_MERGED, relevance, rows_per_image, out, ldout, share->scratch);
}

static void hook_backward(void *user, size_t block, int32_t projection, const float *in, size_t rows, size_t ldin,
                          const float *d_out, size_t ld_d_out, float *d_in, size_t ld_d_in) {
  struct dli_pass_share *share = user;
  const size_t *site = site_at(share->pass, block, projection);
  if (!site) return;
  dli_bank_backward(share->pass->bank, share->pass->model->vit.bfloat16, *site - 1, in, rows, ldin, d_out, ld_d_out,
                    share->mode->terms & ~DLORA_TERM_MERGED, d_in, ld_d_in, share->gradients, share->scratch);
}

/* ---- passes ---- */

dlora_status dli_pass_reserve(dlora_pass *pass) {
  const dlora_bank *bank = pass->bank;
  if (!bank) return DLORA_OK;
  const size_t rank = dli_bank_max_rank(bank), gradients = bank->count + bank->extra;
  const struct dli_vit *vit = &pass->model->vit;
  const size_t thin = !vit->bfloat16 ? 0 : vit->mlp_dim > vit->dim ? vit->mlp_dim : vit->dim;
  const dlora_allocator *allocator = &pass->allocator;
  const int more_scratch = rank > pass->scratch_rank, more_tasks = bank->num_tasks > pass->relevance_tasks;
  const int more_gradients = pass->training && gradients > pass->gradient_capacity;
  /* Until all shares have the new sizes the capacities say 0, so that a failure half-way is mended by the next call. */
  if (more_scratch) pass->scratch_rank = 0;
  if (more_tasks) pass->relevance_tasks = 0;
  if (more_gradients) pass->gradient_capacity = 0;
  for (size_t i = 0; i < pass->threads; i++) {
    struct dli_pass_share *share = &pass->shares[i];
    const size_t images = share->workspace.max_images;
    if (more_scratch) {
      dli_free(allocator, share->scratch);
      DLI_TRY(DLI_NEW(allocator, share->scratch, 2 * rank * (images * vit->tokens + thin)));
    }
    if (more_tasks) {
      dli_free(allocator, share->relevance);
      DLI_TRY(DLI_NEW(allocator, share->relevance, images * bank->num_tasks));
    }
    if (more_gradients) {
      dli_free(allocator, share->gradients);
      DLI_TRY(DLI_NEW(allocator, share->gradients, gradients));
    }
  }
  if (more_scratch) pass->scratch_rank = rank;
  if (more_tasks) pass->relevance_tasks = bank->num_tasks;
  if (more_gradients) pass->gradient_capacity = gradients;
  return DLORA_OK;
}

struct upper_call {
  dlora_pass *pass;
  float *out; /* features */
  const float *d_features;
};

static const struct dli_vit_block *blocks_of(const dlora_pass *pass) {
  return pass->bank && (pass->last.terms & DLORA_TERM_MERGED) ? pass->deployed->blocks : pass->model->vit.blocks;
}

static void upper_share(size_t begin, size_t end, size_t index, void *user) {
  const struct upper_call *c = user;
  const dlora_pass *pass = c->pass;
  struct dli_pass_share *share = &c->pass->shares[index];
  const struct dli_vit *vit = &pass->model->vit;
  share->status = DLORA_OK;
  if (begin == end) return;
  share->mode = &pass->last;
  const struct dli_vit_hooks hooks = {share, hook_forward, hook_backward};
  share->workspace.middle = pass->last.middle ? pass->last.middle + begin * 2 * vit->dim : NULL;
  share->workspace.middle_block = pass->last.middle_block;
  dli_vit_forward_upper(vit, blocks_of(pass), pass->model->kernels, &share->workspace, pass->bank ? &hooks : NULL,
                        c->out + begin * vit->dim);
}

dlora_status dli_pass_upper(dlora_pass *pass, const struct dli_pass_mode *mode, float *features) {
  pass->last = *mode;
  pass->ran = 1;
  pass->gated = mode->relevance || mode->energy;
  struct upper_call call = {pass, features ? features : pass->features, NULL};
  share_out(pass, upper_share, &call);
  pass->last.relevance = NULL; /* the caller's arrays may be gone by the backward pass, which never needs them */
  pass->last.middle = NULL;
  for (size_t i = 0; mode->energy && i < pass->threads; i++) {
    const dlora_status status = pass->shares[i].status;
    /* The sentence was raised in the share's own thread. */
    if (status != DLORA_OK) {
      return dli_raise(status, "relevance by energy could not be computed%s",
                       status == DLORA_ERR_NO_MEMORY ? ": no memory" : "");
    }
  }
  return DLORA_OK;
}

void dli_pass_early(dlora_pass *pass, float *features) {
  const struct dli_vit *vit = &pass->model->vit;
  for (size_t s = 0; s < pass->threads; s++) {
    struct dli_pass_share *share = &pass->shares[s];
    dli_profile_start(&share->workspace.profile);
    dli_vit_pool(vit, pass->model->kernels, &share->workspace, share->workspace.trunk, share->workspace.images,
                 features + share->first * 2 * vit->dim);
  }
}

static void backward_share(size_t begin, size_t end, size_t index, void *user) {
  const struct upper_call *c = user;
  const dlora_pass *pass = c->pass;
  struct dli_pass_share *share = &c->pass->shares[index];
  memset(share->gradients, 0, pass->bank->count * sizeof *share->gradients);
  if (begin == end) return;
  const struct dli_vit_hooks hooks = {share, hook_forward, hook_backward};
  share->mode = &pass->last;
  dli_vit_backward_upper(&pass->model->vit, blocks_of(pass), pass->model->kernels, &share->workspace, &hooks,
                         pass->lowest_input, c->d_features + begin * pass->model->vit.dim);
}

void dli_pass_backward(dlora_pass *pass, const float *d_features, float *gradients) {
  struct upper_call call = {pass, NULL, d_features};
  share_out(pass, backward_share, &call);
  /* in the order of the threads, so that the sum can be repeated bit by bit */
  dli_profile_start(&pass->shares[0].workspace.profile);
  for (size_t i = 0; i < pass->threads; i++) {
    pass->model->kernels->add(pass->shares[i].gradients, pass->bank->count, gradients);
  }
  dli_profile_lap(&pass->shares[0].workspace.profile, DLI_HOOKS);
}

const float *dli_pass_input(const dlora_pass *pass, size_t index, size_t block, int32_t input, size_t *rows,
                            size_t *dim, size_t *rows_per_image) {
  const struct dli_vit *vit = &pass->model->vit;
  const struct dli_vit_workspace *w = &pass->shares[index].workspace;
  const struct dli_block_buffers *b = &w->kept[block];
  const float *const inputs[] = {b->h1, b->o, b->h2, b->g};
  *rows_per_image = input == DLORA_INPUT_ATTENTION ? vit->tokens : dli_vit_queries(vit, block);
  *rows = w->images * *rows_per_image;
  *dim = input == DLORA_INPUT_FC2 ? vit->mlp_dim : vit->dim;
  return inputs[input];
}

/* ---- the public calls ---- */

dlora_status dlora_pass_forward(dlora_pass *pass, const dlora_images *images, int32_t terms, const float *relevance,
                                float *features) {
  DLI_REQUIRE(pass);
  DLI_REQUIRE(images);
  if (!features && !pass->training) return dli_raise(DLORA_ERR_ARGUMENT, "dlora_pass_forward: features is NULL");
  const int32_t open_terms = DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL;
  if (terms & ~(open_terms | DLORA_TERM_MERGED)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_pass_forward: terms is %d, expected DLORA_TERM_... or-ed", terms);
  }
  if ((terms & open_terms) && !(pass->bank && pass->bank->open)) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_pass_forward: terms ask for the current task's pairs, but no task is open");
  }
  dlora_images part;
  DLI_TRY(dli_images_part(images, 0, images->count, &part, __func__));
  if (images->count > pass->max_batch) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_pass_forward: %zu images, the pass was planned for max_batch %zu",
                     images->count, pass->max_batch);
  }
  if (pass->bank) {
    DLI_TRY(dli_deployed_reserve(pass->deployed, pass->bank->merged));
    dli_deployed_update(pass->deployed);
  }
  DLI_TRY(dli_pass_reserve(pass));
  DLI_TRY(dli_pass_load(pass, images, NULL, __func__));
  const struct dli_pass_mode mode = {.terms = terms, .relevance = relevance};
  dli_pass_upper(pass, &mode, features);
  return features ? dli_features_finite(features, images->count, pass->model->vit.dim, __func__) : DLORA_OK;
}

static dlora_status require_run(const dlora_pass *pass, const char *caller) {
  if (!pass) return dli_raise(DLORA_ERR_ARGUMENT, "%s: pass is NULL", caller);
  if (pass->ran) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE, "%s: no forward pass to go by; call dlora_pass_forward first", caller);
}

dlora_status dlora_pass_backward(dlora_pass *pass, dlora_bank *bank, const float *feature_gradients) {
  DLI_TRY(require_run(pass, __func__));
  DLI_REQUIRE(bank);
  DLI_REQUIRE(feature_gradients);
  if (!pass->training) {
    return dli_raise(DLORA_ERR_STATE, "dlora_pass_backward: the pass was created without training");
  }
  if (bank != pass->bank) return dli_raise(DLORA_ERR_MISMATCH, "dlora_pass_backward: this is not the pass's own bank");
  DLI_TRY(dli_bank_require_training(bank, __func__));
  if (pass->gated) {
    return dli_raise(DLORA_ERR_STATE,
                     "dlora_pass_backward: the forward pass had relevance; gradients need it to be NULL");
  }
  DLI_TRY(dli_pass_reserve(pass)); /* pairs may have been set since the forward pass */
  dli_pass_backward(pass, feature_gradients, bank->gradients);
  return DLORA_OK;
}

dlora_status dlora_pass_get_input(const dlora_pass *pass, size_t block, int32_t input, float *values, size_t *rows,
                                  size_t *dim) {
  DLI_TRY(require_run(pass, __func__));
  DLI_REQUIRE(rows);
  DLI_REQUIRE(dim);
  if (!pass->training) {
    return dli_raise(DLORA_ERR_STATE, "dlora_pass_get_input: the pass was created without training");
  }
  if (block < pass->first_block || block >= pass->model->vit.depth || input < DLORA_INPUT_ATTENTION ||
      input > DLORA_INPUT_FC2) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_pass_get_input: block %zu, input %d; expected a block from %zu to %zu",
                     block, (int)input, pass->first_block, pass->model->vit.depth - 1);
  }
  if (!(pass->shares[0].workspace.inputs & 1u << input)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_pass_get_input: no site of the pass's bank reads input %d", (int)input);
  }
  size_t total = 0;
  for (size_t i = 0; i < pass->threads; i++) {
    size_t part, per_image;
    const float *from = dli_pass_input(pass, i, block, input, &part, dim, &per_image);
    if (values) memcpy(values + pass->shares[i].first * per_image * *dim, from, part * *dim * sizeof *values);
    total += part;
  }
  *rows = total;
  return DLORA_OK;
}

dlora_status dlora_pass_get_early_features(dlora_pass *pass, float *features) {
  DLI_TRY(require_run(pass, __func__));
  DLI_REQUIRE(features);
  dli_pass_early(pass, features);
  return DLORA_OK;
}
