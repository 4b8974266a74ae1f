/* JPEG files, by libjpeg.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <string.h>

#include "exif.h"
#include "image_reading.h"
// clang-format off
#include <jpeglib.h> /* needs stdio.h before it */
#include <jerror.h>  /* needs jpeglib.h */
// clang-format on

/* Progressive files need about ten scans; thousands in a small file are a known way to burn hours. */
#define MAX_SCANS 200

/* Everything that must survive a longjmp lives here, outside the function that calls setjmp. */
typedef struct jpeg_state {
  image_reading *r;
  jmp_buf jump;
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  struct jpeg_decompress_struct jpeg;
} jpeg_state;

static const char *fault(int code) {
  switch (code) {
    case JWRN_JPEG_EOF:
    case JERR_INPUT_EOF:
      return "truncated JPEG file";
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_CCIR601_NOTIMPL:
    case JERR_ARITH_NOTIMPL:
    case JERR_NOT_COMPILED:
      return "a kind of JPEG file that is not read";
    default:
      return "damaged JPEG file";
  }
}

static void failed(j_common_ptr common) {
  jpeg_state *state = common->client_data;
  char message[JMSG_LENGTH_MAX];
  common->err->format_message(common, message);
  problem_set(state->r->why, "%s: %s: %s", state->r->path, fault(common->err->msg_code), message);
  longjmp(state->jump, 1);
}

/* libjpeg fills what is missing with gray and calls it a warning. Missing or broken picture data is an error here. */
static void on_message(j_common_ptr common, int level) {
  if (level >= 0) return;
  switch (common->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_ARITH_BAD_CODE:
      failed(common);
      break;
    default:
      break;
  }
}

static void limit_scans(j_common_ptr common) {
  jpeg_state *state = common->client_data;
  if (common->is_decompressor && state->jpeg.input_scan_number > MAX_SCANS) {
    problem_set(state->r->why, "%s: more than %d scans in a JPEG file", state->r->path, MAX_SCANS);
    longjmp(state->jump, 1);
  }
}

/* Of the first segment that is Exif; others of the same marker hold XMP. */
static int orientation(const struct jpeg_decompress_struct *jpeg) {
  for (jpeg_saved_marker_ptr at = jpeg->marker_list; at != NULL; at = at->next)
    if (at->marker == JPEG_APP0 + 1 && at->data_length >= 6 && memcmp(at->data, "Exif\0\0", 6) == 0)
      return exif_orientation(at->data, at->data_length);
  return 1;
}

/* Adobe programs write CMYK inverted, and nearly every CMYK JPEG comes from them. cmyk [width, 4]  rgb [width, 3] */
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, size_t width, bool inverted) {
  for (size_t x = 0; x < width; x++)
    for (size_t c = 0; c < 3; c++) {
      unsigned ink = inverted ? cmyk[4 * x + c] : 255u - cmyk[4 * x + c];
      unsigned black = inverted ? cmyk[4 * x + 3] : 255u - cmyk[4 * x + 3];
      rgb[3 * x + c] = (uint8_t)((ink * black + 127u) / 255u);
    }
}

static bool decode(jpeg_state *state) {
  image_reading *r = state->r;
  struct jpeg_decompress_struct *jpeg = &state->jpeg;
  if (setjmp(state->jump) != 0) return false;
  jpeg->err = jpeg_std_error(&state->errors);
  state->errors.error_exit = failed;
  state->errors.emit_message = on_message;
  jpeg->client_data = state;
  jpeg_create_decompress(jpeg);
  state->progress.progress_monitor = limit_scans;
  jpeg->progress = &state->progress;
  jpeg_stdio_src(jpeg, r->file);
  jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(jpeg, TRUE);
  if (!image_check_size(r, jpeg->image_height, jpeg->image_width, 0)) return false;
  if (r->out == NULL) return true;

  r->orientation = orientation(jpeg);
  bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
  jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(jpeg);
  if (!image_reserve(r, jpeg->output_height, jpeg->output_width, 3)) return false;
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

bool image_read_jpeg(image_reading *r) {
  jpeg_state state;
  memset(&state, 0, sizeof state);
  state.r = r;
  bool done = decode(&state);
  jpeg_destroy_decompress(&state.jpeg);
  return done;
}
