#!/bin/sh
# Compiles the public header alone: tests/abi/header.sh COMPILER STANDARD, as "g++ c++20". Exits with 77 (skipped) if there
# is no such compiler. -Wpadded: no struct has a hole, so that bindings and zero-checks see every byte.
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
command -v "$1" >/dev/null || exit 77
case $2 in
  c++*) language=c++ ;;
  *) language=c ;;
esac
printf '#include "duallora/duallora.h"\nint main(void) { return dlora_last_error() == NULL; }\n' |
  "$1" -x "$language" -std="$2" -Wall -Wextra -pedantic -Werror -Wpadded -I"$root/include" -fsyntax-only -
if [ "$language" = c ]; then # every _INIT macro, each of which must set every member
  {
    echo '#include "duallora/duallora.h"'
    sed -n 's/^#define \(DLORA_[A-Z_]*\)_INIT .*/\1/p' "$root/include/duallora/duallora.h" | while read -r name; do
      type=$(echo "$name" | tr 'A-Z' 'a-z')
      echo "extern const $type ${type}_initial; const $type ${type}_initial = ${name}_INIT;"
    done
  } | "$1" -x c -std="$2" -Wall -Wextra -pedantic -Werror -I"$root/include" -fsyntax-only -
fi
