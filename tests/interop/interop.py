# SPDX-License-Identifier: Apache-2.0
"""Exported LoRAs and backbones in timm, transformers and PEFT: features and decisions against the library's.

    python3 tests/interop/interop.py LIBRARY COMMAND [NAME]      only models whose name begins so

Exit code 77: a package is missing.

Makes a small random model of each naming, learns photos of stripes on it with the command, exports by the library, and
opens the exports. Packages by name from PyPI: torch timm transformers peft safetensors pillow numpy.
"""
import copy
import ctypes
import json
import os
import struct
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import peft
    import safetensors.torch
    import timm
    import torch
    import transformers
    from PIL import Image
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

LIBRARY, COMMAND = sys.argv[1:3]
WANTED = (sys.argv[3:] or [""])[0]
SIDE, DIM, DEPTH, HEADS = 32, 48, 3, 3
ADAPTER = 104  # offset of `adapter` in dlora_model_options
TOLERANCE = 1e-4
EVERY_SITE = "query,key,value,output,fc1,fc2"
library = ctypes.CDLL(LIBRARY)
library.dlora_last_error.restype = ctypes.c_char_p
library.dlora_learner_get_bank.restype = ctypes.c_void_p


class Images(ctypes.Structure):
    _fields_ = [("u8", ctypes.c_void_p), ("f32", ctypes.c_void_p), ("count", ctypes.c_size_t),
                ("height", ctypes.c_size_t), ("width", ctypes.c_size_t), ("channels", ctypes.c_size_t)]


def call(name, *arguments):
    if getattr(library, name)(*arguments) != 0:
        raise RuntimeError(f"{name}: {library.dlora_last_error().decode()}")


