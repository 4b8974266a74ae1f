# SPDX-License-Identifier: Apache-2.0
"""Cells of the development suite: what each learns, in which order they run, and one run of one."""
import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time

import suite_figures

KINDS = ("learn", "joint", "unknown")
# A cell exists where the set gives at least this part of the images and of the classes per task that it asks for.
ENOUGH = 0.7


class CellError(Exception):
    """A sentence about a cell that gave no figures."""


@dataclasses.dataclass(frozen=True)
class Backbone:
    name: str
    path: str
    image_size: int  # 0: the backbone's own

    @staticmethod
    def parse(text):
        path, _, size = text.rpartition(":")
        if not (path and size.isdigit()):
            path, size = text, "0"
        name = os.path.splitext(os.path.basename(path))[0]
        return Backbone(f"{name}-{size}" if size != "0" else name, os.path.abspath(path), int(size))


@dataclasses.dataclass(frozen=True)
class Cell:
    """Two cells that are equal give the same figures, up to the machine and the version of the command."""
    variant: str
    switches: str
    kind: str
    set: str
    backbone: str
    classes_per_task: int
    num_tasks: int
    num_classes: int
    images: int
    test_images: int
    seed: int
    stages: str  # measured after: "all" tasks, or the "last"

    def text(self):
        return (f"{self.variant}: {self.kind} {self.set}, {self.backbone}, {self.num_tasks} x "
                f"{self.classes_per_task} classes, {self.images} images, seed {self.seed}")


# ---- the choice of classes and images ----

def chosen(names, salt, count):
    """The first `count` in an order that the salt alone decides: more of them begin with the same ones."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).digest())[:count or None]


def split(num_classes, classes_per_task):
    """(tasks, classes) that `num_classes` give; tasks are even, and (0, 0) says that there is no such cell."""
    tasks = -(-num_classes // classes_per_task)
    if tasks > 0 and num_classes // tasks >= ENOUGH * classes_per_task:
        return tasks, num_classes
    tasks = num_classes // classes_per_task
    return tasks, tasks * classes_per_task


def usable(image_set, images):
    return [label for label, files in image_set.classes.items() if len(files["train"]) >= ENOUGH * images]


def classes_of(cell, image_set, most):
    """(learnt, unknown) class names. Those of an `unknown` cell are two halves of the same choice."""
    labels = usable(image_set, cell.images)
    order = chosen(labels, f"{cell.seed}/{cell.set}", most)
    learnt = order[:cell.num_classes]
    if cell.kind != "unknown":
        return learnt, []
    return learnt, order[cell.num_classes:2 * cell.num_classes]


def plan(sets, backbones, variants, arguments):
    """All cells that the arguments ask for. Rounds of one seed and number of images, cheap cells first in each; the
    variants of a cell follow one another, so that they meet the same disturbances."""
    cells = {}
    for name, image_set in sets.items():
        for images in arguments.images:
            available = len(chosen(usable(image_set, images), "", arguments.max_classes))
            for per_task in arguments.classes_per_task:
                for kind in arguments.kinds:
                    tasks, classes = split(available // 2 if kind == "unknown" else available, per_task)
                    if classes < 2 or (kind == "joint" and tasks < 2):
                        continue
                    for backbone in backbones:
                        for seed in arguments.seeds:
                            for variant, switches in variants.items():
                                cell = Cell(variant, switches, kind, name, backbone.name,
                                            classes if kind == "joint" else per_task, 1 if kind == "joint" else tasks,
                                            classes, images, arguments.test_images, seed,
                                            "last" if arguments.last_only and kind == "learn" else "all")
                                cells[cell] = cost(cell, backbone)
    order = list(variants)
    return sorted(cells, key=lambda c: (c.seed, c.images, cells[c], c.set, c.backbone, KINDS.index(c.kind),
                                        c.classes_per_task, order.index(c.variant)))


def cost(cell, backbone):
    """In proportion to the time, roughly: images that pass, times the size of the network. A training step costs three
    passes of its 16 images, a task is at least 36 steps, and measuring passes each image twice."""
    training = 3 * max(cell.num_tasks * 36 * 16, 4 * cell.num_classes * cell.images)
    stages = (cell.num_tasks + 1) / 2 if cell.kind == "learn" and cell.stages == "all" else 1
    measuring = 2 * (cell.test_images or 100) * cell.num_classes * (2 if cell.kind == "unknown" else stages)
    return (training + measuring) * os.path.getsize(backbone.path)


# ---- one run ----

def link(files, folder, label):
    path = os.path.join(folder, label)
    os.makedirs(path)
    for file in files:
        os.symlink(file, os.path.join(path, os.path.basename(file)))


def make_folders(cell, image_set, most, folder):
    learnt, unknown = classes_of(cell, image_set, most)
    for part, labels in (("test", learnt), ("train", learnt), ("unknown", unknown)):
        for label in labels:
            files = image_set.classes[label]["train" if part == "train" else "test"]
            count = cell.images if part == "train" else cell.test_images
            names = {os.path.basename(file): file for file in files}
            picked = chosen(names, f"{cell.seed}/{cell.set}/{label}", count)
            link([names[name] for name in picked], os.path.join(folder, part), label)


class Run:
    """One cell's processes; adds up what they take."""

    def __init__(self, command, backbone, threads, folder):
        self.command, self.backbone, self.threads, self.folder = command, backbone, threads, folder
        self.cpu_seconds, self.peak_bytes = 0.0, 0

    def call(self, word, *switches):
        """Runs the command; its standard output and the seconds it took."""
        size = ["--image-size", str(self.backbone.image_size)] if self.backbone.image_size else []
        line = [self.command, word, "--backbone", self.backbone.path, *size, "--threads", str(self.threads), *switches]
        out, err = (os.path.join(self.folder, name) for name in ("stdout", "stderr"))
        started = time.monotonic()
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        self.peak_bytes = max(self.peak_bytes, 1024 * usage.ru_maxrss)
        if process.returncode != 0:
            with open(err, encoding="utf-8", errors="replace") as f:
                words = f.read().strip().splitlines()[-1:] or ["it says nothing"]
            raise CellError(f"exit code {process.returncode} of `{shlex.join(line)}`: {words[0]}")
        with open(out, encoding="utf-8") as f:
            return f.read(), seconds


