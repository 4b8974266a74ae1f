//! The directions of one input that finished tasks use.
// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::{fmt, ptr, slice};

use duallora_sys as sys;

use crate::arrays::{rows_of, Matrix, Rows};
use crate::error::{check, Result};
use crate::handle::{c_path, Handle};

/// Orthonormal directions of one input in groups, one for each finished task, and the second moment of the open task.
///
/// ```
/// # fn main() -> duallora::Result<()> {
/// use duallora::Projector;
///
/// let mut projector = Projector::new(3)?;
/// projector.observe(&[1.0, 0.0, 0.0, 2.0, 0.0, 0.0])?; // two rows
/// projector.commit_task(0.95)?;
/// let mut gradient = [5.0, 6.0, 7.0];
/// projector.project(&mut gradient)?; // nothing along the direction in use
/// assert!(gradient[0].abs() < 1e-5 && gradient[1] == 6.0);
/// # Ok(()) }
/// ```
pub struct Projector {
    handle: Handle<sys::dlora_projector>,
}

type FindDirections = dyn Fn(*const sys::dlora_projector, usize, *mut f32, *mut usize) -> sys::dlora_status;

impl Projector {
    /// A projector without directions for inputs of width `dim`.
    pub fn new(dim: usize) -> Result<Projector> {
        // SAFETY: NULL means default options.
        let handle = Handle::create(|out| unsafe { sys::dlora_projector_create(out, dim, ptr::null()) })?;
        Ok(Projector { handle })
    }

    /// Reads a projector that [`save`](Projector::save) wrote.
    pub fn load(path: impl AsRef<Path>) -> Result<Projector> {
        let path = c_path(path.as_ref())?;
        // SAFETY: a path, and NULL for default options.
        let handle = Handle::create(|out| unsafe { sys::dlora_projector_load(out, path.as_ptr(), ptr::null()) })?;
        Ok(Projector { handle })
    }

    /// A copy, with its observations.
    pub fn try_clone(&self) -> Result<Projector> {
        // SAFETY: a live projector.
        let handle = Handle::create(|out| unsafe { sys::dlora_projector_clone(out, self.raw()) })?;
        Ok(Projector { handle })
    }

    pub(crate) fn of(handle: Handle<sys::dlora_projector>) -> Projector {
        Projector { handle }
    }

    pub(crate) fn raw(&self) -> *const sys::dlora_projector {
        self.handle.get()
    }

    fn raw_mut(&mut self) -> *mut sys::dlora_projector {
        self.handle.get_mut()
    }

    /// Width of the input.
    pub fn dim(&self) -> usize {
        // SAFETY: a live projector; so in the next three.
        unsafe { sys::dlora_projector_dim(self.raw()) }
    }

    /// Number of used directions.
    pub fn num_directions(&self) -> usize {
        unsafe { sys::dlora_projector_size(self.raw()) }
    }

    /// Number of finished tasks.
    pub fn num_tasks(&self) -> usize {
        unsafe { sys::dlora_projector_num_tasks(self.raw()) }
    }

    /// Rows observed since the last commit or discard.
    pub fn num_observed(&self) -> u64 {
        unsafe { sys::dlora_projector_num_observed(self.raw()) }
    }

    /// Adds rows `[n, dim]` to the second moment of the open task.
    pub fn observe(&mut self, rows: &(impl Rows + ?Sized)) -> Result<()> {
        let (values, count) = rows_of("x", rows, self.dim())?;
        // SAFETY: the array has count rows of the projector's width.
        check(unsafe { sys::dlora_projector_observe(self.raw_mut(), values.as_ptr(), count) })
    }

    /// Adds the observations of another projector of the same width.
    pub fn merge_observed(&mut self, other: &Projector) -> Result<()> {
        // SAFETY: two live projectors, which cannot be the same one.
        check(unsafe { sys::dlora_projector_merge_observed(self.raw_mut(), other.raw()) })
    }

    /// Drops the observations since the last commit.
    pub fn discard_task(&mut self) -> Result<()> {
        // SAFETY: a live projector.
        check(unsafe { sys::dlora_projector_discard_task(self.raw_mut()) })
    }

