/* The sequences of tasks: which image is learnt when, and which are measured.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_SEQUENCES_H
#define DUALLORA_BENCH_SEQUENCES_H

#include "../../examples/cli/dataset.h"
#include "pictures.h"

typedef enum sequence_kind {
  SEQUENCE_CLASS_INCREMENTAL,  /* the classes split into tasks */
  SEQUENCE_DOMAIN_SHIFT,       /* tasks of two data sets in turn */
  SEQUENCE_DOMAIN_INCREMENTAL, /* the same classes in every task, looking different */
  SEQUENCE_SMALL,              /* class-incremental with 5 images a class */
  SEQUENCE_UNBALANCED,         /* class-incremental with 5 to many images a class */
  NUM_SEQUENCES
} sequence_kind;

enum { ORDER_NUMPY1993 = 0, ORDER_SEEDED = 1, ORDER_FILE = 2 };

typedef struct sequence_request {
  sequence_kind kind;
  const char *data;
  const char *test; /* NULL: the test part of data */
  const char *data2;
  const char *test2;
  size_t num_tasks;             /* 0: the sequence's own default */
  size_t stop;                  /* learn the first so many; 0: all */
  size_t num_classes;           /* of each data set the first so many in class order; 0: the sequence's own default */
  size_t images_per_class;      /* 0: the sequence's own default */
  size_t test_images_per_class; /* 0: all */
  int32_t class_order;          /* ORDER_... */
  bool skip_corrupt;
} sequence_request;

typedef struct item {
  size_t set;   /* index into sequence.sets */
  size_t index; /* of the image in it */
  picture_kind picture;
  size_t class_id;
  size_t task; /* in which it is learnt, or to which it belongs when measured */
} item;

typedef struct item_list {
  item *items; /* [count] in order of task */
  size_t count;
  size_t capacity;
} item_list;

enum { SET_TRAIN = 0, SET_TEST = 1, NUM_SETS = 4 }; /* of each data set */

typedef struct sequence {
  sequence_request request;
  dataset sets[NUM_SETS];     /* train, test, train of data2, test of data2 */
  size_t *class_of[NUM_SETS]; /* [sets[s].num_classes] class id of a set's label; SIZE_MAX: of no class to learn */
  size_t num_classes;         /* class ids are 0 ... num_classes - 1: those of data, then those of data2 */
  size_t *first_task;         /* [num_classes] that has the class; SIZE_MAX: none */
  size_t *quota;              /* [num_classes] images to learn from */
  size_t *order;              /* [num_ordered] classes as they are learnt */
  size_t num_ordered;
  size_t planned_tasks;
  size_t num_tasks;       /* learnt: all planned ones, or as many as `stop` says */
  size_t num_short;       /* classes with fewer images than were asked for */
  size_t num_passed_over; /* test classes that are not in the training data */
  item_list train;        /* of the tasks learnt */
  item_list test;         /* of all planned tasks */
} sequence;

const char *sequence_name(sequence_kind kind);
/** Opens the data and checks all that can be checked before training. Then comes sequence_arrange. */
bool sequence_open(sequence *to, const sequence_request *request, problem *why);
/** Deals the classes out to tasks for one seed, which matters to ORDER_SEEDED alone. */
bool sequence_arrange(sequence *to, uint64_t seed, problem *why);
void sequence_close(sequence *of);
const char *sequence_class_name(const sequence *of, size_t class_id);
/** Unreadable files left out. */
size_t sequence_num_skipped(const sequence *of);

/** Some items as the library reads them. */
typedef struct feed {
  sequence *from;
  const item **items; /* [count] */
  int64_t *labels;    /* [count] */
  int64_t *tasks;     /* [count] */
  size_t count;
  picture_buffer buffer;
  problem why; /* of a failed read */
} feed;

/** Items of tasks first ... end - 1. merged: all count as task 0. */
bool feed_open(feed *to, sequence *from, const item_list *list, size_t first, size_t end, bool merged, problem *why);
/** At most `limit` test items, evenly spread, whose class is learnt (or is not learnt) in tasks 0 ... num_learnt - 1;
 *  of domains not learnt yet none. */
bool feed_open_sample(feed *to, sequence *from, size_t num_learnt, bool learnt, size_t limit, problem *why);
void feed_close(feed *of);
/** For a source whose user pointer is the feed. */
int32_t feed_read(size_t index, dlora_images *image, void *user);

#endif
