# SPDX-License-Identifier: Apache-2.0
"""Parts of the library inside PyTorch.

AdaptedBackbone: the frozen backbone with trainable adapters, as a module whose output is the features.
LoRALinear: a linear layer of a network of one's own with adapters that keep earlier tasks.
project_gradients: keeps an optimizer's updates of any linear layer out of directions that earlier tasks use.

    network = AdaptedBackbone(model, rank=8)
    network.observe(images)                              # of the task: chooses the adapters' directions
    network.begin_task()
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-3)
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(head(network(images)), labels)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    network.observe(images)                              # what later tasks must avoid
    network.end_task()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ._abi import Projection, Site, Terms
from ._saved import loaded, saved
from .bank import ALL_TERMS, Bank, site
from .errors import ArgumentError, StateError
from .model import Model
from .projector import Projector
from .session import Session

__all__ = ["AdaptedBackbone", "LoRALinear", "bank_terms", "project_gradients", "session_features"]

_INPUTS = {Projection.QUERY: "attention", Projection.KEY: "attention", Projection.VALUE: "attention",
           Projection.OUTPUT: "output", Projection.FC1: "fc1", Projection.FC2: "fc2"}


def _numpy(tensor: Any) -> Any:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _stored(handle: Any) -> Any:
    """A handle's file as a tensor of bytes."""
    return torch.frombuffer(bytearray(saved(handle)), dtype=torch.uint8)


def _restored(kind: Any, state: Any) -> Any:
    return loaded(kind, state.cpu().numpy().tobytes())


def _put(bank: Bank, parameters: Any) -> None:
    """Copies parameters into the bank, and sets its gradients to 0."""
    own = bank.parameters
    given = _numpy(parameters).reshape(-1)
    if given.size != own.size:
        raise ArgumentError(f"parameters has {given.size} numbers; the bank's open task has {own.size}")
    own[:] = given
    bank.gradients[:] = 0


def _gradients_like(bank: Bank, parameters: Any) -> Any:
    return torch.from_numpy(bank.gradients.copy()).to(parameters.device, parameters.dtype).reshape(parameters.shape)


