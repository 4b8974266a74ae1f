//! A learner learns, predicts, evaluates, is saved, and goes on where it was interrupted.
// SPDX-License-Identifier: Apache-2.0

mod support;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use duallora::{Image, Images, Input, Learner, Model, ModelOptions, Origin, Phase, Prediction, Source, Status};
use support::{backbone, model, options, picture, Batch, Folder, PICTURE, SIDE};

fn taught() -> Learner {
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    for classes in [[0, 1], [2, 3]] {
        let batch = Batch::of(&classes, 12, 0);
        learner.learn_task(&batch.images(), &batch.labels).unwrap();
    }
    learner
}

#[test]
fn two_tasks_are_learned_and_told_apart() {
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    let first = Batch::of(&[10, 20], 12, 0);
    let report = learner.learn_task(&first.images(), &first.labels).unwrap();
    assert_eq!((report.task, report.num_classes, report.num_images), (0, 2, 24));
    assert!(report.num_steps > 0 && report.last_loss.is_finite());
    let second = Batch::of(&[30, 41], 12, 0);
    assert_eq!(learner.learn_task(&second.images(), &second.labels).unwrap().task, 1);
    assert_eq!((learner.num_tasks(), learner.num_classes()), (2, 4));
    assert_eq!(learner.classes().unwrap(), [10, 20, 30, 41]);

    let test = Batch::of(&[10, 20, 30, 41], 5, 1000);
    let predictions = learner.predict(&test.images()).unwrap();
    let right = predictions.iter().zip(&test.labels).filter(|(p, &label)| p.class == label).count();
    assert!(right >= 14, "{} of {} are right", right, test.labels.len());
    for (i, prediction) in predictions.iter().enumerate() {
        assert!((0.0..=1.0).contains(&prediction.class_probability));
        assert!(prediction.task == 0 || prediction.task == 1);
        let alone = learner.predict_one(&test.one(i)).unwrap();
        assert_eq!((alone.class, alone.task), (prediction.class, prediction.task));
    }
    let (same, scores) = learner.predict_with_scores(&test.images()).unwrap();
    assert_eq!(same, predictions);
    for (row, prediction) in scores.iter().zip(&predictions) {
        let sum: f32 = row.iter().map(|score| score.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-4);
        let best = (0..4).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(learner.classes().unwrap()[best], prediction.class);
    }
    let tasks: Vec<i64> = test.labels.iter().map(|&label| (label >= 30) as i64).collect();
    let (given, _) = learner.predict_with_tasks(&test.images(), &tasks).unwrap();
    for (prediction, (task, label)) in given.iter().zip(tasks.iter().zip(&test.labels)) {
        assert_eq!(prediction.task, *task);
        assert_eq!((prediction.class >= 30) as i64, *task, "class {} for {}", prediction.class, label);
    }
}

#[test]
fn a_learner_and_its_model_live_in_one_struct_and_outlive_each_other() {
    struct Application {
        model: Model,
        learner: Learner,
    }
    let model = model();
    let application = Application { learner: Learner::with_options(&model, &options()).unwrap(), model };
    let Application { model, mut learner } = application;
    drop(model);
    let batch = Batch::of(&[0, 1], 8, 0);
    learner.learn_task(&batch.images(), &batch.labels).unwrap();
    assert_eq!(learner.predict(&batch.images()).unwrap().len(), 16);
    assert_eq!(learner.model().info().embed_dim, learner.embed(&batch.one(0), None).unwrap().columns());
}

