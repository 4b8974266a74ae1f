/* Merges a LoRA of PEFT into the weights of a backbone as it is loaded: W + (alpha / r) B A at each layer that it
 * names.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   1   adapter_config.json: how B A is scaled; kinds of adapters that compute something else are refused
 *   2   for each projection the pair of tensors of its layer, by the name of the module or of the layer in the file,
 *       whatever precedes it; the rows that are the projection's are added to a copy of its weight
 *   3   no tensor is left that would have changed the features */
#include <cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/json_file.h"
#include "linalg/matrix.h"
#include "vit/layers.h"
#include "vit/loader.h"

enum { PATH_SIZE = 4096 };

struct lora {
  struct dli_vit_loader *loader;
  char label[PATH_SIZE]; /* of adapter_config.json */
  cJSON *config;
  struct dli_tensors *tensors;
  bool *used; /* [number of tensors] */
  double rank, alpha;
  bool by_root;                /* scaled by alpha / sqrt(r) */
  const cJSON *ranks, *alphas; /* by module, or NULL */
};

/* ---- adapter_config.json ---- */

static dlora_status read_number(const struct lora *l, const char *name, double *out) {
  const cJSON *value;
  DLI_TRY(dli_json_member(l->config, name, l->label, &value));
  if (cJSON_IsNumber(value) && value->valuedouble > 0.0 && value->valuedouble < 1e9) {
    *out = value->valuedouble;
    return DLORA_OK;
  }
  return dli_raise(DLORA_ERR_FORMAT, "%s: %s is %s, expected a number above 0", l->label, name,
                   value ? "no such number" : "missing");
}

/* A member that must be absent, null, false or this word, because anything else is computed in another way. */
static dlora_status refuse(const struct lora *l, const char *name, const char *word) {
  const cJSON *value;
  DLI_TRY(dli_json_member(l->config, name, l->label, &value));
  if (!value || cJSON_IsFalse(value) || (word && cJSON_IsString(value) && strcmp(value->valuestring, word) == 0)) {
    return DLORA_OK;
  }
  return dli_raise(
      DLORA_ERR_UNSUPPORTED,
      "%s: an adapter with %s is not supported; merge it into the weights with peft (merge_and_unload) and "
      "save these",
      l->label, name);
}

/* "rank_pattern" or "alpha_pattern": module names, each of which PEFT takes as a regular expression. */
static dlora_status read_pattern(const struct lora *l, const char *name, const cJSON **out) {
  DLI_TRY(dli_json_member(l->config, name, l->label, out));
  if (!*out) return DLORA_OK;
  if (!cJSON_IsObject(*out)) return dli_raise(DLORA_ERR_FORMAT, "%s: %s is no object", l->label, name);
  for (const cJSON *item = (*out)->child; item; item = item->next) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble > 0.0 && item->valuedouble < 1e9)) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: %s of %.100s is no number above 0", l->label, name, item->string);
    }
    if (strpbrk(item->string, "^$*+?()[]{}|\\")) {
      return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: %s has the expression %.100s, only names of modules are supported",
                       l->label, name, item->string);
    }
  }
  return DLORA_OK;
}

static dlora_status read_config(struct lora *l) {
  const cJSON *type, *by_root;
  DLI_TRY(dli_json_member(l->config, "peft_type", l->label, &type));
  if (!cJSON_IsString(type) || strcmp(type->valuestring, "LORA") != 0) {
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: peft_type is %.40s, expected LORA", l->label,
                     cJSON_IsString(type) ? type->valuestring : "missing");
  }
  const struct {
    const char *name, *word;
  } others[] = {{"use_dora", NULL},
                {"bias", "none"},
                {"fan_in_fan_out", NULL},
                {"lora_bias", NULL},
                {"layer_replication", NULL},
                {"megatron_config", NULL},
                {"target_parameters", NULL},
                {"trainable_token_indices", NULL},
                {"use_qalora", NULL},
                {"use_bdlora", NULL},
                {"alora_invocation_tokens", NULL}};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) DLI_TRY(refuse(l, others[i].name, others[i].word));
  DLI_TRY(read_number(l, "r", &l->rank));
  DLI_TRY(read_number(l, "lora_alpha", &l->alpha));
  DLI_TRY(dli_json_member(l->config, "use_rslora", l->label, &by_root));
  l->by_root = cJSON_IsTrue(by_root);
  DLI_TRY(read_pattern(l, "rank_pattern", &l->ranks));
  return read_pattern(l, "alpha_pattern", &l->alphas);
}

