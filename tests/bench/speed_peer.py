# SPDX-License-Identifier: Apache-2.0
"""The worker's side of the speed bench for peers written in Python: speed.c says what the commands are."""
import gc
import sys
import time


def peak_memory():
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmHWM")


def answer(program, cases, words):
    if words[0] in ("prepare", "run"):
        name = words[1]
        if name not in cases:
            kind, batch = name.split(":")
            cases[name] = program.open(kind, int(batch))
        count = 1 if words[0] == "prepare" else int(words[2])
        start = time.perf_counter()
        for _ in range(count):
            cases[name]()
        seconds = time.perf_counter() - start
        return "ok" if words[0] == "prepare" else f"seconds {seconds:.9f}"
    if words[0] == "close":
        cases.clear()
        gc.collect()
        return "ok"
    if words[0] == "check":
        program.check(words[1], words[2])
        return "ok"
    if words[0] == "memory":
        return f"bytes {peak_memory()}"
    if words[0] == "version":
        return program.version()
    raise ValueError(f"'{' '.join(words)}' is no command")


def serve(make):
    """make() returns an object with open(kind, batch) -> function, check(in, out) and version()."""
    cases = {}
    try:
        program = make()
    except Exception as problem:
        print("error", str(problem).replace("\n", " "), flush=True)
        return 1
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if not words or words[0] == "quit":
            break
        try:
            print(answer(program, cases, words), flush=True)
        except Exception as problem:
            print("error", f"{type(problem).__name__}: {problem}".replace("\n", " "), flush=True)
    return 0
