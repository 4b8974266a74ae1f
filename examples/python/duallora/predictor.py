# SPDX-License-Identifier: Apache-2.0
"""Predictor: class, task and confidence from features of any network, in closed form."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import _abi
from ._arrays import DoubleArray, FloatArray, IntArray, floats, integers, path_bytes
from ._handle import Handle, library, make
from ._options import struct_options

PREDICTION: np.dtype[np.void] = np.dtype(cast(Any, _abi.dlora_prediction))


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Posteriors of n features.

    component_log_probs: float32 [n, num_components]
    class_log_probs: float32 [n, num_classes], summed over tasks
    task_probs: float32 [n, num_tasks], summed over classes
    unknown_scores: float32 [n]; higher: less like any learned class
    """

    component_log_probs: FloatArray
    class_log_probs: FloatArray
    task_probs: FloatArray
    unknown_scores: FloatArray


@dataclasses.dataclass(frozen=True)
class Components:
    """Statistics of components: one class in one task each.

    tasks, classes: int64 [num_components]
    counts: uint64 [num_components], features
    means: float64 [num_components, dim]
    """

    tasks: IntArray
    classes: IntArray
    counts: npt.NDArray[np.uint64]
    means: DoubleArray


class Predictor(Handle):
    """Statistics of features [n, dim], and the readout computed from them.

    predictor = Predictor(384)
    predictor.observe(features, class_ids)     # any number of times
    predictor.commit_task()
    decisions = predictor.predict(others)      # structured array: class_id, task, class_probability, ...

    Class ids are whole numbers; duallora.sklearn has a classifier for labels of any kind.
    """

    _name = "predictor"

    def __init__(self, dim: int, **options: Any) -> None:
        """options: readout ("gaussian" or "random-projection"), shrinkage, temperature, use_prior, seed, random_features,
        ridge."""
        struct = _options(options)
        self._own(make(library.predictor_create, dim, ctypes.byref(struct)), library.predictor_destroy)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Predictor:
        """Reads a predictor from a file of save. options: replace all of the saved ones, if any is given."""
        predictor = cls.__new__(cls)
        struct = ctypes.byref(_options(options)) if options else None
        predictor._own(make(library.predictor_load, path_bytes(path), struct), library.predictor_destroy)
        return predictor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the finished tasks as a safetensors file, atomically. An open task is not written."""
        encoded = path_bytes(path)
        with self._shared as pointer:
            library.predictor_save(pointer, encoded)

    def clone(self) -> Predictor:
        """A copy, including the open task."""
        with self._shared as pointer:
            made = make(library.predictor_clone, pointer)
        predictor = type(self).__new__(type(self))
        predictor._own(made, library.predictor_destroy)
        return predictor

    @property
    def dim(self) -> int:
        """Width of the features."""
        with self._shared as pointer:
            return int(library.predictor_dim(pointer))

    @property
    def num_tasks(self) -> int:
        """Number of finished tasks."""
        with self._shared as pointer:
            return int(library.predictor_num_tasks(pointer))

    @property
    def num_classes(self) -> int:
        """Number of different classes over all finished tasks."""
        with self._shared as pointer:
            return int(library.predictor_num_classes(pointer))

    @property
    def num_components(self) -> int:
        """Number of (task, class) components over all finished tasks."""
        with self._shared as pointer:
            return int(library.predictor_num_components(pointer))

    @property
    def classes(self) -> IntArray:
        """Class ids [num_classes], in the order of the columns of class probabilities."""
        with self._shared as pointer:
            classes = np.empty(library.predictor_num_classes(pointer), np.int64)
            if len(classes) > 0:
                library.predictor_get_classes(pointer, classes.ctypes.data)
        return classes

    @property
    def components(self) -> Components:
        """Tasks, classes, counts and means of the components."""
        with self._shared as pointer:
            count, dim = library.predictor_num_components(pointer), library.predictor_dim(pointer)
            found = Components(np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.uint64),
                               np.empty((count, dim)))
            if count > 0:
                library.predictor_get_components(pointer, found.tasks.ctypes.data, found.classes.ctypes.data,
                                                 found.counts.ctypes.data, found.means.ctypes.data)
        return found

    @property
    def scatter(self) -> DoubleArray:
        """Scatter [dim, dim], pooled around the means of all components."""
        with self._shared as pointer:
            dim = library.predictor_dim(pointer)
            scatter = np.empty((dim, dim))
            library.predictor_get_scatter(pointer, scatter.ctypes.data)
        return scatter

    @property
    def projection(self) -> DoubleArray:
        """The matrix of the random projection [dim, random_features]; StateError with the Gaussian readout."""
        width = ctypes.c_size_t()
        with self._shared as pointer:
            library.predictor_get_projection(pointer, ctypes.byref(width), None)
            matrix = np.empty((library.predictor_dim(pointer), width.value))
            library.predictor_get_projection(pointer, None, matrix.ctypes.data)
        return matrix

    # ---- learning ----

    def _features(self, features: Any, name: str = "features") -> FloatArray:
        return floats(features, name, None, self.dim)

    def observe(self, features: Any, class_ids: Any, *, held_out: bool = False) -> None:
        """Adds features [n, dim] with class ids [n] to the open task. held_out: of images that were excluded from the
        training of the features; they correct the temperature."""
        rows = self._features(features)
        ids = integers(class_ids, "class_ids", len(rows))
        function = library.predictor_observe_held_out if held_out else library.predictor_observe
        with self._exclusive as pointer:
            function(pointer, rows.ctypes.data, ids.ctypes.data, len(rows))

    def observe_pair(self, features: Any, mirrored: Any, class_ids: Any, *, held_out: bool = False) -> None:
        """Adds pairs of features [n, dim] each, of images and of the same images mirrored or otherwise changed. A pair
        counts as one image."""
        rows = self._features(features)
        others = floats(mirrored, "mirrored", len(rows), self.dim)
        ids = integers(class_ids, "class_ids", len(rows))
        with self._exclusive as pointer:
            library.predictor_observe_pair(pointer, rows.ctypes.data, others.ctypes.data, ids.ctypes.data, len(rows),
                                           int(held_out))

    def commit_task(self) -> None:
        """Ends the open task, and fits temperature and unknown scores."""
        with self._exclusive as pointer:
            library.predictor_commit_task(pointer)

    def discard_task(self) -> None:
        """Drops the open task."""
        with self._exclusive as pointer:
            library.predictor_discard_task(pointer)

    def append(self, other: Predictor) -> None:
        """Appends the finished tasks of another predictor, as further tasks."""
        with self._exclusive as pointer, other._shared as second:
            library.predictor_append(pointer, second)

    def merge(self, other: Predictor) -> None:
        """Merges a predictor that has observed other images of the same tasks."""
        with self._exclusive as pointer, other._shared as second:
            library.predictor_merge(pointer, second)

    def compensate_drift(self, before: Any, after: Any, first_column: int = 0) -> None:
        """Moves the statistics along with features that have drifted.

        before, after: [n, columns], features of the same images before and after, of the columns from first_column on.
        """
        old = floats(before, "before", None, None)
        new = floats(after, "after", *old.shape)
        with self._exclusive as pointer:
            library.predictor_compensate_drift(pointer, old.ctypes.data, new.ctypes.data, len(old), first_column, old.shape[1])

    # ---- predictions ----

    def predict(self, features: Any) -> npt.NDArray[np.void]:
        """Decides for features [n, dim]: a structured array [n] with fields class_id, task, class_probability,
        task_probability, unknown_score and unknown."""
        rows = self._features(features)
        found = np.empty(len(rows), PREDICTION)
        with self._shared as pointer:
            library.predictor_predict(pointer, rows.ctypes.data, len(rows), found.ctypes.data)
        return found

    def posterior(self, features: Any) -> Posterior:
        """Posteriors of features [n, dim], over components, classes and tasks."""
        rows = self._features(features)
        with self._shared as pointer:
            widths = (library.predictor_num_components(pointer), library.predictor_num_classes(pointer),
                      library.predictor_num_tasks(pointer))
            components, classes, tasks = (np.empty((len(rows), width), np.float32) for width in widths)
            found = Posterior(components, classes, tasks, np.empty(len(rows), np.float32))
            library.predictor_posterior(pointer, rows.ctypes.data, len(rows), found.component_log_probs.ctypes.data,
                                        found.class_log_probs.ctypes.data, found.task_probs.ctypes.data,
                                        found.unknown_scores.ctypes.data)
        return found

    def class_log_probs(self, features: Any) -> FloatArray:
        """Logarithms of class probabilities, float32 [n, num_classes]."""
        rows = self._features(features)
        with self._shared as pointer:
            found = np.empty((len(rows), library.predictor_num_classes(pointer)), np.float32)
            library.predictor_posterior(pointer, rows.ctypes.data, len(rows), None, found.ctypes.data, None, None)
        return found

    def linear_weights(self, first_column: int = 0, columns: int | None = None,
                       include_open: bool = False) -> tuple[FloatArray, FloatArray]:
        """The Gaussian scores as a linear layer: weight [K, columns] and bias [K], one row a component.

        include_open: the open task's components follow those of finished tasks.
        """
        with self._shared as pointer:
            count = int(library.predictor_num_components(pointer))
            width = int(library.predictor_dim(pointer)) - first_column if columns is None else columns
            if include_open:
                count += self._open_components(pointer)
            weight, bias = np.empty((count, max(width, 0)), np.float32), np.empty(count, np.float32)
            library.predictor_linear_weights(pointer, first_column, width, int(include_open), weight.ctypes.data,
                                             bias.ctypes.data)
        return weight, bias

    @staticmethod
    def _open_components(pointer: int) -> int:
        """The interface does not tell how many the open task has; a copy that commits it does."""
        copy = make(library.predictor_clone, pointer)
        try:
            before = int(library.predictor_num_components(copy))
            library.predictor_commit_task(copy)
            return int(library.predictor_num_components(copy)) - before
        finally:
            library.predictor_destroy(copy)

    @property
    def temperature(self) -> float:
        """T of the posterior. Setting it by hand lasts until a task with held-out features ends."""
        with self._shared as pointer:
            return float(library.predictor_temperature(pointer))

    @temperature.setter
    def temperature(self, value: float) -> None:
        with self._exclusive as pointer:
            library.predictor_set_temperature(pointer, value)

    def unknown_threshold(self, quantile: float = 0.95) -> float:
        """The unknown score that this fraction of features scored as if never observed does not exceed."""
        threshold = ctypes.c_float()
        with self._shared as pointer:
            library.predictor_unknown_threshold(pointer, quantile, ctypes.byref(threshold))
        return threshold.value

    def __reduce__(self) -> Any:
        from ._saved import loaded, saved
        return loaded, (type(self), saved(self))

    def __repr__(self) -> str:
        if self.closed:
            return "<duallora.Predictor, closed>"
        return f"<duallora.Predictor: features of {self.dim}, {self.num_classes} classes in {self.num_tasks} tasks>"


def _options(options: Any) -> Any:
    struct = _abi.dlora_predictor_options()
    library.predictor_options_init(ctypes.byref(struct), ctypes.sizeof(struct))
    return struct_options(struct, options, "a predictor")
