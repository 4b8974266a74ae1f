/* The minimum of a function of one variable.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_MINIMISE_H
#define DLI_BASE_MINIMISE_H

/* Where cost is lowest in [low, high]: a grid of 33 points, then golden section around the best of them, so that the
 * cost need not have one valley only. About 70 evaluations; right to (high - low) * 1e-8 or better. */
double dli_minimise(double (*cost)(const void *context, double x), const void *context, double low, double high);

#endif
