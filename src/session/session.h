/* A session runs a model with a bank on one micro-batch: images are shared out to threads, each with its own workspace.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_SESSION_SESSION_H
#define DLI_SRC_SESSION_SESSION_H

#include "duallora/duallora.h"
#include "io/image.h"
#include "src/model/model.h"

/* A model's blocks with W + M in place of W at the sites of a bank; shared by the sessions of one owner. */
struct dli_merged_weights {
  const dlora_model *model;
  const dlora_bank *bank;
  dlora_allocator allocator;
  struct dli_vit_block *blocks; /* [depth] */
  float **arrays;               /* [depth, 4] of qkv, output, fc1, fc2 where they differ from the model's; owned */
  struct dli_packed **packed;   /* [depth, 4, 3] forward and backward copies where the model has packed ones; owned */
  size_t first_backward;        /* first block that is packed for the backward pass */
  uint64_t version;             /* of the bank that the arrays were made from */
};
/* training: gradients will go through the blocks of the bank's sites and those above. */
dlora_status dli_merged_weights_create(struct dli_merged_weights **out, const dlora_model *model,
                                       const dlora_bank *bank, int training, const dlora_allocator *allocator);
void dli_merged_weights_destroy(struct dli_merged_weights *merged_weights);
/* Takes the memory that sites with the given merged matrices [num_sites] (NULL: none yet) will need. */
dlora_status dli_merged_weights_reserve(struct dli_merged_weights *merged_weights, float *const *merged);
/* Follows the bank after a reserve with its matrices; a no-op while no task has ended. */
void dli_merged_weights_update(struct dli_merged_weights *merged_weights);

/* How the upper blocks run. */
struct dli_session_mode {
  int32_t terms;                        /* DLORA_TERM_...; 0: the model's own weights, no adapter at all */
  const float *routing;                 /* [images, tasks] or NULL */
  const dlora_projector *const *energy; /* [depth, 4]: routing by energy in these memories instead; or NULL */
  float *middle; /* [images, 2 * dim] gets what enters block middle_block, like early features; or NULL */
  size_t middle_block;
};

/* One thread's part of a session. */
struct dli_session_part {
  struct dli_vit_workspace workspace;
  struct dli_image_plan *plan;
  float *scratch;      /* for low-rank products */
  float *gradients;    /* [gradient_capacity] */
  float *routing;      /* [max_images, tasks] by energy in one block */
  void *route_scratch; /* [session->route_scratch] bytes, of that routing */
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
  int owns_merged_weights;
  size_t first_block;
  int32_t lowest_input; /* DLORA_INPUT_... of the lowest site */
  size_t *site_of;      /* [depth, 6] site index + 1, or 0 */
  size_t max_batch, threads;
  size_t allowed; /* threads that a product may use where there is one share only */
  int training;
  struct dli_session_part *parts; /* [threads] */
  size_t scratch_rank;            /* rank that scratch has room for */
  size_t gradient_capacity;
  size_t routing_tasks;
  size_t route_scratch;
  size_t count;                 /* images of the last load */
  struct dli_session_mode last; /* mode of the last upper pass */
  int ran;
  int gated;       /* the last upper pass had routing */
  float *features; /* [max_batch, dim] where the caller wants none */
  /* What the owner of a pool keeps with the session, and how to release it; or NULL. */
  void *attached;
  void (*detach)(void *attached);
};

/* Images that keep all threads in efficient products, at most count (0: unknown). */
size_t dli_session_micro_batch(const struct dli_vit *vit, size_t threads, size_t count);
/* first_block: where early features are taken and adapters may begin. merged_weights NULL and bank given: made here. */
dlora_status dli_session_create(dlora_session **out, const dlora_model *model,
                                struct dli_merged_weights *merged_weights, size_t first_block, size_t max_batch,
                                size_t threads, int training, const dlora_allocator *allocator);
/* Images [first, first + at most count) of a batch; checks it. */
dlora_status dli_images_part(const dlora_images *images, size_t first, size_t count, dlora_images *out,
                             const char *caller);
/* NOT_FINITE where pixels that are finite, but far out of range, have overflowed inside the network. */
dlora_status dli_features_finite(const float *features, size_t count, size_t dim, const char *caller);
/* Preprocessing, patch embedding, trunk. augment: [images->count] or NULL. */
dlora_status dli_session_load(dlora_session *session, const dlora_images *images, const struct dli_augment *augment,
                              const char *caller);
/* Makes room for the mode's scratch; call it before dli_session_upper whenever ranks or tasks may have grown. */
dlora_status dli_session_reserve(dlora_session *session);
/* Upper blocks of the loaded images: features [count, dim]. May be repeated in other modes. Only fails in a mode with
 * energy, which takes memory. */
dlora_status dli_session_upper(dlora_session *session, const struct dli_session_mode *mode, float *features);
void dli_session_early(dlora_session *session, float *features);
/* Adds to gradients, an array like the bank's. */
void dli_session_backward(dlora_session *session, const float *d_features, float *gradients);
/* What share `index` holds of an adapted input after an upper pass in training. */
const float *dli_session_input(const dlora_session *session, size_t index, size_t block, int32_t input, size_t *rows,
                               size_t *dim, size_t *rows_per_image);

/* Sections that the owner of a session adds to those of lib/base/profile.h. */
enum { DLI_OBSERVATION = DLI_OWN_SECTIONS, DLI_DIRECTIONS, DLI_TASK_END };
/* The public form; out->struct_size is set. */
dlora_status dli_profile_write(const struct dli_profile *profile, dlora_profile *out);
/* session/profile.c: adds what the session has taken so far. */
void dli_session_add_profile(const dlora_session *session, struct dli_profile *sum);

/* Which input a projection reads. */
int32_t dli_input_of(int32_t projection);

#endif
