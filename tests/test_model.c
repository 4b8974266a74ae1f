/* Loading Vision Transformers and embedding images: against timm and Hugging Face, and with what users get wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

#define TOLERANCE 1e-4 /* of features, relative to the largest */
#define VIT "examples/backbones/vit_192x6_patch4_32.safetensors"
#define TINY_DIM 32
#define TINY_SIZE 16
#define HF_DEFAULT_EPS 1e-12f

static struct test_fixture *tiny; /* tests/data/tiny_models.bin */

static int open_references(void **state) {
  (void)state;
  tiny = test_fixture_open(test_data("tiny_models.bin"));
  return 0;
}

static int close_references(void **state) {
  (void)state;
  test_fixture_close(tiny);
  return 0;
}

static dlora_images bytes_of(const struct test_fixture *fixture, const char *name) {
  return (dlora_images){.u8 = test_fixture_bytes(fixture, name, NULL),
                        .count = test_fixture_dim(fixture, name, 0),
                        .height = test_fixture_dim(fixture, name, 1),
                        .width = test_fixture_dim(fixture, name, 2),
                        .channels = 3};
}

static dlora_images floats_of(const struct test_fixture *fixture, const char *name) {
  return (dlora_images){.f32 = test_fixture_floats(fixture, name, NULL),
                        .count = test_fixture_dim(fixture, name, 0),
                        .height = test_fixture_dim(fixture, name, 2),
                        .width = test_fixture_dim(fixture, name, 3)};
}

static dlora_model *load(const char *path, const dlora_model_options *options) {
  dlora_model *model = NULL;
  assert_status(DLORA_OK, dlora_model_load(&model, path, options));
  assert_non_null(model);
  return model;
}

static dlora_model *load_tiny(void) {
  return load(test_data("tiny_timm_f32.safetensors"), NULL);
}

static dlora_model_info info_of(const dlora_model *model) {
  dlora_model_info info = {.struct_size = sizeof info};
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  return info;
}

/* embed gives [count] features, the expected ones if not NULL; returns them, to be freed. */
static float *embed(const dlora_model *model, const dlora_images *images, const float *expected) {
  const size_t count = images->count * info_of(model).embed_dim;
  float *features = calloc(count, sizeof *features);
  assert_non_null(features);
  assert_status(DLORA_OK, dlora_model_embed(model, images, features));
  if (expected) assert_close(features, expected, count, TOLERANCE);
  return features;
}

/* ---- against independent implementations ---- */

/* Through dlora_model_embed and through a session without a bank, from pixels and from ready floats. */
static void check_features(const dlora_model *model, const dlora_images *u8, const dlora_images *f32,
                           const float *expected) {
  const size_t count = u8->count * info_of(model).embed_dim;
  free(embed(model, u8, expected));
  free(embed(model, f32, expected));
  for (int32_t training = 0; training < 2; training++) {
    dlora_session *session = NULL;
    dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
    options.max_batch = u8->count;
    options.training = training;
    float *features = calloc(count, sizeof *features);
    assert_non_null(features);
    assert_status(DLORA_OK, dlora_session_create(&session, model, NULL, &options));
    assert_status(DLORA_OK, dlora_session_forward(session, u8, DLORA_TERM_MERGED, NULL, features));
    assert_close(features, expected, count, TOLERANCE);
    assert_status(DLORA_OK, dlora_session_forward(session, f32, 0, NULL, features));
    assert_close(features, expected, count, TOLERANCE);
    dlora_session_destroy(session);
    free(features);
  }
}

