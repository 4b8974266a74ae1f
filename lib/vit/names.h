/* Locates a Vision Transformer in a file: its family's tensor names, the prefix before them, and which other tensors
 * are harmless.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_VIT_NAMES_H
#define DLI_VIT_NAMES_H

#include <stdbool.h>

#include "io/safetensors.h"
#include "vit/families.h"

enum { DLI_NAME_SIZE = 256, DLI_PREFIX_SIZE = 96, DLI_MAX_PREFIXES = 8 };

struct dli_vit_names {
  const struct dli_tensors *tensors;
  const struct dli_vit_family *family;
  const struct dli_vit_naming *naming; /* of the family */
  bool chosen;                         /* the caller named the prefix: what lies elsewhere belongs to something else */
  size_t prefix, num_prefixes;
  char prefixes[DLI_MAX_PREFIXES][DLI_PREFIX_SIZE]; /* of all Vision Transformers in the file; [prefix] is ours */
};

/* Finds the one Vision Transformer, or the one with this prefix where it is not NULL. Errors: UNSUPPORTED where there
 * is none; ARGUMENT, naming the prefixes, where there are several or none has the one wanted. */
dlora_status dli_vit_names_find(struct dli_vit_names *out, const struct dli_tensors *tensors, const char *prefix);
/* "<prefix><name with block><suffix>": of the names in the pattern the first one that the file has, or the first one.
 */
void dli_vit_name(const struct dli_vit_names *names, char out[DLI_NAME_SIZE], const char *pattern, size_t block,
                  const char *suffix);
/* Refuses, by its name, the first tensor that would change the features, were it not ignored: UNSUPPORTED. Without
 * `used` only those that are known to; with used [number of tensors], all that are neither used nor known to be
 * harmless. */
dlora_status dli_vit_names_check(const struct dli_vit_names *names, const bool *used);

#endif
