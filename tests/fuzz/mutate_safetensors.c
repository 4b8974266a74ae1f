/* A libFuzzer mutator that knows safetensors. A file is taken apart into tensors and metadata, some of these are
 * changed, and they are put together again with a header that fits: so that what comes behind the reader's own checks
 * is reached. Now and then the header's text or any byte is changed instead.
 * SPDX-License-Identifier: Apache-2.0 */
#include <cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

enum { LENGTH = 8, MAX_TENSORS = 256, MAX_TENSOR_SIZE = 1 << 15, MAX_NAME = 160, ROOM = 16 << 20 };

struct tensor {
  cJSON *item;    /* of the root */
  uint8_t *bytes; /* of the room */
  size_t size;
  int is_shared; /* lies over other tensors, for once */
};

struct parts {
  cJSON *root;
  cJSON *metadata; /* or NULL */
  struct tensor tensors[MAX_TENSORS];
  size_t count;
  uint64_t random;
};

static size_t below(struct parts *p, size_t bound) {
  p->random = p->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return bound ? (size_t)(p->random >> 33) % bound : 0;
}

static const char *const dtypes[] = {"F32",  "F64", "F16", "BF16", "I64",     "U64",     "I32", "U8",
                                     "BOOL", "I8",  "U32", "C64",  "F8_E4M3", "F6_E2M3", "F4",  "F33"};
static const unsigned widths[] = {32, 64, 16, 16, 64, 64, 32, 8, 8, 8, 32, 64, 8, 6, 4, 0};
enum { NUM_DTYPES = sizeof widths / sizeof widths[0] };

static const char *const texts[] = {"",
                                    "0",
                                    "1",
                                    "2",
                                    "-1",
                                    "8",
                                    "4 4 0 1",
                                    "8 8 0 64",
                                    "1e9",
                                    "1e-320",
                                    "0.5,nan,1",
                                    "2147483647",
                                    "4294967296",
                                    "1048576",
                                    "inf",
                                    "8x",
                                    "[1, 2, 3",
                                    "99999999999999999999",
                                    "9007199254740993",
                                    "1e400",
                                    " 7 ",
                                    "+3"};
static const double numbers[] = {0,
                                 1,
                                 2,
                                 3,
                                 -1,
                                 0.5,
                                 7,
                                 8,
                                 255,
                                 65536,
                                 2147483647.,
                                 2147483648.,
                                 4294967295.,
                                 4294967296.,
                                 9007199254740991.,
                                 9007199254740992.,
                                 18446744073709551615.,
                                 1e300};
#define PICK(p, list) (list)[below(p, sizeof(list) / sizeof(*(list)))]

/* ---- apart ---- */

/* For a copy of the file and what tensors grow to: everything is forgotten with the next file. */
static uint8_t room[ROOM];
static size_t used;

static uint8_t *take(size_t size) {
  if (size > ROOM - used) return NULL;
  used += size;
  return room + used - size;
}

static int take_apart(struct parts *p, const uint8_t *data, size_t size) {
  size_t header = 0;
  used = 0;
  if (size < LENGTH) return 0;
  for (size_t i = 0; i < LENGTH; i++) header |= (size_t)data[i] << (8 * i);
  if (header > size - LENGTH) return 0;
  p->root = cJSON_ParseWithLength((const char *)data + LENGTH, header);
  const size_t data_size = size - LENGTH - header;
  uint8_t *copy = take(data_size);
  if (!cJSON_IsObject(p->root) || !copy) {
    cJSON_Delete(p->root);
    return 0;
  }
  memcpy(copy, data + LENGTH + header, data_size);
  for (cJSON *item = p->root->child; item && p->count < MAX_TENSORS; item = item->next) {
    if (strcmp(item->string, "__metadata__") == 0) {
      p->metadata = item;
      continue;
    }
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    const cJSON *from = cJSON_GetArrayItem(offsets, 0), *to = cJSON_GetArrayItem(offsets, 1);
    struct tensor *tensor = &p->tensors[p->count++];
    *tensor = (struct tensor){.item = item, .bytes = copy};
    if (!from || !to || !(from->valuedouble >= 0 && from->valuedouble <= to->valuedouble)) continue;
    if (!(to->valuedouble <= (double)data_size)) continue;
    tensor->size = (size_t)to->valuedouble - (size_t)from->valuedouble;
    tensor->bytes = copy + (size_t)from->valuedouble;
  }
  return 1;
}

