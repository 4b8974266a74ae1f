/* What each method sets.
 * SPDX-License-Identifier: Apache-2.0 */
#include "methods.h"

/* One colour per family, so that a plot of all of them can be read. */
static const method_info methods[NUM_METHODS] = {
    [METHOD_FROZEN_FINAL] = {"frozen-final", "untouched backbone, Gaussians on the final feature", "#8a8a8a", "6 3"},
    [METHOD_FROZEN_SEVERAL] = {"frozen-several", "untouched backbone, Gaussians on several layers", "#4d4d4d", "6 3"},
    [METHOD_FROZEN_PROJECTION] = {"frozen-projection",
                                  "untouched backbone, ridge regression on a random projection of the final feature",
                                  "#b5a642", "6 3"},
    [METHOD_SEQUENTIAL] = {"sequential", "one merged LoRA after another, nothing kept of earlier tasks; final feature",
                           "#f2a33a", ""},
    [METHOD_SEQUENTIAL_DRIFT] = {"sequential-drift", "sequential with drift compensation", "#c46a00", ""},
    [METHOD_ORTHOGONAL_FINAL_NODRIFT] = {"orthogonal-final-nodrift",
                                         "orthogonal branch; final feature, no drift compensation", "#9ecae1", "2 3"},
    [METHOD_ORTHOGONAL_FINAL] = {"orthogonal-final", "orthogonal branch; final feature, drift compensation", "#4292c6",
                                 "2 3"},
    [METHOD_ORTHOGONAL_NODRIFT] = {"orthogonal-nodrift", "orthogonal branch; several layers, no drift compensation",
                                   "#6baed6", ""},
    [METHOD_ORTHOGONAL] = {"orthogonal", "orthogonal branch; several layers, drift compensation", "#08519c", ""},
    [METHOD_RESIDUAL] = {"residual", "residual branch, as far as it is merged (routing none)", "#31a354", ""},
    [METHOD_PAPER] = {"paper", "both branches, without the untouched backbone, as the paper reads", "#8856a7", ""},
    [METHOD_DUAL] = {"dual", "both branches and the untouched backbone, weighted by evidence: the library's defaults",
                     "#d7191c", ""},
    [METHOD_DUAL_GATE] = {"dual-gate", "dual, task from where the first adapted block begins (routing early)",
                          "#e78ac3", "8 3"},
    [METHOD_DUAL_TWO_PASS] = {"dual-two-pass", "dual, task from a first pass over final features (routing two-pass)",
                              "#fb6a8a", "3 3"},
    [METHOD_DUAL_GIVEN] = {"dual-given", "dual, told the task of every image (routing given)", "#67000d", "2 3"},
    [METHOD_JOINT] = {"joint", "all classes as one task with the defaults: the upper bound", "#000000", "10 4"},
};

const method_info *method_get(method_kind kind) {
  return &methods[kind];
}

static void set_paper(const dlora_learner_options *paper, bool paper_blocks, dlora_learner_options *options) {
  options->feature_layers = paper->feature_layers;
  options->residual_basis = paper->residual_basis;
  options->routing = paper->routing;
  options->observed_tokens = paper->observed_tokens;
  options->loss_classes = paper->loss_classes;
  options->class_scores = paper->class_scores;
  options->drift_compensation = paper->drift_compensation;
  options->residual_merge_fraction = paper->residual_merge_fraction;
  options->merge_decay = paper->merge_decay;
  if (options->flip == DLORA_FLIP_EVERYWHERE) options->flip = paper->flip;
  if (options->epochs == DLORA_AUTO) options->epochs = paper->epochs;
  if (paper_blocks) {
    options->first_block = paper->first_block;
    options->num_blocks = paper->num_blocks;
  }
}

/* What adapters do by themselves: nothing of the untouched backbone, unless the command line gives it a weight. */
static void set_adapted_alone(dlora_learner_options *options) {
  if (options->untouched_weight != (float)DLORA_AUTO) return;
  options->untouched_weight = 0.0f;
  options->untouched_baseline = 0;
}

bool method_apply(method_kind kind, bool paper_blocks, dlora_learner_options *options) {
  dlora_learner_options paper;
  switch (kind) {
    case METHOD_FROZEN_FINAL:
    case METHOD_FROZEN_SEVERAL:
    case METHOD_FROZEN_PROJECTION:
      options->rank_orthogonal = options->rank_residual = 0;
      if (kind != METHOD_FROZEN_SEVERAL) options->feature_layers = DLORA_FEATURE_LAYERS_FINAL;
      if (kind == METHOD_FROZEN_PROJECTION) options->readout = DLORA_READOUT_RANDOM_PROJECTION;
      break;
    case METHOD_SEQUENTIAL:
    case METHOD_SEQUENTIAL_DRIFT:
      /* The learner always keeps used directions; at this threshold it is the one strongest of the first task in each
       * adapted block and nothing of later ones. All other directions are free for every task, both factors are
       * trained, the first from random rows, and the product is merged: LoRA after LoRA on one set of weights, but for
       * that direction. */
      options->rank_residual = 0;
      options->energy_threshold = 1e-6f;
      options->train_orthogonal_a = 1;
      options->merge_decay = 0.0f;
      options->feature_layers = DLORA_FEATURE_LAYERS_FINAL;
      options->drift_compensation = kind == METHOD_SEQUENTIAL_DRIFT;
      set_adapted_alone(options);
      break;
    case METHOD_ORTHOGONAL_FINAL_NODRIFT:
    case METHOD_ORTHOGONAL_FINAL:
      options->rank_residual = 0;
      options->feature_layers = DLORA_FEATURE_LAYERS_FINAL;
      options->drift_compensation = kind == METHOD_ORTHOGONAL_FINAL;
      set_adapted_alone(options);
      break;
    case METHOD_ORTHOGONAL_NODRIFT:
    case METHOD_ORTHOGONAL:
      options->rank_residual = 0;
      options->drift_compensation = kind == METHOD_ORTHOGONAL;
      set_adapted_alone(options);
      break;
    case METHOD_RESIDUAL:
      options->rank_orthogonal = 0;
      set_adapted_alone(options);
      break;
    case METHOD_PAPER:
      if (dlora_learner_options_paper(&paper, sizeof paper) != DLORA_OK) return false;
      set_paper(&paper, paper_blocks, options);
      set_adapted_alone(options);
      break;
    case METHOD_DUAL_GATE:
      options->routing = DLORA_ROUTING_EARLY;
      break;
    case METHOD_DUAL_TWO_PASS:
      options->routing = DLORA_ROUTING_TWO_PASS;
      break;
    case METHOD_DUAL_GIVEN:
      options->routing = DLORA_ROUTING_GIVEN;
      break;
    case METHOD_DUAL:
    case METHOD_JOINT:
    case NUM_METHODS:
      break;
  }
  return true;
}
