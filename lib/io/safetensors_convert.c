/* Values of a tensor in F32, F16 or BF16 as finite float32.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/finite.h"
#include "base/status.h"
#include "io/dtype.h"
#include "io/safetensors.h"

dlora_status dli_tensor_to_float(const struct dli_tensors *tensors, const struct dli_tensor *tensor, float *out) {
  const unsigned char *data = tensor->data;
  switch (tensor->dtype) {
    case DLI_F32:
      if (tensor->count > 0) memcpy(out, data, tensor->num_bytes);
      break;
    case DLI_F16:
      for (size_t i = 0; i < tensor->count; i++) {
        uint16_t half;
        memcpy(&half, data + 2 * i, sizeof half);
        out[i] = dli_half_to_float(half);
      }
      break;
    case DLI_BF16:
      for (size_t i = 0; i < tensor->count; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, sizeof bits);
        out[i] = dli_bfloat16_to_float(bits);
      }
      break;
    default:
      return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor '%s' has dtype %s, expected F32, F16 or BF16",
                       dli_tensor_label(tensors, tensor), tensor->name, tensor->dtype_name);
  }
  const size_t bad = dli_first_not_finite(out, tensor->count);
  if (bad < tensor->count) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor '%s': element %zu is NaN or infinite",
                     dli_tensor_label(tensors, tensor), tensor->name, bad);
  }
  return DLORA_OK;
}
