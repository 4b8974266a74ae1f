#!/bin/sh
# Fuzzes the readers of files with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.
#
#     tests/fuzz/run.sh [option ...] [target ...]        targets: safetensors model checkpoint parts image dataset
#
#     --seconds N      each target for N seconds (default 10)
#     --runs N         each target N times instead
#     --build FOLDER   where to build, and where seeds, corpora, logs and findings are kept between calls (build-fuzz/)
#     --build-only     no run
#
# Targets run one after the other, on one thread; FOLDER/history keeps a line of figures for each. Exits with 1 after a
# finding, which is then a file in FOLDER/findings/, and with 77 where clang or its libFuzzer is missing.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build-fuzz
limit=-max_total_time=10
targets=
only=no
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) limit=-max_total_time=$2 && shift ;;
    --runs) limit=-runs=$2 && shift ;;
    --build) build=$2 && shift ;;
    --build-only) only=yes ;;
    -*)
      sed -n '2,12p' "$0" | sed 's/^# \{0,1\}//' >&2
      exit 2
      ;;
    *) targets="$targets $1" ;;
  esac
  shift
done
compiler=${CC:-clang}
mkdir -p "$build"
build=$(cd "$build" && pwd)

if ! command -v "$compiler" >/dev/null; then
  echo "skipped: there is no $compiler"
  exit 77
fi
echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d == 0 && n > 0; }' >"$build/probe.c"
if ! "$compiler" -fsanitize=fuzzer,address,undefined -o "$build/probe" "$build/probe.c" 2>"$build/probe.log"; then
  echo "skipped: $compiler cannot link libFuzzer and the sanitizers (Debian 12: libclang-rt-14-dev)"
  exit 77
fi

if [ ! -f "$build/CMakeCache.txt" ]; then
  set --
  if command -v ninja >/dev/null; then set -- -G Ninja; fi
  cmake -S "$root" -B "$build" "$@" -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DBUILD_SHARED_LIBS=OFF -DDUALLORA_OPENMP=OFF -DDUALLORA_BUILD_EXAMPLES=OFF \
    -DDUALLORA_BLAS="${DUALLORA_BLAS:-OpenBLAS}" "-DDUALLORA_SANITIZE=fuzzer-no-link;address;undefined" \
    >"$build/configure.log" || { cat "$build/configure.log" && exit 1; }
fi
cmake --build "$build" --target duallora_fuzz >"$build/build.log" 2>&1 || { tail -n 40 "$build/build.log" && exit 1; }
[ "$only" = no ] || exit 0

# One BLAS thread; little memory kept back by AddressSanitizer, and short stacks of allocations: that doubles the speed.
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 UBSAN_OPTIONS=print_stacktrace=1
export ASAN_OPTIONS="quarantine_size_mb=8:malloc_context_size=4:max_malloc_fill_size=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
programs=$build/tests/fuzz
mkdir -p "$build/corpus" "$build/logs" "$build/findings"
"$programs/fuzz_make_seeds" "$build/seeds"

status=0
[ -n "$targets" ] || for name in safetensors model checkpoint parts image dataset; do
  if [ -x "$programs/fuzz_$name" ]; then
    targets="$targets $name"
  else
    echo "left out: $name, without libjpeg, libpng or zlib"
  fi
done
printf '%-12s %12s %8s %10s %8s %8s\n' target executions seconds 'a second' edges findings
for name in $targets; do
  corpus=$build/corpus/$name
  log=$build/logs/$name
  mkdir -p "$corpus"
  # A short chain of mutations: after several at once hardly any file is accepted.
  set -- -mutate_depth=2 -timeout=10 -rss_limit_mb=2048 -max_len=32768 -print_final_stats=1 -artifact_prefix="$build/findings/$name-"
  [ "$name" != image ] || set -- "$@" -dict="$root/tests/fuzz/image.dict" -max_len=4096
  regressions=$root/tests/fuzz/regressions/$name
  if [ -d "$regressions" ]; then set -- "$@" "$corpus" "$build/seeds/$name" "$regressions"; else set -- "$@" "$corpus" "$build/seeds/$name"; fi
  found=0
  start=$(date +%s)
  "$programs/fuzz_$name" "$limit" "$@" >"$log" 2>&1 || found=1
  seconds=$(($(date +%s) - start))
  number() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
  executions=$(number number_of_executed_units)
  edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  printf '%-12s %12s %8s %10s %8s %8s\n' "$name" "${executions:-?}" "$seconds" "$((${executions:-0} / (seconds + !seconds)))" \
    "${edges:-?}" "$found"
  echo "$(date +%Y-%m-%dT%H:%M:%S) $name ${executions:-0} $seconds ${edges:-0} $found" >>"$build/history"
  if [ $found = 1 ]; then
    status=1
    grep -a -E 'fuzz: |ERROR: |runtime error|SUMMARY|Test unit written' "$log" | head -n 8
  fi
done
exit $status
