/* Takes the place of onednn.c in a build without oneDNN: opening fails with a sentence, so that nothing else is ever
 * called.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"
#include "linalg/onednn.h"

const char *dli_onednn_offer(void) {
  return "none";
}

dlora_status dli_onednn_open(struct dli_onednn **out, bool bfloat16, const dlora_allocator *allocator) {
  (void)out;
  (void)allocator;
  return dli_raise(DLORA_ERR_UNSUPPORTED, "%s products need oneDNN, and this library was built without it",
                   bfloat16 ? "bfloat16" : "packed");
}

void dli_onednn_close(struct dli_onednn *onednn) {
  (void)onednn;
}

bool dli_onednn_bfloat16(const struct dli_onednn *onednn) {
  (void)onednn;
  return false;
}

bool dli_onednn_kernel_create(struct dli_onednn_kernel *out, const struct dli_onednn *onednn,
                              const struct dli_onednn_shape *shape) {
  (void)out;
  (void)onednn;
  (void)shape;
  return false;
}

void dli_onednn_kernel_destroy(struct dli_onednn_kernel *kernel, const struct dli_onednn *onednn) {
  (void)kernel;
  (void)onednn;
}

bool dli_onednn_kernel_run(const struct dli_onednn_kernel *kernel, const struct dli_onednn *onednn, const void *x,
                           const void *b, const float *bias, float *y, void *scratch) {
  (void)kernel, (void)onednn, (void)x, (void)b, (void)bias, (void)y, (void)scratch;
  return false;
}
