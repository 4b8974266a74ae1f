/* Progress on standard error: a bar on a terminal, now and then a line elsewhere.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_PROGRESS_H
#define DUALLORA_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "duallora/duallora.h"

typedef struct progress_view {
  bool quiet;
  bool verbose;    /* informational log lines too */
  bool terminal;   /* standard error is one */
  bool drawn;      /* a bar stands in the current line */
  double shown_at; /* seconds of the last output */
  int32_t shown_phase;
} progress_view;

void progress_begin(progress_view *view, bool quiet, bool verbose);
/** A dlora_progress_fn; user: the view. Cancels once an interrupt was requested. */
int32_t progress_show(const dlora_progress *progress, void *user);
/** A dlora_log_fn; user: the view. */
void progress_log(int32_t level, const char *message, void *user);
/** A line of its own, unless quiet. */
void progress_say(progress_view *view, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Takes the bar away, so that other output starts on an empty line. */
void progress_clear(progress_view *view);
/** Seconds on a clock that only goes forward. */
double progress_seconds(void);

#endif
