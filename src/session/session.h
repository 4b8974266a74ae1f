/* A session runs a model with a bank on one micro-batch. Its images are divided among threads, each with a workspace.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_SESSION_SESSION_H
#define DLI_SRC_SESSION_SESSION_H

#include <stdbool.h>

#include "duallora/duallora.h"
#include "io/image.h"
#include "src/model/model.h"

/* A model's blocks with W + M in place of W at the sites of a bank. The sessions of one owner share them. */
struct dli_merged_weights {
  const dlora_model *model;
  const dlora_bank *bank;
  dlora_allocator allocator;
  struct dli_vit_block *blocks; /* [depth] */
  float **arrays;               /* [depth, 4] of qkv, output, fc1, fc2; NULL where they are the model's; owned */
  struct dli_packed **packed;   /* [depth, 4, 3] forward and backward copies, with packed products; owned */
  size_t first_backward;        /* first block packed for the backward pass */
  uint64_t version;             /* 1 + the version of the bank that the arrays are made from; 0: none */
};
/* training: packs what gradients need, from the lowest adapted block up. */
dlora_status dli_merged_weights_create(struct dli_merged_weights **out, const dlora_model *model,
                                       const dlora_bank *bank, bool training, const dlora_allocator *allocator);
void dli_merged_weights_destroy(struct dli_merged_weights *merged_weights);
/* Allocates the copies for sites whose merged matrix is not NULL. merged: [num_sites]. */
dlora_status dli_merged_weights_reserve(struct dli_merged_weights *merged_weights, float *const *merged);
/* Copies W + M anew if M has changed. dli_merged_weights_reserve comes first. */
void dli_merged_weights_update(struct dli_merged_weights *merged_weights);

/* How the adapted blocks run. */
struct dli_session_mode {
  int32_t terms;                        /* DLORA_TERM_... or-ed; 0: the untouched backbone */
  const float *routing;                 /* [images, tasks] or NULL */
  const dlora_projector *const *energy; /* [depth, 4]: routing by energy in their used directions; or NULL */
  float *middle;                        /* [images, 2 * dim] gets the pooled input of block middle_block; or NULL */
  size_t middle_block;
};

/* One thread's part of a session. */
struct dli_session_part {
  struct dli_vit_workspace workspace;
  struct dli_image_plan *plan;
  float *scratch;      /* for low-rank products */
  float *gradients;    /* [gradient_capacity] */
  float *routing;      /* [max_images, tasks] w_s by energy at one input */
  void *route_scratch; /* [session->route_scratch] bytes for it */
  const struct dlora_session *session;
  const struct dli_session_mode *mode; /* of the running call */
  dlora_status status;                 /* of routing by energy in the running call: OK or NOT_FINITE */
  size_t first;                        /* images [first, first + workspace.images) of the batch */
};

struct dlora_session {
  dlora_allocator allocator;
  const dlora_model *model;
  const dlora_bank *bank;                    /* or NULL */
  struct dli_merged_weights *merged_weights; /* or NULL without a bank */
  bool owns_merged_weights;
  size_t first_block;
  int32_t lowest_input; /* DLORA_INPUT_... of the lowest site */
  size_t *site_of;      /* [depth, 6] site index + 1, or 0 */
  size_t max_batch, threads;
  size_t allowed; /* threads that a product may use if there is a single part */
  bool training;
  struct dli_session_part *parts; /* [threads] */
  size_t scratch_rank;            /* largest rank that scratch has room for */
  size_t gradient_capacity;
  size_t routing_tasks;
  size_t route_scratch;
  size_t count;                 /* images of the last load */
  struct dli_session_mode last; /* mode of the last upper pass */
  bool ran;
  bool routed;     /* the last upper pass had routing */
  float *features; /* [max_batch, dim], for callers that want none */
  /* Buffers that the owner of a pool keeps with the session, and their destructor; or NULL. */
  void *attached;
  void (*detach)(void *attached);
};

/* Images of an efficient micro-batch over all threads, at most count (0: no limit). */
size_t dli_session_micro_batch(const struct dli_vit *vit, size_t threads, size_t count);
/* first_block: the first adapted block, whose input gives early features. merged_weights NULL: no bank. */
dlora_status dli_session_create(dlora_session **out, const dlora_model *model,
                                struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                                size_t threads, bool training, const dlora_allocator *allocator);
/* Checks a batch; *out: its images from `first` on, at most `count`. */
dlora_status dli_images_part(const dlora_images *images, size_t first, size_t count, dlora_images *out,
                             const char *caller);
/* Error: NOT_FINITE, if finite pixels far out of range have overflowed inside the network. */
dlora_status dli_features_finite(const float *features, size_t count, size_t dim, const char *caller);
/* Preprocessing, patch embedding and trunk of the images. augment: [images->count] or NULL. */
dlora_status dli_session_load(dlora_session *session, const dlora_images *images, const struct dli_augment *augment,
                              const char *caller);
/* Allocates scratch for the present ranks, tasks and parameters of the bank. Comes before dli_session_upper. */
dlora_status dli_session_reserve(dlora_session *session);
/* Adapted blocks of the loaded images: features [count, dim]. May be repeated in other modes. Errors, with routing by
 * energy only: NO_MEMORY, NOT_FINITE. */
dlora_status dli_session_upper(dlora_session *session, const struct dli_session_mode *mode, float *features);
/* Early features of the loaded images: features [count, 2 * dim]. */
void dli_session_early(dlora_session *session, float *features);
/* Adds to gradients, an array like bank->gradients, those that follow from d_features [count, dim]. */
void dli_session_backward(dlora_session *session, const float *d_features, float *gradients);
/* The rows of an adapted input in part `index`, after an upper pass in training. */
const float *dli_session_input(const dlora_session *session, size_t index, size_t block, int32_t input, size_t *rows,
                               size_t *dim, size_t *rows_per_image);

/* The learner's sections, after those of lib/base/profile.h. */
enum { DLI_OBSERVATION = DLI_OWN_SECTIONS, DLI_DIRECTIONS, DLI_TASK_END };
/* Fills the public struct; out->struct_size must be set. */
dlora_status dli_profile_write(const struct dli_profile *profile, dlora_profile *out);
/* Adds the session's times so far. */
void dli_session_add_profile(const dlora_session *session, struct dli_profile *sum);

#endif
