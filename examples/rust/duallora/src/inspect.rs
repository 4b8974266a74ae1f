//! What a safetensors file has.
// SPDX-License-Identifier: Apache-2.0

use std::any::Any;
use std::ops::ControlFlow;
use std::os::raw::c_void;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;

use duallora_sys as sys;

use crate::error::{check, Result};
use crate::handle::{c_path, text_of};
use crate::projector::slice_of;

/// One entry of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A metadata entry.
    Metadata {
        /// Its key.
        key: String,
        /// Its text.
        value: String,
    },
    /// A tensor.
    Tensor {
        /// Its name.
        name: String,
        /// Its type, as "F32".
        dtype: String,
        /// Its sizes.
        shape: Vec<usize>,
        /// Its bytes.
        num_bytes: usize,
    },
}

struct Visiting<F> {
    visit: F,
    panic: Option<Box<dyn Any + Send>>,
}

/// Calls `visit` for every metadata entry and tensor of a safetensors file, after all of the file was checked.
/// `ControlFlow::Break` stops with [`Status::Cancelled`](crate::Status::Cancelled).
pub fn inspect<F: FnMut(Entry) -> ControlFlow<()>>(path: impl AsRef<Path>, visit: F) -> Result<()> {
    let path = c_path(path.as_ref())?;
    let mut visiting = Visiting { visit, panic: None };
    let user = &mut visiting as *mut Visiting<F> as *mut c_void;
    // SAFETY: a path, and a visitor that lives during the call and lets no panic out.
    let status = unsafe { sys::dlora_inspect(path.as_ptr(), Some(visit_one::<F>), user) };
    let result = check(status);
    if let Some(panic) = visiting.panic {
        resume_unwind(panic);
    }
    result
}

/// # Safety
/// `info` is that of the library, and `user` the `Visiting` of [`inspect`].
unsafe extern "C" fn visit_one<F: FnMut(Entry) -> ControlFlow<()>>(
    info: *const sys::dlora_tensor_info,
    user: *mut c_void,
) -> i32 {
    let visiting = &mut *(user as *mut Visiting<F>);
    let info = &*info;
    let name = text_of(info.name).unwrap_or_default().into_owned();
    let entry = match text_of(info.dtype) {
        Some(dtype) => Entry::Tensor {
            name,
            dtype: dtype.into_owned(),
            shape: slice_of(info.shape, info.num_dims).to_vec(),
            num_bytes: info.num_bytes,
        },
        None => Entry::Metadata { key: name, value: text_of(info.value).unwrap_or_default().into_owned() },
    };
    match catch_unwind(AssertUnwindSafe(|| (visiting.visit)(entry))) {
        Ok(ControlFlow::Continue(())) => 0,
        Ok(ControlFlow::Break(())) => 1,
        Err(panic) => {
            visiting.panic = Some(panic);
            1
        }
    }
}
