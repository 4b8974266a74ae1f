#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's part of the speed bench: inference of the same network, as a graph that its optimizer knows to fuse.

    speed_onnx.py WEIGHTS PRECISION IMAGE_SIZE THREADS          a worker, see speed.c

The graph uses the fused attention of ONNX Runtime's own operator set, LayerNormalization, Gelu and MatMul with Add, which
become its fastest kernels. PRECISION: float32 alone. As everywhere else, the last block serves every token.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import speed_peer
import speed_vit


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator, *inputs, domain="", **attributes):
        self.count += 1
        name = f"v{self.count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"n{self.count}", domain=domain,
                                           **attributes))
        return name

    def linear(self, x, vit, name):
        weight, bias = (vit.tensors[f"{name}.{kind}"] for kind in ("weight", "bias"))
        return self.add("Add", self.add("MatMul", x, self.constant(weight.T)), self.constant(bias))

    def norm(self, x, vit, name):
        gain, bias = (self.constant(vit.tensors[f"{name}.{kind}"]) for kind in ("weight", "bias"))
        return self.add("LayerNormalization", x, gain, bias, axis=-1, epsilon=vit.eps)


def build(vit):
    g = Graph()
    t = vit.tensors
    patches = g.add("Conv", "images", g.constant(t["patch_embed.proj.weight"]), g.constant(t["patch_embed.proj.bias"]),
                    kernel_shape=[vit.patch] * 2, strides=[vit.patch] * 2)
    patches = g.add("Reshape", patches, g.constant(np.array([0, vit.dim, vit.tokens - 1])))
    patches = g.add("Transpose", patches, perm=[0, 2, 1])
    patches = g.add("Add", patches, g.constant(t["pos_embed"][:, 1:]))
    # The class token once for every image: its place in a batch of any size is made of the images' own.
    count = g.add("Slice", g.add("Shape", "images"), g.constant(np.array([0])), g.constant(np.array([1])))
    shape = g.add("Concat", count, g.constant(np.array([1, vit.dim])), axis=0)
    x = g.add("Concat", g.add("Expand", g.constant(t["cls_token"] + t["pos_embed"][:, :1]), shape), patches, axis=1)
    thirds = g.constant(np.array([vit.dim] * 3))
    for i in range(vit.depth):
        block = f"blocks.{i}."
        h = g.linear(g.norm(x, vit, block + "norm1"), vit, block + "attn.qkv")
        parts = [f"{part}{i}" for part in ("query", "key", "value")]
        g.nodes.append(helper.make_node("Split", [h, thirds], parts, name=f"split{i}", axis=-1))
        o = g.add("MultiHeadAttention", *parts, domain="com.microsoft", num_heads=vit.heads)
        x = g.add("Add", x, g.linear(o, vit, block + "attn.proj"))
        h = g.add("Gelu", g.linear(g.norm(x, vit, block + "norm2"), vit, block + "mlp.fc1"))
        x = g.add("Add", x, g.linear(h, vit, block + "mlp.fc2"))
    x = g.norm(g.add("Gather", x, g.constant(np.array(0)), axis=1), vit, "norm")
    size = vit.image_size
    graph = helper.make_graph(
        g.nodes, "vit", [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", vit.dim])], g.constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


class Program:
    def __init__(self, weights, precision, image_size, threads):
        if precision != "float32":
            raise ValueError(f"ONNX Runtime's processor kernels compute in float32, not in {precision}")
        self.vit = speed_vit.Vit(weights, image_size)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(build(self.vit).SerializeToString(), options,
                                                    providers=["CPUExecutionProvider"])

    def version(self):
        return f"ONNX Runtime {onnxruntime.__version__}"

    def features(self, images):
        return self.session.run(None, {"images": images})[0]

    def open(self, kind, batch):
        if kind != "infer":
            raise ValueError(f"ONNX Runtime has no case '{kind}'")
        images = self.vit.images(batch)
        return lambda: self.features(images)

    def check(self, source, target):
        features = self.features(speed_vit.CheckInput(self.vit, source).images)
        with open(target, "wb") as f:
            f.write(features.astype("<f4").tobytes())


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.exit(speed_peer.serve(lambda: Program(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
