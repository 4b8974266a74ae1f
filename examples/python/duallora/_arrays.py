# SPDX-License-Identifier: Apache-2.0
"""Arrays in and out. Contiguous float32 and int64 arrays are passed as they are; others are copied to such."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ArgumentError, ArgumentTypeError

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def to_numpy(value: Any) -> Any:
    """torch tensors as arrays, without torch being imported; anything else as it is."""
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return value


def _matching(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted))


def _spelled(wanted: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("n" if size is None else str(size) for size in wanted) + "]"


def floats(value: Any, name: str, *shape: int | None) -> FloatArray:
    """value as a contiguous float32 array of a shape; None: any size. Numbers of other types are converted."""
    array = np.asarray(to_numpy(value))
    if array.dtype.kind not in "fiu":
        raise ArgumentTypeError(f"{name} has dtype {array.dtype}; real numbers are expected, at best float32")
    if not _matching(array.shape, shape):
        raise ArgumentError(f"{name} has shape {list(array.shape)}; {_spelled(shape)} is expected")
    if array.size == 0:
        raise ArgumentError(f"{name} is empty: its shape is {list(array.shape)}")
    with np.errstate(over="ignore"):  # the library refuses what has become infinite, and says where
        return np.ascontiguousarray(array, dtype=np.float32)


def integers(value: Any, name: str, count: int | None) -> IntArray:
    """value as a contiguous int64 array [count]."""
    array = np.asarray(to_numpy(value))
    if array.dtype.kind not in "iu":
        raise ArgumentTypeError(f"{name} has dtype {array.dtype}; whole numbers are expected, at best int64")
    if not _matching(array.shape, (count,)):
        raise ArgumentError(f"{name} has shape {list(array.shape)}; {_spelled((count,))} is expected")
    if array.dtype == np.uint64 and array.size > 0 and int(array.max()) > np.iinfo(np.int64).max:
        raise ArgumentError(f"{name} has {int(array.max())}, which is beyond int64")
    return np.ascontiguousarray(array, dtype=np.int64)


def path_bytes(path: Any) -> bytes:
    """A path in the file system's encoding, as the library takes it."""
    try:
        encoded = os.fsencode(path)
    except TypeError:
        raise ArgumentTypeError(f"a path is expected, not {type(path).__name__}") from None
    if b"\0" in encoded:
        raise ArgumentError("a path has a NUL character")
    return encoded
