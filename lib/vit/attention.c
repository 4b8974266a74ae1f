/* One image's attention, in bfloat16 where products are. A single query, in the last block, has next to nothing to
 * multiply and stays in float32. */
#include "nn/attention.h"

#include "vit/vit.h"

static bool in_bfloat16(const struct dli_vit *vit, size_t queries) {
  return vit->bfloat16 && queries == vit->tokens;
}

size_t dli_vit_kept_of_attention(const struct dli_vit *vit, size_t queries) {
  if (in_bfloat16(vit, queries)) return dli_attention_bfloat16_kept(vit->tokens, vit->heads);
  return vit->heads * queries * vit->tokens;
}

void dli_vit_attention(const struct dli_vit *vit, const struct dli_kernels *kernels,
                       const struct dli_vit_workspace *workspace, const float *qkv, size_t queries, float *kept,
                       float *out) {
  if (in_bfloat16(vit, queries)) {
    dli_attention_bfloat16(vit->bfloat16, workspace->products, qkv, vit->tokens, vit->dim, vit->heads, kept, out,
                           workspace->attention);
  } else {
    dli_attention(kernels, qkv, vit->tokens, queries, vit->dim, vit->heads, kept, out, workspace->attention);
  }
}

void dli_vit_attention_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                                const struct dli_vit_workspace *workspace, const float *qkv, size_t queries,
                                const float *kept, const float *d_out, float *d_qkv) {
  if (in_bfloat16(vit, queries)) {
    dli_attention_bfloat16_backward(vit->bfloat16, workspace->products, qkv, vit->tokens, vit->dim, vit->heads, kept,
                                    d_out, d_qkv, workspace->attention);
  } else {
    dli_attention_backward(kernels, qkv, vit->tokens, queries, vit->dim, vit->heads, kept, d_out, d_qkv,
                           workspace->attention);
  }
}
