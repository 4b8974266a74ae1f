/* The bench's command line.
 * SPDX-License-Identifier: Apache-2.0 */
#include "arguments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "class_order.h"

static const char usage[] = "accuracy --backbone FILE --data DATA --out DIR [OPTION]...";
static const char about[] =
    "Measures methods of continual learning side by side: every method learns every sequence of tasks with every "
    "seed.\n"
    "Each finished one is DIR/<sequence>-<method>-seed<k>.json, and is not run again unless its settings have "
    "changed;\n"
    "then DIR/summary.json, DIR/table.md and DIR/accuracy.svg are written. DATA is what the command duallora reads: a\n"
    "folder of class folders, CIFAR binary files or idx files; a folder may also hold folders train and test.\n";

/* Texts that become lists once everything is parsed. */
typedef struct lists {
  const char *sequences;
  const char *methods;
  const char *seeds;
  const char *floors;
  size_t print_order;
} lists;

static const char *name_of_sequence(size_t index) {
  return sequence_name((sequence_kind)index);
}

static const char *name_of_method(size_t index) {
  return method_get((method_kind)index)->name;
}

/* Index of the name text[0 ... length), or count. */
static size_t find_name(const char *(*name)(size_t), size_t count, const char *text, size_t length) {
  size_t i = 0;
  while (i < count && (strlen(name(i)) != length || strncmp(name(i), text, length) != 0)) i++;
  return i;
}

static bool no_such_name(const char *flag, const char *(*name)(size_t), size_t count, const char *text, size_t length,
                         problem *why) {
  char known[512] = "";
  size_t used = 0;
  for (size_t i = 0; i < count && used < sizeof known; i++)
    used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", name(i));
  return problem_set(why, "--%s: '%.*s' is none of %s", flag, (int)length, text, known);
}

/* "first,second" or "all" into chosen [count] */
static bool parse_names(const char *flag, const char *text, const char *(*name)(size_t), size_t count, bool *chosen,
                        problem *why) {
  bool all = strcmp(text, "all") == 0;
  for (size_t i = 0; i < count; i++) chosen[i] = all;
  while (!all) {
    size_t length = strcspn(text, ",");
    size_t i = find_name(name, count, text, length);
    if (i == count) return no_such_name(flag, name, count, text, length, why);
    chosen[i] = true;
    if (text[length] == '\0') break;
    text += length + 1;
  }
  return true;
}

/* "first=60,second=50.5" */
static bool parse_floors(const char *text, double *floors, problem *why) {
  for (;;) {
    char *stop = NULL;
    size_t length = strcspn(text, "=,");
    size_t i = find_name(name_of_method, NUM_METHODS, text, length);
    if (i == NUM_METHODS) return no_such_name("at-least", name_of_method, NUM_METHODS, text, length, why);
    const char *number = text[length] == '=' ? text + length + 1 : "";
    floors[i] = strtod(number, &stop);
    if (stop == number || (*stop != ',' && *stop != '\0') || !(floors[i] >= 0.0 && floors[i] <= 100.0))
      return problem_set(why, "--at-least: '%s' needs a percentage, as %.*s=50", text, (int)length, text);
    if (*stop == '\0') return true;
    text = stop + 1;
  }
}

static bool parse_seeds(const char *text, arguments *to, problem *why) {
  for (;;) {
    char *stop = NULL;
    errno = 0;
    unsigned long long seed = strtoull(text, &stop, 10);
    if (text[0] < '0' || text[0] > '9' || (*stop != ',' && *stop != '\0') || errno != 0 || seed > UINT32_MAX)
      return problem_set(why, "--seeds needs numbers from 0 to %lu separated by commas, and not '%s'",
                         (unsigned long)UINT32_MAX, text);
    for (size_t i = 0; i < to->num_seeds; i++)
      if (to->seeds[i] == seed) return problem_set(why, "--seeds: %llu comes twice", seed);
    if (to->num_seeds == MAX_SEEDS) return problem_set(why, "--seeds: %d at most", MAX_SEEDS);
    to->seeds[to->num_seeds++] = seed;
    if (*stop == '\0') return true;
    text = stop + 1;
  }
}

