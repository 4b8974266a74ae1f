/* Projectors in safetensors files: tensors <prefix>.bases, .starts, .energy_sums, .energy_counts. docs/FILES.md.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Files are untrusted input. A reader checks shapes before it allocates, and then that Phi^T Phi = I, that the groups
 * divide Phi, and that energy sums are possible. The sums of an open task, <prefix>.observed and .moment, are read
 * apart: S must be symmetric with a non-negative diagonal. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/saved_file.h"
#include "linalg/matrix.h"
#include "linalg/symmetric.h"
#include "src/projector/projector.h"
#include "src/projector/state.h"

#define FORMAT "duallora.projector.1"
#define CHECK_ROWS 64

dlora_status dli_projector_write(const dlora_projector *projector, struct dli_writer *writer, const char *prefix) {
  size_t bases[] = {projector->size, projector->dim}, edges[] = {projector->num_tasks + 1},
         tasks[] = {projector->num_tasks};
  char name[DLI_SAVED_NAME_SIZE];
  DLI_TRY(dli_saved_name(name, prefix, "bases"));
  DLI_TRY(dli_writer_add(writer, name, DLI_F64, 2, bases, projector->bases));
  DLI_TRY(dli_saved_name(name, prefix, "starts"));
  DLI_TRY(dli_writer_add(writer, name, DLI_U64, 1, edges, projector->starts));
  DLI_TRY(dli_saved_name(name, prefix, "energy_sums"));
  DLI_TRY(dli_writer_add(writer, name, DLI_F64, 1, tasks, projector->energy_sums));
  DLI_TRY(dli_saved_name(name, prefix, "energy_counts"));
  return dli_writer_add(writer, name, DLI_U64, 1, tasks, projector->energy_counts);
}

/* Refuses bases that are not finite or with Phi^T Phi off I by more than 1e-3. Products are formed a block at a time.
 */
static dlora_status check_bases(const dlora_projector *projector, const char *label, const char *name) {
  size_t dim = projector->dim, size = projector->size;
  const double *bases = projector->bases;
  for (size_t i = 0; i < size * dim; i++) {
    if (!isfinite(bases[i])) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has a value that is not finite in row %zu", label, name,
                       i / dim);
    }
  }
  double *products = NULL; /* [CHECK_ROWS, size] */
  DLI_TRY(DLI_NEW(&projector->allocator, products, CHECK_ROWS * size));
  dlora_status status = DLORA_OK;
  for (size_t begin = 0; begin < size && status == DLORA_OK; begin += CHECK_ROWS) {
    size_t count = size - begin < CHECK_ROWS ? size - begin : CHECK_ROWS;
    dli_dgemm_nt(count, size, dim, 1.0, bases + begin * dim, dim, bases, dim, 0.0, products, size);
    for (size_t i = 0; i < count * size && status == DLORA_OK; i++) {
      double expected = i % size == begin + i / size ? 1.0 : 0.0;
      if (!(fabs(products[i] - expected) <= 1e-3)) {
        status = dli_raise(DLORA_ERR_FORMAT, "%s: rows %zu and %zu of tensor %s are not orthonormal", label,
                           begin + i / size, i % size, name);
      }
    }
  }
  dli_free(&projector->allocator, products);
  return status;
}

static dlora_status check_groups(const dlora_projector *projector, const char *label, const char *prefix) {
  size_t tasks = projector->num_tasks;
  for (size_t i = 0; i <= tasks; i++) {
    uint64_t low = i == 0 ? 0 : projector->starts[i - 1], high = i == 0 ? 0 : projector->size;
    if (projector->starts[i] < low || projector->starts[i] > high ||
        (i == tasks && projector->starts[i] != projector->size)) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s.starts does not divide the %zu rows of %s.bases into groups",
                       label, prefix, projector->size, prefix);
    }
  }
  for (size_t i = 0; i < tasks; i++) {
    /* Each summand is a fraction of at most 1, to the rounding of float products. */
    if (!(projector->energy_sums[i] >= 0.0 &&
          projector->energy_sums[i] <= 1.01 * (double)projector->energy_counts[i])) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s.energy_sums has an impossible value for task %zu", label,
                       prefix, i);
    }
  }
  return DLORA_OK;
}

