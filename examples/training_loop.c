/* A training loop of your own: the calls that dlora_learner_learn_task makes for you, one by one. Here pictures come in
 * small batches, and training stops as soon as the loss is low.
 *
 *     training_loop examples/backbones/vit_192x6_patch4_32.safetensors
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "duallora/duallora.h"

enum { SIDE = 32, PICTURE = SIDE * SIDE * 3, BATCH = 16, BATCHES = 5, MOST_STEPS = 300 };
static const float LOW_LOSS = 0.5f;

static uint8_t pixels[BATCHES][BATCH][PICTURE];
static int64_t labels[BATCHES][BATCH];

/* Classes 0 and 1 are reddish stripes, 2 and 3 blueish ones. Each has a direction of its own, hard to see for all the
 * noise. picture [32, 32, 3] */
static void take_picture(uint8_t *picture, int64_t class_id) {
  static const int directions[4][2] = {{3, 1}, {1, 3}, {3, -1}, {-1, 3}};
  int phase = rand() % 24, colour = class_id < 2 ? 0 : 2;
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++) {
      int along = directions[class_id][0] * x + directions[class_id][1] * y + 64 + phase;
      for (int c = 0; c < 3; c++)
        picture[(y * SIDE + x) * 3 + c] = (uint8_t)((along % 24 < 12 ? 40 : 0) + (c == colour ? 90 : 0) + rand() % 110);
    }
}

static dlora_images batch_of(int i) {
  return (dlora_images){pixels[i][0], NULL, BATCH, SIDE, SIDE, 3};
}

static dlora_status learn(dlora_learner *learner) {
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  dlora_status status = dlora_learner_begin_task(learner, 0); /* 0: a constant learning rate, as no one knows the end */
  for (int i = 0; !status && i < BATCHES; i++) {
    const dlora_images images = batch_of(i);
    status = dlora_learner_observe(learner, &images, labels[i]); /* before training */
  }
  if (!status) status = dlora_learner_begin_training(learner);
  float mean = 1.0f; /* of the last losses */
  for (int step = 0; !status && step < MOST_STEPS && mean > LOW_LOSS; step++) {
    const dlora_images images = batch_of(step % BATCHES);
    float loss;
    status = dlora_learner_step(learner, &images, labels[step % BATCHES], &loss);
    if (!status) mean += 0.2f * (loss - mean);
  }
  for (int i = 0; !status && i < BATCHES; i++) {
    const dlora_images images = batch_of(i);
    status = dlora_learner_observe_trained(learner, &images, labels[i]); /* the same pictures after training */
  }
  if (!status) status = dlora_learner_commit_task(learner, &report);
  if (!status)
    printf("task %d: the loss was %.2f in the first steps and is %s %.2f\n", (int)report.task, report.first_loss,
           mean > LOW_LOSS ? "still above" : "below", (double)LOW_LOSS);
  return status;
}

int main(int argc, char **argv) {
  int code = EXIT_FAILURE;
  dlora_model *model = NULL;
  dlora_learner *learner = NULL;
  if (argc != 2) {
    fprintf(stderr, "usage: %s BACKBONE.safetensors\n", argv[0]);
    return EXIT_FAILURE;
  }
  if (dlora_model_load(&model, argv[1], NULL)) goto done;
  if (dlora_learner_create(&learner, model, NULL)) goto done;
  for (int64_t task = 0; task < 2; task++) {
    for (int i = 0; i < BATCHES * BATCH; i++) {
      labels[i / BATCH][i % BATCH] = 2 * task + i % 2;
      take_picture(pixels[i / BATCH][i % BATCH], 2 * task + i % 2);
    }
    if (learn(learner)) goto done;
  }

  dlora_prediction seen[4];
  for (int i = 0; i < 4; i++) take_picture(pixels[0][i], i);
  dlora_images images = batch_of(0);
  images.count = 4;
  if (dlora_learner_predict(learner, &images, seen, NULL)) goto done;
  for (int i = 0; i < 4; i++)
    printf("a picture of class %d: class %d, task %d\n", i, (int)seen[i].class_id, (int)seen[i].task);
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "%s\n", dlora_last_error());
  dlora_learner_destroy(learner);
  dlora_model_destroy(model);
  return code;
}
