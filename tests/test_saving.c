/* Saving leaves the old file or the new one, whatever happens.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support.h"

/* A projector of some size, different for every seed. */
static dlora_projector *make_projector(uint32_t seed) {
  enum { DIM = 128, ROWS = 96 };
  static float rows[ROWS * DIM];
  dlora_projector *projector = NULL;
  size_t added = 0;
  for (size_t i = 0; i < ROWS * DIM; i++) rows[i] = test_normal(&seed);
  assert_status(DLORA_OK, dlora_projector_create(&projector, DIM, NULL));
  assert_status(DLORA_OK, dlora_projector_observe(projector, rows, ROWS));
  assert_status(DLORA_OK, dlora_projector_commit_task(projector, 0.99f, &added));
  assert_true(added > 10);
  return projector;
}

static size_t count_files(const char *path) {
  char folder[4096];
  snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = '\0';
  DIR *opened = opendir(folder);
  size_t count = 0;
  assert_non_null(opened);
  while (readdir(opened)) count++;
  closedir(opened);
  return count;
}

static void expect_bytes(const char *path, const void *expected, size_t expected_size) {
  size_t size = 0;
  unsigned char *found = test_read_file(path, &size);
  assert_int_equal(size, expected_size);
  assert_memory_equal(found, expected, size);
  free(found);
}

static void failed_saving_leaves_the_old_file_and_nothing_else(void **state) {
  (void)state;
  const char *path = test_temporary("saved.safetensors");
  dlora_projector *old = make_projector(1);
  dlora_projector *fresh = make_projector(2);
  struct rlimit unlimited;
  size_t size = 0;
  assert_status(DLORA_OK, dlora_projector_save(old, path));
  unsigned char *bytes = test_read_file(path, &size);
  const size_t files = count_files(path);

  /* A file that may not grow further fails as a full disk does: the write is cut short, then refused. */
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  void (*previous)(int) = signal(SIGXFSZ, SIG_IGN);
  const rlim_t limits[] = {0, 4, 8, 100, (rlim_t)size / 2, (rlim_t)size - 1};
  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    const struct rlimit limited = {limits[i], unlimited.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
    const dlora_status status = dlora_projector_save(fresh, path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_status(DLORA_ERR_IO, status);
    assert_error_names(path);
    assert_error_names(strerror(EFBIG));
    assert_int_equal(count_files(path), files);
    expect_bytes(path, bytes, size);
  }
  signal(SIGXFSZ, previous);

  assert_status(DLORA_OK, dlora_projector_save(fresh, path));
  assert_int_equal(count_files(path), files);
  dlora_projector *loaded = NULL;
  assert_status(DLORA_OK, dlora_projector_load(&loaded, path, NULL));
  assert_int_equal(dlora_projector_size(loaded), dlora_projector_size(fresh));
  dlora_projector_destroy(loaded);
  dlora_projector_destroy(fresh);
  dlora_projector_destroy(old);
  free(bytes);
}

static void places_that_cannot_be_written_are_named(void **state) {
  (void)state;
  dlora_projector *projector = make_projector(3);
  const char *nowhere = test_temporary("no-folder/file");
  assert_status(DLORA_ERR_IO, dlora_projector_save(projector, nowhere));
  assert_error_names(nowhere);
  assert_error_names(strerror(ENOENT));
  assert_status(DLORA_ERR_IO, dlora_projector_save(projector, "/tmp"));
  assert_error_names("directory");
  assert_status(DLORA_ERR_IO, dlora_projector_save(projector, ""));

  /* Renaming over a pipe or a device would destroy it. */
  const char *pipe_path = test_temporary("pipe");
  struct stat info;
  assert_int_equal(mkfifo(pipe_path, 0600), 0);
  assert_status(DLORA_ERR_IO, dlora_projector_save(projector, pipe_path));
  assert_error_names(pipe_path);
  assert_int_equal(stat(pipe_path, &info), 0);
  assert_true(S_ISFIFO(info.st_mode));
  assert_int_equal(unlink(pipe_path), 0);
  dlora_projector_destroy(projector);
}

static void saving_respects_links_permissions_and_umask(void **state) {
  (void)state;
  dlora_projector *projector = make_projector(4);
  const char *target = test_temporary("target.safetensors");
  const char *link_path = test_temporary("link.safetensors");
  struct stat info;
  const mode_t previous = umask(027);
  const dlora_status status = dlora_projector_save(projector, target);
  umask(previous);
  assert_status(DLORA_OK, status);
  assert_int_equal(stat(target, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0640);

  assert_int_equal(chmod(target, 0604), 0);
  assert_int_equal(symlink(target, link_path), 0);
  assert_status(DLORA_OK, dlora_projector_save(projector, link_path));
  assert_int_equal(lstat(link_path, &info), 0);
  assert_true(S_ISLNK(info.st_mode));
  assert_int_equal(stat(target, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0604);
  dlora_projector_destroy(projector);
}

static void a_killed_process_leaves_the_old_file_or_the_new_one(void **state) {
  (void)state;
  const char *path = test_temporary("killed.safetensors");
  dlora_projector *projectors[2] = {make_projector(5), make_projector(6)};
  unsigned char *bytes[2];
  size_t sizes[2];
  for (size_t i = 0; i < 2; i++) {
    assert_status(DLORA_OK, dlora_projector_save(projectors[i], path));
    bytes[i] = test_read_file(path, &sizes[i]);
  }
  assert_false(sizes[0] == sizes[1] && memcmp(bytes[0], bytes[1], sizes[0]) == 0);
  for (int round = 0; round < 20; round++) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      for (size_t i = 0;; i++) {
        if (dlora_projector_save(projectors[i % 2], path) != DLORA_OK) _exit(1);
      }
    }
    const struct timespec delay = {0, 1000000L + 733000L * round};
    nanosleep(&delay, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
    int outcome = 0;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFSIGNALED(outcome));
    size_t size = 0;
    unsigned char *found = test_read_file(path, &size);
    const int is_one_of_them = (size == sizes[0] && memcmp(found, bytes[0], size) == 0) ||
                               (size == sizes[1] && memcmp(found, bytes[1], size) == 0);
    assert_true(is_one_of_them);
    free(found);
  }
  for (size_t i = 0; i < 2; i++) {
    free(bytes[i]);
    dlora_projector_destroy(projectors[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(failed_saving_leaves_the_old_file_and_nothing_else),
      cmocka_unit_test(places_that_cannot_be_written_are_named),
      cmocka_unit_test(saving_respects_links_permissions_and_umask),
      cmocka_unit_test(a_killed_process_leaves_the_old_file_or_the_new_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
