/* The rows of the table: what each method sets in the learner's options.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_BENCH_METHODS_H
#define DUALLORA_BENCH_METHODS_H

#include <stdbool.h>
#include <stddef.h>

#include "duallora/duallora.h"

typedef enum method_kind {
  METHOD_FROZEN_FINAL,
  METHOD_FROZEN_SEVERAL,
  METHOD_FROZEN_PROJECTION,
  METHOD_SEQUENTIAL,
  METHOD_SEQUENTIAL_DRIFT,
  METHOD_ORTHOGONAL_FINAL_NODRIFT,
  METHOD_ORTHOGONAL_FINAL,
  METHOD_ORTHOGONAL_NODRIFT,
  METHOD_ORTHOGONAL,
  METHOD_RESIDUAL,
  METHOD_PAPER,
  METHOD_DUAL,
  METHOD_DUAL_GATE,
  METHOD_DUAL_TWO_PASS,
  METHOD_DUAL_GIVEN,
  METHOD_JOINT,
  NUM_METHODS
} method_kind;

typedef struct method_info {
  const char *name;
  const char *description;
  const char *color; /* of its line in the plot */
  const char *dash;  /* stroke-dasharray; "" for a solid line */
} method_info;

const method_info *method_get(method_kind kind);
/** Options of a method: *options holds what is common to all methods (the defaults and what the command line says). The
 *  paper's reading keeps the common blocks unless paper_blocks. */
bool method_apply(method_kind kind, bool paper_blocks, dlora_learner_options *options);

#endif
