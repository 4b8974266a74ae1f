/* SPDX-License-Identifier: Apache-2.0 */
#include "support.h"

#include <ftw.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- paths ---- */

#define PATHS 8
static char paths[PATHS][PATH_MAX];
static size_t next_path;

static const char *join(const char *folder, const char *name) {
  char *path = paths[next_path];
  next_path = (next_path + 1) % PATHS;
  const int length = snprintf(path, PATH_MAX, "%s/%s", folder, name);
  assert_true(length > 0 && length < PATH_MAX);
  return path;
}

const char *test_data(const char *name) {
  return join(TEST_SOURCE_DIR "/tests/data", name);
}

const char *test_source(const char *name) {
  return join(TEST_SOURCE_DIR, name);
}

static char scratch[PATH_MAX];
static pid_t scratch_owner;

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place) {
  (void)status;
  (void)type;
  (void)place;
  remove(path);
  return 0;
}

/* A forked child that exits must leave its parent's files. */
static void remove_scratch(void) {
  if (getpid() == scratch_owner) nftw(scratch, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_temporary(const char *name) {
  if (!scratch[0]) {
    const char *root = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/duallora-test-XXXXXX", root && root[0] ? root : "/tmp");
    assert_non_null(mkdtemp(scratch));
    scratch_owner = getpid();
    atexit(remove_scratch);
  }
  return join(scratch, name);
}

/* ---- files ---- */

void *test_read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) fail_msg("%s cannot be opened", path);
  assert_int_equal(fseek(file, 0, SEEK_END), 0);
  const long length = ftell(file);
  assert_true(length >= 0);
  rewind(file);
  char *bytes = malloc((size_t)length + 1);
  assert_non_null(bytes);
  assert_int_equal(fread(bytes, 1, (size_t)length, file), (size_t)length);
  fclose(file);
  bytes[length] = '\0';
  *size = (size_t)length;
  return bytes;
}

