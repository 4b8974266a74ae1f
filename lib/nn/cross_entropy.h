/* Softmax cross-entropy of a linear classifier.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_NN_CROSS_ENTROPY_H
#define DLI_NN_CROSS_ENTROPY_H

#include <stddef.h>

/* Sum over rows of -log softmax(logits / temperature)[target]; logits [rows, classes] become the gradient with respect
 * to them times `weight`. */
double dli_cross_entropy(float *logits, size_t rows, size_t classes, const size_t *targets, float temperature,
                         float weight);

#endif
