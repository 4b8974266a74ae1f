/* The struct of a model handle, for sessions and the learner.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_MODEL_MODEL_H
#define DLI_SRC_MODEL_MODEL_H

#include "duallora/duallora.h"
#include "vit/vit.h"

struct dlora_model {
  dlora_allocator allocator;
  struct dli_tensors *tensors; /* the mapped file; weights may point into it */
  struct dli_vit vit;
  const struct dli_kernels *kernels;
  size_t threads;
  int32_t products;          /* DLORA_PRODUCTS_... */
  struct dli_onednn *onednn; /* NULL with DLORA_PRODUCTS_BLAS */
  struct dli_pool *sessions; /* of dlora_model_embed */
};

#endif