static void check_tiny(const char *name, size_t num_heads, float eps, int32_t naming) {
  char file[96];
  snprintf(file, sizeof file, "%s.safetensors", name);
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.num_heads = num_heads;
  options.layer_norm_eps = eps;
  if (num_heads) { /* such a file says nothing: not how pixels are normalised either */
    const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
    memcpy(options.mean, mean, sizeof mean);
    memcpy(options.std, std, sizeof std);
  }
  dlora_model *model = load(test_data(file), &options);
  assert_int_equal(info_of(model).naming, naming);
  const dlora_images u8 = bytes_of(tiny, "u8"), f32 = floats_of(tiny, "f32");
  check_features(model, &u8, &f32, test_fixture_floats(tiny, name, NULL));
  dlora_model_destroy(model);
}

static void timm_models_match_timm_in_every_dtype(void **state) {
  (void)state;
  check_tiny("tiny_timm_f32", 0, 0.0f, DLORA_NAMING_TIMM);
  check_tiny("tiny_timm_f16", 0, 0.0f, DLORA_NAMING_TIMM);
  check_tiny("tiny_timm_bf16", 0, 0.0f, DLORA_NAMING_TIMM);
}

static void timm_layer_scale_matches_timm(void **state) {
  (void)state;
  check_tiny("tiny_timm_layer_scale_f32", 0, 0.0f, DLORA_NAMING_TIMM);
}

static void hugging_face_models_match_transformers_with_every_prefix(void **state) {
  (void)state;
  check_tiny("tiny_hf_vit_f32", 2, HF_DEFAULT_EPS, DLORA_NAMING_HF_VIT);
  check_tiny("tiny_hf_bare_f16", 2, HF_DEFAULT_EPS, DLORA_NAMING_HF_VIT);
  check_tiny("tiny_hf_deit_bf16", 2, HF_DEFAULT_EPS, DLORA_NAMING_HF_VIT);
}

static void hugging_face_dinov2_matches_transformers(void **state) {
  (void)state;
  check_tiny("tiny_hf_dinov2_f32", 0, 0.0f, DLORA_NAMING_HF_DINOV2);
}

static void pretrained_vit_matches_timm(void **state) {
  (void)state;
  struct test_fixture *fixture = test_fixture_open(test_data("vit_192x6.bin"));
  dlora_model *model = load(test_source(VIT), NULL);
  const dlora_images u8 = bytes_of(fixture, "u8"), f32 = floats_of(fixture, "f32");
  check_features(model, &u8, &f32, test_fixture_floats(fixture, "features", NULL));
  dlora_model_destroy(model);
  test_fixture_close(fixture);
}

static void pretrained_dinov2_matches_transformers_at_84_pixels(void **state) {
  (void)state;
  const char *weights = test_source("../shared/weights/dinov2_small_focus.safetensors");
  if (access(weights, R_OK) != 0) {
    print_message("%s is not there: not compared with it\n", weights);
    skip();
  }
  struct test_fixture *fixture = test_fixture_open(test_data("dinov2_small_84.bin"));
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 84;
  dlora_model *model = load(weights, &options);
  const dlora_model_info info = info_of(model);
  assert_int_equal(info.num_tokens, 37);
  assert_int_equal(info.num_heads, 6);
  assert_int_equal(info.naming, DLORA_NAMING_HF_DINOV2);
  const dlora_images u8 = bytes_of(fixture, "u8");
  assert_int_equal(info.position_resampling, DLORA_POSITIONS_HUGGING_FACE);
  free(embed(model, &u8, test_fixture_floats(fixture, "features_hugging_face", NULL)));
  dlora_model_destroy(model);
  options.position_resampling = DLORA_POSITIONS_TIMM;
  model = load(weights, &options);
  free(embed(model, &u8, test_fixture_floats(fixture, "features", NULL)));
  dlora_model_destroy(model);
  test_fixture_close(fixture);
}

static void position_embeddings_are_resampled_as_torch_does(void **state) {
  (void)state;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 24;
  dlora_model *model = load(test_data("tiny_timm_f32.safetensors"), &options);
  const dlora_model_info info = info_of(model);
  assert_int_equal(info.image_size, 24);
  assert_int_equal(info.num_tokens, 37);
  const dlora_images images = bytes_of(tiny, "u8_24");
  free(embed(model, &images, test_fixture_floats(tiny, "features_24", NULL)));
  dlora_model_destroy(model);
}

