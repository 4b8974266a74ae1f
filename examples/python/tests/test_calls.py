# SPDX-License-Identifier: Apache-2.0
"""Calls: exceptions in callbacks, Ctrl-C, threads, processes, other libraries beside, and the life of handles."""

import ctypes
import gc
import logging
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import weakref

import duallora
import numpy as np
import pytest
from conftest import SMALL, backbone_path, pictures

CC = os.environ.get("CC") or shutil.which("cc")
PIXELS, LABELS = pictures([1, 2], 20, 1)


class Oops(Exception):
    pass


def learner_of(model, **options):
    return duallora.Learner(model, **{**SMALL, **options})


# ---- callbacks ----


@pytest.mark.parametrize("error", [Oops("here"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
@pytest.mark.parametrize("phase", list(duallora.Phase)[:3])
def test_an_exception_in_progress_stops_the_task_and_comes_back(model, error, phase):
    learner = learner_of(model)
    calls = []

    def progress(now):
        calls.append(now)
        if now.phase == phase:
            raise error

    with pytest.raises(type(error)) as caught:
        learner.learn(PIXELS, LABELS, progress=progress)
    assert caught.value is error and len([call for call in calls if call.phase == phase]) == 1
    assert learner.num_tasks == 0 and learner.open_task is None
    # Its own cause is kept, and the library's error is not put in its place.
    assert error.__context__ is None
    learner.learn(PIXELS, LABELS)
    assert learner.num_tasks == 1


def test_an_exception_in_the_reading_of_images_comes_back(model):
    class Broken:
        reads = 0

        def __len__(self):
            return len(PIXELS)

        def __getitem__(self, index):
            self.reads += 1
            if self.reads > 50:  # not in the first pass
                raise Oops("disk")
            return PIXELS[index]

    learner = learner_of(model)
    with pytest.raises(Oops, match="disk"):
        learner.learn(Broken(), LABELS)
    assert learner.num_tasks == 0
    learner.learn(PIXELS, LABELS)
    with pytest.raises(Oops):
        Broken.reads = 50
        learner.evaluate(Broken(), LABELS)
    assert learner.evaluate(PIXELS, LABELS).num_images == 40


def test_progress_tells_phases_in_order(model):
    calls = []
    learner_of(model).learn(PIXELS, LABELS, progress=calls.append)
    phases = [call.phase for call in calls]
    assert phases == sorted(phases) and set(phases) == set(list(duallora.Phase)[:3])
    assert all(0 < call.done <= call.total and call.task == 0 for call in calls)
    assert all(np.isfinite(call.loss) == (call.phase == duallora.Phase.TRAIN) for call in calls)


def test_progress_true_shows_bars(model, capsys):
    pytest.importorskip("tqdm", reason="no tqdm (Debian: python3-tqdm)")
    learner = learner_of(model)
    learner.learn(PIXELS, LABELS, progress=True)
    learner.evaluate(PIXELS, LABELS, progress=True)
    shown = capsys.readouterr().err
    for word in ("task 0: observe", "task 0: train", "loss=", "statistics", "evaluate", "40/40"):
        assert word in shown
    with pytest.raises(duallora.ArgumentTypeError, match="progress"):
        learner.learn(PIXELS, LABELS, progress="bar")


def test_the_log_goes_to_logging(model, caplog):
    # So many directions are in use after the tasks that a branch finds no room.
    learner = learner_of(model, rank_orthogonal=32, energy_threshold=1.0)
    with caplog.at_level(logging.INFO, logger="duallora"):
        for task in range(3):
            learner.learn(*pictures([2 * task, 2 * task + 1], 20, task))
    assert any("direction" in record.getMessage() for record in caplog.records)


def test_a_callback_must_not_use_its_own_handle(model):
    learner = learner_of(model)

    def progress(now):
        learner.predict(PIXELS)

    with pytest.raises(duallora.ConcurrentUseError, match="callback"):
        learner.learn(PIXELS, LABELS, progress=progress)
    # But others.
    other = learner_of(model)
    other.learn(PIXELS, LABELS)
    learner.learn(PIXELS, LABELS, progress=lambda now: other.predict(PIXELS[:1]))


CTRL_C = """
import os, signal, sys, threading, time
sys.path[:0] = {paths!r}
import duallora, numpy as np
from conftest import SMALL, backbone_path, pictures
learner = duallora.Learner(duallora.Model.load(backbone_path()), **{{**SMALL, "epochs": 100000}})
pixels, labels = pictures([1, 2], 20, 1)
started = threading.Event()
def interrupt():
    started.wait()
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
begin = time.monotonic()
try:
    started.set()
    learner.learn({images}, labels)
except KeyboardInterrupt:
    assert time.monotonic() - begin < 30
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert learner.num_tasks == 0 and learner.open_task is None
    print("interrupted")
"""


@pytest.mark.parametrize("images", ["pixels", "list(pixels)"])
def test_ctrl_c_stops_a_task(images):
    script = CTRL_C.format(paths=[os.path.dirname(__file__)], images=images)
    for _ in range(3):  # it comes at another place each time
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
        assert run.stdout == "interrupted\n" and "ignored" not in run.stderr, run.stderr


# ---- threads ----


def test_eight_threads_predict_at_once(model, learned):
    pixels, _ = pictures([3, 50, -7], 30, 4)
    expected = learned.predict_proba(pixels)
    failures = []

    def work(seed):
        try:
            for i in np.random.default_rng(seed).integers(0, len(pixels) - 8, 30):
                if not np.allclose(learned.predict_proba(pixels[i:i + 8]), expected[i:i + 8], atol=1e-4):
                    failures.append(int(i))
                learned.decide(pixels[i:i + 1])
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_second_thread_is_refused_while_one_learns(model):
    learner = learner_of(model)
    learner.learn(*pictures([5, 6], 10, 3))
    inside, go_on, outcomes = threading.Event(), threading.Event(), {}

    def progress(now):
        inside.set()
        assert go_on.wait(60)

    learning = threading.Thread(target=lambda: learner.learn(PIXELS, LABELS, progress=progress))
    learning.start()
    assert inside.wait(60)
    for name, call in {"predict": lambda: learner.predict(PIXELS), "learn": lambda: learner.learn(PIXELS, LABELS),
                       "save": lambda: learner.save("/tmp/never"), "close": learner.close, "num_tasks": lambda: learner.num_tasks,
                       "bank": lambda: learner.bank.num_tasks}.items():
        try:
            call()
            outcomes[name] = "went through"
        except duallora.ConcurrentUseError as error:
            assert "another thread" in str(error)
    go_on.set()
    learning.join()
    assert not outcomes
    assert learner.num_tasks == 2


def test_a_change_is_refused_while_others_read():
    projector = duallora.Projector(4)
    projector.observe(np.eye(4))
    with projector._shared:
        with projector._shared:
            assert projector.num_observed == 4  # other readers are let in
        with pytest.raises(duallora.ConcurrentUseError, match="other calls"):
            projector.observe(np.eye(4))
        with pytest.raises(duallora.ConcurrentUseError):
            projector.close()
    projector.observe(np.eye(4))
    assert projector.num_observed == 8


WAITING = r"""
#include <stdint.h>
#include <unistd.h>
int32_t wait_for(const void *progress, volatile int32_t *flag) {
  (void)progress;
  for (int i = 0; i < 20000 && !*flag; i++) usleep(1000);
  return !*flag;
}
"""


@pytest.mark.skipif(CC is None, reason="no C compiler")
def test_long_calls_release_the_interpreter(model, tmp_path):
    # The call waits, in C, for what another thread of Python does meanwhile. If it kept the lock it would wait in vain.
    (tmp_path / "waiting.c").write_text(WAITING)
    subprocess.run([CC, "-shared", "-fPIC", str(tmp_path / "waiting.c"), "-o", str(tmp_path / "waiting.so")], check=True)
    waiting = ctypes.CDLL(str(tmp_path / "waiting.so"))
    learner, flag, outcome = learner_of(model), ctypes.c_int32(0), []
    struct, library = duallora._images.struct_of(PIXELS), duallora._library.library

    def learn():
        with learner._exclusive as pointer:
            library.learner_set_progress(pointer, waiting.wait_for, ctypes.byref(flag))
            try:
                library.learner_learn_task(pointer, ctypes.byref(struct), LABELS.ctypes.data, None)
                outcome.append("learned")
            except duallora.CancelledError:
                outcome.append("waited in vain")

    thread = threading.Thread(target=learn)
    thread.start()
    time.sleep(0.1)
    flag.value = 1
    thread.join()
    assert outcome == ["learned"]


# ---- processes ----


def _predicted(learner, pixels, queue):
    queue.put(learner.predict_proba(pixels))


def test_a_spawned_process_gets_a_learner(learned):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_predicted, args=(learned, PIXELS[:4], queue))
    process.start()
    found = queue.get(timeout=120)
    process.join()
    assert process.exitcode == 0 and np.allclose(found, learned.predict_proba(PIXELS[:4]), atol=1e-4)


FORK = """
import os, sys
sys.path[:0] = {paths!r}
import duallora, numpy as np
from conftest import SMALL, backbone_path, pictures
learner = duallora.Learner(duallora.Model.load(backbone_path()), **{{**SMALL, "threads": 2}})
pixels, labels = pictures([1, 2], 20, 1)
learner.learn(pixels, labels)
expected = learner.predict_proba(pixels)
child = os.fork()
if child == 0:
    good = np.allclose(learner.predict_proba(pixels), expected, atol=1e-4)
    learner.learn(*pictures([3, 4], 10, 2))
    os._exit(0 if good and learner.num_tasks == 2 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert learner.num_tasks == 1 and np.array_equal(learner.predict_proba(pixels), expected)
print("forked")
"""


def test_a_forked_process_predicts_and_learns():
    run = subprocess.run([sys.executable, "-c", FORK.format(paths=[os.path.dirname(__file__)])], capture_output=True,
                         text=True, timeout=120)
    assert run.stdout == "forked\n", run.stderr


BESIDE = """
import sys
sys.path[:0] = {paths!r}
for name in {names!r}:
    __import__(name)
import duallora, numpy as np
from conftest import SMALL, backbone_path, pictures
def others():
    if "scipy.linalg" in sys.modules:
        import scipy.linalg
        scipy.linalg.eigh(np.eye(50))
    if "torch" in sys.modules:
        import torch
        torch.ones(200, 200) @ torch.ones(200, 200)
    np.ones((200, 200)) @ np.ones((200, 200))
others()
learner = duallora.Learner(duallora.Model.load(backbone_path()), **{{**SMALL, "threads": 2}})
pixels, labels = pictures([1, 2], 20, 1)
learner.learn(pixels, labels)
others()
assert (learner.predict(pixels) == labels).mean() > 0.7
print("done")
"""


@pytest.mark.parametrize("names", [
    ["duallora", "numpy"], ["numpy", "duallora"], ["scipy.linalg", "duallora"], ["duallora", "scipy.linalg"],
    ["torch", "duallora"], ["duallora", "torch"], ["sklearn.linear_model", "torch", "scipy.linalg", "duallora"],
])
def test_libraries_work_beside_in_any_order(names):
    # Each may bring an OpenMP and a BLAS of its own.
    script = BESIDE.format(paths=[os.path.dirname(__file__)], names=names)
    for name in names:
        if subprocess.run([sys.executable, "-c", f"import importlib.util as u; raise SystemExit(u.find_spec({name.partition('.')[0]!r}) is None)"]).returncode:
            pytest.skip(f"no {name.partition('.')[0]}")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stdout == "done\n", run.stderr


# ---- life of handles ----


def test_a_forgotten_handle_is_freed_after_those_that_use_it():
    events = []

    def traced(name, destroy):
        return lambda pointer: (events.append(name), destroy(pointer))

    model = duallora.Model.load(backbone_path())
    learner = duallora.Learner(model)
    model._core.destroy = traced("model", model._core.destroy)
    learner._core.destroy = traced("learner", learner._core.destroy)
    part = learner.predictor
    gone = weakref.ref(model)
    del model
    del learner
    gc.collect()
    assert events == [] and gone() is None
    assert part.num_tasks == 0  # keeps its learner, which keeps its model
    del part
    gc.collect()
    assert events == ["learner", "model"]


def test_circles_of_handles_are_freed():
    freed = []
    learner = duallora.Learner(duallora.Model.load(backbone_path()))
    learner.circle = learner
    destroy = learner._core.destroy
    learner._core.destroy = lambda pointer: (freed.append(pointer), destroy(pointer))
    del learner
    gc.collect()
    assert len(freed) == 1


def test_handles_left_open_at_exit_do_no_harm():
    script = ("import sys; sys.path[:0] = [%r]; import duallora; from conftest import backbone_path;"
              "m = duallora.Model.load(backbone_path()); l = duallora.Learner(m); b = l.bank; print('end')")
    run = subprocess.run([sys.executable, "-c", script % os.path.dirname(__file__)], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "end\n", "")


def test_handles_are_context_managers(model):
    with duallora.Learner(model) as learner, duallora.Predictor(3) as predictor:
        assert predictor.dim == 3
    assert learner.closed and predictor.closed
    with pytest.raises(Oops), duallora.Projector(3) as projector:
        raise Oops
    assert projector.closed


def test_errors_pickle():
    error = pickle.loads(pickle.dumps(duallora.StateError("sentence")))
    assert isinstance(error, duallora.StateError) and error.sentence == "sentence"
