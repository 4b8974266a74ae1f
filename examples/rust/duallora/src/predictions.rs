//! An iterator over predictions, which runs images in batches.
// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::iter::Peekable;

use crate::error::{Error, Result, Status};
use crate::images::{Image, IntoImage};
use crate::learner::Learner;
use crate::predictor::Prediction;

/// Made by [`Learner::predictions`].
pub struct Predictions<'a, I: Iterator>
where
    I::Item: IntoImage,
{
    learner: &'a Learner,
    images: Peekable<Images<I>>,
    batch: usize,
    ready: VecDeque<Result<Prediction>>,
}

struct Images<I>(I);

impl<I: Iterator> Iterator for Images<I>
where
    I::Item: IntoImage,
{
    type Item = Result<Image>;

    fn next(&mut self) -> Option<Result<Image>> {
        let image = self.0.next()?.into_image();
        Some(image.map_err(|error| Error::new(Status::Io, "an image could not be read").caused_by(error)))
    }
}

impl<'a, I: Iterator> Predictions<'a, I>
where
    I::Item: IntoImage,
{
    pub(crate) fn new(learner: &'a Learner, images: I, batch: usize) -> Predictions<'a, I> {
        Predictions { learner, images: Images(images).peekable(), batch: batch.max(1), ready: VecDeque::new() }
    }

    fn predict(&mut self, first: Image) {
        let mut images = vec![first];
        while images.len() < self.batch {
            let next = self.images.next_if(|next| matches!(next, Ok(image) if image.is_like(&images[0])));
            match next {
                Some(Ok(image)) => images.push(image),
                _ => break,
            }
        }
        let mut all = images[0].clone();
        images[1..].iter().for_each(|image| all.append(image));
        match self.learner.predict(&all.batch_of(images.len())) {
            Ok(predictions) => self.ready.extend(predictions.into_iter().map(Ok)),
            // Some image is at fault, and the others have predictions.
            Err(_) => self.ready.extend(images.iter().map(|image| self.learner.predict_one(&image.view()))),
        }
    }
}

impl<I: Iterator> Iterator for Predictions<'_, I>
where
    I::Item: IntoImage,
{
    type Item = Result<Prediction>;

    fn next(&mut self) -> Option<Result<Prediction>> {
        if self.ready.is_empty() {
            match self.images.next()? {
                Ok(image) => self.predict(image),
                Err(error) => return Some(Err(error)),
            }
        }
        self.ready.pop_front()
    }
}