static void images_of_other_sizes_are_resized_as_torch_does(void **state) {
  (void)state;
  dlora_model *model = load_tiny();
  const dlora_images odd = bytes_of(tiny, "u8_odd"), small = bytes_of(tiny, "u8_small");
  free(embed(model, &odd, test_fixture_floats(tiny, "features_odd", NULL)));
  free(embed(model, &small, test_fixture_floats(tiny, "features_small", NULL)));
  dlora_model_destroy(model);
}

/* ---- what a model says of itself ---- */

static void info_tells_geometry_and_normalisation(void **state) {
  (void)state;
  dlora_model *model = load_tiny();
  const dlora_model_info info = info_of(model);
  assert_int_equal(info.embed_dim, TINY_DIM);
  assert_int_equal(info.depth, 2);
  assert_int_equal(info.num_heads, 2);
  assert_int_equal(info.mlp_dim, 64);
  assert_int_equal(info.patch_size, 4);
  assert_int_equal(info.image_size, TINY_SIZE);
  assert_int_equal(info.num_tokens, 17);
  /* Class token, positions, patch projection, two blocks, final norm; not the head of 5 classes. */
  assert_int_equal(info.num_parameters,
                   32 + 17 * 32 + 49 * 32 + 2 * (128 + 33 * 96 + 33 * 32 + 33 * 64 + 65 * 32) + 64);
  assert_float_equal(info.mean[1], 0.456f, 1e-7);
  assert_float_equal(info.std[2], 0.225f, 1e-7);
  assert_float_equal(info.layer_norm_eps, 1e-6f, 1e-12);
  assert_int_equal(strlen(info.fingerprint), strspn(info.fingerprint, "0123456789abcdef"));
  assert_true(strlen(info.fingerprint) >= 16 && strlen(info.fingerprint) < sizeof info.fingerprint);
  dlora_model_destroy(model);
}

static void info_fills_what_an_older_caller_knows(void **state) {
  (void)state;
  dlora_model *model = load_tiny();
  dlora_model_info info;
  memset(&info, 0x5a, sizeof info);
  info.struct_size = offsetof(dlora_model_info, depth);
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  assert_int_equal(info.embed_dim, TINY_DIM);
  assert_int_equal(info.struct_size, offsetof(dlora_model_info, depth));
  const unsigned char *beyond = (const unsigned char *)&info.depth;
  for (size_t i = 0; i < sizeof info - info.struct_size; i++) assert_int_equal(beyond[i], 0x5a);
  info.struct_size = 0;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_model_get_info(model, &info));
  dlora_model_destroy(model);
}

static void fingerprint_tells_weights_and_geometry_apart(void **state) {
  (void)state;
  dlora_model_options larger = DLORA_MODEL_OPTIONS_INIT;
  larger.image_size = 24;
  dlora_model *models[] = {load_tiny(), load_tiny(), load(test_data("tiny_timm_layer_scale_f32.safetensors"), NULL),
                           load(test_data("tiny_timm_f32.safetensors"), &larger)};
  dlora_model_info infos[4];
  for (size_t i = 0; i < 4; i++) infos[i] = info_of(models[i]);
  assert_string_equal(infos[0].fingerprint, infos[1].fingerprint);
  assert_string_not_equal(infos[0].fingerprint, infos[2].fingerprint);
  assert_string_not_equal(infos[0].fingerprint, infos[3].fingerprint);
  for (size_t i = 0; i < 4; i++) dlora_model_destroy(models[i]);
}