#[test]
fn what_was_saved_is_loaded_with_names_and_notes() {
    let folder = Folder::new();
    let mut learner = taught();
    learner.set_class_name(2, "côté").unwrap();
    learner.set_note("camera", "north door").unwrap();
    learner.set_note("gone", "soon").unwrap();
    learner.remove_note("gone").unwrap();
    learner.save(folder.path("device.safetensors")).unwrap();

    let loaded = Learner::load(learner.model(), folder.path("device.safetensors")).unwrap();
    assert_eq!(loaded.class_name(2).as_deref(), Some("côté"));
    assert_eq!(loaded.class_name(3), None);
    assert_eq!(loaded.note("camera").as_deref(), Some("north door"));
    assert_eq!(loaded.note("gone"), None);
    let test = Batch::of(&[0, 1, 2, 3], 2, 500);
    let one_thread =
        Learner::load_with(learner.model(), folder.path("device.safetensors"), &learner.options().unwrap()).unwrap();
    assert_eq!(one_thread.predict(&test.images()).unwrap(), learner.predict(&test.images()).unwrap());
    assert_eq!(one_thread.options().unwrap().get("threads").unwrap(), "1");

    let other = Model::load(backbone().with_file_name("tiny_timm_layer_scale_f32.safetensors")).unwrap();
    let error = Learner::load(&other, folder.path("device.safetensors")).unwrap_err();
    assert_eq!(error.status(), Status::Mismatch);
    assert!(error.message().contains(&other.info().fingerprint), "{}", error);
}

#[test]
fn sources_read_images_of_any_size_one_by_one() {
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    let batch = Batch::of(&[0, 1], 12, 0);
    let mut reads = 0;
    {
        let mut source = Source::new(&batch.labels, |i| {
            reads += 1;
            // Every other image has a margin on its right.
            if i % 2 == 0 {
                return Image::rgb8(&batch.pixels[i * PICTURE..][..PICTURE], SIDE, SIDE);
            }
            let rows = batch.pixels[i * PICTURE..][..PICTURE].chunks(SIDE * 3);
            Image::rgb8(rows.flat_map(|row| [row, &row[..24]].concat()).collect::<Vec<u8>>(), SIDE, SIDE + 8)
        });
        assert_eq!(source.len(), 24);
        learner.learn_source(&mut source).unwrap();
    }
    assert!(reads >= 24 * 2, "{} reads", reads);

    let test = Batch::of(&[0, 1, 9], 5, 700);
    let evaluation = learner.evaluate(&mut Source::of(test.images(), &test.labels).unwrap()).unwrap();
    assert_eq!((evaluation.num_images, evaluation.num_skipped), (10, 5));
    assert!(evaluation.accuracy >= 0.7, "accuracy {}", evaluation.accuracy);
    assert!(evaluation.forgetting.is_nan());
    let matrix = learner.accuracy_matrix().unwrap();
    assert_eq!((matrix.rows(), matrix[(0, 0)]), (1, evaluation.accuracy));
    let tasks = vec![0; 15];
    let mut source = Source::of(test.images(), &test.labels).unwrap().with_tasks(&tasks).unwrap();
    assert_eq!(learner.evaluate(&mut source).unwrap().task_accuracy, 1.0);
}

#[test]
fn an_interrupted_task_goes_on_to_the_same_result() {
    let folder = Folder::new();
    let model = model();
    let batch = Batch::of(&[0, 1], 12, 0);
    let mut whole = Learner::with_options(&model, &options()).unwrap();
    whole.learn_task(&batch.images(), &batch.labels).unwrap();

    let snapshot = folder.path("snapshot.safetensors");
    let mut learner = Learner::with_options(&model, &options()).unwrap();
    learner.set_snapshot(&snapshot, 2).unwrap();
    learner.set_progress(|progress| match progress.phase {
        Phase::Train if progress.done >= 5 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let error = learner.learn_task(&batch.images(), &batch.labels).unwrap_err();
    assert_eq!(error.status(), Status::Cancelled);
    assert_eq!(learner.open_task().unwrap(), None);

    let mut resumed = Learner::load_with(&model, &snapshot, &learner.options().unwrap()).unwrap();
    let open = resumed.open_task().unwrap().unwrap();
    assert_eq!((open.phase, open.num_steps, open.num_source_images), (Phase::Train, 5, 24));
    let report = resumed.learn_task(&batch.images(), &batch.labels).unwrap();
    assert!(report.num_steps > 5);
    let test = Batch::of(&[0, 1], 4, 300);
    assert_eq!(resumed.predict(&test.images()).unwrap(), whole.predict(&test.images()).unwrap());
    resumed.clear_snapshot().unwrap();
}

#[test]
fn a_loop_of_ones_own_makes_the_same_calls() {
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    let batch = Batch::of(&[4, 5], 8, 0);
    learner.begin_task(6).unwrap();
    learner.observe(&batch.images(), &batch.labels).unwrap();
    learner.begin_training().unwrap();
    let losses: Vec<f32> = (0..6).map(|i| learner.step(&batch.one(i), &batch.labels[i..=i]).unwrap()).collect();
    assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.0));
    assert_eq!(learner.open_task().unwrap().unwrap().num_steps, 6);
    learner.observe_trained(&batch.images(), &batch.labels).unwrap();
    assert_eq!(learner.commit_task().unwrap().num_steps, 6);
    learner.begin_task(0).unwrap();
    learner.discard_task().unwrap();
    assert_eq!(learner.discard_task().unwrap_err().status(), Status::State);
    assert_eq!(learner.num_tasks(), 1);
    assert!(learner.profile().unwrap().optimizer > 0.0);
}

