/* The life of a predictor and of its open task: observing, commit, append, merge. METHOD.md 7.2.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A predictor has statistics of finished tasks (statistics.c), the readout computed from them (readout.c), and the
 * results of leave-one-out features (calibration.c). An open task adds statistics of its own, held-out features and a
 * sample (rows.c). Whatever replaces the finished part is built as a struct change first. Taking it cannot fail. */
#include "src/predictor/predictor.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/status.h"
#include "src/predictor/state.h"

#define PROJECTION_STREAM 0x70726f6a /* "proj": independent of other uses of the same seed */

dlora_status dlora_predictor_options_init(dlora_predictor_options *options, size_t size) {
  DLI_REQUIRE(options);
  const dlora_predictor_options defaults = DLORA_PREDICTOR_OPTIONS_INIT;
  return dli_struct_write("dlora_predictor_options", options, size, &defaults, sizeof defaults);
}

static dlora_status check_options(const char *function, const dlora_predictor_options *options) {
  bool random = options->readout == DLORA_READOUT_RANDOM_PROJECTION;
  if (!random && options->readout != DLORA_READOUT_GAUSSIAN) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: options.readout is %d, expected one of DLORA_READOUT_...", function,
                     (int)options->readout);
  }
  if (random && (options->random_features == 0 || options->random_features > DLI_PREDICTOR_MAX_DIM)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: options.random_features is %zu, expected 1 ... %zu", function,
                     options->random_features, DLI_PREDICTOR_MAX_DIM);
  }
  if (options->shrinkage != DLORA_AUTO && !(options->shrinkage > 0.0f && options->shrinkage <= FLT_MAX)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: options.shrinkage is %g, expected a finite value > 0 or DLORA_AUTO",
                     function, (double)options->shrinkage);
  }
  if (!(options->temperature > 0.0f && options->temperature <= FLT_MAX)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: options.temperature is %g, expected a finite value > 0", function,
                     (double)options->temperature);
  }
  if (random && !(options->ridge > 0.0f && options->ridge <= FLT_MAX)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: options.ridge is %g, expected a finite value > 0", function,
                     (double)options->ridge);
  }
  return DLORA_OK;
}

dlora_status dli_predictor_new(dlora_predictor **out, const char *function, size_t dim,
                               const dlora_predictor_options *options) {
  *out = NULL;
  if (dim == 0 || dim > DLI_PREDICTOR_MAX_DIM) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: dim is %zu, expected 1 ... %zu", function, dim, DLI_PREDICTOR_MAX_DIM);
  }
  DLI_TRY(check_options(function, options));
  dlora_allocator allocator;
  DLI_TRY(dli_allocator_read(&allocator, options->allocator));

  dlora_status status = DLORA_OK;
  dlora_predictor *predictor = NULL;
  size_t projection = 0;
  DLI_TRY(DLI_NEW(&allocator, predictor, 1));
  predictor->allocator = allocator;
  DLI_TRY_DONE(dli_pool_create(&predictor->scratch, &allocator));
  predictor->dim = dim;
  predictor->readout = (uint64_t)options->readout;
  predictor->use_prior = options->use_prior != 0;
  predictor->saved_random_features = options->random_features;
  predictor->seed = options->seed;
  predictor->shrinkage = options->shrinkage > 0.0f ? (double)options->shrinkage : 0.0;
  predictor->initial_temperature = predictor->temperature = (double)options->temperature;
  predictor->broad_weight = DLI_BROAD_WEIGHT;
  predictor->ridge = (double)options->ridge;
  predictor->threshold = HUGE_VAL;
  if (options->readout == DLORA_READOUT_RANDOM_PROJECTION) {
    predictor->random_features = options->random_features;
    if (!dli_multiply(&projection, dim, options->random_features)) {
      status =
          dli_raise(DLORA_ERR_NO_MEMORY, "no memory for a [%zu, %zu] random projection", dim, options->random_features);
      goto done;
    }
    DLI_TRY_DONE(DLI_NEW(&allocator, predictor->projection, projection));
    struct dli_random random;
    dli_random_seed(&random, options->seed, PROJECTION_STREAM);
    for (size_t i = 0; i < projection; i++) predictor->projection[i] = dli_random_normal(&random);
  }
  DLI_TRY_DONE(dli_statistics_new(predictor, &predictor->finished, 0));
  *out = predictor;
  predictor = NULL;
