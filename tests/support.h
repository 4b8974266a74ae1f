/* Helpers shared by the tests: paths, random numbers, reference arrays, assertions that explain themselves.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_SUPPORT_H
#define DUALLORA_TESTS_SUPPORT_H

/* CMocka wants the first four before its own header. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
/* clang-format on */

#include "duallora/duallora.h"

/* ---- paths: the returned text lives until the eighth call from now ---- */

/* A file of tests/data. */
const char *test_data(const char *name);
/* A file of the repository's root folder, as "examples/backbones/...". */
const char *test_source(const char *name);
/* A file in a scratch folder of this process, which is removed with all its files at exit. */
const char *test_temporary(const char *name);

/* ---- files as a whole ---- */

/* All bytes of a file, to be freed with free(); fails the test if it cannot be read. */
void *test_read_file(const char *path, size_t *size);
void test_write_file(const char *path, const void *bytes, size_t size);

/* ---- random numbers (xorshift32): the same on every machine; a state of 0 is as good as any ---- */

float test_uniform(uint32_t *state); /* [-1, 1) */
float test_normal(uint32_t *state);  /* mean 0, variance 1 */

/* ---- reference arrays: the .bin files of tests/data/make_reference.py ---- */

struct test_fixture;
struct test_fixture *test_fixture_open(const char *path);
void test_fixture_close(struct test_fixture *fixture);
/* The array of that name and type; an absent one, or one of another type, fails the test. count may be NULL. */
const float *test_fixture_floats(const struct test_fixture *fixture, const char *name, size_t *count);
const uint8_t *test_fixture_bytes(const struct test_fixture *fixture, const char *name, size_t *count);
const int32_t *test_fixture_ints(const struct test_fixture *fixture, const char *name, size_t *count);
/* Size along one dimension. */
size_t test_fixture_dim(const struct test_fixture *fixture, const char *name, size_t dim);

/* Largest |a - b|; not a number where one of them is none, so that no comparison holds. */
double test_largest_change(const float *a, const float *b, size_t count);

/* ---- assertions ---- */

/* Fails with the library's sentence unless the call returns the expected status. */
#define assert_status(expected, call) test_assert_status((expected), (call), #call, __FILE__, __LINE__)
void test_assert_status(dlora_status expected, dlora_status found, const char *call, const char *file, int line);

/* Fails unless dlora_last_error() contains the text. */
#define assert_error_names(text) test_assert_error_names((text), __FILE__, __LINE__)
void test_assert_error_names(const char *text, const char *file, int line);

/* Fails unless every |found - expected| is at most tolerance times the largest |expected|. */
#define assert_close(found, expected, count, tolerance) \
  test_assert_close((found), (expected), (count), (tolerance), #found, __FILE__, __LINE__)
void test_assert_close(const float *found, const float *expected, size_t count, double tolerance, const char *what,
                       const char *file, int line);

#endif