/* Whether a dotted name is this one or ends in it. */
static bool ends_in(const char *name, size_t length, const char *end) {
  const size_t size = strlen(end);
  return length >= size && strncmp(name + length - size, end, size) == 0 &&
         (length == size || name[length - size - 1] == '.');
}

static double by_module(const cJSON *pattern, const char *module, size_t length, double otherwise) {
  for (const cJSON *item = pattern ? pattern->child : NULL; item; item = item->next) {
    if (ends_in(module, length, item->string)) return item->valuedouble;
  }
  return otherwise;
}

/* ---- tensors ---- */

/* The tensor whose name is "...<module>.<factor>.weight"; *length: of "...<module>". */
static const struct dli_tensor *find_factor(const struct lora *l, const char *module, const char *factor,
                                            size_t *length, size_t *index) {
  char suffix[32];
  const int size = snprintf(suffix, sizeof suffix, ".%s.weight", factor);
  for (*index = 0; *index < dli_tensors_count(l->tensors); ++*index) {
    const struct dli_tensor *tensor = dli_tensors_at(l->tensors, *index);
    const size_t all = strlen(tensor->name);
    if (all < (size_t)size || strcmp(tensor->name + all - size, suffix) != 0) continue;
    *length = all - (size_t)size;
    if (ends_in(tensor->name, *length, module)) return tensor;
  }
  return NULL;
}

/* The weight as an array of the model's own, which may be changed. */
static dlora_status own(struct dli_vit_loader *loader, struct dli_weight *weight, float **out) {
  const struct dli_vit *vit = loader->vit;
  for (size_t i = 0; i < vit->num_owned; i++) {
    if (vit->owned[i] != weight->data) continue;
    *out = vit->owned[i];
    return DLORA_OK;
  }
  DLI_TRY(dli_vit_keep(loader, weight->rows * weight->cols, out));
  memcpy(*out, weight->data, weight->rows * weight->cols * sizeof **out);
  weight->data = *out;
  return DLORA_OK;
}

/* Adds rows [row, row + layer->rows) of scale * B A to rows [first, ...) of a weight, times the layer scale. */
static dlora_status add_product(const struct lora *l, const struct dli_vit_layer *layer, const struct dli_tensor *a,
                                const struct dli_tensor *b, size_t row, double scale, size_t first,
                                struct dli_weight *weight) {
  const dlora_allocator *allocator = l->loader->allocator;
  const size_t rank = a->shape[0], in = layer->cols, rows = layer->rows;
  float *fa = NULL, *fb = NULL, *product = NULL, *channel = NULL, *w;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, fa, a->count));
  DLI_TRY_DONE(DLI_NEW(allocator, fb, b->count));
  DLI_TRY_DONE(DLI_NEW(allocator, product, rows * in));
  DLI_TRY_DONE(dli_tensor_to_float(l->tensors, a, fa));
  DLI_TRY_DONE(dli_tensor_to_float(l->tensors, b, fb));
  if (layer->scale[0]) {
    DLI_TRY_DONE(DLI_NEW(allocator, channel, rows));
    DLI_TRY_DONE(dli_tensor_to_float(l->loader->tensors, dli_tensors_find(l->loader->tensors, layer->scale), channel));
  }
  DLI_TRY_DONE(own(l->loader, weight, &w));
  dli_gemm_nn(rows, in, rank, (float)scale, fb + row * rank, rank, fa, in, 0.0f, product, in);
  for (size_t i = 0; i < rows; i++) {
    const float by = channel ? channel[i] : 1.0f;
    for (size_t j = 0; j < in; j++) w[(first + i) * in + j] += by * product[i * in + j];
  }
done:
  dli_free(allocator, channel);
  dli_free(allocator, product);
  dli_free(allocator, fb);
  dli_free(allocator, fa);
  return status;
}

/* The update of one layer under one of its names, if there is one. */
static dlora_status add_named(const struct lora *l, const struct dli_vit_layer *layer, const char *name, size_t row,
                              size_t all_rows, size_t first, struct dli_weight *weight, bool *done) {
  const char *label = dli_tensors_label(l->tensors);
  size_t length = 0, of_b, index_a, index_b;
  const struct dli_tensor *a = find_factor(l, name, "lora_A", &length, &index_a);
  *done = a != NULL;
  if (!a) return DLORA_OK;
  const struct dli_tensor *b = find_factor(l, name, "lora_B", &of_b, &index_b);
  const bool fits = a->num_dims == 2 && a->shape[1] == layer->cols && a->shape[0] > 0;
  if (!b || !fits || b->num_dims != 2 || b->shape[0] != all_rows || b->shape[1] != a->shape[0]) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s and its lora_B are no factors of a [%zu, %zu] matrix", label,
                     a->name, all_rows, layer->cols);
  }
  const double rank = by_module(l->ranks, a->name, length, l->rank);
  if (rank != (double)a->shape[0]) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has rank %zu, %s says %g", label, a->name, a->shape[0], l->label,
                     rank);
  }
  const double alpha = by_module(l->alphas, a->name, length, l->alpha);
  l->used[index_a] = l->used[index_b] = true;
  return add_product(l, layer, a, b, row, alpha / (l->by_root ? sqrt(rank) : rank), first, weight);
}

