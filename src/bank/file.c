/* Banks in safetensors files: M, the residual adapters, and the open task's pairs and optimizer. docs/FILES.md.
 * SPDX-License-Identifier: Apache-2.0
 *
 * metadata <prefix>.num_sites, <prefix>.num_tasks, <prefix>.site.<i> = "input_dim output_dim block projection"
 * <prefix>.merged.<site>          F32 [output_dim, input_dim], absent while zero
 * <prefix>.task.<t>.<site>.a      F32 [rank, input_dim], absent where the rank is 0
 * <prefix>.task.<t>.<site>.b      F32 [output_dim, rank]
 *
 * The open task, under a prefix of its own:
 *
 * <prefix>.<site>.<branch>.a, .b  F32, as above; branch: orthogonal or residual
 * <prefix>.optimizer.first        F32 [parameters] mean gradient (Adam) or momentum (SGD); .second: mean square (Adam)
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/saved_file.h"
#include "src/bank/bank.h"

/* 16 bytes times the product of two widths of this size still fit a size_t. */
enum { NAME_SIZE = 160, MAX_TASKS = 1 << 20, MAX_WIDTH = 1 << 29 };
static const char format[] = "duallora.bank.1";

dlora_status dli_bank_write(const dlora_bank *bank, struct dli_writer *writer, const char *prefix) {
  char name[NAME_SIZE];
  const size_t num_sites = bank->num_sites;
  char text[96];
  snprintf(name, sizeof name, "%s.num_tasks", prefix);
  snprintf(text, sizeof text, "%zu", bank->num_tasks);
  DLI_TRY(dli_writer_set_metadata(writer, name, text));
  snprintf(name, sizeof name, "%s.num_sites", prefix);
  snprintf(text, sizeof text, "%zu", num_sites);
  DLI_TRY(dli_writer_set_metadata(writer, name, text));
  for (size_t i = 0; i < num_sites; i++) {
    const dlora_site *s = &bank->sites[i];
    snprintf(name, sizeof name, "%s.site.%zu", prefix, i);
    snprintf(text, sizeof text, "%zu %zu %d %d", s->input_dim, s->output_dim, (int)s->block, (int)s->projection);
    DLI_TRY(dli_writer_set_metadata(writer, name, text));
    if (!bank->merged[i]) continue;
    snprintf(name, sizeof name, "%s.merged.%zu", prefix, i);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, (size_t[]){s->output_dim, s->input_dim}, bank->merged[i]));
  }
  for (size_t i = 0; i < bank->num_residuals; i++) {
    const struct dli_residual_adapter *kept = &bank->kept[i];
    const dlora_site *s = &bank->sites[kept->site];
    const size_t rank = kept->adapter.rank;
    snprintf(name, sizeof name, "%s.task.%zu.%zu.a", prefix, kept->task, kept->site);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, (size_t[]){rank, s->input_dim}, kept->adapter.a));
    snprintf(name, sizeof name, "%s.task.%zu.%zu.b", prefix, kept->task, kept->site);
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, (size_t[]){s->output_dim, rank}, kept->adapter.b));
  }
  return DLORA_OK;
}

static dlora_status read_array(const dlora_bank *bank, const struct dli_tensors *tensors, const char *name, size_t rows,
                               size_t cols, float **out) {
  const struct dli_tensor *tensor;
  const size_t shape[] = {rows, cols};
  DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, 2, shape, &tensor));
  DLI_TRY(DLI_NEW(&bank->allocator, *out, tensor->count));
  return dli_tensor_to_float(tensors, tensor, *out);
}

