/* A backbone and a learner at work on data sets.
 * SPDX-License-Identifier: Apache-2.0 */
#include "context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A dlora_inspect visitor; user: a size_t. */
static int32_t find_image_size(const dlora_tensor_info *info, void *user) {
  if (info->value != NULL && strcmp(info->name, "image_size") == 0) *(size_t *)user = strtoul(info->value, NULL, 10);
  return 0;
}

static bool load_backbone(context *work, const backbone_settings *backbone, const char *checkpoint, int32_t threads,
                          problem *why) {
  dlora_model_options options = backbone->options;
  options.threads = threads;
  /* A checkpoint belongs to one image size; what it was learnt with need not be said again. */
  if (options.image_size == 0 && checkpoint != NULL &&
      dlora_inspect(checkpoint, find_image_size, &options.image_size) != DLORA_OK)
    return settings_problem(why, checkpoint);
  if (dlora_model_load(&work->model, backbone->path, &options) != DLORA_OK)
    return settings_problem(why, backbone->path);
  return true;
}

bool context_check_settings(const learner_settings *settings, const char *command, int *code) {
  problem why = {""};
  if (learner_settings_check(settings, NULL, &why)) return true;
  fprintf(stderr, "duallora %s: %s\nTry 'duallora %s --help'.\n", command, why.text, command);
  *code = EXIT_USAGE;
  return false;
}

/* The snapshot of a run that is not finished is used as the checkpoint before the task that is open. */
static bool drop_open_task(context *work, const char *checkpoint, problem *why) {
  dlora_open_task open = DLORA_OPEN_TASK_INIT;
  if (dlora_learner_get_open_task(work->learner, &open) != DLORA_OK) return problem_set_library(why, checkpoint);
  if (!open.is_open) return true;
  size_t tasks = dlora_learner_num_tasks(work->learner);
  fprintf(stderr, "%s is the snapshot of a run in the middle of task %zu, which is left out; %zu %s finished\n",
          checkpoint, tasks, tasks, tasks == 1 ? "task is" : "tasks are");
  return dlora_learner_discard_task(work->learner) == DLORA_OK || problem_set_library(why, checkpoint);
}

bool context_open(context *work, const backbone_settings *backbone, const char *checkpoint,
                  const learner_settings *settings, problem *why) {
  dlora_learner_options options;
  (void)dlora_learner_options_init(&options, sizeof options); /* fails for impossible sizes only */
  work->model = NULL;
  work->learner = NULL;
  work->mismatch = false;
  if (!load_backbone(work, backbone, checkpoint, settings->values.threads, why) ||
      !learner_settings_check(settings, work->model, why))
    return false;
  if (checkpoint != NULL) {
    if (dlora_learner_load(&work->learner, work->model, checkpoint, NULL) != DLORA_OK)
      return settings_problem(why, checkpoint);
    if (!drop_open_task(work, checkpoint, why)) return false;
    if (dlora_learner_get_options(work->learner, &options) != DLORA_OK) return settings_problem(why, checkpoint);
  }
  if (!learner_settings_apply(settings, &options, why)) return false;
  dlora_status status = checkpoint != NULL ? dlora_learner_configure(work->learner, &options)
                                           : dlora_learner_create(&work->learner, work->model, &options);
  if (status == DLORA_OK) status = dlora_learner_set_progress(work->learner, progress_show, &work->view);
  if (status == DLORA_OK) status = dlora_learner_set_log(work->learner, progress_log, &work->view);
  return status == DLORA_OK || settings_problem(why, checkpoint != NULL ? checkpoint : "options");
}

void context_close(context *work) {
  progress_clear(&work->view);
  dlora_learner_destroy(work->learner);
  dlora_model_destroy(work->model);
}

bool image_feed_open(image_feed *feed, dataset *data, const int64_t *ids, const bool *wanted, problem *why) {
  memset(feed, 0, sizeof *feed);
  feed->data = data;
  feed->indexes = malloc(data->count * sizeof *feed->indexes);
  feed->labels = malloc(data->count * sizeof *feed->labels);
  if (feed->indexes == NULL || feed->labels == NULL) {
    image_feed_close(feed);
    return problem_set(why, "no memory for %zu labels", data->count);
  }
  for (size_t i = 0; i < data->count; i++) {
    if (!wanted[data->labels[i]]) continue;
    feed->indexes[feed->count] = i;
    feed->labels[feed->count++] = ids[data->labels[i]];
  }
  return true;
}

void image_feed_close(image_feed *feed) {
  free(feed->indexes);
  free(feed->labels);
  memset(feed, 0, sizeof *feed);
}

/* A dlora_read_image_fn. */
static int32_t read_image(size_t index, dlora_images *image, void *user) {
  image_feed *feed = user;
  if (interrupt_requested()) {
    problem_set(&feed->why, "interrupted");
    return 1;
  }
  return dataset_read(feed->data, feed->indexes[index], image, &feed->why) ? 0 : 1;
}

static dlora_image_source source_of(image_feed *feed) {
  dlora_image_source source = DLORA_IMAGE_SOURCE_INIT;
  source.read = read_image;
  source.user = feed;
  source.count = feed->count;
  source.labels = feed->labels;
  feed->why.text[0] = '\0';
  return source;
}

/* The reader's own sentence names the file; the library's only the index. */
static bool feed_failed(const image_feed *feed, const char *doing, problem *why) {
  if (feed->why.text[0] == '\0') return settings_problem(why, doing);
  *why = feed->why;
  return false;
}

bool context_learn(context *work, image_feed *feed, dlora_task_report *report, problem *why) {
  dlora_image_source source = source_of(feed);
  dlora_status status = dlora_learner_learn_source(work->learner, &source, report);
  work->mismatch = status == DLORA_ERR_MISMATCH;
  progress_clear(&work->view);
  return status == DLORA_OK || feed_failed(feed, "learning", why);
}

bool context_evaluate(context *work, image_feed *feed, int64_t true_task, dlora_evaluation *evaluation, problem *why) {
  dlora_image_source source = source_of(feed);
  int64_t *tasks = NULL;
  if (true_task >= 0) {
    tasks = malloc(feed->count * sizeof *tasks);
    if (tasks == NULL) return problem_set(why, "no memory for %zu labels", feed->count);
    for (size_t i = 0; i < feed->count; i++) tasks[i] = true_task;
    source.tasks = tasks;
  }
  dlora_status status = dlora_learner_evaluate(work->learner, &source, evaluation);
  progress_clear(&work->view);
  free(tasks);
  return status == DLORA_OK || feed_failed(feed, "evaluating", why);
}

bool context_test_feed(image_feed *feed, dataset *data, const class_table *classes, size_t *num_unknown, problem *why) {
  int64_t *ids = calloc(data->num_classes, sizeof *ids);
  bool *known = calloc(data->num_classes, sizeof *known);
  bool done = ids != NULL && known != NULL;
  if (!done) problem_set(why, "no memory for %zu classes", data->num_classes);
  *num_unknown = 0;
  for (size_t i = 0; done && i < data->num_classes; i++) {
    known[i] = class_table_find(classes, data->class_names[i], &ids[i]);
    *num_unknown += !known[i];
  }
  if (done) done = image_feed_open(feed, data, ids, known, why);
  free(ids);
  free(known);
  return done;
}