#[test]
fn options_change_between_tasks() {
    let mut learner = taught();
    let mut options = learner.options().unwrap();
    options.set("learning_rate", "0.002").unwrap();
    learner.configure(&options).unwrap();
    assert_eq!(learner.options().unwrap().get("learning_rate").unwrap(), "0.002");
    options.set("readout", "random-projection").unwrap();
    assert_eq!(learner.configure(&options).unwrap_err().status(), Status::Mismatch);
    assert!((0.0..=1.0).contains(&learner.untouched_weight()));
}

#[test]
fn its_parts_are_lent_for_inspection() {
    let learner = taught();
    let bank = learner.bank().unwrap();
    assert_eq!(bank.num_tasks(), 2);
    let site = bank.site(0).unwrap();
    assert_eq!(bank.merged(0).unwrap().unwrap().len(), site.output_dim * site.input_dim);
    let adapter = bank.residual(0, 1).unwrap();
    assert_eq!(adapter.a.len(), adapter.rank * site.input_dim);
    let predictor = learner.predictor().unwrap();
    assert_eq!(predictor.classes().unwrap(), [0, 1, 2, 3]);
    let copy = predictor.try_clone().unwrap();
    let projector = learner.projector(site.block as usize, Input::Attention).unwrap();
    assert_eq!(projector.num_tasks(), 2);
    assert_eq!(projector.bases(0).unwrap().len() % projector.dim(), 0);
    assert!(learner.projector(999, Input::Attention).is_none());
    drop((bank, predictor, projector));
    drop(learner);
    assert_eq!(copy.num_classes(), 4);
}

#[test]
fn predictions_are_iterated_over_in_batches() {
    let learner = taught();
    let wide = |class, number| {
        let pixels = picture(class, number);
        let rows = pixels.chunks(SIDE * 3);
        Image::rgb8(rows.flat_map(|row| [row, row].concat()).collect::<Vec<u8>>(), SIDE, 2 * SIDE).unwrap()
    };
    let square = |class, number| Image::rgb8(picture(class, number), SIDE, SIDE).unwrap();
    let mut images: Vec<Image> = (0..7).map(|i| square(i % 4, 800 + i as usize)).collect();
    images.push(wide(1, 5));
    images.extend((0..3).map(|i| square(i, 900)));
    let expected: Vec<Prediction> = images.iter().map(|i| learner.predict_one(&i.view()).unwrap()).collect();
    for batch in [0, 1, 4, 100] {
        let found: Vec<_> = learner.predictions(images.clone(), batch).map(Result::unwrap).collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!((found.class, found.task), (expected.class, expected.task));
        }
    }
    // What cannot be read or predicted is an error in its place, and the rest goes on.
    let side = learner.model().info().image_size;
    let nan = Image::normalized(vec![f32::NAN; 3 * side * side], side, side).unwrap();
    let fine = Image::normalized(vec![0.5; 3 * side * side], side, side).unwrap();
    let items = vec![Ok(fine.clone()), Ok(nan), Ok(fine.clone()), Err("no such file"), Ok(fine)];
    let found: Vec<_> = learner.predictions(items, 8).collect();
    let statuses: Vec<_> = found.iter().map(|item| item.as_ref().err().map(|e| e.status())).collect();
    assert_eq!(statuses, [None, Some(Status::NotFinite), None, Some(Status::Io), None]);
    assert!(found[3].as_ref().unwrap_err().to_string().ends_with("no such file"));
}

