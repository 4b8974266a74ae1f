# SPDX-License-Identifier: Apache-2.0
"""Backbones of the Hugging Face hub, offline: the test makes the hub's cache folder itself."""

import json
import shutil

import duallora
import numpy as np
import pytest
from conftest import backbone_path, pictures

CONFIG = {"model_type": "dinov2", "num_attention_heads": 2, "hidden_act": "gelu", "image_size": 16, "layer_norm_eps": 1e-6}


def snapshot(folder):
    folder.mkdir(parents=True)
    shutil.copy(backbone_path("tiny_hf_dinov2_f32"), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_a_model_of_the_hubs_cache_is_loaded_offline(tmp_path):
    pytest.importorskip("huggingface_hub", reason="no huggingface_hub")
    repository = tmp_path / "models--someone--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    pixels, _ = pictures([1, 2], 2, 1)
    with duallora.Model.from_pretrained("someone/tiny", cache_dir=tmp_path, local_files_only=True) as model:
        expected = duallora.Model.load(backbone_path("tiny_hf_dinov2_f32"), num_heads=2).embed(pixels)
        assert model.info.num_heads == 2 and np.allclose(model.embed(pixels), expected, atol=1e-5)
    with pytest.raises(OSError):
        duallora.Model.from_pretrained("someone/other", cache_dir=tmp_path, local_files_only=True)


def test_a_local_folder_needs_no_hub(tmp_path):
    with duallora.Model.from_pretrained(str(snapshot(tmp_path / "tiny"))) as model:
        assert model.info.embed_dim == 32
    with duallora.Model.load(tmp_path / "tiny") as model:
        assert model.info.depth == 2


def test_without_huggingface_hub_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        duallora.Model.from_pretrained("someone/tiny")
