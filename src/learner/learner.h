/* The learner's inside, shared by its files: learner/learner.c (life), learner/task.c (the open task),
 * learner/observe.c, learner/train.c and learner/commit_task.c (its phases), learner/learn_source.c (the loop),
 * learner/predict.c, learner/evaluate.c, checkpoint/checkpoint.c.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_LEARNER_LEARNER_H
#define DLI_SRC_LEARNER_LEARNER_H

#include <stdbool.h>

#include "base/profile.h"
#include "base/random.h"
#include "duallora/duallora.h"
#include "io/safetensors.h"
#include "src/learner/metrics.h"
#include "src/options/options.h"
#include "src/predictor/predictor.h"
#include "src/session/pool.h"

/* The trained classifier rows of one task, on the final feature; rows in the order of the task's components. */
struct dli_head {
  size_t num_classes;
  float *weight;     /* [num_classes, dim] */
  float *bias;       /* [num_classes] */
  float temperature; /* of its softmax: METHOD.md 7 */
};

struct dli_class_name {
  int64_t class_id;
  char *name;
};

/* A text of the caller's own. */
struct dli_note {
  char *key, *value;
};

enum { DLI_OBSERVE_BEFORE = 0, DLI_TRAIN = 1, DLI_OBSERVE_AFTER = 2 };

/* Images kept to tell how features move: a uniform sample of the task (reservoir), bounded whatever the task's size. */
enum { DLI_DRIFT_SAMPLE = 4096, DLI_HEAD_SAMPLE = 512, DLI_ENERGY_SAMPLE = 256, DLI_LOSS_WINDOW = 10 };

/* Statistics of features, of which a learner has several: METHOD.md 8. Each is a predictor; what differs between them
 * is in the table dli_statistics_info. */
enum dli_statistics_kind {
  DLI_BASE,      /* without residual adapters; made and read first, as the others begin from it or match it */
  DLI_ROUTED,    /* with those that routing chose */
  DLI_GATE,      /* of early features; it tells tasks */
  DLI_UNTOUCHED, /* of the backbone without any adapter */
  DLI_NUM_STATISTICS
};

struct dli_statistics_info {
  const char *name;
  bool is_early;   /* on early features [2 * dim], by Gaussians; otherwise on features [width], by option `readout` */
  bool is_trained; /* its features move in training: observed again after it, with the drift (4) followed */
  bool is_late;    /* begins as a copy of `base` with the first task that has it; otherwise with the learner */
};
extern const struct dli_statistics_info dli_statistics_info[DLI_NUM_STATISTICS];

/* The classes of a task, in order of appearance. */
struct dli_task_classes {
  size_t count, room;
  int64_t *ids;
  size_t *num_shown; /* images of each in the present round, to set some aside */
};

/* The images that dlora_learner_learn_source learns from. */
struct dli_task_source {
  size_t num_images; /* 0: in the caller's own loop */
  uint64_t labels;   /* their fingerprint */
  uint64_t *digests; /* [num_images] of each image that was read, 0 of the others; NULL: not known */
};

/* Losses of the steps so far. */
struct dli_task_losses {
  double first; /* sum of the first ones */
  double last[DLI_LOSS_WINDOW];
  double running; /* mean that progress callbacks are told */
};

/* Rows of the training softmax on the final feature: those of earlier tasks, which stay, and the task's own. */
struct dli_task_rows {
  size_t num_old;
  float *old_weight, *old_bias; /* [num_old, dim], [num_old] */
  float *weight, *bias;         /* [classes, dim], [classes]: in the bank's parameters, or in `fixed` */
  float *fixed;                 /* owns the above when the head is not trained */
};

