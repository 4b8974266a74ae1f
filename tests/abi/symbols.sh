#!/bin/sh
# Checks that four lists of functions are one: declared in the header, in the version map, in the committed inventory, and
# exported by the shared library.
#
#     tests/abi/symbols.sh LIBRARY.so     check (without a library: the three lists of the source tree)
#     tests/abi/symbols.sh --update       write the map and the inventory from the header
#
# The inventory keeps the version that introduced each function; --update gives new ones the header's version.
# SPDX-License-Identifier: Apache-2.0
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
header=$root/include/duallora/duallora.h
map=$root/cmake/duallora.map
inventory=$here/symbols-in-versions.txt
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

number() { sed -n "s/^#define DLORA_VERSION_$1 //p" "$header"; }
version=$(number MAJOR).$(number MINOR)

# Comments away, one declaration a line; then the name before the first parenthesis of every DLORA_API declaration.
sed 's://.*$::' "$header" | tr '\n' ' ' | sed -e 's:/\*\([^*]\|\*[^/]\)*\*/: :g' | tr ';{}' '\n\n\n' |
  sed -n 's/.*DLORA_API [^(]*\(dlora_[a-z0-9_]*\)(.*/\1/p' | sort >"$scratch/header"

if [ "${1:-}" = --update ]; then
  touch "$inventory"
  grep -v '^#' "$inventory" | sort >"$scratch/old" || true
  {
    echo "# Every exported function and the version that introduced it. tests/abi/symbols.sh --update adds new ones."
    join -a 1 -e "$version" -o 0,2.2 "$scratch/header" "$scratch/old"
  } >"$scratch/new"
  cp "$scratch/new" "$inventory"
  # One node a release, each inheriting the one before.
  grep -v '^#' "$inventory" | awk '{ print $2 }' | sort -uV >"$scratch/versions"
  : >"$map"
  previous=
  while read -r node; do
    {
      [ -z "$previous" ] || echo
      echo "DUALLORA_$node {"
      echo "  global:"
      awk -v node="$node" '!/^#/ && $2 == node { print "    " $1 ";" }' "$inventory"
      [ -n "$previous" ] || printf '  local:\n    *;\n'
      echo "}${previous:+ DUALLORA_$previous};"
    } >>"$map"
    previous=$node
  done <"$scratch/versions"
  exit 0
fi

status=0
compare() { # the header's list and that of $1, which is called $2
  if ! diff "$scratch/header" "$1" >"$scratch/difference"; then
    echo "the header (<) and $2 (>) differ:"
    grep '^[<>]' "$scratch/difference"
    status=1
  fi
}

sed -n 's/^ *\(dlora_[a-z0-9_]*\);$/\1/p' "$map" | sort >"$scratch/map"
compare "$scratch/map" "${map#"$root"/}"
grep -v '^#' "$inventory" | awk '{ print $1 }' | sort >"$scratch/inventory"
compare "$scratch/inventory" "${inventory#"$root"/}"
# The inventory's versions are the map's nodes.
awk '/^DUALLORA_/ { node = substr($1, 10) } /^ *dlora_/ { sub(/;/, "", $1); print $1, node }' "$map" | sort >"$scratch/nodes"
grep -v '^#' "$inventory" | sort >"$scratch/since"
if ! diff "$scratch/nodes" "$scratch/since"; then
  echo "cmake/duallora.map (<) and the inventory (>) disagree on versions"
  status=1
fi

if [ $# -gt 0 ]; then
  # Symbols of type A are the version nodes themselves. The C library's own names may appear in instrumented builds only.
  nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$scratch/library"
  compare "$scratch/library" "$1"
  # Before 1.0 every minor version has a soname of its own (cmake/DualloraAbi.cmake).
  soname=libduallora.so.$(number MAJOR)
  [ "$(number MAJOR)" -ne 0 ] || soname=libduallora.so.$version
  if ! readelf -d "$1" | grep 'SONAME' | grep -qF "[$soname]"; then
    echo "$1: the soname is not $soname"
    status=1
  fi
fi
[ $status -ne 0 ] || echo "$(wc -l <"$scratch/header") functions, the same everywhere"
exit $status
