/* Learns a class from 20 pictures at once: with both ranks 0 nothing is trained, one pass takes the statistics. Good
 * for a device that must know a new thing now; the same learner can train adapters for later tasks.
 *
 *     instant_learning examples/backbones/vit_192x6_patch4_32.safetensors
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "duallora/duallora.h"

enum { SIDE = 32, PICTURE = SIDE * SIDE * 3, PICTURES = 20, CLASSES = 3 };

/* Stands for your camera: a disc, a cross or a frame at a random place, with noise. pixels [32, 32, 3] */
static void take_picture(uint8_t *pixels, int64_t class_id) {
  int left = 8 + rand() % 16;
  int top = 8 + rand() % 16;
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++) {
      int dx = abs(x - left);
      int dy = abs(y - top);
      int far = dx > dy ? dx : dy;
      int inside = class_id == 0 ? dx * dx + dy * dy < 49 : class_id == 1 ? far < 8 && (dx < 2 || dy < 2) : far == 6;
      for (int c = 0; c < 3; c++) pixels[(y * SIDE + x) * 3 + c] = (uint8_t)((inside ? 200 : 60) + rand() % 40);
    }
}

int main(int argc, char **argv) {
  static uint8_t pixels[PICTURES][PICTURE];
  int64_t labels[PICTURES];
  int code = EXIT_FAILURE;
  dlora_model *model = NULL;
  dlora_learner *learner = NULL;
  dlora_images images = {pixels[0], NULL, PICTURES, SIDE, SIDE, 3};
  dlora_learner_options options;
  dlora_learner_options_init(&options, sizeof options);
  options.rank_orthogonal = 0;
  options.rank_residual = 0;
  options.feature_layers = DLORA_FEATURE_LAYERS_FINAL; /* better with so few pictures */
  if (argc != 2) {
    fprintf(stderr, "usage: %s BACKBONE.safetensors\n", argv[0]);
    return EXIT_FAILURE;
  }
  if (dlora_model_load(&model, argv[1], NULL)) goto done;
  if (dlora_learner_create(&learner, model, &options)) goto done;

  for (int64_t class_id = 0; class_id < CLASSES; class_id++) { /* each class is a task of its own */
    for (int i = 0; i < PICTURES; i++) {
      take_picture(pixels[i], class_id);
      labels[i] = class_id;
    }
    clock_t start = clock();
    if (dlora_learner_learn_task(learner, &images, labels, NULL)) goto done;
    printf("class %d learnt from %d pictures in %.0f ms of processor time\n", (int)class_id, PICTURES,
           1e3 * (double)(clock() - start) / CLOCKS_PER_SEC);
  }

  int right = 0;
  for (int64_t class_id = 0; class_id < CLASSES; class_id++) {
    dlora_prediction seen[PICTURES];
    for (int i = 0; i < PICTURES; i++) take_picture(pixels[i], class_id);
    if (dlora_learner_predict(learner, &images, seen, NULL)) goto done;
    for (int i = 0; i < PICTURES; i++) right += seen[i].class_id == class_id;
  }
  printf("%d of %d new pictures are right\n", right, CLASSES * PICTURES);
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "%s\n", dlora_last_error());
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
  return code;
}
