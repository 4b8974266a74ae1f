/* What is exported for other libraries: a LoRA whose factors give the update back, and a backbone that opens again with
 * the features and decisions of the learner.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "support_model.h"

static dlora_model *model;
static const int64_t four[] = {1, 2, 3, 4};

/* Two tasks of two classes. */
static dlora_learner *learnt(int32_t sites) {
  dlora_learner_options options = test_quick_options();
  options.sites = sites;
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  options.routing = DLORA_ROUTING_NONE;
  options.untouched_weight = 0.0f;
  dlora_learner *learner = test_learner(model, &options);
  test_learn(learner, four, 2, 20, 1, NULL);
  test_learn(learner, four + 2, 2, 20, 2, NULL);
  return learner;
}

static const char *in_folder(const char *folder, const char *file) {
  static char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, file);
  return path;
}

/* A tensor of floats in the bytes of a file; *count: values. */
static const float *floats_of(unsigned char *bytes, const char *name, size_t *count) {
  const float *values = (const float *)(void *)test_tensor(bytes, name, count);
  *count /= sizeof *values;
  return values;
}

enum { EVERY_SITE = 63 };
static const char *const layers[] = {"attn.qkv", "attn.qkv", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"};

/* Product of the exported factors of the layer of projection p in a block, [rows, cols]; NULL if there are none. */
static double *product_of(unsigned char *bytes, size_t block, size_t p, size_t cols, size_t *rows) {
  char name[128], wanted[140];
  size_t num_a, num_b;
  snprintf(name, sizeof name, "base_model.model.blocks.%zu.%s.lora_A.weight", block, layers[p]);
  snprintf(wanted, sizeof wanted, "\"%s\"", name);
  if (!strstr((const char *)bytes + 8, wanted)) return NULL;
  const float *a = floats_of(bytes, name, &num_a);
  snprintf(name, sizeof name, "base_model.model.blocks.%zu.%s.lora_B.weight", block, layers[p]);
  const float *b = floats_of(bytes, name, &num_b);
  const size_t rank = num_a / cols;
  *rows = num_b / rank;
  double *product = calloc(*rows * cols, sizeof *product);
  assert_non_null(product);
  for (size_t i = 0; i < *rows; i++) {
    for (size_t r = 0; r < rank; r++) {
      for (size_t j = 0; j < cols; j++) product[i * cols + j] += (double)b[i * rank + r] * (double)a[r * cols + j];
    }
  }
  return product;
}

/* Fails unless the factors of a folder give the updates of all sites: M, or the residual adapters of a task. */
static void check_factors(const dlora_learner *learner, const char *folder, int64_t task) {
  size_t size, compared = 0;
  unsigned char *bytes = test_read_file(in_folder(folder, "adapter_model.safetensors"), &size);
  const dlora_bank *bank = dlora_learner_get_bank(learner);
  for (size_t s = 0; s < dlora_bank_num_sites(bank); s++) {
    dlora_site site;
    size_t p = 0, rows = 0;
    double most = 0.0, off = 0.0;
    assert_status(DLORA_OK, dlora_bank_get_site(bank, s, &site));
    while (1 << p != site.projection) p++;
    double *product = product_of(bytes, (size_t)site.block, p, site.input_dim, &rows);
    assert_non_null(product);
    const size_t first = p < 3 ? p * VIT_DIM : 0;
    assert_int_equal(rows, p < 3 ? 3 * VIT_DIM : site.output_dim);
    const float *merged = NULL;
    dlora_adapter adapter = {NULL, NULL, 0};
    assert_status(DLORA_OK, task < 0 ? dlora_bank_get_merged(bank, s, &merged)
                                     : dlora_bank_get_residual(bank, s, task, &adapter));
    for (size_t i = 0; i < site.output_dim; i++) {
      for (size_t j = 0; j < site.input_dim; j++) {
        double expected = merged ? (double)merged[i * site.input_dim + j] : 0.0;
        for (size_t r = 0; r < adapter.rank; r++)
          expected += (double)adapter.b[i * adapter.rank + r] * (double)adapter.a[r * site.input_dim + j];
        const double value = fabs(expected), change = fabs(expected - product[(first + i) * site.input_dim + j]);
        if (value > most) most = value;
        if (!(change <= off)) off = change;
      }
    }
    assert_true(most > 0.0);
    assert_true(off < 1e-5 * most);
    free(product);
    compared++;
  }
  assert_true(compared > 0);
  free(bytes);
}

static void a_lora_has_the_updates_of_all_layers(void **state) {
  (void)state;
  dlora_learner *learner = learnt(EVERY_SITE);
  const char *folder = test_temporary("peft");
  assert_status(DLORA_OK, dlora_learner_export_peft(learner, folder, DLORA_AUTO));
  check_factors(learner, folder, DLORA_AUTO);
  size_t size;
  char *config = (char *)test_read_file(in_folder(folder, "adapter_config.json"), &size);
  char *text = calloc(size + 1, 1);
  assert_non_null(text);
  memcpy(text, config, size);
  assert_non_null(strstr(text, "\"peft_type\": \"LORA\""));
  assert_non_null(strstr(text, "\"blocks.2.attn.qkv\""));
  assert_non_null(strstr(text, "\"blocks.2.mlp.fc2\": "));
  free(text);
  free(config);
  dlora_learner_destroy(learner);
}

static void a_lora_of_one_task_has_its_residual_adapter(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.residual_merge_fraction = 0.5f;
  dlora_learner *learner = test_learner(model, &options);
  const char *folder = test_temporary("peft-1");
  test_learn(learner, four, 2, 20, 1, NULL);
  test_learn(learner, four + 2, 2, 20, 2, NULL);
  for (int64_t task = 0; task < 2; task++) { /* the second one replaces the first one's files */
    assert_status(DLORA_OK, dlora_learner_export_peft(learner, folder, task));
    check_factors(learner, folder, task);
  }
  dlora_learner_destroy(learner);
}

/* The merged network's features by a session. */
static void merged_features(const dlora_learner *learner, const dlora_images *images, float *features) {
  dlora_session *session = NULL;
  assert_status(DLORA_OK, dlora_session_create(&session, model, dlora_learner_get_bank(learner), NULL));
  for (size_t i = 0; i < images->count; i++) {
    const dlora_images one = test_part(images, i, 1);
    assert_status(DLORA_OK, dlora_session_forward(session, &one, DLORA_TERM_MERGED, NULL, features + i * VIT_DIM));
  }
  dlora_session_destroy(session);
}

static void an_exported_backbone_decides_as_the_learner_does(void **state) {
  (void)state;
  dlora_learner *learner = learnt(EVERY_SITE);
  dlora_model *opened = NULL;
  const char *folder = test_temporary("merged");
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.num_heads = VIT_HEADS;
  assert_status(DLORA_OK, dlora_learner_export_backbone(learner, folder));
  assert_status(DLORA_OK, dlora_model_load(&opened, in_folder(folder, "model.safetensors"), &options));

  struct test_pictures p = test_pictures(four, 4, 10, 90);
  enum { IMAGES = 40 };
  static float expected[IMAGES * VIT_DIM], features[IMAGES * VIT_DIM], untouched[IMAGES * VIT_DIM];
  static float log_probs[IMAGES * 4];
  static dlora_prediction predictions[IMAGES];
  merged_features(learner, &p.images, expected);
  assert_status(DLORA_OK, dlora_model_embed(opened, &p.images, features));
  assert_status(DLORA_OK, dlora_model_embed(model, &p.images, untouched));
  assert_true(test_largest_change(expected, features, IMAGES * VIT_DIM) < 1e-4);
  assert_true(test_largest_change(expected, untouched, IMAGES * VIT_DIM) > 0.1);

  size_t size, count;
  unsigned char *bytes = test_read_file(in_folder(folder, "model.safetensors"), &size);
  const float *weight = floats_of(bytes, "head.weight", &count);
  assert_int_equal(count, 4 * VIT_DIM);
  const float *bias = floats_of(bytes, "head.bias", &count);
  assert_int_equal(count, 4);
  assert_status(DLORA_OK, dlora_learner_predict(learner, &p.images, predictions, log_probs));
  for (size_t i = 0; i < IMAGES; i++) {
    double scores[4];
    for (size_t k = 0; k < 4; k++) {
      scores[k] = (double)bias[k];
      for (size_t j = 0; j < VIT_DIM; j++)
        scores[k] += (double)weight[k * VIT_DIM + j] * (double)features[i * VIT_DIM + j];
    }
    /* The library adds a broad softmax to this one, so that probabilities differ and their order does not. */
    for (size_t k = 0; k < 4; k++) {
      for (size_t l = 0; l < 4; l++) {
        if (scores[k] > scores[l] + 1e-2) assert_true(log_probs[i * 4 + k] > log_probs[i * 4 + l]);
      }
    }
  }
  free(bytes);
  test_pictures_free(&p);
  dlora_model_destroy(opened);
  dlora_learner_destroy(learner);
}

/* A folder that is opened again sets the model as it was: so others resize photos as the learner did. */
static void an_exported_backbone_says_how_images_are_resized(void **state) {
  (void)state;
  static const char *const files[] = {"tiny_timm_f32.safetensors", "tiny_hf_vit_f32.safetensors",
                                      "tiny_hf_dinov2_f32.safetensors"};
  static const struct {
    int32_t resize, interpolation;
    float crop_fraction;
  } ways[] = {{DLORA_RESIZE_SQUASH, DLORA_INTERPOLATION_BICUBIC, 1.0f},
              {DLORA_RESIZE_SQUASH, DLORA_INTERPOLATION_BILINEAR, 0.5f},
              {DLORA_RESIZE_CROP, DLORA_INTERPOLATION_BICUBIC, 0.5f},
              {DLORA_RESIZE_CROP, DLORA_INTERPOLATION_BILINEAR, 1.0f}};
  char folder[512];
  snprintf(folder, sizeof folder, "%s", test_temporary("resized"));
  struct test_pictures p = test_pictures_sized(four, 2, 20, 7, 30, 20, 3);
  for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
      dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
      dlora_model *from = NULL, *to = NULL;
      options.num_heads = 2;
      options.resize = ways[w].resize;
      options.interpolation = ways[w].interpolation;
      options.crop_fraction = ways[w].crop_fraction;
      options.threads = 1;
      assert_status(DLORA_OK, dlora_model_load(&from, test_data(files[f]), &options));
      dlora_learner_options instant = test_quick_options();
      instant.rank_orthogonal = instant.rank_residual = 0;
      dlora_learner *learner = test_learner(from, &instant);
      assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, NULL));
      assert_status(DLORA_OK, dlora_learner_export_backbone(learner, folder));
      assert_status(DLORA_OK, dlora_model_load(&to, folder, NULL));
      dlora_model_info was = {.struct_size = sizeof was}, is = {.struct_size = sizeof is};
      assert_status(DLORA_OK, dlora_model_get_info(from, &was));
      assert_status(DLORA_OK, dlora_model_get_info(to, &is));
      assert_int_equal(is.image_size, was.image_size);
      if (is.resize != was.resize)
        fail_msg("%s, way %zu: resize %d, was %d", files[f], w, (int)is.resize, (int)was.resize);
      assert_int_equal(is.interpolation, was.interpolation);
      assert_true(is.crop_fraction == was.crop_fraction);
      float expected[64], features[64];
      assert_in_range(was.embed_dim, 1, 64);
      const dlora_images one = test_part(&p.images, 0, 1);
      assert_status(DLORA_OK, dlora_model_embed(from, &one, expected));
      assert_status(DLORA_OK, dlora_model_embed(to, &one, features));
      assert_close(features, expected, was.embed_dim, 1e-5);
      dlora_learner_destroy(learner);
      dlora_model_destroy(from);
      dlora_model_destroy(to);
    }
  }
  test_pictures_free(&p);
}

