/* Writes safetensors files: tensors and metadata are collected, laid out with the widest elements first, and saved as
 * one atomic replacement of the file.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/memory.h"
#include "base/status.h"
#include "io/atomic_file.h"
#include "io/dtype.h"
#include "io/json_text.h"
#include "io/safetensors.h"

/* What readers accept, this one and the format's own. */
enum { LARGEST_HEADER = 100 * 1000 * 1000, HEADER_ALIGNMENT = 8 };

struct item {
  char *name;
  const struct dli_dtype_info *dtype;
  size_t num_dims;
  size_t shape[DLI_MAX_DIMS];
  size_t num_bytes;
  size_t index; /* of insertion */
  const void *data;
};

struct entry {
  char *key;
  char *value;
};

struct dli_writer {
  dlora_allocator allocator;
  struct item *items;
  size_t num_items;
  size_t item_capacity;
  struct entry *entries;
  size_t num_entries;
  size_t entry_capacity;
};

dlora_status dli_writer_create(struct dli_writer **out, const dlora_allocator *allocator) {
  *out = NULL;
  dlora_allocator used;
  struct dli_writer *writer = NULL;
  DLI_TRY(dli_allocator_read(&used, allocator));
  DLI_TRY(DLI_NEW(&used, writer, 1));
  writer->allocator = used;
  *out = writer;
  return DLORA_OK;
}

void dli_writer_destroy(struct dli_writer *writer) {
  if (!writer) return;
  const dlora_allocator allocator = writer->allocator;
  for (size_t i = 0; i < writer->num_items; i++) dli_free(&allocator, writer->items[i].name);
  for (size_t i = 0; i < writer->num_entries; i++) {
    dli_free(&allocator, writer->entries[i].key);
    dli_free(&allocator, writer->entries[i].value);
  }
  dli_free(&allocator, writer->items);
  dli_free(&allocator, writer->entries);
  dli_free(&allocator, writer);
}

/* Makes room for one more element of `size` bytes in *array. */
static dlora_status reserve(const dlora_allocator *allocator, void **array, size_t *capacity, size_t used,
                            size_t size) {
  if (used < *capacity) return DLORA_OK;
  const size_t larger_capacity = *capacity > 0 ? 2 * *capacity : 32;
  void *larger = dli_alloc(allocator, larger_capacity, size);
  if (!larger) return DLORA_ERR_NO_MEMORY;
  if (used > 0) memcpy(larger, *array, used * size);
  dli_free(allocator, *array);
  *array = larger;
  *capacity = larger_capacity;
  return DLORA_OK;
}

dlora_status dli_writer_add(struct dli_writer *writer, const char *name, enum dli_dtype dtype, size_t num_dims,
                            const size_t *shape, const void *data) {
  struct item item = {.dtype = dli_dtype_get(dtype), .num_dims = num_dims, .index = writer->num_items, .data = data};
  if (!dli_is_utf8(name, strlen(name))) {
    return dli_raise(DLORA_ERR_ARGUMENT, "tensor name '%s' is not UTF-8", name);
  }
  if (!item.dtype) return dli_raise(DLORA_ERR_ARGUMENT, "tensor '%s': dtype %d cannot be written", name, (int)dtype);
  if (num_dims > DLI_MAX_DIMS) {
    return dli_raise(DLORA_ERR_ARGUMENT, "tensor '%s' has %zu dimensions, expected at most %d", name, num_dims,
                     DLI_MAX_DIMS);
  }
  size_t num_bytes = item.dtype->bits / 8;
  for (size_t i = 0; i < num_dims; i++) {
    item.shape[i] = shape[i];
    if (!dli_multiply(&num_bytes, num_bytes, shape[i])) {
      return dli_raise(DLORA_ERR_ARGUMENT, "tensor '%s': its shape overflows at dimension %zu (%zu)", name, i,
                       shape[i]);
    }
  }
  item.num_bytes = num_bytes;
  if (num_bytes > 0 && !data) return dli_raise(DLORA_ERR_ARGUMENT, "tensor '%s': data is NULL", name);
  void *items = writer->items;
  DLI_TRY(reserve(&writer->allocator, &items, &writer->item_capacity, writer->num_items, sizeof item));
  writer->items = items;
  item.name = dli_strdup(&writer->allocator, name);
  if (!item.name) return DLORA_ERR_NO_MEMORY;
  writer->items[writer->num_items++] = item;
  return DLORA_OK;
}

dlora_status dli_writer_set_metadata(struct dli_writer *writer, const char *key, const char *value) {
  if (!dli_is_utf8(key, strlen(key))) return dli_raise(DLORA_ERR_ARGUMENT, "metadata key '%s' is not UTF-8", key);
  if (!dli_is_utf8(value, strlen(value))) {
    return dli_raise(DLORA_ERR_ARGUMENT, "metadata '%s': its value is not UTF-8", key);
  }
  dlora_status status = DLORA_OK;
  char *key_copy = NULL;
  char *value_copy = dli_strdup(&writer->allocator, value);
  if (!value_copy) return DLORA_ERR_NO_MEMORY;
  for (size_t i = 0; i < writer->num_entries; i++) {
    if (strcmp(writer->entries[i].key, key) != 0) continue;
    dli_free(&writer->allocator, writer->entries[i].value);
    writer->entries[i].value = value_copy;
    return DLORA_OK;
  }
  void *entries = writer->entries;
  DLI_TRY_DONE(
      reserve(&writer->allocator, &entries, &writer->entry_capacity, writer->num_entries, sizeof(struct entry)));
  writer->entries = entries;
  key_copy = dli_strdup(&writer->allocator, key);
  if (!key_copy) {
    status = DLORA_ERR_NO_MEMORY;
    goto done;
  }
  writer->entries[writer->num_entries++] = (struct entry){key_copy, value_copy};
  value_copy = NULL;
done:
  dli_free(&writer->allocator, value_copy);
  return status;
}

