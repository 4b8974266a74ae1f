/* duallora: learn, evaluate and use an image classifier that keeps learning, from the command line.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "duallora/duallora.h"
#include "image_file.h"
#include "utf8.h"
#include "waiting.h"

const char data_help[] =
    "DATA is one of\n"
    "  a folder with one sub-folder of image files per class; the sub-folders' names are the class names. Images are\n"
    "    " IMAGE_FORMATS
    ", turned upright as their Exif orientation says, transparent ones on white\n"
    "  a folder with such folders train and test (or val, valid, validation), each with the classes below\n"
    "  a CIFAR-10 or CIFAR-100 binary file (.bin), or a folder with train.bin or data_batch_*.bin and test.bin or\n"
    "    test_batch.bin; class names come from batches.meta.txt or fine_label_names.txt beside them\n"
    "  an idx file ...images-idx3-ubyte[.gz] with its labels-idx1 file beside it, or a folder with train-... and\n"
    "    t10k-... files (MNIST, Fashion-MNIST)\n"
    "Of a folder that holds both, --train reads the training files and --test the test files. Classes are matched by\n"
    "name.\n";

static const struct {
  const char *name;
  const char *summary;
  int (*run)(int argc, char **argv);
} commands[] = {
    {"learn", "learn the classes of a data set, task after task, and save a checkpoint", learn_command},
    {"evaluate", "measure a checkpoint on test images", evaluate_command},
    {"predict", "class, task and confidence of image files", predict_command},
    {"inspect", "list what is in a safetensors file: checkpoint or backbone", inspect_command},
    {"export", "write images of a data set as PNG files", export_command},
};
#define NUM_COMMANDS (sizeof commands / sizeof commands[0])

static const char exit_help[] =
    "Exit codes: 0 done, 1 failed (one sentence on standard error says why), 2 wrong usage, 130 interrupted.\n";

static void print_help(void) {
  printf(
      "Usage: duallora COMMAND [OPTION]...\n\n"
      "A Vision Transformer that learns task after task without forgetting and without keeping old images.\n\n"
      "Commands:\n");
  for (size_t i = 0; i < NUM_COMMANDS; i++) printf("  %-10s%s\n", commands[i].name, commands[i].summary);
  printf(
      "\nOptions:\n"
      "  --help    this text; 'duallora COMMAND --help' lists the options of a command\n"
      "  --version the versions of the program's library and what it computes with\n\n%s",
      exit_help);
}

bool command_begin(const char *usage, const char *about, const option *table, size_t count, int argc, char **argv,
                   const char **operands, size_t *num_operands, int *code) {
  problem why = {""};
  switch (options_parse(table, count, argc, argv, 2, operands, num_operands, &why)) {
    case OPTIONS_OK:
      interrupt_install();
      return true;
    case OPTIONS_HELP:
      printf("Usage: duallora %s\n\n%s", usage, about);
      options_print_help(table, count, stdout);
      printf("\n%s", exit_help);
      *code = EXIT_DONE;
      return false;
    case OPTIONS_WRONG:
      break;
  }
  fprintf(stderr, "duallora %s: ", argv[1]);
  utf8_print(stderr, why.text);
  fprintf(stderr, "\nTry 'duallora %s --help'.\n", argv[1]);
  *code = EXIT_USAGE;
  return false;
}

/* Output that nobody could write, to a full disk say, must not look like success. */
static int finish(int code) {
  if (fflush(stdout) == 0 && !ferror(stdout)) return code;
  perror("duallora: cannot write to standard output");
  return code == EXIT_DONE ? EXIT_FAILED : code;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "duallora: which command? Try 'duallora --help'.\n");
    return EXIT_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    print_help();
    return finish(EXIT_DONE);
  }
  if (strcmp(argv[1], "--version") == 0) {
    printf("duallora %s\n%s\n", dlora_version(), dlora_build_info());
    return finish(EXIT_DONE);
  }
  for (size_t i = 0; i < NUM_COMMANDS; i++)
    if (strcmp(argv[1], commands[i].name) == 0) {
      wait_passively(argv);
      return finish(commands[i].run(argc, argv));
    }
  fprintf(stderr, "duallora: there is no command '");
  utf8_print(stderr, argv[1]);
  fprintf(stderr, "'. Try 'duallora --help'.\n");
  return EXIT_USAGE;
}
