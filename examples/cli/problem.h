/* What went wrong, as one sentence that names the file, option or value at fault.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_PROBLEM_H
#define DUALLORA_CLI_PROBLEM_H

#include <stdbool.h>

/** Exit codes; the program's help lists them for scripts. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

typedef struct problem {
  char text[1024]; /* "" while nothing has gone wrong */
} problem;

/** Writes the sentence. Returns false, so that a function can end with `return problem_set(...)`. */
bool problem_set(problem *why, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** The sentence of the library's last failure, after what was being done, unless it begins with that itself, as it does
 *  with the path of a file. Returns false. */
bool problem_set_library(problem *why, const char *doing);
/** Prints the sentence on standard error and returns the exit code it deserves: interrupted or failed. */
int problem_report(const problem *why, const char *command);

/** From now on the first SIGINT, SIGTERM or SIGHUP asks the program to stop; the second one ends it at once. SIGHUP
 * stays ignored where it is, as under nohup. */
void interrupt_install(void);
bool interrupt_requested(void);

#endif
