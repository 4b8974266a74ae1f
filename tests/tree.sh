#!/bin/sh
# Checks of the source tree: tests/tree.sh includes | listed | opened | format | assertions COMPILER. Exits with 77 (skipped) if the tool is missing.
# SPDX-License-Identifier: Apache-2.0
set -eu
cd "$(dirname "$0")/.."
sources() { find include lib src tests examples -name '*.[ch]' | sort; }
opening() { # the comment at the top of a file
  case $1 in
    *.[ch]) awk 'NR == 1 && !/^\/\*/ { exit } { print } /\*\// { exit }' "$1" ;;
    *) awk '!/^(#|\/\/)/ { exit } { print }' "$1" ;;
  esac
}

case ${1:-} in
  includes)
    status=0
    # Tests and examples are users: the public header and files of their own folder, nothing of the library's inside.
    # Fuzz targets also read the command's headers, whose sources they are made with.
    for file in $(find tests examples -name '*.[ch]'); do
      for included in $(sed -n 's/^ *# *include *"\(.*\)".*/\1/p' "$file"); do
        [ "$included" = duallora/duallora.h ] || [ -f "$(dirname "$file")/$included" ] && continue
        case $file in
          examples/* | tests/fuzz/*) [ -f "examples/$included" ] && continue ;;
        esac
        echo "$file includes \"$included\""
        status=1
      done
      if grep -nE '# *include *[<"][^>"]*(\.\./)*(lib|src)/' "$file"; then
        echo "$file includes a file of the library's inside"
        status=1
      fi
    done
    # lib/ has never heard of a task.
    for file in $(find lib -name '*.[ch]'); do
      for included in $(sed -n 's/^ *# *include *"\(.*\)".*/\1/p' "$file"); do
        [ "$included" = duallora/duallora.h ] || [ -f "lib/$included" ] && continue
        echo "$file includes \"$included\", which is not of lib/"
        status=1
      done
    done
    # Floors: a file includes headers of its own folder and of those before it.
    rooms=
    for tree in 'lib base linalg nn io vit' 'src options model projector bank predictor session learner checkpoint interop'; do
      # shellcheck disable=SC2086
      set -- $tree
      top=$1
      shift
      below=
      for room in "$@"; do
        below="$below $room"
        rooms="$rooms $top/$room"
        for file in "$top/$room"/*.[ch]; do
          for included in $(sed -n "s|^ *# *include *\"\(src/\)\{0,1\}\([a-z]*\)/.*|\2|p" "$file"); do
            case " $* " in
              *" $included "*) ;;
              *) continue ;; # of another tree
            esac
            case " $below " in
              *" $included "*) ;;
              *) echo "$file includes a header of $included, which is above it" && status=1 ;;
            esac
          done
        done
      done
      for folder in "$top"/*; do
        case " $* " in
          *" $(basename "$folder") "*) ;;
          *) echo "$folder is no room of $top/" && status=1 ;;
        esac
      done
    done
    # So do calls: a public function can be called without a header of its room.
    files=$(for room in $rooms; do ls "$room"/*.c; done)
    # shellcheck disable=SC2086
    awk -v rooms="$rooms" '
      function room(file) { sub(/\/[^\/]*$/, "", file); return file }
      BEGIN { count = split(rooms, list, " "); for (i = 1; i <= count; i++) floor_of[list[i]] = i }
      round == 1 && /^[a-z].*[ *](dli|dlora)_[a-z0-9_]*\(/ && !/^static / {
        match($0, /(dli|dlora)_[a-z0-9_]*\(/)
        home[substr($0, RSTART, RLENGTH - 1)] = room(FILENAME)
      }
      round == 2 && !/^ *(\*|\/\*)/ {
        for (line = $0; match(line, /(dli|dlora)_[a-z0-9_]*\(/); line = substr(line, RSTART + RLENGTH)) {
          name = substr(line, RSTART, RLENGTH - 1)
          if (name in home && floor_of[home[name]] > floor_of[room(FILENAME)]) {
            print FILENAME " calls " name " of " home[name] ", which is above it"
            status = 1
          }
        }
      }
      END { exit status }' round=1 $files round=2 $files || status=1
    exit $status
    ;;
  listed)
    # Source lists are explicit: a file that nobody builds is found here.
    status=0
    for file in $(find lib src -name '*.c'); do
      grep -qE "(^| )$file( |\)|\$)" CMakeLists.txt && continue
      echo "$file is not in CMakeLists.txt"
      status=1
    done
    for file in $(find tests -maxdepth 1 -name 'test_*.c'); do
      name=${file#tests/test_}
      grep -q "^  ${name%.c})\{0,1\}\$" tests/CMakeLists.txt && continue
      echo "$file is not in tests/CMakeLists.txt"
      status=1
    done
    for file in $(find tests/fuzz -name '*.c'); do
      name=$(basename "$file" .c)
      grep -qE "\\<$name\.c\\>|(foreach\(name|fuzz_target\()[^)]*\\<${name#fuzz_}\\>" tests/fuzz/CMakeLists.txt && continue
      echo "$file is not in tests/fuzz/CMakeLists.txt"
      status=1
    done
    exit $status
    ;;
  opened)
    # The opening comment names the licence and, inside the library, says what the file computes.
    status=0
    for file in CMakeLists.txt $(find cmake docs examples include lib src tests -name '*.[ch]' -o -name '*.cpp' \
      -o -name '*.sh' -o -name '*.py' -o -name '*.cmake' -o -name CMakeLists.txt | sort); do
      if ! opening "$file" | grep -q 'SPDX-License-Identifier: Apache-2\.0'; then
        echo "$file: the comment at its top has no line SPDX-License-Identifier: Apache-2.0"
        status=1
      fi
      case $file in
        lib/* | src/*) ;;
        *) continue ;;
      esac
      if [ "$(opening "$file" | grep -v SPDX | tr -d '/*' | wc -w)" -lt 5 ]; then
        echo "$file: the comment at its top does not say what the file computes"
        status=1
      fi
    done
    exit $status
    ;;
  format)
    command -v clang-format >/dev/null || exit 77
    sources | xargs clang-format --dry-run -Werror
    ;;
  assertions)
    # DLI_ASSERT traps where it should, and costs nothing in a release build.
    compiler=${2:-cc}
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cat >"$scratch/program.c" <<'END'
#include "base/assert.h"
#include <stdio.h>
int main(int count, char **arguments) {
  const int unused_but_here = count;
  (void)arguments;
  DLI_ASSERT(unused_but_here > 0);
  DLI_ASSERT(puts("evaluated") < 0);
  return 0;
}
END
    status=0
    try() { # outcome flags...
      outcome=$1
      shift
      "$compiler" -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Werror "$@" -Ilib "$scratch/program.c" -o "$scratch/program" || exit 1
      found=passes
      sh -c 'ulimit -c 0; "$0"; exit $?' "$scratch/program" >"$scratch/output" 2>/dev/null || found=traps
      [ -s "$scratch/output" ] && found="evaluates and $found"
      [ "$found" = "$outcome" ] && return
      echo "with flags '$*' a wrong assertion $found, expected that it $outcome"
      status=1
    }
    try traps -O0
    try traps -O2
    try traps -O2 -DNDEBUG -DDLI_ASSERTIONS
    try passes -O0 -DNDEBUG
    try passes -O2 -DNDEBUG
    exit $status
    ;;
  *)
    echo "usage: tests/tree.sh includes | listed | opened | format | assertions COMPILER" >&2
    exit 2
    ;;
esac
