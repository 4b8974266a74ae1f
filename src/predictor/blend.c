/* Evidence for the weight of two posteriors in their blend, from images that neither has observed. METHOD.md 8.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two predictors observe features of the same images: those of two networks. Each judges images of its open task as if
 * it had never observed them (dli_predictor_judge). For an image of class y and each weight w,
 *
 *   1. b(j) = (1 - w) log p_a(j) + w log p_b(j) of every component j; the components of b are found by task and class;
 *   2. the evidence gains log of the sum of exp b(j) over the components of y, less that over all components. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "src/predictor/predictor.h"
#include "src/predictor/state.h"

void dli_judgement_free(const dlora_predictor *predictor, struct dli_judgement *judgement) {
  dli_left_out_free(predictor, &judgement->left_out);
  dli_free(&predictor->allocator, judgement->tasks);
  dli_free(&predictor->allocator, judgement->classes);
  dli_free(&predictor->allocator, judgement->expected);
  *judgement = (struct dli_judgement){0};
}

struct place {
  uint64_t key;
  size_t row;
};

static int compare_places(const void *left, const void *right) {
  const struct place *a = left, *b = right;
  if (a->key != b->key) return a->key < b->key ? -1 : 1;
  return (a->row > b->row) - (a->row < b->row);
}

static dlora_status sort_by_key(const dlora_predictor *predictor, const struct dli_rows *rows, struct place **out) {
  DLI_TRY(DLI_NEW(&predictor->allocator, *out, rows->count));
  for (size_t i = 0; i < rows->count; i++) (*out)[i] = (struct place){rows->keys[i], i};
  qsort(*out, rows->count, sizeof **out, compare_places);
  return DLORA_OK;
}

static void append_row(const dlora_predictor *predictor, const struct dli_rows *rows, size_t row,
                       struct dli_rows *out) {
  const size_t at = row * predictor->dim;
  dli_rows_append(predictor, out, rows->features + at, rows->mirrored + at, rows->labels + row, rows->keys + row, 1);
}

/* The rows of the same images in both, by key, at most DLI_SAMPLE: of those, the ones with the lowest keys. */
static dlora_status match_rows(const dlora_predictor *a, const dlora_predictor *b, const struct dli_rows *rows_a,
                               const struct dli_rows *rows_b, struct dli_rows *out_a, struct dli_rows *out_b) {
  struct place *of_a = NULL, *of_b = NULL;
  const size_t most = rows_a->count < DLI_SAMPLE ? rows_a->count : DLI_SAMPLE;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(sort_by_key(a, rows_a, &of_a));
  DLI_TRY_DONE(sort_by_key(b, rows_b, &of_b));
  DLI_TRY_DONE(dli_rows_reserve(a, out_a, most));
  DLI_TRY_DONE(dli_rows_reserve(b, out_b, most));
  for (size_t i = 0, j = 0; i < rows_a->count && j < rows_b->count && out_a->count < most;) {
    if (of_a[i].key != of_b[j].key) {
      if (of_a[i].key < of_b[j].key)
        i++;
      else
        j++;
      continue;
    }
    if (rows_a->labels[of_a[i].row] == rows_b->labels[of_b[j].row]) {
      append_row(a, rows_a, of_a[i].row, out_a);
      append_row(b, rows_b, of_b[j].row, out_b);
    }
    i++;
    j++;
  }
done:
  dli_free(&b->allocator, of_b);
  dli_free(&a->allocator, of_a);
  return status;
}

/* Position of each component of a in b. False if they are not the same. */
static bool match_components(const struct dli_judgement *a, const struct dli_judgement *b, size_t *places) {
  if (a->num != b->num || a->left_out.count != b->left_out.count) return false;
  for (size_t i = 0; i < a->num; i++) {
    size_t j = 0;
    while (j < b->num && (b->tasks[j] != a->tasks[i] || b->classes[j] != a->classes[i])) j++;
    if (j == b->num) return false;
    places[i] = j;
  }
  return memcmp(a->expected, b->expected, a->left_out.count * sizeof *a->expected) == 0;
}

double dli_add_logs(double a, double b) {
  const double high = a > b ? a : b, low = a > b ? b : a;
  return low == -HUGE_VAL ? high : high + log1p(exp(low - high));
}

static void add_image(const struct dli_judgement *a, const struct dli_judgement *b, const size_t *places, size_t image,
                      struct dli_blend_evidence *evidence) {
  const double *of_a = a->left_out.scores + image * a->num, *of_b = b->left_out.scores + image * b->num;
  for (size_t k = 0; k < DLI_BLEND_WEIGHTS; k++) {
    const double weight = (double)k / (DLI_BLEND_WEIGHTS - 1);
    double right = -HUGE_VAL, all = -HUGE_VAL;
    for (size_t j = 0; j < a->num; j++) {
      const double blend = (1.0 - weight) * of_a[j] + weight * of_b[places[j]];
      all = dli_add_logs(all, blend);
      if (a->classes[j] == a->expected[image]) right = dli_add_logs(right, blend);
    }
    evidence->log_likelihood[k] += fmax(right - all, -DLI_MOST_EVIDENCE);
  }
  evidence->num_images++;
}

dlora_status dli_predictor_blend_evidence(const dlora_predictor *a, const dlora_predictor *b, bool held_out,
                                          struct dli_blend_evidence *evidence) {
  struct dli_judgement of_a = {0}, of_b = {0};
  struct dli_rows rows_a = {0}, rows_b = {0};
  size_t *places = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(
      match_rows(a, b, held_out ? &a->held_out : &a->sample, held_out ? &b->held_out : &b->sample, &rows_a, &rows_b));
  if (rows_a.count == 0) goto done;
  DLI_TRY_DONE(dli_predictor_judge(a, &rows_a, &of_a));
  DLI_TRY_DONE(dli_predictor_judge(b, &rows_b, &of_b));
  DLI_TRY_DONE(DLI_NEW(&a->allocator, places, of_a.num));
  if (match_components(&of_a, &of_b, places)) {
    for (size_t i = 0; i < of_a.left_out.count; i++) add_image(&of_a, &of_b, places, i, evidence);
  }
done:
  dli_free(&a->allocator, places);
  dli_judgement_free(b, &of_b);
  dli_judgement_free(a, &of_a);
  dli_rows_free(b, &rows_b);
  dli_rows_free(a, &rows_a);
  return status;
}
