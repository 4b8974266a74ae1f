#!/usr/bin/env bash
# Builds the release and measures how fast it is, side by side with PyTorch, ONNX Runtime and the machine's own limit.
# Installs and downloads nothing; peers that are not there are left out and named. Everything made goes to build-bench/,
# the tables into docs/notebook/speed.md unless --out names another file.
#
#     tests/bench/speed.sh                     everything
#     tests/bench/speed.sh --quick             the smallest network, less than a minute
#     tests/bench/speed.sh OPTION...           what the options say; --help lists them
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${DUALLORA_BUILD_ROOT:-$top}/build-bench

generator=()
if [ ! -e "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
{
  cmake -S "$top" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release
  cmake --build "$build" --target duallora_speed --parallel
} >&2

out=("--out" "$top/docs/notebook/speed.md")
for word in "$@"; do
  case $word in --out | --out=* | --quick) out=() ;; esac
done
exec python3 -B "$top/tests/bench/speed.py" --speed "$build/tests/bench/speed" --data "$build/speed" \
  --json "$build/speed.json" "${out[@]}" "$@"
