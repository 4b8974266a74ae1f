/* duallora inspect
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "duallora/duallora.h"
#include "settings.h"
#include "utf8.h"

static const char usage[] = "inspect [--summary] FILE_OR_FOLDER";
static const char about[] =
    "Checks a safetensors file, or the weights in a folder as hubs ship them, and lists metadata and tensors; then "
    "says\n"
    "what it is: a checkpoint of duallora, a backbone with its settings and where each comes from, or why it is "
    "none.\n";

typedef struct listing {
  bool summary; /* no list */
  size_t num_tensors;
  size_t num_bytes;
  bool is_ours; /* a metadata entry speaks of this library */
} listing;

static void print_column(const char *text, size_t width) {
  size_t printed = utf8_print(stdout, text);
  printf("%*s", printed < width ? (int)(width - printed) + 1 : 1, "");
}

/* Long values are cut, between two characters: a checkpoint keeps its options in one. */
static void print_metadata(const char *name, const char *value) {
  char shown[161];
  size_t length = 0;
  for (size_t size = 0; value[length] != '\0'; length += size) {
    size = utf8_sequence(value + length);
    if (size == 0) size = 1;
    if (length + size > sizeof shown - 1) break;
  }
  memcpy(shown, value, length);
  shown[length] = '\0';
  printf("metadata  ");
  print_column(name, 24);
  utf8_print(stdout, shown);
  puts(value[length] != '\0' ? "..." : "");
}

/* A dlora_inspect visitor. */
static int32_t visit(const dlora_tensor_info *info, void *user) {
  listing *list = user;
  if (interrupt_requested()) return 1;
  if (info->value != NULL) {
    if (strstr(info->name, "duallora") != NULL || strstr(info->value, "duallora") != NULL) list->is_ours = true;
    if (!list->summary) print_metadata(info->name, info->value);
    return 0;
  }
  list->num_tensors++;
  list->num_bytes += info->num_bytes;
  if (list->summary) return 0;
  printf("%-8s  ", info->dtype);
  print_column(info->name, 48);
  printf("[");
  for (size_t i = 0; i < info->num_dims; i++) printf("%s%zu", i > 0 ? ", " : "", info->shape[i]);
  printf("]  %zu bytes\n", info->num_bytes);
  return 0;
}

static const char *naming(int32_t naming) {
  static const char *const names[] = {"timm",
                                      "Hugging Face ViT",
                                      "Hugging Face DINOv2",
                                      "Hugging Face CLIP",
                                      "Hugging Face SigLIP",
                                      "Hugging Face DINOv3",
                                      "Hugging Face AIMv2"};
  return naming >= 0 && (size_t)naming < sizeof names / sizeof *names ? names[naming] : "unknown";
}

static const char *origin_name(int32_t origin) {
  static const char *const names[] = {"an option", "metadata", "JSON", "the table, by", "tensors", "the default"};
  return origin >= 0 && origin < (int32_t)(sizeof names / sizeof names[0]) ? names[origin] : "?";
}

/* What shapes do not tell, with the file and the key that tell it. */
static void print_settings(const dlora_model *model) {
  for (size_t i = 0; i < dlora_model_num_settings(model); i++) {
    dlora_model_setting setting = DLORA_MODEL_SETTING_INIT;
    if (dlora_model_get_setting(model, i, &setting) != DLORA_OK) return;
    printf("setting   ");
    print_column(setting.name, 20);
    print_column(setting.value, 26);
    /* Metadata and JSON files are named by the place itself. */
    bool said = setting.origin == DLORA_ORIGIN_METADATA || setting.origin == DLORA_ORIGIN_JSON;
    if (!said) printf("%s%s", origin_name(setting.origin), setting.place[0] == '\0' ? "" : " ");
    utf8_print(stdout, setting.place);
    putchar('\n');
  }
}

/* A backbone is what dlora_model_load accepts; of other files it is said why it does not. */
static void describe_backbone(const char *path) {
  dlora_model *model = NULL;
  dlora_model_info info;
  problem why = {""};
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  if (dlora_model_load(&model, path, NULL) != DLORA_OK) {
    settings_problem(&why, path);
    printf("\nAs it is, no backbone: ");
    utf8_print(stdout, why.text);
    putchar('\n');
  } else if (dlora_model_get_info(model, &info) == DLORA_OK) {
    printf(
        "\nA backbone with %s names: %zu blocks of width %zu, %zu heads, MLP %zu, patches of %zu pixels, images of\n"
        "%zu x %zu pixels (%zu tokens), %zu parameters\n",
        naming(info.naming), info.depth, info.embed_dim, info.num_heads, info.mlp_dim, info.patch_size, info.image_size,
        info.image_size, info.num_tokens, info.num_parameters);
    printf("fingerprint %s\n\n", info.fingerprint);
    print_settings(model);
  }
  dlora_model_destroy(model);
}

int inspect_command(int argc, char **argv) {
  int code = EXIT_DONE;
  problem why = {""};
  listing list = {false, 0, 0, false};
  const option entries[] = {
      {OPTION_FLAG, "summary", NULL, "only what the file is, not what is in it", 0, 0, NULL, false, &list.summary,
       NULL},
  };
  const char *operands[3] = {NULL};
  size_t count = 0;
  if (argc > 5) {
    fprintf(stderr, "duallora inspect: one file or folder, please. Try 'duallora inspect --help'.\n");
    return EXIT_USAGE;
  }
  if (!command_begin(usage, about, entries, 1, argc, argv, operands, &count, &code)) return code;
  if (count != 1) {
    fprintf(stderr,
            "duallora inspect: one file or folder is expected, and %zu are given. Try 'duallora inspect --help'.\n",
            count);
    return EXIT_USAGE;
  }
  if (dlora_inspect(operands[0], visit, &list) != DLORA_OK) {
    problem_set_library(&why, operands[0]);
    return problem_report(&why, argv[1]);
  }
  printf("%s%zu tensors, %zu bytes\n", list.summary ? "" : "\n", list.num_tensors, list.num_bytes);
  if (list.is_ours)
    printf("\nWritten by libduallora; 'duallora evaluate' and 'predict' use it together with its backbone.\n");
  else
    describe_backbone(operands[0]);
  return EXIT_DONE;
}
