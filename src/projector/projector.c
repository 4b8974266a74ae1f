/* Used directions Phi of one input: observing S, choosing directions, projecting. METHOD.md 3 to 5.
 * SPDX-License-Identifier: Apache-2.0
 *
 * While a task is open, `moment` collects the sum of h h^T over observed rows h, and `observed` their number, so that
 * S = moment / observed. A factor of S changes neither its eigenvectors nor fractions of its trace. The code therefore
 * works on `moment`, and its comments call it S. What follows from S and Phi:
 *
 *   unused directions   leading eigenvectors of P S P: the rows of A' (METHOD.md 4)
 *   new directions      as few of these as satisfy (2): group Psi_t, which commit appends to Phi (METHOD.md 3 and 5)
 *   used directions     the directions inside span(Phi) with most energy (METHOD.md 5)
 *   x P                 rows without their component in span(Phi) (METHOD.md 4)
 *
 * Phi^T is kept as rows in float64. Products with the caller's float rows use a float copy of it. */
#include "src/projector/projector.h"

#include <math.h>
#include <string.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "linalg/symmetric.h"
#include "src/projector/state.h"

#define MOMENT_ROWS 256 /* scratch rows of dli_add_second_moment */

/* A direction is empty if its energy is below this fraction of trace(S) / dim, the mean energy of a direction. Inputs
 * are floats: one inside span(Phi) leaves up to (2^-24)^2 = 3.6e-15 of its energy outside by rounding, and P S P in
 * double adds about dim * 2^-53. 1e-10 / dim of the trace exceeds both up to dim = 10^4, and is far below any energy
 * that matters. */
#define EMPTY_ENERGY 1e-10

dlora_status dlora_projector_options_init(dlora_projector_options *options, size_t size) {
  DLI_REQUIRE(options);
  const dlora_projector_options defaults = DLORA_PROJECTOR_OPTIONS_INIT;
  return dli_struct_write("dlora_projector_options", options, size, &defaults, sizeof defaults);
}

dlora_status dlora_projector_create(dlora_projector **out, size_t dim, const dlora_projector_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  dlora_projector_options known = DLORA_PROJECTOR_OPTIONS_INIT;
  DLI_TRY(dli_options_read("dlora_projector_options", &known, sizeof known, options));
  if (dim == 0 || dim > DLI_PROJECTOR_MAX_DIM) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: dim is %zu, expected 1 ... %zu", __func__, dim, DLI_PROJECTOR_MAX_DIM);
  }
  dlora_allocator allocator;
  DLI_TRY(dli_allocator_read(&allocator, known.allocator));

  dlora_status status = DLORA_OK;
  dlora_projector *projector = NULL;
  DLI_TRY(DLI_NEW(&allocator, projector, 1));
  projector->allocator = allocator;
  DLI_TRY_DONE(dli_pool_create(&projector->scratch, &allocator));
  projector->dim = dim;
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->bases, 0));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->bases_f32, 0));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->starts, 1));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->energy_sums, 0));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->energy_counts, 0));
  *out = projector;
  projector = NULL;
done:
  dlora_projector_destroy(projector);
  return status;
}

dlora_status dlora_projector_clone(dlora_projector **out, const dlora_projector *projector) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(projector);
  const dlora_allocator *allocator = &projector->allocator;
  size_t values = projector->size * projector->dim, tasks = projector->num_tasks;
  dlora_status status = DLORA_OK;
  dlora_projector *copy = NULL;
  DLI_TRY(DLI_NEW(allocator, copy, 1));
  copy->allocator = *allocator;
  DLI_TRY_DONE(dli_pool_create(&copy->scratch, allocator));
  copy->dim = projector->dim;
  copy->size = projector->size;
  copy->num_tasks = tasks;
  copy->observed = projector->observed;
  DLI_TRY_DONE(DLI_NEW(allocator, copy->bases, values));
  DLI_TRY_DONE(DLI_NEW(allocator, copy->bases_f32, values));
  DLI_TRY_DONE(DLI_NEW(allocator, copy->starts, tasks + 1));
  DLI_TRY_DONE(DLI_NEW(allocator, copy->energy_sums, tasks));
  DLI_TRY_DONE(DLI_NEW(allocator, copy->energy_counts, tasks));
  memcpy(copy->bases, projector->bases, values * sizeof *copy->bases);
  memcpy(copy->bases_f32, projector->bases_f32, values * sizeof *copy->bases_f32);
  memcpy(copy->starts, projector->starts, (tasks + 1) * sizeof *copy->starts);
  memcpy(copy->energy_sums, projector->energy_sums, tasks * sizeof *copy->energy_sums);
  memcpy(copy->energy_counts, projector->energy_counts, tasks * sizeof *copy->energy_counts);
  if (projector->moment) {
    size_t count = copy->dim * copy->dim; /* the original exists, so this fits */
    DLI_TRY_DONE(DLI_NEW(allocator, copy->moment, count));
    memcpy(copy->moment, projector->moment, count * sizeof *copy->moment);
  }
  *out = copy;
  copy = NULL;
