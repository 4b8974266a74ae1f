/* The image files of a folder, and what else is in it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_FILE_LIST_H
#define DUALLORA_CLI_FILE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "problem.h"

typedef struct path_list {
  char **paths;
  size_t count;
  size_t capacity;
} path_list;

/** Takes the path over, also on failure. */
bool path_list_add(path_list *list, char *path, problem *why);
void path_list_sort(path_list *list);
void path_list_clear(path_list *list);

enum { PASSED_OVER_KINDS = 16, PASSED_OVER_TEXT = 512 };

/** Files that are no images by their names, counted by kind. Start from {0}. */
typedef struct passed_over {
  struct {
    char name[32]; /* ".txt", "without an extension" ... */
    size_t count;
  } kinds[PASSED_OVER_KINDS];
  size_t num_kinds;
  size_t num_others; /* of further kinds */
  size_t total;
} passed_over;

void passed_over_add(passed_over *counts, const char *kind, size_t count);
void passed_over_merge(passed_over *counts, const passed_over *more);
/** "8 .gif, 2 .txt"; "" if there is none. */
void passed_over_text(const passed_over *counts, char text[PASSED_OVER_TEXT]);
/** A line that says what was passed over in a folder; nothing if there is none. */
void passed_over_print(const passed_over *counts, const char *folder, FILE *out);

/** Adds the sub-folders of a folder to *folders, its image files to *images, and counts the other files. A link to
 *  nothing is an image file if its name is that of one: opening it will fail. Hidden entries are left out. */
bool file_list_folder(const char *folder, path_list *folders, path_list *images, passed_over *others, problem *why);
/** Adds the image files of a folder and of the folders below it, in the order of their paths. */
bool file_list_images(const char *folder, path_list *images, passed_over *others, problem *why);

#endif
