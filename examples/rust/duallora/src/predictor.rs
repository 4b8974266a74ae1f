//! Class, task and confidence from features of any network.
// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::{fmt, ptr};

use duallora_sys as sys;

use crate::arrays::{expect_length, rows_of, Matrix, Rows};
use crate::enums::Readout;
use crate::error::{check, Error, Result, Status};
use crate::handle::{c_path, Handle};

/// Decision for one image or one row of features.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Prediction {
    /// Most probable class.
    pub class: i64,
    /// Most probable task, from 0.
    pub task: i64,
    /// In [0, 1], calibrated.
    pub class_probability: f32,
    /// In [0, 1].
    pub task_probability: f32,
    /// Higher: less like any learned class.
    pub unknown_score: f32,
    /// Whether the score is above the threshold.
    pub unknown: bool,
}

pub(crate) const NO_PREDICTION: sys::dlora_prediction = sys::dlora_prediction {
    class_id: 0,
    task: 0,
    class_probability: 0.0,
    task_probability: 0.0,
    unknown_score: 0.0,
    unknown: 0,
};

impl From<&sys::dlora_prediction> for Prediction {
    fn from(raw: &sys::dlora_prediction) -> Prediction {
        Prediction {
            class: raw.class_id,
            task: raw.task,
            class_probability: raw.class_probability,
            task_probability: raw.task_probability,
            unknown_score: raw.unknown_score,
            unknown: raw.unknown != 0,
        }
    }
}

/// Options of a [`Predictor`].
#[derive(Clone, Copy, Debug)]
pub struct PredictorOptions {
    raw: sys::dlora_predictor_options,
}

// SAFETY: the only pointer is that of an allocator, which is always NULL.
unsafe impl Send for PredictorOptions {}
unsafe impl Sync for PredictorOptions {}

impl Default for PredictorOptions {
    fn default() -> PredictorOptions {
        PredictorOptions::new()
    }
}

impl PredictorOptions {
    /// The defaults.
    pub fn new() -> PredictorOptions {
        // SAFETY: numbers and a pointer. A size that the library refused would leave 0, which it refuses later as well.
        unsafe {
            let mut raw: sys::dlora_predictor_options = std::mem::zeroed();
            sys::dlora_predictor_options_init(&mut raw, std::mem::size_of_val(&raw));
            PredictorOptions { raw }
        }
    }

    /// Seed of the random projection.
    pub fn seed(mut self, seed: u64) -> Self {
        self.raw.seed = seed;
        self
    }

    /// Width of the random projection.
    pub fn random_features(mut self, random_features: usize) -> Self {
        self.raw.random_features = random_features;
        self
    }

    /// How statistics become scores.
    pub fn readout(mut self, readout: Readout) -> Self {
        self.raw.readout = readout.code();
        self
    }

    /// Whether class frequencies enter the posterior.
    pub fn use_prior(mut self, use_prior: bool) -> Self {
        self.raw.use_prior = use_prior.into();
        self
    }

    /// Shrinkage of the covariance; without this call it follows the number of rows.
    pub fn shrinkage(mut self, shrinkage: f32) -> Self {
        self.raw.shrinkage = shrinkage;
        self
    }

    /// Temperature until one is fitted.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.raw.temperature = temperature;
        self
    }

    /// Ridge of the random projection.
    pub fn ridge(mut self, ridge: f32) -> Self {
        self.raw.ridge = ridge;
        self
    }
}

/// Components, one for each class of each finished task, in order of task and then of appearance.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Components {
    /// Tasks.
    pub tasks: Vec<i64>,
    /// Classes.
    pub classes: Vec<i64>,
    /// Numbers of rows.
    pub counts: Vec<u64>,
    /// Means `[num_components, dim]`.
    pub means: Matrix<f64>,
}

/// Posteriors of rows of features.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Posterior {
    /// `[n, num_components]`.
    pub component_log_probs: Matrix,
    /// `[n, num_classes]`.
    pub class_log_probs: Matrix,
    /// `[n, num_tasks]`.
    pub task_probs: Matrix,
    /// `[n]`.
    pub unknown_scores: Vec<f32>,
}

/// Scores of some columns of features as a linear layer, score = weight z + bias.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LinearWeights {
    /// `[K, columns]`.
    pub weight: Matrix,
    /// `[K]`.
    pub bias: Vec<f32>,
}

