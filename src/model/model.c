/* The model handle: a frozen ViT, loaded from a file or from memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * lib/vit reads the weights W and b (METHOD.md 1) and, with packed products, copies them into oneDNN's layout. The
 * handle adds the allocator, the kernels of this processor, and a pool of sessions for dlora_model_embed
 * (src/session/embed.c). */
#include "src/model/model.h"

#include <string.h>

#include "base/memory.h"
#include "base/pool.h"
#include "base/status.h"
#include "base/threads.h"

dlora_status dlora_model_info_init(dlora_model_info *info, size_t size) {
  const dlora_model_info full = {.struct_size = sizeof full};
  return dli_struct_write("dlora_model_info", info, size, &full, sizeof full);
}

dlora_status dlora_model_options_init(dlora_model_options *options, size_t size) {
  const dlora_model_options defaults = DLORA_MODEL_OPTIONS_INIT;
  return dli_struct_write("dlora_model_options", options, size, &defaults, sizeof defaults);
}

/* Takes ownership of the files, also on failure. */
static dlora_status create(dlora_model **out, struct dli_model_files *files, const dlora_model_options *options,
                           const dlora_allocator *allocator) {
  dlora_status status;
  dlora_model *model = dli_alloc(allocator, 1, sizeof *model);
  if (!model) {
    dli_model_files_forget(files);
    dli_tensors_close(files->tensors);
    return DLORA_ERR_NO_MEMORY;
  }
  model->allocator = *allocator;
  model->tensors = files->tensors;
  model->threads = dli_threads_chosen(options->threads);
  model->products = options->products;
  status = dli_pool_create(&model->sessions, allocator);
  if (status == DLORA_OK) status = dli_vit_load(&model->vit, &model->settings, files, options, allocator);
  dli_model_files_forget(files);
  model->kernels = dli_kernels_select(model->vit.rms_norm);
  if (status == DLORA_OK && model->products != DLORA_PRODUCTS_BLAS) {
    status = dli_onednn_open(&model->onednn, model->products == DLORA_PRODUCTS_BFLOAT16, allocator);
    if (status == DLORA_OK) status = dli_vit_pack(&model->vit, model->onednn, allocator);
  }
  if (status != DLORA_OK) {
    dlora_model_destroy(model);
    return status;
  }
  /* Pointers of the caller's, which need not live as long. */
  model->settings.options.allocator = NULL;
  model->settings.options.prefix = NULL;
  model->settings.options.adapter = NULL;
  dli_model_describe_settings(model);
  *out = model;
  return DLORA_OK;
}

static dlora_status read_options(const dlora_model_options *given, dlora_model_options *out,
                                 dlora_allocator *allocator) {
  *out = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
  DLI_TRY(dli_options_read("dlora_model_options", out, sizeof *out, given));
  if (out->threads != DLORA_AUTO && (out->threads < 1 || out->threads > 1 << 12)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_model_options: threads is %d, expected 1 to 4096 or DLORA_AUTO",
                     (int)out->threads);
  }
  if (out->products < DLORA_PRODUCTS_BLAS || out->products > DLORA_PRODUCTS_BFLOAT16) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_model_options: products is %d, expected one of DLORA_PRODUCTS_...",
                     (int)out->products);
  }
  const struct {
    const char *name;
    int32_t value, last;
  } choices[] = {
      {"pool", out->pool, DLORA_POOL_ATTENTION},
      {"activation", out->activation, DLORA_ACTIVATION_SWIGLU},
      {"position_resampling", out->position_resampling, DLORA_POSITIONS_HUGGING_FACE},
      {"resize", out->resize, DLORA_RESIZE_CROP},
      {"interpolation", out->interpolation, DLORA_INTERPOLATION_BILINEAR},
  };
  for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
    if (choices[i].value >= DLORA_AUTO && choices[i].value <= choices[i].last) continue;
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_model_options: %s is %d, expected DLORA_AUTO or 0 to %d",
                     choices[i].name, (int)choices[i].value, (int)choices[i].last);
  }
  if (out->crop_fraction != 0.0f && !(out->crop_fraction >= DLI_LEAST_CROP && out->crop_fraction <= 1.0f)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_model_options: crop_fraction is %g, expected %g to 1, or 0",
                     (double)out->crop_fraction, (double)DLI_LEAST_CROP);
  }
  return dli_allocator_read(allocator, out->allocator);
}

dlora_status dlora_model_load(dlora_model **out, const char *path, const dlora_model_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(path);
  dlora_model_options known;
  dlora_allocator allocator;
  struct dli_model_files files;
  DLI_TRY(read_options(options, &known, &allocator));
  DLI_TRY(dli_model_files_open(&files, path, &allocator));
  return create(out, &files, &known, &allocator);
}

dlora_status dlora_model_load_memory(dlora_model **out, const void *bytes, size_t size,
                                     const dlora_model_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(bytes);
  dlora_model_options known;
  dlora_allocator allocator;
  struct dli_model_files files = {0};
  DLI_TRY(read_options(options, &known, &allocator));
  DLI_TRY(dli_tensors_open_memory(&files.tensors, bytes, size, "model in memory", &allocator));
  return create(out, &files, &known, &allocator);
}

void dlora_model_destroy(dlora_model *model) {
  if (!model) return;
  const dlora_allocator allocator = model->allocator;
  dli_pool_destroy(model->sessions);
  dli_vit_release(&model->vit, &allocator);
  dli_onednn_close(model->onednn);
  dli_tensors_close(model->tensors);
  dli_free(&allocator, model);
}

dlora_status dlora_model_get_info(const dlora_model *model, dlora_model_info *info) {
  DLI_REQUIRE(model);
  DLI_REQUIRE(info);
  const struct dli_vit *vit = &model->vit;
  dlora_model_info full = {
      .struct_size = sizeof full,
      .embed_dim = vit->dim,
      .depth = vit->depth,
      .num_heads = vit->heads,
      .mlp_dim = vit->mlp_dim,
      .patch_size = vit->patch_size,
      .image_size = vit->image_size,
      .num_tokens = vit->tokens,
      .num_parameters = vit->num_parameters,
      .layer_norm_eps = vit->eps,
      .naming = vit->naming,
      .num_prefix_tokens = vit->num_prefix_tokens,
      .pool = vit->pool,
      .activation = vit->activation,
      .position_resampling = vit->position_resampling,
      .resize = vit->resize,
      .interpolation = vit->interpolation,
      .crop_fraction = vit->crop_fraction,
      .products = model->products,
  };
  memcpy(full.mean, vit->mean, sizeof full.mean);
  memcpy(full.std, vit->std, sizeof full.std);
  memcpy(full.fingerprint, vit->fingerprint, sizeof full.fingerprint);
  return dli_struct_write("dlora_model_info", info, info->struct_size, &full, sizeof full);
}
