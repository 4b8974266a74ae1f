/* Threads for loops over images and rows, by OpenMP where it is available.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_THREADS_H
#define DLI_BASE_THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Processors that this process may use. */
size_t dli_threads_available(void);
/* `threads` where it is above 0, else all that are available. */
size_t dli_threads_chosen(int32_t threads);

/* Calls run(begin, end, index, user) once for each index < threads on its share of [0, count), at the same time where
 * OpenMP is present. Shares depend on count and threads only, so that results can be bitwise repeatable. */
void dli_parallel_for(size_t threads, size_t count, void (*run)(size_t begin, size_t end, size_t index, void *user),
                      void *user);

/* Until dli_threads_leave, at most `threads` threads (0: as many as before) work on a product that the calling thread
 * asks the BLAS for, where the BLAS takes its threads from OpenMP. Nests; other threads are not affected. Also does
 * what dli_blas_enter does. Returns what dli_threads_leave is to be given. */
int dli_threads_enter(size_t threads);
void dli_threads_leave(int before);

/* OpenMP threads that a product of the calling thread would be shared out to now. */
size_t dli_threads_current(void);

/* Around calls of the BLAS and LAPACK. In a child of fork the threads that OpenMP keeps for the calling thread do not
 * exist, and a product that was given to them would never end: there one thread does all. */
int dli_blas_enter(void);
void dli_blas_leave(int before);

/* Whether sgemm may be called from several threads of one dli_parallel_for without each of them starting threads of its
 * own. */
bool dli_blas_runs_inside_threads(void);

#endif
