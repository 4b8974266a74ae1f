/* A model in several safetensors files: maps the files that an index names and joins what they hold into one index, in
 * which each tensor lies in the file that the index names for it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The index is untrusted: a file that it names is a plain name in the same folder, each tensor is named once and is in
 * its file, and no file has a tensor that the index does not know. */
#include <cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/json_file.h"
#include "io/safetensors_index.h"

enum { MAX_PARTS = 1000, LONGEST_NAME = 255 };

/* One line of the index. */
struct place {
  const char *tensor, *file;
  size_t part;
  bool found;
};

struct joined {
  const char *folder, *path; /* path: of the index */
  const dlora_allocator *allocator;
  struct place *places; /* [count] by tensor */
  size_t count;
  struct dli_tensors *tensors;
};

static int compare_tensors(const void *left, const void *right) {
  return strcmp(((const struct place *)left)->tensor, ((const struct place *)right)->tensor);
}

static int compare_files(const void *left, const void *right) {
  return strcmp(((const struct place *)left)->file, ((const struct place *)right)->file);
}

static dlora_status check_file_name(const struct joined *j, const char *tensor, const char *file) {
  if (strchr(file, '/') || strcmp(file, ".") == 0 || strcmp(file, "..") == 0) {
    return dli_raise(
        DLORA_ERR_FORMAT,
        "%s: tensor %s is said to lie in '%.200s': a part must be a file of the same folder, named without "
        "a path",
        j->path, tensor, file);
  }
  const size_t length = strlen(file), end = strlen(".safetensors");
  if (length <= end || length > LONGEST_NAME || strcmp(file + length - end, ".safetensors") != 0) {
    return dli_raise(DLORA_ERR_FORMAT,
                     "%s: tensor %s is said to lie in '%.200s', which is no name of a safetensors file", j->path,
                     tensor, file);
  }
  return DLORA_OK;
}

static dlora_status read_places(struct joined *j, const cJSON *index) {
  const cJSON *map;
  DLI_TRY(dli_json_member(index, "weight_map", j->path, &map));
  if (!cJSON_IsObject(map) || !map->child) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: has no weight_map, which says in which part each tensor lies", j->path);
  }
  for (const cJSON *item = map->child; item; item = item->next) j->count++;
  DLI_TRY(DLI_NEW(j->allocator, j->places, j->count));
  size_t i = 0;
  for (const cJSON *item = map->child; item; item = item->next, i++) {
    if (!cJSON_IsString(item)) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: weight_map: the part of tensor %s is not a text", j->path, item->string);
    }
    DLI_TRY(check_file_name(j, item->string, item->valuestring));
    j->places[i] = (struct place){.tensor = item->string, .file = item->valuestring};
  }
  return DLORA_OK;
}

/* Numbers the files in the places by name, and maps them. */
static dlora_status open_parts(struct joined *j) {
  size_t num_parts = 1;
  char path[4096];
  qsort(j->places, j->count, sizeof *j->places, compare_files);
  for (size_t i = 1; i < j->count; i++) {
    if (compare_files(&j->places[i - 1], &j->places[i]) != 0) num_parts++;
    j->places[i].part = num_parts - 1;
  }
  if (num_parts > MAX_PARTS) {
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: names %zu parts, at most %d are supported", j->path, num_parts,
                     (int)MAX_PARTS);
  }
  DLI_TRY(DLI_NEW(j->allocator, j->tensors->parts, num_parts));
  j->tensors->num_parts = num_parts;
  for (size_t i = 0; i < j->count; i++) {
    const struct place *place = &j->places[i];
    if (j->tensors->parts[place->part]) continue;
    const int length = snprintf(path, sizeof path, "%s/%s", j->folder, place->file);
    if (length < 0 || (size_t)length >= sizeof path) {
      return dli_raise(DLORA_ERR_IO, "%s: the path of its part %s is too long", j->path, place->file);
    }
    DLI_TRY(dli_tensors_open(&j->tensors->parts[place->part], path, j->allocator));
  }
  return DLORA_OK;
}

