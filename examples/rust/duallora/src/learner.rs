//! The whole method: learns task after task, predicts, evaluates, and keeps all of it in one file.
// SPDX-License-Identifier: Apache-2.0

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::os::raw::c_void;
use std::panic::resume_unwind;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use duallora_sys as sys;

use crate::arrays::{expect_length, Matrix};
use crate::bank::Bank;
use crate::callbacks::{self, Callbacks, Progress};
use crate::enums::{Input, LogLevel};
use crate::error::{check, Error, Result, Status};
use crate::handle::{c_path, c_text, text_of, Borrowed, Handle};
use crate::images::{Failure, Images, IntoImage, Source};
use crate::model::Model;
use crate::options::LearnerOptions;
use crate::predictions::Predictions;
use crate::predictor::{Prediction, Predictor, NO_PREDICTION};
use crate::projector::Projector;
use crate::records::{Evaluation, OpenTask, Profile, TaskReport};

/// Learns task after task on a [`Model`], which it keeps alive. Calls that learn need it exclusively; many threads may
/// predict with a shared reference at once.
///
/// ```
/// # fn main() -> duallora::Result<()> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/data/tiny_timm_f32.safetensors");
/// use duallora::{Images, Learner, LearnerOptions, Model};
///
/// let model = Model::load(path)?;
/// let mut learner = Learner::with_options(&model, &LearnerOptions::new().epochs(1))?;
/// let pixels: Vec<u8> = (0..8 * 32 * 32 * 3).map(|i| if i / 12288 == 0 { 40 } else { 200 } + (i % 31) as u8).collect();
/// let images = Images::rgb8(&pixels, 8, 32, 32)?;
/// learner.learn_task(&images, &[3, 3, 3, 3, 5, 5, 5, 5])?; // again for every new task
/// learner.set_class_name(5, "bright")?;
/// let prediction = learner.predict_one(&Images::rgb8(&pixels[..3072], 1, 32, 32)?)?;
/// assert!(prediction.class == 3 || prediction.class == 5);
/// # Ok(()) }
/// ```
///
/// One thread learns at a time:
///
/// ```compile_fail
/// # fn learn(learner: &duallora::Learner, images: &duallora::Images, labels: &[i64]) {
/// learner.learn_task(images, labels).unwrap(); // needs &mut Learner
/// # }
/// ```
///
/// What is borrowed from a learner ends when it changes:
///
/// ```compile_fail
/// # fn change(learner: &mut duallora::Learner) {
/// let bank = learner.bank();
/// learner.discard_task().unwrap();
/// println!("{:?}", bank);
/// # }
/// ```
pub struct Learner {
    handle: Handle<sys::dlora_learner>, // dropped first
    callbacks: Arc<Callbacks>,
    model: Model,
}

impl Learner {
    /// A learner without tasks.
    pub fn new(model: &Model) -> Result<Learner> {
        Learner::with_options(model, &LearnerOptions::new())
    }

    /// A learner without tasks.
    pub fn with_options(model: &Model, options: &LearnerOptions) -> Result<Learner> {
        let options = options.raw()?;
        // SAFETY: the model lives as long as the learner, by the member below.
        let handle = Handle::create(|out| unsafe { sys::dlora_learner_create(out, model.raw(), options) })?;
        Ok(Learner::of(handle, model))
    }

    /// Loads a learner on the backbone that it was learned on, with the options that it was saved with. An open task is
    /// open again.
    pub fn load(model: &Model, path: impl AsRef<Path>) -> Result<Learner> {
        Learner::load_from(model, path.as_ref(), ptr::null())
    }

    /// As [`Learner::load`], with other options. Those fixed at creation must be the saved ones.
    pub fn load_with(model: &Model, path: impl AsRef<Path>, options: &LearnerOptions) -> Result<Learner> {
        Learner::load_from(model, path.as_ref(), options.raw()?)
    }

    fn load_from(model: &Model, path: &Path, options: *const sys::dlora_learner_options) -> Result<Learner> {
        let path = c_path(path)?;
        // SAFETY: the model lives as long as the learner, by the member below.
        let handle =
            Handle::create(|out| unsafe { sys::dlora_learner_load(out, model.raw(), path.as_ptr(), options) })?;
        Ok(Learner::of(handle, model))
    }

    fn of(handle: Handle<sys::dlora_learner>, model: &Model) -> Learner {
        Learner { handle, callbacks: Arc::default(), model: model.clone() }
    }

    fn raw(&self) -> *const sys::dlora_learner {
        self.handle.get()
    }

