#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which backbones the library runs, and how exactly: writes docs/BACKBONES.md.

    tests/backbones/coverage.sh --library build-release/libduallora.so              all of it, some ten minutes
    tests/backbones/coverage.sh --library build-release/libduallora.so --only clip  architectures whose names match; prints

Run it through coverage.sh, which finds or makes the environment. For every plain Vision Transformer of timm, and for
classes of transformers, it makes a small random model of that architecture: the same modules, fewer and narrower blocks,
every parameter away from its initial value. The library opens the file by its public header and computes features, and
the gradients of adapters at every projection of every block; torch computes them in float64. What a file's tensors do
not tell (heads, and where the library supposes another one: epsilon, activation, pooling) is given as options.

It fails if a backbone loads and then differs by more than 1e-4; if less than 90 % of timm's plain Vision Transformers
load, or one of the short selection does not; or if a class of transformers does not that is not known to be refused.
"""

import argparse
import os
import re
import sys
import tempfile
import warnings

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import hf_models  # noqa: E402
import timm_models  # noqa: E402
from library import ACTIVATIONS, POOLS, Library, Refused  # noqa: E402
from models import (difference, find_weights, gradient_difference, make_adapters,  # noqa: E402
                    reference_gradients)
from table import write_document  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs", "BACKBONES.md")
TOLERANCE = 1e-4
IMAGES, RANK = 2, 2
LEAST_OF_TIMM = 0.9
# Families of transformers with what the library does not have: relative positions, layer scales by other names, a head.
REFUSED = {"BEiT", "BEiT, absolute positions", "Data2Vec", "AIMv2 with a head"}
# One architecture of each family, for machines that have the packages at every run of the tests.
SHORT_TIMM = (
    "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224", "vit_small_patch16_dinov3", "vit_small_plus_patch16_dinov3_qkvb",
    "vit_base_patch16_clip_quickgelu_224", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224",
    "vit_wee_patch16_reg1_gap_256", "eva_giant_patch14_clip_224",
)


class Result:
    def __init__(self, row, counted):
        self.family, self.name, self.naming, self.counted = row.family, row.name, row.naming, counted
        self.settings = []  # what a caller has to set beside the number of heads
        self.features = self.gradients = self.sentence = None

    @property
    def loads(self):
        return self.sentence is None

    @property
    def differs(self):
        worst = max(v for v in (self.features, self.gradients, 0.0) if v is not None)
        return self.loads and not worst <= TOLERANCE


def open_settled(library, path, row, result):
    """Loads it by the number of heads alone, and then with what the library supposed otherwise. A folder tells all."""
    settings = {} if row.folder else {"num_heads": row.heads}
    model = library.load(path, settings)
    info = model.info
    if row.eps and abs(info.layer_norm_eps - row.eps) > 1e-3 * row.eps:
        settings["layer_norm_eps"] = row.eps
        result.settings.append("eps")
    if row.activation and ACTIVATIONS[info.activation] != row.activation:
        settings["activation"] = ACTIVATIONS.index(row.activation)
        result.settings.append("activation")
    if row.size and info.image_size != row.size:
        settings["image_size"] = row.size
        result.settings.append("image_size")
    supposed = POOLS[info.pool]
    if supposed == "MEAN_TOKENS" and info.num_prefix_tokens == 0:
        supposed = "MEAN_PATCHES"  # the same
    if row.pool and supposed != row.pool:
        settings["pool"] = POOLS.index(row.pool)
        result.settings.append("pool")
    model.close()
    return library.load(path, settings), supposed, settings


def compare_features(model, row, pool, x):
    module = row.module(pool)
    with torch.no_grad():
        expected = module(torch.from_numpy(x).double()).numpy()
    found = model.features(x)
    if not np.isfinite(expected).all():
        raise ValueError("the reference is not finite")
    return difference(found, expected) if found.shape == expected.shape else float("inf")


def compare(library, row, result, path):
    model, supposed, settings = open_settled(library, path, row, result)
    size = model.info.image_size
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(IMAGES, 3, size, size, generator=generator).numpy()
    try:
        result.features = compare_features(model, row, row.pool, x)
        module = row.module(row.pool)
        weights = find_weights(module)
        if not weights:
            raise ValueError("the projections of a block were not found")
        adapters = make_adapters(module, weights, RANK, 5)
        dz = torch.randn(IMAGES, model.info.embed_dim, generator=generator).numpy()
        found, gradients = model.gradients(x, adapters, dz)
        expected, references = reference_gradients(module, weights, adapters, torch.from_numpy(x).double(), dz)
        result.features = max(result.features, difference(found, expected))
        result.gradients = gradient_difference(gradients, references)
    finally:
        model.close()
    if supposed != row.pool and supposed in row.features:  # what the library supposes is a feature of the model, too
        model = library.load(path, {k: v for k, v in settings.items() if k != "pool"})
        result.features = max(result.features, compare_features(model, row, supposed, x))
        model.close()


def run_row(library, row, counted, folder):
    result = Result(row, counted)
    path = os.path.join(folder, "model" if row.folder else "model.safetensors")
    row.save(path)
    try:
        compare(library, row, result, path)
    except Refused as refusal:
        result.sentence = str(refusal).replace(path + ": ", "").replace(path + "/", "")
    return result


def sources(short, only):
    """[(function that yields rows, its argument, whether it counts)]"""
    chosen = [(timm_models.rows, name, counted) for name, counted in timm_models.architectures()]
    if short:
        chosen = [c for c in chosen if c[1] in SHORT_TIMM]
    chosen += [(hf_models.rows, i, True) for i in range(len(hf_models.CLASSES))]
    if only:
        chosen = [c for c in chosen
                  if re.search(only, c[1] if isinstance(c[1], str) else hf_models.CLASSES[c[1]][1])]
    return chosen


def failures(results, short):
    """Sentences of what must not be."""
    found = [f"{r.name} ({r.naming}) differs by more than {TOLERANCE:g}" for r in results if r.differs]
    timm_rows = [r for r in results if r.naming == "timm"]
    found += [f"{r.name} ({r.naming}) does not load: {r.sentence}" for r in results
              if not r.loads and (short if r.naming == "timm" else r.family not in REFUSED)]
    plain = [r.loads for r in timm_rows if r.counted]
    if plain and not short and sum(plain) < LEAST_OF_TIMM * len(plain):
        found.append(f"{sum(plain)} of {len(plain)} plain Vision Transformers of timm load, "
                     f"expected {100 * LEAST_OF_TIMM:g} %")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="libduallora.so")
    parser.add_argument("--short", action="store_true", help="one architecture of each family; writes nothing")
    parser.add_argument("--only", metavar="REGEX", help="architectures and classes whose names match; writes nothing")
    parser.add_argument("--output", default=DOCUMENT, help="default: docs/BACKBONES.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    library = Library(options.library)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for rows, argument, counted in sources(options.short, options.only):
            for row in rows(argument, 17):
                result = run_row(library, row, counted, folder)
                results.append(result)
                outcome = result.sentence or (f"features {result.features:.1e}  gradients {result.gradients:.1e}"
                                              + ("  set: " + ", ".join(result.settings) if result.settings else ""))
                print(f"{'DIFFERS ' if result.differs else ''}{result.family} | {result.name} | {result.naming}: "
                      f"{outcome}", flush=True)
    print(f"{sum(r.loads for r in results)} of {len(results)} load, "
          f"{sum(r.differs for r in results)} of these differ by more than {TOLERANCE:g}")
    if not options.short and not options.only:
        versions = (f"torch {torch.__version__.split('+')[0]}, timm {timm.__version__}, "
                    f"transformers {transformers.__version__}")
        write_document(options.output, results, versions, TOLERANCE)
    bad = failures(results, options.short) if not options.only else [r.name for r in results if r.differs]
    for sentence in bad:
        print("FAILED: " + sentence)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
