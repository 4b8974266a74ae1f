//! What is wrong is refused with a status and a sentence that names it, before it reaches the library where that could
//! not see it.
// SPDX-License-Identifier: Apache-2.0

mod support;

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

use duallora::{
    Auto, Bank, BankOptions, FirstBlock, Image, Images, Learner, LearnerOptions, Model, ModelOptions, OptionInfo, Pool,
    Predictor, PredictorOptions, Products, Projections, Projector, Readout, Result, Routing, Session, SessionOptions,
    Site, Source, Status, Terms,
};
use support::{backbone, model, options, Batch, Folder, SIDE};

/// Asserts the status and a part of the sentence.
#[track_caller]
fn refused<T: Debug>(result: Result<T>, status: Status, part: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.status(), status, "{}", error);
    assert!(error.message().contains(part), "{:?} is not in: {}", part, error);
}

#[test]
fn images_have_the_sizes_told() {
    let pixels = vec![0u8; 2 * 4 * 5 * 3];
    assert_eq!(Images::rgb8(&pixels, 2, 4, 5).unwrap().len(), 2);
    refused(Images::rgb8(&pixels, 2, 4, 4), Status::Argument, "have 96 values, 120 were given");
    refused(Images::gray8(&pixels, 2, 4, 5), Status::Argument, "have 40 values");
    refused(Images::rgb8(&pixels[1..], 2, 4, 5), Status::Argument, "119 were given");
    refused(Images::rgb8(&[], 0, 4, 5), Status::Argument, "at least 1");
    refused(Images::rgb8(&[], 1, 0, 5), Status::Argument, "at least 1");
    refused(Images::rgb8(&pixels, usize::MAX, 4, 5), Status::Argument, "too large");
    refused(Images::normalized(&[0.0; 12], 1, 2, 3), Status::Argument, "have 18 values");
    refused(Image::rgb8(vec![1; 5], 1, 2), Status::Argument, "5 were given");
    refused(Image::normalized(vec![], 0, 0), Status::Argument, "at least 1");
}

#[test]
fn images_of_floats_are_finite_normalised_and_of_the_models_size() {
    let model = model();
    let side = model.info().image_size;
    let floats = |value| vec![value; 3 * side * side];
    for (value, status) in [
        (f32::NAN, Status::NotFinite),
        (f32::INFINITY, Status::NotFinite),
        (255.0, Status::Argument), // bytes by mistake
    ] {
        let pixels = floats(value);
        let images = Images::normalized(&pixels, 1, side, side).unwrap();
        assert_eq!(model.embed(&images).unwrap_err().status(), status);
    }
    let other = vec![0.5; 3 * (side + 1) * side];
    let images = Images::normalized(&other, 1, side + 1, side).unwrap();
    assert_eq!(model.embed(&images).unwrap_err().status(), Status::Argument);
}

#[test]
fn labels_and_tasks_have_the_images_number() {
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    let batch = Batch::of(&[0, 1], 6, 0);
    let short = &batch.labels[1..];
    refused(learner.learn_task(&batch.images(), short), Status::Argument, "labels has length 11, expected 12");
    refused(learner.learn_task(&batch.images(), &[]), Status::Argument, "labels has length 0");
    refused(Source::of(batch.images(), short), Status::Argument, "labels has length 11");
    let source = Source::of(batch.images(), &batch.labels).unwrap();
    refused(source.with_tasks(&[0]), Status::Argument, "tasks has length 1, expected 12");
    let mut empty = Source::new(&[], |_| -> Image { unreachable!() });
    refused(learner.learn_source(&mut empty), Status::Argument, "empty");
    refused(learner.evaluate(&mut empty), Status::Argument, "empty");
    learner.begin_task(0).unwrap();
    refused(learner.observe(&batch.images(), short), Status::Argument, "labels");
    refused(learner.step(&batch.images(), short), Status::Argument, "labels");
    refused(learner.observe_trained(&batch.images(), short), Status::Argument, "labels");
    learner.discard_task().unwrap();
    learner.learn_task(&batch.images(), &batch.labels).unwrap();
    refused(learner.predict_one(&batch.images()), Status::Argument, "predictions has length 1, expected 12");
    refused(learner.predict_with_tasks(&batch.images(), &[0; 11]), Status::Argument, "tasks");
    refused(learner.embed(&batch.images(), Some(&[0])), Status::Argument, "tasks");
}

