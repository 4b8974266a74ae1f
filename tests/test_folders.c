/* Backbones as folders of hubs: weights whole and in parts, config.json and preprocessor_config.json, who said what a
 * setting is, and what is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support_model.h"

/* Width 32, 2 heads, 2 blocks, MLP 64, patches of 4 pixels, images of 16; the metadata tells none of it. */
#define WEIGHTS "tiny_hf_vit_f32.safetensors"
#define HF "\"model_type\": \"vit\", \"hidden_size\": 32, \"num_attention_heads\": 2"
#define INDEX "model.safetensors.index.json"

/* ---- folders ---- */

static char folder[512];

static void empty(const char *path) {
  DIR *entries = opendir(path);
  char name[1024];
  assert_non_null(entries);
  for (const struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
    assert_int_equal(remove(name), 0);
  }
  closedir(entries);
}

/* A new folder without a file in it. */
static int begin(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "%s", test_temporary("hub"));
  if (mkdir(folder, 0700) != 0) assert_int_equal(errno, EEXIST);
  empty(folder);
  return 0;
}

static int end(void **state) {
  (void)state;
  empty(folder);
  return rmdir(folder);
}

static const char *path_in(const char *name) {
  static char paths[4][1024];
  static int last;
  last = (last + 1) % 4;
  snprintf(paths[last], sizeof paths[last], "%s/%s", folder, name);
  return paths[last];
}

static void put(const char *name, const char *text) {
  test_write_file(path_in(name), text, strlen(text));
}

static void put_copy(const char *name, const char *source) {
  size_t size = 0;
  void *bytes = test_read_file(source, &size);
  test_write_file(path_in(name), bytes, size);
  free(bytes);
}

/* The tensors of a file whose number in its header is `which` modulo 2, or all where it is 2, and one with another name
 * where `extra` is not NULL. Returns the names, each in quotes before ": <part>", for an index. */
static void put_part(const char *name, const char *source, int which, const char *extra, char *index) {
  size_t size = 0, header = 0, used;
  unsigned char *bytes = test_read_file(source, &size);
  for (size_t i = 0; i < 8; i++) header |= (size_t)bytes[i] << 8 * i;
  char *text = calloc(1, header + 1), *out = calloc(1, header + 512);
  unsigned char *data = calloc(1, size);
  size_t filled = 0;
  assert_non_null(text);
  assert_non_null(out);
  assert_non_null(data);
  memcpy(text, bytes + 8, header);
  used = (size_t)sprintf(out, "{\"__metadata__\":{\"format\":\"pt\"}");
  const char *at = strchr(text, '}') + 1;
  int number = 0;
  for (int length = 0; *at == ','; at += length, number++) {
    char tensor[128], shape[48];
    size_t first = 0, last = 0;
    assert_int_equal(sscanf(at, ",\"%127[^\"]\":{\"dtype\":\"F32\",\"shape\":[%47[0-9,]],\"data_offsets\":[%zu,%zu]}%n",
                            tensor, shape, &first, &last, &length),
                     4);
    if (which < 2 && number % 2 != which) continue;
    memcpy(data + filled, bytes + 8 + header + first, last - first);
    used += (size_t)sprintf(out + used, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", tensor,
                            shape, filled, filled + last - first);
    filled += last - first;
    if (index) sprintf(index + strlen(index), "%s\"%s\": \"%s\"", *index ? ", " : "", tensor, name);
  }
  assert_true(number > 10);
  if (extra) {
    used += (size_t)sprintf(out + used, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}", extra,
                            filled, filled + 4);
    filled += 4;
  }
  used += (size_t)sprintf(out + used, "}");
  while (used % 8) out[used++] = ' ';
  unsigned char *file = calloc(1, 8 + used + filled);
  assert_non_null(file);
  for (size_t i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)used >> 8 * i);
  memcpy(file + 8, out, used);
  memcpy(file + 8 + used, data, filled);
  test_write_file(path_in(name), file, 8 + used + filled);
  free(file);
  free(data);
  free(out);
  free(text);
  free(bytes);
}

#define PART1 "model-00001-of-00002.safetensors"
#define PART2 "model-00002-of-00002.safetensors"

static void put_index(const char *entries) {
  char text[16384];
  snprintf(text, sizeof text, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {%s}}", entries);
  put(INDEX, text);
}

/* The two parts, and the entries of their index [8192]. */
static void put_parts(char *entries) {
  entries[0] = '\0';
  put_part(PART1, test_data(WEIGHTS), 0, NULL, entries);
  put_part(PART2, test_data(WEIGHTS), 1, NULL, entries);
}

/* ---- loading ---- */

static dlora_model *load(const char *path, const dlora_model_options *options) {
  dlora_model *model = NULL;
  assert_status(DLORA_OK, dlora_model_load(&model, path, options));
  return model;
}

