/* Adam (Kingma and Ba 2015) and SGD with momentum on one flat parameter array.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_NN_OPTIMIZER_H
#define DLI_NN_OPTIMIZER_H

#include <stdint.h>

#include "duallora/duallora.h"

struct dli_optimizer_settings {
  int32_t kind; /* DLORA_OPTIMIZER_... */
  float beta1, beta2, epsilon, momentum, weight_decay;
};

struct dli_optimizer {
  struct dli_optimizer_settings settings;
  uint64_t step;
  size_t count;
  float *first;  /* [count] mean of gradients, or SGD's velocity */
  float *second; /* [count] mean of squared gradients, Adam only */
};

/* Takes the settings, and zeroed state for count parameters. */
dlora_status dli_optimizer_create(struct dli_optimizer *out, const dlora_allocator *allocator,
                                  const struct dli_optimizer_settings *settings, size_t count);
void dli_optimizer_destroy(struct dli_optimizer *optimizer, const dlora_allocator *allocator);
/* parameters -= update of the gradients; both [count]. */
void dli_optimizer_step(struct dli_optimizer *optimizer, float learning_rate, const float *gradients,
                        float *parameters);

#endif
