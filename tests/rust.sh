#!/bin/sh
# Checks the crates in examples/rust against a library that was built: formatting, clippy, all tests, the packages.
#
#     tests/rust.sh LIBRARY TARGET     LIBRARY: path of the shared library; TARGET: folder for what cargo builds
#
# Exits with 77 (skipped) and a sentence without cargo, with an old one, or without the registry of crates.
# SPDX-License-Identifier: Apache-2.0
set -eu
folder=$(cd "$(dirname "$1")" && pwd)
mkdir -p "$2"
target=$(cd "$2" && pwd)
least=88 # of Rust 1.x: what the crate image needs, which the example reads photos with
cd "$(dirname "$0")/../examples/rust"

skip() {
  echo "skipped: $*"
  exit 77
}

command -v cargo >/dev/null || skip "cargo is missing (Debian 12: cargo-web)"
version=$(cargo --version | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
[ "${version:-0}" -ge "$least" ] || skip "$(cargo --version) is older than 1.$least (Debian 12: cargo-web)"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo fetch --quiet --target "$host" 2>"$target/fetch.log" ||
  skip "the registry of crates cannot be reached: $(tail -n 1 "$target/fetch.log")"

DUALLORA_LIB_DIR=$folder
LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
CARGO_TARGET_DIR=$target
CARGO_INCREMENTAL=0
CARGO_PROFILE_DEV_DEBUG=line-tables-only
export DUALLORA_LIB_DIR LD_LIBRARY_PATH CARGO_TARGET_DIR CARGO_INCREMENTAL CARGO_PROFILE_DEV_DEBUG

step() { printf '\n==== %s\n' "$*"; }

step "formatting"
if cargo fmt --version >/dev/null 2>&1; then
  cargo fmt --check
else
  echo "not checked: rustfmt is missing"
fi

step "tests"
cargo test --workspace --quiet --features ndarray,image

step "clippy"
if cargo clippy --version >/dev/null 2>&1; then
  cargo clippy --workspace --quiet --all-targets --features ndarray,image -- -D warnings
else
  echo "not checked: clippy is missing"
fi

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p duallora --features ndarray,image

step "packages" # made from the files, unpacked, and checked; cargo's own check keeps unpacked crates of earlier runs
cargo package --quiet --workspace --allow-dirty --no-verify
rm -rf "$target/unpacked"
mkdir "$target/unpacked"
for crate in "$target"/package/duallora-*.crate; do
  tar -xzf "$crate" -C "$target/unpacked"
done
cp Cargo.lock "$target/unpacked"
cd "$target/unpacked"
for folder in duallora-*; do
  case $folder in
    duallora-sys-*) sys=$folder ;;
  esac
done
printf '[workspace]\nresolver = "2"\nmembers = ["duallora-*"]\n[patch.crates-io]\nduallora-sys = { path = "%s" }\n' \
  "$sys" >Cargo.toml
cargo check --offline --quiet --features duallora/ndarray,duallora/image
