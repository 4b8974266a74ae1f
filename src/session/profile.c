/* Times of a session and of a learner, as the public struct dlora_profile.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/profile.h"

#include "base/status.h"
#include "src/session/session.h"

void dli_session_add_profile(const dlora_session *session, struct dli_profile *sum) {
  for (size_t i = 0; i < session->threads; i++) dli_profile_add(sum, &session->parts[i].workspace.profile);
}

dlora_status dli_profile_write(const struct dli_profile *profile, dlora_profile *out) {
  const double *s = profile->seconds;
  const dlora_profile full = {
      .struct_size = sizeof full,
      .preprocessing = s[DLI_PREPROCESSING],
      .products = s[DLI_PRODUCTS],
      .adapters = s[DLI_HOOKS],
      .attention = s[DLI_ATTENTION],
      .norms = s[DLI_NORMS],
      .activation = s[DLI_ACTIVATION],
      .copies = s[DLI_COPIES],
      .loss = s[DLI_LOSS],
      .optimizer = s[DLI_OPTIMIZER],
      .observation = s[DLI_OBSERVATION],
      .directions = s[DLI_DIRECTIONS],
      .task_end = s[DLI_TASK_END],
  };
  return dli_struct_write("dlora_profile", out, out->struct_size, &full, sizeof full);
}

dlora_status dlora_profile_init(dlora_profile *profile, size_t size) {
  const dlora_profile full = DLORA_PROFILE_INIT;
  return dli_struct_write("dlora_profile", profile, size, &full, sizeof full);
}

dlora_status dlora_session_get_profile(const dlora_session *session, dlora_profile *profile) {
  DLI_REQUIRE(session);
  DLI_REQUIRE(profile);
  struct dli_profile sum = {0};
  dli_session_add_profile(session, &sum);
  return dli_profile_write(&sum, profile);
}
