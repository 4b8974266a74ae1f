/* Chooses the table of kernels for this processor.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/processor.h"
#include "nn/kernels.h"
#include "nn/kernels_bfloat16.h"

/* Of models with layer norms, and of models with RMS norms. */
extern const struct dli_kernels dli_kernels_generic[2];
#ifdef DLI_HAVE_X86_KERNELS
extern const struct dli_kernels dli_kernels_avx2[2];
extern const struct dli_kernels dli_kernels_avx512[2];
#endif

const struct dli_kernels *dli_kernels_select(bool rms) {
#ifdef DLI_HAVE_X86_KERNELS
  const enum dli_instructions instructions = dli_processor_instructions();
  if (instructions >= DLI_INSTRUCTIONS_AVX512) return &dli_kernels_avx512[rms];
  if (instructions >= DLI_INSTRUCTIONS_AVX2) return &dli_kernels_avx2[rms];
#endif
  return &dli_kernels_generic[rms];
}

const struct dli_kernels_bfloat16 *dli_kernels_bfloat16_select(void) {
#ifdef DLI_HAVE_X86_KERNELS
  if (dli_processor_instructions() >= DLI_INSTRUCTIONS_AVX512_BF16) return &dli_kernels_bfloat16;
#endif
  return NULL;
}
