/* Small JSON files as untrusted input: config.json and its like.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_IO_JSON_FILE_H
#define DLI_IO_JSON_FILE_H

#include "duallora/duallora.h"

struct cJSON;

/* Reads the one object that a file holds, of at most 16 MiB. Release it with cJSON_Delete. Errors: IO, FORMAT. */
dlora_status dli_json_read(struct cJSON **out, const char *path, const dlora_allocator *allocator);
/* The object's member of that name; *out is NULL where there is none, where its value is null, or where object is NULL.
 * FORMAT where it is given twice: readers of JSON do not agree on which one counts. label names the file. */
dlora_status dli_json_member(const struct cJSON *object, const char *name, const char *label, const struct cJSON **out);

#endif
