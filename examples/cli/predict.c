/* duallora predict
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "context.h"
#include "dataset.h"
#include "file_list.h"
#include "image_file.h"
#include "report.h"
#include "utf8.h"

static const char usage[] = "predict --backbone FILE --checkpoint FILE [--json] [OPTION]... IMAGE_OR_FOLDER...";
static const char about[] =
    "Prints one line per image file: file, class, its probability, task, its probability, and whether the image is "
    "known\n"
    "or unlike anything learnt, with tabs between them; control characters in names are written as \\n, \\t and \\xNN, "
    "a\n"
    "backslash as two. Images are " IMAGE_FORMATS
    ", turned upright as their Exif orientation says, transparent\n"
    "ones on white. Of a folder all images are taken, with those of the folders in it, in the order of their paths. A\n"
    "file that cannot be read is reported, the others are still predicted, and the exit code is 1.\n";

typedef struct predict_arguments {
  const char *checkpoint;
  bool json;
  size_t top;
  size_t task;
  bool task_given;
  backbone_settings backbone;
  learner_settings learner;
} predict_arguments;

/* The learner with what one prediction needs room for. */
typedef struct predict_run {
  predict_arguments arguments;
  context work;
  size_t num_classes;
  int64_t *ids;     /* [num_classes] */
  float *log_probs; /* [num_classes] */
  size_t *ranking;  /* [num_classes] most probable first, as far as asked for */
  path_list images;
  pixels buffer;
  cJSON *list; /* with --json */
} predict_run;

static bool parse(predict_arguments *to, int argc, char **argv, const char **images, size_t *count, int *code) {
  const option entries[] = {
      {OPTION_HEADING, NULL, NULL, "Files and output:", 0, 0, NULL, false, NULL, NULL},
      {OPTION_TEXT, "checkpoint", "FILE", "what 'duallora learn' saved", 0, 0, NULL, true, &to->checkpoint, NULL},
      {OPTION_FLAG, "json", NULL, "one JSON array instead of lines", 0, 0, NULL, false, &to->json, NULL},
      {OPTION_SIZE, "top", "K", "the K most probable classes of each image", 1, 1e6, NULL, false, &to->top, NULL},
      {OPTION_SIZE, "task", "T", "the task, from 0, that the images are known to belong to", 0, 1e9, NULL, false,
       &to->task, &to->task_given},
  };
  option table[sizeof entries / sizeof entries[0] + 2 * SETTINGS_MAX];
  size_t num_entries = sizeof entries / sizeof entries[0];
  memset(to, 0, sizeof *to);
  backbone_settings_init(&to->backbone);
  learner_settings_init(&to->learner);
  memcpy(table, entries, sizeof entries);
  num_entries += backbone_settings_options(&to->backbone, table + num_entries);
  num_entries += learner_settings_options(&to->learner, false, table + num_entries);
  if (!command_begin(usage, about, table, num_entries, argc, argv, images, count, code) ||
      !context_check_settings(&to->learner, argv[1], code))
    return false;
  if (*count > 0) return true;
  fprintf(stderr, "duallora predict: which images? Try 'duallora predict --help'.\n");
  *code = EXIT_USAGE;
  return false;
}

static bool prepare(predict_run *run, problem *why) {
  const predict_arguments *from = &run->arguments;
  if (!context_open(&run->work, &from->backbone, from->checkpoint, &from->learner, why)) return false;
  size_t num_tasks = dlora_learner_num_tasks(run->work.learner);
  run->num_classes = dlora_learner_num_classes(run->work.learner);
  if (num_tasks == 0) return problem_set(why, "%s has not finished learning a task yet", from->checkpoint);
  if (from->task_given && from->task >= num_tasks)
    return problem_set(why, "--task %zu: the checkpoint has %zu tasks, counted from 0", from->task, num_tasks);
  run->ids = malloc(run->num_classes * sizeof *run->ids);
  run->log_probs = malloc(run->num_classes * sizeof *run->log_probs);
  run->ranking = malloc(run->num_classes * sizeof *run->ranking);
  run->list = from->json ? cJSON_CreateArray() : NULL;
  if (run->ids == NULL || run->log_probs == NULL || run->ranking == NULL || (from->json && run->list == NULL))
    return problem_set(why, "no memory for %zu classes", run->num_classes);
  return dlora_learner_get_classes(run->work.learner, run->ids) == DLORA_OK || problem_set_library(why, "classes");
}

/* Moves the most probable classes to the front of ranking; few are asked for, so that selecting them is quick. */
static size_t rank(predict_run *run) {
  size_t top = run->arguments.top < run->num_classes ? run->arguments.top : run->num_classes;
  for (size_t i = 0; i < run->num_classes; i++) run->ranking[i] = i;
  for (size_t i = 0; i < top; i++) {
    size_t best = i;
    for (size_t j = i + 1; j < run->num_classes; j++)
      if (run->log_probs[run->ranking[j]] > run->log_probs[run->ranking[best]]) best = j;
    size_t held = run->ranking[i];
    run->ranking[i] = run->ranking[best];
    run->ranking[best] = held;
  }
  return top;
}

