/* How much predictions rely on the untouched backbone: the weight w of its posterior in the blend. METHOD.md 8.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two sets of images tell whether learning helps. No adapter was trained on either:
 *
 *   1. All images of a new task, before training. They tell whether what earlier tasks merged helps new classes.
 *   2. The held-out images of a task, after training.
 *
 * Each image adds its log-likelihood under the blend of `base` and `untouched` for w = 0, 0.1, ... 1
 * (predictor/blend.c). The sums are all that is kept. The weight in force is the posterior mean of w over these values
 * under a flat prior, rounded to 0.1: sharp evidence gives 0 or 1, and then only one network runs. */
#include <math.h>

#include "base/status.h"
#include "src/bank/bank.h"
#include "src/learner/learner.h"

dlora_status dli_learner_add_evidence(const dlora_learner *learner, const dlora_predictor *base, bool held_out,
                                      struct dli_blend_evidence *evidence) {
  const dlora_predictor *untouched = learner->statistics[DLI_UNTOUCHED];
  if (!untouched) return DLORA_OK;
  return dli_predictor_blend_evidence(base, untouched, held_out, evidence);
}

/* A multiple of 0.1. */
static double evidence_weight(const struct dli_blend_evidence *evidence) {
  double best = evidence->log_likelihood[0], sum = 0.0, mean = 0.0;
  for (size_t k = 1; k < DLI_BLEND_WEIGHTS; k++) best = fmax(best, evidence->log_likelihood[k]);
  for (size_t k = 0; k < DLI_BLEND_WEIGHTS; k++) {
    const double weight = (double)k / (DLI_BLEND_WEIGHTS - 1), mass = exp(evidence->log_likelihood[k] - best);
    sum += mass;
    mean += mass * weight;
  }
  return round(mean / sum * (DLI_BLEND_WEIGHTS - 1)) / (DLI_BLEND_WEIGHTS - 1);
}

double dli_learner_untouched_weight(const dlora_learner *learner, const struct dli_blend_evidence *evidence) {
  const float chosen = learner->options.untouched_weight;
  return chosen == (float)DLORA_AUTO ? evidence_weight(evidence) : (double)chosen;
}

/* A network that no task has trained is the untouched backbone: there is nothing to blend. */
double dlora_learner_get_untouched_weight(const dlora_learner *learner) {
  if (!learner || !dli_learner_finished_statistics(learner, DLI_UNTOUCHED)) return 0.0;
  if (!dli_bank_has_updates(learner->bank)) return 0.0;
  return dli_learner_untouched_weight(learner, &learner->evidence);
}
