/* Features kept while their task is open: the held-out ones, and a sample of the others. METHOD.md 7.2.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The sample has the DLI_SAMPLE features whose keys are lowest. A key is the caller's, or a hash of label and bits of
 * the feature. Either way the same features are chosen in any order of images. */
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "base/memory.h"
#include "base/status.h"
#include "src/predictor/state.h"

void dli_rows_free(const dlora_predictor *predictor, struct dli_rows *rows) {
  dli_free(&predictor->allocator, rows->keys);
  dli_free(&predictor->allocator, rows->labels);
  dli_free(&predictor->allocator, rows->mirrored);
  dli_free(&predictor->allocator, rows->features);
  *rows = (struct dli_rows){0};
}

dlora_status dli_rows_reserve(const dlora_predictor *predictor, struct dli_rows *rows, size_t n) {
  if (n <= rows->capacity - rows->count) return DLORA_OK;
  struct dli_rows grown = {.count = rows->count};
  size_t values = 0;
  dlora_status status = DLORA_OK;
  if (n > SIZE_MAX / 2 - rows->count) return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for %zu features", n);
  grown.capacity = rows->count + n < 2 * rows->capacity ? 2 * rows->capacity : rows->count + n;
  if (!dli_multiply(&values, grown.capacity, predictor->dim)) {
    return dli_raise(DLORA_ERR_NO_MEMORY, "no memory for %zu features", grown.capacity);
  }
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, grown.features, values));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, grown.mirrored, values));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, grown.labels, grown.capacity));
  DLI_TRY_DONE(DLI_NEW(&predictor->allocator, grown.keys, grown.capacity));
  if (rows->count > 0) {
    memcpy(grown.features, rows->features, rows->count * predictor->dim * sizeof *grown.features);
    memcpy(grown.mirrored, rows->mirrored, rows->count * predictor->dim * sizeof *grown.mirrored);
    memcpy(grown.labels, rows->labels, rows->count * sizeof *grown.labels);
    memcpy(grown.keys, rows->keys, rows->count * sizeof *grown.keys);
  }
  dli_rows_free(predictor, rows);
  *rows = grown;
  grown = (struct dli_rows){0};
done:
  dli_rows_free(predictor, &grown);
  return status;
}

dlora_status dli_sample_reserve(dlora_predictor *predictor, size_t n) {
  const size_t room = DLI_SAMPLE - predictor->sample.count;
  return dli_rows_reserve(predictor, &predictor->sample, n < room ? n : room);
}

static uint64_t mix_feature(uint64_t hash, const float *feature, size_t dim) {
  for (size_t i = 0; i < dim; i++) {
    uint32_t bits;
    memcpy(&bits, feature + i, sizeof bits);
    hash = dli_mix(hash, bits);
  }
  return hash;
}

/* An image whose views are equal has the key of a single view. */
static uint64_t key_of(const float *feature, const float *mirrored, size_t dim, int64_t label) {
  const uint64_t hash = mix_feature((uint64_t)label + UINT64_C(0x243f6a8885a308d3), feature, dim);
  return memcmp(feature, mirrored, dim * sizeof *feature) ? mix_feature(hash, mirrored, dim) : hash;
}

void dli_rows_append(const dlora_predictor *predictor, struct dli_rows *rows, const float *features,
                     const float *mirrored, const int64_t *labels, const uint64_t *keys, size_t n) {
  const size_t dim = predictor->dim;
  if (n == 0) return;
  memcpy(rows->features + rows->count * dim, features, n * dim * sizeof *features);
  memcpy(rows->mirrored + rows->count * dim, mirrored, n * dim * sizeof *mirrored);
  memcpy(rows->labels + rows->count, labels, n * sizeof *labels);
  for (size_t i = 0; i < n; i++) {
    rows->keys[rows->count + i] = keys ? keys[i] : key_of(features + i * dim, mirrored + i * dim, dim, labels[i]);
  }
  rows->count += n;
}

void dli_rows_hash(const dlora_predictor *predictor, struct dli_rows *rows) {
  const size_t dim = predictor->dim;
  for (size_t i = 0; i < rows->count; i++) {
    rows->keys[i] = key_of(rows->features + i * dim, rows->mirrored + i * dim, dim, rows->labels[i]);
  }
}

static size_t highest_key(const dlora_predictor *predictor) {
  size_t highest = 0;
  for (size_t i = 1; i < predictor->sample.count; i++) {
    if (predictor->sample.keys[i] > predictor->sample.keys[highest]) highest = i;
  }
  return highest;
}

void dli_sample_add(dlora_predictor *predictor, const float *features, const float *mirrored, const int64_t *labels,
                    const uint64_t *keys, size_t n) {
  struct dli_rows *sample = &predictor->sample;
  const size_t dim = predictor->dim;
  size_t highest = highest_key(predictor);
  for (size_t i = 0; i < n; i++) {
    const uint64_t key = keys ? keys[i] : key_of(features + i * dim, mirrored + i * dim, dim, labels[i]);
    size_t place = sample->count;
    if (sample->count == DLI_SAMPLE) {
      if (key >= predictor->sample.keys[highest]) continue;
      place = highest;
      memcpy(sample->features + place * dim, features + i * dim, dim * sizeof *features);
      memcpy(sample->mirrored + place * dim, mirrored + i * dim, dim * sizeof *mirrored);
      sample->labels[place] = labels[i];
    } else {
      dli_rows_append(predictor, sample, features + i * dim, mirrored + i * dim, labels + i, &key, 1);
    }
    predictor->sample.keys[place] = key;
    highest = highest_key(predictor);
  }
}
