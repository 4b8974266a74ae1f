//! Ownership of C handles. A handle is freed once; const functions take `&self`, others `&mut self`.
// SPDX-License-Identifier: Apache-2.0

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::raw::c_char;
use std::path::Path;
use std::ptr::{self, NonNull};

use duallora_sys as sys;

use crate::error::{check, Error, Result};
use crate::version;

/// A C handle with its function that frees it.
pub(crate) trait Destroy {
    /// # Safety
    /// `raw` is a live handle that is not used again.
    unsafe fn destroy(raw: *mut Self);
}

macro_rules! destroyed_by {
    ($($handle:ident $destroy:ident,)*) => {
        $(impl Destroy for sys::$handle {
            unsafe fn destroy(raw: *mut Self) {
                sys::$destroy(raw)
            }
        })*
    };
}

destroyed_by! {
    dlora_model dlora_model_destroy,
    dlora_bank dlora_bank_destroy,
    dlora_projector dlora_projector_destroy,
    dlora_predictor dlora_predictor_destroy,
    dlora_session dlora_session_destroy,
    dlora_learner dlora_learner_destroy,
}

pub(crate) struct Handle<T: Destroy> {
    raw: NonNull<T>,
    owned: bool,
}

// SAFETY: "Several threads may use a const handle at once. A non-const call needs exclusive access to its handle.
// Different handles are independent." (CONVENTIONS, Threads). No handle is tied to the thread that made it.
unsafe impl<T: Destroy> Send for Handle<T> {}
unsafe impl<T: Destroy> Sync for Handle<T> {}

impl<T: Destroy> Handle<T> {
    /// Makes a handle by a `_create`, `_load` or `_clone` function, which gets its `out`.
    pub(crate) fn create(call: impl FnOnce(*mut *mut T) -> sys::dlora_status) -> Result<Handle<T>> {
        version::check()?;
        let mut raw = ptr::null_mut();
        check(call(&mut raw))?;
        NonNull::new(raw)
            .map(|raw| Handle { raw, owned: true })
            .ok_or_else(|| Error::argument("the library returned no handle"))
    }

    /// A handle that another one owns; None for NULL.
    pub(crate) fn borrow(raw: *const T) -> Option<Handle<T>> {
        NonNull::new(raw as *mut T).map(|raw| Handle { raw, owned: false })
    }

    /// For const functions.
    pub(crate) fn get(&self) -> *const T {
        self.raw.as_ptr()
    }

    /// For functions that change the handle.
    pub(crate) fn get_mut(&mut self) -> *mut T {
        self.raw.as_ptr()
    }
}

impl<T: Destroy> Drop for Handle<T> {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: owned handles are freed here only, and nothing uses a handle that is dropped.
            unsafe { T::destroy(self.raw.as_ptr()) }
        }
    }
}

/// Part of a [`Learner`](crate::Learner), borrowed: everything that a shared reference may do.
pub struct Borrowed<'a, T> {
    value: T,
    owner: PhantomData<&'a ()>,
}

impl<T> Borrowed<'_, T> {
    pub(crate) fn new(value: T) -> Self {
        Borrowed { value, owner: PhantomData }
    }
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

// ---- text ----

pub(crate) fn c_text(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::argument(format!("{} {:?} has a zero byte", what, text)))
}

pub(crate) fn c_path(path: &Path) -> Result<CString> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    #[cfg(not(unix))]
    let bytes = path.to_str().ok_or_else(|| Error::argument(format!("{:?} is not Unicode", path)))?.as_bytes();
    CString::new(bytes).map_err(|_| Error::argument(format!("the path {:?} has a zero byte", path)))
}

/// # Safety
/// `text` is NULL or a NUL-terminated text that lives as long as the result is used.
pub(crate) unsafe fn text_of<'a>(text: *const c_char) -> Option<std::borrow::Cow<'a, str>> {
    if text.is_null() {
        return None;
    }
    Some(CStr::from_ptr(text).to_string_lossy())
}
