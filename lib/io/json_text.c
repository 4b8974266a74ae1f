/* Checks that text is UTF-8 and safe to hand to a JSON parser, and writes the JSON of a safetensors header.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/json_text.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"

/* Bytes of the character at text, or 0 if it is not one (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *text, size_t size) {
  const unsigned char first = text[0];
  if (first < 0x80) return 1;
  unsigned char lowest = 0x80;
  unsigned char highest = 0xBF;
  size_t length;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) lowest = 0xA0;
    if (first == 0xED) highest = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) lowest = 0x90;
    if (first == 0xF4) highest = 0x8F;
  } else {
    return 0;
  }
  if (size < length || text[1] < lowest || text[1] > highest) return 0;
  for (size_t i = 2; i < length; i++) {
    if ((text[i] & 0xC0) != 0x80) return 0;
  }
  return length;
}

bool dli_is_utf8(const char *text, size_t size) {
  for (size_t i = 0; i < size;) {
    const size_t length = utf8_length((const unsigned char *)text + i, size - i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

bool dli_is_json_text(const char *text, size_t size) {
  if (!dli_is_utf8(text, size)) return false;
  for (size_t i = 0; i < size; i++) {
    const unsigned char c = (unsigned char)text[i];
    if (c < 0x20 && c != '\t' && c != '\n' && c != '\r') return false;
    if (c != '\\') continue;
    if (size - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0) return false;
    i++;
  }
  return true;
}

dlora_status dli_text_append(struct dli_text *text, const char *bytes, size_t size) {
  if (size > text->capacity - text->size) {
    size_t needed = text->size + size;
    if (needed < 2 * text->capacity) needed = 2 * text->capacity;
    if (needed < 256) needed = 256;
    char *larger = NULL;
    DLI_TRY(DLI_NEW(text->allocator, larger, needed));
    if (text->size > 0) memcpy(larger, text->data, text->size);
    dli_free(text->allocator, text->data);
    text->data = larger;
    text->capacity = needed;
  }
  if (size > 0) memcpy(text->data + text->size, bytes, size);
  text->size += size;
  return DLORA_OK;
}

dlora_status dli_text_append_string(struct dli_text *text, const char *string) {
  DLI_TRY(dli_text_append(text, "\"", 1));
  const char *plain = string;
  for (const char *at = string; *at; at++) {
    const unsigned char c = (unsigned char)*at;
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    DLI_TRY(dli_text_append(text, plain, (size_t)(at - plain)));
    char escaped[8];
    const int size = c < 0x20 ? snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)c)
                              : snprintf(escaped, sizeof escaped, "\\%c", c);
    DLI_TRY(dli_text_append(text, escaped, (size_t)size));
    plain = at + 1;
  }
  DLI_TRY(dli_text_append(text, plain, strlen(plain)));
  return dli_text_append(text, "\"", 1);
}

dlora_status dli_text_append_size(struct dli_text *text, size_t number) {
  char digits[24];
  const int size = snprintf(digits, sizeof digits, "%zu", number);
  return dli_text_append(text, digits, (size_t)size);
}

void dli_text_free(struct dli_text *text) {
  dli_free(text->allocator, text->data);
  *text = (struct dli_text){0};
}
