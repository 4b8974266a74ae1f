/* libduallora: a Vision Transformer that keeps learning where it runs.
 * SPDX-License-Identifier: Apache-2.0 */

/** \mainpage libduallora
 *
 * A pre-trained Vision Transformer (ViT) learns task after task on the machine where it runs. It forgets little and
 * keeps no old image. The method is DualLoRA (arXiv 2411.00623). docs/METHOD.md has the mathematics; numbers in
 * parentheses, as (1), are its equations.
 *
 *     dlora_model *model = NULL;
 *     dlora_learner *learner = NULL;
 *     if (dlora_model_load(&model, "vit.safetensors", NULL)) { puts(dlora_last_error()); return 1; }
 *     dlora_learner_create(&learner, model, NULL);
 *     dlora_images images = {pixels, NULL, count, height, width, 3};
 *     dlora_learner_learn_task(learner, &images, labels, NULL);         // again for every new task
 *     dlora_prediction p;
 *     dlora_learner_predict(learner, &one_image, &p, NULL);
 *     dlora_learner_save(learner, "device.safetensors");
 *     dlora_learner_destroy(learner);
 *     dlora_model_destroy(model);
 *
 * Contents: one group for each handle. A learner uses all others, which also work without it.
 *
 *   1. \ref group_status "Status and errors"
 *   2. \ref group_types "Common types": images, sources, progress, log, times
 *   3. \ref group_model "dlora_model": the frozen ViT
 *   4. \ref group_bank "dlora_bank": low-rank adapters of linear layers
 *   5. \ref group_projector "dlora_projector": the directions used by finished tasks
 *   6. \ref group_predictor "dlora_predictor": class, task and confidence from features
 *   7. \ref group_session "dlora_session": forward and backward pass of a model with a bank
 *   8. \ref group_learner "dlora_learner": the whole method
 *
 * Rules (docs/CONVENTIONS.md has the reasons)
 *
 * - Errors: every fallible function returns a dlora_status; 0 is success. After a failure dlora_last_error() returns a
 *   sentence that names the culprit. The handle is as it was before the call, and *out of a constructor is NULL. Any
 *   function may return ARGUMENT, for a NULL pointer or an impossible value, and NO_MEMORY. Comments name other errors.
 * - Ownership: _create, _load and _clone give ownership; _destroy takes it back and accepts NULL. Functions read the
 *   caller's arrays during the call only. Pointers from _get functions are borrowed: they live until the next non-const
 *   call on the handle, or its destruction.
 * - Threads: many threads may use a const handle at once, one thread at a time a non-const one. The library never
 *   changes process-wide state.
 * - Callbacks: allocators, image sources, progress, log and dlora_inspect's visitor must return. No exception, panic or
 *   longjmp may leave them. The library cannot unwind: memory, locks and a half-changed handle would stay behind. Catch
 *   inside, and report by the return value: NULL from an allocator, non-zero from a source, progress or visitor.
 * - Arrays: contiguous, row-major, float unless said otherwise. [n, dim] means n rows of dim values.
 * - Options: structs whose first member is their size. Start from the _init function (or the _INIT macro, if there is
 * one) and change members. NULL means all defaults. Releases only append members. An impossible size, or a set member
 * that this library does not know, is STRUCT_SIZE.
 */
#ifndef DUALLORA_H
#define DUALLORA_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define DLORA_API
#elif defined(__GNUC__)
#define DLORA_API __attribute__((visibility("default")))
#else
#define DLORA_API
#endif

#define DLORA_VERSION_MAJOR 0
#define DLORA_VERSION_MINOR 9
#define DLORA_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

/** For options that name it: let the library choose. */
enum dlora_auto { DLORA_AUTO = -1 };

/* ---- 1  Status and errors ---------------------------------------------------------------------------------------- */
/** \defgroup group_status Status and errors
 *  Results of calls, error sentences, and the library's version and build.
 *  \{ */

/** The one list of statuses: X(name, code, when, what to do). Codes are never reused. */
#define DLORA_STATUS_LIST(X) \
  X(OK, 0, "The call succeeded.", "Go on.") \
  X(ERR_ARGUMENT, 1, "An argument is NULL, zero, too large or inconsistent.", \
    "Correct the call; the sentence names the argument.") \
  X(ERR_NO_MEMORY, 2, "The allocator returned NULL.", "Free memory or lower micro_batch; the handle is intact.") \
  X(ERR_STRUCT_SIZE, 3, "An options struct has an impossible size or sets members this library does not know.", \
    "Initialise it with its _init function, or use a newer library.") \
  X(ERR_STATE, 4, "The call came in the wrong order.", "Make the call that the sentence names first.") \
  X(ERR_IO, 5, "A file could not be opened, read, written or renamed.", \
    "See the path and system error in the sentence.") \
  X(ERR_FORMAT, 6, "A file is damaged or of another kind than expected.", \
    "Replace the file; the sentence names the tensor.") \
  X(ERR_MISMATCH, 7, "Two things do not belong together: checkpoint and backbone, or two dimensions.", \
    "Use the pair that belongs together.") \
  X(ERR_NOT_FINITE, 8, "An input, a loss or a result is NaN or infinite.", \
    "Check the data, lower the learning rate; the handle is as before the call.") \
  X(ERR_CANCELLED, 9, "A callback stopped the call.", "Nothing: the learner is as it was before the task.") \
  X(ERR_UNSUPPORTED, 10, "The file or option is valid but this library cannot use it.", "See the sentence.") \
  X(ERR_NUMERIC, 11, "A factorisation did not converge.", "Check the features for degenerate values.")

#define DLORA_STATUS_ENUM_(name, code, when, action) DLORA_##name = (code),
/** Values of a dlora_status. New codes may be added: treat an unknown one as a failure. */
enum dlora_status_code { DLORA_STATUS_LIST(DLORA_STATUS_ENUM_) DLORA_STATUS_COUNT_ };
/** Result of a call: an enum dlora_status_code, 0 for success. */
typedef int32_t dlora_status;

/** Name of a status, as "DLORA_ERR_IO"; "DLORA_ERR_?" for an unknown code. Static storage. */
DLORA_API const char *dlora_status_name(dlora_status status);
/** Sentence on the last failure in the calling thread; "" if there was none. Borrowed until the thread's next failure.
 */
DLORA_API const char *dlora_last_error(void);
/** The library's version, as "0.9.0". Static storage. */
DLORA_API const char *dlora_version(void);
/** Kernels, packed products, threads and BLAS in use on this machine, as "kernels avx512; packed products float32 and
 * bfloat16; OpenMP; OpenBLAS ...". Borrowed until the thread's next call of this function. */
DLORA_API const char *dlora_build_info(void);

/** \} */

/* ---- 2  Common types --------------------------------------------------------------------------------------------- */
/** \defgroup group_types Common types
 *  Handles, memory, images, callbacks and times.
 *  \{ */

typedef struct dlora_model dlora_model;         /**< a frozen Vision Transformer, section 3 */
typedef struct dlora_bank dlora_bank;           /**< low-rank adapters, section 4 */
typedef struct dlora_projector dlora_projector; /**< used directions of one input, section 5 */
typedef struct dlora_predictor dlora_predictor; /**< statistics and readout of features, section 6 */
typedef struct dlora_session dlora_session;     /**< workspace of a model with a bank, section 7 */
typedef struct dlora_learner dlora_learner;     /**< the whole method, section 8 */

/** Memory for one handle. Several threads may call both functions at once, also within one call on the handle. No
 * exception, panic or longjmp may leave them. Handles copy the struct and keep `user`. The C library's malloc serves
 * JSON headers of files in any case. */
typedef struct dlora_allocator {
  void *(*allocate)(size_t size, void *user); /**< returns memory aligned as by malloc, or NULL */
  void (*release)(void *pointer, void *user); /**< frees it */
  void *user;                                 /**< passed to both */
} dlora_allocator;

/** A batch of images of one size. Exactly one of u8 and f32 is set. This struct never grows.
 *
 * u8: [count, height, width, channels] in 0 ... 255. Images become image_size pixels a side as the model's resize,
 * interpolation and crop_fraction say (dlora_model_options), clipped to 0 ... 255 but never rounded, and are normalised
 * by the model's mean and standard deviation. Every function of the library does the same.
 *
 * f32: [count, 3, height, width], normalised already: (pixel / 255 - mean) / std with the model's values. Height and
 * width must be the model's image size. Values must lie within 20 times the largest magnitude of a normalised pixel, or
 * within 20 if that magnitude is below 1. This is 20 for mean and std 0.5, and 53 for those of ImageNet. The bound
 * refuses pixels in 0 ... 255, which belong into u8, and no known augmentation (ARGUMENT). */
typedef struct dlora_images {
  const uint8_t *u8; /**< bytes, or NULL */
  const float *f32;  /**< normalised floats, or NULL */
  size_t count;      /**< number of images, >= 1 */
  size_t height;     /**< pixels */
  size_t width;      /**< pixels */
  size_t channels;   /**< of u8: 3 (RGB) or 1 (gray, expanded to RGB); 0 means 3. Of f32: 3 or 0 */
} dlora_images;

/** Reads image `index` of a source. Sets *image to ONE image (count 1), whose pixels must stay valid until the next
 * call. Returns 0, or non-zero to stop; the library's call then fails with DLORA_ERR_IO, which names the index. It is
 * called from the thread of the library's call, never concurrently. No exception, panic or longjmp may leave it. */
typedef int32_t (*dlora_read_image_fn)(size_t index, dlora_images *image, void *user);

/** Labelled images that the library reads one by one, so that they need not fit in memory. */
typedef struct dlora_image_source {
  size_t struct_size;
  dlora_read_image_fn read; /**< reads one image; required */
  void *user;               /**< passed to read */
  size_t count;             /**< number of images, >= 1 */
  const int64_t *labels;    /**< [count] class ids, any values */
  const int64_t *tasks;     /**< [count] true tasks, for evaluation where classes recur; NULL: by class */
} dlora_image_source;
#define DLORA_IMAGE_SOURCE_INIT \
  { sizeof(dlora_image_source), NULL, NULL, 0, NULL, NULL }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_image_source). */
DLORA_API dlora_status dlora_image_source_init(dlora_image_source *source, size_t size);

/** Phases of learning and evaluation. */
enum dlora_phase {
  DLORA_PHASE_OBSERVE = 0,    /**< images before training */
  DLORA_PHASE_TRAIN = 1,      /**< optimizer steps */
  DLORA_PHASE_STATISTICS = 2, /**< images after training */
  DLORA_PHASE_EVALUATE = 3    /**< dlora_learner_evaluate */
};
/** Progress of a call, as a progress callback receives it. */
typedef struct dlora_progress {
  size_t struct_size;
  int64_t task;             /**< index of the open task; in an evaluation the number of tasks */
  size_t done;              /**< images (observe, statistics, evaluate) or steps (train) done */
  size_t total;             /**< images or steps of the phase */
  double loss;              /**< running mean of the training loss; NaN outside training */
  double images_per_second; /**< in this phase; 0 before it is known */
  int32_t phase;            /**< enum dlora_phase */
  int32_t reserved;         /**< 0 */
} dlora_progress;
/** Receives progress, which lives during the call only. Returns 0 to continue, any other value to cancel. No exception,
 * panic or longjmp may leave it. */
