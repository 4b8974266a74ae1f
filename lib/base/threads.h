/* Threads for loops over images and rows, by OpenMP where present. */
#ifndef DLI_BASE_THREADS_H
#define DLI_BASE_THREADS_H

#include <stdbool.h>
#include <stddef.h>

/* Processors that this process may use. */
size_t dli_threads_available(void);

/* Calls run(begin, end, index, user) once for each index < threads on its share of [0, count), at the same time where
 * OpenMP is present. Shares depend on count and threads only, so that results can be bitwise repeatable. */
void dli_parallel_for(size_t threads, size_t count, void (*run)(size_t begin, size_t end, size_t index, void *user),
                      void *user);

/* Whether sgemm may be called from several threads of one dli_parallel_for without each of them starting threads of its
 * own. */
bool dli_blas_runs_inside_threads(void);

#endif
