/* UTF-8, which is all that JSON may hold.
 * SPDX-License-Identifier: Apache-2.0 */
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

size_t utf8_sequence(const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  if (at[0] < 0x80) return 1;
  if (at[0] < 0xc2 || at[0] > 0xf4) return 0;
  size_t length = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
  /* The second byte alone tells overlong forms, surrogates and what is above U+10FFFF. */
  unsigned low = at[0] == 0xe0 ? 0xa0 : at[0] == 0xf0 ? 0x90 : 0x80;
  unsigned high = at[0] == 0xed ? 0x9f : at[0] == 0xf4 ? 0x8f : 0xbf;
  if (at[1] < low || at[1] > high) return 0;
  for (size_t i = 2; i < length; i++)
    if ((at[i] & 0xc0) != 0x80) return 0;
  return length;
}

bool utf8_is_valid(const char *text) {
  while (*text != '\0') {
    size_t length = utf8_sequence(text);
    if (length == 0) return false;
    text += length;
  }
  return true;
}

char *utf8_clean(const char *text) {
  static const char replacement[] = "\xef\xbf\xbd";
  char *clean = malloc(3 * strlen(text) + 1);
  if (clean == NULL) return NULL;
  char *to = clean;
  while (*text != '\0') {
    size_t length = utf8_sequence(text);
    size_t size = length > 0 ? length : sizeof replacement - 1;
    memcpy(to, length > 0 ? text : replacement, size);
    to += size;
    text += length > 0 ? length : 1;
  }
  *to = '\0';
  return clean;
}

size_t utf8_print(FILE *out, const char *text) {
  size_t printed = 0;
  while (*text != '\0') {
    const unsigned char *at = (const unsigned char *)text;
    size_t length = utf8_sequence(text);
    /* U+0080 to U+009F control terminals too. */
    bool plain =
        length == 1 ? at[0] >= 0x20 && at[0] != 0x7f && at[0] != '\\' : length > 1 && !(at[0] == 0xc2 && at[1] < 0xa0);
    const char *letter = length == 1 ? strchr("\nn\tt\rr\\\\", at[0]) : NULL;
    if (length == 0) length = 1;
    if (plain) {
      printed += fwrite(text, 1, length, out);
    } else if (letter != NULL) {
      printed += (size_t)fprintf(out, "\\%c", letter[1]);
    } else {
      for (size_t i = 0; i < length; i++) printed += (size_t)fprintf(out, "\\x%02x", at[i]);
    }
    text += length;
  }
  return printed;
}
