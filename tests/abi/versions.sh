#!/bin/sh
# Programs built against an older and a newer header run with this library as those built against its own:
#     tests/abi/versions.sh LIBRARY.so COMPILER BACKBONE.safetensors
#
# The other headers are made from the present one. In the older one every struct with a struct_size lacks its last
# members (8 bytes or more, as many as keep it free of holes); in the newer one it has one more. tests/abi/versions.c is
# compiled against each and must print the same. With a member set that the library does not know, it is refused.
# SPDX-License-Identifier: Apache-2.0
set -eu
export LC_ALL=C
library=$1
compiler=$2
backbone=$3
here=$(cd "$(dirname "$0")" && pwd)
header=$here/../../include/duallora/duallora.h
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Members are one to a line, with comments that may go on over further lines.
edit() { # older | newer
  mkdir -p "$scratch/$1/duallora"
  awk -v change="$1" '
    function size_of(member,   size, n) {
      sub(/\/\*.*/, "", member)
      size = member ~ /\*|size_t|double|64_t|_fn / ? 8 : member ~ /char / ? 1 : 4
      n = 1
      if (match(member, /\[[0-9]+\]/)) n = substr(member, RSTART + 1, RLENGTH - 2)
      return size * n
    }
    /^typedef struct dlora_[a-z_]* \{/ { inside = 1; count = 0; sized = 0 }
    inside && /^  [a-z][^\/]*;/ {
      if ($0 ~ /^  size_t struct_size;/) sized = 1
      line[++count] = $0
      next
    }
    inside && /^}/ {
      keep = count
      if (sized && change == "older") {
        for (dropped = 0; keep > 1 && (dropped == 0 || dropped % 8); keep--) dropped += size_of(line[keep])
        structs++
      }
      for (i = 1; i <= keep; i++) print line[i]
      if (sized && change == "newer") { print "  uint64_t later;"; structs++ }
      inside = 0
    }
    inside && count > 0 { line[count] = line[count] "\n" $0; next }
    { print }
    END { print structs > "/dev/stderr" }' "$header" >"$scratch/$1/duallora/duallora.h" 2>"$scratch/$1/structs"
}
edit older
edit newer
mkdir -p "$scratch/own/duallora"
cp "$header" "$scratch/own/duallora/duallora.h"

status=0
all=$(grep -c '^  size_t struct_size;' "$header")
for version in older newer; do
  if [ "$(cat "$scratch/$version/structs")" -ne "$all" ]; then
    echo "$version header: $(cat "$scratch/$version/structs") of $all sized structs were changed" >&2
    status=1
  fi
done
# Every sized struct is used by the program, so that one that is added is not forgotten here.
awk '/^typedef struct dlora_/ { name = $3 } /^  size_t struct_size;/ { print name }' "$header" >"$scratch/names"
while read -r name; do
  grep -q "\\<$name\\>" "$here/versions.c" && continue
  echo "tests/abi/versions.c does not use $name" >&2
  status=1
done <"$scratch/names"

for version in own older newer; do
  later=
  [ $version != newer ] || later=-DLATER
  # shellcheck disable=SC2086
  "$compiler" -std=c11 -Wall -Wextra -Werror -Wpadded $later -fsyntax-only -x c \
    -include "$scratch/$version/duallora/duallora.h" /dev/null
  # shellcheck disable=SC2086
  "$compiler" -std=c11 -Wall -Wextra -Werror -O1 $later -I"$scratch/$version" "$here/versions.c" "$library" \
    -Wl,-rpath,"$(dirname "$library")" -o "$scratch/$version/program"
  "$scratch/$version/program" "$backbone" "$scratch/checkpoint" >"$scratch/$version/printed"
  if ! diff "$scratch/own/printed" "$scratch/$version/printed"; then
    echo "a program built against its own (<) and the $version (>) header gets different results" >&2
    status=1
  fi
done
"$scratch/newer/program" "$backbone" "$scratch/checkpoint" refused >/dev/null || status=1
[ $status -ne 0 ] || echo "$all sized structs: shorter and longer ones work, set members beyond are refused"
exit $status
