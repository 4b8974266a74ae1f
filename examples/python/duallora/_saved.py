# SPDX-License-Identifier: Apache-2.0
"""Handles as bytes of the file that they save, for pickle."""

from __future__ import annotations

import os
import tempfile
from typing import Any


def saved(handle: Any) -> bytes:
    """The file that handle.save writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "handle.safetensors")
        handle.save(path)
        with open(path, "rb") as file:
            return file.read()


def loaded(kind: Any, data: bytes) -> Any:
    """The handle that kind.load reads from such bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "handle.safetensors")
        with open(path, "wb") as file:
            file.write(data)
        return kind.load(path)
