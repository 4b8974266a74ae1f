/* What a learner has learnt as a LoRA of PEFT: dlora_learner_export_peft.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A LoRA adds (alpha / r) B A to the weight of a linear layer; alpha is r here. Three things differ from the bank:
 *
 *   - M is kept as a matrix, so its factors are recovered (linalg/low_rank.h).
 *   - Layer scales are folded into the library's weights, and with them into updates; a LoRA acts before the scale.
 *   - timm has query, key and value in one layer. Their updates become one LoRA: the rows of A below each other, the
 *     columns of B beside each other, each non-zero in the rows of its own projection. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/low_rank.h"
#include "src/bank/bank.h"
#include "src/interop/folder.h"

/* The update of one layer. */
struct lora {
  struct dli_vit_layer layer;
  size_t rank;
  float *a; /* [rank, cols] */
  float *b; /* [rows_of_module, rank] */
};

enum { MOST_LAYERS = 7 }; /* of a block that are adapted: query, key, value, output, gate, up, fc2 */

struct export {
  const dlora_learner *learner;
  const dlora_allocator *allocator;
  struct dli_vit_names names;
  int64_t task;
  size_t num;
  struct lora *loras; /* [MOST_LAYERS * depth] */
};

/* Factors of what a site adds: M, or one task's residual adapter. *rank 0: nothing. To be freed, also on failure. */
static dlora_status factors(const struct export *e, size_t index, size_t *rank, float **a, float **b) {
  const dlora_bank *bank = e->learner->bank;
  const dlora_site *site = &bank->sites[index];
  *rank = 0;
  if (e->task < 0) {
    const float *merged = bank->merged[index];
    const size_t least = site->input_dim < site->output_dim ? site->input_dim : site->output_dim;
    if (!merged) return DLORA_OK;
    DLI_TRY(DLI_NEW(e->allocator, *a, least * site->input_dim));
    DLI_TRY(DLI_NEW(e->allocator, *b, least * site->output_dim));
    return dli_low_rank(e->allocator, site->output_dim, site->input_dim, merged, rank, *a, *b);
  }
  const dlora_adapter *adapter = dli_bank_adapter(bank, (size_t)e->task, index);
  if (!adapter) return DLORA_OK;
  DLI_TRY(DLI_NEW(e->allocator, *a, adapter->rank * site->input_dim));
  DLI_TRY(DLI_NEW(e->allocator, *b, adapter->rank * site->output_dim));
  memcpy(*a, adapter->a, adapter->rank * site->input_dim * sizeof **a);
  memcpy(*b, adapter->b, adapter->rank * site->output_dim * sizeof **b);
  *rank = adapter->rank;
  return DLORA_OK;
}

/* Adds a site's update, or the rows of it that `layer` has, to a LoRA, whose ranks so far come first. */
static dlora_status append(const struct export *e, struct lora *lora, const struct dli_vit_layer *layer, size_t index) {
  const dlora_site *site = &e->learner->bank->sites[index];
  const size_t in = site->input_dim, out = site->output_dim, first = layer->row_in_module;
  const size_t rows = layer->rows_of_module;
  float *a = NULL, *b = NULL, *larger_a = NULL, *larger_b = NULL;
  size_t rank = 0;
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(factors(e, index, &rank, &a, &b));
  if (rank == 0) goto done;
  DLI_TRY_DONE(dli_undo_scale(e->learner->model, layer, out, rank, b, e->allocator));
  const size_t total = lora->rank + rank;
  DLI_TRY_DONE(DLI_NEW(e->allocator, larger_a, total * in));
  DLI_TRY_DONE(DLI_NEW(e->allocator, larger_b, rows * total));
  if (lora->rank > 0) memcpy(larger_a, lora->a, lora->rank * in * sizeof *a);
  memcpy(larger_a + lora->rank * in, a, rank * in * sizeof *a);
  for (size_t i = 0; i < rows; i++) {
    if (lora->rank > 0) memcpy(larger_b + i * total, lora->b + i * lora->rank, lora->rank * sizeof *b);
    if (i < first || i >= first + layer->rows) continue;
    memcpy(larger_b + i * total + lora->rank, b + (layer->from + i - first) * rank, rank * sizeof *b);
  }
  dli_free(e->allocator, lora->a);
  dli_free(e->allocator, lora->b);
  lora->a = larger_a;
  lora->b = larger_b;
  lora->rank = total;
  larger_a = larger_b = NULL;
done:
  dli_free(e->allocator, larger_a);
  dli_free(e->allocator, larger_b);
  dli_free(e->allocator, a);
  dli_free(e->allocator, b);
  return status;
}

/* Part of a projection's update: to the LoRA of the last layer where that is the same one, or to a new one. */
static dlora_status add(struct export *e, const struct dli_vit_layer *layer, size_t index) {
  struct lora *last = e->num > 0 ? &e->loras[e->num - 1] : NULL;
  if (last && strcmp(last->layer.module, layer->module) == 0) return append(e, last, layer, index);
  struct lora *next = &e->loras[e->num];
  next->layer = *layer;
  DLI_TRY(append(e, next, layer, index));
  if (next->rank > 0) e->num++;
  return DLORA_OK;
}