/* ---- together ---- */

struct text {
  char *data;
  size_t size, room; /* size > room: it does not fit */
};

static void add_bytes(struct text *text, const char *bytes, size_t size) {
  if (text->size <= text->room && size <= text->room - text->size) {
    memcpy(text->data + text->size, bytes, size);
    text->size += size;
  } else {
    text->size = SIZE_MAX;
  }
}

static void add_text(struct text *text, const char *string) {
  add_bytes(text, string, strlen(string));
}

static void add_size(struct text *text, uint64_t number) {
  char digits[24];
  size_t first = sizeof digits;
  do {
    digits[--first] = (char)('0' + number % 10);
    number /= 10;
  } while (number);
  add_bytes(text, digits + first, sizeof digits - first);
}

/* As cJSON prints it, which takes most of the time where numbers and strings are concerned. */
static void add_json(struct text *text, const cJSON *json) {
  char *printed = cJSON_PrintUnformatted(json);
  if (printed) add_text(text, printed);
  cJSON_free(printed);
}

static void add_string(struct text *text, const char *string) {
  if (!string) string = ""; /* a member that was added as to a list */
  for (const char *at = string; *at; at++) {
    if ((unsigned char)*at >= ' ' && *at != '"' && *at != '\\') continue;
    cJSON *escaped = cJSON_CreateString(string);
    add_json(text, escaped);
    cJSON_Delete(escaped);
    return;
  }
  add_text(text, "\"");
  add_text(text, string);
  add_text(text, "\"");
}

static void add_value(struct text *text, const cJSON *value) {
  const char *separator = "";
  if (cJSON_IsString(value)) {
    add_string(text, value->valuestring);
  } else if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < 1e15 &&
             value->valuedouble == (double)(uint64_t)value->valuedouble) {
    add_size(text, (uint64_t)value->valuedouble);
  } else if (cJSON_IsArray(value) || cJSON_IsObject(value)) {
    add_text(text, cJSON_IsArray(value) ? "[" : "{");
    for (const cJSON *item = value->child; item; item = item->next) {
      add_text(text, separator);
      if (cJSON_IsObject(value)) {
        add_string(text, item->string);
        add_text(text, ":");
      }
      add_value(text, item);
      separator = ",";
    }
    add_text(text, cJSON_IsArray(value) ? "]" : "}");
  } else if (value) {
    add_json(text, value);
  }
}

/* The file's size, or 0 if it does not fit: then data are neither the old file nor the new one. */
static size_t put_together(struct parts *p, uint8_t *data, size_t max_size) {
  if (max_size < LENGTH) return 0;
  struct text text = {(char *)data + LENGTH, 0, max_size - LENGTH};
  size_t end = 0;
  add_text(&text, "{");
  if (p->metadata) {
    add_text(&text, "\"__metadata__\":");
    add_value(&text, p->metadata);
  }
  for (size_t i = 0; i < p->count; i++) {
    struct tensor *tensor = &p->tensors[i];
    size_t begin = end;
    if (text.size > 1) add_text(&text, ",");
    add_string(&text, tensor->item->string);
    if (!cJSON_IsObject(tensor->item) || below(p, 2000) == 0) {
      add_text(&text, ":");
      add_value(&text, tensor->item); /* as it is, offsets and all */
    } else {
      add_text(&text, ":{\"dtype\":");
      add_value(&text, cJSON_GetObjectItemCaseSensitive(tensor->item, "dtype"));
      add_text(&text, ",\"shape\":");
      add_value(&text, cJSON_GetObjectItemCaseSensitive(tensor->item, "shape"));
      /* Now and then over others: without bytes of its own then, or there would be a hole in its place. */
      if (below(p, 400) == 0 && tensor->size <= end) {
        begin = below(p, end - tensor->size + 1);
        tensor->is_shared = below(p, 4) != 0;
      }
      add_text(&text, ",\"data_offsets\":[");
      add_size(&text, begin);
      add_text(&text, ",");
      add_size(&text, begin + tensor->size);
      add_text(&text, "]}");
    }
    if (!tensor->is_shared) end += tensor->size;
  }
  add_text(&text, "}");
  /* Mostly aligned, as the library writes it: then floats are used in place. */
  while (text.size % 8 != (below(p, 8) ? 0 : below(p, 8))) add_text(&text, " ");
  if (text.size > text.room || end > text.room - text.size) return 0;
  for (size_t i = 0; i < LENGTH; i++) data[i] = (uint8_t)((uint64_t)text.size >> (8 * i));
  size_t size = LENGTH + text.size;
  for (size_t i = 0; i < p->count; i++) {
    if (!p->tensors[i].size || p->tensors[i].is_shared) continue;
    memcpy(data + size, p->tensors[i].bytes, p->tensors[i].size);
    size += p->tensors[i].size;
  }
  return size;
}

