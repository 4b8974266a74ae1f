/* What the readers of image formats share. The rest of the command includes image_file.h.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_IMAGE_READING_H
#define DUALLORA_CLI_IMAGE_READING_H

#include <stdio.h>

#include "image_file.h"

/** A file that is being read, from its beginning. */
typedef struct image_reading {
  const char *path;
  FILE *file;
  uint64_t file_size;
  pixels *out; /* NULL: the header alone */
  problem *why;
  int orientation; /* of Exif, 1 to 8; the reader sets it, and image_file.c turns the picture */
} image_reading;

/** Each reads the file as its format, as RGB with alpha composed. */
bool image_read_jpeg(image_reading *r);
bool image_read_png(image_reading *r);
bool image_read_webp(image_reading *r);

/** Is this a size that a file of this many bytes may have? trusted: as many pixels are accepted of any file. */
bool image_check_size(const image_reading *r, size_t height, size_t width, uint64_t trusted);
/** Room for [height, width, channels] bytes in r->out. */
bool image_reserve(const image_reading *r, size_t height, size_t width, size_t channels);
/** Turns RGBA in out into RGB on white. */
void image_compose(pixels *out);

#endif