static void options_override_the_file(void **state) {
  (void)state;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  for (size_t c = 0; c < 3; c++) {
    options.mean[c] = 0.1f;
    options.std[c] = 0.7f;
  }
  options.num_heads = 4;
  options.layer_norm_eps = 1e-3f;
  options.threads = 1;
  dlora_model *model = load(test_data("tiny_timm_f32.safetensors"), &options), *plain = load_tiny();
  const dlora_model_info info = info_of(model);
  assert_int_equal(info.num_heads, 4);
  assert_float_equal(info.mean[0], 0.1f, 0.0);
  assert_float_equal(info.std[2], 0.7f, 0.0);
  assert_float_equal(info.layer_norm_eps, 1e-3f, 0.0);
  const dlora_images images = bytes_of(tiny, "u8");
  float *changed = embed(model, &images, NULL), *original = embed(plain, &images, NULL);
  double difference = 0.0;
  for (size_t i = 0; i < images.count * TINY_DIM; i++) difference += fabs((double)changed[i] - (double)original[i]);
  assert_true(difference > 1.0);
  free(changed);
  free(original);
  dlora_model_destroy(model);
  dlora_model_destroy(plain);
}

static void options_init_gives_the_macros_defaults(void **state) {
  (void)state;
  const dlora_model_options expected = DLORA_MODEL_OPTIONS_INIT;
  dlora_model_options options;
  memset(&options, 0x5a, sizeof options);
  assert_status(DLORA_OK, dlora_model_options_init(&options, sizeof options));
  assert_memory_equal(&options, &expected, sizeof options);
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_options_init(NULL, sizeof options));
}

static void unusable_options_are_refused(void **state) {
  (void)state;
  dlora_model *model = (dlora_model *)&tiny;
  const char *path = test_data("tiny_timm_f32.safetensors");
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.struct_size = 1;
  assert_status(DLORA_ERR_STRUCT_SIZE, dlora_model_load(&model, path, &options));
  assert_null(model);
  options = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
  options.num_heads = 5;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, path, &options));
  assert_error_names("num_heads");
  options = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
  options.image_size = 18;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, path, &options));
  assert_error_names("image_size");
  options = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
  options.std[0] = -1.0f;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, path, &options));
  options = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
  options.layer_norm_eps = NAN;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, path, &options));
  assert_error_names("layer_norm_eps");
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(NULL, path, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, NULL, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load_memory(&model, NULL, 100, NULL));
  dlora_model_destroy(NULL);
}

/* A newer program's struct is longer: fine while what this library does not know is zero. */
static void longer_options_of_zeros_are_accepted(void **state) {
  (void)state;
  struct {
    dlora_model_options known;
    uint64_t beyond;
  } options = {DLORA_MODEL_OPTIONS_INIT, 0};
  options.known.struct_size = sizeof options;
  dlora_model *model = load(test_data("tiny_timm_f32.safetensors"), &options.known);
  dlora_model_destroy(model);
  options.beyond = 1;
  assert_status(DLORA_ERR_STRUCT_SIZE,
                dlora_model_load(&model, test_data("tiny_timm_f32.safetensors"), &options.known));
  assert_null(model);
}

/* ---- files that are not as they should be ---- */

/* The tiny timm file with one text of its header replaced by another of the same length, loaded. */
static dlora_status load_edited(const char *from, const char *to, dlora_model **model) {
  size_t size = 0;
  char *bytes = test_read_file(test_data("tiny_timm_f32.safetensors"), &size);
  if (from) {
    assert_int_equal(strlen(from), strlen(to));
    const size_t length = strlen(from);
    size_t edits = 0;
    for (size_t i = 8; i + length < size; i++) {
      if (memcmp(bytes + i, from, length) == 0) {
        memcpy(bytes + i, to, length);
        edits++;
        break;
      }
    }
    assert_int_equal(edits, 1);
  }
  const dlora_status status = dlora_model_load_memory(model, bytes, size, NULL);
  if (status == DLORA_OK) dlora_model_destroy(*model);
  free(bytes);
  return status;
}

