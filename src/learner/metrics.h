/* The accuracy matrix with its digests of images, and the calibration error. METHOD.md 8.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_LEARNER_METRICS_H
#define DLI_SRC_LEARNER_METRICS_H

#include <stdbool.h>

#include "duallora/duallora.h"

struct dli_metrics {
  size_t num_tasks;
  double *accuracy; /* [num_tasks, num_tasks] row i: accuracy on task j after task i; NaN unknown */
  double *overall;  /* [num_tasks] accuracy over all images after task i; NaN unknown */
  /* Digests of the images of each accuracy, in any order; 0: unknown. */
  uint64_t *images;         /* [num_tasks, num_tasks] */
  uint64_t *overall_images; /* [num_tasks] */
};

/* A copy with one more task, of unknown accuracies. */
dlora_status dli_metrics_grown(struct dli_metrics *out, const struct dli_metrics *metrics,
                               const dlora_allocator *allocator);
void dli_metrics_release(struct dli_metrics *metrics, const dlora_allocator *allocator);
/* Average accuracy, forgetting and backward transfer after the last task; NaN if that would compare accuracies on
 * different images. known: [num_tasks] digests of those images of the last evaluation whose classes or tasks were known
 * after each task. */
void dli_metrics_summary(const struct dli_metrics *metrics, const uint64_t *known, dlora_evaluation *out);
/* A matrix of num_tasks tasks, of unknown accuracies. A failure leaves nothing to release. */
dlora_status dli_metrics_create(struct dli_metrics *out, size_t num_tasks, const dlora_allocator *allocator);

/* Expected calibration error with 15 equal bins (Guo et al. 2017), fed one decision at a time. */
struct dli_reliability {
  double confidence[15], right[15];
  size_t count[15], total;
};
void dli_reliability_add(struct dli_reliability *reliability, double probability, bool right);
double dli_reliability_error(const struct dli_reliability *reliability);

#endif
