/* The open task of a predictor in a learner's file: its sums, held-out features and sample. docs/FILES.md.
 * SPDX-License-Identifier: Apache-2.0
 *
 * As in file.c, one list of fields serves writing and reading, and nothing is taken from a file before its checks. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/saved_file.h"
#include "linalg/symmetric.h"
#include "src/predictor/fields.h"
#include "src/predictor/predictor.h"
#include "src/predictor/state.h"

/* Sums of the open task's num components. */
static size_t list_open(const dlora_predictor *predictor, size_t num, struct dli_field fields[DLI_MAX_FIELDS]) {
  const struct dli_statistics *open = &predictor->open;
  size_t dim = predictor->dim, random = predictor->random_features, count = 0;
  fields[count++] = (struct dli_field){"classes", DLI_I64, 1, {num}, open->classes};
  fields[count++] = (struct dli_field){"counts", DLI_U64, 1, {num}, open->counts};
  fields[count++] = (struct dli_field){"means", DLI_F64, 2, {num, dim}, open->means};
  if (num == 0) return count; /* matrices come with the first features */
  fields[count++] = (struct dli_field){"scatter", DLI_F64, 2, {dim, dim}, open->scatter};
  if (random > 0) {
    fields[count++] = (struct dli_field){"cross", DLI_F64, 2, {num, random}, open->cross};
    fields[count++] = (struct dli_field){"gram", DLI_F64, 2, {random, random}, open->gram};
  }
  return count;
}

static bool is_mirrored(const dlora_predictor *predictor, const struct dli_rows *rows) {
  return rows->count > 0 &&
         memcmp(rows->features, rows->mirrored, rows->count * predictor->dim * sizeof *rows->features) != 0;
}

dlora_status dli_predictor_write_open(const dlora_predictor *predictor, struct dli_writer *writer, const char *prefix) {
  const struct dli_rows *held_out = &predictor->held_out, *sample = &predictor->sample;
  struct dli_field fields[DLI_MAX_FIELDS];
  size_t count = list_open(predictor, predictor->open.num, fields);
  fields[count++] =
      (struct dli_field){"held_out_features", DLI_F32, 2, {held_out->count, predictor->dim}, held_out->features};
  if (is_mirrored(predictor, held_out)) {
    fields[count++] =
        (struct dli_field){"held_out_mirrored", DLI_F32, 2, {held_out->count, predictor->dim}, held_out->mirrored};
  }
  fields[count++] = (struct dli_field){"held_out_labels", DLI_I64, 1, {held_out->count}, held_out->labels};
  fields[count++] = (struct dli_field){"held_out_keys", DLI_U64, 1, {held_out->count}, held_out->keys};
  fields[count++] =
      (struct dli_field){"sample_features", DLI_F32, 2, {sample->count, predictor->dim}, sample->features};
  if (is_mirrored(predictor, sample)) {
    fields[count++] =
        (struct dli_field){"sample_mirrored", DLI_F32, 2, {sample->count, predictor->dim}, sample->mirrored};
  }
  fields[count++] = (struct dli_field){"sample_labels", DLI_I64, 1, {sample->count}, sample->labels};
  fields[count++] = (struct dli_field){"sample_keys", DLI_U64, 1, {sample->count}, sample->keys};
  return dli_fields_write(writer, prefix, fields, count);
}

/* NULL, or the suffix of the tensor of the open task with an impossible value. */
static const char *find_impossible_open(const dlora_predictor *predictor) {
  const struct dli_statistics *open = &predictor->open;
  size_t num = open->num, dim = predictor->dim, random = predictor->random_features;
  uint64_t total = 0;
  for (size_t i = 0; i < num; i++) {
    if (open->counts[i] == 0 || open->counts[i] > ((uint64_t)1 << 53) - total) return "counts";
    total += open->counts[i];
    for (size_t j = 0; j < i; j++) {
      if (open->classes[i] == open->classes[j]) return "classes";
    }
  }
  if (!dli_all_finite(open->means, num * dim)) return "means";
  if (num > 0 && !dli_may_be_moment(open->scatter, dim)) return "scatter";
  if (num > 0 && random > 0 && !dli_all_finite(open->cross, num * random)) return "cross";
  if (num > 0 && random > 0 && !dli_may_be_moment(open->gram, random)) return "gram";
  return NULL;
}

static dlora_status read_open_sums(dlora_predictor *predictor, const struct dli_tensors *tensors, const char *prefix) {
  const size_t any[] = {SIZE_MAX};
  const struct dli_tensor *tensor = NULL;
  struct dli_field fields[DLI_MAX_FIELDS];
  char name[DLI_SAVED_NAME_SIZE];
  DLI_TRY(dli_saved_name(name, prefix, "classes"));
  DLI_TRY(dli_tensors_require(tensors, name, DLI_I64, 1, any, &tensor));
  const size_t num = tensor->count;
  const size_t count = list_open(predictor, num, fields);
  DLI_TRY(dli_fields_require(tensors, prefix, fields, count));
  if (num == 0) return DLORA_OK;
  DLI_TRY(dli_statistics_new(predictor, &predictor->open, num));
  (void)list_open(predictor, num, fields);
  DLI_TRY(dli_fields_copy(tensors, prefix, fields, count));
  predictor->open.num = num;
  const char *bad = find_impossible_open(predictor);
  if (!bad) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s.%s has an impossible value", dli_tensors_label(tensors), prefix,
                   bad);
}

