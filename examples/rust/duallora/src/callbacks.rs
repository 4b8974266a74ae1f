//! Closures that a learner calls: progress and log. No panic may reach the C library. One in a closure is kept, the
//! call is cancelled where it can be, and the panic goes on when the call has returned.
// SPDX-License-Identifier: Apache-2.0

use std::any::Any;
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duallora_sys as sys;

use crate::enums::{LogLevel, Phase};

/// Progress of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Index of the open task; in an evaluation the number of tasks.
    pub task: i64,
    /// Phase of the call.
    pub phase: Phase,
    /// Images or steps done.
    pub done: usize,
    /// Images or steps of the phase.
    pub total: usize,
    /// Running mean of the training loss; NaN outside training.
    pub loss: f64,
    /// In this phase; 0 before it is known.
    pub images_per_second: f64,
}

type ProgressFn = Box<dyn FnMut(&Progress) -> ControlFlow<()> + Send>;
type LogFn = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;

/// Shared with the C library, which has its address; therefore nothing here is changed without a lock.
#[derive(Default)]
pub(crate) struct Callbacks {
    progress: Mutex<Option<ProgressFn>>,
    log: Mutex<Option<LogFn>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // panics are caught inside
}

impl Callbacks {
    pub(crate) fn set_progress(&self, progress: Option<ProgressFn>) {
        *lock(&self.progress) = progress;
    }

    pub(crate) fn set_log(&self, log: Option<LogFn>) {
        *lock(&self.log) = log;
    }

    /// The first panic since the last call.
    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.panic).take()
    }

    fn keep_panic(&self, panic: Box<dyn Any + Send>) {
        lock(&self.panic).get_or_insert(panic);
    }
}

/// # Safety
/// `progress` is that of the library, and `user` is the learner's live `Callbacks`.
pub(crate) unsafe extern "C" fn progress(progress: *const sys::dlora_progress, user: *mut c_void) -> i32 {
    let callbacks = &*(user as *const Callbacks);
    let raw = &*progress;
    let told = Progress {
        task: raw.task,
        phase: Phase::of(raw.phase),
        done: raw.done,
        total: raw.total,
        loss: raw.loss,
        images_per_second: raw.images_per_second,
    };
    let mut closure = lock(&callbacks.progress);
    let result = catch_unwind(AssertUnwindSafe(|| match closure.as_mut() {
        Some(closure) => closure(&told),
        None => ControlFlow::Continue(()),
    }));
    match result {
        Ok(ControlFlow::Continue(())) => 0,
        Ok(ControlFlow::Break(())) => 1,
        Err(panic) => {
            callbacks.keep_panic(panic);
            1
        }
    }
}

/// # Safety
/// `message` is a NUL-terminated text, and `user` is the learner's live `Callbacks`.
pub(crate) unsafe extern "C" fn log(level: i32, message: *const c_char, user: *mut c_void) {
    let callbacks = &*(user as *const Callbacks);
    let closure = lock(&callbacks.log).clone();
    let result = catch_unwind(AssertUnwindSafe(|| {
        if let Some(closure) = closure {
            closure(LogLevel::of(level), &CStr::from_ptr(message).to_string_lossy());
        }
    }));
    if let Err(panic) = result {
        callbacks.keep_panic(panic);
    }
}
