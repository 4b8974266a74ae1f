# SPDX-License-Identifier: Apache-2.0
"""Small random models of the classes of Hugging Face transformers, in the names that save_pretrained writes and in those
that the modules have in memory."""

import os
import shutil
import tempfile

import transformers
from safetensors.torch import load_file, save_file

from models import Row, randomise, tensors_of

COMMON = dict(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16)
MLP = dict(intermediate_size=512)
REGISTERS = dict(num_register_tokens=4)
GATED = dict(use_gated_mlp=True, hidden_act="silu")
POSITIONS = dict(use_absolute_position_embeddings=True)
RELATIVE = dict(use_relative_position_bias=True)


def class_token(output):
    return output.last_hidden_state[:, 0]


def mean_of_all(output):
    return output.last_hidden_state.mean(1)


def pooler(output):
    return output.pooler_output


# (family, name of the row, class, configuration, its arguments, attribute of the tower or None, pool, feature)
CLASSES = (
    ("ViT", "ViTModel", "ViTConfig", MLP, None, "CLASS", class_token),
    ("ViT", "ViTForImageClassification", "ViTConfig", MLP, "vit", "CLASS", class_token),
    ("ViT", "ViTMSNModel", "ViTMSNConfig", MLP, None, "CLASS", class_token),
    ("DeiT, distilled", "DeiTModel", "DeiTConfig", MLP, None, "CLASS", class_token),
    ("DeiT, distilled", "DeiTForImageClassificationWithTeacher", "DeiTConfig", MLP, "deit", "CLASS", class_token),
    ("DINOv2", "Dinov2Model", "Dinov2Config", {}, None, "CLASS", class_token),
    ("DINOv2", "Dinov2ForImageClassification", "Dinov2Config", {}, "dinov2", "CLASS", class_token),
    ("DINOv2, SwiGLU", "Dinov2Model", "Dinov2Config", dict(use_swiglu_ffn=True), None, "CLASS", class_token),
    ("DINOv2 with registers", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", {}, None, "CLASS", class_token),
    ("DINOv2 with registers, SwiGLU", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig",
     dict(use_swiglu_ffn=True), None, "CLASS", class_token),
    ("DINOv3", "DINOv3ViTModel", "DINOv3ViTConfig", {**MLP, **REGISTERS}, None, "CLASS", class_token),
    ("DINOv3, SwiGLU", "DINOv3ViTModel", "DINOv3ViTConfig", {**MLP, **REGISTERS, **GATED}, None, "CLASS", class_token),
    ("CLIP", "CLIPVisionModel", "CLIPVisionConfig", MLP, None, "CLASS", pooler),
    ("CLIP", "CLIPVisionModel", "CLIPVisionConfig", {**MLP, "hidden_act": "gelu"}, None, "CLASS", pooler),
    ("CLIP with projection", "CLIPVisionModelWithProjection", "CLIPVisionConfig", MLP, "vision_model", "CLASS", pooler),
    ("CLIP with text", "CLIPModel", "CLIPConfig", dict(vision=MLP), "vision_model", "CLASS", pooler),
    ("SigLIP", "SiglipVisionModel", "SiglipVisionConfig", MLP, None, "ATTENTION", pooler),
    ("SigLIP with text", "SiglipModel", "SiglipConfig", dict(vision=MLP), "vision_model", "ATTENTION", pooler),
    ("I-JEPA", "IJepaModel", "IJepaConfig", MLP, None, "MEAN_PATCHES", mean_of_all),
    ("BEiT", "BeitModel", "BeitConfig", {**MLP, **RELATIVE}, None, "MEAN_PATCHES", pooler),
    ("BEiT, absolute positions", "BeitModel", "BeitConfig", {**MLP, **POSITIONS}, None, "MEAN_PATCHES", pooler),
    ("Data2Vec", "Data2VecVisionModel", "Data2VecVisionConfig", {**MLP, **RELATIVE}, None, "MEAN_PATCHES", pooler),
    ("AIMv2", "Aimv2VisionModel", "Aimv2VisionConfig", {**MLP, "use_head": False}, None, "MEAN_PATCHES", mean_of_all),
    ("AIMv2 with a head", "Aimv2VisionModel", "Aimv2VisionConfig", MLP, None, None, pooler),
)
ACTIVATIONS = {"gelu": "GELU", "quick_gelu": "QUICK_GELU", "gelu_pytorch_tanh": "GELU_TANH", "silu": "SWIGLU"}


def make(kind, config, arguments, seed):
    arguments = dict(arguments)
    if "vision" in arguments:
        text = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50)
        config = getattr(transformers, config)(text_config=text, vision_config={**COMMON, **arguments.pop("vision")},
                                               projection_dim=32)
    else:
        config = getattr(transformers, config)(**{**COMMON, **arguments})
    return randomise(getattr(transformers, kind)(config), seed)


def save_folder(model):
    """As in a hub, with config.json beside the weights."""
    def save(path):
        shutil.rmtree(path, ignore_errors=True)
        model.float().save_pretrained(path)
        model.double()
    return save


def save_pretrained(model):
    """The weights alone."""
    def save(path):
        with tempfile.TemporaryDirectory() as folder:
            model.float().save_pretrained(folder)
            model.double()
            tensors = load_file(os.path.join(folder, "model.safetensors"))
            save_file(tensors, path, metadata={"format": "pt"})
    return save


def rows(index, seed):
    family, kind, config, arguments, tower, pool, feature = CLASSES[index]
    model = make(kind, config, arguments, seed)
    inner = getattr(model, tower) if tower else model
    vision = getattr(model.config, "vision_config", model.config)
    act = getattr(vision, "hidden_act", None)
    swiglu = getattr(vision, "use_swiglu_ffn", False)
    features = {
        "CLASS": lambda m, x: class_token(m(pixel_values=x)),
        "MEAN_TOKENS": lambda m, x: mean_of_all(m(pixel_values=x)),
        "MEAN_PATCHES": lambda m, x: mean_of_all(m(pixel_values=x)),
        pool: lambda m, x: feature(m(pixel_values=x)),
    }
    eps = getattr(vision, "layer_norm_eps", getattr(vision, "rms_norm_eps", None))
    for naming, save in (("folder", save_folder(model)), ("save_pretrained", save_pretrained(model)),
                         ("state_dict", lambda path: save_file(tensors_of(model), path))):
        row = Row(family, kind, naming, inner, vision.num_attention_heads, eps,
                  "SWIGLU" if swiglu else ACTIVATIONS.get(act), pool, features, save)
        row.folder = naming == "folder"
        yield row
