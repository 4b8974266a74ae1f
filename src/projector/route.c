/* Routing by energy: how much of a row lies in each group Psi_s of Phi. METHOD.md 6.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   calibrate   the mean of |Psi_s^T x|^2 / |x|^2 over the task's own rows
 *   w_s(x)      the same of one row, relative to that mean, at most 1 */
#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "src/projector/projector.h"
#include "src/projector/state.h"

static double square_sum(const float *values, size_t count) {
  double sum = 0.0;
  for (size_t i = 0; i < count; i++) sum += (double)values[i] * (double)values[i];
  return sum;
}

/* energies [rows, count] = |Psi_s^T x|^2 / |x|^2 for tasks s = first ... first + count - 1. coefficients: scratch
 * [rows, directions of these groups]. The energies of a zero row are 0. */
static void relative_energies(const dlora_projector *projector, size_t first, size_t count, const float *x, size_t rows,
                              float *coefficients, double *energies) {
  size_t dim = projector->dim, start = (size_t)projector->starts[first];
  size_t size = (size_t)projector->starts[first + count] - start;
  dli_gemm_nt(rows, size, dim, 1.0f, x, dim, projector->bases_f32 + start * dim, dim, 0.0f, coefficients, size);
  for (size_t i = 0; i < rows; i++) {
    double whole = square_sum(x + i * dim, dim);
    for (size_t j = 0; j < count; j++) {
      size_t begin = (size_t)projector->starts[first + j] - start,
             end = (size_t)projector->starts[first + j + 1] - start;
      double part = square_sum(coefficients + i * size + begin, end - begin);
      energies[i * count + j] = whole > 0.0 ? part / whole : 0.0;
    }
  }
}

dlora_status dlora_projector_calibrate(dlora_projector *projector, int64_t task, const float *x, size_t rows) {
  DLI_REQUIRE(projector);
  DLI_TRY(dli_projector_check_task(__func__, projector, task));
  DLI_TRY(dli_projector_check_rows(__func__, projector, x, rows));
  const dlora_allocator *allocator = &projector->allocator;
  size_t group = (size_t)(projector->starts[task + 1] - projector->starts[task]);
  size_t part = rows < DLI_PRODUCT_ROWS ? rows : DLI_PRODUCT_ROWS;
  float *coefficients = NULL;
  double *energies = NULL, sum = 0.0;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, coefficients, part * group));
  DLI_TRY_DONE(DLI_NEW(allocator, energies, part));
  for (size_t begin = 0; begin < rows; begin += part) {
    size_t count = rows - begin < part ? rows - begin : part;
    relative_energies(projector, (size_t)task, 1, x + begin * projector->dim, count, coefficients, energies);
    for (size_t i = 0; i < count; i++) sum += energies[i];
  }
  projector->energy_sums[task] += sum;
  projector->energy_counts[task] += rows;
done:
  dli_free(allocator, energies);
  dli_free(allocator, coefficients);
  return status;
}

/* Doubles of scratch: energies [part, tasks], and coefficients [part, size] in floats behind them. */
static size_t route_scratch_count(const dlora_projector *projector, size_t rows) {
  return (rows < DLI_PRODUCT_ROWS ? rows : DLI_PRODUCT_ROWS) * (projector->num_tasks + projector->size);
}

size_t dli_projector_route_scratch(const dlora_projector *projector, size_t rows) {
  return route_scratch_count(projector, rows) * sizeof(double);
}

dlora_status dli_projector_route(const dlora_projector *projector, const char *caller, const float *x, size_t rows,
                                 void *scratch, float *routing) {
  DLI_TRY(dli_projector_check_rows(caller, projector, x, rows));
  const size_t tasks = projector->num_tasks, part = rows < DLI_PRODUCT_ROWS ? rows : DLI_PRODUCT_ROWS;
  if (tasks == 0) return DLORA_OK; /* routing [rows, 0] */
  double *energies = scratch;
  float *coefficients = (void *)(energies + part * tasks);
  for (size_t begin = 0; begin < rows; begin += part) {
    const size_t count = rows - begin < part ? rows - begin : part;
    relative_energies(projector, 0, tasks, x + begin * projector->dim, count, coefficients, energies);
    for (size_t i = 0; i < count * tasks; i++) {
      const size_t task = i % tasks;
      double mean = 1.0;
      if (projector->energy_counts[task] > 0)
        mean = projector->energy_sums[task] / (double)projector->energy_counts[task];
      /* The mean is 0 for a group that is empty or that its own rows avoid. Its weight is then 0, not 0 / 0. */
      const double relative = energies[i] > 0.0 ? energies[i] / mean : 0.0;
      routing[begin * tasks + i] = relative < 1.0 ? (float)relative : 1.0f;
    }
  }
  return DLORA_OK;
}

dlora_status dlora_projector_route(const dlora_projector *projector, const float *x, size_t rows, float *routing) {
  DLI_REQUIRE(projector);
  DLI_REQUIRE(routing);
  void *scratch = NULL;
  DLI_TRY(dli_pool_take_scratch(projector->scratch, route_scratch_count(projector, rows), sizeof(double), &scratch));
  const dlora_status status = dli_projector_route(projector, __func__, x, rows, scratch, routing);
  dli_pool_give_scratch(projector->scratch, scratch);
  return status;
}
