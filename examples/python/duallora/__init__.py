# SPDX-License-Identifier: Apache-2.0
"""duallora: a pre-trained Vision Transformer that learns task after task, without keeping images.

    import duallora

    model = duallora.Model.load("vit.safetensors")
    learner = duallora.Learner(model)
    learner.learn("photos/monday", progress=True)     # one sub-folder a class
    learner.learn(images, labels)                     # the next task: arrays, PIL images, paths, tensors
    learner.predict(["new.jpg"])                      # array(["cat"])
    learner.save("device.safetensors")

Handles: Model, Learner; and for parts alone Bank, Projector, Predictor, Session. All are context managers.
duallora.sklearn has classifiers with scikit-learn's interface, duallora.torch layers and functions of PyTorch.
docs/PYTHON.md describes all of it.
"""

from ._abi import (
    VERSION,
    Activation, Evaluation, Input, Interpolation, ModelInfo, ModelSetting, OpenTask, OptionInfo, OptionScope, OptionType, Origin, Phase, Pool,
    PositionResampling, Products, Profile, Progress, Projection, Resize, Site, Status, TaskReport, TensorInfo, Terms,
)
from ._inspect import inspect
from ._library import build_info, version
from ._options import learner_defaults, learner_option_table
from .bank import Bank, site
from .errors import (
    ArgumentError, ArgumentTypeError, CancelledError, ClosedError, ConcurrentUseError, DualLoRAError, FileError, FormatError,
    LibraryVersionError, MismatchError, NotFiniteError, NumericError, OutOfMemoryError, StateError, StructSizeError,
    UnsupportedError,
)
from .learner import Learner
from .model import Model
from .predictor import PREDICTION, Components, Posterior, Predictor
from .projector import Projector
from .session import Session

__version__ = ".".join(map(str, VERSION))

__all__ = [
    "PREDICTION", "Activation", "ArgumentError", "ArgumentTypeError", "Bank", "CancelledError", "ClosedError", "Components",
    "ConcurrentUseError", "DualLoRAError", "Evaluation", "FileError", "FormatError", "Input", "Interpolation", "Learner",
    "LibraryVersionError", "MismatchError", "Model", "ModelInfo", "ModelSetting", "NotFiniteError", "NumericError", "OpenTask", "OptionInfo",
    "OptionScope", "OptionType", "Origin", "OutOfMemoryError", "Phase", "Pool", "PositionResampling", "Posterior", "Predictor",
    "Products", "Profile", "Progress", "Projection", "Projector", "Resize", "Session", "Site", "StateError", "Status",
    "StructSizeError", "TaskReport", "TensorInfo", "Terms", "UnsupportedError", "build_info", "inspect", "learner_defaults",
    "learner_option_table", "site", "version",
]
