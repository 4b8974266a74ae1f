/* Opens a model as people have it: one safetensors file, or a folder of a hub. Finds the weights in a folder, whole or
 * in parts, and the JSON files beside them; where there are no weights, or not only one model's, it says what there is.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/model_folder.h"

#include <cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/file_kind.h"
#include "io/json_file.h"

#define WEIGHTS "model.safetensors"
#define INDEX "model.safetensors.index.json"

enum { SHOWN_NAME = 256 };

/* What a folder holds, besides the two names above. */
struct contents {
  size_t num_safetensors;
  char safetensors[2][SHOWN_NAME]; /* the first two by name */
  char other[SHOWN_NAME];          /* a file of weights in another format */
  bool has_snapshots;              /* as the folders of a hub's cache have */
};

static bool ends_with(const char *name, const char *end) {
  const size_t length = strlen(name), tail = strlen(end);
  return length > tail && strcmp(name + length - tail, end) == 0;
}

/* By name, so that sentences do not depend on the order of the folder's entries. */
static void keep_first(char kept[SHOWN_NAME], const char *name) {
  if (kept[0] == '\0' || strcmp(name, kept) < 0) snprintf(kept, SHOWN_NAME, "%s", name);
}

static dlora_status list(const char *folder, struct contents *out) {
  static const char *const others[] = {".bin", ".pth",     ".pt",  ".ckpt",   ".onnx", ".gguf",
                                       ".h5",  ".msgpack", ".npz", ".tflite", ".pkl",  ".keras"};
  *out = (struct contents){0};
  DIR *entries = opendir(folder);
  if (!entries) return dli_raise_open(folder, errno);
  for (const struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
    const char *name = entry->d_name;
    if (strcmp(name, "snapshots") == 0) out->has_snapshots = true;
    if (ends_with(name, ".safetensors")) {
      out->num_safetensors++;
      if (out->safetensors[0][0] == '\0' || strcmp(name, out->safetensors[0]) < 0) {
        memcpy(out->safetensors[1], out->safetensors[0], SHOWN_NAME);
        snprintf(out->safetensors[0], SHOWN_NAME, "%s", name);
      } else {
        keep_first(out->safetensors[1], name);
      }
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
      if (ends_with(name, others[i])) keep_first(out->other, name);
    }
  }
  (void)closedir(entries);
  return DLORA_OK;
}

/* "<folder>/<name>", to be freed; the folder alone where name is NULL. */
static dlora_status join_path(char **out, const char *folder, const char *name, const dlora_allocator *allocator) {
  size_t length = strlen(folder);
  const size_t tail = name ? strlen(name) + 1 : 0;
  while (length > 1 && folder[length - 1] == '/') length--;
  DLI_TRY(DLI_NEW(allocator, *out, length + tail + 1)); /* zeros behind the text */
  memcpy(*out, folder, length);
  if (!name) return DLORA_OK;
  (*out)[length] = '/';
  memcpy(*out + length + 1, name, tail);
  return DLORA_OK;
}

/* A link to nowhere is there: what it stands for is missing, and that is an error of its own. */
static bool is_there(const char *path) {
  struct stat info;
  return lstat(path, &info) == 0;
}

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* A folder without model.safetensors and without an index. */
static dlora_status refuse_folder(const char *folder, const struct contents *c) {
  if (c->num_safetensors > 1) {
    const char *hint = dli_file_part_hint(c->safetensors[0]);
    return *hint ? dli_raise(DLORA_ERR_FORMAT,
                             "%s: has %s, one of several parts, but no " INDEX
                             ", which says what lies in which part: fetch that too",
                             folder, c->safetensors[0])
                 : dli_raise(DLORA_ERR_FORMAT,
                             "%s: has %zu safetensors files, such as %s and %s, and no " WEIGHTS
                             ": give the one that is meant",
                             folder, c->num_safetensors, c->safetensors[0], c->safetensors[1]);
  }
  if (c->other[0]) {
    return dli_raise(
        DLORA_ERR_FORMAT,
        "%s: has %s, which is not read, and no safetensors file: fetch " WEIGHTS
        " too, or write it in Python, of a PyTorch model with safetensors.torch.save_file(model.state_dict(), "
        "'" WEIGHTS "')",
        folder, c->other);
  }
  if (c->has_snapshots) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: is the cache of a hub: give the folder of one version, in snapshots in it",
                     folder);
  }
  return dli_raise(DLORA_ERR_IO, "%s: is a directory without " WEIGHTS " or " INDEX, folder);
}