/* Reads the adapter of kept->task at kept->site. */
static dlora_status read_adapter(const dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                 struct dli_residual_adapter *kept) {
  const size_t site = kept->site;
  char name[NAME_SIZE];
  snprintf(name, sizeof name, "%s.task.%zu.%zu.a", prefix, kept->task, site);
  const struct dli_tensor *found = dli_tensors_find(tensors, name);
  const size_t rank = found && found->num_dims == 2 ? found->shape[0] : 0;
  if (rank == 0 || rank > bank->sites[site].input_dim) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has no rank between 1 and %zu", dli_tensors_label(tensors), name,
                     bank->sites[site].input_dim);
  }
  float *array = NULL;
  dlora_status status = read_array(bank, tensors, name, rank, bank->sites[site].input_dim, &array);
  kept->adapter.a = array;
  if (status != DLORA_OK) return status;
  snprintf(name, sizeof name, "%s.task.%zu.%zu.b", prefix, kept->task, site);
  array = NULL;
  status = read_array(bank, tensors, name, bank->sites[site].output_dim, rank, &array);
  kept->adapter.b = array;
  kept->adapter.rank = rank;
  return status;
}

/* If *at begins with this text, moves behind it. */
static bool pass_text(const char **at, const char *text) {
  const size_t length = strlen(text);
  if (strncmp(*at, text, length) != 0) return false;
  *at += length;
  return true;
}

/* Reads a number below `end`, without leading zeros, and moves behind it. */
static bool pass_number(const char **at, size_t end, size_t *out) {
  size_t value = 0;
  const char *start = *at;
  while (**at >= '0' && **at <= '9' && value < end) value = 10 * value + (size_t)(*(*at)++ - '0');
  *out = value;
  return *at > start && value < end && (*start != '0' || *at == start + 1);
}

/* Whether this is the name of a factor A; if so, sets its task and site. */
static bool names_adapter(const char *at, const char *prefix, const dlora_bank *bank, size_t *task, size_t *site) {
  return pass_text(&at, prefix) && pass_text(&at, ".task.") && pass_number(&at, bank->num_tasks, task) &&
         pass_text(&at, ".") && pass_number(&at, bank->num_sites, site) && strcmp(at, ".a") == 0;
}

static int compare_kept(const void *a, const void *b) {
  const struct dli_residual_adapter *x = a, *y = b;
  if (x->task != y->task) return x->task < y->task ? -1 : 1;
  return x->site < y->site ? -1 : x->site > y->site;
}

/* Walks through the tensors, not through tasks and sites: a small file may claim a million of those. */
static dlora_status read_content(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                 size_t num_tasks) {
  char name[NAME_SIZE];
  size_t count = 0, task, site;
  bank->num_tasks = num_tasks;
  for (size_t i = 0; i < bank->num_sites; i++) {
    snprintf(name, sizeof name, "%s.merged.%zu", prefix, i);
    if (!dli_tensors_find(tensors, name)) continue;
    DLI_TRY(read_array(bank, tensors, name, bank->sites[i].output_dim, bank->sites[i].input_dim, &bank->merged[i]));
  }
  for (size_t i = 0; i < dli_tensors_count(tensors); i++)
    count += names_adapter(dli_tensors_at(tensors, i)->name, prefix, bank, &task, &site);
  DLI_TRY(DLI_NEW(&bank->allocator, bank->kept, count));
  for (size_t i = 0; i < dli_tensors_count(tensors); i++) {
    if (!names_adapter(dli_tensors_at(tensors, i)->name, prefix, bank, &task, &site)) continue;
    bank->kept[bank->num_residuals++] = (struct dli_residual_adapter){.task = task, .site = site};
  }
  if (count > 1) qsort(bank->kept, count, sizeof *bank->kept, compare_kept);
  for (size_t i = 0; i < count; i++) DLI_TRY(read_adapter(bank, tensors, prefix, &bank->kept[i]));
  return DLORA_OK;
}