typedef int32_t (*dlora_progress_fn)(const dlora_progress *progress, void *user);

/** Levels of log lines. */
enum dlora_log_level { DLORA_LOG_INFO = 0, DLORA_LOG_WARNING = 1 };
/** Receives one line without a newline, which lives during the call only. level: enum dlora_log_level. It cannot stop
 * the library's call. No exception, panic or longjmp may leave it. */
typedef void (*dlora_log_fn)(int32_t level, const char *message, void *user);

/** Time that a handle has spent since its creation, in seconds. Times of a session are sums over its threads; those of
 * a learner are of the calling thread. Reading images from a source, checks and waiting are not included. */
typedef struct dlora_profile {
  size_t struct_size;
  double preprocessing; /**< session: images resized, augmented, normalised and cut into patches */
  double products;      /**< session: products with the model's weights and biases, forward and backward */
  double adapters;      /**< session: the bank's terms at its sites, forward and backward */
  double attention;     /**< session: scores, softmax and weighted values of all heads, forward and backward */
  double norms;         /**< session: layer norms, forward and backward */
  double activation;    /**< session: GELU, forward and backward */
  double copies;        /**< session: copies of the residual stream */
  double loss;          /**< learner: logits and cross-entropy of training steps, forward and backward */
  double optimizer;     /**< learner: updates of the trained parameters */
  double observation;   /**< learner: second moments and class statistics */
  double directions;    /**< learner: dlora_learner_begin_training */
  double task_end;      /**< learner: dlora_learner_commit_task */
} dlora_profile;
#define DLORA_PROFILE_INIT \
  { sizeof(dlora_profile), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0 }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_profile). */
DLORA_API dlora_status dlora_profile_init(dlora_profile *profile, size_t size);

/** \} */

/* ---- 3  dlora_model: the frozen Vision Transformer --------------------------------------------------------------- */
/** \defgroup group_model dlora_model: the frozen Vision Transformer
 *  Loads a backbone and computes its features. Weights never change: what is learned lies in a dlora_bank.
 *  \{ */

/** Implementations of products with a model's weights. Everything else is float32: norms, attention, adapters,
 * statistics. The packed ones keep copies of the weights in the order in which the processor reads them. They need
 * oneDNN, which is loaded with the first such model. */
enum dlora_products {
  DLORA_PRODUCTS_BLAS = 0,    /**< float32 by the BLAS: the reference */
  DLORA_PRODUCTS_PACKED = 1,  /**< float32; needs AVX-512 */
  DLORA_PRODUCTS_BFLOAT16 = 2 /**< factors rounded to bfloat16, sums in float32; needs AVX512_BF16, uses AMX */
};
/** What makes the feature [embed_dim] of an image out of the tokens behind the last block. */
enum dlora_pool {
  DLORA_POOL_CLASS = 0,        /**< the class token, after the final norm */
  DLORA_POOL_MEAN_PATCHES = 1, /**< the mean of the patch tokens */
  DLORA_POOL_MEAN_TOKENS = 2,  /**< the mean of all tokens */
  DLORA_POOL_DISTILLED = 3,    /**< the mean of class and distillation token, after the final norm (DeiT) */
  DLORA_POOL_ATTENTION = 4     /**< attention of a learnt query to the patch tokens, and an MLP (SigLIP) */
};
/** Activations of the MLP in a block. Only SwiGLU is told by the tensors. Of the others the option counts, else the
 * file's metadata (hidden_act or activation, in the names of transformers), else the family: quick GELU for CLIP in
 * Hugging Face's names, GELU by tanh for SigLIP in these, GELU for all else, as for CLIP and SigLIP in timm's names. */
enum dlora_activation {
  DLORA_ACTIVATION_GELU = 0,       /**< x Phi(x), exact */
  DLORA_ACTIVATION_GELU_TANH = 1,  /**< GELU by tanh (SigLIP) */
  DLORA_ACTIVATION_QUICK_GELU = 2, /**< x sigmoid(1.702 x) (OpenAI's CLIP) */
  DLORA_ACTIVATION_SWIGLU = 3 /**< silu(gate) up, with fc1 = [gate; up], 2 mlp_dim outputs, and fc2 of mlp_dim inputs
                                   (DINOv2-g, DINOv3 S+ and H+) */
};
/** How position embeddings are resampled to another grid. */
enum dlora_position_resampling {
  DLORA_POSITIONS_TIMM = 0,        /**< bicubic with a = -0.5 and antialiasing; default for timm's names */
  DLORA_POSITIONS_HUGGING_FACE = 1 /**< bicubic with a = -0.75, no antialiasing; default for Hugging Face's names */
};
/** How images of bytes are resized, before the centre of image_size pixels a side is cut out. */
enum dlora_resize {
  DLORA_RESIZE_SQUASH = 0, /**< both sides to image_size / crop_fraction, whatever the aspect ratio */
  DLORA_RESIZE_CROP = 1    /**< the shorter side to image_size / crop_fraction; the aspect ratio stays */
};
/** Kernels of image resizing, both with antialiasing. */
enum dlora_interpolation { DLORA_INTERPOLATION_BICUBIC = 0, DLORA_INTERPOLATION_BILINEAR = 1 };
/** Options of loading a model. 0, NULL or DLORA_AUTO means: as in the files; see dlora_model_load. */
typedef struct dlora_model_options {
  size_t struct_size;
  const dlora_allocator *allocator; /**< default NULL: malloc and free */
  size_t num_heads;                 /**< attention heads, a divisor of embed_dim; required if no file tells it */
  size_t image_size;                /**< pixels a side, a multiple of patch_size; position embeddings are resampled */
  float layer_norm_eps;             /**< in (0, 1); default 0: as in the files, else 1e-6 */
  float mean[3];                    /**< of pixels in [0, 1]; used if std is set */
  float std[3];                     /**< of pixels, > 0; default all 0: as in the files, else mean and std 0.5 */
  int32_t products;                 /**< enum dlora_products; default BLAS. Unavailable ones are refused */
  int32_t threads;                  /**< of dlora_model_embed; 1 to 4096; default DLORA_AUTO: all processors */
  int32_t reserved;                 /**< 0 */
  const char *prefix; /**< prefix of the backbone's tensor names, as "teacher."; "": none; default NULL: found */
  int32_t pool;       /**< enum dlora_pool; default DLORA_AUTO: as in the file */
  int32_t activation; /**< enum dlora_activation; default DLORA_AUTO: as in the file */
  int32_t position_resampling; /**< enum dlora_position_resampling; default DLORA_AUTO: as in the file, else by names */
  int32_t resize;              /**< enum dlora_resize; default DLORA_AUTO: as in the file, else SQUASH */
  int32_t interpolation;       /**< enum dlora_interpolation; default DLORA_AUTO: as in the file, else BICUBIC */
  float crop_fraction;         /**< 0.01 ... 1; default 0: as in the file, else 1, as where resize is not the file's */
  const char *adapter;         /**< folder of a LoRA of PEFT to merge into the weights; default NULL: none */
} dlora_model_options;
#define DLORA_MODEL_OPTIONS_INIT \
  { \
    sizeof(dlora_model_options), NULL, 0, 0, 0.0f, {0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f}, DLORA_PRODUCTS_BLAS, \
        DLORA_AUTO, 0, NULL, DLORA_AUTO, DLORA_AUTO, DLORA_AUTO, DLORA_AUTO, DLORA_AUTO, 0.0f, NULL \
  }

/** Schemes of tensor names. */
enum dlora_naming {
  DLORA_NAMING_TIMM = 0,      /**< timm: ViT, DeiT, DINOv2, DINOv3, CLIP, SigLIP, EVA */
  DLORA_NAMING_HF_VIT = 1,    /**< Hugging Face: ViT, DeiT */
  DLORA_NAMING_HF_DINOV2 = 2, /**< Hugging Face: DINOv2, with and without register tokens */
  DLORA_NAMING_HF_CLIP = 3,   /**< Hugging Face: CLIP */
  DLORA_NAMING_HF_SIGLIP = 4, /**< Hugging Face: SigLIP */
  DLORA_NAMING_HF_DINOV3 = 5, /**< Hugging Face: DINOv3 */
  DLORA_NAMING_HF_AIMV2 = 6   /**< Hugging Face: AIMv2 */
};
/** Description of a loaded model. */
typedef struct dlora_model_info {
  size_t struct_size;
  size_t embed_dim;            /**< D, width of tokens and features */
  size_t depth;                /**< transformer blocks */
  size_t num_heads;            /**< attention heads */
  size_t mlp_dim;              /**< inputs of fc2; fc1 has as many outputs, or twice as many with SwiGLU */
  size_t patch_size;           /**< pixels a side */
  size_t image_size;           /**< pixels a side */
  size_t num_tokens;           /**< prefix tokens + patches */
  size_t num_parameters;       /**< of the backbone, without heads */
  float mean[3];               /**< normalisation of images */
  float std[3];                /**< normalisation of images */
  float layer_norm_eps;        /**< epsilon of the layer norms */
  int32_t naming;              /**< enum dlora_naming */
  char fingerprint[40];        /**< identifies weights and geometry: hexadecimal, NUL-terminated */
  int32_t products;            /**< enum dlora_products */
  int32_t reserved;            /**< 0 */
  size_t num_prefix_tokens;    /**< tokens before the patches: class, distillation and register tokens */
  int32_t pool;                /**< enum dlora_pool */
  int32_t activation;          /**< enum dlora_activation */
  int32_t position_resampling; /**< enum dlora_position_resampling */
  int32_t resize;              /**< enum dlora_resize */
  int32_t interpolation;       /**< enum dlora_interpolation */
  float crop_fraction;         /**< image_size over the resized side */
} dlora_model_info;
/** Sets struct_size, and every other member to 0. size: sizeof(dlora_model_info). */
DLORA_API dlora_status dlora_model_info_init(dlora_model_info *info, size_t size);

