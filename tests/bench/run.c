/* Learning and measuring, task after task.
 * SPDX-License-Identifier: Apache-2.0 */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../examples/cli/report.h"
#include "unknown.h"

/* All that one run holds. */
typedef struct run_state {
  const run_request *request;
  dlora_learner *learner;
  cJSON *stages;
  cJSON *warnings;
  bool out_of_memory; /* in a callback */
  bool joint;
  size_t num_stages;
  dlora_evaluation evaluation; /* the last one */
  double accuracy_sum;
  double auroc_sum;
  size_t num_aurocs;
  double learn_seconds;
  double evaluate_seconds;
} run_state;

bool run_options(const run_request *request, dlora_learner_options *options, problem *why) {
  *options = request->from->options;
  options->seed = request->seed;
  return method_apply(request->method, request->from->paper_blocks, options) || problem_set_library(why, "options");
}

/* A dlora_log_fn: warnings belong to the result, and are shown on request. */
static void keep_warning(int32_t level, const char *message, void *user) {
  run_state *run = user;
  if (run->request->view->verbose) progress_log(level, message, run->request->view);
  if (level < DLORA_LOG_WARNING) return;
  cJSON *line = cJSON_CreateString(message);
  if (line == NULL || !cJSON_AddItemToArray(run->warnings, line)) {
    cJSON_Delete(line);
    run->out_of_memory = true;
  }
}

static bool create(run_state *run, cJSON *into, problem *why) {
  dlora_learner_options options;
  if (!run_options(run->request, &options, why)) return false;
  run->stages = cJSON_AddArrayToObject(into, "stages");
  run->warnings = cJSON_AddArrayToObject(into, "warnings");
  if (run->stages == NULL || run->warnings == NULL) return problem_set(why, "no memory for results");
  if (dlora_learner_create(&run->learner, run->request->model, &options) != DLORA_OK)
    return problem_set_library(why, "options");
  if (dlora_learner_set_progress(run->learner, progress_show, run->request->view) != DLORA_OK ||
      dlora_learner_set_log(run->learner, keep_warning, run) != DLORA_OK)
    return problem_set_library(why, "callbacks");
  return true;
}

static dlora_image_source source_of(feed *from) {
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = feed_read;
  source.user = from;
  source.count = from->count;
  source.labels = from->labels;
  source.tasks = from->tasks;
  return source;
}

/* The reader's own sentence names the file; the library's only the index. */
static bool failed(const feed *from, const char *doing, problem *why) {
  if (from->why.text[0] == '\0') return problem_set_library(why, doing);
  *why = from->why;
  return false;
}

static bool learn(run_state *run, size_t stage, dlora_task_report *report, problem *why) {
  sequence *tasks = run->request->tasks;
  feed images;
  double started = progress_seconds();
  if (!feed_open(&images, tasks, &tasks->train, run->joint ? 0 : stage, run->joint ? tasks->num_tasks : stage + 1, true,
                 why))
    return false;
  dlora_image_source source = source_of(&images);
  source.tasks = NULL;
  bool done = dlora_learner_learn_source(run->learner, &source, report) == DLORA_OK || failed(&images, "learning", why);
  feed_close(&images);
  progress_clear(run->request->view);
  run->learn_seconds += progress_seconds() - started;
  return done;
}

static bool evaluate(run_state *run, size_t stage, double *auroc, problem *why) {
  const run_request *request = run->request;
  sequence *tasks = request->tasks;
  size_t num_learnt = run->joint ? tasks->num_tasks : stage + 1;
  feed images;
  double started = progress_seconds();
  if (!feed_open(&images, tasks, &tasks->test, 0, num_learnt, run->joint, why)) return false;
  dlora_image_source source = source_of(&images);
  bool done =
      dlora_learner_evaluate(run->learner, &source, &run->evaluation) == DLORA_OK || failed(&images, "measuring", why);
  feed_close(&images);
  *auroc = NAN;
  /* Where the task must be named, an image of no learnt task cannot be scored; one stage is no mean over all of them.
   */
  if (done && request->method != METHOD_DUAL_GIVEN && !run->joint && request->from->unknown_images > 0)
    done = unknown_auroc(run->learner, tasks, num_learnt, request->from->unknown_images, auroc, why);
  progress_clear(request->view);
  run->evaluate_seconds += progress_seconds() - started;
  run->accuracy_sum += run->evaluation.accuracy;
  if (isfinite(*auroc)) {
    run->auroc_sum += *auroc;
    run->num_aurocs++;
  }
  return done;
}

