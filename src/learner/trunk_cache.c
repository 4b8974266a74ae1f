/* The trunk cache: results of the first pass over a task that the second pass reuses. METHOD.md 9.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Both passes run the same images through the same trunk, usually in the same batches, and drift compensation needs the
 * features of the network before training. For each batch the first pass keeps, as far as there is room, the trunk's
 * output and the drifting columns of the features. The second pass finds them by the digest of the images.
 *
 * A cached result is bitwise the computed one. Without it, as after loading a task, with other batches, or with more
 * images than fit, learning only takes longer. The cache belongs to the open task and is not saved. */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "src/learner/learner.h"
#include "src/learner/source.h"

/* Trunks may take 1 / TRUNK_PART of the size of the task's workspace. */
#define TRUNK_PART 4
/* Images whose features are kept: these take less memory than a trunk, by the number of tokens. */
#define FEATURE_IMAGES ((size_t)4 * DLI_DRIFT_SAMPLE)

struct dli_trunk_cache {
  struct dli_trunk_cache *next;
  uint64_t key;
  size_t count;
  float *trunk;    /* [count, tokens, dim] or NULL */
  float *features; /* [count, drifting columns] or NULL */
};

static size_t trunk_size(const dlora_session *session) {
  return session->model->vit.tokens * session->model->vit.dim;
}

/* Copies the trunks of a session's parts to or from one array, in the order of the images. */
struct transfer {
  dlora_session *session;
  float *trunk;
  bool restore;
};

static void transfer_part(size_t begin, size_t end, size_t index, void *user) {
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
  const size_t room = dlora_session_workspace_size(task->session) / TRUNK_PART;
  const bool wants_trunk = values * sizeof(float) <= room - task->cached_bytes && learner->first_block > 0;
  const bool wants_features = learner->options.drift_compensation && dlora_learner_num_tasks(learner) > 0 &&
                              count <= FEATURE_IMAGES - task->cached_features;
  if (!dli_learner_trains(learner) || (task->source.num_images > 0 && task->planned_steps == 0)) return DLORA_OK;
  if (!wants_trunk && !wants_features) return DLORA_OK;
  dlora_status status = DLORA_OK;
  struct dli_trunk_cache *cached;
  DLI_TRY(DLI_NEW(allocator, cached, 1));
  cached->key = key;
  cached->count = count;
  if (wants_trunk) {
    DLI_TRY_DONE(DLI_NEW(allocator, cached->trunk, values));
    struct transfer transfer = {task->session, cached->trunk, false};
    dli_parallel_for(task->session->threads, count, transfer_part, &transfer);
    task->cached_bytes += values * sizeof(float);
  }
  if (wants_features) {
    const size_t width = learner->width;
    DLI_TRY_DONE(DLI_NEW(allocator, cached->features, count * columns));
    for (size_t i = 0; i < count; i++) {
      memcpy(cached->features + i * columns, task->work.views[0][DLI_BASE] + (i + 1) * width - columns,
             columns * sizeof *cached->features);
    }
    task->cached_features += count;
  }
  /* A ring in order of arrival: the entry after the last one found is mostly the next one wanted. */
  cached->next = task->trunk_cache ? task->trunk_cache->next : cached;
  if (task->trunk_cache) task->trunk_cache->next = cached;
  task->trunk_cache = cached;
  return DLORA_OK;
done:
  dli_free(allocator, cached->features);
  dli_free(allocator, cached->trunk);
  dli_free(allocator, cached);
  return status;
}

const struct dli_trunk_cache *dli_trunk_cache_find(struct dli_task *task, uint64_t key, size_t count) {
  struct dli_trunk_cache *cached = task->trunk_cache;
  if (!cached) return NULL;
  do {
    cached = cached->next;
    if (cached->key == key && cached->count == count) {
      task->trunk_cache = cached;
      return cached;
    }
  } while (cached != task->trunk_cache);
  return NULL;
}

int dli_trunk_cache_restore(const struct dli_trunk_cache *cached, dlora_session *session) {
  if (!cached || !cached->trunk) return 0;
  struct transfer transfer = {session, cached->trunk, true};
  session->count = cached->count;
  session->ran = 0;
  dli_parallel_for(session->threads, session->count, transfer_part, &transfer);
  return 1;
}

const float *dli_trunk_cache_features(const struct dli_trunk_cache *cached) {
  return cached ? cached->features : NULL;
}

void dli_trunk_cache_free(const dlora_learner *learner, struct dli_task *task) {
  while (task->trunk_cache) {
    struct dli_trunk_cache *cached = task->trunk_cache->next;
    if (cached == task->trunk_cache) {
      task->trunk_cache = NULL;
    } else {
      task->trunk_cache->next = cached->next;
    }
    dli_free(&learner->allocator, cached->features);
    dli_free(&learner->allocator, cached->trunk);
    dli_free(&learner->allocator, cached);
  }
}
