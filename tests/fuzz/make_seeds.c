/* Writes the seeds that fuzzing starts from: small files of every kind, made by the library and the libraries of the
 * command. make_seeds FOLDER makes FOLDER/<target>/<name>.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "duallora/duallora.h"
#include "fuzz.h"
#include "tiny.h"
#ifdef FUZZ_COMMAND
#include "seed_images.h"
#endif

static const char *folder;

/* A path of the folder, valid until the next call. */
static const char *seed(const char *target, const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, target);
  if (mkdir(path, 0777) != 0 && errno != EEXIST) fuzz_fail("%s: %s", path, strerror(errno));
  snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
  return path;
}

void seed_write(const char *target, const char *name, const void *bytes, size_t size) {
  const char *path = seed(target, name);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) fuzz_fail("%s: %s", path, strerror(errno));
}

static void succeed(dlora_status status) {
  if (status != DLORA_OK) fuzz_fail("%s", dlora_last_error());
}

/* ---- models ---- */

static void write_models(void) {
  static const struct {
    const char *name;
    struct tiny_kind kind;
  } models[] = {
      {"timm", {DLORA_NAMING_TIMM, "F32", 1, 0, 0}},           {"timm_f16", {DLORA_NAMING_TIMM, "F16", 1, 0, 1}},
      {"timm_deep", {DLORA_NAMING_TIMM, "F16", 2, 0, 0}},      {"timm_scaled", {DLORA_NAMING_TIMM, "BF16", 1, 1, 0}},
      {"hf_vit", {DLORA_NAMING_HF_VIT, "BF16", 1, 0, 0}},      {"hf_vit_f32", {DLORA_NAMING_HF_VIT, "F32", 1, 0, 1}},
      {"hf_dinov2", {DLORA_NAMING_HF_DINOV2, "F16", 1, 0, 0}},
  };
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    size_t size;
    uint8_t *bytes = tiny_model(&models[i].kind, &size);
    seed_write("model", models[i].name, bytes, size);
    if (i < 2) seed_write("safetensors", models[i].name, bytes, size);
    free(bytes);
  }
  static const char header[] =
      "{\"__metadata__\":{\"k\":\"v\\u00e9\",\"\":\"\\n\"},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[8,10]},"
      "\"c\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[10,10]}}";
  uint8_t small[8 + sizeof header - 1 + 10] = {sizeof header - 1};
  memcpy(small + 8, header, sizeof header - 1);
  seed_write("safetensors", "small", small, sizeof small);
}

/* ---- what lies beside them ---- */

static void write_folder(const char *name, uint8_t kind, const char *config, const char *other) {
  uint8_t bytes[2048];
  const size_t first = strlen(config), second = strlen(other);
  if (3 + first + second > sizeof bytes) fuzz_fail("%s is too long", name);
  bytes[0] = kind;
  bytes[1] = (uint8_t)first;
  bytes[2] = (uint8_t)(first >> 8);
  memcpy(bytes + 3, config, first);
  memcpy(bytes + 3 + first, other, second);
  seed_write("folder", name, bytes, 3 + first + second);
}

/* A dlora_inspect visitor that writes the entries of an index; user: the text, of 1536 bytes. */
static int32_t add_entry(const dlora_tensor_info *info, void *user) {
  char *text = user;
  const size_t used = strlen(text);
  if (info->value) return 0;
  snprintf(text + used, 1536 - used, "%s\"%s\":\"a.safetensors\"", used > 0 && text[used - 1] != '{' ? "," : "",
           info->name);
  return 0;
}

static void write_folders(void) {
  char index[1600] = "{\"weight_map\":{";
  succeed(dlora_inspect(seed("model", "hf_vit"), add_entry, index));
  strcat(index, "}}");
  write_folder("parts", 1, "{\"num_attention_heads\":1}", index);

  write_folder("transformers", 0,
               "{\"model_type\":\"vit\",\"num_attention_heads\":1,\"layer_norm_eps\":1e-12,\"hidden_act\":\"gelu\","
               "\"num_channels\":3,\"num_hidden_layers\":1}",
               "{\"do_normalize\":true,\"image_mean\":[0.5,0.5,0.5],\"image_std\":[0.5,0.5,0.5],\"resample\":2}");
  write_folder("timm", 0,
               "{\"architecture\":\"vit_tiny_patch16_224\",\"global_pool\":\"token\",\"model_args\":{\"num_heads\":1},"
               "\"pretrained_cfg\":{\"mean\":[0,0,0],\"std\":[1,1,1],\"crop_pct\":0.9,\"crop_mode\":\"center\"}}",
               "{}");
}