done:
  dlora_predictor_destroy(predictor);
  return status;
}

dlora_status dlora_predictor_create(dlora_predictor **out, size_t dim, const dlora_predictor_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  dlora_predictor_options known = DLORA_PREDICTOR_OPTIONS_INIT;
  DLI_TRY(dli_options_read("dlora_predictor_options", &known, sizeof known, options));
  return dli_predictor_new(out, __func__, dim, &known);
}

dlora_status dlora_predictor_clone(dlora_predictor **out, const dlora_predictor *predictor) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(predictor);
  dlora_status status = DLORA_OK;
  dlora_predictor *copy = NULL;
  DLI_TRY(DLI_NEW(&predictor->allocator, copy, 1));
  copy->allocator = predictor->allocator;
  DLI_TRY_DONE(dli_pool_create(&copy->scratch, &copy->allocator));
  copy->dim = predictor->dim;
  copy->num_tasks = predictor->num_tasks;
  copy->random_features = predictor->random_features;
  copy->readout = predictor->readout;
  copy->use_prior = predictor->use_prior;
  copy->saved_random_features = predictor->saved_random_features;
  copy->seed = predictor->seed;
  copy->shrinkage = predictor->shrinkage;
  copy->initial_temperature = predictor->initial_temperature;
  copy->ridge = predictor->ridge;
  copy->temperature = predictor->temperature;
  copy->broad_weight = predictor->broad_weight;
  copy->temperature_set = predictor->temperature_set;
  copy->threshold = predictor->threshold;
  if (predictor->projection) {
    size_t projection = predictor->dim * predictor->random_features;
    DLI_TRY_DONE(DLI_NEW(&copy->allocator, copy->projection, projection));
    memcpy(copy->projection, predictor->projection, projection * sizeof *copy->projection);
  }
  DLI_TRY_DONE(dli_statistics_copy(copy, &copy->finished, &predictor->finished));
  if (predictor->open.num > 0) DLI_TRY_DONE(dli_statistics_copy(copy, &copy->open, &predictor->open));
  DLI_TRY_DONE(dli_readout_build(copy, &copy->readout_state, &copy->finished, true));
  DLI_TRY_DONE(dli_rows_reserve(copy, &copy->held_out, predictor->held_out.count));
  dli_rows_append(copy, &copy->held_out, predictor->held_out.features, predictor->held_out.mirrored,
                  predictor->held_out.labels, predictor->held_out.keys, predictor->held_out.count);
  DLI_TRY_DONE(dli_sample_reserve(copy, predictor->sample.count));
  dli_sample_add(copy, predictor->sample.features, predictor->sample.mirrored, predictor->sample.labels,
                 predictor->sample.keys, predictor->sample.count);
  DLI_TRY_DONE(
      dli_calibration_copy(copy, &copy->calibration, &predictor->calibration, copy->num_tasks, copy->num_tasks));
  *out = copy;
  copy = NULL;
done:
  dlora_predictor_destroy(copy);
  return status;
}

void dlora_predictor_destroy(dlora_predictor *predictor) {
  if (!predictor) return;
  dlora_allocator allocator = predictor->allocator;
  dli_calibration_free(predictor, &predictor->calibration);
  dli_rows_free(predictor, &predictor->sample);
  dli_rows_free(predictor, &predictor->held_out);
  dli_readout_free(predictor, &predictor->readout_state);
  dli_statistics_free(predictor, &predictor->open);
  dli_statistics_free(predictor, &predictor->finished);
  dli_free(&allocator, predictor->projection);
  dli_pool_destroy(predictor->scratch);
  dli_free(&allocator, predictor);
}

void dli_predictor_release(const dlora_predictor *predictor) {
  dli_pool_clear(predictor->scratch);
}

size_t dlora_predictor_dim(const dlora_predictor *predictor) {
  return predictor ? predictor->dim : 0;
}

size_t dlora_predictor_num_tasks(const dlora_predictor *predictor) {
  return predictor ? predictor->num_tasks : 0;
}