static dlora_status add_layer(const struct lora *l, size_t block, int32_t projection,
                              const struct dli_vit_layer *layer) {
  struct dli_vit_block *w = &l->loader->vit->blocks[block];
  const size_t dim = l->loader->vit->dim;
  struct dli_weight *weight = projection == DLORA_SITE_OUTPUT ? &w->output
                              : projection == DLORA_SITE_FC1  ? &w->fc1
                              : projection == DLORA_SITE_FC2  ? &w->fc2
                                                              : &w->qkv;
  const size_t first = projection == DLORA_SITE_KEY ? dim : projection == DLORA_SITE_VALUE ? 2 * dim : layer->from;
  const char *in_file = layer->in_file + strlen(l->loader->names.prefixes[l->loader->names.prefix]);
  bool done;
  DLI_TRY(add_named(l, layer, layer->module, layer->row_in_module, layer->rows_of_module, first, weight, &done));
  if (done || strcmp(in_file, layer->module) == 0) return DLORA_OK;
  return add_named(l, layer, in_file, layer->row_in_file, layer->rows_of_file, first, weight, &done);
}

/* What reads the features, saved beside the factors (modules_to_save). */
static bool is_head(const char *name) {
  static const char *const heads[] = {"classifier", "score", "head", "fc", "pooler"};
  const char front[] = "base_model.model.";
  if (strncmp(name, front, sizeof front - 1) == 0) name += sizeof front - 1;
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
    const size_t length = strlen(heads[i]);
    if (strncmp(name, heads[i], length) == 0 && name[length] == '.') return true;
  }
  return false;
}

static dlora_status merge(struct lora *l) {
  struct dli_vit *vit = l->loader->vit;
  bool any = false;
  DLI_TRY(DLI_NEW(l->loader->allocator, l->used, dli_tensors_count(l->tensors)));
  for (size_t block = 0; block < vit->depth; block++) {
    for (int32_t projection = DLORA_SITE_QUERY; projection <= DLORA_SITE_FC2; projection *= 2) {
      struct dli_vit_layer layer;
      for (size_t part = 0; dli_vit_layer_of(vit, &l->loader->names, block, projection, part, &layer); part++) {
        DLI_TRY(add_layer(l, block, projection, &layer));
      }
    }
  }
  for (size_t i = 0; i < dli_tensors_count(l->tensors); i++) {
    const char *name = dli_tensors_at(l->tensors, i)->name;
    any = any || l->used[i];
    if (l->used[i] || is_head(name)) continue;
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: tensor %s belongs to no projection of this backbone",
                     dli_tensors_label(l->tensors), name);
  }
  if (any) return DLORA_OK;
  return dli_raise(DLORA_ERR_FORMAT, "%s: has no update of a projection", dli_tensors_label(l->tensors));
}

dlora_status dli_vit_merge_lora(struct dli_vit_loader *loader, const char *folder) {
  struct lora l = {.loader = loader};
  char path[PATH_SIZE];
  dlora_status status = DLORA_OK;
  const int length = snprintf(l.label, sizeof l.label, "%s/adapter_config.json", folder);
  const int other = snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
  if (length < 0 || other < 0 || length >= PATH_SIZE || other >= PATH_SIZE) {
    return dli_raise(DLORA_ERR_ARGUMENT, "the option adapter is longer than %d bytes", PATH_SIZE - 32);
  }
  DLI_TRY_DONE(dli_json_read(&l.config, l.label, loader->allocator));
  DLI_TRY_DONE(read_config(&l));
  DLI_TRY_DONE(dli_tensors_open(&l.tensors, path, loader->allocator));
  DLI_TRY_DONE(merge(&l));
done:
  dli_tensors_close(l.tensors);
  dli_free(loader->allocator, l.used);
  cJSON_Delete(l.config);
  return status;
}
