# SPDX-License-Identifier: Apache-2.0
"""Figures of the development suite: of one cell from the command's JSON, and over cells."""
import math
import os
import random
import statistics

DRAWS = 2000
BINS = 15  # as the library has for its calibration error


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


def bins(pairs):
    """Of (probability, right): in each bin the number, the sums of both, and the variance of the second if the
    probabilities are true. Those of several seeds add up."""
    out = [[0, 0.0, 0, 0.0] for _ in range(BINS)]
    for probability, right in pairs:
        entry = out[min(int(probability * BINS), BINS - 1)]
        entry[0] += 1
        entry[1] += probability
        entry[2] += bool(right)
        entry[3] += probability * (1.0 - probability)
    return out


def pooled_ece(all_bins):
    """(calibration error of the images of all these bins, what it would be on average if the probabilities were true).
    The second is not 0, since few images fall into a bin. A bin's deviation is Poisson's where hardly any is wrong."""
    sums = [[sum(values) for values in zip(*entries)] for entries in zip(*all_bins)]
    total = sum(entry[0] for entry in sums)
    deviations = [2.0 * v * math.exp(-v) if v < 1.0 else math.sqrt(2.0 * v / math.pi) for _, _, _, v in sums]
    return sum(abs(p - right) for _, p, right, _ in sums) / total, sum(deviations) / total


def calibration_figures(predictions, task_classes):
    """Of `predict --json` on the test images of a learnt sequence."""
    task_of = {label: task for task, labels in enumerate(task_classes) for label in labels}
    return {"class_bins": bins((number(p, "probability"), p["class"] == label_of(p)) for p in predictions),
            "task_bins": bins((number(p, "task_probability"), p["task"] == task_of[label_of(p)]) for p in predictions)}


def label_of(prediction):
    return os.path.basename(os.path.dirname(prediction["file"]))


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
        "known_accuracy": sum(p["class"] == label_of(p) for p in known) / len(known),
        "class_bins": bins((number(p, "probability"), p["class"] == label_of(p)) for p in known),
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