/* ---- changes ---- */

static unsigned width_of(const struct tensor *tensor) {
  const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(tensor->item, "dtype");
  for (size_t i = 0; cJSON_IsString(dtype) && i < NUM_DTYPES; i++) {
    if (strcmp(dtypes[i], dtype->valuestring) == 0) return widths[i];
  }
  return 0;
}

static cJSON *shape_of(const struct tensor *tensor) {
  return cJSON_GetObjectItemCaseSensitive(tensor->item, "shape");
}

/* As many bytes as dtype and shape say; what is new repeats what was there. */
static void refit(struct tensor *tensor) {
  double count = 1;
  for (const cJSON *dim = shape_of(tensor) ? shape_of(tensor)->child : NULL; dim; dim = dim->next) {
    count *= dim->valuedouble;
  }
  const double wanted = count * width_of(tensor) / 8;
  if (!(wanted >= 0 && wanted <= MAX_TENSOR_SIZE)) return;
  const size_t size = (size_t)wanted;
  uint8_t *bytes = take(size);
  if (!bytes) return;
  for (size_t i = 0, from = 0; i < size; i++, from++) {
    if (from == tensor->size) from = 0;
    bytes[i] = tensor->size ? tensor->bytes[from] : 0;
  }
  tensor->bytes = bytes;
  tensor->size = size;
}

static double changed_number(struct parts *p, double number) {
  switch (below(p, 8)) {
    case 0:
      return number + 1;
    case 1:
      return number - 1;
    case 2:
      return number * 2;
    case 3:
      return (double)(size_t)(number >= 0 && number < 1e9 ? number / 2 : 0);
    case 4:
      return (double)below(p, 40);
    default:
      return PICK(p, numbers);
  }
}

static cJSON *dim_at(const struct tensor *tensor, size_t index) {
  cJSON *shape = shape_of(tensor);
  const int count = cJSON_GetArraySize(shape);
  return count > 0 ? cJSON_GetArrayItem(shape, (int)(index % (size_t)count)) : NULL;
}

/* One size everywhere, as an embed_dim or a number of tasks is. */
static void change_size_everywhere(struct parts *p) {
  const cJSON *dim = p->count ? dim_at(&p->tensors[below(p, p->count)], below(p, 4)) : NULL;
  if (!dim) return;
  const double from = dim->valuedouble, to = below(p, 4) ? (double)below(p, 20) : changed_number(p, from);
  for (size_t i = 0; i < p->count; i++) {
    cJSON *shape = shape_of(&p->tensors[i]);
    int changed = 0;
    for (cJSON *at = shape ? shape->child : NULL; at; at = at->next) {
      const double factor = from > 0 && at->valuedouble == 3 * from ? 3 : 1;
      if (at->valuedouble != factor * from) continue;
      cJSON_SetNumberValue(at, factor * to);
      changed = 1;
    }
    if (changed) refit(&p->tensors[i]);
  }
}

static void set_name(cJSON *item, const char *name) {
  const size_t size = strlen(name) + 1;
  char *copy = cJSON_malloc(size);
  if (!copy) abort();
  memcpy(copy, name, size);
  cJSON_free(item->string);
  item->string = copy;
}

/* A name with one digit replaced, or the name of another tensor. */
static void rename_item(struct parts *p, cJSON *item, const cJSON *other) {
  char name[MAX_NAME];
  snprintf(name, sizeof name, "%s", below(p, 4) ? item->string : other->string);
  const size_t length = strlen(name), start = below(p, length);
  for (size_t i = 0; i < length; i++) {
    char *at = &name[(start + i) % length];
    if (*at < '0' || *at > '9') continue;
    *at = (char)('0' + below(p, 10));
    break;
  }
  if (below(p, 16) == 0 && length > 1) memmove(name + start, name + start + 1, length - start);
  set_name(item, name);
}

