/* accuracy: methods of continual learning side by side, on sequences of tasks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../examples/cli/report.h"
#include "plot.h"
#include "results.h"

/* All that the program holds. */
typedef struct bench {
  arguments from;
  dlora_model *model;
  progress_view view;
  sequence_results *all;             /* [num_sequences], those asked for */
  sequence sequences[NUM_SEQUENCES]; /* [num_sequences] */
  size_t num_sequences;
  size_t num_kept; /* runs that were there already */
  size_t num_failed;
} bench;

/* Runs and writes one. A run that fails is written as failed and does not stop the others; an interrupt does. */
static bool run_anew(bench *of, const run_request *request, const char *path, cJSON *settings, cJSON **out,
                     problem *why) {
  problem reason = {""};
  const char *name = method_get(request->method)->name;
  cJSON *file = cJSON_CreateObject();
  bool done = file != NULL && cJSON_AddItemToObject(file, "settings", settings);
  if (!done) {
    cJSON_Delete(settings);
    cJSON_Delete(file);
    return problem_set(why, "no memory for results");
  }
  done = results_describe(request, file, why);
  if (done && !run_method(request, file, &reason)) {
    if (interrupt_requested()) {
      done = problem_set(why, "interrupted");
    } else {
      fprintf(stderr, "accuracy: %s with seed %llu failed: %s\n", name, (unsigned long long)request->seed, reason.text);
      of->num_failed++;
      cJSON_DeleteItemFromObjectCaseSensitive(file, "results");
      done = report_add_text(file, "error", reason.text) || problem_set(why, "no memory for results");
    }
  }
  if (done) done = report_write(file, path, why);
  if (done) {
    const cJSON *results = cJSON_GetObjectItemCaseSensitive(file, "results");
    const cJSON *last = cJSON_GetObjectItemCaseSensitive(results, "last_accuracy");
    const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(results, "learn_seconds");
    if (cJSON_IsNumber(last) && cJSON_IsNumber(seconds))
      progress_say(&of->view, "  %-26s%6.2f %%  %.0f s of learning", name, last->valuedouble, seconds->valuedouble);
    *out = file;
  } else {
    cJSON_Delete(file);
  }
  return done;
}

static bool run_or_load(bench *of, const run_request *request, cJSON **out, problem *why) {
  problem reason = {""};
  char *path = results_path(request);
  cJSON *settings = results_settings(request, why);
  bool done = path != NULL && settings != NULL;
  if (path == NULL) problem_set(why, "no memory for a file name");
  if (done && !of->from.again) *out = results_load(path, settings, &reason);
  if (done && *out != NULL) {
    progress_say(&of->view, "  %-26skept: %s", method_get(request->method)->name, path);
    of->num_kept++;
  } else if (done) {
    if (reason.text[0] != '\0') progress_say(&of->view, "  %s %s; run again", path, reason.text);
    done = run_anew(of, request, path, settings, out, why);
    settings = NULL;
  }
  cJSON_Delete(settings);
  free(path);
  return done;
}

static void say_sequence(bench *of, const sequence *tasks, uint64_t seed) {
  progress_say(&of->view, "%s, seed %llu: %zu tasks of %zu, %zu images to learn, %zu to measure on",
               sequence_name(tasks->request.kind), (unsigned long long)seed, tasks->num_tasks, tasks->planned_tasks,
               tasks->train.count, tasks->test.count);
  if (tasks->num_short > 0)
    progress_say(&of->view, "  note: %zu classes have fewer images than --images-per-class", tasks->num_short);
  if (tasks->num_passed_over > 0)
    progress_say(&of->view, "  note: %zu classes of the test images are not learnt and not measured",
                 tasks->num_passed_over);
  if (sequence_num_skipped(tasks) > 0)
    progress_say(&of->view, "  note: %zu unreadable image files are left out", sequence_num_skipped(tasks));
}

/* Gray pictures made gray are what they were: one domain comes twice. */
static bool say_gray(bench *of, sequence *tasks, problem *why) {
  dlora_images image;
  if (tasks->request.kind != SEQUENCE_DOMAIN_INCREMENTAL) return true;
  if (!dataset_read(&tasks->sets[SET_TRAIN], 0, &image, why)) return false;
  if (image.channels == 1)
    progress_say(&of->view, "  note: these images are gray, so that the task of gray ones repeats the plain ones");
  return true;
}

static bool run_sequence(bench *of, sequence *tasks, sequence_results *results, problem *why) {
  bool done = say_gray(of, tasks, why);
  for (size_t k = 0; done && k < of->from.num_seeds; k++) {
    uint64_t seed = of->from.seeds[k];
    done = sequence_arrange(tasks, seed, why);
    if (done) say_sequence(of, tasks, seed);
    for (size_t m = 0; done && m < NUM_METHODS; m++) {
      if (!of->from.methods[m]) continue;
      run_request request = {&of->from, of->model, tasks, (method_kind)m, seed, &of->view};
      done = run_or_load(of, &request, &results->files[m][k], why);
    }
  }
  return done;
}

