/* Replaces the library's memory mappings (linker option --wrap) by copies of exactly the file's size. A mapping ends at
 * a page, and nobody notices a few bytes too many; behind a copy, AddressSanitizer does.
 * SPDX-License-Identifier: Apache-2.0 */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset);
int __wrap_munmap(void *address, size_t length);

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
  (void)address;
  (void)protection;
  (void)flags;
  void *copy = fuzz_allocator.allocate(length, NULL);
  if (copy && pread(descriptor, copy, length, offset) == (ssize_t)length) return copy;
  if (copy) fuzz_allocator.release(copy, NULL);
  return MAP_FAILED;
}

int __wrap_munmap(void *address, size_t length) {
  (void)length;
  fuzz_allocator.release(address, NULL);
  return 0;
}
