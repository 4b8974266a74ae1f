/* What a backbone's file holds beside its backbone: every tensor is used, known to leave the features as they are, or
 * the file is refused by the tensor's name; of several Vision Transformers in a file one is chosen. And files of other
 * kinds that are handed over as backbones, checkpoints, banks or predictors.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

/* ---- a safetensors file that can be changed ---- */

struct entry {
  char name[128], dtype[8], shape[48];
  size_t begin, size;
};

struct archive {
  char metadata[256]; /* the object */
  struct entry entries[160];
  size_t count;
  unsigned char *data;
  size_t size;
};

static struct archive *archive_open(const char *file) {
  struct archive *archive = calloc(1, sizeof *archive);
  size_t size = 0, header = 0;
  unsigned char *bytes = test_read_file(test_data(file), &size);
  assert_non_null(archive);
  for (size_t i = 0; i < 8; i++) header |= (size_t)bytes[i] << 8 * i;
  char *text = calloc(1, header + 1);
  assert_non_null(text);
  memcpy(text, bytes + 8, header);
  assert_int_equal(sscanf(text, "{\"__metadata__\":%255[^}]", archive->metadata), 1);
  strcat(archive->metadata, "}");
  const char *at = strchr(text, '}') + 1;
  for (int used = 0; *at == ','; at += used) {
    struct entry *e = &archive->entries[archive->count++];
    size_t end = 0;
    assert_int_equal(
        sscanf(at, ",\"%127[^\"]\":{\"dtype\":\"%7[A-Z0-9]\",\"shape\":[%47[0-9,]],\"data_offsets\":[%zu,%zu]}%n",
               e->name, e->dtype, e->shape, &e->begin, &end, &used),
        5);
    e->size = end - e->begin;
  }
  archive->size = size - 8 - header;
  archive->data = malloc(archive->size);
  assert_non_null(archive->data);
  memcpy(archive->data, bytes + 8 + header, archive->size);
  free(text);
  free(bytes);
  return archive;
}

static void archive_close(struct archive *archive) {
  free(archive->data);
  free(archive);
}

/* A tensor of this many bytes, all of them 0x3D: 0.046 as F32 and as BF16. */
static void add(struct archive *archive, const char *name, const char *dtype, const char *shape, size_t size) {
  struct entry *e = &archive->entries[archive->count++];
  assert_true(archive->count <= sizeof archive->entries / sizeof *archive->entries);
  snprintf(e->name, sizeof e->name, "%s", name);
  snprintf(e->dtype, sizeof e->dtype, "%s", dtype);
  snprintf(e->shape, sizeof e->shape, "%s", shape);
  e->begin = archive->size;
  e->size = size;
  archive->data = realloc(archive->data, archive->size + size);
  assert_non_null(archive->data);
  memset(archive->data + archive->size, 0x3D, size);
  archive->size += size;
}

static void add_row(struct archive *archive, const char *name) {
  add(archive, name, "F32", "32", 128);
}

static struct entry *find(struct archive *archive, const char *name) {
  for (size_t i = 0; i < archive->count; i++) {
    if (strcmp(archive->entries[i].name, name) == 0) return &archive->entries[i];
  }
  fail_msg("no tensor %s", name);
  return NULL;
}

static void prepend(struct archive *archive, size_t first, const char *prefix) {
  for (size_t i = first; i < archive->count; i++) {
    char name[128];
    snprintf(name, sizeof name, "%s", archive->entries[i].name);
    assert_true(snprintf(archive->entries[i].name, sizeof archive->entries[i].name, "%.40s%.80s", prefix, name) < 128);
  }
}

/* All of the other's tensors under a prefix, their values changed unless same. */
static void add_tower(struct archive *archive, const char *file, const char *prefix, int same) {
  struct archive *other = archive_open(file);
  const size_t first = archive->count;
  for (size_t i = 0; i < other->count; i++) {
    const struct entry *e = &other->entries[i];
    add(archive, e->name, e->dtype, e->shape, e->size);
    if (same) memcpy(archive->data + archive->size - e->size, other->data + e->begin, e->size);
  }
  prepend(archive, first, prefix);
  archive_close(other);
}

