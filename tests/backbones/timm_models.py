# SPDX-License-Identifier: Apache-2.0
"""Small random models of timm's architectures: the arguments of the large one, with fewer and narrower blocks."""

import re

import timm
import torch
from safetensors.torch import save_file

from models import Row, randomise, tensors_of

# Modules of timm with plain Vision Transformers. Of eva.py all are tried; the second pattern tells which ones count.
MODULES = ("vision_transformer", "deit", "eva")
COUNTED = {"eva": r"dinov3|clip"}
# timm's own tests use these. The tensors of test_vit3 are those of vit_so150m_patch16_reg4_map_256, whose attention does
# not read the registers; nobody has weights of it.
LEFT_OUT = r"^test_"
# Half as many keys and values as queries, as an argument for each block.
GROUPED_QUERIES = r"sapiens2"
# Known to the library by its width alone: it has the tensors of EVA-CLIP giant, and norms behind its layers.
FULL_WIDTH = ("eva02_enormous_patch14_clip_224",)

# The first that matches an architecture's name.
FAMILIES = (
    (r"^aimv2", "AIMv2"),
    (r"^beit3", "BEiT-3"),
    (r"dinov3", "DINOv3"),
    (r"reg4_dinov2", "DINOv2 with registers"),
    (r"dinov2", "DINOv2"),
    (r"tipsv2", "TIPSv2"),
    (r"radio", "RADIO"),
    (r"intern300m", "InternViT"),
    (r"siglip_gap", "SigLIP, mean pool"),
    (r"siglip", "SigLIP"),
    (r"^eva.*clip", "EVA-CLIP"),
    (r"^eva02", "EVA-02"),
    (r"^eva", "EVA"),
    (r"clip_quickgelu", "CLIP, quick GELU"),
    (r"clip", "CLIP"),
    (r"^deit3", "DeiT III"),
    (r"^deit_.*distilled", "DeiT, distilled"),
    (r"^deit", "DeiT"),
    (r"^vit_pe_", "Perception Encoder"),
    (r"lingbot", "LingBot"),
    (r"sapiens", "Sapiens 2"),
    (r"rope", "ViT with rotary positions"),
    (r"_xp_|18x2|_d?pwee_", "ViT, parallel layers"),
    (r"rpn", "ViT, norms behind the layers"),
    (r"reg\d_map", "ViT, registers, attention pool"),
    (r"reg\d_gap", "ViT, registers, mean pool"),
    (r"_gap_", "ViT, mean pool"),
    (r"^flexivit", "FlexiViT"),
    (r"", "ViT"),
)
ACTIVATIONS = {"GELU": "GELU", "GELUTanh": "GELU_TANH", "QuickGELU": "QUICK_GELU", "SiLU": "SWIGLU"}


def architectures():
    """[(name, whether it counts as a plain Vision Transformer)]"""
    return [(name, re.search(COUNTED.get(module, ""), name) is not None)
            for module in MODULES for name in timm.list_models(module=module) if not re.search(LEFT_OUT, name)]


def heads_of(model):
    for module in model.blocks[0].modules():
        if hasattr(module, "num_heads"):
            return module.num_heads
    raise ValueError("no number of heads")


def small(name, seed):
    """The architecture with 2 heads of its own width, 2 blocks and 4 x 4 patches."""
    more = {"num_kv_heads": 1} if re.search(GROUPED_QUERIES, name) else {}
    with torch.device("meta"):
        large = timm.create_model(name, depth=1, **more)
    patch, heads = large.patch_embed.patch_size[0], heads_of(large)
    size = dict(embed_dim=2 * large.embed_dim // heads, num_heads=2, depth=2)
    if name in FULL_WIDTH:
        size = dict(depth=1)
    return randomise(timm.create_model(name, num_classes=0, img_size=4 * patch, **size, **more), seed)


def pooled(pool):
    """The feature by this pooling, from the tokens behind the blocks and their norm, if there is one."""

    def feature(model, x):
        tokens, first = model.forward_features(x), model.num_prefix_tokens
        if pool == "CLASS":
            z = tokens[:, 0]
        elif pool == "DISTILLED":
            z = tokens[:, :2].mean(1)
        else:
            z = tokens[:, first if pool == "MEAN_PATCHES" else 0:].mean(1)
        return model.fc_norm(z)

    return feature


def own_pool(model):
    if hasattr(model, "head_dist"):
        return "DISTILLED"
    if model.global_pool == "avg":
        return "MEAN_TOKENS" if getattr(model, "pool_include_prefix", False) else "MEAN_PATCHES"
    if model.global_pool == "":  # tokens are the output
        return "CLASS" if model.cls_token is not None else "MEAN_PATCHES"
    return {"token": "CLASS", "map": "ATTENTION"}.get(model.global_pool)


def rows(name, seed):
    model = small(name, seed)
    family = next(title for pattern, title in FAMILIES if re.search(pattern, name))
    act = next((m for n, m in model.blocks[0].named_modules() if n.endswith("act")), None)
    pool = own_pool(model)
    features = {p: pooled(p) for p in ("CLASS", "MEAN_PATCHES", "MEAN_TOKENS", "DISTILLED")}
    if model.global_pool:
        features[pool] = lambda inner, x: inner.forward_head(inner.forward_features(x), pre_logits=True)
    eps = next(m.eps for m in model.modules() if hasattr(m, "eps"))
    row = Row(family, name, "timm", model, heads_of(model), eps, ACTIVATIONS.get(type(act).__name__), pool, features,
              lambda path: save_file(tensors_of(model), path))
    row.size = None if getattr(model, "dynamic_img_size", False) else model.patch_embed.img_size[0]
    yield row
