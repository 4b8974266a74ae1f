# SPDX-License-Identifier: Apache-2.0
"""Exceptions. Each carries the library's status and its sentence, and is an exception of Python's own as well: what
`except ValueError` or `except MemoryError` is written for, it catches."""

from __future__ import annotations

from ._abi import Status


class DualLoRAError(Exception):
    """A call failed.

    status: Status of the call
    sentence: what is wrong, and with what
    """

    status: Status = Status.ARGUMENT

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class ArgumentError(DualLoRAError, ValueError):
    """An argument is impossible or inconsistent."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has a type that cannot be used."""


class OutOfMemoryError(DualLoRAError, MemoryError):
    """There was not enough memory. The handle is intact."""

    status = Status.NO_MEMORY


class StructSizeError(DualLoRAError):
    """An options struct sets members that this library does not know."""

    status = Status.STRUCT_SIZE


class StateError(DualLoRAError, RuntimeError):
    """The call came in the wrong order."""

    status = Status.STATE


class ClosedError(StateError):
    """The handle has been closed."""


class ConcurrentUseError(StateError):
    """The handle is in use by another call that does not allow this one at the same time."""


class FileError(DualLoRAError, OSError):
    """A file could not be opened, read, written or renamed."""

    status = Status.IO


class FormatError(DualLoRAError, ValueError):
    """A file is damaged or of another kind than expected."""

    status = Status.FORMAT


class MismatchError(DualLoRAError, ValueError):
    """Two things do not belong together: checkpoint and backbone, or two dimensions."""

    status = Status.MISMATCH


class NotFiniteError(DualLoRAError, ValueError):
    """An input, a loss or a result is NaN or infinite."""

    status = Status.NOT_FINITE


class CancelledError(DualLoRAError):
    """A callback stopped the call."""

    status = Status.CANCELLED


class UnsupportedError(DualLoRAError, NotImplementedError):
    """The file or option is valid, but this library cannot use it."""

    status = Status.UNSUPPORTED


class NumericError(DualLoRAError, ArithmeticError):
    """A factorisation did not converge."""

    status = Status.NUMERIC


class LibraryVersionError(ImportError):
    """The shared library has an interface of another version."""


_BY_STATUS: dict[int, type[DualLoRAError]] = {
    kind.status: kind
    for kind in (ArgumentError, OutOfMemoryError, StructSizeError, StateError, FileError, FormatError, MismatchError,
                 NotFiniteError, CancelledError, UnsupportedError, NumericError)
}


def error_of(status: int, sentence: str) -> DualLoRAError:
    """The exception for a status of a failed call."""
    error = _BY_STATUS.get(status, DualLoRAError)(sentence)
    if status not in _BY_STATUS:
        error.status = status  # type: ignore[assignment]  # of a newer library
    return error
