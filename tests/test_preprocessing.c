/* How images of bytes become a model's input, against torchvision, timm and transformers pixel by pixel; how positions
 * are resampled; and that a learner keeps what it was learnt with.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support_model.h"

#define LEVEL_TOLERANCE 1e-2    /* of pixels in 0 ... 255 */
#define POSITION_TOLERANCE 1e-5 /* of positions of about 1 */
#define HF_FILE "tiny_hf_dinov2_f32.safetensors"
#define TIMM_FILE "tiny_timm_f32.safetensors"
enum { PATCH = 4, SIZE = 8, RESIZED = 11, COLOURS = 3 * PATCH * PATCH, NUM_IMAGES = 12 };

static struct test_fixture *references; /* tests/data/preprocessing.bin */

static int open_references(void **state) {
  (void)state;
  references = test_fixture_open(test_data("preprocessing.bin"));
  return 0;
}

static int close_references(void **state) {
  (void)state;
  test_fixture_close(references);
  return 0;
}

/* ---- a model whose first norm lets its input through ----
 *
 * A token is [t, -t, 1, -1] with t the pixels of a patch, or its position. Its mean is 0, so that the norm only divides
 * it, and the 1 tells by what. */

struct glass {
  const char *naming;     /* "timm" or "hf" */
  size_t patch, side;     /* pixels a side of a patch, positions a side of the grid */
  size_t width;           /* of t */
  const float *positions; /* t of each position [side^2, width]; NULL: t is the pixels */
  const char *metadata;   /* further entries of the header, as ",\"resize\":\"crop\"" */
};

struct file {
  char header[8192];
  size_t used, count;
  float data[65536];
};

static float *add(struct file *file, const char *name, const char *shape, size_t count, float value) {
  float *values = file->data + file->count;
  file->used += (size_t)snprintf(file->header + file->used, sizeof file->header - file->used,
                                 ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name, shape,
                                 file->count * sizeof(float), (file->count + count) * sizeof(float));
  file->count += count;
  assert_true(file->used < sizeof file->header - 8 && file->count <= sizeof file->data / sizeof *file->data);
  for (size_t i = 0; i < count; i++) values[i] = value;
  return values;
}

static void add_vector(struct file *file, const char *name, size_t count, float value) {
  char shape[24];
  snprintf(shape, sizeof shape, "%zu", count);
  add(file, name, shape, count, value);
}

static void add_linear(struct file *file, const char *name, size_t rows, size_t cols) {
  char full[96], shape[48];
  snprintf(full, sizeof full, "%s.weight", name);
  snprintf(shape, sizeof shape, "%zu,%zu", rows, cols);
  add(file, full, shape, rows * cols, 0.0f);
  snprintf(full, sizeof full, "%s.bias", name);
  add_vector(file, full, rows, 0.0f);
}

static void add_norm(struct file *file, const char *name, size_t dim) {
  char full[96];
  snprintf(full, sizeof full, "%s.weight", name);
  add_vector(file, full, dim, 1.0f);
  snprintf(full, sizeof full, "%s.bias", name);
  add_vector(file, full, dim, 0.0f);
}

static void add_embeddings(struct file *file, const struct glass *g, const char *const names[4]) {
  const size_t dim = 2 * g->width + 2, inputs = 3 * g->patch * g->patch, last = 2 * g->width;
  char shape[64];
  snprintf(shape, sizeof shape, "%zu,3,%zu,%zu", dim, g->patch, g->patch);
  float *weight = add(file, names[0], shape, dim * inputs, 0.0f);
  for (size_t i = 0; !g->positions && i < g->width; i++) {
    weight[i * inputs + i] = 1.0f;
    weight[(g->width + i) * inputs + i] = -1.0f;
  }
  snprintf(shape, sizeof shape, "%zu", dim);
  float *bias = add(file, names[1], shape, dim, 0.0f);
  bias[last] = 1.0f;
  bias[last + 1] = -1.0f;
  snprintf(shape, sizeof shape, "1,1,%zu", dim);
  add(file, names[2], shape, dim, 0.0f);
  snprintf(shape, sizeof shape, "1,%zu,%zu", 1 + g->side * g->side, dim);
  float *positions = add(file, names[3], shape, (1 + g->side * g->side) * dim, 0.0f) + dim;
  for (size_t i = 0; g->positions && i < g->side * g->side; i++) {
    for (size_t j = 0; j < g->width; j++) {
      positions[i * dim + j] = g->positions[i * g->width + j];
      positions[i * dim + g->width + j] = -g->positions[i * g->width + j];
    }
  }
}

