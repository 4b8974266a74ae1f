/* Early features: what statistics of several layers see of the tokens between two blocks. METHOD.md 6 and 7.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "vit/vit.h"

/* The prefix tokens other than the class token carry no part of the image and are left out. */
void dli_vit_early(const struct dli_vit *vit, const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                   const float *x, size_t images, float *out) {
  const size_t dim = vit->dim, first = vit->num_prefix_tokens, patches = vit->tokens - first;
  float *row = workspace->shared.h1;
  for (size_t i = 0; i < images; i++) {
    float *other = out + i * 2 * dim, *mean = other + dim;
    kernels->layer_norm(dli_const_view(x + i * vit->tokens * dim, vit->tokens, dim, dim), NULL, NULL, vit->eps,
                        dli_view(row, vit->tokens, dim, dim), NULL, NULL);
    if (vit->has_class_token) memcpy(other, row, dim * sizeof *other);
    for (size_t j = 0; j < dim; j++) {
      double sum = 0.0, squares = 0.0;
      for (size_t t = first; t < vit->tokens; t++) sum += (double)row[t * dim + j];
      const double average = sum / (double)patches;
      mean[j] = (float)average;
      if (vit->has_class_token) continue;
      for (size_t t = first; t < vit->tokens; t++) {
        const double from_mean = (double)row[t * dim + j] - average;
        squares += from_mean * from_mean;
      }
      other[j] = (float)sqrt(squares / (double)patches);
    }
  }
  dli_profile_lap(&workspace->profile, DLI_NORMS);
}
