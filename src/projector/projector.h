/* What the bank, the learner and the checkpoint need of a projector beyond the public header.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_SRC_PROJECTOR_PROJECTOR_H
#define DLI_SRC_PROJECTOR_PROJECTOR_H

#include "duallora/duallora.h"
#include "io/safetensors.h"

/* Adds the memory as tensors and metadata named "<prefix>.<...>"; tensors borrow the projector's memory until saved. */
dlora_status dli_projector_write(const dlora_projector *projector, struct dli_writer *writer, const char *prefix);
/* Reads it back; everything is checked (shapes, orthonormality to 1e-3, finite values). */
dlora_status dli_projector_read(dlora_projector **out, const struct dli_tensors *tensors, const char *prefix,
                                const dlora_projector_options *options);

/* The same for what has been observed of the open task; nothing where that is nothing. */
dlora_status dli_projector_write_open(const dlora_projector *projector, struct dli_writer *writer, const char *prefix);
/* Into a projector without an open task. */
dlora_status dli_projector_read_open(dlora_projector *projector, const struct dli_tensors *tensors, const char *prefix);

/* dlora_projector_route without taking memory: for calls side by side. scratch: as many bytes as the function before
 * says for `rows`, aligned to 8. Error: NOT_FINITE, in the name of `caller`. */
size_t dli_projector_route_scratch(const dlora_projector *projector, size_t rows);
dlora_status dli_projector_route(const dlora_projector *projector, const char *caller, const float *x, size_t rows,
                                 void *scratch, float *routing);

/* Gives back the scratch memory that dlora_projector_route has left. */
void dli_projector_release(const dlora_projector *projector);

#endif