static const char *write_glass(const struct glass *g, const char *name) {
  static const char *const timm[] = {"patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed"};
  static const char *const hf[] = {"embeddings.patch_embeddings.projection.weight",
                                   "embeddings.patch_embeddings.projection.bias", "embeddings.cls_token",
                                   "embeddings.position_embeddings"};
  const bool is_timm = strcmp(g->naming, "timm") == 0;
  const size_t dim = 2 * g->width + 2;
  struct file *file = calloc(1, sizeof *file);
  assert_non_null(file);
  file->used = (size_t)snprintf(file->header, sizeof file->header,
                                "{\"__metadata__\":{\"num_heads\":\"1\",\"mean\":\"0 0 0\",\"std\":\"1 1 1\"%s}",
                                g->metadata ? g->metadata : "");
  add_embeddings(file, g, is_timm ? timm : hf);
  add_norm(file, is_timm ? "blocks.0.norm1" : "encoder.layer.0.layernorm_before", dim);
  add_norm(file, is_timm ? "blocks.0.norm2" : "encoder.layer.0.layernorm_after", dim);
  if (is_timm) {
    add_linear(file, "blocks.0.attn.qkv", 3 * dim, dim);
  } else {
    add_linear(file, "encoder.layer.0.attention.attention.query", dim, dim);
    add_linear(file, "encoder.layer.0.attention.attention.key", dim, dim);
    add_linear(file, "encoder.layer.0.attention.attention.value", dim, dim);
  }
  add_linear(file, is_timm ? "blocks.0.attn.proj" : "encoder.layer.0.attention.output.dense", dim, dim);
  add_linear(file, is_timm ? "blocks.0.mlp.fc1" : "encoder.layer.0.intermediate.dense", 2, dim);
  add_linear(file, is_timm ? "blocks.0.mlp.fc2" : "encoder.layer.0.output.dense", dim, 2);
  add_norm(file, is_timm ? "norm" : "layernorm", dim);
  file->header[file->used++] = '}';
  while (file->used % 8 != 0) file->header[file->used++] = ' ';
  const size_t data = file->count * sizeof(float), size = 8 + file->used + data;
  unsigned char *bytes = malloc(size);
  assert_non_null(bytes);
  for (size_t i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)file->used >> (8 * i));
  memcpy(bytes + 8, file->header, file->used);
  memcpy(bytes + 8 + file->used, file->data, data);
  const char *path = test_temporary(name);
  test_write_file(path, bytes, size);
  free(bytes);
  free(file);
  return path;
}

static dlora_model *load(const char *path, const dlora_model_options *options) {
  dlora_model *model = NULL;
  assert_status(DLORA_OK, dlora_model_load(&model, path, options));
  assert_non_null(model);
  return model;
}

static dlora_model *load_pixels(const char *naming, const char *metadata, const dlora_model_options *options) {
  const struct glass glass = {naming, PATCH, SIZE / PATCH, COLOURS, NULL, metadata};
  return load(write_glass(&glass, "pixels.safetensors"), options);
}

static dlora_model_info info_of(const dlora_model *model) {
  dlora_model_info info = {.struct_size = sizeof info};
  assert_status(DLORA_OK, dlora_model_get_info(model, &info));
  return info;
}

/* t of every patch of the one image: [patches, width] */
static void look(const dlora_model *model, const dlora_images *images, float *out) {
  const dlora_model_info info = info_of(model);
  const size_t width = (info.embed_dim - 2) / 2;
  dlora_session *session = NULL;
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.max_batch = 1;
  options.training = 1;
  size_t rows = 0, dim = 0;
  assert_status(DLORA_OK, dlora_session_create(&session, model, NULL, &options));
  assert_status(DLORA_OK, dlora_session_forward(session, images, DLORA_TERM_MERGED, NULL, NULL));
  float *tokens = calloc(info.num_tokens * info.embed_dim, sizeof *tokens);
  assert_non_null(tokens);
  assert_status(DLORA_OK, dlora_session_get_input(session, 0, DLORA_INPUT_ATTENTION, tokens, &rows, &dim));
  assert_int_equal(rows, info.num_tokens);
  assert_int_equal(dim, info.embed_dim);
  for (size_t i = 1; i < rows; i++) {
    const float *token = tokens + i * dim;
    for (size_t j = 0; j < width; j++) out[(i - 1) * width + j] = token[j] / token[2 * width];
  }
  free(tokens);
  dlora_session_destroy(session);
}

