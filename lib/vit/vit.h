/* The Vision Transformer (Dosovitskiy et al. 2021): weights, workspace, forward, backward. It knows neither
 * tasks nor adapters: a caller adds to a projection through hooks.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_VIT_VIT_H
#define DLI_VIT_VIT_H

#include <stdbool.h>

#include "base/profile.h"
#include "duallora/duallora.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "linalg/weight.h"
#include "nn/attention.h"
#include "vit/names.h"

/* ---- weights ---- */

struct dli_vit_block {
  const float *norm1_gain, *norm1_bias; /* [dim] */
  struct dli_weight qkv;                /* [3 * dim, dim] */
  const float *qkv_bias;                /* [3 * dim] */
  struct dli_weight output;             /* [dim, dim], layer scale folded in */
  const float *output_bias;             /* [dim] */
  const float *norm2_gain, *norm2_bias; /* [dim] */
  struct dli_weight fc1;                /* [fc1_dim, dim] */
  const float *fc1_bias;                /* [fc1_dim] */
  struct dli_weight fc2;                /* [dim, mlp_dim], layer scale folded in */
  const float *fc2_bias;                /* [dim] */
  /* Norms of what output and fc2 read, [dim] and [mlp_dim], where the model has them (EVA-02, BEiT-3); or NULL. */
  const float *inner1_gain, *inner1_bias, *inner2_gain, *inner2_bias;
};

/* Attention of one learnt query to the patch tokens, and an MLP, that make the pooled token (SigLIP). */
struct dli_vit_attention_pool {
  size_t mlp_dim;
  const float *scores;                /* [heads, dim] with which a token's product is its score before softmax */
  struct dli_weight value;            /* [dim, dim] */
  const float *value_bias;            /* [dim] */
  struct dli_weight output;           /* [dim, dim] */
  const float *output_bias;           /* [dim] */
  const float *norm_gain, *norm_bias; /* [dim] */
  struct dli_weight fc1, fc2;         /* [mlp_dim, dim], [dim, mlp_dim] */
  const float *fc1_bias, *fc2_bias;   /* [mlp_dim], [dim] */
};

/* Position embeddings of the patches as the file has them. */
struct dli_vit_learnt_positions {
  size_t side;         /* positions a side; 0: there are none */
  const float *values; /* [side^2, dim] */
  const float *bias;   /* [dim] of the patch projection, to be added to each, or NULL */
};

struct dli_vit {
  size_t dim, depth, heads, mlp_dim, patch_size, image_size, grid, tokens;
  size_t fc1_dim;                /* mlp_dim, or twice that of gate and up below each other (SwiGLU) */
  size_t num_prefix_tokens;      /* in front of the patches: class, distillation and register tokens */
  bool has_class_token;          /* the first of these */
  bool has_distillation_token;   /* the one behind it */
  int32_t pool, activation;      /* DLORA_POOL_..., DLORA_ACTIVATION_... */
  int32_t resize, interpolation; /* of bytes: DLORA_RESIZE_..., DLORA_INTERPOLATION_... */
  int32_t position_resampling;   /* DLORA_POSITIONS_... */
  float crop_fraction;           /* of the resized side, that is kept */
  float eps;
  float mean[3], std[3];
  bool inner_norm1, inner_norm2; /* whether blocks norm what output reads, and what fc2 reads */
  bool interleaved;              /* rotary positions turn pairs (2 j, 2 j + 1) of a head, not (j, j + head_dim / 2) */
  bool rms_norm;                 /* all norms are RMS norms: for dli_kernels_select */
  int32_t naming;
  char fingerprint[40];
  char name_prefix[DLI_PREFIX_SIZE]; /* of its tensors in the file */
  size_t num_parameters;
  struct dli_weight patch;                 /* [dim, 3 * patch_size^2] */
  const float *prefix;                     /* [num_prefix_tokens, dim], their positions added */
  const float *positions;                  /* [grid^2, dim], the patch bias added where no norm is between them */
  struct dli_vit_learnt_positions in_file; /* what the positions were made of */
  const float *patch_bias; /* [dim], and of the norm of patches before their positions (AIMv2); or NULL */
  const float *patch_norm_gain, *patch_norm_bias;
  const float *pre_norm_gain, *pre_norm_bias; /* [dim] of all tokens before the first block (CLIP), or NULL */
  const float *rotation; /* [grid^2, head_dim / 2] cosines, then sines, of rotary positions of patches, or NULL */
  const float *norm_gain, *norm_bias;           /* [dim] of each token behind the last block, or NULL */
  const float *pooled_gain, *pooled_bias;       /* [dim] of the pooled token, or NULL */
  struct dli_vit_attention_pool attention_pool; /* set with DLORA_POOL_ATTENTION */
  struct dli_vit_block *blocks;                 /* [depth] */
  float **owned; /* converted or folded arrays to free; the others lie in the file's mapping */
  size_t num_owned, max_owned;
  const struct dli_onednn *onednn;             /* does the products with packed weights; NULL: the BLAS does them all */
  const struct dli_kernels_bfloat16 *bfloat16; /* where products, and so those of attention, are in bfloat16; or NULL */
  struct dli_packed **packed; /* [4 * depth + 1] forward copies of qkv, output, fc1, fc2 a block, and of patch */
};

