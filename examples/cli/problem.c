/* Sentences for the user, and the wish to stop.
 * SPDX-License-Identifier: Apache-2.0 */
#include "problem.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "duallora/duallora.h"
#include "utf8.h"

static volatile sig_atomic_t stop_requested = 0;

bool problem_set(problem *why, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(why->text, sizeof why->text, format, arguments);
  va_end(arguments);
  return false;
}

bool problem_set_library(problem *why, const char *doing) {
  const char *error = dlora_last_error();
  size_t length = strlen(doing);
  while (length > 1 && doing[length - 1] == '/') length--;
  /* It names the path, or a file in the folder that the path is. */
  if (strncmp(error, doing, length) == 0 && (error[length] == ':' || error[length] == '/'))
    return problem_set(why, "%s", error);
  return problem_set(why, "%s: %s", doing, error);
}

int problem_report(const problem *why, const char *command) {
  if (interrupt_requested()) {
    fprintf(stderr, "duallora %s: interrupted\n", command);
    return EXIT_INTERRUPTED;
  }
  fprintf(stderr, "duallora %s: ", command);
  utf8_print(stderr, why->text);
  fputc('\n', stderr);
  return EXIT_FAILED;
}

/* The second signal, of whichever kind, ends the program when the handler returns. */
static void on_signal(int number) {
  if (stop_requested) {
    signal(number, SIG_DFL);
    raise(number);
  }
  stop_requested = 1;
}

void interrupt_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  struct sigaction before;
  if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL);
  signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is then a failed write, which has a sentence */
}

bool interrupt_requested(void) {
  return stop_requested != 0;
}
