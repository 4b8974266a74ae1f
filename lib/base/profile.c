/* Seconds by kind of work, read from the monotonic clock.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/profile.h"

#include <time.h>

#include "base/assert.h"

double dli_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void dli_profile_start(struct dli_profile *profile) {
  profile->last = dli_seconds();
}

void dli_profile_lap(struct dli_profile *profile, int section) {
  DLI_ASSERT(section >= 0 && section < DLI_NUM_SECTIONS);
  const double now = dli_seconds();
  profile->seconds[section] += now - profile->last;
  profile->last = now;
}

void dli_profile_add(struct dli_profile *sum, const struct dli_profile *part) {
  for (int i = 0; i < DLI_NUM_SECTIONS; i++) sum->seconds[i] += part->seconds[i];
}
