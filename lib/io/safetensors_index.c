/* The index of a safetensors file: tensors and metadata of its JSON header, sorted, and the look-ups in it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The header is untrusted input. Before an index exists, these hold: every tensor has a known dtype, a shape whose
 * product does not overflow and exactly as many bytes as that shape needs; the tensors cover the data without hole or
 * overlap; no name or key occurs twice. A look-up then needs no further check. */
#include "io/safetensors_index.h"

#include <cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/dtype.h"

/* A size as JSON number. */
static dlora_status read_size(const cJSON *number, size_t *out) {
  const double value = cJSON_IsNumber(number) ? number->valuedouble : -1.0;
  /* cJSON keeps numbers as double, which is exact below 2^53. */
  if (!(value >= 0.0 && value < 0x1p53) || value != floor(value) || value > (double)SIZE_MAX) return DLORA_ERR_FORMAT;
  *out = (size_t)value;
  return DLORA_OK;
}

static const char *keep_text(struct dli_tensors *tensors, const char *text) {
  const size_t size = strlen(text) + 1;
  char *kept = tensors->text_end;
  DLI_ASSERT((size_t)(kept - tensors->text) + size <= tensors->text_size);
  memcpy(kept, text, size);
  tensors->text_end += size;
  return kept;
}

/* Dimensions and their product. A dimension of 0 makes the tensor empty, whatever the others are: the product starts at
 * 0 then, so that huge dimensions beside it do not overflow. */
static dlora_status parse_shape(const struct dli_tensors *tensors, struct dli_tensor *tensor, const cJSON *shape) {
  bool empty = false;
  if (!cJSON_IsArray(shape)) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': shape is not a list", tensors->label, tensor->name);
  }
  for (const cJSON *dim = shape->child; dim; dim = dim->next) {
    if (tensor->num_dims == DLI_MAX_DIMS) {
      return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor '%s' has more than %d dimensions", tensors->label,
                       tensor->name, DLI_MAX_DIMS);
    }
    size_t *size = &tensor->shape[tensor->num_dims];
    if (read_size(dim, size) != DLORA_OK) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': dimension %zu of its shape is not a size", tensors->label,
                       tensor->name, tensor->num_dims);
    }
    if (*size == 0) empty = true;
    tensor->num_dims++;
  }
  tensor->count = empty ? 0 : 1;
  for (size_t i = 0; i < tensor->num_dims; i++) {
    if (!dli_multiply(&tensor->count, tensor->count, tensor->shape[i])) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': its shape overflows at dimension %zu (%zu)", tensors->label,
                       tensor->name, i, tensor->shape[i]);
    }
  }
  return DLORA_OK;
}

/* Where the data lie. Afterwards [begin, end) is within the data and exactly as long as shape and dtype need; bits are
 * counted, since the smallest types pack several elements into a byte. */
static dlora_status parse_offsets(const struct dli_tensors *tensors, struct dli_tensor *tensor, const cJSON *offsets,
                                  size_t bits) {
  const cJSON *first = cJSON_IsArray(offsets) ? offsets->child : NULL;
  const cJSON *second = first ? first->next : NULL;
  size_t begin = 0;
  size_t end = 0;
  if (!second || second->next || read_size(first, &begin) != DLORA_OK || read_size(second, &end) != DLORA_OK ||
      begin > end) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': data_offsets are not two sizes in ascending order",
                     tensors->label, tensor->name);
  }
  if (end > tensors->data_size) {
    return dli_raise(
        DLORA_ERR_FORMAT,
        "%s: tensor '%s' ends at byte %zu of the data, but the file holds only %zu: it is cut off, fetch or "
        "copy it again",
        tensors->label, tensor->name, end, tensors->data_size);
  }
  size_t total_bits = 0;
  if (!dli_multiply(&total_bits, tensor->count, bits) || total_bits % 8 != 0 || total_bits / 8 != end - begin) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': %zu elements of %s do not fill its %zu bytes", tensors->label,
                     tensor->name, tensor->count, tensor->dtype_name, end - begin);
  }
  tensor->num_bytes = end - begin;
  tensor->data = tensors->data + begin;
  return DLORA_OK;
}

/* "name": {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}. Unknown members are
 * ignored; each known one must occur once. */
