/* Hands what was learnt to other libraries: a LoRA that PEFT opens, and a whole backbone with a classifier that timm
 * (or transformers, for a backbone with Hugging Face's names) opens.
 *
 *     export_learner examples/backbones/vit_192x6_patch4_32.safetensors FOLDER
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
      int bright = ((class_id < 2 ? x : y) + phase) % 8 < 4 ? 200 : 60;
      for (int c = 0; c < 3; c++)
        pixels[(y * SIDE + x) * 3 + c] = (uint8_t)(bright / (c == class_id % 3 ? 1 : 3) + rand() % 50);
    }
}

int main(int argc, char **argv) {
  static uint8_t pixels[PER_TASK][PICTURE];
  int64_t labels[PER_TASK];
  static const char *const names[] = {"red and upright", "green and upright", "blue and lying", "red and lying"};
  char folder[4096];
  int code = EXIT_FAILURE;
  dlora_model *model = NULL;
  dlora_learner *learner = NULL;
  dlora_images images = {pixels[0], NULL, PER_TASK, SIDE, SIDE, 3};
  if (argc != 3) {
    fprintf(stderr, "usage: %s BACKBONE.safetensors FOLDER\n", argv[0]);
    return EXIT_FAILURE;
  }
  if (dlora_model_load(&model, argv[1], NULL)) goto done;
  if (dlora_learner_create(&learner, model, NULL)) goto done;
  for (int64_t task = 0; task < 2; task++) {
    for (int64_t i = 0; i < PER_TASK; i++) take_picture(pixels[i], labels[i] = 2 * task + i % 2);
    if (dlora_learner_learn_task(learner, &images, labels, NULL)) goto done;
  }
  for (int64_t class_id = 0; class_id < 4; class_id++)
    if (dlora_learner_set_class_name(learner, class_id, names[class_id])) goto done;

  snprintf(folder, sizeof folder, "%s", argv[2]);
  if (dlora_learner_export_backbone(learner, folder)) goto done;
  printf("a backbone with a classifier of 4 classes\n");
  snprintf(folder, sizeof folder, "%s/lora", argv[2]);
  if (dlora_learner_export_peft(learner, folder, DLORA_AUTO)) goto done;
  printf("a LoRA for the backbone as it was\n");
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "%s\n", dlora_last_error());
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
  return code;
}
