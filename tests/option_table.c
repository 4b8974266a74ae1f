/* Prints the table of the learner's options as it stands in docs/METHOD.md 10, from the library itself.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "duallora/duallora.h"

/* The default, or the paper's value where it differs, as dlora_learner_options_get gives it. */
static const char *text_of(const dlora_learner_options *options, const char *name, char text[64]) {
  return dlora_learner_options_get(options, name, text, 64) == DLORA_OK ? text : "?";
}

/* "(0, 1]", "1 to 65536 or auto", "a, b, c" */
static void print_range(const dlora_option_info *info) {
  if (info->type == DLORA_OPTION_FLAG) {
    printf("true, false");
  } else if (info->type == DLORA_OPTION_CHOICE || info->type == DLORA_OPTION_SET) {
    for (const char *at = info->choices; *at; at++) printf(*at == '|' ? ", " : "%c", *at);
  } else if (info->type == DLORA_OPTION_FLOAT) {
    printf("%s%g, %.7g]", info->above_least ? "(" : "[", info->least, info->greatest);
  } else if (info->greatest >= 2147483647.0) {
    printf("from %.0f", info->least);
  } else {
    printf("%.0f to %.0f", info->least, info->greatest);
  }
  const int names = info->type == DLORA_OPTION_INTEGER || info->type == DLORA_OPTION_FLOAT;
  for (const char *at = names && info->choices ? info->choices : ""; *at; at += strcspn(at, "|")) {
    if (*at == '|') at++;
    printf(" or %.*s", (int)strcspn(at, "|"), at);
  }
}

int main(void) {
  static const char *const scopes[] = {"fixed", "training", "prediction", "run time"};
  dlora_learner_options defaults, paper;
  if (dlora_learner_options_init(&defaults, sizeof defaults) || dlora_learner_options_paper(&paper, sizeof paper)) {
    return 1;
  }
  puts("| option | default | paper | values | scope | meaning |\n|---|---|---|---|---|---|");
  for (size_t i = 0; i < dlora_option_count(); i++) {
    dlora_option_info info = {.struct_size = sizeof info};
    char value[64], of_paper[64];
    if (dlora_option_get_info(i, &info)) return 1;
    text_of(&defaults, info.name, value);
    text_of(&paper, info.name, of_paper);
    printf("| `%s` | %s | %s | ", info.name, value, strcmp(value, of_paper) ? of_paper : "");
    print_range(&info);
    printf(" | %s | %s |\n", scopes[info.scope], info.help);
  }
  return 0;
}