static bool predict(predict_run *run, const char *path, dlora_prediction *prediction, problem *why) {
  if (!image_file_decode(path, &run->buffer, why)) return false;
  dlora_images image = {run->buffer.bytes, NULL, 1, run->buffer.height, run->buffer.width, 3};
  int64_t task = (int64_t)run->arguments.task;
  dlora_status status =
      run->arguments.task_given
          ? dlora_learner_predict_with_tasks(run->work.learner, &image, &task, prediction, run->log_probs)
          : dlora_learner_predict(run->work.learner, &image, prediction, run->log_probs);
  return status == DLORA_OK || problem_set_library(why, path);
}

static void print_prediction(predict_run *run, const char *path, const dlora_prediction *p) {
  char buffer[24];
  utf8_print(stdout, path);
  putchar('\t');
  utf8_print(stdout, class_name(run->work.learner, p->class_id, buffer));
  printf("\t%.4f\ttask %" PRId64 "\t%.4f\t%s\n", (double)p->class_probability, p->task, (double)p->task_probability,
         p->unknown != 0 ? "unknown" : "known");
  size_t top = rank(run);
  for (size_t i = 0; i < top; i++) {
    printf("\t%zu\t", i + 1);
    utf8_print(stdout, class_name(run->work.learner, run->ids[run->ranking[i]], buffer));
    printf("\t%.4f\n", exp((double)run->log_probs[run->ranking[i]]));
  }
}

static bool add_top(predict_run *run, cJSON *entry) {
  char buffer[24];
  size_t top = rank(run);
  if (top == 0) return true;
  cJSON *list = cJSON_AddArrayToObject(entry, "top");
  bool done = list != NULL;
  for (size_t i = 0; done && i < top; i++) {
    cJSON *item = cJSON_CreateObject();
    done = cJSON_AddItemToArray(list, item) &&
           report_add_text(item, "class", class_name(run->work.learner, run->ids[run->ranking[i]], buffer)) &&
           report_add_number(item, "probability", exp((double)run->log_probs[run->ranking[i]]));
  }
  return done;
}

/* p: NULL for a file that failed, with the sentence in why. */
static bool add_entry(predict_run *run, const char *path, const dlora_prediction *p, const problem *why) {
  char buffer[24];
  cJSON *entry = cJSON_CreateObject();
  if (!cJSON_AddItemToArray(run->list, entry)) {
    cJSON_Delete(entry);
    return false;
  }
  if (!report_add_text(entry, "file", path)) return false;
  if (p == NULL) return report_add_text(entry, "error", why->text);
  return report_add_text(entry, "class", class_name(run->work.learner, p->class_id, buffer)) &&
         report_add_number(entry, "class_id", (double)p->class_id) &&
         report_add_number(entry, "probability", (double)p->class_probability) &&
         report_add_number(entry, "task", (double)p->task) &&
         report_add_number(entry, "task_probability", (double)p->task_probability) &&
         report_add_number(entry, "unknown_score", (double)p->unknown_score) &&
         cJSON_AddBoolToObject(entry, "unknown", p->unknown != 0) != NULL && add_top(run, entry);
}

/* Operands that are folders become the images in them. */
static bool list_images(predict_run *run, const char **operands, size_t count, problem *why) {
  for (size_t i = 0; i < count; i++) {
    struct stat status;
    passed_over others = {0};
    size_t known = run->images.count;
    if (stat(operands[i], &status) != 0 || !S_ISDIR(status.st_mode)) {
      if (!path_list_add(&run->images, strdup(operands[i]), why)) return false;
      continue;
    }
    if (!file_list_images(operands[i], &run->images, &others, why)) return false;
    passed_over_print(&others, operands[i], stderr);
    if (run->images.count == known)
      return problem_set(why, "the folder %s holds no file that ends in " IMAGE_NAMES, operands[i]);
  }
  return true;
}

/* Predicts all files. *num_failed: those that could not be read, each reported. */
static bool predict_all(predict_run *run, size_t *num_failed, problem *why) {
  for (size_t i = 0; i < run->images.count; i++) {
    const char *path = run->images.paths[i];
    dlora_prediction prediction;
    problem reason = {""};
    if (interrupt_requested()) return problem_set(why, "interrupted");
    bool known = predict(run, path, &prediction, &reason);
    if (!known) {
      ++*num_failed;
      problem_report(&reason, "predict");
    } else if (run->list == NULL) {
      print_prediction(run, path, &prediction);
    }
    if (run->list != NULL && !add_entry(run, path, known ? &prediction : NULL, &reason))
      return problem_set(why, "no memory for the report");
  }
  return run->list == NULL || report_write(run->list, "-", why);
}

int predict_command(int argc, char **argv) {
  int code = EXIT_DONE;
  problem why = {""};
  size_t count = 0;
  size_t num_failed = 0;
  predict_run run;
  memset(&run, 0, sizeof run);
  const char **images = malloc((size_t)argc * sizeof *images);
  if (images == NULL) {
    problem_set(&why, "no memory for %d arguments", argc);
    return problem_report(&why, argv[1]);
  }
  if (parse(&run.arguments, argc, argv, images, &count, &code)) {
    progress_begin(&run.work.view, true, false);
    bool done = list_images(&run, images, count, &why) && prepare(&run, &why) && predict_all(&run, &num_failed, &why);
    code = !done ? problem_report(&why, argv[1]) : num_failed > 0 ? EXIT_FAILED : EXIT_DONE;
    context_close(&run.work);
  }
  cJSON_Delete(run.list);
  path_list_clear(&run.images);
  free(run.buffer.bytes);
  free(run.ranking);
  free(run.log_probs);
  free(run.ids);
  free(images);
  return code;
}
