/* Equation (1) without W h + b: the terms that adapters add at a site, forward and backward.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For rows x [rows, in] of a site, with u = x A^T [rows, r] for each pair:
 *
 *   forward    y += x M^T + sum over pairs of scale u B^T + sum over finished tasks s of w_s (x A_s^T) B_s^T
 *   backward   with dy = dL/dy and du = dy B [rows, r]:  dB += dy^T u,  dA += du^T x,  dx += dy M + du A
 *
 * No product is larger than rows x (in + out) x r, except the one with M. Sessions have M in their weights already and
 * leave that term out. Ranks are small: with `thin` kernels, products of rank up to 32 bypass the BLAS. */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"
#include "src/bank/bank.h"

/* The BLAS does products of larger ranks. */
enum { MAX_THIN_RANK = 32 };

/* Factors of an open pair, where they lie now. */
static dlora_adapter factors_of(const dlora_bank *bank, const struct dli_pair *pair) {
  return (dlora_adapter){
      .a = pair->fixed_a ? pair->fixed_a : bank->parameters + pair->a_offset,
      .b = bank->parameters + pair->b_offset,
      .rank = pair->rank,
  };
}

/* y [cols, rows] = scale * x^T, x [rows, cols] */
static void transpose(const float *x, size_t rows, size_t cols, float scale, float *y) {
  for (size_t j = 0; j < cols; j++) {
    for (size_t i = 0; i < rows; i++) y[j * rows + i] = scale * x[i * cols + j];
  }
}

/* y [rows, out] += scale * (x A^T) B^T */
static void add_pair(const struct dli_bank_call *call, const dlora_adapter *pair, float scale,
                     struct dli_const_matrix x, struct dli_matrix y) {
  const size_t rank = pair->rank;
  float *u = call->scratch; /* [rows, rank] */
  if (call->thin && rank <= MAX_THIN_RANK) {
    float *turned = u + x.rows * rank; /* [rank, out] */
    call->thin->thin_dot(x.x, x.rows, x.cols, x.ld, pair->a, rank, u);
    transpose(pair->b, y.cols, rank, scale, turned);
    call->thin->thin_add(u, rank, 1, dli_const_view(turned, rank, y.cols, y.cols), y);
    return;
  }
  dli_gemm_nt(x.rows, rank, x.cols, 1.0f, x.x, x.ld, pair->a, x.cols, 0.0f, u, rank);
  dli_gemm_nt(x.rows, y.cols, rank, scale, u, rank, pair->b, rank, 1.0f, y.x, y.ld);
}

/* Scale of an open pair. TERM_ORTHOGONAL is the part of both updates that M will get, TERM_RESIDUAL the part of the
 * residual update that stays in the adapter: before merge fractions are set, exactly B'A' and B_t A_t. */
static float open_scale(const dlora_bank *bank, size_t branch, int32_t terms) {
  const float merged = terms & DLORA_TERM_ORTHOGONAL ? bank->merge_fractions[branch] : 0.0f;
  const bool kept = branch == DLI_RESIDUAL && (terms & DLORA_TERM_RESIDUAL);
  return merged + (kept ? 1.0f - bank->merge_fractions[branch] : 0.0f);
}

/*   1. The term M, if it is wanted and not 0.
 *   2. The open task's pairs, each at its scale.
 *   3. Residual adapters of finished tasks. Consecutive items with equal routing weights, as images of one task, make
 *      one product for each task s with w_s > 0. */