static void refuse_with(const char *path, const dlora_model_options *options, dlora_status expected,
                        const char *culprit) {
  dlora_model *model = NULL;
  assert_status(expected, dlora_model_load(&model, path, options));
  assert_null(model);
  assert_error_names(culprit);
}

static void refuse(dlora_status expected, const char *culprit) {
  refuse_with(folder, NULL, expected, culprit);
}

/* What dlora_model_get_setting says. */
static dlora_model_setting setting_of(const dlora_model *model, const char *name) {
  for (size_t i = 0; i < dlora_model_num_settings(model); i++) {
    dlora_model_setting setting = DLORA_MODEL_SETTING_INIT;
    assert_status(DLORA_OK, dlora_model_get_setting(model, i, &setting));
    if (strcmp(setting.name, name) == 0) return setting;
  }
  fail_msg("no setting %s", name);
  return (dlora_model_setting)DLORA_MODEL_SETTING_INIT;
}

static void assert_setting(const dlora_model *model, const char *name, const char *value, int32_t origin,
                           const char *place) {
  const dlora_model_setting setting = setting_of(model, name);
  assert_string_equal(setting.value, value);
  assert_string_equal(setting.place, place);
  assert_int_equal(setting.origin, origin);
}

static dlora_model_info info_of(const dlora_model *model) {
  dlora_model_info info = {.struct_size = sizeof info};
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  return info;
}

/* The same fingerprint, which all weights and settings are in. */
static void assert_same(const dlora_model *a, const dlora_model *b) {
  assert_string_equal(info_of(a).fingerprint, info_of(b).fingerprint);
}

/* ---- tests ---- */

static void a_folder_of_transformers_needs_no_option(void **state) {
  (void)state;
  put_copy("model.safetensors", test_data(WEIGHTS));
  put("config.json", "{" HF
                     ", \"layer_norm_eps\": 1e-05, \"hidden_act\": \"gelu\", \"image_size\": 16, "
                     "\"num_hidden_layers\": 2, \"patch_size\": 4, \"intermediate_size\": 64, \"num_channels\": 3, "
                     "\"id2label\": {\"0\": \"a\"}}");
  put("preprocessor_config.json",
      "{\"do_normalize\": true, \"image_mean\": [0.4, 0.5, 0.6], \"image_std\": [0.1, 0.2, 0.3], \"resample\": 3, "
      "\"rescale_factor\": 0.00392156862745098, \"size\": {\"height\": 8, \"width\": 8}}");
  dlora_model_options same = DLORA_MODEL_OPTIONS_INIT;
  same.num_heads = 2;
  same.layer_norm_eps = 1e-5f;
  same.image_size = 8;
  for (size_t c = 0; c < 3; c++) {
    same.mean[c] = 0.4f + 0.1f * (float)c;
    same.std[c] = 0.1f + 0.1f * (float)c;
  }
  same.mean[2] = 0.6f;
  same.std[2] = 0.3f;
  same.position_resampling = DLORA_POSITIONS_HUGGING_FACE;
  same.resize = DLORA_RESIZE_SQUASH;
  dlora_model *of_folder = load(folder, NULL), *of_file = load(test_data(WEIGHTS), &same);
  assert_same(of_folder, of_file);
  assert_int_equal(info_of(of_folder).image_size, 8);
  assert_int_equal(info_of(of_folder).num_heads, 2);
  assert_setting(of_folder, "num_heads", "2", DLORA_ORIGIN_JSON, "config.json: num_attention_heads");
  assert_setting(of_folder, "layer_norm_eps", "1e-05", DLORA_ORIGIN_JSON, "config.json: layer_norm_eps");
  assert_setting(of_folder, "image_size", "8", DLORA_ORIGIN_JSON, "preprocessor_config.json: size");
  assert_setting(of_folder, "mean", "0.4,0.5,0.6", DLORA_ORIGIN_JSON, "preprocessor_config.json: image_mean");
  assert_setting(of_folder, "std", "0.1,0.2,0.3", DLORA_ORIGIN_JSON, "preprocessor_config.json: image_std");
  assert_setting(of_folder, "activation", "gelu", DLORA_ORIGIN_JSON, "config.json: hidden_act");
  assert_setting(of_folder, "pool", "class", DLORA_ORIGIN_TABLE, "config.json: model_type vit");
  assert_setting(of_folder, "position_resampling", "hugging-face", DLORA_ORIGIN_TABLE, "config.json: model_type vit");
  assert_setting(of_folder, "interpolation", "bicubic", DLORA_ORIGIN_JSON, "preprocessor_config.json: resample");
  assert_setting(of_file, "num_heads", "2", DLORA_ORIGIN_OPTION, "");
  assert_setting(of_file, "activation", "gelu", DLORA_ORIGIN_DEFAULT, "");
  dlora_model_destroy(of_folder);
  dlora_model_destroy(of_file);
}

