# SPDX-License-Identifier: Apache-2.0
"""Classifiers with scikit-learn's interface.

ContinualGaussianClassifier works on features of any kind. DualLoRAClassifier works on images. Both learn on with
partial_fit: old classes stay, without their data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y

from ._images import open_labelled
from .errors import ArgumentError
from .learner import Learner
from .model import Model
from .predictor import Predictor

Array = npt.NDArray[Any]

__all__ = ["ContinualGaussianClassifier", "DualLoRAClassifier"]


def _decision(log_probs: Array) -> Array:
    """scikit-learn's decision function: [n, classes], of two classes [n], above 0 for the second."""
    return np.asarray(log_probs[:, 1] - log_probs[:, 0]) if log_probs.shape[1] == 2 else log_probs


class ContinualGaussianClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gaussians with a common, shrunk covariance, learned in any number of parts, with calibrated probabilities.

    Each call of partial_fit is a task. Its samples may be of new classes or of known ones. What is kept are sums:
    memory does not grow with samples.

    Parameters
    ----------
    shrinkage : float or "auto"
        Of the covariance towards its mean diagonal; "auto" follows the number of samples.
    temperature : float
        T of the posterior until one is fitted, which the first task with several samples a class does.
    use_prior : bool
        Whether frequencies of classes enter the posterior.
    standardize : bool
        Whether features are shifted and scaled by mean and standard deviation of the first samples; they may then be of
        any magnitude.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), sorted
    n_features_in_ : int
    predictor_ : duallora.Predictor
    """

    def __init__(self, shrinkage: Any = "auto", temperature: float = 2.0, use_prior: bool = False,
                 standardize: bool = True) -> None:
        self.shrinkage = shrinkage
        self.temperature = temperature
        self.use_prior = use_prior
        self.standardize = standardize

    def fit(self, X: Any, y: Any) -> ContinualGaussianClassifier:
        """Learns from X (n_samples, n_features) and y (n_samples,) alone: what was learned before is forgotten."""
        X, y = self._checked(X, y, reset=True)
        self._start(X)
        return self._learn(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> ContinualGaussianClassifier:
        """Learns from X and y as a further task. classes is not needed, since classes may come at any time; if given,
        labels outside of it are refused."""
        first = not hasattr(self, "predictor_")
        X, y = self._checked(X, y, reset=first)
        if classes is not None:
            unknown = np.setdiff1d(y, classes)
            if len(unknown) > 0:
                raise ValueError(f"y has labels that are not in classes: {unknown.tolist()}")
        if first:
            self._start(X)
        return self._learn(X, y)

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Array, Array]:
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        if reset:
            self._note_names(X)
        X, y = check_X_y(X, y, dtype=np.float64)
        check_classification_targets(y)
        if reset:
            self.n_features_in_ = X.shape[1]
        else:
            self._same_width(X)
        return X, y

    def _note_names(self, X: Any) -> None:
        columns = getattr(X, "columns", None)
        if columns is not None and all(isinstance(name, str) for name in columns):
            self.feature_names_in_ = np.asarray(columns, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _same_names(self, X: Any) -> None:
        """scikit-learn's check of the names of columns, where it has one."""
        check = getattr(BaseEstimator, "_check_feature_names", None)
        if check is not None:
            check(self, X, reset=False)
        else:
            from sklearn.utils.validation import _check_feature_names
            _check_feature_names(self, X, reset=False)

    def _same_width(self, X: Array) -> None:
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                             "features as input.")

    def _start(self, X: Array) -> None:
        self.predictor_ = Predictor(X.shape[1], shrinkage=self.shrinkage, temperature=self.temperature,
                                    use_prior=bool(self.use_prior))
        self._labels: Array | None = None
        self._shift, self._scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
        if self.standardize:
            self._shift = X.mean(axis=0)
            deviation = X.std(axis=0)
            # A feature that is constant but for roundings tells nothing; it is not blown up.
            noise = 1e-6 * np.maximum(np.abs(self._shift), np.abs(X).max(axis=0))
            self._scale = np.where(deviation > noise, deviation, 1.0)

    def _scaled(self, X: Array) -> Array:
        limit = float(np.finfo(np.float32).max) / 1e6
        return np.clip((X - self._shift) / self._scale, -limit, limit).astype(np.float32)

    def _learn(self, X: Array, y: Array) -> ContinualGaussianClassifier:
        known = np.empty(0, y.dtype) if self._labels is None else self._labels
        # Ids in order of appearance: those of known labels stay.
        labels = np.concatenate([known, np.setdiff1d(y, known)])
        order = np.argsort(labels, kind="stable")
        ids = order[np.searchsorted(labels[order], y)]
        self.predictor_.observe(self._scaled(X), ids)
        try:
            self.predictor_.commit_task()
        except BaseException:
            self.predictor_.discard_task()
            raise
        self._labels = labels
        self.classes_ = unique_labels(labels)
        self._columns = np.searchsorted(self.classes_, labels[self.predictor_.classes])
        return self

    def _samples(self, X: Any) -> Array:
        check_is_fitted(self)
        self._same_names(X)
        X = check_array(X, dtype=np.float64)
        self._same_width(X)
        return self._scaled(X)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of probabilities (n_samples, n_classes), in the order of classes_."""
        samples = self._samples(X)
        log_probs = self.predictor_.class_log_probs(samples)
        ordered = np.empty(log_probs.shape)
        ordered[:, self._columns] = log_probs
        return ordered

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n_samples, n_classes), in the order of classes_."""
        return np.exp(self.predict_log_proba(X))

    def decision_function(self, X: Any) -> Array:
        """Log-probabilities (n_samples, n_classes); of two classes their difference (n_samples,)."""
        return _decision(self.predict_log_proba(X))

    def predict(self, X: Any) -> Array:
        """The most probable class of each sample (n_samples,)."""
        log_probs = self.predict_log_proba(X)
        return np.asarray(self.classes_[log_probs.argmax(axis=1)])

    def unknown_scores(self, X: Any) -> Array:
        """How little each sample is like any learned class (n_samples,): higher is stranger."""
        return self.predictor_.posterior(self._samples(X)).unknown_scores


class DualLoRAClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A Vision Transformer that learns classes of images, task after task.

    classifier = DualLoRAClassifier("vit.safetensors", epochs=4)
    classifier.fit(images, labels).predict(others)
    classifier.partial_fit(new_images, new_labels)    # old classes stay

    Parameters
    ----------
    backbone : path of a backbone, or a duallora.Model
    paper : begin with the options of the paper
    options : options of duallora.Learner by name; get_params and set_params know all that differ from the defaults

    X is a sequence of images in any form that duallora.Model describes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), in order of first appearance
    learner_ : duallora.Learner
    """

    def __init__(self, backbone: Any = None, *, paper: bool = False, **options: Any) -> None:
        self.backbone = backbone
        self.paper = paper
        self._options: dict[str, Any] = dict(options)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters by name."""
        return {"backbone": self.backbone, "paper": self.paper, **self._options}

    def set_params(self, **params: Any) -> DualLoRAClassifier:
        """Sets parameters by name; options of the learner are checked. They count from the next fit on."""
        from ._options import LearnerOptions
        options = {name: value for name, value in params.items() if name not in ("backbone", "paper")}
        LearnerOptions(self.paper).set({**self._options, **options}).check()
        self.backbone = params.get("backbone", self.backbone)
        self.paper = params.get("paper", self.paper)
        self._options.update(options)
        return self

    def fit(self, X: Any, y: Any = None) -> DualLoRAClassifier:
        """Learns images X with labels y as one task: what was learned before is forgotten. y None: X is a folder with
        one sub-folder a class, or a dataset of pairs."""
        learner = self._new()
        learner.learn(X, y)
        self.learner_ = learner
        return self

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> DualLoRAClassifier:
        """Learns images X with labels y as a further task. classes: if given, labels outside of it are refused."""
        opened, labels = open_labelled(X, y)
        if classes is not None:
            unknown = set(labels) - set(classes)
            if unknown:
                raise ArgumentError(f"y has labels that are not in classes: {sorted(map(str, unknown))}")
        learner = self.learner_ if hasattr(self, "learner_") else self._new()
        learner.learn(opened, labels)
        self.learner_ = learner
        return self

    def _new(self) -> Learner:
        if self.backbone is None:
            raise ArgumentError("backbone is missing: the path of a backbone, or a duallora.Model")
        model = self.backbone if isinstance(self.backbone, Model) else Model.load(self.backbone)
        return Learner(model, paper=self.paper, **self._options)

    @property
    def classes_(self) -> Array:
        """Labels, in the order of the columns of predict_proba."""
        return self._fitted().classes_

    def _fitted(self) -> Learner:
        check_is_fitted(self, "learner_")
        return self.learner_

    def __sklearn_is_fitted__(self) -> bool:
        return "learner_" in self.__dict__

    def predict(self, X: Any) -> Array:
        """The label of each image (n_images,)."""
        return self._fitted().predict(X)

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n_images, n_classes), in the order of classes_."""
        return self._fitted().predict_proba(X)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of probabilities (n_images, n_classes)."""
        return self._fitted().predict_log_proba(X)

    def decision_function(self, X: Any) -> Array:
        """Log-probabilities (n_images, n_classes); of two classes their difference (n_images,)."""
        return _decision(self.predict_log_proba(X))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Fraction of images whose label is predicted."""
        if sample_weight is None:
            return self._fitted().score(X, y)
        opened, labels = open_labelled(X, y)
        right = [a == b for a, b in zip(self.predict(opened), labels)]
        return float(np.average(right, weights=sample_weight))
