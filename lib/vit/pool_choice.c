/* Which tokens of a backbone become its feature: as the caller says, the file's metadata, or the tensors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/pool_choice.h"

#include <string.h>

#include "base/status.h"

/* As metadata names them; timm's words for its argument global_pool are among them. */
static const struct {
  const char *word;
  int32_t pool;
} words[] = {
    {"class", DLORA_POOL_CLASS},         {"token", DLORA_POOL_CLASS},
    {"cls", DLORA_POOL_CLASS},           {"mean-patches", DLORA_POOL_MEAN_PATCHES},
    {"avg", DLORA_POOL_MEAN_PATCHES},    {"mean-tokens", DLORA_POOL_MEAN_TOKENS},
    {"distilled", DLORA_POOL_DISTILLED}, {"attention", DLORA_POOL_ATTENTION},
    {"map", DLORA_POOL_ATTENTION},
};

static const char *const names_of_pools[] = {"CLASS", "MEAN_PATCHES", "MEAN_TOKENS", "DISTILLED", "ATTENTION"};

/* What a pool needs and this backbone lacks, or NULL. */
static const char *lacking(const struct dli_vit *vit, int32_t pool) {
  if (pool == DLORA_POOL_CLASS && !vit->has_class_token) return "a class token";
  if (pool == DLORA_POOL_DISTILLED && !(vit->has_class_token && vit->has_distillation_token)) {
    return "a distillation token";
  }
  if (pool == DLORA_POOL_ATTENTION) return "the tensors of attention that pools tokens";
  return NULL;
}

dlora_status dli_vit_choose_pool(struct dli_vit *vit, const struct dli_vit_names *names,
                                 const dlora_model_options *options) {
  const char *label = dli_tensors_label(names->tensors), *key = "pool";
  vit->pool = vit->has_class_token ? DLORA_POOL_CLASS : DLORA_POOL_MEAN_PATCHES;
  if (options->pool != DLORA_AUTO) {
    vit->pool = options->pool;
    if (!lacking(vit, vit->pool)) return DLORA_OK;
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: the option pool is DLORA_POOL_%s, but the file does not have %s", label,
                     names_of_pools[vit->pool], lacking(vit, vit->pool));
  }
  const char *text = dli_tensors_metadata(names->tensors, key);
  if (!text) text = dli_tensors_metadata(names->tensors, key = "global_pool");
  if (!text) return DLORA_OK;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (strcmp(text, words[i].word) != 0) continue;
    vit->pool = words[i].pool;
    if (!lacking(vit, vit->pool)) return DLORA_OK;
    return dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s is \"%.40s\", but the file does not have %s", label, key, text,
                     lacking(vit, vit->pool));
  }
  return dli_raise(
      DLORA_ERR_UNSUPPORTED,
      "%s: metadata %s is \"%.40s\", expected class, mean-patches, mean-tokens, distilled or attention; the "
      "option pool sets another one",
      label, key, text);
}