/** Sets every member to its default. size: sizeof(dlora_model_options) of the caller. */
DLORA_API dlora_status dlora_model_options_init(dlora_model_options *options, size_t size);
/** Loads a ViT with tensor names of timm, Hugging Face ViT or Hugging Face DINOv2, in F32, F16 or BF16. options NULL:
 * defaults.
 *
 * path is a safetensors file, or a folder as hubs ship them. Of a folder are read: model.safetensors, or the parts that
 * model.safetensors.index.json names, or the only file that ends in .safetensors; config.json and
 * preprocessor_config.json, in the forms of transformers and of timm, as far as they are there. Of a file nothing
 * beside it is read. Symbolic links are followed.
 *
 * Shapes give patch size, depth and widths. What they do not tell is taken from the first that tells it:
 *
 *     1  options
 *     2  metadata of the safetensors file, by the names of the options; also num_attention_heads
 *     3  the two JSON files; of the size of images, the preprocessor's counts before the one of training
 *     4  a table, by what config.json names: timm's architecture, or a model type of transformers
 *     5  defaults of the names' family
 *
 * dlora_model_get_setting says which it was. An activation, pooling or attribute in the JSON files that is not
 * supported is refused, and so is what contradicts the tensors.
 *
 * With options->adapter the weights are W + (alpha / r) B A of a LoRA that PEFT has saved (adapter_config.json and
 * adapter_model.safetensors), and the fingerprint is theirs. Modules are named as in the file, or as in transformers 5.
 * DoRA, biases, other kinds of adapters, and factors that belong to no projection are refused; heads saved beside them
 * are not used.
 *
 * The weights are refused if they have a tensor under the names' prefix that is neither used nor known to leave the
 * features unchanged (heads, mask token). They are also refused if there are several ViTs, unless options->prefix
 * chooses one; tensors outside a chosen prefix are ignored. Files are memory-mapped and must not change while the model
 * lives.
 *
 * Errors: IO; FORMAT, naming the tensor, the key or the kind of file; UNSUPPORTED, for a tensor of another kind of ViT
 * or unknown use, unknown names, an attribute that is not supported, or products that processor, system or build do not
 * support; ARGUMENT also if num_heads or prefix is required or a value does not fit the file. */
DLORA_API dlora_status dlora_model_load(dlora_model **out, const char *path, const dlora_model_options *options);
/** Loads a ViT as dlora_model_load does, from a file's bytes in memory. bytes [size] must outlive the model and need no
 * alignment. */
DLORA_API dlora_status dlora_model_load_memory(dlora_model **out, const void *bytes, size_t size,
                                               const dlora_model_options *options);
/** Frees the model. Its learners and sessions must be destroyed before. */
DLORA_API void dlora_model_destroy(dlora_model *model);
/** Fills *info; info->struct_size must be set. */
DLORA_API dlora_status dlora_model_get_info(const dlora_model *model, dlora_model_info *info);
/** Who said what a setting of a model is. */
enum dlora_origin {
  DLORA_ORIGIN_OPTION = 0,   /**< the caller's options */
  DLORA_ORIGIN_METADATA = 1, /**< metadata of the safetensors file */
  DLORA_ORIGIN_JSON = 2,     /**< config.json or preprocessor_config.json */
  DLORA_ORIGIN_TABLE = 3,    /**< the library's table of architectures and model types, by a name in config.json */
  DLORA_ORIGIN_TENSORS = 4,  /**< tensors and their shapes */
  DLORA_ORIGIN_DEFAULT = 5   /**< default of the family */
};
/** One setting of a model: what shapes do not tell. Texts live as long as the model. */
typedef struct dlora_model_setting {
  size_t struct_size;
  const char *name;  /**< as the member of dlora_model_options */
  const char *value; /**< a number, three with commas between them, or a word as `quick-gelu` */
  const char *place; /**< file and key, as `config.json: hidden_act` or `metadata num_heads`; else "" */
  int32_t origin;    /**< enum dlora_origin */
  int32_t reserved;  /**< 0 */
} dlora_model_setting;
#define DLORA_MODEL_SETTING_INIT \
  { sizeof(dlora_model_setting), NULL, NULL, NULL, 0, 0 }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_model_setting). */
DLORA_API dlora_status dlora_model_setting_init(dlora_model_setting *setting, size_t size);
/** Number of settings. 0 for NULL. */
DLORA_API size_t dlora_model_num_settings(const dlora_model *model);
/** Setting `index`, below dlora_model_num_settings. Error: ARGUMENT. */
DLORA_API dlora_status dlora_model_get_setting(const dlora_model *model, size_t index, dlora_model_setting *setting);
/** Computes class-token features after the final norm: features [images->count, embed_dim]. The model keeps one
 * workspace for each call in progress, for later calls, until it is destroyed. Error: NOT_FINITE. */
DLORA_API dlora_status dlora_model_embed(const dlora_model *model, const dlora_images *images, float *features);

/** \} */

/* ---- 4  dlora_bank: low-rank adapters of linear layers ----------------------------------------------------------- */
/** \defgroup group_bank dlora_bank: low-rank adapters of linear layers
 *  The terms that equation (1) adds to frozen projections, their training, and the end of a task. Works with a
 *  dlora_session, or in any network by dlora_bank_forward and dlora_bank_backward.
 *  \{ */

/** Projections of a block; sites of a ViT. */
enum dlora_projection {
  DLORA_SITE_QUERY = 1,  /**< attention query */
  DLORA_SITE_KEY = 2,    /**< attention key */
  DLORA_SITE_VALUE = 4,  /**< attention value */
  DLORA_SITE_OUTPUT = 8, /**< attention output projection */
  DLORA_SITE_FC1 = 16,   /**< first layer of the MLP */
  DLORA_SITE_FC2 = 32    /**< second layer of the MLP */
};
/** One adapted linear layer. A dlora_session reads block and projection; elsewhere they may have any value. */
typedef struct dlora_site {
  size_t input_dim;   /**< width of the layer's input, >= 1 */
  size_t output_dim;  /**< width of its output, >= 1 */
  int32_t block;      /**< 0 ... depth - 1 */
  int32_t projection; /**< one enum dlora_projection */
} dlora_site;

/** Optimizers of trained parameters. */
enum dlora_optimizer { DLORA_OPTIMIZER_ADAM = 0, DLORA_OPTIMIZER_SGD = 1 };
/** Options of a bank. */
typedef struct dlora_bank_options {
  size_t struct_size;
  const dlora_allocator *allocator; /**< default NULL: malloc and free */
  int32_t optimizer;                /**< enum dlora_optimizer; default ADAM */
  float beta1;                      /**< Adam; default 0.9; [0, 1) */
  float beta2;                      /**< Adam; default 0.999; [0, 1) */
  float epsilon;                    /**< Adam; default 1e-8; > 0 */
  float momentum;                   /**< SGD; default 0.9; [0, 1) */
  float weight_decay; /**< decoupled: a step shrinks parameters by learning_rate * weight_decay; default 0 */
} dlora_bank_options;
#define DLORA_BANK_OPTIONS_INIT \
  { sizeof(dlora_bank_options), NULL, DLORA_OPTIMIZER_ADAM, 0.9f, 0.999f, 1e-8f, 0.9f, 0.0f }

/** Terms of equation (1) that a pass adds; or-ed. */
enum dlora_terms {
  DLORA_TERM_MERGED = 1,     /**< M: merged updates of finished tasks */
  DLORA_TERM_ORTHOGONAL = 2, /**< orthogonal pair (A', B') of the open task */
  DLORA_TERM_RESIDUAL = 4    /**< residual pair (A_t, B_t) of the open task */
};
/** One low-rank adapter. Its update is B A. */
typedef struct dlora_adapter {
  const float *a; /**< [rank, input_dim] */
  const float *b; /**< [output_dim, rank] */
  size_t rank;    /**< 0: no adapter; a and b are then NULL */
} dlora_adapter;

/** Sets every member to its default. size: sizeof(dlora_bank_options) of the caller. */
DLORA_API dlora_status dlora_bank_options_init(dlora_bank_options *options, size_t size);
/** Creates a bank for linear layers sites [num_sites], which are copied. num_sites >= 1. options NULL: defaults. */
DLORA_API dlora_status dlora_bank_create(dlora_bank **out, const dlora_site *sites, size_t num_sites,
                                         const dlora_bank_options *options);
/** Frees the bank. Its sessions must be destroyed before. */
DLORA_API void dlora_bank_destroy(dlora_bank *bank);
/** Number of sites; 0 for NULL. */
DLORA_API size_t dlora_bank_num_sites(const dlora_bank *bank);
/** Number of finished tasks; 0 for NULL. */
DLORA_API size_t dlora_bank_num_tasks(const dlora_bank *bank);
/** Sets *out to the site as given at creation. site: 0 ... num_sites - 1. */
DLORA_API dlora_status dlora_bank_get_site(const dlora_bank *bank, size_t site, dlora_site *out);
/** Opens a task whose pairs have rank 0 at every site. Error: STATE if one is open. */
DLORA_API dlora_status dlora_bank_begin_task(dlora_bank *bank);
/** Sets the open task's orthogonal pair at a site (METHOD.md 4). a [rank, input_dim] becomes A', B' becomes 0.
 *
 * B' is trained. Without a projector A' is fixed. With a projector, whose dim is input_dim, A' is trained too, and
 * every step multiplies its update by P = I - Phi Phi^T; the projector is borrowed until the task ends. rank <=
 * input_dim; 0 removes the pair. Resets the optimizer. Errors: STATE, NOT_FINITE, MISMATCH. */
DLORA_API dlora_status dlora_bank_set_orthogonal(dlora_bank *bank, size_t site, const float *a, size_t rank,
                                                 const dlora_projector *projector);
/** Sets the open task's residual pair (A_t, B_t) in the same way (METHOD.md 5). train_a not 0: A_t is trained too. */
DLORA_API dlora_status dlora_bank_set_residual(dlora_bank *bank, size_t site, const float *a, size_t rank,
                                               int32_t train_a);
/** Lends the trained parameters of the open task and their gradients, two contiguous arrays [*count].
 *
 * For each site in order: B' [output_dim, rank], A' if trained, B_t, A_t if trained. Borrowed until a set_, commit_ or
 * discard_ call. Each pointer may be NULL. Error: STATE. */
DLORA_API dlora_status dlora_bank_get_parameters(dlora_bank *bank, float **parameters, float **gradients,
                                                 size_t *count);
/** Adds chosen terms of equation (1) to y [rows, output_dim], for x [rows, input_dim]. The caller adds W h + b.
 *
 * terms: enum dlora_terms, or-ed; those of pairs need an open task (STATE). routing: [rows / rows_per_item, num_tasks],
 * the weights w_s of each item of rows_per_item consecutive rows; NULL: no residual adapter of a finished task. rows
 * must be a multiple of rows_per_item. */
DLORA_API dlora_status dlora_bank_forward(const dlora_bank *bank, size_t site, const float *x, size_t rows,
                                          int32_t terms, const float *routing, size_t rows_per_item, float *y);
/** Adds the gradients of the open task's factors at one site to those of the bank. Adds the input's gradient through
 * the terms to dx [rows, input_dim], unless dx is NULL. x [rows, input_dim] as in forward; dy: [rows, output_dim].
 * Error: STATE without an open task or after dlora_bank_set_merge_fractions. */
DLORA_API dlora_status dlora_bank_backward(dlora_bank *bank, size_t site, const float *x, const float *dy, size_t rows,
                                           int32_t terms, float *dx);
/** Takes one optimizer step with the gradients and sets these to 0. learning_rate >= 0. Errors: STATE; NOT_FINITE if a
 * gradient is, and nothing changes. */
DLORA_API dlora_status dlora_bank_step(dlora_bank *bank, float learning_rate);
/** Sets the fractions of both updates merged into M at task end (2a), and thereby ends training.
 *
 * commit_task then adds orthogonal * B'A' + residual * B_t A_t to M and keeps (A_t, (1 - residual) B_t). Until then,
 * DLORA_TERM_ORTHOGONAL stands for the merged part of both updates and DLORA_TERM_RESIDUAL for the kept one; backward
 * is refused. Both fractions lie in [0, 1]; without this call they are 1 and 0 (paper). May be called again. Error:
 * STATE. */