size_t dlora_predictor_num_classes(const dlora_predictor *predictor) {
  return predictor ? predictor->readout_state.num_classes : 0;
}

size_t dlora_predictor_num_components(const dlora_predictor *predictor) {
  return predictor ? predictor->finished.num : 0;
}

dlora_status dlora_predictor_get_classes(const dlora_predictor *predictor, int64_t *classes) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(classes);
  const struct dli_readout *readout = &predictor->readout_state;
  for (size_t i = 0; i < readout->num_classes; i++) classes[i] = readout->classes[i];
  return DLORA_OK;
}

dlora_status dlora_predictor_get_components(const dlora_predictor *predictor, int64_t *tasks, int64_t *classes,
                                            uint64_t *counts, double *means) {
  DLI_REQUIRE(predictor);
  const struct dli_statistics *finished = &predictor->finished;
  for (size_t i = 0; i < finished->num; i++) {
    if (tasks) tasks[i] = finished->tasks[i];
    if (classes) classes[i] = finished->classes[i];
    if (counts) counts[i] = finished->counts[i];
  }
  for (size_t i = 0; means && i < finished->num * predictor->dim; i++) means[i] = finished->means[i];
  return DLORA_OK;
}

dlora_status dlora_predictor_get_scatter(const dlora_predictor *predictor, double *scatter) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(scatter);
  memcpy(scatter, predictor->finished.scatter, predictor->dim * predictor->dim * sizeof *scatter);
  return DLORA_OK;
}

dlora_status dlora_predictor_get_projection(const dlora_predictor *predictor, size_t *random_features, double *matrix) {
  DLI_REQUIRE(predictor);
  if (!predictor->projection) {
    return dli_raise(DLORA_ERR_STATE, "%s: the predictor's readout is Gaussian; there is no random projection",
                     __func__);
  }
  const size_t count = predictor->dim * predictor->random_features;
  if (random_features) *random_features = predictor->random_features;
  if (matrix) memcpy(matrix, predictor->projection, count * sizeof *matrix);
  return DLORA_OK;
}

dlora_status dli_check_features(const char *function, const char *name, const float *features, size_t n, size_t dim) {
  size_t count = 0;
  if (!features) return dli_raise(DLORA_ERR_ARGUMENT, "%s: %s is NULL", function, name);
  if (n == 0) return dli_raise(DLORA_ERR_ARGUMENT, "%s: n is 0, expected at least 1", function);
  if (!dli_multiply(&count, n, dim) || count > SIZE_MAX / sizeof(double)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: n is %zu, too many for features of width %zu", function, n, dim);
  }
  size_t bad = dli_first_not_finite(features, count);
  if (bad < count) {
    return dli_raise(DLORA_ERR_NOT_FINITE, "%s: %s[%zu, %zu] is %f, expected a finite value", function, name, bad / dim,
                     bad % dim, (double)features[bad]);
  }
  return DLORA_OK;
}

dlora_status dli_predictor_observe(dlora_predictor *predictor, const char *function, const float *features,
                                   const float *mirrored, const int64_t *labels, const uint64_t *keys, size_t n,
                                   bool held_out) {
  DLI_TRY(dli_check_features(function, "features", features, n, predictor->dim));
  if (mirrored != features) DLI_TRY(dli_check_features(function, "mirrored", mirrored, n, predictor->dim));
  dli_pool_clear(predictor->scratch); /* leaves the memory to learning */
  if (held_out) {
    DLI_TRY(dli_rows_reserve(predictor, &predictor->held_out, n));
    dli_rows_append(predictor, &predictor->held_out, features, mirrored, labels, keys, n);
    return DLORA_OK;
  }
  DLI_TRY(dli_sample_reserve(predictor, n));
  DLI_TRY(dli_statistics_observe(predictor, &predictor->open, 0, features, mirrored, labels, n));
  dli_sample_add(predictor, features, mirrored, labels, keys, n);
  return DLORA_OK;
}

dlora_status dlora_predictor_observe(dlora_predictor *predictor, const float *features, const int64_t *labels,
                                     size_t n) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(labels);
  return dli_predictor_observe(predictor, __func__, features, features, labels, NULL, n, false);
}

