# SPDX-License-Identifier: Apache-2.0
"""A Vision Transformer's weights as NumPy arrays, and the files that programs of the speed bench check each other with."""
import json

import numpy as np

RANK = 16  # of both adapter branches together, as the library's defaults


def read_tensors(path):
    """name -> float32 array, and the file's metadata."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[begin:end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        tensors[name] = values.astype(np.float32).reshape(entry["shape"])
    return tensors, metadata


def from_dinov2(tensors):
    """Hugging Face's names of DINOv2 to timm's."""
    out = {
        "cls_token": tensors["embeddings.cls_token"],
        "pos_embed": tensors["embeddings.position_embeddings"],
        "norm.weight": tensors["layernorm.weight"],
        "norm.bias": tensors["layernorm.bias"],
    }
    names = {"norm1": "norm1", "norm2": "norm2", "attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1",
             "mlp.fc2": "mlp.fc2"}
    for kind in ("weight", "bias"):
        out["patch_embed.proj." + kind] = tensors["embeddings.patch_embeddings.projection." + kind]
    depth = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
    for i in range(depth):
        to, source = f"blocks.{i}.", f"encoder.layer.{i}."
        for kind in ("weight", "bias"):
            for ours, theirs in names.items():
                out[f"{to}{ours}.{kind}"] = tensors[f"{source}{theirs}.{kind}"]
            out[f"{to}attn.qkv.{kind}"] = np.concatenate(
                [tensors[f"{source}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")])
        for k in (1, 2):
            out[f"{to}ls{k}.gamma"] = tensors[f"{source}layer_scale{k}.lambda1"]
    return out


def bicubic(source, target):
    """[target, source]: what each new value takes of the old ones, with antialias where there are fewer."""
    scale = source / target
    wide = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    x = np.abs(np.arange(source)[None, :] + 0.5 - centres[:, None]) / wide
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
    return weights / weights.sum(1, keepdims=True)


def resample(positions, grid):
    """positions [1, 1 + side^2, dim], class token first."""
    side = round((positions.shape[1] - 1) ** 0.5)
    if side == grid:
        return positions
    weights = bicubic(side, grid)
    patches = positions[0, 1:].reshape(side, side, -1).astype(np.float64)
    patches = np.einsum("ay,bx,yxd->abd", weights, weights, patches).reshape(1, grid * grid, -1)
    return np.concatenate([positions[:, :1], patches.astype(np.float32)], 1)


class Vit:
    """Tensors by timm's names, position embeddings for the image size; layer scale is folded into the weights before it."""

    def __init__(self, path, image_size):
        tensors, metadata = read_tensors(path)
        if "cls_token" not in tensors:
            tensors = from_dinov2(tensors)
        self.tensors = tensors
        self.heads = int(metadata.get("num_heads") or metadata["num_attention_heads"])
        self.eps = float(metadata.get("layer_norm_eps", 1e-6))
        self.dim = tensors["cls_token"].shape[-1]
        self.depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        self.first = self.depth // 2  # adapted from here, as the library's defaults
        self.patch = tensors["patch_embed.proj.weight"].shape[-1]
        self.image_size = image_size
        self.tokens = 1 + (image_size // self.patch) ** 2
        tensors["pos_embed"] = resample(tensors["pos_embed"], image_size // self.patch)
        for i in range(self.depth):
            for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
                gamma = tensors.pop(f"blocks.{i}.{scale}.gamma", None)
                if gamma is not None:
                    for kind in ("weight", "bias"):
                        name = f"blocks.{i}.{layer}.{kind}"
                        tensors[name] = np.ascontiguousarray((tensors[name].T * gamma).T)

    def images(self, count):
        return np.random.default_rng(0).uniform(-1, 1, (count, 3, self.image_size, self.image_size)).astype(np.float32)


class CheckInput:
    """The file that speed_check.c describes."""

    def __init__(self, vit, path):
        values = np.fromfile(path, "<f4")
        self.used = 0

        def take(*shape):
            part = values[self.used:self.used + int(np.prod(shape))]
            self.used += part.size
            return part.reshape(shape)

        self.images = take(2, 3, vit.image_size, vit.image_size)
        self.a, self.b = [], []
        for _ in range(vit.first, vit.depth):
            self.a.append(take(RANK, vit.dim))
            self.b.append(take(2 * vit.dim, RANK))  # of the key and then of the value
        self.gradients = take(2, vit.dim)
        if self.used != values.size:
            raise ValueError(f"{path} has {values.size} values instead of {self.used}")
