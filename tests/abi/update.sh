#!/bin/sh
# After a change of the public header: brings everything that is derived from it up to date, which then wants a look at
# `git diff`. The version map and the symbol inventory, the layouts, the table of statuses, the declarations of the Python
# package (python3-pycparser), the baseline of abidiff.
# SPDX-License-Identifier: Apache-2.0
set -eu
here=$(cd "$(dirname "$0")" && pwd)
"$here/symbols.sh" --update
"$here/layout.sh" update
"$here/../../docs/make_errors.sh"
python3 "$here/../../examples/python/tools/generate.py"
"$here/abidiff.sh" update || {
  status=$?
  [ $status -eq 77 ] || exit $status
  echo "tests/abi/duallora-x86_64.abi is as it was: install abigail-tools and run this again" >&2
  exit 1
}
