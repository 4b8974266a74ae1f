/* Packed copies of all frozen weights for forward products by oneDNN.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"
#include "base/status.h"
#include "linalg/packed.h"
#include "vit/vit.h"

static dlora_status pack(struct dli_vit *vit, struct dli_weight *weight, struct dli_packed **packed,
                         const dlora_allocator *allocator) {
  DLI_TRY(dli_packed_create(packed, vit->onednn, weight->cols, weight->rows, allocator));
  dli_packed_fill(*packed, weight->data, weight->cols, true);
  weight->forward = *packed;
  return DLORA_OK;
}

dlora_status dli_vit_pack(struct dli_vit *vit, const struct dli_onednn *onednn, const dlora_allocator *allocator) {
  DLI_TRY(DLI_NEW(allocator, vit->packed, 4 * vit->depth + 1));
  vit->onednn = onednn;
  if (dli_onednn_bfloat16(onednn)) vit->bfloat16 = dli_kernels_bfloat16_select();
  for (size_t i = 0; i < vit->depth; i++) {
    struct dli_vit_block *b = &vit->blocks[i];
    struct dli_weight *weights[] = {&b->qkv, &b->output, &b->fc1, &b->fc2};
    for (size_t j = 0; j < 4; j++) DLI_TRY(pack(vit, weights[j], &vit->packed[4 * i + j], allocator));
  }
  return pack(vit, &vit->patch, &vit->packed[4 * vit->depth], allocator);
}