void test_write_file(const char *path, const void *bytes, size_t size) {
  FILE *file = fopen(path, "wb");
  if (!file) fail_msg("%s cannot be created", path);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

/* ---- random numbers ---- */

static uint32_t next_random(uint32_t *state) {
  uint32_t x = *state ? *state : 0x9e3779b9u;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}

float test_uniform(uint32_t *state) {
  return (float)(next_random(state) >> 8) * 0x1p-23f - 1.0f;
}

float test_normal(uint32_t *state) {
  const double u = ((double)next_random(state) + 0.5) * 0x1p-32;
  const double v = (double)next_random(state) * 0x1p-32;
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

/* ---- reference arrays ---- */

#define MAX_ARRAYS 512
#define MAX_DIMS 4

struct array {
  char name[64];
  char dtype[8];
  size_t dims[MAX_DIMS];
  size_t num_dims;
  size_t count;
  void *data;
};

struct test_fixture {
  struct array arrays[MAX_ARRAYS];
  size_t num_arrays;
};

static void read_line(struct array *array, const char *line) {
  int used = 0;
  assert_int_equal(sscanf(line, "%63s %7s%n", array->name, array->dtype, &used), 2);
  array->count = 1;
  for (line += used; *line == ' ';) {
    char *end = NULL;
    assert_true(array->num_dims < MAX_DIMS);
    array->dims[array->num_dims] = strtoul(line, &end, 10);
    array->count *= array->dims[array->num_dims++];
    line = end;
  }
}

struct test_fixture *test_fixture_open(const char *path) {
  size_t size = 0;
  char *bytes = test_read_file(path, &size);
  struct test_fixture *fixture = calloc(1, sizeof *fixture);
  assert_non_null(fixture);
  char *line = bytes;
  while (*line != '\n') {
    char *end = strchr(line, '\n');
    assert_non_null(end);
    *end = '\0';
    assert_true(fixture->num_arrays < MAX_ARRAYS);
    read_line(&fixture->arrays[fixture->num_arrays++], line);
    line = end + 1;
  }
  const char *data = line + 1;
  for (size_t i = 0; i < fixture->num_arrays; i++) {
    struct array *array = &fixture->arrays[i];
    const size_t length = array->count * (strcmp(array->dtype, "u8") == 0 ? 1 : 4);
    assert_true(length <= size - (size_t)(data - bytes));
    array->data = malloc(length ? length : 1);
    assert_non_null(array->data);
    memcpy(array->data, data, length);
    data += length;
  }
  assert_int_equal(data - bytes, size);
  free(bytes);
  return fixture;
}

void test_fixture_close(struct test_fixture *fixture) {
  if (!fixture) return;
  for (size_t i = 0; i < fixture->num_arrays; i++) free(fixture->arrays[i].data);
  free(fixture);
}

static const struct array *find(const struct test_fixture *fixture, const char *name, const char *dtype) {
  for (size_t i = 0; i < fixture->num_arrays; i++) {
    const struct array *array = &fixture->arrays[i];
    if (strcmp(array->name, name) == 0 && (!dtype || strcmp(array->dtype, dtype) == 0)) return array;
  }
  fail_msg("the reference has no array %s of type %s", name, dtype ? dtype : "any");
  return NULL;
}

static const void *data_of(const struct array *array, size_t *count) {
  if (count) *count = array->count;
  return array->data;
}

const float *test_fixture_floats(const struct test_fixture *fixture, const char *name, size_t *count) {
  return data_of(find(fixture, name, "f32"), count);
}

const uint8_t *test_fixture_bytes(const struct test_fixture *fixture, const char *name, size_t *count) {
  return data_of(find(fixture, name, "u8"), count);
}

const int32_t *test_fixture_ints(const struct test_fixture *fixture, const char *name, size_t *count) {
  return data_of(find(fixture, name, "i32"), count);
}

size_t test_fixture_dim(const struct test_fixture *fixture, const char *name, size_t dim) {
  const struct array *array = find(fixture, name, NULL);
  assert_true(dim < array->num_dims);
  return array->dims[dim];
}

/* By comparison: gcc 12.2 for 64-bit ARM, Debian 12's, breaks down on such a loop of fmax(). */
double test_largest_change(const float *a, const float *b, size_t count) {
  double largest = 0.0;
  for (size_t i = 0; i < count; i++) {
    const double change = fabs((double)a[i] - (double)b[i]);
    if (isnan(change)) return change;
    if (change > largest) largest = change;
  }
  return largest;
}

/* ---- assertions ---- */

void test_assert_status(dlora_status expected, dlora_status found, const char *call, const char *file, int line) {
  if (found == expected) return;
  print_error("%s\n  returned %s, expected %s: %s\n", call, dlora_status_name(found), dlora_status_name(expected),
              found == DLORA_OK ? "" : dlora_last_error());
  _fail(file, line);
}

void test_assert_error_names(const char *text, const char *file, int line) {
  if (strstr(dlora_last_error(), text)) return;
  print_error("the error should name \"%s\": %s\n", text, dlora_last_error());
  _fail(file, line);
}

void test_assert_close(const float *found, const float *expected, size_t count, double tolerance, const char *what,
                       const char *file, int line) {
  double scale = 0.0, worst = 0.0;
  size_t at = 0;
  for (size_t i = 0; i < count; i++) {
    const double size = fabs((double)expected[i]);
    if (size > scale) scale = size;
    double difference = fabs((double)found[i] - (double)expected[i]);
    if (isnan(difference)) difference = INFINITY;
    if (difference > worst) {
      worst = difference;
      at = i;
    }
  }
  if (worst <= tolerance * scale) return;
  print_error("%s[%zu] = %.9g, expected %.9g; the difference is %.3g of the largest value, %.3g is allowed\n", what, at,
              (double)found[at], (double)expected[at], worst / scale, tolerance);
  _fail(file, line);
}
