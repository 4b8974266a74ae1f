/* What follows from a learner's options and its model: widths of features and inputs, images of a micro-batch.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/threads.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"

size_t dli_learner_max_batch(const dlora_learner *learner, int training, size_t count) {
  const dlora_learner_options *o = &learner->options;
  const struct dli_vit *vit = &learner->model->vit;
  /* Where the BLAS has threads of its own, one thread of ours runs all images. */
  const size_t threads = dli_blas_runs_inside_threads() ? learner->threads : 1;
  size_t images = o->micro_batch > 0 ? (size_t)o->micro_batch * threads : dli_session_micro_batch(vit, threads, 0);
  if (o->micro_batch < 0 && training) {
    /* What a training pass keeps of an image (lib/vit/workspace.c), held to about 256 MiB over all threads: more rows
     * than that make products hardly faster. Products that need not arrange the weights first are fast with few rows,
     * and then the rest gains from activations that are still in a cache. In bfloat16 they are so fast that fetching
     * weights takes longer unless two or three images share them. */
    size_t width = 5 * vit->dim + vit->fc1_dim;
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

int dli_learner_trains(const dlora_learner *learner) {
  return learner->options.rank_orthogonal > 0 || learner->options.rank_residual > 0;
}

size_t dli_widest_input(const dlora_learner *learner) {
  const struct dli_vit *vit = &learner->model->vit;
  return (learner->options.sites & DLORA_SITE_FC2) && vit->mlp_dim > vit->dim ? vit->mlp_dim : vit->dim;
}
