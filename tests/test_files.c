/* Files that are damaged or made to do harm are refused with a sentence that names the culprit; good files are read
 * whole; saving leaves the old file or the new one.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

/* ---- making files ---- */

struct bytes {
  unsigned char *data;
  size_t size;
};

/* Header length, header, then data_size bytes of data. */
static struct bytes make(const char *header, size_t data_size) {
  const size_t length = strlen(header);
  struct bytes file = {calloc(1, 8 + length + data_size), 8 + length + data_size};
  assert_non_null(file.data);
  for (size_t i = 0; i < 8; i++) file.data[i] = (unsigned char)((uint64_t)length >> 8 * i);
  memcpy(file.data + 8, header, length);
  return file;
}

/* ---- hostile files ---- */

static int32_t visit_nothing(const dlora_tensor_info *info, void *user) {
  (void)info;
  (*(size_t *)user)++;
  return 0;
}

/* Every way in refuses the file with this status, names the culprit, shows nothing of it and returns no model. */
static void refuse(const void *data, size_t size, dlora_status expected, const char *culprit) {
  size_t visits = 0;
  dlora_model *model = (dlora_model *)(void *)&visits;
  const char *path = test_temporary("hostile.safetensors");
  test_write_file(path, data, size);

  assert_status(expected, dlora_inspect(path, visit_nothing, &visits));
  assert_error_names(path);
  assert_error_names(culprit);
  assert_int_equal(visits, 0);

  assert_status(expected, dlora_model_load(&model, path, NULL));
  assert_error_names(path);
  assert_error_names(culprit);
  assert_null(model);

  /* A copy of its own size, so that a memory checker sees one byte too many. */
  unsigned char *copy = malloc(size ? size : 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  model = (dlora_model *)(void *)&visits;
  assert_status(expected, dlora_model_load_memory(&model, copy, size, NULL));
  assert_error_names(culprit);
  assert_null(model);
  free(copy);
}

static void refuse_header(const char *header, size_t data_size, const char *culprit) {
  const struct bytes file = make(header, data_size);
  refuse(file.data, file.size, DLORA_ERR_FORMAT, culprit);
  free(file.data);
}

static void refuses_headers_that_do_not_fit_the_file(void **state) {
  (void)state;
  refuse("1234567", 7, DLORA_ERR_FORMAT, "7 bytes");
  refuse("\0\0\0\0\0\0\0\0", 8, DLORA_ERR_FORMAT, "header");
  refuse("\3\0\0\0\0\0\0\0{}", 10, DLORA_ERR_FORMAT, "3 bytes");
  refuse("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}      ", 16, DLORA_ERR_FORMAT, "header");
  refuse("\xF8\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}      ", 16, DLORA_ERR_FORMAT, "header");
  refuse("\0\0\0\0\0\0\0\x80{}      ", 16, DLORA_ERR_FORMAT, "header");

  /* Longer than any header may be, in a file that would hold it. */
  const char *path = test_temporary("large.safetensors");
  test_write_file(path, "\1\xE1\xF5\5\0\0\0\0{", 9);
  assert_int_equal(truncate(path, 100000200), 0);
  size_t visits = 0;
  assert_status(DLORA_ERR_FORMAT, dlora_inspect(path, visit_nothing, &visits));
  assert_error_names("100000000");
  assert_int_equal(unlink(path), 0);
}

static void refuses_headers_that_are_not_one_json_object(void **state) {
  (void)state;
  const char *headers[] = {"PK\3\4zip archive",
                           "[]",
                           "null",
                           " {}",
                           "{",
                           "{\"a\":",
                           "{\"a\"}",
                           "{\"a\":1,}",
                           "{} {}",
                           "{}x",
                           "{\"unterminated",
                           "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}} trailing",
                           "{\"bad utf8 \xFF\":1}",
                           "{\"overlong \xC0\x80\":1}",
                           "{\"surrogate \xED\xA0\x80\":1}",
                           "{\"control \1\":1}",
                           "{\"nul \\u0000\":1}"};
  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) refuse_header(headers[i], 4, "header");
}