/* What the model sees of one image, in 0 ... 255: [3, SIZE, SIZE]. */
static void look_at_pixels(const dlora_model *model, const dlora_images *image, float out[3 * SIZE * SIZE]) {
  enum { GRID = SIZE / PATCH };
  float patches[GRID * GRID * COLOURS];
  look(model, image, patches);
  for (size_t i = 0; i < 3 * SIZE * SIZE; i++) {
    const size_t c = i / (SIZE * SIZE), y = i / SIZE % SIZE, x = i % SIZE;
    const float *patch = patches + (y / PATCH * GRID + x / PATCH) * COLOURS;
    out[i] = 255.0f * patch[(c * PATCH + y % PATCH) * PATCH + x % PATCH];
  }
}

static dlora_images image_of(size_t index) {
  char name[32];
  snprintf(name, sizeof name, "image.%zu", index);
  return (dlora_images){.u8 = test_fixture_bytes(references, name, NULL),
                        .count = 1,
                        .height = test_fixture_dim(references, name, 0),
                        .width = test_fixture_dim(references, name, 1),
                        .channels = test_fixture_dim(references, name, 2)};
}

/* ---- pixels ---- */

static const struct setting {
  const char *naming, *resize, *interpolation;
  size_t resized;
  float fraction;
} settings[] = {
    {"timm", "squash", "bicubic", 8, 0.0f},      {"timm", "squash", "bilinear", 8, 0.0f},
    {"timm", "squash", "bicubic", 11, 0.72f},    {"timm", "crop", "bicubic", 8, 0.9f},
    {"timm", "crop", "bicubic", 11, 0.72f},      {"timm", "crop", "bilinear", 11, 0.72f},
    {"hf", "squash", "bilinear", 8, 1.0f},       {"hf", "squash", "bicubic", 11, 8.0f / 11.0f},
    {"hf", "crop", "bicubic", 11, 8.0f / 11.0f}, {"hf", "crop", "bilinear", 11, 8.0f / 11.0f},
};

static dlora_model_options options_of(const struct setting *s) {
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.resize = strcmp(s->resize, "crop") == 0 ? DLORA_RESIZE_CROP : DLORA_RESIZE_SQUASH;
  options.interpolation =
      strcmp(s->interpolation, "bilinear") == 0 ? DLORA_INTERPOLATION_BILINEAR : DLORA_INTERPOLATION_BICUBIC;
  options.crop_fraction = s->fraction;
  return options;
}

static void pixels_are_those_of_timm_and_transformers(void **state) {
  (void)state;
  double largest = 0.0;
  for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
    const dlora_model_options options = options_of(&settings[s]);
    dlora_model *model = load_pixels(settings[s].naming, NULL, &options);
    for (size_t i = 0; i < NUM_IMAGES; i++) {
      char name[64];
      float pixels[3 * SIZE * SIZE];
      size_t count = 0;
      snprintf(name, sizeof name, "%s.%s.%s.%zu.%zu", settings[s].naming, settings[s].resize, settings[s].interpolation,
               settings[s].resized, i);
      const float *expected = test_fixture_floats(references, name, &count);
      assert_int_equal(count, 3 * SIZE * SIZE);
      const dlora_images image = image_of(i);
      look_at_pixels(model, &image, pixels);
      const double change = test_largest_change(pixels, expected, count);
      if (!(change <= LEVEL_TOLERANCE)) fail_msg("%s differs by %g levels", name, change);
      if (change > largest) largest = change;
    }
    dlora_model_destroy(model);
  }
  print_message("largest difference of a pixel: %.1e levels\n", largest);
}

/* Of any shape, also where only a sliver of the image is left and the longer side would have millions of pixels. */
static void one_colour_stays_one_colour(void **state) {
  (void)state;
  static const uint8_t colour[] = {255, 17, 0};
  static const size_t shapes[][2] = {{1, 20000}, {30000, 1}, {2, 1}, {7, 7}, {8, 8}, {11, 12}, {1023, 3}, {64, 48}};
  for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
    dlora_model_options options = options_of(&settings[s]);
    if (s % 2 == 1) options.crop_fraction = 0.01f;
    dlora_model *model = load_pixels(settings[s].naming, NULL, &options);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      const size_t height = shapes[i][0], width = shapes[i][1];
      const dlora_images image = {.count = 1, .height = height, .width = width, .channels = 3};
      uint8_t *bytes = malloc(3 * height * width);
      float pixels[3 * SIZE * SIZE];
      assert_non_null(bytes);
      for (size_t j = 0; j < height * width; j++) memcpy(bytes + 3 * j, colour, 3);
      dlora_images filled = image;
      filled.u8 = bytes;
      look_at_pixels(model, &filled, pixels);
      for (size_t j = 0; j < 3 * SIZE * SIZE; j++) {
        const float expected = colour[j / (SIZE * SIZE)];
        assert_float_equal(pixels[j], expected, LEVEL_TOLERANCE);
      }
      free(bytes);
    }
    dlora_model_destroy(model);
  }
}

