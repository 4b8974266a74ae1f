/* libduallora: a Vision Transformer that keeps learning where it runs.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A pre-trained Vision Transformer (ViT) learns task after task without forgetting and without keeping an old image,
 * by the method DualLoRA (arXiv 2411.00623). docs/METHOD.md has the mathematics; equation numbers below refer to it.
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
 * Contents
 *     1  status and errors          5  dlora_projector: the directions in use
 *     2  common types               6  dlora_predictor: class, task and confidence from features
 *     3  dlora_model: the ViT       7  dlora_session: forward and backward of model + bank
 *     4  dlora_bank: the adapters   8  dlora_learner: all of it in a few calls
 *
 * Rules (docs/CONVENTIONS.md has the reasons)
 *   Errors     Every fallible function returns a dlora_status; 0 is success. dlora_last_error() then has a sentence for
 *              the calling thread that names the culprit. A call that fails leaves its handle as it was, and sets *out
 *              to NULL if it was to create one.
 *   Ownership  _create, _load and _clone give ownership; _destroy takes it back and accepts NULL. Arrays you pass are
 *              read during the call only. A pointer from a _get function is borrowed: it lives until the next non-const
 *              call on the handle, or its destruction.
 *   Threads    A const handle may be used by many threads at once, a non-const one by one thread at a time. Nothing
 *              process-wide is ever changed.
 *   Callbacks  Allocators, image sources, progress, log and dlora_inspect's visitor must return. Neither an exception
 *              nor a panic nor longjmp may leave them: the library has nothing to unwind by, and memory, locks of the
 *              BLAS's threads and the handle in the middle of a change would be left as they are. Catch it inside, and
 *              say so by the value returned: NULL from an allocator, non-zero from a source, progress or visitor.
 *   Arrays     Contiguous, row-major, float unless said otherwise. [n, dim] means n rows of dim values.
 *   Options    Structs with their size as first member. Start from the _init function (or the _INIT macro, where there
 * is one) and change what you need; NULL means all defaults. Members are only ever appended.
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

/** The one list of statuses: X(name, code, when, what to do). Codes are never reused. */
#define DLORA_STATUS_LIST(X) \
  X(OK, 0, "The call did what it says.", "Go on.") \
  X(ERR_ARGUMENT, 1, "An argument is NULL, zero, too large or inconsistent.", \
    "Correct the call; the sentence names it.") \
  X(ERR_NO_MEMORY, 2, "The allocator returned NULL.", "Free memory or lower micro_batch; the handle is intact.") \
  X(ERR_STRUCT_SIZE, 3, "An options struct has an impossible size or set members this library does not know.", \
    "Initialise it with its _init function, or use a newer library.") \
  X(ERR_STATE, 4, "The call came in the wrong order.", "Make the call that the sentence asks for first.") \
  X(ERR_IO, 5, "A file could not be opened, read, written or renamed.", \
    "See the path and system error in the sentence.") \
  X(ERR_FORMAT, 6, "A file is damaged or is not what it should be.", \
    "Replace the file; the sentence names the tensor.") \
  X(ERR_MISMATCH, 7, "Two things do not belong together: checkpoint and backbone, or two dimensions.", \
    "Use the pair that belongs together.") \
  X(ERR_NOT_FINITE, 8, "An input, a loss or a result is NaN or infinite.", \
    "Check the data, lower the learning rate; the handle is as before the call.") \
  X(ERR_CANCELLED, 9, "A callback asked to stop.", "Nothing: the learner is as it was before the task.") \
  X(ERR_UNSUPPORTED, 10, "The file or option is valid but this library cannot use it.", "See the sentence.") \
  X(ERR_NUMERIC, 11, "A factorisation did not converge.", "Check the features for degenerate values.")

#define DLORA_STATUS_ENUM_(name, code, when, action) DLORA_##name = (code),
enum dlora_status_code { DLORA_STATUS_LIST(DLORA_STATUS_ENUM_) DLORA_STATUS_COUNT_ };
typedef int32_t dlora_status;

/** Name of a status, as "DLORA_ERR_IO"; "DLORA_ERR_?" for an unknown code. Static storage. */
DLORA_API const char *dlora_status_name(dlora_status status);
/** A sentence on the last failure in the calling thread; "" if there was none. Lives until the thread's
 * next failure. */
DLORA_API const char *dlora_last_error(void);
/** The library's version, as "0.9.0". Static storage. */
DLORA_API const char *dlora_version(void);
/** The processor kernels, the packed products that build and processor allow, "OpenMP" or "no OpenMP: one thread" for
 * the library's own loops, and the BLAS in use on this machine, as "kernels avx512; packed products float32 and
 * bfloat16; OpenMP; OpenBLAS ...". Lives until the thread's next call. */
DLORA_API const char *dlora_build_info(void);

/* ---- 2  Common types --------------------------------------------------------------------------------------------- */

typedef struct dlora_model dlora_model;
typedef struct dlora_bank dlora_bank;
typedef struct dlora_projector dlora_projector;
typedef struct dlora_predictor dlora_predictor;
typedef struct dlora_session dlora_session;
typedef struct dlora_learner dlora_learner;

/** Memory for one handle. allocate(size, user) returns memory aligned as malloc's or NULL; release(pointer, user) takes
 * it back. Both may be called by several threads at once, also within one call on the handle. Neither may be left by an
 * exception, panic or longjmp: allocate returns NULL instead. The struct is copied, the
 * user pointer kept. JSON headers of files are parsed with the C library's malloc. */
typedef struct dlora_allocator {
  void *(*allocate)(size_t size, void *user);
  void (*release)(void *pointer, void *user);
  void *user;
} dlora_allocator;

/** A batch of images of one size. Exactly one of u8 and f32 is set.
 *  u8:  [count, height, width, channels], channels 3 (RGB), 1 (gray, expanded to RGB) or 0 (same as 3); resized to the
 *       model's image size (bicubic with antialias) and normalised with its mean and standard deviation.
 *  f32: [count, 3, height, width], already normalised, (pixel / 255 - mean) / std with the model's mean and std; height
 *       and width must be the model's image size. A value beyond 20 times the largest magnitude that this gives for any
 *       pixel, or beyond 20 where that is below 1, is refused (ARGUMENT): 20 for mean and std 0.5, 53 for those of
 *       ImageNet. No augmentation and no other normalisation in use gets there; pixels in 0 ... 255, which are likely
 *       to be meant as u8, do.
 *  This struct never grows. */
typedef struct dlora_images {
  const uint8_t *u8;
  const float *f32;
  size_t count;
  size_t height;
  size_t width;
  size_t channels;
} dlora_images;

/** Reads image `index` of a source: fills *image with ONE image (count 1) whose pixels stay valid until the next call.
 *  Returns 0, or non-zero to stop: the call then fails with DLORA_ERR_IO naming the index. Called from the thread that
 *  made the library call, never concurrently. Never left by an exception, panic or longjmp. */
