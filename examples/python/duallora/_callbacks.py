# SPDX-License-Identifier: Apache-2.0
"""Exceptions in callbacks: the call stops, and they are raised again when it has returned.

The library is C and cannot be unwound. A callback therefore stores what it raises and returns the value that stops the
call. Ctrl-C needs more: Python runs the handler of a signal at the begin of some function, which may be the callback
itself, outside of any try, where ctypes would print the exception and forget it. In the main thread the handler of
SIGINT is therefore called by one of ours during the call, which stores what it raises."""

from __future__ import annotations

import signal
import threading
from typing import Any, Callable


class Callbacks:
    """with Callbacks() as callbacks: a call whose callbacks are made by callbacks.guard."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._previous: Any = None

    def guard(self, function: Callable[..., Any], stop: Any) -> Callable[..., Any]:
        """function, which returns `stop` where it raises, or where an earlier callback has."""
        def guarded(*arguments: Any) -> Any:
            if self.error is not None:
                return stop
            try:
                result = function(*arguments)
            except BaseException as error:
                self.error = error
                return stop
            return stop if self.error is not None else result
        return guarded

    def _interrupted(self, number: int, frame: Any) -> None:
        try:
            self._previous(number, frame)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Callbacks:
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if self.error is not None:
            raised, self.error = self.error, None
            context = raised.__context__
            try:
                raise raised
            finally:
                raised.__context__ = context  # rather than the library's own error
                del raised  # no circle with its traceback
