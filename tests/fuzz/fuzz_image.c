/* The command's reader of image files: the pixels of a file in memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "cli/image_file.h"
#include "fuzz.h"
#include "image_size.h"

/* Bytes a pixel while a progressive CMYK file is decoded: 4 coefficients of 2 bytes, and 3 decoded. What libjpeg takes
 * whatever the file: an image of one row is padded to strips of 32, up to 65535 pixels wide. */
enum { JPEG_PER_PIXEL = 12, JPEG_CONSTANT = 64 << 20 };
/* 4 decoded bytes and, when it is turned, 3 more; what libpng takes for rows: a few of up to 8 bytes a pixel. */
enum { PNG_PER_PIXEL = 7, PNG_CONSTANT = 1 << 20, PNG_PER_COLUMN = 48 };
/* As many, libwebp's own 4 bytes a pixel with some rows, and the file itself. */
enum { WEBP_PER_PIXEL = 12, WEBP_CONSTANT = 4 << 20, WEBP_PER_COLUMN = 128 };

static void watch(const uint8_t *data, size_t size) {
  const struct image_size image = image_size_of(data, size);
  const uint64_t most = (uint64_t)PIXELS_PER_BYTE * size, claimed = image.width * image.height;
  const size_t counted = (size_t)(claimed < most ? claimed : most),
               width = (size_t)(image.width < most ? image.width : most),
               claimed_webp = (size_t)(claimed < WEBP_TRUSTED ? claimed : counted);
  if (image.kind == IMAGE_PNG) {
    fuzz_watch(counted, PNG_PER_PIXEL, PNG_CONSTANT + width * PNG_PER_COLUMN);
  } else if (image.kind == IMAGE_WEBP) {
    fuzz_watch(claimed_webp, WEBP_PER_PIXEL, WEBP_CONSTANT + size + (size_t)image.width * WEBP_PER_COLUMN);
  } else {
    fuzz_watch((size_t)most, JPEG_PER_PIXEL, JPEG_CONSTANT);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pixels image = {0};
  problem why = {""};
  if (image_size_is_slow(data, size)) return 0;
  const char *path = fuzz_file(0, data, size);
  watch(data, size);
  const bool header = image_file_check_header(path, &why);
  if (!header && !*why.text) fuzz_fail("image_file_check_header failed without a sentence");
  why.text[0] = '\0';
  const bool decoded = image_file_decode(path, &image, &why);
  fuzz_unwatch();
  if (decoded) {
    uint32_t sum = 0;
    if (!header) fuzz_fail("decoded, although its header was refused");
    if (!image.height || !image.width) fuzz_fail("decoded to nothing");
    /* Every pixel is there, for a sanitizer. */
    for (size_t i = 0; i < image.height * image.width * 3; i++) sum += image.bytes[i];
    fuzz_num_accepted += sum < UINT32_MAX;
  } else if (!*why.text) {
    fuzz_fail("image_file_decode failed without a sentence");
  }
  free(image.bytes);
  return 0;
}
