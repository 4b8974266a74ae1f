/* Command line options from a table that also prints the help.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_OPTIONS_H
#define DUALLORA_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "problem.h"

typedef enum option_kind {
  OPTION_HEADING, /* help: a line above the options that follow */
  OPTION_FLAG,    /* bool, becomes true */
  OPTION_TEXT,    /* const char *, points into argv */
  OPTION_EMPTY,   /* the same, and may be empty */
  OPTION_SIZE,    /* size_t */
  OPTION_REAL,    /* float */
  OPTION_TRIPLE,  /* float[3], as "0.5,0.5,0.5" */
  OPTION_CHOICE,  /* int32_t, index of the word in choices */
  OPTION_LIBRARY, /* dlora_learner_options, by the library's name for the option: `choices` */
  OPTION_ON,      /* the same, becomes true; no value */
  OPTION_OFF      /* the same, becomes false; no value */
} option_kind;

typedef struct option {
  option_kind kind;
  const char *name;     /* without the dashes */
  const char *argument; /* what the help calls the value; NULL where there is none */
  const char *help;
  double minimum; /* of numbers, inclusive */
  double maximum;
  const char *choices; /* "first|second|third"; or the library's name */
  bool required;
  void *target;
  bool *given; /* set to true when the option appears; may be NULL */
} option;

typedef enum options_outcome { OPTIONS_OK, OPTIONS_HELP, OPTIONS_WRONG } options_outcome;

/** Reads argv[first] ... into the targets. Arguments that are no options go to operands [argc], in order, counted in
 *  *num_operands; operands NULL: there must be none. Understands "--name value", "--name=value", "--" and --help. */
options_outcome options_parse(const option *table, size_t count, int argc, char **argv, int first,
                              const char **operands, size_t *num_operands, problem *why);
/** One entry per option, wrapped to 100 columns. */
void options_print_help(const option *table, size_t count, FILE *out);

#endif
