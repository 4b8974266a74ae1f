/* Recognises files of other kinds by their first bytes, so that an error sentence can say what the file is and how to
 * get a safetensors file instead.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/file_kind.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"

/* Enough of a file to tell what it is; an index of parts names them near its beginning. */
enum { LOOKED_AT = 64 * 1024, SHOWN = 40 };

#define CONVERT "convert it in Python: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"

/* Kinds that one text at a fixed place tells. */
static const struct {
  size_t at, length;
  const char *magic, *what;
} kinds[] = {
    {0, 23, "version https://git-lfs",
     "is a Git LFS pointer and not the file that it stands for: fetch that with 'git lfs pull'"},
    {0, 3, "\x1F\x8B\x08", "is compressed with gzip: unpack it first (gunzip)"},
    {0, 3, "BZh", "is compressed with bzip2: unpack it first (bunzip2)"},
    {0, 6,
     "\xFD"
     "7zXZ\0",
     "is compressed with xz: unpack it first (unxz)"},
    {0, 4, "\x28\xB5\x2F\xFD", "is compressed with Zstandard: unpack it first (unzstd)"},
    {0, 6, "7z\xBC\xAF\x27\x1C", "is a 7z archive: unpack it first"},
    {257, 5, "ustar", "is a tar archive: unpack it first (tar xf)"},
    {0, 4, "GGUF", "is a GGUF file of llama.cpp and its kin: take the model's safetensors file instead"},
    {0, 8, "\x89HDF\r\n\x1A\n", "is an HDF5 file, as Keras writes them: take the model's safetensors file instead"},
    {0, 6, "\x93NUMPY", "is a NumPy array (.npy): take the model's safetensors file instead"},
    {4, 4, "TFL3", "is a TensorFlow Lite model: take the model's safetensors file instead"},
    {0, 8, "\x89PNG\r\n\x1A\n", "is a PNG image, expected a safetensors file"},
    {0, 3, "\xFF\xD8\xFF", "is a JPEG image, expected a safetensors file"},
};

static bool has_at(const unsigned char *bytes, size_t size, size_t at, const char *text, size_t length) {
  return size >= at + length && memcmp(bytes + at, text, length) == 0;
}

static bool contains(const unsigned char *bytes, size_t size, const char *text) {
  const size_t length = strlen(text);
  for (size_t i = 0; i + length <= size; i++) {
    if (bytes[i] == (unsigned char)text[0] && memcmp(bytes + i, text, length) == 0) return true;
  }
  return false;
}

/* The first bytes of a zip archive say what its first member is called. */
static const char *kind_of_zip(const unsigned char *bytes, size_t size) {
  const size_t near = size < 256 ? size : 256;
  if (contains(bytes, near, ".npy")) {
    return "is a NumPy archive (.npz), as the first ViTs were published: take the model's safetensors file instead";
  }
  if (contains(bytes, near, "[Content_Types]") || contains(bytes, near, "META-INF")) {
    return "is a zip archive of documents or programs, expected a safetensors file";
  }
  return "is a zip archive, probably a PyTorch file (.pt, .pth, .bin), whose pickle is not read: " CONVERT
         "; unpack it first if it is an ordinary archive";
}

static const char *kind_of_json(const unsigned char *bytes, size_t size) {
  if (contains(bytes, size, "\"weight_map\"")) {
    return "is the index of a model in several parts: give the folder that holds it and all of the parts";
  }
  return "is a JSON text, such as config.json: give the folder that it lies in, or the file with the weights beside "
         "it, "
         "model.safetensors";
}

/* No character that text has not; those beyond ASCII may be anything. */
static bool is_text(const unsigned char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if ((bytes[i] < ' ' && bytes[i] != '\n' && bytes[i] != '\r' && bytes[i] != '\t') || bytes[i] == 0x7F) return false;
  }
  return true;
}

/* NULL: none of the texts that have a name; *shown bytes from *start on are then fit to be quoted. */
static const char *kind_of_text(const unsigned char *bytes, size_t size, size_t *start, size_t *shown) {
  const size_t line = size < 512 ? size : 512;
  size_t at = has_at(bytes, size, 0, "\xEF\xBB\xBF", 3) ? 3 : 0;
  *shown = 0;
  if (!is_text(bytes, line)) return NULL;
  while (at < line && bytes[at] <= ' ') at++;
  if (at + 1 < line && bytes[at] == '<') {
    return "is a web page (HTML or XML): the address was that of a page about the file; take the download link "
           "(on Hugging Face with /resolve/ in place of /blob/)";
  }
  if (at + 1 < line && (bytes[at] == '{' || bytes[at] == '[')) return kind_of_json(bytes, size);
  *start = at;
  while (at + *shown < line && *shown < SHOWN && bytes[at + *shown] >= ' ' && bytes[at + *shown] <= '~') ++*shown;
  return NULL;
}

const char *dli_file_kind(char out[DLI_KIND_SIZE], const unsigned char *bytes, size_t size) {
  const char *what = NULL;
  size_t start = 0, shown = 0;
  if (size > LOOKED_AT) size = LOOKED_AT;
  for (size_t i = 0; !what && i < sizeof kinds / sizeof *kinds; i++) {
    if (has_at(bytes, size, kinds[i].at, kinds[i].magic, kinds[i].length)) what = kinds[i].what;
  }
  if (!what && has_at(bytes, size, 0, "PK\3\4", 4)) what = kind_of_zip(bytes, size);
  /* A protocol from 2 on; in the length of a safetensors header zeros would follow. */
  if (!what && size > 2 && bytes[0] == 0x80 && bytes[1] >= 2 && bytes[1] <= 5 && bytes[2] != 0) {
    what = "is a pickle, as PyTorch files (.pt, .pth, .bin) are, which is not read: " CONVERT;
  }
  /* The protocol buffer of a model: its version, then who made it. */
  if (!what && size > 5 && bytes[0] == 0x08 && bytes[2] == 0x12 && bytes[4] >= 'A' && bytes[4] <= 'z') {
    what = "is probably an ONNX model: take the model's safetensors file instead";
  }
  if (!what && size >= 64) {
    size_t zeros = 0;
    while (zeros < size && bytes[zeros] == 0) zeros++;
    if (zeros == size) what = "begins with zeros alone, as an incomplete download does: fetch it again";
  }
  if (!what) what = kind_of_text(bytes, size, &start, &shown);
  if (what) {
    snprintf(out, DLI_KIND_SIZE, "%s", what);
  } else if (shown >= 4) {
    snprintf(out, DLI_KIND_SIZE, "is a text that begins with \"%.*s\", expected a safetensors file", (int)shown,
             (const char *)bytes + start);
  } else {
    return NULL;
  }
  return out;
}

/* "...-00001-of-00003..." */
const char *dli_file_part_hint(const char *path) {
  const char *slash = strrchr(path, '/');
  const char *of = strstr(slash ? slash : path, "-of-");
  const bool is_part = of && of > path && of[-1] >= '0' && of[-1] <= '9' && of[4] >= '0' && of[4] <= '9';
  return is_part ? "; by its name the file is one of several parts: give the folder that holds all of them and "
                   "model.safetensors.index.json"
                 : "";
}

dlora_status dli_raise_open(const char *path, int error) {
  char target[512];
  const ssize_t length = error == ENOENT ? readlink(path, target, sizeof target) : -1;
  if (length > 0) {
    return dli_raise(DLORA_ERR_IO, "%s: is a symbolic link to %.*s, which does not exist: fetch or copy it again", path,
                     (int)length, target);
  }
  return dli_raise(DLORA_ERR_IO, "%s: could not be opened: %s", path, strerror(error));
}
