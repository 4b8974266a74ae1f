/* Instruction sets that the processor supports, found at run time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_PROCESSOR_H
#define DLI_BASE_PROCESSOR_H

/* Each can do what those before it can. */
enum dli_instructions {
  DLI_INSTRUCTIONS_GENERIC,
  DLI_INSTRUCTIONS_AVX2,       /* and FMA */
  DLI_INSTRUCTIONS_AVX512,     /* F, BW, DQ, VL */
  DLI_INSTRUCTIONS_AVX512_BF16 /* products of bfloat16; with or without AMX */
};

/* The best that there is. The environment variable DUALLORA_ISA (generic, avx2 or avx512) holds back the better ones,
 * to test what older processors run. */
enum dli_instructions dli_processor_instructions(void);

#endif