static void check_edited(dlora_status expected, const char *from, const char *to, const char *named) {
  dlora_model *model = (dlora_model *)&tiny;
  assert_status(expected, load_edited(from, to, &model));
  assert_null(model);
  assert_error_names(named);
}

static void missing_num_heads_is_named(void **state) {
  (void)state;
  check_edited(DLORA_ERR_ARGUMENT, "\"num_heads\"", "\"num_chefs\"", "num_heads");
  dlora_model *model = NULL;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, test_data("tiny_hf_vit_f32.safetensors"), NULL));
  assert_error_names("num_heads");
}

/* The file is at fault, not the caller: FORMAT. */
static void unusable_metadata_is_named(void **state) {
  (void)state;
  check_edited(DLORA_ERR_FORMAT, "\"num_heads\":\"2\"", "\"num_heads\":\"3\"", "num_heads");
  check_edited(DLORA_ERR_FORMAT, "\"num_heads\":\"2\"", "\"num_heads\":\"x\"", "num_heads");
  check_edited(DLORA_ERR_FORMAT, "\"1e-6\"", "\"1e+6\"", "layer_norm_eps");
  check_edited(DLORA_ERR_FORMAT, "\"1e-6\"", "\"6e-x\"", "layer_norm_eps");
  check_edited(DLORA_ERR_FORMAT, "\"0.229,0.224,0.225\"", "\"0.000,0.224,0.225\"", "deviation");
  check_edited(DLORA_ERR_FORMAT, "\"0.229,0.224,0.225\"", "\"0.229,0.224,0.22x\"", "std");
}

static void missing_tensors_are_named(void **state) {
  (void)state;
  check_edited(DLORA_ERR_FORMAT, "\"blocks.1.norm2.bias\"", "\"blocks.1.norm3.bias\"", "blocks.1.norm2.bias");
  check_edited(DLORA_ERR_FORMAT, "\"cls_token\"", "\"clx_token\"", "cls_token");
  check_edited(DLORA_ERR_FORMAT, "\"norm.weight\"", "\"nerm.weight\"", "norm.weight");
  check_edited(DLORA_ERR_FORMAT, "\"blocks.0.mlp.fc1.weight\"", "\"blocks.0.mlp.fc0.weight\"",
               "blocks.0.mlp.fc1.weight");
}

static void wrong_shapes_are_named(void **state) {
  (void)state;
  check_edited(DLORA_ERR_FORMAT, "\"blocks.1.mlp.fc2.weight\":{\"dtype\":\"F32\",\"shape\":[32,64]",
               "\"blocks.1.mlp.fc2.weight\":{\"dtype\":\"F32\",\"shape\":[64,32]", "blocks.1.mlp.fc2.weight");
  check_edited(DLORA_ERR_FORMAT, "\"blocks.0.attn.qkv.weight\":{\"dtype\":\"F32\",\"shape\":[96,32]",
               "\"blocks.0.attn.qkv.weight\":{\"dtype\":\"F32\",\"shape\":[32,96]", "blocks.0.attn.qkv.weight");
}

static void wrong_dtypes_are_named(void **state) {
  (void)state;
  check_edited(DLORA_ERR_UNSUPPORTED, "\"blocks.1.attn.proj.weight\":{\"dtype\":\"F32\"",
               "\"blocks.1.attn.proj.weight\":{\"dtype\":\"I32\"", "blocks.1.attn.proj.weight");
}

static void other_kinds_of_vit_are_refused_by_name(void **state) {
  (void)state;
  check_edited(DLORA_ERR_UNSUPPORTED, "\"head.bias\"", "\"rel_pos_h\"", "rel_pos_h");
  check_edited(DLORA_ERR_UNSUPPORTED, "\"patch_embed.proj.weight\"", "\"patch_embed.conv.weight\"", "patch_embed");
}