static dlora_status parse_tensor(struct dli_tensors *tensors, struct dli_tensor *tensor, const cJSON *item) {
  tensor->name = keep_text(tensors, item->string);
  if (!cJSON_IsObject(item)) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': its description is not an object", tensors->label,
                     tensor->name);
  }
  const cJSON *dtype = NULL;
  const cJSON *shape = NULL;
  const cJSON *offsets = NULL;
  for (const cJSON *member = item->child; member; member = member->next) {
    const cJSON **slot = NULL;
    if (strcmp(member->string, "dtype") == 0) slot = &dtype;
    if (strcmp(member->string, "shape") == 0) slot = &shape;
    if (strcmp(member->string, "data_offsets") == 0) slot = &offsets;
    if (!slot) continue;
    if (*slot) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': %s is given twice", tensors->label, tensor->name,
                       member->string);
    }
    *slot = member;
  }
  if (!dtype || !shape || !offsets) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': %s is missing", tensors->label, tensor->name,
                     !dtype ? "dtype" : (!shape ? "shape" : "data_offsets"));
  }
  const struct dli_dtype_info *info = cJSON_IsString(dtype) ? dli_dtype_find(dtype->valuestring) : NULL;
  if (!info) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': dtype '%s' does not exist", tensors->label, tensor->name,
                     cJSON_IsString(dtype) ? dtype->valuestring : "(not a string)");
  }
  tensor->dtype = info->dtype;
  tensor->dtype_name = info->name;
  DLI_TRY(parse_shape(tensors, tensor, shape));
  return parse_offsets(tensors, tensor, offsets, info->bits);
}

static bool is_metadata(const cJSON *item) {
  return strcmp(item->string, "__metadata__") == 0;
}

/* Counts what there is, so that each array is taken once. */
static dlora_status count_members(struct dli_tensors *tensors, const cJSON *root) {
  const cJSON *metadata = NULL;
  size_t num_tensors = 0;
  size_t num_entries = 0;
  size_t text_size = 0;
  for (const cJSON *item = root->child; item; item = item->next) {
    if (!is_metadata(item)) {
      num_tensors++;
      text_size += strlen(item->string) + 1;
      continue;
    }
    if (metadata) return dli_raise(DLORA_ERR_FORMAT, "%s: __metadata__ is given twice", tensors->label);
    if (!cJSON_IsObject(item)) return dli_raise(DLORA_ERR_FORMAT, "%s: __metadata__ is not an object", tensors->label);
    metadata = item;
    for (const cJSON *entry = item->child; entry; entry = entry->next) {
      if (!cJSON_IsString(entry)) {
        return dli_raise(DLORA_ERR_FORMAT, "%s: __metadata__: the value of '%s' is not a string", tensors->label,
                         entry->string);
      }
      num_entries++;
      text_size += strlen(entry->string) + strlen(entry->valuestring) + 2;
    }
  }
  DLI_TRY(DLI_NEW(&tensors->allocator, tensors->text, text_size));
  DLI_TRY(DLI_NEW(&tensors->allocator, tensors->tensors, num_tensors));
  DLI_TRY(DLI_NEW(&tensors->allocator, tensors->by_name, num_tensors));
  DLI_TRY(DLI_NEW(&tensors->allocator, tensors->entries, num_entries));
  tensors->text_end = tensors->text;
  tensors->text_size = text_size;
  tensors->capacity = num_tensors;
  return DLORA_OK;
}

static int compare_offsets(const void *left, const void *right) {
  const struct dli_tensor *a = left;
  const struct dli_tensor *b = right;
  const unsigned char *first = a->data;
  const unsigned char *second = b->data;
  if (first != second) return first < second ? -1 : 1;
  /* Empty tensors come before the one that begins at the same place. */
  if (a->num_bytes != b->num_bytes) return a->num_bytes < b->num_bytes ? -1 : 1;
  return strcmp(a->name, b->name);
}

static int compare_names(const void *left, const void *right) {
  const struct dli_tensor *a = *(const struct dli_tensor *const *)left;
  const struct dli_tensor *b = *(const struct dli_tensor *const *)right;
  return strcmp(a->name, b->name);
}

static int compare_keys(const void *left, const void *right) {
  const struct dli_entry *a = left;
  const struct dli_entry *b = right;
  return strcmp(a->key, b->key);
}

/* Every byte of the data belongs to exactly one tensor. The tensors are sorted by offset, so that each must begin where
 * the one before it ends. */
