/* What a camera says of how it was held.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_EXIF_H
#define DUALLORA_CLI_EXIF_H

#include <stddef.h>
#include <stdint.h>

/** The orientation, 1 to 8, in a block of Exif data, with or without "Exif\0\0" before its TIFF header. 1, which is
 *  upright, for everything that has none or is damaged: a photo is not worse for what is said of it. */
int exif_orientation(const uint8_t *data, size_t size);

#endif
