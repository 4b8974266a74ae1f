/* Adapters on one linear layer of your own network, trained by your own loop. The layer y = W x stays as it is; task
 * after task the bank learns what to add, and the projector keeps a later task away from the inputs of the earlier one.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "duallora/duallora.h"

enum { INPUT = 24, OUTPUT = 6, ROWS = 64, RANK = 12, STEPS = 400 };

static float random_value(void) {
  return 2.0f * (float)rand() / (float)RAND_MAX - 1.0f;
}

/* y [ROWS, OUTPUT] = x [ROWS, INPUT] w^T, w [OUTPUT, INPUT] */
static void linear(float x[ROWS][INPUT], float w[OUTPUT][INPUT], float y[ROWS][OUTPUT]) {
  for (int row = 0; row < ROWS; row++)
    for (int o = 0; o < OUTPUT; o++) {
      y[row][o] = 0.0f;
      for (int i = 0; i < INPUT; i++) y[row][o] += x[row][i] * w[o][i];
    }
}

/* Mean squared error of y; dy becomes its gradient. */
static double squared_error(float y[ROWS][OUTPUT], float target[ROWS][OUTPUT], float dy[ROWS][OUTPUT]) {
  double error = 0.0;
  for (int row = 0; row < ROWS; row++)
    for (int o = 0; o < OUTPUT; o++) {
      float difference = y[row][o] - target[row][o];
      error += (double)difference * (double)difference / (ROWS * OUTPUT);
      dy[row][o] = 2.0f * difference / (ROWS * OUTPUT);
    }
  return error;
}

/* The layer with everything learnt in finished tasks, and with the open task's pair too where terms ask for it. */
static dlora_status forward(const dlora_bank *bank, float w[OUTPUT][INPUT], float x[ROWS][INPUT], int32_t terms,
                            float y[ROWS][OUTPUT]) {
  linear(x, w, y);
  return dlora_bank_forward(bank, 0, x[0], ROWS, terms, NULL, 1, y[0]);
}

int main(void) {
  static float w[OUTPUT][INPUT], wanted[OUTPUT][INPUT], x[2][ROWS][INPUT], target[2][ROWS][OUTPUT];
  static float y[ROWS][OUTPUT], dy[ROWS][OUTPUT], directions[RANK][INPUT];
  const int32_t training = DLORA_TERM_MERGED | DLORA_TERM_ORTHOGONAL;
  const dlora_site site = {INPUT, OUTPUT, 0, DLORA_SITE_VALUE};
  int code = EXIT_FAILURE;
  dlora_bank *bank = NULL;
  dlora_projector *memory = NULL;
  if (dlora_bank_create(&bank, &site, 1, NULL) || dlora_projector_create(&memory, INPUT, NULL)) goto done;
  for (int o = 0; o < OUTPUT; o++)
    for (int i = 0; i < INPUT; i++) w[o][i] = random_value();

  for (int task = 0; task < 2; task++) {
    /* Task 0 lives in the first half of the inputs, task 1 in all of them; each wants another weight. */
    memset(x[task], 0, sizeof x[task]);
    for (int row = 0; row < ROWS; row++)
      for (int i = 0; i < (task == 0 ? INPUT / 2 : INPUT); i++) x[task][row][i] = random_value();
    for (int o = 0; o < OUTPUT; o++)
      for (int i = 0; i < INPUT; i++) wanted[o][i] = w[o][i] + 0.5f * random_value();
    linear(x[task], wanted, target[task]);

    size_t rank = 0;
    if (dlora_projector_observe(memory, x[task][0], ROWS)) goto done;
    if (dlora_projector_unused_directions(memory, RANK, directions[0], &rank)) goto done;
    if (dlora_bank_begin_task(bank) || dlora_bank_set_orthogonal(bank, 0, directions[0], rank, NULL)) goto done;
    double first = 0.0, last = 0.0;
    for (int step = 0; step < STEPS; step++) {
      if (forward(bank, w, x[task], training, y)) goto done;
      last = squared_error(y, target[task], dy);
      if (step == 0) first = last;
      if (dlora_bank_backward(bank, 0, x[task][0], dy[0], ROWS, training, NULL)) goto done;
      if (dlora_bank_step(bank, 1e-2f)) goto done;
    }
    if (dlora_bank_commit_task(bank) || dlora_projector_commit_task(memory, 1.0f, NULL)) goto done;
    printf("task %d: rank %zu, error %.4f -> %.4f\n", task, rank, first, last);
    if (forward(bank, w, x[0], DLORA_TERM_MERGED, y)) goto done;
    printf("        error on task 0 now: %.4f\n", squared_error(y, target[0], dy));
  }
  code = EXIT_SUCCESS;
done:
  if (code != EXIT_SUCCESS) fprintf(stderr, "%s\n", dlora_last_error());
  dlora_bank_destroy(bank);
  dlora_projector_destroy(memory);
  return code;
}
