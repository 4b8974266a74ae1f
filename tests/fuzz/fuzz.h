/* What the fuzz targets share: files in memory, a watch on memory, and what every loader promises.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_FUZZ_H
#define DUALLORA_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "duallora/duallora.h"

/* ---- the targets; libFuzzer, AFL++ or fuzz_main.c call them ---- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Optional: once before all inputs. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Ends the run as a finding. */
#if defined(__GNUC__)
__attribute__((noreturn, format(printf, 1, 2)))
#endif
void fuzz_fail(const char *format, ...);

/* ---- files in memory ---- */

enum { FUZZ_FILES = 4 };
/* The path of a file, in memory, that has these bytes until the next call for the slot. */
const char *fuzz_file(size_t slot, const void *bytes, size_t size);
/* The path alone; the file stays as it is. */
const char *fuzz_path(size_t slot);

/* ---- memory ---- */

/* docs/FILES.md: what loading a file may take, in bytes for each byte of the file and in all. */
enum { FUZZ_PER_BYTE = 48, FUZZ_CONSTANT = 64 << 10 };

/* Counts what is taken from it. */
extern const dlora_allocator fuzz_allocator;
/* From now on it is a finding if more than per_byte * size + constant bytes are taken at once: from the allocator, or
 * where a sanitizer replaces malloc, by anything at all. */
void fuzz_watch(size_t size, size_t per_byte, size_t constant);
void fuzz_unwatch(void);
/* The most bytes that were out at once while there was a watch, since this was set to 0. */
extern size_t fuzz_peak;
/* Everything taken from the allocator must have been given back. */
void fuzz_released(void);

/* ---- promises ---- */

/* Inputs that were not refused. */
extern size_t fuzz_num_accepted;
/* A loader has returned a handle, or NULL and a status with a sentence that blames the file. Returns whether it is a
 * handle. */
int fuzz_check(dlora_status status, const void *handle, const char *call);

#endif
