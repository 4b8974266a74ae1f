#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the reference arrays that test_preprocessing compares with: images of bytes as timm's and transformers' own
transforms turn them into pixels, and position embeddings as torch resamples them.

    python3 -m pip install numpy pillow torch torchvision timm transformers safetensors
        (used: torch 2.15, torchvision 0.29, timm 1.0.31, transformers 5.24, Pillow 13)
    python3 tests/data/make_preprocessing.py

preprocessing.bin is committed; run this only to change it. The transforms are given floats in 0 ... 255 rather than
bytes, so that nothing is rounded. Pillow rounds and clips to bytes after each of the two passes of a resizing,
torchvision on bytes after the second or after both, by the layout of its memory; the library clips at the end and never
rounds. What that makes of the same images is printed, in levels.
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from timm.data import create_transform

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from make_reference import write_bin  # noqa: E402

SIZE, RESIZED = 8, 11  # an odd number of pixels is cut off, and (11 - 8) / 2 is rounded differently by the two
RESAMPLE = {"bilinear": 2, "bicubic": 3}
SHAPES = ((40, 23, 3), (23, 41, 3), (5, 97, 3), (61, 4, 3), (1, 37, 3), (9, 1, 3), (1, 1, 3), (8, 8, 3), (11, 11, 3),
          (8, 13, 3), (33, 26, 1), (90, 71, 3))
# naming, resize, interpolation, pixels that the shorter side or both are resized to
SETTINGS = (("timm", "squash", "bicubic", 8), ("timm", "squash", "bilinear", 8), ("timm", "squash", "bicubic", 11),
            ("timm", "crop", "bicubic", 8), ("timm", "crop", "bicubic", 11), ("timm", "crop", "bilinear", 11),
            ("hf", "squash", "bilinear", 8), ("hf", "squash", "bicubic", 11), ("hf", "crop", "bicubic", 11),
            ("hf", "crop", "bilinear", 11))


def make_image(height, width, channels, seed):
    """Waves, noise, and patches of black and white, beside which a cubic overshoots."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    image = np.empty((height, width, channels))
    for c in range(channels):
        a, b, p = rng.uniform(-9, 9), rng.uniform(-9, 9), rng.uniform(0, 6.28)
        image[:, :, c] = 128 + 80 * np.sin(a * y / height + b * x / width + p) + rng.uniform(-40, 40, (height, width))
    for level in (0, 255, 0, 255):
        top, left = rng.integers(0, height), rng.integers(0, width)
        image[top:top + 1 + height // 5, left:left + 1 + width // 5] = level
    return np.clip(image, 0, 255).astype(np.uint8)


def transform_of(naming, resize, interpolation, size, resized, pil=False):
    """The family's own, up to pixels in 0 ... 255: [3, size, size]."""
    if naming == "timm":
        fraction = 0.72 if (size, resized) == (SIZE, RESIZED) else size / resized  # 8 / 0.72 is 11.1, rounded down
        return create_transform(input_size=(3, size, size), is_training=False, interpolation=interpolation,
                                crop_pct=fraction, crop_mode="squash" if resize == "squash" else "center",
                                normalize=False)
    square = {"height": size, "width": size}
    options = dict(resample=RESAMPLE[interpolation], do_rescale=False, do_normalize=False)
    suffix = "Pil" if pil else ""
    if resize == "crop":
        options.update(size={"shortest_edge": resized}, crop_size=square)
        processor = getattr(transformers, "CLIPImageProcessor" + suffix)(**options)
    elif resized != size:
        options.update(size={"height": resized, "width": resized}, crop_size=square)
        processor = getattr(transformers, "DeiTImageProcessor" + suffix)(**options)
    else:
        processor = getattr(transformers, "ViTImageProcessor" + suffix)(size=square, **options)
    return lambda image: processor(image, return_tensors="pt")["pixel_values"][0]


def rgb(image):
    return np.repeat(image, 3, 2) if image.shape[2] == 1 else image


def tensor_of(image):
    return torch.from_numpy(rgb(image)).permute(2, 0, 1).contiguous()


def unrounded(setting, image, size, resized):
    pixels = transform_of(*setting, size, resized)(tensor_of(image).double())
    assert pixels.shape == (3, size, size) and pixels.dtype == torch.float64
    return pixels.clamp(0, 255)  # as bytes would be


def check_against_bytes(setting, image, size, resized):
    """Differences of bytes by Pillow and by torchvision from the pixels before rounding."""
    expected = unrounded(setting, image, size, resized)
    by_pillow = transform_of(*setting, size, resized, True)(Image.fromarray(rgb(image))).double()
    by_torchvision = transform_of(*setting, size, resized)(tensor_of(image)).double()
    return [(found - expected).flatten() for found in (by_pillow, by_torchvision)]


def dinov3_is_a_squash(image):
    """transformers' DINOv3 divides by 255 before it resizes: the same but for the rounding of floats."""
    processor = transformers.DINOv3ViTImageProcessor(size={"height": SIZE, "width": SIZE}, do_normalize=False)
    found = processor(tensor_of(image), return_tensors="pt")["pixel_values"][0] * 255
    return (found - unrounded(("hf", "squash", "bilinear"), image, SIZE, SIZE)).abs().max().item()


def resample_positions(positions, grid):
    """positions [side, side, dim], as Dinov2Embeddings.interpolate_pos_encoding does it."""
    p = torch.from_numpy(positions).double().permute(2, 0, 1)[None]
    return F.interpolate(p, size=(grid, grid), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)


def main():
    arrays, differences = {}, ([], [])
    images = [make_image(*shape, 40 + i) for i, shape in enumerate(SHAPES)]
    for i, image in enumerate(images):
        arrays[f"image.{i}"] = image
        assert dinov3_is_a_squash(image) < 1e-3
        for *setting, resized in SETTINGS:
            arrays[f"{'.'.join(setting)}.{resized}.{i}"] = unrounded(setting, image, SIZE, resized)
            for kind, found in zip(differences, check_against_bytes(setting, image, SIZE, resized)):
                kind.append(found)
    rng = np.random.default_rng(7)
    for side, grid in ((5, 2), (5, 3), (5, 9), (2, 3), (1, 2)):
        positions = rng.standard_normal((side, side, 4)).astype(np.float32)
        arrays[f"positions.{side}.{grid}"] = positions
        arrays[f"resampled.{side}.{grid}"] = resample_positions(positions, grid)
    write_bin("preprocessing.bin", arrays)

    photograph = make_image(480, 640, 3, 99)
    rows = [("these images", differences)]
    for interpolation in ("bicubic", "bilinear"):
        found = check_against_bytes(("timm", "crop", interpolation), photograph, 224, 248)
        rows.append((f"480 x 640 to 224, {interpolation}", [[d] for d in found]))
    print("bytes less pixels before rounding, in levels: largest and root mean square")
    for title, kinds in rows:
        for name, kind in zip(("Pillow", "torchvision on bytes"), kinds):
            largest = torch.cat(kind).abs().max()
            mean_square = torch.cat(kind).pow(2).mean()
            print(f"  {title:27} {name:22} {largest:.3f} {mean_square.sqrt():.3f}")
            assert mean_square < 1, "more than rounding and clipping: another size, or another part is cut out"


if __name__ == "__main__":
    main()
