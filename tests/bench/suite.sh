#!/usr/bin/env bash
# Builds the release and runs the development suite: the command duallora on several data sets, in many small settings.
# Installs nothing; everything made goes to build-bench/, results to build-bench/suite unless --out names another
# folder.
#
#     tests/bench/suite.sh --data photos --cifar100 cifar100 --backbone vit.safetensors:84
#     tests/bench/suite.sh OPTION...           what the options say; --help lists them
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
  cmake --build "$build" --target duallora_command --parallel
} >&2

exec python3 -B "$top/tests/bench/suite.py" --command "$build/examples/duallora" --out "$build/suite" \
  --backbone "$top/examples/backbones/vit_192x6_patch4_32.safetensors" "$@"