static unsigned char *archive_bytes(const struct archive *archive, size_t *size) {
  char *header = calloc(1, 512 + 512 * archive->count);
  assert_non_null(header);
  size_t used = (size_t)sprintf(header, "{\"__metadata__\":%s", archive->metadata);
  for (size_t i = 0; i < archive->count; i++) {
    const struct entry *e = &archive->entries[i];
    used += (size_t)sprintf(header + used, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                            e->name, e->dtype, e->shape, e->begin, e->begin + e->size);
  }
  header[used++] = '}';
  while (used % 8) header[used++] = ' ';
  *size = 8 + used + archive->size;
  unsigned char *bytes = malloc(*size);
  assert_non_null(bytes);
  for (size_t i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)used >> 8 * i);
  memcpy(bytes + 8, header, used);
  memcpy(bytes + 8 + used, archive->data, archive->size);
  free(header);
  return bytes;
}

static dlora_model_options options_of(const char *prefix) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.num_heads = 2;
  options.prefix = prefix;
  return options;
}

/* What the backbone computes with, and its features of two pictures: 32 hexadecimal digits and [2, 32]. */
struct seen {
  char fingerprint[40];
  float features[2 * 32];
};

static struct seen see(const struct archive *archive, const char *prefix) {
  const dlora_model_options options = options_of(prefix);
  dlora_model_info info = {.struct_size = sizeof info};
  struct seen seen;
  uint8_t pixels[2 * 16 * 16 * 3];
  dlora_model *model = NULL;
  size_t size = 0;
  unsigned char *bytes = archive_bytes(archive, &size);
  for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * i % 251);
  const dlora_images images = {pixels, NULL, 2, 16, 16, 3};
  assert_status(DLORA_OK, dlora_model_load_memory(&model, bytes, size, &options));
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  assert_int_equal(info.embed_dim, 32);
  memcpy(seen.fingerprint, info.fingerprint, sizeof seen.fingerprint);
  assert_status(DLORA_OK, dlora_model_embed(model, &images, seen.features));
  dlora_model_destroy(model);
  free(bytes);
  return seen;
}

static void assert_same(const struct seen *a, const struct seen *b) {
  assert_string_equal(a->fingerprint, b->fingerprint);
  assert_memory_equal(a->features, b->features, sizeof a->features);
}

static void refuse(const struct archive *archive, const char *prefix, dlora_status expected, const char *culprit) {
  const dlora_model_options options = options_of(prefix);
  dlora_model *model = NULL;
  size_t size = 0;
  unsigned char *bytes = archive_bytes(archive, &size);
  assert_status(expected, dlora_model_load_memory(&model, bytes, size, &options));
  assert_null(model);
  assert_error_names(culprit);
  free(bytes);
}

/* ---- tensors that nothing uses ---- */

#define TIMM "tiny_timm_f32.safetensors"
#define HF_VIT "tiny_hf_vit_f32.safetensors"
#define HF_BARE "tiny_hf_bare_f16.safetensors"
#define HF_DINOV2 "tiny_hf_dinov2_f32.safetensors"

/* One more tensor, [32], and the file is refused with its name and with what it is. */
static void refuse_with(const char *file, const char *name, const char *what) {
  struct archive *archive = archive_open(file);
  add_row(archive, name);
  refuse(archive, NULL, DLORA_ERR_UNSUPPORTED, name);
  assert_error_names(what);
  archive_close(archive);
}