/* Reads floats [count, dim] from the tensor "<prefix>.<what>_<part>". Without such a tensor, copies `absent`; with
 * absent NULL the tensor is required. */
static dlora_status read_features(const dlora_predictor *predictor, float **out, const struct dli_tensors *tensors,
                                  const char *prefix, const char *what, const char *part, size_t count,
                                  const float *absent) {
  const struct dli_tensor *tensor = NULL;
  char suffix[32], name[DLI_SAVED_NAME_SIZE];
  snprintf(suffix, sizeof suffix, "%s_%s", what, part);
  DLI_TRY(dli_saved_name(name, prefix, suffix));
  const bool copies = absent && !dli_tensors_find(tensors, name);
  if (!copies) {
    DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, 2, (size_t[]){count, predictor->dim}, &tensor));
  }
  DLI_TRY(DLI_NEW(&predictor->allocator, *out, count * predictor->dim));
  if (!copies) return dli_tensor_to_float(tensors, tensor, *out);
  memcpy(*out, absent, count * predictor->dim * sizeof **out);
  return DLORA_OK;
}

/* The first files have no keys: these were hashes of the features. */
static dlora_status read_keys(const dlora_predictor *predictor, struct dli_rows *rows,
                              const struct dli_tensors *tensors, const char *prefix, const char *what) {
  char part[32], name[DLI_SAVED_NAME_SIZE];
  snprintf(part, sizeof part, "%s_keys", what);
  DLI_TRY(dli_saved_name(name, prefix, part));
  DLI_TRY(DLI_NEW(&predictor->allocator, rows->keys, rows->count));
  if (dli_tensors_find(tensors, name)) {
    return dli_tensors_copy(tensors, name, DLI_U64, 1, &rows->count, rows->keys);
  }
  dli_rows_hash(predictor, rows);
  return DLORA_OK;
}

/* Reads the tensors "<prefix>.<what>_features", "..._labels" and, of image pairs, "..._mirrored", with at most `most`
 * rows. */
static dlora_status read_rows(const dlora_predictor *predictor, struct dli_rows *rows,
                              const struct dli_tensors *tensors, const char *prefix, const char *what, size_t most) {
  const struct dli_tensor *labels = NULL;
  char part[32], name[DLI_SAVED_NAME_SIZE];
  snprintf(part, sizeof part, "%s_labels", what);
  DLI_TRY(dli_saved_name(name, prefix, part));
  DLI_TRY(dli_tensors_require(tensors, name, DLI_I64, 1, (size_t[]){SIZE_MAX}, &labels));
  if (labels->count > most) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has %zu labels, expected at most %zu", dli_tensors_label(tensors),
                     name, labels->count, most);
  }
  DLI_TRY(read_features(predictor, &rows->features, tensors, prefix, what, "features", labels->count, NULL));
  DLI_TRY(read_features(predictor, &rows->mirrored, tensors, prefix, what, "mirrored", labels->count, rows->features));
  DLI_TRY(DLI_NEW(&predictor->allocator, rows->labels, labels->count));
  if (labels->count > 0) memcpy(rows->labels, labels->data, labels->num_bytes);
  rows->count = rows->capacity = labels->count;
  return read_keys(predictor, rows, tensors, prefix, what);
}

static dlora_status read_sample(dlora_predictor *predictor, const struct dli_tensors *tensors, const char *prefix) {
  struct dli_rows rows = {0};
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(read_rows(predictor, &rows, tensors, prefix, "sample", DLI_SAMPLE));
  for (size_t i = 0; i < rows.count; i++) {
    size_t c = 0;
    while (c < predictor->open.num && predictor->open.classes[c] != rows.labels[i]) c++;
    if (c < predictor->open.num) continue;
    status = dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s.sample_labels names a class that was not observed",
                       dli_tensors_label(tensors), prefix);
    goto done;
  }
  DLI_TRY_DONE(dli_sample_reserve(predictor, rows.count));
  dli_sample_add(predictor, rows.features, rows.mirrored, rows.labels, rows.keys, rows.count);
done:
  dli_rows_free(predictor, &rows);
  return status;
}

dlora_status dli_predictor_read_open(dlora_predictor *predictor, const struct dli_tensors *tensors,
                                     const char *prefix) {
  dlora_status status = read_open_sums(predictor, tensors, prefix);
  if (status == DLORA_OK) status = read_rows(predictor, &predictor->held_out, tensors, prefix, "held_out", SIZE_MAX);
  if (status == DLORA_OK) status = read_sample(predictor, tensors, prefix);
  if (status != DLORA_OK) dlora_predictor_discard_task(predictor);
  return status;
}

uint64_t dli_predictor_open_total(const dlora_predictor *predictor) {
  return dli_statistics_total(&predictor->open) + predictor->held_out.count;
}

const int64_t *dli_predictor_open_classes(const dlora_predictor *predictor, size_t *num_classes) {
  *num_classes = predictor->open.num;
  return predictor->open.classes;
}

const int64_t *dli_predictor_open_labels(const dlora_predictor *predictor, size_t *num_labels) {
  *num_labels = predictor->held_out.count;
  return predictor->held_out.labels;
}
