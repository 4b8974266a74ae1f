/* Text files that appear complete or not at all.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_TEXT_FILE_H
#define DUALLORA_BENCH_TEXT_FILE_H

#include <stdio.h>

#include "../../examples/cli/problem.h"

typedef struct text_file {
  FILE *stream;
  char *path;
  char *temporary;
} text_file;

/** Begins folder/name; printing to stream needs no checks, text_file_close reports any failure. */
bool text_file_open(text_file *file, const char *folder, const char *name, problem *why);
bool text_file_close(text_file *file, problem *why);

#endif
