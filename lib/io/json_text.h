/* Text of JSON headers: which text is accepted, and writing it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_JSON_TEXT_H
#define DLI_IO_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "duallora/duallora.h"

/* Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool dli_is_utf8(const char *text, size_t size);
/* UTF-8 without NUL and control characters other than white space, and without an escaped NUL: strings that a JSON
 * parser takes from it are whole as C strings. */
bool dli_is_json_text(const char *text, size_t size);

/* Text that grows. Start with an allocator and zeros; free with dli_text_free. */
struct dli_text {
  const dlora_allocator *allocator;
  char *data;
  size_t size;
  size_t capacity;
};
dlora_status dli_text_append(struct dli_text *text, const char *bytes, size_t size);
dlora_status dli_text_append_string(struct dli_text *text, const char *string); /* quoted and escaped */
dlora_status dli_text_append_size(struct dli_text *text, size_t number);
void dli_text_free(struct dli_text *text);

#endif