    fn raw_mut(&mut self) -> *mut sys::dlora_learner {
        self.handle.get_mut()
    }

    /// The result of a call in which closures may have run. A panic of one goes on here.
    fn finish(&self, status: sys::dlora_status, failure: Option<Failure>) -> Result<()> {
        let result = check(status);
        if let Some(panic) = self.callbacks.take_panic() {
            resume_unwind(panic);
        }
        match failure {
            None => result,
            Some(Failure::Panic(panic)) => resume_unwind(panic),
            Some(Failure::Error(error)) => result.map_err(|failed| failed.caused_by(error)),
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The options in force.
    pub fn options(&self) -> Result<LearnerOptions> {
        // SAFETY: a live learner.
        LearnerOptions::filled_by(|options| unsafe { sys::dlora_learner_get_options(self.raw(), options) })
    }

    /// Changes the options of later tasks and predictions.
    pub fn configure(&mut self, options: &LearnerOptions) -> Result<()> {
        let options: *const _ = options.raw()?;
        // SAFETY: a live learner, and a struct that was initialised.
        check(unsafe { sys::dlora_learner_configure(self.raw_mut(), options) })
    }

    // ---- closures ----

    /// Sets the closure that learning and evaluation call after every batch; `ControlFlow::Break` cancels the call. A
    /// panic cancels it too, and goes on when the call has returned.
    pub fn set_progress(&mut self, progress: impl FnMut(&Progress) -> ControlFlow<()> + Send + 'static) {
        self.callbacks.set_progress(Some(Box::new(progress)));
        let user = Arc::as_ptr(&self.callbacks) as *mut c_void;
        // SAFETY: the callbacks live as long as the learner. The call fails for NULL only.
        unsafe { sys::dlora_learner_set_progress(self.raw_mut(), Some(callbacks::progress), user) };
    }

    /// Removes the closure of [`set_progress`](Learner::set_progress).
    pub fn clear_progress(&mut self) {
        // SAFETY: a live learner.
        unsafe { sys::dlora_learner_set_progress(self.raw_mut(), None, ptr::null_mut()) };
        self.callbacks.set_progress(None);
    }

    /// Sets the closure that receives warnings and notes. A panic goes on when the library's call has returned.
    pub fn set_log(&mut self, log: impl Fn(LogLevel, &str) + Send + Sync + 'static) {
        self.callbacks.set_log(Some(Arc::new(log)));
        let user = Arc::as_ptr(&self.callbacks) as *mut c_void;
        // SAFETY: the callbacks live as long as the learner. The call fails for NULL only.
        unsafe { sys::dlora_learner_set_log(self.raw_mut(), Some(callbacks::log), user) };
    }

    /// Removes the closure of [`set_log`](Learner::set_log).
    pub fn clear_log(&mut self) {
        // SAFETY: a live learner.
        unsafe { sys::dlora_learner_set_log(self.raw_mut(), None, ptr::null_mut()) };
        self.callbacks.set_log(None);
    }

    // ---- learning ----

    /// Learns one task from images in memory. After an error, a cancelling closure or a panic the learner is as before.
    /// Resumes the task if a loaded learner has it open.
    pub fn learn_task(&mut self, images: &Images<'_>, labels: &[i64]) -> Result<TaskReport> {
        expect_length("labels", labels.len(), images.len())?;
        let learner = self.raw_mut();
        let mut status = 0;
        let report = TaskReport::filled_by(|report| {
            // SAFETY: a label for each image.
            status = unsafe { sys::dlora_learner_learn_task(learner, images.raw(), labels.as_ptr(), report) };
            status
        });
        self.finish(status, None)?;
        report
    }

    /// Learns one task from a source. It is read once before training, once per epoch, and once after training.
    pub fn learn_source(&mut self, source: &mut Source<'_>) -> Result<TaskReport> {
        let learner = self.raw_mut();
        let mut outcome = Ok((0, None));
        let report = TaskReport::filled_by(|report| {
            // SAFETY: the source lives during the call.
            outcome = source.lend(|source| unsafe { sys::dlora_learner_learn_source(learner, source, report) });
            outcome.as_ref().map_or(0, |(status, _)| *status)
        });
        let (status, failure) = outcome?;
        self.finish(status, failure)?;
        report
    }

    /// Saves the learner with its open task to `path` every `steps` optimizer steps, and when a call stops early with
    /// its task intact; 0: only then. After [`Learner::load`] the same call resumes the task.
    pub fn set_snapshot(&mut self, path: impl AsRef<Path>, steps: usize) -> Result<()> {
        let path = c_path(path.as_ref())?;
        // SAFETY: the path is copied.
        check(unsafe { sys::dlora_learner_set_snapshot(self.raw_mut(), path.as_ptr(), steps) })
    }

    /// No snapshots any more.
    pub fn clear_snapshot(&mut self) -> Result<()> {
        // SAFETY: a live learner.
        check(unsafe { sys::dlora_learner_set_snapshot(self.raw_mut(), ptr::null(), 0) })
    }

    /// The open task.
    pub fn open_task(&self) -> Result<Option<OpenTask>> {
        // SAFETY: a live learner.
        OpenTask::filled_by(|task| unsafe { sys::dlora_learner_get_open_task(self.raw(), task) })
    }

    /// Opens a task for a loop of one's own. `planned_steps` is for the cosine schedule; 0: constant learning rate.
    pub fn begin_task(&mut self, planned_steps: usize) -> Result<()> {
        // SAFETY: a live learner.
        let status = unsafe { sys::dlora_learner_begin_task(self.raw_mut(), planned_steps) };
        self.finish(status, None)
    }

    /// Adds images to the task's statistics, before training.
    pub fn observe(&mut self, images: &Images<'_>, labels: &[i64]) -> Result<()> {
        expect_length("labels", labels.len(), images.len())?;
        // SAFETY: a label for each image.
        let status = unsafe { sys::dlora_learner_observe(self.raw_mut(), images.raw(), labels.as_ptr()) };
        self.finish(status, None)
    }

    /// Begins the training of the open task.
    pub fn begin_training(&mut self) -> Result<()> {
        // SAFETY: a live learner.
        let status = unsafe { sys::dlora_learner_begin_training(self.raw_mut()) };
        self.finish(status, None)
    }

    /// Makes one optimizer step and returns the batch's loss.
    pub fn step(&mut self, images: &Images<'_>, labels: &[i64]) -> Result<f32> {
        expect_length("labels", labels.len(), images.len())?;
        let mut loss = 0.0;
        // SAFETY: a label for each image.
        let status = unsafe { sys::dlora_learner_step(self.raw_mut(), images.raw(), labels.as_ptr(), &mut loss) };
        self.finish(status, None)?;
        Ok(loss)
    }

    /// Adds images to the task's statistics again, with the trained adapters.
    pub fn observe_trained(&mut self, images: &Images<'_>, labels: &[i64]) -> Result<()> {
        expect_length("labels", labels.len(), images.len())?;
        // SAFETY: a label for each image.
        let status = unsafe { sys::dlora_learner_observe_trained(self.raw_mut(), images.raw(), labels.as_ptr()) };
        self.finish(status, None)
    }

    /// Closes the task.
    pub fn commit_task(&mut self) -> Result<TaskReport> {
        let learner = self.raw_mut();
        let mut status = 0;
        let report = TaskReport::filled_by(|report| {
            // SAFETY: a live learner.
            status = unsafe { sys::dlora_learner_commit_task(learner, report) };
            status
        });
        self.finish(status, None)?;
        report
    }

    /// Discards the open task; the learner is as it was before.
    pub fn discard_task(&mut self) -> Result<()> {
        // SAFETY: a live learner.
        let status = unsafe { sys::dlora_learner_discard_task(self.raw_mut()) };
        self.finish(status, None)
    }

    // ---- what it knows ----

    /// Number of finished tasks.
    pub fn num_tasks(&self) -> usize {
        // SAFETY: a live learner; so in the next two.
        unsafe { sys::dlora_learner_num_tasks(self.raw()) }
    }

    /// Number of classes.
    pub fn num_classes(&self) -> usize {
        unsafe { sys::dlora_learner_num_classes(self.raw()) }
    }

    /// Weight of the untouched backbone in predictions.
    pub fn untouched_weight(&self) -> f64 {
        unsafe { sys::dlora_learner_get_untouched_weight(self.raw()) }
    }

    /// Class ids in order of first appearance, the columns of class probabilities.
    pub fn classes(&self) -> Result<Vec<i64>> {
        let mut classes = vec![0; self.num_classes()];
        // SAFETY: room for every class.
        check(unsafe { sys::dlora_learner_get_classes(self.raw(), classes.as_mut_ptr()) })?;
        Ok(classes)
    }

    /// Names a class. The name is kept in the checkpoint.
    pub fn set_class_name(&mut self, class: i64, name: &str) -> Result<()> {
        let name = c_text("a class's name", name)?;
        // SAFETY: the name is copied.
        check(unsafe { sys::dlora_learner_set_class_name(self.raw_mut(), class, name.as_ptr()) })
    }

    /// The name of a class, if it has one.
    pub fn class_name(&self, class: i64) -> Option<Cow<'_, str>> {
        // SAFETY: borrowed until the next call that needs the learner's mutable borrow.
        unsafe { text_of(sys::dlora_learner_get_class_name(self.raw(), class)) }
    }

    /// Keeps a text of one's own in the checkpoint.
    pub fn set_note(&mut self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (c_text("a note's key", key)?, c_text("a note", value)?);
        // SAFETY: both are copied.
        check(unsafe { sys::dlora_learner_set_note(self.raw_mut(), key.as_ptr(), value.as_ptr()) })
    }

    /// Removes a note.
    pub fn remove_note(&mut self, key: &str) -> Result<()> {
        let key = c_text("a note's key", key)?;
        // SAFETY: NULL removes it.
        check(unsafe { sys::dlora_learner_set_note(self.raw_mut(), key.as_ptr(), ptr::null()) })
    }

    /// The text of a note, if there is one.
    pub fn note(&self, key: &str) -> Option<Cow<'_, str>> {
        let key = c_text("a note's key", key).ok()?;
        // SAFETY: borrowed until the next call that needs the learner's mutable borrow.
        unsafe { text_of(sys::dlora_learner_get_note(self.raw(), key.as_ptr())) }
    }

