# SPDX-License-Identifier: Apache-2.0
"""Handles: who owns a pointer of the library, who may use it now, and when it is destroyed.

Many threads may make const calls on a handle; a non-const call needs it alone. The library leaves that to its callers.
Here every call enters its handle first, shared or exclusive, and a call that would race raises ConcurrentUseError.
A handle lives until it is closed or forgotten, and as long as handles that use it: a model as long as its learners."""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any, Callable, TypeVar

from ._library import library
from .errors import ClosedError, ConcurrentUseError, StateError

_Self = TypeVar("_Self", bound="Handle")


class Core:
    """A pointer with its users. It outlives its Handle where another core needs it."""

    def __init__(self, name: str, pointer: int, destroy: Callable[[int], None], parents: tuple[Core, ...]) -> None:
        self.name, self.pointer, self.destroy, self.parents = name, pointer, destroy, list(parents)
        # Reentrant: a garbage collection inside may release a handle of this one.
        self.lock = threading.RLock()
        self.owners = 1  # the Handle, and cores of handles that use this one
        self.readers = 0
        self.writer: int | None = None  # thread
        for parent in parents:
            parent.hold()

    def hold(self) -> None:
        with self.lock:
            if not self.pointer:
                raise ClosedError(f"the {self.name} has been closed")
            self.owners += 1

    def release(self) -> None:
        with self.lock:
            self.owners -= 1
            if self.owners > 0:
                return
            pointer, self.pointer = self.pointer, 0
        self.destroy(pointer)
        for parent in self.parents:
            parent.release()

    def use(self, other: Core) -> None:
        """Keeps another handle alive from now on."""
        other.hold()
        self.parents.append(other)

    def unuse(self, other: Core) -> None:
        self.parents.remove(other)
        other.release()

    def enter_shared(self) -> int:
        with self.lock:
            if not self.pointer:
                raise ClosedError(f"the {self.name} has been closed")
            if self.writer is not None:
                raise ConcurrentUseError(self._busy())
            self.readers += 1
            return self.pointer

    def leave_shared(self) -> None:
        with self.lock:
            self.readers -= 1

    def enter_exclusive(self) -> int:
        with self.lock:
            if not self.pointer:
                raise ClosedError(f"the {self.name} has been closed")
            if self.writer is not None or self.readers > 0:
                raise ConcurrentUseError(self._busy())
            self.writer = threading.get_ident()
            return self.pointer

    def leave_exclusive(self) -> None:
        with self.lock:
            self.writer = None

    def _busy(self) -> str:
        if self.writer == threading.get_ident():
            return (f"the {self.name} is in the middle of a call of this thread; a callback must not call the handle "
                    "that calls it")
        if self.writer is not None:
            return (f"another thread is in a call that changes the {self.name}; let one thread at a time use it then, "
                    "for example with a lock")
        return f"other calls are using the {self.name}, which this call would change; wait for them, for example with a lock"


class Shared:
    """with handle._shared as pointer: a const call."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __enter__(self) -> int:
        return self._core.enter_shared()

    def __exit__(self, *_: object) -> None:
        self._core.leave_shared()


class Exclusive:
    """with handle._exclusive as pointer: a non-const call."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __enter__(self) -> int:
        return self._core.enter_exclusive()

    def __exit__(self, *_: object) -> None:
        self._core.leave_exclusive()


class SharedPart:
    """A const call on a part that another handle lends: the pointer is asked for anew each time, since non-const calls
    on its owner may move the part."""

    def __init__(self, core: Core, find: Callable[[int], int | None]) -> None:
        self._core, self._find = core, find

    def __enter__(self) -> int:
        owner = self._core.enter_shared()
        pointer = self._find(owner)
        if not pointer:
            self._core.leave_shared()
            raise StateError("the part of the learner is not there any more")
        return pointer

    def __exit__(self, *_: object) -> None:
        self._core.leave_shared()


class LentPart:
    """Refuses non-const calls on a part that another handle lends."""

    def __init__(self, name: str, owner: str) -> None:
        self._sentence = f"this {name} belongs to a {owner} and can be read only; clone or save it for one of your own"

    def __enter__(self) -> int:
        raise StateError(self._sentence)

    def __exit__(self, *_: object) -> None:
        pass


class Handle:
    """Base of all handles: a context manager, closed at its end, by close(), or when it is forgotten."""

    _name = "handle"
    _shared: Shared | SharedPart | Closed
    _exclusive: Exclusive | LentPart | Closed

    def _own(self, pointer: int, destroy: Callable[[int], None], *parents: Core) -> None:
        """Takes ownership of a pointer that uses other handles."""
        try:
            self._core = Core(self._name, pointer, destroy, parents)
        except ClosedError:
            destroy(pointer)
            raise
        self._finalizer = weakref.finalize(self, self._core.release)
        self._shared, self._exclusive = Shared(self._core), Exclusive(self._core)

    @classmethod
    def _borrow(cls: type[_Self], owner: Core, find: Callable[[int], int | None]) -> _Self:
        """A part of another handle, found in it by a function of the owner's pointer."""
        part = cls.__new__(cls)
        owner.hold()
        part._core = owner
        part._finalizer = weakref.finalize(part, owner.release)
        part._shared, part._exclusive = SharedPart(owner, find), LentPart(cls._name, owner.name)
        return part

    def close(self) -> None:
        """Closes the handle: later calls raise ClosedError, and its memory is freed, as soon as no other handle uses it.
        Raises ConcurrentUseError while a call does. Closing twice does nothing."""
        core = self._core
        if self.closed:
            return
        with core.lock:
            if core.writer is not None or core.readers > 0:
                raise ConcurrentUseError(core._busy())
            self._shared = self._exclusive = Closed(f"the {self._name} has been closed")
            self._finalizer()

    @property
    def closed(self) -> bool:
        """Whether the handle has been closed."""
        return not self._finalizer.alive

    def __enter__(self: _Self) -> _Self:
        if self.closed:
            raise ClosedError(f"the {self._name} has been closed")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Closed:
    """Refuses all calls."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def __enter__(self) -> int:
        raise ClosedError(self._sentence)

    def __exit__(self, *_: object) -> None:
        pass


def make(function: Any, *arguments: Any) -> int:
    """The pointer that a _create, _load or _clone function gives through its first argument."""
    out = ctypes.c_void_p()
    function(ctypes.byref(out), *arguments)
    assert out.value is not None
    return out.value


__all__ = ["Core", "Handle", "library", "make"]
