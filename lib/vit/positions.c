/* Position embeddings P [side^2, dim] of a file on the grid in use: p_i = (R P)_i + b, with R the resampling of timm or
 * of Hugging Face along both axes, or the identity where the grids are the same, and b the bias of the patch
 * projection. P is 0 where the file has none.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/status.h"
#include "vit/vit.h"

dlora_status dli_vit_resample_positions(const struct dli_vit *vit, int32_t rule, const dlora_allocator *allocator,
                                        float *out) {
  const size_t grid = vit->grid, dim = vit->dim;
  const struct dli_vit_learnt_positions *in = &vit->in_file;
  if (in->side == 0) {
    memset(out, 0, grid * grid * dim * sizeof *out);
  } else if (in->side == grid) {
    memcpy(out, in->values, grid * grid * dim * sizeof *out);
  } else {
    const enum dli_filter filter = rule == DLORA_POSITIONS_HUGGING_FACE ? DLI_FILTER_FOUR_TAPS : DLI_FILTER_CUBIC;
    DLI_TRY(dli_resample(allocator, filter, in->values, in->side, in->side, dim, grid, grid, out));
  }
  for (size_t i = 0; in->bias && i < grid * grid; i++) {
    for (size_t j = 0; j < dim; j++) out[i * dim + j] += in->bias[j];
  }
  return DLORA_OK;
}
