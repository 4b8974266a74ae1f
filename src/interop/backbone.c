/* The backbone with what every image sees merged into it, and a classifier: dlora_learner_export_backbone.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The tensors of the backbone's file are copied as they are. Others take the place of three kinds:
 *
 *   - weights of adapted layers become W + M, in float32
 *   - positions become those of the grid that the library runs, which no one then has to resample
 *   - heads of the file give way to the Gaussian readout of the final feature, (3) of METHOD.md, divided by its
 *     temperature: softmax of its scores is p(component | z) */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "base/status.h"
#include "src/bank/bank.h"
#include "src/interop/folder.h"
#include "src/predictor/predictor.h"
#include "vit/settings.h"

/* Where a classifier reads final class tokens alone. */
static const struct kind {
  const char *model_type, *architecture; /* of config.json; NULL: timm's form */
  const char *prefix;                    /* of the backbone's tensors beside a classifier */
  const char *head;
  size_t inputs; /* of the classifier, in embed_dim: the class token, and patches that it must ignore */
} kinds[] = {
    [DLORA_NAMING_TIMM] = {NULL, "vit_base_patch16_224", "", "head", 1},
    [DLORA_NAMING_HF_VIT] = {"vit", "ViTForImageClassification", "vit.", "classifier", 1},
    [DLORA_NAMING_HF_DINOV2] = {"dinov2", "Dinov2ForImageClassification", "dinov2.", "classifier", 2},
};

/* Names below the backbone's prefix that a classifier of another task goes by. */
static const char *const heads[] = {"head.", "classifier.", "fc.", "pooler.", "pre_logits."};

struct export {
  const dlora_learner *learner;
  const dlora_allocator *allocator;
  const struct kind *kind;
  struct dli_vit_names names;
  struct dli_writer *writer;
  float **owned; /* [num_owned], until the file is written */
  size_t num_owned, max_owned;
  size_t num_labels; /* rows of the classifier */
  bool class_has_position;
};

static dlora_status keep(struct export *e, size_t count, float **out) {
  DLI_TRY(DLI_NEW(e->allocator, *out, count));
  e->owned[e->num_owned++] = *out;
  return DLORA_OK;
}

/* ---- tensors ---- */

/* Positions of the file that belong to tokens in front of the patches: 1, or 0 where it has them for patches alone. */
static size_t num_prefix_positions(const struct dli_tensor *tensor) {
  const size_t count = tensor->shape[1];
  size_t side = 0;
  while ((side + 1) * (side + 1) <= count) side++;
  return count - side * side; /* a square and one more is no square */
}

/* The positions in use: those of tokens in front of the patches from the file, the others resampled. The model has the
 * bias of the patch projection added to its own. */
static dlora_status add_positions(struct export *e, const char *name, const struct dli_tensor *tensor) {
  const dlora_model *model = e->learner->model;
  const struct dli_vit *vit = &model->vit;
  const size_t dim = vit->dim, patches = vit->grid * vit->grid, front = num_prefix_positions(tensor);
  char bias_name[DLI_NAME_SIZE];
  float *of_file, *bias, *out;
  dli_vit_name(&e->names, bias_name, e->names.naming->patch_bias, 0, "");
  const struct dli_tensor *bias_tensor = dli_tensors_find(model->tensors, bias_name);
  DLI_TRY(keep(e, tensor->count, &of_file));
  DLI_TRY(keep(e, dim, &bias));
  DLI_TRY(keep(e, (front + patches) * dim, &out));
  DLI_TRY(dli_tensor_to_float(model->tensors, tensor, of_file));
  if (bias_tensor) DLI_TRY(dli_tensor_to_float(model->tensors, bias_tensor, bias));
  e->class_has_position = front > 0;
  if (front > 0) memcpy(out, of_file, front * dim * sizeof *out);
  for (size_t i = 0; i < patches; i++) {
    for (size_t j = 0; j < dim; j++) out[(front + i) * dim + j] = vit->positions[i * dim + j] - bias[j];
  }
  return dli_writer_add(e->writer, name, DLI_F32, 3, (size_t[]){1, front + patches, dim}, out);
}

