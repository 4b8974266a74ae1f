# SPDX-License-Identifier: Apache-2.0
"""Progress of long calls: a bar of tqdm for each phase, or a function of the program."""

from __future__ import annotations

import logging
from typing import Any, Callable, Union

from ._abi import LogLevel, Phase, Progress
from .errors import ArgumentTypeError

ProgressOption = Union[bool, None, Callable[[Progress], Any]]
logger = logging.getLogger("duallora")

_WORDS = {Phase.OBSERVE: "observe", Phase.TRAIN: "train", Phase.STATISTICS: "statistics", Phase.EVALUATE: "evaluate"}


class Bars:
    """One bar a phase."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None
        self._phase: Phase | None = None

    def __call__(self, progress: Progress) -> None:
        if progress.phase != self._phase:
            self.close()
            self._phase = progress.phase
            place = "" if progress.phase == Phase.EVALUATE else f"task {progress.task}: "
            unit = " steps" if progress.phase == Phase.TRAIN else " images"
            self._bar = self._tqdm(total=progress.total, desc=place + _WORDS.get(progress.phase, str(progress.phase)), unit=unit)
        self._bar.update(progress.done - self._bar.n)
        if progress.phase == Phase.TRAIN:
            self._bar.set_postfix(loss=f"{progress.loss:.3f}", refresh=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def reporter(progress: ProgressOption) -> Callable[[Progress], Any] | None:
    """The function to call with progress; None: none."""
    if progress is None or progress is False:
        return None
    if callable(progress):
        return progress
    if progress is not True:
        raise ArgumentTypeError(f"progress is {progress!r}; True, False or a function of a Progress is expected")
    try:
        from tqdm.auto import tqdm
    except ImportError:
        logger.warning("progress=True shows nothing: tqdm is not installed (pip install tqdm)")
        return None
    return Bars(tqdm)


def log_line(level: int, message: bytes, _: Any) -> None:
    """A line of the library's log, to Python's."""
    logger.log(logging.WARNING if level >= LogLevel.WARNING else logging.INFO, "%s", message.decode(errors="replace"))
