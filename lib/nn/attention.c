/* Multi-head self-attention in float32: divides queries, keys and values into heads of width dim / heads and hands each
 * head to the kernel of the instruction set.
 * SPDX-License-Identifier: Apache-2.0 */
#include "nn/attention.h"

#include <math.h>

#include "base/assert.h"

static size_t padded(size_t count) {
  return (count + DLI_ATTENTION_LANES - 1) / DLI_ATTENTION_LANES * DLI_ATTENTION_LANES;
}

size_t dli_attention_scratch(size_t tokens, size_t dim, size_t heads, int backward) {
  const size_t width = dim / heads, columns = padded(tokens), wide = padded(width);
  const size_t block = DLI_ATTENTION_ROWS * wide, operands = width * columns + tokens * wide;
  if (backward) return operands + 2 * tokens * wide + tokens * columns + block;
  return operands + DLI_ATTENTION_ROWS * columns + block;
}

static struct dli_attention_head head_of(const struct dli_qkv *in, size_t tokens, size_t queries, size_t dim,
                                         size_t heads, size_t index) {
  DLI_ASSERT(dim % heads == 0 && queries <= tokens && in->ld >= dim);
  const size_t width = dim / heads, first = index * width;
  return (struct dli_attention_head){in->q + first, in->k + first, in->v + first, queries,
                                     tokens,        width,         in->ld,        1.0f / sqrtf((float)width)};
}

void dli_attention(const struct dli_kernels *kernels, const struct dli_qkv *in, size_t tokens, size_t queries,
                   size_t dim, size_t heads, float *probabilities, float *out, float *scratch) {
  for (size_t h = 0; h < heads; h++) {
    const struct dli_attention_head head = head_of(in, tokens, queries, dim, heads, h);
    kernels->attention_head(&head, probabilities ? probabilities + h * queries * tokens : NULL, out + h * head.width,
                            dim, scratch);
  }
}

void dli_attention_backward(const struct dli_kernels *kernels, const struct dli_qkv *in, size_t tokens, size_t queries,
                            size_t dim, size_t heads, const float *probabilities, const float *d_out,
                            const struct dli_qkv *d_in, float *scratch) {
  DLI_ASSERT(d_in->ld == in->ld);
  for (size_t h = 0; h < heads; h++) {
    const struct dli_attention_head head = head_of(in, tokens, queries, dim, heads, h);
    const size_t first = h * head.width;
    kernels->attention_head_backward(&head, probabilities + h * queries * tokens, d_out + first, dim, d_in->q + first,
                                     d_in->k + first, d_in->v + first, scratch);
  }
}
