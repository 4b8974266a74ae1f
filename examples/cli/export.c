/* duallora export
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "dataset.h"
#include "files.h"
#include "image_file.h"

static const char usage[] = "export --data DATA --out FOLDER [--count N] [--images-per-class K] [--part train|test]";
static const char about[] =
    "Writes images of a data set as FOLDER/CLASS/NUMBER.png, where NUMBER counts in file order: something to look at, "
    "to\n"
    "predict, or to learn from, for the folder is a data set too.\n\n";

/* A class name may hold what a file name may not. */
static void make_file_name(const char *class, char *name, size_t size) {
  snprintf(name, size, "%s%s", class[0] == '.' ? "_" : "", class);
  for (char *at = name; *at != '\0'; at++)
    if (*at == '/') *at = '-';
}

static bool make_folder(const char *path, problem *why) {
  if (mkdir(path, 0777) == 0 || errno == EEXIST) return true;
  return problem_set(why, "cannot make the folder %s: %s", path, strerror(errno));
}

/* Folder and file of an image; freed by the caller even after a failure. */
static bool make_paths(const dataset *data, size_t index, const char *folder, char **class_folder, char **path,
                       problem *why) {
  char class[256];
  char number[32];
  make_file_name(data->class_names[data->labels[index]], class, sizeof class);
  snprintf(number, sizeof number, "%06zu.png", index);
  *class_folder = dataset_join(folder, class);
  *path = *class_folder == NULL ? NULL : dataset_join(*class_folder, number);
  return *path != NULL || problem_set(why, "no memory for a file name");
}

/* Earlier pictures, or those of a data set that lies there, are not replaced. */
static bool check_new(const dataset *data, size_t count, const char *folder, problem *why) {
  bool done = true;
  for (size_t i = 0; done && i < count; i++) {
    char *class_folder = NULL;
    char *path = NULL;
    done = make_paths(data, i, folder, &class_folder, &path, why);
    if (done && files_exist(path))
      done = problem_set(why, "--out: %s exists and is not replaced; name another folder", path);
    free(path);
    free(class_folder);
  }
  return done;
}

static bool export_image(dataset *data, size_t index, const char *folder, problem *why) {
  dlora_images image;
  char *class_folder = NULL;
  char *path = NULL;
  bool done = make_paths(data, index, folder, &class_folder, &path, why);
  done = done && make_folder(class_folder, why) && dataset_read(data, index, &image, why) &&
         image_file_write_png(path, image.u8, image.height, image.width, image.channels, why);
  free(path);
  free(class_folder);
  return done;
}

int export_command(int argc, char **argv) {
  int code = EXIT_DONE;
  problem why = {""};
  const char *path = NULL;
  const char *out = NULL;
  size_t count = 0;
  size_t images_per_class = 0;
  int32_t part = DATASET_TEST;
  dataset data = {0};
  const option entries[] = {
      {OPTION_TEXT, "data", "DATA", "images to write", 0, 0, NULL, true, &path, NULL},
      {OPTION_TEXT, "out", "FOLDER", "where to; it is made if it does not exist", 0, 0, NULL, true, &out, NULL},
      {OPTION_SIZE, "count", "N", "the first N images (default: all)", 1, 1e9, NULL, false, &count, NULL},
      {OPTION_SIZE, "images-per-class", "K", "the first K images of each class", 1, 1e9, NULL, false, &images_per_class,
       NULL},
      {OPTION_CHOICE, "part", "P", "of a folder that holds both: train or test (default)", 0, 0, "train|test", false,
       &part, NULL},
  };
  char text[2048];
  snprintf(text, sizeof text, "%s%s", about, data_help);
  if (!command_begin(usage, text, entries, sizeof entries / sizeof entries[0], argc, argv, NULL, NULL, &code))
    return code;
  dataset_request request = {path, part == 0 ? DATASET_TRAIN : DATASET_TEST, images_per_class, false, true};
  if (files_are_same(path, out)) {
    problem_set(&why, "--out and --data are the same folder, %s", out);
    problem_report(&why, argv[1]);
    return EXIT_USAGE;
  }
  bool done = dataset_open(&data, &request, &why);
  if (done) dataset_print_notes(&data, path, stderr);
  if (count == 0 || count > data.count) count = data.count;
  bool replaces = done && !check_new(&data, count, out, &why);
  done = done && !replaces && make_folder(out, &why);
  for (size_t i = 0; done && i < count; i++) {
    if (interrupt_requested()) done = problem_set(&why, "interrupted");
    if (done) done = export_image(&data, i, out, &why);
  }
  if (done) fprintf(stderr, "%zu images written to %s\n", count, out);
  dataset_close(&data);
  if (done) return EXIT_DONE;
  code = problem_report(&why, argv[1]);
  return replaces ? EXIT_USAGE : code;
}
