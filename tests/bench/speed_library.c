/* This library's cases: inference by a pass that is kept and by single calls, steps of the learner, predictions.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "speed.h"

struct library_case {
  const struct speed_setup *setup;
  dlora_images images;
  float *pixels, *features;
  dlora_session *session;
  size_t part; /* images of one call of the session */
  dlora_learner *learner;
  dlora_prediction *predictions;
  int64_t *labels;
};

float *speed_images(const dlora_model_info *info, size_t count, uint32_t seed) {
  const size_t values = count * 3 * info->image_size * info->image_size;
  uint32_t random = 2654435761u * (seed + 1);
  float *pixels = malloc(values * sizeof *pixels);
  for (size_t i = 0; pixels && i < values; i++) pixels[i] = speed_uniform(&random);
  if (!pixels) speed_fail("no memory for %zu images", count);
  return pixels;
}

static int run_infer(void *state) {
  struct library_case *c = state;
  const size_t size = c->setup->info.image_size;
  for (size_t first = 0; first < c->images.count; first += c->part) {
    dlora_images part = c->images;
    part.f32 += first * 3 * size * size;
    part.count = c->images.count - first < c->part ? c->images.count - first : c->part;
    SPEED_TRY(dlora_session_forward(c->session, &part, 0, NULL, c->features + first * c->setup->info.embed_dim));
  }
  return 0;
}

static int run_embed(void *state) {
  struct library_case *c = state;
  SPEED_TRY(dlora_model_embed(c->setup->model, &c->images, c->features));
  return 0;
}

static int run_train(void *state) {
  struct library_case *c = state;
  SPEED_TRY(dlora_learner_step(c->learner, &c->images, c->labels, NULL));
  return 0;
}

static int run_predict(void *state) {
  struct library_case *c = state;
  SPEED_TRY(dlora_learner_predict(c->learner, &c->images, c->predictions, NULL));
  return 0;
}

static int profile_infer(void *state, dlora_profile *out) {
  const struct library_case *c = state;
  SPEED_TRY(dlora_session_get_profile(c->session, out));
  return 0;
}

static int profile_train(void *state, dlora_profile *out) {
  const struct library_case *c = state;
  SPEED_TRY(dlora_learner_get_profile(c->learner, out));
  return 0;
}

static void close_case(void *state) {
  struct library_case *c = state;
  dlora_session_destroy(c->session);
  dlora_learner_destroy(c->learner);
  free(c->pixels);
  free(c->features);
  free(c->predictions);
  free(c->labels);
  free(c);
}

static int open_infer(struct library_case *c) {
  dlora_session_options options = DLORA_SESSION_OPTIONS_INIT;
  options.threads = (int32_t)c->setup->threads;
  if (options.max_batch > c->images.count) options.max_batch = c->images.count;
  c->part = options.max_batch;
  SPEED_TRY(dlora_session_create(&c->session, c->setup->model, NULL, &options));
  return 0;
}

static int open_train(struct library_case *c, size_t batch) {
  dlora_learner_options options = speed_learner_options(c->setup);
  options.batch_size = batch;
  /* The energy of random weights lies in few directions: without this the adapters would have less than their rank. */
  options.energy_threshold = 1.0f;
  SPEED_TRY(dlora_learner_create(&c->learner, c->setup->model, &options));
  float *observed = speed_images(&c->setup->info, 10, 1);
  const int failed = !observed || speed_start_task(c->setup, c->learner, observed);
  free(observed);
  return failed;
}

static int open_predict(struct library_case *c, size_t tasks, const char *gate) {
  if (speed_learnt(c->setup, tasks, &c->learner)) return 1;
  dlora_learner_options options;
  (void)dlora_learner_options_init(&options, sizeof options);
  SPEED_TRY(dlora_learner_get_options(c->learner, &options));
  options.threads = (int32_t)c->setup->threads;
  options.routing = strcmp(gate, "gate") == 0    ? DLORA_ROUTING_EARLY
                    : strcmp(gate, "final") == 0 ? DLORA_ROUTING_TWO_PASS
                                                 : DLORA_ROUTING_NONE;
  /* Evidence from random images would decide what runs. */
  const float weight = strcmp(gate, "blend") == 0 ? 0.5f : 0.0f;
  options.untouched_weight = weight;
  SPEED_TRY(dlora_learner_configure(c->learner, &options));
  if (dlora_learner_get_untouched_weight(c->learner) == (double)weight) return 0;
  return speed_fail("the learner of %zu tasks has no statistics of the untouched backbone; remove its file", tasks);
}

int speed_library_open(const struct speed_setup *setup, const struct speed_request *request, struct speed_case *out) {
  const size_t batch = request->batch, size = setup->info.image_size;
  struct library_case *c = calloc(1, sizeof *c);
  if (!c) return speed_fail("no memory");
  c->setup = setup;
  c->pixels = speed_images(&setup->info, batch, 0);
  c->features = calloc(batch * setup->info.embed_dim, sizeof *c->features);
  c->predictions = calloc(batch, sizeof *c->predictions);
  c->labels = calloc(batch, sizeof *c->labels);
  c->images = (dlora_images){.f32 = c->pixels, .count = batch, .height = size, .width = size};
  int failed = 1;
  if (!c->pixels || !c->features || !c->predictions || !c->labels) {
    speed_fail("no memory");
  } else if (strcmp(request->kind, "infer") == 0) {
    out->run = run_infer;
    out->profile = profile_infer;
    failed = open_infer(c);
  } else if (strcmp(request->kind, "embed") == 0) {
    out->run = run_embed;
    failed = 0;
  } else if (strcmp(request->kind, "train") == 0) {
    for (size_t i = 0; i < batch; i++) c->labels[i] = (int64_t)(i % 5);
    out->run = run_train;
    out->profile = profile_train;
    failed = open_train(c, batch);
  } else if (strcmp(request->kind, "predict") == 0) {
    out->run = run_predict;
    failed = open_predict(c, request->tasks, request->gate);
  } else {
    speed_fail("the library has no case '%s'", request->kind);
  }
  if (failed) {
    close_case(c);
    return 1;
  }
  out->state = c;
  out->close = close_case;
  return 0;
}