/* W + M of an adapted layer; *done false where the tensor is not the weight of one. */
static dlora_status add_merged(struct export *e, const char *name, const struct dli_tensor *tensor, bool *done) {
  const dlora_model *model = e->learner->model;
  const dlora_bank *bank = e->learner->bank;
  float *weight = NULL;
  *done = false;
  for (size_t i = 0; i < bank->num_sites; i++) {
    const dlora_site *site = &bank->sites[i];
    const size_t in = site->input_dim;
    struct dli_vit_layer layer;
    if (!bank->merged[i]) continue;
    for (size_t part = 0; dli_vit_layer_of(&model->vit, &e->names, (size_t)site->block, site->projection, part, &layer);
         part++) {
      char weight_name[DLI_NAME_SIZE + 8];
      float *update;
      snprintf(weight_name, sizeof weight_name, "%s.weight", layer.in_file);
      if (strcmp(weight_name, tensor->name) != 0) continue;
      if (!weight) {
        DLI_TRY(keep(e, tensor->count, &weight));
        DLI_TRY(dli_tensor_to_float(model->tensors, tensor, weight));
      }
      DLI_TRY(keep(e, layer.rows * in, &update));
      memcpy(update, bank->merged[i] + layer.from * in, layer.rows * in * sizeof *update);
      DLI_TRY(dli_undo_scale(model, &layer, layer.rows, in, update, e->allocator));
      float *rows = weight + layer.row_in_file * in;
      for (size_t j = 0; j < layer.rows * in; j++) rows[j] += update[j];
    }
  }
  if (!weight) return DLORA_OK;
  *done = true;
  return dli_writer_add(e->writer, name, DLI_F32, tensor->num_dims, tensor->shape, weight);
}

static bool is_head(const char *rest) {
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
    if (strncmp(rest, heads[i], strlen(heads[i])) == 0) return true;
  }
  return false;
}

static dlora_status add_backbone(struct export *e) {
  const struct dli_tensors *tensors = e->learner->model->tensors;
  const char *prefix = e->names.prefixes[e->names.prefix];
  char name[2 * DLI_NAME_SIZE], positions[DLI_NAME_SIZE];
  dli_vit_name(&e->names, positions, e->names.naming->positions, 0, "");
  for (size_t i = 0; i < dli_tensors_count(tensors); i++) {
    const struct dli_tensor *tensor = dli_tensors_at(tensors, i);
    const char *rest = tensor->name + strlen(prefix);
    if (strncmp(tensor->name, prefix, strlen(prefix)) != 0 || is_head(rest)) continue;
    if (tensor->dtype != DLI_F32 && tensor->dtype != DLI_F16 && tensor->dtype != DLI_BF16) continue; /* not weights */
    bool done;
    snprintf(name, sizeof name, "%s%s", e->kind->prefix, rest);
    if (strcmp(tensor->name, positions) == 0) {
      DLI_TRY(add_positions(e, name, tensor));
      continue;
    }
    DLI_TRY(add_merged(e, name, tensor, &done));
    if (!done) DLI_TRY(dli_writer_add(e->writer, name, tensor->dtype, tensor->num_dims, tensor->shape, tensor->data));
  }
  return DLORA_OK;
}

