/* Products with a constant matrix, kept in the order in which oneDNN's kernels read it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DLI_LINALG_PACKED_H
#define DLI_LINALG_PACKED_H

#include <stdbool.h>
#include <stdint.h>

#include "linalg/matrix.h"
#include "linalg/onednn.h"

/* A matrix b [inner, outer] in float32 or bfloat16. Constant once filled: many threads may use it.
 *
 *     part 0: rows [0, depth) of b             part 1: rows [depth, 2 depth)           ...
 *     [panel 0: 64 columns][panel 1] ...       [panel 0][panel 1] ...
 *
 * In bfloat16 the products with parts are added up one after the other. How oneDNN sums up longer rows depends on the
 * number of rows of x, and one float32 rounded otherwise here may become another bfloat16 in the next layer: what is
 * found in an image would depend on what else is in the batch. In float32 there is one part. */
struct dli_packed {
  size_t inner, outer;
  size_t depth; /* rows of a part; of the last one what is left */
  bool bfloat16;
  void *values;
};
dlora_status dli_packed_create(struct dli_packed **out, const struct dli_onednn *onednn, size_t inner, size_t outer,
                               const dlora_allocator *allocator);
void dli_packed_destroy(struct dli_packed *packed, const dlora_allocator *allocator);
/* b[k, n] = w[n * ld + k] if transposed, else w[k * ld + n]; to the nearest bfloat16, ties to even. */
void dli_packed_fill(struct dli_packed *packed, const float *w, size_t ld, bool transposed);

/* One thread's products: kernels for the shapes it has met, and room for inputs in bfloat16 and outputs without gaps.
 */
struct dli_products;
/* For up to `rows` rows of up to `inner` columns in, and in float32 up to `outer` columns out where there are gaps
 * between them. */
dlora_status dli_products_create(struct dli_products **out, const struct dli_onednn *onednn, size_t rows, size_t inner,
                                 size_t outer, const dlora_allocator *allocator);
void dli_products_destroy(struct dli_products *products);
size_t dli_products_bytes(const struct dli_products *products);
/* y [m, count] = x [m, inner] b[:, first ... first + count), plus y if accumulate, plus those of bias [outer] unless
 * NULL; summed up in float32. False, and y untouched, where in float32 these columns cannot be used by themselves or
 * there is no memory. */
bool dli_products_run(struct dli_products *products, const struct dli_packed *packed, size_t first, const float *bias,
                      struct dli_const_matrix x, bool accumulate, struct dli_matrix y);
/* Factors that are in bfloat16 already lie in slabs: columns [0, DLI_SLAB) of all rows without gaps, then the next
 * ones, the last slab with what is left. Each is what one part of a packed matrix is multiplied with. */
enum { DLI_SLAB = 768 };
/* y [m, count] = x [m, inner] b[:, first ... first + count), plus y if accumulate, plus those of bias [outer] unless
 * NULL; packed in bfloat16, x in slabs. */
void dli_products_slabs(struct dli_products *products, const struct dli_packed *packed, size_t first, const float *bias,
                        const uint16_t *x, bool accumulate, struct dli_matrix y);
/* The same of one slab x and the part of its number alone. */
void dli_products_slab(struct dli_products *products, const struct dli_packed *packed, size_t number, size_t first,
                       const float *bias, const uint16_t *x, bool accumulate, struct dli_matrix y);
/* y [m, outer] = x [m, inner] b, factors in bfloat16 and summed up in float32; x and y without gaps, b [inner, outer]
 * in panels like a part of dli_packed. By the calling thread alone. */
void dli_products_multiply(struct dli_products *products, size_t m, size_t inner, size_t outer, const uint16_t *x,
                           const uint16_t *b, float *y);

#endif
