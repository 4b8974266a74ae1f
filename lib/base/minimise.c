/* The minimum of a function of one variable in an interval. METHOD.md 7.2 fits the temperature T_t with it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/minimise.h"

#include <math.h>
#include <stddef.h>

#include "base/assert.h"

/* In two steps:
 *
 *     1   the best of GRID points, so that the cost may have several valleys; the minimum is taken to lie between the
 *         neighbours of this point
 *     2   golden section of this interval [a, b]: c < d divide it in the golden ratio, the worse outer part is cut off,
 *         and one of the two inner points divides what is left in the same ratio, so that a step costs one evaluation
 */
double dli_minimise(double (*cost)(const void *context, double x), const void *context, double low, double high) {
  enum { GRID = 33, GOLDEN_STEPS = 40 }; /* 0.618^40 of a grid step is 1e-9 */
  DLI_ASSERT(low <= high);
  const double step = (high - low) / (GRID - 1), ratio = 0.5 * (sqrt(5.0) - 1.0);
  /* 1 */
  size_t best = 0;
  double lowest = HUGE_VAL;
  for (size_t i = 0; i < GRID; i++) {
    const double value = cost(context, low + (double)i * step);
    if (value < lowest) {
      lowest = value;
      best = i;
    }
  }
  /* 2 */
  double a = low + (double)(best > 0 ? best - 1 : 0) * step;
  double b = low + (double)(best < GRID - 1 ? best + 1 : best) * step;
  double c = b - ratio * (b - a), d = a + ratio * (b - a), at_c = cost(context, c), at_d = cost(context, d);
  for (size_t i = 0; i < GOLDEN_STEPS; i++) {
    if (at_c < at_d) {
      b = d;
      d = c;
      at_d = at_c;
      c = b - ratio * (b - a);
      at_c = cost(context, c);
    } else {
      a = c;
      c = d;
      at_c = at_d;
      d = a + ratio * (b - a);
      at_d = cost(context, d);
    }
  }
  return 0.5 * (a + b);
}
