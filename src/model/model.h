/* The struct of a model handle, for sessions and the learner.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_MODEL_MODEL_H
#define DLI_SRC_MODEL_MODEL_H

#include "duallora/duallora.h"
#include "vit/settings.h"
#include "vit/vit.h"

enum { DLI_SETTING_SIZE = 96 };

struct dlora_model {
  dlora_allocator allocator;
  struct dli_tensors *tensors; /* the mapped file; weights may point into it */
  struct dli_vit vit;
  struct dli_settings settings;
  char setting_values[DLI_NUM_SETTINGS][DLI_SETTING_SIZE]; /* as text */
  const struct dli_kernels *kernels;
  size_t threads;
  int32_t products;          /* DLORA_PRODUCTS_... */
  struct dli_onednn *onednn; /* NULL with DLORA_PRODUCTS_BLAS */
  struct dli_pool *sessions; /* of dlora_model_embed */
  float *own_positions;      /* of a copy by dli_model_with_other_positions */
};

/* model/settings.c: fills setting_values, once the model is loaded. */
void dli_model_describe_settings(dlora_model *model);

/* model/positions.c: the model with its positions resampled by the rule that it does not use, for a learner that was
 * learnt with them. It borrows everything else and must not outlive the model. *out is NULL where both rules give the
 * same. Error: NO_MEMORY. */
dlora_status dli_model_with_other_positions(dlora_model **out, const dlora_model *model,
                                            const dlora_allocator *allocator);
void dli_model_free_copy(dlora_model *copy);

/* model/inputs.c: the inputs of a model's projections, four in every block, each read by one or several of them. An
 * array over all inputs, as a learner's projectors, goes block by block in the order of enum dlora_input. */

/* Which input of its block a projection reads. */
int32_t dli_input_of(int32_t projection);
/* Number of all inputs of a model, and of those in so many blocks. */
size_t dli_num_inputs(const dlora_model *model);
size_t dli_inputs_in(size_t blocks);
/* Place of an input in such an array. */
size_t dli_input_index(size_t block, int32_t input);
/* The same of what the layer of a site reads. */
size_t dli_input_of_site(const dlora_site *site);
/* And back: the block, and the input in it. */
size_t dli_input_block(size_t index);
int32_t dli_input_in_block(size_t index);
/* Number of all projections of a model, six in every block, and the place of one in an array over them: block by block,
 * by ascending DLORA_SITE_... */
size_t dli_num_projections(const dlora_model *model);
size_t dli_projection_index(size_t block, int32_t projection);

#endif
