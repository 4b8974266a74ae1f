/* The domains of the domain-incremental sequence: the same pictures, looking different.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_PICTURES_H
#define DUALLORA_BENCH_PICTURES_H

#include <stdbool.h>

#include "duallora/duallora.h"

typedef enum picture_kind {
  PICTURE_PLAIN,
  PICTURE_GRAY,     /* luminance */
  PICTURE_INVERTED, /* negative */
  PICTURE_BLURRED,
  PICTURE_ROTATED, /* a quarter turn */
  NUM_PICTURE_KINDS
} picture_kind;

/** A buffer that grows. Start from {0}; free bytes. */
typedef struct picture_buffer {
  uint8_t *bytes;
  size_t capacity;
} picture_buffer;

const char *picture_name(picture_kind kind);
/** Replaces one 8-bit image by another whose pixels are in the buffer; a plain one stays as it is. False without
 *  memory. */
bool picture_change(picture_kind kind, dlora_images *image, picture_buffer *buffer);

#endif