static dlora_status gather(struct export *e) {
  const struct dli_vit *vit = &e->learner->model->vit;
  DLI_TRY(DLI_NEW(e->allocator, e->loras, MOST_LAYERS * vit->depth));
  for (size_t block = 0; block < vit->depth; block++) {
    for (int32_t projection = DLORA_SITE_QUERY; projection <= DLORA_SITE_FC2; projection *= 2) {
      struct dli_vit_layer layer;
      size_t index;
      if (!dli_find_site(e->learner->bank, block, projection, &index)) continue;
      for (size_t part = 0; dli_vit_layer_of(vit, &e->names, block, projection, part, &layer); part++) {
        DLI_TRY(add(e, &layer, index));
      }
    }
  }
  if (e->num > 0) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE, "there is nothing to export: no finished task has %s",
                   e->task < 0 ? "changed what every image sees" : "a residual adapter of that number");
}

/* "<module>": rank of each layer, as a JSON object. */
static dlora_status write_ranks(const struct export *e, struct dli_text *text) {
  for (size_t i = 0; i < e->num; i++) {
    DLI_TRY(dli_json_plain(text, i == 0 ? "{\n    " : ",\n    "));
    DLI_TRY(dli_text_append_string(text, e->loras[i].layer.module));
    DLI_TRY(dli_json_plain(text, ": "));
    DLI_TRY(dli_text_append_size(text, e->loras[i].rank));
  }
  return dli_json_plain(text, "\n  }");
}

static dlora_status write_config(const struct export *e, struct dli_text *text) {
  size_t largest = 0;
  for (size_t i = 0; i < e->num; i++) largest = e->loras[i].rank > largest ? e->loras[i].rank : largest;
  DLI_TRY(dli_json_plain(text,
                         "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": null,\n  \"base_model_name_or_path\": "
                         "null,\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n"
                         "  \"init_lora_weights\": true,\n  \"lora_dropout\": 0.0,\n  \"modules_to_save\": null,\n"
                         "  \"use_dora\": false,\n  \"use_rslora\": false,\n  \"r\": "));
  DLI_TRY(dli_text_append_size(text, largest));
  DLI_TRY(dli_json_plain(text, ",\n  \"lora_alpha\": "));
  DLI_TRY(dli_text_append_size(text, largest));
  DLI_TRY(dli_json_plain(text, ",\n  \"target_modules\": ["));
  for (size_t i = 0; i < e->num; i++) {
    DLI_TRY(dli_json_plain(text, i == 0 ? "\n    " : ",\n    "));
    DLI_TRY(dli_text_append_string(text, e->loras[i].layer.module));
  }
  DLI_TRY(dli_json_plain(text, "\n  ],\n  \"rank_pattern\": "));
  DLI_TRY(write_ranks(e, text));
  DLI_TRY(dli_json_plain(text, ",\n  \"alpha_pattern\": "));
  DLI_TRY(write_ranks(e, text));
  return dli_json_plain(text, "\n}\n");
}

static dlora_status write_tensors(const struct export *e, struct dli_writer *writer) {
  char name[2 * DLI_NAME_SIZE];
  DLI_TRY(dli_writer_set_metadata(writer, "format", "pt"));
  for (size_t i = 0; i < e->num; i++) {
    const struct lora *lora = &e->loras[i];
    snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", lora->layer.module);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, (size_t[]){lora->rank, lora->layer.cols}, lora->a));
    snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", lora->layer.module);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, (size_t[]){lora->layer.rows_of_module, lora->rank}, lora->b));
  }
  return DLORA_OK;
}

dlora_status dlora_learner_export_peft(const dlora_learner *learner, const char *folder, int64_t task) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(folder);
  struct export e = {.learner = learner, .allocator = &learner->allocator, .task = task};
  struct dli_text text = {.allocator = e.allocator};
  struct dli_writer *writer = NULL;
  char path[DLI_PATH_SIZE];
  dlora_status status = DLORA_OK;
  if (task < DLORA_AUTO || task >= (int64_t)dlora_learner_num_tasks(learner)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: task %lld is neither DLORA_AUTO nor one of %zu finished tasks", __func__,
                     (long long)task, dlora_learner_num_tasks(learner));
  }
  DLI_TRY_DONE(dli_vit_names_find(&e.names, learner->model->tensors, learner->model->vit.name_prefix));
  DLI_TRY_DONE(gather(&e));
  DLI_TRY_DONE(write_config(&e, &text));
  DLI_TRY_DONE(dli_writer_create(&writer, e.allocator));
  DLI_TRY_DONE(write_tensors(&e, writer));
  DLI_TRY_DONE(dli_folder_make(folder));
  DLI_TRY_DONE(dli_folder_path(path, folder, "adapter_model.safetensors"));
  DLI_TRY_DONE(dli_writer_save(writer, path));
  DLI_TRY_DONE(dli_folder_write(folder, "adapter_config.json", &text, e.allocator));
done:
  dli_writer_destroy(writer);
  dli_text_free(&text);
  for (size_t i = 0; e.loras && i < MOST_LAYERS * learner->model->vit.depth; i++) {
    dli_free(e.allocator, e.loras[i].a);
    dli_free(e.allocator, e.loras[i].b);
  }
  dli_free(e.allocator, e.loras);
  return status;
}
