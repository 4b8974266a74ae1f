/* What observing before training leaves for observing after it. Both rounds run the same images, usually in the same
 * portions, through the same trunk, and drift compensation asks for the features of the network as it was: what the
 * first round computed is kept as far as there is room, portion by portion, and taken instead of computing it again. It
 * is bitwise what would come out, so that nothing depends on whether it is there: another order of images, another
 * process that goes on with the task, or more images than fit only take longer. It goes with the task and into no file.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/learner/learner.h"
#include "src/learner/source.h"

/* Trunks may take this part of what the task's workspace takes. */
#define TRUNK_SHARE 4
/* Features are smaller by the number of tokens. */
#define FEATURE_IMAGES ((size_t)4 * DLI_DRIFT_SAMPLE)

struct dli_trunk_cache {
  struct dli_trunk_cache *next;
  uint64_t key;
  size_t count;
  float *trunk;    /* [count, tokens, dim] or NULL */
  float *features; /* [count, moving columns] or NULL */
};

static size_t trunk_size(const dlora_session *session) {
  return session->model->vit.tokens * session->model->vit.dim;
}

/* Copies the trunks of a session's parts to or from one array in the order of the images. */
struct transfer {
  dlora_session *session;
  float *trunk;
  int restore;
};

static void transfer_share(size_t begin, size_t end, size_t index, void *user) {
  const struct transfer *transfer = user;
  struct dli_session_part *part = &transfer->session->parts[index];
  const size_t size = trunk_size(transfer->session), values = (end - begin) * size;
  if (transfer->restore) {
    memcpy(part->workspace.trunk, transfer->trunk + begin * size, values * sizeof *transfer->trunk);
    part->workspace.images = end - begin;
    part->first = begin;
  } else {
    memcpy(transfer->trunk + begin * size, part->workspace.trunk, values * sizeof *transfer->trunk);
  }
}

dlora_status dli_trunk_cache_keep(const dlora_learner *learner, struct dli_task *task, uint64_t key) {
  const dlora_allocator *allocator = &learner->allocator;
  const size_t count = task->session->count, columns = dli_learner_num_drifting_columns(learner),
               values = count * trunk_size(task->session);
  const size_t room = dlora_session_workspace_size(task->session) / TRUNK_SHARE;
  const int wants_trunk = values * sizeof(float) <= room - task->cached_bytes && learner->first_block;
  const int wants_features = learner->options.drift_compensation && dlora_learner_num_tasks(learner) &&
                             count <= FEATURE_IMAGES - task->cached_features;
  if (!dli_learner_trains(learner) || (task->source_images && !task->planned_steps)) return DLORA_OK;
  if (!wants_trunk && !wants_features) return DLORA_OK;
  dlora_status status = DLORA_OK;
  struct dli_trunk_cache *seen;
  DLI_TRY(DLI_NEW(allocator, seen, 1));
  seen->key = key;
  seen->count = count;
  if (wants_trunk) {
    DLI_TRY_DONE(DLI_NEW(allocator, seen->trunk, values));
    struct transfer transfer = {task->session, seen->trunk, 0};
    dli_parallel_for(task->session->threads, count, transfer_share, &transfer);
    task->cached_bytes += values * sizeof(float);
  }
  if (wants_features) {
    const size_t width = learner->width;
    DLI_TRY_DONE(DLI_NEW(allocator, seen->features, count * columns));
    for (size_t i = 0; i < count; i++) {
      memcpy(seen->features + i * columns, task->views[0].base + (i + 1) * width - columns,
             columns * sizeof *seen->features);
    }
    task->cached_features += count;
  }
  /* In a ring, in the order of coming: the next to be looked for is mostly the one after the last found. */
  seen->next = task->trunk_cache ? task->trunk_cache->next : seen;
  if (task->trunk_cache) task->trunk_cache->next = seen;
  task->trunk_cache = seen;
  return DLORA_OK;
done:
  dli_free(allocator, seen->features);
  dli_free(allocator, seen->trunk);
  dli_free(allocator, seen);
  return status;
}

const struct dli_trunk_cache *dli_trunk_cache_find(struct dli_task *task, uint64_t key, size_t count) {
  struct dli_trunk_cache *seen = task->trunk_cache;
  if (!seen) return NULL;
  do {
    seen = seen->next;
    if (seen->key == key && seen->count == count) {
      task->trunk_cache = seen;
      return seen;
    }
  } while (seen != task->trunk_cache);
  return NULL;
}

int dli_trunk_cache_restore(const struct dli_trunk_cache *seen, dlora_session *session) {
  if (!seen || !seen->trunk) return 0;
  struct transfer transfer = {session, seen->trunk, 1};
  session->count = seen->count;
  session->ran = 0;
  dli_parallel_for(session->threads, session->count, transfer_share, &transfer);
  return 1;
}

const float *dli_trunk_cache_features(const struct dli_trunk_cache *seen) {
  return seen ? seen->features : NULL;
}

void dli_trunk_cache_free(const dlora_learner *learner, struct dli_task *task) {
  while (task->trunk_cache) {
    struct dli_trunk_cache *seen = task->trunk_cache->next;
    if (seen == task->trunk_cache) {
      task->trunk_cache = NULL;
    } else {
      task->trunk_cache->next = seen->next;
    }
    dli_free(&learner->allocator, seen->features);
    dli_free(&learner->allocator, seen->trunk);
    dli_free(&learner->allocator, seen);
  }
}