static void refuses_json_that_is_nested_deeply(void **state) {
  (void)state;
  enum { DEPTH = 200000 };
  const char *opening[] = {"[", "{\"a\":"};
  for (size_t k = 0; k < 2; k++) {
    const size_t step = strlen(opening[k]);
    char *header = malloc(16 + DEPTH * step);
    assert_non_null(header);
    size_t used = (size_t)sprintf(header, "{\"deep\":");
    for (size_t i = 0; i < DEPTH; i++, used += step) memcpy(header + used, opening[k], step);
    header[used] = '\0';
    refuse_header(header, 0, "nested");
    free(header);
  }
}

static void refuses_descriptions_that_are_incomplete(void **state) {
  (void)state;
  const char *headers[] = {
      "{\"culprit\":1}",
      "{\"culprit\":[]}",
      "{\"culprit\":null}",
      "{\"culprit\":{}}",
      "{\"culprit\":{\"shape\":[1],\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[1]}}",
      "{\"culprit\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":{\"0\":1},\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"0\":0,\"1\":4}}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":4}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}",
  };
  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) refuse_header(headers[i], 4, "'culprit'");
}

static void refuses_numbers_that_are_not_sizes(void **state) {
  (void)state;
  const char *numbers[] = {"-1",
                           "0.5",
                           "-4",
                           "1e30",
                           "1e999",
                           "-1e999",
                           "9007199254740993",
                           "null",
                           "true",
                           "\"4\"",
                           "[]",
                           "{}",
                           "18446744073709551615",
                           "18446744073709551620"};
  char header[256];
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    const char *formats[] = {"{\"culprit\":{\"dtype\":\"U8\",\"shape\":[%s],\"data_offsets\":[0,4]}}",
                             "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[0,%s],\"data_offsets\":[0,0]}}",
                             "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%s,4]}}",
                             "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,%s]}}"};
    for (size_t k = 0; k < sizeof formats / sizeof formats[0]; k++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
      snprintf(header, sizeof header, formats[k], numbers[i]);
#pragma GCC diagnostic pop
      refuse_header(header, 4, "'culprit'");
    }
  }
}

static void refuses_shapes_that_do_not_fill_their_bytes(void **state) {
  (void)state;
  const char *headers[] = {
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}",
      "{\"culprit\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,8]}}",
      "{\"culprit\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,8]}}",
      "{\"culprit\":{\"dtype\":\"F4\",\"shape\":[17],\"data_offsets\":[0,8]}}",
      /* Counts that come to 8 or 0 modulo 2^64, and 2^61 + 8 elements, whose bits do. */
      "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[6610551540480040,5581],\"data_offsets\":[0,8]}}",
      "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
      "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[40,107367629,536903681],\"data_offsets\":[0,8]}}",
      "{\"culprit\":{\"dtype\":\"F64\",\"shape\":[2305843009213693953],\"data_offsets\":[0,8]}}",
  };
  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) refuse_header(headers[i], 8, "'culprit'");
}

