/* WebP files, by libwebp where there is one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "image_reading.h"

#ifdef DUALLORA_CLI_WEBP

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include "exif.h"

/* A lossless file of one colour has hardly a byte whatever its size, so that a claim of up to this many pixels, an
 * image of 4096 x 4096, is taken on trust. */
#define TRUSTED_PIXELS (UINT64_C(1) << 24)
/* More than 100 megapixels take without any compression. */
#define MAX_FILE_SIZE (UINT64_C(1) << 29)

static int orientation(const WebPData *data) {
  WebPChunkIterator chunk;
  int found = 1;
  WebPDemuxer *demuxer = WebPDemux(data);
  if (demuxer == NULL) return 1;
  if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk)) found = exif_orientation(chunk.chunk.bytes, chunk.chunk.size);
  WebPDemuxReleaseChunkIterator(&chunk);
  WebPDemuxDelete(demuxer);
  return found;
}

static bool fail(const image_reading *r, VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return problem_set(r->why, "%s: truncated WebP file", r->path);
    case VP8_STATUS_OUT_OF_MEMORY:
      return problem_set(r->why, "%s: no memory to read it", r->path);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return problem_set(r->why, "%s: a kind of WebP file that is not read", r->path);
    default:
      return problem_set(r->why, "%s: damaged WebP file", r->path);
  }
}

static bool decode(image_reading *r, const WebPData *data) {
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) return problem_set(r->why, "%s: libwebp is of another version", r->path);
  VP8StatusCode status = WebPGetFeatures(data->bytes, data->size, &config.input);
  if (status != VP8_STATUS_OK) return fail(r, status);
  if (config.input.has_animation)
    return problem_set(r->why, "%s: an animated WebP file; only still images are read", r->path);
  size_t height = (size_t)config.input.height;
  size_t width = (size_t)config.input.width;
  size_t channels = config.input.has_alpha ? 4 : 3;
  if (!image_check_size(r, height, width, TRUSTED_PIXELS)) return false;
  if (r->out == NULL) return true;

  if (!image_reserve(r, height, width, channels)) return false;
  config.output.colorspace = channels == 4 ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = r->out->bytes;
  config.output.u.RGBA.stride = (int)(width * channels);
  config.output.u.RGBA.size = height * width * channels;
  status = WebPDecode(data->bytes, data->size, &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) return fail(r, status);
  if (channels == 4) image_compose(r->out);
  r->orientation = orientation(data);
  return true;
}

bool image_read_webp(image_reading *r) {
  if (r->file_size > MAX_FILE_SIZE)
    return problem_set(r->why, "%s: a WebP file of %llu bytes; at most %llu are accepted", r->path,
                       (unsigned long long)r->file_size, (unsigned long long)MAX_FILE_SIZE);
  uint8_t *bytes = malloc((size_t)r->file_size);
  if (bytes == NULL) return problem_set(r->why, "%s: no memory to read it", r->path);
  WebPData data = {bytes, fread(bytes, 1, (size_t)r->file_size, r->file)};
  bool done = ferror(r->file) ? problem_set(r->why, "cannot read %s: %s", r->path, strerror(errno)) : decode(r, &data);
  free(bytes);
  return done;
}

#else

bool image_read_webp(image_reading *r) {
  return problem_set(r->why, "%s is a WebP file, and this program was built without libwebp (Debian: libwebp-dev)",
                     r->path);
}

#endif
