/* Where libFuzzer is absent, and for regressions: runs a target on every file given, and on every file of every folder
 * given. After --accept, a file that the target refuses is a failure, and after --refuse one that it does not.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

/* Targets without one use this. */
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  return 0;
}

static enum { ANY, ACCEPT, REFUSE } wanted;
static size_t num_files;

static void run_file(const char *path) {
  FILE *file = fopen(path, "rb");
  struct stat info;
  if (!file || stat(path, &info) != 0) fuzz_fail("%s: %s", path, strerror(errno));
  const size_t size = (size_t)info.st_size;
  uint8_t *bytes = malloc(size ? size : 1); /* of its own size, so that a sanitizer sees one byte too many */
  if (!bytes || fread(bytes, 1, size, file) != size) fuzz_fail("%s cannot be read", path);
  fclose(file);
  const size_t before = fuzz_num_accepted;
  fprintf(stderr, "%s: ", path); /* the last one printed is the culprit */
  fuzz_peak = 0;
  LLVMFuzzerTestOneInput(bytes, size);
  fprintf(stderr, "%zu bytes, %zu of memory, %.1f times as many\n", size, fuzz_peak,
          (double)fuzz_peak / (double)(size ? size : 1));
  const int accepted = fuzz_num_accepted > before;
  if (wanted == ACCEPT && !accepted) fuzz_fail("%s was refused: %s", path, dlora_last_error());
  if (wanted == REFUSE && accepted) fuzz_fail("%s was accepted", path);
  free(bytes);
  num_files++;
}

static void run_folder(const char *folder) {
  DIR *stream = opendir(folder);
  if (!stream) fuzz_fail("%s: %s", folder, strerror(errno));
  for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
    char path[4096];
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    run_file(path);
  }
  closedir(stream);
}

int main(int argc, char **argv) {
  LLVMFuzzerInitialize(&argc, &argv);
  for (int i = 1; i < argc; i++) {
    struct stat info;
    if (strcmp(argv[i], "--accept") == 0) {
      wanted = ACCEPT;
    } else if (strcmp(argv[i], "--refuse") == 0) {
      wanted = REFUSE;
    } else if (stat(argv[i], &info) == 0 && S_ISDIR(info.st_mode)) {
      run_folder(argv[i]);
    } else {
      run_file(argv[i]);
    }
  }
  fprintf(stderr, "%zu files, %zu accepted\n", num_files, fuzz_num_accepted);
  return num_files ? EXIT_SUCCESS : EXIT_FAILURE;
}
