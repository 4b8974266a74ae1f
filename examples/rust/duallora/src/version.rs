//! The library's version and build. A library of another version than the declarations is refused.
// SPDX-License-Identifier: Apache-2.0

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use duallora_sys as sys;

use crate::error::{Error, Result, Status};

/// The C library's version, as "0.9.0".
pub fn version() -> String {
    // SAFETY: static storage.
    unsafe { CStr::from_ptr(sys::dlora_version()) }.to_string_lossy().into_owned()
}

/// Kernels, products, threads and BLAS that the C library uses on this machine.
pub fn build_info() -> String {
    // SAFETY: borrowed until this thread's next call, and copied here.
    unsafe { CStr::from_ptr(sys::dlora_build_info()) }.to_string_lossy().into_owned()
}

/// Refuses a library whose structs and functions may be other than those declared.
pub(crate) fn check() -> Result<()> {
    static CHECKED: AtomicBool = AtomicBool::new(false);
    if !CHECKED.load(Ordering::Relaxed) {
        compare((sys::DLORA_VERSION_MAJOR, sys::DLORA_VERSION_MINOR), &version())?;
        CHECKED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Before 1.0 the minor version must be the same. From then on the major version must, and the minor may be higher.
fn compare((major, minor): (u32, u32), library: &str) -> Result<()> {
    let mut parts = library.split('.').map(|part| part.parse::<u32>().ok());
    let fits = match (parts.next().flatten(), parts.next().flatten()) {
        (Some(0), Some(found)) => major == 0 && found == minor,
        (Some(found_major), Some(found)) => found_major == major && found >= minor,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let sentence = format!(
        "the library is version {}, and this crate declares {}.{}: use a library of that version, or another crate",
        library, major, minor
    );
    Err(Error::new(Status::Unsupported, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_with_another_interface_are_refused() {
        for library in ["0.9.0", "0.9.17"] {
            compare((0, 9), library).unwrap();
        }
        for library in ["0.8.0", "0.10.0", "1.0.0", "1.9.0", "", "nine", "0", "0.x"] {
            let error = compare((0, 9), library).unwrap_err();
            assert_eq!(error.status(), Status::Unsupported);
            assert!(error.message().contains(&format!("version {},", library)), "{}", error);
        }
        compare((1, 2), "1.2.0").unwrap();
        compare((1, 2), "1.3.5").unwrap();
        for library in ["1.1.0", "2.2.0", "0.2.0"] {
            compare((1, 2), library).unwrap_err();
        }
    }
}
