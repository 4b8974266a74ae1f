//! Forward and backward pass of a model with a bank, for training loops and losses of one's own.
// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::ptr;
use std::sync::Arc;

use duallora_sys as sys;

use crate::arrays::{expect_length, rows_of, Matrix, Rows};
use crate::bank::{self, Bank};
use crate::enums::{Input, Terms};
use crate::error::{check, Error, Result, Status};
use crate::handle::Handle;
use crate::images::Images;
use crate::model::Model;
use crate::records::Profile;

/// Options of a [`Session`].
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    raw: sys::dlora_session_options,
}

// SAFETY: the only pointer is that of an allocator, which is always NULL.
unsafe impl Send for SessionOptions {}
unsafe impl Sync for SessionOptions {}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions::new()
    }
}

impl SessionOptions {
    /// The defaults.
    pub fn new() -> SessionOptions {
        // SAFETY: numbers and a pointer. A size that the library refused would leave 0, which it refuses later as well.
        unsafe {
            let mut raw: sys::dlora_session_options = std::mem::zeroed();
            sys::dlora_session_options_init(&mut raw, std::mem::size_of_val(&raw));
            SessionOptions { raw }
        }
    }

    /// Most images of one forward call.
    pub fn max_batch(mut self, max_batch: usize) -> Self {
        self.raw.max_batch = max_batch;
        self
    }

    /// Threads; without this call all processors.
    pub fn threads(mut self, threads: i32) -> Self {
        self.raw.threads = threads;
        self
    }

    /// Whether to keep activations for [`Session::backward`].
    pub fn training(mut self, training: bool) -> Self {
        self.raw.training = training.into();
        self
    }
}

/// The workspace of a model with a bank.
///
/// The C library lets a session read a bank that others change between its calls. Here the session owns its bank, and
/// [`bank_mut`](Session::bank_mut) lends it between the calls; several sessions may share one that nobody changes.
pub struct Session {
    handle: Handle<sys::dlora_session>, // dropped first
    bank: Option<Arc<Bank>>,
    lent: Option<Arc<bank::Shared>>, // the bank that the C session reads
    model: Model,
    forwarded: Option<usize>, // images of the last forward call
}

impl Session {
    /// A session of a model without a bank.
    pub fn without_bank(model: &Model, options: &SessionOptions) -> Result<Session> {
        Session::create(model, None, options)
    }

    /// A session of a model with a [`Bank`], or with an `Arc<Bank>` that others read too.
    pub fn new(model: &Model, bank: impl Into<Arc<Bank>>, options: &SessionOptions) -> Result<Session> {
        Session::create(model, Some(bank.into()), options)
    }

