/* Functions that the files of src/session share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_SESSION_STATE_H
#define DLI_SRC_SESSION_STATE_H

#include "src/session/session.h"

/* session/hooks.c: struct dli_vit_hooks of a part, which is `user`. */
void dli_session_hook_forward(void *user, size_t block, int32_t projection, size_t image, struct dli_const_matrix in,
                              size_t rows_per_image, struct dli_matrix out);
void dli_session_hook_backward(void *user, size_t block, int32_t projection, struct dli_const_matrix in,
                               struct dli_const_matrix d_out, struct dli_matrix d_in);
/* Scratch for routing by energy in every part. Comes before the parts run, so that the number of allocations does not
 * depend on how they overlap. */
dlora_status dli_session_reserve_routing(dlora_session *session, const dlora_projector *const *energy);

#endif