dlora_status dli_bank_read(dlora_bank **out, const struct dli_tensors *tensors, const char *prefix,
                           const dlora_bank_options *options) {
  *out = NULL;
  char name[NAME_SIZE];
  int64_t num_tasks, num_sites;
  snprintf(name, sizeof name, "%s.num_tasks", prefix);
  DLI_TRY(dli_saved_integers(tensors, name, 1, &num_tasks));
  snprintf(name, sizeof name, "%s.num_sites", prefix);
  DLI_TRY(dli_saved_integers(tensors, name, 1, &num_sites));
  /* Each site needs a line of metadata, so the file bounds their number. A task without adapters takes no room in the
   * file or the bank, but callers keep a number for each: hence the bound. */
  if (num_sites < 1 || (size_t)num_sites > dli_tensors_metadata_count(tensors) || num_tasks < 0 ||
      num_tasks > MAX_TASKS) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: %s has %lld sites and %lld tasks", dli_tensors_label(tensors), prefix,
                     (long long)num_sites, (long long)num_tasks);
  }
  dlora_allocator allocator;
  DLI_TRY(dli_allocator_read(&allocator, options ? options->allocator : NULL));
  dlora_status status = DLORA_OK;
  dlora_bank *bank = NULL;
  dlora_site *sites;
  DLI_TRY(DLI_NEW(&allocator, sites, (size_t)num_sites));
  for (size_t i = 0; i < (size_t)num_sites; i++) {
    int64_t values[4];
    snprintf(name, sizeof name, "%s.site.%zu", prefix, i);
    DLI_TRY_DONE(dli_saved_integers(tensors, name, 4, values));
    if (values[0] < 1 || values[0] > MAX_WIDTH || values[1] < 1 || values[1] > MAX_WIDTH) {
      status = dli_raise(DLORA_ERR_FORMAT, "%s: metadata %s has a width that is not between 1 and %d",
                         dli_tensors_label(tensors), name, MAX_WIDTH);
      goto done;
    }
    sites[i] = (dlora_site){(size_t)values[0], (size_t)values[1], (int32_t)values[2], (int32_t)values[3]};
  }
  DLI_TRY_DONE(dlora_bank_create(&bank, sites, (size_t)num_sites, options));
  DLI_TRY_DONE(read_content(bank, tensors, prefix, (size_t)num_tasks));
  *out = bank;
  bank = NULL;
done:
  dlora_bank_destroy(bank);
  dli_free(&allocator, sites);
  return status;
}

/* ---- the open task ---- */

static const char *const branch_names[] = {"orthogonal", "residual"};

static void name_factor(char name[NAME_SIZE], const char *prefix, size_t pair, char factor) {
  snprintf(name, NAME_SIZE, "%s.%zu.%s.%c", prefix, pair / 2, branch_names[pair % 2], factor);
}

dlora_status dli_bank_write_open(const dlora_bank *bank, struct dli_writer *writer, const char *prefix) {
  const size_t count = bank->count + bank->extra;
  char name[NAME_SIZE];
  for (size_t i = 0; i < 2 * bank->num_sites; i++) {
    const struct dli_pair *pair = &bank->pairs[i];
    const dlora_site *site = &bank->sites[i / 2];
    if (pair->rank == 0) continue;
    name_factor(name, prefix, i, 'a');
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, (size_t[]){pair->rank, site->input_dim},
                           pair->fixed_a ? pair->fixed_a : bank->parameters + pair->a_offset));
    name_factor(name, prefix, i, 'b');
    DLI_TRY(dli_writer_add(writer, name, DLI_F32, 2, (size_t[]){site->output_dim, pair->rank},
                           bank->parameters + pair->b_offset));
  }
  snprintf(name, sizeof name, "%s.optimizer.first", prefix);
  DLI_TRY(dli_writer_add(writer, name, DLI_F32, 1, &count, bank->optimizer.first));
  if (!bank->optimizer.second) return DLORA_OK;
  snprintf(name, sizeof name, "%s.optimizer.second", prefix);
  return dli_writer_add(writer, name, DLI_F32, 1, &count, bank->optimizer.second);
}