void dli_bank_forward(const dlora_bank *bank, const struct dli_bank_call *call, struct dli_const_matrix x,
                      const float *routing, size_t rows_per_item, struct dli_matrix y) {
  const size_t site = call->site;
  if ((call->terms & DLORA_TERM_MERGED) && bank->merged[site]) {
    dli_gemm_nt(x.rows, y.cols, x.cols, 1.0f, x.x, x.ld, bank->merged[site], x.cols, 1.0f, y.x, y.ld);
  }
  for (size_t branch = 0; bank->pairs && branch < 2; branch++) {
    const dlora_adapter pair = factors_of(bank, &bank->pairs[2 * site + branch]);
    const float scale = open_scale(bank, branch, call->terms);
    if (scale == 0.0f || pair.rank == 0) continue;
    add_pair(call, &pair, scale, x, y);
  }
  if (!routing) return;
  const size_t tasks = bank->num_tasks, items = x.rows / rows_per_item;
  for (size_t first = 0, next; first < items; first = next) {
    const float *w = routing + first * tasks;
    next = first + 1;
    while (next < items && memcmp(w, routing + next * tasks, tasks * sizeof *w) == 0) next++;
    const size_t at = first * rows_per_item, count = (next - first) * rows_per_item;
    for (size_t t = 0; t < tasks; t++) {
      const dlora_adapter *adapter = w[t] == 0.0f ? NULL : dli_bank_adapter(bank, t, site);
      if (!adapter) continue;
      add_pair(call, adapter, w[t], dli_const_view(x.x + at * x.ld, count, x.cols, x.ld),
               dli_view(y.x + at * y.ld, count, y.cols, y.ld));
    }
  }
}

/* Gradients of one pair by thin kernels. dx.x, a_gradient: NULL if not wanted. */
static void thin_backward(const struct dli_bank_call *call, const dlora_adapter *pair, struct dli_const_matrix x,
                          struct dli_const_matrix dy, struct dli_matrix dx, float *a_gradient, float *b_gradient) {
  const struct dli_kernels_bfloat16 *thin = call->thin;
  const size_t rows = x.rows, in = x.cols, out = dy.cols, rank = pair->rank;
  float *u = call->scratch, *du = u + rows * rank, *turned = du + rows * rank, *d_turned = turned + rank * out;
  thin->thin_dot(x.x, rows, in, x.ld, pair->a, rank, u);
  memset(d_turned, 0, rank * out * sizeof *d_turned);
  thin->thin_add(u, 1, rank, dy, dli_view(d_turned, rank, out, out));
  for (size_t i = 0; i < out; i++) {
    for (size_t j = 0; j < rank; j++) b_gradient[i * rank + j] += d_turned[j * out + i];
  }
  if (!dx.x && !a_gradient) return;
  transpose(pair->b, out, rank, 1.0f, turned);
  thin->thin_dot(dy.x, rows, out, dy.ld, turned, rank, du);
  if (a_gradient) thin->thin_add(du, 1, rank, x, dli_view(a_gradient, rank, in, in));
  if (dx.x) thin->thin_add(du, rank, 1, dli_const_view(pair->a, rank, in, in), dx);
}

/* The same by the BLAS: u = x A^T, dB += dy^T u, and where it is wanted du = dy B, dA += du^T x, dx += du A. */
static void blas_backward(const struct dli_bank_call *call, const dlora_adapter *pair, struct dli_const_matrix x,
                          struct dli_const_matrix dy, struct dli_matrix dx, float *a_gradient, float *b_gradient) {
  const size_t rows = x.rows, in = x.cols, out = dy.cols, r = pair->rank;
  float *u = call->scratch, *du = u + rows * r; /* [rows, r] each */
  dli_gemm_nt(rows, r, in, 1.0f, x.x, x.ld, pair->a, in, 0.0f, u, r);
  dli_gemm_tn(out, r, rows, 1.0f, dy.x, dy.ld, u, r, 1.0f, b_gradient, r);
  if (!dx.x && !a_gradient) return;
  dli_gemm_nn(rows, r, out, 1.0f, dy.x, dy.ld, pair->b, r, 0.0f, du, r);
  if (a_gradient) dli_gemm_tn(r, in, rows, 1.0f, du, r, x.x, x.ld, 1.0f, a_gradient, in);
  if (dx.x) dli_gemm_nn(rows, in, r, 1.0f, du, r, pair->a, in, 1.0f, dx.x, dx.ld);
}