#[test]
fn calls_in_the_wrong_order_are_refused() {
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    let batch = Batch::of(&[0, 1], 3, 0);
    refused(learner.predict(&batch.images()), Status::State, "");
    refused(learner.accuracy_matrix(), Status::State, "no finished task");
    refused(learner.evaluate(&mut Source::of(batch.images(), &batch.labels).unwrap()), Status::State, "");
    refused(learner.step(&batch.images(), &batch.labels), Status::State, "");
    refused(learner.commit_task(), Status::State, "");
}

#[test]
fn options_that_do_not_exist_are_told_what_was_meant() {
    let mut options = LearnerOptions::new();
    let before = format!("{:?}", options);
    refused(options.set("rank_resudual", 4), Status::Argument, "did you mean rank_residual?");
    refused(options.get("epoch"), Status::Argument, "did you mean epochs?");
    refused(options.set("colour", "red"), Status::Argument, "there is no option \"colour\"");
    refused(options.set("epochs\0", 1), Status::Argument, "zero byte");
    refused(options.set("epochs", "4\0"), Status::Argument, "zero byte");
    assert_eq!(format!("{:?}", options), before);
}

#[test]
fn values_of_options_are_in_range_and_of_their_type() {
    let mut options = LearnerOptions::new();
    refused(options.set("epochs", 1.5f32), Status::Argument, "epochs");
    refused(options.set("learning_rate", f32::NAN), Status::Argument, "learning_rate");
    refused(options.set("learning_rate", Auto), Status::Argument, "learning_rate");
    refused(options.set("batch_size", 0), Status::Argument, "batch_size is 0");
    refused(options.set("routing", "two_pass"), Status::Argument, "two-pass");
    refused(options.set("routing", Routing::Other(77)), Status::Argument, "routing");
    refused(options.set("sites", Projections::EMPTY), Status::Argument, "sites");
    options.set("learning_rate", 1e-8f32).unwrap();
    assert_eq!(options.get("learning_rate").unwrap().parse::<f32>().unwrap(), 1e-8);
    options.set("seed", u64::MAX).unwrap();
    assert_eq!(options.get("seed").unwrap(), u64::MAX.to_string());

    let typed = LearnerOptions::new()
        .first_block(FirstBlock::Middle)
        .epochs(Auto)
        .shrinkage(Auto)
        .sites(Projections::QUERY | Projections::FC2)
        .readout(Readout::RandomProjection)
        .routing(Routing::TwoPass)
        .train_head(false);
    for (name, text) in [
        ("first_block", "middle"),
        ("epochs", "auto"),
        ("shrinkage", "auto"),
        ("sites", "query,fc2"),
        ("readout", "random-projection"),
        ("routing", "two-pass"),
        ("train_head", "false"),
    ] {
        assert_eq!(typed.get(name).unwrap(), text);
    }
    // Typed setters keep the first mistake for the call that uses the options.
    let mistaken = LearnerOptions::new().epochs(-7).batch_size(0).jitter(0.1);
    refused(mistaken.check(None), Status::Argument, "epochs is -7");
    refused(Learner::with_options(&model(), &mistaken), Status::Argument, "epochs is -7");
    // And what depends on the model is told with it.
    let blocks = LearnerOptions::new().first_block(99);
    blocks.check(None).unwrap();
    refused(blocks.check(Some(&model())), Status::Argument, "first_block is 99");
    assert!(OptionInfo::all().iter().all(|option| !option.help.is_empty()));
    assert_eq!(LearnerOptions::paper().get("routing").unwrap(), "energy");
}

