//! Every function of the C interface is reached, or is listed here with the reason why not.
// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::{env, fs};

const LEFT_OUT: &[&str] = &[
    "dlora_image_source_init",      // Rust writes every member
    "dlora_projector_options_init", // of which only the allocator could be set
];

/// Named by nothing that a user needs.
const CONSTANTS_LEFT_OUT: &[&str] = &["DLORA_VERSION_PATCH", "DLORA_OK", "DLORA_STATUS_COUNT_"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn declarations() -> String {
    read("../duallora-sys/src/bindings.rs")
}

/// All sources of this crate.
fn code() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

/// Whether a name is in the code, and not as a part of a longer one.
fn uses(code: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| !code[at + name.len()..].starts_with(part) && !code[..at].ends_with(part))
}

#[test]
fn every_function_of_the_c_interface_is_called() {
    let (declarations, code) = (declarations(), code());
    let functions: Vec<&str> =
        declarations.split("pub fn ").skip(1).map(|rest| rest.split('(').next().unwrap()).collect();
    assert!(functions.len() > 100);
    let missing: Vec<&str> = functions.iter().copied().filter(|name| !uses(&code, name)).collect();
    assert_eq!(missing, LEFT_OUT);
    println!("{} of {} functions", functions.len() - missing.len(), functions.len());
}

#[test]
fn every_constant_of_the_c_interface_has_a_name_here() {
    let (declarations, code) = (declarations(), code());
    let constants: Vec<&str> =
        declarations.split("pub const ").skip(1).map(|rest| rest.split(':').next().unwrap()).collect();
    assert!(constants.len() > 90);
    let missing: Vec<&str> = constants.into_iter().filter(|name| !uses(&code, name)).collect();
    assert_eq!(missing, CONSTANTS_LEFT_OUT);
}

/// Those of learner options are compared by the test of setters.
#[test]
fn every_member_of_the_c_structs_is_read_or_set() {
    let (declarations, code) = (declarations(), code());
    let (mut name, mut members) = ("", 0);
    for line in declarations.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            name = rest.split(' ').next().unwrap();
        } else if let Some(rest) = line.strip_prefix("    pub ") {
            let member = rest.split([':', ' ']).next().unwrap();
            let skipped = ["dlora_learner_options", "dlora_allocator"].contains(&name)
                || ["fn", "reserved", "allocator"].contains(&member);
            if !skipped {
                assert!(uses(&code, member), "{}.{}", name, member);
                members += 1;
            }
        }
    }
    assert!(members > 120, "{} members", members);
}
