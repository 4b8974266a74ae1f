/* The machine's limit in float32 by the BLAS that the library links.
 * SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <stdlib.h>

#include "speed.h"

struct operands {
  float *weights; /* one matrix after another, so that they come from memory as the real ones do */
  size_t weight_size;
  float *in, *out; /* of activations */
  size_t largest_in, largest_out;
};

static int measure(const struct speed_product *p, void *user) {
  struct operands *o = user;
  const size_t in = p->count * (p->m * p->k + (p->weight ? 0 : p->k * p->n)), out = p->count * p->m * p->n;
  if (p->weight && p->n * p->k > o->weight_size) o->weight_size = p->n * p->k;
  if (in > o->largest_in) o->largest_in = in;
  if (out > o->largest_out) o->largest_out = out;
  return 0;
}

static void multiply(const struct speed_product *p, const float *a, const float *b, float *c) {
  const int left = p->left == 't', right = p->right == 't';
  cblas_sgemm(CblasRowMajor, left ? CblasTrans : CblasNoTrans, right ? CblasTrans : CblasNoTrans, (int)p->m, (int)p->n,
              (int)p->k, 1.0f, a, (int)(left ? p->m : p->k), b, (int)(right ? p->k : p->n), 0.0f, c, (int)p->n);
}

static int product(const struct speed_product *p, void *user) {
  struct operands *o = user;
  if (p->weight) {
    multiply(p, o->in, o->weights + (p->weight - 1) * o->weight_size, o->out);
    return 0;
  }
  /* Small ones, one an attention head: side by side where this is the only thread. */
  const float *right = o->in + p->count * p->m * p->k;
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (size_t i = 0; i < p->count; i++) {
    multiply(p, o->in + i * p->m * p->k, right + i * p->k * p->n, o->out + i * p->m * p->n);
  }
  return 0;
}

static void destroy(void *user) {
  struct operands *o = user;
  free(o->weights);
  free(o->in);
  free(o->out);
  free(o);
}

static void fill(float *values, size_t count) {
  uint32_t random = 88172645u;
  for (size_t i = 0; i < count; i++) values[i] = speed_uniform(&random);
}

static void *create(const struct speed_setup *setup, size_t images, int training) {
  struct operands *o = calloc(1, sizeof *o);
  if (o) {
    (void)speed_products(&setup->info, images, training, measure, o);
    const size_t weights = speed_num_weights(&setup->info) * o->weight_size;
    o->weights = malloc(weights * sizeof *o->weights);
    o->in = malloc(o->largest_in * sizeof *o->in);
    o->out = malloc(o->largest_out * sizeof *o->out);
    if (o->weights && o->in && o->out) {
      fill(o->weights, weights);
      fill(o->in, o->largest_in);
      fill(o->out, o->largest_out);
      return o;
    }
    destroy(o);
  }
  speed_fail("no memory");
  return NULL;
}

int speed_sgemm_open(const struct speed_setup *setup, const struct speed_request *request, struct speed_case *out) {
  static const struct speed_backend backend = {create, product, destroy};
  return speed_limit_open(setup, request, &backend, out);
}