DLORA_API dlora_status dlora_bank_set_merge_fractions(dlora_bank *bank, float orthogonal, float residual);
/** Ends the task: M gets the merge fractions of both updates, by default all of B'A' and nothing of B_t A_t. What
 * remains of the residual pair becomes the adapter of task num_tasks. Error: STATE. */
DLORA_API dlora_status dlora_bank_commit_task(dlora_bank *bank);
/** Drops the open task, as if begin_task had not been called. Error: STATE. */
DLORA_API dlora_status dlora_bank_discard_task(dlora_bank *bank);
/** Sets *merged to M [output_dim, input_dim] of a site, or to NULL while M is zero. Borrowed. */
DLORA_API dlora_status dlora_bank_get_merged(const dlora_bank *bank, size_t site, const float **merged);
/** Sets *out to the residual adapter of a finished task at a site. Its arrays are borrowed. */
DLORA_API dlora_status dlora_bank_get_residual(const dlora_bank *bank, size_t site, int64_t task, dlora_adapter *out);
/** Writes the finished tasks as a safetensors file, atomically. An open task is not written. Error: IO. */
DLORA_API dlora_status dlora_bank_save(const dlora_bank *bank, const char *path);
/** Reads a bank from a file of dlora_bank_save. options NULL: defaults; options are not stored. Errors: IO, FORMAT. */
DLORA_API dlora_status dlora_bank_load(dlora_bank **out, const char *path, const dlora_bank_options *options);

/** \} */

/* ---- 5  dlora_projector: the directions that finished tasks use -------------------------------------------------- */
/** \defgroup group_projector dlora_projector: the directions that finished tasks use
 *  Phi [dim, m], orthonormal directions of one input in groups Psi_s, one for each task s; and the second moment S of
 * the open task. METHOD.md 3 to 6.
 *  \{ */

/** Options of a projector. */
typedef struct dlora_projector_options {
  size_t struct_size;
  const dlora_allocator *allocator; /**< default NULL: malloc and free */
} dlora_projector_options;
#define DLORA_PROJECTOR_OPTIONS_INIT \
  { sizeof(dlora_projector_options), NULL }

/** Sets every member to its default. size: sizeof(dlora_projector_options) of the caller. */
DLORA_API dlora_status dlora_projector_options_init(dlora_projector_options *options, size_t size);
/** Creates a projector without directions for inputs of width dim: m = 0, P = I. dim: 1 ... INT_MAX / 64. */
DLORA_API dlora_status dlora_projector_create(dlora_projector **out, size_t dim,
                                              const dlora_projector_options *options);
/** Copies a projector, including its observations. */
DLORA_API dlora_status dlora_projector_clone(dlora_projector **out, const dlora_projector *projector);
/** Frees the projector. */
DLORA_API void dlora_projector_destroy(dlora_projector *projector);
/** Width of the input; 0 for NULL. */
DLORA_API size_t dlora_projector_dim(const dlora_projector *projector);
/** m: number of used directions, 0 ... dim; 0 for NULL. */
DLORA_API size_t dlora_projector_size(const dlora_projector *projector);
/** Number of finished tasks; 0 for NULL. */
DLORA_API size_t dlora_projector_num_tasks(const dlora_projector *projector);
/** Number of rows observed since the last commit or discard; 0 for NULL. */
DLORA_API uint64_t dlora_projector_num_observed(const dlora_projector *projector);
/** Adds rows x [rows, dim] to the second moment S of the open task, in float64. The first observation opens the task.
 * Error: NOT_FINITE. */
DLORA_API dlora_status dlora_projector_observe(dlora_projector *projector, const float *x, size_t rows);
/** Adds the observations of another projector of the same dim. Parts of a task may thus be observed apart. Error:
 * MISMATCH. */
DLORA_API dlora_status dlora_projector_merge_observed(dlora_projector *projector, const dlora_projector *other);
/** Drops the observations since the last commit. */
DLORA_API dlora_status dlora_projector_discard_task(dlora_projector *projector);
/** Finds the k unused directions with most observed energy: leading eigenvectors of P S P, InfLoRA's choice of A'
 * (METHOD.md 4). directions [k, dim] gets *found orthonormal rows; *found < k if no direction or no energy is left.
 * Error: STATE without observations. */
DLORA_API dlora_status dlora_projector_unused_directions(const dlora_projector *projector, size_t k, float *directions,
                                                         size_t *found);
/** Finds the first k directions that commit_task would add with this threshold in (0, 1] (METHOD.md 5,
 * DLORA_RESIDUAL_IN_NEW). directions and *found as above. Error: STATE without observations. */
DLORA_API dlora_status dlora_projector_task_directions(const dlora_projector *projector, float energy_threshold,
                                                       size_t k, float *directions, size_t *found);
/** Finds the k directions inside span(Phi) with most observed energy (METHOD.md 5, DLORA_RESIDUAL_IN_USED). directions
 * and *found as above. Error: STATE without observations. */
DLORA_API dlora_status dlora_projector_used_directions(const dlora_projector *projector, size_t k, float *directions,
                                                       size_t *found);
/** Ends a task: adds as few leading eigenvectors of P S P as satisfy (2), as group Psi_t. Phi then holds the fraction
 * energy_threshold in (0, 1] of trace(S). *added (may be NULL): their number, possibly 0. Error: STATE without
 * observations. */
DLORA_API dlora_status dlora_projector_commit_task(dlora_projector *projector, float energy_threshold, size_t *added);
/** Sets *bases to the group Psi_s of finished task s = task: [*count, dim], orthonormal rows. Borrowed. */
DLORA_API dlora_status dlora_projector_get_bases(const dlora_projector *projector, int64_t task, const float **bases,
                                                 size_t *count);
/** Multiplies each row of x [rows, dim] by P, in place: removes its part inside span(Phi). Error: NOT_FINITE. */
DLORA_API dlora_status dlora_projector_project(const dlora_projector *projector, float *x, size_t rows);
/** Adds rows x [rows, dim] of a finished task to its mean energy fraction, by which dlora_projector_route divides.
 * Error: NOT_FINITE. */
DLORA_API dlora_status dlora_projector_calibrate(dlora_projector *projector, int64_t task, const float *x, size_t rows);
/** Computes routing weights by energy (METHOD.md 6): routing [rows, num_tasks] for x [rows, dim]. Each is |Psi_s^T x|^2
 * / |x|^2 over its mean on task s's own rows, clipped to [0, 1]. The mean of a task never calibrated is 1. Error:
 * NOT_FINITE. */
DLORA_API dlora_status dlora_projector_route(const dlora_projector *projector, const float *x, size_t rows,
                                             float *routing);
/** Writes the finished tasks as a safetensors file, atomically. Observations are not written. Error: IO. */
DLORA_API dlora_status dlora_projector_save(const dlora_projector *projector, const char *path);
/** Reads a projector from a file of dlora_projector_save. options NULL: defaults. Errors: IO, FORMAT. */
DLORA_API dlora_status dlora_projector_load(dlora_projector **out, const char *path,
                                            const dlora_projector_options *options);

/** \} */

/* ---- 6  dlora_predictor: class, task and confidence from features ------------------------------------------------ */
/** \defgroup group_predictor dlora_predictor: class, task and confidence from features
 *  Statistics of features, and the readout computed from them in closed form. A component is one class in one task; a
 *  class that recurs has several. Works with features of any network. METHOD.md 7.
 *  \{ */

/** Readouts of scores. */
enum dlora_readout {
  DLORA_READOUT_GAUSSIAN = 0,         /**< equation (3): Gaussians with a common covariance */
  DLORA_READOUT_RANDOM_PROJECTION = 1 /**< ridge regression on a random projection */
};
/** Options of a predictor. */
typedef struct dlora_predictor_options {
  size_t struct_size;
  const dlora_allocator *allocator; /**< default NULL: malloc and free */
  uint64_t seed;                    /**< of the random projection; default 0 */
  size_t random_features;           /**< width of the random projection; default 2000; 1 ... INT_MAX / 64 */
  int32_t readout;                  /**< enum dlora_readout; default GAUSSIAN */
  int32_t use_prior; /**< 1: scores get log(n_c / N), from the component's fraction of images; default 0 */
  float shrinkage;   /**< lambda of C, > 0; default DLORA_AUTO: 0.3 dim / (N - K), in [0.001, 1] */
  float temperature; /**< T > 0 until one is fitted; default 2 */
  float ridge;       /**< > 0, relative to the mean diagonal of the Gram matrix; default 0.01; at least 1e-9 is used */
  float reserved;    /**< 0 */
} dlora_predictor_options;
#define DLORA_PREDICTOR_OPTIONS_INIT \
  { sizeof(dlora_predictor_options), NULL, 0, 2000, DLORA_READOUT_GAUSSIAN, 0, DLORA_AUTO, 2.0f, 0.01f, 0.0f }

/** Decision for one image. This struct never grows. */
typedef struct dlora_prediction {
  int64_t class_id;        /**< most probable class */
  int64_t task;            /**< most probable task, from 0 */
  float class_probability; /**< in [0, 1], calibrated by the temperature */
  float task_probability;  /**< in [0, 1] */
  float unknown_score;     /**< higher: less like any learned class (METHOD.md 7) */
  int32_t unknown;         /**< 1: unknown_score is above the threshold; 0: it is not, or there is no threshold */
} dlora_prediction;

/** Sets every member to its default. size: sizeof(dlora_predictor_options) of the caller. */
DLORA_API dlora_status dlora_predictor_options_init(dlora_predictor_options *options, size_t size);
/** Creates a predictor for features of width dim, 1 ... INT_MAX / 64. options NULL: defaults. */
DLORA_API dlora_status dlora_predictor_create(dlora_predictor **out, size_t dim,
                                              const dlora_predictor_options *options);
/** Copies a predictor, including its open task. */
DLORA_API dlora_status dlora_predictor_clone(dlora_predictor **out, const dlora_predictor *predictor);
/** Frees the predictor. */
DLORA_API void dlora_predictor_destroy(dlora_predictor *predictor);
/** Width of the features; 0 for NULL. */
DLORA_API size_t dlora_predictor_dim(const dlora_predictor *predictor);
/** Number of finished tasks; 0 for NULL. */
DLORA_API size_t dlora_predictor_num_tasks(const dlora_predictor *predictor);
/** Number of different classes over all finished tasks; 0 for NULL. */
DLORA_API size_t dlora_predictor_num_classes(const dlora_predictor *predictor);
/** Number of components over all finished tasks; 0 for NULL. */
DLORA_API size_t dlora_predictor_num_components(const dlora_predictor *predictor);
/** Fills classes [num_classes] in order of first appearance, the column order of class probabilities. */
DLORA_API dlora_status dlora_predictor_get_classes(const dlora_predictor *predictor, int64_t *classes);
/** Fills arrays over components, in order of task, then of appearance: tasks, classes and counts [num_components],
 * means [num_components, dim]. Each may be NULL. */