#[test]
fn a_log_closure_receives_lines() {
    let folder = Folder::new();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let mut learner = Learner::with_options(&model(), &options()).unwrap();
    let kept = lines.clone();
    learner.set_log(move |level, line| kept.lock().unwrap().push(format!("{:?} {}", level, line)));
    learner.set_snapshot(folder.path("s.safetensors"), 1).unwrap();
    let batch = Batch::of(&[0, 1], 6, 0);
    learner.learn_task(&batch.images(), &batch.labels).unwrap();
    let count = lines.lock().unwrap().len();
    assert!(lines.lock().unwrap().iter().any(|line| line.starts_with("Info") && line.contains("snapshot")));
    learner.clear_log();
    let batch = Batch::of(&[2, 3], 6, 0);
    learner.learn_task(&batch.images(), &batch.labels).unwrap();
    assert_eq!(lines.lock().unwrap().len(), count);
    assert_eq!(Arc::strong_count(&lines), 1, "the closure is dropped");
}

#[test]
fn a_folder_is_copied_or_mapped_to_the_same_model() {
    let folder = Folder::new();
    let hub = folder.path("hub");
    std::fs::create_dir(&hub).unwrap();
    std::fs::copy(backbone(), hub.join("model.safetensors")).unwrap();
    // SAFETY: nobody changes the folder while the model lives.
    let mapped = unsafe { Model::load_mapped(&hub, &Default::default()) }.unwrap();
    let copied = Model::load(&hub).unwrap();
    assert_eq!(mapped.info(), copied.info());
    let heads = copied.settings().unwrap().into_iter().find(|setting| setting.name == "num_heads").unwrap();
    assert_eq!((heads.origin, heads.value), (Origin::Metadata, copied.info().num_heads.to_string()));
    std::fs::remove_file(hub.join("model.safetensors")).unwrap();
    assert_eq!(copied.embed(&Batch::of(&[0], 1, 0).images()).unwrap().rows(), 1);
    let error = Model::load(&hub).unwrap_err();
    assert!(error.message().contains(hub.to_str().unwrap()), "{}", error);
}

#[test]
fn a_model_keeps_the_bytes_it_was_loaded_from() {
    let folder = Folder::new();
    let path = folder.path("copy.safetensors");
    std::fs::copy(backbone(), &path).unwrap();
    let model = Model::load(&path).unwrap();
    // SAFETY: nobody else changes the file.
    let mapped = unsafe { Model::load_mapped(backbone(), &Default::default()) }.unwrap();
    std::fs::write(&path, "something else").unwrap();
    let pixels = picture(0, 0);
    let image = Images::rgb8(&pixels, 1, SIDE, SIDE).unwrap();
    assert_eq!(model.embed(&image).unwrap(), mapped.embed(&image).unwrap());
    assert_eq!(model.info(), mapped.info());
    let clone = model.clone();
    drop(model);
    assert_eq!(clone.embed(&image).unwrap().rows(), 1);
}

#[test]
fn what_was_learned_is_exported() {
    let folder = Folder::new();
    let learner = taught();
    learner.export_peft(folder.path("lora"), None).unwrap();
    assert!(folder.path("lora/adapter_model.safetensors").exists() && folder.path("lora/adapter_config.json").exists());
    let error = learner.export_peft(folder.path("task"), Some(7)).unwrap_err();
    assert_eq!(error.status(), Status::Argument);
    assert_eq!(learner.export_peft(folder.path("task"), Some(-1)).unwrap_err().status(), Status::Argument);
    learner.export_backbone(folder.path("merged")).unwrap();
    let merged = Model::load(folder.path("merged")).unwrap();
    let adapted = Model::load_with(backbone(), &ModelOptions::new().adapter(folder.path("lora"))).unwrap();
    let image = Batch::of(&[1], 1, 900);
    let (of_merged, of_adapted) = (merged.embed(&image.images()).unwrap(), adapted.embed(&image.images()).unwrap());
    let apart = of_merged.as_slice().iter().zip(of_adapted.as_slice()).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-4);
    assert_ne!(adapted.info().fingerprint, learner.model().info().fingerprint);
    let fresh = Learner::new(learner.model()).unwrap();
    assert_eq!(fresh.export_backbone(folder.path("none")).unwrap_err().status(), Status::State);
}
