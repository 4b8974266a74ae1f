#!/bin/sh
# The tests of the Python package (examples/python) with this build's library: tests/python.sh LIBRARY PYTHON [pytest option ...].
# Exits with 77 (skipped) where Python lacks what they need. Those of scikit-learn, torch, mypy, ... skip by themselves.
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
library=$1
python=$2
shift 2
for module in numpy:python3-numpy pytest:python3-pytest; do
  if ! "$python" -c "import ${module%:*}" 2>/dev/null; then
    echo "skipped: $python has no ${module%:*} (Debian: ${module#*:})"
    exit 77
  fi
done
cd "$root/examples/python"
DUALLORA_LIBRARY=$library exec "$python" -B -m pytest -q -rs -p no:cacheprovider "$@" tests
