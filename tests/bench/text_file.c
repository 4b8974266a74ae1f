/* Text files that appear complete or not at all.
 * SPDX-License-Identifier: Apache-2.0 */
#include "text_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../examples/cli/dataset.h"

bool text_file_open(text_file *file, const char *folder, const char *name, problem *why) {
  char spare[128];
  snprintf(spare, sizeof spare, "%s.%ld.tmp", name, (long)getpid());
  file->stream = NULL;
  file->path = dataset_join(folder, name);
  file->temporary = dataset_join(folder, spare);
  if (file->path == NULL || file->temporary == NULL)
    problem_set(why, "no memory for a file name");
  else if ((file->stream = fopen(file->temporary, "w")) == NULL)
    problem_set(why, "cannot write %s: %s", file->temporary, strerror(errno));
  if (file->stream != NULL) return true;
  free(file->path);
  free(file->temporary);
  return false;
}

bool text_file_close(text_file *file, problem *why) {
  bool done = !ferror(file->stream);
  done = fclose(file->stream) == 0 && done;
  if (done) done = rename(file->temporary, file->path) == 0;
  if (!done) {
    problem_set(why, "cannot write %s: %s", file->path, strerror(errno));
    unlink(file->temporary);
  }
  free(file->path);
  free(file->temporary);
  return done;
}
