#!/bin/sh
# Runs the commands in examples/README.md, and checks that it shows every example and that their output is what it says.
#     tests/gallery.sh BUILD_DIRECTORY
#
# SPDX-License-Identifier: Apache-2.0
set -eu
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
gallery=$root/examples/README.md
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for file in "$root"/examples/*.c; do
  name=$(basename "$file" .c)
  grep -q "^\$ build/examples/$name\( \|\$\)" "$gallery" || { echo "examples/README.md does not run $name" >&2; exit 1; }
done
ln -s "$root/examples" "$scratch/examples"
ln -s "$build" "$scratch/build"
cd "$scratch"
"$root/tests/console.sh" "$gallery"