/* Builds *out from open files whose tensors outlive it; *settings says what it was built with. Errors name the tensor
 * or the setting. */
struct dli_settings;
struct dli_model_files;
dlora_status dli_vit_load(struct dli_vit *out, struct dli_settings *settings, const struct dli_model_files *files,
                          const dlora_model_options *options, const dlora_allocator *allocator);
/* Packs all weights for forward products by onednn, which is borrowed. */
dlora_status dli_vit_pack(struct dli_vit *vit, const struct dli_onednn *onednn, const dlora_allocator *allocator);
void dli_vit_release(struct dli_vit *vit, const dlora_allocator *allocator);
/* Fills vit->fingerprint from everything that decides its features. */
void dli_vit_fingerprint(struct dli_vit *vit);

/* The smallest crop_fraction. */
#define DLI_LEAST_CROP 0.01f
/* vit/preprocessing.c: how images become the model's input. */
struct dli_image_format dli_vit_image_format(const struct dli_vit *vit);

/* vit/positions.c: the file's positions on the grid in use by a rule of DLORA_POSITIONS_..., with their bias: out
 * [grid^2, dim]. Error: NO_MEMORY. */
dlora_status dli_vit_resample_positions(const struct dli_vit *vit, int32_t rule, const dlora_allocator *allocator,
                                        float *out);

/* ---- hooks: what a caller adds at projections ---- */

struct dli_vit_hooks {
  void *user;
  /* out [rows, output_dim] += f(in [rows, input_dim]) of the images from `image` on; each owns rows_per_image rows that
   * follow one another. projection: DLORA_SITE_... */
  void (*forward)(void *user, size_t block, int32_t projection, size_t image, struct dli_const_matrix in,
                  size_t rows_per_image, struct dli_matrix out);
  /* d_in += its backward pass, unless the memory of d_in is NULL. */
  void (*backward)(void *user, size_t block, int32_t projection, struct dli_const_matrix in,
                   struct dli_const_matrix d_out, struct dli_matrix d_in);
};

/* ---- workspace: all memory of one thread's passes, taken at once ---- */

/* What one block keeps. In inference all blocks share one set and x_in, x_mid and the next x_in are the same array.
 * What is shared has room for one group. */
struct dli_block_buffers {
  float *x_in;          /* [R, dim] residual stream entering */
  float *mean1, *rstd1; /* [R] */
  float *h1;            /* [R, dim] attention input */
  float *qkv;           /* [R, 3 * dim] */
  float *probabilities; /* [images, dli_vit_kept_of_attention], training only */
  float *o;     /* [Q, dim] input of the output projection; Q = R, or dli_vit_tail rows an image in the last block */
  float *x_mid; /* [Q, dim] */
  float *mean2, *rstd2; /* [Q] */
  float *h2;            /* [Q, dim] fc1 input */
  float *f;             /* [Q, fc1_dim] before the activation */
  uint16_t *f_half;     /* the same memory: in bfloat16, in slabs, instead */
  float *g;             /* [Q, mlp_dim] fc2 input */
  float *raw_o;         /* [Q, dim] o before its inner norm, where there is one */
  float *mean3, *rstd3; /* [Q] of it */
  float *raw_g;         /* [Q, mlp_dim] g before its inner norm, where there is one; never kept */
  float *mean4, *rstd4; /* [Q] of it */
};

/* What blocks in bfloat16 work in. */
struct dli_half_buffers {
  uint16_t *rows; /* [G, 2 * dim] in slabs: what is multiplied next */
  uint16_t *slab; /* [G, DLI_SLAB] after the activation, and gradients before it */
  float *sums;    /* [G, DLI_SLAB] before the activation, and gradients after it */
  float *norms;   /* [DLI_NORM_ROWS, dim] */
};
/* That are normed in the first cache before they become bfloat16. */
enum { DLI_NORM_ROWS = 4 };

/* What attention that pools works in, and keeps for the backward pass where it has room for all images. */
struct dli_pool_buffers {
  float *probabilities; /* [max_images, heads * tokens] */
  float *mixed;         /* [group, heads * dim] tokens averaged by the probabilities of a head; their gradients */
  float *z;             /* [group, dim] attention's output before its projection; its gradient */
  float *sum;           /* [max_images, dim] behind it */
  float *mean, *rstd;   /* [max_images] */
  float *normed;        /* [group, dim]; its gradient */
  float *f;             /* [max_images, mlp_dim] before the activation */
  float *g;             /* [group, mlp_dim] after it; gradients of both */
  float *d_sum;         /* [group, dim] */
};

