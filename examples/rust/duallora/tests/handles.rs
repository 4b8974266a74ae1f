//! Bank, projector, predictor and session on arrays of one's own.
// SPDX-License-Identifier: Apache-2.0

mod support;

use std::sync::Arc;

use duallora::{
    Bank, BankOptions, Input, Optimizer, Predictor, PredictorOptions, Projections, Projector, Readout, RowRouting,
    Session, SessionOptions, Site, Terms,
};
use support::{model, Batch, Folder};

/// Numbers in [-1, 1), the same in every run.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum()
}

#[test]
fn a_projector_finds_projects_merges_and_is_saved() {
    let folder = Folder::new();
    let dim = 6;
    let mut projector = Projector::new(dim).unwrap();
    // Rows in the span of two axes.
    let rows: Vec<f32> = noise(40, 1).chunks(2).flat_map(|c| [3.0 * c[0], c[1], 0.0, 0.0, 0.0, 0.0]).collect();
    let mut half = Projector::new(dim).unwrap();
    half.observe(&rows[..60]).unwrap();
    projector.observe(&rows[60..]).unwrap();
    projector.merge_observed(&half).unwrap();
    assert_eq!((projector.num_observed(), projector.num_tasks()), (20, 0));
    let unused = projector.unused_directions(9).unwrap();
    assert_eq!((unused.rows(), unused.columns()), (2, dim));
    assert!(unused.row(0)[0].abs() > 0.9);
    assert_eq!(projector.task_directions(1.0, 1).unwrap().rows(), 1);
    assert_eq!(projector.used_directions(4).unwrap().rows(), 0);
    assert_eq!(projector.commit_task(1.0).unwrap(), 2);
    assert_eq!((projector.num_directions(), projector.dim()), (2, dim));
    let bases = projector.bases(0).unwrap();
    assert_eq!(bases.len(), 2 * dim);
    assert!((dot(&bases[..dim], &bases[..dim]) - 1.0).abs() < 1e-5);

    let mut gradient = noise(3 * dim, 2);
    projector.project(&mut gradient).unwrap();
    assert!(gradient.chunks(dim).all(|row| row[0].abs() < 1e-5 && row[1].abs() < 1e-5 && row[3] != 0.0));
    projector.calibrate(0, &rows).unwrap();
    let routing = projector.route(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]).unwrap();
    assert_eq!((routing.rows(), routing.columns()), (2, 1));
    assert!(routing[(0, 0)] > 0.99 && routing[(1, 0)] < 1e-6);

    projector.save(folder.path("projector")).unwrap();
    let loaded = Projector::load(folder.path("projector")).unwrap();
    assert_eq!(loaded.bases(0).unwrap(), projector.bases(0).unwrap());
    let mut copy = loaded.try_clone().unwrap();
    copy.observe(&noise(dim, 5)).unwrap();
    copy.discard_task().unwrap();
    assert_eq!(copy.num_observed(), 0);
    assert!(format!("{:?}", copy).contains("2 of 6"));
}

