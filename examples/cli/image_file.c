/* Image files of all formats: which one it is, how large it may be, which way up.
 * SPDX-License-Identifier: Apache-2.0 */
#include "image_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "image_reading.h"

/* A header may claim any size; this is more than any camera makes, and 300 MB decoded. */
#define MAX_PIXELS 100000000u
/* No JPEG or PNG file holds more pixels for each of its bytes: deflate shrinks by 1032 to 1 at most, and PNG packs 8
 * pixels into a byte; JPEG with Huffman codes stays below 512. A larger claim in a header is false whatever follows. */
#define MAX_PIXELS_PER_BYTE 8256u

enum { HEAD_SIZE = 32 };

bool image_check_size(const image_reading *r, size_t height, size_t width, uint64_t trusted) {
  if (height == 0 || width == 0 || width > MAX_PIXELS / height)
    return problem_set(r->why, "%s: an image of %zu x %zu pixels; at least 1 x 1 and at most %u pixels are accepted",
                       r->path, width, height, MAX_PIXELS);
  uint64_t count = (uint64_t)height * width;
  if (count > trusted && count / MAX_PIXELS_PER_BYTE > r->file_size)
    return problem_set(r->why, "%s: its header announces %zu x %zu pixels, which do not fit in its %llu bytes", r->path,
                       width, height, (unsigned long long)r->file_size);
  return true;
}

bool image_reserve(const image_reading *r, size_t height, size_t width, size_t channels) {
  pixels *out = r->out;
  size_t size = height * width * channels;
  if (size > out->capacity) {
    uint8_t *bytes = realloc(out->bytes, size);
    if (bytes == NULL) return problem_set(r->why, "%s: no memory for %zu x %zu pixels", r->path, width, height);
    out->bytes = bytes;
    out->capacity = size;
  }
  out->height = height;
  out->width = width;
  return true;
}

void image_compose(pixels *out) {
  size_t count = out->height * out->width;
  for (size_t i = 0; i < count; i++) {
    unsigned alpha = out->bytes[4 * i + 3];
    for (size_t c = 0; c < 3; c++) {
      unsigned sum = out->bytes[4 * i + c] * alpha + 255u * (255u - alpha);
      out->bytes[3 * i + c] = (uint8_t)((sum + 127u) / 255u);
    }
  }
}

/* A picture that was taken with the camera turned or mirrored, put upright. */
static bool turn(const image_reading *r) {
  pixels *out = r->out;
  size_t height = out->height;
  size_t width = out->width;
  bool transposed = r->orientation >= 5;
  bool from_right = r->orientation == 2 || r->orientation == 3 || r->orientation == 7 || r->orientation == 8;
  bool from_below = r->orientation == 3 || r->orientation == 4 || r->orientation == 6 || r->orientation == 7;
  uint8_t *bytes = malloc(height * width * 3);
  if (bytes == NULL) return problem_set(r->why, "%s: no memory to turn %zu x %zu pixels", r->path, width, height);
  out->height = transposed ? width : height;
  out->width = transposed ? height : width;
  for (size_t y = 0; y < out->height; y++)
    for (size_t x = 0; x < out->width; x++) {
      size_t row = transposed ? x : y;
      size_t column = transposed ? y : x;
      if (from_below) row = height - 1 - row;
      if (from_right) column = width - 1 - column;
      memcpy(bytes + (y * out->width + x) * 3, out->bytes + (row * width + column) * 3, 3);
    }
  free(out->bytes);
  out->bytes = bytes;
  out->capacity = height * width * 3;
  return true;
}

/* What a file is that can't be read, by its first bytes, for the sentence that says so. */
static const struct {
  size_t at;
  const char *bytes;
  size_t size;
  const char *is;
} foreign[] = {
    {0, "GIF8", 4, "is a GIF file"},
    {0, "BM", 2, "is a BMP file"},
    {0, "II*\0", 4, "is a TIFF file"},
    {0, "MM\0*", 4, "is a TIFF file"},
    {4, "ftypavi", 7, "is an AVIF file"},
    {4, "ftyp", 4, "is a HEIF file or a video"},
    {0, "\0\0\0\x0cJXL ", 8, "is a JPEG XL file"},
    {0, "\xff\x0a", 2, "is a JPEG XL file"},
    {0, "\0\0\0\x0cjP  ", 8, "is a JPEG 2000 file"},
    {0, "version https://git-lfs", 23, "is a pointer of Git LFS, and 'git lfs pull' fetches the image"},
    {0, "<!DOCTYPE", 9, "is a web page"},
    {0, "<!doctype", 9, "is a web page"},
    {0, "<html", 5, "is a web page"},
};

static bool name_foreign(const image_reading *r, const uint8_t head[HEAD_SIZE], size_t size) {
  for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
    if (size >= foreign[i].at + foreign[i].size && memcmp(head + foreign[i].at, foreign[i].bytes, foreign[i].size) == 0)
      return problem_set(r->why, "%s %s; " IMAGE_FORMATS " files are read", r->path, foreign[i].is);
#ifdef DUALLORA_CLI_WEBP
  static const char none[] = "neither a JPEG nor a PNG nor a WebP file";
#else
  static const char none[] = "neither a JPEG nor a PNG file";
#endif
  return problem_set(r->why, "%s is %s%s", r->path, none, size == 0 ? " (it is empty)" : "");
}

static bool read_format(image_reading *r) {
  uint8_t head[HEAD_SIZE] = {0};
  struct stat status;
  size_t size = fread(head, 1, sizeof head, r->file);
  if (ferror(r->file) || fstat(fileno(r->file), &status) != 0 || fseek(r->file, 0, SEEK_SET) != 0)
    return problem_set(r->why, "cannot read %s: %s", r->path, strerror(errno));
  r->file_size = (uint64_t)status.st_size;
  if (size >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0) return image_read_jpeg(r);
  if (size >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0) return image_read_png(r);
  if (size >= 12 && memcmp(head, "RIFF", 4) == 0 && memcmp(head + 8, "WEBP", 4) == 0) return image_read_webp(r);
  return name_foreign(r, head, size);
}

static bool read_file(const char *path, pixels *out, problem *why) {
  image_reading r = {path, fopen(path, "rb"), 0, out, why, 1};
  if (r.file == NULL) return problem_set(why, "cannot open %s: %s", path, strerror(errno));
  bool done = read_format(&r);
  fclose(r.file);
  return done && (out == NULL || r.orientation == 1 || turn(&r));
}

bool image_file_decode(const char *path, pixels *out, problem *why) {
  return read_file(path, out, why);
}

bool image_file_check_header(const char *path, problem *why) {
  return read_file(path, NULL, why);
}

bool image_file_has_known_name(const char *name) {
  static const char *const ends[] = {
      ".jpg",  ".jpeg", ".jpe", ".jfif", ".png",
#ifdef DUALLORA_CLI_WEBP
      ".webp",
#endif
  };
  const char *dot = strrchr(name, '.');
  for (size_t i = 0; dot != NULL && i < sizeof ends / sizeof ends[0]; i++)
    if (strcasecmp(dot, ends[i]) == 0) return true;
  return false;
}