static void what_cannot_be_exported_is_refused_by_a_sentence(void **state) {
  (void)state;
  dlora_learner_options options = test_quick_options();
  options.rank_orthogonal = options.rank_residual = 0;
  dlora_learner *learner = test_learner(model, &options);
  const char *folder = test_temporary("nothing");
  assert_status(DLORA_ERR_STATE, dlora_learner_export_backbone(learner, folder));
  assert_error_names("no task is finished");
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_export_peft(learner, folder, 0));
  assert_error_names("task 0");
  test_learn(learner, four, 2, 20, 1, NULL);
  assert_status(DLORA_ERR_STATE, dlora_learner_export_peft(learner, folder, DLORA_AUTO));
  assert_error_names("nothing to export");
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_export_peft(learner, folder, -2));
  struct stat status;
  assert_int_not_equal(stat(folder, &status), 0); /* a refusal leaves no folder */
  test_write_file(folder, "x", 1);
  assert_status(DLORA_ERR_IO, dlora_learner_export_backbone(learner, folder));
  assert_error_names("expected a folder");
  assert_status(DLORA_ERR_IO, dlora_learner_export_backbone(learner, in_folder(folder, "below")));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_export_backbone(learner, NULL));
  assert_status(DLORA_ERR_ARGUMENT, dlora_learner_export_peft(NULL, folder, DLORA_AUTO));
  dlora_learner_destroy(learner);
}

