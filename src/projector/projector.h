/* Functions of a projector for the bank, the learner and the checkpoint, beyond the public header.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PROJECTOR_PROJECTOR_H
#define DLI_SRC_PROJECTOR_PROJECTOR_H

#include "duallora/duallora.h"
#include "io/safetensors.h"

/* Adds the used directions as tensors "<prefix>.<...>", which borrow the projector's arrays until saved. */
dlora_status dli_projector_write(const dlora_projector *projector, struct dli_writer *writer, const char *prefix);
/* Reads and checks them: shapes, orthonormality to 1e-3, finite values. */
dlora_status dli_projector_read(dlora_projector **out, const struct dli_tensors *tensors, const char *prefix,
                                const dlora_projector_options *options);

/* The same for the sums of the open task. Without observations nothing is written. */
dlora_status dli_projector_write_open(const dlora_projector *projector, struct dli_writer *writer, const char *prefix);
/* Reads them into a projector without an open task. */
dlora_status dli_projector_read_open(dlora_projector *projector, const struct dli_tensors *tensors, const char *prefix);

/* dlora_projector_route without allocation, for calls in parallel. scratch: dli_projector_route_scratch(projector,
 * rows) bytes, aligned to 8. Error: NOT_FINITE, which names `caller`. */
size_t dli_projector_route_scratch(const dlora_projector *projector, size_t rows);
dlora_status dli_projector_route(const dlora_projector *projector, const char *caller, const float *x, size_t rows,
                                 void *scratch, float *routing);

/* Frees the scratch memory that dlora_projector_route keeps between calls. */
void dli_projector_release(const dlora_projector *projector);

#endif
