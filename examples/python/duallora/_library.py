# SPDX-License-Identifier: Apache-2.0
"""Finds the shared library, checks its version and declares its functions. A call that fails raises.

ctypes.CDLL releases the interpreter's lock during every call."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import pathlib
from typing import Any

from . import _abi
from .errors import LibraryVersionError, error_of

_NAME = "libduallora.so"


def _soname() -> str:
    """Before 1.0 each minor version has a soname of its own."""
    major, minor, _ = _abi.VERSION
    return f"{_NAME}.{major}" if major > 0 else f"{_NAME}.{major}.{minor}"


def _candidates() -> list[str]:
    """$DUALLORA_LIBRARY alone, if it is set; else the copy in the package, then the system's."""
    named = os.environ.get("DUALLORA_LIBRARY")
    if named:
        return [named]
    return [str(pathlib.Path(__file__).parent / _NAME), _soname()]


def _interface(version: str) -> tuple[int, ...]:
    """What two versions with the same interface have in common: the major version, before 1.0 the minor one too."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major,) if major > 0 else (major, minor)


class Library:
    """The functions of the header, without their prefix: library.model_load(...) is dlora_model_load."""

    def __init__(self) -> None:
        failures = []
        for path in _candidates():
            try:
                self.cdll = ctypes.CDLL(path)
                self.path = path
                break
            except OSError as error:
                failures.append(str(error))
        else:
            raise ImportError(
                f"duallora: no library to load ({'; '.join(failures)}). Install the package with pip, or name the "
                "library in the environment variable DUALLORA_LIBRARY")
        self._check_version()
        for name, (result, arguments, fallible) in _abi.FUNCTIONS.items():
            try:
                function = getattr(self.cdll, name)
            except AttributeError:
                raise LibraryVersionError(
                    f"duallora: {self.path} of version {self.library_version} has no function {name}, which this package of "
                    f"version {'.'.join(map(str, _abi.VERSION))} needs: install a newer library") from None
            function.restype, function.argtypes = result, arguments
            if fallible:
                function.errcheck = self._check
            setattr(self, name.removeprefix("dlora_"), function)

    def _check_version(self) -> None:
        try:
            version = self.cdll.dlora_version
        except AttributeError:
            raise LibraryVersionError(f"duallora: {self.path} is not libduallora: it has no function dlora_version") from None
        version.restype, version.argtypes = ctypes.c_char_p, []
        self.library_version: str = version().decode()
        mine = ".".join(map(str, _abi.VERSION))
        if _interface(self.library_version) != _interface(mine):
            raise LibraryVersionError(
                f"duallora: {self.path} has version {self.library_version}, and this package has the interface of {mine}: "
                "install the two of one version")

    def _check(self, status: int, function: Any, arguments: Any) -> int:
        if status:
            raise error_of(status, self.cdll.dlora_last_error().decode())
        return status

    def __getattr__(self, name: str) -> Any:
        # Reached for names that the header does not have; says so to type checkers too.
        raise AttributeError(f"the C interface has no function dlora_{name}")


library = Library()


def version() -> str:
    """The version of the shared library, as "1.0.0"."""
    return library.library_version


def build_info() -> str:
    """Kernels, products, threads and BLAS in use on this machine."""
    text: bytes = library.build_info()
    return text.decode()


def sized(kind: Any) -> Any:
    """A struct of the C interface with its struct_size set."""
    struct = kind()
    struct.struct_size = ctypes.sizeof(kind)
    return struct