static void networks_that_no_config_describes_are_refused(void **state) {
  (void)state;
  static const struct test_shape shape = {VIT_DIM, VIT_DEPTH, VIT_HEADS, VIT_MLP, VIT_PATCH, VIT_SIZE / VIT_PATCH};
  const char *const files[][2] = {
      {test_write_vit_with("a.safetensors", 3, &shape, &(struct test_ends){.without_norm = 1}), "no norm"},
      {test_write_vit_with("b.safetensors", 3, &shape, &(struct test_ends){.norm_behind = 1}),
       "behind the pooled token"},
      {test_write_vit_with("c.safetensors", 3, &shape, &(struct test_ends){.registers = 1}), "register"},
      {test_data("backbones/timm_eva_giant_clip.safetensors"), "biases of queries"},
      {test_data("backbones/timm_beit3.safetensors"), "norms inside"},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
    dlora_learner_options options = test_quick_options();
    dlora_model *other = NULL;
    options.rank_orthogonal = options.rank_residual = 0;
    model_options.pool = DLORA_POOL_CLASS;
    assert_status(DLORA_OK, dlora_model_load(&other, files[i][0], &model_options));
    dlora_learner *learner = test_learner(other, &options);
    test_learn(learner, four, 2, 20, 1, NULL);
    assert_status(DLORA_ERR_UNSUPPORTED, dlora_learner_export_backbone(learner, test_temporary("nothing")));
    assert_error_names(files[i][1]);
    dlora_learner_destroy(learner);
    dlora_model_destroy(other);
  }
}

