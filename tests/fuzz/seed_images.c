/* SPDX-License-Identifier: Apache-2.0 */
#include "seed_images.h"

#include <png.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
// clang-format off
#include <jpeglib.h> /* needs stdio.h before it */
// clang-format on
#ifdef DUALLORA_CLI_WEBP
#include <webp/encode.h>
#endif

#include "fuzz.h"

enum { WIDTH = 19, HEIGHT = 11, ROOM = 1 << 16 };

struct bytes {
  uint8_t data[ROOM];
  size_t size;
};

static void append(struct bytes *to, const void *bytes, size_t size) {
  if (size > ROOM - to->size) fuzz_fail("a seed is too large");
  if (size) memcpy(to->data + to->size, bytes, size);
  to->size += size;
}

/* Exif data of a camera that was turned, in both byte orders. */
static uint8_t exif_little[] = {'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0};
static uint8_t exif_big[] = {'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0};

/* ---- PNG ---- */

static void png_bytes(png_structp png, png_bytep bytes, size_t size) {
  append(png_get_io_ptr(png), bytes, size);
}

static void png_flushed(png_structp png) {
  (void)png;
}

static void make_png(struct bytes *out, int color, int depth, int interlaced, int extra) {
  static uint8_t row[8 * WIDTH];
  out->size = 0;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  if (!info) fuzz_fail("libpng");
  if (setjmp(png_jmpbuf(png)) != 0) fuzz_fail("libpng cannot write color %d depth %d", color, depth);
  png_set_write_fn(png, out, png_bytes, png_flushed);
  png_set_IHDR(png, info, WIDTH, HEIGHT, depth, color, interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (color == PNG_COLOR_TYPE_PALETTE) {
    const png_color palette[4] = {{0, 0, 0}, {255, 0, 0}, {0, 255, 0}, {9, 9, 255}};
    const png_byte alpha[2] = {0, 128};
    png_set_PLTE(png, info, palette, 4);
    png_set_tRNS(png, info, alpha, 2, NULL);
  }
  if (extra) {
    png_text text = {.compression = PNG_TEXT_COMPRESSION_zTXt, .key = (char[]){"Comment"}, .text = (char[]){"seed"}};
    png_set_text(png, info, &text, 1);
    png_set_gAMA(png, info, 0.45);
    png_set_eXIf_1(png, info, sizeof exif_big, exif_big);
    png_set_pHYs(png, info, 10, 10, PNG_RESOLUTION_METER);
  }
  png_write_info(png, info);
  for (int session = interlaced ? png_set_interlace_handling(png) : 1; session > 0; session--) {
    for (int y = 0; y < HEIGHT; y++) {
      for (size_t i = 0; i < sizeof row; i++) row[i] = (uint8_t)((size_t)y * 7 + i * i);
      if (color == PNG_COLOR_TYPE_PALETTE) memset(row, 0x1b, sizeof row);
      png_write_row(png, row);
    }
  }
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
}

/* ---- JPEG ---- */

static void make_jpeg(struct bytes *out, J_COLOR_SPACE space, int components, int progressive, int arithmetic) {
  struct jpeg_compress_struct jpeg;
  struct jpeg_error_mgr errors;
  unsigned char *bytes = NULL;
  unsigned long size = 0;
  JSAMPLE row[4 * WIDTH], *rows = row;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  jpeg_mem_dest(&jpeg, &bytes, &size);
  jpeg.image_width = WIDTH;
  jpeg.image_height = HEIGHT;
  jpeg.input_components = components;
  jpeg.in_color_space = space;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 40, TRUE);
  jpeg.arith_code = arithmetic ? TRUE : FALSE;
  jpeg.restart_interval = arithmetic ? 2 : 0;
  if (progressive) jpeg_simple_progression(&jpeg);
  jpeg_start_compress(&jpeg, TRUE);
  if (space == JCS_GRAYSCALE) {
    uint8_t segment[6 + sizeof exif_little] = "Exif\0";
    memcpy(segment + 6, exif_little, sizeof exif_little);
    jpeg_write_marker(&jpeg, JPEG_APP0 + 1, segment, sizeof segment);
  }
  while (jpeg.next_scanline < jpeg.image_height) {
    for (size_t i = 0; i < sizeof row; i++) row[i] = (JSAMPLE)(jpeg.next_scanline * 11 + i * 5);
    jpeg_write_scanlines(&jpeg, &rows, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  out->size = 0;
  append(out, bytes, size);
  free(bytes);
}

/* ---- WebP ---- */

#ifdef DUALLORA_CLI_WEBP
static void append_chunk(struct bytes *to, const char name[5], const void *bytes, size_t size) {
  const uint8_t length[4] = {(uint8_t)size, (uint8_t)(size >> 8), 0, 0};
  append(to, name, 4);
  append(to, length, sizeof length);
  append(to, bytes, size);
  append(to, "", size % 2);
}

/* With Exif data the image becomes one of several chunks. */
static void write_webp(const char *name, int lossless, int with_exif) {
  static struct bytes file;
  uint8_t pixels[HEIGHT * WIDTH * 4], *bytes = NULL;
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 3 + i / 50);
  const size_t size = lossless ? WebPEncodeLosslessRGBA(pixels, WIDTH, HEIGHT, WIDTH * 4, &bytes)
                               : WebPEncodeRGB(pixels, WIDTH, HEIGHT, WIDTH * 3, 40, &bytes);
  if (size < 20) fuzz_fail("libwebp");
  file.size = 0;
  if (with_exif) {
    const uint8_t head[10] = {0x08 | (lossless ? 0x10 : 0), 0, 0, 0, WIDTH - 1, 0, 0, HEIGHT - 1, 0, 0};
    append(&file, "RIFF\0\0\0\0WEBP", 12);
    append_chunk(&file, "VP8X", head, sizeof head);
    append(&file, bytes + 12, size - 12);
    append_chunk(&file, "EXIF", exif_little, sizeof exif_little);
    file.data[4] = (uint8_t)(file.size - 8);
    file.data[5] = (uint8_t)((file.size - 8) >> 8);
  } else {
    append(&file, bytes, size);
  }
  WebPFree(bytes);
  seed_write("image", name, file.data, file.size);
}
#endif

/* ---- data sets ---- */

static void write_set(const char *name, uint8_t kind, const void *first, size_t first_size, const void *second,
                      size_t second_size) {
  static struct bytes file;
  const uint8_t head[4] = {kind, (uint8_t)first_size, (uint8_t)(first_size >> 8), (uint8_t)(first_size >> 16)};
  file.size = 0;
  append(&file, head, sizeof head);
  append(&file, first, first_size);
  append(&file, second, second_size);
  seed_write("dataset", name, file.data, file.size);
}

static void gzip(struct bytes *out, const void *bytes, size_t size) {
  z_stream stream = {
      .next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)size, .next_out = out->data, .avail_out = ROOM};
  if (deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
      deflate(&stream, Z_FINISH) != Z_STREAM_END) {
    fuzz_fail("zlib");
  }
  out->size = stream.total_out;
  deflateEnd(&stream);
}

static void write_sets(const struct bytes *png, const struct bytes *jpeg) {
  static const uint8_t images[] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6};
  static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 7, 1, 7};
  static const char names[] = "airplane\nautomobile\n\nbird\r\n";
  static uint8_t records[3 * 3074];
  static struct bytes zipped;
  write_set("idx", 0, images, sizeof images, labels, sizeof labels);
  write_set("idx_some", 128, images, sizeof images, labels, sizeof labels);
  gzip(&zipped, images, sizeof images);
  write_set("idx_gz", 0, zipped.data, zipped.size, labels, sizeof labels);
  for (size_t i = 0; i < sizeof records; i++) records[i] = (uint8_t)(i % 3074 < 2 ? i % 19 : i * 7);
  write_set("cifar_100", 1, names, sizeof names - 1, records, (size_t)3 * 3074);
  for (size_t i = 0; i < 3; i++) records[3073 * i] = (uint8_t)i;
  write_set("cifar_10", 129, names, sizeof names - 1, records, (size_t)3 * 3073);
  write_set("folder", 2, png->data, png->size, jpeg->data, jpeg->size);
  write_set("folder_some", 130, jpeg->data, jpeg->size, png->data, png->size);
}

