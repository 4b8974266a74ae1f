#!/bin/sh
# Compares the size of every public struct, the offset of every member and the value of every constant with the committed
# baseline: what a program compiled against this header relies on.
#
#     tests/abi/layout.sh check [COMPILER]     against tests/abi/layout-x86_64.txt; 77 (skipped) on other processors
#     tests/abi/layout.sh update [COMPILER]    after appending members or constants
#
# SPDX-License-Identifier: Apache-2.0
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
compiler=${2:-cc}
[ "$(uname -m)" = x86_64 ] || exit 77
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Preprocessed, so without comments and with the status list expanded; one statement a line.
echo '#include "duallora/duallora.h"' | "$compiler" -E -P -I"$root/include" - | tr '\n' ' ' |
  sed -e 's/typedef struct \(dlora_[a-z_]*\) {/\nstruct \1\n/g' -e 's/} dlora_[a-z_]*;/\nend\n/g' |
  sed -e 's/enum {/\nenum\n/g' -e 's/};/\nend\n/g' -e 's/;/;\n/g' >"$scratch/statements"
awk '
  BEGIN {
    print "#include <stddef.h>"
    print "#include <stdio.h>"
    print "#include \"duallora/duallora.h\""
    print "int main(void) {"
  }
  /^struct / { name = $2; printf "  printf(\"%s %%zu\\n\", sizeof(%s));\n", name, name; next }
  /^enum$/ { enumeration = 1; next }
  /^end$/ { name = ""; enumeration = 0; next }
  enumeration {
    count = split($0, constants, ",")
    for (i = 1; i <= count; i++) {
      if (match(constants[i], /DLORA_[A-Z0-9_]*[A-Z0-9]( |=|$)/)) {
        constant = substr(constants[i], RSTART, RLENGTH)
        gsub(/[ =]/, "", constant)
        printf "  printf(\"%s %%d\\n\", (int)%s);\n", constant, constant
      }
    }
    next
  }
  name && /;$/ {
    member = $0
    if (match(member, /\(\*[a-z0-9_]+\)/)) {
      member = substr(member, RSTART + 2, RLENGTH - 3)
    } else {
      sub(/(\[[0-9]+\])? *;$/, "", member)
      sub(/.*[ *]/, "", member)
    }
    printf "  printf(\"%s.%s %%zu\\n\", offsetof(%s, %s));\n", name, member, name, member
  }
  END { print "  return 0;\n}" }' "$scratch/statements" >"$scratch/layout.c"
"$compiler" -std=c11 -I"$root/include" "$scratch/layout.c" -o "$scratch/layout"
{
  echo "# Sizes, offsets and constants of include/duallora/duallora.h on x86-64; tests/abi/layout.sh update rewrites it."
  "$scratch/layout"
} >"$scratch/layout.txt"
case ${1:-} in
  check) diff "$here/layout-x86_64.txt" "$scratch/layout.txt" ;;
  update) cp "$scratch/layout.txt" "$here/layout-x86_64.txt" ;;
  *)
    echo "usage: tests/abi/layout.sh check | update [COMPILER]" >&2
    exit 2
    ;;
esac
