# SPDX-License-Identifier: Apache-2.0
"""Tables of the development suite's results, as Markdown. Fractions are shown in percent."""
import statistics

import suite_figures
from speed_report import table

ECE_IMAGES = 20  # images a class from which calibration is judged
ECE_LIMIT = 5.0
MARGIN = 0.5  # points below the untouched backbone that count as noise


class MissingFigure(Exception):
    """A sentence about a result without a figure that belongs to it."""


class Row:
    """One cell with all its seeds. Fractions become percent."""

    def __init__(self, cell):
        self.cell = cell
        self.by_seed = {}

    def get(self, name):
        """Mean over seeds."""
        for seed, figures in self.by_seed.items():
            if not isinstance(figures.get(name), (int, float)):
                raise MissingFigure(f"the result of {self.cell.text()} (seed {seed}) has no {name}")
        return statistics.fmean(figures[name] for figures in self.by_seed.values())

    def percent(self, name):
        return 100.0 * self.get(name)

    @property
    def gain(self):
        return round(self.percent("learnt") - self.percent("untouched"), 6) + 0.0  # equal ones differ by nothing

    def ece(self, name):
        """None where it is not judged: too few images, or one task alone."""
        judged = self.cell.images >= ECE_IMAGES and (name == "class_ece" or self.cell.num_tasks > 1)
        return self.percent(name) if judged else None

    def pooled(self, name):
        """Calibration over the images of all seeds, and that of true probabilities; None where they are not known."""
        task_alone = name == "task_bins" and self.cell.num_tasks == 1
        if task_alone or not all(name in figures for figures in self.by_seed.values()):
            return None, None
        found = suite_figures.pooled_ece([figures[name] for figures in self.by_seed.values()])
        return tuple(100.0 * value for value in found)

    def place(self):
        c = self.cell
        return (c.set, c.backbone, c.kind, c.classes_per_task, c.num_tasks, c.num_classes, c.images, c.test_images,
                c.stages)

    def text(self):
        c = self.cell
        return f"{c.set}, {c.num_classes} classes in {c.num_tasks}, {c.images} images"


class Results:
    def __init__(self, results):
        self.rows = {kind: {} for kind in ("learn", "joint", "unknown")}  # (variant, place) -> Row
        for cell in sorted(results, key=lambda c: (c.set, c.num_classes, c.classes_per_task, c.images, c.seed)):
            row = Row(cell)
            row = self.rows[cell.kind].setdefault((cell.variant, row.place()), row)
            row.by_seed[cell.seed] = results[cell]
        self.variants = list(dict.fromkeys(cell.variant for cell in results))
        self.backbones = list(dict.fromkeys(cell.backbone for cell in results))
        self.sets = sorted({cell.set for cell in results})
        self.columns = [(backbone, variant) for backbone in self.backbones for variant in self.variants]

    def select(self, kind, variant, backbone=None):
        return [row for (name, _), row in self.rows[kind].items()
                if name == variant and backbone in (None, row.cell.backbone)]

    def joint(self, learnt):
        """(joint accuracy, joint - learnt) over the seeds that both have; None where there are none."""
        c = learnt.cell
        for row in self.select("joint", c.variant, c.backbone):
            j = row.cell
            if (j.set, j.num_classes, j.images, j.test_images) == (c.set, c.num_classes, c.images, c.test_images):
                seeds = [seed for seed in learnt.by_seed if seed in row.by_seed]
                if seeds:
                    joint = statistics.fmean(100.0 * row.by_seed[seed]["learnt"] for seed in seeds)
                    return joint, joint - statistics.fmean(100.0 * learnt.by_seed[seed]["learnt"] for seed in seeds)
        return None

    def ratio(self, variant, backbone, name):
        """Sum of a time over the cells and seeds that the first variant has too, as a multiple of the first's."""
        ours = theirs = 0.0
        for kind in self.rows:
            for row in self.select(kind, variant, backbone):
                first = self.rows[kind].get((self.variants[0], row.place()))
                for seed in row.by_seed if first else ():
                    if seed in first.by_seed:
                        ours += row.by_seed[seed][name]
                        theirs += first.by_seed[seed][name]
        return ours / theirs if theirs else None


def show(value, form="{:.1f}"):
    return "" if value is None else form.format(round(value, 6) + 0.0)


