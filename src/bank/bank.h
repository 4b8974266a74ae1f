/* What sessions, the learner and the checkpoint need of a bank beyond the public header.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_BANK_BANK_H
#define DLI_SRC_BANK_BANK_H

#include "duallora/duallora.h"
#include "io/safetensors.h"
#include "nn/kernels_bfloat16.h"
#include "nn/optimizer.h"

enum { DLI_ORTHOGONAL = 0, DLI_RESIDUAL = 1 };

/* One low-rank pair of the open task. b, and a where it is trained, lie in the bank's parameter array. */
struct dli_pair {
  size_t rank;
  float *fixed_a;                   /* [rank, input_dim], owned; NULL where A is trained */
  size_t a_offset;                  /* in the parameters, where A is trained */
  size_t b_offset;                  /* in the parameters */
  const dlora_projector *projector; /* projects updates of a trained A'; or NULL */
};

/* A learnt residual adapter. Only these are kept: tasks and sites without one take no memory. */
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
  uint64_t version;                  /* counts finished tasks' changes of M, for caches of W + M */
  float **merged;                    /* [num_sites] of [output_dim, input_dim] or NULL */
  struct dli_residual_adapter *kept; /* [num_residuals] in order of task, and of site within one */
  size_t num_residuals;
  int open;
  float merge_fractions[2]; /* of the open task's pairs, by branch: what M is to get; trained while {1, 0} */
  struct dli_pair *pairs;   /* [num_sites, 2] of the open task */
  size_t count;             /* parameters of the pairs, and then `extra` of whoever trains along */
  size_t extra;
  float *parameters;
  float *gradients;
  struct dli_optimizer optimizer;
};

/* Appends `extra` parameters, zeroed, behind those of the pairs: heads that are trained with the same step. */
dlora_status dli_bank_set_extra(dlora_bank *bank, size_t extra);
/* An error unless a task is open whose pairs may still be trained: merge fractions are not set. Error: STATE. */
dlora_status dli_bank_require_training(const dlora_bank *bank, const char *caller);
/* Rank of the largest pair or adapter, for scratch. */
size_t dli_bank_max_rank(const dlora_bank *bank);
/* The residual adapter of a task at a site, NULL where there is none. */
const dlora_adapter *dli_bank_adapter(const dlora_bank *bank, size_t task, size_t site);

/* The public forward and backward with row distances and scratch [rows * max rank] (backward: twice that), without
 * checks; gradients go to an array like bank->gradients. thin: does products of small ranks instead of the BLAS, unless
 * NULL; scratch is then larger by [2 * max rank * output_dim]. */
void dli_bank_forward(const dlora_bank *bank, const struct dli_kernels_bfloat16 *thin, size_t site, const float *x,
                      size_t rows, size_t ldx, int32_t terms, const float *routing, size_t rows_per_item, float *y,
                      size_t ldy, float *scratch);
void dli_bank_backward(const dlora_bank *bank, const struct dli_kernels_bfloat16 *thin, size_t site, const float *x,
                       size_t rows, size_t ldx, const float *dy, size_t lddy, int32_t terms, float *dx, size_t lddx,
                       float *gradients, float *scratch);

/* Closing a task in two halves: prepare takes all memory and may fail; commit cannot. */
struct dli_bank_commit {
  float **merged;
  struct dli_residual_adapter *kept;
  size_t num_residuals;
};
dlora_status dli_bank_prepare_end(const dlora_bank *bank, struct dli_bank_commit *out);
void dli_bank_commit_end(dlora_bank *bank, struct dli_bank_commit *commit);
void dli_bank_abandon_end(const dlora_bank *bank, struct dli_bank_commit *commit);

dlora_status dli_bank_write(const dlora_bank *bank, struct dli_writer *writer, const char *prefix);
dlora_status dli_bank_read(dlora_bank **out, const struct dli_tensors *tensors, const char *prefix,
                           const dlora_bank_options *options);

/* The open task's pairs and the optimizer's state, but not the `extra` parameters themselves. */
dlora_status dli_bank_write_open(const dlora_bank *bank, struct dli_writer *writer, const char *prefix);
/* Gives the open task, which has no pairs yet, those of a file, with B 0. limits: largest rank of the orthogonal and
 * the residual pairs; memories: [num_sites] what projects a trained A', or NULL for a fixed one; train_residual: A_t is
 * trained. */
dlora_status dli_bank_read_pairs(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                 const size_t limits[2], const dlora_projector *const *memories,
                                 int32_t train_residual);
/* Then, with the extra parameters in place, B of each pair and the optimizer after num_steps steps. */
dlora_status dli_bank_read_values(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                  uint64_t num_steps);

#endif