static void tensors_of_other_kinds_are_refused_by_name(void **state) {
  (void)state;
  static const char *const kinds[][3] = {
      {TIMM, "blocks.0.attn.q_bias", "EVA"},
      {TIMM, "blocks.1.attn.v_bias", "EVA"},
      {TIMM, "blocks.0.attn.k_bias", "BEiT"},
      {TIMM, "blocks.0.gamma_1", "layer scale"},
      {TIMM, "blocks.1.gamma_2", "layer scale"},
      {TIMM, "blocks.0.attn.norm.weight", "inside attention"},
      {TIMM, "blocks.0.mlp.norm.weight", "inside the MLP"},
      {TIMM, "blocks.0.attn.q_norm.weight", "norm of queries"},
      {TIMM, "blocks.1.attn.k_norm.weight", "norm of keys"},
      {TIMM, "blocks.0.attn.relative_position_bias_table", "relative positions"},
      {TIMM, "blocks.0.attn.rel_pos_h", "relative positions"},
      {TIMM, "rel_pos_bias.relative_position_bias_table", "relative positions"},
      {TIMM, "rope.freqs", "rotary"},
      {TIMM, "blocks.0.mlp.w12.weight", "SwiGLU"},
      {TIMM, "blocks.0.mlp.fc1_g.weight", "SwiGLU"},
      {TIMM, "norm.running_mean", "batch normalisation"},
      {TIMM, "blocks.0.norm1.num_batches_tracked", "batch normalisation"},
      {TIMM, "blocks.0.attn.qkv.lora_A.default.weight", "merge"},
      {HF_VIT, "vit.encoder.layer.0.lambda_1", "BEiT"},
      {HF_VIT, "vit.encoder.layer.0.attention.attention.relative_position_bias.relative_position_bias_table",
       "relative"},
      {HF_VIT, "vit.embeddings.register_tokens", "register tokens"},
      {HF_VIT, "vit.embeddings.detection_tokens", "YOLOS"},
      {HF_VIT, "vit.embeddings.text_embeddings.token_type_embeddings.weight", "ViLT"},
      {HF_VIT, "vit.pooler.layernorm.weight", "mean of all patches"},
      {HF_VIT, "vit.feature_layers.0.attention.q_proj.weight", "save_pretrained"},
      {HF_DINOV2, "encoder.layer.0.mlp.weights_in.weight", "SwiGLU"},
  };
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) refuse_with(kinds[i][0], kinds[i][1], kinds[i][2]);
}

/* What a family reads must have its shape, and all of it must be there. */
static void parts_of_what_is_supported_are_refused_by_name(void **state) {
  (void)state;
  static const char *const parts[][2] = {
      {TIMM, "reg_token"},
      {TIMM, "dist_token"},
      {HF_VIT, "vit.embeddings.distillation_token"},
      {HF_DINOV2, "embeddings.register_tokens"},
      {TIMM, "norm_pre.weight"},
  };
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    struct archive *archive = archive_open(parts[i][0]);
    add_row(archive, parts[i][1]);
    refuse(archive, NULL, DLORA_ERR_FORMAT, strstr(parts[i][1], "norm_pre") ? "norm_pre.bias" : parts[i][1]);
    archive_close(archive);
  }
}

/* Tensors that two supported families have, but no supported one together. */
static void kinds_in_disguise_are_refused(void **state) {
  (void)state;
  struct archive *archive = archive_open(TIMM);
  add_row(archive, "norm_pre.weight");
  add_row(archive, "attn_pool.latent");
  refuse(archive, NULL, DLORA_ERR_UNSUPPORTED, "norm_pre.weight beside attn_pool.latent");
  archive_close(archive);
  archive = archive_open(TIMM);
  snprintf(find(archive, "cls_token")->name, 128, "fc_norm.weight");
  refuse(archive, NULL, DLORA_ERR_UNSUPPORTED, "vit_base_patch16_rpn_224");
  archive_close(archive);
  archive = archive_open(TIMM);
  snprintf(find(archive, "norm.weight")->name, 128, "norm_pre.weight");
  snprintf(find(archive, "norm.bias")->name, 128, "norm_pre.bias");
  refuse(archive, NULL, DLORA_ERR_UNSUPPORTED, "norm_pre.weight without norm.weight");
  archive_close(archive);
  archive = archive_open(TIMM);
  snprintf(find(archive, "cls_token")->name, 128, "reg_token");
  snprintf(find(archive, "pos_embed")->name, 128, "blocks.0.gamma_1");
  refuse(archive, NULL, DLORA_ERR_UNSUPPORTED, "rotary positions");
  archive_close(archive);
}