typedef int32_t (*dlora_read_image_fn)(size_t index, dlora_images *image, void *user);

/** Labelled images that the library reads when it needs them, so that they need not fit in memory. */
typedef struct dlora_image_source {
  size_t struct_size;
  dlora_read_image_fn read;
  void *user;
  size_t count;          /**< number of images, >= 1 */
  const int64_t *labels; /**< [count] class ids, any values */
  const int64_t *tasks;  /**< [count] true task of each image, for evaluation where classes recur; or NULL */
} dlora_image_source;
#define DLORA_IMAGE_SOURCE_INIT \
  { sizeof(dlora_image_source), NULL, NULL, 0, NULL, NULL }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_image_source). */
DLORA_API dlora_status dlora_image_source_init(dlora_image_source *source, size_t size);

enum dlora_phase {
  DLORA_PHASE_OBSERVE = 0,
  DLORA_PHASE_TRAIN = 1,
  DLORA_PHASE_STATISTICS = 2,
  DLORA_PHASE_EVALUATE = 3
};
/** What a progress callback is told. */
typedef struct dlora_progress {
  size_t struct_size;
  int64_t task;             /**< the task being learnt, from 0; when evaluating, the number of finished tasks */
  size_t done;              /**< images (observe, statistics, evaluate) or steps (train) done */
  size_t total;             /**< of this many */
  double loss;              /**< running mean of the training loss; NaN outside training */
  double images_per_second; /**< in this phase; 0 before it is known */
  int32_t phase;            /**< DLORA_PHASE_... */
  int32_t reserved;         /**< 0 */
} dlora_progress;
/** Returns 0 to go on; anything else cancels the call. Never left by an exception, panic or longjmp. */
typedef int32_t (*dlora_progress_fn)(const dlora_progress *progress, void *user);

enum dlora_log_level { DLORA_LOG_INFO = 0, DLORA_LOG_WARNING = 1 };
/** Receives one line, without a newline, that lives during the call only. Cannot stop the call, and is never left by an
 * exception, panic or longjmp: what it throws must be caught in it. */
typedef void (*dlora_log_fn)(int32_t level, const char *message, void *user);

/** Where the time of a handle went since its creation, in seconds. Times of a session are those of its threads added
 * up; the others are of the calling thread. What is not listed (reading images from a source, checks, waiting for other
 * threads) is in none of them. */
