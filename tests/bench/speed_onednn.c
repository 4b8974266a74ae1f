/* The machine's limit by oneDNN, in float32 and bfloat16 (summed up in float32): the products of a pass alone, weights
 * in the order that oneDNN likes best.
 * SPDX-License-Identifier: Apache-2.0 */
#include "speed.h"

#ifndef SPEED_HAVE_ONEDNN
int speed_onednn_open(const struct speed_setup *setup, const struct speed_request *request, struct speed_case *out) {
  (void)setup, (void)request, (void)out;
  return speed_fail("the bench was built without oneDNN (Debian: libdnnl-dev)");
}

int speed_onednn_check(const struct speed_setup *setup) {
  return speed_onednn_open(setup, NULL, NULL);
}

const char *speed_onednn_version(void) {
  return "oneDNN absent";
}
#else
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 0, RIGHT = 1, RESULT = 2, OPERANDS = 3 };

/* One shape; its operands are shared by all products of this shape but for the weights. */
struct kernel {
  struct speed_product shape; /* weight: 1 for any */
  dnnl_primitive_t primitive;
  dnnl_memory_t memory[OPERANDS];
  void *data[OPERANDS];
  void **weights; /* [num_weights], made as they are met */
  size_t bytes;   /* of one weight */
};

/* What one thread needs. */
struct products {
  size_t num_weights;
  dnnl_data_type_t type;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  struct kernel kernels[64];
  size_t count;
};

