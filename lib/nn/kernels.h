/* Loops over activations, compiled once per instruction set; the table is chosen at run time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_NN_KERNELS_H
#define DLI_NN_KERNELS_H

#include <stdbool.h>

#include "linalg/matrix.h"

/* Queries of one head and what they ask: rows of `width` numbers that are ld apart. */
struct dli_attention_head {
  const float *q; /* [queries, width] */
  const float *k; /* [tokens, width] */
  const float *v; /* [tokens, width] */
  size_t queries, tokens, width, ld;
  float scale;
};
/* What attention works on at once, at most: rows, and numbers to which others are padded. */
enum { DLI_ATTENTION_ROWS = 8, DLI_ATTENTION_LANES = 16 };

/* Angles of rotary positions, of pair j of each head in each row: numbers j and j + width / 2, or 2 j and 2 j + 1. */
struct dli_rotation {
  const float *cosines, *sines; /* [rows, width / 2] */
  size_t heads, width;
  bool interleaved; /* 2 j and 2 j + 1 */
  bool back;        /* by the negative angles */
};

/* Activations of an MLP, by DLORA_ACTIVATION_... */
enum { DLI_NUM_ACTIVATIONS = 4 };

struct dli_kernels {
  const char *name;
  /* y [rows, dim] = (x - mean) * rstd * gain + bias, row by row; gain and bias may both be NULL (1 and 0). mean and
   * rstd [rows] are kept for the backward pass unless NULL. */
  void (*layer_norm)(struct dli_const_matrix x, const float *gain, const float *bias, float eps, struct dli_matrix y,
                     float *mean, float *rstd);
  /* dx [rows, dim] += gradient of layer_norm at x. */
  void (*layer_norm_backward)(struct dli_const_matrix dy, struct dli_const_matrix x, const float *gain,
                              const float *mean, const float *rstd, struct dli_matrix dx);
  /* y [rows, width] = act(x) of x [rows, width]; SwiGLU: silu(gate) up of x [rows, 2 width] = [gate, up]. y may be x.
   */
  void (*activation[DLI_NUM_ACTIVATIONS])(const float *x, size_t rows, size_t width, float *y);
  /* dx [rows, width] *= act'(x). SwiGLU: the gradient of y is in the last width columns of dx [rows, 2 width], which it
   * fills. */
  void (*activation_backward[DLI_NUM_ACTIVATIONS])(const float *x, size_t rows, size_t width, float *dx);
  /* One head of attention. out [queries, width] = softmax(scale * q k^T) v; probabilities [queries, tokens] are kept
   * unless NULL. scratch: dli_attention_scratch floats. */
  void (*attention_head)(const struct dli_attention_head *head, float *probabilities, float *out, size_t ldout,
                         float *scratch);
  /* dq [queries, width], dk and dv [tokens, width] from d_out [queries, width]; the three with the ld of the head. */
  void (*attention_head_backward)(const struct dli_attention_head *head, const float *probabilities, const float *d_out,
                                  size_t ld_d_out, float *dq, float *dk, float *dv, float *scratch);
  /* Rotates the pairs of each row of x [rows, heads * width]: u' = u cos - w sin, w' = w cos + u sin. */
  void (*rotate)(const struct dli_rotation *rotation, struct dli_matrix x);
  /* y += x */
  void (*add)(const float *x, size_t count, float *y);
};

/* The fastest table for this processor. rms: its layer_norm is the RMS norm, x rstd gain with 1 / rstd^2 = mean of x^2
 * + eps, of models that have it in all places; mean is 0 and bias not read. */
const struct dli_kernels *dli_kernels_select(bool rms);

#endif
