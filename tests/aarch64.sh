#!/bin/sh
# Builds for 64-bit ARM on another machine and runs the suites under qemu.
#
#     tests/aarch64.sh BUILD_ROOT            every suite but those that take hours there
#     tests/aarch64.sh BUILD_ROOT --short    a selection of a few minutes
#     tests/aarch64.sh --packages            names of the Debian packages it needs
#
# The arm64 libraries are unpacked below BUILD_ROOT, in sysroot-aarch64/: the system's package database has no part in it
# and needs no rights. Where something is missing it says so and ends with 77.
# SPDX-License-Identifier: Apache-2.0
set -eu
packages="gcc-aarch64-linux-gnu qemu-user-static"
libraries="libc6-dev libgomp1 libopenblas-openmp-dev libcjson-dev libcmocka-dev libjpeg62-turbo-dev libpng-dev libwebp-dev \
zlib1g-dev libdnnl-dev"
# What differs from x86-64: the loops and the BLAS, the bits of saved files, and what is computed with them.
short='^(bank|errors|files|gradients|invariants|model|probabilities|session)$'
# Every allocation and every byte of a file fails in turn, or the command runs a hundred times: minutes as such, hours
# under the emulator. An ARM machine runs them all.
hours='^(memory|resume|command|command_files|command_images)$'

usage() {
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
case ${1:-} in
  --packages)
    # A cross compiler is one on another machine; there it would replace the compiler.
    [ "$(dpkg --print-architecture 2>/dev/null)" = arm64 ] || echo "$packages"
    exit 0
    ;;
  '' | -*) usage ;;
esac
case ${2:-} in
  '' | --short) ;;
  *) usage ;;
esac
source=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
builds=$(cd "$1" && pwd)
sysroot=$builds/sysroot-aarch64

if [ "$(uname -m)" = aarch64 ]; then
  echo "64-bit ARM is left out: this machine is one, and runs the suites by itself"
  exit 77
fi
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static apt-get dpkg-deb tar; do
  command -v "$tool" >/dev/null && continue
  echo "64-bit ARM is left out: there is no $tool"
  exit 77
done

# ---- libraries ----

# A package system of its own that has nothing installed yet, so that it finds all that is needed. The sources, their keys
# and the proxy are the machine's.
arm64_apt() {
  apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User="$(id -un)" \
    -o Dir::State="$sysroot/apt" -o Dir::State::lists="$sysroot/apt/lists" -o Dir::State::status="$sysroot/apt/status" \
    -o Dir::Cache="$sysroot/apt" -o Dir::Cache::archives="$sysroot/apt/archives" -o Debug::NoLocking=1 "$@"
}

make_sysroot() {
  rm -rf "$sysroot"
  mkdir -p "$sysroot/apt/lists/partial" "$sysroot/apt/archives/partial" "$sysroot/usr/lib"
  : >"$sysroot/apt/status"
  # A source that does not have arm64, of another vendor, is no reason to stop: what is missing shows in the next line.
  arm64_apt update || true
  # shellcheck disable=SC2086
  arm64_apt install -y --download-only --no-install-recommends $libraries
  ln -s usr/lib "$sysroot/lib"
  for package in "$sysroot"/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --no-same-owner --keep-directory-symlink -C "$sysroot"
  done
  # What update-alternatives would do.
  for name in libopenblas.so libopenblas.so.0; do
    ln -sf "openblas-openmp/$name" "$sysroot/usr/lib/aarch64-linux-gnu/$name"
  done
  rm -rf "$sysroot/apt"
  echo "$libraries" >"$sysroot/complete"
}

[ "$(cat "$sysroot/complete" 2>/dev/null)" = "$libraries" ] || make_sysroot

# ---- build and run ----

build=$builds/build-aarch64
set -- "${2:-}"
generator=
if command -v ninja >/dev/null; then generator='-G Ninja'; fi
# shellcheck disable=SC2086
cmake -S "$source" -B "$build" $generator --toolchain "$source/cmake/aarch64-linux-gnu.cmake" \
  -DDUALLORA_SYSROOT="$sysroot" -DDUALLORA_WERROR=ON -DDUALLORA_ONEDNN=ON
cmake --build "$build" --parallel "$(nproc)"
if [ -n "$1" ]; then set -- --tests-regex "$short"; else set -- --exclude-regex "$hours"; fi
ctest --test-dir "$build" --parallel "$(nproc)" --output-on-failure --no-tests=error --label-regex suite "$@"