class _SessionFeatures(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, parameters: Any, session: Session, images: Any, terms: int) -> Any:
        assert session.bank is not None
        _put(session.bank, parameters)
        features = session.forward(images, terms)
        ctx.session, ctx.images, ctx.terms = session, images, terms
        session.passes = ctx.number = getattr(session, "passes", 0) + 1  # type: ignore[attr-defined]
        ctx.save_for_backward(parameters)
        return torch.from_numpy(features).to(parameters.device, parameters.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore
    def backward(ctx: Any, above: Any) -> Any:
        parameters, = ctx.saved_tensors
        session = ctx.session
        _put(session.bank, parameters)
        if session.passes != ctx.number:
            # The workspace holds another pass: run this one again.
            session.forward(ctx.images, ctx.terms)
            session.passes += 1
            ctx.number = session.passes
        session.backward(_numpy(above))
        return _gradients_like(session.bank, parameters), None, None, None


def session_features(session: Session, parameters: Any, images: Any, terms: int = ALL_TERMS) -> Any:
    """Features [n, embed_dim] of images, as a function of the parameters of the bank's open task.

    session: made with training=True and a bank. parameters: a tensor of as many numbers as bank.parameters; they are
    copied into the bank. The gradient with respect to them is the library's own.
    """
    if session.bank is None:
        raise ArgumentError("the session has no bank; there is nothing to train")
    return _SessionFeatures.apply(parameters, session, images, terms)


class _BankTerms(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Any, parameters: Any, bank: Bank, index: int, terms: int) -> Any:
        _put(bank, parameters)
        rows = _numpy(x).reshape(-1, x.shape[-1])
        y = bank.forward(index, rows, terms)
        ctx.bank, ctx.index, ctx.terms = bank, index, terms
        ctx.save_for_backward(x, parameters)
        return torch.from_numpy(y).to(x.device, x.dtype).reshape(*x.shape[:-1], y.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore
    def backward(ctx: Any, above: Any) -> Any:
        x, parameters = ctx.saved_tensors
        _put(ctx.bank, parameters)
        rows, dy = _numpy(x).reshape(-1, x.shape[-1]), _numpy(above).reshape(-1, above.shape[-1])
        dx = ctx.bank.backward(ctx.index, rows, dy, ctx.terms, input_gradient=ctx.needs_input_grad[0])
        dx = None if dx is None else torch.from_numpy(dx).to(x.device, x.dtype).reshape(x.shape)
        return dx, _gradients_like(ctx.bank, parameters), None, None, None


def bank_terms(bank: Bank, index: int, x: Any, parameters: Any, terms: int = ALL_TERMS) -> Any:
    """The terms that a bank adds at a site, [..., output_dim] for x [..., input_dim], as a function of x and of the
    parameters of the bank's open task, which are copied into the bank."""
    return _BankTerms.apply(x, parameters, bank, index, terms)


class LoRALinear(nn.Module):  # type: ignore[misc]
    """A frozen linear layer with low-rank adapters that learn task after task.

    layer = LoRALinear(nn.Linear(64, 32), rank=8)
    layer.observe(inputs_of_the_task); layer.begin_task()
    ... train layer.parameters() by any optimizer ...
    layer.observe(inputs_of_the_task); layer.end_task()

    The adapters of a task read directions that earlier tasks did not use: their outputs stay as they are. What a task
    has learned is merged into one update, so that nothing grows with tasks.
    """

    def __init__(self, linear: Any, rank: int = 8, energy_threshold: float = 0.95) -> None:
        """rank: of a task's adapters. energy_threshold: fraction of a task's input energy that later tasks must avoid."""
        super().__init__()
        self.linear = linear
        for parameter in linear.parameters():
            parameter.requires_grad_(False)
        self.rank, self.energy_threshold = rank, energy_threshold
        self.bank = Bank([site(linear.in_features, linear.out_features)])
        self.projector = Projector(linear.in_features)
        self.register_parameter("adapter", None)
        self.observing = False
        self._observed_trained = False

    def observe(self, x: Any) -> None:
        """Adds inputs of the task [..., in_features] to what its directions are chosen from. With layer.observing =
        True forward does it.

        Where layers below are trained too, the inputs change with training. Observed again before end_task, the new
        ones take the place of the old ones: what later tasks must avoid is what the trained network computes with.
        """
        if self.adapter is not None and not self._observed_trained:
            self.projector.discard_task()
            self._observed_trained = True
        self.projector.observe(_numpy(x).reshape(-1, self.linear.in_features))

    def begin_task(self) -> None:
        """Opens a task on what was observed: the adapter becomes a new parameter, which begins at 0."""
        if self.projector.num_observed == 0:
            raise StateError("call observe with the task's inputs first: the adapter's directions are chosen from them")
        directions = self.projector.unused_directions(self.rank)
        self.bank.begin_task()
        try:
            self.bank.set_orthogonal(0, directions if len(directions) else None)
        except BaseException:
            self.bank.discard_task()
            raise
        self._observed_trained = False
        weight = self.linear.weight
        self.adapter = nn.Parameter(torch.zeros(self.bank.parameters.size, device=weight.device, dtype=weight.dtype))

    def end_task(self) -> None:
        """Merges what was learned, and keeps the directions that the task used for it."""
        if self.adapter is None:
            raise StateError("no task is open; call begin_task first")
        if self.adapter.numel():
            _put(self.bank, self.adapter)
        self.bank.commit_task()
        self.adapter = None
        self.projector.commit_task(self.energy_threshold)

    def forward(self, x: Any) -> Any:
        """[..., in_features] -> [..., out_features]"""
        if self.observing:
            self.observe(x)
        y = self.linear(x)
        if self.adapter is not None and self.adapter.numel():
            return y + bank_terms(self.bank, 0, x, self.adapter)
        if self.bank.num_tasks == 0:
            return y
        return y + nn.functional.linear(x, self._merged().to(x.device, x.dtype))

    def _merged(self) -> Any:
        return torch.from_numpy(self.bank.merged(0))

    def get_extra_state(self) -> Any:
        """Finished tasks, for state_dict."""
        return {"bank": _stored(self.bank), "projector": _stored(self.projector)}

    def set_extra_state(self, state: Any) -> None:
        """Finished tasks, of load_state_dict."""
        self.bank, self.projector = _restored(Bank, state["bank"]), _restored(Projector, state["projector"])

    def extra_repr(self) -> str:
        return f"rank={self.rank}, {self.bank.num_tasks} finished tasks, {self.projector.size} directions used"


class AdaptedBackbone(nn.Module):  # type: ignore[misc]
    """The backbone with trainable low-rank adapters: images -> features [n, embed_dim].

    Its one parameter, `adapter`, holds the factors of the open task. Images are in any form that duallora.Model
    describes, at most max_batch of one size; no gradient goes to them.
    """

    def __init__(self, model: Model, rank: int = 8, *, blocks: Sequence[int] | None = None,
                 projections: Sequence[str] = ("key", "value"), energy_threshold: float = 0.95, **options: Any) -> None:
        """blocks: adapted ones, by default the upper half. options: of duallora.Session: max_batch, threads."""
        super().__init__()
        info = model.info
        self.rank, self.energy_threshold = rank, energy_threshold
        blocks = range(info.depth // 2, info.depth) if blocks is None else blocks
        widths = {"fc1": (info.embed_dim, info.mlp_dim), "fc2": (info.mlp_dim, info.embed_dim)}
        self._sites: list[Site] = [site(*widths.get(name, (info.embed_dim, info.embed_dim)), block, name)
                                   for block in blocks for name in projections]
        self.bank = Bank(self._sites)
        self._model, self._options = model, options
        self.session = Session(model, self.bank, training=True, **options)
        self._observed_trained = False
        self.projectors = {(s.block, _INPUTS[s.projection]): Projector(s.input_dim) for s in self._sites}
        self.register_parameter("adapter", None)

    def observe(self, images: Any) -> None:
        """Adds images of the task, at most max_batch, to what its directions are chosen from. Call it before
        begin_task; and again before end_task, where the inputs of the trained network take the place of the old ones."""
        if self.adapter is None:
            self.session.forward(images, Terms.MERGED)
        else:
            self(images)
        renewed = self.adapter is not None and not self._observed_trained
        self._observed_trained = self.adapter is not None
        for (block, name), projector in self.projectors.items():
            if renewed:
                projector.discard_task()
            projector.observe(self.session.input(block, name))

    def begin_task(self) -> None:
        """Opens a task on what was observed: the adapter becomes a new parameter, which begins at 0."""
        found = {key: projector.unused_directions(self.rank) for key, projector in self.projectors.items()}
        self.bank.begin_task()
        try:
            for index, one in enumerate(self._sites):
                directions = found[one.block, _INPUTS[one.projection]]
                self.bank.set_orthogonal(index, directions if len(directions) else None)
        except BaseException:
            self.bank.discard_task()
            raise
        self._observed_trained = False
        self.adapter = nn.Parameter(torch.zeros(self.bank.parameters.size))

    def end_task(self) -> None:
        """Merges what was learned, and keeps the directions that the task used for it."""
        if self.adapter is None:
            raise StateError("no task is open; call observe and begin_task first")
        if self.adapter.numel():
            _put(self.bank, self.adapter)
        self.bank.commit_task()
        self.adapter = None
        for projector in self.projectors.values():
            projector.commit_task(self.energy_threshold)

    def get_extra_state(self) -> Any:
        """Finished tasks, for state_dict."""
        projectors = {f"{block}.{name}": _stored(projector) for (block, name), projector in self.projectors.items()}
        return {"bank": _stored(self.bank), **projectors}

    def set_extra_state(self, state: Any) -> None:
        """Finished tasks, of load_state_dict."""
        self.bank = _restored(Bank, state["bank"])
        self.session = Session(self._model, self.bank, training=True, **self._options)
        for block, name in self.projectors:
            self.projectors[block, name] = _restored(Projector, state[f"{block}.{name}"])

    def forward(self, images: Any) -> Any:
        """Features [n, embed_dim]."""
        if self.adapter is None or not self.adapter.numel():
            return torch.from_numpy(self.session.forward(images, Terms.MERGED))
        return session_features(self.session, self.adapter, images)


def project_gradients(optimizer: Any, projectors: Mapping[Any, Projector]) -> Callable[[], None]:
    """Keeps the optimizer's steps out of directions that earlier tasks use (gradient projection memory, GPM).

    projectors: parameter -> the projector of the inputs that its last dimension reads: of a linear layer's weight
        [out, in] one of width in. Biases and parameters without a projector are left alone.

    Not the gradient alone but the whole update is projected, so that it holds with momentum, Adam and weight decay too.
    Returns a function that removes the hook.
    """
    for parameter, projector in projectors.items():
        if parameter.shape[-1] != projector.dim:
            raise ArgumentError(f"a parameter of shape {list(parameter.shape)} reads inputs of {parameter.shape[-1]}; its "
                                f"projector is of {projector.dim}")
    before: dict[Any, Any] = {}

    def remember(*_: Any) -> None:
        before.update((parameter, parameter.detach().clone()) for parameter in projectors)

    def project(*_: Any) -> None:
        with torch.no_grad():
            for parameter, projector in projectors.items():
                update = _numpy(parameter - before[parameter]).reshape(-1, projector.dim)
                kept = torch.from_numpy(projector.project(update)).reshape(parameter.shape)
                parameter.copy_(before[parameter] + kept.to(parameter.device, parameter.dtype))
        before.clear()

    if hasattr(optimizer, "register_step_post_hook"):
        handles = optimizer.register_step_pre_hook(remember), optimizer.register_step_post_hook(project)

        def remove() -> None:
            for handle in handles:
                handle.remove()

        return remove

    # Before torch 2.0 optimizers have no hooks.
    original = optimizer.step

    def step(*arguments: Any, **keywords: Any) -> Any:
        remember()
        result = original(*arguments, **keywords)
        project()
        return result

    def restore() -> None:
        optimizer.step = original

    optimizer.step = step
    return restore
