# SPDX-License-Identifier: Apache-2.0
"""Tables of the speed bench's results, and what must hold for them."""
import math
import statistics

BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"


def without(words, options):
    """Arguments without these options and their values: paths that say nothing about what was measured."""
    out, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif not word.startswith(tuple(o + "=" for o in options)):
            out.append(word)
    return out


def ratio(group, slow, fast):
    """How many times faster `fast` is: the median over rounds, in which both met the same disturbances."""
    rounds = group["rounds"]
    if slow not in rounds or fast not in rounds:
        return None
    return statistics.median(a / b for a, b in zip(rounds[slow], rounds[fast]))


def show(value, form="{:.2f}"):
    return "" if value is None else form.format(value)


def time_of(group, label):
    value = group["median"].get(label)
    return "" if value is None else f"{1e3 * value:.3g}" if value < 0.1 else f"{1e3 * value:.0f}"


def table(head, rows):
    """First two columns are texts. Columns that are empty throughout are left out."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    lines = ["| " + " | ".join(head[i] for i in kept) + " |",
             "|" + "|".join("---" if i < 1 else "---:" for i in kept) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row[i] for i in kept) + " |" for row in rows])


def passes(groups, title, ours, peers, limits, figures):
    """figures: (heading, slow, fast) of ratios, then shares of the first limit."""
    head = ["network", "batch", *(f"{name} ms" for name in (*ours, *peers, *limits)), f"{limits[0]} GFLOP/s",
            *(heading for heading, _, _ in figures)]
    rows = []
    for group in groups:
        if not any(name in group["median"] for name in ours):
            continue
        limit = group["median"].get(limits[0])
        rows.append([group["geometry"], str(group["batch"]),
                     *(time_of(group, name) for name in (*ours, *peers, *limits)),
                     show(limit and group["flops"] / limit / 1e9, "{:.0f}"),
                     *(show(ratio(group, slow, fast)) for _, slow, fast in figures)])
    return f"**{title}**\n\n{table(head, rows)}" if rows else ""


FLOAT_FIGURES = [("torch / library", "torch", "library"), ("torch / packed", "torch", "library-packed"),
                 ("onnx / library", "onnx", "library"), ("onnx / packed", "onnx", "library-packed"),
                 ("library's share of sgemm", "sgemm", "library"), ("packed's", "sgemm", "library-packed"),
                 ("torch's", "sgemm", "torch")]
SHORT_FIGURES = [("torch / library", "torch-bfloat16", "library-bfloat16"),
                 ("torch, weights cast once / library", "torch-bfloat16-weights", "library-bfloat16"),
                 ("library's share of onednn", "onednn-bfloat16", "library-bfloat16"),
                 ("torch's", "onednn-bfloat16", "torch-bfloat16"),
                 ("float32 / bfloat16", "library", "library-bfloat16")]


def predict_table(groups):
    head = ["network", "batch", "products", "frozen ms"]
    kinds = [f"{tasks} {gate}" for gate in ("none", "gate", "final", "blend") for tasks in (10, 100)]
    rows = []
    for group in groups:
        for name in ("library", "library-packed", "library-bfloat16"):
            if name + " frozen" in group["median"]:
                figures = [ratio(group, f"{name} {kind}", name + " frozen") for kind in kinds]
                rows.append([group["geometry"], str(group["batch"]), name.removeprefix("library-") if "-" in name else
                             "float32", time_of(group, name + " frozen"), *map(lambda v: show(v, "{:.3f}"), figures)])
    return "**Predictions with learnt tasks, as multiples of the frozen model's time**\n\n" + table(
        head + [f"{k.split()[0]} tasks, {k.split()[1]}" for k in kinds], rows) if rows else ""


def task_table(tasks):
    head = ["network", "tasks before", "training s", "end s", "share %", "directions s", "share %", "observing s",
            "share %"]
    rows = [[t["geometry"], str(t["behind"]), f"{t['training']:.1f}",
             *(text for part in ("end", "directions", "observing")
               for text in (f"{t[part]:.3g}", f"{100 * t[part] / t['training']:.2f}"))] for t in tasks]
    return (f"**The end of a task beside its training**, {tasks[0]['epochs']} epochs of {tasks[0]['images']} images\n\n"
            + table(head, rows)) if tasks else ""


def memory_table(memory):
    if not memory:
        return ""
    peaks = {(m["geometry"], m["program"]): m["peak"] for m in memory}
    rows = []
    for m in memory:
        torch = peaks.get((m["geometry"], "torch"))
        rows.append([m["geometry"], str(m["batch"]), m["program"], f"{m['loaded'] / 2**20:.0f}",
                     f"{m['peak'] / 2**20:.0f}", show(torch and torch / m["peak"])])
    return "**Largest resident memory of a process that makes training steps**\n\n" + table(
        ["network", "batch", "program", "with the model loaded MiB", "at most MiB", "PyTorch float32 / this"], rows)


def profile_table(profiles):
    if not profiles:
        return ""
    kinds = list(profiles[0]["seconds"])
    rows = []
    for p in profiles:
        total = sum(p["seconds"].values()) or 1.0
        rows.append([p["geometry"], p["kind"], str(p["batch"]), p["program"],
                     *(f"{100 * p['seconds'][k] / total:.1f}" for k in kinds)])
    return "**Where the library's time goes**, % of what `dlora_profile` counts\n\n" + table(
        ["network", "kind", "batch", "program", *kinds], rows)


def tables(result):
    machine = result["machine"]
    groups = {kind: [g for g in result["groups"] if g["kind"] == kind] for kind in ("infer", "train", "predict")}
    lines = [
        f"- Processor: {machine['processor']}, {machine['processors']} processors, {machine['threads']} threads; "
        f"{' '.join(machine['instructions'])}",
        *(f"- {name}: {version}" for name, version in result.get("versions", {}).items() if "-" not in name),
        f"- OMP_WAIT_POLICY {machine['wait_policy']}; load {machine['load_before']:.1f} before, "
        f"{machine['load_after']:.1f} after",
        *(f"- Command: `{command}`" for command in result["commands"]),
        *(f"- Left out: {name}, {why}" for name, why in result["left_out"].items()),
    ]
    parts = ["\n".join(lines)]
    for kind, title in (("infer", "Inference"), ("train", "Training step")):
        parts.append(passes(groups[kind], title + ", float32", ("library", "library-packed"), ("torch", "onnx"),
                            ("sgemm", "onednn"), FLOAT_FIGURES))
        parts.append(passes(groups[kind], title + ", bfloat16", ("library-bfloat16",),
                            ("torch-bfloat16", "torch-bfloat16-weights"), ("onednn-bfloat16",), SHORT_FIGURES))
    parts += [predict_table(groups["predict"]), task_table(result["tasks"]), memory_table(result["memory"]),
              profile_table(result["profiles"])]
    return "\n\n".join(part for part in parts if part)


def difference(earlier, now):
    """What makes the figures of two machines ones that do not belong on one page; or None."""
    for what in ("processor", "processors", "threads", "wait_policy"):
        if earlier[what] != now[what]:
            return f"{what} was {earlier[what]} and is {now[what]}"
    return None


def join(earlier, result):
    """Both results, of the same machine, as one: the long bench in parts. What was measured again replaces the old."""
    out = dict(result, versions={**earlier["versions"], **result["versions"]},
               left_out={**earlier["left_out"], **result["left_out"]})
    for load in ("load_before", "load_after"):
        out["machine"][load] = max(earlier["machine"][load], result["machine"][load])
    identity = {"groups": ("geometry", "kind", "batch"), "tasks": ("geometry", "behind"),
                "memory": ("geometry", "batch", "program"), "profiles": ("geometry", "kind", "batch", "program"),
                "equality": ("geometry", "program", "what")}
    for part, members in identity.items():
        now = {tuple(entry[m] for m in members): entry for entry in result[part]}
        out[part] = [now.pop(tuple(e[m] for m in members), e) for e in earlier[part]] + list(now.values())
    out["commands"] = earlier["commands"] + result["commands"]
    return out


def insert(path, text):
    """Between the marker comments of a page; a file without them is written anew."""
    try:
        with open(path, encoding="utf-8") as f:
            page = f.read()
    except FileNotFoundError:
        page = ""
    begin, end = page.find(BEGIN), page.find(END)
    if begin >= 0 and end > begin:
        page = page[:begin + len(BEGIN)] + "\n\n" + text + "\n\n" + page[end:]
    else:
        page = f"{BEGIN}\n\n{text}\n\n{END}\n"
    with open(path, "w", encoding="utf-8") as f:
        f.write(page)


def problems(result, arguments):
    """Sentences on what is missing or cannot be. Bounds are wide: other programs may run on the machine."""
    out = []
    present = [p for p in arguments.programs if p not in result["left_out"]]
    for geometry in arguments.geometries:
        for kind in ("infer", "train"):
            for batch in arguments.batches if kind in arguments.measures else ():
                found = [g for g in result["groups"]
                         if (g["geometry"], g["kind"], g["batch"]) == (geometry, kind, batch)]
                wanted = [p for p in present if kind == "infer" or p != "onnx"]
                if len(found) != 1 or sorted(found[0]["median"]) != sorted(wanted):
                    out.append(f"{geometry}, {kind} of {batch}: not all of {', '.join(wanted)} were measured")
                elif not all(math.isfinite(v) and v > 0 for v in found[0]["median"].values()):
                    out.append(f"{geometry}, {kind} of {batch}: a time is not positive")
    for group in result["groups"]:
        where = f"{group['geometry']}, {group['kind']} of {group['batch']}"
        if any(len(values) != arguments.repeats for values in group["rounds"].values()):
            out.append(f"{where}: not {arguments.repeats} turns each")
        if group["kind"] == "predict":
            learnt = ratio(group, "library 100 none", "library frozen")
            if learnt is None or learnt > 2.0:
                out.append(f"{where}: with 100 learnt tasks and no gate it takes {show(learnt)} times the frozen model")
        else:
            share = ratio(group, "sgemm", "library")
            if "sgemm" in group["median"] and (share is None or not 0.02 < share < 20):
                out.append(f"{where}: the library is at {show(share)} of the sgemm limit")
    for measure, key in (("predict", "groups"), ("task", "tasks"), ("memory", "memory")):
        entries = [e for e in result[key] if measure != "predict" or e["kind"] == "predict"]
        if measure in arguments.measures and not entries:
            out.append(f"nothing was measured of {measure}")
    for task in result["tasks"]:
        if not task["end"] > 0 or task["end"] > task["training"]:
            out.append(f"{task['geometry']}: the end of a task takes {task['end']:.3g} s, training {task['training']:.3g} s")
    for name in present:
        compared = [e for e in result["equality"] if e["program"] == name]
        if name != "library" and name not in ("sgemm", "onednn", "onednn-bfloat16") and not compared:
            out.append(f"{name} was not compared with the library")
    return out
