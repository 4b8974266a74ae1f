/* One line on kernels, packed products, threads and BLAS in use: dlora_build_info.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "duallora/duallora.h"
#include "linalg/onednn.h"
#include "nn/kernels.h"

#if defined(__GNUC__)
/* OpenBLAS defines it, other BLAS libraries do not. */
extern char *openblas_get_config(void) __attribute__((weak));
#endif

const char *dlora_build_info(void) {
  static _Thread_local char text[256];
  const char *blas = "BLAS";
#if defined(__GNUC__)
  if (openblas_get_config) blas = openblas_get_config();
#endif
#ifdef _OPENMP
  const char *threads = "OpenMP";
#else
  const char *threads = "no OpenMP: one thread";
#endif
  snprintf(text, sizeof text, "kernels %s; packed products %s; %s; %s", dli_kernels_select(false)->name,
           dli_onednn_offer(), threads, blas);
  return text;
}