/* One allocation, in this order: input image, patches, shared block set, trunk copy, last rows and norms; when training
 * also the kept blocks first ... depth - 1 and gradients. */
struct dli_vit_workspace {
  size_t max_images;
  size_t first; /* blocks below it are the trunk: no hook is called there, nothing is kept */
  bool training;
  unsigned inputs; /* bits 1 << DLORA_INPUT_...: kept in training */
  size_t images;   /* of the last forward call */
  size_t group;    /* that go through all blocks before the next ones do, so that they stay in the caches */
  size_t at, now;  /* images [at, at + now) are the group that is running */
  size_t middle_block;
  float *middle; /* [images, 2 * dim] the caller's, or NULL */
  void *memory;
  size_t num_bytes;
  float *input;   /* [3, image_size, image_size] */
  float *patches; /* [max_images * grid^2, 3 * patch_size^2] */
  float *x;       /* [R, dim] */
  float *trunk;   /* [R, dim] what enters block `first` */
  float *last;    /* [max_images * T, dim] behind the last block; T = dli_vit_tail: in x where that is all */
  float *last_mean, *last_rstd;     /* [max_images * T] */
  float *pooled;                    /* [max_images, dim] before the norm of the pooled token, if there is one */
  float *pooled_mean, *pooled_rstd; /* [max_images] */
  struct dli_pool_buffers pool;     /* with DLORA_POOL_ATTENTION */
  float *attention;                 /* scratch of one image */
  struct dli_half_buffers half;
  struct dli_block_buffers shared;
  struct dli_block_buffers *kept; /* [depth], entries from `first` on are set; training only */
  float *d_x;                     /* [G, dim], G rows of a group */
  float *d_tail;                  /* [group * T, dim] of `last`; in d_x where T is all tokens */
  float *d_h;                     /* [G, dim] */
  float *d_qkv;                   /* [G, 3 * dim] */
  float *d_f;                     /* [G, fc1_dim] */
  float *d_raw;                   /* [G, mlp_dim] or [G, dim], behind an inner norm, where there is one */
  struct dli_products *products;  /* NULL without packed weights */
  struct dli_profile profile;     /* of the passes in this workspace */
};

/* inputs: bits 1 << DLORA_INPUT_... of those that are to be kept in training. */
dlora_status dli_vit_workspace_create(struct dli_vit_workspace *out, const struct dli_vit *vit, size_t max_images,
                                      size_t first, bool training, unsigned inputs, const dlora_allocator *allocator);
/* What block `block` works in for the images of the running group. */
struct dli_block_buffers dli_vit_buffers(const struct dli_vit *vit, const struct dli_vit_workspace *workspace,
                                         size_t block);
/* Makes images [0, images) or those behind the running group the running one; false where there are no more. */
bool dli_vit_next_group(struct dli_vit_workspace *workspace, bool first);
size_t dli_vit_workspace_bytes(const struct dli_vit_workspace *workspace);
void dli_vit_workspace_release(struct dli_vit_workspace *workspace, const dlora_allocator *allocator);

/* ---- passes ---- */

/* Patch embedding of workspace->input as image `image` of the batch. */
void dli_vit_embed_image(const struct dli_vit *vit, struct dli_vit_workspace *workspace, size_t image);
/* Trunk: the blocks below workspace->first, from the embedded images to workspace->trunk. */
void dli_vit_forward_trunk(const struct dli_vit *vit, const struct dli_kernels *kernels,
                           struct dli_vit_workspace *workspace, size_t images);
/* Early features of x [images, tokens, dim], after a norm without gain: out [images, 2 * dim]. The second half is the
 * mean patch token, the first half the class token, or where there is none the standard deviation of the patch tokens.
 */
void dli_vit_early(const struct dli_vit *vit, const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                   const float *x, size_t images, float *out);
/* The blocks from workspace->first on and pooling, from workspace->trunk, which stays: features [images, dim]. `blocks`
 * [depth] are the model's or a copy with other weights; hooks may be NULL. Where workspace->middle is not NULL, early
 * features of what enters block middle_block go there. */
void dli_vit_forward_upper(const struct dli_vit *vit, const struct dli_vit_block *blocks,
                           const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                           const struct dli_vit_hooks *hooks, float *features);
/* Back from d_features [images, dim] of the last forward_upper down to the lowest projection of block `first` that has
 * a hook: lowest is its DLORA_INPUT_... ; nothing is computed below it. */
void dli_vit_backward_upper(const struct dli_vit *vit, const struct dli_vit_block *blocks,
                            const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                            const struct dli_vit_hooks *hooks, int32_t lowest, const float *d_features);