static void set_values(struct parts *p, struct tensor *tensor, size_t first, size_t count) {
  static const double doubles[] = {0,   1,     -1,   0.5, 1e300, -1e300, 1e-310, 1e38,  1e20,
                                   2.0, 100.0, 1e-9, 3.0, -0.0,  256.0,  1e9,    0.001, 7.0};
  static const int64_t integers[] = {0,         1,         2,         3,         -1,        -2, 255, 256,
                                     1LL << 31, 1LL << 32, 1LL << 53, INT64_MAX, INT64_MIN, 7,  100, 65536};
  const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(tensor->item, "dtype");
  const int is_float = cJSON_IsString(dtype) && strchr(dtype->valuestring, 'F') != NULL;
  const size_t width = width_of(tensor) / 8;
  uint8_t value[8];
  const double number = PICK(p, doubles);
  const float single = (float)number;
  const uint64_t patterns[] = {
      0x7ff0000000000000u, 0x7ff8000000000000u, 0x7f800000u, 0x7fc00000u, 0x7c00u, 0x3c00u, 1u};
  const int64_t integer = PICK(p, integers);
  if (width == 0 || width > 8) return;
  memcpy(value, &integer, 8);
  if (is_float && width == 8) memcpy(value, &number, 8);
  if (is_float && width == 4) memcpy(value, &single, 4);
  if (is_float && (width == 2 || below(p, 4) == 0)) memcpy(value, &PICK(p, patterns), 8);
  for (size_t i = first; i < first + count && (i + 1) * width <= tensor->size; i++) {
    memcpy(tensor->bytes + i * width, value, width);
  }
}

static void replace(cJSON *object, const char *key, cJSON *value) {
  if (!cJSON_ReplaceItemInObjectCaseSensitive(object, key, value)) cJSON_Delete(value);
}

static void change_tensor(struct parts *p) {
  if (!p->count) return;
  const size_t index = below(p, p->count), other = below(p, p->count);
  struct tensor *tensor = &p->tensors[index];
  const unsigned width = width_of(tensor);
  cJSON *dim = dim_at(tensor, below(p, 4));
  switch (below(p, 14)) {
    case 0:
      replace(tensor->item, "dtype", cJSON_CreateString(PICK(p, dtypes)));
      refit(tensor);
      break;
    case 1:
      if (dim) cJSON_SetNumberValue(dim, changed_number(p, dim->valuedouble));
      refit(tensor);
      break;
    case 2: /* a dimension more or less */
      if (below(p, 2)) {
        cJSON *number = cJSON_CreateNumber((double)below(p, 3));
        if (!cJSON_AddItemToArray(shape_of(tensor), number)) cJSON_Delete(number);
      } else {
        cJSON_DeleteItemFromArray(shape_of(tensor), 0);
      }
      refit(tensor);
      break;
    case 3:
      rename_item(p, tensor->item, p->tensors[other].item);
      break;
    case 4: /* away */
      cJSON_Delete(cJSON_DetachItemViaPointer(p->root, tensor->item));
      p->tensors[index] = p->tensors[--p->count];
      break;
    case 5: { /* once more under another name */
      if (p->count == MAX_TENSORS) break;
      uint8_t *bytes = take(tensor->size);
      cJSON *copy = bytes ? cJSON_Duplicate(tensor->item, 1) : NULL;
      if (!copy) break;
      set_name(copy, tensor->item->string);
      rename_item(p, copy, p->tensors[other].item);
      cJSON_AddItemToArray(p->root, copy);
      struct tensor *added = &p->tensors[p->count++];
      *added = (struct tensor){copy, bytes, tensor->size, 0};
      if (tensor->size) memcpy(added->bytes, tensor->bytes, tensor->size);
      break;
    }
    case 6:
    case 7:
      if (tensor->size) (void)LLVMFuzzerMutate(tensor->bytes, tensor->size, tensor->size);
      break;
    case 8:
      set_values(p, tensor, 0, SIZE_MAX / 2);
      break;
    case 9: { /* another order */
      const struct tensor swapped = *tensor;
      *tensor = p->tensors[other];
      p->tensors[other] = swapped;
      break;
    }
    case 10: { /* another one's values */
      const struct tensor *from = &p->tensors[other];
      const size_t size = from->size < tensor->size ? from->size : tensor->size;
      if (size) memmove(tensor->bytes, from->bytes, size); /* tensors of a damaged file may overlap */
      break;
    }
    default:
      if (width >= 8) set_values(p, tensor, below(p, tensor->size * 8 / width), 1);
      break;
  }
}