def figures_of(cell, run, probabilities):
    folder = run.folder
    test, checkpoint = os.path.join(folder, "test"), os.path.join(folder, "learnt.safetensors")
    measured = ["--test", test] if cell.stages == "all" and cell.kind != "unknown" else []
    text, seconds = run.call("learn", "--train", os.path.join(folder, "train"), *measured, "--tasks",
                             str(cell.num_tasks), "--seed", str(cell.seed), "--out", checkpoint, "--json", "-",
                             "--quiet", *shlex.split(cell.switches))
    learnt = json.loads(text)
    figures = {"version": learnt["version"], "seconds": seconds, "learn_seconds": sum(
        task[name] for task in learnt["tasks"] for name in ("seconds_observe", "seconds_train", "seconds_statistics")),
        "num_steps": sum(task["num_steps"] for task in learnt["tasks"]), "task_reports": learnt["tasks"],
        "checkpoint_bytes": os.path.getsize(checkpoint)}
    if cell.kind == "unknown":
        unknown = os.path.join(folder, "unknown")
        predictions, per_image = predicted(run, checkpoint, test, unknown)
        figures.update(suite_figures.unknown_figures(predictions, unknown + os.sep))
        figures["predict_seconds_per_image"] = per_image
    else:
        if not measured:
            text, _ = run.call("evaluate", "--checkpoint", checkpoint, "--test", test, "--json", "-", "--quiet")
            learnt = json.loads(text)
        figures.update(suite_figures.learn_figures(learnt, cell))
    # What follows is asked for or not, and must not count when variants are compared.
    figures.update(cpu_seconds=run.cpu_seconds, peak_bytes=run.peak_bytes, threads=run.threads)
    if probabilities and cell.kind == "learn":
        predictions, _ = predicted(run, checkpoint, test)
        figures.update(suite_figures.calibration_figures(predictions, learnt["task_classes"]))
    return figures


def predicted(run, checkpoint, *folders):
    """(entries of the command's JSON, seconds of an image)"""
    text, seconds = run.call("predict", "--checkpoint", checkpoint, "--json", *folders)
    predictions = json.loads(text)
    return predictions, seconds / len(predictions)


def run_cell(cell, image_set, backbone, arguments):
    """The figures of a cell; CellError if it has none."""
    work = os.path.join(arguments.out, "work")
    os.makedirs(work, exist_ok=True)
    folder = tempfile.mkdtemp(dir=work)
    try:
        make_folders(cell, image_set, arguments.max_classes, folder)
        threads = arguments.threads or max(1, len(os.sched_getaffinity(0)) // arguments.jobs)
        return figures_of(cell, Run(arguments.command, backbone, threads, folder), arguments.probabilities)
    except (KeyError, ValueError) as error:
        raise CellError(f"the command's JSON is not as expected: {error!r}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
