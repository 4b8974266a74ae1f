#include "base/processor.h"
#include "nn/kernels.h"

extern const struct dli_kernels dli_kernels_generic;
#ifdef DLI_HAVE_X86_KERNELS
extern const struct dli_kernels dli_kernels_avx2;
extern const struct dli_kernels dli_kernels_avx512;
#endif

const struct dli_kernels *dli_kernels_select(void) {
#ifdef DLI_HAVE_X86_KERNELS
  const enum dli_instructions instructions = dli_processor_instructions();
  if (instructions >= DLI_INSTRUCTIONS_AVX512) return &dli_kernels_avx512;
  if (instructions >= DLI_INSTRUCTIONS_AVX2) return &dli_kernels_avx2;
#endif
  return &dli_kernels_generic;
}
