#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drives the speed bench: this library, PyTorch, ONNX Runtime and the machine's own limit take turns in one run.

Called by speed.sh, which builds what is needed. docs/notebook/speed.md says what is measured and how to read it.
"""
import argparse
import json
import math
import os
import shlex
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import speed_programs
import speed_report

# dim, depth, heads, mlp_dim, patch_size, image_size, layer scale
GEOMETRIES = {
    "vit-b16-224": (768, 12, 12, 3072, 16, 224, 0),
    "dinov2-s14-224": (384, 12, 6, 1536, 14, 224, 1),
    "dinov2-s14-84": (384, 12, 6, 1536, 14, 84, 1),
    "vit-192x6-32": (192, 6, 3, 768, 4, 32, 0),
}
LARGE = ("vit-b16-224", "dinov2-s14-224")
MEASURES = ("infer", "train", "predict", "task", "memory")
EPOCHS, TASK_IMAGES = 20, 500  # of the task whose end is compared with its training


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.left_out = {}  # program -> why
        self.result = {"groups": [], "tasks": [], "memory": [], "profiles": [], "equality": []}

    def say(self, text):
        if not self.arguments.quiet:
            print(text, file=sys.stderr, flush=True)

    # ---- programs ----

    def weights(self, geometry):
        if self.arguments.dinov2 and geometry.startswith("dinov2"):
            return self.arguments.dinov2
        path = os.path.join(self.arguments.data, geometry + ".safetensors")
        if not os.path.exists(path):
            speed_programs.make_weights(self.arguments.speed, path, GEOMETRIES[geometry])
        return path

    def start(self, geometry, programs, threads=None):
        """Workers of these programs; what cannot be had is left out and named."""
        workers = {}
        for name in programs:
            if name in self.left_out:
                continue
            learnt = os.path.join(self.arguments.data, f"learnt-{geometry}")
            try:
                workers[name] = speed_programs.Worker(name, self.arguments.speed, self.weights(geometry),
                                                      GEOMETRIES[geometry][5], threads or self.arguments.threads, learnt)
            except speed_programs.Unavailable as problem:
                if name == "library":
                    raise
                self.left_out[name] = str(problem)
                self.say(f"{name} is left out: {problem}")
        for name, worker in workers.items():
            self.result.setdefault("versions", {}).setdefault(name, worker.ask("version"))
        return workers

    # ---- measures ----

    def check(self, geometry, workers):
        """Nothing is timed of programs that do not compute the same."""
        source = os.path.join(self.arguments.data, f"check-{os.getpid()}.bin")
        dim, depth, _, _, _, size, _ = GEOMETRIES[geometry]
        try:
            speed_programs.write_check(source, dim, depth, size)
            found = speed_programs.compare(workers, source, dim, depth)
        finally:
            if os.path.exists(source):
                os.remove(source)
        for entry in found:
            self.result["equality"].append({"geometry": geometry, **entry})
            if entry["difference"] > entry["tolerance"]:
                raise SystemExit(f"speed: {entry['program']} does not compute the same {entry['what']} for {geometry}: "
                                 f"{entry['difference']:.2g} of the largest, allowed are {entry['tolerance']:.2g}")
        worst = {}
        for entry in found:
            worst[entry["program"]] = max(worst.get(entry["program"], 0.0), entry["difference"])
        if worst:
            self.say("  largest differences from library: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))

    def alternate(self, geometry, kind, batch, entries):
        """entries: label -> (worker, case). They take turns; every round starts with another one."""
        counts = {}
        for label, (worker, case) in list(entries.items()):
            worker.ask("prepare " + case)
            once = worker.seconds(case, 1)
            counts[label] = max(1, min(1000, math.ceil(self.arguments.turn / once)))
        labels = list(entries)
        rounds = {label: [] for label in labels}
        for r in range(self.arguments.repeats):
            for i in range(len(labels)):
                label = labels[(i + r) % len(labels)]
                worker, case = entries[label]
                rounds[label].append(worker.seconds(case, counts[label]) / counts[label])
        group = {"geometry": geometry, "kind": kind, "batch": batch, "rounds": rounds,
                 "median": {label: statistics.median(values) for label, values in rounds.items()}}
        for label in ("sgemm", "onednn", "onednn-bfloat16"):
            if label in entries:
                group["flops"] = float(entries[label][0].ask("flops " + entries[label][1]).split()[1])
        self.result["groups"].append(group)
        self.say(f"  {kind} of {batch}: " + ", ".join(f"{k} {1e3 * v:.4g} ms" for k, v in group["median"].items()))

    def passes(self, geometry, workers, kind):
        for batch in self.arguments.batches:
            entries = {name: (worker, f"{kind}:{batch}") for name, worker in workers.items() if kind in worker.kinds}
            self.alternate(geometry, kind, batch, entries)
            if self.arguments.profile:
                self.profile(geometry, kind, batch, workers)
            self.close(workers)

    def close(self, workers):
        """Cases of 64 images of all programs at once are more than a machine may hold."""
        for worker in workers.values():
            worker.ask("close")

    def profile(self, geometry, kind, batch, workers):
        """Where the library's time goes, as shares of what its profile counts."""
        for name, worker in workers.items():
            if not name.startswith("library"):
                continue
            once = self.result["groups"][-1]["median"][name]
            count = max(1, min(1000, math.ceil(self.arguments.turn / once)))
            words = worker.ask(f"profile {kind}:{batch} {count}").split()[1:]
            seconds = {part: float(value) / count for part, value in zip(words[::2], words[1::2])}
            self.result["profiles"].append({"geometry": geometry, "kind": kind, "batch": batch, "program": name,
                                            "seconds": seconds})

    def predict(self, geometry, workers):
        """What learnt tasks add to a call on the frozen model."""
        quick = self.arguments.quick
        for batch in self.arguments.batches[-1:] if quick else self.arguments.batches:
            entries = {}
            for name, worker in workers.items():
                if name != "library" and (quick or not name.startswith("library")):
                    continue
                entries[name + " frozen"] = (worker, f"embed:{batch}")
                for tasks in (100,) if quick else (10, 100):
                    for gate in ("none", "gate", "final", "blend"):
                        entries[f"{name} {tasks} {gate}"] = (worker, f"predict:{tasks}:{gate}:{batch}")
            self.alternate(geometry, "predict", batch, entries)
            self.close(workers)

    def task(self, geometry, workers):
        large = geometry in LARGE
        quick = self.arguments.quick
        images, batch, steps = (16, 16, 2) if large else (10, 8, 3) if quick else (40, 32, 4)
        for behind in (100,) if quick else (1, 10, 100):
            rounds = []
            for _ in range(self.arguments.repeats):
                words = workers["library"].ask(f"task {behind} {images} {batch} {steps}").split()[1:]
                rounds.append(dict(zip(words[::2], map(float, words[1::2]))))
            part = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
            step = part["steps"] / steps
            training = EPOCHS * TASK_IMAGES * step / min(batch, images)
            entry = {"geometry": geometry, "behind": behind, "epochs": EPOCHS, "images": TASK_IMAGES,
                     "training": training, "directions": max(0.0, part["first"] - step), "end": part["end"],
                     "observing": (part["before"] + part["after"]) * TASK_IMAGES / images, "rounds": rounds}
            self.result["tasks"].append(entry)
            self.say(f"  task {behind + 1}: end {entry['end']:.3g} s, directions {entry['directions']:.3g} s, observing "
                     f"{entry['observing']:.3g} s, training {training:.4g} s")

    def memory(self, geometry):
        """Largest resident size of one training step, each program in a process of its own."""
        batch = self.arguments.memory_batch
        for name in self.arguments.programs:
            if "train" not in speed_programs.PROGRAMS[name].kinds or speed_programs.PROGRAMS[name].limit:
                continue
            workers = self.start(geometry, [name])
            for worker in workers.values():
                loaded = int(worker.ask("memory").split()[1])
                worker.ask(f"prepare train:{batch}")
                peak = int(worker.ask("memory").split()[1])
                worker.stop()
                self.result["memory"].append({"geometry": geometry, "batch": batch, "program": name, "loaded": loaded,
                                              "peak": peak})
                self.say(f"  training step of {batch} by {name}: {peak / 2**20:.0f} MiB")

    def run(self):
        a = self.arguments
        os.makedirs(a.data, exist_ok=True)
        self.result["machine"] = speed_programs.machine(a.threads)
        self.result["commands"] = [a.command.strip()]
        for geometry in a.geometries:
            self.say(geometry)
            if set(a.measures) - {"memory"}:
                workers = self.start(geometry, a.programs)
                try:
                    self.check(geometry, workers)
                    for kind in ("infer", "train"):
                        if kind in a.measures:
                            self.passes(geometry, workers, kind)
                    # What tasks cost is measured on the smaller networks, unless a large one is asked for alone.
                    learns = geometry not in LARGE or a.geometries == [geometry]
                    if "predict" in a.measures and learns:
                        self.predict(geometry, workers)
                    if "task" in a.measures and learns:
                        self.task(geometry, workers)
                finally:
                    for worker in workers.values():
                        worker.stop()
            if "memory" in a.measures and (geometry == "vit-b16-224" or a.quick):
                self.memory(geometry)
        self.result["left_out"] = self.left_out
        self.result["machine"]["load_after"] = os.getloadavg()[0]
        return self.result