static dlora_status add_classifier(struct export *e) {
  const dlora_predictor *statistics = e->learner->statistics[DLI_BASE];
  const size_t dim = e->learner->model->vit.dim, width = e->kind->inputs * dim;
  const float sharpness = 1.0f / dlora_predictor_temperature(statistics);
  char name[64];
  float *narrow, *weight, *bias;
  e->num_labels = dlora_predictor_num_components(statistics);
  DLI_TRY(keep(e, e->num_labels * dim, &narrow));
  DLI_TRY(keep(e, e->num_labels * width, &weight));
  DLI_TRY(keep(e, e->num_labels, &bias));
  DLI_TRY(dlora_predictor_linear_weights(statistics, e->learner->width - dim, dim, 0, narrow, bias));
  for (size_t i = 0; i < e->num_labels; i++) {
    for (size_t j = 0; j < dim; j++) weight[i * width + j] = sharpness * narrow[i * dim + j];
    bias[i] *= sharpness;
  }
  snprintf(name, sizeof name, "%s.weight", e->kind->head);
  DLI_TRY(dli_writer_add(e->writer, name, DLI_F32, 2, (size_t[]){e->num_labels, width}, weight));
  snprintf(name, sizeof name, "%s.bias", e->kind->head);
  return dli_writer_add(e->writer, name, DLI_F32, 1, (size_t[]){e->num_labels}, bias);
}

/* ---- config.json ---- */

static dlora_status add_size(struct dli_text *text, const char *key, size_t value) {
  DLI_TRY(dli_json_plain(text, ",\n  \""));
  DLI_TRY(dli_json_plain(text, key));
  DLI_TRY(dli_json_plain(text, "\": "));
  return dli_text_append_size(text, value);
}

static dlora_status add_float(struct dli_text *text, const char *key, float value) {
  char number[32];
  dli_float_format(value, number);
  DLI_TRY(dli_json_plain(text, ",\n  \""));
  DLI_TRY(dli_json_plain(text, key));
  DLI_TRY(dli_json_plain(text, "\": "));
  return dli_json_plain(text, number);
}

/* The name of a row of the classifier: the class's, or its id. */
static dlora_status add_label(const struct export *e, struct dli_text *text, size_t row) {
  const int64_t id = e->learner->class_index.component_classes[row];
  const char *name = dlora_learner_get_class_name(e->learner, id);
  char digits[24];
  snprintf(digits, sizeof digits, "%lld", (long long)id);
  return dli_text_append_string(text, name ? name : digits);
}

/* Where a class was learnt in several tasks it has a row for each, and one of them stands in label2id. */
static dlora_status add_labels(const struct export *e, struct dli_text *text) {
  const int64_t *classes = e->learner->class_index.component_classes;
  const char *separator = "";
  DLI_TRY(dli_json_plain(text, ",\n  \"id2label\": {"));
  for (size_t i = 0; i < e->num_labels; i++) {
    DLI_TRY(dli_json_plain(text, i == 0 ? "\n    \"" : ",\n    \""));
    DLI_TRY(dli_text_append_size(text, i));
    DLI_TRY(dli_json_plain(text, "\": "));
    DLI_TRY(add_label(e, text, i));
  }
  DLI_TRY(dli_json_plain(text, "\n  },\n  \"label2id\": {"));
  for (size_t i = 0; i < e->num_labels; i++) {
    bool repeated = false;
    for (size_t j = 0; j < i && !repeated; j++) repeated = classes[j] == classes[i];
    if (repeated) continue;
    DLI_TRY(dli_json_plain(text, separator));
    DLI_TRY(dli_json_plain(text, "\n    "));
    DLI_TRY(add_label(e, text, i));
    DLI_TRY(dli_json_plain(text, ": "));
    DLI_TRY(dli_text_append_size(text, i));
    separator = ",";
  }
  return dli_json_plain(text, "\n  }");
}

static bool has_scale(const struct export *e) {
  struct dli_vit_layer layer;
  dli_vit_layer_of(&e->learner->model->vit, &e->names, 0, DLORA_SITE_OUTPUT, 0, &layer);
  return layer.scale[0] != '\0';
}

static bool has_qkv_bias(const struct export *e) {
  struct dli_vit_layer layer;
  char name[DLI_NAME_SIZE + 8];
  dli_vit_layer_of(&e->learner->model->vit, &e->names, 0, DLORA_SITE_QUERY, 0, &layer);
  snprintf(name, sizeof name, "%s.bias", layer.in_file);
  return dli_tensors_find(e->learner->model->tensors, name) != NULL;
}