static void settings_are_told_by_index(void **state) {
  (void)state;
  dlora_model *model = load(test_write_vit("vit.safetensors", 1), NULL);
  dlora_model_setting setting;
  assert_int_equal(dlora_model_num_settings(NULL), 0);
  assert_int_equal(dlora_model_num_settings(model), 11);
  assert_status(DLORA_OK, dlora_model_setting_init(&setting, sizeof setting));
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_get_setting(model, 11, &setting));
  assert_error_names("index is 11");
  assert_status(DLORA_ERR_ARGUMENT, dlora_model_get_setting(NULL, 0, &setting));
  assert_setting(model, "num_heads", "2", DLORA_ORIGIN_METADATA, "metadata num_heads");
  assert_setting(model, "image_size", "16", DLORA_ORIGIN_TENSORS, "pos_embed");
  assert_setting(model, "layer_norm_eps", "1e-06", DLORA_ORIGIN_DEFAULT, "");
  assert_setting(model, "crop_fraction", "1", DLORA_ORIGIN_DEFAULT, "");
  dlora_model_destroy(model);
}

/* Options before metadata before JSON. */
static void the_first_that_tells_a_setting_counts(void **state) {
  (void)state;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  put_copy("model.safetensors", test_write_vit("vit.safetensors", 1));
  put("config.json",
      "{\"model_type\": \"vit\", \"num_attention_heads\": 8, \"layer_norm_eps\": 1e-05, "
      "\"hidden_size\": 32}");
  dlora_model *model = load(folder, NULL);
  assert_setting(model, "num_heads", "2", DLORA_ORIGIN_METADATA, "metadata num_heads");
  assert_setting(model, "layer_norm_eps", "1e-05", DLORA_ORIGIN_JSON, "config.json: layer_norm_eps");
  dlora_model_destroy(model);
  options.num_heads = 4;
  options.layer_norm_eps = 0.001f;
  model = load(folder, &options);
  assert_setting(model, "num_heads", "4", DLORA_ORIGIN_OPTION, "");
  assert_setting(model, "layer_norm_eps", "0.001", DLORA_ORIGIN_OPTION, "");
  dlora_model_destroy(model);
}

static void beside_a_file_nothing_is_read(void **state) {
  (void)state;
  put_copy("model.safetensors", test_data(WEIGHTS));
  put("config.json", "{" HF "}");
  refuse_with(path_in("model.safetensors"), NULL, DLORA_ERR_ARGUMENT, "set the option num_heads");
}

static void parts_are_the_whole(void **state) {
  (void)state;
  char entries[8192], path[600];
  put_parts(entries);
  put_index(entries);
  put("config.json", "{" HF "}");
  dlora_model *parts = load(folder, NULL);
  snprintf(path, sizeof path, "%s///", folder);
  dlora_model *slashes = load(path, NULL);
  assert_int_equal(remove(path_in(PART1)), 0);
  assert_int_equal(remove(path_in(PART2)), 0);
  assert_int_equal(remove(path_in(INDEX)), 0);
  put_copy("any.safetensors", test_data(WEIGHTS)); /* the only one */
  dlora_model *whole = load(folder, NULL);
  assert_same(parts, whole);
  assert_same(slashes, whole);
  assert_int_equal(info_of(parts).num_parameters, info_of(whole).num_parameters);
  dlora_model_destroy(parts);
  dlora_model_destroy(slashes);
  dlora_model_destroy(whole);
}

static int32_t count_tensors(const dlora_tensor_info *info, void *user) {
  if (!info->value) ++*(size_t *)user;
  return 0;
}

static void a_folder_is_inspected_as_its_weights(void **state) {
  (void)state;
  char entries[8192];
  size_t in_parts = 0, in_file = 0;
  put_parts(entries);
  put_index(entries);
  assert_status(DLORA_OK, dlora_inspect(folder, count_tensors, &in_parts));
  assert_status(DLORA_OK, dlora_inspect(test_data(WEIGHTS), count_tensors, &in_file));
  assert_int_equal(in_parts, in_file);
  assert_true(in_file > 10);
}

/* As in a hub's cache: a folder of links to files that are named by their digests. */
static void links_are_followed(void **state) {
  (void)state;
  char entries[8192], blob[2][600];
  put_parts(entries);
  put_index(entries);
  put("config.json", "{" HF "}");
  dlora_model *plain = load(folder, NULL);
  const char *const names[] = {PART1, PART2};
  for (size_t i = 0; i < 2; i++) {
    snprintf(blob[i], sizeof blob[i], "%s", test_temporary(i == 0 ? "0a1b2c" : "3d4e5f"));
    assert_int_equal(rename(path_in(names[i]), blob[i]), 0);
    assert_int_equal(symlink(blob[i], path_in(names[i])), 0);
  }
  dlora_model *linked = load(folder, NULL);
  assert_same(plain, linked);
  dlora_model_destroy(plain);
  dlora_model_destroy(linked);
  assert_int_equal(remove(blob[1]), 0);
  refuse(DLORA_ERR_IO, "is a symbolic link to ");
  assert_error_names(PART2);
}

