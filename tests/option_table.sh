#!/bin/sh
# The table of options in docs/METHOD.md is what the library knows:
#     tests/option_table.sh PROGRAM            compares
#     tests/option_table.sh PROGRAM update     writes it there
# PROGRAM is tests/option_table.c, built.
# SPDX-License-Identifier: Apache-2.0
set -eu
export LC_ALL=C
program=$1
method=$(cd "$(dirname "$0")/.." && pwd)/docs/METHOD.md
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
begin='<!-- options: tests/option_table.sh -->'
end='<!-- end of options -->'

"$program" >"$scratch/table"
if [ "$(grep -cx -e "$begin" -e "$end" "$method")" -ne 2 ]; then
  echo "docs/METHOD.md lacks the lines $begin and $end" >&2
  exit 1
fi
awk -v begin="$begin" -v end="$end" -v table="$scratch/table" '
  $0 == end { inside = 0 }
  !inside { print }
  $0 == begin {
    inside = 1
    print ""
    while ((getline line <table) > 0) print line
    print ""
  }' "$method" >"$scratch/METHOD.md"
if [ "${2:-}" = update ]; then
  cp "$scratch/METHOD.md" "$method"
elif ! diff -u "$method" "$scratch/METHOD.md"; then
  echo "docs/METHOD.md 10 is not the table of the library: run tests/option_table.sh PROGRAM update" >&2
  exit 1
fi
