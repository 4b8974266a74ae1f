/* Calls of a caller's additions at a projection: forward y += hook(x), backward dx += hook'(dy). The learner's
 * adapters, the sums B A h of equation (1), enter here.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"
#include "vit/vit.h"

void dli_block_hook(const struct dli_block_call *call, int32_t projection, size_t image, struct dli_const_matrix in,
                    size_t rows_per_image, struct dli_matrix out) {
  const struct dli_vit_hooks *hooks = call->hooks;
  if (!hooks) return;
  DLI_ASSERT(in.rows == out.rows && in.rows % rows_per_image == 0);
  hooks->forward(hooks->user, call->index, projection, call->workspace->at + image, in, rows_per_image, out);
  dli_profile_lap(&call->workspace->profile, DLI_HOOKS);
}

void dli_block_hook_backward(const struct dli_block_call *call, int32_t projection, struct dli_const_matrix in,
                             struct dli_const_matrix d_out, struct dli_matrix d_in) {
  const struct dli_vit_hooks *hooks = call->hooks;
  if (!hooks) return;
  DLI_ASSERT(in.rows == d_out.rows && (!d_in.x || (d_in.rows == in.rows && d_in.cols == in.cols)));
  hooks->backward(hooks->user, call->index, projection, in, d_out, d_in);
  dli_profile_lap(&call->workspace->profile, DLI_HOOKS);
}
