#include "image_size.h"

enum { MANY_PIXELS = 1 << 16 };

static uint64_t big_endian(const uint8_t *bytes, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; i++) value = value << 8 | bytes[i];
  return value;
}

struct image_size image_size_of(const uint8_t *data, size_t size) {
  struct image_size found = {0, 0, 0};
  if (size >= 24 && data[0] == 0x89) {
    found = (struct image_size){1, big_endian(data + 16, 4), big_endian(data + 20, 4)};
  } else if (size >= 2 && data[0] == 0xff && data[1] == 0xd8) {
    /* The largest that any frame header may say: markers can hide in segments, and the first need not be it. */
    for (size_t i = 2; i + 9 <= size; i++) {
      if (data[i] != 0xff || (data[i + 1] & 0xf0) != 0xc0 || data[i + 1] == 0xc4 || data[i + 1] == 0xcc) continue;
      const uint64_t height = big_endian(data + i + 5, 2), width = big_endian(data + i + 7, 2);
      if (height * width > found.height * found.width) found = (struct image_size){0, width, height};
    }
  }
  return found;
}

int image_size_is_slow(const uint8_t *data, size_t size) {
  const struct image_size image = image_size_of(data, size);
  const uint64_t pixels = image.width * image.height;
  return pixels > MANY_PIXELS && pixels / PIXELS_PER_BYTE <= size;
}
