/* The element types of safetensors, by name and by size, and exact conversions of float16 and bfloat16 to float32.
 * SPDX-License-Identifier: Apache-2.0 */
#include "io/dtype.h"

#include <string.h>

#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors data is little-endian and is used in place; this processor needs a byte swap here"
#endif

static const struct dli_dtype_info dtypes[] = {
    {"F32", DLI_F32, 32},      {"F16", DLI_F16, 16},          {"BF16", DLI_BF16, 16},        {"F64", DLI_F64, 64},
    {"I64", DLI_I64, 64},      {"U64", DLI_U64, 64},          {"I32", DLI_I32, 32},          {"U8", DLI_U8, 8},
    {"BOOL", DLI_OTHER, 8},    {"I8", DLI_OTHER, 8},          {"I16", DLI_OTHER, 16},        {"U16", DLI_OTHER, 16},
    {"U32", DLI_OTHER, 32},    {"C64", DLI_OTHER, 64},        {"F8_E4M3", DLI_OTHER, 8},     {"F8_E5M2", DLI_OTHER, 8},
    {"F8_E8M0", DLI_OTHER, 8}, {"F8_E4M3FNUZ", DLI_OTHER, 8}, {"F8_E5M2FNUZ", DLI_OTHER, 8}, {"F6_E2M3", DLI_OTHER, 6},
    {"F6_E3M2", DLI_OTHER, 6}, {"F4", DLI_OTHER, 4},
};
enum { NUM_DTYPES = sizeof dtypes / sizeof dtypes[0] };

const struct dli_dtype_info *dli_dtype_find(const char *name) {
  for (size_t i = 0; i < NUM_DTYPES; i++) {
    if (strcmp(dtypes[i].name, name) == 0) return &dtypes[i];
  }
  return NULL;
}

const struct dli_dtype_info *dli_dtype_get(enum dli_dtype dtype) {
  if (dtype == DLI_OTHER) return NULL;
  for (size_t i = 0; i < NUM_DTYPES; i++) {
    if (dtypes[i].dtype == dtype) return &dtypes[i];
  }
  return NULL;
}

static float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

float dli_half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1Fu;
  const uint32_t mantissa = half & 0x3FFu;
  if (exponent == 0) {
    /* Zero and subnormals are mantissa * 2^-24, a normal float; no bits to shift, no denormal arithmetic. */
    const float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return float_from_bits(sign | 0x7F800000u | mantissa << 13);
  return float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

float dli_bfloat16_to_float(uint16_t bits) {
  return float_from_bits((uint32_t)bits << 16);
}
