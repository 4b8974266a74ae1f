//! A pre-trained Vision Transformer learns task after task on the machine where it runs. It forgets little and keeps no
//! old image. This is the Rust interface of the C library libduallora.
//!
//! ```no_run
//! # fn main() -> duallora::Result<()> {
//! # let (pixels, labels, one) = (vec![0u8; 10 * 32 * 32 * 3], [0; 10], vec![0u8; 32 * 32 * 3]);
//! use duallora::{Images, Learner, Model};
//!
//! let model = Model::load("vit.safetensors")?;
//! let mut learner = Learner::new(&model)?;
//! learner.learn_task(&Images::rgb8(&pixels, 10, 32, 32)?, &labels)?; // again for every new task
//! let prediction = learner.predict_one(&Images::rgb8(&one, 1, 32, 32)?)?;
//! println!("class {} ({:.0} %)", prediction.class, 100.0 * prediction.class_probability);
//! learner.save("device.safetensors")?;
//! # Ok(()) }
//! ```
//!
//! # Handles
//!
//! | type | what it is |
//! |---|---|
//! | [`Model`] | the frozen Vision Transformer |
//! | [`Learner`] | the whole method; uses all others, which also work without it |
//! | [`Bank`] | low-rank adapters of linear layers |
//! | [`Projector`] | the directions used by finished tasks |
//! | [`Predictor`] | class, task and confidence from features |
//! | [`Session`] | forward and backward pass of a model with a bank |
//!
//! A learner or session keeps its model alive, so that both can be members of one struct.
//!
//! # Threads
//!
//! Every handle is [`Send`] and [`Sync`]. What `&self` offers, many threads may do at once: predict on one learner,
//! embed on one model. What changes a handle takes `&mut self`.
//!
//! # Errors and panics
//!
//! Functions return an [`Error`] with a [`Status`] and a sentence. A handle is as it was before a failed call. Panics
//! of closures do not reach the C library: the call is cancelled, and the panic goes on when it has returned.
//!
//! # Features
//!
//! - `vendored` builds the C library by CMake and links it statically.
//! - `ndarray` takes and gives its arrays.
//! - `image` takes its images.
// SPDX-License-Identifier: Apache-2.0
#![warn(missing_docs)]

mod arrays;
mod bank;
mod callbacks;
mod enums;
mod error;
mod handle;
mod images;
mod inspect;
mod learner;
mod model;
mod options;
mod predictions;
mod predictor;
mod projector;
mod records;
mod session;
mod version;

pub use arrays::{Matrix, Rows};
pub use bank::{Adapter, Bank, BankOptions, RowRouting, Site};
pub use callbacks::Progress;
pub use enums::*;
pub use error::{BoxError, Error, Result, Status};
pub use handle::Borrowed;
pub use images::{Image, Images, IntoImage, Source};
pub use inspect::{inspect, Entry};
pub use learner::Learner;
pub use model::{Model, ModelInfo, ModelOptions, Setting};
pub use options::{FloatValue, IntegerValue, LearnerOptions, OptionInfo, OptionValue};
pub use predictions::Predictions;
pub use predictor::{Components, LinearWeights, Posterior, Prediction, Predictor, PredictorOptions};
pub use projector::Projector;
pub use records::{Evaluation, OpenTask, Profile, TaskReport};
pub use session::{Session, SessionOptions};
pub use version::{build_info, version};
