/* What a backbone expects of its images, beside mean and standard deviation: an image is resized to r = floor(s / f)
 * pixels on the shorter side or on both, by a cubic or a triangle, and its centre of s x s is cut out (s image_size, f
 * crop_fraction). And the rule by which its positions are resampled.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "vit/loader.h"

/* f is a float, and s / f may lie below a whole number by its rounding alone. */
#define ROUNDING 0x1p-22

dlora_status dli_vit_settle_preprocessing(struct dli_vit_loader *l) {
  struct dli_vit *vit = l->vit;
  struct dli_settings *s = l->settings;
  const bool is_timm = vit->naming == DLORA_NAMING_TIMM;
  char who[DLI_WHO_SIZE];
  dli_settings_fill(s, DLI_SET_POSITION_RESAMPLING, DLORA_ORIGIN_DEFAULT, "",
                    (double[]){(double)(is_timm ? DLORA_POSITIONS_TIMM : DLORA_POSITIONS_HUGGING_FACE)});
  dli_settings_fill(s, DLI_SET_RESIZE, DLORA_ORIGIN_DEFAULT, "", (double[]){(double)DLORA_RESIZE_SQUASH});
  dli_settings_fill(s, DLI_SET_INTERPOLATION, DLORA_ORIGIN_DEFAULT, "",
                    (double[]){(double)DLORA_INTERPOLATION_BICUBIC});
  dli_settings_fill(s, DLI_SET_CROP_FRACTION, DLORA_ORIGIN_DEFAULT, "", (double[]){1.0});
  vit->position_resampling = s->options.position_resampling;
  vit->resize = s->options.resize;
  vit->interpolation = s->options.interpolation;
  vit->crop_fraction = s->options.crop_fraction;
  if (vit->crop_fraction >= DLI_LEAST_CROP && vit->crop_fraction <= 1.0f) return DLORA_OK;
  return dli_raise(dli_settings_blame(s, DLI_SET_CROP_FRACTION), "%s: %s is %g, expected %g to 1",
                   dli_tensors_label(l->tensors), dli_settings_who(s, DLI_SET_CROP_FRACTION, who),
                   (double)vit->crop_fraction, (double)DLI_LEAST_CROP);
}

struct dli_image_format dli_vit_image_format(const struct dli_vit *vit) {
  struct dli_image_format format = {
      .image_size = vit->image_size,
      .resized = (size_t)floor((double)vit->image_size / (double)vit->crop_fraction * (1.0 + ROUNDING)),
      .squash = vit->resize == DLORA_RESIZE_SQUASH,
      .even_centre = vit->naming == DLORA_NAMING_TIMM,
      .filter = vit->interpolation == DLORA_INTERPOLATION_BILINEAR ? DLI_FILTER_LINEAR : DLI_FILTER_CUBIC,
  };
  memcpy(format.mean, vit->mean, sizeof format.mean);
  memcpy(format.std, vit->std, sizeof format.std);
  return format;
}