static void a_link_to_nowhere_is_told_from_a_missing_file(void **state) {
  (void)state;
  put_copy("model.safetensors", test_data(WEIGHTS));
  assert_int_equal(symlink("../blobs/none", path_in("config.json")), 0);
  refuse(DLORA_ERR_IO, "config.json: is a symbolic link to ../blobs/none, which does not exist");
  assert_int_equal(remove(path_in("model.safetensors")), 0);
  assert_int_equal(symlink("../blobs/lost", path_in("model.safetensors")), 0);
  refuse(DLORA_ERR_IO, "model.safetensors: is a symbolic link to ../blobs/lost, which does not exist");
}

static void folders_without_readable_weights_say_what_there_is(void **state) {
  (void)state;
  static const char *const others[][2] = {
      {"pytorch_model.bin", "has pytorch_model.bin, which is not read, and no safetensors file"},
      {"model.onnx", "has model.onnx, which"},
      {"a.gguf", "has a.gguf, which"},
      {"vit.pth", "has vit.pth, which"}};
  refuse(DLORA_ERR_IO, "is a directory without model.safetensors");
  for (size_t i = 0; i < 4; i++) {
    put(others[i][0], "x");
    refuse(DLORA_ERR_FORMAT, others[i][1]);
    assert_int_equal(remove(path_in(others[i][0])), 0);
  }
  assert_int_equal(mkdir(path_in("snapshots"), 0700), 0);
  refuse(DLORA_ERR_FORMAT, "is the cache of a hub: give the folder of one version, in snapshots in it");
  assert_int_equal(rmdir(path_in("snapshots")), 0);
  put_copy(PART1, test_data(WEIGHTS));
  put_copy(PART2, test_data(WEIGHTS));
  refuse(DLORA_ERR_FORMAT, "but no model.safetensors.index.json");
  assert_int_equal(rename(path_in(PART1), path_in("b.safetensors")), 0);
  assert_int_equal(rename(path_in(PART2), path_in("a.safetensors")), 0);
  refuse(DLORA_ERR_FORMAT, "has 2 safetensors files, such as a.safetensors and b.safetensors");
  assert_int_equal(rename(path_in("a.safetensors"), path_in("model.safetensors")), 0);
  put("config.json", "{" HF "}");
  dlora_model_destroy(load(folder, NULL)); /* the name of hubs decides */
  put_index("\"a\": \"" PART1 "\"");
  refuse(DLORA_ERR_FORMAT, "has both model.safetensors and model.safetensors.index.json");
}

static void parts_that_do_not_fit_their_index_are_named(void **state) {
  (void)state;
  char entries[8192], more[8400];
  put_parts(entries);
  put_index(entries);
  assert_int_equal(remove(path_in(PART2)), 0);
  refuse(DLORA_ERR_IO, PART2);
  put_part(PART2, test_data(WEIGHTS), 1, "extra", NULL);
  refuse(DLORA_ERR_FORMAT, PART2 ": has tensor extra, which ");
  put_part(PART2, test_data(WEIGHTS), 1, NULL, NULL);
  snprintf(more, sizeof more, "%s, \"lost\": \"" PART1 "\"", entries);
  put_index(more);
  refuse(DLORA_ERR_FORMAT, PART1 ": tensor lost is missing");
  snprintf(more, sizeof more, "%s, \"vit.embeddings.cls_token\": \"" PART2 "\"", entries);
  put_index(more);
  refuse(DLORA_ERR_FORMAT, "weight_map names tensor vit.embeddings.cls_token twice");
  assert_int_equal(remove(path_in(PART2)), 0);
  assert_int_equal(symlink(PART1, path_in(PART2)), 0); /* one part under both names */
  put_index(entries);
  refuse(DLORA_ERR_FORMAT, PART2 ": tensor ");
  assert_error_names("is missing");
}

static void an_index_stays_in_its_folder(void **state) {
  (void)state;
  static const char *const files[] = {
      "../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..", ".", "", "x.bin"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char entry[128];
    snprintf(entry, sizeof entry, "\"cls_token\": \"%s\"", files[i]);
    put_index(entry);
    refuse(DLORA_ERR_FORMAT, INDEX ": tensor cls_token is said to lie in '");
  }
  put_index("\"cls_token\": 3");
  refuse(DLORA_ERR_FORMAT, "the part of tensor cls_token is not a text");
  put(INDEX, "{\"weight_map\": {}}");
  refuse(DLORA_ERR_FORMAT, "has no weight_map");
  put(INDEX, "{\"weight_map\": {\"a\": \"x.safetensors\"}, \"weight_map\": {}}");
  refuse(DLORA_ERR_FORMAT, "weight_map is given twice");
}

