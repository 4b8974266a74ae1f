#!/bin/sh
# Builds and tests everything on Debian 12, as root or as a user who may sudo. Missing packages are installed by name.
#
#     tests/run.sh            all of it: sanitizers, clang, BLIS, 64-bit ARM under an emulator, other machines' settings
#                             (tests/machines.sh), then the release build with every CTest test
#     tests/run.sh --quick    for the desk: the release build alone, without the slow tests; installs nothing
#
# Builds go to build-*/ in the root folder, or below $DUALLORA_BUILD_ROOT. The last lines are CTest's own summary.
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
builds=${DUALLORA_BUILD_ROOT:-$root}
jobs=$(nproc)
quick=no
case ${1:-} in
  '') ;;
  --quick) quick=yes ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

step() { printf '\n==== %s\n' "$*"; }

installed() { dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q 'install ok installed'; }

install_missing() {
  command -v apt-get >/dev/null || return 0 # elsewhere CMake says what it misses
  missing=
  for package in gcc g++ cmake ninja-build pkg-config binutils libcjson-dev libcmocka-dev \
    libjpeg62-turbo-dev libpng-dev libwebp-dev zlib1g-dev clang libclang-rt-14-dev clang-format valgrind doxygen libblis-dev \
    libdnnl-dev abigail-tools python3 python3-numpy python3-pil python3-pytest python3-pycparser python3-tqdm \
    python3-sklearn python3-torch python3-venv mypy $(sh "$root/tests/aarch64.sh" --packages); do
    installed "$package" || missing="$missing $package"
  done
  # Its OpenMP flavour shares threads with ours. A flavour that is already there is kept: the alternatives system goes on
  # preferring the pthread one, and the library works with either.
  if ! installed libopenblas-openmp-dev && ! installed libopenblas-pthread-dev && ! installed libopenblas-serial-dev; then
    missing="$missing libopenblas-openmp-dev"
  fi
  # For the crates; Debian's package cargo is too old for them.
  command -v cargo >/dev/null || missing="$missing cargo-web rustfmt-web"
  [ -n "$missing" ] || return 0
  step "installing$missing"
  as_root=
  [ "$(id -u)" -eq 0 ] || as_root=sudo
  $as_root apt-get update -q
  # shellcheck disable=SC2086
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
}

# build NAME [CMake option ...]
build() {
  name=$1
  shift
  if command -v ninja >/dev/null; then set -- -G Ninja "$@"; fi
  cmake -S "$root" -B "$builds/build-$name" -DDUALLORA_WERROR=ON "$@"
  cmake --build "$builds/build-$name" --parallel "$jobs"
}

run_ctest() { # NAME [ctest option ...]
  name=$1
  shift
  ctest --test-dir "$builds/build-$name" --parallel "$jobs" --output-on-failure --no-tests=error "$@"
}

if [ "$quick" = yes ]; then
  step "release build"
  build release
  run_ctest release --label-exclude slow
  exit 0
fi

install_missing

step "AddressSanitizer and UndefinedBehaviorSanitizer"
build sanitize -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DDUALLORA_SANITIZE=address;undefined" -DDUALLORA_BUILD_EXAMPLES=OFF
run_ctest sanitize --label-regex suite

step "ThreadSanitizer: threads that share a model"
# Without OpenMP, whose locks it cannot see, and with one OpenBLAS thread for the same reason: its OpenMP flavour goes by
# the first variable, its own threads by the second.
build thread -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDUALLORA_SANITIZE=thread -DDUALLORA_BUILD_EXAMPLES=OFF
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 run_ctest thread --tests-regex '^(model|products|threads)$'

step "clang, static library"
build clang -DCMAKE_C_COMPILER=clang -DBUILD_SHARED_LIBS=OFF
run_ctest clang --tests-regex '^(gradients|products|projector|predictor_[a-z]+)$'

step "BLIS"
build blis -DDUALLORA_BLAS=BLIS -DDUALLORA_BUILD_EXAMPLES=OFF
run_ctest blis --tests-regex '^(gradients|model|projector|predictor_[a-z]+)$'

step "64-bit ARM"
sh "$root/tests/aarch64.sh" "$builds" --short || [ $? -eq 77 ] # which says what it misses

step "release build"
build release

step "machines"
sh "$root/tests/machines.sh" "$builds/build-release" --short

step "every test"
run_ctest release