static void *note_size(size_t size, void *user) {
  size_t *largest = user;
  if (size > *largest) *largest = size;
  return malloc(size);
}

static void release(void *pointer, void *user) {
  (void)user;
  free(pointer);
}

/* A panorama of 400 000 x 2 pixels, of which 8 x 8 of 1.6 million x 8 are wanted. */
static void only_the_part_that_is_kept_takes_memory(void **state) {
  (void)state;
  size_t largest = 0;
  const dlora_allocator allocator = {note_size, release, &largest};
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.resize = DLORA_RESIZE_CROP;
  dlora_model *crop = load_pixels("timm", NULL, &options);
  const size_t width = 400000;
  uint8_t *bytes = calloc(2 * width, 3);
  assert_non_null(bytes);
  /* White but for the 8 columns in the middle. The model sees 2 of them, and the cubic reaches 2 further. */
  memset(bytes, 255, 2 * width * 3);
  for (size_t y = 0; y < 2; y++) memset(bytes + (y * width + width / 2 - 4) * 3, 0, (size_t)8 * 3);
  const dlora_images image = {.u8 = bytes, .count = 1, .height = 2, .width = width, .channels = 3};
  float pixels[3 * SIZE * SIZE];
  look_at_pixels(crop, &image, pixels);
  for (size_t j = 0; j < 3 * SIZE * SIZE; j++) assert_float_equal(pixels[j], 0.0, 1e-3);
  dlora_model_destroy(crop);
  options.allocator = &allocator;
  options.threads = 1;
  crop = load(test_temporary("pixels.safetensors"), &options);
  float features[2 * COLOURS + 2];
  assert_status(DLORA_OK, dlora_model_embed(crop, &image, features));
  dlora_model_destroy(crop);
  assert_in_range(largest, 1, 1 << 20); /* a row alone would be 4.8 MB as floats */
  free(bytes);
}

static void bytes_and_the_floats_they_become_have_equal_features(void **state) {
  (void)state;
  for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
    dlora_model_options options = options_of(&settings[s]);
    dlora_model *glass = load_pixels("timm", NULL, &options);
    options.image_size = SIZE;
    for (size_t c = 0; c < 3; c++) {
      options.mean[c] = 0.5f;
      options.std[c] = 0.25f;
    }
    dlora_model *model = load(test_data(TIMM_FILE), &options);
    for (size_t i = 0; i < NUM_IMAGES; i++) {
      float pixels[3 * SIZE * SIZE], from_bytes[32], from_floats[32];
      const dlora_images u8 = image_of(i);
      const dlora_images f32 = {.f32 = pixels, .count = 1, .height = SIZE, .width = SIZE};
      look_at_pixels(glass, &u8, pixels);
      for (size_t j = 0; j < 3 * SIZE * SIZE; j++) pixels[j] = (pixels[j] / 255.0f - 0.5f) / 0.25f;
      assert_int_equal(info_of(model).embed_dim, 32);
      assert_status(DLORA_OK, dlora_model_embed(model, &u8, from_bytes));
      assert_status(DLORA_OK, dlora_model_embed(model, &f32, from_floats));
      assert_close(from_bytes, from_floats, 32, 1e-4);
    }
    dlora_model_destroy(glass);
    dlora_model_destroy(model);
  }
}

/* ---- learners ---- */

