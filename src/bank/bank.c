/* The life of a bank and of its open task: sites, pairs, parameters, steps, and the end of a task by (2a).
 * SPDX-License-Identifier: Apache-2.0
 *
 * The open task's pairs are A' [r, in], B' [out, r] and A_t, B_t of each site (METHOD.md 2, 4, 5). What is trained lies
 * in one array `parameters`, with a second one for gradients, so that the optimizer sees contiguous memory:
 *
 *   site 0: B' (A') B_t (A_t) | site 1: B' (A') B_t (A_t) | ... | extra: the learner's head rows
 *
 * A' and A_t are present only if they are trained. Setting a pair lays the arrays out anew and resets the optimizer. */
#include "src/bank/bank.h"

#include <math.h>
#include <string.h>

#include "base/finite.h"
#include "base/memory.h"
#include "base/status.h"
#include "linalg/matrix.h"

static dlora_status read_options(const dlora_bank_options *given, dlora_bank_options *out) {
  *out = (dlora_bank_options)DLORA_BANK_OPTIONS_INIT;
  DLI_TRY(dli_options_read("dlora_bank_options", out, sizeof *out, given));
  if (out->optimizer != DLORA_OPTIMIZER_ADAM && out->optimizer != DLORA_OPTIMIZER_SGD) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_bank_options: optimizer is %d, expected DLORA_OPTIMIZER_...",
                     out->optimizer);
  }
  if (!(out->beta1 >= 0.0f && out->beta1 < 1.0f) || !(out->beta2 >= 0.0f && out->beta2 < 1.0f) ||
      !(out->epsilon > 0.0f && isfinite(out->epsilon)) || !(out->momentum >= 0.0f && out->momentum < 1.0f) ||
      !(out->weight_decay >= 0.0f && isfinite(out->weight_decay))) {
    return dli_raise(DLORA_ERR_ARGUMENT,
                     "dlora_bank_options: expected beta1, beta2, momentum in [0, 1), epsilon > 0, weight_decay >= 0");
  }
  return DLORA_OK;
}

dlora_status dlora_bank_options_init(dlora_bank_options *options, size_t size) {
  const dlora_bank_options defaults = DLORA_BANK_OPTIONS_INIT;
  return dli_struct_write("dlora_bank_options", options, size, &defaults, sizeof defaults);
}

dlora_status dlora_bank_create(dlora_bank **out, const dlora_site *sites, size_t num_sites,
                               const dlora_bank_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(sites);
  dlora_bank_options known;
  dlora_allocator allocator;
  DLI_TRY(read_options(options, &known));
  DLI_TRY(dli_allocator_read(&allocator, known.allocator));
  if (num_sites == 0) return dli_raise(DLORA_ERR_ARGUMENT, "dlora_bank_create: num_sites is 0");
  for (size_t i = 0; i < num_sites; i++) {
    size_t product, bytes;
    if (sites[i].input_dim == 0 || sites[i].output_dim == 0 ||
        !dli_multiply(&product, sites[i].input_dim, sites[i].output_dim) || !dli_multiply(&bytes, product, 16)) {
      return dli_raise(DLORA_ERR_ARGUMENT, "dlora_bank_create: site %zu has input_dim %zu and output_dim %zu", i,
                       sites[i].input_dim, sites[i].output_dim);
    }
  }
  dlora_status status = DLORA_OK;
  dlora_bank *bank;
  DLI_TRY(DLI_NEW(&allocator, bank, 1));
  bank->allocator = allocator;
  bank->options = known;
  bank->options.allocator = NULL;
  bank->num_sites = num_sites;
  DLI_TRY_DONE(DLI_NEW(&allocator, bank->sites, num_sites));
  DLI_TRY_DONE(DLI_NEW(&allocator, bank->merged, num_sites));
  memcpy(bank->sites, sites, num_sites * sizeof *sites);
  *out = bank;
done:
  if (status != DLORA_OK) dlora_bank_destroy(bank);
  return status;
}

/* ---- the open task's layout ---- */

struct layout {
  struct dli_pair *pairs;
  float *parameters, *gradients;
  struct dli_optimizer optimizer;
  size_t count;
};