static void weights_that_are_not_numbers_are_refused(void **state) {
  (void)state;
  size_t size = 0;
  uint8_t *bytes = test_read_file(test_data("tiny_timm_f32.safetensors"), &size);
  const uint8_t nan_value[] = {0x00, 0x00, 0xc0, 0x7f};
  const char *key = "\"blocks.0.norm1.weight\":{\"dtype\":\"F32\",\"shape\":[32],\"data_offsets\":[";
  uint64_t header = 0;
  for (size_t i = 0; i < 8; i++) header |= (uint64_t)bytes[i] << 8 * i;
  const char *text = strstr((const char *)bytes + 8, key);
  assert_non_null(text);
  memcpy(bytes + 8 + header + strtoul(text + strlen(key), NULL, 10), nan_value, sizeof nan_value);
  dlora_model *model = NULL;
  assert_status(DLORA_ERR_FORMAT, dlora_model_load_memory(&model, bytes, size, NULL));
  assert_error_names("blocks.0.norm1.weight");
  free(bytes);
}

static void truncated_files_are_refused_at_any_length(void **state) {
  (void)state;
  size_t size = 0;
  uint8_t *bytes = test_read_file(test_data("tiny_timm_f16.safetensors"), &size);
  for (size_t length = 0; length < size; length += length < 64 || size - length < 64 ? 1 : 997) {
    /* A copy of exactly this length, so that a memory checker sees every byte read beyond. */
    uint8_t *part = malloc(length ? length : 1);
    assert_non_null(part);
    memcpy(part, bytes, length);
    dlora_model *model = (dlora_model *)&tiny;
    assert_status(DLORA_ERR_FORMAT, dlora_model_load_memory(&model, part, length, NULL));
    assert_null(model);
    free(part);
  }
  const char *path = test_temporary("truncated.safetensors");
  test_write_file(path, bytes, size - 100);
  dlora_model *model = NULL;
  assert_status(DLORA_ERR_FORMAT, dlora_model_load(&model, path, NULL));
  assert_error_names("truncated.safetensors");
  free(bytes);
}

static void absent_file_is_named(void **state) {
  (void)state;
  dlora_model *model = (dlora_model *)&tiny;
  assert_status(DLORA_ERR_IO, dlora_model_load(&model, test_temporary("absent.safetensors"), NULL));
  assert_null(model);
  assert_error_names("absent.safetensors");
}

static void unaligned_memory_gives_the_same_model(void **state) {
  (void)state;
  size_t size = 0;
  char *bytes = test_read_file(test_data("tiny_timm_f32.safetensors"), &size);
  char *shifted = malloc(size + 3);
  assert_non_null(shifted);
  memcpy(shifted + 3, bytes, size);
  free(bytes);
  dlora_model *model = NULL, *plain = load_tiny();
  assert_status(DLORA_OK, dlora_model_load_memory(&model, shifted + 3, size, NULL));
  assert_string_equal(info_of(model).fingerprint, info_of(plain).fingerprint);
  const dlora_images images = bytes_of(tiny, "u8");
  free(embed(model, &images, test_fixture_floats(tiny, "tiny_timm_f32", NULL)));
  dlora_model_destroy(model);
  dlora_model_destroy(plain);
  free(shifted);
}

/* ---- images ---- */

static void gray_images_are_expanded_to_rgb(void **state) {
  (void)state;
  enum { COUNT = 2, SIDE = 20, PIXELS = COUNT * SIDE * SIDE };
  uint8_t gray[PIXELS], rgb[3 * PIXELS];
  uint32_t random = 3;
  for (size_t i = 0; i < PIXELS; i++) {
    gray[i] = (uint8_t)(127.5f + 100.0f * test_uniform(&random));
    memset(rgb + 3 * i, gray[i], 3);
  }
  dlora_model *model = load_tiny();
  const dlora_images one = {.u8 = gray, .count = COUNT, .height = SIDE, .width = SIDE, .channels = 1};
  const dlora_images three = {.u8 = rgb, .count = COUNT, .height = SIDE, .width = SIDE, .channels = 0};
  float *expected = embed(model, &three, NULL);
  free(embed(model, &one, expected));
  free(expected);
  dlora_model_destroy(model);
}

