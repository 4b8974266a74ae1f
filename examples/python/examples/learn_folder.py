#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Learns folders of photos as tasks, one after the other, and predicts photos.

    python3 learn_folder.py BACKBONE monday/ tuesday/ --predict new1.jpg new2.jpg
    python3 learn_folder.py BACKBONE                       with pictures that it draws

Each folder has one sub-folder a class. The learner is kept in learner.safetensors: when the program is interrupted, the
same command goes on where it was.
"""

import argparse
import pathlib
import tempfile

import duallora


def drawn_pictures(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Two tasks of two classes of striped pictures, and a picture of each class to predict."""
    import numpy as np
    from PIL import Image
    random = np.random.default_rng(0)
    new = []
    for task, kinds in (("monday", ("thin", "thick")), ("tuesday", ("flat", "checked"))):
        for kind in kinds:
            (folder / task / kind).mkdir(parents=True)
            for i in range(25):
                y, x = np.mgrid[0:48, 0:48] + random.integers(0, 12, (2, 1, 1))
                on = {"thin": x // 3 % 2, "thick": x // 12 % 2, "flat": y // 6 % 2, "checked": (x // 6 + y // 6) % 2}[kind]
                pixels = 60 + 130 * on[..., None] + random.integers(-30, 30, (48, 48, 3))
                path = folder / task / kind / f"{i}.png" if i < 24 else folder / f"new-{kind}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            new.append(path)
    return [folder / "monday", folder / "tuesday"], new


def main() -> None:
    parser = argparse.ArgumentParser(description="Learns folders of photos as tasks, and predicts photos.")
    parser.add_argument("backbone")
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--predict", nargs="*", type=pathlib.Path, default=[], metavar="PHOTO")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("learner.safetensors"))
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folders, photos, out, options = arguments.folders, arguments.predict, arguments.out, {}
        if not folders:
            folders, photos = drawn_pictures(pathlib.Path(scratch))
            out, options = pathlib.Path(scratch) / "learner.safetensors", {"epochs": 3}

        model = duallora.Model.load(arguments.backbone)
        learner = duallora.Learner.resume(model, out, **options)
        for folder in folders[learner.num_tasks:]:
            report = learner.learn(folder, progress=True)
            learner.save(out)
            print(f"{folder.name}: learned {report.num_images} photos of {report.num_classes} classes")
        for photo, decision in zip(photos, learner.decide(photos) if photos else []):
            label = learner.labels_of([decision["class_id"]])[0]
            print(f"{photo.name}: {label}, {decision['class_probability']:.0%}" + (", or unknown" if decision["unknown"] else ""))


if __name__ == "__main__":
    main()