/* In a block, beside the blocks, of a block behind a gap, and named nearly as one that is used or harmless. */
static void unknown_tensors_are_refused_by_name(void **state) {
  (void)state;
  static const char *const names[][2] = {
      {TIMM, "blocks.0.attn.gate"},
      {TIMM, "blocks.0.attn.qkv.scale"},
      {TIMM, "blocks.1.adapter.weight"},
      {TIMM, "blocks.9.norm1.weight"},
      {TIMM, "blocks.0.ls1.beta"},
      {TIMM, "prompt"},
      {TIMM, "heading"},
      {TIMM, "patch_embed.norm.weight"},
      {TIMM, "pooler.dense.weight"},
      {TIMM, "embeddings.mask_token"},
      {TIMM, "blocks.0.mask_token"},
      {TIMM, "blocks.0.head.weight"},
      {HF_VIT, "vit.encoder.layer.0.layer_scale1.lambda1"},
      {HF_VIT, "vit.mask_token"},
      {HF_VIT, "vit.embeddings.norm.weight"},
      {HF_BARE, "encoder.layer.1.attention.output.adapter.weight"},
      {HF_DINOV2, "encoder.layer.0.layer_scale3.lambda1"},
      {HF_DINOV2, "embeddings.scale"},
  };
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) refuse_with(names[i][0], names[i][1], "not known");
  refuse_with(HF_VIT, "encoder.layer.0.adapter.weight", "outside the Vision Transformer with the prefix 'vit.'");
  refuse_with(HF_VIT, "vitality", "the option prefix");
}

static void heads_and_other_towers_leave_the_features_alone(void **state) {
  (void)state;
  static const char *const names[][2] = {
      {TIMM, "mask_token"},
      {TIMM, "head.mlp.0.weight"},
      {TIMM, "head_dist.weight"},
      {TIMM, "head.last_layer.weight_g"},
      {TIMM, "head.1.running_mean"},
      {TIMM, "fc.weight"},
      {TIMM, "pre_logits.fc.weight"},
      {TIMM, "classifier.weight"},
      {TIMM, "decoder.weight"},
      {TIMM, "decoder_pos_embed"},
      {TIMM, "decoder_blocks.0.norm1.weight"},
      {TIMM, "decoder_embed.weight"},
      {TIMM, "text_model.encoder.feature_layers.0.norm1.weight"},
      {TIMM, "logit_scale"},
      {HF_VIT, "vit.embeddings.mask_token"},
      {HF_VIT, "vit.embeddings.position_ids"},
      {HF_VIT, "vit.pooler.dense.weight"},
      {HF_VIT, "decoder.0.weight"},
      {HF_VIT, "text_model.encoder.layer.0.layernorm_before.weight"},
      {HF_VIT, "visual_projection.weight"},
      {HF_VIT, "neck.0.weight"},
      {HF_BARE, "embeddings.position_ids"},
      {HF_DINOV2, "classifier.bias"},
  };
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    struct archive *archive = archive_open(names[i][0]);
    const struct seen plain = see(archive, NULL);
    add_row(archive, names[i][1]);
    const struct seen seen = see(archive, NULL);
    assert_same(&seen, &plain);
    archive_close(archive);
  }
  struct archive *archive = archive_open(HF_VIT); /* whatever its type and shape */
  const struct seen plain = see(archive, NULL);
  add(archive, "vit.embeddings.position_ids", "I64", "1,17", 136);
  const struct seen seen = see(archive, NULL);
  assert_same(&seen, &plain);
  archive_close(archive);
}

