/* Factors of a matrix by the eigenvectors of its Gram matrix: with orthonormal rows U that span the columns of m,
 * m = U^T (U m), which needs no division by singular values.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/low_rank.h"

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "linalg/symmetric.h"

/* Of the largest eigenvalue, which is a squared singular value. Doubles tell eigenvalues apart down to 1e-16 of it. */
#define LEAST_EIGENVALUE 1e-12

dlora_status dli_low_rank(const dlora_allocator *allocator, size_t rows, size_t cols, const float *m, size_t *rank,
                          float *a, float *b) {
  const bool wide = rows <= cols;
  const size_t n = wide ? rows : cols, other = wide ? cols : rows;
  double *values = NULL, *gram = NULL, *exact = NULL, *vectors = NULL, *product = NULL;
  dlora_status status = DLORA_OK;
  size_t k = 0;
  DLI_TRY_DONE(DLI_NEW(allocator, exact, rows * cols));
  DLI_TRY_DONE(DLI_NEW(allocator, gram, n * n));
  DLI_TRY_DONE(DLI_NEW(allocator, values, n));
  DLI_TRY_DONE(DLI_NEW(allocator, vectors, n * n));
  for (size_t i = 0; i < rows * cols; i++) exact[i] = (double)m[i];
  if (wide) {
    dli_dgemm_nt(n, n, cols, 1.0, exact, cols, exact, cols, 0.0, gram, n);
  } else {
    dli_dgemm_tn(n, n, rows, 1.0, exact, cols, exact, cols, 0.0, gram, n);
  }
  DLI_TRY_DONE(dli_eigen_top(allocator, n, gram, n, values, vectors));
  while (k < n && values[k] > 0.0 && values[k] > LEAST_EIGENVALUE * values[0]) k++;
  DLI_TRY_DONE(DLI_NEW(allocator, product, k * other));
  if (wide) { /* vectors U [k, rows]: a = U m, b = U^T */
    dli_dgemm_nn(k, cols, rows, 1.0, vectors, rows, exact, cols, 0.0, product, cols);
    for (size_t i = 0; i < k * cols; i++) a[i] = (float)product[i];
    for (size_t i = 0; i < rows; i++) {
      for (size_t r = 0; r < k; r++) b[i * k + r] = (float)vectors[r * rows + i];
    }
  } else { /* vectors V [k, cols]: a = V, b = m V^T */
    dli_dgemm_nt(rows, k, cols, 1.0, exact, cols, vectors, cols, 0.0, product, k);
    for (size_t i = 0; i < rows * k; i++) b[i] = (float)product[i];
    for (size_t i = 0; i < k * cols; i++) a[i] = (float)vectors[i];
  }
  *rank = k;
done:
  dli_free(allocator, product);
  dli_free(allocator, vectors);
  dli_free(allocator, values);
  dli_free(allocator, gram);
  dli_free(allocator, exact);
  return status;
}
