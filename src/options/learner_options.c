/* The learner's options: defaults, the paper's preset, checks.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/status.h"
#include "src/options/options.h"

dlora_status dlora_learner_options_init(dlora_learner_options *options, size_t size) {
  const dlora_learner_options defaults = DLORA_LEARNER_OPTIONS_INIT;
  return dli_struct_write("dlora_learner_options", options, size, &defaults, sizeof defaults);
}

dlora_status dlora_learner_options_paper(dlora_learner_options *options, size_t size) {
  dlora_learner_options paper = DLORA_LEARNER_OPTIONS_INIT;
  paper.first_block = 0;
  paper.epochs = 4;
  paper.batch_size = 32;
  paper.flip = DLORA_FLIP_TRAINING;
  paper.feature_layers = DLORA_FEATURE_LAYERS_FINAL;
  paper.residual_basis = DLORA_RESIDUAL_IN_NEW;
  paper.routing = DLORA_ROUTING_ENERGY;
  paper.loss_classes = DLORA_LOSS_CLASSES_TASK;
  paper.class_scores = DLORA_CLASS_SCORES_HEAD;
  paper.drift_compensation = 0;
  paper.loss_temperature = 1.0f;
  paper.crop_scale = 1.0f;
  paper.jitter = 0.0f;
  paper.merge_decay = 0.0f;
  paper.residual_merge_fraction = 0.0f;
  paper.learning_rate = 1e-3f;
  return dli_struct_write("dlora_learner_options", options, size, &paper, sizeof paper);
}

dlora_status dli_learner_options_read(const dlora_learner_options *given, const dlora_learner_options *defaults,
                                      dlora_learner_options *out) {
  *out = *defaults;
  return dli_options_read("dlora_learner_options", out, sizeof *out, given);
}

static dlora_status choice(const char *name, int32_t value, int32_t last) {
  if (value >= 0 && value <= last) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is %d, expected 0 to %d", name, (int)value,
                   (int)last);
}

/* bound: what the highest value is called, or NULL */
static dlora_status at_most(const char *name, size_t value, size_t highest, const char *bound) {
  if (value <= highest) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is %zu, expected at most %s%s%zu", name, value,
                   bound ? bound : "", bound ? " " : "", highest);
}

/* low < value <= high, or low <= value where inclusive */
static dlora_status range(const char *name, float value, float low, int inclusive, float high) {
  if (isfinite(value) && (inclusive ? value >= low : value > low) && value <= high) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is %g, expected it %s %g and at most %.7g", name,
                   (double)value, inclusive ? "at least" : "above", (double)low, (double)high);
}

static dlora_status not_negative(const char *name, int32_t value) {
  if (value >= 0) return DLORA_OK;
  return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: %s is %d, expected 0 or more", name, (int)value);
}

/* What depends on the model's geometry. */
static dlora_status check_geometry(const dlora_learner_options *o, const struct dli_vit *vit) {
  if (o->first_block >= (int32_t)vit->depth) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: first_block is %d, the model has %zu blocks",
                     (int)o->first_block, vit->depth);
  }
  if (o->num_blocks > (int32_t)vit->depth) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: num_blocks is %d, the model has %zu blocks",
                     (int)o->num_blocks, vit->depth);
  }
  DLI_TRY(at_most("rank_orthogonal", o->rank_orthogonal, vit->dim, "embed_dim"));
  DLI_TRY(at_most("rank_residual", o->rank_residual, vit->dim, "embed_dim"));
  if ((size_t)o->crop_padding >= vit->image_size) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: crop_padding is %d, the image size is %zu",
                     (int)o->crop_padding, vit->image_size);
  }
  return DLORA_OK;
}