/* A source is read image by image, a task in memory at once; changes of training images come after all of this. */
static void a_learner_resizes_as_its_model_does(void **state) {
  (void)state;
  static const int64_t classes[] = {3, 5, 8};
  struct test_pictures pictures = test_pictures_sized(classes, 3, 12, 4, 21, 34, 3);
  dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
  dlora_learner *learners[2];
  dlora_model *models[2];
  dlora_learner_options options = test_quick_options();
  options.flip = 1;
  options.crop_padding = 2;
  for (size_t i = 0; i < 2; i++) {
    model_options.resize = i == 0 ? DLORA_RESIZE_SQUASH : DLORA_RESIZE_CROP;
    model_options.crop_fraction = i == 0 ? 0.0f : 0.8f;
    models[i] = load(test_data(TIMM_FILE), &model_options);
  }
  for (size_t i = 0; i < 2; i++) {
    learners[i] = test_learner(models[1], &options);
    if (i == 0) {
      assert_status(DLORA_OK, dlora_learner_learn_task(learners[i], &pictures.images, pictures.labels, NULL));
    } else {
      const dlora_image_source source = test_source_of(&pictures);
      assert_status(DLORA_OK, dlora_learner_learn_source(learners[i], &source, NULL));
    }
  }
  test_assert_same_learner(learners[0], learners[1]);
  assert_true(test_accuracy(learners[0], &pictures) > 0.9);
  float plain[2][36 * 32], embedded[36 * 32];
  for (size_t i = 0; i < 2; i++) assert_status(DLORA_OK, dlora_model_embed(models[i], &pictures.images, plain[i]));
  assert_true(test_largest_change(plain[0], plain[1], 36 * 32) > 0.1);
  dlora_learner *untrained = test_learner(models[1], &options);
  assert_status(DLORA_OK, dlora_learner_embed(untrained, &pictures.images, NULL, embedded));
  assert_close(embedded, plain[1], 36 * 32, 1e-5);
  dlora_learner_destroy(untrained);
  for (size_t i = 0; i < 2; i++) {
    dlora_learner_destroy(learners[i]);
    dlora_model_destroy(models[i]);
  }
  test_pictures_free(&pictures);
}

static void another_preprocessing_is_another_backbone_and_named(void **state) {
  (void)state;
  static const int64_t classes[] = {0, 1};
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  dlora_model *squash = load(test_data(TIMM_FILE), NULL);
  options.resize = DLORA_RESIZE_CROP;
  options.crop_fraction = 0.875f;
  options.interpolation = DLORA_INTERPOLATION_BILINEAR;
  dlora_model *crop = load(test_data(TIMM_FILE), &options);
  dlora_learner_options learner_options = test_quick_options();
  const char *path = test_temporary("learner.safetensors");
  for (size_t i = 0; i < 2; i++) {
    const dlora_model *own = i == 0 ? squash : crop, *other = i == 0 ? crop : squash;
    dlora_learner *learner = test_learner(own, &learner_options), *loaded = NULL;
    test_learn(learner, classes, 2, 6, 1, NULL);
    assert_status(DLORA_OK, dlora_learner_save(learner, path));
    dlora_learner_destroy(learner);
    assert_status(DLORA_ERR_MISMATCH, dlora_learner_load(&loaded, other, path, NULL));
    assert_null(loaded);
    assert_error_names(info_of(own).fingerprint);
    assert_error_names(i == 0 ? "resize was squash, here it is crop" : "resize was crop, here it is squash");
    assert_error_names(i == 0 ? "was bicubic, here it is bilinear" : "was bilinear, here it is bicubic");
    assert_error_names(i == 0 ? "crop_fraction was 1, here it is 0.875" : "crop_fraction was 0.875, here it is 1");
    assert_status(DLORA_OK, dlora_learner_load(&loaded, own, path, NULL));
    dlora_learner_destroy(loaded);
  }
  dlora_model_destroy(squash);
  dlora_model_destroy(crop);
}

/* ---- settings ---- */

static void metadata_and_options_choose_the_preprocessing(void **state) {
  (void)state;
  static const char crop[] =
      ",\"resize\":\"crop\",\"interpolation\":\"bilinear\",\"crop_fraction\":\"0.72\",\"position_resampling\":\"timm\"";
  dlora_model *model = load_pixels("hf", crop, NULL);
  dlora_model_info info = info_of(model);
  assert_int_equal(info.resize, DLORA_RESIZE_CROP);
  assert_int_equal(info.interpolation, DLORA_INTERPOLATION_BILINEAR);
  assert_int_equal(info.position_resampling, DLORA_POSITIONS_TIMM);
  assert_float_equal(info.crop_fraction, 0.72f, 0.0);
  float pixels[3 * SIZE * SIZE];
  const dlora_images image = image_of(0);
  look_at_pixels(model, &image, pixels);
  const float *expected = test_fixture_floats(references, "hf.crop.bilinear.11.0", NULL);
  assert_true(test_largest_change(pixels, expected, 3 * SIZE * SIZE) <= LEVEL_TOLERANCE);
  dlora_model_destroy(model);

  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.interpolation = DLORA_INTERPOLATION_BICUBIC;
  options.position_resampling = DLORA_POSITIONS_HUGGING_FACE;
  model = load_pixels("hf", crop, &options);
  info = info_of(model);
  assert_int_equal(info.resize, DLORA_RESIZE_CROP);
  assert_int_equal(info.interpolation, DLORA_INTERPOLATION_BICUBIC);
  assert_int_equal(info.position_resampling, DLORA_POSITIONS_HUGGING_FACE);
  assert_float_equal(info.crop_fraction, 0.72f, 0.0);
  dlora_model_destroy(model);

  /* The file's fraction is of its own way of resizing: who asks for the other one gets the whole image. */
  options = (dlora_model_options)DLORA_MODEL_OPTIONS_INIT;
  options.resize = DLORA_RESIZE_SQUASH;
  model = load_pixels("hf", crop, &options);
  assert_int_equal(info_of(model).resize, DLORA_RESIZE_SQUASH);
  assert_float_equal(info_of(model).crop_fraction, 1.0f, 0.0);
  dlora_model_destroy(model);
  options.crop_fraction = 0.5f;
  model = load_pixels("hf", crop, &options);
  assert_float_equal(info_of(model).crop_fraction, 0.5f, 0.0);
  dlora_model_destroy(model);

  model = load_pixels("timm", NULL, NULL);
  info = info_of(model);
  assert_int_equal(info.resize, DLORA_RESIZE_SQUASH);
  assert_int_equal(info.interpolation, DLORA_INTERPOLATION_BICUBIC);
  assert_int_equal(info.position_resampling, DLORA_POSITIONS_TIMM);
  assert_float_equal(info.crop_fraction, 1.0f, 0.0);
  dlora_model_destroy(model);
}