static void release_layout(const dlora_bank *bank, struct layout *layout) {
  for (size_t i = 0; layout->pairs && i < 2 * bank->num_sites; i++)
    dli_free(&bank->allocator, layout->pairs[i].fixed_a);
  dli_free(&bank->allocator, layout->pairs);
  dli_free(&bank->allocator, layout->parameters);
  dli_free(&bank->allocator, layout->gradients);
  dli_optimizer_destroy(&layout->optimizer, &bank->allocator);
  *layout = (struct layout){0};
}

static struct layout take_layout(dlora_bank *bank) {
  const struct layout layout = {bank->pairs, bank->parameters, bank->gradients, bank->optimizer, bank->count};
  bank->pairs = NULL;
  bank->parameters = bank->gradients = NULL;
  bank->optimizer = (struct dli_optimizer){0};
  bank->count = 0;
  return layout;
}

static void put_layout(dlora_bank *bank, const struct layout *layout) {
  bank->pairs = layout->pairs;
  bank->parameters = layout->parameters;
  bank->gradients = layout->gradients;
  bank->optimizer = layout->optimizer;
  bank->count = layout->count;
}

/* Per site: B', A' if trained, B_t, A_t if trained. */
static void assign_offsets(const dlora_bank *bank, struct layout *layout) {
  layout->count = 0;
  for (size_t i = 0; i < 2 * bank->num_sites; i++) {
    struct dli_pair *pair = &layout->pairs[i];
    const dlora_site *site = &bank->sites[i / 2];
    pair->b_offset = layout->count;
    layout->count += pair->rank * site->output_dim;
    if (pair->fixed_a) continue;
    pair->a_offset = layout->count;
    layout->count += pair->rank * site->input_dim;
  }
}

/* Lays the parameters out anew, with pair `index` replaced (SIZE_MAX: none) and `extra` zeros at the end. A failure
 * changes nothing.
 *
 *   1. The pairs, with copies of fixed A.
 *   2. Offsets of what is trained, and parameters, gradients and a fresh optimizer of the new size.
 *   3. Values of the other pairs move to their new places; of the new pair A is `a` and B is 0.
 *   4. The new arrays replace the old ones. */
static dlora_status relayout(dlora_bank *bank, size_t index, const float *a, size_t rank, bool train_a,
                             const dlora_projector *projector, size_t extra) {
  const dlora_allocator *allocator = &bank->allocator;
  const size_t num_pairs = 2 * bank->num_sites;
  struct layout next = {0};
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, next.pairs, num_pairs));
  for (size_t i = 0; i < num_pairs; i++) {
    const struct dli_pair *old = &bank->pairs[i];
    const size_t input_dim = bank->sites[i / 2].input_dim;
    const float *source = i == index ? (train_a ? NULL : a) : old->fixed_a;
    next.pairs[i] = i == index ? (struct dli_pair){.rank = rank, .projector = projector} : *old;
    next.pairs[i].fixed_a = NULL;
    if (!source || next.pairs[i].rank == 0) continue;
    DLI_TRY_DONE(DLI_NEW(allocator, next.pairs[i].fixed_a, next.pairs[i].rank * input_dim));
    memcpy(next.pairs[i].fixed_a, source, next.pairs[i].rank * input_dim * sizeof *source);
  }
  assign_offsets(bank, &next);
  DLI_TRY_DONE(DLI_NEW(allocator, next.parameters, next.count + extra));
  DLI_TRY_DONE(DLI_NEW(allocator, next.gradients, next.count + extra));
  const dlora_bank_options *o = &bank->options;
  const struct dli_optimizer_settings settings = {o->optimizer, o->beta1,    o->beta2,
                                                  o->epsilon,   o->momentum, o->weight_decay};
  DLI_TRY_DONE(dli_optimizer_create(&next.optimizer, allocator, &settings, next.count + extra));
  for (size_t i = 0; i < num_pairs; i++) {
    const struct dli_pair *old = &bank->pairs[i], *pair = &next.pairs[i];
    const dlora_site *site = &bank->sites[i / 2];
    if (i != index && pair->rank > 0) {
      memcpy(next.parameters + pair->b_offset, bank->parameters + old->b_offset,
             pair->rank * site->output_dim * sizeof *a);
    }
    if (pair->rank == 0 || pair->fixed_a) continue;
    memcpy(next.parameters + pair->a_offset, i == index ? a : bank->parameters + old->a_offset,
           pair->rank * site->input_dim * sizeof *a);
  }
  struct layout before = take_layout(bank);
  put_layout(bank, &next);
  bank->extra = extra;
  release_layout(bank, &before);
  next = (struct layout){0};