static bool make_folder(const char *path, problem *why) {
  struct stat status;
  if (mkdir(path, 0777) != 0 && errno != EEXIST)
    return problem_set(why, "cannot make the folder %s: %s", path, strerror(errno));
  if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) return true;
  return problem_set(why, "%s is no folder", path);
}

/* All data is opened before the first run, so that mistakes in it show now and not after hours. */
static bool open_sequences(bench *of, problem *why) {
  for (size_t i = 0; i < NUM_SEQUENCES; i++) {
    if (!of->from.sequences[i]) continue;
    of->from.data.kind = (sequence_kind)i;
    if (!sequence_open(&of->sequences[of->num_sequences], &of->from.data, why)) return false;
    of->all[of->num_sequences++].kind = (sequence_kind)i;
  }
  return of->num_sequences > 0 || problem_set(why, "no sequence to run");
}

static bool run_all(bench *of, problem *why) {
  bool done = true;
  for (size_t i = 0; done && i < of->num_sequences; i++) done = run_sequence(of, &of->sequences[i], &of->all[i], why);
  return done;
}

/* Is this the name of a result file that the summary is made of? */
static bool is_summarised(const bench *of, const char *name) {
  char expected[160];
  for (size_t i = 0; i < of->num_sequences; i++)
    for (size_t m = 0; m < NUM_METHODS; m++)
      for (size_t k = 0; of->from.methods[m] && k < of->from.num_seeds; k++) {
        snprintf(expected, sizeof expected, "%s-%s-seed%llu.json", sequence_name(of->all[i].kind),
                 method_get((method_kind)m)->name, (unsigned long long)of->from.seeds[k]);
        if (strcmp(expected, name) == 0) return true;
      }
  return false;
}

/* A folder may hold runs that this call did not ask for; nobody should take the table for all of them. */
static void say_others(bench *of) {
  size_t count = 0;
  DIR *folder = opendir(of->from.out);
  if (folder == NULL) return;
  struct dirent *entry = NULL;
  while ((entry = readdir(folder)) != NULL) {
    const char *end = strrchr(entry->d_name, '.');
    if (strstr(entry->d_name, "-seed") != NULL && end != NULL && strcmp(end, ".json") == 0)
      count += !is_summarised(of, entry->d_name);
  }
  closedir(folder);
  if (count > 0)
    progress_say(&of->view, "note: %zu other result files in %s are not in the summary: they were not asked for", count,
                 of->from.out);
}

static bool open_all(bench *of, problem *why) {
  dlora_model_options options = of->from.backbone.options;
  options.threads = of->from.options.threads;
  of->all = calloc(NUM_SEQUENCES, sizeof *of->all);
  if (of->all == NULL) return problem_set(why, "no memory for results");
  if (dlora_model_load(&of->model, of->from.backbone.path, &options) != DLORA_OK)
    return problem_set_library(why, of->from.backbone.path);
  return make_folder(of->from.out, why) && open_sequences(of, why);
}

static void close_all(bench *of) {
  for (size_t i = 0; i < of->num_sequences; i++) {
    sequence_close(&of->sequences[i]);
    for (size_t m = 0; m < NUM_METHODS; m++)
      for (size_t k = 0; k < MAX_SEEDS; k++) cJSON_Delete(of->all[i].files[m][k]);
  }
  free(of->all);
  dlora_model_destroy(of->model);
}

int main(int argc, char **argv) {
  int code = EXIT_DONE;
  problem why = {""};
  bench of;
  memset(&of, 0, sizeof of);
  if (!arguments_parse(&of.from, argc, argv, &code)) return code;
  interrupt_install();
  progress_begin(&of.view, of.from.quiet, of.from.verbose);
  if (of.from.skipped_shift) progress_say(&of.view, "note: domain-shift is left out: it needs --data2");
  bool done = open_all(&of, &why) && run_all(&of, &why) && summary_write(of.all, of.num_sequences, &of.from, &why) &&
              plot_write(of.all, of.num_sequences, &of.from, &why);
  progress_clear(&of.view);
  if (done) {
    say_others(&of);
    progress_say(&of.view, "%zu runs were there already", of.num_kept);
    progress_say(&of.view, "results: %s/table.md, summary.json and accuracy.svg", of.from.out);
    if (of.num_failed > 0) done = problem_set(&why, "%zu runs failed; the table names them", of.num_failed);
  }
  if (done && of.from.has_floors) done = summary_check_floors(of.all, of.num_sequences, &of.from, &why);
  close_all(&of);
  if (done) return EXIT_DONE;
  if (interrupt_requested()) {
    fprintf(stderr, "accuracy: interrupted; what is finished is kept\n");
    return EXIT_INTERRUPTED;
  }
  fprintf(stderr, "accuracy: %s\n", why.text);
  return EXIT_FAILED;
}