/* Widest elements first, so that each tensor is aligned for its type without holes. */
static int compare_layout(const void *left, const void *right) {
  const struct item *a = *(const struct item *const *)left;
  const struct item *b = *(const struct item *const *)right;
  if (a->dtype->bits != b->dtype->bits) return a->dtype->bits > b->dtype->bits ? -1 : 1;
  return a->index < b->index ? -1 : a->index > b->index;
}

static int compare_names(const void *left, const void *right) {
  const struct item *a = *(const struct item *const *)left;
  const struct item *b = *(const struct item *const *)right;
  return strcmp(a->name, b->name);
}

static dlora_status append_literal(struct dli_text *text, const char *literal) {
  return dli_text_append(text, literal, strlen(literal));
}

/* ,"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]} */
static dlora_status append_item(struct dli_text *text, const struct item *item, size_t begin) {
  if (text->size > 1) DLI_TRY(append_literal(text, ","));
  DLI_TRY(dli_text_append_string(text, item->name));
  DLI_TRY(append_literal(text, ":{\"dtype\":\""));
  DLI_TRY(append_literal(text, item->dtype->name));
  DLI_TRY(append_literal(text, "\",\"shape\":["));
  for (size_t i = 0; i < item->num_dims; i++) {
    if (i > 0) DLI_TRY(append_literal(text, ","));
    DLI_TRY(dli_text_append_size(text, item->shape[i]));
  }
  DLI_TRY(append_literal(text, "],\"data_offsets\":["));
  DLI_TRY(dli_text_append_size(text, begin));
  DLI_TRY(append_literal(text, ","));
  DLI_TRY(dli_text_append_size(text, begin + item->num_bytes));
  return append_literal(text, "]}");
}

static dlora_status append_metadata(struct dli_text *text, const struct dli_writer *writer) {
  if (writer->num_entries == 0) return DLORA_OK;
  DLI_TRY(append_literal(text, "\"__metadata__\":{"));
  for (size_t i = 0; i < writer->num_entries; i++) {
    if (i > 0) DLI_TRY(append_literal(text, ","));
    DLI_TRY(dli_text_append_string(text, writer->entries[i].key));
    DLI_TRY(append_literal(text, ":"));
    DLI_TRY(dli_text_append_string(text, writer->entries[i].value));
  }
  return append_literal(text, "}");
}

static dlora_status build_header(struct dli_text *text, const struct dli_writer *writer,
                                 const struct item *const *order) {
  DLI_TRY(append_literal(text, "{"));
  DLI_TRY(append_metadata(text, writer));
  size_t begin = 0;
  for (size_t i = 0; i < writer->num_items; i++) {
    DLI_ASSERT(begin % (order[i]->dtype->bits / 8) == 0); /* by the order of the widths */
    DLI_TRY(append_item(text, order[i], begin));
    begin += order[i]->num_bytes;
  }
  DLI_TRY(append_literal(text, "}"));
  while (text->size % HEADER_ALIGNMENT != 0) DLI_TRY(append_literal(text, " "));
  if (text->size > LARGEST_HEADER) {
    return dli_raise(DLORA_ERR_UNSUPPORTED,
                     "the header of %zu tensors and %zu metadata entries has %zu bytes, at most %d fit",
                     writer->num_items, writer->num_entries, text->size, LARGEST_HEADER);
  }
  return DLORA_OK;
}

static dlora_status check_names(const struct item *const *by_name, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (strcmp(by_name[i]->name, "__metadata__") == 0) {
      return dli_raise(DLORA_ERR_ARGUMENT, "no tensor may be named '__metadata__'");
    }
    if (i > 0 && strcmp(by_name[i - 1]->name, by_name[i]->name) == 0) {
      return dli_raise(DLORA_ERR_ARGUMENT, "tensor '%s' was added twice", by_name[i]->name);
    }
  }
  return DLORA_OK;
}

dlora_status dli_writer_save(struct dli_writer *writer, const char *path) {
  dlora_status status = DLORA_OK;
  struct dli_text header = {.allocator = &writer->allocator};
  struct dli_atomic_file *file = NULL;
  const struct item **order = NULL;
  DLI_TRY_DONE(DLI_NEW(&writer->allocator, order, writer->num_items));
  for (size_t i = 0; i < writer->num_items; i++) order[i] = &writer->items[i];
  qsort(order, writer->num_items, sizeof *order, compare_names);
  DLI_TRY_DONE(check_names(order, writer->num_items));
  qsort(order, writer->num_items, sizeof *order, compare_layout);
  DLI_TRY_DONE(build_header(&header, writer, order));

  unsigned char length[8];
  for (size_t i = 0; i < sizeof length; i++) length[i] = (unsigned char)((uint64_t)header.size >> 8 * i);
  DLI_TRY_DONE(dli_atomic_file_create(&file, path, &writer->allocator));
  DLI_TRY_DONE(dli_atomic_file_write(file, length, sizeof length));
  DLI_TRY_DONE(dli_atomic_file_write(file, header.data, header.size));
  for (size_t i = 0; i < writer->num_items; i++) {
    DLI_TRY_DONE(dli_atomic_file_write(file, order[i]->data, order[i]->num_bytes));
  }
  DLI_TRY_DONE(dli_atomic_file_commit(file));
done:
  dli_atomic_file_destroy(file);
  dli_text_free(&header);
  dli_free(&writer->allocator, order);
  return status;
}
