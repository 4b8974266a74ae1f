/* The matrix products of a Vision Transformer whose upper half is adapted, as a list.
 * SPDX-License-Identifier: Apache-2.0 */
#include "speed.h"

enum { QKV = 1, OUTPUT = 2, FC1 = 3, FC2 = 4 }; /* 1 + 4 * block + this; 1: the patch embedding */

struct list {
  int (*visit)(const struct speed_product *product, void *user);
  void *user;
  int failed;
};

static void frozen(struct list *list, size_t weight, size_t m, size_t n, size_t k, int backward) {
  const struct speed_product p = {weight, 1, m, n, k, 'n', backward ? 'n' : 't'};
  if (!list->failed) list->failed = list->visit(&p, list->user);
}

static void attention(struct list *list, size_t count, size_t m, size_t n, size_t k, char left, char right) {
  const struct speed_product p = {0, count, m, n, k, left, right};
  if (!list->failed) list->failed = list->visit(&p, list->user);
}

size_t speed_num_weights(const dlora_model_info *info) {
  return 1 + 4 * info->depth;
}

int speed_products(const dlora_model_info *info, size_t images, int training,
                   int (*visit)(const struct speed_product *product, void *user), void *user) {
  struct list list = {visit, user, 0};
  const size_t dim = info->embed_dim, tokens = info->num_tokens, rows = images * tokens, mlp = info->mlp_dim;
  const size_t heads = images * info->num_heads, width = dim / info->num_heads, first = info->depth / 2;
  frozen(&list, 1, images * (tokens - 1), dim, 3 * info->patch_size * info->patch_size, 0);
  for (size_t l = 0; l < info->depth; l++) {
    const size_t base = 1 + 4 * l, queries = l + 1 == info->depth ? 1 : tokens, tail = images * queries;
    if (queries == tokens) {
      frozen(&list, base + QKV, rows, 3 * dim, dim, 0);
    } else {
      frozen(&list, base + QKV, tail, dim, dim, 0);
      frozen(&list, base + QKV, rows, 2 * dim, dim, 0);
    }
    attention(&list, heads, queries, tokens, width, 'n', 't');
    attention(&list, heads, queries, width, tokens, 'n', 'n');
    frozen(&list, base + OUTPUT, tail, dim, dim, 0);
    frozen(&list, base + FC1, tail, mlp, dim, 0);
    frozen(&list, base + FC2, tail, dim, mlp, 0);
  }
  for (size_t l = info->depth; training && l-- > first;) {
    const size_t base = 1 + 4 * l, queries = l + 1 == info->depth ? 1 : tokens, tail = images * queries;
    frozen(&list, base + FC2, tail, mlp, dim, 1);
    frozen(&list, base + FC1, tail, dim, mlp, 1);
    frozen(&list, base + OUTPUT, tail, dim, dim, 1);
    attention(&list, heads, queries, tokens, width, 'n', 't'); /* of the probabilities */
    attention(&list, heads, tokens, width, queries, 't', 'n'); /* of the values */
    if (l > first) attention(&list, heads, queries, width, tokens, 'n', 'n');
    attention(&list, heads, tokens, width, queries, 't', 'n'); /* of the keys */
    if (l == first) break;                                     /* nothing goes on to the blocks below */
    if (queries == tokens) {
      frozen(&list, base + QKV, rows, dim, 3 * dim, 1);
    } else {
      frozen(&list, base + QKV, rows, dim, 2 * dim, 1);
      frozen(&list, base + QKV, tail, dim, dim, 1);
    }
  }
  return list.failed;
}
