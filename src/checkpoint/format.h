/* The format of a learner's file: duallora.learner.2, and what differs in duallora.learner.1, which is read too.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_CHECKPOINT_FORMAT_H
#define DLI_SRC_CHECKPOINT_FORMAT_H

#include "duallora/duallora.h"
#include "io/safetensors.h"
#include "src/learner/learner.h"

/* Prefixes of tensor names. */
struct dli_checkpoint_names {
  const char *statistics[DLI_NUM_STATISTICS]; /* NULL: their name in dli_statistics_info */
  const char *used;                           /* of projectors: "<used>.<block>.<input>" */
};
const char *dli_checkpoint_statistics_name(const struct dli_checkpoint_names *names, enum dli_statistics_kind kind);
/* Of files that are written now. */
extern const struct dli_checkpoint_names dli_names_now;
/* Of the file's format. Error: FORMAT where that is none of the two. */
dlora_status dli_checkpoint_names(const struct dli_tensors *tensors, const struct dli_checkpoint_names **out);

/* Options, by name: metadata option.<name>, each as dlora_learner_options_get gives it. */
dlora_status dli_options_write(const dlora_learner_options *options, struct dli_writer *writer);
/* An option that the file does not hold keeps its default. Errors: UNSUPPORTED where it holds one that this library
 * does not know; FORMAT. */
dlora_status dli_options_load(const struct dli_tensors *tensors, dlora_learner_options *out);

#endif
