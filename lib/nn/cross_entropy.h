/* Softmax cross-entropy of a linear classifier. */
#ifndef DLI_NN_CROSS_ENTROPY_H
#define DLI_NN_CROSS_ENTROPY_H

#include <stddef.h>

/* Sum over rows of -log softmax(logits)[target]; logits [rows, classes] become its gradient times `weight`. */
double dli_cross_entropy(float *logits, size_t rows, size_t classes, const size_t *targets, float weight);

#endif