/* Scratch of one micro-batch. */
struct dli_task_work {
  float *features; /* [max_batch, dim] */
  /* [max_batch, width] what predictors observe: of the images, and of the mirrored ones; NULL where nothing is */
  float *views[2][DLI_NUM_STATISTICS];
  float *middle;               /* [max_batch, 2 * dim] where it is not early, or NULL */
  float *early;                /* [max_batch, 2 * dim] */
  float *kept[2];              /* [max_batch, max(width, 2 * dim)] rows picked out of either view, or of early */
  int64_t *kept_labels;        /* [max_batch] */
  uint64_t *keys, *kept_keys;  /* [max_batch] of the images, the same for all kinds of statistics */
  char *is_held_out;           /* [max_batch] */
  float *gather;               /* [max_batch, widest input] class tokens of one input */
  float *d_features;           /* [max_batch, dim] */
  float *logits;               /* [max_batch, old rows + classes] */
  size_t *targets;             /* [max_batch] */
  struct dli_augment *augment; /* [max_batch] */
};

/* Features of a sample of the images before and after training, after training only. */
struct dli_task_drift {
  size_t count, offered, room; /* room 0: not wanted */
  float *before, *after;       /* [room, drifting columns] */
  float *without_pairs;        /* [max_batch, width] scratch: features as they were before training */
};

/* Final features of a sample of held-out images, to fit the head's temperature. */
struct dli_task_held_out {
  size_t count, offered;
  float *features; /* [DLI_HEAD_SAMPLE, dim] */
  int64_t *labels; /* [DLI_HEAD_SAMPLE] */
};

/* Class tokens of a sample of the images, to calibrate routing by energy. */
struct dli_task_energy {
  size_t count, offered;
  size_t *slots; /* [max_batch] where each image's class token goes */
  float *rows;   /* [inputs, DLI_ENERGY_SAMPLE, widest input]; NULL: not wanted */
};

/* Everything about the open task; released as a whole when it is committed or discarded. What decides how it goes on is
 * also written and read by checkpoint/open_task.c. */
struct dli_task {
  int phase;
  int loaded;                    /* it was begun elsewhere: the source may be another one */
  bool made[DLI_NUM_STATISTICS]; /* the learner's statistics that go with the task unless it is committed */
  size_t planned_steps, num_steps;
  size_t num_images[2];       /* observed before and after */
  size_t observed_images[2];  /* of these, in the second moments S */
  double seconds[3];          /* by phase */
  struct dli_random random;   /* augmentation */
  struct dli_random sampling; /* of the samples below */
  dlora_session *session;
  struct dli_task_classes classes;
  struct dli_task_source source;
  struct dli_task_losses losses;
  struct dli_task_rows rows;
  struct dli_task_work work;
  struct dli_task_drift drift;
  struct dli_task_held_out held_out;
  struct dli_task_energy energy;
  struct dli_blend_evidence evidence;   /* from the first round */
  struct dli_trunk_cache *trunk_cache;  /* ring of what the first round left, at the last one used; NULL: none */
  size_t cached_bytes, cached_features; /* of the trunks, and images whose features are kept */
};

/* What predictions need of the components of the statistics, made anew after each task. */
struct dli_class_index {
  size_t num_components, num_classes;
  int64_t *component_tasks;             /* [num_components] */
  int64_t *component_classes;           /* [num_components] */
  size_t *component_columns;            /* [num_components] index into classes */
  int64_t *classes;                     /* [num_classes] */
  size_t *untouched_places;             /* [num_components] index into the components of `untouched`, or NULL */
  float thresholds[DLI_NUM_STATISTICS]; /* of the unknown score; infinity without held-out features */
};

struct dlora_learner {
  dlora_allocator allocator;
  dlora_learner_options options; /* allocator pointer NULL */
  size_t threads;                /* that a call may use */
  dlora_progress_fn progress;    /* or NULL */
  void *progress_user;
  dlora_log_fn log; /* or NULL */
  void *log_user;
  const dlora_model *model;
  dlora_model *own_model;        /* the same where the positions it was learnt with are not the caller's; or NULL */
  size_t first_block, end_block; /* adapted blocks */
  size_t middle_block;           /* the features of several layers enter it */
  size_t width;                  /* of the predictor's features: dim, or 3 * dim with several layers */
  dlora_bank *bank;
  struct dli_merged_weights *merged_weights;
  struct dli_pool *sessions;                       /* of calls on a const learner */
  dlora_projector **projectors;                    /* [depth, 4]; NULL where not adapted */
  dlora_predictor *statistics[DLI_NUM_STATISTICS]; /* NULL: not kept, or not yet */
  size_t num_task_heads;
  struct dli_head *heads;             /* [num_task_heads], one per finished task */
  struct dli_blend_evidence evidence; /* for the weight of `untouched`, over finished tasks */
  struct dli_metrics metrics;
  size_t num_names, max_names;
  struct dli_class_name *names; /* [num_names] by class id */
  size_t num_notes, max_notes;
  struct dli_note *notes; /* [num_notes] by key */
  struct dli_task *task;  /* NULL: none open */
  char *snapshot_path;    /* NULL: none */
  /* Writes a snapshot; set together with its path, by the checkpoint's room. */
  dlora_status (*save_snapshot)(const dlora_learner *learner, const char *path);
  size_t snapshot_steps; /* between two snapshots; 0: only when learning stops early */
  struct dli_class_index class_index;
  struct dli_profile profile; /* of all but the open task's pass */
};

