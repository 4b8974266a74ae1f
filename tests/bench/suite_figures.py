# SPDX-License-Identifier: Apache-2.0
"""Figures of the development suite: of one cell from the command's JSON, and over cells."""
import math
import os
import random
import statistics

DRAWS = 2000


def number(source, name):
    value = source[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}")
    return float(value)


# ---- of one cell ----

def auroc(known, unknown):
    """The fraction of pairs in which the unknown image has the higher score; equal scores count half."""
    if not known or not unknown:
        raise ValueError("AUROC needs known and unknown images")
    ordered = sorted([(score, 0) for score in known] + [(score, 1) for score in unknown])
    area, below, first = 0.0, 0, 0
    while first < len(ordered):
        end = first
        while end < len(ordered) and ordered[end][0] == ordered[first][0]:
            end += 1
        num_unknown = sum(kind for _, kind in ordered[first:end])
        num_known = end - first - num_unknown
        area += num_unknown * (below + num_known / 2)
        below += num_known
        first = end
    return area / (len(known) * len(unknown))


def learn_figures(learnt, cell):
    """Of `learn --json` or `evaluate --json`."""
    names = {"learnt": "last_accuracy", "untouched": "untouched_last_accuracy", "class_ece": "ece",
             "task_ece": "task_ece", "task_accuracy": "task_accuracy", "given_task": "accuracy_given_task",
             "num_test_images": "num_images"}
    if cell.stages == "all":
        names["average"] = "average_accuracy"
    if learnt["num_tasks"] != cell.num_tasks or len(learnt["classes"]) != cell.num_classes:
        raise ValueError(f"{learnt['num_tasks']} tasks, {len(learnt['classes'])} classes")
    return {ours: number(learnt, theirs) for ours, theirs in names.items()}


def unknown_figures(predictions, unknown_folder):
    """Of `predict --json` on images of learnt classes, and of others in `unknown_folder`."""
    known = [p for p in predictions if not p["file"].startswith(unknown_folder)]
    unknown = [p for p in predictions if p["file"].startswith(unknown_folder)]

    def scores(name, sign):
        return auroc([sign * number(p, name) for p in known], [sign * number(p, name) for p in unknown])

    return {
        "unknown_auroc": scores("unknown_score", 1.0),
        "probability_auroc": scores("probability", -1.0),
        "false_alarms": sum(p["unknown"] for p in known) / len(known),
        "detection": sum(p["unknown"] for p in unknown) / len(unknown),
        "known_accuracy": sum(p["class"] == os.path.basename(os.path.dirname(p["file"])) for p in known) / len(known),
        "num_known": len(known),
        "num_unknown": len(unknown),
    }


# ---- over cells ----

def interval(values, draws=DRAWS):
    """Bootstrap: the 2.5 and 97.5 % points of the mean over cells drawn with replacement. The same each time."""
    generator = random.Random(0)
    means = sorted(statistics.fmean(generator.choices(values, k=len(values))) for _ in range(draws))
    return means[round(0.025 * (draws - 1))], means[round(0.975 * (draws - 1))]


def fraction(values):
    """Of true ones; None of none."""
    values = list(values)
    return sum(values) / len(values) if values else None


def mean(values):
    values = [value for value in values if value is not None]
    return statistics.fmean(values) if values else None


def mean_loss(gains):
    return statistics.fmean(max(0.0, -gain) for gain in gains)