const char *speed_onednn_version(void) {
  static char text[64];
  const dnnl_version_t *version = dnnl_version();
  snprintf(text, sizeof text, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
  return text;
}

/* Random numbers in any order: those of bfloat16 are the upper halves of float32 ones. */
static void *filled(const struct products *o, size_t bytes) {
  unsigned char *data = malloc(bytes + sizeof(float));
  uint32_t random = 88172645u;
  const size_t step = o->type == dnnl_bf16 ? 2 : 4;
  for (size_t i = 0; data && i + step <= bytes; i += step) {
    const float value = speed_uniform(&random);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t upper = (uint16_t)(bits >> 16);
    if (step == 2) memcpy(data + i, &upper, sizeof upper);
    if (step == 4) memcpy(data + i, &bits, sizeof bits);
  }
  return data;
}

/* ---- where the versions differ ---- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
typedef const_dnnl_memory_desc_t layout_reference;
#define REFER(l) (l)

static int lay_out(layout *out, int dims, const dnnl_dims_t sizes, dnnl_data_type_t type, dnnl_format_tag_t tag) {
  return dnnl_memory_desc_create_with_tag(out, dims, sizes, type, tag) == dnnl_success;
}

static void layout_destroy(layout l) {
  if (l) dnnl_memory_desc_destroy(o);
}

static int describe(dnnl_primitive_desc_t *out, layout *l, dnnl_engine_t engine) {
  return dnnl_matmul_primitive_desc_create(out, engine, l[LEFT], l[RIGHT], NULL, l[RESULT], NULL) == dnnl_success;
}
#else
typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *layout_reference;
#define REFER(l) (&(l))

static int lay_out(layout *out, int dims, const dnnl_dims_t sizes, dnnl_data_type_t type, dnnl_format_tag_t tag) {
  return dnnl_memory_desc_init_by_tag(out, dims, sizes, type, tag) == dnnl_success;
}

static void layout_destroy(layout l) {
  (void)l;
}

static int describe(dnnl_primitive_desc_t *out, layout *l, dnnl_engine_t engine) {
  dnnl_matmul_desc_t product;
  return dnnl_matmul_desc_init(&product, &l[LEFT], &l[RIGHT], NULL, &l[RESULT]) == dnnl_success &&
         dnnl_primitive_desc_create(out, &product, NULL, engine, NULL) == dnnl_success;
}
#endif

/* ---- kernels ---- */

static int lay_out_all(const struct products *o, const struct speed_product *p, layout *out) {
  const dnnl_dim_t count = (dnnl_dim_t)p->count, m = (dnnl_dim_t)p->m, n = (dnnl_dim_t)p->n, k = (dnnl_dim_t)p->k;
  if (p->weight) {
    const dnnl_dims_t left = {m, k}, right = {k, n}, result = {m, n};
    return lay_out(&out[LEFT], 2, left, o->type, dnnl_ab) &&
           lay_out(&out[RIGHT], 2, right, o->type, dnnl_format_tag_any) &&
           lay_out(&out[RESULT], 2, result, o->type, dnnl_ab);
  }
  const dnnl_dims_t left = {count, m, k}, right = {count, k, n}, result = {count, m, n};
  return lay_out(&out[LEFT], 3, left, o->type, p->left == 't' ? dnnl_acb : dnnl_abc) &&
         lay_out(&out[RIGHT], 3, right, o->type, p->right == 't' ? dnnl_acb : dnnl_abc) &&
         lay_out(&out[RESULT], 3, result, o->type, dnnl_abc);
}

static int make(struct products *o, struct kernel *kernel) {
  static const dnnl_query_t queries[OPERANDS] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
  layout layouts[OPERANDS];
  dnnl_primitive_desc_t description = NULL;
  memset(layouts, 0, sizeof layouts);
  int made = lay_out_all(o, &kernel->shape, layouts) && describe(&description, layouts, o->engine) &&
             dnnl_primitive_create(&kernel->primitive, description) == dnnl_success;
  for (size_t i = 0; made && i < OPERANDS; i++) {
    layout_reference chosen = dnnl_primitive_desc_query_md(description, queries[i], 0);
    const size_t bytes = dnnl_memory_desc_get_size(chosen);
    made = dnnl_memory_create(&kernel->memory[i], chosen, o->engine, DNNL_MEMORY_NONE) == dnnl_success;
    if (i == RIGHT && kernel->shape.weight) {
      kernel->bytes = bytes;
    } else {
      kernel->data[i] = filled(o, bytes);
      made = made && kernel->data[i] && dnnl_memory_set_data_handle(kernel->memory[i], kernel->data[i]) == dnnl_success;
    }
  }
  if (kernel->shape.weight) {
    kernel->weights = calloc(o->num_weights + 1, sizeof *kernel->weights);
    made = made && kernel->weights;
  }
  if (description) dnnl_primitive_desc_destroy(description);
  for (size_t i = 0; i < OPERANDS; i++) layout_destroy(layouts[i]);
  return made ? 0
              : speed_fail("oneDNN has no such product in %s on this processor",
                           o->type == dnnl_bf16 ? "bfloat16" : "float32");
}

static struct kernel *find(struct products *o, const struct speed_product *p) {
  for (size_t i = 0; i < o->count; i++) {
    const struct speed_product *s = &o->kernels[i].shape;
    if (s->count == p->count && s->m == p->m && s->n == p->n && s->k == p->k && s->left == p->left &&
        s->right == p->right && !s->weight == !p->weight) {
      return &o->kernels[i];
    }
  }
  if (o->count == sizeof o->kernels / sizeof *o->kernels) {
    speed_fail("too many shapes");
    return NULL;
  }
  struct kernel *kernel = &o->kernels[o->count++]; /* closed with the others where it cannot be made */
  kernel->shape = *p;
  return make(o, kernel) ? NULL : kernel;
}

static int product(const struct speed_product *p, void *user) {
  struct products *o = user;
  struct kernel *kernel = find(o, p);
  if (!kernel) return 1;
  if (p->weight) {
    void **weight = &kernel->weights[p->weight];
    if (!*weight) *weight = filled(o, kernel->bytes);
    if (!*weight) return speed_fail("no memory");
    if (dnnl_memory_set_data_handle(kernel->memory[RIGHT], *weight) != dnnl_success) return speed_fail("oneDNN failed");
  }
  dnnl_exec_arg_t arguments[OPERANDS] = {{DNNL_ARG_SRC, kernel->memory[LEFT]},
                                         {DNNL_ARG_WEIGHTS, kernel->memory[RIGHT]},
                                         {DNNL_ARG_DST, kernel->memory[RESULT]}};
  if (dnnl_primitive_execute(kernel->primitive, o->stream, OPERANDS, arguments) != dnnl_success ||
      dnnl_stream_wait(o->stream) != dnnl_success) {
    return speed_fail("oneDNN failed");
  }
  return 0;
}

static void destroy(void *user) {
  struct products *o = user;
  for (size_t i = 0; i < o->count; i++) {
    struct kernel *kernel = &o->kernels[i];
    for (size_t j = 0; j < OPERANDS; j++) {
      if (kernel->memory[j]) dnnl_memory_destroy(kernel->memory[j]);
      free(kernel->data[j]);
    }
    for (size_t j = 0; kernel->weights && j <= o->num_weights; j++) free(kernel->weights[j]);
    free(kernel->weights);
    if (kernel->primitive) dnnl_primitive_destroy(kernel->primitive);
  }
  if (o->stream) dnnl_stream_destroy(o->stream);
  if (o->engine) dnnl_engine_destroy(o->engine);
  free(o);
}

static void *create(const struct speed_setup *setup, size_t images, int training) {
  (void)images, (void)training; /* kernels are made as their shapes are met */
  struct products *o = calloc(1, sizeof *o);
  if (!o) {
    speed_fail("no memory");
    return NULL;
  }
  o->num_weights = speed_num_weights(&setup->info);
  o->type = strcmp(setup->products, "bfloat16") == 0 ? dnnl_bf16 : dnnl_f32;
  if (dnnl_engine_create(&o->engine, dnnl_cpu, 0) != dnnl_success ||
      dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags) != dnnl_success) {
    destroy(o);
    speed_fail("oneDNN has no engine for this processor");
    return NULL;
  }
  return o;
}

static int can_make(const struct speed_product *p, void *user) {
  return find(user, p) ? 0 : 1;
}

int speed_onednn_check(const struct speed_setup *setup) {
  struct products *o = create(setup, 1, 1);
  if (!o) return 1;
  const int failed = speed_products(&setup->info, 1, 0, can_make, o) || speed_products(&setup->info, 1, 1, can_make, o);
  destroy(o);
  return failed;
}

int speed_onednn_open(const struct speed_setup *setup, const struct speed_request *request, struct speed_case *out) {
  static const struct speed_backend backend = {create, product, destroy};
  return speed_limit_open(setup, request, &backend, out);
}
#endif