static void what_contradicts_the_tensors_is_refused_with_both_values(void **state) {
  (void)state;
  static const struct {
    dlora_status status;
    const char *config, *culprit;
  } cases[] = {
      {DLORA_ERR_FORMAT, "{\"num_attention_heads\": 3}",
       "config.json: num_attention_heads is 3, which does not divide embed_dim 32"},
      {DLORA_ERR_FORMAT, "{" HF ", \"num_hidden_layers\": 12}",
       "config.json: num_hidden_layers is 12, but its tensors have depth 2"},
      {DLORA_ERR_FORMAT, "{\"num_attention_heads\": 2, \"hidden_size\": 768}",
       "config.json: hidden_size is 768, but its tensors have embed_dim 32"},
      {DLORA_ERR_FORMAT, "{" HF ", \"patch_size\": 16}", "patch_size is 16, but its tensors have patch_size 4"},
      {DLORA_ERR_FORMAT, "{" HF ", \"intermediate_size\": 128}",
       "intermediate_size is 128, but its tensors have mlp_dim 64"},
      {DLORA_ERR_FORMAT, "{" HF ", \"num_register_tokens\": 4}",
       "num_register_tokens is 4, but its tensors have register tokens: 0"},
      {DLORA_ERR_FORMAT, "{" HF ", \"use_swiglu_ffn\": true}",
       "use_swiglu_ffn is 1, but its tensors have gated MLPs: 0"},
      /* an empty vision_config means the type's own width */
      {DLORA_ERR_FORMAT, "{\"model_type\": \"clip\", \"vision_config\": {}}",
       "vision_config.hidden_size, by default of clip, is 768, but its tensors have embed_dim 32"},
      {DLORA_ERR_FORMAT, "{\"architecture\": \"vit_tiny_patch16_224\", \"num_features\": 192}",
       "num_features is 192, but its tensors have embed_dim 32"},
      {DLORA_ERR_FORMAT, "{" HF ", \"image_size\": 17}",
       "config.json: image_size is 17, expected a multiple of the patch size 4"},
      {DLORA_ERR_UNSUPPORTED, "{" HF ", \"image_size\": 8000}", "more than 4 times the 16"},
      {DLORA_ERR_FORMAT, "{" HF ", \"layer_norm_eps\": 0}", "config.json: layer_norm_eps is 0, expected"},
      {DLORA_ERR_UNSUPPORTED, "{" HF ", \"hidden_act\": \"relu\"}",
       "config.json: hidden_act is \"relu\", which is not supported; the option activation"},
      {DLORA_ERR_UNSUPPORTED, "{" HF ", \"hidden_act\": \"silu\"}", "its MLP is not gated"},
      {DLORA_ERR_UNSUPPORTED, "{" HF ", \"num_channels\": 4}", "num_channels is 4"},
      {DLORA_ERR_UNSUPPORTED, "{" HF ", \"qk_norm\": true}", "qk_norm is true"},
      {DLORA_ERR_UNSUPPORTED, "{" HF ", \"rope_theta\": 10000.0}", "rope_theta is 10000"},
      {DLORA_ERR_UNSUPPORTED, "{\"model_type\": \"swin\", \"num_attention_heads\": 2}",
       "model_type swin is not one of those that are known"},
      {DLORA_ERR_UNSUPPORTED, "{\"architecture\": \"vit_unheard_of\"}",
       "architecture vit_unheard_of is not one of those that are known"},
      {DLORA_ERR_UNSUPPORTED, "{\"architecture\": \"vit_tiny_patch16_224\", \"global_pool\": \"avgmax\"}",
       "global_pool is \"avgmax\""},
      {DLORA_ERR_UNSUPPORTED, "{\"architecture\": \"vit_tiny_patch16_224\", \"model_args\": {\"qk_norm\": true}}",
       "model_args.qk_norm is true"},
      {DLORA_ERR_UNSUPPORTED,
       "{\"architecture\": \"vit_tiny_patch16_224\", \"pretrained_cfg\": {\"interpolation\": \"lanczos\"}}",
       "pretrained_cfg.interpolation is \"lanczos\""},
      {DLORA_ERR_UNSUPPORTED,
       "{\"architecture\": \"vit_tiny_patch16_224\", \"pretrained_cfg\": {\"input_size\": [3, 224, 112]}}",
       "pretrained_cfg.input_size is a list"},
  };
  put_copy("model.safetensors", test_data(WEIGHTS));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put("config.json", cases[i].config);
    refuse(cases[i].status, cases[i].culprit);
  }
  /* What the caller sets need not be in the file in a form that is known. */
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.activation = DLORA_ACTIVATION_GELU;
  put("config.json", "{" HF ", \"hidden_act\": \"relu\"}");
  dlora_model_destroy(load(folder, &options));
}

