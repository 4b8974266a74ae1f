/* Checks for NaN and infinities in inputs. */
#ifndef DLI_BASE_FINITE_H
#define DLI_BASE_FINITE_H

#include <stddef.h>

/* Index of the first value that is not finite, or count. */
size_t dli_first_not_finite(const float *values, size_t count);

#endif