/* Tensors of the parts, each from the one that the index names. */
static dlora_status join_tensors(struct joined *j) {
  struct dli_tensors *all = j->tensors;
  qsort(j->places, j->count, sizeof *j->places, compare_tensors);
  for (size_t i = 1; i < j->count; i++) {
    if (compare_tensors(&j->places[i - 1], &j->places[i]) == 0) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: weight_map names tensor %s twice", j->path, j->places[i].tensor);
    }
  }
  DLI_TRY(DLI_NEW(&all->allocator, all->tensors, j->count));
  DLI_TRY(DLI_NEW(&all->allocator, all->by_name, j->count));
  all->capacity = j->count;
  for (size_t p = 0; p < all->num_parts; p++) {
    for (size_t i = 0; i < all->parts[p]->count; i++) {
      const struct dli_tensor *tensor = &all->parts[p]->tensors[i];
      const struct place wanted = {.tensor = tensor->name};
      struct place *place = bsearch(&wanted, j->places, j->count, sizeof *j->places, compare_tensors);
      if (!place) {
        return dli_raise(DLORA_ERR_FORMAT, "%s: has tensor %s, which %s does not name: they are not of the same model",
                         all->parts[p]->label, tensor->name, j->path);
      }
      if (place->part != p) continue; /* another one counts */
      place->found = true;
      all->tensors[all->count++] = *tensor;
    }
  }
  for (size_t i = 0; i < j->count; i++) {
    const struct place *place = &j->places[i];
    if (place->found) continue;
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s is missing, which %s says to lie in it: fetch both again",
                     all->parts[place->part]->label, place->tensor, j->path);
  }
  dli_tensors_sort_names(all);
  return DLORA_OK;
}

static int compare_entries(const void *left, const void *right) {
  return strcmp(((const struct dli_entry *)left)->key, ((const struct dli_entry *)right)->key);
}

/* The union of the parts' metadata, in which no key may have two values. */
static dlora_status join_metadata(struct joined *j) {
  struct dli_tensors *all = j->tensors;
  size_t total = 0, kept = 0;
  for (size_t p = 0; p < all->num_parts; p++) total += all->parts[p]->num_entries;
  DLI_TRY(DLI_NEW(&all->allocator, all->entries, total));
  for (size_t p = 0, i = 0; p < all->num_parts; p++) {
    for (size_t e = 0; e < all->parts[p]->num_entries; e++) all->entries[i++] = all->parts[p]->entries[e];
  }
  qsort(all->entries, total, sizeof *all->entries, compare_entries);
  for (size_t i = 0; i < total; i++) {
    const struct dli_entry *entry = &all->entries[i], *last = kept > 0 ? &all->entries[kept - 1] : NULL;
    if (!last || strcmp(last->key, entry->key) != 0) {
      all->entries[kept++] = *entry;
    } else if (strcmp(last->value, entry->value) != 0) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is \"%.60s\" in one part and \"%.60s\" in another", j->path,
                       entry->key, last->value, entry->value);
    }
  }
  all->num_entries = kept;
  return DLORA_OK;
}

dlora_status dli_tensors_open_parts(struct dli_tensors **out, const char *folder, const char *index_path,
                                    const cJSON *index, const dlora_allocator *allocator) {
  dlora_status status = DLORA_OK;
  struct joined j = {.folder = folder, .path = index_path};
  *out = NULL;
  DLI_TRY(dli_tensors_create(&j.tensors, index_path, allocator));
  j.allocator = &j.tensors->allocator;
  DLI_TRY_DONE(read_places(&j, index));
  DLI_TRY_DONE(open_parts(&j));
  DLI_TRY_DONE(join_tensors(&j));
  DLI_TRY_DONE(join_metadata(&j));
  *out = j.tensors;
  j.tensors = NULL;
done:
  dli_free(j.allocator, j.places);
  dli_tensors_close(j.tensors);
  return status;
}
