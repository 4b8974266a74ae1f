/* Predictors in safetensors files: settings, sums and calibration. docs/FILES.md.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One list of fields for each group says tensor name, type, shape and address; writing and reading walk through the
 * same list. Files are untrusted input: all shapes are checked before anything is allocated, then all values. The
 * readout is not stored but computed again. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/saved_file.h"
#include "src/predictor/fields.h"
#include "src/predictor/predictor.h"
#include "src/predictor/state.h"

#define FORMAT "duallora.predictor.1"
#define MAX_SETTINGS 10

/* Options and temperature, one value each. Tensors keep every bit, in any locale. */
static size_t list_settings(const dlora_predictor *predictor, struct dli_field fields[MAX_SETTINGS]) {
  const struct dli_field list[] = {
      {"readout", DLI_U64, 1, {1}, &predictor->readout},
      {"use_prior", DLI_U64, 1, {1}, &predictor->use_prior},
      {"random_features", DLI_U64, 1, {1}, &predictor->saved_random_features},
      {"seed", DLI_U64, 1, {1}, &predictor->seed},
      {"shrinkage", DLI_F64, 1, {1}, &predictor->shrinkage},
      {"initial_temperature", DLI_F64, 1, {1}, &predictor->initial_temperature},
      {"ridge", DLI_F64, 1, {1}, &predictor->ridge},
      {"temperature", DLI_F64, 1, {1}, &predictor->temperature},
      {"temperature_set", DLI_U64, 1, {1}, &predictor->temperature_set},
  };
  memcpy(fields, list, sizeof list);
  return sizeof list / sizeof *list;
}

/* Sums and calibration of num components in num_tasks tasks. */
static size_t list_sums(const dlora_predictor *predictor, size_t num, size_t num_tasks,
                        struct dli_field fields[DLI_MAX_FIELDS]) {
  const struct dli_statistics *finished = &predictor->finished;
  const struct dli_calibration *calibration = &predictor->calibration;
  size_t dim = predictor->dim, random = predictor->random_features, count = 0;
  fields[count++] = (struct dli_field){"means", DLI_F64, 2, {num, dim}, finished->means};
  fields[count++] = (struct dli_field){"scatter", DLI_F64, 2, {dim, dim}, finished->scatter};
  fields[count++] = (struct dli_field){"tasks", DLI_I64, 1, {num}, finished->tasks};
  fields[count++] = (struct dli_field){"classes", DLI_I64, 1, {num}, finished->classes};
  fields[count++] = (struct dli_field){"counts", DLI_U64, 1, {num}, finished->counts};
  if (random > 0) {
    fields[count++] = (struct dli_field){"cross", DLI_F64, 2, {num, random}, finished->cross};
    fields[count++] = (struct dli_field){"gram", DLI_F64, 2, {random, random}, finished->gram};
  }
  fields[count++] = (struct dli_field){"held_out", DLI_U64, 1, {num_tasks}, calibration->held_out};
  fields[count++] = (struct dli_field){"log_temperatures", DLI_F64, 1, {num_tasks}, calibration->log_temperatures};
  fields[count++] = (struct dli_field){"num_unknown_scores", DLI_U64, 1, {num_tasks}, calibration->num_scores};
  fields[count++] =
      (struct dli_field){"unknown_scores", DLI_F32, 2, {num_tasks, DLI_UNKNOWN_SCORES}, calibration->scores};
  return count;
}

static struct dli_field broad_weight_of(const dlora_predictor *predictor) {
  return (struct dli_field){"broad_share", DLI_F64, 1, {1}, &predictor->broad_weight};
}

static struct dli_field separations_of(const dlora_predictor *predictor) {
  return (struct dli_field){
      "log_separations", DLI_F64, 1, {predictor->num_tasks}, predictor->calibration.log_separations};
}

