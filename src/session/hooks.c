/* What a session adds at a site: the open task's pairs and, weighted by routing, the residual adapters of finished
 * tasks. METHOD.md 2 and 6.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The transformer calls a hook for every projection of an adapted block (lib/vit/hooks.c). The hook finds the site and
 * its routing weights, and leaves the products to the bank (src/bank/apply.c). */
#include <string.h>

#include "base/memory.h"
#include "src/bank/bank.h"
#include "src/projector/projector.h"
#include "src/session/session.h"
#include "src/session/state.h"

dlora_status dli_session_reserve_routing(dlora_session *session, const dlora_projector *const *energy) {
  size_t bytes = 0;
  for (size_t i = 0; i < dli_num_inputs(session->model); i++) {
    const size_t wanted = energy[i] ? dli_projector_route_scratch(energy[i], 1) : 0;
    if (wanted > bytes) bytes = wanted;
  }
  if (bytes <= session->route_scratch) return DLORA_OK;
  session->route_scratch = 0; /* until every part has it, so that the next call repairs a failure half-way */
  for (size_t i = 0; i < session->threads; i++) {
    struct dli_session_part *part = &session->parts[i];
    dli_free(&session->allocator, part->route_scratch);
    part->route_scratch = dli_alloc(&session->allocator, bytes, 1);
    if (!part->route_scratch) return DLORA_ERR_NO_MEMORY;
  }
  session->route_scratch = bytes;
  return DLORA_OK;
}

static const size_t *site_at(const dlora_session *session, size_t block, int32_t projection) {
  const size_t *site = &session->site_of[dli_projection_index(block, projection)];
  return *site ? site : NULL;
}

/* Routing weights of a part's images: as given by the mode, or by energy of the class token g, which is the first row
 * of each image (METHOD.md 6); else NULL. */
static const float *routing_of(struct dli_session_part *part, size_t block, int32_t projection, size_t image,
                               struct dli_const_matrix in, size_t rows_per_image) {
  const struct dli_session_mode *mode = part->mode;
  const size_t tasks = part->session->bank->num_tasks;
  if (mode->routing) return mode->routing + (part->first + image) * tasks;
  if (!mode->energy) return NULL;
  const dlora_projector *projector = mode->energy[dli_input_index(block, dli_input_of(projection))];
  if (!projector) return NULL;
  for (size_t i = 0; i < in.rows / rows_per_image; i++) {
    float *w = part->routing + i * tasks;
    const dlora_status status =
        dli_projector_route(projector, __func__, in.x + i * rows_per_image * in.ld, 1, part->route_scratch, w);
    if (status != DLORA_OK) {
      memset(w, 0, tasks * sizeof *w);
      part->status = status;
    }
  }
  return part->routing;
}

/* The terms of the running call, without M: the weights contain it. */
static struct dli_bank_call bank_call(const struct dli_session_part *part, size_t site) {
  return (struct dli_bank_call){
      .site = site,
      .terms = part->mode->terms & ~DLORA_TERM_MERGED,
      .thin = part->session->model->vit.bfloat16,
      .scratch = part->scratch,
  };
}

void dli_session_hook_forward(void *user, size_t block, int32_t projection, size_t image, struct dli_const_matrix in,
                              size_t rows_per_image, struct dli_matrix out) {
  struct dli_session_part *part = user;
  const size_t *site = site_at(part->session, block, projection);
  if (!site) return;
  const float *routing = routing_of(part, block, projection, image, in, rows_per_image);
  const struct dli_bank_call call = bank_call(part, *site - 1);
  dli_bank_forward(part->session->bank, &call, in, routing, rows_per_image, out);
}

void dli_session_hook_backward(void *user, size_t block, int32_t projection, struct dli_const_matrix in,
                               struct dli_const_matrix d_out, struct dli_matrix d_in) {
  struct dli_session_part *part = user;
  const size_t *site = site_at(part->session, block, projection);
  if (!site) return;
  const struct dli_bank_call call = bank_call(part, *site - 1);
  dli_bank_backward(part->session->bank, &call, in, d_out, d_in, part->gradients);
}
