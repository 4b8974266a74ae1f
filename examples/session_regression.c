/* A loss of your own on a Vision Transformer, without the learner: adapters learn to tell a number, the width of
 * stripes. One of the gradients is checked by a finite difference.
 *
 *     session_regression examples/backbones/vit_192x6_patch4_32.safetensors
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "duallora/duallora.h"

enum { SIDE = 32, PICTURE = SIDE * SIDE * 3, PICTURES = 16, RANK = 4, BLOCKS = 3, STEPS = 40, MAX_DIM = 4096 };
static uint8_t pixels[PICTURES][PICTURE];
static float target[PICTURES];                                                    /* what a picture should be told as */
static float features[PICTURES * MAX_DIM], feature_gradients[PICTURES * MAX_DIM]; /* [PICTURES, embed_dim] */
static float readout[MAX_DIM];                                                    /* [embed_dim] random and fixed */

static float random_value(void) {
  return 2.0f * (float)rand() / (float)RAND_MAX - 1.0f;
}

/* Stripes of a width of 2 to 5 pixels, in random colours. */
static void take_picture(int i) {
  int width = 2 + i % 4, phase = rand() % 10, colours[2][3];
  target[i] = (float)(i % 4) - 1.5f;
  for (int k = 0; k < 6; k++) colours[k / 3][k % 3] = rand() % 200;
  for (int p = 0; p < PICTURE; p++)
    pixels[i][p] = (uint8_t)(colours[(p / 3 % SIDE + phase) / width % 2][p % 3] + rand() % 50);
}

/* The mean of (readout^T feature - target)^2; its derivative by the features goes to feature_gradients. */
static double own_loss(size_t dim) {
  double loss = 0.0;
  for (size_t i = 0; i < PICTURES; i++) {
    float error = -target[i];
    for (size_t k = 0; k < dim; k++) error += readout[k] * features[i * dim + k];
    for (size_t k = 0; k < dim; k++) feature_gradients[i * dim + k] = 2.0f / PICTURES * error * readout[k];
    loss += (double)error * (double)error / PICTURES;
  }
  return loss;
}

int main(int argc, char **argv) {
  const int32_t terms = DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL;
  const dlora_images images = {pixels[0], NULL, PICTURES, SIDE, SIDE, 3};
  int code = EXIT_FAILURE;
  float *parameters = NULL, *gradients = NULL; /* [count] */
  size_t count = 0, steepest = 0;
  dlora_model *model = NULL;
  dlora_bank *bank = NULL;
  dlora_session *session = NULL;
  dlora_model_info info = {.struct_size = sizeof info};
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  dlora_site sites[BLOCKS];
  if (argc != 2 || dlora_model_load(&model, argv[1], NULL) || dlora_model_get_info(model, &info)) goto done;
  if (info.depth < BLOCKS || info.embed_dim > MAX_DIM) goto done;
  for (int i = 0; i < PICTURES; i++) take_picture(i);
  for (size_t k = 0; k < info.embed_dim; k++) readout[k] = random_value() / sqrtf((float)info.embed_dim);

  for (int i = 0; i < BLOCKS; i++) /* the value projections of the last blocks */
    sites[i] = (dlora_site){info.embed_dim, info.embed_dim, (int32_t)info.depth - BLOCKS + i, DLORA_SITE_VALUE};
  if (dlora_bank_create(&bank, sites, BLOCKS, NULL) || dlora_bank_begin_task(bank)) goto done;
  for (size_t i = 0; i < BLOCKS; i++) { /* A is random and fixed, B is trained from zero */
    static float a[RANK * MAX_DIM];
    for (size_t k = 0; k < RANK * info.embed_dim; k++) a[k] = 0.2f * random_value();
    if (dlora_bank_set_orthogonal(bank, i, a, RANK, NULL)) goto done;
  }
  options.training = 1;
  options.max_batch = PICTURES;
  if (dlora_session_create(&session, model, bank, &options)) goto done;
  if (dlora_bank_get_parameters(bank, &parameters, &gradients, &count)) goto done;

  for (int step = 0; step <= STEPS; step++) {
    if (dlora_session_forward(session, &images, terms, NULL, features)) goto done;
    double loss = own_loss(info.embed_dim), moved[2];
    if (step % 20 == 0) printf("step %d: loss %.3f\n", step, loss);
    if (dlora_session_backward(session, bank, feature_gradients)) goto done;
    for (size_t i = 0; i < count && step == 0; i++)
      if (fabsf(gradients[i]) > fabsf(gradients[steepest])) steepest = i;
    for (int side = 0; side < 2 && step == 0; side++) { /* the loss beside the point along one parameter */
      parameters[steepest] = side ? 0.01f : -0.01f;
      if (dlora_session_forward(session, &images, terms, NULL, features)) goto done;
      moved[side] = own_loss(info.embed_dim);
      parameters[steepest] = 0.0f;
    }
    if (step == 0) {
      double expected = (double)gradients[steepest], found = (moved[1] - moved[0]) / 0.02;
      printf("the steepest gradient is %.4f, by a finite difference %.4f: %.1f %% apart\n", expected, found,
             100.0 * fabs(found / expected - 1.0));
    }
    if (dlora_bank_step(bank, 1e-2f)) goto done;
  }
  if (dlora_bank_commit_task(bank)) goto done; /* from now on DLORA_TERM_MERGED adds what was learnt */
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "usage: %s BACKBONE.safetensors; %s\n", argv[0], dlora_last_error());
  dlora_session_destroy(session);
  dlora_bank_destroy(bank);
  dlora_model_destroy(model);
  return code;
}
