/* Where the time of a learner goes: its own sections and those of the open task's session.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/profile.h"

#include "base/status.h"
#include "src/learner/learner.h"

dlora_status dlora_learner_get_profile(const dlora_learner *learner, dlora_profile *profile) {
  DLI_REQUIRE(learner);
  DLI_REQUIRE(profile);
  struct dli_profile sum = learner->profile;
  if (learner->task) dli_session_add_profile(learner->task->session, &sum);
  return dli_profile_write(&sum, profile);
}
