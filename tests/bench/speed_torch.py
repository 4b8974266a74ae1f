#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's part of the speed bench: the same adapted Vision Transformer, written as well as eager mode allows.

    speed_torch.py WEIGHTS PRECISION IMAGE_SIZE THREADS         a worker, see speed.c

PRECISION: float32; bfloat16: torch.autocast over float32 weights, which casts frozen weights anew in every step;
bfloat16-weights: the same over frozen matrices that were stored in bfloat16 once.

Attention is scaled_dot_product_attention; the lower half of the blocks runs without autograd; frozen weights need no
gradient; both adapter branches of key and value are one pair of products, their fixed A being shared. As in timm, the
last block serves every token and not the class token alone. No image is scaled, normalised or copied within a step.
"""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np
import torch
import torch.nn.functional as F

import speed_peer
import speed_vit

if not hasattr(torch.backends, "cpu"):
    raise ModuleNotFoundError(f"PyTorch {torch.__version__} is too old, 2.1 is needed")

CLASSES = 5


class Block(torch.nn.Module):
    def __init__(self, vit, index, adapted):
        super().__init__()
        self.heads, self.eps, self.dim = vit.heads, vit.eps, vit.dim
        for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            for kind in ("weight", "bias"):
                value = torch.from_numpy(vit.tensors[f"blocks.{index}.{name}.{kind}"])
                self.register_buffer(f"{name.split('.')[-1]}_{kind}", value)
        self.register_buffer("a", None)
        self.b = None
        if adapted:
            directions, _ = np.linalg.qr(np.random.default_rng(index).normal(size=(vit.dim, speed_vit.RANK)))
            self.a = torch.from_numpy(np.ascontiguousarray(directions.T, np.float32))
            self.b = torch.nn.Parameter(torch.zeros(2 * vit.dim, speed_vit.RANK))

    def forward(self, x):
        n, tokens, dim = x.shape
        h = F.layer_norm(x, (dim,), self.norm1_weight, self.norm1_bias, self.eps)
        qkv = F.linear(h, self.qkv_weight, self.qkv_bias)
        if self.b is None:
            q, k, v = qkv.view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            change = F.linear(F.linear(h, self.a), self.b)
            q = qkv[..., :dim].view(n, tokens, self.heads, -1).transpose(1, 2)
            k, v = (qkv[..., dim:] + change).view(n, tokens, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, dim)
        x = x + F.linear(o, self.proj_weight, self.proj_bias)
        h = F.layer_norm(x, (dim,), self.norm2_weight, self.norm2_bias, self.eps)
        return x + F.linear(F.gelu(F.linear(h, self.fc1_weight, self.fc1_bias)), self.fc2_weight, self.fc2_bias)


class Network(torch.nn.Module):
    def __init__(self, vit, adapted):
        super().__init__()
        self.vit, self.adapted = vit, adapted
        for name in ("patch_embed.proj.weight", "patch_embed.proj.bias", "cls_token", "pos_embed", "norm.weight",
                     "norm.bias"):
            self.register_buffer(name.replace(".", "_"), torch.from_numpy(vit.tensors[name]))
        self.blocks = torch.nn.ModuleList(Block(vit, i, adapted and i >= vit.first) for i in range(vit.depth))
        self.head = torch.nn.Linear(vit.dim, CLASSES)

    def forward(self, images):
        vit = self.vit
        with torch.no_grad():
            x = F.conv2d(images, self.patch_embed_proj_weight, self.patch_embed_proj_bias, stride=vit.patch)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + self.pos_embed
            for block in self.blocks[:vit.first]:
                x = block(x)
        for block in self.blocks[vit.first:]:
            x = block(x)
        return F.layer_norm(x[:, 0].float(), (vit.dim,), self.norm_weight, self.norm_bias, vit.eps)


class Program:
    def __init__(self, weights, precision, image_size, threads):
        torch.set_num_threads(threads)
        self.vit, self.precision = speed_vit.Vit(weights, image_size), precision
        if precision not in ("float32", "bfloat16", "bfloat16-weights"):
            raise ValueError(f"precision is float32, bfloat16 or bfloat16-weights, not {precision}")
        self.networks = {}

    def version(self):
        return f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"

    def precise(self):
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def network(self, adapted):
        if adapted not in self.networks:
            network = Network(self.vit, adapted)
            if self.precision == "bfloat16-weights":
                for module in network.modules():
                    for name, value in module.named_buffers(recurse=False):
                        if value is not None and value.ndim == 2:
                            setattr(module, name, value.to(torch.bfloat16))
            self.networks[adapted] = network
        return self.networks[adapted]

    def open(self, kind, batch):
        images = torch.from_numpy(self.vit.images(batch))
        network = self.network(kind == "train")
        if kind == "infer":

            def infer():
                with torch.inference_mode(), self.precise():
                    network(images)

            return infer
        if kind != "train":
            raise ValueError(f"PyTorch has no case '{kind}'")
        labels = torch.arange(batch) % CLASSES
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-3)

        def train():
            with self.precise():
                logits = network.head(network(images))
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()

        return train

    def check(self, source, target):
        data = speed_vit.CheckInput(self.vit, source)
        images = torch.from_numpy(data.images.copy())
        with torch.no_grad(), self.precise():
            plain = self.network(False)(images)
        network = Network(self.vit, True)
        for block, a, b in zip(network.blocks[self.vit.first:], data.a, data.b):
            block.a = torch.from_numpy(a.copy())
            block.b.data.copy_(torch.from_numpy(b.copy()))
        with self.precise():
            features = network(images)
        (features * torch.from_numpy(data.gradients.copy())).sum().backward()
        with open(target, "wb") as f:
            for values in [plain, features.detach(), *(block.b.grad for block in network.blocks[self.vit.first:])]:
                f.write(values.float().numpy().astype("<f4").tobytes())


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.exit(speed_peer.serve(lambda: Program(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
