/* The unfinished run of a command, kept in a file beside the checkpoint that it is going to write.
 * SPDX-License-Identifier: Apache-2.0 */
#include "snapshot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run_description.h"

static const char suffix[] = ".snapshot";

char *snapshot_path(const char *out) {
  size_t length = strlen(out);
  char *path = malloc(length + sizeof suffix);
  if (path == NULL) return NULL;
  memcpy(path, out, length);
  memcpy(path + length, suffix, sizeof suffix);
  return path;
}

bool snapshot_exists(const char *path) {
  return dataset_file_exists(path);
}

/* A dlora_inspect visitor; user: char *, a copy of the description. */
static int32_t find_run(const dlora_tensor_info *info, void *user) {
  char **run = user;
  if (info->value == NULL || strcmp(info->name, "note." RUN_NOTE) != 0) return 0;
  *run = strdup(info->value);
  return *run == NULL ? 1 : 0;
}

/* Whether the snapshot is one of this run. It is read before anything is loaded, so that what differs is named in the
 * command's own words. */
static bool check_run(const char *path, const char *run, problem *why) {
  problem reason = {""};
  char *found = NULL;
  bool done = false;
  if (dlora_inspect(path, find_run, &found) != DLORA_OK)
    problem_set(why, "cannot go on from the snapshot: %s (--restart begins anew)", dlora_last_error());
  else if (found == NULL)
    problem_set(why, "%s does not say of which run it is, so that it may be of another one; --restart begins anew",
                path);
  else if (!run_check_same(run, found, &reason))
    problem_set(why, "the snapshot %s is of another run: %s; --restart begins anew", path, reason.text);
  else
    done = true;
  free(found);
  return done;
}

bool snapshot_load(context *work, const char *path, const char *run, size_t num_tasks, size_t *done, problem *why) {
  dlora_learner_options options = {.struct_size = sizeof options};
  dlora_open_task open = DLORA_OPEN_TASK_INIT;
  dlora_learner *loaded = NULL;
  if (!check_run(path, run, why)) return false;
  dlora_status status = dlora_learner_get_options(work->learner, &options);
  if (status == DLORA_OK) status = dlora_learner_load(&loaded, work->model, path, &options);
  if (status == DLORA_OK) status = dlora_learner_set_progress(loaded, progress_show, &work->view);
  if (status == DLORA_OK) status = dlora_learner_set_log(loaded, progress_log, &work->view);
  if (status == DLORA_OK) status = dlora_learner_get_open_task(loaded, &open);
  if (status != DLORA_OK) {
    problem_set(why, "cannot go on from the snapshot: %s (--restart begins anew)", dlora_last_error());
    settings_name_switches(why);
  } else {
    size_t before = dlora_learner_num_tasks(work->learner);
    size_t now = dlora_learner_num_tasks(loaded);
    *done = now - before;
    if (now < before || *done > num_tasks || (*done == num_tasks && open.is_open)) {
      status = DLORA_ERR_MISMATCH;
      problem_set(why, "the snapshot %s is of another run: it has %zu tasks (--restart begins anew)", path, now);
    }
  }
  if (status != DLORA_OK) {
    dlora_learner_destroy(loaded);
    return false;
  }
  dlora_learner_destroy(work->learner);
  work->learner = loaded;
  if (open.is_open)
    progress_say(&work->view, "going on from %s: task %zu, step %zu of %zu", path, dlora_learner_num_tasks(loaded),
                 open.num_steps, open.planned_steps);
  else
    progress_say(&work->view, "going on from %s: %zu of %zu tasks are done", path, *done, num_tasks);
  return true;
}

bool snapshot_save(context *work, const char *path, problem *why) {
  return dlora_learner_save(work->learner, path) == DLORA_OK || problem_set_library(why, "snapshot");
}

bool snapshot_lacks_evaluation(const dlora_learner *learner, bool *lacks, problem *why) {
  size_t tasks = dlora_learner_num_tasks(learner);
  *lacks = tasks > 0;
  if (tasks == 0) return true;
  double *matrix = malloc(tasks * tasks * sizeof *matrix);
  if (matrix == NULL) return problem_set(why, "no memory for the accuracies of %zu tasks", tasks);
  bool done = dlora_learner_get_accuracy_matrix(learner, matrix) == DLORA_OK || problem_set_library(why, "accuracies");
  for (size_t i = 0; done && i < tasks; i++)
    if (!isnan(matrix[(tasks - 1) * tasks + i])) *lacks = false;
  free(matrix);
  return done;
}