    // ---- prediction ----

    fn predict_raw(&self, images: &Images<'_>, out: &mut [sys::dlora_prediction], scores: *mut f32) -> Result<()> {
        expect_length("predictions", out.len(), images.len())?;
        // SAFETY: room for a prediction of each image; scores is NULL or has room for all classes of each.
        check(unsafe { sys::dlora_learner_predict(self.raw(), images.raw(), out.as_mut_ptr(), scores) })
    }

    /// Predicts class, task and confidence of each image.
    pub fn predict(&self, images: &Images<'_>) -> Result<Vec<Prediction>> {
        let mut raw = vec![NO_PREDICTION; images.len()];
        self.predict_raw(images, &mut raw, ptr::null_mut())?;
        Ok(raw.iter().map(Prediction::from).collect())
    }

    /// Predicts for a batch of one image.
    pub fn predict_one(&self, image: &Images<'_>) -> Result<Prediction> {
        let mut raw = [NO_PREDICTION];
        self.predict_raw(image, &mut raw, ptr::null_mut())?;
        Ok(Prediction::from(&raw[0]))
    }

    /// Predicts, with the log-probability of every class: `[count, num_classes]`.
    pub fn predict_with_scores(&self, images: &Images<'_>) -> Result<(Vec<Prediction>, Matrix)> {
        let mut raw = vec![NO_PREDICTION; images.len()];
        let mut scores = Matrix::zeros(images.len(), self.num_classes())?;
        self.predict_raw(images, &mut raw, scores.as_mut_ptr())?;
        Ok((raw.iter().map(Prediction::from).collect(), scores))
    }

