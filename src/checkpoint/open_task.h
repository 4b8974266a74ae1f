/* The open task as tensors "training.<...>" of a learner's file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_CHECKPOINT_OPEN_TASK_H
#define DLI_SRC_CHECKPOINT_OPEN_TASK_H

#include <stdbool.h>

#include "src/checkpoint/format.h"

/* The tensors borrow the learner's memory and the record, which is NULL or to be freed whatever is returned. */
struct dli_task_record;
dlora_status dli_task_write(const dlora_learner *learner, struct dli_writer *writer, struct dli_task_record **record);
void dli_task_record_free(const dlora_learner *learner, struct dli_task_record *record);
/* checkpoint/checkpoint.c: evidence as the tensors "<prefix>.num_images" and "<prefix>.log_likelihood". Without them
 * reading leaves it as it is. */
dlora_status dli_evidence_write(const struct dli_blend_evidence *evidence, struct dli_writer *writer,
                                const char *prefix);
dlora_status dli_evidence_read(struct dli_blend_evidence *evidence, const struct dli_tensors *tensors,
                               const char *prefix);
/* Whether a checkpoint holds an open task. */
bool dli_task_is_open(const struct dli_tensors *tensors);
/* Opens it in a learner that has been read so far; a failure leaves none open. */
dlora_status dli_task_read(dlora_learner *learner, const struct dli_tensors *tensors,
                           const struct dli_checkpoint_names *names);

#endif
