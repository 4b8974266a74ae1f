/* SPDX-License-Identifier: Apache-2.0 */
#include "support_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

struct vit_file {
  char header[16384];
  size_t header_used;
  float *data;
  size_t count, room;
  uint32_t random;
};

/* Normal values with this standard deviation around this mean. */
static void add_tensor(struct vit_file *file, const char *name, const char *shape, size_t count, float mean,
                       float std) {
  const size_t begin = file->count * sizeof(float), end = begin + count * sizeof(float);
  file->header_used += (size_t)snprintf(file->header + file->header_used, sizeof file->header - file->header_used,
                                        ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name,
                                        shape, begin, end);
  assert_true(file->header_used < sizeof file->header);
  if (file->count + count > file->room) {
    file->room = 2 * (file->count + count);
    file->data = realloc(file->data, file->room * sizeof *file->data);
    assert_non_null(file->data);
  }
  for (size_t i = 0; i < count; i++) file->data[file->count++] = mean + std * test_normal(&file->random);
}

static void add_linear(struct vit_file *file, const char *name, size_t rows, size_t cols) {
  char full[64], shape[32];
  snprintf(full, sizeof full, "%s.weight", name);
  snprintf(shape, sizeof shape, "%zu,%zu", rows, cols);
  add_tensor(file, full, shape, rows * cols, 0.0f, 1.2f / sqrtf((float)cols));
  snprintf(full, sizeof full, "%s.bias", name);
  snprintf(shape, sizeof shape, "%zu", rows);
  add_tensor(file, full, shape, rows, 0.0f, 0.1f);
}

static void add_norm(struct vit_file *file, const char *name, size_t dim) {
  char full[64], shape[32];
  snprintf(shape, sizeof shape, "%zu", dim);
  snprintf(full, sizeof full, "%s.weight", name);
  add_tensor(file, full, shape, dim, 1.0f, 0.1f);
  snprintf(full, sizeof full, "%s.bias", name);
  add_tensor(file, full, shape, dim, 0.0f, 0.1f);
}

static void add_tokens(struct vit_file *file, const char *name, size_t count, size_t dim) {
  char shape[64];
  snprintf(shape, sizeof shape, "1,%zu,%zu", count, dim);
  add_tensor(file, name, shape, count * dim, 0.0f, 0.5f);
}

/* The names of timm's AttentionPoolLatent. */
static void add_attention_pool(struct vit_file *file, const struct test_shape *s) {
  add_tokens(file, "attn_pool.latent", 1, s->dim);
  add_linear(file, "attn_pool.q", s->dim, s->dim);
  add_linear(file, "attn_pool.kv", 2 * s->dim, s->dim);
  add_linear(file, "attn_pool.proj", s->dim, s->dim);
  add_norm(file, "attn_pool.norm", s->dim);
  add_linear(file, "attn_pool.mlp.fc1", s->mlp_dim, s->dim);
  add_linear(file, "attn_pool.mlp.fc2", s->dim, s->mlp_dim);
}

const char *test_write_vit_of(const char *name, uint32_t seed, const struct test_shape *shape) {
  return test_write_vit_with(name, seed, shape, &(struct test_ends){.registers = 0});
}

