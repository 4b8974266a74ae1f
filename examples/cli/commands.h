/* The sub-commands. Each returns the program's exit code; argv[1] is its own name.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_COMMANDS_H
#define DUALLORA_CLI_COMMANDS_H

#include "options.h"

int learn_command(int argc, char **argv);
int evaluate_command(int argc, char **argv);
int predict_command(int argc, char **argv);
int inspect_command(int argc, char **argv);
int export_command(int argc, char **argv);

/** What DATA may be, for the help of commands that read it. */
extern const char data_help[];

/** Parses from argv[2] on. Returns true to go on; otherwise *code is the exit code, after the help (on standard output)
 *  or the mistake (on standard error) was printed. usage: the command line in short; about: paragraphs for the help. */
bool command_begin(const char *usage, const char *about, const option *table, size_t count, int argc, char **argv,
                   const char **operands, size_t *num_operands, int *code);

#endif