def stir(model):
    """Values in every parameter that none of them is without effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (1.2 / max(parameter[0].numel(), 1) ** 0.5))
            elif "gamma" in name or "lambda" in name:
                parameter.copy_(0.5 + 0.3 * noise.abs())
            else:
                parameter.add_(0.1 * noise)
    return model.eval()


def timm_model(**changes):
    return stir(timm.create_model("vit_base_patch16_224", img_size=SIDE, patch_size=8, embed_dim=DIM, depth=DEPTH,
                                  num_heads=HEADS, num_classes=0, **changes))


def hugging_face(config, model, **changes):
    return stir(model(config(hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=HEADS, mlp_ratio=4,
                             intermediate_size=4 * DIM, image_size=SIDE, patch_size=8,
                             layer_norm_eps=1e-6 if config in (transformers.ViTConfig, transformers.Dinov2Config)
                             else 1e-5, **changes),
                      **({"add_pooling_layer": False} if model is transformers.ViTModel else {})))


def is_pooled(model):
    """CLIP norms the class token only on the way to the pooled output."""
    return "CLIP" in type(model).__name__


def class_token(model, pixels):
    with torch.no_grad():
        if hasattr(model, "forward_features"):
            return model.forward_features(pixels)[:, 0].numpy()
        out = model(pixel_values=pixels)
        return (out.pooler_output if is_pooled(model) else out.last_hidden_state[:, 0]).numpy()


def photos(folder):
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for label in range(4):
            os.makedirs(f"{folder}/{part}/class{label}", exist_ok=True)
            for n in range(count):
                stripes = 60 + 140 * (((np.arange(SIDE) + generator.integers(8)) // 4) % 2)
                image = np.broadcast_to(stripes[:, None] if label % 2 else stripes[None], (SIDE, SIDE))
                image = np.stack([image // (1 if c == label % 3 else 3) for c in range(3)], -1)
                image = (image + generator.integers(0, 50, image.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(image).save(f"{folder}/{part}/class{label}/{n}.png")


def load(backbone, adapter=None):
    """A model of the library; adapter: a folder of PEFT."""
    handle, options = ctypes.c_void_p(), (ctypes.c_char * 1024)()
    call("dlora_model_options_init", options, ctypes.c_size_t(struct_size()))
    struct.pack_into("NN", options, 16, HEADS, SIDE)  # num_heads and image_size: behind struct_size and allocator
    text = ctypes.c_char_p(adapter.encode() if adapter else None)
    ctypes.memmove(ctypes.addressof(options) + ADAPTER, ctypes.byref(text), 8)
    call("dlora_model_load", ctypes.byref(handle), backbone.encode(), options)
    return handle


def check_adapter(name, model, backbone, folder, pixels):
    """A LoRA that PEFT made, of two ranks and with the scale of rsLoRA, merged by the library."""
    targets = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and any(c.isdigit() for c in n)]
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, lora_alpha=7, use_rslora=True, target_modules=targets,
                             rank_pattern={targets[0]: 2}, init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    adapted.save_pretrained(f"{folder}/made")
    handle = load(backbone, f"{folder}/made")
    found = np.zeros((len(pixels), DIM), np.float32)
    images = Images(None, pixels.ctypes.data, len(pixels), SIDE, SIDE, 3)
    call("dlora_model_embed", handle, ctypes.byref(images), found.ctypes.data_as(ctypes.c_void_p))
    library.dlora_model_destroy(handle)
    expected = class_token(adapted.base_model.model, torch.from_numpy(pixels))
    off = np.abs(found - expected).max() / np.abs(expected).max()
    print(f"{name:24s}{'LoRA of PEFT, opened':28s}{off:10.1e}", flush=True)
    if not off < TOLERANCE:
        raise SystemExit(f"{name}, LoRA of PEFT: differs by {off}")


def test(name, model, folder):
    backbone, checkpoint = f"{folder}/backbone.safetensors", f"{folder}/checkpoint"
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    if hasattr(model, "save_pretrained") and not hasattr(model, "forward_features"):
        model.save_pretrained(f"{folder}/saved")
        backbone = f"{folder}/saved/model.safetensors"
    else:
        safetensors.torch.save_file(tensors, backbone)
    photos(f"{folder}/photos")
    subprocess.run([COMMAND, "learn", "--backbone", backbone, "--num-heads", str(HEADS), "--image-size", str(SIDE),
                    "--train", f"{folder}/photos/train", "--tasks", "2", "--out", checkpoint, "--sites", EVERY_SITE,
                    "--first-block", "0", "--feature-layers", "final", "--residual-merge-fraction", "0.5", "--quiet"],
                   check=True)

    handle, learner, session = load(backbone), ctypes.c_void_p(), ctypes.c_void_p()
    call("dlora_learner_load", ctypes.byref(learner), handle, checkpoint.encode(), None)
    bank = ctypes.c_void_p(library.dlora_learner_get_bank(learner))
    call("dlora_session_create", ctypes.byref(session), handle, bank, None)
    pixels = np.random.default_rng(2).normal(0, 0.5, (6, 3, SIDE, SIDE)).astype(np.float32)

    def features(terms, routing=None):
        out = np.zeros((len(pixels), DIM), np.float32)
        images = Images(None, pixels.ctypes.data, len(pixels), SIDE, SIDE, 3)
        call("dlora_session_forward", session, ctypes.byref(images), ctypes.c_int32(terms),
             None if routing is None else routing.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
        return out

    def check(what, found, expected):
        scale = np.abs(expected).max()
        off = np.abs(found - expected).max() / scale
        print(f"{name:24s}{what:28s}{off:10.1e}", flush=True)
        if not off < TOLERANCE:
            raise SystemExit(f"{name}, {what}: differs by {off}")

    check_adapter(name, model, backbone, folder, pixels)
    untouched, merged = features(0), features(1)
    routing = np.zeros((len(pixels), 2), np.float32)
    routing[:, 1] = 1
    routed = features(0, routing)
    inputs = torch.from_numpy(pixels)
    check("untouched", class_token(model, inputs), untouched)
    if min(np.abs(merged - untouched).max(), np.abs(routed - untouched).max()) < 0.01:
        raise SystemExit(f"{name}: nothing was learnt that could differ")
    for task, expected in ((-1, merged), (1, routed)):
        call("dlora_learner_export_peft", learner, f"{folder}/peft{task}".encode(), ctypes.c_int64(task))
        adapted = peft.PeftModel.from_pretrained(copy.deepcopy(model), f"{folder}/peft{task}")
        check(f"LoRA of {'M' if task < 0 else f'task {task}'}", class_token(adapted.base_model.model, inputs), expected)

    if library.dlora_learner_export_backbone(learner, f"{folder}/merged".encode()) != 0:
        print(f"{name:24s}merged: refused, {library.dlora_last_error().decode()}")
        return
    weights = safetensors.torch.load_file(f"{folder}/merged/model.safetensors")
    head = "head" if "head.weight" in weights else "classifier"
    expected = merged @ weights[f"{head}.weight"].numpy()[:, :DIM].T + weights[f"{head}.bias"].numpy()
    if head == "head":
        opened = timm.create_model(f"local-dir:{folder}/merged", pretrained=True).eval()
        check("merged", class_token(opened, inputs), merged)
        with torch.no_grad():
            check("merged: logits", opened(inputs).numpy(), expected)
    else:
        opened, loading = transformers.AutoModelForImageClassification.from_pretrained(f"{folder}/merged",
                                                                                       output_loading_info=True)
        if loading["missing_keys"] or loading["mismatched_keys"]:
            raise SystemExit(f"{name}: {loading}")
        with torch.no_grad():
            check("merged: logits", opened.eval()(pixel_values=inputs).logits.numpy(), expected)
        with open(f"{folder}/merged/config.json", encoding="utf-8") as file:
            labels = list(json.load(file)["id2label"].values())
        if sorted(labels) != [f"class{n}" for n in range(4)]:
            raise SystemExit(f"{name}: the labels are {labels}")
    library.dlora_session_destroy(session)
    library.dlora_learner_destroy(learner)
    library.dlora_model_destroy(handle)


def struct_size():
    """The library fills as much as it knows of a longer struct only; half a kilobyte is longer than any it has."""
    return 512


def made():
    yield "timm", timm_model()
    yield "timm, layer scales", timm_model(init_values=0.5)
    yield "timm, DeiT III", timm_model(init_values=0.5, no_embed_class=True)
    yield "timm, registers", timm_model(reg_tokens=2, no_embed_class=True)
    yield "timm, SwiGLU", timm_model(mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU)
    yield "ViT", hugging_face(transformers.ViTConfig, transformers.ViTModel)
    yield "DINOv2", hugging_face(transformers.Dinov2Config, transformers.Dinov2Model)
    yield "DINOv2, SwiGLU", hugging_face(transformers.Dinov2Config, transformers.Dinov2Model, use_swiglu_ffn=True)
    yield "DINOv3", hugging_face(transformers.DINOv3ViTConfig, transformers.DINOv3ViTModel)
    yield "DINOv3, gated", hugging_face(transformers.DINOv3ViTConfig, transformers.DINOv3ViTModel, use_gated_mlp=True,
                                        hidden_act="silu")
    yield "CLIP", hugging_face(transformers.CLIPVisionConfig, transformers.CLIPVisionModel)


for label, one in made():
    if not label.startswith(WANTED):
        continue
    with tempfile.TemporaryDirectory() as scratch:
        test(label, one, scratch)
