#!/bin/sh
# Runs the commands in a document's blocks of kind `console` in the current folder, and compares what they print with the
# lines below them. A line that begins with "$ " is a command; what it prints stands up to the next one.
#     tests/console.sh DOCUMENT.md
# Numbers differ with the roundings of processor, BLAS and number of threads, which learning enlarges. What may differ:
# a number with a decimal point by 0.05 or by 5 %, a weight of the untouched backbone, which is a multiple of 0.1, by
# 0.1, per cent by 5, a number of directions by 3, one in scientific notation by a factor of 10, a time by anything. All
# other words and numbers are the same everywhere.
# SPDX-License-Identifier: Apache-2.0
set -eu
document=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

awk -v folder="$scratch" '
  /^```/ { if (inside) inside = 0; else if ($0 == "```console") inside = 1; next }
  inside && /^\$ / { count++; print substr($0, 3) > (folder "/" count ".command"); printf "" > (folder "/" count ".expected"); next }
  inside { print > (folder "/" count ".expected") }
  END { print count + 0 > (folder "/count") }' "$document"
count=$(cat "$scratch/count")
[ "$count" -gt 0 ] || { echo "$document has no block of kind console" >&2; exit 1; }

number=1
while [ "$number" -le "$count" ]; do
  code=0
  sh "$scratch/$number.command" >"$scratch/output" 2>&1 </dev/null || code=$?
  if [ "$code" -ne 0 ]; then
    printf '%s: "%s" ended with code %s:\n' "$document" "$(cat "$scratch/$number.command")" "$code" >&2
    cat "$scratch/output" >&2
    exit 1
  fi
  if ! awk -v wanted="$scratch/$number.expected" '
    function magnitude(x) { return x < 0 ? -x : x }
    # May the word be found where the document has `said`? before, after: the words around it.
    function same(said, found, before, after, line,    far) {
      if (said == found) return 1
      gsub(/[(),;:]/, "", said)
      gsub(/[(),;:]/, "", found)
      if (said !~ /^[-+]?[0-9.]+(e[-+][0-9]+)?%?$/ || found !~ /^[-+]?[0-9.]+(e[-+][0-9]+)?%?$/) return 0
      if (after ~ /^(ms|s|seconds)/) return 1
      far = magnitude(said - found)
      if (said ~ /e/ && found ~ /e/) return said * found > 0 && said / found < 10 && found / said < 10
      if (after ~ /^%/) return far <= 5
      if (said ~ /\./ && found ~ /\./)
        return far <= 0.05 + 1e-6 || far <= 0.05 * magnitude(said) || (before == "backbone" && line ~ /weight/ && far <= 0.1 + 1e-6)
      return line ~ /directions/ && far <= 3
    }
    {
      if ((getline expected < wanted) <= 0) { print "not in the document: " $0; wrong = 1; next }
      words = split(expected, said)
      good = words == NF
      for (i = 1; good && i <= words; i++) good = same(said[i], $i, $(i - 1), $(i + 1), expected)
      if (!good) { print "the document: " expected; print "the program:  " $0; wrong = 1 }
    }
    END {
      while ((getline expected < wanted) > 0) { print "not printed: " expected; wrong = 1 }
      exit wrong
    }' "$scratch/output" >"$scratch/differences"; then
    printf '%s: "%s"\n' "$document" "$(cat "$scratch/$number.command")" >&2
    cat "$scratch/differences" >&2
    exit 1
  fi
  number=$((number + 1))
done
echo "$count commands print what $document says"
