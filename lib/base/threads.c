#include "base/threads.h"

#ifdef _OPENMP
#include <limits.h>
#include <omp.h>
#else
#include <unistd.h>
#endif

size_t dli_threads_available(void) {
#ifdef _OPENMP
  const int count = omp_get_num_procs();
#else
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
#endif
  return count > 0 ? (size_t)count : 1;
}

/* The first count % threads shares are one longer than the others. */
static void run_share(size_t threads, size_t count, size_t index,
                      void (*run)(size_t begin, size_t end, size_t index, void *user), void *user) {
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
  if (useful > 1) {
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