dlora_status dlora_predictor_observe_held_out(dlora_predictor *predictor, const float *features, const int64_t *labels,
                                              size_t n) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(labels);
  return dli_predictor_observe(predictor, __func__, features, features, labels, NULL, n, true);
}

dlora_status dlora_predictor_observe_pair(dlora_predictor *predictor, const float *features, const float *mirrored,
                                          const int64_t *labels, size_t n, int32_t held_out) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(labels);
  return dli_predictor_observe(predictor, __func__, features, mirrored, labels, NULL, n, held_out != 0);
}

dlora_status dlora_predictor_discard_task(dlora_predictor *predictor) {
  DLI_REQUIRE(predictor);
  dli_statistics_free(predictor, &predictor->open);
  dli_rows_free(predictor, &predictor->sample);
  dli_rows_free(predictor, &predictor->held_out);
  return DLORA_OK;
}

/* The new finished part, built before the predictor changes. After change_take it holds the old one, to be freed. */
struct change {
  size_t num_tasks;
  bool fitted; /* T follows the leave-one-out features that the change brings */
  double temperature, threshold, broad_weight;
  struct dli_statistics finished;
  struct dli_readout readout;
  struct dli_calibration calibration;
};

static void change_free(const dlora_predictor *predictor, struct change *change) {
  dli_statistics_free(predictor, &change->finished);
  dli_readout_free(predictor, &change->readout);
  dli_calibration_free(predictor, &change->calibration);
}

/* Computes temperature and threshold of a change that has statistics, readout and calibration. */
static dlora_status change_complete(const dlora_predictor *predictor, struct change *change) {
  change->temperature = predictor->temperature;
  if (change->fitted) {
    const double temperature =
        dli_calibration_temperature(&change->calibration, &change->finished, &change->readout, change->num_tasks);
    if (temperature > 0.0) change->temperature = temperature;
  }
  return dli_calibration_threshold(predictor, &change->calibration, change->num_tasks, DLI_UNKNOWN_QUANTILE,
                                   &change->threshold);
}

static void change_take(dlora_predictor *predictor, struct change *change) {
  dli_pool_clear(predictor->scratch); /* of the old sizes */
  struct dli_statistics finished = predictor->finished;
  struct dli_readout readout = predictor->readout_state;
  struct dli_calibration calibration = predictor->calibration;
  predictor->finished = change->finished, change->finished = finished;
  predictor->readout_state = change->readout, change->readout = readout;
  predictor->calibration = change->calibration, change->calibration = calibration;
  predictor->num_tasks = change->num_tasks;
  predictor->temperature = change->temperature;
  predictor->broad_weight = change->broad_weight;
  if (change->fitted) predictor->temperature_set = DLI_TEMPERATURE_FITTED;
  predictor->threshold = change->threshold;
}

/* The end of the open task, on copies (METHOD.md 7.2):
 *
 *   1. Statistics of the finished tasks and of the open one are joined, and held-out features are added.
 *   2. The readout: C is factorised, and weights, q and the matrices of the unknown score follow.
 *   3. Sample and held-out features are scored as if each had never been observed, and T_t is fitted to them.
 *   4. T of all tasks and the threshold of the unknown score are updated.
 *   5. The copies replace the finished part, and the open task is discarded. */
static dlora_status prepare_commit(const dlora_predictor *predictor, struct change *change) {
  const struct dli_rows *held_out = &predictor->held_out;
  const size_t task = predictor->num_tasks;
  change->num_tasks = task + 1;
  change->broad_weight = predictor->broad_weight;
  DLI_TRY(dli_calibration_copy(predictor, &change->calibration, &predictor->calibration, task, task + 1));
  DLI_TRY(
      dli_statistics_join(predictor, &change->finished, &predictor->finished, &predictor->open, (int64_t)task, true));
  if (held_out->count > 0) {
    DLI_TRY(dli_statistics_observe(predictor, &change->finished, (int64_t)task, held_out->features, held_out->mirrored,
                                   held_out->labels, held_out->count));
    dli_statistics_symmetrize(predictor, &change->finished);
  }
  DLI_TRY(dli_readout_build(predictor, &change->readout, &change->finished, true));
  DLI_TRY(dli_calibration_fit(predictor, &change->calibration, task, &change->finished, &change->readout));
  change->fitted = change->calibration.held_out[task] > 0 &&
                   (held_out->count > 0 || predictor->temperature_set != DLI_TEMPERATURE_BY_HAND);
  return change_complete(predictor, change);
}

