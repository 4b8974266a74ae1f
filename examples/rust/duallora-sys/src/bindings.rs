// Generated from include/duallora/duallora.h; do not edit. README.md says how to update it.
// SPDX-License-Identifier: Apache-2.0

pub const DLORA_VERSION_MAJOR: u32 = 0;
pub const DLORA_VERSION_MINOR: u32 = 9;
pub const DLORA_VERSION_PATCH: u32 = 0;
pub const DLORA_AUTO: dlora_auto = -1;
/// For options that name it: let the library choose.
pub type dlora_auto = ::std::os::raw::c_int;
pub const DLORA_OK: dlora_status_code = 0;
pub const DLORA_ERR_ARGUMENT: dlora_status_code = 1;
pub const DLORA_ERR_NO_MEMORY: dlora_status_code = 2;
pub const DLORA_ERR_STRUCT_SIZE: dlora_status_code = 3;
pub const DLORA_ERR_STATE: dlora_status_code = 4;
pub const DLORA_ERR_IO: dlora_status_code = 5;
pub const DLORA_ERR_FORMAT: dlora_status_code = 6;
pub const DLORA_ERR_MISMATCH: dlora_status_code = 7;
pub const DLORA_ERR_NOT_FINITE: dlora_status_code = 8;
pub const DLORA_ERR_CANCELLED: dlora_status_code = 9;
pub const DLORA_ERR_UNSUPPORTED: dlora_status_code = 10;
pub const DLORA_ERR_NUMERIC: dlora_status_code = 11;
pub const DLORA_STATUS_COUNT_: dlora_status_code = 12;
/// Values of a dlora_status. New codes may be added: treat an unknown one as a failure.
pub type dlora_status_code = ::std::os::raw::c_uint;
/// Result of a call: an enum dlora_status_code, 0 for success.
pub type dlora_status = i32;
extern "C" {
    /// Name of a status, as "DLORA_ERR_IO"; "DLORA_ERR_?" for an unknown code. Static storage.
    pub fn dlora_status_name(status: dlora_status) -> *const ::std::os::raw::c_char;
}
extern "C" {
    /// Sentence on the last failure in the calling thread; "" if there was none. Borrowed until the thread's next failure.
    pub fn dlora_last_error() -> *const ::std::os::raw::c_char;
}
extern "C" {
    /// The library's version, as "0.9.0". Static storage.
    pub fn dlora_version() -> *const ::std::os::raw::c_char;
}
extern "C" {
    /** Kernels, packed products, threads and BLAS in use on this machine, as "kernels avx512; packed products float32 and
 bfloat16; OpenMP; OpenBLAS ...". Borrowed until the thread's next call of this function.*/
    pub fn dlora_build_info() -> *const ::std::os::raw::c_char;
}
/** \defgroup group_types Common types
  Handles, memory, images, callbacks and times.
  \{*/