done:
  release_layout(bank, &next);
  return status;
}

static void close_task(dlora_bank *bank) {
  struct layout layout = take_layout(bank);
  release_layout(bank, &layout);
  bank->extra = 0;
  bank->open = false;
}

/* The list, and the arrays of its entries first ... end - 1. */
static void release_kept(const dlora_bank *bank, struct dli_residual_adapter *kept, size_t first, size_t end) {
  for (size_t i = first; kept && i < end; i++) {
    dli_free(&bank->allocator, kept[i].adapter.a);
    dli_free(&bank->allocator, kept[i].adapter.b);
  }
  dli_free(&bank->allocator, kept);
}

void dlora_bank_destroy(dlora_bank *bank) {
  if (!bank) return;
  const dlora_allocator allocator = bank->allocator;
  close_task(bank);
  for (size_t i = 0; bank->merged && i < bank->num_sites; i++) dli_free(&allocator, bank->merged[i]);
  release_kept(bank, bank->kept, 0, bank->num_residuals);
  dli_free(&allocator, bank->merged);
  dli_free(&allocator, bank->sites);
  dli_free(&allocator, bank);
}

/* ---- queries ---- */

size_t dlora_bank_num_sites(const dlora_bank *bank) {
  return bank ? bank->num_sites : 0;
}

size_t dlora_bank_num_tasks(const dlora_bank *bank) {
  return bank ? bank->num_tasks : 0;
}

static dlora_status check_site(const dlora_bank *bank, size_t site, const char *caller) {
  if (!bank) return dli_raise(DLORA_ERR_ARGUMENT, "%s: bank is NULL", caller);
  if (site < bank->num_sites) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "%s: site is %zu, the bank has %zu", caller, site, bank->num_sites);
}

dlora_status dlora_bank_get_site(const dlora_bank *bank, size_t site, dlora_site *out) {
  DLI_TRY(check_site(bank, site, __func__));
  DLI_REQUIRE(out);
  *out = bank->sites[site];
  return DLORA_OK;
}

dlora_status dlora_bank_get_merged(const dlora_bank *bank, size_t site, const float **merged) {
  DLI_TRY(check_site(bank, site, __func__));
  DLI_REQUIRE(merged);
  *merged = bank->merged[site];
  return DLORA_OK;
}

dlora_status dlora_bank_get_residual(const dlora_bank *bank, size_t site, int64_t task, dlora_adapter *out) {
  DLI_TRY(check_site(bank, site, __func__));
  DLI_REQUIRE(out);
  if (task < 0 || (uint64_t)task >= bank->num_tasks) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_bank_get_residual: task is %lld, the bank has %zu finished tasks",
                     (long long)task, bank->num_tasks);
  }
  const dlora_adapter *adapter = dli_bank_adapter(bank, (size_t)task, site);
  *out = adapter ? *adapter : (dlora_adapter){0};
  return DLORA_OK;
}

static bool has_updates(float *const *merged, size_t num_sites, size_t num_residuals) {
  for (size_t i = 0; i < num_sites; i++) {
    if (merged[i]) return true;
  }
  return num_residuals > 0;
}

bool dli_bank_has_updates(const dlora_bank *bank) {
  return has_updates(bank->merged, bank->num_sites, bank->num_residuals);
}

bool dli_bank_will_have_updates(const dlora_bank *bank, const struct dli_bank_commit *commit) {
  return has_updates(commit->merged, bank->num_sites, commit->num_residuals);
}

