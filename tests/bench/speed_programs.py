# SPDX-License-Identifier: Apache-2.0
"""The programs that the speed bench compares, as workers that take one command at a time."""
import array
import math
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
RANK = 16  # of both adapter branches together


class Unavailable(Exception):
    """A program that cannot run here: a package, an instruction set or a library is missing."""


class Failed(Exception):
    """A program that runs, but not this case."""


class Program:
    def __init__(self, script, precision, kinds, limit=False):
        self.script, self.precision, self.kinds, self.limit = script, precision, kinds, limit


BOTH = ("infer", "train")
# script: a Python peer, or what `speed worker` calls the program
PROGRAMS = {
    "library": Program("library", "float32", BOTH),
    "library-packed": Program("library", "packed", BOTH),
    "library-bfloat16": Program("library", "bfloat16", BOTH),
    "torch": Program("speed_torch.py", "float32", BOTH),
    "torch-bfloat16": Program("speed_torch.py", "bfloat16", BOTH),
    "torch-bfloat16-weights": Program("speed_torch.py", "bfloat16-weights", BOTH),
    "onnx": Program("speed_onnx.py", "float32", ("infer",)),
    "sgemm": Program("sgemm", "float32", BOTH, limit=True),
    "onednn": Program("onednn", "float32", BOTH, limit=True),
    "onednn-bfloat16": Program("onednn", "bfloat16", BOTH, limit=True),
}


class Worker:
    def __init__(self, name, speed, weights, image_size, threads, learnt):
        program = PROGRAMS[name]
        self.name, self.kinds, self.limit = name, program.kinds, program.limit
        shape = [weights, program.precision, str(image_size), str(threads)]
        if program.script.endswith(".py"):
            command = [sys.executable, "-B", os.path.join(HERE, program.script), *shape]
        else:
            command = [speed, "worker", program.script, *shape, learnt]
        # The same number of threads for everybody. What a waiting thread does is left as the caller has it.
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        self.errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, env=environment)
        first = self.process.stdout.readline().strip()
        if first != "ready":
            raise Unavailable(first.removeprefix("error ") or (self.end().splitlines() or ["it ended at once"])[-1])

    def ask(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline().strip()
        if not line:
            errors = self.end()
            raise Failed(f"{self.name} ended on '{command}' with code {self.process.returncode}: {errors[-500:]}")
        if line.startswith("error "):
            raise Failed(f"{self.name}, '{command}': {line.removeprefix('error ')}")
        return line

    def seconds(self, case, count):
        return float(self.ask(f"run {case} {count}").split()[1])

    def end(self):
        """What the process, which has ended or is about to, said on its standard error."""
        self.process.communicate()
        self.errors.seek(0)
        return self.errors.read().strip()

    def stop(self):
        if self.process.poll() is None:
            self.process.communicate("quit\n")


def make_weights(speed, path, geometry):
    part = f"{path}.{os.getpid()}"
    subprocess.run([speed, "weights", part, *map(str, geometry)], check=True)
    os.replace(part, path)


# ---- equality ----


def write_check(path, dim, depth, size):
    """The file that speed_check.c describes."""
    draw = random.Random(1)
    blocks = depth - depth // 2
    values = array.array("f", (draw.uniform(-1, 1) for _ in range(2 * 3 * size * size)))
    for _ in range(blocks):
        values.extend(draw.gauss(0, dim**-0.5) for _ in range(RANK * dim))
        values.extend(draw.gauss(0, 0.05) for _ in range(2 * dim * RANK))
    values.extend(draw.gauss(0, 1) for _ in range(2 * dim))
    with open(path, "wb") as f:
        values.tofile(f)


def tolerance(program, what):
    """Of the largest value. bfloat16 keeps 8 bits, and a dozen blocks add up what is lost."""
    if "bfloat16" not in program:
        return 1e-4
    return 5e-2 if what == "gradients" else 2e-2


def compare(workers, source, dim, depth):
    """How far each program's features and gradients are from this library's in float32."""
    answers = {}
    for name, worker in workers.items():
        if worker.limit:
            continue
        target = source + ".out"
        try:
            worker.ask(f"check {source} {target}")
            answers[name] = array.array("f")
            with open(target, "rb") as f:
                answers[name].frombytes(f.read())
        finally:
            if os.path.exists(target):
                os.remove(target)
    features, block = 2 * dim, 2 * dim * RANK
    parts = [("features", 0, features), ("adapted features", features, 2 * features)]
    for i in range(depth - depth // 2):
        parts.append(("gradients", 2 * features + i * block, 2 * features + (i + 1) * block))
    expected = answers["library"]
    if len(expected) != parts[-1][2]:
        raise Failed(f"library gives {len(expected)} values, expected are {parts[-1][2]}")
    found = []
    for name, values in answers.items():
        if name == "library":
            continue
        if len(values) not in (len(expected), features):  # a program for inference alone gives the first part
            raise Failed(f"{name} gives {len(values)} values, expected are {len(expected)}")
        worst = {}
        for what, begin, end in parts:
            if end > len(values):
                continue
            scale = max(abs(v) for v in expected[begin:end])
            far = max(abs(a - b) for a, b in zip(values[begin:end], expected[begin:end]))
            # NaN compares as nothing would: it must not pass.
            share = far / scale if scale > 0 and all(map(math.isfinite, values[begin:end])) else math.inf
            worst[what] = max(worst.get(what, 0.0), share)
        for what, share in worst.items():
            found.append({"program": name, "what": what, "difference": share, "tolerance": tolerance(name, what)})
    return found


# ---- the machine ----


def machine(threads):
    model, flags = "unknown processor", []
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    model = value.strip()
                if key.strip() == "flags":
                    flags = value.split()
                    break
    except OSError:
        pass
    known = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
    return {"processor": model, "instructions": [f for f in known if f in flags], "threads": threads,
            "processors": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0],
            "wait_policy": os.environ.get("OMP_WAIT_POLICY", "default")}