#[test]
fn files_that_are_missing_damaged_or_of_another_kind_are_refused() {
    let folder = Folder::new();
    let path = |name: &str| folder.path(name);
    refused(Model::load("/no/such/file"), Status::Io, "/no/such/file");
    refused(Model::load("a\0b"), Status::Io, "");
    // SAFETY: nobody changes what does not exist.
    refused(unsafe { Model::load_mapped("a\0b", &ModelOptions::new()) }, Status::Argument, "zero byte");
    fs::write(path("text"), "hello, this is no tensor file").unwrap();
    let error = Model::load(path("text")).unwrap_err();
    assert_eq!(error.status(), Status::Format);
    assert!(error.message().contains("text"), "{}", error);
    let bytes = fs::read(backbone()).unwrap();
    refused(Model::from_bytes(bytes[..bytes.len() / 2].to_vec(), &ModelOptions::new()), Status::Format, "");
    refused(Model::from_bytes(Vec::new(), &ModelOptions::new()), Status::Format, "");
    let model = model();
    refused(Learner::load(&model, path("text")), Status::Format, "");
    refused(Learner::load(&model, backbone()), Status::Format, "");
    refused(Predictor::load(path("text")), Status::Format, "");
    refused(Projector::load(path("missing")), Status::Io, "missing");
    refused(Bank::load(path("text"), &BankOptions::new()), Status::Format, "");
    let learner = Learner::new(&model).unwrap();
    refused(learner.save("/no/such/folder/file"), Status::Io, "/no/such/folder");
    refused(learner.save("a\0b"), Status::Argument, "zero byte");
}

#[test]
fn models_refuse_options_that_do_not_fit() {
    let load = |options: &ModelOptions| Model::load_with(backbone(), options);
    refused(load(&ModelOptions::new().num_heads(7)), Status::Argument, "num_heads");
    refused(load(&ModelOptions::new().image_size(33)), Status::Argument, "image_size");
    refused(load(&ModelOptions::new().prefix("teacher.")), Status::Argument, "teacher.");
    refused(load(&ModelOptions::new().prefix("a\0")), Status::Argument, "zero byte");
    refused(load(&ModelOptions::new().products(Products::Other(9))), Status::Argument, "products");
    refused(load(&ModelOptions::new().threads(0)), Status::Argument, "threads");
    let info = load(&ModelOptions::new().image_size(64).normalization([0.1; 3], [0.2; 3])).unwrap().info().clone();
    assert_eq!((info.image_size, info.mean, info.std), (64, [0.1; 3], [0.2; 3]));
    assert_eq!(info.pool, Pool::Class);
}

#[test]
fn features_are_rows_of_the_right_width() {
    let mut predictor = Predictor::new(4).unwrap();
    refused(predictor.observe(&[0.0; 7], &[1]), Status::Argument, "features has 7 values, which are no rows of 4");
    refused(predictor.observe(&[], &[]), Status::Argument, "features is empty");
    refused(predictor.observe(&[0.0; 8], &[1]), Status::Argument, "labels has length 1, expected 2");
    refused(predictor.observe(&[f32::NAN; 4], &[1]), Status::NotFinite, "");
    refused(predictor.observe_held_out(&[f32::INFINITY; 4], &[1]), Status::NotFinite, "");
    refused(predictor.observe_pair(&[0.0; 8], &[0.0; 4], &[1, 2], false), Status::Argument, "labels");
    refused(predictor.predict(&[0.0; 4]), Status::State, "");
    refused(predictor.commit_task(), Status::State, "");
    refused(predictor.linear_weights(0, 4), Status::State, "finished task");
    predictor.observe(&[0.0, 0.1, 0.2, 0.3, 5.0, 5.1, 5.2, 5.3], &[1, 2]).unwrap();
    predictor.commit_task().unwrap();
    refused(predictor.linear_weights(0, usize::MAX), Status::Argument, "columns");
    refused(predictor.linear_weights(3, 2), Status::Argument, "columns");
    refused(predictor.projection(), Status::State, "");
    refused(predictor.compensate_drift(&[0.0; 8], &[0.0; 4], 0, 4), Status::Argument, "after has length 1");
    refused(predictor.merge(&Predictor::new(5).unwrap()), Status::Mismatch, "");
    refused(predictor.set_temperature(-1.0), Status::Argument, "temperature");
    refused(Predictor::new(0), Status::Argument, "dim");
    let options = PredictorOptions::new().readout(Readout::RandomProjection).ridge(f32::NAN);
    refused(Predictor::with_options(4, &options), Status::Argument, "ridge");

    let mut projector = Projector::new(3).unwrap();
    refused(projector.observe(&[0.0; 4]), Status::Argument, "no rows of 3");
    refused(projector.observe(&[f32::NAN; 3]), Status::NotFinite, "");
    refused(projector.project(&mut [0.0; 5]), Status::Argument, "no rows of 3");
    refused(projector.unused_directions(1), Status::State, "");
    refused(projector.bases(0), Status::Argument, "");
    refused(projector.merge_observed(&Projector::new(4).unwrap()), Status::Mismatch, "");
}

