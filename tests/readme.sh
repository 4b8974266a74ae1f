#!/bin/sh
# Compiles and runs the programs that stand in README.md: the first block of C with the shipped backbone, compared with the
# output printed below it, and the block of Python where python3 with NumPy is there.
#     tests/readme.sh LIBRARY.so COMPILER
#
# SPDX-License-Identifier: Apache-2.0
set -eu
library=$1
compiler=$2
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(cd "$(dirname "$library")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$root"

block() { # the first block of a language
  awk -v fence="\`\`\`$1" '/^```/ { if (inside) exit; if ($0 == fence) { inside = 1; next } } inside' README.md
}

block c >"$scratch/program.c"
block text >"$scratch/expected"
block python >"$scratch/program.py"
for file in program.c expected program.py; do
  [ -s "$scratch/$file" ] || { echo "README.md has no block for $file" >&2; exit 1; }
done

"$compiler" -std=c11 -Wall -Wextra -Wpedantic -Werror -Iinclude "$scratch/program.c" -o "$scratch/program" \
  -L"$folder" -lduallora -Wl,-rpath,"$folder"
"$scratch/program" >"$scratch/output"
# Classes and tasks are the same everywhere. Probabilities differ with the roundings of processor, BLAS and number of
# threads, which learning enlarges: 0.05 is what they may differ by.
for file in expected output; do sed 's/, probability .*//' "$scratch/$file" >"$scratch/$file.classes"; done
diff "$scratch/expected.classes" "$scratch/output.classes"
for file in expected output; do sed -n 's/.*, probability //p' "$scratch/$file" >"$scratch/$file.probabilities"; done
paste "$scratch/expected.probabilities" "$scratch/output.probabilities" | awk '
  NF != 2 || $1 - $2 > 0.05 || $2 - $1 > 0.05 { printf "README.md says probability %s, the program %s\n", $1, $2; wrong = 1 }
  END { if (NR == 0) print "README.md has no probability in its output"; exit wrong || NR == 0 }' >&2

if python3 -c 'import numpy' 2>/dev/null; then
  found=$(LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} python3 "$scratch/program.py")
  if [ "$found" != '[0 1 2 3]' ]; then
    echo "the Python program printed $found, expected [0 1 2 3]" >&2
    exit 1
  fi
fi
