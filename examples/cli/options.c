/* Command line options from a table that also prints the help.
 * SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "duallora/duallora.h"

static bool takes_value(option_kind kind) {
  return kind != OPTION_HEADING && kind != OPTION_FLAG && kind != OPTION_ON && kind != OPTION_OFF;
}

/* Index of the word of this length among "first|second|third", or -1. */
static int choice_index(const char *choices, const char *word, size_t length) {
  int index = 0;
  for (const char *start = choices;; index++) {
    size_t size = strcspn(start, "|");
    if (size == length && strncmp(start, word, length) == 0) return index;
    if (start[size] == '\0') return -1;
    start += size + 1;
  }
}

static bool parse_real(const option *entry, const char *text, const char **end, double *value, problem *why) {
  char *stop = NULL;
  *value = strtod(text, &stop);
  if (stop == text || !isfinite(*value))
    return problem_set(why, "--%s needs a number, and '%s' is none", entry->name, text);
  if (*value < entry->minimum || *value > entry->maximum)
    return problem_set(why, "--%s must be between %g and %g, and is %s", entry->name, entry->minimum, entry->maximum,
                       text);
  *end = stop;
  return true;
}

static bool parse_unsigned(const option *entry, const char *text, uint64_t *value, problem *why) {
  char *stop = NULL;
  errno = 0;
  unsigned long long number = strtoull(text, &stop, 10);
  if (text[0] < '0' || text[0] > '9' || *stop != '\0')
    return problem_set(why, "--%s needs a whole number, and '%s' is none", entry->name, text);
  if (errno == ERANGE || (double)number < entry->minimum || (double)number > entry->maximum)
    return problem_set(why, "--%s must be between %.0f and %.0f, and is %s", entry->name, entry->minimum,
                       entry->maximum, text);
  *value = number;
  return true;
}

static bool parse_one(const option *entry, const char *text, float *out, problem *why) {
  const char *rest = text;
  double value = 0.0;
  if (!parse_real(entry, text, &rest, &value, why)) return false;
  if (*rest != '\0') return problem_set(why, "--%s needs a number, and '%s' is none", entry->name, text);
  *out = (float)value;
  return true;
}

static bool parse_triple(const option *entry, const char *text, float *values, problem *why) {
  const char *rest = text;
  for (int i = 0; i < 3; i++) {
    double value = 0.0;
    if (!parse_real(entry, rest, &rest, &value, why)) return false;
    if (*rest != (i < 2 ? ',' : '\0'))
      return problem_set(why, "--%s needs three numbers with commas between them, and is '%s'", entry->name, text);
    if (i < 2) rest++;
    values[i] = (float)value;
  }
  return true;
}

/* The library's sentence names its own option; what follows is the same for the switch. */
static bool parse_library(const option *entry, const char *text, problem *why) {
  if (dlora_learner_options_set(entry->target, entry->choices, text) == DLORA_OK) return true;
  const char *sentence = dlora_last_error();
  const char *rest = strstr(sentence, " is ");
  return problem_set(why, "--%s%s", entry->name, rest != NULL ? rest : sentence);
}

static bool parse_value(const option *entry, const char *text, problem *why) {
  uint64_t number = 0;
  int32_t index = 0;
  switch (entry->kind) {
    case OPTION_FLAG:
      *(bool *)entry->target = true;
      break;
    case OPTION_ON:
      return parse_library(entry, "true", why);
    case OPTION_OFF:
      return parse_library(entry, "false", why);
    case OPTION_LIBRARY:
      return parse_library(entry, text, why);
    case OPTION_TEXT:
      if (text[0] == '\0') return problem_set(why, "--%s must not be empty", entry->name);
      *(const char **)entry->target = text;
      break;
    case OPTION_EMPTY:
      *(const char **)entry->target = text;
      break;
    case OPTION_SIZE:
      if (!parse_unsigned(entry, text, &number, why)) return false;
      *(size_t *)entry->target = (size_t)number;
      break;
    case OPTION_REAL:
      return parse_one(entry, text, entry->target, why);
    case OPTION_TRIPLE:
      return parse_triple(entry, text, entry->target, why);
    case OPTION_CHOICE:
      index = choice_index(entry->choices, text, strlen(text));
      if (index < 0) return problem_set(why, "--%s: '%s' is none of %s", entry->name, text, entry->choices);
      *(int32_t *)entry->target = index;
      break;
    case OPTION_HEADING:
      break;
  }
  return true;
}

