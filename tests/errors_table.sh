#!/bin/sh
# Checks that docs/ERRORS.md is what docs/make_errors.sh makes of the header: tests/errors_table.sh [COMPILER]
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$root/docs/make_errors.sh" "$scratch/ERRORS.md" "${1:-cc}"
if ! diff "$root/docs/ERRORS.md" "$scratch/ERRORS.md"; then
  echo "docs/ERRORS.md (<) is not up to date with the header (>); run docs/make_errors.sh" >&2
  exit 1
fi
