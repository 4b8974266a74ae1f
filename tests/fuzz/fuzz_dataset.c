/* The command's data sets: idx files, CIFAR files, and a folder of images. An input is
 *
 *     kind (1 byte)   length of the first file (3 bytes, little-endian)   first file   second file
 *
 * kind modulo 3: 0 idx images and labels, 1 CIFAR names and records, 2 images of two classes; from 128 on, only two
 * images a class are wanted and unreadable ones are left out. The files are in memory; a folder of links to them is
 * made once.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/dataset.h"
#include "cli/utf8.h"
#include "fuzz.h"
#include "image_size.h"

enum { KINDS = 3, HEAD = 4 };
/* What a byte of a file may take, and what the readers and their libraries take whatever the file: a gzipped byte
 * unpacks to 1032 labels at most, each kept as a byte and as two sizes; CIFAR takes the latter for a record of 3073
 * bytes; images as in fuzz_image.c. */
static const size_t per_byte[KINDS] = {1032 * 18, 1, PIXELS_PER_BYTE * 12},
                    constant[KINDS] = {256 << 10, 256 << 10, 64 << 20};

static char root[64];
static char data_sets[KINDS][96];

/* What links[] makes below the root; NULL: a folder. The name's first part is the kind's folder. */
static const struct {
  const char *name;
  int slot; /* -1: a folder */
} entries[] = {
    {"idx", -1},
    {"idx/train-images-idx3-ubyte", 0},
    {"idx/train-labels-idx1-ubyte", 1},
    {"cifar", -1},
    {"cifar/batches.meta.txt", 0},
    {"cifar/fine_label_names.txt", 0},
    {"cifar/data_batch_1.bin", 1},
    {"folder", -1},
    {"folder/first", -1},
    {"folder/first/1.png", 0},
    {"folder/second", -1},
    {"folder/second/2.jpg", 1},
};
enum { NUM_ENTRIES = sizeof entries / sizeof entries[0] };

static void path_of(char path[160], size_t entry) {
  snprintf(path, 160, "%s/%s", root, entries[entry].name);
}

static void remove_links(void) {
  char path[160];
  for (size_t i = NUM_ENTRIES; i-- > 0;) {
    path_of(path, i);
    (void)remove(path);
  }
  (void)rmdir(root);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  const char *temporary = getenv("TMPDIR");
  snprintf(root, sizeof root, "%.40s/fuzz-XXXXXX", temporary ? temporary : "/tmp");
  if (!mkdtemp(root)) fuzz_fail("%s: %s", root, strerror(errno));
  atexit(remove_links);
  for (size_t i = 0; i < NUM_ENTRIES; i++) {
    char path[160];
    path_of(path, i);
    const int failed =
        entries[i].slot < 0 ? mkdir(path, 0700) : symlink(fuzz_file((size_t)entries[i].slot, "", 0), path);
    if (failed) fuzz_fail("%s: %s", path, strerror(errno));
  }
  static const char *const folders[KINDS] = {"idx", "cifar", "folder"};
  for (size_t k = 0; k < KINDS; k++) snprintf(data_sets[k], sizeof data_sets[k], "%s/%s", root, folders[k]);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < HEAD) return 0;
  const size_t kind = data[0] % 128 % KINDS, rest = size - HEAD;
  size_t first = (size_t)data[1] | (size_t)data[2] << 8 | (size_t)data[3] << 16;
  if (first > rest) first = rest;
  if (kind == 2 && (image_size_is_slow(data + HEAD, first) || image_size_is_slow(data + HEAD + first, rest - first))) {
    return 0;
  }
  fuzz_file(0, data + HEAD, first);
  fuzz_file(1, data + HEAD + first, rest - first);

  const int some = data[0] >= 128;
  const dataset_request request = {data_sets[kind], DATASET_TRAIN, some ? 2 : 0, some, false};
  dataset set;
  problem why = {""};
  fuzz_watch(size, per_byte[kind], constant[kind]);
  if (!dataset_open(&set, &request, &why)) {
    fuzz_unwatch();
    if (!*why.text) fuzz_fail("dataset_open failed without a sentence");
    return 0;
  }
  uint32_t sum = 0;
  if (!set.count || !set.num_classes) fuzz_fail("an empty data set");
  for (size_t i = 0; i < set.count; i++) {
    if (set.labels[i] >= set.num_classes) fuzz_fail("label %zu of %zu classes", set.labels[i], set.num_classes);
  }
  for (size_t i = 0; i < set.count && i < 3; i++) {
    dlora_images image;
    const size_t index = i == 2 ? set.count - 1 : i;
    /* Everything was checked when it was opened. */
    if (!dataset_read(&set, index, &image, &why)) fuzz_fail("dataset_read: %s", why.text);
    for (size_t p = 0; p < image.height * image.width * image.channels; p++) sum += image.u8[p];
  }
  fuzz_unwatch();
  for (size_t c = 0; c < set.num_classes; c++) {
    /* They go into JSON files and checkpoints, which would refuse them after all the learning. */
    if (!utf8_is_valid(set.class_names[c])) fuzz_fail("the name of class %zu is not UTF-8", c);
    sum += (uint32_t)strlen(set.class_names[c]);
  }
  fuzz_num_accepted += sum < UINT32_MAX;
  dataset_close(&set);
  return 0;
}
