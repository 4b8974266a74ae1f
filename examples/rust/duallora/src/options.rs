//! Options of a learner, set by name or by typed setters. Both go through the library's table of options, which knows
//! types, ranges, defaults and words.
// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::os::raw::c_char;

use duallora_sys as sys;

use crate::enums::{
    Auto, ClassScores, FeatureLayers, FirstBlock, Flip, LossClasses, Optimizer, OptionScope, OptionType, Projections,
    Readout, ResidualBasis, Routing, Schedule, Tokens,
};
use crate::error::{check, Error, Result, Status};
use crate::handle::{c_text, text_of};
use crate::model::Model;

/// Description of one option.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OptionInfo {
    /// Name, as [`LearnerOptions::set`] takes it.
    pub name: String,
    /// Words of a choice or set; of another type names of -1, -2, ...
    pub choices: Vec<String>,
    /// One line.
    pub help: String,
    /// Default.
    pub default_value: f64,
    /// Value of [`LearnerOptions::paper`].
    pub paper_value: f64,
    /// Values from here ...
    pub least: f64,
    /// ... to here are allowed, and those that `choices` names.
    pub greatest: f64,
    /// Whether `least` itself is not allowed.
    pub above_least: bool,
    /// Type.
    pub kind: OptionType,
    /// When it may change.
    pub scope: OptionScope,
}

impl OptionInfo {
    /// All options that the library has, in its order.
    pub fn all() -> Vec<OptionInfo> {
        // SAFETY: a plain number.
        (0..unsafe { sys::dlora_option_count() }).filter_map(OptionInfo::at).collect()
    }

    fn at(index: usize) -> Option<OptionInfo> {
        // SAFETY: numbers and pointers; the strings that the library sets are static.
        unsafe {
            let mut raw: sys::dlora_option_info = std::mem::zeroed();
            check(sys::dlora_option_info_init(&mut raw, std::mem::size_of_val(&raw))).ok()?;
            check(sys::dlora_option_get_info(index, &mut raw)).ok()?;
            let choices = text_of(raw.choices).unwrap_or_default();
            Some(OptionInfo {
                name: text_of(raw.name)?.into_owned(),
                choices: choices.split('|').filter(|word| !word.is_empty()).map(String::from).collect(),
                help: text_of(raw.help)?.into_owned(),
                default_value: raw.default_value,
                paper_value: raw.paper_value,
                least: raw.least,
                greatest: raw.greatest,
                above_least: raw.above_least != 0,
                kind: OptionType::of(raw.type_),
                scope: OptionScope::of(raw.scope),
            })
        }
    }

    fn named(name: &str) -> Option<OptionInfo> {
        OptionInfo::all().into_iter().find(|info| info.name == name)
    }
}

/// A value of an option.
pub trait OptionValue {
    /// As the library reads it.
    fn text(&self, option: Option<&OptionInfo>) -> String;
}

/// A value of a whole-number option: `i32`, and [`Auto`] or [`FirstBlock`] where the option knows it.
pub trait IntegerValue: OptionValue {}
/// A value of a real option: `f32`, and [`Auto`] where the option knows it.
pub trait FloatValue: OptionValue {}

macro_rules! plain_values {
    ($($type:ty)*) => {
        $(impl OptionValue for $type {
            fn text(&self, _: Option<&OptionInfo>) -> String {
                self.to_string()
            }
        })*
    };
}

plain_values!(i32 usize u64 f32 bool str String &str);

impl IntegerValue for i32 {}
impl FloatValue for f32 {}

impl OptionValue for Auto {
    fn text(&self, _: Option<&OptionInfo>) -> String {
        "auto".into()
    }
}

impl IntegerValue for Auto {}
impl FloatValue for Auto {}

impl OptionValue for FirstBlock {
    fn text(&self, option: Option<&OptionInfo>) -> String {
        let index = usize::try_from(-1 - self.code()).ok();
        word(option, index).unwrap_or_else(|| self.code().to_string())
    }
}

impl IntegerValue for FirstBlock {}

fn word(option: Option<&OptionInfo>, index: Option<usize>) -> Option<String> {
    option?.choices.get(index?).cloned()
}

macro_rules! choice_values {
    ($($type:ident)*) => {
        $(impl OptionValue for $type {
            fn text(&self, option: Option<&OptionInfo>) -> String {
                word(option, usize::try_from(self.code()).ok()).unwrap_or_else(|| self.code().to_string())
            }
        })*
    };
}

choice_values!(ClassScores FeatureLayers Flip LossClasses Optimizer Readout ResidualBasis Routing Schedule Tokens);

