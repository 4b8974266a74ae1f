//! Errors: a status of the C library and its sentence, with the error of a caller's closure where one failed.
// SPDX-License-Identifier: Apache-2.0

use std::error::Error as StdError;
use std::ffi::CStr;
use std::fmt;
use std::path::Path;

use duallora_sys as sys;

/// What a call of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
/// An error of a caller's closure.
pub type BoxError = Box<dyn StdError + Send + Sync>;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:ident,)*) => {
        /// Why a call failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Status {
            $($(#[$doc])* $name,)*
            /// A code that this crate does not know.
            Other(i32),
        }

        impl Status {
            /// The C library's code.
            pub fn code(self) -> i32 {
                match self {
                    $(Status::$name => sys::$code as i32,)*
                    Status::Other(code) => code,
                }
            }

            pub(crate) fn of(code: i32) -> Status {
                $(if code == sys::$code as i32 {
                    return Status::$name;
                })*
                Status::Other(code)
            }
        }
    };
}

statuses! {
    /// An argument is empty, too large, of another length or inconsistent.
    Argument = DLORA_ERR_ARGUMENT,
    /// Memory ran out.
    NoMemory = DLORA_ERR_NO_MEMORY,
    /// Options are of a newer library.
    StructSize = DLORA_ERR_STRUCT_SIZE,
    /// The call came in the wrong order.
    State = DLORA_ERR_STATE,
    /// A file could not be read or written, or an image source failed.
    Io = DLORA_ERR_IO,
    /// A file is damaged or of another kind.
    Format = DLORA_ERR_FORMAT,
    /// Two things do not belong together.
    Mismatch = DLORA_ERR_MISMATCH,
    /// An input, a loss or a result is NaN or infinite.
    NotFinite = DLORA_ERR_NOT_FINITE,
    /// A progress closure stopped the call.
    Cancelled = DLORA_ERR_CANCELLED,
    /// The file, option or library is valid but cannot be used.
    Unsupported = DLORA_ERR_UNSUPPORTED,
    /// A factorisation did not converge.
    Numeric = DLORA_ERR_NUMERIC,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the name has static storage.
        f.write_str(&unsafe { CStr::from_ptr(sys::dlora_status_name(self.code())) }.to_string_lossy())
    }
}

/// A failed call: a status to compare with, and a sentence for people that names the culprit.
///
/// If a closure that reads images failed, [`source`](StdError::source) is its error.
#[derive(Debug)]
pub struct Error {
    status: Status,
    message: String,
    source: Option<BoxError>,
}

impl Error {
    /// Why the call failed.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The sentence. Its wording may change: compare statuses.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn new(status: Status, message: impl Into<String>) -> Error {
        Error { status, message: message.into(), source: None }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Error {
        Error::new(Status::Argument, message)
    }

    /// Of the last failure in this thread.
    pub(crate) fn last(code: i32) -> Error {
        // SAFETY: the sentence is borrowed until the thread's next failure, and copied here.
        let message = unsafe { CStr::from_ptr(sys::dlora_last_error()) };
        Error::new(Status::of(code), message.to_string_lossy())
    }

    /// Names the file whose bytes were at fault.
    pub(crate) fn of_file(self, path: &Path) -> Error {
        Error { message: format!("{}: {}", path.display(), self.message), ..self }
    }

    /// Names `path` in the place of a copy of it.
    pub(crate) fn with_path(self, copy: &Path, path: &Path) -> Error {
        let message = self.message.replace(&*copy.to_string_lossy(), &path.to_string_lossy());
        Error { message, ..self }
    }

    pub(crate) fn caused_by(self, source: BoxError) -> Error {
        Error { message: format!("{}: {}", self.message, source), source: Some(source), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

pub(crate) fn check(status: sys::dlora_status) -> Result<()> {
    match status {
        0 => Ok(()),
        code => Err(Error::last(code)),
    }
}
