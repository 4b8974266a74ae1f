/* Where time goes: seconds by kind of work, summed section by section. One thread at a time may use a profile.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_PROFILE_H
#define DLI_BASE_PROFILE_H

enum dli_section {
  DLI_PREPROCESSING,
  DLI_PRODUCTS,
  DLI_HOOKS, /* what a caller of lib/vit does in its hooks */
  DLI_ATTENTION,
  DLI_NORMS,
  DLI_ACTIVATION,
  DLI_COPIES,
  DLI_LOSS,
  DLI_OPTIMIZER,
  DLI_OWN_SECTIONS, /* the first of those that the owner of a profile has names for */
  DLI_NUM_SECTIONS = DLI_OWN_SECTIONS + 4
};

struct dli_profile {
  double seconds[DLI_NUM_SECTIONS];
  double last; /* when the running section began */
};

/* Seconds of a clock that never goes back. */
double dli_seconds(void);
/* What comes now belongs to the section that the next lap names. */
void dli_profile_start(struct dli_profile *profile);
/* Ends a section and begins the next one. A reading of the clock costs some 30 ns: sections are loops over a whole
 * micro-batch, never parts of one. */
void dli_profile_lap(struct dli_profile *profile, int section);
void dli_profile_add(struct dli_profile *sum, const struct dli_profile *part);

#endif
