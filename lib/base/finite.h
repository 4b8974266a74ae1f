/* Checks of input arrays for NaN, infinity and values out of range.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_FINITE_H
#define DLI_BASE_FINITE_H

#include <stddef.h>

/* Index of the first value that is not finite, or count. */
size_t dli_first_not_finite(const float *values, size_t count);
/* Index of the first value that is NaN or beyond [-limit, limit], or count. limit: 0 ... FLT_MAX. */
size_t dli_first_beyond(const float *values, size_t count, float limit);

#endif
