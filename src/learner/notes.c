/* Texts of the caller's own, kept in checkpoints and snapshots beside what was learnt.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/json_text.h"
#include "src/learner/learner.h"

/* Where the key stands among the notes, which are sorted by it, or would stand. */
static size_t find(const dlora_learner *learner, const char *key, int *found) {
  size_t low = 0, high = learner->num_notes;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (strcmp(learner->notes[middle].key, key) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  *found = low < learner->num_notes && strcmp(learner->notes[low].key, key) == 0;
  return low;
}

static void free_note(const dlora_allocator *allocator, struct dli_note *note) {
  dli_free(allocator, note->key);
  dli_free(allocator, note->value);
}

void dli_notes_release(dlora_learner *learner) {
  for (size_t i = 0; i < learner->num_notes; i++) free_note(&learner->allocator, &learner->notes[i]);
  dli_free(&learner->allocator, learner->notes);
  learner->notes = NULL;
  learner->num_notes = learner->max_notes = 0;
}

static dlora_status reserve(dlora_learner *learner) {
  struct dli_note *notes;
  const size_t capacity = learner->max_notes ? 2 * learner->max_notes : 4;
  if (learner->num_notes < learner->max_notes) return DLORA_OK;
  DLI_TRY(DLI_NEW(&learner->allocator, notes, capacity));
  if (learner->num_notes) memcpy(notes, learner->notes, learner->num_notes * sizeof *notes);
  dli_free(&learner->allocator, learner->notes);
  learner->notes = notes;
  learner->max_notes = capacity;
  return DLORA_OK;
}

/* Both or nothing. */
static dlora_status copy(const dlora_allocator *allocator, const char *key, const char *value, struct dli_note *out) {
  const struct dli_note note = {dli_strdup(allocator, key), dli_strdup(allocator, value)};
  *out = note;
  if (note.key && note.value) return DLORA_OK;
  free_note(allocator, out);
  return DLORA_ERR_NO_MEMORY;
}

dlora_status dlora_learner_set_note(dlora_learner *learner, const char *key, const char *value) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(key);
  int found;
  struct dli_note note;
  if (!key[0]) return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_set_note: key is empty");
  if (!dli_is_utf8(key, strlen(key))) return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_set_note: key is not UTF-8");
  if (value && !dli_is_utf8(value, strlen(value))) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_set_note: the value of %.60s is not UTF-8", key);
  }
  const size_t at = find(learner, key, &found);
  struct dli_note *place = learner->notes + at;
  if (!value && !found) return DLORA_OK;
  if (!value) {
    free_note(&learner->allocator, place);
    memmove(place, place + 1, (--learner->num_notes - at) * sizeof *place);
    return DLORA_OK;
  }
  DLI_TRY(copy(&learner->allocator, key, value, &note));
  if (found) {
    free_note(&learner->allocator, place);
    *place = note;
    return DLORA_OK;
  }
  const dlora_status status = reserve(learner);
  if (status != DLORA_OK) {
    free_note(&learner->allocator, &note);
    return status;
  }
  place = learner->notes + at;
  memmove(place + 1, place, (learner->num_notes++ - at) * sizeof *place);
  *place = note;
  return DLORA_OK;
}

const char *dlora_learner_get_note(const dlora_learner *learner, const char *key) {
  int found = 0;
  const size_t at = learner && key ? find(learner, key, &found) : 0;
  return found ? learner->notes[at].value : NULL;
}

/* ---- in files: metadata note.<key> ---- */

static const char prefix[] = "note.";

dlora_status dli_notes_write(const dlora_learner *learner, struct dli_writer *writer) {
  const dlora_allocator *allocator = &learner->allocator;
  for (size_t i = 0; i < learner->num_notes; i++) {
    const struct dli_note *note = &learner->notes[i];
    const size_t length = strlen(note->key) + 1;
    char *name;
    DLI_TRY(DLI_NEW(allocator, name, sizeof prefix - 1 + length));
    memcpy(name, prefix, sizeof prefix - 1);
    memcpy(name + sizeof prefix - 1, note->key, length);
    const dlora_status status = dli_writer_set_metadata(writer, name, note->value);
    dli_free(allocator, name);
    DLI_TRY(status);
  }
  return DLORA_OK;
}

static int compare(const void *left, const void *right) {
  const struct dli_note *a = left, *b = right;
  return strcmp(a->key, b->key);
}

/* All at once and then sorted: a header may hold millions. */
dlora_status dli_notes_read(dlora_learner *learner, const struct dli_tensors *tensors) {
  const size_t count = dli_tensors_metadata_count(tensors);
  const char *key, *value;
  size_t wanted = 0;
  for (size_t i = 0; i < count; i++) {
    dli_tensors_metadata_at(tensors, i, &key, &value);
    wanted += strncmp(key, prefix, sizeof prefix - 1) == 0 && key[sizeof prefix - 1];
  }
  if (!wanted) return DLORA_OK;
  DLI_TRY(DLI_NEW(&learner->allocator, learner->notes, wanted));
  learner->max_notes = wanted;
  for (size_t i = 0; i < count; i++) {
    dli_tensors_metadata_at(tensors, i, &key, &value);
    if (strncmp(key, prefix, sizeof prefix - 1) != 0 || !key[sizeof prefix - 1]) continue;
    DLI_TRY(copy(&learner->allocator, key + sizeof prefix - 1, value, &learner->notes[learner->num_notes]));
    learner->num_notes++;
  }
  qsort(learner->notes, learner->num_notes, sizeof *learner->notes, compare);
  return DLORA_OK;
}