static void damaged_json_is_named(void **state) {
  (void)state;
  static const char *const texts[][2] = {
      {"{\"model_type\": \"vit\", \"hidden", "cut off, damaged or nested too deeply"},
      {"[1, 2]", "not an object in braces"},
      {"{} {}", "text follows its JSON"},
      {"", "has 0 bytes"},
      {"{\"a\": \"\xFF\"}", "is not JSON"},
      {"{\"a\": \"\\u0000\"}", "is not JSON"},
      {"{\"num_attention_heads\": 2, \"num_attention_heads\": 4}", "num_attention_heads is given twice"},
      {"{\"num_attention_heads\": \"two\"}", "num_attention_heads is \"two\", expected a whole number"},
      {"{\"num_attention_heads\": 1e30}", "expected a whole number"},
      {"{\"num_attention_heads\": 2.5}", "num_attention_heads is 2.5, expected a whole number"},
      {"{\"num_attention_heads\": 2, \"layer_norm_eps\": [1e-6]}", "layer_norm_eps is a list"},
      {"{\"model_type\": 7}", "model_type is 7, expected a text"},
  };
  dlora_model *model = NULL;
  char deep[4096];
  put_copy("model.safetensors", test_data(WEIGHTS));
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    put("config.json", texts[i][0]);
    assert_true(dlora_model_load(&model, folder, NULL) != DLORA_OK);
    assert_null(model);
    assert_error_names("config.json");
    assert_error_names(texts[i][1]);
  }
  memset(deep, '[', sizeof deep - 1);
  memcpy(deep, "{\"a\":", 5);
  deep[sizeof deep - 1] = '\0';
  put("config.json", deep);
  refuse(DLORA_ERR_FORMAT, "nested too deeply");
  put("config.json", "{}");
  assert_int_equal(truncate(path_in("config.json"), (16 << 20) + 1), 0);
  refuse(DLORA_ERR_FORMAT, "expected a JSON file of 1 to");
  assert_int_equal(remove(path_in("config.json")), 0);
  assert_int_equal(mkfifo(path_in("config.json"), 0600), 0);
  refuse(DLORA_ERR_IO, "is a folder, device, pipe or socket");
}

/* What preprocessor_config.json makes of images. */
static void preprocessors_of_each_form_are_read(void **state) {
  (void)state;
  static const struct {
    const char *text, *size, *resize, *fraction;
  } forms[] = {
      {"{\"size\": {\"height\": 8, \"width\": 8}}", "8", "squash", "1"},
      {"{\"size\": 8}", "8", "squash", "1"},
      {"{\"size\": 8, \"feature_extractor_type\": \"CLIPFeatureExtractor\", \"crop_size\": 8, \"do_center_crop\": "
       "true}",
       "8", "crop", "1"},
      {"{\"size\": {\"shortest_edge\": 16}, \"do_center_crop\": true, \"crop_size\": {\"height\": 12, \"width\": 12}}",
       "12", "crop", "0.75"},
      {"{\"size\": 16, \"do_center_crop\": true, \"crop_size\": 12, \"image_processor_type\": \"DeiTImageProcessor\"}",
       "12", "squash", "0.75"},
      {"{\"size\": {\"height\": 8, \"width\": 8}, \"do_center_crop\": false, \"crop_size\": 4}", "8", "squash", "1"},
      {"{\"image_processor\": {\"size\": {\"height\": 8, \"width\": 8}}}", "8", "squash", "1"},
  };
  put_copy("model.safetensors", test_data(WEIGHTS));
  put("config.json", "{" HF ", \"image_size\": 16}");
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    put("preprocessor_config.json", forms[i].text);
    dlora_model *model = load(folder, NULL);
    assert_string_equal(setting_of(model, "image_size").value, forms[i].size);
    assert_string_equal(setting_of(model, "resize").value, forms[i].resize);
    assert_string_equal(setting_of(model, "crop_fraction").value, forms[i].fraction);
    dlora_model_destroy(model);
  }
  put("preprocessor_config.json", "{\"do_normalize\": false, \"resample\": 2}");
  dlora_model *model = load(folder, NULL);
  assert_setting(model, "mean", "0,0,0", DLORA_ORIGIN_JSON, "preprocessor_config.json: do_normalize");
  assert_setting(model, "std", "1,1,1", DLORA_ORIGIN_JSON, "preprocessor_config.json: do_normalize");
  assert_string_equal(setting_of(model, "interpolation").value, "bilinear");
  assert_setting(model, "image_size", "16", DLORA_ORIGIN_JSON, "config.json: image_size");
  dlora_model_destroy(model);
  static const char *const refused[][2] = {
      {"{\"resample\": 1}", "resample is 1, expected 2 (bilinear) or 3 (bicubic)"},
      {"{\"do_rescale\": false}", "do_rescale is false"},
      {"{\"rescale_factor\": 1}", "rescale_factor is 1"},
      {"{\"size\": {\"height\": 8, \"width\": 16}}", "size is an object, expected the same height and width"},
      {"{\"size\": 8, \"do_center_crop\": true, \"crop_size\": 12}", "crop_size is 12, more than the size 8"},
      {"{\"image_mean\": [0.5, 0.5]}", "image_mean is a list, expected a list of 3"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    put("preprocessor_config.json", refused[i][0]);
    refuse(DLORA_ERR_UNSUPPORTED, refused[i][1]);
  }
}

