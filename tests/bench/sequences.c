/* Data sets opened, checked and dealt out to tasks.
 * SPDX-License-Identifier: Apache-2.0 */
#include "sequences.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "class_order.h"

#define FEWEST_IMAGES 5
#define MOST_IMAGES 250

const char *sequence_name(sequence_kind kind) {
  static const char *const names[NUM_SEQUENCES] = {"class-incremental", "domain-shift", "domain-incremental", "small",
                                                   "unbalanced"};
  return names[kind];
}

/* ---- opening ---- */

static bool is_folder(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* The training or test folder inside a folder that has both; NULL if it has not. To be freed. */
static char *part_folder(const char *path, dataset_part part) {
  char *train = dataset_join(path, "train");
  char *test = dataset_join(path, "test");
  bool both = train != NULL && test != NULL && is_folder(train) && is_folder(test);
  char *wanted = part == DATASET_TRAIN ? train : test;
  free(part == DATASET_TRAIN ? test : train);
  if (both) return wanted;
  free(wanted);
  return NULL;
}

static bool open_set(dataset *set, const char *path, dataset_part part, size_t per_class, bool skip, problem *why) {
  char *inside = part_folder(path, part);
  dataset_request request = {inside != NULL ? inside : path, part, per_class, skip, false};
  bool done = dataset_open(set, &request, why);
  free(inside);
  return done;
}

/* Only a folder under the names of CIFAR or idx files, or with folders train and test, holds other images for tests. */
static bool check_test_path(const char *option, const char *path, const char *test, problem *why) {
  char *inside = part_folder(path, DATASET_TEST);
  bool both = inside != NULL || (is_folder(path) && (cifar_recognises(path, true) || idx_recognises(path, true)));
  free(inside);
  if (both) return true;
  char *left = realpath(path, NULL);
  char *right = realpath(test, NULL);
  bool same = left != NULL && right != NULL && strcmp(left, right) == 0;
  free(left);
  free(right);
  if (!same) return true;
  return problem_set(why,
                     "%s holds one set of images: %s must name others, or they would be measured on what they learn",
                     path, option);
}

/* Class ids of the test set's labels, by name. */
static bool match_classes(sequence *to, size_t train, size_t offset, problem *why) {
  const dataset *learn = &to->sets[train];
  const dataset *test = &to->sets[train + 1];
  size_t *of_train = malloc(learn->num_classes * sizeof *of_train);
  size_t *of_test = malloc(test->num_classes * sizeof *of_test);
  to->class_of[train] = of_train;
  to->class_of[train + 1] = of_test;
  if (of_train == NULL || of_test == NULL) return problem_set(why, "no memory for class ids");
  for (size_t i = 0; i < test->num_classes; i++) of_test[i] = SIZE_MAX;
  for (size_t i = 0; i < learn->num_classes; i++) {
    size_t k = 0;
    while (k < test->num_classes && strcmp(learn->class_names[i], test->class_names[k]) != 0) k++;
    if (k == test->num_classes)
      return problem_set(why, "the test images have none of the class '%s', which is to be learnt",
                         learn->class_names[i]);
    of_train[i] = of_test[k] = offset + i;
  }
  for (size_t i = 0; i < test->num_classes; i++) to->num_passed_over += of_test[i] == SIZE_MAX;
  return true;
}

/* Opens one data set, its training and test images. */
static bool open_pair(sequence *to, size_t train, const char *path, const char *test, size_t per_class, problem *why) {
  const sequence_request *request = &to->request;
  if (test == NULL) test = path;
  if (!check_test_path(train == 0 ? "--test" : "--test2", path, test, why)) return false;
  if (!open_set(&to->sets[train], path, DATASET_TRAIN, per_class, request->skip_corrupt, why)) return false;
  if (to->sets[train].num_classes < 2)
    return problem_set(why, "%s has one class only ('%s'); at least two are needed to tell apart", path,
                       to->sets[train].class_names[0]);
  if (!open_set(&to->sets[train + 1], test, DATASET_TEST, request->test_images_per_class, request->skip_corrupt, why))
    return false;
  if (!match_classes(to, train, to->num_classes, why)) return false;
  to->num_classes += to->sets[train].num_classes;
  return true;
}

/* Classes of a data set that take part. */
static size_t num_used(const sequence *of, size_t train) {
  size_t all = of->sets[train].num_classes;
  size_t wanted = of->request.num_classes;
  if (wanted == 0 && of->request.kind == SEQUENCE_DOMAIN_INCREMENTAL) wanted = 10;
  return wanted == 0 || wanted > all ? all : wanted;
}

/* Tasks that a data set is split into. */
static size_t num_parts(const sequence *of, size_t train) {
  if (of->request.kind == SEQUENCE_DOMAIN_INCREMENTAL) return 1;
  if (of->request.kind != SEQUENCE_DOMAIN_SHIFT) return of->planned_tasks;
  return train == 0 ? (of->planned_tasks + 1) / 2 : of->planned_tasks / 2;
}

static bool plan_tasks(sequence *to, problem *why) {
  const sequence_request *request = &to->request;
  bool shift = request->kind == SEQUENCE_DOMAIN_SHIFT;
  size_t num_tasks = request->num_tasks != 0 ? request->num_tasks : shift ? 6 : 10;
  if (request->kind == SEQUENCE_DOMAIN_INCREMENTAL) num_tasks = NUM_PICTURE_KINDS;
  to->planned_tasks = num_tasks;
  to->num_tasks = request->stop != 0 ? request->stop : num_tasks;
  if (to->num_tasks > num_tasks)
    return problem_set(why, "--stop %zu: %s has %zu tasks", request->stop, sequence_name(request->kind), num_tasks);
  if (shift && num_tasks < 2) return problem_set(why, "--tasks %zu: domain-shift needs two at least", num_tasks);
  for (size_t s = 0; s < (shift ? 4u : 2u); s += 2)
    if (num_parts(to, s) > num_used(to, s))
      return problem_set(why, "--tasks %zu: %zu of them need a class each of %s, and it has %zu to give", num_tasks,
                         num_parts(to, s), s == 0 ? request->data : request->data2, num_used(to, s));
  return true;
}

bool sequence_open(sequence *to, const sequence_request *request, problem *why) {
  size_t per_class = request->images_per_class;
  memset(to, 0, sizeof *to);
  to->request = *request;
  if (request->kind == SEQUENCE_SMALL) per_class = FEWEST_IMAGES;
  if (request->kind == SEQUENCE_UNBALANCED && per_class == 0) per_class = MOST_IMAGES;
  bool done = true;
  if (request->kind == SEQUENCE_UNBALANCED && per_class < FEWEST_IMAGES)
    done = problem_set(why, "--images-per-class %zu: unbalanced begins at %d", per_class, FEWEST_IMAGES);
  if (request->kind == SEQUENCE_DOMAIN_SHIFT && request->data2 == NULL)
    done = problem_set(why, "domain-shift needs a second data set: --data2");
  to->request.images_per_class = per_class;
  if (done) done = open_pair(to, 0, request->data, request->test, per_class, why);
  if (done && request->kind == SEQUENCE_DOMAIN_SHIFT)
    done = open_pair(to, 2, request->data2, request->test2, per_class, why);
  if (done) done = plan_tasks(to, why);
  if (done) {
    to->first_task = malloc(to->num_classes * sizeof *to->first_task);
    to->quota = malloc(to->num_classes * sizeof *to->quota);
    to->order = malloc(to->num_classes * sizeof *to->order);
    if (to->first_task == NULL || to->quota == NULL || to->order == NULL)
      done = problem_set(why, "no memory for %zu classes", to->num_classes);
  }
  if (!done) sequence_close(to);
  return done;
}

void sequence_close(sequence *of) {
  for (size_t s = 0; s < NUM_SETS; s++) {
    dataset_close(&of->sets[s]);
    free(of->class_of[s]);
  }
  free(of->first_task);
  free(of->quota);
  free(of->order);
  free(of->train.items);
  free(of->test.items);
  memset(of, 0, sizeof *of);
}

const char *sequence_class_name(const sequence *of, size_t class_id) {
  size_t first = of->sets[0].num_classes;
  return class_id < first ? of->sets[0].class_names[class_id] : of->sets[2].class_names[class_id - first];
}

size_t sequence_num_skipped(const sequence *of) {
  size_t sum = 0;
  for (size_t s = 0; s < NUM_SETS; s++) sum += of->sets[s].num_skipped;
  return sum;
}

/* ---- dealing out ---- */

/* Classes of one data set, in order, to its tasks. */
static void deal_classes(sequence *to, size_t train, uint64_t seed, size_t *order) {
  size_t count = to->sets[train].num_classes;
  size_t used = num_used(to, train);
  size_t parts = num_parts(to, train);
  size_t offset = train == 0 ? 0 : to->sets[0].num_classes;
  bool shift = to->request.kind == SEQUENCE_DOMAIN_SHIFT;
  if (to->request.class_order == ORDER_FILE)
    for (size_t i = 0; i < count; i++) order[i] = i;
  else
    class_order_numpy(order, count, to->request.class_order == ORDER_NUMPY1993 ? 1993 : (uint32_t)seed);
  for (size_t part = 0; part < parts; part++)
    for (size_t i = part * used / parts; i < (part + 1) * used / parts; i++) {
      to->order[to->num_ordered++] = offset + order[i];
      to->first_task[offset + order[i]] = shift ? 2 * part + train / 2 : part;
    }
}

/* Geometric from the fewest to the most images. Which class gets how many is drawn apart from the order of the classes,
 * so that every task has large and small ones. */
static bool set_quotas(sequence *to, uint64_t seed, problem *why) {
  size_t *rank = malloc(to->num_ordered * sizeof *rank);
  if (rank == NULL) return problem_set(why, "no memory for %zu classes", to->num_ordered);
  double most = (double)to->request.images_per_class;
  double number = (double)FEWEST_IMAGES;
  double factor = to->num_ordered > 1 ? pow(most / number, 1.0 / (double)(to->num_ordered - 1)) : 1.0;
  class_order_numpy(rank, to->num_ordered, (uint32_t)seed + 1u);
  for (size_t i = 0; i < to->num_ordered; i++) {
    to->quota[to->order[rank[i]]] = (size_t)(number + 0.5);
    number *= factor;
  }
  free(rank);
  return true;
}

static bool append(item_list *list, item one, problem *why) {
  if (list->count == list->capacity) {
    size_t capacity = list->capacity == 0 ? 1024 : 2 * list->capacity;
    item *items = realloc(list->items, capacity * sizeof *items);
    if (items == NULL) return problem_set(why, "no memory for %zu images", capacity);
    list->items = items;
    list->capacity = capacity;
  }
  list->items[list->count++] = one;
  return true;
}

/* The images of a set that belong to a task; no class gives more than its quota, where there are quotas. */
static bool add_images(sequence *to, item_list *list, size_t set, size_t task, const size_t *quota, size_t *taken,
                       problem *why) {
  const dataset *data = &to->sets[set];
  bool domains = to->request.kind == SEQUENCE_DOMAIN_INCREMENTAL;
  memset(taken, 0, to->num_classes * sizeof *taken);
  for (size_t i = 0; i < data->count; i++) {
    size_t class_id = to->class_of[set][data->labels[i]];
    if (class_id == SIZE_MAX || to->first_task[class_id] == SIZE_MAX) continue;
    if (!domains && to->first_task[class_id] != task) continue;
    if (quota != NULL && taken[class_id] >= quota[class_id]) continue;
    taken[class_id]++;
    if (!append(list, (item){set, i, domains ? (picture_kind)task : PICTURE_PLAIN, class_id, task}, why)) return false;
  }
  for (size_t i = 0; quota != NULL && i < to->num_classes; i++)
    to->num_short += to->first_task[i] == task && quota[i] != SIZE_MAX && taken[i] > 0 && taken[i] < quota[i];
  return true;
}

bool sequence_arrange(sequence *to, uint64_t seed, problem *why) {
  size_t num_sets = to->request.kind == SEQUENCE_DOMAIN_SHIFT ? 4 : 2;
  size_t *spare = malloc(to->num_classes * sizeof *spare);
  if (spare == NULL) return problem_set(why, "no memory for %zu classes", to->num_classes);
  to->num_ordered = to->num_short = to->train.count = to->test.count = 0;
  for (size_t i = 0; i < to->num_classes; i++) {
    to->first_task[i] = SIZE_MAX;
    to->quota[i] = to->request.images_per_class == 0 ? SIZE_MAX : to->request.images_per_class;
  }
  for (size_t s = 0; s < num_sets; s += 2) deal_classes(to, s, seed, spare);
  bool done = to->request.kind != SEQUENCE_UNBALANCED || set_quotas(to, seed, why);
  for (size_t task = 0; done && task < to->planned_tasks; task++)
    for (size_t s = 0; done && s < num_sets; s += 2) {
      /* A class has images in its own data set only, so that each set adds to the tasks that are its own. */
      if (task < to->num_tasks) done = add_images(to, &to->train, s, task, to->quota, spare, why);
      if (done) done = add_images(to, &to->test, s + 1, task, NULL, spare, why);
    }
  free(spare);
  return done;
}
