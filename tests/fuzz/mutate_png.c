/* A libFuzzer mutator of image files: bytes as ever, but the check sums of PNG chunks are mostly put right again, since
 * nothing behind them would be reached otherwise.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <zlib.h>

#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* Length, type, data, check sum of type and data; all big-endian. */
static void put_right(uint8_t *data, size_t size) {
  static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  size_t at = sizeof signature;
  if (size < at || memcmp(data, signature, at) != 0) return;
  while (size - at >= 12) {
    const size_t length =
        (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
    if (length > size - at - 12) return;
    const uint32_t sum = (uint32_t)crc32(0, data + at + 4, (uInt)(length + 4));
    at += 8 + length;
    for (size_t i = 0; i < 4; i++) data[at++] = (uint8_t)(sum >> (24 - 8 * i));
  }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  const size_t changed = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 16) put_right(data, changed);
  return changed;
}
