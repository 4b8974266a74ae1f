/* Average accuracy, forgetting, backward transfer from the accuracy matrix; calibration error. METHOD.md 8.
 * SPDX-License-Identifier: Apache-2.0
 *
 * With a_ij the accuracy on task j after task i, and t the last task:
 *
 *   average accuracy    mean over i of the accuracy on all images after task i
 *   forgetting          mean over j < t of max over i < t of a_ij, minus a_tj  (Chaudhry et al. 2018)
 *   backward transfer   mean over j < t of a_tj - a_jj  (Lopez-Paz and Ranzato 2017)
 *   calibration error   mean over images of abs(confidence - accuracy) of the image's bin (Guo et al. 2017)
 *
 * An accuracy counts only if it was taken on the same images as that of the last stage. */
#include "src/learner/metrics.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"

dlora_status dli_metrics_create(struct dli_metrics *out, size_t num_tasks, const dlora_allocator *allocator) {
  struct dli_metrics m = {.num_tasks = num_tasks};
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, m.accuracy, num_tasks * num_tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, m.overall, num_tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, m.images, num_tasks * num_tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, m.overall_images, num_tasks));
  for (size_t i = 0; i < num_tasks; i++) {
    m.overall[i] = NAN;
    for (size_t j = 0; j < num_tasks; j++) m.accuracy[i * num_tasks + j] = NAN;
  }
  *out = m;
  return DLORA_OK;
done:
  dli_metrics_release(&m, allocator);
  return status;
}

dlora_status dli_metrics_grown(struct dli_metrics *out, const struct dli_metrics *metrics,
                               const dlora_allocator *allocator) {
  const size_t old = metrics->num_tasks, tasks = old + 1;
  DLI_TRY(dli_metrics_create(out, tasks, allocator));
  for (size_t i = 0; i < old; i++) {
    out->overall[i] = metrics->overall[i];
    out->overall_images[i] = metrics->overall_images[i];
    memcpy(out->accuracy + i * tasks, metrics->accuracy + i * old, old * sizeof *out->accuracy);
    memcpy(out->images + i * tasks, metrics->images + i * old, old * sizeof *out->images);
  }
  return DLORA_OK;
}

void dli_metrics_release(struct dli_metrics *metrics, const dlora_allocator *allocator) {
  dli_free(allocator, metrics->accuracy);
  dli_free(allocator, metrics->overall);
  dli_free(allocator, metrics->images);
  dli_free(allocator, metrics->overall_images);
  *metrics = (struct dli_metrics){0};
}

/* Mean over the evaluated stages, or NaN if one was on other images than the last evaluation has of its classes. */
static double average_accuracy(const struct dli_metrics *metrics, const uint64_t *known) {
  double sum = 0.0;
  size_t stages = 0;
  for (size_t i = 0; i < metrics->num_tasks; i++) {
    if (isnan(metrics->overall[i])) continue;
    if (metrics->overall_images[i] == 0 || metrics->overall_images[i] != known[i]) return NAN;
    sum += metrics->overall[i];
    stages++;
  }
  return stages > 0 ? sum / (double)stages : NAN;
}

/* a_ij, or NaN if it was taken on other images than a_tj. */
static double comparable(const struct dli_metrics *metrics, size_t i, size_t j) {
  const size_t tasks = metrics->num_tasks;
  const uint64_t images = metrics->images[i * tasks + j];
  return images != 0 && images == metrics->images[(tasks - 1) * tasks + j] ? metrics->accuracy[i * tasks + j] : NAN;
}

void dli_metrics_summary(const struct dli_metrics *metrics, const uint64_t *known, dlora_evaluation *out) {
  const size_t tasks = metrics->num_tasks;
  double lost = 0.0, transfer = 0.0;
  size_t lost_count = 0, transfer_count = 0;
  for (size_t j = 0; j + 1 < tasks; j++) {
    const double now = comparable(metrics, tasks - 1, j), learned = comparable(metrics, j, j);
    double best = NAN;
    for (size_t i = j; i + 1 < tasks; i++) {
      const double a = comparable(metrics, i, j);
      if (isnan(best) || a > best) best = a;
    }
    if (!isnan(now) && !isnan(best)) {
      lost += best - now;
      lost_count++;
    }
    if (!isnan(now) && !isnan(learned)) {
      transfer += now - learned;
      transfer_count++;
    }
  }
  out->average_accuracy = average_accuracy(metrics, known);
  out->forgetting = lost_count > 0 ? lost / (double)lost_count : NAN;
  out->backward_transfer = transfer_count > 0 ? transfer / (double)transfer_count : NAN;
}

void dli_reliability_add(struct dli_reliability *reliability, double probability, bool right) {
  /* NaN counts in the last bin. */
  const size_t bin = probability < 1.0 ? (size_t)(probability * 15.0) : 14;
  reliability->confidence[bin] += probability;
  reliability->right[bin] += right ? 1.0 : 0.0;
  reliability->count[bin]++;
  reliability->total++;
}

double dli_reliability_error(const struct dli_reliability *reliability) {
  double error = 0.0;
  for (size_t b = 0; b < 15; b++) error += fabs(reliability->confidence[b] - reliability->right[b]);
  return reliability->total > 0 ? error / (double)reliability->total : NAN;
}
