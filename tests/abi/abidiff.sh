#!/bin/sh
# Compares the binary interface of the shared library with the committed baseline by abidiff (Debian: abigail-tools):
# exported functions with their parameters, return values and every type that these reach, as the compiler made them.
#
#     tests/abi/abidiff.sh check [CMAKE_OPTION ...]     against tests/abi/duallora-x86_64.abi; 77 (skipped) without the tool
#     tests/abi/abidiff.sh update [CMAKE_OPTION ...]    after adding functions or members; tests/abi/update.sh calls it
#
# The tool reads debug information, which a release has none of: the library is built once more, unoptimised (5 s).
# SPDX-License-Identifier: Apache-2.0
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
baseline=$here/duallora-x86_64.abi
case ${1:-} in
  check | update) ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
action=$1
shift
if [ "$(uname -m)" != x86_64 ]; then
  echo "skipped: the baseline is of x86-64" >&2
  exit 77
fi
for tool in abidiff abidw; do
  if ! command -v $tool >/dev/null; then
    echo "skipped: no $tool (Debian: abigail-tools)" >&2
    exit 77
  fi
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cmake -S "$root" -B "$scratch/build" "$@" -DCMAKE_BUILD_TYPE=Debug -DBUILD_SHARED_LIBS=ON -DDUALLORA_BUILD_TESTS=OFF \
  -DDUALLORA_BUILD_EXAMPLES=OFF -DCMAKE_C_FLAGS="-g -ffile-prefix-map=$root/=" >"$scratch/log" 2>&1 &&
  cmake --build "$scratch/build" --target duallora --parallel "$(nproc)" >>"$scratch/log" 2>&1 || {
  cat "$scratch/log" >&2
  exit 1
}
# Handles are opaque: of them the header shows the name alone, and so does the baseline. Both sides are written by abidw:
# a baseline without source lines makes abidiff take every type of a library beside it for a private one.
abidw --headers-dir "$root/include" --drop-private-types --exported-interfaces-only --no-show-locs --no-corpus-path \
  --no-comp-dir-path --no-elf-needed --no-parameter-names --no-write-default-sizes --out-file "$scratch/now" \
  "$scratch/build/libduallora.so"
if [ "$action" = update ]; then
  cp "$scratch/now" "$baseline"
  exit 0
fi
found=0
abidiff --harmless "$baseline" "$scratch/now" || found=$?
[ $found -eq 0 ] && exit 0
if [ $((found & 3)) -ne 0 ]; then
  echo "abidiff failed ($found)" >&2
elif [ $((found & 8)) -ne 0 ]; then
  echo "INCOMPATIBLE: programs built against the baseline break. Before 1.0 that needs a new minor version." >&2
else
  echo "The interface is not the baseline's. If that is meant, run tests/abi/update.sh." >&2
fi
exit 1
