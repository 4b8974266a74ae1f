# SPDX-License-Identifier: Apache-2.0
"""Bank: low-rank adapters of linear layers, their training, and the end of a task."""

from __future__ import annotations

import contextlib
import ctypes
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _abi
from ._arrays import FloatArray, floats, path_bytes
from ._handle import Core, Handle, LentPart, Shared, library, make
from ._options import struct_options
from .errors import ArgumentError, ArgumentTypeError, StateError
from .projector import Projector, check_in_place, copied

Terms = _abi.Terms
ALL_TERMS = Terms.MERGED | Terms.ORTHOGONAL | Terms.RESIDUAL


def site(input_dim: int, output_dim: int, block: int = 0, projection: Any = 0) -> _abi.Site:
    """A linear layer [output_dim, input_dim]. A Session reads block and projection ("query", "key", "value", "output",
    "fc1", "fc2"); elsewhere they may have any value."""
    kind = _abi.Projection[projection.upper()] if isinstance(projection, str) else _abi.Projection(projection)
    return _abi.Site(input_dim, output_dim, block, kind)


class Bank(Handle):
    """Low-rank adapters of linear layers: y = W x + b + (merged + B'A' + B_t A_t) x.

    bank = Bank([duallora.site(16, 8)])
    bank.begin_task()
    bank.set_orthogonal(0, directions)          # A' [rank, input_dim] fixed, B' trained from 0
    y += bank.forward(0, x)                     # x [rows, input_dim]; the caller adds W x + b
    bank.backward(0, x, dy); bank.step(1e-3)    # again and again
    bank.commit_task()

    duallora.torch has it as a layer of PyTorch.
    """

    _name = "bank"
    _projectors: dict[int, Core]
    _lease: Any = None

    def __init__(self, sites: Sequence[_abi.Site], **options: Any) -> None:
        """options: optimizer ("adam" or "sgd"), beta1, beta2, epsilon, momentum, weight_decay."""
        if not all(isinstance(one, _abi.Site) for one in sites):
            raise ArgumentTypeError("sites: a list of duallora.site(...) is expected")
        if len(sites) == 0:
            raise ArgumentError("sites is empty")
        array = (_abi.dlora_site * len(sites))(
            *(_abi.dlora_site(s.input_dim, s.output_dim, s.block, int(s.projection)) for s in sites))
        struct = _options(options)
        self._begin(make(library.bank_create, array, len(sites), ctypes.byref(struct)))

    def _begin(self, pointer: int) -> None:
        self._own(pointer, library.bank_destroy)
        self._projectors = {}

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Bank:
        """Reads a bank from a file of save. options: as for a new one; they are not saved."""
        bank = cls.__new__(cls)
        bank._begin(make(library.bank_load, path_bytes(path), ctypes.byref(_options(options))))
        return bank

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the finished tasks as a safetensors file, atomically. An open task is not written."""
        encoded = path_bytes(path)
        with self._shared as pointer:
            library.bank_save(pointer, encoded)

    @property
    def sites(self) -> list[_abi.Site]:
        """The linear layers."""
        with self._shared as pointer:
            return [self._site(pointer, index) for index in range(library.bank_num_sites(pointer))]

    @staticmethod
    def _site(pointer: int, index: int) -> _abi.Site:
        struct = _abi.dlora_site()
        library.bank_get_site(pointer, index, ctypes.byref(struct))
        return _abi.Site._of(struct)

    @property
    def num_tasks(self) -> int:
        """Number of finished tasks."""
        with self._shared as pointer:
            return int(library.bank_num_tasks(pointer))

    # ---- a task ----

    def begin_task(self) -> None:
        """Opens a task whose pairs have rank 0 at every site."""
        with self._exclusive as pointer:
            self._check_lease()
            library.bank_begin_task(pointer)

    def _factor(self, index: int, a: Any) -> FloatArray | None:
        if a is None:
            return None
        with self._shared as pointer:
            width = self._site(pointer, index).input_dim
        return floats(a, "a", None, width)

    def set_orthogonal(self, site: int, a: Any, projector: Projector | None = None) -> None:
        """Sets the open task's orthogonal pair: a [rank, input_dim] becomes A', B' becomes 0. None removes the pair.

        Without a projector A' is fixed. With one, A' is trained too, and its updates are kept out of used directions;
        the projector is in use until the task ends.
        """
        rows = self._factor(site, a)
        with self._exclusive as pointer:
            self._check_lease()
            address = None if rows is None else rows.ctypes.data
            count = 0 if rows is None else len(rows)
            if projector is None:
                library.bank_set_orthogonal(pointer, site, address, count, None)
            else:
                if isinstance(projector._exclusive, LentPart):
                    raise StateError("this projector belongs to a learner, whose next task may move it; clone it")
                with projector._shared as second:
                    library.bank_set_orthogonal(pointer, site, address, count, second)
            self._let_go(site)
            if projector is not None:
                self._core.use(projector._core)
                self._projectors[site] = projector._core

    def _let_go(self, *sites: int) -> None:
        """Of projectors that trained pairs no longer need."""
        for site in sites:
            if site in self._projectors:
                self._core.unuse(self._projectors.pop(site))

    def set_residual(self, site: int, a: Any, train_a: bool = False) -> None:
        """Sets the open task's residual pair (A_t, B_t) in the same way. train_a: A_t is trained too."""
        rows = self._factor(site, a)
        with self._exclusive as pointer:
            self._check_lease()
            library.bank_set_residual(pointer, site, None if rows is None else rows.ctypes.data,
                                      0 if rows is None else len(rows), int(train_a))

    def _arrays(self) -> tuple[FloatArray, FloatArray]:
        parameters, gradients, count = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
        with self._exclusive as pointer:
            library.bank_get_parameters(pointer, ctypes.byref(parameters), ctypes.byref(gradients), ctypes.byref(count))
        if count.value == 0:
            return np.zeros(0, np.float32), np.zeros(0, np.float32)
        lease = self._lease() if self._lease is not None else None
        if lease is None:
            lease = _Lease(self)
            self._lease = weakref.ref(lease)
        return lease.array(parameters.value, count.value), lease.array(gradients.value, count.value)

    @property
    def parameters(self) -> FloatArray:
        """The trained parameters of the open task, float32 [count]: the bank's own memory, not a copy.

        For each site in order: B' [output_dim, rank], A' if trained, B_t, A_t if trained. While this array or a view of
        it is alive, the bank refuses what would move the memory: pairs cannot be set, the task cannot end.
        """
        return self._arrays()[0]

    @property
    def gradients(self) -> FloatArray:
        """The gradients of the parameters, float32 [count], in the same way."""
        return self._arrays()[1]

    def _check_lease(self) -> None:
        if self._lease is not None and self._lease() is not None:
            raise StateError("an array of the bank's parameters or gradients is still alive; this call would move their "
                             "memory: delete the array, or copy it")

    def forward(self, site: int, x: Any, terms: int = ALL_TERMS, *, routing: Any = None, rows_per_item: int = 1,
                out: FloatArray | None = None) -> FloatArray:
        """Adds the terms of a site for x [rows, input_dim] to out [rows, output_dim], by default zeros. Returns out.

        terms: Terms.MERGED | Terms.ORTHOGONAL | Terms.RESIDUAL; those of pairs need an open task.
        routing: [rows / rows_per_item, num_tasks], weights of the residual adapters of finished tasks; None: none.
        """
        with self._shared as pointer:
            geometry, tasks = self._site(pointer, site), int(library.bank_num_tasks(pointer))
            rows = floats(x, "x", None, geometry.input_dim)
            if out is None:
                out = np.zeros((len(rows), geometry.output_dim), np.float32)
            check_in_place(out, "out", geometry.output_dim)
            if len(out) != len(rows):
                raise ArgumentError(f"out has {len(out)} rows and x has {len(rows)}")
            if rows_per_item < 1 or len(rows) % rows_per_item:
                raise ArgumentError(f"rows_per_item is {rows_per_item}, which does not divide the {len(rows)} rows of x")
            weights = None if routing is None else floats(routing, "routing", len(rows) // rows_per_item, tasks)
            library.bank_forward(pointer, site, rows.ctypes.data, len(rows), int(terms),
                                 None if weights is None else weights.ctypes.data, rows_per_item, out.ctypes.data)
        return out

    def backward(self, site: int, x: Any, dy: Any, terms: int = ALL_TERMS, *, input_gradient: bool = False) -> FloatArray | None:
        """Adds the gradients of the open task's factors at a site to gradients, from x [rows, input_dim] and
        dy [rows, output_dim]. With input_gradient it returns the input's gradient through the terms [rows, input_dim]."""
        with self._exclusive as pointer:
            geometry = self._site(pointer, site)
            rows = floats(x, "x", None, geometry.input_dim)
            above = floats(dy, "dy", len(rows), geometry.output_dim)
            dx = np.zeros_like(rows) if input_gradient else None
            library.bank_backward(pointer, site, rows.ctypes.data, above.ctypes.data, len(rows), int(terms),
                                  None if dx is None else dx.ctypes.data)
        return dx

    def step(self, learning_rate: float) -> None:
        """Takes one optimizer step with the gradients and sets these to 0."""
        with self._exclusive as pointer, contextlib.ExitStack() as stack:
            for core in self._projectors.values():
                stack.enter_context(Shared(core))
            library.bank_step(pointer, learning_rate)

    def set_merge_fractions(self, orthogonal: float, residual: float) -> None:
        """Sets the fractions of both updates that commit_task merges, and ends the training. Default 1 and 0."""
        with self._exclusive as pointer:
            library.bank_set_merge_fractions(pointer, orthogonal, residual)

    def commit_task(self) -> None:
        """Ends the task: the orthogonal update is merged, the residual pair becomes the adapter of this task."""
        self._end(library.bank_commit_task)

    def discard_task(self) -> None:
        """Drops the open task."""
        self._end(library.bank_discard_task)

    def _end(self, function: Any) -> None:
        with self._exclusive as pointer:
            self._check_lease()
            function(pointer)
            self._let_go(*list(self._projectors))

    # ---- finished tasks ----

    def merged(self, site: int) -> FloatArray:
        """The merged update of a site: [output_dim, input_dim], a copy."""
        merged = ctypes.c_void_p()
        with self._shared as pointer:
            geometry = self._site(pointer, site)
            library.bank_get_merged(pointer, site, ctypes.byref(merged))
            return copied(merged.value, (geometry.output_dim, geometry.input_dim))

    def residual(self, site: int, task: int) -> tuple[FloatArray, FloatArray]:
        """The residual adapter of a finished task: A [rank, input_dim] and B [output_dim, rank], copies."""
        adapter = _abi.dlora_adapter()
        with self._shared as pointer:
            geometry = self._site(pointer, site)
            library.bank_get_residual(pointer, site, task, ctypes.byref(adapter))
            return (copied(adapter.a, (adapter.rank, geometry.input_dim)),
                    copied(adapter.b, (geometry.output_dim, adapter.rank)))

    def close(self) -> None:
        """Frees the bank. Raises StateError while an array of its parameters is alive."""
        if not self.closed:
            self._check_lease()
        super().close()

    def __reduce__(self) -> Any:
        from ._saved import loaded, saved
        return loaded, (type(self), saved(self))

    def __repr__(self) -> str:
        if self.closed:
            return "<duallora.Bank, closed>"
        return f"<duallora.Bank: {len(self.sites)} sites, {self.num_tasks} finished tasks>"


class _Lease:
    """Keeps a bank alive while arrays of its memory are, and tells whether any is."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    def array(self, address: int | None, count: int) -> FloatArray:
        assert address is not None
        kind: Any = type("Memory", (ctypes.c_float * count,), {})
        memory = kind.from_address(address)
        memory.lease = self
        return np.frombuffer(memory, np.float32)


def _options(options: Any) -> Any:
    struct = _abi.dlora_bank_options()
    library.bank_options_init(ctypes.byref(struct), ctypes.sizeof(struct))
    return struct_options(struct, options, "a bank")
