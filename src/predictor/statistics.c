/* Statistics of features (METHOD.md 7.1): n_c, mu_c and the pooled scatter of components, and the covariance C.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Features arrive in blocks, statistics of two predictors are joined: both by the formulas of Chan et al., which update
 * means and the scatter around them without a difference of large numbers. With a random projection the sums of relu(z
 * R) are kept too: `gram` = sum of p^T p, and `cross`, the sum of p by component. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "src/predictor/state.h"

#define BLOCK_ROWS 256

/* A variance below this fraction of the mean square of the means is rounding: features are floats, of (2^-24)^2 =
 * 3.6e-15. */
#define NO_VARIANCE 1e-20
/* Least v_i / v in a_i: a column without variance of its own is raised too. */
#define LEAST_VARIANCE 1e-4
/* Least a_i, relative to max(v, sigma). Features of identical images differ by rounding, 1e-12 of sigma or less. In
 * units of that the means lie so far apart that the matrices of the readout are singular to double's 16 digits; 1e-8
 * leaves 4 digits with thousands of columns. The default shrinkage adds 1e-5 v or more. The bound therefore acts only
 * where classes lie more than 30 times as far apart as their images, and first on columns of little variance. */
#define LEAST_RAISE 1e-8

void dli_statistics_free(const dlora_predictor *predictor, struct dli_statistics *statistics) {
  const dlora_allocator *allocator = &predictor->allocator;
  dli_free(allocator, statistics->gram);
  dli_free(allocator, statistics->cross);
  dli_free(allocator, statistics->scatter);
  dli_free(allocator, statistics->means);
  dli_free(allocator, statistics->counts);
  dli_free(allocator, statistics->classes);
  dli_free(allocator, statistics->tasks);
  *statistics = (struct dli_statistics){0};
}

/* Memory for `capacity` components; the matrices stay NULL. */
static dlora_status new_components(const dlora_predictor *predictor, struct dli_statistics *out, size_t capacity,
                                   bool with_random) {
  const dlora_allocator *allocator = &predictor->allocator;
  size_t values = 0, projected = 0;
  if (!dli_multiply(&values, capacity, predictor->dim) ||
      !dli_multiply(&projected, capacity, predictor->random_features)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for %zu components of width %zu", capacity, predictor->dim);
  }
  *out = (struct dli_statistics){.capacity = capacity};
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, out->tasks, capacity));
  DLI_TRY_DONE(DLI_NEW(allocator, out->classes, capacity));
  DLI_TRY_DONE(DLI_NEW(allocator, out->counts, capacity));
  DLI_TRY_DONE(DLI_NEW(allocator, out->means, values));
  if (with_random && projected > 0) DLI_TRY_DONE(DLI_NEW(allocator, out->cross, projected));
done:
  if (status != DLORA_OK) dli_statistics_free(predictor, out);
  return status;
}

static dlora_status need_matrix(const dlora_predictor *predictor, double **matrix, size_t n) {
  size_t count = 0;
  if (*matrix || n == 0) return DLORA_OK;
  if (!dli_multiply(&count, n, n)) return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for a [%zu, %zu] matrix", n, n);
  return DLI_NEW(&predictor->allocator, *matrix, count);
}

dlora_status dli_statistics_new(const dlora_predictor *predictor, struct dli_statistics *out, size_t num) {
  dlora_status status = DLORA_OK;
  DLI_TRY(new_components(predictor, out, num, true));
  DLI_TRY_DONE(need_matrix(predictor, &out->scatter, predictor->dim));
  DLI_TRY_DONE(need_matrix(predictor, &out->gram, predictor->random_features));
done:
  if (status != DLORA_OK) dli_statistics_free(predictor, out);
  return status;
}

void dli_statistics_symmetrize(const dlora_predictor *predictor, struct dli_statistics *statistics) {
  if (statistics->scatter) dli_mirror_lower(predictor->dim, statistics->scatter);
  if (statistics->gram) dli_mirror_lower(predictor->random_features, statistics->gram);
}