static void refuses_tensors_that_do_not_tile_the_data(void **state) {
  (void)state;
  /* Beyond the end, as a truncated file has it. */
  refuse_header(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
      "\"culprit\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[8,16]}}",
      15, "'culprit'");
  refuse_header("{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4503599627370492,4503599627370496]}}",
                4, "'culprit'");
  /* Backwards. */
  refuse_header("{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}", 4, "'culprit'");
  /* Overlapping: by a byte, the same place twice, one inside the other, an empty one inside another. */
  refuse_header(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
      "\"culprit\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[7,15]}}",
      15, "'culprit'");
  refuse_header(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
      "\"culprit\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}",
      8, "'culprit'");
  refuse_header(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
      "\"culprit\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}",
      8, "'culprit'");
  refuse_header(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
      "\"culprit\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[3,3]}}",
      8, "'culprit'");
  /* Holes: at the start and between two. */
  refuse_header("{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, "'culprit'");
  refuse_header(
      "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[6,10]},"
      "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
      10, "'culprit'");
  /* Data that belongs to nobody. */
  refuse_header("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 5, "5 bytes of data");
  refuse_header("{}", 1, "1 bytes of data");
}

static void refuses_names_given_twice(void **state) {
  (void)state;
  refuse_header(
      "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
      "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]},"
      "\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[8,12]}}",
      12, "'culprit'");
  /* The same name once the escape is read. */
  refuse_header(
      "{\"culprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
      "\"\\u0063ulprit\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
      8, "'culprit'");
  refuse_header("{\"__metadata__\":{\"culprit\":\"1\",\"culprit\":\"2\"}}", 0, "'culprit'");
  refuse_header("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__");
}

static void refuses_metadata_that_is_not_strings(void **state) {
  (void)state;
  refuse_header("{\"__metadata__\":\"text\"}", 0, "__metadata__");
  refuse_header("{\"__metadata__\":[\"text\"]}", 0, "__metadata__");
  refuse_header("{\"__metadata__\":{\"culprit\":1}}", 0, "'culprit'");
  refuse_header("{\"__metadata__\":{\"a\":\"1\",\"culprit\":{\"a\":\"1\"}}}", 0, "'culprit'");
  refuse_header("{\"__metadata__\":{\"culprit\":null}}", 0, "'culprit'");
}

static void more_dimensions_than_can_be_kept_are_unsupported(void **state) {
  (void)state;
  const struct bytes file =
      make("{\"culprit\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1);
  refuse(file.data, file.size, DLORA_ERR_UNSUPPORTED, "'culprit'");
  free(file.data);
}

static void every_truncation_of_a_good_file_is_refused(void **state) {
  (void)state;
  size_t size = 0;
  unsigned char *good = test_read_file(test_data("tiny_timm_f32.safetensors"), &size);
  for (size_t kept = 0; kept < size; kept += kept < 4200 ? 1 : 997) {
    unsigned char *part = malloc(kept ? kept : 1);
    dlora_model *model = (dlora_model *)(void *)&size;
    assert_non_null(part);
    memcpy(part, good, kept);
    assert_status(DLORA_ERR_FORMAT, dlora_model_load_memory(&model, part, kept, NULL));
    assert_null(model);
    free(part);
  }
  free(good);
}

/* Whatever one byte of the header becomes, reading ends, and in one of the ways that the header file names. */
static void no_damaged_byte_of_a_header_does_harm(void **state) {
  (void)state;
  const char header[] =
      "{\"__metadata__\":{\"num_heads\":\"2\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
      "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[16,24]}}";
  const char *path = test_temporary("damaged.safetensors");
  const unsigned char values[] = {0, ' ', '"', '0', '9', '-', '{', '}', '[', ']', ',', ':', '\\', 'a', 0x80, 0xFF};
  const struct bytes file = make(header, 24);
  for (size_t i = 0; i < file.size - 24; i++) {
    for (size_t k = 0; k < sizeof values; k++) {
      const unsigned char kept = file.data[i];
      size_t visits = 0;
      file.data[i] = values[k];
      test_write_file(path, file.data, file.size);
      const dlora_status status = dlora_inspect(path, visit_nothing, &visits);
      file.data[i] = kept;
      assert_true(status == DLORA_OK || status == DLORA_ERR_FORMAT);
      if (status == DLORA_OK) assert_true(visits >= 2);
      if (status != DLORA_OK) assert_int_equal(visits, 0);
    }
  }
  free(file.data);
}

static void what_is_not_a_file_is_named(void **state) {
  (void)state;
  size_t visits = 0;
  dlora_model *model = NULL;
  const char *missing = test_temporary("missing.safetensors");
  assert_status(DLORA_ERR_IO, dlora_inspect(missing, visit_nothing, &visits));
  assert_error_names(missing);
  assert_error_names(strerror(ENOENT));
  assert_status(DLORA_ERR_IO, dlora_model_load(&model, missing, NULL));
  assert_error_names(missing);
  assert_error_names(strerror(ENOENT));

  const char *folder = test_temporary("folder"); /* one of its own: with weights in it, it would be a model */
  assert_int_equal(mkdir(folder, 0700), 0);
  assert_status(DLORA_ERR_IO, dlora_inspect(folder, visit_nothing, &visits));
  assert_error_names(folder);
  assert_error_names("directory");
  assert_status(DLORA_ERR_IO, dlora_model_load(&model, folder, NULL));
  assert_error_names("directory");

  assert_status(DLORA_ERR_IO, dlora_inspect("/dev/null", visit_nothing, &visits));
  assert_error_names("/dev/null");

  const char *empty = test_temporary("empty.safetensors");
  test_write_file(empty, "", 0);
  assert_status(DLORA_ERR_FORMAT, dlora_inspect(empty, visit_nothing, &visits));
  assert_error_names(empty);
  assert_error_names("empty");
  assert_status(DLORA_ERR_FORMAT, dlora_model_load(&model, empty, NULL));
  assert_error_names(empty);

  /* A pipe that nobody writes to must not be waited for. */
  const char *pipe_path = test_temporary("pipe.safetensors");
  assert_int_equal(mkfifo(pipe_path, 0600), 0);
  assert_status(DLORA_ERR_IO, dlora_inspect(pipe_path, visit_nothing, &visits));
  assert_error_names(pipe_path);
  assert_int_equal(unlink(pipe_path), 0);
  assert_int_equal(visits, 0);
}

/* ---- good files ---- */

enum { MAX_SEEN = 32 };
struct seen {
  size_t count;
  size_t stop_at; /* after this many */
  struct {
    char name[64];
    char dtype[16]; /* "" for metadata */
    char value[64];
    size_t shape[8];
    size_t num_dims;
    size_t num_bytes;
  } items[MAX_SEEN];
};

static int32_t remember(const dlora_tensor_info *info, void *user) {
  struct seen *seen = user;
  assert_int_equal(info->struct_size, sizeof *info);
  assert_true(seen->count < MAX_SEEN);
  assert_true(!info->dtype != !info->value);
  snprintf(seen->items[seen->count].name, 64, "%s", info->name);
  snprintf(seen->items[seen->count].dtype, 16, "%s", info->dtype ? info->dtype : "");
  snprintf(seen->items[seen->count].value, 64, "%s", info->value ? info->value : "");
  if (info->num_dims) memcpy(seen->items[seen->count].shape, info->shape, info->num_dims * sizeof *info->shape);
  seen->items[seen->count].num_dims = info->num_dims;
  seen->items[seen->count].num_bytes = info->num_bytes;
  seen->count++;
  return seen->count == seen->stop_at;
}

static void inspect_header(const char *header, size_t data_size, struct seen *seen) {
  const char *path = test_temporary("good.safetensors");
  const struct bytes file = make(header, data_size);
  test_write_file(path, file.data, file.size);
  free(file.data);
  memset(seen, 0, sizeof *seen);
  assert_status(DLORA_OK, dlora_inspect(path, remember, seen));
}

static void check_tensor(const struct seen *seen, size_t index, const char *name, const char *dtype, size_t num_dims,
                         size_t num_bytes) {
  assert_true(index < seen->count);
  assert_string_equal(seen->items[index].name, name);
  assert_string_equal(seen->items[index].dtype, dtype);
  assert_int_equal(seen->items[index].num_dims, num_dims);
  assert_int_equal(seen->items[index].num_bytes, num_bytes);
}

static void shows_metadata_then_tensors_by_offset(void **state) {
  (void)state;
  struct seen seen;
  inspect_header(
      "{\"second\":{\"dtype\":\"F16\",\"shape\":[3,1],\"data_offsets\":[24,30]},"
      "\"__metadata__\":{\"k\":\"v\",\"empty\":\"\"},"
      "\"first\":{\"data_offsets\":[0,24],\"shape\":[2,3],\"dtype\":\"F32\",\"comment\":[1]}}     ",
      30, &seen);
  assert_int_equal(seen.count, 4);
  const size_t k = strcmp(seen.items[0].name, "k") == 0 ? 0 : 1;
  assert_string_equal(seen.items[k].name, "k");
  assert_string_equal(seen.items[k].value, "v");
  assert_string_equal(seen.items[1 - k].name, "empty");
  assert_string_equal(seen.items[1 - k].value, "");
  check_tensor(&seen, 2, "first", "F32", 2, 24);
  assert_int_equal(seen.items[2].shape[0], 2);
  assert_int_equal(seen.items[2].shape[1], 3);
  check_tensor(&seen, 3, "second", "F16", 2, 6);
  assert_int_equal(seen.items[3].shape[0], 3);
  assert_int_equal(seen.items[3].shape[1], 1);
}

static void reads_scalars_and_empty_tensors(void **state) {
  (void)state;
  struct seen seen;
  inspect_header(
      "{\"scalar\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
      "\"void_between\":{\"dtype\":\"F32\",\"shape\":[4,0,7],\"data_offsets\":[8,8]},"
      "\"byte\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[8,9]},"
      "\"void_at_the_end\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[9,9]}}",
      9, &seen);
  assert_int_equal(seen.count, 4);
  check_tensor(&seen, 0, "scalar", "I64", 0, 8);
  check_tensor(&seen, 1, "void_between", "F32", 3, 0);
  assert_int_equal(seen.items[1].shape[0], 4);
  assert_int_equal(seen.items[1].shape[1], 0);
  assert_int_equal(seen.items[1].shape[2], 7);
  check_tensor(&seen, 2, "byte", "U8", 1, 1);
  check_tensor(&seen, 3, "void_at_the_end", "F32", 1, 0);
  inspect_header("{}", 0, &seen);
  assert_int_equal(seen.count, 0);
  inspect_header(
      "{\"void\":{\"dtype\":\"F32\",\"shape\":[0,9007199254740991,9007199254740991],\"data_offsets\":[0,0]}}", 0,
      &seen);
  check_tensor(&seen, 0, "void", "F32", 3, 0);
}

static void reads_names_in_any_script(void **state) {
  (void)state;
  struct seen seen;
  inspect_header(
      "{\"__metadata__\":{\"\xE9\xB3\xA5\":\"\\u00fc\\ud83d\\ude00\\n\"},"
      "\"gewicht \\\"\xC3\xBC\\\" \\\\ \xE6\x97\xA5\xE6\x9C\xAC\":"
      "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
      "\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
      2, &seen);
  assert_int_equal(seen.count, 3);
  assert_string_equal(seen.items[0].name, "\xE9\xB3\xA5");
  assert_string_equal(seen.items[0].value, "\xC3\xBC\xF0\x9F\x98\x80\n");
  check_tensor(&seen, 1, "gewicht \"\xC3\xBC\" \\ \xE6\x97\xA5\xE6\x9C\xAC", "U8", 1, 1);
  check_tensor(&seen, 2, "", "U8", 1, 1);
}

static void knows_the_width_of_every_dtype(void **state) {
  (void)state;
  const struct {
    const char *name;
    size_t bits;
  } dtypes[] = {{"BOOL", 8}, {"U8", 8},   {"I8", 8},    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"I16", 16},
                {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32},    {"U32", 32},    {"F32", 32},
                {"I64", 64}, {"U64", 64}, {"F64", 64},  {"F4", 4}};
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    struct seen seen;
    char header[128];
    const size_t bytes = 6 * dtypes[i].bits / 8;
    snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,3],\"data_offsets\":[0,%zu]}}",
             dtypes[i].name, bytes);
    inspect_header(header, bytes, &seen);
    check_tensor(&seen, 0, "t", dtypes[i].name, 2, bytes);
    snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,3],\"data_offsets\":[0,%zu]}}",
             dtypes[i].name, bytes + 1);
    refuse_header(header, bytes + 1, "'t'");
  }
}

