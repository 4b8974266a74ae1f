/* Which instruction sets this processor supports, and the environment variable that hides the better ones from the
 * library.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/processor.h"

#include <stdlib.h>
#include <string.h>

static enum dli_instructions present(void) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return DLI_INSTRUCTIONS_GENERIC;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return DLI_INSTRUCTIONS_AVX2;
  }
  return __builtin_cpu_supports("avx512bf16") ? DLI_INSTRUCTIONS_AVX512_BF16 : DLI_INSTRUCTIONS_AVX512;
#else
  return DLI_INSTRUCTIONS_GENERIC;
#endif
}

enum dli_instructions dli_processor_instructions(void) {
  static const char *const names[] = {"generic", "avx2", "avx512"};
  const enum dli_instructions best = present();
  const char *limit = getenv("DUALLORA_ISA");
  for (size_t i = 0; limit && i < sizeof names / sizeof *names; i++) {
    if (strcmp(limit, names[i]) == 0 && (enum dli_instructions)i < best) return (enum dli_instructions)i;
  }
  return best;
}
