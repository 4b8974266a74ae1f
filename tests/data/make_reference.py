#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the reference arrays that test_model and test_gradients compare with, by independent implementations: the Vision
Transformers of timm and of Hugging Face transformers, with gradients from torch autograd, all in float64.

    python3 -m pip install numpy torch timm transformers safetensors   (used: torch 2.15, timm 1.0.31, transformers 5.23)
    python3 tests/data/make_reference.py [--dinov2 DINOV2_SMALL.safetensors]

The files that result are committed; run it only to change them. Written beside this script:

    tiny_*.safetensors   random models of width 32 in every naming and dtype that the library reads
    *.bin                images, features, adapters and gradients: lines "name dtype dim dim ...", an empty line, then the
                         arrays one after the other, little-endian (tests/support.c reads them)

Position embeddings are resampled here by torch's bicubic interpolation with antialias=True. That is what timm does; Hugging
Face's Dinov2Model does without antialias, which throws away most of a 37 x 37 grid at 6 x 6, so its embeddings are replaced.
"""
import argparse
import os
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
QUERY, KEY, VALUE, OUTPUT, FC1, FC2 = 1, 2, 4, 8, 16, 32
ALL_SITES = (QUERY, KEY, VALUE, OUTPUT, FC1, FC2)
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def write_bin(name, arrays):
    """arrays: name -> array of float, int or uint8 values; floats are rounded to float32 last of all."""
    with open(os.path.join(HERE, name), "wb") as f:
        data = []
        for key, value in arrays.items():
            value = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
            if value.dtype.kind == "f":
                value, dtype = value.astype("<f4"), "f32"
            elif value.dtype == np.uint8:
                dtype = "u8"
            else:
                value, dtype = value.astype("<i4"), "i32"
            f.write(" ".join([key, dtype, *map(str, value.shape)]).encode() + b"\n")
            data.append(np.ascontiguousarray(value).tobytes())
        f.write(b"\n" + b"".join(data))


def make_images(count, height, width, seed):
    """Smooth colours with some noise: far enough from 0 and 255 that resizing does not overshoot them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    images = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        for c in range(3):
            a, b, p = rng.uniform(-8, 8), rng.uniform(-8, 8), rng.uniform(0, 6.28)
            wave = 128 + 70 * np.sin(a * y / height + b * x / width + p)
            images[i, :, :, c] = np.clip(wave + rng.uniform(-25, 25, (height, width)), 0, 255).astype(np.uint8)
    return images


def normalise(images, size, mean, std):
    x = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    if x.shape[2] != size or x.shape[3] != size:
        x = F.interpolate(x, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
        assert x.min() >= 0 and x.max() <= 255, "an overshoot: whether it is clipped would matter"
    x = x / 255
    return (x - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1)


def resample(positions, grid):
    """positions [1, 1 + side^2, dim], class token first."""
    side = int(round((positions.shape[1] - 1) ** 0.5))
    p = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    p = F.interpolate(p, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:, :1], p.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], 1)


# ---- adapters -------------------------------------------------------------------------------------------------------


class Adapted(torch.nn.Module):
    """A linear layer plus low-rank terms. groups: [(first output, number of outputs, [(A, B), ...])]. scale: the layer
    scale that follows the layer; the library folds it into W and b, so that it does not act on the terms."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.groups, self.scale = linear, [], None

    def forward(self, h):
        y = self.linear(h)
        parts = [torch.zeros_like(y)]
        for first, count, pairs in self.groups:
            delta = sum(h @ a.T @ b.T for a, b in pairs)
            parts.append(F.pad(delta, (first, y.shape[-1] - first - count)))
        total = sum(parts)
        return y + (total if self.scale is None else total / self.scale)


def wrap_timm(model):
    """(block, projection) -> (Adapted layer, first output, number of outputs)"""
    sites = {}
    for i, block in enumerate(model.blocks):
        block.attn.qkv, block.attn.proj = Adapted(block.attn.qkv), Adapted(block.attn.proj)
        block.mlp.fc1, block.mlp.fc2 = Adapted(block.mlp.fc1), Adapted(block.mlp.fc2)
        if hasattr(block.ls1, "gamma"):
            block.attn.proj.scale, block.mlp.fc2.scale = block.ls1.gamma, block.ls2.gamma
        for k, projection in enumerate((QUERY, KEY, VALUE)):
            sites[i, projection] = (block.attn.qkv, k * model.embed_dim, model.embed_dim)
        for layer, projection in ((block.attn.proj, OUTPUT), (block.mlp.fc1, FC1), (block.mlp.fc2, FC2)):
            sites[i, projection] = (layer, 0, layer.linear.out_features)
    return sites


def wrap_dinov2(model):
    """Keys and values alone: the projections that the DINOv2 fixture adapts."""
    sites = {}
    for i, layer in enumerate(model.encoder.layer):
        attention = layer.attention
        attention.k_proj, attention.v_proj = Adapted(attention.k_proj), Adapted(attention.v_proj)
        for layer, projection in ((attention.k_proj, KEY), (attention.v_proj, VALUE)):
            sites[i, projection] = (layer, 0, layer.linear.out_features)
    return sites


def gradient_fixture(name, run, layers, x, chosen, rank, seed):
    """run(x) -> features [n, dim]; chosen: [(block, projection)]. Both pairs of every site are random and small, so that all
    of a layer's gradients differ from zero."""
    generator = torch.Generator().manual_seed(seed)
    arrays = {"images": x, "sites": np.array(chosen)}
    with torch.no_grad():
        arrays["plain"] = run(x)
    factors = {}
    for i, site in enumerate(chosen):
        layer, first, outputs = layers[site]
        inputs = layer.linear.in_features
        pairs = []
        for kind in ("orthogonal", "residual"):
            # float32 values, because that is what the library is given.
            a = (torch.randn(rank, inputs, generator=generator) / inputs**0.5).double().requires_grad_()
            b = (torch.randn(outputs, rank, generator=generator) * 0.1).double().requires_grad_()
            pairs.append((a, b))
            factors[f"{i}.{kind}.a"], factors[f"{i}.{kind}.b"] = a, b
        layer.groups.append((first, outputs, pairs))
    features = run(x)
    dz = torch.randn(features.shape, generator=generator).double()
    (features * dz).sum().backward()
    arrays.update(features=features, feature_gradients=dz)
    for key, value in factors.items():
        arrays[key] = value
        arrays["grad." + key] = value.grad
    assert (features - arrays["plain"]).abs().max() > 1e-2 and all(v.grad.abs().max() > 1e-5 for v in factors.values())
    write_bin(name, arrays)
    for layer, _, _ in layers.values():
        layer.groups = []


