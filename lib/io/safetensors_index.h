/* An open safetensors file, for the files that read it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_SAFETENSORS_INDEX_H
#define DLI_IO_SAFETENSORS_INDEX_H

#include "io/safetensors.h"

struct dli_entry {
  const char *key;
  const char *value;
};

/* bytes                                                     data                                     bytes + size
 * | header length (8) | JSON header, padded with spaces ... | tensor | tensor | ... without holes ...  | */
struct dli_tensors {
  dlora_allocator allocator;
  char *label;
  const unsigned char *bytes;
  size_t size;
  void *mapping; /* NULL: bytes belong to the caller */
  const unsigned char *data;
  size_t data_size;
  char *text; /* [text_size] names, keys and values one after the other */
  char *text_end;
  size_t text_size;
  struct dli_tensor *tensors; /* [capacity], of which count are filled; by offset */
  size_t count, capacity;
  const struct dli_tensor **by_name;
  struct dli_entry *entries; /* metadata by key */
  size_t num_entries;
  struct dli_tensors **parts; /* [num_parts] that the tensors lie in; NULL: in bytes */
  size_t num_parts;
};

/* An index without anything in it. */
dlora_status dli_tensors_create(struct dli_tensors **out, const char *label, const dlora_allocator *allocator);

/* Fills the index from the header's JSON. label, data and data_size must be set. Errors: FORMAT, UNSUPPORTED,
 * NO_MEMORY. */
struct cJSON;
dlora_status dli_tensors_index(struct dli_tensors *tensors, const struct cJSON *root);
/* Sorts tensors [count] by name into by_name. */
void dli_tensors_sort_names(struct dli_tensors *tensors);

#endif