    /// Predicts with the task of each image given.
    pub fn predict_with_tasks(&self, images: &Images<'_>, tasks: &[i64]) -> Result<(Vec<Prediction>, Matrix)> {
        expect_length("tasks", tasks.len(), images.len())?;
        let mut raw = vec![NO_PREDICTION; images.len()];
        let mut scores = Matrix::zeros(images.len(), self.num_classes())?;
        let to = scores.as_mut_ptr();
        // SAFETY: a task and room for each image.
        check(unsafe {
            let tasks = tasks.as_ptr();
            sys::dlora_learner_predict_with_tasks(self.raw(), images.raw(), tasks, raw.as_mut_ptr(), to)
        })?;
        Ok((raw.iter().map(Prediction::from).collect(), scores))
    }

    /// Predicts for images one after the other. Up to `batch` consecutive ones of one size are run together.
    ///
    /// Items are images, or results of reading them. Each gives one item: a prediction or an error.
    pub fn predictions<I>(&self, images: I, batch: usize) -> Predictions<'_, I::IntoIter>
    where
        I: IntoIterator,
        I::Item: IntoImage,
    {
        Predictions::new(self, images.into_iter(), batch)
    }

    /// Computes adapted features `[count, embed_dim]`. `tasks`: the task of each image whose residual adapters run, -1
    /// for none.
    pub fn embed(&self, images: &Images<'_>, tasks: Option<&[i64]>) -> Result<Matrix> {
        if let Some(tasks) = tasks {
            expect_length("tasks", tasks.len(), images.len())?;
        }
        let tasks = tasks.map_or(ptr::null(), <[i64]>::as_ptr);
        let mut features = Matrix::zeros(images.len(), self.model.info().embed_dim)?;
        // SAFETY: a task for each image or NULL, and room for all features.
        check(unsafe { sys::dlora_learner_embed(self.raw(), images.raw(), tasks, features.as_mut_ptr()) })?;
        Ok(features)
    }