/* A timm ViT of width 64 without metadata. */
static const char *write_timm(void) {
  const struct test_shape shape = {64, 2, 1, 128, 4, 4};
  const char *path = test_write_vit_of("timm.safetensors", 1, &shape);
  size_t size = 0;
  char *bytes = test_read_file(path, &size), *key = memmem(bytes, 4096, "num_heads", 9);
  assert_non_null(key);
  memcpy(key, "something", 9);
  test_write_file(path, bytes, size);
  free(bytes);
  return path;
}

static void timm_tells_by_the_name_of_the_architecture(void **state) {
  (void)state;
  put_copy("model.safetensors", write_timm());
  put("config.json", "{\"architecture\": \"vit_tiny_patch16_224\"}");
  dlora_model *model = load(folder, NULL);
  const char *place = "config.json: architecture vit_tiny_patch16_224";
  assert_setting(model, "num_heads", "1", DLORA_ORIGIN_TABLE, place);
  assert_setting(model, "layer_norm_eps", "1e-06", DLORA_ORIGIN_TABLE, place);
  assert_setting(model, "mean", "0.5,0.5,0.5", DLORA_ORIGIN_TABLE, place);
  assert_setting(model, "pool", "class", DLORA_ORIGIN_TABLE, place);
  assert_setting(model, "activation", "gelu", DLORA_ORIGIN_TABLE, place);
  assert_setting(model, "resize", "crop", DLORA_ORIGIN_TABLE, place);
  assert_setting(model, "crop_fraction", "0.9", DLORA_ORIGIN_TABLE, place);
  assert_setting(model, "position_resampling", "timm", DLORA_ORIGIN_TABLE, place);
  dlora_model_destroy(model);
  put("config.json",
      "{\"architecture\": \"deit_tiny_patch16_224\", \"num_features\": 64, \"global_pool\": \"avg\", \"model_args\": "
      "{\"embed_dim\": 64, \"depth\": 2, \"num_heads\": 2, \"act_layer\": \"quick_gelu\"}, \"pretrained_cfg\": "
      "{\"mean\": [0.1, 0.2, 0.3], \"input_size\": [3, 12, 12], \"crop_pct\": 0.95, \"crop_mode\": \"squash\", "
      "\"interpolation\": \"bilinear\"}}");
  model = load(folder, NULL);
  assert_setting(model, "num_heads", "2", DLORA_ORIGIN_JSON, "config.json: model_args.num_heads");
  assert_setting(model, "mean", "0.1,0.2,0.3", DLORA_ORIGIN_JSON, "config.json: pretrained_cfg.mean");
  assert_setting(model, "std", "0.229,0.224,0.225", DLORA_ORIGIN_TABLE,
                 "config.json: architecture deit_tiny_patch16_224");
  assert_setting(model, "image_size", "12", DLORA_ORIGIN_JSON, "config.json: pretrained_cfg.input_size");
  assert_setting(model, "pool", "mean-patches", DLORA_ORIGIN_JSON, "config.json: global_pool");
  assert_setting(model, "activation", "quick-gelu", DLORA_ORIGIN_JSON, "config.json: model_args.act_layer");
  assert_setting(model, "resize", "squash", DLORA_ORIGIN_JSON, "config.json: pretrained_cfg.crop_mode");
  assert_setting(model, "crop_fraction", "0.95", DLORA_ORIGIN_JSON, "config.json: pretrained_cfg.crop_pct");
  assert_setting(model, "interpolation", "bilinear", DLORA_ORIGIN_JSON, "config.json: pretrained_cfg.interpolation");
  dlora_model_destroy(model);
  /* Another width without its heads: the architecture's number would be a guess. */
  put("config.json", "{\"architecture\": \"vit_tiny_patch16_224\", \"model_args\": {\"embed_dim\": 64}}");
  refuse(DLORA_ERR_ARGUMENT, "set the option num_heads");
}

/* ---- memory ---- */

struct taken {
  dlora_allocator allocator; /* user points back here: do not copy */
  size_t now, most;
};

static void *take(size_t size, void *user) {
  struct taken *taken = user;
  size_t *block = malloc(size + 64);
  if (!block) return NULL;
  *block = size;
  taken->now += size;
  if (taken->now > taken->most) taken->most = taken->now;
  return (char *)block + 64;
}