impl OptionValue for Projections {
    fn text(&self, option: Option<&OptionInfo>) -> String {
        let words = option.map_or(&[][..], |option| &option.choices);
        let chosen: Vec<&str> = words
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.bits() & 1 << bit != 0)
            .map(|(_, word)| word.as_str())
            .collect();
        chosen.join(",")
    }
}

/// Options of a [`Learner`](crate::Learner), from the defaults.
///
/// Typed setters keep the first mistake, which the call that uses the options then returns. Text from users is checked
/// at once by [`set`](LearnerOptions::set).
///
/// ```
/// # fn main() -> duallora::Result<()> {
/// use duallora::{Auto, LearnerOptions, Projections, Routing};
///
/// let mut options = LearnerOptions::new()
///     .epochs(Auto)
///     .learning_rate(1e-3)
///     .sites(Projections::KEY | Projections::VALUE)
///     .routing(Routing::Early);
/// options.set("batch_size", 8)?;
/// assert_eq!(options.get("routing")?, "early");
/// let error = options.set("learning_rat", "0.1").unwrap_err();
/// assert!(error.message().contains("did you mean learning_rate?"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct LearnerOptions {
    raw: sys::dlora_learner_options,
    mistake: Option<(Status, String)>,
}

// SAFETY: the only pointer is that of an allocator, which is always NULL.
unsafe impl Send for LearnerOptions {}
unsafe impl Sync for LearnerOptions {}

impl Default for LearnerOptions {
    fn default() -> LearnerOptions {
        LearnerOptions::new()
    }
}

type Init = unsafe extern "C" fn(*mut sys::dlora_learner_options, usize) -> sys::dlora_status;

impl LearnerOptions {
    /// The defaults.
    pub fn new() -> LearnerOptions {
        LearnerOptions::from_init(sys::dlora_learner_options_init)
    }

    /// The preset of the paper.
    pub fn paper() -> LearnerOptions {
        LearnerOptions::from_init(sys::dlora_learner_options_paper)
    }

    fn from_init(init: Init) -> LearnerOptions {
        // SAFETY: numbers and a pointer, and the struct has the size told.
        let mut options = LearnerOptions { raw: unsafe { std::mem::zeroed() }, mistake: None };
        let status = unsafe { init(&mut options.raw, std::mem::size_of_val(&options.raw)) };
        options.keep(check(status));
        options
    }

    /// Those that `fill` fills in.
    pub(crate) fn filled_by(
        fill: impl FnOnce(*mut sys::dlora_learner_options) -> sys::dlora_status,
    ) -> Result<LearnerOptions> {
        let mut options = LearnerOptions::new();
        check(fill(&mut options.raw))?;
        options.raw.allocator = std::ptr::null();
        Ok(options)
    }

    fn keep(&mut self, result: Result<()>) {
        if let (Err(error), None) = (result, &self.mistake) {
            self.mistake = Some((error.status(), error.message().into()));
        }
    }

    /// The struct, or the first mistake of a typed setter.
    pub(crate) fn raw(&self) -> Result<&sys::dlora_learner_options> {
        match &self.mistake {
            None => Ok(&self.raw),
            Some((status, message)) => Err(Error::new(*status, message.as_str())),
        }
    }

    /// Sets an option by its name. A name or value that the library does not know is refused, and changes nothing.
    pub fn set(&mut self, name: &str, value: impl OptionValue) -> Result<()> {
        let text = c_text(name, &value.text(OptionInfo::named(name).as_ref()))?;
        let name = c_text("the name of an option", name)?;
        // SAFETY: a struct that was initialised, and two texts.
        check(unsafe { sys::dlora_learner_options_set(&mut self.raw, name.as_ptr(), text.as_ptr()) })
    }

    /// The value of an option, as [`set`](LearnerOptions::set) reads it.
    pub fn get(&self, name: &str) -> Result<String> {
        let name = c_text("the name of an option", name)?;
        let mut text = [0 as c_char; 64]; // which are enough for every option
                                          // SAFETY: the library ends the text with NUL inside the size told.
        unsafe {
            check(sys::dlora_learner_options_get(&self.raw, name.as_ptr(), text.as_mut_ptr(), text.len()))?;
            Ok(text_of(text.as_ptr()).unwrap_or_default().into_owned())
        }
    }

    /// Checks whether a learner can be created with these options, on `model` if there is one.
    pub fn check(&self, model: Option<&Model>) -> Result<()> {
        let model = model.map_or(std::ptr::null(), Model::raw);
        // SAFETY: a struct that was initialised, and a live model or NULL.
        check(unsafe { sys::dlora_learner_options_check(self.raw()?, model) })
    }
}