static void unusable_settings_are_refused_by_name(void **state) {
  (void)state;
  static const struct {
    const char *metadata, *named;
  } files[] = {
      {",\"resize\":\"border\"", "resize"},
      {",\"resize\":\"Crop\"", "resize"},
      {",\"interpolation\":\"lanczos\"", "interpolation"},
      {",\"interpolation\":\"\"", "interpolation"},
      {",\"position_resampling\":\"huggingface\"", "position_resampling"},
      {",\"crop_fraction\":\"0\"", "crop_fraction"},
      {",\"crop_fraction\":\"1.01\"", "crop_fraction"},
      {",\"crop_fraction\":\"-0.9\"", "crop_fraction"},
      {",\"crop_fraction\":\"0.9x\"", "crop_fraction"},
      {",\"crop_fraction\":\"nan\"", "crop_fraction"},
      {",\"crop_fraction\":\"\"", "crop_fraction"},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    const struct glass glass = {"timm", PATCH, SIZE / PATCH, COLOURS, NULL, files[i].metadata};
    dlora_model *model = NULL;
    const dlora_status expected = i < 5 ? DLORA_ERR_UNSUPPORTED : DLORA_ERR_FORMAT; /* a word; a number */
    assert_status(expected, dlora_model_load(&model, write_glass(&glass, "refused.safetensors"), NULL));
    assert_null(model);
    assert_error_names(files[i].named);
  }
  static const float fractions[] = {0.001f, -0.5f, 1.5f, NAN, INFINITY};
  for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++) {
    dlora_model *model = NULL;
    dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
    options.crop_fraction = fractions[i];
    assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, test_data(TIMM_FILE), &options));
    assert_error_names("crop_fraction");
  }
  for (size_t i = 0; i < 3; i++) {
    dlora_model *model = NULL;
    dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
    *(i == 0 ? &options.resize : i == 1 ? &options.interpolation : &options.position_resampling) = 2;
    assert_status(DLORA_ERR_ARGUMENT, dlora_model_load(&model, test_data(TIMM_FILE), &options));
    assert_error_names(i == 0 ? "resize" : i == 1 ? "interpolation" : "position_resampling");
  }
}

/* ---- fingerprints ---- */

static void fingerprint_of(char out[40], const char *file, dlora_model_options options) {
  dlora_model *model = load(test_data(file), &options);
  memcpy(out, info_of(model).fingerprint, 40);
  dlora_model_destroy(model);
}

static void fingerprints_change_with_what_changes_features(void **state) {
  (void)state;
  const dlora_model_options defaults = DLORA_MODEL_OPTIONS_INIT;
  dlora_model_options options = defaults;
  char usual[40], other[40], third[40];
  fingerprint_of(usual, TIMM_FILE, defaults);
  assert_string_equal(usual, "86f73602c5a7ddf9d803181f79340283"); /* what learners of older libraries know it by */
  options.resize = DLORA_RESIZE_SQUASH;
  options.interpolation = DLORA_INTERPOLATION_BICUBIC;
  options.crop_fraction = 0.99f; /* 16 / 0.99 = 16 pixels */
  options.position_resampling = DLORA_POSITIONS_HUGGING_FACE;
  fingerprint_of(other, TIMM_FILE, options);
  assert_string_equal(usual, other);
  options = defaults;
  options.interpolation = DLORA_INTERPOLATION_BILINEAR;
  fingerprint_of(other, TIMM_FILE, options);
  assert_string_not_equal(usual, other);
  options = defaults;
  options.resize = DLORA_RESIZE_CROP;
  fingerprint_of(third, TIMM_FILE, options);
  assert_string_not_equal(usual, third);
  assert_string_not_equal(other, third);
  options.crop_fraction = 0.95f; /* 16 / 0.95 = 16.8 */
  fingerprint_of(other, TIMM_FILE, options);
  assert_string_equal(other, third);
  options.crop_fraction = 0.9f;
  fingerprint_of(other, TIMM_FILE, options);
  assert_string_not_equal(other, third);
  options.resize = DLORA_RESIZE_SQUASH;
  fingerprint_of(third, TIMM_FILE, options);
  assert_string_not_equal(other, third);
  assert_string_not_equal(usual, third);
}

