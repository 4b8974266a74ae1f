//! Low-rank adapters of linear layers.
// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, ptr, slice};

use duallora_sys as sys;

use crate::arrays::{expect_length, rows_of, Rows};
use crate::enums::{Optimizer, Projections, Terms};
use crate::error::{check, Error, Result};
use crate::handle::{c_path, Handle};
use crate::projector::{slice_of, Projector};

/// One adapted linear layer. A [`Session`](crate::Session) reads block and projection; elsewhere they may have any
/// value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Width of the layer's input.
    pub input_dim: usize,
    /// Width of its output.
    pub output_dim: usize,
    /// Block of the model.
    pub block: i32,
    /// One projection.
    pub projection: Projections,
}

/// Options of a [`Bank`].
#[derive(Clone, Copy, Debug)]
pub struct BankOptions {
    raw: sys::dlora_bank_options,
}

// SAFETY: the only pointer is that of an allocator, which is always NULL.
unsafe impl Send for BankOptions {}
unsafe impl Sync for BankOptions {}

impl Default for BankOptions {
    fn default() -> BankOptions {
        BankOptions::new()
    }
}

impl BankOptions {
    /// The defaults.
    pub fn new() -> BankOptions {
        // SAFETY: numbers and a pointer. A size that the library refused would leave 0, which it refuses later as well.
        unsafe {
            let mut raw: sys::dlora_bank_options = std::mem::zeroed();
            sys::dlora_bank_options_init(&mut raw, std::mem::size_of_val(&raw));
            BankOptions { raw }
        }
    }

    /// Update rule.
    pub fn optimizer(mut self, optimizer: Optimizer) -> Self {
        self.raw.optimizer = optimizer.code();
        self
    }

    /// Adam's decays of mean gradient and mean square.
    pub fn betas(mut self, beta1: f32, beta2: f32) -> Self {
        (self.raw.beta1, self.raw.beta2) = (beta1, beta2);
        self
    }

    /// Adam's epsilon.
    pub fn epsilon(mut self, epsilon: f32) -> Self {
        self.raw.epsilon = epsilon;
        self
    }

    /// Momentum of SGD.
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.raw.momentum = momentum;
        self
    }

    /// Decoupled weight decay.
    pub fn weight_decay(mut self, weight_decay: f32) -> Self {
        self.raw.weight_decay = weight_decay;
        self
    }
}

/// Weights of finished tasks' residual adapters in a pass.
#[derive(Clone, Copy, Debug)]
pub struct RowRouting<'a> {
    /// `[rows / rows_per_item, num_tasks]`.
    pub weights: &'a [f32],
    /// Consecutive rows that share weights.
    pub rows_per_item: usize,
}

/// A low-rank adapter, whose update is B A.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a> {
    /// `[rank, input_dim]`.
    pub a: &'a [f32],
    /// `[output_dim, rank]`.
    pub b: &'a [f32],
    /// 0: no adapter.
    pub rank: usize,
}

/// The C bank, with the projectors that its open task borrows.
pub(crate) struct Shared {
    handle: Handle<sys::dlora_bank>, // dropped first
    projectors: Mutex<BTreeMap<usize, Arc<Projector>>>,
}

/// Low-rank adapters of some linear layers, their training, and the end of a task.
pub struct Bank {
    shared: Arc<Shared>,
}

impl Bank {
    /// A bank for linear layers.
    pub fn new(sites: &[Site]) -> Result<Bank> {
        Bank::with_options(sites, &BankOptions::new())
    }

    /// A bank for linear layers.
    pub fn with_options(sites: &[Site], options: &BankOptions) -> Result<Bank> {
        let raw: Vec<_> = sites
            .iter()
            .map(|site| sys::dlora_site {
                input_dim: site.input_dim,
                output_dim: site.output_dim,
                block: site.block,
                projection: site.projection.bits(),
            })
            .collect();
        // SAFETY: the sites are copied; a struct that was initialised.
        let handle =
            Handle::create(|out| unsafe { sys::dlora_bank_create(out, raw.as_ptr(), raw.len(), &options.raw) })?;
        Ok(Bank::of(handle))
    }

    /// Reads a bank that [`save`](Bank::save) wrote.
    pub fn load(path: impl AsRef<Path>, options: &BankOptions) -> Result<Bank> {
        let path = c_path(path.as_ref())?;
        // SAFETY: a path, and a struct that was initialised.
        let handle = Handle::create(|out| unsafe { sys::dlora_bank_load(out, path.as_ptr(), &options.raw) })?;
        Ok(Bank::of(handle))
    }

    pub(crate) fn of(handle: Handle<sys::dlora_bank>) -> Bank {
        Bank { shared: Arc::new(Shared { handle, projectors: Mutex::default() }) }
    }

