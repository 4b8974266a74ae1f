#!/bin/sh
# Installs the library to a scratch folder and builds programs against that copy, with CMake and with pkg-config.
#     tests/install/run.sh shared|static BUILD_DIRECTORY COMPILER
# shared installs from BUILD_DIRECTORY (if that is a static build, another is made); static makes a build of its own.
set -eu
kind=$1
build=$2
compiler=$3
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
prefix=$scratch/prefix

setting() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
case $kind-$(setting BUILD_SHARED_LIBS) in
  shared-ON | static-OFF) ;;
  *)
    shared=$([ "$kind" = shared ] && echo ON || echo OFF)
    cmake -S "$root" -B "$scratch/build" -DBUILD_SHARED_LIBS="$shared" -DCMAKE_C_COMPILER="$compiler" \
      -DDUALLORA_BLAS="$(setting DUALLORA_BLAS)" -DDUALLORA_OPENMP="$(setting DUALLORA_OPENMP)" \
      -DDUALLORA_BUILD_TESTS=OFF -DDUALLORA_BUILD_EXAMPLES=OFF
    build=$scratch/build
    cmake --build "$build" --parallel
    ;;
esac
cmake --install "$build" --prefix "$prefix"
libdir=$(dirname "$(find "$prefix" -name 'libduallora.*' | head -n 1)")
export LD_LIBRARY_PATH="$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

echo "== $kind, find_package"
cmake -S "$here" -B "$scratch/cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$compiler"
cmake --build "$scratch/cmake" --parallel
"$scratch/cmake/consumer_c"
"$scratch/cmake/consumer_cxx"
cmake -S "$root/examples" -B "$scratch/examples" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$compiler"
cmake --build "$scratch/examples" --parallel

echo "== $kind, pkg-config"
export PKG_CONFIG_PATH="$libdir/pkgconfig"
# The copy was installed with another prefix than it was configured with.
flags() { pkg-config --define-variable=prefix="$prefix" "$@" duallora; }
static=$([ "$kind" = static ] && echo --static || true)
for source in "$here/consumer_c.c" "$root"/examples/*.c; do
  [ -f "$source" ] || continue
  # shellcheck disable=SC2046,SC2086
  "$compiler" -std=c11 -D_GNU_SOURCE $(flags --cflags) "$source" -o "$scratch/$(basename "$source" .c)" \
    $(flags $static --libs) -lm
done
"$scratch/consumer_c"
[ "$(flags --modversion)" = "$(sed -n 's/^project(duallora VERSION \([0-9.]*\).*/\1/p' "$root/CMakeLists.txt")" ]
if [ "$kind" = shared ]; then # a program needs this library alone, by its soname
  readelf -d "$scratch/consumer_c" | grep -q 'libduallora\.so\.0'
  ! readelf -d "$scratch/consumer_c" | grep -qE 'blas|cjson'
fi
