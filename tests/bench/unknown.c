/* The area under the ROC curve of unknown scores.
 * SPDX-License-Identifier: Apache-2.0 */
#include "unknown.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH 64

typedef struct scored {
  float score;
  bool unknown;
} scored;

/* Images of one size that are predicted together. */
typedef struct batch {
  uint8_t *pixels; /* [count, height, width, channels] */
  dlora_images images;
} batch;

static bool predict(const dlora_learner *learner, batch *from, bool unknown, scored *to, problem *why) {
  dlora_prediction predictions[MAX_BATCH];
  size_t count = from->images.count;
  if (count == 0) return true;
  from->images.u8 = from->pixels;
  if (dlora_learner_predict(learner, &from->images, predictions, NULL) != DLORA_OK)
    return problem_set_library(why, "predicting");
  for (size_t i = 0; i < count; i++) to[i] = (scored){predictions[i].unknown_score, unknown};
  from->images.count = 0;
  return true;
}

static size_t image_size(const dlora_images *image) {
  return image->height * image->width * (image->channels == 0 ? 3 : image->channels);
}

static bool score(const dlora_learner *learner, feed *from, bool unknown, scored *to, problem *why) {
  batch current = {NULL, {0}};
  bool done = true;
  size_t first = 0;
  for (size_t i = 0; done && i < from->count; i++) {
    dlora_images image;
    if (feed_read(i, &image, from) != 0) {
      *why = from->why;
      done = false;
      break;
    }
    dlora_images *held = &current.images;
    bool fits = held->count < MAX_BATCH && image.height == held->height && image.width == held->width &&
                image.channels == held->channels;
    if (!fits) {
      done = predict(learner, &current, unknown, to + first, why);
      first = i;
      free(current.pixels);
      current.pixels = malloc(MAX_BATCH * image_size(&image));
      if (done && current.pixels == NULL) done = problem_set(why, "no memory for %d images", MAX_BATCH);
      *held = image;
      held->count = 0;
    }
    if (done) memcpy(current.pixels + held->count++ * image_size(&image), image.u8, image_size(&image));
  }
  if (done) done = predict(learner, &current, unknown, to + first, why);
  free(current.pixels);
  return done;
}

static int compare(const void *left, const void *right) {
  float a = ((const scored *)left)->score;
  float b = ((const scored *)right)->score;
  return (a > b) - (a < b);
}

/* Mann and Whitney: of all pairs, those in the right order, and half of those with one score. */
static double area(scored *all, size_t count) {
  double right = 0.0;
  size_t known_below = 0;
  size_t num_unknown = 0;
  qsort(all, count, sizeof *all, compare);
  for (size_t i = 0; i < count;) {
    size_t known = 0;
    size_t unknown = 0;
    size_t end = i;
    for (; end < count && compare(&all[end], &all[i]) == 0; end++) {
      known += !all[end].unknown;
      unknown += all[end].unknown;
    }
    right += (double)unknown * ((double)known_below + 0.5 * (double)known);
    known_below += known;
    num_unknown += unknown;
    i = end;
  }
  return right / ((double)known_below * (double)num_unknown);
}

bool unknown_auroc(const dlora_learner *learner, sequence *tasks, size_t num_learnt, size_t limit, double *auroc,
                   problem *why) {
  feed known;
  feed unknown;
  *auroc = NAN;
  if (!feed_open_sample(&known, tasks, num_learnt, true, limit, why)) return false;
  if (!feed_open_sample(&unknown, tasks, num_learnt, false, limit, why)) {
    feed_close(&known);
    return false;
  }
  bool done = true;
  size_t count = known.count + unknown.count;
  if (known.count > 0 && unknown.count > 0) {
    scored *all = malloc(count * sizeof *all);
    done = all != NULL || problem_set(why, "no memory for %zu scores", count);
    if (done) done = score(learner, &known, false, all, why) && score(learner, &unknown, true, all + known.count, why);
    if (done) *auroc = area(all, count);
    free(all);
  }
  feed_close(&known);
  feed_close(&unknown);
  return done;
}