done:
  dlora_projector_destroy(copy);
  return status;
}

void dlora_projector_destroy(dlora_projector *projector) {
  if (!projector) return;
  dlora_allocator allocator = projector->allocator;
  dli_pool_destroy(projector->scratch);
  dli_free(&allocator, projector->moment);
  dli_free(&allocator, projector->energy_counts);
  dli_free(&allocator, projector->energy_sums);
  dli_free(&allocator, projector->starts);
  dli_free(&allocator, projector->bases_f32);
  dli_free(&allocator, projector->bases);
  dli_free(&allocator, projector);
}

void dli_projector_release(const dlora_projector *projector) {
  dli_pool_clear(projector->scratch);
}

size_t dlora_projector_dim(const dlora_projector *projector) {
  return projector ? projector->dim : 0;
}

size_t dlora_projector_size(const dlora_projector *projector) {
  return projector ? projector->size : 0;
}

size_t dlora_projector_num_tasks(const dlora_projector *projector) {
  return projector ? projector->num_tasks : 0;
}

uint64_t dlora_projector_num_observed(const dlora_projector *projector) {
  return projector ? projector->observed : 0;
}

dlora_status dli_projector_check_rows(const char *function, const dlora_projector *projector, const float *x,
                                      size_t rows) {
  size_t count = 0;
  if (!x) return dli_raise(DLORA_ERR_ARGUMENT, "%s: x is NULL", function);
  if (rows == 0) return dli_raise(DLORA_ERR_ARGUMENT, "%s: rows is 0, expected at least 1", function);
  if (!dli_multiply(&count, rows, projector->dim) || count > SIZE_MAX / sizeof(double)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: rows is %zu, too many for rows of %zu values", function, rows,
                     projector->dim);
  }
  size_t bad = dli_first_not_finite(x, count);
  if (bad < count) {
    return dli_raise(DLORA_ERR_NOT_FINITE, "%s: x[%zu, %zu] is %f, expected a finite value", function,
                     bad / projector->dim, bad % projector->dim, (double)x[bad]);
  }
  return DLORA_OK;
}

static dlora_status check_observed(const char *function, const dlora_projector *projector) {
  if (projector->observed > 0) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE,
                   "%s: nothing was observed since the last commit or discard; call dlora_projector_observe first",
                   function);
}

/* A square of zeros, once per task. */
static dlora_status need_moment(dlora_projector *projector) {
  if (projector->moment) return DLORA_OK;
  size_t count = 0;
  if (!dli_multiply(&count, projector->dim, projector->dim)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for a [%zu, %zu] second moment", projector->dim, projector->dim);
  }
  return DLI_NEW(&projector->allocator, projector->moment, count);
}

dlora_status dlora_projector_observe(dlora_projector *projector, const float *x, size_t rows) {
  DLI_REQUIRE(projector);
  DLI_TRY(dli_projector_check_rows(__func__, projector, x, rows));
  double *scratch = NULL;
  dli_pool_clear(projector->scratch); /* leaves the memory to learning */
  DLI_TRY(need_moment(projector));
  DLI_TRY(DLI_NEW(&projector->allocator, scratch, MOMENT_ROWS * projector->dim));
  dli_add_second_moment(x, rows, projector->dim, projector->moment, scratch);
  projector->observed += rows;
  dli_free(&projector->allocator, scratch);
  return DLORA_OK;
}

