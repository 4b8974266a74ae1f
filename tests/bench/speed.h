/* What the files of the speed bench share. A worker is one program under measurement: it answers commands on its
 * standard input one at a time, so that the driver (speed.py) can let several take turns.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_SPEED_H
#define DUALLORA_BENCH_SPEED_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "duallora/duallora.h"

/* ---- errors: one sentence, kept until the next ---- */

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
int speed_fail(const char *format, ...); /* returns 1 */
const char *speed_sentence(void);

/* Forwards a failure of the library. */
#define SPEED_TRY(call) \
  do { \
    if ((call) != DLORA_OK) return speed_fail("%s", dlora_last_error()); \
  } while (0)

double speed_seconds(void);
/* Uniform in [-1, 1), the same on every machine. */
float speed_uniform(uint32_t *state);

/* ---- a worker and its cases ---- */

struct speed_setup {
  const char *program;  /* "library", "sgemm" or "onednn" */
  const char *weights;  /* path of the model */
  const char *learnt;   /* path without ending: checkpoints with many tasks are kept there between calls */
  const char *products; /* "float32" (the BLAS), "packed" or "bfloat16" */
  size_t image_size, threads;
  dlora_model *model;
  dlora_model_info info;
};

/* What a case's name says: kind:batch, or predict:tasks:gate:batch. */
struct speed_request {
  char kind[16]; /* infer, embed, train or predict */
  char gate[16]; /* none, gate, final or blend */
  size_t tasks, batch;
};

struct speed_case {
  void *state;
  int (*run)(void *state); /* once */
  void (*close)(void *state);
  int (*profile)(void *state, dlora_profile *out); /* NULL: the program has none */
  double flops;                                    /* of the products alone; 0: not known */
};

int speed_library_open(const struct speed_setup *setup, const struct speed_request *request, struct speed_case *out);
int speed_sgemm_open(const struct speed_setup *setup, const struct speed_request *request, struct speed_case *out);
/* Fails where the bench was built without oneDNN. */
int speed_onednn_open(const struct speed_setup *setup, const struct speed_request *request, struct speed_case *out);
/* Whether this machine can run the products at all: an older processor has none in bfloat16. */
int speed_onednn_check(const struct speed_setup *setup);
/* The versions of what a worker of this program runs on. */
const char *speed_onednn_version(void);

/* Random normalised images [count, 3, size, size], to be freed; NULL: no memory. */
float *speed_images(const dlora_model_info *info, size_t count, uint32_t seed);

/* ---- the learner's cases (speed_learner.c) ---- */

/* A learner with `tasks` learnt tasks of two classes each: read from setup->learnt, or learnt and written there. */
int speed_learnt(const struct speed_setup *setup, size_t tasks, dlora_learner **out);
/* Defaults, but images as they come: no augmentation, which the other programs do not have either. */
dlora_learner_options speed_learner_options(const struct speed_setup *setup);
/* A learner whose open task can be stepped. images: at least 10. */
int speed_start_task(const struct speed_setup *setup, dlora_learner *learner, const float *images);
/* Learns one more task behind `tasks` others, with that many images and steps of `batch`, and prints a line with the
 * seconds of its parts. */
int speed_time_task(const struct speed_setup *setup, size_t tasks, size_t images, size_t batch, size_t steps);

/* ---- equality (speed_check.c) ---- */

/* Reads images, adapters and gradients of features as raw floats, writes features and gradients of the factors. */
int speed_check(const struct speed_setup *setup, const char *in, const char *out);

/* ---- random weights (speed_weights.c) ---- */

struct speed_geometry {
  size_t dim, depth, heads, mlp_dim, patch_size, image_size;
  int layer_scale;
};
int speed_write_weights(const char *path, const struct speed_geometry *geometry);

/* ---- the matrix products of one pass (speed_products.c) ---- */

struct speed_product {
  size_t weight;    /* from 1: the frozen matrix [n, k] of a forward product, [k, n] of a backward one; 0: attention */
  size_t count;     /* this many independent ones */
  size_t m, n, k;   /* [m, n] = [m, k] [k, n] */
  char left, right; /* 'n' or 't': whether an operand is stored transposed */
};
/* All products that one training step or inference of that many images cannot do without, adapters and heads left out:
 * nothing below the first adapted block goes backward, and the last block serves the class token alone. */
int speed_products(const dlora_model_info *info, size_t images, int training,
                   int (*visit)(const struct speed_product *product, void *user), void *user);
/* Frozen matrices: the numbers that `weight` takes. */
size_t speed_num_weights(const dlora_model_info *info);

/* ---- limits: these products and nothing else (speed_limit.c) ---- */

struct speed_backend {
  /* What one thread needs for parts of at most that many images; NULL: failed. */
  void *(*create)(const struct speed_setup *setup, size_t images, int training);
  int (*product)(const struct speed_product *product, void *user);
  void (*destroy)(void *user);
};
int speed_limit_open(const struct speed_setup *setup, const struct speed_request *request,
                     const struct speed_backend *backend, struct speed_case *out);

#endif
