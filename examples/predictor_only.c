/* The task predictor on features of any network: two tasks are committed, then classes, tasks and strangers are told.
 * Nothing of an example is kept but sums, so that a class costs one vector.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "duallora/duallora.h"

enum { DIM = 16, PER_CLASS = 60, HELD_OUT = 10 };

/* Stands for your network: class c has its centre at 5 on axis c. features [DIM] */
static void compute_features(float *features, int64_t class_id) {
  for (int i = 0; i < DIM; i++) {
    float sum = 0.0f; /* of six uniform numbers: near enough to a normal one */
    for (int k = 0; k < 6; k++) sum += (float)rand() / (float)RAND_MAX - 0.5f;
    features[i] = 1.4f * sum + (i == (int)class_id ? 5.0f : 0.0f);
  }
}

static dlora_status learn_class(dlora_predictor *predictor, int64_t class_id) {
  float features[PER_CLASS][DIM];
  int64_t labels[PER_CLASS];
  for (int i = 0; i < PER_CLASS; i++) {
    compute_features(features[i], class_id);
    labels[i] = class_id;
  }
  /* A few set aside calibrate the probabilities and the threshold for strangers. */
  dlora_status status = dlora_predictor_observe_held_out(predictor, features[0], labels, HELD_OUT);
  if (status != DLORA_OK) return status;
  return dlora_predictor_observe(predictor, features[HELD_OUT], labels + HELD_OUT, PER_CLASS - HELD_OUT);
}

int main(void) {
  int code = EXIT_FAILURE;
  float threshold = 0.0f;
  float features[5][DIM];
  float scores[5];
  dlora_prediction seen[5];
  dlora_predictor *predictor = NULL;
  if (dlora_predictor_create(&predictor, DIM, NULL)) goto done;
  for (int64_t task = 0; task < 2; task++) { /* classes 0 and 1, then 2 and 3 */
    if (learn_class(predictor, 2 * task) || learn_class(predictor, 2 * task + 1)) goto done;
    if (dlora_predictor_commit_task(predictor)) goto done;
  }

  for (int64_t i = 0; i < 5; i++) compute_features(features[i], i == 4 ? 9 : i); /* class 9 was never shown */
  if (dlora_predictor_predict(predictor, features[0], 5, seen)) goto done;
  if (dlora_predictor_posterior(predictor, features[0], 5, NULL, NULL, NULL, scores)) goto done;
  if (dlora_predictor_unknown_threshold(predictor, 0.95f, &threshold)) goto done;
  for (int i = 0; i < 5; i++)
    printf("%-12s class %d (%3.0f %%), task %d (%3.0f %%), unknown score %6.2f: %s\n",
           i == 4 ? "a stranger:" : "a known one:", (int)seen[i].class_id, 100.0 * (double)seen[i].class_probability,
           (int)seen[i].task, 100.0 * (double)seen[i].task_probability, (double)scores[i],
           scores[i] > threshold ? "unknown" : "known");
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "%s\n", dlora_last_error());
  dlora_predictor_destroy(predictor);
  return code;
}
