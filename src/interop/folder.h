/* A folder as hubs have them: safetensors files with JSON files beside them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_INTEROP_FOLDER_H
#define DLI_SRC_INTEROP_FOLDER_H

#include "io/json_text.h"
#include "src/learner/learner.h"
#include "vit/layers.h"

enum { DLI_PATH_SIZE = 4096 };

/* Makes the folder unless it is there. Error: IO. */
dlora_status dli_folder_make(const char *folder);
/* "<folder>/<file>". Error: ARGUMENT where it is too long. */
dlora_status dli_folder_path(char path[DLI_PATH_SIZE], const char *folder, const char *file);
/* Writes a text file of the folder atomically. */
dlora_status dli_folder_write(const char *folder, const char *file, const struct dli_text *text,
                              const dlora_allocator *allocator);

/* JSON text, in any locale. */
dlora_status dli_json_plain(struct dli_text *text, const char *json);
/* "[v, v, v]" */
dlora_status dli_json_floats(struct dli_text *text, const float *values, size_t count);

/* The site of a projection in a bank; NULL where it is not adapted. *index: its place. */
const dlora_site *dli_find_site(const dlora_bank *bank, size_t block, int32_t projection, size_t *index);
/* Divides the rows of delta [rows, cols] by the layer scale behind a layer, which the library has folded into its
 * weights: what is added before the scale. Error: UNSUPPORTED where a channel with an update has scale 0. */
dlora_status dli_undo_scale(const dlora_model *model, const struct dli_vit_layer *layer, size_t rows, size_t cols,
                            float *delta, const dlora_allocator *allocator);

#endif
