/* Multi-head self-attention of one image, forward and backward. qkv: [tokens, 3 * dim], query, key and value side by
 * side, head_dim = dim / heads columns a head. Only the first `queries` tokens ask (all, or the class token alone). */
#ifndef DLI_NN_ATTENTION_H
#define DLI_NN_ATTENTION_H

#include "linalg/packed.h"
#include "nn/kernels.h"
#include "nn/kernels_bfloat16.h"

/* Floats of scratch that forward, or forward and backward, need whatever the number of queries. */
size_t dli_attention_scratch(size_t tokens, size_t dim, size_t heads, int backward);
/* out: [queries, dim]. probabilities: [heads, queries, tokens] kept for the backward pass, or NULL. */
void dli_attention(const struct dli_kernels *kernels, const float *qkv, size_t tokens, size_t queries, size_t dim,
                   size_t heads, float *probabilities, float *out, float *scratch);
/* d_qkv [tokens, 3 * dim] from d_out [queries, dim]; query columns of tokens that do not ask are left untouched. */
void dli_attention_backward(const struct dli_kernels *kernels, const float *qkv, size_t tokens, size_t queries,
                            size_t dim, size_t heads, const float *probabilities, const float *d_out, float *d_qkv,
                            float *scratch);

/* The same of all tokens with factors of products rounded to bfloat16. Softmax and what is summed up stay float32. */
size_t dli_attention_bfloat16_scratch(size_t tokens, size_t dim, size_t heads, int backward);
/* Floats that are kept for the backward pass: exponentials in bfloat16, and what makes them probabilities. */
size_t dli_attention_bfloat16_kept(size_t tokens, size_t heads);
/* kept: or NULL */
void dli_attention_bfloat16(const struct dli_kernels_bfloat16 *kernels, struct dli_products *products, const float *qkv,
                            size_t tokens, size_t dim, size_t heads, float *kept, float *out, float *scratch);
void dli_attention_bfloat16_backward(const struct dli_kernels_bfloat16 *kernels, struct dli_products *products,
                                     const float *qkv, size_t tokens, size_t dim, size_t heads, const float *kept,
                                     const float *d_out, float *d_qkv, float *scratch);

#endif
