# Writes lib/vit/known_models.c: what the names of timm's architectures and of transformers' model types tell about a
# Vision Transformer that shapes do not. Needs timm, torch and transformers:
#
#     python tests/backbones/make_known_models.py > lib/vit/known_models.c
#
# SPDX-License-Identifier: Apache-2.0

import collections
import sys
import textwrap

import timm
import torch
import transformers

MODULES = ("vision_transformer", "deit", "eva", "beit")
# Words of the table that are macros of the file.
ACTIVATIONS = {"GELU": "GELU", "GELUTanh": "GELU_TANH", "QuickGELU": "QUICK_GELU", "SiLU": "GATED"}
POOLS = {"token": "CLASS", "avg": "MEAN_PATCHES", "map": "ATTENTION"}
NORMALISATIONS = {((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "IMAGENET",
                  ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)): "OPENAI",
                  ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "HALF",
                  ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)): "NONE"}
# What transformers' models of a type give as the feature of an image, and how the published ones normalise images: their
# configurations do not say it.
TYPES = {
    "vit": ("ViTConfig", "CLASS", "HALF"),
    "vit_mae": ("ViTMAEConfig", "CLASS", "IMAGENET"),
    "vit_msn": ("ViTMSNConfig", "CLASS", "IMAGENET"),
    "deit": ("DeiTConfig", "CLASS", "IMAGENET"),
    "dinov2": ("Dinov2Config", "CLASS", "IMAGENET"),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", "CLASS", "IMAGENET"),
    "dinov3_vit": ("DINOv3ViTConfig", "CLASS", "IMAGENET"),
    "clip": ("CLIPVisionConfig", "CLASS", "OPENAI"),
    "clip_vision_model": ("CLIPVisionConfig", "CLASS", "OPENAI"),
    "siglip": ("SiglipVisionConfig", "ATTENTION", "HALF"),
    "siglip_vision_model": ("SiglipVisionConfig", "ATTENTION", "HALF"),
    "ijepa": ("IJepaConfig", "MEAN_TOKENS", "IMAGENET"),
    "aimv2": ("Aimv2VisionConfig", "MEAN_PATCHES", "OPENAI"),
    "aimv2_vision_model": ("Aimv2VisionConfig", "MEAN_PATCHES", "OPENAI"),
    "beit": ("BeitConfig", "MEAN_PATCHES", "HALF"),
}
HIDDEN_ACT = {"gelu": "GELU", "quick_gelu": "QUICK_GELU", "gelu_pytorch_tanh": "GELU_TANH", "silu": "GATED"}


def computable(name, model):
    """Whether the architecture's tensors show everything in which it differs from others; rotary positions, the order
    of norms and parallel blocks do not show."""
    block = model.blocks[0]
    norm = "RmsNorm" if name.startswith("aimv2_") else "LayerNorm"
    if type(block).__name__ not in ("Block", "EvaBlock") or type(block.norm1).__name__ != norm:
        return False
    rope = getattr(model, "rope", None)
    if rope is None or name.startswith("eva02_"):
        return True
    return type(rope).__name__ == "RotaryEmbeddingDinoV3" and rope.temperature == 100.0


def number(value):
    """As C's float."""
    return f"{value:.8g}f" if value % 1 else f"{value:.1f}f"


def floats(values):
    return "{" + ", ".join(number(float(v)) for v in values) + "}"


def architectures():
    rows = collections.defaultdict(list)
    for name in timm.list_models():
        if timm.models._registry._model_to_module.get(name) not in MODULES:
            continue
        with torch.device("meta"):
            model = timm.create_model(name)
        if not hasattr(model, "blocks") or not computable(name, model):
            continue
        block, cfg = model.blocks[0], model.pretrained_cfg
        activation = block.mlp.act if hasattr(block.mlp, "act") else block.mlp.act1
        if cfg.get("interpolation", "bicubic") not in ("bicubic", "bilinear"):
            sys.exit(f"{name}: interpolation {cfg['interpolation']}")
        distilled = type(model).__name__ == "VisionTransformerDistilled"
        rows[(
            model.embed_dim // block.attn.num_heads,
            f"{block.norm1.eps:g}f",
            NORMALISATIONS[tuple(cfg["mean"]), tuple(cfg["std"])],
            number(cfg.get("crop_pct", 0.875)),
            ACTIVATIONS[type(activation).__name__],
            "DISTILLED" if distilled else POOLS[model.global_pool],
            "SQUASH" if cfg.get("crop_mode") == "squash" else "CROP",
            cfg.get("interpolation", "bicubic").upper(),
        )].append(name)
    return rows


HEAD = """/* What names tell about a Vision Transformer that shapes do not: of timm's architectures, grouped by what they have in
 * common, and of transformers' model types. Written by tests/backbones/make_known_models.py.
 * SPDX-License-Identifier: Apache-2.0 */
#include "vit/settings.h"

/* clang-format off */
#define GELU DLORA_ACTIVATION_GELU
#define GELU_TANH DLORA_ACTIVATION_GELU_TANH
#define QUICK_GELU DLORA_ACTIVATION_QUICK_GELU
#define GATED DLORA_AUTO
#define CLASS DLORA_POOL_CLASS
#define MEAN_PATCHES DLORA_POOL_MEAN_PATCHES
#define MEAN_TOKENS DLORA_POOL_MEAN_TOKENS
#define DISTILLED DLORA_POOL_DISTILLED
#define ATTENTION DLORA_POOL_ATTENTION
#define SQUASH DLORA_RESIZE_SQUASH
#define CROP DLORA_RESIZE_CROP
#define BICUBIC DLORA_INTERPOLATION_BICUBIC
#define BILINEAR DLORA_INTERPOLATION_BILINEAR
/* mean and standard deviation */
"""


def main():
    rows = architectures()
    print(HEAD, end="")
    for (mean, std), word in NORMALISATIONS.items():
        print(f"#define {word} {floats(mean)}, {floats(std)}")
    print(f"""
const char *const dli_known_versions = "of timm {timm.__version__} and transformers {transformers.__version__}";

const struct dli_known_architecture dli_known_architectures[] = {{""")
    for row in sorted(rows, key=str):
        print(f"  {{{', '.join(str(v) for v in row)},")
        lines = textwrap.wrap(" ".join(sorted(rows[row])), 108, break_on_hyphens=False)
        print("\n".join(f'    "{line} "' for line in lines) + "},")
    print("""};
const size_t dli_num_known_architectures = sizeof dli_known_architectures / sizeof *dli_known_architectures;

const struct dli_known_type dli_known_types[] = {""")
    for name, (config, pool, normalisation) in TYPES.items():
        c = getattr(transformers, config)()
        print(f'  {{"{name}", {c.num_attention_heads}, {c.hidden_size}, {c.num_hidden_layers}, {c.patch_size}, '
              f"{getattr(c, 'layer_norm_eps', None) or c.rms_norm_eps:g}f, {HIDDEN_ACT[c.hidden_act]}, {pool}, {normalisation}}},")
    print("""};
const size_t dli_num_known_types = sizeof dli_known_types / sizeof *dli_known_types;""")


main()
