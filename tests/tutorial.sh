#!/bin/sh
# Follows docs/TUTORIAL.md in an empty folder: writes its blocks of C and CMake to files, builds them against a copy of the
# library that is installed for it, with CMake and one with pkg-config too, and runs its commands (tests/console.sh).
#     tests/tutorial.sh BUILD_DIRECTORY COMPILER
#
# SPDX-License-Identifier: Apache-2.0
set -eu
build=$1
compiler=$2
root=$(cd "$(dirname "$0")/.." && pwd)
tutorial=$root/docs/TUTORIAL.md
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/photos-at-home"
cd "$scratch/photos-at-home"

# A block of C whose first line is "/* NAME: what it is */" begins the file NAME; a block without goes on with it.
awk '
  /^```/ { if (inside) { inside = 0; next } inside = $0 == "```c" || $0 == "```cmake"; first = 1; cmake = $0 == "```cmake"; next }
  !inside { next }
  first { first = 0; if (cmake) file = "CMakeLists.txt"; else if (match($0, /^\/\* [a-z_]+\.[ch]:/)) file = substr($2, 1, length($2) - 1) }
  file == "" { print "the first block of C names no file" > "/dev/stderr"; exit 1 }
  { print > file }' "$tutorial"

cmake --install "$build" --prefix "$scratch/prefix" >"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
libdir=$(dirname "$(find "$scratch/prefix" -name 'libduallora.so' | head -n 1)")
export LD_LIBRARY_PATH="$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

cmake -S . -B build -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_C_FLAGS='-Wall -Wextra -Wpedantic -Werror' >"$scratch/log" 2>&1 &&
  cmake --build build >>"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
for file in *.c; do # what the tutorial shows is what its CMakeLists.txt builds
  [ -x "build/${file%.c}" ] || { echo "the tutorial's CMakeLists.txt does not build $file" >&2; exit 1; }
done
if command -v pkg-config >/dev/null; then
  export PKG_CONFIG_PATH="$libdir/pkgconfig"
  # The copy was installed with another prefix than it was configured with.
  # shellcheck disable=SC2046
  "$compiler" -std=gnu11 backbone.c \
    $(pkg-config --define-variable=prefix="$scratch/prefix" --cflags --libs duallora) -o backbone
  ./backbone "$root/examples/backbones/vit_192x6_patch4_32.safetensors" >/dev/null
fi

cp "$root/examples/backbones/vit_192x6_patch4_32.safetensors" vit.safetensors
"$root/tests/console.sh" "$tutorial"
