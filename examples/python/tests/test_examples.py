# SPDX-License-Identifier: Apache-2.0
"""The example programs run, and print what they promise."""

import re
import subprocess
import sys

import pytest
from conftest import PACKAGE, ROOT

BACKBONE = ROOT / "examples" / "backbones" / "vit_192x6_patch4_32.safetensors"


def output_of(name, *arguments):
    run = subprocess.run([sys.executable, str(PACKAGE / "examples" / name), *map(str, arguments)], capture_output=True,
                         text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_folders_of_photos_are_learned_and_predicted():
    pytest.importorskip("PIL", reason="no Pillow (Debian: python3-pil)")
    text = output_of("learn_folder.py", BACKBONE)
    assert "monday: learned 48 photos of 2 classes" in text and "tuesday: learned 48 photos" in text
    found = re.findall(r"new-(\w+)\.png: (\w+), (\d+)%", text)
    assert len(found) == 4 and sum(kind == label for kind, label, _ in found) >= 3, text


def test_own_features_are_told_apart():
    text = output_of("own_features.py")
    right, = re.findall(r"10 classes in 5 tasks: ([\d.]+)% right", text)
    known, strange = re.findall(r"unknown: ([\d.]+)% of known classes, ([\d.]+)% of a class", text)[0]
    assert float(right) > 95 and float(known) < 15 and float(strange) > 80, text


def test_a_network_of_ones_own_keeps_its_first_task():
    pytest.importorskip("torch", reason="no torch (Debian: python3-torch)")
    text = output_of("lora_in_torch.py")
    (before, after), _ = re.findall(r"task \d: error ([\d.]+) -> ([\d.]+)", text)
    later, = re.findall(r"task 0 after task 1: error ([\d.]+)", text)
    assert float(after) < 0.5 * float(before) and float(later) < 1.5 * float(after) + 0.01, text