const dlora_adapter *dli_bank_adapter(const dlora_bank *bank, size_t task, size_t site) {
  size_t first = 0, end = bank->num_residuals;
  while (first < end) {
    const size_t middle = first + (end - first) / 2;
    const struct dli_residual_adapter *kept = &bank->kept[middle];
    if (kept->task == task && kept->site == site) return &kept->adapter;
    if (kept->task < task || (kept->task == task && kept->site < site)) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  return NULL;
}

size_t dli_bank_max_rank(const dlora_bank *bank) {
  size_t rank = 0;
  for (size_t i = 0; i < bank->num_residuals; i++) {
    if (bank->kept[i].adapter.rank > rank) rank = bank->kept[i].adapter.rank;
  }
  for (size_t i = 0; bank->pairs && i < 2 * bank->num_sites; i++) {
    if (bank->pairs[i].rank > rank) rank = bank->pairs[i].rank;
  }
  return rank;
}

/* ---- a task ---- */

static dlora_status require_open(const dlora_bank *bank, const char *caller) {
  if (!bank) return dli_raise(DLORA_ERR_ARGUMENT, "%s: bank is NULL", caller);
  if (bank->open) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE, "%s: no task is open; call dlora_bank_begin_task first", caller);
}

dlora_status dli_bank_require_training(const dlora_bank *bank, const char *caller) {
  DLI_TRY(require_open(bank, caller));
  if (bank->merge_fractions[DLI_ORTHOGONAL] == 1.0f && bank->merge_fractions[DLI_RESIDUAL] == 0.0f) return DLORA_OK;
  return dli_raise(DLORA_ERR_STATE, "%s: merge fractions are set, so that training is over", caller);
}

dlora_status dlora_bank_begin_task(dlora_bank *bank) {
  DLI_REQUIRE(bank);
  if (bank->open) {
    return dli_raise(
        DLORA_ERR_STATE,
        "dlora_bank_begin_task: a task is open; call dlora_bank_commit_task or dlora_bank_discard_task first");
  }
  dlora_status status = DLI_NEW(&bank->allocator, bank->pairs, 2 * bank->num_sites);
  if (status == DLORA_OK) status = relayout(bank, SIZE_MAX, NULL, 0, false, NULL, 0);
  if (status != DLORA_OK) {
    close_task(bank);
    return status;
  }
  bank->open = true;
  bank->merge_fractions[DLI_ORTHOGONAL] = 1.0f;
  bank->merge_fractions[DLI_RESIDUAL] = 0.0f;
  return DLORA_OK;
}

static dlora_status set_pair(dlora_bank *bank, size_t site, int branch, const float *a, size_t rank, bool train_a,
                             const dlora_projector *projector, const char *caller) {
  DLI_TRY(require_open(bank, caller));
  DLI_TRY(check_site(bank, site, caller));
  const size_t input_dim = bank->sites[site].input_dim;
  if (rank > input_dim) {
    return dli_raise(DLORA_ERR_ARGUMENT, "%s: rank is %zu, more than the input_dim %zu of site %zu", caller, rank,
                     input_dim, site);
  }
  if (rank > 0 && !a) return dli_raise(DLORA_ERR_ARGUMENT, "%s: a is NULL", caller);
  if (rank > 0 && dli_first_not_finite(a, rank * input_dim) < rank * input_dim) {
    return dli_raise(DLORA_ERR_NOT_FINITE, "%s: a has a value that is NaN or infinite", caller);
  }
  if (projector && dlora_projector_dim(projector) != input_dim) {
    return dli_raise(DLORA_ERR_MISMATCH, "%s: the projector has dim %zu, site %zu has input_dim %zu", caller,
                     dlora_projector_dim(projector), site, input_dim);
  }
  return relayout(bank, 2 * site + (size_t)branch, a, rank, train_a, projector, bank->extra);
}

dlora_status dlora_bank_set_orthogonal(dlora_bank *bank, size_t site, const float *a, size_t rank,
                                       const dlora_projector *projector) {
  return set_pair(bank, site, DLI_ORTHOGONAL, a, rank, projector != NULL, projector, __func__);
}

dlora_status dlora_bank_set_residual(dlora_bank *bank, size_t site, const float *a, size_t rank, int32_t train_a) {
  return set_pair(bank, site, DLI_RESIDUAL, a, rank, train_a != 0, NULL, __func__);
}

dlora_status dli_bank_set_extra(dlora_bank *bank, size_t extra) {
  DLI_TRY(require_open(bank, __func__));
  return relayout(bank, SIZE_MAX, NULL, 0, false, NULL, extra);
}

