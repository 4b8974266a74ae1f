/* Names of linear layers, for what is exchanged with other libraries: the file's, and those of modules in memory, which
 * differ from them since transformers 5.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/layers.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

/* Modules of transformers 5 by naming, where they are not named as in files: the block, then the layer in it. */
static const struct modules {
  const char *block, *attention[3], *output, *fc1, *gate, *up, *fc2, *gated_fc2;
} modules[] = {
#define PROJECTIONS {"attention.q_proj", "attention.k_proj", "attention.v_proj"}, "attention.o_proj"
#define GATED "mlp.gate_proj", "mlp.up_proj"
    [DLORA_NAMING_HF_VIT] = {"layers.%zu.", PROJECTIONS, "mlp.fc1", GATED, "mlp.fc2", "mlp.down_proj"},
    [DLORA_NAMING_HF_DINOV2] = {"encoder.layer.%zu.", PROJECTIONS, "mlp.fc1", GATED, "mlp.fc2", "mlp.down_proj"},
    [DLORA_NAMING_HF_DINOV3] = {"model.layer.%zu.", PROJECTIONS, "mlp.up_proj", GATED, "mlp.down_proj",
                                "mlp.down_proj"},
};

static const char *find_module(const struct modules *m, int32_t projection, bool gated, size_t part) {
  switch (projection) {
    case DLORA_SITE_QUERY:
      return m->attention[0];
    case DLORA_SITE_KEY:
      return m->attention[1];
    case DLORA_SITE_VALUE:
      return m->attention[2];
    case DLORA_SITE_OUTPUT:
      return m->output;
    case DLORA_SITE_FC1:
      return !gated ? m->fc1 : part == 0 ? m->gate : m->up;
    default:
      return gated ? m->gated_fc2 : m->fc2;
  }
}

static bool has_layer(const struct dli_vit_names *names, const char *pattern, size_t block) {
  char name[DLI_NAME_SIZE];
  if (!pattern) return false;
  dli_vit_name(names, name, pattern, block, ".weight");
  return dli_tensors_find(names->tensors, name) != NULL;
}

bool dli_vit_layer_of(const struct dli_vit *vit, const struct dli_vit_names *names, size_t block, int32_t projection,
                      size_t part, struct dli_vit_layer *out) {
  const struct dli_vit_naming *n = names->naming;
  const struct modules *known = (size_t)vit->naming < sizeof modules / sizeof *modules ? &modules[vit->naming] : NULL;
  if (known && !known->block) known = NULL;
  const bool gated = vit->fc1_dim != vit->mlp_dim, split = gated && has_layer(names, n->gate, block);
  /* Transformers has gate and up in modules of their own even where the file has them in one tensor. */
  const bool halves = projection == DLORA_SITE_FC1 && (split || (gated && known));
  const char *pattern = n->fc1, *scale = NULL;
  if (part > (halves ? 1u : 0u)) return false;
  *out = (struct dli_vit_layer){.rows = vit->dim, .cols = vit->dim, .rows_of_file = vit->dim};
  if (projection == DLORA_SITE_QUERY || projection == DLORA_SITE_KEY || projection == DLORA_SITE_VALUE) {
    const size_t place = projection == DLORA_SITE_QUERY ? 0 : projection == DLORA_SITE_KEY ? 1 : 2;
    const char *const apart[] = {n->query, n->key, n->value};
    pattern = n->qkv ? n->qkv : apart[place];
    if (n->qkv) {
      out->row_in_file = place * vit->dim;
      out->rows_of_file = 3 * vit->dim;
    }
  } else if (projection == DLORA_SITE_OUTPUT) {
    pattern = n->output;
    scale = n->scale1;
  } else if (projection == DLORA_SITE_FC1) {
    out->rows = halves ? vit->mlp_dim : vit->fc1_dim;
    out->from = part * vit->mlp_dim;
    out->row_in_file = split ? 0 : out->from;
    out->rows_of_file = split ? out->rows : vit->fc1_dim;
    if (split) pattern = part == 0 ? n->gate : n->up;
  } else {
    DLI_ASSERT(projection == DLORA_SITE_FC2);
    pattern = n->fc2;
    scale = n->scale2;
    out->cols = vit->mlp_dim;
  }
  char weight[DLI_NAME_SIZE];
  dli_vit_name(names, weight, pattern, block, ".weight"); /* with the suffix, so that the name that exists is taken */
  const size_t length = strlen(weight) - strlen(".weight"), prefix = strlen(names->prefixes[names->prefix]);
  snprintf(out->in_file, sizeof out->in_file, "%.*s", (int)length, weight);
  if (known) {
    char front[64];
    const char *mark = strstr(known->block, "%zu");
    snprintf(front, sizeof front, "%.*s%zu%s", (int)(mark - known->block), known->block, block, mark + 3);
    snprintf(out->module, sizeof out->module, "%s%s", front, find_module(known, projection, gated, part));
    out->rows_of_module = out->rows;
  } else {
    memcpy(out->module, out->in_file + prefix, length - prefix + 1);
    out->row_in_module = out->row_in_file;
    out->rows_of_module = out->rows_of_file;
  }
  if (!scale) return true;
  dli_vit_name(names, out->scale, scale, block, "");
  if (!dli_tensors_find(names->tensors, out->scale)) out->scale[0] = '\0';
  return true;
}