typedef struct dlora_profile {
  size_t struct_size;
  double preprocessing; /**< session: images resized, augmented, normalised and cut into patches */
  double products;      /**< session: products with the model's weights, forward and backward, and their biases */
  double adapters;      /**< session: what the bank adds at its sites, forward and backward */
  double attention;     /**< session: scores, softmax and weighted values of all heads, forward and backward */
  double norms;         /**< session: layer norms, forward and backward */
  double activation;    /**< session: GELU, forward and backward */
  double copies;        /**< session: of the residual stream */
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

/* ---- 3  dlora_model: the frozen Vision Transformer --------------------------------------------------------------- */

/** How the products with a model's weights are done. Everything else is in float32 throughout: normalisation,
 * attention, adapters, statistics. The two packed ones keep copies of the weights in the order that the processor reads
 * them and need oneDNN, which is loaded when the first model asks for it. */
enum dlora_products {
  DLORA_PRODUCTS_BLAS = 0,    /**< float32 by the BLAS: the reference */
  DLORA_PRODUCTS_PACKED = 1,  /**< float32; needs AVX-512 */
  DLORA_PRODUCTS_BFLOAT16 = 2 /**< factors rounded to bfloat16, summed up in float32; needs AVX512_BF16, uses AMX */
};
/** How to load a model. 0 or NULL means: as the file says. */
typedef struct dlora_model_options {
  size_t struct_size;
  const dlora_allocator *allocator; /**< NULL: malloc and free */
  size_t num_heads;                 /**< attention heads; needed where the file's metadata does not tell */
  size_t image_size;                /**< pixels a side, a multiple of patch_size; position embeddings are resampled */
  float layer_norm_eps;             /**< 0: metadata, else 1e-6 */
  float mean[3];                    /**< of pixels in [0, 1]; used where std is not 0 */
  float std[3];                     /**< all 0: metadata, else mean and std 0.5 */
  int32_t products;                 /**< DLORA_PRODUCTS_...; never chosen silently: what cannot be had is refused */
  int32_t threads;                  /**< for dlora_model_embed; DLORA_AUTO, the default: all processors; 1 to 4096 */
  int32_t reserved;                 /**< 0 */
  const char *prefix; /**< of the backbone's tensor names, as "teacher."; "": none. NULL: found, where there is one */
} dlora_model_options;
#define DLORA_MODEL_OPTIONS_INIT \
  { \
    sizeof(dlora_model_options), NULL, 0, 0, 0.0f, {0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f}, DLORA_PRODUCTS_BLAS, \
        DLORA_AUTO, 0, NULL \
  }

enum dlora_naming { DLORA_NAMING_TIMM = 0, DLORA_NAMING_HF_VIT = 1, DLORA_NAMING_HF_DINOV2 = 2 };
/** What a loaded model is. */
typedef struct dlora_model_info {
  size_t struct_size;
  size_t embed_dim;
  size_t depth; /**< transformer blocks */
  size_t num_heads;
  size_t mlp_dim;        /**< hidden width of the MLP */
  size_t patch_size;     /**< pixels a side */
  size_t image_size;     /**< pixels a side */
  size_t num_tokens;     /**< patches + 1 class token */
  size_t num_parameters; /**< of the backbone, heads excluded */
  float mean[3];
  float std[3];
  float layer_norm_eps;
  int32_t naming;       /**< DLORA_NAMING_... */
  char fingerprint[40]; /**< identifies weights and geometry: hexadecimal, NUL-terminated */
  int32_t products;     /**< DLORA_PRODUCTS_... */
  int32_t reserved;     /**< 0 */
} dlora_model_info;
/** Sets struct_size, and every other member to 0. size: sizeof(dlora_model_info). */
DLORA_API dlora_status dlora_model_info_init(dlora_model_info *info, size_t size);

/** Sets every member to its default. size: sizeof(dlora_model_options) as the caller knows it. */
DLORA_API dlora_status dlora_model_options_init(dlora_model_options *options, size_t size);
/** Loads a ViT from a safetensors file with timm, Hugging Face ViT or Hugging Face DINOv2 tensor names (F32, F16,
 * BF16). Patch size, depth and widths are found from the shapes. Every tensor under the names' prefix is used, or known
 * to leave the features as they are (heads, mask token), or the file is refused; so is one with several ViTs, unless
 * options->prefix chooses. What lies outside a prefix that was chosen is ignored. The file is memory-mapped and must
 * not be changed while the model lives. Errors: IO, FORMAT (the tensor is named, or what the file is instead),
 * UNSUPPORTED (a tensor of another kind of ViT or of no known use, which is named; unknown naming; products that this
 * processor, system or build does not support), ARGUMENT (num_heads or prefix is needed, a value does not fit the
 * file). */
DLORA_API dlora_status dlora_model_load(dlora_model **out, const char *path, const dlora_model_options *options);
/** The same from a file image in memory, which must outlive the model. bytes need not be aligned. */
DLORA_API dlora_status dlora_model_load_memory(dlora_model **out, const void *bytes, size_t size,
                                               const dlora_model_options *options);
DLORA_API void dlora_model_destroy(dlora_model *model);
/** Fills *info; info->struct_size must be set. */
DLORA_API dlora_status dlora_model_get_info(const dlora_model *model, dlora_model_info *info);
/** Class-token features after the final norm. features: [images->count, embed_dim]. The workspace is kept for the next
 * call, one for each call that ran at the same time, until the model is destroyed. Errors: ARGUMENT, NOT_FINITE. */
DLORA_API dlora_status dlora_model_embed(const dlora_model *model, const dlora_images *images, float *features);

/* ---- 4  dlora_bank: low-rank adapters of linear layers ----------------------------------------------------------- */

enum dlora_projection {
  DLORA_SITE_QUERY = 1,
  DLORA_SITE_KEY = 2,
  DLORA_SITE_VALUE = 4,
  DLORA_SITE_OUTPUT = 8, /**< attention output projection */
  DLORA_SITE_FC1 = 16,
  DLORA_SITE_FC2 = 32
};
/** One adapted linear layer. block and projection say where it sits in a ViT (for dlora_session); elsewhere they are
 * free.
 */
typedef struct dlora_site {
  size_t input_dim;
  size_t output_dim;
  int32_t block;      /**< 0 ... depth - 1 */
  int32_t projection; /**< one of DLORA_SITE_... */
} dlora_site;

enum dlora_optimizer { DLORA_OPTIMIZER_ADAM = 0, DLORA_OPTIMIZER_SGD = 1 };
typedef struct dlora_bank_options {
  size_t struct_size;
  const dlora_allocator *allocator;
  int32_t optimizer;  /**< DLORA_OPTIMIZER_... */
  float beta1;        /**< Adam */
  float beta2;        /**< Adam */
  float epsilon;      /**< Adam */
  float momentum;     /**< SGD */
  float weight_decay; /**< decoupled: parameters shrink by learning_rate * weight_decay a step */
} dlora_bank_options;
#define DLORA_BANK_OPTIONS_INIT \
  { sizeof(dlora_bank_options), NULL, DLORA_OPTIMIZER_ADAM, 0.9f, 0.999f, 1e-8f, 0.9f, 0.0f }

/** Which terms of equation (1) a forward pass adds; or-ed. */
enum dlora_terms {
  DLORA_TERM_MERGED = 1,     /**< M: what every image sees of finished tasks */
  DLORA_TERM_ORTHOGONAL = 2, /**< the current task's orthogonal pair (A', B') */
  DLORA_TERM_RESIDUAL = 4    /**< the current task's residual pair (A_t, B_t) */
};
/** One low-rank pair: the update is B A. */
typedef struct dlora_adapter {
  const float *a; /**< [rank, input_dim] */
  const float *b; /**< [output_dim, rank] */
  size_t rank;    /**< 0: nothing was learnt here */
} dlora_adapter;

DLORA_API dlora_status dlora_bank_options_init(dlora_bank_options *options, size_t size);
/** A bank for num_sites linear layers; the array is copied. */
DLORA_API dlora_status dlora_bank_create(dlora_bank **out, const dlora_site *sites, size_t num_sites,
                                         const dlora_bank_options *options);
DLORA_API void dlora_bank_destroy(dlora_bank *bank);
DLORA_API size_t dlora_bank_num_sites(const dlora_bank *bank);
DLORA_API size_t dlora_bank_num_tasks(const dlora_bank *bank);
/** The site as given at creation. */
DLORA_API dlora_status dlora_bank_get_site(const dlora_bank *bank, size_t site, dlora_site *out);
/** Opens a task with rank 0 everywhere. Error: STATE if one is open. */
DLORA_API dlora_status dlora_bank_begin_task(dlora_bank *bank);
/** Gives the open task its orthogonal pair at a site: a [rank, input_dim] is A', B' becomes 0 and is trained. With a
 *  projector (of input_dim, borrowed until commit_task), A' is trained too and each update of it is
 *  multiplied by P = I - Phi Phi^T; with NULL A' is fixed. rank <= input_dim; 0 takes the pair away. Resets the
 *  optimizer. Paper: orthogonal adapter, METHOD.md 4. */
DLORA_API dlora_status dlora_bank_set_orthogonal(dlora_bank *bank, size_t site, const float *a, size_t rank,
                                                 const dlora_projector *projector);
/** The same for the residual pair (A_t, B_t); train_a not 0: A_t is trained too. METHOD.md 5. */
DLORA_API dlora_status dlora_bank_set_residual(dlora_bank *bank, size_t site, const float *a, size_t rank,
                                               int32_t train_a);
/** The trained parameters of the open task and their gradients, each one contiguous array [count]: for every site in
 *  order: B' [output_dim, rank], A' if trained, B_t, A_t if trained. Borrowed until a set_, end_ or cancel_ call. The
 *  pointers may be NULL if not wanted. */
DLORA_API dlora_status dlora_bank_get_parameters(dlora_bank *bank, float **parameters, float **gradients,
                                                 size_t *count);
/** y += the chosen terms of equation (1) (not W h + b, which is the caller's). x: [rows, input_dim], y: [rows,
 * output_dim]. terms: DLORA_TERM_... or-ed. routing: [rows / rows_per_item, num_tasks], the w_s(x) of each item whose
 * rows follow one another, or NULL for no residual adapter of a finished task. rows must be a multiple of
 * rows_per_item. */
DLORA_API dlora_status dlora_bank_forward(const dlora_bank *bank, size_t site, const float *x, size_t rows,
                                          int32_t terms, const float *routing, size_t rows_per_item, float *y);
/** Adds the gradients of the open task's factors at one site, and dx += the gradient of the input through the terms
 *  (dx may be NULL). x: [rows, input_dim] as in forward, dy: [rows, output_dim], dx: [rows, input_dim]. */
DLORA_API dlora_status dlora_bank_backward(dlora_bank *bank, size_t site, const float *x, const float *dy, size_t rows,
                                           int32_t terms, float *dx);
/** One optimizer step with the gradients, which are then set to 0. Error: NOT_FINITE, and nothing has changed. */
DLORA_API dlora_status dlora_bank_step(dlora_bank *bank, float learning_rate);
/** Ends the training of the open task and sets the fractions of both updates that are merged into M at its end: M gets
 *  orthogonal B'A' + residual B_t A_t, and (A_t, (1 - residual) B_t) is kept of the residual pair. From then on
 *  DLORA_TERM_ORTHOGONAL in forward stands for the first, DLORA_TERM_RESIDUAL for the second, and backward is refused
 *  (STATE). Both are in [0, 1]; without this call they are 1 and 0 (paper). May be called again. METHOD.md 5. Errors:
 *  ARGUMENT, STATE. */
DLORA_API dlora_status dlora_bank_set_merge_fractions(dlora_bank *bank, float orthogonal, float residual);
/** Closes the task: M += B'A'; the residual pair is kept as adapter num_tasks; or as dlora_bank_set_merge_fractions
 * says. Error: STATE, NO_MEMORY. */
DLORA_API dlora_status dlora_bank_commit_task(dlora_bank *bank);
/** Drops the open task, as if begin_task had not been called. */
DLORA_API dlora_status dlora_bank_discard_task(dlora_bank *bank);
/** M of a site: [output_dim, input_dim], or NULL while it is zero. Borrowed. */
DLORA_API dlora_status dlora_bank_get_merged(const dlora_bank *bank, size_t site, const float **merged);
/** The residual adapter of a finished task, from 0. Its pointers are borrowed. Error: ARGUMENT if there is no such
 * task. */
DLORA_API dlora_status dlora_bank_get_residual(const dlora_bank *bank, size_t site, int64_t task, dlora_adapter *out);
/** Writes finished tasks as safetensors, atomically. An open task is not written. */
DLORA_API dlora_status dlora_bank_save(const dlora_bank *bank, const char *path);
DLORA_API dlora_status dlora_bank_load(dlora_bank **out, const char *path, const dlora_bank_options *options);

/* ---- 5  dlora_projector: the directions that earlier tasks use ----------------------------------------------------
 */

typedef struct dlora_projector_options {
  size_t struct_size;
  const dlora_allocator *allocator;
} dlora_projector_options;
#define DLORA_PROJECTOR_OPTIONS_INIT \
  { sizeof(dlora_projector_options), NULL }

DLORA_API dlora_status dlora_projector_options_init(dlora_projector_options *options, size_t size);
/** A projector without directions for inputs of width dim: Phi has no column, P = I. */
DLORA_API dlora_status dlora_projector_create(dlora_projector **out, size_t dim,
                                              const dlora_projector_options *options);
DLORA_API dlora_status dlora_projector_clone(dlora_projector **out, const dlora_projector *projector);
DLORA_API void dlora_projector_destroy(dlora_projector *projector);
DLORA_API size_t dlora_projector_dim(const dlora_projector *projector);
/** m: number of directions in use, 0 ... dim. */
DLORA_API size_t dlora_projector_size(const dlora_projector *projector);
DLORA_API size_t dlora_projector_num_tasks(const dlora_projector *projector);
/** Rows observed since the last commit or discard. */
DLORA_API uint64_t dlora_projector_num_observed(const dlora_projector *projector);
/** Adds x [rows, dim] to the second moment S of the current task, in float64. Errors: ARGUMENT, NOT_FINITE. */
DLORA_API dlora_status dlora_projector_observe(dlora_projector *projector, const float *x, size_t rows);
/** Adds what `other` has observed: sums add, so parts of a task may be observed apart. Error: MISMATCH of dim. */
DLORA_API dlora_status dlora_projector_merge_observed(dlora_projector *projector, const dlora_projector *other);
/** Forgets what was observed since the last commit. */
DLORA_API dlora_status dlora_projector_discard_task(dlora_projector *projector);
/** The k directions outside span(Phi) in which the observed input has the most energy: leading eigenvectors of P S P
 * (InfLoRA's choice of A'). directions: [k, dim], orthonormal rows, the first *found are filled; *found < k when no
 * room or no energy is left. Error: STATE if nothing was observed. METHOD.md 4. */
DLORA_API dlora_status dlora_projector_unused_directions(const dlora_projector *projector, size_t k, float *directions,
                                                         size_t *found);
/** The first k of the directions that commit_task with this threshold would add: the task's own bases Psi_t (METHOD.md
 * 5, DLORA_RESIDUAL_IN_NEW). */
DLORA_API dlora_status dlora_projector_task_directions(const dlora_projector *projector, float energy_threshold,
                                                       size_t k, float *directions, size_t *found);
/** The k directions of most observed energy inside span(Phi) (METHOD.md 5, DLORA_RESIDUAL_IN_USED). */
DLORA_API dlora_status dlora_projector_used_directions(const dlora_projector *projector, size_t k, float *directions,
                                                       size_t *found);
/** Ends a task: the leading eigenvectors of P S P are added as its group until the fraction of trace(S) inside Phi
 * reaches energy_threshold in (0, 1] (equation 2). *added (may be NULL): their number, possibly 0. */
DLORA_API dlora_status dlora_projector_commit_task(dlora_projector *projector, float energy_threshold, size_t *added);
/** The bases of one finished task, from 0: [*count, dim], orthonormal rows. Borrowed. Error: ARGUMENT if there is no
 * such task. */
DLORA_API dlora_status dlora_projector_get_bases(const dlora_projector *projector, int64_t task, const float **bases,
                                                 size_t *count);
/** x <- x P, row by row, in place: removes what lies in directions in use. x: [rows, dim]. */
DLORA_API dlora_status dlora_projector_project(const dlora_projector *projector, float *x, size_t rows);
/** Adds x [rows, dim] to the mean relative energy of task `task`, by which dlora_projector_route divides. */
DLORA_API dlora_status dlora_projector_calibrate(dlora_projector *projector, int64_t task, const float *x, size_t rows);
/** Routing weights by energy (METHOD.md 6): |Psi_s^T x|^2 / |x|^2 over its mean on task s's own rows, clipped to [0,
 * 1]. x: [rows, dim], routing: [rows, num_tasks]. A task never calibrated is divided by 1. */
DLORA_API dlora_status dlora_projector_route(const dlora_projector *projector, const float *x, size_t rows,
                                             float *routing);
DLORA_API dlora_status dlora_projector_save(const dlora_projector *projector, const char *path);
DLORA_API dlora_status dlora_projector_load(dlora_projector **out, const char *path,
                                            const dlora_projector_options *options);

/* ---- 6  dlora_predictor: class, task and confidence from features ------------------------------------------------ */

enum dlora_readout { DLORA_READOUT_GAUSSIAN = 0, DLORA_READOUT_RANDOM_PROJECTION = 1 };
typedef struct dlora_predictor_options {
  size_t struct_size;
  const dlora_allocator *allocator;
  uint64_t seed;          /**< of the random projection */
  size_t random_features; /**< width of the random projection */
  int32_t readout;        /**< DLORA_READOUT_... */
  int32_t use_prior;      /**< 1: add the log of each component's fraction of the images to its score */
  float shrinkage;        /**< of C, METHOD.md 7; > 0. DLORA_AUTO, the default: 0.3 dim / (features - components),
                               in [0.001, 1] */
  float temperature;      /**< T > 0, until one is fitted */
  float ridge;            /**< of the random projection, relative to the mean diagonal of its Gram matrix; below 1e-9
                               counts as that */
  float reserved;         /**< 0 */
} dlora_predictor_options;
#define DLORA_PREDICTOR_OPTIONS_INIT \
  { sizeof(dlora_predictor_options), NULL, 0, 2000, DLORA_READOUT_GAUSSIAN, 0, DLORA_AUTO, 2.0f, 0.01f, 0.0f }

/** A decision for one image. This struct never grows. */
typedef struct dlora_prediction {
  int64_t class_id;        /**< most probable class */
  int64_t task;            /**< most probable task, from 0 */
  float class_probability; /**< in [0, 1], calibrated by the temperature */
  float task_probability;  /**< in [0, 1] */
  float unknown_score;     /**< higher: less like anything learnt (METHOD.md 7) */
  int32_t unknown;         /**< 1: unknown_score is above the threshold in force; 0 otherwise or without a threshold */
} dlora_prediction;

DLORA_API dlora_status dlora_predictor_options_init(dlora_predictor_options *options, size_t size);
/** A predictor for features of width dim from any network. */
DLORA_API dlora_status dlora_predictor_create(dlora_predictor **out, size_t dim,
                                              const dlora_predictor_options *options);
DLORA_API dlora_status dlora_predictor_clone(dlora_predictor **out, const dlora_predictor *predictor);
DLORA_API void dlora_predictor_destroy(dlora_predictor *predictor);
DLORA_API size_t dlora_predictor_dim(const dlora_predictor *predictor);
DLORA_API size_t dlora_predictor_num_tasks(const dlora_predictor *predictor);
/** Number of different classes over all finished tasks. */
DLORA_API size_t dlora_predictor_num_classes(const dlora_predictor *predictor);
/** Number of (task, class) components over all finished tasks. */
DLORA_API size_t dlora_predictor_num_components(const dlora_predictor *predictor);
/** classes: [num_classes], in order of first appearance; this is the column order of class probabilities. */
DLORA_API dlora_status dlora_predictor_get_classes(const dlora_predictor *predictor, int64_t *classes);
/** Per component, in order of task and then of appearance: tasks, classes, counts [num_components], means
 *  [num_components, dim]. Any may be NULL. */
DLORA_API dlora_status dlora_predictor_get_components(const dlora_predictor *predictor, int64_t *tasks,
                                                      int64_t *classes, uint64_t *counts, double *means);
/** The pooled within-class scatter, symmetric [dim, dim]. */
DLORA_API dlora_status dlora_predictor_get_scatter(const dlora_predictor *predictor, double *scatter);
/** The matrix R of the random projection, [dim, *random_features] (METHOD.md 7): independent standard normal values,
 *  drawn row by row from the seed. Scores are a ridge regression on max(0, z R). random_features and matrix may be
 * NULL. Error: STATE with the Gaussian readout, which has none. */
DLORA_API dlora_status dlora_predictor_get_projection(const dlora_predictor *predictor, size_t *random_features,
                                                      double *matrix);
/** Adds features [n, dim] with labels [n] to the open task's statistics (a task opens by its first observation). In any
 *  order and number of batches the result is the same to rounding. Errors: ARGUMENT, NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_observe(dlora_predictor *predictor, const float *features, const int64_t *labels,
                                               size_t n);
/** Adds features [n, dim] with labels [n] that were excluded from training: commit_task counts them in the statistics
 *  like others, and corrects the temperature by them. Errors: ARGUMENT, NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_observe_held_out(dlora_predictor *predictor, const float *features,
                                                        const int64_t *labels, size_t n);
/** Adds images seen twice, as they are and mirrored, or in two views of another kind: features and mirrored [n, dim],
 *  labels [n]. An image counts as one and enters with half of either view, so that means and scatter hold what the
 * views have in common; those of the first view calibrate, as predictions are made of one. held_out: as
 *  dlora_predictor_observe_held_out does, not 0. METHOD.md 7. Errors: ARGUMENT, NOT_FINITE. */
DLORA_API dlora_status dlora_predictor_observe_pair(dlora_predictor *predictor, const float *features,
                                                    const float *mirrored, const int64_t *labels, size_t n,
                                                    int32_t held_out);
/** Forgets the open task. */
DLORA_API dlora_status dlora_predictor_discard_task(dlora_predictor *predictor);
/** Moves the statistics of finished tasks along with features that changed while a task was learnt (drift compensation,
 *  METHOD.md 7): a ridge map is fitted from before to after, both [n, columns] features of the same images, and applied
 * to the columns first_column ... first_column + columns - 1 of the old means and scatter. */
DLORA_API dlora_status dlora_predictor_compensate_drift(dlora_predictor *predictor, const float *before,
                                                        const float *after, size_t n, size_t first_column,
                                                        size_t columns);
/** Closes the open task. Fits the temperature (unless it was set by hand and nothing is held out) and takes unknown
 *  scores, both from features scored as if each had not been observed. METHOD.md 7. Error: STATE if nothing was
 * observed.
 */
DLORA_API dlora_status dlora_predictor_commit_task(dlora_predictor *predictor);
/** Adds the finished tasks of another predictor of the same dim and options, as further tasks. Error: MISMATCH.
 * How broad the posterior is stays that of predictor, or becomes other's where predictor has no finished task. */
DLORA_API dlora_status dlora_predictor_append(dlora_predictor *predictor, const dlora_predictor *other);
/** Adds what another predictor of the same dim has seen of the SAME tasks: counts, means and scatter are combined as if
 * one predictor had observed both parts (data-parallel use). Open tasks are combined too. Error: MISMATCH. */
DLORA_API dlora_status dlora_predictor_merge(dlora_predictor *predictor, const dlora_predictor *other);
/** Posteriors of features [n, dim]: component_log_probs [n, num_components], class_log_probs [n, num_classes] (summed
 * over tasks), task_probs [n, num_tasks] (summed over classes), unknown_scores [n]. Any may be NULL. Of the
 * scores s of equation (3): 0.8 softmax(s / T) + 0.2 softmax(s / (4 T)) (0.85 and 0.15 from old files), METHOD.md 7.
 * Error: STATE before the first task. */
DLORA_API dlora_status dlora_predictor_posterior(const dlora_predictor *predictor, const float *features, size_t n,
                                                 float *component_log_probs, float *class_log_probs, float *task_probs,
                                                 float *unknown_scores);
/** Decisions for features [n, dim]. predictions: [n]. */
DLORA_API dlora_status dlora_predictor_predict(const dlora_predictor *predictor, const float *features, size_t n,
                                               dlora_prediction *predictions);
/** The Gaussian readout's scores as a linear layer on a range of columns, score = weight z + bias, from the statistics
 *  of these columns alone, whatever the readout: weight [num_components, columns] = C^-1 mu_c and bias [num_components]
 *  = -1/2 mu_c^T C^-1 mu_c, which is equation (3); to the bias come log(n_c / N) with use_prior and, unless all
 *  components have as many features, 0.35 trace(C^-1 scatter / (N - K)) / n_c for what the noise of a mean of n_c
 *  features takes from its score (METHOD.md 7; 0.35 is half of eta there). With include_open not 0 the open task's
 * components follow and take part in C. Values beyond the range of a float become the largest ones. Errors: ARGUMENT,
 * STATE before anything was observed. */
DLORA_API dlora_status dlora_predictor_linear_weights(const dlora_predictor *predictor, size_t first_column,
                                                      size_t columns, int32_t include_open, float *weight, float *bias);
/** T of the posterior; set fixes it until the next task with held-out features. */
DLORA_API float dlora_predictor_temperature(const dlora_predictor *predictor);
DLORA_API dlora_status dlora_predictor_set_temperature(dlora_predictor *predictor, float temperature);
/** The unknown_score below which the fraction `quantile` in (0, 1) of held-out features lay. Error: STATE without any.
 */
DLORA_API dlora_status dlora_predictor_unknown_threshold(const dlora_predictor *predictor, float quantile,
                                                         float *threshold);
DLORA_API dlora_status dlora_predictor_save(const dlora_predictor *predictor, const char *path);
DLORA_API dlora_status dlora_predictor_load(dlora_predictor **out, const char *path,
                                            const dlora_predictor_options *options);

/* ---- 7  dlora_session: forward and backward of a model with a bank --------------------------------------------------
 */

enum dlora_input { DLORA_INPUT_ATTENTION = 0, DLORA_INPUT_OUTPUT = 1, DLORA_INPUT_FC1 = 2, DLORA_INPUT_FC2 = 3 };
typedef struct dlora_session_options {
  size_t struct_size;
  const dlora_allocator *allocator;
  size_t max_batch; /**< images of one forward call at most: the workspace is planned for them */
  int32_t threads;  /**< DLORA_AUTO, the default: all processors; 1 to 4096 */
  int32_t training; /**< not 0: keep what dlora_session_backward needs. Default 0 */
} dlora_session_options;
#define DLORA_SESSION_OPTIONS_INIT \
  { sizeof(dlora_session_options), NULL, 16, DLORA_AUTO, 0 }

DLORA_API dlora_status dlora_session_options_init(dlora_session_options *options, size_t size);
/** A workspace to run `model` with the adapters of `bank` (NULL: none). Both must outlive the session. Every site of
 * the bank must name a block and projection of the model, with its widths. Nothing is allocated by later calls, except
 * when a task of the bank has ended in between. */
DLORA_API dlora_status dlora_session_create(dlora_session **out, const dlora_model *model, const dlora_bank *bank,
                                            const dlora_session_options *options);
DLORA_API void dlora_session_destroy(dlora_session *session);
/** Bytes of the planned workspace. */
DLORA_API size_t dlora_session_workspace_size(const dlora_session *session);
/** Class-token features after the final norm: features [count, embed_dim] (may be NULL in training). terms and
 * routing [count, num_tasks] as in dlora_bank_forward. Blocks below the first site never see an adapter. */
DLORA_API dlora_status dlora_session_forward(dlora_session *session, const dlora_images *images, int32_t terms,
                                             const float *routing, float *features);
/** Back from d loss / d features [count, embed_dim] of the last forward call (made with training on and routing
 * NULL), adding to the gradients of `bank`, which must be the session's own. No gradient is formed below the first
 * site.
 */
DLORA_API dlora_status dlora_session_backward(dlora_session *session, dlora_bank *bank, const float *feature_gradients);
/** Copies the input that a group of sites read in the last forward call of a training session: values [*rows, *dim],
 * image after image (NULL: only the size is wanted). In the last block only the class token reaches the inputs other
 * than the attention input. block: the lowest adapted one or one above it; input: DLORA_INPUT_..., one that a site of
 * the bank reads in some block (a session without a bank has them all). */
DLORA_API dlora_status dlora_session_get_input(const dlora_session *session, size_t block, int32_t input, float *values,
                                               size_t *rows, size_t *dim);
/** What enters the first adapted block, layer-normed without gain: [class token, mean patch token] of each image,
 * [count, 2 * embed_dim]. It never changes with learning. METHOD.md 6 (early routing) and 7 (feature layers). */
DLORA_API dlora_status dlora_session_get_early_features(dlora_session *session, float *features);
/** Fills *profile with the times of this session; profile->struct_size must be set. */
DLORA_API dlora_status dlora_session_get_profile(const dlora_session *session, dlora_profile *profile);

/* ---- 8  dlora_learner: the whole method -------------------------------------------------------------------------- */

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
/** Statistics of what enters the first adapted block and the final class token; of that alone; of what enters the
 * middle block, or the first adapted one if that lies higher, and the final class token (METHOD.md 7). */
enum dlora_feature_layers {
  DLORA_FEATURE_LAYERS_AT_ADAPTER = 0,
  DLORA_FEATURE_LAYERS_FINAL = 1,
  DLORA_FEATURE_LAYERS_AT_MIDDLE = 2
};
enum dlora_tokens { DLORA_TOKENS_ALL = 0, DLORA_TOKENS_CLASS = 1 };
enum dlora_schedule { DLORA_SCHEDULE_COSINE = 0, DLORA_SCHEDULE_CONSTANT = 1 };
/** For dlora_learner_options.first_block: depth / 2. DLORA_AUTO is depth / 4. */
enum dlora_first_block { DLORA_FIRST_BLOCK_MIDDLE = -2 };
/** Where images are mirrored left to right: nowhere; at random in training; and in the statistics too, which are then
 * of each image and its mirror image (METHOD.md 7). */
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
  int32_t untouched_baseline; /**< 1: keep statistics of the untouched backbone as well, to compare with. Default 0. */
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
  int32_t observed_tokens;    /**< enum dlora_tokens: tokens that enter S. Default ALL. */
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
  int32_t routing;        /**< enum dlora_routing: which residual adapters run. Default TWO_PASS; paper ENERGY. */
  int32_t class_scores;   /**< enum dlora_class_scores: source of p(class | task) where residual adapters run. Default
                             BOTH; paper HEAD. */
  float unknown_quantile; /**< Fraction of known images that dlora_prediction.unknown accepts. Default 0.95; (0, 1). */

  /* ---- run time (DLORA_SCOPE_RUN_TIME) ---- */
  int32_t threads;     /**< Threads that a call may use. Default DLORA_AUTO: all processors. 1 to 4096. Not kept in the
                          checkpoint. */
  int32_t micro_batch; /**< Images that a thread runs at once: bounds memory, not results. Default DLORA_AUTO: chosen
                          from the geometry. 1 to 65536. */
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
} dlora_task_report;
#define DLORA_TASK_REPORT_INIT \
  { sizeof(dlora_task_report), 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0 }
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
  double untouched_accuracy;  /**< the same readout on the untouched backbone; NaN unless untouched_baseline */
  double average_accuracy;    /**< mean of accuracy over all evaluated stages (average incremental accuracy); NaN if one
                                 was on other images than the last evaluation has of its classes or tasks */
  double forgetting;        /**< mean over earlier tasks of best minus present accuracy, as far as both are on the same
                               images */
  double backward_transfer; /**< mean over earlier tasks of present accuracy minus that when learnt, likewise */
} dlora_evaluation;
#define DLORA_EVALUATION_INIT \
  { sizeof(dlora_evaluation), 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0 }