dlora_status dli_projector_read(dlora_projector **out, const struct dli_tensors *tensors, const char *prefix,
                                const dlora_projector_options *options) {
  *out = NULL;
  const char *label = dli_tensors_label(tensors);
  const struct dli_tensor *bases = NULL, *starts = NULL;
  const size_t any[] = {SIZE_MAX, SIZE_MAX};
  char bases_name[DLI_SAVED_NAME_SIZE], name[DLI_SAVED_NAME_SIZE];
  DLI_TRY(dli_saved_name(bases_name, prefix, "bases"));
  DLI_TRY(dli_tensors_require(tensors, bases_name, DLI_F64, 2, any, &bases));
  DLI_TRY(dli_saved_name(name, prefix, "starts"));
  DLI_TRY(dli_tensors_require(tensors, name, DLI_U64, 1, any, &starts));
  size_t size = bases->shape[0], dim = bases->shape[1];
  if (dim == 0 || dim > DLI_PROJECTOR_MAX_DIM || size > dim) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has shape [%zu, %zu], expected [m, dim] with m <= dim <= %zu",
                     label, bases_name, size, dim, DLI_PROJECTOR_MAX_DIM);
  }
  if (starts->count == 0) return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is empty", label, name);

  dlora_status status = DLORA_OK;
  dlora_projector *projector = NULL;
  dlora_allocator allocator;
  DLI_TRY_DONE(dlora_projector_create(&projector, dim, options));
  allocator = projector->allocator;
  size_t tasks = starts->count - 1, edges[] = {tasks + 1}, shape[] = {size, dim};
  dli_free(&allocator, projector->bases);
  dli_free(&allocator, projector->bases_f32);
  dli_free(&allocator, projector->starts);
  dli_free(&allocator, projector->energy_sums);
  dli_free(&allocator, projector->energy_counts);
  projector->bases = NULL, projector->bases_f32 = NULL, projector->starts = NULL;
  projector->energy_sums = NULL, projector->energy_counts = NULL;
  projector->size = size;
  projector->num_tasks = tasks;
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->bases, size * dim));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->bases_f32, size * dim));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->starts, tasks + 1));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->energy_sums, tasks));
  DLI_TRY_DONE(DLI_NEW(&allocator, projector->energy_counts, tasks));
  DLI_TRY_DONE(dli_tensors_copy(tensors, bases_name, DLI_F64, 2, shape, projector->bases));
  DLI_TRY_DONE(dli_tensors_copy(tensors, name, DLI_U64, 1, edges, projector->starts));
  DLI_TRY_DONE(dli_saved_name(name, prefix, "energy_sums"));
  DLI_TRY_DONE(dli_tensors_copy(tensors, name, DLI_F64, 1, &tasks, projector->energy_sums));
  DLI_TRY_DONE(dli_saved_name(name, prefix, "energy_counts"));
  DLI_TRY_DONE(dli_tensors_copy(tensors, name, DLI_U64, 1, &tasks, projector->energy_counts));
  DLI_TRY_DONE(check_groups(projector, label, prefix));
  DLI_TRY_DONE(check_bases(projector, label, bases_name));
  for (size_t i = 0; i < size * dim; i++) projector->bases_f32[i] = (float)projector->bases[i];
  *out = projector;
  projector = NULL;
done:
  dlora_projector_destroy(projector);
  return status;
}

dlora_status dli_projector_write_open(const dlora_projector *projector, struct dli_writer *writer, const char *prefix) {
  const size_t shape[] = {projector->dim, projector->dim}, one = 1;
  char name[DLI_SAVED_NAME_SIZE];
  if (projector->observed == 0) return DLORA_OK;
  DLI_TRY(dli_saved_name(name, prefix, "observed"));
  DLI_TRY(dli_writer_add(writer, name, DLI_U64, 1, &one, &projector->observed));
  DLI_TRY(dli_saved_name(name, prefix, "moment"));
  return dli_writer_add(writer, name, DLI_F64, 2, shape, projector->moment);
}

dlora_status dli_projector_read_open(dlora_projector *projector, const struct dli_tensors *tensors,
                                     const char *prefix) {
  const size_t shape[] = {projector->dim, projector->dim}, one = 1;
  const struct dli_tensor *moment = NULL;
  uint64_t observed = 0;
  char name[DLI_SAVED_NAME_SIZE];
  DLI_TRY(dli_saved_name(name, prefix, "observed"));
  DLI_TRY(dli_tensors_copy(tensors, name, DLI_U64, 1, &one, &observed));
  if (observed == 0 || observed > (uint64_t)1 << 53) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has an impossible value", dli_tensors_label(tensors), name);
  }
  DLI_TRY(dli_saved_name(name, prefix, "moment"));
  DLI_TRY(dli_tensors_require(tensors, name, DLI_F64, 2, shape, &moment));
  DLI_TRY(DLI_NEW(&projector->allocator, projector->moment, moment->count));
  memcpy(projector->moment, moment->data, moment->num_bytes);
  projector->observed = observed;
  if (dli_may_be_moment(projector->moment, projector->dim)) return DLORA_OK;
  dlora_projector_discard_task(projector);
  return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is not a sum of squares", dli_tensors_label(tensors), name);
}

/* ---- a file of its own ---- */

static dlora_status write_projector(const void *handle, struct dli_writer *writer) {
  return dli_projector_write(handle, writer, "projector");
}

static dlora_status read_projector(void *out, const struct dli_tensors *tensors, const void *options) {
  return dli_projector_read(out, tensors, "projector", options);
}

dlora_status dlora_projector_save(const dlora_projector *projector, const char *path) {
  DLI_REQUIRE(projector);
  DLI_REQUIRE(path);
  return dli_saved_save(projector, path, FORMAT, write_projector, &projector->allocator);
}

dlora_status dlora_projector_load(dlora_projector **out, const char *path, const dlora_projector_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(path);
  dlora_projector_options known = DLORA_PROJECTOR_OPTIONS_INIT;
  DLI_TRY(dli_options_read("dlora_projector_options", &known, sizeof known, options));
  return dli_saved_load(out, path, FORMAT, read_projector, known.allocator, &known);
}