const char *test_write_vit_with(const char *name, uint32_t seed, const struct test_shape *s,
                                const struct test_ends *ends) {
  struct vit_file *file = calloc(1, sizeof *file);
  char shape[64];
  assert_non_null(file);
  file->random = 77u + seed;
  file->header_used =
      (size_t)snprintf(file->header, sizeof file->header, "{\"__metadata__\":{\"num_heads\":\"%zu\"}", s->heads);
  snprintf(shape, sizeof shape, "%zu,3,%zu,%zu", s->dim, s->patch_size, s->patch_size);
  add_tensor(file, "patch_embed.proj.weight", shape, s->dim * 3 * s->patch_size * s->patch_size, 0.0f, 0.2f);
  snprintf(shape, sizeof shape, "%zu", s->dim);
  add_tensor(file, "patch_embed.proj.bias", shape, s->dim, 0.0f, 0.1f);
  const size_t positions = s->grid * s->grid + !ends->without_class_token + !!ends->distillation_token;
  if (!ends->without_class_token) add_tokens(file, "cls_token", 1, s->dim);
  if (ends->distillation_token) add_tokens(file, "dist_token", 1, s->dim);
  if (ends->registers > 0) add_tokens(file, "reg_token", ends->registers, s->dim);
  snprintf(shape, sizeof shape, "1,%zu,%zu", positions, s->dim);
  add_tensor(file, "pos_embed", shape, positions * s->dim, 0.0f, 0.3f);
  for (size_t i = 0; i < s->depth; i++) {
    char part[48];
    snprintf(part, sizeof part, "blocks.%zu.norm1", i);
    add_norm(file, part, s->dim);
    snprintf(part, sizeof part, "blocks.%zu.attn.qkv", i);
    add_linear(file, part, 3 * s->dim, s->dim);
    snprintf(part, sizeof part, "blocks.%zu.attn.proj", i);
    add_linear(file, part, s->dim, s->dim);
    snprintf(part, sizeof part, "blocks.%zu.norm2", i);
    add_norm(file, part, s->dim);
    snprintf(part, sizeof part, "blocks.%zu.mlp.fc1", i);
    add_linear(file, part, s->mlp_dim, s->dim);
    snprintf(part, sizeof part, "blocks.%zu.mlp.fc2", i);
    add_linear(file, part, s->dim, s->mlp_dim);
  }
  if (!ends->without_norm) add_norm(file, "norm", s->dim);
  if (ends->norm_behind) add_norm(file, "fc_norm", s->dim);
  if (ends->attention) add_attention_pool(file, s);
  file->header[file->header_used++] = '}';
  while (file->header_used % 8) file->header[file->header_used++] = ' ';

  const size_t data_size = file->count * sizeof(float), size = 8 + file->header_used + data_size;
  unsigned char *bytes = malloc(size);
  assert_non_null(bytes);
  for (size_t i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)file->header_used >> (8 * i));
  memcpy(bytes + 8, file->header, file->header_used);
  memcpy(bytes + 8 + file->header_used, file->data, data_size);
  const char *path = test_temporary(name);
  test_write_file(path, bytes, size);
  free(bytes);
  free(file->data);
  free(file);
  return path;
}

const char *test_write_vit(const char *name, uint32_t seed) {
  const struct test_shape shape = {VIT_DIM, VIT_DEPTH, VIT_HEADS, VIT_MLP, VIT_PATCH, VIT_SIZE / VIT_PATCH};
  return test_write_vit_of(name, seed, &shape);
}

dlora_model *test_load_vit(uint32_t seed, const dlora_allocator *allocator) {
  char name[32];
  dlora_model *model = NULL;
  dlora_model_options options = DLORA_MODEL_OPTIONS_INIT;
  options.allocator = allocator;
  options.threads = 1;
  snprintf(name, sizeof name, "vit-%u.safetensors", (unsigned)seed);
  assert_status(DLORA_OK, dlora_model_load(&model, test_write_vit(name, seed), &options));
  return model;
}

dlora_model **test_shared_vit;

int test_load_shared_vit(void **state) {
  (void)state;
  *test_shared_vit = test_load_vit(1, NULL);
  return 0;
}

int test_free_shared_vit(void **state) {
  (void)state;
  dlora_model_destroy(*test_shared_vit);
  return 0;
}

unsigned char *test_tensor(unsigned char *bytes, const char *name, size_t *size) {
  size_t header = 0, begin = 0, end = 0;
  for (size_t i = 0; i < 8; i++) header |= (size_t)bytes[i] << (8 * i);
  char *text = malloc(header + 1), quoted[128];
  assert_non_null(text);
  memcpy(text, bytes + 8, header);
  text[header] = '\0';
  snprintf(quoted, sizeof quoted, "\"%s\":{", name);
  const char *entry = strstr(text, quoted), *offsets = entry ? strstr(entry, "\"data_offsets\":[") : NULL;
  if (!offsets || sscanf(offsets, "\"data_offsets\":[%zu,%zu]", &begin, &end) != 2) fail_msg("no tensor %s", name);
  free(text);
  *size = end - begin;
  return bytes + 8 + header + begin;
}