/** Sets struct_size, and every other member to its default or 0. size: sizeof(dlora_evaluation). */
DLORA_API dlora_status dlora_evaluation_init(dlora_evaluation *evaluation, size_t size);

/** Sets the defaults, which were chosen by measurement (docs/METHOD.md). size: sizeof(dlora_learner_options) as the
 * caller knows it. */
DLORA_API dlora_status dlora_learner_options_init(dlora_learner_options *options, size_t size);
/** Sets the paper's preset: all blocks, residual_basis IN_NEW, routing ENERGY, loss_classes TASK, class_scores HEAD,
 * final features, no drift compensation, nothing of the residual branch merged. */
DLORA_API dlora_status dlora_learner_options_paper(dlora_learner_options *options, size_t size);
/** Sets one option from text, whatever its type: "0.001", "two-pass", "key,value", "true", "auto". The decimal point is
 * a point in every locale. Errors: ARGUMENT (unknown name, no value of the type, out of the range that holds for every
 * model), and *options is as it was. */
DLORA_API dlora_status dlora_learner_options_set(dlora_learner_options *options, const char *name, const char *value);
/** The value of one option as text that dlora_learner_options_set reads as the same value, NUL-terminated. value: size
 * bytes; 64 are enough for every option. Error: ARGUMENT. */
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
/** What there is to know of one option. Strings are static. */
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

