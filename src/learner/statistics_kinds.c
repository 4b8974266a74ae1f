/* The statistics that a learner keeps: what each kind is of, when it is made and when it goes. METHOD.md 8.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"
#include "src/predictor/predictor.h"

const struct dli_statistics_info dli_statistics_info[DLI_NUM_STATISTICS] = {
    [DLI_BASE] = {.name = "base", .is_trained = true},
    [DLI_ROUTED] = {.name = "routed", .is_trained = true, .is_late = true},
    [DLI_GATE] = {.name = "gate", .is_early = true},
    [DLI_UNTOUCHED] = {.name = "untouched", .is_late = true},
};

bool dli_learner_wants_statistics(const dlora_learner_options *options, enum dli_statistics_kind kind) {
  if (kind == DLI_ROUTED) return options->rank_residual > 0;
  if (kind == DLI_UNTOUCHED) return options->untouched_baseline && (options->rank_orthogonal || options->rank_residual);
  return true;
}

size_t dli_learner_statistics_width(const dlora_learner *learner, enum dli_statistics_kind kind) {
  return dli_statistics_info[kind].is_early ? 2 * learner->model->vit.dim : learner->width;
}

dlora_predictor_options dli_learner_statistics_options(const dlora_learner *learner, enum dli_statistics_kind kind) {
  const int32_t readout = dli_statistics_info[kind].is_early ? DLORA_READOUT_GAUSSIAN : learner->options.readout;
  return dli_predictor_options_of(&learner->options, &learner->allocator, readout);
}

dlora_status dli_learner_create_statistics(dlora_learner *learner) {
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    if (dli_statistics_info[kind].is_late || !dli_learner_wants_statistics(&learner->options, kind)) continue;
    const dlora_predictor_options options = dli_learner_statistics_options(learner, kind);
    DLI_TRY(dlora_predictor_create(&learner->statistics[kind], dli_learner_statistics_width(learner, kind), &options));
  }
  return DLORA_OK;
}

void dli_learner_destroy_statistics(dlora_predictor **statistics) {
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    dlora_predictor_destroy(statistics[kind]);
    statistics[kind] = NULL;
  }
}

dlora_status dli_learner_begin_statistics(dlora_learner *learner) {
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    if (learner->statistics[kind] || !dli_learner_wants_statistics(&learner->options, kind)) continue;
    if (kind == DLI_UNTOUCHED && dli_bank_has_updates(learner->bank)) continue; /* earlier classes cannot be had */
    DLI_TRY(dlora_predictor_clone(&learner->statistics[kind], learner->statistics[DLI_BASE]));
    learner->task->made[kind] = true;
  }
  return DLORA_OK;
}

void dli_learner_discard_statistics(dlora_learner *learner, const bool *made) {
  for (enum dli_statistics_kind kind = 0; kind < DLI_NUM_STATISTICS; kind++) {
    dlora_predictor **predictor = &learner->statistics[kind];
    if (made[kind]) {
      dlora_predictor_destroy(*predictor);
      *predictor = NULL;
    }
    if (*predictor) (void)dlora_predictor_discard_task(*predictor); /* fails only where nothing is open */
  }
}

const dlora_predictor *dli_learner_finished_statistics(const dlora_learner *learner, enum dli_statistics_kind kind) {
  return learner->task && learner->task->made[kind] ? NULL : learner->statistics[kind];
}