dlora_status dlora_predictor_commit_task(dlora_predictor *predictor) {
  DLI_REQUIRE(predictor);
  if (predictor->open.num == 0 && predictor->held_out.count == 0) {
    return dli_raise(DLORA_ERR_STATE,
                     "%s: nothing was observed since the last commit or discard; call dlora_predictor_observe first",
                     __func__);
  }
  struct change change = {0};
  const dlora_status status = prepare_commit(predictor, &change);
  if (status == DLORA_OK) {
    change_take(predictor, &change);
    dlora_predictor_discard_task(predictor);
  }
  change_free(predictor, &change);
  return status;
}

dlora_status dli_predictor_judge(const dlora_predictor *predictor, const struct dli_rows *rows,
                                 struct dli_judgement *out) {
  const dlora_allocator *allocator = &predictor->allocator;
  struct change change = {0};
  dlora_status status = DLORA_OK;
  *out = (struct dli_judgement){0};
  DLI_TRY_DONE(prepare_commit(predictor, &change));
  DLI_TRY_DONE(
      dli_leave_one_out(predictor, &change.finished, &change.readout, predictor->num_tasks, rows, &out->left_out));
  out->num = change.finished.num;
  DLI_TRY_DONE(DLI_NEW(allocator, out->tasks, out->num));
  DLI_TRY_DONE(DLI_NEW(allocator, out->classes, out->num));
  memcpy(out->tasks, change.finished.tasks, out->num * sizeof *out->tasks);
  memcpy(out->classes, change.finished.classes, out->num * sizeof *out->classes);
  DLI_TRY_DONE(DLI_NEW(allocator, out->expected, out->left_out.count));
  for (size_t i = 0; i < out->left_out.count; i++) {
    size_t c = 0;
    while (change.readout.columns[c] != out->left_out.expected[i]) c++;
    out->expected[i] = out->classes[c];
    dli_normalise_components(out->left_out.scores + i * out->num, out->num, change.temperature, change.broad_weight);
  }
done:
  change_free(predictor, &change);
  if (status != DLORA_OK) dli_judgement_free(predictor, out);
  return status;
}

/* Refuses predictors whose sums are of different widths, readouts or projections. */
static dlora_status check_same(const char *function, const dlora_predictor *predictor, const dlora_predictor *other) {
  if (predictor->dim != other->dim) {
    return dli_raise(DLORA_ERR_MISMATCH, "%s: predictor has dim %zu, other has %zu", function, predictor->dim,
                     other->dim);
  }
  if (predictor->readout != other->readout) {
    return dli_raise(DLORA_ERR_MISMATCH, "%s: predictor has readout %d, other has %d", function,
                     (int)predictor->readout, (int)other->readout);
  }
  if (predictor->random_features > 0 &&
      (predictor->random_features != other->random_features || predictor->seed != other->seed)) {
    return dli_raise(DLORA_ERR_MISMATCH,
                     "%s: predictor has %zu random features of seed %llu, other has %zu of seed %llu", function,
                     predictor->random_features, (unsigned long long)predictor->seed, other->random_features,
                     (unsigned long long)other->seed);
  }
  return DLORA_OK;
}

static bool has_scores(const struct dli_calibration *calibration, size_t num_tasks) {
  bool any = false;
  for (size_t i = 0; i < num_tasks; i++) any = any || calibration->held_out[i] > 0;
  return any;
}

