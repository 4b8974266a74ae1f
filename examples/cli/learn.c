/* duallora learn
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "context.h"
#include "files.h"
#include "gain.h"
#include "report.h"
#include "run_description.h"
#include "snapshot.h"

static const char usage[] =
    "learn --backbone FILE --train DATA [--test DATA] [--tasks N] --out FILE [--resume FILE] [OPTION]...";
static const char about[] =
    "Splits the classes of the training data into N tasks, learns one after another, measures the test images after\n"
    "each, and saves everything learnt as one checkpoint. With --resume the tasks follow those of an earlier "
    "checkpoint:\n"
    "classes with new names are added, and classes it knows by name are learnt again in their new surroundings.\n"
    "Until it is done, FILE.snapshot beside --out FILE holds the run so far: after every task, after every N steps "
    "with\n"
    "--snapshot-steps N, and when it is interrupted. The same command then goes on from there, and writes the "
    "checkpoint\n"
    "that it would have written.\n\n";

typedef struct learn_arguments {
  const char *train;
  const char *test;
  const char *out;
  const char *resume;
  const char *json;
  size_t num_tasks;
  size_t images_per_class;
  size_t test_images_per_class;
  size_t snapshot_steps;
  bool restart;
  bool overwrite;
  bool skip_corrupt;
  bool check_headers;
  bool allow_missing;
  bool quiet;
  bool verbose;
  backbone_settings backbone;
  learner_settings learner;
} learn_arguments;

/* All that one run of the command holds. */
typedef struct learn_run {
  learn_arguments arguments;
  context work;
  dataset train;
  dataset test;
  class_table classes; /* of the checkpoint and the training data */
  int64_t *ids;        /* [train.num_classes] */
  size_t *order;       /* [train.num_classes] classes in the order in which they are learnt */
  bool *wanted;        /* [train.num_classes] those of one task */
  image_feed test_feed;
  char *snapshot;    /* path */
  bool kept;         /* it holds this run */
  char *description; /* of this run, as the snapshot must have it */
  dlora_evaluation evaluation;
  cJSON *tasks; /* array, one entry per task learnt now */
  double started;
} learn_run;

static bool parse(learn_arguments *to, int argc, char **argv, int *code) {
  const option entries[] = {
      {OPTION_HEADING, NULL, NULL, "Data and files:", 0, 0, NULL, false, NULL, NULL},
      {OPTION_TEXT, "train", "DATA", "images to learn", 0, 0, NULL, true, &to->train, NULL},
      {OPTION_TEXT, "test", "DATA", "images to measure on; without them nothing is measured", 0, 0, NULL, false,
       &to->test, NULL},
      {OPTION_SIZE, "tasks", "N", "tasks that the classes are split into, as evenly as possible (default 1)", 1, 1e6,
       NULL, false, &to->num_tasks, NULL},
      {OPTION_TEXT, "out", "FILE", "checkpoint to write; it appears at the end, complete", 0, 0, NULL, true, &to->out,
       NULL},
      {OPTION_FLAG, "overwrite", NULL, "replace FILE, a checkpoint of earlier learning that is not gone on from", 0, 0,
       NULL, false, &to->overwrite, NULL},
      {OPTION_TEXT, "resume", "FILE", "checkpoint to go on from", 0, 0, NULL, false, &to->resume, NULL},
      {OPTION_SIZE, "snapshot-steps", "N",
       "keep the run in FILE.snapshot every N training steps (default 0: after each task and when interrupted)", 0, 1e9,
       NULL, false, &to->snapshot_steps, NULL},
      {OPTION_FLAG, "restart", NULL, "do not go on from FILE.snapshot of an earlier run; it is replaced", 0, 0, NULL,
       false, &to->restart, NULL},
      {OPTION_TEXT, "json", "FILE", "results as JSON; - for standard output instead of the table", 0, 0, NULL, false,
       &to->json, NULL},
      {OPTION_SIZE, "images-per-class", "K", "learn from the first K images of each class only", 1, 1e9, NULL, false,
       &to->images_per_class, NULL},
      {OPTION_SIZE, "test-images-per-class", "K", "measure on the first K images of each class only", 1, 1e9, NULL,
       false, &to->test_images_per_class, NULL},
      {OPTION_FLAG, "skip-corrupt", NULL, "leave unreadable image files out and count them, instead of failing", 0, 0,
       NULL, false, &to->skip_corrupt, NULL},
      {OPTION_FLAG, "check-headers", NULL,
       "before training look at the header of each image file only, not at its pixels: quicker on large data, but "
       "without effect beside --skip-corrupt",
       0, 0, NULL, false, &to->check_headers, NULL},
      {OPTION_FLAG, "allow-missing-test-classes", NULL, "classes without test images are not measured", 0, 0, NULL,
       false, &to->allow_missing, NULL},
      {OPTION_FLAG, "quiet", NULL, "no progress", 0, 0, NULL, false, &to->quiet, NULL},
      {OPTION_FLAG, "verbose", NULL, "what the library notes", 0, 0, NULL, false, &to->verbose, NULL},
  };
  option table[sizeof entries / sizeof entries[0] + 2 * SETTINGS_MAX];
  size_t count = sizeof entries / sizeof entries[0];
  memset(to, 0, sizeof *to);
  to->num_tasks = 1;
  backbone_settings_init(&to->backbone);
  learner_settings_init(&to->learner);
  memcpy(table, entries, sizeof entries);
  count += backbone_settings_options(&to->backbone, table + count);
  count += learner_settings_options(&to->learner, true, table + count);
  char text[2048];
  snprintf(text, sizeof text, "%s%s", about, data_help);
  return command_begin(usage, text, table, count, argc, argv, NULL, NULL, code) &&
         context_check_settings(&to->learner, argv[1], code);
}

