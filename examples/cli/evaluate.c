/* duallora evaluate
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "commands.h"
#include "context.h"
#include "files.h"
#include "report.h"

static const char usage[] = "evaluate --backbone FILE --checkpoint FILE --test DATA [--json FILE] [OPTION]...";
static const char about[] =
    "Measures a checkpoint on test images: accuracy on each task, forgetting, calibration. The checkpoint is not "
    "changed.\n"
    "An image counts for the last task that has its class, unless --true-task names another.\n\n";

typedef struct evaluate_arguments {
  const char *checkpoint;
  const char *test;
  const char *json;
  size_t images_per_class;
  size_t true_task;
  bool true_task_given;
  bool skip_corrupt;
  bool check_headers;
  bool quiet;
  bool verbose;
  backbone_settings backbone;
  learner_settings learner;
} evaluate_arguments;

static bool parse(evaluate_arguments *to, int argc, char **argv, int *code) {
  const option entries[] = {
      {OPTION_HEADING, NULL, NULL, "Data and files:", 0, 0, NULL, false, NULL, NULL},
      {OPTION_TEXT, "checkpoint", "FILE", "what 'duallora learn' saved", 0, 0, NULL, true, &to->checkpoint, NULL},
      {OPTION_TEXT, "test", "DATA", "images to measure on", 0, 0, NULL, true, &to->test, NULL},
      {OPTION_TEXT, "json", "FILE", "results as JSON; - for standard output instead of the table", 0, 0, NULL, false,
       &to->json, NULL},
      {OPTION_SIZE, "test-images-per-class", "K", "measure on the first K images of each class only", 1, 1e9, NULL,
       false, &to->images_per_class, NULL},
      {OPTION_SIZE, "true-task", "T", "the task, from 0, that all these images belong to, where classes recur", 0, 1e9,
       NULL, false, &to->true_task, &to->true_task_given},
      {OPTION_FLAG, "skip-corrupt", NULL, "leave unreadable image files out and count them, instead of failing", 0, 0,
       NULL, false, &to->skip_corrupt, NULL},
      {OPTION_FLAG, "check-headers", NULL,
       "look at the header of each image file only beforehand, not at its pixels; without effect beside --skip-corrupt",
       0, 0, NULL, false, &to->check_headers, NULL},
      {OPTION_FLAG, "quiet", NULL, "no progress", 0, 0, NULL, false, &to->quiet, NULL},
      {OPTION_FLAG, "verbose", NULL, "what the library notes", 0, 0, NULL, false, &to->verbose, NULL},
  };
  option table[sizeof entries / sizeof entries[0] + 2 * SETTINGS_MAX];
  size_t count = sizeof entries / sizeof entries[0];
  memset(to, 0, sizeof *to);
  backbone_settings_init(&to->backbone);
  learner_settings_init(&to->learner);
  memcpy(table, entries, sizeof entries);
  count += backbone_settings_options(&to->backbone, table + count);
  count += learner_settings_options(&to->learner, false, table + count);
  char text[2048];
  snprintf(text, sizeof text, "%s%s", about, data_help);
  return command_begin(usage, text, table, count, argc, argv, NULL, NULL, code) &&
         context_check_settings(&to->learner, argv[1], code);
}

static bool write_results(const context *work, const evaluate_arguments *from, const dlora_evaluation *evaluation,
                          double seconds, size_t skipped_files, problem *why) {
  if (from->json == NULL || strcmp(from->json, "-") != 0)
    if (!report_print(work->learner, evaluation, why)) return false;
  if (from->json == NULL) return true;
  cJSON *json = report_json(work->learner, evaluation, seconds, why);
  if (json == NULL) return false;
  bool done = report_add_number(json, "skipped_files", (double)skipped_files) &&
              report_add_text(json, "checkpoint", from->checkpoint);
  if (!done) problem_set(why, "no memory for the report");
  if (done) done = report_write(json, from->json, why);
  cJSON_Delete(json);
  return done;
}

int evaluate_command(int argc, char **argv) {
  int code = EXIT_DONE;
  problem why = {""};
  evaluate_arguments from;
  context work = {0};
  dataset test = {0};
  class_table classes = {NULL, 0, 0};
  image_feed feed = {0};
  dlora_evaluation evaluation = DLORA_EVALUATION_INIT;
  size_t num_unknown = 0;
  double started = progress_seconds();
  if (!parse(&from, argc, argv, &code)) return code;
  progress_begin(&work.view, from.quiet, from.verbose);
  dataset_request request = {from.test, DATASET_TEST, from.images_per_class, from.skip_corrupt,
                             from.check_headers && !from.skip_corrupt};
  const file_use uses[] = {{"--json", from.json, FILE_REPORT},
                           {"--checkpoint", from.checkpoint, FILE_READ},
                           {"--backbone", from.backbone.path, FILE_READ},
                           {"--test", from.test, FILE_READ}};
  int checked = files_check(uses, sizeof uses / sizeof uses[0], &why);
  bool done = checked == EXIT_DONE && context_open(&work, &from.backbone, from.checkpoint, &from.learner, &why) &&
              dataset_open(&test, &request, &why);
  if (done) dataset_print_notes(&test, from.test, stderr);
  done = done && class_table_from_learner(&classes, work.learner, &why) &&
         context_test_feed(&feed, &test, &classes, &num_unknown, &why);
  if (done && dlora_learner_num_tasks(work.learner) == 0)
    done = problem_set(&why, "%s has not finished learning a task yet", from.checkpoint);
  if (done && from.true_task_given && from.true_task >= dlora_learner_num_tasks(work.learner))
    done = problem_set(&why, "--true-task %zu: the checkpoint has %zu tasks, counted from 0", from.true_task,
                       dlora_learner_num_tasks(work.learner));
  if (done && feed.count == 0)
    done = problem_set(&why, "%s has no image of a class that %s knows by name", from.test, from.checkpoint);
  if (done && num_unknown > 0)
    progress_say(&work.view, "%zu classes of %s are not known; their images are passed over", num_unknown, from.test);
  if (done)
    done = context_evaluate(&work, &feed, from.true_task_given ? (int64_t)from.true_task : -1, &evaluation, &why);
  if (done) done = write_results(&work, &from, &evaluation, progress_seconds() - started, test.num_skipped, &why);
  context_close(&work);
  if (!done) code = problem_report(&why, argv[1]);
  if (checked == EXIT_USAGE) code = EXIT_USAGE;
  image_feed_close(&feed);
  class_table_free(&classes);
  dataset_close(&test);
  return code;
}