def both(values, form="{:.1f}"):
    """Mean and largest."""
    values = [value for value in values if value is not None]
    return f"{form.format(statistics.fmean(values))}, {form.format(max(values))}" if values else ""


# ---- over cells ----

def learn_lines(results, backbone, variant):
    rows = results.select("learn", variant, backbone)
    if not rows:
        return {}
    gains = [row.gain for row in rows]
    low, high = suite_figures.interval(gains)
    worst = min(rows, key=lambda row: row.gain)
    gaps = [pair[1] for pair in map(results.joint, rows) if pair]
    eces = {name: [row.ece(name) for row in rows] for name in ("class_ece", "task_ece")}
    judged = [row for row in rows if row.cell.images >= ECE_IMAGES]
    pooled = {name: [row.pooled(name + "_bins") for row in judged] for name in ("class", "task")}
    return {
        "cells": str(len(rows)),
        "mean gain over untouched": f"{statistics.fmean(gains):+.2f} [{low:+.2f}, {high:+.2f}]",
        "worst cell": f"{worst.gain:+.1f} ({worst.text()})",
        "cells below untouched": show(100.0 * suite_figures.fraction(g < 0 for g in gains), "{:.0f} %"),
        f"cells below untouched - {MARGIN}": show(100.0 * suite_figures.fraction(g < -MARGIN for g in gains),
                                                  "{:.0f} %"),
        "mean loss": show(suite_figures.mean_loss(gains), "{:.2f}"),
        "joint - learnt: mean, largest": both(gaps),
        "class ECE: mean, largest": both(eces["class_ece"]),
        "task ECE: mean, largest": both(eces["task_ece"]),
        f"class, task ECE above {ECE_LIMIT:.0f} %": ", ".join(
            show(percent_above(values), "{:.0f} % of cells") or "-" for values in eces.values()),
        **{f"{name} ECE over all seeds{suffix}: mean, largest": both(pair[i] for pair in pooled[name])
           for name in pooled for i, suffix in enumerate(("", ", if probabilities were true"))},
        "seconds of learning a cell": show(suite_figures.mean([row.get("learn_seconds") for row in rows])),
        "largest memory MiB": show(max(row.get("peak_bytes") for row in rows) / 2**20, "{:.0f}"),
    }


def percent_above(values):
    share = suite_figures.fraction(value > ECE_LIMIT for value in values if value is not None)
    return None if share is None else 100.0 * share


def unknown_lines(results, backbone, variant):
    rows = results.select("unknown", variant, backbone)
    if not rows:
        return {}
    alarms = [row.percent("false_alarms") for row in rows]
    return {
        "cells of unknown classes": str(len(rows)),
        "AUROC of the unknown score": show(statistics.fmean(row.percent("unknown_auroc") for row in rows)),
        "AUROC of the class probability": show(statistics.fmean(row.percent("probability_auroc") for row in rows)),
        "false alarms: mean, range": f"{statistics.fmean(alarms):.1f}, {min(alarms):.1f} to {max(alarms):.1f}",
        "unknown images detected": show(statistics.fmean(row.percent("detection") for row in rows)),
        "prediction ms an image": show(1e3 * statistics.fmean(row.get("predict_seconds_per_image") for row in rows)),
    }


def time_lines(results, backbone, variant):
    if variant == results.variants[0]:
        return {}
    return {f"{title}, times {results.variants[0]}": show(results.ratio(variant, backbone, name), "{:.2f}")
            for title, name in (("learning time", "learn_seconds"), ("processor time", "cpu_seconds"))}


def summary(results):
    lines = [{**learn_lines(results, *column), **unknown_lines(results, *column), **time_lines(results, *column)}
             for column in results.columns]
    names = list(dict.fromkeys(name for column in lines for name, text in column.items() if text))
    return table(["", *(f"{backbone}, {variant}" for backbone, variant in results.columns)],
                 [[name, *(column.get(name, "") for column in lines)] for name in names])


def gain_by_set(results):
    rows = []
    for name in results.sets:
        cells = [[row.gain for row in results.select("learn", variant, backbone) if row.cell.set == name]
                 for backbone, variant in results.columns]
        if any(cells):
            rows.append([name, *(show(suite_figures.mean(gains), "{:+.2f}") for gains in cells)])
    return table(["set", *(f"{backbone}, {variant}" for backbone, variant in results.columns)], rows) if rows else ""


