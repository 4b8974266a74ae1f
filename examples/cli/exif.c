/* What a camera says of how it was held. Exif data are a TIFF file without its pictures: a byte order, the offset of a
 * directory, and there 12 bytes an entry.
 * SPDX-License-Identifier: Apache-2.0 */
#include "exif.h"

#include <stdbool.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_BYTE = 1, TYPE_SHORT = 3, TYPE_LONG = 4, ENTRY_SIZE = 12 };

static uint32_t number(const uint8_t *at, size_t size, bool big_endian) {
  uint32_t value = 0;
  for (size_t i = 0; i < size; i++) value = value << 8 | at[big_endian ? i : size - 1 - i];
  return value;
}

int exif_orientation(const uint8_t *data, size_t size) {
  if (size >= 6 && memcmp(data, "Exif\0\0", 6) == 0) {
    data += 6;
    size -= 6;
  }
  if (size < 8) return 1;
  bool big = memcmp(data, "MM\0*", 4) == 0;
  if (!big && memcmp(data, "II*\0", 4) != 0) return 1;
  size_t at = number(data + 4, 4, big);
  if (at > size - 2) return 1;
  size_t count = number(data + at, 2, big);
  at += 2;
  /* The orientation stands in the first directory; no other one is followed to. */
  for (; count > 0 && size - at >= ENTRY_SIZE; count--, at += ENTRY_SIZE) {
    const uint8_t *entry = data + at;
    if (number(entry, 2, big) != TAG_ORIENTATION) continue;
    uint32_t type = number(entry + 2, 2, big);
    size_t width = type == TYPE_BYTE ? 1 : type == TYPE_SHORT ? 2 : type == TYPE_LONG ? 4 : 0;
    uint32_t value = number(entry + 8, width, big);
    bool known = width > 0 && number(entry + 4, 4, big) == 1 && value >= 1 && value <= 8;
    return known ? (int)value : 1;
  }
  return 1;
}