/* Builds a change that adds other's finished tasks as tasks `offset`, `offset` + 1, ... */
static dlora_status add_finished(const dlora_predictor *predictor, const dlora_predictor *other, size_t offset,
                                 struct change *change) {
  size_t own = predictor->num_tasks, end = offset + other->num_tasks;
  change->num_tasks = own > end ? own : end;
  change->broad_weight = own > 0 || other->num_tasks == 0 ? predictor->broad_weight : other->broad_weight;
  DLI_TRY(dli_calibration_copy(predictor, &change->calibration, &predictor->calibration, own, change->num_tasks));
  for (size_t i = 0; i < other->num_tasks; i++)
    dli_calibration_add(&change->calibration, offset + i, &other->calibration, i);
  DLI_TRY(
      dli_statistics_join(predictor, &change->finished, &predictor->finished, &other->finished, (int64_t)offset, true));
  DLI_TRY(dli_readout_build(predictor, &change->readout, &change->finished, true));
  change->fitted =
      has_scores(&other->calibration, other->num_tasks) && predictor->temperature_set != DLI_TEMPERATURE_BY_HAND;
  return change_complete(predictor, change);
}

dlora_status dlora_predictor_append(dlora_predictor *predictor, const dlora_predictor *other) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(other);
  DLI_TRY(check_same(__func__, predictor, other));
  struct change change = {0};
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(add_finished(predictor, other, predictor->num_tasks, &change));
  change_take(predictor, &change);
done:
  change_free(predictor, &change);
  return status;
}

dlora_status dlora_predictor_merge(dlora_predictor *predictor, const dlora_predictor *other) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(other);
  DLI_TRY(check_same(__func__, predictor, other));
  bool open = other->open.num > 0 || other->held_out.count > 0;
  if (open && predictor->num_tasks > 0 && other->num_tasks > 0 && predictor->num_tasks != other->num_tasks) {
    return dli_raise(DLORA_ERR_MISMATCH, "%s: other's open task is task %zu, the predictor's is task %zu", __func__,
                     other->num_tasks, predictor->num_tasks);
  }
  struct change change = {0};
  struct dli_statistics joined = {0};
  size_t held_out = other->held_out.count;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(add_finished(predictor, other, 0, &change));
  DLI_TRY_DONE(dli_statistics_join(predictor, &joined, &predictor->open, &other->open, 0, true));
  DLI_TRY_DONE(dli_rows_reserve(predictor, &predictor->held_out, held_out));
  DLI_TRY_DONE(dli_sample_reserve(predictor, other->sample.count));
  dli_rows_append(predictor, &predictor->held_out, other->held_out.features, other->held_out.mirrored,
                  other->held_out.labels, other->held_out.keys, held_out);
  dli_sample_add(predictor, other->sample.features, other->sample.mirrored, other->sample.labels, other->sample.keys,
                 other->sample.count);
  change_take(predictor, &change);
  struct dli_statistics replaced = predictor->open;
  predictor->open = joined, joined = replaced;
done:
  dli_statistics_free(predictor, &joined);
  change_free(predictor, &change);
  return status;
}

float dlora_predictor_temperature(const dlora_predictor *predictor) {
  return predictor ? (float)predictor->temperature : 0.0f;
}

dlora_status dlora_predictor_set_temperature(dlora_predictor *predictor, float temperature) {
  DLI_REQUIRE(predictor);
  if (!(temperature > 0.0f && temperature <= FLT_MAX)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: temperature is %g, expected a finite value > 0", __func__,
                     (double)temperature);
  }
  predictor->temperature = (double)temperature;
  predictor->temperature_set = DLI_TEMPERATURE_BY_HAND;
  return DLORA_OK;
}

dlora_status dlora_predictor_unknown_threshold(const dlora_predictor *predictor, float quantile, float *threshold) {
  DLI_REQUIRE(predictor);
  DLI_REQUIRE(threshold);
  double found = 0.0;
  if (!(quantile > 0.0f && quantile < 1.0f)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: quantile is %g, expected a fraction in (0, 1)", __func__,
                     (double)quantile);
  }
  if (!has_scores(&predictor->calibration, predictor->num_tasks)) {
    return dli_raise(DLORA_ERR_STATE,
                     "%s: no finished task had two features of a class, or held-out ones of a class it observed",
                     __func__);
  }
  DLI_TRY(
      dli_calibration_threshold(predictor, &predictor->calibration, predictor->num_tasks, (double)quantile, &found));
  *threshold = dli_to_float(found);
  return DLORA_OK;
}
