# SPDX-License-Identifier: Apache-2.0
"""Small random models with the architecture of large ones: what both coverage.py's sources of them share."""

import numpy as np
import torch

from library import FC1, FC2, KEY, OUTPUT, QUERY, VALUE

# Names of projections in a block, by the implementations; of the first list whose names are all there, one below the other.
PARTS = {
    QUERY: (("attn.q_proj",), ("attention.q_proj",), ("self_attn.q_proj",), ("attention.attention.query",)),
    KEY: (("attn.k_proj",), ("attention.k_proj",), ("self_attn.k_proj",), ("attention.attention.key",)),
    VALUE: (("attn.v_proj",), ("attention.v_proj",), ("self_attn.v_proj",), ("attention.attention.value",)),
    OUTPUT: (("attn.proj",), ("attention.o_proj",), ("self_attn.out_proj",), ("attention.output.dense",),
             ("attention.out_proj",)),
    FC1: (("mlp.fc1_g", "mlp.fc1_x"), ("mlp.gate_proj", "mlp.up_proj"), ("ffn.gate_proj", "ffn.up_proj"), ("mlp.fc1",),
          ("mlp.up_proj",), ("mlp.weights_in",), ("intermediate.dense",)),
    FC2: (("mlp.fc2",), ("mlp.down_proj",), ("ffn.down_proj",), ("mlp.weights_out",), ("output.dense",)),
}
FUSED = "attn.qkv"
SCALES = {OUTPUT: ("ls1.gamma", "gamma_1", "layer_scale1.lambda1", "lambda_1"),
          FC2: ("ls2.gamma", "gamma_2", "layer_scale2.lambda1", "lambda_2")}


class Features(torch.nn.Module):
    """A model whose forward pass ends in the feature of an image."""

    def __init__(self, inner, feature):
        super().__init__()
        self.inner, self.feature = inner, feature

    def forward(self, x):
        return self.feature(self.inner, x)


class Row:
    """One small model, and what there is to know about it beside its tensors."""

    def __init__(self, family, name, naming, inner, heads, eps, activation, pool, features, save):
        self.family, self.name, self.naming = family, name, naming  # naming: how the file calls its tensors
        self.inner = inner  # torch.nn.Module in float64
        self.heads, self.eps = heads, eps
        self.activation = activation  # of ACTIVATIONS, or None where the library knows no such one
        self.pool = pool  # of POOLS, or None
        self.features = features  # {of POOLS: feature(inner, x)}
        self.save = save  # writes the file or folder of this path
        self.folder = False  # save writes a folder that tells all settings
        self.size = None  # pixels a side that it takes, if it does not take every size

    def module(self, pool):
        return Features(self.inner, self.features[pool])


def randomise(module, seed):
    """Every parameter away from its initial value, so that a tensor read into the wrong place shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            last = name.split(".")[-1]
            if p.ndim >= 2 and last in ("weight", "in_proj_weight") and "position" not in name:
                value = noise * 1.5 / p[0].numel() ** 0.5
            elif last == "weight" and p.ndim == 1:
                value = 1 + 0.2 * noise
            elif "gamma" in last or "lambda" in last:
                value = 0.7 + 0.2 * noise
            elif "pos" in name or "token" in name or "latent" in last or "probe" in last:
                value = 0.5 * noise
            else:
                value = 0.2 * noise
            p.copy_(value.to(p.dtype))
    return module.eval().double()


def tensors_of(module):
    """What torch.save or save_file of module.state_dict() would write, as float32."""
    return {k: v.detach().to(torch.float32).contiguous() for k, v in module.state_dict().items()
            if v.dtype.is_floating_point}


class Weight:
    """A projection as the library sees it: rows of weights of the module, one below the other."""

    def __init__(self, parts, scale):
        self.parts = parts  # [(name, first row, rows)]
        self.scale = scale  # name of the layer scale that follows, which the library folds in, or None

    def shape(self, parameters):
        return sum(rows for _, _, rows in self.parts), parameters[self.parts[0][0]].shape[1]


def find_weights(module):
    """(block, projection) -> Weight; empty where a block is built in another way."""
    parameters = dict(module.named_parameters())
    blocks = {}
    for name in parameters:
        for marker in ("blocks.", "layers.", "layer."):
            head, found, tail = ("." + name).partition("." + marker)
            index, _, rest = tail.partition(".")
            if found and index.isdigit() and "text_model" not in head:
                blocks.setdefault(int(index), set()).add((name[:len(name) - len(rest)], rest))
                break
    weights = {}
    for index, entries in blocks.items():
        prefix = next(iter(entries))[0]
        names = {rest for _, rest in entries}
        for projection, choices in PARTS.items():
            choice = next((c for c in choices if all(n + ".weight" in names for n in c)), None)
            if choice:
                parts = [(prefix + n + ".weight", 0, parameters[prefix + n + ".weight"].shape[0]) for n in choice]
            elif projection in (QUERY, KEY, VALUE) and FUSED + ".weight" in names:
                rows = parameters[prefix + FUSED + ".weight"].shape[0] // 3
                parts = [(prefix + FUSED + ".weight", rows * (QUERY, KEY, VALUE).index(projection), rows)]
            else:
                return {}
            scale = next((prefix + s for s in SCALES.get(projection, ()) if s in names), None)
            weights[index, projection] = Weight(parts, scale)
    return weights


def make_adapters(module, weights, rank, seed):
    """[(block, projection, A [rank, in], B [out, rank])] of all projections, float32 values."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(module.named_parameters())
    adapters = []
    for (block, projection), weight in sorted(weights.items()):
        rows, columns = weight.shape(parameters)
        a = torch.randn(rank, columns, generator=generator) / columns**0.5
        b = torch.randn(rows, rank, generator=generator) * 0.1
        adapters.append((block, projection, a.numpy(), b.numpy()))
    return adapters


def reference_gradients(module, weights, adapters, x, feature_gradients):
    """The same as library.Model.gradients, by autograd: an adapter is W + B A, behind the layer scale."""
    parameters = dict(module.named_parameters())
    changed, factors = {}, []
    for block, projection, a, b in adapters:
        a, b = (torch.from_numpy(v).double().requires_grad_() for v in (a, b))
        factors.append((a, b))
        weight, at = weights[block, projection], 0
        product = b @ a
        if weight.scale:
            product = product / parameters[weight.scale].detach()[:, None]
        for name, first, rows in weight.parts:
            whole = changed.get(name, parameters[name].detach())
            below = whole.shape[0] - first - rows
            changed[name] = whole + torch.nn.functional.pad(product[at:at + rows], (0, 0, first, below))
            at += rows
    features = torch.func.functional_call(module, changed, (x,))
    (features * torch.from_numpy(feature_gradients).double()).sum().backward()
    return features.detach().numpy(), [(a.grad.numpy(), b.grad.numpy()) for a, b in factors]


def difference(found, expected):
    """Largest difference, relative to the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def gradient_difference(found, expected):
    """Largest of all factors; a factor whose gradient hardly differs from zero is measured by the largest of all."""
    largest = max(np.abs(part).max() for pair in expected for part in pair)
    worst = 0.0
    for pair in zip(found, expected):
        for f, e in zip(*pair):
            scale = max(np.abs(e).max(), 1e-3 * largest)
            worst = max(worst, float(np.abs(np.asarray(f, np.float64) - e).max() / scale))
    return worst