/* ---- learners and their parts ---- */

/* Pictures of two classes, [8, 8, 3] each. */
enum { COUNT = 12, PIXELS = TINY_IMAGE * TINY_IMAGE * 3 };

static void learn(dlora_learner *learner, int64_t first_class) {
  uint8_t pixels[COUNT * PIXELS];
  int64_t labels[COUNT];
  const dlora_images images = {pixels, NULL, COUNT, TINY_IMAGE, TINY_IMAGE, 3};
  for (size_t i = 0; i < COUNT; i++) {
    labels[i] = first_class + (int64_t)(i % 2);
    for (size_t p = 0; p < PIXELS; p++) {
      pixels[i * PIXELS + p] = (uint8_t)(97 * (size_t)labels[i] + (p * p * (i + 3)) % 61 + (p % 3) * 20 * (i % 2));
    }
  }
  succeed(dlora_learner_learn_task(learner, &images, labels, NULL));
}

static void write_checkpoints(void) {
  const struct tiny_kind kind = {DLORA_NAMING_TIMM, "F32", 1, 0, 0};
  dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
  dlora_model *model;
  size_t size;
  uint8_t *bytes = tiny_model(&kind, &size);
  model_options.threads = 1;
  succeed(dlora_model_load_memory(&model, bytes, size, &model_options));
  static const char *const names[] = {"empty", "one_task", "two_tasks", "all_sites", "random_projection", "instant"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    dlora_learner_options options;
    (void)dlora_learner_options_init(&options, sizeof options);
    dlora_learner *learner;
    options.threads = 1;
    options.rank_orthogonal = options.rank_residual = 1;
    options.epochs = 1;
    options.batch_size = 4;
    options.held_out = 0.25f;
    options.feature_layers = i == 2 ? DLORA_FEATURE_LAYERS_AT_ADAPTER : DLORA_FEATURE_LAYERS_FINAL;
    if (i == 3) {
      options.sites = 63;
      options.untouched_baseline = 1;
      options.routing = DLORA_ROUTING_ENERGY;
      options.class_scores = DLORA_CLASS_SCORES_HEAD;
      options.use_prior = 1;
    }
    if (i == 4) {
      options.readout = DLORA_READOUT_RANDOM_PROJECTION;
      options.random_features = 6;
    }
    if (i == 5) options.rank_orthogonal = options.rank_residual = 0;
    succeed(dlora_learner_create(&learner, model, &options));
    if (i > 0) learn(learner, 0);
    if (i == 2) learn(learner, 2);
    if (i > 0) succeed(dlora_learner_set_class_name(learner, 0, "first"));
    succeed(dlora_learner_save(learner, seed("checkpoint", names[i])));
    if (i == 3) succeed(dlora_bank_save(dlora_learner_get_bank(learner), seed("parts", "bank")));
    if (i == 2) {
      const dlora_projector *projector = dlora_learner_get_projector(learner, 0, DLORA_INPUT_ATTENTION);
      succeed(dlora_projector_save(projector, seed("parts", "projector")));
    }
    if (i == 1 || i == 4) {
      succeed(dlora_predictor_save(dlora_learner_get_predictor(learner), seed("parts", names[i])));
    }
    dlora_learner_destroy(learner);
  }
  dlora_model_destroy(model);
  free(bytes);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fputs("usage: make_seeds FOLDER\n", stderr);
    return EXIT_FAILURE;
  }
  folder = argv[1];
  if (mkdir(folder, 0777) != 0 && errno != EEXIST) fuzz_fail("%s: %s", folder, strerror(errno));
  write_models();
  write_folders();
  write_checkpoints();
#ifdef FUZZ_COMMAND
  seed_images();
#endif
  return EXIT_SUCCESS;
}