/* ---- pictures ---- */

static void draw(int64_t class_id, size_t height, size_t width, size_t channels, uint32_t *noise, uint8_t *out) {
  uint32_t look = 1000003u * (uint32_t)(class_id + 17) + 12345u;
  float colours[2][3];
  for (int i = 0; i < 8; i++) (void)test_uniform(&look); /* nearby seeds drift apart */
  for (size_t i = 0; i < 6; i++) colours[i / 3][i % 3] = 128.0f + 60.0f * test_uniform(&look);
  const float along = test_uniform(&look) * 3.1415927f, period = 0.3f + 0.1f * test_uniform(&look);
  const float phase = test_uniform(noise) * 3.0f;
  float tint[3]; /* of this picture: what keeps colour alone from telling classes apart */
  for (size_t c = 0; c < 3; c++) tint[c] = 35.0f * test_uniform(noise);
  for (size_t y = 0; y < height; y++) {
    for (size_t x = 0; x < width; x++) {
      const float v = (float)y / (float)height, u = (float)x / (float)width;
      const float wave = sinf((u * cosf(along) + v * sinf(along)) / period * 6.2831853f + phase);
      const float *colour = colours[wave > 0.0f];
      for (size_t c = 0; c < channels; c++) {
        const float value = colour[c] + tint[c] + 30.0f * test_uniform(noise);
        *out++ = (uint8_t)(value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value);
      }
    }
  }
}

struct test_pictures test_pictures_sized(const int64_t *classes, size_t num_classes, size_t per_class, uint32_t seed,
                                         size_t height, size_t width, size_t channels) {
  const size_t count = num_classes * per_class, one = height * width * channels;
  struct test_pictures p = {.pixels = malloc(count * one), .labels = malloc(count * sizeof *p.labels)};
  uint32_t noise = 31u * seed + 5u;
  assert_non_null(p.pixels);
  assert_non_null(p.labels);
  for (size_t i = 0; i < count; i++) {
    p.labels[i] = classes[i % num_classes];
    draw(p.labels[i], height, width, channels, &noise, p.pixels + i * one);
  }
  p.images = (dlora_images){p.pixels, NULL, count, height, width, channels};
  return p;
}

struct test_pictures test_pictures(const int64_t *classes, size_t num_classes, size_t per_class, uint32_t seed) {
  return test_pictures_sized(classes, num_classes, per_class, seed, VIT_SIZE, VIT_SIZE, 3);
}

void test_pictures_free(struct test_pictures *pictures) {
  free(pictures->pixels);
  free(pictures->labels);
  *pictures = (struct test_pictures){.pixels = NULL};
}

dlora_images test_part(const dlora_images *images, size_t first, size_t count) {
  dlora_images part = *images;
  const size_t one = images->height * images->width * (images->u8 ? images->channels : 3);
  if (part.u8) part.u8 += first * one;
  if (part.f32) part.f32 += first * one;
  part.count = count;
  return part;
}

static int32_t read_picture(size_t index, dlora_images *image, void *user) {
  const dlora_images *all = user;
  *image = test_part(all, index, 1);
  return 0;
}

dlora_image_source test_source_of(const struct test_pictures *pictures) {
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = read_picture;
  source.user = (void *)(uintptr_t)&pictures->images; /* read only, whatever the callback's type says */
  source.count = pictures->images.count;
  source.labels = pictures->labels;
  return source;
}

/* ---- learners ---- */

dlora_learner_options test_default_options(void) {
  dlora_learner_options options;
  assert_status(DLORA_OK, dlora_learner_options_init(&options, sizeof options));
  return options;
}

