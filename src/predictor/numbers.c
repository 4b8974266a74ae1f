/* From float64, in which statistics are kept, to the float32 of the interface.
 * SPDX-License-Identifier: Apache-2.0 */
#include <float.h>

#include "src/predictor/state.h"

float dli_to_float(double value) {
  if (value > (double)FLT_MAX) return FLT_MAX;
  if (value < -(double)FLT_MAX) return -FLT_MAX;
  return (float)value;
}
