/* The backbone that a learner in a file belongs to.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_CHECKPOINT_BACKBONE_H
#define DLI_SRC_CHECKPOINT_BACKBONE_H

#include "io/safetensors.h"
#include "src/model/model.h"

dlora_status dli_backbone_write(const dlora_model *model, struct dli_writer *writer);
/* Whether the file's learner was learnt on the model. *own is NULL then, or the model with the positions that it was
 * learnt with, to be used in its place. Errors: FORMAT; MISMATCH, which says what differs. */
dlora_status dli_backbone_find(dlora_model **own, const struct dli_tensors *tensors, const dlora_model *model,
                               const dlora_allocator *allocator);

#endif