/** Whether a learner can be created with these options, without creating one: for programs that take them from their
 * users and want to refuse them before hours of other work. model NULL: as far as it does not depend on the model.
 * Errors: ARGUMENT, naming the member; STRUCT_SIZE. */
DLORA_API dlora_status dlora_learner_options_check(const dlora_learner_options *options, const dlora_model *model);
/** A learner with no task. The model is borrowed, may be shared, and must outlive it. */
DLORA_API dlora_status dlora_learner_create(dlora_learner **out, const dlora_model *model,
                                            const dlora_learner_options *options);
DLORA_API void dlora_learner_destroy(dlora_learner *learner);
/** Changes the options of later tasks and predictions. Errors: MISMATCH if an option of DLORA_SCOPE_FIXED differs;
 * STATE if a task is open and any option differs. */
DLORA_API dlora_status dlora_learner_configure(dlora_learner *learner, const dlora_learner_options *options);
/** The options in force; options->struct_size must be set. */
DLORA_API dlora_status dlora_learner_get_options(const dlora_learner *learner, dlora_learner_options *options);
/** Calls `progress` after every batch of the calls that learn and evaluate; a non-zero return cancels them. May be set
 * at any time, also inside a task. Default NULL. */
DLORA_API dlora_status dlora_learner_set_progress(dlora_learner *learner, dlora_progress_fn progress, void *user);
/** Calls `log` with warnings, as when no unused direction is left for a branch. May be set at any time. Default NULL.
 */