static const option *find(const option *table, size_t count, const char *name, size_t length) {
  for (size_t i = 0; i < count; i++)
    if (table[i].kind != OPTION_HEADING && strlen(table[i].name) == length && strncmp(table[i].name, name, length) == 0)
      return &table[i];
  return NULL;
}

/* A required option is missing if its target still is what the caller set: NULL. */
static const option *first_missing(const option *table, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (table[i].required && *(const char **)table[i].target == NULL) return &table[i];
  return NULL;
}

options_outcome options_parse(const option *table, size_t count, int argc, char **argv, int first,
                              const char **operands, size_t *num_operands, problem *why) {
  size_t found = 0;
  bool only_operands = false;
  for (int i = first; i < argc; i++) {
    const char *word = argv[i];
    if (only_operands || word[0] != '-' || word[1] == '\0') {
      if (operands == NULL) {
        problem_set(why, "'%s' is not expected here", word);
        return OPTIONS_WRONG;
      }
      operands[found++] = word;
      continue;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return OPTIONS_HELP;
    if (strcmp(word, "--") == 0) {
      only_operands = true;
      continue;
    }
    size_t length = word[1] == '-' ? strcspn(word + 2, "=") : 0;
    const option *entry = length > 0 ? find(table, count, word + 2, length) : NULL;
    if (entry == NULL) {
      problem_set(why, "there is no option '%s'", word);
      return OPTIONS_WRONG;
    }
    const char *value = word[2 + length] == '=' ? word + 3 + length : NULL;
    if (takes_value(entry->kind)) {
      if (value == NULL && i + 1 < argc) value = argv[++i];
      if (value == NULL) {
        problem_set(why, "--%s needs a value (%s)", entry->name, entry->argument);
        return OPTIONS_WRONG;
      }
    } else if (value != NULL) {
      problem_set(why, "--%s takes no value", entry->name);
      return OPTIONS_WRONG;
    }
    if (!parse_value(entry, value, why)) return OPTIONS_WRONG;
    if (entry->given != NULL) *entry->given = true;
  }
  const option *missing = first_missing(table, count);
  if (missing != NULL) {
    problem_set(why, "--%s %s is required", missing->name, missing->argument);
    return OPTIONS_WRONG;
  }
  if (num_operands != NULL) *num_operands = found;
  return OPTIONS_OK;
}

static void print_wrapped(const char *text, int column, FILE *out) {
  const int width = 100;
  int at = column;
  while (*text != '\0') {
    int length = (int)strcspn(text, " ");
    if (at > column && at + 1 + length > width) {
      fprintf(out, "\n%*s", column, "");
      at = column;
    }
    at += fprintf(out, "%s%.*s", at > column ? " " : "", length, text);
    text += length;
    while (*text == ' ') text++;
  }
  fputc('\n', out);
}

void options_print_help(const option *table, size_t count, FILE *out) {
  const int column = 32;
  for (size_t i = 0; i < count; i++) {
    const option *entry = &table[i];
    if (entry->kind == OPTION_HEADING) {
      fprintf(out, "\n%s\n", entry->help);
      continue;
    }
    int at = fprintf(out, "  --%s%s%s", entry->name, entry->argument != NULL ? " " : "",
                     entry->argument != NULL ? entry->argument : "");
    if (at >= column - 1) {
      fputc('\n', out);
      at = 0;
    }
    fprintf(out, "%*s", column - at, "");
    print_wrapped(entry->help, column, out);
  }
}
