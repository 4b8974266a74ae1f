/* What an image file says of its size, for the targets that decode it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_FUZZ_IMAGE_SIZE_H
#define DUALLORA_TESTS_FUZZ_IMAGE_SIZE_H

#include <stddef.h>
#include <stdint.h>

/* Pixels that the command's reader lets a byte of a file claim. */
enum { PIXELS_PER_BYTE = 8256 };

/* Pixels that a WebP file of any length may claim. */
enum { WEBP_TRUSTED = 1 << 24 };

enum image_kind { IMAGE_JPEG, IMAGE_PNG, IMAGE_WEBP };

struct image_size {
  enum image_kind kind;
  uint64_t width, height; /* 0: of no kind, or cut short */
};

struct image_size image_size_of(const uint8_t *data, size_t size);
/* Honest and large: nothing new is to be seen, and it would take long. What is claimed falsely is not slow: it must be
 * refused. */
int image_size_is_slow(const uint8_t *data, size_t size);

#endif
