#!/usr/bin/env bash
# The accuracy bench in short, for continuous integration: few images of Fashion-MNIST in five tasks, accuracies that must
# be reached, and what the program promises about results that are there already and about data that is wrong.
# usage: accuracy_short.sh PATH_TO_ACCURACY BACKBONE.safetensors      exit code 77: the data is not installed
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

accuracy=$(realpath "$1")
backbone=$(realpath "$2")
data=/usr/share/datasets/fashion-mnist
if [ ! -d "$data" ]; then
  echo "skipped: $data is not there (package dataset-fashion-mnist)"
  exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
failures=0

fail() {
  printf 'FAILED: %s\n' "$1" >&2
  [ ! -s output ] || sed 's/^/    /' output >&2
  failures=$((failures + 1))
}

# expect CODE PATTERN ARGUMENT...: runs the program; its exit code and a line of its output (both streams) must be these.
expect() {
  local code=$1 pattern=$2 got=0
  shift 2
  "$accuracy" "$@" >output 2>&1 </dev/null || got=$?
  [ "$got" = "$code" ] || fail "exit code $got instead of $code: accuracy $*"
  [ -z "$pattern" ] || grep -q -e "$pattern" output || fail "no line matches '$pattern': accuracy $*"
}

# ---- what NumPy says of RandomState(1993).permutation(10) and (100) ----

[ "$("$accuracy" --print-order 10)" = '4 2 7 6 0 3 5 8 9 1' ] || fail 'class order of 10 classes'
[ "$("$accuracy" --print-order 100 | cut -d ' ' -f 1-8,99-100)" = '68 56 78 8 23 84 90 65 57 33' ] ||
  fail 'class order of 100 classes'

# ---- data that is wrong is named before anything is learnt ----

jpeg() {
  base64 -d >"$1" <<'IMAGE'
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19i
Z2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj
Y2NjY2NjY2P/wAARCAAMABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAABQT/xAAYEAEBAAMAAAAAAAAAAAAAAAADAAVR
Yv/EABUBAQEAAAAAAAAAAAAAAAAAAAME/8QAGBEAAwEBAAAAAAAAAAAAAAAAAAIEIQX/2gAMAwEAAhEDEQA/ACRxvNeON5mBA9SA
geq+6ptB5trYf//Z
IMAGE
}
mkdir -p one/cat pets/train/cat pets/train/dog pets/test/cat pets/test/dog cats/cat cats/cow
jpeg one/cat/1.jpg
for folder in pets/train/cat pets/train/dog; do for n in 1 2 3 4; do jpeg "$folder/$n.jpg"; done; done
for folder in pets/test/cat pets/test/dog cats/cat cats/cow; do jpeg "$folder/1.jpg"; done
try=(--backbone "$backbone" --out wrong --methods frozen-final)

expect 1 "one class only ('cat')" "${try[@]}" --data one --test cats
expect 1 "none of the class 'dog'" "${try[@]}" --data pets/train --test cats --tasks 2
expect 1 'it has 2 to give' "${try[@]}" --data pets --tasks 3
expect 1 '--test must name others' "${try[@]}" --data pets/train --tasks 2
expect 1 'domain-shift needs a second data set' "${try[@]}" --data pets --tasks 2 --sequences domain-shift
expect 1 'class-incremental has 2 tasks' "${try[@]}" --data pets --tasks 2 --stop 3
expect 2 "'dula' is none of" "${try[@]}" --data pets --methods dula
expect 2 'not among --methods' "${try[@]}" --data pets --at-least dual=20
expect 2 'comes twice' "${try[@]}" --data pets --seeds 1,1
echo 'no picture' >pets/train/dog/2.jpg
expect 1 'pets/train/dog/2.jpg is neither' "${try[@]}" --data pets --tasks 1
[ -z "$(ls wrong)" ] || fail 'a run was made with data that is wrong'
expect 0 '1 unreadable image files are left out' "${try[@]}" --data pets --tasks 1 --skip-corrupt
grep -q '^1 unreadable image files were left out' wrong/table.md || fail 'the table hides that images were left out'

# ---- five tasks; the floors lie ten points and more below what was measured ----

run=(--backbone "$backbone" --data "$data" --tasks 5 --images-per-class 20 --test-images-per-class 15 --epochs 1
  --unknown-images 20 --random-features 500 --quiet)
rows=frozen-final,frozen-several,frozen-projection,sequential,orthogonal,residual,paper,dual,dual-given,joint
expect 0 '' "${run[@]}" --out results --methods "$rows" --at-least \
  frozen-final=55,frozen-several=58,frozen-projection=50,sequential=50,orthogonal=58,residual=57,paper=55,dual=57,dual-given=75,joint=54
cat results/table.md 2>/dev/null || true
[ "$(find results -name 'class-incremental-*-seed0.json' | wc -l)" = 10 ] || fail 'not one result file per method'
grep -q '"deviation"' results/summary.json || fail 'no summary.json'
[ "$(grep -c '<polyline' results/accuracy.svg)" = 10 ] || fail 'not one line per method in accuracy.svg'
# Chance is 50 %; ten points below what was measured.
awk '/"unknown_auroc": *\{/ { inside = 1 } inside && /"mean"/ { sub(/,/, "", $2); if ($2 != "null" && $2 < 70) exit 1; inside = 0 }' \
  results/summary.json || fail 'unknown scores tell nothing'

# ---- what is there is kept; other settings, damage and --again run it again ----

once=("${run[@]}" --out results --methods frozen-final)
before=$(stat -c %Y%i results/class-incremental-frozen-final-seed0.json)
expect 0 '' "${once[@]}"
[ "$(stat -c %Y%i results/class-incremental-frozen-final-seed0.json)" = "$before" ] || fail 'a finished run was repeated'
once=("${once[@]/--quiet/--verbose}")
expect 0 'other settings (shrinkage); run again' "${once[@]}" --shrinkage 0.2
expect 0 '9 other result files' "${once[@]}" --shrinkage 0.2
echo '{' >results/class-incremental-frozen-final-seed0.json
expect 0 'is no result file; run again' "${once[@]}"
expect 0 '^1 runs were there already' "${once[@]}"
expect 0 '^0 runs were there already' "${once[@]}" --again
expect 1 'is below the 99.00 % of --at-least' "${once[@]}" --at-least frozen-final=99

# ---- the other sequences ----

others=domain-shift,domain-incremental,small,unbalanced
expect 0 'the task of gray ones repeats the plain ones' "${run[@]/--quiet/--verbose}" --out others --sequences "$others" \
  --data2 "$data" --images-per-class 10 --test-images-per-class 5 --methods frozen-final,dual --seeds 0,1 --class-order seeded --stop 2
for sequence in ${others//,/ }; do
  grep -q "^## $sequence\$" others/table.md || fail "no table of $sequence"
done
[ "$(grep -c '±' others/table.md)" -ge 8 ] || fail 'no deviation over seeds'

[ "$failures" = 0 ] || { echo "$failures checks failed" >&2; exit 1; }
echo 'all checks passed'
