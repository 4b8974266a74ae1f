/* Softmax cross-entropy of logits divided by a temperature, and its gradient (METHOD.md 8, Loss), in double.
 * SPDX-License-Identifier: Apache-2.0 */
#include "nn/cross_entropy.h"

#include <math.h>

#include "base/assert.h"

double dli_cross_entropy(float *logits, size_t rows, size_t classes, const size_t *targets, float temperature,
                         float weight) {
  DLI_ASSERT(classes > 0 && temperature > 0.0f);
  const double sharpness = 1.0 / (double)temperature;
  double loss = 0.0;
  for (size_t i = 0; i < rows; i++) {
    float *row = logits + i * classes, top = row[0];
    DLI_ASSERT(targets[i] < classes);
    for (size_t j = 1; j < classes; j++) top = row[j] > top ? row[j] : top;
    double sum = 0.0;
    for (size_t j = 0; j < classes; j++) sum += exp(sharpness * ((double)row[j] - (double)top));
    loss += log(sum) + sharpness * ((double)top - (double)row[targets[i]]);
    for (size_t j = 0; j < classes; j++) {
      const double p = exp(sharpness * ((double)row[j] - (double)top)) / sum - (j == targets[i] ? 1.0 : 0.0);
      row[j] = weight * (float)(sharpness * p);
    }
  }
  return loss;
}