dlora_status dlora_bank_get_parameters(dlora_bank *bank, float **parameters, float **gradients, size_t *count) {
  DLI_TRY(require_open(bank, __func__));
  if (parameters) *parameters = bank->parameters;
  if (gradients) *gradients = bank->gradients;
  if (count) *count = bank->count;
  return DLORA_OK;
}

/* a [rank, dim] <- a P. A' starts outside span(Phi), so this multiplies each of its updates by P (METHOD.md 4). Unlike
 * dlora_projector_project it cannot fail: a step allocates nothing. */
static void project_rows(const dlora_projector *projector, float *a, size_t rank) {
  const size_t dim = dlora_projector_dim(projector);
  const int64_t num_tasks = (int64_t)dlora_projector_num_tasks(projector);
  for (int64_t task = 0; task < num_tasks; task++) {
    const float *bases = NULL;
    size_t count = 0;
    if (dlora_projector_get_bases(projector, task, &bases, &count) != DLORA_OK) return;
    for (size_t r = 0; r < rank; r++) {
      for (size_t b = 0; b < count; b++) {
        float *row = a + r * dim;
        const float *basis = bases + b * dim;
        double dot = 0.0;
        for (size_t j = 0; j < dim; j++) dot += (double)row[j] * (double)basis[j];
        for (size_t j = 0; j < dim; j++) row[j] -= (float)dot * basis[j];
      }
    }
  }
}

dlora_status dlora_bank_step(dlora_bank *bank, float learning_rate) {
  DLI_TRY(require_open(bank, __func__));
  const size_t count = bank->count + bank->extra;
  if (!isfinite(learning_rate) || learning_rate < 0.0f) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_bank_step: learning_rate is %g", (double)learning_rate);
  }
  const size_t bad = dli_first_not_finite(bank->gradients, count);
  if (bad < count) return dli_raise(DLORA_ERR_NOT_FINITE, "dlora_bank_step: gradient %zu is not finite", bad);

  dli_optimizer_step(&bank->optimizer, learning_rate, bank->gradients, bank->parameters);
  for (size_t i = 0; i < 2 * bank->num_sites; i++) {
    const struct dli_pair *pair = &bank->pairs[i];
    if (pair->projector && pair->rank > 0) project_rows(pair->projector, bank->parameters + pair->a_offset, pair->rank);
  }
  memset(bank->gradients, 0, count * sizeof *bank->gradients);
  return DLORA_OK;
}

/* ---- end of a task ---- */

dlora_status dlora_bank_set_merge_fractions(dlora_bank *bank, float orthogonal, float residual) {
  DLI_TRY(require_open(bank, __func__));
  if (!(orthogonal >= 0.0f && orthogonal <= 1.0f && residual >= 0.0f && residual <= 1.0f)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_bank_set_merge_fractions: %g and %g, expected fractions from 0 to 1",
                     (double)orthogonal, (double)residual);
  }
  bank->merge_fractions[DLI_ORTHOGONAL] = orthogonal;
  bank->merge_fractions[DLI_RESIDUAL] = residual;
  return DLORA_OK;
}

void dli_bank_abandon_commit(const dlora_bank *bank, struct dli_bank_commit *commit) {
  for (size_t i = 0; commit->merged && i < bank->num_sites; i++) {
    if (commit->merged[i] != bank->merged[i]) dli_free(&bank->allocator, commit->merged[i]);
  }
  dli_free(&bank->allocator, commit->merged);
  release_kept(bank, commit->kept, bank->num_residuals, commit->num_residuals);
  *commit = (struct dli_bank_commit){0};
}

/* Fraction of an open pair's update that M will get; 0 without the pair. */
static float merged_fraction(const dlora_bank *bank, size_t site, size_t branch) {
  return bank->pairs[2 * site + branch].rank > 0 ? bank->merge_fractions[branch] : 0.0f;
}

/* Allocates what the end of a task changes, by (2a) with fractions a of B'A' and r a of B_t A_t:
 *
 *   1. A zero M for sites that have none yet and will get an update.
 *   2. The list of residual adapters, one longer for each site where (1 - r a) B_t remains: copies of A_t and of B_t
 *      times this factor. */