/* Every tensor of a file: as I64, and with one dimension more than it has. */
static void each_tensor_of_another_type_or_shape_is_refused_by_name(void **state) {
  (void)state;
  static const char *const files[] = {TIMM, "tiny_timm_layer_scale_f32.safetensors", HF_VIT, HF_DINOV2};
  for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
    struct archive *archive = archive_open(files[f]);
    const size_t count = archive->count;
    for (size_t i = 0; i < count; i++) {
      struct entry *e = &archive->entries[i];
      const struct entry kept = *e;
      if (strstr(e->name, "head.") || strstr(e->name, "classifier.") || strstr(e->name, "mask_token")) continue;
      snprintf(e->name, sizeof e->name, "head.moved");
      add(archive, kept.name, "I64", kept.shape, 2 * kept.size);
      refuse(archive, NULL, DLORA_ERR_UNSUPPORTED, kept.name);
      assert_error_names("I64");
      archive->count--;
      archive->size -= 2 * kept.size;
      *e = kept;
      assert_true(snprintf(e->shape, sizeof e->shape, "%.40s,1", kept.shape) < 48);
      refuse(archive, NULL, DLORA_ERR_FORMAT, kept.name);
      *e = kept;
    }
    archive_close(archive);
  }
}

/* ---- several Vision Transformers in a file ---- */

static void one_of_two_towers_is_chosen_by_its_prefix(void **state) {
  (void)state;
  struct archive *archive = archive_open(TIMM);
  const struct seen alone = see(archive, NULL);
  prepend(archive, 0, "student.backbone.");
  const struct seen student_alone = see(archive, NULL);
  assert_same(&student_alone, &alone);
  add_row(archive, "student.head.mlp.0.weight");
  add_tower(archive, TIMM, "teacher.backbone.", 0);
  add_row(archive, "teacher.head.mlp.0.weight");

  refuse(archive, NULL, DLORA_ERR_ARGUMENT, "'student.backbone.'");
  assert_error_names("'teacher.backbone.'");
  assert_error_names("prefix");
  const struct seen student = see(archive, "student.backbone."), teacher = see(archive, "teacher.backbone.");
  assert_same(&student, &alone);
  assert_string_not_equal(teacher.fingerprint, alone.fingerprint);
  const struct seen bare = see(archive, "student.backbone"); /* the full stop goes without saying */
  assert_same(&bare, &alone);

  static const char *const absent[] = {"", "student", "studen", "backbone.", "student.backbone.."};
  for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
    refuse(archive, absent[i], DLORA_ERR_ARGUMENT, "'student.backbone.', 'teacher.backbone.'");
  }
  /* What is wrong in the other tower is nobody's business, what is wrong in this one is. */
  add_row(archive, "teacher.backbone.blocks.0.gamma_1");
  add_row(archive, "adapter.weight");
  const struct seen still = see(archive, "student.backbone.");
  assert_same(&still, &alone);
  refuse(archive, "teacher.backbone.", DLORA_ERR_UNSUPPORTED, "teacher.backbone.blocks.0.gamma_1");
  archive_close(archive);
}

/* One prefix is none, and so begins all names. */
static void a_tower_without_prefix_can_be_chosen(void **state) {
  (void)state;
  struct archive *archive = archive_open(TIMM);
  const struct seen alone = see(archive, NULL);
  add_tower(archive, HF_BARE, "ema.", 1);
  refuse(archive, NULL, DLORA_ERR_ARGUMENT, "'', 'ema.'");
  const struct seen plain = see(archive, ""), other = see(archive, "ema.");
  assert_same(&plain, &alone);
  assert_string_not_equal(other.fingerprint, alone.fingerprint);
  add_row(archive, "blocks.0.gamma_1");
  refuse(archive, "", DLORA_ERR_UNSUPPORTED, "blocks.0.gamma_1");
  const struct seen still = see(archive, "ema.");
  assert_same(&still, &other);
  archive_close(archive);
}

