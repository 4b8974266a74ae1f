/* Seeds of the targets that need libjpeg, libpng and zlib.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_FUZZ_SEED_IMAGES_H
#define DUALLORA_TESTS_FUZZ_SEED_IMAGES_H

#include <stddef.h>

void seed_images(void);
/* make_seeds.c */
void seed_write(const char *target, const char *name, const void *bytes, size_t size);

#endif
