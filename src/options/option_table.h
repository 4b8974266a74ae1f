/* Every option of a learner, once: what docs/METHOD.md 10, the command's switches, checkpoints and bindings know of it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_OPTIONS_OPTION_TABLE_H
#define DLI_SRC_OPTIONS_OPTION_TABLE_H

#include <stdbool.h>

#include "duallora/duallora.h"

enum dli_option_flags {
  DLI_OPTION_ABOVE_LEAST = 1,     /* the least value itself is refused */
  DLI_OPTION_WITH_PROJECTION = 2, /* fixed at creation with the random projection only */
  DLI_OPTION_UNSAVED = 4,         /* not kept in a checkpoint */
  DLI_OPTION_MACHINE = 8          /* may differ where an open task goes on */
};

struct dli_option {
  const char *name;
  enum dlora_option_type type;
  enum dlora_option_scope scope;
  size_t offset; /* in dlora_learner_options */
  double default_value, paper_value;
  double least, greatest;
  /* Of a choice or set: "first|second", by index or bit. Of a number: names of -1, -2, ...; or NULL. */
  const char *choices;
  unsigned flags; /* enum dli_option_flags */
  const char *help;
};

extern const struct dli_option dli_options[];
size_t dli_num_options(void);
/* Or NULL. */
const struct dli_option *dli_option_find(const char *name);
/* The option that a mistyped name most likely means; NULL if none is near. */
const char *dli_option_nearest(const char *name);

/* Exact for all but seeds from 2^53 on. */
double dli_option_value(const struct dli_option *option, const dlora_learner_options *options);
void dli_option_set_value(const struct dli_option *option, double value, dlora_learner_options *options);
bool dli_option_equal(const struct dli_option *option, const dlora_learner_options *a, const dlora_learner_options *b);
/* Whether the value is in range, as far as that does not depend on a model. Error: ARGUMENT, naming the option. */
dlora_status dli_option_check(const struct dli_option *option, const dlora_learner_options *options);

/* Longest text of a value, with its NUL. */
#define DLI_OPTION_TEXT 64
/* As dlora_learner_options_set reads it. */
void dli_option_format(const struct dli_option *option, const dlora_learner_options *options,
                       char out[DLI_OPTION_TEXT]);
/* Sets the member from its text, if it is one of the type; the range is not looked at. Error: ARGUMENT. */
dlora_status dli_option_parse(const struct dli_option *option, const char *text, dlora_learner_options *options);

#endif