/* learner/learner.c, class_index.c, layout.c */
dlora_status dli_learner_new(dlora_learner **out, const dlora_model *model, const dlora_learner_options *options,
                             const dlora_allocator *allocator);
dlora_status dli_class_index_create(struct dli_class_index *out, dlora_predictor *const *statistics,
                                    float unknown_quantile, const dlora_allocator *allocator);
void dli_class_index_release(struct dli_class_index *class_index, const dlora_allocator *allocator);
void dli_learner_log(const dlora_learner *learner, int32_t level, const char *format, ...);
int dli_learner_has_residuals(const dlora_learner *learner);
/* [early, z] or z of `count` images: out [count, width]. */
void dli_learner_combine(const dlora_learner *learner, const float *early, const float *z, size_t count, float *out);
/* Whether those are read at all: not with the final feature alone, nor where the middle block is another one. */
int dli_learner_reads_early(const dlora_learner *learner);
/* How many of the last columns of those move while tasks are learnt: dim, or all where the middle block is adapted. */
size_t dli_learner_num_drifting_columns(const dlora_learner *learner);
/* Gives back what calls on a const learner have left for the next one. */
void dli_learner_release_workspaces(dlora_learner *learner);
/* Images of one micro-batch over all threads, at most count (0: no limit). */
size_t dli_learner_max_batch(const dlora_learner *learner, int training, size_t count);

/* learner/statistics_kinds.c */
/* Whether the options have the learner keep them. */
bool dli_learner_wants_statistics(const dlora_learner_options *options, enum dli_statistics_kind kind);
size_t dli_learner_statistics_width(const dlora_learner *learner, enum dli_statistics_kind kind);
dlora_predictor_options dli_learner_statistics_options(const dlora_learner *learner, enum dli_statistics_kind kind);
dlora_status dli_learner_create_statistics(dlora_learner *learner);
/* Makes what the open task is the first to have. */
dlora_status dli_learner_begin_statistics(dlora_learner *learner);
/* Drops what the open task has left in them, and those that were made for it. */
void dli_learner_discard_statistics(dlora_learner *learner, const bool *made);
/* Those with finished tasks; NULL where there are none, as where they were made for the open task. */
const dlora_predictor *dli_learner_finished_statistics(const dlora_learner *learner, enum dli_statistics_kind kind);
void dli_learner_destroy_statistics(dlora_predictor **statistics);

/* learner/evidence.c: how much predictions rely on the untouched backbone. METHOD.md 8. */
/* Adds what the images of the open task say: those of the sample, or the held-out ones. base and untouched: clones or
 * the learner's own. Nothing is added where these are no two networks, or not yet. */
dlora_status dli_learner_add_evidence(const dlora_learner *learner, const dlora_predictor *base, bool held_out,
                                      struct dli_blend_evidence *evidence);
/* The weight of the untouched backbone, where there are statistics of it: that of the option, or by evidence. */
double dli_learner_untouched_weight(const dlora_learner *learner, const struct dli_blend_evidence *evidence);

/* learner/notes.c */
void dli_notes_release(dlora_learner *learner);
dlora_status dli_notes_write(const dlora_learner *learner, struct dli_writer *writer);
dlora_status dli_notes_read(dlora_learner *learner, const struct dli_tensors *tensors);

