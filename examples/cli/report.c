/* Results as JSON and as a table.
 * SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "class_table.h"
#include "gain.h"
#include "utf8.h"

dlora_evaluation report_no_evaluation(void) {
  dlora_evaluation none = DLORA_EVALUATION_INIT;
  none.accuracy = none.task_accuracy = none.accuracy_given_task = none.ece = none.task_ece = NAN;
  none.untouched_accuracy = none.average_accuracy = none.forgetting = none.backward_transfer = NAN;
  return none;
}

bool report_add_number(cJSON *object, const char *name, double value) {
  return (isfinite(value) ? cJSON_AddNumberToObject(object, name, value) : cJSON_AddNullToObject(object, name)) != NULL;
}

bool report_add_text(cJSON *object, const char *name, const char *text) {
  char *clean = utf8_clean(text);
  bool done = clean != NULL && cJSON_AddStringToObject(object, name, clean) != NULL;
  free(clean);
  return done;
}

/* Takes the item over, also on failure. */
static bool append(cJSON *array, cJSON *item) {
  if (item != NULL && cJSON_AddItemToArray(array, item)) return true;
  cJSON_Delete(item);
  return false;
}

static bool add_matrix(cJSON *root, const double *matrix, size_t count) {
  cJSON *rows = cJSON_AddArrayToObject(root, "accuracy_matrix");
  bool done = rows != NULL;
  for (size_t i = 0; done && i < count; i++) {
    cJSON *row = cJSON_CreateArray();
    done = append(rows, row);
    for (size_t j = 0; done && j < count; j++) {
      double value = matrix[i * count + j];
      done = append(row, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
    }
  }
  return done;
}

static bool add_classes(cJSON *root, const dlora_learner *learner, const int64_t *ids, size_t count) {
  cJSON *names = cJSON_AddArrayToObject(root, "classes");
  cJSON *numbers = cJSON_AddArrayToObject(root, "class_ids");
  bool done = names != NULL && numbers != NULL;
  char buffer[24];
  for (size_t i = 0; done && i < count; i++)
    done = append(names, cJSON_CreateString(class_name(learner, ids[i], buffer))) &&
           append(numbers, cJSON_CreateNumber((double)ids[i]));
  return done;
}

/* The class names of each task, from the (task, class) pairs that statistics are kept for. */
static bool add_tasks(cJSON *root, const dlora_learner *learner) {
  const dlora_predictor *predictor = dlora_learner_get_predictor(learner);
  size_t num_tasks = dlora_learner_num_tasks(learner);
  size_t count = dlora_predictor_num_components(predictor);
  int64_t *pairs = malloc((2 * count + 1) * sizeof *pairs);
  cJSON *tasks = cJSON_AddArrayToObject(root, "task_classes");
  bool done = pairs != NULL && tasks != NULL &&
              dlora_predictor_get_components(predictor, pairs, pairs + count, NULL, NULL) == DLORA_OK;
  for (size_t t = 0; done && t < num_tasks; t++) {
    cJSON *names = cJSON_CreateArray();
    char buffer[24];
    done = append(tasks, names);
    for (size_t i = 0; done && i < count; i++)
      if (pairs[i] == (int64_t)t)
        done = append(names, cJSON_CreateString(class_name(learner, pairs[count + i], buffer)));
  }
  free(pairs);
  return done;
}

/* matrix [num_tasks, num_tasks], to be freed; NULL and a sentence on failure. */
static double *get_matrix(const dlora_learner *learner, problem *why) {
  size_t count = dlora_learner_num_tasks(learner);
  double *matrix = malloc((count * count + 1) * sizeof *matrix);
  if (matrix == NULL) {
    problem_set(why, "no memory for the accuracies of %zu tasks", count);
  } else if (dlora_learner_get_accuracy_matrix(learner, matrix) != DLORA_OK) {
    problem_set_library(why, "accuracy matrix");
    free(matrix);
    matrix = NULL;
  }
  return matrix;
}

cJSON *report_json(const dlora_learner *learner, const dlora_evaluation *evaluation, double seconds, problem *why) {
  size_t num_tasks = dlora_learner_num_tasks(learner);
  size_t num_classes = dlora_learner_num_classes(learner);
  const struct {
    const char *name;
    double share;
  } shares[] = {
      {"last_accuracy", evaluation->accuracy},
      {"average_accuracy", evaluation->average_accuracy},
      {"forgetting", evaluation->forgetting},
      {"backward_transfer", evaluation->backward_transfer},
      {"task_accuracy", evaluation->task_accuracy},
      {"accuracy_given_task", evaluation->accuracy_given_task},
      {"untouched_last_accuracy", evaluation->untouched_accuracy},
      {"ece", evaluation->ece},
      {"task_ece", evaluation->task_ece},
  };
  double *matrix = get_matrix(learner, why);
  if (matrix == NULL) return NULL;
  int64_t *ids = malloc((num_classes + 1) * sizeof *ids);
  cJSON *root = cJSON_CreateObject();
  bool done = ids != NULL && root != NULL && dlora_learner_get_classes(learner, ids) == DLORA_OK;
  for (size_t i = 0; done && i < sizeof shares / sizeof shares[0]; i++)
    done = report_add_number(root, shares[i].name, shares[i].share);
  done = done && report_add_number(root, "untouched_weight", dlora_learner_get_untouched_weight(learner)) &&
         report_add_number(root, "num_images", (double)evaluation->num_images) &&
         report_add_number(root, "num_skipped", (double)evaluation->num_skipped) &&
         report_add_number(root, "num_tasks", (double)num_tasks) && add_matrix(root, matrix, num_tasks) &&
         add_classes(root, learner, ids, num_classes) && add_tasks(root, learner) &&
         report_add_number(root, "seconds", seconds) && report_add_text(root, "version", dlora_version());
  free(ids);
  free(matrix);
  if (done) return root;
  problem_set(why, "no memory for the report");
  cJSON_Delete(root);
  return NULL;
}

static void print_share(const char *name, double share) {
  if (isfinite(share)) printf("%-30s%7.2f %%\n", name, 100.0 * share);
}

/* What the tasks so far are compared in: undefined where they were measured on other images than now, or not at all. */
static void print_comparison(const char *name, double share, size_t num_tasks) {
  if (isfinite(share))
    print_share(name, share);
  else if (num_tasks > 1)
    printf("%-30s%7s\n", name, "-");
}

static void print_gain(const dlora_learner *learner, const dlora_evaluation *evaluation) {
  const double points = gain_points(evaluation);
  if (isfinite(points)) printf("%-30s%+7.2f points\n", "gain of learning", points);
  printf("%-30s%7.2f\n", "weight of untouched backbone", dlora_learner_get_untouched_weight(learner));
}

bool report_print(const dlora_learner *learner, const dlora_evaluation *evaluation, problem *why) {
  size_t count = dlora_learner_num_tasks(learner);
  double *matrix = get_matrix(learner, why);
  if (matrix == NULL) return false;
  printf("Accuracy in %% on each task's test images (columns) after learning each task (rows)\n%-9s", "after");
  for (size_t j = 0; j < count; j++) printf(" task %-3zu", j);
  putchar('\n');
  for (size_t i = 0; i < count; i++) {
    printf("task %-4zu", i);
    for (size_t j = 0; j < count; j++) {
      double value = 100.0 * matrix[i * count + j];
      if (isfinite(value))
        printf(" %7.2f ", value);
      else
        printf(" %7s ", j <= i ? "-" : "");
    }
    putchar('\n');
  }
  free(matrix);
  putchar('\n');
  print_share("last accuracy", evaluation->accuracy);
  print_share("untouched backbone", evaluation->untouched_accuracy);
  if (gain_has_adapters(learner)) print_gain(learner, evaluation);
  print_comparison("average accuracy", evaluation->average_accuracy, count);
  print_comparison("forgetting", evaluation->forgetting, count);
  print_share("task right", evaluation->task_accuracy);
  print_share("class right given task", evaluation->accuracy_given_task);
  print_share("calibration error", evaluation->ece);
  return true;
}

/* Only a regular file can be replaced as a whole; a pipe or a terminal is written to. */
static bool is_replaceable(const char *path) {
  struct stat status;
  return stat(path, &status) != 0 || S_ISREG(status.st_mode);
}

/* A file in the target's folder whose name does not contain the target's, which may be as long as a name can be. */
static bool temporary_name(const char *target, char *name, size_t size) {
  const char *slash = strrchr(target, '/');
  int folder = slash == NULL ? 0 : (int)(slash - target) + 1;
  int length = snprintf(name, size, "%.*s.duallora-%ld-json.tmp", folder, target, (long)getpid());
  return length >= 0 && (size_t)length < size;
}

static bool write_file(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  if (file == NULL) return false;
  bool done = fprintf(file, "%s\n", text) >= 0 && fflush(file) == 0;
  int number = errno;
  if (fclose(file) != 0 && done) return false;
  if (!done) errno = number;
  return done;
}

/* A link is followed, and the file keeps its permissions. */
static bool replace_file(const char *path, const char *text) {
  char resolved[4096];
  char temporary[4160];
  struct stat status;
  const char *target = realpath(path, resolved) != NULL ? resolved : path;
  bool exists = stat(target, &status) == 0;
  if (!temporary_name(target, temporary, sizeof temporary)) {
    errno = ENAMETOOLONG;
    return false;
  }
  if (write_file(temporary, text) && (!exists || chmod(temporary, status.st_mode & 0777) == 0) &&
      rename(temporary, target) == 0)
    return true;
  int number = errno;
  unlink(temporary);
  errno = number;
  return false;
}

bool report_write(const cJSON *json, const char *path, problem *why) {
  char *text = cJSON_Print(json);
  if (text == NULL) return problem_set(why, "no memory for the report");
  bool done = true;
  if (strcmp(path, "-") == 0)
    puts(text);
  else if (!(is_replaceable(path) ? replace_file(path, text) : write_file(path, text)))
    done = problem_set(why, "cannot write %s: %s", path, strerror(errno));
  cJSON_free(text);
  return done;
}
