#!/bin/sh
# Builds programs with the library as its users do, in C-only and in C++-only projects.
#     tests/install/run.sh shared|static BUILD_DIRECTORY COMPILER
#
# From an installed copy that was moved: find_package, and pkg-config with and without --static. From the source tree:
# add_subdirectory and FetchContent, which compile the library without optimisation, into projects that check what comes in
# (CMakeLists.txt beside this file). At last with a cJSON of the project's own, without OpenMP, and installed from there.
# shared installs from BUILD_DIRECTORY (if that is a static build, another is made); static makes a build of its own.
# SPDX-License-Identifier: Apache-2.0
set -eu
kind=$1
build=$(cd "$2" && pwd)
compiler=$3
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
shared=$([ "$kind" = shared ] && echo ON || echo OFF)
version=$(sed -n 's/^project(duallora VERSION \([0-9.]*\).*/\1/p' "$root/CMakeLists.txt")
minor=${version%.*}
major=${minor%.*}
soname=libduallora.so.$major # the rule of cmake/DualloraAbi.cmake
[ "$major" -ne 0 ] || soname=libduallora.so.$minor
# The compiler for C++ of the same kind and place.
cxx_compiler=$(dirname "$compiler")/$(basename "$compiler" | sed 's/clang/clang++/; s/gcc/g++/; s/^cc$/c++/')
[ -x "$cxx_compiler" ] || cxx_compiler=$(basename "$cxx_compiler")
cd "$scratch"

setting() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
blas=$(setting DUALLORA_BLAS)
openmp=$(setting DUALLORA_OPENMP)
launcher=$(setting CMAKE_C_COMPILER_LAUNCHER)

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# logged COMMAND ...: its output is shown if it fails
logged() {
  "$@" >log 2>&1 || {
    cat log
    fail "$*"
  }
}

case $kind-$(setting BUILD_SHARED_LIBS) in
  shared-ON | static-OFF) ;;
  *)
    logged cmake -S "$root" -B build -DBUILD_SHARED_LIBS="$shared" -DCMAKE_C_COMPILER="$compiler" \
      -DCMAKE_C_COMPILER_LAUNCHER="$launcher" -DDUALLORA_BLAS="$blas" -DDUALLORA_OPENMP="$openmp" \
      -DDUALLORA_BUILD_TESTS=OFF -DDUALLORA_BUILD_EXAMPLES=OFF
    build=$scratch/build
    logged cmake --build "$build" --parallel 2
    ;;
esac
logged cmake --install "$build" --prefix "$scratch/installed"
mv installed moved
prefix=$scratch/moved
libdir=$(dirname "$(find "$prefix" -name 'libduallora.*' | head -n 1)")
# Nothing installed is tied to where it was.
if grep -rIl -e "$scratch/installed" -e "$root" "$prefix"; then fail "these files name the folders of the build"; fi
export LD_LIBRARY_PATH="$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# consume NAME LANGUAGE WAY [CMake option ...]: configures, builds and runs the project beside this file
consume() {
  name=$1
  language=$2
  way=$3
  shift 3
  echo "== $kind, $language, $way${name:+, $name}"
  folder=$scratch/$language-$way${name:+-$name}
  logged cmake -S "$here" -B "$folder" -DCONSUMER_LANGUAGE="$language" -DCONSUMER_WAY="$way" -DCONSUMER_SOURCE="$root" \
    -DCONSUMER_VERSION="$minor" -DCMAKE_C_COMPILER="$compiler" -DCMAKE_CXX_COMPILER="$cxx_compiler" \
    -DCMAKE_C_COMPILER_LAUNCHER="$launcher" -DDUALLORA_BLAS="$blas" --no-warn-unused-cli "$@"
  cp log "$folder/configured"
  logged cmake --build "$folder" --parallel 2 --target consumer
  "$folder/consumer" >printed || fail "the program ($(cat printed))"
  cat printed
}

# ---- the moved copy ----

for language in C CXX; do
  consume '' $language find_package -DCMAKE_PREFIX_PATH="$prefix"