#[test]
fn a_bank_trains_within_a_projector_and_keeps_its_tasks() {
    let folder = Folder::new();
    let site = Site { input_dim: 5, output_dim: 3, block: 0, projection: Projections::QUERY };
    let mut projector = Projector::new(5).unwrap();
    projector.observe(&[1.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    projector.commit_task(1.0).unwrap();
    let projector = Arc::new(projector);
    let options = BankOptions::new().optimizer(Optimizer::Sgd).momentum(0.0);
    let mut bank = Bank::with_options(&[site], &options).unwrap();
    assert_eq!(bank.site(0).unwrap(), site);
    bank.begin_task().unwrap();
    let mut a = noise(10, 3);
    projector.project(&mut a).unwrap();
    bank.set_orthogonal(0, &a, Some(projector.clone())).unwrap();
    bank.set_residual(0, &noise(10, 4), true).unwrap();
    assert_eq!(Arc::strong_count(&projector), 2, "the bank keeps what it borrows");

    let both = Terms::ORTHOGONAL | Terms::RESIDUAL;
    let (x, dy) = (noise(4 * 5, 5), noise(4 * 3, 6));
    let output = |bank: &Bank| {
        let mut y = vec![0.0; 4 * 3];
        bank.forward(0, &x, both, None, &mut y).unwrap();
        y
    };
    assert!(output(&bank).iter().all(|&y| y == 0.0), "B begins at 0");
    let values = noise(bank.parameters().unwrap().0.len(), 7);
    bank.parameters().unwrap().0.copy_from_slice(&values);
    bank.backward(0, &x, &dy, both, None).unwrap();
    // Every gradient against a central difference.
    let gradients = bank.parameters().unwrap().1.to_vec();
    for i in 0..values.len() {
        let mut at = |value: f32| {
            bank.parameters().unwrap().0[i] = value;
            dot(&output(&bank), &dy)
        };
        let slope = (at(values[i] + 0.01) - at(values[i] - 0.01)) / 0.02;
        at(values[i]);
        assert!((slope - gradients[i] as f64).abs() < 1e-3, "{}: {} and {}", i, slope, gradients[i]);
    }
    let mut dx = vec![0.0; 4 * 5];
    bank.backward(0, &x, &dy, both, Some(&mut dx)).unwrap();
    assert!(dx.iter().any(|&d| d != 0.0));
    bank.step(0.1).unwrap();
    assert!(bank.parameters().unwrap().1.iter().all(|&gradient| gradient == 0.0));
    bank.set_merge_fractions(1.0, 0.5).unwrap();
    bank.commit_task().unwrap();
    assert_eq!(Arc::strong_count(&projector), 1, "and gives it back");

    assert_eq!(bank.num_tasks(), 1);
    assert_eq!(bank.merged(0).unwrap().unwrap().len(), 15);
    let adapter = bank.residual(0, 0).unwrap();
    assert_eq!((adapter.rank, adapter.a.len(), adapter.b.len()), (2, 10, 6));
    let routing = RowRouting { weights: &[1.0, 0.0], rows_per_item: 2 };
    let mut y = vec![0.0; 4 * 3];
    bank.forward(0, &x, Terms::EMPTY, Some(routing), &mut y).unwrap();
    assert!(y[..6].iter().any(|&y| y != 0.0) && y[6..].iter().all(|&y| y == 0.0));
    bank.save(folder.path("bank")).unwrap();
    let loaded = Bank::load(folder.path("bank"), &options).unwrap();
    assert_eq!(loaded.merged(0).unwrap(), bank.merged(0).unwrap());
    bank.begin_task().unwrap();
    bank.discard_task().unwrap();
    assert!(Bank::new(&[site]).unwrap().merged(0).unwrap().is_none());
}

/// Four well separated classes of width 3.
fn features(count: usize, classes: &[i64], seed: u64) -> (Vec<f32>, Vec<i64>) {
    let labels: Vec<i64> = (0..count).map(|i| classes[i % classes.len()]).collect();
    let noise = noise(3 * count, seed);
    let values = noise.iter().enumerate().map(|(i, v)| v + 8.0 * (labels[i / 3] == (i % 3) as i64) as u8 as f32);
    (values.collect(), labels)
}

#[test]
fn a_predictor_learns_decides_and_is_saved() {
    let folder = Folder::new();
    let mut predictor = Predictor::new(3).unwrap();
    let (x, labels) = features(60, &[0, 1], 1);
    predictor.observe(&x, &labels).unwrap();
    let (held_out, held_out_labels) = features(20, &[0, 1], 2);
    predictor.observe_held_out(&held_out, &held_out_labels).unwrap();
    predictor.commit_task().unwrap();
    let (x2, labels2) = features(60, &[2, 9], 3);
    predictor.observe_pair(&x2, &x2, &labels2, false).unwrap();
    predictor.commit_task().unwrap();
    assert_eq!((predictor.num_tasks(), predictor.num_classes(), predictor.num_components()), (2, 4, 4));
    assert_eq!(predictor.classes().unwrap(), [0, 1, 2, 9]);
    let components = predictor.components().unwrap();
    assert_eq!((components.tasks, components.classes), (vec![0, 0, 1, 1], vec![0, 1, 2, 9]));
    assert_eq!((components.counts, components.means.rows()), (vec![40, 40, 30, 30], 4));
    let scatter = predictor.scatter().unwrap();
    assert!((scatter[(0, 1)] - scatter[(1, 0)]).abs() < 1e-9 && scatter[(0, 0)] > 0.0);

    let (test, test_labels) = features(24, &[0, 1, 2, 9], 4);
    let predictions = predictor.predict(&test).unwrap();
    assert!(predictions.iter().zip(&test_labels).all(|(p, &label)| p.class == label));
    let posterior = predictor.posterior(&test).unwrap();
    assert_eq!(posterior.component_log_probs.columns(), 4);
    assert_eq!(posterior.class_log_probs.rows(), 24);
    assert!(posterior.task_probs.iter().all(|row| (row[0] + row[1] - 1.0).abs() < 1e-5));
    let threshold = predictor.unknown_threshold(0.95).unwrap();
    for (prediction, &score) in predictions.iter().zip(&posterior.unknown_scores) {
        assert_eq!((prediction.unknown_score, prediction.unknown), (score, score > threshold));
    }
    let linear = predictor.linear_weights(0, 3).unwrap();
    for (row, prediction) in test.chunks(3).zip(&predictions) {
        let score = |k: usize| dot(linear.weight.row(k), row) + linear.bias[k] as f64;
        let best = (0..4).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
        assert_eq!(predictor.classes().unwrap()[best], prediction.class);
    }

    predictor.save(folder.path("predictor")).unwrap();
    let loaded = Predictor::load(folder.path("predictor")).unwrap();
    assert_eq!(loaded.predict(&test).unwrap(), predictions);
    let mut other = Predictor::load_with(folder.path("predictor"), &PredictorOptions::new().use_prior(true)).unwrap();
    other.set_temperature(3.0).unwrap();
    assert_eq!(other.temperature(), 3.0);

    let mut appended = predictor.try_clone().unwrap();
    appended.append(&loaded).unwrap();
    assert_eq!((appended.num_tasks(), appended.num_components()), (4, 8));
    let mut merged = predictor.try_clone().unwrap();
    merged.merge(&loaded).unwrap();
    assert_eq!(merged.components().unwrap().counts[0], 80);
    let moved: Vec<f32> = x2.iter().map(|v| v + 1.0).collect();
    merged.compensate_drift(&x2, &moved, 0, 3).unwrap();
    let (means, drifted) = (predictor.components().unwrap().means, merged.components().unwrap().means);
    assert!((drifted[(2, 0)] - means[(2, 0)] - 1.0).abs() < 0.05);
    merged.observe(&x, &labels).unwrap();
    merged.discard_task().unwrap();
}

#[test]
fn a_predictor_on_random_features_shows_its_projection() {
    let options = PredictorOptions::new().readout(Readout::RandomProjection).random_features(50).seed(7);
    let mut predictor = Predictor::with_options(3, &options).unwrap();
    let (x, labels) = features(60, &[0, 1], 1);
    predictor.observe(&x, &labels).unwrap();
    predictor.commit_task().unwrap();
    let projection = predictor.projection().unwrap();
    assert_eq!((projection.rows(), projection.columns()), (3, 50));
    let mean = projection.as_slice().iter().sum::<f64>() / 150.0;
    assert!(mean.abs() < 0.4 && projection.row(0) != projection.row(1));
    assert_eq!(predictor.predict(&x).unwrap()[0].class, labels[0]);
}

#[test]
fn a_session_computes_gradients_and_lowers_a_loss() {
    let model = model();
    let (width, batch) = (model.info().embed_dim, Batch::of(&[0, 1], 2, 0));
    let block = model.info().depth as i32 - 1;
    let site = Site { input_dim: width, output_dim: width, block, projection: Projections::VALUE };
    let options = SessionOptions::new().max_batch(4).threads(1).training(true);
    let mut session = Session::new(&model, Bank::new(&[site]).unwrap(), &options).unwrap();
    let bank = session.bank_mut().unwrap();
    bank.begin_task().unwrap();
    bank.set_residual(0, &noise(2 * width, 1), true).unwrap();
    let count = bank.parameters().unwrap().0.len();
    bank.parameters().unwrap().0.copy_from_slice(&noise(count, 2).iter().map(|v| v * 0.1).collect::<Vec<_>>());

    let terms = Terms::MERGED | Terms::RESIDUAL;
    let target = noise(4 * width, 3);
    let loss_of = |session: &mut Session| -> (f64, Vec<f32>) {
        let features = session.forward(&batch.images(), terms, None).unwrap();
        let difference: Vec<f32> = features.as_slice().iter().zip(&target).map(|(f, t)| f - t).collect();
        (dot(&difference, &difference) / 2.0, difference)
    };
    let (first, difference) = loss_of(&mut session);
    session.backward(&difference).unwrap();
    let gradients = session.bank_mut().unwrap().parameters().unwrap().1.to_vec();
    let steepest = (0..count).max_by(|&a, &b| gradients[a].abs().total_cmp(&gradients[b].abs())).unwrap();
    let mut at = |change: f32| {
        session.bank_mut().unwrap().parameters().unwrap().0[steepest] += change;
        let loss = loss_of(&mut session).0;
        session.bank_mut().unwrap().parameters().unwrap().0[steepest] -= change;
        loss
    };
    let slope = (at(0.005) - at(-0.005)) / 0.01;
    assert!((slope / gradients[steepest] as f64 - 1.0).abs() < 0.02, "{} and {}", slope, gradients[steepest]);

    for _ in 0..20 {
        let (_, difference) = loss_of(&mut session);
        session.backward(&difference).unwrap();
        session.bank_mut().unwrap().step(0.01).unwrap();
    }
    let (last, _) = loss_of(&mut session);
    assert!(last < 0.9 * first, "{} after {}", last, first);

    let tokens = session.input(block as usize, Input::Attention).unwrap();
    assert_eq!((tokens.rows(), tokens.columns()), (4 * model.info().num_tokens, width));
    let early = session.early_features().unwrap();
    assert_eq!((early.rows(), early.columns()), (4, 2 * width));
    assert!(session.profile().unwrap().products > 0.0 && session.workspace_size() > 0);
    session.bank_mut().unwrap().commit_task().unwrap();
    let with_tasks = session.forward(&batch.images(), Terms::MERGED, Some(&[0.0; 4])).unwrap();
    assert_eq!(with_tasks.rows(), 4);
    assert_eq!(session.into_bank().unwrap().num_tasks(), 1);
    assert!(session_without_bank_is_the_backbone(&model, &batch));
}

fn session_without_bank_is_the_backbone(model: &duallora::Model, batch: &Batch) -> bool {
    let mut session = Session::without_bank(model, &SessionOptions::new()).unwrap();
    let features = session.forward(&batch.images(), Terms::EMPTY, None).unwrap();
    let embedded = model.embed(&batch.images()).unwrap();
    features.as_slice().iter().zip(embedded.as_slice()).all(|(a, b)| (a - b).abs() < 1e-4)
}
