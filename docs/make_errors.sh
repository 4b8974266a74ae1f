#!/bin/sh
# Writes docs/ERRORS.md from DLORA_STATUS_LIST in the public header: docs/make_errors.sh [OUTPUT [COMPILER]]
# SPDX-License-Identifier: Apache-2.0
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
output=${1:-$root/docs/ERRORS.md}
compiler=${2:-cc}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat >"$scratch/table.c" <<'END'
#include <stdio.h>

#include "duallora/duallora.h"

#define ROW(name, code, when, action) printf("| `DLORA_%s` | %d | %s | %s |\n", #name, (code), (when), (action));

int main(void) {
  puts("# Statuses\n\n"
       "<!-- Made by docs/make_errors.sh from DLORA_STATUS_LIST in the public header. -->\n\n"
       "Every fallible function returns a `dlora_status`, an `int32_t`; 0 is success. `dlora_last_error()` then has a\n"
       "sentence for the calling thread that names the argument, file, tensor or shape at fault and what was expected.\n"
       "`dlora_status_name(status)` gives the name. Codes are never reused; new ones may be added, so treat an unknown\n"
       "code as a failure. A call that fails leaves its handle as it was.\n\n"
       "| status | code | when | what to do |\n|---|---|---|---|");
  DLORA_STATUS_LIST(ROW)
  return 0;
}
END
"$compiler" -std=c11 -I"$root/include" "$scratch/table.c" -o "$scratch/table"
"$scratch/table" >"$scratch/ERRORS.md"
cp "$scratch/ERRORS.md" "$output"
