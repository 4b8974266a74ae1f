/* The struct of a projector: Phi and its groups, S, and energy sums. For the files of src/projector.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PROJECTOR_STATE_H
#define DLI_SRC_PROJECTOR_STATE_H

#include <limits.h>

#include "base/pool.h"
#include "duallora/duallora.h"

/* Widest input: LAPACK's workspace of 64 rows must be counted by an int. */
#define DLI_PROJECTOR_MAX_DIM ((size_t)INT_MAX / 64)

/* Phi^T is kept as rows, one group per task, so that a group is contiguous and a new one is appended:
 *
 *   starts[0] = 0      starts[1]      starts[2]      starts[num_tasks] = size
 *   | task 0: [k_0, dim] | task 1: [k_1, dim] | ...  |
 */
struct dlora_projector {
  dlora_allocator allocator;
  size_t dim;
  size_t size; /* m */
  size_t num_tasks;
  double *bases;           /* [size, dim], orthonormal rows */
  float *bases_f32;        /* the same in float, for products with the caller's arrays */
  uint64_t *starts;        /* [num_tasks + 1] */
  double *energy_sums;     /* [num_tasks] relative energies of the task's own rows, summed by calibrate */
  uint64_t *energy_counts; /* [num_tasks] rows calibrated */
  double *moment;          /* [dim, dim] sum of h h^T = observed * S; NULL before the first observation */
  uint64_t observed;
  struct dli_pool *scratch; /* of routing, kept between calls on a const handle */
};

/* Rows whose coefficients in Phi are held at once. */
#define DLI_PRODUCT_ROWS 1024

/* projector/projector.c: refuse x [rows, dim] that is NULL, empty, too large or not finite, and a task that is not
 * finished. */
dlora_status dli_projector_check_rows(const char *function, const dlora_projector *projector, const float *x,
                                      size_t rows);
dlora_status dli_projector_check_task(const char *function, const dlora_projector *projector, int64_t task);

#endif
