#!/bin/sh
# Runs the suites of a build as other machines would: the BLAS's loops for older and newer processors, each table of the
# library's kernels, oneDNN held back, and several numbers of threads, each as far as this processor has what it takes.
#
#     tests/machines.sh BUILD             every suite
#     tests/machines.sh BUILD --short     the suites that compute most
#
# The last lines are a table of what ran and what was left out. Results may differ between machines by rounding alone;
# tests that compare bits compare what one machine computes twice in the same way.
# SPDX-License-Identifier: Apache-2.0
set -u
usage() {
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
[ -f "${1:-}/CTestTestfile.cmake" ] || usage
build=$1
case ${2:-} in
  '') short=no ;;
  --short) short=yes ;;
  *) usage ;;
esac

flags=" $(sed -n 's/^flags[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1) "
table=
status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM

# The first of these processor flags that is missing, or nothing.
missing() {
  for flag in "$@"; do
    case $flags in
      *" $flag "*) ;;
      *) echo "$flag" && return ;;
    esac
  done
}

needed_by() { # VARIABLE=VALUE
  case $1 in
    OPENBLAS_CORETYPE=Prescott) echo pni ;;
    OPENBLAS_CORETYPE=Sandybridge) echo avx ;;
    OPENBLAS_CORETYPE=Haswell | DUALLORA_ISA=avx2 | ONEDNN_MAX_CPU_ISA=AVX2) echo avx2 fma ;;
    OPENBLAS_CORETYPE=SkylakeX | DUALLORA_ISA=avx512) echo avx2 fma avx512f avx512bw avx512dq avx512vl ;;
  esac
}

# Tests that choose their own kernels would hide the machine's; what else they run is among the others.
run_suites() { # VARIABLE=VALUE ...
  if [ "$short" = yes ]; then
    set -- "$@" ctest --tests-regex \
      '^(bank|gradients|instant|invariants|model|numbers|session|predictor_[a-z]+|probabilities|products|projector)$'
  else
    set -- "$@" ctest --label-regex suite --exclude-regex '_with_|^fuzz'
  fi
  env "$@" --test-dir "$build" --parallel "$(nproc)" --output-on-failure --no-tests=error
}

# machine VARIABLE=VALUE ..., of which THREADS=N stands for those of OpenMP and of the BLAS
machine() {
  name=$*
  result=
  for setting in "$@"; do
    shift
    # shellcheck disable=SC2046
    lacks=$(missing $(needed_by "$setting"))
    if [ -n "$lacks" ]; then
      result="${result:+$result; }$setting left out: this processor has no $lacks"
      continue
    fi
    case $setting in
      THREADS=*) set -- "$@" "OMP_NUM_THREADS=${setting#*=}" "OPENBLAS_NUM_THREADS=${setting#*=}" ;;
      *) set -- "$@" "$setting" ;;
    esac
  done
  if [ $# -gt 0 ]; then
    printf '\n---- %s\n' "$*"
    run_suites "$@" >"$log" 2>&1 || {
      status=1
      cat "$log"
    }
    passed=$(sed -n 's/.*% tests passed, \([0-9]*\) tests* failed out of \([0-9]*\)/\1 of \2 suites failed/p' "$log")
    seconds=$(sed -n 's/^Total Test time (real) = *\([0-9]*\).*/\1 s/p' "$log")
    printf '%s, %s\n' "${passed:-no suite ran}" "${seconds:-no time}"
    result="${passed:-no suite ran}, ${seconds:-no time}${result:+; $result}"
  fi
  table="$table  $name: $result
"
}

# An old processor, one with AVX, one with AVX2, one with AVX-512: each value of each variable comes once.
machine OPENBLAS_CORETYPE=Prescott DUALLORA_ISA=generic THREADS=1
machine OPENBLAS_CORETYPE=Sandybridge DUALLORA_ISA=generic THREADS=3
machine OPENBLAS_CORETYPE=Haswell DUALLORA_ISA=avx2 ONEDNN_MAX_CPU_ISA=AVX2 THREADS=2
machine OPENBLAS_CORETYPE=SkylakeX DUALLORA_ISA=avx512 THREADS=3
printf '\nMachines:\n%s' "$table"
exit $status
