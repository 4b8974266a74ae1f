/* Folders that other libraries open: their files, and the updates of layers as these libraries add them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/interop/folder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/number.h"
#include "base/status.h"
#include "io/atomic_file.h"
#include "src/bank/bank.h"

dlora_status dli_folder_make(const char *folder) {
  struct stat found;
  if (mkdir(folder, 0777) == 0) return DLORA_OK;
  const int number = errno;
  if (number == EEXIST && stat(folder, &found) == 0) {
    if (S_ISDIR(found.st_mode)) return DLORA_OK;
    return dli_raise(DLORA_ERR_IO, "%s: is a file, expected a folder to write to", folder);
  }
  return dli_raise(DLORA_ERR_IO, "%s: the folder cannot be made: %s", folder, strerror(number));
}

dlora_status dli_folder_path(char path[DLI_PATH_SIZE], const char *folder, const char *file) {
  const int length = snprintf(path, DLI_PATH_SIZE, "%s/%s", folder, file);
  if (length > 0 && length < DLI_PATH_SIZE) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "the path of %s in the folder is longer than %d bytes", file, DLI_PATH_SIZE - 1);
}

dlora_status dli_folder_write(const char *folder, const char *file, const struct dli_text *text,
                              const dlora_allocator *allocator) {
  char path[DLI_PATH_SIZE];
  struct dli_atomic_file *out = NULL;
  dlora_status status = DLORA_OK;
  DLI_TRY(dli_folder_path(path, folder, file));
  DLI_TRY_DONE(dli_atomic_file_create(&out, path, allocator));
  DLI_TRY_DONE(dli_atomic_file_write(out, text->data, text->size));
  DLI_TRY_DONE(dli_atomic_file_commit(out));
done:
  dli_atomic_file_destroy(out);
  return status;
}

dlora_status dli_json_plain(struct dli_text *text, const char *json) {
  return dli_text_append(text, json, strlen(json));
}

dlora_status dli_json_floats(struct dli_text *text, const float *values, size_t count) {
  char number[32];
  for (size_t i = 0; i < count; i++) {
    dli_float_format(values[i], number);
    DLI_TRY(dli_json_plain(text, i == 0 ? "[" : ", "));
    DLI_TRY(dli_json_plain(text, number));
  }
  return dli_json_plain(text, "]");
}

const dlora_site *dli_find_site(const dlora_bank *bank, size_t block, int32_t projection, size_t *index) {
  for (*index = 0; *index < bank->num_sites; ++*index) {
    const dlora_site *site = &bank->sites[*index];
    if (site->projection == projection && (size_t)site->block == block) return site;
  }
  return NULL;
}

dlora_status dli_undo_scale(const dlora_model *model, const struct dli_vit_layer *layer, size_t rows, size_t cols,
                            float *delta, const dlora_allocator *allocator) {
  if (!layer->scale[0]) return DLORA_OK;
  const struct dli_tensor *tensor = dli_tensors_find(model->tensors, layer->scale);
  float *scale;
  dlora_status status = DLORA_OK;
  DLI_TRY(DLI_NEW(allocator, scale, rows));
  DLI_TRY_DONE(dli_tensor_to_float(model->tensors, tensor, scale));
  for (size_t i = 0; i < rows; i++) {
    for (size_t j = 0; j < cols; j++) {
      if (delta[i * cols + j] == 0.0f) continue;
      if (scale[i] == 0.0f) {
        status = dli_raise(DLORA_ERR_UNSUPPORTED,
                           "the update of %s cannot be told apart from its layer scale: %s is 0 in channel %zu",
                           layer->in_file, layer->scale, i);
        goto done;
      }
      delta[i * cols + j] /= scale[i];
    }
  }
done:
  dli_free(allocator, scale);
  return status;
}
