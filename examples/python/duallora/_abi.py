# SPDX-License-Identifier: Apache-2.0
"""Declarations of the C interface. Generated from include/duallora/duallora.h by tools/generate.py: not to
be edited. Pointers are addresses (c_void_p), but for text (c_char_p)."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
from ctypes import c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any, TypeVar, cast

VERSION = (0, 9, 0)
_Enum = TypeVar("_Enum", bound=enum.IntEnum)


def _member(kind: type[_Enum], value: int) -> _Enum:
    """A value of a newer library that the enum does not have stays a number."""
    try:
        return kind(value)
    except ValueError:
        return cast(_Enum, value)


class Auto(enum.IntEnum):
    """For options that name it: let the library choose."""

    AUTO = -1


class Status(enum.IntEnum):
    """Result of a call.

    OK: The call succeeded. Go on.
    ARGUMENT: An argument is NULL, zero, too large or inconsistent. Correct the call; the sentence names the
        argument.
    NO_MEMORY: The allocator returned NULL. Free memory or lower micro_batch; the handle is intact.
    STRUCT_SIZE: An options struct has an impossible size or sets members this library does not know. Initialise it
        with its _init function, or use a newer library.
    STATE: The call came in the wrong order. Make the call that the sentence names first.
    IO: A file could not be opened, read, written or renamed. See the path and system error in the sentence.
    FORMAT: A file is damaged or of another kind than expected. Replace the file; the sentence names the tensor.
    MISMATCH: Two things do not belong together: checkpoint and backbone, or two dimensions. Use the pair that
        belongs together.
    NOT_FINITE: An input, a loss or a result is NaN or infinite. Check the data, lower the learning rate; the handle
        is as before the call.
    CANCELLED: A callback stopped the call. Nothing: the learner is as it was before the task.
    UNSUPPORTED: The file or option is valid but this library cannot use it. See the sentence.
    NUMERIC: A factorisation did not converge. Check the features for degenerate values.
    """

    OK = 0
    ARGUMENT = 1
    NO_MEMORY = 2
    STRUCT_SIZE = 3
    STATE = 4
    IO = 5
    FORMAT = 6
    MISMATCH = 7
    NOT_FINITE = 8
    CANCELLED = 9
    UNSUPPORTED = 10
    NUMERIC = 11


class Phase(enum.IntEnum):
    """Phases of learning and evaluation.

    OBSERVE: images before training
    TRAIN: optimizer steps
    STATISTICS: images after training
    EVALUATE: dlora_learner_evaluate
    """

    OBSERVE = 0
    TRAIN = 1
    STATISTICS = 2
    EVALUATE = 3


class LogLevel(enum.IntEnum):
    """Levels of log lines."""

    INFO = 0
    WARNING = 1


class Products(enum.IntEnum):
    """Implementations of products with a model's weights. Everything else is float32: norms, attention, adapters,
    statistics. The packed ones keep copies of the weights in the order in which the processor reads them. They need
    oneDNN, which is loaded with the first such model.

    BLAS: float32 by the BLAS: the reference
    PACKED: float32; needs AVX-512
    BFLOAT16: factors rounded to bfloat16, sums in float32; needs AVX512_BF16, uses AMX
    """

    BLAS = 0
    PACKED = 1
    BFLOAT16 = 2


class Pool(enum.IntEnum):
    """What makes the feature [embed_dim] of an image out of the tokens behind the last block.

    CLASS: the class token, after the final norm
    MEAN_PATCHES: the mean of the patch tokens
    MEAN_TOKENS: the mean of all tokens
    DISTILLED: the mean of class and distillation token, after the final norm (DeiT)
    ATTENTION: attention of a learnt query to the patch tokens, and an MLP (SigLIP)
    """

    CLASS = 0
    MEAN_PATCHES = 1
    MEAN_TOKENS = 2
    DISTILLED = 3
    ATTENTION = 4


class Activation(enum.IntEnum):
    """Activations of the MLP in a block. Only SwiGLU is told by the tensors. Of the others the option counts, else the
    file's metadata (hidden_act or activation, in the names of transformers), else the family: quick GELU for CLIP
    in Hugging Face's names, GELU by tanh for SigLIP in these, GELU for all else, as for CLIP and SigLIP in timm's
    names.

    GELU: x Phi(x), exact
    GELU_TANH: GELU by tanh (SigLIP)
    QUICK_GELU: x sigmoid(1.702 x) (OpenAI's CLIP)
    SWIGLU: silu(gate) up, with fc1 = [gate; up], 2 mlp_dim outputs, and fc2 of mlp_dim inputs (DINOv2-g, DINOv3 S+
        and H+)
    """

    GELU = 0
    GELU_TANH = 1
    QUICK_GELU = 2
    SWIGLU = 3


class PositionResampling(enum.IntEnum):
    """How position embeddings are resampled to another grid.

    TIMM: bicubic with a = -0.5 and antialiasing; default for timm's names
    HUGGING_FACE: bicubic with a = -0.75, no antialiasing; default for Hugging Face's names
    """

    TIMM = 0
    HUGGING_FACE = 1


class Resize(enum.IntEnum):
    """How images of bytes are resized, before the centre of image_size pixels a side is cut out.

    SQUASH: both sides to image_size / crop_fraction, whatever the aspect ratio
    CROP: the shorter side to image_size / crop_fraction; the aspect ratio stays
    """

    SQUASH = 0
    CROP = 1


class Interpolation(enum.IntEnum):
    """Kernels of image resizing, both with antialiasing."""

    BICUBIC = 0
    BILINEAR = 1


class Naming(enum.IntEnum):
    """Schemes of tensor names.

    TIMM: timm: ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP, EVA
    HF_VIT: Hugging Face: ViT, DeiT
    HF_DINOV2: Hugging Face: DINOv2, with and without register tokens
    HF_CLIP: Hugging Face: CLIP
    HF_SIGLIP: Hugging Face: SigLIP
    HF_DINOV3: Hugging Face: DINOv3
    HF_AIMV2: Hugging Face: AIMv2
    """

    TIMM = 0
    HF_VIT = 1
    HF_DINOV2 = 2
    HF_CLIP = 3
    HF_SIGLIP = 4
    HF_DINOV3 = 5
    HF_AIMV2 = 6


class Origin(enum.IntEnum):
    """Who said what a setting of a model is.

    OPTION: the caller's options
    METADATA: metadata of the safetensors file
    JSON: config.json or preprocessor_config.json
    TABLE: the library's table of architectures and model types, by a name in config.json
    TENSORS: tensors and their shapes
    DEFAULT: default of the family
    """

    OPTION = 0
    METADATA = 1
    JSON = 2
    TABLE = 3
    TENSORS = 4
    DEFAULT = 5


class Projection(enum.IntFlag):
    """Projections of a block; sites of a ViT.

    QUERY: attention query
    KEY: attention key
    VALUE: attention value
    OUTPUT: attention output projection
    FC1: first layer of the MLP
    FC2: second layer of the MLP
    """

    QUERY = 1
    KEY = 2
    VALUE = 4
    OUTPUT = 8
    FC1 = 16
    FC2 = 32


class Optimizer(enum.IntEnum):
    """Optimizers of trained parameters."""

    ADAM = 0
    SGD = 1


class Terms(enum.IntFlag):
    """Terms of equation (1) that a pass adds; or-ed.

    MERGED: M: merged updates of finished tasks
    ORTHOGONAL: orthogonal pair (A', B') of the open task
    RESIDUAL: residual pair (A_t, B_t) of the open task
    """

    MERGED = 1
    ORTHOGONAL = 2
    RESIDUAL = 4


class Readout(enum.IntEnum):
    """Readouts of scores.

    GAUSSIAN: equation (3): Gaussians with a common covariance
    RANDOM_PROJECTION: ridge regression on a random projection
    """

    GAUSSIAN = 0
    RANDOM_PROJECTION = 1


class Input(enum.IntEnum):
    """Inputs of a block that projections read.

    ATTENTION: of query, key and value: after the first layer norm
    OUTPUT: of the attention output projection
    FC1: of the MLP's first layer: after the second layer norm
    FC2: of the MLP's second layer: after GELU
    """

    ATTENTION = 0
    OUTPUT = 1
    FC1 = 2
    FC2 = 3


class ResidualBasis(enum.IntEnum):
    """\\defgroup group_learner dlora_learner: the whole method Learns task after task, predicts, evaluates, and saves
    all of it in one file. \\{
    """

    IN_NEW = 0
    IN_USED = 1
    RANDOM = 2


class Routing(enum.IntEnum):
    """Values of DLORA_ROUTING_...

    EARLY: task posterior of Gaussians where the first adapted block begins: one pass
    TWO_PASS: task posterior of a first pass without residual adapters: adapted blocks run twice
    ENERGY: per block, by energy in the task's bases
    GIVEN: the caller names the task
    NONE: residual adapters off
    """

    EARLY = 0
    TWO_PASS = 1
    ENERGY = 2
    GIVEN = 3
    NONE = 4


class LossClasses(enum.IntEnum):
    """Values of DLORA_LOSS_CLASSES_..."""

    ALL = 0
    TASK = 1


class ClassScores(enum.IntEnum):
    """Values of DLORA_CLASS_SCORES_..."""

    HEAD = 0
    STATISTICS = 1
    BOTH = 2


class FeatureLayers(enum.IntEnum):
    """Layers whose features statistics are kept on (METHOD.md 7). Each has the backbone's feature. AT_ADAPTER adds the
    input of the first adapted block. AT_MIDDLE adds the input of the middle block, or of the first adapted one if
    that lies higher. FINAL adds nothing.
    """

    AT_ADAPTER = 0
    FINAL = 1
    AT_MIDDLE = 2


class Tokens(enum.IntEnum):
    """Values of DLORA_TOKENS_..."""

    ALL = 0
    CLASS = 1


class Schedule(enum.IntEnum):
    """Values of DLORA_SCHEDULE_..."""

    COSINE = 0
    CONSTANT = 1


class FirstBlock(enum.IntEnum):
    """For dlora_learner_options.first_block: depth / 2. DLORA_AUTO is depth / 4."""

    MIDDLE = -2


class Flip(enum.IntEnum):
    """Where images are mirrored left to right: nowhere, at random in training, or in the statistics as well.
    Statistics are then taken of each image and its mirror image (METHOD.md 7).
    """

    NONE = 0
    TRAINING = 1
    EVERYWHERE = 2


class OptionType(enum.IntEnum):
    """Values of DLORA_OPTION_TYPE_...

    INTEGER: int32_t
    SIZE: size_t
    SEED: uint64_t
    FLOAT: float
    FLAG: int32_t: 0 or 1
    CHOICE: int32_t: index of a word in `choices`, and the value of its enum
    SET: int32_t: 1 << index of each word in `choices`, or-ed
    """

    INTEGER = 0
    SIZE = 1
    SEED = 2
    FLOAT = 3
    FLAG = 4
    CHOICE = 5
    SET = 6


class OptionScope(enum.IntEnum):
    """When an option may change.

    FIXED: never after creation
    TRAINING: between tasks: it decides how the next one is learned
    PREDICTION: between tasks: it decides how images are predicted
    RUN_TIME: between tasks: it decides how the machine is used, not what is computed
    """

    FIXED = 0
    TRAINING = 1
    PREDICTION = 2
    RUN_TIME = 3


class dlora_allocator(ctypes.Structure):
    _fields_ = [
        ("allocate", c_void_p),
        ("release", c_void_p),
        ("user", c_void_p),
    ]


class dlora_images(ctypes.Structure):
    _fields_ = [
        ("u8", c_void_p),
        ("f32", c_void_p),
        ("count", c_size_t),
        ("height", c_size_t),
        ("width", c_size_t),
        ("channels", c_size_t),
    ]


class dlora_image_source(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("read", c_void_p),
        ("user", c_void_p),
        ("count", c_size_t),
        ("labels", c_void_p),
        ("tasks", c_void_p),
    ]


class dlora_progress(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("task", c_int64),
        ("done", c_size_t),
        ("total", c_size_t),
        ("loss", c_double),
        ("images_per_second", c_double),
        ("phase", c_int32),
        ("reserved", c_int32),
    ]


class dlora_profile(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("preprocessing", c_double),
        ("products", c_double),
        ("adapters", c_double),
        ("attention", c_double),
        ("norms", c_double),
        ("activation", c_double),
        ("copies", c_double),
        ("loss", c_double),
        ("optimizer", c_double),
        ("observation", c_double),
        ("directions", c_double),
        ("task_end", c_double),
    ]


class dlora_model_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("allocator", c_void_p),
        ("num_heads", c_size_t),
        ("image_size", c_size_t),
        ("layer_norm_eps", c_float),
        ("mean", c_float * 3),
        ("std", c_float * 3),
        ("products", c_int32),
        ("threads", c_int32),
        ("reserved", c_int32),
        ("prefix", c_char_p),
        ("pool", c_int32),
        ("activation", c_int32),
        ("position_resampling", c_int32),
        ("resize", c_int32),
        ("interpolation", c_int32),
        ("crop_fraction", c_float),
        ("adapter", c_char_p),
    ]


class dlora_model_info(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("embed_dim", c_size_t),
        ("depth", c_size_t),
        ("num_heads", c_size_t),
        ("mlp_dim", c_size_t),
        ("patch_size", c_size_t),
        ("image_size", c_size_t),
        ("num_tokens", c_size_t),
        ("num_parameters", c_size_t),
        ("mean", c_float * 3),
        ("std", c_float * 3),
        ("layer_norm_eps", c_float),
        ("naming", c_int32),
        ("fingerprint", c_char * 40),
        ("products", c_int32),
        ("reserved", c_int32),
        ("num_prefix_tokens", c_size_t),
        ("pool", c_int32),
        ("activation", c_int32),
        ("position_resampling", c_int32),
        ("resize", c_int32),
        ("interpolation", c_int32),
        ("crop_fraction", c_float),
    ]


class dlora_model_setting(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("value", c_char_p),
        ("place", c_char_p),
        ("origin", c_int32),
        ("reserved", c_int32),
    ]


class dlora_site(ctypes.Structure):
    _fields_ = [
        ("input_dim", c_size_t),
        ("output_dim", c_size_t),
        ("block", c_int32),
        ("projection", c_int32),
    ]


class dlora_bank_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("allocator", c_void_p),
        ("optimizer", c_int32),
        ("beta1", c_float),
        ("beta2", c_float),
        ("epsilon", c_float),
        ("momentum", c_float),
        ("weight_decay", c_float),
    ]


class dlora_adapter(ctypes.Structure):
    _fields_ = [
        ("a", c_void_p),
        ("b", c_void_p),
        ("rank", c_size_t),
    ]


class dlora_projector_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("allocator", c_void_p),
    ]


class dlora_predictor_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("allocator", c_void_p),
        ("seed", c_uint64),
        ("random_features", c_size_t),
        ("readout", c_int32),
        ("use_prior", c_int32),
        ("shrinkage", c_float),
        ("temperature", c_float),
        ("ridge", c_float),
        ("reserved", c_float),
    ]


class dlora_prediction(ctypes.Structure):
    _fields_ = [
        ("class_id", c_int64),
        ("task", c_int64),
        ("class_probability", c_float),
        ("task_probability", c_float),
        ("unknown_score", c_float),
        ("unknown", c_int32),
    ]


class dlora_session_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("allocator", c_void_p),
        ("max_batch", c_size_t),
        ("threads", c_int32),
        ("training", c_int32),
    ]


class dlora_learner_options(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("allocator", c_void_p),
        ("random_features", c_size_t),
        ("sites", c_int32),
        ("first_block", c_int32),
        ("num_blocks", c_int32),
        ("feature_layers", c_int32),
        ("readout", c_int32),
        ("untouched_baseline", c_int32),
        ("use_prior", c_int32),
        ("shrinkage", c_float),
        ("temperature", c_float),
        ("ridge", c_float),
        ("seed", c_uint64),
        ("rank_orthogonal", c_size_t),
        ("rank_residual", c_size_t),
        ("batch_size", c_size_t),
        ("max_observed_images", c_size_t),
        ("epochs", c_int32),
        ("residual_basis", c_int32),
        ("loss_classes", c_int32),
        ("train_head", c_int32),
        ("drift_compensation", c_int32),
        ("train_orthogonal_a", c_int32),
        ("observed_tokens", c_int32),
        ("optimizer", c_int32),
        ("schedule", c_int32),
        ("flip", c_int32),
        ("crop_padding", c_int32),
        ("energy_threshold", c_float),
        ("learning_rate", c_float),
        ("beta1", c_float),
        ("beta2", c_float),
        ("epsilon", c_float),
        ("momentum", c_float),
        ("weight_decay", c_float),
        ("held_out", c_float),
        ("loss_temperature", c_float),
        ("crop_scale", c_float),
        ("jitter", c_float),
        ("later_task_lr_scale", c_float),
        ("residual_merge_fraction", c_float),
        ("merge_decay", c_float),
        ("routing", c_int32),
        ("class_scores", c_int32),
        ("unknown_quantile", c_float),
        ("threads", c_int32),
        ("micro_batch", c_int32),
        ("untouched_weight", c_float),
        ("reserved", c_float),
    ]


class dlora_task_report(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("task", c_int64),
        ("num_classes", c_size_t),
        ("num_images", c_size_t),
        ("num_steps", c_size_t),
        ("first_loss", c_double),
        ("last_loss", c_double),
        ("seconds_observe", c_double),
        ("seconds_train", c_double),
        ("seconds_statistics", c_double),
        ("used_directions_min", c_size_t),
        ("used_directions_max", c_size_t),
        ("rank_orthogonal_min", c_size_t),
        ("rank_orthogonal_max", c_size_t),
        ("evidence_images", c_size_t),
        ("evidence_gain", c_double),
        ("untouched_weight", c_double),
    ]


class dlora_evaluation(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("num_images", c_size_t),
        ("num_skipped", c_size_t),
        ("accuracy", c_double),
        ("task_accuracy", c_double),
        ("accuracy_given_task", c_double),
        ("ece", c_double),
        ("task_ece", c_double),
        ("untouched_accuracy", c_double),
        ("average_accuracy", c_double),
        ("forgetting", c_double),
        ("backward_transfer", c_double),
    ]


class dlora_option_info(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("choices", c_char_p),
        ("help", c_char_p),
        ("default_value", c_double),
        ("paper_value", c_double),
        ("least", c_double),
        ("greatest", c_double),
        ("type", c_int32),
        ("scope", c_int32),
        ("above_least", c_int32),
        ("reserved", c_int32),
    ]


class dlora_open_task(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("num_classes", c_size_t),
        ("num_observed", c_size_t),
        ("planned_steps", c_size_t),
        ("num_steps", c_size_t),
        ("num_observed_trained", c_size_t),
        ("num_source_images", c_size_t),
        ("is_open", c_int32),
        ("phase", c_int32),
    ]


class dlora_tensor_info(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("dtype", c_char_p),
        ("value", c_char_p),
        ("shape", c_void_p),
        ("num_dims", c_size_t),
        ("num_bytes", c_size_t),
    ]


@dataclasses.dataclass(frozen=True)
class Site:
    """One adapted linear layer. A dlora_session reads block and projection; elsewhere they may have any value.

    input_dim: width of the layer's input, >= 1
    output_dim: width of its output, >= 1
    block: 0 ... depth - 1
    projection: one enum dlora_projection
    """

    input_dim: int
    output_dim: int
    block: int
    projection: Projection

    @classmethod
    def _of(cls, struct: dlora_site) -> Site:
        return cls(
            input_dim=struct.input_dim,
            output_dim=struct.output_dim,
            block=struct.block,
            projection=Projection(struct.projection),
        )


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a call, as a progress callback receives it.

    task: index of the open task; in an evaluation the number of tasks
    done: images (observe, statistics, evaluate) or steps (train) done
    total: images or steps of the phase
    loss: running mean of the training loss; NaN outside training
    images_per_second: in this phase; 0 before it is known
    phase: enum dlora_phase
    """

    task: int
    done: int
    total: int
    loss: float
    images_per_second: float
    phase: Phase

    @classmethod
    def _of(cls, struct: dlora_progress) -> Progress:
        return cls(
            task=struct.task,
            done=struct.done,
            total=struct.total,
            loss=struct.loss,
            images_per_second=struct.images_per_second,
            phase=_member(Phase, struct.phase),
        )


@dataclasses.dataclass(frozen=True)
class Profile:
    """Time that a handle has spent since its creation, in seconds. Times of a session are sums over its threads; those
    of a learner are of the calling thread. Reading images from a source, checks and waiting are not included.

    preprocessing: session: images resized, augmented, normalised and cut into patches
    products: session: products with the model's weights and biases, forward and backward
    adapters: session: the bank's terms at its sites, forward and backward
    attention: session: scores, softmax and weighted values of all heads, forward and backward
    norms: session: layer norms, forward and backward
    activation: session: GELU, forward and backward
    copies: session: copies of the residual stream
    loss: learner: logits and cross-entropy of training steps, forward and backward
    optimizer: learner: updates of the trained parameters
    observation: learner: second moments and class statistics
    directions: learner: dlora_learner_begin_training
    task_end: learner: dlora_learner_commit_task
    """

    preprocessing: float
    products: float
    adapters: float
    attention: float
    norms: float
    activation: float
    copies: float
    loss: float
    optimizer: float
    observation: float
    directions: float
    task_end: float

    @classmethod
    def _of(cls, struct: dlora_profile) -> Profile:
        return cls(
            preprocessing=struct.preprocessing,
            products=struct.products,
            adapters=struct.adapters,
            attention=struct.attention,
            norms=struct.norms,
            activation=struct.activation,
            copies=struct.copies,
            loss=struct.loss,
            optimizer=struct.optimizer,
            observation=struct.observation,
            directions=struct.directions,
            task_end=struct.task_end,
        )


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Description of a loaded model.

    embed_dim: D, width of tokens and features
    depth: transformer blocks
    num_heads: attention heads
    mlp_dim: inputs of fc2; fc1 has as many outputs, or twice as many with SwiGLU
    patch_size: pixels a side
    image_size: pixels a side
    num_tokens: prefix tokens + patches
    num_parameters: of the backbone, without heads
    mean: normalisation of images
    std: normalisation of images
    layer_norm_eps: epsilon of the layer norms
    naming: enum dlora_naming
    fingerprint: identifies weights and geometry: hexadecimal, NUL-terminated
    products: enum dlora_products
    num_prefix_tokens: tokens before the patches: class, distillation and register tokens
    pool: enum dlora_pool
    activation: enum dlora_activation
    position_resampling: enum dlora_position_resampling
    resize: enum dlora_resize
    interpolation: enum dlora_interpolation
    crop_fraction: image_size over the resized side
    """

    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    patch_size: int
    image_size: int
    num_tokens: int
    num_parameters: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layer_norm_eps: float
    naming: Naming
    fingerprint: str
    products: Products
    num_prefix_tokens: int
    pool: Pool
    activation: Activation
    position_resampling: PositionResampling
    resize: Resize
    interpolation: Interpolation
    crop_fraction: float

    @classmethod
    def _of(cls, struct: dlora_model_info) -> ModelInfo:
        return cls(
            embed_dim=struct.embed_dim,
            depth=struct.depth,
            num_heads=struct.num_heads,
            mlp_dim=struct.mlp_dim,
            patch_size=struct.patch_size,
            image_size=struct.image_size,
            num_tokens=struct.num_tokens,
            num_parameters=struct.num_parameters,
            mean=tuple(struct.mean),
            std=tuple(struct.std),
            layer_norm_eps=struct.layer_norm_eps,
            naming=_member(Naming, struct.naming),
            fingerprint=struct.fingerprint.decode(),
            products=_member(Products, struct.products),
            num_prefix_tokens=struct.num_prefix_tokens,
            pool=_member(Pool, struct.pool),
            activation=_member(Activation, struct.activation),
            position_resampling=_member(PositionResampling, struct.position_resampling),
            resize=_member(Resize, struct.resize),
            interpolation=_member(Interpolation, struct.interpolation),
            crop_fraction=struct.crop_fraction,
        )


@dataclasses.dataclass(frozen=True)
class ModelSetting:
    """One setting of a model: what shapes do not tell. Texts live as long as the model.

    name: as the member of dlora_model_options
    value: a number, three with commas between them, or a word as `quick-gelu`
    place: file and key, as `config.json: hidden_act` or `metadata num_heads`; else ""
    origin: enum dlora_origin
    """

    name: str | None
    value: str | None
    place: str | None
    origin: Origin

    @classmethod
    def _of(cls, struct: dlora_model_setting) -> ModelSetting:
        return cls(
            name=None if struct.name is None else struct.name.decode(),
            value=None if struct.value is None else struct.value.decode(),
            place=None if struct.place is None else struct.place.decode(),
            origin=_member(Origin, struct.origin),
        )


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """Summary of one learned task.

    task: from 0
    num_classes: of the task
    first_loss: mean over the first steps, at most 10; NaN without steps
    last_loss: mean over the last steps, at most 10
    seconds_observe: passes before training
    seconds_statistics: passes after training and closed forms
    used_directions_min: directions in use, smallest over adapted inputs
    rank_orthogonal_min: rank the orthogonal branch found room for, smallest over sites
    evidence_images: images of the task that no adapter was trained on, which compared the adapted network with the
        untouched backbone; 0 without untouched_baseline
    evidence_gain: mean over them of log p(class) by the adapted network less that by the untouched backbone, nats;
        above 0: learning helps. NaN without such images
    untouched_weight: weight w of the untouched backbone after this task, in (6)
    """

    task: int
    num_classes: int
    num_images: int
    num_steps: int
    first_loss: float
    last_loss: float
    seconds_observe: float
    seconds_train: float
    seconds_statistics: float
    used_directions_min: int
    used_directions_max: int
    rank_orthogonal_min: int
    rank_orthogonal_max: int
    evidence_images: int
    evidence_gain: float
    untouched_weight: float

    @classmethod
    def _of(cls, struct: dlora_task_report) -> TaskReport:
        return cls(
            task=struct.task,
            num_classes=struct.num_classes,
            num_images=struct.num_images,
            num_steps=struct.num_steps,
            first_loss=struct.first_loss,
            last_loss=struct.last_loss,
            seconds_observe=struct.seconds_observe,
            seconds_train=struct.seconds_train,
            seconds_statistics=struct.seconds_statistics,
            used_directions_min=struct.used_directions_min,
            used_directions_max=struct.used_directions_max,
            rank_orthogonal_min=struct.rank_orthogonal_min,
            rank_orthogonal_max=struct.rank_orthogonal_max,
            evidence_images=struct.evidence_images,
            evidence_gain=struct.evidence_gain,
            untouched_weight=struct.untouched_weight,
        )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation. Accuracies in [0, 1]; NaN where undefined.

    num_images: evaluated
    num_skipped: images of classes not learnt yet
    accuracy: class right, over all evaluated images
    task_accuracy: task right
    accuracy_given_task: class right among the true task's classes
    ece: expected calibration error of the class probability, 15 bins
    task_ece: of the task probability
    untouched_accuracy: the same readout on the untouched backbone; NaN without its statistics, as with
        untouched_baseline 0
    average_accuracy: mean of accuracy over all evaluated stages (average incremental accuracy); NaN if a stage was
        evaluated on other images of its classes or tasks than the last one
    forgetting: mean over earlier tasks of best minus present accuracy. Tasks whose two accuracies are on different
        images are left out
    backward_transfer: mean over earlier tasks of present accuracy minus that after learning; likewise
    """

    num_images: int
    num_skipped: int
    accuracy: float
    task_accuracy: float
    accuracy_given_task: float
    ece: float
    task_ece: float
    untouched_accuracy: float
    average_accuracy: float
    forgetting: float
    backward_transfer: float

    @classmethod
    def _of(cls, struct: dlora_evaluation) -> Evaluation:
        return cls(
            num_images=struct.num_images,
            num_skipped=struct.num_skipped,
            accuracy=struct.accuracy,
            task_accuracy=struct.task_accuracy,
            accuracy_given_task=struct.accuracy_given_task,
            ece=struct.ece,
            task_ece=struct.task_ece,
            untouched_accuracy=struct.untouched_accuracy,
            average_accuracy=struct.average_accuracy,
            forgetting=struct.forgetting,
            backward_transfer=struct.backward_transfer,
        )


@dataclasses.dataclass(frozen=True)
class OptionInfo:
    """Description of one option. Strings are static.

    name: of the member of dlora_learner_options
    choices: words of a choice or set, "first|second"; of another type names of -1, -2, ...; or NULL
    help: one line
    default_value: as dlora_learner_options_init sets it
    paper_value: as dlora_learner_options_paper sets it
    least: values from least to greatest are allowed, and those that `choices` names
    type: enum dlora_option_type
    scope: enum dlora_option_scope
    above_least: 1: least itself is not allowed
    """

    name: str | None
    choices: str | None
    help: str | None
    default_value: float
    paper_value: float
    least: float
    greatest: float
    type: OptionType
    scope: OptionScope
    above_least: int

    @classmethod
    def _of(cls, struct: dlora_option_info) -> OptionInfo:
        return cls(
            name=None if struct.name is None else struct.name.decode(),
            choices=None if struct.choices is None else struct.choices.decode(),
            help=None if struct.help is None else struct.help.decode(),
            default_value=struct.default_value,
            paper_value=struct.paper_value,
            least=struct.least,
            greatest=struct.greatest,
            type=_member(OptionType, struct.type),
            scope=_member(OptionScope, struct.scope),
            above_least=struct.above_least,
        )


@dataclasses.dataclass(frozen=True)
class OpenTask:
    """Progress of an open task. After dlora_learner_load it tells what is still to be done.

    num_classes: observed so far
    num_observed: images given to dlora_learner_observe
    planned_steps: as given to dlora_learner_begin_task
    num_steps: optimizer steps done
    num_observed_trained: images given to dlora_learner_observe_trained
    num_source_images: images of its source; 0: a loop of your own
    is_open: 0: no task is open, and all of this is 0
    phase: DLORA_PHASE_OBSERVE; _TRAIN from dlora_learner_begin_training on; _STATISTICS from
        dlora_learner_observe_trained on
    """

    num_classes: int
    num_observed: int
    planned_steps: int
    num_steps: int
    num_observed_trained: int
    num_source_images: int
    is_open: int
    phase: int

    @classmethod
    def _of(cls, struct: dlora_open_task) -> OpenTask:
        return cls(
            num_classes=struct.num_classes,
            num_observed=struct.num_observed,
            planned_steps=struct.planned_steps,
            num_steps=struct.num_steps,
            num_observed_trained=struct.num_observed_trained,
            num_source_images=struct.num_source_images,
            is_open=struct.is_open,
            phase=struct.phase,
        )


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of a safetensors file, as dlora_inspect lists it. Pointers live during the callback only.

    name: for metadata entries: the key
    dtype: as "F32"; NULL for a metadata entry
    value: of a metadata entry; NULL for a tensor
    shape: [num_dims]
    """

    name: str | None
    dtype: str | None
    value: str | None
    shape: tuple[int, ...]
    num_dims: int
    num_bytes: int

    @classmethod
    def _of(cls, struct: dlora_tensor_info) -> TensorInfo:
        return cls(
            name=None if struct.name is None else struct.name.decode(),
            dtype=None if struct.dtype is None else struct.dtype.decode(),
            value=None if struct.value is None else struct.value.decode(),
            shape=tuple(ctypes.cast(struct.shape, ctypes.POINTER(c_size_t))[:struct.num_dims]) if struct.shape else (),
            num_dims=struct.num_dims,
            num_bytes=struct.num_bytes,
        )


# Types of callbacks.
ReadImageCallback = ctypes.CFUNCTYPE(c_int32, c_size_t, c_void_p, c_void_p)
ProgressCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)
LogCallback = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
VisitCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)

# Members that hold values of an enum: struct -> member -> enum.
MEMBER_ENUMS: dict[str, dict[str, type[enum.IntEnum] | type[enum.IntFlag]]] = {
    "dlora_progress": {"phase": Phase},
    "dlora_model_options": {"products": Products, "pool": Pool, "activation": Activation, "position_resampling": PositionResampling, "resize": Resize, "interpolation": Interpolation},
    "dlora_model_info": {"naming": Naming, "products": Products, "pool": Pool, "activation": Activation, "position_resampling": PositionResampling, "resize": Resize, "interpolation": Interpolation},
    "dlora_model_setting": {"origin": Origin},
    "dlora_site": {"projection": Projection},
    "dlora_bank_options": {"optimizer": Optimizer},
    "dlora_predictor_options": {"readout": Readout},
    "dlora_learner_options": {"sites": Projection, "feature_layers": FeatureLayers, "readout": Readout, "residual_basis": ResidualBasis, "loss_classes": LossClasses, "observed_tokens": Tokens, "optimizer": Optimizer, "schedule": Schedule, "flip": Flip, "routing": Routing, "class_scores": ClassScores},
    "dlora_option_info": {"type": OptionType, "scope": OptionScope},
}

# Name -> (type of the result, types of the arguments, whether the result is a dlora_status).
FUNCTIONS: dict[str, tuple[Any, list[Any], bool]] = {
    # const char * dlora_status_name(dlora_status)
    "dlora_status_name": (c_char_p, [c_int32], False),
    # const char * dlora_last_error()
    "dlora_last_error": (c_char_p, [], False),
    # const char * dlora_version()
    "dlora_version": (c_char_p, [], False),
    # const char * dlora_build_info()
    "dlora_build_info": (c_char_p, [], False),
    # dlora_status dlora_image_source_init(dlora_image_source *, size_t)
    "dlora_image_source_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_profile_init(dlora_profile *, size_t)
    "dlora_profile_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_model_info_init(dlora_model_info *, size_t)
    "dlora_model_info_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_model_options_init(dlora_model_options *, size_t)
    "dlora_model_options_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_model_load(dlora_model **, const char *, const dlora_model_options *)
    "dlora_model_load": (c_int32, [c_void_p, c_char_p, c_void_p], True),
    # dlora_status dlora_model_load_memory(dlora_model **, const void *, size_t, const dlora_model_options *)
    "dlora_model_load_memory": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p], True),
    # void dlora_model_destroy(dlora_model *)
    "dlora_model_destroy": (None, [c_void_p], False),
    # dlora_status dlora_model_get_info(const dlora_model *, dlora_model_info *)
    "dlora_model_get_info": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_model_setting_init(dlora_model_setting *, size_t)
    "dlora_model_setting_init": (c_int32, [c_void_p, c_size_t], True),
    # size_t dlora_model_num_settings(const dlora_model *)
    "dlora_model_num_settings": (c_size_t, [c_void_p], False),
    # dlora_status dlora_model_get_setting(const dlora_model *, size_t, dlora_model_setting *)
    "dlora_model_get_setting": (c_int32, [c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_model_embed(const dlora_model *, const dlora_images *, float *)
    "dlora_model_embed": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_bank_options_init(dlora_bank_options *, size_t)
    "dlora_bank_options_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_bank_create(dlora_bank **, const dlora_site *, size_t, const dlora_bank_options *)
    "dlora_bank_create": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p], True),
    # void dlora_bank_destroy(dlora_bank *)
    "dlora_bank_destroy": (None, [c_void_p], False),
    # size_t dlora_bank_num_sites(const dlora_bank *)
    "dlora_bank_num_sites": (c_size_t, [c_void_p], False),
    # size_t dlora_bank_num_tasks(const dlora_bank *)
    "dlora_bank_num_tasks": (c_size_t, [c_void_p], False),
    # dlora_status dlora_bank_get_site(const dlora_bank *, size_t, dlora_site *)
    "dlora_bank_get_site": (c_int32, [c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_bank_begin_task(dlora_bank *)
    "dlora_bank_begin_task": (c_int32, [c_void_p], True),
    # dlora_status dlora_bank_set_orthogonal(dlora_bank *, size_t, const float *, size_t, const dlora_projector *)
    "dlora_bank_set_orthogonal": (c_int32, [c_void_p, c_size_t, c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_bank_set_residual(dlora_bank *, size_t, const float *, size_t, int32_t)
    "dlora_bank_set_residual": (c_int32, [c_void_p, c_size_t, c_void_p, c_size_t, c_int32], True),
    # dlora_status dlora_bank_get_parameters(dlora_bank *, float **, float **, size_t *)
    "dlora_bank_get_parameters": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_bank_forward(const dlora_bank *, size_t, const float *, size_t, int32_t, const float *, size_t, float *)
    "dlora_bank_forward": (c_int32, [c_void_p, c_size_t, c_void_p, c_size_t, c_int32, c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_bank_backward(dlora_bank *, size_t, const float *, const float *, size_t, int32_t, float *)
    "dlora_bank_backward": (c_int32, [c_void_p, c_size_t, c_void_p, c_void_p, c_size_t, c_int32, c_void_p], True),
    # dlora_status dlora_bank_step(dlora_bank *, float)
    "dlora_bank_step": (c_int32, [c_void_p, c_float], True),
    # dlora_status dlora_bank_set_merge_fractions(dlora_bank *, float, float)
    "dlora_bank_set_merge_fractions": (c_int32, [c_void_p, c_float, c_float], True),
    # dlora_status dlora_bank_commit_task(dlora_bank *)
    "dlora_bank_commit_task": (c_int32, [c_void_p], True),
    # dlora_status dlora_bank_discard_task(dlora_bank *)
    "dlora_bank_discard_task": (c_int32, [c_void_p], True),
    # dlora_status dlora_bank_get_merged(const dlora_bank *, size_t, const float **)
    "dlora_bank_get_merged": (c_int32, [c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_bank_get_residual(const dlora_bank *, size_t, int64_t, dlora_adapter *)
    "dlora_bank_get_residual": (c_int32, [c_void_p, c_size_t, c_int64, c_void_p], True),
    # dlora_status dlora_bank_save(const dlora_bank *, const char *)
    "dlora_bank_save": (c_int32, [c_void_p, c_char_p], True),
    # dlora_status dlora_bank_load(dlora_bank **, const char *, const dlora_bank_options *)
    "dlora_bank_load": (c_int32, [c_void_p, c_char_p, c_void_p], True),
    # dlora_status dlora_projector_options_init(dlora_projector_options *, size_t)
    "dlora_projector_options_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_projector_create(dlora_projector **, size_t, const dlora_projector_options *)
    "dlora_projector_create": (c_int32, [c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_projector_clone(dlora_projector **, const dlora_projector *)
    "dlora_projector_clone": (c_int32, [c_void_p, c_void_p], True),
    # void dlora_projector_destroy(dlora_projector *)
    "dlora_projector_destroy": (None, [c_void_p], False),
    # size_t dlora_projector_dim(const dlora_projector *)
    "dlora_projector_dim": (c_size_t, [c_void_p], False),
    # size_t dlora_projector_size(const dlora_projector *)
    "dlora_projector_size": (c_size_t, [c_void_p], False),
    # size_t dlora_projector_num_tasks(const dlora_projector *)
    "dlora_projector_num_tasks": (c_size_t, [c_void_p], False),
    # uint64_t dlora_projector_num_observed(const dlora_projector *)
    "dlora_projector_num_observed": (c_uint64, [c_void_p], False),
    # dlora_status dlora_projector_observe(dlora_projector *, const float *, size_t)
    "dlora_projector_observe": (c_int32, [c_void_p, c_void_p, c_size_t], True),
    # dlora_status dlora_projector_merge_observed(dlora_projector *, const dlora_projector *)
    "dlora_projector_merge_observed": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_projector_discard_task(dlora_projector *)
    "dlora_projector_discard_task": (c_int32, [c_void_p], True),
    # dlora_status dlora_projector_unused_directions(const dlora_projector *, size_t, float *, size_t *)
    "dlora_projector_unused_directions": (c_int32, [c_void_p, c_size_t, c_void_p, c_void_p], True),
    # dlora_status dlora_projector_task_directions(const dlora_projector *, float, size_t, float *, size_t *)
    "dlora_projector_task_directions": (c_int32, [c_void_p, c_float, c_size_t, c_void_p, c_void_p], True),
    # dlora_status dlora_projector_used_directions(const dlora_projector *, size_t, float *, size_t *)
    "dlora_projector_used_directions": (c_int32, [c_void_p, c_size_t, c_void_p, c_void_p], True),
    # dlora_status dlora_projector_commit_task(dlora_projector *, float, size_t *)
    "dlora_projector_commit_task": (c_int32, [c_void_p, c_float, c_void_p], True),
    # dlora_status dlora_projector_get_bases(const dlora_projector *, int64_t, const float **, size_t *)
    "dlora_projector_get_bases": (c_int32, [c_void_p, c_int64, c_void_p, c_void_p], True),
    # dlora_status dlora_projector_project(const dlora_projector *, float *, size_t)
    "dlora_projector_project": (c_int32, [c_void_p, c_void_p, c_size_t], True),
    # dlora_status dlora_projector_calibrate(dlora_projector *, int64_t, const float *, size_t)
    "dlora_projector_calibrate": (c_int32, [c_void_p, c_int64, c_void_p, c_size_t], True),
    # dlora_status dlora_projector_route(const dlora_projector *, const float *, size_t, float *)
    "dlora_projector_route": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_projector_save(const dlora_projector *, const char *)
    "dlora_projector_save": (c_int32, [c_void_p, c_char_p], True),
    # dlora_status dlora_projector_load(dlora_projector **, const char *, const dlora_projector_options *)
    "dlora_projector_load": (c_int32, [c_void_p, c_char_p, c_void_p], True),
    # dlora_status dlora_predictor_options_init(dlora_predictor_options *, size_t)
    "dlora_predictor_options_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_predictor_create(dlora_predictor **, size_t, const dlora_predictor_options *)
    "dlora_predictor_create": (c_int32, [c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_predictor_clone(dlora_predictor **, const dlora_predictor *)
    "dlora_predictor_clone": (c_int32, [c_void_p, c_void_p], True),
    # void dlora_predictor_destroy(dlora_predictor *)
    "dlora_predictor_destroy": (None, [c_void_p], False),
    # size_t dlora_predictor_dim(const dlora_predictor *)
    "dlora_predictor_dim": (c_size_t, [c_void_p], False),
    # size_t dlora_predictor_num_tasks(const dlora_predictor *)
    "dlora_predictor_num_tasks": (c_size_t, [c_void_p], False),
    # size_t dlora_predictor_num_classes(const dlora_predictor *)
    "dlora_predictor_num_classes": (c_size_t, [c_void_p], False),
    # size_t dlora_predictor_num_components(const dlora_predictor *)
    "dlora_predictor_num_components": (c_size_t, [c_void_p], False),
    # dlora_status dlora_predictor_get_classes(const dlora_predictor *, int64_t *)
    "dlora_predictor_get_classes": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_predictor_get_components(const dlora_predictor *, int64_t *, int64_t *, uint64_t *, double *)
    "dlora_predictor_get_components": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_predictor_get_scatter(const dlora_predictor *, double *)
    "dlora_predictor_get_scatter": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_predictor_get_projection(const dlora_predictor *, size_t *, double *)
    "dlora_predictor_get_projection": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_predictor_observe(dlora_predictor *, const float *, const int64_t *, size_t)
    "dlora_predictor_observe": (c_int32, [c_void_p, c_void_p, c_void_p, c_size_t], True),
    # dlora_status dlora_predictor_observe_held_out(dlora_predictor *, const float *, const int64_t *, size_t)
    "dlora_predictor_observe_held_out": (c_int32, [c_void_p, c_void_p, c_void_p, c_size_t], True),
    # dlora_status dlora_predictor_observe_pair(dlora_predictor *, const float *, const float *, const int64_t *, size_t, int32_t)
    "dlora_predictor_observe_pair": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_int32], True),
    # dlora_status dlora_predictor_discard_task(dlora_predictor *)
    "dlora_predictor_discard_task": (c_int32, [c_void_p], True),
    # dlora_status dlora_predictor_compensate_drift(dlora_predictor *, const float *, const float *, size_t, size_t, size_t)
    "dlora_predictor_compensate_drift": (c_int32, [c_void_p, c_void_p, c_void_p, c_size_t, c_size_t, c_size_t], True),
    # dlora_status dlora_predictor_commit_task(dlora_predictor *)
    "dlora_predictor_commit_task": (c_int32, [c_void_p], True),
    # dlora_status dlora_predictor_append(dlora_predictor *, const dlora_predictor *)
    "dlora_predictor_append": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_predictor_merge(dlora_predictor *, const dlora_predictor *)
    "dlora_predictor_merge": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_predictor_posterior(const dlora_predictor *, const float *, size_t, float *, float *, float *, float *)
    "dlora_predictor_posterior": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_predictor_predict(const dlora_predictor *, const float *, size_t, dlora_prediction *)
    "dlora_predictor_predict": (c_int32, [c_void_p, c_void_p, c_size_t, c_void_p], True),
    # dlora_status dlora_predictor_linear_weights(const dlora_predictor *, size_t, size_t, int32_t, float *, float *)
    "dlora_predictor_linear_weights": (c_int32, [c_void_p, c_size_t, c_size_t, c_int32, c_void_p, c_void_p], True),
    # float dlora_predictor_temperature(const dlora_predictor *)
    "dlora_predictor_temperature": (c_float, [c_void_p], False),
    # dlora_status dlora_predictor_set_temperature(dlora_predictor *, float)
    "dlora_predictor_set_temperature": (c_int32, [c_void_p, c_float], True),
    # dlora_status dlora_predictor_unknown_threshold(const dlora_predictor *, float, float *)
    "dlora_predictor_unknown_threshold": (c_int32, [c_void_p, c_float, c_void_p], True),
    # dlora_status dlora_predictor_save(const dlora_predictor *, const char *)
    "dlora_predictor_save": (c_int32, [c_void_p, c_char_p], True),
    # dlora_status dlora_predictor_load(dlora_predictor **, const char *, const dlora_predictor_options *)
    "dlora_predictor_load": (c_int32, [c_void_p, c_char_p, c_void_p], True),
    # dlora_status dlora_session_options_init(dlora_session_options *, size_t)
    "dlora_session_options_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_session_create(dlora_session **, const dlora_model *, const dlora_bank *, const dlora_session_options *)
    "dlora_session_create": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p], True),
    # void dlora_session_destroy(dlora_session *)
    "dlora_session_destroy": (None, [c_void_p], False),
    # size_t dlora_session_workspace_size(const dlora_session *)
    "dlora_session_workspace_size": (c_size_t, [c_void_p], False),
    # dlora_status dlora_session_forward(dlora_session *, const dlora_images *, int32_t, const float *, float *)
    "dlora_session_forward": (c_int32, [c_void_p, c_void_p, c_int32, c_void_p, c_void_p], True),
    # dlora_status dlora_session_backward(dlora_session *, dlora_bank *, const float *)
    "dlora_session_backward": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_session_get_input(const dlora_session *, size_t, int32_t, float *, size_t *, size_t *)
    "dlora_session_get_input": (c_int32, [c_void_p, c_size_t, c_int32, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_session_get_early_features(dlora_session *, float *)
    "dlora_session_get_early_features": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_session_get_profile(const dlora_session *, dlora_profile *)
    "dlora_session_get_profile": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_task_report_init(dlora_task_report *, size_t)
    "dlora_task_report_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_evaluation_init(dlora_evaluation *, size_t)
    "dlora_evaluation_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_learner_options_init(dlora_learner_options *, size_t)
    "dlora_learner_options_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_learner_options_paper(dlora_learner_options *, size_t)
    "dlora_learner_options_paper": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_learner_options_set(dlora_learner_options *, const char *, const char *)
    "dlora_learner_options_set": (c_int32, [c_void_p, c_char_p, c_char_p], True),
    # dlora_status dlora_learner_options_get(const dlora_learner_options *, const char *, char *, size_t)
    "dlora_learner_options_get": (c_int32, [c_void_p, c_char_p, c_void_p, c_size_t], True),
    # dlora_status dlora_option_info_init(dlora_option_info *, size_t)
    "dlora_option_info_init": (c_int32, [c_void_p, c_size_t], True),
    # size_t dlora_option_count()
    "dlora_option_count": (c_size_t, [], False),
    # dlora_status dlora_option_get_info(size_t, dlora_option_info *)
    "dlora_option_get_info": (c_int32, [c_size_t, c_void_p], True),
    # dlora_status dlora_learner_options_check(const dlora_learner_options *, const dlora_model *)
    "dlora_learner_options_check": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_learner_create(dlora_learner **, const dlora_model *, const dlora_learner_options *)
    "dlora_learner_create": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # void dlora_learner_destroy(dlora_learner *)
    "dlora_learner_destroy": (None, [c_void_p], False),
    # dlora_status dlora_learner_configure(dlora_learner *, const dlora_learner_options *)
    "dlora_learner_configure": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_learner_get_options(const dlora_learner *, dlora_learner_options *)
    "dlora_learner_get_options": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_learner_set_progress(dlora_learner *, dlora_progress_fn, void *)
    "dlora_learner_set_progress": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_set_log(dlora_learner *, dlora_log_fn, void *)
    "dlora_learner_set_log": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_learn_task(dlora_learner *, const dlora_images *, const int64_t *, dlora_task_report *)
    "dlora_learner_learn_task": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_learn_source(dlora_learner *, const dlora_image_source *, dlora_task_report *)
    "dlora_learner_learn_source": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_set_snapshot(dlora_learner *, const char *, size_t)
    "dlora_learner_set_snapshot": (c_int32, [c_void_p, c_char_p, c_size_t], True),
    # dlora_status dlora_open_task_init(dlora_open_task *, size_t)
    "dlora_open_task_init": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_learner_get_open_task(const dlora_learner *, dlora_open_task *)
    "dlora_learner_get_open_task": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_learner_begin_task(dlora_learner *, size_t)
    "dlora_learner_begin_task": (c_int32, [c_void_p, c_size_t], True),
    # dlora_status dlora_learner_observe(dlora_learner *, const dlora_images *, const int64_t *)
    "dlora_learner_observe": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_begin_training(dlora_learner *)
    "dlora_learner_begin_training": (c_int32, [c_void_p], True),
    # dlora_status dlora_learner_step(dlora_learner *, const dlora_images *, const int64_t *, float *)
    "dlora_learner_step": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_observe_trained(dlora_learner *, const dlora_images *, const int64_t *)
    "dlora_learner_observe_trained": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_commit_task(dlora_learner *, dlora_task_report *)
    "dlora_learner_commit_task": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_learner_discard_task(dlora_learner *)
    "dlora_learner_discard_task": (c_int32, [c_void_p], True),
    # size_t dlora_learner_num_tasks(const dlora_learner *)
    "dlora_learner_num_tasks": (c_size_t, [c_void_p], False),
    # size_t dlora_learner_num_classes(const dlora_learner *)
    "dlora_learner_num_classes": (c_size_t, [c_void_p], False),
    # double dlora_learner_get_untouched_weight(const dlora_learner *)
    "dlora_learner_get_untouched_weight": (c_double, [c_void_p], False),
    # dlora_status dlora_learner_get_classes(const dlora_learner *, int64_t *)
    "dlora_learner_get_classes": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_learner_set_class_name(dlora_learner *, int64_t, const char *)
    "dlora_learner_set_class_name": (c_int32, [c_void_p, c_int64, c_char_p], True),
    # const char * dlora_learner_get_class_name(const dlora_learner *, int64_t)
    "dlora_learner_get_class_name": (c_char_p, [c_void_p, c_int64], False),
    # dlora_status dlora_learner_set_note(dlora_learner *, const char *, const char *)
    "dlora_learner_set_note": (c_int32, [c_void_p, c_char_p, c_char_p], True),
    # const char * dlora_learner_get_note(const dlora_learner *, const char *)
    "dlora_learner_get_note": (c_char_p, [c_void_p, c_char_p], False),
    # dlora_status dlora_learner_predict(const dlora_learner *, const dlora_images *, dlora_prediction *, float *)
    "dlora_learner_predict": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_predict_with_tasks(const dlora_learner *, const dlora_images *, const int64_t *, dlora_prediction *, float *)
    "dlora_learner_predict_with_tasks": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_embed(const dlora_learner *, const dlora_images *, const int64_t *, float *)
    "dlora_learner_embed": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_evaluate(dlora_learner *, const dlora_image_source *, dlora_evaluation *)
    "dlora_learner_evaluate": (c_int32, [c_void_p, c_void_p, c_void_p], True),
    # dlora_status dlora_learner_get_accuracy_matrix(const dlora_learner *, double *)
    "dlora_learner_get_accuracy_matrix": (c_int32, [c_void_p, c_void_p], True),
    # dlora_status dlora_learner_save(const dlora_learner *, const char *)
    "dlora_learner_save": (c_int32, [c_void_p, c_char_p], True),
    # dlora_status dlora_learner_load(dlora_learner **, const dlora_model *, const char *, const dlora_learner_options *)
    "dlora_learner_load": (c_int32, [c_void_p, c_void_p, c_char_p, c_void_p], True),
    # dlora_status dlora_learner_get_profile(const dlora_learner *, dlora_profile *)
    "dlora_learner_get_profile": (c_int32, [c_void_p, c_void_p], True),
    # const dlora_bank * dlora_learner_get_bank(const dlora_learner *)
    "dlora_learner_get_bank": (c_void_p, [c_void_p], False),
    # const dlora_predictor * dlora_learner_get_predictor(const dlora_learner *)
    "dlora_learner_get_predictor": (c_void_p, [c_void_p], False),
    # const dlora_projector * dlora_learner_get_projector(const dlora_learner *, size_t, int32_t)
    "dlora_learner_get_projector": (c_void_p, [c_void_p, c_size_t, c_int32], False),
    # dlora_status dlora_learner_export_peft(const dlora_learner *, const char *, int64_t)
    "dlora_learner_export_peft": (c_int32, [c_void_p, c_char_p, c_int64], True),
    # dlora_status dlora_learner_export_backbone(const dlora_learner *, const char *)
    "dlora_learner_export_backbone": (c_int32, [c_void_p, c_char_p], True),
    # dlora_status dlora_inspect(const char *, int32_t (*)(const dlora_tensor_info *, void *), void *)
    "dlora_inspect": (c_int32, [c_char_p, c_void_p, c_void_p], True),
}