static void a_chosen_prefix_ignores_what_lies_outside(void **state) {
  (void)state;
  struct archive *archive = archive_open(HF_VIT);
  const struct seen alone = see(archive, NULL);
  add_row(archive, "multimodal.weight");
  refuse(archive, NULL, DLORA_ERR_UNSUPPORTED, "multimodal.weight");
  const struct seen chosen = see(archive, "vit.");
  assert_same(&chosen, &alone);
  archive_close(archive);
}

static void more_towers_than_can_be_told_apart_are_refused(void **state) {
  (void)state;
  struct archive *archive = archive_open(TIMM);
  char name[64];
  for (int i = 0; i < 7; i++) {
    snprintf(name, sizeof name, "tower%d.patch_embed.proj.weight", i);
    add_row(archive, name);
  }
  refuse(archive, NULL, DLORA_ERR_ARGUMENT, "'tower6.'");
  add_row(archive, "tower7.patch_embed.proj.weight");
  refuse(archive, "", DLORA_ERR_UNSUPPORTED, "more than 8");
  archive_close(archive);
}

static void heads_are_suggested(void **state) {
  (void)state;
  static const struct {
    const char *dim, *suggestion;
    size_t width;
  } cases[] = {{"768", "set the option num_heads (usually embed_dim / 64 = 12)", 768},
               {"192", "(usually embed_dim / 64 = 3)", 192},
               {"1280", "(usually 16 at embed_dim 1280)", 1280},
               {"1408", "(usually 16 at embed_dim 1408)", 1408}};
  dlora_model *model = NULL;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct archive *archive = calloc(1, sizeof *archive);
    char shape[48];
    size_t size = 0;
    assert_non_null(archive);
    strcpy(archive->metadata, "{}");
    snprintf(shape, sizeof shape, "%s,3,1,1", cases[i].dim);
    add(archive, "patch_embed.proj.weight", "F32", shape, 12 * cases[i].width);
    add(archive, "blocks.0.norm1.weight", "F32", cases[i].dim, 4 * cases[i].width);
    snprintf(shape, sizeof shape, "1,%s", cases[i].dim);
    add(archive, "blocks.0.mlp.fc1.weight", "F32", shape, 4 * cases[i].width);
    unsigned char *bytes = archive_bytes(archive, &size);
    assert_status(DLORA_ERR_ARGUMENT, dlora_model_load_memory(&model, bytes, size, NULL));
    assert_error_names(cases[i].suggestion);
    free(bytes);
    archive_close(archive);
  }
  /* No multiple of 64: nothing to suggest. */
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, test_data(HF_VIT), NULL));
  assert_error_names("set the option num_heads");
  assert_null(strstr(dlora_last_error(), "usually"));
}

/* ---- files of other kinds ---- */

static int32_t visit_nothing(const dlora_tensor_info *info, void *user) {
  (void)info;
  (void)user;
  return 0;
}

/* Whatever is to be read from it, the file is refused in the same words, with its path once. */
static void refuse_file(const char *path, dlora_status expected, const char *what) {
  char sentence[1024];
  dlora_model *model = NULL, *vit = NULL;
  dlora_bank *bank = NULL;
  dlora_predictor *predictor = NULL;
  dlora_projector *projector = NULL;
  dlora_learner *learner = NULL;
  assert_status(DLORA_OK, dlora_model_load(&vit, test_data(TIMM), NULL));
  assert_status(expected, dlora_model_load(&model, path, NULL));
  assert_error_names(what);
  snprintf(sentence, sizeof sentence, "%s", dlora_last_error());
  assert_int_equal(strncmp(sentence, path, strlen(path)), 0);
  assert_null(strstr(sentence + 1, path));
  const dlora_status found[] = {dlora_inspect(path, visit_nothing, NULL), dlora_bank_load(&bank, path, NULL),
                                dlora_predictor_load(&predictor, path, NULL),
                                dlora_projector_load(&projector, path, NULL),
                                dlora_learner_load(&learner, vit, path, NULL)};
  for (size_t i = 0; i < sizeof found / sizeof found[0]; i++) assert_int_equal(found[i], expected);
  assert_string_equal(dlora_last_error(), sentence);
  dlora_model_destroy(vit);
}

