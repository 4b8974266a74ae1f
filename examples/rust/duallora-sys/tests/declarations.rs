//! The declarations checked in are those of the header. `DUALLORA_UPDATE=1 cargo test -p duallora-sys bindgen` rewrites them.
// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, panic};

fn in_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn header() -> PathBuf {
    in_crate("source/include/duallora/duallora.h")
}

fn generate() -> String {
    bindgen::Builder::default()
        .header(header().to_str().expect("a path in UTF-8"))
        .allowlist_item("(dlora|DLORA)_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .layout_tests(false) // which take 1700 lines; the last test here compares sizes
        .rust_target(bindgen::RustTarget::stable(63, 0).expect("bindgen knows Rust 1.63"))
        .rust_edition(bindgen::RustEdition::Edition2021)
        .formatter(bindgen::Formatter::Prettyplease)
        .disable_header_comment()
        .raw_line("// Generated from include/duallora/duallora.h; do not edit. README.md says how to update it.")
        .raw_line("// SPDX-License-Identifier: Apache-2.0")
        .generate()
        .expect("bindgen reads the header")
        .to_string()
}

fn libclang_is_there() -> bool {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {})); // bindgen panics where it is missing
    let version = panic::catch_unwind(bindgen::clang_version);
    panic::set_hook(hook);
    version.is_ok()
}

#[test]
fn the_declarations_are_those_that_bindgen_makes_of_the_header() {
    if !libclang_is_there() {
        eprintln!("skipped: libclang is missing (Debian 12: libclang1-14); names and members are compared without it");
        return;
    }
    let (path, fresh) = (in_crate("src/bindings.rs"), generate());
    if env::var_os("DUALLORA_UPDATE").is_some() {
        fs::write(path, fresh).expect("bindings.rs is written");
        return;
    }
    // A word changed in a comment of the header breaks nothing here. The update takes it over.
    let (kept, fresh) = (without_comments(&read(path)), without_comments(&fresh));
    let lines = |text: &'_ str| -> Vec<String> {
        text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect()
    };
    let (kept, fresh) = (lines(&kept), lines(&fresh));
    assert!(fresh.len() > 1000, "bindgen makes {} lines", fresh.len());
    for (kept, fresh) in kept.iter().zip(&fresh) {
        assert_eq!(kept, fresh, "in bindings.rs; see README.md to update it");
    }
    assert_eq!(kept.len(), fresh.len(), "lines of bindings.rs; see README.md to update it");
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {}", path.display(), error))
}

fn without_comments(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        plain.push_str(&rest[..start]);
        rest = &rest[start + rest[start..].find("*/").expect("a comment ends") + 2..];
    }
    plain.push_str(rest);
    plain.lines().map(|line| line.split("//").next().unwrap_or("").to_string() + "\n").collect()
}

/// Name and number of parameters of each function.
fn functions_of_header() -> BTreeMap<String, usize> {
    let text = without_comments(&read(header()));
    let mut found = BTreeMap::new();
    for declaration in text.split("DLORA_API ").skip(1).filter(|d| d.contains(");")) {
        let declaration = &declaration[..declaration.find(");").unwrap()];
        let (before, parameters) = declaration.split_once('(').expect("a list of parameters");
        let name = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
        found.insert(name.to_string(), count_parameters(parameters));
    }
    found
}

/// Of a list without its outer parentheses: commas outside inner ones.
fn count_parameters(list: &str) -> usize {
    let list = list.trim().trim_end_matches(',');
    if list.is_empty() || list == "void" {
        return 0;
    }
    let (mut depth, mut count) = (0, 1);
    for c in list.chars() {
        match c {
            '(' | '<' => depth += 1,
            ')' | '>' => depth -= 1,
            ',' if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}

fn functions_of_bindings() -> BTreeMap<String, usize> {
    let code = without_comments(&read(in_crate("src/bindings.rs"))).replace("->", ""); // whose > is no bracket
    let mut found = BTreeMap::new();
    for declaration in code.split("pub fn ").skip(1) {
        let (name, rest) = declaration.split_once('(').expect("a list of parameters");
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += (c == '(') as i32 - (c == ')') as i32;
            depth == 0
        });
        found.insert(name.to_string(), count_parameters(&rest[..end.expect("it ends")]));
    }
    found
}

#[test]
fn every_function_of_the_header_is_declared_and_no_other() {
    let expected = functions_of_header();
    assert!(expected.len() > 100, "the header has {} functions", expected.len());
    assert_eq!(expected["dlora_version"], 0);
    assert_eq!(expected["dlora_bank_forward"], 8);
    assert_eq!(expected["dlora_inspect"], 3);
    let found = functions_of_bindings();
    for (name, parameters) in &expected {
        assert_eq!(found.get(name), Some(parameters), "{}", name);
    }
    assert_eq!(found.len(), expected.len());
}

/// What the C library's own test of layouts keeps.
fn baseline() -> PathBuf {
    in_crate("../../../tests/abi/layout-x86_64.txt")
}

/// Members of all structs in their order.
#[test]
fn structs_have_the_members_of_the_baseline_in_their_order() {
    let baseline = read(baseline());
    let expected: Vec<&str> =
        baseline.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.contains('.')).collect();
    assert!(expected.contains(&"dlora_learner_options.seed"));
    let text = without_comments(&read(in_crate("src/bindings.rs")));
    let (mut found, mut name) = (Vec::new(), "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            name = rest.split(' ').next().unwrap();
        } else if line.starts_with('}') {
            name = "";
        } else if let (Some(rest), false) = (line.strip_prefix("    pub "), name.is_empty()) {
            let member = rest.split(':').next().unwrap().trim_end_matches('_'); // type_, whose name Rust has taken
            found.push(format!("{}.{}", name, member));
        }
    }
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
#[cfg(target_pointer_width = "64")]
fn structs_have_the_sizes_of_the_baseline() {
    macro_rules! sizes {
        ($($name:ident)*) => { BTreeMap::from([$((stringify!($name), std::mem::size_of::<duallora_sys::$name>())),*]) };
    }
    let found = sizes!(dlora_adapter dlora_allocator dlora_bank_options dlora_evaluation dlora_image_source dlora_images
        dlora_learner_options dlora_model_info dlora_model_options dlora_model_setting
        dlora_open_task dlora_option_info dlora_prediction
        dlora_predictor_options dlora_profile dlora_progress dlora_projector_options dlora_session_options dlora_site
        dlora_task_report dlora_tensor_info);
    let text = read(baseline());
    let expected: BTreeMap<&str, usize> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| name.starts_with("dlora_") && !name.contains('.'))
        .map(|(name, size)| (name, size.parse().expect("a size")))
        .collect();
    assert_eq!(found, expected);
}