DLORA_API dlora_status dlora_learner_set_log(dlora_learner *learner, dlora_log_fn log, void *user);

/** Learns one task from images in memory. labels: [images->count]. report may be NULL. On an error, or when a callback
 *  cancels, the learner is as it was before. Where a task of dlora_learner_learn_task or _learn_source is open, because
 *  the learner was loaded with it, the call resumes that task: images and labels must be those it was begun with,
 * and the report's seconds count from here. Number and labels are compared at once, and of the images that the task has
 * seen a few at once and each when it is read again, by a digest of its pixels (which files of older libraries lack):
 * MISMATCH, before anything is learnt from an image that differs, and the task stays open; after another error or a
 * cancelling callback it is dropped. Errors: ARGUMENT, NOT_FINITE, CANCELLED, NO_MEMORY, MISMATCH, IO (snapshots),
 * STATE if a task of dlora_learner_begin_task is open. */
DLORA_API dlora_status dlora_learner_learn_task(dlora_learner *learner, const dlora_images *images,
                                                const int64_t *labels, dlora_task_report *report);
/** The same from a source, which is read once before, once per epoch during, and once after training. It may vary an
 * image from one reading to the next within a process; an open task that was loaded asks for the same pixels. */
DLORA_API dlora_status dlora_learner_learn_source(dlora_learner *learner, const dlora_image_source *source,
                                                  dlora_task_report *report);

