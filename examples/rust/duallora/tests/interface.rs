//! Every function of the C interface is reached, or is listed here with the reason why not.
// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::{env, fs};

const LEFT_OUT: &[&str] = &[
    "dlora_image_source_init",      // Rust writes every member
    "dlora_projector_options_init", // of which only the allocator could be set
];

#[test]
fn every_function_of_the_c_interface_is_called() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let declarations = fs::read_to_string(folder.join("../duallora-sys/src/bindings.rs")).unwrap();
    let mut code = String::new();
    for entry in fs::read_dir(folder.join("src")).unwrap() {
        code += &fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    // Each name is followed by something that a longer name has not.
    let called = |name: &str| {
        code.match_indices(name)
            .any(|(at, _)| !code[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let functions: Vec<&str> =
        declarations.split("pub fn ").skip(1).map(|rest| rest.split('(').next().unwrap()).collect();
    assert!(functions.len() > 100);
    let missing: Vec<&&str> = functions.iter().filter(|name| !called(name)).collect();
    assert_eq!(missing, LEFT_OUT.iter().collect::<Vec<_>>());
    println!("{} of {} functions", functions.len() - missing.len(), functions.len());
}
