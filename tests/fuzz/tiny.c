/* SPDX-License-Identifier: Apache-2.0 */
#include "tiny.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { MAX_HEADER = 1 << 15, MAX_DATA = 1 << 17 };

struct file {
  const struct tiny_kind *kind;
  char header[MAX_HEADER];
  uint8_t data[MAX_DATA];
  size_t header_size, data_size;
  uint32_t random;
};

/* Of a float that F16 and BF16 hold exactly: a few bits at the top of the mantissa. */
static void add_value(struct file *file, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t half = value == 0.0f ? 0 : (bits >> 16 & 0x8000u) | ((bits >> 13 & 0x3FFFFu) - (112u << 10));
  size_t width = 4;
  if (strcmp(file->kind->dtype, "F32") != 0) width = 2;
  if (strcmp(file->kind->dtype, "F16") == 0) bits = half & 0xFFFFu;
  if (strcmp(file->kind->dtype, "BF16") == 0) bits >>= 16;
  for (size_t i = 0; i < width; i++) file->data[file->data_size++] = (uint8_t)(bits >> (8 * i));
}

/* dims ends with 0. Values around mean; the gains of norms have mean 1. */
static void add(struct file *file, float mean, const size_t *dims, const char *format, ...) {
  const size_t begin = file->data_size;
  size_t count = 1;
  char name[96], shape[64] = "";
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  for (size_t i = 0; dims[i]; i++) {
    count *= dims[i];
    snprintf(shape + strlen(shape), sizeof shape - strlen(shape), i ? ",%zu" : "%zu", dims[i]);
  }
  for (size_t i = 0; i < count; i++) {
    file->random = file->random * 1664525u + 1013904223u;
    add_value(file, mean + (float)((int)(file->random >> 27) - 16) / 64.0f);
  }
  file->header_size +=
      (size_t)snprintf(file->header + file->header_size, MAX_HEADER - file->header_size,
                       "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                       file->header_size > 1 ? "," : "", name, file->kind->dtype, shape, begin, file->data_size);
}

static void add_linear(struct file *file, size_t rows, size_t cols, int bias, const char *part, size_t block) {
  add(file, 0.0f, (size_t[]){rows, cols, 0}, part, block, "weight");
  if (bias) add(file, 0.0f, (size_t[]){rows, 0}, part, block, "bias");
}

static void add_norm(struct file *file, const char *part, size_t block) {
  add(file, 1.0f, (size_t[]){TINY_DIM, 0}, part, block, "weight");
  add(file, 0.0f, (size_t[]){TINY_DIM, 0}, part, block, "bias");
}

static void add_timm(struct file *file) {
  add(file, 0.0f, (size_t[]){TINY_DIM, 3, TINY_PATCH, TINY_PATCH, 0}, "patch_embed.proj.weight");
  add(file, 0.0f, (size_t[]){TINY_DIM, 0}, "patch_embed.proj.bias");
  add(file, 0.0f, (size_t[]){1, 1, TINY_DIM, 0}, "cls_token");
  add(file, 0.0f, (size_t[]){1, TINY_TOKENS, TINY_DIM, 0}, "pos_embed");
  for (size_t b = 0; b < file->kind->depth; b++) {
    add_norm(file, "blocks.%zu.norm1.%s", b);
    add_linear(file, 3 * TINY_DIM, TINY_DIM, !file->kind->no_bias, "blocks.%zu.attn.qkv.%s", b);
    add_linear(file, TINY_DIM, TINY_DIM, 1, "blocks.%zu.attn.proj.%s", b);
    add_norm(file, "blocks.%zu.norm2.%s", b);
    add_linear(file, TINY_MLP, TINY_DIM, 1, "blocks.%zu.mlp.fc1.%s", b);
    add_linear(file, TINY_DIM, TINY_MLP, 1, "blocks.%zu.mlp.fc2.%s", b);
    if (!file->kind->layer_scale) continue;
    add(file, 0.5f, (size_t[]){TINY_DIM, 0}, "blocks.%zu.ls1.gamma", b);
    add(file, 0.5f, (size_t[]){TINY_DIM, 0}, "blocks.%zu.ls2.gamma", b);
  }
  add(file, 1.0f, (size_t[]){TINY_DIM, 0}, "norm.weight");
  add(file, 0.0f, (size_t[]){TINY_DIM, 0}, "norm.bias");
}

static void add_hugging_face(struct file *file) {
  const int dino = file->kind->naming == DLORA_NAMING_HF_DINOV2;
  static const char *const parts[] = {"query", "key", "value"};
  add(file, 0.0f, (size_t[]){TINY_DIM, 3, TINY_PATCH, TINY_PATCH, 0}, "embeddings.patch_embeddings.projection.weight");
  add(file, 0.0f, (size_t[]){TINY_DIM, 0}, "embeddings.patch_embeddings.projection.bias");
  add(file, 0.0f, (size_t[]){1, 1, TINY_DIM, 0}, "embeddings.cls_token");
  add(file, 0.0f, (size_t[]){1, TINY_TOKENS, TINY_DIM, 0}, "embeddings.position_embeddings");
  for (size_t b = 0; b < file->kind->depth; b++) {
    add_norm(file, dino ? "encoder.layer.%zu.norm1.%s" : "encoder.layer.%zu.layernorm_before.%s", b);
    add_norm(file, dino ? "encoder.layer.%zu.norm2.%s" : "encoder.layer.%zu.layernorm_after.%s", b);
    for (size_t p = 0; p < 3; p++) {
      add(file, 0.0f, (size_t[]){TINY_DIM, TINY_DIM, 0}, "encoder.layer.%zu.attention.attention.%s.weight", b,
          parts[p]);
      if (file->kind->no_bias) continue;
      add(file, 0.0f, (size_t[]){TINY_DIM, 0}, "encoder.layer.%zu.attention.attention.%s.bias", b, parts[p]);
    }
    add_linear(file, TINY_DIM, TINY_DIM, 1, "encoder.layer.%zu.attention.output.dense.%s", b);
    add_linear(file, TINY_MLP, TINY_DIM, 1,
               dino ? "encoder.layer.%zu.mlp.fc1.%s" : "encoder.layer.%zu.intermediate.dense.%s", b);
    add_linear(file, TINY_DIM, TINY_MLP, 1, dino ? "encoder.layer.%zu.mlp.fc2.%s" : "encoder.layer.%zu.output.dense.%s",
               b);
    if (!dino) continue;
    add(file, 0.5f, (size_t[]){TINY_DIM, 0}, "encoder.layer.%zu.layer_scale1.lambda1", b);
    add(file, 0.5f, (size_t[]){TINY_DIM, 0}, "encoder.layer.%zu.layer_scale2.lambda1", b);
  }
  add(file, 1.0f, (size_t[]){TINY_DIM, 0}, "layernorm.weight");
  add(file, 0.0f, (size_t[]){TINY_DIM, 0}, "layernorm.bias");
}

uint8_t *tiny_model(const struct tiny_kind *kind, size_t *size) {
  struct file *file = calloc(1, sizeof *file);
  if (!file) fuzz_fail("no memory");
  file->kind = kind;
  file->random = 1;
  file->header_size =
      (size_t)snprintf(file->header, MAX_HEADER,
                       "{\"__metadata__\":{\"num_heads\":\"%d\",\"image_size\":\"%d\",\"mean\":\"[0.5, 0.5, 0.4]\","
                       "\"std\":\"0.5,0.5,0.6\",\"layer_norm_eps\":\"1e-6\"}",
                       TINY_HEADS, TINY_IMAGE);
  if (kind->naming == DLORA_NAMING_TIMM) {
    add_timm(file);
  } else {
    add_hugging_face(file);
  }
  file->header[file->header_size++] = '}';
  while (file->header_size % 8) file->header[file->header_size++] = ' ';
  *size = 8 + file->header_size + file->data_size;
  uint8_t *bytes = malloc(*size);
  if (!bytes) fuzz_fail("no memory");
  for (size_t i = 0; i < 8; i++) bytes[i] = (uint8_t)(file->header_size >> (8 * i));
  memcpy(bytes + 8, file->header, file->header_size);
  memcpy(bytes + 8 + file->header_size, file->data, file->data_size);
  free(file);
  return bytes;
}
