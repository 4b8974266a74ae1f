/* What shapes do not tell of a Vision Transformer, and who said it: the caller's options, the file's metadata, the JSON
 * files beside it, a table of the models that these name, or the family's defaults.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_VIT_SETTINGS_H
#define DLI_VIT_SETTINGS_H

#include <stdbool.h>

#include "duallora/duallora.h"
#include "io/model_folder.h"

enum dli_setting_id {
  DLI_SET_NUM_HEADS,
  DLI_SET_LAYER_NORM_EPS,
  DLI_SET_IMAGE_SIZE,
  DLI_SET_MEAN,
  DLI_SET_STD,
  DLI_SET_POOL,
  DLI_SET_ACTIVATION,
  DLI_SET_POSITION_RESAMPLING,
  DLI_SET_RESIZE,
  DLI_SET_INTERPOLATION,
  DLI_SET_CROP_FRACTION,
  DLI_NUM_SETTINGS
};

/* What config.json says of the tensors. */
enum dli_claim_id {
  DLI_CLAIM_DIM,
  DLI_CLAIM_DEPTH,
  DLI_CLAIM_MLP_DIM,
  DLI_CLAIM_PATCH_SIZE,
  DLI_CLAIM_REGISTERS,
  DLI_CLAIM_GATED,
  DLI_NUM_CLAIMS
};

enum { DLI_PLACE_SIZE = 96, DLI_WHO_SIZE = DLI_PLACE_SIZE + 32 };

struct dli_setting {
  bool set;
  int32_t origin;             /* DLORA_ORIGIN_... */
  char place[DLI_PLACE_SIZE]; /* "config.json: hidden_act"; "" for options and defaults */
};

struct dli_claim {
  bool made;
  size_t value;
  char place[DLI_PLACE_SIZE];
};

struct dli_settings {
  /* The caller's, and in the place of values that they leave to the file those that were found for it. */
  dlora_model_options options;
  struct dli_setting of[DLI_NUM_SETTINGS];
  struct dli_claim claims[DLI_NUM_CLAIMS];
  bool pool_is_token;              /* the pool was called so, which of a distilled DeiT means both tokens */
  size_t head_dim;                 /* of the table's model, in the place of a number of heads; 0: unknown */
  char head_place[DLI_PLACE_SIZE]; /* what names that model */
};

/* Looks each setting up in this order: options, metadata, JSON files, table. Errors: FORMAT, UNSUPPORTED. */
dlora_status dli_settings_read(struct dli_settings *out, const struct dli_model_files *files,
                               const dlora_model_options *options);

/* Says that a setting is taken from now on from here: of the tensors, or the family's default. Unless it is set. */
void dli_settings_take(struct dli_settings *settings, enum dli_setting_id id, int32_t origin, const char *place);
/* Whose mistake a setting's value is: ARGUMENT for an option, else FORMAT. */
dlora_status dli_settings_blame(const struct dli_settings *settings, enum dli_setting_id id);
/* "the option num_heads", "metadata num_heads", "config.json: num_attention_heads". out: returned. */
const char *dli_settings_who(const struct dli_settings *settings, enum dli_setting_id id, char out[DLI_WHO_SIZE]);
const char *dli_setting_name(enum dli_setting_id id);
/* The word for a value of DLORA_POOL_..., DLORA_ACTIVATION_..., and of the others that have words. */
const char *dli_setting_word(enum dli_setting_id id, int32_t value);
/* And back, also from what timm and transformers call it. */
bool dli_setting_parse(enum dli_setting_id id, const char *text, int32_t *value);
/* FORMAT where the file beside the weights claims another value than the tensors have: what is "depth", "embed_dim". */
dlora_status dli_settings_check_claim(const struct dli_settings *settings, enum dli_claim_id id, const char *label,
                                      const char *what, size_t value);

/* vit/settings_json.c: what config.json and preprocessor_config.json say, for what is not set. */
dlora_status dli_settings_read_json(struct dli_settings *settings, const struct dli_model_files *files);
/* For those: fills in what is not set. value: [3] of mean and std, else [1]. */
void dli_settings_fill(struct dli_settings *settings, enum dli_setting_id id, int32_t origin, const char *place,
                       const double *value);

/* vit/known_models.c, generated: what names tell. */
struct dli_known_architecture {
  size_t head_dim;
  float layer_norm_eps, mean[3], std[3], crop_fraction;
  int32_t activation, pool, resize, interpolation; /* DLORA_..._...; activation DLORA_AUTO: of a gated MLP */
  const char *names;                               /* of timm, each followed by a space */
};
struct dli_known_type {
  const char *name; /* of transformers: model_type */
  size_t num_heads, hidden_size, num_layers, patch_size;
  float layer_norm_eps;
  int32_t activation, pool;
  float mean[3], std[3];
};
extern const struct dli_known_architecture dli_known_architectures[];
extern const size_t dli_num_known_architectures;
extern const struct dli_known_type dli_known_types[];
extern const size_t dli_num_known_types;
extern const char *const dli_known_versions; /* of timm and transformers that the tables were made with */

#endif
