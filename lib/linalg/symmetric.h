/* Symmetric eigenproblems and positive definite systems through LAPACK, in double.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_LINALG_SYMMETRIC_H
#define DLI_LINALG_SYMMETRIC_H

#include <stdbool.h>

#include "duallora/duallora.h"

/* The k leading eigenpairs of s [n, n] (destroyed), by decreasing eigenvalue: values [k], vectors [k, n] as orthonormal
 * rows. Errors: NO_MEMORY, NUMERIC. */
dlora_status dli_eigen_top(const dlora_allocator *allocator, size_t n, double *s, size_t k, double *values,
                           double *vectors);

/* Cholesky factor of s [n, n] in place: lower triangle L with s = L L^T (row-major), strict upper triangle zeroed.
 * Error: NUMERIC if s is not positive definite. */
dlora_status dli_cholesky(size_t n, double *s);
/* Solves L L^T x = b for rows: b [rows, n] is replaced by the solutions, row by row. */
void dli_cholesky_solve(size_t n, const double *l, double *b, size_t rows);
/* Solves L y = b for rows, in place: |y|^2 is the Mahalanobis distance of b. */
void dli_cholesky_forward(size_t n, const double *l, double *b, size_t rows);
/* *trace: that of the inverse of L L^T times the diagonal matrix of weights [n]. Error: NO_MEMORY. */
dlora_status dli_cholesky_inverse_trace(const dlora_allocator *allocator, size_t n, const double *l,
                                        const double *weights, double *trace);

/* Makes the rows of v [k, n] orthonormal to the rows of basis [m, n] and to each other: two passes of modified
 * Gram-Schmidt
 * ("twice is enough", Giraud et al. 2005). Rows that vanish (norm below 1e-8 of their own) are dropped; returns how
 * many stay. */
size_t dli_orthonormalise(double *v, size_t k, const double *basis, size_t m, size_t n);

/* Whether the lower triangle of s [n, n] can be that of a sum of outer products of float vectors: finite, no negative
 * diagonal, Cauchy-Schwarz; the other triangle must be finite. Necessary and cheap, not sufficient. */
bool dli_may_be_moment(const double *s, size_t n);

#endif
