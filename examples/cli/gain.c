/* What learning gained over the untouched backbone, and what predictions rely on.
 * SPDX-License-Identifier: Apache-2.0 */
#include "gain.h"

#include <math.h>
#include <stdio.h>

bool gain_has_adapters(const dlora_learner *learner) {
  const dlora_bank *bank = dlora_learner_get_bank(learner);
  const size_t num_tasks = dlora_bank_num_tasks(bank);
  for (size_t site = 0; site < dlora_bank_num_sites(bank); site++) {
    const float *merged = NULL;
    if (dlora_bank_get_merged(bank, site, &merged) == DLORA_OK && merged != NULL) return true;
    for (size_t task = 0; task < num_tasks; task++) {
      dlora_adapter adapter = {NULL, NULL, 0};
      if (dlora_bank_get_residual(bank, site, (int64_t)task, &adapter) == DLORA_OK && adapter.rank > 0) return true;
    }
  }
  return false;
}

double gain_points(const dlora_evaluation *evaluation) {
  return 100.0 * (evaluation->accuracy - evaluation->untouched_accuracy);
}

static void describe_points(const dlora_evaluation *evaluation, char *text, size_t size) {
  const double points = gain_points(evaluation);
  char change[64];
  text[0] = '\0';
  if (!isfinite(points)) return;
  if (fabs(points) < 0.005) /* as it is printed */
    snprintf(change, sizeof change, "learning gained nothing over");
  else if (points > 0.0)
    snprintf(change, sizeof change, "learning gained %.2f points over", points);
  else
    snprintf(change, sizeof change, "learning lost %.2f points against", -points);
  snprintf(text, size, "%s the untouched backbone (%.2f %%, untouched %.2f %%); ", change, 100.0 * evaluation->accuracy,
           100.0 * evaluation->untouched_accuracy);
}

/* A weight that the user set says nothing about the adapters. */
static void describe_weight(const dlora_learner *learner, char *text, size_t size) {
  const double weight = dlora_learner_get_untouched_weight(learner);
  dlora_learner_options options = {.struct_size = sizeof options};
  const bool is_set =
      dlora_learner_get_options(learner, &options) == DLORA_OK && options.untouched_weight != (float)DLORA_AUTO;
  if (weight <= 0.0)
    snprintf(text, size, "predictions rely on the adapted network alone");
  else if (weight >= 1.0)
    snprintf(text, size, "predictions fall back to the untouched backbone%s",
             is_set ? ", as is set" : ": by the evidence the adapters do not help here");
  else
    snprintf(text, size, "weight of the untouched backbone %.2g%s", weight,
             is_set          ? ", as is set"
             : weight < 0.35 ? ": by the evidence the adapters help here"
             : weight < 0.65 ? ": the evidence is undecided"
                             : ": by the evidence the adapters help little here");
}

void gain_describe(const dlora_learner *learner, const dlora_evaluation *evaluation, const dlora_task_report *report,
                   char *text, size_t size) {
  char points[160], reliance[160], evidence[96] = "";
  if (!gain_has_adapters(learner)) {
    snprintf(text, size, "nothing is trained: predictions are those of the untouched backbone");
    return;
  }
  describe_points(evaluation, points, sizeof points);
  describe_weight(learner, reliance, sizeof reliance);
  if (isfinite(report->evidence_gain))
    snprintf(evidence, sizeof evidence, " (evidence of %zu %s not trained on: %+.3f nats each)",
             report->evidence_images, report->evidence_images == 1 ? "image" : "images", report->evidence_gain);
  snprintf(text, size, "%s%s%s", points, reliance, evidence);
}
