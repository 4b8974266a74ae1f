//! The example learns folders of photos, one after the other, and knows all of them afterwards.
// SPDX-License-Identifier: Apache-2.0
#![cfg(feature = "image")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use image::RgbImage;
use support::{backbone, picture, Folder, SIDE};

fn example() -> PathBuf {
    let this = env::current_exe().unwrap(); // target/debug/deps/folder-...
    this.ancestors().nth(2).unwrap().join("examples").join("learn_folder")
}

fn write_class(folder: &Path, name: &str, class: i64) {
    fs::create_dir_all(folder.join(name)).unwrap();
    for i in 0..15 {
        let side = SIDE as u32;
        let photo = RgbImage::from_raw(side, side, picture(class, i)).unwrap();
        photo.save(folder.join(name).join(format!("{:02}.{}", i, ["png", "jpg", "bmp"][i % 3]))).unwrap();
    }
    fs::write(folder.join(name).join("notes.txt"), "no photo").unwrap();
}

#[test]
fn two_folders_are_learned_one_after_the_other() {
    let folder = Folder::new();
    write_class(&folder.path("first"), "red bars", 0);
    write_class(&folder.path("first"), "red planks", 1);
    write_class(&folder.path("second"), "green bars", 2);
    write_class(&folder.path("second"), "green planks", 3);
    let backbone = backbone();
    let run = |photos: &str, more: &[PathBuf]| {
        let output = Command::new(example())
            .args([&backbone, &folder.path("learner.safetensors"), &folder.path(photos)])
            .args(more)
            .env("OMP_WAIT_POLICY", "passive") // other tests run beside
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}{}", text, String::from_utf8_lossy(&output.stderr));
        text
    };
    let text = run("first", &[]);
    assert!(text.contains("task 0: 24 photos of 2 classes"), "{}", text);
    let photos = [folder.path("first/red planks/04.jpg"), folder.path("second/green bars/04.jpg")];
    let text = run("second", &photos);
    assert!(text.contains("task 1: 24 photos of 2 classes"), "{}", text);
    let named = |line: &str, photo: &str| {
        let (path, rest) = line.split_once(": ").unwrap();
        let names = ["red bars", "red planks", "green bars", "green planks"];
        path.ends_with(photo) && rest.ends_with("%)") && names.iter().any(|name| rest.starts_with(name))
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{}", text);
    assert!(named(lines[2], "first/red planks/04.jpg") && named(lines[3], "second/green bars/04.jpg"), "{}", text);
    let accuracy: f64 = lines[1].split(' ').next().unwrap().parse().unwrap();
    assert!(accuracy >= 50.0, "{}", text);

    let output = Command::new(example()).args([&backbone, &folder.path("x"), &folder.path("none")]).output().unwrap();
    assert!(!output.status.success());
}
