/* Options of the command line that become options of the library.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_SETTINGS_H
#define DUALLORA_CLI_SETTINGS_H

#include "duallora/duallora.h"
#include "options.h"

/** More than the library has options; a test looks. */
#define SETTINGS_MAX 64

typedef struct backbone_settings {
  const char *path;
  dlora_model_options options;
} backbone_settings;

typedef struct learner_settings {
  dlora_learner_options values; /* those that were given, and defaults */
  bool given[SETTINGS_MAX];
  bool instant;
  bool preset_given;
  int32_t preset;
} learner_settings;

void backbone_settings_init(backbone_settings *settings);
/** Appends the entries for --backbone and the like to table. Returns their number. */
size_t backbone_settings_options(backbone_settings *settings, option *table);

/** Puts switches in the place of the library's options in a sentence: "the option num_heads" becomes "--num-heads". */
void settings_name_switches(problem *why);
/** problem_set_library with switches in the place of options. Returns false. */
bool settings_problem(problem *why, const char *doing);

/** An entry for each option of the library, or only for those that matter to predictions, named as there with hyphens.
 *  They set target, whose values are the defaults that the help names; a flag that is on there can be put off, as
 *  --no-NAME. given: [SETTINGS_MAX] by the library's index, or NULL. Returns their number. */
size_t library_options(dlora_learner_options *target, bool learning, bool *given, option *table);

void learner_settings_init(learner_settings *settings);
/** Appends the entries that matter to learning, or only those that matter to predictions. Returns their number. */
size_t learner_settings_options(learner_settings *settings, bool learning, option *table);
/** Changes in *options what the command line gave, and nothing else. A preset leaves untouched_baseline as it is. */
bool learner_settings_apply(const learner_settings *settings, dlora_learner_options *options, problem *why);
/** Whether the library takes what the command line gave; the sentence names the switch. model NULL: as far as it does
 * not depend on the model. */
bool learner_settings_check(const learner_settings *settings, const dlora_model *model, problem *why);
/** Switch and value of every option that decides what is learnt: all but those of run time. Returns their number. */
size_t learner_settings_texts(const dlora_learner_options *options, const char *names[SETTINGS_MAX],
                              char values[SETTINGS_MAX][64]);

#endif