static void give_back(void *pointer, void *user) {
  struct taken *taken = user;
  size_t *block = (size_t *)((char *)pointer - 64);
  taken->now -= *block;
  free(block);
}

/* timm's tensors of this depth in zeros that take no place on the disk; returns their number of bytes. */
static size_t put_sparse(size_t depth) {
  enum { DIM = 768, MLP = 3072 };
  static const struct {
    const char *name, *shape;
    size_t count;
  } in_block[] = {
      {"norm1.weight", "768", DIM},
      {"norm1.bias", "768", DIM},
      {"attn.qkv.weight", "2304,768", 3 * DIM * DIM},
      {"attn.qkv.bias", "2304", 3 * DIM},
      {"attn.proj.weight", "768,768", DIM * DIM},
      {"attn.proj.bias", "768", DIM},
      {"norm2.weight", "768", DIM},
      {"norm2.bias", "768", DIM},
      {"mlp.fc1.weight", "3072,768", MLP * DIM},
      {"mlp.fc1.bias", "3072", MLP},
      {"mlp.fc2.weight", "768,3072", MLP * DIM},
      {"mlp.fc2.bias", "768", DIM},
  };
  char *header = calloc(1, 65536);
  size_t used, at = 0;
  assert_non_null(header);
  used = (size_t)sprintf(header, "{");
#define ADD(tensor, dims, count) \
  used += (size_t)sprintf(header + used, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", \
                          at > 0 ? "," : "", tensor, dims, at, at + 4 * (size_t)(count)), \
      at += 4 * (size_t)(count)
  ADD("patch_embed.proj.weight", "768,3,16,16", DIM * 768);
  ADD("patch_embed.proj.bias", "768", DIM);
  ADD("cls_token", "1,1,768", DIM);
  ADD("pos_embed", "1,197,768", 197 * DIM);
  for (size_t block = 0; block < depth; block++) {
    for (size_t i = 0; i < sizeof in_block / sizeof *in_block; i++) {
      char name[64];
      snprintf(name, sizeof name, "blocks.%zu.%s", block, in_block[i].name);
      ADD(name, in_block[i].shape, in_block[i].count);
    }
  }
  ADD("norm.weight", "768", DIM);
  ADD("norm.bias", "768", DIM);
#undef ADD
  header[used++] = '}';
  while (used % 8) header[used++] = ' ';
  unsigned char length[8];
  for (size_t i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)used >> 8 * i);
  FILE *file = fopen(path_in("model.safetensors"), "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(length, 1, 8, file), 8);
  assert_int_equal(fwrite(header, 1, used, file), used);
  assert_int_equal(fclose(file), 0);
  assert_int_equal(truncate(path_in("model.safetensors"), (off_t)(8 + used + at)), 0);
  free(header);
  return at;
}

/* Weights in float32 with timm's names stay where they are mapped: what is taken beside them is the header's index, the
 * positions, and a few hundred bytes a block. */
static void weights_are_used_in_place(void **state) {
  (void)state;
  struct taken taken = {.allocator = {take, give_back, &taken}};
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.allocator = &taken.allocator;
  put("config.json", "{\"architecture\": \"vit_base_patch16_224\"}");
  size_t most[2];
  for (size_t i = 0; i < 2; i++) {
    const size_t depth = i == 0 ? 1 : 3, bytes = put_sparse(depth);
    taken.most = 0;
    dlora_model *model = load(folder, &options);
    assert_int_equal(info_of(model).num_heads, 12);
    assert_int_equal(info_of(model).num_parameters, bytes / 4);
    dlora_model_destroy(model);
    assert_int_equal(taken.now, 0);
    most[i] = taken.most;
  }
  assert_true(most[0] < 1 << 20); /* of which 588 KiB are positions */
  assert_true(most[1] - most[0] < 2 * 8192);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
  const struct CMUnitTest tests[] = {
      TEST(a_folder_of_transformers_needs_no_option),
      TEST(settings_are_told_by_index),
      TEST(the_first_that_tells_a_setting_counts),
      TEST(beside_a_file_nothing_is_read),
      TEST(parts_are_the_whole),
      TEST(a_folder_is_inspected_as_its_weights),
      TEST(links_are_followed),
      TEST(a_link_to_nowhere_is_told_from_a_missing_file),
      TEST(folders_without_readable_weights_say_what_there_is),
      TEST(parts_that_do_not_fit_their_index_are_named),
      TEST(an_index_stays_in_its_folder),
      TEST(what_contradicts_the_tensors_is_refused_with_both_values),
      TEST(damaged_json_is_named),
      TEST(preprocessors_of_each_form_are_read),
      TEST(timm_tells_by_the_name_of_the_architecture),
      TEST(weights_are_used_in_place),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
