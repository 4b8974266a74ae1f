/* Features of the untouched backbone: dlora_model_embed, by sessions without a bank.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"
#include "src/session/pool.h"

dlora_status dlora_model_embed(const dlora_model *model, const dlora_images *images, float *features) {
  DLI_REQUIRE(model);
  DLI_REQUIRE(images);
  DLI_REQUIRE(features);
  dlora_session *session;
  const size_t micro = dli_session_micro_batch(&model->vit, model->threads, images->count);
  DLI_TRY(dli_session_take(&session, model->sessions, model, NULL, model->vit.depth, micro, model->threads));
  dlora_status status = DLORA_OK;
  for (size_t first = 0; status == DLORA_OK && (first < images->count || images->count == 0); first += micro) {
    dlora_images part;
    status = dli_images_part(images, first, micro, &part, __func__);
    if (status == DLORA_OK) status = dli_session_load(session, &part, NULL, __func__);
    if (status == DLORA_OK) {
      const struct dli_session_mode untouched = {0};
      dli_session_upper(session, &untouched, features + first * model->vit.dim);
      status = dli_features_finite(features + first * model->vit.dim, part.count, model->vit.dim, __func__);
    }
  }
  dli_session_give(model->sessions, session);
  return status;
}
