#include <stdlib.h>
#include <string.h>

#include "nn/kernels.h"

extern const struct dli_kernels dli_kernels_generic;
#ifdef DLI_HAVE_X86_KERNELS
extern const struct dli_kernels dli_kernels_avx2;
extern const struct dli_kernels dli_kernels_avx512;
#endif

const struct dli_kernels *dli_kernels_select(void) {
#ifdef DLI_HAVE_X86_KERNELS
  /* DUALLORA_ISA=generic or avx2 holds back faster tables, to test what older processors run. */
  const char *limit = getenv("DUALLORA_ISA");
  const int generic = limit && strcmp(limit, "generic") == 0;
  const int avx2 = limit && strcmp(limit, "avx2") == 0;
  if (!generic && !avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return &dli_kernels_avx512;
  }
  if (!generic && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &dli_kernels_avx2;
#endif
  return &dli_kernels_generic;
}
