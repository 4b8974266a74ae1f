/* How idle threads wait.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_CLI_WAITING_H
#define DUALLORA_CLI_WAITING_H

/** Makes OpenMP's threads sleep while they wait, unless the environment says how they are to: spinning, they take the
 *  processors from each other where other programs run. Starts the program anew where that is needed. Call it before
 *  anything else is done. */
void wait_passively(char **argv);

#endif
