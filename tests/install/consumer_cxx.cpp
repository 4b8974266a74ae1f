// The header and the library from C++: names have C linkage, options start from the macro.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>

#include "duallora/duallora.h"

int main() {
  dlora_projector_options options = DLORA_PROJECTOR_OPTIONS_INIT;
  dlora_projector *made = nullptr;
  if (dlora_projector_create(&made, 2, &options) != DLORA_OK) {
    std::puts(dlora_last_error());
    return 1;
  }
  const std::unique_ptr<dlora_projector, void (*)(dlora_projector *)> projector(made, dlora_projector_destroy);
  const float x[] = {3.0f, 0.0f};
  size_t added = 0;
  if (dlora_projector_observe(made, x, 1) || dlora_projector_commit_task(made, 0.95f, &added)) {
    std::puts(dlora_last_error());
    return 1;
  }
  // Saved and read back: the reader of files is linked with its parser.
  const char *path = "consumer_cxx.safetensors";
  dlora_projector *read = nullptr;
  if (dlora_projector_save(made, path) || dlora_projector_load(&read, path, &options)) {
    std::puts(dlora_last_error());
    return 1;
  }
  const size_t size = dlora_projector_size(read);
  dlora_projector_destroy(read);
  std::remove(path);
  std::printf("duallora %s (%s): %d direction\n", dlora_version(), dlora_build_info(), static_cast<int>(size));
  return added == 1 && size == 1 ? 0 : 1;
}
