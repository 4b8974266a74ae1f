# What the scripts that test the command share: a scratch folder to work in, and checks that count what fails. Read with
# `.` after duallora=PROGRAM is set; the last line of a script looks at $failures.
# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
failures=0

fail() {
  printf 'FAILED: %s\n' "$1" >&2
  [ ! -s output ] || sed 's/^/    /' output >&2
  failures=$((failures + 1))
}

# expect CODE PATTERN ARGUMENT...: runs the command; its exit code and a line of its output (both streams) must be these.
expect() {
  local code=$1 pattern=$2 got=0
  shift 2
  "$duallora" "$@" >output 2>&1 </dev/null || got=$?
  [ "$got" = "$code" ] || fail "exit code $got instead of $code: duallora $*"
  [ -z "$pattern" ] || grep -q -e "$pattern" output || fail "no line matches '$pattern': duallora $*"
}

# value FILE KEY: a number of the top level of a report
value() {
  awk -v key="\"$2\":" '$1 == key { sub(/,$/, "", $2); print $2; exit }' "$1"
}

same() {
  [ "$1" = "$2" ] || fail "$3: '$1' instead of '$2'"
}

# cifar FILE FIRST_CLASS CLASSES PER_CLASS SEED: CIFAR-10 records, one colour per class, with noise
cifar() {
  awk -v first="$2" -v classes="$3" -v count="$4" -v seed="$5" 'BEGIN {
    srand(seed)
    for (n = 0; n < count; n++)
      for (k = first; k < first + classes; k++) {
        printf "%c", k
        for (c = 0; c < 3; c++) {
          bright = int((k * 37 + c * 71) % 5) * 40 + 20
          for (i = 0; i < 1024; i++) printf "%c", bright + int(rand() * 40)
        }
      }
  }' >"$1"
}