DLORA_API dlora_status dlora_predictor_get_components(const dlora_predictor *predictor, int64_t *tasks,
                                                      int64_t *classes, uint64_t *counts, double *means);
/** Fills scatter [dim, dim]: symmetric, pooled around the means of all components. */
DLORA_API dlora_status dlora_predictor_get_scatter(const dlora_predictor *predictor, double *scatter);
/** Returns the matrix R of the random projection: matrix [dim, *random_features], independent standard normal values
 * drawn row by row from the seed (METHOD.md 7). Both pointers may be NULL. Error: STATE with the Gaussian readout. */
DLORA_API dlora_status dlora_predictor_get_projection(const dlora_predictor *predictor, size_t *random_features,
                                                      double *matrix);
/** Adds features [n, dim] with labels [n] to the statistics of the open task. The first observation opens the task. The
 * result does not depend on order and batches, to rounding. Error: NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_observe(dlora_predictor *predictor, const float *features, const int64_t *labels,
                                               size_t n);
/** Adds features [n, dim] with labels [n] of images excluded from training. commit_task counts them like others and
 * lets them correct the temperature. Error: NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_observe_held_out(dlora_predictor *predictor, const float *features,
                                                        const int64_t *labels, size_t n);
/** Adds image pairs: features [n, dim] of images, mirrored [n, dim] of the same images mirrored or otherwise changed,
 * and labels [n].
 *
 * A pair counts as one image and enters with half of either view, so that means and scatter hold what both views have
 * in common. Predictions see one view, and so the first views calibrate. held_out not 0: as
 * dlora_predictor_observe_held_out. METHOD.md 7. Error: NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_observe_pair(dlora_predictor *predictor, const float *features,
                                                    const float *mirrored, const int64_t *labels, size_t n,
                                                    int32_t held_out);
/** Drops the open task. */
DLORA_API dlora_status dlora_predictor_discard_task(dlora_predictor *predictor);
/** Moves the statistics of finished tasks along with features that have drifted while a task was learned (METHOD.md 7).
 *
 * before, after: [n, columns], features of the same n images before and after. A ridge map (4) is fitted from one to
 * the other. It is applied to columns first_column ... first_column + columns - 1 of means and scatter. Error:
 * NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_compensate_drift(dlora_predictor *predictor, const float *before,
                                                        const float *after, size_t n, size_t first_column,
                                                        size_t columns);
/** Ends the open task (METHOD.md 7). Features scored as if never observed give the temperature and unknown scores. A
 * temperature set by hand stays, unless the task has held-out features. Errors: STATE without observations; NUMERIC. */
DLORA_API dlora_status dlora_predictor_commit_task(dlora_predictor *predictor);
/** Appends the finished tasks of another predictor of the same dim and options, as further tasks. The weight of the
 * broad part of the posterior stays, or becomes other's if predictor has no finished task. Errors: MISMATCH, NUMERIC.
 */
DLORA_API dlora_status dlora_predictor_append(dlora_predictor *predictor, const dlora_predictor *other);
/** Merges another predictor of the same dim and options that has observed other images of the SAME tasks. The result is
 * that of one predictor which has observed both parts (data-parallel use); open tasks are merged too. Errors: MISMATCH,
 * NUMERIC. */
DLORA_API dlora_status dlora_predictor_merge(dlora_predictor *predictor, const dlora_predictor *other);
/** Computes posteriors of features [n, dim] from scores s of equation (3): 0.8 softmax(s / T) + 0.2 softmax(s / (4 T)),
 * with 0.85 and 0.15 for predictors from old files (METHOD.md 7).
 *
 * component_log_probs: [n, num_components]. class_log_probs: [n, num_classes], summed over tasks. task_probs: [n,
 * num_tasks], summed over classes. unknown_scores: [n]. Each may be NULL. Errors: STATE before the first task,
 * NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_posterior(const dlora_predictor *predictor, const float *features, size_t n,
                                                 float *component_log_probs, float *class_log_probs, float *task_probs,
                                                 float *unknown_scores);
/** Decides for features [n, dim]: predictions [n]. The unknown threshold is the 0.95 quantile. Errors: STATE before the
 * first task, NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_predict(const dlora_predictor *predictor, const float *features, size_t n,
                                               dlora_prediction *predictions);
/** Returns the Gaussian scores (3) of columns first_column ... first_column + columns - 1 as a linear layer, score =
 * weight z + bias. Only the statistics of these columns enter, whatever the readout.
 *
 * weight [K, columns] has rows C^-1 mu_c; bias [K] is -1/2 mu_c^T C^-1 mu_c, plus log(n_c / N) with use_prior. If
 * components differ in n_c, bias also has the small-sample correction 0.35 trace(C^-1 scatter / (N - K)) / n_c; 0.35 is
 * half of eta (METHOD.md 7). K is num_components. include_open not 0: the open task's components follow and are part of
 * C. Values beyond the range of a float become its largest. Errors: STATE before any observation, NUMERIC. */
DLORA_API dlora_status dlora_predictor_linear_weights(const dlora_predictor *predictor, size_t first_column,
                                                      size_t columns, int32_t include_open, float *weight, float *bias);
/** T of the posterior; 0 for NULL. */
DLORA_API float dlora_predictor_temperature(const dlora_predictor *predictor);
/** Sets T > 0 by hand. It stays until a task with held-out features ends. */
DLORA_API dlora_status dlora_predictor_set_temperature(dlora_predictor *predictor, float temperature);
/** Sets *threshold to the unknown score that the fraction `quantile` in (0, 1) of leave-one-out features does not
 * exceed. Error: STATE without such features. */
DLORA_API dlora_status dlora_predictor_unknown_threshold(const dlora_predictor *predictor, float quantile,
                                                         float *threshold);
/** Writes finished tasks, options and temperature as a safetensors file, atomically. An open task is not written.
 * Error: IO. */
DLORA_API dlora_status dlora_predictor_save(const dlora_predictor *predictor, const char *path);
/** Reads a predictor from a file of dlora_predictor_save. options NULL: as saved. Otherwise options replace the saved
 * ones, the temperature only if none was fitted or set. readout, random_features and seed must be the saved ones.
 * Errors: IO, FORMAT, MISMATCH. */
DLORA_API dlora_status dlora_predictor_load(dlora_predictor **out, const char *path,
                                            const dlora_predictor_options *options);

/** \} */

/* ---- 7  dlora_session: forward and backward of a model with a bank ----------------------------------------------- */
/** \defgroup group_session dlora_session: forward and backward pass of a model with a bank
 *  The workspace for training loops and losses of your own. docs/TUTORIAL.md and examples/README.md have programs.
 *  \{ */

/** Inputs of a block that projections read. */
enum dlora_input {
  DLORA_INPUT_ATTENTION = 0, /**< of query, key and value: after the first layer norm */
  DLORA_INPUT_OUTPUT = 1,    /**< of the attention output projection */
  DLORA_INPUT_FC1 = 2,       /**< of the MLP's first layer: after the second layer norm */
  DLORA_INPUT_FC2 = 3        /**< of the MLP's second layer: after GELU */
};
/** Options of a session. */
typedef struct dlora_session_options {
  size_t struct_size;
  const dlora_allocator *allocator; /**< default NULL: malloc and free */
  size_t max_batch;                 /**< most images of one forward call; default 16, at least 1; sizes the workspace */
  int32_t threads;                  /**< 1 to 4096; default DLORA_AUTO: all processors */
  int32_t training;                 /**< not 0: keep activations for dlora_session_backward; default 0 */
} dlora_session_options;
#define DLORA_SESSION_OPTIONS_INIT \
  { sizeof(dlora_session_options), NULL, 16, DLORA_AUTO, 0 }

/** Sets every member to its default. size: sizeof(dlora_session_options) of the caller. */
DLORA_API dlora_status dlora_session_options_init(dlora_session_options *options, size_t size);
/** Creates a workspace that runs `model` with the adapters of `bank` (NULL: none). Both are borrowed and must outlive
 * the session. options NULL: defaults.
 *
 * Every site of the bank must name a block and projection of the model, once, with its widths (MISMATCH). Later calls
 * allocate only when the bank has new tasks or larger ranks. */
DLORA_API dlora_status dlora_session_create(dlora_session **out, const dlora_model *model, const dlora_bank *bank,
                                            const dlora_session_options *options);
/** Frees the session. */
DLORA_API void dlora_session_destroy(dlora_session *session);
/** Bytes of the workspace; 0 for NULL. */
DLORA_API size_t dlora_session_workspace_size(const dlora_session *session);
/** Computes class-token features after the final norm: features [count, embed_dim], NULL allowed in training. count is
 * images->count, at most max_batch. Blocks below the first site run without adapters.
 *
 * terms: enum dlora_terms, or-ed; those of pairs need an open task (STATE). routing: [count, num_tasks], weights w_s of
 * finished tasks' residual adapters, or NULL. Error: NOT_FINITE. */
DLORA_API dlora_status dlora_session_forward(dlora_session *session, const dlora_images *images, int32_t terms,
                                             const float *routing, float *features);
/** Adds the gradients of the open task's parameters to those of `bank`, from d loss / d features [count, embed_dim] of
 * the last forward call. That call needs training on and routing NULL (STATE). bank must be the session's own
 * (MISMATCH). Nothing is computed below the first site. */
DLORA_API dlora_status dlora_session_backward(dlora_session *session, dlora_bank *bank, const float *feature_gradients);
/** Copies an input of the last forward call of a training session: values [*rows, *dim], image after image. values
 * NULL: only *rows and *dim are set.
 *
 * With DLORA_POOL_CLASS the last block's inputs other than the attention input have the class token only. block: the
 * lowest adapted one or a higher one. input: enum dlora_input, one that a site of the bank reads in some block; without
 * a bank, any. Error: STATE without a forward call or training. */
DLORA_API dlora_status dlora_session_get_input(const dlora_session *session, size_t block, int32_t input, float *values,
                                               size_t *rows, size_t *dim);
/** Computes early features of the last forward call: [class token, mean patch token] of the first adapted block's
 * input, layer-normed without gain, [count, 2 * embed_dim]. Without a class token the standard deviation of the patch
 * tokens takes its place. Learning never changes them. METHOD.md 6 and 7. Error: STATE without a forward call. */
DLORA_API dlora_status dlora_session_get_early_features(dlora_session *session, float *features);
/** Fills *profile with the times of this session; profile->struct_size must be set. */
DLORA_API dlora_status dlora_session_get_profile(const dlora_session *session, dlora_profile *profile);

/** \} */

/* ---- 8  dlora_learner: the whole method -------------------------------------------------------------------------- */
/** \defgroup group_learner dlora_learner: the whole method
 *  Learns task after task, predicts, evaluates, and saves all of it in one file.
 *  \{ */

