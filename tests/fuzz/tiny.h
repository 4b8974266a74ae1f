/* The smallest Vision Transformers that have everything, as safetensors files in memory.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_FUZZ_TINY_H
#define DUALLORA_TESTS_FUZZ_TINY_H

#include <stddef.h>
#include <stdint.h>

enum { TINY_DIM = 8, TINY_HEADS = 2, TINY_MLP = 12, TINY_PATCH = 4, TINY_IMAGE = 8, TINY_TOKENS = 5 };

struct tiny_kind {
  int32_t naming;    /* DLORA_NAMING_... */
  const char *dtype; /* "F32", "F16" or "BF16" */
  size_t depth;
  int layer_scale; /* of the timm naming; DINOv2 always has it */
  int no_bias;     /* of query, key and value */
};

/* The same bytes on every machine: values are fractions of 64. *size bytes, to be freed. */
uint8_t *tiny_model(const struct tiny_kind *kind, size_t *size);

#endif