# ---- models -----------------------------------------------------------------------------------------------------------


def load_tensors(path):
    with safe_open(path, "pt") as f:
        return {k: f.get_tensor(k).double() for k in f.keys()}


def timm_features(model):
    return lambda x: model.forward_features(x)[:, 0]


def hf_features(model):
    return lambda x: model(pixel_values=x).last_hidden_state[:, 0]


def saved_tensors(model):
    """As save_pretrained names them, which is not always as the modules are called."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_tensors(os.path.join(folder, "model.safetensors"))


def randomise(model, seed):
    """Every parameter away from its initial value, so that a tensor read into the wrong place shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1 and "token" not in name and "pos" not in name:
                p.copy_(noise * 1.5 / p[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif "ls" in name or "lambda" in name:
                p.copy_(0.7 + 0.2 * noise)
            else:
                p.copy_(0.3 * noise)
    return model.eval()


def tiny_timm(seed, size=16, dtype=torch.float32, layer_scale=None):
    model = randomise(VisionTransformer(img_size=size, patch_size=4, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2,
                                        num_classes=5, init_values=layer_scale), seed)
    return model.to(dtype)


def save_model(name, tensors, dtype, metadata=None):
    """metadata None: what torch users' files have, which names no geometry."""
    path = os.path.join(HERE, name + ".safetensors")
    save_file({k: v.detach().to(dtype).contiguous() for k, v in tensors.items()}, path,
              metadata={"format": "pt", **(metadata or {})})
    os.chmod(path, 0o644)


TINY_METADATA = {"num_heads": "2", "layer_norm_eps": "1e-6", "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}


def tiny_models(images):
    x = normalise(images, 16, *IMAGENET)
    arrays = {"u8": images, "f32": x}

    def add(name, model, run):
        with torch.no_grad():
            arrays[name] = run(model.double())(x)

    for name, dtype in (("tiny_timm_f32", torch.float32), ("tiny_timm_f16", torch.float16),
                        ("tiny_timm_bf16", torch.bfloat16)):
        model = tiny_timm(1).to(dtype)
        save_model(name, model.state_dict(), dtype, TINY_METADATA)
        add(name, model, timm_features)

    model = tiny_timm(2, layer_scale=1.0)
    assert "blocks.0.ls1.gamma" in model.state_dict()
    save_model("tiny_timm_layer_scale_f32", model.state_dict(), torch.float32, TINY_METADATA)
    add("tiny_timm_layer_scale_f32", model, timm_features)

    common = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4,
                  hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    # The default layer_norm_eps of Hugging Face's ViT is 1e-12; the tests give it as an option.
    vit = transformers.ViTConfig(**common, intermediate_size=64, num_labels=5)
    model = randomise(transformers.ViTForImageClassification(vit), 3)
    tensors = saved_tensors(model)
    assert "vit.encoder.layer.0.attention.attention.query.weight" in tensors and "classifier.weight" in tensors
    save_model("tiny_hf_vit_f32", tensors, torch.float32)
    add("tiny_hf_vit_f32", model.vit, hf_features)

    model = randomise(transformers.ViTModel(vit, add_pooling_layer=True), 4).half()
    tensors = saved_tensors(model)
    assert "encoder.layer.0.attention.attention.query.weight" in tensors and "pooler.dense.weight" in tensors
    save_model("tiny_hf_bare_f16", tensors, torch.float16)
    add("tiny_hf_bare_f16", model, hf_features)

    model = randomise(transformers.ViTModel(vit, add_pooling_layer=False), 5).bfloat16()
    save_model("tiny_hf_deit_bf16", {"deit." + k: v for k, v in saved_tensors(model).items()}, torch.bfloat16)
    add("tiny_hf_deit_bf16", model, hf_features)

    dinov2 = transformers.Dinov2Config(**common, mlp_ratio=2)
    model = randomise(transformers.Dinov2Model(dinov2), 6)
    tensors = saved_tensors(model)
    assert "encoder.layer.0.layer_scale1.lambda1" in tensors and "embeddings.mask_token" in tensors
    save_model("tiny_hf_dinov2_f32", tensors, torch.float32,
               {"num_attention_heads": "2", "mean": "0.485 0.456 0.406", "std": "0.229 0.224 0.225"})
    add("tiny_hf_dinov2_f32", model, hf_features)

    # The timm F32 model at 24 px, and fed with images of another size.
    model = tiny_timm(1).double()
    larger = tiny_timm(1, 24).double()
    tensors = model.state_dict()
    tensors["pos_embed"] = resample(tensors["pos_embed"], 6)
    assert torch.allclose(tensors["pos_embed"], resample_abs_pos_embed(model.pos_embed, (6, 6)), atol=1e-5)  # it works in float32
    larger.load_state_dict(tensors)
    big = make_images(2, 24, 24, 11)
    odd = make_images(2, 39, 28, 12)
    small = make_images(2, 9, 13, 13)
    with torch.no_grad():
        arrays["u8_24"] = big
        arrays["features_24"] = timm_features(larger)(normalise(big, 24, *IMAGENET))
        for name, pictures in (("odd", odd), ("small", small)):
            arrays["u8_" + name] = pictures
            arrays["features_" + name] = timm_features(model)(normalise(pictures, 16, *IMAGENET))
    write_bin("tiny_models.bin", arrays)


def tiny_gradients(images):
    x = normalise(images, 16, *IMAGENET)
    for name, seed, layer_scale in (("tiny_timm_gradients.bin", 1, None), ("tiny_layer_scale_gradients.bin", 2, 1.0)):
        model = tiny_timm(seed, layer_scale=layer_scale).double()
        chosen = [(block, projection) for block in range(2) for projection in ALL_SITES]
        gradient_fixture(name, timm_features(model), wrap_timm(model), x, chosen, 3, 21)


def real_vit(images):
    tensors = load_tensors(os.path.join(ROOT, "examples", "backbones", "vit_192x6_patch4_32.safetensors"))
    model = VisionTransformer(img_size=32, patch_size=4, embed_dim=192, depth=6, num_heads=3, num_classes=160).double()
    model.load_state_dict(tensors)
    model.eval()
    x = normalise(images, 32, *HALF)
    run = timm_features(model)
    with torch.no_grad():
        write_bin("vit_192x6.bin", {"u8": images, "f32": x, "features": run(x)})
    layers = wrap_timm(model)
    upper = [(block, projection) for block in (3, 4, 5) for projection in (KEY, VALUE)]
    gradient_fixture("vit_192x6_gradients.bin", run, layers, x, upper, 4, 22)
    everywhere = [(block, projection) for block in range(6) for projection in ALL_SITES]
    gradient_fixture("vit_192x6_gradients_all.bin", run, layers, x[:2], everywhere, 2, 23)


def dinov2_small(tensors, size):
    config = transformers.Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, mlp_ratio=4,
                                       image_size=size, patch_size=14)
    with tempfile.TemporaryDirectory() as folder:  # from_pretrained knows how the file's names map to modules
        config.save_pretrained(folder)
        save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"),
                  metadata={"format": "pt"})
        model, report = transformers.Dinov2Model.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def real_dinov2(path):
    tensors = load_tensors(path)
    tensors["embeddings.mask_token"] = torch.zeros(1, 384).double()
    own = dinov2_small(tensors, 518)  # which resamples to 84 pixels in its forward pass
    tensors["embeddings.position_embeddings"] = resample(tensors["embeddings.position_embeddings"], 6)
    model = dinov2_small(tensors, 84)
    images = make_images(2, 84, 84, 31)
    x = normalise(images, 84, *IMAGENET)
    with torch.no_grad():
        write_bin("dinov2_small_84.bin", {"u8": images, "features": hf_features(model)(x),
                                          "features_hugging_face": hf_features(own)(x)})
    chosen = [(block, projection) for block in range(6, 12) for projection in (KEY, VALUE)]
    gradient_fixture("dinov2_small_84_gradients.bin", hf_features(model), wrap_dinov2(model), x, chosen, 4, 24)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dinov2", default=os.path.join(ROOT, "..", "shared", "weights", "dinov2_small_focus.safetensors"),
                        help="DINOv2-S weights; without the file its fixtures stay as they are")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float32)
    tiny = make_images(3, 16, 16, 1)
    tiny_models(tiny)
    tiny_gradients(tiny)
    real_vit(make_images(4, 32, 32, 2))
    if os.path.exists(options.dinov2):
        real_dinov2(options.dinov2)


if __name__ == "__main__":
    main()
