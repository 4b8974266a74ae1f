//! Structs that the library fills: reports, evaluations, open tasks and times.
// SPDX-License-Identifier: Apache-2.0

use duallora_sys as sys;

use crate::enums::Phase;
use crate::error::{check, Result};

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident of $raw:ident by $init:ident {
        $($(#[$member_doc:meta])* $member:ident: $type:ty,)*
    })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$member_doc])* pub $member: $type,)*
        }

        impl $name {
            /// That which a function fills in.
            pub(crate) fn filled_by(fill: impl FnOnce(*mut sys::$raw) -> sys::dlora_status) -> Result<$name> {
                // SAFETY: all members are numbers, and the struct has the size told.
                let mut raw: sys::$raw = unsafe { std::mem::zeroed() };
                check(unsafe { sys::$init(&mut raw, std::mem::size_of_val(&raw)) })?;
                check(fill(&mut raw))?;
                Ok($name { $($member: raw.$member,)* })
            }
        })*
    };
}

records! {
    /// Summary of one learned task.
    TaskReport of dlora_task_report by dlora_task_report_init {
        /// From 0.
        task: i64,
        /// Of the task.
        num_classes: usize,
        /// Of the task.
        num_images: usize,
        /// Optimizer steps.
        num_steps: usize,
        /// Mean over the first steps, at most 10; NaN without steps.
        first_loss: f64,
        /// Mean over the last steps, at most 10.
        last_loss: f64,
        /// Passes before training.
        seconds_observe: f64,
        /// Optimizer steps.
        seconds_train: f64,
        /// Passes after training and closed forms.
        seconds_statistics: f64,
        /// Directions in use, smallest over adapted inputs.
        used_directions_min: usize,
        /// Directions in use, largest over adapted inputs.
        used_directions_max: usize,
        /// Rank the orthogonal branch found room for, smallest over sites.
        rank_orthogonal_min: usize,
        /// Rank the orthogonal branch found room for, largest over sites.
        rank_orthogonal_max: usize,
        /// Images that compared the adapted network with the untouched backbone.
        evidence_images: usize,
        /// What learning gained over the untouched backbone, nats an image.
        evidence_gain: f64,
        /// Weight of the untouched backbone after this task.
        untouched_weight: f64,
    }
    /// Results of an evaluation. Accuracies in [0, 1]; NaN where undefined.
    Evaluation of dlora_evaluation by dlora_evaluation_init {
        /// Evaluated.
        num_images: usize,
        /// Images of classes not learned yet.
        num_skipped: usize,
        /// Class right, over all evaluated images.
        accuracy: f64,
        /// Task right.
        task_accuracy: f64,
        /// Class right among the true task's classes.
        accuracy_given_task: f64,
        /// Expected calibration error of the class probability.
        ece: f64,
        /// Expected calibration error of the task probability.
        task_ece: f64,
        /// Of the untouched backbone.
        untouched_accuracy: f64,
        /// Mean of the accuracy over all evaluated stages.
        average_accuracy: f64,
        /// Mean over earlier tasks of best minus present accuracy.
        forgetting: f64,
        /// Mean over earlier tasks of present accuracy minus that after learning.
        backward_transfer: f64,
    }
    /// Time that a handle has spent since its creation, in seconds.
    Profile of dlora_profile by dlora_profile_init {
        /// Images resized, augmented, normalised and cut into patches.
        preprocessing: f64,
        /// Products with the model's weights.
        products: f64,
        /// The bank's terms.
        adapters: f64,
        /// Scores, softmax and weighted values.
        attention: f64,
        /// Layer norms.
        norms: f64,
        /// GELU.
        activation: f64,
        /// Copies of the residual stream.
        copies: f64,
        /// Logits and cross-entropy of training steps.
        loss: f64,
        /// Updates of the trained parameters.
        optimizer: f64,
        /// Second moments and class statistics.
        observation: f64,
        /// Directions of a task.
        directions: f64,
        /// Ends of tasks.
        task_end: f64,
    }
}

/// Progress of an open task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenTask {
    /// Observed so far.
    pub num_classes: usize,
    /// Images observed before training.
    pub num_observed: usize,
    /// As told at its beginning.
    pub planned_steps: usize,
    /// Optimizer steps done.
    pub num_steps: usize,
    /// Images observed after training.
    pub num_observed_trained: usize,
    /// Images of its source; 0: a loop of your own.
    pub num_source_images: usize,
    /// What the task is at.
    pub phase: Phase,
}

impl OpenTask {
    /// That which a function fills in; None if no task is open.
    pub(crate) fn filled_by(
        fill: impl FnOnce(*mut sys::dlora_open_task) -> sys::dlora_status,
    ) -> Result<Option<OpenTask>> {
        // SAFETY: all members are numbers, and the struct has the size told.
        let mut raw: sys::dlora_open_task = unsafe { std::mem::zeroed() };
        check(unsafe { sys::dlora_open_task_init(&mut raw, std::mem::size_of_val(&raw)) })?;
        check(fill(&mut raw))?;
        Ok((raw.is_open != 0).then(|| OpenTask {
            num_classes: raw.num_classes,
            num_observed: raw.num_observed,
            planned_steps: raw.planned_steps,
            num_steps: raw.num_steps,
            num_observed_trained: raw.num_observed_trained,
            num_source_images: raw.num_source_images,
            phase: Phase::of(raw.phase),
        }))
    }
}
