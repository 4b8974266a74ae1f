/* oneDNN, an optional library that is loaded when a model needs it. Its kernels use AVX-512, the bfloat16 instructions
 * and AMX where the processor has them.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_LINALG_ONEDNN_H
#define DLI_LINALG_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>

#include "duallora/duallora.h"

/* What build and processor allow, for people: "none", "float32" or "float32 and bfloat16". Loads nothing. */
const char *dli_onednn_offer(void);

/* The loaded library. Constant once opened: many threads may use it. */
struct dli_onednn;
/* bfloat16: factors of products are in bfloat16, else in float32. Error UNSUPPORTED, which says what is missing: in the
 * build, on the system or in the processor. */
dlora_status dli_onednn_open(struct dli_onednn **out, bool bfloat16, const dlora_allocator *allocator);
void dli_onednn_close(struct dli_onednn *onednn);
bool dli_onednn_bfloat16(const struct dli_onednn *onednn);

/* y [m, outer] = x [m, inner] b [inner, outer], plus bias [outer] if bias, plus y if accumulate; x, y and bias without
 * gaps, y and bias in float32, b in panels of DLI_ONEDNN_PANEL columns one after the other, each of tiles of
 * DLI_ONEDNN_TILE rows, or as many pairs of rows for bfloat16, the last ones filled up with zeros. */
enum { DLI_ONEDNN_PANEL = 64, DLI_ONEDNN_TILE = 16 };
struct dli_onednn_shape {
  size_t m, inner, outer;
  bool bias, accumulate;
  size_t threads; /* that work on it; as many as the calling thread may use now */
};

/* Machine code for one shape; of one thread. Zero: none. */
struct dli_onednn_kernel {
  struct dli_onednn_shape shape;
  size_t scratch_size; /* bytes that it works in */
  void *primitive, *stream;
  void *arrays[5];
};
/* False without memory, and for what oneDNN has no kernel for. */
bool dli_onednn_kernel_create(struct dli_onednn_kernel *out, const struct dli_onednn *onednn,
                              const struct dli_onednn_shape *shape);
void dli_onednn_kernel_destroy(struct dli_onednn_kernel *kernel, const struct dli_onednn *onednn);
bool dli_onednn_kernel_run(const struct dli_onednn_kernel *kernel, const struct dli_onednn *onednn, const void *x,
                           const void *b, const float *bias, float *y, void *scratch);

#endif