/// Statistics of features, and the readout computed from them in closed form.
///
/// ```
/// # fn main() -> duallora::Result<()> {
/// use duallora::Predictor;
///
/// let mut predictor = Predictor::new(2)?;
/// let features = [0.0, 0.1, 0.1, 0.0, 5.0, 5.1, 5.1, 5.0]; // four rows
/// predictor.observe(&features, &[7, 7, 8, 8])?;
/// predictor.commit_task()?;
/// let predictions = predictor.predict(&[5.05, 5.0])?;
/// assert_eq!(predictions[0].class, 8);
/// # Ok(()) }
/// ```
pub struct Predictor {
    handle: Handle<sys::dlora_predictor>,
}

impl Predictor {
    /// A predictor for features of width `dim`.
    pub fn new(dim: usize) -> Result<Predictor> {
        Predictor::with_options(dim, &PredictorOptions::new())
    }

    /// A predictor for features of width `dim`.
    pub fn with_options(dim: usize, options: &PredictorOptions) -> Result<Predictor> {
        // SAFETY: a struct that was initialised.
        let handle = Handle::create(|out| unsafe { sys::dlora_predictor_create(out, dim, &options.raw) })?;
        Ok(Predictor { handle })
    }

    /// Reads a predictor that [`save`](Predictor::save) wrote, with the options that it was saved with.
    pub fn load(path: impl AsRef<Path>) -> Result<Predictor> {
        Predictor::load_from(path.as_ref(), ptr::null())
    }

    /// Reads a predictor with other options. Readout, random features and seed must be those saved.
    pub fn load_with(path: impl AsRef<Path>, options: &PredictorOptions) -> Result<Predictor> {
        Predictor::load_from(path.as_ref(), &options.raw)
    }

    fn load_from(path: &Path, options: *const sys::dlora_predictor_options) -> Result<Predictor> {
        let path = c_path(path)?;
        // SAFETY: a path, and a struct that was initialised or NULL.
        let handle = Handle::create(|out| unsafe { sys::dlora_predictor_load(out, path.as_ptr(), options) })?;
        Ok(Predictor { handle })
    }

    /// A copy, with its open task.
    pub fn try_clone(&self) -> Result<Predictor> {
        // SAFETY: a live predictor.
        let handle = Handle::create(|out| unsafe { sys::dlora_predictor_clone(out, self.raw()) })?;
        Ok(Predictor { handle })
    }

    pub(crate) fn of(handle: Handle<sys::dlora_predictor>) -> Predictor {
        Predictor { handle }
    }

    fn raw(&self) -> *const sys::dlora_predictor {
        self.handle.get()
    }

    fn raw_mut(&mut self) -> *mut sys::dlora_predictor {
        self.handle.get_mut()
    }

    /// Width of the features.
    pub fn dim(&self) -> usize {
        // SAFETY: a live predictor; so in the next four.
        unsafe { sys::dlora_predictor_dim(self.raw()) }
    }

    /// Number of finished tasks.
    pub fn num_tasks(&self) -> usize {
        unsafe { sys::dlora_predictor_num_tasks(self.raw()) }
    }

    /// Number of different classes over all finished tasks.
    pub fn num_classes(&self) -> usize {
        unsafe { sys::dlora_predictor_num_classes(self.raw()) }
    }

    /// Number of components over all finished tasks.
    pub fn num_components(&self) -> usize {
        unsafe { sys::dlora_predictor_num_components(self.raw()) }
    }

    /// Temperature of the posterior.
    pub fn temperature(&self) -> f32 {
        unsafe { sys::dlora_predictor_temperature(self.raw()) }
    }

    /// Classes in order of first appearance, the columns of class probabilities.
    pub fn classes(&self) -> Result<Vec<i64>> {
        let mut classes = vec![0; self.num_classes()];
        // SAFETY: room for every class.
        check(unsafe { sys::dlora_predictor_get_classes(self.raw(), classes.as_mut_ptr()) })?;
        Ok(classes)
    }

