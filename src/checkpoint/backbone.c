/* Which backbone a learner in a file belongs to:
 *
 *   metadata  fingerprint, image_size; resize, interpolation and crop_fraction where they are not squash, bicubic and 1
 *
 * The fingerprint alone decides; the others make a sentence of it. It is taken of the positions as they are used, so
 * that it tells the rule by which they were resampled. A learner keeps that rule, whatever the model's is: in files of
 * older libraries it is timm's, also where the tensors have the names of Hugging Face.
 * SPDX-License-Identifier: Apache-2.0 */
#include "src/checkpoint/backbone.h"

#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/status.h"
#include "vit/settings.h"

struct resizing {
  const char *key, *usual; /* the value that is not written */
  const char *value;       /* here */
};

enum { NUM_RESIZING = 3, NUMBER_SIZE = 32 };

static void resizing_of(const struct dli_vit *vit, char fraction[NUMBER_SIZE], struct resizing out[NUM_RESIZING]) {
  dli_float_format(vit->crop_fraction, fraction);
  out[0] = (struct resizing){"resize", "squash", dli_setting_word(DLI_SET_RESIZE, vit->resize)};
  out[1] = (struct resizing){"interpolation", "bicubic", dli_setting_word(DLI_SET_INTERPOLATION, vit->interpolation)};
  out[2] = (struct resizing){"crop_fraction", "1", fraction};
}

dlora_status dli_backbone_write(const dlora_model *model, struct dli_writer *writer) {
  char text[NUMBER_SIZE];
  struct resizing resizing[NUM_RESIZING];
  DLI_TRY(dli_writer_set_metadata(writer, "fingerprint", model->vit.fingerprint));
  snprintf(text, sizeof text, "%zu", model->vit.image_size);
  DLI_TRY(dli_writer_set_metadata(writer, "image_size", text));
  resizing_of(&model->vit, text, resizing);
  for (size_t i = 0; i < NUM_RESIZING; i++) {
    if (strcmp(resizing[i].value, resizing[i].usual) == 0) continue;
    DLI_TRY(dli_writer_set_metadata(writer, resizing[i].key, resizing[i].value));
  }
  return DLORA_OK;
}

static dlora_status refuse(const struct dli_tensors *tensors, const char *found, const struct dli_vit *vit) {
  const char *label = dli_tensors_label(tensors), *size = dli_tensors_metadata(tensors, "image_size");
  char fraction[NUMBER_SIZE], differences[256] = "";
  size_t used = 0;
  struct resizing resizing[NUM_RESIZING];
  resizing_of(vit, fraction, resizing);
  for (size_t i = 0; i < NUM_RESIZING; i++) {
    const char *written = dli_tensors_metadata(tensors, resizing[i].key);
    const char *there = written ? written : resizing[i].usual;
    if (strcmp(there, resizing[i].value) == 0) continue;
    used += (size_t)snprintf(differences + used, sizeof differences - used,
                             "; its option %s was %.16s, here it is %.16s", resizing[i].key, there, resizing[i].value);
  }
  return dli_raise(DLORA_ERR_MISMATCH,
                   "%s: was learnt on the backbone with fingerprint %.40s at image size %.8s; this one has %s at %zu%s",
                   label, found, size ? size : "?", vit->fingerprint, vit->image_size, differences);
}

dlora_status dli_backbone_find(dlora_model **own, const struct dli_tensors *tensors, const dlora_model *model,
                               const dlora_allocator *allocator) {
  const char *found = dli_tensors_metadata(tensors, "fingerprint");
  *own = NULL;
  if (!found) {
    return dli_raise(DLORA_ERR_FORMAT, "%s: metadata fingerprint is missing", dli_tensors_label(tensors));
  }
  if (strcmp(found, model->vit.fingerprint) == 0) return DLORA_OK;
  DLI_TRY(dli_model_with_other_positions(own, model, allocator));
  if (*own && strcmp(found, (*own)->vit.fingerprint) == 0) return DLORA_OK;
  dli_model_free_copy(*own);
  *own = NULL;
  return refuse(tensors, found, &model->vit);
}