/* Reads rank and A of one pair. B follows in dli_bank_read_values. */
static dlora_status read_pair(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix, size_t index,
                              size_t limit, const dlora_projector *projector, int32_t train_residual) {
  const size_t site = index / 2, branch = index % 2, input_dim = bank->sites[site].input_dim;
  if (limit > input_dim) limit = input_dim;
  char name[NAME_SIZE];
  name_factor(name, prefix, index, 'a');
  const struct dli_tensor *found = dli_tensors_find(tensors, name);
  if (!found) return DLORA_OK;
  const size_t rank = found->num_dims == 2 ? found->shape[0] : 0;
  if (rank == 0 || rank > limit) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has no rank between 1 and %zu", dli_tensors_label(tensors), name,
                     limit);
  }
  float *a = NULL;
  dlora_status status = read_array(bank, tensors, name, rank, input_dim, &a);
  if (status == DLORA_OK && branch == DLI_ORTHOGONAL) {
    status = dlora_bank_set_orthogonal(bank, site, a, rank, projector);
  } else if (status == DLORA_OK) {
    status = dlora_bank_set_residual(bank, site, a, rank, train_residual);
  }
  dli_free(&bank->allocator, a);
  return status;
}

static dlora_status read_state(const dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                               const char *suffix, bool nonnegative, float *out) {
  const size_t count = bank->count + bank->extra;
  const struct dli_tensor *tensor;
  char name[NAME_SIZE];
  snprintf(name, sizeof name, "%s.optimizer.%s", prefix, suffix);
  DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, 1, &count, &tensor));
  DLI_TRY(dli_tensor_to_float(tensors, tensor, out));
  for (size_t i = 0; nonnegative && i < count; i++) {
    if (out[i] < 0.0f) {
      return dli_raise(DLORA_ERR_FORMAT, "%s: tensor %s has the mean square %g", dli_tensors_label(tensors), name,
                       (double)out[i]);
    }
  }
  return DLORA_OK;
}

dlora_status dli_bank_read_pairs(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                 const size_t limits[2], const dlora_projector *const *projectors,
                                 int32_t train_residual) {
  for (size_t i = 0; i < 2 * bank->num_sites; i++) {
    DLI_TRY(read_pair(bank, tensors, prefix, i, limits[i % 2], projectors[i / 2], train_residual));
  }
  return DLORA_OK;
}

dlora_status dli_bank_read_values(dlora_bank *bank, const struct dli_tensors *tensors, const char *prefix,
                                  uint64_t num_steps) {
  char name[NAME_SIZE];
  for (size_t i = 0; i < 2 * bank->num_sites; i++) {
    const struct dli_pair *pair = &bank->pairs[i];
    const struct dli_tensor *tensor;
    if (pair->rank == 0) continue;
    name_factor(name, prefix, i, 'b');
    const size_t shape[] = {bank->sites[i / 2].output_dim, pair->rank};
    DLI_TRY(dli_tensors_require(tensors, name, DLI_F32, 2, shape, &tensor));
    DLI_TRY(dli_tensor_to_float(tensors, tensor, bank->parameters + pair->b_offset));
  }
  DLI_TRY(read_state(bank, tensors, prefix, "first", false, bank->optimizer.first));
  if (bank->optimizer.second) DLI_TRY(read_state(bank, tensors, prefix, "second", true, bank->optimizer.second));
  bank->optimizer.step = num_steps;
  return DLORA_OK;
}

/* ---- a file of its own ---- */

static dlora_status write_bank(const void *handle, struct dli_writer *writer) {
  return dli_bank_write(handle, writer, "bank");
}

static dlora_status read_bank(void *out, const struct dli_tensors *tensors, const void *options) {
  return dli_bank_read(out, tensors, "bank", options);
}

dlora_status dlora_bank_save(const dlora_bank *bank, const char *path) {
  DLI_REQUIRE(bank);
  DLI_REQUIRE(path);
  return dli_saved_save(bank, path, format, write_bank, &bank->allocator);
}

dlora_status dlora_bank_load(dlora_bank **out, const char *path, const dlora_bank_options *options) {
  DLI_REQUIRE(out);
  *out = NULL;
  DLI_REQUIRE(path);
  dlora_bank_options known = DLORA_BANK_OPTIONS_INIT;
  DLI_TRY(dli_options_read("dlora_bank_options", &known, sizeof known, options));
  return dli_saved_load(out, path, format, read_bank, known.allocator, &known);
}