static void change_metadata(struct parts *p) {
  const int count = cJSON_IsObject(p->metadata) ? cJSON_GetArraySize(p->metadata) : 0;
  if (!count) return;
  cJSON *entry = cJSON_GetArrayItem(p->metadata, (int)below(p, (size_t)count));
  const cJSON *other = cJSON_GetArrayItem(p->metadata, (int)below(p, (size_t)count));
  char value[MAX_NAME] = "";
  if (cJSON_IsString(entry)) snprintf(value, sizeof value, "%s", entry->valuestring);
  switch (below(p, 8)) {
    case 0:
      cJSON_Delete(cJSON_DetachItemViaPointer(p->metadata, entry));
      return;
    case 1:
      rename_item(p, entry, other);
      return;
    case 2: {
      cJSON *copy = cJSON_Duplicate(entry, 1);
      if (!copy) return;
      set_name(copy, entry->string);
      rename_item(p, copy, other);
      cJSON_AddItemToArray(p->metadata, copy);
      return;
    }
    case 3:
      snprintf(value, sizeof value, "%s", PICK(p, texts));
      break;
    case 4:
      if (cJSON_IsString(other)) snprintf(value, sizeof value, "%s", other->valuestring);
      break;
    case 5: { /* one number of it */
      char *at = value + below(p, strlen(value) + 1);
      const size_t digits = strspn(at, "-0123456789");
      char rest[MAX_NAME];
      snprintf(rest, sizeof rest, "%s", at + digits);
      snprintf(at, sizeof value - (size_t)(at - value), "%.0f%s", changed_number(p, atof(at)), rest);
      break;
    }
    default:
      value[LLVMFuzzerMutate((uint8_t *)value, strlen(value), sizeof value - 1)] = '\0';
      break;
  }
  if (cJSON_IsString(entry)) {
    char *key = strdup(entry->string);
    replace(p->metadata, key, cJSON_CreateString(value));
    free(key);
  }
}

/* ---- the header as text ---- */

static size_t change_header(struct parts *p, uint8_t *data, size_t size, size_t max_size) {
  size_t header = 0;
  for (size_t i = 0; i < LENGTH; i++) header |= (size_t)data[i] << (8 * i);
  const size_t rest = size - LENGTH - header, room = max_size - LENGTH - rest;
  uint8_t *text = malloc(room + 1);
  if (!text) abort();
  memcpy(text, data + LENGTH, header);
  size_t length = header;
  if (below(p, 2)) {
    length = LLVMFuzzerMutate(text, header, room);
  } else { /* a number */
    const size_t start = below(p, header);
    for (size_t i = 0; i < header; i++) {
      const size_t at = (start + i) % header;
      if (text[at] < '0' || text[at] > '9') continue;
      size_t end = at;
      while (end < header && text[end] >= '0' && text[end] <= '9') end++;
      char number[40];
      const size_t digits =
          (size_t)snprintf(number, sizeof number, below(p, 8) ? "%.0f" : "%g", changed_number(p, (double)below(p, 64)));
      if (header - (end - at) + digits > room || digits >= sizeof number) break;
      memmove(text + at + digits, text + end, header - end);
      memcpy(text + at, number, digits);
      length = header - (end - at) + digits;
      break;
    }
  }
  memmove(data + LENGTH + length, data + LENGTH + header, rest);
  memcpy(data + LENGTH, text, length);
  for (size_t i = 0; i < LENGTH; i++) data[i] = (uint8_t)((uint64_t)length >> (8 * i));
  free(text);
  return LENGTH + length + rest;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  struct parts p = {.random = seed};
  const size_t way = below(&p, 16);
  if (way == 0 || size > max_size || !take_apart(&p, data, size)) return LLVMFuzzerMutate(data, size, max_size);
  size_t changed = 0;
  if (way < 3) {
    changed = change_header(&p, data, size, max_size);
  } else {
    for (size_t changes = below(&p, 4) ? 1 : 3; changes > 0; changes--) {
      const size_t what = below(&p, 16);
      if (what < 3) {
        change_metadata(&p);
      } else if (what < 4) {
        change_size_everywhere(&p);
      } else {
        change_tensor(&p);
      }
    }
    changed = put_together(&p, data, max_size);
  }
  cJSON_Delete(p.root);
  fuzz_released();
  return changed ? changed : LLVMFuzzerMutate(data, size, max_size);
}
