# SPDX-License-Identifier: Apache-2.0
"""Learner: the whole method. Learns task after task, predicts, evaluates, and saves all of it in one file."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from . import _abi
from ._arrays import DoubleArray, FloatArray, IntArray, integers, path_bytes
from ._callbacks import Callbacks
from ._handle import Handle, library, make
from ._images import ArrayImages, Images, Source, open_images, open_labelled, struct_of
from ._labels import NOTE, Labels
from ._library import sized
from ._options import LearnerOptions, OptionValue
from ._progress import Bars, ProgressOption, log_line, reporter
from .bank import Bank
from .errors import ArgumentError, MismatchError, StateError
from .model import Model
from .predictor import PREDICTION, Predictor
from .projector import Projector

_CHUNK = 256
_Record = TypeVar("_Record")
_log_callback = _abi.LogCallback(log_line)


class Learner(Handle):
    """Learns classes task after task on a frozen backbone, without keeping images.

    learner = Learner(Model.load("vit.safetensors"), epochs=4)
    learner.learn(images, ["cat", "dog", ...])    # again for every new task
    learner.predict(new_images)                   # array(["dog", ...])
    learner.save("device.safetensors")

    Many threads may predict at once. A call that learns needs the learner alone: another call meanwhile raises
    ConcurrentUseError. A call that fails, or that a callback or Ctrl-C stops, leaves the learner as it was before.
    Images may have any form that Model describes; labels may be of any hashable kind.
    """

    _name = "learner"

    def __init__(self, model: Model, *, paper: bool = False, **options: Any) -> None:
        """model: the backbone; it may be shared. paper: begin with the paper's options rather than the defaults.

        options: by name, as learner_options() lists them: epochs=4, routing="two-pass", sites=("key", "value"), ...
        """
        if not isinstance(model, Model):
            raise ArgumentError(f"model is of type {type(model).__name__}; a duallora.Model is expected")
        struct = LearnerOptions(paper).set(options)
        with model._shared as pointer:
            made = make(library.learner_create, pointer, struct.buffer)
        self._adopt(model, made, Labels())

    def _adopt(self, model: Model, pointer: int, labels: Labels) -> None:
        self._own(pointer, library.learner_destroy, model._core)
        self.model = model
        self._embed_dim = model.info.embed_dim
        self._labels = labels
        library.learner_set_log(pointer, _log_callback, None)

    # ---- saving and loading ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the learner as one safetensors file, atomically, with its labels and an open task."""
        encoded = path_bytes(path)
        with self._shared as pointer:
            library.learner_save(pointer, encoded)

    @classmethod
    def load(cls, model: Model, path: str | os.PathLike[str], *, labels: Iterable[Hashable] | None = None,
             **options: Any) -> Learner:
        """Loads a learner on the backbone that it was learned on.

        labels: the labels, if they are of a kind that a file cannot keep, as members of an enum; found by their text.
        options: those that shall differ from the saved ones.
        """
        encoded = path_bytes(path)
        with model._shared as pointer:
            made = make(library.learner_load, pointer, encoded, None)
            try:
                if options:
                    struct = LearnerOptions()
                    library.learner_get_options(made, struct.buffer)
                    struct.set(options)
                    if _open_task(made).is_open:
                        again = make(library.learner_load, pointer, encoded, struct.buffer)
                        library.learner_destroy(made)
                        made = again
                    else:
                        library.learner_configure(made, struct.buffer)
                note = library.learner_get_note(made, NOTE.encode())
                names = {int(i): library.learner_get_class_name(made, int(i)) for i in _class_ids(made)}
                restored = Labels.restored(None if note is None else note.decode(),
                                           {i: None if name is None else name.decode() for i, name in names.items()}, labels)
            except BaseException:
                library.learner_destroy(made)
                raise
        learner = cls.__new__(cls)
        learner._adopt(model, made, restored)
        return learner

    @classmethod
    def resume(cls, model: Model, path: str | os.PathLike[str], *, steps: int = 100,
               labels: Iterable[Hashable] | None = None, **options: Any) -> Learner:
        """Loads the learner in `path` if the file exists, or creates one, and keeps it there while it learns.

        A program that was interrupted does the same again, and goes on in the middle of the task:

            learner = Learner.resume(model, "device.safetensors")
            for images, labels in tasks[learner.num_tasks:]:
                learner.learn(images, labels)
                learner.save("device.safetensors")

        steps: optimizer steps from one snapshot to the next. options: of a new learner.
        """
        exists = os.path.exists(path)
        learner = cls.load(model, path, labels=labels) if exists else cls(model, **options)
        learner.snapshot(path, steps)
        return learner

    def snapshot(self, path: str | os.PathLike[str] | None, steps: int = 0) -> None:
        """Keeps the learner with its open task in a file while it learns, every `steps` optimizer steps.

        steps 0: only when a call stops early. path None: no snapshots. learn resumes a task that was loaded so.
        """
        encoded = None if path is None else path_bytes(path)
        with self._exclusive as pointer:
            library.learner_set_snapshot(pointer, encoded, steps)

    def to_bytes(self) -> bytes:
        """The checkpoint that save would write."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "learner.safetensors")
            self.save(path)
            with open(path, "rb") as file:
                return file.read()

    @classmethod
    def from_bytes(cls, model: Model, data: bytes, *, labels: Iterable[Hashable] | None = None, **options: Any) -> Learner:
        """Loads a learner from the bytes of a checkpoint; otherwise as load."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "learner.safetensors")
            with open(path, "wb") as file:
                file.write(data)
            return cls.load(model, path, labels=labels, **options)

    def __reduce__(self) -> Any:
        """Pickles the model, the checkpoint and the options of the run; snapshots are not part of it."""
        return _unpickled, (self.model, self.to_bytes(), {"threads": self.options["threads"]},
                            [label for label in self._labels._ids])

    def export_peft(self, folder: str | os.PathLike[str], task: int | None = None) -> None:
        """Writes an update of the backbone as a LoRA that PEFT opens: adapter_config.json, adapter_model.safetensors.

        task None: what every image sees. Otherwise the residual adapter of this task.
        """
        encoded = path_bytes(folder)
        with self._shared as pointer:
            library.learner_export_peft(pointer, encoded, int(_abi.Auto.AUTO) if task is None else task)

    def export_backbone(self, folder: str | os.PathLike[str]) -> None:
        """Writes the backbone with what was learned merged into its weights, and a classifier, for timm and
        transformers."""
        encoded = path_bytes(folder)
        with self._shared as pointer:
            library.learner_export_backbone(pointer, encoded)

    # ---- options, classes and tasks ----

    @property
    def options(self) -> dict[str, OptionValue]:
        """The options in force, by name. Change them with configure."""
        struct = LearnerOptions()
        with self._shared as pointer:
            library.learner_get_options(pointer, struct.buffer)
        return struct.as_dict()

    def configure(self, **options: Any) -> None:
        """Changes options of later tasks and predictions."""
        struct = LearnerOptions()
        with self._exclusive as pointer:
            library.learner_get_options(pointer, struct.buffer)
            library.learner_configure(pointer, struct.set(options).buffer)

    @property
    def num_tasks(self) -> int:
        """Number of finished tasks."""
        with self._shared as pointer:
            return int(library.learner_num_tasks(pointer))

    @property
    def class_ids(self) -> IntArray:
        """The library's ids of the learned classes [num_classes], in order of first appearance."""
        with self._shared as pointer:
            return _class_ids(pointer)

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """Labels of the learned classes [num_classes], in the order of the columns of predict_proba."""
        return self._labels.decode(self.class_ids)

    def labels_of(self, class_ids: Any) -> npt.NDArray[Any]:
        """Labels of class ids, as decide gives them."""
        return self._labels.decode(integers(class_ids, "class_ids", None))

    def class_name(self, class_id: int) -> str | None:
        """The name of a class in the checkpoint; None if it has none, as of labels that are whole numbers."""
        with self._shared as pointer:
            name = library.learner_get_class_name(pointer, class_id)
            return None if name is None else name.decode()

    def note(self, key: str) -> str | None:
        """A text of the program's own, kept in the checkpoint; None if there is none."""
        with self._shared as pointer:
            text = library.learner_get_note(pointer, key.encode())
            return None if text is None else text.decode()

    def set_note(self, key: str, value: str | None) -> None:
        """Keeps a text under a key in the checkpoint; None removes it."""
        if key == NOTE:
            raise ArgumentError(f"the note {NOTE!r} is used by this package")
        with self._exclusive as pointer:
            library.learner_set_note(pointer, key.encode(), None if value is None else value.encode())

    @property
    def untouched_weight(self) -> float:
        """Weight in [0, 1] of the untouched backbone in predictions."""
        with self._shared as pointer:
            return float(library.learner_get_untouched_weight(pointer))

    @property
    def accuracy_matrix(self) -> DoubleArray:
        """Accuracies [num_tasks, num_tasks] as evaluate measured them: row i after task i; NaN where not measured."""
        with self._shared as pointer:
            count = int(library.learner_num_tasks(pointer))
            matrix = np.full((count, count), np.nan)
            if count > 0:
                library.learner_get_accuracy_matrix(pointer, matrix.ctypes.data)
        return matrix

    @property
    def profile(self) -> _abi.Profile:
        """Seconds spent in learning and in evaluate, by kind of work."""
        struct = sized(_abi.dlora_profile)
        with self._shared as pointer:
            library.learner_get_profile(pointer, ctypes.byref(struct))
        return _abi.Profile._of(struct)

    # ---- learning ----

    def learn(self, images: Any, labels: Any = None, *, progress: ProgressOption = None) -> _abi.TaskReport:
        """Learns one task: adds classes, or images of known classes.

        images: any form that Model describes; with labels None also a folder with one sub-folder a class, a dataset or
            DataLoader, or an iterator of pairs (image, label), which is read once and kept in memory for the call
        labels: [n], of any hashable kind
        progress: True for a bar of tqdm, or a function of a Progress

        An exception in a callback, in the reading of images, or Ctrl-C stops the call, discards the task and is raised
        again. A task that was loaded open (see resume) goes on; images and labels must be the same.
        """
        opened, given = open_labelled(images, labels)
        report = sized(_abi.dlora_task_report)
        with self._exclusive as pointer, Callbacks() as callbacks:
            ids = self._register(pointer, given)
            with _Progress(pointer, callbacks, progress):
                if opened.array is not None:
                    struct = struct_of(opened.array)
                    library.learner_learn_task(pointer, ctypes.byref(struct), ids.ctypes.data, ctypes.byref(report))
                else:
                    source = Source(opened, ids, None, callbacks.guard)
                    library.learner_learn_source(pointer, ctypes.byref(source.struct), ctypes.byref(report))
        return _abi.TaskReport._of(report)

    partial_fit = learn

    def _register(self, pointer: int, labels: Any) -> IntArray:
        names = self._labels.register(labels)
        for class_id, name in names.items():
            library.learner_set_class_name(pointer, class_id, name.encode(errors="surrogateescape"))
        if names:
            library.learner_set_note(pointer, NOTE.encode(), self._labels.note().encode())
        return self._labels.encode(labels)

    # ---- a task in a loop of one's own ----

    def begin_task(self, planned_steps: int = 0) -> None:
        """Opens a task. planned_steps: for the cosine schedule; 0: a constant learning rate."""
        with self._exclusive as pointer:
            library.learner_begin_task(pointer, planned_steps)

    def observe(self, images: Any, labels: Any) -> None:
        """Adds images of the task to its statistics, before training."""
        self._each(library.learner_observe, images, labels)

    def begin_training(self) -> None:
        """Ends observing: chooses the adapters' directions and the rows of the task's classes."""
        with self._exclusive as pointer:
            library.learner_begin_training(pointer)

    def step(self, images: Any, labels: Any) -> float:
        """Makes one optimizer step on a batch of images of one size. Returns its mean loss."""
        opened, given = open_labelled(images, labels)
        array = _one_array(opened)
        loss = ctypes.c_float()
        with self._exclusive as pointer:
            ids = self._labels.encode(given)
            library.learner_step(pointer, ctypes.byref(struct_of(array)), ids.ctypes.data, ctypes.byref(loss))
        return loss.value

    def observe_trained(self, images: Any, labels: Any) -> None:
        """Adds images of the task to its statistics again, with the trained adapters."""
        self._each(library.learner_observe_trained, images, labels)

    def _each(self, function: Any, images: Any, labels: Any) -> None:
        opened, given = open_labelled(images, labels)
        with self._exclusive as pointer:
            ids = self._register(pointer, given)
            for places, array in opened.batches(_CHUNK):
                part = np.ascontiguousarray(ids[places])
                function(pointer, ctypes.byref(struct_of(array)), part.ctypes.data)

    def commit_task(self) -> _abi.TaskReport:
        """Closes the task."""
        report = sized(_abi.dlora_task_report)
        with self._exclusive as pointer:
            library.learner_commit_task(pointer, ctypes.byref(report))
        return _abi.TaskReport._of(report)

    def discard_task(self) -> None:
        """Discards the open task; the learner is as it was before."""
        with self._exclusive as pointer:
            library.learner_discard_task(pointer)

    @property
    def open_task(self) -> _abi.OpenTask | None:
        """Progress of the open task; None: no task is open."""
        with self._shared as pointer:
            struct = _open_task(pointer)
        return _abi.OpenTask._of(struct) if struct.is_open else None

    # ---- predictions ----

    def decide(self, images: Any, *, tasks: Any = None) -> npt.NDArray[np.void]:
        """Decides for images: a structured array [n] with fields class_id, task, class_probability, task_probability,
        unknown_score and unknown. labels_of gives the labels of class ids.

        tasks: [n], the task of each image, where it is known.
        """
        return self._predictions(images, tasks, False)[0]

    def predict(self, images: Any, *, tasks: Any = None) -> npt.NDArray[Any]:
        """Predicts the label of each image [n]. tasks: as for decide."""
        return self._labels.decode(self.decide(images, tasks=tasks)["class_id"])

    def predict_proba(self, images: Any, *, tasks: Any = None) -> FloatArray:
        """Probabilities of the classes, float32 [n, num_classes], columns in the order of classes_."""
        return np.exp(self.predict_log_proba(images, tasks=tasks))

    def predict_log_proba(self, images: Any, *, tasks: Any = None) -> FloatArray:
        """Logarithms of the probabilities of the classes, float32 [n, num_classes]."""
        log_probs = self._predictions(images, tasks, True)[1]
        assert log_probs is not None
        return log_probs

    def _predictions(self, images: Any, tasks: Any, with_classes: bool) -> tuple[npt.NDArray[np.void], FloatArray | None]:
        opened = open_images(images)
        given = None if tasks is None else integers(tasks, "tasks", len(opened))
        found = np.empty(len(opened), PREDICTION)
        log_probs: FloatArray | None = None
        for places, array in opened.batches(_CHUNK):
            part = np.empty(len(array), PREDICTION)
            with self._shared as pointer:
                columns = None
                if with_classes:
                    columns = np.empty((len(array), library.learner_num_classes(pointer)), np.float32)
                    if log_probs is None:
                        log_probs = np.empty((len(opened), columns.shape[1]), np.float32)
                    if log_probs.shape[1] != columns.shape[1]:
                        raise StateError("the learner has learned another task during this prediction")
                struct = struct_of(array)
                address = None if columns is None else columns.ctypes.data
                if given is None:
                    library.learner_predict(pointer, ctypes.byref(struct), part.ctypes.data, address)
                else:
                    chosen = np.ascontiguousarray(given[places])
                    library.learner_predict_with_tasks(pointer, ctypes.byref(struct), chosen.ctypes.data, part.ctypes.data,
                                                       address)
            found[places] = part
            if log_probs is not None and columns is not None:
                log_probs[places] = columns
        return found, log_probs

    def embed(self, images: Any, *, tasks: Any = None) -> FloatArray:
        """Adapted features of images, float32 [n, embed_dim]. tasks: [n], whose residual adapters run; -1: none."""
        opened = open_images(images)
        given = None if tasks is None else integers(tasks, "tasks", len(opened))
        features = np.empty((len(opened), self._embed_dim), np.float32)
        for places, array in opened.batches(_CHUNK):
            part = np.empty((len(array), features.shape[1]), np.float32)
            chosen = None if given is None else np.ascontiguousarray(given[places])
            with self._shared as pointer:
                library.learner_embed(pointer, ctypes.byref(struct_of(array)), None if chosen is None else chosen.ctypes.data,
                                      part.ctypes.data)
            features[places] = part
        return features

    def evaluate(self, images: Any, labels: Any = None, *, tasks: Any = None,
                 progress: ProgressOption = None) -> _abi.Evaluation:
        """Evaluates the finished tasks on test images, and records the accuracies in accuracy_matrix.

        Images of classes not learned yet are skipped. images, labels, progress: as for learn.
        tasks: [n], the true task of each image, where classes recur in several; None: by class.
        """
        opened, given = open_labelled(images, labels)
        true_tasks = None if tasks is None else integers(tasks, "tasks", len(opened))
        evaluation = sized(_abi.dlora_evaluation)
        with self._exclusive as pointer, Callbacks() as callbacks:
            source = Source(opened, self._labels.encode(given), true_tasks, callbacks.guard)
            with _Progress(pointer, callbacks, progress):
                library.learner_evaluate(pointer, ctypes.byref(source.struct), ctypes.byref(evaluation))
        return _abi.Evaluation._of(evaluation)

    def score(self, images: Any, labels: Any) -> float:
        """Fraction of images whose label is predicted; records nothing."""
        opened, given = open_labelled(images, labels)
        return float(np.mean(self.decide(opened)["class_id"] == self._labels.encode(given)))

    # ---- parts ----

    @property
    def bank(self) -> Bank:
        """The adapters, to be read: merged updates and residual adapters of finished tasks."""
        return Bank._borrow(self._core, library.learner_get_bank)

    @property
    def predictor(self) -> Predictor:
        """The statistics without residual adapters, to be read or cloned."""
        return Predictor._borrow(self._core, library.learner_get_predictor)

    def projector(self, block: int, input: int | str = _abi.Input.ATTENTION) -> Projector | None:
        """The used directions of one adapted input, to be read or cloned; None if it is not adapted.

        input: an Input, or its word: "attention", "output", "fc1", "fc2".
        """
        which = _abi.Input[input.upper()] if isinstance(input, str) else _abi.Input(input)
        with self._shared as pointer:
            if not library.learner_get_projector(pointer, block, int(which)):
                return None

        def find(owner: int) -> int | None:
            found: int | None = library.learner_get_projector(owner, block, int(which))
            return found

        return Projector._borrow(self._core, find)

    def __repr__(self) -> str:
        if self.closed:
            return "<duallora.Learner, closed>"
        return f"<duallora.Learner: {self.num_tasks} tasks, {len(self.class_ids)} classes>"


