/* A frozen weight matrix W. Every product with one goes through here: by the BLAS in float32, or with packed copies.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_LINALG_WEIGHT_H
#define DLI_LINALG_WEIGHT_H

#include "linalg/matrix.h"
#include "linalg/packed.h"

struct dli_weight {
  size_t rows;       /* output_dim */
  size_t cols;       /* input_dim */
  const float *data; /* [rows, cols], borrowed */
  /* Packed copies, borrowed; where one is NULL the BLAS does what it is for. */
  const struct dli_packed *forward;     /* W^T [cols, rows] */
  const struct dli_packed *backward[2]; /* W [split, cols] and [rows - split, cols] */
  size_t split;                         /* rows before it and those from it on are also used by themselves */
};

/* products: the calling thread's, or NULL for the BLAS. */

/* y [n, count] = x [n, cols] W[first .. first + count)^T, plus y if accumulate, plus bias [rows] of those rows if not
 * NULL. */
void dli_weight_forward(const struct dli_weight *weight, struct dli_products *products, size_t first, const float *bias,
                        struct dli_const_matrix x, bool accumulate, struct dli_matrix y);
/* dx [n, cols] = dy [n, count] W[first .. first + count), plus dx if accumulate. */
void dli_weight_backward(const struct dli_weight *weight, struct dli_products *products, size_t first,
                         struct dli_const_matrix dy, bool accumulate, struct dli_matrix dx);

#endif
