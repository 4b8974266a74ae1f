/* A backbone and a learner at work on data sets: what the commands share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_SESSION_H
#define DUALLORA_CLI_SESSION_H

#include "class_table.h"
#include "dataset.h"
#include "progress.h"
#include "settings.h"

typedef struct context {
  dlora_model *model;
  dlora_learner *learner;
  bool mismatch; /* the open task was begun with other images than those it was to go on with */
  progress_view view;
} context;

/** Before any work: whether the library takes the options. If not, prints why and sets *code. */
bool context_check_settings(const learner_settings *settings, const char *command, int *code);
/** Loads the backbone, and the checkpoint or, if that is NULL, a learner without a task. The view must have begun. A
 * task that is open in the checkpoint is discarded, and that is said. */
bool context_open(context *work, const backbone_settings *backbone, const char *checkpoint,
                  const learner_settings *settings, problem *why);
void context_close(context *work);

/** Some images of a data set, as the library reads them. */
typedef struct image_feed {
  dataset *data;
  size_t *indexes; /* [count] into data */
  int64_t *labels; /* [count] class ids */
  size_t count;
  problem why; /* of a failed read */
} image_feed;

/** The images of the classes whose ids are given: ids [data->num_classes], wanted [data->num_classes]. */
bool image_feed_open(image_feed *feed, dataset *data, const int64_t *ids, const bool *wanted, problem *why);
void image_feed_close(image_feed *feed);

bool context_learn(context *work, image_feed *feed, dlora_task_report *report, problem *why);
/** true_task: task of all images, or -1 for the last one that has the image's class. */
bool context_evaluate(context *work, image_feed *feed, int64_t true_task, dlora_evaluation *evaluation, problem *why);

/** The images of a test set whose classes are in the table. *num_unknown: classes that are not. */
bool context_test_feed(image_feed *feed, dataset *data, const class_table *classes, size_t *num_unknown, problem *why);

#endif
