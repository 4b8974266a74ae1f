/* UTF-8, which is all that JSON may hold.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_UTF8_H
#define DUALLORA_CLI_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/** Bytes of the valid sequence that a text begins with, or 0: overlong forms, surrogates and strays are not valid. */
size_t utf8_sequence(const char *text);
bool utf8_is_valid(const char *text);
/** A copy with every stray byte replaced by U+FFFD, to be freed; NULL without memory. */
char *utf8_clean(const char *text);
/** Prints a text so that it stays within its line: control characters and stray bytes as \n, \t, \r or \xNN, and a
 *  backslash as two. Returns the bytes printed. */
size_t utf8_print(FILE *out, const char *text);

#endif
