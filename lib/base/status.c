/* The error sentence of each thread, and structs whose first member is their size: read and written such that programs
 * built against an older or a newer header work.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

/* Larger sizes come from uninitialised structs; reading that far would leave the caller's memory. */
enum { MAX_STRUCT_SIZE = 1 << 20, SENTENCE_SIZE = 1024 };

/* A fixed buffer for each thread, so that running out of memory can be reported without taking any. */
static _Thread_local char last_error[SENTENCE_SIZE];

const char *dlora_last_error(void) {
  return last_error;
}

const char *dlora_status_name(dlora_status status) {
  switch (status) {
#define STATUS_CASE(name, code, when, action) \
  case (code): \
    return "DLORA_" #name;
    DLORA_STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
    default:
      return "DLORA_ERR_?";
  }
}

dlora_status dli_raise(dlora_status status, const char *format, ...) {
  DLI_ASSERT(status != DLORA_OK);
  /* Apart from last_error, which may be one of the arguments: a caller may wrap an earlier sentence. */
  char sentence[SENTENCE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(sentence, sizeof sentence, format, arguments);
  va_end(arguments);
  if (length < 0) {
    memcpy(last_error, "error (its sentence could not be formatted)",
           sizeof "error (its sentence could not be formatted)");
    return status;
  }
  if ((size_t)length >= sizeof sentence) {
    /* A UTF-8 character is not cut in half. */
    size_t end = sizeof sentence - sizeof "...";
    while (end > 0 && ((unsigned char)sentence[end] & 0xC0) == 0x80) end--;
    memcpy(sentence + end, "...", sizeof "...");
  }
  memcpy(last_error, sentence, sizeof last_error);
  return status;
}

dlora_status dli_options_read(const char *name, void *known, size_t known_size, const void *given) {
  if (!given) {
    memcpy(known, &known_size, sizeof known_size);
    return DLORA_OK;
  }
  size_t size;
  memcpy(&size, given, sizeof size);
  if (size < sizeof size || size > MAX_STRUCT_SIZE) {
    return dli_raise(DLORA_ERR_STRUCT_SIZE, "%s: struct_size is %zu, expected %zu (start from the INIT macro)", name,
                     size, known_size);
  }
  const unsigned char *bytes = given;
  for (size_t i = known_size; i < size; i++) {
    if (bytes[i] != 0) {
      return dli_raise(DLORA_ERR_STRUCT_SIZE,
                       "%s: struct_size is %zu and byte %zu is set, but this library knows only the first %zu bytes",
                       name, size, i, known_size);
    }
  }
  memcpy(known, given, size < known_size ? size : known_size);
  memcpy(known, &known_size, sizeof known_size);
  return DLORA_OK;
}

dlora_status dli_struct_write(const char *name, void *caller, size_t size, const void *full, size_t full_size) {
  if (!caller) return dli_raise(DLORA_ERR_ARGUMENT, "%s: the struct to fill is NULL", name);
  if (size < sizeof size || size > MAX_STRUCT_SIZE) {
    return dli_raise(DLORA_ERR_STRUCT_SIZE, "%s: struct size is %zu, expected %zu", name, size, full_size);
  }
  const size_t covered = size < full_size ? size : full_size;
  memcpy(caller, full, covered);
  memset((unsigned char *)caller + covered, 0, size - covered);
  memcpy(caller, &size, sizeof size);
  return DLORA_OK;
}
