/* Functions of a predictor for the learner and the checkpoint, beyond the public header.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PREDICTOR_PREDICTOR_H
#define DLI_SRC_PREDICTOR_PREDICTOR_H

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
