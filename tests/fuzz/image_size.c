/* SPDX-License-Identifier: Apache-2.0 */
#include "image_size.h"

#include <string.h>

enum { MANY_PIXELS = 1 << 16 };

static uint64_t big_endian(const uint8_t *bytes, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; i++) value = value << 8 | bytes[i];
  return value;
}

/* Of the first chunk, which is all of the file or says how large the image in another one is. */
static struct image_size webp_size(const uint8_t *data) {
  struct image_size found = {IMAGE_WEBP, 0, 0};
  const uint64_t bits = data[21] | (uint64_t)data[22] << 8 | (uint64_t)data[23] << 16 | (uint64_t)data[24] << 24;
  if (memcmp(data + 12, "VP8X", 4) == 0) {
    found.width = 1 + (data[24] | (uint64_t)data[25] << 8 | (uint64_t)data[26] << 16);
    found.height = 1 + (data[27] | (uint64_t)data[28] << 8 | (uint64_t)data[29] << 16);
  } else if (memcmp(data + 12, "VP8L", 4) == 0) {
    found.width = 1 + (bits & 0x3fff);
    found.height = 1 + (bits >> 14 & 0x3fff);
  } else {
    found.width = data[26] | (uint64_t)(data[27] & 0x3f) << 8;
    found.height = data[28] | (uint64_t)(data[29] & 0x3f) << 8;
  }
  return found;
}

struct image_size image_size_of(const uint8_t *data, size_t size) {
  struct image_size found = {IMAGE_JPEG, 0, 0};
  if (size >= 24 && data[0] == 0x89) {
    found = (struct image_size){IMAGE_PNG, big_endian(data + 16, 4), big_endian(data + 20, 4)};
  } else if (size >= 30 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0) {
    found = webp_size(data);
  } else if (size >= 2 && data[0] == 0xff && data[1] == 0xd8) {
    /* The largest that any frame header may say: markers can hide in segments, and the first need not be it. */
    for (size_t i = 2; i + 9 <= size; i++) {
      if (data[i] != 0xff || (data[i + 1] & 0xf0) != 0xc0 || data[i + 1] == 0xc4 || data[i + 1] == 0xcc) continue;
      const uint64_t height = big_endian(data + i + 5, 2), width = big_endian(data + i + 7, 2);
      if (height * width > found.height * found.width) found = (struct image_size){IMAGE_JPEG, width, height};
    }
  }
  return found;
}

int image_size_is_slow(const uint8_t *data, size_t size) {
  const struct image_size image = image_size_of(data, size);
  const uint64_t pixels = image.width * image.height;
  const int fits = pixels / PIXELS_PER_BYTE <= size || (image.kind == IMAGE_WEBP && pixels <= WEBP_TRUSTED);
  return pixels > MANY_PIXELS && fits;
}
