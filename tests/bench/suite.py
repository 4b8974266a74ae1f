# SPDX-License-Identifier: Apache-2.0
"""The development suite: the command `duallora` on every data set in many small settings. suite.sh builds and calls it;
README.md beside it describes cells, figures and files."""
import argparse
import concurrent.futures
import dataclasses
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import suite_cells
import suite_data
import suite_tables

DEFAULTS = "defaults"


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- arguments ----

def words(text):
    return [word for word in text.split(",") if word]


def numbers(text):
    values = [int(word) for word in words(text)]
    if not values or min(values) < 0 or len(set(values)) != len(values):
        raise argparse.ArgumentTypeError(f"'{text}' is no list of different numbers")
    return values


def variant(text):
    name, equals, switches = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=SWITCHES")
    return name, switches


def parse(arguments):
    parser = argparse.ArgumentParser(prog="suite.sh", description="Runs the development suite and prints its "
                                     "tables. Cells whose results are there already are not run again.")
    parser.add_argument("--command", required=True, metavar="FILE",
                        help="duallora to run; default of suite.sh: the release that it builds")
    parser.add_argument("--out", required=True, metavar="FOLDER",
                        help="results, and unpacked data; default of suite.sh: build-bench/suite")
    data = parser.add_argument_group("data sets")
    data.add_argument("--data", action="append", default=[], metavar="FOLDER",
                      help="folder of zip files or of folders, each with train/CLASS/ and test/CLASS/; repeatable")
    data.add_argument("--cifar100", metavar="FOLDER", help="train.bin, test.bin and fine_label_names.txt")
    data.add_argument("--fashion-mnist", metavar="FOLDER", default=suite_data.FASHION_MNIST,
                      help="gzipped idx files; default: where the package dataset-fashion-mnist puts them")
    data.add_argument("--sets", type=words, metavar="NAME,...", help="these alone")
    data.add_argument("--max-classes", type=int, default=20, metavar="N",
                      help="choose at most so many classes of a set; 0: all (default 20)")
    data.add_argument("--test-images", type=int, default=25, metavar="N",
                      help="measure on at most so many images of a class; 0: all (default 25)")
    cells = parser.add_argument_group("cells")
    cells.add_argument("--backbone", action="append", default=[], metavar="FILE[:SIZE]",
                       help="one more beside the shipped one, at this image size; repeatable")
    cells.add_argument("--backbones", type=words, metavar="NAME,...", help="these alone")
    cells.add_argument("--classes-per-task", type=numbers, metavar="N,...", help="default 2,5,10")
    cells.add_argument("--images", type=numbers, metavar="N,...", help="default 5,20,50")
    cells.add_argument("--seeds", type=numbers, metavar="N,...", help="default 0,1,2")
    cells.add_argument("--kinds", type=words, metavar="KIND,...",
                       help="default " + ",".join(suite_cells.KINDS))
    cells.add_argument("--variant", action="append", type=variant, default=[], metavar='NAME="SWITCHES"',
                       help=f"switches of `duallora learn`, to be compared with {DEFAULTS}; repeatable")
    cells.add_argument("--variants", type=words, metavar="NAME,...", help="these alone")
    cells.add_argument("--last-only", action="store_true",
                       help="measure after the last task alone: quicker, without average accuracies")
    cells.add_argument("--probabilities", action="store_true",
                       help="predict the test images one by one besides: calibration over the images of all seeds, and "
                       "what it is for true probabilities; cells without that are run again")
    run = parser.add_argument_group("running")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once (default 1)")
    run.add_argument("--threads", type=int, default=0, metavar="N", help="threads of each (default: processors / jobs)")
    run.add_argument("--limit", type=int, default=0, metavar="N", help="run at most so many cells now")
    run.add_argument("--summary", action="store_true",
                     help="run nothing: print the tables of the results that are there, of the cells named by other "
                     "options")
    run.add_argument("--partial", action="store_true", help="missing cells are no failure")
    run.add_argument("--list", action="store_true", help="list the cells, in their order, and run none")
    out = parser.parse_args(arguments)
    if not out.summary:  # which takes whatever there is
        out.classes_per_task = out.classes_per_task or [2, 5, 10]
        out.images = out.images or [5, 20, 50]
        out.seeds = out.seeds or [0, 1, 2]
        out.kinds = out.kinds or list(suite_cells.KINDS)
    for kind in out.kinds or ():
        if kind not in suite_cells.KINDS:
            parser.error(f"--kinds: '{kind}' is none of {', '.join(suite_cells.KINDS)}")
    if 0 in [*(out.classes_per_task or ()), *(out.images or ()), out.jobs]:
        parser.error("--classes-per-task, --images and --jobs must be positive")
    if min(out.max_classes, out.test_images, out.jobs, out.threads, out.limit) < 0:
        parser.error("no number may be negative")
    for name in ("out", "command"):
        setattr(out, name, os.path.abspath(getattr(out, name)))
    return out


def selected(found, names, switch):
    for name in names or ():
        if name not in found:
            raise suite_data.DataError(f"{switch}: there is no {name}, only {', '.join(found)}")
    return {name: found[name] for name in (names or found)}


