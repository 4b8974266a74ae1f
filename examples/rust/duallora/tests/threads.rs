//! What CONVENTIONS promises about threads: many may use a handle by shared references, one changes it.
// SPDX-License-Identifier: Apache-2.0

mod support;

use std::sync::{Arc, Barrier};
use std::thread;

use duallora::{
    Bank, BankOptions, Borrowed, Error, Image, Images, Learner, LearnerOptions, Model, ModelOptions, Predictor,
    PredictorOptions, Projector, Session, SessionOptions,
};
use support::{model, options, Batch};

const THREADS: usize = 8;

/// Compiles only if all of it may move to other threads and be shared by them.
const _: fn() = || {
    fn both<T: Send + Sync>() {}
    both::<Model>();
    both::<Learner>();
    both::<Bank>();
    both::<Projector>();
    both::<Predictor>();
    both::<Session>();
    both::<Borrowed<'static, Bank>>();
    both::<Images<'static>>();
    both::<Image>();
    both::<Error>();
    both::<LearnerOptions>();
    both::<ModelOptions>();
    both::<BankOptions>();
    both::<PredictorOptions>();
    both::<SessionOptions>();
};

/// Compiles only if T is not Clone: two owners of one handle could change it at once. `_` is ambiguous for a Clone type.
macro_rules! assert_not_clone {
    ($($type:ty),*) => {
        $(const _: fn() = || {
            trait AmbiguousIfClone<A> {
                fn some_item() {}
            }
            impl<T: ?Sized> AmbiguousIfClone<()> for T {}
            struct IsClone;
            impl<T: Clone> AmbiguousIfClone<IsClone> for T {}
            let _ = <$type as AmbiguousIfClone<_>>::some_item;
        };)*
    };
}
assert_not_clone!(Learner, Bank, Projector, Predictor, Session);

#[test]
fn eight_threads_predict_on_one_learner() {
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    let batch = Batch::of(&[0, 1], 8, 0);
    learner.learn_task(&batch.images(), &batch.labels).unwrap();
    let test = Batch::of(&[0, 1], 8, 400);
    let expected = learner.predict(&test.images()).unwrap();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..5 {
                    assert_eq!(learner.predict(&test.images()).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn learners_on_one_model_learn_in_threads_of_their_own() {
    let model = model();
    let threads: Vec<_> = (0..4)
        .map(|i| {
            let model = model.clone();
            thread::spawn(move || {
                let mut learner = Learner::with_options(&model, &options()).unwrap();
                let batch = Batch::of(&[0, 1], 6, 10 * i);
                learner.learn_task(&batch.images(), &batch.labels).unwrap();
                learner // moves back to this thread
            })
        })
        .collect();
    drop(model);
    for thread in threads {
        assert_eq!(thread.join().unwrap().num_tasks(), 1);
    }
}

#[test]
fn handles_of_features_are_shared_too() {
    let mut predictor = Predictor::new(4).unwrap();
    let features: Vec<f32> = (0..80).map(|i| ((i * 37 % 11) as f32) + if i < 40 { 0.0 } else { 30.0 }).collect();
    let labels: Vec<i64> = (0..20).map(|i| (i >= 10) as i64).collect();
    predictor.observe(&features, &labels).unwrap();
    predictor.commit_task().unwrap();
    let predictor = Arc::new(predictor);
    let expected = predictor.predict(&features).unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (predictor, features, expected) = (predictor.clone(), features.clone(), expected.clone());
            thread::spawn(move || assert_eq!(predictor.predict(&features).unwrap(), expected))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