enum dlora_residual_basis { DLORA_RESIDUAL_IN_NEW = 0, DLORA_RESIDUAL_IN_USED = 1, DLORA_RESIDUAL_RANDOM = 2 };
enum dlora_routing {
  DLORA_ROUTING_EARLY = 0,    /**< task posterior of Gaussians where the first adapted block begins: one pass */
  DLORA_ROUTING_TWO_PASS = 1, /**< task posterior of a first pass without residual adapters: adapted blocks run twice */
  DLORA_ROUTING_ENERGY = 2,   /**< per block, by energy in the task's bases */
  DLORA_ROUTING_GIVEN = 3,    /**< the caller names the task */
  DLORA_ROUTING_NONE = 4      /**< residual adapters off */
};
enum dlora_loss_classes { DLORA_LOSS_CLASSES_ALL = 0, DLORA_LOSS_CLASSES_TASK = 1 };
enum dlora_class_scores { DLORA_CLASS_SCORES_HEAD = 0, DLORA_CLASS_SCORES_STATISTICS = 1, DLORA_CLASS_SCORES_BOTH = 2 };
/** Layers whose features statistics are kept on (METHOD.md 7). Each has the backbone's feature. AT_ADAPTER adds the
 * input of the first adapted block. AT_MIDDLE adds the input of the middle block, or of the first adapted one if that
 * lies higher. FINAL adds nothing. */
enum dlora_feature_layers {
  DLORA_FEATURE_LAYERS_AT_ADAPTER = 0,
  DLORA_FEATURE_LAYERS_FINAL = 1,
  DLORA_FEATURE_LAYERS_AT_MIDDLE = 2
};
enum dlora_tokens { DLORA_TOKENS_ALL = 0, DLORA_TOKENS_CLASS = 1 };
enum dlora_schedule { DLORA_SCHEDULE_COSINE = 0, DLORA_SCHEDULE_CONSTANT = 1 };
/** For dlora_learner_options.first_block: depth / 2. DLORA_AUTO is depth / 4. */
enum dlora_first_block { DLORA_FIRST_BLOCK_MIDDLE = -2 };
/** Where images are mirrored left to right: nowhere, at random in training, or in the statistics as well. Statistics
 * are then taken of each image and its mirror image (METHOD.md 7). */
enum dlora_flip { DLORA_FLIP_NONE = 0, DLORA_FLIP_TRAINING = 1, DLORA_FLIP_EVERYWHERE = 2 };

/** Settings of a learner. Start from dlora_learner_options_init; members are set directly, or by name with
 * dlora_learner_options_set. "Paper" is the value of dlora_learner_options_paper, where it differs. */
typedef struct dlora_learner_options {
  size_t struct_size;
  const dlora_allocator *allocator; /**< Memory of this learner, taken at creation or loading. Default NULL: malloc. */

  /* ---- fixed at creation and kept in the checkpoint (DLORA_SCOPE_FIXED) ---- */
  size_t random_features; /**< Width of the random projection; free to change with another readout. Default 2000; 1 to
                             65536. */
  int32_t sites;          /**< enum dlora_projection, or-ed: adapted projections. Default key and value. */
  int32_t first_block;    /**< First adapted block. Default DLORA_AUTO: depth / 4; paper 0: all; or
                             DLORA_FIRST_BLOCK_MIDDLE. */
  int32_t num_blocks;     /**< Adapted blocks from there. Default 0: up to the last. */
  int32_t feature_layers; /**< enum dlora_feature_layers: features that statistics are kept on. Default AT_MIDDLE; paper
                             FINAL. */
  int32_t readout;        /**< enum dlora_readout. Default GAUSSIAN. */
  int32_t untouched_baseline; /**< 1: keep statistics of the untouched backbone as well, from the first task that trains
                                 (DLORA_SCOPE_TRAINING): for untouched_weight, and to compare with. Statistics that
                                 exist are kept up. Default 1; paper 0. */
  int32_t use_prior;          /**< 1: class frequencies enter the posterior. Default 0. */
  float shrinkage;   /**< Of the readout's covariance. Default DLORA_AUTO: follows the number of images. (0, 1e6]. */
  float temperature; /**< T of the posterior until one is fitted. Default 2; (0, 1e6]. */
  float ridge; /**< Of the random projection, relative to the mean diagonal of the Gram matrix; free to change with
                  another readout. Default 0.01; (0, 1e6]. */

  /* ---- training of a task (DLORA_SCOPE_TRAINING) ---- */
  uint64_t seed;          /**< Seed of everything random. Default 0. Fixed at creation with the random projection. */
  size_t rank_orthogonal; /**< Rank r of the orthogonal adapters. Default 8; 0 to embed_dim; 0 trains none. With both
                             ranks 0 (instant mode) nothing is trained, and the task is not protected against later
                             training. */
  size_t rank_residual;   /**< Rank of the residual adapters. Default 8; 0 to embed_dim; 0 trains none. */
  size_t batch_size;      /**< Images of one optimizer step. Default 16; paper 32; 1 to 2^20. */
  size_t max_observed_images; /**< Images whose tokens enter the second moments S of a task. Default 0: all. */
  int32_t epochs;             /**< Passes over the training images of a task. Default DLORA_AUTO: 4, or as many as make
                                 36 optimizer steps; paper 4; 0 to 2^20; 0 learns statistics alone. */
  int32_t residual_basis;     /**< enum dlora_residual_basis: directions of A_t. Default IN_USED; paper IN_NEW. */
  int32_t loss_classes;       /**< enum dlora_loss_classes: classes in the training softmax. Default ALL; paper TASK. */
  int32_t train_head;         /**< 1: train the rows of new classes together with the adapters. Default 1. */
  int32_t drift_compensation; /**< 1: move the statistics of earlier tasks along with their features. Default 1; paper
                                 0. */
  int32_t train_orthogonal_a; /**< 1: train A' too, from random rows, and project its updates. Default 0. */
  int32_t observed_tokens;    /**< enum dlora_tokens: tokens that enter S. Default ALL; paper CLASS. */
  int32_t optimizer;          /**< enum dlora_optimizer. Default ADAM. */
  int32_t schedule;           /**< enum dlora_schedule: of the learning rate over a task. Default COSINE. */
  int32_t flip;               /**< enum dlora_flip: where images are mirrored. Default EVERYWHERE; paper TRAINING. */
  int32_t crop_padding;       /**< Random shifts of training images by up to this many pixels of the model's image size.
                                 Default 0. */
  float energy_threshold; /**< Fraction of the input energy inside Phi after a task, equation (2). Default 0.95; (0, 1].
                           */
  float learning_rate;    /**< At the start of a task. Default 5e-4; paper 1e-3; 0 to 1e6. */
  float beta1;            /**< Adam. Default 0.9; [0, 1). */
  float beta2;            /**< Adam. Default 0.999; [0, 1). */
  float epsilon;          /**< Adam. Default 1e-8; (0, 1]. */
  float momentum;         /**< SGD. Default 0.9; [0, 1). */
  float weight_decay;     /**< Decoupled, of the trained factors and rows. Default 0; 0 to 1e6. */
  float held_out;         /**< Fraction of each task's images excluded from training; they correct the temperature.
                             Default 0.05; [0, 0.5]. */
  float loss_temperature; /**< Divides the logits in the training loss. Default 3; paper 1; (0, 1e6]. At 1 the initial
                             rows fit a few images so well that the adapters hardly learn. */
  float crop_scale; /**< Least fraction of an image's area in a random crop, with sides 3 : 4 to 4 : 3. Default 0.85;
                       paper 1: no crops. (0, 1]. */
  float jitter; /**< Brightness and contrast of training images are multiplied by factors in [1 - jitter, 1 + jitter].
                   Default 0.3; paper 0; [0, 1]. */
  float later_task_lr_scale;     /**< Multiplies learning_rate in tasks after the first. Default 1; 0 to 1e6. */
  float residual_merge_fraction; /**< r of (2a): fraction of the residual update merged into M, before merge_decay.
                                    Default 1; paper 0; [0, 1]. */
  float merge_decay; /**< M gets t^-merge_decay of the t-th task's update, (2a). Default 1.5; paper 0: all of it. 0 to
                        1000. */

  /* ---- prediction (DLORA_SCOPE_PREDICTION) ---- */
  int32_t routing;        /**< enum dlora_routing: which residual adapters run. Default NONE; paper ENERGY. */
  int32_t class_scores;   /**< enum dlora_class_scores: source of p(class | task) where residual adapters run. Default
                             BOTH; paper HEAD. */
  float unknown_quantile; /**< Fraction of known images that dlora_prediction.unknown accepts. Default 0.95; (0, 1). */

  /* ---- run time (DLORA_SCOPE_RUN_TIME) ---- */
  int32_t threads;     /**< Threads that a call may use. Default DLORA_AUTO: all processors. 1 to 4096. Not kept in the
                          checkpoint. */
  int32_t micro_batch; /**< Images that a thread runs at once: bounds memory, not results. Default DLORA_AUTO: chosen
                          from the geometry. 1 to 65536. */

  /* ---- prediction, added later ---- */
  float untouched_weight; /**< Weight w of the untouched backbone's posterior in predictions (6). Default DLORA_AUTO: by
                             evidence, from images that no adapter was trained on; paper 0. [0, 1]. 0 without
                             statistics of untouched_baseline. */
  float reserved;         /**< 0 */
} dlora_learner_options;

/** Summary of one learned task. */
typedef struct dlora_task_report {
  size_t struct_size;
  int64_t task;       /**< from 0 */
  size_t num_classes; /**< of the task */
  size_t num_images;
  size_t num_steps;
  double first_loss;      /**< mean over the first steps, at most 10; NaN without steps */
  double last_loss;       /**< mean over the last steps, at most 10 */
  double seconds_observe; /**< passes before training */
  double seconds_train;
  double seconds_statistics;  /**< passes after training and closed forms */
  size_t used_directions_min; /**< directions in use, smallest over adapted inputs */
  size_t used_directions_max;
  size_t rank_orthogonal_min; /**< rank the orthogonal branch found room for, smallest over sites */
  size_t rank_orthogonal_max;
  size_t evidence_images;  /**< images of the task that no adapter was trained on, which compared the adapted network
                              with the untouched backbone; 0 without untouched_baseline */
  double evidence_gain;    /**< mean over them of log p(class) by the adapted network less that by the untouched
                              backbone, nats; above 0: learning helps. NaN without such images */
  double untouched_weight; /**< weight w of the untouched backbone after this task, in (6) */
} dlora_task_report;
#define DLORA_TASK_REPORT_INIT \
  { sizeof(dlora_task_report), 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0.0, 0.0 }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_task_report). */
DLORA_API dlora_status dlora_task_report_init(dlora_task_report *report, size_t size);

/** Results of an evaluation. Accuracies in [0, 1]; NaN where undefined. */
typedef struct dlora_evaluation {
  size_t struct_size;
  size_t num_images;          /**< evaluated */
  size_t num_skipped;         /**< images of classes not learnt yet */
  double accuracy;            /**< class right, over all evaluated images */
  double task_accuracy;       /**< task right */
  double accuracy_given_task; /**< class right among the true task's classes */
  double ece;                 /**< expected calibration error of the class probability, 15 bins */
  double task_ece;            /**< of the task probability */
  double untouched_accuracy;  /**< the same readout on the untouched backbone; NaN without its statistics, as with
                                   untouched_baseline 0 */
  double average_accuracy;    /**< mean of accuracy over all evaluated stages (average incremental accuracy); NaN if a
                                 stage was evaluated on other images of its classes or tasks than the last one */
  double forgetting;        /**< mean over earlier tasks of best minus present accuracy. Tasks whose two accuracies are
                               on different images are left out */
  double backward_transfer; /**< mean over earlier tasks of present accuracy minus that after learning; likewise */
} dlora_evaluation;
#define DLORA_EVALUATION_INIT \
  { sizeof(dlora_evaluation), 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0 }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_evaluation). */
