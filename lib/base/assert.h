/* Assertions of what the library promises itself: sizes, ranges and states that hold unless its own code is wrong. They
 * trap in debug builds (no NDEBUG) and in builds with sanitizers (DLI_ASSERTIONS). In release builds the condition is
 * parsed, so that its variables count as used, and never evaluated. What a user or a file can get wrong raises an error
 * instead.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_BASE_ASSERT_H
#define DLI_BASE_ASSERT_H

#if defined(DLI_ASSERTIONS) || !defined(NDEBUG)
#if defined(__GNUC__)
#define DLI_ASSERT(condition) ((condition) ? (void)0 : __builtin_trap())
#else
#include <stdlib.h>
#define DLI_ASSERT(condition) ((condition) ? (void)0 : abort())
#endif
#else
#define DLI_ASSERT(condition) ((void)sizeof((condition) ? 1 : 0))
#endif

#endif
