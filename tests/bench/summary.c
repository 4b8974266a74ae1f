/* Means over seeds, as JSON and as tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include "summary.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../examples/cli/report.h"
#include "text_file.h"

static const struct {
  const char *name;
  const char *heading;
  int digits;
} figures[] = {
    {"last_accuracy", "last", 1},
    {"average_accuracy", "average", 1},
    {"task_accuracy", "task identity", 1},
    {"accuracy_given_task", "class given task", 1},
    {"forgetting", "forgetting", 1},
    {"backward_transfer", "backward transfer", 1},
    {"ece", "class ECE", 1},
    {"task_ece", "task ECE", 1},
    {"unknown_auroc", "unknown AUROC", 1},
    {"learn_seconds", "seconds", 0},
};
#define NUM_FIGURES (sizeof figures / sizeof figures[0])

/* ---- statistics ---- */

static statistic of_values(const double *values, size_t count) {
  statistic out = {NAN, NAN, count};
  double sum = 0.0;
  double squares = 0.0;
  if (count == 0) return out;
  for (size_t i = 0; i < count; i++) sum += values[i];
  out.mean = sum / (double)count;
  for (size_t i = 0; i < count; i++) squares += (values[i] - out.mean) * (values[i] - out.mean);
  if (count > 1) out.deviation = sqrt(squares / (double)(count - 1));
  return out;
}

statistic summary_result(const sequence_results *of, size_t method, const char *figure) {
  double values[MAX_SEEDS];
  size_t count = 0;
  for (size_t k = 0; k < MAX_SEEDS; k++) {
    const cJSON *results = cJSON_GetObjectItemCaseSensitive(of->files[method][k], "results");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(results, figure);
    if (cJSON_IsNumber(value)) values[count++] = value->valuedouble;
  }
  return of_values(values, count);
}

static const cJSON *find_stage(const cJSON *file, size_t num_tasks) {
  const cJSON *stage = NULL;
  const cJSON *stages = cJSON_GetObjectItemCaseSensitive(file, "stages");
  cJSON_ArrayForEach(stage, stages) {
    const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(stage, "tasks");
    if (cJSON_IsNumber(tasks) && (size_t)tasks->valuedouble == num_tasks) return stage;
  }
  return NULL;
}

statistic summary_stage(const sequence_results *of, size_t method, size_t num_tasks) {
  double values[MAX_SEEDS];
  size_t count = 0;
  for (size_t k = 0; k < MAX_SEEDS; k++) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(find_stage(of->files[method][k], num_tasks), "accuracy");
    if (cJSON_IsNumber(value)) values[count++] = value->valuedouble;
  }
  return of_values(values, count);
}

static bool has_failed(const cJSON *file) {
  return file != NULL && cJSON_GetObjectItemCaseSensitive(file, "results") == NULL;
}

size_t summary_num_failed(const sequence_results *of, size_t method) {
  size_t count = 0;
  for (size_t k = 0; k < MAX_SEEDS; k++) count += has_failed(of->files[method][k]);
  return count;
}

static const cJSON *first_file(const sequence_results *of) {
  for (size_t m = 0; m < NUM_METHODS; m++)
    for (size_t k = 0; k < MAX_SEEDS; k++)
      if (of->files[m][k] != NULL) return of->files[m][k];
  return NULL;
}

/* ---- summary.json ---- */

static bool add_statistic(cJSON *into, const char *name, statistic value) {
  cJSON *entry = cJSON_AddObjectToObject(into, name);
  return entry != NULL && report_add_number(entry, "mean", value.mean) &&
         report_add_number(entry, "deviation", value.deviation) &&
         report_add_number(entry, "seeds", (double)value.count);
}

static bool add_curve(cJSON *into, const sequence_results *of, size_t method, size_t num_tasks) {
  cJSON *curve = cJSON_AddArrayToObject(into, "accuracy_after_tasks");
  bool done = curve != NULL;
  for (size_t t = 1; done && t <= num_tasks; t++) {
    statistic value = summary_stage(of, method, t);
    done = cJSON_AddItemToArray(curve, value.count > 0 ? cJSON_CreateNumber(value.mean) : cJSON_CreateNull()) != 0;
  }
  return done;
}