DLORA_API dlora_status dlora_evaluation_init(dlora_evaluation *evaluation, size_t size);

/** Sets the defaults, which were chosen by measurement (docs/METHOD.md). size: sizeof(dlora_learner_options) as the
 * caller knows it. */
DLORA_API dlora_status dlora_learner_options_init(dlora_learner_options *options, size_t size);
/** Sets the paper's preset: all blocks, residual_basis IN_NEW, routing ENERGY, loss_classes TASK, class_scores HEAD,
 * final features, observed_tokens CLASS, no drift compensation, nothing of the residual branch merged, and predictions
 * without the untouched backbone. */
DLORA_API dlora_status dlora_learner_options_paper(dlora_learner_options *options, size_t size);
/** Sets one option from text, whatever its type: "0.001", "two-pass", "key,value", "true", "auto". Numbers have a
 * decimal point in every locale. Error: ARGUMENT for an unknown name, for text that is no value of the type, and for a
 * value out of range; *options is then unchanged. Limits of a model's geometry are not known here. */
DLORA_API dlora_status dlora_learner_options_set(dlora_learner_options *options, const char *name, const char *value);
/** Writes the value of one option as NUL-terminated text, which dlora_learner_options_set reads as the same value.
 * value: size bytes; 64 are enough for every option. Error: ARGUMENT. */
DLORA_API dlora_status dlora_learner_options_get(const dlora_learner_options *options, const char *name, char *value,
                                                 size_t size);

enum dlora_option_type {
  DLORA_OPTION_INTEGER = 0, /**< int32_t */
  DLORA_OPTION_SIZE = 1,    /**< size_t */
  DLORA_OPTION_SEED = 2,    /**< uint64_t */
  DLORA_OPTION_FLOAT = 3,   /**< float */
  DLORA_OPTION_FLAG = 4,    /**< int32_t: 0 or 1 */
  DLORA_OPTION_CHOICE = 5,  /**< int32_t: index of a word in `choices`, and the value of its enum */
  DLORA_OPTION_SET = 6      /**< int32_t: 1 << index of each word in `choices`, or-ed */
};
/** When an option may change. */
enum dlora_option_scope {
  DLORA_SCOPE_FIXED = 0,      /**< never after creation */
  DLORA_SCOPE_TRAINING = 1,   /**< between tasks: it decides how the next one is learned */
  DLORA_SCOPE_PREDICTION = 2, /**< between tasks: it decides how images are predicted */
  DLORA_SCOPE_RUN_TIME = 3    /**< between tasks: it decides how the machine is used, not what is computed */
};
/** Description of one option. Strings are static. */
typedef struct dlora_option_info {
  size_t struct_size;
  const char *name;     /**< of the member of dlora_learner_options */
  const char *choices;  /**< words of a choice or set, "first|second"; of another type names of -1, -2, ...; or NULL */
  const char *help;     /**< one line */
  double default_value; /**< as dlora_learner_options_init sets it */
  double paper_value;   /**< as dlora_learner_options_paper sets it */
  double least;         /**< values from least to greatest are allowed, and those that `choices` names */
  double greatest;
  int32_t type;        /**< enum dlora_option_type */
  int32_t scope;       /**< enum dlora_option_scope */
  int32_t above_least; /**< 1: least itself is not allowed */
  int32_t reserved;    /**< 0 */
} dlora_option_info;
/** Sets struct_size, and every other member to 0. size: sizeof(dlora_option_info). */
DLORA_API dlora_status dlora_option_info_init(dlora_option_info *info, size_t size);
/** Number of options that dlora_learner_options_set knows: every member but struct_size and allocator. */
DLORA_API size_t dlora_option_count(void);
/** Fills *info for option `index`, from 0, in the order of the struct; info->struct_size must be set. Error: ARGUMENT.
 */
DLORA_API dlora_status dlora_option_get_info(size_t index, dlora_option_info *info);

/** Checks whether a learner can be created with these options, without creating one. Programs that take options from
 * their users can refuse them before hours of work. model NULL: limits of the model's geometry are not checked. Errors:
 * ARGUMENT, naming the member; STRUCT_SIZE. */
DLORA_API dlora_status dlora_learner_options_check(const dlora_learner_options *options, const dlora_model *model);
/** Creates a learner without tasks. The model is borrowed and must outlive it; learners may share one. options NULL:
 * all defaults. Errors: ARGUMENT, naming the member; STRUCT_SIZE. */
DLORA_API dlora_status dlora_learner_create(dlora_learner **out, const dlora_model *model,
                                            const dlora_learner_options *options);
DLORA_API void dlora_learner_destroy(dlora_learner *learner);
/** Changes the options of later tasks and predictions. Errors: MISMATCH if an option of DLORA_SCOPE_FIXED differs;
 * STATE if a task is open and any option differs. */
DLORA_API dlora_status dlora_learner_configure(dlora_learner *learner, const dlora_learner_options *options);
/** Fills *options with the options in force; options->struct_size must be set. */
DLORA_API dlora_status dlora_learner_get_options(const dlora_learner *learner, dlora_learner_options *options);
/** Sets the function that learning and evaluation call after every batch. Its non-zero return cancels the call. It may
 * be set at any time, also inside a task, and is not saved. Default NULL: none. */
DLORA_API dlora_status dlora_learner_set_progress(dlora_learner *learner, dlora_progress_fn progress, void *user);
/** Sets the function that receives warnings and notes, for example that no unused direction is left for a branch. It
 * may be set at any time and is not saved. Default NULL: none. */
DLORA_API dlora_status dlora_learner_set_log(dlora_learner *learner, dlora_log_fn log, void *user);

/** Learns one task from images in memory. labels: [images->count]. report may be NULL. After an error or a cancelling
 * callback the learner is as it was before.
 *
 * If a loaded learner has an open task of this function or of dlora_learner_learn_source, the call resumes that task.
 * Images and labels must be those that the task began with; the report's seconds count from here. Their number and the
 * labels are compared at once, and a few of the images, by digests of their pixels. Each further image is compared when
 * it is read. An image that differs gives MISMATCH before anything is learned from it, and the task stays open. Files
 * of older libraries have no digests. Another error or a cancelling callback discards the task.
 *
 * Errors: ARGUMENT, NOT_FINITE, CANCELLED, NO_MEMORY, MISMATCH; IO of snapshots; STATE if a task of
 * dlora_learner_begin_task is open. */
DLORA_API dlora_status dlora_learner_learn_task(dlora_learner *learner, const dlora_images *images,
                                                const int64_t *labels, dlora_task_report *report);
/** Learns one task from a source. It is read once before training, once per epoch, and once after training. A source
 * may vary an image from one reading to the next within a process. To resume a loaded task it must return the same
 * pixels. Errors: as dlora_learner_learn_task; IO if the source fails. */
DLORA_API dlora_status dlora_learner_learn_source(dlora_learner *learner, const dlora_image_source *source,
                                                  dlora_task_report *report);

/* A task may be interrupted: by a crash, a power cut, a user who needs the machine. dlora_learner_save writes the open
 * task too, and dlora_learner_load opens it again in the same place: directions, factors, head rows, optimizer, random
 * state, sums. The result is bitwise that of an uninterrupted task, with the same data, number of threads, micro_batch,
 * machine and BLAS.
 *
 *     dlora_learner_set_snapshot(learner, "device.safetensors", 100);   // after load or create, the same in every run
 *     for (size_t t = dlora_learner_num_tasks(learner); t < count; t++) {
 *       dlora_learner_learn_source(learner, &sources[t], NULL);         // starts task t, or resumes it
 *       dlora_learner_save(learner, "device.safetensors");
 *     }
 */

/** Enables periodic snapshots in dlora_learner_learn_task and _learn_source: the learner with its open task, saved to
 * path atomically. One is written every `steps` optimizer steps, every steps * batch_size observed images, and when the
 * call stops early with its task intact. That is when the progress callback cancels, the source fails, or memory runs
 * out at the task's end. steps 0: only when it stops early. A learner loaded from a snapshot resumes by the same call
 * with the same images.
 *
 * The library never removes the file. After the task, save to the same path or remove it. A periodic snapshot that
 * cannot be written ends the call with its error (IO); the file before it stays. If the call stops early, that failure
 * is logged, and the call returns its own error. path is copied; NULL, the default: no snapshots. Not saved. */
DLORA_API dlora_status dlora_learner_set_snapshot(dlora_learner *learner, const char *path, size_t steps);

/** Progress of an open task. After dlora_learner_load it tells what is still to be done. */
typedef struct dlora_open_task {
  size_t struct_size;
  size_t num_classes;          /**< observed so far */
  size_t num_observed;         /**< images given to dlora_learner_observe */
  size_t planned_steps;        /**< as given to dlora_learner_begin_task */
  size_t num_steps;            /**< optimizer steps done */
  size_t num_observed_trained; /**< images given to dlora_learner_observe_trained */
  size_t num_source_images;    /**< images of its source; 0: a loop of your own */
  int32_t is_open;             /**< 0: no task is open, and all of this is 0 */
  int32_t phase;               /**< DLORA_PHASE_OBSERVE; _TRAIN from dlora_learner_begin_training on; _STATISTICS from
                                  dlora_learner_observe_trained on */
} dlora_open_task;
#define DLORA_OPEN_TASK_INIT \
  { sizeof(dlora_open_task), 0, 0, 0, 0, 0, 0, 0, 0 }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_open_task). */
DLORA_API dlora_status dlora_open_task_init(dlora_open_task *task, size_t size);
/** Fills *task; task->struct_size must be set. */
DLORA_API dlora_status dlora_learner_get_open_task(const dlora_learner *learner, dlora_open_task *task);

/* The same in your own loop. Each phase has its function, and a call in the wrong phase is refused (STATE): the
 * sentence names the call that may come, nothing has changed, and the task goes on.
 *
 *     dlora_learner_begin_task(learner, steps);
 *     dlora_learner_observe(learner, &images, labels);             // every image, in any number of calls
 *     dlora_learner_begin_training(learner);
 *     for (size_t i = 0; i < steps; i++) dlora_learner_step(learner, &batches[i], labels_of[i], &loss);
 *     dlora_learner_observe_trained(learner, &images, labels);     // every image again
 *     dlora_learner_commit_task(learner, &report);
 *
 * A task of statistics alone, as with both ranks 0, is committed right after dlora_learner_observe. dlora_learner_save
 * between any two of these calls keeps the place; after dlora_learner_load, dlora_learner_get_open_task says how many
 * images and steps are done. */