static bool open_data(learn_run *run, problem *why) {
  const learn_arguments *from = &run->arguments;
  /* What is to be left out shows in the pixels, and must be known before a task begins with it. */
  bool check_headers = from->check_headers && !from->skip_corrupt;
  if (check_headers != from->check_headers)
    progress_say(&run->work.view, "--skip-corrupt looks at the pixels of all images, in spite of --check-headers");
  dataset_request request = {from->train, DATASET_TRAIN, from->images_per_class, from->skip_corrupt, check_headers};
  if (!dataset_open(&run->train, &request, why)) return false;
  dataset_print_notes(&run->train, from->train, stderr);
  if (run->train.num_classes < 2 && from->resume == NULL)
    return problem_set(why, "%s has one class only ('%s'); at least two are needed to tell apart", from->train,
                       run->train.class_names[0]);
  if (from->num_tasks > run->train.num_classes)
    return problem_set(why, "--tasks %zu: %s has %zu classes only, and a task needs one at least", from->num_tasks,
                       from->train, run->train.num_classes);
  if (from->test != NULL) {
    request.path = from->test;
    request.part = DATASET_TEST;
    request.images_per_class = from->test_images_per_class;
    if (!dataset_open(&run->test, &request, why)) return false;
    dataset_print_notes(&run->test, from->test, stderr);
  }
  size_t skipped = run->train.num_skipped + run->test.num_skipped;
  if (skipped > 0) progress_say(&run->work.view, "%zu unreadable image files are left out", skipped);
  return true;
}

/* Every class to be learnt must be measurable, or the accuracies would silently be about the others. */
static bool check_test_classes(const learn_run *run, problem *why) {
  class_table measured = {NULL, 0, 0};
  const char *missing = NULL;
  size_t num_missing = 0;
  int64_t id = 0;
  int64_t *ids = malloc(run->test.num_classes * sizeof *ids);
  if (ids == NULL) return problem_set(why, "no memory for %zu classes", run->test.num_classes);
  bool done = class_table_add(&measured, run->test.class_names, run->test.num_classes, ids, why);
  for (size_t i = 0; done && i < run->train.num_classes; i++) {
    if (class_table_find(&measured, run->train.class_names[i], &id)) continue;
    if (num_missing++ == 0) missing = run->train.class_names[i];
  }
  if (done && num_missing > 0)
    done = problem_set(why,
                       "%s has no image of %zu of the classes in %s, first of all '%s' "
                       "(--allow-missing-test-classes measures the others)",
                       run->arguments.test, num_missing, run->arguments.train, missing);
  class_table_free(&measured);
  free(ids);
  return done;
}

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static void shuffle(size_t *order, size_t count, uint64_t seed) {
  for (size_t i = 0; i < count; i++) order[i] = i;
  for (size_t i = count; i > 1; i--) {
    size_t j = (size_t)(next_random(&seed) % i);
    size_t held = order[i - 1];
    order[i - 1] = order[j];
    order[j] = held;
  }
}

