#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Learns classes from features of any network, with the predictor alone. Nothing is trained, and no feature is kept.

    python3 own_features.py
"""

import duallora
import numpy as np

random = np.random.default_rng(0)
DIM, CLASSES = 64, 10
centres = random.standard_normal((CLASSES + 1, DIM))


def features(labels: np.ndarray) -> np.ndarray:
    """Stands for your network: float32 [n, DIM]."""
    return (centres[labels] + 0.8 * random.standard_normal((len(labels), DIM))).astype(np.float32)


predictor = duallora.Predictor(DIM)
for task in range(5):  # two new classes each, from 30 samples a class
    labels = np.repeat([2 * task, 2 * task + 1], 30)
    predictor.observe(features(labels), labels)
    predictor.commit_task()

truth = random.integers(0, CLASSES, 1000)
decisions = predictor.predict(features(truth))
right = decisions["class_id"] == truth
print(f"{predictor.num_classes} classes in {predictor.num_tasks} tasks: {right.mean():.1%} right, "
      f"mean probability {decisions['class_probability'].mean():.1%}")
strangers = predictor.predict(features(np.full(1000, CLASSES)))
print(f"unknown: {decisions['unknown'].mean():.1%} of known classes, {strangers['unknown'].mean():.1%} of a class never seen")

# The same with labels of any kind, in scikit-learn's world.
try:
    from duallora.sklearn import ContinualGaussianClassifier
except ImportError:
    print("scikit-learn is not there")
else:
    names = np.array(["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibex", "jay"])
    classifier = ContinualGaussianClassifier()
    for task in range(5):
        labels = np.repeat([2 * task, 2 * task + 1], 30)
        classifier.partial_fit(features(labels), names[labels])
    print(f"ContinualGaussianClassifier: {classifier.score(features(truth), names[truth]):.1%} right")
