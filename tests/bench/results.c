/* Result files.
 * SPDX-License-Identifier: Apache-2.0 */
#include "results.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../examples/cli/report.h"

/* To be raised when a change of this program changes what the numbers mean. */
#define FORMAT 1

char *results_path(const run_request *request) {
  char name[160];
  snprintf(name, sizeof name, "%s-%s-seed%llu.json", sequence_name(request->tasks->request.kind),
           method_get(request->method)->name, (unsigned long long)request->seed);
  return dataset_join(request->from->out, name);
}

/* ---- settings ---- */

/* Numbers as numbers, words as text. */
static bool add_options(cJSON *settings, const dlora_learner_options *options) {
  cJSON *into = cJSON_AddObjectToObject(settings, "options");
  bool done = into != NULL;
  for (size_t i = 0; done && i < dlora_option_count(); i++) {
    dlora_option_info info = {.struct_size = sizeof info};
    char text[64] = "";
    char *end = NULL;
    done = dlora_option_get_info(i, &info) == DLORA_OK &&
           dlora_learner_options_get(options, info.name, text, sizeof text) == DLORA_OK;
    if (info.scope == DLORA_SCOPE_RUN_TIME) continue; /* decides how fast results come */
    double value = strtod(text, &end);
    if (done && *end == '\0') done = report_add_number(into, info.name, value);
    if (done && *end != '\0') done = report_add_text(into, info.name, text);
  }
  return done;
}

static bool add_data(cJSON *settings, const sequence *tasks) {
  const sequence_request *request = &tasks->request;
  cJSON *order = cJSON_AddArrayToObject(settings, "class_order");
  bool done = order != NULL;
  for (size_t i = 0; done && i < tasks->num_ordered; i++)
    done = cJSON_AddItemToArray(order, cJSON_CreateNumber((double)tasks->order[i])) != 0;
  return done && report_add_text(settings, "data", request->data) &&
         report_add_text(settings, "test", request->test != NULL ? request->test : request->data) &&
         (request->kind != SEQUENCE_DOMAIN_SHIFT ||
          (report_add_text(settings, "data2", request->data2) &&
           report_add_text(settings, "test2", request->test2 != NULL ? request->test2 : request->data2))) &&
         report_add_number(settings, "images_per_class", (double)request->images_per_class) &&
         report_add_number(settings, "test_images_per_class", (double)request->test_images_per_class) &&
         report_add_number(settings, "train_images", (double)tasks->train.count) &&
         report_add_number(settings, "test_images", (double)tasks->test.count) &&
         report_add_number(settings, "planned_tasks", (double)tasks->planned_tasks) &&
         report_add_number(settings, "tasks", (double)tasks->num_tasks) &&
         report_add_number(settings, "skipped_files", (double)sequence_num_skipped(tasks));
}

static bool add_model(cJSON *settings, const dlora_model *model) {
  dlora_model_info info;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  char normalisation[128];
  if (dlora_model_get_info(model, &info) != DLORA_OK) return false;
  snprintf(normalisation, sizeof normalisation, "%g,%g,%g / %g,%g,%g", (double)info.mean[0], (double)info.mean[1],
           (double)info.mean[2], (double)info.std[0], (double)info.std[1], (double)info.std[2]);
  return report_add_text(settings, "backbone", info.fingerprint) &&
         report_add_number(settings, "image_size", (double)info.image_size) &&
         report_add_number(settings, "products", (double)info.products) &&
         report_add_text(settings, "normalisation", normalisation);
}

cJSON *results_settings(const run_request *request, problem *why) {
  dlora_learner_options options;
  const arguments *from = request->from;
  if (!run_options(request, &options, why)) return NULL;
  cJSON *settings = cJSON_CreateObject();
  bool done = settings != NULL && report_add_number(settings, "format", FORMAT) &&
              report_add_text(settings, "library", dlora_version()) &&
              report_add_text(settings, "sequence", sequence_name(request->tasks->request.kind)) &&
              report_add_text(settings, "method", method_get(request->method)->name) &&
              report_add_number(settings, "seed", (double)request->seed) &&
              report_add_text(settings, "evaluate", from->evaluate == EVALUATE_ALL ? "all" : "last") &&
              report_add_number(settings, "unknown_images", (double)from->unknown_images) &&
              add_data(settings, request->tasks) && add_model(settings, request->model) &&
              add_options(settings, &options);
  if (done) return settings;
  problem_set(why, "no memory for settings");
  cJSON_Delete(settings);
  return NULL;
}

bool results_describe(const run_request *request, cJSON *into, problem *why) {
  const sequence *tasks = request->tasks;
  cJSON *names = cJSON_AddArrayToObject(into, "classes");
  bool done = names != NULL && report_add_text(into, "backbone_file", request->from->backbone.path) &&
              report_add_text(into, "description", method_get(request->method)->description) &&
              report_add_text(into, "computed_with", dlora_build_info()) &&
              report_add_number(into, "threads", (double)request->from->options.threads);
  for (size_t i = 0; done && i < tasks->num_ordered; i++) {
    cJSON *name = cJSON_CreateString(sequence_class_name(tasks, tasks->order[i]));
    done = cJSON_AddItemToArray(names, name) != 0;
  }
  return done || problem_set(why, "no memory for results");
}

/* ---- files of earlier calls ---- */

/* The whole of a file, to be freed; NULL if it cannot be read. */
static char *read_text(const char *path) {
  FILE *file = fopen(path, "rb");
  char *text = NULL;
  long size = -1;
  if (file == NULL) return NULL;
  if (fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0)
    text = malloc((size_t)size + 1);
  if (text != NULL) {
    text[fread(text, 1, (size_t)size, file)] = '\0';
    if (ferror(file)) {
      free(text);
      text = NULL;
    }
  }
  fclose(file);
  return text;
}

/* The name of the first member in which two objects differ; NULL if they are the same. */
static const char *difference(const cJSON *left, const cJSON *right) {
  for (const cJSON *one = left->child; one != NULL; one = one->next) {
    const cJSON *other = cJSON_GetObjectItemCaseSensitive(right, one->string);
    if (other == NULL || cJSON_Compare(one, other, 1)) continue;
    return cJSON_IsObject(one) && cJSON_IsObject(other) ? difference(one, other) : one->string;
  }
  return cJSON_Compare(left, right, 1) ? NULL : "the list of settings";
}

cJSON *results_load(const char *path, const cJSON *settings, problem *reason) {
  reason->text[0] = '\0';
  errno = 0;
  char *text = read_text(path);
  if (text == NULL) {
    if (errno != ENOENT) problem_set(reason, "cannot be read: %s", strerror(errno));
    return NULL;
  }
  cJSON *file = cJSON_Parse(text);
  const cJSON *before = cJSON_GetObjectItemCaseSensitive(file, "settings");
  free(text);
  if (!cJSON_IsObject(before)) {
    problem_set(reason, "is no result file");
  } else {
    const char *differs = difference(settings, before);
    if (differs != NULL)
      problem_set(reason, "has other settings (%s)", differs);
    else if (!cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(file, "results")))
      problem_set(reason, "is of a run that failed");
    else
      return file;
  }
  cJSON_Delete(file);
  return NULL;
}
