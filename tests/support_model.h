/* Helpers of the tests that need a model: a tiny random Vision Transformer, pictures whose classes look different, and
 * an allocator that counts and fails.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DUALLORA_TESTS_SUPPORT_MODEL_H
#define DUALLORA_TESTS_SUPPORT_MODEL_H

#include <stdatomic.h>

#include "support.h"

/* ---- the model ---- */

enum { VIT_DIM = 32, VIT_DEPTH = 3, VIT_HEADS = 2, VIT_MLP = 48, VIT_PATCH = 4, VIT_SIZE = 16, VIT_TOKENS = 17 };

struct test_shape {
  size_t dim, depth, heads, mlp_dim, patch_size, grid;
};
/* Writes a ViT of this shape with timm's names and weights from the seed to a scratch file. */
const char *test_write_vit_of(const char *name, uint32_t seed, const struct test_shape *shape);
/* What else a file of timm has in front of its patches and behind its last block; all 0: a class token and a norm. */
struct test_ends {
  size_t registers;
  int without_class_token, distillation_token;
  int without_norm, norm_behind; /* fc_norm */
  int attention;                 /* attn_pool */
};
const char *test_write_vit_with(const char *name, uint32_t seed, const struct test_shape *shape,
                                const struct test_ends *ends);
/* Writes a ViT of these widths with timm's names and weights from the seed to a scratch file. */
const char *test_write_vit(const char *name, uint32_t seed);
/* Loads one; allocator may be NULL. */
dlora_model *test_load_vit(uint32_t seed, const dlora_allocator *allocator);
/* Runs a group of tests, an array, with the ViT of seed 1 in *model, as main's last call. */
#define test_run_with_vit(tests, model) \
  (test_shared_vit = (model), cmocka_run_group_tests(tests, test_load_shared_vit, test_free_shared_vit))
extern dlora_model **test_shared_vit;
int test_load_shared_vit(void **state);
int test_free_shared_vit(void **state);
/* Where a tensor lies in the bytes of a safetensors file, and its length in bytes. Fails if it is not there. */
unsigned char *test_tensor(unsigned char *bytes, const char *name, size_t *size);

/* ---- pictures: two colours in stripes, both from the class, with noise ---- */

struct test_pictures {
  dlora_images images; /* u8 [count, height, width, channels] */
  uint8_t *pixels;
  int64_t *labels; /* [count], one class after another in turn: a, b, c, a, b, c, ... */
};

struct test_pictures test_pictures(const int64_t *classes, size_t num_classes, size_t per_class, uint32_t seed);
/* The same in any size and with 3 or 1 channels. */
struct test_pictures test_pictures_sized(const int64_t *classes, size_t num_classes, size_t per_class, uint32_t seed,
                                         size_t height, size_t width, size_t channels);
void test_pictures_free(struct test_pictures *pictures);
/* Images [first, first + count). */
dlora_images test_part(const dlora_images *images, size_t first, size_t count);
/* Source over pictures in memory. */
dlora_image_source test_source_of(const struct test_pictures *pictures);

/* ---- learners ---- */

/* Defaults but for what makes a test quick: rank 4, 2 epochs, batches of 16, 1 thread, every 10th image held out. */
/* As dlora_learner_options_init sets them. */
dlora_learner_options test_default_options(void);
dlora_learner_options test_quick_options(void);
dlora_learner *test_learner(const dlora_model *model, const dlora_learner_options *options);
/* Learns per_class pictures of each class as one task. */
void test_learn(dlora_learner *learner, const int64_t *classes, size_t num_classes, size_t per_class, uint32_t seed,
                dlora_task_report *report);
/* Share of pictures whose class is predicted right. Fails unless every probability is one and every row sums to 1. */
double test_accuracy(const dlora_learner *learner, const struct test_pictures *pictures);
/* Fails unless both save the same bytes; nothing else of a learner outlives a task. */
void test_assert_same_learner(const dlora_learner *a, const dlora_learner *b);
/* The bytes that the learner saves, to be freed. */
unsigned char *test_saved(const dlora_learner *learner, size_t *size);

/* ---- memory ---- */

struct test_memory {
  dlora_allocator allocator; /* user points back here: do not copy */
  atomic_size_t live;        /* blocks that are out */
  atomic_size_t total;       /* calls so far */
  size_t fail_at;            /* number of the call that fails; SIZE_MAX: none */
  int fail_on;               /* all later ones fail too */
};

void test_memory_start(struct test_memory *memory);

#endif