def backbones_of(arguments):
    found = {}
    for text in arguments.backbone:
        backbone = suite_cells.Backbone.parse(text)
        if not os.path.isfile(backbone.path):
            raise suite_data.DataError(f"--backbone {backbone.path} is not there")
        if backbone.name in found:
            raise suite_data.DataError(f"two backbones are called {backbone.name}")
        found[backbone.name] = backbone
    return selected(found, arguments.backbones, "--backbones")


def variants_of(arguments):
    return selected({DEFAULTS: "", **dict(arguments.variant)}, arguments.variants, "--variants")


# ---- results ----

def read_results(path):
    """Figures by cell; of a plan, None. A line that an interrupted run left unfinished counts as not there."""
    results = {}
    if not os.path.exists(path):
        return results
    with open(path, encoding="utf-8") as f:
        for line in f:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            results[suite_cells.Cell(**record["cell"])] = record["figures"]
    return results


def append_result(path, cell, figures):
    line = json.dumps({"cell": dataclasses.asdict(cell), "figures": figures}) + "\n"
    with open(path, "ab+") as f:
        if f.tell() > 0:
            f.seek(-1, os.SEEK_END)
            if f.read(1) != b"\n":
                f.write(b"\n")
        f.write(line.encode())


def run_cells(cells, sets, backbones, arguments, path):
    """Runs them; the sentences of those that failed."""
    failed = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        tasks = {pool.submit(suite_cells.run_cell, cell, sets[cell.set], backbones[cell.backbone], arguments): cell
                 for cell in cells}
        try:
            for done, task in enumerate(concurrent.futures.as_completed(tasks), 1):
                cell = tasks[task]
                try:
                    figures = task.result()
                except suite_cells.CellError as error:
                    failed.append(f"{cell.text()}: {error}")
                    say("FAILED " + failed[-1])
                    continue
                append_result(path, cell, figures)
                say(f"[{done} of {len(cells)}] {cell.text()}: {figures['cpu_seconds']:.1f} s")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def check_switches(cells, earlier):
    """A variant's name stands for one set of switches, or its figures could not be told apart."""
    switches = {}
    for cell in [*earlier, *cells]:
        if switches.setdefault(cell.variant, cell.switches) != cell.switches:
            raise suite_data.DataError(f"the variant {cell.variant} was run with the switches "
                                       f"'{switches[cell.variant]}', not '{cell.switches}'; name it otherwise")


def print_tables(cells, results, arguments):
    """The tables of these cells; how many of them have no result."""
    found = {cell: results[cell] for cell in cells if cell in results}
    missing = [cell for cell in cells if cell not in results]
    if not found:
        raise suite_data.DataError("there is no result of the cells that are asked for")
    text = suite_tables.page(found, len(missing))
    print(text)
    with open(os.path.join(arguments.out, "summary.md"), "w", encoding="utf-8") as f:
        f.write(text + "\n")
    if missing:
        say(f"suite: {len(missing)} of {len(cells)} cells have no result, the first is {missing[0].text()}")
    return len(missing)


def selected_cells(cells, arguments):
    """Those of earlier runs that the options name; joint cells go with those that they are compared with."""
    pairs = (("sets", "set"), ("backbones", "backbone"), ("variants", "variant"), ("images", "images"),
             ("seeds", "seed"), ("kinds", "kind"))
    per_task = arguments.classes_per_task

    def place(cell):
        return cell.variant, cell.set, cell.backbone, cell.num_classes, cell.images, cell.test_images, cell.seed

    learnt = {place(cell) for cell in cells
              if cell.kind == "learn" and (not per_task or cell.classes_per_task in per_task)}
    return [cell for cell in cells
            if all(getattr(cell, ours) in (getattr(arguments, theirs) or [getattr(cell, ours)])
                   for theirs, ours in pairs) and
            (not per_task or (place(cell) in learnt if cell.kind == "joint" else cell.classes_per_task in per_task))]


def main():
    arguments = parse(sys.argv[1:])
    os.makedirs(arguments.out, exist_ok=True)
    path, plan = (os.path.join(arguments.out, name) for name in ("results.jsonl", "plan.jsonl"))
    results, planned = read_results(path), read_results(plan)
    if arguments.summary:
        cells = selected_cells({**planned, **results}, arguments)
        check_switches([], cells)
        return 1 if print_tables(cells, results, arguments) and not arguments.partial else 0
    sets = suite_data.open_sets(arguments, say)
    backbones, variants = backbones_of(arguments), variants_of(arguments)
    cells = suite_cells.plan(sets, list(backbones.values()), variants, arguments)
    if not cells:
        raise suite_data.DataError("no cell: the sets have too few classes or images for what is asked for")
    check_switches(cells, {**planned, **results})
    if arguments.list:
        for cell in cells:
            print(cell.text())
        return 0
    for cell in cells:
        if cell not in planned:
            append_result(plan, cell, None)
    wanted = [cell for cell in cells if cell not in results or
              (arguments.probabilities and cell.kind == "learn" and "class_bins" not in results[cell])]
    say(f"{len(cells)} cells, {len(cells) - len(wanted)} are there already")
    failed = run_cells(wanted[:arguments.limit or None], sets, backbones, arguments, path)
    missing = print_tables(cells, read_results(path), arguments)
    return 1 if failed or (missing and not arguments.partial) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (suite_data.DataError, suite_tables.MissingFigure) as error:
        say(f"suite: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("suite: interrupted; the same command goes on")
        sys.exit(130)
