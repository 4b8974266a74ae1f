/* From float64, in which statistics are kept, to float32, which the public functions use.
 * SPDX-License-Identifier: Apache-2.0 */
#include <float.h>

#include "src/predictor/state.h"

float dli_to_float(double value) {
  if (value > (double)FLT_MAX) return FLT_MAX;
  if (value < -(double)FLT_MAX) return -FLT_MAX;
  return (float)value;
}
