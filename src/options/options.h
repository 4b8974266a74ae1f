/* The learner's options: reading, checking, comparing, and the parts of them that a bank and a predictor take.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_OPTIONS_OPTIONS_H
#define DLI_SRC_OPTIONS_OPTIONS_H

#include <stdbool.h>

#include "duallora/duallora.h"
#include "vit/vit.h"

void dli_learner_options_default(dlora_learner_options *out);
/* base: what the caller's struct does not cover, or all for NULL given; NULL: the defaults. */
dlora_status dli_learner_options_read(const dlora_learner_options *given, const dlora_learner_options *base,
                                      dlora_learner_options *out);
/* vit: whose geometry they must fit; NULL: only what holds for every model. */
dlora_status dli_learner_options_check(const dlora_learner_options *options, const struct dli_vit *vit);
/* Name of the first option that differs and is fixed at creation, or NULL. */
const char *dli_learner_options_difference(const dlora_learner_options *a, const dlora_learner_options *b);
/* Name of the first option that differs, or NULL. same_machine: those of run time are compared too. */
const char *dli_learner_options_task_difference(const dlora_learner_options *a, const dlora_learner_options *b,
                                                bool same_machine);
dlora_bank_options dli_bank_options_of(const dlora_learner_options *options, const dlora_allocator *allocator);
dlora_predictor_options dli_predictor_options_of(const dlora_learner_options *options, const dlora_allocator *allocator,
                                                 int32_t readout);

#endif