/* Whatever allocation fails: a sentence, nothing leaked, the learner as it was. */
static void an_export_without_memory_fails_and_leaks_nothing(void **state) {
  (void)state;
  struct test_memory memory;
  dlora_learner *learner = learnt(DLORA_SITE_KEY | DLORA_SITE_FC2), *loaded = NULL;
  dlora_learner_options options = {.struct_size = sizeof options};
  const char *checkpoint = test_temporary("learner.safetensors"), *folder = test_temporary("failing");
  assert_status(DLORA_OK, dlora_learner_get_options(learner, &options));
  assert_status(DLORA_OK, dlora_learner_save(learner, checkpoint));
  test_memory_start(&memory);
  options.allocator = &memory.allocator;
  assert_status(DLORA_OK, dlora_learner_load(&loaded, model, checkpoint, &options));
  for (int way = 0; way < 2; way++) {
    dlora_status status = DLORA_ERR_NO_MEMORY;
    size_t failures = 0;
    while (status != DLORA_OK) {
      const size_t live = memory.live;
      memory.fail_at = memory.total + failures;
      status =
          way ? dlora_learner_export_backbone(loaded, folder) : dlora_learner_export_peft(loaded, folder, DLORA_AUTO);
      if (status == DLORA_OK) break;
      assert_int_equal(status, DLORA_ERR_NO_MEMORY);
      assert_error_names("memory");
      assert_int_equal(memory.live, live);
      failures++;
    }
    memory.fail_at = SIZE_MAX;
    assert_true(failures > 20);
  }
  test_assert_same_learner(learner, loaded);
  dlora_learner_destroy(loaded);
  assert_int_equal(memory.live, 0);
  dlora_learner_destroy(learner);
}

/* ---- a LoRA that is opened ---- */

static dlora_status open_with(dlora_model **out, const char *folder) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.num_heads = VIT_HEADS;
  options.threads = 1;
  options.adapter = folder;
  return dlora_model_load(out, test_write_vit("backbone.safetensors", 1), &options);
}

static void an_exported_lora_opens_as_the_adapter_of_a_model(void **state) {
  (void)state;
  dlora_learner *learner = learnt(EVERY_SITE);
  dlora_model *opened = NULL;
  const char *folder = test_temporary("adapter");
  assert_status(DLORA_OK, dlora_learner_export_peft(learner, folder, DLORA_AUTO));
  assert_status(DLORA_OK, open_with(&opened, folder));
  struct test_pictures p = test_pictures(four, 4, 3, 90);
  float expected[12 * VIT_DIM], features[12 * VIT_DIM];
  merged_features(learner, &p.images, expected);
  assert_status(DLORA_OK, dlora_model_embed(opened, &p.images, features));
  assert_close(features, expected, 12 * VIT_DIM, 1e-5);
  dlora_model_info with = {.struct_size = sizeof with}, without = {.struct_size = sizeof without};
  assert_status(DLORA_OK, dlora_model_get_info(opened, &with));
  assert_status(DLORA_OK, dlora_model_get_info(model, &without));
  assert_string_not_equal(with.fingerprint, without.fingerprint);
  test_pictures_free(&p);
  dlora_model_destroy(opened);
  dlora_learner_destroy(learner);
}