/* Copies `count` components of b, from `from` on, to those of a from `to` on. */
static void copy_components(const dlora_predictor *predictor, struct dli_statistics *a, size_t to,
                            const struct dli_statistics *b, size_t from, size_t count) {
  size_t dim = predictor->dim, random = predictor->random_features;
  if (count == 0) return;
  memcpy(a->tasks + to, b->tasks + from, count * sizeof *a->tasks);
  memcpy(a->classes + to, b->classes + from, count * sizeof *a->classes);
  memcpy(a->counts + to, b->counts + from, count * sizeof *a->counts);
  memcpy(a->means + to * dim, b->means + from * dim, count * dim * sizeof *a->means);
  if (a->cross && b->cross) memcpy(a->cross + to * random, b->cross + from * random, count * random * sizeof *a->cross);
}

/* Room for `extra` more components. */
static dlora_status reserve(const dlora_predictor *predictor, struct dli_statistics *statistics, size_t extra) {
  if (extra <= statistics->capacity - statistics->num) return DLORA_OK;
  size_t capacity = statistics->num + extra;
  if (capacity < 2 * statistics->capacity) capacity = 2 * statistics->capacity;
  struct dli_statistics grown;
  DLI_TRY(new_components(predictor, &grown, capacity, true));
  copy_components(predictor, &grown, 0, statistics, 0, statistics->num);
  grown.num = statistics->num;
  grown.scatter = statistics->scatter;
  grown.gram = statistics->gram;
  statistics->scatter = NULL;
  statistics->gram = NULL;
  dli_statistics_free(predictor, statistics);
  *statistics = grown;
  return DLORA_OK;
}

dlora_status dli_statistics_copy(const dlora_predictor *predictor, struct dli_statistics *out,
                                 const struct dli_statistics *statistics) {
  const struct dli_statistics nothing = {0};
  return dli_statistics_join(predictor, out, statistics, &nothing, 0, true);
}

/* Finds the component of each label. `fresh` gets classes that are new in the task, in order; returns their number. */
static size_t assign_components(const struct dli_statistics *statistics, int64_t task, const int64_t *labels, size_t n,
                                size_t *components, int64_t *fresh) {
  size_t begin = statistics->num, num_fresh = 0;
  while (begin > 0 && statistics->tasks[begin - 1] == task) begin--;
  for (size_t i = 0; i < n; i++) {
    size_t found = begin, j = 0;
    if (i > 0 && labels[i] == labels[i - 1]) {
      components[i] = components[i - 1];
      continue;
    }
    while (found < statistics->num && statistics->classes[found] != labels[i]) found++;
    if (found == statistics->num) {
      while (j < num_fresh && fresh[j] != labels[i]) j++;
      if (j == num_fresh) fresh[num_fresh++] = labels[i];
      found += j;
    }
    components[i] = found;
  }
  return num_fresh;
}

/* Adds a block of features, the first `count` of rows [2 * BLOCK_ROWS, dim], by the formulas of Chan et al. For a class
 * with n_a features and mean mu_a so far, and n_b features with mean mu_b in the block:
 *
 *   1. mu_b is formed behind the features, one row for each class of the block.
 *   2. Each feature loses the mu_b of its class.
 *   3. With n = n_a + n_b, mu_a moves by n_b / n (mu_b - mu_a), and the row of mu_b becomes sqrt(n_a n_b / n) (mu_b -
 *      mu_a).
 *   4. scatter += rows^T rows, in one product: the scatter within the block and that of the moving mean. */
