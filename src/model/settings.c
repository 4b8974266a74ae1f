/* What a model is set to beyond the shapes of its tensors, and who said it, as text: dlora_model_get_setting.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/number.h"
#include "base/status.h"
#include "src/model/model.h"

dlora_status dlora_model_setting_init(dlora_model_setting *setting, size_t size) {
  const dlora_model_setting full = DLORA_MODEL_SETTING_INIT;
  return dli_struct_write("dlora_model_setting", setting, size, &full, sizeof full);
}

static void write_triple(const float values[3], char out[DLI_SETTING_SIZE]) {
  char text[3][32];
  for (size_t c = 0; c < 3; c++) dli_float_format(values[c], text[c]);
  snprintf(out, DLI_SETTING_SIZE, "%s,%s,%s", text[0], text[1], text[2]);
}

static void write_value(const struct dli_settings *settings, enum dli_setting_id id, char out[DLI_SETTING_SIZE]) {
  const dlora_model_options *o = &settings->options;
  const int32_t words[DLI_NUM_SETTINGS] = {
      [DLI_SET_POOL] = o->pool,
      [DLI_SET_ACTIVATION] = o->activation,
      [DLI_SET_POSITION_RESAMPLING] = o->position_resampling,
      [DLI_SET_RESIZE] = o->resize,
      [DLI_SET_INTERPOLATION] = o->interpolation,
  };
  switch (id) {
    case DLI_SET_NUM_HEADS:
    case DLI_SET_IMAGE_SIZE:
      snprintf(out, DLI_SETTING_SIZE, "%zu", id == DLI_SET_NUM_HEADS ? o->num_heads : o->image_size);
      return;
    case DLI_SET_LAYER_NORM_EPS:
    case DLI_SET_CROP_FRACTION:
      dli_float_format(id == DLI_SET_CROP_FRACTION ? o->crop_fraction : o->layer_norm_eps, out);
      return;
    case DLI_SET_MEAN:
    case DLI_SET_STD:
      write_triple(id == DLI_SET_MEAN ? o->mean : o->std, out);
      return;
    default:
      snprintf(out, DLI_SETTING_SIZE, "%s", dli_setting_word(id, words[id]));
  }
}

void dli_model_describe_settings(dlora_model *model) {
  for (int id = 0; id < DLI_NUM_SETTINGS; id++) {
    write_value(&model->settings, (enum dli_setting_id)id, model->setting_values[id]);
  }
}

size_t dlora_model_num_settings(const dlora_model *model) {
  return model ? DLI_NUM_SETTINGS : 0;
}

dlora_status dlora_model_get_setting(const dlora_model *model, size_t index, dlora_model_setting *setting) {
  DLI_REQUIRE(model);
  DLI_REQUIRE(setting);
  if (index >= DLI_NUM_SETTINGS) {
    return dli_raise(DLORA_ERR_ARGUMENT, "dlora_model_get_setting: index is %zu, expected it below %d", index,
                     (int)DLI_NUM_SETTINGS);
  }
  const dlora_model_setting full = {
      .struct_size = sizeof full,
      .name = dli_setting_name((enum dli_setting_id)index),
      .value = model->setting_values[index],
      .place = model->settings.of[index].place,
      .origin = model->settings.of[index].origin,
  };
  return dli_struct_write("dlora_model_setting", setting, setting->struct_size, &full, sizeof full);
}