    /// Components of finished tasks.
    pub fn components(&self) -> Result<Components> {
        let count = self.num_components();
        let mut found = Components {
            tasks: vec![0; count],
            classes: vec![0; count],
            counts: vec![0; count],
            means: Matrix::zeros(count, self.dim())?,
        };
        // SAFETY: room for every component.
        check(unsafe {
            sys::dlora_predictor_get_components(
                self.raw(),
                found.tasks.as_mut_ptr(),
                found.classes.as_mut_ptr(),
                found.counts.as_mut_ptr(),
                found.means.as_mut_ptr(),
            )
        })?;
        Ok(found)
    }

    /// Scatter `[dim, dim]` around the means of all components.
    pub fn scatter(&self) -> Result<Matrix<f64>> {
        let mut scatter = Matrix::zeros(self.dim(), self.dim())?;
        // SAFETY: room for dim * dim values.
        check(unsafe { sys::dlora_predictor_get_scatter(self.raw(), scatter.as_mut_ptr()) })?;
        Ok(scatter)
    }

    /// The matrix of the random projection: `[dim, random_features]`.
    pub fn projection(&self) -> Result<Matrix<f64>> {
        let mut columns = 0;
        // SAFETY: the first call asks for the size, and the second has room for it.
        unsafe {
            check(sys::dlora_predictor_get_projection(self.raw(), &mut columns, ptr::null_mut()))?;
            let mut matrix = Matrix::zeros(self.dim(), columns)?;
            check(sys::dlora_predictor_get_projection(self.raw(), &mut columns, matrix.as_mut_ptr()))?;
            Ok(matrix)
        }
    }

