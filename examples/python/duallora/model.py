# SPDX-License-Identifier: Apache-2.0
"""Model: a frozen Vision Transformer."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _abi
from ._arrays import FloatArray, path_bytes
from ._handle import Handle, library, make
from ._images import open_images, struct_of
from ._library import sized
from ._options import struct_options

_CHUNK = 256


def model_options(options: Mapping[str, Any]) -> Any:
    """dlora_model_options from keywords."""
    struct = _abi.dlora_model_options()
    library.model_options_init(ctypes.byref(struct), ctypes.sizeof(struct))
    return struct_options(struct, options, "a model")


class Model(Handle):
    """A frozen Vision Transformer. Its weights never change; a Learner adds what is learned.

    Many threads may use one model, and many learners share it. Images, wherever a method takes them, are

    - a uint8 array [n, height, width, 3], or [n, height, width] in gray, of any size,
    - a float32 array [n, 3, image_size, image_size], normalised by the model's mean and std,
    - a torch tensor of either kind ([n, 3, height, width]),
    - a list of arrays of different sizes, PIL images or paths,
    - a torch Dataset or DataLoader, or an iterator.
    """

    _name = "model"
    _origin: tuple[str | None, bytes | None, dict[str, Any]]  # path, bytes, options

    def __init__(self) -> None:
        raise TypeError("use Model.load, Model.from_pretrained, Model.from_timm or Model.from_torch")

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Model:
        """Loads a backbone from a safetensors file, or from a folder as hubs ship it.

        options: members of dlora_model_options, by name; words stand for values of enums.
            num_heads, image_size, layer_norm_eps, mean, std, prefix, crop_fraction: as in the file if not given
            products: "blas", "packed" or "bfloat16"
            threads: of embed; default all processors
            pool, activation, position_resampling, resize, interpolation: see the enums of these names
            adapter: folder of a LoRA of PEFT to merge into the weights
        """
        model = cls.__new__(cls)
        struct, encoded = model_options(options), path_bytes(path)
        model._origin = (os.fspath(path), None, dict(options))
        model._own(make(library.model_load, encoded, ctypes.byref(struct)), library.model_destroy)
        return model

    @classmethod
    def from_bytes(cls, data: bytes, **options: Any) -> Model:
        """Loads a backbone from the bytes of a safetensors file. options: as for load."""
        model = cls.__new__(cls)
        struct = model_options(options)
        kept = bytes(data)
        model._origin = (None, kept, dict(options))
        address = ctypes.cast(ctypes.c_char_p(kept), ctypes.c_void_p)

        def destroy(pointer: int, keep: Any = kept) -> None:  # the library reads the bytes until then
            library.model_destroy(pointer)

        model._own(make(library.model_load_memory, address, len(kept), ctypes.byref(struct)), destroy)
        return model

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, cache_dir: str | os.PathLike[str] | None = None,
                        local_files_only: bool = False, **options: Any) -> Model:
        """Loads a backbone of the Hugging Face hub, as "facebook/dinov2-small", or of a local folder.

        Needs huggingface_hub, which downloads to its cache; with local_files_only nothing is downloaded.
        options: as for load.
        """
        from ._hub import pretrained_folder
        return cls.load(pretrained_folder(name, revision, cache_dir, local_files_only), **options)

    @classmethod
    def from_timm(cls, model: Any, **options: Any) -> Model:
        """Takes the weights, geometry and preprocessing of a timm Vision Transformer, through memory.

        model: a torch.nn.Module made by timm.create_model. options: as for load; they override the model's.
        """
        from ._hub import timm_config, timm_options
        return cls.from_torch(model.state_dict(), timm_config(model), **{**timm_options(model), **options})

    @classmethod
    def from_torch(cls, state_dict: Mapping[str, Any], config: Mapping[str, Any] | None = None, **options: Any) -> Model:
        """Takes weights with names of timm or Hugging Face, through memory.

        state_dict: name -> torch tensor or array, float32, float16 or bfloat16.
        config: num_heads (or num_attention_heads), image_size, layer_norm_eps, hidden_act, global_pool, mean, std. No
        config of transformers: save_pretrained writes a folder, of which load checks every attribute.
        options: as for load; they override config.
        """
        from ._hub import check_config, safetensors_bytes
        return cls.from_bytes(safetensors_bytes(state_dict, check_config(config)), **options)

    @property
    def info(self) -> _abi.ModelInfo:
        """Geometry, normalisation and fingerprint."""
        struct = sized(_abi.dlora_model_info)
        with self._shared as pointer:
            library.model_get_info(pointer, ctypes.byref(struct))
        return _abi.ModelInfo._of(struct)

    @property
    def settings(self) -> list[_abi.ModelSetting]:
        """What shapes do not tell, as the number of heads or the activation, and who said it."""
        found = []
        with self._shared as pointer:
            for index in range(library.model_num_settings(pointer)):
                struct = sized(_abi.dlora_model_setting)
                library.model_get_setting(pointer, index, ctypes.byref(struct))
                found.append(_abi.ModelSetting._of(struct))
        return found

    def embed(self, images: Any) -> FloatArray:
        """Computes features of images: float32 [n, embed_dim]."""
        opened = open_images(images)
        features = np.empty((len(opened), self.info.embed_dim), np.float32)
        for places, array in opened.batches(_CHUNK):
            part = np.empty((len(array), features.shape[1]), np.float32)
            with self._shared as pointer:
                library.model_embed(pointer, ctypes.byref(struct_of(array)), part.ctypes.data)
            features[places] = part
        return features

    def __repr__(self) -> str:
        if self.closed:
            return "<duallora.Model, closed>"
        info = self.info
        return (f"<duallora.Model: {info.depth} blocks of width {info.embed_dim}, patches of {info.patch_size}, "
                f"images of {info.image_size}, fingerprint {info.fingerprint[:8]}>")

    def __reduce__(self) -> Any:
        """Pickles where it came from: the path, or the bytes if it was made in memory. It loads again."""
        path, data, options = self._origin
        return _reloaded, (path, data, options)


def _reloaded(path: str | None, data: bytes | None, options: dict[str, Any]) -> Model:
    if data is not None:
        return Model.from_bytes(data, **options)
    assert path is not None
    return Model.load(path, **options)
