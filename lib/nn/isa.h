/* Shared by the files that are compiled once per instruction set: the suffix of their names, the width of a register,
 * and an approximation of exp.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_NN_ISA_H
#define DLI_NN_ISA_H

#include <stdint.h>
#include <string.h>

#define DLI_PASTE_(a, b) a##b
#define DLI_PASTE(a, b) DLI_PASTE_(a, b)
#define DLI_TEXT_(a) #a
#define DLI_TEXT(a) DLI_TEXT_(a)
/* name_avx2 and the like; DLI_ISA comes from the command line. */
#define DLI_FOR_ISA(name) DLI_PASTE(name, DLI_ISA)

#if defined(__AVX512F__)
#define DLI_LANES 16
#elif defined(__AVX2__)
#define DLI_LANES 8
#else
#define DLI_LANES 4
#endif

/* exp by 2^n and a degree 6 polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes), relative error below 2e-7; 0 below -87. */
static inline float dli_exp_approximate(float x) {
  const float low = x;
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  /* The integer sits in the low bits of `shifted`; unsigned arithmetic keeps NaN well defined (it stays NaN through p).
   */
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return low < -87.0f ? 0.0f : p * power;
}

#endif
