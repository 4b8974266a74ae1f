/* Raising and forwarding errors, and structs that grow.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_STATUS_H
#define DLI_BASE_STATUS_H

#include "duallora/duallora.h"

/* Stores the sentence for this thread and returns status. Allocates nothing. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
dlora_status
dli_raise(dlora_status status, const char *format, ...);

/* Forwards a failure. */
#define DLI_TRY(call) \
  do { \
    dlora_status dli_status_ = (call); \
    if (dli_status_ != DLORA_OK) return dli_status_; \
  } while (0)

/* The same where there is something to release: the function has `dlora_status status` and a label `done`. */
#define DLI_TRY_DONE(call) \
  do { \
    status = (call); \
    if (status != DLORA_OK) goto done; \
  } while (0)

/* Raises DLORA_ERR_ARGUMENT naming a NULL argument. */
#define DLI_REQUIRE(argument) \
  do { \
    if (!(argument)) return dli_raise(DLORA_ERR_ARGUMENT, "%s: %s is NULL", __func__, #argument); \
  } while (0)

/* Reads an options struct of any version: `known` (known_size bytes) holds the defaults and receives what the caller's
 * struct covers. NULL given: defaults. A longer struct with non-zero bytes beyond is refused. */
dlora_status dli_options_read(const char *name, void *known, size_t known_size, const void *given);
/* Fills a caller's struct of `size` bytes from `full`, for _options_init and _get_ functions that return structs. */
dlora_status dli_struct_write(const char *name, void *caller, size_t size, const void *full, size_t full_size);

#endif
