# SPDX-License-Identifier: Apache-2.0
"""Labels of any hashable kind and the class ids (int64) that the library knows.

A whole number is its own class id where that is free. Every other label gets the next free id; its text becomes the
class's name in the checkpoint, where the command and other bindings see it. A note in the checkpoint keeps what a name
does not say: that 2.5 is a number, or ("cat", 3) a pair. Of labels that have no literal the name is left after loading,
unless Learner.load is told the labels."""

from __future__ import annotations

import ast
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import IntArray
from .errors import ArgumentError, ArgumentTypeError

NOTE = "python.labels"
_INT64 = np.iinfo(np.int64)


def plain(label: Any) -> Hashable:
    """A label as a hashable value of Python rather than of NumPy."""
    if isinstance(label, np.ndarray) and label.ndim == 0:
        label = label[()]
    if isinstance(label, np.generic):
        label = label.item()
    try:
        hash(label)
    except TypeError:
        raise ArgumentTypeError(f"a label must be hashable; {type(label).__name__} is not") from None
    if label is None or label != label:
        raise ArgumentError(f"{label} is no label")
    return label  # type: ignore[no-any-return]


def _is_number(label: Hashable) -> bool:
    return isinstance(label, int) and not isinstance(label, bool) and type(label) is int and _INT64.min <= label <= _INT64.max


def _literal(label: Hashable) -> str | None:
    text = repr(label)
    try:
        read = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return text if type(read) is type(label) and read == label else None


class Labels:
    """The two directions, label -> class id and back."""

    def __init__(self) -> None:
        self._ids: dict[Hashable, int] = {}
        self._labels: dict[int, Hashable] = {}
        self._next = 0

    def add(self, label: Hashable, class_id: int) -> None:
        self._ids[label] = class_id
        self._labels[class_id] = label

    def _free(self) -> int:
        while self._next in self._labels:
            self._next += 1
        return self._next

    def new(self, labels: Iterable[Any]) -> list[Hashable]:
        """Those of the labels that have no id, in order of appearance."""
        return [label for label in dict.fromkeys(map(plain, labels)) if label not in self._ids]

    def register(self, labels: Iterable[Any]) -> dict[int, str]:
        """Gives ids to new labels. Returns the names of those ids that are not the label itself."""
        names = {}
        for label in self.new(labels):
            own = _is_number(label) and label not in self._labels
            class_id = int(label) if own else self._free()  # type: ignore[call-overload]
            self.add(label, class_id)
            if not own:
                names[class_id] = str(label)
        return names

    def encode(self, labels: Sequence[Any]) -> IntArray:
        """Class ids [n]. Labels without one get ids that no class has."""
        if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and self._all_own():
            return np.ascontiguousarray(labels, dtype=np.int64)
        others: dict[Hashable, int] = {}
        taken = -1
        ids = np.empty(len(labels), np.int64)
        for index, label in enumerate(map(plain, labels)):
            found = self._ids.get(label)
            if found is None:
                if label not in others:
                    while taken in self._labels:
                        taken -= 1
                    others[label] = taken
                    taken -= 1
                found = others[label]
            ids[index] = found
        return ids

    def _all_own(self) -> bool:
        return all(label is class_id or _is_number(label) and label == class_id for class_id, label in self._labels.items())

    def decode(self, class_ids: IntArray) -> npt.NDArray[Any]:
        """Labels [n]: int64 or text where all of them are, else objects."""
        found = [self._labels.get(int(class_id), int(class_id)) for class_id in class_ids]
        kinds = {type(label) for label in self._labels.values()} or {int}
        if kinds == {int}:
            return np.array(found, np.int64) if all(_is_number(label) for label in found) else np.array(found, object)
        if kinds == {str} and all(isinstance(label, str) for label in found):
            return np.array(found, str)
        if kinds == {bool} and all(isinstance(label, bool) for label in found):
            return np.array(found, bool)
        array = np.empty(len(found), object)
        array[:] = found
        return array

    def note(self) -> str:
        """What the checkpoint keeps of labels that are not their own id."""
        kept = []
        for class_id, label in self._labels.items():
            if _is_number(label) and label == class_id:
                continue
            literal = _literal(label)
            kept.append([class_id, "literal", literal] if literal is not None else [class_id, "name", str(label)])
        return json.dumps(kept)

    @classmethod
    def restored(cls, note: str | None, names: Mapping[int, str | None], given: Iterable[Hashable] | None) -> Labels:
        """From a checkpoint: its note, the names of its classes, and labels that the program gives."""
        labels = cls()
        by_name = {str(label): label for label in map(plain, given or ())}
        for class_id, name in names.items():
            labels.add(class_id if name is None else by_name.get(name, name), class_id)
        for class_id, kind, text in _parsed(note):
            label = ast.literal_eval(text) if kind == "literal" else by_name.get(text, text)
            replaced = labels._labels.get(class_id)
            if replaced is not None:
                labels._ids.pop(replaced, None)
            labels.add(label, class_id)
        return labels


def _parsed(note: str | None) -> list[tuple[int, str, str]]:
    """The entries of a note. It comes from a file: what is not of the form is refused."""
    if note is None:
        return []
    try:
        entries = [(int(class_id), str(kind), str(text)) for class_id, kind, text in json.loads(note)]
        for _, kind, text in entries:
            if kind == "literal":
                hash(ast.literal_eval(text))
        return entries
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ArgumentError(f"the checkpoint's note {NOTE!r} is damaged: {error}") from None
