# SPDX-License-Identifier: Apache-2.0
"""Backbones of hubs and of torch: their files, or their tensors as a safetensors file in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._arrays import to_numpy
from .errors import ArgumentError, ArgumentTypeError

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32",
           "uint8": "U8", "bool": "BOOL"}
_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "config.json", "preprocessor_config.json"]


def pretrained_folder(name: str, revision: str | None, cache_dir: Any, local_files_only: bool) -> str:
    """The folder of a model's files: a local one, or of the hub's cache, downloaded if needed."""
    if os.path.isdir(name):
        return name
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ImportError(f"{name!r} is no folder, and to take it from the Hugging Face hub needs huggingface_hub: "
                          "pip install huggingface_hub") from None
    folder: str = snapshot_download(name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only,
                                    allow_patterns=_PATTERNS)
    return folder


_CONFIG = ("num_heads", "num_attention_heads", "image_size", "layer_norm_eps", "hidden_act", "activation", "global_pool",
           "mean", "std", "resize", "interpolation", "crop_fraction", "position_resampling")


def check_config(config: Any) -> Mapping[str, Any]:
    """What Model.from_torch is told beside the weights: a mapping of settings that the library knows."""
    if config is None:
        return {}
    if hasattr(config, "to_dict") or (isinstance(config, Mapping) and "model_type" in config):
        raise ArgumentError("this is a config of transformers; save the model with save_pretrained(folder) and open it "
                            "with Model.load(folder), which checks every attribute of it")
    if not isinstance(config, Mapping):
        raise ArgumentTypeError(f"config is of type {type(config).__name__}, expected a mapping")
    for key in config:
        if key not in _CONFIG:
            raise ArgumentError(f"config has {key!r}, which is none of {', '.join(_CONFIG)}")
    return config


def timm_config(model: Any) -> dict[str, Any]:
    """What a timm Vision Transformer knows beside its weights."""
    try:
        block = model.blocks[0]
        config = {"num_heads": block.attn.num_heads, "layer_norm_eps": block.norm1.eps}
        size = model.patch_embed.img_size
    except (AttributeError, IndexError, TypeError):
        raise ArgumentTypeError(f"{type(model).__name__} is no Vision Transformer of timm: it has no blocks with attention "
                                "or no patch_embed") from None
    if size is not None:
        if size[0] != size[1]:
            raise ArgumentError(f"the model takes images of {size[0]} x {size[1]}; the library takes square ones")
        config["image_size"] = size[0]
    if isinstance(getattr(model, "global_pool", None), str):
        config["global_pool"] = model.global_pool
    activation = _activation(block)
    if activation is not None:
        config["hidden_act"] = activation
    pretrained = getattr(model, "pretrained_cfg", None) or {}
    for name in ("mean", "std"):
        if pretrained.get(name) is not None:
            config[name] = tuple(pretrained[name])
    return config


def _activation(block: Any) -> str | None:
    """The activation of a block's MLP, in the names of transformers; None: the library finds it."""
    act = getattr(getattr(block, "mlp", None), "act", None)
    if act is None:
        return None
    if getattr(act, "approximate", "none") == "tanh":
        return "gelu_tanh"
    return {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}.get(type(act).__name__)


def timm_options(model: Any) -> dict[str, Any]:
    """How timm evaluates the model's images."""
    pretrained = getattr(model, "pretrained_cfg", None) or {}
    options: dict[str, Any] = {}
    if pretrained.get("interpolation") in ("bicubic", "bilinear"):
        options["interpolation"] = pretrained["interpolation"]
    if pretrained.get("crop_mode") == "squash":
        options["resize"] = "squash"
    elif pretrained.get("crop_pct"):
        options.update(resize="crop", crop_fraction=float(pretrained["crop_pct"]))
    return options


def _raw(name: str, tensor: Any) -> tuple[str, list[int], bytes]:
    """dtype, shape and bytes of a tensor. NumPy has no bfloat16: those of torch pass as int16."""
    if hasattr(tensor, "detach"):
        kind = str(tensor.dtype).removeprefix("torch.")
        tensor = tensor.detach().cpu().contiguous()
        if kind == "bfloat16":
            import torch
            tensor = tensor.view(torch.int16)
    else:
        tensor = np.asarray(tensor)
        kind = tensor.dtype.name
    if kind not in _DTYPES:
        raise ArgumentTypeError(f"tensor {name!r} has dtype {kind}; float32, float16 or bfloat16 is expected")
    array = np.ascontiguousarray(to_numpy(tensor))
    return _DTYPES[kind], list(tensor.shape), array.tobytes()


def safetensors_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> bytes:
    """A safetensors file of tensors and of what they do not say, in memory."""
    def text(value: Any) -> str:
        return ",".join(map(repr, map(float, value))) if isinstance(value, (tuple, list)) else str(value)

    header: dict[str, Any] = {"__metadata__": {name: text(value) for name, value in metadata.items() if value is not None}}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        dtype, shape, data = _raw(name, tensor)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(parts)
