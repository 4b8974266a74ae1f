/* Multi-head self-attention in float32: divides queries, keys and values into heads of width dim / heads and hands each
 * head to the kernel of the instruction set.
 * SPDX-License-Identifier: Apache-2.0 */
#include "nn/attention.h"

#include <math.h>

#include "base/assert.h"

static size_t padded(size_t count) {
  return (count + DLI_ATTENTION_LANES - 1) / DLI_ATTENTION_LANES * DLI_ATTENTION_LANES;
}

size_t dli_attention_scratch(size_t tokens, size_t dim, size_t heads, bool backward) {
  const size_t width = dim / heads, columns = padded(tokens), wide = padded(width);
  const size_t block = DLI_ATTENTION_ROWS * wide, operands = width * columns + tokens * wide;
  if (backward) return operands + 2 * tokens * wide + tokens * columns + block;
  return operands + DLI_ATTENTION_ROWS * columns + block;
}

static struct dli_attention_head head_of(const struct dli_attention_shape *shape, const struct dli_qkv *in,
                                         size_t index) {
  DLI_ASSERT(shape->dim % shape->heads == 0 && shape->queries <= shape->tokens && in->ld >= shape->dim);
  const size_t width = shape->dim / shape->heads, first = index * width;
  return (struct dli_attention_head){.q = in->q + first,
                                     .k = in->k + first,
                                     .v = in->v + first,
                                     .queries = shape->queries,
                                     .tokens = shape->tokens,
                                     .width = width,
                                     .ld = in->ld,
                                     .scale = 1.0f / sqrtf((float)width)};
}

void dli_attention(const struct dli_kernels *kernels, const struct dli_attention_shape *shape, const struct dli_qkv *in,
                   float *probabilities, float *out, float *scratch) {
  for (size_t h = 0; h < shape->heads; h++) {
    const struct dli_attention_head head = head_of(shape, in, h);
    kernels->attention_head(&head, probabilities ? probabilities + h * head.queries * head.tokens : NULL,
                            out + h * head.width, shape->dim, scratch);
  }
}

void dli_attention_backward(const struct dli_kernels *kernels, const struct dli_attention_shape *shape,
                            const struct dli_qkv *in, const float *probabilities, const float *d_out,
                            const struct dli_qkv *d_in, float *scratch) {
  DLI_ASSERT(d_in->ld == in->ld);
  for (size_t h = 0; h < shape->heads; h++) {
    const struct dli_attention_head head = head_of(shape, in, h);
    const size_t first = h * head.width;
    kernels->attention_head_backward(&head, probabilities + h * head.queries * head.tokens, d_out + first, shape->dim,
                                     d_in->q + first, d_in->k + first, d_in->v + first, scratch);
  }
}
