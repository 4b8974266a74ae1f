/* The first program to copy: learns two tasks, one after the other, and tells new pictures apart afterwards.
 *
 *     learn_two_tasks examples/backbones/vit_192x6_patch4_32.safetensors
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "duallora/duallora.h"

enum { SIDE = 32, PICTURE = SIDE * SIDE * 3, PER_CLASS = 40, PER_TASK = 2 * PER_CLASS };

/* Stands for your camera: classes 0 to 3 are stripes, each in a direction and colour of its own, with noise. pixels
 * [32, 32, 3] */
static void take_picture(uint8_t *pixels, int64_t class_id) {
  int phase = rand() % 8;
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++) {
      int along = class_id < 2 ? x : y;
      int bright = (along + phase) % 8 < 4 ? 200 : 60;
      for (int c = 0; c < 3; c++)
        pixels[(y * SIDE + x) * 3 + c] = (uint8_t)(bright / (c == class_id % 3 ? 1 : 3) + rand() % 50);
    }
}

int main(int argc, char **argv) {
  static uint8_t pixels[PER_TASK][PICTURE];
  int64_t labels[PER_TASK];
  int code = EXIT_FAILURE;
  dlora_model *model = NULL;
  dlora_learner *learner = NULL;
  dlora_images images = {pixels[0], NULL, PER_TASK, SIDE, SIDE, 3};
  if (argc != 2) {
    fprintf(stderr, "usage: %s BACKBONE.safetensors\n", argv[0]);
    return EXIT_FAILURE;
  }
  if (dlora_model_load(&model, argv[1], NULL)) goto done;
  if (dlora_learner_create(&learner, model, NULL)) goto done;

  for (int64_t task = 0; task < 2; task++) { /* classes 0 and 1, then 2 and 3: nothing of the first is kept */
    for (int64_t i = 0; i < PER_TASK; i++) take_picture(pixels[i], labels[i] = 2 * task + i % 2);
    if (dlora_learner_learn_task(learner, &images, labels, NULL)) goto done;
  }

  images.count = 4;
  dlora_prediction seen[4];
  for (int64_t i = 0; i < 4; i++) take_picture(pixels[i], i);
  if (dlora_learner_predict(learner, &images, seen, NULL)) goto done;
  for (int i = 0; i < 4; i++)
    printf("a picture of class %d: class %d (%.0f %%), task %d (%.0f %%)\n", i, (int)seen[i].class_id,
           100.0 * (double)seen[i].class_probability, (int)seen[i].task, 100.0 * (double)seen[i].task_probability);
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "%s\n", dlora_last_error());
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
  return code;
}