def parse():
    def names(allowed):
        def read(text):
            chosen = text.split(",")
            for name in chosen:
                if name not in allowed:
                    raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(allowed)}")
            return chosen

        return read

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", required=True, help="the program that speed.sh builds")
    parser.add_argument("--data", required=True, help="folder for random weights and checkpoints, kept between calls")
    parser.add_argument("--geometries", type=names(GEOMETRIES), default=list(GEOMETRIES), help=", ".join(GEOMETRIES))
    parser.add_argument("--programs", type=names(speed_programs.PROGRAMS), default=list(speed_programs.PROGRAMS),
                        help=", ".join(speed_programs.PROGRAMS))
    parser.add_argument("--measures", type=names(MEASURES), default=list(MEASURES), help=", ".join(MEASURES))
    parser.add_argument("--batches", type=lambda t: [int(b) for b in t.split(",")], default=[1, 8, 64])
    parser.add_argument("--repeats", type=int, default=5, help="turns of every program (5)")
    parser.add_argument("--turn", type=float, default=0.3, help="least seconds of a turn (0.3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory-batch", type=int, default=128)
    parser.add_argument("--dinov2", help="weights of DINOv2 ViT-S/14 instead of random ones")
    parser.add_argument("--quick", action="store_true", help="the smallest network, few batches: less than a minute")
    parser.add_argument("--assert", dest="expect", action="store_true", help="fail where a result is missing or absurd")
    parser.add_argument("--profile", action="store_true", help="also where the library's time goes")
    parser.add_argument("--out", help="Markdown file; the tables go between its marker comments, if it has them")
    parser.add_argument("--json", help="file for everything measured")
    parser.add_argument("--add", action="store_true", help="to what --json holds: the bench in parts")
    parser.add_argument("--quiet", action="store_true")
    a = parser.parse_args()
    if a.quick:
        a.geometries, a.batches, a.turn, a.memory_batch = ["vit-192x6-32"], [1, 8], 0.05, 16
    if a.repeats < 1 or a.threads < 1 or min(a.batches) < 1:
        parser.error("--repeats, --threads and --batches are at least 1")
    if a.add and not (a.json and os.path.exists(a.json)):
        parser.error("--add needs a file of earlier results at --json")
    if "library" not in a.programs:
        parser.error("--programs must name library, with which the others are compared")
    a.command = "tests/bench/speed.sh " + " ".join(
        shlex.quote(w) for w in speed_report.without(sys.argv[1:], ("--speed", "--data", "--dinov2", "--out", "--json")))
    return a


def write_json(path, result):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
        f.write("\n")


def main():
    arguments = parse()
    earlier = None
    if arguments.add:
        with open(arguments.json, encoding="utf-8") as f:
            earlier = json.load(f)
        difference = speed_report.difference(earlier["machine"], speed_programs.machine(arguments.threads))
        if difference:
            raise speed_programs.Failed(f"--add: {difference}")
    bench = Bench(arguments)
    try:
        result = bench.run()
    except speed_programs.Failed:
        if arguments.json:  # what hours have measured
            write_json(arguments.json + ".failed", bench.result)
        raise
    if earlier:
        result = speed_report.join(earlier, result)
    if arguments.json:
        write_json(arguments.json, result)
    text = speed_report.tables(result)
    if arguments.out:
        speed_report.insert(arguments.out, text)
    else:
        print(text)
    if arguments.expect:
        problems = speed_report.problems(result, arguments)
        for problem in problems:
            print("speed: " + problem, file=sys.stderr)
        return 1 if problems else 0
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (speed_programs.Unavailable, speed_programs.Failed) as problem:
        sys.exit(f"speed: {problem}")
