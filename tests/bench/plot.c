/* The plot, as SVG written by hand.
 *
 *     TOP      title
 *              +-----------------------+  legend: methods from the best last accuracy down
 *     HEIGHT   |  one panel            |  --- name  61.2
 *              +-----------------------+
 *     BOTTOM   number of tasks learnt
 *        LEFT            WIDTH            RIGHT
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "plot.h"

#include <math.h>
#include <stdio.h>

#include "text_file.h"

#define LEFT 64.0
#define WIDTH 600.0
#define RIGHT 300.0
#define TOP 48.0
#define HEIGHT 380.0
#define BOTTOM 60.0
#define PANEL (TOP + HEIGHT + BOTTOM)
#define LEGEND_ROW 22.0

typedef struct panel {
  FILE *out;
  const sequence_results *of;
  size_t num_tasks;
  double top;  /* of the panel in the picture */
  double low;  /* accuracy at the lower edge */
  double high; /* and at the upper one */
} panel;

static double x_of(const panel *in, size_t num_tasks) {
  if (in->num_tasks < 2) return LEFT + WIDTH / 2.0;
  return LEFT + WIDTH * (double)(num_tasks - 1) / (double)(in->num_tasks - 1);
}

static double y_of(const panel *in, double accuracy) {
  return in->top + TOP + HEIGHT * (in->high - accuracy) / (in->high - in->low);
}

static size_t count_tasks(const sequence_results *of) {
  size_t most = 1;
  for (size_t m = 0; m < NUM_METHODS; m++)
    for (size_t k = 0; k < MAX_SEEDS; k++) {
      const cJSON *settings = cJSON_GetObjectItemCaseSensitive(of->files[m][k], "settings");
      const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(settings, "tasks");
      if (cJSON_IsNumber(tasks) && tasks->valuedouble > (double)most) most = (size_t)tasks->valuedouble;
    }
  return most;
}

/* Multiples of 10 % around everything that is drawn. */
static void set_range(panel *in) {
  in->low = 100.0;
  in->high = 0.0;
  for (size_t m = 0; m < NUM_METHODS; m++)
    for (size_t t = 1; t <= in->num_tasks; t++) {
      statistic value = summary_stage(in->of, m, t);
      if (value.count == 0) continue;
      in->low = fmin(in->low, 10.0 * floor(value.mean / 10.0));
      in->high = fmax(in->high, 10.0 * ceil(value.mean / 10.0));
    }
  if (in->low >= in->high) in->low = in->high >= 10.0 ? in->high - 10.0 : 0.0;
  if (in->low >= in->high) in->high = in->low + 10.0;
}

static void text(FILE *out, double x, double y, int size, const char *anchor, const char *words) {
  fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" text-anchor=\"%s\">%s</text>\n", x, y, size, anchor,
          words);
}

static void draw_axes(const panel *in) {
  char words[64];
  double bottom = in->top + TOP + HEIGHT;
  size_t every = (in->num_tasks + 19) / 20;
  snprintf(words, sizeof words, "%s", sequence_name(in->of->kind));
  text(in->out, LEFT, in->top + TOP - 20.0, 17, "start", words);
  for (double accuracy = in->low; accuracy <= in->high + 0.5; accuracy += 10.0) {
    double y = y_of(in, accuracy);
    fprintf(in->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/>\n", LEFT, y,
            LEFT + WIDTH, y);
    snprintf(words, sizeof words, "%.0f", accuracy);
    text(in->out, LEFT - 8.0, y + 4.0, 13, "end", words);
  }
  for (size_t t = 1; t <= in->num_tasks; t++) {
    if ((t - 1) % every != 0 && t != in->num_tasks) continue;
    snprintf(words, sizeof words, "%zu", t);
    text(in->out, x_of(in, t), bottom + 20.0, 13, "middle", words);
  }
  fprintf(in->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" stroke=\"#888888\"/>\n",
          LEFT, in->top + TOP, WIDTH, HEIGHT);
  text(in->out, LEFT + WIDTH / 2.0, bottom + 44.0, 14, "middle", "tasks learnt");
  fprintf(in->out,
          "<text transform=\"translate(18 %.1f) rotate(-90)\" font-size=\"14\" text-anchor=\"middle\">"
          "accuracy over all classes so far, %%</text>\n",
          in->top + TOP + HEIGHT / 2.0);
}

