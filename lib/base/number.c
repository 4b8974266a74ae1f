/* Numbers as text. The C library reads and prints them with the decimal point of the program's locale, which a library
 * may not change: the point is exchanged before and after.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/number.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 128 };

bool dli_number_parse(const char *text, double *out) {
  const char *point = localeconv()->decimal_point;
  const size_t length = strlen(text), width = strlen(point);
  char local[SIZE + 16], *end = NULL;
  size_t used = 0;
  if (!length || length > SIZE || width > 8 || strspn(text, "+-.0123456789eE") != length) return false;
  for (size_t i = 0, points = 0; i < length; i++) {
    if (text[i] != '.') {
      local[used++] = text[i];
    } else {
      if (points++) return false;
      memcpy(local + used, point, width);
      used += width;
    }
  }
  local[used] = '\0';
  *out = strtod(local, &end);
  return *end == '\0' && isfinite(*out);
}

bool dli_integer_parse(const char *text, bool *negative, uint64_t *out) {
  if (negative) *negative = *text == '-';
  if (negative && *text == '-') text++;
  *out = 0;
  if (!*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9') return false;
    const uint64_t digit = (uint64_t)(*text - '0');
    if (*out > (UINT64_MAX - digit) / 10) return false;
    *out = *out * 10 + digit;
  }
  return true;
}

void dli_float_format(float value, char *out) {
  for (int digits = 6; digits <= 9; digits++) {
    snprintf(out, 32, "%.*g", digits, (double)value);
    if (strtof(out, NULL) == value) break;
  }
  const char *point = localeconv()->decimal_point;
  const size_t width = strlen(point);
  char *at = strcmp(point, ".") != 0 ? strstr(out, point) : NULL;
  if (!at) return;
  memmove(at + 1, at + width, strlen(at + width) + 1);
  *at = '.';
}
