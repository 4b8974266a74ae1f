/* Random weights of a Vision Transformer of any geometry, as safetensors with timm's names. What a step costs does not
 * depend on the values; these are scaled so that features stay of the size they have in a trained network.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "speed.h"

struct writer {
  FILE *file;
  char *header; /* grows */
  size_t used, room, count;
  uint32_t random;
  int listing; /* 1: sizes go to the header, 0: values to the file */
  int failed;
};

static void add(struct writer *w, const char *name, const char *shape, size_t count, float mean, float deviation) {
  if (w->failed) return;
  if (w->listing) {
    if (w->room - w->used < 256) {
      char *grown = realloc(w->header, w->room += 16384);
      if (!grown) {
        w->failed = speed_fail("no memory");
        return;
      }
      w->header = grown;
    }
    w->used += (size_t)snprintf(w->header + w->used, w->room - w->used,
                                ",\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", name, shape,
                                w->count * sizeof(float), (w->count + count) * sizeof(float));
    w->count += count;
    return;
  }
  const float width = sqrtf(3.0f) * deviation; /* of a uniform distribution with this deviation */
  float part[1024];
  while (count) {
    const size_t n = count < 1024 ? count : 1024;
    for (size_t i = 0; i < n; i++) part[i] = mean + width * speed_uniform(&w->random);
    if (fwrite(part, sizeof *part, n, w->file) != n) {
      w->failed = speed_fail("cannot write weights: %s", strerror(errno));
      return;
    }
    count -= n;
  }
}

static void add_vector(struct writer *w, const char *part, const char *name, size_t count, float mean,
                       float deviation) {
  char full[96], shape[32];
  snprintf(full, sizeof full, "%s.%s", part, name);
  snprintf(shape, sizeof shape, "%zu", count);
  add(w, full, shape, count, mean, deviation);
}

static void add_linear(struct writer *w, const char *part, const char *name, size_t rows, size_t cols) {
  char full[64], shape[48];
  snprintf(full, sizeof full, "%s.%s.weight", part, name);
  snprintf(shape, sizeof shape, "%zu,%zu", rows, cols);
  add(w, full, shape, rows * cols, 0.0f, 0.8f / sqrtf((float)cols));
  snprintf(full, sizeof full, "%s.%s", part, name);
  add_vector(w, full, "bias", rows, 0.0f, 0.05f);
}

static void add_all(struct writer *w, const struct speed_geometry *g) {
  const size_t grid = g->image_size / g->patch_size, tokens = 1 + grid * grid;
  const size_t pixels = 3 * g->patch_size * g->patch_size;
  char shape[64], part[32];
  snprintf(shape, sizeof shape, "%zu,3,%zu,%zu", g->dim, g->patch_size, g->patch_size);
  add(w, "patch_embed.proj.weight", shape, g->dim * pixels, 0.0f, 1.0f / sqrtf((float)pixels));
  add_vector(w, "patch_embed.proj", "bias", g->dim, 0.0f, 0.05f);
  snprintf(shape, sizeof shape, "1,1,%zu", g->dim);
  add(w, "cls_token", shape, g->dim, 0.0f, 0.5f);
  snprintf(shape, sizeof shape, "1,%zu,%zu", tokens, g->dim);
  add(w, "pos_embed", shape, tokens * g->dim, 0.0f, 0.3f);
  for (size_t i = 0; i < g->depth; i++) {
    snprintf(part, sizeof part, "blocks.%zu", i);
    add_vector(w, part, "norm1.weight", g->dim, 1.0f, 0.1f);
    add_vector(w, part, "norm1.bias", g->dim, 0.0f, 0.1f);
    add_linear(w, part, "attn.qkv", 3 * g->dim, g->dim);
    add_linear(w, part, "attn.proj", g->dim, g->dim);
    if (g->layer_scale) add_vector(w, part, "ls1.gamma", g->dim, 0.7f, 0.2f);
    add_vector(w, part, "norm2.weight", g->dim, 1.0f, 0.1f);
    add_vector(w, part, "norm2.bias", g->dim, 0.0f, 0.1f);
    add_linear(w, part, "mlp.fc1", g->mlp_dim, g->dim);
    add_linear(w, part, "mlp.fc2", g->dim, g->mlp_dim);
    if (g->layer_scale) add_vector(w, part, "ls2.gamma", g->dim, 0.7f, 0.2f);
  }
  add_vector(w, "norm", "weight", g->dim, 1.0f, 0.1f);
  add_vector(w, "norm", "bias", g->dim, 0.0f, 0.1f);
}

int speed_write_weights(const char *path, const struct speed_geometry *g) {
  struct writer w = {.room = 16384, .listing = 1, .random = 2463534242u};
  unsigned char length[8];
  w.header = malloc(w.room);
  if (!w.header) return speed_fail("no memory");
  w.used = (size_t)snprintf(w.header, w.room, "{\"__metadata__\":{\"num_heads\":\"%zu\",\"layer_norm_eps\":\"1e-6\"}",
                            g->heads);
  add_all(&w, g);
  if (w.failed) goto done;
  w.header[w.used++] = '}'; /* add() leaves room */
  while (w.used % 8) w.header[w.used++] = ' ';
  for (size_t i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)w.used >> (8 * i));
  w.file = fopen(path, "wb");
  if (!w.file) {
    w.failed = speed_fail("%s cannot be made: %s", path, strerror(errno));
    goto done;
  }
  if (fwrite(length, 1, 8, w.file) != 8 || fwrite(w.header, 1, w.used, w.file) != w.used) {
    w.failed = speed_fail("%s cannot be written: %s", path, strerror(errno));
  }
  w.listing = 0;
  add_all(&w, g);
  if (fclose(w.file) != 0 && !w.failed) w.failed = speed_fail("%s cannot be written: %s", path, strerror(errno));
done:
  free(w.header);
  return w.failed;
}
