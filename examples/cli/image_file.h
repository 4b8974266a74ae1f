/* JPEG and PNG files as 8-bit RGB.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_IMAGE_FILE_H
#define DUALLORA_CLI_IMAGE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "problem.h"

/** A buffer that grows to the largest image decoded into it. Start from {0}; free bytes. */
typedef struct pixels {
  uint8_t *bytes; /* [height, width, 3] */
  size_t capacity;
  size_t height;
  size_t width;
} pixels;

/** Decodes a JPEG or PNG file; the content decides, not the name. Gray, palette, CMYK, 16 bits and alpha all become
 *  RGB8 (alpha is dropped, as training pipelines do). A damaged or truncated file is a failure that names it. */
bool image_file_decode(const char *path, pixels *out, problem *why);
/** Reads the header alone: is it a JPEG or PNG of a usable size? */
bool image_file_check_header(const char *path, problem *why);
/** Does the name end in .jpg, .jpeg or .png, in either case? */
bool image_file_has_known_name(const char *name);
/** Writes [height, width, channels] as PNG; channels 1 (gray) or 3 (RGB). */
bool image_file_write_png(const char *path, const uint8_t *bytes, size_t height, size_t width, size_t channels,
                          problem *why);

#endif