static bool record(run_state *run, size_t stage, bool evaluated, double auroc, const dlora_task_report *report,
                   problem *why) {
  const dlora_evaluation *e = &run->evaluation;
  cJSON *entry = cJSON_CreateObject();
  if (entry == NULL || !cJSON_AddItemToArray(run->stages, entry)) {
    cJSON_Delete(entry);
    return problem_set(why, "no memory for results");
  }
  bool done = report_add_number(entry, "tasks", (double)(run->joint ? run->request->tasks->num_tasks : stage + 1)) &&
              report_add_number(entry, "classes", (double)dlora_learner_num_classes(run->learner)) &&
              report_add_number(entry, "train_images", (double)report->num_images) &&
              report_add_number(entry, "steps", (double)report->num_steps) &&
              report_add_number(entry, "first_loss", report->first_loss) &&
              report_add_number(entry, "last_loss", report->last_loss) &&
              report_add_number(entry, "seconds_observe", report->seconds_observe) &&
              report_add_number(entry, "seconds_train", report->seconds_train) &&
              report_add_number(entry, "seconds_statistics", report->seconds_statistics) &&
              report_add_number(entry, "used_directions_min", (double)report->used_directions_min) &&
              report_add_number(entry, "used_directions_max", (double)report->used_directions_max) &&
              report_add_number(entry, "rank_orthogonal_min", (double)report->rank_orthogonal_min) &&
              report_add_number(entry, "rank_orthogonal_max", (double)report->rank_orthogonal_max);
  if (done && evaluated)
    done = report_add_number(entry, "test_images", (double)e->num_images) &&
           report_add_number(entry, "accuracy", 100.0 * e->accuracy) &&
           report_add_number(entry, "task_accuracy", run->joint ? NAN : 100.0 * e->task_accuracy) &&
           report_add_number(entry, "accuracy_given_task", run->joint ? NAN : 100.0 * e->accuracy_given_task) &&
           report_add_number(entry, "ece", 100.0 * e->ece) &&
           report_add_number(entry, "task_ece", run->joint ? NAN : 100.0 * e->task_ece) &&
           report_add_number(entry, "unknown_auroc", 100.0 * auroc);
  return done || problem_set(why, "no memory for results");
}

static bool add_matrix(const run_state *run, cJSON *into, problem *why) {
  size_t count = dlora_learner_num_tasks(run->learner);
  double *matrix = malloc(count * count * sizeof *matrix);
  cJSON *rows = cJSON_AddArrayToObject(into, "accuracy_matrix");
  bool done = matrix != NULL && rows != NULL;
  if (!done) problem_set(why, "no memory for results");
  if (done && dlora_learner_get_accuracy_matrix(run->learner, matrix) != DLORA_OK)
    done = problem_set_library(why, "accuracy matrix");
  for (size_t i = 0; done && i < count; i++) {
    cJSON *row = cJSON_CreateArray();
    done = row != NULL && cJSON_AddItemToArray(rows, row);
    for (size_t j = 0; done && j < count; j++) {
      double value = 100.0 * matrix[i * count + j];
      done = cJSON_AddItemToArray(row, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull()) != 0;
    }
    if (!done) problem_set(why, "no memory for results");
  }
  free(matrix);
  return done;
}

static bool add_results(const run_state *run, cJSON *into, problem *why) {
  const dlora_evaluation *e = &run->evaluation;
  /* With one task there is nothing to tell apart or forget, and from one row of the matrix nothing follows about it. */
  bool history = !run->joint && run->request->from->evaluate == EVALUATE_ALL;
  double none = NAN;
  cJSON *results = cJSON_AddObjectToObject(into, "results");
  bool done = results != NULL && report_add_number(results, "last_accuracy", 100.0 * e->accuracy) &&
              report_add_number(results, "average_accuracy",
                                history ? 100.0 * run->accuracy_sum / (double)run->num_stages : none) &&
              report_add_number(results, "task_accuracy", run->joint ? none : 100.0 * e->task_accuracy) &&
              report_add_number(results, "accuracy_given_task", run->joint ? none : 100.0 * e->accuracy_given_task) &&
              report_add_number(results, "forgetting", history ? 100.0 * e->forgetting : none) &&
              report_add_number(results, "backward_transfer", history ? 100.0 * e->backward_transfer : none) &&
              report_add_number(results, "ece", 100.0 * e->ece) &&
              report_add_number(results, "task_ece", run->joint ? none : 100.0 * e->task_ece) &&
              report_add_number(results, "unknown_auroc",
                                run->num_aurocs > 0 ? 100.0 * run->auroc_sum / (double)run->num_aurocs : none) &&
              report_add_number(results, "learn_seconds", run->learn_seconds) &&
              report_add_number(results, "evaluate_seconds", run->evaluate_seconds);
  return done || problem_set(why, "no memory for results");
}

bool run_method(const run_request *request, cJSON *into, problem *why) {
  run_state run;
  memset(&run, 0, sizeof run);
  run.request = request;
  run.joint = request->method == METHOD_JOINT;
  run.evaluation = report_no_evaluation();
  size_t num_stages = run.joint ? 1 : request->tasks->num_tasks;
  bool done = create(&run, into, why);
  for (size_t stage = 0; done && stage < num_stages; stage++) {
    dlora_task_report report = DLORA_TASK_REPORT_INIT;
    double auroc = NAN;
    bool evaluated = request->from->evaluate == EVALUATE_ALL || stage + 1 == num_stages;
    done = learn(&run, stage, &report, why);
    if (done && evaluated) done = evaluate(&run, stage, &auroc, why);
    run.num_stages += done && evaluated;
    if (done) done = record(&run, stage, evaluated, auroc, &report, why);
  }
  if (done && run.out_of_memory) done = problem_set(why, "no memory for warnings");
  if (done) done = add_results(&run, into, why) && add_matrix(&run, into, why);
  dlora_learner_destroy(run.learner);
  return done;
}
