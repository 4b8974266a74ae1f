#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs coverage.py with the packages that it compares with: torch, timm, transformers and safetensors from PyPI.
#
#   tests/backbones/coverage.sh --venv DIR                         makes an environment there (6 GB) and ends
#   tests/backbones/coverage.sh [--python PYTHON] ARGUMENTS...     coverage.py ARGUMENTS..., see its --help
#
# PYTHON, or else DUALLORA_BACKBONES_PYTHON in the environment, or else python3 of the PATH must have the packages.
# Without them it says so and exits with 77, which CTest takes for a skipped test.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1-}" = --venv ]; then
  [ $# -eq 2 ] || { echo "usage: coverage.sh --venv DIR" >&2; exit 2; }
  python3 -m venv "$2"
  "$2/bin/python" -m pip install --quiet numpy safetensors timm transformers torch torchvision
  echo "made $2; now: tests/backbones/coverage.sh --python $2/bin/python --library build-release/libduallora.so"
  exit 0
fi
python=${DUALLORA_BACKBONES_PYTHON:-python3}
if [ "${1-}" = --python ]; then
  python=$2
  shift 2
fi
missing=$("$python" - <<'EOF' 2>/dev/null || echo python3
from importlib.util import find_spec
print(*(name for name in ("numpy", "safetensors", "torch", "timm", "transformers") if not find_spec(name)))
EOF
)
if [ -n "$missing" ]; then
  echo "skipped: $python lacks $missing; tests/backbones/coverage.sh --venv DIR makes an environment that has all"
  exit 77
fi
exec "$python" -B "$here/coverage.py" "$@"
