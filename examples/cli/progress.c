/* Progress on standard error.
 * SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "problem.h"
#include "utf8.h"

#define BAR_WIDTH 24
#define BAR_EVERY 0.1   /* seconds */
#define LINE_EVERY 10.0 /* seconds */

double progress_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_begin(progress_view *view, bool quiet, bool verbose) {
  memset(view, 0, sizeof *view);
  view->quiet = quiet;
  view->verbose = verbose;
  view->terminal = isatty(STDERR_FILENO) == 1;
  view->shown_at = progress_seconds();
  view->shown_phase = -1;
}

void progress_clear(progress_view *view) {
  if (view->drawn) fputs("\r\033[K", stderr);
  view->drawn = false;
}

static const char *phase_name(int32_t phase) {
  switch (phase) {
    case DLORA_PHASE_OBSERVE:
      return "observe";
    case DLORA_PHASE_TRAIN:
      return "train";
    case DLORA_PHASE_STATISTICS:
      return "statistics";
    case DLORA_PHASE_EVALUATE:
      return "evaluate";
    default:
      return "work";
  }
}

static void draw(const dlora_progress *progress, bool bar) {
  double share = progress->total > 0 ? (double)progress->done / (double)progress->total : 0.0;
  if (progress->phase == DLORA_PHASE_EVALUATE)
    fprintf(stderr, "  %-10s", phase_name(progress->phase));
  else
    fprintf(stderr, "  task %zu %-10s", progress->task, phase_name(progress->phase));
  if (bar) {
    char cells[BAR_WIDTH + 1];
    int filled = (int)(share * BAR_WIDTH);
    for (int i = 0; i < BAR_WIDTH; i++) cells[i] = i < filled ? '#' : '.';
    cells[BAR_WIDTH] = '\0';
    fprintf(stderr, " [%s]", cells);
  }
  fprintf(stderr, " %3.0f %%  %zu/%zu", 100.0 * share, progress->done, progress->total);
  if (isfinite(progress->loss)) fprintf(stderr, "  loss %.4f", progress->loss);
  if (progress->images_per_second > 0.0) fprintf(stderr, "  %.0f images/s", progress->images_per_second);
}

int32_t progress_show(const dlora_progress *progress, void *user) {
  progress_view *view = user;
  if (interrupt_requested()) return 1;
  if (view->quiet) return 0;
  double now = progress_seconds();
  bool complete = progress->done == progress->total;
  if (view->terminal) {
    if (!complete && progress->phase == view->shown_phase && now - view->shown_at < BAR_EVERY) return 0;
    fputs("\r", stderr);
    draw(progress, true);
    fputs("\033[K", stderr);
    fflush(stderr);
    view->drawn = true;
  } else {
    bool end_of_training = complete && progress->phase == DLORA_PHASE_TRAIN;
    if (!end_of_training && now - view->shown_at < LINE_EVERY) return 0;
    draw(progress, false);
    fputc('\n', stderr);
  }
  view->shown_at = now;
  view->shown_phase = progress->phase;
  return 0;
}

void progress_log(int32_t level, const char *message, void *user) {
  progress_view *view = user;
  if (level < DLORA_LOG_WARNING && !view->verbose) return;
  progress_clear(view);
  fprintf(stderr, "  %s", level >= DLORA_LOG_WARNING ? "warning: " : "");
  utf8_print(stderr, message);
  fputc('\n', stderr);
}

void progress_say(progress_view *view, const char *format, ...) {
  if (view->quiet) return;
  char line[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  progress_clear(view);
  utf8_print(stderr, line);
  fputc('\n', stderr);
}