/* ---- positions ---- */

/* As a naming does by default, by the options, and by metadata. */
static void positions_of(const char *naming, const char *metadata, int32_t option, size_t side, size_t grid,
                         const float *given, float *out) {
  const struct glass glass = {naming, 1, side, 4, given, metadata};
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.image_size = grid;
  options.position_resampling = option;
  dlora_model *model = load(write_glass(&glass, "positions.safetensors"), &options);
  const uint8_t black[3 * 9 * 9] = {0};
  const dlora_images image = {.u8 = black, .count = 1, .height = grid, .width = grid, .channels = 3};
  look(model, &image, out);
  dlora_model_destroy(model);
}

static void positions_are_resampled_as_the_family_does(void **state) {
  (void)state;
  static const size_t grids[][2] = {{5, 2}, {5, 3}, {5, 9}, {2, 3}, {1, 2}};
  static const char to_timm[] = ",\"position_resampling\":\"timm\"",
                    to_hugging_face[] = ",\"position_resampling\":\"hugging-face\"";
  for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
    const size_t side = grids[i][0], grid = grids[i][1], count = grid * grid * 4;
    char name[32];
    float found[4 * 9 * 9], timm[4 * 9 * 9];
    snprintf(name, sizeof name, "positions.%zu.%zu", side, grid);
    const float *given = test_fixture_floats(references, name, NULL);
    snprintf(name, sizeof name, "resampled.%zu.%zu", side, grid);
    const float *expected = test_fixture_floats(references, name, NULL);
    positions_of("hf", NULL, DLORA_AUTO, side, grid, given, found);
    assert_true(test_largest_change(found, expected, count) < POSITION_TOLERANCE);
    positions_of("timm", NULL, DLORA_POSITIONS_HUGGING_FACE, side, grid, given, found);
    assert_true(test_largest_change(found, expected, count) < POSITION_TOLERANCE);
    positions_of("timm", to_hugging_face, DLORA_AUTO, side, grid, given, found);
    assert_true(test_largest_change(found, expected, count) < POSITION_TOLERANCE);
    positions_of("timm", NULL, DLORA_AUTO, side, grid, given, timm);
    assert_true(side == 1 || test_largest_change(timm, expected, count) > 0.01);
    positions_of("hf", NULL, DLORA_POSITIONS_TIMM, side, grid, given, found);
    assert_memory_equal(found, timm, count * sizeof *found);
    positions_of("hf", to_timm, DLORA_AUTO, side, grid, given, found);
    assert_memory_equal(found, timm, count * sizeof *found);
  }
}

static void no_rule_matters_where_nothing_is_resampled(void **state) {
  (void)state;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  char by_default[40], by_timm[40];
  fingerprint_of(by_default, HF_FILE, options);
  options.position_resampling = DLORA_POSITIONS_TIMM;
  fingerprint_of(by_timm, HF_FILE, options);
  assert_string_equal(by_default, by_timm);
  options.image_size = 24;
  fingerprint_of(by_timm, HF_FILE, options);
  options.position_resampling = DLORA_AUTO;
  fingerprint_of(by_default, HF_FILE, options);
  assert_string_not_equal(by_default, by_timm);
}

