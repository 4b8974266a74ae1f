#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the small random models that test_families loads, one a family and naming, and what timm and Hugging Face
transformers compute with them in float64: features, and gradients of a fixed loss with respect to a low-rank update of
every adapted projection.

    python3 -m venv venv && venv/bin/pip install numpy torch timm transformers safetensors
    venv/bin/python tests/backbones/make_references.py [NAME ...]     (used: torch 2.15, timm 1.0.31, transformers 5.24)

The files that result are committed; run it only to change them. In tests/data/backbones:

    NAME.safetensors   the model as its users save it: width 32, 2 blocks, 2 heads, 4 x 4 patches, no parameter at its
                       initial value
    NAME.bin           images, features, updates and gradients, in the format of tests/data/make_reference.py; a model that is
                       saved under several names has one

Updates are B A with the outputs of the library's sites: of fc1 those of gate and up, one behind the other; of output and
fc2 what follows the layer scale.
"""
import os
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.path.dirname(HERE), "data", "backbones")
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "data"))
import make_reference

QUERY, KEY, VALUE, OUTPUT, FC1, FC2 = 1, 2, 4, 8, 16, 32
DIM, DEPTH, HEADS, PATCH, SIZE, RANK = 32, 2, 2, 4, 16, 2


def randomise(model, seed):
    """Every parameter away from its initial value, so that a tensor read into the wrong place shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise, last = torch.randn(p.shape, generator=generator), name.split(".")[-1]
            if "gamma" in last or "lambda" in last:
                p.copy_(0.7 + 0.2 * noise)
            elif p.ndim > 1 and last in ("weight", "in_proj_weight") and "embedding.weight" not in name.replace("patch_embedding", ""):
                p.copy_(noise * 1.5 / p[0].numel() ** 0.5)
            elif last == "weight" and p.ndim == 1:
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(0.4 * noise)
    return model.eval()


def write_model(name, tensors, heads, key, metadata=None):
    path = os.path.join(DATA, name + ".safetensors")
    tensors = {k: v.detach().float().contiguous().clone() for k, v in tensors.items() if v.is_floating_point()}
    save_file(tensors, path, metadata={"format": "pt", key: str(heads), **(metadata or {})})
    os.chmod(path, 0o644)


def saved_tensors(model):
    """As save_pretrained names them, which is not as the modules are called."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(os.path.join(folder, "model.safetensors"))


# ---- where the projections are: site -> [(weight, first row, rows)], and the layer scale's name or None ----------------


def fused(block, dim):
    return {QUERY: [(block + "attn.qkv.weight", 0, dim)], KEY: [(block + "attn.qkv.weight", dim, dim)],
            VALUE: [(block + "attn.qkv.weight", 2 * dim, dim)]}


def sites_of(params):
    """From the names of the parameters, whatever the family: (site -> parts, site -> layer scale) of each block."""
    def find(block, *names):
        found = [block + n for n in names if block + n in params]
        return found[0] if found else None

    blocks = sorted({b for n in params for b in [n[:n.rfind(k) + len(k)] for k in
                     ("blocks.0.", "blocks.1.", "layer.0.", "layer.1.", "layers.0.", "layers.1.") if k in n]
                     if "text" not in n and "attn_pool" not in n})
    result = []
    for block in blocks:
        sites, scales = {}, {}
        if block + "attn.qkv.weight" in params:
            sites.update(fused(block, params[block + "attn.qkv.weight"].shape[1]))
        else:
            for site, letter in ((QUERY, "q"), (KEY, "k"), (VALUE, "v")):
                name = find(block, f"attention.{letter}_proj.weight", f"self_attn.{letter}_proj.weight",
                            f"attn.{letter}_proj.weight")
                sites[site] = [(name, 0, params[name].shape[0])]
        output = find(block, "attn.proj.weight", "attention.o_proj.weight", "self_attn.out_proj.weight",
                      "attention.out_proj.weight")
        gate = find(block, "mlp.fc1_g.weight", "mlp.gate_proj.weight", "ffn.gate_proj.weight")
        up = find(block, "mlp.fc1_x.weight", "mlp.up_proj.weight", "ffn.up_proj.weight") if gate else None
        fc1 = [gate, up] if gate else [find(block, "mlp.fc1.weight", "mlp.up_proj.weight", "mlp.weights_in.weight")]
        fc2 = find(block, "mlp.fc2.weight", "mlp.down_proj.weight", "mlp.weights_out.weight", "ffn.down_proj.weight")
        sites[OUTPUT] = [(output, 0, params[output].shape[0])]
        sites[FC1] = [(n, 0, params[n].shape[0]) for n in fc1]
        sites[FC2] = [(fc2, 0, params[fc2].shape[0])]
        scales[OUTPUT] = find(block, "ls1.gamma", "gamma_1", "layer_scale1.lambda1")
        scales[FC2] = find(block, "ls2.gamma", "gamma_2", "layer_scale2.lambda1")
        result.append((sites, scales))
    assert len(result) == DEPTH, blocks
    return result


def write_reference(name, model, features_of, seed, size=SIZE):
    """features_of(model output): the class token or what else the feature is."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    params = {n: p.detach().clone() for n, p in model.named_parameters()}
    x = torch.randn(3, 3, size, size, generator=generator).double()

    def run(weights):
        return features_of(lambda *a, **k: torch.func.functional_call(model, weights, a, k), x)

    with torch.no_grad():
        arrays = {"images": x, "plain": run(params)}
    factors, changed, places = {}, dict(params), []
    for block, (sites, scales) in enumerate(sites_of(params)):
        for site in sorted(sites):
            parts = sites[site]
            outputs, inputs = sum(rows for _, _, rows in parts), params[parts[0][0]].shape[1]
            i = len(places)
            places.append((block, site))
            # float32 values, because that is what the library is given.
            a = (torch.randn(RANK, inputs, generator=generator) / inputs**0.5).double().requires_grad_()
            b = (torch.randn(outputs, RANK, generator=generator) * 0.1).double().requires_grad_()
            factors[f"{i}.residual.a"], factors[f"{i}.residual.b"] = a, b
            delta, at = b @ a, 0
            if scales.get(site):
                delta = delta / params[scales[site]][:, None]
            for weight, first, rows in parts:
                whole = torch.zeros_like(params[weight])
                index = torch.arange(first, first + rows)
                changed[weight] = changed[weight] + whole.index_add(0, index, delta[at:at + rows])
                at += rows
    features = run(changed)
    dz = torch.randn(features.shape, generator=generator).double()
    (features * dz).sum().backward()
    arrays.update(sites=np.array(places), features=features, feature_gradients=dz)
    for key, value in factors.items():
        arrays[key], arrays["grad." + key] = value, value.grad
    assert (features - arrays["plain"]).abs().max() > 1e-2, name
    assert all(v.grad.abs().max() > 1e-5 for v in factors.values()), name
    make_reference.write_bin(os.path.join("backbones", name + ".bin"), arrays)


