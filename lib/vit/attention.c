/* Attention of one image: in bfloat16 where the model's products are, else in float32. The last block has a single
 * query, which leaves next to nothing to multiply; it stays in float32.
 * SPDX-License-Identifier: Apache-2.0 */
#include "nn/attention.h"

#include "base/assert.h"
#include "vit/vit.h"

static bool in_bfloat16(const struct dli_vit *vit, size_t queries) {
  return vit->bfloat16 && queries == vit->tokens;
}

struct dli_qkv dli_vit_qkv(const struct dli_vit *vit, const struct dli_vit_workspace *ws, float *qkv, bool bfloat16,
                           size_t image) {
  DLI_ASSERT(image < ws->now);
  const size_t ld = bfloat16 ? vit->dim : 3 * vit->dim, rows = ws->now * vit->tokens;
  const size_t step = bfloat16 ? rows * vit->dim : vit->dim;
  float *q = qkv + image * vit->tokens * ld;
  return (struct dli_qkv){q, q + step, q + 2 * step, ld};
}

/* Rotary positions: turns queries and keys of the patches of one image, or back. */
static void rotate(const struct dli_vit *vit, const struct dli_kernels *kernels, const struct dli_qkv *x,
                   size_t queries, bool back) {
  if (!vit->rotation) return;
  const size_t prefix = vit->num_prefix_tokens, patches = vit->tokens - prefix, width = vit->dim / vit->heads;
  const struct dli_rotation rotation = {
      vit->rotation, vit->rotation + patches * (width / 2), vit->heads, width, vit->interleaved, back};
  if (queries == vit->tokens) kernels->rotate(&rotation, dli_view(x->q + prefix * x->ld, patches, vit->dim, x->ld));
  kernels->rotate(&rotation, dli_view(x->k + prefix * x->ld, patches, vit->dim, x->ld));
}

size_t dli_vit_kept_of_attention(const struct dli_vit *vit, size_t queries) {
  if (in_bfloat16(vit, queries)) return dli_attention_bfloat16_kept(vit->tokens, vit->heads);
  return vit->heads * queries * vit->tokens;
}

void dli_vit_attention(const struct dli_vit *vit, const struct dli_kernels *kernels,
                       const struct dli_vit_workspace *workspace, const struct dli_qkv *in, size_t queries, float *kept,
                       float *out, const struct dli_slab_rows *slabs) {
  const struct dli_attention_shape shape = {vit->tokens, queries, vit->dim, vit->heads};
  DLI_ASSERT(queries == 1 || queries == vit->tokens);
  DLI_ASSERT(!out != !slabs && (in_bfloat16(vit, queries) || !slabs));
  rotate(vit, kernels, in, queries, false);
  if (in_bfloat16(vit, queries)) {
    dli_attention_bfloat16(vit->bfloat16, workspace->products, &shape, in, kept, out, slabs, workspace->attention);
  } else {
    dli_attention(kernels, &shape, in, kept, out, workspace->attention);
  }
}

void dli_vit_attention_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                                const struct dli_vit_workspace *workspace, const struct dli_qkv *in, size_t queries,
                                const float *kept, const float *d_out, const struct dli_qkv *d_in) {
  const struct dli_attention_shape shape = {vit->tokens, queries, vit->dim, vit->heads};
  if (in_bfloat16(vit, queries)) {
    dli_attention_bfloat16_backward(vit->bfloat16, workspace->products, &shape, in, kept, d_out, d_in,
                                    workspace->attention);
  } else {
    dli_attention_backward(kernels, &shape, in, kept, d_out, d_in, workspace->attention);
  }
  rotate(vit, kernels, d_in, queries, true);
}
