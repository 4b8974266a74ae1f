/* Parallel loops by OpenMP, and how many threads the BLAS may use for the calling thread. A child of fork has none of
 * the threads that OpenMP keeps; there everything runs on one thread.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/threads.h"

#include <sys/types.h>
#include <unistd.h>

#include "base/assert.h"

#ifdef _OPENMP
#include <limits.h>
#include <omp.h>
#define MAY_MEET_OPENMP 1
static bool openmp_is_here(void) {
  return true;
}
#elif defined(__GNUC__) && defined(__ELF__)
/* Built without OpenMP, but the BLAS may have brought it. */
extern int omp_get_max_threads(void) __attribute__((weak));
extern int omp_in_parallel(void) __attribute__((weak));
extern void omp_set_num_threads(int count) __attribute__((weak));
#define MAY_MEET_OPENMP 1
static bool openmp_is_here(void) {
  return omp_get_max_threads && omp_in_parallel && omp_set_num_threads;
}
#endif

size_t dli_threads_available(void) {
#ifdef _OPENMP
  const int count = omp_get_num_procs();
#else
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
#endif
  return count > 0 ? (size_t)count : 1;
}

size_t dli_threads_chosen(int32_t threads) {
  return threads > 0 ? (size_t)threads : dli_threads_available();
}

#ifdef MAY_MEET_OPENMP
/* Whether the calling thread has come through fork since it first did something here. The threads that the runtime
 * keeps for it were not copied, and it would wait for them for ever. A thread that had none then may start some. */
static bool threads_are_gone(void) {
  static _Thread_local pid_t first;
  const pid_t now = getpid();
  if (first == 0) first = now;
  return first != now;
}

size_t dli_threads_current(void) {
  return openmp_is_here() && !omp_in_parallel() ? (size_t)omp_get_max_threads() : 1;
}

int dli_threads_enter(size_t threads) {
  if (!openmp_is_here()) return 0;
  const int before = omp_get_max_threads();
  if (threads > (size_t)before || threads == 0) threads = (size_t)before;
  if (threads > 1 && !omp_in_parallel() && threads_are_gone()) threads = 1;
  if (threads == (size_t)before) return 0;
  omp_set_num_threads((int)threads); /* of the calling thread alone */
  return before;
}

void dli_threads_leave(int before) {
  if (before > 0) omp_set_num_threads(before);
}
#else
size_t dli_threads_current(void) {
  return 1;
}

int dli_threads_enter(size_t threads) {
  (void)threads;
  return 0;
}

void dli_threads_leave(int before) {
  (void)before;
}
#endif

int dli_blas_enter(void) {
  return dli_threads_enter(0);
}

void dli_blas_leave(int before) {
  dli_threads_leave(before);
}

/* The first count % threads shares are one longer than the others. */
static void run_share(size_t threads, size_t count, size_t index,
                      void (*run)(size_t begin, size_t end, size_t index, void *user), void *user) {
  DLI_ASSERT(index < threads);
  const size_t length = count / threads;
  const size_t longer = count % threads;
  const size_t begin = index * length + (index < longer ? index : longer);
  run(begin, begin + length + (index < longer ? 1 : 0), index, user);
}

void dli_parallel_for(size_t threads, size_t count, void (*run)(size_t begin, size_t end, size_t index, void *user),
                      void *user) {
  if (threads == 0) threads = 1;
#ifdef _OPENMP
  const size_t useful = threads < count ? threads : count;
  if (useful > 1 && !threads_are_gone()) {
    const int asked = useful < INT_MAX ? (int)useful : INT_MAX;
#pragma omp parallel num_threads(asked)
    {
      /* The runtime may give fewer threads than asked, one inside another parallel region. */
      const size_t team = (size_t)omp_get_num_threads();
      for (size_t index = (size_t)omp_get_thread_num(); index < threads; index += team) {
        run_share(threads, count, index, run, user);
      }
    }
    return;
  }
#endif
  for (size_t index = 0; index < threads; index++) run_share(threads, count, index, run, user);
}

#if defined(_OPENMP) && defined(DLI_BLAS_OpenBLAS)
/* 0: sequential, 1: own threads, 2: OpenMP. Weak: another BLAS may be put in OpenBLAS's place at run time. */
extern int openblas_get_parallel(void) __attribute__((weak));

bool dli_blas_runs_inside_threads(void) {
  return !openblas_get_parallel || openblas_get_parallel() != 1;
}
#elif defined(_OPENMP)
bool dli_blas_runs_inside_threads(void) {
  return true;
}
#else
bool dli_blas_runs_inside_threads(void) {
  return false;
}
#endif