dlora_status dli_predictor_write(const dlora_predictor *predictor, struct dli_writer *writer, const char *prefix) {
  struct dli_field fields[DLI_MAX_FIELDS + MAX_SETTINGS + 2];
  size_t count = list_sums(predictor, predictor->finished.num, predictor->num_tasks, fields);
  count += list_settings(predictor, fields + count);
  fields[count++] = separations_of(predictor);
  fields[count++] = broad_weight_of(predictor);
  return dli_fields_write(writer, prefix, fields, count);
}

static bool is_positive(double value) {
  return value >= (double)FLT_TRUE_MIN && value <= (double)FLT_MAX;
}

/* The saved options, or the caller's if their readout and projection are the saved ones. */
static dlora_status choose_options(dlora_predictor_options *out, const struct dlora_predictor *saved, const char *label,
                                   const char *prefix, const dlora_predictor_options *given) {
  bool random = saved->readout == DLORA_READOUT_RANDOM_PROJECTION;
  /* Options are floats, hence the range of floats. A shrinkage of 0 is DLORA_AUTO. */
  if (saved->readout > DLORA_READOUT_RANDOM_PROJECTION || saved->temperature_set > DLI_TEMPERATURE_BY_HAND ||
      (random && (saved->saved_random_features == 0 || saved->saved_random_features > DLI_PREDICTOR_MAX_DIM)) ||
      !(saved->shrinkage == 0.0 || is_positive(saved->shrinkage)) || !is_positive(saved->temperature) ||
      !is_positive(saved->initial_temperature) || (random && !is_positive(saved->ridge))) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: the settings of predictor %s are out of range", label, prefix);
  }
  *out = (dlora_predictor_options)DLORA_PREDICTOR_OPTIONS_INIT;
  if (given) {
    DLI_TRY(dli_options_read("dlora_predictor_options", out, sizeof *out, given));
    if ((uint64_t)out->readout != saved->readout ||
        (random && (out->random_features != saved->saved_random_features || out->seed != saved->seed))) {
      return dli_raise(
          DLORA_ERR_MISMATCH,
          "%s: predictor %s was saved with readout %d, %llu random features and seed %llu, the options say "
          "%d, %zu and %llu",
          label, prefix, (int)saved->readout, (unsigned long long)saved->saved_random_features,
          (unsigned long long)saved->seed, (int)out->readout, out->random_features, (unsigned long long)out->seed);
    }
    return DLORA_OK;
  }
  out->readout = (int32_t)saved->readout;
  out->use_prior = saved->use_prior != 0;
  out->random_features = (size_t)saved->saved_random_features;
  out->seed = saved->seed;
  out->shrinkage = saved->shrinkage > 0.0 ? (float)saved->shrinkage : DLORA_AUTO;
  out->temperature = (float)saved->initial_temperature;
  out->ridge = (float)saved->ridge;
  return DLORA_OK;
}

/* NULL, or the suffix of the tensor with an impossible value. */
static const char *find_impossible(const dlora_predictor *predictor) {
  const struct dli_statistics *finished = &predictor->finished;
  const struct dli_calibration *calibration = &predictor->calibration;
  size_t num = finished->num, dim = predictor->dim, random = predictor->random_features, tasks = predictor->num_tasks;
  uint64_t total = 0;
  int64_t last = -1;
  for (size_t i = 0; i < num; i++) {
    if (finished->tasks[i] < 0 || (finished->tasks[i] != last && finished->tasks[i] != last + 1)) return "tasks";
    last = finished->tasks[i];
    /* Counts enter products of doubles, which hold integers up to 2^53. */
    if (finished->counts[i] == 0 || finished->counts[i] > ((uint64_t)1 << 53) - total) return "counts";
    total += finished->counts[i];
  }
  if ((uint64_t)(last + 1) != tasks) return "tasks";
  if (!dli_all_finite(finished->means, num * dim)) return "means";
  if (!dli_all_finite(finished->scatter, dim * dim)) return "scatter";
  if (random > 0 && !dli_all_finite(finished->cross, num * random)) return "cross";
  if (random > 0 && !dli_all_finite(finished->gram, random * random)) return "gram";
  for (size_t i = 0; i < tasks; i++) {
    uint64_t held_out = calibration->held_out[i], scores = calibration->num_scores[i];
    if (held_out > (uint64_t)1 << 53) return "held_out";
    if (scores > DLI_UNKNOWN_SCORES || scores > held_out || (scores == 0) != (held_out == 0))
      return "num_unknown_scores";
    /* Ten is well beyond the logs of the temperatures that are ever fitted. */
    if (!(fabs(calibration->log_temperatures[i]) <= 10.0)) return "log_temperatures";
    for (size_t j = 0; j < DLI_UNKNOWN_SCORES; j++) {
      if (!isfinite(calibration->scores[i * DLI_UNKNOWN_SCORES + j])) return "unknown_scores";
    }
  }
  return NULL;
}

