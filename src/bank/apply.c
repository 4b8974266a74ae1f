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

static const float *a_of(const dlora_bank *bank, const struct dli_pair *pair) {
  return pair->fixed_a ? pair->fixed_a : bank->parameters + pair->a_offset;
}

/* The BLAS does products of larger ranks. */
enum { MAX_THIN_RANK = 32 };

/* y [cols, rows] = scale * x^T, x [rows, cols] */
static void transpose(const float *x, size_t rows, size_t cols, float scale, float *y) {
  for (size_t j = 0; j < cols; j++) {
    for (size_t i = 0; i < rows; i++) y[j * rows + i] = scale * x[i * cols + j];
  }
}

/* y [rows, O] += scale * (x A^T) B^T */
static void add_pair(const struct dli_kernels_bfloat16 *thin, const dlora_site *site, const float *a, const float *b,
                     size_t rank, float scale, const float *x, size_t rows, size_t ldx, float *y, size_t ldy,
                     float *scratch) {
  if (thin && rank <= MAX_THIN_RANK) {
    float *turned = scratch + rows * rank; /* [rank, O] */
    thin->thin_dot(x, rows, site->input_dim, ldx, a, rank, scratch);
    transpose(b, site->output_dim, rank, scale, turned);
    thin->thin_add(scratch, rank, 1, dli_const_view(turned, rank, site->output_dim, site->output_dim),
                   dli_view(y, rows, site->output_dim, ldy));
    return;
  }
  dli_gemm_nt(rows, rank, site->input_dim, 1.0f, x, ldx, a, site->input_dim, 0.0f, scratch, rank);
  dli_gemm_nt(rows, site->output_dim, rank, scale, scratch, rank, b, rank, 1.0f, y, ldy);
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
void dli_bank_forward(const dlora_bank *bank, const struct dli_kernels_bfloat16 *thin, size_t site, const float *x,
                      size_t rows, size_t ldx, int32_t terms, const float *routing, size_t rows_per_item, float *y,
                      size_t ldy, float *scratch) {
  const dlora_site *s = &bank->sites[site];
  if ((terms & DLORA_TERM_MERGED) && bank->merged[site]) {
    dli_gemm_nt(rows, s->output_dim, s->input_dim, 1.0f, x, ldx, bank->merged[site], s->input_dim, 1.0f, y, ldy);
  }
  for (size_t branch = 0; bank->pairs && branch < 2; branch++) {
    const struct dli_pair *pair = &bank->pairs[2 * site + branch];
    const float scale = open_scale(bank, branch, terms);
    if (scale == 0.0f || pair->rank == 0) continue;
    add_pair(thin, s, a_of(bank, pair), bank->parameters + pair->b_offset, pair->rank, scale, x, rows, ldx, y, ldy,
             scratch);
  }
  if (!routing) return;
  const size_t tasks = bank->num_tasks, items = rows / rows_per_item;
  for (size_t first = 0, next; first < items; first = next) {
    const float *w = routing + first * tasks;
    next = first + 1;
    while (next < items && memcmp(w, routing + next * tasks, tasks * sizeof *w) == 0) next++;
    const size_t at = first * rows_per_item, count = (next - first) * rows_per_item;
    for (size_t t = 0; t < tasks; t++) {
      const dlora_adapter *adapter = w[t] == 0.0f ? NULL : dli_bank_adapter(bank, t, site);
      if (!adapter) continue;
      add_pair(thin, s, adapter->a, adapter->b, adapter->rank, w[t], x + at * ldx, count, ldx, y + at * ldy, ldy,
               scratch);
    }
  }
}

/* Gradients of one pair by thin kernels. dx, a_gradient: NULL if not wanted. */
static void thin_backward(const struct dli_kernels_bfloat16 *thin, const dlora_site *site, const float *a,
                          const float *b, size_t rank, const float *x, size_t rows, size_t ldx, const float *dy,
                          size_t lddy, float *dx, size_t lddx, float *a_gradient, float *b_gradient, float *scratch) {
  const size_t in = site->input_dim, out = site->output_dim;
  float *u = scratch, *du = u + rows * rank, *turned = du + rows * rank, *d_turned = turned + rank * out;
  thin->thin_dot(x, rows, in, ldx, a, rank, u);
  memset(d_turned, 0, rank * out * sizeof *d_turned);
  thin->thin_add(u, 1, rank, dli_const_view(dy, rows, out, lddy), dli_view(d_turned, rank, out, out));
  for (size_t i = 0; i < out; i++) {
    for (size_t j = 0; j < rank; j++) b_gradient[i * rank + j] += d_turned[j * out + i];
  }
  if (!dx && !a_gradient) return;
  transpose(b, out, rank, 1.0f, turned);
  thin->thin_dot(dy, rows, out, lddy, turned, rank, du);
  if (a_gradient) {
    thin->thin_add(du, 1, rank, dli_const_view(x, rows, in, ldx), dli_view(a_gradient, rank, in, in));
  }
  if (dx) thin->thin_add(du, rank, 1, dli_const_view(a, rank, in, in), dli_view(dx, rows, in, lddx));
}

/* For M, then for each open pair: u = x A^T, dB += dy^T u, and where it is wanted du = dy B, dA += du^T x, dx += du A.
 * Both scales are 1: a backward pass after merge fractions are set is refused. */
void dli_bank_backward(const dlora_bank *bank, const struct dli_kernels_bfloat16 *thin, size_t site, const float *x,
                       size_t rows, size_t ldx, const float *dy, size_t lddy, int32_t terms, float *dx, size_t lddx,
                       float *gradients, float *scratch) {
  const dlora_site *s = &bank->sites[site];
  if ((terms & DLORA_TERM_MERGED) && bank->merged[site] && dx) {
    dli_gemm_nn(rows, s->input_dim, s->output_dim, 1.0f, dy, lddy, bank->merged[site], s->input_dim, 1.0f, dx, lddx);
  }
  const int32_t branch_terms[] = {DLORA_TERM_ORTHOGONAL, DLORA_TERM_RESIDUAL};
  for (size_t branch = 0; bank->pairs && branch < 2; branch++) {
    const struct dli_pair *pair = &bank->pairs[2 * site + branch];
    const size_t r = pair->rank;
    if (!(terms & branch_terms[branch]) || r == 0) continue;
    const float *a = a_of(bank, pair), *b = bank->parameters + pair->b_offset;
    if (thin && r <= MAX_THIN_RANK) {
      thin_backward(thin, s, a, b, r, x, rows, ldx, dy, lddy, dx, lddx,
                    pair->fixed_a ? NULL : gradients + pair->a_offset, gradients + pair->b_offset, scratch);
      continue;
    }
    float *u = scratch, *du = scratch + rows * r;
    dli_gemm_nt(rows, r, s->input_dim, 1.0f, x, ldx, a, s->input_dim, 0.0f, u, r); /* u [rows, r] = x A^T */
    dli_gemm_tn(s->output_dim, r, rows, 1.0f, dy, lddy, u, r, 1.0f, gradients + pair->b_offset, r);
    if (!dx && pair->fixed_a) continue;
    dli_gemm_nn(rows, r, s->output_dim, 1.0f, dy, lddy, b, r, 0.0f, du, r); /* du [rows, r] = dy B */
    if (!pair->fixed_a) {
      dli_gemm_tn(r, s->input_dim, rows, 1.0f, du, r, x, ldx, 1.0f, gradients + pair->a_offset, s->input_dim);
    }
    if (dx) dli_gemm_nn(rows, s->input_dim, r, 1.0f, du, r, a, s->input_dim, 1.0f, dx, lddx);
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
  dli_bank_forward(bank, NULL, site, x, rows, s->input_dim, terms, routing, rows_per_item, y, s->output_dim, scratch);
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
  dli_bank_backward(bank, NULL, site, x, rows, s->input_dim, dy, s->output_dim, terms, dx, s->input_dim,
                    bank->gradients, scratch);
  dli_free(&bank->allocator, scratch);
  return DLORA_OK;
}
