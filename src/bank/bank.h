/* Struct and functions of an adapter bank for sessions, the learner and the checkpoint, beyond the public header.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A bank has sites i, each with a merged matrix M, the residual adapters (A_s, B_s) of finished tasks, and during a
 * task two pairs: orthogonal (A', B') and residual (A_t, B_t). See equations (1) and (2a) of METHOD.md. */
#ifndef DLI_SRC_BANK_BANK_H
#define DLI_SRC_BANK_BANK_H

#include <stdbool.h>

#include "duallora/duallora.h"
#include "io/safetensors.h"
#include "linalg/matrix.h"
#include "nn/kernels_bfloat16.h"
#include "nn/optimizer.h"

enum { DLI_ORTHOGONAL = 0, DLI_RESIDUAL = 1 };

/* One low-rank pair of the open task. B, and A if it is trained, are parts of the bank's parameter array. */
struct dli_pair {
  size_t rank;
  float *fixed_a;                   /* [rank, input_dim], owned; NULL if A is trained */
  size_t a_offset;                  /* in the parameters, if A is trained */
  size_t b_offset;                  /* in the parameters */
  const dlora_projector *projector; /* projects updates of a trained A'; or NULL */
};

/* Residual adapter of a finished task at one site. A task and site without one takes no memory. */
struct dli_residual_adapter {
  size_t task, site;
  dlora_adapter adapter; /* arrays owned, rank not 0 */
};

struct dlora_bank {
  dlora_allocator allocator;
  dlora_bank_options options;
  size_t num_sites;
  dlora_site *sites;
  size_t num_tasks;
  uint64_t version;                  /* number of changes of M, for caches of W + M */
  float **merged;                    /* [num_sites] of [output_dim, input_dim] or NULL */
  struct dli_residual_adapter *kept; /* [num_residuals] in order of task, and of site within one */
  size_t num_residuals;
  bool open;
  float merge_fractions[2]; /* by branch: part of the open pair's update that M will get; trained while {1, 0} */
  struct dli_pair *pairs;   /* [num_sites, 2] of the open task */
  size_t count;             /* parameters of the pairs; `extra` more follow */
  size_t extra;
  float *parameters;
  float *gradients;
  struct dli_optimizer optimizer;
};

/* Appends `extra` zeros to the parameters of the pairs: head rows trained by the same steps. */
dlora_status dli_bank_set_extra(dlora_bank *bank, size_t extra);
/* Refuses unless a task is open and its pairs may still be trained: no merge fractions are set. Error: STATE. */
dlora_status dli_bank_require_training(const dlora_bank *bank, const char *caller);
/* Rank of the largest pair or adapter, for scratch. */
size_t dli_bank_max_rank(const dlora_bank *bank);
/* Whether finished tasks have left anything: a network without is the untouched backbone. */
bool dli_bank_has_updates(const dlora_bank *bank);
/* The residual adapter of a task at a site, NULL where there is none. */
const dlora_adapter *dli_bank_adapter(const dlora_bank *bank, size_t task, size_t site);

/* What both passes at a site need. thin: kernels that replace the BLAS for small ranks, or NULL. scratch: [rows * max
 * rank] floats, for a backward pass twice as many; with thin [2 * max rank * output_dim] more. */
struct dli_bank_call {
  size_t site;
  int32_t terms; /* DLORA_TERM_... or-ed */
  const struct dli_kernels_bfloat16 *thin;
  float *scratch;
};
/* dlora_bank_forward and _backward without checks. x: [rows, input_dim], y and dy: [rows, output_dim], dx: like x; its
 * memory is NULL if not wanted. gradients: an array like bank->gradients. */
void dli_bank_forward(const dlora_bank *bank, const struct dli_bank_call *call, struct dli_const_matrix x,
                      const float *routing, size_t rows_per_item, struct dli_matrix y);
void dli_bank_backward(const dlora_bank *bank, const struct dli_bank_call *call, struct dli_const_matrix x,
                       struct dli_const_matrix dy, struct dli_matrix dx, float *gradients);

/* Committing a task in two halves: prepare allocates and may fail; apply cannot fail. abandon undoes prepare. */
struct dli_bank_commit {
  float **merged;
  struct dli_residual_adapter *kept;
  size_t num_residuals;
};
dlora_status dli_bank_prepare_commit(const dlora_bank *bank, struct dli_bank_commit *out);
void dli_bank_apply_commit(dlora_bank *bank, struct dli_bank_commit *commit);
void dli_bank_abandon_commit(const dlora_bank *bank, struct dli_bank_commit *commit);
/* dli_bank_has_updates once the commit is applied. */
bool dli_bank_will_have_updates(const dlora_bank *bank, const struct dli_bank_commit *commit);

dlora_status dli_bank_write(const dlora_bank *bank, struct dli_writer *writer, const char *prefix);
dlora_status dli_bank_read(dlora_bank **out, const struct dli_tensors *tensors, const char *prefix,
                           const dlora_bank_options *options);

/* Writes the open task's pairs and the optimizer's state, without the `extra` parameters themselves. */
dlora_status dli_bank_write_open(const dlora_bank *bank, struct dli_writer *writer, const char *prefix);
/* Sets the pairs of an open task that has none yet from a file, with B = 0. limits: largest rank of the orthogonal and
 * of the residual pairs. projectors: [num_sites] projectors of a trained A', or NULL for a fixed A'. train_residual:
 * A_t is trained. */
dlora_status dli_bank_read_pairs(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                 const size_t limits[2], const dlora_projector *const *projectors,
                                 int32_t train_residual);
/* Reads B of each pair and the optimizer's state after num_steps steps. The extra parameters must be in place. */
dlora_status dli_bank_read_values(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                  uint64_t num_steps);

#endif