/* Replaces text in a file of a folder by text of the same length. */
static void replace(const char *folder, const char *file, const char *old, const char *new) {
  char path[512];
  size_t size;
  snprintf(path, sizeof path, "%s/%s", folder, file);
  char *bytes = test_read_file(path, &size);
  assert_int_equal(strlen(old), strlen(new));
  size_t found = 0;
  for (size_t i = 0; i + strlen(old) <= size; i++) {
    if (memcmp(bytes + i, old, strlen(old)) != 0) continue;
    memcpy(bytes + i, new, strlen(new));
    found++;
  }
  assert_true(found > 0);
  test_write_file(path, bytes, size);
  free(bytes);
}

static void adapters_that_are_something_else_are_refused_by_name(void **state) {
  (void)state;
  static const char config[] = "adapter_config.json", weights[] = "adapter_model.safetensors";
  static const struct {
    const char *file, *old, *new;
    dlora_status status;
    const char *named;
  } cases[] = {
      {config, "\"LORA\"", "\"IA3\" ", DLORA_ERR_UNSUPPORTED, "peft_type is IA3"},
      {config, "\"use_dora\": false", "\"use_dora\": true ", DLORA_ERR_UNSUPPORTED, "use_dora"},
      {config, "\"bias\": \"none\"", "\"bias\": \"all\" ", DLORA_ERR_UNSUPPORTED, "bias"},
      {config, "\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true ", DLORA_ERR_UNSUPPORTED, "fan_in_fan_out"},
      {config, "\"lora_alpha\"", "\"lora_alphA\"", DLORA_ERR_FORMAT, "lora_alpha is missing"},
      {config, "\"rank_pattern\"", "\"ranc_pattern\"", DLORA_ERR_FORMAT, "rank"},
      {config, "{", "[", DLORA_ERR_FORMAT, "adapter_config.json"},
      {weights, "blocks.2.attn.qkv", "blocks.9.attn.qkv", DLORA_ERR_UNSUPPORTED, "blocks.9.attn.qkv"},
      {weights, "blocks.1.attn.qkv.lora_B", "blocks.1.attn.qkv.lora_C", DLORA_ERR_FORMAT, "blocks.1.attn.qkv.lora_A"},
  };
  dlora_learner *learner = learnt(DLORA_SITE_KEY | DLORA_SITE_FC2);
  dlora_model *opened = NULL;
  char folder[512];
  snprintf(folder, sizeof folder, "%s", test_temporary("changed"));
  assert_status(DLORA_ERR_IO, open_with(&opened, folder));
  assert_error_names("adapter_config.json");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_status(DLORA_OK, dlora_learner_export_peft(learner, folder, DLORA_AUTO));
    if (cases[i].file == config && strcmp(cases[i].old, "\"rank_pattern\"") == 0) { /* one rank for all: not so */
      replace(folder, config, "\"r\": ", "\"r\":9");
    }
    replace(folder, cases[i].file, cases[i].old, cases[i].new);
    assert_status(cases[i].status, open_with(&opened, folder));
    assert_error_names(cases[i].named);
    assert_null(opened);
  }
  dlora_learner_destroy(learner);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_lora_has_the_updates_of_all_layers),
      cmocka_unit_test(a_lora_of_one_task_has_its_residual_adapter),
      cmocka_unit_test(an_exported_backbone_decides_as_the_learner_does),
      cmocka_unit_test(an_exported_backbone_says_how_images_are_resized),
      cmocka_unit_test(what_cannot_be_exported_is_refused_by_a_sentence),
      cmocka_unit_test(networks_that_no_config_describes_are_refused),
      cmocka_unit_test(an_export_without_memory_fails_and_leaks_nothing),
      cmocka_unit_test(an_exported_lora_opens_as_the_adapter_of_a_model),
      cmocka_unit_test(adapters_that_are_something_else_are_refused_by_name),
  };
  return test_run_with_vit(tests, &model);
}