/* A task may be cut short: by a crash, a power cut, a user who wants the machine. dlora_learner_save writes an open
 * task along with everything learnt, and dlora_learner_load opens it again where it stood: directions, factors, head
 * rows, optimizer, random state, sums. What is then learnt is bitwise what would have been learnt without the
 * interruption, given the same data, number of threads, micro_batch, machine and BLAS.
 *
 *     dlora_learner_set_snapshot(learner, "device.safetensors", 100);   // after load or create, the same in every run
 *     for (size_t t = dlora_learner_num_tasks(learner); t < count; t++) {
 *       dlora_learner_learn_source(learner, &sources[t], NULL);         // starts task t, or goes on with it
 *       dlora_learner_save(learner, "device.safetensors");
 *     }
 */

/** Enables periodic snapshots in dlora_learner_learn_task and _learn_source: the learner is saved to path, atomically
 * and with its task open, every `steps` optimizer steps; every steps * batch_size images while images are observed; and
 * when the call stops early with its task intact (the progress callback cancels, the source cannot be read, memory
 * fails while the task is closed). steps 0: only when it stops early. A learner loaded from there resumes by the same
 * call with the same images. The library never removes the file: once the task has ended, save to the same path or
 * remove it. A due snapshot that cannot be written ends the call with its error (IO) and keeps the file before it; one
 * that cannot be written when the call stops early is logged, and the call's own error is returned. path is copied;
 * NULL, the default: no snapshots. Not kept in the checkpoint. */