/* Tokens of an image that leave the last block: the class token alone where nothing else is pooled. */
static inline size_t dli_vit_tail(const struct dli_vit *vit) {
  return vit->pool == DLORA_POOL_CLASS ? 1 : vit->tokens;
}
/* Rows of an image in block `block` after attention: all tokens, or those that leave the last block. */
static inline size_t dli_vit_queries(const struct dli_vit *vit, size_t block) {
  return block + 1 == vit->depth ? dli_vit_tail(vit) : vit->tokens;
}

/* From workspace->last to features [now, dim] of the running group. */
void dli_vit_pool_forward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                          struct dli_vit_workspace *workspace, float *features);
/* From d_features [now, dim] to workspace->d_tail. */
void dli_vit_pool_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                           struct dli_vit_workspace *workspace, const float *d_features);

/* Of DLORA_POOL_ATTENTION, with `image` within the running group and h [count, dim] its tokens: what each head reads of
 * them; and, when that is done for all, out [now, dim]. */
void dli_vit_attend(const struct dli_vit *vit, struct dli_vit_workspace *workspace, size_t image, const float *h,
                    size_t count);
void dli_vit_attended(const struct dli_vit *vit, const struct dli_kernels *kernels, struct dli_vit_workspace *workspace,
                      float *out);
/* The same backwards, first of all images, then of each: d_h [count, dim]; scratch: [heads, count]. */
void dli_vit_attended_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                               struct dli_vit_workspace *workspace, const float *d_out);
void dli_vit_attend_backward(const struct dli_vit *vit, const struct dli_vit_workspace *workspace, size_t image,
                             const float *h, size_t count, float *scratch, float *d_h);

/* Queries, keys and values of image `image` of the running group: side by side, or one matrix behind the other in
 * blocks in bfloat16. */
struct dli_qkv dli_vit_qkv(const struct dli_vit *vit, const struct dli_vit_workspace *workspace, float *qkv,
                           bool bfloat16, size_t image);
/* Attention of one image, of whose queries and keys, without rotary positions, rotated ones are left; kept for the
 * backward pass unless NULL. Either out or slabs take what leaves it; slabs only where all tokens ask. */
size_t dli_vit_kept_of_attention(const struct dli_vit *vit, size_t queries);
void dli_vit_attention(const struct dli_vit *vit, const struct dli_kernels *kernels,
                       const struct dli_vit_workspace *workspace, const struct dli_qkv *in, size_t queries, float *kept,
                       float *out, const struct dli_slab_rows *slabs);
void dli_vit_attention_backward(const struct dli_vit *vit, const struct dli_kernels *kernels,
                                const struct dli_vit_workspace *workspace, const struct dli_qkv *in, size_t queries,
                                const float *kept, const float *d_out, const struct dli_qkv *d_in);

/* ---- blocks ---- */

/* One block: from b->x_in [R, dim] to x_out [Q, dim], Q = R, or one row an image in a last block that has the class
 * token alone. x_out may be x_in. */
struct dli_block_call {
  const struct dli_vit *vit;
  const struct dli_vit_block *weights; /* of this block */
  const struct dli_kernels *kernels;
  struct dli_vit_workspace *workspace;
  const struct dli_vit_hooks *hooks; /* or NULL */
  size_t index;
  struct dli_block_buffers buffers;
};
/* Whether blocks without hooks, of which nothing is kept, are those below: not with gated MLPs, whose slabs belong
 * together in pairs, nor with inner norms, which need all slabs. */
bool dli_vit_in_bfloat16(const struct dli_vit *vit);
/* Whether the blocks from `first` on are those below. Where something is kept or hooks are called it takes adapters at
 * the input of attention alone, and weights that are packed for the backward pass. */
bool dli_vit_upper_in_bfloat16(const struct dli_vit *vit, const struct dli_vit_block *blocks,
                               const struct dli_vit_workspace *workspace, const struct dli_vit_hooks *hooks);
/* Blocks between whose products everything is in bfloat16 that no hook reads and nothing is added to. */
void dli_block_bfloat16_forward(const struct dli_block_call *call, bool keep, float *x_mid, float *x_out);
/* lowest, d_y, d_x: as for other blocks */
void dli_block_bfloat16_backward(const struct dli_block_call *call, int32_t lowest, float *d_y, float *d_x);
/* Call a hook, if there is one. image: the first one, within the running group. d_in: its memory is NULL where nothing
 * below needs it. */
void dli_block_hook(const struct dli_block_call *call, int32_t projection, size_t image, struct dli_const_matrix in,
                    size_t rows_per_image, struct dli_matrix out);
void dli_block_hook_backward(const struct dli_block_call *call, int32_t projection, struct dli_const_matrix in,
                             struct dli_const_matrix d_out, struct dli_matrix d_in);

#endif
