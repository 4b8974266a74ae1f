#!/bin/sh
# Fuzzes the readers of files with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.
#
#     tests/fuzz/run.sh [option ...] [target ...]        targets: safetensors model checkpoint parts folder image
#                                                               dataset
#
#     --seconds N      each target for N seconds (default 10)
#     --runs N         each target N times in all instead: what calls before this one have done counts, if it was with the
#                      very same program (a change of the library, too, starts anew)
#     --build FOLDER   where to build, and where seeds, corpora, logs and findings are kept between calls (build-fuzz/)
#     --build-only     no run
#
# Targets run one after the other, on one thread, long runs in slices of half a million. FOLDER/history keeps a line of
# figures for each slice, FOLDER/totals/ what each program has run in all: its fingerprint, executions and seconds. Exits
# with 1 after a finding, which is then a file in FOLDER/findings/, and with 77 where clang or its libFuzzer is missing.
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build-fuzz
seconds_each=10
runs=
targets=
only=no
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds_each=$2 && runs= && shift ;;
    --runs) runs=$2 && shift ;;
    --build) build=$2 && shift ;;
    --build-only) only=yes ;;
    -*)
      sed -n '2,15p' "$0" | sed 's/^# \{0,1\}//' >&2
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

# Without -fno-sanitize-coverage=trace-cmp a quarter of the time goes into integers that were compared, as hints for
# mutations; those of mutate_safetensors.c do not need them.
if [ ! -f "$build/CMakeCache.txt" ]; then
  set --
  if command -v ninja >/dev/null; then set -- -G Ninja; fi
  cmake -S "$root" -B "$build" "$@" -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_FLAGS=-fno-sanitize-coverage=trace-cmp \
    -DBUILD_SHARED_LIBS=OFF -DDUALLORA_OPENMP=OFF -DDUALLORA_BUILD_EXAMPLES=OFF \
    -DDUALLORA_BLAS="${DUALLORA_BLAS:-OpenBLAS}" "-DDUALLORA_SANITIZE=fuzzer-no-link;address;undefined" \
    >"$build/configure.log" || { cat "$build/configure.log" && exit 1; }
fi
cmake --build "$build" --target duallora_fuzz >"$build/build.log" 2>&1 || { tail -n 40 "$build/build.log" && exit 1; }
[ "$only" = no ] || exit 0

# One BLAS thread. AddressSanitizer keeps back no more freed memory than an input frees, and no stacks of allocations: run
# a finding again without ASAN_OPTIONS to see them.
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 UBSAN_OPTIONS=print_stacktrace=1
export ASAN_OPTIONS="quarantine_size_mb=1:thread_local_quarantine_size_kb=64:malloc_context_size=0:max_malloc_fill_size=0:allocator_release_to_os_interval_ms=-1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
programs=$build/tests/fuzz
mkdir -p "$build/corpus" "$build/logs" "$build/findings" "$build/totals"
"$programs/fuzz_make_seeds" "$build/seeds"

status=0
[ -n "$targets" ] || for name in safetensors model checkpoint parts folder image dataset; do
  if [ -x "$programs/fuzz_$name" ]; then
    targets="$targets $name"
  else
    echo "left out: $name, without libjpeg, libpng or zlib"
  fi
done
number() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
printf '%-12s %12s %12s %8s %10s %8s %8s\n' target executions 'in all' seconds 'a second' edges findings
for name in $targets; do
  corpus=$build/corpus/$name
  log=$build/logs/$name
  mkdir -p "$corpus"
  # A short chain of mutations: after several at once hardly any file is accepted.
  set -- -mutate_depth=2 -timeout=10 -rss_limit_mb=2048 -max_len=32768 -reload=0 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$name-"
  [ "$name" != image ] || set -- "$@" -dict="$root/tests/fuzz/image.dict" -max_len=4096
  regressions=$root/tests/fuzz/regressions/$name
  if [ -d "$regressions" ]; then set -- "$@" "$corpus" "$build/seeds/$name" "$regressions"; else set -- "$@" "$corpus" "$build/seeds/$name"; fi

  fingerprint=$(sha256sum "$programs/fuzz_$name" | cut -c 1-16)
  total=0
  total_seconds=0
  edges=
  if [ -f "$build/totals/$name" ]; then read -r before total total_seconds <"$build/totals/$name"; else before=; fi
  if [ "$before" != "$fingerprint" ]; then total=0 && total_seconds=0; fi
  found=0
  done_now=0
  seconds=0
  while :; do
    if [ -n "$runs" ]; then
      missing=$((runs - total))
      [ "$missing" -gt 0 ] || break
      limit=-runs=$((missing < 500000 ? missing : 500000))
    else
      limit=-max_total_time=$seconds_each
    fi
    start=$(date +%s)
    "$programs/fuzz_$name" "$limit" "$@" >"$log" 2>&1 || found=1
    slice=$(($(date +%s) - start))
    executions=$(number number_of_executed_units)
    executions=${executions:-0}
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    seconds=$((seconds + slice))
    done_now=$((done_now + executions))
    total=$((total + executions))
    total_seconds=$((total_seconds + slice))
    echo "$fingerprint $total $total_seconds" >"$build/totals/$name"
    echo "$(date +%Y-%m-%dT%H:%M:%S) $name $executions $slice ${edges:-0} $found $fingerprint" >>"$build/history"
    [ -n "$runs" ] && [ $found = 0 ] && [ "$executions" -gt 0 ] || break
  done
  printf '%-12s %12s %12s %8s %10s %8s %8s\n' "$name" "$done_now" "$total" "$seconds" \
    "$((done_now / (seconds + !seconds)))" "${edges:-?}" "$found"
  if [ $found = 1 ]; then
    status=1
    grep -a -E 'fuzz: |ERROR: |runtime error|SUMMARY|Test unit written' "$log" | head -n 8
  fi
done
exit $status