DLORA_API dlora_status dlora_learner_set_snapshot(dlora_learner *learner, const char *path, size_t steps);

/** Where an open task stands: after dlora_learner_load, what is still to be done. */
typedef struct dlora_open_task {
  size_t struct_size;
  size_t num_classes;          /**< observed so far */
  size_t num_observed;         /**< images given to dlora_learner_observe */
  size_t planned_steps;        /**< as given to dlora_learner_begin_task */
  size_t num_steps;            /**< optimizer steps done */
  size_t num_observed_trained; /**< images given to dlora_learner_observe_trained */
  size_t num_source_images;    /**< images of the source that it is learnt from; 0: in a loop of your own */
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
/** One optimizer step. Labels must be among those observed. *loss (may be NULL): mean cross-entropy of the batch.
 * Errors: STATE before dlora_learner_begin_training and from dlora_learner_observe_trained on; ARGUMENT; NOT_FINITE if
 * an input is, and then the batch is refused and the task goes on, or if the loss becomes so, and then the task is
 * discarded, as it is with NO_MEMORY: the learner is as it was before it. */
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
/** Drops the open task; the learner is as it was before it. */
DLORA_API dlora_status dlora_learner_discard_task(dlora_learner *learner);

DLORA_API size_t dlora_learner_num_tasks(const dlora_learner *learner);
DLORA_API size_t dlora_learner_num_classes(const dlora_learner *learner);
/** classes: [num_classes] in order of first appearance, the column order of class_log_probs. */
DLORA_API dlora_status dlora_learner_get_classes(const dlora_learner *learner, int64_t *classes);
/** A name for a class id, kept in the checkpoint; copied. */
DLORA_API dlora_status dlora_learner_set_class_name(dlora_learner *learner, int64_t class_id, const char *name);
/** The name, or NULL if none was set. Borrowed. */
DLORA_API const char *dlora_learner_get_class_name(const dlora_learner *learner, int64_t class_id);
/** A text of your own under a key, as what a run was about: kept in the checkpoint, and in snapshots, which are written
 * while you wait for dlora_learner_learn_source. Both are UTF-8, not interpreted, and copied; value NULL removes the
 * note. dlora_inspect lists it as metadata `note.KEY`. Errors: ARGUMENT, NO_MEMORY. */
DLORA_API dlora_status dlora_learner_set_note(dlora_learner *learner, const char *key, const char *value);
/** The note, or NULL if there is none. Borrowed. */
DLORA_API const char *dlora_learner_get_note(const dlora_learner *learner, const char *key);

/** Class, task and confidence of each image (METHOD.md 8), from the finished tasks; an open task has no part in it.
 * predictions: [count]; class_log_probs: [count, num_classes] or NULL. This call and the next two keep their workspace,
 * as dlora_model_embed does, so that a second call like the first takes no memory; dlora_learner_begin_task and
 * dlora_learner_configure release it. Errors: STATE before the first task or where routing is `given`. */
DLORA_API dlora_status dlora_learner_predict(const dlora_learner *learner, const dlora_images *images,
                                             dlora_prediction *predictions, float *class_log_probs);
/** The same with the task of each image given: tasks [count] (task-incremental use). */
DLORA_API dlora_status dlora_learner_predict_with_tasks(const dlora_learner *learner, const dlora_images *images,
                                                        const int64_t *tasks, dlora_prediction *predictions,
                                                        float *class_log_probs);
/** Adapted class-token features [count, embed_dim]. tasks: [count] the residual adapters to use, -1 for none; NULL:
 * none. */
DLORA_API dlora_status dlora_learner_embed(const dlora_learner *learner, const dlora_images *images,
                                           const int64_t *tasks, float *features);
/** Evaluates on test images of any classes (those not learnt yet are skipped) and records the accuracy on each task
 * that has images among them in row num_tasks - 1 of the accuracy matrix; average_accuracy takes the accuracy of the
 * last such call as that of the stage. An image belongs to the task in source->tasks, or else to the last task that has
 * its class. What images an accuracy is of is recorded too, in any order, by digests of pixels and labels, so that only
 * accuracies on the same ones are compared; a file of an older library has no such record, and nothing to compare with.
 * An open task has no part in it. Errors: STATE before the first task, ARGUMENT, NOT_FINITE, CANCELLED, IO, NO_MEMORY.
 */
DLORA_API dlora_status dlora_learner_evaluate(dlora_learner *learner, const dlora_image_source *source,
                                              dlora_evaluation *evaluation);
/** matrix: [num_tasks, num_tasks], row i the accuracies after task i; NaN where nothing was evaluated. */
DLORA_API dlora_status dlora_learner_get_accuracy_matrix(const dlora_learner *learner, double *matrix);

/** Writes everything learnt as one safetensors file, atomically: a crash leaves the old file or the new one. An open
 * task is written too, and goes on. Error: IO. */
DLORA_API dlora_status dlora_learner_save(const dlora_learner *learner, const char *path);
/** Reads it back on the same backbone. options NULL: as saved, but threads and allocator, which are never
 * saved. Otherwise options replaces all that is not fixed at creation; to change one member, load with NULL,
 * dlora_learner_get_options, change, dlora_learner_configure. A task that was open is open again, and then only
 * threads, micro_batch and allocator may differ from what was saved. Errors: MISMATCH (both fingerprints or
 * the option are named), FORMAT, IO. */
DLORA_API dlora_status dlora_learner_load(dlora_learner **out, const dlora_model *model, const char *path,
                                          const dlora_learner_options *options);

/** Fills *profile with the times of learning and of dlora_learner_evaluate; profile->struct_size must be set. Calls on
 * a const learner, as dlora_learner_predict, may run in many threads at once and are not counted. */
DLORA_API dlora_status dlora_learner_get_profile(const dlora_learner *learner, dlora_profile *profile);

/** The parts, borrowed: for inspection, export, or use without the learner. */
DLORA_API const dlora_bank *dlora_learner_get_bank(const dlora_learner *learner);
/** Statistics without residual adapters (`base`). */
DLORA_API const dlora_predictor *dlora_learner_get_predictor(const dlora_learner *learner);
/** Memory of one adapted input; NULL if (block, input) is not adapted. */
DLORA_API const dlora_projector *dlora_learner_get_projector(const dlora_learner *learner, size_t block, int32_t input);

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
/** Calls visit for every metadata entry and tensor of a safetensors file, after checking all of it. A non-zero return
 * stops with DLORA_ERR_CANCELLED; an exception, panic or longjmp may not leave it. */
DLORA_API dlora_status dlora_inspect(const char *path, int32_t (*visit)(const dlora_tensor_info *info, void *user),
                                     void *user);

#ifdef __cplusplus
}
#endif
#endif
