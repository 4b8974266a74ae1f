/* JPEG and PNG files as 8-bit RGB.
 * SPDX-License-Identifier: Apache-2.0 */
#include "image_file.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
// clang-format off
#include <jpeglib.h> /* needs stdio.h before it */
#include <jerror.h>  /* needs jpeglib.h */
// clang-format on

/* A header may claim any size; this is more than any camera makes, and 300 MB decoded. */
#define MAX_PIXELS 100000000u
/* No file holds more pixels for each of its bytes: deflate shrinks by 1032 to 1 at most, and PNG packs 8 pixels into a
 * byte; JPEG with Huffman codes stays below 512. A larger claim in a header is false whatever follows. */
#define MAX_PIXELS_PER_BYTE 8256u
/* Progressive files need about ten scans; thousands in a small file are a known way to burn hours. */
#define MAX_JPEG_SCANS 200

/* Everything that must survive a longjmp lives here, outside the function that calls setjmp. */
typedef struct reading {
  const char *path;
  FILE *file;
  uint64_t file_size;
  pixels *out; /* NULL: the header alone */
  problem *why;
  jmp_buf jump;
  struct jpeg_error_mgr jpeg_errors;
  struct jpeg_progress_mgr jpeg_progress;
  struct jpeg_decompress_struct jpeg;
  png_structp png;
  png_infop png_info;
} reading;

static bool reserve(pixels *out, size_t height, size_t width, const char *path, problem *why) {
  size_t size = height * width * 3;
  if (size > out->capacity) {
    uint8_t *bytes = realloc(out->bytes, size);
    if (bytes == NULL) return problem_set(why, "%s: no memory for %zu x %zu pixels", path, width, height);
    out->bytes = bytes;
    out->capacity = size;
  }
  out->height = height;
  out->width = width;
  return true;
}

static bool check_size(const reading *r, size_t height, size_t width) {
  if (height == 0 || width == 0 || width > MAX_PIXELS / height)
    return problem_set(r->why, "%s: an image of %zu x %zu pixels; at least 1 x 1 and at most %u pixels are accepted",
                       r->path, width, height, MAX_PIXELS);
  if ((uint64_t)height * width / MAX_PIXELS_PER_BYTE > r->file_size)
    return problem_set(r->why, "%s: its header announces %zu x %zu pixels, which do not fit in its %llu bytes", r->path,
                       width, height, (unsigned long long)r->file_size);
  return true;
}

/* ---- JPEG ---- */

static void jpeg_failed(j_common_ptr common) {
  reading *r = common->client_data;
  char message[JMSG_LENGTH_MAX];
  common->err->format_message(common, message);
  problem_set(r->why, "%s: damaged JPEG file: %s", r->path, message);
  longjmp(r->jump, 1);
}

/* libjpeg fills what is missing with gray and calls it a warning. Missing or broken picture data is an error here. */
static void jpeg_message(j_common_ptr common, int level) {
  if (level >= 0) return;
  switch (common->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_ARITH_BAD_CODE:
      jpeg_failed(common);
      break;
    default:
      break;
  }
}

static void jpeg_scan_limit(j_common_ptr common) {
  reading *r = common->client_data;
  if (common->is_decompressor && r->jpeg.input_scan_number > MAX_JPEG_SCANS) {
    problem_set(r->why, "%s: more than %d scans in a JPEG file", r->path, MAX_JPEG_SCANS);
    longjmp(r->jump, 1);
  }
}

/* Adobe programs write CMYK inverted, and nearly every CMYK JPEG comes from them. cmyk [width, 4]  rgb [width, 3] */
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, size_t width, bool inverted) {
  for (size_t x = 0; x < width; x++)
    for (size_t c = 0; c < 3; c++) {
      unsigned ink = inverted ? cmyk[4 * x + c] : 255u - cmyk[4 * x + c];
      unsigned black = inverted ? cmyk[4 * x + 3] : 255u - cmyk[4 * x + 3];
      rgb[3 * x + c] = (uint8_t)(ink * black / 255u);
    }
}

static bool decode_jpeg(reading *r) {
  struct jpeg_decompress_struct *jpeg = &r->jpeg;
  if (setjmp(r->jump) != 0) return false;
  jpeg->err = jpeg_std_error(&r->jpeg_errors);
  r->jpeg_errors.error_exit = jpeg_failed;
  r->jpeg_errors.emit_message = jpeg_message;
  jpeg->client_data = r;
  jpeg_create_decompress(jpeg);
  r->jpeg_progress.progress_monitor = jpeg_scan_limit;
  jpeg->progress = &r->jpeg_progress;
  jpeg_stdio_src(jpeg, r->file);
  jpeg_read_header(jpeg, TRUE);
  if (!check_size(r, jpeg->image_height, jpeg->image_width)) return false;
  if (r->out == NULL) return true;

  bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
  jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(jpeg);
  if (!reserve(r->out, jpeg->output_height, jpeg->output_width, r->path, r->why)) return false;
  JSAMPARRAY row = jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE,
                                           jpeg->output_width * (JDIMENSION)jpeg->output_components, 1);
  while (jpeg->output_scanline < jpeg->output_height) {
    uint8_t *to = r->out->bytes + (size_t)jpeg->output_scanline * r->out->width * 3;
    jpeg_read_scanlines(jpeg, row, 1);
    if (cmyk)
      cmyk_to_rgb(row[0], to, r->out->width, jpeg->saw_Adobe_marker);
    else
      memcpy(to, row[0], r->out->width * 3);
  }
  jpeg_finish_decompress(jpeg);
  return true;
}

