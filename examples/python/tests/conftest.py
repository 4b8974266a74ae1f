# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the package, a tiny backbone, and pictures.

    python3 -m pytest examples/python/tests      the package of this folder, with $DUALLORA_LIBRARY or the library of
                                                 build-release/ or build/; with DUALLORA_TEST_INSTALLED=1 the installed one
"""

import os
import pathlib
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parent
ROOT = PACKAGE.parents[1]
if not os.environ.get("DUALLORA_TEST_INSTALLED"):
    sys.path.insert(0, str(PACKAGE))
    # Processes that tests start find it too.
    for build in ("build-release", "build"):
        if "DUALLORA_LIBRARY" not in os.environ and (ROOT / build / "libduallora.so").exists():
            os.environ["DUALLORA_LIBRARY"] = str(ROOT / build / "libduallora.so")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])

import duallora  # noqa: E402

SMALL = {"threads": 1, "epochs": 1, "rank_orthogonal": 2, "rank_residual": 2}


def backbone_path(name="tiny_timm_f32"):
    return str(ROOT / "tests" / "data" / f"{name}.safetensors")


def pictures(classes, each, seed, side=16):
    """Flat colours with noise, one colour a class: uint8 [n, side, side, 3], and labels in turn."""
    random = np.random.RandomState(seed)
    labels = np.tile(np.array(classes, np.int64), each)
    colours = np.random.RandomState(7).randint(40, 216, size=(100, 1, 1, 3))
    pixels = colours[labels % 100] + random.randint(-30, 31, size=(len(labels), side, side, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def model():
    with duallora.Model.load(backbone_path(), threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def learned(model):
    """A learner of four classes in two tasks; to be read only."""
    learner = duallora.Learner(model, **SMALL)
    learner.learn(*pictures([3, 50], 20, 1))
    learner.learn(*pictures([-7, 2**40 + 5], 20, 2))
    return learner
