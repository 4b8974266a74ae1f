/* Which linear layer of a backbone's file holds a projection, and what others call it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_VIT_LAYERS_H
#define DLI_VIT_LAYERS_H

#include "vit/names.h"
#include "vit/vit.h"

/* The rows of a projection that lie in one layer: all of them, or those of gate or up (SwiGLU). */
struct dli_vit_layer {
  size_t from, rows;           /* of the projection: [from, from + rows) */
  size_t cols;                 /* of its input */
  char in_file[DLI_NAME_SIZE]; /* the layer's tensors are this, ".weight" and ".bias" */
  size_t row_in_file;          /* where these rows begin there */
  size_t rows_of_file;
  char module[DLI_NAME_SIZE]; /* path in timm's model, or in transformers' from 5.0 on */
  size_t row_in_module;       /* where they begin there */
  size_t rows_of_module;
  char scale[DLI_NAME_SIZE]; /* tensor of the layer scale behind it; "": none */
};

enum { DLI_VIT_LAYER_PARTS = 2 };
/* Part 0, and 1 where there is one. projection: DLORA_SITE_... */
bool dli_vit_layer_of(const struct dli_vit *vit, const struct dli_vit_names *names, size_t block, int32_t projection,
                      size_t part, struct dli_vit_layer *out);

#endif
