/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"

#include <cJSON.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"

size_t fuzz_num_accepted, fuzz_peak;

void fuzz_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("fuzz: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  abort();
}

/* ---- files ---- */

static int descriptors[FUZZ_FILES];

const char *fuzz_path(size_t slot) {
  static char paths[FUZZ_FILES][64];
  if (!paths[slot][0]) {
    descriptors[slot] = memfd_create("fuzz", MFD_CLOEXEC);
    if (descriptors[slot] < 0) fuzz_fail("no file in memory");
    snprintf(paths[slot], sizeof paths[slot], "/proc/self/fd/%d", descriptors[slot]);
  }
  return paths[slot];
}

const char *fuzz_file(size_t slot, const void *bytes, size_t size) {
  static size_t sizes[FUZZ_FILES];
  const char *path = fuzz_path(slot);
  if (size < sizes[slot] && ftruncate(descriptors[slot], (off_t)size) != 0) fuzz_fail("a file cannot be cut");
  if (pwrite(descriptors[slot], bytes, size, 0) != (ssize_t)size) fuzz_fail("a file cannot be written");
  sizes[slot] = size;
  return path;
}

/* ---- memory ---- */

static struct watch {
  int on;
  size_t limit;
  size_t handles;       /* bytes out of the allocator, always counted */
  size_t json;          /* bytes out of cJSON, always counted */
  size_t all;           /* bytes out since the watch began, whoever took them */
  volatile int is_ours; /* what malloc gives now is counted already; compilers believe that it calls nobody */
} watch;

enum { LARGE = 1 << 16 };

static size_t size_of(void *pointer) {
  const size_t size = arena_size_of(pointer);
  return size != SIZE_MAX ? size : malloc_usable_size(pointer);
}

static void add(size_t size) {
  if (!watch.on) return;
  if (size > watch.limit - watch.all) {
    watch.on = 0;
    fuzz_fail("%zu bytes are asked for with %zu out, the limit is %zu", size, watch.all, watch.limit);
  }
  watch.all += size;
  if (watch.all > fuzz_peak) fuzz_peak = watch.all;
}

static void subtract(size_t size) {
  if (watch.on) watch.all -= size < watch.all ? size : watch.all;
}

/* Large blocks are left to malloc, which gives their pages back. */
static void *take_block(size_t size, size_t *out) {
  void *pointer = size <= LARGE ? arena_take(size) : NULL;
  add(size); /* before malloc may fail of it */
  if (!pointer) {
    watch.is_ours = 1;
    pointer = malloc(size);
    watch.is_ours = 0;
  }
  if (pointer) *out += size_of(pointer);
  return pointer;
}

static void give_block_back(void *pointer, size_t *out) {
  const size_t size = size_of(pointer);
  subtract(size);
  *out -= size;
  if (arena_give_back(pointer)) return;
  watch.is_ours = 1;
  free(pointer);
  watch.is_ours = 0;
}

static void *take(size_t size, void *user) {
  (void)user;
  return take_block(size, &watch.handles);
}

static void give_back(void *pointer, void *user) {
  (void)user;
  give_block_back(pointer, &watch.handles);
}

const dlora_allocator fuzz_allocator = {take, give_back, NULL};

/* cJSON's many small blocks, of the library and of the mutators. */
static void *take_json(size_t size) {
  return take_block(size, &watch.json);
}

static void give_json_back(void *pointer) {
  if (pointer) give_block_back(pointer, &watch.json);
}

__attribute__((constructor)) static void lend_to_json(void) {
  cJSON_Hooks hooks = {take_json, give_json_back};
  cJSON_InitHooks(&hooks);
}

/* Of the sanitizers' run-time libraries; absent elsewhere. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *)) __attribute__((weak));
size_t __sanitizer_get_allocated_size(const volatile void *pointer) __attribute__((weak));

static void on_malloc(const volatile void *pointer, size_t size) {
  (void)pointer;
  if (watch.on && !watch.is_ours) add(size);
}

static void on_free(const volatile void *pointer) {
  if (watch.on && !watch.is_ours && pointer) subtract(__sanitizer_get_allocated_size(pointer));
}

void fuzz_watch(size_t size, size_t per_byte, size_t constant) {
  static int installed;
  if (!installed && __sanitizer_install_malloc_and_free_hooks && __sanitizer_get_allocated_size) {
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
  }
  installed = 1;
  watch.limit = per_byte * size + constant;
  watch.all = 0;
  watch.on = 1;
}

void fuzz_unwatch(void) {
  watch.on = 0;
}

void fuzz_released(void) {
  if (watch.handles) fuzz_fail("%zu bytes were not given back to the allocator", watch.handles);
  if (watch.json) fuzz_fail("%zu bytes of parsed JSON were not given back", watch.json);
  arena_reset();
}

/* ---- promises ---- */

int fuzz_check(dlora_status status, const void *handle, const char *call) {
  if (status == DLORA_OK) {
    if (!handle) fuzz_fail("%s succeeded without a handle", call);
    fuzz_num_accepted++;
    return 1;
  }
  if (handle) fuzz_fail("%s failed with a handle: %s", call, dlora_last_error());
  if (!*dlora_last_error()) fuzz_fail("%s failed without a sentence", call);
  if (status != DLORA_ERR_FORMAT && status != DLORA_ERR_UNSUPPORTED && status != DLORA_ERR_MISMATCH) {
    fuzz_fail("%s blames something else than the file: %s: %s", call, dlora_status_name(status), dlora_last_error());
  }
  return 0;
}
