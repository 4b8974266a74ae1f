/* The version as text, from the macros of the public header.
 * SPDX-License-Identifier: Apache-2.0 */
#include "duallora/duallora.h"

#define STRING_(value) #value
#define STRING(value) STRING_(value)

const char *dlora_version(void) {
  return STRING(DLORA_VERSION_MAJOR) "." STRING(DLORA_VERSION_MINOR) "." STRING(DLORA_VERSION_PATCH);
}
