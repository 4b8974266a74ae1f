/* PNG files, by libpng.
 * SPDX-License-Identifier: Apache-2.0 */
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "exif.h"
#include "image_reading.h"

/* Larger chunks beside the picture are passed over. Exif data have 64 KB at most where they come from a JPEG file. */
#define MAX_CHUNK (256u * 1024u)

/* Everything that must survive a longjmp lives here, outside the function that calls setjmp. */
typedef struct png_state {
  image_reading *r;
  jmp_buf jump;
  png_structp png;
  png_infop info;
} png_state;

static void failed(png_structp png, png_const_charp message) {
  png_state *state = png_get_error_ptr(png);
  image_reading *r = state->r;
  problem_set(r->why, "%s: %s PNG file: %s", r->path, feof(r->file) ? "truncated" : "damaged", message);
  longjmp(state->jump, 1);
}

static void ignored(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

/* A png_user_chunk_ptr for the chunks that are kept. */
static int take_chunk(png_structp png, png_unknown_chunkp chunk) {
  image_reading *r = png_get_user_chunk_ptr(png);
  if (memcmp(chunk->name, "eXIf", 4) != 0) return 0;
  r->orientation = exif_orientation(chunk->data, chunk->size);
  return 1;
}

/* Comments, colour profiles and the like are passed over unread: they may unpack to megabytes each. eXIf is kept as
 * libpng keeps chunks that it does not know, up to MAX_CHUNK; as one that it knows it would take two gigabytes where
 * the chunk says that it has them. */
static void choose_chunks(png_structp png, image_reading *r) {
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_ALWAYS, (png_const_bytep) "eXIf", 1);
  png_set_chunk_malloc_max(png, MAX_CHUNK);
  png_set_read_user_chunk_fn(png, r, take_chunk);
}

static bool decode(png_state *state) {
  image_reading *r = state->r;
  if (setjmp(state->jump) != 0) return false;
  state->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, state, failed, ignored);
  if (state->png != NULL) state->info = png_create_info_struct(state->png);
  if (state->info == NULL) return problem_set(r->why, "%s: no memory to read it", r->path);
  png_structp png = state->png;
  choose_chunks(png, r);
  png_init_io(png, r->file);
  png_read_info(png, state->info);
  png_uint_32 width = png_get_image_width(png, state->info);
  png_uint_32 height = png_get_image_height(png, state->info);
  if (!image_check_size(r, height, width, 0)) return false;
  if (r->out == NULL) return true;

  png_set_expand(png); /* palettes and fewer than 8 bits; a transparent colour becomes alpha */
  png_set_gray_to_rgb(png);
  png_set_scale_16(png);
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, state->info);
  size_t channels = png_get_channels(png, state->info);
  if ((channels != 3 && channels != 4) || png_get_rowbytes(png, state->info) != width * channels)
    return problem_set(r->why, "%s: a PNG file of an unusual kind that does not expand to RGB", r->path);
  if (!image_reserve(r, height, width, channels)) return false;
  for (int pass = 0; pass < passes; pass++)
    for (png_uint_32 y = 0; y < height; y++) png_read_row(png, r->out->bytes + (size_t)y * width * channels, NULL);
  png_read_end(png, state->info);
  if (channels == 4) image_compose(r->out);
  return true;
}

bool image_read_png(image_reading *r) {
  png_state state;
  memset(&state, 0, sizeof state);
  state.r = r;
  bool done = decode(&state);
  png_destroy_read_struct(&state.png, &state.info, NULL);
  return done;
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