static void add_block(const dlora_predictor *predictor, struct dli_statistics *statistics, const size_t *components,
                      size_t count, double *rows) {
  size_t dim = predictor->dim, num_slots = 0;
  size_t slot_of[BLOCK_ROWS], component_of[BLOCK_ROWS], size_of[BLOCK_ROWS];
  for (size_t i = 0; i < count; i++) {
    size_t slot = 0;
    while (slot < num_slots && component_of[slot] != components[i]) slot++;
    double *mean = rows + (count + slot) * dim;
    if (slot == num_slots) {
      num_slots++;
      component_of[slot] = components[i];
      size_of[slot] = 0;
      memset(mean, 0, dim * sizeof *mean);
    }
    for (size_t j = 0; j < dim; j++) mean[j] += rows[i * dim + j];
    slot_of[i] = slot;
    size_of[slot]++;
  }
  for (size_t slot = 0; slot < num_slots; slot++) {
    double *mean = rows + (count + slot) * dim;
    for (size_t j = 0; j < dim; j++) mean[j] /= (double)size_of[slot];
  }
  for (size_t i = 0; i < count; i++) {
    const double *mean = rows + (count + slot_of[i]) * dim;
    for (size_t j = 0; j < dim; j++) rows[i * dim + j] -= mean[j];
  }
  for (size_t slot = 0; slot < num_slots; slot++) {
    double *step = rows + (count + slot) * dim, *mean = statistics->means + component_of[slot] * dim;
    double before = (double)statistics->counts[component_of[slot]], added = (double)size_of[slot];
    double fraction = added / (before + added), weight = sqrt(before * fraction);
    for (size_t j = 0; j < dim; j++) {
      double difference = step[j] - mean[j];
      mean[j] += fraction * difference;
      step[j] = weight * difference;
    }
    statistics->counts[component_of[slot]] += size_of[slot];
  }
  dli_add_gram_lower(rows, count + num_slots, dim, statistics->scatter);
}

/* Adds relu(z R) of rows z [count, dim] to gram and cross, with a weight each. projected: scratch. */
static void add_projected(const dlora_predictor *predictor, struct dli_statistics *statistics, const size_t *components,
                          size_t count, double weight, const double *rows, double *projected) {
  const size_t random = predictor->random_features;
  dli_random_project(predictor, rows, count, projected);
  for (size_t i = 0; i < count; i++) {
    double *sum = statistics->cross + components[i] * random, *row = projected + i * random;
    for (size_t j = 0; j < random; j++) {
      sum[j] += weight * row[j];
      row[j] *= sqrt(weight);
    }
  }
  dli_add_gram_lower(projected, count, random, statistics->gram);
}

/*   1. Components of the labels; new classes of the task get components of count 0.
 *   2. A block at a time: relu(z R) of each view, weighted by 1 / views, enters gram and cross.
 *   3. Of image pairs, half the difference d of the views adds d d^T to the scatter.
 *   4. The mean of the views, or the only view, enters count, mean and scatter (add_block). */
dlora_status dli_statistics_observe(const dlora_predictor *predictor, struct dli_statistics *statistics, int64_t task,
                                    const float *features, const float *mirrored, const int64_t *labels, size_t n) {
  const dlora_allocator *allocator = &predictor->allocator;
  size_t dim = predictor->dim, random = predictor->random_features, *components = NULL;
  const int views = mirrored == features ? 1 : 2;
  int64_t *fresh = NULL;
  double *rows = NULL, *projected = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, components, n));
  DLI_TRY_DONE(DLI_NEW(allocator, fresh, n));
  DLI_TRY_DONE(DLI_NEW(allocator, rows, 2 * BLOCK_ROWS * dim));
  if (random > 0) DLI_TRY_DONE(DLI_NEW(allocator, projected, BLOCK_ROWS * random));
  size_t num_fresh = assign_components(statistics, task, labels, n, components, fresh);
  DLI_TRY_DONE(reserve(predictor, statistics, num_fresh));
  DLI_TRY_DONE(need_matrix(predictor, &statistics->scatter, dim));
  DLI_TRY_DONE(need_matrix(predictor, &statistics->gram, random));

  for (size_t i = 0; i < num_fresh; i++) {
    statistics->tasks[statistics->num] = task;
    statistics->classes[statistics->num] = fresh[i];
    statistics->num++; /* count and mean are 0 */
  }
  for (size_t begin = 0; begin < n; begin += BLOCK_ROWS) {
    size_t count = n - begin < BLOCK_ROWS ? n - begin : BLOCK_ROWS;
    for (int view = 0; random > 0 && view < views; view++) {
      const float *from = (view ? mirrored : features) + begin * dim;
      for (size_t i = 0; i < count * dim; i++) rows[i] = (double)from[i];
      add_projected(predictor, statistics, components + begin, count, 1.0 / views, rows, projected);
    }
    if (views == 2) { /* d d^T of each pair; its mean then counts as the image's feature */
      for (size_t i = 0; i < count * dim; i++) {
        rows[i] = 0.5 * ((double)features[begin * dim + i] - (double)mirrored[begin * dim + i]);
      }
      dli_add_gram_lower(rows, count, dim, statistics->scatter);
    }
    for (size_t i = 0; i < count * dim; i++) {
      rows[i] = 0.5 * ((double)features[begin * dim + i] + (double)mirrored[begin * dim + i]);
    }
    add_block(predictor, statistics, components + begin, count, rows);
  }