static bool prepare(learn_run *run, problem *why) {
  size_t count = run->train.num_classes;
  run->ids = calloc(count, sizeof *run->ids);
  run->order = calloc(count, sizeof *run->order);
  run->wanted = calloc(count, sizeof *run->wanted);
  run->tasks = cJSON_CreateArray();
  if (run->ids == NULL || run->order == NULL || run->wanted == NULL || run->tasks == NULL)
    return problem_set(why, "no memory for %zu classes", count);
  if (!class_table_from_learner(&run->classes, run->work.learner, why)) return false;
  if (!class_table_add(&run->classes, run->train.class_names, count, run->ids, why)) return false;
  shuffle(run->order, count, run->arguments.learner.values.seed);
  if (run->arguments.test == NULL) return true;
  if (!run->arguments.allow_missing && !check_test_classes(run, why)) return false;
  size_t num_unknown = 0;
  if (!context_test_feed(&run->test_feed, &run->test, &run->classes, &num_unknown, why)) return false;
  if (run->test_feed.count == 0)
    return problem_set(why, "%s has no image of a class that is learnt", run->arguments.test);
  if (num_unknown > 0)
    progress_say(&run->work.view, "%zu classes of %s are not learnt; their images are passed over", num_unknown,
                 run->arguments.test);
  return true;
}

static bool record_task(learn_run *run, const dlora_task_report *report, problem *why) {
  cJSON *entry = cJSON_CreateObject();
  if (!cJSON_AddItemToArray(run->tasks, entry)) {
    cJSON_Delete(entry);
    return problem_set(why, "no memory for the report");
  }
  bool done = report_add_number(entry, "task", (double)report->task) &&
              report_add_number(entry, "num_classes", (double)report->num_classes) &&
              report_add_number(entry, "num_images", (double)report->num_images) &&
              report_add_number(entry, "num_steps", (double)report->num_steps) &&
              report_add_number(entry, "first_loss", report->first_loss) &&
              report_add_number(entry, "last_loss", report->last_loss) &&
              report_add_number(entry, "seconds_observe", report->seconds_observe) &&
              report_add_number(entry, "seconds_train", report->seconds_train) &&
              report_add_number(entry, "seconds_statistics", report->seconds_statistics) &&
              report_add_number(entry, "used_directions_min", (double)report->used_directions_min) &&
              report_add_number(entry, "used_directions_max", (double)report->used_directions_max) &&
              report_add_number(entry, "rank_orthogonal_min", (double)report->rank_orthogonal_min) &&
              report_add_number(entry, "rank_orthogonal_max", (double)report->rank_orthogonal_max) &&
              report_add_number(entry, "last_accuracy", run->evaluation.accuracy) &&
              report_add_number(entry, "untouched_accuracy", run->evaluation.untouched_accuracy) &&
              report_add_number(entry, "untouched_weight", report->untouched_weight) &&
              report_add_number(entry, "evidence_gain", report->evidence_gain) &&
              report_add_number(entry, "evidence_images", (double)report->evidence_images);
  return done || problem_set(why, "no memory for the report");
}

static void say_task(learn_run *run, const dlora_task_report *report) {
  char loss[64] = "";
  char accuracy[64] = "";
  char gain[416];
  if (isfinite(report->last_loss))
    snprintf(loss, sizeof loss, ", loss %.3f to %.3f", report->first_loss, report->last_loss);
  if (isfinite(run->evaluation.accuracy))
    snprintf(accuracy, sizeof accuracy, ", accuracy so far %.2f %%", 100.0 * run->evaluation.accuracy);
  progress_say(&run->work.view, "task %zu learnt: %zu images, %.1f s%s%s", report->task, report->num_images,
               report->seconds_observe + report->seconds_train + report->seconds_statistics, loss, accuracy);
  gain_describe(run->work.learner, &run->evaluation, report, gain, sizeof gain);
  progress_say(&run->work.view, "  %s", gain);
}

/* Says what a task consists of: as many names as fit in a line. */
static void say_start(learn_run *run, size_t part, size_t first, size_t end) {
  char names[160] = "";
  size_t length = 0;
  for (size_t i = first; i < end; i++) {
    const char *name = run->train.class_names[run->order[i]];
    int size = snprintf(names + length, sizeof names - length, "%s%s", i > first ? ", " : "", name);
    if (size < 0 || (size_t)size >= sizeof names - length - 8) {
      snprintf(names + length, sizeof names - length, ", ...");
      break;
    }
    length += (size_t)size;
  }
  progress_say(&run->work.view, "task %zu (%zu of %zu), %zu %s: %s", dlora_learner_num_tasks(run->work.learner),
               part + 1, run->arguments.num_tasks, end - first, end - first == 1 ? "class" : "classes", names);
}

/* Where the classes of a part begin in run->order. */
static size_t part_begin(const learn_run *run, size_t part) {
  return part * run->train.num_classes / run->arguments.num_tasks;
}

static bool evaluate_part(learn_run *run, problem *why) {
  return run->arguments.test == NULL || context_evaluate(&run->work, &run->test_feed, -1, &run->evaluation, why);
}

