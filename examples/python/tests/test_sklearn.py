# SPDX-License-Identifier: Apache-2.0
"""The classifiers with scikit-learn's interface; its own checks first."""

import pickle

import duallora
import numpy as np
import pytest
from conftest import SMALL, backbone_path, pictures

pytest.importorskip("sklearn", reason="no scikit-learn (Debian: python3-sklearn)")
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import make_blobs  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks  # noqa: E402

from duallora.sklearn import ContinualGaussianClassifier, DualLoRAClassifier  # noqa: E402


@parametrize_with_checks([ContinualGaussianClassifier(), ContinualGaussianClassifier(use_prior=True, standardize=False)])
def test_every_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


def test_check_estimator_passes_whole():
    check_estimator(ContinualGaussianClassifier())


def test_parts_learn_what_the_whole_learns():
    X, y = make_blobs(300, centers=6, n_features=12, cluster_std=4.0, random_state=0)
    labels = np.array(list("ftbace"))[y]
    whole = ContinualGaussianClassifier().fit(X, labels)
    parts = ContinualGaussianClassifier()
    for group in ("ft", "ba", "ce"):
        mine = np.isin(labels, list(group))
        parts.partial_fit(X[mine], labels[mine])
        assert set(parts.classes_) <= set(labels)
    assert parts.classes_.tolist() == sorted("ftbace")
    assert parts.predictor_.num_tasks == 3
    assert whole.score(X, labels) > 0.85 and parts.score(X, labels) > whole.score(X, labels) - 0.03
    probabilities = parts.predict_proba(X)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (parts.classes_[probabilities.argmax(axis=1)] == parts.predict(X)).all()
    again = pickle.loads(pickle.dumps(parts))
    assert np.array_equal(again.predict_proba(X), probabilities)
    again.partial_fit(X[:50], labels[:50])  # known classes, a fourth task
    assert again.predictor_.num_tasks == 4 and len(again.classes_) == 6
    assert np.median(parts.unknown_scores(X + 200)) > np.median(parts.unknown_scores(X))
    with pytest.raises(ValueError, match="classes"):
        parts.partial_fit(X, labels, classes=["a"])


def test_features_may_have_any_magnitude():
    X, y = make_blobs(200, centers=3, n_features=5, random_state=1)
    for scale, shift in ((1e-12, 0), (1e12, 1e15), (1e-3, 1e4), (1, -1e6)):
        assert ContinualGaussianClassifier().fit(X * scale + shift, y).score(X * scale + shift, y) > 0.95


def test_it_works_inside_scikit_learn():
    X, y = make_blobs(200, centers=4, n_features=8, cluster_std=3.0, random_state=2)
    pipeline = make_pipeline(StandardScaler(), ContinualGaussianClassifier())
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8
    search = GridSearchCV(ContinualGaussianClassifier(), {"shrinkage": [0.01, 0.5], "use_prior": [False, True]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.8


@pytest.mark.parametrize("X, y, words", [
    ([[1.0, np.nan], [2.0, 3.0]], [0, 1], "NaN"), ([[1.0, 2.0]], [0, 1], "inconsistent"), ([1.0, 2.0], [0, 1], "2D"),
    ([[1.0], [2.0]], [0.5, 1.5], "continuous"), ([["a"], ["b"]], [0, 1], "."), (np.empty((0, 2)), [], "minimum"),
])
def test_bad_features_are_refused(X, y, words):
    with pytest.raises(ValueError, match=words):
        ContinualGaussianClassifier().fit(X, y)


# ---- images ----


def classifier(**options):
    return DualLoRAClassifier(backbone_path(), **{**SMALL, **options})


def test_images_are_learned_in_parts_and_kept():
    first, labels = pictures([1, 2], 20, 1)
    names = np.array(["", "one", "two", "three", "four"])
    forest = classifier().fit(first, names[labels])
    assert forest.classes_.tolist() == ["one", "two"] and forest.decision_function(first).shape == (40,)
    assert ((forest.decision_function(first) > 0) == (forest.predict(first) == "two")).all()
    second, others = pictures([3, 4], 20, 2)
    forest.partial_fit(list(second), names[others])
    pixels, truth = pictures([1, 2, 3, 4], 5, 3)
    assert forest.score(pixels, names[truth]) > 0.7 and forest.predict_proba(pixels).shape == (20, 4)
    assert forest.score(pixels, names[truth], sample_weight=np.ones(20)) == pytest.approx(forest.score(pixels, names[truth]))
    again = pickle.loads(pickle.dumps(forest))
    assert np.array_equal(again.predict_proba(pixels), forest.predict_proba(pixels))
    with pytest.raises(ValueError, match="classes"):
        forest.partial_fit(first, names[labels], classes=["three"])
    forest.fit(first, names[labels])
    assert forest.classes_.tolist() == ["one", "two"]


def test_parameters_are_the_options_by_name():
    forest = classifier(epochs=3)
    assert forest.get_params()["epochs"] == 3 and forest.get_params()["backbone"] == backbone_path()
    copy = clone(forest)
    assert copy.get_params() == forest.get_params() and not hasattr(copy, "learner_")
    assert copy.set_params(epochs=2, learning_rate=1e-3).get_params()["epochs"] == 2 and forest.get_params()["epochs"] == 3
    with pytest.raises(duallora.ArgumentError, match="did you mean 'epochs'"):
        forest.set_params(epoch=3)
    with pytest.raises(duallora.ArgumentError, match="held_out"):
        forest.set_params(held_out=7.0)
    assert "epochs=3" in repr(forest)
    from sklearn.exceptions import NotFittedError
    with pytest.raises(NotFittedError):
        forest.predict(pictures([1], 1, 1)[0])
    with pytest.raises(duallora.ArgumentError, match="backbone"):
        DualLoRAClassifier().fit(*pictures([1, 2], 4, 1))


def test_grid_search_over_images():
    pixels, labels = pictures([1, 2], 12, 1)
    search = GridSearchCV(classifier(epochs=0), {"rank_residual": [0, 2]}, cv=2).fit(pixels, labels)
    assert search.best_score_ > 0.9