done:
  dli_free(allocator, projected);
  dli_free(allocator, rows);
  dli_free(allocator, fresh);
  dli_free(allocator, components);
  return status;
}

/* Combines component `from` of b with component `to` of a, of the same task and class. row [dim] gets the step of the
 * mean, sqrt(n_a n_b / n) (mu_b - mu_a), which the caller adds to the scatter. */
static void combine_component(const dlora_predictor *predictor, struct dli_statistics *a, size_t to,
                              const struct dli_statistics *b, size_t from, double *row) {
  size_t dim = predictor->dim, random = predictor->random_features;
  double na = (double)a->counts[to], nb = (double)b->counts[from], fraction = nb / (na + nb),
         weight = sqrt(na * fraction);
  double *mean = a->means + to * dim;
  for (size_t j = 0; j < dim; j++) {
    double difference = b->means[from * dim + j] - mean[j];
    mean[j] += fraction * difference;
    row[j] = weight * difference;
  }
  a->counts[to] += b->counts[from];
  if (a->cross) {
    for (size_t j = 0; j < random; j++) a->cross[to * random + j] += b->cross[from * random + j];
  }
}

/* *out = a + b, both [n, n] or NULL for zero. */
static dlora_status add_matrices(const dlora_predictor *predictor, double **out, const double *a, const double *b,
                                 size_t n) {
  if (!a && !b) return DLORA_OK;
  DLI_TRY(need_matrix(predictor, out, n));
  for (size_t i = 0; i < n * n; i++) (*out)[i] = (a ? a[i] : 0.0) + (b ? b[i] : 0.0);
  return DLORA_OK;
}

dlora_status dli_statistics_join(const dlora_predictor *predictor, struct dli_statistics *out,
                                 const struct dli_statistics *a, const struct dli_statistics *b, int64_t offset,
                                 bool with_random) {
  struct dli_statistics sum;
  double *rows = NULL; /* [BLOCK_ROWS, dim] */
  size_t dim = predictor->dim, num_rows = 0;
  dlora_status status = DLORA_OK;
  *out = (struct dli_statistics){0};
  DLI_TRY(new_components(predictor, &sum, a->num + b->num, with_random));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, rows, BLOCK_ROWS * dim));
  DLI_TRY_DONE(add_matrices(predictor, &sum.scatter, a->scatter, b->scatter, dim));
  if (with_random) DLI_TRY_DONE(add_matrices(predictor, &sum.gram, a->gram, b->gram, predictor->random_features));

  /* Task by task: first a's components, combined with those of b of the same class, then the other ones of b. */
  for (size_t i = 0, j = 0; i < a->num || j < b->num;) {
    int64_t task = i < a->num ? a->tasks[i] : b->tasks[j] + offset;
    if (j < b->num && b->tasks[j] + offset < task) task = b->tasks[j] + offset;
    size_t begin = sum.num, end = i;
    while (end < a->num && a->tasks[end] == task) end++;
    copy_components(predictor, &sum, begin, a, i, end - i);
    sum.num += end - i;
    size_t known = sum.num;
    for (i = end; j < b->num && b->tasks[j] + offset == task; j++) {
      size_t same = begin;
      while (same < known && sum.classes[same] != b->classes[j]) same++;
      if (same < known) {
        combine_component(predictor, &sum, same, b, j, rows + num_rows++ * dim);
        if (num_rows == BLOCK_ROWS) {
          dli_add_gram_lower(rows, num_rows, dim, sum.scatter);
          num_rows = 0;
        }
      } else {
        copy_components(predictor, &sum, sum.num, b, j, 1);
        sum.tasks[sum.num++] = task;
      }
    }
  }
  if (num_rows > 0) dli_add_gram_lower(rows, num_rows, dim, sum.scatter);
  dli_statistics_symmetrize(predictor, &sum);
  *out = sum;
  sum = (struct dli_statistics){0};