static dlora_status check_layout(const struct dli_tensors *tensors) {
  size_t end = 0;
  for (size_t i = 0; i < tensors->count; i++) {
    const struct dli_tensor *tensor = &tensors->tensors[i];
    const size_t begin = (size_t)((const unsigned char *)tensor->data - tensors->data);
    if (begin < end) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s' overlaps tensor '%s'", tensors->label, tensor->name,
                       tensors->tensors[i - 1].name);
    }
    if (begin > end) {
      return dli_raise(DLORA_ERR_FORMAT,
                       "%s: tensor '%s' begins at byte %zu of the data, expected %zu (a hole before it)",
                       tensors->label, tensor->name, begin, end);
    }
    end = begin + tensor->num_bytes;
  }
  if (end != tensors->data_size) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: %zu bytes of data, but its tensors end at %zu", tensors->label,
                     tensors->data_size, end);
  }
  return DLORA_OK;
}

void dli_tensors_sort_names(struct dli_tensors *tensors) {
  for (size_t i = 0; i < tensors->count; i++) tensors->by_name[i] = &tensors->tensors[i];
  qsort(tensors->by_name, tensors->count, sizeof *tensors->by_name, compare_names);
}

/* Sorts the three indexes and compares neighbours: equal names or keys, overlaps and holes show there. */
static dlora_status sort_and_check(struct dli_tensors *tensors) {
  dli_tensors_sort_names(tensors);
  for (size_t i = 1; i < tensors->count; i++) {
    if (strcmp(tensors->by_name[i - 1]->name, tensors->by_name[i]->name) == 0) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s' is given twice", tensors->label, tensors->by_name[i]->name);
    }
  }
  qsort(tensors->entries, tensors->num_entries, sizeof *tensors->entries, compare_keys);
  for (size_t i = 1; i < tensors->num_entries; i++) {
    if (strcmp(tensors->entries[i - 1].key, tensors->entries[i].key) == 0) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: __metadata__: '%s' is given twice", tensors->label,
                       tensors->entries[i].key);
    }
  }
  qsort(tensors->tensors, tensors->count, sizeof *tensors->tensors, compare_offsets);
  dli_tensors_sort_names(tensors); /* which moved */
  return check_layout(tensors);
}

dlora_status dli_tensors_index(struct dli_tensors *tensors, const cJSON *root) {
  if (!cJSON_IsObject(root)) return dli_raise(DLORA_ERR_FORMAT, "%s: the header is not a JSON object", tensors->label);
  DLI_TRY(count_members(tensors, root));
  for (const cJSON *item = root->child; item; item = item->next) {
    if (!is_metadata(item)) {
      DLI_ASSERT(tensors->count < tensors->capacity);
      DLI_TRY(parse_tensor(tensors, &tensors->tensors[tensors->count], item));
      tensors->count++;
      continue;
    }
    for (const cJSON *entry = item->child; entry; entry = entry->next) {
      struct dli_entry *kept = &tensors->entries[tensors->num_entries++];
      kept->key = keep_text(tensors, entry->string);
      kept->value = keep_text(tensors, entry->valuestring);
    }
  }
  return sort_and_check(tensors);
}

/* ---- looking up ---- */

size_t dli_tensors_count(const struct dli_tensors *tensors) {
  return tensors->count;
}

const struct dli_tensor *dli_tensors_at(const struct dli_tensors *tensors, size_t index) {
  return index < tensors->count ? &tensors->tensors[index] : NULL;
}

const struct dli_tensor *dli_tensors_find(const struct dli_tensors *tensors, const char *name) {
  const struct dli_tensor wanted = {.name = name};
  const struct dli_tensor *key = &wanted;
  const struct dli_tensor *const *found =
      bsearch(&key, tensors->by_name, tensors->count, sizeof *tensors->by_name, compare_names);
  return found ? *found : NULL;
}

const char *dli_tensors_metadata(const struct dli_tensors *tensors, const char *key) {
  const struct dli_entry wanted = {key, NULL};
  const struct dli_entry *found =
      bsearch(&wanted, tensors->entries, tensors->num_entries, sizeof *tensors->entries, compare_keys);
  return found ? found->value : NULL;
}

size_t dli_tensors_metadata_count(const struct dli_tensors *tensors) {
  return tensors->num_entries;
}

void dli_tensors_metadata_at(const struct dli_tensors *tensors, size_t index, const char **key, const char **value) {
  const bool valid = index < tensors->num_entries;
  *key = valid ? tensors->entries[index].key : NULL;
  *value = valid ? tensors->entries[index].value : NULL;
}
