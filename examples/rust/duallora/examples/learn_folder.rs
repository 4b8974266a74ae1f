//! Learns a folder of photos, one folder a class, as the next task of a learner; then classifies photos.
//!
//!     cargo run --release --features image --example learn_folder -- BACKBONE LEARNER FOLDER [PHOTO ...]
//!
//! LEARNER is the file that keeps what was learned. It is made by the first call and extended by later ones. A class is
//! recognised by its folder's name. A fifth of each class is kept back to test on.
// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::{env, fs};

use duallora::{Learner, Model, Phase, Source};
use image::DynamicImage;
use indicatif::{ProgressBar, ProgressStyle};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [backbone, file, folder, photos @ ..] = &arguments[..] else {
        return Err("usage: learn_folder BACKBONE LEARNER FOLDER [PHOTO ...]".into());
    };
    let model = Model::load(backbone)?;
    let mut learner = if Path::new(file).exists() { Learner::load(&model, file)? } else { Learner::new(&model)? };

    let classes = photos_by_class(Path::new(folder))?;
    let (mut train, mut test) = (Labelled::default(), Labelled::default());
    for (name, photos) in &classes {
        let class = class_of(&mut learner, name)?;
        for (i, photo) in photos.iter().enumerate() {
            let set = if i % 5 == 4 { &mut test } else { &mut train };
            set.photos.push(photo.clone());
            set.labels.push(class);
        }
    }

    show_progress(&mut learner);
    let report = learner.learn_source(&mut train.source())?;
    println!("task {}: {} photos of {} classes", report.task, report.num_images, report.num_classes);
    if !test.labels.is_empty() {
        let evaluation = learner.evaluate(&mut test.source())?;
        println!("{:.1} % of {} other photos are right", 100.0 * evaluation.accuracy, evaluation.num_images);
    }
    learner.save(file)?;

    let images = photos.iter().map(image::open);
    for (photo, prediction) in photos.iter().zip(learner.predictions(images, 16)) {
        let prediction = prediction?;
        let name = learner.class_name(prediction.class).unwrap_or_default();
        let note = if prediction.unknown { ", unlike all that was learned" } else { "" };
        println!("{}: {} ({:.0} %){}", photo, name, 100.0 * prediction.class_probability, note);
    }
    Ok(())
}

/// The class with a name, or a new one.
fn class_of(learner: &mut Learner, name: &str) -> Result<i64> {
    let mut next = 0;
    loop {
        match learner.class_name(next) {
            Some(known) if known == name => return Ok(next),
            Some(_) => next += 1,
            None => break,
        }
    }
    learner.set_class_name(next, name)?;
    Ok(next)
}

fn photos_by_class(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut classes = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let class = entry?.path();
        if !class.is_dir() {
            continue;
        }
        let mut photos = fs::read_dir(&class)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        photos.retain(|photo| image::ImageFormat::from_path(photo).is_ok());
        photos.sort();
        if let (Some(name), false) = (class.file_name(), photos.is_empty()) {
            classes.insert(name.to_string_lossy().into_owned(), photos);
        }
    }
    if classes.is_empty() {
        return Err(format!("{} has no folders with photos", folder.display()).into());
    }
    Ok(classes)
}

#[derive(Default)]
struct Labelled {
    photos: Vec<PathBuf>,
    labels: Vec<i64>,
}

impl Labelled {
    /// Photos are read when they are needed: one at a time, from the disk each time.
    fn source(&self) -> Source<'_> {
        Source::new(&self.labels, |i| open(&self.photos[i]))
    }
}

fn open(photo: &Path) -> Result<DynamicImage> {
    image::open(photo).map_err(|error| format!("{}: {}", photo.display(), error).into())
}

fn show_progress(learner: &mut Learner) {
    let style = ProgressStyle::with_template("{prefix:10} {wide_bar} {pos}/{len} {msg}").expect("a valid template");
    let bar = ProgressBar::new(0).with_style(style);
    learner.set_progress(move |progress| {
        bar.set_prefix(match progress.phase {
            Phase::Observe => "looking",
            Phase::Train => "training",
            Phase::Statistics => "counting",
            _ => "testing",
        });
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if progress.phase == Phase::Train {
            bar.set_message(format!("loss {:.3}", progress.loss));
        }
        if progress.done == progress.total {
            bar.set_message("");
        }
        ControlFlow::Continue(())
    });
}