done:
  dli_free(&predictor->allocator, rows);
  dli_statistics_free(predictor, &sum);
  return status;
}

uint64_t dli_statistics_total(const struct dli_statistics *statistics) {
  uint64_t total = 0;
  for (size_t i = 0; i < statistics->num; i++) total += statistics->counts[i];
  return total;
}

double dli_statistics_degrees(const struct dli_statistics *statistics) {
  /* If every component has one feature, the scatter is zero and the divisor arbitrary. */
  return fmax(1.0, (double)dli_statistics_total(statistics) - (double)statistics->num);
}

void dli_statistics_centre(const dlora_predictor *predictor, const struct dli_statistics *statistics, double *centre) {
  size_t dim = predictor->dim;
  double total = (double)dli_statistics_total(statistics);
  memset(centre, 0, dim * sizeof *centre);
  for (size_t i = 0; i < statistics->num; i++) {
    double fraction = (double)statistics->counts[i] / total;
    for (size_t j = 0; j < dim; j++) centre[j] += fraction * statistics->means[i * dim + j];
  }
}

/* lambda for n columns: the option, or 0.3 n / (N - K) in [0.001, 1]. The upper bound keeps directions of C's own
 * however few images there are. METHOD.md 7.1. */
static double shrinkage_for(const dlora_predictor *predictor, size_t n, double degrees) {
  if (predictor->shrinkage > 0.0) return predictor->shrinkage;
  return fmin(1.0, fmax(1e-3, 0.3 * (double)n / degrees));
}

/* Adds a_i = max(lambda sqrt(v max(v_i, LEAST_VARIANCE v)), LEAST_RAISE max(v, sigma)) to the diagonal of C, and keeps
 * the a_i in raised [n]. Without variance, as with one image a class, nothing is known of the spread within a class. C
 * is then sigma times the identity, so that scores are distances to the means in units of their spread; or the
 * identity, if the means do not differ either. spread: sigma. power: mean square of the means. */
static void shrink(double *covariance, size_t n, double shrinkage, double spread, double power, double *raised) {
  double mean = 0.0;
  for (size_t i = 0; i < n; i++) mean += covariance[i * n + i] / (double)n;
  for (size_t i = 0; i < n; i++) {
    if (mean > NO_VARIANCE * power) {
      raised[i] = fmax(shrinkage * sqrt(mean * fmax(covariance[i * n + i], LEAST_VARIANCE * mean)),
                       LEAST_RAISE * fmax(mean, spread));
    } else {
      raised[i] = spread > NO_VARIANCE * power ? spread : 1.0;
    }
    covariance[i * n + i] += raised[i];
  }
}

/* sigma, the mean square of mu_c - mu over a range of columns, and the mean square of the mu_c themselves. */
static void measure_means(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                          const double *centre, size_t first, size_t columns, double *spread, double *power) {
  double differences = 0.0, squares = 0.0, values = (double)statistics->num * (double)columns;
  for (size_t i = 0; i < statistics->num; i++) {
    const double *mean = statistics->means + i * predictor->dim + first;
    for (size_t j = 0; j < columns; j++) {
      double difference = mean[j] - centre[first + j];
      differences += difference * difference;
      squares += mean[j] * mean[j];
    }
  }
  *spread = differences / values;
  *power = squares / values;
}

void dli_statistics_covariance(const dlora_predictor *predictor, const struct dli_statistics *statistics,
                               const double *centre, size_t first, size_t columns, double *covariance, double *raised) {
  size_t dim = predictor->dim;
  double degrees = dli_statistics_degrees(statistics), spread = 0.0, power = 0.0;
  for (size_t i = 0; i < columns; i++) {
    for (size_t j = 0; j < columns; j++) {
      covariance[i * columns + j] = statistics->scatter[(first + i) * dim + first + j] / degrees;
    }
  }
  measure_means(predictor, statistics, centre, first, columns, &spread, &power);
  shrink(covariance, columns, shrinkage_for(predictor, columns, degrees), spread, power, raised);
}