/* learner/task.c */
void dli_task_release(dlora_learner *learner);
/* Raises STATE for a call that may not come now: the sentence names the one that may. */
dlora_status dli_task_refuse(const dlora_learner *learner, const char *caller);
/* Whether images can be observed or trained on, and their labels are known where training has begun. A batch that is
 * refused changes nothing; where memory runs out the task is discarded, as it is later in such a call. */
dlora_status dli_task_check_batch(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                  const char *caller);
/* Whether image `number` (from 0) of its class, the task's class number class_index, is held out. Classes are
 * staggered, so that the fraction holds over a task of many classes with few images each; the first image never is. */
int dli_is_held_out(const dlora_learner_options *options, size_t class_index, size_t number);
size_t dli_widest_input(const dlora_learner *learner);
/* Index of a class in the open task, or num_classes. */
size_t dli_task_find_class(const struct dli_task *task, int64_t class_id);
/* Memory for `count` classes, beside those there are. */
dlora_status dli_task_reserve_classes(const dlora_learner *learner, struct dli_task *task, size_t count);
/* Whether the options have the task train anything. */
int dli_learner_trains(const dlora_learner *learner);

/* learner/observe.c */
/* Observes in the round that the task is in; images and labels are sound. digests: of the images as their source gave
 * them [count], or NULL for those of these images. */
dlora_status dli_learner_observe(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                 const uint64_t *digests, const char *caller);
/* What of the trained pairs every image is to see from the second round on: options residual_merge_fraction,
 * merge_decay. */
dlora_status dli_task_set_merge_fractions(const dlora_learner *learner);
/* Memory to follow the drift of features, where that is to be done, for the observations after training. */
dlora_status dli_task_alloc_drift(const dlora_learner *learner, struct dli_task *task);

/* learner/trunk_cache.c: trunks and features of the first round, for the second, by the digests of the images of a
 * portion of dlora_learner_observe. */
struct dli_trunk_cache;
/* In the first round, keeps what the session has loaded and the moving columns of views[0][DLI_BASE], if there is
 * room. */
dlora_status dli_trunk_cache_keep(const dlora_learner *learner, struct dli_task *task, uint64_t key);
/* What was kept of such images, or NULL. */
const struct dli_trunk_cache *dli_trunk_cache_find(struct dli_task *task, uint64_t key, size_t count);
/* Instead of dli_session_load; 0 where the trunk was not kept. */
int dli_trunk_cache_restore(const struct dli_trunk_cache *cached, dlora_session *session);
/* [count, moving columns], or NULL. */
const float *dli_trunk_cache_features(const struct dli_trunk_cache *cached);
void dli_trunk_cache_free(const dlora_learner *learner, struct dli_task *task);

/* learner/train.c: memory of the head rows and logits of the open task; the rows are 0. */
dlora_status dli_task_alloc_rows(dlora_learner *learner, struct dli_task *task);

/* learner/predict.c: results of one micro-batch; arrays NULL where not wanted. */
struct dli_decision {
  dlora_prediction *predictions; /* [count] */
  float *class_log_probs;        /* [count, num_classes] */
  float *joint;                  /* [count, num_components] log p(task, class | x) */
};
struct dli_predict_buffers;
dlora_status dli_predict_buffers_create(struct dli_predict_buffers **out, const dlora_learner *learner,
                                        size_t max_batch);
void dli_predict_buffers_destroy(struct dli_predict_buffers *buffers);
/* Of the images that the session has loaded. tasks: [count] given tasks or NULL. */
dlora_status dli_learner_decide(const dlora_learner *learner, dlora_session *session, const int64_t *tasks,
                                struct dli_predict_buffers *buffers, const struct dli_decision *out);
/* Whether there are statistics of the untouched backbone: its own, or those of a network that is still the same. */
bool dli_learner_knows_untouched(const dlora_learner *learner);
/* Predictions of the untouched backbone for the loaded images [count]. */
dlora_status dli_learner_decide_untouched(const dlora_learner *learner, dlora_session *session,
                                          struct dli_predict_buffers *buffers, dlora_prediction *out);

#endif