#[test]
fn banks_and_sessions_check_every_size() {
    refused(Bank::new(&[]), Status::Argument, "");
    let site = Site { input_dim: 3, output_dim: 2, block: 0, projection: Projections::KEY };
    let mut bank = Bank::new(&[site]).unwrap();
    let all = Terms::MERGED;
    refused(bank.site(1), Status::Argument, "site");
    refused(bank.set_orthogonal(0, &[1.0; 3], None), Status::State, "");
    bank.begin_task().unwrap();
    refused(bank.set_orthogonal(0, &[1.0; 4], None), Status::Argument, "a has 4 values");
    refused(bank.set_residual(0, &[1.0; 12], false), Status::Argument, "rank");
    let narrow = Arc::new(Projector::new(2).unwrap());
    refused(bank.set_orthogonal(0, &[1.0; 3], Some(narrow.clone())), Status::Mismatch, "");
    assert_eq!(Arc::strong_count(&narrow), 1, "what was refused is given back");
    refused(bank.forward(0, &[0.0; 6], all, None, &mut [0.0; 3]), Status::Argument, "y has length");
    refused(bank.forward(0, &[0.0; 6], all, None, &mut [0.0; 5]), Status::Argument, "y has length 5, expected 4");
    let routing = duallora::RowRouting { weights: &[1.0], rows_per_item: 4 };
    refused(bank.forward(0, &[0.0; 6], all, Some(routing), &mut [0.0; 4]), Status::Argument, "multiple of 4");
    let routing = duallora::RowRouting { weights: &[1.0], rows_per_item: 1 };
    refused(bank.forward(0, &[0.0; 6], all, Some(routing), &mut [0.0; 4]), Status::Argument, "routing");
    refused(bank.backward(0, &[0.0; 6], &[0.0; 2], all, None), Status::Argument, "dy has length 1, expected 2");
    refused(
        bank.backward(0, &[0.0; 3], &[0.0; 2], all, Some(&mut [0.0; 2])),
        Status::Argument,
        "dx has length 2, expected 3",
    );
    refused(bank.residual(0, 0), Status::Argument, "task");

    let model = model();
    let width = model.info().embed_dim;
    let session = SessionOptions::new().max_batch(2).threads(1).training(true);
    refused(Session::new(&model, bank, &session), Status::Mismatch, "");
    let site = Site { input_dim: width, output_dim: width, ..site };
    let mut session = Session::new(&model, Bank::new(&[site]).unwrap(), &session).unwrap();
    let batch = Batch::of(&[0, 1], 2, 0);
    refused(session.forward(&batch.images(), all, None), Status::Argument, "max_batch");
    refused(session.early_features(), Status::State, "forward call");
    refused(session.backward(&vec![0.0; width]), Status::State, "forward call");
    refused(session.forward(&batch.one(0), all, Some(&[1.0])), Status::Argument, "routing has length 1, expected 0");
    session.forward(&batch.one(0), all, None).unwrap();
    refused(session.backward(&vec![0.0; width + 1]), Status::Argument, "feature_gradients");
    refused(session.backward(&vec![0.0; 2 * width]), Status::Argument, "feature_gradients has length 2, expected 1");
    let nan = Images::normalized(&[f32::NAN], 1, 1, 1);
    refused(nan, Status::Argument, "have 3 values");
    refused(Session::new(&model, Bank::new(&[site, site]).unwrap(), &SessionOptions::new()), Status::Mismatch, "");
}

