//! Panics and errors of closures end the call, and come out of it.
// SPDX-License-Identifier: Apache-2.0

mod support;

use std::error::Error as _;
use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::{fmt, fs};

use duallora::{inspect, Entry, Image, Learner, Phase, Source, Status};
use support::{backbone, model, options, Batch, Folder, PICTURE, SIDE};

fn learner() -> Learner {
    Learner::with_options(&model(), &options()).unwrap()
}

/// The text of a panic that leaves `call`.
fn panic_of(call: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(call)).expect_err("a panic");
    payload.downcast_ref::<&str>().expect("a panic with a literal").to_string()
}

fn learns(learner: &mut Learner) {
    let before = learner.num_tasks();
    let batch = Batch::of(&[0, 1], 6, 0);
    learner.learn_task(&batch.images(), &batch.labels).unwrap();
    assert_eq!(learner.num_tasks(), before + 1);
}

#[test]
fn a_panic_of_progress_goes_on_after_the_call_and_the_learner_lives() {
    let mut learner = learner();
    let batch = Batch::of(&[0, 1], 6, 0);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    learner.set_progress(move |progress| {
        counted.fetch_add(1, Ordering::Relaxed);
        if progress.phase == Phase::Train {
            panic!("in progress");
        }
        ControlFlow::Continue(())
    });
    let text = panic_of(|| drop(learner.learn_task(&batch.images(), &batch.labels)));
    assert_eq!(text, "in progress");
    assert!(calls.load(Ordering::Relaxed) > 1);
    assert_eq!(learner.num_tasks(), 0);
    assert_eq!(learner.open_task().unwrap(), None);
    learner.clear_progress();
    assert_eq!(Arc::strong_count(&calls), 1, "the closure is dropped");
    learns(&mut learner);

    learner.set_progress(|progress| match progress.phase {
        Phase::Evaluate => panic!("in an evaluation"),
        _ => ControlFlow::Continue(()),
    });
    let mut source = Source::of(batch.images(), &batch.labels).unwrap();
    assert_eq!(panic_of(|| drop(learner.evaluate(&mut source))), "in an evaluation");
}

#[test]
fn a_panic_of_log_goes_on_after_the_call() {
    let folder = Folder::new();
    let mut learner = learner();
    learner.set_snapshot(folder.path("s.safetensors"), 1).unwrap();
    learner.set_log(|_, _| panic!("in log"));
    let batch = Batch::of(&[0, 1], 6, 0);
    assert_eq!(panic_of(|| drop(learner.learn_task(&batch.images(), &batch.labels))), "in log");
    assert_eq!(learner.num_tasks(), 1, "a log closure cannot stop the call");
    learner.clear_log();
    learns(&mut learner);
}

#[test]
fn a_panic_of_a_source_goes_on_after_the_call() {
    let mut learner = learner();
    let batch = Batch::of(&[0, 1], 6, 0);
    let armed = AtomicBool::new(true);
    let mut source = Source::new(&batch.labels, |i| {
        if i == 7 && armed.load(Ordering::Relaxed) {
            panic!("in a source");
        }
        Image::rgb8(&batch.pixels[i * PICTURE..][..PICTURE], SIDE, SIDE)
    });
    assert_eq!(panic_of(|| drop(learner.learn_source(&mut source))), "in a source");
    assert_eq!(learner.num_tasks(), 0);
    armed.store(false, Ordering::Relaxed);
    learner.learn_source(&mut source).unwrap();
    armed.store(true, Ordering::Relaxed);
    assert_eq!(panic_of(|| drop(learner.evaluate(&mut source))), "in a source");
}

#[derive(Debug, PartialEq)]
struct Unplugged;

impl fmt::Display for Unplugged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the camera is unplugged")
    }
}

impl std::error::Error for Unplugged {}

#[test]
fn an_error_of_a_source_is_the_source_of_the_error() {
    let mut learner = learner();
    let batch = Batch::of(&[0, 1], 6, 0);
    let mut source = Source::new(&batch.labels, |i| match i {
        5 => Err(Unplugged),
        _ => Ok(Image::rgb8(&batch.pixels[i * PICTURE..][..PICTURE], SIDE, SIDE).unwrap()),
    });
    let error = learner.learn_source(&mut source).unwrap_err();
    assert_eq!(error.status(), Status::Io);
    assert!(error.message().contains('5') && error.message().ends_with("the camera is unplugged"), "{}", error);
    assert_eq!(error.source().unwrap().downcast_ref::<Unplugged>(), Some(&Unplugged));

    // What a closure returns with `?` of this crate's own functions.
    let mut source = Source::new(&batch.labels, |_| Image::rgb8(vec![0; 5], 1, 1));
    let error = learner.learn_source(&mut source).unwrap_err();
    assert!(error.message().contains("5 were given"), "{}", error);
    learns(&mut learner);
}

#[test]
fn progress_tells_every_phase_and_cancels() {
    let mut learner = learner();
    let phases = Arc::new([(); 3].map(|()| AtomicUsize::new(0)));
    let seen = phases.clone();
    learner.set_progress(move |progress| {
        let phase = match progress.phase {
            Phase::Observe => 0,
            Phase::Train => 1,
            Phase::Statistics => 2,
            phase => panic!("{:?}", phase),
        };
        assert!(progress.done <= progress.total);
        assert_eq!(progress.loss.is_nan(), progress.phase != Phase::Train);
        seen[phase].fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    learns(&mut learner);
    assert!(phases.iter().all(|count| count.load(Ordering::Relaxed) > 0));
    learner.set_progress(|_| ControlFlow::Break(()));
    let batch = Batch::of(&[2, 3], 6, 0);
    let error = learner.learn_task(&batch.images(), &batch.labels).unwrap_err();
    assert_eq!(error.status(), Status::Cancelled);
    assert_eq!(learner.num_tasks(), 1);
}

#[test]
fn inspect_visits_entries_and_lets_panics_out() {
    let (mut tensors, mut bytes) = (0, 0);
    inspect(backbone(), |entry| {
        if let Entry::Tensor { name, dtype, shape, num_bytes } = entry {
            assert!(!name.is_empty() && dtype == "F32");
            assert_eq!(num_bytes, 4 * shape.iter().product::<usize>());
            tensors += 1;
            bytes += num_bytes;
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(tensors > 10 && bytes < fs::metadata(backbone()).unwrap().len() as usize);
    let error = inspect(backbone(), |_| ControlFlow::Break(())).unwrap_err();
    assert_eq!(error.status(), Status::Cancelled);
    assert_eq!(panic_of(|| drop(inspect(backbone(), |_| panic!("in a visitor")))), "in a visitor");
    assert_eq!(inspect("/no/such/file", |_| ControlFlow::Continue(())).unwrap_err().status(), Status::Io);
}
