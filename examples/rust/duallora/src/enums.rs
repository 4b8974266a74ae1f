//! Choices and sets of the C interface.
// SPDX-License-Identifier: Apache-2.0

use std::ops::{BitOr, BitOrAssign};

use duallora_sys as sys;

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $code:ident,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$word_doc])* $word,)*
            /// A value of a newer library.
            Other(i32),
        }

        impl $name {
            /// The value of the C interface.
            pub fn code(self) -> i32 {
                match self {
                    $($name::$word => sys::$code as i32,)*
                    $name::Other(code) => code,
                }
            }

            #[allow(dead_code)] // of those that the library only reads
            pub(crate) fn of(code: i32) -> $name {
                $(if code == sys::$code as i32 {
                    return $name::$word;
                })*
                $name::Other(code)
            }
        })*
    };
}

choices! {
    /// Implementations of products with a model's weights.
    Products {
        /// float32 by the BLAS: the reference.
        Blas = DLORA_PRODUCTS_BLAS,
        /// float32 in packed form; needs AVX-512.
        Packed = DLORA_PRODUCTS_PACKED,
        /// Factors in bfloat16; needs AVX512_BF16.
        Bfloat16 = DLORA_PRODUCTS_BFLOAT16,
    }
    /// What makes the feature of an image out of the tokens behind the last block.
    Pool {
        /// The class token.
        Class = DLORA_POOL_CLASS,
        /// The mean of the patch tokens.
        MeanPatches = DLORA_POOL_MEAN_PATCHES,
        /// The mean of all tokens.
        MeanTokens = DLORA_POOL_MEAN_TOKENS,
        /// The mean of class and distillation token.
        Distilled = DLORA_POOL_DISTILLED,
        /// Attention of one learnt query.
        Attention = DLORA_POOL_ATTENTION,
    }
    /// Activations of the MLP in a block.
    Activation {
        /// Exact GELU.
        Gelu = DLORA_ACTIVATION_GELU,
        /// GELU by tanh.
        GeluTanh = DLORA_ACTIVATION_GELU_TANH,
        /// x sigmoid(1.702 x).
        QuickGelu = DLORA_ACTIVATION_QUICK_GELU,
        /// Gated SiLU.
        Swiglu = DLORA_ACTIVATION_SWIGLU,
    }
    /// How position embeddings are resampled.
    PositionResampling {
        /// As timm does.
        Timm = DLORA_POSITIONS_TIMM,
        /// As Hugging Face transformers do.
        HuggingFace = DLORA_POSITIONS_HUGGING_FACE,
    }
    /// How images of bytes get the model's size.
    Resize {
        /// Both sides to the image size.
        Squash = DLORA_RESIZE_SQUASH,
        /// The shorter side, then the centre.
        Crop = DLORA_RESIZE_CROP,
    }
    /// Kernels of image resizing.
    Interpolation {
        /// Bicubic.
        Bicubic = DLORA_INTERPOLATION_BICUBIC,
        /// Bilinear.
        Bilinear = DLORA_INTERPOLATION_BILINEAR,
    }
    /// Who said what a setting of a model is.
    Origin {
        /// The caller's options.
        Option = DLORA_ORIGIN_OPTION,
        /// Metadata of the safetensors file.
        Metadata = DLORA_ORIGIN_METADATA,
        /// config.json or preprocessor_config.json.
        Json = DLORA_ORIGIN_JSON,
        /// The library's table of architectures and model types.
        Table = DLORA_ORIGIN_TABLE,
        /// Tensors and their shapes.
        Tensors = DLORA_ORIGIN_TENSORS,
        /// Default of the family.
        Default = DLORA_ORIGIN_DEFAULT,
    }
    /// Schemes of tensor names.
    Naming {
        /// timm.
        Timm = DLORA_NAMING_TIMM,
        /// Hugging Face: ViT, DeiT.
        HfVit = DLORA_NAMING_HF_VIT,
        /// Hugging Face: DINOv2.
        HfDinov2 = DLORA_NAMING_HF_DINOV2,
        /// Hugging Face: CLIP.
        HfClip = DLORA_NAMING_HF_CLIP,
        /// Hugging Face: SigLIP.
        HfSiglip = DLORA_NAMING_HF_SIGLIP,
        /// Hugging Face: DINOv3.
        HfDinov3 = DLORA_NAMING_HF_DINOV3,
        /// Hugging Face: AIMv2.
        HfAimv2 = DLORA_NAMING_HF_AIMV2,
    }
    /// Optimizers of trained parameters.
    Optimizer {
        /// Adam.
        Adam = DLORA_OPTIMIZER_ADAM,
        /// Stochastic gradient descent with momentum.
        Sgd = DLORA_OPTIMIZER_SGD,
    }
    /// Readouts of scores.
    Readout {
        /// Gaussians with a common covariance.
        Gaussian = DLORA_READOUT_GAUSSIAN,
        /// Ridge regression on a random projection.
        RandomProjection = DLORA_READOUT_RANDOM_PROJECTION,
    }
    /// Inputs of a block that projections read.
    Input {
        /// Of query, key and value.
        Attention = DLORA_INPUT_ATTENTION,
        /// Of the attention output projection.
        Output = DLORA_INPUT_OUTPUT,
        /// Of the MLP's first layer.
        Fc1 = DLORA_INPUT_FC1,
        /// Of the MLP's second layer.
        Fc2 = DLORA_INPUT_FC2,
    }
    /// Directions of the residual adapters.
    ResidualBasis {
        /// Those that the task adds.
        InNew = DLORA_RESIDUAL_IN_NEW,
        /// Those in use before.
        InUsed = DLORA_RESIDUAL_IN_USED,
        /// Random ones.
        Random = DLORA_RESIDUAL_RANDOM,
    }
    /// How the residual adapters that run are chosen.
    Routing {
        /// By Gaussians where the first adapted block begins: one pass.
        Early = DLORA_ROUTING_EARLY,
        /// By a first pass without residual adapters.
        TwoPass = DLORA_ROUTING_TWO_PASS,
        /// By energy in the task's bases.
        Energy = DLORA_ROUTING_ENERGY,
        /// The caller names the task.
        Given = DLORA_ROUTING_GIVEN,
        /// Residual adapters are off.
        None = DLORA_ROUTING_NONE,
    }
    /// Classes in the training softmax.
    LossClasses {
        /// All so far.
        All = DLORA_LOSS_CLASSES_ALL,
        /// Those of the task.
        Task = DLORA_LOSS_CLASSES_TASK,
    }
    /// Source of p(class | task) where residual adapters run.
    ClassScores {
        /// The trained rows.
        Head = DLORA_CLASS_SCORES_HEAD,
        /// The statistics.
        Statistics = DLORA_CLASS_SCORES_STATISTICS,
        /// Both.
        Both = DLORA_CLASS_SCORES_BOTH,
    }
    /// Layers whose features statistics are kept on.
    FeatureLayers {
        /// The last, and the input of the first adapted block.
        AtAdapter = DLORA_FEATURE_LAYERS_AT_ADAPTER,
        /// The last alone.
        Final = DLORA_FEATURE_LAYERS_FINAL,
        /// The last, and the input of the middle block.
        AtMiddle = DLORA_FEATURE_LAYERS_AT_MIDDLE,
    }
    /// Tokens that enter the second moments.
    Tokens {
        /// All.
        All = DLORA_TOKENS_ALL,
        /// Class tokens.
        Class = DLORA_TOKENS_CLASS,
    }
    /// Learning rate over a task.
    Schedule {
        /// Half a cosine down to 0.
        Cosine = DLORA_SCHEDULE_COSINE,
        /// The same throughout.
        Constant = DLORA_SCHEDULE_CONSTANT,
    }
    /// Where images are mirrored.
    Flip {
        /// Nowhere.
        None = DLORA_FLIP_NONE,
        /// At random in training.
        Training = DLORA_FLIP_TRAINING,
        /// In the statistics as well.
        Everywhere = DLORA_FLIP_EVERYWHERE,
    }
    /// First adapted block, where it is not a number.
    FirstBlock {
        /// A quarter of the depth.
        Auto = DLORA_AUTO,
        /// Half of the depth.
        Middle = DLORA_FIRST_BLOCK_MIDDLE,
    }
    /// Phases of learning and evaluation.
    Phase {
        /// Images before training.
        Observe = DLORA_PHASE_OBSERVE,
        /// Optimizer steps.
        Train = DLORA_PHASE_TRAIN,
        /// Images after training.
        Statistics = DLORA_PHASE_STATISTICS,
        /// An evaluation.
        Evaluate = DLORA_PHASE_EVALUATE,
    }
    /// Levels of log lines.
    LogLevel {
        /// A note.
        Info = DLORA_LOG_INFO,
        /// A warning.
        Warning = DLORA_LOG_WARNING,
    }
    /// Types of options.
    OptionType {
        /// `i32`, or [`Auto`].
        Integer = DLORA_OPTION_INTEGER,
        /// `usize`.
        Size = DLORA_OPTION_SIZE,
        /// `u64`.
        Seed = DLORA_OPTION_SEED,
        /// `f32`, or [`Auto`].
        Float = DLORA_OPTION_FLOAT,
        /// `bool`.
        Flag = DLORA_OPTION_FLAG,
        /// One of the words.
        Choice = DLORA_OPTION_CHOICE,
        /// Some of the words.
        Set = DLORA_OPTION_SET,
    }
    /// When an option may change.
    OptionScope {
        /// Never after creation.
        Fixed = DLORA_SCOPE_FIXED,
        /// Between tasks; decides how the next one is learned.
        Training = DLORA_SCOPE_TRAINING,
        /// Between tasks; decides how images are predicted.
        Prediction = DLORA_SCOPE_PREDICTION,
        /// Between tasks; decides how the machine is used.
        RunTime = DLORA_SCOPE_RUN_TIME,
    }
}

