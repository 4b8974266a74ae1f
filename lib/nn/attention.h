/* Multi-head self-attention of one image, forward and backward. qkv: [tokens, 3 * dim], query, key and value side by
 * side, head_dim = dim / heads columns a head. Only the first `queries` tokens ask (all, or the class token alone). */
#ifndef DLI_NN_ATTENTION_H
#define DLI_NN_ATTENTION_H

#include "nn/kernels.h"

/* out: [queries, dim]. probabilities: [heads, queries, tokens] when keep, else scratch of [queries, tokens]. */
void dli_attention(const struct dli_kernels *kernels, const float *qkv, size_t tokens, size_t queries, size_t dim,
                   size_t heads, int keep, float *probabilities, float *out);
/* d_qkv [tokens, 3 * dim] from d_out [queries, dim]; query columns of tokens that do not ask are left untouched.
 * scratch: [queries, tokens]. */
void dli_attention_backward(const struct dli_kernels *kernels, const float *qkv, size_t tokens, size_t queries,
                            size_t dim, size_t heads, const float *probabilities, const float *d_out, float *scratch,
                            float *d_qkv);

#endif
