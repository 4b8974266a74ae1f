//! Pictures, a small backbone and folders for tests.
// SPDX-License-Identifier: Apache-2.0
#![allow(dead_code)] // each test uses a part

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use duallora::{Images, LearnerOptions, Model};

pub const SIDE: usize = 32;
pub const PICTURE: usize = SIDE * SIDE * 3;

pub fn backbone() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/data/tiny_timm_f32.safetensors")
}

pub fn model() -> Model {
    Model::load(backbone()).unwrap()
}

/// Stripes in the class's direction and colour, with noise.
pub fn picture(class: i64, number: usize) -> Vec<u8> {
    let mut state = (class as u64 + 1) * 7919 + number as u64 * 104729 + 1;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let phase = random() % 8;
    let mut pixels = Vec::with_capacity(PICTURE);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let along = if class % 2 == 0 { x } else { y };
            let bright = if (along + phase) % 8 < 4 { 200 } else { 60 };
            for channel in 0..3 {
                let dimmed = bright / if channel == (class / 2) as usize % 3 { 1 } else { 3 };
                pixels.push((dimmed + random() % 50) as u8);
            }
        }
    }
    pixels
}

pub struct Batch {
    pub pixels: Vec<u8>,
    pub labels: Vec<i64>,
}

impl Batch {
    pub fn of(classes: &[i64], per_class: usize, first: usize) -> Batch {
        let labels: Vec<i64> = (0..per_class).flat_map(|_| classes.iter().copied()).collect();
        let pixels = labels.iter().enumerate().flat_map(|(i, &class)| picture(class, first + i)).collect();
        Batch { pixels, labels }
    }

    pub fn images(&self) -> Images<'_> {
        Images::rgb8(&self.pixels, self.labels.len(), SIDE, SIDE).unwrap()
    }

    pub fn one(&self, index: usize) -> Images<'_> {
        Images::rgb8(&self.pixels[index * PICTURE..][..PICTURE], 1, SIDE, SIDE).unwrap()
    }
}

/// Quick, and the same on every machine.
pub fn options() -> LearnerOptions {
    LearnerOptions::new().epochs(2).rank_orthogonal(2).rank_residual(2).batch_size(4).threads(1).seed(3)
}

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("duallora-test-{}-{}", process::id(), number));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