/// Lets the library choose, in options that allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Auto;

macro_rules! sets {
    ($($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $code:ident,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(i32);

        #[allow(non_upper_case_globals)]
        impl $name {
            /// The empty set.
            pub const EMPTY: $name = $name(0);
            $($(#[$word_doc])* pub const $word: $name = $name(sys::$code as i32);)*

            /// The value of the C interface.
            pub fn bits(self) -> i32 {
                self.0
            }

            /// Whether all of `other` is in the set.
            pub fn contains(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }

            #[allow(dead_code)] // of those that the library only reads
            pub(crate) fn of(bits: i32) -> $name {
                $name(bits)
            }
        }

        impl BitOr for $name {
            type Output = $name;

            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }

        impl BitOrAssign for $name {
            fn bitor_assign(&mut self, other: $name) {
                self.0 |= other.0;
            }
        })*
    };
}

sets! {
    /// Projections of a block, joined by `|`.
    Projections {
        /// Attention query.
        QUERY = DLORA_SITE_QUERY,
        /// Attention key.
        KEY = DLORA_SITE_KEY,
        /// Attention value.
        VALUE = DLORA_SITE_VALUE,
        /// Attention output projection.
        OUTPUT = DLORA_SITE_OUTPUT,
        /// First layer of the MLP.
        FC1 = DLORA_SITE_FC1,
        /// Second layer of the MLP.
        FC2 = DLORA_SITE_FC2,
    }
    /// Terms that a pass adds, joined by `|`.
    Terms {
        /// Merged updates of finished tasks.
        MERGED = DLORA_TERM_MERGED,
        /// The orthogonal pair of the open task.
        ORTHOGONAL = DLORA_TERM_ORTHOGONAL,
        /// The residual pair of the open task.
        RESIDUAL = DLORA_TERM_RESIDUAL,
    }
}