static dlora_status open_parts(struct dli_tensors **out, const char *folder, const char *index_path,
                               const dlora_allocator *allocator) {
  dlora_status status = DLORA_OK;
  cJSON *index = NULL;
  char *plain = NULL;
  DLI_TRY_DONE(join_path(&plain, folder, NULL, allocator));
  DLI_TRY_DONE(dli_json_read(&index, index_path, allocator));
  DLI_TRY_DONE(dli_tensors_open_parts(out, plain, index_path, index, allocator));
done:
  cJSON_Delete(index);
  dli_free(allocator, plain);
  return status;
}

static dlora_status open_only_one(struct dli_tensors **out, const char *folder, const dlora_allocator *allocator) {
  struct contents contents;
  char *path = NULL;
  DLI_TRY(list(folder, &contents));
  if (contents.num_safetensors != 1) return refuse_folder(folder, &contents);
  DLI_TRY(join_path(&path, folder, contents.safetensors[0], allocator));
  const dlora_status status = dli_tensors_open(out, path, allocator);
  dli_free(allocator, path);
  return status;
}

static dlora_status open_folder(struct dli_tensors **out, const char *folder, const dlora_allocator *allocator) {
  dlora_status status = DLORA_OK;
  char *whole = NULL, *index = NULL;
  DLI_TRY_DONE(join_path(&whole, folder, WEIGHTS, allocator));
  DLI_TRY_DONE(join_path(&index, folder, INDEX, allocator));
  if (is_there(whole) && is_there(index)) {
    status = dli_raise(
        DLORA_ERR_FORMAT,
        "%s: has both " WEIGHTS " and " INDEX ", the weights twice: remove one of the two, or give the file", folder);
  } else if (is_there(whole)) {
    status = dli_tensors_open(out, whole, allocator);
  } else if (is_there(index)) {
    status = open_parts(out, folder, index, allocator);
  } else {
    status = open_only_one(out, folder, allocator);
  }
done:
  dli_free(allocator, whole);
  dli_free(allocator, index);
  return status;
}

static dlora_status open_weights(struct dli_tensors **out, const char *path, const dlora_allocator *allocator) {
  *out = NULL;
  return is_folder(path) ? open_folder(out, path, allocator) : dli_tensors_open(out, path, allocator);
}

dlora_status dli_model_weights_open(struct dli_tensors **out, const char *path, const dlora_allocator *allocator) {
  dlora_allocator used;
  DLI_TRY(dli_allocator_read(&used, allocator));
  return open_weights(out, path, &used);
}

static dlora_status read_beside(cJSON **out, const char *folder, const char *name, const dlora_allocator *allocator) {
  char *path = NULL;
  DLI_TRY(join_path(&path, folder, name, allocator));
  const dlora_status status = is_there(path) ? dli_json_read(out, path, allocator) : DLORA_OK;
  dli_free(allocator, path);
  return status;
}

dlora_status dli_model_files_open(struct dli_model_files *out, const char *path, const dlora_allocator *allocator) {
  dlora_status status = DLORA_OK;
  struct dli_model_files files = {0};
  *out = files;
  DLI_TRY_DONE(open_weights(&files.tensors, path, allocator));
  if (is_folder(path)) {
    DLI_TRY_DONE(read_beside(&files.config, path, "config.json", allocator));
    DLI_TRY_DONE(read_beside(&files.preprocessor, path, "preprocessor_config.json", allocator));
  }
  *out = files;
  files = (struct dli_model_files){0};
done:
  dli_model_files_forget(&files);
  dli_tensors_close(files.tensors);
  return status;
}

void dli_model_files_forget(struct dli_model_files *files) {
  cJSON_Delete(files->config);
  cJSON_Delete(files->preprocessor);
  files->config = files->preprocessor = NULL;
}
