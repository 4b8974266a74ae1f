/* Features of the random projection readout, relu(z R). METHOD.md 7.1.
 * SPDX-License-Identifier: Apache-2.0 */
#include "linalg/matrix.h"
#include "src/predictor/state.h"

void dli_random_project(const dlora_predictor *predictor, const double *x, size_t rows, double *projected) {
  size_t dim = predictor->dim, random = predictor->random_features;
  dli_dgemm_nn(rows, random, dim, 1.0, x, dim, predictor->projection, random, 0.0, projected, random);
  for (size_t i = 0; i < rows * random; i++) projected[i] = projected[i] > 0.0 ? projected[i] : 0.0;
}
