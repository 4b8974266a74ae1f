/* One step of Adam or of SGD with momentum, both with decoupled weight decay, on a flat array of parameters (METHOD.md
 * 8).
 * SPDX-License-Identifier: Apache-2.0 */
#include "nn/optimizer.h"

#include <math.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"

dlora_status dli_optimizer_create(struct dli_optimizer *out, const dlora_allocator *allocator,
                                  const struct dli_optimizer_settings *settings, size_t count) {
  struct dli_optimizer optimizer = {.settings = *settings, .count = count};
  dlora_status status = DLI_NEW(allocator, optimizer.first, count);
  if (status == DLORA_OK && optimizer.settings.kind == DLORA_OPTIMIZER_ADAM)
    status = DLI_NEW(allocator, optimizer.second, count);
  if (status != DLORA_OK) {
    dli_optimizer_destroy(&optimizer, allocator);
    return status;
  }
  *out = optimizer;
  return DLORA_OK;
}

void dli_optimizer_destroy(struct dli_optimizer *optimizer, const dlora_allocator *allocator) {
  dli_free(allocator, optimizer->first);
  dli_free(allocator, optimizer->second);
  *optimizer = (struct dli_optimizer){0};
}

void dli_optimizer_step(struct dli_optimizer *optimizer, float learning_rate, const float *gradients,
                        float *parameters) {
  const struct dli_optimizer_settings *settings = &optimizer->settings;
  float *restrict first = optimizer->first;
  float *restrict second = optimizer->second;
  const float shrink = 1.0f - learning_rate * settings->weight_decay;
  optimizer->step++;
  if (settings->kind == DLORA_OPTIMIZER_SGD) {
    for (size_t i = 0; i < optimizer->count; i++) {
      first[i] = settings->momentum * first[i] + gradients[i];
      parameters[i] = parameters[i] * shrink - learning_rate * first[i];
    }
    return;
  }
  DLI_ASSERT(settings->kind == DLORA_OPTIMIZER_ADAM && second);
  const float b1 = settings->beta1, b2 = settings->beta2, epsilon = settings->epsilon;
  const double t = (double)optimizer->step;
  const float rate = (float)((double)learning_rate / (1.0 - pow((double)b1, t)));
  const float root = (float)(1.0 / sqrt(1.0 - pow((double)b2, t)));
  for (size_t i = 0; i < optimizer->count; i++) {
    first[i] = b1 * first[i] + (1.0f - b1) * gradients[i];
    second[i] = b2 * second[i] + (1.0f - b2) * gradients[i] * gradients[i];
    parameters[i] = parameters[i] * shrink - rate * first[i] / (sqrtf(second[i]) * root + epsilon);
  }
}