static void features_do_not_depend_on_the_batch(void **state) {
  (void)state;
  dlora_model *model = load_tiny();
  const dlora_images all = bytes_of(tiny, "u8");
  float *together = embed(model, &all, NULL);
  for (size_t i = 0; i < all.count; i++) {
    dlora_images one = all;
    one.u8 += i * all.height * all.width * 3;
    one.count = 1;
    float *alone = embed(model, &one, NULL);
    assert_close(alone, together + i * TINY_DIM, TINY_DIM, 1e-5);
    free(alone);
  }
  free(together);
  dlora_model_destroy(model);
}

static void pixels_that_are_not_numbers_are_refused(void **state) {
  (void)state;
  dlora_model *model = load_tiny();
  dlora_images images = floats_of(tiny, "f32");
  const size_t count = images.count * 3 * TINY_SIZE * TINY_SIZE;
  float *pixels = malloc(count * sizeof *pixels), features[3 * TINY_DIM];
  assert_non_null(pixels);
  memcpy(pixels, images.f32, count * sizeof *pixels);
  images.f32 = pixels;
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < 3; i++) {
    const float kept = pixels[count - 1];
    pixels[count - 1] = bad[i];
    assert_status(DLORA_ERR_NOT_FINITE, dlora_model_embed(model, &images, features));
    pixels[count - 1] = kept;
  }
  assert_status(DLORA_OK, dlora_model_embed(model, &images, features));
  free(pixels);
  dlora_model_destroy(model);
}

static void inconsistent_image_batches_are_refused(void **state) {
  (void)state;
  dlora_model *model = load_tiny();
  float features[3 * TINY_DIM];
  const dlora_images u8 = bytes_of(tiny, "u8"), f32 = floats_of(tiny, "f32");
  dlora_images images = u8;
  images.f32 = f32.f32;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, &images, features));
  images = (dlora_images){.count = 1, .height = 16, .width = 16};
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, &images, features));
  images = u8;
  images.channels = 2;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, &images, features));
  assert_error_names("channels");
  images = u8;
  images.height = 0;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, &images, features));
  images = f32;
  images.width = 12;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, &images, features));
  assert_error_names("12");
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, &u8, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(model, NULL, features));
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_embed(NULL, &u8, features));
  dlora_model_destroy(model);
}

/* ---- threads and memory ---- */

struct worker {
  const dlora_model *model;
  dlora_images images;
  float features[3 * TINY_DIM];
  dlora_status status;
};

static void *work(void *user) {
  struct worker *worker = user;
  for (size_t i = 0; i < 20 && worker->status == DLORA_OK; i++) {
    worker->status = dlora_model_embed(worker->model, &worker->images, worker->features);
  }
  return NULL;
}