static void a_visitor_can_stop(void **state) {
  (void)state;
  struct seen seen = {.stop_at = 2};
  const char *path = test_temporary("good.safetensors");
  const struct bytes file = make(
      "{\"__metadata__\":{\"k\":\"v\"},\"one\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
      "\"two\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
      2);
  test_write_file(path, file.data, file.size);
  free(file.data);
  assert_status(DLORA_ERR_CANCELLED, dlora_inspect(path, remember, &seen));
  assert_error_names("'one'");
  assert_int_equal(seen.count, 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(refuses_headers_that_do_not_fit_the_file),
      cmocka_unit_test(refuses_headers_that_are_not_one_json_object),
      cmocka_unit_test(refuses_json_that_is_nested_deeply),
      cmocka_unit_test(refuses_descriptions_that_are_incomplete),
      cmocka_unit_test(refuses_numbers_that_are_not_sizes),
      cmocka_unit_test(refuses_shapes_that_do_not_fill_their_bytes),
      cmocka_unit_test(refuses_tensors_that_do_not_tile_the_data),
      cmocka_unit_test(refuses_names_given_twice),
      cmocka_unit_test(refuses_metadata_that_is_not_strings),
      cmocka_unit_test(more_dimensions_than_can_be_kept_are_unsupported),
      cmocka_unit_test(every_truncation_of_a_good_file_is_refused),
      cmocka_unit_test(no_damaged_byte_of_a_header_does_harm),
      cmocka_unit_test(what_is_not_a_file_is_named),
      cmocka_unit_test(shows_metadata_then_tensors_by_offset),
      cmocka_unit_test(reads_scalars_and_empty_tensors),
      cmocka_unit_test(reads_names_in_any_script),
      cmocka_unit_test(knows_the_width_of_every_dtype),
      cmocka_unit_test(a_visitor_can_stop),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