    fn create(model: &Model, bank: Option<Arc<Bank>>, options: &SessionOptions) -> Result<Session> {
        let raw = bank.as_deref().map_or(ptr::null(), Bank::raw);
        // SAFETY: model and bank live as long as the session, by the members below.
        let handle = Handle::create(|out| unsafe { sys::dlora_session_create(out, model.raw(), raw, &options.raw) })?;
        let lent = bank.as_deref().map(Bank::shared);
        Ok(Session { handle, bank, lent, model: model.clone(), forwarded: None })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The bank.
    pub fn bank(&self) -> Option<&Bank> {
        self.bank.as_deref()
    }

    /// The bank, to begin a task, to step, to commit. Refused if others share it.
    pub fn bank_mut(&mut self) -> Result<&mut Bank> {
        match &mut self.bank {
            None => Err(Error::new(Status::State, "the session has no bank")),
            Some(bank) => Arc::get_mut(bank)
                .ok_or_else(|| Error::new(Status::State, "the session's bank is shared, and cannot be changed")),
        }
    }

    /// Ends the session and gives its bank back.
    pub fn into_bank(self) -> Option<Arc<Bank>> {
        self.bank
    }

    /// `mem::swap` on [`bank_mut`](Session::bank_mut) can put another bank in the place of the one that the C session
    /// reads, which may then be used elsewhere.
    fn expect_its_bank(&self) -> Result<()> {
        match (&self.bank, &self.lent) {
            (Some(bank), Some(lent)) if !bank.is(lent) => {
                Err(Error::new(Status::Mismatch, "the session's bank was exchanged for another one"))
            }
            _ => Ok(()),
        }
    }

    /// Computes features `[count, embed_dim]`. `routing`: weights `[count, num_tasks]` of finished tasks' adapters.
    pub fn forward(&mut self, images: &Images<'_>, terms: Terms, routing: Option<&[f32]>) -> Result<Matrix> {
        self.expect_its_bank()?;
        let mut features = Matrix::zeros(images.len(), self.model.info().embed_dim)?;
        let routing = match routing {
            None => ptr::null(),
            Some(routing) => {
                let tasks = self.bank().map_or(0, Bank::num_tasks);
                expect_length("routing", routing.len(), images.len() * tasks)?;
                routing.as_ptr()
            }
        };
        self.forwarded = None;
        let raw = self.handle.get_mut();
        // SAFETY: all arrays have the sizes that the library expects, and nobody changes the bank meanwhile.
        check(unsafe { sys::dlora_session_forward(raw, images.raw(), terms.bits(), routing, features.as_mut_ptr()) })?;
        self.forwarded = Some(images.len());
        Ok(features)
    }

    /// Images of the last forward call.
    fn forwarded(&self) -> Result<usize> {
        self.forwarded.ok_or_else(|| Error::new(Status::State, "the session needs a forward call first"))
    }

    /// Adds the gradients of the open task's parameters to those of the bank, from the gradients of the last forward
    /// call's features, `[count, embed_dim]`.
    pub fn backward(&mut self, feature_gradients: &(impl Rows + ?Sized)) -> Result<()> {
        self.expect_its_bank()?;
        let (values, count) = rows_of("feature_gradients", feature_gradients, self.model.info().embed_dim)?;
        expect_length("feature_gradients", count, self.forwarded()?)?;
        let bank = self.bank_mut()?.raw_mut();
        // SAFETY: the session's own bank, which is not shared, and count rows.
        check(unsafe { sys::dlora_session_backward(self.handle.get_mut(), bank, values.as_ptr()) })
    }

    /// An input of a block in the last forward call of a training session: images in turn, `[rows, dim]`.
    pub fn input(&self, block: usize, input: Input) -> Result<Matrix> {
        self.expect_its_bank()?;
        let (mut rows, mut dim) = (0, 0);
        let raw = self.handle.get();
        // SAFETY: the first call asks for the sizes, and the second has room for them.
        unsafe {
            let nowhere = ptr::null_mut();
            check(sys::dlora_session_get_input(raw, block, input.code(), nowhere, &mut rows, &mut dim))?;
            let mut values = Matrix::zeros(rows, dim)?;
            let to = values.as_mut_ptr();
            check(sys::dlora_session_get_input(raw, block, input.code(), to, &mut rows, &mut dim))?;
            Ok(values)
        }
    }

    /// Early features of the last forward call, which learning never changes: `[count, 2 * embed_dim]`.
    pub fn early_features(&mut self) -> Result<Matrix> {
        self.expect_its_bank()?;
        let mut features = Matrix::zeros(self.forwarded()?, 2 * self.model.info().embed_dim)?;
        // SAFETY: room for the images of the last forward call.
        check(unsafe { sys::dlora_session_get_early_features(self.handle.get_mut(), features.as_mut_ptr()) })?;
        Ok(features)
    }

    /// Times of this session.
    pub fn profile(&self) -> Result<Profile> {
        // SAFETY: a live session.
        Profile::filled_by(|profile| unsafe { sys::dlora_session_get_profile(self.handle.get(), profile) })
    }

    /// Bytes of the workspace.
    pub fn workspace_size(&self) -> usize {
        // SAFETY: a live session.
        unsafe { sys::dlora_session_workspace_size(self.handle.get()) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} bytes, bank {:?})", self.workspace_size(), self.bank)
    }
}