static bool parse_lists(const lists *from, arguments *to, problem *why) {
  for (size_t i = 0; i < NUM_METHODS; i++) to->floors[i] = -1.0;
  to->has_floors = from->floors != NULL;
  if (!parse_names("sequences", from->sequences, name_of_sequence, NUM_SEQUENCES, to->sequences, why) ||
      !parse_names("methods", from->methods, name_of_method, NUM_METHODS, to->methods, why) ||
      !parse_seeds(from->seeds, to, why) || (to->has_floors && !parse_floors(from->floors, to->floors, why)))
    return false;
  for (size_t i = 0; i < NUM_METHODS; i++)
    if (to->floors[i] >= 0.0 && !to->methods[i])
      return problem_set(why, "--at-least names %s, which is not among --methods", name_of_method(i));
  to->skipped_shift = strcmp(from->sequences, "all") == 0 && to->data.data2 == NULL;
  if (to->skipped_shift) to->sequences[SEQUENCE_DOMAIN_SHIFT] = false;
  return true;
}

static void print_order(size_t count) {
  size_t *order = malloc(count * sizeof *order);
  if (order == NULL) return;
  class_order_numpy(order, count, 1993);
  for (size_t i = 0; i < count; i++) printf("%s%zu", i > 0 ? " " : "", order[i]);
  putchar('\n');
  free(order);
}

static void print_help(const option *table, size_t count) {
  printf("Usage: %s\n\n%s", usage, about);
  options_print_help(table, count, stdout);
  printf(
      "\nSequences: class-incremental, domain-shift (tasks of data and data2 in turn), domain-incremental (the same\n"
      "classes as plain, gray, inverted, blurred, rotated images), small (5 images a class), unbalanced (5 images of\n"
      "one class to images-per-class of another, by default 250)\n\nMethods:\n");
  for (size_t i = 0; i < NUM_METHODS; i++)
    printf("  %-26s%s\n", name_of_method(i), method_get((method_kind)i)->description);
  printf("\nExit codes: 0 done, 1 failed or below --at-least, 2 wrong usage, 130 interrupted.\n");
}

