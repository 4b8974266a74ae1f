# SPDX-License-Identifier: Apache-2.0
"""What a safetensors file holds."""

from __future__ import annotations

import os
from typing import Any

from . import _abi
from ._arrays import path_bytes
from ._callbacks import Callbacks
from ._library import library


def inspect(path: str | os.PathLike[str]) -> list[_abi.TensorInfo]:
    """Lists metadata entries (dtype None) and tensors of a safetensors file, after all of it was checked."""
    found: list[_abi.TensorInfo] = []

    def visit(info: int, _: Any) -> int:
        found.append(_abi.TensorInfo._of(_abi.dlora_tensor_info.from_address(info)))
        return 0

    encoded = path_bytes(path)
    with Callbacks() as callbacks:
        callback = _abi.VisitCallback(callbacks.guard(visit, 1))
        library.inspect(encoded, callback, None)
    return found