dlora_status dlora_projector_merge_observed(dlora_projector *projector, const dlora_projector *other) {
  DLI_REQUIRE(projector);
  DLI_REQUIRE(other);
  if (projector->dim != other->dim) {
    return dli_raise(DLORA_ERR_MISMATCH, "%s: projector has dim %zu, other has %zu", __func__, projector->dim,
                     other->dim);
  }
  if (other->observed == 0) return DLORA_OK;
  DLI_TRY(need_moment(projector));
  size_t count = projector->dim * projector->dim;
  for (size_t i = 0; i < count; i++) projector->moment[i] += other->moment[i];
  projector->observed += other->observed;
  return DLORA_OK;
}

dlora_status dlora_projector_discard_task(dlora_projector *projector) {
  DLI_REQUIRE(projector);
  dli_free(&projector->allocator, projector->moment);
  projector->moment = NULL;
  projector->observed = 0;
  return DLORA_OK;
}

static double trace(const double *s, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += s[i * n + i];
  return sum;
}

/* Finds unused directions: leading eigenvectors e_1, e_2, ... of P S P as rows of *directions, which the caller frees.
 *
 *   1. R = P S P without forming P = I - Phi Phi^T: first P S = S - Phi (Phi^T S), then R = P S - (P S Phi) Phi^T.
 *   2. trace(S) is the energy of the input, trace(R) its part outside span(Phi).
 *   3. Eigenvalues and eigenvectors of R, in decreasing order, at most `limit`.
 *   4. As few of them as satisfy (2): k grows while 1 - (trace(R) - e_1 - ... - e_k) / trace(S) < threshold, and while
 *      e_(k+1) is not empty. With the threshold HUGE_VAL every direction with energy is taken.
 *   5. Gram-Schmidt against Phi and each other, because rounding leaves a little of Phi in R. */
static dlora_status find_unused(const dlora_projector *projector, size_t limit, double threshold, double **directions,
                                size_t *found) {
  const dlora_allocator *allocator = &projector->allocator;
  size_t dim = projector->dim, size = projector->size;
  double *remainder = NULL, *coefficients = NULL, *values = NULL, *vectors = NULL;
  dlora_status status = DLORA_OK;
  *directions = NULL;
  *found = 0;
  if (limit > dim - size) limit = dim - size;
  DLI_TRY_DONE(DLI_NEW(allocator, vectors, limit * dim));
  if (limit > 0 && trace(projector->moment, dim) > 0.0) {
    DLI_TRY_DONE(DLI_NEW(allocator, remainder, dim * dim));
    DLI_TRY_DONE(DLI_NEW(allocator, coefficients, size * dim));
    DLI_TRY_DONE(DLI_NEW(allocator, values, limit));
    memcpy(remainder, projector->moment, dim * dim * sizeof *remainder);
    /* coefficients [size, dim] = Phi^T S, then [dim, size] = P S Phi */
    dli_dgemm_nn(size, dim, dim, 1.0, projector->bases, dim, projector->moment, dim, 0.0, coefficients, dim);
    dli_dgemm_tn(dim, dim, size, -1.0, projector->bases, dim, coefficients, dim, 1.0, remainder, dim);
    dli_dgemm_nt(dim, size, dim, 1.0, remainder, dim, projector->bases, dim, 0.0, coefficients, size);
    dli_dgemm_nn(dim, dim, size, -1.0, coefficients, size, projector->bases, dim, 1.0, remainder, dim);

    double total = trace(projector->moment, dim), empty = EMPTY_ENERGY * total / (double)dim;
    double outside = trace(remainder, dim);
    DLI_TRY_DONE(dli_eigen_top(allocator, dim, remainder, limit, values, vectors));
    size_t k = 0;
    while (k < limit && values[k] > empty && 1.0 - outside / total < threshold) outside -= values[k++];
    *found = dli_orthonormalise(vectors, k, projector->bases, size, dim);
  }
  *directions = vectors;
  vectors = NULL;
done:
  dli_free(allocator, vectors);
  dli_free(allocator, values);
  dli_free(allocator, coefficients);
  dli_free(allocator, remainder);
  return status;
}