# ---- families ---------------------------------------------------------------------------------------------------------


def of_timm(architecture, seed, **options):
    model = timm.create_model(architecture, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, img_size=SIZE, patch_size=PATCH,
                              num_classes=0, **options)
    return randomise(model, seed)


class Features(torch.nn.Module):
    """A timm model whose call gives all normed tokens, or what it pools itself."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, pooled=False):
        tokens = self.model.forward_features(x)
        return self.model.forward_head(tokens, pre_logits=True) if pooled else tokens


def class_token(call, x):
    return call(x)[:, 0]


def patches_then_norm(call, x):
    return call(x, pooled=True)


def mean_of_patches(call, x):
    return call(x).mean(1)


def timm_family(name, architecture, seed, renamed=None, feature=class_token, **options):
    model = of_timm(architecture, seed, **options)
    tensors = dict(model.state_dict())
    write_model(name, tensors, HEADS, "num_heads")
    for other, rename in (renamed or {}).items():
        write_model(other, {rename(k): v for k, v in tensors.items()}, HEADS, "num_heads")
    write_reference(name, Features(model), feature, seed)


def own_pool(name, architecture, seed, **options):
    """By the pooling of the architecture."""
    model = of_timm(architecture, seed, **options)
    write_model(name, model.state_dict(), HEADS, "num_heads")
    write_reference(name, model, lambda call, x: call(x), seed)


COMMON = dict(hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=SIZE, patch_size=PATCH)


def hf_family(name, model, seed, in_memory=None, feature=lambda call, x: call(pixel_values=x).last_hidden_state[:, 0]):
    """in_memory: name of a second file, with the names of the modules."""
    randomise(model, seed)
    write_model(name, saved_tensors(model), HEADS, "num_attention_heads")
    if in_memory:
        write_model(in_memory, model.state_dict(), HEADS, "num_attention_heads")
    write_reference(name, model, feature, seed)


def clip_with_text(seed):
    vision = dict(COMMON, intermediate_size=64)
    text = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20,
                max_position_embeddings=8)
    model = randomise(transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text,
                                                                     projection_dim=24)), seed)
    write_model("hf_clip", saved_tensors(model), HEADS, "num_attention_heads")
    return model.vision_model


def clip_with_projection(seed):
    config = transformers.CLIPVisionConfig(**COMMON, intermediate_size=64, hidden_act="gelu", projection_dim=24)
    model = randomise(transformers.CLIPVisionModelWithProjection(config), seed)
    write_model("hf_clip_gelu", saved_tensors(model), HEADS, "num_attention_heads", {"hidden_act": "gelu"})
    return model.vision_model


def pooled(call, x):
    return call(pixel_values=x).pooler_output


FAMILIES = {
    "timm_dinov2_reg4": lambda n: timm_family(n, "vit_small_patch14_reg4_dinov2", 101, mlp_ratio=2),
    "timm_deit3": lambda n: timm_family(n, "deit3_small_patch16_224", 102, mlp_ratio=2),
    "timm_deit_distilled": lambda n: timm_family(n, "deit_tiny_distilled_patch16_224", 103, mlp_ratio=2),
    "timm_clip": lambda n: timm_family(n, "vit_base_patch16_clip_224", 104, mlp_ratio=2),
    "timm_clip_quickgelu": lambda n: timm_family(n, "vit_base_patch16_clip_quickgelu_224", 105, mlp_ratio=2),
    "timm_dinov2_giant": lambda n: timm_family(n, "vit_giant_patch14_dinov2", 106, mlp_ratio=4, renamed={
        "dinov2_giant_original": lambda k: k.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3.")}),
    "timm_dinov3": lambda n: timm_family(n, "vit_small_patch16_dinov3", 107, mlp_ratio=2),
    "timm_dinov3_qkvb": lambda n: timm_family(n, "vit_small_patch16_dinov3_qkvb", 108, mlp_ratio=2),
    "timm_dinov3_plus": lambda n: timm_family(n, "vit_small_plus_patch16_dinov3", 109, mlp_ratio=2),
    "timm_aimv2": lambda n: timm_family(n, "aimv2_large_patch14_224", 111, mlp_ratio=2, feature=mean_of_patches),
    "timm_eva02": lambda n: timm_family(n, "eva02_base_patch14_224", 112, mlp_ratio=2, feature=patches_then_norm),
    "timm_eva02_clip": lambda n: timm_family(n, "eva02_base_patch16_clip_224", 113, mlp_ratio=2),
    "timm_beit3": lambda n: timm_family(n, "beit3_base_patch16_224", 114, mlp_ratio=2, feature=patches_then_norm),
    "timm_eva_giant_clip": lambda n: timm_family(n, "eva_giant_patch14_clip_224", 110, mlp_ratio=2),
    "timm_deit_distilled_mean": lambda n: own_pool(n, "deit_tiny_distilled_patch16_224", 103, mlp_ratio=2),
    "timm_siglip": lambda n: own_pool(n, "vit_base_patch16_siglip_224", 140, mlp_ratio=2),
    "timm_siglip_gap": lambda n: own_pool(n, "vit_base_patch16_siglip_gap_224", 141, mlp_ratio=2),
    "timm_reg4_map": lambda n: own_pool(n, "vit_so150m_patch16_reg4_map_256", 142, mlp_ratio=2),
    "timm_reg4_gap": lambda n: own_pool(n, "vit_medium_patch16_reg4_gap_256", 143, mlp_ratio=2),
    "timm_radio": lambda n: own_pool(n, "vit_base_patch16_radio_v3", 144, mlp_ratio=2),
    "hf_siglip": lambda n: hf_family(n, transformers.SiglipVisionModel(transformers.SiglipVisionConfig(
        **COMMON, intermediate_size=64)), 145, feature=pooled),
    "hf_ijepa": lambda n: hf_family(n, transformers.IJepaModel(transformers.IJepaConfig(
        **COMMON, intermediate_size=64, layer_norm_eps=1e-6)), 146,
        feature=lambda call, x: call(pixel_values=x).last_hidden_state.mean(1)),
    "hf_vit": lambda n: hf_family(n, transformers.ViTModel(transformers.ViTConfig(
        **COMMON, intermediate_size=64, layer_norm_eps=1e-6)), 120, in_memory="hf_vit_5"),
    "hf_deit": lambda n: hf_family(n, transformers.DeiTModel(transformers.DeiTConfig(
        **COMMON, intermediate_size=64, layer_norm_eps=1e-6)), 121, in_memory="hf_deit_5"),
    "hf_dinov2_registers": lambda n: hf_family(n, transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**COMMON, mlp_ratio=2)), 122, in_memory="hf_dinov2_registers_5"),
    "hf_dinov2_giant": lambda n: hf_family(n, transformers.Dinov2Model(transformers.Dinov2Config(
        **COMMON, mlp_ratio=2, use_swiglu_ffn=True)), 123, in_memory="hf_dinov2_giant_5"),
    "hf_clip": lambda n: write_reference(n, clip_with_text(124), pooled, 124),
    "hf_clip_gelu": lambda n: write_reference(n, clip_with_projection(125), pooled, 125),
    "hf_aimv2": lambda n: hf_family(n, transformers.Aimv2VisionModel(transformers.Aimv2VisionConfig(
        **COMMON, intermediate_size=64, use_head=False)), 128,
        feature=lambda call, x: call(pixel_values=x).last_hidden_state.mean(1)),
    "hf_dinov3": lambda n: hf_family(n, transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(
        **COMMON, intermediate_size=64, num_register_tokens=4)), 126, in_memory="hf_dinov3_5"),
    "hf_dinov3_plus": lambda n: hf_family(n, transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(
        **COMMON, intermediate_size=64, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu")), 127,
        in_memory="hf_dinov3_plus_5"),
}


def main():
    os.makedirs(DATA, exist_ok=True)
    for name in sys.argv[1:] or FAMILIES:
        print(name, flush=True)
        FAMILIES[name](name)


if __name__ == "__main__":
    main()