static size_t fill_table(option *table, arguments *to, lists *text) {
  sequence_request *data = &to->data;
  size_t count = 0;
  const option entries[] = {
      {OPTION_HEADING, NULL, NULL, "Data and files:", 0, 0, NULL, false, NULL, NULL},
      {OPTION_TEXT, "data", "DATA", "images to learn, and to measure on unless --test names others", 0, 0, NULL, false,
       &data->data, NULL},
      {OPTION_TEXT, "test", "DATA", "images to measure on", 0, 0, NULL, false, &data->test, NULL},
      {OPTION_TEXT, "data2", "DATA", "the second data set of domain-shift", 0, 0, NULL, false, &data->data2, NULL},
      {OPTION_TEXT, "test2", "DATA", "its test images", 0, 0, NULL, false, &data->test2, NULL},
      {OPTION_TEXT, "out", "DIR", "folder for results; made if it is not there", 0, 0, NULL, false, &to->out, NULL},
      {OPTION_FLAG, "again", NULL, "run again what is already there", 0, 0, NULL, false, &to->again, NULL},
      {OPTION_FLAG, "skip-corrupt", NULL, "leave unreadable image files out and count them, instead of failing", 0, 0,
       NULL, false, &data->skip_corrupt, NULL},
      {OPTION_TEXT, "at-least", "LIST", "as dual=60,orthogonal=55: fail if a mean last accuracy is below", 0, 0, NULL,
       false, &text->floors, NULL},
      {OPTION_FLAG, "quiet", NULL, "no progress", 0, 0, NULL, false, &to->quiet, NULL},
      {OPTION_FLAG, "verbose", NULL, "what the library notes", 0, 0, NULL, false, &to->verbose, NULL},
      {OPTION_HEADING, NULL, NULL, "What is run:", 0, 0, NULL, false, NULL, NULL},
      {OPTION_TEXT, "sequences", "LIST",
       "by default class-incremental; all: all for which there is data (domain-shift needs --data2)", 0, 0, NULL, false,
       &text->sequences, NULL},
      {OPTION_TEXT, "methods", "LIST", "default: all", 0, 0, NULL, false, &text->methods, NULL},
      {OPTION_TEXT, "seeds", "LIST", "default: 0", 0, 0, NULL, false, &text->seeds, NULL},
      {OPTION_SIZE, "tasks", "N", "default 10; domain-shift 6; domain-incremental always 5", 1, 1e6, NULL, false,
       &data->num_tasks, NULL},
      {OPTION_SIZE, "stop", "N", "learn the first N tasks only; the classes of the others are unknown ones", 1, 1e6,
       NULL, false, &data->stop, NULL},
      {OPTION_SIZE, "classes", "N",
       "the first N classes of each data set in class order; default all, "
       "domain-incremental 10",
       2, 1e6, NULL, false, &data->num_classes, NULL},
      {OPTION_SIZE, "images-per-class", "K", "learn from the first K images of each class only", 1, 1e9, NULL, false,
       &data->images_per_class, NULL},
      {OPTION_SIZE, "test-images-per-class", "K", "measure on the first K images of each class only", 1, 1e9, NULL,
       false, &data->test_images_per_class, NULL},
      {OPTION_CHOICE, "class-order", "O",
       "numpy1993: numpy.random.RandomState(1993).permutation (default); seeded: the same with each run's seed; file: "
       "as the data set numbers them",
       0, 0, "numpy1993|seeded|file", false, &data->class_order, NULL},
      {OPTION_CHOICE, "evaluate", "WHEN", "after all tasks (default) or the last one only", 0, 0, "all|last", false,
       &to->evaluate, NULL},
      {OPTION_SIZE, "unknown-images", "N",
       "test images of learnt classes, and as many of others, on which unknown scores are compared after each task "
       "(default 500; 0: not measured)",
       0, 1e9, NULL, false, &to->unknown_images, NULL},
      {OPTION_SIZE, "print-order", "N", "print the class order numpy1993 of N classes and end", 1, 1e6, NULL, false,
       &text->print_order, NULL},
      {OPTION_FLAG, "paper-blocks", NULL, "method paper adapts all blocks, as the paper does", 0, 0, NULL, false,
       &to->paper_blocks, NULL},
      {OPTION_HEADING, NULL, NULL, "Of all methods, but where a method is what it is by an option:", 0, 0, NULL, false,
       NULL, NULL},
  };
  _Static_assert(sizeof entries / sizeof entries[0] <= SETTINGS_MAX - 8, "the table is too short");
  count += backbone_settings_options(&to->backbone, table);
  /* Not required of --print-order. */
  for (size_t i = 0; i < count; i++) table[i].required = false;
  memcpy(table + count, entries, sizeof entries);
  count += sizeof entries / sizeof entries[0];
  return count + library_options(&to->options, true, NULL, table + count);
}

static bool check_required(const arguments *from, problem *why) {
  if (from->backbone.path == NULL) return problem_set(why, "--backbone FILE is required");
  if (from->data.data == NULL) return problem_set(why, "--data DATA is required");
  if (from->out == NULL) return problem_set(why, "--out DIR is required");
  return true;
}

bool arguments_parse(arguments *to, int argc, char **argv, int *code) {
  option table[2 * SETTINGS_MAX];
  lists text = {sequence_name(SEQUENCE_CLASS_INCREMENTAL), "all", "0", NULL, 0};
  problem why = {""};
  memset(to, 0, sizeof *to);
  (void)dlora_learner_options_init(&to->options, sizeof to->options);
  to->unknown_images = 500;
  backbone_settings_init(&to->backbone);
  size_t count = fill_table(table, to, &text);
  options_outcome outcome = options_parse(table, count, argc, argv, 1, NULL, NULL, &why);
  *code = EXIT_DONE;
  if (outcome == OPTIONS_HELP) {
    print_help(table, count);
    return false;
  }
  if (outcome == OPTIONS_OK && text.print_order > 0) {
    print_order(text.print_order);
    return false;
  }
  if (outcome == OPTIONS_OK && check_required(to, &why) && parse_lists(&text, to, &why)) return true;
  fprintf(stderr, "accuracy: %s\nTry 'accuracy --help'.\n", why.text);
  *code = EXIT_USAGE;
  return false;
}