static size_t setting(const sequence_results *of, const char *name) {
  const cJSON *settings = cJSON_GetObjectItemCaseSensitive(first_file(of), "settings");
  const cJSON *value = cJSON_GetObjectItemCaseSensitive(settings, name);
  return cJSON_IsNumber(value) && value->valuedouble >= 0.0 ? (size_t)value->valuedouble : 0;
}

static bool add_methods(cJSON *into, const sequence_results *of, const arguments *from) {
  cJSON *methods = cJSON_AddArrayToObject(into, "methods");
  bool done = methods != NULL;
  for (size_t m = 0; done && m < NUM_METHODS; m++) {
    if (!from->methods[m]) continue;
    const method_info *row = method_get((method_kind)m);
    cJSON *entry = cJSON_CreateObject();
    done = cJSON_AddItemToArray(methods, entry) && report_add_text(entry, "method", row->name) &&
           report_add_text(entry, "description", row->description) &&
           report_add_number(entry, "failed_runs", (double)summary_num_failed(of, m)) &&
           add_statistic(entry, "evaluate_seconds", summary_result(of, m, "evaluate_seconds"));
    for (size_t i = 0; done && i < NUM_FIGURES; i++)
      done = add_statistic(entry, figures[i].name, summary_result(of, m, figures[i].name));
    done = done && add_curve(entry, of, m, setting(of, "tasks"));
  }
  return done;
}

static bool write_json(const sequence_results *all, size_t count, const arguments *from, problem *why) {
  cJSON *root = cJSON_CreateObject();
  cJSON *seeds = cJSON_AddArrayToObject(root, "seeds");
  cJSON *sequences = cJSON_AddArrayToObject(root, "sequences");
  bool done = seeds != NULL && sequences != NULL && report_add_text(root, "library", dlora_version()) &&
              report_add_text(root, "computed_with", dlora_build_info());
  for (size_t k = 0; done && k < from->num_seeds; k++)
    done = cJSON_AddItemToArray(seeds, cJSON_CreateNumber((double)from->seeds[k])) != 0;
  for (size_t i = 0; done && i < count; i++) {
    cJSON *entry = cJSON_CreateObject();
    done = cJSON_AddItemToArray(sequences, entry) && report_add_text(entry, "sequence", sequence_name(all[i].kind)) &&
           report_add_number(entry, "tasks", (double)setting(&all[i], "tasks")) &&
           report_add_number(entry, "train_images", (double)setting(&all[i], "train_images")) &&
           report_add_number(entry, "test_images", (double)setting(&all[i], "test_images")) &&
           add_methods(entry, &all[i], from);
  }
  char *path = dataset_join(from->out, "summary.json");
  if (!done || path == NULL) {
    done = problem_set(why, "no memory for the summary");
  } else {
    done = report_write(root, path, why);
  }
  free(path);
  cJSON_Delete(root);
  return done;
}

/* ---- table.md ---- */

static void print_cell(FILE *out, statistic value, int digits, size_t num_seeds) {
  if (value.count == 0)
    fprintf(out, " - |");
  else if (value.count == 1)
    fprintf(out, " %.*f |", digits, value.mean);
  else
    fprintf(out, " %.*f ± %.*f%s |", digits, value.mean, digits, value.deviation,
            value.count < num_seeds ? " (fewer seeds)" : "");
}

