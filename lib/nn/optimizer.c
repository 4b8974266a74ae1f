#include "nn/optimizer.h"

#include <math.h>

#include "base/memory.h"
#include "base/status.h"

dlora_status dli_optimizer_create(struct dli_optimizer *out, const dlora_allocator *allocator,
                                  const dlora_bank_options *options, size_t count) {
  struct dli_optimizer optimizer = {
      .kind = options->optimizer,
      .beta1 = options->beta1,
      .beta2 = options->beta2,
      .epsilon = options->epsilon,
      .momentum = options->momentum,
      .weight_decay = options->weight_decay,
      .count = count,
  };
  dlora_status status = DLI_NEW(allocator, optimizer.first, count);
  if (status == DLORA_OK && optimizer.kind == DLORA_OPTIMIZER_ADAM)
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
  float *restrict first = optimizer->first;
  float *restrict second = optimizer->second;
  const float shrink = 1.0f - learning_rate * optimizer->weight_decay;
  optimizer->step++;
  if (optimizer->kind == DLORA_OPTIMIZER_SGD) {
    for (size_t i = 0; i < optimizer->count; i++) {
      first[i] = optimizer->momentum * first[i] + gradients[i];
      parameters[i] = parameters[i] * shrink - learning_rate * first[i];
    }
    return;
  }
  const float b1 = optimizer->beta1, b2 = optimizer->beta2, epsilon = optimizer->epsilon;
  const double t = (double)optimizer->step;
  const float rate = (float)((double)learning_rate / (1.0 - pow((double)b1, t)));
  const float root = (float)(1.0 / sqrt(1.0 - pow((double)b2, t)));
  for (size_t i = 0; i < optimizer->count; i++) {
    first[i] = b1 * first[i] + (1.0f - b1) * gradients[i];
    second[i] = b2 * second[i] + (1.0f - b2) * gradients[i] * gradients[i];
    parameters[i] = parameters[i] * shrink - rate * first[i] / (sqrtf(second[i]) * root + epsilon);
  }
}
