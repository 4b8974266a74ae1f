/* Labelled images of a folder or file, read one at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_DATASET_H
#define DUALLORA_CLI_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "duallora/duallora.h"
#include "file_list.h"
#include "problem.h"

/** Which files of a folder that holds both are meant. */
typedef enum dataset_part { DATASET_TRAIN, DATASET_TEST } dataset_part;

typedef struct dataset_request {
  const char *path;
  dataset_part part;
  size_t images_per_class; /* the first so many of each class in file order; 0: all */
  bool skip_corrupt;       /* leave unreadable image files out instead of failing */
  bool check_headers;      /* check the headers of image files only, not the pixels */
} dataset_request;

typedef struct dataset dataset;
struct dataset {
  char **class_names; /* [num_classes], all different */
  size_t num_classes;
  size_t *labels; /* [count] index into class_names; every class has an image */
  size_t count;
  size_t num_skipped; /* unreadable files left out */
  passed_over others; /* files of a folder that are no images by their names */
  char note[1024];    /* what else to say of how it was read; "" if nothing */
  /* of the reader */
  void *state;
  bool (*read)(dataset *data, size_t index, dlora_images *image, problem *why);
  void (*close)(void *state);
  /* Path of the file that holds this image alone; NULL where many share a file. */
  const char *(*file_of)(const dataset *data, size_t index);
};

/** Opens DATA: a folder with a sub-folder of image files per class, or with two such folders of which request->part
 * says which one is meant, CIFAR-10 or CIFAR-100 binary files, or idx files. Everything that can be checked is checked
 * now. Returns false with *data empty on failure. */
bool dataset_open(dataset *data, const dataset_request *request, problem *why);
/** Prints, each on a line, which part of path was read and what was passed over in it; nothing where all was read. */
void dataset_print_notes(const dataset *data, const char *path, FILE *out);
void dataset_close(dataset *data);
/** Fills *image with one image, whose pixels stay valid until the next call. */
bool dataset_read(dataset *data, size_t index, dlora_images *image, problem *why);

/* ---- for the readers ---- */

bool folder_open(dataset *data, const dataset_request *request, problem *why);
bool cifar_open(dataset *data, const dataset_request *request, problem *why);
bool idx_open(dataset *data, const dataset_request *request, problem *why);
/** Are these the names of files that the reader knows? path is a regular file or a folder. */
bool cifar_recognises(const char *path, bool is_folder);
bool idx_recognises(const char *path, bool is_folder);

/** From the byte labels of all stored images [count]: keeps the first per_class of each label in file order, numbers
 *  the labels that occur from 0 in increasing order, and fills data->labels, count, num_classes and class_names.
 *  names [256] may hold NULL: then the number is the name. *kept: positions of the images kept [data->count]; freed by
 *  the caller. */
bool dataset_set_byte_labels(dataset *data, const uint8_t *labels, size_t count, size_t per_class,
                             char *const names[256], size_t **kept, problem *why);
/** One name per line, into names [256], which is all NULL before; blank lines are passed over. A file that does not
 *  exist is no failure. The strings are freed by the caller even after a failure. */
bool dataset_read_names(const char *path, char *names[256], problem *why);
/** folder/name, to be freed; NULL without memory. */
char *dataset_join(const char *folder, const char *name);
bool dataset_file_exists(const char *path);

#endif