impl fmt::Debug for LearnerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_map();
        for option in OptionInfo::all() {
            all.entry(&option.name, &self.get(&option.name).unwrap_or_default());
        }
        all.finish()
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $kind:ident;)*) => {
        impl LearnerOptions {
            $($(#[$doc])*
            pub fn $name(mut self, value: $type) -> Self {
                let result = self.set(stringify!($name), value);
                self.keep(result);
                self
            })*
        }

        #[cfg(test)]
        const SETTERS: &[(&str, OptionType)] = &[$((stringify!($name), OptionType::$kind)),*];
    };
}

setters! {
    /// Width of the random projection.
    random_features: usize, Size;
    /// Adapted projections.
    sites: Projections, Set;
    /// First adapted block.
    first_block: impl IntegerValue, Integer;
    /// Adapted blocks from there; 0: up to the last.
    num_blocks: i32, Integer;
    /// Features that statistics are kept on.
    feature_layers: FeatureLayers, Choice;
    /// How statistics become class scores.
    readout: Readout, Choice;
    /// Whether to keep statistics of the untouched backbone too.
    untouched_baseline: bool, Flag;
    /// Whether class frequencies enter the posterior.
    use_prior: bool, Flag;
    /// Shrinkage of the covariance.
    shrinkage: impl FloatValue, Float;
    /// Temperature of the posterior until one is fitted.
    temperature: f32, Float;
    /// Ridge of the random projection.
    ridge: f32, Float;
    /// Seed of all random numbers.
    seed: u64, Seed;
    /// Rank of the orthogonal adapters; 0: none.
    rank_orthogonal: usize, Size;
    /// Rank of the residual adapters; 0: none.
    rank_residual: usize, Size;
    /// Images of one optimizer step.
    batch_size: usize, Size;
    /// Images whose tokens enter a task's second moments; 0: all.
    max_observed_images: usize, Size;
    /// Passes over a task's images; 0: statistics alone.
    epochs: impl IntegerValue, Integer;
    /// Directions of the residual adapters.
    residual_basis: ResidualBasis, Choice;
    /// Classes in the training softmax.
    loss_classes: LossClasses, Choice;
    /// Whether to train the new classes' rows together with the adapters.
    train_head: bool, Flag;
    /// Whether to move the statistics of earlier tasks along with their features.
    drift_compensation: bool, Flag;
    /// Whether to train A' too, from random rows.
    train_orthogonal_a: bool, Flag;
    /// Tokens that enter the second moments.
    observed_tokens: Tokens, Choice;
    /// Update rule of training.
    optimizer: Optimizer, Choice;
    /// Learning rate over a task.
    schedule: Schedule, Choice;
    /// Where images are mirrored.
    flip: Flip, Choice;
    /// Random shifts by up to this many pixels.
    crop_padding: i32, Integer;
    /// Fraction of the input energy inside the used directions after a task.
    energy_threshold: f32, Float;
    /// Learning rate at the start of a task.
    learning_rate: f32, Float;
    /// Adam's decay of the mean gradient.
    beta1: f32, Float;
    /// Adam's decay of the mean square.
    beta2: f32, Float;
    /// Adam's epsilon.
    epsilon: f32, Float;
    /// Momentum of SGD.
    momentum: f32, Float;
    /// Decoupled weight decay.
    weight_decay: f32, Float;
    /// Fraction of a task's images excluded from training, which calibrate.
    held_out: f32, Float;
    /// Divides the logits in the training loss.
    loss_temperature: f32, Float;
    /// Least fraction of an image's area in a random crop; 1: no crops.
    crop_scale: f32, Float;
    /// Random changes of brightness and contrast by up to this part.
    jitter: f32, Float;
    /// Factor of the learning rate in tasks after the first.
    later_task_lr_scale: f32, Float;
    /// Fraction of the residual update merged into M.
    residual_merge_fraction: f32, Float;
    /// M gets t^-merge_decay of the t-th task's update.
    merge_decay: f32, Float;
    /// How the residual adapters that run are chosen.
    routing: Routing, Choice;
    /// Source of p(class | task) where residual adapters run.
    class_scores: ClassScores, Choice;
    /// Fraction of known images that are not called unknown.
    unknown_quantile: f32, Float;
    /// Threads that a call may use.
    threads: impl IntegerValue, Integer;
    /// Images that a thread runs at once.
    micro_batch: impl IntegerValue, Integer;
    /// Weight of the untouched backbone in predictions.
    untouched_weight: impl FloatValue, Float;
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_the_library_has_a_setter_of_its_type() {
        let options = OptionInfo::all();
        assert!(options.len() > 40);
        let found: Vec<_> = options.iter().map(|option| (option.name.as_str(), option.kind)).collect();
        assert_eq!(found, SETTERS);
    }
}
