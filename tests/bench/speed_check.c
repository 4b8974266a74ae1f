/* Features and gradients of one small batch, for comparison with the other programs.
 *
 * The file read has, as raw floats: images [2, 3, size, size]; for every adapted block the factors A [16, dim], of
 * which rows 0-7 are the orthogonal and rows 8-15 the residual branch's, shared by key and value, and then B of the key
 * [dim, 16] and of the value [dim, 16]; the gradient of the loss by the features [2, dim]. The file written has the
 * features of the untouched model [2, dim], the adapted ones [2, dim], and the gradients of every block's two B.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "speed.h"

enum { IMAGES = 2, RANK = 8, BOTH = 2 * RANK };

struct check {
  const struct speed_setup *setup;
  size_t first, sites; /* first adapted block; sites: key and value of each */
  size_t image_values, block_values;
  float *input, *features, *gradients;
  dlora_bank *bank;
  dlora_session *session;
};

/* The bank keeps the factors of a site as B' [dim, 8] and then B_t [dim, 8]; the files have one B [dim, 16]. */
static void to_bank(const float *both, size_t dim, float *out) {
  for (size_t i = 0; i < dim; i++) {
    memcpy(out + i * RANK, both + i * BOTH, RANK * sizeof *out);
    memcpy(out + (dim + i) * RANK, both + i * BOTH + RANK, RANK * sizeof *out);
  }
}

static void from_bank(const float *in, size_t dim, float *both) {
  for (size_t i = 0; i < dim; i++) {
    memcpy(both + i * BOTH, in + i * RANK, RANK * sizeof *both);
    memcpy(both + i * BOTH + RANK, in + (dim + i) * RANK, RANK * sizeof *both);
  }
}

static int make_bank(struct check *c) {
  const size_t dim = c->setup->info.embed_dim;
  dlora_site sites[512];
  if (c->sites > sizeof sites / sizeof *sites) return speed_fail("the model is too deep");
  for (size_t i = 0; i < c->sites; i++) {
    sites[i] = (dlora_site){dim, dim, (int32_t)(c->first + i / 2), i % 2 ? DLORA_SITE_VALUE : DLORA_SITE_KEY};
  }
  SPEED_TRY(dlora_bank_create(&c->bank, sites, c->sites, NULL));
  SPEED_TRY(dlora_bank_begin_task(c->bank));
  for (size_t i = 0; i < c->sites; i++) {
    const float *a = c->input + c->image_values + i / 2 * c->block_values;
    SPEED_TRY(dlora_bank_set_orthogonal(c->bank, i, a, RANK, NULL));
    SPEED_TRY(dlora_bank_set_residual(c->bank, i, a + RANK * dim, RANK, 0));
  }
  float *parameters;
  size_t count;
  SPEED_TRY(dlora_bank_get_parameters(c->bank, &parameters, NULL, &count));
  if (count != c->sites * dim * BOTH) return speed_fail("the bank trains %zu values", count);
  for (size_t i = 0; i < c->sites; i++) {
    const float *b = c->input + c->image_values + i / 2 * c->block_values + BOTH * dim + i % 2 * dim * BOTH;
    to_bank(b, dim, parameters + i * dim * BOTH);
  }
  return 0;
}

static int run(struct check *c) {
  const size_t dim = c->setup->info.embed_dim, size = c->setup->info.image_size;
  const dlora_images images = {.f32 = c->input, .count = IMAGES, .height = size, .width = size};
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  float *gradients;
  options.max_batch = IMAGES;
  options.threads = (int32_t)c->setup->threads;
  options.training = 1;
  SPEED_TRY(dlora_model_embed(c->setup->model, &images, c->features));
  if (make_bank(c)) return 1;
  SPEED_TRY(dlora_session_create(&c->session, c->setup->model, c->bank, &options));
  SPEED_TRY(dlora_session_forward(c->session, &images, DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL, NULL,
                                  c->features + IMAGES * dim));
  const float *feature_gradients = c->input + c->image_values + c->sites / 2 * c->block_values;
  SPEED_TRY(dlora_session_backward(c->session, c->bank, feature_gradients));
  SPEED_TRY(dlora_bank_get_parameters(c->bank, NULL, &gradients, NULL));
  for (size_t i = 0; i < c->sites; i++) from_bank(gradients + i * dim * BOTH, dim, c->gradients + i * dim * BOTH);
  return 0;
}

static int transfer(const char *path, const char *mode, float *values, size_t count, int close_after, FILE **file) {
  if (!*file) *file = fopen(path, mode);
  if (!*file) return speed_fail("%s cannot be opened: %s", path, strerror(errno));
  const size_t done =
      *mode == 'r' ? fread(values, sizeof *values, count, *file) : fwrite(values, sizeof *values, count, *file);
  if (close_after || done != count) {
    fclose(*file);
    *file = NULL;
  }
  return done == count ? 0 : speed_fail("%s does not take or give %zu floats", path, count);
}

int speed_check(const struct speed_setup *setup, const char *in, const char *out) {
  const dlora_model_info *info = &setup->info;
  struct check c = {.setup = setup, .first = info->depth / 2};
  const size_t blocks = info->depth - c.first, dim = info->embed_dim;
  c.sites = 2 * blocks;
  c.image_values = IMAGES * 3 * info->image_size * info->image_size;
  c.block_values = BOTH * dim + 2 * dim * BOTH;
  const size_t inputs = c.image_values + blocks * c.block_values + IMAGES * dim;
  FILE *file = NULL;
  c.input = malloc(inputs * sizeof *c.input);
  c.features = malloc(2 * IMAGES * dim * sizeof *c.features);
  c.gradients = malloc(c.sites * dim * BOTH * sizeof *c.gradients);
  int failed = !c.input || !c.features || !c.gradients ? speed_fail("no memory") : 0;
  failed = failed || transfer(in, "rb", c.input, inputs, 1, &file) || run(&c) ||
           transfer(out, "wb", c.features, 2 * IMAGES * dim, 0, &file) ||
           transfer(out, "wb", c.gradients, c.sites * dim * BOTH, 1, &file);
  dlora_session_destroy(c.session);
  dlora_bank_destroy(c.bank);
  free(c.input);
  free(c.features);
  free(c.gradients);
  return failed;
}