/* Refuses a class that comes twice in a task. */
static dlora_status check_unique(const dlora_predictor *predictor, const char *label, const char *prefix) {
  const struct dli_readout *readout = &predictor->readout_state;
  int64_t *last = NULL; /* [num_classes] 1 + the last task with the class */
  DLI_TRY(DLI_NEW(&predictor->allocator, last, readout->num_classes));
  dlora_status status = DLORA_OK;
  for (size_t i = 0; i < predictor->finished.num && status == DLORA_OK; i++) {
    int64_t *last_task = last + readout->columns[i];
    if (*last_task == predictor->finished.tasks[i] + 1) {
      status = dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s.classes has class %lld twice in task %lld", label, prefix,
                         (long long)predictor->finished.classes[i], (long long)predictor->finished.tasks[i]);
    }
    *last_task = predictor->finished.tasks[i] + 1;
  }
  dli_free(&predictor->allocator, last);
  return status;
}

/* A file without separations gets the present one for every task, with which T is the saved temperature. */
static dlora_status read_separations(dlora_predictor *predictor, const struct dli_tensors *tensors,
                                     const char *prefix) {
  const struct dli_field field = separations_of(predictor);
  double *values = predictor->calibration.log_separations;
  char name[DLI_SAVED_NAME_SIZE];
  DLI_TRY(dli_saved_name(name, prefix, field.suffix));
  if (!dli_tensors_find(tensors, name)) {
    for (size_t i = 0; i < predictor->num_tasks; i++) {
      values[i] = dli_calibration_log_separation(&predictor->readout_state);
    }
    return DLORA_OK;
  }
  DLI_TRY(dli_fields_copy(tensors, prefix, &field, 1));
  for (size_t i = 0; i < predictor->num_tasks; i++) {
    if (fabs(values[i]) <= 1000.0) continue; /* no log of a double is larger */
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has an impossible value", dli_tensors_label(tensors), name);
  }
  return DLORA_OK;
}

/* Temperatures of a file without beta were fitted with DLI_BROAD_WEIGHT_BEFORE. */
static dlora_status read_broad_weight(dlora_predictor *predictor, const struct dli_tensors *tensors,
                                      const char *prefix) {
  const struct dli_field field = broad_weight_of(predictor);
  char name[DLI_SAVED_NAME_SIZE];
  DLI_TRY(dli_saved_name(name, prefix, field.suffix));
  if (!dli_tensors_find(tensors, name)) {
    if (predictor->num_tasks > 0) predictor->broad_weight = DLI_BROAD_WEIGHT_BEFORE;
    return DLORA_OK;
  }
  DLI_TRY(dli_fields_copy(tensors, prefix, &field, 1));
  if (predictor->broad_weight > 0.0 && predictor->broad_weight < 1.0) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has an impossible value", dli_tensors_label(tensors), name);
}