static bool keep(learn_run *run, problem *why) {
  if (!snapshot_save(&run->work, run->snapshot, why)) return false;
  run->kept = true;
  return true;
}

/* Keeps what the run is about in the learner, and so in every snapshot, which the library writes by itself. */
static bool describe(learn_run *run, problem *why) {
  const learn_arguments *from = &run->arguments;
  dlora_learner_options options = {.struct_size = sizeof options};
  if (dlora_learner_get_options(run->work.learner, &options) != DLORA_OK) return problem_set_library(why, "options");
  const run_facts facts = {&run->train,
                           from->test == NULL ? NULL : &run->test,
                           from->train,
                           from->test,
                           from->resume,
                           run->order,
                           from->num_tasks,
                           from->backbone.options.products,
                           from->learner.preset_given ? from->learner.preset : -1,
                           &options};
  run->description = run_describe(&facts, why);
  return run->description != NULL;
}

/* Goes on from the snapshot of an interrupted run. *done: tasks that are finished. */
static bool resume(learn_run *run, size_t *done, problem *why) {
  const learn_arguments *from = &run->arguments;
  bool lacks = false;
  *done = 0;
  if (!from->restart && snapshot_exists(run->snapshot)) {
    if (!snapshot_load(&run->work, run->snapshot, run->description, from->num_tasks, done, why)) return false;
    run->kept = true;
  }
  if (dlora_learner_set_note(run->work.learner, RUN_NOTE, run->description) != DLORA_OK ||
      dlora_learner_set_snapshot(run->work.learner, run->snapshot, from->snapshot_steps) != DLORA_OK)
    return problem_set_library(why, "--snapshot-steps");
  if (*done == 0 || from->test == NULL) return true;
  if (!snapshot_lacks_evaluation(run->work.learner, &lacks, why)) return false;
  /* The figures of the last task are wanted too where there is no further one. */
  if (lacks || *done == from->num_tasks) return evaluate_part(run, why) && keep(run, why);
  return true;
}

/* Learns and measures the part-th share of the classes. */
static bool learn_part(learn_run *run, size_t part, problem *why) {
  size_t count = run->train.num_classes;
  size_t first = part_begin(run, part);
  size_t end = part_begin(run, part + 1);
  dlora_task_report report = DLORA_TASK_REPORT_INIT;
  image_feed feed;
  memset(run->wanted, 0, count * sizeof *run->wanted);
  for (size_t i = first; i < end; i++) run->wanted[run->order[i]] = true;
  say_start(run, part, first, end);
  if (!image_feed_open(&feed, &run->train, run->ids, run->wanted, why)) return false;
  bool done = context_learn(&run->work, &feed, &report, why);
  image_feed_close(&feed);
  for (size_t i = first; done && i < end; i++) {
    size_t class = run->order[i];
    if (dlora_learner_set_class_name(run->work.learner, run->ids[class], run->train.class_names[class]) != DLORA_OK)
      done = problem_set_library(why, run->train.class_names[class]);
  }
  /* Once before measuring and once after, so that neither need be done twice. */
  if (done) done = keep(run, why) && evaluate_part(run, why) && (run->arguments.test == NULL || keep(run, why));
  if (done) done = record_task(run, &report, why);
  if (done) say_task(run, &report);
  return done;
}

static bool write_results(learn_run *run, problem *why) {
  const learn_arguments *from = &run->arguments;
  if (dlora_learner_set_note(run->work.learner, RUN_NOTE, NULL) != DLORA_OK ||
      dlora_learner_save(run->work.learner, from->out) != DLORA_OK)
    return problem_set_library(why, "saving");
  progress_say(&run->work.view, "saved %s", from->out);
  if (run->kept) unlink(run->snapshot);
  run->kept = false;
  bool to_stdout = from->json != NULL && strcmp(from->json, "-") == 0;
  if (!to_stdout && from->test != NULL && !report_print(run->work.learner, &run->evaluation, why)) return false;
  if (from->json == NULL) return true;
  double seconds = progress_seconds() - run->started;
  cJSON *json = report_json(run->work.learner, &run->evaluation, seconds, why);
  if (json == NULL) return false;
  bool done = cJSON_AddItemToObject(json, "tasks", run->tasks) != 0;
  if (done) run->tasks = NULL;
  done = done && report_add_number(json, "skipped_files", (double)(run->train.num_skipped + run->test.num_skipped)) &&
         report_add_text(json, "checkpoint", from->out);
  if (!done) problem_set(why, "no memory for the report");
  if (done) done = report_write(json, from->json, why);
  cJSON_Delete(json);
  return done;
}