/* ---- PNG ---- */

static void png_failed(png_structp png, png_const_charp message) {
  reading *r = png_get_error_ptr(png);
  problem_set(r->why, "%s: damaged PNG file: %s", r->path, message);
  longjmp(r->jump, 1);
}

static void png_ignored(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

static bool decode_png(reading *r) {
  if (setjmp(r->jump) != 0) return false;
  r->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, png_failed, png_ignored);
  if (r->png != NULL) r->png_info = png_create_info_struct(r->png);
  if (r->png_info == NULL) return problem_set(r->why, "%s: no memory to read it", r->path);
  png_structp png = r->png;
  /* Comments, colour profiles and camera data are passed over unread: they may unpack to megabytes each, and for eXIf
   * libpng takes two gigabytes where a chunk says that it has them. */
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
  png_init_io(png, r->file);
  png_read_info(png, r->png_info);
  png_uint_32 width = png_get_image_width(png, r->png_info);
  png_uint_32 height = png_get_image_height(png, r->png_info);
  if (!check_size(r, height, width)) return false;
  if (r->out == NULL) return true;

  int color = png_get_color_type(png, r->png_info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if ((color & PNG_COLOR_MASK_COLOR) == 0) {
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_gray_to_rgb(png);
  }
  png_set_scale_16(png);
  png_set_strip_alpha(png);
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, r->png_info);
  if (png_get_rowbytes(png, r->png_info) != (size_t)width * 3)
    return problem_set(r->why, "%s: a PNG file of an unusual kind that does not expand to RGB", r->path);
  if (!reserve(r->out, height, width, r->path, r->why)) return false;
  for (int pass = 0; pass < passes; pass++)
    for (png_uint_32 y = 0; y < height; y++) png_read_row(png, r->out->bytes + (size_t)y * width * 3, NULL);
  png_read_end(png, NULL);
  return true;
}

/* ---- both ---- */

static bool read_file(const char *path, pixels *out, problem *why) {
  static const uint8_t jpeg_signature[3] = {0xff, 0xd8, 0xff};
  uint8_t head[8] = {0};
  struct stat status;
  reading r;
  memset(&r, 0, sizeof r);
  r.path = path;
  r.out = out;
  r.why = why;
  r.file = fopen(path, "rb");
  if (r.file == NULL) return problem_set(why, "cannot open %s: %s", path, strerror(errno));
  size_t size = fread(head, 1, sizeof head, r.file);
  bool done = false;
  if (fstat(fileno(r.file), &status) != 0 || fseek(r.file, 0, SEEK_SET) != 0) {
    problem_set(why, "cannot read %s: %s", path, strerror(errno));
  } else if (size >= sizeof jpeg_signature && memcmp(head, jpeg_signature, sizeof jpeg_signature) == 0) {
    r.file_size = (uint64_t)status.st_size;
    done = decode_jpeg(&r);
    jpeg_destroy_decompress(&r.jpeg);
  } else if (size == sizeof head && png_sig_cmp(head, 0, sizeof head) == 0) {
    r.file_size = (uint64_t)status.st_size;
    done = decode_png(&r);
    png_destroy_read_struct(&r.png, &r.png_info, NULL);
  } else {
    problem_set(why, "%s is neither a JPEG nor a PNG file%s", path, size == 0 ? " (it is empty)" : "");
  }
  fclose(r.file);
  return done;
}

bool image_file_decode(const char *path, pixels *out, problem *why) {
  return read_file(path, out, why);
}

bool image_file_check_header(const char *path, problem *why) {
  return read_file(path, NULL, why);
}

bool image_file_has_known_name(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot != NULL && (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 || strcasecmp(dot, ".png") == 0);
}

bool image_file_write_png(const char *path, const uint8_t *bytes, size_t height, size_t width, size_t channels,
                          problem *why) {
  png_image image;
  memset(&image, 0, sizeof image);
  image.version = PNG_IMAGE_VERSION;
  image.width = (png_uint_32)width;
  image.height = (png_uint_32)height;
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  if (!png_image_write_to_file(&image, path, 0, bytes, 0, NULL))
    return problem_set(why, "cannot write %s: %s", path, image.message);
  return true;
}