def left_out_sets(results):
    """What leave-one-set-out would choose: the variant with the best mean gain over the other sets, each counting
    once, on cells that all variants have."""
    places = [{place for name, place in results.rows["learn"] if name == variant} for variant in results.variants]
    common = set.intersection(*places)
    gains = {}  # (variant, set) -> mean gain
    for variant in results.variants:
        for name in results.sets:
            found = [results.rows["learn"][variant, place].gain for place in common if place[0] == name]
            if found:
                gains[variant, name] = statistics.fmean(found)
    sets = [name for name in results.sets if (results.variants[0], name) in gains]
    if len(results.variants) < 2 or len(sets) < 2:
        return ""
    rows = []
    for name in sets:
        others = [other for other in sets if other != name]
        choice = max(results.variants, key=lambda v: statistics.fmean(gains[v, other] for other in others))
        best = max(results.variants, key=lambda v: gains[v, name])
        rows.append([name, choice, f"{gains[choice, name]:+.2f}", f"{gains[results.variants[0], name]:+.2f}",
                     f"{best} {gains[best, name]:+.2f}"])
    return table(["set left out", "chosen by the others", "its gain", f"gain of {results.variants[0]}", "best"], rows)


# ---- every cell ----

def pooled_text(row, name):
    found, true = row.pooled(name)
    return "" if found is None else f"{found:.1f} ({true:.1f})"


def learn_table(results, backbone, variant):
    rows = []
    for row in results.select("learn", variant, backbone):
        joint, gap = results.joint(row) or (None, None)
        averages = all("average" in figures for figures in row.by_seed.values())
        c = row.cell
        rows.append([c.set, str(c.num_classes), str(c.num_tasks), str(c.images), str(len(row.by_seed)),
                     show(row.percent("untouched")), show(row.percent("learnt")), show(row.gain, "{:+.1f}"),
                     show(joint), show(gap, "{:+.1f}"), show(row.percent("average")) if averages else "",
                     show(row.percent("task_accuracy")), show(row.percent("class_ece")), show(row.percent("task_ece")),
                     pooled_text(row, "class_bins"), pooled_text(row, "task_bins"),
                     show(row.get("learn_seconds")), show(row.get("peak_bytes") / 2**20, "{:.0f}")])
    return table(["set", "classes", "tasks", "images", "seeds", "untouched", "learnt", "gain", "joint",
                  "joint - learnt", "average", "task right", "class ECE", "task ECE", "class, all seeds",
                  "task, all seeds", "learning s", "MiB"],
                 rows) if rows else ""


def unknown_table(results, backbone, variant):
    rows = []
    for row in results.select("unknown", variant, backbone):
        c = row.cell
        rows.append([c.set, str(c.num_classes), str(c.num_tasks), str(c.images), str(len(row.by_seed)),
                     *(show(row.percent(name)) for name in ("unknown_auroc", "probability_auroc", "false_alarms",
                                                            "detection", "known_accuracy")),
                     pooled_text(row, "class_bins")])
    return table(["set", "known classes", "tasks", "images", "seeds", "AUROC", "of the probability", "false alarms",
                  "detected", "known right", "class ECE, all seeds"], rows) if rows else ""


def page(found, missing):
    """found: figures by cell; missing: the number of cells that were asked for and have none."""
    results = Results(found)
    parts = ["# Development suite",
             f"{len(found)} cells with seeds" + (f"; **{missing} more are missing**" if missing else "") + ". Percent; "
             "means over seeds, then over cells. Brackets: 95 % bootstrap interval over cells. ECE over cells is of "
             f"those with at least {ECE_IMAGES} images a class; after \"all seeds\" it is that of all their images "
             "together, in brackets what it would be on average if the probabilities were true.",
             "## Summary", summary(results)]
    for title, text in (("Gain by set", gain_by_set(results)), ("Leave one set out", left_out_sets(results))):
        if text:
            parts += ["## " + title, text]
    for backbone, variant in results.columns:
        for title, text in (("learning", learn_table(results, backbone, variant)),
                            ("unknown classes", unknown_table(results, backbone, variant))):
            if text:
                parts += [f"## {backbone}, {variant}: {title}", text]
    return "\n\n".join(parts)