static void begin_line(const panel *in, size_t m) {
  const method_info *row = method_get((method_kind)m);
  fprintf(in->out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"", row->color);
  if (row->dash[0] != '\0') fprintf(in->out, " stroke-dasharray=\"%s\"", row->dash);
  fprintf(in->out, " points=\"");
}

static void draw_method(const panel *in, size_t m) {
  const char *color = method_get((method_kind)m)->color;
  bool bound = m == METHOD_JOINT;
  statistic last = summary_stage(in->of, m, in->num_tasks);
  if (last.count == 0) return;
  begin_line(in, m);
  if (bound) /* one value, drawn across as what the others may reach */
    fprintf(in->out, "%.1f,%.1f %.1f,%.1f", LEFT, y_of(in, last.mean), LEFT + WIDTH, y_of(in, last.mean));
  for (size_t t = 1; !bound && t <= in->num_tasks; t++) {
    statistic value = summary_stage(in->of, m, t);
    if (value.count > 0) fprintf(in->out, "%.1f,%.1f ", x_of(in, t), y_of(in, value.mean));
  }
  fprintf(in->out, "\"/>\n");
  for (size_t t = 1; !bound && t <= in->num_tasks; t++) {
    statistic value = summary_stage(in->of, m, t);
    if (value.count > 0)
      fprintf(in->out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x_of(in, t), y_of(in, value.mean),
              color);
  }
}

static void draw_legend(const panel *in, const arguments *from) {
  bool drawn[NUM_METHODS] = {false};
  char words[96];
  double y = in->top + TOP + 8.0;
  for (;;) {
    size_t best = NUM_METHODS;
    double accuracy = -1.0;
    for (size_t m = 0; m < NUM_METHODS; m++) {
      statistic last = summary_stage(in->of, m, in->num_tasks);
      if (drawn[m] || !from->methods[m]) continue;
      /* A method of which nothing was measured is named last. */
      double value = last.count > 0 ? last.mean : -0.5;
      if (value > accuracy) {
        best = m;
        accuracy = value;
      }
    }
    if (best == NUM_METHODS) return;
    drawn[best] = true;
    const method_info *row = method_get((method_kind)best);
    fprintf(in->out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"2.5\"",
            LEFT + WIDTH + 24.0, y - 4.0, LEFT + WIDTH + 56.0, y - 4.0, row->color);
    if (row->dash[0] != '\0') fprintf(in->out, " stroke-dasharray=\"%s\"", row->dash);
    fprintf(in->out, "/>\n");
    if (accuracy >= 0.0)
      snprintf(words, sizeof words, "%s  %.1f", row->name, accuracy);
    else
      snprintf(words, sizeof words, "%s  failed", row->name);
    text(in->out, LEFT + WIDTH + 64.0, y, 13, "start", words);
    y += LEGEND_ROW;
  }
}

bool plot_write(const sequence_results *all, size_t count, const arguments *from, problem *why) {
  text_file file;
  if (!text_file_open(&file, from->out, "accuracy.svg", why)) return false;
  fprintf(file.stream,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
          "font-family=\"Helvetica, Arial, sans-serif\" fill=\"#222222\">\n<rect width=\"100%%\" height=\"100%%\" "
          "fill=\"#ffffff\"/>\n",
          LEFT + WIDTH + RIGHT, PANEL * (double)count, LEFT + WIDTH + RIGHT, PANEL * (double)count);
  for (size_t i = 0; i < count; i++) {
    panel one = {file.stream, &all[i], count_tasks(&all[i]), PANEL * (double)i, 0.0, 100.0};
    set_range(&one);
    draw_axes(&one);
    for (size_t m = 0; m < NUM_METHODS; m++) draw_method(&one, m);
    draw_legend(&one, from);
  }
  fprintf(file.stream, "</svg>\n");
  return text_file_close(&file, why);
}
