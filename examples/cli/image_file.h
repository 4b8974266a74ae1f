/* JPEG, PNG and WebP files as 8-bit RGB.
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

/** The formats that this build reads, and the ends of the names that such files have. */
#ifdef DUALLORA_CLI_WEBP
#define IMAGE_FORMATS "JPEG, PNG and WebP"
#define IMAGE_NAMES ".jpg, .jpeg, .jpe, .jfif, .png or .webp"
#else
#define IMAGE_FORMATS "JPEG and PNG"
#define IMAGE_NAMES ".jpg, .jpeg, .jpe, .jfif or .png"
#endif

/** Decodes a JPEG, PNG or, where the command was built with libwebp, WebP file; the content decides, not the name.
 *  Gray, palette, CMYK and 16 bits become RGB8, alpha is composed on white, and the picture is turned as its Exif
 *  orientation says. Colour profiles are not applied. A damaged or truncated file is a failure that names it. */
bool image_file_decode(const char *path, pixels *out, problem *why);
/** Reads the header alone: is it an image of a format and size that can be read? */
bool image_file_check_header(const char *path, problem *why);
/** Does the name end as those of files that can be read do, in either case? */
bool image_file_has_known_name(const char *name);
/** Writes [height, width, channels] as PNG; channels 1 (gray) or 3 (RGB). */
bool image_file_write_png(const char *path, const uint8_t *bytes, size_t height, size_t width, size_t channels,
                          problem *why);

#endif