/** Opens a task. planned_steps: for the cosine schedule; 0: constant learning rate. Error: STATE if one is open. */
DLORA_API dlora_status dlora_learner_begin_task(dlora_learner *learner, size_t planned_steps);
/** Adds images of the task with their labels [count] to its statistics, before training. Error: STATE from
 * dlora_learner_begin_training on. A batch with bad arguments or pixels (ARGUMENT, NOT_FINITE) is refused and changes
 * nothing; a failure inside discards the task: NO_MEMORY, or NUMERIC and NOT_FINITE where features are beyond a float's
 * range. dlora_learner_discard_task then gives STATE. */
DLORA_API dlora_status dlora_learner_observe(dlora_learner *learner, const dlora_images *images, const int64_t *labels);
/** Begins the training of the open task: chooses the adapters' directions and the head rows of its classes from what
 * was observed (METHOD.md 4 and 5). Errors: STATE if nothing was observed, training has begun or both ranks are 0; a
 * failure inside (NO_MEMORY, NUMERIC) discards the task. */
DLORA_API dlora_status dlora_learner_begin_training(dlora_learner *learner);
/** Makes one optimizer step. labels: [images->count], among those observed. *loss (may be NULL): mean cross-entropy of
 * the batch. Errors: STATE before dlora_learner_begin_training and from dlora_learner_observe_trained on. ARGUMENT or
 * NOT_FINITE for a bad batch, which is refused; the task goes on. NOT_FINITE for a loss and NO_MEMORY discard the task;
 * the learner is then as it was before the task. */
DLORA_API dlora_status dlora_learner_step(dlora_learner *learner, const dlora_images *images, const int64_t *labels,
                                          float *loss);
/** Adds images of the task to its statistics again, with the trained adapters. The first call ends the training, with
 * or without a step. Labels must be among those observed before, and each of these classes must come. Errors: STATE
 * before dlora_learner_begin_training; otherwise as dlora_learner_observe, with NUMERIC and NOT_FINITE also where
 * training has diverged. */
DLORA_API dlora_status dlora_learner_observe_trained(dlora_learner *learner, const dlora_images *images,
                                                     const int64_t *labels);
/** Closes the task: directions committed, adapters merged or kept, statistics taken over. report may be NULL. Errors:
 * STATE if nothing was observed, or if training has begun and not every class was given to
 * dlora_learner_observe_trained; NO_MEMORY, NUMERIC. After an error the task is still open. */
DLORA_API dlora_status dlora_learner_commit_task(dlora_learner *learner, dlora_task_report *report);
/** Discards the open task; the learner is as it was before the task. Error: STATE if none is open. */
DLORA_API dlora_status dlora_learner_discard_task(dlora_learner *learner);

DLORA_API size_t dlora_learner_num_tasks(const dlora_learner *learner);
DLORA_API size_t dlora_learner_num_classes(const dlora_learner *learner);
/** Weight w in [0, 1] of the untouched backbone's posterior in predictions, equation (6): untouched_weight, or by
 * evidence so far. 0 without statistics of the untouched backbone, before a task has trained, and for NULL. At 0 and 1
 * one of the two networks does not run. */
DLORA_API double dlora_learner_get_untouched_weight(const dlora_learner *learner);
/** Writes the class ids: classes [num_classes], in order of first appearance. Columns of class_log_probs have this
 * order. */
DLORA_API dlora_status dlora_learner_get_classes(const dlora_learner *learner, int64_t *classes);
/** Names a class id. The name is copied and kept in the checkpoint. */
DLORA_API dlora_status dlora_learner_set_class_name(dlora_learner *learner, int64_t class_id, const char *name);
/** Returns the name of a class id, borrowed; NULL if none was set. */
DLORA_API const char *dlora_learner_get_class_name(const dlora_learner *learner, int64_t class_id);
/** Keeps a text of your own under a key in the checkpoint and in snapshots, for example a description of the run. Both
 * are UTF-8, not interpreted, and copied. value NULL removes the note. dlora_inspect lists it as metadata `note.KEY`.
 * Errors: ARGUMENT, NO_MEMORY. */
DLORA_API dlora_status dlora_learner_set_note(dlora_learner *learner, const char *key, const char *value);
/** Returns the text of a note, borrowed; NULL if there is none. */
DLORA_API const char *dlora_learner_get_note(const dlora_learner *learner, const char *key);

/** Predicts class, task and confidence of each image from the finished tasks (METHOD.md 8). predictions: [count];
 * class_log_probs: [count, num_classes] or NULL.
 *
 * This function and the next two keep their workspace, so that a second call of the same size allocates nothing.
 * dlora_learner_begin_task and dlora_learner_configure release it. Errors: STATE before the first task or with routing
 * GIVEN; NOT_FINITE. */
DLORA_API dlora_status dlora_learner_predict(const dlora_learner *learner, const dlora_images *images,
                                             dlora_prediction *predictions, float *class_log_probs);
/** Predicts with the task of each image given: tasks [count] (task-incremental use). Otherwise as
 * dlora_learner_predict. */
DLORA_API dlora_status dlora_learner_predict_with_tasks(const dlora_learner *learner, const dlora_images *images,
                                                        const int64_t *tasks, dlora_prediction *predictions,
                                                        float *class_log_probs);
/** Computes adapted class-token features [count, embed_dim]. tasks: [count], the task whose residual adapters run, -1
 * for none; NULL: none for all. */
DLORA_API dlora_status dlora_learner_embed(const dlora_learner *learner, const dlora_images *images,
                                           const int64_t *tasks, float *features);
/** Evaluates the finished tasks on test images. Images of classes not learned yet are skipped. An image belongs to the
 * task in source->tasks, or else to the last task that has its class.
 *
 * The call records the accuracy on each task that has images here, in row num_tasks - 1 of the accuracy matrix. The
 * last call after a task counts as that task's stage in average_accuracy. Digests of pixels and labels, independent of
 * their order, record the images of each accuracy; only accuracies on the same images are compared. Files of older
 * libraries have no digests, and their accuracies are compared with none.
 *
 * evaluation may be NULL. Errors: STATE before the first task, ARGUMENT, NOT_FINITE, CANCELLED, IO, NO_MEMORY. */
DLORA_API dlora_status dlora_learner_evaluate(dlora_learner *learner, const dlora_image_source *source,
                                              dlora_evaluation *evaluation);
/** Writes the accuracy matrix [num_tasks, num_tasks]: row i has the accuracies after task i; NaN where nothing was
 * evaluated. */
DLORA_API dlora_status dlora_learner_get_accuracy_matrix(const dlora_learner *learner, double *matrix);

/** Saves the learner as one safetensors file, atomically: a crash leaves the old file or the new one. An open task is
 * saved too, and goes on. Error: IO. */
DLORA_API dlora_status dlora_learner_save(const dlora_learner *learner, const char *path);
/** Loads a learner on the backbone that it was learned on. An open task is open again.
 *
 * A learner keeps the rule of position resampling that it was learnt with, even if the model has the other one. A
 * dlora_session of that model with the learner's bank, and dlora_model_embed, follow the model.
 *
 * options NULL: as saved, with all processors and the C library's memory. Otherwise options replaces every option that
 * is not fixed at creation; with an open task only threads, micro_batch and allocator may differ. To change one option,
 * load with NULL, then dlora_learner_get_options, change it, dlora_learner_configure. Errors: MISMATCH, naming both
 * fingerprints or the option; FORMAT; IO; UNSUPPORTED for options of a newer library. */
DLORA_API dlora_status dlora_learner_load(dlora_learner **out, const dlora_model *model, const char *path,
                                          const dlora_learner_options *options);

/** Fills *profile with the times of learning and of dlora_learner_evaluate; profile->struct_size must be set. Calls on
 * a const learner are not counted, since many may run at once. */
DLORA_API dlora_status dlora_learner_get_profile(const dlora_learner *learner, dlora_profile *profile);

/** Returns the bank, borrowed: for inspection, export, or use without the learner. */
DLORA_API const dlora_bank *dlora_learner_get_bank(const dlora_learner *learner);
/** Returns the statistics without residual adapters (`base`), borrowed. */
DLORA_API const dlora_predictor *dlora_learner_get_predictor(const dlora_learner *learner);
/** Returns the used directions of one adapted input, borrowed; NULL if (block, input) is not adapted. input: enum
 * dlora_input. */
DLORA_API const dlora_projector *dlora_learner_get_projector(const dlora_learner *learner, size_t block, int32_t input);

/** Writes an update of the backbone as a LoRA that PEFT opens: adapter_config.json and adapter_model.safetensors in
 * folder, which is made unless it is there.
 *
 * task DLORA_AUTO: what every image sees, M of equation (1), with the rank that it has, exact to 1e-5. Otherwise the
 * residual adapter of this task alone; PEFT can have it active beside M (set_adapter). Module names are those of
 * the model class that the backbone's file belongs to, as its own module: of timm (with qkv in one layer), or of
 * transformers from version 5 on. Errors: STATE if there is no such update,
 * ARGUMENT for an unknown task, UNSUPPORTED, IO. */
DLORA_API dlora_status dlora_learner_export_peft(const dlora_learner *learner, const char *folder, int64_t task);
/** Writes the backbone with W + M as its weights, and a classifier, for timm and transformers: model.safetensors with
 * the tensor names of the backbone's file, config.json and, for Hugging Face's names, preprocessor_config.json, in
 * folder, which is made unless it is there.
 *
 * The classifier is the readout of the final feature (dlora_predictor_linear_weights), divided by the temperature. Its
 * decisions are the library's with this readout; the library's probabilities have a broad part besides (METHOD.md 7.1).
 * It has a row for each component, so that a class that was learnt in several tasks has several. Its tensors are head.*
 * of timm, classifier.* of transformers. Residual adapters, other levels of features and the untouched backbone have no
 * part in it. timm opens the folder as "local-dir:FOLDER". Backbones other than plain ones of timm's names and Hugging
 * Face's ViT and DINOv2 are refused (docs/INTEROP.md). Errors: STATE before the first task, UNSUPPORTED, IO. */
DLORA_API dlora_status dlora_learner_export_backbone(const dlora_learner *learner, const char *folder);

/** One tensor of a safetensors file, as dlora_inspect lists it. Pointers live during the callback only. */
typedef struct dlora_tensor_info {
  size_t struct_size;
  const char *name;    /**< for metadata entries: the key */
  const char *dtype;   /**< as "F32"; NULL for a metadata entry */
  const char *value;   /**< of a metadata entry; NULL for a tensor */
  const size_t *shape; /**< [num_dims] */
  size_t num_dims;
  size_t num_bytes;
} dlora_tensor_info;
/** Calls visit for every metadata entry and tensor of a safetensors file, or of the weights in a folder that
 * dlora_model_load reads, after all of them were checked. A non-zero return stops with CANCELLED. Errors: IO, FORMAT.
 */
DLORA_API dlora_status dlora_inspect(const char *path, int32_t (*visit)(const dlora_tensor_info *info, void *user),
                                     void *user);

/** \} */

#ifdef __cplusplus
}
#endif
#endif
