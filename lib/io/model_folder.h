/* A model as people have it: a safetensors file, or the folder that a hub ships, with weights in one file or in parts
 * and what describes them beside it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_MODEL_FOLDER_H
#define DLI_IO_MODEL_FOLDER_H

#include "io/safetensors.h"

struct cJSON;

struct dli_model_files {
  struct dli_tensors *tensors;
  struct cJSON *config, *preprocessor; /* config.json and preprocessor_config.json of a folder; NULL: there is none */
};

/* Maps the weights of a file or a folder. Of a folder: model.safetensors, or the parts of model.safetensors.index.json,
 * or the only file that ends in .safetensors. Errors: IO, FORMAT, UNSUPPORTED, NO_MEMORY. */
dlora_status dli_model_weights_open(struct dli_tensors **out, const char *path, const dlora_allocator *allocator);
/* The same with an allocator that is not NULL, and of a folder the two JSON files. A file is what it is: nothing beside
 * it is read. */
dlora_status dli_model_files_open(struct dli_model_files *out, const char *path, const dlora_allocator *allocator);
/* Releases what was read of JSON files. */
void dli_model_files_forget(struct dli_model_files *files);

#endif