dlora_status dli_predictor_read(dlora_predictor **out, const struct dli_tensors *tensors, const char *prefix,
                                const dlora_predictor_options *options) {
  *out = NULL;
  const char *label = dli_tensors_label(tensors), *bad = NULL;
  const size_t any[] = {SIZE_MAX, SIZE_MAX};
  const struct dli_tensor *means = NULL, *held_out = NULL;
  struct dli_field fields[DLI_MAX_FIELDS];
  char name[DLI_SAVED_NAME_SIZE];
  dlora_predictor saved = {0}; /* settings and sizes only */
  dlora_predictor_options known;
  size_t count = list_settings(&saved, fields);
  DLI_TRY(dli_fields_copy(tensors, prefix, fields, count));
  DLI_TRY(choose_options(&known, &saved, label, prefix, options));
  DLI_TRY(dli_saved_name(name, prefix, "held_out"));
  DLI_TRY(dli_tensors_require(tensors, name, DLI_U64, 1, any, &held_out));
  DLI_TRY(dli_saved_name(name, prefix, "means"));
  DLI_TRY(dli_tensors_require(tensors, name, DLI_F64, 2, any, &means));
  size_t num = means->shape[0], num_tasks = held_out->shape[0];
  saved.dim = means->shape[1];
  if (saved.readout == DLORA_READOUT_RANDOM_PROJECTION) saved.random_features = (size_t)saved.saved_random_features;
  if (saved.dim == 0 || saved.dim > DLI_PREDICTOR_MAX_DIM) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has rows of %zu, expected 1 ... %zu", label, name, saved.dim,
                     DLI_PREDICTOR_MAX_DIM);
  }
  /* Nothing is allocated before the file is known to have it all. */
  count = list_sums(&saved, num, num_tasks, fields);
  DLI_TRY(dli_fields_require(tensors, prefix, fields, count));

  const struct dli_calibration nothing = {0};
  dlora_predictor *predictor = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(dli_predictor_new(&predictor, "predictor options", saved.dim, &known));
  dli_statistics_free(predictor, &predictor->finished);
  DLI_TRY_DONE(dli_statistics_new(predictor, &predictor->finished, num));
  DLI_TRY_DONE(dli_calibration_copy(predictor, &predictor->calibration, &nothing, 0, num_tasks));
  count = list_sums(predictor, num, num_tasks, fields);
  DLI_TRY_DONE(dli_fields_copy(tensors, prefix, fields, count));
  predictor->finished.num = num;
  predictor->num_tasks = num_tasks;
  bad = find_impossible(predictor);
  if (bad) {
    status = dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s.%s has an impossible value", label, prefix, bad);
    goto done;
  }
  dli_statistics_symmetrize(predictor, &predictor->finished);
  if (saved.temperature_set) {
    predictor->temperature = saved.temperature;
    predictor->temperature_set = saved.temperature_set;
  }
  status = dli_readout_build(predictor, &predictor->readout_state, &predictor->finished, true);
  if (status == DLORA_ERR_NUMERIC) {
    status =
        dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s.scatter or %s.gram is not a sum of squares", label, prefix, prefix);
  }
  if (status != DLORA_OK) goto done;
  DLI_TRY_DONE(check_unique(predictor, label, prefix));
  DLI_TRY_DONE(read_separations(predictor, tensors, prefix));
  DLI_TRY_DONE(read_broad_weight(predictor, tensors, prefix));
  DLI_TRY_DONE(dli_calibration_threshold(predictor, &predictor->calibration, num_tasks, DLI_UNKNOWN_QUANTILE,
                                         &predictor->threshold));
  *out = predictor;
  predictor = NULL;
done:
  dlora_predictor_destroy(predictor);
  return status;
}

/* ---- a file of its own ---- */

static dlora_status write_predictor(const void *handle, struct dli_writer *writer) {
  return dli_predictor_write(handle, writer, "predictor");
}

static dlora_status read_predictor(void *out, const struct dli_tensors *tensors, const void *options) {
  return dli_predictor_read(out, tensors, "predictor", options);
}

dlora_status dlora_predictor_save(const dlora_predictor *predictor, const char *path) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(path);
  return dli_saved_save(predictor, path, FORMAT, write_predictor, &predictor->allocator);
}

dlora_status dlora_predictor_load(dlora_predictor **out, const char *path, const dlora_predictor_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(path);
  dlora_predictor_options known = DLORA_PREDICTOR_OPTIONS_INIT;
  DLI_TRY(dli_options_read("dlora_predictor_options", &known, sizeof known, options));
  return dli_saved_load(out, path, FORMAT, read_predictor, known.allocator, options);
}
