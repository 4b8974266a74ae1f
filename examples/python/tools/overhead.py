#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what a prediction of one image costs from Python beyond the same call from C.

    python3 tools/overhead.py BACKBONE [ROUNDS]

A learner of two classes predicts one image of the backbone's size with one thread. Calls alternate: one from a compiled C
loop, one through Learner.decide. Printed are the medians and their difference. Needs a C compiler (cc, or $CC).
"""

import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time

import duallora
import numpy as np
from duallora._images import struct_of
from duallora._library import library

SOURCE = r"""
#include <stdint.h>
#include <time.h>
double timed(int32_t (*predict)(const void *, const void *, void *, float *), const void *learner, const void *images,
             void *predictions) {
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  int32_t status = predict(learner, images, predictions, 0);
  clock_gettime(CLOCK_MONOTONIC, &end);
  return status ? -1 : (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
}
"""


def compiled(folder):
    source, path = os.path.join(folder, "timed.c"), os.path.join(folder, "timed.so")
    with open(source, "w") as file:
        file.write(SOURCE)
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", source, "-o", path], check=True)
    function = ctypes.CDLL(path).timed
    function.restype, function.argtypes = ctypes.c_double, 4 * [ctypes.c_void_p]
    return function


def main():
    backbone, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300
    model = duallora.Model.load(backbone, threads=1)
    side = model.info.image_size
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, side, side, 3), np.uint8)
    learner = duallora.Learner(model, threads=1, epochs=1)
    learner.learn(images, [0, 1] * 10)
    image, found = images[:1], np.empty(1, duallora.PREDICTION)
    struct = struct_of(image)
    predict = ctypes.cast(library.learner_predict, ctypes.c_void_p)
    in_c, in_python = [], []
    with tempfile.TemporaryDirectory() as folder, learner._shared as pointer:
        timed = compiled(folder)
        for i in range(rounds + 20):
            c = timed(predict, pointer, ctypes.byref(struct), found.ctypes.data)
            begin = time.perf_counter()
            learner.decide(image)
            python = time.perf_counter() - begin
            if i >= 20:
                in_c.append(c)
                in_python.append(python)
    c, python = statistics.median(in_c), statistics.median(in_python)
    print(f"{1e6 * c:.1f} us from C, {1e6 * python:.1f} us from Python: {1e6 * (python - c):+.1f} us, {python / c - 1:+.2%}")


if __name__ == "__main__":
    main()
