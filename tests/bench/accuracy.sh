#!/usr/bin/env bash
# Builds the release and measures methods of continual learning side by side. Installs nothing; everything made goes to
# build-bench/, results to build-bench/accuracy unless --out names another folder.
#
#     tests/bench/accuracy.sh                  all methods on Fashion-MNIST with the small backbone, 5 tasks, 3 seeds
#     tests/bench/accuracy.sh OPTION...        what the options say; --help lists them
#
# An interrupted call goes on where it was. tests/bench/README.md has more.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${DUALLORA_BUILD_ROOT:-$top}/build-bench

generator=()
if [ ! -e "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
{
  cmake -S "$top" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release
  cmake --build "$build" --target duallora_accuracy --parallel
} >&2
accuracy=$build/tests/bench/accuracy

if [ $# -eq 0 ]; then
  data=/usr/share/datasets/fashion-mnist
  if [ ! -d "$data" ]; then
    echo "$data is not there: install the package dataset-fashion-mnist, or name other images by --data" >&2
    exit 1
  fi
  set -- --data "$data" --tasks 5 --images-per-class 100 --test-images-per-class 100 --seeds 0,1,2
fi
# A later option overrides an earlier one, so that these are defaults.
exec "$accuracy" --backbone "$top/examples/backbones/vit_192x6_patch4_32.safetensors" --out "$build/accuracy" "$@"