static void many_threads_share_one_model(void **state) {
  (void)state;
  enum { WORKERS = 6 };
  dlora_model *model = load_tiny();
  static struct worker workers[WORKERS];
  pthread_t threads[WORKERS];
  for (size_t i = 0; i < WORKERS; i++) {
    workers[i] = (struct worker){.model = model, .images = bytes_of(tiny, "u8")};
    assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
  }
  for (size_t i = 0; i < WORKERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
  float *alone = embed(model, &workers[0].images, NULL);
  for (size_t i = 0; i < WORKERS; i++) {
    assert_int_equal(workers[i].status, DLORA_OK);
    assert_close(workers[i].features, alone, sizeof workers[i].features / sizeof(float), 1e-5);
  }
  free(alone);
  dlora_model_destroy(model);
}

struct counting {
  size_t fail_at; /* the allocation that fails, from 1; 0: none */
  size_t asked;
  size_t held;
};

static void *count_allocate(size_t size, void *user) {
  struct counting *counting = user;
  if (++counting->asked == counting->fail_at) return NULL;
  counting->held++;
  return malloc(size);
}

static void count_release(void *pointer, void *user) {
  struct counting *counting = user;
  if (pointer) counting->held--;
  free(pointer);
}

static void every_failed_allocation_is_reported_and_leaks_nothing(void **state) {
  (void)state;
  struct counting counting = {0};
  const dlora_allocator allocator = {count_allocate, count_release, &counting};
  const dlora_images images = bytes_of(tiny, "u8_odd");
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.allocator = &allocator;
  options.threads = 1;
  dlora_status status = DLORA_ERR_NO_MEMORY;
  for (size_t i = 1; status != DLORA_OK; i++) {
    assert_true(i < 2000);
    float features[3 * TINY_DIM];
    dlora_model *model = NULL;
    counting = (struct counting){.fail_at = i};
    status = dlora_model_load(&model, test_data("tiny_hf_dinov2_f32.safetensors"), &options);
    if (status == DLORA_OK) status = dlora_model_embed(model, &images, features);
    if (status != DLORA_OK) assert_status(DLORA_ERR_NO_MEMORY, status);
    dlora_model_destroy(model);
    assert_int_equal(counting.held, 0);
  }
  assert_true(counting.asked > 10);
}

static void half_filled_allocators_are_refused(void **state) {
  (void)state;
  const dlora_allocator allocator = {count_allocate, NULL, NULL};
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.allocator = &allocator;
  dlora_model *model = NULL;
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, test_data("tiny_timm_f32.safetensors"), &options));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(timm_models_match_timm_in_every_dtype),
      cmocka_unit_test(timm_layer_scale_matches_timm),
      cmocka_unit_test(hugging_face_models_match_transformers_with_every_prefix),
      cmocka_unit_test(hugging_face_dinov2_matches_transformers),
      cmocka_unit_test(pretrained_vit_matches_timm),
      cmocka_unit_test(pretrained_dinov2_matches_transformers_at_84_pixels),
      cmocka_unit_test(position_embeddings_are_resampled_as_torch_does),
      cmocka_unit_test(images_of_other_sizes_are_resized_as_torch_does),
      cmocka_unit_test(info_tells_geometry_and_normalisation),
      cmocka_unit_test(info_fills_what_an_older_caller_knows),
      cmocka_unit_test(fingerprint_tells_weights_and_geometry_apart),
      cmocka_unit_test(options_override_the_file),
      cmocka_unit_test(options_init_gives_the_macros_defaults),
      cmocka_unit_test(unusable_options_are_refused),
      cmocka_unit_test(longer_options_of_zeros_are_accepted),
      cmocka_unit_test(missing_num_heads_is_named),
      cmocka_unit_test(unusable_metadata_is_named),
      cmocka_unit_test(missing_tensors_are_named),
      cmocka_unit_test(wrong_shapes_are_named),
      cmocka_unit_test(wrong_dtypes_are_named),
      cmocka_unit_test(other_kinds_of_vit_are_refused_by_name),
      cmocka_unit_test(weights_that_are_not_numbers_are_refused),
      cmocka_unit_test(truncated_files_are_refused_at_any_length),
      cmocka_unit_test(absent_file_is_named),
      cmocka_unit_test(unaligned_memory_gives_the_same_model),
      cmocka_unit_test(gray_images_are_expanded_to_rgb),
      cmocka_unit_test(features_do_not_depend_on_the_batch),
      cmocka_unit_test(pixels_that_are_not_numbers_are_refused),
      cmocka_unit_test(inconsistent_image_batches_are_refused),
      cmocka_unit_test(many_threads_share_one_model),
      cmocka_unit_test(every_failed_allocation_is_reported_and_leaks_nothing),
      cmocka_unit_test(half_filled_allocators_are_refused),
  };
  return cmocka_run_group_tests(tests, open_references, close_references);
}
