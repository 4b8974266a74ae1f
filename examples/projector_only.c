/* The memory alone, for a network and gradients of your own: what an earlier task's inputs use is kept out of a later
 * task's update, so that the layer answers the earlier inputs as before.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "duallora/duallora.h"

enum { INPUT = 32, OUTPUT = 4, ROWS = 200, USED = 5 };

static float random_value(void) {
  return 2.0f * (float)rand() / (float)RAND_MAX - 1.0f;
}

/* Inputs of one task: mixtures of a few directions, as real layer inputs are. x [ROWS, INPUT] */
static void make_inputs(float x[ROWS][INPUT]) {
  float directions[USED][INPUT];
  for (int k = 0; k < USED; k++)
    for (int i = 0; i < INPUT; i++) directions[k][i] = random_value();
  for (int row = 0; row < ROWS; row++)
    for (int i = 0; i < INPUT; i++) x[row][i] = 0.0f;
  for (int row = 0; row < ROWS; row++)
    for (int k = 0; k < USED; k++) {
      float share = random_value();
      for (int i = 0; i < INPUT; i++) x[row][i] += share * directions[k][i];
    }
}

/* Largest change that an update of the weight [OUTPUT, INPUT] makes to the outputs of these inputs. */
static double largest_change(float update[OUTPUT][INPUT], float x[ROWS][INPUT]) {
  double largest = 0.0;
  for (int row = 0; row < ROWS; row++)
    for (int o = 0; o < OUTPUT; o++) {
      double change = 0.0;
      for (int i = 0; i < INPUT; i++) change += (double)update[o][i] * (double)x[row][i];
      largest = fmax(largest, fabs(change));
    }
  return largest;
}

int main(void) {
  static float old_task[ROWS][INPUT], new_task[ROWS][INPUT], gradient[OUTPUT][INPUT];
  int code = EXIT_FAILURE;
  size_t added = 0;
  dlora_projector *memory = NULL;
  make_inputs(old_task);
  make_inputs(new_task);
  for (int o = 0; o < OUTPUT; o++) /* stands for your backward pass: d loss / d weight, dy^T x */
    for (int row = 0; row < ROWS; row++) {
      float dy = random_value() / ROWS;
      for (int i = 0; i < INPUT; i++) gradient[o][i] += dy * new_task[row][i];
    }

  if (dlora_projector_create(&memory, INPUT, NULL)) goto done;
  if (dlora_projector_observe(memory, old_task[0], ROWS)) goto done;
  if (dlora_projector_commit_task(memory, 1.0f, &added)) goto done;
  printf("the old task uses %zu of %d directions\n", added, INPUT);
  printf("a plain step changes old outputs by up to      %.2e, new ones by %.2e\n", largest_change(gradient, old_task),
         largest_change(gradient, new_task));
  if (dlora_projector_project(memory, gradient[0], OUTPUT)) goto done;
  printf("the projected step changes old outputs by up to %.2e, new ones by %.2e\n", largest_change(gradient, old_task),
         largest_change(gradient, new_task));
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "%s\n", dlora_last_error());
  dlora_projector_destroy(memory);
  return code;
}
