//! Times one prediction of one image by this crate and by the C function alone, alternately on the same learner, and
//! prints both medians.
//!
//!     cargo run --release --example overhead -- BACKBONE [ROUNDS]
// SPDX-License-Identifier: Apache-2.0

use std::error::Error;
use std::ffi::CString;
use std::time::Instant;
use std::{env, fs, process, ptr};

use duallora::{Images, Learner, LearnerOptions, Model};
use duallora_sys as sys;

fn main() -> Result<(), Box<dyn Error>> {
    let backbone = env::args().nth(1).ok_or("usage: overhead BACKBONE [ROUNDS]")?;
    let rounds: usize = env::args().nth(2).map_or(Ok(2000), |text| text.parse())?;

    let model = Model::load(&backbone)?;
    let mut learner = Learner::with_options(&model, &LearnerOptions::new().threads(1).epochs(0))?;
    let pixels: Vec<u8> = (0..8 * 32 * 32 * 3).map(|i| (i * 7 % 251) as u8 / (1 + (i / 12288) as u8)).collect();
    learner.learn_task(&Images::rgb8(&pixels, 8, 32, 32)?, &[0, 0, 0, 0, 1, 1, 1, 1])?;
    let file = env::temp_dir().join(format!("duallora-overhead-{}", process::id()));
    learner.save(&file)?;

    // The same learner by C functions.
    let (path, checkpoint) = (CString::new(backbone)?, CString::new(file.to_str().ok_or("a path in UTF-8")?)?);
    let (mut c_model, mut c_learner) = (ptr::null_mut(), ptr::null_mut());
    let images =
        sys::dlora_images { u8_: pixels.as_ptr(), f32_: ptr::null(), count: 1, height: 32, width: 32, channels: 3 };
    // SAFETY: structs of the sizes told, and handles that outlive their use.
    unsafe {
        let mut options: sys::dlora_learner_options = std::mem::zeroed();
        let failed = sys::dlora_learner_options_init(&mut options, std::mem::size_of_val(&options)) != 0
            || sys::dlora_model_load(&mut c_model, path.as_ptr(), ptr::null()) != 0;
        options.threads = 1;
        options.epochs = 0;
        if failed || sys::dlora_learner_load(&mut c_learner, c_model, checkpoint.as_ptr(), &options) != 0 {
            return Err("the C learner cannot be loaded".into());
        }
    }
    fs::remove_file(&file)?;

    let (mut by_rust, mut by_c) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        let start = Instant::now();
        let prediction = learner.predict_one(&Images::rgb8(&pixels[..32 * 32 * 3], 1, 32, 32)?)?;
        by_rust.push(start.elapsed().as_secs_f64());

        let start = Instant::now();
        // SAFETY: a live learner, one image, and room for one prediction.
        let (status, of_c) = unsafe {
            let mut of_c: sys::dlora_prediction = std::mem::zeroed();
            (sys::dlora_learner_predict(c_learner, &images, &mut of_c, ptr::null_mut()), of_c)
        };
        by_c.push(start.elapsed().as_secs_f64());
        if status != 0 || of_c.class_probability != prediction.class_probability {
            return Err("the C learner predicts something else".into());
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e6
    };
    let (rust, c) = (median(&mut by_rust), median(&mut by_c));
    println!("{:.1} us by Rust, {:.1} us by C: {:+.2} %", rust, c, 100.0 * (rust / c - 1.0));
    // SAFETY: not used again.
    unsafe {
        sys::dlora_learner_destroy(c_learner);
        sys::dlora_model_destroy(c_model);
    }
    Ok(())
}
