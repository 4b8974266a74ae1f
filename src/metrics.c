#include "src/metrics.h"

#include <math.h>

#include "base/memory.h"
#include "base/status.h"

dlora_status dli_metrics_grown(struct dli_metrics *out, const struct dli_metrics *metrics,
                               const dlora_allocator *allocator) {
  const size_t old = metrics->num_tasks, tasks = old + 1;
  struct dli_metrics grown = {.num_tasks = tasks};
  DLI_TRY(DLI_NEW(allocator, grown.accuracy, tasks * tasks));
  const dlora_status status = DLI_NEW(allocator, grown.overall, tasks);
  if (status != DLORA_OK) {
    dli_free(allocator, grown.accuracy);
    return status;
  }
  for (size_t i = 0; i < tasks; i++) {
    grown.overall[i] = i < old ? metrics->overall[i] : NAN;
    for (size_t j = 0; j < tasks; j++) {
      grown.accuracy[i * tasks + j] = i < old && j < old ? metrics->accuracy[i * old + j] : NAN;
    }
  }
  *out = grown;
  return DLORA_OK;
}

void dli_metrics_release(struct dli_metrics *metrics, const dlora_allocator *allocator) {
  dli_free(allocator, metrics->accuracy);
  dli_free(allocator, metrics->overall);
  *metrics = (struct dli_metrics){0};
}

/* Chaudhry et al. 2018 (forgetting), Lopez-Paz and Ranzato 2017 (backward transfer). */
void dli_metrics_summary(const struct dli_metrics *metrics, dlora_evaluation *out) {
  const size_t tasks = metrics->num_tasks;
  double sum = 0.0, lost = 0.0, transfer = 0.0;
  size_t stages = 0, lost_count = 0, transfer_count = 0;
  for (size_t i = 0; i < tasks; i++) {
    if (isnan(metrics->overall[i])) continue;
    sum += metrics->overall[i];
    stages++;
  }
  for (size_t j = 0; j + 1 < tasks; j++) {
    const double now = metrics->accuracy[(tasks - 1) * tasks + j], learnt = metrics->accuracy[j * tasks + j];
    double best = NAN;
    for (size_t i = j; i + 1 < tasks; i++) {
      const double a = metrics->accuracy[i * tasks + j];
      if (isnan(best) || a > best) best = a;
    }
    if (!isnan(now) && !isnan(best)) {
      lost += best - now;
      lost_count++;
    }
    if (!isnan(now) && !isnan(learnt)) {
      transfer += now - learnt;
      transfer_count++;
    }
  }
  out->average_accuracy = stages ? sum / (double)stages : NAN;
  out->forgetting = lost_count ? lost / (double)lost_count : NAN;
  out->backward_transfer = transfer_count ? transfer / (double)transfer_count : NAN;
}

void dli_reliability_add(struct dli_reliability *reliability, double probability, int right) {
  /* Also what is no number goes to a bin: the last. */
  const size_t bin = probability < 1.0 ? (size_t)(probability * 15.0) : 14;
  reliability->confidence[bin] += probability;
  reliability->right[bin] += right ? 1.0 : 0.0;
  reliability->count[bin]++;
  reliability->total++;
}

double dli_reliability_error(const struct dli_reliability *reliability) {
  double error = 0.0;
  for (size_t b = 0; b < 15; b++) error += fabs(reliability->confidence[b] - reliability->right[b]);
  return reliability->total ? error / (double)reliability->total : NAN;
}