dlora_status dli_bank_prepare_commit(const dlora_bank *bank, struct dli_bank_commit *out) {
  const dlora_allocator *allocator = &bank->allocator;
  struct dli_bank_commit commit = {.num_residuals = bank->num_residuals};
  const float kept_fraction = 1.0f - bank->merge_fractions[DLI_RESIDUAL];
  dlora_status status = DLORA_OK;
  DLI_TRY_DONE(DLI_NEW(allocator, commit.merged, bank->num_sites));
  DLI_TRY_DONE(DLI_NEW(allocator, commit.kept, bank->num_residuals + bank->num_sites));
  if (bank->num_residuals > 0) memcpy(commit.kept, bank->kept, bank->num_residuals * sizeof *bank->kept);
  for (size_t i = 0; i < bank->num_sites; i++) {
    const dlora_site *site = &bank->sites[i];
    const struct dli_pair *pair = &bank->pairs[2 * i + DLI_RESIDUAL];
    commit.merged[i] = bank->merged[i];
    if (!commit.merged[i] &&
        (merged_fraction(bank, i, DLI_ORTHOGONAL) > 0.0f || merged_fraction(bank, i, DLI_RESIDUAL) > 0.0f)) {
      DLI_TRY_DONE(DLI_NEW(allocator, commit.merged[i], site->output_dim * site->input_dim));
    }
    if (pair->rank == 0 || kept_fraction == 0.0f) continue;
    float *a, *b;
    struct dli_residual_adapter *kept = &commit.kept[commit.num_residuals++];
    *kept = (struct dli_residual_adapter){.task = bank->num_tasks, .site = i, .adapter.rank = pair->rank};
    DLI_TRY_DONE(DLI_NEW(allocator, a, pair->rank * site->input_dim));
    kept->adapter.a = a;
    DLI_TRY_DONE(DLI_NEW(allocator, b, pair->rank * site->output_dim));
    kept->adapter.b = b;
    const float *from = pair->fixed_a ? pair->fixed_a : bank->parameters + pair->a_offset;
    memcpy(a, from, pair->rank * site->input_dim * sizeof *a);
    const float *trained = bank->parameters + pair->b_offset;
    for (size_t j = 0; j < pair->rank * site->output_dim; j++) b[j] = kept_fraction * trained[j];
  }
  *out = commit;
  return DLORA_OK;
done:
  dli_bank_abandon_commit(bank, &commit);
  return status;
}

/* M += a B'A' + r a B_t A_t at every site, (2a). Then the prepared lists replace the bank's, and the task closes. */
void dli_bank_apply_commit(dlora_bank *bank, struct dli_bank_commit *commit) {
  for (size_t i = 0; i < 2 * bank->num_sites; i++) {
    const dlora_site *site = &bank->sites[i / 2];
    const struct dli_pair *pair = &bank->pairs[i];
    const float fraction = merged_fraction(bank, i / 2, i % 2);
    if (fraction == 0.0f) continue;
    const float *a = pair->fixed_a ? pair->fixed_a : bank->parameters + pair->a_offset;
    dli_gemm_nn(site->output_dim, site->input_dim, pair->rank, fraction, bank->parameters + pair->b_offset, pair->rank,
                a, site->input_dim, 1.0f, commit->merged[i / 2], site->input_dim);
  }
  dli_free(&bank->allocator, bank->merged);
  dli_free(&bank->allocator, bank->kept);
  bank->merged = commit->merged;
  bank->kept = commit->kept;
  bank->num_residuals = commit->num_residuals;
  *commit = (struct dli_bank_commit){0};
  close_task(bank);
  bank->num_tasks++;
  bank->version++;
}

dlora_status dlora_bank_commit_task(dlora_bank *bank) {
  DLI_TRY(require_open(bank, __func__));
  struct dli_bank_commit commit;
  DLI_TRY(dli_bank_prepare_commit(bank, &commit));
  dli_bank_apply_commit(bank, &commit);
  return DLORA_OK;
}

dlora_status dlora_bank_discard_task(dlora_bank *bank) {
  DLI_TRY(require_open(bank, __func__));
  close_task(bank);
  return DLORA_OK;
}
