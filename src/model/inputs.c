/* Numbers of a model's projections and of the inputs that they read.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/model/model.h"

enum { INPUTS_PER_BLOCK = 4, PROJECTIONS_PER_BLOCK = 6 };

int32_t dli_input_of(int32_t projection) {
  switch (projection) {
    case DLORA_SITE_OUTPUT:
      return DLORA_INPUT_OUTPUT;
    case DLORA_SITE_FC1:
      return DLORA_INPUT_FC1;
    case DLORA_SITE_FC2:
      return DLORA_INPUT_FC2;
    default:
      return DLORA_INPUT_ATTENTION;
  }
}

size_t dli_inputs_in(size_t blocks) {
  return INPUTS_PER_BLOCK * blocks;
}

size_t dli_num_inputs(const dlora_model *model) {
  return dli_inputs_in(model->vit.depth);
}

size_t dli_input_index(size_t block, int32_t input) {
  return INPUTS_PER_BLOCK * block + (size_t)input;
}

size_t dli_input_of_site(const dlora_site *site) {
  return dli_input_index((size_t)site->block, dli_input_of(site->projection));
}

size_t dli_input_block(size_t index) {
  return index / INPUTS_PER_BLOCK;
}

int32_t dli_input_in_block(size_t index) {
  return (int32_t)(index % INPUTS_PER_BLOCK);
}

size_t dli_num_projections(const dlora_model *model) {
  return PROJECTIONS_PER_BLOCK * model->vit.depth;
}

size_t dli_projection_index(size_t block, int32_t projection) {
  size_t in_block = 0; /* the number of its bit */
  while (projection >> (in_block + 1)) in_block++;
  return PROJECTIONS_PER_BLOCK * block + in_block;
}