#[test]
fn a_bank_that_was_exchanged_or_is_shared_is_refused() {
    let model = model();
    let width = model.info().embed_dim;
    let site = Site { input_dim: width, output_dim: width, block: 0, projection: Projections::VALUE };
    let new_bank = || Bank::new(&[site]).unwrap();
    let options = SessionOptions::new().threads(1).training(true);
    let batch = Batch::of(&[0], 1, 0);
    let mut session = Session::new(&model, new_bank(), &options).unwrap();
    let mut elsewhere = new_bank();
    std::mem::swap(session.bank_mut().unwrap(), &mut elsewhere);
    refused(session.forward(&batch.images(), Terms::MERGED, None), Status::Mismatch, "exchanged");
    refused(session.input(0, duallora::Input::Attention), Status::Mismatch, "exchanged");
    std::mem::swap(session.bank_mut().unwrap(), &mut elsewhere);
    session.forward(&batch.images(), Terms::MERGED, None).unwrap();

    let shared = Arc::new(new_bank());
    let mut first = Session::new(&model, shared.clone(), &options).unwrap();
    let mut second = Session::new(&model, shared, &options).unwrap();
    let features = first.forward(&batch.images(), Terms::MERGED, None).unwrap();
    assert_eq!(second.forward(&batch.images(), Terms::MERGED, None).unwrap(), features);
    refused(first.bank_mut(), Status::State, "shared");
    refused(first.backward(&features), Status::State, "shared");
    drop(second);
    first.bank_mut().unwrap().begin_task().unwrap();
    assert_eq!(first.into_bank().unwrap().num_sites(), 1);
    let mut bare = Session::without_bank(&model, &options).unwrap();
    refused(bare.bank_mut(), Status::State, "no bank");
    assert_eq!(bare.forward(&batch.images(), Terms::MERGED, None).unwrap().rows(), 1);
    assert!(bare.workspace_size() > 0 && bare.bank().is_none() && SIDE > 0);
}

/// A library of another major version, in the place of the right one.
#[test]
#[cfg(target_os = "linux")]
fn a_library_of_another_version_is_refused() {
    let folder = Folder::new();
    let (source, library) = (folder.path("other.c"), folder.path("libother.so"));
    fs::write(&source, "const char *dlora_version(void);\nconst char *dlora_version(void) { return \"7.0.0\"; }\n")
        .unwrap();
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    if !compiled.map_or(false, |status| status.success()) {
        eprintln!("skipped: no C compiler");
        return;
    }
    let this: PathBuf = env::current_exe().unwrap();
    let child = Command::new(this)
        .args(["--exact", "every_constructor_refuses", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}", output);
    assert!(output.contains("1 passed"), "{}", output);
}

#[test]
#[ignore = "needs a library of another version; run by the test before"]
fn every_constructor_refuses() {
    assert_eq!(duallora::version(), "7.0.0");
    let site = Site { input_dim: 1, output_dim: 1, block: 0, projection: Projections::KEY };
    let sentence = "the library is version 7.0.0";
    refused(Model::load(backbone()), Status::Unsupported, sentence);
    refused(Predictor::new(3), Status::Unsupported, sentence);
    refused(Projector::new(3), Status::Unsupported, sentence);
    refused(Bank::new(&[site]), Status::Unsupported, sentence);
}