done
# Another minor version is another interface.
for other in $major.$((${minor#*.} + 1)) $((major + 1)).${minor#*.} $((major + 1)).0; do
  if cmake -S "$here" -B other -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$compiler" \
    -DCONSUMER_VERSION="$other" >log 2>&1; then
    fail "find_package(duallora $other) takes $version"
  fi
  grep -q "version: $version" log || fail "find_package(duallora $other): $(cat log)"
done

echo "== $kind, pkg-config"
export PKG_CONFIG_PATH="$libdir/pkgconfig"
static=$([ "$kind" = static ] && echo --static || true)
[ "$(pkg-config --modversion duallora)" = "$version" ] || fail "duallora.pc has another version"
# with_pkg_config PROGRAM COMPILER SOURCE [OPTION ...] -- [PKG-CONFIG OPTION ...]
with_pkg_config() {
  program=$1
  with=$2
  source=$3
  shift 3
  # shellcheck disable=SC2046
  "$with" "$source" -o "$program" $(pkg-config --cflags duallora) $(pkg-config "$@" --libs duallora) -lm
}
for options in "$static" --static; do
  # shellcheck disable=SC2086
  with_pkg_config consumer_c "$compiler" "$here/consumer_c.c" $options
  ./consumer_c
  # shellcheck disable=SC2086
  with_pkg_config consumer_cxx "$cxx_compiler" "$here/consumer_cxx.cpp" $options
  ./consumer_cxx
done
pkg-config --libs --static duallora
for library in dl m cjson; do # which users of the shared library do without
  if pkg-config --libs duallora | grep -qw -- "-l$library"; then fail "duallora.pc: -l$library is in Libs"; fi
  [ "$kind" = shared ] || pkg-config --libs --static duallora | grep -qw -- "-l$library" ||
    fail "duallora.pc: -l$library is not in Libs.private"
done
for source in "$root"/examples/*.c; do
  # shellcheck disable=SC2086
  with_pkg_config "$(basename "$source" .c)" "$compiler" "$source" $static
done
if [ "$kind" = shared ]; then # a program needs this library alone, by its soname
  readelf -d consumer_c | grep -qF "[$soname]" || fail "the program needs another soname"
  if readelf -d consumer_c | grep -qE 'blas|cjson|gomp'; then fail "the program needs what the library needs"; fi
fi

echo "== $kind, the examples on their own"
logged cmake -S "$root/examples" -B examples -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$compiler" \
  -DCMAKE_C_COMPILER_LAUNCHER="$launcher"
logged cmake --build examples --parallel 2
examples/duallora --version

# ---- the source tree as part of a project ----

unset LD_LIBRARY_PATH PKG_CONFIG_PATH
for way in add_subdirectory FetchContent; do
  for language in C CXX; do
    consume '' $language $way -DBUILD_SHARED_LIBS="$shared" -DDUALLORA_OPENMP="$openmp"
    for line in "duallora $version, $kind" 'BLAS  ' 'OpenMP  ' 'oneDNN  ' 'JSON parser  ' 'image libraries  ' 'tests  '; do
      grep -qF -- "$line" "$folder/configured" || fail "the summary of configuring has no line for $line"
    done
    if grep -q 'OpenMP  *[0-9]' "$folder/configured"; then expected='; OpenMP; '; else expected='; no OpenMP'; fi
    grep -q "$expected" printed || fail "dlora_build_info() does not say \"$expected\""
    logged cmake --install "$folder" --prefix "$scratch/nothing"
    [ -z "$(find nothing -type f 2>/dev/null)" ] || fail "as part of a project it installs $(find nothing -type f)"
    [ -z "$(find "$folder" -name CTestTestfile.cmake)" ] || fail "as part of a project it enables tests"
    [ -z "$(sed -n 's/^CMAKE_BUILD_TYPE:[A-Z]*=//p' "$folder/CMakeCache.txt")" ] || fail "it has set CMAKE_BUILD_TYPE"
  done
done
# Without a word of the project, CMake's own default: static. Tests and examples, where asked for, keep to names of their own.
if [ "$kind" = static ]; then
  logged cmake -S "$here" -B default -DCONSUMER_WAY=add_subdirectory -DCONSUMER_SOURCE="$root" \
    -DCMAKE_C_COMPILER="$compiler" -DDUALLORA_BLAS="$blas"
  grep -q "duallora $version, static" log || fail "the default as part of a project is not static"
  if grep -q '^BUILD_SHARED_LIBS' default/CMakeCache.txt; then fail "it caches BUILD_SHARED_LIBS"; fi
  logged cmake default -DDUALLORA_BUILD_EXAMPLES=ON -DDUALLORA_BUILD_TESTS="$(setting DUALLORA_BUILD_TESTS)"
fi

# ---- with the project's own cJSON, under a usual name or one that is told; installed from within the project ----

if [ "$kind" = shared ]; then
  set -- -DCONSUMER_CJSON=cjson
else
  set -- -DCONSUMER_CJSON=consumer_json -DDUALLORA_CJSON_TARGET=consumer_json
  # And the BLAS from its archive, where there is one with the Fortran runtime that it needs; its OpenMP flavour needs gomp.
  archive=$(setting DUALLORA_OPENBLAS_LIBRARY | sed -n 's/\.so$/.a/p')
  fortran=$("$compiler" -print-file-name=libgfortran.so.5)
  if [ "$blas" = OpenBLAS ] && [ -f "$archive" ] && [ -f "$fortran" ]; then
    set -- "$@" -DDUALLORA_OPENBLAS_LIBRARY="$archive;$fortran;gomp"
    from_archive=yes
  fi
fi
consume own_cJSON CXX add_subdirectory "$@" -DBUILD_SHARED_LIBS="$shared" -DDUALLORA_OPENMP=OFF -DDUALLORA_INSTALL=ON
if grep -q '^DUALLORA_CJSON_LIBRARY' "$folder/CMakeCache.txt"; then fail "the project's cJSON was not used"; fi
grep -q '; no OpenMP' printed || fail "dlora_build_info() does not say that there is no OpenMP"
if [ "${from_archive:-no}" = yes ]; then
  grep -q 'OpenBLAS [0-9]' printed || fail "dlora_build_info() does not name the OpenBLAS of an archive"
  if readelf -d "$folder/consumer" | grep -q 'NEEDED.*openblas'; then fail "the archive of OpenBLAS was not used"; fi
fi
logged cmake --install "$folder" --prefix "$scratch/from_project"
[ -f from_project/include/duallora/duallora.h ] || fail "DUALLORA_INSTALL=ON installs no header"
from_project=$(dirname "$(find "$scratch/from_project" -name 'libduallora.*' | head -n 1)")
export LD_LIBRARY_PATH="$from_project"
consume from_project C find_package "$@" -DCMAKE_PREFIX_PATH="$scratch/from_project"
if grep -q '^DUALLORA_CJSON_LIBRARY' "$folder/CMakeCache.txt"; then fail "the project's cJSON was not used"; fi
if [ "$kind" = static ]; then # a name that is no target is told, not passed over
  if cmake -S "$here" -B misspelt -DCMAKE_PREFIX_PATH="$scratch/from_project" -DCMAKE_C_COMPILER="$compiler" \
    -DCONSUMER_VERSION="$minor" -DDUALLORA_CJSON_TARGET=nobody >log 2>&1; then
    fail "DUALLORA_CJSON_TARGET=nobody is taken"
  fi
  grep -q '"nobody"' log || fail "the refusal does not name the target: $(cat log)"
fi
if [ "${from_archive:-no}" = yes ]; then
  PKG_CONFIG_PATH=$from_project/pkgconfig with_pkg_config archived "$compiler" "$here/consumer_c.c" --static
  ./archived | grep 'OpenBLAS [0-9]' || fail "duallora.pc does not link the archive of OpenBLAS"
fi
echo "all of $kind"