static void to_float(float *out, const double *values, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = (float)values[i];
}

static dlora_status copy_unused(const dlora_projector *projector, size_t k, double threshold, float *directions,
                                size_t *found) {
  double *rows = NULL;
  DLI_TRY(find_unused(projector, k, threshold, &rows, found));
  to_float(directions, rows, *found * projector->dim);
  dli_free(&projector->allocator, rows);
  return DLORA_OK;
}

static dlora_status check_threshold(const char *function, float energy_threshold) {
  if (energy_threshold > 0.0f && energy_threshold <= 1.0f) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "%s: energy_threshold is %g, expected a fraction in (0, 1]", function,
                   (double)energy_threshold);
}

dlora_status dlora_projector_unused_directions(const dlora_projector *projector, size_t k, float *directions,
                                               size_t *found) {
  DLI_REQUIRE(projector);
  DLI_REQUIRE(directions);
  DLI_REQUIRE(found);
  *found = 0;
  DLI_TRY(check_observed(__func__, projector));
  return copy_unused(projector, k, HUGE_VAL, directions, found);
}

dlora_status dlora_projector_task_directions(const dlora_projector *projector, float energy_threshold, size_t k,
                                             float *directions, size_t *found) {
  DLI_REQUIRE(projector);
  DLI_REQUIRE(directions);
  DLI_REQUIRE(found);
  *found = 0;
  DLI_TRY(check_threshold(__func__, energy_threshold));
  DLI_TRY(check_observed(__func__, projector));
  return copy_unused(projector, k, (double)energy_threshold, directions, found);
}

dlora_status dlora_projector_used_directions(const dlora_projector *projector, size_t k, float *directions,
                                             size_t *found) {
  DLI_REQUIRE(projector);
  DLI_REQUIRE(directions);
  DLI_REQUIRE(found);
  *found = 0;
  DLI_TRY(check_observed(__func__, projector));
  const dlora_allocator *allocator = &projector->allocator;
  size_t dim = projector->dim, size = projector->size;
  if (k > size) k = size;
  if (k == 0) return DLORA_OK;

  dlora_status status = DLORA_OK;
  double *product = NULL, *inside = NULL, *values = NULL, *vectors = NULL;
  DLI_TRY_DONE(DLI_NEW(allocator, product, size * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, inside, size * size));
  DLI_TRY_DONE(DLI_NEW(allocator, values, k));
  DLI_TRY_DONE(DLI_NEW(allocator, vectors, k * size));
  /* The energy inside span(Phi) is Phi^T S Phi [size, size]. Its eigenvectors [k, size] are coordinates in Phi. */
  dli_dgemm_nn(size, dim, dim, 1.0, projector->bases, dim, projector->moment, dim, 0.0, product, dim);
  dli_dgemm_nt(size, size, dim, 1.0, product, dim, projector->bases, dim, 0.0, inside, size);
  DLI_TRY_DONE(dli_eigen_top(allocator, size, inside, k, values, vectors));
  double empty = EMPTY_ENERGY * trace(projector->moment, dim) / (double)dim;
  size_t count = 0;
  while (count < k && values[count] > empty) count++;
  dli_dgemm_nn(count, dim, size, 1.0, vectors, size, projector->bases, dim, 0.0, product, dim);
  to_float(directions, product, count * dim);
  *found = count;
done:
  dli_free(allocator, vectors);
  dli_free(allocator, values);
  dli_free(allocator, inside);
  dli_free(allocator, product);
  return status;
}

/* Commits the open task.
 *
 *   1. New directions by (2), limited by the width alone.
 *   2. Copies of Phi, its float form, the edges of the groups and the energy sums, each with one more group.
 *   3. The copies take the place of the originals, which cannot fail, and S is dropped. */
