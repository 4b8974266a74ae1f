# SPDX-License-Identifier: Apache-2.0
"""Results of coverage.py as a document."""

INTRODUCTION = """\
# Backbones

Which Vision Transformers the library runs, and how exactly. `tests/backbones/coverage.sh` writes this page; a row says
what was measured, and nothing else does.

Each architecture is a small random model: the modules of timm or of Hugging Face transformers, with 2 heads of the
architecture's own width, 2 blocks, 4 x 4 patches, and every parameter away from its initial value. The library opens
the file through its public header. **Features** is the largest difference of the features from those of torch in
float64, relative to the largest feature. **Gradients** is the same of the gradients of adapters at query, key, value,
output, fc1 and fc2 of every block, relative to the largest number of the factor. No row may load and differ by more
than {tolerance:g}.

A folder is opened as it is. Of a file by itself the number of heads is always set, as tensors do not tell it. **Set**
names the other options that were needed because the tensors alone made the library suppose something else: `eps` is
`layer_norm_eps`. timm's own test models (`test_vit`) are left out.

Measured with {versions}.

| | load | of |
|---|---|---|
"""


def magnitude(value):
    return "" if value is None else f"{value:.0e}".replace("e-0", "e-")


def kind_of(sentence):
    """The sentence without the numbers in it, so that architectures of several sizes agree."""
    return sentence and "".join(c for c in sentence if not c.isdigit())


def grouped(results):
    """Results of one family, naming and outcome, in the order in which they were found."""
    groups = {}
    for r in results:
        key = r.family, r.naming, kind_of(r.sentence), tuple(r.settings)
        groups.setdefault(key, []).append(r)
    return sorted(groups.values(), key=lambda g: (g[0].family.lower(), g[0].naming, not g[0].loads))


def line_of(group):
    first = group[0]
    head = f"| {first.family} | {first.naming} | {len(group)} |"
    if not first.loads:
        return f"{head} no: {first.sentence.replace('|', ' ')} | | | |"
    worst = [max(v for v in values if v is not None)
             for values in ([r.features for r in group], [r.gradients for r in group])]
    return f"{head} yes | {', '.join(f'`{s}`' for s in first.settings)} | {magnitude(worst[0])} | {magnitude(worst[1])} |"


def count(title, results):
    return f"| {title} | {sum(r.loads for r in results)} | {len(results)} |"


def write_document(path, results, versions, tolerance):
    timm = [r for r in results if r.naming == "timm"]
    lines = [
        count("plain Vision Transformers of timm: vision_transformer.py, deit.py, DINOv3 and CLIP of eva.py",
              [r for r in timm if r.counted]),
        count("the others of eva.py", [r for r in timm if not r.counted]),
        count("classes of transformers, folders with config.json", [r for r in results if r.naming == "folder"]),
        count("the same, the weights alone as `save_pretrained` writes them",
              [r for r in results if r.naming == "save_pretrained"]),
        count("the same, the weights with the names of the modules in memory",
              [r for r in results if r.naming == "state_dict"]),
    ]
    groups = grouped(results)
    table = [
        "", "| family | names | models | loads | set | features | gradients |", "|---|---|---|---|---|---|---|",
        *map(line_of, groups), "", "## The models of each row", "",
    ]
    for group in groups:
        names = sorted({r.name for r in group})
        table.append(f"- {group[0].family}, {group[0].naming}, {'loads' if group[0].loads else 'refused'}: "
                     + ", ".join(f"`{n}`" for n in names))
    with open(path, "w") as f:
        f.write(INTRODUCTION.format(versions=versions, tolerance=tolerance) + "\n".join(lines + table) + "\n")