dlora_learner_options test_quick_options(void) {
  dlora_learner_options options = test_default_options();
  options.seed = 3;
  options.threads = 1;
  options.micro_batch = 16;
  options.rank_orthogonal = 4;
  options.rank_residual = 4;
  options.epochs = 2;
  options.batch_size = 16;
  options.first_block = DLORA_FIRST_BLOCK_MIDDLE; /* a trunk remains below it, however few blocks there are */
  options.held_out = 0.1f;
  return options;
}

dlora_learner *test_learner(const dlora_model *model, const dlora_learner_options *options) {
  dlora_learner *learner = NULL;
  assert_status(DLORA_OK, dlora_learner_create(&learner, model, options));
  assert_non_null(learner);
  return learner;
}

void test_learn(dlora_learner *learner, const int64_t *classes, size_t num_classes, size_t per_class, uint32_t seed,
                dlora_task_report *report) {
  struct test_pictures p = test_pictures(classes, num_classes, per_class, seed);
  assert_status(DLORA_OK, dlora_learner_learn_task(learner, &p.images, p.labels, report));
  test_pictures_free(&p);
}

double test_accuracy(const dlora_learner *learner, const struct test_pictures *pictures) {
  const size_t count = pictures->images.count, classes = dlora_learner_num_classes(learner);
  dlora_prediction *predictions = calloc(count, sizeof *predictions);
  float *log_probs = calloc(count * classes, sizeof *log_probs);
  size_t right = 0;
  assert_non_null(predictions);
  assert_non_null(log_probs);
  assert_status(DLORA_OK, dlora_learner_predict(learner, &pictures->images, predictions, log_probs));
  for (size_t i = 0; i < count; i++) {
    double sum = 0.0, best = 0.0;
    for (size_t c = 0; c < classes; c++) {
      const double p = exp((double)log_probs[i * classes + c]);
      assert_true(p >= 0.0 && p <= 1.0 + 1e-5);
      best = p > best ? p : best;
      sum += p;
    }
    assert_float_equal(sum, 1.0, 1e-4);
    assert_float_equal(predictions[i].class_probability, best, 1e-5);
    assert_true(predictions[i].task_probability >= 0.0f && predictions[i].task_probability <= 1.00001f);
    assert_true(predictions[i].task >= 0 && predictions[i].task < (int64_t)dlora_learner_num_tasks(learner));
    assert_true(isfinite(predictions[i].unknown_score));
    right += predictions[i].class_id == pictures->labels[i];
  }
  free(log_probs);
  free(predictions);
  return (double)right / (double)count;
}

unsigned char *test_saved(const dlora_learner *learner, size_t *size) {
  const char *path = test_temporary("as-saved.safetensors");
  assert_status(DLORA_OK, dlora_learner_save(learner, path));
  return test_read_file(path, size);
}

void test_assert_same_learner(const dlora_learner *a, const dlora_learner *b) {
  size_t sizes[2];
  unsigned char *bytes[2] = {test_saved(a, &sizes[0]), test_saved(b, &sizes[1])};
  assert_int_equal(sizes[0], sizes[1]);
  assert_memory_equal(bytes[0], bytes[1], sizes[0]);
  free(bytes[0]);
  free(bytes[1]);
}

/* ---- memory ---- */

static void *allocate(size_t size, void *user) {
  struct test_memory *memory = user;
  const size_t number = atomic_fetch_add(&memory->total, 1);
  if (number == memory->fail_at || (memory->fail_on && number > memory->fail_at)) return NULL;
  void *pointer = malloc(size);
  if (pointer) atomic_fetch_add(&memory->live, 1);
  return pointer;
}

static void release(void *pointer, void *user) {
  struct test_memory *memory = user;
  assert_non_null(pointer);
  atomic_fetch_sub(&memory->live, 1);
  free(pointer);
}

void test_memory_start(struct test_memory *memory) {
  memset(memory, 0, sizeof *memory);
  memory->fail_at = SIZE_MAX;
  memory->allocator = (dlora_allocator){allocate, release, memory};
}