static dlora_status write_hugging_face(const struct export *e, struct dli_text *text) {
  const struct dli_vit *vit = &e->learner->model->vit;
  DLI_TRY(dli_json_plain(text, "{\n  \"model_type\": "));
  DLI_TRY(dli_text_append_string(text, e->kind->model_type));
  DLI_TRY(dli_json_plain(text, ",\n  \"architectures\": ["));
  DLI_TRY(dli_text_append_string(text, e->kind->architecture));
  DLI_TRY(dli_json_plain(text, "],\n  \"hidden_act\": \"gelu\",\n  \"qkv_bias\": "));
  DLI_TRY(dli_json_plain(text, has_qkv_bias(e) ? "true" : "false"));
  DLI_TRY(add_size(text, "hidden_size", vit->dim));
  DLI_TRY(add_size(text, "num_hidden_layers", vit->depth));
  DLI_TRY(add_size(text, "num_attention_heads", vit->heads));
  DLI_TRY(add_size(text, "intermediate_size", vit->mlp_dim));
  if (vit->mlp_dim % vit->dim == 0) DLI_TRY(add_size(text, "mlp_ratio", vit->mlp_dim / vit->dim)); /* DINOv2 reads it */
  DLI_TRY(add_float(text, "layer_norm_eps", vit->eps));
  DLI_TRY(add_size(text, "image_size", vit->image_size));
  DLI_TRY(add_size(text, "patch_size", vit->patch_size));
  DLI_TRY(add_size(text, "num_channels", 3));
  DLI_TRY(add_labels(e, text));
  return dli_json_plain(text, "\n}\n");
}

/* timm makes any plain Vision Transformer out of a named one and arguments. */
static dlora_status write_timm(const struct export *e, struct dli_text *text) {
  const struct dli_vit *vit = &e->learner->model->vit;
  DLI_TRY(dli_json_plain(text, "{\n  \"architecture\": "));
  DLI_TRY(dli_text_append_string(text, e->kind->architecture));
  DLI_TRY(add_size(text, "num_classes", e->num_labels));
  DLI_TRY(add_size(text, "num_features", vit->dim));
  DLI_TRY(dli_json_plain(text, ",\n  \"global_pool\": \"token\",\n  \"model_args\": {\n  \"qkv_bias\": "));
  DLI_TRY(dli_json_plain(text, has_qkv_bias(e) ? "true" : "false"));
  DLI_TRY(add_size(text, "img_size", vit->image_size));
  DLI_TRY(add_size(text, "patch_size", vit->patch_size));
  DLI_TRY(add_size(text, "embed_dim", vit->dim));
  DLI_TRY(add_size(text, "depth", vit->depth));
  DLI_TRY(add_size(text, "num_heads", vit->heads));
  DLI_TRY(add_float(text, "mlp_ratio", (float)vit->mlp_dim / (float)vit->dim));
  if (has_scale(e)) DLI_TRY(dli_json_plain(text, ",\n  \"init_values\": 1.0"));
  if (!e->class_has_position) DLI_TRY(dli_json_plain(text, ",\n  \"no_embed_class\": true"));
  DLI_TRY(dli_json_plain(text, "\n  },\n  \"pretrained_cfg\": {\n  \"tag\": \"duallora\""));
  DLI_TRY(add_size(text, "num_classes", e->num_labels));
  DLI_TRY(dli_json_plain(text, ",\n  \"input_size\": [3, "));
  DLI_TRY(dli_text_append_size(text, vit->image_size));
  DLI_TRY(dli_json_plain(text, ", "));
  DLI_TRY(dli_text_append_size(text, vit->image_size));
  DLI_TRY(dli_json_plain(text, "],\n  \"fixed_input_size\": true,\n  \"interpolation\": "));
  DLI_TRY(dli_text_append_string(text, dli_setting_word(DLI_SET_INTERPOLATION, vit->interpolation)));
  DLI_TRY(add_float(text, "crop_pct", vit->crop_fraction));
  DLI_TRY(dli_json_plain(text, ",\n  \"crop_mode\": "));
  DLI_TRY(dli_text_append_string(text, vit->resize == DLORA_RESIZE_SQUASH ? "squash" : "center"));
  DLI_TRY(
      dli_json_plain(text, ",\n  \"classifier\": \"head\",\n  \"first_conv\": \"patch_embed.proj\",\n  \"mean\": "));
  DLI_TRY(dli_json_floats(text, vit->mean, 3));
  DLI_TRY(dli_json_plain(text, ",\n  \"std\": "));
  DLI_TRY(dli_json_floats(text, vit->std, 3));
  DLI_TRY(dli_json_plain(text, "\n  },\n  \"label_names\": ["));
  for (size_t i = 0; i < e->num_labels; i++) {
    DLI_TRY(dli_json_plain(text, i == 0 ? "" : ", "));
    DLI_TRY(add_label(e, text, i));
  }
  return dli_json_plain(text, "]\n}\n");
}

