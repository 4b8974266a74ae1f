//! Finds libduallora, in this order:
//!
//! 1. `DUALLORA_LIB_DIR`: a folder that has it, as the build folder of the C library;
//! 2. with the feature `vendored`: built from its sources by CMake, linked statically;
//! 3. pkg-config.
//!
//! Dependents' build scripts get `DEP_DUALLORA_LIBDIR` (where it is known) and `DEP_DUALLORA_INCLUDE` (with `vendored`).
// SPDX-License-Identifier: Apache-2.0

use std::env;
use std::path::Path;
use std::process::exit;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DUALLORA_LIB_DIR");
    // Miri runs no foreign code: its tests bring a library written in Rust. Pages of documentation link nothing.
    if env::var_os("CARGO_CFG_MIRI").is_some() || env::var_os("DOCS_RS").is_some() {
        return;
    }
    if let Some(folder) = env::var_os("DUALLORA_LIB_DIR") {
        link_from(Path::new(&folder));
    } else if !link_vendored() {
        link_by_pkg_config();
    }
}

fn fail(sentence: &str) -> ! {
    eprintln!("duallora-sys: {}", sentence);
    exit(1)
}

fn link_from(folder: &Path) {
    let has = |name: &str| folder.join(name).exists();
    if !has("libduallora.so") && !has("libduallora.dylib") {
        // A static library needs others, which only its pkg-config file names.
        fail(&format!(
            "DUALLORA_LIB_DIR is {}, which has no shared library of the name duallora; for a static one set \
             PKG_CONFIG_PATH instead",
            folder.display()
        ));
    }
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=dylib=duallora");
    println!("cargo:libdir={}", folder.display());
}

/// Before 1.0 a minor version may change the interface, from then on a major one.
fn compatible_versions() -> (String, String) {
    let part = |name: &str| env::var(name).unwrap().parse::<u32>().unwrap();
    let (major, minor) = (part("CARGO_PKG_VERSION_MAJOR"), part("CARGO_PKG_VERSION_MINOR"));
    if major == 0 {
        (format!("0.{}", minor), format!("0.{}", minor + 1))
    } else {
        (format!("{}.{}", major, minor), format!("{}", major + 1))
    }
}

fn link_by_pkg_config() {
    let (least, below) = compatible_versions();
    let found = pkg_config::Config::new().range_version(least.as_str()..below.as_str()).probe("duallora");
    match found {
        Ok(library) => {
            if let Some(folder) = library.link_paths.first() {
                println!("cargo:libdir={}", folder.display());
            }
        }
        Err(error) => fail(&format!(
            "libduallora {} not found; install it, set PKG_CONFIG_PATH or DUALLORA_LIB_DIR, or enable the feature \
             `vendored`: {}",
            least, error
        )),
    }
}

#[cfg(not(feature = "vendored"))]
fn link_vendored() -> bool {
    false
}

/// `source` has links into the repository; a package has the files themselves.
#[cfg(feature = "vendored")]
fn link_vendored() -> bool {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("source");
    for part in ["CMakeLists.txt", "cmake", "include", "lib", "src"] {
        println!("cargo:rerun-if-changed={}", source.join(part).display());
    }
    let installed = cmake::Config::new(&source)
        .profile("Release")
        .define("BUILD_SHARED_LIBS", "OFF")
        .define("CMAKE_INSTALL_LIBDIR", "lib")
        .define("DUALLORA_BUILD_EXAMPLES", "OFF")
        .define("DUALLORA_BUILD_TESTS", "OFF")
        .define("DUALLORA_DOXYGEN", "OFF") // whose settings are not among the sources
        .build();
    let folder = installed.join("lib").join("pkgconfig");
    let mut path = folder.into_os_string();
    if let Some(others) = env::var_os("PKG_CONFIG_PATH") {
        path.push(":");
        path.push(others);
    }
    env::set_var("PKG_CONFIG_PATH", path);
    let found = pkg_config::Config::new().statik(true).probe("duallora");
    if let Err(error) = found {
        fail(&format!("the library was built, but cannot be linked: {}", error));
    }
    println!("cargo:libdir={}", installed.join("lib").display());
    println!("cargo:include={}", installed.join("include").display());
    true
}