dlora_status dli_learner_options_check(const dlora_learner_options *o, const struct dli_vit *vit) {
  const int32_t all =
      DLORA_SITE_QUERY | DLORA_SITE_KEY | DLORA_SITE_VALUE | DLORA_SITE_OUTPUT | DLORA_SITE_FC1 | DLORA_SITE_FC2;
  if (!o->sites || (o->sites & ~all)) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: sites is %d, expected DLORA_SITE_... or-ed",
                     (int)o->sites);
  }
  if (o->first_block < DLORA_BLOCKS_UPPER_THREE_QUARTERS) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: first_block is %d, expected %d or more",
                     (int)o->first_block, (int)DLORA_BLOCKS_UPPER_THREE_QUARTERS);
  }
  DLI_TRY(not_negative("num_blocks", o->num_blocks));
  DLI_TRY(not_negative("crop_padding", o->crop_padding));
  if (vit) DLI_TRY(check_geometry(o, vit));
  if (!o->batch_size || o->batch_size > 1 << 20) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: batch_size is %zu, expected 1 to 1048576",
                     o->batch_size);
  }
  if (o->epochs != DLORA_EPOCHS_AUTO) DLI_TRY(at_most("epochs", o->epochs, 1 << 20, NULL));
  DLI_TRY(at_most("micro_batch", o->micro_batch, 1 << 16, NULL));
  DLI_TRY(at_most("threads", o->threads, 1 << 12, NULL));
  if (!o->random_features || o->random_features > 1 << 16) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_learner_options: random_features is %zu, expected 1 to 65536",
                     o->random_features);
  }
  DLI_TRY(choice("feature_layers", o->feature_layers, DLORA_FEATURE_LAYERS_AT_MIDDLE));
  DLI_TRY(choice("readout", o->readout, DLORA_READOUT_RANDOM_PROJECTION));
  DLI_TRY(choice("residual_basis", o->residual_basis, DLORA_RESIDUAL_RANDOM));
  DLI_TRY(choice("routing", o->routing, DLORA_ROUTING_NONE));
  DLI_TRY(choice("loss_classes", o->loss_classes, DLORA_LOSS_CLASSES_TASK));
  DLI_TRY(choice("class_scores", o->class_scores, DLORA_CLASS_SCORES_BOTH));
  DLI_TRY(choice("observed_tokens", o->observed_tokens, DLORA_TOKENS_CLASS));
  DLI_TRY(choice("optimizer", o->optimizer, DLORA_OPTIMIZER_SGD));
  DLI_TRY(choice("flip", o->flip, DLORA_FLIP_EVERYWHERE));
  DLI_TRY(choice("schedule", o->schedule, DLORA_SCHEDULE_CONSTANT));
  DLI_TRY(range("energy_threshold", o->energy_threshold, 0.0f, 0, 1.0f));
  DLI_TRY(range("learning_rate", o->learning_rate, 0.0f, 1, 1e6f));
  DLI_TRY(range("beta1", o->beta1, 0.0f, 1, 0.9999999f));
  DLI_TRY(range("beta2", o->beta2, 0.0f, 1, 0.9999999f));
  DLI_TRY(range("epsilon", o->epsilon, 0.0f, 0, 1.0f));
  DLI_TRY(range("momentum", o->momentum, 0.0f, 1, 0.9999999f));
  DLI_TRY(range("weight_decay", o->weight_decay, 0.0f, 1, 1e6f));
  DLI_TRY(range("shrinkage", o->shrinkage, 0.0f, 1, 1e6f));
  DLI_TRY(range("temperature", o->temperature, 0.0f, 0, 1e6f));
  DLI_TRY(range("held_out", o->held_out, 0.0f, 1, 0.5f));
  DLI_TRY(range("ridge", o->ridge, 0.0f, 0, 1e6f));
  DLI_TRY(range("loss_temperature", o->loss_temperature, 0.0f, 0, 1e6f));
  DLI_TRY(range("crop_scale", o->crop_scale, 0.0f, 0, 1.0f));
  DLI_TRY(range("jitter", o->jitter, 0.0f, 1, 1.0f));
  DLI_TRY(range("later_task_lr_scale", o->later_task_lr_scale, 0.0f, 1, 1e6f));
  DLI_TRY(range("merge_decay", o->merge_decay, 0.0f, 1, 1e3f));
  DLI_TRY(range("residual_merge_fraction", o->residual_merge_fraction, 0.0f, 1, 1.0f));
  return range("unknown_quantile", o->unknown_quantile, 0.0f, 0, 0.999999f);
}

const char *dli_learner_options_difference(const dlora_learner_options *a, const dlora_learner_options *b) {
  if (a->sites != b->sites) return "sites";
  if (a->first_block != b->first_block) return "first_block";
  if (a->num_blocks != b->num_blocks) return "num_blocks";
  if (a->feature_layers != b->feature_layers) return "feature_layers";
  if (a->readout != b->readout) return "readout";
  if (!a->untouched_baseline != !b->untouched_baseline) return "untouched_baseline";
  if (!a->use_prior != !b->use_prior) return "use_prior";
  if (a->shrinkage != b->shrinkage) return "shrinkage";
  if (a->temperature != b->temperature) return "temperature";
  if (a->readout == DLORA_READOUT_RANDOM_PROJECTION) {
    if (a->ridge != b->ridge) return "ridge";
    if (a->random_features != b->random_features) return "random_features";
    if (a->seed != b->seed) return "seed";
  }
  return NULL;
}

dlora_bank_options dli_bank_options_of(const dlora_learner_options *o, const dlora_allocator *allocator) {
  const dlora_bank_options options = {sizeof options, allocator,  o->optimizer, o->beta1,
                                      o->beta2,       o->epsilon, o->momentum,  o->weight_decay};
  return options;
}

dlora_predictor_options dli_predictor_options_of(const dlora_learner_options *o, const dlora_allocator *allocator,
                                                 int32_t readout) {
  dlora_predictor_options options = DLORA_PREDICTOR_OPTIONS_INIT;
  options.allocator = allocator;
  options.seed = o->seed;
  options.random_features = o->random_features;
  options.readout = readout;
  options.use_prior = o->use_prior;
  options.shrinkage = o->shrinkage;
  options.temperature = o->temperature;
  options.ridge = o->ridge;
  return options;
}