static void print_table(FILE *out, const sequence_results *of, const arguments *from) {
  fprintf(out, "\n## %s\n\n", sequence_name(of->kind));
  fprintf(out, "%zu tasks learnt of %zu; %zu images learnt, %zu test images of all %zu; image size %zu; ",
          setting(of, "tasks"), setting(of, "planned_tasks"), setting(of, "train_images"), setting(of, "test_images"),
          setting(of, "planned_tasks"), setting(of, "image_size"));
  if (from->options.epochs == DLORA_AUTO)
    fprintf(out, "4 epochs, or as many as make 36 steps.\n\n");
  else
    fprintf(out, "%d epochs.\n\n", (int)from->options.epochs);
  if (setting(of, "skipped_files") > 0)
    fprintf(out, "%zu unreadable image files were left out.\n\n", setting(of, "skipped_files"));
  fprintf(out, "| method |");
  for (size_t i = 0; i < NUM_FIGURES; i++) fprintf(out, " %s |", figures[i].heading);
  fprintf(out, "\n|---|");
  for (size_t i = 0; i < NUM_FIGURES; i++) fprintf(out, "---:|");
  for (size_t m = 0; m < NUM_METHODS; m++) {
    if (!from->methods[m]) continue;
    size_t failed = summary_num_failed(of, m);
    fprintf(out, "\n| %s", method_get((method_kind)m)->name);
    if (failed > 0) fprintf(out, " (%zu of %zu runs failed)", failed, from->num_seeds);
    fprintf(out, " |");
    for (size_t i = 0; i < NUM_FIGURES; i++)
      print_cell(out, summary_result(of, m, figures[i].name), figures[i].digits, from->num_seeds);
  }
  fprintf(out, "\n");
}

static void print_failures(FILE *out, const sequence_results *of, const arguments *from) {
  for (size_t m = 0; m < NUM_METHODS; m++)
    for (size_t k = 0; k < from->num_seeds; k++) {
      if (!has_failed(of->files[m][k])) continue;
      const cJSON *error = cJSON_GetObjectItemCaseSensitive(of->files[m][k], "error");
      fprintf(out, "\n- %s, %s, seed %llu failed: %s\n", sequence_name(of->kind), method_get((method_kind)m)->name,
              (unsigned long long)from->seeds[k], cJSON_IsString(error) ? error->valuestring : "");
    }
}

static void print_legend(FILE *out, const arguments *from) {
  fprintf(
      out,
      "\nAll figures in %% but seconds (of learning, all tasks). Last: classes right after the last task, over all "
      "test images of\nlearnt classes; average: mean of that after each task; task identity and class given task: "
      "after the last one;\nforgetting: best minus last accuracy of earlier tasks; backward transfer: last minus "
      "first; ECE: expected\ncalibration error, 15 bins; unknown AUROC: classes not learnt yet against those learnt, "
      "by unknown score, mean over\ntasks%s. ±: standard deviation over seeds. -: not defined or not measured.\n\n",
      from->unknown_images == 0 ? " (not measured)" : "");
  for (size_t m = 0; m < NUM_METHODS; m++)
    if (from->methods[m])
      fprintf(out, "- %s: %s\n", method_get((method_kind)m)->name, method_get((method_kind)m)->description);
}

static bool write_table(const sequence_results *all, size_t count, const arguments *from, problem *why) {
  text_file file;
  if (!text_file_open(&file, from->out, "table.md", why)) return false;
  fprintf(file.stream, "# Accuracy\n\nSeeds:");
  for (size_t k = 0; k < from->num_seeds; k++)
    fprintf(file.stream, "%s %llu", k > 0 ? "," : "", (unsigned long long)from->seeds[k]);
  fprintf(file.stream, ". libduallora %s, %s.\n", dlora_version(), dlora_build_info());
  for (size_t i = 0; i < count; i++) print_table(file.stream, &all[i], from);
  for (size_t i = 0; i < count; i++) print_failures(file.stream, &all[i], from);
  print_legend(file.stream, from);
  return text_file_close(&file, why);
}

bool summary_write(const sequence_results *all, size_t count, const arguments *from, problem *why) {
  return write_json(all, count, from, why) && write_table(all, count, from, why);
}

bool summary_check_floors(const sequence_results *all, size_t count, const arguments *from, problem *why) {
  for (size_t i = 0; i < count; i++)
    for (size_t m = 0; m < NUM_METHODS; m++) {
      statistic last = summary_result(&all[i], m, "last_accuracy");
      /* NaN is below every floor. */
      if (from->floors[m] >= 0.0 && !(last.mean >= from->floors[m]))
        return problem_set(why, "%s on %s: %.2f %% is below the %.2f %% of --at-least",
                           method_get((method_kind)m)->name, sequence_name(all[i].kind), last.mean, from->floors[m]);
    }
  return true;
}
