#include "nn/attention.h"

#include <math.h>

#include "linalg/matrix.h"

void dli_attention(const struct dli_kernels *kernels, const float *qkv, size_t tokens, size_t queries, size_t dim,
                   size_t heads, int keep, float *probabilities, float *out) {
  const size_t width = dim / heads, ld = 3 * dim;
  const float scale = 1.0f / sqrtf((float)width);
  for (size_t h = 0; h < heads; h++) {
    const float *q = qkv + h * width, *k = q + dim, *v = k + dim;
    float *p = probabilities + (keep ? h * queries * tokens : 0);
    dli_gemm_nt(queries, tokens, width, 1.0f, q, ld, k, ld, 0.0f, p, tokens);
    kernels->softmax(p, queries, tokens, scale);
    dli_gemm_nn(queries, width, tokens, 1.0f, p, tokens, v, ld, 0.0f, out + h * width, dim);
  }
}

void dli_attention_backward(const struct dli_kernels *kernels, const float *qkv, size_t tokens, size_t queries,
                            size_t dim, size_t heads, const float *probabilities, const float *d_out, float *scratch,
                            float *d_qkv) {
  const size_t width = dim / heads, ld = 3 * dim;
  const float scale = 1.0f / sqrtf((float)width);
  for (size_t h = 0; h < heads; h++) {
    const float *q = qkv + h * width, *k = q + dim, *v = k + dim;
    float *dq = d_qkv + h * width, *dk = dq + dim, *dv = dk + dim;
    const float *p = probabilities + h * queries * tokens, *d = d_out + h * width;
    dli_gemm_nt(queries, tokens, width, 1.0f, d, dim, v, ld, 0.0f, scratch, tokens);
    dli_gemm_tn(tokens, width, queries, 1.0f, p, tokens, d, dim, 0.0f, dv, ld);
    kernels->softmax_backward(p, queries, tokens, scale, scratch);
    dli_gemm_nn(queries, width, tokens, 1.0f, scratch, tokens, k, ld, 0.0f, dq, ld);
    dli_gemm_tn(tokens, width, queries, 1.0f, scratch, tokens, q, ld, 0.0f, dk, ld);
  }
}