/* The term M, then each open pair. Both scales are 1: a backward pass after merge fractions are set is refused. */
void dli_bank_backward(const dlora_bank *bank, const struct dli_bank_call *call, struct dli_const_matrix x,
                       struct dli_const_matrix dy, struct dli_matrix dx, float *gradients) {
  const size_t site = call->site;
  if ((call->terms & DLORA_TERM_MERGED) && bank->merged[site] && dx.x) {
    dli_gemm_nn(dy.rows, dx.cols, dy.cols, 1.0f, dy.x, dy.ld, bank->merged[site], dx.cols, 1.0f, dx.x, dx.ld);
  }
  const int32_t branch_terms[] = {DLORA_TERM_ORTHOGONAL, DLORA_TERM_RESIDUAL};
  for (size_t branch = 0; bank->pairs && branch < 2; branch++) {
    const struct dli_pair *open = &bank->pairs[2 * site + branch];
    if (!(call->terms & branch_terms[branch]) || open->rank == 0) continue;
    const dlora_adapter pair = factors_of(bank, open);
    const bool by_thin = call->thin && pair.rank <= MAX_THIN_RANK;
    (by_thin ? thin_backward : blas_backward)(call, &pair, x, dy, dx, open->fixed_a ? NULL : gradients + open->a_offset,
                                              gradients + open->b_offset);
  }
}

/* ---- the public calls: checks and scratch ---- */

static dlora_status check_call(const dlora_bank *bank, size_t site, const float *x, const float *y, size_t rows,
                               int32_t terms, const char *caller) {
  if (!bank || !x || !y) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: %s is NULL", caller, !bank ? "bank" : !x ? "x" : "y or dy");
  }
  if (site >= bank->num_sites) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: site is %zu, the bank has %zu", caller, site, bank->num_sites);
  }
  size_t bytes;
  const dlora_site *s = &bank->sites[site];
  if (rows == 0 ||
      !dli_multiply(&bytes, rows, (s->input_dim > s->output_dim ? s->input_dim : s->output_dim) * sizeof(float))) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: rows is %zu", caller, rows);
  }
  const int32_t open_terms = DLORA_TERM_ORTHOGONAL | DLORA_TERM_RESIDUAL;
  if (terms & ~(open_terms | DLORA_TERM_MERGED)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: terms is %d, expected DLORA_TERM_... or-ed", caller, terms);
  }
  if ((terms & open_terms) && !bank->open) {
    return dli_raise(DLORA_ERR_STATE, "%s: terms name the open task's pairs, but no task is open", caller);
  }
  return DLORA_OK;
}

dlora_status dlora_bank_forward(const dlora_bank *bank, size_t site, const float *x, size_t rows, int32_t terms,
                                const float *routing, size_t rows_per_item, float *y) {
  DLI_TRY(check_call(bank, site, x, y, rows, terms, __func__));
  if (routing && (rows_per_item == 0 || rows % rows_per_item != 0)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_bank_forward: %zu rows are no multiple of rows_per_item %zu", rows,
                     rows_per_item);
  }
  float *scratch;
  DLI_TRY(DLI_NEW(&bank->allocator, scratch, rows * dli_bank_max_rank(bank)));
  const dlora_site *s = &bank->sites[site];
  const struct dli_bank_call call = {.site = site, .terms = terms, .scratch = scratch};
  dli_bank_forward(bank, &call, dli_const_view(x, rows, s->input_dim, s->input_dim), routing, rows_per_item,
                   dli_view(y, rows, s->output_dim, s->output_dim));
  dli_free(&bank->allocator, scratch);
  return DLORA_OK;
}

dlora_status dlora_bank_backward(dlora_bank *bank, size_t site, const float *x, const float *dy, size_t rows,
                                 int32_t terms, float *dx) {
  DLI_TRY(check_call(bank, site, x, dy, rows, terms, __func__));
  DLI_TRY(dli_bank_require_training(bank, __func__));
  float *scratch;
  DLI_TRY(DLI_NEW(&bank->allocator, scratch, 2 * rows * dli_bank_max_rank(bank)));
  const dlora_site *s = &bank->sites[site];
  const struct dli_bank_call call = {.site = site, .terms = terms, .scratch = scratch};
  dli_bank_backward(bank, &call, dli_const_view(x, rows, s->input_dim, s->input_dim),
                    dli_const_view(dy, rows, s->output_dim, s->output_dim),
                    dli_view(dx, rows, s->input_dim, s->input_dim), bank->gradients);
  dli_free(&bank->allocator, scratch);
  return DLORA_OK;
}
