/* Recognises the kind of a file that is not a safetensors file, by its first bytes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_FILE_KIND_H
#define DLI_IO_FILE_KIND_H

#include <stddef.h>

#include "duallora/duallora.h"

enum { DLI_KIND_SIZE = 320 };

/* Writes what bytes [size] are and what to do about it, so that "<path>: " may precede it. Returns out, or NULL where
 * they are of no known kind. */
const char *dli_file_kind(char out[DLI_KIND_SIZE], const unsigned char *bytes, size_t size);
/* What to say after a tensor was not found in a file whose name says that it is one of several parts; else "". */
const char *dli_file_part_hint(const char *path);
/* IO, for a path that open() refused with this errno: a link to nowhere is told from a file that is not there. */
dlora_status dli_raise_open(const char *path, int error);

#endif