/* A dlora_inspect visitor; user: bool. */
static int32_t find_open_task(const dlora_tensor_info *info, void *user) {
  if (info->value == NULL && strcmp(info->name, "training.counts") == 0) *(bool *)user = true;
  return 0;
}

/* A snapshot is gone on with by the command that began it, which knows the images of the task that is open. */
static int check_resume(const learn_run *run, problem *why) {
  const char *resume = run->arguments.resume;
  bool is_open = false;
  if (resume == NULL) return EXIT_DONE;
  if (files_are_same(resume, run->snapshot)) {
    problem_set(why, "--resume: %s is the snapshot of --out %s, from which the command that began it goes on by itself",
                resume, run->arguments.out);
    return EXIT_USAGE;
  }
  if (dlora_inspect(resume, find_open_task, &is_open) != DLORA_OK) {
    problem_set_library(why, "--resume");
    return EXIT_FAILED;
  }
  if (!is_open) return EXIT_DONE;
  problem_set(
      why,
      "--resume: %s is the snapshot of a run in the middle of a task; the command that began the run goes on from "
      "there by itself, and --resume takes a checkpoint that is finished",
      resume);
  return EXIT_FAILED;
}

/* What is written must neither take the place of something else nor turn out to be impossible in the end. */
static int check_files(const learn_run *run, problem *why) {
  const learn_arguments *from = &run->arguments;
  int resumes = check_resume(run, why);
  if (resumes != EXIT_DONE) return resumes;
  bool updates = from->resume != NULL && files_are_same(from->resume, from->out);
  const file_use uses[] = {{"--out", from->out, FILE_CHECKPOINT},
                           {"the snapshot of --out", run->snapshot, FILE_CHECKPOINT},
                           {"--json", from->json, FILE_REPORT},
                           {"--resume", updates ? NULL : from->resume, FILE_READ},
                           {"--backbone", from->backbone.path, FILE_READ},
                           {"--train", from->train, FILE_READ},
                           {"--test", from->test, FILE_READ}};
  int code = files_check(uses, sizeof uses / sizeof uses[0], why);
  if (code != EXIT_DONE || updates || from->overwrite || !files_exist(from->out)) return code;
  problem_set(why, "--out: %s exists; --resume %s learns on from it, and --overwrite replaces it", from->out,
              from->out);
  return EXIT_USAGE;
}

/* After a failure or an interrupt: nothing is lost, and what to do. The library may have kept the run by itself. */
static void say_how_to_go_on(const learn_run *run, const char *command) {
  if (run->snapshot == NULL || run->work.learner == NULL || !snapshot_exists(run->snapshot)) return;
  const char *how = run->work.mismatch
                        ? "it was begun with other images: with those the same command goes on from there"
                    : interrupt_requested() ? "the same command goes on from there"
                                            : "once that is mended, the same command goes on from there";
  fprintf(stderr, "duallora %s: %s holds the run so far; %s%s\n", command, run->snapshot, how,
          interrupt_requested() ? "" : ", and --restart begins anew");
}

int learn_command(int argc, char **argv) {
  int code = EXIT_DONE;
  problem why = {""};
  learn_run run;
  memset(&run, 0, sizeof run);
  run.started = progress_seconds();
  run.evaluation = report_no_evaluation();
  if (!parse(&run.arguments, argc, argv, &code)) return code;
  const learn_arguments *from = &run.arguments;
  size_t part = 0;
  run.snapshot = snapshot_path(from->out);
  progress_begin(&run.work.view, from->quiet, from->verbose);
  bool done = run.snapshot != NULL || problem_set(&why, "no memory for a file name");
  int checked = done ? check_files(&run, &why) : EXIT_FAILED;
  done = checked == EXIT_DONE && context_open(&run.work, &from->backbone, from->resume, &from->learner, &why) &&
         open_data(&run, &why) && prepare(&run, &why) && describe(&run, &why) && resume(&run, &part, &why);
  bool begun = done;
  for (; done && part < from->num_tasks; part++) done = learn_part(&run, part, &why);
  if (done) done = write_results(&run, &why);
  progress_clear(&run.work.view);
  if (!done) code = problem_report(&why, argv[1]);
  if (checked == EXIT_USAGE) code = EXIT_USAGE;
  if (!done && begun) say_how_to_go_on(&run, argv[1]);
  context_close(&run.work);
  cJSON_Delete(run.tasks);
  image_feed_close(&run.test_feed);
  class_table_free(&run.classes);
  cJSON_free(run.description);
  free(run.snapshot);
  free(run.wanted);
  free(run.order);
  free(run.ids);
  dataset_close(&run.test);
  dataset_close(&run.train);
  return code;
}