    fn labelled<'a>(&self, features: &'a (impl Rows + ?Sized), labels: &[i64]) -> Result<(&'a [f32], usize)> {
        let (values, count) = rows_of("features", features, self.dim())?;
        expect_length("labels", labels.len(), count)?;
        Ok((values, count))
    }

    /// Adds features `[n, dim]` with their labels to the open task.
    pub fn observe(&mut self, features: &(impl Rows + ?Sized), labels: &[i64]) -> Result<()> {
        let (values, count) = self.labelled(features, labels)?;
        // SAFETY: count rows and labels.
        check(unsafe { sys::dlora_predictor_observe(self.raw_mut(), values.as_ptr(), labels.as_ptr(), count) })
    }

    /// Adds features of images excluded from training.
    pub fn observe_held_out(&mut self, features: &(impl Rows + ?Sized), labels: &[i64]) -> Result<()> {
        let (values, count) = self.labelled(features, labels)?;
        // SAFETY: count rows and labels.
        check(unsafe { sys::dlora_predictor_observe_held_out(self.raw_mut(), values.as_ptr(), labels.as_ptr(), count) })
    }

    /// Adds features of images and of their mirror images, which count as one image each.
    pub fn observe_pair(
        &mut self,
        features: &(impl Rows + ?Sized),
        mirrored: &(impl Rows + ?Sized),
        labels: &[i64],
        held_out: bool,
    ) -> Result<()> {
        let (values, count) = self.labelled(features, labels)?;
        let (mirrored, _) = self.labelled(mirrored, labels)?;
        // SAFETY: count rows of either kind, and labels.
        check(unsafe {
            sys::dlora_predictor_observe_pair(
                self.raw_mut(),
                values.as_ptr(),
                mirrored.as_ptr(),
                labels.as_ptr(),
                count,
                held_out.into(),
            )
        })
    }

    /// Drops the open task.
    pub fn discard_task(&mut self) -> Result<()> {
        // SAFETY: a live predictor.
        check(unsafe { sys::dlora_predictor_discard_task(self.raw_mut()) })
    }

    /// Moves the statistics of finished tasks along with features that have drifted: `before` and `after` are columns
    /// `first_column ...` of the same images' features, `[n, columns]`.
    pub fn compensate_drift(
        &mut self,
        before: &(impl Rows + ?Sized),
        after: &(impl Rows + ?Sized),
        first_column: usize,
        columns: usize,
    ) -> Result<()> {
        let (before, count) = rows_of("before", before, columns)?;
        let (after, same) = rows_of("after", after, columns)?;
        expect_length("after", same, count)?;
        // SAFETY: count rows of either kind.
        check(unsafe {
            sys::dlora_predictor_compensate_drift(
                self.raw_mut(),
                before.as_ptr(),
                after.as_ptr(),
                count,
                first_column,
                columns,
            )
        })
    }

    /// Ends the open task.
    pub fn commit_task(&mut self) -> Result<()> {
        // SAFETY: a live predictor.
        check(unsafe { sys::dlora_predictor_commit_task(self.raw_mut()) })
    }

    /// Appends the finished tasks of another predictor as further tasks.
    pub fn append(&mut self, other: &Predictor) -> Result<()> {
        // SAFETY: two live predictors, which cannot be the same one.
        check(unsafe { sys::dlora_predictor_append(self.raw_mut(), other.raw()) })
    }

    /// Merges another predictor that has observed other images of the same tasks.
    pub fn merge(&mut self, other: &Predictor) -> Result<()> {
        // SAFETY: two live predictors, which cannot be the same one.
        check(unsafe { sys::dlora_predictor_merge(self.raw_mut(), other.raw()) })
    }

    /// Posteriors of features `[n, dim]`.
    pub fn posterior(&self, features: &(impl Rows + ?Sized)) -> Result<Posterior> {
        let (values, count) = rows_of("features", features, self.dim())?;
        let mut found = Posterior {
            component_log_probs: Matrix::zeros(count, self.num_components())?,
            class_log_probs: Matrix::zeros(count, self.num_classes())?,
            task_probs: Matrix::zeros(count, self.num_tasks())?,
            unknown_scores: vec![0.0; count],
        };
        // SAFETY: every array has count rows of the width that the library expects.
        check(unsafe {
            sys::dlora_predictor_posterior(
                self.raw(),
                values.as_ptr(),
                count,
                found.component_log_probs.as_mut_ptr(),
                found.class_log_probs.as_mut_ptr(),
                found.task_probs.as_mut_ptr(),
                found.unknown_scores.as_mut_ptr(),
            )
        })?;
        Ok(found)
    }

    /// Decides for features `[n, dim]`.
    pub fn predict(&self, features: &(impl Rows + ?Sized)) -> Result<Vec<Prediction>> {
        let (values, count) = rows_of("features", features, self.dim())?;
        let mut raw = vec![NO_PREDICTION; count];
        // SAFETY: count rows and predictions.
        check(unsafe { sys::dlora_predictor_predict(self.raw(), values.as_ptr(), count, raw.as_mut_ptr()) })?;
        Ok(raw.iter().map(Prediction::from).collect())
    }

    /// The Gaussian scores of finished tasks on `columns` columns from `first_column` on, as a linear layer.
    pub fn linear_weights(&self, first_column: usize, columns: usize) -> Result<LinearWeights> {
        let count = self.num_components();
        if count == 0 {
            return Err(Error::new(Status::State, "linear_weights needs a finished task"));
        }
        if columns > self.dim() {
            return Err(Error::argument(format!("columns is {}, the predictor has {}", columns, self.dim())));
        }
        let mut found = LinearWeights { weight: Matrix::zeros(count, columns)?, bias: vec![0.0; count] };
        // SAFETY: room for every component of finished tasks, which are all without the open one.
        check(unsafe {
            sys::dlora_predictor_linear_weights(
                self.raw(),
                first_column,
                columns,
                0,
                found.weight.as_mut_ptr(),
                found.bias.as_mut_ptr(),
            )
        })?;
        Ok(found)
    }

    /// Sets the temperature by hand.
    pub fn set_temperature(&mut self, temperature: f32) -> Result<()> {
        // SAFETY: a live predictor.
        check(unsafe { sys::dlora_predictor_set_temperature(self.raw_mut(), temperature) })
    }

    /// The unknown score that the fraction `quantile` of known features does not exceed.
    pub fn unknown_threshold(&self, quantile: f32) -> Result<f32> {
        let mut threshold = 0.0;
        // SAFETY: a live predictor.
        check(unsafe { sys::dlora_predictor_unknown_threshold(self.raw(), quantile, &mut threshold) })?;
        Ok(threshold)
    }

    /// Writes finished tasks, options and temperature, atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = c_path(path.as_ref())?;
        // SAFETY: a live predictor and a path.
        check(unsafe { sys::dlora_predictor_save(self.raw(), path.as_ptr()) })
    }
}

impl fmt::Debug for Predictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tasks, classes) = (self.num_tasks(), self.num_classes());
        write!(f, "Predictor(width {}, {} tasks, {} classes)", self.dim(), tasks, classes)
    }
}