#[repr(C)]
#[derive(Debug)]
pub struct dlora_model {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct dlora_bank {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct dlora_projector {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct dlora_predictor {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct dlora_session {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct dlora_learner {
    _unused: [u8; 0],
}
/** Memory for one handle. Several threads may call both functions at once, also within one call on the handle. No
 exception, panic or longjmp may leave them. Handles copy the struct and keep `user`. The C library's malloc serves
 JSON headers of files in any case.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_allocator {
    ///< returns memory aligned as by malloc, or NULL
    pub allocate: ::std::option::Option<
        unsafe extern "C" fn(
            size: usize,
            user: *mut ::std::os::raw::c_void,
        ) -> *mut ::std::os::raw::c_void,
    >,
    ///< frees it
    pub release: ::std::option::Option<
        unsafe extern "C" fn(
            pointer: *mut ::std::os::raw::c_void,
            user: *mut ::std::os::raw::c_void,
        ),
    >,
    ///< passed to both
    pub user: *mut ::std::os::raw::c_void,
}
/** A batch of images of one size. Exactly one of u8 and f32 is set. This struct never grows.

 u8: [count, height, width, channels] in 0 ... 255. Images become image_size pixels a side as the model's resize,
 interpolation and crop_fraction say (dlora_model_options), clipped to 0 ... 255 but never rounded, and are normalised
 by the model's mean and standard deviation. Every function of the library does the same.

 f32: [count, 3, height, width], normalised already: (pixel / 255 - mean) / std with the model's values. Height and
 width must be the model's image size. Values must lie within 20 times the largest magnitude of a normalised pixel, or
 within 20 if that magnitude is below 1. This is 20 for mean and std 0.5, and 53 for those of ImageNet. The bound
 refuses pixels in 0 ... 255, which belong into u8, and no known augmentation (ARGUMENT).*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_images {
    ///< bytes, or NULL
    pub u8_: *const u8,
    ///< normalised floats, or NULL
    pub f32_: *const f32,
    ///< number of images, >= 1
    pub count: usize,
    ///< pixels
    pub height: usize,
    ///< pixels
    pub width: usize,
    ///< of u8: 3 (RGB) or 1 (gray, expanded to RGB); 0 means 3. Of f32: 3 or 0
    pub channels: usize,
}
/** Reads image `index` of a source. Sets *image to ONE image (count 1), whose pixels must stay valid until the next
 call. Returns 0, or non-zero to stop; the library's call then fails with DLORA_ERR_IO, which names the index. It is
 called from the thread of the library's call, never concurrently. No exception, panic or longjmp may leave it.*/
pub type dlora_read_image_fn = ::std::option::Option<
    unsafe extern "C" fn(
        index: usize,
        image: *mut dlora_images,
        user: *mut ::std::os::raw::c_void,
    ) -> i32,
>;
/// Labelled images that the library reads one by one, so that they need not fit in memory.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_image_source {
    pub struct_size: usize,
    ///< reads one image; required
    pub read: dlora_read_image_fn,
    ///< passed to read
    pub user: *mut ::std::os::raw::c_void,
    ///< number of images, >= 1
    pub count: usize,
    ///< [count] class ids, any values
    pub labels: *const i64,
    ///< [count] true tasks, for evaluation where classes recur; NULL: by class
    pub tasks: *const i64,
}
extern "C" {
    /// Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_image_source).
    pub fn dlora_image_source_init(
        source: *mut dlora_image_source,
        size: usize,
    ) -> dlora_status;
}
///< images before training
pub const DLORA_PHASE_OBSERVE: dlora_phase = 0;
///< optimizer steps
pub const DLORA_PHASE_TRAIN: dlora_phase = 1;
///< images after training
pub const DLORA_PHASE_STATISTICS: dlora_phase = 2;
///< dlora_learner_evaluate
pub const DLORA_PHASE_EVALUATE: dlora_phase = 3;
/// Phases of learning and evaluation.
pub type dlora_phase = ::std::os::raw::c_uint;
/// Progress of a call, as a progress callback receives it.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_progress {
    pub struct_size: usize,
    ///< index of the open task; in an evaluation the number of tasks
    pub task: i64,
    ///< images (observe, statistics, evaluate) or steps (train) done
    pub done: usize,
    ///< images or steps of the phase
    pub total: usize,
    ///< running mean of the training loss; NaN outside training
    pub loss: f64,
    ///< in this phase; 0 before it is known
    pub images_per_second: f64,
    ///< enum dlora_phase
    pub phase: i32,
    ///< 0
    pub reserved: i32,
}
/** Receives progress, which lives during the call only. Returns 0 to continue, any other value to cancel. No exception,
 panic or longjmp may leave it.*/
pub type dlora_progress_fn = ::std::option::Option<
    unsafe extern "C" fn(
        progress: *const dlora_progress,
        user: *mut ::std::os::raw::c_void,
    ) -> i32,
>;
pub const DLORA_LOG_INFO: dlora_log_level = 0;
pub const DLORA_LOG_WARNING: dlora_log_level = 1;
/// Levels of log lines.
pub type dlora_log_level = ::std::os::raw::c_uint;
/** Receives one line without a newline, which lives during the call only. level: enum dlora_log_level. It cannot stop
 the library's call. No exception, panic or longjmp may leave it.*/
pub type dlora_log_fn = ::std::option::Option<
    unsafe extern "C" fn(
        level: i32,
        message: *const ::std::os::raw::c_char,
        user: *mut ::std::os::raw::c_void,
    ),
>;
/** Time that a handle has spent since its creation, in seconds. Times of a session are sums over its threads; those of
 a learner are of the calling thread. Reading images from a source, checks and waiting are not included.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_profile {
    pub struct_size: usize,
    ///< session: images resized, augmented, normalised and cut into patches
    pub preprocessing: f64,
    ///< session: products with the model's weights and biases, forward and backward
    pub products: f64,
    ///< session: the bank's terms at its sites, forward and backward
    pub adapters: f64,
    ///< session: scores, softmax and weighted values of all heads, forward and backward
    pub attention: f64,
    ///< session: layer norms, forward and backward
    pub norms: f64,
    ///< session: GELU, forward and backward
    pub activation: f64,
    ///< session: copies of the residual stream
    pub copies: f64,
    ///< learner: logits and cross-entropy of training steps, forward and backward
    pub loss: f64,
    ///< learner: updates of the trained parameters
    pub optimizer: f64,
    ///< learner: second moments and class statistics
    pub observation: f64,
    ///< learner: dlora_learner_begin_training
    pub directions: f64,
    ///< learner: dlora_learner_commit_task
    pub task_end: f64,
}
extern "C" {
    /// Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_profile).
    pub fn dlora_profile_init(profile: *mut dlora_profile, size: usize) -> dlora_status;
}
///< float32 by the BLAS: the reference
pub const DLORA_PRODUCTS_BLAS: dlora_products = 0;
///< float32; needs AVX-512
pub const DLORA_PRODUCTS_PACKED: dlora_products = 1;
///< factors rounded to bfloat16, sums in float32; needs AVX512_BF16, uses AMX
pub const DLORA_PRODUCTS_BFLOAT16: dlora_products = 2;
/** Implementations of products with a model's weights. Everything else is float32: norms, attention, adapters,
 statistics. The packed ones keep copies of the weights in the order in which the processor reads them. They need
 oneDNN, which is loaded with the first such model.*/
pub type dlora_products = ::std::os::raw::c_uint;
///< the class token, after the final norm
pub const DLORA_POOL_CLASS: dlora_pool = 0;
///< the mean of the patch tokens
pub const DLORA_POOL_MEAN_PATCHES: dlora_pool = 1;
///< the mean of all tokens
pub const DLORA_POOL_MEAN_TOKENS: dlora_pool = 2;
///< the mean of class and distillation token, after the final norm (DeiT)
pub const DLORA_POOL_DISTILLED: dlora_pool = 3;
///< attention of a learnt query to the patch tokens, and an MLP (SigLIP)
pub const DLORA_POOL_ATTENTION: dlora_pool = 4;
/// What makes the feature [embed_dim] of an image out of the tokens behind the last block.
pub type dlora_pool = ::std::os::raw::c_uint;
///< x Phi(x), exact
pub const DLORA_ACTIVATION_GELU: dlora_activation = 0;
///< GELU by tanh (SigLIP)
pub const DLORA_ACTIVATION_GELU_TANH: dlora_activation = 1;
///< x sigmoid(1.702 x) (OpenAI's CLIP)
pub const DLORA_ACTIVATION_QUICK_GELU: dlora_activation = 2;
/**< silu(gate) up, with fc1 = [gate; up], 2 mlp_dim outputs, and fc2 of mlp_dim inputs
(DINOv2-g, DINOv3 S+ and H+)*/
pub const DLORA_ACTIVATION_SWIGLU: dlora_activation = 3;
/** Activations of the MLP in a block. Only SwiGLU is told by the tensors. Of the others the option counts, else the
 file's metadata (hidden_act or activation, in the names of transformers), else the family: quick GELU for CLIP in
 Hugging Face's names, GELU by tanh for SigLIP in these, GELU for all else, as for CLIP and SigLIP in timm's names.*/
pub type dlora_activation = ::std::os::raw::c_uint;
///< bicubic with a = -0.5 and antialiasing; default for timm's names
pub const DLORA_POSITIONS_TIMM: dlora_position_resampling = 0;
///< bicubic with a = -0.75, no antialiasing; default for Hugging Face's names
pub const DLORA_POSITIONS_HUGGING_FACE: dlora_position_resampling = 1;
/// How position embeddings are resampled to another grid.
pub type dlora_position_resampling = ::std::os::raw::c_uint;
///< both sides to image_size / crop_fraction, whatever the aspect ratio
pub const DLORA_RESIZE_SQUASH: dlora_resize = 0;
///< the shorter side to image_size / crop_fraction; the aspect ratio stays
pub const DLORA_RESIZE_CROP: dlora_resize = 1;
/// How images of bytes are resized, before the centre of image_size pixels a side is cut out.
pub type dlora_resize = ::std::os::raw::c_uint;
pub const DLORA_INTERPOLATION_BICUBIC: dlora_interpolation = 0;
pub const DLORA_INTERPOLATION_BILINEAR: dlora_interpolation = 1;
/// Kernels of image resizing, both with antialiasing.
pub type dlora_interpolation = ::std::os::raw::c_uint;
/// Options of loading a model. 0, NULL or DLORA_AUTO means: as in the files; see dlora_model_load.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_model_options {
    pub struct_size: usize,
    ///< default NULL: malloc and free
    pub allocator: *const dlora_allocator,
    ///< attention heads, a divisor of embed_dim; required if no file tells it
    pub num_heads: usize,
    ///< pixels a side, a multiple of patch_size; position embeddings are resampled
    pub image_size: usize,
    ///< in (0, 1); default 0: as in the files, else 1e-6
    pub layer_norm_eps: f32,
    ///< of pixels in [0, 1]; used if std is set
    pub mean: [f32; 3usize],
    ///< of pixels, > 0; default all 0: as in the files, else mean and std 0.5
    pub std: [f32; 3usize],
    ///< enum dlora_products; default BLAS. Unavailable ones are refused
    pub products: i32,
    ///< of dlora_model_embed; 1 to 4096; default DLORA_AUTO: all processors
    pub threads: i32,
    ///< 0
    pub reserved: i32,
    ///< prefix of the backbone's tensor names, as "teacher."; "": none; default NULL: found
    pub prefix: *const ::std::os::raw::c_char,
    ///< enum dlora_pool; default DLORA_AUTO: as in the file
    pub pool: i32,
    ///< enum dlora_activation; default DLORA_AUTO: as in the file
    pub activation: i32,
    ///< enum dlora_position_resampling; default DLORA_AUTO: as in the file, else by names
    pub position_resampling: i32,
    ///< enum dlora_resize; default DLORA_AUTO: as in the file, else SQUASH
    pub resize: i32,
    ///< enum dlora_interpolation; default DLORA_AUTO: as in the file, else BICUBIC
    pub interpolation: i32,
    ///< 0.01 ... 1; default 0: as in the file, else 1, as where resize is not the file's
    pub crop_fraction: f32,
    ///< folder of a LoRA of PEFT to merge into the weights; default NULL: none
    pub adapter: *const ::std::os::raw::c_char,
}
///< timm: ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP, EVA
pub const DLORA_NAMING_TIMM: dlora_naming = 0;
///< Hugging Face: ViT, DeiT
pub const DLORA_NAMING_HF_VIT: dlora_naming = 1;
///< Hugging Face: DINOv2, with and without register tokens
pub const DLORA_NAMING_HF_DINOV2: dlora_naming = 2;
///< Hugging Face: CLIP
pub const DLORA_NAMING_HF_CLIP: dlora_naming = 3;
///< Hugging Face: SigLIP
pub const DLORA_NAMING_HF_SIGLIP: dlora_naming = 4;
///< Hugging Face: DINOv3
pub const DLORA_NAMING_HF_DINOV3: dlora_naming = 5;
///< Hugging Face: AIMv2
pub const DLORA_NAMING_HF_AIMV2: dlora_naming = 6;
/// Schemes of tensor names.
pub type dlora_naming = ::std::os::raw::c_uint;
/// Description of a loaded model.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_model_info {
    pub struct_size: usize,
    ///< D, width of tokens and features
    pub embed_dim: usize,
    ///< transformer blocks
    pub depth: usize,
    ///< attention heads
    pub num_heads: usize,
    ///< inputs of fc2; fc1 has as many outputs, or twice as many with SwiGLU
    pub mlp_dim: usize,
    ///< pixels a side
    pub patch_size: usize,
    ///< pixels a side
    pub image_size: usize,
    ///< prefix tokens + patches
    pub num_tokens: usize,
    ///< of the backbone, without heads
    pub num_parameters: usize,
    ///< normalisation of images
    pub mean: [f32; 3usize],
    ///< normalisation of images
    pub std: [f32; 3usize],
    ///< epsilon of the layer norms
    pub layer_norm_eps: f32,
    ///< enum dlora_naming
    pub naming: i32,
    ///< identifies weights and geometry: hexadecimal, NUL-terminated
    pub fingerprint: [::std::os::raw::c_char; 40usize],
    ///< enum dlora_products
    pub products: i32,
    ///< 0
    pub reserved: i32,
    ///< tokens before the patches: class, distillation and register tokens
    pub num_prefix_tokens: usize,
    ///< enum dlora_pool
    pub pool: i32,
    ///< enum dlora_activation
    pub activation: i32,
    ///< enum dlora_position_resampling
    pub position_resampling: i32,
    ///< enum dlora_resize
    pub resize: i32,
    ///< enum dlora_interpolation
    pub interpolation: i32,
    ///< image_size over the resized side
    pub crop_fraction: f32,
}
extern "C" {
    /// Sets struct_size, and every other member to 0. size: sizeof(dlora_model_info).
    pub fn dlora_model_info_init(
        info: *mut dlora_model_info,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /// Sets every member to its default. size: sizeof(dlora_model_options) of the caller.
    pub fn dlora_model_options_init(
        options: *mut dlora_model_options,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Loads a ViT with tensor names of timm, Hugging Face ViT or Hugging Face DINOv2, in F32, F16 or BF16. options NULL:
 defaults.

 path is a safetensors file, or a folder as hubs ship them. Of a folder are read: model.safetensors, or the parts that
 model.safetensors.index.json names, or the only file that ends in .safetensors; config.json and
 preprocessor_config.json, in the forms of transformers and of timm, as far as they are there. Of a file nothing
 beside it is read. Symbolic links are followed.

 Shapes give patch size, depth and widths. What they do not tell is taken from the first that tells it:

     1  options
     2  metadata of the safetensors file, by the names of the options; also num_attention_heads
     3  the two JSON files; of the size of images, the preprocessor's counts before the one of training
     4  a table, by what config.json names: timm's architecture, or a model type of transformers
     5  defaults of the names' family

 dlora_model_get_setting says which it was. An activation, pooling or attribute in the JSON files that is not
 supported is refused, and so is what contradicts the tensors.

 With options->adapter the weights are W + (alpha / r) B A of a LoRA that PEFT has saved (adapter_config.json and
 adapter_model.safetensors), and the fingerprint is theirs. Modules are named as in the file, or as in transformers 5.
 DoRA, biases, other kinds of adapters, and factors that belong to no projection are refused; heads saved beside them
 are not used.

 The weights are refused if they have a tensor under the names' prefix that is neither used nor known to leave the
 features unchanged (heads, mask token). They are also refused if there are several ViTs, unless options->prefix
 chooses one; tensors outside a chosen prefix are ignored. Files are memory-mapped and must not change while the model
 lives.

 Errors: IO; FORMAT, naming the tensor, the key or the kind of file; UNSUPPORTED, for a tensor of another kind of ViT
 or unknown use, unknown names, an attribute that is not supported, or products that processor, system or build do not
 support; ARGUMENT also if num_heads or prefix is required or a value does not fit the file.*/
    pub fn dlora_model_load(
        out: *mut *mut dlora_model,
        path: *const ::std::os::raw::c_char,
        options: *const dlora_model_options,
    ) -> dlora_status;
}
extern "C" {
    /** Loads a ViT as dlora_model_load does, from a file's bytes in memory. bytes [size] must outlive the model and need no
 alignment.*/
    pub fn dlora_model_load_memory(
        out: *mut *mut dlora_model,
        bytes: *const ::std::os::raw::c_void,
        size: usize,
        options: *const dlora_model_options,
    ) -> dlora_status;
}
extern "C" {
    /// Frees the model. Its learners and sessions must be destroyed before.
    pub fn dlora_model_destroy(model: *mut dlora_model);
}
extern "C" {
    /// Fills *info; info->struct_size must be set.
    pub fn dlora_model_get_info(
        model: *const dlora_model,
        info: *mut dlora_model_info,
    ) -> dlora_status;
}
///< the caller's options
pub const DLORA_ORIGIN_OPTION: dlora_origin = 0;
///< metadata of the safetensors file
pub const DLORA_ORIGIN_METADATA: dlora_origin = 1;
///< config.json or preprocessor_config.json
pub const DLORA_ORIGIN_JSON: dlora_origin = 2;
///< the library's table of architectures and model types, by a name in config.json
pub const DLORA_ORIGIN_TABLE: dlora_origin = 3;
///< tensors and their shapes
pub const DLORA_ORIGIN_TENSORS: dlora_origin = 4;
///< default of the family
pub const DLORA_ORIGIN_DEFAULT: dlora_origin = 5;
/// Who said what a setting of a model is.
pub type dlora_origin = ::std::os::raw::c_uint;
/// One setting of a model: what shapes do not tell. Texts live as long as the model.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_model_setting {
    pub struct_size: usize,
    ///< as the member of dlora_model_options
    pub name: *const ::std::os::raw::c_char,
    ///< a number, three with commas between them, or a word as `quick-gelu`
    pub value: *const ::std::os::raw::c_char,
    ///< file and key, as `config.json: hidden_act` or `metadata num_heads`; else ""
    pub place: *const ::std::os::raw::c_char,
    ///< enum dlora_origin
    pub origin: i32,
    ///< 0
    pub reserved: i32,
}
extern "C" {
    /// Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_model_setting).
    pub fn dlora_model_setting_init(
        setting: *mut dlora_model_setting,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /// Number of settings. 0 for NULL.
    pub fn dlora_model_num_settings(model: *const dlora_model) -> usize;
}
extern "C" {
    /// Setting `index`, below dlora_model_num_settings. Error: ARGUMENT.
    pub fn dlora_model_get_setting(
        model: *const dlora_model,
        index: usize,
        setting: *mut dlora_model_setting,
    ) -> dlora_status;
}
extern "C" {
    /** Computes class-token features after the final norm: features [images->count, embed_dim]. The model keeps one
 workspace for each call in progress, for later calls, until it is destroyed. Error: NOT_FINITE.*/
    pub fn dlora_model_embed(
        model: *const dlora_model,
        images: *const dlora_images,
        features: *mut f32,
    ) -> dlora_status;
}
///< attention query
pub const DLORA_SITE_QUERY: dlora_projection = 1;
///< attention key
pub const DLORA_SITE_KEY: dlora_projection = 2;
///< attention value
pub const DLORA_SITE_VALUE: dlora_projection = 4;
///< attention output projection
pub const DLORA_SITE_OUTPUT: dlora_projection = 8;
///< first layer of the MLP
pub const DLORA_SITE_FC1: dlora_projection = 16;
///< second layer of the MLP
pub const DLORA_SITE_FC2: dlora_projection = 32;
/// Projections of a block; sites of a ViT.
pub type dlora_projection = ::std::os::raw::c_uint;
/// One adapted linear layer. A dlora_session reads block and projection; elsewhere they may have any value.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_site {
    ///< width of the layer's input, >= 1
    pub input_dim: usize,
    ///< width of its output, >= 1
    pub output_dim: usize,
    ///< 0 ... depth - 1
    pub block: i32,
    ///< one enum dlora_projection
    pub projection: i32,
}
pub const DLORA_OPTIMIZER_ADAM: dlora_optimizer = 0;
pub const DLORA_OPTIMIZER_SGD: dlora_optimizer = 1;
/// Optimizers of trained parameters.
pub type dlora_optimizer = ::std::os::raw::c_uint;
/// Options of a bank.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_bank_options {
    pub struct_size: usize,
    ///< default NULL: malloc and free
    pub allocator: *const dlora_allocator,
    ///< enum dlora_optimizer; default ADAM
    pub optimizer: i32,
    ///< Adam; default 0.9; [0, 1)
    pub beta1: f32,
    ///< Adam; default 0.999; [0, 1)
    pub beta2: f32,
    ///< Adam; default 1e-8; > 0
    pub epsilon: f32,
    ///< SGD; default 0.9; [0, 1)
    pub momentum: f32,
    ///< decoupled: a step shrinks parameters by learning_rate * weight_decay; default 0
    pub weight_decay: f32,
}
///< M: merged updates of finished tasks
pub const DLORA_TERM_MERGED: dlora_terms = 1;
///< orthogonal pair (A', B') of the open task
pub const DLORA_TERM_ORTHOGONAL: dlora_terms = 2;
///< residual pair (A_t, B_t) of the open task
pub const DLORA_TERM_RESIDUAL: dlora_terms = 4;
/// Terms of equation (1) that a pass adds; or-ed.
pub type dlora_terms = ::std::os::raw::c_uint;
/// One low-rank adapter. Its update is B A.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_adapter {
    ///< [rank, input_dim]
    pub a: *const f32,
    ///< [output_dim, rank]
    pub b: *const f32,
    ///< 0: no adapter; a and b are then NULL
    pub rank: usize,
}
extern "C" {
    /// Sets every member to its default. size: sizeof(dlora_bank_options) of the caller.
    pub fn dlora_bank_options_init(
        options: *mut dlora_bank_options,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /// Creates a bank for linear layers sites [num_sites], which are copied. num_sites >= 1. options NULL: defaults.
    pub fn dlora_bank_create(
        out: *mut *mut dlora_bank,
        sites: *const dlora_site,
        num_sites: usize,
        options: *const dlora_bank_options,
    ) -> dlora_status;
}
extern "C" {
    /// Frees the bank. Its sessions must be destroyed before.
    pub fn dlora_bank_destroy(bank: *mut dlora_bank);
}
extern "C" {
    /// Number of sites; 0 for NULL.
    pub fn dlora_bank_num_sites(bank: *const dlora_bank) -> usize;
}
extern "C" {
    /// Number of finished tasks; 0 for NULL.
    pub fn dlora_bank_num_tasks(bank: *const dlora_bank) -> usize;
}
extern "C" {
    /// Sets *out to the site as given at creation. site: 0 ... num_sites - 1.
    pub fn dlora_bank_get_site(
        bank: *const dlora_bank,
        site: usize,
        out: *mut dlora_site,
    ) -> dlora_status;
}
extern "C" {
    /// Opens a task whose pairs have rank 0 at every site. Error: STATE if one is open.
    pub fn dlora_bank_begin_task(bank: *mut dlora_bank) -> dlora_status;
}
extern "C" {
    /** Sets the open task's orthogonal pair at a site (METHOD.md 4). a [rank, input_dim] becomes A', B' becomes 0.

 B' is trained. Without a projector A' is fixed. With a projector, whose dim is input_dim, A' is trained too, and
 every step multiplies its update by P = I - Phi Phi^T; the projector is borrowed until the task ends. rank <=
 input_dim; 0 removes the pair. Resets the optimizer. Errors: STATE, NOT_FINITE, MISMATCH.*/
    pub fn dlora_bank_set_orthogonal(
        bank: *mut dlora_bank,
        site: usize,
        a: *const f32,
        rank: usize,
        projector: *const dlora_projector,
    ) -> dlora_status;
}
extern "C" {
    /// Sets the open task's residual pair (A_t, B_t) in the same way (METHOD.md 5). train_a not 0: A_t is trained too.
    pub fn dlora_bank_set_residual(
        bank: *mut dlora_bank,
        site: usize,
        a: *const f32,
        rank: usize,
        train_a: i32,
    ) -> dlora_status;
}
extern "C" {
    /** Lends the trained parameters of the open task and their gradients, two contiguous arrays [*count].

 For each site in order: B' [output_dim, rank], A' if trained, B_t, A_t if trained. Borrowed until a set_, commit_ or
 discard_ call. Each pointer may be NULL. Error: STATE.*/
    pub fn dlora_bank_get_parameters(
        bank: *mut dlora_bank,
        parameters: *mut *mut f32,
        gradients: *mut *mut f32,
        count: *mut usize,
    ) -> dlora_status;
}
extern "C" {
    /** Adds chosen terms of equation (1) to y [rows, output_dim], for x [rows, input_dim]. The caller adds W h + b.

 terms: enum dlora_terms, or-ed; those of pairs need an open task (STATE). routing: [rows / rows_per_item, num_tasks],
 the weights w_s of each item of rows_per_item consecutive rows; NULL: no residual adapter of a finished task. rows
 must be a multiple of rows_per_item.*/
    pub fn dlora_bank_forward(
        bank: *const dlora_bank,
        site: usize,
        x: *const f32,
        rows: usize,
        terms: i32,
        routing: *const f32,
        rows_per_item: usize,
        y: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Adds the gradients of the open task's factors at one site to those of the bank. Adds the input's gradient through
 the terms to dx [rows, input_dim], unless dx is NULL. x [rows, input_dim] as in forward; dy: [rows, output_dim].
 Error: STATE without an open task or after dlora_bank_set_merge_fractions.*/
    pub fn dlora_bank_backward(
        bank: *mut dlora_bank,
        site: usize,
        x: *const f32,
        dy: *const f32,
        rows: usize,
        terms: i32,
        dx: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Takes one optimizer step with the gradients and sets these to 0. learning_rate >= 0. Errors: STATE; NOT_FINITE if a
 gradient is, and nothing changes.*/
    pub fn dlora_bank_step(bank: *mut dlora_bank, learning_rate: f32) -> dlora_status;
}
extern "C" {
    /** Sets the fractions of both updates merged into M at task end (2a), and thereby ends training.

 commit_task then adds orthogonal * B'A' + residual * B_t A_t to M and keeps (A_t, (1 - residual) B_t). Until then,
 DLORA_TERM_ORTHOGONAL stands for the merged part of both updates and DLORA_TERM_RESIDUAL for the kept one; backward
 is refused. Both fractions lie in [0, 1]; without this call they are 1 and 0 (paper). May be called again. Error:
 STATE.*/
    pub fn dlora_bank_set_merge_fractions(
        bank: *mut dlora_bank,
        orthogonal: f32,
        residual: f32,
    ) -> dlora_status;
}
extern "C" {
    /** Ends the task: M gets the merge fractions of both updates, by default all of B'A' and nothing of B_t A_t. What
 remains of the residual pair becomes the adapter of task num_tasks. Error: STATE.*/
    pub fn dlora_bank_commit_task(bank: *mut dlora_bank) -> dlora_status;
}
extern "C" {
    /// Drops the open task, as if begin_task had not been called. Error: STATE.
    pub fn dlora_bank_discard_task(bank: *mut dlora_bank) -> dlora_status;
}
extern "C" {
    /// Sets *merged to M [output_dim, input_dim] of a site, or to NULL while M is zero. Borrowed.
    pub fn dlora_bank_get_merged(
        bank: *const dlora_bank,
        site: usize,
        merged: *mut *const f32,
    ) -> dlora_status;
}
extern "C" {
    /// Sets *out to the residual adapter of a finished task at a site. Its arrays are borrowed.
    pub fn dlora_bank_get_residual(
        bank: *const dlora_bank,
        site: usize,
        task: i64,
        out: *mut dlora_adapter,
    ) -> dlora_status;
}
extern "C" {
    /// Writes the finished tasks as a safetensors file, atomically. An open task is not written. Error: IO.
    pub fn dlora_bank_save(
        bank: *const dlora_bank,
        path: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
extern "C" {
    /// Reads a bank from a file of dlora_bank_save. options NULL: defaults; options are not stored. Errors: IO, FORMAT.
    pub fn dlora_bank_load(
        out: *mut *mut dlora_bank,
        path: *const ::std::os::raw::c_char,
        options: *const dlora_bank_options,
    ) -> dlora_status;
}
/// Options of a projector.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_projector_options {
    pub struct_size: usize,
    ///< default NULL: malloc and free
    pub allocator: *const dlora_allocator,
}
extern "C" {
    /// Sets every member to its default. size: sizeof(dlora_projector_options) of the caller.
    pub fn dlora_projector_options_init(
        options: *mut dlora_projector_options,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /// Creates a projector without directions for inputs of width dim: m = 0, P = I. dim: 1 ... INT_MAX / 64.
    pub fn dlora_projector_create(
        out: *mut *mut dlora_projector,
        dim: usize,
        options: *const dlora_projector_options,
    ) -> dlora_status;
}
extern "C" {
    /// Copies a projector, including its observations.
    pub fn dlora_projector_clone(
        out: *mut *mut dlora_projector,
        projector: *const dlora_projector,
    ) -> dlora_status;
}
extern "C" {
    /// Frees the projector.
    pub fn dlora_projector_destroy(projector: *mut dlora_projector);
}
extern "C" {
    /// Width of the input; 0 for NULL.
    pub fn dlora_projector_dim(projector: *const dlora_projector) -> usize;
}
extern "C" {
    /// m: number of used directions, 0 ... dim; 0 for NULL.
    pub fn dlora_projector_size(projector: *const dlora_projector) -> usize;
}
extern "C" {
    /// Number of finished tasks; 0 for NULL.
    pub fn dlora_projector_num_tasks(projector: *const dlora_projector) -> usize;
}
extern "C" {
    /// Number of rows observed since the last commit or discard; 0 for NULL.
    pub fn dlora_projector_num_observed(projector: *const dlora_projector) -> u64;
}
extern "C" {
    /** Adds rows x [rows, dim] to the second moment S of the open task, in float64. The first observation opens the task.
 Error: NOT_FINITE.*/
    pub fn dlora_projector_observe(
        projector: *mut dlora_projector,
        x: *const f32,
        rows: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Adds the observations of another projector of the same dim. Parts of a task may thus be observed apart. Error:
 MISMATCH.*/
    pub fn dlora_projector_merge_observed(
        projector: *mut dlora_projector,
        other: *const dlora_projector,
    ) -> dlora_status;
}
extern "C" {
    /// Drops the observations since the last commit.
    pub fn dlora_projector_discard_task(projector: *mut dlora_projector) -> dlora_status;
}
extern "C" {
    /** Finds the k unused directions with most observed energy: leading eigenvectors of P S P, InfLoRA's choice of A'
 (METHOD.md 4). directions [k, dim] gets *found orthonormal rows; *found < k if no direction or no energy is left.
 Error: STATE without observations.*/
    pub fn dlora_projector_unused_directions(
        projector: *const dlora_projector,
        k: usize,
        directions: *mut f32,
        found: *mut usize,
    ) -> dlora_status;
}
extern "C" {
    /** Finds the first k directions that commit_task would add with this threshold in (0, 1] (METHOD.md 5,
 DLORA_RESIDUAL_IN_NEW). directions and *found as above. Error: STATE without observations.*/
    pub fn dlora_projector_task_directions(
        projector: *const dlora_projector,
        energy_threshold: f32,
        k: usize,
        directions: *mut f32,
        found: *mut usize,
    ) -> dlora_status;
}
extern "C" {
    /** Finds the k directions inside span(Phi) with most observed energy (METHOD.md 5, DLORA_RESIDUAL_IN_USED). directions
 and *found as above. Error: STATE without observations.*/
    pub fn dlora_projector_used_directions(
        projector: *const dlora_projector,
        k: usize,
        directions: *mut f32,
        found: *mut usize,
    ) -> dlora_status;
}
extern "C" {
    /** Ends a task: adds as few leading eigenvectors of P S P as satisfy (2), as group Psi_t. Phi then holds the fraction
 energy_threshold in (0, 1] of trace(S). *added (may be NULL): their number, possibly 0. Error: STATE without
 observations.*/
    pub fn dlora_projector_commit_task(
        projector: *mut dlora_projector,
        energy_threshold: f32,
        added: *mut usize,
    ) -> dlora_status;
}
extern "C" {
    /// Sets *bases to the group Psi_s of finished task s = task: [*count, dim], orthonormal rows. Borrowed.
    pub fn dlora_projector_get_bases(
        projector: *const dlora_projector,
        task: i64,
        bases: *mut *const f32,
        count: *mut usize,
    ) -> dlora_status;
}
extern "C" {
    /// Multiplies each row of x [rows, dim] by P, in place: removes its part inside span(Phi). Error: NOT_FINITE.
    pub fn dlora_projector_project(
        projector: *const dlora_projector,
        x: *mut f32,
        rows: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Adds rows x [rows, dim] of a finished task to its mean energy fraction, by which dlora_projector_route divides.
 Error: NOT_FINITE.*/
    pub fn dlora_projector_calibrate(
        projector: *mut dlora_projector,
        task: i64,
        x: *const f32,
        rows: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Computes routing weights by energy (METHOD.md 6): routing [rows, num_tasks] for x [rows, dim]. Each is |Psi_s^T x|^2
 / |x|^2 over its mean on task s's own rows, clipped to [0, 1]. The mean of a task never calibrated is 1. Error:
 NOT_FINITE.*/
    pub fn dlora_projector_route(
        projector: *const dlora_projector,
        x: *const f32,
        rows: usize,
        routing: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /// Writes the finished tasks as a safetensors file, atomically. Observations are not written. Error: IO.
    pub fn dlora_projector_save(
        projector: *const dlora_projector,
        path: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
extern "C" {
    /// Reads a projector from a file of dlora_projector_save. options NULL: defaults. Errors: IO, FORMAT.
    pub fn dlora_projector_load(
        out: *mut *mut dlora_projector,
        path: *const ::std::os::raw::c_char,
        options: *const dlora_projector_options,
    ) -> dlora_status;
}
///< equation (3): Gaussians with a common covariance
pub const DLORA_READOUT_GAUSSIAN: dlora_readout = 0;
///< ridge regression on a random projection
pub const DLORA_READOUT_RANDOM_PROJECTION: dlora_readout = 1;
/// Readouts of scores.
pub type dlora_readout = ::std::os::raw::c_uint;
/// Options of a predictor.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_predictor_options {
    pub struct_size: usize,
    ///< default NULL: malloc and free
    pub allocator: *const dlora_allocator,
    ///< of the random projection; default 0
    pub seed: u64,
    ///< width of the random projection; default 2000; 1 ... INT_MAX / 64
    pub random_features: usize,
    ///< enum dlora_readout; default GAUSSIAN
    pub readout: i32,
    ///< 1: scores get log(n_c / N), from the component's fraction of images; default 0
    pub use_prior: i32,
    ///< lambda of C, > 0; default DLORA_AUTO: 0.3 dim / (N - K), in [0.001, 1]
    pub shrinkage: f32,
    ///< T > 0 until one is fitted; default 2
    pub temperature: f32,
    ///< > 0, relative to the mean diagonal of the Gram matrix; default 0.01; at least 1e-9 is used
    pub ridge: f32,
    ///< 0
    pub reserved: f32,
}
/// Decision for one image. This struct never grows.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_prediction {
    ///< most probable class
    pub class_id: i64,
    ///< most probable task, from 0
    pub task: i64,
    ///< in [0, 1], calibrated by the temperature
    pub class_probability: f32,
    ///< in [0, 1]
    pub task_probability: f32,
    ///< higher: less like any learned class (METHOD.md 7)
    pub unknown_score: f32,
    ///< 1: unknown_score is above the threshold; 0: it is not, or there is no threshold
    pub unknown: i32,
}
extern "C" {
    /// Sets every member to its default. size: sizeof(dlora_predictor_options) of the caller.
    pub fn dlora_predictor_options_init(
        options: *mut dlora_predictor_options,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /// Creates a predictor for features of width dim, 1 ... INT_MAX / 64. options NULL: defaults.
    pub fn dlora_predictor_create(
        out: *mut *mut dlora_predictor,
        dim: usize,
        options: *const dlora_predictor_options,
    ) -> dlora_status;
}
extern "C" {
    /// Copies a predictor, including its open task.
    pub fn dlora_predictor_clone(
        out: *mut *mut dlora_predictor,
        predictor: *const dlora_predictor,
    ) -> dlora_status;
}
extern "C" {
    /// Frees the predictor.
    pub fn dlora_predictor_destroy(predictor: *mut dlora_predictor);
}
extern "C" {
    /// Width of the features; 0 for NULL.
    pub fn dlora_predictor_dim(predictor: *const dlora_predictor) -> usize;
}
extern "C" {
    /// Number of finished tasks; 0 for NULL.
    pub fn dlora_predictor_num_tasks(predictor: *const dlora_predictor) -> usize;
}
extern "C" {
    /// Number of different classes over all finished tasks; 0 for NULL.
    pub fn dlora_predictor_num_classes(predictor: *const dlora_predictor) -> usize;
}
extern "C" {
    /// Number of components over all finished tasks; 0 for NULL.
    pub fn dlora_predictor_num_components(predictor: *const dlora_predictor) -> usize;
}
extern "C" {
    /// Fills classes [num_classes] in order of first appearance, the column order of class probabilities.
    pub fn dlora_predictor_get_classes(
        predictor: *const dlora_predictor,
        classes: *mut i64,
    ) -> dlora_status;
}
extern "C" {
    /** Fills arrays over components, in order of task, then of appearance: tasks, classes and counts [num_components],
 means [num_components, dim]. Each may be NULL.*/
    pub fn dlora_predictor_get_components(
        predictor: *const dlora_predictor,
        tasks: *mut i64,
        classes: *mut i64,
        counts: *mut u64,
        means: *mut f64,
    ) -> dlora_status;
}
extern "C" {
    /// Fills scatter [dim, dim]: symmetric, pooled around the means of all components.
    pub fn dlora_predictor_get_scatter(
        predictor: *const dlora_predictor,
        scatter: *mut f64,
    ) -> dlora_status;
}
extern "C" {
    /** Returns the matrix R of the random projection: matrix [dim, *random_features], independent standard normal values
 drawn row by row from the seed (METHOD.md 7). Both pointers may be NULL. Error: STATE with the Gaussian readout.*/
    pub fn dlora_predictor_get_projection(
        predictor: *const dlora_predictor,
        random_features: *mut usize,
        matrix: *mut f64,
    ) -> dlora_status;
}
extern "C" {
    /** Adds features [n, dim] with labels [n] to the statistics of the open task. The first observation opens the task. The
 result does not depend on order and batches, to rounding. Error: NOT_FINITE.*/
    pub fn dlora_predictor_observe(
        predictor: *mut dlora_predictor,
        features: *const f32,
        labels: *const i64,
        n: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Adds features [n, dim] with labels [n] of images excluded from training. commit_task counts them like others and
 lets them correct the temperature. Error: NOT_FINITE.*/
    pub fn dlora_predictor_observe_held_out(
        predictor: *mut dlora_predictor,
        features: *const f32,
        labels: *const i64,
        n: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Adds image pairs: features [n, dim] of images, mirrored [n, dim] of the same images mirrored or otherwise changed,
 and labels [n].

 A pair counts as one image and enters with half of either view, so that means and scatter hold what both views have
 in common. Predictions see one view, and so the first views calibrate. held_out not 0: as
 dlora_predictor_observe_held_out. METHOD.md 7. Error: NOT_FINITE.*/
    pub fn dlora_predictor_observe_pair(
        predictor: *mut dlora_predictor,
        features: *const f32,
        mirrored: *const f32,
        labels: *const i64,
        n: usize,
        held_out: i32,
    ) -> dlora_status;
}
extern "C" {
    /// Drops the open task.
    pub fn dlora_predictor_discard_task(predictor: *mut dlora_predictor) -> dlora_status;
}
extern "C" {
    /** Moves the statistics of finished tasks along with features that have drifted while a task was learned (METHOD.md 7).

 before, after: [n, columns], features of the same n images before and after. A ridge map (4) is fitted from one to
 the other. It is applied to columns first_column ... first_column + columns - 1 of means and scatter. Error:
 NOT_FINITE.*/
    pub fn dlora_predictor_compensate_drift(
        predictor: *mut dlora_predictor,
        before: *const f32,
        after: *const f32,
        n: usize,
        first_column: usize,
        columns: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Ends the open task (METHOD.md 7). Features scored as if never observed give the temperature and unknown scores. A
 temperature set by hand stays, unless the task has held-out features. Errors: STATE without observations; NUMERIC.*/
    pub fn dlora_predictor_commit_task(predictor: *mut dlora_predictor) -> dlora_status;
}
extern "C" {
    /** Appends the finished tasks of another predictor of the same dim and options, as further tasks. The weight of the
 broad part of the posterior stays, or becomes other's if predictor has no finished task. Errors: MISMATCH, NUMERIC.*/
    pub fn dlora_predictor_append(
        predictor: *mut dlora_predictor,
        other: *const dlora_predictor,
    ) -> dlora_status;
}
extern "C" {
    /** Merges another predictor of the same dim and options that has observed other images of the SAME tasks. The result is
 that of one predictor which has observed both parts (data-parallel use); open tasks are merged too. Errors: MISMATCH,
 NUMERIC.*/
    pub fn dlora_predictor_merge(
        predictor: *mut dlora_predictor,
        other: *const dlora_predictor,
    ) -> dlora_status;
}
extern "C" {
    /** Computes posteriors of features [n, dim] from scores s of equation (3): 0.8 softmax(s / T) + 0.2 softmax(s / (4 T)),
 with 0.85 and 0.15 for predictors from old files (METHOD.md 7).

 component_log_probs: [n, num_components]. class_log_probs: [n, num_classes], summed over tasks. task_probs: [n,
 num_tasks], summed over classes. unknown_scores: [n]. Each may be NULL. Errors: STATE before the first task,
 NOT_FINITE.*/
    pub fn dlora_predictor_posterior(
        predictor: *const dlora_predictor,
        features: *const f32,
        n: usize,
        component_log_probs: *mut f32,
        class_log_probs: *mut f32,
        task_probs: *mut f32,
        unknown_scores: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Decides for features [n, dim]: predictions [n]. The unknown threshold is the 0.95 quantile. Errors: STATE before the
 first task, NOT_FINITE.*/
    pub fn dlora_predictor_predict(
        predictor: *const dlora_predictor,
        features: *const f32,
        n: usize,
        predictions: *mut dlora_prediction,
    ) -> dlora_status;
}
extern "C" {
    /** Returns the Gaussian scores (3) of columns first_column ... first_column + columns - 1 as a linear layer, score =
 weight z + bias. Only the statistics of these columns enter, whatever the readout.

 weight [K, columns] has rows C^-1 mu_c; bias [K] is -1/2 mu_c^T C^-1 mu_c, plus log(n_c / N) with use_prior. If
 components differ in n_c, bias also has the small-sample correction 0.35 trace(C^-1 scatter / (N - K)) / n_c; 0.35 is
 half of eta (METHOD.md 7). K is num_components. include_open not 0: the open task's components follow and are part of
 C. Values beyond the range of a float become its largest. Errors: STATE before any observation, NUMERIC.*/
    pub fn dlora_predictor_linear_weights(
        predictor: *const dlora_predictor,
        first_column: usize,
        columns: usize,
        include_open: i32,
        weight: *mut f32,
        bias: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /// T of the posterior; 0 for NULL.
    pub fn dlora_predictor_temperature(predictor: *const dlora_predictor) -> f32;
}
extern "C" {
    /// Sets T > 0 by hand. It stays until a task with held-out features ends.
    pub fn dlora_predictor_set_temperature(
        predictor: *mut dlora_predictor,
        temperature: f32,
    ) -> dlora_status;
}
extern "C" {
    /** Sets *threshold to the unknown score that the fraction `quantile` in (0, 1) of leave-one-out features does not
 exceed. Error: STATE without such features.*/
    pub fn dlora_predictor_unknown_threshold(
        predictor: *const dlora_predictor,
        quantile: f32,
        threshold: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Writes finished tasks, options and temperature as a safetensors file, atomically. An open task is not written.
 Error: IO.*/
    pub fn dlora_predictor_save(
        predictor: *const dlora_predictor,
        path: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
extern "C" {
    /** Reads a predictor from a file of dlora_predictor_save. options NULL: as saved. Otherwise options replace the saved
 ones, the temperature only if none was fitted or set. readout, random_features and seed must be the saved ones.
 Errors: IO, FORMAT, MISMATCH.*/
    pub fn dlora_predictor_load(
        out: *mut *mut dlora_predictor,
        path: *const ::std::os::raw::c_char,
        options: *const dlora_predictor_options,
    ) -> dlora_status;
}
///< of query, key and value: after the first layer norm
pub const DLORA_INPUT_ATTENTION: dlora_input = 0;
///< of the attention output projection
pub const DLORA_INPUT_OUTPUT: dlora_input = 1;
///< of the MLP's first layer: after the second layer norm
pub const DLORA_INPUT_FC1: dlora_input = 2;
///< of the MLP's second layer: after GELU
pub const DLORA_INPUT_FC2: dlora_input = 3;
/// Inputs of a block that projections read.
pub type dlora_input = ::std::os::raw::c_uint;
/// Options of a session.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_session_options {
    pub struct_size: usize,
    ///< default NULL: malloc and free
    pub allocator: *const dlora_allocator,
    ///< most images of one forward call; default 16, at least 1; sizes the workspace
    pub max_batch: usize,
    ///< 1 to 4096; default DLORA_AUTO: all processors
    pub threads: i32,
    ///< not 0: keep activations for dlora_session_backward; default 0
    pub training: i32,
}
extern "C" {
    /// Sets every member to its default. size: sizeof(dlora_session_options) of the caller.
    pub fn dlora_session_options_init(
        options: *mut dlora_session_options,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Creates a workspace that runs `model` with the adapters of `bank` (NULL: none). Both are borrowed and must outlive
 the session. options NULL: defaults.

 Every site of the bank must name a block and projection of the model, once, with its widths (MISMATCH). Later calls
 allocate only when the bank has new tasks or larger ranks.*/
    pub fn dlora_session_create(
        out: *mut *mut dlora_session,
        model: *const dlora_model,
        bank: *const dlora_bank,
        options: *const dlora_session_options,
    ) -> dlora_status;
}
extern "C" {
    /// Frees the session.
    pub fn dlora_session_destroy(session: *mut dlora_session);
}
extern "C" {
    /// Bytes of the workspace; 0 for NULL.
    pub fn dlora_session_workspace_size(session: *const dlora_session) -> usize;
}
extern "C" {
    /** Computes class-token features after the final norm: features [count, embed_dim], NULL allowed in training. count is
 images->count, at most max_batch. Blocks below the first site run without adapters.

 terms: enum dlora_terms, or-ed; those of pairs need an open task (STATE). routing: [count, num_tasks], weights w_s of
 finished tasks' residual adapters, or NULL. Error: NOT_FINITE.*/
    pub fn dlora_session_forward(
        session: *mut dlora_session,
        images: *const dlora_images,
        terms: i32,
        routing: *const f32,
        features: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Adds the gradients of the open task's parameters to those of `bank`, from d loss / d features [count, embed_dim] of
 the last forward call. That call needs training on and routing NULL (STATE). bank must be the session's own
 (MISMATCH). Nothing is computed below the first site.*/
    pub fn dlora_session_backward(
        session: *mut dlora_session,
        bank: *mut dlora_bank,
        feature_gradients: *const f32,
    ) -> dlora_status;
}
extern "C" {
    /** Copies an input of the last forward call of a training session: values [*rows, *dim], image after image. values
 NULL: only *rows and *dim are set.

 With DLORA_POOL_CLASS the last block's inputs other than the attention input have the class token only. block: the
 lowest adapted one or a higher one. input: enum dlora_input, one that a site of the bank reads in some block; without
 a bank, any. Error: STATE without a forward call or training.*/
    pub fn dlora_session_get_input(
        session: *const dlora_session,
        block: usize,
        input: i32,
        values: *mut f32,
        rows: *mut usize,
        dim: *mut usize,
    ) -> dlora_status;
}
extern "C" {
    /** Computes early features of the last forward call: [class token, mean patch token] of the first adapted block's
 input, layer-normed without gain, [count, 2 * embed_dim]. Without a class token the standard deviation of the patch
 tokens takes its place. Learning never changes them. METHOD.md 6 and 7. Error: STATE without a forward call.*/
    pub fn dlora_session_get_early_features(
        session: *mut dlora_session,
        features: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /// Fills *profile with the times of this session; profile->struct_size must be set.
    pub fn dlora_session_get_profile(
        session: *const dlora_session,
        profile: *mut dlora_profile,
    ) -> dlora_status;
}
pub const DLORA_RESIDUAL_IN_NEW: dlora_residual_basis = 0;
pub const DLORA_RESIDUAL_IN_USED: dlora_residual_basis = 1;
pub const DLORA_RESIDUAL_RANDOM: dlora_residual_basis = 2;
/** \defgroup group_learner dlora_learner: the whole method
  Learns task after task, predicts, evaluates, and saves all of it in one file.
  \{*/
pub type dlora_residual_basis = ::std::os::raw::c_uint;
///< task posterior of Gaussians where the first adapted block begins: one pass
pub const DLORA_ROUTING_EARLY: dlora_routing = 0;
///< task posterior of a first pass without residual adapters: adapted blocks run twice
pub const DLORA_ROUTING_TWO_PASS: dlora_routing = 1;
///< per block, by energy in the task's bases
pub const DLORA_ROUTING_ENERGY: dlora_routing = 2;
///< the caller names the task
pub const DLORA_ROUTING_GIVEN: dlora_routing = 3;
///< residual adapters off
pub const DLORA_ROUTING_NONE: dlora_routing = 4;
pub type dlora_routing = ::std::os::raw::c_uint;
pub const DLORA_LOSS_CLASSES_ALL: dlora_loss_classes = 0;
pub const DLORA_LOSS_CLASSES_TASK: dlora_loss_classes = 1;
pub type dlora_loss_classes = ::std::os::raw::c_uint;
pub const DLORA_CLASS_SCORES_HEAD: dlora_class_scores = 0;
pub const DLORA_CLASS_SCORES_STATISTICS: dlora_class_scores = 1;
pub const DLORA_CLASS_SCORES_BOTH: dlora_class_scores = 2;
pub type dlora_class_scores = ::std::os::raw::c_uint;
pub const DLORA_FEATURE_LAYERS_AT_ADAPTER: dlora_feature_layers = 0;
pub const DLORA_FEATURE_LAYERS_FINAL: dlora_feature_layers = 1;
pub const DLORA_FEATURE_LAYERS_AT_MIDDLE: dlora_feature_layers = 2;
/** Layers whose features statistics are kept on (METHOD.md 7). Each has the backbone's feature. AT_ADAPTER adds the
 input of the first adapted block. AT_MIDDLE adds the input of the middle block, or of the first adapted one if that
 lies higher. FINAL adds nothing.*/
pub type dlora_feature_layers = ::std::os::raw::c_uint;
pub const DLORA_TOKENS_ALL: dlora_tokens = 0;
pub const DLORA_TOKENS_CLASS: dlora_tokens = 1;
pub type dlora_tokens = ::std::os::raw::c_uint;
pub const DLORA_SCHEDULE_COSINE: dlora_schedule = 0;
pub const DLORA_SCHEDULE_CONSTANT: dlora_schedule = 1;
pub type dlora_schedule = ::std::os::raw::c_uint;
pub const DLORA_FIRST_BLOCK_MIDDLE: dlora_first_block = -2;
/// For dlora_learner_options.first_block: depth / 2. DLORA_AUTO is depth / 4.
pub type dlora_first_block = ::std::os::raw::c_int;
pub const DLORA_FLIP_NONE: dlora_flip = 0;
pub const DLORA_FLIP_TRAINING: dlora_flip = 1;
pub const DLORA_FLIP_EVERYWHERE: dlora_flip = 2;
/** Where images are mirrored left to right: nowhere, at random in training, or in the statistics as well. Statistics
 are then taken of each image and its mirror image (METHOD.md 7).*/
pub type dlora_flip = ::std::os::raw::c_uint;
/** Settings of a learner. Start from dlora_learner_options_init; members are set directly, or by name with
 dlora_learner_options_set. "Paper" is the value of dlora_learner_options_paper, where it differs.*/
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_learner_options {
    pub struct_size: usize,
    ///< Memory of this learner, taken at creation or loading. Default NULL: malloc.
    pub allocator: *const dlora_allocator,
    /**< Width of the random projection; free to change with another readout. Default 2000; 1 to
65536.*/
    pub random_features: usize,
    ///< enum dlora_projection, or-ed: adapted projections. Default key and value.
    pub sites: i32,
    /**< First adapted block. Default DLORA_AUTO: depth / 4; paper 0: all; or
DLORA_FIRST_BLOCK_MIDDLE.*/
    pub first_block: i32,
    ///< Adapted blocks from there. Default 0: up to the last.
    pub num_blocks: i32,
    /**< enum dlora_feature_layers: features that statistics are kept on. Default AT_MIDDLE; paper
FINAL.*/
    pub feature_layers: i32,
    ///< enum dlora_readout. Default GAUSSIAN.
    pub readout: i32,
    /**< 1: keep statistics of the untouched backbone as well, from the first task that trains
(DLORA_SCOPE_TRAINING): for untouched_weight, and to compare with. Statistics that
exist are kept up. Default 1; paper 0.*/
    pub untouched_baseline: i32,
    ///< 1: class frequencies enter the posterior. Default 0.
    pub use_prior: i32,
    ///< Of the readout's covariance. Default DLORA_AUTO: follows the number of images. (0, 1e6].
    pub shrinkage: f32,
    ///< T of the posterior until one is fitted. Default 2; (0, 1e6].
    pub temperature: f32,
    /**< Of the random projection, relative to the mean diagonal of the Gram matrix; free to change with
another readout. Default 0.01; (0, 1e6].*/
    pub ridge: f32,
    ///< Seed of everything random. Default 0. Fixed at creation with the random projection.
    pub seed: u64,
    /**< Rank r of the orthogonal adapters. Default 8; 0 to embed_dim; 0 trains none. With both
ranks 0 (instant mode) nothing is trained, and the task is not protected against later
training.*/
    pub rank_orthogonal: usize,
    ///< Rank of the residual adapters. Default 8; 0 to embed_dim; 0 trains none.
    pub rank_residual: usize,
    ///< Images of one optimizer step. Default 16; paper 32; 1 to 2^20.
    pub batch_size: usize,
    ///< Images whose tokens enter the second moments S of a task. Default 0: all.
    pub max_observed_images: usize,
    /**< Passes over the training images of a task. Default DLORA_AUTO: 4, or as many as make
36 optimizer steps; paper 4; 0 to 2^20; 0 learns statistics alone.*/
    pub epochs: i32,
    ///< enum dlora_residual_basis: directions of A_t. Default IN_USED; paper IN_NEW.
    pub residual_basis: i32,
    ///< enum dlora_loss_classes: classes in the training softmax. Default ALL; paper TASK.
    pub loss_classes: i32,
    ///< 1: train the rows of new classes together with the adapters. Default 1.
    pub train_head: i32,
    /**< 1: move the statistics of earlier tasks along with their features. Default 1; paper
0.*/
    pub drift_compensation: i32,
    ///< 1: train A' too, from random rows, and project its updates. Default 0.
    pub train_orthogonal_a: i32,
    ///< enum dlora_tokens: tokens that enter S. Default ALL; paper CLASS.
    pub observed_tokens: i32,
    ///< enum dlora_optimizer. Default ADAM.
    pub optimizer: i32,
    ///< enum dlora_schedule: of the learning rate over a task. Default COSINE.
    pub schedule: i32,
    ///< enum dlora_flip: where images are mirrored. Default EVERYWHERE; paper TRAINING.
    pub flip: i32,
    /**< Random shifts of training images by up to this many pixels of the model's image size.
Default 0.*/
    pub crop_padding: i32,
    ///< Fraction of the input energy inside Phi after a task, equation (2). Default 0.95; (0, 1].
    pub energy_threshold: f32,
    ///< At the start of a task. Default 5e-4; paper 1e-3; 0 to 1e6.
    pub learning_rate: f32,
    ///< Adam. Default 0.9; [0, 1).
    pub beta1: f32,
    ///< Adam. Default 0.999; [0, 1).
    pub beta2: f32,
    ///< Adam. Default 1e-8; (0, 1].
    pub epsilon: f32,
    ///< SGD. Default 0.9; [0, 1).
    pub momentum: f32,
    ///< Decoupled, of the trained factors and rows. Default 0; 0 to 1e6.
    pub weight_decay: f32,
    /**< Fraction of each task's images excluded from training; they correct the temperature.
Default 0.05; [0, 0.5].*/
    pub held_out: f32,
    /**< Divides the logits in the training loss. Default 3; paper 1; (0, 1e6]. At 1 the initial
rows fit a few images so well that the adapters hardly learn.*/
    pub loss_temperature: f32,
    /**< Least fraction of an image's area in a random crop, with sides 3 : 4 to 4 : 3. Default 0.85;
paper 1: no crops. (0, 1].*/
    pub crop_scale: f32,
    /**< Brightness and contrast of training images are multiplied by factors in [1 - jitter, 1 + jitter].
Default 0.3; paper 0; [0, 1].*/
    pub jitter: f32,
    ///< Multiplies learning_rate in tasks after the first. Default 1; 0 to 1e6.
    pub later_task_lr_scale: f32,
    /**< r of (2a): fraction of the residual update merged into M, before merge_decay.
Default 1; paper 0; [0, 1].*/
    pub residual_merge_fraction: f32,
    /**< M gets t^-merge_decay of the t-th task's update, (2a). Default 1.5; paper 0: all of it. 0 to
1000.*/
    pub merge_decay: f32,
    ///< enum dlora_routing: which residual adapters run. Default NONE; paper ENERGY.
    pub routing: i32,
    /**< enum dlora_class_scores: source of p(class | task) where residual adapters run. Default
BOTH; paper HEAD.*/
    pub class_scores: i32,
    ///< Fraction of known images that dlora_prediction.unknown accepts. Default 0.95; (0, 1).
    pub unknown_quantile: f32,
    /**< Threads that a call may use. Default DLORA_AUTO: all processors. 1 to 4096. Not kept in the
checkpoint.*/
    pub threads: i32,
    /**< Images that a thread runs at once: bounds memory, not results. Default DLORA_AUTO: chosen
from the geometry. 1 to 65536.*/
    pub micro_batch: i32,
    /**< Weight w of the untouched backbone's posterior in predictions (6). Default DLORA_AUTO: by
evidence, from images that no adapter was trained on; paper 0. [0, 1]. 0 without
statistics of untouched_baseline.*/
    pub untouched_weight: f32,
    ///< 0
    pub reserved: f32,
}
/// Summary of one learned task.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_task_report {
    pub struct_size: usize,
    ///< from 0
    pub task: i64,
    ///< of the task
    pub num_classes: usize,
    pub num_images: usize,
    pub num_steps: usize,
    ///< mean over the first steps, at most 10; NaN without steps
    pub first_loss: f64,
    ///< mean over the last steps, at most 10
    pub last_loss: f64,
    ///< passes before training
    pub seconds_observe: f64,
    pub seconds_train: f64,
    ///< passes after training and closed forms
    pub seconds_statistics: f64,
    ///< directions in use, smallest over adapted inputs
    pub used_directions_min: usize,
    pub used_directions_max: usize,
    ///< rank the orthogonal branch found room for, smallest over sites
    pub rank_orthogonal_min: usize,
    pub rank_orthogonal_max: usize,
    /**< images of the task that no adapter was trained on, which compared the adapted network
with the untouched backbone; 0 without untouched_baseline*/
    pub evidence_images: usize,
    /**< mean over them of log p(class) by the adapted network less that by the untouched
backbone, nats; above 0: learning helps. NaN without such images*/
    pub evidence_gain: f64,
    ///< weight w of the untouched backbone after this task, in (6)
    pub untouched_weight: f64,
}
extern "C" {
    /// Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_task_report).
    pub fn dlora_task_report_init(
        report: *mut dlora_task_report,
        size: usize,
    ) -> dlora_status;
}
/// Results of an evaluation. Accuracies in [0, 1]; NaN where undefined.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_evaluation {
    pub struct_size: usize,
    ///< evaluated
    pub num_images: usize,
    ///< images of classes not learnt yet
    pub num_skipped: usize,
    ///< class right, over all evaluated images
    pub accuracy: f64,
    ///< task right
    pub task_accuracy: f64,
    ///< class right among the true task's classes
    pub accuracy_given_task: f64,
    ///< expected calibration error of the class probability, 15 bins
    pub ece: f64,
    ///< of the task probability
    pub task_ece: f64,
    /**< the same readout on the untouched backbone; NaN without its statistics, as with
untouched_baseline 0*/
    pub untouched_accuracy: f64,
    /**< mean of accuracy over all evaluated stages (average incremental accuracy); NaN if a
stage was evaluated on other images of its classes or tasks than the last one*/
    pub average_accuracy: f64,
    /**< mean over earlier tasks of best minus present accuracy. Tasks whose two accuracies are
on different images are left out*/
    pub forgetting: f64,
    ///< mean over earlier tasks of present accuracy minus that after learning; likewise
    pub backward_transfer: f64,
}
extern "C" {
    /// Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_evaluation).
    pub fn dlora_evaluation_init(
        evaluation: *mut dlora_evaluation,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Sets the defaults, which were chosen by measurement (docs/METHOD.md). size: sizeof(dlora_learner_options) as the
 caller knows it.*/
    pub fn dlora_learner_options_init(
        options: *mut dlora_learner_options,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Sets the paper's preset: all blocks, residual_basis IN_NEW, routing ENERGY, loss_classes TASK, class_scores HEAD,
 final features, observed_tokens CLASS, no drift compensation, nothing of the residual branch merged, and predictions
 without the untouched backbone.*/
    pub fn dlora_learner_options_paper(
        options: *mut dlora_learner_options,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Sets one option from text, whatever its type: "0.001", "two-pass", "key,value", "true", "auto". Numbers have a
 decimal point in every locale. Error: ARGUMENT for an unknown name, for text that is no value of the type, and for a
 value out of range; *options is then unchanged. Limits of a model's geometry are not known here.*/
    pub fn dlora_learner_options_set(
        options: *mut dlora_learner_options,
        name: *const ::std::os::raw::c_char,
        value: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
extern "C" {
    /** Writes the value of one option as NUL-terminated text, which dlora_learner_options_set reads as the same value.
 value: size bytes; 64 are enough for every option. Error: ARGUMENT.*/
    pub fn dlora_learner_options_get(
        options: *const dlora_learner_options,
        name: *const ::std::os::raw::c_char,
        value: *mut ::std::os::raw::c_char,
        size: usize,
    ) -> dlora_status;
}
///< int32_t
pub const DLORA_OPTION_INTEGER: dlora_option_type = 0;
///< size_t
pub const DLORA_OPTION_SIZE: dlora_option_type = 1;
///< uint64_t
pub const DLORA_OPTION_SEED: dlora_option_type = 2;
///< float
pub const DLORA_OPTION_FLOAT: dlora_option_type = 3;
///< int32_t: 0 or 1
pub const DLORA_OPTION_FLAG: dlora_option_type = 4;
///< int32_t: index of a word in `choices`, and the value of its enum
pub const DLORA_OPTION_CHOICE: dlora_option_type = 5;
///< int32_t: 1 << index of each word in `choices`, or-ed
pub const DLORA_OPTION_SET: dlora_option_type = 6;
pub type dlora_option_type = ::std::os::raw::c_uint;
///< never after creation
pub const DLORA_SCOPE_FIXED: dlora_option_scope = 0;
///< between tasks: it decides how the next one is learned
pub const DLORA_SCOPE_TRAINING: dlora_option_scope = 1;
///< between tasks: it decides how images are predicted
pub const DLORA_SCOPE_PREDICTION: dlora_option_scope = 2;
///< between tasks: it decides how the machine is used, not what is computed
pub const DLORA_SCOPE_RUN_TIME: dlora_option_scope = 3;
/// When an option may change.
pub type dlora_option_scope = ::std::os::raw::c_uint;
/// Description of one option. Strings are static.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_option_info {
    pub struct_size: usize,
    ///< of the member of dlora_learner_options
    pub name: *const ::std::os::raw::c_char,
    ///< words of a choice or set, "first|second"; of another type names of -1, -2, ...; or NULL
    pub choices: *const ::std::os::raw::c_char,
    ///< one line
    pub help: *const ::std::os::raw::c_char,
    ///< as dlora_learner_options_init sets it
    pub default_value: f64,
    ///< as dlora_learner_options_paper sets it
    pub paper_value: f64,
    ///< values from least to greatest are allowed, and those that `choices` names
    pub least: f64,
    pub greatest: f64,
    ///< enum dlora_option_type
    pub type_: i32,
    ///< enum dlora_option_scope
    pub scope: i32,
    ///< 1: least itself is not allowed
    pub above_least: i32,
    ///< 0
    pub reserved: i32,
}
extern "C" {
    /// Sets struct_size, and every other member to 0. size: sizeof(dlora_option_info).
    pub fn dlora_option_info_init(
        info: *mut dlora_option_info,
        size: usize,
    ) -> dlora_status;
}
extern "C" {
    /// Number of options that dlora_learner_options_set knows: every member but struct_size and allocator.
    pub fn dlora_option_count() -> usize;
}
extern "C" {
    /// Fills *info for option `index`, from 0, in the order of the struct; info->struct_size must be set. Error: ARGUMENT.
    pub fn dlora_option_get_info(
        index: usize,
        info: *mut dlora_option_info,
    ) -> dlora_status;
}
extern "C" {
    /** Checks whether a learner can be created with these options, without creating one. Programs that take options from
 their users can refuse them before hours of work. model NULL: limits of the model's geometry are not checked. Errors:
 ARGUMENT, naming the member; STRUCT_SIZE.*/
    pub fn dlora_learner_options_check(
        options: *const dlora_learner_options,
        model: *const dlora_model,
    ) -> dlora_status;
}
extern "C" {
    /** Creates a learner without tasks. The model is borrowed and must outlive it; learners may share one. options NULL:
 all defaults. Errors: ARGUMENT, naming the member; STRUCT_SIZE.*/
    pub fn dlora_learner_create(
        out: *mut *mut dlora_learner,
        model: *const dlora_model,
        options: *const dlora_learner_options,
    ) -> dlora_status;
}
extern "C" {
    pub fn dlora_learner_destroy(learner: *mut dlora_learner);
}
extern "C" {
    /** Changes the options of later tasks and predictions. Errors: MISMATCH if an option of DLORA_SCOPE_FIXED differs;
 STATE if a task is open and any option differs.*/
    pub fn dlora_learner_configure(
        learner: *mut dlora_learner,
        options: *const dlora_learner_options,
    ) -> dlora_status;
}
extern "C" {
    /// Fills *options with the options in force; options->struct_size must be set.
    pub fn dlora_learner_get_options(
        learner: *const dlora_learner,
        options: *mut dlora_learner_options,
    ) -> dlora_status;
}
extern "C" {
    /** Sets the function that learning and evaluation call after every batch. Its non-zero return cancels the call. It may
 be set at any time, also inside a task, and is not saved. Default NULL: none.*/
    pub fn dlora_learner_set_progress(
        learner: *mut dlora_learner,
        progress: dlora_progress_fn,
        user: *mut ::std::os::raw::c_void,
    ) -> dlora_status;
}
extern "C" {
    /** Sets the function that receives warnings and notes, for example that no unused direction is left for a branch. It
 may be set at any time and is not saved. Default NULL: none.*/
    pub fn dlora_learner_set_log(
        learner: *mut dlora_learner,
        log: dlora_log_fn,
        user: *mut ::std::os::raw::c_void,
    ) -> dlora_status;
}
extern "C" {
    /** Learns one task from images in memory. labels: [images->count]. report may be NULL. After an error or a cancelling
 callback the learner is as it was before.

 If a loaded learner has an open task of this function or of dlora_learner_learn_source, the call resumes that task.
 Images and labels must be those that the task began with; the report's seconds count from here. Their number and the
 labels are compared at once, and a few of the images, by digests of their pixels. Each further image is compared when
 it is read. An image that differs gives MISMATCH before anything is learned from it, and the task stays open. Files
 of older libraries have no digests. Another error or a cancelling callback discards the task.

 Errors: ARGUMENT, NOT_FINITE, CANCELLED, NO_MEMORY, MISMATCH; IO of snapshots; STATE if a task of
 dlora_learner_begin_task is open.*/
    pub fn dlora_learner_learn_task(
        learner: *mut dlora_learner,
        images: *const dlora_images,
        labels: *const i64,
        report: *mut dlora_task_report,
    ) -> dlora_status;
}
extern "C" {
    /** Learns one task from a source. It is read once before training, once per epoch, and once after training. A source
 may vary an image from one reading to the next within a process. To resume a loaded task it must return the same
 pixels. Errors: as dlora_learner_learn_task; IO if the source fails.*/
    pub fn dlora_learner_learn_source(
        learner: *mut dlora_learner,
        source: *const dlora_image_source,
        report: *mut dlora_task_report,
    ) -> dlora_status;
}
extern "C" {
    /** Enables periodic snapshots in dlora_learner_learn_task and _learn_source: the learner with its open task, saved to
 path atomically. One is written every `steps` optimizer steps, every steps * batch_size observed images, and when the
 call stops early with its task intact. That is when the progress callback cancels, the source fails, or memory runs
 out at the task's end. steps 0: only when it stops early. A learner loaded from a snapshot resumes by the same call
 with the same images.

 The library never removes the file. After the task, save to the same path or remove it. A periodic snapshot that
 cannot be written ends the call with its error (IO); the file before it stays. If the call stops early, that failure
 is logged, and the call returns its own error. path is copied; NULL, the default: no snapshots. Not saved.*/
    pub fn dlora_learner_set_snapshot(
        learner: *mut dlora_learner,
        path: *const ::std::os::raw::c_char,
        steps: usize,
    ) -> dlora_status;
}
/// Progress of an open task. After dlora_learner_load it tells what is still to be done.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_open_task {
    pub struct_size: usize,
    ///< observed so far
    pub num_classes: usize,
    ///< images given to dlora_learner_observe
    pub num_observed: usize,
    ///< as given to dlora_learner_begin_task
    pub planned_steps: usize,
    ///< optimizer steps done
    pub num_steps: usize,
    ///< images given to dlora_learner_observe_trained
    pub num_observed_trained: usize,
    ///< images of its source; 0: a loop of your own
    pub num_source_images: usize,
    ///< 0: no task is open, and all of this is 0
    pub is_open: i32,
    /**< DLORA_PHASE_OBSERVE; _TRAIN from dlora_learner_begin_training on; _STATISTICS from
dlora_learner_observe_trained on*/
    pub phase: i32,
}
extern "C" {
    /// Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_open_task).
    pub fn dlora_open_task_init(task: *mut dlora_open_task, size: usize) -> dlora_status;
}
extern "C" {
    /// Fills *task; task->struct_size must be set.
    pub fn dlora_learner_get_open_task(
        learner: *const dlora_learner,
        task: *mut dlora_open_task,
    ) -> dlora_status;
}
extern "C" {
    /// Opens a task. planned_steps: for the cosine schedule; 0: constant learning rate. Error: STATE if one is open.
    pub fn dlora_learner_begin_task(
        learner: *mut dlora_learner,
        planned_steps: usize,
    ) -> dlora_status;
}
extern "C" {
    /** Adds images of the task with their labels [count] to its statistics, before training. Error: STATE from
 dlora_learner_begin_training on. A batch with bad arguments or pixels (ARGUMENT, NOT_FINITE) is refused and changes
 nothing; a failure inside discards the task: NO_MEMORY, or NUMERIC and NOT_FINITE where features are beyond a float's
 range. dlora_learner_discard_task then gives STATE.*/
    pub fn dlora_learner_observe(
        learner: *mut dlora_learner,
        images: *const dlora_images,
        labels: *const i64,
    ) -> dlora_status;
}
extern "C" {
    /** Begins the training of the open task: chooses the adapters' directions and the head rows of its classes from what
 was observed (METHOD.md 4 and 5). Errors: STATE if nothing was observed, training has begun or both ranks are 0; a
 failure inside (NO_MEMORY, NUMERIC) discards the task.*/
    pub fn dlora_learner_begin_training(learner: *mut dlora_learner) -> dlora_status;
}
extern "C" {
    /** Makes one optimizer step. labels: [images->count], among those observed. *loss (may be NULL): mean cross-entropy of
 the batch. Errors: STATE before dlora_learner_begin_training and from dlora_learner_observe_trained on. ARGUMENT or
 NOT_FINITE for a bad batch, which is refused; the task goes on. NOT_FINITE for a loss and NO_MEMORY discard the task;
 the learner is then as it was before the task.*/
    pub fn dlora_learner_step(
        learner: *mut dlora_learner,
        images: *const dlora_images,
        labels: *const i64,
        loss: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Adds images of the task to its statistics again, with the trained adapters. The first call ends the training, with
 or without a step. Labels must be among those observed before, and each of these classes must come. Errors: STATE
 before dlora_learner_begin_training; otherwise as dlora_learner_observe, with NUMERIC and NOT_FINITE also where
 training has diverged.*/
    pub fn dlora_learner_observe_trained(
        learner: *mut dlora_learner,
        images: *const dlora_images,
        labels: *const i64,
    ) -> dlora_status;
}
extern "C" {
    /** Closes the task: directions committed, adapters merged or kept, statistics taken over. report may be NULL. Errors:
 STATE if nothing was observed, or if training has begun and not every class was given to
 dlora_learner_observe_trained; NO_MEMORY, NUMERIC. After an error the task is still open.*/
    pub fn dlora_learner_commit_task(
        learner: *mut dlora_learner,
        report: *mut dlora_task_report,
    ) -> dlora_status;
}
extern "C" {
    /// Discards the open task; the learner is as it was before the task. Error: STATE if none is open.
    pub fn dlora_learner_discard_task(learner: *mut dlora_learner) -> dlora_status;
}
extern "C" {
    pub fn dlora_learner_num_tasks(learner: *const dlora_learner) -> usize;
}
extern "C" {
    pub fn dlora_learner_num_classes(learner: *const dlora_learner) -> usize;
}
extern "C" {
    /** Weight w in [0, 1] of the untouched backbone's posterior in predictions, equation (6): untouched_weight, or by
 evidence so far. 0 without statistics of the untouched backbone, before a task has trained, and for NULL. At 0 and 1
 one of the two networks does not run.*/
    pub fn dlora_learner_get_untouched_weight(learner: *const dlora_learner) -> f64;
}
extern "C" {
    /** Writes the class ids: classes [num_classes], in order of first appearance. Columns of class_log_probs have this
 order.*/
    pub fn dlora_learner_get_classes(
        learner: *const dlora_learner,
        classes: *mut i64,
    ) -> dlora_status;
}
extern "C" {
    /// Names a class id. The name is copied and kept in the checkpoint.
    pub fn dlora_learner_set_class_name(
        learner: *mut dlora_learner,
        class_id: i64,
        name: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
extern "C" {
    /// Returns the name of a class id, borrowed; NULL if none was set.
    pub fn dlora_learner_get_class_name(
        learner: *const dlora_learner,
        class_id: i64,
    ) -> *const ::std::os::raw::c_char;
}
extern "C" {
    /** Keeps a text of your own under a key in the checkpoint and in snapshots, for example a description of the run. Both
 are UTF-8, not interpreted, and copied. value NULL removes the note. dlora_inspect lists it as metadata `note.KEY`.
 Errors: ARGUMENT, NO_MEMORY.*/
    pub fn dlora_learner_set_note(
        learner: *mut dlora_learner,
        key: *const ::std::os::raw::c_char,
        value: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
extern "C" {
    /// Returns the text of a note, borrowed; NULL if there is none.
    pub fn dlora_learner_get_note(
        learner: *const dlora_learner,
        key: *const ::std::os::raw::c_char,
    ) -> *const ::std::os::raw::c_char;
}
extern "C" {
    /** Predicts class, task and confidence of each image from the finished tasks (METHOD.md 8). predictions: [count];
 class_log_probs: [count, num_classes] or NULL.

 This function and the next two keep their workspace, so that a second call of the same size allocates nothing.
 dlora_learner_begin_task and dlora_learner_configure release it. Errors: STATE before the first task or with routing
 GIVEN; NOT_FINITE.*/
    pub fn dlora_learner_predict(
        learner: *const dlora_learner,
        images: *const dlora_images,
        predictions: *mut dlora_prediction,
        class_log_probs: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Predicts with the task of each image given: tasks [count] (task-incremental use). Otherwise as
 dlora_learner_predict.*/
    pub fn dlora_learner_predict_with_tasks(
        learner: *const dlora_learner,
        images: *const dlora_images,
        tasks: *const i64,
        predictions: *mut dlora_prediction,
        class_log_probs: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Computes adapted class-token features [count, embed_dim]. tasks: [count], the task whose residual adapters run, -1
 for none; NULL: none for all.*/
    pub fn dlora_learner_embed(
        learner: *const dlora_learner,
        images: *const dlora_images,
        tasks: *const i64,
        features: *mut f32,
    ) -> dlora_status;
}
extern "C" {
    /** Evaluates the finished tasks on test images. Images of classes not learned yet are skipped. An image belongs to the
 task in source->tasks, or else to the last task that has its class.

 The call records the accuracy on each task that has images here, in row num_tasks - 1 of the accuracy matrix. The
 last call after a task counts as that task's stage in average_accuracy. Digests of pixels and labels, independent of
 their order, record the images of each accuracy; only accuracies on the same images are compared. Files of older
 libraries have no digests, and their accuracies are compared with none.

 evaluation may be NULL. Errors: STATE before the first task, ARGUMENT, NOT_FINITE, CANCELLED, IO, NO_MEMORY.*/
    pub fn dlora_learner_evaluate(
        learner: *mut dlora_learner,
        source: *const dlora_image_source,
        evaluation: *mut dlora_evaluation,
    ) -> dlora_status;
}
extern "C" {
    /** Writes the accuracy matrix [num_tasks, num_tasks]: row i has the accuracies after task i; NaN where nothing was
 evaluated.*/
    pub fn dlora_learner_get_accuracy_matrix(
        learner: *const dlora_learner,
        matrix: *mut f64,
    ) -> dlora_status;
}
extern "C" {
    /** Saves the learner as one safetensors file, atomically: a crash leaves the old file or the new one. An open task is
 saved too, and goes on. Error: IO.*/
    pub fn dlora_learner_save(
        learner: *const dlora_learner,
        path: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
extern "C" {
    /** Loads a learner on the backbone that it was learned on. An open task is open again.

 A learner keeps the rule of position resampling that it was learnt with, even if the model has the other one. A
 dlora_session of that model with the learner's bank, and dlora_model_embed, follow the model.

 options NULL: as saved, with all processors and the C library's memory. Otherwise options replaces every option that
 is not fixed at creation; with an open task only threads, micro_batch and allocator may differ. To change one option,
 load with NULL, then dlora_learner_get_options, change it, dlora_learner_configure. Errors: MISMATCH, naming both
 fingerprints or the option; FORMAT; IO; UNSUPPORTED for options of a newer library.*/
    pub fn dlora_learner_load(
        out: *mut *mut dlora_learner,
        model: *const dlora_model,
        path: *const ::std::os::raw::c_char,
        options: *const dlora_learner_options,
    ) -> dlora_status;
}
extern "C" {
    /** Fills *profile with the times of learning and of dlora_learner_evaluate; profile->struct_size must be set. Calls on
 a const learner are not counted, since many may run at once.*/
    pub fn dlora_learner_get_profile(
        learner: *const dlora_learner,
        profile: *mut dlora_profile,
    ) -> dlora_status;
}
extern "C" {
    /// Returns the bank, borrowed: for inspection, export, or use without the learner.
    pub fn dlora_learner_get_bank(learner: *const dlora_learner) -> *const dlora_bank;
}
extern "C" {
    /// Returns the statistics without residual adapters (`base`), borrowed.
    pub fn dlora_learner_get_predictor(
        learner: *const dlora_learner,
    ) -> *const dlora_predictor;
}
extern "C" {
    /** Returns the used directions of one adapted input, borrowed; NULL if (block, input) is not adapted. input: enum
 dlora_input.*/
    pub fn dlora_learner_get_projector(
        learner: *const dlora_learner,
        block: usize,
        input: i32,
    ) -> *const dlora_projector;
}
extern "C" {
    /** Writes an update of the backbone as a LoRA that PEFT opens: adapter_config.json and adapter_model.safetensors in
 folder, which is made unless it is there.

 task DLORA_AUTO: what every image sees, M of equation (1), with the rank that it has, exact to 1e-5. Otherwise the
 residual adapter of this task alone; PEFT adds it to another one (add_weighted_adapter). Module names are those of
 the model class that the backbone's file belongs to, as its own module: of timm (with qkv in one layer), or of
 transformers from version 5 on. Errors: STATE if there is no such update,
 ARGUMENT for an unknown task, UNSUPPORTED, IO.*/
    pub fn dlora_learner_export_peft(
        learner: *const dlora_learner,
        folder: *const ::std::os::raw::c_char,
        task: i64,
    ) -> dlora_status;
}
extern "C" {
    /** Writes the backbone with W + M as its weights, and a classifier, for timm and transformers: model.safetensors with
 the tensor names of the backbone's file, config.json and, for Hugging Face's names, preprocessor_config.json, in
 folder, which is made unless it is there.

 The classifier is the readout of the final feature (dlora_predictor_linear_weights), divided by the temperature. Its
 decisions are the library's with this readout; the library's probabilities have a broad part besides (METHOD.md 7.1).
 It has a row for each component, so that a class that was learnt in several tasks has several. Its tensors are head.*
 of timm, classifier.* of transformers. Residual adapters, other levels of features and the untouched backbone have no
 part in it. timm opens the folder as "local-dir:FOLDER". Backbones other than plain ones of timm's names and Hugging
 Face's ViT and DINOv2 are refused (docs/INTEROP.md). Errors: STATE before the first task, UNSUPPORTED, IO.*/
    pub fn dlora_learner_export_backbone(
        learner: *const dlora_learner,
        folder: *const ::std::os::raw::c_char,
    ) -> dlora_status;
}
/// One tensor of a safetensors file, as dlora_inspect lists it. Pointers live during the callback only.
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dlora_tensor_info {
    pub struct_size: usize,
    ///< for metadata entries: the key
    pub name: *const ::std::os::raw::c_char,
    ///< as "F32"; NULL for a metadata entry
    pub dtype: *const ::std::os::raw::c_char,
    ///< of a metadata entry; NULL for a tensor
    pub value: *const ::std::os::raw::c_char,
    ///< [num_dims]
    pub shape: *const usize,
    pub num_dims: usize,
    pub num_bytes: usize,
}
extern "C" {
    /** Calls visit for every metadata entry and tensor of a safetensors file, or of the weights in a folder that
 dlora_model_load reads, after all of them were checked. A non-zero return stops with CANCELLED. Errors: IO, FORMAT.*/
    pub fn dlora_inspect(
        path: *const ::std::os::raw::c_char,
        visit: ::std::option::Option<
            unsafe extern "C" fn(
                info: *const dlora_tensor_info,
                user: *mut ::std::os::raw::c_void,
            ) -> i32,
        >,
        user: *mut ::std::os::raw::c_void,
    ) -> dlora_status;
}
