/* Multi-head self-attention of one image, forward and backward. Each head has dim / heads columns. Only the first
 * `queries` tokens have queries: all tokens, or the class token alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_NN_ATTENTION_H
#define DLI_NN_ATTENTION_H

#include <stdbool.h>

#include "linalg/packed.h"
#include "nn/kernels.h"
#include "nn/kernels_bfloat16.h"

/* Queries, keys and values of an image, or their gradients: rows [tokens, dim] that are ld apart. */
struct dli_qkv {
  float *q, *k, *v;
  size_t ld;
};

/* tokens: of the image, of which the first `queries` have queries. */
struct dli_attention_shape {
  size_t tokens, queries, dim, heads;
};

/* Floats of scratch for a forward pass, or for forward and backward, with any number of queries. */
size_t dli_attention_scratch(size_t tokens, size_t dim, size_t heads, bool backward);
/* out: [queries, dim]. probabilities: [heads, queries, tokens] kept for the backward pass, or NULL. */
void dli_attention(const struct dli_kernels *kernels, const struct dli_attention_shape *shape, const struct dli_qkv *in,
                   float *probabilities, float *out, float *scratch);
/* d_in from d_out [queries, dim], with the ld of `in`. Rows of d_in->q beyond the queries are left untouched. */
void dli_attention_backward(const struct dli_kernels *kernels, const struct dli_attention_shape *shape,
                            const struct dli_qkv *in, const float *probabilities, const float *d_out,
                            const struct dli_qkv *d_in, float *scratch);

/* The same for queries of all tokens, with factors of products rounded to bfloat16. Softmax and sums are float32. */
size_t dli_attention_bfloat16_scratch(size_t tokens, size_t dim, size_t heads, bool backward);
/* Floats kept for the backward pass: exponentials in bfloat16, and the factors that turn them into probabilities. */
size_t dli_attention_bfloat16_kept(size_t tokens, size_t heads);
/* Rows [row, row + tokens) of a matrix [rows, dim] in slabs. */
struct dli_slab_rows {
  uint16_t *values;
  size_t rows, row;
};
/* The result goes to out or to slabs; the other one is NULL. kept may be NULL. */
void dli_attention_bfloat16(const struct dli_kernels_bfloat16 *kernels, struct dli_products *products,
                            const struct dli_attention_shape *shape, const struct dli_qkv *in, float *kept, float *out,
                            const struct dli_slab_rows *slabs, float *scratch);
void dli_attention_bfloat16_backward(const struct dli_kernels_bfloat16 *kernels, struct dli_products *products,
                                     const struct dli_attention_shape *shape, const struct dli_qkv *in,
                                     const float *kept, const float *d_out, const struct dli_qkv *d_in, float *scratch);

#endif
