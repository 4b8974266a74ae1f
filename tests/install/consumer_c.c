/* What a first program does: learns two tasks of three-dimensional features and asks for one decision.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "duallora/duallora.h"

int main(void) {
  const float features[] = {0.0f, 0.1f, 0.0f, 0.1f, 0.0f, 0.1f, 4.0f, 4.1f, 0.0f, 4.1f, 4.0f, 0.1f};
  const int64_t labels[] = {7, 7, 9, 9};
  const float query[] = {4.0f, 4.0f, 0.0f};
  dlora_predictor *predictor = NULL;
  dlora_prediction decision;
  if (dlora_predictor_create(&predictor, 3, NULL) || dlora_predictor_observe(predictor, features, labels, 4) ||
      dlora_predictor_commit_task(predictor) || dlora_predictor_predict(predictor, query, 1, &decision)) {
    puts(dlora_last_error());
    dlora_predictor_destroy(predictor);
    return 1;
  }
  dlora_predictor_destroy(predictor);
  printf("duallora %s (%s): class %d\n", dlora_version(), dlora_build_info(), (int)decision.class_id);
  return decision.class_id == 9 ? 0 : 1;
}
