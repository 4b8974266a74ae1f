/* Names of classes, kept in order of their ids.
 * SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/json_text.h"
#include "src/learner/learner.h"

/* Where the class stands among the names, or would stand: many names must not make each of them slow. */
static size_t find_name(const dlora_learner *learner, int64_t class_id) {
  size_t low = 0, high = learner->num_names;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (learner->names[middle].class_id < class_id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

dlora_status dlora_learner_set_class_name(dlora_learner *learner, int64_t class_id, const char *name) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(name);
  if (!dli_is_utf8(name, strlen(name))) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_set_class_name: the name of class %lld is not UTF-8",
                     (long long)class_id);
  }
  char *copy = dli_strdup(&learner->allocator, name);
  if (!copy) return DLORA_ERR_NO_MEMORY;
  const size_t at = find_name(learner, class_id);
  if (at < learner->num_names && learner->names[at].class_id == class_id) {
    dli_free(&learner->allocator, learner->names[at].name);
    learner->names[at].name = copy;
    return DLORA_OK;
  }
  if (learner->num_names == learner->max_names) {
    const size_t capacity = learner->max_names ? 2 * learner->max_names : 16;
    struct dli_class_name *names = dli_alloc(&learner->allocator, capacity, sizeof *names);
    if (!names) {
      dli_free(&learner->allocator, copy);
      return DLORA_ERR_NO_MEMORY;
    }
    if (learner->num_names) memcpy(names, learner->names, learner->num_names * sizeof *names);
    dli_free(&learner->allocator, learner->names);
    learner->names = names;
    learner->max_names = capacity;
  }
  memmove(learner->names + at + 1, learner->names + at, (learner->num_names - at) * sizeof *learner->names);
  learner->names[at] = (struct dli_class_name){class_id, copy};
  learner->num_names++;
  return DLORA_OK;
}

const char *dlora_learner_get_class_name(const dlora_learner *learner, int64_t class_id) {
  const size_t at = learner ? find_name(learner, class_id) : 0;
  if (!learner || at == learner->num_names || learner->names[at].class_id != class_id) return NULL;
  return learner->names[at].name;
}
