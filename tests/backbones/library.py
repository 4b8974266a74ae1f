# SPDX-License-Identifier: Apache-2.0
"""The library through its public header, by ctypes: the features of a backbone and the gradients of adapters."""

import ctypes

import numpy as np

size_t, pointer, i32, f32 = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int32, ctypes.c_float

AUTO = -1
POOLS = ("CLASS", "MEAN_PATCHES", "MEAN_TOKENS", "DISTILLED", "ATTENTION")
ACTIVATIONS = ("GELU", "GELU_TANH", "QUICK_GELU", "SWIGLU")
NAMINGS = ("timm", "HF ViT", "HF DINOv2", "HF CLIP", "HF SigLIP", "HF DINOv3", "HF AIMv2")
QUERY, KEY, VALUE, OUTPUT, FC1, FC2 = 1, 2, 4, 8, 16, 32
TERM_RESIDUAL = 4


def struct(name, *members):
    return type(name, (ctypes.Structure,), {"_fields_": list(members)})


ModelOptions = struct(
    "ModelOptions", ("struct_size", size_t), ("allocator", pointer), ("num_heads", size_t), ("image_size", size_t),
    ("layer_norm_eps", f32), ("mean", f32 * 3), ("std", f32 * 3), ("products", i32), ("threads", i32), ("reserved", i32),
    ("prefix", ctypes.c_char_p), ("pool", i32), ("activation", i32), ("position_resampling", i32), ("resize", i32),
    ("interpolation", i32), ("crop_fraction", f32),
)
ModelInfo = struct(
    "ModelInfo", ("struct_size", size_t), ("embed_dim", size_t), ("depth", size_t), ("num_heads", size_t),
    ("mlp_dim", size_t), ("patch_size", size_t), ("image_size", size_t), ("num_tokens", size_t),
    ("num_parameters", size_t), ("mean", f32 * 3), ("std", f32 * 3), ("layer_norm_eps", f32), ("naming", i32),
    ("fingerprint", ctypes.c_char * 40), ("products", i32), ("reserved", i32), ("num_prefix_tokens", size_t),
    ("pool", i32), ("activation", i32), ("position_resampling", i32), ("resize", i32), ("interpolation", i32),
    ("crop_fraction", f32),
)
Images = struct(
    "Images", ("u8", pointer), ("f32", pointer), ("count", size_t), ("height", size_t), ("width", size_t),
    ("channels", size_t),
)
Site = struct("Site", ("input_dim", size_t), ("output_dim", size_t), ("block", i32), ("projection", i32))
SessionOptions = struct(
    "SessionOptions", ("struct_size", size_t), ("allocator", pointer), ("max_batch", size_t), ("threads", i32),
    ("training", i32),
)
STATUS_FUNCTIONS = {
    "model_load": [pointer, ctypes.c_char_p, pointer],
    "model_get_info": [pointer, pointer],
    "model_embed": [pointer, pointer, pointer],
    "bank_create": [pointer, pointer, size_t, pointer],
    "bank_begin_task": [pointer],
    "bank_set_residual": [pointer, size_t, pointer, size_t, i32],
    "bank_get_parameters": [pointer, pointer, pointer, pointer],
    "session_create": [pointer, pointer, pointer, pointer],
    "session_forward": [pointer, pointer, i32, pointer, pointer],
    "session_backward": [pointer, pointer, pointer],
}


class Refused(Exception):
    """A call failed; the text is the library's sentence."""


def data(array):
    assert array.flags["C_CONTIGUOUS"] and array.dtype == np.float32
    return array.ctypes.data


def images_of(x):
    """x: float32 [n, 3, size, size], borrowed."""
    return Images(None, data(x), x.shape[0], x.shape[2], x.shape[3], 3)


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.dlora_last_error.restype = ctypes.c_char_p
        self.c.dlora_version.restype = ctypes.c_char_p
        for name, arguments in STATUS_FUNCTIONS.items():
            function = getattr(self.c, "dlora_" + name)
            function.restype, function.argtypes = i32, arguments
        for kind in ("model", "bank", "session"):
            getattr(self.c, f"dlora_{kind}_destroy").argtypes = [pointer]
            getattr(self.c, f"dlora_{kind}_destroy").restype = None

    def call(self, name, *arguments):
        if getattr(self.c, "dlora_" + name)(*arguments):
            raise Refused(self.c.dlora_last_error().decode())

    def load(self, path, settings):
        """settings: members of dlora_model_options that differ from their defaults."""
        return Model(self, path, settings)


class Model:
    def __init__(self, library, path, settings):
        self.library, self.handle = library, pointer()
        options = ModelOptions(
            struct_size=ctypes.sizeof(ModelOptions), threads=1, pool=AUTO, activation=AUTO, position_resampling=AUTO,
            resize=AUTO, interpolation=AUTO, std=(0.5, 0.5, 0.5), mean=(0.5, 0.5, 0.5),
        )
        for name, value in settings.items():
            setattr(options, name, value)
        library.call("model_load", ctypes.byref(self.handle), path.encode(), ctypes.byref(options))
        self.info = ModelInfo(struct_size=ctypes.sizeof(ModelInfo))
        library.call("model_get_info", self.handle, ctypes.byref(self.info))

    def close(self):
        self.library.c.dlora_model_destroy(self.handle)

    def features(self, x):
        out = np.empty((len(x), self.info.embed_dim), np.float32)
        self.library.call("model_embed", self.handle, ctypes.byref(images_of(x)), data(out))
        return out

    def gradients(self, x, adapters, feature_gradients):
        """adapters: [(block, projection, A [rank, in], B [out, rank])], all float32. Returns the adapted features and, of
        sum(features * feature_gradients), the gradients [(of A, of B)]."""
        library, bank, session = self.library, pointer(), pointer()
        sites = (Site * len(adapters))(*[
            Site(a.shape[1], b.shape[0], block, projection) for block, projection, a, b in adapters])
        library.call("bank_create", ctypes.byref(bank), sites, len(sites), None)
        try:
            library.call("bank_begin_task", bank)
            for i, (_, _, a, _) in enumerate(adapters):
                library.call("bank_set_residual", bank, i, data(a), a.shape[0], 1)
            parameters, gradients, count = pointer(), pointer(), size_t()
            library.call("bank_get_parameters", bank, ctypes.byref(parameters), ctypes.byref(gradients),
                         ctypes.byref(count))
            values = np.ctypeslib.as_array(ctypes.cast(parameters, ctypes.POINTER(f32)), (count.value,))
            values[:] = np.concatenate([part.ravel() for _, _, a, b in adapters for part in (b, a)])
            options = SessionOptions(ctypes.sizeof(SessionOptions), None, len(x), 1, 1)
            library.call("session_create", ctypes.byref(session), self.handle, bank, ctypes.byref(options))
            features = np.empty((len(x), self.info.embed_dim), np.float32)
            library.call("session_forward", session, ctypes.byref(images_of(x)), TERM_RESIDUAL, None, data(features))
            library.call("session_backward", session, bank, data(feature_gradients))
            found = np.ctypeslib.as_array(ctypes.cast(gradients, ctypes.POINTER(f32)), (count.value,)).copy()
        finally:
            library.c.dlora_session_destroy(session)
            library.c.dlora_bank_destroy(bank)
        result, at = [], 0
        for _, _, a, b in adapters:
            of_b = found[at:at + b.size].reshape(b.shape)
            of_a = found[at + b.size:at + b.size + a.size].reshape(a.shape)
            at += a.size + b.size
            result.append((of_a, of_b))
        return features, result
