# SPDX-License-Identifier: Apache-2.0
"""Session: forward and backward pass of a model with a bank, for losses of one's own."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import _abi
from ._arrays import FloatArray, floats
from ._handle import Core, Exclusive, Handle, LentPart, Shared, library, make
from ._images import open_images, struct_of
from ._library import sized
from ._options import struct_options
from .bank import ALL_TERMS, Bank, Terms
from .errors import ArgumentError, StateError
from .learner import _one_array
from .model import Model


class Session(Handle):
    """The workspace that runs a model with the adapters of a bank.

    session = Session(model, bank, training=True)
    features = session.forward(images)             # float32 [n, embed_dim]
    session.backward(gradients_of_the_features)    # adds to bank.gradients
    bank.step(1e-3)

    duallora.torch makes it a function of torch.autograd.
    """

    _name = "session"

    def __init__(self, model: Model, bank: Bank | None = None, **options: Any) -> None:
        """options: max_batch (16), threads, training (False)."""
        struct = _abi.dlora_session_options()
        library.session_options_init(ctypes.byref(struct), ctypes.sizeof(struct))
        struct_options(struct, options, "a session")
        self.model, self.bank = model, bank
        self.max_batch = int(struct.max_batch)
        parents: list[Core] = [model._core]
        with model._shared as first:
            if bank is None:
                made = make(library.session_create, first, None, ctypes.byref(struct))
            else:
                parents.append(bank._core)
                with bank._shared as second:
                    if isinstance(bank._exclusive, LentPart):
                        raise StateError("this bank belongs to a learner, whose next task may move it; save and load it")
                    made = make(library.session_create, first, second, ctypes.byref(struct))
        self._own(made, library.session_destroy, *parents)
        # The bank stays usable here if the program closes its handle.
        self._bank_shared, self._bank_exclusive = Shared(parents[-1]), Exclusive(parents[-1])
        self._embed_dim = model.info.embed_dim
        self._default_terms = ALL_TERMS if struct.training else Terms.MERGED
        self._count = 0  # images of the last forward

    @property
    def workspace_size(self) -> int:
        """Bytes of the workspace."""
        with self._shared as pointer:
            return int(library.session_workspace_size(pointer))

    def forward(self, images: Any, terms: int | None = None, *, routing: Any = None) -> FloatArray:
        """Computes features of at most max_batch images of one size: float32 [n, embed_dim].

        terms: Terms.MERGED | Terms.ORTHOGONAL | Terms.RESIDUAL, which those of pairs need an open task for. Default:
            all with training, else Terms.MERGED.
        routing: [n, num_tasks], weights of the residual adapters of finished tasks; None: none.
        """
        array = _one_array(open_images(images))
        struct = struct_of(array)
        features = np.empty((len(array), self._embed_dim), np.float32)
        with self._exclusive as pointer:
            if self.bank is None:
                self._run(pointer, struct, 0 if terms is None else terms, routing, 0, features)
            else:
                with self._bank_shared as bank:
                    tasks = int(library.bank_num_tasks(bank))
                    self._run(pointer, struct, self._default_terms if terms is None else terms, routing, tasks, features)
            self._count = len(array)
        return features

    @staticmethod
    def _run(pointer: int, struct: Any, terms: int, routing: Any, tasks: int, features: FloatArray) -> None:
        weights = None if routing is None else floats(routing, "routing", len(features), tasks)
        library.session_forward(pointer, ctypes.byref(struct), int(terms), None if weights is None else weights.ctypes.data,
                                features.ctypes.data)

    def backward(self, feature_gradients: Any) -> None:
        """Adds the gradients of the open task's parameters to those of the bank, from the gradients of the last
        forward's features [n, embed_dim]."""
        if self.bank is None:
            raise ArgumentError("the session has no bank; there is nothing to train")
        above = floats(feature_gradients, "feature_gradients", None, self._embed_dim)
        with self._exclusive as pointer, self._bank_exclusive as bank:
            if self._count not in (0, len(above)):
                raise ArgumentError(f"feature_gradients has {len(above)} rows; the last forward had {self._count} images")
            library.session_backward(pointer, bank, above.ctypes.data)

    def input(self, block: int, input: int | str) -> FloatArray:
        """Inputs of the last forward of a training session, image after image: float32 [rows, dim].

        input: an Input, or its word: "attention", "output", "fc1", "fc2"; one that a site of the bank reads.
        """
        which = int(_abi.Input[input.upper()] if isinstance(input, str) else _abi.Input(input))
        rows, dim = ctypes.c_size_t(), ctypes.c_size_t()
        with self._exclusive as pointer:
            library.session_get_input(pointer, block, which, None, ctypes.byref(rows), ctypes.byref(dim))
            values = np.empty((rows.value, dim.value), np.float32)
            library.session_get_input(pointer, block, which, values.ctypes.data, ctypes.byref(rows), ctypes.byref(dim))
        return values

    @property
    def early_features(self) -> FloatArray:
        """Early features of the last forward, which learning never changes: float32 [n, 2 * embed_dim]."""
        features = np.empty((self._count, 2 * self._embed_dim), np.float32)
        with self._exclusive as pointer:
            library.session_get_early_features(pointer, features.ctypes.data)
        return features

    @property
    def profile(self) -> _abi.Profile:
        """Seconds spent, by kind of work; sums over threads."""
        struct = sized(_abi.dlora_profile)
        with self._shared as pointer:
            library.session_get_profile(pointer, ctypes.byref(struct))
        return _abi.Profile._of(struct)

    def __repr__(self) -> str:
        if self.closed:
            return "<duallora.Session, closed>"
        return f"<duallora.Session: up to {self.max_batch} images, {self.workspace_size >> 20} MiB>"
