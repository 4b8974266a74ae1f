/* Numbers as text, with a decimal point in every locale.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_NUMBER_H
#define DLI_BASE_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The whole text as a finite decimal number: digits, sign, point, exponent; no blanks, no hexadecimal. */
bool dli_number_parse(const char *text, double *out);
/* The whole text as an integer of decimal digits, with a minus sign if `negative` is not NULL, which then says so. */
bool dli_integer_parse(const char *text, bool *negative, uint64_t *out);
/* The shortest text that reads as this float again. out: 32 bytes. */
void dli_float_format(float value, char *out);

#endif
