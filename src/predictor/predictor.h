/* Functions of a predictor for the learner and the checkpoint, beyond the public header.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PREDICTOR_PREDICTOR_H
#define DLI_SRC_PREDICTOR_PREDICTOR_H

#include <stdbool.h>

#include "duallora/duallora.h"
#include "io/safetensors.h"

/* Adds the finished tasks as tensors and metadata named "<prefix>.<...>"; tensors borrow the predictor's memory until
 * saved. */
dlora_status dli_predictor_write(const dlora_predictor *predictor, struct dli_writer *writer, const char *prefix);
/* Reads and checks them: shapes, counts, finite values. options NULL: as saved. Otherwise options replace the saved
 * ones, the temperature only if none was fitted or set. readout, random_features and seed must be the saved ones
 * (MISMATCH).
 */
dlora_status dli_predictor_read(dlora_predictor **out, const struct dli_tensors *tensors, const char *prefix,
                                const dlora_predictor_options *options);

/* The same for the open task, held-out features included. */
dlora_status dli_predictor_write_open(const dlora_predictor *predictor, struct dli_writer *writer, const char *prefix);
/* Reads it into a predictor without an open task. */
dlora_status dli_predictor_read_open(dlora_predictor *predictor, const struct dli_tensors *tensors, const char *prefix);
/* Of the open task: number of features including held-out ones, classes [*num_classes], and labels of held-out features
 * [*num_labels]. The arrays are borrowed. */
uint64_t dli_predictor_open_total(const dlora_predictor *predictor);
const int64_t *dli_predictor_open_classes(const dlora_predictor *predictor, size_t *num_classes);
const int64_t *dli_predictor_open_labels(const dlora_predictor *predictor, size_t *num_labels);

/* dlora_predictor_observe_pair for statistics of several kinds. The sample keeps the images with the lowest keys [n],
 * so that statistics that observed the same images with the same keys keep the same sample. */
dlora_status dli_predictor_observe(dlora_predictor *predictor, const char *function, const float *features,
                                   const float *mirrored, const int64_t *labels, const uint64_t *keys, size_t n,
                                   bool held_out);

/* log(exp a + exp b); -infinity stands for log 0. */
double dli_add_logs(double a, double b);

/* Evidence for the weight w of one of two posteriors in their blend p_a^(1 - w) p_b^w, normalised: METHOD.md 8. Sums
 * over images, which may be added. */
enum { DLI_BLEND_WEIGHTS = 11 }; /* w = 0, 0.1, ... 1 */
/* Of one image, nats: keeps sums finite whatever the scores. */
#define DLI_MOST_EVIDENCE 1e9
struct dli_blend_evidence {
  uint64_t num_images;
  double log_likelihood[DLI_BLEND_WEIGHTS]; /* of the true classes, summed over the images */
};
/* Adds the evidence of images of the open task that both have observed: of their samples, or of the held-out ones. Each
 * image is judged as if it had never been observed. Nothing is added for images of only one of the two. */
dlora_status dli_predictor_blend_evidence(const dlora_predictor *a, const dlora_predictor *b, bool held_out,
                                          struct dli_blend_evidence *evidence);

/* Frees the scratch memory that predictions keep between calls. */
void dli_predictor_release(const dlora_predictor *predictor);

/* Range of temperatures, of statistics and of heads. */
#define DLI_LOWEST_TEMPERATURE 0.05
#define DLI_HIGHEST_TEMPERATURE 100.0

/* dlora_predictor_posterior with the components' log-probabilities in float64: for an improbable task a float has too
 * few digits left to tell its classes apart. */
dlora_status dli_predictor_posterior(const dlora_predictor *predictor, const char *function, const float *features,
                                     size_t n, double *component_log_probs, float *class_log_probs, float *task_probs,
                                     float *unknown_scores);

/* A log-probability in float32, at most 0 and finite. */
float dli_to_log_probability(double value);

/* dlora_predictor_compensate_drift with a map for each `part` columns. function: the name in errors. */
dlora_status dli_predictor_compensate(dlora_predictor *predictor, const char *function, const float *before,
                                      const float *after, size_t n, size_t first_column, size_t columns, size_t part);

#endif