void seed_images(void) {
  static struct bytes png, jpeg;
  static const struct {
    const char *name;
    int color, depth, interlaced, extra;
  } pngs[] = {{"png_gray", PNG_COLOR_TYPE_GRAY, 8, 0, 0},
              {"png_gray_1", PNG_COLOR_TYPE_GRAY, 1, 1, 0},
              {"png_gray_a", PNG_COLOR_TYPE_GRAY_ALPHA, 16, 0, 0},
              {"png_palette", PNG_COLOR_TYPE_PALETTE, 2, 0, 0},
              {"png_rgba", PNG_COLOR_TYPE_RGB_ALPHA, 8, 1, 0},
              {"png_rgb_16", PNG_COLOR_TYPE_RGB, 16, 0, 0},
              {"png_rgb", PNG_COLOR_TYPE_RGB, 8, 0, 1}};
  static const struct {
    const char *name;
    J_COLOR_SPACE space;
    int components, progressive, arithmetic;
  } jpegs[] = {{"jpeg_gray", JCS_GRAYSCALE, 1, 0, 0},        {"jpeg_progressive", JCS_RGB, 3, 1, 0},
               {"jpeg_arithmetic", JCS_RGB, 3, 0, 1},        {"jpeg_cmyk", JCS_CMYK, 4, 0, 0},
               {"jpeg_cmyk_progressive", JCS_CMYK, 4, 1, 0}, {"jpeg", JCS_RGB, 3, 0, 0}};
  for (size_t i = 0; i < sizeof pngs / sizeof *pngs; i++) {
    make_png(&png, pngs[i].color, pngs[i].depth, pngs[i].interlaced, pngs[i].extra);
    seed_write("image", pngs[i].name, png.data, png.size);
  }
  for (size_t i = 0; i < sizeof jpegs / sizeof *jpegs; i++) {
    make_jpeg(&jpeg, jpegs[i].space, jpegs[i].components, jpegs[i].progressive, jpegs[i].arithmetic);
    seed_write("image", jpegs[i].name, jpeg.data, jpeg.size);
  }
#ifdef DUALLORA_CLI_WEBP
  write_webp("webp", 0, 0);
  write_webp("webp_lossless", 1, 0);
  write_webp("webp_exif", 0, 1);
  write_webp("webp_lossless_exif", 1, 1);
#endif
  write_sets(&png, &jpeg);
}