/* Photos are resized as the model does it: both sides or the shorter one, and then the centre is cut out. */
static dlora_status write_preprocessor(const struct export *e, struct dli_text *text) {
  const struct dli_vit *vit = &e->learner->model->vit;
  const struct dli_image_format format = dli_vit_image_format(vit);
  const bool cuts = !format.squash || format.resized != format.image_size;
  DLI_TRY(dli_json_plain(text, "{\n  \"image_processor_type\": "));
  DLI_TRY(dli_text_append_string(text, cuts ? "BitImageProcessor" : "ViTImageProcessor"));
  DLI_TRY(dli_json_plain(text,
                         ",\n  \"do_resize\": true,\n  \"do_rescale\": true,\n  \"do_normalize\": true,\n"
                         "  \"rescale_factor\": 0.00392156862745098"));
  DLI_TRY(add_size(text, "resample", vit->interpolation == DLORA_INTERPOLATION_BILINEAR ? 2 : 3)); /* Pillow's */
  if (cuts) {
    DLI_TRY(dli_json_plain(text, ",\n  \"do_center_crop\": true,\n  \"crop_size\": {\"height\": "));
    DLI_TRY(dli_text_append_size(text, format.image_size));
    DLI_TRY(dli_json_plain(text, ", \"width\": "));
    DLI_TRY(dli_text_append_size(text, format.image_size));
    DLI_TRY(dli_json_plain(text, "}"));
  }
  DLI_TRY(dli_json_plain(text, format.squash ? ",\n  \"size\": {\"height\": " : ",\n  \"size\": {\"shortest_edge\": "));
  DLI_TRY(dli_text_append_size(text, format.resized));
  if (format.squash) {
    DLI_TRY(dli_json_plain(text, ", \"width\": "));
    DLI_TRY(dli_text_append_size(text, format.resized));
  }
  DLI_TRY(dli_json_plain(text, "},\n  \"image_mean\": "));
  DLI_TRY(dli_json_floats(text, vit->mean, 3));
  DLI_TRY(dli_json_plain(text, ",\n  \"image_std\": "));
  DLI_TRY(dli_json_floats(text, vit->std, 3));
  return dli_json_plain(text, "\n}\n");
}

static dlora_status write_all(struct export *e, const char *folder) {
  struct dli_text config = {.allocator = e->allocator}, preprocessor = {.allocator = e->allocator};
  char path[DLI_PATH_SIZE];
  dlora_status status = DLORA_OK;
  const bool timm = e->kind->model_type == NULL;
  DLI_TRY_DONE(add_backbone(e));
  DLI_TRY_DONE(add_classifier(e));
  DLI_TRY_DONE((timm ? write_timm : write_hugging_face)(e, &config));
  if (!timm) DLI_TRY_DONE(write_preprocessor(e, &preprocessor));
  DLI_TRY_DONE(dli_folder_make(folder));
  DLI_TRY_DONE(dli_folder_path(path, folder, "model.safetensors"));
  DLI_TRY_DONE(dli_writer_save(e->writer, path));
  if (!timm) DLI_TRY_DONE(dli_folder_write(folder, "preprocessor_config.json", &preprocessor, e->allocator));
  DLI_TRY_DONE(dli_folder_write(folder, "config.json", &config, e->allocator));
done:
  dli_text_free(&config);
  dli_text_free(&preprocessor);
  return status;
}