    fn find(&self, most: usize, call: &FindDirections) -> Result<Matrix> {
        let mut directions = Matrix::zeros(most.min(self.dim()), self.dim())?;
        let (mut found, most) = (0, directions.rows());
        check(call(self.raw(), most, directions.as_mut_ptr(), &mut found))?;
        Ok(directions.truncate(found))
    }

    /// The unused directions with most observed energy, at most `most`.
    pub fn unused_directions(&self, most: usize) -> Result<Matrix> {
        // SAFETY: `find` passes a live projector and room for k rows; so in the next two.
        self.find(most, &|raw, k, to, found| unsafe { sys::dlora_projector_unused_directions(raw, k, to, found) })
    }

    /// The first directions that [`commit_task`](Projector::commit_task) would add, at most `most`.
    pub fn task_directions(&self, energy_threshold: f32, most: usize) -> Result<Matrix> {
        self.find(most, &move |raw, k, to, found| unsafe {
            sys::dlora_projector_task_directions(raw, energy_threshold, k, to, found)
        })
    }

    /// The directions in use with most observed energy, at most `most`.
    pub fn used_directions(&self, most: usize) -> Result<Matrix> {
        self.find(most, &|raw, k, to, found| unsafe { sys::dlora_projector_used_directions(raw, k, to, found) })
    }

    /// Ends a task: adds as few directions as hold `energy_threshold` of the observed energy. Returns their number.
    pub fn commit_task(&mut self, energy_threshold: f32) -> Result<usize> {
        let mut added = 0;
        // SAFETY: a live projector.
        check(unsafe { sys::dlora_projector_commit_task(self.raw_mut(), energy_threshold, &mut added) })?;
        Ok(added)
    }

    /// The directions that a finished task added: rows of width `dim`.
    pub fn bases(&self, task: i64) -> Result<&[f32]> {
        let (mut bases, mut count) = (ptr::null(), 0);
        // SAFETY: the rows live until the next call that changes the projector, for which it must not be borrowed.
        unsafe {
            check(sys::dlora_projector_get_bases(self.raw(), task, &mut bases, &mut count))?;
            Ok(slice_of(bases, count * self.dim()))
        }
    }

    /// Removes from each row `[n, dim]` its part along used directions.
    pub fn project(&self, rows: &mut [f32]) -> Result<()> {
        let (_, count) = rows_of("x", &*rows, self.dim())?;
        // SAFETY: the array has count rows of the projector's width.
        check(unsafe { sys::dlora_projector_project(self.raw(), rows.as_mut_ptr(), count) })
    }

    /// Adds rows of a finished task to its mean energy fraction.
    pub fn calibrate(&mut self, task: i64, rows: &(impl Rows + ?Sized)) -> Result<()> {
        let (values, count) = rows_of("x", rows, self.dim())?;
        // SAFETY: the array has count rows of the projector's width.
        check(unsafe { sys::dlora_projector_calibrate(self.raw_mut(), task, values.as_ptr(), count) })
    }

    /// Routing weights by energy: `[n, num_tasks]`.
    pub fn route(&self, rows: &(impl Rows + ?Sized)) -> Result<Matrix> {
        let (values, count) = rows_of("x", rows, self.dim())?;
        let mut routing = Matrix::zeros(count, self.num_tasks())?;
        // SAFETY: both arrays have count rows of the widths that the library expects.
        check(unsafe { sys::dlora_projector_route(self.raw(), values.as_ptr(), count, routing.as_mut_ptr()) })?;
        Ok(routing)
    }

    /// Writes the finished tasks, atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = c_path(path.as_ref())?;
        // SAFETY: a live projector and a path.
        check(unsafe { sys::dlora_projector_save(self.raw(), path.as_ptr()) })
    }
}

/// # Safety
/// `values` has `count` values that live as long as the result, or is NULL.
pub(crate) unsafe fn slice_of<'a, T>(values: *const T, count: usize) -> &'a [T] {
    if values.is_null() || count == 0 {
        return &[];
    }
    slice::from_raw_parts(values, count)
}

impl fmt::Debug for Projector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Projector({} of {} directions, {} tasks)", self.num_directions(), self.dim(), self.num_tasks())
    }
}