    /// Keeps the C bank alive, for a session that has its address.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Whether this is the bank behind `shared`.
    pub(crate) fn is(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    pub(crate) fn raw(&self) -> *const sys::dlora_bank {
        self.shared.handle.get()
    }

    /// Exclusive: others that hold `shared` only keep it alive.
    pub(crate) fn raw_mut(&mut self) -> *mut sys::dlora_bank {
        self.shared.handle.get() as *mut sys::dlora_bank
    }

    /// Changes the projectors that the C bank borrows.
    fn lent<R>(&mut self, change: impl FnOnce(&mut BTreeMap<usize, Arc<Projector>>) -> R) -> R {
        change(&mut self.shared.projectors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Number of sites.
    pub fn num_sites(&self) -> usize {
        // SAFETY: a live bank; so in the next one.
        unsafe { sys::dlora_bank_num_sites(self.raw()) }
    }

    /// Number of finished tasks.
    pub fn num_tasks(&self) -> usize {
        unsafe { sys::dlora_bank_num_tasks(self.raw()) }
    }

    /// A site as given at creation.
    pub fn site(&self, site: usize) -> Result<Site> {
        let mut raw = sys::dlora_site { input_dim: 0, output_dim: 0, block: 0, projection: 0 };
        // SAFETY: a live bank.
        check(unsafe { sys::dlora_bank_get_site(self.raw(), site, &mut raw) })?;
        Ok(Site {
            input_dim: raw.input_dim,
            output_dim: raw.output_dim,
            block: raw.block,
            projection: Projections::of(raw.projection),
        })
    }

    /// Opens a task whose pairs have rank 0 at every site.
    pub fn begin_task(&mut self) -> Result<()> {
        // SAFETY: a live bank.
        check(unsafe { sys::dlora_bank_begin_task(self.raw_mut()) })
    }

    /// Rows of A as a pointer and their number; none for an empty slice.
    fn factor<'a>(&self, site: usize, a: &'a (impl Rows + ?Sized)) -> Result<(&'a [f32], usize)> {
        let columns = self.site(site)?.input_dim;
        if a.values()?.is_empty() {
            return Ok((&[], 0));
        }
        rows_of("a", a, columns)
    }

    /// Sets the open task's orthogonal pair at a site: `a` `[rank, input_dim]` is fixed, and B' is trained from 0. With
    /// a projector A' is trained too, and every step is projected. No rows remove the pair.
    ///
    /// The projector is shared until the task ends. While it is shared nobody can change it.
    pub fn set_orthogonal(
        &mut self,
        site: usize,
        a: &(impl Rows + ?Sized),
        projector: Option<Arc<Projector>>,
    ) -> Result<()> {
        let (values, rank) = self.factor(site, a)?;
        let borrowed = projector.as_deref().map_or(ptr::null(), Projector::raw);
        // SAFETY: rank rows of the site's input width. The projector is kept below for as long as the bank borrows it.
        check(unsafe { sys::dlora_bank_set_orthogonal(self.raw_mut(), site, values.as_ptr(), rank, borrowed) })?;
        self.lent(|projectors| match projector {
            Some(projector) => projectors.insert(site, projector),
            None => projectors.remove(&site),
        });
        Ok(())
    }

    /// Sets the open task's residual pair at a site in the same way; A is trained too with `train_a`.
    pub fn set_residual(&mut self, site: usize, a: &(impl Rows + ?Sized), train_a: bool) -> Result<()> {
        let (values, rank) = self.factor(site, a)?;
        // SAFETY: rank rows of the site's input width.
        check(unsafe { sys::dlora_bank_set_residual(self.raw_mut(), site, values.as_ptr(), rank, train_a.into()) })
    }

    /// The trained parameters of the open task and their gradients.
    pub fn parameters(&mut self) -> Result<(&mut [f32], &mut [f32])> {
        let (mut parameters, mut gradients, mut count) = (ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: two arrays of count values, which live until a call that needs the bank's mutable borrow.
        unsafe {
            let raw = self.raw_mut();
            check(sys::dlora_bank_get_parameters(raw, &mut parameters, &mut gradients, &mut count))?;
            if count == 0 {
                return Ok((&mut [], &mut []));
            }
            Ok((slice::from_raw_parts_mut(parameters, count), slice::from_raw_parts_mut(gradients, count)))
        }
    }

    /// Adds terms to `y` `[rows, output_dim]`, for `x` `[rows, input_dim]`.
    pub fn forward(
        &self,
        site: usize,
        x: &(impl Rows + ?Sized),
        terms: Terms,
        routing: Option<RowRouting<'_>>,
        y: &mut [f32],
    ) -> Result<()> {
        let widths = self.site(site)?;
        let (values, rows) = rows_of("x", x, widths.input_dim)?;
        expect_length("y", y.len() / widths.output_dim, rows)?;
        expect_length("y", y.len(), rows * widths.output_dim)?;
        let (weights, rows_per_item) = match routing {
            None => (ptr::null(), 1),
            Some(routing) => {
                if routing.rows_per_item == 0 || rows % routing.rows_per_item != 0 {
                    let sentence = format!("{} rows are no multiple of {}", rows, routing.rows_per_item);
                    return Err(Error::argument(sentence));
                }
                let items = rows / routing.rows_per_item;
                expect_length("routing", routing.weights.len(), items * self.num_tasks())?;
                (routing.weights.as_ptr(), routing.rows_per_item)
            }
        };
        // SAFETY: all arrays have the sizes that the library expects.
        check(unsafe {
            sys::dlora_bank_forward(
                self.raw(),
                site,
                values.as_ptr(),
                rows,
                terms.bits(),
                weights,
                rows_per_item,
                y.as_mut_ptr(),
            )
        })
    }

    /// Adds the gradients of the open task's factors at a site, and to `dx` `[rows, input_dim]` that of the input.
    pub fn backward(
        &mut self,
        site: usize,
        x: &(impl Rows + ?Sized),
        dy: &(impl Rows + ?Sized),
        terms: Terms,
        dx: Option<&mut [f32]>,
    ) -> Result<()> {
        let widths = self.site(site)?;
        let (values, rows) = rows_of("x", x, widths.input_dim)?;
        let (dy, same) = rows_of("dy", dy, widths.output_dim)?;
        expect_length("dy", same, rows)?;
        let dx = match dx {
            None => ptr::null_mut(),
            Some(dx) => {
                expect_length("dx", dx.len(), values.len())?;
                dx.as_mut_ptr()
            }
        };
        let raw = self.raw_mut();
        // SAFETY: all arrays have the sizes that the library expects.
        check(unsafe { sys::dlora_bank_backward(raw, site, values.as_ptr(), dy.as_ptr(), rows, terms.bits(), dx) })
    }

    /// Takes one optimizer step with the gradients and sets these to 0.
    pub fn step(&mut self, learning_rate: f32) -> Result<()> {
        // SAFETY: a live bank, whose projectors are alive too.
        check(unsafe { sys::dlora_bank_step(self.raw_mut(), learning_rate) })
    }

    /// Sets the fractions of both updates merged into M at the end of the task, and ends training.
    pub fn set_merge_fractions(&mut self, orthogonal: f32, residual: f32) -> Result<()> {
        // SAFETY: a live bank.
        check(unsafe { sys::dlora_bank_set_merge_fractions(self.raw_mut(), orthogonal, residual) })
    }

    /// Ends the task: M gets the merge fractions of both updates, and the rest of the residual pair becomes an adapter.
    pub fn commit_task(&mut self) -> Result<()> {
        // SAFETY: a live bank, which gives its projectors back.
        check(unsafe { sys::dlora_bank_commit_task(self.raw_mut()) })?;
        self.lent(BTreeMap::clear);
        Ok(())
    }

    /// Drops the open task.
    pub fn discard_task(&mut self) -> Result<()> {
        // SAFETY: a live bank, which gives its projectors back.
        check(unsafe { sys::dlora_bank_discard_task(self.raw_mut()) })?;
        self.lent(BTreeMap::clear);
        Ok(())
    }

    /// M of a site, `[output_dim, input_dim]`; None while it is zero.
    pub fn merged(&self, site: usize) -> Result<Option<&[f32]>> {
        let widths = self.site(site)?;
        let mut merged = ptr::null();
        // SAFETY: M has these sizes and lives until a call that needs the bank's mutable borrow.
        unsafe {
            check(sys::dlora_bank_get_merged(self.raw(), site, &mut merged))?;
            Ok((!merged.is_null()).then(|| slice_of(merged, widths.output_dim * widths.input_dim)))
        }
    }

    /// The residual adapter of a finished task at a site.
    pub fn residual(&self, site: usize, task: i64) -> Result<Adapter<'_>> {
        let widths = self.site(site)?;
        let mut raw = sys::dlora_adapter { a: ptr::null(), b: ptr::null(), rank: 0 };
        // SAFETY: the factors have these sizes and live until a call that needs the bank's mutable borrow.
        unsafe {
            check(sys::dlora_bank_get_residual(self.raw(), site, task, &mut raw))?;
            Ok(Adapter {
                a: slice_of(raw.a, raw.rank * widths.input_dim),
                b: slice_of(raw.b, widths.output_dim * raw.rank),
                rank: raw.rank,
            })
        }
    }

    /// Writes the finished tasks, atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = c_path(path.as_ref())?;
        // SAFETY: a live bank and a path.
        check(unsafe { sys::dlora_bank_save(self.raw(), path.as_ptr()) })
    }
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bank({} sites, {} tasks)", self.num_sites(), self.num_tasks())
    }
}
