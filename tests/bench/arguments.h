/* The bench's command line.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_ARGUMENTS_H
#define DUALLORA_BENCH_ARGUMENTS_H

#include "../../examples/cli/settings.h"
#include "methods.h"
#include "sequences.h"

#define MAX_SEEDS 64

enum { EVALUATE_ALL = 0, EVALUATE_LAST = 1 };

typedef struct arguments {
  backbone_settings backbone;
  sequence_request data; /* kind is set for each sequence in turn */
  bool sequences[NUM_SEQUENCES];
  bool methods[NUM_METHODS];
  double floors[NUM_METHODS]; /* least mean last accuracy in %; below 0: none */
  bool has_floors;
  uint64_t seeds[MAX_SEEDS];
  size_t num_seeds;
  dlora_learner_options options; /* common to all methods */
  bool paper_blocks;
  int32_t evaluate;      /* EVALUATE_... */
  size_t unknown_images; /* for the AUROC, of either kind a stage; 0: not measured */
  bool skipped_shift;    /* --sequences all, and no data for domain-shift */
  const char *out;
  bool again;
  bool quiet;
  bool verbose;
} arguments;

/** Returns true to go on; otherwise *code is the exit code, after the help or the mistake was printed. */
bool arguments_parse(arguments *to, int argc, char **argv, int *code);

#endif
