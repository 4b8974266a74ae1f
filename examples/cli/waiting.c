/* How idle threads wait.
 * SPDX-License-Identifier: Apache-2.0 */
#include "waiting.h"

#include <stdlib.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/auxv.h>
#endif

void wait_passively(char **argv) {
#if defined(__linux__)
  char path[4096];
  /* OpenMP's libraries read these when they are loaded, which is before main, and no function of theirs sets it. */
  static const char *const variables[] = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"};
  for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
    if (getenv(variables[i]) != NULL) return;
  /* Without an interpreter it was the dynamic linker that was started, with the program as an argument. */
  if (getauxval(AT_BASE) == 0) return;
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = '\0';
  if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0) execv(path, argv);
    /* The program was replaced or /proc is another machine's: it works as it is, in more processor time. */
#else
  (void)argv;
#endif
}
