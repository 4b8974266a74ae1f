/* Replaces the library's memory mappings (linker option --wrap) by copies of exactly the file's size. A mapping ends at
 * a page, and nobody notices a few bytes too many; behind a copy, AddressSanitizer does. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset);
int __wrap_munmap(void *address, size_t length);

void *__wrap_mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
  (void)address;
  (void)protection;
  (void)flags;
  void *copy = malloc(length);
  if (copy && pread(descriptor, copy, length, offset) == (ssize_t)length) return copy;
  free(copy);
  return MAP_FAILED;
}

int __wrap_munmap(void *address, size_t length) {
  (void)length;
  free(address);
  return 0;
}