static void files_of_other_kinds_are_called_what_they_are(void **state) {
  (void)state;
  static const struct {
    size_t length; /* of the bytes, which zeros and then noise follow */
    const char *bytes, *what;
  } kinds[] = {
      {0, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 346\n", "git lfs pull"},
      {0, "<!DOCTYPE html><html>Not found</html>", "web page"},
      {0, "\n\n  <html lang=\"en\"><head><title>\xC3\xA9</title></head>", "web page"},
      {0, "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "web page"},
      {0, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {\"cls_token\": \"model-00001-of-00002.safetensors\"}}",
       "several parts"},
      {0, "\xEF\xBB\xBF{\n  \"architectures\": [\"ViTModel\"],\n  \"hidden_size\": 768\n}", "config.json"},
      {0, "Invalid username or password.", "begins with \"Invalid username or password.\""},
      {0, "Entry not found", "begins with \"Entry not found\""},
      {4, "PK\3\4", "PyTorch"},
      {42, "PK\3\4\0\0\10\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\10\0\0\0archive/data", "save_file"},
      {42, "PK\3\4\24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\10\0\0\0cls.npy     ", "NumPy"},
      {18, "\x80\2\x8A\nl\xFC\x9C\x46\xF9\x20j\xA8P\x19.\x80\2M", "pickle"},
      {8, "\x80\4\x95\20\0\0\0\0", "pickle"},
      {10, "\x1F\x8B\10\0\xC8k\nk\2\xFF", "gunzip"},
      {10, "BZh91AY&SY", "bunzip2"},
      {8,
       "\xFD"
       "7zXZ\0\0\4",
       "unxz"},
      {8, "\x28\xB5\x2F\xFD\4\0\x41\0", "unzstd"},
      {8, "GGUF\3\0\0\0", "GGUF"},
      {8, "\x89HDF\r\n\x1A\n", "HDF5"},
      {8, "\x93NUMPY\1\0", "NumPy array"},
      {12, "\10\10\22\7pytorch\32", "ONNX"},
      {8, "\x89PNG\r\n\x1A\n", "PNG image"},
      {8, "\xFF\xD8\xFF\xE0\0\20JF", "JPEG image"},
      {1, "\0", "zeros"},
  };
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    unsigned char bytes[600] = {0};
    const size_t length = kinds[i].length ? kinds[i].length : strlen(kinds[i].bytes);
    memcpy(bytes, kinds[i].bytes, length);
    const char *path = test_temporary("model.safetensors");
    test_write_file(path, bytes, kinds[i].length ? sizeof bytes : length);
    refuse_file(path, DLORA_ERR_FORMAT, kinds[i].what);
  }
}

/* A length below the limit of headers, as the bytes of "PK\3\4" and zeros are, in a file that is longer than that. */
static void an_archive_longer_than_its_first_bytes_as_a_length_is_recognised(void **state) {
  (void)state;
  const char *path = test_temporary("model.pt");
  test_write_file(path, "PK\3\4\0\0\0\0", 8);
  assert_int_equal(truncate(path, 70000000), 0);
  refuse_file(path, DLORA_ERR_FORMAT, "PyTorch");
  assert_int_equal(unlink(path), 0);
}

static void a_tar_archive_is_recognised(void **state) {
  (void)state;
  unsigned char bytes[1024] = "photos/";
  memcpy(bytes + 257, "ustar", 5);
  const char *path = test_temporary("model.safetensors");
  test_write_file(path, bytes, sizeof bytes);
  refuse_file(path, DLORA_ERR_FORMAT, "tar archive");
}

static void folders_and_empty_and_cut_files_are_named(void **state) {
  (void)state;
  const char *folder = test_temporary("folder");
  assert_int_equal(mkdir(folder, 0700), 0);
  dlora_model *model = NULL;
  dlora_bank *bank = NULL;
  assert_status(DLORA_ERR_IO, dlora_model_load(&model, folder, NULL));
  assert_error_names("is a directory without model.safetensors");
  assert_status(DLORA_ERR_IO, dlora_bank_load(&bank, folder, NULL));
  assert_error_names("is a directory, expected a file");
  assert_int_equal(rmdir(folder), 0);
  const char *path = test_temporary("model.safetensors");
  test_write_file(path, "", 0);
  refuse_file(path, DLORA_ERR_FORMAT, "is empty");
  size_t size = 0;
  unsigned char *bytes = test_read_file(test_data(TIMM), &size);
  test_write_file(path, bytes, 900);
  refuse_file(path, DLORA_ERR_FORMAT, "is cut off: of the");
  test_write_file(path, bytes, size - 1);
  refuse_file(path, DLORA_ERR_FORMAT, "is cut off");
  test_write_file(path, bytes, 8);
  refuse_file(path, DLORA_ERR_FORMAT, "header");
  free(bytes);
}

static void one_part_of_several_is_named(void **state) {
  (void)state;
  struct archive *archive = archive_open(TIMM);
  strcpy(find(archive, "norm.weight")->name, "head.weight2");
  size_t size = 0;
  unsigned char *bytes = archive_bytes(archive, &size);
  const char *path = test_temporary("model-00001-of-00002.safetensors");
  test_write_file(path, bytes, size);
  dlora_model *model = NULL;
  assert_status(DLORA_ERR_FORMAT, dlora_model_load(&model, path, NULL));
  assert_error_names("norm.weight is missing; by its name the file is one of several parts");
  free(bytes);
  archive_close(archive);
}

static void a_checkpoint_is_no_backbone(void **state) {
  (void)state;
  dlora_model *model = NULL, *again = NULL;
  dlora_learner *learner = NULL;
  const char *path = test_temporary("learnt.safetensors");
  assert_status(DLORA_OK, dlora_model_load(&model, test_data(TIMM), NULL));
  assert_status(DLORA_OK, dlora_learner_create(&learner, model, NULL));
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  assert_status(DLORA_ERR_UNSUPPORTED, dlora_model_load(&again, path, NULL));
  assert_error_names("a file of this library");
  assert_null(again);
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tensors_of_other_kinds_are_refused_by_name),
      cmocka_unit_test(parts_of_what_is_supported_are_refused_by_name),
      cmocka_unit_test(kinds_in_disguise_are_refused),
      cmocka_unit_test(unknown_tensors_are_refused_by_name),
      cmocka_unit_test(heads_and_other_towers_leave_the_features_alone),
      cmocka_unit_test(each_tensor_of_another_type_or_shape_is_refused_by_name),
      cmocka_unit_test(one_of_two_towers_is_chosen_by_its_prefix),
      cmocka_unit_test(a_tower_without_prefix_can_be_chosen),
      cmocka_unit_test(a_chosen_prefix_ignores_what_lies_outside),
      cmocka_unit_test(more_towers_than_can_be_told_apart_are_refused),
      cmocka_unit_test(heads_are_suggested),
      cmocka_unit_test(files_of_other_kinds_are_called_what_they_are),
      cmocka_unit_test(an_archive_longer_than_its_first_bytes_as_a_length_is_recognised),
      cmocka_unit_test(a_tar_archive_is_recognised),
      cmocka_unit_test(folders_and_empty_and_cut_files_are_named),
      cmocka_unit_test(one_part_of_several_is_named),
      cmocka_unit_test(a_checkpoint_is_no_backbone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