/* As in EVA: timm's plain networks have no such tensors. */
static bool has_biases_apart(const dlora_model *model) {
  char name[DLI_PREFIX_SIZE + 32];
  snprintf(name, sizeof name, "%sblocks.0.attn.q_bias", model->vit.name_prefix);
  return dli_tensors_find(model->tensors, name) != NULL;
}

/* Config files describe more kinds of networks than are known here. */
static dlora_status require_plain(const dlora_model *model) {
  const struct dli_vit *vit = &model->vit;
  const char *what = NULL;
  if ((size_t)vit->naming >= sizeof kinds / sizeof *kinds) what = "another family";
  if (vit->num_prefix_tokens != 1) what = "register or distillation tokens";
  if (vit->fc1_dim != vit->mlp_dim) what = "a gated MLP";
  if (vit->pre_norm_gain) what = "a norm in front of the blocks";
  if (vit->rotation) what = "rotary positions";
  if (vit->rms_norm) what = "RMS norms";
  if (has_biases_apart(model)) what = "biases of queries and values apart from their weights";
  if (!vit->norm_gain) what = "no norm of the tokens behind the last block";
  if (vit->pooled_gain) what = "a norm behind the pooled token";
  if (vit->pool != DLORA_POOL_CLASS) what = "another pooling than the class token";
  if (vit->activation != DLORA_ACTIVATION_GELU) what = "another activation than GELU";
  if (vit->inner_norm1 || vit->inner_norm2) what = "norms inside attention or the MLP";
  if (!what) return DLORA_OK;
  return dli_raise(DLORA_ERR_UNSUPPORTED,
                   "a whole backbone is exported of plain Vision Transformers with the names of timm, and of ViT and "
                   "DINOv2 of Hugging Face; this one has %s. Export a LoRA of it instead",
                   what);
}

dlora_status dlora_learner_export_backbone(const dlora_learner *learner, const char *folder) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(folder);
  struct export e = {.learner = learner, .allocator = &learner->allocator};
  const struct dli_vit *vit = &learner->model->vit;
  dlora_status status = DLORA_OK;
  if (dlora_learner_num_tasks(learner) == 0)
    return dli_raise(DLORA_ERR_STATE, "%s: there is nothing to export: no task is finished", __func__);
  DLI_TRY(require_plain(learner->model));
  e.kind = &kinds[vit->naming];
  if (!e.kind->model_type && vit->eps != 1e-6f) {
    return dli_raise(DLORA_ERR_UNSUPPORTED, "%s: layer_norm_eps %g cannot be told to timm, which has 1e-6", __func__,
                     (double)vit->eps);
  }
  DLI_TRY_DONE(dli_vit_names_find(&e.names, learner->model->tensors, vit->name_prefix));
  /* A weight and an update for each part of a site, three arrays for positions, three for the classifier. */
  e.max_owned = 2 * DLI_VIT_LAYER_PARTS * learner->bank->num_sites + 6;
  DLI_TRY_DONE(DLI_NEW(e.allocator, e.owned, e.max_owned));
  DLI_TRY_DONE(dli_writer_create(&e.writer, e.allocator));
  DLI_TRY_DONE(dli_writer_set_metadata(e.writer, "format", "pt"));
  DLI_TRY_DONE(write_all(&e, folder));
done:
  dli_writer_destroy(e.writer);
  for (size_t i = 0; i < e.num_owned; i++) dli_free(e.allocator, e.owned[i]);
  dli_free(e.allocator, e.owned);
  return status;
}
