/* Pixels of the domain-incremental sequence.
 * SPDX-License-Identifier: Apache-2.0 */
#include "pictures.h"

#include <stdlib.h>
#include <string.h>

const char *picture_name(picture_kind kind) {
  static const char *const names[NUM_PICTURE_KINDS] = {"plain", "gray", "inverted", "blurred", "rotated"};
  return names[kind];
}

/* from, to [count, channels] */
static void to_gray(const uint8_t *from, uint8_t *to, size_t count, size_t channels) {
  for (size_t i = 0; i < count; i++) {
    const uint8_t *pixel = from + i * channels;
    unsigned gray = channels == 3 ? (299u * pixel[0] + 587u * pixel[1] + 114u * pixel[2] + 500u) / 1000u : pixel[0];
    memset(to + i * channels, (int)gray, channels);
  }
}

/* The mean of 2 radius + 1 neighbours in a line of `length` values that lie `step` apart; beyond its ends the line goes
 * on as it ends. */
static void blur_line(const uint8_t *from, uint8_t *to, size_t length, size_t step, size_t radius) {
  const unsigned window = 2u * (unsigned)radius + 1u;
  for (size_t i = 0; i < length; i++) {
    unsigned sum = window / 2u;
    for (size_t k = 0; k < window; k++) {
      size_t at = i + k < radius ? 0 : i + k - radius;
      sum += from[(at < length ? at : length - 1) * step];
    }
    to[i * step] = (uint8_t)(sum / window);
  }
}

/* from, to, spare [height, width, channels]. Two box filters either way are close to a Gaussian. */
static void blur(const uint8_t *from, uint8_t *to, uint8_t *spare, size_t height, size_t width, size_t channels) {
  size_t side = height < width ? height : width;
  size_t radius = side < 14 ? 1 : side / 14;
  size_t row = width * channels;
  for (int session = 0; session < 2; session++) {
    for (size_t y = 0; y < height; y++)
      for (size_t c = 0; c < channels; c++) blur_line(from + y * row + c, spare + y * row + c, width, channels, radius);
    for (size_t x = 0; x < row; x++) blur_line(spare + x, to + x, height, row, radius);
    from = to;
  }
}

/* from [height, width, channels], to [width, height, channels]: clockwise */
static void rotate(const uint8_t *from, uint8_t *to, size_t height, size_t width, size_t channels) {
  for (size_t y = 0; y < height; y++)
    for (size_t x = 0; x < width; x++)
      memcpy(to + (x * height + (height - 1 - y)) * channels, from + (y * width + x) * channels, channels);
}

bool picture_change(picture_kind kind, dlora_images *image, picture_buffer *buffer) {
  size_t channels = image->channels == 0 ? 3 : image->channels;
  size_t size = image->height * image->width * channels;
  if (kind == PICTURE_PLAIN) return true;
  if (2 * size > buffer->capacity) {
    uint8_t *bytes = realloc(buffer->bytes, 2 * size);
    if (bytes == NULL) return false;
    buffer->bytes = bytes;
    buffer->capacity = 2 * size;
  }
  uint8_t *to = buffer->bytes;
  if (kind == PICTURE_GRAY) {
    to_gray(image->u8, to, image->height * image->width, channels);
  } else if (kind == PICTURE_INVERTED) {
    for (size_t i = 0; i < size; i++) to[i] = (uint8_t)(255 - image->u8[i]);
  } else if (kind == PICTURE_BLURRED) {
    blur(image->u8, to, to + size, image->height, image->width, channels);
  } else {
    size_t height = image->height;
    rotate(image->u8, to, height, image->width, channels);
    image->height = image->width;
    image->width = height;
  }
  image->u8 = to;
  return true;
}