dlora_status dlora_projector_commit_task(dlora_projector *projector, float energy_threshold, size_t *added) {
  DLI_REQUIRE(projector);
  DLI_TRY(check_threshold(__func__, energy_threshold));
  DLI_TRY(check_observed(__func__, projector));
  const dlora_allocator *allocator = &projector->allocator;
  size_t dim = projector->dim, old = projector->size * dim, tasks = projector->num_tasks, count = 0;
  double *directions = NULL, *bases = NULL, *sums = NULL;
  float *use = NULL;
  uint64_t *starts = NULL, *counts = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(find_unused(projector, dim, (double)energy_threshold, &directions, &count));
  DLI_TRY_DONE(DLI_NEW(allocator, bases, old + count * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, use, old + count * dim));
  DLI_TRY_DONE(DLI_NEW(allocator, starts, tasks + 2));
  DLI_TRY_DONE(DLI_NEW(allocator, sums, tasks + 1));
  DLI_TRY_DONE(DLI_NEW(allocator, counts, tasks + 1));
  memcpy(bases, projector->bases, old * sizeof *bases);
  memcpy(bases + old, directions, count * dim * sizeof *bases);
  to_float(use, bases, old + count * dim);
  memcpy(starts, projector->starts, (tasks + 1) * sizeof *starts);
  starts[tasks + 1] = projector->size + count;
  memcpy(sums, projector->energy_sums, tasks * sizeof *sums);
  memcpy(counts, projector->energy_counts, tasks * sizeof *counts);

  /* Nothing can fail from here on. The originals are freed below. */
  double *doubles = projector->bases;
  projector->bases = bases, bases = doubles;
  doubles = projector->energy_sums;
  projector->energy_sums = sums, sums = doubles;
  float *floats = projector->bases_f32;
  projector->bases_f32 = use, use = floats;
  uint64_t *integers = projector->starts;
  projector->starts = starts, starts = integers;
  integers = projector->energy_counts;
  projector->energy_counts = counts, counts = integers;
  projector->size += count;
  projector->num_tasks++;
  dlora_projector_discard_task(projector);
  if (added) *added = count;
done:
  dli_free(allocator, counts);
  dli_free(allocator, sums);
  dli_free(allocator, starts);
  dli_free(allocator, use);
  dli_free(allocator, bases);
  dli_free(allocator, directions);
  return status;
}

dlora_status dli_projector_check_task(const char *function, const dlora_projector *projector, int64_t task) {
  if (task >= 0 && (uint64_t)task < projector->num_tasks) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "%s: task is %lld, the projector has %zu finished tasks", function,
                   (long long)task, projector->num_tasks);
}

dlora_status dlora_projector_get_bases(const dlora_projector *projector, int64_t task, const float **bases,
                                       size_t *count) {
  DLI_REQUIRE(projector);
  DLI_REQUIRE(bases);
  DLI_REQUIRE(count);
  DLI_TRY(dli_projector_check_task(__func__, projector, task));
  *bases = projector->bases_f32 + (size_t)projector->starts[task] * projector->dim;
  *count = (size_t)(projector->starts[task + 1] - projector->starts[task]);
  return DLORA_OK;
}

dlora_status dlora_projector_project(const dlora_projector *projector, float *x, size_t rows) {
  DLI_REQUIRE(projector);
  DLI_TRY(dli_projector_check_rows(__func__, projector, x, rows));
  size_t dim = projector->dim, size = projector->size, part = rows < DLI_PRODUCT_ROWS ? rows : DLI_PRODUCT_ROWS;
  if (size == 0) return DLORA_OK;
  float *coefficients = NULL; /* x Phi [part, size] */
  DLI_TRY(DLI_NEW(&projector->allocator, coefficients, part * size));
  for (size_t begin = 0; begin < rows; begin += part) {
    size_t count = rows - begin < part ? rows - begin : part;
    float *block = x + begin * dim;
    dli_gemm_nt(count, size, dim, 1.0f, block, dim, projector->bases_f32, dim, 0.0f, coefficients, size);
    dli_gemm_nn(count, dim, size, -1.0f, coefficients, size, projector->bases_f32, dim, 1.0f, block, dim);
  }
  dli_free(&projector->allocator, coefficients);
  return DLORA_OK;
}
