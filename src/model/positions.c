/* A model whose positions are resampled by the other rule: R P + b with the R of timm in place of Hugging Face's, or
 * the reverse (lib/vit/positions.c). Everything else is the model's own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"
#include "base/status.h"
#include "src/model/model.h"

dlora_status dli_model_with_other_positions(dlora_model **out, const dlora_model *model,
                                            const dlora_allocator *allocator) {
  const struct dli_vit *vit = &model->vit;
  const int32_t rule =
      vit->position_resampling == DLORA_POSITIONS_TIMM ? DLORA_POSITIONS_HUGGING_FACE : DLORA_POSITIONS_TIMM;
  dlora_status status = DLORA_OK;
  dlora_model *copy = NULL;
  *out = NULL;
  if (vit->in_file.side == 0 || vit->in_file.side == vit->grid) return DLORA_OK;
  DLI_TRY(DLI_NEW(allocator, copy, 1));
  *copy = *model;
  copy->allocator = *allocator;
  copy->sessions = NULL;
  copy->own_positions = NULL;
  DLI_TRY_DONE(DLI_NEW(allocator, copy->own_positions, vit->grid * vit->grid * vit->dim));
  DLI_TRY_DONE(dli_vit_resample_positions(vit, rule, allocator, copy->own_positions));
  copy->vit.positions = copy->own_positions;
  copy->vit.position_resampling = rule;
  copy->settings.options.position_resampling = rule;
  dli_vit_fingerprint(&copy->vit);
  *out = copy;
  copy = NULL;
done:
  dli_model_free_copy(copy);
  return status;
}

void dli_model_free_copy(dlora_model *copy) {
  if (!copy) return;
  const dlora_allocator allocator = copy->allocator;
  dli_free(&allocator, copy->own_positions);
  dli_free(&allocator, copy);
}