/* Learnt with either rule, loaded on a model of the other one: the same predictions, further tasks and files. */
static void a_learner_keeps_the_rule_it_was_learnt_with(void **state) {
  (void)state;
  static const int64_t first[] = {1, 2}, second[] = {7, 9}, all[] = {1, 2, 7, 9};
  struct test_pictures pictures = test_pictures_sized(all, 4, 5, 77, 24, 24, 3);
  dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
  dlora_learner_options options = test_quick_options();
  dlora_model *models[2]; /* DLORA_POSITIONS_... */
  float plain[2][20 * 32];
  model_options.image_size = 24;
  for (int32_t rule = 0; rule < 2; rule++) {
    model_options.position_resampling = rule;
    models[rule] = load(test_data(HF_FILE), &model_options);
    assert_status(DLORA_OK, dlora_model_embed(models[rule], &pictures.images, plain[rule]));
  }
  assert_true(test_largest_change(plain[0], plain[1], 20 * 32) > 0.05);
  for (int32_t rule = 0; rule < 2; rule++) {
    const char *path = test_temporary("kept.safetensors");
    dlora_learner *straight = test_learner(models[rule], &options), *kept = NULL;
    test_learn(straight, first, 2, 10, 5, NULL);
    assert_status(DLORA_OK, dlora_learner_save(straight, path));
    assert_status(DLORA_OK, dlora_learner_load(&kept, models[1 - rule], path, &options));
    test_assert_same_learner(straight, kept);
    test_learn(straight, second, 2, 10, 6, NULL);
    test_learn(kept, second, 2, 10, 6, NULL);
    test_assert_same_learner(straight, kept);
    float log_probs[2][20 * 4], features[2][20 * 32];
    dlora_prediction predictions[20];
    for (size_t i = 0; i < 2; i++) {
      const dlora_learner *learner = i == 0 ? straight : kept;
      assert_status(DLORA_OK, dlora_learner_predict(learner, &pictures.images, predictions, log_probs[i]));
      assert_status(DLORA_OK, dlora_learner_embed(learner, &pictures.images, NULL, features[i]));
    }
    assert_memory_equal(log_probs[0], log_probs[1], sizeof log_probs[0]);
    assert_memory_equal(features[0], features[1], sizeof features[0]);
    dlora_learner_destroy(straight);
    dlora_learner_destroy(kept);
  }
  /* The model itself is what it was. */
  float again[20 * 32];
  assert_status(DLORA_OK, dlora_model_embed(models[0], &pictures.images, again));
  assert_memory_equal(again, plain[0], sizeof again);
  for (int32_t rule = 0; rule < 2; rule++) dlora_model_destroy(models[rule]);
  test_pictures_free(&pictures);
}

static void every_failed_allocation_of_such_a_learner_is_reported(void **state) {
  (void)state;
  static const int64_t classes[] = {1, 2};
  struct test_memory memory;
  dlora_model_options model_options = DLORA_MODEL_OPTIONS_INIT;
  const char *path = test_temporary("failing.safetensors");
  model_options.image_size = 24;
  dlora_model *by_default = load(test_data(HF_FILE), &model_options);
  model_options.position_resampling = DLORA_POSITIONS_TIMM;
  dlora_model *timm = load(test_data(HF_FILE), &model_options);
  dlora_learner_options options = test_quick_options();
  dlora_learner *learner = test_learner(timm, &options);
  test_learn(learner, classes, 2, 6, 5, NULL);
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  dlora_learner_destroy(learner);
  dlora_status status = DLORA_ERR_NO_MEMORY;
  for (size_t i = 0; status != DLORA_OK; i++) {
    assert_true(i < 5000);
    test_memory_start(&memory);
    memory.fail_at = i;
    options.allocator = &memory.allocator;
    learner = NULL;
    status = dlora_learner_load(&learner, by_default, path, &options);
    if (status != DLORA_OK) assert_status(DLORA_ERR_NO_MEMORY, status);
    dlora_learner_destroy(learner);
    assert_int_equal(atomic_load(&memory.live), 0);
  }
  dlora_model_destroy(timm);
  dlora_model_destroy(by_default);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pixels_are_those_of_timm_and_transformers),
      cmocka_unit_test(one_colour_stays_one_colour),
      cmocka_unit_test(only_the_part_that_is_kept_takes_memory),
      cmocka_unit_test(bytes_and_the_floats_they_become_have_equal_features),
      cmocka_unit_test(a_learner_resizes_as_its_model_does),
      cmocka_unit_test(another_preprocessing_is_another_backbone_and_named),
      cmocka_unit_test(metadata_and_options_choose_the_preprocessing),
      cmocka_unit_test(unusable_settings_are_refused_by_name),
      cmocka_unit_test(fingerprints_change_with_what_changes_features),
      cmocka_unit_test(positions_are_resampled_as_the_family_does),
      cmocka_unit_test(no_rule_matters_where_nothing_is_resampled),
      cmocka_unit_test(a_learner_keeps_the_rule_it_was_learnt_with),
      cmocka_unit_test(every_failed_allocation_of_such_a_learner_is_reported),
  };
  return cmocka_run_group_tests(tests, open_references, close_references);
}
