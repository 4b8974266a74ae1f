/* Chooses what of a loaded backbone is pooled.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_VIT_POOL_CHOICE_H
#define DLI_VIT_POOL_CHOICE_H

#include "vit/names.h"
#include "vit/vit.h"

/* Sets vit->pool: the option, or else metadata `pool` or `global_pool`, or else what the tensors imply. Prefix tokens
 * are known. Errors: ARGUMENT or FORMAT where the file does not have what the pool needs; UNSUPPORTED where metadata
 * names another one. */
dlora_status dli_vit_choose_pool(struct dli_vit *vit, const struct dli_vit_names *names,
                                 const dlora_model_options *options);

#endif