class _Progress:
    """with _Progress(pointer, callbacks, progress): a call that reports to the program, or only lets Ctrl-C through."""

    def __init__(self, pointer: int, callbacks: Callbacks, progress: ProgressOption) -> None:
        self._pointer, self._report = pointer, reporter(progress)
        self._callback = _abi.ProgressCallback(callbacks.guard(self._call, 1))

    def _call(self, progress: int, _: Any) -> int:
        if self._report is not None:
            self._report(_abi.Progress._of(_abi.dlora_progress.from_address(progress)))
        return 0

    def __enter__(self) -> None:
        library.learner_set_progress(self._pointer, self._callback, None)

    def __exit__(self, *_: object) -> None:
        library.learner_set_progress(self._pointer, None, None)
        if isinstance(self._report, Bars):
            self._report.close()


def _open_task(pointer: int) -> Any:
    struct = sized(_abi.dlora_open_task)
    library.learner_get_open_task(pointer, ctypes.byref(struct))
    return struct


def _class_ids(pointer: int) -> IntArray:
    ids = np.empty(library.learner_num_classes(pointer), np.int64)
    if len(ids) > 0:
        library.learner_get_classes(pointer, ids.ctypes.data)
    return ids


def _one_array(images: Images) -> npt.NDArray[Any]:
    if isinstance(images, ArrayImages):
        assert images.array is not None
        return images.array
    arrays = [images.read(index) for index in range(len(images))]
    if len({(array.shape, array.dtype) for array in arrays}) > 1:
        raise MismatchError("the images of one step have different sizes; resize them, or give one size at a time")
    return np.stack(arrays)


def _unpickled(model: Model, data: bytes, options: dict[str, Any], labels: list[Hashable]) -> Learner:
    return Learner.from_bytes(model, data, labels=labels, **options)
