# SPDX-License-Identifier: Apache-2.0
"""Options by name. Those of a learner go as text through the library's own table. Those of other handles are members of
their structs, as the header declares them; words of the enums stand for their values."""

from __future__ import annotations

import ctypes
import difflib
import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union

import numpy as np

from . import _abi
from ._arrays import path_bytes
from ._library import library, sized
from .errors import ArgumentError, ArgumentTypeError

OptionValue = Union[bool, int, float, str, "tuple[str, ...]"]

# The library accepts a longer struct whose unknown rest is zero: options of a newer library are there too.
_LEARNER_OPTIONS_SIZE = 1024
_TEXT_SIZE = 256
_HIDDEN = {"struct_size", "allocator", "reserved"}


def _unknown(name: str, known: Iterable[str], what: str) -> ArgumentError:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; there are {', '.join(sorted(known))}"
    return ArgumentError(f"{what} has no option {name!r}{hint}")


# ---- options of a learner ----


def learner_option_table() -> dict[str, _abi.OptionInfo]:
    """Every option of a learner: type, range, default and help, as the library describes it."""
    table = {}
    for index in range(library.option_count()):
        info = sized(_abi.dlora_option_info)
        library.option_get_info(index, ctypes.byref(info))
        table[info.name.decode()] = _abi.OptionInfo._of(info)
    return table


_table: dict[str, _abi.OptionInfo] = {}


def _known() -> dict[str, _abi.OptionInfo]:
    if not _table:
        _table.update(learner_option_table())
    return _table


def _text(name: str, value: Any) -> str:
    """A value as text for dlora_learner_options_set."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (enum.IntEnum, enum.IntFlag)):
        # The words of a choice or set stand in the order of the enum's values.
        info, number = _known()[name], int(value)
        words = (info.choices or "").split("|")
        if info.type == _abi.OptionType.SET:
            return ",".join(word for bit, word in enumerate(words) if number >> bit & 1)
        if info.type == _abi.OptionType.CHOICE:
            return words[number] if 0 <= number < len(words) else str(number)
        return words[-number - 1] if 0 > number >= -len(words) and info.choices else str(number)
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return np.format_float_scientific(np.float32(value), trim="-") if np.isfinite(value) else str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(word, str) for word in value):
        return ",".join(value)
    raise ArgumentTypeError(f"option {name!r}: a number, word, truth value or list of words is expected, not {value!r}")


class LearnerOptions:
    """dlora_learner_options as the library sees it: a buffer in which options are set by name."""

    def __init__(self, paper: bool = False) -> None:
        self.buffer = ctypes.create_string_buffer(_LEARNER_OPTIONS_SIZE)
        (library.learner_options_paper if paper else library.learner_options_init)(self.buffer, _LEARNER_OPTIONS_SIZE)

    def set(self, options: Mapping[str, Any]) -> LearnerOptions:
        for name, value in options.items():
            if name not in _known():
                raise _unknown(name, _known(), "a learner")
            library.learner_options_set(self.buffer, name.encode(), _text(name, value).encode())
        return self

    def check(self) -> LearnerOptions:
        """Refuses what no learner can be created with, as far as it does not depend on the model."""
        library.learner_options_check(self.buffer, None)
        return self

    def get(self, name: str) -> OptionValue:
        if name not in _known():
            raise _unknown(name, _known(), "a learner")
        text = ctypes.create_string_buffer(_TEXT_SIZE)
        library.learner_options_get(self.buffer, name.encode(), text, _TEXT_SIZE)
        return _value(_known()[name], text.value.decode())

    def as_dict(self) -> dict[str, OptionValue]:
        return {name: self.get(name) for name in _known()}


def _value(info: _abi.OptionInfo, text: str) -> OptionValue:
    kind = info.type
    if kind == _abi.OptionType.FLAG:
        return text in ("1", "true")
    if kind == _abi.OptionType.CHOICE:
        return text
    if kind == _abi.OptionType.SET:
        return tuple(text.split(","))
    try:
        return float(text) if kind == _abi.OptionType.FLOAT else int(text)
    except ValueError:
        return text  # a name, as "auto"


def learner_defaults(paper: bool = False) -> dict[str, OptionValue]:
    """The default options of a learner, or the paper's."""
    return LearnerOptions(paper).as_dict()


# ---- options of other handles ----


def _words(kind: type[enum.IntEnum] | type[enum.IntFlag]) -> dict[str, int]:
    return {name.lower().replace("_", "-"): member.value for name, member in kind.__members__.items()}


def _member_value(name: str, value: Any, kind: Any, words: Mapping[str, int], what: str) -> Any:
    place = f"option {name!r} of {what}"
    if isinstance(value, str) and kind is not ctypes.c_char_p:
        word = value.lower().replace("_", "-")
        if word == "auto":
            return int(_abi.Auto.AUTO)
        if word not in words:
            expected = f"one of {', '.join(words)}" if words else "a number"
            raise ArgumentError(f"{place} is {value!r}; {expected} is expected")
        return words[word]
    if kind is ctypes.c_char_p:
        return path_bytes(value)
    if hasattr(kind, "_length_"):
        numbers = tuple(float(number) for number in value)
        if len(numbers) != kind._length_:
            raise ArgumentError(f"{place} has {len(numbers)} numbers; {kind._length_} are expected")
        return kind(*numbers)
    if kind in (ctypes.c_float, ctypes.c_double):
        return float(value)
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if not isinstance(value, (int, np.integer)):
        raise ArgumentTypeError(f"{place} is {value!r}; a whole number{' or word' if words else ''} is expected")
    bits = 8 * ctypes.sizeof(kind)
    signed = kind in (ctypes.c_int32, ctypes.c_int64)
    least, greatest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if not least <= value <= greatest:
        raise ArgumentError(f"{place} is {value}; {least} to {greatest} is expected")
    return int(value)


def struct_options(struct: Any, options: Mapping[str, Any], what: str) -> Any:
    """Sets members of an options struct, which its _init function has filled, by name."""
    kinds = {name: kind for name, kind in type(struct)._fields_ if name not in _HIDDEN}
    enums = _abi.MEMBER_ENUMS.get(type(struct).__name__, {})
    for name, value in options.items():
        if name not in kinds:
            raise _unknown(name, kinds, what)
        words = _words(enums[name]) if name in enums else {}
        try:
            setattr(struct, name, _member_value(name, value, kinds[name], words, what))
        except (TypeError, ValueError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentTypeError(f"option {name!r} of {what} is {value!r}: {error}") from None
    return struct


def option_names(struct: type[ctypes.Structure]) -> Iterator[str]:
    """Names of the options that a struct has."""
    return (field[0] for field in struct._fields_ if field[0] not in _HIDDEN)
