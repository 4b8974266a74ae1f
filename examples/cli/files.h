/* The files that a command reads and writes: that none takes another's place, and that all can be written.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_FILES_H
#define DUALLORA_CLI_FILES_H

#include <stddef.h>

#include "problem.h"

typedef enum file_purpose {
  FILE_READ,       /* a file, or a folder of data */
  FILE_CHECKPOINT, /* written by the library in place of the old one: never a device, pipe or folder */
  FILE_REPORT      /* JSON; - is standard output, and a pipe or device is written to */
} file_purpose;

typedef struct file_use {
  const char *name; /* what the user calls it: "--out" */
  const char *path; /* NULL: not given */
  file_purpose purpose;
} file_use;

/** Before any work begins: no file that is written is one that is read or another one that is written, whatever the
 *  names and links that lead to them; what is to be replaced is of the kind that replaces it; and what cannot be
 * written is known now rather than after hours. To replace a file that is read, leave the use that reads it out.
 * Returns EXIT_DONE, or with a sentence EXIT_USAGE or EXIT_FAILED. */
int files_check(const file_use *uses, size_t count, problem *why);
bool files_are_same(const char *path, const char *other);
bool files_exist(const char *path);

#endif