    /// Evaluates the finished tasks on test images, and records the accuracies.
    pub fn evaluate(&mut self, source: &mut Source<'_>) -> Result<Evaluation> {
        let learner = self.raw_mut();
        let mut outcome = Ok((0, None));
        let evaluation = Evaluation::filled_by(|evaluation| {
            // SAFETY: the source lives during the call.
            outcome = source.lend(|source| unsafe { sys::dlora_learner_evaluate(learner, source, evaluation) });
            outcome.as_ref().map_or(0, |(status, _)| *status)
        });
        let (status, failure) = outcome?;
        self.finish(status, failure)?;
        evaluation
    }

    /// Accuracies `[num_tasks, num_tasks]`: row i has those after task i; NaN where nothing was evaluated.
    pub fn accuracy_matrix(&self) -> Result<Matrix<f64>> {
        let tasks = self.num_tasks();
        if tasks == 0 {
            return Err(Error::new(Status::State, "the learner has no finished task"));
        }
        let mut matrix = Matrix::zeros(tasks, tasks)?;
        // SAFETY: room for all tasks.
        check(unsafe { sys::dlora_learner_get_accuracy_matrix(self.raw(), matrix.as_mut_ptr()) })?;
        Ok(matrix)
    }

    // ---- the rest ----

    /// Saves the learner with its open task, atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = c_path(path.as_ref())?;
        // SAFETY: a live learner and a path.
        check(unsafe { sys::dlora_learner_save(self.raw(), path.as_ptr()) })
    }

    /// Writes an update of the backbone as a LoRA that PEFT opens, into a folder: what every image sees, or with `task`
    /// the residual adapter of this task alone.
    pub fn export_peft(&self, folder: impl AsRef<Path>, task: Option<i64>) -> Result<()> {
        let folder = c_path(folder.as_ref())?;
        let task = match task {
            None => sys::DLORA_AUTO.into(),
            Some(task) if task >= 0 => task,
            Some(task) => return Err(Error::argument(format!("task is {}, expected at least 0", task))),
        };
        // SAFETY: a live learner and a path.
        check(unsafe { sys::dlora_learner_export_peft(self.raw(), folder.as_ptr(), task) })
    }

    /// Writes the backbone with what every image sees merged into its weights, and a classifier, for timm and
    /// transformers, into a folder.
    pub fn export_backbone(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = c_path(folder.as_ref())?;
        // SAFETY: a live learner and a path.
        check(unsafe { sys::dlora_learner_export_backbone(self.raw(), folder.as_ptr()) })
    }

    /// Times of learning and of evaluations.
    pub fn profile(&self) -> Result<Profile> {
        // SAFETY: a live learner.
        Profile::filled_by(|profile| unsafe { sys::dlora_learner_get_profile(self.raw(), profile) })
    }

    /// The bank, for inspection.
    pub fn bank(&self) -> Option<Borrowed<'_, Bank>> {
        // SAFETY: borrowed until the next call that needs the learner's mutable borrow; so in the next two.
        let handle = Handle::borrow(unsafe { sys::dlora_learner_get_bank(self.raw()) })?;
        Some(Borrowed::new(Bank::of(handle)))
    }

    /// The statistics without residual adapters.
    pub fn predictor(&self) -> Option<Borrowed<'_, Predictor>> {
        let handle = Handle::borrow(unsafe { sys::dlora_learner_get_predictor(self.raw()) })?;
        Some(Borrowed::new(Predictor::of(handle)))
    }

    /// The used directions of one adapted input; None if it is not adapted.
    pub fn projector(&self, block: usize, input: Input) -> Option<Borrowed<'_, Projector>> {
        let handle = Handle::borrow(unsafe { sys::dlora_learner_get_projector(self.raw(), block, input.code()) })?;
        Some(Borrowed::new(Projector::of(handle)))
    }
}

impl fmt::Debug for Learner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Learner({} tasks, {} classes)", self.num_tasks(), self.num_classes())
    }
}
