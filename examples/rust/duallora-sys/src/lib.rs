//! Declarations of the C interface of libduallora. The crate `duallora` is the safe one; start there.
//!
//! `src/bindings.rs` is generated from `include/duallora/duallora.h`, whose comments are the reference. A test compares
//! it with the header; `DUALLORA_UPDATE=1 cargo test -p duallora-sys bindgen` rewrites it.
//!
//! Environment variables and the feature `vendored`, which decide where the library comes from, are described in the
//! README.
// SPDX-License-Identifier: Apache-2.0
#![allow(non_camel_case_types)]
#![allow(rustdoc::all)] // the comments are written for C

#[rustfmt::skip]
mod bindings;
pub use bindings::*;
