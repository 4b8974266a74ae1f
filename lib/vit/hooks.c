/* Calls of a caller's additions at a projection: forward y += hook(x), backward dx += hook'(dy). The learner's
 * adapters, the sums B A h of equation (1), enter here.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/vit.h"

void dli_block_hook(const struct dli_block_call *call, int32_t projection, size_t image, const float *in, size_t rows,
                    size_t ldin, size_t rows_per_image, float *out, size_t ldout) {
  const struct dli_vit_hooks *hooks = call->hooks;
  if (!hooks) return;
  hooks->forward(hooks->user, call->index, projection, call->workspace->at + image, in, rows, ldin, rows_per_image, out,
                 ldout);
  dli_profile_lap(&call->workspace->profile, DLI_HOOKS);
}

void dli_block_hook_backward(const struct dli_block_call *call, int32_t projection, const float *in, size_t rows,
                             size_t ldin, const float *d_out, size_t ld_d_out, float *d_in, size_t ld_d_in) {
  const struct dli_vit_hooks *hooks = call->hooks;
  if (!hooks) return;
  hooks->backward(hooks->user, call->index, projection, in, rows, ldin, d_out, ld_d_out, d_in, ld_d_in);
  dli_profile_lap(&call->workspace->profile, DLI_HOOKS);
}
