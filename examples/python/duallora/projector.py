# SPDX-License-Identifier: Apache-2.0
"""Projector: the directions of one input that finished tasks use."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from ._arrays import FloatArray, floats, path_bytes
from ._handle import Handle, library, make


class Projector(Handle):
    """Used directions Phi of inputs of width dim, in groups, one for each finished task; P = I - Phi^T Phi.

    projector = Projector(32)
    projector.observe(inputs)             # float32 [rows, 32] of one task
    projector.commit_task(0.95)           # as many directions as hold 95 % of their energy
    gradient = projector.project(rows)    # without its part in these directions

    Saves, loads, clones and pickles. Many threads may call what does not change it.
    """

    _name = "projector"

    def __init__(self, dim: int) -> None:
        self._own(make(library.projector_create, dim, None), library.projector_destroy)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Projector:
        """Reads a projector from a file of save."""
        projector = cls.__new__(cls)
        projector._own(make(library.projector_load, path_bytes(path), None), library.projector_destroy)
        return projector

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the finished tasks as a safetensors file, atomically. Observations are not written."""
        encoded = path_bytes(path)
        with self._shared as pointer:
            library.projector_save(pointer, encoded)

    def clone(self) -> Projector:
        """A copy, including the observations."""
        with self._shared as pointer:
            made = make(library.projector_clone, pointer)
        projector = type(self).__new__(type(self))
        projector._own(made, library.projector_destroy)
        return projector

    @property
    def dim(self) -> int:
        """Width of the input."""
        with self._shared as pointer:
            return int(library.projector_dim(pointer))

    @property
    def size(self) -> int:
        """Number of used directions."""
        with self._shared as pointer:
            return int(library.projector_size(pointer))

    @property
    def num_tasks(self) -> int:
        """Number of finished tasks."""
        with self._shared as pointer:
            return int(library.projector_num_tasks(pointer))

    @property
    def num_observed(self) -> int:
        """Number of rows observed since the last commit or discard."""
        with self._shared as pointer:
            return int(library.projector_num_observed(pointer))

    def _rows(self, x: Any) -> FloatArray:
        return floats(x, "x", None, self.dim)

    def observe(self, x: Any) -> None:
        """Adds rows x [rows, dim] to the second moment of the open task."""
        rows = self._rows(x)
        with self._exclusive as pointer:
            library.projector_observe(pointer, rows.ctypes.data, len(rows))

    def merge_observed(self, other: Projector) -> None:
        """Adds the observations of another projector of the same width."""
        with self._exclusive as pointer, other._shared as second:
            library.projector_merge_observed(pointer, second)

    def discard_task(self) -> None:
        """Drops the observations since the last commit."""
        with self._exclusive as pointer:
            library.projector_discard_task(pointer)

    def _directions(self, function: Any, k: int, *arguments: Any) -> FloatArray:
        directions, found = np.empty((k, self.dim), np.float32), ctypes.c_size_t()
        with self._shared as pointer:
            function(pointer, *arguments, k, directions.ctypes.data, ctypes.byref(found))
        return directions[:found.value]

    def unused_directions(self, k: int) -> FloatArray:
        """Up to k unused directions with most observed energy: orthonormal rows [<= k, dim]."""
        return self._directions(library.projector_unused_directions, k)

    def task_directions(self, k: int, energy_threshold: float = 0.95) -> FloatArray:
        """The first k directions that commit_task would add: orthonormal rows [<= k, dim]."""
        return self._directions(library.projector_task_directions, k, energy_threshold)

    def used_directions(self, k: int) -> FloatArray:
        """Up to k used directions with most observed energy: orthonormal rows [<= k, dim]."""
        return self._directions(library.projector_used_directions, k)

    def commit_task(self, energy_threshold: float = 0.95) -> int:
        """Ends a task: adds directions until they hold this fraction of the observed energy. Returns their number."""
        added = ctypes.c_size_t()
        with self._exclusive as pointer:
            library.projector_commit_task(pointer, energy_threshold, ctypes.byref(added))
        return added.value

    def bases(self, task: int) -> FloatArray:
        """The directions that a finished task added: orthonormal rows [count, dim], a copy."""
        bases, count = ctypes.c_void_p(), ctypes.c_size_t()
        with self._shared as pointer:
            library.projector_get_bases(pointer, task, ctypes.byref(bases), ctypes.byref(count))
            return copied(bases.value, (count.value, int(library.projector_dim(pointer))))

    def project(self, x: Any) -> FloatArray:
        """Rows x [rows, dim] without their part in used directions, in a new array."""
        rows = np.array(self._rows(x), np.float32, order="C", copy=True)
        return self.project_(rows)

    def project_(self, x: FloatArray) -> FloatArray:
        """As project, in place: x must be a contiguous float32 array [rows, dim]. Returns x."""
        check_in_place(x, "x", self.dim)
        with self._shared as pointer:
            library.projector_project(pointer, x.ctypes.data, len(x))
        return x

    def calibrate(self, task: int, x: Any) -> None:
        """Adds rows x [rows, dim] of a finished task to its mean energy fraction, by which route divides."""
        rows = self._rows(x)
        with self._exclusive as pointer:
            library.projector_calibrate(pointer, task, rows.ctypes.data, len(rows))

    def route(self, x: Any) -> FloatArray:
        """Routing weights by energy, float32 [rows, num_tasks], for rows x [rows, dim]."""
        rows = self._rows(x)
        with self._shared as pointer:
            routing = np.empty((len(rows), library.projector_num_tasks(pointer)), np.float32)
            library.projector_route(pointer, rows.ctypes.data, len(rows), routing.ctypes.data)
        return routing

    def __reduce__(self) -> Any:
        from ._saved import loaded, saved
        return loaded, (type(self), saved(self))

    def __repr__(self) -> str:
        if self.closed:
            return "<duallora.Projector, closed>"
        return f"<duallora.Projector: {self.size} of {self.dim} directions used by {self.num_tasks} tasks>"


def copied(address: int | None, shape: tuple[int, ...]) -> FloatArray:
    """A copy of floats that the library lends."""
    count = int(np.prod(shape))
    if not address or count == 0:
        return np.zeros(shape, np.float32)
    lent: FloatArray = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
    return lent.copy()


def check_in_place(x: Any, name: str, width: int) -> None:
    """Refuses what cannot be written to in place."""
    from .errors import ArgumentError, ArgumentTypeError
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        raise ArgumentTypeError(f"{name} must be a float32 array, since it is written to; "
                                f"it is {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 2 or x.shape[1] != width:
        raise ArgumentError(f"{name} has shape {list(x.shape)}; [n, {width}] is expected")
    if not x.flags.c_contiguous or not x.flags.writeable:
        raise ArgumentError(f"{name} must be contiguous and writeable, since it is written to")
    if x.size == 0:
        raise ArgumentError(f"{name} is empty")


